//! One member: an endpoint, its driver loop, and its side of the transport.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use wadjet::buf::{Frame, Region};
use wadjet::endpoint::{Endpoint, GroupKey};
use wadjet::stats::FastPath;
use wadjet::time::Time;
use wadjet::transport::{ChannelId, Destination, Received, Transmit};

use crate::desk::{Desk, Papers};
use crate::faults::FaultCounters;
use crate::ledger::Ledger;
use crate::outcome::WorkCounters;
use crate::scenario::{Driver, Medium, NUMBERS, Setup};
use crate::workload::Planned;

/// A frame on its way, shared by its arrivals.
#[derive(Clone)]
pub(crate) enum Packet {
    /// Its bytes.
    Copy(Rc<[u8]>),
    /// The sender's frame itself, and where in it.
    InPlace(Frame, usize, usize),
}

/// A frame that the transport has taken and still reads.
pub(crate) struct Submitted {
    until: u64,
    transmit: Transmit,
    /// What it said when it was taken: it must still say that in the end.
    bytes: Rc<[u8]>,
}

pub(crate) struct Member {
    pub(crate) rank: usize,
    pub(crate) endpoint: Endpoint,
    pub(crate) key: GroupKey,
    pub(crate) channel: ChannelId,
    /// Where its frames come from; for looking whether all came back.
    pub(crate) regions: [Region; 2],
    /// Where received frames are put.
    pub(crate) arrivals: Region,
    pub(crate) inbox: VecDeque<Packet>,
    pub(crate) plan: VecDeque<Planned>,
    pub(crate) papers: Papers,
    pub(crate) driver: Driver,
    pub(crate) medium: Medium,
    pub(crate) submitted: VecDeque<Submitted>,
    /// The transport gave a frame back: it is to be offered again when there is room.
    pub(crate) backlog: bool,
    pub(crate) iterations: u64,
    pub(crate) busy_until: u64,
    pub(crate) paused_until: u64,
    /// When its next iteration is entered in the agenda; entries for other times are stale.
    pub(crate) wake_at: Option<u64>,
}

/// What an iteration needs of the world around it.
pub(crate) struct Around<'a> {
    pub(crate) seed: u64,
    pub(crate) setup: &'a Setup,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) work: &'a mut WorkCounters,
    pub(crate) faults: &'a mut FaultCounters,
}

/// Frames to carry: the packet, and to whom, bit by bit.
pub(crate) type Departure = (Packet, u64);

impl Member {
    /// One iteration of the driver loop; what it submitted goes to `depart`.
    pub(crate) fn iterate(&mut self, at: u64, around: &mut Around<'_>, depart: &mut Vec<Departure>) {
        self.iterations += 1;
        around.work.iterations += 1;
        self.busy_until = at + self.driver.iteration_ns;
        let now = Time::from_nanos(at);
        self.reap(at);
        // Whether the application acts before or after it listens must make no difference.
        let acts_first = (self.iterations ^ around.seed).is_multiple_of(2);
        if acts_first {
            self.act(at, around);
        }
        self.receive(at, around);
        if !acts_first {
            self.act(at, around);
        }
        self.endpoint.set_busy(self.channel, !self.submitted.is_empty());
        let mut desk = desk(self.rank, at, &mut self.papers, around);
        self.endpoint.poll(now, &mut desk);
        self.transmit(at, around, depart);
    }

    /// The transport is done with what it took; nobody may have changed it meanwhile.
    fn reap(&mut self, at: u64) {
        while let Some(taken) = self.submitted.pop_front_if(|taken| taken.until <= at) {
            assert!(is_still(&taken.transmit, &taken.bytes), "a frame changed after it was submitted");
        }
    }

