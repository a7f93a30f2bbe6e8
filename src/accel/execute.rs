//! The executor: runs plans over slots (design D3, D4).
//!
//! Everything is checked before anything is written: a miss leaves no trace.

use super::case::{Effect, Target};
use super::plan::{DeliverStep, Plan, TurnStep, apply, value_of};
use crate::buf::FrameMut;
use crate::id::Rank;
use crate::stack::core::{Core, Looped};
use crate::stack::event::{Count, List};
use crate::stack::gossip::{lengthen, subject};
use crate::stack::layer::Kind;
use crate::stack::slots::fixed;
use crate::transport::{Destination, Transmit};
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
    Cast1,
    /// A cast with one template word and one more.
    Cast2,
    /// Any cast.
    Cast,
    /// Any send.
    Send,
}

impl Shape {
    /// Header words that the copy reads.
    pub(crate) fn words(self) -> usize {
        match self {
            Shape::Cast1 => 1,
            Shape::Cast2 => 2,
            Shape::Cast | Shape::Send => WORDS_MAX,
        }
    }

    pub(crate) fn of(plan: &Plan) -> Shape {
        match (plan.kind.traffic(), plan.template_words, plan.words) {
            (Traffic::Cast, 1, 1) => Shape::Cast1,
            (Traffic::Cast, 1, 2) => Shape::Cast2,
            (Traffic::Cast, ..) => Shape::Cast,
            _ => Shape::Send,
        }
    }
}

/// Runs a deliver plan's accept step (and all of it, if it has no second one) on `bytes`, header first, of which `first`
/// is the first word. The frame is retained by the caller.
#[inline]
pub(crate) fn accept(core: &mut Core, plan: &Plan, origin: Rank, first: u64, bytes: &[u8]) -> Outcome {
    match plan.shape {
        Shape::Cast2 => accept_words::<true, 1, 2>(core, plan, origin, first, bytes),
        shape => accept_other(core, plan, shape, origin, first, bytes),
    }
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
        Shape::Cast1 => accept_words::<true, 1, 1>(core, plan, origin, first, bytes),
        Shape::Send => accept_words::<false, TEMPLATE_WORDS_MAX, WORDS_MAX>(core, plan, origin, first, bytes),
        _ => accept_words::<true, TEMPLATE_WORDS_MAX, WORDS_MAX>(core, plan, origin, first, bytes),
    }
}

#[inline]
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
        affect(core, plan, &plan.effects, origin, number, payload.len(), count.messages());
    }
    core.work += 1;
    Outcome::Hit { number, count }
}

/// Bytes of a compressed header: known beforehand where a copy of the executor is for one number of words.
#[inline]
fn header_bytes<const WORDS: usize>(plan: &Plan) -> usize {
    if WORDS == WORDS_MAX { plan.header_bytes } else { 8 + 8 * WORDS }
}

/// Changes the words that are not in the template.
#[inline(never)]
fn affect(
    core: &mut Core,
    plan: &Plan,
    effects: &[Effect],
    member: Rank,
    number: u64,
    payload_bytes: usize,
    messages: u32,
) {
    let section = if plan.kind == Kind::CastSend { 0 } else { core.slots.member(member) };
    for effect in effects {
        let value = value_of(effect.source, number, payload_bytes, messages as usize, core.now.as_nanos());
        core.change(*effect, section, value);
    }
}

/// Runs a bare self-deliver plan; `section` is where the own member's words begin. Returns whether its guard is open.
#[inline]
pub(crate) fn own_copy(core: &mut Core, section: u32) -> bool {
    if core.slots.word(section + fixed::CAST_DELIVER_GUARD) != 0 {
        return false;
    }
    *core.slots.word_mut(section + fixed::CAST_ACCEPT_HITS) += 1;
    core.work += 1;
    true
}

