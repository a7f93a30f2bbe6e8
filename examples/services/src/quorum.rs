//! When commands count: which replicas have the state, and whether those are enough.
//!
//! A view says who is there, not who has the state: of those that come in it is still on its way, and a replica that was
//! started again has forgotten what it acknowledged. So in each view every replica says, by a cast, when it has the state
//! ([`Claim`]; XFER tells the view after the last part of it). Commands count from the claim on, in the one order of all,
//! with which there are enough: a majority of replicas that remember (have had the state since a time when commands
//! counted), or all there are. At that point all have the same state, and begin a new *epoch*, whose number goes with
//! the state. Two majorities of the same replicas have one in common, so no state of a lesser epoch can be enough while
//! a majority remembers.
//!
//! Where views come together the group gives its state to those let in, whatever they had. One that has a state of a later
//! epoch keeps it, claims so, and hands it to all by a cast, before which nothing counts.

use wadjet::Incarnation;
use wadjet::id::{MEMBERS_MAX, Rank, RankSet, ViewId};

/// What a replica says of its state in a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The view it was said for: one that was cast late says nothing of the next.
    pub view: ViewId,
    /// The epoch of its state.
    pub epoch: u64,
    /// It remembers.
    pub remembers: bool,
    /// It has kept a state of its own, later than that of the group.
    pub kept: bool,
}

impl Claim {
    /// As it is cast.
    pub fn encode(&self) -> Vec<u8> {
        let flags = u64::from(self.remembers) | u64::from(self.kept) << 1;
        let words = [self.view.counter, self.view.coordinator.0, self.epoch, flags];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// What was cast, if it is a claim.
    pub fn decode(bytes: &[u8]) -> Option<Claim> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let &[counter, coordinator, epoch, flags] = words else { return None };
        let [counter, coordinator, epoch, flags] =
            [counter, coordinator, epoch, flags].map(u64::from_le_bytes);
        let view = ViewId { counter, coordinator: Incarnation(coordinator) };
        Some(Claim { view, epoch, remembers: flags & 1 != 0, kept: flags & 2 != 0 })
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
    /// The group went on without the later state that this replica has kept: more have failed than may.
    Overruled,
}

/// One replica's account of who has the state.
#[derive(Debug)]
pub struct Quorum {
    replicas: usize,
    /// Of the state that this replica has; zero: commands never counted.
    pub epoch: u64,
    remembers: bool,
    kept: bool,
    own: Rank,
    view: ViewId,
    claimed: RankSet,
    remembering: RankSet,
    /// The latest epoch that somebody has kept, and that of the last state handed over, in this view.
    kept_epoch: u64,
    handed_epoch: u64,
    counts: bool,
}

impl Quorum {
    /// That of a process that has just begun, one of so many replicas.
    pub fn new(replicas: usize) -> Quorum {
        Quorum {
            replicas: replicas.clamp(1, MEMBERS_MAX),
            epoch: 0,
            remembers: false,
            kept: false,
            own: Rank(0),
            view: ViewId { counter: 0, coordinator: Incarnation(0) },
            claimed: RankSet::default(),
            remembering: RankSet::default(),
            kept_epoch: 0,
            handed_epoch: 0,
            counts: false,
        }
    }

    /// A new view, and this replica has the state: what it claims.
    pub fn view(&mut self, view: ViewId, own: Rank) -> Claim {
        (self.own, self.view) = (own, view);
        (self.claimed, self.remembering) = (RankSet::default(), RankSet::default());
        (self.kept_epoch, self.handed_epoch, self.counts) = (0, 0, false);
        Claim { view, epoch: self.epoch, remembers: self.remembers, kept: self.kept }
    }

    /// Whether commands count at this point of the order.
    pub fn counts(&self) -> bool {
        self.counts
    }

