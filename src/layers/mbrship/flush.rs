//! The end of a view: who takes part in it, what belongs to it, and which view follows.

use std::rc::Rc;
use std::time::Duration;

use super::broken::Broken;
use super::message::{Beyond, Inside};
use super::{GUEST_PATIENCE, Guest, Handles, Looked, Mbrship, Promise, Proposal};
use crate::config::FRAME_NUMBERS_MAX;
use crate::id::{Hasher64, Rank, RankSet, ViewId};
use crate::stack::event::{Charge, Cut, Down, Grounds, GroundsKind, Up};
use crate::stack::layer::Context;
use crate::time::Millis;
use crate::transport::Outside;
use crate::view::{Member, View};

impl Mbrship {
    /// Begins a flush if this member coordinates and there is a reason, or one that was not known when the present one
    /// began.
    pub(super) fn reconsider(&mut self, context: &mut Context<'_>) {
        if self.over || !self.coordinates(context) {
            self.proposal = None;
            return;
        }
        let now = context.now();
        self.guests.retain(|guest| now < guest.asked + GUEST_PATIENCE);
        let guests = !self.guests.is_empty() && now >= self.guests_due;
        let wanted = guests
            || self.renew
            || self.host.is_some()
            || !self.failed.is_empty()
            || !self.leaving.is_empty()
            || self.promise.is_some();
        let known = self
            .proposal
            .as_ref()
            .is_some_and(|proposal| proposal.failed == self.failed || self.is(Broken::NeverBeginsAnew));
        if wanted && !known {
            self.propose(context);
        }
    }

    fn propose(&mut self, context: &mut Context<'_>) {
        if !(self.is(Broken::UsesIdsAgain) && self.counter > context.view().view().id.counter) {
            self.counter += 1;
        }
        let own = context.rank();
        let namesake = if self.is(Broken::SharesIds) { Rank::at(0) } else { own };
        let id = ViewId { counter: self.counter, coordinator: context.view().member(namesake).incarnation };
        context.use_id(id);
        let mut held = vec![None; context.view().size()];
        if self.is(Broken::KeepsOldReports) {
            held = self.proposal.take().map_or(held, |before| before.held);
        }
        let failed = self.failed;
        let frame_bytes = vec![context.frame_bytes_max(); context.view().size()];
        let taken = self.taken_in(context);
        self.proposal =
            Some(Proposal { id, failed, held, frame_bytes, taken, cut: None, done: RankSet::EMPTY });
        context.count("flush begun");
        // What is waited for before the report are the sends so far, not this one's acknowledgement.
        self.take_part(context, own, id);
        let (others, charges) = (self.live_others(context), self.charges());
        self.say(context, others, &Inside::Flush { proposal: id, failed, charges });
        self.progress(context);
    }

    /// A coordinator begins a flush.
    pub(super) fn flush(
        &mut self,
        context: &mut Context<'_>,
        by: Rank,
        proposal: ViewId,
        failed: RankSet,
        charges: &[Charge],
    ) {
        if failed.contains(context.rank()) {
            // It goes on without this member, which will be told when that is settled.
            context.count("given up by another member");
            return;
        }
        // Whoever leads a flush has given up all below; and an id is above that of the view it follows.
        let lowest = RankSet::all(context.view().size()).without(failed).iter().next();
        if lowest != Some(by) || proposal <= context.view().view().id {
            context.count("flush that cannot be");
            return;
        }
        let later = self.promise.as_ref().map(|promise| promise.proposal).filter(|later| {
            *later > proposal
                || *later == proposal && !self.is(Broken::UsesIdsAgain)
                || self.is(Broken::PromisesOnce)
        });
        if let Some(promised) = later {
            self.say(context, RankSet::one(by), &Inside::Behind { promised });
            return;
        }
        self.told_failed(context, failed, charges);
        self.take_part(context, by, proposal);
        // Members of lower rank than the proposer that are still believed in will hear of it from the proposer's report.
        self.reconsider_if_led(context, by);
    }

    /// A proposal of one's own ends where another, later one is taken part in.
    fn reconsider_if_led(&mut self, context: &Context<'_>, by: Rank) {
        if by != context.rank() {
            self.proposal = None;
        }
    }