    fn receive(&mut self, at: u64, around: &mut Around<'_>) {
        if self.inbox.len() > self.driver.budget {
            around.faults.slow_reads += 1;
        }
        // Whether frames are taken in together or one by one must make no difference.
        let together = ((self.iterations / 2) ^ around.seed).is_multiple_of(2);
        let (papers, endpoint, rank) = (&mut self.papers, &mut self.endpoint, self.rank);
        let mut hand_over = |arrived: &mut Vec<Received>, around: &mut Around<'_>| {
            let mut desk = desk(rank, at, papers, around);
            endpoint.receive_all(arrived, Time::from_nanos(at), &mut desk);
        };
        let mut arrived = Vec::new();
        for _ in 0..self.driver.budget {
            let Some(packet) = self.inbox.pop_front() else { break };
            let received = match packet {
                Packet::InPlace(frame, from, to) => Received { channel: self.channel, frame, from, to },
                Packet::Copy(bytes) => {
                    let mut taken = self.arrivals.take(0);
                    if taken.is_err() {
                        hand_over(&mut arrived, around);
                        taken = self.arrivals.take(0);
                    }
                    let Ok(mut frame) = taken else {
                        around.faults.no_frame += 1;
                        continue;
                    };
                    frame.extend(&bytes).expect("the network carries nothing longer than a frame");
                    let frame = frame.freeze();
                    frame.submit();
                    let (from, to) = (frame.start(), frame.end());
                    Received { channel: self.channel, frame, from, to }
                }
            };
            arrived.push(received);
            if !together {
                hand_over(&mut arrived, around);
            }
        }
        hand_over(&mut arrived, around);
    }

    /// What the application does of its own accord.
    fn act(&mut self, at: u64, around: &mut Around<'_>) {
        let mut group = self.endpoint.group(self.key);
        let mut desk = desk(self.rank, at, &mut self.papers, around);
        while let Some(planned) = self.plan.pop_front_if(|planned| planned.at <= at) {
            desk.issue(planned.item, &mut group);
        }
    }

    fn transmit(&mut self, at: u64, around: &mut Around<'_>, depart: &mut Vec<Departure>) {
        self.backlog = false;
        while let Some(transmit) = self.endpoint.transmit() {
            if self.submitted.len() >= self.driver.submitted_frames_max {
                around.faults.full += 1;
                self.backlog = true;
                self.endpoint.give_back(transmit);
                return;
            }
            let bytes = whole(&transmit);
            let to = addressees(&transmit.to, self.rank, around.ledger.members());
            let packet = match self.medium {
                Medium::Datagrams => Packet::Copy(bytes.clone()),
                Medium::InPlace if transmit.body.is_none() => {
                    let (from, to) = (transmit.head.start(), transmit.head.end());
                    Packet::InPlace(transmit.head.clone(), from, to)
                }
                Medium::InPlace => {
                    // A gathered frame takes a counted copy, as on any shared memory.
                    let Ok(mut frame) = self.arrivals.take(0) else {
                        around.faults.full += 1;
                        self.backlog = true;
                        self.endpoint.give_back(transmit);
                        return;
                    };
                    frame.extend(&bytes).expect("no longer than a frame");
                    let frame = frame.freeze();
                    frame.submit();
                    let (from, to) = (frame.start(), frame.end());
                    Packet::InPlace(frame, from, to)
                }
            };
            let begin = self.submitted.back().map_or(at, |last| last.until.max(at));
            self.submitted.push_back(Submitted { until: begin + self.driver.submit_ns, transmit, bytes });
            depart.push((packet, to));
        }
    }

    /// When the next iteration is due; `None` if nothing is to be done until something arrives.
    pub(crate) fn due(&self, at: u64) -> Option<u64> {
        let mut due = self.endpoint.deadline().as_nanos();
        if let Some(planned) = self.plan.front() {
            due = due.min(planned.at);
        }
        if !self.inbox.is_empty() {
            due = at;
        }
        // Whoever waits for room is woken when the transport has done with a frame; what else makes room is news.
        match self.submitted.front() {
            Some(first) if self.backlog || !self.papers.is_done() => due = due.min(first.until),
            None if self.backlog => due = at,
            _ => {}
        }
        (due != Time::NEVER.as_nanos()).then(|| due.max(self.busy_until).max(self.paused_until))
    }

    /// Adds what the endpoint counted.
    pub(crate) fn count(&self, counts: &mut BTreeMap<String, u64>) {
        count_endpoint(&self.endpoint, self.key, counts);
        for problem in &self.papers.problems {
            *counts.entry(format!("problem: {problem}")).or_default() += 1;
        }
    }

    /// Where it stands, for a person who wonders why nothing happens.
    pub(crate) fn describe(&mut self) -> String {
        let stats = self.endpoint.stats(self.key);
        let mut text = format!(
            "  m{}: {} planned, {} refused; in the stack {} waiting, {} unacknowledged, {} retained; \
             {} in its inbox, {} at the transport; deadline {}\n",
            self.rank + 1,
            self.plan.len(),
            self.papers.waiting(),
            stats.waiting,
            stats.unacknowledged,
            stats.retained,
            self.inbox.len(),
            self.submitted.len(),
            self.endpoint.deadline()
        );
        for line in self.endpoint.group(self.key).dump() {
            text.push_str(&format!("      {line}\n"));
        }
        text
    }

    /// Whether its application has nothing left to issue.
    pub(crate) fn is_done(&self) -> bool {
        self.plan.is_empty() && self.papers.is_done()
    }
}

