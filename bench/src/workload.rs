//! The patterns of traffic, written once for raw transports and for stacks.
//!
//! A run is a sequence of *blocks*. In a block every sender sends its messages and then a *mark* that tells its total;
//! who does not send of its own accord sends its mark when it has the sender's. A member has finished a block when it
//! has sent its mark and has those of all others, so that no block begins before the one before is over everywhere,
//! and every receiver knows what it should have got.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use wadjet::id::Rank;

use crate::histogram::{Latencies, LatencySummary};
use crate::payload::{Stamp, Verifier, intended};
use crate::schedule::{Arrivals, Schedule};
use crate::ticks::Ticks;

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// Member 0 casts, all others answer by a cast each, and so on. Latency is the round trip.
    Pingpong,
    /// Member 0 casts. Latency is one way.
    Stream,
    /// Everybody casts. Latency is one way.
    AllToAll,
    /// Everybody casts in turn, each when it has the message of the member before; at a rate, each when its turn is due.
    /// Latency is one way.
    Alternating,
}

impl Pattern {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Pingpong => "pingpong",
            Pattern::Stream => "stream",
            Pattern::AllToAll => "all-to-all",
            Pattern::Alternating => "alternating",
        }
    }

    /// Members that cast of their own accord, of so many.
    pub fn senders(self, members: usize) -> usize {
        match self {
            Pattern::Pingpong | Pattern::Stream => 1,
            Pattern::AllToAll | Pattern::Alternating => members,
        }
    }

    /// The member whose figures stand for the run: who measures round trips, or one receiver.
    pub fn measured_at(self, members: usize) -> usize {
        if self == Pattern::Stream && members > 1 { 1 } else { 0 }
    }
}

/// How much is sent in a block.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Goal {
    /// So many messages by each sender; in a ping-pong, so many rounds.
    Messages(u64),
    /// As many as go in the time.
    Time(Duration),
}

/// What one member is to do.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// Who talks to whom.
    pub pattern: Pattern,
    /// Members of the view.
    pub members: usize,
    /// This one.
    pub rank: Rank,
    /// Bytes of a message.
    pub size: usize,
    /// Open loop: messages per second by each sender, sent when they are due whatever happened to those before.
    pub rate: Option<f64>,
    /// How they are spread over time.
    pub arrivals: Arrivals,
    /// Whether the latency of every message is taken, and not of one in so many.
    pub every_latency: bool,
    /// Whether a member gets its own casts.
    pub own_copies: bool,
    /// Whether a lost mark must be repeated here, because nothing below does it.
    pub repeat_marks: bool,
}

/// Where messages go.
pub trait Outlet {
    /// Casts a message of `length` bytes, written by `fill`. `false` if there is no room now; `fill` was not called.
    fn cast(&mut self, length: usize, fill: impl FnOnce(&mut [u8])) -> bool;
}

/// What a block came to at one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockResult {
    /// Messages that came from others; in a ping-pong, rounds.
    pub delivered: u64,
    /// From the first of them, or the beginning of an open loop, to the last mark.
    pub seconds: f64,
    /// Their latencies.
    pub latency: LatencySummary,
}

impl BlockResult {
    /// Deliveries or rounds per second.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.delivered as f64 / self.seconds } else { 0.0 }
    }
}

/// The traffic of one member.
#[derive(Debug)]
pub struct Workload {
    task: Task,
    ticks: Ticks,
    verifier: Verifier,
    /// Messages cast so far, marks not counted; the next one's number.
    sent: u64,
    /// The block running, from 1.
    block: u64,
    /// The latest block each member has finished sending in.
    marks: Vec<u64>,
    marked: bool,
    mark_sent_at: u64,
    /// Of the present block:
    begun_at: u64,
    /// A number of messages, or a time in ticks: see `goal`.
    sends_until: u64,
    goal: Goal,
    /// When messages are due, in an open loop.
    schedule: Option<Schedule>,
    /// Answers the present ping, or round of turns, still lacks.
    awaited: usize,
    pinged_at: u64,
    rounds: u64,
    /// Pings not yet answered, or turns not yet taken, for lack of room.
    owed: u64,
    tally: Tally,
    /// Of the next block: others may have begun it already.
    next: Tally,
}