    fn take_part(&mut self, context: &mut Context<'_>, by: Rank, proposal: ViewId) {
        self.counter = self.counter.max(proposal.counter);
        self.promise = Some(Promise {
            proposal,
            by,
            settled: false,
            reported: false,
            since: context.now(),
            looked: Looked::Never,
            without: RankSet::EMPTY,
            cut: None,
        });
        if !self.blocked {
            self.blocked = true;
            context.expect_view();
            // Who leaves has stopped casting.
            self.block_ok = !self.options.block || self.legacy.leave || self.is(Broken::ForgetsBlock);
            if self.block_ok {
                self.stop(context);
            }
            context.up(Up::Flush);
        }
        context.expand_early();
        self.watch(context);
    }

    /// What the application casts and sends from now on waits for the next view.
    fn stop(&mut self, context: &mut Context<'_>) {
        self.stopped = true;
        let Handles { casts_wait, sends_wait, .. } = self.handles();
        if !self.is(Broken::CastsOn) {
            context.close(casts_wait, context.rank());
        }
        for peer in (0..context.view().size()).map(Rank::at) {
            if !self.is(Broken::SendsOn) {
                context.close(sends_wait, peer);
            }
            self.sent[peer.index()] = context.next_send_number(peer);
        }
    }

    fn watch(&mut self, context: &mut Context<'_>) {
        let looked = self.promise.as_ref().map(|promise| &promise.looked);
        let patience = match (&self.proposal, looked) {
            (Some(_), _) => self.options.flush,
            // Who waits for another one says so before the coordinator looks for who is slow.
            (None, Some(Looked::Never | Looked::Once { .. })) => self.looks_patience(),
            // And that before anybody looks at the coordinator.
            (None, Some(Looked::Twice { .. }) | None) => self.coordinator_patience(),
        };
        self.watch_due = context.now() + patience;
        context.arm(self.handles().watch, self.watch_due);
    }

    /// This process stood still for so long: the others may have done so with it, and did nothing of a flush meanwhile.
    pub(super) fn excuse_pause(&mut self, context: &mut Context<'_>, lasting: Duration) {
        let Some(promise) = &mut self.promise else { return };
        promise.since = promise.since + lasting;
        self.watch_due = self.watch_due + lasting;
        context.arm(self.handles().watch, self.watch_due);
    }

    /// How long until a member that takes part in a flush looks for whoever holds it up, and then until it looks again.
    pub(super) fn looks_patience(&self) -> Duration {
        self.options.flush / 4
    }

    /// How long the coordinator of a flush is waited for after that: it may look for whoever holds it up itself, and wait for
    /// its host, however often hosts have not answered it.
    pub(super) fn coordinator_patience(&self) -> Duration {
        self.options.flush * 3 + self.host_patience_most()
    }

    /// For how long after the beginning of a flush, or of what follows the cut, it counts for whoever holds it up that it takes
    /// in more and more: it has to take in what there was before it can report. And with block that it casts more and more: what
    /// waits to be cast belongs to this view.
    pub(super) fn progress_patience(&self) -> Duration {
        self.options.flush * PROGRESS_SHARE
    }

    /// Whether that is a reason to wait on, for a member that waits `longer` than the coordinator does: it is the coordinator
    /// that gives up who goes on for too long.
    fn may_go_on(&self, context: &Context<'_>, longer: Duration) -> bool {
        let patience = self.progress_patience() + longer;
        self.promise.as_ref().is_some_and(|promise| context.now() < promise.since + patience)
    }

    /// By rank: what only grows when a member takes in frames, or with block casts them, as far as is known here.
    fn taken_in(&self, context: &Context<'_>) -> Vec<u64> {
        let (held, own) = (self.handles().held, context.rank());
        let peers = || (0..context.view().size()).map(Rank::at);
        let taken = |peer: Rank| {
            let holds = |origin| match peer == own {
                true => context.accepted(origin),
                false => context.pair(held, peer, origin),
            };
            let casts = if self.options.block { context.accepted(peer) } else { 0 };
            peers().map(holds).sum::<u64>() + casts
        };
        peers().map(taken).collect()
    }

