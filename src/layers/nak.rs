//! NAK: reliable FIFO multicast by negative acknowledgement.
//!
//! | | |
//! |---|---|
//! | requires | P1 best effort, P10 byte-reorder detection, P11 source address, P17 integrity |
//! | provides | P4 reliable FIFO multicast |
//! | promises | every cast of a live member arrives at every live member once and in order, the last one before a silence included |
//! | costs | 40 bits of frame number per cast, 16 bits of gossip; own frames are retained until all others hold them |
//!
//! NAK gives every cast its frame number (design D7). A receiver that sees a gap parks what came early and asks the
//! origin for the missing numbers, again and again at growing intervals. Receivers report how much they hold (gossip
//! `held`, which tells every member's frame counts too); a member whose last casts are not acknowledged reports and asks
//! for reports, at growing intervals, until they are: that cures the loss of the last message. A quiet group whose
//! casts are all acknowledged is silent.
//!
//! What a member resends is bounded over all that ask it: `repair_frames` in each `repair_us`, and a quarter of what it casts
//! meanwhile. Nobody gets all of it: whoever is put off asks again.
//!
//! ```text
//! A ── 7 ──▶ B        A ── 8 ──x        A ── 9 ──▶ B  (9 parked)
//!                     A ◀── missing 8 ── B
//!                     A ── 8 ──▶ B      (8, 9 go up)
//! A ── held: A 10 (please report) ──▶ B      B ── held: A 10 ──▶ A      (A lets go of 7 to 9)
//! ```
//!
//! After the NAK layer of Horus (van Renesse et al., 1996) and Ensemble's `mnak` (Hayden, 1998).

use std::collections::BTreeMap;
use std::time::Duration;

use super::mistake::Mistake;
use crate::accel::case::{CommonCase, Target};
use crate::id::{Hasher64, Rank, RankSet};
use crate::stack::backoff::Backoff;
use crate::stack::build::{
    Build, Closes, Field, Gossip, GossipSource, Guard, GuardKind, HeldFor, TimerId, shared,
};
use crate::stack::event::{Cut, Down, Message, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer, Look, Posts};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::{LayerEntry, ParameterError, Parameters};
use crate::stack::slots::{MatrixSlot, MemberSlot, Slot};
use crate::time::Time;
use crate::wire::Traffic;
use crate::wire::control::{MISSING_RANGES_MAX, Missing};

/// So often and for so long the same cast is sent again to the same member before it is told: no loss by chance lasts as
/// long, and a member that has failed is excluded before.
const VAIN_TIMES: u32 = 30;
const VAIN_LASTING: Duration = Duration::from_millis(1500);

/// Bits of a frame number: at ten million frames a second, a view lasts thirty hours.
const NUMBER_BITS: u32 = 40;
/// The most frames asked for, and resent, at once.
const REPAIR_FRAMES_MAX: u64 = 64;
/// Of what is cast, one frame of that many may be resent beside what is always allowed.
const REPAIR_SHARE: u64 = 4;
/// What was not resent for so many intervals is allowed later, at once.
const SAVED_INTERVALS: u64 = 4;

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "NAK",
        about: "reliable FIFO multicast by negative acknowledgement",
        requires: Properties::of(&[
            Property::BestEffort,
            Property::ByteReorderDetection,
            Property::SourceAddress,
            Property::Integrity,
        ]),
        provides: Properties::of(&[Property::FifoMulticast]),
        destroys: Properties::NONE,
        cost: 2,
        parameters: &[
            (
                "window",
                "own casts that may be unacknowledged, in frames (default: the endpoint's window_frames)",
            ),
            ("repair_us", "how long a gap may last before it is asked for, in microseconds (default 200)"),
            (
                "repair_frames",
                "frames that are resent in each repair_us, to all who ask together, beside a quarter of what is cast \
                 meanwhile (default 64)",
            ),
            (
                "status_us",
                "how long after an unacknowledged cast reports are asked for, in microseconds (default 1000)",
            ),
            ("backoff_us", "the longest interval between repetitions, in microseconds (default 50000)"),
            #[cfg(feature = "laboratory")]
            ("broken", "wrong on purpose, for the museum: which way (default no)"),
        ],
        make: |parameters| Ok(Box::new(Nak::new(parameters)?)),
    }
}

