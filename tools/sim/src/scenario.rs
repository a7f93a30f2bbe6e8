//! Scenarios: which world a seed draws.

use std::fmt;

use serde::Serialize;
use wadjet::stack::registry::Registry;

use crate::faults::{Faults, LinkFaults};
use crate::random::Random;
use crate::views::{Seldom, ViewsSetup};
use crate::workload::{Lengths, Workload};

/// How frames cross from member to member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// As datagrams: bytes are copied at submission and again into a frame of the receiver's. Every fault is possible.
    Datagrams,
    /// As through shared memory: nothing is lost, reordered or damaged; all members read the sender's own frame, which
    /// returns when the last of them lets go.
    InPlace,
}

/// The world of one run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many members the view has.
    pub members: usize,
    /// The stack, top to bottom.
    pub stack: String,
    /// Whether plans are used, or the layers alone.
    pub accelerated: bool,
    /// Where plans are used: members, bit by bit, that have none.
    pub without_plans: u64,
    /// Whether messages are packed while the way is busy.
    pub packing: bool,
    /// Whether the layers repeat what plans did.
    pub shadow: bool,
    /// How frames travel.
    pub medium: Medium,
    /// The largest frame.
    pub frame_bytes: usize,
    /// Region sizes the endpoint asks for are divided by this.
    pub scarcity: usize,
    /// Casts of one member that may be unacknowledged at once, in frames.
    pub window: u32,
    /// Frame numbers of the view: [`NUMBERS`], or a few.
    pub number_limit: u64,
    /// The layers there are.
    pub registry: fn() -> Registry,
    /// What each member's driver loop is like.
    pub drivers: Vec<Driver>,
    /// What goes wrong.
    pub faults: Faults,
    /// What the applications do.
    pub workload: Workload,
}

/// What the driver loop and the transport of one member are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driver {
    /// How long an iteration takes.
    pub iteration_ns: u64,
    /// Frames received per iteration, at most.
    pub budget: usize,
    /// Frames that wait to be received, at most; what comes then is lost.
    pub inbox_frames_max: usize,
    /// How long the transport is busy with one frame.
    pub submit_ns: u64,
    /// Frames the transport takes before it says that it is full.
    pub submitted_frames_max: usize,
}

impl fmt::Display for Setup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { members, stack, accelerated, packing, shadow, medium, frame_bytes, .. } = self;
        let on = |on: bool| if on { "on" } else { "off" };
        writeln!(
            formatter,
            "{members} members of {stack}, {medium:?}, frames of {frame_bytes} B, acceleration {}, packing {}, \
             shadow {}, window {}, scarcity {}, numbers {}",
            acceleration(*accelerated, self.without_plans),
            on(*packing),
            on(*shadow),
            self.window,
            self.scarcity,
            self.number_limit
        )?;
        writeln!(formatter, "  {:?}", self.workload)?;
        for (member, driver) in self.drivers.iter().enumerate() {
            writeln!(formatter, "  m{}: {driver:?}", member + 1)?;
        }
        for (at, link) in self.faults.links.iter().enumerate().filter(|(at, _)| at / members != at % members)
        {
            writeln!(formatter, "  m{} to m{}: {link:?}", at / members + 1, at % members + 1)?;
        }
        let Faults { pauses, cuts, intruders, heals, .. } = &self.faults;
        writeln!(formatter, "  pauses {pauses:?}, cuts {cuts:?}, intruders {intruders:?}, heals {heals}")
    }
}

/// The world of a run.
#[derive(Clone, Debug)]
pub enum World {
    /// One view that stays as it is.
    Fixed(Box<Setup>),
    /// Processes that come and go, and views that follow each other.
    Views(Box<ViewsSetup>),
}

impl World {
    /// Whether plans are used.
    pub fn accelerated(&self) -> bool {
        match self {
            World::Fixed(setup) => setup.accelerated,
            World::Views(setup) => setup.accelerated,
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            World::Fixed(setup) => setup.fmt(formatter),
            World::Views(setup) => setup.fmt(formatter),
        }
    }
}

/// A family of worlds.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    draw: Draw,
}

