//! The application of a member: issues what its workload says, answers, acknowledges, and enters everything in the
//! ledger.

use std::collections::VecDeque;

use wadjet::group::{Application, CastError, Delivery, Event, Group, SendError, Stability};
use wadjet::id::{Rank, RankSet};
use wadjet_oracle::{Measure, Traffic};

use crate::ledger::{Ledger, Name};
use crate::outcome::WorkCounters;
use crate::workload::{Item, Workload, cast_in_place};

/// What an application keeps from one upcall to the next.
#[derive(Default)]
pub(crate) struct Papers {
    /// Items refused for the time being, in order, by stream. Streams do not wait for each other.
    waiting: Vec<VecDeque<Item>>,
    /// By origin: for each frame, its number and its last cast.
    frames: Vec<Vec<(u64, u64)>>,
    /// What was last reported stable, by origin, number of members, and measure.
    reported: Vec<u64>,
    /// What endpoints complained of.
    pub(crate) problems: Vec<String>,
    buffer: Vec<u8>,
}

impl Papers {
    pub(crate) fn new(members: usize) -> Papers {
        let reported = vec![0; members * members * 2];
        Papers { frames: vec![Vec::new(); members], reported, ..Papers::default() }
    }

    /// Whether everything was issued that was to be.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.iter().all(VecDeque::is_empty)
    }

    /// How many items wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// The place of the queue of the stream that `name` belongs to.
    fn stream(&mut self, name: Name) -> usize {
        let streams = 1 + self.frames.len();
        let at = usize::from(name.traffic == Traffic::Send) * streams + usize::from(name.stream);
        if self.waiting.is_empty() {
            self.waiting.resize_with(2 * streams, VecDeque::new);
        }
        at
    }

    /// The last cast of `origin` in its frames below `number`, 0 if there is none.
    fn last_cast_below(&self, origin: usize, number: u64) -> u64 {
        let frames = &self.frames[origin];
        let below = frames.partition_point(|(frame, _)| *frame < number);
        below.checked_sub(1).map_or(0, |at| frames[at].1)
    }
}

/// An application at work.
pub(crate) struct Desk<'d> {
    pub(crate) seed: u64,
    pub(crate) now: u64,
    pub(crate) rank: usize,
    pub(crate) workload: &'d Workload,
    /// The limit of frame numbers was lowered: casts may be refused for good.
    pub(crate) numbers_run_out: bool,
    pub(crate) ledger: &'d mut Ledger,
    pub(crate) work: &'d mut WorkCounters,
    pub(crate) papers: &'d mut Papers,
}

impl Desk<'_> {
    /// Issues `item`, or puts it behind those of its stream that wait. What must be refused is tried first.
    pub(crate) fn issue(&mut self, item: Item, group: &mut Group<'_>) {
        let name = item.name;
        if self.happens(name, self.workload.oversize, "oversize") {
            self.try_oversize(name.traffic, group);
        }
        if name.traffic == Traffic::Cast && self.happens(name, self.workload.abandon, "abandon") {
            let length = self.length(name, group);
            self.work.abandoned += u64::from(group.reserve(length).is_ok());
        }
        let at = self.papers.stream(name);
        if !self.papers.waiting[at].is_empty() || !self.try_to_issue(item, group) {
            self.papers.waiting[at].push_back(item);
        }
    }

    fn length(&self, name: Name, group: &Group<'_>) -> usize {
        let (limit, large_limit) = (frame_limit(name.traffic, group), limit(name.traffic, group));
        self.workload.length(self.seed, name, limit, large_limit)
    }

    fn happens(&self, name: Name, chance: u32, what: &str) -> bool {
        self.workload.happens(self.seed, name, self.rank, chance, what)
    }

    /// Tries again what was refused.
    fn retry(&mut self, group: &mut Group<'_>) {
        for at in 0..self.papers.waiting.len() {
            while let Some(item) = self.papers.waiting[at].pop_front() {
                if !self.try_to_issue(item, group) {
                    self.papers.waiting[at].push_front(item);
                    break;
                }
            }
        }
    }
}

