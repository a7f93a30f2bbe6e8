//! What membership layers say to each other, inside a view and from view to view.
//!
//! Numbers are little-endian; a rank set is two words; a view id is two words; a text is its length (`u16`) and its
//! bytes; a list is its length (`u16`) and its items.

use std::time::Duration;

use super::meeting::Weight;
use crate::id::{GroupId, Incarnation, MEMBERS_MAX, Rank, RankSet, ViewId};
use crate::stack::event::{Charge, GroundsKind, Holdup};
use crate::stack::spec::SPEC_BYTES_MAX;
use crate::view::{ADDRESS_BYTES_MAX, Address, Member, View};
use crate::wire::control::{BodyReader, ControlError};

/// Between members of one view, by reliable sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Inside {
    /// The coordinator begins a flush: these have failed, and who has found that out of each of them, and how.
    Flush { proposal: ViewId, failed: RankSet, charges: Vec<Charge> },
    /// Has stopped casting; can take frames of so many bytes; holds so many frames of each member.
    FlushOk { proposal: ViewId, failed: RankSet, charges: Vec<Charge>, frame_bytes: u32, held: Vec<u64> },
    /// The proposal is older than one that was answered already.
    Behind { promised: ViewId },
    /// So many frames of each member belong to this view; who can forward them.
    Cut { proposal: ViewId, frames: Vec<u64>, holders: Vec<Rank> },
    /// Has delivered all of them.
    CutOk { proposal: ViewId },
    /// The next view.
    View { proposal: ViewId, view: View },
    /// Wants to leave.
    Leave,
    /// The numbers of this view are running out: wants another with the same members.
    Renew,
    /// This one has held the senders up for too long: it is out of this view.
    Expelled { member: Rank, why: Holdup, lasting: Duration },
    /// Has room for a view of so many members, and no more.
    Room { members: u16 },
    /// Cannot report for the proposal, because these take nothing in: goes on without them.
    HeldUp { proposal: ViewId, by: RankSet },
}

/// Between processes of different views, outside any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// Here is a view of the group.
    Presence {
        /// Please answer.
        reply: bool,
        /// No time to merge.
        busy: bool,
        weight: Weight,
        coordinator: Member,
        terms: String,
        wire_version: u8,
    },
    /// Let us into your view: we have stopped casting and wait. All of us can take frames of so many bytes. The token shows
    /// that we have been answered before; without one, and for the view that we are in, it asks whether you would.
    Merge {
        proposal: ViewId,
        token: u64,
        terms: String,
        wire_version: u8,
        frame_bytes: u32,
        /// All of us have room for a view of so many members.
        members_max: u16,
        members: Vec<Member>,
    },
    /// No, in words that name both sides.
    Deny { proposal: ViewId, refusal: Refusal, reason: String },
    /// The next view: to those let in, and to those who were about to install it.
    View { proposal: ViewId, view: View },
    /// I was away: is the view I am in still the one you are in?
    Inquire,
    /// No: that view is past, and you are not in its successors, because this one has found you failed; and whether half of
    /// the view that it was found in, or more, have gone on without you.
    Excluded { past: ViewId, accuser: Incarnation, kind: Option<GroundsKind>, by_most: bool },
    /// You have held the senders of that view up for so long, and are out of it.
    Expelled { past: ViewId, lasting: Duration },
    /// You want to be let in, and would be: say it again, with this token.
    Confirm { proposal: ViewId, token: u64 },
}

/// What a denial means to who is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not now: no concern of the application's.
    Busy,
    /// Not before somebody has changed something: the application is told, and asking again has less and less hurry.
    Lasting,
    /// Another process has the incarnation of the one that is denied: if that one is alone, its group ends.
    Taken,
}

impl Refusal {
    /// In the order of their codes.
    const ALL: [Refusal; 3] = [Refusal::Busy, Refusal::Lasting, Refusal::Taken];
}

/// Writes a body from front to back.
#[derive(Default)]
struct BodyWriter {
    bytes: Vec<u8>,
}

impl BodyWriter {
    fn byte(&mut self, value: u8) -> &mut BodyWriter {
        self.bytes.push(value);
        self
    }

