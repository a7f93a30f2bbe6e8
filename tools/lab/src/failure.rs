//! What a failure costs: from the fault to the next view at each survivor, and to the first cast delivered in it.
//!
//! Every member is a process. A victim is drawn, at a moment drawn within the heartbeat's period; the fault is made; the
//! survivors say when they installed the view without it, and when the first cast of another came in that view. Then
//! the group is made whole again (a killed member starts anew, a stopped one is continued and learns that it is out, a
//! port goes up and the halves merge), which also says how long a join takes.
//!
//! All times are read from one clock, by the process to which it happened. The time of a fault is read *before* the
//! signal is sent, or the command that takes the port down is started.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use wadjet_bench::BenchOptions;
use wadjet_bench::histogram::{Latencies, LatencySummary, Recorded};
use wadjet_bench::machine::Machine;
use wadjet_bench::plan::TransportKind;

use crate::crew::{Crew, CrewOptions};
use crate::hosts::{Hosts, label_of_this_process};
use crate::seat::{Carrier, Extras, Load, Waiting};

/// Failures instead of messages.
#[derive(Args, Clone, Debug, Default)]
pub struct FailureOptions {
    /// What a failure costs: from the fault to the next view and to the first cast in it; `none` counts suspicions,
    /// `join` measures how members come together
    #[arg(long, value_enum)]
    pub failure: Option<Fault>,
    /// Faults; for `join` how often the group begins anew [default: 100; for `join` 20]
    #[arg(long, value_name = "N", requires = "failure")]
    pub faults: Option<u32>,
    /// What members do meanwhile [default: idle]
    #[arg(long, value_enum, requires = "failure")]
    pub load: Option<LoadKind>,
    /// How members' loops wait [default: park when idle, adaptive under load]
    #[arg(long, value_enum, requires = "failure")]
    pub waiting: Option<Waiting>,
}

/// What happens to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// It is killed (SIGKILL)
    Kill,
    /// It is stopped (SIGSTOP) and continued later
    Stop,
    /// Its port of the bridge goes down, and up again later; needs root
    Partition,
    /// Nothing: any suspicion is a false one
    None,
    /// No fault: members come one after the other, and then all at once
    Join,
}

impl Fault {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Stop => "stop",
            Fault::Partition => "partition",
            Fault::None => "none",
            Fault::Join => "join",
        }
    }
}

/// What members do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LoadKind {
    /// One cast per view
    #[default]
    Idle,
    /// As much as the group takes
    Full,
}

impl LoadKind {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            LoadKind::Idle => "idle",
            LoadKind::Full => "full",
        }
    }
}

/// The figures of one kind of fault over one transport.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailureRun {
    /// Over what.
    pub transport: Carrier,
    /// The stack.
    pub stack: String,
    /// Members.
    pub members: usize,
    /// What happened.
    pub fault: Fault,
    /// What they did meanwhile.
    pub load: LoadKind,
    /// How their loops waited.
    pub waiting: Waiting,
    /// How often it happened.
    pub faults: u32,
    /// From the fault to the suspicion of the victim, at each survivor that had one, in nanoseconds.
    #[serde(default)]
    pub suspect_ns: LatencySummary,
    /// From the fault to the next view, at each survivor, in nanoseconds.
    pub view_ns: LatencySummary,
    /// From the fault to the first cast of another delivered in that view, at each survivor, in nanoseconds.
    pub first_cast_ns: LatencySummary,
    /// From the start of a join to the view of all at the one who joins, in nanoseconds.
    pub join_ns: LatencySummary,
    /// From when the fault is put right to the view of all at the last one, in nanoseconds.
    pub whole_ns: LatencySummary,
    /// How long the first, the second, and so on took to join, in nanoseconds.
    pub join_by_size_ns: Vec<LatencySummary>,
    /// Every time measured, and how often.
    pub histograms: Histograms,
    /// Survivors that were suspected, and views lost by it.
    pub false_suspicions: u64,
    /// Faults after which a survivor was excluded by mistake.
    #[serde(default)]
    pub excluded: u32,
    /// Stopped members that were excluded and came back without having learnt it: as who they were, by a merge.
    #[serde(default)]
    pub unaware: u32,
    /// Faults after which the survivors did not come together within the time.
    pub not_together: u32,
    /// Casts of all members that were there at the end, and deliveries.
    pub casts: u64,
    /// Deliveries to them.
    pub delivered: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What went wrong, if anything did.
    pub error: Option<String>,
}