/// How a world is drawn.
#[derive(Clone, Copy)]
enum Draw {
    /// One view that stays as it is.
    Fixed(fn(&mut Random, Option<usize>) -> Setup),
    /// Views that follow each other.
    Views(fn(&mut Random, Option<usize>) -> ViewsSetup),
    /// Now the one, now the other.
    Both(fn(&mut Random, Option<usize>) -> Setup, fn(&mut Random, Option<usize>) -> ViewsSetup),
}

/// What is fixed for every seed of a run, whatever it draws.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The number of members, 1 to 32.
    pub members: Option<usize>,
    /// The stack.
    pub stack: Option<String>,
    /// With or without plans.
    pub accelerated: Option<bool>,
    /// With or without packing.
    pub packing: Option<bool>,
    /// With or without the shadow.
    pub shadow: Option<bool>,
    /// Parts taken out of worlds in which views follow each other, by number.
    pub without: Vec<usize>,
}

impl Overrides {
    fn fixed_members(&self) -> Option<usize> {
        self.members.inspect(|members| {
            assert!(
                (1..=MEMBERS_MAX).contains(members),
                "{members} members; 1 to {MEMBERS_MAX} can be simulated"
            );
        })
    }
}

/// More frame numbers than any run uses.
pub const NUMBERS: u64 = 1 << 40;

/// The most members a simulated view can have.
pub const MEMBERS_MAX: usize = 32;

/// Every scenario.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "swarm",
        about: "each seed draws which faults there are and how hard, the stack, the members and the load",
        draw: Draw::Both(swarm, ViewsSetup::draw),
    },
    Scenario {
        name: "views",
        about: "processes come and go, are cut off and stand still: views follow each other",
        draw: Draw::Views(ViewsSetup::draw),
    },
    Scenario {
        name: "order",
        about: "stacks that deliver in one order, in a view that stays as it is or in views that follow each other",
        draw: Draw::Both(order, order_views),
    },
    Scenario {
        name: "calm",
        about: "nothing goes wrong: the common case, also in place",
        draw: Draw::Fixed(calm),
    },
    Scenario {
        name: "loss",
        about: "30 % loss, duplication and reordering, and the network never heals",
        draw: Draw::Fixed(loss),
    },
    Scenario {
        name: "corruption",
        about: "damaged, foreign, stale and rubbish frames",
        draw: Draw::Fixed(corruption),
    },
    Scenario {
        name: "pause",
        about: "members stand still for longer than any timer",
        draw: Draw::Fixed(pause),
    },
    Scenario {
        name: "slow",
        about: "one member reads slowly and its queue overflows",
        draw: Draw::Fixed(slow),
    },
    Scenario {
        name: "wrap",
        about: "so many frames that the 16-bit gossip counters wrap, with the widest windows",
        draw: Draw::Fixed(wrap),
    },
    Scenario {
        name: "exhaustion",
        about: "regions, queues and windows are far too small",
        draw: Draw::Fixed(exhaustion),
    },
];

impl Scenario {
    /// The scenario called `name`.
    pub fn named(name: &str) -> Option<&'static Scenario> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// The world of `seed`.
    pub fn world(&self, seed: u64, overrides: &Overrides) -> World {
        let live = match (self.draw, &overrides.stack) {
            (Draw::Fixed(_), _) => false,
            (Draw::Views(_), _) => true,
            (Draw::Both(..), Some(stack)) => stack.contains("MBRSHIP"),
            (Draw::Both(..), None) => Random::new(seed, "which world").below(3) == 0,
        };
        if live {
            World::Views(Box::new(self.views(seed, overrides)))
        } else {
            World::Fixed(Box::new(self.setup(seed, overrides)))
        }
    }

    /// The world of `seed` in which views follow each other.
    ///
    /// # Panics
    /// If the scenario has none, or for impossible numbers of members.
    pub fn views(&self, seed: u64, overrides: &Overrides) -> ViewsSetup {
        let (Draw::Views(draw) | Draw::Both(_, draw)) = self.draw else {
            panic!("scenario {} has one view that stays as it is", self.name)
        };
        let mut setup = draw(&mut Random::new(seed, "views"), overrides.fixed_members());
        if let Some(stack) = &overrides.stack {
            setup.stack.clone_from(stack);
        }
        setup.accelerated = overrides.accelerated.unwrap_or(setup.accelerated);
        setup.packing = overrides.packing.unwrap_or(setup.packing);
        setup.shadow = overrides.shadow.unwrap_or(setup.shadow);
        setup.without_plans = draw_without_plans(seed, setup.processes);
        setup.seldom = Seldom::draw(seed);
        setup.without(&overrides.without)
    }

