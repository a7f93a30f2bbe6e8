//! `wadjet bench`: makes the runs, then the report.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::floor;
use crate::machine::Machine;
use crate::memory_cost;
use crate::options::{BenchOptions, UNLOADED_PERCENT};
use crate::plan::{Length, Plan, Subject, TransportKind};
use crate::processes;
use crate::report::{self, Report, RunReport, command_line};
use crate::table;
use crate::workload::Pattern;

/// Runs what `options` describe and prints the report. Whether every run was good.
///
/// # Errors
/// If the options make no sense together, or the report cannot be written.
pub fn bench(options: &BenchOptions) -> Result<bool, Box<dyn Error>> {
    let whole = options.everything();
    let mut plans = if whole { standard(options)? } else { options.plans()? };
    if options.transport.is_none()
        && plans.iter().any(|plan| plan.transport == TransportKind::Xdp)
        && let Some(why) = processes::without_xdp()
    {
        eprintln!("without xdp: {why}");
        plans.retain(|plan| plan.transport != TransportKind::Xdp);
    }
    let mut report = Report {
        machine: Machine::read(),
        command: command_line(),
        runs: Vec::new(),
        floor: None,
        memory_cost: Vec::new(),
    };
    let loads = options.loads();
    let runs_each = 1 + loads.len();
    let mut progress = Progress::new(plans.len() * runs_each + 2 * usize::from(whole));
    if whole {
        progress.step("the bare ring between two cores");
        report.floor = floor::measure(&options.cores(), FLOOR_TIME);
        progress.step("the stack alone, in memory");
        report.memory_cost = memory_cost::measure_all()?;
    }
    for plan in &plans {
        let runs =
            if loads.is_empty() { run(plan, &mut progress) } else { at_loads(plan, &loads, &mut progress) };
        report.runs.extend(runs);
    }
    progress.end();
    write(&report, options.json.as_deref())?;
    Ok(report.good())
}

fn run(plan: &Plan, progress: &mut Progress) -> Vec<RunReport> {
    progress.step(&describe(plan));
    match processes::run(plan) {
        Ok(members) => report::of_plan(plan, &members),
        Err(error) => vec![report::failed(plan, error.to_string())],
    }
}

/// The same traffic as fast as it goes, then in an open loop at each share of what went.
fn at_loads(plan: &Plan, loads: &[f64], progress: &mut Progress) -> Vec<RunReport> {
    let mut runs = run(&capacity_plan(plan), progress);
    let capacity = runs.last().filter(|run| run.good()).map_or(0.0, |run| run.messages_per_second);
    if capacity <= 0.0 {
        return runs;
    }
    // What one receiver gets comes from all senders but itself.
    let heard = plan.pattern.senders(plan.members).saturating_sub(1).max(1);
    for percent in loads {
        let rate = capacity * percent / 100.0 / heard as f64;
        runs.extend(run(&Plan { rate: Some(rate), load: Some(*percent), ..plan.clone() }, progress));
    }
    report::relate_to_unloaded(&mut runs, UNLOADED_PERCENT);
    runs
}

/// Who casts in turn waits for the turn before, not for the machine: the capacity is that of all at once.
fn capacity_plan(plan: &Plan) -> Plan {
    Plan {
        subject: if plan.subject == Subject::Raw { Subject::Raw } else { Subject::Stack },
        pattern: if plan.pattern == Pattern::Alternating { Pattern::AllToAll } else { plan.pattern },
        load: Some(100.0),
        length: Length::Time(CAPACITY_TIME),
        ..plan.clone()
    }
}

/// What `wadjet bench` runs when it is told nothing.
fn standard(options: &BenchOptions) -> Result<Vec<Plan>, Box<dyn Error>> {
    let described = BenchOptions { vs_raw: true, ..options.clone() };
    let seconds = options.duration.unwrap_or(STANDARD_SECONDS);
    let mut plans = Vec::new();
    for pattern in [Pattern::Pingpong, Pattern::Stream] {
        let options = BenchOptions { pattern: vec![pattern], duration: Some(seconds), ..described.clone() };
        plans.extend(options.plans()?);
    }
    let unpacked =
        BenchOptions { pattern: vec![Pattern::Stream], no_pack: true, duration: Some(seconds), ..described };
    plans.extend(unpacked.plans()?.into_iter().filter(|plan| plan.transport != TransportKind::Memory));
    Ok(plans)
}

fn describe(plan: &Plan) -> String {
    let subject = match plan.subject {
        Subject::Raw => "raw",
        Subject::Stack => "stack",
        Subject::Versus { .. } => "raw and stack",
    };
    let length = match plan.length {
        Length::Time(time) => format!("{:.1} s", time.as_secs_f64()),
        Length::Messages(count) => format!("{count} messages"),
    };
    let pack = match (plan.pack, plan.offload) {
        (true, true) => "",
        (false, true) => ", no packing",
        (true, false) => ", no offload",
        (false, false) => ", no packing, no offload",
    };
    let (transport, pattern, order) = (plan.transport.name(), plan.pattern.name(), plan.order().name());
    let load = match (plan.rate, plan.load) {
        (Some(rate), Some(percent)) => {
            format!(", {percent} % load, {rate:.0}/s each, {}", plan.arrivals.name())
        }
        (Some(rate), None) => format!(", {rate:.0}/s each, {}", plan.arrivals.name()),
        (None, Some(_)) => ", capacity".into(),
        (None, None) => String::new(),
    };
    let (members, size) = (plan.members, plan.size);
    format!("{transport} {pattern}, {subject}, {order}, {members} members, {size} B, {length}{pack}{load}")
}

/// One line on standard error that says how far it is.
struct Progress {
    steps: usize,
    step: usize,
    begun: Instant,
}

impl Progress {
    fn new(steps: usize) -> Progress {
        Progress { steps, step: 0, begun: Instant::now() }
    }

    fn step(&mut self, what: &str) {
        self.step += 1;
        eprintln!("[{}/{} {:>3.0} s] {what}", self.step, self.steps, self.begun.elapsed().as_secs_f64());
    }

    fn end(&self) {
        eprintln!("[done {:.0} s]", self.begun.elapsed().as_secs_f64());
    }
}

fn write(report: &Report, json: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let Some(path) = json else {
        print!("{}", table::text(report));
        return Ok(());
    };
    let text = serde_json::to_string_pretty(report)?;
    if path == Path::new("-") {
        println!("{text}");
    } else {
        print!("{}", table::text(report));
        std::fs::write(path, text + "\n").map_err(|error| {
            format!("cannot write {}: {error}; name a file in a directory of yours", path.display())
        })?;
    }
    Ok(())
}

const FLOOR_TIME: Duration = Duration::from_secs(2);
const STANDARD_SECONDS: f64 = 3.0;
/// How long the capacity is measured, of which loads are shares.
const CAPACITY_TIME: Duration = Duration::from_millis(700);