/// Adds what an endpoint counted.
pub(crate) fn count_endpoint(endpoint: &Endpoint, key: GroupKey, counts: &mut BTreeMap<String, u64>) {
    let mut add = |name: String, count: u64| {
        if count > 0 {
            *counts.entry(name).or_default() += count;
        }
    };
    let stats = endpoint.stats(key);
    let FastPath { send_hit, send_miss, deliver_hit, deliver_together, deliver_early, deliver_miss } =
        stats.fast_path;
    add("deliver together".into(), deliver_together);
    add("send hit".into(), send_hit);
    add("send miss".into(), send_miss);
    add("deliver hit".into(), deliver_hit);
    add("deliver early".into(), deliver_early);
    add("deliver miss".into(), deliver_miss);
    for miss in &stats.misses {
        add(format!("miss {} {}: {}", miss.plan, miss.layer, miss.reason), miss.count);
    }
    for count in &stats.counts {
        add(format!("{}: {}", count.layer, count.what), count.count);
    }
    add("frames retained in the end".into(), stats.retained);
    let dropped = endpoint.dropped();
    add("dropped: short".into(), dropped.short);
    add("dropped: foreign".into(), dropped.foreign);
    add("dropped: version".into(), dropped.version);
    add("dropped: unknown cookie".into(), dropped.unknown_cookie);
    add("dropped: collided cookie".into(), dropped.collided_cookie);
    add("dropped: other view".into(), dropped.other_view);
    add("dropped: not a member".into(), dropped.not_a_member);
    add("dropped: other stack".into(), dropped.other_stack);
    add("dropped: malformed".into(), dropped.malformed);
    add("dropped: own".into(), dropped.own);
    add("dropped: exited".into(), dropped.exited);
}

/// The application at `rank`, at work.
pub(crate) fn desk<'d>(
    rank: usize,
    now: u64,
    papers: &'d mut Papers,
    around: &'d mut Around<'_>,
) -> Desk<'d> {
    let Around { seed, setup, ledger, work, .. } = around;
    let (workload, numbers_run_out) = (&setup.workload, setup.number_limit != NUMBERS);
    Desk { seed: *seed, now, rank, workload, numbers_run_out, ledger, work, papers }
}

/// The frame as it is on the wire.
pub(crate) fn whole(transmit: &Transmit) -> Rc<[u8]> {
    match &transmit.body {
        None => transmit.head.bytes().into(),
        Some(body) => [transmit.head.bytes(), body.bytes()].concat().into(),
    }
}

/// Whether a submitted frame is what it was.
pub(crate) fn is_still(transmit: &Transmit, bytes: &[u8]) -> bool {
    let head = transmit.head.bytes();
    let body = transmit.body.as_ref().map_or(&[][..], |body| body.bytes());
    bytes.split_at_checked(head.len()) == Some((head, body))
}

fn addressees(to: &Destination, rank: usize, members: usize) -> u64 {
    let ranks = match to {
        Destination::All => (1_u64 << members) - 1,
        Destination::One(rank) => 1 << rank.index(),
        Destination::Some(ranks) => ranks.iter().fold(0, |set, rank| set | 1 << rank.index()),
    };
    ranks & !(1 << rank)
}