    /// Whether its views follow each other, always.
    pub fn is_live(&self) -> bool {
        matches!(self.draw, Draw::Views(_))
    }

    /// Whether its views may follow each other.
    pub fn may_be_live(&self) -> bool {
        !matches!(self.draw, Draw::Fixed(_))
    }

    /// The world of `seed` in which one view stays as it is.
    ///
    /// # Panics
    /// If the scenario has none, or for impossible numbers of members.
    pub fn setup(&self, seed: u64, overrides: &Overrides) -> Setup {
        let (Draw::Fixed(draw) | Draw::Both(draw, _)) = self.draw else {
            panic!("the views of scenario {} follow each other", self.name)
        };
        let members = overrides.fixed_members();
        let mut setup = draw(&mut Random::new(seed, self.name), members);
        if let Some(stack) = &overrides.stack {
            setup.stack.clone_from(stack);
        }
        setup.accelerated = overrides.accelerated.unwrap_or(setup.accelerated);
        setup.packing = overrides.packing.unwrap_or(setup.packing);
        setup.shadow = overrides.shadow.unwrap_or(setup.shadow);
        if self.may_be_live() {
            setup.without_plans = draw_without_plans(seed, setup.members);
        }
        if setup.stack.contains("FRAG") {
            let mut random = Random::new(seed, "large messages");
            setup.workload.large = random.scaled(u64::from(PERCENT), 20 * u64::from(PERCENT)) as u32;
            setup.workload.large_bytes = random.scaled(2, 24) as usize * setup.frame_bytes;
        }
        setup
    }
}

/// Some of so many members that have no plans where the others have, bit by bit; mostly nobody. Drawn by itself: everything else is as
/// it is without.
fn draw_without_plans(seed: u64, members: usize) -> u64 {
    let mut random = Random::new(seed, "without plans");
    if members < 2 || random.below(WITHOUT_PLANS_ONE_OF) > 0 {
        return 0;
    }
    1 + random.below((1 << members.min(63)) - 2)
}

/// In so many worlds there are such members.
const WITHOUT_PLANS_ONE_OF: u64 = 6;

/// Whether plans are used, in words.
pub(crate) fn acceleration(accelerated: bool, without_plans: u64) -> String {
    let without: Vec<u32> = (0..64).filter(|at| without_plans >> at & 1 == 1).collect();
    match (accelerated, &without[..]) {
        (false, _) => "off".into(),
        (true, []) => "on".into(),
        (true, without) => format!("on but at {without:?}"),
    }
}

/// Stacks for media that lose, reorder and damage.
const STACKS: &[&str] = &[
    "STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
    "STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
    "CHK_FIFO:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
    "CHK_FIFO(wire=yes):STABLE:CHK_FIFO:FC:CHK_FIFO(wire=yes):UNICAST:CHK_FIFO:LOCAL:NAK:CHKSUM:COM",
    "COUNT:STABLE:FC:COUNT:UNICAST:TRACE:LOCAL:NAK:COUNT:CHKSUM:COM",
    "FC:STABLE:UNICAST:LOCAL:NAK:CHKSUM:COM",
    "STABLE:FC:LOCAL:NAK:UNICAST:CHKSUM:COM",
    "STABLE(ask_us=300,report_us=100):FC(window=5):UNICAST(window=3,repeat_us=200):LOCAL:NAK(window=7,repair_us=20,status_us=100):CHKSUM:COM",
    "STABLE:UNICAST:LOCAL:NAK(repair_us=5000,status_us=20000,backoff_us=100000):CHKSUM:COM",
];

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
/// Chances are per million.
const PERCENT: u32 = 10_000;

/// Two to five members, sometimes up to twelve.
fn draw_members(random: &mut Random, fixed: Option<usize>) -> usize {
    let drawn = match random.below(20) {
        0 => random.between(6, 12),
        1..=5 => 2,
        6..=13 => 3,
        _ => random.between(4, 5),
    };
    fixed.unwrap_or(drawn as usize)
}

