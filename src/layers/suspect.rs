//! SUSPECT: who has failed, as far as silence can tell.
//!
//! | | |
//! |---|---|
//! | requires | P1 best effort, P11 source address |
//! | provides | P21 suspicion of failed members |
//! | promises | a member that is silent for longer than its time-out is suspected by all that can talk to each other; one that is heard is not |
//! | costs | no bits; a raw heartbeat when nothing was sent to all for a beat |
//!
//! Whatever comes from a member is a sign of life, also what waits below for something that is missing; who has sent nothing
//! to all others for a *beat*, neither a cast nor a row of gossip, sends a heartbeat. Silence is counted on the own clock of
//! *running time*: a process that did not run for a while has heard nobody, and must not blame them (pitfall 7). The
//! time-out follows the longest silence that was seen to end lately, where frames flow also in the view before, within two
//! bounds; that before a member is heard first in a view has a bound of its own, and does not count later. How long this
//! process had to wait for its own turn lately counts as such a silence, too: where processors are short they are short for
//! others. They are short when everybody casts, so the lower bound is higher for as long as frames flow. While this process has
//! not taken in all that has come, everybody's silence is excused, within a bound: what they said may be waiting. At half of the
//! time-out the silent one is asked directly (the second check); when it is over the member is suspected, for good in this
//! view, and heartbeats tell the others: so a link that works one way only does not leave two opinions (pitfall 8). A hint
//! that a process is gone shortens the time-out, it does not replace it. A hint that a member is ready to run and has no
//! processor excuses its silence, within a bound: it has not failed, and without it nobody would be better served. Who has
//! parted with this member (excluded it from the channel, or closed the channel and lives) is silent because it is in
//! another view: that is for the membership to ask, and its answer is waited for. The silent one is also asked outside the
//! view at the second check ([`Up::Doubt`]), for a medium may carry nothing else to who is in another.
//!
//! Who hears nothing accuses everybody, and is the one that has failed: it suspects all others at once, also those that it
//! has not heard yet in this view, when it has waited long enough for each of them, and goes alone. Who
//! does not hear some is not believed easily: a suspicion is taken over at once only of a member that has been silent here,
//! too, for half of its time-out. Of one that is heard it is taken over when its accuser has said so for the longest
//! time-out: by then a deaf accuser has accused this member as well. What an accuser of this member says of others counts
//! for nothing, and what it sends is no sign of life any more: it takes nothing of this member in for the rest of the view.
//!
//! ```text
//! A ◀── heartbeat ── C        A ◀── heartbeat ──x        (silence grows: 2, 3, 4 ms ...)
//!                             A ── are you there? ──▶ C      (at half of the time-out)
//! A ── heartbeat, suspects {C} ──▶ B                      B, which has not heard C lately either, suspects C too
//! A ◀── heartbeat, suspects {A, B, C} ── D               (hears nobody) nobody believes D; A, B and C come to suspect it
//! ```
//!
//! After Ensemble's `suspect` and `slander` (Hayden, 1998).

use std::any::Any;
use std::time::Duration;

use super::mistake::Mistake;
use crate::accel::case::CommonCase;
use crate::id::{Hasher64, Incarnation, Rank, RankSet};
use crate::stack::build::{Build, GuardKind, TimerId, shared};
use crate::stack::event::{Charge, Down, Grounds, GroundsKind, Message, Suspicion, Up};
use crate::stack::layer::{Context, Fast, Kind, Layer, Look};
use crate::stack::notices::{Flow, Notices};
use crate::stack::property::{Properties, Property};
use crate::stack::registry::{LayerEntry, ParameterError, Parameters};
use crate::stack::slots::{MemberSlot, Tally};
use crate::time::{Millis, Time};
use crate::wire::control::{BodyReader, ControlError};