/// What came in a block.
#[derive(Debug, Default)]
struct Tally {
    delivered: u64,
    first_at: u64,
    last_at: u64,
    next_sample: u64,
    latencies: Latencies,
}

impl Workload {
    /// A member's traffic, before its first block.
    pub fn new(task: Task) -> Workload {
        let ticks = Ticks::new();
        Workload {
            schedule: task.rate.map(|rate| Schedule::new(&task, rate, &ticks)),
            ticks,
            verifier: Verifier::new(task.members),
            sent: 0,
            block: 0,
            marks: vec![0; task.members],
            marked: true,
            mark_sent_at: 0,
            begun_at: 0,
            sends_until: 0,
            goal: Goal::Messages(0),
            awaited: 0,
            pinged_at: 0,
            rounds: 0,
            owed: 0,
            tally: Tally::default(),
            next: Tally::default(),
            task,
        }
    }

    /// Begins the next block.
    pub fn begin(&mut self, goal: Goal) {
        self.block += 1;
        self.marked = false;
        self.begun_at = self.ticks.now();
        self.goal = goal;
        if let (Some(schedule), Some(rate)) = (&mut self.schedule, self.task.rate) {
            schedule.restart(self.begun_at + self.ticks.lasting(LEAD_IN), self.block);
            // An open loop is as long as its messages, sent or not: what is late is measured, not left out.
            if let Goal::Time(time) = goal {
                self.goal = Goal::Messages((rate * time.as_secs_f64()).ceil() as u64);
            }
        }
        self.sends_until = match self.goal {
            Goal::Messages(count) => self.sent + count,
            Goal::Time(time) => self.begun_at + self.ticks.lasting(time),
        };
        self.rounds = 0;
        std::mem::swap(&mut self.tally, &mut self.next);
        self.next.clear();
        if self.tally.delivered == 0 {
            (self.tally.first_at, self.tally.last_at) = (self.begun_at, self.begun_at);
        }
    }

    /// From the next block on each sender casts at another rate. Nothing happens in a closed loop.
    pub fn pace(&mut self, rate: f64) {
        if let Some(schedule) = &mut self.schedule {
            self.task.rate = Some(rate);
            schedule.pace(rate);
        }
    }

    /// Casts what is due. Called between two iterations of the driver.
    #[inline]
    pub fn produce(&mut self, out: &mut impl Outlet) {
        while self.owed > 0 && self.answer(out) {
            self.owed -= 1;
        }
        if self.marked {
            if self.task.repeat_marks {
                self.repeat_mark(out);
            }
            return;
        }
        let done = match (self.task.pattern, self.task.rank.0) {
            (Pattern::Alternating, _) if self.schedule.is_some() => self.stream(out),
            (Pattern::Pingpong | Pattern::Alternating, 0) => {
                // While an answer is awaited there is nothing to do here, not even to read the clock.
                self.awaited == 0 && {
                    let now = self.ticks.now();
                    let more = self.more_rounds(now);
                    if more {
                        self.ping(now, out);
                    }
                    !more
                }
            }
            (Pattern::Stream, 0) | (Pattern::AllToAll, _) => self.stream(out),
            (Pattern::Pingpong | Pattern::Stream | Pattern::Alternating, _) => {
                self.marks[0] >= self.block && self.owed == 0
            }
        };
        if done && self.cast_mark(out) {
            self.marked = true;
        }
    }

    /// Takes one message; may answer it at once.
    #[inline]
    pub fn message(&mut self, origin: Rank, message: &[u8], out: &mut impl Outlet) {
        if message.len() != self.task.size {
            return self.take_mark(origin, message);
        }
        self.verifier.message(origin, message);
        if origin == self.task.rank {
            return;
        }
        match (self.task.pattern, self.task.rank.0) {
            (Pattern::Pingpong, 0) => self.take_pong(out),
            // The others' answers are not for us: who answered them would never stop.
            (Pattern::Pingpong, _) if origin == Rank(0) => self.answer_or_owe(out),
            (Pattern::Pingpong, _) => {}
            (Pattern::Stream | Pattern::AllToAll, _) => self.take(origin, message),
            (Pattern::Alternating, rank) => {
                self.take(origin, message);
                let before = if rank == 0 { self.task.members - 1 } else { usize::from(rank) - 1 };
                if origin.index() == before && self.schedule.is_none() {
                    if rank == 0 { self.take_turn(out) } else { self.answer_or_owe(out) }
                }
            }
        }
    }

