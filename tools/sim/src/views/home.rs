//! A process: an address, and the lives that are lived there one after the other.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use wadjet::config::{Config, Shadow};
use wadjet::endpoint::{Endpoint, GroupKey, Request};
use wadjet::id::{GroupId, Incarnation, Rank, RankSet};
use wadjet::time::Time;
use wadjet::transport::{
    Addresses, Caps, Channel, ChannelId, ChannelOptions, Destination, OUTSIDE_BYTES_MAX, Outside, Received,
    Transmit,
};
use wadjet::view::{Address, LocalView, Member, Neighbours, View};

use crate::faults::FaultCounters;
use crate::member::{is_still, whole};
use crate::outcome::WorkCounters;
use crate::random::Random;
use crate::scenario::Driver;
use crate::views::desk::{Desk, Papers};
use crate::views::ledger::Ledger;
use crate::views::pools::Pool;
use crate::views::setup::{LARGE_FRAMES_MAX, ViewsSetup};
use crate::views::state::State;

/// An address of the simulated network.
pub(crate) struct Home {
    pub(crate) process: usize,
    pub(crate) driver: Driver,
    pub(crate) life: Option<Life>,
    /// Lives begun here so far.
    pub(crate) lives: u64,
    pub(crate) inbox: VecDeque<Rc<[u8]>>,
    arrivals: Pool,
    /// What is handed over together; empty between iterations.
    arrived: Vec<Received>,
    submitted: VecDeque<Submitted>,
    backlog: bool,
    iterations: u64,
    pub(crate) busy_until: u64,
    pub(crate) paused_until: u64,
    /// When the next life begins after this one; by chance if none.
    pub(crate) back_ns: Option<u64>,
    pub(crate) random: Random,
}

/// A frame that the transport has taken and still reads.
struct Submitted {
    until: u64,
    transmit: Transmit,
    bytes: Rc<[u8]>,
}

/// One life of a process.
pub(crate) struct Life {
    pub(crate) incarnation: Incarnation,
    pub(crate) endpoint: Endpoint,
    pub(crate) key: GroupKey,
    lanes: Vec<Lane>,
    lanes_opened: u32,
    /// Regions of closed channels that still had frames out.
    closed: Vec<[Pool; 2]>,
    pub(crate) papers: Papers,
    pub(crate) next_act: u64,
    pub(crate) leaving: bool,
    /// What was counted when last looked at, for the narration.
    counted: Vec<(String, u64)>,
}

/// The channel of one view.
struct Lane {
    id: ChannelId,
    /// By rank: where it lives, and its incarnation.
    members: Vec<(usize, Incarnation)>,
    regions: [Pool; 2],
    excluded: RankSet,
}

/// What an iteration needs of the world around it.
pub(crate) struct Around<'a> {
    pub(crate) seed: u64,
    pub(crate) setup: &'a ViewsSetup,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) work: &'a mut WorkCounters,
    pub(crate) faults: &'a mut FaultCounters,
    /// By process: the incarnation that lives there.
    pub(crate) living: &'a [Option<Incarnation>],
    /// The applications do nothing of their own accord any more.
    pub(crate) quiet: bool,
    /// The greedy ones cast all they can.
    pub(crate) strained: bool,
    pub(crate) notes: Option<&'a mut Vec<(usize, String)>>,
}

/// Bytes to carry, and to which processes, bit by bit.
pub(crate) type Departure = (Rc<[u8]>, u64);

/// Beside what the endpoint asks for.
const RECEIVE_RESERVE_FRAMES: usize = 16;
/// With fewer frames than these an endpoint cannot cast while one frame is on its way and one is retained.
const CAST_FRAMES_MIN: usize = 4;

pub(crate) fn group() -> GroupId {
    GroupId::named("simulated")
}

fn address(process: usize) -> Address {
    Address(format!("p{process}"))
}

/// Which process an address names.
fn process_at(address: &Address) -> Option<usize> {
    address.0.strip_prefix('p')?.parse().ok()
}

/// The incarnation of a process in one of its lives: small numbers that histories can be read with, in no order that
/// follows from who began when.
///
/// # Panics
/// If a process lives too often.
pub(crate) fn incarnation(seed: u64, process: usize, life: u64) -> Incarnation {
    assert!(life < LIVES_MAX, "p{process} began {life} lives");
    let mut random = Random::new(seed, "incarnations");
    let (factor, offset) = (random.word() | 1, random.word());
    let number = (process as u64 * LIVES_MAX + life).wrapping_mul(factor).wrapping_add(offset);
    Incarnation(1 + number % (LIVES_MAX * 64))
}