pub(super) fn entry() -> LayerEntry {
    LayerEntry {
        name: "SUSPECT",
        about: "suspects members that are silent",
        requires: Properties::of(&[Property::BestEffort, Property::SourceAddress]),
        provides: Properties::of(&[Property::Suspicion]),
        destroys: Properties::NONE,
        cost: 1,
        parameters: &[
            (
                "beat_us",
                "a member that has sent nothing to all others for so long sends a heartbeat, in microseconds (default 1000)",
            ),
            (
                "least_ms",
                "the shortest silence that is suspected, in milliseconds, but never less than four beats (default 14)",
            ),
            (
                "busy_ms",
                "the same while frames flow, eight and more a member in a beat, and a quarter of a second after, in milliseconds (default 25, or most_ms if that is less)",
            ),
            ("most_ms", "the longest silence that is not, in milliseconds (default 30)"),
            (
                "first_ms",
                "how long a member may take to be heard first in a view, in milliseconds (default 100)",
            ),
            (
                "pause_ms",
                "not having run for so long is a pause, in milliseconds, but never less than two beats (default 20)",
            ),
            (
                "starved_ms",
                "how much longer a member may be silent while it is known to wait for a processor, or while this process has not taken in all that has come, in milliseconds (default 250; 0: no longer)",
            ),
            #[cfg(feature = "laboratory")]
            ("broken", "wrong on purpose, for the museum: which way (default no)"),
        ],
        make: |parameters| Ok(Box::new(Suspect::new(parameters)?)),
    }
}

/// A silence that ended counts this much in the next time-out.
const SILENCE_FACTOR: u32 = 3;
/// One sweep counts for so many beats at most: what is beyond, this process has slept.
const BEATS_MAX: u32 = 2;
/// No silence of fewer beats is suspected without a hint.
const LEAST_BEATS: u32 = 4;
/// With a hint that its process is gone, so many beats of silence are enough.
const GONE_BEATS: u32 = 3;
/// Frames flow where so many a member were sent and heard in one beat.
const BUSY_FRAMES: u64 = 8;
/// For so long after frames have flowed a group counts as busy.
const BUSY_AFTER: Duration = Duration::from_millis(250);
/// The memory of the longest silence fades by this part every beat.
const FADE: u32 = 512;

#[derive(Clone)]
struct Suspect {
    mistake: Mistake,
    beat: Duration,
    least: Duration,
    busy: Duration,
    most: Duration,
    first: Duration,
    pause: Duration,
    starved: Duration,
    handles: Option<Handles>,
    /// By rank.
    watched: Vec<Watched>,
    suspected: RankSet,
    /// By rank: who has found out that it has failed, and how; of those that are suspected.
    charges: Vec<Charge>,
    /// Members that are said to have parted with this one.
    parted: RankSet,
    /// Members that are out of this view already: not watched.
    failed: RankSet,
    /// Members that suspect this one: they take nothing of it in any more.
    accusers: RankSet,
    last_sweep: Time,
    /// The own pause that was told last ended then.
    pause_told: Time,
    /// The longest time lately that this process did not run when it should have.
    waited: Duration,
    /// Own casts when last looked at.
    casts: u64,
    /// Whether a raw message has gone to all that are talked to since then.
    told_all: bool,
    /// For how long the group counts as busy yet.
    busy_for: Duration,
    /// Beats since something was sent to all.
    quiet_beats: u32,
    over: bool,
}

/// What the next view's layer must know: views change where processors are short, and there it is needed.
#[derive(Clone)]
struct Legacy {
    waited: Duration,
    busy_for: Duration,
    /// The longest silence of each that was watched.
    longest: Vec<(Incarnation, Duration)>,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    incarnation: Incarnation,
    /// Signs of life that no tally counts.
    signs: u64,
    /// All signs of life by now, and those of which `silence` counts.
    all: u64,
    known: u64,
    silence: Duration,
    longest: Duration,
    /// How much of `silence` it is excused for, because it had no processor; and whether it had none when last asked about.
    excused: Duration,
    starved: bool,
    /// How many signs of life there had been when its process was said to be gone: one more, and that was wrong.
    gone: Option<u64>,
    asked: bool,
    /// Whom it suspects that is heard here, and for how long it has.
    accuses: RankSet,
    accuses_for: Duration,
}

