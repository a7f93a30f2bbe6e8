//! The executor: runs plans over slots (design D3, D4).
//!
//! Everything is checked before anything is written: a miss leaves no trace.

use super::case::Target;
use super::plan::{DeliverStep, Plan, apply, value_of};
use crate::buf::{Frame, FrameMut};
use crate::id::Rank;
use crate::stack::core::{Core, Looped};
use crate::stack::event::List;
use crate::stack::gossip::subject;
use crate::stack::layer::Kind;
use crate::transport::{Destination, Transmit};
use crate::wire::PACK_FLAG;
use crate::wire::full::NO_CONTROL;
use crate::wire::layout::WORDS_MAX;

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
}

/// What became of a frame.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is accepted; without a deliver step it is to be delivered now.
    Hit {
        /// The messages.
        list: List,
        /// The frame's number.
        number: u64,
    },
    /// It is right but for being this many frames ahead.
    Early(u64),
    /// It needs the layers.
    Miss(Miss),
}

/// Runs a deliver plan's accept step (and all of it, if it has no second one) on the bytes `from..to` of `frame`,
/// header first.
#[inline]
pub(crate) fn accept(
    core: &mut Core,
    plan: &Plan,
    origin: Rank,
    frame: &Frame,
    from: usize,
    to: usize,
) -> Outcome {
    // Headers of two words (the default stack) have a copy of their own, in which the loops over words unroll.
    match plan.words {
        2 => accept_words::<2>(core, plan, origin, frame, from, to),
        _ => accept_words::<WORDS_MAX>(core, plan, origin, frame, from, to),
    }
}

#[inline]
fn accept_words<const WORDS: usize>(
    core: &mut Core,
    plan: &Plan,
    origin: Rank,
    frame: &Frame,
    from: usize,
    to: usize,
) -> Outcome {
    let section = core.slots.section(origin);
    let guard = section[plan.guard as usize];
    if guard != 0 {
        return Outcome::Miss(Miss::Guard(guard));
    }
    let bytes = frame.slice(from, to);
    let Some((header, payload)) = bytes.split_at_checked(plan.header_bytes) else {
        return Outcome::Miss(Miss::Short);
    };
    let mut words = [0; WORDS];
    let (first, rest) = header.as_chunks::<8>().0.split_first().expect("a header begins with a cookie");
    for (word, chunk) in words.iter_mut().zip(rest) {
        *word = u64::from_le_bytes(*chunk);
    }
    let template = &plan.template[..plan.template_words];
    let mut differs = 0;
    for step in template {
        differs |= (words[usize::from(step.word)] ^ section[step.slot as usize]) & step.mask;
    }
    if differs != 0 {
        return unpredicted(plan, section, &words);
    }
    let packed = u64::from_le_bytes(*first) & PACK_FLAG != 0;
    if !plan.filters.is_empty()
        && let Some(miss) = filtered(core, plan, origin, packed, &words, payload)
    {
        return Outcome::Miss(miss);
    }
    let Ok(list) = List::parse(frame.clone(), from + plan.header_bytes, to, packed) else {
        return Outcome::Miss(Miss::Pack);
    };
    // From here on nothing can fail.
    let section = core.slots.section(origin);
    for step in template {
        section[step.slot as usize] += step.add;
    }
    section[plan.hits as usize] += 1;
    let number = plan.number.map_or(0, |spot| spot.read(&words));
    if !plan.gossips.is_empty() {
        let short = plan.gossips.iter().map(|gossip| (gossip.matrix, gossip.spot.read(&words) as u16));
        core.merge_short(plan.kind.traffic(), origin, number, short);
    }
    if !plan.effects.is_empty() {
        let section = core.slots.member(origin);
        for effect in &plan.effects {
            let value =
                value_of(effect.source, number, list.payload().len(), list.len(), core.now.as_nanos());
            apply(effect.operation, core.slots.word_mut(target(effect.target, section)), value);
        }
    }
    if plan.retain {
        core.casts[origin.index()].keep(number, list.clone());
    }
    core.work += 1;
    Outcome::Hit { list, number }
}

/// Runs the self-deliver plan on an own cast that comes back up.
#[inline]
pub(crate) fn own_copy(core: &mut Core, plan: &Plan, list: &List, number: u64) -> Outcome {
    let own = core.own;
    if !plan.bare {
        let from = list.from() - plan.header_bytes;
        return accept(core, plan, own, list.frame(), from, list.to());
    }
    let section = core.slots.section(own);
    let guard = section[plan.guard as usize];
    if guard != 0 {
        return Outcome::Miss(Miss::Guard(guard));
    }
    section[plan.hits as usize] += 1;
    core.work += 1;
    Outcome::Hit { list: list.clone(), number }
}

/// Verifies the message fields.
#[inline]
fn filtered(
    core: &Core,
    plan: &Plan,
    origin: Rank,
    packed: bool,
    words: &[u64],
    payload: &[u8],
) -> Option<Miss> {
    let traffic = plan.kind.traffic() as usize;
    let (layout, cookie) = (&core.layouts[traffic], core.cookies[origin.index()][traffic]);
    for (at, filter) in plan.filters.iter().enumerate() {
        let value = layout.filter(usize::from(filter.field), cookie, packed, NO_CONTROL, 0, words, payload);
        if value != filter.spot.read(words) {
            return Some(Miss::Filter(at as u8));
        }
    }
    None
}

