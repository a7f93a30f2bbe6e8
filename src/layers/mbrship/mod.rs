//! MBRSHIP: who is in the group, and what belongs to which view.
//!
//! | | |
//! |---|---|
//! | requires | P3, P4 reliable FIFO sends and casts, P14 stability, P21 suspicion |
//! | provides | P8, P9 virtual synchrony, P15 consistent views, P16 merging |
//! | promises | members that go together from one view to the next have delivered the same casts in the first; every survivor of a component installs the same next view; a view id is never used twice |
//! | costs | nothing on ordinary messages; a view change takes three rounds of reliable sends |
//!
//! A process begins in a view of its own and looks for others (`meeting`). The member of lowest rank that nobody
//! suspects is the coordinator. Whatever changes the membership (a failure, a leave, another view that wants in) makes
//! it propose a view id, which is thereby consumed, and flush the old view (`flush`): everybody stops casting and
//! reports what it holds; the cut says how many frames of each member belong to the view (of a live member all, of a
//! failed one as many as any survivor holds) and who can forward them; when everybody has delivered them the next view
//! is decided. A further failure begins it anew with a higher id.
//!
//! ```text
//! 0 (coordinator)          1                    2 x (has failed)
//! ── flush 8, {2} ───────▶ stops casting
//! ◀─ flush ok, holds ───── (7 of 0, 5 of 1, 9 of 2)
//! ── cut: 7, 5, 9 of 2 held by 1 ─▶
//! ◀─ cut ok ──────────────
//! ── view 8 {0, 1} ──────▶ installs it
//! ```
//!
//! A member that may have missed the view keeps talking in the old one, and is answered with it; one that was excluded
//! while it was away is told so. Safety does not lean on any of these answers: a member installs a view only if it has
//! confirmed the cut of its proposal and no later one.
//!
//! Who hears nobody goes alone, and is the one that has failed: so a lesser part excludes nobody but who knows that it did
//! not run itself. Of two halves the first to go on excludes the other. All that go on have given up all others, and parts
//! that follow each other lie within each other: no more than half of a view are excluded from it.
//!
//! After Horus's MBRSHIP (van Renesse, Birman, Maffeis, 1996), Ensemble's `intra`, `elect`, `sync` and `merge`
//! (Hayden, 1998), and Derecho's rule that a successor continues what its predecessor may have finished.

mod broken;
mod expel;
mod flush;
mod hosting;
mod left_out;
mod meeting;
mod message;
mod room;
mod saying;
mod suspecting;

use std::any::Any;
use std::rc::Rc;
use std::time::Duration;

use self::broken::Broken;
use self::meeting::Weight;
use self::message::{Beyond, Inside, Refusal, is_plausible};
use self::saying::Unsaid;
use crate::accel::case::CommonCase;
use crate::id::{Hasher64, Incarnation, MEMBERS_MAX, Rank, RankSet, ViewId};
use crate::stack::build::{Build, Closes, Guard, GuardKind, HeldFor, TimerId, shared};
use crate::stack::complaints::Complaints;
use crate::stack::event::{Charge, Cut, Down, ExitReason, GroundsKind, Message, NextView, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer};
use crate::stack::notices::Notices;
use crate::stack::property::{Properties, Property};
use crate::stack::registry::{LayerEntry, ParameterError, Parameters};
use crate::stack::slots::MatrixSlot;
use crate::time::Time;
use crate::view::{Address, Member, View};

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "MBRSHIP",
        about: "views and virtual synchrony",
        requires: Properties::of(&[
            Property::FifoUnicast,
            Property::FifoMulticast,
            Property::Stability,
            Property::Suspicion,
        ]),
        provides: Properties::of(&[
            Property::SemiSynchronous,
            Property::VirtuallySynchronous,
            Property::ConsistentViews,
            Property::AutomaticMerging,
        ]),
        destroys: Properties::NONE,
        cost: 9,
        parameters: &[
            ("block", "yes: a flush waits until the application says block_ok (default no: casts queue)"),
            (
                "flush_ms",
                "a member that holds up a flush and takes nothing in for so long is taken for failed, or by who waits for it for a \
                 quarter of it, in milliseconds (default 200); as long as it takes in more and more of what there is, or with \
                 block casts what waits, 20 times as long",
            ),
            (
                "merge_ms",
                "how long to wait for another view to let this one in, in milliseconds (default 100); twice as long after each \
                 that did not in time, at most eight times, and that one is not asked again for twice as long; so long one that \
                 refused for a reason that lasts is not asked again; one that says that its view is about to end is waited for \
                 on, eight times as long in all, and by who is alone for 20 times flush_ms more",
            ),
            ("gather_us", "how long to wait for more that want in, in microseconds (default 2000)"),
            (
                "probe_ms",
                "how long after the start others are looked for, in milliseconds; then at doubling intervals (default 4)",
            ),
            ("probe_most_ms", "the longest interval between such looks, in milliseconds (default 200)"),
            (
                "senior_ms",
                "for how long a member must have been in its views to count before their sizes where two meet, in milliseconds \
                 (default 1000): the one with more such members keeps its state",
            ),
            #[cfg(feature = "laboratory")]
            ("broken", "wrong on purpose, for the museum: which way (default no)"),
        ],
        make: |parameters| Ok(Box::new(Mbrship::new(parameters)?)),
    }
}

