//! The world of one run with views: processes that come and go, and what goes wrong.

mod draw;
mod parts;
mod seldom;

use std::fmt;

use wadjet::accel::broken::Broken;
use wadjet::stack::registry::Registry;

use crate::faults::{Faults, LinkFaults, Partition};
use crate::scenario::{Driver, acceleration};
use crate::workload::Lengths;

pub use seldom::Seldom;

/// The world of one run.
#[derive(Clone, Debug)]
pub struct ViewsSetup {
    /// How many processes there are: addresses, each with one life at a time.
    pub processes: usize,
    /// The stack, top to bottom.
    pub stack: String,
    /// Whether plans are used, or the layers alone.
    pub accelerated: bool,
    /// Where plans are used: processes, bit by bit, that have none, in all their lives.
    pub without_plans: u64,
    /// Whether messages are packed while the way is busy.
    pub packing: bool,
    /// Whether the layers repeat what plans did.
    pub shadow: bool,
    /// The largest frame.
    pub frame_bytes: usize,
    /// Region sizes are divided by this.
    pub scarcity: usize,
    /// Casts of one member that may be unacknowledged at once, in frames.
    pub window: u32,
    /// Frame numbers of one view.
    pub number_limit: u64,
    /// How long post-processing is put off.
    pub post_ns: u64,
    /// How long the channel of a past view stays open.
    pub linger_ns: u64,
    /// What is wrong, on purpose, beside layers.
    pub broken: Broken,
    /// The layers there are.
    pub registry: fn() -> Registry,
    /// All processes begin in one view; else each begins alone, some time in the beginning.
    pub together: bool,
    /// By process: it asks everybody for the group; else it knows all addresses.
    pub discover: Vec<bool>,
    /// In its first life no process does either: who was in a view together remembers.
    pub strange: bool,
    /// The transport knows which processes have ended.
    pub hints: bool,
    /// How long the opening of a channel takes.
    pub open_ns: u64,
    /// What each process's driver loop is like.
    pub drivers: Vec<Driver>,
    /// What goes wrong on the way between processes.
    pub faults: Faults,
    /// What happens to processes, by time.
    pub chaos: Vec<(u64, Chaos)>,
    /// How long all of this goes on.
    pub span_ns: u64,
    /// What the applications do.
    pub load: Load,
    /// Processes, bit by bit, that cast as much as they can once the faults are over for the core, until everybody else has got
    /// something through; nobody if zero.
    pub greedy: u64,
    /// Bytes of an application's state beside its digest, where the stack transfers states.
    pub state_bytes: usize,
    /// A member that is slow, where the stack has such a one expelled.
    pub expulsion: Option<Expulsion>,
    /// What layers are told beside what the stack says.
    pub seldom: Seldom,
    /// In a world that is gentle to all others: a process that hears nobody for a while. Its cuts are among the faults.
    pub deaf: Option<usize>,
    /// What becomes of each process when the faults are over.
    pub fates: Vec<Fate>,
    /// How long the core may then take to become one view and to deliver everything.
    pub patience_ns: u64,
}

/// What happens to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chaos {
    /// It begins a life, if it has none.
    Start {
        /// Which.
        process: usize,
    },
    /// It dies, and begins another life after a while.
    Crash {
        /// Which.
        process: usize,
        /// After how long; never if none.
        back_ns: Option<u64>,
    },
    /// It casts and dies while it sends, so that some get what it cast and others do not; it begins another life after
    /// a while.
    LastWords {
        /// Which.
        process: usize,
        /// How many messages.
        casts: u32,
        /// The processes that its last frames reach, bit by bit.
        reach: u64,
        /// After how long.
        back_ns: u64,
    },
    /// It leaves the group, and begins another life after a while.
    Leave {
        /// Which.
        process: usize,
        /// After how long.
        back_ns: u64,
    },
    /// It stands still.
    Pause {
        /// Which.
        process: usize,
        /// For how long.
        length_ns: u64,
    },
    /// All processes stand still at once, as on a machine that is suspended.
    Standstill {
        /// For how long.
        length_ns: u64,
    },
    /// Its application says that another member of its view has failed.
    Accuse {
        /// Which.
        process: usize,
        /// Whom, counted among the members of its view.
        whom: usize,
    },
}