/// Runs the self-deliver plan on an own cast that comes back up.
pub(crate) fn own_copy_checked(core: &mut Core, plan: &Plan, list: &List, number: u64) -> Outcome {
    let own = core.own;
    if plan.bare {
        let section = core.slots.member(own);
        return match own_copy(core, section) {
            true => Outcome::Hit { number, count: list.count() },
            false => Outcome::Miss(Miss::Guard(core.slots.word(section + fixed::CAST_DELIVER_GUARD))),
        };
    }
    let bytes = list.frame().slice(list.from() - plan.header_bytes, list.to());
    accept(core, plan, own, first_word(bytes), bytes)
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

/// Runs the deliver step of an accepted frame, if its release words have reached it.
#[inline]
pub(crate) fn released(core: &mut Core, step: &DeliverStep, origin: Rank, number: u64, list: &List) -> bool {
    if step.plain {
        let section = core.slots.section(origin);
        if section[step.releases[0] as usize] <= number {
            return false;
        }
        section[step.hits as usize] += 1;
    } else if !released_otherwise(core, step, origin, number, list) {
        return false;
    }
    if let Some(turn) = &step.turns
        && marked(turn, step.header_bytes, list)
    {
        let ended = core.end_turn(&turn.turns, origin, number, list);
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
    for effect in &step.effects {
        let value = value_of(effect.source, number, list.payload().len(), list.len(), core.now.as_nanos());
        core.change(*effect, section, value);
    }
    if step.retain {
        core.keep_cast(origin, number, list.clone());
    }
    true
}

/// Runs the last step of a frame that is in order, if there is one and its release words have reached it; those that came
/// into order before it have gone.
#[inline]
pub(crate) fn released_in_order(
    core: &mut Core,
    last: Option<&DeliverStep>,
    origin: Rank,
    number: u64,
    list: &List,
) -> bool {
    match last {
        None => true,
        Some(step) => core.order.is_clear() && released(core, step, origin, number, list),
    }
}

/// Whether a cast by plan, whose compressed header stands before its payload, ends its origin's turn.
#[inline]
fn marked(turn: &TurnStep, header_bytes: usize, list: &List) -> bool {
    let at = list.from() - header_bytes + 8 + 8 * usize::from(turn.mark.word);
    let word = crate::wire::word(list.frame().slice(at, at + 8), 0).unwrap_or_default();
    (word >> turn.mark.shift) & turn.mark.mask != 0
}

/// Runs a send plan on a payload whose guard is known to be open: writes the header, applies the effects and puts the
/// frame into the outbox.
#[inline]
pub(crate) fn send(core: &mut Core, plan: &Plan, peer: Rank, frame: FrameMut, messages: u32, packed: bool) {
    match plan.shape {
        Shape::Cast2 => send_words::<true, 1, 2>(core, plan, peer, frame, messages, packed),
        shape => send_other(core, plan, shape, peer, frame, messages, packed),
    }
}

/// The other shapes.
#[inline(never)]
fn send_other(
    core: &mut Core,
    plan: &Plan,
    shape: Shape,
    peer: Rank,
    frame: FrameMut,
    messages: u32,
    packed: bool,
) {
    match shape {
        Shape::Cast1 => send_words::<true, 1, 1>(core, plan, peer, frame, messages, packed),
        Shape::Send => {
            send_words::<false, TEMPLATE_WORDS_MAX, WORDS_MAX>(core, plan, peer, frame, messages, packed);
        }
        _ => send_words::<true, TEMPLATE_WORDS_MAX, WORDS_MAX>(core, plan, peer, frame, messages, packed),
    }
}

#[inline]
fn send_words<const CAST: bool, const TEMPLATE: usize, const WORDS: usize>(
    core: &mut Core,
    plan: &Plan,
    peer: Rank,
    mut frame: FrameMut,
    messages: u32,
    packed: bool,
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
        let about = core.slots.section(about);
        for gossip in plan.gossips() {
            let value = (about[gossip.source as usize] >> gossip.source_shift) & gossip.source_mask;
            gossip.spot.write_in::<WORDS>(&mut words, value);
        }
    }
    let first = plan.cookie | if packed { PACK_FLAG } else { 0 };
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
    let (from, to, count) = (frame.start() + header_bytes, frame.end(), Count::of(messages, packed));
    if !plan.effects.is_empty() {
        affect(core, plan, &plan.effects, peer, number, to - from, messages);
    }
    // Casts have one ceiling, under all limits; each send is compared with the limits of its peer.
    if CAST && number + 1 >= core.ceiling {
        core.ceiling = limit(plan, core.slots.own());
    } else if !CAST {
        limit(plan, core.slots.section(peer));
    }
    if plan.retain {
        let list = List::counted(frame.clone(), from, to, count);
        if CAST {
            let retention = &mut core.casts[own.index()];
            match retention.has_room() {
                true => retention.keep_in_room(number, list),
                false => core.keep_own(number, list),
            }
        } else {
            core.sends[peer.index()].keep(number, list);
        }
    }
    if let Some(layer) = plan.loop_layer {
        let list = || List::counted(frame.clone(), from, to, count);
        core.loop_back(|| Looped { layer, number, list: list(), slow: false }, number, plan.retain);
    }
    core.work += 1;
    let to = match CAST {
        true if members > 1 => Destination::All,
        true => return,
        false => Destination::One(peer),
    };
    core.outbox.push_back(Transmit { channel: core.channel, to, head: frame, body: None });
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

impl Core {
    /// Runs one effect; `section` is where the member's words begin.
    fn change(&mut self, effect: Effect, section: u32, value: u64) {
        let at = match effect.target {
            Target::Own(slot) => {
                self.ceiling = 0;
                slot.0
            }
            Target::Member(slot) => section + slot.0,
        };
        apply(effect.operation, self.slots.word_mut(at), value);
    }
}