/// A world in which nothing goes wrong.
fn quiet_world(random: &mut Random, fixed: Option<usize>) -> Setup {
    let members = draw_members(random, fixed);
    let delay_ns = random.scaled(MICROSECOND, 50 * MICROSECOND);
    let link = LinkFaults { delay_ns, jitter_ns: random.between(0, 2 * delay_ns), ..LinkFaults::default() };
    let driver = Driver {
        iteration_ns: random.scaled(200, 5 * MICROSECOND),
        budget: random.scaled(1, 64) as usize,
        inbox_frames_max: 4096,
        submit_ns: random.scaled(100, 3 * MICROSECOND),
        submitted_frames_max: random.scaled(4, 256) as usize,
    };
    Setup {
        members,
        stack: (*random.pick(STACKS)).into(),
        accelerated: true,
        without_plans: 0,
        packing: random.chance(70 * PERCENT),
        shadow: false,
        medium: Medium::Datagrams,
        frame_bytes: *random.pick(&[512, 1472, 1472, 2048]),
        scarcity: 1,
        window: *random.pick(&[8, 16, 16, 32, 32, 64, 64, 128, 256]),
        number_limit: NUMBERS,
        registry: Registry::standard,
        drivers: vec![driver; members],
        faults: Faults { links: vec![link; members * members], heals: true, ..Faults::default() },
        workload: draw_workload(random, members),
    }
}

fn draw_workload(random: &mut Random, members: usize) -> Workload {
    use Lengths::*;
    let most = if members > 5 { 30 } else { 120 };
    let mut share = |quiet: u64| {
        (0..members)
            .map(|_| match random.below(10) {
                n if n < quiet => 0,
                9 => 1,
                _ => random.scaled(1, most) as u32,
            })
            .collect::<Vec<u32>>()
    };
    let (casts, sends) = (share(2), share(5));
    let often = |random: &mut Random, of: u64, chance: u32| if random.below(of) == 0 { chance } else { 0 };
    Workload {
        casts,
        sends,
        gap_ns: random.scaled(2 * MICROSECOND, 300 * MICROSECOND),
        burst: *random.pick(&[1, 1, 4, 16, 64]),
        lengths: *random.pick(&[Fixed(64), Tiny, Small, Mixed, Mixed, Any, Largest]),
        large: 0,
        large_bytes: 1,
        reply: often(random, 3, 20 * PERCENT),
        echo: often(random, 3, 50 * PERCENT),
        reserve: 50 * PERCENT,
        agreed: 0,
        abandon: often(random, 4, 5 * PERCENT),
        oversize: often(random, 4, 5 * PERCENT),
        acknowledge: often(random, 2, 30 * PERCENT),
    }
}

/// When the planned work will be over, more or less.
fn span_ns(workload: &Workload) -> u64 {
    let most = (workload.casts.iter().zip(&workload.sends)).map(|(casts, sends)| casts + sends).max();
    let bursts = u64::from(most.unwrap_or(0)) * 2 / (u64::from(workload.burst) + 1);
    (bursts * workload.gap_ns).max(100 * MICROSECOND)
}

/// Changes every link, or only some.
fn on_links(random: &mut Random, setup: &mut Setup, mut change: impl FnMut(&mut LinkFaults)) {
    let everywhere = random.below(3) > 0;
    for link in &mut setup.faults.links {
        if everywhere || random.below(3) == 0 {
            change(link);
        }
    }
}

fn calm(random: &mut Random, members: Option<usize>) -> Setup {
    let mut setup = quiet_world(random, members);
    if random.below(3) == 0 {
        go_in_place(random, &mut setup);
    }
    setup
}

/// A medium that keeps bytes whole needs no checksum, but may have one.
fn go_in_place(random: &mut Random, setup: &mut Setup) {
    setup.medium = Medium::InPlace;
    if random.below(2) == 0 {
        setup.stack = setup.stack.replace("CHKSUM:", "");
    }
}

