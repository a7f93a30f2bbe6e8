//! How a stack comes to be: compiled from its specification, bound to a view and a channel.

use std::collections::VecDeque;
use std::rc::Rc;

use super::cycle::OWN_RUN_MAX;
use super::large::LargeMessages;
use super::{Legacies, Stack};
use crate::accel::cookie::cookie;
use crate::accel::effects::Pending;
use crate::accel::pack::{OpenPack, PACK_ROOM_BYTES};
use crate::accel::plan::{Compiler, NoPlan, Plans};
use crate::config::{Config, ConfigError, Shadow};
use crate::endpoint::Room;
use crate::group::Ticket;
use crate::id::{GroupId, Hasher64, Incarnation, Rank, RankSet};
use crate::stack::build::{Blueprint, Build, Closes, Field, GuardKind, HeldFor, Prompts};
use crate::stack::core::{Blank, Core};
use crate::stack::engine::Engine;
use crate::stack::event::Up;
use crate::stack::gossip::{Carried, GossipState};
use crate::stack::identify::Asked;
use crate::stack::layer::{Context, Kind, Layer};
use crate::stack::notices::Ways;
use crate::stack::order::OrderQueue;
use crate::stack::post::Posting;
use crate::stack::property::{Properties, Property};
use crate::stack::registry::{ParameterError, Parameters, Registry};
use crate::stack::retention::Retention;
use crate::stack::spec::{Spec, SpecError};
use crate::stack::timers::Timers;
use crate::stats::{FastPath, PostProcessing};
use crate::time::Time;
use crate::transport::{Caps, Channel};
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
    /// The view is too large for the endpoint's configuration.
    #[error("{0}")]
    Config(#[from] ConfigError),
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
    #[error(
        "frames of {frame_bytes} bytes have no room for headers of {header_bytes} bytes and a payload: raise frame_bytes_max, or \
         the MTU of an interface that has less (`ip link set dev INTERFACE mtu 1500`)"
    )]
    FrameTooSmall {
        /// Frame size.
        frame_bytes: usize,
        /// Header size.
        header_bytes: usize,
    },
}

/// A compiled stack before it is bound to a channel: what [`explain`](crate::stack::explain) shows.
pub(crate) struct Compiled {
    pub(crate) layers: Vec<Box<dyn Layer>>,
    pub(crate) blueprint: Blueprint,
    pub(crate) layouts: [Layout; 3],
    pub(crate) plans: Plans,
    pub(crate) counted: Vec<Option<u32>>,
    pub(crate) checked: Rc<Checked>,
}

impl Compiled {
    /// Whether some layer agrees on views.
    fn is_live(&self) -> bool {
        self.checked.agrees_on_views()
    }

    /// Hands to layers what those of the same name in the view before have left.
    fn inherit(&mut self, legacies: Legacies) {
        for (name, legacy) in legacies {
            if let Some(heir) = self.layers.iter_mut().find(|layer| layer.name() == name) {
                heir.inherit(legacy);
            }
        }
    }

    /// Bytes of a full header.
    fn full_bytes(&self, traffic: Traffic) -> usize {
        PREFIX_BYTES + self.layouts[traffic as usize].full_bytes()
    }

    /// Bytes that a frame keeps before the payload: those of the plan's header, if there is a plan.
    fn header_room(&self, kind: Kind) -> usize {
        match &self.plans[kind as usize] {
            Ok(plan) => plan.header_bytes,
            Err(_) => self.full_bytes(kind.traffic()),
        }
    }

    /// Bytes of the frames of `channel`, if every header fits them, and a row of gossip.
    fn frame_bytes(&self, channel: &Channel) -> Result<usize, InstallError> {
        let frame_bytes = channel.casts.frame_bytes().min(channel.control.frame_bytes());
        match frame_bytes < self.frame_bytes_least() {
            true => Err(InstallError::FrameTooSmall { frame_bytes, header_bytes: self.header_bytes() }),
            false => Ok(frame_bytes),
        }
    }

    /// Bytes of the longest header.
    fn header_bytes(&self) -> usize {
        let longest = Traffic::ALL.map(|traffic| self.full_bytes(traffic)).into_iter().max().unwrap_or(0);
        longest + PACK_ROOM_BYTES
    }

