//! Slots are really what plans and layers use: scrambled in mid-run, each of them shows.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{Dice, World};
use wadjet::layers::FIXED_STACK;
use wadjet::{Config, Event, Rank, RankSet, Shadow};

const POISONED: usize = 1;
const ROUNDS: u32 = 60;

/// How a run went, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Notice {
    /// As if nothing had been.
    Nothing,
    /// Everything arrives, but not by the plan, or with repairs.
    Slower,
    /// A member was told of a problem, or left.
    Told,
    /// Something does not arrive.
    Missing,
    /// Something arrives twice, out of order, or was never sent.
    Wrong,
    /// An assertion.
    Panic,
}

fn config(accelerate: bool) -> Config {
    Config { accelerate, shadow: Shadow::Off, window_frames: 16, pack: false, ..Config::default() }
}

fn message(round: u32) -> Vec<u8> {
    round.to_le_bytes().to_vec()
}

/// A run: how many members, whether with plans, how many of a hundred frames are lost.
#[derive(Clone, Copy, Debug)]
struct Setting {
    members: usize,
    accelerate: bool,
    lost: u64,
}

const CALM: Setting = Setting { members: 3, accelerate: true, lost: 0 };
const SLOW: Setting = Setting { accelerate: false, ..CALM };
const LOSSY: Setting = Setting { members: 2, accelerate: true, lost: 15 };

/// All members cast and send; after half of it `poison` is given the second one.
fn run(setting: Setting, poison: impl FnOnce(&mut common::Node)) -> Notice {
    let Setting { members, accelerate, lost } = setting;
    let run = AssertUnwindSafe(move || {
        let mut world = World::new(members, FIXED_STACK, &config(accelerate));
        let mut dice = Dice(7);
        world.lose = Box::new(move |_, _| dice.below(100) < lost);
        let mut poison = Some(poison);
        let mut next = vec![(0u32, 0u32); members];
        let mut sends = vec![Vec::new(); members];
        let mut steps = 0;
        while next.iter().any(|(cast, sent)| cast.min(sent) < &ROUNDS) && steps < 100_000 {
            steps += 1;
            for (node, (cast, sent)) in next.iter_mut().enumerate() {
                if *cast < ROUNDS && world.try_cast(node, &message(*cast)).is_ok() {
                    *cast += 1;
                }
                let peer = (node + 1) % members;
                let node = &mut world.nodes[node];
                let to = RankSet::one(Rank::at(peer));
                // Repeating what was lost takes long: all are sent, however long that is.
                if *sent < ROUNDS && node.endpoint.group(node.key).send(&to, &message(*sent)).is_ok() {
                    sends[peer].push(message(*sent));
                    *sent += 1;
                }
            }
            world.step();
            if steps == 30 {
                poison.take().expect("once")(&mut world.nodes[POISONED]);
            }
        }
        let complete = |world: &mut World| {
            world.nodes.iter().zip(&sends).all(|(node, sends)| {
                let casts = node.log.casts.len() >= members * ROUNDS as usize;
                casts && node.log.sends.len() >= sends.len() && node.stats().unacknowledged == 0
            })
        };
        let done = world.until(if lost > 0 { 60_000 } else { 4000 }, complete);
        judge(&world, &sends, done)
    });
    catch_unwind(run).unwrap_or(Notice::Panic)
}

fn judge(world: &World, sends: &[Vec<Vec<u8>>], done: bool) -> Notice {
    let mut worst = if done { Notice::Nothing } else { Notice::Missing };
    for (node, sends) in world.nodes.iter().zip(sends) {
        let log = &node.log;
        for origin in 0..world.nodes.len() {
            let casts = log.casts.iter().filter(|(from, _)| usize::from(*from) == origin);
            if casts.enumerate().any(|(at, (_, bytes))| *bytes != message(at as u32)) {
                worst = worst.max(Notice::Wrong);
            }
        }
        if !log.sends.iter().map(|(_, bytes)| bytes).eq(sends.iter().take(log.sends.len())) {
            worst = worst.max(Notice::Wrong);
        }
        if log.events.iter().any(|event| matches!(event, Event::Problem(_) | Event::Exit(_))) {
            worst = worst.max(Notice::Told);
        }
        let stats = node.stats();
        let repaired = stats.counts.iter().any(|count| count.layer == "NAK" || count.layer == "UNICAST");
        if !stats.misses.is_empty() || repaired {
            worst = worst.max(Notice::Slower);
        }
    }
    worst
}

/// Which words were noticed how.
fn poison_every_word(setting: Setting) -> BTreeMap<String, BTreeSet<Notice>> {
    let world = World::new(setting.members, FIXED_STACK, &config(setting.accelerate));
    let node = &world.nodes[POISONED];
    let mut found: BTreeMap<String, BTreeSet<Notice>> = BTreeMap::new();
    for at in 0..node.endpoint.slot_words(node.key) {
        let name = node.endpoint.slot_name(node.key, at);
        for mask in [1, 0xf00, 1 << 39] {
            let notice = run(setting, |node| node.endpoint.scramble_word(node.key, at, mask));
            found.entry(name.clone()).or_default().insert(notice);
        }
    }
    found
}

