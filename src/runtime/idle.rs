//! What a driver does when there is nothing to do.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::time::Time;

/// What a driver loop does in an iteration in which nothing happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdleStrategy {
    /// Goes on at once. Lowest latency; the core belongs to this thread.
    Spin,
    /// Goes on at once for some iterations, then lets other threads run before each.
    SpinThenYield {
        /// Idle iterations before the first yield.
        spins: u32,
    },
    /// Goes on at once for some iterations, then blocks in the transport until frames come, somebody wakes it, a
    /// deadline falls due or the time-out is over. For tests and low power.
    Park {
        /// Idle iterations before blocking.
        spins: u32,
        /// The longest block.
        timeout: Duration,
    },
    /// [`IdleStrategy::Spin`] while the thread has its core to itself, and `SpinThenYield` while others want it:
    /// several members on one core then take turns in microseconds instead of time slices of milliseconds. Where a yield
    /// gives the core away for as long as such a slice, to somebody who works rather than waits, it is `Park` for a time.
    #[default]
    Adaptive,
}

/// What the loop is to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    Spin,
    Yield,
    Park(Duration),
}

#[derive(Debug)]
pub(super) struct Idler {
    strategy: IdleStrategy,
    /// Iterations in a row in which nothing happened.
    idle: u32,
    crowd: Crowd,
    /// Until when an adaptive loop parks, and how long it has done so at a stretch.
    parks_until: Time,
    parks_for: Duration,
}

impl Idler {
    pub(super) fn new(strategy: IdleStrategy) -> Idler {
        let (parks_until, parks_for) = (Time::ZERO, Duration::ZERO);
        Idler { strategy, idle: 0, crowd: Crowd::Unasked, parks_until, parks_for }
    }

    #[inline]
    pub(super) fn worked(&mut self) {
        self.idle = 0;
    }

    #[inline]
    pub(super) fn idle(&mut self, now: Time) -> Idle {
        self.idle = self.idle.saturating_add(1);
        match self.strategy {
            IdleStrategy::Spin => Idle::Spin,
            IdleStrategy::SpinThenYield { spins } if self.idle <= spins => Idle::Spin,
            IdleStrategy::SpinThenYield { .. } => Idle::Yield,
            IdleStrategy::Park { spins, .. } if self.idle <= spins => Idle::Spin,
            IdleStrategy::Park { timeout, .. } => Idle::Park(timeout),
            IdleStrategy::Adaptive if now < self.parks_until => {
                if self.idle > CROWDED_SPINS {
                    Idle::Park(PARK_MAX)
                } else {
                    Idle::Spin
                }
            }
            IdleStrategy::Adaptive => {
                if self.crowd.crowded(now) && self.idle > CROWDED_SPINS {
                    Idle::Yield
                } else {
                    Idle::Spin
                }
            }
        }
    }

    /// A yield came back at `now`, after so long. If it was a time slice, an adaptive loop parks from now on: who sleeps
    /// is let in ahead of who works as soon as it is woken, and who yields waits for its turn. After a while it tries
    /// again, and parks for longer each time that was too early.
    #[inline]
    pub(super) fn yielded(&mut self, took: Duration, now: Time) {
        if took >= SLICE && self.strategy == IdleStrategy::Adaptive {
            self.park_from(now);
        }
    }

    #[cold]
    fn park_from(&mut self, now: Time) {
        let relapse = self.parks_for > Duration::ZERO && now.since(self.parks_until) < self.parks_for;
        self.parks_for = if relapse { (self.parks_for * 2).min(PARKS_FOR.1) } else { PARKS_FOR.0 };
        self.parks_until = now + self.parks_for;
        self.crowd.presume(self.parks_until);
    }

    /// Whether an adaptive loop has found others wanting its core.
    pub(super) fn crowded(&self) -> bool {
        matches!(self.crowd, Crowd::Asked { crowded: true, .. } | Crowd::Unknown)
    }
}

/// Whether other threads want this thread's core: the kernel counts how long a thread was ready but not running.
#[derive(Debug)]
enum Crowd {
    /// The file is opened on the first idle iteration, because it speaks of the thread that opened it.
    Unasked,
    /// This kernel does not count; then the loop is polite.
    Unknown,
    Asked {
        schedule: File,
        asked: Time,
        waited_nanoseconds: u64,
        crowded: bool,
    },
}

impl Crowd {
    #[inline]
    fn crowded(&mut self, now: Time) -> bool {
        match self {
            Crowd::Asked { asked, crowded, .. } if now.since(*asked) < ASK_INTERVAL => *crowded,
            Crowd::Unknown => true,
            _ => self.ask(now),
        }
    }

    /// Takes the core for crowded until some time after `then`, when there is a new answer.
    fn presume(&mut self, then: Time) {
        if let Crowd::Asked { asked, crowded, .. } = self {
            (*asked, *crowded) = (then, true);
        }
    }