    /// The flush takes too long: whoever holds it up is taken for failed.
    pub(super) fn too_slow(&mut self, context: &mut Context<'_>) {
        if self.is(Broken::WaitsForTheSlow) {
            return;
        }
        self.remind(context);
        let going_on = self.going_on(context);
        let slow = match &self.proposal {
            Some(proposal) if self.host.is_some() && self.all_done(context, proposal) => {
                self.watch(context);
                return;
            }
            Some(proposal) => {
                let silent = |rank: &Rank| match proposal.cut {
                    None => proposal.held[rank.index()].is_none(),
                    Some(_) => !proposal.done.contains(*rank),
                };
                let withheld =
                    proposal.cut.as_ref().map_or(RankSet::EMPTY, |cut| self.withheld(context, cut));
                let silent: RankSet = self.live_others(context).iter().filter(silent).collect();
                match (withheld.is_empty(), silent.is_empty()) {
                    // Of those that are waited for some may wait for others, which take in what there is.
                    _ if !silent.and(going_on).is_empty() => RankSet::EMPTY,
                    // What this member lacks itself the others may be waiting for as well.
                    (false, _) => withheld,
                    (true, false) => silent,
                    // All others have done their part: it is this member that waits for somebody.
                    (true, true) => self.look(context),
                }
            }
            None => self.look(context),
        };
        if !slow.is_empty() {
            context.count("flush held up");
        }
        self.watch(context);
        let since = self.promise.as_ref().map_or(context.now(), |promise| promise.since);
        self.suspect(context, slow, Grounds::HeldUp { lasting: context.now().since(since) });
        // What this member still waits for may need the coordinator to go on without them, too.
        let unreported = |promise: &&Promise| !promise.reported && promise.by != context.rank();
        if let Some(promise) = self.promise.as_ref().filter(unreported)
            && !slow.is_empty()
        {
            let (proposal, by) = (promise.proposal, RankSet::one(promise.by));
            self.say(context, by, &Inside::HeldUp { proposal, by: slow });
        }
        self.reconsider(context);
    }

    /// The application has been asked to stop casting, and has not said that it has: who is not alone is left behind for that.
    fn remind(&mut self, context: &mut Context<'_>) {
        let waits = self.blocked && !self.block_ok && !self.may_go_on(context, Duration::ZERO);
        if waits && !std::mem::replace(&mut self.reminded, true) {
            let asked = Millis(self.progress_patience());
            let what = format!("a view change has waited for block_ok for {asked}: Event::Block asks for it");
            context.problem(None, what);
        }
    }

    /// Who has taken in more since this coordinator looked last, as long as that counts.
    fn going_on(&mut self, context: &Context<'_>) -> RankSet {
        let (counts, taken) = (self.may_go_on(context, Duration::ZERO), self.taken_in(context));
        let Some(proposal) = self.proposal.as_mut().filter(|_| counts) else { return RankSet::EMPTY };
        let before = std::mem::replace(&mut proposal.taken, taken);
        let more = |rank: &Rank| proposal.taken[rank.index()] > before[rank.index()];
        (0..before.len()).map(Rank::at).filter(more).collect()
    }

    /// A member cannot report, because of these.
    pub(super) fn held_up(&mut self, context: &mut Context<'_>, origin: Rank, id: ViewId, by: RankSet) {
        if self.proposal.as_ref().is_none_or(|proposal| proposal.id != id) {
            context.count("report for another proposal");
        } else if by.contains(context.rank()) {
            context.count("given up by another member");
        } else {
            let kind = Some(GroundsKind::HeldUp);
            self.suspect(context, by, Grounds::ToldBy { by: origin, kind });
            self.reconsider(context);
        }
    }