/// Views that are remembered, to answer those who are still in them.
const PAST_MAX: usize = 64;
/// Former members that are remembered, to be found again after a partition.
const FORMER_MAX: usize = 256;
/// A request to be let in is repeated so often.
const MERGE_REPEAT: Duration = Duration::from_millis(5);
/// A host is waited for, and one that has denied is left alone, for at most `merge_ms` shifted left by this.
const PATIENCE_SHIFT_MAX: u32 = 3;
/// Hosts that have denied, and guests at addresses of others, that are remembered.
const DENIALS_MAX: usize = 64;
/// For so long a process that asks from the address of a member may be that process in its next life, while the others still
/// believe in the one before.
const OUSTER_PATIENCE: Duration = Duration::from_secs(1);
/// Who was let in and never heard is let in again at once the first time. How long ago that may be to count as one time more.
const UNHEARD_PATIENCE: Duration = Duration::from_secs(2);
/// A guest that has not repeated its request for so long has given up.
const GUEST_PATIENCE: Duration = Duration::from_millis(20);
/// What is said to a process so soon after a pause of its own is about that pause.
const AWAY: Duration = Duration::from_millis(100);
/// Who asks from a past view is answered at most so often.
const ANSWER_PAUSE: Duration = Duration::from_millis(1);
/// A member is asked whether it is in this view still at most so often at first, and then at doubling intervals.
const INQUIRY_PAUSE_MIN: Duration = Duration::from_millis(2);
const INQUIRY_PAUSE_MAX: Duration = Duration::from_millis(64);

#[derive(Clone)]
struct Mbrship {
    options: Options,
    handles: Option<Handles>,
    /// By rank: how many members of a view it has room for; of this one, what the others were told.
    room: Vec<u16>,
    /// The highest view counter heard of.
    counter: u64,
    /// Out of this view for good.
    failed: RankSet,
    /// By rank: who has found out that it has failed, and how; of those that have.
    charges: Vec<Charge>,
    /// Want to be out of the next.
    leaving: RankSet,
    /// Somebody's numbers run out.
    renew: bool,
    renew_asked: bool,
    /// The flush this member takes part in.
    promise: Option<Promise>,
    /// When whoever holds it up has done so for too long.
    watch_due: Time,
    /// Proposals whose cut this member has confirmed, the latest last.
    confirmed: Vec<ViewId>,
    /// By the same order: who was out of the view when this member reported for the proposal.
    confirmed_without: Vec<RankSet>,
    /// The flush this member leads.
    proposal: Option<Proposal>,
    blocked: bool,
    block_ok: bool,
    /// It has been told that this is waited for.
    reminded: bool,
    /// Nothing more of this view is issued.
    stopped: bool,
    /// By peer: number of sends when casting stopped.
    sent: Vec<u64>,
    /// The next view is decided, or this member is out.
    over: bool,
    /// By peer: what is still to be sent.
    unsaid: Vec<Unsaid>,
    /// By origin: parts of a long message.
    parts: Vec<Vec<u8>>,
    /// Views that want to be let into the next one, and when that begins.
    guests: Vec<Guest>,
    guests_due: Time,
    /// The view that this one wants to be let into.
    host: Option<Host>,
    /// Views that it would like to be let into, and that have not said yet whether they would.
    sought: Vec<Sought>,
    probe_wait: Duration,
    answered: Vec<(Incarnation, Time)>,
    /// When this process had not run for a while, last.
    paused: Option<Time>,
    /// By rank.
    inquiries: Vec<Inquiry>,
    legacy: Legacy,
    /// What all members of a view must have the same, in words: the stack and its windows.
    terms: String,
}