/// Lives of one process; a power of two, so that no two incarnations are alike.
const LIVES_MAX: u64 = 1024;

pub(crate) fn member(seed: u64, process: usize, life: u64) -> Member {
    Member { incarnation: incarnation(seed, process, life), address: address(process) }
}

/// Smaller than the defaults, for speed: every view allocates its regions.
const WAITING_FRAMES: usize = 32;
const CONTROL_FRAMES: usize = 128;

fn config(setup: &ViewsSetup, process: usize) -> Config {
    let default = Config::default();
    Config {
        accelerate: setup.accelerated && setup.without_plans >> process & 1 == 0,
        pack: setup.packing,
        shadow: if setup.shadow { Shadow::Record } else { Shadow::Off },
        frame_bytes_max: setup.frame_bytes,
        window_frames: u64::from(setup.window),
        waiting_frames_max: (WAITING_FRAMES / setup.scarcity).max(1),
        control_frames: (CONTROL_FRAMES / setup.scarcity).max(16),
        early_frames_max: (default.early_frames_max / setup.scarcity).max(1),
        // A message that does not fit a view's numbers is never sent.
        frame_number_limit: match setup.has_layer("FRAG") {
            true => setup.number_limit.max(4 * LARGE_FRAMES_MAX),
            false => setup.number_limit,
        },
        linger_delay: Duration::from_nanos(setup.linger_ns),
        post_delay: Duration::from_nanos(setup.post_ns),
        trace_lines_max: 16,
        ..default
    }
}

fn caps(setup: &ViewsSetup) -> Caps {
    Caps {
        name: "simulated",
        frame_bytes_max: setup.frame_bytes,
        multicast: true,
        integrity: false,
        loses: true,
        duplicates: true,
        reorders: true,
        zero_copy: false,
        segmentation: false,
        addresses: Addresses::Names,
        notes: Vec::new(),
    }
}

/// Opens the channel of a view.
fn open(setup: &ViewsSetup, id: ChannelId, view: &LocalView, asked: &ChannelOptions) -> (Lane, Channel) {
    let casts = Pool::of((asked.cast_frames / setup.scarcity).max(CAST_FRAMES_MIN), setup.frame_bytes);
    let control = Pool::of(asked.control_frames, setup.frame_bytes);
    let channel = Channel { id, casts: casts.clone(), control: control.clone(), long: None };
    let members = view.view().members.iter();
    let lane = Lane {
        id,
        members: members
            .map(|member| (process_at(&member.address).expect("of this network"), member.incarnation))
            .collect(),
        regions: [casts, control],
        excluded: RankSet::EMPTY,
    };
    (lane, channel)
}

impl Life {
    /// The application's papers follow the endpoint from view to view.
    fn follow(&mut self, at: u64, around: &mut Around<'_>) {
        if self.papers.exited.is_none() {
            self.papers.follow(at, &self.endpoint.group(self.key), around.ledger);
        }
    }
}

impl Home {
    pub(crate) fn new(seed: u64, setup: &ViewsSetup, process: usize) -> Home {
        Home {
            process,
            driver: setup.drivers[process],
            life: None,
            lives: 0,
            inbox: VecDeque::new(),
            // Whatever the largest view needs, twice: those of the view before are held for a while.
            arrivals: Pool::of(
                (2 * (setup.window as usize * (setup.processes + 1) + 128 + RECEIVE_RESERVE_FRAMES))
                    .next_power_of_two(),
                setup.frame_bytes.max(OUTSIDE_BYTES_MAX),
            ),
            arrived: Vec::new(),
            submitted: VecDeque::new(),
            backlog: false,
            iterations: 0,
            busy_until: 0,
            paused_until: 0,
            back_ns: None,
            random: Random::new(seed ^ (process as u64) << 32, "home"),
        }
    }