    fn half(&mut self, value: u16) -> &mut BodyWriter {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn word(&mut self, value: u64) -> &mut BodyWriter {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn id(&mut self, id: ViewId) -> &mut BodyWriter {
        self.word(id.counter).word(id.coordinator.0)
    }

    fn ranks(&mut self, ranks: RankSet) -> &mut BodyWriter {
        ranks.words().into_iter().for_each(|word| {
            self.word(word);
        });
        self
    }

    /// Members that have failed, and as many charges.
    fn failed(&mut self, failed: RankSet, charges: &[Charge]) -> &mut BodyWriter {
        self.ranks(failed);
        charges.iter().for_each(|charge| {
            self.half(charge.by.0).byte(GroundsKind::code(charge.kind));
        });
        self
    }

    fn text(&mut self, text: &str) -> &mut BodyWriter {
        self.half(text.len() as u16);
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    fn words(&mut self, words: &[u64]) -> &mut BodyWriter {
        self.half(words.len() as u16);
        words.iter().for_each(|word| {
            self.word(*word);
        });
        self
    }

    fn member(&mut self, member: &Member) -> &mut BodyWriter {
        self.word(member.incarnation.0).text(&member.address.0)
    }

    fn members(&mut self, members: &[Member]) -> &mut BodyWriter {
        self.half(members.len() as u16);
        members.iter().for_each(|member| {
            self.member(member);
        });
        self
    }

    fn view(&mut self, view: &View) -> &mut BodyWriter {
        self.word(view.group.0)
            .id(view.id)
            .word(view.salt)
            .byte(view.wire_version)
            .word(view.frame_bytes.into());
        self.text(&view.spec).members(&view.members)
    }
}

/// The longest reason for a refusal, in bytes: it may name both stacks.
const REASON_BYTES_MAX: usize = 3 * TERMS_BYTES_MAX;

/// A stack and its windows, in bytes.
const TERMS_BYTES_MAX: usize = SPEC_BYTES_MAX + 64;

/// No view has a higher counter: no group changes its view so often.
const COUNTER_MAX: u64 = 1 << 62;
/// Nobody is so many views ahead of anybody else: what is said of later ones is not taken over, so that no message brings
/// a group to where its views can have no successors.
const COUNTER_LEAP_MAX: u64 = 1 << 40;

/// Whether somebody else may have got as far as `id`, when this process has heard of `counter`.
pub(super) fn is_plausible(id: ViewId, counter: u64) -> bool {
    id.counter <= counter.saturating_add(COUNTER_LEAP_MAX).min(COUNTER_MAX)
}

/// What is read beside plain numbers.
trait Reads {
    fn id(&mut self) -> Result<ViewId, ControlError>;
    fn weight(&mut self) -> Result<Weight, ControlError>;
    /// Ranks of a view of `members` members.
    fn ranks(&mut self, members: usize) -> Result<RankSet, ControlError>;
    fn rank(&mut self, members: usize) -> Result<Rank, ControlError>;
    fn failed(&mut self, members: usize) -> Result<(RankSet, Vec<Charge>), ControlError>;
    /// A text of at most `most` bytes.
    fn text(&mut self, most: usize) -> Result<String, ControlError>;
    fn flag(&mut self) -> Result<bool, ControlError>;
    fn frame_bytes(&mut self) -> Result<u32, ControlError>;
    fn count(&mut self) -> Result<usize, ControlError>;
    fn member(&mut self) -> Result<Member, ControlError>;
    fn members(&mut self) -> Result<Vec<Member>, ControlError>;
    fn members_if_any(&mut self) -> Result<Vec<Member>, ControlError>;
    /// A view, which nobody is in if all leave.
    fn view(&mut self) -> Result<View, ControlError>;
}

impl Reads for BodyReader<'_> {
    fn id(&mut self) -> Result<ViewId, ControlError> {
        let id = ViewId { counter: self.word()?, coordinator: Incarnation(self.word()?) };
        if id.counter <= COUNTER_MAX { Ok(id) } else { Err(ControlError) }
    }

    fn weight(&mut self) -> Result<Weight, ControlError> {
        let (view, size, seniors) = (self.id()?, self.half()?, self.half()?);
        if seniors <= size { Ok(Weight { seniors, size, view }) } else { Err(ControlError) }
    }

    fn ranks(&mut self, members: usize) -> Result<RankSet, ControlError> {
        let ranks = RankSet::from_words([self.word()?, self.word()?]);
        if ranks.without(RankSet::all(members)).is_empty() { Ok(ranks) } else { Err(ControlError) }
    }

    fn rank(&mut self, members: usize) -> Result<Rank, ControlError> {
        let rank = Rank(self.half()?);
        if rank.index() < members { Ok(rank) } else { Err(ControlError) }
    }

    fn failed(&mut self, members: usize) -> Result<(RankSet, Vec<Charge>), ControlError> {
        let failed = self.ranks(members)?;
        let charge = |_| Ok(Charge { by: self.rank(members)?, kind: GroundsKind::of_code(self.byte()?)? });
        let charges = (0..failed.len()).map(charge).collect::<Result<Vec<_>, _>>()?;
        Ok((failed, charges))
    }

    fn text(&mut self, most: usize) -> Result<String, ControlError> {
        let length = usize::from(self.half()?);
        if length > most {
            return Err(ControlError);
        }
        let mut bytes = vec![0; length];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        String::from_utf8(bytes).map_err(|_| ControlError)
    }

    fn flag(&mut self) -> Result<bool, ControlError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(ControlError),
        }
    }

