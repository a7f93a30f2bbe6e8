//! Members with compiled plans and members by the layers alone, in one group: `accelerate` is each process's own affair.

mod common;

use std::collections::BTreeMap;

use common::live::{Seen, Town};
use wadjet::Config;
use wadjet::layers::DEFAULT_STACK;

const MEMBERS: u64 = 3;
/// Casts of each member before the view changes, and after: many windows.
const CASTS: u64 = 200;

/// No order, and the orders there are: with a window of four frames, so that who casts waits for the others' credit.
fn stacks() -> impl Iterator<Item = String> {
    let orders = ["", "TOTAL:", "SAFE:TOTAL:", "SEQUENCER:", "SAFE:SEQUENCER:"];
    let stack = DEFAULT_STACK.replace("FC", "FC(window=4)");
    orders.into_iter().map(move |order| stack.replace("MBRSHIP", &format!("{order}MBRSHIP")))
}

/// A group in which those of `layers`, bit by bit, have no plans.
fn group(spec: &str, layers: u64) -> Town {
    Town::of_each(MEMBERS, spec, |own| Config {
        accelerate: layers >> (own - 1) & 1 == 0,
        pack: false,
        ..Config::default()
    })
}

/// What the process at `at` has cast or is to cast for the `n`th time.
fn message(at: usize, n: u64) -> Vec<u8> {
    format!("{n} of {at}").into_bytes()
}

/// Everybody of `whom` casts as much as it may, `CASTS` messages from the `from`th on, until all of `whom` have delivered all of them
/// and nobody keeps any: in how many passes over all members, if not too many.
fn passes_until_all_is_stable(town: &mut Town, whom: &[usize], from: u64) -> Option<u64> {
    let mut cast: BTreeMap<usize, u64> = whom.iter().map(|at| (*at, from)).collect();
    (1..=PASSES_MAX).find(|_| {
        for (at, next) in &mut cast {
            let process = &mut town.processes[*at];
            while *next < from + CASTS
                && process.endpoint.group(process.key).cast(&message(*at, *next)).is_ok()
            {
                *next += 1;
            }
        }
        town.step();
        whom.iter().all(|at| cast[at] == from + CASTS)
            && whom.iter().all(|at| {
                let process = &town.processes[*at];
                let stats = process.endpoint.stats(process.key);
                (stats.retained, stats.unacknowledged) == (0, 0)
            })
            && whom.iter().all(|at| {
                let last =
                    |origin: &usize| casts(town, *at).any(|cast| *cast == message(*origin, from + CASTS - 1));
                whom.iter().all(last)
            })
    })
}

const PASSES_MAX: u64 = 20_000;

fn casts(town: &Town, at: usize) -> impl Iterator<Item = &Vec<u8>> {
    town.processes[at].diary.seen.iter().filter_map(|seen| match seen {
        Seen::Cast(_, message) => Some(message),
        _ => None,
    })
}

/// Everybody casts; then one stops, and the others cast on, through the change of view. How many passes the one and the other take.
fn passes(spec: &str, layers: u64, gone: usize) -> [u64; 2] {
    let mut town = group(spec, layers);
    let all: Vec<usize> = (0..MEMBERS as usize).collect();
    let before = passes_until_all_is_stable(&mut town, &all, 0);
    town.processes[gone].stopped = true;
    let rest: Vec<usize> = all.iter().copied().filter(|at| *at != gone).collect();
    let after = passes_until_all_is_stable(&mut town, &rest, CASTS);
    assert!(town.together(&rest), "{spec} {layers:03b}: there is a view without {gone}");
    delivered_as_promised(spec, &town, &rest);
    for at in &rest {
        let fast_path = town.processes[*at].endpoint.stats(town.processes[*at].key).fast_path;
        let has_plans = layers >> at & 1 == 0;
        assert_eq!(fast_path.send_hit > 0, has_plans, "{spec} {layers:03b} {at}: {fast_path:?}");
    }
    let at_all = |passes: Option<u64>| passes.unwrap_or_else(|| panic!("{spec} {layers:03b} without {gone}"));
    [before, after].map(at_all)
}

/// Each of `whom` has the casts of each origin once and in the order of casting, and where the stack has one order, all have that.
fn delivered_as_promised(spec: &str, town: &Town, whom: &[usize]) {
    for at in whom {
        for origin in 0..MEMBERS as usize {
            let of_it = casts(town, *at).filter(|cast| cast.ends_with(format!(" of {origin}").as_bytes()));
            let count = if whom.contains(&origin) { 2 * CASTS } else { CASTS };
            assert!(of_it.eq(&(0..count).map(|n| message(origin, n)).collect::<Vec<_>>()), "{spec}: {at}");
        }
        if spec.contains("TOTAL") || spec.contains("SEQUENCER") {
            assert!(casts(town, *at).eq(casts(town, whom[0])), "{spec}: {at} has an order of its own");
        }
    }
}

/// How fast a group goes on does not depend on all having plans, or none: who has none gives as much credit, says as soon what it
/// has, and takes its turn.
#[test]
fn some_members_without_plans_keep_nobody_waiting_longer_than_all() {
    let everybody = (1 << MEMBERS) - 1;
    for spec in stacks() {
        // Who leads, sequences and has the turn first, and one who does not.
        for gone in [0, 2] {
            let [with, without] = [0, everybody].map(|layers| passes(&spec, layers, gone));
            for layers in 1..everybody {
                let some = passes(&spec, layers, gone);
                for (part, passes) in some.into_iter().enumerate() {
                    let pure = with[part].max(without[part]);
                    assert!(
                        passes * 4 <= pure * 5,
                        "{spec}, by the layers {layers:03b}, without {gone}: {some:?}, all with plans {with:?}, none {without:?}"
                    );
                }
            }
        }
    }
}