fn loss(random: &mut Random, members: Option<usize>) -> Setup {
    let mut setup = quiet_world(random, members);
    setup.faults.heals = false;
    for link in &mut setup.faults.links {
        link.loss = 30 * PERCENT;
        link.duplicate = 10 * PERCENT;
        link.reorder = 20 * PERCENT;
        link.reorder_ns = 4 * (link.delay_ns + link.jitter_ns);
    }
    setup
}

fn corruption(random: &mut Random, members: Option<usize>) -> Setup {
    let mut setup = quiet_world(random, members);
    let corrupt = random.scaled(1_000, 20 * u64::from(PERCENT)) as u32;
    on_links(random, &mut setup, |link| link.corrupt = corrupt);
    add_intruders(random, &mut setup);
    add_stale(random, &mut setup);
    setup
}

fn pause(random: &mut Random, members: Option<usize>) -> Setup {
    let mut setup = quiet_world(random, members);
    add_pauses(random, &mut setup);
    if random.below(2) == 0 {
        let loss = random.scaled(1_000, 10 * u64::from(PERCENT)) as u32;
        on_links(random, &mut setup, |link| link.loss = loss);
    }
    setup
}

fn slow(random: &mut Random, members: Option<usize>) -> Setup {
    let mut setup = quiet_world(random, members);
    slow_down(random, &mut setup);
    setup
}

fn exhaustion(random: &mut Random, members: Option<usize>) -> Setup {
    let mut setup = quiet_world(random, members);
    make_scarce(random, &mut setup);
    if random.below(2) == 0 {
        slow_down(random, &mut setup);
    }
    setup
}

fn wrap(random: &mut Random, members: Option<usize>) -> Setup {
    let few_members = random.between(2, 3) as usize;
    let mut setup = quiet_world(random, members.or(Some(few_members)));
    let frames = 1 << 16;
    let few = random.scaled(1, 2000) as u32;
    for (member, casts) in setup.workload.casts.iter_mut().enumerate() {
        *casts = if member == 0 { frames + few } else { random.scaled(1, 2000) as u32 };
    }
    setup.packing = false;
    setup.frame_bytes = 512;
    setup.window = *random.pick(&[64, 1024, 16_384]);
    setup.workload.gap_ns = 2 * MICROSECOND;
    setup.workload.burst = 16;
    setup.workload.lengths = Lengths::Small;
    (setup.workload.reply, setup.workload.acknowledge) = (0, 5 * PERCENT);
    let (loss, duplicate, stale) =
        (random.below(5_000) as u32, random.below(5_000) as u32, random.below(1_000) as u32);
    on_links(random, &mut setup, |link| {
        (link.loss, link.duplicate, link.stale) = (loss, duplicate, stale);
        (link.stale_ns, link.reorder) = (200 * MILLISECOND, duplicate);
        link.reorder_ns = 4 * (link.delay_ns + link.jitter_ns);
    });
    setup
}

fn swarm(random: &mut Random, members: Option<usize>) -> Setup {
    let mut setup = quiet_world(random, members);
    setup.accelerated = random.below(4) > 0;
    setup.shadow = random.below(4) == 0;
    if random.below(8) == 0 {
        go_in_place(random, &mut setup);
    }
    let mut some = |of: u64| random.below(of) == 0;
    let (loses, bursts, duplicates, reorders) = (some(2), some(4), some(3), some(3));
    let (stale, spikes, corrupts, intrudes) = (some(5), some(5), some(4), some(5));
    let (pauses, cuts, slows, scarce) = (some(5), some(6), some(6), some(5));
    let percent = |random: &mut Random, most: u64| random.scaled(1_000, most * u64::from(PERCENT)) as u32;
    if loses {
        let loss = percent(random, 40);
        on_links(random, &mut setup, |link| link.loss = loss);
    }
    if bursts {
        let (burst, burst_frames) = (percent(random, 2), random.scaled(2, 64) as u32);
        on_links(random, &mut setup, |link| (link.burst, link.burst_frames) = (burst, burst_frames));
    }
    if duplicates {
        let duplicate = percent(random, 30);
        on_links(random, &mut setup, |link| link.duplicate = duplicate);
    }
    if reorders {
        let (reorder, times) = (percent(random, 40), random.scaled(1, 64));
        on_links(random, &mut setup, |link| {
            (link.reorder, link.reorder_ns) = (reorder, times * (link.delay_ns + link.jitter_ns));
        });
    }
    if stale {
        add_stale(random, &mut setup);
    }
    if spikes {
        let (spike, spike_ns) = (percent(random, 1), random.scaled(100 * MICROSECOND, 50 * MILLISECOND));
        on_links(random, &mut setup, |link| (link.spike, link.spike_ns) = (spike, spike_ns));
    }
    if corrupts {
        let corrupt = percent(random, 20);
        on_links(random, &mut setup, |link| link.corrupt = corrupt);
    }
    if intrudes {
        add_intruders(random, &mut setup);
    }
    if pauses {
        add_pauses(random, &mut setup);
    }
    if cuts {
        add_cuts(random, &mut setup);
    }
    if slows {
        slow_down(random, &mut setup);
    }
    if scarce {
        make_scarce(random, &mut setup);
    }
    if random.below(16) == 0 {
        setup.number_limit = random.scaled(1, 64);
    }
    setup.faults.heals = random.below(3) > 0;
    if setup.medium == Medium::InPlace {
        for link in &mut setup.faults.links {
            let LinkFaults { delay_ns, jitter_ns, spike, spike_ns, .. } = *link;
            *link = LinkFaults { delay_ns, jitter_ns, spike, spike_ns, ..LinkFaults::default() };
        }
        setup.faults.cuts.clear();
    }
    if random.below(3) == 0 {
        add_frag(random, &mut setup);
    }
    setup
}