/// A frame that is not the predicted one: early if every word is a whole number of frames ahead, else a miss.
#[cold]
fn unpredicted(plan: &Plan, section: &[u64], words: &[u64]) -> Outcome {
    let template = &plan.template[..plan.template_words];
    let slot = |at: u32| section[at as usize];
    let first = template
        .iter()
        .map(|step| (step.word, (words[usize::from(step.word)] ^ slot(step.slot)) & step.mask))
        .find(|(_, differs)| *differs != 0)
        .unwrap_or_default();
    let miss = Outcome::Miss(Miss::Field(first.0, first.1));
    let Some(number) = plan.number else { return miss };
    let step = template[usize::from(number.word)];
    let expected = (slot(step.slot) >> number.shift) & number.mask;
    let ahead = match number.read(words).checked_sub(expected) {
        Some(ahead) if ahead > 0 => ahead,
        _ => return miss,
    };
    let all_ahead = template.iter().all(|step| {
        let word = slot(step.slot).wrapping_add(step.add.wrapping_mul(ahead));
        (words[usize::from(step.word)] ^ word) & step.mask == 0
    });
    if all_ahead { Outcome::Early(ahead) } else { miss }
}

/// Runs the deliver step of an accepted frame, if its release words have reached it.
#[inline]
pub(crate) fn released(core: &mut Core, step: &DeliverStep, origin: Rank, number: u64, list: &List) -> bool {
    let section = core.slots.member(origin);
    if step.releases.iter().any(|release| core.slots.word(section + release) <= number) {
        return false;
    }
    *core.slots.word_mut(section + step.hits) += 1;
    for effect in &step.effects {
        let value = value_of(effect.source, number, list.payload().len(), list.len(), core.now.as_nanos());
        apply(effect.operation, core.slots.word_mut(target(effect.target, section)), value);
    }
    if step.retain {
        core.casts[origin.index()].keep(number, list.clone());
    }
    true
}

/// Runs a send plan on a payload whose guard is known to be open: writes the header, applies the effects and puts the
/// frame into the outbox.
#[inline]
pub(crate) fn send(core: &mut Core, plan: &Plan, peer: Rank, frame: FrameMut, messages: u32, packed: bool) {
    match plan.words {
        2 => send_words::<2>(core, plan, peer, frame, messages, packed),
        _ => send_words::<WORDS_MAX>(core, plan, peer, frame, messages, packed),
    }
}

#[inline]
fn send_words<const WORDS: usize>(
    core: &mut Core,
    plan: &Plan,
    peer: Rank,
    mut frame: FrameMut,
    messages: u32,
    packed: bool,
) {
    let own = core.own;
    let cast = plan.kind == Kind::CastSend;
    let traffic = plan.kind.traffic() as usize;
    let cookie = plan.cookie;
    let members = core.slots.members();
    let template = &plan.template[..plan.template_words];
    let mut words = [0; WORDS];
    let section = if cast { core.slots.own() } else { core.slots.section(peer) };
    for step in template {
        let slot = &mut section[step.slot as usize];
        words[usize::from(step.word)] = *slot & step.mask;
        *slot += step.add;
    }
    section[plan.hits as usize] += 1;
    let number = plan.number.map_or(0, |spot| spot.read(&words));
    if !plan.gossips.is_empty() && members > 1 {
        let about = if cast { subject(own, number, members) } else { peer };
        let about = core.slots.section(about);
        for gossip in &plan.gossips {
            let value = (about[gossip.source as usize] >> gossip.source_shift) & gossip.source_mask;
            gossip.spot.write(&mut words, value);
        }
    }
    for filter in &plan.filters {
        let layout = &core.layouts[traffic];
        let value =
            layout.filter(usize::from(filter.field), cookie, packed, NO_CONTROL, 0, &words, frame.bytes());
        filter.spot.write(&mut words, value);
    }
    let header = frame.prepend(plan.header_bytes).expect("frames are taken with room for the plan's header");
    let (first, rest) =
        header.as_chunks_mut::<8>().0.split_first_mut().expect("a header begins with a cookie");
    *first = (cookie | if packed { PACK_FLAG } else { 0 }).to_le_bytes();
    for (chunk, word) in rest.iter_mut().zip(words) {
        *chunk = word.to_le_bytes();
    }
    let frame = frame.freeze();
    frame.submit();
    let (from, to) = (frame.start() + plan.header_bytes, frame.end());
    if !plan.effects.is_empty() {
        let section = if cast { 0 } else { core.slots.member(peer) };
        for effect in &plan.effects {
            let value = value_of(effect.source, number, to - from, messages as usize, core.now.as_nanos());
            apply(effect.operation, core.slots.word_mut(target(effect.target, section)), value);
        }
    }
    let section = if cast { core.slots.own() } else { core.slots.section(peer) };
    for limit in &plan.limits {
        let reached = (section[limit.field_slot as usize] >> limit.shift) & limit.mask;
        if reached >= section[limit.limit as usize] {
            section[plan.guard as usize] |= limit.guard;
        }
    }
    let list = |frame: Frame| match packed {
        true => List::packed(frame, from, to, messages),
        false => List::single(frame, from, to),
    };
    if plan.retain {
        let store = if cast { &mut core.casts[own.index()] } else { &mut core.sends[peer.index()] };
        store.keep(number, list(frame.clone()));
    }
    if let Some(layer) = plan.loop_layer {
        core.loopback.push_back(Looped { layer, number, list: list(frame.clone()), slow: false });
    }
    core.work += 1;
    let to = match cast {
        true if members > 1 => Destination::All,
        true => return,
        false => Destination::One(peer),
    };
    core.outbox.push_back(Transmit { channel: core.channel, to, head: frame, body: None });
}

#[inline]
fn target(target: Target, section: u32) -> u32 {
    match target {
        Target::Own(slot) => slot.0,
        Target::Member(slot) => section + slot.0,
    }
}
