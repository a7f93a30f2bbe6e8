//! Gossip: monotone values that every member reports of every member (design D2).
//!
//! Values ride on ordinary messages in a short form, one subject per message in rotation; where there is no traffic to
//! ride on, or a value has moved far, a *row* with all values in 64 bits goes out as a raw control message. A lost row
//! does no harm: values are cumulative, and whoever waits for one asks for it.
//!
//! Rows also tell which start of its incarnation the reporter is, and which it has heard of the others ([`Life`]). A
//! member listens to the first it hears; rows of another are not taken in, and answered, and whoever learns that others
//! have heard another in its place exits. So every member asks for rows when it starts, again and again, until all have
//! answered or it has asked long enough; whoever starts later asks in turn.
//!
//! ```text
//! A ── cast 41 (held of C) ──▶ B, C      rotation: A speaks of B, C, B, C, ...
//! A ── row (held of A, B, C; credit of A, B, C) ──▶ B, C      when quiet, or far ahead, or asked
//! ```

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use super::build::{GossipDefinition, GossipSource};
use super::core::Core;
use super::event::{ExitReason, List, Message, Up};
use super::slots::{MatrixSlot, MemberSlot, SlotFile, fixed};
use crate::accel::plan::GossipStep;
use crate::id::{Hasher64, Life, Rank, RankSet};
use crate::time::Time;
use crate::wire::Traffic;
use crate::wire::control::{GOSSIP_HEADER_BYTES, GOSSIP_LIFE_BYTES, GossipRow};
use crate::wire::full::STACK_CONTROL;
use crate::wire::layout::WORDS_MAX;

/// The subject that the cast with `number` of `origin` speaks of, in a view of `members` members.
#[inline]
pub(crate) fn subject(origin: Rank, number: u64, members: usize) -> Rank {
    if members <= 2 {
        return Rank(1 - (origin.0 & 1));
    }
    let others = members as u64 - 1;
    let at = origin.index() + 1 + (number % others) as usize;
    Rank((if at >= members { at - members } else { at }) as u16)
}

/// The full value of which `short` is the lowest bits, given a value that is not newer; or that value, if the short
/// one is older.
#[inline]
pub(crate) fn lengthen(known: u64, short: u16) -> u64 {
    let ahead = short.wrapping_sub(known as u16) as i16;
    if ahead > 0 { known + ahead as u64 } else { known }
}

/// Short gossip that casts by plan have carried and nobody has looked at yet: of each origin about each subject the newest
/// alone, for a newer one says all that an older one did. It is merged before a layer runs, so that none sees it missing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carried {
    /// By origin and subject: whether there is any, and the words of its header.
    words: Vec<u64>,
    /// Words of each.
    stride: usize,
    members: usize,
    steps: Vec<GossipStep>,
    /// Where there is any.
    places: Vec<usize>,
}

impl Carried {
    /// For casts whose headers have `words` words with the gossip of `steps`.
    pub(crate) fn new(members: usize, words: usize, steps: &[GossipStep]) -> Carried {
        let (stride, pairs) = if steps.is_empty() { (1, 0) } else { (1 + words, members * members) };
        Carried {
            words: vec![0; stride * pairs],
            stride,
            members,
            steps: steps.to_vec(),
            places: Vec::with_capacity(pairs),
        }
    }

    /// A cast of `origin` carried gossip about `subject` in its header.
    #[inline(always)]
    pub(crate) fn note<const WORDS: usize>(&mut self, origin: Rank, subject: Rank, header: &[u64; WORDS]) {
        let stride = 1 + WORDS;
        let at = (origin.index() * self.members + subject.index()) * stride;
        let Some(place) = self.words.get_mut(at..at + stride) else { return };
        let known = std::mem::replace(&mut place[0], 1);
        place[1..].copy_from_slice(header);
        if known == 0 {
            self.first(at);
        }
    }