    /// Who keeps this member from reporting, as far as one can tell by now; the coordinator, if it is neither this member
    /// nor another one.
    fn look(&mut self, context: &Context<'_>) -> RankSet {
        let Handles { acked, held, .. } = self.handles();
        let (own, others) = (context.rank(), self.live_others(context));
        let (goes_on, waits) =
            (self.may_go_on(context, Duration::ZERO), self.may_go_on(context, self.coordinator_patience()));
        let taken = self.taken_in(context);
        let Some(promise) = &mut self.promise else { return RankSet::EMPTY };
        let peers = || (0..context.view().size()).map(Rank::at);
        let all: u64 = taken.iter().sum();
        let now = Looked::Once {
            casts: context.next_frame_number(),
            sends: peers().map(|peer| context.next_send_number(peer)).collect(),
            taken: taken.clone(),
        };
        match std::mem::replace(&mut promise.looked, Looked::Twice { taken: all }) {
            Looked::Never => promise.looked = now,
            Looked::Once { .. } if promise.reported || !self.block_ok => {}
            Looked::Once { casts, sends, taken: before } => {
                let lacks_casts = |peer: Rank| !self.stopped && context.pair(held, peer, own) < casts;
                let lacks_sends = |peer: Rank| context.pair(acked, peer, own) < sends[peer.index()];
                let lacking = others.iter().filter(|peer| lacks_casts(*peer) || lacks_sends(*peer));
                // What it lacks is behind what it takes in.
                let (going_on, slow): (Vec<Rank>, Vec<Rank>) =
                    lacking.partition(|peer| goes_on && taken[peer.index()] > before[peer.index()]);
                if slow.is_empty() && (!going_on.is_empty() || !self.stopped && goes_on) {
                    promise.looked = now;
                }
                return slow.into_iter().collect();
            }
            Looked::Twice { .. } if promise.by == own => promise.looked = now,
            // Somebody takes in what belongs to this view, and the coordinator waits for it.
            Looked::Twice { taken: before } if waits && all > before => {}
            Looked::Twice { .. } => return RankSet::one(promise.by),
        }
        RankSet::EMPTY
    }

    /// Whether this member's report can be made.
    fn ready(&self, context: &Context<'_>, promise: &Promise) -> bool {
        let acknowledged = |peer: Rank| self.acknowledged(context, peer) || self.is(Broken::LeavesSends);
        promise.settled && self.stopped && self.live_others(context).iter().all(acknowledged)
    }

    /// Whether `peer` has acknowledged what was sent to it until casting stopped.
    fn acknowledged(&self, context: &Context<'_>, peer: Rank) -> bool {
        context.pair(self.handles().acked, peer, context.rank()) >= self.sent[peer.index()]
    }

    /// Whether this member has delivered what the cut says.
    fn complete(&self, context: &Context<'_>, cut: &Cut) -> bool {
        let unread = u64::from(self.is(Broken::ConfirmsOneShort));
        let delivered =
            |(origin, frames): (usize, &u64)| context.accepted(Rank::at(origin)) + unread >= *frames;
        // What is in order has been delivered by now. What is not never will be: it follows on what is lost with its origin.
        let pending = context.own_copies_pending() && !self.is(Broken::LeavesOwnCopies);
        cut.frames.iter().enumerate().all(delivered) && !pending
    }

    /// Who has said that it holds, and has not forwarded, what this member lacks of the cut.
    fn withheld(&self, context: &Context<'_>, cut: &Cut) -> RankSet {
        let origins = cut.frames.iter().zip(&cut.holders).enumerate();
        let lacking = origins.filter(|(origin, (frames, _))| context.accepted(Rank::at(*origin)) < **frames);
        let holders: RankSet = lacking.map(|(_, (_, holder))| *holder).collect();
        holders.and(self.live_others(context))
    }

    fn all_done(&self, context: &Context<'_>, proposal: &Proposal) -> bool {
        let others_done = self.live_others(context).without(proposal.done).is_empty();
        (others_done || self.is(Broken::DecidesAlone))
            && proposal.cut.as_ref().is_some_and(|cut| self.complete(context, cut))
    }

    /// Does what can be done now.
    pub(super) fn progress(&mut self, context: &mut Context<'_>) {
        // With block, what was cast before the application's word belongs to this view, also if it still waits.
        let waiting = context.casts_waiting() && !self.is(Broken::LeavesWaitingCasts);
        if self.block_ok && !self.stopped && !waiting {
            self.stop(context);
        }
        self.report(context);
        self.decide_cut(context);
        self.confirm(context);
        self.decide(context);
    }

