//! The executor: runs plans over slots (design D3, D4).
//!
//! Everything is checked before anything is written: a miss leaves no trace.

use super::effects::Batch;
use super::plan::{DeliverStep, Plan, TemplateStep};
use crate::buf::FrameMut;
use crate::id::Rank;
use crate::stack::core::{Core, Looped};
use crate::stack::event::{Count, List};
use crate::stack::gossip::{lengthen, subject};
use crate::stack::slots::{SlotFile, fixed};
use crate::transport::{Destination, Received, Transmit};
use crate::wire::layout::{TEMPLATE_WORDS_MAX, WORDS_MAX};
use crate::wire::pack;
use crate::wire::{PACK_FLAG, Traffic};

/// Words of a member's section that every stack has.
const FIXED: usize = fixed::MEMBER_FREE as usize;

/// Why a plan did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// Bits of the guard that are set.
    Guard(u64),
    /// The frame is shorter than the header.
    Short,
    /// Protocol fields differ from the prediction: index of the first word, and the bits that differ.
    Field(u8, u64),
    /// A message field is wrong: index of the filter.
    Filter(u8),
    /// The payload is not the pack it is said to be.
    Pack,
    /// The frame came ahead of its turn: too far, or found no room among the early.
    TooEarly,
    /// The frame came ahead of its turn, which did not come in time.
    Waited,
    /// The frame came ahead of its turn, and the layers look at all there is: the view ends.
    Flushed,
    /// An own cast comes back that took the layers on its way down.
    ByLayers,
    /// The frame was dropped, as too many of its origin are held for their order.
    Dropped,
}

/// What became of a frame.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is accepted; without a deliver step it is to be delivered now.
    Hit {
        /// The frame's number.
        number: u64,
        /// Its messages.
        count: Count,
        /// Whether it ends its origin's turn.
        marked: bool,
    },
    /// It is right but for being this many frames ahead.
    Early(u64),
    /// It needs the layers.
    Miss(Miss),
}

/// Which copy of the executor runs a plan: the loops over words of common headers unroll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A cast with one template word and nothing else.
    Cast1Of1,
    /// A cast with one template word of two.
    Cast1Of2,
    /// A cast with two template words and nothing else.
    Cast2Of2,
    /// A cast with two template words of three.
    Cast2Of3,
    /// A cast with three template words and nothing else.
    Cast3Of3,
    /// Any cast.
    Cast,
    /// Any send.
    Send,
}

impl Shape {
    /// Header words that the copy reads.
    pub(crate) fn words(self) -> usize {
        match self {
            Shape::Cast1Of1 => 1,
            Shape::Cast1Of2 | Shape::Cast2Of2 => 2,
            Shape::Cast2Of3 | Shape::Cast3Of3 => 3,
            Shape::Cast | Shape::Send => WORDS_MAX,
        }
    }

    pub(crate) fn of(plan: &Plan) -> Shape {
        match (plan.kind.traffic(), plan.template_words, plan.words) {
            (Traffic::Cast, 1, 1) => Shape::Cast1Of1,
            (Traffic::Cast, 1, 2) => Shape::Cast1Of2,
            (Traffic::Cast, 2, 2) => Shape::Cast2Of2,
            (Traffic::Cast, 2, 3) => Shape::Cast2Of3,
            (Traffic::Cast, 3, 3) => Shape::Cast3Of3,
            (Traffic::Cast, ..) => Shape::Cast,
            _ => Shape::Send,
        }
    }
}

/// Runs a deliver plan's accept step (and all of it, if it has no second one) on `bytes`, header first, of which `first`
/// is the first word. The frame is retained by the caller.
#[inline(always)]
pub(crate) fn accept(core: &mut Core, plan: &Plan, origin: Rank, first: u64, bytes: &[u8]) -> Outcome {
    match plan.shape {
        Shape::Cast1Of2 => accept_words::<true, 1, 2>(core, plan, origin, first, bytes),
        shape => accept_other(core, plan, shape, origin, first, bytes),
    }
}

/// As [`accept`], where it is not in everybody's way.
#[inline(never)]
pub(crate) fn accept_apart(core: &mut Core, plan: &Plan, origin: Rank, first: u64, bytes: &[u8]) -> Outcome {
    accept(core, plan, origin, first, bytes)
}