    #[cold]
    #[inline(never)]
    fn first(&mut self, at: usize) {
        self.places.push(at);
    }

    /// The value that `reporter` has of `subject`, given the one that has been merged.
    fn with(&self, matrix: MatrixSlot, reporter: Rank, subject: Rank, merged: u64) -> u64 {
        let at = (reporter.index() * self.members + subject.index()) * self.stride;
        let step = self.steps.iter().find(|step| step.matrix == matrix);
        match (step, self.words.get(at..at + self.stride)) {
            (Some(step), Some([1, header @ ..])) => lengthen(merged, step.spot.read(header) as u16),
            _ => merged,
        }
    }

    fn digest(&self, hasher: &mut Hasher64) {
        for at in &self.places {
            hasher.word(*at as u64);
            self.words[*at..*at + self.stride].iter().for_each(|word| hasher.word(*word));
        }
    }
}

/// What the next cast says of a member, as long as no word of a member's section changes: it is written out of many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Riding {
    /// [`SlotFile::changes`](super::slots::SlotFile::changes) when it was found out.
    pub(crate) changes: u64,
    pub(crate) words: [u64; WORDS_MAX],
}

impl Riding {
    const NEVER: Riding = Riding { changes: u64::MAX, words: [0; WORDS_MAX] };
}

/// Where an own value about one member stands, and what becomes of it.
#[derive(Clone, Copy, Debug)]
struct Value {
    at: u32,
    shift: u8,
    mask: u64,
    /// Its place in the own row.
    row: u32,
    rides_on_casts: bool,
    /// A change of so much is reported soon, and of so much at once.
    soon: u64,
    at_once: u64,
}

impl Value {
    #[inline]
    fn read(&self, slots: &SlotFile) -> u64 {
        slots.word(self.at) >> self.shift & self.mask
    }
}

/// What has been reported, and when the next row is due.
#[derive(Clone, Debug)]
pub(crate) struct GossipState {
    pub(crate) definitions: Rc<[GossipDefinition]>,
    /// By subject and gossip: what post-processing needs of them in every pass.
    values: Vec<Value>,
    /// By subject.
    pub(crate) riding: Vec<Riding>,
    /// By subject and gossip: the last value others were told.
    reported: Vec<u64>,
    /// By subject and gossip: own values at the last post-processing.
    previous: Vec<u64>,
    /// [`Core::gossiping_casts`] when that look had ended; `None` while one is under way.
    previous_casts: Option<(u64, u64)>,
    due: Time,
    /// Since when it has been put off, because casts told all.
    put_off: Time,
    /// Before that, none goes out if frames are to be spared.
    sparing: Time,
    /// During post-processing: whether all own values have gone out with casts since the last one, and whether any has
    /// changed since it was told, and maybe before the last one, and changed much.
    all_ridden: bool,
    changed: bool,
    long_changed: bool,
    far: bool,
    requested: bool,
    ask: bool,
    /// Somebody asked for a row: it goes out when due, changed or not.
    asked: bool,
    /// How long a change may go unreported.
    delay: Duration,
    /// By rank: the life that was heard first; the own one.
    lives: Vec<Life>,
    /// Members that have not said yet that they have heard this life.
    unsure: RankSet,
    /// When they are asked next, and how long after that again.
    introduction: Time,
    introduction_gap: Duration,
    /// By rank: rows that have been merged.
    rows: Vec<u64>,
    /// What has not been merged yet.
    pub(crate) carried: Carried,
}

/// As long as casts tell all, a row is put off for so many times as long as a change may go unreported.
const PUT_OFF_MAX: u32 = 4;

/// Where frames are to be spared, rows are so many times as far apart as a change may go unreported: not so far that who hears
/// nothing else would become impatient.
const SPARING: u32 = 16;

/// A member that has not answered for so long is asked no more: it is not there, and asks itself when it comes.
pub(crate) const INTRODUCTION_GAP_MAX: Duration = Duration::from_millis(200);

