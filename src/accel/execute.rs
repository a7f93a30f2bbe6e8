//! The executor: runs plans over slots (design D3, D4).
//!
//! Everything is checked before anything is written: a miss leaves no trace.

use super::case::Target;
use super::plan::{DeliverStep, Plan, apply, value_of};
use crate::buf::FrameMut;
use crate::id::Rank;
use crate::stack::core::{Core, Looped};
use crate::stack::event::List;
use crate::stack::gossip::{lengthen, subject};
use crate::stack::layer::Kind;
use crate::stack::slots::fixed;
use crate::transport::{Destination, Transmit};
use crate::wire::full::NO_CONTROL;
use crate::wire::layout::WORDS_MAX;
use crate::wire::{PACK_FLAG, Traffic};

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

/// A frame as the executor sees it: `from..to` of a frame, header first.
pub(crate) struct Incoming<'f> {
    pub(crate) frame: &'f crate::buf::Frame,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// Runs a deliver plan's accept step (and all of it, if it has no second one).
#[inline]
pub(crate) fn accept(
    core: &mut Core,
    plan: &Plan,
    cookie: u64,
    origin: Rank,
    incoming: &Incoming<'_>,
) -> Outcome {
    let section = core.slots.member(origin);
    let guard = core.slots.word(plan.kind.guard().word(&core.slots, origin));
    if guard != 0 {
        return Outcome::Miss(Miss::Guard(guard));
    }
    let bytes = incoming.frame.slice(incoming.from, incoming.to);
    let Some((header, payload)) = bytes.split_at_checked(plan.header_bytes) else {
        return Outcome::Miss(Miss::Short);
    };
    let mut words = [0; WORDS_MAX];
    let (first, rest) = header.split_first_chunk::<8>().expect("a header begins with a cookie");
    for (word, chunk) in words.iter_mut().zip(rest.chunks_exact(8)) {
        *word = u64::from_le_bytes(*chunk.first_chunk().expect("eight bytes"));
    }
    let mut differs = 0;
    for step in &plan.template[..plan.template_words] {
        differs |= (words[usize::from(step.word)] ^ core.slots.word(section + step.slot)) & step.mask;
    }
    if differs != 0 {
        return unpredicted(core, plan, section, &words);
    }
    let packed = u64::from_le_bytes(*first) & PACK_FLAG != 0;
    for (at, filter) in plan.filters.iter().enumerate() {
        let layout = &core.layouts[plan.kind.traffic() as usize];
        let value = layout.filter(usize::from(filter.field), cookie, packed, NO_CONTROL, &words, payload);
        if value != filter.spot.read(&words) {
            return Outcome::Miss(Miss::Filter(at as u8));
        }
    }
    let (from, to) = (incoming.from + plan.header_bytes, incoming.to);
    let Ok(list) = List::parse(incoming.frame.clone(), from, to, packed) else {
        return Outcome::Miss(Miss::Pack);
    };
    // From here on nothing can fail.
    for step in &plan.template[..plan.template_words] {
        *core.slots.word_mut(section + step.slot) += step.add;
    }
    *core.slots.word_mut(section + plan.hits) += 1;
    let number = plan.number.map_or(0, |spot| spot.read(&words));
    if !plan.gossips.is_empty() {
        merge(core, plan, origin, section, number, &words);
    }
    for effect in &plan.effects {
        let value = value_of(effect.source, number, list.payload().len(), list.len(), core.now.as_nanos());
        apply(effect.operation, core.slots.word_mut(target(effect.target, section)), value);
    }
    if plan.retain {
        core.casts[origin.index()].keep(number, list.clone());
    }
    core.work += 1;
    Outcome::Hit { list, number }
}

/// Merges the gossip of a hit, unless its origin has reported since.
#[inline]
fn merge(core: &mut Core, plan: &Plan, origin: Rank, section: u32, number: u64, words: &[u64; WORDS_MAX]) {
    let about = if plan.kind.traffic() == Traffic::Cast {
        if number < core.slots.word(section + fixed::NEWEST_REPORT) {
            return;
        }
        subject(origin, number, core.slots.members())
    } else {
        core.view.rank()
    };
    for gossip in &plan.gossips {
        let short = gossip.spot.read(words) as u16;
        let word = core.slots.word_mut(section + gossip.matrix.0 + u32::from(about.0));
        *word = lengthen(*word, short);
    }
}

