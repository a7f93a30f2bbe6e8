//! `wadjet sim`: the simulator on the command line.

use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;
use wadjet::layers::{DEFAULT_STACK, FIXED_STACK};
use wadjet::stack::property::{Properties, Property};
use wadjet::stack::registry::Registry;
use wadjet::stack::spec::Spec;

use crate::outcome::Outcome;
use crate::scenario::{MEMBERS_MAX, Overrides, SCENARIOS, Scenario, World};
use crate::swarm::{Check, SwarmOptions, SwarmReport, run_checked, swarm};
use crate::views::{Bounds, Explored, explore};
use crate::world::run_with;

/// Runs endpoints on a simulated clock and a faulty network, and lets the oracle judge what they did.
///
/// Exit status 1 and the failing seed on any violation; a seed replays bit for bit.
#[derive(Clone, Debug, clap::Args)]
pub struct SimArgs {
    /// Seeds to run: `A..B` (B not included) or a single one.
    #[arg(long, value_parser = parse_seeds, default_value = "0..1000", value_name = "A..B")]
    pub seeds: Range<u64>,
    /// What kind of world each seed draws.
    #[arg(long, value_parser = parse_scenario, default_value = "swarm", value_name = "NAME")]
    pub scenario: &'static str,
    /// As many members in every run; else each seed draws.
    #[arg(long, value_parser = parse_members, value_name = "N")]
    pub members: Option<usize>,
    /// This stack in every run, top to bottom; else each seed draws.
    #[arg(long, value_parser = parse_stack, value_name = "SPEC")]
    pub stack: Option<String>,
    /// With or without the compiled fast path in every run; else each seed draws.
    #[arg(long, value_name = "on|off")]
    pub accel: Option<Switch>,
    /// With or without packing in every run; else each seed draws.
    #[arg(long, value_name = "on|off")]
    pub pack: Option<Switch>,
    /// With or without the shadow (the layers repeat what the plans did) in every run; else each seed draws.
    #[arg(long, value_name = "on|off")]
    pub shadow: Option<Switch>,
    /// Parts to take out of worlds in which views follow each other, by number: what a replay command says.
    #[arg(long, value_name = "N,N,...", value_delimiter = ',')]
    pub without: Vec<usize>,
    /// What is run again and compared: nothing, every eighth seed, or all of them.
    #[arg(long, value_enum, default_value = "sampled")]
    pub check: Check,
    /// Worker threads; as many as there are cores if not given.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Instead of drawing runs from seeds take all of them: every sequence of so many choices of what happens next, to a
    /// group of three (or `--members`) that casts, loses a frame and a member.
    #[arg(long, value_name = "DEPTH", value_parser = clap::value_parser!(u8).range(0..=40))]
    pub explore: Option<u8>,
    /// With `--explore`: casts of all members together.
    #[arg(long, value_name = "N", default_value_t = 2, requires = "explore")]
    pub casts: u8,
    /// With `--explore`: members that may crash.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "explore")]
    pub crashes: u8,
    /// With `--explore`: frames that may be lost or overtaken, beside those of members that have crashed.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "explore")]
    pub disturbances: u8,
    /// Print one JSON object on standard output, and nothing else there.
    #[arg(long)]
    pub json: bool,
    /// Print every event of every seed; meant for one seed.
    #[arg(long)]
    pub trace: bool,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// With it.
    On,
    /// Without it.
    Off,
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is not a whole number"));
    let range = match text.split_once("..") {
        Some((from, to)) => number(from)?..number(to)?,
        None => {
            let seed = number(text)?;
            seed..seed.checked_add(1).ok_or("the last seed has no successor")?
        }
    };
    if range.is_empty() {
        Err(format!("`{text}` names no seed; give the smaller number first"))
    } else {
        Ok(range)
    }
}

fn parse_scenario(text: &str) -> Result<&'static str, String> {
    let names = || SCENARIOS.iter().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ");
    Scenario::named(text).map(|scenario| scenario.name).ok_or_else(|| format!("give one of {}", names()))
}

/// Takes a stack on which a simulated application can cast and send over a network that damages frames.
fn parse_stack(text: &str) -> Result<String, String> {
    let spec = Spec::parse(text).map_err(|error| error.to_string())?;
    let registry = Registry::standard();
    let checked = spec.check(&registry, Properties::NONE).map_err(|error| error.to_string())?;
    let provided = checked.first().map_or(Properties::NONE, |(_, above)| *above);
    let wanted = [(Property::FifoMulticast, "casts", "NAK"), (Property::FifoUnicast, "sends", "UNICAST")];
    for (property, what, layer) in wanted {
        if !provided.contains(property) {
            return Err(format!(
                "simulated applications cast and send, and this stack does not make {what} reliable; add {layer}, \
                 as in {FIXED_STACK}"
            ));
        }
    }
    Ok(text.to_string())
}