impl GossipState {
    pub(crate) fn new(
        definitions: Rc<[GossipDefinition]>,
        members: usize,
        delay: Duration,
        carried: Carried,
    ) -> GossipState {
        let values = definitions.len() * members;
        GossipState {
            definitions,
            values: Vec::new(),
            riding: vec![Riding::NEVER; members],
            reported: vec![0; values],
            previous: vec![0; values],
            previous_casts: Some((0, 0)),
            due: Time::NEVER,
            put_off: Time::ZERO,
            sparing: Time::ZERO,
            all_ridden: false,
            changed: false,
            long_changed: false,
            far: false,
            requested: false,
            ask: false,
            asked: false,
            delay,
            lives: vec![Life::NONE; members],
            unsure: RankSet::EMPTY,
            introduction: Time::NEVER,
            introduction_gap: delay,
            rows: vec![0; members],
            carried,
        }
    }

    /// The places of what is by subject and gossip.
    fn of(&self, subjects: Range<usize>) -> Range<usize> {
        let count = self.definitions.len();
        subjects.start * count..subjects.end * count
    }

    /// This member is `own` and this its life; `others` are to know.
    pub(crate) fn introduce(&mut self, own: Rank, life: Life, others: RankSet, now: Time) {
        if life != Life::NONE && !self.definitions.is_empty() {
            self.lives[own.index()] = life;
            self.unsure = others;
            self.introduction = if others.is_empty() { Time::NEVER } else { now };
        }
    }

    /// A row goes out with the next post-processing.
    pub(crate) fn request(&mut self, ask: bool) {
        self.requested = true;
        self.ask |= ask;
    }

    /// So many more casts than are counted have carried gossip since the last post-processing: for the shadow's fork.
    pub(crate) fn ridden(&mut self, casts: u64) {
        if let Some((_, by_plan)) = &mut self.previous_casts {
            *by_plan = by_plan.wrapping_sub(casts);
        }
    }

    pub(crate) fn requested(&self) -> bool {
        self.requested
    }

    /// How many rows of a member that say something of this one have been merged.
    pub(crate) fn rows_of(&self, reporter: Rank) -> u64 {
        self.rows[reporter.index()]
    }

    /// How long a change may go unreported.
    pub(crate) fn delay(&self) -> Duration {
        self.delay
    }

    /// When a row is due.
    #[inline]
    pub(crate) fn due(&self) -> Time {
        self.due.min(self.introduction)
    }

    pub(crate) fn digest(&self, hasher: &mut Hasher64) {
        for value in &self.reported {
            hasher.word(*value);
        }
        for life in &self.lives {
            hasher.word(u64::from(life.0));
        }
        hasher.word(self.introduction.as_nanos());
        hasher.word(self.due.as_nanos());
        hasher.word(self.sparing.as_nanos());
        self.carried.digest(hasher);
        hasher.word(u64::from(self.requested) | u64::from(self.ask) << 1 | u64::from(self.asked) << 2);
    }
}

impl Core {
    /// This member's own value of a gossip about `subject`.
    pub(crate) fn own_value(&self, source: GossipSource, subject: Rank) -> u64 {
        match source {
            GossipSource::Accepted(field) if subject == self.view.rank() => self.sending(field, subject),
            GossipSource::Accepted(field) => self.expected(field, subject),
            GossipSource::Slot(MemberSlot(slot)) => self.slots.word(self.slots.member(subject) + slot),
        }
    }