impl Desk<'_> {
    /// Issues `item`, or gives it up; returns false if it was refused for the time being.
    fn try_to_issue(&mut self, item: Item, group: &mut Group<'_>) -> bool {
        let (name, limit) = (item.name, limit(item.name.traffic, group));
        let length = self.length(name, group);
        let large = length > frame_limit(name.traffic, group);
        let reserve = !large && self.happens(name, self.workload.reserve, "reserve");
        let agreed = self.happens(name, self.workload.agreed, "agreed");
        let mut payload = std::mem::take(&mut self.papers.buffer);
        payload.resize(length, 0);
        name.fill(self.seed, &mut payload);
        let refusal = match name.traffic {
            Traffic::Send => refusal_of_send(group.send(&ranks(item.to), &payload)),
            Traffic::Cast if reserve => {
                let taken = cast_in_place(group, &payload, agreed);
                self.work.reserved += u64::from(taken.is_ok());
                refusal_of_cast(taken.map(drop))
            }
            Traffic::Cast if agreed => refusal_of_cast(group.agreed().cast(&payload).map(drop)),
            Traffic::Cast => refusal_of_cast(group.cast(&payload).map(drop)),
        };
        self.work.large += u64::from(large && refusal.is_none());
        match (&refusal, name.traffic) {
            (None, Traffic::Cast) => {
                self.work.agreed += u64::from(agreed);
                self.ledger.cast_issued(self.now, name, &payload, agreed);
                self.work.casts += 1;
            }
            (None, Traffic::Send) => {
                self.ledger.send_issued(self.now, name, &payload, item.to);
                self.work.sends += 1;
            }
            (Some(Refusal::ForNow), _) => self.work.postponed += 1,
            (Some(Refusal::UsedUp), _) if self.numbers_run_out => {
                self.ledger.refused(self.now, self.rank, name.traffic, "numbers used up".into());
                self.work.used_up += 1;
            }
            (Some(Refusal::UsedUp), _) => panic!("numbers are used up, and nobody lowered the limit"),
            (Some(Refusal::TooLong), _) => panic!("{length} bytes are refused, {limit} are allowed"),
            (Some(Refusal::ForEver(why)), _) => panic!("{name:?} is refused for ever: {why}"),
        }
        self.papers.buffer = payload;
        !matches!(refusal, Some(Refusal::ForNow))
    }

    fn try_oversize(&mut self, traffic: Traffic, group: &mut Group<'_>) {
        let limit = limit(traffic, group);
        let payload = vec![0; limit + 1];
        let refusal = match traffic {
            Traffic::Send => refusal_of_send(group.send(&RankSet::one(Rank(0)), &payload)),
            Traffic::Cast => refusal_of_cast(group.cast(&payload).map(drop)),
        };
        match refusal {
            Some(Refusal::TooLong) => {
                self.ledger.refused(self.now, self.rank, traffic, format!("{} bytes", limit + 1));
                self.work.oversized += 1;
            }
            other => panic!("{} bytes, one too many, gave {other:?}", limit + 1),
        }
    }

    /// Enters a delivery; what it is to be answered with, if anything.
    fn take(&mut self, traffic: Traffic, origin: usize, payload: &[u8]) -> (u64, Option<(Name, Item)>) {
        match traffic {
            Traffic::Cast => self.work.casts_delivered += 1,
            Traffic::Send => self.work.sends_delivered += 1,
        }
        let Some((sequence, name)) = self.ledger.delivered(self.now, self.rank, traffic, origin, payload)
        else {
            return (0, None);
        };
        (sequence, self.workload.answer(self.seed, self.rank, name).map(|item| (name, item)))
    }
}

