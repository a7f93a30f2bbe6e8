//! FC: flow control by credit, in frames.
//!
//! | | |
//! |---|---|
//! | requires | P3, P4 reliable FIFO sends and casts |
//! | provides | P20 bounded memory (together with P14 stability and P21 suspicion) |
//! | promises | a member never casts beyond what every receiver can retain; a slow receiver holds the senders, nothing is lost |
//! | costs | 16 bits of gossip per cast |
//!
//! Each receiver grants each origin a cumulative limit: what it has let go of, plus its window. The least limit closes
//! the sender's entry, and casts wait above the stack. Credit is gossip, and gossip may be lost: a sender that is held
//! asks for it, at growing intervals, until it comes.
//!
//! ```text
//! B ── credit: A may cast up to 1024 ──▶ A      A casts 0 to 1023, then waits
//! B lets go of 0 to 511 (stable)
//! B ── credit: A may cast up to 1536 ──x        (lost)
//! A ── (please report) ──▶ B
//! B ── credit: A may cast up to 1536 ──▶ A      A casts 1024 ...
//! ```
//!
//! An application that is behind with its deliveries has its member grant no more until it is not
//! ([`Group::hold_senders`](crate::group::Group::hold_senders)).
//!
//! A member for which the senders wait is *slow* if it has not taken in, after `slow_ms`, what had been cast when they
//! began to wait: so it is speed that counts, a window of frames in that time, and a member that merely sets the pace of a
//! busy group is not slow. It is named in an event, and so is its catching up. With `expel_ms` it is expelled after that
//! time: MBRSHIP goes on without it and tells it why. Time in which this process did not run counts for nobody, and time in which
//! it had not taken in all that had come when it has: a slow member would take all others for slow, and expel them.
//!
//! Who is to be expelled is charged by its own reports alone, and asked for them at least eight times in `expel_ms`: each that
//! comes and still says that it lacks what it is waited for counts for the time since the last one, a quarter of `expel_ms` at
//! most. What it reported and nobody heard is not charged, nor what nobody asked it for. And who gives no credit is charged,
//! and called slow, only where it reports that it knows that all hold what was cast: until then it waits for a third one itself.
//!
//! After Ensemble's `mflow` (Hayden, 1998), with credit that advertises retention, in frames.

use std::time::Duration;

use super::mistake::Mistake;
use crate::accel::case::{CommonCase, Target};
use crate::id::{Hasher64, Rank};
use crate::stack::backoff::Backoff;
use crate::stack::build::{
    Build, Closes, Field, Gossip, GossipSource, Guard, GuardKind, HeldFor, TimerId, shared,
};
use crate::stack::event::{Down, Holdup, Slow, SlowOutcome, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer, Look, Posts};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::{LayerEntry, ParameterError, Parameters};
use crate::stack::slots::{MatrixSlot, MemberSlot, Slot};
use crate::time::{Millis, Time};
use crate::wire::Traffic;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "FC",
        about: "flow control by credit",
        requires: Properties::of(&[Property::FifoUnicast, Property::FifoMulticast]),
        provides: Properties::of(&[Property::BoundedMemory]),
        destroys: Properties::NONE,
        cost: 2,
        parameters: &[
            (
                "window",
                "casts of one origin that a receiver retains, in frames (default: the endpoint's window_frames)",
            ),
            (
                "ask_us",
                "how long a sender is held before it asks for credit, in microseconds (default 1000, or an eighth of expel_ms)",
            ),
            (
                "backoff_us",
                "the longest interval between repetitions, in microseconds (default 50000, or an eighth of expel_ms)",
            ),
            (
                "slow_ms",
                "a member that holds the senders up for so long is called slow, in milliseconds (default 100)",
            ),
            (
                "expel_ms",
                "a member that holds the senders up for so long, by its own reports, is expelled, in milliseconds; where frames are lost, and come again after up to 50, let it be 200 or more (default: it is waited for)",
            ),
            #[cfg(feature = "laboratory")]
            ("broken", "wrong on purpose, for the museum: which way (default no)"),
        ],
        make: |parameters| Ok(Box::new(Fc::new(parameters)?)),
    }
}

#[derive(Clone)]
struct Fc {
    mistake: Mistake,
    window: u64,
    /// Casts of one origin that may wait here for their order, where there is one.
    share: u64,
    /// When credit is asked for.
    ask: Backoff,
    handles: Option<Handles>,
    /// A member that holds the senders up for so long is called slow; and is expelled, if it ever is.
    slow: Duration,
    expel: Option<Duration>,
    holder: Option<Holder>,
}

