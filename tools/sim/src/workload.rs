//! What the applications of a run do: planned casts and sends, and answers to what they deliver.
//!
//! The plan is a function of the seed alone, and so is what a message looks like and whether it is answered: two runs
//! of one seed that differ in speed (with and without acceleration) issue the same messages, per stream in the same
//! order.

use std::collections::VecDeque;

use wadjet::group::{CastError, Group, Ticket};
use wadjet_oracle::Traffic;

use crate::ledger::Name;
use crate::random::Random;

/// How the lengths of messages are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lengths {
    /// All of them this long, or as long as fits.
    Fixed(usize),
    /// 0 to 15 bytes: none says who it is.
    Tiny,
    /// 16 to 128 bytes.
    Small,
    /// Nothing to the most that fits.
    Any,
    /// Within two bytes of the most that fits.
    Largest,
    /// Mostly small, sometimes any of the others.
    Mixed,
}

/// What each member does. Chances are per million messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Planned casts by member.
    pub casts: Vec<u32>,
    /// Planned sends by member.
    pub sends: Vec<u32>,
    /// Mean time between bursts of one member.
    pub gap_ns: u64,
    /// The most messages in a burst; 1 for lone messages.
    pub burst: u32,
    /// How long messages are.
    pub lengths: Lengths,
    /// A message is larger than a frame, where the stack carries such.
    pub large: u32,
    /// How long those are at most, in bytes; the longest message that members are configured for.
    pub large_bytes: usize,
    /// A planned cast is answered by a cast from inside the upcall, at each member.
    pub reply: u32,
    /// A planned send is answered by a send to its origin from inside the upcall.
    pub echo: u32,
    /// Casts are written in place (reserve, commit) and not handed over as a slice.
    pub reserve: u32,
    /// Casts are agreed, where the others are safe.
    pub agreed: u32,
    /// A reservation is dropped without commit before the message is cast.
    pub abandon: u32,
    /// A message one byte too long is tried first.
    pub oversize: u32,
    /// A delivered cast, and all before it, is acknowledged.
    pub acknowledge: u32,
}

/// Something a member is to issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) name: Name,
    /// Addressees of a send, bit by bit.
    pub(crate) to: u64,
}

/// A planned item and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) at: u64,
    pub(crate) item: Item,
}

impl Workload {
    /// What the member at `rank` of `members` does, by time.
    pub(crate) fn plan(&self, seed: u64, rank: usize, members: usize) -> VecDeque<Planned> {
        let mut random = Random::new(seed ^ (rank as u64) << 32, "plan");
        let (mut casts, mut sends) = (self.casts[rank], self.sends[rank]);
        let (mut next_cast, mut next_send) = (0, 0);
        let mut at = random.below(self.gap_ns.max(1));
        let mut plan = VecDeque::with_capacity((casts + sends) as usize);
        while casts + sends > 0 {
            for _ in 0..random.between(1, u64::from(self.burst.max(1))) {
                if casts + sends == 0 {
                    break;
                }
                let cast = random.below(u64::from(casts + sends)) < u64::from(casts);
                let (traffic, left, next) = match cast {
                    true => (Traffic::Cast, &mut casts, &mut next_cast),
                    false => (Traffic::Send, &mut sends, &mut next_send),
                };
                let name = Name { origin: rank as u16, traffic, stream: 0, index: *next };
                *left -= 1;
                *next += 1;
                let to = if cast { 0 } else { addressees(&mut random, rank, members) };
                plan.push_back(Planned { at, item: Item { name, to } });
            }
            at += random.between(0, 2 * self.gap_ns);
        }
        plan
    }

    /// How long the message called `name` is, if at most `limit` bytes fit a frame, and `large_limit` are carried.
    pub(crate) fn length(&self, seed: u64, name: Name, limit: usize, large_limit: usize) -> usize {
        if limit < large_limit && self.happens(seed, name, 0, self.large, "large") {
            let mut random = Random::new(name.hash(seed), "large length");
            let longest = if random.below(4) == 0 { large_limit } else { large_limit.min(3 * limit) };
            return random.between(limit as u64 + 1, longest as u64) as usize;
        }
        let mut random = Random::new(name.hash(seed), "length");
        let mut lengths = self.lengths;
        if lengths == Lengths::Mixed {
            use Lengths::*;
            lengths = *random.pick(&[Small, Small, Small, Small, Small, Tiny, Tiny, Any, Any, Largest]);
        }
        let (low, high) = match lengths {
            Lengths::Fixed(bytes) => (bytes, bytes),
            Lengths::Tiny => (0, 15),
            Lengths::Small | Lengths::Mixed => (16, 128),
            Lengths::Any => (0, limit),
            Lengths::Largest => (limit.saturating_sub(2), limit),
        };
        (random.between(low as u64, high as u64) as usize).min(limit)
    }