    /// Bytes of the shortest frames that will do.
    fn frame_bytes_least(&self) -> usize {
        let row = GOSSIP_HEADER_BYTES + 8 * self.blueprint.gossips.len() + GOSSIP_LIFE_BYTES;
        self.header_bytes() + row.max(64)
    }

    /// Where the numbers of a view end. No field wraps within a view: the narrowest protocol field says so.
    fn number_limit(&self, traffic: Traffic) -> u64 {
        let fields = self.layouts[traffic as usize].fields().iter();
        let protocol = fields.filter(|(field, _)| field.class == Class::Protocol);
        protocol.map(|(field, _)| low_bits(field.bits)).min().unwrap_or(u64::MAX)
    }

    /// Bits of a guard that close the entry, for a reason that `counts`.
    fn entry(&self, kind: GuardKind, counts: impl Fn(HeldFor) -> bool) -> u64 {
        let owners = self.blueprint.guards.iter().filter(|owner| owner.kind == kind);
        owners
            .filter(|owner| matches!(owner.closes, Closes::Entry(why) if counts(why)))
            .fold(0, |mask, owner| mask | owner.mask)
    }

    /// The words that release casts which wait for their order.
    fn releases(&self) -> Vec<u32> {
        let plans =
            [Kind::SelfDeliver, Kind::CastDeliver].map(|kind| self.plans[kind as usize].as_ref().ok());
        let step = plans.into_iter().flatten().find_map(|plan| plan.deliver.as_ref());
        step.map_or_else(Vec::new, |step| step.releases.clone())
    }

    /// The short gossip that rides on casts which plans deliver.
    fn carried(&self, members: usize) -> Carried {
        match &self.plans[Kind::CastDeliver as usize] {
            Ok(plan) => Carried::new(members, plan.shape.words(), plan.gossips()),
            Err(_) => Carried::default(),
        }
    }

    /// Binds the plans to a view: from now on they know its cookies.
    fn bind(&mut self, config: &Config, own: Rank, cookies: &[[u64; 3]]) {
        for plan in self.plans.iter_mut().flatten() {
            plan.straight = plan.last.is_none() && config.shadow == Shadow::Off;
            plan.cookie = cookies[own.index()][plan.kind.traffic() as usize];
        }
    }
}

/// What a transport's frames can be relied on for, before any layer.
pub(crate) fn network_properties(caps: &Caps) -> Properties {
    if caps.integrity { Properties::of(&[Property::Integrity]) } else { Properties::NONE }
}

/// A specification that was parsed and checked over a network.
pub(crate) struct Checked {
    pub(crate) spec: Spec,
    /// What holds above each layer, top to bottom.
    pub(crate) properties: Vec<Properties>,
    text: String,
    network: Properties,
    /// By layer: what makes it.
    makers: Vec<Maker>,
}

type Maker = fn(&Parameters) -> Result<Box<dyn Layer>, ParameterError>;

impl Checked {
    pub(crate) fn new(registry: &Registry, text: &str, network: Properties) -> Result<Checked, SpecError> {
        let spec = Spec::parse(text)?;
        let checked = spec.check(registry, network)?;
        let (makers, properties) = checked.iter().map(|(entry, above)| (entry.make, *above)).unzip();
        Ok(Checked { spec, properties, text: text.to_string(), network, makers })
    }

    /// Whether a layer of the stack agrees on views.
    pub(crate) fn agrees_on_views(&self) -> bool {
        self.properties.first().is_some_and(|top| top.contains(Property::ConsistentViews))
    }
}

/// The layers that an endpoint knows, and the last specification of them that was checked: it is that of the next view, too.
pub(crate) struct Specs {
    registry: Registry,
    last: Option<Rc<Checked>>,
}

impl Specs {
    pub(crate) fn new(registry: Registry) -> Specs {
        Specs { registry, last: None }
    }

    /// Parses and checks `text`, if that was not done last.
    pub(crate) fn check(&mut self, text: &str, caps: &Caps) -> Result<Rc<Checked>, InstallError> {
        let network = network_properties(caps);
        let same = |last: &&Rc<Checked>| last.text == text && last.network == network;
        if let Some(last) = self.last.as_ref().filter(same) {
            return Ok(Rc::clone(last));
        }
        let checked = Rc::new(Checked::new(&self.registry, text, network)?);
        self.last = Some(Rc::clone(&checked));
        Ok(checked)
    }
}

