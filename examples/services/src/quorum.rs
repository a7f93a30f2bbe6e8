//! When commands count: which replicas have the state, whether those are enough, and what a client may be told.
//!
//! A view says who is there, not who has the state: of those that come in it is still on its way, and a replica that was
//! started again has forgotten what it acknowledged. So in each view every replica says, by a cast, when it has the state
//! ([`Claim`]; XFER tells the view after the last part of it). Commands count from the claim on, in the one order of all,
//! with which there are enough: a majority of replicas that remember (have had the state since a time when commands
//! counted), or all there are. At that point all have the same state, and begin a new *epoch*, which goes with the state.
//!
//! An epoch is the view in which it began. A number counted up would not do: who is cut off may see the end of a view alone
//! and begin an epoch with claims that the others, between the same two views, never get; these begin one in the next view
//! and acknowledge commands in it. By the id of the view the second is the later one, whoever heard what at the end of
//! the first. For whatever is acknowledged in an epoch was held by all of its view, so that all of them end it with the
//! commands; each majority that remembers has one of them, whose views have grown since; and a state gives way to one of its
//! own or a later epoch only. So an acknowledged command is in every state that counts later, as long as no majority is
//! failed. `tests/quorum.rs` tries that with cuts and crashes at random.
//!
//! What a replica does between a transitional view and the next is promised to those alone that go on with it. It may
//! be what others acknowledge, so it is done; but a reply to it waits until commands count among all of a later view.
//!
//! Where views come together the group gives its state to those let in, whatever they had. One that has a state of a later
//! epoch keeps it and claims so; the first that claimed the latest epoch hands its state to all by a cast, before which
//! nothing counts.
//!
//! A majority is one of `replicas`, the same number at all of them: with claims of another number nothing counts, and the
//! fewer of the two kinds are to end. In a view of more members than that nothing counts either, for they could part
//! into two majorities.

use wadjet::Incarnation;
use wadjet::id::{MEMBERS_MAX, Rank, RankSet, ViewId};

/// What a replica says of its state in a view; and what a state is given with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The view it was said for: one that was cast late says nothing of the next.
    pub view: ViewId,
    /// The epoch of its state: the view in which it began. Counter zero: commands never counted.
    pub epoch: ViewId,
    /// Of how many replicas it is one.
    pub replicas: u64,
    /// It remembers.
    pub remembers: bool,
    /// It has kept a state that is not that of the group.
    pub kept: bool,
}

impl Claim {
    /// Its bytes when encoded.
    pub const BYTES: usize = 48;

    /// As it is cast.
    pub fn encode(&self) -> [u8; Claim::BYTES] {
        let Claim { view, epoch, replicas, remembers, kept } = *self;
        let flags = u64::from(remembers) | u64::from(kept) << 1;
        let words = [view.counter, view.coordinator.0, epoch.counter, epoch.coordinator.0, replicas, flags];
        let mut bytes = [0; Claim::BYTES];
        for (word, to) in words.iter().zip(bytes.as_chunks_mut::<8>().0) {
            *to = word.to_le_bytes();
        }
        bytes
    }

    /// What was cast, and what follows it, if it is a claim.
    pub fn decode(bytes: &[u8]) -> Option<(Claim, &[u8])> {
        let (claim, rest) = bytes.split_first_chunk::<{ Claim::BYTES }>()?;
        let word = |at: usize| u64::from_le_bytes(claim.as_chunks::<8>().0[at]);
        let id = |at: usize| ViewId { counter: word(at), coordinator: Incarnation(word(at + 1)) };
        let (remembers, kept) = (word(5) & 1 != 0, word(5) & 2 != 0);
        Some((Claim { view: id(0), epoch: id(2), replicas: word(4), remembers, kept }, rest))
    }
}

/// What a claim leads to at this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet.
    Waits,
    /// Commands count from here on.
    Counts,
    /// This replica is to hand its state to all.
    HandOver,
    /// The group goes on without the state that this replica has kept, in which nothing was acknowledged that the group has
    /// not (or more have failed than may): it is to be started again.
    Overruled,
    /// Another claims to be one of so many replicas: nothing counts in this view.
    Unlike(u64),
    /// Most in this view claim to be of so many replicas: this one was started wrongly, and is to end.
    Outnumbered(u64),
}

/// What the client of a command may be told at this point of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reply.
    Now,
    /// The reply, when commands count among all of a later view; before that, nothing.
    Later,
    /// That it did not happen.
    Refused,
    /// That it did not happen here; it may have where others see another end of the view.
    Unknown,
}