#[derive(Clone)]
struct Nak {
    mistake: Mistake,
    window: u64,
    /// How long a gap may last before it is asked for, and the longest interval between repetitions.
    repair: Duration,
    longest: Duration,
    allowance: Allowance,
    handles: Option<Handles>,
    /// By origin: what came early, by number.
    parked: Vec<BTreeMap<u64, Message>>,
    /// By origin: when its gap is looked at next, and what was expected when it was last. Each has a due time of its own:
    /// one that never answers must not put off the others.
    repairs: Vec<Backoff>,
    repair_at: Vec<u64>,
    /// By origin: no frame of this number or above is accepted; and who is asked for what is missing.
    ceiling: Vec<u64>,
    holder: Vec<Rank>,
    /// When reports are asked for, and what was acknowledged by all when there was progress last.
    status: Backoff,
    status_at: u64,
    /// By who asked: the cast that is asked for first, and since when it is sent again in vain.
    vain: Vec<Vain>,
}

/// A cast that somebody asks for again and again.
#[derive(Clone, Copy, Default)]
struct Vain {
    origin: Rank,
    number: u64,
    since: Time,
    times: u32,
    /// It is told once of each member.
    told: bool,
}

impl Vain {
    /// That cast is sent again. Whether that has been in vain so often and for so long that it is to be told.
    fn sent(&mut self, origin: Rank, number: u64, now: Time) -> bool {
        if self.times == 0 || (self.origin, self.number) != (origin, number) {
            *self = Vain { origin, number, since: now, times: 0, told: self.told };
        }
        self.times = self.times.saturating_add(1);
        let tell = !self.told && self.times > VAIN_TIMES && now.since(self.since) > VAIN_LASTING;
        self.told |= tell;
        tell
    }
}

/// How many frames may be resent.
#[derive(Clone, Copy)]
struct Allowance {
    /// In each interval.
    frames: u64,
    /// By now; and what has been counted: time, and own casts.
    left: u64,
    since: Time,
    casts: u64,
}

impl Allowance {
    /// What is left at `now`, when so many casts have been made.
    fn at(&mut self, now: Time, interval: Duration, casts: u64) -> u64 {
        let intervals = (now.since(self.since).as_nanos() / interval.as_nanos()) as u64;
        let most = SAVED_INTERVALS * self.frames;
        let share = casts.saturating_sub(self.casts) / REPAIR_SHARE;
        self.casts += share * REPAIR_SHARE;
        self.left =
            self.left.saturating_add(intervals.saturating_mul(self.frames)).saturating_add(share).min(most);
        self.since = if self.left == most { now } else { self.since + interval * intervals as u32 };
        self.left
    }
}

#[derive(Clone, Copy)]
struct Handles {
    number: Field,
    held: MatrixSlot,
    out_of_turn: MemberSlot,
    gossip: Gossip,
    /// Own frame number at which the window closes.
    window_limit: Slot,
    /// Own frame number at which the view's numbers are used up.
    number_limit: Slot,
    window_closed: Guard,
    numbers_used: Guard,
    gap: Guard,
    /// What is accepted of the origin has an end, as it has failed or the view ends: the layers look at every frame of it.
    ends: Guard,
    repair: TimerId,
    status: TimerId,
}

