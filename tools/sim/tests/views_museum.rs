//! Membership that is wrong on purpose, in worlds of the simulator: each variant must be caught.

#![allow(clippy::print_stdout)]

use wadjet_sim::{Overrides, Scenario, run_views};

/// Each is caught within so many seeds.
const SEEDS: u64 = 2000;

/// Variants, with what is wrong said by their names (`src/layers/mbrship/broken.rs`), and a seed that caught each last.
const CAUGHT: &[(&str, u64)] = &[
    ("cuts-at-least", 56),
    ("cuts-at-own", 56),
    ("cuts-live-at-own", 263),
    ("nobody-forwards", 36),
    ("accepts-the-failed", 432),
    ("keeps-old-reports", 76),
    ("installs-unconfirmed", 3),
    ("lets-in-twice", 1401),
    ("leaves-own-copies", 144),
    ("leaves-sends", 408),
    ("casts-on", 7),
    ("confirms-unread", 134),
    ("never-begins-anew", 199),
    ("ignores-guest-ids", 7),
    ("keeps-the-failed", 0),
    ("loses-the-last", 3),
    ("tells-nobody", 3),
    ("keeps-the-hosts-view", 5),
    ("never-looks", 1),
    ("never-answers", 5),
    ("leaves-out-the-suspected", 359),
    ("decides-alone", 36),
    ("uses-ids-again", 389),
    ("promises-once", 76),
    ("shares-ids", 0),
    ("leaves-untold", 8),
];

/// The property that a seed shows to be broken, if any.
fn caught(variant: &str, seed: u64) -> Option<String> {
    let scenario = Scenario::named("views").unwrap();
    let mut setup = scenario.views(seed, &Overrides::default());
    setup.stack = setup.stack.replacen("MBRSHIP(", &format!("MBRSHIP(broken={variant},"), 1);
    // A group that never comes together is not watched for long; the sound one comes together in this time here.
    setup.patience_ns /= 8;
    let outcome = run_views(seed, "views", setup, false);
    outcome.violations.first().map(|violation| violation.property.clone())
}

/// A seed that catches a variant, of those remembered and the first ones; whatever changes the protocol moves them.
fn hunt(remembered: u64, caught: impl Fn(u64) -> bool) -> Option<u64> {
    std::iter::once(remembered).chain(0..SEEDS).find(|seed| caught(*seed))
}

#[test]
fn every_broken_membership_is_caught_where_the_sound_one_is_not() {
    let mut survivors = Vec::new();
    for (variant, remembered) in CAUGHT {
        match hunt(*remembered, |seed| caught(variant, seed).is_some()) {
            Some(seed) => {
                println!("(\"{variant}\", {seed}),");
                assert_eq!(caught("no", seed), None, "sound, seed {seed}");
            }
            None => survivors.push(variant),
        }
    }
    assert!(survivors.is_empty(), "not caught in {SEEDS} seeds: {survivors:?}");
}
