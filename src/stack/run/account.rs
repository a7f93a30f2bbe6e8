//! What can be asked of a stack, and why plans were missed.

use std::borrow::Cow;
use std::time::Duration;

use super::Stack;

use crate::accel::execute::Miss;
use crate::accel::pack::PACK_ROOM_BYTES;
use crate::accel::plan::NoPlan;
use crate::group::Stability;
use crate::id::Rank;
use crate::stack::build::{GossipSource, GuardKind, STACK_GUARD, shared};
use crate::stack::engine::Engine;
use crate::stack::event::{ExitReason, Problem, Up};
use crate::stack::gossip::INTRODUCTION_GAP_MAX;
use crate::stack::identify::{ASK_FIRST, ASK_LONGEST};
use crate::stack::layer::{BLANK_RETRY, Context, Kind};
use crate::stats::{MissCount, Stats};
use crate::time::Millis;
use crate::wire::bits::low_bits;
use crate::wire::layout::{FieldName, Place};

impl Stack {
    /// Whether a cast would be taken now.
    pub(crate) fn writable(&self) -> bool {
        let room = self.waiting.len() < self.waiting_max;
        let frames = self.open.is_open()
            || self.large.shelves()
            || self.casts.take(self.cast_header_room + PACK_ROOM_BYTES).is_ok();
        self.exited.is_none() && room && frames && (self.open.is_open() || self.numbers_left(1))
    }

    /// The member that has acknowledged least of this member's casts; `None` in a view of one.
    pub(crate) fn slowest(&self) -> Option<Rank> {
        if self.past().is_some() {
            return None;
        }
        let core = &self.engine.core;
        let held = core.gossip.definitions.iter().find(|gossip| {
            matches!(gossip.source, GossipSource::Accepted(field) if Some(field) == core.frame_number)
        })?;
        let own = core.view.rank();
        core.view.others().min_by_key(|rank| core.reported(held.matrix, *rank, own))
    }

    pub(crate) fn payload_max(&self) -> usize {
        self.payload_max
    }

    pub(crate) fn exited(&self) -> Option<ExitReason> {
        self.exited
    }

    /// Whether the group is over for this process, the application knows, and the channel is given up.
    pub(crate) fn is_over(&self) -> bool {
        self.exited.is_some() && self.closed && self.engine.core.emerged.is_empty()
    }

    /// Who holds and has seen what.
    pub(crate) fn stability(&self) -> Stability {
        if self.past().is_some() {
            return Stability::default();
        }
        let core = &self.engine.core;
        let (members, own) = (core.view.size(), core.view.rank().index());
        let rows = |name: &str| {
            let matrix = core.shared_matrices.iter().find(|(shared, _)| *shared == name);
            let row = |reporter: usize| {
                let entry = |origin: usize| {
                    matrix.map_or(0, |(_, slot)| core.reported(*slot, Rank::at(reporter), Rank::at(origin)))
                };
                (0..members).map(entry).collect::<Vec<u64>>()
            };
            (0..members).map(row).collect::<Vec<Vec<u64>>>()
        };
        let mut held = rows(shared::HELD);
        for (reporter, row) in held.iter_mut().enumerate() {
            for (origin, held) in row.iter_mut().enumerate() {
                // What has come from its origin both hold; neither needs to report it.
                if reporter == own || reporter == origin {
                    *held = core.accepted(Rank::at(origin)).max(*held);
                }
            }
        }
        Stability { held, seen: rows(shared::SEEN) }
    }

    /// A line per layer that has something to say, with its time-outs; then the configuration's.
    pub(crate) fn dump(&mut self) -> Vec<String> {
        let Engine { core, layers, .. } = &mut self.engine;
        core.catch_up();
        let mut lines = Vec::new();
        for (layer, handler) in layers.iter().enumerate() {
            let said = handler.dump(&Context { core, layer });
            let time_outs = Some(time_outs(&handler.time_outs())).filter(|text| !text.is_empty());
            let parts: Vec<String> = said.into_iter().chain(time_outs).collect();
            if !parts.is_empty() {
                lines.push(format!("{}: {}", core.names[layer], parts.join("; ")));
            }
        }
        let casts = match self.why_held(GuardKind::CastSend, self.engine.core.own) {
            Some(why) => format!("casts wait, for {why}"),
            None => "casts may go".to_owned(),
        };
        lines.push(format!("stack: {casts}; {}", time_outs(STACK_TIME_OUTS)));
        lines.push(format!("configuration: {}", time_outs(&self.time_outs)));
        lines
    }