/// All times of a run, in nanoseconds: each value, to three digits, and how often it was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Histograms {
    /// As [`FailureRun::suspect_ns`].
    pub suspect: Recorded,
    /// As [`FailureRun::view_ns`].
    pub view: Recorded,
    /// As [`FailureRun::first_cast_ns`].
    pub first_cast: Recorded,
    /// As [`FailureRun::join_ns`].
    pub join: Recorded,
    /// As [`FailureRun::whole_ns`].
    pub whole: Recorded,
}

/// The report of `wadjet bench --failure`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailureReport {
    /// The machine.
    pub machine: Machine,
    /// The command line.
    pub command: String,
    /// One run per transport.
    pub failures: Vec<FailureRun>,
}

/// Measures and prints. Whether every run came to its end.
///
/// # Errors
/// If the options make no sense together, or the report cannot be written.
pub fn bench(bench: &BenchOptions, options: &FailureOptions) -> Result<bool, Box<dyn Error>> {
    let fault = options.failure.ok_or("say which failure")?;
    let carriers = carriers(bench, fault)?;
    let mut failures = Vec::new();
    for carrier in carriers {
        eprintln!("{} over {}", fault.name(), carrier.name());
        let run = measure(bench, options, fault, carrier)?;
        eprintln!("  {:.0} s", run.seconds);
        failures.push(run);
    }
    let report =
        FailureReport { machine: Machine::read(), command: wadjet_bench::report::command_line(), failures };
    let good = report.failures.iter().all(|run| run.error.is_none() && run.not_together + run.excluded == 0);
    write(&report, bench.json.as_deref())?;
    Ok(good)
}

fn carriers(bench: &BenchOptions, fault: Fault) -> Result<Vec<Carrier>, Box<dyn Error>> {
    Ok(match (bench.transport, fault) {
        (Some(TransportKind::Shm), Fault::Partition) => {
            return Err("shared memory has no network to take down; say --transport udp".into());
        }
        (Some(TransportKind::Shm), _) => vec![Carrier::Shm],
        (Some(TransportKind::Udp), _) => vec![Carrier::Udp],
        (Some(TransportKind::Uring), _) => vec![Carrier::Uring],
        (Some(TransportKind::Xdp), _) => vec![Carrier::Xdp],
        (None, Fault::Partition) => vec![Carrier::Udp, Carrier::Uring, Carrier::Xdp],
        (None, _) if rustix::process::geteuid().is_root() => {
            vec![Carrier::Shm, Carrier::Udp, Carrier::Uring, Carrier::Xdp]
        }
        (None, _) => {
            eprintln!("xdp is left out: it needs root");
            vec![Carrier::Shm, Carrier::Udp, Carrier::Uring]
        }
        (Some(TransportKind::Memory), _) => {
            return Err("processes that fail need --transport udp, uring, xdp or shm".into());
        }
    })
}