/// Runs a deliver plan on as many of `frames` as may be taken together: those of the first's cookie that have one message
/// each, by a plan that has no more to do for each of them than to compare, to count and to retain, and that nothing holds
/// up: what is to be delivered in order ends before the first that may change what comes next. What is the same for all of
/// them is done once. Returns how many of the first were accepted.
#[inline]
pub(crate) fn accept_run(core: &mut Core, plan: &Plan, origin: Rank, frames: &[Received]) -> usize {
    if !plan.retain || !plan.effects.may_wait() {
        return 0;
    }
    match plan.shape {
        Shape::Cast1Of2 => accept_run_words::<1, 2>(core, plan, origin, frames),
        shape => accept_other_run(core, plan, shape, origin, frames),
    }
}

/// The other shapes.
#[inline(never)]
fn accept_other_run(core: &mut Core, plan: &Plan, shape: Shape, origin: Rank, frames: &[Received]) -> usize {
    match shape {
        Shape::Cast1Of1 => accept_run_words::<1, 1>(core, plan, origin, frames),
        Shape::Cast2Of2 => accept_run_words::<2, 2>(core, plan, origin, frames),
        Shape::Cast2Of3 => accept_run_words::<2, 3>(core, plan, origin, frames),
        Shape::Cast3Of3 => accept_run_words::<3, 3>(core, plan, origin, frames),
        Shape::Send => 0,
        _ => accept_run_words::<TEMPLATE_WORDS_MAX, WORDS_MAX>(core, plan, origin, frames),
    }
}

/// For headers of so many words, so many of them in the template.
#[inline(always)]
fn accept_run_words<const TEMPLATE: usize, const WORDS: usize>(
    core: &mut Core,
    plan: &Plan,
    origin: Rank,
    frames: &[Received],
) -> usize {
    let lines = core.slots.lines(origin);
    if lines[fixed::CAST_DELIVER_GUARD as usize] != 0 {
        return 0;
    }
    let begin = template_of::<TEMPLATE>(lines);
    let number = (begin[usize::from(plan.number.word) % TEMPLATE] >> plan.number.shift) & plan.number.mask;
    let room = match &plan.deliver {
        None => u64::MAX,
        Some(step) => at_once(core, step, origin, number),
    };
    let room = room.min(core.casts[origin.index()].room_left() as u64) as usize;
    let cookie = core.cookies[origin.index()][Traffic::Cast as usize];
    let bytes = frames.iter().take(room).map(Received::bytes);
    let taken = predicted::<TEMPLATE, WORDS>(core, plan, &begin, Some(cookie), bytes);
    if taken == 0 {
        return 0;
    }
    let (frames, header) = (&frames[..taken], header_bytes::<WORDS>(plan));
    let payloads = frames.iter().map(|received| (received.to - received.from - header, 1));
    accept_expected::<TEMPLATE>(core, &plan.template, origin, taken);
    deliver_accepted(core, plan, origin, number, payloads);
    let newest_report = core.slots.lines(origin)[fixed::NEWEST_REPORT as usize];
    let pinned = frames.iter().map(|received| received.frame.pinned_bytes() as u64);
    core.pinned_most = pinned.fold(core.pinned_most, u64::max);
    let list = |Received { frame, from, to, .. }: &Received| List::single(frame.clone(), from + header, *to);
    core.casts[origin.index()].keep_run(number, frames.iter().map(list));
    // Of what one origin says of a member the newest says all.
    let members = core.slots.members();
    let before = taken.saturating_sub(members - 1);
    if plan.gossip_count > 0 {
        for (number, received) in (number + before as u64..).zip(&frames[before..]) {
            let (_, words, _) = header_of::<WORDS>(plan, received.bytes()).expect("it was looked at");
            if number >= newest_report {
                core.gossip.carried.note(origin, subject(origin, number, members), &words);
            }
        }
    }
    taken
}

/// The words that are expected of a member's next cast.
#[inline]
fn template_of<const TEMPLATE: usize>(lines: &[u64; FIXED]) -> [u64; TEMPLATE] {
    std::array::from_fn(|at| lines[fixed::CAST_DELIVER_WORDS as usize + at])
}