impl Watched {
    fn new(incarnation: Incarnation) -> Watched {
        Watched {
            incarnation,
            signs: 0,
            all: 0,
            known: 0,
            silence: Duration::ZERO,
            longest: Duration::ZERO,
            excused: Duration::ZERO,
            starved: false,
            gone: None,
            asked: false,
            accuses: RankSet::EMPTY,
            accuses_for: Duration::ZERO,
        }
    }

    /// Whether its process is said to be gone, and it was not heard since.
    fn is_gone(&self) -> bool {
        self.gone.is_some_and(|signs| signs >= self.all)
    }
}

#[derive(Clone, Copy)]
struct Handles {
    casts: Tally,
    sends: Tally,
    /// All signs of life that have come up to here, for layers that blame a member for something else than silence.
    heard: MemberSlot,
    /// What has come and waits below for something else.
    out_of_turn: MemberSlot,
    sweep: TimerId,
}

impl Suspect {
    fn new(parameters: &Parameters) -> Result<Suspect, ParameterError> {
        let millis =
            |name, default| parameters.number(name, default, 1..=3_600_000).map(Duration::from_millis);
        let beat = Duration::from_micros(parameters.number("beat_us", 1000, 50..=10_000_000)?);
        // The second check takes a beat there and a beat back.
        let least = millis("least_ms", 14)?.max(beat * LEAST_BEATS);
        let most = parameters.longest(("most_ms", millis("most_ms", 30)?), ("least_ms", least))?;
        let busy = millis("busy_ms", 25)?.clamp(least, most);
        Ok(Suspect {
            mistake: Mistake::of(parameters)?,
            beat,
            least,
            busy,
            most,
            first: millis("first_ms", 100)?,
            // A sweep a beat after the last one is on time.
            pause: millis("pause_ms", 20)?.max(beat * BEATS_MAX),
            starved: Duration::from_millis(parameters.number("starved_ms", 250, 0..=3_600_000)?),
            handles: None,
            watched: Vec::new(),
            suspected: RankSet::EMPTY,
            charges: Vec::new(),
            parted: RankSet::EMPTY,
            failed: RankSet::EMPTY,
            accusers: RankSet::EMPTY,
            last_sweep: Time::ZERO,
            pause_told: Time::ZERO,
            waited: Duration::ZERO,
            casts: 0,
            told_all: false,
            busy_for: Duration::ZERO,
            quiet_beats: 0,
            over: false,
        })
    }

    fn handles(&self) -> Handles {
        self.handles.expect("installed before use")
    }

    /// How long `rank` may be silent.
    fn limit(&self, rank: Rank) -> Duration {
        let watched = &self.watched[rank.index()];
        let least = if self.busy_for.is_zero() { self.least } else { self.busy };
        let usual = (watched.longest.max(self.waited) * SILENCE_FACTOR).clamp(least, self.most);
        // Whoever has parted is elsewhere, and answers from there if it lives.
        let usual = if self.parted.contains(rank) { usual.max(self.first) } else { usual };
        if watched.is_gone() {
            usual.min(self.beat * GONE_BEATS)
        } else if watched.known == 0 && self.mistake.is(Mistake::TrustsTheUnheard) {
            Duration::from_secs(u64::from(u32::MAX))
        } else if watched.known == 0 {
            usual.max(self.first) + watched.excused
        } else {
            usual + watched.excused
        }
    }