    #[cold]
    fn ask(&mut self, now: Time) -> bool {
        match self {
            Crowd::Unasked => {
                *self = File::open("/proc/thread-self/schedstat").map_or(Crowd::Unknown, |schedule| {
                    match waited_nanoseconds(&schedule) {
                        Some(waited_nanoseconds) => {
                            Crowd::Asked { schedule, asked: now, waited_nanoseconds, crowded: false }
                        }
                        None => Crowd::Unknown,
                    }
                });
                matches!(self, Crowd::Unknown)
            }
            Crowd::Unknown => true,
            Crowd::Asked { schedule, asked, waited_nanoseconds: before, crowded } => {
                let Some(waited) = waited_nanoseconds(schedule) else {
                    *self = Crowd::Unknown;
                    return true;
                };
                let passed = now.since(*asked).as_nanos() as u64;
                *crowded = waited.saturating_sub(*before) * CROWDED_SHARE > passed;
                (*asked, *before) = (now, waited);
                *crowded
            }
        }
    }
}

/// The second number of `schedstat`: nanoseconds spent ready on a run queue. Allocates nothing.
fn waited_nanoseconds(schedule: &File) -> Option<u64> {
    let mut text = [0; 96];
    let length = schedule.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// How often an idle adaptive loop asks: the question is a system call of a microsecond.
const ASK_INTERVAL: Duration = Duration::from_millis(4);
/// A yield that took so long was another thread's time slice: members that take turns come back in microseconds.
const SLICE: Duration = Duration::from_micros(400);
/// How long an adaptive loop parks before it tries to yield again: at first, and at most.
const PARKS_FOR: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// An adaptive loop that parks looks around this often, whether it is woken or not.
const PARK_MAX: Duration = Duration::from_millis(1);
/// A core is crowded if this thread waited for it for more than one part in so many.
const CROWDED_SHARE: u64 = 10;
/// Idle iterations before an adaptive loop on a crowded core yields. Two members on one core, ping-pong, p50: with 4 it
/// takes 4.6 us over shared memory and 16 us over UDP, with 32 it takes 7.9 and 35.
const CROWDED_SPINS: u32 = 4;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn spins_come_before_yields_and_work_starts_over() {
        let mut idler = Idler::new(IdleStrategy::SpinThenYield { spins: 1 });
        assert_eq!([idler.idle(Time::ZERO), idler.idle(Time::ZERO)], [Idle::Spin, Idle::Yield]);
        idler.worked();
        assert_eq!(idler.idle(Time::ZERO), Idle::Spin);
    }

    #[test]
    fn a_parking_loop_blocks_for_its_timeout() {
        let timeout = Duration::from_millis(7);
        let mut idler = Idler::new(IdleStrategy::Park { spins: 0, timeout });
        assert_eq!(idler.idle(Time::ZERO), Idle::Park(timeout));
    }

    #[test]
    fn an_adaptive_loop_parks_for_longer_and_longer_where_a_yield_costs_a_time_slice() {
        let mut idler = Idler::new(IdleStrategy::Adaptive);
        let start = Time::ZERO + Duration::from_secs(1);
        let rest = |idler: &mut Idler, now| {
            idler.worked();
            (0..=CROWDED_SPINS).map(|_| idler.idle(now)).last().unwrap()
        };
        idler.yielded(Duration::from_micros(20), start);
        assert_eq!(rest(&mut idler, start), Idle::Spin, "members that take turns come back as soon");
        idler.yielded(Duration::from_millis(4), start);
        idler.worked();
        assert_eq!(idler.idle(start), Idle::Spin, "something may come at once");
        assert_eq!(rest(&mut idler, start), Idle::Park(PARK_MAX));
        let again = start + PARKS_FOR.0;
        assert_ne!(rest(&mut idler, again), Idle::Park(PARK_MAX));
        idler.yielded(Duration::from_millis(4), again);
        assert_eq!(rest(&mut idler, again + PARKS_FOR.0), Idle::Park(PARK_MAX), "it was too early");
        let quiet = again + PARKS_FOR.0 * 4;
        idler.yielded(Duration::from_millis(4), quiet);
        assert_ne!(rest(&mut idler, quiet + PARKS_FOR.0), Idle::Park(PARK_MAX), "it was not");
        let mut yielding = Idler::new(IdleStrategy::SpinThenYield { spins: 0 });
        yielding.yielded(Duration::from_millis(4), start);
        assert_eq!(rest(&mut yielding, start), Idle::Yield);
    }

    #[test]
    fn an_adaptive_loop_yields_once_it_shares_its_core() {
        // Two threads pinned to one core, each spinning by the strategy, must notice each other.
        let core = crate::runtime::cores()[0];
        let noticed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    crate::runtime::pin(core).unwrap();
                    let mut clock = crate::runtime::Clock::new();
                    let mut idler = Idler::new(IdleStrategy::Adaptive);
                    let end = clock.now() + Duration::from_secs(5);
                    while clock.now() < end && !noticed.load(Ordering::Relaxed) {
                        if idler.idle(clock.now()) == Idle::Yield {
                            noticed.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert!(noticed.into_inner());
    }
}
