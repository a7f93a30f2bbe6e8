//! How views of one group meet: probes, and the guest's side of a merge.

use std::time::Duration;

use super::broken::Broken;
use super::message::{Beyond, Inside, Refusal};
use super::{DENIALS_MAX, Denial, Host, MERGE_REPEAT, Mbrship, PATIENCE_SHIFT_MAX, Sought};
use crate::id::{Hasher64, Incarnation, MEMBERS_MAX, Rank, RankSet, ViewId};
use crate::stack::event::{Down, ExitReason, Grounds, Letter};
use crate::stack::layer::Context;
use crate::time::Time;
use crate::transport::Outside;
use crate::view::{Address, Member, View};

/// Views of one group in the order in which they go to each other: the lesser asks to be let into the greater, and takes its
/// state. Members that have been in their views for long come first: or two that have just been started again, with nothing, and
/// have met each other, would be more than the one that has gone on alone with all there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight {
    pub(super) seniors: u16,
    pub(super) size: u16,
    /// By its counter, and then its coordinator.
    pub(super) view: ViewId,
}

/// Why nobody is let into the view of `own`.
pub(super) fn all_leave(own: &Address) -> String {
    format!("all members of the view of {own} leave")
}

impl Mbrship {
    /// What this view counts where it meets another.
    fn weight(&self, context: &Context<'_>) -> Weight {
        let view = context.view().view();
        let is_senior = |rank: &Rank| {
            let incarnation = view.members[rank.index()].incarnation;
            let known = self.legacy.known_since.iter().find(|(known, _)| *known == incarnation);
            known.is_some_and(|(_, since)| context.now() >= *since + self.options.senior)
        };
        let seniors = self.live(context).iter().filter(is_senior).count() as u16;
        Weight { seniors, size: view.members.len() as u16, view: view.id }
    }

    /// Remembers since when it has known the members of this view.
    pub(super) fn get_to_know(&mut self, context: &Context<'_>) {
        let (now, members) = (context.now(), &context.view().view().members);
        let known = std::mem::take(&mut self.legacy.known_since);
        let since = |incarnation| {
            known.iter().find(|(known, _)| *known == incarnation).map_or(now, |(_, since)| *since)
        };
        self.legacy.known_since =
            members.iter().map(|member| (member.incarnation, since(member.incarnation))).collect();
    }

    /// What is said of this view to others.
    fn presence(&self, context: &Context<'_>, reply: bool) -> Beyond {
        let view = context.view().view();
        Beyond::Presence {
            reply,
            busy: self.host.is_some(),
            weight: self.weight(context),
            coordinator: context.view().member(self.coordinator(context)).clone(),
            terms: self.terms.clone(),
            wire_version: view.wire_version,
        }
    }

    pub(super) fn write(&self, context: &mut Context<'_>, to: &Member, message: &Beyond) {
        context.send_outside(Outside::To(to.address.clone()), message.encode());
    }

    /// Looks for other views of the group: at the contacts, where members were that have failed, and wherever everybody can
    /// be asked.
    pub(super) fn probe(&mut self, context: &mut Context<'_>) {
        let due = context.now() + self.probe_wait;
        self.legacy.probe_due = Some(due);
        context.arm(self.handles().probe, due);
        self.probe_wait = (self.probe_wait * 2).min(self.options.probe_most);
        if !self.coordinates(context) || self.promise.is_some() || self.is(Broken::NeverLooks) {
            return;
        }
        let members = &context.view().view().members;
        let strange = |address: &&_| !members.iter().any(|member| member.address == **address);
        let missed = self.legacy.former.iter().filter(|former| former.is_missed);
        let former = missed.map(|former| &former.member.address);
        let contacts = context.neighbours().contacts.iter();
        let mut addresses: Vec<_> = contacts.chain(former).filter(strange).cloned().collect();
        addresses.sort();
        addresses.dedup();
        let discover = context.neighbours().discover;
        if addresses.is_empty() && !discover {
            return;
        }
        let bytes = self.presence(context, true).encode();
        for address in addresses {
            context.send_outside(Outside::To(address), bytes.clone());
        }
        if discover {
            context.send_outside(Outside::Discover, bytes);
        }
    }