#[test]
fn without_poison_nothing_is_noticed() {
    assert_eq!(run(CALM, |_| {}), Notice::Nothing);
    assert_eq!(run(SLOW, |_| {}), Notice::Slower, "without plans every message is a miss");
    assert_eq!(run(LOSSY, |_| {}), Notice::Slower, "losses are repaired");
}

/// Words without which nothing arrives right, by setting. (`of 0`: in the section of member 0, at member 1.)
///
/// The rest is in use too, but mends itself: own rows of gossip, grants and limits are computed anew from these words by
/// the next post-processing, rows of others by their next report.
const VITAL: &[(Setting, &[&str])] = &[
    (
        CALM,
        &[
            "cast-send word 0",
            "of 0: cast-deliver word 0",
            "of 2: cast-deliver word 0",
            "of 0: send-deliver word 0",
            "of 2: send-send word 0",
        ],
    ),
    (
        SLOW,
        &[
            "cast-send word 0",
            "of 0: cast-deliver word 0",
            "of 2: cast-deliver word 0",
            "of 0: send-deliver word 0",
            "of 2: send-send word 0",
        ],
    ),
    (
        LOSSY,
        &[
            "cast-send word 0",
            "of 0: cast-deliver word 0",
            "of 0: send-deliver word 0",
            "of 0: send-send word 0",
            // What the other has: too much of it, and what must be repeated is gone.
            "of 0: NAK.held about 1",
            "of 0: UNICAST.acked about 1",
            // What all have of its own casts, as it says itself: others let go of what must be repeated.
            "of 1: STABLE.stable about 1",
            "of 1: member slot 15",
        ],
    ),
];

/// Words that send messages through the layers: guards.
const GUARDS: &[&str] =
    &["cast-send guard", "of 0: cast-deliver guard", "of 1: cast-deliver guard", "of 0: send-deliver guard"];

#[test]
fn every_word_in_use_shows_and_no_other() {
    let found: Vec<_> = VITAL.iter().map(|(setting, _)| poison_every_word(*setting)).collect();
    for ((setting, vital), found) in VITAL.iter().zip(&found) {
        for name in *vital {
            let worst = found[*name].last().expect("tried");
            assert!(*worst >= Notice::Missing, "{setting:?} {name}: {:?}", found[*name]);
        }
        let noticed = found.iter().filter(|(_, notices)| *notices.last().expect("tried") > Notice::Slower);
        let noticed: BTreeSet<&str> = noticed.map(|(name, _)| name.as_str()).collect();
        assert_eq!(noticed, vital.iter().copied().collect(), "{setting:?}");
    }
    for name in GUARDS {
        assert!(found[0][*name].contains(&Notice::Slower), "{name}: {:?}", found[0][*name]);
    }
    let unused = |name: &&String| name.contains("spare") || name.contains("hits") || name.ends_with("word 1");
    for name in found[0].keys().filter(unused) {
        assert_eq!(found[0][name], BTreeSet::from([Notice::Nothing]), "{name}");
    }
}

/// NAK's expected number of one origin, put back to zero: that origin is not heard any more, all others are. Put far
/// forward, it makes the origin believe that it was in this view before.
#[test]
fn a_scrambled_expected_number_stops_its_origin_and_no_other() {
    for (mask, back) in [(10, true), (1 << 30, false)] {
        let mut world = World::new(3, FIXED_STACK, &config(true));
        let cast_all = |world: &mut World, rounds: std::ops::Range<u32>| {
            for round in rounds {
                for node in 0..3 {
                    let _ = world.try_cast(node, &message(round));
                }
                world.steps(3);
            }
        };
        cast_all(&mut world, 0..10);
        let node = &mut world.nodes[POISONED];
        let named = |at: &u32| node.endpoint.slot_name(node.key, *at) == "of 0: cast-deliver word 0";
        let at = (0..node.endpoint.slot_words(node.key)).find(named).expect("there is one");
        node.endpoint.scramble_word(node.key, at, mask);
        cast_all(&mut world, 10..20);
        world.steps(1000);
        assert_eq!(world.delivered(POISONED, 0).len(), 10, "origin 0 is not heard at the poisoned member");
        for (node, origin) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            assert_eq!(world.delivered(node, origin).len(), 20, "{node} {origin}");
        }
        let exited = world.nodes[0].log.events.iter().any(|event| matches!(event, Event::Exit(_)));
        assert_eq!(exited, !back);
        assert_eq!(world.delivered(2, 0).len() == 20, back);
    }
}

#[test]
fn of_many_random_poisons_some_are_always_noticed() {
    let noticed = (0..400u64).filter(|seed| {
        run(CALM, |node| node.endpoint.scramble_slot(node.key, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            > Notice::Nothing
    });
    let noticed = noticed.count();
    assert!(noticed >= 20, "{noticed} of 400: one word in twenty is vital or a guard");
}