    /// Counts a message from another, and takes its latency where it is that one's turn.
    #[inline]
    fn take(&mut self, origin: Rank, message: &[u8]) {
        // Who has sent the mark of this block is in the next.
        let early = self.marks[origin.index()] >= self.block;
        let tally = if early { &mut self.next } else { &mut self.tally };
        if tally.delivered >= tally.next_sample {
            tally.sample(message, &self.ticks, self.task.every_latency);
        }
        tally.delivered += 1;
    }

    /// Whether the block is over here.
    #[inline]
    pub fn finished(&self) -> bool {
        self.marked
            && self.marks.iter().enumerate().all(|(at, mark)| {
                *mark >= self.block || (at == self.task.rank.index() && !self.task.own_copies)
            })
    }

    /// What the block came to.
    pub fn result(&self) -> BlockResult {
        // What an open loop brings late was due from the beginning.
        let first_at = if self.schedule.is_some() { self.begun_at } else { self.tally.first_at };
        let seconds = self.ticks.nanoseconds(first_at, self.tally.last_at) as f64 / 1e9;
        let pinging = self.task.pattern == Pattern::Pingpong;
        BlockResult {
            delivered: if pinging { self.rounds } else { self.tally.delivered },
            seconds,
            latency: self.tally.latencies.summary(),
        }
    }

    /// The latencies of the block.
    pub fn latencies(&self) -> &Latencies {
        &self.tally.latencies
    }

    /// What was checked.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Members of the view.
    pub fn members(&self) -> usize {
        self.task.members
    }

    /// Messages cast so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// A number that changes whenever anything happens here: for noticing standstill.
    #[inline]
    pub fn progress(&self) -> u64 {
        self.sent
            .wrapping_add(self.tally.delivered)
            .wrapping_add(self.rounds)
            .wrapping_add(self.marks.iter().sum::<u64>())
    }

    /// What this member waits for, in words: for a run that stands still.
    pub fn waits_for(&self) -> String {
        let silent: Vec<String> = (0..self.task.members)
            .filter(|at| *at != self.task.rank.index() && self.marks[*at] < self.block)
            .map(|at| format!("{at} (of which {} messages came)", self.verifier.next(Rank::at(at))))
            .collect();
        format!(
            "member {} in block {}: {} messages sent, own mark {}, waiting for members {}",
            self.task.rank,
            self.block,
            self.sent,
            if self.marked { "sent" } else { "not yet sent" },
            silent.join(", ")
        )
    }

    /// Casts until nothing is due, there is no room, or the iteration's share is used. Whether all is sent.
    #[inline]
    fn stream(&mut self, out: &mut impl Outlet) -> bool {
        let now = self.ticks.now();
        let timed = matches!(self.goal, Goal::Time(_));
        if timed && now >= self.sends_until {
            return true;
        }
        for _ in 0..MESSAGES_PER_ITERATION {
            if !timed && self.sent >= self.sends_until {
                return true;
            }
            let intended = self.schedule.as_ref().map_or(now, Schedule::due);
            if intended > now || !self.cast(intended, out) {
                return false;
            }
            if let Some(schedule) = &mut self.schedule {
                schedule.advance();
            }
        }
        !timed && self.sent >= self.sends_until
    }

    #[inline]
    fn answer_or_owe(&mut self, out: &mut impl Outlet) {
        if self.owed > 0 || !self.answer(out) {
            self.owed += 1;
        }
    }

    /// Casts because a message asks for it. The latency of an answer to a ping is not taken.
    #[inline]
    fn answer(&mut self, out: &mut impl Outlet) -> bool {
        let now = if self.task.pattern == Pattern::Pingpong { 0 } else { self.ticks.now() };
        self.cast(now, out)
    }