fn measure(
    bench: &BenchOptions,
    options: &FailureOptions,
    fault: Fault,
    carrier: Carrier,
) -> Result<FailureRun, Box<dyn Error>> {
    let load = options.load.unwrap_or_default();
    let members = bench.members.first().copied().unwrap_or(3);
    if !(2..=16).contains(&members) {
        return Err("--members must be between 2 and 16".into());
    }
    let waiting = options.waiting.unwrap_or(match load {
        LoadKind::Idle => Waiting::Park,
        LoadKind::Full => Waiting::Adaptive,
    });
    let stack = bench.stack.clone().unwrap_or_else(|| carrier.stack().to_owned());
    carrier.check_live(&stack, members)?;
    let faults = match fault {
        Fault::None => 0,
        Fault::Join => options.faults.unwrap_or(JOINS),
        _ => options.faults.unwrap_or(FAULTS),
    };
    let seconds = bench.duration.unwrap_or(NONE_SECONDS);
    let crew_options = CrewOptions {
        carrier,
        stack: stack.clone(),
        members,
        load: if load == LoadKind::Idle { Load::Idle } else { Load::Full },
        bytes: bench.size.first().copied().unwrap_or(64),
        extras: Extras::default(),
        waiting,
        histories: None,
        life: LIFE + FAULT_MAX * faults + Duration::from_secs_f64(seconds),
    };
    let label = label_of_this_process("failure");
    let hosts = match fault == Fault::Partition || carrier.needs_hosts() {
        true => Some(Hosts::up(&label, members)?),
        false => None,
    };
    // What is measured is how long the group takes, not how long kernels take to ask for addresses.
    hosts.iter().try_for_each(Hosts::introduce)?;
    let program = std::env::current_exe()?;
    let mut crew = Crew::new(crew_options, &program, &label, hosts.as_ref())?;
    let begun = Instant::now();
    let mut figures = Figures::default();
    let outcome = match fault {
        Fault::None => calm(&mut crew, Duration::from_secs_f64(seconds)),
        Fault::Join => all_joins(&mut crew, faults, &mut figures),
        _ => all_faults(&mut crew, hosts.as_ref(), fault, faults, &mut figures),
    };
    count_suspicions(&mut crew, &mut figures);
    crew.end();
    let last_words = || crew.places.iter().filter_map(|place| place.life.end);
    Ok(FailureRun {
        transport: carrier,
        stack,
        members,
        fault,
        load,
        waiting,
        faults: figures.made,
        suspect_ns: figures.suspect.summary(),
        view_ns: figures.view.summary(),
        first_cast_ns: figures.first.summary(),
        join_ns: figures.join.summary(),
        whole_ns: figures.whole.summary(),
        join_by_size_ns: figures.growth.iter().map(Latencies::summary).collect(),
        histograms: Histograms {
            suspect: figures.suspect.recorded(),
            view: figures.view.recorded(),
            first_cast: figures.first.recorded(),
            join: figures.join.recorded(),
            whole: figures.whole.recorded(),
        },
        false_suspicions: figures.false_suspicions,
        excluded: figures.excluded,
        unaware: figures.unaware,
        not_together: figures.not_together,
        casts: last_words().map(|(casts, ..)| casts).sum(),
        delivered: last_words().map(|(_, delivered, ..)| delivered).sum(),
        seconds: begun.elapsed().as_secs_f64(),
        error: outcome.err().map(|error| error.to_string()),
    })
}

#[derive(Default)]
struct Figures {
    made: u32,
    suspect: Latencies,
    view: Latencies,
    first: Latencies,
    join: Latencies,
    whole: Latencies,
    /// By the size of the group joined, the one who joins included.
    growth: Vec<Latencies>,
    false_suspicions: u64,
    excluded: u32,
    unaware: u32,
    not_together: u32,
}

/// Waits until all are in one view.
fn gather(crew: &mut Crew<'_>) -> Result<(), Box<dyn Error>> {
    let all: Vec<usize> = (0..crew.places.len()).collect();
    gather_those(crew, &all)
}

/// Waits until these are in one view; who was excluded by mistake starts anew.
fn gather_those(crew: &mut Crew<'_>, whom: &[usize]) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    while begun.elapsed() < TOGETHER_MAX {
        crew.revive(whom)?;
        if crew.until(LOOK, |crew| crew.together(whom)) {
            return Ok(());
        }
    }
    Err(format!("the group does not come together:\n{}", crew.describe()).into())
}

