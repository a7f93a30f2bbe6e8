//! Who has failed as far as this view is concerned, and who has found that out.
//!
//! A member that is out stays out until the next view, whoever said so first; the application is told of each once.

use std::rc::Rc;

use super::Mbrship;
use super::broken::Broken;
use super::saying::Unsaid;
use crate::id::RankSet;
use crate::stack::event::{Charge, Down, Grounds, GroundsKind, Suspicion, Up};
use crate::stack::layer::Context;

impl Mbrship {
    /// These are out of this view, all for one reason, and the application is told.
    pub(super) fn suspect(&mut self, context: &mut Context<'_>, members: RankSet, why: Grounds) {
        let suspicions: Vec<Suspicion> = members.iter().map(|member| Suspicion { member, why }).collect();
        self.suspected(context, &suspicions);
    }

    /// These are out of this view, and the application is told of those that were not yet.
    pub(super) fn suspected(&mut self, context: &mut Context<'_>, suspicions: &[Suspicion]) {
        let (out, own) = (self.failed, context.rank());
        let is_new = |suspicion: &&Suspicion| !out.contains(suspicion.member) && suspicion.member != own;
        let new: Rc<[Suspicion]> = suspicions.iter().filter(is_new).copied().collect();
        if !new.is_empty() && !self.over {
            for Suspicion { member, why } in new.iter() {
                self.charges[member.index()] = Charge::of(own, *why);
                if why.kind() == Some(GroundsKind::Unheard) {
                    self.was_unheard(context, *member);
                }
            }
            self.give_up(context, new.iter().map(|suspicion| suspicion.member).collect());
            context.up(Up::Suspect(new));
        }
    }

    /// Another member says that these have failed, and who has found that out.
    pub(super) fn told_failed(&mut self, context: &mut Context<'_>, failed: RankSet, charges: &[Charge]) {
        let told = failed.iter().zip(charges);
        let told = told.map(|(member, charge)| Suspicion { member, why: charge.told() }).collect::<Vec<_>>();
        self.suspected(context, &told);
    }

    /// What is known of those that have failed, in order of rank.
    pub(super) fn charges(&self) -> Vec<Charge> {
        self.failed.iter().map(|rank| self.charges[rank.index()]).collect()
    }

    /// These are out of this view: nothing more of them counts, and nobody waits for them.
    pub(super) fn give_up(&mut self, context: &mut Context<'_>, new: RankSet) {
        self.failed = self.failed.with(new);
        for rank in new.iter() {
            self.unsaid[rank.index()] = Unsaid::default();
            context.exclude(rank);
        }
        if !self.is(Broken::AcceptsTheFailed) {
            context.down(Down::Flush(self.failed));
        }
    }
}
