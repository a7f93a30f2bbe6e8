//! Members that are expelled because they hold the senders up.
//!
//! Whoever waits for one too long says so to the others, who then go on without it as if it had failed, and to the one it
//! is about. It hears of it again when it talks in the view that is past.

use std::time::Duration;

use super::broken::Broken;
use super::message::{Beyond, Inside};
use super::{FORMER_MAX, Mbrship};
use crate::id::{Incarnation, Rank, RankSet, ViewId};
use crate::stack::event::{ExitReason, Holdup, Slow, SlowOutcome, Up};
use crate::stack::layer::Context;
use crate::time::Time;

impl Mbrship {
    /// A member holds this one up.
    pub(super) fn slow(&mut self, context: &mut Context<'_>, slow: Slow) {
        if !matches!(slow.outcome, SlowOutcome::Expelled { .. }) {
            context.up(Up::Slow(slow));
            return;
        }
        if self.over || self.failed.contains(slow.member) {
            return;
        }
        let Slow { member, why, lasting, .. } = slow;
        let mut others = self.live_others(context);
        others.remove(member);
        self.say(context, others, &Inside::Expelled { member, why, lasting });
        let expelled = context.view().member(member).clone();
        let past = context.view().view().id;
        if !self.is(Broken::ExpelsInSilence) {
            self.write(context, &expelled, &Beyond::Expelled { past, lasting });
        }
        self.expel(context, slow);
        self.progress(context);
    }

    /// Another member has been held up for too long.
    pub(super) fn told_expelled(
        &mut self,
        context: &mut Context<'_>,
        by: Rank,
        member: Rank,
        why: Holdup,
        lasting: Duration,
    ) {
        if member == context.rank() || self.failed.contains(member) {
            // It hears of its own expulsion from outside the view, as this message may be older than a view.
            context.count("expulsion of one that is out already");
            return;
        }
        let ago = context.now().as_nanos().saturating_sub(lasting.as_nanos() as u64);
        let since = Time::from_nanos(ago);
        self.expel(context, Slow { member, why, since, lasting, outcome: SlowOutcome::Expelled { by } });
    }

    fn expel(&mut self, context: &mut Context<'_>, slow: Slow) {
        let incarnation = context.view().member(slow.member).incarnation;
        self.legacy.expelled.push((incarnation, slow.lasting));
        let excess = self.legacy.expelled.len().saturating_sub(FORMER_MAX);
        self.legacy.expelled.drain(..excess);
        context.count("expelled");
        context.up(Up::Slow(slow));
        self.give_up(context, RankSet::one(slow.member));
        self.reconsider(context);
    }

    /// How long a process that was expelled had been waited for.
    pub(super) fn expelled_for(&self, incarnation: Incarnation) -> Option<Duration> {
        let of = |(expelled, _): &&(Incarnation, Duration)| *expelled == incarnation;
        self.legacy.expelled.iter().find(of).map(|(_, lasting)| *lasting)
    }

    /// This process is expelled. Two that wait for each other go separate ways instead.
    pub(super) fn expelled(
        &mut self,
        context: &mut Context<'_>,
        origin: Incarnation,
        past: ViewId,
        lasting: Duration,
    ) {
        let by = context.view().rank_of(origin).filter(|by| !self.failed.contains(*by));
        if let Some(by) = by
            && past == context.view().view().id
        {
            self.over = true;
            context.exit(ExitReason::Expelled { by, lasting });
        } else {
            context.count("exclusion by a stranger or from another view");
        }
    }
}
