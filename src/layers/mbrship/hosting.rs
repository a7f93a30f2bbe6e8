//! The host's side of a merge: who asks to be let into this view, and whether it is.

use std::time::Duration;

use super::broken::Broken;
use super::meeting::all_leave;
use super::message::{Beyond, Refusal};
use super::{
    DENIALS_MAX, GUEST_PATIENCE, Guest, Mbrship, OUSTER_PATIENCE, PATIENCE_SHIFT_MAX, UNHEARD_PATIENCE,
    Unheard,
};
use crate::id::{Incarnation, Rank, ViewId};
use crate::stack::event::{Down, Grounds};
use crate::stack::layer::Context;
use crate::time::Time;
use crate::view::{Address, Member};

impl Mbrship {
    /// A member was let in, and not heard by everybody: the next time is not so soon.
    pub(super) fn was_unheard(&mut self, context: &Context<'_>, rank: Rank) {
        let Member { incarnation, address } = context.view().member(rank);
        if !self.legacy.fresh.contains(incarnation) {
            return;
        }
        let (now, unheard) = (context.now(), &mut self.legacy.unheard);
        unheard.retain(|known| now < known.until + UNHEARD_PATIENCE);
        let known = unheard.iter().position(|known| known.address == *address);
        let times = known.map_or(0, |at| unheard.remove(at).times) + 1;
        let pause = match times {
            1 => Duration::ZERO,
            more => self.options.merge * (1 << (more - 2).min(PATIENCE_SHIFT_MAX)),
        };
        unheard.push(Unheard { address: address.clone(), times, until: now + pause });
        let excess = unheard.len().saturating_sub(DENIALS_MAX);
        unheard.drain(..excess);
    }

    /// How often whoever is at `address` was let in and not heard, if it is not to be let in now.
    pub(super) fn is_unheard(&self, now: Time, address: &Address) -> Option<u32> {
        let unheard = self.legacy.unheard.iter().find(|known| known.address == *address && now < known.until);
        unheard.map(|known| known.times)
    }

    /// Another view wants in.
    pub(super) fn asked_in(
        &mut self,
        context: &mut Context<'_>,
        origin: Incarnation,
        view: ViewId,
        (proposal, token): (ViewId, u64),
        (terms, wire_version, frame_bytes, members_max): (&str, u8, u32, u16),
        members: Vec<Member>,
    ) {
        let coordinator = members[0].clone();
        if coordinator.incarnation != origin {
            context.count("merge request of another");
            return;
        }
        if context.view().rank_of(origin).is_some() {
            self.asked_from_inside(context, &coordinator, view, proposal, &members);
            return;
        }
        let now = context.now();
        self.guests.retain(|guest| now < guest.asked + GUEST_PATIENCE);
        let unlike = self.unlike(context, &coordinator, terms, wire_version);
        let unlike = unlike.or_else(|| members.iter().find_map(|member| self.out_of_reach(context, member)));
        let least = context.frame_bytes_least();
        let unlike = unlike.or_else(|| {
            let address = &coordinator.address;
            let why =
                || format!("{address} takes frames of {frame_bytes} bytes at most, the stack needs {least}");
            (frame_bytes < least).then(why)
        });
        let own = context.view().member(context.rank()).address.clone();
        let here = |member: &&Member| {
            let all = context.view().view().members.iter().enumerate();
            let mut live = all.filter(|(rank, _)| !self.failed.contains(crate::id::Rank::at(*rank)));
            live.any(|(_, known)| known.incarnation == member.incarnation)
        };
        // Those that are let in together fit one view, and no more of them are kept.
        let others = self.guests.iter().filter(|guest| guest.members[0].incarnation != origin);
        let waiting: usize = others.map(|guest| guest.members.len()).sum();
        let (size, theirs) = (context.view().size(), members.len());
        let most = self.members_max(context).min(members_max.into());
        let denial = if let Some(reason) = unlike {
            Some((Refusal::Lasting, reason))
        } else if !self.coordinates(context) {
            let chief = &context.view().member(self.coordinator(context)).address;
            Some((Refusal::Busy, format!("{own} does not coordinate its view, {chief} does")))
        } else if self.staying(context).is_empty() {
            Some((Refusal::Busy, all_leave(&own)))
        } else if self.host.is_some() {
            Some((Refusal::Busy, format!("{own} is merging with another view")))
        } else if let Some(reason) = self.doubling(context, &members) {
            Some((Refusal::Lasting, reason))
        } else if let Some(member) = members.iter().find(here) {
            Some((Refusal::Busy, format!("{} is in the view already", member.address)))
        } else if let Some((first, second)) = self.ousted(context, &members) {
            let reason = format!(
                "{}, as incarnation {}, is in the view already: incarnation {} cannot be in it at the same address",
                first.address, first.incarnation, second.incarnation
            );
            Some((self.ouster(now, origin), reason))
        } else if let Some((member, times)) = self.unheard_among(now, &members) {
            let reason = format!(
                "{} was let in {times} times and never heard by all, and is not let in again at once: do frames pass both \
                 ways?",
                member.address
            );
            self.complain(context, origin, &reason);
            Some((Refusal::Busy, reason))
        } else if size + theirs > most {
            let room = usize::from(members_max);
            Some((Refusal::Lasting, self.too_many(context, &coordinator.address, theirs, room)))
        } else if size + waiting + theirs > most {
            Some((Refusal::Busy, format!("{waiting} others want to be let in by {own}")))
        } else {
            None
        };
        if let Some((refusal, reason)) = denial {
            context.count("merge request denied");
            if refusal != Refusal::Busy {
                self.complain(context, origin, &reason);
            }
            self.deny(context, &coordinator, proposal, refusal, reason);
            return;
        }
        let expected = self.token(context, origin, view);
        if token != expected {
            self.write(context, &coordinator, &Beyond::Confirm { proposal, token: expected });
            return;
        }
        let guest = Guest {
            proposal,
            counter: view.counter.max(proposal.counter),
            members,
            frame_bytes,
            members_max,
            asked: context.now(),
        };
        // Who asks from the address of another guest is that process in its next life: the other is no more. And a member of
        // two views has gone on from one of them, whose coordinator does not know it yet: they do not come in together.
        let replaced = |known: &Guest| {
            let of = |old: &Member| {
                guest
                    .members
                    .iter()
                    .any(|new| new.address == old.address || new.incarnation == old.incarnation)
            };
            known.members[0].incarnation != origin && known.members.iter().any(of)
        };
        if !self.options.broken.is(Broken::LetsInTwice) {
            self.guests.retain(|known| !replaced(known));
        }
        match self.guests.iter_mut().find(|known| known.members[0].incarnation == origin) {
            Some(known) => {
                *known = guest;
                // Somebody here may have much to take in before this view can end: its guests are not to give up meanwhile, and to
                // find it in the next view change when they ask again.
                if self.promise.is_some() {
                    self.write(context, &coordinator, &Beyond::Confirm { proposal, token: expected });
                }
            }
            None => {
                if self.guests.is_empty() {
                    self.guests_due = context.now() + self.options.gather;
                    context.arm(self.handles().gather, self.guests_due);
                }
                self.guests.push(guest);
            }
        }
    }