    /// Finds out where own values stand: once, when the slots are there.
    pub(crate) fn find_own_values(&mut self) {
        let own = self.own;
        let value = |definition: &GossipDefinition, subject: Rank| {
            let (at, shift, mask) = match definition.source {
                GossipSource::Accepted(field) => {
                    let home = self.home(field);
                    // A field that is not among the words is zero.
                    let (word, mask) = home.word.map_or((0, 0), |word| (word, home.mask));
                    let at = match subject == own {
                        true => self.sending_word(field.traffic, word, own),
                        false => self.expected_word(field.traffic, word, subject),
                    };
                    (at, home.shift, mask)
                }
                GossipSource::Slot(MemberSlot(slot)) => (self.slots.member(subject) + slot, 0, u64::MAX),
            };
            let GossipDefinition { matrix, quantum, .. } = *definition;
            let (soon, at_once) = quantum.map_or((u64::MAX, u64::MAX), |quantum| (1, quantum));
            let row = self.slots.member(own) + matrix.0 + u32::from(subject.0);
            let rides_on_casts = definition.rides_on == Some(Traffic::Cast);
            Value { at, shift, mask, row, rides_on_casts, soon, at_once }
        };
        let subjects = (0..self.slots.members()).map(Rank::at);
        let of = |subject| self.gossip.definitions.iter().map(move |definition| (definition, subject));
        self.gossip.values =
            subjects.flat_map(of).map(|(definition, subject)| value(definition, subject)).collect();
    }

    /// Takes the own values about `subjects` into the own row of each matrix.
    pub(crate) fn gossip_own(&mut self, subjects: Range<usize>) {
        let Core { gossip, slots, .. } = self;
        for value in &gossip.values[gossip.of(subjects)] {
            slots.raise(value.row, value.read(slots));
        }
    }

    /// Looks at what has changed since the last look, before it looks at each member.
    pub(crate) fn gossip_look(&mut self) {
        let (casts, members) = (self.gossiping_casts(), self.slots.members());
        // Casts that went out amid a look, and after one that never ended, have told what some values were before it. And those
        // between which there are others may all have spoken of the same member.
        self.gossip.all_ridden = self.gossip.previous_casts.take().is_some_and(|previous| {
            let (all, ridden) = (casts.0.wrapping_sub(previous.0), casts.1.wrapping_sub(previous.1));
            members > 1 && ridden >= members as u64 - 1 && ridden == all
        });
        (self.gossip.changed, self.gossip.long_changed, self.gossip.far) = (false, false, false);
    }

    /// Looks at what has changed of `subjects`. Casts tell their own number.
    pub(crate) fn gossip_look_at(&mut self, subjects: Range<usize>) {
        let own = self.own.index();
        let before = subjects.start..subjects.end.min(own);
        self.look_at(before);
        self.look_at(subjects.start.max(own + 1)..subjects.end);
    }

    fn look_at(&mut self, subjects: Range<usize>) {
        if subjects.is_empty() {
            return;
        }
        let of = self.gossip.of(subjects);
        let Core { gossip, slots, .. } = self;
        let GossipState { values, previous, reported, all_ridden, changed, long_changed, far, .. } = gossip;
        let told = previous[of.clone()].iter_mut().zip(&mut reported[of.clone()]);
        for (value, (previous, reported)) in values[of].iter().zip(told) {
            let told = *all_ridden && value.rides_on_casts;
            if told {
                *reported = *previous;
            }
            *previous = value.read(slots);
            let ahead = previous.saturating_sub(*reported);
            *changed |= ahead >= value.soon;
            *long_changed |= ahead >= value.soon && !told;
            *far |= ahead >= value.at_once;
        }
    }