    /// Those of whom it is believed that they have failed, because `by` says so. Whom this member has not heard lately
    /// either, at once. Of others `by` may be the one that does not hear: then it soon suspects this member as well.
    fn believe(&mut self, by: Rank, told: RankSet) -> RankSet {
        let deaf = self.accusers.contains(by) || self.mistake.is(Mistake::BelievesNobody);
        let told = if deaf { RankSet::EMPTY } else { told };
        if told.is_empty() {
            self.watched[by.index()].accuses = RankSet::EMPTY;
            return RankSet::EMPTY;
        }
        let silent = |rank: &Rank| self.watched[rank.index()].silence >= self.limit(*rank) / 2;
        let at_once: RankSet = told.iter().filter(silent).collect();
        let heard = told.without(at_once);
        let accuser = &mut self.watched[by.index()];
        if !heard.without(accuser.accuses).is_empty() {
            accuser.accuses_for = Duration::ZERO;
        }
        accuser.accuses = heard;
        let believed = accuser.accuses_for >= self.most || self.mistake.is(Mistake::BelievesEverybody);
        if believed { told } else { at_once }
    }

    /// Says so if this process has not run for a while.
    fn tell_own_pause(&mut self, context: &mut Context<'_>) {
        let lasting = context.now().since(self.last_sweep.max(self.pause_told));
        if lasting > self.pause {
            self.pause_told = context.now();
            context.count("own pause");
            context.up(Up::Paused(lasting));
        }
    }

    /// Looks at everybody; what has to be said is said.
    fn sweep(&mut self, context: &mut Context<'_>) {
        self.tell_own_pause(context);
        let since = context.now().since(self.last_sweep);
        self.last_sweep = context.now();
        let waited = since.saturating_sub(self.beat).min(self.most / SILENCE_FACTOR);
        self.waited = (self.waited - self.waited / FADE).max(waited);
        let pause = self.mistake.is(Mistake::BlamesForOwnPause);
        let passed = if pause { since } else { since.min(self.beat * BEATS_MAX) };
        self.weigh_traffic(context, since, passed);
        let is_behind = context.level_at() + since < context.now() && !self.mistake.is(Mistake::BlamesUnread);
        let (mut ask, mut due, mut hint) = (RankSet::EMPTY, RankSet::EMPTY, false);
        // How long ago one was heard last of those that are heard still; and how long those are silent that are due.
        let (mut freshest, mut due_for) = (Duration::MAX, Duration::MAX);
        let mut watching = RankSet::EMPTY;
        for rank in context.view().others() {
            if self.suspected.contains(rank) || self.failed.contains(rank) {
                continue;
            }
            let watched = &mut self.watched[rank.index()];
            let known = watched.all;
            if !watched.accuses.is_empty() {
                watched.accuses_for += passed;
            }
            if known != watched.known && !self.accusers.contains(rank) {
                // How long it took to come into this view says nothing of how it will go on.
                let silence = if watched.known == 0 { Duration::ZERO } else { watched.silence };
                let silence = silence.saturating_sub(watched.excused);
                watched.longest = (watched.longest - watched.longest / FADE).max(silence);
                (watched.known, watched.silence, watched.excused) = (known, Duration::ZERO, Duration::ZERO);
                (watched.asked, watched.starved) = (false, false);
                freshest = Duration::ZERO;
                continue;
            }
            watched.silence += passed;
            // What it has said may wait behind what others have.
            if std::mem::take(&mut watched.starved) || is_behind {
                watched.excused = (watched.excused + passed).min(self.starved);
            }
            let silence = watched.silence;
            let limit = self.limit(rank);
            hint |= silence >= self.beat * BEATS_MAX;
            let heard = self.watched[rank.index()].known > 0;
            if heard && silence < limit / 2 {
                freshest = freshest.min(silence);
            }
            if heard || !self.mistake.is(Mistake::ForgetsTheUnheard) {
                watching.insert(rank);
            }
            if silence >= limit {
                due.insert(rank);
                due_for = due_for.min(silence);
            } else if silence >= limit / 2 && !self.watched[rank.index()].asked {
                self.watched[rank.index()].asked = true;
                ask.insert(rank);
            }
        }
        if hint {
            context.want_hint();
        }
        // Who hears nobody may be deaf: nobody has been heard much later than those that are due. It suspects all
        // of them at once, and goes alone: a flush that it led for one of them would be believed by the others.
        let hears = freshest < (due_for / 2).max(self.beat * BEATS_MAX);
        if !(hears || watching.without(due).is_empty() || self.mistake.is(Mistake::DeafAccuses)) {
            due = RankSet::EMPTY;
        }
        let found: Vec<Suspicion> =
            due.iter().map(|member| Suspicion { member, why: self.grounds(member) }).collect();
        self.note(context, &found);
        due.iter().for_each(|_| context.count("suspicion"));
        if !self.suspected.is_empty() || self.quiet_beats > 0 && !context.spares_frames() {
            let all = self.audience(context);
            self.say(context, all, false);
        } else if self.quiet_beats > 0 {
            // A row goes out when it may, and is as good a sign of life.
            context.gossip_now(false);
        }
        if !ask.is_empty() {
            self.say(context, ask, true);
            context.up(Up::Doubt(ask));
        }
        self.tell(context, found);
    }