    /// Reports what this member holds, once.
    fn report(&mut self, context: &mut Context<'_>) {
        let own = context.rank();
        let Some(promise) = &self.promise else { return };
        if promise.reported || !self.ready(context, promise) {
            return;
        }
        let (proposal, by) = (promise.proposal, promise.by);
        self.say_room(context);
        if let Some(promise) = &mut self.promise {
            promise.reported = true;
            promise.without = self.failed;
        }
        let held = accepted(context);
        if by == own {
            if let Some(proposal) = &mut self.proposal {
                proposal.held[own.index()] = Some(held);
            }
        } else {
            let (failed, charges, frame_bytes) = (self.failed, self.charges(), context.frame_bytes_max());
            let report = Inside::FlushOk { proposal, failed, charges, frame_bytes, held };
            self.say(context, RankSet::one(by), &report);
        }
    }

    /// A member's report.
    pub(super) fn flush_ok(
        &mut self,
        context: &mut Context<'_>,
        origin: Rank,
        id: ViewId,
        (failed, charges): (RankSet, &[Charge]),
        frame_bytes: u32,
        held: Vec<u64>,
    ) {
        let in_range = held.iter().all(|frames| *frames <= FRAME_NUMBERS_MAX);
        if !in_range || frame_bytes < context.frame_bytes_least() {
            context.count("report out of range");
            return;
        }
        let Some(proposal) = self.proposal.as_mut().filter(|proposal| proposal.id == id) else {
            context.count("report for another proposal");
            return;
        };
        // Vectors count only if they are about the same survivors (pitfall 5).
        if failed == proposal.failed || self.options.broken.is(Broken::MixesFailedSets) {
            proposal.held[origin.index()] = Some(held);
            proposal.frame_bytes[origin.index()] = frame_bytes;
            return;
        }
        if failed.contains(context.rank()) {
            context.count("given up by another member");
            return;
        }
        self.told_failed(context, failed, charges);
        self.reconsider(context);
    }

    /// Somebody has promised a later proposal.
    pub(super) fn behind(&mut self, context: &mut Context<'_>, promised: ViewId) {
        context.count("proposal overtaken");
        self.counter = self.counter.max(promised.counter);
        if self.proposal.as_ref().is_some_and(|proposal| proposal.id <= promised) {
            self.proposal = None;
            self.reconsider(context);
        }
    }

    /// Says what belongs to the view, when all survivors have reported.
    fn decide_cut(&mut self, context: &mut Context<'_>) {
        let live = self.live(context);
        let Some(proposal) = &mut self.proposal else { return };
        if proposal.cut.is_some() || live.iter().any(|rank| proposal.held[rank.index()].is_none()) {
            return;
        }
        let held = |rank: Rank, origin: Rank| {
            proposal.held[rank.index()].as_ref().map_or(0, |held| held[origin.index()])
        };
        let (least, own_only) =
            (self.options.broken.is(Broken::CutsAtLeast), self.options.broken.is(Broken::CutsAtOwn));
        let live_at_own = self.options.broken.is(Broken::CutsLiveAtOwn);
        let most = |origin: Rank| {
            if live.contains(origin) && live_at_own {
                let own = live.iter().next().unwrap_or(origin);
                return (held(own, origin), own);
            }
            if live.contains(origin) {
                return (held(origin, origin), origin);
            }
            // Of a failed member: as much as any survivor holds, from the first that does.
            let first = |best: (u64, Rank), rank: Rank| {
                let frames = held(rank, origin);
                let better = if least { frames < best.0 } else { frames > best.0 };
                let holder = if self.options.broken.is(Broken::LowestForwards) { best.1 } else { rank };
                if better && !own_only { (frames, holder) } else { best }
            };
            let lowest = live.iter().next().unwrap_or(origin);
            let (frames, holder) = live.iter().fold((held(lowest, origin), lowest), first);
            (frames.saturating_sub(self.options.broken.is(Broken::CutsOneShort).into()), holder)
        };
        let (frames, mut holders): (Vec<u64>, Vec<Rank>) =
            (0..context.view().size()).map(|origin| most(Rank::at(origin))).unzip();
        if self.options.broken.is(Broken::NobodyForwards) {
            holders = (0..context.view().size()).map(Rank::at).collect();
        }
        let cut = Cut { frames, holders };
        let id = proposal.id;
        proposal.cut = Some(Rc::new(cut.clone()));
        let message = Inside::Cut { proposal: id, frames: cut.frames.clone(), holders: cut.holders.clone() };
        let others = self.live_others(context);
        self.say(context, others, &message);
        self.cut(context, context.rank(), id, cut);
    }