fn parse_members(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(members) if (1..=MEMBERS_MAX).contains(&members) => Ok(members),
        _ => Err(format!("give a whole number from 1 to {MEMBERS_MAX}")),
    }
}

/// Runs what `arguments` ask for.
pub fn command(arguments: &SimArgs) -> ExitCode {
    if let Some(depth) = arguments.explore {
        return explored(arguments, depth);
    }
    let scenario = Scenario::named(arguments.scenario).expect("checked when parsed");
    let on = |switch: Option<Switch>| switch.map(|switch| switch == Switch::On);
    let options = SwarmOptions {
        overrides: Overrides {
            members: arguments.members,
            stack: arguments.stack.clone(),
            accelerated: on(arguments.accel),
            packing: on(arguments.pack),
            shadow: on(arguments.shadow),
            without: arguments.without.clone(),
        },
        check: arguments.check,
        threads: arguments
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        failures_max: 8,
        shrunk_max: 2,
        progress: true,
    };
    let mut out = io::stdout().lock();
    let written = if arguments.trace {
        trace(&mut out, arguments, scenario, &options)
    } else {
        let report = swarm(arguments.seeds.clone(), scenario, &options);
        let written =
            if arguments.json { print_json(&mut out, &report) } else { print_table(&mut out, &report) };
        written.map(|()| report.passed())
    };
    match written.and_then(|passed| out.flush().map(|()| passed)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => unwritten(&error),
    }
}

/// Where nobody reads any more that is not a violation, but neither is it a pass: then a shell says 141, as of a program that
/// SIGPIPE ended.
fn unwritten(error: &io::Error) -> ExitCode {
    ExitCode::from(if error.kind() == io::ErrorKind::BrokenPipe { 141 } else { 2 })
}

/// Explores, and prints what came of it.
fn explored(arguments: &SimArgs, depth: u8) -> ExitCode {
    let bounds = Bounds {
        members: arguments.members.unwrap_or(3),
        stack: arguments.stack.clone().unwrap_or_else(|| DEFAULT_STACK.to_owned()),
        depth: usize::from(depth),
        casts: usize::from(arguments.casts),
        crashes: usize::from(arguments.crashes),
        disturbances: usize::from(arguments.disturbances),
        accelerated: arguments.accel != Some(Switch::Off),
    };
    if let Err(error) = bounds.check() {
        // Where nobody reads errors the exit status says it.
        let _ = writeln!(io::stderr(), "{error}");
        return ExitCode::from(2);
    }
    let explored = explore(&bounds);
    let mut out = io::stdout().lock();
    let written = if arguments.json {
        writeln!(out, "{}", explored_json(&bounds, &explored))
    } else {
        print_explored(&mut out, &bounds, &explored)
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) if explored.failure.is_none() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(1),
        Err(error) => unwritten(&error),
    }
}

fn explored_json(bounds: &Bounds, explored: &Explored) -> serde_json::Value {
    let failure = explored.failure.as_ref().map(|failure| {
        let path: Vec<String> = failure.path.iter().map(ToString::to_string).collect();
        json!({"path": path, "violations": failure.violations})
    });
    json!({
        "stack": bounds.stack, "members": bounds.members, "depth": bounds.depth, "casts": bounds.casts,
        "crashes": bounds.crashes, "disturbances": bounds.disturbances,
        "states": explored.states, "choices": explored.choices, "known": explored.known, "runs": explored.runs,
        "seconds": explored.seconds, "passed": explored.failure.is_none(), "failure": failure,
    })
}

fn print_explored(out: &mut impl Write, bounds: &Bounds, explored: &Explored) -> io::Result<()> {
    let verdict = if explored.failure.is_none() { "all as promised" } else { "VIOLATED" };
    writeln!(
        out,
        "explored {}: {} members, {} casts, up to {} crashes and {} disturbances, depth {}: {} states, {} choices \
         ({} of them to known states), {} runs judged, in {:.1} s: {verdict}",
        bounds.stack,
        bounds.members,
        bounds.casts,
        bounds.crashes,
        bounds.disturbances,
        bounds.depth,
        explored.states,
        explored.choices,
        explored.known,
        explored.runs,
        explored.seconds,
    )?;
    let Some(failure) = &explored.failure else { return Ok(()) };
    let path: Vec<String> = failure.path.iter().map(ToString::to_string).collect();
    writeln!(out, "\nTHE CHOICES: {}", path.join("; "))?;
    match &failure.outcome {
        Some(outcome) => print_trace(out, outcome),
        None => failure.violations.iter().try_for_each(|violation| writeln!(out, "\nVIOLATION {violation}")),
    }
}

