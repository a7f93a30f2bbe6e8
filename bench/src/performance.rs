//! The tables of `docs/performance.md`, made from the reports of `wadjet bench --json`. What is written around them stays.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::report::Report;
use crate::table;

/// Where the reports are, and which document shows them.
#[derive(Args, Clone, Debug)]
pub struct PerformanceOptions {
    /// Where the reports are: what `--json` of `wadjet bench` wrote
    #[arg(value_name = "DIRECTORY", default_value = "docs/performance")]
    reports: PathBuf,
    /// The document; what stands in it between the two marks is made anew
    #[arg(long, value_name = "FILE", default_value = "docs/performance.md")]
    write: PathBuf,
}

/// Before and behind the tables in the document.
pub const MARKS: [&str; 2] = ["<!-- tables: made by `wadjet performance` -->\n", "<!-- end of tables -->\n"];

/// Makes the tables of the document anew.
///
/// # Errors
/// If a report cannot be read, or the document not be read or written, or it has no place for tables.
pub fn performance(options: &PerformanceOptions) -> Result<bool, Box<dyn Error>> {
    let named = |error: std::io::Error| format!("{}: {error}", options.write.display());
    let document = std::fs::read_to_string(&options.write).map_err(named)?;
    let tables = tables(&options.reports)?;
    std::fs::write(&options.write, with_tables(&document, &tables)?).map_err(named)?;
    println!("{}: {} lines of tables", options.write.display(), tables.lines().count());
    Ok(true)
}

/// The document with these tables in place of those it had.
///
/// # Errors
/// If the marks are missing.
pub fn with_tables(document: &str, tables: &str) -> Result<String, Box<dyn Error>> {
    let [begin, end] = MARKS;
    let places =
        document.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, behind) = places.ok_or_else(|| format!("no place for tables: {begin}...\n{end}"))?;
    Ok(format!("{before}{begin}{tables}{end}{behind}"))
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

/// A section for each report in a directory, in the order of their names.
///
/// # Errors
/// If a report cannot be read, or is none.
pub fn tables(directory: &Path) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    for file in reports(directory)? {
        let report: Report = serde_json::from_str(&std::fs::read_to_string(&file)?)
            .map_err(|error| format!("{}: no report of `wadjet bench`: {error}", file.display()))?;
        text += &format!("\n`{}`\n\n```text\n{}```\n", report.command, table::text(&report));
    }
    Ok(text + "\n")
}