    /// The coordinator says what belongs to the view.
    pub(super) fn cut(&mut self, context: &mut Context<'_>, by: Rank, proposal: ViewId, cut: Cut) {
        let possible = |(rank, frames): (usize, &u64)| {
            (context.accepted(Rank::at(rank))..=FRAME_NUMBERS_MAX).contains(frames)
        };
        if !cut.frames.iter().enumerate().all(possible) && self.options.broken == Broken::No {
            context.count("cut out of range");
            return;
        }
        let live = self.live(context);
        let Some(promise) = &mut self.promise else {
            context.count("cut of no flush");
            return;
        };
        if promise.proposal != proposal || promise.by != by || !promise.reported || promise.cut.is_some() {
            context.count("cut of another proposal");
            return;
        }
        if cut.holders.iter().any(|holder| !live.contains(*holder)) {
            // A holder has failed meanwhile: the coordinator will hear of it and begin again.
            context.count("cut with a failed holder");
        }
        let cut = Rc::new(cut);
        promise.since = context.now();
        promise.cut = Some(Rc::clone(&cut));
        self.watch(context);
        context.down(Down::Cut(cut));
    }

    /// Confirms that this member has delivered what the cut says. The coordinator does so by deciding.
    fn confirm(&mut self, context: &mut Context<'_>) {
        let Some(promise) = &self.promise else { return };
        let (proposal, by) = (promise.proposal, promise.by);
        let complete = promise.cut.as_ref().is_some_and(|cut| self.complete(context, cut));
        let complete = complete || promise.cut.is_some() && self.is(Broken::ConfirmsUnread);
        if !complete || by == context.rank() || self.confirmed.last() == Some(&proposal) {
            return;
        }
        self.note_confirmed(proposal);
        self.say(context, RankSet::one(by), &Inside::CutOk { proposal });
    }

    fn note_confirmed(&mut self, proposal: ViewId) {
        self.confirmed.push(proposal);
        self.confirmed_without.push(self.promise.as_ref().map_or(self.failed, |promise| promise.without));
    }

    /// A member has delivered what the cut says.
    pub(super) fn cut_ok(&mut self, context: &mut Context<'_>, origin: Rank, id: ViewId) {
        match self.proposal.as_mut().filter(|proposal| proposal.id == id && proposal.cut.is_some()) {
            Some(proposal) => proposal.done.insert(origin),
            None => context.count("confirmation of another proposal"),
        }
    }

    /// Decides the next view, when all survivors have confirmed the cut; or asks to be let into another one.
    fn decide(&mut self, context: &mut Context<'_>) {
        let Some(proposal) = &self.proposal else { return };
        if !self.all_done(context, proposal) {
            return;
        }
        let id = proposal.id;
        if self.host.is_some() && !self.leaving.contains(context.rank()) {
            if self.confirmed.last() != Some(&id) {
                self.note_confirmed(id);
                self.ask_host(context);
            }
            return;
        }
        self.note_confirmed(id);
        let view = self.next_view(context, id);
        // Guests may have raised it, and this member need not be in it.
        context.use_id(view.id);
        let others = self.live_others(context);
        if !self.is(Broken::TellsNobody) {
            self.say(context, others, &Inside::View { proposal: id, view: view.clone() });
        }
        let is_in = |guest: &Guest| {
            view.members.iter().any(|member| member.incarnation == guest.members[0].incarnation)
        };
        self.leave_out(context, &view, is_in);
        let let_in = self.guests.clone();
        for guest in &let_in {
            let message = Beyond::View { proposal: guest.proposal, view: view.clone() };
            let to = Outside::To(guest.members[0].address.clone());
            context.send_outside(to, message.encode());
        }
        context.count("view decided");
        self.install(context, id, view);
        self.legacy.let_in = let_in;
    }

