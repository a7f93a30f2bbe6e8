//! One run: members, network and clock, from the first event to the verdict.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Once;

use wadjet_oracle::{Promises, Traffic, What, check};

use crate::agenda::Agenda;
use crate::build::{intruders, member, view};
use crate::faults::Damage;
use crate::ledger::Ledger;
use crate::member::{Around, Departure, Member, Packet, desk};
use crate::network::Network;
use crate::outcome::{Counters, Outcome, Streams, Violation};
use crate::random::{Random, splitmix};
use crate::scenario::{self, Medium, Overrides, Scenario, Setup};
use crate::views::run_views;

/// What happens next.
enum Next {
    /// A frame arrives.
    Arrive { to: usize, packet: Packet, damage: Option<Damage> },
    /// A member's driver loop runs.
    Wake { member: usize },
    /// A member stands still until a time.
    Pause { member: usize, until: u64 },
    /// A frame arrives that no member sent.
    Intrude { to: usize, frame: usize },
    /// A word of a member's slot file is scrambled.
    Poison { member: usize },
    /// The workload is over: the network heals, if it ever does.
    Heal,
}

/// Runs one seed of a scenario. The same seed, scenario and overrides give the same outcome, bit for bit.
pub fn run(seed: u64, scenario: &'static Scenario, overrides: &Overrides) -> Outcome {
    run_with(seed, scenario, overrides, false)
}

/// The same; with `narrate`, what layers count and what becomes of processes is noted on the way, where views follow each
/// other.
pub(crate) fn run_with(
    seed: u64,
    scenario: &'static Scenario,
    overrides: &Overrides,
    narrate: bool,
) -> Outcome {
    match scenario.world(seed, overrides) {
        scenario::World::Fixed(setup) => run_setup(seed, scenario.name, *setup),
        scenario::World::Views(setup) => run_views(seed, scenario.name, *setup, narrate),
    }
}

/// Runs one seed in a world of the caller's making.
pub fn run_setup(seed: u64, scenario: &'static str, setup: Setup) -> Outcome {
    let mut world = World::new(seed, &setup);
    let mut violations = Vec::new();
    match caught(|| world.live()) {
        Ok(End::Quiet) => {}
        Ok(End::Never(what)) => {
            let excerpt = world.members.iter_mut().map(Member::describe).collect();
            violations.push(Violation { property: "liveness".into(), what, excerpt });
        }
        Err(message) => violations.push(Violation::of("panic", message)),
    }
    let panicked = violations.iter().any(|violation| violation.property == "panic");
    let promises = Promises {
        quiescent: !panicked,
        stability_is_reported: setup.stack.contains("STABLE"),
        ..Promises::reliable_fifo()
    };
    let promises = promises.of_stack(&setup.stack);
    violations.extend(check(&world.ledger.history, &promises).into_iter().map(Violation::from));
    let (outcome, mut more) = world.finish(scenario, panicked);
    violations.append(&mut more);
    Outcome { violations, ..outcome }
}

/// How a run ended.
enum End {
    /// Everything was delivered, and some time passed.
    Quiet,
    /// Something was never delivered.
    Never(String),
}

struct World<'w> {
    seed: u64,
    setup: &'w Setup,
    members: Vec<Member>,
    network: Network,
    agenda: Agenda<Next>,
    ledger: Ledger,
    counters: Counters,
    intruders: Vec<Rc<[u8]>>,
    departures: Vec<Departure>,
    /// When the network heals, and the latest time at which everything must have arrived.
    heals_at: u64,
    gives_up_at: u64,
    /// The end of the last pause, and the iterations there were until then.
    paused_end: u64,
    paused_iterations: u64,
    iterations_max: u64,
}

/// How long a run goes on after the last delivery: late copies must not come up.
const SETTLE_NS: u64 = 20_000_000;
/// How long after the workload, and after the last pause, everything must have arrived; and in how many frames that the slowest
/// takes in.
const PATIENCE_NS: u64 = 30_000_000_000;
const PATIENCE_FRAMES: u64 = 40_000;
/// More driver iterations than any sound run takes when nobody stands still any more, also of members that ask again every
/// 237 ns whether one that takes a millisecond for a frame has made room; as many for each millisecond that one takes.
const ITERATIONS_MAX: u64 = 20_000_000;

