//! The explorer: sound stacks hold in all runs within the bounds, and stacks that are broken on purpose do not.

#![allow(clippy::print_stdout)]

use wadjet::layers::DEFAULT_STACK;
use wadjet_sim::{Bounds, Explored, explore};

fn bounds(stack: &str, depth: usize) -> Bounds {
    Bounds {
        members: 3,
        stack: stack.to_owned(),
        depth,
        casts: 2,
        crashes: 1,
        disturbances: 1,
        accelerated: true,
    }
}

fn explored(bounds: &Bounds) -> Explored {
    let explored = explore(bounds);
    let Explored { states, choices, known, runs, seconds, .. } = explored;
    println!(
        "{}, depth {}: {states} states, {choices} choices, {known} to known states, {runs} runs, {seconds:.1} s",
        bounds.stack, bounds.depth
    );
    explored
}

#[test]
fn a_live_stack_holds_in_all_runs() {
    let explored = explored(&bounds(DEFAULT_STACK, 4));
    let failure = explored.failure.map(|failure| format!("{:?}: {:?}", failure.path, failure.violations));
    assert_eq!(failure, None);
    assert!(explored.states > 500 && explored.known > 500, "{} states", explored.states);
}

#[test]
fn a_stack_in_total_order_holds_in_all_runs() {
    let explored = explored(&bounds(&ordered("no"), 4));
    let failure = explored.failure.map(|failure| format!("{:?}: {:?}", failure.path, failure.violations));
    assert_eq!(failure, None);
    assert!(explored.states > 500, "{} states", explored.states);
}

#[test]
fn broken_variants_are_found() {
    for (stack, depth) in [
        (membership("cuts-at-least"), 5),
        (membership("installs-unconfirmed"), 5),
        (ordered("free-for-all"), 4),
        (ordered("everybody-first"), 4),
    ] {
        let failure = explored(&bounds(&stack, depth)).failure;
        let failure = failure.unwrap_or_else(|| panic!("{stack} is broken, and that was not found"));
        let path: Vec<String> = failure.path.iter().map(ToString::to_string).collect();
        println!("  {}: {}", failure.violations[0], path.join("; "));
    }
}

fn membership(variant: &str) -> String {
    DEFAULT_STACK.replace("MBRSHIP", &format!("MBRSHIP(broken={variant})"))
}

fn ordered(variant: &str) -> String {
    DEFAULT_STACK.replace("EVS", &format!("TOTAL(broken={variant})"))
}
