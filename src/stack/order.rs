//! Accepted casts that wait for their order (design D4), by origin.
//!
//! Casts of one origin leave in the order of their numbers, so only the first of each can be next. Among several origins
//! the one accepted first goes first.

use std::collections::VecDeque;

use super::event::{List, Message, Part};
use super::slots::MemberSlot;
use crate::id::{Hasher64, Rank, RankSet};
use crate::wire::Traffic;
use crate::wire::layout::Header;

/// An accepted cast waiting for its release.
#[derive(Clone, Debug)]
pub(crate) struct Ordered {
    pub(crate) origin: Rank,
    pub(crate) number: u64,
    pub(crate) list: List,
    /// Whether it ends its origin's turn, if it came by plan.
    pub(crate) marked: bool,
    /// Whether it is agreed and not safe.
    pub(crate) agreed: bool,
    /// The rest of it, if it took the slow path.
    pub(crate) slow: Option<Box<Slow>>,
}

/// A cast that took the slow path and is held, but for what is known of every cast that is.
#[derive(Clone, Debug)]
pub(crate) struct Slow {
    /// The layer from which it comes up again.
    pub(crate) layer: usize,
    /// The word of its origin that releases it; none if it is in order, and waits for its service.
    pub(crate) release: Option<MemberSlot>,
    control: u8,
    part: Part,
    header: Header,
}

impl Slow {
    /// The message, of the frame `number` and with the payload `list`.
    pub(crate) fn message(&self, number: u64, list: List) -> Message {
        let Slow { control, part, header, .. } = *self;
        Message { traffic: Traffic::Cast, control, number, header, part, list }
    }
}

/// Boxes kept for casts that will be held: as many as may be expected at once.
const SPARES_MAX: usize = 64;

/// What is let go when nothing more can come, after all that is released.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest {
    /// The word of each origin whose casts are let go.
    pub(crate) slot: MemberSlot,
    pub(crate) of: RankSet,
    pub(crate) by_rank: bool,
}

/// All that wait.
#[derive(Clone, Debug)]
pub(crate) struct OrderQueue {
    /// By origin, ascending in number, each with its turn.
    of: Vec<VecDeque<(u64, Ordered)>>,
    /// Those that are in order and wait for something else, and by origin how many.
    ordered: VecDeque<Ordered>,
    ordered_of: Vec<usize>,
    /// How many there are in all.
    count: usize,
    /// The turn of the next one accepted.
    turn: u64,
    /// The view ends: there is room for whatever may still come of it.
    unbounded: bool,
    rest: Option<Rest>,
    /// Those of lower rank go first, whatever was accepted first.
    by_rank: bool,
    /// Boxes that have been used and will be again.
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    spare: Vec<Box<Slow>>,
}

impl OrderQueue {
    pub(crate) fn new(members: usize, room: usize) -> OrderQueue {
        let queue = || VecDeque::with_capacity(room / members);
        OrderQueue {
            of: (0..members).map(|_| queue()).collect(),
            ordered: VecDeque::with_capacity(room),
            ordered_of: vec![0; members],
            count: 0,
            turn: 0,
            unbounded: false,
            rest: None,
            by_rank: false,
            spare: Vec::with_capacity(SPARES_MAX),
        }
    }

    /// A cast that took the slow path, to be held.
    pub(crate) fn slow(
        &mut self,
        origin: Rank,
        layer: usize,
        release: Option<MemberSlot>,
        message: Message,
    ) -> Ordered {
        let Message { control, number, header, part, list, .. } = message;
        let slow = Slow { layer, release, control, part, header };
        let slow = match self.spare.pop() {
            Some(mut spare) => {
                *spare = slow;
                spare
            }
            None => Box::new(slow),
        };
        Ordered { origin, number, list, marked: false, agreed: false, slow: Some(slow) }
    }

