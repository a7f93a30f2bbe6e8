//! Those that a view has gone on without: what they are told when they are heard of, and how a member asks whether it is one.

use super::broken::Broken;
use super::message::Beyond;
use super::{ANSWER_PAUSE, AWAY, Former, INQUIRY_PAUSE_MAX, Inquiry, Mbrship, PAST_MAX};
use crate::id::{Incarnation, RankSet, ViewId};
use crate::stack::layer::Context;

impl Mbrship {
    /// Somebody is in a view that this process has left.
    pub(super) fn stranger(&mut self, context: &mut Context<'_>, origin: Incarnation, view: ViewId) {
        if self.over || !self.is_past(origin, view) || !self.answers() {
            return;
        }
        let now = context.now();
        self.answered.retain(|(_, at)| now < *at + ANSWER_PAUSE);
        if self.answered.iter().any(|(answered, _)| *answered == origin) {
            return;
        }
        self.answered.push((origin, now));
        if let Some(rank) = context.view().rank_of(origin) {
            let (Some(proposal), true) = (self.legacy.proposal, self.legacy.past.last() == Some(&view))
            else {
                return;
            };
            let member = context.view().member(rank).clone();
            let message = Beyond::View { proposal, view: context.view().view().clone() };
            context.count("answered with the view");
            self.write(context, &member, &message);
        } else {
            self.tell_exclusion(context, origin, view);
        }
    }

    /// Whether this process did not run until just now: the others may have gone on without it, however few they are.
    pub(super) fn was_away(&self, context: &Context<'_>) -> bool {
        self.paused.is_some_and(|paused| context.now() < paused + AWAY) || self.is(Broken::ObeysTheFew)
    }

    /// Whether this process was in that view; one that is older than the oldest it remembers it was in with whoever it knows
    /// from there.
    fn is_past(&self, origin: Incarnation, view: ViewId) -> bool {
        let past = &self.legacy.past;
        let forgotten = past.len() == PAST_MAX && past.first().is_some_and(|oldest| view < *oldest);
        past.contains(&view)
            || forgotten && self.legacy.former.iter().any(|former| former.member.incarnation == origin)
    }

    /// Wrong on purpose: who was left behind hears nothing.
    fn answers(&self) -> bool {
        let silent = [Broken::NeverAnswers, Broken::TellsNobody, Broken::KeepsTheHostsView];
        !silent.into_iter().any(|broken| self.is(broken))
    }

    /// Tells a former member that it is out of the view `past`.
    fn tell_exclusion(&self, context: &mut Context<'_>, whom: Incarnation, past: ViewId) {
        let is_it = |former: &&Former| former.member.incarnation == whom;
        let known = self.legacy.former.iter().find(is_it).cloned();
        let Some(Former { member, accuser, kind, by_most, .. }) = known else { return };
        let expelled = self.expelled_for(whom);
        if expelled.is_some() && self.is(Broken::ExpelsInSilence) {
            return;
        }
        context.count("told of its exclusion");
        let message = match expelled {
            Some(lasting) => Beyond::Expelled { past, lasting },
            None => Beyond::Excluded { past, accuser, kind, by_most },
        };
        self.write(context, &member, &message);
    }

    /// Tells those that this member has led the others on without, once: who is dead does not hear it.
    pub(super) fn tell_the_left_out(&mut self, context: &mut Context<'_>) {
        let left_out = std::mem::take(&mut self.legacy.left_out);
        if let (Some(past), true) = (self.legacy.past.last().copied(), self.answers()) {
            left_out.into_iter().for_each(|whom| self.tell_exclusion(context, whom, past));
        }
    }

    /// Asks these whether they have gone on without this process: it was away, or they are silent. Who does not answer is asked
    /// again as long as there is doubt.
    pub(super) fn inquire(&mut self, context: &mut Context<'_>, ranks: RankSet) {
        if self.over {
            return;
        }
        let now = context.now();
        for rank in ranks.without(self.failed).iter() {
            let Inquiry { next, pause } = self.inquiries[rank.index()];
            if now >= next {
                self.inquiries[rank.index()] =
                    Inquiry { next: now + pause, pause: (pause * 2).min(INQUIRY_PAUSE_MAX) };
                let member = context.view().member(rank).clone();
                self.write(context, &member, &Beyond::Inquire);
            }
        }
    }
}