    /// Decides whether a row must go out, when all have been looked at.
    pub(crate) fn gossip_post(&mut self) {
        self.gossip.previous_casts = Some(self.gossiping_casts());
        if self.now >= self.gossip.introduction {
            self.gossip.request(true);
            let gap = self.gossip.introduction_gap;
            let again = gap <= INTRODUCTION_GAP_MAX;
            self.gossip.introduction = if again { self.now + gap } else { Time::NEVER };
            self.gossip.introduction_gap = gap * 2;
        }
        let wanted = self.gossip.changed || self.gossip.asked;
        if self.gossip.requested || self.gossip.far || self.now >= self.gossip.due && wanted {
            self.report();
        } else if !wanted {
            self.gossip.due = Time::NEVER;
        } else if self.gossip.due == Time::NEVER {
            (self.gossip.due, self.gossip.put_off) = (self.now + self.gossip.delay, self.now);
        } else if !self.gossip.long_changed
            && !self.gossip.asked
            && self.now < self.gossip.put_off + self.gossip.delay * PUT_OFF_MAX
        {
            // Casts have told all but what has changed since the last look. Who takes them by layers has not heard it, so now and
            // then a row goes out all the same.
            self.gossip.due = self.now + self.gossip.delay;
        }
    }

    /// The number of this member's next cast, and how many casts by plan, which carry gossip, there were before it.
    pub(crate) fn gossiping_casts(&self) -> (u64, u64) {
        let by_plan = u64::from(self.has_fast_casts()) * self.slots.word(fixed::CAST_SEND_HITS);
        (self.next_frame_number(), by_plan)
    }

    /// Takes those out of `subjects` whom casts since `earlier` ([`Core::gossiping_casts`]) have spoken of.
    pub(crate) fn told_since(&self, earlier: (u64, u64), subjects: &mut RankSet) {
        let now = self.gossiping_casts();
        let casts = now.0 - earlier.0;
        if casts == now.1 - earlier.1 {
            let members = self.view.size();
            for number in (earlier.0..now.0).take(members) {
                subjects.remove(subject(self.own, number, members));
            }
        }
    }

    /// Sends all own values to everybody.
    pub(crate) fn report(&mut self) {
        let members = self.view.size();
        let others: RankSet = self.view.others().collect();
        let count = self.gossip.definitions.len();
        let ask = self.gossip.ask;
        (self.gossip.requested, self.gossip.ask, self.gossip.asked) = (false, false, false);
        self.gossip.due = Time::NEVER;
        if others.is_empty() || count == 0 {
            return;
        }
        if self.spares_frames() {
            if self.now < self.gossip.sparing {
                self.gossip.asked = true;
                self.gossip.ask |= ask;
                self.gossip.due = self.gossip.sparing;
                return;
            }
            self.gossip.sparing = self.now + self.gossip.delay * SPARING;
        }
        let after = self.next_frame_number();
        let mut first = 0;
        while first < members {
            let Ok(mut body) = self.control_frame() else {
                // Nothing is lost: the values are still there. Try again a little later, when frames have come back.
                self.count_stack("gossip without a frame");
                self.gossip.asked = true;
                self.gossip.ask |= ask;
                self.gossip.due = self.now + self.gossip.delay;
                return;
            };
            let room = body.room().saturating_sub(GOSSIP_HEADER_BYTES) / (8 * count + GOSSIP_LIFE_BYTES);
            let subjects = room.min(members - first);
            assert!(subjects > 0, "a frame holds at least one subject");
            let life = self.gossip.lives[self.view.rank().index()];
            let header = GossipRow::header(ask, count as u8, first as u16, subjects as u16, life, after);
            body.extend(&header).expect("the room was counted");
            let of = self.gossip.of(first..first + subjects);
            let GossipState { values, reported, .. } = &mut self.gossip;
            for (value, reported) in values[of.clone()].iter().zip(&mut reported[of]) {
                *reported = value.read(&self.slots);
                body.extend(&reported.to_le_bytes()).expect("the room was counted");
            }
            for life in &self.gossip.lives[first..first + subjects] {
                body.extend(&life.0.to_le_bytes()).expect("the room was counted");
            }
            let frame = body.freeze();
            let list = List::single(frame.clone(), frame.start(), frame.end());
            let message = Message { control: STACK_CONTROL, ..Message::data(Traffic::Raw, list) };
            self.emit_top(super::event::Down::Raw(others, message));
            first += subjects;
        }
    }

