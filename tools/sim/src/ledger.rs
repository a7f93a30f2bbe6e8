//! The ledger of a run: what was issued, who delivered it, and the history that the oracle judges.
//!
//! Payloads say who they are where they are long enough; shorter ones, down to no bytes at all, are told apart by
//! their place: the next message due from that origin, if it looks like it, else the first that looks like it and has
//! not been delivered, else the last that looks like it (a duplicate). If they were confused the oracle would see a
//! gap, a duplicate or a creation, never nothing.

use wadjet_oracle::{Content, History, Incarnation, Measure, Traffic, ViewId, What};

use crate::random::splitmix;
use wadjet_oracle::QuickMap;

/// Names a message of a workload, independently of when it is issued: the `index`-th of a stream of its origin.
/// Stream 0 is what the member does by plan; stream 1 + n answers what member n did by plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) origin: u16,
    pub(crate) traffic: Traffic,
    pub(crate) stream: u16,
    pub(crate) index: u32,
}

/// Bytes of a payload that say who it is.
const NAME_BYTES: usize = 16;

impl Name {
    /// A number that only this name has in a run; the source of every choice about the message.
    pub(crate) fn hash(self, seed: u64) -> u64 {
        let traffic = u64::from(self.traffic == Traffic::Send);
        let word = u64::from(self.origin) << 48
            | u64::from(self.stream) << 33
            | traffic << 32
            | u64::from(self.index);
        splitmix(splitmix(seed) ^ word)
    }

    /// Fills `payload`: the name where it fits, then bytes that no other message has.
    pub(crate) fn fill(self, seed: u64, payload: &mut [u8]) {
        let mut state = self.hash(seed);
        for chunk in payload.chunks_mut(8) {
            state = state.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
            let word = (state ^ (state >> 29)).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        if payload.len() >= NAME_BYTES {
            payload[..2].copy_from_slice(&self.origin.to_le_bytes());
            payload[2..4].copy_from_slice(&self.stream.to_le_bytes());
            payload[4..8].copy_from_slice(&self.index.to_le_bytes());
            payload[8] = u8::from(self.traffic == Traffic::Send);
        }
    }

    fn read(payload: &[u8]) -> Option<Name> {
        let head: &[u8; NAME_BYTES] = payload.first_chunk()?;
        Some(Name {
            origin: u16::from_le_bytes([head[0], head[1]]),
            stream: u16::from_le_bytes([head[2], head[3]]),
            index: u32::from_le_bytes([head[4], head[5], head[6], head[7]]),
            traffic: match head[8] {
                0 => Traffic::Cast,
                1 => Traffic::Send,
                _ => return None,
            },
        })
    }
}

/// A message that was issued.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Name,
    pub(crate) content: Content,
    /// Where a send goes: a set of members, bit by bit. All for a cast.
    to: u64,
}

/// What one member has got from one other.
#[derive(Clone, Default)]
struct Delivered {
    /// Sequence numbers below this one are all delivered, or not for this member.
    next: u64,
    /// Those above that were delivered out of turn; ordinarily empty.
    beyond: Vec<u64>,
}

/// The ledger.
pub(crate) struct Ledger {
    pub(crate) history: History,
    members: usize,
    view: ViewId,
    issued: [Vec<Vec<Entry>>; 2],
    sequences: QuickMap<Name, u64>,
    delivered: [Vec<Delivered>; 2],
    /// Messages issued but not yet delivered to somebody, once per addressee; never below zero.
    pub(crate) outstanding: u64,
}

/// The oracle's name of the member at `rank`.
pub(crate) fn incarnation(rank: usize) -> Incarnation {
    Incarnation(rank as u64 + 1)
}

fn kind(traffic: Traffic) -> usize {
    usize::from(traffic == Traffic::Send)
}

impl Ledger {
    /// A ledger in which `members` members have started and installed one view.
    pub(crate) fn new(members: usize, view_counter: u64) -> Ledger {
        let all: Vec<Incarnation> = (0..members).map(incarnation).collect();
        let view = ViewId { counter: view_counter, coordinator: all[0] };
        let mut history = History::default();
        for (process, member) in all.iter().enumerate() {
            history.push(0, *member, What::Start { process: process as u32 });
            history.push(0, *member, What::View { view, members: all.clone(), transitional: false });
        }
        let none = vec![Delivered { next: 1, beyond: Vec::new() }; members * members];
        Ledger {
            history,
            members,
            view,
            issued: [vec![Vec::new(); members], vec![Vec::new(); members]],
            sequences: QuickMap::default(),
            delivered: [none.clone(), none],
            outstanding: 0,
        }
    }