    /// A message from outside the view.
    pub(super) fn heard(
        &mut self,
        context: &mut Context<'_>,
        origin: Incarnation,
        view: ViewId,
        message: Beyond,
    ) {
        let member = context.view().rank_of(origin);
        // What comes under this process's own incarnation is its own, or of another process that has it too.
        let meeting = matches!(message, Beyond::Presence { .. } | Beyond::Deny { .. });
        if origin == context.view().member(context.rank()).incarnation && !meeting {
            return;
        }
        match message {
            Beyond::Presence { reply, busy, weight, coordinator, terms, wire_version } => {
                let view = weight.view;
                if let Some(namesake) = context.view().rank_of(coordinator.incarnation) {
                    if context.view().member(namesake).address != coordinator.address {
                        self.doubled(context, reply, weight, &coordinator);
                    } else if origin == coordinator.incarnation {
                        self.met_a_member(context, &coordinator, view);
                    }
                    return;
                }
                if let Some(reason) = self.unlike(context, &coordinator, &terms, wire_version) {
                    self.complain(context, coordinator.incarnation, &reason);
                    if reply {
                        self.deny(context, &coordinator, view, Refusal::Lasting, reason);
                    }
                    return;
                }
                self.met(context, reply, busy, weight, coordinator);
            }
            Beyond::Merge { proposal, token, terms, wire_version, frame_bytes, members_max, members } => {
                let terms = (terms.as_str(), wire_version, frame_bytes, members_max);
                self.asked_in(context, origin, view, (proposal, token), terms, members);
            }
            Beyond::Deny { proposal, refusal, reason } => {
                self.denied(context, origin, proposal, refusal, reason);
            }
            Beyond::View { proposal, view } => self.told_view(context, origin, proposal, view),
            Beyond::Inquire => self.stranger(context, origin, view),
            Beyond::Excluded { past, accuser, kind, by_most } => {
                // Two that have given each other up go separate ways instead.
                let here = past == context.view().view().id || self.is(Broken::BelievesOldExclusions);
                let by = member.filter(|by| here && !self.failed.contains(*by));
                match by {
                    None => context.count("exclusion by a stranger or from another view"),
                    Some(by) if by_most || self.was_away(context) => {
                        self.over = true;
                        let accuser = context.view().rank_of(accuser);
                        // Who has asked to leave may hear of it from there first.
                        context.exit(match self.legacy.leave {
                            true => ExitReason::Left,
                            false => ExitReason::Excluded { by, view, accuser, kind },
                        });
                    }
                    Some(by) => {
                        // Who heard nobody for a while has gone alone, and says so to everybody it hears again.
                        context.count("exclusion by a lesser part");
                        context.down(Down::Suspect(RankSet::one(by), Grounds::Elsewhere));
                    }
                }
            }
            Beyond::Expelled { past, lasting } => self.expelled(context, origin, past, lasting),
            Beyond::Confirm { proposal, token } => self.asked_to_confirm(context, origin, proposal, token),
        }
        if !self.over {
            self.progress(context);
        }
    }

    /// Why two views cannot become one, in words that name both sides.
    pub(super) fn unlike(
        &self,
        context: &Context<'_>,
        other: &Member,
        terms: &str,
        wire_version: u8,
    ) -> Option<String> {
        let view = context.view().view();
        let own = &context.view().member(context.rank()).address;
        if terms != self.terms {
            return Some(format!(
                "{} has the stack {terms}, {own} has {}: they cannot be in one view",
                other.address, self.terms
            ));
        }
        if wire_version != view.wire_version {
            return Some(format!(
                "{} speaks wire version {wire_version}, {own} speaks {}: they cannot be in one view",
                other.address, view.wire_version
            ));
        }
        self.out_of_reach(context, other)
    }