impl Application for Desk<'_> {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        let origin = delivery.origin().index();
        let id = delivery.id();
        let mut last = 0;
        for payload in delivery.messages() {
            let (sequence, answer) = self.take(Traffic::Cast, origin, payload);
            last = last.max(sequence);
            if let Some((_, item)) = answer {
                self.work.replies += 1;
                self.issue(item, group);
            }
        }
        self.papers.frames[origin].push((id.number, last));
        let chance = self.workload.acknowledge;
        let draw =
            crate::random::splitmix(self.seed ^ (self.rank as u64) << 48 ^ (origin as u64) << 40 ^ id.number);
        if chance > 0 && draw % 1_000_000 < u64::from(chance) && last > 0 {
            self.ledger.acknowledged(self.now, self.rank, origin, last);
            self.work.acknowledged += 1;
            group.ack(id);
        }
    }

    fn send(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        let origin = delivery.origin().index();
        for payload in delivery.messages() {
            if let (_, Some((_, item))) = self.take(Traffic::Send, origin, payload) {
                self.work.echoes += 1;
                self.issue(item, group);
            }
        }
    }

    fn event(&mut self, event: &Event, group: &mut Group<'_>) {
        match event {
            Event::Writable => self.retry(group),
            Event::Stable => self.report_stability(&group.stability()),
            Event::Exit(reason) => {
                self.ledger.exited(self.now, self.rank, reason.to_string());
            }
            // Of stacks that are slow on purpose.
            Event::Problem(problem) if problem.what.starts_with("no fast path for ") => {}
            // Who is cut off from one side, or does not run, in a view that nobody leaves.
            Event::Problem(problem)
                if problem.layer == "NAK" && problem.what.contains("sent again each time") => {}
            Event::Problem(problem) => self.papers.problems.push(format!("{problem:?}")),
            _ => {}
        }
    }
}

impl Desk<'_> {
    /// Enters what the endpoint says of stability: at how many members each number of casts is held, and seen.
    pub(crate) fn report_stability(&mut self, stability: &Stability) {
        let members = self.papers.frames.len();
        for origin in 0..members {
            for at_members in 1..=members {
                for (measure, frames) in [
                    (Measure::Held, stability.held_by(at_members, Rank::at(origin))),
                    (Measure::Seen, stability.seen_by(at_members, Rank::at(origin))),
                ] {
                    let through = self.papers.last_cast_below(origin, frames);
                    let at = (origin * members + at_members - 1) * 2 + usize::from(measure == Measure::Seen);
                    if through > self.papers.reported[at] {
                        self.papers.reported[at] = through;
                        match measure {
                            Measure::Held => self.work.held_reports += 1,
                            Measure::Seen => self.work.seen_reports += 1,
                        }
                        self.ledger.stable(self.now, self.rank, measure, origin, through, at_members);
                    }
                }
            }
        }
    }
}

/// The longest message of its kind.
fn limit(traffic: Traffic, group: &Group<'_>) -> usize {
    match traffic {
        Traffic::Cast => group.message_bytes_max(),
        Traffic::Send => group.send_bytes_max(),
    }
}

/// The longest that fits a frame. Of sends a stack that fragments does not say it: a little less or more makes no matter.
fn frame_limit(traffic: Traffic, group: &Group<'_>) -> usize {
    let fragments = group.reserve_bytes_max() < group.message_bytes_max();
    if fragments || traffic == Traffic::Cast { group.reserve_bytes_max() } else { group.send_bytes_max() }
}

/// Why a message was not taken.
#[derive(Debug)]
enum Refusal {
    ForNow,
    TooLong,
    UsedUp,
    ForEver(String),
}

fn refusal_of_cast(result: Result<(), CastError>) -> Option<Refusal> {
    Some(match result {
        Ok(()) => return None,
        Err(CastError::TooLong { .. }) => Refusal::TooLong,
        Err(CastError::Full { .. } | CastError::NoFrame(_)) => Refusal::ForNow,
        Err(CastError::NumberLimit) => Refusal::UsedUp,
        Err(error @ (CastError::BeyondFrame { .. } | CastError::Exited(_))) => {
            Refusal::ForEver(error.to_string())
        }
    })
}

fn refusal_of_send(result: Result<(), SendError>) -> Option<Refusal> {
    Some(match result {
        Ok(()) => return None,
        Err(SendError::TooLong { .. }) => Refusal::TooLong,
        Err(SendError::Full { .. } | SendError::NoFrame(_)) => Refusal::ForNow,
        Err(error) => Refusal::ForEver(error.to_string()),
    })
}

fn ranks(to: u64) -> RankSet {
    (0..64).filter(|rank| to >> rank & 1 == 1).map(Rank::at).collect()
}
