//! Order that is wrong on purpose, in worlds of the simulator: each variant must be caught.

mod rooms;

use rooms::{ORDER, SEEDS, order, survivors};
use wadjet::stack::explain::explain;
use wadjet::stack::registry::Registry;

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
    // Of those who hold an agreed cast one must fail, and another deliver a safe cast behind it and part from the rest, before
    // the rest has the agreed one: `tests/services.rs`.
    ("SAFE", "forgets-the-agreed"),
];

#[test]
fn every_variant_has_its_place() {
    let stack = "TOTAL(broken=unheard-of):FIXED:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";
    let error = explain(&Registry::standard(), stack, 2, false).unwrap_err().to_string();
    let named = |variant: &str| ORDER.iter().any(|(_, known, _)| *known == variant);
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

#[test]
fn every_broken_order_is_caught_where_the_sound_one_is_not() {
    let survivors = survivors(ORDER, order);
    assert!(survivors.is_empty(), "not caught in {SEEDS} seeds: {survivors:?}");
}