#[derive(Clone, Copy)]
struct Options {
    block: bool,
    flush: Duration,
    merge: Duration,
    gather: Duration,
    probe: Duration,
    probe_most: Duration,
    senior: Duration,
    broken: Broken,
}

#[derive(Clone, Copy)]
struct Handles {
    casts_wait: Guard,
    sends_wait: Guard,
    acked: MatrixSlot,
    held: MatrixSlot,
    watch: TimerId,
    merge: TimerId,
    gather: TimerId,
    probe: TimerId,
}

/// What a member has agreed to.
#[derive(Clone)]
struct Promise {
    proposal: ViewId,
    by: Rank,
    /// What came early has gone to the layers since.
    settled: bool,
    reported: bool,
    /// When it was made, or the cut was told: what follows is waited for since.
    since: Time,
    looked: Looked,
    /// Who was out of the view then.
    without: RankSet,
    cut: Option<Rc<Cut>>,
}

/// How far a member that cannot report yet has looked for whoever holds it up: those that have not taken in at the
/// second look what there was at the first.
#[derive(Clone, Debug)]
enum Looked {
    Never,
    /// This member's casts there were then, its sends by peer, and what each peer had taken in.
    Once {
        casts: u64,
        sends: Vec<u64>,
        taken: Vec<u64>,
    },
    /// What all had taken in then.
    Twice {
        taken: u64,
    },
}

/// What a coordinator has proposed.
#[derive(Clone)]
struct Proposal {
    id: ViewId,
    failed: RankSet,
    /// By rank: what it holds, once reported.
    held: Vec<Option<Vec<u64>>>,
    /// By rank: the longest frame that it can take, once reported.
    frame_bytes: Vec<u32>,
    /// By rank: what it had taken in when this coordinator looked for who is slow, last.
    taken: Vec<u64>,
    cut: Option<Rc<Cut>>,
    /// Who has confirmed the cut.
    done: RankSet,
}

impl Proposal {
    /// The longest frame that all of these can take.
    fn frame_bytes(&self, ranks: RankSet) -> u32 {
        ranks.iter().map(|rank| self.frame_bytes[rank.index()]).min().unwrap_or(0)
    }
}

/// A view that wants in.
#[derive(Clone)]
struct Guest {
    proposal: ViewId,
    /// The highest counter its members have seen.
    counter: u64,
    members: Vec<Member>,
    /// The longest frame that all of them can take, and how many members of a view they have room for.
    frame_bytes: u32,
    members_max: u16,
    /// When it asked last: whoever has given up is not waited for.
    asked: Time,
}

/// A greater view, which may not hear this one.
#[derive(Clone)]
struct Sought {
    coordinator: Member,
    weight: Weight,
    /// It is asked for so long.
    until: Time,
    /// It has said that it would let this one in.
    token: Option<u64>,
}

/// A view that has said that it would let this one in.
#[derive(Clone)]
struct Host {
    coordinator: Member,
    /// It is waited for until then, and no longer than this even if it says again and again that it is about to let this view in.
    until: Time,
    latest: Time,
    /// Shows that it has answered.
    token: u64,
}