impl Nak {
    fn new(parameters: &Parameters) -> Result<Nak, ParameterError> {
        let micros =
            |name, default, most| parameters.number(name, default, 1..=most).map(Duration::from_micros);
        let longest = micros("backoff_us", 50_000, 10_000_000)?;
        Ok(Nak {
            mistake: Mistake::of(parameters)?,
            // Zero stands for the endpoint's.
            window: parameters.number("window", 0, 1..=crate::config::WINDOW_FRAMES_MAX)?,
            repair: micros("repair_us", 200, 1_000_000)?,
            longest,
            allowance: Allowance {
                frames: parameters.number("repair_frames", REPAIR_FRAMES_MAX, 1..=1 << 20)?,
                left: 0,
                since: Time::ZERO,
                casts: 0,
            },
            handles: None,
            parked: Vec::new(),
            repairs: Vec::new(),
            repair_at: Vec::new(),
            ceiling: Vec::new(),
            holder: Vec::new(),
            status: Backoff::new(micros("status_us", 1000, 10_000_000)?, longest),
            status_at: 0,
            vain: Vec::new(),
        })
    }

    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }

    /// Closes the guards whose limits the next number has reached.
    fn check_limits(&self, context: &mut Context<'_>) {
        let Handles { number, window_limit, number_limit, window_closed, numbers_used, .. } = self.handles();
        let own = context.rank();
        let next = context.sending(number, own);
        if next >= context.get(window_limit) {
            context.close(window_closed, own);
        }
        if next >= context.get(number_limit) {
            context.close(numbers_used, own);
        }
    }

    fn cast_arrived(&mut self, context: &mut Context<'_>, origin: Rank, message: Message) {
        let Handles { number, gap, out_of_turn, .. } = self.handles();
        let arrived = message.header.values[usize::from(number.index)];
        let expected = context.expected(number, origin);
        if arrived != expected {
            context.count_of(out_of_turn, origin);
        }
        if arrived < expected {
            context.count("duplicate");
        } else if arrived >= self.ceiling[origin.index()] && arrived == expected {
            // It may belong to the view yet: the cut will tell.
            self.parked[origin.index()].insert(arrived, message);
        } else if arrived > expected {
            if arrived - expected >= self.window {
                context.count("beyond the window");
                return;
            }
            let parked = &mut self.parked[origin.index()];
            if parked.insert(arrived, message).is_some() {
                context.count("duplicate");
            }
            context.close(gap, origin);
            self.look_later(context, origin);
        } else {
            // What a plan does must not differ: without a gap, waits are reset by post-processing.
            if !self.parked[origin.index()].is_empty() {
                self.repairs[origin.index()].reset();
            }
            self.accept(context, origin, message);
            self.accept_parked(context, origin);
        }
    }

    /// Accepts what was parked and is in order now.
    fn accept_parked(&mut self, context: &mut Context<'_>, origin: Rank) {
        let Handles { number, gap, .. } = self.handles();
        while context.expected(number, origin) < self.ceiling[origin.index()] {
            let expected = context.expected(number, origin);
            let Some(next) = self.parked[origin.index()].remove(&expected) else { break };
            self.accept(context, origin, next);
        }
        if self.parked[origin.index()].is_empty() {
            context.open(gap, origin);
        }
    }

    /// These members have failed: nothing more of them is accepted until the cut.
    fn freeze(&mut self, context: &mut Context<'_>, failed: RankSet) {
        let Handles { number, ends, .. } = self.handles();
        let own = context.rank();
        for origin in failed.iter().filter(|origin| *origin != own) {
            let late = u64::from(self.mistake.is(Mistake::FreezesLate));
            self.ceiling[origin.index()] = context.expected(number, origin) + late;
            context.close(ends, origin);
        }
    }

    /// The frames of this view are known: what is missing is asked for where it is held.
    fn cut(&mut self, context: &mut Context<'_>, cut: &Cut) {
        let Handles { held, ends, .. } = self.handles();
        for origin in context.view().others() {
            let frames = cut.frames[origin.index()];
            let past = u64::from(self.mistake.is(Mistake::ReadsPastTheCut));
            self.ceiling[origin.index()] = frames + past;
            context.close(ends, origin);
            self.holder[origin.index()] = cut.holders[origin.index()];
            context.raise_pair(held, origin, origin, frames);
            self.accept_parked(context, origin);
            if self.lacks(context, origin) {
                self.repairs[origin.index()].reset();
                self.ask(context, origin);
                self.look_later(context, origin);
            }
        }
    }

    /// Looks at the gap of `origin` after its wait, unless that is settled already.
    fn look_later(&mut self, context: &mut Context<'_>, origin: Rank) {
        let repair = &mut self.repairs[origin.index()];
        if repair.due() == Time::NEVER {
            repair.begin(context.now());
            self.arm_repair(context);
        }
    }

    /// Sets the timer to the first gap that is due.
    fn arm_repair(&self, context: &mut Context<'_>) {
        context.arm_or_disarm(self.handles().repair, Backoff::first_due(&self.repairs));
    }

    fn accept(&self, context: &mut Context<'_>, origin: Rank, mut message: Message) {
        let number = self.handles().number;
        message.number = context.expected(number, origin);
        context.advance_expected(number, origin);
        context.up(Up::Cast(origin, message));
    }

    /// Whether casts of `origin` are known to be missing.
    fn lacks(&self, context: &Context<'_>, origin: Rank) -> bool {
        let Handles { number, held, .. } = self.handles();
        let known = context.pair(held, origin, origin).min(self.ceiling[origin.index()]);
        let expected = context.expected(number, origin);
        let told = known > expected && !self.mistake.is(Mistake::ForgetsTheTail);
        told || !self.parked[origin.index()].is_empty() && self.ceiling[origin.index()] > expected
    }

    /// The ranges to ask `origin` for, at most [`REPAIR_FRAMES_MAX`] frames.
    fn missing(&self, context: &Context<'_>, origin: Rank) -> Missing {
        let Handles { number, held, .. } = self.handles();
        let expected = context.expected(number, origin);
        let parked = &self.parked[origin.index()];
        let highest = parked.last_key_value().map_or(expected, |(last, _)| *last);
        let ceiling = self.ceiling[origin.index()];
        let (highest, told) = (highest.min(ceiling), context.pair(held, origin, origin).min(ceiling));
        let told = told.min(expected + self.window);
        let mut missing = Missing { origin: origin.0, ranges: Vec::with_capacity(MISSING_RANGES_MAX) };
        let mut at = expected;
        let mut left = REPAIR_FRAMES_MAX;
        let ends = parked.keys().copied().chain(std::iter::once(told.max(highest)));
        for end in ends.map(|end| end.min(ceiling)) {
            let count = end.saturating_sub(at).min(left);
            if count > 0 && missing.ranges.len() < MISSING_RANGES_MAX {
                missing.ranges.push((at, count as u16));
                left -= count;
            }
            at = at.max(end + 1);
        }
        missing
    }

    fn ask(&mut self, context: &mut Context<'_>, origin: Rank) {
        let missing = self.missing(context, origin);
        if missing.ranges.is_empty() {
            return;
        }
        let Ok(mut body) = context.control_frame() else {
            context.count("repair request without a frame");
            return;
        };
        let mut bytes = Vec::new();
        missing.encode(&mut bytes);
        body.extend(&bytes).expect("a request fits a frame");
        context.count("repair request");
        context.send_raw(RankSet::one(self.holder[origin.index()]), body);
    }

    /// Sends the asked-for casts again, or those of a member that cannot, to the one who asked.
    fn resend(&mut self, context: &mut Context<'_>, asker: Rank, missing: &Missing) {
        let (own, origin) = (context.rank(), Rank(missing.origin));
        let from_own = self.mistake.is(Mistake::AnswersFromItsOwn);
        let casts = context.sending(self.handles().number, own);
        let allowed = self.allowance.at(context.now(), self.repair, casts);
        // Others may ask in the same moment: half of it is theirs.
        let mut left = REPAIR_FRAMES_MAX.min(allowed.div_ceil(2));
        let first = missing.ranges.first().map(|(number, _)| *number);
        for (from, count) in &missing.ranges {
            for number in *from..from + u64::from(*count) {
                if left == 0 {
                    context.count("repair put off");
                    return;
                }
                left -= 1;
                self.allowance.left -= 1;
                let recalled = context.recall_cast(if from_own { own } else { origin }, number);
                if let Some(message) = &recalled
                    && first == Some(number)
                    && self.vain[asker.index()].sent(origin, number, context.now())
                {
                    let bytes = message.list.payload().len();
                    context.problem(
                        Some(asker),
                        nothing_arrives(bytes, &self.vain[asker.index()], context.now()),
                    );
                }
                match recalled {
                    Some(message) if origin == own => {
                        context.count("retransmission");
                        context.down(Down::Resend(RankSet::one(asker), message));
                    }
                    Some(message) => {
                        context.count("forwarding");
                        context.down(Down::Forward(RankSet::one(asker), origin, message));
                    }
                    None => context.count("repair request for what is not retained"),
                }
            }
        }
    }
}