/// What orders, in a stack of its own making.
fn draw_order(random: &mut Random) -> String {
    let parameters = format!(
        "(burst={},idle_us={},leave={},ask_us={})",
        random.scaled(1, 32),
        random.below(3) * random.scaled(1, 2_000),
        random.scaled(1, 8),
        random.scaled(20, 5_000)
    );
    let order = match random.below(4) {
        0 => "TOTAL".into(),
        1 => format!("TOTAL{parameters}"),
        _ => "SEQUENCER".into(),
    };
    if random.below(3) == 0 { format!("SAFE:{order}") } else { order }
}

fn order(random: &mut Random, members: Option<usize>) -> Setup {
    let mut setup = swarm(random, members);
    // Members whose numbers are used up cannot give their turn away, and no view follows here.
    setup.number_limit = NUMBERS;
    setup.stack = format!("{}:FIXED:{}", draw_order(random), setup.stack);
    setup.workload.agreed = draw_agreed(random, &setup.stack);
    setup
}

/// How many of the casts are agreed, where they are safe else.
fn draw_agreed(random: &mut Random, stack: &str) -> u32 {
    if stack.split(':').any(|layer| layer == "SAFE") { *random.pick(&[0, 10, 50, 90]) * PERCENT } else { 0 }
}

fn order_views(random: &mut Random, members: Option<usize>) -> ViewsSetup {
    let mut setup = ViewsSetup::draw_plain(random, members);
    let membership = setup.stack.strip_prefix("EVS:").unwrap_or(&setup.stack).to_owned();
    let order = draw_order(random);
    setup.stack = match random.below(3) {
        0 => format!("{order}:{membership}"),
        1 => format!("EVS:{order}:{membership}"),
        _ => format!("{order}:EVS:{membership}"),
    };
    setup.draw_more_layers(random);
    // Not everybody, or nobody would be waited for; and not where a view ends after a few casts, before a turn has gone round.
    setup.greedy = match random.below(2) {
        1 if setup.processes > 1 && setup.number_limit == NUMBERS => {
            random.between(1, (1 << setup.processes) - 2)
        }
        _ => 0,
    };
    setup.load.agreed = draw_agreed(random, &setup.stack);
    setup.draw_rarities(random);
    setup
}

/// Puts FRAG into the stack, anywhere above what it needs.
fn add_frag(random: &mut Random, setup: &mut Setup) {
    let mut layers: Vec<&str> = setup.stack.split(':').collect();
    let beneath = |layer: &&str| layer.starts_with("NAK") || layer.starts_with("UNICAST");
    let lowest = layers.iter().position(beneath).unwrap_or(0);
    layers.insert(random.below(lowest as u64 + 1) as usize, "FRAG");
    setup.stack = layers.join(":");
}