/// Makes, installs and compiles the layers of a stack.
pub(crate) fn compile(
    checked: &Rc<Checked>,
    view: &LocalView,
    config: &Config,
) -> Result<Compiled, InstallError> {
    let Checked { spec, properties, makers, .. } = &**checked;
    let top = properties.first().copied().unwrap_or_default();
    let mut layers = Vec::with_capacity(makers.len());
    for (make, named) in makers.iter().zip(&spec.layers) {
        layers.push(make(&named.parameters).map_err(|error| SpecError {
            text: spec.to_string(),
            at: named.at,
            problem: error.into(),
        })?);
    }
    let mut blueprint = Blueprint::new();
    for (layer, handler) in layers.iter_mut().enumerate().rev() {
        let name = handler.name();
        handler.install(&mut Build { blueprint: &mut blueprint, view, layer, name, properties: top, config });
        if let Some(refused) = blueprint.refused.take() {
            let (text, at) = (spec.to_string(), spec.layers[layer].at);
            return Err(SpecError { text, at, problem: refused.into() }.into());
        }
    }
    let layouts = blueprint.layouts()?;
    let (plans, counted) = Compiler { blueprint: &blueprint, layouts: &layouts, layers: &layers }.compile();
    Ok(Compiled { layers, blueprint, layouts, plans, counted, checked: Rc::clone(checked) })
}

/// The hash of a stack, its windows and its layouts: both sides must agree on it.
fn stack_hash(compiled: &Compiled, config: &Config) -> u64 {
    let mut hasher = Hasher64::new(0x7374_6163_6b00_0001);
    hasher.bytes(compiled.checked.text.as_bytes());
    hasher.word(config.window_frames);
    for layout in &compiled.layouts {
        layout.digest(&mut hasher);
    }
    hasher.finish()
}

/// What a stack is put on, in one view.
struct Ground<'g> {
    config: &'g Config,
    view: &'g Rc<LocalView>,
    neighbours: &'g Rc<Neighbours>,
    channel: &'g Channel,
    caps: &'g Caps,
    now: Time,
}