    #[inline(always)]
    fn cast(&mut self, intended: u64, out: &mut impl Outlet) -> bool {
        let (number, origin) = (self.sent, self.task.rank);
        let cast = out.cast(self.task.size, |message| Stamp { number, intended, origin }.write(message));
        self.sent += u64::from(cast);
        cast
    }

    #[inline]
    fn ping(&mut self, now: u64, out: &mut impl Outlet) {
        if self.cast(now, out) {
            self.pinged_at = now;
            self.awaited = if self.task.pattern == Pattern::Pingpong { self.task.members - 1 } else { 1 };
        }
    }

    /// The round of turns is over; begins another.
    #[inline]
    fn take_turn(&mut self, out: &mut impl Outlet) {
        self.awaited = 0;
        self.rounds += 1;
        let now = self.ticks.now();
        if self.more_rounds(now) {
            self.ping(now, out);
        }
    }

    #[inline]
    fn take_pong(&mut self, out: &mut impl Outlet) {
        self.awaited = self.awaited.saturating_sub(1);
        if self.awaited > 0 {
            return;
        }
        let now = self.ticks.now();
        self.tally.latencies.record(self.ticks.nanoseconds(self.pinged_at, now));
        self.rounds += 1;
        self.tally.last_at = now;
        if self.more_rounds(now) {
            self.ping(now, out);
        }
    }

    #[inline]
    fn more_rounds(&self, now: u64) -> bool {
        match self.goal {
            Goal::Messages(rounds) => self.rounds < rounds,
            Goal::Time(_) => now < self.sends_until,
        }
    }

    fn mark_bytes(&self) -> usize {
        if self.task.size == 16 { 17 } else { 16 }
    }

    #[cold]
    fn cast_mark(&mut self, out: &mut impl Outlet) -> bool {
        let (block, total) = (self.block, self.sent);
        self.mark_sent_at = self.ticks.now();
        out.cast(self.mark_bytes(), |mark| {
            mark[..8].copy_from_slice(&block.to_le_bytes());
            mark[8..16].copy_from_slice(&total.to_le_bytes());
        })
    }

    #[cold]
    fn take_mark(&mut self, origin: Rank, mark: &[u8]) {
        let word = |from: usize| {
            mark.get(from..from + 8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight")))
        };
        self.marks[origin.index()] = self.marks[origin.index()].max(word(0));
        self.verifier.total(origin, word(8));
        if self.task.pattern != Pattern::Pingpong && origin != self.task.rank {
            self.tally.last_at = self.ticks.now();
        }
    }

    #[cold]
    fn repeat_mark(&mut self, out: &mut impl Outlet) {
        let quiet = self.ticks.nanoseconds(self.mark_sent_at, self.ticks.now());
        if quiet > MARK_REPEATED_AFTER.as_nanos() as u64 && self.block > 0 {
            self.cast_mark(out);
        }
    }
}

impl Tally {
    fn clear(&mut self) {
        (self.delivered, self.next_sample) = (0, 0);
        self.latencies.clear();
    }

    /// Reads the clock.
    #[inline]
    fn sample(&mut self, message: &[u8], ticks: &Ticks, every: bool) {
        let now = ticks.now();
        if self.delivered == 0 {
            self.first_at = now;
        }
        if let Some(intended) = intended(message) {
            self.latencies.record(ticks.nanoseconds(intended, now));
        }
        self.next_sample = self.delivered + if every { 1 } else { SAMPLE_EVERY };
    }
}

/// Messages a sender casts between two iterations of its driver at most.
const MESSAGES_PER_ITERATION: usize = 256;
/// Where not every latency is taken, the receiver reads the clock for one message in so many.
const SAMPLE_EVERY: u64 = 16;
/// What passes between the beginning of a block and the first message due in it: the others begin theirs meanwhile.
const LEAD_IN: Duration = Duration::from_micros(50);
/// How long after a mark it is repeated where nothing else repairs a loss.
const MARK_REPEATED_AFTER: Duration = Duration::from_millis(2);