    /// What the member at `rank` issues on delivery of the message called `name`, if anything.
    pub(crate) fn answer(&self, seed: u64, rank: usize, name: Name) -> Option<Item> {
        let origin = usize::from(name.origin);
        let chance = match name.traffic {
            Traffic::Cast => self.reply,
            Traffic::Send => self.echo,
        };
        let mut random = Random::new(name.hash(seed) ^ rank as u64, "answer");
        if name.stream != 0 || origin == rank || !random.chance(chance) {
            return None;
        }
        let name = Name { origin: rank as u16, stream: 1 + name.origin, ..name };
        Some(Item { name, to: if name.traffic == Traffic::Send { 1 << origin } else { 0 } })
    }

    /// Whether something with this chance happens to the message called `name`, for the purpose called `what`.
    pub(crate) fn happens(&self, seed: u64, name: Name, rank: usize, chance: u32, what: &str) -> bool {
        chance > 0 && Random::new(name.hash(seed) ^ rank as u64, what).chance(chance)
    }
}

/// One member mostly, several sometimes, all others now and then.
fn addressees(random: &mut Random, rank: usize, members: usize) -> u64 {
    let others = ((1_u64 << members) - 1) & !(1 << rank);
    if others == 0 {
        return 0;
    }
    match random.below(10) {
        0 => others,
        1..=3 => others & random.word(),
        _ => {
            let mut to = random.below(members as u64 - 1);
            to += u64::from(to >= rank as u64);
            1 << to
        }
    }
}

/// Casts `payload`, written in place; agreed, or what is usual.
pub(crate) fn cast_in_place(
    group: &mut Group<'_>,
    payload: &[u8],
    agreed: bool,
) -> Result<Ticket, CastError> {
    if agreed {
        let mut room = group.agreed().reserve(payload.len())?;
        room.copy_from_slice(payload);
        return Ok(room.commit());
    }
    let mut room = group.reserve(payload.len())?;
    room.copy_from_slice(payload);
    Ok(room.commit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Workload {
        Workload {
            casts: vec![100, 0, 30],
            sends: vec![20, 50, 0],
            gap_ns: 10_000,
            burst: 8,
            lengths: Lengths::Mixed,
            large: 0,
            large_bytes: 1,
            reply: 500_000,
            echo: 500_000,
            reserve: 0,
            agreed: 0,
            abandon: 0,
            oversize: 0,
            acknowledge: 0,
        }
    }

    #[test]
    fn a_plan_holds_what_was_asked_for_in_order_of_time() {
        let workload = workload();
        for rank in 0..3 {
            let plan = workload.plan(1, rank, 3);
            let of = |traffic| plan.iter().filter(move |planned| planned.item.name.traffic == traffic);
            assert_eq!(of(Traffic::Cast).count(), workload.casts[rank] as usize);
            assert_eq!(of(Traffic::Send).count(), workload.sends[rank] as usize);
            assert!(plan.iter().zip(plan.iter().skip(1)).all(|(one, next)| one.at <= next.at));
            assert!(of(Traffic::Cast).zip(0..).all(|(planned, index)| planned.item.name.index == index));
            assert!(
                of(Traffic::Send).all(|planned| planned.item.to & (1 << rank) == 0 && planned.item.to < 8)
            );
            assert_eq!(plan, workload.plan(1, rank, 3));
        }
    }

    #[test]
    fn lengths_stay_within_the_limit_and_reach_it() {
        let workload = workload();
        let name = |index| Name { origin: 1, traffic: Traffic::Cast, stream: 0, index };
        let lengths: Vec<usize> =
            (0..2000).map(|index| workload.length(1, name(index), 1400, 1400)).collect();
        assert_eq!((lengths.iter().min(), lengths.iter().max()), (Some(&0), Some(&1400)));
        assert!((0..2000).all(|index| workload.length(1, name(index), 3, 3) <= 3));
    }

    #[test]
    fn some_messages_are_larger_than_a_frame_where_that_is_possible() {
        let workload = Workload { large: 100_000, ..workload() };
        let name = |index| Name { origin: 1, traffic: Traffic::Cast, stream: 0, index };
        let lengths = |limit| (0..2000).map(move |index| workload.length(1, name(index), 1400, limit));
        let large: Vec<usize> = lengths.clone()(20_000).filter(|length| *length > 1400).collect();
        assert!((100..300).contains(&large.len()), "{} of 2000", large.len());
        assert!(large.iter().all(|length| *length <= 20_000) && large.iter().any(|length| *length > 10_000));
        assert!(lengths(1400).all(|length| length <= 1400));
    }

    #[test]
    fn only_planned_messages_of_others_are_answered() {
        let workload = Workload { reply: 1_000_000, echo: 1_000_000, ..workload() };
        let cast = Name { origin: 1, traffic: Traffic::Cast, stream: 0, index: 4 };
        let reply = workload.answer(1, 0, cast).unwrap();
        assert_eq!((reply.name.origin, reply.name.stream, reply.to), (0, 2, 0));
        assert_eq!(workload.answer(1, 1, cast), None);
        assert_eq!(workload.answer(1, 2, reply.name), None);
        let echo = workload.answer(1, 0, Name { traffic: Traffic::Send, ..cast }).unwrap();
        assert_eq!((echo.name.traffic, echo.to), (Traffic::Send, 0b10));
    }
}