    /// Counts how much was sent and heard since the last sweep.
    fn weigh_traffic(&mut self, context: &mut Context<'_>, since: Duration, passed: Duration) {
        let casts = context.next_frame_number();
        let sent = casts - self.casts;
        self.casts = casts;
        let spoke = std::mem::take(&mut self.told_all) || sent > 0;
        self.quiet_beats = if spoke { 0 } else { self.quiet_beats + 1 };
        let (mut frames, own) = (sent, context.rank());
        for rank in (0..context.view().size()).map(Rank::at).filter(|rank| *rank != own) {
            let Handles { heard: slot, out_of_turn, .. } = self.handles();
            let heard = self.heard(context, rank);
            let all = heard + context.of(out_of_turn, rank);
            context.set_of(slot, rank, heard);
            let watched = &mut self.watched[rank.index()];
            watched.all = all;
            frames += all.saturating_sub(watched.known);
        }
        // A sweep may come late.
        let beats = (since.as_nanos() as u64 / self.beat.as_nanos() as u64).max(1);
        let busy = frames >= BUSY_FRAMES * beats * context.view().size() as u64;
        self.busy_for = if busy { BUSY_AFTER } else { self.busy_for.saturating_sub(passed) };
    }

    /// All signs of life of `rank` in this view.
    fn signs(&self, context: &Context<'_>, rank: Rank) -> u64 {
        self.heard(context, rank) + context.of(self.handles().out_of_turn, rank)
    }

    /// Those that have come up to here: what waits has told nobody anything yet but that its sender lives.
    fn heard(&self, context: &Context<'_>, rank: Rank) -> u64 {
        let Handles { casts, sends, .. } = self.handles();
        context.tally(casts, rank) + context.tally(sends, rank) + self.watched[rank.index()].signs
    }

    /// Why `rank` is suspected, of which there has been no sign of life for too long.
    fn grounds(&self, rank: Rank) -> Grounds {
        let lasting = self.watched[rank.index()].silence;
        if self.accusers.contains(rank) {
            Grounds::Accuser
        } else if self.watched[rank.index()].is_gone() {
            Grounds::Gone { lasting }
        } else if self.watched[rank.index()].known == 0 {
            Grounds::Unheard { lasting }
        } else {
            Grounds::Silent { lasting, limit: self.limit(rank) }
        }
    }

    /// Members that were not suspected until now are.
    fn note(&mut self, context: &Context<'_>, new: &[Suspicion]) {
        for Suspicion { member, why } in new {
            self.suspected.insert(*member);
            self.charges[member.index()] = Charge::of(context.rank(), *why);
        }
    }

    /// Tells the layers above of them.
    fn tell(&self, context: &mut Context<'_>, new: Vec<Suspicion>) {
        if !new.is_empty() {
            context.up(Up::Suspect(new.into()));
        }
    }

    /// Who is still talked to.
    fn audience(&self, context: &Context<'_>) -> RankSet {
        context.view().others().filter(|rank| !self.failed.contains(*rank)).collect()
    }