fn add_stale(random: &mut Random, setup: &mut Setup) {
    let stale = random.scaled(1_000, 5 * u64::from(PERCENT)) as u32;
    let stale_ns = random.scaled(MILLISECOND, 500 * MILLISECOND);
    on_links(random, setup, |link| (link.stale, link.stale_ns) = (stale, stale_ns));
}

fn add_intruders(random: &mut Random, setup: &mut Setup) {
    let span = span_ns(&setup.workload);
    for _ in 0..random.scaled(1, 60) {
        setup.faults.intruders.push((random.below(span), random.below(setup.members as u64) as usize));
    }
}

fn add_pauses(random: &mut Random, setup: &mut Setup) {
    let span = span_ns(&setup.workload);
    for _ in 0..random.between(1, 4) {
        let member = random.below(setup.members as u64) as usize;
        let length = random.scaled(50 * MICROSECOND, 2_000 * MILLISECOND);
        setup.faults.pauses.push((member, random.below(span), length));
    }
}

fn add_cuts(random: &mut Random, setup: &mut Setup) {
    let (span, members) = (span_ns(&setup.workload), setup.members as u64);
    for _ in 0..random.between(1, 4) {
        let (from, to) = (random.below(members) as usize, random.below(members) as usize);
        let (at, length) = (random.below(span), random.scaled(50 * MICROSECOND, 100 * MILLISECOND));
        setup.faults.cuts.push((from, to, at, length));
        if random.below(2) == 0 {
            setup.faults.cuts.push((to, from, at, length));
        }
    }
}

fn slow_down(random: &mut Random, setup: &mut Setup) {
    let driver = &mut setup.drivers[random.below(setup.members as u64) as usize];
    driver.iteration_ns = random.scaled(20 * MICROSECOND, 2 * MILLISECOND);
    driver.budget = random.scaled(1, 8) as usize;
    // Two frames of every member fit; with less room, answers that come together would always lose the same ones.
    driver.inbox_frames_max = random.scaled(2, 64).max(2 * setup.members as u64) as usize;
}

/// The least window of an endpoint in which the windows of the layers fit.
pub(crate) fn layers_need(spec: &str) -> u32 {
    let given = spec.split("window=").skip(1);
    let windows = given.filter_map(|rest| rest.split([',', ')']).next()?.parse().ok());
    windows.max().unwrap_or(1)
}

fn make_scarce(random: &mut Random, setup: &mut Setup) {
    setup.scarcity = random.scaled(2, 64) as usize;
    setup.window = (random.scaled(1, 32) as u32).max(layers_need(&setup.stack));
    for driver in &mut setup.drivers {
        driver.submitted_frames_max = random.scaled(1, 8) as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_draws_sound_worlds_and_the_same_one_again() {
        for scenario in SCENARIOS {
            for seed in 0..300 {
                if scenario.is_live() {
                    continue;
                }
                let setup = scenario.setup(seed, &Overrides::default());
                assert_eq!(setup.faults.links.len(), setup.members * setup.members);
                assert_eq!(setup.drivers.len(), setup.members);
                assert_eq!(setup.workload.casts.len(), setup.members);
                assert!((2..=12).contains(&setup.members));
                assert!(
                    setup.faults.links.iter().all(|link| link.loss <= 40 * PERCENT),
                    "losses stay below one"
                );
                let again = scenario.setup(seed, &Overrides::default());
                assert_eq!(format!("{setup:?}"), format!("{again:?}"), "{} {seed}", scenario.name);
            }
        }
    }

    #[test]
    fn overrides_are_kept() {
        let overrides = Overrides {
            members: Some(7),
            stack: Some("NAK:COM".into()),
            accelerated: Some(false),
            packing: Some(false),
            shadow: Some(true),
            without: Vec::new(),
        };
        for seed in 0..50 {
            let setup = SCENARIOS[0].setup(seed, &overrides);
            assert_eq!((setup.members, setup.stack.as_str()), (7, "NAK:COM"));
            assert_eq!((setup.accelerated, setup.packing, setup.shadow), (false, false, true));
        }
    }

    #[test]
    fn names_are_found() {
        assert!(SCENARIOS.iter().all(|scenario| Scenario::named(scenario.name).is_some()));
        assert!(Scenario::named("no such thing").is_none());
    }
}