    /// The view that follows by the proposal `id`: the survivors that stay, then who wants in. If nobody stays there is none
    /// to come into: who wants in has a view, and perhaps a state, of its own.
    fn next_view(&mut self, context: &Context<'_>, id: ViewId) -> View {
        let current = context.view().view();
        let mut staying = self.staying(context);
        if self.is(Broken::KeepsTheLeaving) {
            staying = self.live(context);
        }
        if self.is(Broken::KeepsTheFailed) {
            staying = staying.with(self.failed);
        }
        if self.is(Broken::LosesTheLast) && staying.len() > 2 {
            staying.iter().last().into_iter().for_each(|last| staying.remove(last));
        }
        let mut members: Vec<Member> =
            staying.iter().map(|rank| current.members[rank.index()].clone()).collect();
        let now = context.now();
        let mut members_max = self.members_max(context);
        let mut frame_bytes = self.proposal.as_ref().map_or(0, |proposal| proposal.frame_bytes(staying));
        let asks = |guest: &&Guest| !staying.is_empty() && now < guest.asked + GUEST_PATIENCE;
        for guest in self.guests.iter().filter(asks) {
            // Nor two lives of one process: what is for the one would reach the other.
            let known = |new: &Member| {
                let twice = |old: &Member| old.address == new.address && !self.is(Broken::LetsInTwice);
                members.iter().any(|old| old.incarnation == new.incarnation || twice(old))
            };
            let room = members_max.min(guest.members_max.into());
            let fits = members.len() + guest.members.len() <= room;
            if fits && !guest.members.iter().any(known) {
                members.extend(guest.members.iter().cloned());
                frame_bytes = frame_bytes.min(guest.frame_bytes);
                members_max = room;
                let above = if self.is(Broken::IgnoresGuestIds) { 0 } else { guest.counter + 1 };
                self.counter = self.counter.max(above);
            }
        }
        // Ids grow at the guests, too; an id above the proposed one is consumed by this very decision.
        let id = ViewId { counter: self.counter.max(id.counter), ..id };
        let mut salt = Hasher64::new(0x7361_6c74_0000_0002);
        salt.word(id.counter);
        salt.word(id.coordinator.0);
        View { id, members, salt: salt.finish(), frame_bytes, ..current.clone() }
    }

    /// Somebody says which view follows: the coordinator, or one that has installed it already. `from` is nobody if it
    /// was said from outside the view.
    pub(super) fn view(
        &mut self,
        context: &mut Context<'_>,
        from: Option<Rank>,
        proposal: ViewId,
        view: View,
    ) {
        if !self.may_follow(context, &view) && !self.is(Broken::InstallsUnconfirmed) {
            context.count("view that cannot follow");
            return;
        }
        // Whoever has confirmed the cut of a later proposal waits for that one, unless its coordinator itself has given
        // it up for this view.
        let latest = self.confirmed.last() == Some(&proposal);
        let given_up = self.confirmed.contains(&proposal)
            && (from.is_some_and(|from| self.promise.as_ref().is_some_and(|promise| promise.by == from))
                || self.is(Broken::InstallsTheGivenUp));
        let undecided = self.confirmed.contains(&proposal)
            && self.promise.as_ref().is_some_and(|promise| !self.confirmed.contains(&promise.proposal));
        if latest || given_up || undecided || self.is(Broken::InstallsUnconfirmed) {
            self.install(context, proposal, view);
        } else {
            context.count("view of a proposal that was not confirmed");
        }
    }
}

/// By origin: how many frames this member has delivered.
fn accepted(context: &Context<'_>) -> Vec<u64> {
    (0..context.view().size()).map(|rank| context.accepted(Rank::at(rank))).collect()
}

/// Who goes on is waited for as many times as long as who does nothing: what a window holds takes a member four seconds that needs
/// 4 ms for a frame, and with block what may wait by default, 64 MiB, one that takes in 16 MB a second; and nobody holds a view
/// change up for ever.
const PROGRESS_SHARE: u32 = 20;