    /// Why nothing can be sent to where another process says it is.
    pub(super) fn out_of_reach(&self, context: &Context<'_>, other: &Member) -> Option<String> {
        let why = context.unreachable(&other.address)?;
        let own = &context.view().member(context.rank()).address;
        Some(format!("{} cannot be in one view with {own}: {why}", other.address))
    }

    /// Whether a letter is of this group and wire version.
    pub(super) fn is_ours(&self, context: &Context<'_>, letter: &Letter) -> bool {
        let view = context.view().view();
        letter.group == view.group && letter.wire_version == view.wire_version
    }

    /// A letter of another group, or of another wire version: the two can never be one, and both are told why.
    pub(super) fn heard_abroad(&mut self, context: &mut Context<'_>, letter: &Letter, message: Beyond) {
        let own = context.view().member(context.rank()).clone();
        let (group, current) = (context.view().view().group, context.view().view().id);
        match message {
            Beyond::Presence { reply, weight: Weight { view, .. }, coordinator, .. } => {
                let other = &coordinator.address;
                let reason = if letter.group == group {
                    format!(
                        "{other} speaks wire version {}, {} speaks {}: they cannot be in one view",
                        letter.wire_version,
                        own.address,
                        context.view().view().wire_version
                    )
                } else {
                    format!(
                        "{other} looks for group {} at {}, which is in group {group}: they cannot be in one view; are \
                         the names of the groups, and the addresses, right?",
                        letter.group, own.address
                    )
                };
                self.complain(context, coordinator.incarnation, &reason);
                if reply {
                    self.deny(context, &coordinator, view, Refusal::Lasting, reason);
                }
            }
            Beyond::Deny { proposal, refusal: Refusal::Lasting, reason } if proposal == current => {
                self.complain(context, letter.origin, &reason);
                // Who was in this group is in another one now, and not to be found in this one any more.
                self.legacy.former.retain(|former| former.member.incarnation != letter.origin);
            }
            _ => context.count("letter of another group or wire version"),
        }
    }

    pub(super) fn deny(
        &self,
        context: &mut Context<'_>,
        to: &Member,
        proposal: ViewId,
        refusal: Refusal,
        reason: String,
    ) {
        self.write(context, to, &Beyond::Deny { proposal, refusal, reason });
    }

    /// A process that looks for others has the incarnation of a member of this view, and another address. The one of the
    /// lesser view is told that it must go; of two that are alone and equal, the one with the greater address.
    fn doubled(&mut self, context: &mut Context<'_>, reply: bool, theirs: Weight, second: &Member) {
        let Some(reason) = self.doubling(context, std::slice::from_ref(second)) else { return };
        self.complain(context, second.incarnation, &reason);
        if reply {
            let own = &context.view().member(context.rank()).address;
            let stays = (self.weight(context), &second.address) > (theirs, own);
            let refusal = if stays { Refusal::Taken } else { Refusal::Lasting };
            self.deny(context, second, theirs.view, refusal, reason);
        }
    }

    /// Which of `others` has the incarnation of a member of this view at another address, in words.
    pub(super) fn doubling(&self, context: &Context<'_>, others: &[Member]) -> Option<String> {
        others.iter().find_map(|second| {
            let first = context.view().member(context.view().rank_of(second.incarnation)?);
            (first.address != second.address).then(|| {
                format!(
                    "{} and {}, which is in the view already, both have incarnation {}: every process needs one of its \
                     own",
                    second.address, first.address, second.incarnation
                )
            })
        })
    }

    /// Tells the application, once per process it is about and not of many at once.
    pub(super) fn complain(&mut self, context: &mut Context<'_>, about: Incarnation, reason: &str) {
        if self.legacy.complaints.may(about, context.now()) {
            context.problem(None, reason.to_owned());
        }
    }