/// One replica's account of who has the state.
#[derive(Debug)]
pub struct Quorum {
    replicas: usize,
    /// Of the state that this replica has.
    epoch: ViewId,
    remembers: bool,
    kept: bool,
    own: Rank,
    view: ViewId,
    size: usize,
    /// Between the transitional view and the next.
    closing: bool,
    claimed: RankSet,
    remembering: RankSet,
    unlike: RankSet,
    /// The latest epoch that was claimed in this view, and by whom first.
    latest: Option<(ViewId, Rank)>,
    /// The states that were claimed differ, or may.
    differ: bool,
    /// The epochs of the last state that somebody was to hand over in this view, and of the last that was.
    asked: Option<ViewId>,
    handed: Option<ViewId>,
    counts: bool,
}

/// Commands never counted.
const NEVER: ViewId = ViewId { counter: 0, coordinator: Incarnation(0) };

impl Quorum {
    /// That of a process that has just begun, one of so many replicas.
    pub fn new(replicas: usize) -> Quorum {
        Quorum {
            replicas: replicas.clamp(1, MEMBERS_MAX),
            epoch: NEVER,
            remembers: false,
            kept: false,
            own: Rank(0),
            view: NEVER,
            size: 0,
            closing: false,
            claimed: RankSet::default(),
            remembering: RankSet::default(),
            unlike: RankSet::default(),
            latest: None,
            differ: false,
            asked: None,
            handed: None,
            counts: false,
        }
    }

    /// A new view of `size` members, and this replica has the state: what it claims.
    pub fn view(&mut self, view: ViewId, size: usize, own: Rank) -> Claim {
        (self.view, self.size, self.own, self.closing) = (view, size, own, false);
        (self.claimed, self.remembering, self.unlike) = Default::default();
        (self.latest, self.differ, self.asked, self.handed) = Default::default();
        self.counts = false;
        self.as_it_is()
    }

    /// A transitional view: what comes until the next view is promised to those alone that go on together.
    pub fn closes(&mut self) {
        self.closing = true;
    }

    /// What is claimed of this replica's state by now.
    pub fn as_it_is(&self) -> Claim {
        let Quorum { view, epoch, replicas, remembers, kept, .. } = *self;
        Claim { view, epoch, replicas: replicas as u64, remembers, kept }
    }

    /// The epoch of this replica's state.
    pub fn epoch(&self) -> ViewId {
        self.epoch
    }

    /// Whether commands count at this point of the order, and are to be executed.
    pub fn counts(&self) -> bool {
        self.counts
    }

    /// What the client of a command may be told at this point of the order.
    pub fn answer(&self) -> Answer {
        match (self.counts, self.closing) {
            (true, false) => Answer::Now,
            (true, true) => Answer::Later,
            // With another number of replicas it may be a view in which commands count.
            (false, false) if !self.is_crowded() && self.unlike.is_empty() => Answer::Refused,
            (false, _) => Answer::Unknown,
        }
    }

    /// Whether this view has more members than there are replicas, so that nothing counts in it.
    pub fn is_crowded(&self) -> bool {
        self.size > self.replicas
    }

    /// A claim whose turn it is.
    pub fn claim(&mut self, origin: Rank, claim: &Claim) -> Outcome {
        if claim.view != self.view {
            return Outcome::Waits;
        }
        self.claimed.insert(origin);
        if claim.replicas != self.replicas as u64 {
            self.unlike.insert(origin);
        }
        if !self.unlike.is_empty() && !self.counts {
            return self.is_outnumbered(claim);
        }
        if self.counts {
            // It came in later, and has all that the others have.
            self.remembers |= origin == self.own;
            return Outcome::Waits;
        }
        if claim.remembers {
            self.remembering.insert(origin);
        }
        self.differ |= claim.kept || self.latest.is_some_and(|(epoch, _)| epoch != claim.epoch);
        if self.latest.is_none_or(|(epoch, _)| epoch < claim.epoch) {
            self.latest = Some((claim.epoch, origin));
        }
        match self.latest {
            Some((epoch, holder)) if self.differ && self.asked.max(self.handed) < Some(epoch) => {
                self.asked = Some(epoch);
                if holder == self.own { Outcome::HandOver } else { Outcome::Waits }
            }
            _ => self.decide(),
        }
    }

    fn is_outnumbered(&self, claim: &Claim) -> Outcome {
        let (all, unlike) = (self.claimed.len(), self.unlike.len());
        if all == self.size && unlike > all - unlike {
            return Outcome::Outnumbered(claim.replicas);
        }
        if claim.replicas != self.replicas as u64 { Outcome::Unlike(claim.replicas) } else { Outcome::Waits }
    }