/// What is told of a cast that does not arrive.
fn nothing_arrives(bytes: usize, vain: &Vain, now: Time) -> String {
    format!(
        "this member has asked {} times in {} ms for a cast of {bytes} bytes, which was sent again each time and does not \
         arrive; if shorter ones do, a way between takes no frames of that length and says nothing: set frame_bytes_max of \
         Config and of the transport to what `ping -M do -s BYTES ADDRESS` shows to pass",
        vain.times,
        now.since(vain.since).as_millis()
    )
}

impl Layer for Nak {
    fn name(&self) -> &'static str {
        "NAK"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.window = build.window(self.window, build.window_max(), "it is Config::window_frames");
        let members = build.view().size();
        self.parked = vec![BTreeMap::new(); members];
        self.repairs = vec![Backoff::new(self.repair, self.longest); members];
        self.vain = vec![Vain::default(); members];
        self.repair_at = vec![0; members];
        self.ceiling = vec![u64::MAX; members];
        self.holder = (0..members).map(Rank::at).collect();
        let number = build.number_field(Traffic::Cast, "number", NUMBER_BITS);
        let held = build.shared_matrix_slot(shared::HELD);
        let source = GossipSource::Accepted(number);
        self.handles = Some(Handles {
            number,
            held,
            out_of_turn: build.shared_member_slot(shared::OUT_OF_TURN),
            gossip: build.gossip("held", source, held, Some(Traffic::Cast), Some((self.window / 4).max(1))),
            window_limit: build.slot(),
            number_limit: build.slot(),
            window_closed: build.guard(
                GuardKind::CastSend,
                "window full",
                Closes::Entry(HeldFor::Acknowledgements),
            ),
            numbers_used: build.guard(
                GuardKind::CastSend,
                "frame numbers used up",
                Closes::Entry(HeldFor::Numbers),
            ),
            gap: build.guard(GuardKind::CastDeliver, "gap", Closes::FastPath),
            ends: build.guard(GuardKind::CastDeliver, "origin failed or view ends", Closes::FastPath),
            repair: build.timer("repair"),
            status: build.timer("status"),
        });
    }

    fn start(&mut self, context: &mut Context<'_>) {
        let Handles { window_limit, number_limit, .. } = self.handles();
        context.set(window_limit, self.window);
        context.set(number_limit, context.frame_number_limit());
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.down(&[Flow::Cast]).up(&[Flow::Cast])
    }

    fn down(&mut self, context: &mut Context<'_>, event: Down) {
        match event {
            Down::Cast(mut message) => {
                let number = self.handles().number;
                let own = context.rank();
                message.number = context.sending(number, own);
                message.header.values[usize::from(number.index)] = message.number;
                context.advance_sending(number, own);
                context.retain_cast(own, &message);
                self.check_limits(context);
                context.down(Down::Cast(message));
            }
            Down::Flush(failed) => {
                self.freeze(context, failed);
                context.down(Down::Flush(failed));
            }
            Down::Cut(cut) => {
                self.cut(context, &cut);
                context.down(Down::Cut(cut));
            }
            event => context.down(event),
        }
    }

    fn look_up(&mut self, _context: &mut Context<'_>, event: &Up) -> Look {
        if matches!(event, Up::Cast(..)) { Look::Takes } else { Look::Passes }
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        match event {
            Up::Cast(origin, message) => self.cast_arrived(context, origin, message),
            event => context.up(event),
        }
    }

    fn control(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        match Missing::decode(message.list.payload()) {
            Ok(missing) if usize::from(missing.origin) < context.view().size() => {
                self.resend(context, origin, &missing);
            }
            Ok(_) => context.count("repair request for no member's casts"),
            Err(_) => context.count("repair request that does not decode"),
        }
    }

    fn timer(&mut self, context: &mut Context<'_>, timer: TimerId) {
        let handles = self.handles();
        if timer == handles.status {
            context.gossip_now(true);
            self.status.repeat(context.now());
            context.arm(handles.status, self.status.due());
            return;
        }
        let number = handles.number;
        for origin in context.view().others() {
            if !self.repairs[origin.index()].take(context.now()) || !self.lacks(context, origin) {
                continue;
            }
            let expected = context.expected(number, origin);
            let moved = std::mem::replace(&mut self.repair_at[origin.index()], expected) != expected;
            let told = self.parked[origin.index()].is_empty();
            // A gap that only a report tells of may be none: the report may have overtaken the casts it counts. While
            // numbers still come, nothing is asked for.
            let hopeful = told && moved;
            if !hopeful {
                self.ask(context, origin);
            }
            let repair = &mut self.repairs[origin.index()];
            if hopeful {
                repair.reset();
                repair.begin(context.now());
            } else {
                repair.repeat(context.now());
            }
        }
        self.arm_repair(context);
    }

    fn posts(&self) -> Posts {
        Posts::EachMember
    }

    fn post_member(&mut self, context: &mut Context<'_>, origin: Rank) {
        if origin == context.rank() {
            return;
        }
        if self.lacks(context, origin) {
            self.look_later(context, origin);
        } else {
            self.repairs[origin.index()].settle();
        }
    }

    fn post(&mut self, context: &mut Context<'_>) {
        let Handles { number, held, window_limit, window_closed, status, .. } = self.handles();
        let own = context.rank();
        let sent = context.sending(number, own);
        let acknowledged = context.least_of_others(held, own).unwrap_or(sent).min(sent);
        context.trim_casts(own, acknowledged);
        context.set(window_limit, acknowledged + self.window);
        if sent < acknowledged + self.window {
            context.open(window_closed, own);
        }
        if acknowledged > self.status_at {
            self.status_at = acknowledged;
            self.status.settle();
        }
        if sent == acknowledged {
            self.status.settle();
        } else {
            self.status.begin(context.now());
        }
        context.arm_or_disarm(status, self.status.due());
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        let handles = self.handles();
        match kind {
            Kind::CastSend => {
                case.advance(handles.number);
                case.gossip(handles.gossip);
                case.retain();
                case.limit(handles.number, Target::Own(handles.window_limit), handles.window_closed);
                case.limit(handles.number, Target::Own(handles.number_limit), handles.numbers_used);
                Fast::Declared
            }
            Kind::CastDeliver => {
                case.advance(handles.number);
                case.gossip(handles.gossip);
                Fast::Declared
            }
            Kind::SelfDeliver | Kind::SendSend | Kind::SendDeliver => Fast::Transparent,
        }
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, digest: &mut Hasher64) {
        for parked in &self.parked {
            digest.word(parked.len() as u64);
            for number in parked.keys() {
                digest.word(*number);
            }
        }
        for (ceiling, holder) in self.ceiling.iter().zip(&self.holder) {
            digest.word(*ceiling);
            digest.word(u64::from(holder.0));
        }
        for (repair, at) in self.repairs.iter().zip(&self.repair_at) {
            repair.digest(digest);
            digest.word(*at);
        }
        self.status.digest(digest);
        digest.word(self.status_at);
        digest.word(self.allowance.left);
        for Vain { origin, number, since, times, told } in &self.vain {
            digest.word(*number);
            digest.word(since.as_nanos());
            digest.word(u64::from(origin.0) << 48 | u64::from(*times) << 1 | u64::from(*told));
        }
    }

    fn time_outs(&self) -> Vec<(&'static str, Duration)> {
        vec![("repair", self.repair), ("status", self.status.first()), ("backoff", self.longest)]
    }

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let handles = self.handles();
        let own = context.rank();
        let parked: usize = self.parked.iter().map(BTreeMap::len).sum();
        Some(format!(
            "sent {}, acknowledged by all {}, window {}, parked {parked}",
            context.sending(handles.number, own),
            context.retained_casts(own).start,
            self.window
        ))
    }
}