    /// Sends a heartbeat.
    fn say(&self, context: &mut Context<'_>, to: RankSet, ask: bool) {
        if to.is_empty() {
            return;
        }
        let Ok(mut body) = context.control_frame() else {
            context.count("heartbeat without a frame");
            return;
        };
        let charges = self.suspected.iter().map(|rank| self.charges[rank.index()]);
        let room = body.room().saturating_sub(HEARTBEAT_BYTES) / CHARGE_BYTES;
        let charges = charges.take(room).collect();
        let heartbeat = Heartbeat { ask, suspected: self.suspected, charges };
        heartbeat.encode(|bytes| body.extend(bytes).expect("a heartbeat fits a frame"));
        context.send_raw(to, body);
    }
}

/// ```text
/// heartbeat = flags:u8 suspected:u64 suspected:u64 charge...   (flags bit 0: please answer)
/// charge = by:u16 kind:u8                                      (of the first of those suspected, as many as have room)
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
struct Heartbeat {
    ask: bool,
    suspected: RankSet,
    charges: Vec<Charge>,
}

/// Bytes of a heartbeat of who suspects nobody.
const HEARTBEAT_BYTES: usize = 17;
/// What is said of one that is suspected.
const CHARGE_BYTES: usize = 3;

impl Heartbeat {
    /// Its bytes, one part after the other: it is sent too often to be written elsewhere first.
    fn encode(&self, mut write: impl FnMut(&[u8])) {
        write(&[u8::from(self.ask)]);
        self.suspected.words().iter().for_each(|word| write(&word.to_le_bytes()));
        for charge in &self.charges {
            write(&charge.by.0.to_le_bytes());
            write(&[GroundsKind::code(charge.kind)]);
        }
    }

    /// Reads what a member of a view of `members` members said.
    fn decode(bytes: &[u8], members: usize) -> Result<Heartbeat, ControlError> {
        let mut reader = BodyReader::new(bytes);
        let flags = reader.byte()?;
        let suspected = RankSet::from_words([reader.word()?, reader.word()?]);
        let count = bytes.len().saturating_sub(HEARTBEAT_BYTES) / CHARGE_BYTES;
        let mut charge = |_| {
            let (by, kind) = (Rank(reader.half()?), GroundsKind::of_code(reader.byte()?)?);
            if by.index() < members { Ok(Charge { by, kind }) } else { Err(ControlError) }
        };
        let charges = (0..count).map(&mut charge).collect::<Result<Vec<_>, _>>()?;
        reader.end()?;
        let known = suspected.without(RankSet::all(members)).is_empty() && count <= suspected.len();
        if flags > 1 || !known {
            return Err(ControlError);
        }
        Ok(Heartbeat { ask: flags == 1, suspected, charges })
    }

    /// What it says of those of `told`, given who has sent it.
    fn hearsay(&self, by: Rank, told: RankSet) -> Vec<Suspicion> {
        let unknown = std::iter::repeat(Charge { by, kind: None });
        let charges = self.suspected.iter().zip(self.charges.iter().copied().chain(unknown));
        let told = charges.filter(|(member, _)| told.contains(*member));
        told.map(|(member, charge)| Suspicion { member, why: charge.told() }).collect()
    }
}

