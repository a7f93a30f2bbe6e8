//! The shadow: repeats by the layers what a plan did, and compares (design section 5).
//!
//! Before a plan runs, the stack is forked. Afterwards the fork takes the same message through its layers; both do
//! their post-processing; then slots, digests, retained frames, deadlines, emissions, deliveries and own copies must
//! be equal.

use crate::id::{Rank, RankSet};
use crate::stack::build::GuardKind;
use crate::stack::core::{Core, Emerged};
use crate::stack::engine::Engine;
use crate::stack::event::{Down, List, Message, Up};
use crate::stack::gossip::subject;
use crate::stack::layer::Kind;
use crate::stack::slots::Tally;
use crate::transport::{Destination, Transmit};
use crate::wire::full::{NO_CONTROL, Prefix};
use crate::wire::layout::{Class, Header};
use crate::wire::{COOKIE_MASK, FULL_FLAG, PACK_FLAG, Traffic};

/// What happened at the edges of a stack: everything that leaves it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Edges {
    emissions: Vec<Emission>,
    deliveries: Vec<Delivered>,
    loops: Vec<(usize, u64, usize, usize)>,
    held: usize,
    /// Events for the application, as text.
    events: Vec<String>,
}

/// A list delivered: whether it was a send, whose, its number, where it lies and how many messages it has.
type Delivered = (bool, Rank, u64, std::ops::Range<usize>, usize);

fn delivered_list(sent: bool, origin: Rank, number: u64, list: &List) -> Delivered {
    (sent, origin, number, list.from()..list.to(), list.len())
}

/// One frame to the transport, in canonical form.
#[derive(Debug, PartialEq, Eq)]
struct Emission {
    /// Who gets it; which of several equal destinations names them is not compared.
    to: RankSet,
    traffic: Traffic,
    control: u8,
    packed: bool,
    fields: Vec<u64>,
    /// Names of what a receiver would find wrong: message fields, the cookie.
    wrong: Vec<String>,
    payload: Vec<u8>,
}

/// A fork taken before a plan runs.
pub(crate) struct ShadowRun {
    fork: Engine,
    emitted_before: usize,
    looped_before: usize,
    /// What had come out before and waits for the application: a plan may run within an upcall.
    emerged_before: usize,
    /// How often the control region had no frame.
    starved_before: u64,
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
    /// A cast that was accepted before has been released: it comes up from a layer.
    Released { origin: Rank, number: u64, list: &'l List, delivered: bool, from_layer: usize },
}

impl ShadowRun {
    /// Before a plan runs. In a box, as what carries it is on the way of every message.
    pub(crate) fn before(engine: &Engine) -> Box<ShadowRun> {
        Box::new(ShadowRun {
            fork: engine.fork(),
            emitted_before: engine.core.all_outgoing().count(),
            looped_before: engine.core.looping(),
            emerged_before: engine.core.emerged.len(),
            starved_before: starved(&engine.core),
        })
    }