    /// Whether to take in a state that the group gives and of which this is claimed: else the own is kept.
    pub fn is_given(&mut self, state: &Claim) -> bool {
        let fits = state.replicas == self.replicas as u64 && state.epoch >= self.epoch;
        if fits {
            self.epoch = state.epoch;
        }
        // Who gives what it has kept itself gives another state than that of the group.
        self.kept = !fits || state.kept;
        fits
    }

    /// A state of which this is claimed was handed to all: whether it is to be taken in.
    pub fn is_handed(&mut self, state: &Claim) -> bool {
        let later = self.latest.is_none_or(|(epoch, _)| state.epoch >= epoch);
        if state.view != self.view || self.counts || !later {
            return false;
        }
        self.handed = self.handed.max(Some(state.epoch));
        self.is_given(&Claim { kept: false, ..*state })
    }

    /// What follows from a state that was handed over.
    pub fn decide(&mut self) -> Outcome {
        let enough = self.remembering.len() > self.replicas / 2 || self.claimed.len() >= self.replicas;
        let Some((epoch, _)) = self.latest else { return Outcome::Waits };
        let agreed = !self.differ || self.handed >= Some(epoch);
        if self.counts || self.is_crowded() || !self.unlike.is_empty() || !enough || !agreed {
            return Outcome::Waits;
        }
        let begins = self.handed.max(Some(epoch));
        if Some(self.epoch) != begins {
            // At the end of a view that may be so here alone: the state is kept for the next.
            return if self.closing { Outcome::Waits } else { Outcome::Overruled };
        }
        (self.counts, self.kept, self.epoch) = (true, false, self.view);
        self.remembers |= self.claimed.contains(self.own);
        Outcome::Counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(counter: u64) -> ViewId {
        ViewId { counter, coordinator: Incarnation(1) }
    }

    /// A state that the group gives.
    fn given(epoch: ViewId) -> Claim {
        Claim { view: NEVER, epoch, replicas: 3, remembers: false, kept: false }
    }

    /// A group of replicas that hear everything in one order.
    fn meet(members: &mut [Quorum], counter: u64) -> Vec<Outcome> {
        let (view, size) = (id(counter), members.len());
        let claims: Vec<Claim> = members
            .iter_mut()
            .enumerate()
            .map(|(at, member)| member.view(view, size, Rank::at(at)))
            .collect();
        let mut last = vec![Outcome::Waits; size];
        for (origin, claim) in claims.iter().enumerate() {
            let bytes = claim.encode();
            let (claim, rest) = Claim::decode(&bytes).unwrap();
            assert!(rest.is_empty());
            let outcomes: Vec<Outcome> =
                members.iter_mut().map(|member| member.claim(Rank::at(origin), &claim)).collect();
            if let Some(holder) = outcomes.iter().position(|outcome| *outcome == Outcome::HandOver) {
                let state = members[holder].as_it_is();
                for member in members.iter_mut() {
                    member.is_handed(&state);
                }
                last = members.iter_mut().map(Quorum::decide).collect();
            } else if outcomes.iter().any(|outcome| *outcome != Outcome::Waits) {
                last = outcomes;
            }
        }
        last
    }

    fn fresh(replicas: usize) -> Vec<Quorum> {
        (0..replicas).map(|_| Quorum::new(replicas)).collect()
    }

    #[test]
    fn a_state_begins_with_all_and_goes_on_with_a_majority_that_remembers() {
        let mut members = fresh(3);
        assert_eq!(meet(&mut members[..2], 1), [Outcome::Waits; 2], "they may have forgotten");
        assert_eq!(meet(&mut members, 2), [Outcome::Counts; 3]);
        assert_eq!(meet(&mut members[1..], 3), [Outcome::Counts; 2]);
        assert_eq!(meet(&mut members[2..], 4), [Outcome::Waits]);
        // One that was started again is no witness of what was acknowledged, though it has been given the state.
        let mut pair = vec![members.pop().unwrap(), Quorum::new(3)];
        let epoch = pair[0].epoch;
        assert!(pair[1].is_given(&given(epoch)));
        assert_eq!(meet(&mut pair, 5), [Outcome::Waits; 2]);
        pair.push(Quorum::new(3));
        assert!(pair[2].is_given(&given(epoch)));
        assert_eq!(meet(&mut pair, 6), [Outcome::Counts; 3]);
    }

    #[test]
    fn who_has_a_later_state_keeps_it_and_hands_it_to_all() {
        let mut members = fresh(3);
        meet(&mut members, 1);
        let survivor = members.remove(0);
        let mut members = vec![Quorum::new(3), Quorum::new(3), survivor];
        assert!(
            !members[2].is_given(&given(NEVER)),
            "the two that are empty let the survivor in, and give it their state"
        );
        assert_eq!(meet(&mut members, 2), [Outcome::Counts; 3]);
        assert!(members.iter().all(|member| member.epoch == id(2)), "{members:?}");
    }

    #[test]
    fn two_that_kept_states_of_one_epoch_go_on_with_one_of_them() {
        let mut members = fresh(3);
        meet(&mut members, 1);
        meet(&mut members[..2], 2);
        assert!(!members[0].is_given(&given(id(1))) && !members[1].is_given(&given(id(1))));
        members.rotate_left(2);
        assert_eq!(meet(&mut members, 3), [Outcome::Counts; 3]);
        assert!(members.iter().all(|member| member.epoch == id(3) && !member.kept), "{members:?}");
    }

    /// One that has kept a later state may give it before it could hand it over: then the members of a view have two states,
    /// and a majority may claim the lesser one first.
    #[test]
    fn states_that_differ_wait_until_the_later_one_is_handed_over() {
        let mut members = fresh(3);
        meet(&mut members, 1);
        meet(&mut members[..2], 2);
        let keeper = members[0].as_it_is();
        let mut newcomer = Quorum::new(3);
        assert!(newcomer.is_given(&Claim { kept: true, ..keeper }) && newcomer.kept);
        members[1] = newcomer;
        members.rotate_left(2);
        // Its own is that of epoch 1; then those of epoch 2 claim.
        assert_eq!(meet(&mut members, 3), [Outcome::Counts; 3]);
        assert!(members.iter().all(|member| member.epoch == id(3) && !member.kept), "{members:?}");
    }

    /// View 2 of all three: the claim of member 1 comes to all, that of member 0 to itself alone, which is cut off in that
    /// moment and sees the end of view 2 by itself; the claim of member 2 comes to nobody.
    #[test]
    fn a_majority_that_one_saw_alone_does_not_outweigh_the_majority_that_went_on() {
        let mut members = fresh(3);
        assert_eq!(meet(&mut members, 1), [Outcome::Counts; 3]);
        let claims: Vec<Claim> = (0..3).map(|at| members[at].view(id(2), 3, Rank::at(at))).collect();
        for member in &mut members {
            assert_eq!(member.claim(Rank(1), &claims[1]), Outcome::Waits);
            member.closes();
        }
        assert_eq!(members[0].claim(Rank(0), &claims[0]), Outcome::Counts);
        assert_eq!(members[0].answer(), Answer::Later);
        assert_eq!(members[1].answer(), Answer::Unknown, "it counts for another");
        assert_eq!(meet(&mut members[1..], 3), [Outcome::Counts; 2]);
        assert_eq!(members[2].answer(), Answer::Now);
        // Member 1 crashes and is started again beside member 0. Member 2 is let in there, and is given what member 0 has.
        let other = members[0].as_it_is();
        assert!(!members[2].is_given(&other), "a state with what was acknowledged gave way");
        members[1] = Quorum::new(3);
        assert!(members[1].is_given(&other));
        assert_eq!(meet(&mut members, 4), [Outcome::Counts; 3]);
    }

    #[test]
    fn nothing_counts_among_more_members_than_replicas() {
        let mut members = fresh(3);
        meet(&mut members, 1);
        let mut fourth = Quorum::new(3);
        assert!(fourth.is_given(&members[0].as_it_is()));
        members.push(fourth);
        assert_eq!(meet(&mut members, 2), [Outcome::Waits; 4]);
        assert!(members.iter().all(Quorum::is_crowded));
        members.remove(0);
        assert_eq!(meet(&mut members, 3), [Outcome::Counts; 3], "until one has ended");
    }

    #[test]
    fn of_those_who_count_on_unlike_numbers_of_replicas_the_fewer_are_to_end() {
        let mut members = vec![Quorum::new(1), Quorum::new(3), Quorum::new(3)];
        assert_eq!(meet(&mut members[..1], 1), [Outcome::Counts]);
        let single = members[0].as_it_is();
        assert!(
            !members[1].is_given(&single) && !members[2].is_given(&single),
            "that counted on one replica"
        );
        let outcomes = meet(&mut members, 2);
        assert_eq!(outcomes, [Outcome::Outnumbered(3), Outcome::Waits, Outcome::Waits]);
        assert!(members.iter().all(|member| !member.counts()));
        members[0] = Quorum::new(3);
        assert_eq!(meet(&mut members, 3), [Outcome::Counts; 3]);
        // Two of a kind each: neither is right.
        let mut pair = vec![Quorum::new(2), Quorum::new(3)];
        assert_eq!(meet(&mut pair, 1), [Outcome::Unlike(3), Outcome::Waits], "said once of each claim");
        assert!(pair.iter().all(|member| !member.counts()));
    }
}