/// Starts one after the other; how long each took to join those that were there.
fn grow(crew: &mut Crew<'_>, growth: &mut Vec<Latencies>) -> Result<(), Box<dyn Error>> {
    growth.resize_with(crew.places.len(), Latencies::new);
    for (at, latencies) in growth.iter_mut().enumerate() {
        gather_those(crew, &(0..=at).collect::<Vec<_>>())?;
        let life = &crew.places[at].life;
        let (_, _, installed) = life.view.as_ref().ok_or("together without a view")?;
        latencies.record(installed.saturating_sub(life.joining));
    }
    Ok(())
}

/// Members come one after the other, and then, into a new group, all at once.
fn all_joins(crew: &mut Crew<'_>, rounds: u32, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    for _ in 0..rounds {
        grow(crew, &mut figures.growth)?;
        nobody_is_left(crew)?;
        gather(crew)?;
        let lives = || crew.places.iter().map(|place| &place.life);
        let begun = lives().map(|life| life.joining).min().unwrap_or(0);
        for life in lives() {
            let (_, _, installed) = life.view.as_ref().ok_or("together without a view")?;
            figures.whole.record(installed.saturating_sub(begun));
        }
        nobody_is_left(crew)?;
        figures.made += 1;
    }
    Ok(())
}

fn nobody_is_left(crew: &mut Crew<'_>) -> Result<(), Box<dyn Error>> {
    crew.places.iter_mut().for_each(|place| place.life.suspicions.clear());
    (0..crew.places.len()).filter(|at| crew.lives(*at)).collect::<Vec<_>>().into_iter().try_for_each(|at| {
        crew.kill(at)?;
        Ok(())
    })
}

fn broken(crew: &Crew<'_>) -> bool {
    crew.places.iter().any(|place| place.life.failed.is_some())
}

fn calm(crew: &mut Crew<'_>, time: Duration) -> Result<(), Box<dyn Error>> {
    let mut growth = Vec::new();
    grow(crew, &mut growth)?;
    crew.places.iter_mut().for_each(|place| place.life.suspicions.clear());
    let changed = crew.until(time, |crew| {
        let all: Vec<usize> = (0..crew.places.len()).collect();
        broken(crew) || !crew.together(&all)
    });
    if changed {
        crew.pass(Duration::from_secs(1));
        return Err(format!("the view did not last:\n{}", crew.describe()).into());
    }
    Ok(())
}

fn all_faults(
    crew: &mut Crew<'_>,
    hosts: Option<&Hosts>,
    fault: Fault,
    faults: u32,
    figures: &mut Figures,
) -> Result<(), Box<dyn Error>> {
    let all: Vec<usize> = (0..crew.places.len()).collect();
    grow(crew, &mut figures.growth)?;
    let mut dice = Dice::new(FAULT_SEED);
    for _ in 0..faults {
        // Not at the same phase of everybody's timers each time.
        crew.pass(STEADY + Duration::from_micros(dice.below(10_000)));
        let victim = dice.below(all.len() as u64) as usize;
        let survivors: Vec<usize> = all.iter().copied().filter(|at| *at != victim).collect();
        count_suspicions(crew, figures);
        gather(crew)?;
        let at = make(crew, hosts, fault, victim)?;
        figures.made += 1;
        // The view they are together in is later than the fault, because it lacks the victim.
        let heard = |crew: &Crew<'_>| {
            survivors.len() == 1 || survivors.iter().all(|at| crew.places[*at].life.first.is_some())
        };
        crew.until(FAULT_MAX, |crew| {
            let excluded = survivors.iter().any(|at| !crew.lives(*at));
            excluded || crew.together(&survivors) && heard(crew)
        });
        let left_out = crew.together(&survivors);
        if left_out && heard(crew) {
            for survivor in &survivors {
                let life = &crew.places[*survivor].life;
                let (_, _, installed) = life.view.as_ref().ok_or("together without a view")?;
                figures.view.record(installed.saturating_sub(at));
                if let Some(first) = life.first {
                    figures.first.record(first.saturating_sub(at));
                }
            }
        } else {
            missed(crew, &survivors, figures)?;
        }
        let victims = crew.places[victim].life.incarnation;
        for survivor in &survivors {
            let life = &mut crew.places[*survivor].life;
            if let Some((told, _)) = life.suspicions.iter().find(|(_, whom)| whom.contains(&victims)) {
                figures.suspect.record(told.saturating_sub(at));
            }
            let false_ones =
                life.suspicions.drain(..).flat_map(|(_, whom)| whom).filter(|who| *who != victims);
            figures.false_suspicions += false_ones.count() as u64;
        }
        let mended = crate::clock::now();
        mend(crew, hosts, fault, victim)?;
        gather(crew)?;
        let installed = crew.places.iter().filter_map(|place| place.life.view.as_ref().map(|(_, _, at)| *at));
        figures.whole.record(installed.max().unwrap_or(0).saturating_sub(mended));
        if crew.places[victim].life.incarnation != victims {
            let life = &crew.places[victim].life;
            let installed = life.view.as_ref().map_or(0, |(_, _, at)| *at);
            figures.join.record(installed.saturating_sub(life.joining));
        } else if fault == Fault::Stop && left_out {
            figures.unaware += 1;
        }
        crew.places.iter_mut().for_each(|place| place.life.suspicions.clear());
    }
    Ok(())
}