impl Chaos {
    fn process(self) -> Option<usize> {
        Some(match self {
            Chaos::Standstill { .. } => return None,
            Chaos::Start { process }
            | Chaos::Crash { process, .. }
            | Chaos::LastWords { process, .. }
            | Chaos::Leave { process, .. }
            | Chaos::Pause { process, .. }
            | Chaos::Accuse { process, .. } => process,
        })
    }
}

/// Who is slow, and how long the others put up with that. Kept apart from drivers and stack, which are what they are without
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expulsion {
    /// Who takes in one frame per iteration of its driver loop.
    pub process: usize,
    /// How long such an iteration takes.
    pub iteration_ns: u64,
    /// How long FC waits for a member before it is expelled.
    pub expel_ms: u64,
    /// Everybody casts so many times as often.
    pub haste: u64,
}

/// What becomes of a process when the faults are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It lives and can talk to all of the core.
    Core,
    /// It is dead and stays so.
    Crashed,
    /// No frame passes between it and the core.
    Apart,
    /// It stands still for ever.
    Stopped,
}

/// What the applications do. Chances are per million.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Mean time between the bursts of one process; 0 if it does nothing of its own accord.
    pub gaps_ns: Vec<u64>,
    /// The most messages in a burst.
    pub burst: u32,
    /// A message is a send.
    pub sends: u32,
    /// How long messages are.
    pub lengths: Lengths,
    /// A message is larger than a frame, where the stack carries such.
    pub large: u32,
    /// The longest message, in bytes.
    pub large_bytes: usize,
    /// A delivery is answered from inside the upcall.
    pub reply: u32,
    /// Casts are written in place.
    pub reserve: u32,
    /// Casts are agreed, where the others are safe.
    pub agreed: u32,
    /// A delivered cast, and all before it, is acknowledged.
    pub acknowledge: u32,
    /// What endpoints say of stability is written down.
    pub stability: bool,
    /// The application is not ready for a part of the state.
    pub late_state: u32,
    /// A snapshot cannot be read to its end.
    pub torn_state: u32,
}

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
/// Chances are per million.
const PERCENT: u32 = 10_000;

impl ViewsSetup {
    /// A parameter of a layer of the stack, in milliseconds.
    fn millis(&self, name: &str) -> u64 {
        let found = self.stack.split_once(&format!("{name}=")).map(|(_, rest)| rest);
        let digits = found.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(1000)
    }

    /// The world with the slow member, and a stack that has such a one expelled.
    fn with_expulsion(mut self) -> ViewsSetup {
        if let Some(Expulsion { process, iteration_ns, expel_ms, haste }) = self.expulsion
            && self.has_layer("FC")
        {
            self.load.gaps_ns.iter_mut().for_each(|gap| *gap /= haste);
            let driver = &mut self.drivers[process];
            (driver.iteration_ns, driver.budget) = (iteration_ns, 1);
            self.tell("FC", "expel_ms", &expel_ms.to_string());
        }
        self
    }

    /// Whether a flush waits for the application's word.
    pub(crate) fn blocks(&self) -> bool {
        self.stack.contains("block=yes")
    }

    /// Whether a process casts all it can in the end.
    pub(crate) fn is_greedy(&self, process: usize) -> bool {
        self.greedy >> process & 1 == 1
    }

    /// Whether the stack has a layer.
    pub(crate) fn has_layer(&self, layer: &str) -> bool {
        self.stack.split(':').any(|named| named.split('(').next() == Some(layer))
    }
}

/// The longest messages, in frames.
pub(crate) const LARGE_FRAMES_MAX: u64 = 8;
/// In a gentle world so many frames of a million are lost at most: never enough heartbeats in a row.
const GENTLE_LOSS: u32 = 5 * PERCENT;