/// How many of the first `casts`, header first, are what is expected after each other from `begin` on: not marked, of this
/// cookie if one is given (and then one message each), and right in what depends on them alone.
#[inline(always)]
fn predicted<'c, const TEMPLATE: usize, const WORDS: usize>(
    core: &Core,
    plan: &Plan,
    begin: &[u64; TEMPLATE],
    cookie: Option<u64>,
    casts: impl Iterator<Item = &'c [u8]> + Clone,
) -> usize {
    // A mark is in a template word, and what is expected has none.
    let (mut expected, mut masks) = (*begin, [0; TEMPLATE]);
    for at in 0..TEMPLATE {
        let marks = if usize::from(plan.marks.0) == at { plan.marks.1 } else { 0 };
        expected[at] &= !marks;
        masks[at] = plan.template[at].mask | marks;
    }
    let right = |bytes: &&[u8]| {
        let Some((first, words, _)) = header_of::<WORDS>(plan, bytes) else { return false };
        let mut differs = cookie.map_or(0, |cookie| cookie ^ first);
        for at in 0..TEMPLATE {
            differs |= (words[at] ^ expected[at]) & masks[at];
            expected[at] += plan.template[at].add;
        }
        differs == 0
    };
    let taken = casts.clone().take_while(right).count();
    if plan.filters.is_empty() {
        return taken;
    }
    casts.take(taken).take_while(|bytes| passes::<WORDS>(core, plan, bytes)).count()
}

/// Runs the accept step of so many casts that are what was expected, but for effects.
#[inline(always)]
fn accept_expected<const TEMPLATE: usize>(
    core: &mut Core,
    template: &[TemplateStep],
    origin: Rank,
    count: usize,
) {
    let lines = core.slots.lines(origin);
    for (at, step) in template.iter().enumerate().take(TEMPLATE) {
        lines[fixed::CAST_DELIVER_WORDS as usize + at] += step.add * count as u64;
    }
    lines[fixed::CAST_ACCEPT_HITS as usize] += count as u64;
    core.work += count as u32;
}

/// What follows for those, from this number on, which are delivered [`at_once`]: the deliver step, if there is one, and the
/// effects of both; of each its bytes of payload and its messages.
#[inline(always)]
fn deliver_accepted(
    core: &mut Core,
    plan: &Plan,
    origin: Rank,
    number: u64,
    payloads: impl ExactSizeIterator<Item = (usize, usize)>,
) {
    if let Some(step) = &plan.deliver {
        core.slots.section(origin)[step.hits as usize] += payloads.len() as u64;
    }
    if plan.affects {
        let add = |batch: Batch, (bytes, messages)| batch.and(bytes, messages);
        let batch = payloads.fold(Batch::from(number), add);
        for effects in plan.effects_of_first_steps().filter(|effects| !effects.is_empty()) {
            core.affect(effects, origin, &batch);
        }
    }
}

/// Cookie, words and payload of a cast.
#[inline(always)]
fn header_of<'c, const WORDS: usize>(plan: &Plan, bytes: &'c [u8]) -> Option<(u64, [u64; WORDS], &'c [u8])> {
    let (header, payload) = bytes.split_at_checked(header_bytes::<WORDS>(plan))?;
    let (chunks, _) = header.as_chunks::<8>();
    let (first, rest) = chunks.split_first()?;
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(rest) {
        *word = u64::from_le_bytes(*chunk);
    }
    Some((u64::from_le_bytes(*first), words, payload))
}

/// Whether the message fields of a frame are right.
#[inline(never)]
fn passes<const WORDS: usize>(core: &Core, plan: &Plan, bytes: &[u8]) -> bool {
    let Some((first, words, payload)) = header_of::<WORDS>(plan, bytes) else { return false };
    let layout = &core.layouts[Traffic::Cast as usize];
    plan.filters.iter().all(|filter| {
        let value = layout.filter_in(usize::from(filter.field), first, &words, payload);
        value == filter.spot.read_in::<WORDS>(&words)
    })
}

/// The other shapes, out of the way of the most common one.
#[inline(never)]
fn accept_other(
    core: &mut Core,
    plan: &Plan,
    shape: Shape,
    origin: Rank,
    first: u64,
    bytes: &[u8],
) -> Outcome {
    match shape {
        Shape::Cast1Of1 => accept_words::<true, 1, 1>(core, plan, origin, first, bytes),
        Shape::Cast2Of2 => accept_words::<true, 2, 2>(core, plan, origin, first, bytes),
        Shape::Cast2Of3 => accept_words::<true, 2, 3>(core, plan, origin, first, bytes),
        Shape::Cast3Of3 => accept_words::<true, 3, 3>(core, plan, origin, first, bytes),
        Shape::Send => accept_words::<false, TEMPLATE_WORDS_MAX, WORDS_MAX>(core, plan, origin, first, bytes),
        _ => accept_words::<true, TEMPLATE_WORDS_MAX, WORDS_MAX>(core, plan, origin, first, bytes),
    }
}

