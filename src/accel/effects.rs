//! What a plan changes besides the words of its template: the effects of all layers.
//!
//! Nobody but a layer looks at most of these words, and layers run seldom. So what messages have in common is added up, a
//! few words for each step and member however many effects there are, and the effects follow before a layer runs next.
//! Effects on words that plans look at, too, or that do not commute, are had at once.
//!
//! ```text
//! frame ──▶ + 1 frame, 64 bytes, 1 message         (every frame)
//!               ... of 40 frames: 40 × this, + 2560 to that word, the last number into a third   (before layers run)
//! ```

use std::rc::Rc;

use super::case::{Effect, Operation, Source, Target};
use super::plan::Plans;
use crate::id::Rank;
use crate::stack::core::Core;
use crate::stack::layer::Kind;

/// The effects of one step of a plan.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effects {
    /// As they were declared, with the layer that did.
    declared: Vec<(usize, Effect)>,
    /// Among the steps whose effects may wait, which one this is.
    step: Option<u32>,
}

/// Words of which it matters when they are changed: they are looked at between two runs of layers, or changed in ways that do
/// not commute.
#[derive(Debug, Default)]
pub(crate) struct LookedAt {
    pub(crate) words: Vec<Target>,
    /// And all that these layers have.
    pub(crate) layers: Vec<usize>,
}

impl LookedAt {
    /// Adds the words that the effects of all steps change in ways that do not commute: what waits is had in no order.
    pub(crate) fn add_contended<'e>(&mut self, steps: impl Iterator<Item = (Kind, &'e Effects)>) {
        let all: Vec<(Kind, &Effect)> =
            steps.flat_map(|(kind, effects)| effects.declared().map(move |effect| (kind, effect))).collect();
        for (at, (kind, one)) in all.iter().enumerate() {
            let others = all[at + 1..].iter().filter(|(_, other)| other.target == one.target);
            let alike = |(_, other): &(Kind, &Effect)| {
                other.operation == one.operation && one.operation != Operation::Store
            };
            // Of a word of the stack the messages of several members have their effects.
            let by_several = one.operation == Operation::Store
                && matches!(one.target, Target::Own(_))
                && *kind != Kind::CastSend;
            if by_several || !others.clone().all(alike) {
                self.words.push(one.target);
            }
        }
    }
}

/// Messages of one member that follow each other, as effects see them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Number of the first frame, and how many frames there are.
    first: u64,
    frames: u64,
    /// Of all frames.
    bytes: u64,
    messages: u64,
}

impl Batch {
    /// No frames yet: the first will have this number.
    #[inline]
    pub(crate) fn from(first: u64) -> Batch {
        Batch { first, ..Batch::default() }
    }

    /// With one more frame.
    #[inline]
    pub(crate) fn and(self, bytes: usize, messages: usize) -> Batch {
        Batch {
            first: self.first,
            frames: self.frames + 1,
            bytes: self.bytes + bytes as u64,
            messages: self.messages + messages as u64,
        }
    }

    /// Of one frame.
    #[inline]
    pub(crate) fn of_one(number: u64, bytes: usize, messages: usize) -> Batch {
        Batch::from(number).and(bytes, messages)
    }

    /// Takes in what follows, if it does.
    #[inline]
    fn take_in(&mut self, next: &Batch) -> bool {
        let follows = self.first + self.frames == next.first;
        if follows {
            self.frames += next.frames;
            self.bytes += next.bytes;
            self.messages += next.messages;
        }
        follows
    }

    /// What one operation takes of a source for what it would have taken of each frame by itself, the last at `now`.
    fn value(&self, operation: Operation, source: Source, now: u64) -> u64 {
        let adds = operation == Operation::Add;
        let before_last = self.frames - 1;
        match source {
            Source::Constant(value) if adds => value.wrapping_mul(self.frames),
            Source::FrameNumber if adds => {
                let steps = u128::from(self.frames) * u128::from(before_last) / 2;
                self.first.wrapping_mul(self.frames).wrapping_add(steps as u64)
            }
            Source::Constant(value) => value,
            Source::FrameNumber => self.first + before_last,
            Source::PayloadBytes => self.bytes,
            Source::Messages => self.messages,
            Source::Now => now,
        }
    }
}

impl Effects {
    /// Adds one, which that layer declares.
    pub(crate) fn push(&mut self, layer: usize, effect: Effect) {
        self.declared.push((layer, effect));
    }

    /// As they were declared.
    pub(crate) fn declared(&self) -> impl ExactSizeIterator<Item = &Effect> {
        self.declared.iter().map(|(_, effect)| effect)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.declared.is_empty()
    }

    /// Whether those of several messages can be had together: there are none, or they wait.
    #[inline]
    pub(crate) fn may_wait(&self) -> bool {
        self.declared.is_empty() || self.step.is_some()
    }

