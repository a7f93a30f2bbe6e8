//! One group's stack at work: entry of the application's messages, fast path, slow path, post-processing.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::build::{Blueprint, Build, Closes, Field, GuardKind, shared};
use super::core::{Core, Emerged, Ordered};
use super::engine::Engine;
use super::event::{Down, ExitReason, List, Message, Up};
use super::gossip::GossipState;
use super::layer::{Context, Kind};
use super::property::{Properties, Property};
use super::registry::{ParameterError, Registry};
use super::retention::Retention;
use super::spec::{Spec, SpecError};
use super::timers::Timers;
use crate::accel::cookie::cookie;
use crate::accel::execute::{self, Incoming, Miss, Outcome};
use crate::accel::pack::{Closed, OpenPack, PACK_ROOM_BYTES};
use crate::accel::plan::{Compiler, NoPlan, Plans};
use crate::accel::shadow::{Handled, ShadowRun};
use crate::buf::Region;
use crate::config::{Config, Shadow};
use crate::group::{Application, CastError, Delivery, Event, Group, SendError, Stability, Ticket};
use crate::id::{Hasher64, Rank, RankSet};
use crate::stats::{FastPath, MissCount, Stats};
use crate::time::Time;
use crate::transport::{Caps, Channel, Received};
use crate::view::LocalView;
use crate::wire::full::{Identification, PREFIX_BYTES};
use crate::wire::layout::{Layout, LayoutError};
use crate::wire::{Traffic, WIRE_VERSION};

