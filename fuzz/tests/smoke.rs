//! Every fuzz target, for a bounded number of inputs that depend on nothing but the seed below.

use std::env;
use std::path::Path;

use wadjet_fuzz::campaign::{self, Effort};
use wadjet_fuzz::targets;

const MUTATIONS: u64 = 40_000;
const EXHAUSTIVE_PER_SEED: u64 = 4_000;

#[test]
fn every_target_survives_truncated_flipped_and_mutated_input() {
    let mutations =
        env::var("WADJET_FUZZ_MUTATIONS").map_or(MUTATIONS, |text| text.parse().expect("a number"));
    let regressions = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    for target in targets::ALL {
        let mutations = mutations / target.weight;
        let exhaustive_per_seed = (EXHAUSTIVE_PER_SEED / target.weight) as usize;
        let effort = Effort { seed: 0x0057_4144, mutations, exhaustive_per_seed, time: None };
        let old = campaign::inputs(&regressions.join(target.name)).expect("readable regressions");
        let tried = campaign::run(target, &old, effort).unwrap_or_else(|failure| panic!("{failure}"));
        assert!(tried >= mutations, "{} was tried only {tried} times", target.name);
    }
}