    /// Notes a cast that was accepted; returns its number.
    pub(crate) fn cast_issued(&mut self, at: u64, name: Name, payload: &[u8], agreed: bool) -> u64 {
        let all = (1_u64 << self.members) - 1;
        let (sequence, content) = self.enter(name, payload, all);
        let what = What::CastIssued { sequence, content, view: Some(self.view), agreed };
        self.history.push(at, incarnation(usize::from(name.origin)), what);
        sequence
    }

    /// Notes a send that was accepted; returns its number.
    pub(crate) fn send_issued(&mut self, at: u64, name: Name, payload: &[u8], to: u64) -> u64 {
        let (sequence, content) = self.enter(name, payload, to);
        let addressees = (0..self.members).filter(|rank| to >> rank & 1 == 1).map(incarnation).collect();
        let what = What::SendIssued { sequence, content, to: addressees, view: self.view };
        self.history.push(at, incarnation(usize::from(name.origin)), what);
        sequence
    }

    fn enter(&mut self, name: Name, payload: &[u8], to: u64) -> (u64, Content) {
        let content = Content::of(payload);
        let issued = &mut self.issued[kind(name.traffic)][usize::from(name.origin)];
        issued.push(Entry { name, content, to });
        let sequence = issued.len() as u64;
        self.sequences.insert(name, sequence);
        self.outstanding += u64::from(to.count_ones());
        (sequence, content)
    }

    /// Notes a refusal.
    pub(crate) fn refused(&mut self, at: u64, member: usize, traffic: Traffic, reason: String) {
        let what = match traffic {
            Traffic::Cast => What::CastRefused { reason },
            Traffic::Send => What::SendRefused { reason },
        };
        self.history.push(at, incarnation(member), what);
    }

    /// Notes a delivery; returns the message's number and name, if it is one that was ever issued.
    pub(crate) fn delivered(
        &mut self,
        at: u64,
        member: usize,
        traffic: Traffic,
        origin: usize,
        payload: &[u8],
    ) -> Option<(u64, Name)> {
        let content = Content::of(payload);
        let sequence = self.identify(member, traffic, origin, payload, content);
        let entry = sequence.map(|sequence| self.issued[kind(traffic)][origin][sequence as usize - 1]);
        if let (Some(sequence), Some(entry)) = (sequence, entry) {
            self.tick_off(member, traffic, origin, sequence, entry.to);
        }
        let (origin, view, sequence) = (incarnation(origin), self.view, sequence.unwrap_or(0));
        let what = match traffic {
            Traffic::Cast => What::CastDelivered { origin, sequence, content, view },
            Traffic::Send => What::SendDelivered { origin, sequence, content, view },
        };
        self.history.push(at, incarnation(member), what);
        entry.map(|entry| (sequence, entry.name))
    }

    /// Which of the messages of `origin` this is.
    fn identify(
        &self,
        member: usize,
        traffic: Traffic,
        origin: usize,
        payload: &[u8],
        content: Content,
    ) -> Option<u64> {
        let issued = self.issued[kind(traffic)].get(origin)?;
        let delivered = &self.delivered[kind(traffic)][member * self.members + origin];
        let alike =
            |sequence: &u64| issued.get(*sequence as usize - 1).is_some_and(|entry| entry.content == content);
        let mine = |sequence: &u64| {
            issued.get(*sequence as usize - 1).is_some_and(|entry| entry.to >> member & 1 == 1)
        };
        if alike(&delivered.next) && mine(&delivered.next) {
            return Some(delivered.next);
        }
        if let Some(name) = Name::read(payload) {
            // Whoever it says it is; the oracle compares origin and content.
            let said = self.sequences.get(&name).copied();
            return said.filter(|_| usize::from(name.origin) == origin && name.traffic == traffic);
        }
        let fresh = |sequence: &u64| !delivered.beyond.contains(sequence);
        let last = issued.len() as u64;
        (delivered.next..=last)
            .find(|sequence| mine(sequence) && fresh(sequence) && alike(sequence))
            .or_else(|| (1..=last).rev().find(alike))
    }

    fn tick_off(&mut self, member: usize, traffic: Traffic, origin: usize, sequence: u64, to: u64) {
        let issued = &self.issued[kind(traffic)][origin];
        let delivered = &mut self.delivered[kind(traffic)][member * self.members + origin];
        if sequence < delivered.next || delivered.beyond.contains(&sequence) || to >> member & 1 == 0 {
            return;
        }
        self.outstanding -= 1;
        delivered.beyond.push(sequence);
        loop {
            let next = delivered.next;
            if let Some(at) = delivered.beyond.iter().position(|beyond| *beyond == next) {
                delivered.beyond.swap_remove(at);
            } else if issued.get(next as usize - 1).is_none_or(|entry| entry.to >> member & 1 == 1) {
                return;
            }
            delivered.next += 1;
        }
    }