    /// Another view is there.
    fn met(
        &mut self,
        context: &mut Context<'_>,
        reply: bool,
        busy: bool,
        theirs: Weight,
        coordinator: Member,
    ) {
        let ours = self.weight(context);
        if reply && (theirs < ours || !self.coordinates(context)) {
            let answer = self.presence(context, false);
            self.write(context, &coordinator, &answer);
        }
        let is_put_off = self.is_put_off(context.now(), coordinator.incarnation)
            || self.is_unheard(context.now(), &coordinator.address).is_some();
        let lesser = theirs > ours || self.is(Broken::MergesBothWays);
        if lesser && !busy && !is_put_off && self.is_free(context) {
            let size = usize::from(theirs.size);
            if usize::from(ours.size) + size > self.members_max(context) {
                let reason = self.too_many(context, &coordinator.address, size, MEMBERS_MAX);
                self.complain(context, coordinator.incarnation, &reason);
                self.deny(context, &coordinator, theirs.view, Refusal::Lasting, reason);
                return;
            }
            self.seek(context, coordinator, theirs);
        }
    }

    /// Whether this view may be let into another one.
    fn is_free(&self, context: &Context<'_>) -> bool {
        self.coordinates(context) && self.promise.is_none() && self.host.is_none() && self.guests.is_empty()
    }

    /// Asks the coordinator of a greater view whether it would let this one in. It may not hear it at all: that is found out
    /// before anybody stops casting.
    fn seek(&mut self, context: &mut Context<'_>, coordinator: Member, weight: Weight) {
        let now = context.now();
        let until = now + self.host_patience();
        let sought = Sought { coordinator: coordinator.clone(), weight, until, token: None };
        match self.sought.iter_mut().find(|known| known.coordinator == coordinator) {
            // It is being asked.
            Some(known) if now < known.until => {
                known.weight = weight;
                return;
            }
            Some(known) => *known = sought,
            None => {
                let excess = (self.sought.len() + 1).saturating_sub(DENIALS_MAX);
                self.sought.drain(..excess);
                self.sought.push(sought);
            }
        }
        let question = self.merge_letter(context, context.view().view().id, 0, context.frame_bytes_max());
        self.write(context, &coordinator, &question);
        context.arm(self.handles().merge, now + MERGE_REPEAT);
    }

    /// Asks again those that have not said whether they would let this view in; if one has, while a greater one did not, it
    /// will do.
    fn seek_on(&mut self, context: &mut Context<'_>) {
        self.choose(context, true);
        if self.sought.is_empty() || !self.is_free(context) {
            return;
        }
        let now = context.now();
        let question = self.merge_letter(context, context.view().view().id, 0, context.frame_bytes_max());
        let asked = self.sought.iter().filter(|sought| now < sought.until);
        for sought in asked.clone().filter(|sought| !self.is_put_off(now, sought.coordinator.incarnation)) {
            self.write(context, &sought.coordinator, &question);
        }
        if asked.count() > 0 {
            context.arm(self.handles().merge, now + MERGE_REPEAT);
        }
    }

    /// Begins to merge with the greatest of those that were asked, once that has said that it lets this view in. `waited`: with
    /// the greatest of those that have.
    fn choose(&mut self, context: &mut Context<'_>, waited: bool) {
        let now = context.now();
        if !self.is_free(context) {
            self.sought.clear();
            return;
        }
        let counts = |sought: &&Sought| {
            let asked = now < sought.until && !self.is_put_off(now, sought.coordinator.incarnation);
            sought.token.is_some() || asked && !waited
        };
        let greatest = self.sought.iter().filter(counts).max_by_key(|sought| sought.weight);
        if let Some(Sought { coordinator, token: Some(token), weight, .. }) = greatest.cloned() {
            self.sought.clear();
            let Weight { size, view, .. } = self.weight(context);
            if (weight.size, weight.view) < (size, view) {
                context.count("merge with a view that is greater by its seniors alone");
            }
            let until = now + self.host_patience();
            let latest = now + self.patience_with_a_busy_host(context);
            self.host = Some(Host { coordinator, until, latest, token });
            context.count("merge begun");
            self.reconsider(context);
        }
    }