/// A host that has denied a merge: every try flushes the view.
#[derive(Clone)]
struct Denial {
    by: Incarnation,
    /// One after the other, for reasons as much in earnest as the last.
    times: u32,
    refusal: Refusal,
    /// It is not asked again before.
    until: Time,
}

/// An address from which somebody came into a view and was not heard there by everybody: frames may pass one way only.
#[derive(Clone)]
struct Unheard {
    address: Address,
    /// One after the other.
    times: u32,
    /// It is not let in again before.
    until: Time,
}

/// Whether a member is in this view still was asked.
#[derive(Clone, Copy)]
struct Inquiry {
    /// It is not asked again before, and after that not for so long.
    next: Time,
    pause: Duration,
}

impl Inquiry {
    const NEVER: Inquiry = Inquiry { next: Time::ZERO, pause: INQUIRY_PAUSE_MIN };
}

/// A member of past views that is not in this one.
#[derive(Clone)]
struct Former {
    member: Member,
    /// Who has found it failed, or has led the group on without it, and why.
    accuser: Incarnation,
    kind: Option<GroundsKind>,
    /// Half of the last view that it was in, or more, have gone on without it; or it has seen to that itself.
    by_most: bool,
    /// It is looked for: it did not ask to leave.
    is_missed: bool,
}

/// What the next view's layer must know.
#[derive(Clone, Default)]
struct Legacy {
    /// Views this process was in, the latest last.
    past: Vec<ViewId>,
    /// The proposal that ended the last of them.
    proposal: Option<ViewId>,
    /// To be found again.
    former: Vec<Former>,
    /// Members of this view that were not in the one before.
    fresh: Vec<Incarnation>,
    /// Members of the one before that are to be told that they are out.
    left_out: Vec<Incarnation>,
    unheard: Vec<Unheard>,
    /// Those that were expelled, and how long they were waited for.
    expelled: Vec<(Incarnation, Duration)>,
    /// The members of this view, and since when this one has known them.
    known_since: Vec<(Incarnation, Time)>,
    /// Those that this member has let into this view.
    let_in: Vec<Guest>,
    /// Members that had room for so many members only, when last heard.
    rooms: Vec<(Incarnation, u16)>,
    /// Hosts that did not answer in time since one did, or let in or was let in.
    given_up: u32,
    /// Hosts that have denied a merge.
    denials: Vec<Denial>,
    /// Who has asked from the address of a member, and since when.
    ousters: Vec<(Incarnation, Time)>,
    complaints: Complaints,
    counter: u64,
    leave: bool,
    /// When others are looked for next: views may follow each other faster than that.
    probe_due: Option<Time>,
}