#[inline(always)]
fn accept_words<const CAST: bool, const TEMPLATE: usize, const WORDS: usize>(
    core: &mut Core,
    plan: &Plan,
    origin: Rank,
    first: u64,
    bytes: &[u8],
) -> Outcome {
    let (guard_at, hits_at, words_at) = match CAST {
        true => (fixed::CAST_DELIVER_GUARD, fixed::CAST_ACCEPT_HITS, fixed::CAST_DELIVER_WORDS),
        false => (fixed::SEND_DELIVER_GUARD, fixed::SEND_DELIVER_HITS, fixed::SEND_DELIVER_WORDS),
    };
    let (guard_at, hits_at, words_at) = (guard_at as usize, hits_at as usize, words_at as usize);
    let members = core.slots.members();
    let section = core.slots.section(origin);
    let (lines, rows) = section.split_first_chunk_mut::<FIXED>().expect("a section has all fixed words");
    if lines[guard_at] != 0 {
        return Outcome::Miss(Miss::Guard(lines[guard_at]));
    }
    #[cfg(test)]
    if plan.hasty {
        lines[words_at] += plan.template[0].add;
    }
    let Some((header, payload)) = bytes.split_at_checked(header_bytes::<WORDS>(plan)) else {
        return Outcome::Miss(Miss::Short);
    };
    let mut words = [0; WORDS];
    let (chunks, _) = header.as_chunks::<8>();
    for (word, chunk) in words.iter_mut().zip(chunks.iter().skip(1)) {
        *word = u64::from_le_bytes(*chunk);
    }
    // Sends have room for fewer template words than casts; steps that a plan does not have compare and add nothing.
    let template = if CAST { TEMPLATE } else { TEMPLATE.min(fixed::SEND_TEMPLATE_WORDS_MAX) };
    let steps = &plan.template;
    let mut differs = 0;
    for at in 0..template {
        differs |= (words[at] ^ lines[words_at + at]) & steps[at].mask;
    }
    if differs != 0 {
        return unpredicted(plan, &lines[words_at..], &words);
    }
    let packed = first & PACK_FLAG != 0;
    if !plan.filters.is_empty() {
        let layout = &core.layouts[plan.kind.traffic() as usize];
        for (at, filter) in plan.filters.iter().enumerate() {
            let value = layout.filter_in(usize::from(filter.field), first, &words, payload);
            if value != filter.spot.read_in::<WORDS>(&words) {
                return Outcome::Miss(Miss::Filter(at as u8));
            }
        }
    }
    let mut count = Count::ONE;
    if packed {
        match pack::check(payload) {
            Ok(messages) => count = Count::pack(messages),
            Err(_) => return Outcome::Miss(Miss::Pack),
        }
    }
    // From here on nothing can fail.
    for at in 0..template {
        lines[words_at + at] += steps[at].add;
    }
    lines[hits_at] += 1;
    let number = plan.number.read_in::<WORDS>(&words);
    if plan.gossip_count > 0 {
        if !CAST {
            for gossip in plan.gossips() {
                let short = gossip.spot.read_in::<WORDS>(&words) as u16;
                let word = &mut rows[gossip.matrix.0 as usize - FIXED + core.own.index()];
                *word = lengthen(*word, short);
            }
        } else if number >= lines[fixed::NEWEST_REPORT as usize] {
            core.gossip.carried.note(origin, subject(origin, number, members), &words);
        }
    }
    if !plan.effects.is_empty() {
        core.affect(&plan.effects, origin, &Batch::of_one(number, payload.len(), count.messages() as usize));
    }
    core.work += 1;
    Outcome::Hit { number, count, marked: CAST && is_marked::<WORDS>(plan, &words) }
}

/// Whether a cast with these words ends its origin's turn.
#[inline]
fn is_marked<const WORDS: usize>(plan: &Plan, words: &[u64; WORDS]) -> bool {
    let (word, bits) = plan.marks;
    words[usize::from(word) & (WORDS.next_power_of_two() - 1)] & bits != 0
}

