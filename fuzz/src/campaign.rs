//! Runs a target on many inputs and says which one broke it.

use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};
use std::{fmt, fs, io, path::Path};

use crate::Target;
use crate::mutate::{Mutator, exhaustive};

/// How long to try.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// What the mutations depend on.
    pub seed: u64,
    /// Inputs to try by mutation.
    pub mutations: u64,
    /// Inputs to try by truncating and flipping bits, for each seed of the target.
    pub exhaustive_per_seed: usize,
    /// Stop mutating after this, if given. Campaigns bounded by time only are not repeatable; those in tests have none.
    pub time: Option<Duration>,
}

/// A target panicked: one of its assertions, or one of the code under test, does not hold.
#[derive(Debug)]
pub struct Failure {
    /// The target.
    pub target: &'static str,
    /// The input.
    pub input: Vec<u8>,
    /// What the panic said.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "target {}: {}", self.target, self.message)?;
        write!(formatter, "replay: cargo run -p wadjet-fuzz --bin fuzz -- replay {} hex:", self.target)?;
        self.input.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Runs `target` on its seeds, on `regressions`, on their truncations and bit flips, and on mutations; returns how
/// many inputs were tried.
///
/// # Errors
/// The first input that made it panic.
pub fn run(target: &Target, regressions: &[Vec<u8>], effort: Effort) -> Result<u64, Failure> {
    let mut corpus = (target.seeds)();
    corpus.extend_from_slice(regressions);
    let mut tried = 0;
    let mut attempt = |input: &[u8]| {
        tried += 1;
        once(target, input)
    };
    for input in &corpus {
        attempt(input)?;
    }
    for input in corpus.iter().flat_map(|seed| exhaustive(seed, effort.exhaustive_per_seed)) {
        attempt(&input)?;
    }
    let started = Instant::now();
    let mut mutator = Mutator::new(effort.seed, &corpus);
    for _ in 0..effort.mutations {
        if effort.time.is_some_and(|time| started.elapsed() >= time) {
            break;
        }
        attempt(&mutator.next_input())?;
    }
    Ok(tried)
}

/// Runs `target` on one input.
///
/// # Errors
/// If it panicked.
pub fn once(target: &Target, input: &[u8]) -> Result<(), Failure> {
    panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let message = text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Failure { target: target.name, input: input.to_vec(), message: message.unwrap_or_default() }
    })
}

/// The inputs in `folder`, sorted by name; none if there is no such folder.
///
/// # Errors
/// If a file cannot be read.
pub fn inputs(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths: Vec<_> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.sort();
    paths.iter().map(fs::read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAGILE: Target = Target {
        name: "fragile",
        what: "breaks when the length in front is larger than what follows",
        weight: 1,
        seeds: || vec![vec![3, 1, 2, 3]],
        run: |input| {
            if let [length, rest @ ..] = input {
                assert!(usize::from(*length) <= rest.len() || rest.len() != 3, "overrun");
            }
        },
    };

    const EFFORT: Effort = Effort { seed: 1, mutations: 1_000, exhaustive_per_seed: 0, time: None };

    #[test]
    fn a_broken_decoder_is_caught_and_its_input_replays() {
        let failure = run(&FRAGILE, &[], EFFORT).unwrap_err();
        assert!(failure.message.contains("overrun"));
        assert!(once(&FRAGILE, &failure.input).is_err());
        assert!(failure.to_string().contains(&format!("hex:{:02x}", failure.input[0])));
    }

    #[test]
    fn a_sound_decoder_is_tried_as_often_as_asked() {
        let sound = Target { run: |_| {}, ..FRAGILE };
        let effort = Effort { exhaustive_per_seed: 100, ..EFFORT };
        assert_eq!(run(&sound, &[vec![9]], effort).unwrap(), 2 + 36 + 9 + 1_000);
    }
}