    fn frame_bytes(&mut self) -> Result<u32, ControlError> {
        u32::try_from(self.word()?).map_err(|_| ControlError)
    }

    fn count(&mut self) -> Result<usize, ControlError> {
        let count = usize::from(self.half()?);
        if count == 0 || count > MEMBERS_MAX { Err(ControlError) } else { Ok(count) }
    }

    fn member(&mut self) -> Result<Member, ControlError> {
        Ok(Member { incarnation: Incarnation(self.word()?), address: Address(self.text(ADDRESS_BYTES_MAX)?) })
    }

    fn members(&mut self) -> Result<Vec<Member>, ControlError> {
        let members = self.members_if_any()?;
        if members.is_empty() { Err(ControlError) } else { Ok(members) }
    }

    fn members_if_any(&mut self) -> Result<Vec<Member>, ControlError> {
        let count = usize::from(self.half()?);
        if count > MEMBERS_MAX {
            return Err(ControlError);
        }
        let mut members: Vec<Member> = Vec::with_capacity(count);
        for _ in 0..count {
            let member = self.member()?;
            if members.iter().any(|other| other.incarnation == member.incarnation) {
                return Err(ControlError);
            }
            members.push(member);
        }
        Ok(members)
    }

    fn view(&mut self) -> Result<View, ControlError> {
        Ok(View {
            group: GroupId(self.word()?),
            id: self.id()?,
            salt: self.word()?,
            wire_version: self.byte()?,
            frame_bytes: self.frame_bytes()?,
            spec: self.text(SPEC_BYTES_MAX)?,
            members: self.members_if_any()?,
        })
    }
}