impl Mbrship {
    fn new(parameters: &Parameters) -> Result<Mbrship, ParameterError> {
        let millis =
            |name, default| parameters.number(name, default, 1..=3_600_000).map(Duration::from_millis);
        let probe = millis("probe_ms", 4)?;
        let options = Options {
            block: parameters.choice("block", &["no", "yes"])? == "yes",
            flush: millis("flush_ms", 200)?,
            merge: millis("merge_ms", 100)?,
            gather: Duration::from_micros(parameters.number("gather_us", 2000, 0..=10_000_000)?),
            probe,
            probe_most: parameters
                .longest(("probe_most_ms", millis("probe_most_ms", 200)?), ("probe_ms", probe))?,
            senior: millis("senior_ms", 1000)?,
            broken: Broken::of(parameters)?,
        };
        Ok(Mbrship {
            options,
            handles: None,
            room: Vec::new(),
            counter: 0,
            failed: RankSet::EMPTY,
            charges: Vec::new(),
            leaving: RankSet::EMPTY,
            renew: false,
            renew_asked: false,
            promise: None,
            watch_due: Time::NEVER,
            confirmed: Vec::new(),
            confirmed_without: Vec::new(),
            proposal: None,
            blocked: false,
            block_ok: false,
            reminded: false,
            stopped: false,
            sent: Vec::new(),
            over: false,
            unsaid: Vec::new(),
            parts: Vec::new(),
            guests: Vec::new(),
            guests_due: Time::NEVER,
            host: None,
            sought: Vec::new(),
            probe_wait: probe,
            answered: Vec::new(),
            paused: None,
            inquiries: Vec::new(),
            legacy: Legacy::default(),
            terms: String::new(),
        })
    }

    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }

    /// Members that are not out of this view.
    fn live(&self, context: &Context<'_>) -> RankSet {
        RankSet::all(context.view().size()).without(self.failed)
    }

    fn live_others(&self, context: &Context<'_>) -> RankSet {
        let mut live = self.live(context);
        live.remove(context.rank());
        live
    }

    /// Those of them that do not want to be out.
    fn staying(&self, context: &Context<'_>) -> RankSet {
        self.live(context).without(self.leaving)
    }

    /// The lowest of the live.
    fn coordinator(&self, context: &Context<'_>) -> Rank {
        self.live(context).iter().next().unwrap_or(context.rank())
    }

    fn coordinates(&self, context: &Context<'_>) -> bool {
        self.coordinator(context) == context.rank()
    }

    /// Whether somebody else may have got as far as this id.
    fn is_plausible(&self, latest: Option<ViewId>) -> bool {
        latest.is_none_or(|id| is_plausible(id, self.counter))
    }

    /// Whether a view of `id` may follow this one.
    fn may_follow(&self, context: &Context<'_>, view: &View) -> bool {
        let current = context.view().view();
        let frames = view.frame_bytes == 0 || view.frame_bytes >= context.frame_bytes_least();
        let fits = view.members.len() <= MEMBERS_MAX;
        view.group == current.group && view.id > current.id && fits && frames
    }

    /// The next view is decided.
    fn install(&mut self, context: &mut Context<'_>, proposal: ViewId, view: View) {
        let current = context.view().view().clone();
        self.over = true;
        self.proposal = None;
        let Handles { watch, merge, gather, probe, .. } = self.handles();
        [watch, merge, gather, probe].into_iter().for_each(|timer| context.disarm(timer));
        context.down(Down::Over);
        let goes_on =
            |member: &Member| view.members.iter().any(|next| next.incarnation == member.incarnation);
        if !goes_on(context.view().member(context.rank())) {
            let by = self.promise.as_ref().map_or(context.rank(), |promise| promise.by);
            context.exit(match self.legacy.leave {
                true => ExitReason::Left,
                false => ExitReason::Excluded { by, view: view.id, accuser: None, kind: None },
            });
            return;
        }
        // Those who took part in what was decided, whomever this member has come to suspect since.
        let decided = self.confirmed.iter().zip(&self.confirmed_without).rev();
        let without =
            decided.into_iter().find(|(id, _)| **id == proposal).map_or(self.failed, |(_, out)| *out);
        let without = if self.is(Broken::LeavesOutTheSuspected) { self.failed } else { without };
        let part = RankSet::all(context.view().size()).without(without);
        let together = part.iter().filter(|rank| goes_on(context.view().member(*rank))).collect();
        let gone = current.members.iter().enumerate().filter(|(_, member)| !goes_on(member));
        let former = gone.map(|(rank, member)| {
            let charge = Some(self.charges[rank]).filter(|_| self.failed.contains(Rank::at(rank)));
            let accuser = charge.map_or(proposal.coordinator, |charge| {
                current.members.get(charge.by.index()).map_or(proposal.coordinator, |by| by.incarnation)
            });
            let by_most = part.len() * 2 >= current.members.len() || part.contains(Rank::at(rank));
            let kind = charge.and_then(|charge| charge.kind);
            let is_missed = !self.leaving.contains(Rank::at(rank));
            Former { member: member.clone(), accuser, kind, by_most, is_missed }
        });
        // Nor is anybody to be found where another process is now.
        let is_there = |former: &Member| {
            let takes_its_place =
                |next: &Member| next.incarnation == former.incarnation || next.address == former.address;
            view.members.iter().any(takes_its_place)
        };
        self.legacy.former.retain(|former| !is_there(&former.member));
        if !self.options.broken.is(Broken::ForgetsTheFormer) {
            self.legacy.former.extend(former);
        }
        let excess = self.legacy.former.len().saturating_sub(FORMER_MAX);
        self.legacy.former.drain(..excess);
        self.legacy.past.push(current.id);
        let excess = self.legacy.past.len().saturating_sub(PAST_MAX);
        self.legacy.past.drain(..excess);
        self.legacy.proposal = Some(proposal);
        self.legacy.left_out = self.to_be_told(context, proposal, part);
        self.legacy.let_in.clear();
        self.leave_rooms(context, &view);
        let is_fresh =
            |member: &&Member| current.members.iter().all(|old| old.incarnation != member.incarnation);
        self.legacy.fresh = view.members.iter().filter(is_fresh).map(|member| member.incarnation).collect();
        self.legacy.counter = self.counter.max(view.id.counter);
        let guest = proposal.coordinator != view.id.coordinator;
        // Views have found together, whichever was the host.
        if guest || !self.legacy.fresh.is_empty() {
            self.legacy.given_up = 0;
        }
        if guest {
            self.legacy.denials.clear();
        }
        for peer in self.failed.iter() {
            let acknowledged = context.pair(self.handles().acked, peer, context.rank());
            if acknowledged < self.sent[peer.index()] && !self.is(Broken::TellsNoLoss) {
                let reason = "sends to it were not acknowledged when it failed";
                context.up(Up::LostMessage { origin: peer, reason });
            }
        }
        context.up(Up::NextView(Rc::new(NextView { view, together, survivors: part, guest })));
    }

    /// Who is told, unasked, that it is out of the view that follows: whoever failed, if this member has led the others on
    /// without it and they are most of the view. A lesser part may be the one that has failed, and who does not hear the others
    /// would send them all away; it answers those that it hears.
    fn to_be_told(&self, context: &Context<'_>, proposal: ViewId, part: RankSet) -> Vec<Incarnation> {
        let member = |rank| context.view().member(rank).incarnation;
        if member(context.rank()) != proposal.coordinator || part.len() * 2 <= context.view().size() {
            return Vec::new();
        }
        self.failed.iter().map(member).collect()
    }

    /// Whether this member has used most of the view's numbers for its casts, or for its sends to somebody, or has too
    /// few left for a message larger than a frame.
    fn numbers_run_out(&self, context: &Context<'_>) -> bool {
        let (casts, sends) = (context.frame_number_limit(), context.send_number_limit());
        context.view_wanted()
            || context.next_frame_number() >= casts - casts / 8
            || context.view().others().any(|peer| context.next_send_number(peer) >= sends - sends / 8)
    }

    /// This process wants out.
    fn leave(&mut self, context: &mut Context<'_>) {
        self.legacy.leave = true;
        self.block_ok |= self.blocked;
        if self.over {
            return;
        }
        self.say_leave(context);
        self.reconsider(context);
    }

    fn say_leave(&mut self, context: &mut Context<'_>) {
        self.leaving.insert(context.rank());
        if !self.is(Broken::LeavesUntold) {
            let others = self.live_others(context);
            self.say(context, others, &Inside::Leave);
        }
    }
}

