//! Making members, their view, and frames that have no business there.

use std::collections::VecDeque;
use std::rc::Rc;

use wadjet::buf::{Region, RegionOptions};
use wadjet::config::{Config, Shadow};
use wadjet::endpoint::Endpoint;
use wadjet::group::{Application, Delivery, Group};
use wadjet::id::{GroupId, Incarnation, ViewId};
use wadjet::time::Time;
use wadjet::transport::{Addresses, Caps, Channel, ChannelId};
use wadjet::view::{Address, LocalView, Member as ViewMember, View};
use wadjet::wire::WIRE_VERSION;

use crate::desk::Papers;
use crate::member::{Member, whole};
use crate::random::Random;
use crate::scenario::{Medium, Setup};

/// The view of a run.
pub(crate) fn view(seed: u64, setup: &Setup) -> View {
    let mut random = Random::new(seed, "view");
    let incarnations: Vec<u64> = (0..setup.members).map(|_| random.word()).collect();
    let member = |number: &u64| ViewMember {
        incarnation: Incarnation(*number),
        address: Address(format!("simulated:{number:x}")),
    };
    View {
        group: GroupId::named("simulated"),
        id: ViewId { counter: random.scaled(2, 1 << 40), coordinator: Incarnation(incarnations[0]) },
        members: incarnations.iter().map(member).collect(),
        spec: setup.stack.clone(),
        wire_version: WIRE_VERSION,
        salt: random.word(),
        frame_bytes: 0,
    }
}

/// The member at `rank` of `view`.
///
/// # Panics
/// If the setup's stack or configuration is refused.
pub(crate) fn member(seed: u64, setup: &Setup, view: &View, rank: usize) -> Member {
    let config = config(setup, rank);
    let incarnation = view.members[rank].incarnation;
    let mut endpoint =
        Endpoint::with_registry(config, incarnation, (setup.registry)()).expect("a sound configuration");
    let asked = endpoint.channel_options(setup.members);
    let pool = |frames: usize, reserve_frames: usize| {
        let options = RegionOptions {
            frames,
            link_headroom_bytes: 0,
            frame_bytes: setup.frame_bytes,
            reserve_frames,
            huge_pages: false,
        };
        Region::pool(options).expect("some memory")
    };
    let casts = pool((asked.cast_frames / setup.scarcity).max(CAST_FRAMES_MIN), 0);
    let control = pool(asked.control_frames, 0);
    let arrivals = pool(asked.receive_frames + RECEIVE_RESERVE_FRAMES, 0);
    let channel = ChannelId(rank as u32);
    let caps = Caps {
        name: "simulated",
        frame_bytes_max: setup.frame_bytes,
        multicast: true,
        integrity: setup.medium == Medium::InPlace,
        loses: setup.medium == Medium::Datagrams,
        duplicates: setup.medium == Medium::Datagrams,
        reorders: setup.medium == Medium::Datagrams,
        zero_copy: setup.medium == Medium::InPlace,
        segmentation: false,
        addresses: Addresses::Names,
        notes: Vec::new(),
    };
    let opened = Channel { id: channel, casts: casts.clone(), control: control.clone(), long: None };
    let local = LocalView::new(view.clone(), incarnation).expect("it is a member");
    let key = endpoint
        .install(local, opened, &caps, Time::ZERO)
        .unwrap_or_else(|error| panic!("stack {} is refused: {error}", setup.stack));
    Member {
        rank,
        endpoint,
        key,
        channel,
        regions: [casts, control],
        arrivals,
        inbox: VecDeque::new(),
        plan: setup.workload.plan(seed, rank, setup.members),
        papers: Papers::new(setup.members),
        driver: setup.drivers[rank],
        medium: setup.medium,
        submitted: VecDeque::new(),
        backlog: false,
        iterations: 0,
        busy_until: 0,
        paused_until: 0,
        wake_at: None,
    }
}

/// With fewer frames than these an endpoint cannot cast while one frame is on its way and one is retained.
const CAST_FRAMES_MIN: usize = 4;
/// Frames that the simulated transport keeps for receiving, beside what the endpoint may hold.
const RECEIVE_RESERVE_FRAMES: usize = 8;

/// Smaller than the defaults, for speed: a run allocates and touches all of its regions.
const WAITING_FRAMES: usize = 32;
const CONTROL_FRAMES: usize = 128;

fn config(setup: &Setup, rank: usize) -> Config {
    let default = Config::default();
    let scarce = setup.scarcity;
    Config {
        accelerate: setup.accelerated && setup.without_plans >> rank & 1 == 0,
        pack: setup.packing,
        shadow: if setup.shadow { Shadow::Record } else { Shadow::Off },
        frame_bytes_max: setup.frame_bytes,
        window_frames: u64::from(setup.window),
        message_bytes_max: setup.workload.large_bytes,
        waiting_bytes_max: 2 * setup.workload.large_bytes,
        waiting_frames_max: (WAITING_FRAMES / scarce).max(1),
        control_frames: (CONTROL_FRAMES / scarce).max(16),
        early_frames_max: (default.early_frames_max / scarce).max(1),
        frame_number_limit: setup.number_limit,
        trace_lines_max: 16,
        ..default
    }
}

/// Frames of another group, of an earlier view of the same group, and of nobody.
pub(crate) fn intruders(seed: u64, setup: &Setup, view: &View) -> Vec<Rc<[u8]>> {
    let mut earlier = view.clone();
    earlier.id.counter -= 1;
    let mut other = view.clone();
    other.group = GroupId::named("another");
    let mut frames = frames_of(seed, setup, &earlier);
    frames.extend(frames_of(seed, setup, &other));
    let mut random = Random::new(seed, "intruders");
    for _ in 0..8 {
        let length = random.below(setup.frame_bytes as u64 + 1);
        frames.push((0..length).map(|_| random.word() as u8).collect());
    }
    // In no particular order.
    for at in (1..frames.len()).rev() {
        frames.swap(at, random.below(at as u64 + 1) as usize);
    }
    frames
}

/// What the first member of `view` sends in its first moments.
fn frames_of(seed: u64, setup: &Setup, view: &View) -> Vec<Rc<[u8]>> {
    let mut sender = member(seed, setup, view, 0);
    let mut frames = Vec::new();
    for moment in 0..12_u64 {
        if moment < 6 {
            let mut group = sender.endpoint.group(sender.key);
            // A full window is none of our business here.
            let _ = group.cast(&[moment as u8; 40]);
            let _ = group.send(&std::iter::once(wadjet::Rank(1)).collect(), &[moment as u8; 40]);
        }
        sender.endpoint.poll(Time::from_nanos(moment * 1_000_000), &mut Nobody);
        while let Some(transmit) = sender.endpoint.transmit() {
            frames.push(whole(&transmit));
        }
    }
    frames
}

/// An application that does nothing.
struct Nobody;

impl Application for Nobody {
    fn cast(&mut self, _: &Delivery<'_>, _: &mut Group<'_>) {}
}
