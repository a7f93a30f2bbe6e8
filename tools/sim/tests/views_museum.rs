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
    ("installs-unconfirmed", 2),
    ("lets-in-twice", 1401),
    ("leaves-own-copies", 144),
    ("leaves-sends", 408),
    ("casts-on", 7),
    ("confirms-unread", 36),
    ("never-begins-anew", 754),
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

/// Layers that are drawn into some worlds only, and what is wrong with them (`src/layers/xfer/broken.rs`).
const OF_SOME: &[(&str, &str, u64)] = &[
    ("XFER", "late-snapshot", 3),
    ("XFER", "keeps-hold", 99),
    ("XFER", "has-too-early", 1),
    ("XFER", "drops-sends", 99),
    ("XFER", "forgets-hold", 99),
    ("FRAG", "keeps-parts", 117),
];

/// The property that a seed shows to be broken, if any.
fn caught(variant: &str, seed: u64) -> Option<String> {
    // Worlds without FRAG and XFER: what is wrong with the membership is to be seen without them.
    let plain = Overrides { without: vec![16, 17], ..Overrides::default() };
    caught_in(&plain, "MBRSHIP", variant, seed)
}

fn caught_in(overrides: &Overrides, layer: &str, variant: &str, seed: u64) -> Option<String> {
    let scenario = Scenario::named("views").unwrap();
    let mut setup = scenario.views(seed, overrides);
    let broken = |named: &str| match named.strip_prefix(layer).map(|rest| rest.trim_matches(['(', ')'])) {
        None => named.to_owned(),
        Some("") => format!("{layer}(broken={variant})"),
        Some(rest) => format!("{layer}(broken={variant},{rest})"),
    };
    let stack: Vec<String> = setup.stack.split(':').map(broken).collect();
    if !setup.stack.split(':').any(|named| named.starts_with(layer)) {
        return None;
    }
    setup.stack = stack.join(":");
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

#[test]
fn broken_transfers_and_fragments_are_caught_where_sound_ones_are_not() {
    let mut survivors = Vec::new();
    for (layer, variant, remembered) in OF_SOME {
        let caught = |variant: &str, seed: u64| caught_in(&Overrides::default(), layer, variant, seed);
        match hunt(*remembered, |seed| caught(variant, seed).is_some()) {
            Some(seed) => {
                println!("(\"{layer}\", \"{variant}\", {seed}),");
                assert_eq!(caught("no", seed), None, "sound, seed {seed}");
            }
            None => survivors.push(variant),
        }
    }
    assert!(survivors.is_empty(), "not caught in {SEEDS} seeds: {survivors:?}");
}