/// A frame that is not the predicted one: early if every word is a whole number of frames ahead, else a miss.
#[cold]
fn unpredicted(core: &Core, plan: &Plan, section: u32, words: &[u64; WORDS_MAX]) -> Outcome {
    let template = &plan.template[..plan.template_words];
    let first = template
        .iter()
        .map(|step| {
            (step.word, (words[usize::from(step.word)] ^ core.slots.word(section + step.slot)) & step.mask)
        })
        .find(|(_, differs)| *differs != 0)
        .unwrap_or_default();
    let miss = Outcome::Miss(Miss::Field(first.0, first.1));
    let Some(number) = plan.number else { return miss };
    let step = template[usize::from(number.word)];
    let expected = (core.slots.word(section + step.slot) >> number.shift) & number.mask;
    let ahead = match number.read(words).checked_sub(expected) {
        Some(ahead) if ahead > 0 => ahead,
        _ => return miss,
    };
    let all_ahead = template.iter().all(|step| {
        let word = core.slots.word(section + step.slot).wrapping_add(step.add.wrapping_mul(ahead));
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
    true
}

/// Runs a send plan on a payload whose guard is known to be open: writes the header, applies the effects and puts the
/// frame into the outbox.
#[inline]
pub(crate) fn send(
    core: &mut Core,
    plan: &Plan,
    peer: Rank,
    mut frame: FrameMut,
    messages: u32,
    packed: bool,
) {
    let own = core.view.rank();
    let section = if plan.kind == Kind::CastSend { 0 } else { core.slots.member(peer) };
    let cookie = core.cookies[own.index()][plan.kind.traffic() as usize];
    let mut words = [0; WORDS_MAX];
    for step in &plan.template[..plan.template_words] {
        words[usize::from(step.word)] = core.slots.word(section + step.slot) & step.mask;
    }
    let number = plan.number.map_or(0, |spot| spot.read(&words));
    if !plan.gossips.is_empty() && core.slots.members() > 1 {
        let about =
            if plan.kind == Kind::CastSend { subject(own, number, core.slots.members()) } else { peer };
        let subject_section = core.slots.member(about);
        for gossip in &plan.gossips {
            let value = (core.slots.word(subject_section + gossip.source) >> gossip.source_shift)
                & gossip.source_mask;
            gossip.spot.write(&mut words, value);
        }
    }
    for filter in &plan.filters {
        let layout = &core.layouts[plan.kind.traffic() as usize];
        let value =
            layout.filter(usize::from(filter.field), cookie, packed, NO_CONTROL, &words, frame.bytes());
        filter.spot.write(&mut words, value);
    }
    let header = frame.prepend(plan.header_bytes).expect("frames are taken with room for the plan's header");
    let (first, rest) = header.split_first_chunk_mut::<8>().expect("a header begins with a cookie");
    *first = (cookie | if packed { PACK_FLAG } else { 0 }).to_le_bytes();
    for (chunk, word) in rest.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    let frame = frame.freeze();
    frame.submit();
    let (from, to) = (frame.start() + plan.header_bytes, frame.end());
    let list = if packed {
        List::packed(frame.clone(), from, to, messages)
    } else {
        List::single(frame.clone(), from, to)
    };
    for step in &plan.template[..plan.template_words] {
        *core.slots.word_mut(section + step.slot) += step.add;
    }
    *core.slots.word_mut(section + plan.hits) += 1;
    for effect in &plan.effects {
        let value = value_of(effect.source, number, to - from, messages as usize, core.now.as_nanos());
        apply(effect.operation, core.slots.word_mut(target(effect.target, section)), value);
    }
    for limit in &plan.limits {
        let reached = (core.slots.word(section + limit.spot_slot) >> limit.shift) & limit.mask;
        if reached >= core.slots.word(target(limit.limit, section)) {
            let at = plan.kind.guard().word(&core.slots, peer);
            *core.slots.word_mut(at) |= limit.guard;
        }
    }
    if plan.retain {
        let store = match plan.kind {
            Kind::CastSend => &mut core.casts[own.index()],
            _ => &mut core.sends[peer.index()],
        };
        store.keep(number, list.clone());
    }
    if let Some(layer) = plan.loop_layer {
        core.loopback.push_back(Looped { layer, number, list, header: None });
    }
    core.work += 1;
    let to = match plan.kind {
        Kind::CastSend if core.slots.members() > 1 => Destination::All,
        Kind::CastSend => return,
        _ => Destination::One(peer),
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