    /// Compares with `engine`, in which the plan has run; its post-processing runs here. Returns what differs.
    pub(crate) fn compare(mut self: Box<Self>, engine: &mut Engine, handled: Handled<'_>) -> Option<String> {
        let mut plan_delivered = Vec::new();
        match handled {
            Handled::Sent(kind, peer, list) => {
                if let Some(differs) = other_gossip(&self.fork.core, kind, peer, list) {
                    return Some(differs);
                }
                let message = Message::data(kind.traffic(), list.clone());
                self.fork.enter(match kind {
                    Kind::SendSend => Down::Send(RankSet::one(peer), message),
                    _ => Down::Cast(message),
                });
                if kind == Kind::CastSend {
                    // Only the plan's casts carry gossip; the fork must take its own for one of them.
                    self.fork.core.gossip.ridden(1);
                }
            }
            Handled::Released { origin, number, list, delivered, from_layer } => {
                if delivered {
                    plan_delivered.push(delivered_list(false, origin, number, list));
                }
                let header = self.fork.core.header_before(Traffic::Cast, list).unwrap_or(Header::ZERO);
                let message = Message { header, number, ..Message::data(Traffic::Cast, list.clone()) };
                self.fork.core.emit_up(from_layer, Up::Cast(origin, message));
                self.fork.run();
            }
            Handled::Accepted { kind, origin, header, list, number, delivered, from_layer } => {
                let sent = kind == Kind::SendDeliver;
                if delivered {
                    plan_delivered.push(delivered_list(sent, origin, number, list));
                }
                let looped = kind == Kind::SelfDeliver;
                let known = if looped { number } else { 0 };
                let message =
                    Message { header, number: known, ..Message::data(kind.traffic(), list.clone()) };
                let event = if sent { Up::Send(origin, message) } else { Up::Cast(origin, message) };
                self.fork.core.emit_up(from_layer, event);
                self.fork.run();
                if kind != Kind::SelfDeliver {
                    let gossips = &self.fork.core.gossip.definitions;
                    let riding = gossips.iter().filter(|gossip| gossip.rides_on == Some(kind.traffic()));
                    let matrices: Vec<_> = riding.map(|gossip| gossip.matrix).collect();
                    let short = matrices.into_iter().zip(header.gossip);
                    self.fork.core.merge_short(kind.traffic(), origin, number, short);
                }
            }
        }
        self.fork.post();
        engine.post();
        // Where no layer has anything to do in post-processing, effects wait still.
        [&mut self.fork, &mut *engine].into_iter().for_each(|engine| engine.core.catch_up());
        let mut by_plan = edges(&engine.core, self.emitted_before, self.looped_before, self.emerged_before);
        by_plan.deliveries.extend(plan_delivered);
        let mut by_layers = edges(&self.fork.core, 0, 0, 0);
        for edges in [&mut by_plan, &mut by_layers] {
            // Sends and casts have no order among each other.
            edges.deliveries.sort_by_key(|(sent, ..)| *sent);
        }
        if [&engine.core, &self.fork.core].iter().any(|core| starved(core) != self.starved_before) {
            // Plan and fork share the region, and one of them had no frame left: nothing can be compared.
            return None;
        }
        if by_plan != by_layers {
            return Some(format!("the plan gave {by_plan:?}\nthe layers gave {by_layers:?}"));
        }
        if !engine.agrees(&self.fork) {
            return Some(differing(engine, &self.fork));
        }
        None
    }
}

/// Short gossip of a sent frame that is not what the stack `before` had to say: layers send full headers, which have none.
fn other_gossip(before: &Core, kind: Kind, peer: Rank, list: &List) -> Option<String> {
    let own = before.view.rank();
    if before.view.size() == 1 {
        return None;
    }
    let header = before.header_before(kind.traffic(), list)?;
    let number = header.values[before.layouts[kind.traffic() as usize].frame_number()?];
    let about = if kind == Kind::CastSend { subject(own, number, before.view.size()) } else { peer };
    let riding = before.gossip.definitions.iter().filter(|gossip| gossip.rides_on == Some(kind.traffic()));
    riding.zip(header.gossip).find_map(|(gossip, short)| {
        let own_value = before.own_value(gossip.source, about);
        (short != own_value as u16)
            .then(|| format!("{} of {about}: the plan says {short}, the stack {own_value}", gossip.name))
    })
}

/// How often frames were short.
fn starved(core: &Core) -> u64 {
    core.control.usage().exhausted + core.starved
}

/// What has left a stack, apart from as much of everything as had left it before.
fn edges(core: &Core, emitted_before: usize, looped_before: usize, emerged_before: usize) -> Edges {
    let mut edges = Edges { held: core.order.len(), ..Edges::default() };
    for transmit in core.all_outgoing().skip(emitted_before) {
        edges.emissions.extend(canonical(core, &transmit));
    }
    for looped in core.all_looped().skip(looped_before) {
        edges.loops.push((looped.layer, looped.number, looped.list.from(), looped.list.len()));
    }
    for emerged in core.emerged.iter().skip(emerged_before) {
        match emerged {
            Emerged::Cast(origin, message) => {
                edges.deliveries.push(delivered_list(false, *origin, message.number, &message.list));
            }
            Emerged::Send(origin, message) => {
                edges.deliveries.push(delivered_list(true, *origin, message.number, &message.list));
            }
            Emerged::Event(event) => edges.events.push(format!("{event:?}")),
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
    let mut wrong = Vec::new();
    let (traffic, control, packed, header, payload) = if first & FULL_FLAG != 0 {
        let (prefix, fields, payload) = Prefix::decode(&bytes).ok()?;
        let header = layouts[prefix.traffic as usize].read_full(fields)?;
        (prefix.traffic, prefix.control, prefix.pack, header, payload.to_vec())
    } else {
        // Own fast frames: the kind follows from the length of the header, which the destination tells.
        let traffic = if transmit.to == Destination::All { Traffic::Cast } else { Traffic::Send };
        let layout = &layouts[traffic as usize];
        let header = layout.expand(&layout.words_of(&bytes)?);
        if first & COOKIE_MASK != core.cookies[core.view.rank().index()][traffic as usize] {
            wrong.push("cookie".to_owned());
        }
        (traffic, NO_CONTROL, first & PACK_FLAG != 0, header, bytes[layout.compressed_bytes()..].to_vec())
    };
    // Filters cover the short gossip, which a full header does not carry: their values differ, and both must be right.
    let layout = &layouts[traffic as usize];
    let cookie = core.cookies[core.view.rank().index()][traffic as usize];
    let (words, exception) = (layout.compress(&header), layout.exception(&header));
    let mut fields = Vec::new();
    for (at, (field, _)) in layout.fields().iter().enumerate() {
        if field.class != Class::Message {
            fields.push(header.values[at]);
        } else if layout.filter(at, cookie, packed, control, exception, &words, &payload) != header.values[at]
        {
            wrong.push(field.name.to_string());
        }
    }
    let to = match transmit.to {
        Destination::All => core.view.others().collect(),
        Destination::One(rank) => RankSet::one(rank),
        Destination::Some(ranks) => ranks,
    };
    Some(Emission { to, traffic, control, packed, fields, wrong, payload })
}

/// Says in which parts two stacks differ.
fn differing(plan: &Engine, layers: &Engine) -> String {
    let mut parts = Vec::new();
    let uncompared = plan.core.uncompared();
    for at in 0..plan.core.slots.words() as u32 {
        let (by_plan, by_layers) = (plan.core.slots.word(at), layers.core.slots.word(at));
        if by_plan != by_layers && !uncompared[at as usize] {
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
    for (at, definition) in plan.core.tallies.iter().enumerate() {
        let ranks = if definition.kind == GuardKind::CastSend { 1 } else { plan.core.view.size() };
        for rank in (0..ranks).map(Rank::at) {
            let [ours, theirs] = [plan, layers].map(|engine| engine.core.tally(Tally(at as u32), rank));
            if ours != theirs {
                parts.push(format!("count {at} of {rank}: plan {ours}, layers {theirs}"));
            }
        }
    }
    let deadlines = plan.core.timers.deadlines().zip(layers.core.timers.deadlines());
    for (at, (ours, theirs)) in deadlines.enumerate().filter(|(_, (ours, theirs))| ours != theirs) {
        let layer = plan.core.names[plan.core.timer_layers[at]];
        parts.push(format!("timer {at} of {layer}: plan {ours}, layers {theirs}"));
    }
    let digest = |take: &dyn Fn(&mut crate::id::Hasher64)| {
        let mut hasher = crate::id::Hasher64::new(1);
        take(&mut hasher);
        hasher.finish()
    };
    let (ours, theirs) = (&plan.core, &layers.core);
    let differ = [
        ("gossip", digest(&|h| ours.gossip.digest(h)), digest(&|h| theirs.gossip.digest(h))),
        (
            "casts that wait for their order",
            digest(&|h| ours.order.digest(h)),
            digest(&|h| theirs.order.digest(h)),
        ),
        (
            "retained sends",
            digest(&|h| ours.sends.iter().for_each(|sends| sends.digest_contents(h))),
            digest(&|h| theirs.sends.iter().for_each(|sends| sends.digest_contents(h))),
        ),
    ];
    parts.extend(differ.iter().filter(|(_, ours, theirs)| ours != theirs).map(|(what, ..)| what.to_string()));
    if parts.is_empty() {
        parts.push("payloads retained".to_string());
    }
    parts.join("; ")
}
