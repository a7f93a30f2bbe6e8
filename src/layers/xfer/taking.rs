//! The side of who comes in: parts of the state, and what is held until they are all there.

use super::broken::Broken;
use super::hold::Hold;
use super::message::{ALL, LAST, PART_HEAD_BYTES, STATELESS, Say};
use super::pace::Pace;
use super::{NEXT_ITERATION, NOT_READY, Own, RELEASE_MAX, Xfer};
use crate::id::{Hasher64, Incarnation, MEMBERS_MAX, Rank, RankSet, ViewId};
use crate::stack::event::{Down, List, Message, StateBytes, Up};
use crate::stack::layer::Context;
use crate::view::LocalView;
use crate::wire::Traffic;

/// So much of the state, and whoever takes it in says how far it has come: what is not acknowledged is bounded.
const TELL_BYTES: u64 = 128 << 10;
/// Who takes it in gives credit for one part of that many of what may be under way.
const CREDIT_SHARE: u64 = 8;

/// The state on its way in.
#[derive(Clone, Default)]
pub(super) struct Taking {
    /// Who gives it in this view.
    donor: Option<Rank>,
    /// What it is: the cut, and whose state.
    from: Option<(ViewId, Incarnation)>,
    /// That one's rank when it began to give in a view.
    giver: Rank,
    /// Bytes that have come; and whether that is all.
    at: u64,
    whole: bool,
    /// Bytes that have gone up to the application.
    given: u64,
    /// Bytes that the application has, and how many of them the donor knows of.
    taken: u64,
    told: u64,
    /// Parts that the application was not ready for; and the first of them, once it is on offer.
    late: Hold,
    offered: Option<StateBytes>,
    /// Parts behind those, which are more than an iteration's: what has gone up before them may still come back.
    next: Hold,
    /// The application has the first part before it, and what it had of its own until it takes that in.
    kept: bool,
}

impl Taking {
    /// What its donor need not count any more.
    pub(super) fn credit(&self) -> u64 {
        if self.whole { ALL } else { self.taken }
    }

    /// What is taken in, and how much of it the application has, as words of a message; the donor knows it then.
    pub(super) fn tell_all(&mut self) -> [[u8; 8]; 4] {
        self.told = self.taken;
        let none = (ViewId { counter: 0, coordinator: Incarnation(0) }, Incarnation(0));
        let (cut, of) = self.from.unwrap_or(none);
        [cut.counter, cut.coordinator.0, of.0, self.taken].map(u64::to_le_bytes)
    }

    /// Who gives it in this view, and how many bytes of it the application has.
    pub(super) fn donor(&self) -> (Option<Rank>, u64) {
        (self.donor, self.taken)
    }

    /// Whether all of it has come.
    pub(super) fn has_come(&self) -> bool {
        self.whole
    }

    /// Whether parts wait for the application.
    pub(super) fn is_late(&self) -> bool {
        self.came_back() || !self.next.is_empty()
    }

    /// Whether the application was not ready for some.
    fn came_back(&self) -> bool {
        self.offered.is_some() || !self.late.is_empty()
    }

    pub(super) fn digest(&self, digest: &mut Hasher64) {
        digest.word(self.donor.map_or(0, |donor| 1 + u64::from(donor.0)));
        let from = self.from.map(|(cut, donor)| [cut.counter, cut.coordinator.0, donor.0]);
        from.into_iter().flatten().for_each(|word| digest.word(word));
        digest.word(u64::from(from.is_some()) << 16 | u64::from(self.giver.0));
        digest.word(self.at);
        digest.word(self.taken << 1 | u64::from(self.whole));
        digest.word(self.told);
        digest.word(self.given);
        digest.word(self.next.bytes());
        digest.word(self.late.bytes() << 2 | u64::from(self.offered.is_some()) << 1 | u64::from(self.kept));
    }

    pub(super) fn dump(&self) -> String {
        let Some((cut, donor)) = self.from else { return "waits for a donor".to_owned() };
        let Taking { at, taken, whole, .. } = self;
        let all = if *whole { ", which is all" } else { "" };
        format!("has {at} bytes of the state of {donor} at view {cut}{all}, {taken} of them taken in")
    }
}

impl Xfer {
    /// In a new view: what was taken in and what is held stays, until a donor says that it is begun anew.
    pub(super) fn take_on(&mut self, context: &mut Context<'_>, goes_on: bool, taking: Taking, hold: Hold) {
        self.hold = hold;
        if goes_on {
            self.taking = Taking { donor: None, told: 0, ..taking };
            if self.taking.is_late() {
                context.arm(self.handles().offer, context.now());
            }
        } else {
            self.begins_here = true;
            self.hold_from(context.view());
        }
        self.carried = self.hold.bytes();
        if self.taking.whole && self.taking.taken == self.taking.at {
            self.own = Own::Whole;
            self.turn_now(context);
        } else if !self.taking.whole {
            self.say(context, Say::Lacks);
            self.look_soon(context);
        }
    }