/// Bytes of a compressed header: known beforehand where a copy of the executor is for one number of words.
#[inline]
fn header_bytes<const WORDS: usize>(plan: &Plan) -> usize {
    if WORDS == WORDS_MAX { plan.header_bytes } else { 8 + 8 * WORDS }
}

/// Runs the self-deliver plan on as many of `lists`, own casts from this number on that come back up by the plan, as may be
/// taken together: nothing holds them up. Returns how many of the first were accepted.
#[inline]
pub(crate) fn own_run(core: &mut Core, plan: &Plan, number: u64, lists: &[List]) -> usize {
    if !plan.effects.may_wait() {
        return 0;
    }
    let taken = accept_own(core, plan, lists);
    if taken > 0 {
        let payloads = lists[..taken].iter().map(|list| (list.payload().len(), list.len()));
        deliver_accepted(core, plan, core.own, number, payloads);
    }
    taken
}

/// Runs the accept step of a self-deliver plan on an own cast that comes back up by the plan. Whether it was accepted.
#[inline(always)]
pub(crate) fn own_one(core: &mut Core, plan: &Plan, number: u64, list: &List) -> bool {
    let taken = accept_own(core, plan, std::slice::from_ref(list)) > 0;
    if taken && !plan.effects.is_empty() {
        core.affect(&plan.effects, core.own, &Batch::of_one(number, list.payload().len(), list.len()));
    }
    taken
}

/// Runs the accept step of a self-deliver plan, but for effects. Returns on how many of the first.
#[inline(always)]
fn accept_own(core: &mut Core, plan: &Plan, lists: &[List]) -> usize {
    let lines = core.slots.lines(core.own);
    if lines[fixed::CAST_DELIVER_GUARD as usize] != 0 {
        return 0;
    }
    if !plan.bare {
        return accept_own_other(core, plan, lists);
    }
    lines[fixed::CAST_ACCEPT_HITS as usize] += lists.len() as u64;
    core.work += lists.len() as u32;
    lists.len()
}

/// By a plan that has more to do than to count.
#[inline(never)]
fn accept_own_other(core: &mut Core, plan: &Plan, lists: &[List]) -> usize {
    if plan.gossip_count > 0 {
        return 0;
    }
    match plan.shape {
        Shape::Cast2Of2 => accept_own_words::<2, 2>(core, plan, lists),
        Shape::Cast2Of3 => accept_own_words::<2, 3>(core, plan, lists),
        Shape::Cast3Of3 => accept_own_words::<3, 3>(core, plan, lists),
        _ => accept_own_words::<TEMPLATE_WORDS_MAX, WORDS_MAX>(core, plan, lists),
    }
}

#[inline(always)]
fn accept_own_words<const TEMPLATE: usize, const WORDS: usize>(
    core: &mut Core,
    plan: &Plan,
    lists: &[List],
) -> usize {
    let begin = template_of::<TEMPLATE>(core.slots.lines(core.own));
    let casts = lists.iter().map(|list| with_header(plan, list));
    let taken = predicted::<TEMPLATE, WORDS>(core, plan, &begin, None, casts);
    accept_expected::<TEMPLATE>(core, &plan.template, core.own, taken);
    taken
}

/// A cast by plan, its compressed header first.
#[inline]
fn with_header<'l>(plan: &Plan, list: &'l List) -> &'l [u8] {
    list.frame().slice(list.from() - plan.header_bytes, list.to())
}

/// How many own casts, from the first on that waits to come back up by the plan, are delivered at once: nothing is held, and
/// none of them changes what comes next, up to a blank.
#[inline]
pub(crate) fn own_at_once(core: &Core, plan: &Plan) -> u64 {
    let Some(step) = &plan.deliver else { return u64::MAX };
    let number = core.loop_numbers.start;
    match (core.order.is_empty(), &step.turns) {
        (false, _) => 0,
        (true, None) => at_once(core, step, core.own, number),
        (true, Some(turns)) => at_once(core, step, core.own, number).min(core.own_unmarked(turns, number)),
    }
}

/// Whether nothing is held, and the own cast `number`, the first that waits to come back up by the plan, has no mark.
#[inline]
pub(crate) fn own_is_plain(core: &Core, step: &DeliverStep, number: u64) -> bool {
    core.order.is_empty() && step.turns.is_none_or(|turns| core.own_unmarked(&turns, number) > 0)
}

