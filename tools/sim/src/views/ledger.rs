//! What happened at the interface of every life, and what is still to arrive.

use wadjet_oracle::{Content, History, Incarnation, Measure, Traffic, ViewId, What};

use crate::random::splitmix;
use crate::views::exclusions::Exclusion;
use crate::views::expulsions::{Expelled, Suspected};
use wadjet_oracle::QuickMap;

/// The ledger of a run with views.
///
/// Payloads begin with who issued them and which of its casts or sends they are; the rest follows from that.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) history: History,
    /// By (origin, cast or send): how many it has issued.
    issued: QuickMap<(Incarnation, Traffic), u64>,
    /// By (member, origin): the last cast and the last send delivered.
    delivered: QuickMap<(Incarnation, Incarnation), [u64; 2]>,
    /// By (origin, addressee): the last send issued.
    sent: QuickMap<(Incarnation, Incarnation), (u64, ViewId)>,
    /// By the digest of a state that was given to others: whose it is.
    pub(crate) lines: QuickMap<u64, u64>,
    /// Who was expelled.
    pub(crate) expulsions: Vec<Expelled>,
    /// Whom members suspected, in the order of time.
    pub(crate) suspicions: Vec<Suspected>,
    /// Who was excluded.
    pub(crate) exclusions: Vec<Exclusion>,
}

/// Bytes of a payload that say who it is.
pub(crate) const NAME_BYTES: usize = 16;

/// The payload of the `sequence`-th cast or send of `origin`.
pub(crate) fn fill(seed: u64, origin: Incarnation, traffic: Traffic, sequence: u64, payload: &mut [u8]) {
    let mut state = splitmix(seed ^ origin.0 << 40 ^ (traffic as u64) << 39 ^ sequence);
    let mut next = || {
        state = state.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        (state ^ (state >> 29)).to_le_bytes()
    };
    let (words, rest) = payload.as_chunks_mut();
    words.iter_mut().for_each(|word| *word = next());
    if !rest.is_empty() {
        rest.copy_from_slice(&next()[..rest.len()]);
    }
    payload[..4].copy_from_slice(&(origin.0 as u32).to_le_bytes());
    payload[4] = u8::from(traffic == Traffic::Send);
    payload[8..16].copy_from_slice(&sequence.to_le_bytes());
}

/// What a payload says of itself: origin, traffic, number.
fn read(payload: &[u8]) -> Option<(Incarnation, Traffic, u64)> {
    let head: &[u8; NAME_BYTES] = payload.first_chunk()?;
    let origin = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let traffic = match head[4] {
        0 => Traffic::Cast,
        1 => Traffic::Send,
        _ => return None,
    };
    let sequence = u64::from_le_bytes(head[8..16].try_into().expect("eight bytes"));
    Some((Incarnation(u64::from(origin)), traffic, sequence))
}

impl Ledger {
    /// A new life of a process; the oracle's name of it.
    pub(crate) fn start(&mut self, at: u64, process: usize, incarnation: u64) -> Incarnation {
        let name = self.name(incarnation);
        self.history.push(at, name, What::Start { process: process as u32 });
        name
    }

    /// The oracle's name of an incarnation: the same number, so that view ids are ordered alike.
    pub(crate) fn name(&self, incarnation: u64) -> Incarnation {
        Incarnation(incarnation)
    }

    /// The oracle's name of a view.
    pub(crate) fn view_id(&self, id: wadjet::ViewId) -> ViewId {
        ViewId { counter: id.counter, coordinator: self.name(id.coordinator.0) }
    }

    /// Notes that something happened.
    pub(crate) fn push(&mut self, at: u64, member: Incarnation, what: What) {
        self.history.push(at, member, what);
    }

    /// The number of the next cast or send of `origin`.
    pub(crate) fn next(&self, origin: Incarnation, traffic: Traffic) -> u64 {
        self.issued.get(&(origin, traffic)).copied().unwrap_or(0) + 1
    }