impl Ground<'_> {
    /// The state of a stack that has done nothing yet.
    fn core(&self, compiled: &Compiled, stack_hash: u64, cookies: Vec<[u64; 3]>, frame_bytes: usize) -> Core {
        let Ground { config, view, neighbours, channel, caps, now } = *self;
        let (members, blueprint, window) = (view.size(), &compiled.blueprint, config.window_frames);
        let cast_send = compiled.plans[Kind::CastSend as usize].as_ref().ok();
        let homes = Blueprint::homes(&compiled.layouts);
        let holds = !compiled.releases().is_empty() || blueprint.services.is_some();
        // What one event can set off: everything parked of one origin, as much resent to one asker, sends repeated to
        // every peer, own casts looped; and something for every layer and member.
        let queue_max = 2 * window as usize + 64 * members + 4 * compiled.layers.len() + 256;
        Core {
            own: view.rank(),
            names: compiled.layers.iter().map(|layer| layer.name()).collect(),
            ways: Rc::new(Ways::new(&compiled.layers)),
            now,
            slots: Core::slots_of(blueprint, members),
            number_home: blueprint
                .frame_number
                .map(|index| homes[Traffic::Cast as usize][usize::from(index)])
                .unwrap_or_default(),
            homes,
            frame_number: blueprint.frame_number.map(|index| Field { traffic: Traffic::Cast, index }),
            send_number: blueprint.send_number.map(|index| Field { traffic: Traffic::Send, index }),
            guards: blueprint.guards.as_slice().into(),
            tallies: blueprint.tallies.as_slice().into(),
            field_layers: [0, 1, 2].map(|traffic| blueprint.field_layers[traffic].as_slice().into()),
            counted: match config.accelerate {
                true => compiled.counted.as_slice().into(),
                false => vec![None; blueprint.tallies.len()].into(),
            },
            services: blueprint.services,
            loop_layer: cast_send.and_then(|plan| plan.loop_layer),
            timers: Timers::new(blueprint.timers.len()),
            timer_layers: blueprint.timers.iter().map(|(layer, _)| *layer).collect(),
            casts: (0..members).map(|_| Retention::new(window)).collect(),
            retain_bytes_max: config.retain_bytes_max,
            pinned_most: 0,
            copies: Vec::new(),
            copy_bytes: config.frame_bytes_max.max(frame_bytes),
            copied: 0,
            frame_bytes_max: config.frame_bytes_max.min(caps.frame_bytes_max) as u32,
            frame_bytes_least: compiled.frame_bytes_least() as u32,
            members_max: config.members_max(),
            room: Room::default(),
            // The application's sends and as many control messages, both at least one.
            sends: (0..members).map(|_| Retention::new(window.max(2))).collect(),
            queue: VecDeque::with_capacity(queue_max),
            queue_max,
            loop_numbers: 0..0,
            loopback: VecDeque::with_capacity(2 * window as usize),
            looped_headers: VecDeque::new(),
            order: OrderQueue::new(members, if holds { config.order_frames_max.min(4096) } else { 0 }),
            runs: VecDeque::with_capacity(members),
            emerged: VecDeque::with_capacity(2 * window as usize),
            outbox: VecDeque::with_capacity(4 * window as usize + 64),
            outgoing_numbers: 0..0,
            outside: Vec::new(),
            excluded: Vec::new(),
            failed: RankSet::EMPTY,
            view_expected: false,
            prompt_wanted: false,
            blank: Blank::default(),
            casts_waiting: false,
            waiting_frames: 0,
            waiting_numbers: 0,
            amid_message: false,
            expand_early: false,
            left_behind: false,
            hint_wanted: false,
            snapshots: Default::default(),
            neighbours: Rc::clone(neighbours),
            counter_used: view.view().id.counter,
            addresses: caps.addresses,
            gossip: GossipState::new(
                blueprint.gossips.as_slice().into(),
                members,
                config.gossip_delay,
                compiled.carried(members),
            ),
            asked: Asked::new(members),
            channel: channel.id,
            control: channel.control.clone(),
            long: channel.long.clone(),
            identification: identification(view, stack_hash, view.rank()),
            cookies,
            work: 0,
            by_layers: false,
            stirred: true,
            pending_effects: Pending::new(&compiled.plans, members),
            ceiling: 0,
            fast_casts: cast_send.is_some(),
            counts: Vec::with_capacity(64),
            traced: VecDeque::with_capacity(config.trace_lines_max),
            traced_max: config.trace_lines_max,
            shared_matrices: blueprint.shared_matrices().into(),
            reliable: blueprint.reliable,
            control_floor: config.control_frames_of(members) / 16,
            control_plenty: config.control_frames_of(members) / 2,
            blank_floor: config.control_frames_of(members) / 8,
            starved: 0,
            number_limit: config.frame_number_limit.min(compiled.number_limit(Traffic::Cast)),
            send_number_limit: config.send_number_limit.min(compiled.number_limit(Traffic::Send)),
            holds_senders: false,
            level_at: now,
            view_wanted: false,
            fragmented_bytes_max: compiled.blueprint.fragmented_bytes_max.unwrap_or(0),
            layouts: compiled.layouts.clone(),
            view: Rc::clone(view),
        }
    }
}

/// Who casts in this view, by this stack.
fn identification(view: &LocalView, stack_hash: u64, rank: Rank) -> Identification {
    let origin = view.member(rank).incarnation;
    Identification { group: view.view().group, view: view.view().id, origin, stack: stack_hash }
}

/// The cookies of all members, by rank and traffic.
fn cookies(view: &LocalView, stack_hash: u64) -> Vec<[u64; 3]> {
    let salt = view.view().salt;
    let of = |rank: Rank| {
        let who = identification(view, stack_hash, rank);
        Traffic::ALL.map(|traffic| cookie(&who, WIRE_VERSION, traffic, 0, salt))
    };
    (0..view.size()).map(|rank| of(Rank::at(rank))).collect()
}