impl Layer for Mbrship {
    fn name(&self) -> &'static str {
        "MBRSHIP"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        let members = build.view().size();
        self.counter = build.view().view().id.counter;
        self.terms = build.terms();
        self.room = vec![MEMBERS_MAX as u16; members];
        self.charges = vec![Charge { by: build.view().rank(), kind: None }; members];
        self.sent = vec![0; members];
        self.unsaid = vec![Unsaid::default(); members];
        self.parts = vec![Vec::new(); members];
        self.inquiries = vec![Inquiry::NEVER; members];
        self.handles = Some(Handles {
            casts_wait: build.guard(GuardKind::CastSend, "view change", Closes::Entry(HeldFor::ViewChange)),
            sends_wait: build.guard(GuardKind::SendSend, "view change", Closes::Entry(HeldFor::ViewChange)),
            acked: build.shared_matrix_slot(shared::ACKED),
            held: build.shared_matrix_slot(shared::HELD),
            watch: build.timer("watch"),
            merge: build.timer("merge"),
            gather: build.timer("gather"),
            probe: build.timer("probe"),
        });
    }

    fn start(&mut self, context: &mut Context<'_>) {
        self.counter = self.counter.max(self.legacy.counter);
        self.get_to_know(context);
        for (incarnation, members) in std::mem::take(&mut self.legacy.rooms) {
            // This one says itself what it has, to those that are new too.
            let known = context.view().rank_of(incarnation).filter(|rank| *rank != context.rank());
            known.into_iter().for_each(|rank| self.room[rank.index()] = members);
        }
        if !self.legacy.past.is_empty() {
            self.probe_wait = self.options.probe * 4;
        }
        let neighbours = context.neighbours();
        let misses = self.legacy.former.iter().any(|former| former.is_missed);
        if neighbours.discover || !neighbours.contacts.is_empty() || misses {
            let due = context.now() + self.probe_wait;
            let due = self.legacy.probe_due.map_or(due, |before| before.min(due));
            self.legacy.probe_due = Some(due);
            context.arm(self.handles().probe, due);
        }
        self.tell_the_left_out(context);
        if self.legacy.leave {
            self.say_leave(context);
            // Not at once: the application is told of the view before it is told that this view ends.
            context.arm(self.handles().gather, context.now());
        }
    }

    fn bequeath(&mut self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.legacy.clone()))
    }

    fn inherit(&mut self, legacy: Box<dyn Any>) {
        if let Ok(legacy) = legacy.downcast::<Legacy>() {
            self.legacy = *legacy;
        }
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING
    }

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        match event {
            Down::Leave => self.leave(context),
            Down::FlushOk => {
                self.block_ok = self.blocked;
                self.progress(context);
            }
            event => context.down(event),
        }
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        match event {
            Up::Suspect(suspicions) => {
                self.suspected(context, &suspicions);
                self.reconsider(context);
                self.progress(context);
            }
            Up::Outside(letter) => match Beyond::decode(&letter.body) {
                Ok(_) if self.over => {}
                Ok(message) if !self.is_plausible(message.latest().max(Some(letter.view))) => {
                    context.count("letter that does not decode");
                }
                Ok(message) if self.is_ours(context, &letter) => {
                    self.heard(context, letter.origin, letter.view, message);
                }
                Ok(message) => self.heard_abroad(context, &letter, message),
                Err(_) => context.count("letter that does not decode"),
            },
            Up::Stranger { origin, view } => self.stranger(context, origin, view),
            Up::Paused(lasting) => {
                context.up(event);
                self.paused = Some(context.now());
                self.excuse_pause(context, lasting);
                // Whatever was answered is older.
                self.inquiries.fill(Inquiry::NEVER);
                self.inquire(context, context.view().others().collect());
            }
            Up::Doubt(ranks) => self.inquire(context, ranks),
            Up::Slow(slow) => self.slow(context, slow),
            event => context.up(event),
        }
    }

    fn control(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        let Some(message) = self.whole(context, origin, message.list.payload()) else { return };
        if self.over || self.failed.contains(origin) {
            context.count("membership message out of time");
            return;
        }
        match message {
            Inside::Flush { proposal, failed, charges } => {
                self.flush(context, origin, proposal, failed, &charges);
            }
            Inside::FlushOk { proposal, failed, charges, frame_bytes, held } => {
                self.flush_ok(context, origin, proposal, (failed, &charges), frame_bytes, held);
            }
            Inside::HeldUp { proposal, by } => self.held_up(context, origin, proposal, by),
            Inside::Behind { promised } => self.behind(context, promised),
            Inside::Cut { proposal, frames, holders } => {
                self.cut(context, origin, proposal, Cut { frames, holders });
            }
            Inside::CutOk { proposal } => self.cut_ok(context, origin, proposal),
            Inside::View { proposal, view } => self.view(context, Some(origin), proposal, view),
            Inside::Leave => {
                if !self.leaving.contains(origin) {
                    self.leaving.insert(origin);
                    context.up(Up::Leave(origin));
                }
                self.reconsider(context);
            }
            Inside::Renew => {
                self.renew = true;
                self.reconsider(context);
            }
            Inside::Room { members } => self.room[origin.index()] = members,
            Inside::Expelled { member, why, lasting } => {
                self.told_expelled(context, origin, member, why, lasting);
            }
        }
        if !self.over {
            self.progress(context);
        }
    }

    fn timer(&mut self, context: &mut Context<'_>, timer: TimerId) {
        let Handles { watch, merge, gather, .. } = self.handles();
        if self.over {
            return;
        }
        if timer == watch {
            self.too_slow(context);
        } else if timer == merge {
            self.ask_host(context);
        } else if timer == gather {
            self.reconsider(context);
        } else {
            self.probe(context);
        }
        self.progress(context);
    }

    fn post(&mut self, context: &mut Context<'_>) {
        self.say_on(context);
        if self.over {
            return;
        }
        self.say_room(context);
        if let Some(promise) = &mut self.promise {
            promise.settled = true;
            self.progress(context);
        }
        if !self.renew_asked && self.numbers_run_out(context) {
            self.renew_asked = true;
            let others = self.live_others(context);
            self.say(context, others, &Inside::Renew);
            self.renew = true;
            self.reconsider(context);
        }
    }

    fn common_case(&self, _kind: Kind, _case: &mut CommonCase<'_>) -> Fast {
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, digest: &mut Hasher64) {
        for ranks in [self.failed, self.leaving] {
            ranks.words().into_iter().for_each(|word| digest.word(word));
        }
        digest.word(self.counter);
        digest.word(u64::from(self.blocked) | u64::from(self.over) << 1);
        digest.word(self.promise.as_ref().map_or(0, |promise| promise.proposal.counter));
    }

    fn time_outs(&self) -> Vec<(&'static str, Duration)> {
        vec![
            ("flush", self.options.flush),
            ("merge", self.options.merge),
            ("gather", self.options.gather),
            ("probe", self.options.probe),
            ("probe_most", self.options.probe_most),
            ("senior", self.options.senior),
            ("each look for who holds a flush up", self.looks_patience()),
            ("wait for who goes on in a view change", self.progress_patience()),
            ("wait for a coordinator", self.coordinator_patience()),
            ("wait for a host", self.host_patience()),
            ("ask a host again", MERGE_REPEAT),
            ("forget a guest", GUEST_PATIENCE),
            ("next probe", self.probe_wait),
            ("between answers", ANSWER_PAUSE),
            ("counts as away after a pause of its own", AWAY),
            ("between inquiries", INQUIRY_PAUSE_MIN),
            ("between inquiries at most", INQUIRY_PAUSE_MAX),
            ("a member's next life at its address is not now", OUSTER_PATIENCE),
            ("who was never heard is let in again without delay after", UNHEARD_PATIENCE),
        ]
    }

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let view = context.view().view();
        let state = match (&self.promise, &self.host) {
            _ if self.over => "over".to_owned(),
            (None, _) => "steady".to_owned(),
            (Some(promise), Some(host)) => {
                format!("flushing for {}, to merge with {}", promise.proposal, host.coordinator.address)
            }
            (Some(promise), None) => {
                let step = match &promise.cut {
                    Some(_) => "the cut is known",
                    None if promise.reported => "has reported",
                    None => "has not reported yet",
                };
                format!("flushing for {} of member {} ({step})", promise.proposal, promise.by)
            }
        };
        Some(format!(
            "view {} of {}, coordinator {}, failed {:?}, leaving {:?}; {state}",
            view.id,
            view.members.len(),
            self.coordinator(context),
            self.failed,
            self.leaving
        ))
    }
}
