//! One group's stack at work.
//!
//! - `enter`: the application's casts and sends go in;
//! - `large`: messages larger than a frame go in, and are put together again;
//! - `arrive`: frames come in, by plan or by layers;
//! - `emerge`: deliveries and events go to the application;
//! - `cycle`: what one iteration of the driver loop does;
//! - `succeed`: what the stack of one view hands over to that of the next;
//! - `account`: what can be asked.

mod account;
mod arrive;
#[cfg(test)]
mod bounded;
mod cycle;
mod emerge;
mod enter;
mod large;
mod succeed;

pub(crate) use succeed::Legacies;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use self::large::{LargeMessages, Waiting};
use crate::accel::cookie::cookie;
use crate::accel::pack::{OpenPack, PACK_ROOM_BYTES};
use crate::accel::plan::{Compiler, NoPlan, Plans};
use crate::buf::Region;
use crate::config::{Config, Shadow};
use crate::group::Ticket;
use crate::id::{GroupId, Hasher64, Incarnation, Rank, RankSet};
use crate::stack::build::{Blueprint, Build, Closes, Field, GuardKind};
use crate::stack::core::{Core, Taken};
use crate::stack::engine::Engine;
use crate::stack::event::{ExitReason, NextView, Up};
use crate::stack::gossip::{Carried, GossipState};
use crate::stack::identify::Asked;
use crate::stack::layer::{Context, Kind};
use crate::stack::notices::Ways;
use crate::stack::order::OrderQueue;
use crate::stack::post::Posting;
use crate::stack::property::{Properties, Property};
use crate::stack::registry::{ParameterError, Registry};
use crate::stack::retention::Retention;
use crate::stack::spec::{Spec, SpecError};
use crate::stack::timers::Timers;
use crate::stats::{FastPath, MissCount, PostProcessing};
use crate::time::Time;
use crate::transport::{Caps, Channel, Received};
use crate::view::{LocalView, Neighbours};
use crate::wire::bits::low_bits;
use crate::wire::control::{GOSSIP_HEADER_BYTES, GOSSIP_LIFE_BYTES};
use crate::wire::full::{Identification, PREFIX_BYTES};
use crate::wire::layout::{Class, Layout, LayoutError};
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
    /// The view was taken for another process.
    #[error("the view is that of incarnation {view}; this endpoint is {endpoint}")]
    OtherIncarnation {
        /// The view's own member.
        view: Incarnation,
        /// The endpoint.
        endpoint: Incarnation,
    },
    /// The endpoint has that group, or had it and has not let go of it.
    #[error(
        "this endpoint is in group {0} already, or was; to take part in it again, `forget` it after its exit"
    )]
    AlreadyThere(GroupId),
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
    open: OpenPack,
    waiting: VecDeque<Waiting>,
    /// How many of the first that wait belong to this view, once the application has said so.
    of_this_view: Option<usize>,
    large: LargeMessages,
    waiting_max: usize,
    /// Frames of the control region that sends leave to acknowledgements, gossip and repair.
    control_reserve: usize,
    /// Bits of the cast-send and send-send guards that close the entry.
    entry: [u64; 2],
    pack: bool,
    pack_delay: Duration,
    /// When the open pack was begun.
    open_since: Time,
    shadow: Shadow,
    pub(crate) divergences: Vec<String>,
    early: Vec<Early>,
    early_max: usize,
    early_delay: Duration,
    /// Held casts of one origin at which further ones are dropped. It is a share per origin: were it one bound for all,
    /// members could fill their queues with what the others have no room to accept, for ever.
    order_share: usize,
    releases: Vec<u32>,
    /// The same of what is in order already.
    last_releases: Vec<u32>,
    /// A frame has left in this iteration: further messages are packed until its end.
    sent: bool,
    pub(crate) busy: bool,
    /// The same before the frames of this iteration came.
    pub(crate) was_busy: bool,
    /// Casts have come to wait at a closed entry: the layers are told soon.
    stuck: bool,
    post_batch: u32,
    post_delay: Duration,
    /// Others wait for what post-processing says of casts that wait for their order here.
    prompt_if_held: bool,
    post_due: Time,
    /// The layer that is prompted, and the work there was when it was.
    prompted: Option<usize>,
    prompted_work: u32,
    /// The work that the last pieces of post-processing took note of, and how many pieces a pass has.
    posted_work: u32,
    pieces_of_a_pass: u64,
    number_limit: u64,
    send_number_limit: u64,
    /// The application wants the loop that drives it to end.
    pub(crate) asks_to_stop: bool,
    /// A cast was refused and waits for room.
    refused: bool,
    /// Peers whose windows refused a send, and whether one was refused for want of a frame.
    refused_by: RankSet,
    refused_frame: bool,
    exited: Option<ExitReason>,
    exit_told: bool,
    /// The channel of an exited group has been given up.
    pub(crate) closed: bool,
    /// The channel of the next view has been asked for.
    pub(crate) opening: bool,
    /// The application wants out; the layers see to it.
    leaving: bool,
    /// It could not take in a part of the state: it gets no more of it.
    state_refused: bool,
    /// Some layer agrees on views.
    live: bool,
    /// The view that follows.
    next: Option<Rc<NextView>>,
    /// Views of this group so far.
    views: u64,
    /// Payloads copied at the ends of views, and in past ones.
    copies: u64,
    /// Post-processing of past views.
    post: PostProcessing,
    tickets: u64,
    first_ticket: Ticket,
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