    /// Takes the lines of the trace.
    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.engine.core.traced.drain(..).collect()
    }

    pub(crate) fn stats(&self) -> Stats {
        let core = &self.engine.core;
        let own = core.casts[core.view.rank().index()].numbers();
        let retained = core.casts.iter().chain(&core.sends).map(|r| r.numbers()).map(|n| n.end - n.start);
        Stats {
            fast_path: self.fast,
            misses: self.misses.clone(),
            counts: core.counts.clone(),
            casts: self.tickets,
            cast_frames: self.cast_frames,
            sends: self.sends,
            delivered: self.delivered,
            sends_delivered: self.sends_delivered,
            header_bytes: core.layouts[0].compressed_bytes(),
            unacknowledged: own.end - own.start,
            retained: retained.sum(),
            waiting: self.waiting.len() as u64,
            retained_bytes: core.pinned_bytes(),
            copies: self.copies + core.copied,
            post: self.post.sum(self.engine.posting.counts),
        }
    }

    /// Tells the application of messages that take the layers always, because a layer has no fast path for them. Said once
    /// in a group's life; not said of what this stack does not carry or was told not to accelerate.
    pub(crate) fn tell_slow_paths(&mut self) {
        let mut told: Vec<(NoPlan, String)> = Vec::new();
        for (kind, plan) in Kind::ALL.into_iter().zip(&self.plans) {
            let Some(none) = plan.as_ref().err().filter(|none| !none.is_of_the_stack()) else { continue };
            match told.iter_mut().find(|(known, _)| known == none) {
                Some((_, kinds)) => kinds.push_str(&format!(", {}", kind.name())),
                None => told.push((*none, kind.name().to_string())),
            }
        }
        for (NoPlan { layer, reason }, kinds) in told {
            let what = format!("no fast path for {kinds}: {reason}; these messages take the layers").into();
            self.engine.core.emit_application(Up::Problem(Problem { layer, origin: None, what }));
        }
    }

    /// Counts a miss under the layer and reason that caused it.
    #[cold]
    pub(super) fn note_miss(&mut self, kind: Kind, miss: Miss) {
        let Stack { engine, plans, misses, .. } = self;
        let core = &engine.core;
        let plan = match &plans[kind as usize] {
            Ok(plan) => plan,
            Err(none) => {
                note(misses, kind, none.layer, Reason::Is(none.reason));
                return;
            }
        };
        let layout = &core.layouts[kind.traffic() as usize];
        let (layer, reason) = match miss {
            Miss::Guard(0) => ("stack", Reason::Is("several destinations or this member")),
            Miss::Guard(bits) => match core.closers(kind.guard(), bits).next() {
                Some(owner) => (core.names[owner.layer], Reason::Guard(owner.name)),
                None if bits & STACK_GUARD != 0 => ("stack", Reason::Is("full headers are asked for")),
                None => ("stack", Reason::Is("guard of no layer")),
            },
            Miss::Short => ("stack", Reason::Is("short frame")),
            Miss::Pack => ("stack", Reason::Is("malformed pack")),
            Miss::Filter(at) => {
                let field = plan.filters[usize::from(at)].field;
                differs(layout.fields()[usize::from(field)].0.name)
            }
            Miss::TooEarly => ("stack", Reason::Is("early frame that found no room to wait")),
            Miss::Flushed => ("stack", Reason::Is("early frame when the view ended")),
            Miss::Waited => ("stack", Reason::Is("early frame that waited too long")),
            Miss::ByLayers => ("stack", Reason::Is("own cast that took the layers")),
            Miss::Dropped => ("stack", Reason::Is("order queue full")),
            Miss::Field(word, bits) => {
                let inside = |place: &Place, width: u32| {
                    matches!(place, Place::Word { word: at, shift }
                        if *at == word && (low_bits(width) << shift) & bits != 0)
                };
                let field = layout.fields().iter().find(|(field, place)| inside(place, field.bits));
                field.map_or(("stack", Reason::Is("field")), |(field, _)| differs(field.name))
            }
        };
        note(misses, kind, layer, reason);
    }

    /// Counts a fragment that enters: it has no plan by its nature.
    pub(super) fn note_fragment(&mut self, kind: Kind) {
        note(&mut self.misses, kind, "stack", Reason::Is("fragment of a large message"));
    }

    /// Counts a frame that has no plan by its form.
    #[cold]
    pub(super) fn note_full_header(&mut self, kind: Kind) {
        note(&mut self.misses, kind, "stack", Reason::Is("full header"));
    }
}

/// Why a plan was missed.
#[derive(Clone, Copy)]
enum Reason {
    Is(&'static str),
    Guard(&'static str),
    Differs(&'static str),
}

impl Reason {
    fn matches(self, text: &str) -> bool {
        match self {
            Reason::Is(reason) => text == reason,
            Reason::Guard(name) => text.strip_prefix("guard ") == Some(name),
            Reason::Differs(field) => text.strip_suffix(" differs") == Some(field),
        }
    }

    fn text(self) -> Cow<'static, str> {
        match self {
            Reason::Is(reason) => reason.into(),
            Reason::Guard(name) => format!("guard {name}").into(),
            Reason::Differs(field) => format!("{field} differs").into(),
        }
    }
}

/// Counts a miss; allocates only for the first of its kind.
fn note(misses: &mut Vec<MissCount>, kind: Kind, layer: &'static str, reason: Reason) {
    let plan = kind.name();
    let known = misses.iter_mut().find(|m| m.plan == plan && m.layer == layer && reason.matches(&m.reason));
    match known {
        Some(miss) => miss.count += 1,
        None => {
            misses.push(MissCount { plan, layer, reason: reason.text(), count: 1 });
        }
    }
}

/// A field as layer and reason.
fn differs(field: FieldName) -> (&'static str, Reason) {
    (field.layer, Reason::Differs(field.name))
}

/// What is below the layers and not configured.
const STACK_TIME_OUTS: &[(&str, Duration)] = &[
    ("ask who casts", ASK_FIRST),
    ("backoff", ASK_LONGEST),
    ("last introduction", INTRODUCTION_GAP_MAX),
    ("retry a blank", BLANK_RETRY),
];

/// Time-outs and delays in one line, in one unit.
fn time_outs(all: &[(&'static str, Duration)]) -> String {
    let one = |(name, time): &(&'static str, Duration)| format!("{name} {}", Millis(*time));
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}