    /// Notes an acknowledgement.
    pub(crate) fn acknowledged(&mut self, at: u64, member: usize, origin: usize, through: u64) {
        self.history.push(at, incarnation(member), What::Seen { origin: incarnation(origin), through });
    }

    /// Notes a stability report.
    pub(crate) fn stable(
        &mut self,
        at: u64,
        member: usize,
        measure: Measure,
        origin: usize,
        through: u64,
        members: usize,
    ) {
        let (origin, members) = (incarnation(origin), members as u32);
        self.history.push(at, incarnation(member), What::Stable { measure, origin, through, members });
    }

    /// Notes that the group is over for a member.
    pub(crate) fn exited(&mut self, at: u64, member: usize, reason: String) {
        self.history.push(at, incarnation(member), What::Exit { reason });
    }

    /// The message that `origin` issued as its `sequence`-th.
    pub(crate) fn entry(&self, traffic: Traffic, origin: Incarnation, sequence: u64) -> Option<&Entry> {
        let issued = self.issued[kind(traffic)].get(usize::try_from(origin.0).ok()?.checked_sub(1)?)?;
        issued.get(usize::try_from(sequence).ok()?.checked_sub(1)?)
    }

    /// How many members there are.
    pub(crate) fn members(&self) -> usize {
        self.members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 9;

    fn name(traffic: Traffic, index: u32) -> Name {
        Name { origin: 0, traffic, stream: 0, index }
    }

    fn payload(name: Name, bytes: usize) -> Vec<u8> {
        let mut payload = vec![0; bytes];
        name.fill(SEED, &mut payload);
        payload
    }

    #[test]
    fn payloads_are_told_apart_by_what_they_say_or_by_their_place() {
        for bytes in [0, 1, 15, 16, 17, 1000] {
            let mut ledger = Ledger::new(2, 1);
            for index in 0..5 {
                let name = name(Traffic::Cast, index);
                assert_eq!(ledger.cast_issued(0, name, &payload(name, bytes), false), u64::from(index) + 1);
            }
            assert_eq!(ledger.outstanding, 10);
            for index in 0..5 {
                let payload = payload(name(Traffic::Cast, index), bytes);
                let got = ledger.delivered(1, 1, Traffic::Cast, 0, &payload);
                assert_eq!(got, Some((u64::from(index) + 1, name(Traffic::Cast, index))), "{bytes} bytes");
            }
            assert_eq!(ledger.outstanding, 5);
            let again = payload(name(Traffic::Cast, 4), bytes);
            assert_eq!(
                ledger.delivered(2, 1, Traffic::Cast, 0, &again).unwrap().0,
                5,
                "a duplicate is itself"
            );
            assert_eq!(ledger.outstanding, 5);
        }
    }

    #[test]
    fn what_is_nobodys_is_nobodys() {
        let mut ledger = Ledger::new(2, 1);
        let one = name(Traffic::Cast, 0);
        ledger.cast_issued(0, one, &payload(one, 100), false);
        assert_eq!(ledger.delivered(1, 1, Traffic::Cast, 0, &[7; 100]), None);
        assert_eq!(ledger.delivered(1, 1, Traffic::Cast, 0, &[7; 3]), None);
        assert_eq!(ledger.delivered(1, 1, Traffic::Cast, 0, &[]), None);
        assert_eq!(ledger.delivered(1, 1, Traffic::Send, 0, &payload(one, 100)), None, "it was no send");
        assert_eq!(ledger.delivered(1, 1, Traffic::Cast, 1, &payload(one, 100)), None, "it was another's");
        let mut changed = payload(one, 100);
        changed[50] ^= 1;
        assert_eq!(
            ledger.delivered(1, 1, Traffic::Cast, 0, &changed),
            Some((1, one)),
            "the oracle sees the change"
        );
    }

    #[test]
    fn a_send_is_outstanding_for_its_addressees_only() {
        let mut ledger = Ledger::new(3, 1);
        for (index, to) in [0b110, 0b010, 0b100, 0b000, 0b110].into_iter().enumerate() {
            let name = name(Traffic::Send, index as u32);
            ledger.send_issued(0, name, &payload(name, 0), to);
        }
        assert_eq!(ledger.outstanding, 6);
        let got: Vec<u64> =
            (0..3).map(|_| ledger.delivered(1, 2, Traffic::Send, 0, &[]).unwrap().0).collect();
        assert_eq!(got, [1, 3, 5], "empty sends are told apart by who gets them");
        assert_eq!(ledger.outstanding, 3);
    }
}
