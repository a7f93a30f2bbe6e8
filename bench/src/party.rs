//! A member of a benchmark: its workload, over a stack or over nothing, in a driver loop.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wadjet::runtime::Loop;
use wadjet::transport::{Transport, TransportCounters};

use crate::raw::RawEngine;
use crate::workload::{Goal, Workload};

/// One member, as the runner sees it. Dynamic, once per iteration, for raw and stack alike.
pub trait Party {
    /// Casts what is due, then runs one iteration of the driver loop.
    fn step(&mut self);
    /// The traffic.
    fn workload(&self) -> &Workload;
    /// Begins a block. The driver may not have run since the last one.
    fn begin(&mut self, goal: Goal);
    /// In an open loop, from the next block on this member casts at another rate.
    fn pace(&mut self, rate: f64);
    /// What was done so far.
    fn account(&self) -> Account;
    /// Whether the driver shares its core with others at the moment.
    fn crowded(&self) -> bool;
    /// Why this member can no longer take part, in words.
    fn trouble(&self) -> Option<String> {
        None
    }
}

/// How the fast path did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FastPath {
    /// Casts that went by the plan.
    pub send_hit: u64,
    /// Casts that went through the layers.
    pub send_miss: u64,
    /// Frames delivered by the plan.
    pub deliver_hit: u64,
    /// Frames parked because they came ahead.
    pub deliver_early: u64,
    /// Frames that went through the layers.
    pub deliver_miss: u64,
}

impl FastPath {
    /// Hits, early ones included, over hits and misses; `None` if there were neither.
    pub fn hit_rate(&self) -> Option<f64> {
        let hits = self.send_hit + self.deliver_hit + self.deliver_early;
        let misses = self.send_miss + self.deliver_miss;
        (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64)
    }

    /// The sums.
    #[must_use]
    pub fn plus(&self, other: &FastPath) -> FastPath {
        FastPath {
            send_hit: self.send_hit + other.send_hit,
            send_miss: self.send_miss + other.send_miss,
            deliver_hit: self.deliver_hit + other.deliver_hit,
            deliver_early: self.deliver_early + other.deliver_early,
            deliver_miss: self.deliver_miss + other.deliver_miss,
        }
    }

    fn minus(&self, earlier: &FastPath) -> FastPath {
        FastPath {
            send_hit: self.send_hit - earlier.send_hit,
            send_miss: self.send_miss - earlier.send_miss,
            deliver_hit: self.deliver_hit - earlier.deliver_hit,
            deliver_early: self.deliver_early - earlier.deliver_early,
            deliver_miss: self.deliver_miss - earlier.deliver_miss,
        }
    }
}

/// What a member did, counted from the beginning or between two moments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The fast path; all zero without a stack.
    pub fast_path: FastPath,
    /// Why plans were missed, in words, and how often.
    pub misses: BTreeMap<String, u64>,
    /// Bytes of the fast header on the wire (without a stack: of the raw header).
    pub header_bytes: usize,
    /// Frames this member's casts took.
    pub cast_frames: u64,
    /// Frames the transport sent, once per destination it addressed.
    pub frames: u64,
    /// System calls of the transport.
    pub system_calls: u64,
    /// Payload copies: the transport's and the stack's.
    pub copies: u64,
    /// Why frames were dropped or passed on to others, in words, and how many.
    pub dropped: BTreeMap<String, u64>,
    /// Times this process was not running for longer than the driver's limit.
    pub pauses: u64,
}

impl Account {
    /// What was done since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Account) -> Account {
        Account {
            fast_path: self.fast_path.minus(&earlier.fast_path),
            misses: counted_since(&self.misses, &earlier.misses),
            header_bytes: self.header_bytes,
            cast_frames: self.cast_frames - earlier.cast_frames,
            frames: self.frames - earlier.frames,
            system_calls: self.system_calls - earlier.system_calls,
            copies: self.copies - earlier.copies,
            dropped: counted_since(&self.dropped, &earlier.dropped),
            pauses: self.pauses - earlier.pauses,
        }
    }

    /// The sums of two members.
    #[must_use]
    pub fn plus(&self, other: &Account) -> Account {
        Account {
            fast_path: self.fast_path.plus(&other.fast_path),
            misses: counted_by_both(&self.misses, &other.misses),
            header_bytes: self.header_bytes.max(other.header_bytes),
            cast_frames: self.cast_frames + other.cast_frames,
            frames: self.frames + other.frames,
            system_calls: self.system_calls + other.system_calls,
            copies: self.copies + other.copies,
            dropped: counted_by_both(&self.dropped, &other.dropped),
            pauses: self.pauses + other.pauses,
        }
    }

    pub(crate) fn of_transport(counters: TransportCounters) -> Account {
        Account {
            frames: counters.frames_sent,
            system_calls: counters.system_calls,
            copies: counters.copies,
            dropped: [
                ("by the transport", counters.dropped),
                ("by the system, not taken in soon enough", counters.overrun),
            ]
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(why, count)| (why.to_owned(), count))
            .collect(),
            ..Account::default()
        }
    }
}

/// What was counted since `earlier`.
fn counted_since(now: &BTreeMap<String, u64>, earlier: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let since = |(why, count): (&String, &u64)| (why.clone(), count - earlier.get(why).unwrap_or(&0));
    now.iter().map(since).filter(|(_, count)| *count > 0).collect()
}

fn counted_by_both(one: &BTreeMap<String, u64>, other: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut sums = one.clone();
    for (why, count) in other {
        *sums.entry(why.clone()).or_default() += count;
    }
    sums
}

impl<T: Transport> Party for Loop<T, RawEngine> {
    #[inline]
    fn step(&mut self) {
        self.engine_mut().produce();
        self.run_once();
    }

    fn workload(&self) -> &Workload {
        self.engine().workload()
    }

    fn begin(&mut self, goal: Goal) {
        self.resume();
        self.engine_mut().workload_mut().begin(goal);
    }

    fn pace(&mut self, rate: f64) {
        self.engine_mut().workload_mut().pace(rate);
    }

    fn account(&self) -> Account {
        Account {
            header_bytes: crate::raw::RAW_HEADER_BYTES,
            cast_frames: self.engine().cast_frames(),
            pauses: self.stats().pauses,
            ..Account::of_transport(self.transport_counters())
        }
    }

    fn crowded(&self) -> bool {
        Loop::crowded(self)
    }
}