/// Survivors that are not together and at work after a fault: because one of them was excluded by mistake, and comes back, or
/// because they do not find each other.
fn missed(crew: &mut Crew<'_>, survivors: &[usize], figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let state = |crew: &Crew<'_>| match (survivors.iter().all(|at| crew.lives(*at)), crew.together(survivors))
    {
        (false, _) => "one of the survivors was excluded",
        (true, true) => "the survivors are together, and have heard nothing of each other",
        (true, false) => "the survivors are not together",
    };
    eprintln!("after fault {}: {}:\n{}", figures.made, state(crew), crew.describe());
    if survivors.iter().all(|at| crew.lives(*at)) {
        figures.not_together += 1;
        return Ok(());
    }
    figures.excluded += 1;
    if gather_those(crew, survivors).is_err() {
        figures.not_together += 1;
        eprintln!(
            "after fault {}, and {TOGETHER_MAX:?}: {}:\n{}",
            figures.made,
            state(crew),
            crew.describe()
        );
    }
    Ok(())
}

/// In a whole group without a fault every suspicion is a false one.
fn count_suspicions(crew: &mut Crew<'_>, figures: &mut Figures) {
    let suspicions = crew.places.iter_mut().flat_map(|place| place.life.suspicions.drain(..));
    figures.false_suspicions += suspicions.map(|(_, whom)| whom.len() as u64).sum::<u64>();
}

fn make(
    crew: &mut Crew<'_>,
    hosts: Option<&Hosts>,
    fault: Fault,
    victim: usize,
) -> Result<u64, Box<dyn Error>> {
    match fault {
        Fault::Kill => crew.kill(victim),
        Fault::Stop => crew.stop(victim),
        Fault::Partition => {
            let at = crate::clock::now();
            hosts.ok_or("a partition needs hosts")?.set_port(victim + 1, false)?;
            Ok(at)
        }
        Fault::None | Fault::Join => Ok(crate::clock::now()),
    }
}

/// Makes the group whole again.
fn mend(
    crew: &mut Crew<'_>,
    hosts: Option<&Hosts>,
    fault: Fault,
    victim: usize,
) -> Result<(), Box<dyn Error>> {
    match fault {
        Fault::Kill => crew.start(victim)?,
        // It learns that it is out, and ends.
        Fault::Stop => drop(crew.go_on(victim)?),
        Fault::Partition => hosts.ok_or("a partition needs hosts")?.set_port(victim + 1, true)?,
        Fault::None | Fault::Join => {}
    }
    Ok(())
}

fn write(report: &FailureReport, json: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let text = serde_json::to_string_pretty(report)?;
    match json {
        Some(path) if path == Path::new("-") => println!("{text}"),
        Some(path) => {
            print!("{}", table(&report.failures));
            std::fs::write(path, text + "\n").map_err(|error| {
                format!("cannot write {}: {error}; name a file in a directory of yours", path.display())
            })?;
        }
        None => print!("{}", table(&report.failures)),
    }
    Ok(())
}

