//! Many seeds, several threads, one verdict.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::outcome::{Counters, Outcome, Violation};
use crate::scenario::{self, Overrides, Scenario};
use crate::views::shrink;
use crate::world::run;

/// How much is run for each seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Check {
    /// The seed, once.
    Once,
    /// Every eighth seed as with `all`, the others once.
    Sampled,
    /// The seed; then again, for the same digest; then without acceleration (or with, if it was without), for the
    /// same deliveries.
    All,
}

/// How a swarm is run.
#[derive(Clone, Debug)]
pub struct SwarmOptions {
    /// Fixed for every seed.
    pub overrides: Overrides,
    /// What is compared.
    pub check: Check,
    /// Worker threads.
    pub threads: usize,
    /// Stop after so many failing seeds.
    pub failures_max: usize,
    /// Make so many failing seeds small: take out of their worlds what the failure does not need.
    pub shrunk_max: usize,
    /// Tell progress on standard error every few seconds.
    pub progress: bool,
}

/// A seed that failed.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// One command that runs it again and prints its trace.
    pub replay: String,
    /// What went wrong.
    pub violations: Vec<Violation>,
}

/// What became of a swarm.
#[derive(Clone, Debug, Serialize)]
pub struct SwarmReport {
    /// The scenario.
    pub scenario: &'static str,
    /// Seeds asked for.
    pub seeds: Range<u64>,
    /// Seeds run.
    pub seeds_run: u64,
    /// Failing seeds, ascending.
    pub failures: Vec<Failure>,
    /// Why the floors were not judged, if they were not.
    pub no_floors: Option<String>,
    /// Faults that should have happened and did not, or too rarely.
    pub below_floor: Vec<String>,
    /// Sum of all runs.
    pub counters: Counters,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl SwarmReport {
    /// Whether nothing was violated and nothing was missing.
    pub fn passed(&self) -> bool {
        self.failures.is_empty() && self.below_floor.is_empty()
    }
}

/// Runs every seed of `seeds`.
pub fn swarm(seeds: Range<u64>, scenario: &'static Scenario, options: &SwarmOptions) -> SwarmReport {
    let begin = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let gathered = Mutex::new((Counters::default(), Vec::new(), 0_u64));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.threads.max(1))
            .map(|_| scope.spawn(|| work(&next, seeds.end, scenario, options, &gathered)))
            .collect();
        let mut told = Instant::now();
        while options.progress && workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::park_timeout(Duration::from_millis(50));
            if told.elapsed() > PROGRESS_EVERY {
                told = Instant::now();
                let (_, failures, run) = &*gathered.lock().expect("workers do not panic");
                let (of, seconds) = (seeds.end - seeds.start, begin.elapsed().as_secs_f64());
                tell(options, || format!("{run} of {of} seeds, {} failed, {seconds:.0} s", failures.len()));
            }
        }
    });
    let (counters, mut failures, seeds_run) = gathered.into_inner().expect("workers do not panic");
    failures.sort_by_key(|failure: &Failure| failure.seed);
    for failure in failures.iter_mut().take(options.shrunk_max) {
        tell(options, || {
            format!("making the world of seed {} smaller, which may take minutes", failure.seed)
        });
        make_small(failure, scenario, options);
    }
    let no_floors = no_floors(seeds_run, options, &failures);
    let below_floor = match &no_floors {
        Some(_) => Vec::new(),
        None => below_floor(scenario, seeds_run, &counters),
    };
    let seconds = begin.elapsed().as_secs_f64();
    let scenario = scenario.name;
    SwarmReport { scenario, seeds, seeds_run, failures, no_floors, below_floor, counters, seconds }
}

/// Takes out of the world of a failing seed what the failure does not need.
fn make_small(failure: &mut Failure, scenario: &'static Scenario, options: &SwarmOptions) {
    let live = matches!(scenario.world(failure.seed, &options.overrides), scenario::World::Views(_));
    let Some(first) = failure.violations.first().filter(|_| live) else { return };
    if let Some(shrunk) = shrink(failure.seed, scenario, &options.overrides, &first.property) {
        let overrides = Overrides { without: shrunk.without, ..options.overrides.clone() };
        let options = SwarmOptions { overrides, check: Check::Once, ..options.clone() };
        failure.replay = replay_command(failure.seed, scenario, &options);
        failure.violations = shrunk.outcome.violations;
    }
}

