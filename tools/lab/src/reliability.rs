//! `docs/reliability.md`, made from the reports of `wadjet chaos`, `wadjet bench --failure` and `wadjet sim`.

use std::error::Error;
use std::path::Path;

use serde_json::Value;

use crate::chaos::{self, ChaosReport, ChaosRun};
use crate::failure::{self, FailureReport, FailureRun};

/// The document of all reports in a directory, in the order of their names.
///
/// # Errors
/// If a report cannot be read, or is none.
pub fn document(directory: &Path) -> Result<String, Box<dyn Error>> {
    let mut all = Reports::default();
    for file in wadjet_bench::performance::reports(directory)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let report = std::fs::read_to_string(&file)?;
        all.take(&report).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(all.text())
}

#[derive(Default)]
struct Reports {
    failures: Vec<FailureRun>,
    chaos: Vec<ChaosRun>,
    seeds: String,
    commands: String,
}

impl Reports {
    fn take(&mut self, report: &str) -> Result<(), Box<dyn Error>> {
        let value: Value = serde_json::from_str(report)?;
        let (command, machine) = if value.get("chaos").is_some() {
            let ChaosReport { machine, command, chaos } = serde_json::from_value(value)?;
            self.chaos.extend(chaos);
            (command, machine)
        } else if value.get("failures").is_some() && value.get("machine").is_some() {
            let FailureReport { machine, command, failures } = serde_json::from_value(value)?;
            self.failures.extend(failures);
            (command, machine)
        } else if value.get("scenario").is_some() {
            self.seeds += &seeds_row(&value).ok_or("a report of `wadjet sim` that lacks a figure")?;
            return Ok(());
        } else {
            return Err(
                "this is neither a report of `wadjet chaos` nor of `wadjet bench --failure` nor of `wadjet sim`".into()
            );
        };
        self.commands += &format!("- `{command}`\n  ({machine})\n");
        Ok(())
    }

    fn text(mut self) -> String {
        self.chaos.sort_by(|one, other| one.stack.cmp(&other.stack));
        let mut text = String::from(HEAD);
        let sections = [
            (FAILURES, failure::table(&self.failures)),
            (CHAOS, chaos::table(&self.chaos)),
            (SEEDS, self.seeds),
            (COMMANDS, self.commands),
        ];
        for (head, rows) in sections.iter().filter(|(_, rows)| !rows.is_empty()) {
            text += head;
            text += rows;
        }
        text
    }
}

fn seeds_row(report: &Value) -> Option<String> {
    let count = |of: &Value, what: &str| of.get(what)?.as_u64();
    let (seeds, counters) = (report.get("seeds")?, report.get("counters")?);
    let (work, faults, endpoint) =
        (counters.get("work")?, counters.get("faults")?, counters.get("endpoint")?);
    let seconds = count(work, "microseconds")? as f64 / 1e6;
    Some(format!(
        "| {} | {}..{} | {:.0} | {} | {} | {} | {} | {} |\n",
        report.get("scenario")?.as_str()?,
        count(seeds, "from")?,
        count(seeds, "to")?,
        seconds,
        count(faults, "crashes")?,
        count(endpoint, "MBRSHIP: view decided").unwrap_or(0),
        count(work, "casts")?,
        count(work, "casts_delivered")?,
        report.get("failures")?.as_array()?.len(),
    ))
}

const HEAD: &str = "\
# Reliability

Made by `wadjet reliability` from the reports beside it; what stands here was measured, and nothing was typed. A violation
is a history that lacks a property the oracle checks.
";
const FAILURES: &str = "
## What a failure costs

From before the fault is made to the installation of the next view at each survivor, and to the first cast of another that is
delivered in it.

";
const CHAOS: &str = "
## Chaos with real processes

";
const SEEDS: &str = "
## Simulated worlds

A seed gives the same run on every machine. How fast they are simulated is in [simulator.md](simulator.md#how-fast-it-is).

| scenario | seeds | simulated s | crashes | views decided | casts | deliveries | violations |
|---|---|---|---|---|---|---|---|
";
const COMMANDS: &str = "
## How it was measured

";
