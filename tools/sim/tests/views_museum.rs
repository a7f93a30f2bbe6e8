//! Membership that is wrong on purpose, in swarms of worlds: each variant must be caught.

use wadjet_sim::{Overrides, Scenario, run_views};

/// The variants, with what is wrong said by their names (`src/layers/mbrship/broken.rs`).
const VARIANTS: &[&str] = &[
    "cuts-at-least",
    "cuts-at-own",
    "nobody-forwards",
    "accepts-the-failed",
    "reports-before-early",
    "mixes-failed-sets",
    "decides-alone",
    "uses-ids-again",
    "installs-unconfirmed",
    "leaves-own-copies",
    "leaves-sends",
    "casts-on",
    "confirms-unread",
    "never-begins-anew",
    "promises-backwards",
    "forgets-counters",
    "ignores-guest-ids",
    "lets-in-twice",
    "keeps-the-failed",
    "loses-the-last",
    "tells-nobody",
    "keeps-the-hosts-view",
    "never-looks",
    "never-answers",
    "stays-excluded",
    "forgets-its-views",
];

/// Seeds in which a variant must be caught.
const SEEDS: u64 = 2_000;

/// The first seed that catches it, and by which property.
fn caught(variant: &str) -> Option<(u64, String)> {
    let scenario = Scenario::named("views").unwrap();
    (0..SEEDS).find_map(|seed| {
        let mut setup = scenario.views(seed, &Overrides::default());
        setup.stack = setup.stack.replacen("MBRSHIP(", &format!("MBRSHIP(broken={variant},"), 1);
        let outcome = run_views(seed, "views", setup, false);
        Some((seed, outcome.violations.first()?.property.clone()))
    })
}

#[test]
#[expect(clippy::print_stdout, reason = "who is caught by what is worth knowing")]
fn every_broken_membership_is_caught() {
    let mut survivors = Vec::new();
    for variant in VARIANTS {
        match caught(variant) {
            Some((seed, property)) => println!("{variant}: seed {seed}, {property}"),
            None => survivors.push(*variant),
        }
    }
    assert_eq!(survivors, [""; 0], "not caught in {SEEDS} seeds");
}
