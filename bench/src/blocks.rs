//! Runs blocks of traffic on the members this thread hosts.

use std::time::{Duration, Instant};

use crate::party::Party;
use crate::workload::Goal;

/// Members in one thread, by whether they take part in the present block.
pub type Parties = Vec<Box<dyn Party>>;

/// A run that does not come to its end. The text says why, or who waits for what.
#[derive(Debug, thiserror::Error)]
pub enum Standstill {
    /// Nothing moves.
    #[error("no progress for {} s: {waits}", STANDSTILL.as_secs())]
    Waits {
        /// Each member's state.
        waits: String,
    },
    /// A member can no longer take part.
    #[error("{0}")]
    Trouble(String),
}

/// Runs one block on all of `parties` until each has finished.
///
/// `bystanders` take part in other blocks. Polling them always would be measured; they are served once in
/// `BYSTANDERS_EVERY`, so that a group whose members watch each other takes none of them for failed, and when nothing moves
/// here: somebody elsewhere may still need a repair from them.
///
/// # Errors
/// [`Standstill`] if nothing moves for too long.
pub fn run_block(parties: &mut Parties, bystanders: &mut Parties, goal: Goal) -> Result<(), Standstill> {
    for party in parties.iter_mut() {
        party.begin(goal);
    }
    let mut watch = Watch::new();
    loop {
        for party in parties.iter_mut() {
            party.step();
        }
        if parties.iter().all(|party| party.workload().finished()) {
            return Ok(());
        }
        match watch.look(parties) {
            Stillness::None => {}
            Stillness::Bystanders => {
                bystanders.iter_mut().for_each(|party| party.step());
                if let Some(trouble) =
                    parties.iter().chain(bystanders.iter()).find_map(|party| party.trouble())
                {
                    return Err(Standstill::Trouble(trouble));
                }
            }
            Stillness::TooLong => {
                let waits: Vec<String> = parties.iter().map(|party| party.workload().waits_for()).collect();
                return Err(Standstill::Waits { waits: waits.join("; ") });
            }
        }
    }
}

/// Serves members that have nothing left to do themselves, until told to stop or `limit` has passed.
pub fn linger(parties: &mut Parties, limit: Duration, mut stop: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !stop() && Instant::now() < end {
        parties.iter_mut().for_each(|party| party.step());
    }
}

enum Stillness {
    None,
    /// It is their turn, or nothing has moved for a short time.
    Bystanders,
    TooLong,
}

/// Looks at the clock and at progress once in many iterations.
struct Watch {
    countdown: u32,
    progress: u64,
    moved: Instant,
    short: bool,
    /// When bystanders were served last.
    served: Instant,
}

impl Watch {
    fn new() -> Watch {
        let now = Instant::now();
        Watch { countdown: LOOK_EVERY, progress: 0, moved: now, short: false, served: now }
    }

    #[inline]
    fn look(&mut self, parties: &Parties) -> Stillness {
        self.countdown -= 1;
        if self.countdown > 0 && !self.short {
            return Stillness::None;
        }
        self.look_now(parties)
    }

    #[cold]
    fn look_now(&mut self, parties: &Parties) -> Stillness {
        self.countdown = LOOK_EVERY;
        let progress = parties.iter().fold(0_u64, |sum, party| sum.wrapping_add(party.workload().progress()));
        let now = Instant::now();
        if progress != self.progress {
            (self.progress, self.moved) = (progress, now);
        }
        let still = now - self.moved;
        self.short = still > SHORT;
        if still > STANDSTILL {
            Stillness::TooLong
        } else if self.short || now - self.served > BYSTANDERS_EVERY {
            self.served = now;
            Stillness::Bystanders
        } else {
            Stillness::None
        }
    }
}

/// Iterations between two looks at the clock: those of a raw stream over xdp take up to 100 us.
const LOOK_EVERY: u32 = 16;
/// How often members that take part in other blocks are served: less than a heartbeat, and some thousandths of the time.
const BYSTANDERS_EVERY: Duration = Duration::from_millis(1);
const SHORT: Duration = Duration::from_millis(2);
const STANDSTILL: Duration = Duration::from_secs(5);
