//! `wadjet-house dependencies | documents | words`: run from the root of the repository; exit status 1 on complaints.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use wadjet_house::{Complaints, dependencies, documents, words};

fn main() -> ExitCode {
    let outcome = match env::args().nth(1).as_deref() {
        Some("dependencies") => check_dependencies(),
        Some("documents") => check_documents(),
        Some("words") => check_words(),
        _ => Err("usage: wadjet-house dependencies | documents | words".into()),
    };
    let (lines, code) = match outcome {
        Ok((summary, complaints)) if complaints.is_empty() => (vec![summary], ExitCode::SUCCESS),
        Ok((_, complaints)) => (complaints, ExitCode::FAILURE),
        Err(error) => (vec![error], ExitCode::FAILURE),
    };
    let mut out = io::stdout().lock();
    for line in lines {
        if writeln!(out, "{line}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    code
}

type Outcome = Result<(String, Complaints), String>;

fn check_dependencies() -> Outcome {
    let policy = dependencies::Policy::read(&read(Path::new("deny.toml"))?)?;
    let metadata =
        output(Command::new("cargo").args(["metadata", "--format-version=1", "--locked", "--all-features"]))?;
    let metadata = dependencies::Metadata::read(&metadata)?;
    let complaints = dependencies::check(&policy, &metadata);
    Ok((format!("{} packages are as deny.toml allows", metadata.packages()), complaints))
}

fn check_documents() -> Outcome {
    let files: Vec<PathBuf> =
        tracked()?.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "md")).collect();
    let mut complaints = Vec::new();
    for path in &files {
        complaints.extend(documents::dead_links(Path::new("."), path, &read(path)?));
    }
    let hello = read(Path::new("examples/hello.rs"))?;
    complaints.extend(documents::shown(&read(Path::new("README.md"))?, "examples/hello.rs", &hello));
    Ok((format!("{} documents hang together", files.len()), complaints))
}

fn check_words() -> Outcome {
    let files = tracked()?;
    let mut complaints = Vec::new();
    for path in &files {
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if let Ok(text) = String::from_utf8(bytes) {
            complaints.extend(words::check(path, &text));
        }
    }
    Ok((format!("{} files lean on no machine", files.len()), complaints))
}

/// What git tracks, and what it would if it were added.
fn tracked() -> Result<Vec<PathBuf>, String> {
    let list = output(Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    Ok(list.lines().map(PathBuf::from).filter(|path| path.is_file()).collect())
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{command:?}: {error}"))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