impl Inside {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = BodyWriter::default();
        match self {
            Inside::Flush { proposal, failed, charges } => {
                body.byte(0).id(*proposal).failed(*failed, charges)
            }
            Inside::FlushOk { proposal, failed, charges, frame_bytes, held } => {
                body.byte(1).id(*proposal).failed(*failed, charges).word(u64::from(*frame_bytes)).words(held)
            }
            Inside::Behind { promised } => body.byte(2).id(*promised),
            Inside::Cut { proposal, frames, holders } => {
                body.byte(3).id(*proposal).words(frames);
                holders.iter().for_each(|holder| {
                    body.half(holder.0);
                });
                &mut body
            }
            Inside::CutOk { proposal } => body.byte(4).id(*proposal),
            Inside::View { proposal, view } => body.byte(5).id(*proposal).view(view),
            Inside::Leave => body.byte(6),
            Inside::Renew => body.byte(7),
            Inside::Expelled { member, why, lasting } => {
                let (code, frames) = match why {
                    Holdup::Behind { frames } => (0, *frames),
                    Holdup::NoCredit => (1, 0),
                };
                body.byte(8).half(member.0).byte(code).word(frames).word(lasting.as_millis() as u64)
            }
            Inside::HeldUp { proposal, by } => body.byte(9).id(*proposal).ranks(*by),
            Inside::Room { members } => body.byte(10).half(*members),
        };
        body.bytes
    }

    /// Reads what a member of a view of `members` members said.
    pub(super) fn decode(bytes: &[u8], members: usize) -> Result<Inside, ControlError> {
        let mut reader = BodyReader::new(bytes);
        let code = reader.byte()?;
        let words = |reader: &mut BodyReader<'_>| -> Result<Vec<u64>, ControlError> {
            if reader.count()? != members {
                return Err(ControlError);
            }
            (0..members).map(|_| reader.word()).collect()
        };
        let message = match code {
            0 => {
                let (proposal, (failed, charges)) = (reader.id()?, reader.failed(members)?);
                Inside::Flush { proposal, failed, charges }
            }
            1 => {
                let (proposal, (failed, charges)) = (reader.id()?, reader.failed(members)?);
                let frame_bytes = reader.frame_bytes()?;
                Inside::FlushOk { proposal, failed, charges, frame_bytes, held: words(&mut reader)? }
            }
            2 => Inside::Behind { promised: reader.id()? },
            3 => {
                let (proposal, frames) = (reader.id()?, words(&mut reader)?);
                let holder = |_| reader.rank(members);
                Inside::Cut { proposal, frames, holders: (0..members).map(holder).collect::<Result<_, _>>()? }
            }
            4 => Inside::CutOk { proposal: reader.id()? },
            5 => Inside::View { proposal: reader.id()?, view: reader.view()? },
            6 => Inside::Leave,
            7 => Inside::Renew,
            8 => {
                let member = reader.rank(members)?;
                let why = match (reader.byte()?, reader.word()?) {
                    (0, frames) => Holdup::Behind { frames },
                    (1, 0) => Holdup::NoCredit,
                    _ => return Err(ControlError),
                };
                Inside::Expelled { member, why, lasting: Duration::from_millis(reader.word()?) }
            }
            9 => Inside::HeldUp { proposal: reader.id()?, by: reader.ranks(members)? },
            10 => Inside::Room { members: reader.count()? as u16 },
            _ => return Err(ControlError),
        };
        reader.end()?;
        Ok(message)
    }
}

impl Inside {
    /// The latest view id that is spoken of.
    pub(super) fn latest(&self) -> Option<ViewId> {
        match self {
            Inside::View { proposal, view } => Some(view.id.max(*proposal)),
            Inside::Behind { promised } => Some(*promised),
            Inside::Flush { proposal, .. }
            | Inside::FlushOk { proposal, .. }
            | Inside::Cut { proposal, .. }
            | Inside::CutOk { proposal }
            | Inside::HeldUp { proposal, .. } => Some(*proposal),
            Inside::Leave | Inside::Renew | Inside::Room { .. } | Inside::Expelled { .. } => None,
        }
    }
}

