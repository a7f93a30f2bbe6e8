//! Runs blocks of traffic on the members this thread hosts.

use std::time::{Duration, Instant};

use crate::party::Party;
use crate::workload::Goal;

/// Members in one thread, by whether they take part in the present block.
pub type Parties = Vec<Box<dyn Party>>;

/// A run that does not end. The text says who waits for what.
#[derive(Debug, thiserror::Error)]
#[error("no progress for {} s: {waits}", STANDSTILL.as_secs())]
pub struct Standstill {
    /// Each member's state.
    pub waits: String,
}

/// Runs one block on all of `parties` until each has finished.
///
/// `bystanders` take part in other blocks. They are served only when nothing moves here: somebody elsewhere may still
/// need a repair from them, but polling them always would be measured.
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
            Stillness::Short => bystanders.iter_mut().for_each(|party| party.step()),
            Stillness::TooLong => {
                let waits: Vec<String> = parties.iter().map(|party| party.workload().waits_for()).collect();
                return Err(Standstill { waits: waits.join("; ") });
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
    Short,
    TooLong,
}

/// Looks at the clock and at progress once in many iterations.
struct Watch {
    countdown: u32,
    progress: u64,
    moved: Instant,
    short: bool,
}

impl Watch {
    fn new() -> Watch {
        Watch { countdown: LOOK_EVERY, progress: 0, moved: Instant::now(), short: false }
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
        if progress != self.progress {
            (self.progress, self.moved) = (progress, Instant::now());
        }
        let still = self.moved.elapsed();
        self.short = still > SHORT;
        match (self.short, still > STANDSTILL) {
            (false, _) => Stillness::None,
            (true, false) => Stillness::Short,
            (true, true) => Stillness::TooLong,
        }
    }
}

const LOOK_EVERY: u32 = 1024;
const SHORT: Duration = Duration::from_millis(2);
const STANDSTILL: Duration = Duration::from_secs(5);
