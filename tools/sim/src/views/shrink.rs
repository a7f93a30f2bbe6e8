//! Making a failing world small: takes out processes, faults and workload while it still fails in the same way.

use crate::outcome::Outcome;
use crate::scenario::{Overrides, Scenario};
use crate::views::{Fate, run_views};

/// What is left of a failing world.
#[derive(Debug)]
pub struct Shrunk {
    /// The parts that were taken out, by number.
    pub without: Vec<usize>,
    /// The run without them.
    pub outcome: Outcome,
}

/// Runs tried, at most.
const RUNS_MAX: u32 = 400;
/// Driver iterations in all of them together, at most.
const ITERATIONS_MAX: u64 = 40_000_000;

/// Takes out of the world of `seed`, which violates `property`, what is not needed for that.
pub fn shrink(
    seed: u64,
    scenario: &'static Scenario,
    overrides: &Overrides,
    property: &str,
) -> Option<Shrunk> {
    let whole = scenario.views(seed, overrides);
    let fails = |without: &[usize]| {
        let setup = whole.without(without);
        // Where nobody is left, nobody becomes one view.
        let core = setup.fates.contains(&Fate::Core);
        let outcome = run_views(seed, scenario.name, setup, false);
        let same = core && outcome.violations.iter().any(|violation| violation.property == property);
        (same, outcome)
    };
    let (mut without, mut runs, mut iterations) = (overrides.without.clone(), 1, 0);
    let (same, mut best) = fails(&without);
    if !same {
        return None;
    }
    let mut left: Vec<usize> = (0..whole.parts()).filter(|part| !without.contains(part)).collect();
    let mut size = left.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut smaller = false;
        while at < left.len() && runs < RUNS_MAX && iterations < ITERATIONS_MAX {
            let chunk = &left[at..left.len().min(at + size)];
            let mut tried = without.clone();
            tried.extend(chunk);
            let (same, outcome) = fails(&tried);
            runs += 1;
            iterations += outcome.counters.work.iterations;
            if same {
                (without, best, smaller) = (tried, outcome, true);
                left.drain(at..left.len().min(at + size));
            } else {
                at += size;
            }
        }
        if size == 1 && !smaller || runs >= RUNS_MAX || iterations >= ITERATIONS_MAX {
            break;
        }
        size = (size / 2).max(1);
    }
    without.sort_unstable();
    Some(Shrunk { without, outcome: best })
}