impl ViewsSetup {
    /// Whether nothing in this world can make a living process look dead or slow, crashes and leaves of others
    /// notwithstanding, but for the one that is deaf: then nobody else may be excluded.
    pub(crate) fn is_gentle(&self) -> bool {
        let quiet = |(_, what): &(u64, Chaos)| !matches!(what, Chaos::Pause { .. } | Chaos::Accuse { .. });
        // Ten beats must be missed, and the second check as well.
        let patient = self.millis("least_ms") * 1000 >= 10 * self.millis("beat_us");
        // Who does not hear some of the others only may be believed.
        let [cuts, first] = [&self.faults.cuts[..], &self.faults.cuts[..self.faults.cuts.len().min(1)]];
        let alike = |cut: &(usize, usize, u64, u64)| {
            first.iter().all(|(_, to, at, length)| (cut.1, cut.2, cut.3) == (*to, *at, *length))
        };
        let whole = cuts.is_empty() || cuts.len() + 1 == self.processes && cuts.iter().all(alike);
        patient
            && self.millis("least_ms") >= 10
            && self.millis("flush_ms") >= 60
            && self.scarcity == 1
            && self.processes <= 8
            && self.faults.partitions.is_empty()
            && whole
            && self.deaf == first.first().map(|cut| cut.1)
            && self.faults.links.iter().all(is_calm)
            && self.chaos.iter().all(quiet)
            && self.drivers.iter().all(is_quick)
    }
}

/// Longer than any view change that an accusation leads to.
const ACCUSED_NS: u64 = 1_000_000_000;
/// Frames that are lost and repeated, and a pause that is made up for.
const MADE_UP_FOR_NS: u64 = 50 * MILLISECOND;

impl ViewsSetup {
    /// Whether nothing in this world makes anybody slow but pauses, cuts, and that one process is.
    pub(crate) fn delays_nobody_else(&self) -> bool {
        let quick = |(process, driver): (usize, &Driver)| {
            is_quick(driver) || self.expulsion.is_some_and(|expulsion| expulsion.process == process)
        };
        self.expulsion.is_some()
            && self.scarcity == 1
            && self.faults.links.iter().all(is_calm)
            && self.drivers.iter().enumerate().all(quick)
    }

    /// Whether a process may not have taken in what another one cast between two times, in a world where
    /// [`ViewsSetup::delays_nobody_else`]: what happens between it and third ones is no reason, nor that the other does not hear it.
    pub(crate) fn hinders(&self, process: usize, caster: usize, from: u64, until: u64) -> bool {
        let way = |one: usize, other: usize| (one, other) == (caster, process);
        self.expulsion.is_some_and(|expulsion| expulsion.process == process)
            || self.stands_between(from, until, |paused| paused == process, way)
    }

    /// Whether somebody stands still or is cut off between two times, or not long before.
    pub(crate) fn parts_anybody(&self, from: u64, until: u64) -> bool {
        self.stands_between(from, until, |_| true, |_, _| true)
    }

    /// Whether one of those who `stands` says stands still, or of two that `between` says one does not hear the other, between two
    /// times, or not long before.
    fn stands_between(
        &self,
        from: u64,
        until: u64,
        stands: impl Fn(usize) -> bool,
        between: impl Fn(usize, usize) -> bool,
    ) -> bool {
        let overlaps = |at: u64, length: u64| at <= until && from <= at + length + MADE_UP_FOR_NS;
        let pauses = |(at, what): &(u64, Chaos)| match what {
            Chaos::Pause { process, length_ns } => stands(*process) && overlaps(*at, *length_ns),
            // Who is given up by one is heard by the others, until one of the two goes.
            Chaos::Accuse { .. } => overlaps(*at, ACCUSED_NS),
            _ => false,
        };
        let pairs = || (0..self.processes).flat_map(|from| (0..self.processes).map(move |to| (from, to)));
        let divides =
            |cut: &Partition| pairs().any(|(from, to)| between(from, to) && cut.divides(from, to, cut.at));
        until >= self.span_ns && self.fates.iter().any(|fate| *fate != Fate::Core)
            || self.chaos.iter().any(pauses)
            || self.faults.partitions.iter().any(|cut| overlaps(cut.at, cut.until - cut.at) && divides(cut))
            || self
                .faults
                .cuts
                .iter()
                .any(|(from, to, at, length)| between(*from, *to) && overlaps(*at, *length))
    }
}

/// Whether a link loses and delays so little that nobody notices.
fn is_calm(link: &LinkFaults) -> bool {
    let LinkFaults { loss, burst, spike, corrupt, delay_ns, jitter_ns, reorder_ns, .. } = *link;
    loss <= GENTLE_LOSS
        && burst == 0
        && spike == 0
        && corrupt == 0
        && delay_ns + jitter_ns + reorder_ns < MILLISECOND
}