    /// A claim whose turn it is.
    pub fn claim(&mut self, origin: Rank, claim: &Claim) -> Outcome {
        if claim.view != self.view {
            return Outcome::Waits;
        }
        self.claimed.insert(origin);
        if self.counts {
            // It came in later, and has all that the others have.
            self.remembers |= origin == self.own;
            let overruled = origin == self.own && self.kept;
            return if overruled { Outcome::Overruled } else { Outcome::Waits };
        }
        if claim.remembers {
            self.remembering.insert(origin);
        }
        if claim.kept && claim.epoch > self.kept_epoch.max(self.handed_epoch) {
            self.kept_epoch = claim.epoch;
            return if origin == self.own { Outcome::HandOver } else { Outcome::Waits };
        }
        self.decide()
    }

    /// Whether to take in a state of this epoch that the group gives: else the own is kept.
    pub fn is_given(&mut self, epoch: u64) -> bool {
        self.kept = self.epoch > epoch;
        if !self.kept {
            self.epoch = epoch;
        }
        !self.kept
    }

    /// A state of this epoch was handed to all in `view`: whether it is to be taken in.
    pub fn is_handed(&mut self, view: ViewId, epoch: u64) -> bool {
        let due = view == self.view && !self.counts && epoch >= self.kept_epoch;
        if due {
            self.handed_epoch = epoch;
        }
        due && self.is_given(epoch)
    }

    /// What follows from a state that was handed over.
    pub fn decide(&mut self) -> Outcome {
        let enough = self.remembering.len() > self.replicas / 2 || self.claimed.len() >= self.replicas;
        if self.counts || !enough || self.kept_epoch > self.handed_epoch {
            return Outcome::Waits;
        }
        self.counts = true;
        self.epoch += 1;
        self.remembers |= self.claimed.contains(self.own);
        if self.kept { Outcome::Overruled } else { Outcome::Counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group of replicas that hear everything in one order.
    fn meet(members: &mut [Quorum], counter: u64) -> Vec<Outcome> {
        let view = ViewId { counter, coordinator: Incarnation(1) };
        let claims: Vec<Claim> =
            members.iter_mut().enumerate().map(|(at, member)| member.view(view, Rank::at(at))).collect();
        let mut last = vec![Outcome::Waits; members.len()];
        for (origin, claim) in claims.iter().enumerate() {
            let claim = Claim::decode(&claim.encode()).unwrap();
            let outcomes: Vec<Outcome> =
                members.iter_mut().map(|member| member.claim(Rank::at(origin), &claim)).collect();
            if outcomes[origin] == Outcome::HandOver {
                let epoch = members[origin].epoch;
                for member in members.iter_mut() {
                    member.is_handed(view, epoch);
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
        assert!(pair[1].is_given(epoch));
        assert_eq!(meet(&mut pair, 5), [Outcome::Waits; 2]);
        pair.push(Quorum::new(3));
        assert!(pair[2].is_given(epoch));
        assert_eq!(meet(&mut pair, 6), [Outcome::Counts; 3]);
    }

    #[test]
    fn who_has_a_later_state_keeps_it_and_hands_it_to_all() {
        let mut members = fresh(3);
        meet(&mut members, 1);
        let survivor = members.remove(0);
        let mut members = vec![Quorum::new(3), Quorum::new(3), survivor];
        assert!(
            !members[2].is_given(0),
            "the two that are empty let the survivor in, and give it their state"
        );
        assert_eq!(meet(&mut members, 2), [Outcome::Counts; 3]);
        assert!(members.iter().all(|member| member.epoch == 2), "{members:?}");
    }

    #[test]
    fn two_that_kept_states_of_one_epoch_go_on_with_one_of_them() {
        let mut members = fresh(3);
        meet(&mut members, 1);
        meet(&mut members[..2], 2);
        assert!(!members[0].is_given(1) && !members[1].is_given(1));
        members.rotate_left(2);
        assert_eq!(meet(&mut members, 3), [Outcome::Counts; 3]);
        assert!(members.iter().all(|member| member.epoch == 3 && !member.kept), "{members:?}");
    }
}