/// How many casts of `origin` from `number` on are delivered at once if nothing is held and none of them is marked or a
/// blank: those that are released, but for the last, with which a run may end.
#[inline]
pub(crate) fn at_once(core: &Core, step: &DeliverStep, origin: Rank, number: u64) -> u64 {
    let release = core.slots.section_of(origin).get(step.release as usize);
    release.map_or(0, |release| release.saturating_sub(number + 1))
}

/// Runs the deliver step of the one cast `number`, if it is delivered [`at_once`] and that has no effects. Whether it is.
#[inline]
pub(crate) fn deliver_one_at_once(core: &mut Core, step: &DeliverStep, origin: Rank, number: u64) -> bool {
    let section = core.slots.section(origin);
    let delivered = step.effects.is_empty()
        && section.get(step.release as usize).is_some_and(|release| *release > number + 1);
    section[step.hits as usize] += u64::from(delivered);
    delivered
}

/// Runs the self-deliver plan on an own cast that comes back up.
pub(crate) fn own_copy(core: &mut Core, plan: &Plan, list: &List, number: u64) -> Outcome {
    let own = core.own;
    if plan.bare {
        return match own_one(core, plan, number, list) {
            true => Outcome::Hit { number, count: list.count(), marked: is_list_marked(plan, list) },
            false => Outcome::Miss(Miss::Guard(core.slots.lines(own)[fixed::CAST_DELIVER_GUARD as usize])),
        };
    }
    let bytes = with_header(plan, list);
    accept_apart(core, plan, own, first_word(bytes), bytes)
}

fn first_word(bytes: &[u8]) -> u64 {
    crate::wire::word(bytes, 0).expect("a header begins with a cookie")
}

/// A frame that is not the predicted one: early if every word is a whole number of frames ahead, else a miss.
///
/// `slots` begins with the plan's template words.
#[cold]
#[inline(never)]
fn unpredicted(plan: &Plan, slots: &[u64], words: &[u64]) -> Outcome {
    let template = &plan.template[..plan.template_words];
    let first = template
        .iter()
        .zip(slots)
        .map(|(step, slot)| (step.word, (words[usize::from(step.word)] ^ slot) & step.mask))
        .find(|(_, differs)| *differs != 0)
        .unwrap_or_default();
    let miss = Outcome::Miss(Miss::Field(first.0, first.1));
    let number = plan.number;
    let at = usize::from(number.word);
    let expected = (slots[at] >> number.shift) & number.mask;
    let ahead = match number.read(words).checked_sub(expected) {
        Some(ahead) if ahead > 0 => ahead,
        _ => return miss,
    };
    let all_ahead = template.iter().zip(slots).all(|(step, slot)| {
        let word = slot.wrapping_add(step.add.wrapping_mul(ahead));
        (words[usize::from(step.word)] ^ word) & step.mask == 0
    });
    if all_ahead { Outcome::Early(ahead) } else { miss }
}

/// Runs the deliver step of an accepted frame, if its release words have reached it; it is or is not marked.
#[inline(never)]
pub(crate) fn released(
    core: &mut Core,
    step: &DeliverStep,
    origin: Rank,
    number: u64,
    list: &List,
    marked: bool,
) -> bool {
    let section = core.slots.section(origin);
    if let Some(release) = section.get(step.release as usize) {
        if *release <= number {
            return false;
        }
        section[step.hits as usize] += 1;
        if !step.effects.is_empty() {
            core.affect(&step.effects, origin, &Batch::of_one(number, list.payload().len(), list.len()));
        }
    } else if !released_otherwise(core, step, origin, number, list) {
        return false;
    }
    if let (Some(turns), true) = (&step.turns, marked) {
        let ended = core.end_turn(turns, origin, number, list);
        ended.unwrap_or_else(|what| core.count(step.layer, what));
    }
    if let Some(script) = &step.script {
        let gone_on = core.go_on(script, origin, number, list);
        gone_on.unwrap_or_else(|what| core.count(step.layer, what));
    }
    true
}

/// Several words release, or something is done besides.
#[inline(never)]
fn released_otherwise(core: &mut Core, step: &DeliverStep, origin: Rank, number: u64, list: &List) -> bool {
    let section = core.slots.member(origin);
    if step.releases.iter().any(|release| core.slots.word(section + release) <= number) {
        return false;
    }
    *core.slots.word_mut(section + step.hits) += 1;
    if !step.effects.is_empty() {
        core.affect(&step.effects, origin, &Batch::of_one(number, list.payload().len(), list.len()));
    }
    if step.retain {
        core.keep_cast(origin, number, list.clone());
    }
    true
}