const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Says how it goes.
#[allow(clippy::print_stderr)]
fn tell(options: &SwarmOptions, what: impl FnOnce() -> String) {
    if options.progress {
        eprintln!("{}", what());
    }
}

fn work(
    next: &AtomicU64,
    end: u64,
    scenario: &'static Scenario,
    options: &SwarmOptions,
    gathered: &Mutex<(Counters, Vec<Failure>, u64)>,
) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let outcome = run_checked(seed, scenario, options);
        let mut gathered = gathered.lock().expect("workers do not panic");
        gathered.0.add(&outcome.counters);
        gathered.2 += 1;
        if !outcome.violations.is_empty() {
            let replay = replay_command(seed, scenario, options);
            // At once: whoever runs many seeds may end it before the report.
            tell(options, || format!("seed {seed} has failed; to see it: {replay}"));
            gathered.1.push(Failure { seed, replay, violations: outcome.violations });
            if gathered.1.len() >= options.failures_max {
                next.store(end, Ordering::Relaxed);
            }
        }
    }
}

/// Runs one seed, and again as often as `options.check` asks for.
pub fn run_checked(seed: u64, scenario: &'static Scenario, options: &SwarmOptions) -> Outcome {
    let mut outcome = run(seed, scenario, &options.overrides);
    let compare = match options.check {
        Check::Once => false,
        Check::Sampled => seed.is_multiple_of(8),
        Check::All => true,
    };
    if compare && outcome.violations.is_empty() {
        let again = run(seed, scenario, &options.overrides);
        if again.digest != outcome.digest {
            outcome.violations.push(Violation {
                property: "replay".into(),
                what: format!("the digest is {:016x} and then {:016x}", outcome.digest, again.digest),
                excerpt: first_difference(&outcome, &again),
            });
        }
        if matches!(outcome.world, scenario::World::Views(_)) {
            // What is delivered there depends on when it is issued.
            return outcome;
        }
        let accelerated = Some(!outcome.world.accelerated());
        let other = run(seed, scenario, &Overrides { accelerated, ..options.overrides.clone() });
        outcome.violations.extend(other.violations.iter().cloned().map(|mut violation| {
            violation.what = format!("{} ({})", violation.what, path(&other));
            violation
        }));
        // What is refused when numbers run out depends on how many messages shared a frame.
        let comparable = outcome.counters.work.used_up + other.counters.work.used_up == 0;
        if comparable && other.streams != outcome.streams {
            outcome.violations.push(differing_streams(&outcome, &other));
        }
    }
    outcome
}

fn path(outcome: &Outcome) -> &'static str {
    if outcome.world.accelerated() { "accelerated" } else { "by the layers alone" }
}

/// The first event in which two runs differ.
fn first_difference(one: &Outcome, other: &Outcome) -> String {
    let pairs = one.history.events.iter().zip(&other.history.events);
    let at = pairs.take_while(|(one, other)| one == other).count();
    let line = |outcome: &Outcome| match outcome.history.events.get(at) {
        Some(event) => event.to_string(),
        None => "(its end)".into(),
    };
    format!("  first run, event {at}:  {}\n  second run, event {at}: {}\n", line(one), line(other))
}

fn differing_streams(one: &Outcome, other: &Outcome) -> Violation {
    let keys = one.streams.keys().chain(other.streams.keys());
    let mut differing: Vec<_> = keys.filter(|key| one.streams.get(key) != other.streams.get(key)).collect();
    differing.sort_unstable();
    differing.dedup();
    let lines = differing.iter().take(8).map(|key| {
        let (member, origin, traffic, stream) = key;
        let count = |outcome: &Outcome| outcome.streams.get(key).map_or(0, |(count, _)| *count);
        format!(
            "  m{} got {} {traffic:?}s of m{}, stream {stream}, {} and {} {}\n",
            member + 1,
            count(one),
            origin + 1,
            path(one),
            count(other),
            path(other)
        )
    });
    Violation {
        property: "acceleration".into(),
        what: format!("{} streams differ with and without acceleration", differing.len()),
        excerpt: lines.collect(),
    }
}

