//! `fuzz list`, `fuzz run [--target NAME] [--seconds N] [--seed N]`, `fuzz replay TARGET FILE|hex:BYTES`,
//! `fuzz seeds TARGET FOLDER`.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs};

use wadjet_fuzz::campaign::{self, Effort};
use wadjet_fuzz::{Target, target, targets};

const USAGE: &str = "usage: fuzz list | run [--target NAME] [--seconds N] [--seed N] \
    | replay TARGET FILE|hex:BYTES | seeds TARGET FOLDER";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["list"] => {
            Ok(targets::ALL.iter().map(|target| format!("{:16} {}", target.name, target.what)).collect())
        }
        ["run", options @ ..] => run(options),
        ["replay", name, input] => replay(name, input),
        ["seeds", name, folder] => write_seeds(name, Path::new(folder)),
        _ => Err(USAGE.into()),
    };
    let (lines, code) = match outcome {
        Ok(lines) => (lines, ExitCode::SUCCESS),
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

type Lines = Result<Vec<String>, String>;

fn run(options: &[&str]) -> Lines {
    let mut chosen = None;
    let mut effort = Effort {
        seed: 1,
        mutations: u64::MAX,
        exhaustive_per_seed: usize::MAX,
        time: Some(Duration::from_secs(10)),
    };
    let mut rest = options;
    while let [option, value, tail @ ..] = rest {
        match *option {
            "--target" => chosen = Some(named(value)?),
            "--seconds" => effort.time = Some(Duration::from_secs(number(value)?)),
            "--seed" => effort.seed = number(value)?,
            _ => return Err(USAGE.into()),
        }
        rest = tail;
    }
    if !rest.is_empty() {
        return Err(USAGE.into());
    }
    let all: Vec<&Target> = chosen.map_or_else(|| targets::ALL.iter().collect(), |one| vec![one]);
    all.into_iter()
        .map(|target| {
            let tried = campaign::run(target, &[], effort).map_err(|failure| failure.to_string())?;
            Ok(format!("{:16} {tried} inputs, seed {}", target.name, effort.seed))
        })
        .collect()
}

fn replay(name: &str, input: &str) -> Lines {
    let target = named(name)?;
    let bytes = match input.strip_prefix("hex:") {
        Some(digits) => bytes(digits)?,
        None => fs::read(input).map_err(|error| format!("{input}: {error}"))?,
    };
    campaign::once(target, &bytes).map_err(|failure| failure.to_string())?;
    Ok(vec![format!("{name}: {} bytes, the property holds", bytes.len())])
}

fn write_seeds(name: &str, folder: &Path) -> Lines {
    let target = named(name)?;
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let seeds = (target.seeds)();
    for (at, seed) in seeds.iter().enumerate() {
        let path = folder.join(format!("seed-{at:03}"));
        fs::write(&path, seed).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(vec![format!("{name}: {} seeds", seeds.len())])
}

fn named(name: &str) -> Result<&'static Target, String> {
    target(name).ok_or_else(|| format!("there is no target `{name}`; `fuzz list` names them"))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number"))
}

fn bytes(digits: &str) -> Result<Vec<u8>, String> {
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return Err("hex: needs an even number of digits".into());
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| {
            u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| format!("`{digits}` is not hexadecimal"))
        })
        .collect()
}
