//! When the messages of an open loop are due.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::ticks::Ticks;
use crate::workload::{Pattern, Task};

/// How the messages of a sender are spread over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// One as long after the other as the next after it.
    #[default]
    Even,
    /// As independent users would: the time to the next says nothing about that to the one after.
    Poisson,
}

impl Arrivals {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Arrivals::Even => "even",
            Arrivals::Poisson => "poisson",
        }
    }
}

/// The moments at which one sender's messages are due. Neither answers nor lateness move them.
///
/// Members that cast in turn step through one sequence of moments, which all of them draw alike, and each takes those of
/// its own; other senders have a sequence each.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// From one moment to the next, in means; gone through again and again.
    gaps: Vec<f64>,
    at: usize,
    /// The mean, in fractions of ticks.
    mean: f64,
    second: u64,
    /// Moments to the next of this sender, and from the beginning of a block to the first.
    stride: usize,
    first: usize,
    /// When the next message is due, in fractions of ticks after `begun_at`.
    due: u64,
    begun_at: u64,
}

impl Schedule {
    /// The moments of a sender with a task, at so many messages per second.
    pub fn new(task: &Task, rate: f64, ticks: &Ticks) -> Schedule {
        let shared = task.pattern == Pattern::Alternating;
        let (stride, first, seed) = match shared {
            true => (task.members, task.rank.index(), 0),
            false => (1, 0, task.rank.index() as u64),
        };
        let gaps = match task.arrivals {
            Arrivals::Even => vec![1.0],
            Arrivals::Poisson => exponential(seed),
        };
        let second = ticks.lasting(Duration::from_secs(1));
        let mut schedule = Schedule { gaps, at: 0, mean: 0.0, second, stride, first, due: 0, begun_at: 0 };
        schedule.pace(rate);
        schedule
    }

    /// From the next block on so many messages per second are due.
    pub fn pace(&mut self, rate: f64) {
        self.mean = self.second as f64 * FRACTIONS / (rate * self.stride as f64);
    }

    /// Begins anew at a moment in ticks. In the same block senders that share a sequence begin at the same place of it.
    pub fn restart(&mut self, begun_at: u64, block: u64) {
        self.begun_at = begun_at;
        self.due = 0;
        self.at = mixed(block) as usize % self.gaps.len();
        self.step(self.first);
    }

    /// When the next message is due, in ticks.
    #[inline]
    pub fn due(&self) -> u64 {
        self.begun_at + (self.due >> FRACTION_BITS)
    }

    /// The message that was due has been sent.
    #[inline]
    pub fn advance(&mut self) {
        self.step(self.stride);
    }

    #[inline]
    fn step(&mut self, moments: usize) {
        for _ in 0..moments {
            self.due += (self.gaps[self.at] * self.mean) as u64;
            self.at += 1;
            if self.at == self.gaps.len() {
                self.at = 0;
            }
        }
    }
}

/// Exponentially distributed gaps, of mean 1.
fn exponential(seed: u64) -> Vec<f64> {
    let drawn = (0..GAPS as u64).map(|nth| {
        // 53 random bits make a share above 0 and at most 1.
        let share = ((mixed(seed << 32 | nth) >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        -share.ln()
    });
    let drawn: Vec<f64> = drawn.collect();
    let scale = GAPS as f64 / drawn.iter().sum::<f64>();
    drawn.iter().map(|gap| gap * scale).collect()
}

/// A number that looks like nothing (the finaliser of splitmix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

/// A tick in 2^20 parts: the error of a gap is below one in a thousand at a thousand million messages per second, and an
/// hour of ticks fits a word.
const FRACTION_BITS: u32 = 20;
const FRACTIONS: f64 = (1_u64 << FRACTION_BITS) as f64;
/// Drawn once: drawing for each message would cost more than casting one.
const GAPS: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;
    use wadjet::id::Rank;

    fn task(pattern: Pattern, rank: u16, arrivals: Arrivals) -> Task {
        Task {
            pattern,
            members: 3,
            rank: Rank(rank),
            size: 64,
            rate: Some(1e6),
            arrivals,
            every_latency: true,
            own_copies: true,
            repeat_marks: false,
        }
    }

    /// The first moments of a block, in ticks after its beginning.
    fn moments(pattern: Pattern, rank: u16, arrivals: Arrivals, block: u64, count: usize) -> Vec<u64> {
        let mut schedule = Schedule::new(&task(pattern, rank, arrivals), 1e6, &Ticks::new());
        schedule.restart(1000, block);
        let next = |_| {
            let due = schedule.due();
            schedule.advance();
            due - 1000
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn both_kinds_of_arrivals_keep_the_rate() {
        let second = Ticks::new().lasting(Duration::from_secs(1)) as f64;
        for arrivals in [Arrivals::Even, Arrivals::Poisson] {
            let last = moments(Pattern::Stream, 0, arrivals, 1, GAPS + 1)[GAPS];
            let rate = GAPS as f64 / (last as f64 / second);
            assert!((rate / 1e6 - 1.0).abs() < 1e-4, "{arrivals:?}: {rate}");
        }
    }

    #[test]
    fn the_gaps_of_independent_arrivals_vary_as_much_as_they_last() {
        let moments = moments(Pattern::AllToAll, 1, Arrivals::Poisson, 1, GAPS);
        let gaps: Vec<f64> = moments.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{} {mean}", variance.sqrt());
        let longer = gaps.iter().filter(|gap| **gap > mean).count() as f64 / gaps.len() as f64;
        assert!((longer - (-1.0_f64).exp()).abs() < 0.02, "{longer}");
    }

    #[test]
    fn who_casts_in_turn_shares_one_sequence() {
        for arrivals in [Arrivals::Even, Arrivals::Poisson] {
            let of = |rank| moments(Pattern::Alternating, rank, arrivals, 5, 100);
            let (first, second, third) = (of(0), of(1), of(2));
            for turn in 0..99 {
                let round = [first[turn], second[turn], third[turn], first[turn + 1]];
                assert!(round.is_sorted(), "{arrivals:?}, turn {turn}: {round:?}");
            }
        }
        let own = |rank| moments(Pattern::AllToAll, rank, Arrivals::Poisson, 5, 100);
        assert_ne!(own(0), own(1), "who casts alone draws alone");
        let of_block = |block| moments(Pattern::Stream, 0, Arrivals::Poisson, block, 100);
        assert_ne!(of_block(1), of_block(2), "no two blocks are alike");
    }
}
