//! The contract in `docs/performance.md`, and the tables behind it, made from the recorded instruction counts and the reports of
//! `wadjet bench --json`, with and without `--failure`. What is written around the contract stays.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::{self, Failure, Measured};
use crate::report::Report;
use crate::table;

/// Where the reports are, and which document shows them.
#[derive(Args, Clone, Debug)]
pub struct PerformanceOptions {
    /// Where the reports are: what `--json` of `wadjet bench` wrote
    #[arg(value_name = "DIRECTORY", default_value = "docs/performance")]
    reports: PathBuf,
    /// Where the reports of failures are: what `--json` of `wadjet bench --failure` wrote
    #[arg(long, value_name = "DIRECTORY", default_value = "docs/reliability")]
    failures: PathBuf,
    /// The recorded counts: what the example `instructions --record` wrote
    #[arg(long, value_name = "FILE", default_value = "bench/instructions.json")]
    instructions: PathBuf,
    /// The document; the contract, which stands in it between marks, is made anew
    #[arg(long, value_name = "FILE", default_value = "docs/performance.md")]
    write: PathBuf,
    /// The file of all tables, which is made anew as a whole
    #[arg(long, value_name = "FILE", default_value = "docs/performance/tables.md")]
    tables: PathBuf,
}

/// Before and behind the rows of the contract in the document.
pub const MARKS: [&str; 2] =
    ["<!-- contract: made by `wadjet performance` -->\n", "<!-- end of contract -->\n"];

/// What recorded counts and reports come to.
#[derive(Clone, Debug)]
pub struct Made {
    /// The rows of the contract.
    pub contract: String,
    /// The file of all tables.
    pub tables: String,
}

/// Makes the contract of the document and the file of tables anew.
///
/// # Errors
/// If a report cannot be read, or the document not be read or written, or it has no place for the contract.
pub fn performance(options: &PerformanceOptions) -> Result<bool, Box<dyn Error>> {
    let made = made(&options.instructions, &options.reports, &options.failures)?;
    let named = |file: &Path, error: std::io::Error| format!("{}: {error}", file.display());
    let write = |file: &Path, text: &str| {
        println!("{}: {} lines", file.display(), text.lines().count());
        std::fs::write(file, text).map_err(|error| named(file, error))
    };
    let document = std::fs::read_to_string(&options.write).map_err(|error| named(&options.write, error))?;
    write(&options.write, &between(&document, MARKS, &made.contract)?)?;
    write(&options.tables, &made.tables)?;
    Ok(true)
}

/// The contract and the tables as these counts and reports make them.
///
/// # Errors
/// If a file cannot be read, or is none.
pub fn made(instructions: &Path, directory: &Path, failures: &Path) -> Result<Made, Box<dyn Error>> {
    let named = |error: &dyn Error| format!("{}: {error}", instructions.display());
    let counts = std::fs::read_to_string(instructions).map_err(|error| named(&error))?;
    let counts: Instructions = serde_json::from_str(&counts).map_err(|error| named(&error))?;
    let mut all = Vec::new();
    for file in reports(directory)? {
        let report: Report = serde_json::from_str(&std::fs::read_to_string(&file)?)
            .map_err(|error| format!("{}: no report of `wadjet bench`: {error}", file.display()))?;
        all.push(report);
    }
    let failures = failures_in(failures)?;
    let measured = Measured { instructions: &counts, reports: &all, failures: &failures };
    Ok(Made { contract: contract::text(measured), tables: tables(&counts, &all) })
}

/// The document with `text` in place of what stood between two marks.
///
/// # Errors
/// If the marks are missing.
pub fn between(document: &str, marks: [&str; 2], text: &str) -> Result<String, Box<dyn Error>> {
    let [begin, end] = marks;
    let places =
        document.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, behind) = places.ok_or_else(|| format!("no place in the document: {begin}...\n{end}"))?;
    Ok(format!("{before}{begin}{text}{end}{behind}"))
}

/// The reports in a directory, which end in `.json`, in the order of their names.
///
/// # Errors
/// If the directory cannot be read.
pub fn reports(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What reports of failures say, among others of what else is done to a group.
fn failures_in(directory: &Path) -> Result<Vec<Failure>, Box<dyn Error>> {
    #[derive(Deserialize)]
    struct Runs {
        failures: Vec<Failure>,
    }
    let mut all = Vec::new();
    for file in reports(directory)? {
        let report: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)
            .map_err(|error| format!("{}: no report: {error}", file.display()))?;
        // A simulation's seeds fail, too, and on no machine.
        if report.get("failures").is_some() && report.get("machine").is_some() {
            let runs: Runs = serde_json::from_value(report).map_err(|error| {
                format!("{}: no report of `wadjet bench --failure`: {error}", file.display())
            })?;
            all.extend(runs.failures);
        }
    }
    Ok(all)
}

/// The recorded instruction counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instructions {
    /// What a count may grow by, in percent.
    pub tolerance_percent: f64,
    /// Instructions per message, by scenario: how messages come, and through what (`burst-8-crc`).
    pub instructions: BTreeMap<String, f64>,
}

impl Instructions {
    /// One row for each stack, one column for each way in which messages come.
    fn table(&self) -> String {
        let scenarios = || self.instructions.keys().map(|name| name.split_once('-').unwrap_or((name, "")));
        let columns: BTreeSet<&str> = scenarios().map(|(column, _)| column).collect();
        let mut rows: Vec<&str> =
            scenarios().map(|(_, row)| row).collect::<BTreeSet<_>>().into_iter().collect();
        let layers = |row: &str| row.split('-').next()?.parse::<u32>().ok();
        // Those that say how many layers there are come first, the fewest before.
        rows.sort_by_key(|row| layers(row).unwrap_or(u32::MAX));
        let mut lines =
            vec![columns.iter().fold(" ".repeat(14), |line, column| line + &format!("{column:>12}"))];
        for row in rows {
            let count = |column: &str| {
                let name = if row.is_empty() { column.to_owned() } else { format!("{column}-{row}") };
                self.instructions.get(&name).map_or(String::new(), |count| format!("{count:.0}"))
            };
            let line = columns
                .iter()
                .fold(format!("{row:14}"), |line, column| line + &format!("{:>12}", count(column)));
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }
}

/// The recorded counts, then a section for each report.
fn tables(instructions: &Instructions, reports: &[Report]) -> String {
    let mut text = format!("{HEAD}\n```text\n{}\n```\n", instructions.table());
    for report in reports {
        text += &format!("\n`{}`\n\n```text\n{}```\n", report.command, table::text(report));
    }
    text
}

/// What stands before the tables.
const HEAD: &str = "\
# Performance: all tables

Made by `wadjet performance` from the recorded counts and the reports beside this file, which `wadjet bench --json` wrote; nothing in it
was typed. `bench/performance.sh` measures them anew. A table that says of most of its rows that others disturbed them shows
the scheduler's times, and that the command works. What it all means is in [performance.md](../performance.md).

`cargo run --release -p wadjet-bench --example instructions`: instructions per message; 5 to 20 are the layers of the stack, `live` the full
virtually synchronous one
";