    /// Whether this host has denied a merge, or not answered in time, and is not asked again yet.
    fn is_put_off(&self, now: Time, host: Incarnation) -> bool {
        self.legacy.denials.iter().any(|denial| denial.by == host && now < denial.until)
    }

    /// How long a host is waited for: longer every time, where the hosts take longer than this one waits.
    pub(super) fn host_patience(&self) -> Duration {
        self.options.merge * (1 << self.legacy.given_up.min(PATIENCE_SHIFT_MAX))
    }

    /// The others in this view do not know how often that was.
    pub(super) fn host_patience_most(&self) -> Duration {
        self.options.merge * (1 << PATIENCE_SHIFT_MAX)
    }

    /// How long a host is waited for that says that its view is about to end: some member of that may have much to take in before. Who
    /// is alone keeps nobody from casting; others wait for this coordinator no longer than they would for one that waits for a
    /// silent host.
    fn patience_with_a_busy_host(&self, context: &Context<'_>) -> Duration {
        let most = self.host_patience_most();
        if context.view().size() == 1 { self.progress_patience() + most } else { most }
    }

    /// This view is flushed and waits: asks the host, until it answers or the time is over.
    pub(super) fn ask_host(&mut self, context: &mut Context<'_>) {
        let (Some(host), Some(proposal)) = (&self.host, &self.proposal) else {
            self.seek_on(context);
            return;
        };
        if context.now() >= host.until {
            context.count("merge given up");
            let (by, pause) = (host.coordinator.incarnation, self.host_patience() * 2);
            self.legacy.given_up += 1;
            self.host = None;
            // Whoever waited could not cast: for longer than that they can.
            self.remember(Denial { by, times: 0, refusal: Refusal::Lasting, until: context.now() + pause });
            return;
        }
        let mut staying = self.staying(context);
        staying.insert(context.rank());
        let frame_bytes = proposal.frame_bytes(staying);
        let message = self.merge_letter(context, proposal.id, host.token, frame_bytes);
        self.write(context, &host.coordinator, &message);
        let again = (context.now() + MERGE_REPEAT).min(host.until);
        context.arm(self.handles().merge, again);
    }

    /// Let us in. This one asks for itself, even if it has come to want to leave.
    fn merge_letter(&self, context: &Context<'_>, proposal: ViewId, token: u64, frame_bytes: u32) -> Beyond {
        let view = context.view().view();
        let mut staying = self.staying(context);
        staying.remove(context.rank());
        Beyond::Merge {
            proposal,
            token,
            terms: self.terms.clone(),
            wire_version: view.wire_version,
            frame_bytes,
            members_max: self.members_max(context) as u16,
            members: std::iter::once(context.rank())
                .chain(staying.iter())
                .map(|rank| view.members[rank.index()].clone())
                .collect(),
        }
    }

    /// The host wants to hear again that this view wants in: so it knows that somebody is there, and this view that the host
    /// hears it and would let it in. With a token that was told before it says that it is about to.
    fn asked_to_confirm(
        &mut self,
        context: &mut Context<'_>,
        origin: Incarnation,
        proposal: ViewId,
        token: u64,
    ) {
        let asked = |sought: &&mut Sought| sought.coordinator.incarnation == origin;
        if proposal == context.view().view().id
            && let Some(sought) = self.sought.iter_mut().find(asked)
        {
            sought.token = Some(token);
            self.choose(context, false);
            return;
        }
        let waits = self.proposal.as_ref().is_some_and(|own| own.id == proposal)
            && self.confirmed.last() == Some(&proposal);
        let until = context.now() + self.host_patience();
        match self.host.as_mut().filter(|host| waits && host.coordinator.incarnation == origin) {
            Some(host) if host.token != token => {
                host.token = token;
                self.ask_host(context);
            }
            Some(host) => host.until = host.until.max(until.min(host.latest)),
            None => context.count("confirmation asked for by a stranger"),
        }
    }