/// A stack cannot be installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// The specification is refused.
    #[error("{0}")]
    Spec(#[from] SpecError),
    /// A parameter of a layer does not fit the endpoint's configuration.
    #[error("{0}")]
    Parameter(#[from] ParameterError),
    /// The fields do not fit.
    #[error("{0}")]
    Layout(#[from] LayoutError),
    /// The view has another wire version.
    #[error("the view has wire version {0}; this is version {WIRE_VERSION}")]
    WireVersion(u8),
    /// The frames are too small for the headers.
    #[error("frames of {frame_bytes} bytes have no room for headers of {header_bytes} bytes and a payload")]
    FrameTooSmall {
        /// Frame size.
        frame_bytes: usize,
        /// Header size.
        header_bytes: usize,
    },
}

/// A group's stack in one view.
pub(crate) struct Stack {
    pub(crate) engine: Engine,
    pub(crate) plans: Plans,
    casts: Region,
    /// Room that frames for casts and for sends keep for the header.
    cast_header_room: usize,
    send_header_room: usize,
    payload_max: usize,
    send_payload_max: usize,
    open: Option<OpenPack>,
    waiting: VecDeque<Closed>,
    waiting_max: usize,
    /// Bits of the cast-send and send-send guards that close the entry.
    entry: [u64; 2],
    accelerate: bool,
    pack: bool,
    shadow: Shadow,
    pub(crate) divergences: Vec<String>,
    early: Vec<Early>,
    early_max: usize,
    early_delay: Duration,
    order_max: usize,
    releases: Vec<u32>,
    /// A frame has left in this iteration: further messages are packed until its end.
    sent: bool,
    pub(crate) busy: bool,
    post_batch: u32,
    post_delay: Duration,
    post_due: Time,
    number_limit: u64,
    /// The application was refused and waits for room.
    refused: bool,
    exited: Option<ExitReason>,
    tickets: u64,
    fast: FastPath,
    misses: Vec<MissCount>,
    delivered: u64,
    sends: u64,
    sends_delivered: u64,
    cast_frames: u64,
}

/// A frame that came ahead of its turn.
struct Early {
    origin: Rank,
    traffic: Traffic,
    since: Time,
    received: Received,
}

/// A compiled stack before it is bound to a channel: what [`explain`](super::explain) shows.
pub(crate) struct Compiled {
    pub(crate) engine_layers: Vec<Box<dyn super::layer::Layer>>,
    pub(crate) blueprint: Blueprint,
    pub(crate) layouts: [Layout; 3],
    pub(crate) plans: Plans,
    pub(crate) counted: Vec<Option<u32>>,
    pub(crate) properties: Vec<Properties>,
    pub(crate) spec: Spec,
}

/// What a transport's frames can be relied on for, before any layer.
pub(crate) fn network_properties(caps: &Caps) -> Properties {
    if caps.integrity { Properties::of(&[Property::Integrity]) } else { Properties::NONE }
}

/// Parses, checks, installs and compiles a stack.
pub(crate) fn compile(
    registry: &Registry,
    view: &LocalView,
    network: Properties,
    window_max: u64,
) -> Result<Compiled, InstallError> {
    let spec = Spec::parse(&view.view().spec)?;
    let checked = spec.check(registry, network)?;
    let properties: Vec<Properties> = checked.iter().map(|(_, above)| *above).collect();
    let top = properties.first().copied().unwrap_or_default();
    let mut layers = Vec::new();
    for ((entry, _), named) in checked.iter().zip(&spec.layers) {
        layers.push((entry.make)(&named.parameters).map_err(|error| SpecError {
            text: spec.to_string(),
            at: named.at,
            problem: error.into(),
        })?);
    }
    let mut blueprint = Blueprint::new();
    for (layer, handler) in layers.iter_mut().enumerate().rev() {
        let name = handler.name();
        handler.install(&mut Build {
            blueprint: &mut blueprint,
            view,
            layer,
            name,
            properties: top,
            window_max,
        });
    }
    let layouts = blueprint.layouts()?;
    let (plans, counted) = Compiler { blueprint: &blueprint, layouts: &layouts, layers: &layers }.compile();
    Ok(Compiled { engine_layers: layers, blueprint, layouts, plans, counted, properties, spec })
}

/// The hash of a stack and its layouts: both sides must agree on it.
pub(crate) fn stack_hash(spec: &Spec, layouts: &[Layout; 3]) -> u64 {
    let mut hasher = Hasher64::new(0x7374_6163_6b00_0001);
    hasher.bytes(spec.to_string().as_bytes());
    for layout in layouts {
        layout.hash(&mut hasher);
    }
    hasher.finish()
}

impl Stack {
    pub(crate) fn new(
        config: &Config,
        registry: &Registry,
        view: LocalView,
        channel: Channel,
        caps: &Caps,
        now: Time,
    ) -> Result<Stack, InstallError> {
        if view.view().wire_version != WIRE_VERSION {
            return Err(InstallError::WireVersion(view.view().wire_version));
        }
        let compiled = compile(registry, &view, network_properties(caps), config.window_frames)?;
        let Compiled { engine_layers: layers, blueprint, layouts, mut plans, counted, spec, .. } = compiled;
        let full = |traffic: Traffic| PREFIX_BYTES + layouts[traffic as usize].full_bytes();
        let frame_bytes = channel.casts.frame_bytes().min(channel.control.frame_bytes());
        let headers = full(Traffic::Cast).max(full(Traffic::Send)).max(full(Traffic::Raw)) + PACK_ROOM_BYTES;
        if frame_bytes < headers + 64 {
            return Err(InstallError::FrameTooSmall { frame_bytes, header_bytes: headers });
        }
        if !config.accelerate {
            for plan in &mut plans {
                *plan = Err(NoPlan { layer: "configuration", reason: "acceleration is off" });
            }
        }
        let room = |kind: Kind| match &plans[kind as usize] {
            Ok(plan) => plan.header_bytes,
            Err(_) => full(kind.traffic()),
        };
        let members = view.size();
        let stack = stack_hash(&spec, &layouts);
        let identification = |rank: Rank| Identification {
            group: view.view().group,
            view: view.view().id,
            origin: view.member(rank).incarnation,
            stack,
        };
        let salt = view.view().salt;
        let cookies = (0..members)
            .map(|rank| {
                Traffic::ALL
                    .map(|traffic| cookie(&identification(Rank::at(rank)), WIRE_VERSION, traffic, 0, salt))
            })
            .collect();
        let entry = [GuardKind::CastSend, GuardKind::SendSend].map(|kind| {
            let owners = blueprint.guards.iter();
            owners
                .filter(|owner| owner.kind == kind && owner.closes == Closes::Entry)
                .fold(0, |mask, owner| mask | owner.mask)
        });
        let loop_layer = plans[Kind::CastSend as usize].as_ref().ok().and_then(|plan| plan.loop_layer);
        let releases = [Kind::CastDeliver, Kind::SelfDeliver]
            .iter()
            .find_map(|kind| plans[*kind as usize].as_ref().ok()?.deliver.as_ref())
            .map_or_else(Vec::new, |step| step.releases.clone());
        let window = config.window_frames;
        let queue_max = 64 + 8 * window as usize + 4 * members + 4 * layers.len();
        let core = Core {
            names: layers.iter().map(|layer| layer.name()).collect(),
            now,
            slots: Core::slots_of(&blueprint, members),
            homes: Blueprint::homes(&layouts),
            frame_number: blueprint.frame_number.map(|index| Field { traffic: Traffic::Cast, index }),
            guards: blueprint.guards.clone(),
            tallies: blueprint.tallies.clone(),
            counted: if config.accelerate { counted } else { vec![None; blueprint.tallies.len()] },
            loop_layer,
            timers: Timers::new(blueprint.timers.len()),
            timer_layers: blueprint.timers.iter().map(|(layer, _)| *layer).collect(),
            casts: (0..members).map(|_| Retention::new(window)).collect(),
            sends: (0..members).map(|_| Retention::new(window)).collect(),
            queue: VecDeque::with_capacity(queue_max),
            queue_max,
            loopback: VecDeque::with_capacity(2 * window as usize),
            order: VecDeque::with_capacity(config.order_frames_max.min(4096)),
            emerged: VecDeque::with_capacity(2 * window as usize),
            outbox: VecDeque::with_capacity(4 * window as usize + 64),
            gossip: GossipState::new(blueprint.gossips.clone(), members, config.gossip_delay),
            channel: channel.id,
            control: channel.control,
            identification: identification(view.rank()),
            cookies,
            work: 0,
            fast_casts: plans[Kind::CastSend as usize].is_ok(),
            counts: Vec::with_capacity(64),
            copies: 0,
            traced: VecDeque::with_capacity(config.trace_lines_max),
            traced_max: config.trace_lines_max,
            shared_matrices: blueprint.shared_matrices(),
            number_limit: config.frame_number_limit,
            layouts: layouts.clone(),
            view: Rc::new(view),
        };
        let mut stack = Stack {
            engine: Engine { core, layers },
            cast_header_room: room(Kind::CastSend),
            send_header_room: room(Kind::SendSend),
            payload_max: frame_bytes - full(Traffic::Cast) - PACK_ROOM_BYTES,
            send_payload_max: frame_bytes - full(Traffic::Send) - PACK_ROOM_BYTES,
            plans,
            casts: channel.casts,
            open: None,
            waiting: VecDeque::with_capacity(config.waiting_frames_max),
            waiting_max: config.waiting_frames_max,
            entry,
            accelerate: config.accelerate,
            pack: config.pack,
            shadow: config.shadow,
            divergences: Vec::new(),
            early: Vec::with_capacity(config.early_frames_max),
            early_max: config.early_frames_max,
            early_delay: config.early_delay,
            order_max: config.order_frames_max,
            releases,
            sent: false,
            busy: false,
            post_batch: config.post_batch_messages,
            post_delay: config.post_delay,
            post_due: Time::NEVER,
            number_limit: config.frame_number_limit,
            refused: false,
            exited: None,
            tickets: 0,
            fast: FastPath::default(),
            misses: Vec::new(),
            delivered: 0,
            sends: 0,
            sends_delivered: 0,
            cast_frames: 0,
        };
        for layer in (0..stack.engine.layers.len()).rev() {
            let Engine { core, layers } = &mut stack.engine;
            layers[layer].start(&mut Context { core, layer });
            stack.engine.run();
        }
        let view = Rc::clone(&stack.engine.core.view);
        stack.engine.arrive(Up::View(view));
        Ok(stack)
    }

    pub(crate) fn core(&self) -> &Core {
        &self.engine.core
    }

    // ---- The application's casts ----

    /// Room for a cast of `length` bytes, to be written and committed.
    #[inline]
    pub(crate) fn reserve(&mut self, length: usize) -> Result<&mut [u8], CastError> {
        if self.exited.is_some() || length > self.payload_max {
            return Err(self.impossible(length));
        }
        if self.open.as_ref().is_some_and(|open| !open.fits(length, self.payload_max)) {
            self.close_open();
        }
        if self.open.is_none() {
            self.open = Some(self.begin_pack()?);
        }
        let open = self.open.as_mut().expect("just made");
        Ok(open.lend(length))
    }

    /// The reserved bytes are a message.
    #[inline]
    pub(crate) fn commit(&mut self) -> Ticket {
        if let Some(open) = &mut self.open {
            open.commit();
        }
        self.tickets += 1;
        if !self.pack || !(self.sent || self.busy) && self.waiting.is_empty() && self.entry_open() {
            self.close_open();
        }
        Ticket(self.tickets)
    }

    /// The reserved bytes, to write.
    pub(crate) fn reserved(&mut self) -> &mut [u8] {
        self.open.as_mut().map_or(&mut [], |open| open.lent())
    }

    /// The reserved bytes as written so far.
    pub(crate) fn reserved_bytes(&self) -> &[u8] {
        self.open.as_ref().map_or(&[], |open| open.lent_bytes())
    }

    /// The reserved bytes are given up.
    pub(crate) fn abandon(&mut self) {
        if let Some(open) = &mut self.open {
            open.take_back();
        }
    }

    #[cold]
    fn impossible(&self, length: usize) -> CastError {
        match self.exited {
            Some(reason) => CastError::Exited(reason),
            None => CastError::TooLong { length, max: self.payload_max },
        }
    }

    #[inline]
    fn begin_pack(&mut self) -> Result<OpenPack, CastError> {
        if self.waiting.len() >= self.waiting_max {
            self.refused = true;
            if self.engine.core.next_frame_number() >= self.number_limit {
                return Err(CastError::NumberLimit);
            }
            return Err(CastError::Full { slowest: self.slowest() });
        }
        match self.casts.take(self.cast_header_room + PACK_ROOM_BYTES) {
            Ok(frame) => Ok(OpenPack::new(frame)),
            Err(exhausted) => {
                self.refused = true;
                Err(CastError::NoFrame(exhausted))
            }
        }
    }

    #[inline]
    fn entry_open(&self) -> bool {
        self.engine.core.slots.word(super::slots::fixed::CAST_SEND_GUARD) & self.entry[0] == 0
    }

    /// Closes the open pack: it enters the stack, or waits for the entry to open.
    #[inline]
    fn close_open(&mut self) {
        let Some(closed) = self.open.take().and_then(OpenPack::close) else { return };
        if self.waiting.is_empty() && self.entry_open() {
            self.enter(closed);
        } else {
            self.waiting.push_back(closed);
        }
    }

    /// Takes a filled frame down to its frame number: by the plan, or by the layers (design D8).
    #[inline]
    fn enter(&mut self, closed: Closed) {
        self.sent = true;
        self.cast_frames += 1;
        let core = &mut self.engine.core;
        let own = core.view.rank();
        let guard = core.slots.word(super::slots::fixed::CAST_SEND_GUARD);
        match &self.plans[Kind::CastSend as usize] {
            Ok(plan) if guard == 0 => {
                let before = (self.shadow != Shadow::Off).then(|| ShadowRun::before(&self.engine));
                let core = &mut self.engine.core;
                execute::send(core, plan, own, closed.frame, closed.messages, closed.packed);
                self.fast.send_hit += 1;
                if let Some(before) = before {
                    let list = self.engine.core.outbox.back().map(|t| (t.head.clone(), plan.header_bytes));
                    self.check_sent(before, Kind::CastSend, own, list, closed.messages, closed.packed);
                }
            }
            _ => self.enter_slow(closed, guard),
        }
    }

    #[cold]
    fn enter_slow(&mut self, closed: Closed, guard: u64) {
        self.fast.send_miss += 1;
        self.note_miss(Kind::CastSend, Miss::Guard(guard));
        let frame = closed.frame.freeze();
        let (from, to) = (frame.start(), frame.end());
        let list = if closed.packed {
            List::packed(frame, from, to, closed.messages)
        } else {
            List::single(frame, from, to)
        };
        self.engine.enter(Down::Cast(Message::data(Traffic::Cast, list)));
    }

    #[cold]
    fn check_sent(
        &mut self,
        before: ShadowRun,
        kind: Kind,
        peer: Rank,
        sent: Option<(crate::buf::Frame, usize)>,
        messages: u32,
        packed: bool,
    ) {
        let Some((frame, header)) = sent else { return };
        let (from, to) = (frame.start() + header, frame.end());
        let list =
            if packed { List::packed(frame, from, to, messages) } else { List::single(frame, from, to) };
        let differs = before.compare(&mut self.engine, Handled::Sent(kind, peer, &list));
        self.diverged(kind, differs);
    }

    #[cold]
    fn diverged(&mut self, kind: Kind, differs: Option<String>) {
        let Some(differs) = differs else { return };
        let text = format!(
            "{} plan and layers of {} disagree: {differs}",
            kind.name(),
            self.core().view.view().spec
        );
        assert!(self.shadow != Shadow::Panic, "{text}");
        self.divergences.push(text);
    }

    // ---- The application's sends ----

    /// Sends `message` to the members in `to`, reliably and in order.
    pub(crate) fn send(&mut self, to: &RankSet, message: &[u8]) -> Result<(), SendError> {
        let core = &self.engine.core;
        if let Some(reason) = self.exited {
            return Err(SendError::Exited(reason));
        }
        if message.len() > self.send_payload_max {
            return Err(SendError::TooLong { length: message.len(), max: self.send_payload_max });
        }
        if core.layouts[Traffic::Send as usize].frame_number().is_none() {
            return Err(SendError::NoLayer);
        }
        if let Some(rank) = to.iter().find(|rank| rank.index() >= core.view.size()) {
            return Err(SendError::NotAMember(rank));
        }
        let closed =
            |rank: &Rank| core.slots.word(GuardKind::SendSend.word(&core.slots, *rank)) & self.entry[1] != 0;
        if let Some(slowest) = to.iter().find(closed) {
            self.refused = true;
            return Err(SendError::Full { slowest });
        }
        let mut frame = core.control.take(self.send_header_room + PACK_ROOM_BYTES).map_err(|exhausted| {
            self.refused = true;
            SendError::NoFrame(exhausted)
        })?;
        frame.extend(message).expect("its length was checked");
        self.sends += to.len() as u64;
        let only = to.iter().next().filter(|_| to.len() == 1);
        match (&self.plans[Kind::SendSend as usize], only) {
            (Ok(plan), Some(peer))
                if peer != core.view.rank()
                    && core.slots.word(GuardKind::SendSend.word(&core.slots, peer)) == 0 =>
            {
                let before = (self.shadow != Shadow::Off).then(|| ShadowRun::before(&self.engine));
                execute::send(&mut self.engine.core, plan, peer, frame, 1, false);
                self.fast.send_hit += 1;
                if let Some(before) = before {
                    let sent = self.engine.core.outbox.back().map(|t| (t.head.clone(), plan.header_bytes));
                    self.check_sent(before, Kind::SendSend, peer, sent, 1, false);
                }
            }
            _ => {
                self.fast.send_miss += 1;
                self.note_miss(Kind::SendSend, Miss::Guard(0));
                let frame = frame.freeze();
                let (from, to_byte) = (frame.start(), frame.end());
                let list = List::single(frame, from, to_byte);
                self.engine.enter(Down::Send(*to, Message::data(Traffic::Send, list)));
            }
        }
        Ok(())
    }

    /// The application has seen everything of `origin` below `seen`.
    pub(crate) fn ack(&mut self, origin: Rank, seen: u64) {
        self.engine.enter(Down::Ack { origin, seen });
        self.engine.core.work += 1;
    }

    // ---- What comes in ----

    /// A frame whose cookie says it is `traffic` of `origin`.
    #[inline]
    pub(crate) fn fast_frame(
        &mut self,
        origin: Rank,
        traffic: Traffic,
        received: Received,
        app: &mut dyn Application,
    ) {
        let kind = if traffic == Traffic::Cast { Kind::CastDeliver } else { Kind::SendDeliver };
        if self.try_fast(kind, origin, &received, app, false) && !self.early.is_empty() {
            self.retry_early(origin, traffic, app);
        }
    }

    /// Tries the plan; returns whether it ran. What does not run is parked or takes the layers.
    #[inline]
    fn try_fast(
        &mut self,
        kind: Kind,
        origin: Rank,
        received: &Received,
        app: &mut dyn Application,
        parked: bool,
    ) -> bool {
        if self.engine.core.order.len() >= self.order_max && kind == Kind::CastDeliver {
            self.engine.core.count_stack("cast dropped: order queue full");
            return false;
        }
        let before = match self.shadow {
            Shadow::Off => None,
            _ => Some(ShadowRun::before(&self.engine)),
        };
        let Stack { engine, plans, fast, .. } = self;
        let Ok(plan) = &plans[kind as usize] else {
            self.expand(kind, origin, received, Miss::Guard(0), app);
            return false;
        };
        let cookie = engine.core.cookies[origin.index()][kind.traffic() as usize];
        let incoming = Incoming { frame: &received.frame, from: received.from, to: received.to };
        match execute::accept(&mut engine.core, plan, cookie, origin, &incoming) {
            Outcome::Hit { list, number } => {
                if parked {
                    fast.deliver_early += 1;
                } else {
                    fast.deliver_hit += 1;
                }
                if plan.deliver.is_none() && before.is_none() {
                    self.upcall(kind, origin, number, &list, app);
                } else {
                    self.accepted(kind, origin, number, list, before, received.from, app);
                }
                true
            }
            Outcome::Early(ahead) if !parked => {
                self.park(kind, origin, received.clone(), ahead, app);
                false
            }
            Outcome::Early(_) => false,
            Outcome::Miss(miss) => {
                self.expand(kind, origin, received, miss, app);
                false
            }
        }
    }

    /// The rest of a hit that is not delivered at once or is compared with the layers.
    fn accepted(
        &mut self,
        kind: Kind,
        origin: Rank,
        number: u64,
        list: List,
        before: Option<ShadowRun>,
        header_from: usize,
        app: &mut dyn Application,
    ) {
        let Ok(plan) = &self.plans[kind as usize] else { return };
        let core = &mut self.engine.core;
        let delivered = match &plan.deliver {
            None => true,
            Some(step) => {
                let first = !core.order.iter().any(|held| held.origin == origin);
                first && execute::released(core, step, origin, number, &list)
            }
        };
        if !delivered {
            core.order.push_back(Ordered { origin, number, list: list.clone(), slow: None });
        }
        if let Some(before) = before {
            let layout = &core.layouts[kind.traffic() as usize];
            let bytes = list.frame().slice(header_from, list.to());
            let header = layout
                .words_of(bytes)
                .map(|words| layout.expand(&words))
                .unwrap_or(crate::wire::layout::Header::ZERO);
            let from_layer = match (kind, core.loop_layer) {
                (Kind::SelfDeliver, Some(layer)) => layer,
                _ => self.engine.layers.len(),
            };
            let handled =
                Handled::Accepted { kind, origin, header, list: &list, number, delivered, from_layer };
            let differs = before.compare(&mut self.engine, handled);
            self.diverged(kind, differs);
        }
        if delivered {
            self.upcall(kind, origin, number, &list, app);
        }
        self.drain(app);
    }

    #[cold]
    fn park(&mut self, kind: Kind, origin: Rank, received: Received, ahead: u64, app: &mut dyn Application) {
        if self.early.len() >= self.early_max || ahead > self.early_max as u64 {
            self.expand_early(Some((origin, kind.traffic())), Time::NEVER, app);
            self.expand(kind, origin, &received, Miss::Field(0, 0), app);
            return;
        }
        let since = self.engine.core.now;
        self.early.push(Early { origin, traffic: kind.traffic(), since, received });
    }

    /// Tries the parked frames of an origin again, until none of them runs.
    #[cold]
    fn retry_early(&mut self, origin: Rank, traffic: Traffic, app: &mut dyn Application) {
        let kind = if traffic == Traffic::Cast { Kind::CastDeliver } else { Kind::SendDeliver };
        let mut at = 0;
        while at < self.early.len() {
            let parked = &self.early[at];
            if parked.origin != origin || parked.traffic != traffic {
                at += 1;
                continue;
            }
            let received = parked.received.clone();
            let misses = self.fast.deliver_miss;
            let ran = self.try_fast(kind, origin, &received, app, true);
            if ran || self.fast.deliver_miss != misses {
                // It ran, or took the layers (a duplicate, say): either way it is not parked any more.
                self.early.swap_remove(at);
                at = 0;
            } else {
                at += 1;
            }
        }
    }

    /// Hands parked frames to the layers: all that wait since before `until`, or those of one origin.
    #[cold]
    fn expand_early(&mut self, of: Option<(Rank, Traffic)>, until: Time, app: &mut dyn Application) {
        loop {
            let wanted = |early: &Early| match of {
                Some((origin, traffic)) => early.origin == origin && early.traffic == traffic,
                None => early.since <= until,
            };
            let Some(at) = self.early.iter().position(wanted) else { return };
            let Early { origin, traffic, received, .. } = self.early.swap_remove(at);
            let kind = if traffic == Traffic::Cast { Kind::CastDeliver } else { Kind::SendDeliver };
            self.expand(kind, origin, &received, Miss::Field(0, 0), app);
        }
    }

    /// A fast frame that the plan cannot take: its full form goes through the layers.
    #[cold]
    fn expand(
        &mut self,
        kind: Kind,
        origin: Rank,
        received: &Received,
        miss: Miss,
        app: &mut dyn Application,
    ) {
        self.fast.deliver_miss += 1;
        self.note_miss(kind, miss);
        let layout = &self.engine.core.layouts[kind.traffic() as usize];
        let bytes = received.bytes();
        let header_bytes = layout.compressed_bytes();
        let packed = crate::wire::word(bytes, 0).is_some_and(|first| first & crate::wire::PACK_FLAG != 0);
        let words = if bytes.len() < header_bytes { None } else { layout.words_of(bytes) };
        let Some(words) = words else {
            self.engine.core.count_stack("frame shorter than its header");
            return;
        };
        let header = layout.expand(&words);
        let Ok(list) = List::parse(received.frame.clone(), received.from + header_bytes, received.to, packed)
        else {
            self.engine.core.count_stack("pack that is none");
            return;
        };
        let message = Message { header, ..Message::data(kind.traffic(), list) };
        self.arrive(origin, message, app);
    }

    /// A frame with a full header.
    pub(crate) fn full_frame(&mut self, origin: Rank, message: Message, app: &mut dyn Application) {
        if message.traffic != Traffic::Raw && !message.is_control() {
            self.fast.deliver_miss += 1;
            let kind = if message.traffic == Traffic::Cast { Kind::CastDeliver } else { Kind::SendDeliver };
            self.note(kind, "stack", "full header");
            if !self.early.is_empty() {
                self.arrive(origin, message, app);
                self.retry_early(origin, kind.traffic(), app);
                return;
            }
        }
        self.arrive(origin, message, app);
    }

    fn arrive(&mut self, origin: Rank, message: Message, app: &mut dyn Application) {
        if self.engine.core.order.len() >= self.order_max && message.traffic == Traffic::Cast {
            self.engine.core.count_stack("cast dropped: order queue full");
            return;
        }
        self.engine.core.work += 1;
        self.engine.arrive(match message.traffic {
            Traffic::Cast => Up::Cast(origin, message),
            Traffic::Send => Up::Send(origin, message),
            Traffic::Raw => Up::Raw(origin, message),
        });
        self.drain(app);
    }

    // ---- What comes out ----

    /// Hands everything that emerged at the top to the application, and what was released since.
    fn drain(&mut self, app: &mut dyn Application) {
        loop {
            while let Some(emerged) = self.engine.core.emerged.pop_front() {
                match emerged {
                    Emerged::Cast(origin, message) => {
                        self.upcall(Kind::CastDeliver, origin, message.number, &message.list, app);
                    }
                    Emerged::Send(origin, message) => {
                        self.upcall(Kind::SendDeliver, origin, message.number, &message.list, app);
                    }
                    Emerged::Event(event) => self.event(event, app),
                }
            }
            if self.engine.core.order.is_empty() {
                return;
            }
            let Some(held) = self.engine.next_released(&self.releases) else { return };
            match held.slow {
                Some((layer, _, message)) => {
                    self.engine.core.emit_up(layer, Up::Cast(held.origin, *message));
                    self.engine.run();
                }
                None => {
                    let own = held.origin == self.engine.core.view.rank();
                    let kind = if own { Kind::SelfDeliver } else { Kind::CastDeliver };
                    if let Ok(plan) = &self.plans[kind as usize]
                        && let Some(step) = &plan.deliver
                    {
                        execute::released(&mut self.engine.core, step, held.origin, held.number, &held.list);
                    }
                    self.upcall(kind, held.origin, held.number, &held.list, app);
                }
            }
        }
    }

    #[inline]
    fn upcall(&mut self, kind: Kind, origin: Rank, number: u64, list: &List, app: &mut dyn Application) {
        let delivery = Delivery::new(origin, number, list);
        if kind == Kind::SendDeliver {
            self.sends_delivered += 1;
            app.send(&delivery, &mut Group::new(self));
        } else {
            self.delivered += list.len() as u64;
            app.cast(&delivery, &mut Group::new(self));
        }
    }

    fn event(&mut self, event: Up, app: &mut dyn Application) {
        let event = match event {
            Up::View(view) => Event::View(view),
            Up::Stable => Event::Stable,
            Up::Problem(problem) => Event::Problem(problem),
            Up::LostMessage { origin, reason } => Event::LostMessage { origin, reason },
            Up::Exit(reason) => {
                if self.exited.replace(reason).is_some() {
                    return;
                }
                self.open = None;
                self.waiting.clear();
                Event::Exit(reason)
            }
            Up::Flush => Event::Block,
            Up::Leave(rank) => Event::Left(rank),
            Up::Suspect(ranks) => Event::Suspect(ranks),
            Up::FlushOk | Up::Cast(..) | Up::Send(..) | Up::Raw(..) => return,
        };
        app.event(&event, &mut Group::new(self));
    }

    /// Leaves the group: nothing is sent any more.
    pub(crate) fn leave(&mut self) {
        self.close_open();
        self.engine.enter(Down::Leave);
        self.engine.core.emit_application(Up::Exit(ExitReason::Left));
    }

    // ---- The loop ----

    /// One iteration: timers, own copies, early frames, open packs, waiting casts, post-processing.
    pub(crate) fn poll(&mut self, now: Time, app: &mut dyn Application) {
        self.engine.core.now = now;
        self.sent = false;
        if self.engine.core.timers.earliest() <= now {
            self.engine.timers();
            self.drain(app);
        }
        if !self.engine.core.loopback.is_empty() {
            self.own_copies(app);
        }
        if !self.early.is_empty() {
            let until = Time::from_nanos(now.as_nanos().saturating_sub(self.early_delay.as_nanos() as u64));
            self.expand_early(None, until, app);
        }
        if self.entry_open() {
            while let Some(closed) = self.waiting.pop_front() {
                self.enter(closed);
                if !self.entry_open() {
                    break;
                }
            }
            if self.open.is_some() && !self.busy && self.waiting.is_empty() {
                self.close_open();
            }
        }
        self.post_if_due(app);
        if !self.engine.core.emerged.is_empty() || !self.engine.core.order.is_empty() {
            self.drain(app);
        }
        if self.refused && self.writable() {
            self.refused = false;
            app.event(&Event::Writable, &mut Group::new(self));
        }
    }

    /// Delivers this member's own casts.
    fn own_copies(&mut self, app: &mut dyn Application) {
        let own = self.engine.core.view.rank();
        for _ in 0..self.engine.core.loopback.len() {
            if self.engine.core.order.len() >= self.order_max {
                return;
            }
            let Some(looped) = self.engine.core.loopback.pop_front() else { return };
            if looped.header.is_none()
                && let Ok(plan) = &self.plans[Kind::SelfDeliver as usize]
            {
                let before = (self.shadow != Shadow::Off).then(|| ShadowRun::before(&self.engine));
                let header_from = looped.list.from() - plan.header_bytes;
                let (frame, to) = (looped.list.frame().clone(), looped.list.to());
                let incoming = Incoming { frame: &frame, from: header_from, to };
                match execute::accept(&mut self.engine.core, plan, 0, own, &incoming) {
                    Outcome::Hit { list, number } => {
                        self.fast.deliver_hit += 1;
                        if plan.deliver.is_none() && before.is_none() {
                            self.upcall(Kind::SelfDeliver, own, number, &list, app);
                        } else {
                            self.accepted(Kind::SelfDeliver, own, number, list, before, header_from, app);
                        }
                        continue;
                    }
                    Outcome::Early(_) => self.note_miss(Kind::SelfDeliver, Miss::Field(0, 0)),
                    Outcome::Miss(miss) => self.note_miss(Kind::SelfDeliver, miss),
                }
            }
            self.fast.deliver_miss += 1;
            let core = &self.engine.core;
            let header = looped.header.or_else(|| core.header_before(Traffic::Cast, &looped.list));
            let Some(header) = header else { continue };
            let message =
                Message { number: looped.number, header, ..Message::data(Traffic::Cast, looped.list) };
            self.engine.core.work += 1;
            self.engine.core.emit_up(looped.layer, Up::Cast(own, message));
            self.engine.run();
            self.drain(app);
        }
    }

    fn post_if_due(&mut self, app: &mut dyn Application) {
        let core = &self.engine.core;
        let (now, work) = (core.now, core.work);
        if work == 0 && !core.gossip.requested() && now < core.gossip.due() {
            return;
        }
        if self.post_due == Time::NEVER {
            self.post_due = now + self.post_delay;
        }
        let blocked = !self.waiting.is_empty() || self.refused;
        if work >= self.post_batch
            || now >= self.post_due
            || blocked
            || core.gossip.requested()
            || now >= core.gossip.due()
        {
            self.engine.post();
            self.post_due = Time::NEVER;
            self.drain(app);
        }
    }

    /// When `poll` must be called next.
    pub(crate) fn deadline(&self) -> Time {
        let core = &self.engine.core;
        let can_enter = self.entry_open() && (self.open.is_some() || !self.waiting.is_empty());
        if can_enter || !core.loopback.is_empty() || core.gossip.requested() {
            return Time::ZERO;
        }
        let mut deadline = core.timers.earliest().min(core.gossip.due()).min(self.post_due);
        if core.work > 0 && self.post_due == Time::NEVER {
            return Time::ZERO;
        }
        for early in &self.early {
            deadline = deadline.min(early.since + self.early_delay);
        }
        deadline
    }

    // ---- Questions ----

    /// Whether a cast would be taken now.
    pub(crate) fn writable(&self) -> bool {
        let room = self.waiting.len() < self.waiting_max;
        let frames = self.open.is_some() || self.casts.take(self.cast_header_room + PACK_ROOM_BYTES).is_ok();
        self.exited.is_none() && room && frames && self.engine.core.next_frame_number() < self.number_limit
    }

    /// The member that has acknowledged least of this member's casts; `None` in a view of one.
    pub(crate) fn slowest(&self) -> Option<Rank> {
        let core = &self.engine.core;
        let held = core.gossip.definitions.iter().find(|gossip| {
            matches!(gossip.source, super::build::GossipSource::Accepted(field) if Some(field) == core.frame_number)
        })?;
        let own = core.view.rank();
        core.view.others().min_by_key(|rank| core.slots.pair(held.matrix, *rank, own))
    }

    pub(crate) fn payload_max(&self) -> usize {
        self.payload_max
    }

    pub(crate) fn exited(&self) -> Option<ExitReason> {
        self.exited
    }

    /// Who holds and has seen what.
    pub(crate) fn stability(&self) -> Stability {
        let core = &self.engine.core;
        let rows = |name: &str| {
            let matrix = core.shared_matrices.iter().find(|(shared, _)| *shared == name);
            let row = |reporter: usize| {
                let entry = |origin: usize| {
                    matrix.map_or(0, |(_, slot)| core.slots.pair(*slot, Rank::at(reporter), Rank::at(origin)))
                };
                (0..core.view.size()).map(entry).collect()
            };
            (0..core.view.size()).map(row).collect()
        };
        Stability { held: rows(shared::HELD), seen: rows(shared::SEEN) }
    }

    /// A line per layer that has something to say.
    pub(crate) fn dump(&mut self) -> Vec<String> {
        let Engine { core, layers } = &mut self.engine;
        let mut lines = Vec::new();
        for (layer, handler) in layers.iter().enumerate() {
            let name = core.names[layer];
            if let Some(line) = handler.dump(&Context { core, layer }) {
                lines.push(format!("{name}: {line}"));
            }
        }
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
            copies: core.copies,
            unacknowledged: own.end - own.start,
            retained: retained.sum(),
            waiting: self.waiting.len() as u64,
        }
    }

    // ---- Misses ----

    #[cold]
    fn note_miss(&mut self, kind: Kind, miss: Miss) {
        let core = &self.engine.core;
        let plan = match &self.plans[kind as usize] {
            Ok(plan) => plan,
            Err(none) => {
                let (layer, reason) = (none.layer, none.reason);
                self.note(kind, layer, reason);
                return;
            }
        };
        let layout = &core.layouts[kind.traffic() as usize];
        let (layer, reason) = match miss {
            Miss::Guard(0) => ("stack".to_string(), "several destinations or this member".to_string()),
            Miss::Guard(bits) => match core.closers(kind.guard(), bits).next() {
                Some(owner) => (core.names[owner.layer].to_string(), format!("guard {}", owner.name)),
                None => ("stack".to_string(), "guard of no layer".to_string()),
            },
            Miss::Short => ("stack".to_string(), "short frame".to_string()),
            Miss::Pack => ("stack".to_string(), "malformed pack".to_string()),
            Miss::Filter(at) => {
                let field = plan.filters[usize::from(at)].field;
                split_name(&layout.fields()[usize::from(field)].0.name)
            }
            Miss::Field(_, 0) => ("stack".to_string(), "early frame that waited too long".to_string()),
            Miss::Field(word, bits) => layout
                .fields()
                .iter()
                .find(|(field, place)| {
                    matches!(place, crate::wire::layout::Place::Word { word: at, shift }
                        if *at == word && (crate::wire::bits::low_bits(field.bits) << shift) & bits != 0)
                })
                .map_or_else(|| ("stack".into(), "field".into()), |(field, _)| split_name(&field.name)),
        };
        self.note(kind, &layer, &reason);
    }

    #[cold]
    fn note(&mut self, kind: Kind, layer: &str, reason: &str) {
        let plan = kind.name();
        match self.misses.iter_mut().find(|m| m.plan == plan && m.layer == layer && m.reason == reason) {
            Some(miss) => miss.count += 1,
            None => self.misses.push(MissCount {
                plan,
                layer: layer.to_string(),
                reason: reason.to_string(),
                count: 1,
            }),
        }
    }

    /// Whether plans are in use at all.
    pub(crate) fn accelerated(&self) -> bool {
        self.accelerate
    }
}

/// `LAYER.field` as layer and reason.
fn split_name(name: &str) -> (String, String) {
    let (layer, field) = name.split_once('.').unwrap_or(("stack", name));
    (layer.to_string(), format!("{field} differs"))
}