    /// Notes a cast that was accepted, and the view to which it belongs if that is known by now.
    pub(crate) fn cast_issued(
        &mut self,
        at: u64,
        origin: Incarnation,
        payload: &[u8],
        view: Option<ViewId>,
        agreed: bool,
    ) {
        let sequence = self.issued.entry((origin, Traffic::Cast)).or_default();
        *sequence += 1;
        let what = What::CastIssued { sequence: *sequence, content: Content::of(payload), view, agreed };
        self.history.push(at, origin, what);
    }

    /// Notes a send that was accepted.
    pub(crate) fn send_issued(
        &mut self,
        at: u64,
        origin: Incarnation,
        payload: &[u8],
        to: Vec<Incarnation>,
        view: ViewId,
    ) {
        let issued = self.issued.entry((origin, Traffic::Send)).or_default();
        *issued += 1;
        let sequence = *issued;
        for to in &to {
            self.sent.insert((origin, *to), (sequence, view));
        }
        let what = What::SendIssued { sequence, content: Content::of(payload), to, view };
        self.history.push(at, origin, what);
    }

    /// Notes a delivery; the number of what was delivered, 0 if nobody ever issued it.
    pub(crate) fn delivered(
        &mut self,
        at: u64,
        member: Incarnation,
        traffic: Traffic,
        origin: Incarnation,
        payload: &[u8],
        view: ViewId,
    ) -> u64 {
        let content = Content::of(payload);
        let issued = self.issued.get(&(origin, traffic)).copied().unwrap_or(0);
        let said = read(payload).filter(|(said, kind, sequence)| {
            *said == origin && *kind == traffic && (1..=issued).contains(sequence)
        });
        let sequence = said.map_or(0, |(_, _, sequence)| sequence);
        let last = &mut self.delivered.entry((member, origin)).or_default()[traffic as usize];
        *last = (*last).max(sequence);
        let what = match traffic {
            Traffic::Cast => What::CastDelivered { origin, sequence, content, view },
            Traffic::Send => What::SendDelivered { origin, sequence, content, view },
        };
        self.history.push(at, member, what);
        sequence
    }

    /// The last cast of `origin` that a member has delivered.
    pub(crate) fn last_cast_delivered(&self, member: Incarnation, origin: Incarnation) -> u64 {
        self.delivered.get(&(member, origin)).map_or(0, |[cast, _]| *cast)
    }

    /// Notes the state with which a member begins a view.
    pub(crate) fn state(&mut self, at: u64, member: Incarnation, view: ViewId, (line, digest): (u64, u64)) {
        self.history.push(at, member, What::State { view, line, digest });
    }

    /// Notes a stability report.
    pub(crate) fn stable(
        &mut self,
        at: u64,
        member: Incarnation,
        measure: Measure,
        origin: Incarnation,
        through: u64,
        members: usize,
    ) {
        let what = What::Stable { measure, origin, through, members: members as u32 };
        self.history.push(at, member, what);
    }

    /// What these members, who are in this view, have issued last and not delivered yet: the first found, in words. A
    /// send of a view before may be lost for good: its receiver may have gone another way from there.
    pub(crate) fn lacking(&self, members: &[Incarnation], view: ViewId) -> Option<String> {
        let pairs = members.iter().flat_map(|member| members.iter().map(move |origin| (*member, *origin)));
        for (member, origin) in pairs {
            let [cast, send] = self.delivered.get(&(member, origin)).copied().unwrap_or_default();
            let issued = self.issued.get(&(origin, Traffic::Cast)).copied().unwrap_or(0);
            if cast < issued {
                return Some(format!("{member} has not delivered cast {origin}#{issued}"));
            }
            let sent = self.sent.get(&(origin, member)).filter(|(_, within)| *within == view);
            if let Some((sent, _)) = sent.filter(|(sent, _)| send < *sent) {
                return Some(format!("{member} has not delivered send {origin}#{sent}"));
            }
        }
        None
    }
}