impl Beyond {
    /// The latest view id that is spoken of.
    pub(super) fn latest(&self) -> Option<ViewId> {
        match self {
            Beyond::View { proposal, view } => Some(view.id.max(*proposal)),
            Beyond::Merge { proposal, .. }
            | Beyond::Deny { proposal, .. }
            | Beyond::Confirm { proposal, .. } => Some(*proposal),
            Beyond::Presence { weight, .. } => Some(weight.view),
            Beyond::Excluded { past, .. } | Beyond::Expelled { past, .. } => Some(*past),
            Beyond::Inquire => None,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = BodyWriter::default();
        match self {
            Beyond::Presence { reply, busy, weight, coordinator, terms, wire_version } => body
                .byte(0)
                .byte(u8::from(*reply))
                .byte(u8::from(*busy))
                .id(weight.view)
                .half(weight.size)
                .half(weight.seniors)
                .member(coordinator)
                .text(terms)
                .byte(*wire_version),
            Beyond::Merge { proposal, token, terms, wire_version, frame_bytes, members_max, members } => {
                body.byte(1)
                    .id(*proposal)
                    .word(*token)
                    .text(terms)
                    .byte(*wire_version)
                    .word(u64::from(*frame_bytes))
                    .half(*members_max);
                body.members(members)
            }
            Beyond::Deny { proposal, refusal, reason } => {
                body.byte(2).id(*proposal).byte(*refusal as u8).text(reason)
            }
            Beyond::View { proposal, view } => body.byte(3).id(*proposal).view(view),
            Beyond::Inquire => body.byte(4),
            Beyond::Excluded { past, accuser, kind, by_most } => {
                body.byte(5).id(*past).word(accuser.0).byte(GroundsKind::code(*kind)).byte(u8::from(*by_most))
            }
            Beyond::Expelled { past, lasting } => body.byte(6).id(*past).word(lasting.as_millis() as u64),
            Beyond::Confirm { proposal, token } => body.byte(7).id(*proposal).word(*token),
        };
        body.bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Beyond, ControlError> {
        let mut reader = BodyReader::new(bytes);
        let message = match reader.byte()? {
            0 => Beyond::Presence {
                reply: reader.flag()?,
                busy: reader.flag()?,
                weight: reader.weight()?,
                coordinator: reader.member()?,
                terms: reader.text(TERMS_BYTES_MAX)?,
                wire_version: reader.byte()?,
            },
            1 => Beyond::Merge {
                proposal: reader.id()?,
                token: reader.word()?,
                terms: reader.text(TERMS_BYTES_MAX)?,
                wire_version: reader.byte()?,
                frame_bytes: reader.frame_bytes()?,
                members_max: reader.count()? as u16,
                members: reader.members()?,
            },
            2 => Beyond::Deny {
                proposal: reader.id()?,
                refusal: *Refusal::ALL.get(usize::from(reader.byte()?)).ok_or(ControlError)?,
                reason: reader.text(REASON_BYTES_MAX)?,
            },
            3 => {
                let (proposal, view) = (reader.id()?, reader.view()?);
                // It lets somebody in.
                if view.members.is_empty() {
                    return Err(ControlError);
                }
                Beyond::View { proposal, view }
            }
            4 => Beyond::Inquire,
            5 => Beyond::Excluded {
                past: reader.id()?,
                accuser: Incarnation(reader.word()?),
                kind: GroundsKind::of_code(reader.byte()?)?,
                by_most: reader.flag()?,
            },
            6 => Beyond::Expelled { past: reader.id()?, lasting: Duration::from_millis(reader.word()?) },
            7 => Beyond::Confirm { proposal: reader.id()?, token: reader.word()? },
            _ => return Err(ControlError),
        };
        reader.end()?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(counter: u64) -> ViewId {
        ViewId { counter, coordinator: Incarnation(77) }
    }

    fn view() -> View {
        let member =
            |n: u64| Member { incarnation: Incarnation(n), address: Address(format!("10.0.0.{n}:7000")) };
        View { id: id(9), ..View::fixed(GroupId(5), (1..=100).map(member).collect(), "NAK:COM") }
    }

    #[test]
    fn every_message_comes_out_as_it_went_in_and_no_part_of_it_decodes() {
        let failed = RankSet::one(Rank(1));
        let charges = vec![Charge { by: Rank(2), kind: Some(GroundsKind::Unheard) }];
        let view = view();
        let coordinator = view.members[0].clone();
        let (terms, wire_version) = (view.spec.clone(), 1);
        let lasting = Duration::from_millis(1234);
        let inside = [
            Inside::Flush { proposal: id(2), failed, charges: charges.clone() },
            Inside::FlushOk { proposal: id(2), failed, charges, frame_bytes: 1472, held: vec![7, 8, 9] },
            Inside::Behind { promised: id(3) },
            Inside::Cut { proposal: id(2), frames: vec![7, 8, 9], holders: vec![Rank(0), Rank(2), Rank(2)] },
            Inside::CutOk { proposal: id(2) },
            Inside::View { proposal: id(2), view: view.clone() },
            Inside::Leave,
            Inside::Renew,
            Inside::Expelled { member: Rank(2), why: Holdup::Behind { frames: 700 }, lasting },
            Inside::Expelled { member: Rank(0), why: Holdup::NoCredit, lasting },
            Inside::HeldUp { proposal: id(2), by: failed },
            Inside::Room { members: 11 },
        ];
        for message in inside {
            let bytes = message.encode();
            assert_eq!(Inside::decode(&bytes, 3), Ok(message));
            for length in 0..bytes.len() {
                assert_eq!(Inside::decode(&bytes[..length], 3), Err(ControlError));
            }
        }
        let beyond = [
            Beyond::Presence {
                reply: true,
                busy: false,
                weight: Weight { seniors: 2, size: 3, view: id(2) },
                coordinator,
                terms: terms.clone(),
                wire_version,
            },
            Beyond::Merge {
                proposal: id(2),
                token: 7,
                terms,
                wire_version,
                frame_bytes: 972,
                members_max: 11,
                members: view.members.clone(),
            },
            Beyond::Deny { proposal: id(2), refusal: Refusal::Lasting, reason: "no".into() },
            Beyond::Deny { proposal: id(2), refusal: Refusal::Taken, reason: String::new() },
            Beyond::View { proposal: id(2), view },
            Beyond::Inquire,
            Beyond::Excluded {
                past: id(1),
                accuser: Incarnation(9),
                kind: Some(GroundsKind::Application),
                by_most: true,
            },
            Beyond::Excluded { past: id(1), accuser: Incarnation(9), kind: None, by_most: false },
            Beyond::Confirm { proposal: id(2), token: 7 },
            Beyond::Expelled { past: id(1), lasting },
        ];
        for message in beyond {
            let bytes = message.encode();
            assert_eq!(Beyond::decode(&bytes), Ok(message));
            for length in 0..bytes.len() {
                assert_eq!(Beyond::decode(&bytes[..length]), Err(ControlError));
            }
        }
    }

    #[test]
    fn members_named_twice_and_addresses_too_long_are_refused() {
        let view = |change: fn(&mut Vec<Member>)| {
            let mut view = view();
            change(&mut view.members);
            Inside::decode(&Inside::View { proposal: id(2), view }.encode(), 3)
        };
        assert!(view(|_| {}).is_ok());
        assert!(view(Vec::clear).is_ok(), "all leave");
        let nobody = View { members: Vec::new(), ..self::view() };
        let letter = Beyond::View { proposal: id(2), view: nobody }.encode();
        assert_eq!(Beyond::decode(&letter), Err(ControlError), "it lets nobody in");
        assert_eq!(view(|members| members[2].incarnation = members[0].incarnation), Err(ControlError));
        assert_eq!(
            view(|members| members[1].address.0 = "a".repeat(ADDRESS_BYTES_MAX + 1)),
            Err(ControlError)
        );
    }

    #[test]
    fn ranks_and_vectors_of_another_size_are_refused() {
        let outside = RankSet::one(Rank(3));
        let charge = |by| vec![Charge { by: Rank(by), kind: None }];
        let bytes = Inside::Flush { proposal: id(2), failed: outside, charges: charge(0) }.encode();
        assert_eq!(Inside::decode(&bytes, 3), Err(ControlError));
        let failed = RankSet::one(Rank(1));
        let bytes = Inside::Flush { proposal: id(2), failed, charges: charge(3) }.encode();
        assert_eq!(Inside::decode(&bytes, 3), Err(ControlError));
        let bytes = Inside::FlushOk {
            proposal: id(2),
            failed: RankSet::EMPTY,
            charges: Vec::new(),
            frame_bytes: 0,
            held: vec![1, 2, 3, 4],
        }
        .encode();
        assert_eq!(Inside::decode(&bytes, 3), Err(ControlError));
        let (why, lasting) = (Holdup::NoCredit, Duration::ZERO);
        let bytes = Inside::Expelled { member: Rank(3), why, lasting }.encode();
        assert_eq!(Inside::decode(&bytes, 3), Err(ControlError));
        let bytes = Inside::CutOk { proposal: id(COUNTER_MAX + 1) }.encode();
        assert_eq!(Inside::decode(&bytes, 3), Err(ControlError));
        let holders = vec![Rank(0), Rank(1), Rank(3)];
        let bytes = Inside::Cut { proposal: id(2), frames: vec![1, 2, 3], holders }.encode();
        assert_eq!(Inside::decode(&bytes, 3), Err(ControlError));
    }
}
