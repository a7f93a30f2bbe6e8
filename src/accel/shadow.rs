//! The shadow: repeats by the layers what a plan did, and compares (design section 5).
//!
//! Before a plan runs, the stack is forked. Afterwards the fork takes the same message through its layers; both do
//! their post-processing; then slots, digests, retained frames, deadlines, emissions, deliveries and own copies must
//! be equal.

use crate::id::{Rank, RankSet};
use crate::stack::core::{Core, Count, Emerged};
use crate::stack::engine::Engine;
use crate::stack::event::{Down, List, Message, Up};
use crate::stack::layer::Kind;
use crate::transport::{Destination, Transmit};
use crate::wire::full::{NO_CONTROL, Prefix};
use crate::wire::layout::{Class, GOSSIPS_MAX, Header};
use crate::wire::{FULL_FLAG, PACK_FLAG, Traffic};

/// What happened at the edges of a stack: everything that leaves it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Edges {
    emissions: Vec<Emission>,
    deliveries: Vec<(bool, Rank, u64, usize, usize)>,
    loops: Vec<(usize, u64, usize, usize)>,
    held: usize,
    other: usize,
}

/// One frame to the transport, in canonical form.
#[derive(Debug, PartialEq, Eq)]
struct Emission {
    /// Everybody it goes to: in a view of two, "all others" and "the other" are the same.
    to: RankSet,
    traffic: Traffic,
    control: u8,
    packed: bool,
    fields: Vec<u64>,
    payload: Vec<u8>,
}

/// A fork taken before a plan runs.
pub(crate) struct ShadowRun {
    fork: Engine,
    emitted_before: usize,
    looped_before: usize,
    frameless_before: u64,
}

/// The message a plan handled.
pub(crate) enum Handled<'l> {
    /// This member cast or sent a list.
    Sent(Kind, Rank, &'l List),
    /// A list of another member, or an own copy from above a layer, was accepted.
    Accepted {
        kind: Kind,
        origin: Rank,
        header: Header,
        list: &'l List,
        number: u64,
        /// Whether the deliver step has run too.
        delivered: bool,
        from_layer: usize,
    },
}

impl ShadowRun {
    pub(crate) fn before(engine: &Engine) -> ShadowRun {
        ShadowRun {
            fork: engine.fork(),
            emitted_before: engine.core.outbox.len(),
            looped_before: engine.core.loopback.len(),
            frameless_before: frameless(&engine.core),
        }
    }

    /// Compares with `engine`, in which the plan has run; its post-processing runs here. Returns what differs.
    pub(crate) fn compare(mut self, engine: &mut Engine, handled: Handled<'_>) -> Option<String> {
        let mut plan_delivered = Vec::new();
        match handled {
            Handled::Sent(kind, peer, list) => {
                let message = Message::data(kind.traffic(), list.clone());
                self.fork.enter(match kind {
                    Kind::SendSend => Down::Send(RankSet::one(peer), message),
                    _ => Down::Cast(message),
                });
                if kind == Kind::CastSend {
                    self.fork.core.gossip.ridden();
                }
            }
            Handled::Accepted { kind, origin, header, list, number, delivered, from_layer } => {
                let sent = kind == Kind::SendDeliver;
                if delivered {
                    plan_delivered.push((sent, origin, number, list.from(), list.len()));
                }
                let looped = kind == Kind::SelfDeliver;
                let known = if looped { number } else { 0 };
                let message =
                    Message { header, number: known, ..Message::data(kind.traffic(), list.clone()) };
                let event = if sent { Up::Send(origin, message) } else { Up::Cast(origin, message) };
                self.fork.core.emit_up(from_layer, event);
                self.fork.run();
                self.fork.core.merge_gossip(kind, origin, number, &header.gossip);
            }
        }
        self.fork.post();
        engine.post();
        let mut by_plan = edges(&engine.core, self.emitted_before, self.looped_before);
        by_plan.deliveries = plan_delivered;
        let mut by_layers = edges(&self.fork.core, 0, 0);
        by_layers.deliveries.sort_unstable();
        by_plan.other = by_layers.other.min(by_plan.other);
        if frameless(&self.fork.core) > self.frameless_before
            || frameless(&engine.core) > self.frameless_before
        {
            // One of them had no frame left to say it with: nothing can be compared.
            return None;
        }
        if by_plan != by_layers {
            return Some(format!("the plan gave {by_plan:?}\nthe layers gave {by_layers:?}"));
        }
        if engine.digest() != self.fork.digest() {
            return Some(differing(engine, &self.fork));
        }
        None
    }
}

/// How often there was no frame for something that was to be said.
fn frameless(core: &Core) -> u64 {
    let lacked =
        |count: &&Count| count.what.starts_with("no frame") || count.what.ends_with("without a frame");
    core.counts.iter().filter(lacked).map(|count| count.count).sum()
}