    /// Begins a life: alone, or in `view`.
    ///
    /// # Panics
    /// If the setup's stack or configuration is refused.
    pub(crate) fn begin(&mut self, at: u64, view: Option<View>, around: &mut Around<'_>) {
        let setup = around.setup;
        let own = member(around.seed, self.process, self.lives);
        self.lives += 1;
        self.back_ns = None;
        let incarnation = own.incarnation;
        let name = around.ledger.start(at, self.process, incarnation.0);
        let mut endpoint =
            Endpoint::with_registry(config(setup, self.process), incarnation, (setup.registry)())
                .expect("a sound configuration");
        let alone = view.is_none();
        let view = view.unwrap_or_else(|| View::alone(group(), own, &setup.stack));
        let view = LocalView::new(view, incarnation).expect("it is a member");
        let strange = setup.strange && self.lives == 1;
        let discover = setup.discover[self.process] && !strange;
        let known = !discover && !strange;
        let others = (0..setup.processes).filter(|process| *process != self.process && known);
        let neighbours = Neighbours { contacts: others.map(address).collect(), discover };
        let asked = endpoint.channel_options(view.size());
        let (lane, channel) = open(setup, ChannelId(0), &view, &asked);
        let key = endpoint
            .install_among(view, neighbours, channel, &caps(setup), Time::from_nanos(at))
            .unwrap_or_else(|error| panic!("stack {} is refused: {error}", setup.stack));
        endpoint.break_accelerator(key, setup.broken);
        let mut papers =
            Papers::new(name, Random::new(around.seed ^ incarnation.0, "application"), setup.blocks());
        if setup.has_layer("XFER") {
            let ordered = setup.has_layer("TOTAL") || setup.has_layer("SEQUENCER");
            papers.state = Some(State::new(name, alone, ordered, setup.state_bytes));
        }
        let gap = setup.load.gaps_ns[self.process];
        let next_act = if gap > 0 { at + papers.random.below(2 * gap) } else { u64::MAX };
        self.life = Some(Life {
            incarnation,
            endpoint,
            key,
            lanes: vec![lane],
            lanes_opened: 1,
            closed: Vec::new(),
            papers,
            next_act,
            leaving: false,
            counted: Vec::new(),
        });
        self.busy_until = self.busy_until.max(at);
    }