/// The member that this one waits for.
#[derive(Clone, Copy, Debug)]
struct Holder {
    member: Rank,
    /// Whether it lacks casts; else it lacks nothing, and gives no credit.
    behind: bool,
    /// The casts there were when the wait began: it must take in these.
    target: u64,
    since: Time,
    lasting: Duration,
    looked: Time,
    told: bool,
    /// Its reports when last looked at, how long it has been waited for since the last one, and how much of `lasting` is charged
    /// to it.
    reports: u64,
    unsaid: Duration,
    charged: Duration,
}

/// Looks at a member that holds the senders up, within the time after which something is said of it; and as often it is asked for
/// a report, at least, within the time after which it is expelled.
const LOOKS: u32 = 8;
/// No more than so many count at once: of time between two looks, and of time before a report.
const LOOKS_AT_ONCE: u32 = 2;

#[derive(Clone, Copy)]
struct Handles {
    number: Option<Field>,
    /// Per origin: the limit this member grants it.
    granted: MemberSlot,
    credit: MatrixSlot,
    gossip: Gossip,
    limit: Slot,
    no_credit: Guard,
    /// This member's application is behind: its casts wait, but turns and orders go on.
    behind: Guard,
    ask: TimerId,
    look: TimerId,
    held: MatrixSlot,
    /// The group can go on without a member.
    live: bool,
    /// Frames that each member knows to be stable, and of each origin those let go of here, if some layer keeps them until then.
    stable: Option<MatrixSlot>,
    released: Option<MemberSlot>,
}

impl Fc {
    fn new(parameters: &Parameters) -> Result<Fc, ParameterError> {
        // Zero stands for the endpoint's.
        let window = parameters.number("window", 0, 1..=crate::config::WINDOW_FRAMES_MAX)?;
        let micros =
            |name, default| parameters.number(name, default, 1..=10_000_000).map(Duration::from_micros);
        let millis = |name, default| parameters.number(name, default, 1..=3_600_000);
        let expel = Some(millis("expel_ms", 0)?).filter(|expel| *expel > 0).map(Duration::from_millis);
        // Who is to be expelled is charged by its reports: they are asked for as often as they count.
        let often = expel.map_or(Duration::MAX, |expel| expel / LOOKS);
        let [first, longest] = [micros("ask_us", 1000)?, micros("backoff_us", 50_000)?];
        let ask = Backoff::new(first.min(often), longest.min(often));
        let slow = Duration::from_millis(millis("slow_ms", 100)?);
        let mistake = Mistake::of(parameters)?;
        Ok(Fc { mistake, window, share: u64::MAX, ask, handles: None, slow, expel, holder: None })
    }

    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }

    /// How often a member that holds this one up is looked at.
    fn tick(&self) -> Duration {
        self.expel.map_or(self.slow, |expel| expel.min(self.slow)) / LOOKS
    }

    /// Who holds this member up now; `None` if nobody does.
    fn slowest(&self, context: &Context<'_>) -> Option<Holder> {
        let Handles { held, credit, .. } = self.handles();
        let (own, now) = (context.rank(), context.now());
        let target = context.next_frame_number();
        let (member, behind) = match context.least_other(held, own)? {
            (member, holds) if holds < target => (member, true),
            _ => {
                let owing = context.view().others().filter(|other| self.owes(context, *other, target));
                (owing.min_by_key(|other| context.pair(credit, *other, own))?, false)
            }
        };
        let (lasting, unsaid, charged) = Default::default();
        let (told, reports) = (false, context.reports_of(member));
        Some(Holder {
            member,
            behind,
            target,
            since: now,
            lasting,
            looked: now,
            told,
            reports,
            unsaid,
            charged,
        })
    }

    /// Whether a member gives no credit beyond `target` though it knows that all hold what was cast. What it does not know it
    /// waits for itself: that is between it and those that others lack, or that it does not hear.
    fn owes(&self, context: &Context<'_>, member: Rank, target: u64) -> bool {
        let Handles { stable, credit, .. } = self.handles();
        let own = context.rank();
        !context.has_failed(member)
            && stable.is_none_or(|stable| context.pair(stable, member, own) >= target)
            && context.pair(credit, member, own) <= target
    }

    /// Whether it has taken in what it was waited for, or nobody waits for it any more.
    fn caught_up(&self, context: &Context<'_>, holder: &Holder) -> bool {
        let Holder { member, behind, target, .. } = *holder;
        if behind {
            context.has_failed(member) || context.pair(self.handles().held, member, context.rank()) >= target
        } else {
            !self.owes(context, member, target)
        }
    }

    fn say(&self, context: &mut Context<'_>, holder: &Holder, outcome: SlowOutcome) {
        let Holder { member, behind, since, lasting, .. } = *holder;
        let lacks = holder.target.saturating_sub(context.pair(self.handles().held, member, context.rank()));
        let why = if behind { Holdup::Behind { frames: lacks } } else { Holdup::NoCredit };
        context.up(Up::Slow(Slow { member, why, since, lasting, outcome }));
    }

    /// Nobody is waited for any more.
    fn let_off(&mut self, context: &mut Context<'_>) {
        if let Some(holder) = self.holder.take()
            && holder.told
            && !context.has_failed(holder.member)
        {
            self.say(context, &holder, SlowOutcome::CaughtUp);
        }
        context.disarm(self.handles().look);
    }

    /// The senders wait, or have waited: for whom, and how long?
    fn watch(&mut self, context: &mut Context<'_>, closed: bool) {
        let over = self.holder.is_some_and(|holder| self.caught_up(context, &holder));
        if over && !self.mistake.is(Mistake::ForgetsCredit) {
            self.let_off(context);
        }
        if closed && self.holder.is_none() {
            self.holder = self.slowest(context);
            if self.holder.is_some() {
                context.arm(self.handles().look, context.now() + self.tick());
            }
        }
    }

    /// Charges the member that is waited for with the time before a report of its own: by which it has not caught up, or it would
    /// not be waited for.
    fn charge(&self, context: &Context<'_>, holder: &mut Holder) {
        let reports = context.reports_of(holder.member);
        if reports != std::mem::replace(&mut holder.reports, reports) {
            let most = self.expel.unwrap_or(Duration::MAX) / LOOKS * LOOKS_AT_ONCE;
            holder.charged += std::mem::take(&mut holder.unsaid).min(most);
        }
        if self.mistake.is(Mistake::BlamesTheUnheard) {
            holder.charged = holder.lasting;
        }
    }

    /// Looks at the member that is waited for.
    fn look(&mut self, context: &mut Context<'_>) {
        let Handles { no_credit, look, live, .. } = self.handles();
        let own = context.rank();
        let Some(mut holder) = self.holder else { return };
        // Room for a frame now and then is no reason to think better of it, but that nobody wants to cast is.
        let waits = !self.caught_up(context, &holder) && context.is_closed(no_credit, own);
        if !waits && !self.mistake.is(Mistake::ForgetsCredit) {
            self.let_off(context);
            return;
        }
        // Time in which this process did not run is not the other's, nor is that of which it is not known yet whether word from
        // it waits to be taken in.
        let known = if self.mistake.is(Mistake::BlamesUnread) { context.now() } else { context.level_at() };
        if known > holder.looked {
            let passed = known.since(holder.looked).min(self.tick() * LOOKS_AT_ONCE);
            holder.lasting += passed;
            holder.unsaid += passed;
            holder.looked = known;
        }
        self.charge(context, &mut holder);
        let threshold = self.expel.map_or(self.slow, |expel| expel.min(self.slow));
        if !holder.told && holder.lasting >= threshold {
            holder.told = true;
            context.count("slow member");
            self.say(context, &holder, SlowOutcome::Waits);
        }
        self.holder = Some(holder);
        if live && self.expel.is_some_and(|expel| holder.charged >= expel) {
            self.holder = None;
            if self.mistake.is(Mistake::ExpelsAnother) {
                let size = context.view().size();
                let others = (1..size).map(|step| Rank::at((holder.member.index() + step) % size));
                let another = others.into_iter().find(|other| *other != own && !context.has_failed(*other));
                holder.member = another.unwrap_or(holder.member);
            }
            self.say(context, &holder, SlowOutcome::Expelled { by: own });
            return;
        }
        context.arm(look, context.now() + self.tick());
    }
}