    /// Merges what casts by plan have carried, and has the effects that wait: layers are about to run.
    #[inline]
    pub(crate) fn catch_up(&mut self) {
        self.merge_carried();
        if !self.pending_effects.is_empty() {
            self.have_effects();
        }
    }

    /// Merges what casts by plan have carried. Layers and rows come after it.
    #[inline]
    pub(crate) fn merge_carried(&mut self) {
        if !self.gossip.carried.places.is_empty() {
            self.merge_all_carried();
        }
    }

    #[inline(never)]
    fn merge_all_carried(&mut self) {
        let Core { gossip: GossipState { carried, .. }, slots, .. } = self;
        let Carried { words, stride, members, steps, places } = carried;
        for at in places.drain(..) {
            let Some((any, header)) = words[at..at + *stride].split_first_mut() else { continue };
            *any = 0;
            let (origin, subject) = (at / *stride / *members, at / *stride % *members);
            let section = slots.section(Rank::at(origin));
            for step in steps.iter() {
                let word = &mut section[step.matrix.0 as usize + subject];
                *word = lengthen(*word, step.spot.read(header) as u16);
            }
        }
    }

    /// What `reporter` says of `subject`, with what is still to be merged.
    pub(crate) fn reported(&self, matrix: MatrixSlot, reporter: Rank, subject: Rank) -> u64 {
        self.gossip.carried.with(matrix, reporter, subject, self.slots.pair(matrix, reporter, subject))
    }

    /// Merges the short gossip that a hit carried, unless its origin has reported since.
    #[inline]
    pub(crate) fn merge_short(
        &mut self,
        traffic: Traffic,
        origin: Rank,
        number: u64,
        short: impl Iterator<Item = (MatrixSlot, u16)>,
    ) {
        let members = self.slots.members();
        let own = self.own;
        let section = self.slots.section(origin);
        let about = match traffic {
            Traffic::Cast if number < section[fixed::NEWEST_REPORT as usize] => return,
            Traffic::Cast => subject(origin, number, members),
            _ => own,
        };
        for (matrix, short) in short {
            let word = &mut section[matrix.0 as usize + about.index()];
            *word = lengthen(*word, short);
        }
    }

    /// Whether a row is from the life of its reporter that was heard first, and is about this one of this member.
    fn same_lives(&mut self, reporter: Rank, row: &GossipRow<'_>) -> bool {
        let heard = &mut self.gossip.lives[reporter.index()];
        if *heard == Life::NONE {
            *heard = row.life;
        } else if *heard != row.life {
            self.count_stack("gossip of another life");
            // It is told so, as often as others are told anything.
            self.gossip.asked = true;
            self.gossip.due = self.gossip.due.min(self.now + self.gossip.delay);
            return false;
        }
        let own = self.view.rank();
        let Some(index) = own.index().checked_sub(usize::from(row.first)) else { return true };
        let Some(told) = row.life_of(index).filter(|told| *told != Life::NONE) else { return true };
        if told == self.gossip.lives[own.index()] {
            self.gossip.unsure.remove(reporter);
            if self.gossip.unsure.is_empty() {
                self.gossip.introduction = Time::NEVER;
            }
            return true;
        }
        self.emit_application(Up::Exit(ExitReason::OtherLife { reporter }));
        false
    }

    /// Whether `reporter` holds more of this member's casts than this life of it has cast, as it says in these values.
    fn reincarnated(&self, reporter: Rank, values: &[[u8; 8]]) -> Option<ExitReason> {
        self.gossip.definitions.iter().zip(values).find_map(|(definition, value)| {
            let GossipSource::Accepted(field) = definition.source else { return None };
            let (reported, own) = (u64::from_le_bytes(*value), self.sending(field, reporter));
            let more = field.traffic == Traffic::Cast && reported > own;
            more.then_some(ExitReason::Reincarnated { reporter, reported, own })
        })
    }