    /// The box of one that is held no more.
    pub(crate) fn give_back(&mut self, slow: Box<Slow>) {
        if self.spare.len() < SPARES_MAX {
            self.spare.push(slow);
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// How many of `origin` are not in order yet.
    #[inline]
    pub(crate) fn of(&self, origin: Rank) -> usize {
        self.of[origin.index()].len()
    }

    /// Whether no more of `origin` is taken in, of which there may be `share`.
    #[inline]
    pub(crate) fn is_full(&self, origin: Rank, share: usize) -> bool {
        self.of(origin) + self.ordered_of[origin.index()] >= share && !self.unbounded
    }

    /// From now on there is no bound: what can still come is bounded by what waits at its origins.
    pub(crate) fn lift_bound(&mut self) {
        self.unbounded = true;
    }

    /// When nothing else is released any more, the rest is.
    pub(crate) fn release_rest(&mut self, rest: Rest) {
        self.rest = Some(rest);
    }

    /// The rest, when its time has come.
    pub(crate) fn take_rest(&mut self) -> Option<Rest> {
        let rest = self.rest.take()?;
        self.by_rank = rest.by_rank;
        Some(rest)
    }

    /// The number of the first of `origin` that waits, as long as there is a bound to how many of them there are.
    #[inline]
    pub(crate) fn first_of(&self, origin: Rank) -> Option<u64> {
        if self.unbounded {
            return None;
        }
        let first = self.of[origin.index()].front().map(|(_, held)| held.number);
        let in_order = match self.ordered_of[origin.index()] {
            0 => None,
            _ => self.ordered.iter().find(|held| held.origin == origin).map(|held| held.number),
        };
        first.into_iter().chain(in_order).min()
    }

    /// Whether one of `origin` has a number below `number`.
    pub(crate) fn holds_before(&self, origin: Rank, number: u64) -> bool {
        self.of[origin.index()].front().is_some_and(|(_, held)| held.number < number)
    }

    /// Whether nothing waits that is in order already.
    #[inline]
    pub(crate) fn is_clear(&self) -> bool {
        self.ordered.is_empty()
    }

    /// Takes in a cast that is in order, after all others that are.
    pub(crate) fn push_ordered(&mut self, held: Ordered) {
        self.ordered_of[held.origin.index()] += 1;
        self.ordered.push_back(held);
        self.count += 1;
    }

    /// Takes out the first of those that are in order, if it is free.
    pub(crate) fn take_ordered(&mut self, free: impl FnOnce(&Ordered) -> bool) -> Option<Ordered> {
        let held = self.ordered.pop_front_if(|held| free(held))?;
        self.ordered_of[held.origin.index()] -= 1;
        self.count -= 1;
        Some(held)
    }

    /// Takes in a cast with the highest number of its origin.
    #[inline]
    pub(crate) fn push(&mut self, held: Ordered) {
        self.of[held.origin.index()].push_back((self.turn, held));
        self.turn += 1;
        self.count += 1;
    }

    /// Takes in a cast before those of its origin with higher numbers, at the turn of the first of these: one that an
    /// ordering layer released may wait for another layer, with later casts already behind it.
    pub(crate) fn insert(&mut self, held: Ordered) {
        let queue = &mut self.of[held.origin.index()];
        let at = queue.partition_point(|(_, other)| other.number <= held.number);
        match queue.get(at) {
            Some((turn, _)) => {
                let turn = *turn;
                queue.insert(at, (turn, held));
                self.count += 1;
            }
            None => self.push(held),
        }
    }

    /// Takes out the first, by turn, of those for which `free` holds, asked of the first of each origin only.
    pub(crate) fn take(&mut self, mut free: impl FnMut(&Ordered) -> bool) -> Option<Ordered> {
        let mut next: Option<(u64, usize)> = None;
        for (origin, queue) in self.of.iter().enumerate() {
            if let Some((turn, held)) = queue.front()
                && next.is_none_or(|(earliest, _)| *turn < earliest && !self.by_rank)
                && free(held)
            {
                next = Some((*turn, origin));
            }
        }
        let (_, held) = self.of[next?.1].pop_front()?;
        self.count -= 1;
        Some(held)
    }

    /// The lists of those of `origin`.
    pub(crate) fn lists_of(&mut self, origin: Rank) -> impl Iterator<Item = &mut List> {
        let ordered = self.ordered.iter_mut().filter(move |held| held.origin == origin);
        let waiting = self.of[origin.index()].iter_mut().map(|(_, held)| held);
        ordered.chain(waiting).map(|held| &mut held.list)
    }

    pub(crate) fn clear(&mut self) {
        self.of.iter_mut().for_each(VecDeque::clear);
        self.ordered.clear();
        self.ordered_of.fill(0);
        self.count = 0;
    }

    /// Takes in who waits, and in which turn.
    pub(crate) fn digest(&self, hasher: &mut Hasher64) {
        for held in &self.ordered {
            hasher.word(u64::from(held.origin.0));
            hasher.word(held.number << 1 | u64::from(held.agreed));
        }
        for (turn, held) in self.of.iter().flatten() {
            hasher.word(u64::from(held.origin.0));
            hasher.word(held.number);
            hasher.word(*turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::buf::{Region, RegionOptions};

    fn list() -> List {
        let options = RegionOptions {
            frames: 1,
            link_headroom_bytes: 0,
            frame_bytes: 64,
            reserve_frames: 0,
            huge_pages: false,
        };
        let frame = Region::pool(options).unwrap().take(0).unwrap().freeze();
        List::single(frame, 0, 0)
    }

    /// What the queue must agree with: one list in order of turns, searched from the front.
    fn plain_take(plain: &mut Vec<(usize, u64)>, free: impl Fn(usize, u64) -> bool) -> Option<(usize, u64)> {
        let first = |at: &usize| !plain[..*at].iter().any(|(origin, _)| *origin == plain[*at].0);
        let at = (0..plain.len()).filter(first).find(|at| free(plain[*at].0, plain[*at].1))?;
        Some(plain.remove(at))
    }

    proptest! {
        #[test]
        fn it_gives_what_a_search_of_one_list_would(
            steps in proptest::collection::vec((0u8..3, 0usize..4, 0u64..6), 1..200),
        ) {
            let list = list();
            let mut queue = OrderQueue::new(4, 16);
            let mut plain: Vec<(usize, u64)> = Vec::new();
            let mut next = [0u64; 4];
            for (what, origin, release) in steps {
                let held = |number| {
                    let (origin, list) = (Rank::at(origin), list.clone());
                    Ordered { origin, number, list, marked: false, agreed: false, slow: None }
                };
                match what {
                    0 => {
                        queue.push(held(next[origin]));
                        plain.push((origin, next[origin]));
                        next[origin] += 2;
                    }
                    1 if queue.of(Rank::at(origin)) > 0 => {
                        let first = plain.iter().position(|(of, _)| *of == origin).unwrap();
                        // Comes back in front of the others of its origin, as one that waits for another layer.
                        let number = plain[first].1.saturating_sub(1);
                        if number < plain[first].1 {
                            queue.insert(held(number));
                            plain.insert(first, (origin, number));
                        }
                    }
                    _ => {
                        let limit = next[origin].saturating_sub(release);
                        let free = |of: usize, number: u64| of != origin || number < limit;
                        let taken = queue.take(|held| free(held.origin.index(), held.number));
                        let taken = taken.map(|held| (held.origin.index(), held.number));
                        prop_assert_eq!(taken, plain_take(&mut plain, free));
                    }
                }
                prop_assert_eq!(queue.len(), plain.len());
                prop_assert_eq!(queue.is_empty(), plain.is_empty());
                for (of, _) in &plain {
                    let lowest = plain.iter().filter(|(other, _)| other == of).map(|(_, n)| *n).min().unwrap();
                    prop_assert!(queue.holds_before(Rank::at(*of), lowest + 1));
                    prop_assert!(!queue.holds_before(Rank::at(*of), lowest));
                }
            }
        }
    }
}