    /// Finds out whether they may wait; `next` is the number of steps whose effects do.
    pub(crate) fn compile(&mut self, looked_at: &LookedAt, next: &mut u32) {
        let waits = |(layer, Effect { operation, target, source }): &(usize, Effect)| {
            let known = match source {
                Source::PayloadBytes | Source::Messages => *operation == Operation::Add,
                Source::Now => *operation != Operation::Add,
                Source::Constant(_) | Source::FrameNumber => true,
            };
            known && !looked_at.layers.contains(layer) && !looked_at.words.contains(target)
        };
        self.step = None;
        if !self.is_empty() && self.declared.iter().all(waits) {
            self.step = Some(*next);
            *next += 1;
        }
    }
}

/// Effects that wait, and what messages they are of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    /// By step.
    effects: Rc<[Effects]>,
    /// Whose they are.
    layers: Rc<[usize]>,
    members: usize,
    /// By step and member; the time of the last frame with it.
    batches: Vec<(Batch, u64)>,
    /// Those that have frames.
    places: Vec<u32>,
}

impl Pending {
    /// For plans, in a view of so many members.
    pub(crate) fn new(plans: &Plans, members: usize) -> Pending {
        let steps = plans.iter().flatten().flat_map(|plan| plan.effects_of_steps());
        let mut effects: Vec<Effects> = steps.filter(|effects| effects.step.is_some()).cloned().collect();
        effects.sort_by_key(|effects| effects.step);
        let places = effects.len() * members;
        let layers = effects.iter().flat_map(|effects| effects.declared.iter().map(|(layer, _)| *layer));
        let layers: std::collections::BTreeSet<usize> = layers.collect();
        Pending {
            layers: layers.into_iter().collect(),
            effects: effects.into(),
            members,
            batches: vec![Default::default(); places],
            places: Vec::with_capacity(places),
        }
    }

    /// Whether there are none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether some may be of that layer.
    #[inline]
    fn concern(&self, layer: usize) -> bool {
        !self.places.is_empty() && self.layers.contains(&layer)
    }
}

impl Core {
    /// Has the effects of messages of `member`, or lets them wait; if they cannot wait, it is one message.
    #[inline]
    pub(crate) fn affect(&mut self, effects: &Effects, member: Rank, batch: &Batch) {
        match effects.step {
            Some(step) => {
                let at = step as usize * self.pending_effects.members + member.index();
                let (pending, last) = &mut self.pending_effects.batches[at];
                if pending.frames > 0 && pending.take_in(batch) {
                    *last = self.now.as_nanos();
                } else {
                    self.begin_batch(at, batch);
                }
            }
            None => self.affect_at_once(effects, member, batch),
        }
    }

    /// A batch that begins, or is not the one after what waits, as frames between have taken the layers.
    #[cold]
    #[inline(never)]
    fn begin_batch(&mut self, at: usize, batch: &Batch) {
        if self.pending_effects.batches[at].0.frames > 0 {
            self.have_effects();
        }
        self.pending_effects.batches[at] = (*batch, self.now.as_nanos());
        self.pending_effects.places.push(at as u32);
    }

    #[inline(never)]
    fn affect_at_once(&mut self, effects: &Effects, member: Rank, batch: &Batch) {
        self.apply(effects, member, batch, self.now.as_nanos());
    }

    /// Has the effects that wait, if that layer, which is about to run, may look at them.
    #[inline]
    pub(crate) fn have_effects_of(&mut self, layer: usize) {
        if self.pending_effects.concern(layer) {
            self.have_effects();
        }
    }

    /// Has all effects that wait.
    #[cold]
    #[inline(never)]
    pub(crate) fn have_effects(&mut self) {
        let effects = Rc::clone(&self.pending_effects.effects);
        while let Some(at) = self.pending_effects.places.pop() {
            let members = self.pending_effects.members;
            let (batch, now) = std::mem::take(&mut self.pending_effects.batches[at as usize]);
            self.apply(&effects[at as usize / members], Rank::at(at as usize % members), &batch, now);
        }
    }

    fn apply(&mut self, effects: &Effects, member: Rank, batch: &Batch, now: u64) {
        let section = self.slots.member(member);
        for (_, Effect { operation, target, source }) in &effects.declared {
            let value = batch.value(*operation, *source, now);
            let at = match target {
                Target::Own(slot) => {
                    self.ceiling = 0;
                    slot.0
                }
                Target::Member(slot) => section + slot.0,
            };
            let word = self.slots.word_mut(at);
            match operation {
                Operation::Add => *word = word.wrapping_add(value),
                Operation::Store => *word = value,
                Operation::Raise => *word = (*word).max(value),
            }
        }
    }
}