    /// What a guest that is in `view` must say to show that it has had an answer from this one: one letter, old or forged, lets
    /// nobody in.
    pub(super) fn token(&self, context: &Context<'_>, guest: Incarnation, view: ViewId) -> u64 {
        let mut hasher = Hasher64::new(0x746f_6b65_6e00_0002);
        let words = [context.view().view().salt, guest.0, view.counter, view.coordinator.0];
        words.into_iter().for_each(|word| hasher.word(word));
        hasher.finish() | 1
    }

    fn denied(
        &mut self,
        context: &mut Context<'_>,
        origin: Incarnation,
        proposal: ViewId,
        refusal: Refusal,
        reason: String,
    ) {
        let current = context.view().view().id;
        let asked = self.host.as_ref().is_some_and(|host| host.coordinator.incarnation == origin)
            && self.proposal.as_ref().is_some_and(|own| own.id == proposal);
        let sought = proposal == current
            && self.sought.iter().any(|sought| sought.coordinator.incarnation == origin)
            && self.is_free(context);
        if asked {
            self.host = None;
            self.legacy.given_up = 0;
        }
        let asked = asked || sought;
        if asked {
            context.count("merge denied");
            self.put_off(context, origin, refusal);
        }
        // If not, it was asked where it is, and says why it is not for us.
        if refusal == Refusal::Busy || !asked && proposal != current {
            return;
        }
        if refusal == Refusal::Taken && context.view().size() == 1 {
            self.over = true;
            context.problem(None, reason);
            context.exit(ExitReason::IncarnationTaken);
            return;
        }
        self.complain(context, origin, &reason);
    }

    /// Every try flushes this view: the next one at this host has time. Who was busy is asked again at once, the first time.
    fn put_off(&mut self, context: &Context<'_>, by: Incarnation, refusal: Refusal) {
        let denials = &self.legacy.denials;
        let before = denials.iter().find(|denial| denial.by == by && denial.refusal == refusal);
        let times = before.map_or(0, |before| before.times) + 1;
        let pause = match (refusal, times) {
            (Refusal::Busy, 1) => Duration::ZERO,
            (Refusal::Busy, _) => (MERGE_REPEAT * (1 << (times - 1).min(8))).min(self.options.merge),
            _ => self.options.merge * (1 << times.min(PATIENCE_SHIFT_MAX)),
        };
        self.remember(Denial { by, times, refusal, until: context.now() + pause });
    }

    fn remember(&mut self, denial: Denial) {
        let denials = &mut self.legacy.denials;
        denials.retain(|before| before.by != denial.by);
        denials.push(denial);
        let excess = denials.len().saturating_sub(DENIALS_MAX);
        denials.drain(..excess);
    }

    /// Somebody outside says which view follows this one.
    fn told_view(&mut self, context: &mut Context<'_>, origin: Incarnation, proposal: ViewId, view: View) {
        // Whoever was asked by its address may be that process in its next life.
        let host = self.host.is_some() && context.view().rank_of(origin).is_none();
        let waits = self.proposal.as_ref().is_some_and(|own| own.id == proposal)
            && self.confirmed.last() == Some(&proposal);
        if host && waits {
            let own = context.view().member(context.rank()).incarnation;
            if !self.may_follow(context, &view)
                || !view.members.iter().any(|member| member.incarnation == own)
            {
                context.count("view that cannot follow");
                return;
            }
            let others = self.live_others(context);
            if !self.is(Broken::KeepsTheHostsView) {
                self.say(context, others, &Inside::View { proposal, view: view.clone() });
            }
            self.install(context, proposal, view);
        } else if let Some(from) = context.view().rank_of(origin) {
            self.view(context, Some(from), proposal, view);
        } else {
            context.count("view of a stranger");
        }
    }
}