/// A compiled stack before it is bound to a channel: what [`explain`](crate::stack::explain) shows.
pub(crate) struct Compiled {
    pub(crate) layers: Vec<Box<dyn crate::stack::layer::Layer>>,
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
    (window_max, control_frames): (u64, u64),
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
            control_frames,
        });
    }
    if let Some(refused) = blueprint.refused.take() {
        return Err(refused.into());
    }
    let layouts = blueprint.layouts()?;
    let (plans, counted) = Compiler { blueprint: &blueprint, layouts: &layouts, layers: &layers }.compile();
    Ok(Compiled { layers, blueprint, layouts, plans, counted, properties, spec })
}

/// The hash of a stack, its windows and its layouts: both sides must agree on it.
pub(crate) fn stack_hash(spec: &Spec, window_frames: u64, layouts: &[Layout; 3]) -> u64 {
    let mut hasher = Hasher64::new(0x7374_6163_6b00_0001);
    hasher.bytes(spec.to_string().as_bytes());
    hasher.word(window_frames);
    for layout in layouts {
        layout.digest(&mut hasher);
    }
    hasher.finish()
}

impl Stack {
    #[expect(clippy::too_many_arguments, reason = "everything a stack is made of, given once")]
    pub(crate) fn new(
        config: &Config,
        registry: &Registry,
        view: LocalView,
        neighbours: Rc<Neighbours>,
        channel: Channel,
        caps: &Caps,
        legacies: Legacies,
        now: Time,
    ) -> Result<Stack, InstallError> {
        if view.view().wire_version != WIRE_VERSION {
            return Err(InstallError::WireVersion(view.view().wire_version));
        }
        let compiled = compile(
            registry,
            &view,
            network_properties(caps),
            (config.window_frames, config.control_frames as u64),
        )?;
        let Compiled { mut layers, blueprint, layouts, mut plans, counted, properties, spec } = compiled;
        let live = properties.first().is_some_and(|top| top.contains(Property::ConsistentViews));
        for (name, legacy) in legacies {
            if let Some(heir) = layers.iter_mut().find(|layer| layer.name() == name) {
                heir.inherit(legacy);
            }
        }
        let full = |traffic: Traffic| PREFIX_BYTES + layouts[traffic as usize].full_bytes();
        let frame_bytes = channel.casts.frame_bytes().min(channel.control.frame_bytes());
        let headers = full(Traffic::Cast).max(full(Traffic::Send)).max(full(Traffic::Raw)) + PACK_ROOM_BYTES;
        let row = GOSSIP_HEADER_BYTES + 8 * blueprint.gossips.len() + GOSSIP_LIFE_BYTES;
        if frame_bytes < headers + row.max(64) {
            return Err(InstallError::FrameTooSmall { frame_bytes, header_bytes: headers });
        }
        if !config.accelerate {
            plans.fill(Err(NoPlan { layer: "configuration", reason: "acceleration is off" }));
        }
        // No field wraps within a view: the narrowest protocol field ends the numbers.
        let numbers = |traffic: Traffic| {
            let fields = layouts[traffic as usize].fields().iter();
            let protocol = fields.filter(|(field, _)| field.class == Class::Protocol);
            protocol.map(|(field, _)| low_bits(field.bits)).min().unwrap_or(u64::MAX)
        };
        let number_limit = config.frame_number_limit.min(numbers(Traffic::Cast));
        let send_number_limit = config.send_number_limit.min(numbers(Traffic::Send));
        let room = |plans: &Plans, kind: Kind| match &plans[kind as usize] {
            Ok(plan) => plan.header_bytes,
            Err(_) => full(kind.traffic()),
        };
        let members = view.size();
        let stack = stack_hash(&spec, config.window_frames, &layouts);
        let identification = |rank: Rank| Identification {
            group: view.view().group,
            view: view.view().id,
            origin: view.member(rank).incarnation,
            stack,
        };
        let salt = view.view().salt;
        let cookies: Vec<[u64; 3]> = (0..members)
            .map(|rank| {
                Traffic::ALL
                    .map(|traffic| cookie(&identification(Rank::at(rank)), WIRE_VERSION, traffic, 0, salt))
            })
            .collect();
        for plan in plans.iter_mut().flatten() {
            plan.straight = plan.last.is_none() && config.shadow == Shadow::Off;
            plan.cookie = cookies[view.rank().index()][plan.kind.traffic() as usize];
        }
        let entry = [GuardKind::CastSend, GuardKind::SendSend].map(|kind| {
            let owners = blueprint.guards.iter();
            owners
                .filter(|owner| owner.kind == kind && matches!(owner.closes, Closes::Entry(_)))
                .fold(0, |mask, owner| mask | owner.mask)
        });
        let loop_layer = plans[Kind::CastSend as usize].as_ref().ok().and_then(|plan| plan.loop_layer);
        let mut releases = Vec::new();
        let mut last_releases = Vec::new();
        for plan in [Kind::CastDeliver, Kind::SelfDeliver].iter().flat_map(|kind| &plans[*kind as usize]) {
            releases = plan.deliver.as_ref().map_or(releases, |step| step.releases.clone());
            last_releases = plan.last.as_ref().map_or(last_releases, |step| step.releases.clone());
        }
        let carried = match &plans[Kind::CastDeliver as usize] {
            Ok(plan) => Carried::new(members, plan.shape.words(), plan.gossips()),
            Err(_) => Carried::default(),
        };
        let window = config.window_frames;
        // What one event can set off: everything parked of one origin, as much resent to one asker, sends repeated to
        // every peer, own casts looped; and something for every layer and member.
        let queue_max = 2 * window as usize + 64 * members + 4 * layers.len() + 256;
        // Without a layer for them there are none.
        let fragmented = blueprint.fragmented_bytes_max.unwrap_or(0).min(config.message_bytes_max as u64);
        let mut core = Core {
            own: view.rank(),
            names: layers.iter().map(|layer| layer.name()).collect(),
            ways: Rc::new(Ways::new(&layers)),
            now,
            slots: Core::slots_of(&blueprint, members),
            homes: Blueprint::homes(&layouts),
            number_home: blueprint
                .frame_number
                .map(|index| Blueprint::homes(&layouts)[Traffic::Cast as usize][usize::from(index)])
                .unwrap_or_default(),
            frame_number: blueprint.frame_number.map(|index| Field { traffic: Traffic::Cast, index }),
            send_number: blueprint.send_number.map(|index| Field { traffic: Traffic::Send, index }),
            guards: blueprint.guards.clone(),
            tallies: blueprint.tallies.clone(),
            field_layers: blueprint.field_layers.clone(),
            counted: if config.accelerate { counted } else { vec![None; blueprint.tallies.len()] },
            loop_layer,
            timers: Timers::new(blueprint.timers.len()),
            timer_layers: blueprint.timers.iter().map(|(layer, _)| *layer).collect(),
            casts: (0..members).map(|_| Retention::new(window)).collect(),
            retain_bytes_max: config.retain_bytes_max,
            pinned_most: 0,
            copies: Vec::new(),
            copy_bytes: config.frame_bytes_max.max(frame_bytes),
            copied: 0,
            // The application's sends and as many control messages, both at least one.
            sends: (0..members).map(|_| Retention::new(window.max(2))).collect(),
            queue: VecDeque::with_capacity(queue_max),
            queue_max,
            loop_numbers: 0..0,
            loopback: VecDeque::with_capacity(2 * window as usize),
            looped_headers: VecDeque::new(),
            order: OrderQueue::new(members, config.order_frames_max.min(4096)),
            runs: VecDeque::with_capacity(members),
            emerged: VecDeque::with_capacity(2 * window as usize),
            outbox: VecDeque::with_capacity(4 * window as usize + 64),
            outside: Vec::new(),
            excluded: Vec::new(),
            failed: RankSet::EMPTY,
            view_expected: false,
            casts_waiting: false,
            waiting_frames: 0,
            amid_message: false,
            expand_early: false,
            left_behind: false,
            hint_wanted: false,
            snapshot: Taken(None),
            neighbours,
            counter_used: view.view().id.counter,
            addresses: caps.addresses,
            gossip: GossipState::new(blueprint.gossips.clone(), members, config.gossip_delay, carried),
            asked: Asked::new(members),
            channel: channel.id,
            control: channel.control,
            long: channel.long,
            identification: identification(view.rank()),
            cookies,
            work: 0,
            by_layers: false,
            stirred: true,
            ceiling: 0,
            fast_casts: plans[Kind::CastSend as usize].is_ok(),
            counts: Vec::with_capacity(64),
            traced: VecDeque::with_capacity(config.trace_lines_max),
            traced_max: config.trace_lines_max,
            shared_matrices: blueprint.shared_matrices(),
            reliable: blueprint.reliable,
            control_floor: config.control_frames / 16,
            blank_floor: config.control_frames / 8,
            starved: 0,
            number_limit,
            send_number_limit,
            holds_senders: false,
            numbers_missed: false,
            fragmented_bytes_max: fragmented,
            layouts: layouts.clone(),
            view: Rc::new(view),
        };
        core.find_own_values();
        let posting = Posting::new(&layers, members);
        // What is let go of is told with it: a sender whose window is full must not wait for more than it may send.
        let post_batch = config.post_batch_messages.min((window / 4).max(1) as u32);
        let mut stack = Stack {
            pieces_of_a_pass: posting.pieces_of_a_pass(u64::from(post_batch)),
            engine: Engine { core, layers, posting },
            cast_header_room: room(&plans, Kind::CastSend),
            send_header_room: room(&plans, Kind::SendSend),
            payload_max: frame_bytes - full(Traffic::Cast) - PACK_ROOM_BYTES,
            send_payload_max: frame_bytes - full(Traffic::Send) - PACK_ROOM_BYTES,
            plans,
            casts: channel.casts,
            open: OpenPack::default(),
            waiting: VecDeque::with_capacity(config.waiting_frames_max),
            of_this_view: None,
            large: LargeMessages::new(fragmented as usize, config.waiting_bytes_max, members),
            waiting_max: config.waiting_frames_max,
            control_reserve: config.control_frames / 4,
            entry,
            pack: config.pack,
            pack_delay: config.pack_delay,
            open_since: now,
            shadow: config.shadow,
            divergences: Vec::new(),
            early: Vec::with_capacity(config.early_frames_max),
            early_max: config.early_frames_max,
            early_delay: config.early_delay,
            order_share: config.order_share(members),
            releases,
            last_releases,
            sent: false,
            busy: false,
            was_busy: false,
            stuck: false,
            post_batch,
            prompt_if_held: blueprint.prompt_if_held,
            post_delay: config.post_delay,
            prompted: blueprint.prompt,
            prompted_work: 0,
            post_due: Time::NEVER,
            posted_work: 0,
            number_limit,
            send_number_limit,
            asks_to_stop: false,
            refused: false,
            refused_by: RankSet::EMPTY,
            refused_frame: false,
            exited: None,
            exit_told: false,
            closed: false,
            opening: false,
            leaving: false,
            state_refused: false,
            live,
            next: None,
            views: 1,
            copies: 0,
            post: PostProcessing::default(),
            tickets: 0,
            first_ticket: Ticket(1),
            fast: FastPath::default(),
            misses: Vec::new(),
            delivered: 0,
            sends: 0,
            sends_delivered: 0,
            cast_frames: 0,
        };
        for layer in (0..stack.engine.layers.len()).rev() {
            let Engine { core, layers, .. } = &mut stack.engine;
            layers[layer].start(&mut Context { core, layer });
            stack.engine.run();
        }
        let view = Rc::clone(&stack.engine.core.view);
        stack.engine.arrive(Up::View(view));
        Ok(stack)
    }

    /// With cookies that keep only the bits of `mask`.
    #[cfg(feature = "laboratory")]
    pub(crate) fn with_cookies_masked(mut self, mask: u64) -> Stack {
        for cookies in &mut self.engine.core.cookies {
            cookies[Traffic::Cast as usize] &= mask;
            cookies[Traffic::Send as usize] &= mask;
        }
        for plan in self.plans.iter_mut().flatten() {
            plan.cookie &= mask;
        }
        self
    }

    pub(crate) fn core(&self) -> &Core {
        &self.engine.core
    }
}