impl Stack {
    #[expect(clippy::too_many_arguments, reason = "everything a stack is made of, given once")]
    pub(crate) fn new(
        config: &Config,
        specs: &mut Specs,
        view: Rc<LocalView>,
        neighbours: Rc<Neighbours>,
        channel: Channel,
        caps: &Caps,
        legacies: Legacies,
        now: Time,
    ) -> Result<Stack, InstallError> {
        if view.view().wire_version != WIRE_VERSION {
            return Err(InstallError::WireVersion(view.view().wire_version));
        }
        let checked = specs.check(&view.view().spec, caps)?;
        let mut compiled = compile(&checked, &view, config)?;
        compiled.inherit(legacies);
        let frame_bytes = compiled.frame_bytes(&channel)?;
        if !config.accelerate {
            compiled.plans.fill(Err(NoPlan { layer: "configuration", reason: "acceleration is off" }));
        }
        let members = view.size();
        let stack_hash = stack_hash(&compiled, config);
        let cookies = cookies(&view, stack_hash);
        compiled.bind(config, view.rank(), &cookies);
        let ground = Ground { config, view: &view, neighbours: &neighbours, channel: &channel, caps, now };
        let mut core = ground.core(&compiled, stack_hash, cookies, frame_bytes);
        core.find_own_values();
        let posting = Posting::new(&compiled.layers, members);
        // What is let go of is told with it: a sender whose window is full must not wait for more than it may send.
        let post_batch = config.post_batch_messages.min((config.window_frames / 4).max(1) as u32);
        let releases = compiled.releases();
        let fragmented = compiled.blueprint.fragmented_bytes_max.unwrap_or(0);
        let prompts = |when| compiled.blueprint.prompted.iter().any(|(_, prompts)| *prompts == when);
        let mut stack = Stack {
            pieces_of_a_pass: posting.pieces_of_a_pass(u64::from(post_batch)),
            cast_header_room: compiled.header_room(Kind::CastSend),
            send_header_room: compiled.header_room(Kind::SendSend),
            payload_max: frame_bytes - compiled.full_bytes(Traffic::Cast) - PACK_ROOM_BYTES,
            send_payload_max: frame_bytes - compiled.full_bytes(Traffic::Send) - PACK_ROOM_BYTES,
            casts: channel.casts,
            open: OpenPack::default(),
            own_run: Vec::with_capacity(OWN_RUN_MAX),
            waiting: VecDeque::with_capacity(config.waiting_frames_max),
            of_this_view: None,
            large: LargeMessages::new(fragmented as usize, config.waiting_bytes_max, members),
            waiting_max: config.waiting_frames_max,
            control_reserve: config.control_frames_of(members) / 4,
            entry: [GuardKind::CastSend, GuardKind::SendSend].map(|kind| compiled.entry(kind, |_| true)),
            entry_of_blanks: compiled.entry(GuardKind::CastSend, HeldFor::holds_blanks),
            pack: config.pack,
            pack_delay: config.pack_delay,
            open_since: now,
            shadow: config.shadow,
            divergences: Vec::new(),
            early: Vec::with_capacity(config.early_frames_max),
            early_max: config.early_frames_max,
            early_delay: config.early_delay,
            order_share: config.order_share(members),
            time_outs: config.time_outs().into(),
            releases,
            agreed: false,
            sent: false,
            busy: false,
            was_busy: false,
            stuck: false,
            post_batch,
            post_delay: config.post_delay,
            prompt_always: prompts(Prompts::Always),
            prompt_if_held: prompts(Prompts::IfHeld),
            prompted: compiled.blueprint.prompted.iter().rev().copied().collect(),
            prompted_work: 0,
            post_due: Time::NEVER,
            posted_work: 0,
            known_work: 0,
            came_at: Time::ZERO,
            number_limit: core.number_limit,
            send_number_limit: core.send_number_limit,
            asks_to_stop: false,
            unlike: Vec::new(),
            refused: false,
            refused_by: RankSet::EMPTY,
            refused_frame: false,
            exited: None,
            exit_told: false,
            closed: false,
            opening: false,
            leaving: false,
            state_refused: false,
            live: compiled.is_live(),
            next: None,
            views: 1,
            past: None,
            told: false,
            block_untold: false,
            ids_of: 1,
            untold: Vec::new(),
            state_due: None,
            state_taken: None,
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
            broken: crate::accel::broken::Broken::No,
            plans: compiled.plans,
            engine: Engine { core, layers: compiled.layers, posting },
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
}