/// Whether a process takes in at once what has come.
fn is_quick(driver: &Driver) -> bool {
    driver.iteration_ns <= 20 * MICROSECOND && driver.inbox_frames_max >= 4096
}

impl fmt::Display for ViewsSetup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |on: bool| if on { "on" } else { "off" };
        let millis = |ns: u64| ns as f64 / 1e6;
        writeln!(
            formatter,
            "{} processes of {}, frames of {} B, acceleration {}, packing {}, shadow {}, window {}, scarcity {}, \
             numbers {}, post-processing after {} ms, lingers {} ms, opens in {} ms, {}, hints {}, {} ms of faults",
            self.processes,
            self.stack,
            self.frame_bytes,
            acceleration(self.accelerated, self.without_plans),
            on(self.packing),
            on(self.shadow),
            self.window,
            self.scarcity,
            self.number_limit,
            millis(self.post_ns),
            millis(self.linger_ns),
            millis(self.open_ns),
            match (self.together, self.strange) {
                (false, _) => "alone at first",
                (true, false) => "in one view from the start",
                (true, true) => "in one view from the start and with no other address",
            },
            on(self.hints),
            millis(self.span_ns),
        )?;
        if self.greedy != 0 {
            let greedy: Vec<usize> = (0..self.processes).filter(|at| self.greedy >> at & 1 == 1).collect();
            writeln!(formatter, "  in the end {greedy:?} cast without end, until all others are heard")?;
        }
        writeln!(formatter, "  {:?}", self.load)?;
        for (process, driver) in self.drivers.iter().enumerate() {
            let (fate, discover) = (self.fates[process], on(self.discover[process]));
            writeln!(formatter, "  p{process}: {driver:?}, discovers {discover}, in the end {fate:?}")?;
        }
        let pairs = self.faults.links.iter().enumerate().map(|(at, link)| {
            (format!("p{} to p{}", at / self.processes, at % self.processes), format!("{link:?}"))
        });
        let mut alike: Vec<(String, Vec<String>)> = Vec::new();
        for (pair, link) in pairs {
            match alike.iter_mut().find(|(known, _)| *known == link) {
                Some((_, pairs)) => pairs.push(pair),
                None => alike.push((link, vec![pair])),
            }
        }
        for (link, pairs) in alike {
            let which = if pairs.len() > 6 { format!("{} links", pairs.len()) } else { pairs.join(", ") };
            writeln!(formatter, "  {which}: {link}")?;
        }
        for (at, chaos) in &self.chaos {
            writeln!(formatter, "  at {:.3} ms {chaos:?}", millis(*at))?;
        }
        for Partition { at, until, side, one_way } in &self.faults.partitions {
            let side: Vec<usize> = (0..self.processes).filter(|process| side >> process & 1 == 1).collect();
            let way = if *one_way { "is not heard" } else { "is apart" };
            writeln!(formatter, "  from {:.3} to {:.3} ms {side:?} {way}", millis(*at), millis(*until))?;
        }
        for (from, to, at, length) in &self.faults.cuts {
            let until = millis(at + length);
            writeln!(formatter, "  from {:.3} to {until:.3} ms p{from} to p{to} is cut", millis(*at))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn a_stack_that_says_itself_how_long_fc_waits_is_taken_as_it_is() {
        let mut setup = ViewsSetup::draw(&mut Random::new(1, "setup"), None);
        let expulsion = Expulsion { process: 0, iteration_ns: 1000, expel_ms: 7, haste: 1 };
        setup.expulsion = Some(expulsion);
        let below = "UNICAST:LOCAL:NAK:CHKSUM:COM";
        for (given, lived) in [
            (format!("STABLE:FC(expel_ms=20):{below}"), format!("STABLE:FC(expel_ms=20):{below}")),
            (format!("STABLE:FC(window=8):{below}"), format!("STABLE:FC(expel_ms=7,window=8):{below}")),
        ] {
            setup.stack = given;
            assert_eq!(setup.clone().with_expulsion().stack, lived);
        }
    }
}