impl Layer for Fc {
    fn name(&self) -> &'static str {
        "FC"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.window = build.window(self.window, build.window_max(), "it is Config::window_frames");
        if build.stack_provides(Property::Total) {
            self.share = build.order_share();
        }
        // Credit follows what all hold, and comes no sooner than the news of that.
        let held = build.shared_matrix_slot(shared::HELD);
        build.report_within(held, (self.window / 4).max(1));
        let granted = build.member_slot();
        let credit = build.matrix_slot();
        let retains = build.stack_provides(Property::Stability);
        let source = GossipSource::Slot(granted);
        let first = self.window.min(self.share);
        self.handles = Some(Handles {
            number: build.frame_number(),
            granted,
            credit,
            gossip: build.gossip("credit", source, credit, Some(Traffic::Cast), Some((first / 4).max(1))),
            limit: build.slot(),
            no_credit: build.guard(
                GuardKind::CastSend,
                "no credit",
                Closes::Entry(HeldFor::Acknowledgements),
            ),
            behind: build.guard(
                GuardKind::CastSend,
                "application behind",
                Closes::Entry(HeldFor::Application),
            ),
            ask: build.timer("ask"),
            look: build.timer("look"),
            held,
            live: build.stack_provides(Property::ConsistentViews),
            stable: retains.then(|| build.shared_matrix_slot(shared::STABLE)),
            released: retains.then(|| build.shared_member_slot(shared::RELEASED)),
        });
    }

    fn start(&mut self, context: &mut Context<'_>) {
        let Handles { granted, credit, limit, .. } = self.handles();
        let (own, first) = (context.rank(), self.window.min(self.share));
        for rank in (0..context.view().size()).map(crate::id::Rank::at) {
            // Everybody knows everybody's first grant: members agree on the window before they share a view.
            context.set_of(granted, rank, first);
            context.raise_pair(credit, rank, own, first);
        }
        context.set(limit, first);
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.down(&[Flow::Cast])
    }

    fn look_up(&mut self, _context: &mut Context<'_>, _event: &Up) -> Look {
        Look::Passes
    }

    fn look_down(&mut self, context: &mut Context<'_>, event: &Down) -> Look {
        let cast = matches!(event, Down::Cast(_));
        // The cast is about to get the next number; the one after it is what must have credit.
        let after = context.next_frame_number() + 1;
        if cast && after >= context.get(self.handles().limit) {
            context.close(self.handles().no_credit, context.rank());
        }
        if matches!(event, Down::Over) {
            self.holder = None;
            context.disarm(self.handles().look);
        }
        Look::Passes
    }

    fn timer(&mut self, context: &mut Context<'_>, timer: TimerId) {
        if timer == self.handles().look {
            self.look(context);
            return;
        }
        if !self.mistake.is(Mistake::NeverAsks) {
            context.gossip_now(true);
        }
        self.ask.repeat(context.now());
        context.arm(timer, self.ask.due());
    }

    fn posts(&self) -> Posts {
        Posts::EachMember
    }

    fn post_member(&mut self, context: &mut Context<'_>, origin: Rank) {
        if origin == context.rank() || context.holds_senders() {
            return;
        }
        let Handles { granted, released, .. } = self.handles();
        let released = released.map_or_else(|| context.accepted(origin), |slot| context.of(slot, origin));
        let windows = 1 + u64::from(self.mistake.is(Mistake::GivesTwice));
        let retained = released + windows * self.window;
        let held = context.passed(origin).saturating_add(self.share);
        context.set_of(granted, origin, retained.min(held));
    }

    fn post(&mut self, context: &mut Context<'_>) {
        let Handles { credit, limit, no_credit, behind, ask, .. } = self.handles();
        let own = context.rank();
        let next = context.next_frame_number();
        let least = self.mistake.least_of_others(context, credit, own).unwrap_or(u64::MAX);
        context.set(limit, least);
        let holds = context.holds_senders();
        if holds {
            // This one too, which nobody else grants anything: its own casts are delivered to it as well. Not what others wait
            // for in the order of all casts, or nobody would learn who holds them up.
            context.close(behind, own);
        } else {
            context.open(behind, own);
        }
        if next < least {
            context.open(no_credit, own);
            self.ask.settle();
        } else {
            self.ask.begin(context.now());
        }
        if holds {
            // Who waits for itself waits for nobody else.
            self.let_off(context);
        } else if next >= least || self.holder.is_some() {
            self.watch(context, next >= least);
        }
        context.arm_or_disarm(ask, self.ask.due());
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        let handles = self.handles();
        match (kind, handles.number) {
            (Kind::CastSend, Some(number)) => {
                case.gossip(handles.gossip);
                case.limit(number, Target::Own(handles.limit), handles.no_credit);
                Fast::Declared
            }
            (Kind::CastSend, None) => Fast::Opaque("no layer below numbers casts"),
            (Kind::CastDeliver, _) => {
                case.gossip(handles.gossip);
                Fast::Declared
            }
            _ => Fast::Transparent,
        }
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, digest: &mut Hasher64) {
        self.ask.digest(digest);
        if let Some(holder) = &self.holder {
            digest.word(u64::from(holder.member.0));
            digest.word(holder.target);
            digest.word(holder.reports);
            for time in [holder.lasting, holder.unsaid, holder.charged] {
                digest.word(time.as_nanos() as u64);
            }
        }
    }

    fn time_outs(&self) -> Vec<(&'static str, Duration)> {
        let always = [("ask", self.ask.first()), ("backoff", self.ask.longest()), ("slow", self.slow)];
        always.into_iter().chain(self.expel.map(|expel| ("expel", expel))).collect()
    }

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let handles = self.handles();
        let policy = match self.expel {
            Some(_) if handles.live => "is expelled",
            _ => "is waited for",
        };
        let waits = match &self.holder {
            Some(holder) => format!("; waits for {} since {}", holder.member, Millis(holder.lasting)),
            None => String::new(),
        };
        Some(format!(
            "may cast up to frame {}, is at {}; window {}; who is slow {policy}{waits}",
            context.get(handles.limit),
            context.next_frame_number(),
            self.window
        ))
    }
}