/// The command that runs `seed` again and prints its trace.
pub fn replay_command(seed: u64, scenario: &Scenario, options: &SwarmOptions) -> String {
    let overrides = &options.overrides;
    let mut command = format!("wadjet sim --seeds {seed}..{} --scenario {}", seed + 1, scenario.name);
    let mut option = |text: String| {
        command.push(' ');
        command.push_str(&text);
    };
    if let Some(members) = overrides.members {
        option(format!("--members {members}"));
    }
    if let Some(stack) = &overrides.stack {
        option(format!("--stack '{stack}'"));
    }
    for (name, value) in
        [("accel", overrides.accelerated), ("pack", overrides.packing), ("shadow", overrides.shadow)]
    {
        if let Some(value) = value {
            option(format!("--{name} {}", if value { "on" } else { "off" }));
        }
    }
    if !overrides.without.is_empty() {
        let parts: Vec<String> = overrides.without.iter().map(usize::to_string).collect();
        option(format!("--without {}", parts.join(",")));
    }
    if options.check == Check::All || (options.check == Check::Sampled && seed.is_multiple_of(8)) {
        option("--check all".into());
    }
    option("--trace".into());
    command
}

/// What must have happened in a thousand seeds of a scenario, at least.
fn floors(scenario: &str) -> &'static [(&'static str, u64)] {
    match scenario {
        "swarm" => &[
            ("lost", 4_000),
            ("lost_in_burst", 1_000),
            ("cut", 500),
            ("duplicated", 2_000),
            ("stale", 200),
            ("reordered", 4_000),
            ("spikes", 50),
            ("corrupted", 1_000),
            ("intruders", 500),
            ("overflowed", 100),
            ("full", 500),
            ("pauses", 200),
            ("slow_reads", 500),
            ("casts", 20_000),
            ("sends", 5_000),
            ("large", 1_000),
            ("replies", 500),
            ("echoes", 500),
            ("reserved", 5_000),
            ("abandoned", 50),
            ("oversized", 50),
            ("postponed", 500),
            ("acknowledged", 500),
            ("accelerated_runs", 500),
            ("partly_accelerated_runs", 20),
            ("packing_runs", 400),
            ("shadow_runs", 100),
            ("in_place_runs", 50),
            ("used_up", 50),
        ],
        "views" => &[
            ("lost", 4_000),
            ("lost_in_burst", 1_000),
            ("cut", 200),
            ("divided", 20_000),
            ("duplicated", 5_000),
            ("stale", 500),
            ("reordered", 5_000),
            ("spikes", 100),
            ("corrupted", 500),
            ("overflowed", 50),
            ("full", 50),
            ("pauses", 200),
            ("standstills", 30),
            ("slow_reads", 500),
            ("crashes", 500),
            ("restarts", 500),
            ("leaves", 100),
            ("accusations", 50),
            ("views", 10_000),
            ("blocks", 10_000),
            ("exits", 200),
            ("whole_cores", 300),
            ("part_cores", 300),
            ("casts", 20_000),
            ("sends", 5_000),
            ("postponed", 500),
            ("partly_accelerated_runs", 20),
            ("shadow_runs", 50),
            ("large", 2_000),
            ("states", 400),
            ("passed_views", 20),
            ("late_views", 10),
            ("late_parts", 500),
            ("lost_states", 5),
            ("full_leaves", 10),
            ("torn_states", 50),
            ("expulsions", 10),
        ],
        "order" => &[("strains", 50)],
        "calm" => &[("casts", 20_000), ("in_place_runs", 100)],
        "loss" => &[("lost", 100_000), ("duplicated", 30_000), ("reordered", 30_000)],
        "corruption" => &[("corrupted", 2_000), ("intruders", 5_000), ("stale", 1_000)],
        "pause" => &[("pauses", 1_000)],
        "slow" => &[("slow_reads", 2_000), ("overflowed", 1_000)],
        "wrap" => &[("casts", 40_000_000)],
        "exhaustion" => &[("full", 1_000), ("postponed", 1_000)],
        _ => &[],
    }
}

/// What endpoints must have counted in a thousand seeds of a scenario, at least: the transitions of membership.
fn endpoint_floors(scenario: &str) -> &'static [(&'static str, u64)] {
    match scenario {
        "views" => &[
            ("MBRSHIP: flush begun", 5_000),
            ("MBRSHIP: flush held up", 30),
            ("MBRSHIP: view decided", 4_000),
            ("MBRSHIP: merge begun", 2_000),
            ("MBRSHIP: merge denied", 200),
            ("MBRSHIP: merge given up", 100),
            ("MBRSHIP: merge with a view that is greater by its seniors alone", 5),
            ("MBRSHIP: answered with the view", 500),
            ("MBRSHIP: told of its exclusion", 200),
            ("MBRSHIP: cut with a failed holder", 1),
            ("MBRSHIP: expelled", 40),
            ("MBRSHIP: report for another proposal", 20),
            ("NAK: forwarding", 50),
            ("SUSPECT: suspicion", 2_000),
            ("SUSPECT: suspicion taken over", 500),
            ("SUSPECT: own pause", 100),
            ("XFER: nobody had the state", 8),
        ],
        "order" => &[
            ("MBRSHIP: view decided", 1_000),
            ("NAK: retransmission", 5_000),
            ("SEQUENCER: orders", 5_000),
            ("TOTAL: invitations", 5_000),
            ("TOTAL: request of one in the ring", 1_000),
            ("TOTAL: requests for a turn", 8_000),
            ("TOTAL: turns passed on", 20_000),
            ("TOTAL: turns passed on in leaving", 4_500),
        ],
        _ => &[],
    }
}