    /// Lets go of what was held of the views before this one, but for sends.
    fn hold_from(&mut self, view: &LocalView) {
        let casts = self.options.broken.is(Broken::KeepsHold);
        self.hold.begin_at(view, |traffic| traffic == Traffic::Send || casts);
    }

    /// `origin` begins to give the state, or goes on with it.
    pub(super) fn begin(&mut self, context: &mut Context<'_>, origin: Rank, payload: &[u8]) {
        let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("eight bytes"));
        const SET: usize = MEMBERS_MAX / 8;
        let lacks = RankSet::from_words(std::array::from_fn(|at| word(8 * at)));
        let takes = payload[SET] == 1;
        let cut = ViewId { counter: word(SET + 1), coordinator: Incarnation(word(SET + 9)) };
        let (at, founded) = (word(SET + 17), word(SET + 25));
        self.donated = true;
        self.has(context, origin);
        self.unable.remove(origin);
        self.unable_before.remove(origin);
        // Whoever is known to have it has it; but who has said in this view that it lacks it says itself when it has it.
        self.lacks = self.lacks.and(lacks.with(self.said));
        if takes && self.taking.whole && self.waits() && !self.flushing {
            self.say_to(context, RankSet::one(origin), Say::Credit);
        }
        match self.own {
            Own::Lacks => {
                self.lacks.insert(context.rank());
                if takes && !self.taking.whole && self.taking.donor.is_none_or(|donor| origin < donor) {
                    self.begin_taking(context, origin, cut, at, founded);
                }
            }
            Own::Refused => self.lacks.insert(context.rank()),
            Own::Has | Own::Whole => {
                self.lacks.remove(context.rank());
                if origin < context.rank() {
                    self.give_up(context, cut);
                }
                if lacks.contains(context.rank()) && self.own == Own::Has && !self.flushing {
                    self.say(context, Say::Have);
                }
            }
        }
    }

    /// `origin` has the state and cannot read it: nothing more comes from it, and what came is void.
    pub(super) fn is_unable(&mut self, context: &mut Context<'_>, origin: Rank) {
        self.has(context, origin);
        self.unable.insert(origin);
        if self.taking.donor == Some(origin) && !self.taking.whole {
            self.taking.donor = None;
        }
        self.turn_now(context);
    }

    fn begin_taking(&mut self, context: &mut Context<'_>, origin: Rank, cut: ViewId, at: u64, founded: u64) {
        let from = (cut, context.view().member(origin).incarnation);
        if at > 0 && self.taking.from == Some(from) && self.taking.at == at {
            if self.options.broken.is(Broken::ForgetsHold) {
                self.hold_from(context.view());
            }
        } else if let Some(view) = self.hold.view(cut).filter(|_| at == 0) {
            if self.taking.at > 0 {
                context.count("transfer begun anew in the next view");
            }
            self.taking = Taking { from: Some(from), ..Taking::default() };
            context.disarm(self.handles().offer);
            let begins_here = self.options.broken.is(Broken::BeginsAtThisView);
            self.hold_from(if begins_here { context.view() } else { &view });
            self.carried = 0;
            if self.hold.bytes() < self.options.hold_bytes && self.full.contains(context.rank()) {
                self.full_said = false;
                self.let_off(context, context.rank());
                if !self.flushing {
                    self.say(context, Say::Room);
                }
            }
        } else {
            context.count("state that is gone on with, and was never begun here");
            if !self.flushing {
                self.say_to(context, RankSet::one(origin), Say::Anew);
            }
            return;
        }
        (self.taking.donor, self.taking.giver) = (Some(origin), origin);
        self.founded = founded;
        if self.lacks_since <= founded {
            // It is told once of each that took the place of another.
            self.lacks_since = founded + 1;
            context.count("another's state in the place of one that nobody had");
            context.up(Up::StateLost { goes_on: true });
        }
        if self.taking.told < self.taking.taken {
            self.tell_credit(context);
        }
        self.check_hold(context);
    }

    /// A part of the state.
    pub(super) fn part(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        let payload = message.list.payload();
        let Some((head, bytes)) = payload.split_at_checked(PART_HEAD_BYTES) else {
            context.count("part that does not decode");
            return;
        };
        let flags = head[1];
        let mut at = [0; 8];
        at.copy_from_slice(&head[2..]);
        let at = u64::from_le_bytes(at);
        // There is nothing of a state that there is not.
        let is_stateless = flags & STATELESS != 0;
        let is_nothing = flags == LAST | STATELESS && at == 0 && bytes.is_empty();
        if flags & !(LAST | STATELESS) != 0 || is_stateless && !is_nothing {
            context.count("part that does not decode");
            return;
        }
        let expected = self.own == Own::Lacks
            && (self.taking.donor == Some(origin) && self.taking.at == at
                || self.options.broken.is(Broken::TakesFromAnybody))
            && !self.taking.whole;
        if !expected {
            context.count("part of a state that is not taken in");
            return;
        }
        let last = flags & LAST != 0;
        let through = at + bytes.len() as u64;
        (self.taking.at, self.taking.whole) = (through, last);
        if self.options.broken.is(Broken::HasTooEarly) && at == 0 && !last {
            self.say(context, Say::Have);
        }
        if through / TELL_BYTES > at / TELL_BYTES {
            context.gossip_now(false);
        }
        if is_stateless {
            self.taking.taken = through;
            self.is_whole(context);
            return;
        }
        let (frame, to) = (message.list.frame().clone(), message.list.to());
        let list = List::single(frame, to - bytes.len(), to);
        if self.taking.is_late() {
            self.taking.next.push(late(origin, list), false);
        } else if !self.pace.allows(context.now()) {
            self.taking.next.push(late(origin, list), false);
            context.arm(self.handles().offer, context.now() + NEXT_ITERATION);
        } else {
            self.hand_up(context, StateBytes { donor: origin, at, last, list });
        }
        if last && self.options.broken.is(Broken::WholeTooEarly) {
            self.is_whole(context);
        }
    }

    /// Gives a part to the application, which replaces by it what it had of its own, if it takes it in.
    fn hand_up(&mut self, context: &mut Context<'_>, part: StateBytes) {
        if part.at == 0 {
            self.taking.kept = self.shared && !self.options.broken.is(Broken::OwnGoesWithTheOffer);
        }
        self.shared &= self.options.broken.is(Broken::OwnIsKeptInPart);
        self.taking.given = part.at + part.list.payload().len() as u64;
        self.pace.goes();
        context.up(Up::State(part));
    }

    /// The application was not ready for a part.
    pub(super) fn state_back(&mut self, context: &mut Context<'_>, part: StateBytes) {
        if self.own != Own::Lacks || part.donor != self.taking.giver {
            return;
        }
        self.shared |= std::mem::take(&mut self.taking.kept);
        if self.taking.offered.is_none() {
            // It leaves the frame it came in.
            self.taking.late.push(late(part.donor, part.list), false);
        }
        context.arm(self.handles().offer, context.now() + NOT_READY);
    }

    /// Offers the first of the parts that the application was not ready for once more; if there are none, gives it as many
    /// of those behind them as an iteration may have, a bounded number at a time.
    pub(super) fn offer(&mut self, context: &mut Context<'_>) {
        let mut soon = context.now();
        for _ in 0..RELEASE_MAX {
            if self.own != Own::Lacks || !self.taking.is_late() {
                return;
            }
            if !self.pace.allows(context.now()) {
                soon = context.now() + NEXT_ITERATION;
                break;
            }
            let taking = &mut self.taking;
            let came_back = taking.came_back();
            let (at, waiting) = match came_back {
                true => (taking.taken, &mut taking.late),
                false => (taking.given, &mut taking.next),
            };
            let again = taking.offered.take().map(|part| (part.at, part.list));
            let first = || match waiting.pop() {
                Some(Up::Send(_, message)) => Some((at, message.list)),
                // A fork keeps none.
                _ => None,
            };
            let Some((at, list)) = again.or_else(first) else { return };
            // More may have come since.
            let last = taking.whole && taking.late.is_empty() && taking.next.is_empty();
            let part = StateBytes { donor: taking.giver, at, last, list };
            taking.offered = came_back.then(|| part.clone());
            self.hand_up(context, part);
            if came_back {
                return;
            }
        }
        context.arm(self.handles().offer, soon);
    }

    /// The application has taken a part in.
    pub(super) fn state_taken(&mut self, context: &mut Context<'_>, donor: Rank, through: u64, last: bool) {
        let taking = &mut self.taking;
        if self.own != Own::Lacks || donor != taking.giver || !(taking.taken..=taking.at).contains(&through) {
            return;
        }
        (taking.taken, taking.kept) = (through, false);
        self.moved = context.now();
        let taking = &mut self.taking;
        let was_late = taking.offered.take().is_some();
        let part_bytes = self.options.flight_bytes / CREDIT_SHARE;
        if taking.taken - taking.told >= part_bytes || taking.taken == taking.at && was_late {
            self.tell_credit(context);
        }
        if last {
            self.is_whole(context);
        } else if was_late && self.taking.is_late() {
            self.offer(context);
        }
    }

    fn tell_credit(&mut self, context: &mut Context<'_>) {
        let Some(donor) = self.taking.donor.filter(|_| !self.flushing) else { return };
        self.taking.told = self.taking.taken;
        let said = (RankSet::one(donor), Say::Credit);
        if !self.unsaid.contains(&said) {
            self.say_to(context, said.0, said.1);
        }
    }

    /// The application has all of the state.
    fn is_whole(&mut self, context: &mut Context<'_>) {
        if self.next.is_none() {
            self.own = Own::Whole;
            // What was held may take longer than parts of the state.
            self.pace = Pace::default();
            self.turn_now(context);
        }
    }

    /// Whether nobody in this view has the state, and what follows from it for this member.
    pub(super) fn found(&mut self, context: &mut Context<'_>) {
        if self.own != Own::Lacks || self.taking.donor.is_some() || self.taking.whole {
            return;
        }
        let others = Xfer::others(context).without(self.said).without(self.refused);
        if self.flushing || !others.without(self.unable).is_empty() {
            return;
        }
        if !others.without(self.unable_before).is_empty() {
            // Those who said that they lack the state may have got it before this was heard; in the next view they say it
            // again.
            context.ask_for_view();
            return;
        }
        // Where somebody has the state and cannot read it, another one is not to stand beside it.
        let counts = others.is_empty() && !self.options.broken.is(Broken::OwnIsVoid);
        let mut with_own = if counts { self.with_own.and(self.wanting()) } else { RankSet::EMPTY };
        if counts && self.shared {
            with_own.insert(context.rank());
        }
        let own_goes_on = !with_own.is_empty();
        if !self.options.go_on && !own_goes_on {
            context.count("left because nobody had the state");
            context.up(Up::StateLost { goes_on: false });
            let why = match others.is_empty() {
                true => "all members that had the group's state are gone, and nobody else has got all of it",
                false => {
                    "no member that has the group's state can read it, and nobody else has got all of it"
                }
            };
            self.refuse(context, format!("{why}: this process leaves (lost=leave)"));
            context.down(Down::Leave);
            return;
        }
        let able = if own_goes_on { with_own } else { self.wanting() };
        if able.iter().next() != Some(context.rank()) {
            return;
        }
        context.count(match own_goes_on {
            true => "nobody had the state of those that let this member in: its own counts",
            false => "nobody had the state",
        });
        context.up(Up::StateLost { goes_on: true });
        self.taking = Taking { whole: true, ..Taking::default() };
        self.hold_from(context.view());
        self.own = Own::Whole;
        self.founded = context.view().view().id.counter;
        self.lacks.remove(context.rank());
        if !self.wanting().is_empty() {
            self.become_donor(context, self.wanting());
        }
        self.turn_now(context);
    }

    /// It is over for this member.
    pub(super) fn refuse(&mut self, context: &mut Context<'_>, why: String) {
        self.own = Own::Refused;
        self.hold.clear();
        self.taking = Taking::default();
        context.problem(None, why);
        if !self.flushing {
            self.say(context, Say::Refused);
        }
    }

    /// An event at a member that has not got the state yet.
    pub(super) fn keep(&mut self, context: &mut Context<'_>, event: Up) {
        match event {
            Up::Stable => self.stable_held = true,
            Up::Send(_, ref message) if message.is_control() => context.up(event),
            Up::Send(..) if self.options.broken.is(Broken::DropsSends) => {}
            Up::View(_)
            | Up::Cast(..)
            | Up::Send(..)
            | Up::Transitional(_)
            | Up::Suspect(_)
            | Up::Slow(_)
            | Up::Leave(_)
            | Up::LostMessage { .. } => {
                if self.own == Own::Refused {
                    return;
                }
                if matches!(event, Up::View(_)) && self.begins_here {
                    // Sends of views before wait already.
                    self.hold.push_first(event);
                    return;
                }
                self.hold.push(event, context.layer > 0);
                self.check_hold(context);
            }
            event => context.up(event),
        }
    }

    /// Whether too much is held. Until it is known what the state is the state of, what was held before may be let go of.
    fn check_hold(&mut self, context: &mut Context<'_>) {
        let known = self.taking.donor.is_some() || self.taking.whole;
        let held = self.hold.bytes() - if known { 0 } else { self.carried.min(self.hold.bytes()) };
        if held < self.options.hold_bytes || self.full_said || self.next.is_some() {
            return;
        }
        self.full_said = true;
        if self.options.leave {
            let why = format!(
                "more than {} KiB were cast in the group before its state was complete here (hold_kib_max)",
                self.options.hold_bytes >> 10
            );
            self.refuse(context, why);
            context.down(Down::Leave);
            return;
        }
        self.is_full(context, context.rank());
        if !self.flushing {
            self.say(context, Say::Full);
        }
    }
}

/// A part that waits for the application, as the hold keeps it.
fn late(donor: Rank, list: List) -> Up {
    Up::Send(donor, Message::data(Traffic::Send, list))
}