    /// Takes in a row from another member.
    pub(crate) fn gossip_received(&mut self, reporter: Rank, body: &[u8]) {
        let members = self.view.size();
        let own = self.view.rank();
        let row = match GossipRow::decode(body) {
            Ok(row)
                if usize::from(row.gossips) == self.gossip.definitions.len()
                    && usize::from(row.first) + usize::from(row.subjects) <= members =>
            {
                row
            }
            _ => {
                self.count_stack("gossip that does not decode");
                return;
            }
        };
        if !self.same_lives(reporter, &row) {
            return;
        }
        let before = self.slots.changes();
        let first = usize::from(row.first);
        for (values, subject) in row.values().zip(first..) {
            if subject == own.index()
                && let Some(reason) = self.reincarnated(reporter, values)
            {
                self.emit_application(Up::Exit(reason));
                return;
            }
            let matrices = self.gossip.definitions.iter().map(|definition| definition.matrix);
            let values = values.iter().map(|value| u64::from_le_bytes(*value));
            self.slots.raise_row(reporter, Rank::at(subject), matrices.zip(values));
        }
        // A row of a large view comes in several frames.
        let speaks_of_this_one = (first..first + usize::from(row.subjects)).contains(&own.index());
        self.gossip.rows[reporter.index()] += u64::from(speaks_of_this_one);
        let newest = MemberSlot(fixed::NEWEST_REPORT);
        self.slots.set_of(newest, reporter, self.slots.of(newest, reporter).max(row.after));
        if row.ask {
            // Answers are staggered by rank, so that a large group does not answer at once.
            let delay = Duration::from_micros(20) * u32::from(own.0);
            self.gossip.due = self.gossip.due.min(self.now + delay);
            self.gossip.asked = true;
        }
        // Nothing follows from what is known.
        self.work += u32::from(self.slots.changes() != before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::plan::Spot;

    #[test]
    fn casts_speak_of_every_other_member_in_turn() {
        for members in 2..9 {
            for origin in 0..members {
                let origin = Rank::at(origin);
                let spoken: RankSet =
                    (100..100 + members as u64 - 1).map(|n| subject(origin, n, members)).collect();
                let mut expected = RankSet::all(members);
                expected.remove(origin);
                assert_eq!(spoken, expected);
            }
        }
    }

    #[test]
    fn of_what_casts_carried_the_newest_is_known_before_it_is_merged() {
        let matrix = MatrixSlot(40);
        let spot = Spot { word: 1, shift: 16, mask: 0xffff };
        let steps = [GossipStep { spot, matrix, ..GossipStep::default() }];
        let mut carried = Carried::new(3, 2, &steps);
        let (a, b, c) = (Rank(0), Rank(1), Rank(2));
        let merged = 0xfff0;
        assert_eq!(carried.with(matrix, a, b, merged), merged);
        carried.note(a, b, &[u64::MAX, 0xfff4_ffff]);
        carried.note(a, b, &[0, 0x0003_1234]);
        carried.note(c, b, &[0, 0]);
        assert_eq!(carried.with(matrix, a, b, merged), 0x1_0003);
        assert_eq!(carried.with(matrix, c, b, merged), 0x1_0000);
        // Of others, and of what does not ride on casts, nothing was said.
        assert_eq!(carried.with(matrix, b, a, merged), merged);
        assert_eq!(carried.with(MatrixSlot(41), a, b, merged), merged);
        assert_eq!(carried.places.len(), 2);
    }

    #[test]
    fn a_short_value_is_lengthened_across_its_wrap_and_never_goes_back() {
        assert_eq!(lengthen(0xfff0, 0x0005), 0x1_0005);
        assert_eq!(lengthen(0x1_0005, 0xfff0), 0x1_0005);
        assert_eq!(lengthen(7, 7), 7);
        assert_eq!(lengthen(1 << 40, 9), (1 << 40) + 9);
    }
}