/// Fewer seeds say nothing about what must have happened.
const SEEDS_FOR_FLOORS: u64 = 400;

fn no_floors(seeds: u64, options: &SwarmOptions, failures: &[Failure]) -> Option<String> {
    if !failures.is_empty() {
        Some("seeds have failed".into())
    } else if options.overrides != Overrides::default() {
        Some("something was fixed that seeds would draw".into())
    } else if seeds < SEEDS_FOR_FLOORS {
        Some(format!("fewer than {SEEDS_FOR_FLOORS} seeds"))
    } else {
        None
    }
}

fn below_floor(scenario: &Scenario, seeds: u64, counters: &Counters) -> Vec<String> {
    let count = |name: &str| {
        let mut all = counters.faults.list().chain(counters.work.list());
        all.find(|(other, _)| *other == name).map(|(_, count)| count).expect("floors name counters")
    };
    let endpoints = |name: &str| counters.endpoint.get(name).copied().unwrap_or(0);
    let of_world = floors(scenario.name).iter().map(|(name, floor)| (name, floor, count(name)));
    let of_layers = endpoint_floors(scenario.name).iter().map(|(name, floor)| (name, floor, endpoints(name)));
    of_world
        .chain(of_layers)
        .map(|(name, floor, count)| (name, floor * seeds / 1000, count))
        .filter(|(_, floor, count)| count < floor)
        .map(|(name, floor, count)| format!("{name}: {count}, at least {floor} expected"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::SCENARIOS;

    #[test]
    fn a_swarm_that_injects_nothing_is_told() {
        for scenario in SCENARIOS {
            let missing = below_floor(scenario, 1000, &Counters::default());
            assert_eq!(missing.len(), floors(scenario.name).len() + endpoint_floors(scenario.name).len());
            assert!(!missing.is_empty(), "{} has floors", scenario.name);
        }
    }

    #[test]
    fn floors_are_judged_of_enough_seeds_that_drew_everything_themselves() {
        let drawn = SwarmOptions {
            overrides: Overrides::default(),
            check: Check::Once,
            threads: 2,
            failures_max: 1,
            shrunk_max: 0,
            progress: false,
        };
        let fixed = SwarmOptions {
            overrides: Overrides { packing: Some(true), ..Overrides::default() },
            ..drawn.clone()
        };
        let judged = |seeds, options: &SwarmOptions| no_floors(seeds, options, &[]).is_none();
        assert!(judged(SEEDS_FOR_FLOORS, &drawn));
        assert!(!judged(SEEDS_FOR_FLOORS - 1, &drawn) && !judged(10_000, &fixed));
        // A few seeds of which none ever drew what must happen are no failure.
        let report = swarm(0..8, Scenario::named("calm").unwrap(), &drawn);
        assert!(report.passed() && report.no_floors.is_some(), "{:?}", report.below_floor);
        let failed = Failure { seed: 1, replay: String::new(), violations: Vec::new() };
        let report = SwarmReport { failures: vec![failed], ..report };
        assert!(!report.passed());
    }

    #[test]
    fn a_replay_command_says_everything_that_was_fixed() {
        let options = SwarmOptions {
            overrides: Overrides {
                members: Some(4),
                stack: Some("NAK:COM".into()),
                accelerated: Some(false),
                packing: None,
                shadow: Some(true),
                without: Vec::new(),
            },
            check: Check::All,
            threads: 1,
            failures_max: 1,
            shrunk_max: 0,
            progress: false,
        };
        assert_eq!(
            replay_command(7, &SCENARIOS[0], &options),
            "wadjet sim --seeds 7..8 --scenario swarm --members 4 --stack 'NAK:COM' --accel off --shadow on \
             --check all --trace"
        );
    }
}
