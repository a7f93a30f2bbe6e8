//! How many members there is room for: at this process, and at the others of its view.
//!
//! Who cannot open the next view is out of the group. So every member says what it has room for before it reports for a
//! flush, and again when that changes; nobody is let into a view that is too large for one of its members.

use super::meeting::all_leave;
use super::message::{Beyond, Inside, Refusal};
use super::{Guest, Mbrship};
use crate::id::{MEMBERS_MAX, Rank};
use crate::stack::layer::Context;
use crate::view::{Address, View};

impl Mbrship {
    /// How many members the next view may have, and who has room for no more: of this view, those that go on.
    fn least_room(&self, context: &Context<'_>) -> (usize, Rank) {
        let own = (context.members_max(), context.rank());
        let others = self.live_others(context).without(self.leaving);
        let others = others.iter().map(|rank| (usize::from(self.room[rank.index()]), rank));
        others.chain([own]).min_by_key(|(members, rank)| (*members, *rank != own.1)).unwrap_or(own)
    }

    /// How many members the next view may have.
    pub(super) fn members_max(&self, context: &Context<'_>) -> usize {
        self.least_room(context).0
    }

    /// Why a view of this one's members and of `theirs` more, who have room for `members_max`, is too large.
    pub(super) fn too_many(
        &self,
        context: &Context<'_>,
        other: &Address,
        theirs: usize,
        members_max: usize,
    ) -> String {
        let own = &context.view().member(context.rank()).address;
        let (most, at) = self.least_room(context);
        let limit = match context.members_max_reason() {
            _ if members_max < most => format!(" (there is room for no more at {other})"),
            _ if at != context.rank() => {
                format!(" (there is room for no more at {})", context.view().member(at).address)
            }
            "" => String::new(),
            why => format!(" ({why})"),
        };
        format!(
            "the view of {own} has {} members, that of {other} has {theirs}: a view has at most {}{limit}",
            context.view().size(),
            most.min(members_max)
        )
    }

    /// Tells the others what this process has room for, if it is not what they know; exactly only where it is not much.
    pub(super) fn say_room(&mut self, context: &mut Context<'_>) {
        let (size, own) = (context.view().size(), context.rank().index());
        let members = match context.members_max() {
            much if much >= 2 * size + MUCH => MEMBERS_MAX as u16,
            members => members as u16,
        };
        if self.room[own] != members {
            self.room[own] = members;
            let others = self.live_others(context);
            self.say(context, others, &Inside::Room { members });
        }
    }

    /// Forgets the guests that have not come into the next view; those that it had no room for, or that nobody is in, are told.
    pub(super) fn leave_out(
        &mut self,
        context: &mut Context<'_>,
        view: &View,
        is_in: impl Fn(&Guest) -> bool,
    ) {
        let (guests, out): (Vec<_>, Vec<_>) = std::mem::take(&mut self.guests).into_iter().partition(is_in);
        self.guests = guests;
        for guest in out {
            let (theirs, room) = (guest.members.len(), usize::from(guest.members_max));
            let (refusal, reason) = if view.members.is_empty() {
                (Refusal::Busy, all_leave(&context.view().member(context.rank()).address))
            } else if view.members.len() + theirs > self.members_max(context).min(room) {
                (Refusal::Lasting, self.too_many(context, &guest.members[0].address, theirs, room))
            } else {
                continue;
            };
            let proposal = guest.proposal;
            self.write(context, &guest.members[0], &Beyond::Deny { proposal, refusal, reason });
        }
    }

    /// What is known of the members of the next view, for the next view's layer.
    pub(super) fn leave_rooms(&mut self, context: &Context<'_>, view: &View) {
        let old = context.view();
        let known = view.members.iter().filter_map(|member| {
            let rank = old.rank_of(member.incarnation)?;
            Some((member.incarnation, self.room[rank.index()]))
        });
        let guests = self.guests.iter().flat_map(|Guest { members, members_max, .. }| {
            members.iter().map(|member| (member.incarnation, *members_max))
        });
        self.legacy.rooms =
            known.chain(guests).filter(|(_, room)| usize::from(*room) < MEMBERS_MAX).collect();
    }
}

/// Room for twice as many members as there are, and so many, is as good as for all.
const MUCH: usize = 8;
