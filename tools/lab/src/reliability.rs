//! `docs/reliability.md`, made from the reports of `wadjet chaos --json` and `wadjet bench --failure .. --json`.

use std::error::Error;
use std::path::Path;

use serde_json::Value;

use crate::chaos::{self, ChaosReport};
use crate::failure::{self, FailureReport};

/// The document of all reports in a directory, in the order of their names.
///
/// # Errors
/// If a report cannot be read, or is none.
pub fn document(directory: &Path) -> Result<String, Box<dyn Error>> {
    let mut text = String::from(HEAD);
    for file in wadjet_bench::performance::reports(directory)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let report = std::fs::read_to_string(&file)?;
        text += &section(&report).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(text)
}

fn section(report: &str) -> Result<String, Box<dyn Error>> {
    let value: Value = serde_json::from_str(report)?;
    let (title, command, machine, table) = if value.get("chaos").is_some() {
        let ChaosReport { machine, command, chaos } = serde_json::from_value(value)?;
        ("Chaos with real processes", command, machine, chaos::table(&chaos))
    } else if value.get("failures").is_some() {
        let FailureReport { machine, command, failures } = serde_json::from_value(value)?;
        ("What a failure costs", command, machine, failure::table(&failures))
    } else {
        return Err("this is neither a report of `wadjet chaos` nor of `wadjet bench --failure`".into());
    };
    Ok(format!("\n## {title}\n\n`{command}`\n\n{machine}\n\n{table}"))
}

const HEAD: &str = "\
# Reliability

Made by `wadjet reliability` from the reports beside it; what stands here was measured, and nothing was typed. Times of
a failure run from before the fault is made to the installation of the next view at each survivor, and to the first
cast of another that is delivered in it. A violation is a history that lacks a property the oracle checks.
";