fn edges(core: &Core, emitted_before: usize, looped_before: usize) -> Edges {
    let mut edges = Edges { held: core.order.len(), ..Edges::default() };
    for transmit in core.outbox.iter().skip(emitted_before) {
        edges.emissions.extend(canonical(core, transmit));
    }
    for looped in core.loopback.iter().skip(looped_before) {
        edges.loops.push((looped.layer, looped.number, looped.list.from(), looped.list.len()));
    }
    for emerged in &core.emerged {
        match emerged {
            Emerged::Cast(origin, message) => {
                edges.deliveries.push((
                    false,
                    *origin,
                    message.number,
                    message.list.from(),
                    message.list.len(),
                ));
            }
            Emerged::Send(origin, message) => {
                edges.deliveries.push((
                    true,
                    *origin,
                    message.number,
                    message.list.from(),
                    message.list.len(),
                ));
            }
            Emerged::Event(_) => edges.other += 1,
        }
    }
    edges
}

fn canonical(core: &Core, transmit: &Transmit) -> Option<Emission> {
    let layouts = &core.layouts;
    let mut bytes = transmit.head.bytes().to_vec();
    if let Some(body) = &transmit.body {
        bytes.extend(body.bytes());
    }
    let first = crate::wire::word(&bytes, 0)?;
    let (traffic, control, packed, header, payload) = if first & FULL_FLAG != 0 {
        let (prefix, fields, payload) = Prefix::decode(&bytes).ok()?;
        let header = layouts[prefix.traffic as usize].read_full(fields)?;
        (prefix.traffic, prefix.control, prefix.pack, header, payload.to_vec())
    } else {
        // Own fast frames: the kind follows from the length of the header, which the destination tells.
        let traffic = if transmit.to == Destination::All { Traffic::Cast } else { Traffic::Send };
        let layout = &layouts[traffic as usize];
        let header = layout.expand(&layout.words_of(&bytes)?);
        (traffic, NO_CONTROL, first & PACK_FLAG != 0, header, bytes[layout.compressed_bytes()..].to_vec())
    };
    // Filters cover the short gossip, which a full header does not carry: receivers verify both.
    let fields = layouts[traffic as usize].fields().iter().zip(header.values);
    let fields =
        fields.filter(|((field, _), _)| field.class != Class::Message).map(|(_, value)| value).collect();
    let to = match transmit.to {
        Destination::All => core.view.others().collect(),
        Destination::One(rank) => RankSet::one(rank),
        Destination::Some(ranks) => ranks,
    };
    Some(Emission { to, traffic, control, packed, fields, payload })
}

/// Says in which parts two stacks differ.
fn differing(plan: &Engine, layers: &Engine) -> String {
    let mut parts = Vec::new();
    let uncompared = plan.core.uncompared();
    for at in 0..plan.core.slots.words() as u32 {
        let (by_plan, by_layers) = (plan.core.slots.word(at), layers.core.slots.word(at));
        if by_plan != by_layers && !uncompared.contains(&at) {
            parts.push(format!("slot {at}: plan {by_plan:#x}, layers {by_layers:#x}"));
        }
    }
    for (origin, (by_plan, by_layers)) in plan.core.casts.iter().zip(&layers.core.casts).enumerate() {
        if by_plan.numbers() != by_layers.numbers() {
            parts.push(format!(
                "retained casts of {origin}: plan {:?}, layers {:?}",
                by_plan.numbers(),
                by_layers.numbers()
            ));
        }
    }
    for (ours, theirs) in plan.layers.iter().zip(&layers.layers) {
        let digest = |layer: &dyn crate::stack::layer::Layer| {
            let mut hasher = crate::id::Hasher64::new(1);
            layer.digest(&mut hasher);
            hasher.finish()
        };
        if digest(ours.as_ref()) != digest(theirs.as_ref()) {
            parts.push(format!("state of {}", ours.name()));
        }
    }
    if parts.is_empty() {
        parts.push("deadlines, gossip or counts".to_string());
    }
    parts.join("; ")
}

impl Core {
    /// Merges short gossip as a hit does, for the shadow's fork.
    pub(crate) fn merge_gossip(&mut self, kind: Kind, origin: Rank, number: u64, short: &[u16; GOSSIPS_MAX]) {
        use crate::stack::gossip::{lengthen, subject};
        use crate::stack::slots::fixed;
        let section = self.slots.member(origin);
        let about = match kind {
            Kind::SelfDeliver => return,
            Kind::CastDeliver if number < self.slots.word(section + fixed::NEWEST_REPORT) => return,
            Kind::CastDeliver => subject(origin, number, self.slots.members()),
            _ => self.view.rank(),
        };
        let riding = self.gossip.definitions.iter().filter(|gossip| gossip.rides_on == Some(kind.traffic()));
        let matrices: Vec<_> = riding.map(|gossip| gossip.matrix).collect();
        for (matrix, short) in matrices.into_iter().zip(short) {
            let word = self.slots.word_mut(section + matrix.0 + u32::from(about.0));
            *word = lengthen(*word, *short);
        }
    }
}