    /// Ends the life that is lived here; names the regions to which not every frame came back.
    pub(crate) fn end(&mut self) -> Vec<&'static str> {
        let Some(life) = self.life.take() else { return Vec::new() };
        self.submitted.clear();
        self.backlog = false;
        let Life { endpoint, lanes, closed, papers, .. } = life;
        drop((endpoint, papers));
        let mut out = Vec::new();
        for regions in lanes.into_iter().map(|lane| lane.regions).chain(closed) {
            if regions.iter().any(Pool::is_out) {
                out.push("a channel's");
            }
        }
        if self.arrivals.is_out() {
            out.push("the arrivals'");
        }
        out
    }

    /// Frames of channels that are closed, and that did not come back.
    pub(crate) fn overdue(&self) -> usize {
        self.life
            .as_ref()
            .map_or(0, |life| life.closed.iter().flatten().map(|region| region.usage().lent).sum())
    }

    /// One iteration of the driver loop; what it submitted goes to `depart`.
    pub(crate) fn iterate(&mut self, at: u64, around: &mut Around<'_>, depart: &mut Vec<Departure>) {
        self.iterations += 1;
        around.work.iterations += 1;
        self.busy_until = at + self.driver.iteration_ns;
        let now = Time::from_nanos(at);
        while let Some(taken) = self.submitted.pop_front_if(|taken| taken.until <= at) {
            assert!(is_still(&taken.transmit, &taken.bytes), "a frame changed after it was submitted");
        }
        if self.life.is_none() {
            self.inbox.clear();
            return;
        }
        let acts_first = (self.iterations ^ around.seed).is_multiple_of(2);
        if acts_first {
            self.act(at, around);
        }
        self.receive(at, around);
        if !acts_first {
            self.act(at, around);
        }
        let life = self.life.as_mut().expect("it lives");
        for lane in &life.lanes {
            life.endpoint.set_busy(lane.id, !self.submitted.is_empty());
        }
        let mut desk = desk(at, &mut life.papers, around);
        life.endpoint.poll(now, &mut desk);
        life.follow(at, around);
        self.serve(at, around, depart);
        self.transmit(at, around, depart);
        if around.notes.is_some() {
            self.narrate(at, around);
        }
    }

    fn receive(&mut self, at: u64, around: &mut Around<'_>) {
        if self.inbox.len() > self.driver.budget {
            around.faults.slow_reads += 1;
        }
        let life = self.life.as_mut().expect("it lives");
        // Whether frames are taken in together or one by one must make no difference.
        let together = ((self.iterations / 2) ^ around.seed).is_multiple_of(2);
        let mut hand_over = |arrived: &mut Vec<Received>, around: &mut Around<'_>| {
            if arrived.is_empty() {
                return;
            }
            let mut desk = desk(at, &mut life.papers, around);
            life.endpoint.receive_all(arrived, Time::from_nanos(at), &mut desk);
        };
        let arrived = &mut self.arrived;
        for _ in 0..self.driver.budget {
            let Some(bytes) = self.inbox.pop_front() else { break };
            let mut taken = self.arrivals.take(0);
            if taken.is_err() {
                hand_over(arrived, around);
                taken = self.arrivals.take(0);
            }
            let Ok(mut frame) = taken else {
                around.faults.no_frame += 1;
                continue;
            };
            frame.extend(&bytes).expect("the network carries nothing longer than a frame");
            let frame = frame.freeze();
            frame.submit();
            let (from, to) = (frame.start(), frame.end());
            arrived.push(Received { channel: ChannelId::OUTSIDE, frame, from, to });
            if !together {
                hand_over(arrived, around);
            }
        }
        hand_over(arrived, around);
        if !self.inbox.is_empty() {
            life.endpoint.more_has_come(Time::from_nanos(at));
        }
    }

    /// What the application does of its own accord.
    fn act(&mut self, at: u64, around: &mut Around<'_>) {
        let gap = around.setup.load.gaps_ns[self.process];
        let life = self.life.as_mut().expect("it lives");
        if life.papers.view.is_none() {
            return;
        }
        if life.papers.block_due.is_some_and(|due| due <= at) {
            life.papers.block_due = None;
            life.papers.bound = false;
            life.endpoint.group(life.key).block_ok();
        }
        if life.next_act <= at {
            life.next_act = at + 1 + life.papers.random.below(2 * gap);
            if !around.quiet && !life.leaving {
                let mut group = life.endpoint.group(life.key);
                desk(at, &mut life.papers, around).act(&mut group);
            }
        }
        if around.strained && around.setup.is_greedy(self.process) {
            let mut group = life.endpoint.group(life.key);
            desk(at, &mut life.papers, around).fill(&mut group);
        }
    }

    /// Does what the endpoint asks of its transport.
    fn serve(&mut self, at: u64, around: &mut Around<'_>, depart: &mut Vec<Departure>) {
        let Life { endpoint, lanes, lanes_opened, closed, papers, .. } =
            self.life.as_mut().expect("it lives");
        let setup = around.setup;
        while let Some(request) = endpoint.request() {
            match request {
                Request::Open { group, view, options } => {
                    let id = ChannelId(*lanes_opened);
                    *lanes_opened += 1;
                    let (lane, channel) = open(setup, id, &view, &options);
                    lanes.push(lane);
                    self.busy_until += setup.open_ns;
                    let opened = Ok((channel, caps(setup)));
                    endpoint.opened(group, opened, Time::from_nanos(at), &mut desk(at, papers, around));
                    if papers.exited.is_none() {
                        papers.follow(at, &endpoint.group(group), around.ledger);
                    }
                }
                Request::Close(channel) => {
                    if let Some(at) = lanes.iter().position(|lane| lane.id == channel) {
                        let lane = lanes.remove(at);
                        closed.push(lane.regions);
                        closed.retain(|regions| regions.iter().any(Pool::is_out));
                    }
                }
                Request::Exclude { group, channel, rank } => {
                    if let Some(lane) = lanes.iter_mut().find(|lane| lane.id == channel) {
                        lane.excluded.insert(rank);
                    }
                    endpoint.excluded(group, channel, rank, &|_| true);
                }
                Request::Hint { group, channel } => {
                    let gone = match lanes.iter().find(|lane| lane.id == channel) {
                        Some(lane) if setup.hints => lane.gone(around.living),
                        _ => RankSet::EMPTY,
                    };
                    endpoint.gone(group, channel, gone, &mut desk(at, papers, around));
                }
                Request::Outside { to, bytes, .. } => {
                    let processes = match to {
                        Outside::To(address) => process_at(&address).map_or(0, |process| 1 << process),
                        Outside::Discover => ((1 << setup.processes) - 1) & !(1_u64 << self.process),
                    };
                    depart.push((bytes.into(), processes));
                }
            }
        }
    }

    fn transmit(&mut self, at: u64, around: &mut Around<'_>, depart: &mut Vec<Departure>) {
        self.backlog = false;
        let life = self.life.as_mut().expect("it lives");
        while let Some(transmit) = life.endpoint.transmit() {
            if self.submitted.len() >= self.driver.submitted_frames_max {
                around.faults.full += 1;
                self.backlog = true;
                life.endpoint.give_back(transmit);
                return;
            }
            let Some(lane) = life.lanes.iter().find(|lane| lane.id == transmit.channel) else { continue };
            let to = lane.addressees(&transmit.to) & !(1 << self.process);
            let bytes = whole(&transmit);
            transmit.head.submit();
            let begin = self.submitted.back().map_or(at, |last| last.until.max(at));
            let until = begin + self.driver.submit_ns;
            self.submitted.push_back(Submitted { until, transmit, bytes: bytes.clone() });
            if to != 0 {
                depart.push((bytes, to));
            }
        }
    }

    /// When the next iteration is due; `None` if nothing is to be done until something arrives.
    pub(crate) fn due(&self, at: u64) -> Option<u64> {
        let life = self.life.as_ref()?;
        let mut due = life.endpoint.deadline().as_nanos().min(life.next_act);
        if let Some(block) = life.papers.block_due {
            due = due.min(block);
        }
        if !self.inbox.is_empty() {
            due = at;
        }
        match self.submitted.front() {
            Some(first) if self.backlog || life.papers.postponed() > 0 || life.papers.exited.is_some() => {
                due = due.min(first.until);
            }
            None if self.backlog => due = at,
            _ => {}
        }
        let due = due.max(self.busy_until).max(self.paused_until);
        (due < Time::NEVER.as_nanos()).then_some(due)
    }

    /// Whether the group is over for the life that is lived here, and all is said.
    pub(crate) fn is_over(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.papers.exited.is_some()) && self.submitted.is_empty()
    }

    /// Writes down what layers counted since the last iteration.
    fn narrate(&mut self, at: u64, around: &mut Around<'_>) {
        let life = self.life.as_mut().expect("it lives");
        let events = around.ledger.history.events.len();
        let Some(notes) = around.notes.as_deref_mut() else { return };
        let stats = life.endpoint.stats(life.key);
        for count in stats.counts {
            let name = format!("{}: {}", count.layer, count.what);
            let before = match life.counted.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => std::mem::replace(&mut known.1, count.count),
                None => {
                    life.counted.push((name.clone(), count.count));
                    0
                }
            };
            if count.count > before {
                let name = format!("{} {name}", life.papers.own);
                notes.push((events, format!("{:>12.6} ms  {name}", at as f64 / 1e6)));
            }
        }
    }

    /// Where it stands, for a person who wonders why nothing happens.
    pub(crate) fn describe(&mut self) -> String {
        let process = self.process;
        let Some(life) = &mut self.life else { return format!("  p{process}: no life\n") };
        let stats = life.endpoint.stats(life.key);
        let mut text = format!(
            "  p{process}: {} in {}{}; {} casts refused; in the stack {} waiting, {} unacknowledged, {} retained; \
             {} in its inbox, {} at the transport; deadline {}\n",
            life.papers.own,
            life.papers
                .view
                .as_ref()
                .map_or("no view".into(), |(view, members)| format!("{view} {members:?}")),
            if life.leaving { ", leaving" } else { "" },
            life.papers.postponed(),
            stats.waiting,
            stats.unacknowledged,
            stats.retained,
            self.inbox.len(),
            self.submitted.len(),
            life.endpoint.deadline()
        );
        for line in life.endpoint.group(life.key).dump() {
            text.push_str(&format!("      {line}\n"));
        }
        text
    }
}

impl Lane {
    /// The processes that `to` names, bit by bit.
    fn addressees(&self, to: &Destination) -> u64 {
        let bit = |rank: Rank| match self.members.get(rank.index()) {
            Some((process, _)) if !self.excluded.contains(rank) => 1 << process,
            _ => 0,
        };
        match to {
            Destination::All => (0..self.members.len()).fold(0, |set, rank| set | bit(Rank::at(rank))),
            Destination::One(rank) => bit(*rank),
            Destination::Some(ranks) => ranks.iter().fold(0, |set, rank| set | bit(rank)),
        }
    }

    /// The members whose lives are over.
    fn gone(&self, living: &[Option<Incarnation>]) -> RankSet {
        let over = |(_, (process, incarnation)): &(usize, &(usize, Incarnation))| {
            living[*process] != Some(*incarnation)
        };
        self.members.iter().enumerate().filter(over).map(|(rank, _)| Rank::at(rank)).collect()
    }
}

/// An application at work.
pub(crate) fn desk<'d>(now: u64, papers: &'d mut Papers, around: &'d mut Around<'_>) -> Desk<'d> {
    let Around { seed, setup, ledger, work, .. } = around;
    Desk { seed: *seed, now, load: &setup.load, ledger, work, papers }
}