/// Runs the last step of a frame that has come into order, if there is one and the frame may go; returns whether it goes.
#[inline]
pub(crate) fn released_in_order(
    core: &mut Core,
    plan: &Plan,
    origin: Rank,
    number: u64,
    list: &List,
) -> bool {
    let Some(step) = &plan.last else { return true };
    let Some(services) = &step.services else { return true };
    let goes = core.comes_in_order(services, origin, number, is_list_agreed(plan, list));
    if goes {
        let _ = released(core, step, origin, number, list, false);
    }
    goes
}

/// Whether a cast by plan, whose compressed header stands before its payload, is agreed and not safe.
#[inline]
pub(crate) fn is_list_agreed(plan: &Plan, list: &List) -> bool {
    has_mark(plan.header_bytes, plan.agreed, list)
}

/// Whether a cast by plan, whose compressed header stands before its payload, ends its origin's turn.
#[inline]
pub(crate) fn is_list_marked(plan: &Plan, list: &List) -> bool {
    has_mark(plan.header_bytes, plan.marks, list)
}

#[inline]
fn has_mark(header_bytes: usize, (word, bits): (u8, u64), list: &List) -> bool {
    let at = list.from() - header_bytes + 8 + 8 * usize::from(word);
    bits != 0 && crate::wire::word(list.frame().slice(at, at + 8), 0).is_some_and(|word| word & bits != 0)
}

/// Runs a send plan on a payload whose guard is known to be open: writes the header, applies the effects and puts the
/// frame into the outbox.
#[inline(always)]
pub(crate) fn send(core: &mut Core, plan: &Plan, peer: Rank, frame: FrameMut, count: Count) {
    match plan.shape {
        Shape::Cast1Of2 => send_words::<true, 1, 2>(core, plan, peer, frame, count),
        shape => send_other(core, plan, shape, peer, frame, count),
    }
}

/// As [`send`], where it is not in everybody's way.
#[inline(never)]
pub(crate) fn send_apart(core: &mut Core, plan: &Plan, peer: Rank, frame: FrameMut, count: Count) {
    send(core, plan, peer, frame, count);
}

/// The other shapes.
#[inline(never)]
fn send_other(core: &mut Core, plan: &Plan, shape: Shape, peer: Rank, frame: FrameMut, count: Count) {
    match shape {
        Shape::Cast1Of1 => send_words::<true, 1, 1>(core, plan, peer, frame, count),
        Shape::Cast2Of2 => send_words::<true, 2, 2>(core, plan, peer, frame, count),
        Shape::Cast2Of3 => send_words::<true, 2, 3>(core, plan, peer, frame, count),
        Shape::Cast3Of3 => send_words::<true, 3, 3>(core, plan, peer, frame, count),
        Shape::Send => {
            send_words::<false, TEMPLATE_WORDS_MAX, WORDS_MAX>(core, plan, peer, frame, count);
        }
        _ => send_words::<true, TEMPLATE_WORDS_MAX, WORDS_MAX>(core, plan, peer, frame, count),
    }
}