    /// The first of those that want in who is not to be let in now, because it was and nobody heard it.
    fn unheard_among<'m>(&self, now: Time, members: &'m [Member]) -> Option<(&'m Member, u32)> {
        members.iter().find_map(|member| Some((member, self.is_unheard(now, &member.address)?)))
    }

    /// One that is in this view wants in.
    fn asked_from_inside(
        &mut self,
        context: &mut Context<'_>,
        asker: &Member,
        view: ViewId,
        proposal: ViewId,
        members: &[Member],
    ) {
        let current = context.view().view();
        let of_asker = |guest: &&Guest| guest.members.contains(asker);
        let let_in = self.legacy.let_in.iter().find(of_asker).map(|guest| guest.proposal);
        if let_in == Some(proposal) || let_in.is_some() && self.is(Broken::TellsWhoeverAsks) {
            // It does not know yet.
            let message = Beyond::View { proposal, view: current.clone() };
            self.write(context, asker, &message);
            return;
        }
        if let_in.is_some_and(|before| proposal > before) && view != current.id {
            // This view must not be told to it now: it has let others in since, who are not in this one.
            self.are_absent(context, members);
        }
        if let Some(reason) = self.doubling(context, std::slice::from_ref(asker)) {
            self.complain(context, asker.incarnation, &reason);
            self.deny(context, asker, proposal, Refusal::Taken, reason);
            return;
        }
        let reason = format!("{} is in the view already", asker.address);
        self.deny(context, asker, proposal, Refusal::Busy, reason);
    }

    /// A member of this view leads another one.
    pub(super) fn met_a_member(&mut self, context: &mut Context<'_>, coordinator: &Member, view: ViewId) {
        let current = context.view().view().id;
        let asked_first = |guest: &&Guest| guest.members.first() == Some(coordinator);
        // What it asked with is consumed, so its view is older only until it has given up; and of whoever has been here, any
        // other view is later than this one.
        let has_given_up = |guest: &Guest| (guest.proposal..current).contains(&view);
        let let_in = self.legacy.let_in.iter().find(asked_first).filter(|guest| has_given_up(guest));
        if let Some(members) = let_in.map(|guest| guest.members.clone()) {
            self.are_absent(context, &members);
        }
    }

    /// Who asked for these had given up when they were let in, and went on elsewhere: neither it nor those with it, who have
    /// taken part in what came later, will ever be here.
    fn are_absent(&self, context: &mut Context<'_>, members: &[Member]) {
        context.count("let in after it had given up");
        let absent = members.iter().filter_map(|member| context.view().rank_of(member.incarnation));
        context.down(Down::Suspect(absent.collect(), Grounds::Elsewhere));
    }

    /// A member that is believed in, and one of those that want in who says that it is at the same address.
    fn ousted(&self, context: &Context<'_>, members: &[Member]) -> Option<(Member, Member)> {
        if self.is(Broken::LetsInTwice) {
            return None;
        }
        self.live(context).iter().find_map(|rank| {
            let first = context.view().member(rank);
            let second = members.iter().find(|second| second.address == first.address)?;
            Some((first.clone(), second.clone()))
        })
    }

    /// What is said to who asks from the address of a member: if it was restarted, that one is about to go.
    fn ouster(&mut self, now: Time, origin: Incarnation) -> Refusal {
        let ousters = &mut self.legacy.ousters;
        if let Some((_, since)) = ousters.iter().find(|(known, _)| *known == origin) {
            return if now < *since + OUSTER_PATIENCE { Refusal::Busy } else { Refusal::Lasting };
        }
        ousters.push((origin, now));
        let excess = ousters.len().saturating_sub(DENIALS_MAX);
        ousters.drain(..excess);
        Refusal::Busy
    }
}