impl Layer for Suspect {
    fn name(&self) -> &'static str {
        "SUSPECT"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.watched =
            build.view().view().members.iter().map(|member| Watched::new(member.incarnation)).collect();
        self.charges = vec![Charge { by: build.view().rank(), kind: None }; self.watched.len()];
        self.handles = Some(Handles {
            casts: build.tally(GuardKind::CastDeliver, "casts heard"),
            sends: build.tally(GuardKind::SendDeliver, "sends heard"),
            heard: build.member_slot(),
            out_of_turn: build.shared_member_slot(shared::OUT_OF_TURN),
            sweep: build.timer("sweep"),
        });
    }

    fn start(&mut self, context: &mut Context<'_>) {
        self.last_sweep = context.now();
        if context.view().size() > 1 {
            context.arm(self.handles().sweep, context.now() + self.beat);
        }
    }

    fn bequeath(&mut self) -> Option<Box<dyn Any>> {
        // In an idle group who was slow was beginning, or is gone.
        if self.busy_for.is_zero() {
            return None;
        }
        let longest = self.watched.iter().map(|watched| (watched.incarnation, watched.longest)).collect();
        Some(Box::new(Legacy { waited: self.waited, busy_for: self.busy_for, longest }))
    }

    fn inherit(&mut self, legacy: Box<dyn Any>) {
        let Ok(legacy) = legacy.downcast::<Legacy>() else { return };
        (self.waited, self.busy_for) = (legacy.waited, legacy.busy_for);
        for watched in &mut self.watched {
            let before = legacy.longest.iter().find(|(incarnation, _)| *incarnation == watched.incarnation);
            watched.longest = before.map_or(Duration::ZERO, |(_, longest)| *longest);
        }
    }

    fn notices(&self) -> Notices {
        Notices::NOTHING.up(&[Flow::Cast, Flow::Send, Flow::Control, Flow::Raw]).down(&[Flow::Raw])
    }

    fn look_down(&mut self, context: &mut Context<'_>, event: &Down) -> Look {
        match event {
            Down::Raw(to, _) => {
                self.told_all = self.told_all || self.audience(context).without(*to).is_empty();
            }
            Down::Flush(failed) => self.failed = *failed,
            Down::Suspect(ranks, why) => {
                let others: RankSet = context.view().others().collect();
                let new = ranks.and(others).without(self.suspected);
                let new: Vec<Suspicion> = new.iter().map(|member| Suspicion { member, why: *why }).collect();
                self.note(context, &new);
                self.tell(context, new);
            }
            Down::Over => {
                self.over = true;
                context.disarm(self.handles().sweep);
            }
            _ => {}
        }
        Look::Passes
    }

    fn look_up(&mut self, context: &mut Context<'_>, event: &Up) -> Look {
        match event {
            Up::Cast(origin, _) => context.bump(self.handles().casts, *origin),
            Up::Send(origin, message) if !message.is_control() => {
                context.bump(self.handles().sends, *origin);
            }
            Up::Send(origin, _) | Up::Raw(origin, _) => self.watched[origin.index()].signs += 1,
            // What has come meanwhile may be that the others have gone on without this process: why is known before.
            Up::Late => {
                if !self.over && context.view().size() > 1 {
                    self.tell_own_pause(context);
                }
                return Look::Ends;
            }
            Up::Gone(ranks) => {
                for rank in ranks.iter() {
                    self.watched[rank.index()].gone = Some(self.signs(context, rank));
                }
                return Look::Ends;
            }
            Up::Parted(ranks) => {
                let out = self.suspected.with(self.failed);
                self.parted = self.parted.with(*ranks);
                context.up(Up::Doubt(ranks.without(out)));
                return Look::Ends;
            }
            Up::Starved(ranks) => {
                ranks.iter().for_each(|rank| self.watched[rank.index()].starved = true);
                return Look::Ends;
            }
            _ => {}
        }
        Look::Passes
    }

    fn control(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        self.watched[origin.index()].signs += 1;
        let Ok(heartbeat) = Heartbeat::decode(message.list.payload(), context.view().size()) else {
            context.count("heartbeat that does not decode");
            return;
        };
        let suspected = heartbeat.suspected;
        if self.over || self.failed.contains(origin) || self.suspected.contains(origin) {
            return;
        }
        if heartbeat.ask {
            self.say(context, RankSet::one(origin), false);
        }
        if suspected.contains(context.rank()) {
            context.count("suspected by another");
            self.accusers.insert(origin);
        }
        let mut told = suspected.without(self.suspected).without(self.failed);
        told.remove(origin);
        let believed = self.believe(origin, told);
        if !believed.is_empty() {
            let believed = heartbeat.hearsay(origin, believed);
            self.note(context, &believed);
            context.count("suspicion taken over");
            self.tell(context, believed);
        }
    }

    fn timer(&mut self, context: &mut Context<'_>, timer: TimerId) {
        if !self.over {
            self.sweep(context);
            context.arm(timer, context.now() + self.beat);
        }
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        match kind {
            Kind::CastDeliver | Kind::SelfDeliver => case.count(self.handles().casts),
            Kind::SendDeliver => case.count(self.handles().sends),
            _ => return Fast::Transparent,
        }
        Fast::Declared
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }

    fn digest(&self, digest: &mut Hasher64) {
        for watched in &self.watched {
            digest.word(watched.signs);
            digest.word(watched.known);
            digest.word(watched.silence.as_nanos() as u64);
            digest.word(watched.longest.as_nanos() as u64);
            digest.word(watched.excused.as_nanos() as u64 | u64::from(watched.starved) << 63);
            digest.word(watched.accuses_for.as_nanos() as u64);
        }
        for ranks in [self.suspected, self.accusers] {
            ranks.words().into_iter().for_each(|word| digest.word(word));
        }
        digest.word(self.waited.as_nanos() as u64);
        digest.word(self.busy_for.as_nanos() as u64);
        digest.word(self.casts << 1 | u64::from(self.told_all));
    }

    fn time_outs(&self) -> Vec<(&'static str, Duration)> {
        vec![
            ("beat", self.beat),
            ("least", self.least),
            ("busy", self.busy),
            ("most", self.most),
            ("first", self.first),
            ("pause", self.pause),
            ("after a hint", self.beat * GONE_BEATS),
            ("starved", self.starved),
            ("frames flow for", BUSY_AFTER),
        ]
    }

    fn dump(&self, context: &Context<'_>) -> Option<String> {
        let line = |rank: Rank| {
            let watched = &self.watched[rank.index()];
            format!("{rank}: silent {} of {}", Millis(watched.silence), Millis(self.limit(rank)))
        };
        let lines: Vec<String> = context.view().others().map(line).collect();
        let lines = if lines.is_empty() { "nobody to watch".to_owned() } else { lines.join("; ") };
        Some(format!("{lines}; suspected {:?}", self.suspected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_comes_out_as_it_went_in_and_nothing_else_decodes() {
        let suspected: RankSet = [1, 64, 127].into_iter().map(Rank::at).collect();
        let charge = |by, kind| Charge { by: Rank(by), kind };
        let charges = vec![charge(0, Some(GroundsKind::HeldUp)), charge(127, None)];
        let heartbeat = Heartbeat { ask: true, suspected, charges };
        let mut bytes = Vec::new();
        heartbeat.encode(|part| bytes.extend_from_slice(part));
        let decode = |bytes: &[u8]| Heartbeat::decode(bytes, 128);
        assert_eq!(decode(&bytes).as_ref(), Ok(&heartbeat));
        let told = |member, by, kind| Suspicion { member: Rank(member), why: charge(by, kind).told() };
        let hearsay = heartbeat.hearsay(Rank(9), RankSet::all(128));
        let first = told(1, 0, Some(GroundsKind::HeldUp));
        assert_eq!(
            hearsay,
            [first, told(64, 127, None), told(127, 9, None)],
            "what had no room is not known"
        );
        for length in
            (0..bytes.len()).filter(|length| !(17..).step_by(3).take(2).any(|whole| whole == *length))
        {
            assert_eq!(decode(&bytes[..length]), Err(ControlError), "{length} bytes");
        }
        assert_eq!(decode(&[&bytes[..], &[0, 0, 0, 0]].concat()), Err(ControlError));
        assert_eq!(decode(&[&bytes[..], &[0; 6]].concat()), Err(ControlError), "of more than are suspected");
        assert_eq!(decode(&[&bytes[..19], &[7]].concat()), Err(ControlError), "no such grounds");
        assert_eq!(decode(&[&[2], &bytes[1..]].concat()), Err(ControlError));
        assert_eq!(Heartbeat::decode(&bytes, 127), Err(ControlError), "of nobody");
    }
}