/// The figures as tables of markdown, which a person can read as they are; times in milliseconds.
pub fn table(runs: &[FailureRun]) -> String {
    let mut text = String::new();
    let (joins, others): (Vec<_>, Vec<_>) = runs.iter().partition(|run| run.fault == Fault::Join);
    let (quiet, faults): (Vec<_>, Vec<_>) = others.into_iter().partition(|run| run.fault == Fault::None);
    if !faults.is_empty() {
        text += "| fault | transport | members | load | faults | suspected p50 / p99 / max, ms | new view p50 / p99 / max, ms | first cast p50 / p99 / max, ms \
                 | join p50 / p99, ms | whole again p50 / p99, ms | false suspicions |\n|---|---|---|---|---|---|---|---|---|---|---|\n";
        text.extend(faults.into_iter().map(fault_row));
    }
    if !quiet.is_empty() {
        text += "\n| nothing fails | members | load | seconds | casts | deliveries | false suspicions |\n|---|---|---|---|---|---|---|\n";
        text.extend(quiet.into_iter().map(quiet_row));
    }
    if !joins.is_empty() {
        text += "\n| transport | into a group of | times | p50 / p99 / max, ms |\n|---|---|---|---|\n";
        text.extend(joins.into_iter().map(join_rows));
    }
    for run in runs {
        let times = |times: u32, what: &str| (times > 0).then(|| format!("{times} times {what}"));
        let apart = times(run.not_together, "the survivors did not meet");
        let excluded = times(run.excluded, "a survivor was excluded by mistake");
        let unaware =
            times(run.unaware, "a member that was stopped and excluded came back without having learnt it");
        for wrong in run.error.iter().cloned().chain(apart).chain(excluded).chain(unaware) {
            text += &format!("\n{wrong}\n");
        }
    }
    text
}

fn milliseconds(nanoseconds: u64) -> String {
    format!("{:.1}", nanoseconds as f64 / 1e6)
}

fn three(times: &LatencySummary) -> String {
    [times.p50, times.p99, times.max].map(milliseconds).join(" / ")
}

fn fault_row(run: &FailureRun) -> String {
    let two = |times: &LatencySummary| [times.p50, times.p99].map(milliseconds).join(" / ");
    let load = run.load.name();
    format!(
        "| {} | {} | {} | {load} | {} | {} | {} | {} | {} | {} | {} |\n",
        run.fault.name(),
        run.transport.name(),
        run.members,
        run.faults,
        three(&run.suspect_ns),
        three(&run.view_ns),
        three(&run.first_cast_ns),
        two(&run.join_ns),
        two(&run.whole_ns),
        run.false_suspicions
    )
}

fn quiet_row(run: &FailureRun) -> String {
    format!(
        "| {} | {} | {} | {:.0} | {} | {} | {} |\n",
        run.transport.name(),
        run.members,
        run.load.name(),
        run.seconds,
        run.casts,
        run.delivered,
        run.false_suspicions
    )
}

fn join_rows(run: &FailureRun) -> String {
    let row = |into: String, times: &LatencySummary| {
        format!("| {} | {into} | {} | {} |\n", run.transport.name(), run.faults, three(times))
    };
    let sizes = run.join_by_size_ns.iter().enumerate();
    let by_size: String = sizes.map(|(at, times)| row((at + 1).to_string(), times)).collect();
    by_size + &row(format!("{}, all at once", run.members), &run.whole_ns)
}

/// A small generator: draws need to differ, no more.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % limit.max(1)
    }
}

const FAULTS: u32 = 100;
const JOINS: u32 = 20;
const FAULT_SEED: u64 = 0x7761_646a_6574;
const NONE_SECONDS: f64 = 10.0;
/// The group is left alone for so long between mending and the next fault.
const STEADY: Duration = Duration::from_millis(60);
const TOGETHER_MAX: Duration = Duration::from_secs(20);
const FAULT_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);
const LIFE: Duration = Duration::from_secs(60);