impl<'w> World<'w> {
    fn new(seed: u64, setup: &'w Setup) -> World<'w> {
        let view = view(seed, setup);
        let counter = view.id.counter;
        let members: Vec<Member> = (0..setup.members).map(|rank| member(seed, setup, &view, rank)).collect();
        let mut agenda = Agenda::new();
        let planned_end = members.iter().filter_map(|member| member.plan.back()).map(|last| last.at).max();
        let pauses = &setup.faults.pauses;
        let paused_end = pauses.iter().map(|(_, at, length)| at + length).max().unwrap_or(0);
        let heals_at = planned_end.unwrap_or(0) + Random::new(seed, "heal").scaled(1_000, 10_000_000);
        agenda.enter(heals_at, Next::Heal);
        for (member, at, length) in pauses {
            agenda.enter(*at, Next::Pause { member: *member, until: at + length });
        }
        let intruders =
            if setup.faults.intruders.is_empty() { Vec::new() } else { intruders(seed, setup, &view) };
        for (member, at) in &setup.faults.poisons {
            agenda.enter(*at, Next::Poison { member: *member });
        }
        for (which, (at, to)) in setup.faults.intruders.iter().enumerate() {
            agenda.enter(*at, Next::Intrude { to: *to, frame: which % intruders.len() });
        }
        let frame_ns = setup.drivers.iter().map(|driver| driver.iteration_ns / driver.budget as u64);
        let slowest_ns = frame_ns.max().unwrap_or_default();
        let mut world = World {
            seed,
            setup,
            members,
            network: Network::new(setup.members, setup.faults.clone(), Random::new(seed, "network")),
            agenda,
            ledger: Ledger::new(setup.members, counter),
            counters: Counters::default(),
            intruders,
            departures: Vec::new(),
            heals_at,
            gives_up_at: heals_at.max(paused_end) + PATIENCE_NS.max(PATIENCE_FRAMES * slowest_ns),
            paused_end,
            paused_iterations: 0,
            iterations_max: ITERATIONS_MAX * slowest_ns.div_ceil(1_000_000).max(1),
        };
        for member in 0..setup.members {
            world.enter_wake(0, member);
        }
        world
    }

    fn live(&mut self) -> End {
        let mut quiet_at = None;
        while let Some((now, next)) = self.agenda.take() {
            match next {
                Next::Arrive { to, packet, damage } => self.arrive(now, to, packet, damage),
                Next::Wake { member } => {
                    if self.members[member].wake_at == Some(now) {
                        self.wake(now, member);
                    }
                }
                Next::Pause { member, until } => {
                    self.counters.faults.pauses += 1;
                    let member = &mut self.members[member];
                    member.paused_until = member.paused_until.max(until);
                }
                Next::Intrude { to, frame } => {
                    self.counters.faults.intruders += 1;
                    let packet = Packet::Copy(self.intruders[frame].clone());
                    self.arrive(now, to, packet, None);
                }
                Next::Poison { member } => {
                    let member = &mut self.members[member];
                    member.endpoint.scramble_slot(member.key, splitmix(self.seed ^ now));
                }
                Next::Heal if self.setup.faults.heals => self.network.heal(),
                Next::Heal => {}
            }
            if !self.is_done() {
                quiet_at = None;
            } else if now > *quiet_at.get_or_insert(now) + SETTLE_NS && self.retains_nothing() {
                break;
            }
            if now > self.gives_up_at {
                return End::Never(format!("{} deliveries are still missing", self.ledger.outstanding));
            }
            let iterations = self.counters.work.iterations;
            if now <= self.paused_end {
                self.paused_iterations = iterations;
            } else if iterations - self.paused_iterations > self.iterations_max {
                return End::Never(format!("{} iterations, and no end", self.iterations_max));
            }
        }
        self.ask_for_stability(self.agenda.now());
        if !self.is_done() {
            End::Never("nobody has anything left to do".into())
        } else if !self.retains_nothing() {
            End::Never("frames are retained, and nobody has anything left to do".into())
        } else {
            End::Quiet
        }
    }

    /// Whether everything was acknowledged, and became stable, everywhere.
    fn retains_nothing(&self) -> bool {
        self.members.iter().all(|member| member.endpoint.stats(member.key).retained == 0)
    }

    /// Enters what every endpoint says of stability in the end.
    fn ask_for_stability(&mut self, now: u64) {
        for member in &mut self.members {
            let stability = member.endpoint.group(member.key).stability();
            let mut around = Around {
                seed: self.seed,
                setup: self.setup,
                ledger: &mut self.ledger,
                work: &mut self.counters.work,
                faults: &mut self.counters.faults,
            };
            desk(member.rank, now, &mut member.papers, &mut around).report_stability(&stability);
        }
    }

    fn is_done(&self) -> bool {
        self.ledger.outstanding == 0
            && self.agenda.now() >= self.heals_at
            && self.members.iter().all(Member::is_done)
    }

    fn arrive(&mut self, now: u64, to: usize, packet: Packet, damage: Option<Damage>) {
        let packet = match (packet, damage) {
            (Packet::Copy(bytes), Some(damage)) => {
                let mut bytes = bytes.to_vec();
                damage.apply(&mut bytes, self.setup.frame_bytes);
                Packet::Copy(bytes.into())
            }
            (packet, _) => packet,
        };
        let member = &mut self.members[to];
        // Nothing is lost in place: there the readers' pace holds the writer back.
        if member.inbox.len() >= member.driver.inbox_frames_max && self.setup.medium == Medium::Datagrams {
            self.counters.faults.overflowed += 1;
            return;
        }
        member.inbox.push_back(packet);
        self.enter_wake(now, to);
    }

    fn wake(&mut self, now: u64, member: usize) {
        self.members[member].wake_at = None;
        if self.members[member].paused_until <= now {
            let mut around = Around {
                seed: self.seed,
                setup: self.setup,
                ledger: &mut self.ledger,
                work: &mut self.counters.work,
                faults: &mut self.counters.faults,
            };
            self.members[member].iterate(now, &mut around, &mut self.departures);
            self.carry(now, member);
        }
        self.enter_wake(now, member);
    }

    /// Hands what `from` submitted to the network.
    fn carry(&mut self, now: u64, from: usize) {
        for (packet, to) in self.departures.drain(..) {
            for to in (0..self.setup.members).filter(|rank| to >> rank & 1 == 1) {
                let (network, counters, agenda) = (&mut self.network, &mut self.counters, &mut self.agenda);
                network.carry(from, to, now, &mut counters.faults, &mut |arrival| {
                    let packet = packet.clone();
                    agenda.enter(arrival.at, Next::Arrive { to, packet, damage: arrival.damage });
                });
            }
        }
    }

    /// Enters the member's next iteration, if it is sooner than the one entered.
    fn enter_wake(&mut self, now: u64, member: usize) {
        let Some(due) = self.members[member].due(now) else { return };
        let due = due.max(now);
        if self.members[member].wake_at.is_none_or(|entered| due < entered) {
            self.members[member].wake_at = Some(due);
            self.agenda.enter(due, Next::Wake { member });
        }
    }

    /// Takes the world apart: its outcome, and what was found wrong on the way.
    fn finish(mut self, scenario: &'static str, panicked: bool) -> (Outcome, Vec<Violation>) {
        let mut violations = Vec::new();
        let (setup, mut counters) = (self.setup, self.counters);
        counters.work.runs = 1;
        counters.work.accelerated_runs = u64::from(setup.accelerated);
        counters.work.partly_accelerated_runs = u64::from(setup.accelerated && setup.without_plans != 0);
        counters.work.packing_runs = u64::from(setup.packing);
        counters.work.shadow_runs = u64::from(setup.shadow);
        counters.work.in_place_runs = u64::from(setup.medium == Medium::InPlace);
        counters.work.microseconds = self.agenda.now() / 1000;
        for member in &self.members {
            member.count(&mut counters.endpoint);
            // Checking layers complain of what lower ones should have prevented.
            for problem in &member.papers.problems {
                violations.push(Violation::of("problem", format!("at m{}: {problem}", member.rank + 1)));
            }
            for divergence in member.endpoint.divergences(member.key) {
                violations.push(Violation::of("shadow", format!("at m{}: {divergence}", member.rank + 1)));
            }
        }
        let (digest, streams) = digest(&self.ledger);
        let history = std::mem::take(&mut self.ledger.history);
        if panicked {
            // Whatever panicked may not be fit to be dropped; one run's memory is not missed.
            std::mem::forget((self.members, self.agenda));
        } else {
            drop((self.agenda, self.departures));
            violations.extend(frames_out(self.members));
        }
        let (seed, world) = (self.seed, scenario::World::Fixed(Box::new(setup.clone())));
        let outcome = Outcome {
            seed,
            scenario,
            world,
            violations: Vec::new(),
            digest,
            counters,
            history,
            streams,
            notes: Vec::new(),
        };
        (outcome, violations)
    }
}

/// Drops the members; every frame must then be back in its region.
fn frames_out(members: Vec<Member>) -> Vec<Violation> {
    let regions: Vec<_> = members
        .iter()
        .flat_map(|member| {
            let [casts, control] = member.regions.clone();
            let arrivals = member.arrivals.clone();
            [("casts", casts), ("control", control), ("arrivals", arrivals)]
                .map(|(name, region)| (member.rank, name, region))
        })
        .collect();
    drop(members);
    let out = regions.iter().filter(|(_, _, region)| region.usage().lent > 0);
    out.map(|(rank, name, region)| {
        let what =
            format!("{} frames of the {name} region of m{} never came back", region.usage().lent, rank + 1);
        Violation::of("frames-return", what)
    })
    .collect()
}

/// A hash of all that happened, and what arrived by stream.
fn digest(ledger: &Ledger) -> (u64, Streams) {
    let (mut digest, mut streams) = (0, Streams::new());
    for event in &ledger.history.events {
        let member = event.member.0;
        let (traffic, origin, sequence, content) = match &event.what {
            What::CastDelivered { origin, sequence, content, .. } => {
                (Traffic::Cast, origin, sequence, content)
            }
            What::SendDelivered { origin, sequence, content, .. } => {
                (Traffic::Send, origin, sequence, content)
            }
            _ => continue,
        };
        for word in [event.at, member, origin.0, *sequence, content.hash, traffic as u64] {
            digest = splitmix(digest ^ word).wrapping_add(word);
        }
        if let Some(entry) = ledger.entry(traffic, *origin, *sequence) {
            let key = (member as usize - 1, entry.name.origin, traffic, entry.name.stream);
            let stream = streams.entry(key).or_insert((0, 0));
            stream.0 += 1;
            stream.1 = splitmix(stream.1 ^ content.hash).wrapping_add(u64::from(entry.name.index));
        }
    }
    (digest, streams)
}

impl Violation {
    pub(crate) fn of(property: &str, what: String) -> Violation {
        Violation { property: property.into(), what, excerpt: String::new() }
    }
}

impl From<wadjet_oracle::Violation> for Violation {
    fn from(violation: wadjet_oracle::Violation) -> Violation {
        let more = if violation.more > 0 { format!(" (and {} more)", violation.more) } else { String::new() };
        Violation {
            property: violation.property.into(),
            what: violation.what + &more,
            excerpt: violation.excerpt,
        }
    }
}

thread_local! {
    /// Where the panic of a run is noted, while one is under way on this thread.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static RUNNING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Calls `run`; a panic in it is an error that says where and why, and prints nothing.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if RUNNING.get() {
                PANIC.set(Some(info.to_string()));
            } else {
                others(info);
            }
        }));
    });
    RUNNING.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    RUNNING.set(false);
    result.map_err(|_| PANIC.take().unwrap_or_else(|| "a panic without words".into()))
}