#[inline(always)]
fn send_words<const CAST: bool, const TEMPLATE: usize, const WORDS: usize>(
    core: &mut Core,
    plan: &Plan,
    peer: Rank,
    mut frame: FrameMut,
    count: Count,
) {
    let (own, members) = (core.own, core.slots.members());
    let steps = &plan.template;
    let mut words = [0; WORDS];
    if CAST {
        let line = core.slots.own_line();
        for at in 0..TEMPLATE {
            let slot = &mut line[fixed::CAST_SEND_WORDS as usize + at];
            words[at] = *slot & steps[at].mask;
            *slot += steps[at].add;
        }
        line[fixed::CAST_SEND_HITS as usize] += 1;
    } else {
        let lines = core.slots.lines(peer);
        for at in 0..TEMPLATE.min(fixed::SEND_TEMPLATE_WORDS_MAX) {
            let slot = &mut lines[fixed::SEND_SEND_WORDS as usize + at];
            words[at] = *slot & steps[at].mask;
            *slot += steps[at].add;
        }
        lines[fixed::SEND_SEND_HITS as usize] += 1;
    }
    let number = plan.number.read_in::<WORDS>(&words);
    if plan.gossip_count > 0 && members > 1 {
        let about = if CAST { subject(own, number, members) } else { peer };
        let rides = if CAST {
            let changes = core.slots.changes();
            let riding = &mut core.gossip.riding[about.index()];
            let known: &mut [u64; WORDS] = riding.words.first_chunk_mut().expect("no header has more words");
            if riding.changes != changes {
                (riding.changes, *known) = (changes, gossip(plan, &core.slots, about));
            }
            debug_assert_eq!(*known, gossip(plan, &core.slots, about));
            *known
        } else {
            gossip::<WORDS>(plan, &core.slots, about)
        };
        words.iter_mut().zip(rides).for_each(|(word, rides)| *word |= rides);
    }
    let first = plan.cookie | if count.is_pack() { PACK_FLAG } else { 0 };
    for filter in &plan.filters {
        let layout = &core.layouts[plan.kind.traffic() as usize];
        let value = layout.filter_in(usize::from(filter.field), first, &words, frame.bytes());
        filter.spot.write_in::<WORDS>(&mut words, value);
    }
    let header_bytes = header_bytes::<WORDS>(plan);
    let header = frame.prepend(header_bytes).expect("frames are taken with room for the plan's header");
    let (chunks, _) = header.as_chunks_mut::<8>();
    let (cookie, rest) = chunks.split_first_mut().expect("a header begins with a cookie");
    *cookie = first.to_le_bytes();
    for (chunk, word) in rest.iter_mut().zip(words) {
        *chunk = word.to_le_bytes();
    }
    let frame = frame.freeze();
    frame.submit();
    let (from, to) = (frame.start() + header_bytes, frame.end());
    if !plan.effects.is_empty() {
        core.affect(&plan.effects, peer, &Batch::of_one(number, to - from, count.messages() as usize));
    }
    // Casts have one ceiling, under all limits; each send is compared with the limits of its peer.
    if CAST && number + 1 >= core.ceiling {
        core.ceiling = limit(plan, core.slots.own());
    } else if !CAST {
        limit(plan, core.slots.section(peer));
    }
    core.work += 1;
    if CAST && plan.retain {
        let list = List::counted(frame, from, to, count);
        let retention = &mut core.casts[own.index()];
        match retention.has_room() {
            true => retention.keep_in_room(number, list),
            false => core.keep_own(number, list),
        }
        if let Some(layer) = plan.loop_layer {
            core.loop_retained(layer, number);
        }
        if members > 1 {
            core.submit_retained(number);
        }
        return;
    }
    if plan.retain {
        core.sends[peer.index()].keep(number, List::counted(frame.clone(), from, to, count));
    }
    if let Some(layer) = plan.loop_layer {
        core.loop_back(Looped {
            layer,
            number,
            list: List::counted(frame.clone(), from, to, count),
            slow: false,
        });
    }
    let to = match CAST {
        true if members > 1 => Destination::All,
        true => return,
        false => Destination::One(peer),
    };
    core.submit(Transmit { channel: core.channel, to, head: frame, body: None });
}

/// What a header says of a member.
#[inline]
fn gossip<const WORDS: usize>(plan: &Plan, slots: &SlotFile, about: Rank) -> [u64; WORDS] {
    let section = slots.section_of(about);
    let mut words = [0; WORDS];
    for gossip in plan.gossips() {
        let value = (section[gossip.source as usize] >> gossip.source_shift) & gossip.source_mask;
        gossip.spot.write_in::<WORDS>(&mut words, value);
    }
    words
}

/// Sets the guards and marks whose limits a field has reached; returns the number at which the next one may be: zero if there
/// are limits on other fields than the number. Limits change by layers and by effects, and every such change sets the
/// ceiling to zero too.
#[inline(never)]
fn limit(plan: &Plan, section: &mut [u64]) -> u64 {
    let mut ceiling = u64::MAX;
    for limit in &plan.limits {
        let at = section[limit.limit as usize];
        let field = (section[limit.field_slot as usize] >> limit.field.shift) & limit.field.mask;
        if field >= at {
            section[limit.word as usize] |= limit.bits;
        }
        ceiling = if limit.on_number { ceiling.min(at) } else { 0 };
    }
    ceiling
}
