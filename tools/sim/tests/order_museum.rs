//! Order that is wrong on purpose, in worlds of the simulator: each variant must be caught.

#![allow(clippy::print_stdout)]

use wadjet::stack::explain::explain;
use wadjet::stack::registry::Registry;
use wadjet_sim::{Overrides, Scenario, run_views};

/// Each is caught within so many seeds.
const SEEDS: u64 = 2000;

/// Layer and variant, with what is wrong said by its name (`src/layers/misorder.rs`), and a seed that caught it last.
const CAUGHT: &[(&str, &str, u64)] = &[
    ("TOTAL", "free-for-all", 10),
    ("TOTAL", "casts-out-of-turn", 1),
    ("TOTAL", "guest-before", 3),
    ("TOTAL", "leaves-alone", 3),
    ("TOTAL", "ignores-marks", 4),
    ("TOTAL", "leftovers-as-they-came", 133),
    ("TOTAL", "drops-leftovers", 1),
    ("TOTAL", "waits-in-flush", 1),
    ("TOTAL", "asks-nobody", 1),
    ("TOTAL", "never-passes", 5),
    ("TOTAL", "never-invites", 1),
    ("TOTAL", "delivers-blanks", 1),
    ("TOTAL", "everybody-first", 1),
    ("TOTAL", "gives-twice", 1),
    ("SEQUENCER", "free-for-all", 1),
    ("SEQUENCER", "leftovers-as-they-came", 117),
    ("SEQUENCER", "drops-leftovers", 1),
    ("SEQUENCER", "delivers-blanks", 1),
    ("SEQUENCER", "never-orders", 1),
    ("SEQUENCER", "orders-twice", 1),
    ("SEQUENCER", "follows-the-first", 3),
    ("SEQUENCER", "follows-backwards", 3),
    ("SEQUENCER", "forgets-ends", 4),
    ("SEQUENCER", "two-sequencers", 1),
    ("SAFE", "excuses-the-failed", 1),
    ("SAFE", "holds-itself", 4),
    ("SAFE", "forgets-the-rest", 4),
];

/// Not caught here, and where instead.
const ELSEWHERE: &[(&str, &str)] = &[
    // The request must be lost on its way to everybody who gets the turn while somebody waits: `tests/total.rs`.
    ("TOTAL", "asks-once"),
    // Two members must fail between two casts: `tests/total.rs`.
    ("TOTAL", "keeps-the-failed"),
    ("SEQUENCER", "keeps-the-failed"),
    // Casts of one origin must fill its share of the order queue when the sequencer fails, and the simulator's members never
    // have so many on their way: `tests/total.rs`.
    ("SEQUENCER", "bound-in-flush"),
];

#[test]
fn every_variant_has_its_place() {
    let stack = "TOTAL(broken=unheard-of):FIXED:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";
    let error = explain(&Registry::standard(), stack, 2, false).unwrap_err().to_string();
    let named = |variant: &str| CAUGHT.iter().any(|(_, known, _)| *known == variant);
    let unnamed = |variant: &&str| !named(variant) && !ELSEWHERE.iter().any(|(_, known)| known == variant);
    let (_, choices) = error.rsplit_once("one of ").expect("the error says what may be given");
    let choices = choices.lines().next().unwrap_or_default();
    let variants: Vec<&str> =
        choices.split(|c: char| !c.is_alphanumeric() && c != '-').filter(|v| !v.is_empty()).collect();
    assert!(variants.len() > 25, "{error}");
    assert_eq!(
        variants.into_iter().filter(|variant| *variant != "no").filter(unnamed).collect::<Vec<_>>(),
        [""; 0]
    );
}

/// The property that a seed shows to be broken, if any.
fn caught(layer: &str, variant: &str, seed: u64) -> Option<String> {
    let scenario = Scenario::named("order").unwrap();
    let mut setup = scenario.views(seed, &Overrides::default());
    // With SAFE and EVS, so that every property applies; a flush waits for the application where the seed says so.
    let membership = setup.stack.find("MBRSHIP").unwrap();
    let broken =
        |name: &str| if name == layer { format!("{name}(broken={variant})") } else { name.to_owned() };
    let safe = if layer == "SAFE" { format!("{}:", broken("SAFE")) } else { String::new() };
    let order = broken(if layer == "SEQUENCER" { layer } else { "TOTAL" });
    setup.stack = format!("EVS:{safe}{order}:{}", &setup.stack[membership..]);
    let outcome = run_views(seed, "order", setup, false);
    outcome.violations.first().map(|violation| violation.property.clone())
}

/// A seed that catches a variant, of those remembered and the first ones; whatever changes the protocol moves them.
fn hunt(remembered: u64, caught: impl Fn(u64) -> bool) -> Option<u64> {
    std::iter::once(remembered).chain(0..SEEDS).find(|seed| caught(*seed))
}

#[test]
fn every_broken_order_is_caught_where_the_sound_one_is_not() {
    let mut survivors = Vec::new();
    for (layer, variant, remembered) in CAUGHT {
        match hunt(*remembered, |seed| caught(layer, variant, seed).is_some()) {
            Some(seed) => {
                println!("(\"{layer}\", \"{variant}\", {seed}),");
                assert_eq!(caught(layer, "no", seed), None, "sound, seed {seed}");
            }
            None => survivors.push(variant),
        }
    }
    assert!(survivors.is_empty(), "not caught in {SEEDS} seeds: {survivors:?}");
}