fn trace(
    out: &mut impl Write,
    arguments: &SimArgs,
    scenario: &'static Scenario,
    options: &SwarmOptions,
) -> io::Result<bool> {
    let mut passed = true;
    for seed in arguments.seeds.clone() {
        let outcome = match scenario.world(seed, &options.overrides) {
            World::Views(_) => run_with(seed, scenario, &options.overrides, true),
            World::Fixed(_) => run_checked(seed, scenario, options),
        };
        passed &= outcome.violations.is_empty();
        if arguments.json {
            outcome.history.write(out)?;
        } else {
            print_trace(out, &outcome)?;
        }
    }
    Ok(passed)
}

fn print_trace(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    writeln!(out, "seed {} of {}: {}", outcome.seed, outcome.scenario, outcome.world)?;
    let mut notes = outcome.notes.iter().peekable();
    for (at, event) in outcome.history.events.iter().enumerate() {
        while let Some((_, note)) = notes.next_if(|(before, _)| *before <= at) {
            writeln!(out, "           {note}")?;
        }
        writeln!(out, "    {at:>6} {event}")?;
    }
    notes.try_for_each(|(_, note)| writeln!(out, "           {note}"))?;
    writeln!(out, "digest {:016x}", outcome.digest)?;
    outcome.violations.iter().try_for_each(|violation| writeln!(out, "\nVIOLATION {violation}"))
}

fn print_json(out: &mut impl Write, report: &SwarmReport) -> io::Result<()> {
    let object = json!({
        "scenario": report.scenario,
        "seeds": {"from": report.seeds.start, "to": report.seeds.end, "run": report.seeds_run},
        "passed": report.passed(),
        "failures": report.failures,
        "floors_not_judged": report.no_floors,
        "below_floor": report.below_floor,
        "counters": report.counters,
        "seconds": report.seconds,
    });
    writeln!(out, "{object}")
}

fn print_table(out: &mut impl Write, report: &SwarmReport) -> io::Result<()> {
    let verdict = match (report.failures.is_empty(), report.below_floor.is_empty()) {
        (true, true) => "all as promised",
        (true, false) => "no violation, but too little has happened",
        (false, _) => "VIOLATED",
    };
    let counters = &report.counters;
    let seconds = report.seconds.max(1e-9);
    writeln!(
        out,
        "{}: {} seeds in {:.1} s ({:.0} per second), {:.1} simulated seconds ({:.1} per second): {verdict}",
        report.scenario,
        report.seeds_run,
        report.seconds,
        report.seeds_run as f64 / seconds,
        counters.work.microseconds as f64 / 1e6,
        counters.work.microseconds as f64 / 1e6 / seconds,
    )?;
    columns(out, "faults", counters.faults.list().map(|(name, count)| (name.to_string(), count)))?;
    columns(out, "work", counters.work.list().map(|(name, count)| (name.to_string(), count)))?;
    columns(out, "endpoints", counters.endpoint.iter().map(|(name, count)| (name.clone(), *count)))?;
    if let Some(why) = &report.no_floors {
        writeln!(out, "what must have happened at least is not judged: {why}")?;
    }
    for line in &report.below_floor {
        writeln!(out, "BELOW ITS FLOOR {line}")?;
    }
    for failure in &report.failures {
        writeln!(out, "\nSEED {} FAILED; to see it: {}", failure.seed, failure.replay)?;
        failure.violations.iter().try_for_each(|violation| writeln!(out, "{violation}"))?;
    }
    Ok(())
}

fn columns(out: &mut impl Write, title: &str, counts: impl Iterator<Item = (String, u64)>) -> io::Result<()> {
    writeln!(out, "{title}")?;
    let cells: Vec<String> =
        counts.map(|(name, count)| format!("  {:<34}{count:>12}", name.replace('_', " "))).collect();
    cells.chunks(2).try_for_each(|row| writeln!(out, "{}", row.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_or_one() {
        assert_eq!(parse_seeds("3..9"), Ok(3..9));
        assert_eq!(parse_seeds("7"), Ok(7..8));
        for wrong in ["9..3", "3..3", "a..b", "", "1..", "18446744073709551615"] {
            assert!(parse_seeds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_stack_on_which_the_workload_cannot_run_is_refused_with_what_it_lacks() {
        assert_eq!(parse_stack(FIXED_STACK), Ok(FIXED_STACK.to_string()));
        assert!(parse_stack("LOCAL:NAK:CHKSUM:COM").unwrap_err().contains("sends reliable; add UNICAST"));
        assert!(parse_stack("UNICAST:CHKSUM:COM").unwrap_err().contains("casts reliable; add NAK"));
        assert!(parse_stack("UNICAST:LOCAL:NAK:COM").unwrap_err().contains("CHKSUM"));
        assert!(parse_stack("UNICAST:LOCAL:NAKK:COM").unwrap_err().contains("NAKK"));
    }

    #[test]
    fn an_unknown_scenario_is_answered_with_those_there_are() {
        assert!(parse_scenario("storm").unwrap_err().contains("swarm, views, order, calm"));
        assert_eq!(parse_scenario("loss"), Ok("loss"));
        assert!(parse_members("0").is_err() && parse_members("99").is_err());
    }
}
