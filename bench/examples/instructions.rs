//! Instructions per message, counted by callgrind: the figure that does not depend on who else uses the machine.
//!
//! ```text
//! cargo run --release -p wadjet-bench --example instructions              compares with bench/instructions.json
//! cargo run --release -p wadjet-bench --example instructions -- --record  writes it
//! ```
//!
//! Needs `valgrind`. Each scenario runs in a process of its own under `valgrind --tool=callgrind`, which counts only
//! inside [`measured_operations`]. Exit code 1 if a count grew by more than the tolerance, or one is more of another than
//! [`RATIOS`] allow.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use wadjet_bench::memory_cost::{Operation, scenarios};
use wadjet_bench::performance::Instructions;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", name] => run(name).map(|()| true),
        ["--record"] => record(),
        [] => compare(),
        _ => Err("arguments: none to compare, --record to write the baseline".into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::from(2)
        }
    }
}

/// Under valgrind: one scenario, warmed up outside of what is counted.
fn run(name: &str) -> Result<(), Box<dyn Error>> {
    let all = scenarios();
    let scenario = all.iter().find(|scenario| scenario.name == name).ok_or("no such scenario")?;
    let mut operation = scenario.make()?;
    (0..WARM_UP / operation.messages()).for_each(|_| operation.once());
    measured_operations(&mut *operation);
    Ok(())
}

/// Callgrind counts while this function runs.
#[inline(never)]
fn measured_operations(operation: &mut dyn Operation) {
    (0..MESSAGES / operation.messages()).for_each(|_| operation.once());
}

fn record() -> Result<bool, Box<dyn Error>> {
    let mut baseline = Instructions { tolerance_percent: TOLERANCE_PERCENT, ..Instructions::default() };
    for scenario in scenarios() {
        let count = count(&scenario.name)?;
        println!("{:<14} {count:>9.1}", scenario.name);
        baseline.instructions.insert(scenario.name, count);
    }
    std::fs::write(baseline_file(), serde_json::to_string_pretty(&baseline)? + "\n")?;
    Ok(true)
}

fn compare() -> Result<bool, Box<dyn Error>> {
    let baseline: Instructions = serde_json::from_str(&std::fs::read_to_string(baseline_file())?)?;
    let mut good = true;
    let mut counts = BTreeMap::new();
    println!("{:<14} {:>9} {:>9} {:>8}", "scenario", "recorded", "now", "change");
    for scenario in scenarios() {
        let now = count(&scenario.name)?;
        counts.insert(scenario.name.clone(), now);
        let Some(before) = baseline.instructions.get(&scenario.name) else {
            println!("{:<14} {:>9} {now:>9.1}          not recorded; run with --record", scenario.name, "");
            good = false;
            continue;
        };
        let change = (now / before - 1.0) * 100.0;
        let verdict = if change > baseline.tolerance_percent { "  MORE" } else { "" };
        good &= verdict.is_empty();
        println!("{:<14} {before:>9.1} {now:>9.1} {change:>+7.1}%{verdict}", scenario.name);
    }
    if !good {
        println!(
            "more than {} % above the record: find out why, or record it with a reason in the commit message",
            baseline.tolerance_percent
        );
    }
    for (name, of, most) in RATIOS {
        let ratio = counts[*name] / counts[*of];
        let verdict = if ratio > *most { "  MORE" } else { "" };
        good &= verdict.is_empty();
        println!("{name} is {ratio:.3} of {of}, at most {most:.2}{verdict}");
    }
    Ok(good)
}

/// Instructions per message of a scenario.
fn count(name: &str) -> Result<f64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg("--toggle-collect=*measured_operations*")
        .arg(std::env::current_exe()?)
        .args(["run", name])
        .output()
        .map_err(|error| format!("cannot run valgrind ({error}); install it: apt-get install valgrind"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text
        .lines()
        .find_map(|line| line.split("Collected :").nth(1))
        .and_then(|number| number.trim().parse::<f64>().ok())
        .filter(|_| output.status.success())
        .ok_or_else(|| format!("valgrind failed on {name}:\n{text}"))?;
    Ok(collected / f64::from(MESSAGES))
}

fn baseline_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

/// Messages; packs of 256 go into both.
const WARM_UP: u32 = 4096;
const MESSAGES: u32 = 2048;
const TOLERANCE_PERCENT: f64 = 3.0;

/// What may cost how much of what: many layers of few, the full stack of one with a fixed view, and total order with one sender of FIFO. Where each message has an
/// iteration to itself the two layers that order are not spread over several: six percent of this, less of a round trip.
const RATIOS: &[(&str, &str, f64)] = &[
    ("burst-20", "burst-5", 1.10),
    ("fast-20", "fast-5", 1.10),
    ("burst-20-effects", "burst-5", 1.10),
    ("fast-20-effects", "fast-5", 1.10),
    ("burst-live", "burst-8", 1.03),
    ("fast-live", "fast-8", 1.03),
    ("packed-live", "packed-8", 1.03),
    ("burst-total", "burst-8", 1.05),
    ("packed-total", "packed-8", 1.05),
    ("fast-total", "fast-8", 1.08),
    ("fast-sequencer", "fast-8", 1.08),
];
