//! Total order, by turns or by a sequencer: the same order everywhere, at the cost of FIFO for a lone sender.

mod common;

use std::time::Duration;

use common::live::{Seen, Town};
use common::{Dice, Node, World};
use wadjet::transport::Transport;
use wadjet::{Config, Shadow};

const TOTAL: &str = "TOTAL:FIXED:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";
const SAFE: &str = "SAFE:TOTAL:FIXED:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";
const SEQUENCER: &str = "SEQUENCER:FIXED:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";
const SAFE_SEQUENCER: &str = "SAFE:SEQUENCER:FIXED:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";
const STACKS: [&str; 4] = [TOTAL, SAFE, SEQUENCER, SAFE_SEQUENCER];
const MODES: [(bool, Shadow); 3] = [(true, Shadow::Panic), (true, Shadow::Off), (false, Shadow::Off)];

fn config(accelerate: bool, shadow: Shadow) -> Config {
    Config { accelerate, shadow, ..Config::default() }
}

/// The members in `casting` cast `count` messages each, `steps` steps apart.
fn traffic(world: &mut World, casting: &[usize], count: usize, steps: usize) {
    for n in 0..count {
        for &node in casting {
            let message = format!("{n} of {node}").into_bytes();
            let mut waited = 0;
            while world.try_cast(node, &message).is_err() {
                world.step();
                waited += 1;
                assert!(waited < 1_000_000, "there is room again some time");
            }
        }
        world.steps(steps);
    }
}

/// Everybody delivers everything, in one order.
fn check(world: &mut World, casting: &[usize], count: usize, what: &str) {
    let all = |world: &mut World| world.nodes.iter().all(|n| n.log.casts.len() >= casting.len() * count);
    let done = world.until(600_000, all);
    let stats: Vec<_> = world.nodes.iter().map(|node| node.stats()).collect();
    assert!(done, "{what}: {stats:?}");
    for node in 1..world.nodes.len() {
        assert!(world.nodes[0].log.casts == world.nodes[node].log.casts, "{what}: {node} has another order");
    }
    for &origin in casting {
        let expected: Vec<_> = (0..count).map(|n| format!("{n} of {origin}").into_bytes()).collect();
        assert!(world.delivered(0, origin as u16) == expected, "{what}: casts of {origin}");
    }
}

#[test]
fn all_members_deliver_all_casts_in_one_order() {
    for (spec, members, steps) in STACKS.into_iter().flat_map(|spec| {
        [1, 2, 3, 5].into_iter().flat_map(move |members| [0, 1, 7, 40].map(|steps| (spec, members, steps)))
    }) {
        for (accelerate, shadow) in MODES {
            let what = format!("{spec} {members} members, {steps} steps apart, {accelerate} {shadow:?}");
            let mut world = World::new(members, spec, &config(accelerate, shadow));
            let casting: Vec<usize> = (0..members).collect();
            traffic(&mut world, &casting, 100, steps);
            check(&mut world, &casting, 100, &what);
        }
    }
}

#[test]
fn losses_change_nothing_about_it() {
    for (accelerate, shadow) in MODES {
        for seed in 0..12 {
            let config = Config { window_frames: 64, ..config(accelerate, shadow) };
            let mut world = World::new(3, STACKS[seed as usize % 4], &config);
            let mut dice = Dice(seed);
            world.lose = Box::new(move |_, _| dice.below(10) < 2);
            traffic(&mut world, &[0, 1, 2], 120, 2);
            check(&mut world, &[0, 1, 2], 120, &format!("{accelerate} {shadow:?} {seed}"));
        }
    }
}

/// A lone sender, the first or another, never waits for a turn once it has it, and takes the plans throughout.
#[test]
fn a_lone_sender_keeps_the_turn() {
    for sender in 0..3 {
        let mut world = World::new(3, TOTAL, &config(true, Shadow::Panic));
        traffic(&mut world, &[sender], 500, 1);
        check(&mut world, &[sender], 500, "lone");
        world.steps(100);
        let casts = |world: &World| world.nodes[sender].stats().cast_frames;
        let before = casts(&world);
        traffic(&mut world, &[sender], 500, 1);
        assert!(world.until(10_000, |world| world.nodes.iter().all(|node| node.log.casts.len() == 1000)));
        assert_eq!(casts(&world) - before, 500, "each left at once");
        let stats = world.nodes[sender].stats();
        assert_eq!(stats.fast_path.send_miss, 0, "{:?}", stats.misses);
        for node in &world.nodes {
            let fast = node.stats().fast_path;
            assert!(fast.deliver_miss < 20, "only what came with the first turn: {:?}", node.stats().misses);
            assert!(node.counted("TOTAL", "turns passed on") < 20);
        }
    }
}

/// The first casts, the second answers, and so on: 401 casts.
fn answer_each_other(world: &mut World) {
    for (node, from, to) in [(0, 'b', 'a'), (1, 'a', 'b')] {
        world.nodes[node].log.answers = (0..200)
            .map(|n| {
                let next = if node == 0 { n + 1 } else { n };
                (format!("{from}{n}").into_bytes(), format!("{to}{next}").into_bytes())
            })
            .collect();
    }
    world.cast(0, b"a0");
    assert!(world.until(20_000, |world| world.nodes[0].log.casts.len() >= 401), "they go on");
}

/// Casts of others that a member of `world` sees before its own cast of `message` comes back.
fn waits_for(world: &mut World, node: usize, message: &[u8], flood: &mut dyn FnMut(&mut World)) -> usize {
    let before = world.nodes[node].log.casts.len();
    world.cast(node, message);
    for _ in 0..20_000 {
        let since = &world.nodes[node].log.casts[before..];
        if let Some(at) = since.iter().position(|(origin, seen)| *origin as usize == node && seen == message)
        {
            return at;
        }
        flood(world);
        world.step();
    }
    panic!("member {node} waits for ever: {:#?}", world.nodes.iter().map(Node::stats).collect::<Vec<_>>());
}

/// A member whose window is always full, or that has the next cast ready whenever its turn comes, invites all the same.
#[test]
fn whose_cast_is_to_be_ordered_need_not_wait_for_ever_whatever_others_cast() {
    let room = Config { pack: false, waiting_frames_max: 4, window_frames: 16, ..Config::default() };
    let deep = Config { waiting_frames_max: 64, window_frames: 128, ..room.clone() };
    let large = TOTAL.replace("FIXED", "FIXED:FRAG");
    for (spec, bytes) in STACKS.map(|spec| (spec, 8)).into_iter().chain([(&large[..], 20_000)]) {
        for (config, busy) in [(&room, 1), (&room, 2), (&room, 3), (&deep, 1), (&deep, 2)] {
            let what = format!("{spec}, {busy} cast what they can, {} may wait", config.waiting_frames_max);
            let mut world = World::new(busy + 2, spec, config);
            let message = vec![9; bytes];
            let mut flood = |world: &mut World| {
                for node in 0..busy {
                    (0..100).take_while(|_| world.try_cast(node, &message).is_ok()).for_each(drop);
                }
            };
            for _ in 0..500 {
                flood(&mut world);
                world.step();
            }
            // The ring, the invitation in it, the leaving and another invitation: each has a turn or two of everybody.
            let most = 8 * (config.window_frames as usize) * busy;
            for round in 0..8_u8 {
                for guest in busy..busy + 2 {
                    let waited = waits_for(&mut world, guest, &[round], &mut flood);
                    assert!(waited <= most, "{what}: member {guest} waited for {waited} casts");
                }
                (0..usize::from(round)).for_each(|_| {
                    flood(&mut world);
                    world.step();
                });
            }
        }
    }
}

#[test]
fn those_who_answer_each_other_invite_a_third_one() {
    let mut world = World::new(4, TOTAL, &Config { pack: false, ..Config::default() });
    for (node, from, to) in [(0, b"pong", b"ping"), (1, b"ping", b"pong")] {
        world.nodes[node].log.answers = vec![(from.to_vec(), to.to_vec())];
    }
    world.cast(0, b"ping");
    world.steps(500);
    for round in 0..20_u8 {
        for guest in 2..4 {
            let waited = waits_for(&mut world, guest, &[9, round], &mut |_| {});
            assert!(waited <= 40, "member {guest} waited for {waited} casts");
        }
        world.steps(200);
    }
}

/// Two that answer each other hand the turn to and fro with their casts alone.
#[test]
fn those_who_answer_each_other_pass_the_turn_with_their_casts() {
    let mut world = World::new(2, TOTAL, &config(true, Shadow::Panic));
    answer_each_other(&mut world);
    let passed: u64 = world.nodes.iter().map(|node| node.counted("TOTAL", "turns passed on")).sum();
    assert!(passed < 10, "{passed} casts without content");
    for node in &world.nodes {
        let stats = node.stats();
        assert!(stats.fast_path.send_miss == 0, "{:?}", stats.misses);
        assert!(stats.fast_path.deliver_miss < 10, "{:?}", stats.misses);
    }
    assert_eq!(world.nodes[0].log.casts, world.nodes[1].log.casts);
}

/// Members that cast one after the other, now and then or all the time, pass turns to each other, come into the ring and leave
/// it, and nothing of that takes the layers.
#[test]
fn turns_that_are_passed_on_take_the_plans() {
    for (spec, shadow) in
        [(TOTAL, Shadow::Panic), (SAFE, Shadow::Panic), (TOTAL, Shadow::Off), (SAFE, Shadow::Off)]
    {
        for pause in [0, 1, 5, 100] {
            let mut world = World::new(3, spec, &config(true, shadow));
            for n in 0..300 {
                world.cast(n % 3, &n.to_le_bytes());
                world.steps(pause);
            }
            let all = |world: &mut World| world.nodes.iter().all(|node| node.log.casts.len() == 300);
            assert!(world.until(20_000, all), "{spec} {pause}");
            let passed = |node: &common::Node| {
                ["turns passed on", "turns passed on in leaving", "invitations"]
                    .map(|what| node.counted("TOTAL", what))
            };
            let mut sums = [0; 3];
            for node in &world.nodes {
                sums.iter_mut().zip(passed(node)).for_each(|(sum, count)| *sum += count);
                let stats = node.stats();
                let fast = stats.fast_path;
                assert_eq!((fast.send_miss, fast.deliver_miss), (0, 0), "{spec} {pause}: {:?}", stats.misses);
            }
            assert!(sums[2] >= 2, "{spec} {pause}: {sums:?}");
            assert!(pause < 100 || sums[1] > 50, "{spec} {pause}: {sums:?}");
            assert!(world.nodes.iter().all(|node| node.log.casts == world.nodes[0].log.casts));
        }
    }
}

/// Nobody talks when nobody has anything to say.
#[test]
fn a_quiet_group_is_silent() {
    for spec in STACKS {
        let mut world = World::new(4, spec, &config(true, Shadow::Panic));
        traffic(&mut world, &[0, 1, 2, 3], 20, 3);
        check(&mut world, &[0, 1, 2, 3], 20, "before");
        world.steps(20_000);
        world.record = true;
        world.steps(20_000);
        for node in &world.nodes {
            assert_eq!(node.sent.len(), 0, "{spec}");
            let stats = node.stats();
            assert_eq!((stats.retained, stats.unacknowledged, stats.waiting), (0, 0, 0), "{spec}");
        }
    }
}

/// With SAFE nobody delivers what some member does not hold; without it the order alone counts.
#[test]
fn safe_waits_for_every_member_and_agreed_does_not() {
    for (spec, waits) in [(SAFE, true), (TOTAL, false), (SAFE_SEQUENCER, true), (SEQUENCER, false)] {
        let mut world = World::new(3, spec, &config(true, Shadow::Panic));
        traffic(&mut world, &[0, 1], 5, 20);
        check(&mut world, &[0, 1], 5, spec);
        world.steps(1000);
        world.nodes[2].stopped = true;
        world.cast(0, b"who holds this?");
        world.steps(2000);
        for node in 0..2 {
            assert_eq!(world.nodes[node].log.casts.len(), if waits { 10 } else { 11 }, "{spec} {node}");
        }
        world.nodes[2].stopped = false;
        assert!(
            world.until(10_000, |world| world.nodes.iter().all(|node| node.log.casts.len() == 11)),
            "{spec}"
        );
    }
}

/// Safe delivery takes a round trip more than agreed delivery, not more.
#[test]
fn safe_costs_one_round_trip_more() {
    let steps = |spec: &str| {
        let mut world = World::new(3, spec, &config(true, Shadow::Off));
        world.cast(0, b"first");
        world.steps(2000);
        let mut longest = 0;
        for _ in 0..50 {
            let before = world.nodes[1].log.casts.len();
            world.cast(0, b"one");
            let mut steps = 0;
            while world.nodes.iter().any(|node| node.log.casts.len() == before) {
                world.step();
                steps += 1;
                assert!(steps < 1000);
            }
            longest = longest.max(steps);
            world.steps(200);
        }
        longest
    };
    let (agreed, safe) = (steps(TOTAL), steps(SAFE));
    assert!(
        safe <= agreed + 4,
        "agreed {agreed} steps, safe {safe}: a message takes one to arrive and one to be seen"
    );
}

/// Who answers a cast says by its answer that it holds it: nothing else goes out for it.
#[test]
fn an_answer_is_what_safe_delivery_waits_for() {
    let mut world = World::new(2, SAFE, &config(true, Shadow::Off));
    world.steps(2000);
    let frames =
        |world: &World| -> u64 { world.nodes.iter().map(|node| node.transport.counters().frames_sent).sum() };
    let before = frames(&world);
    answer_each_other(&mut world);
    let sent = frames(&world) - before;
    assert!(sent < 401 + 20, "{sent} frames for 401 casts");
    assert_eq!(world.nodes[0].log.casts, world.nodes[1].log.casts);
}

/// The order queue is bounded, and nobody may cast more than all others have room for until it is in order: next to nothing is
/// turned away, for NAK to bring again, and nothing is lost.
#[test]
fn a_small_order_queue_holds_senders_back_and_loses_nothing() {
    for spec in STACKS {
        for most in [1, 3, 8] {
            let config = Config {
                order_frames_max: most,
                window_frames: 16,
                pack: false,
                ..config(true, Shadow::Panic)
            };
            let mut world = World::new(3, spec, &config);
            let mut dice = Dice(most as u64);
            world.lose = Box::new(move |_, _| dice.below(10) < 1);
            traffic(&mut world, &[0, 1, 2], 60, 0);
            check(&mut world, &[0, 1, 2], 60, &format!("{spec} {most}"));
            assert!(turned_away(&world) < 3, "{spec} {most}: {}", turned_away(&world));
        }
    }
}

/// Casts that found as many of their origin held as there may be.
fn turned_away(world: &World) -> u64 {
    world.nodes.iter().map(|node| node.counted("stack", "cast dropped: order queue full")).sum()
}

/// As long as nobody orders them, of each origin's casts as many go out as its share, whatever its window.
#[test]
fn of_casts_without_an_order_no_more_are_cast_than_the_share_of_their_origin() {
    for (spec, accelerate) in [(SEQUENCER, true), (SEQUENCER, false), (SAFE_SEQUENCER, true)] {
        for most in [1, 9, 24] {
            let config = Config {
                order_frames_max: most,
                window_frames: 16,
                pack: false,
                ..config(accelerate, Shadow::Off)
            };
            let mut world = World::new(3, spec, &config);
            world.nodes[0].stopped = true;
            (0..16).for_each(|n: u8| world.cast(1, &[n]));
            world.steps(20_000);
            // They are retained as long as the sequencer does not say that it has them.
            let share = (most / 3).max(1);
            assert_eq!(world.nodes[2].stats().retained, share as u64, "{spec} {most}");
            assert_eq!((turned_away(&world), world.nodes[2].log.casts.len()), (0, 0), "{spec} {most}");
            world.nodes[0].stopped = false;
            let all = |world: &mut World| world.nodes.iter().all(|node| node.log.casts.len() == 16);
            assert!(world.until(100_000, all), "{spec} {most}");
        }
    }
}

/// Turns passed on and orders are retained until all hold them: while a member hears nothing they must leave frames for
/// what brings them to it later.
#[test]
fn turns_and_orders_leave_frames_for_their_own_repair() {
    for (spec, waits) in [
        ("TOTAL:FIXED:STABLE:UNICAST:LOCAL:NAK:CHKSUM:COM", ("TOTAL", "turn kept for want of a frame")),
        (
            "SEQUENCER:FIXED:STABLE:UNICAST:LOCAL:NAK:CHKSUM:COM",
            ("SEQUENCER", "order put off for want of a frame"),
        ),
    ] {
        for (accelerate, shadow) in MODES {
            let config = Config { control_frames: 16, pack: false, ..config(accelerate, shadow) };
            let mut world = World::new(3, spec, &config);
            world.lose = Box::new(|node, _| node == 2);
            traffic(&mut world, &[0, 1], 60, 15);
            let waited: u64 = world.nodes.iter().map(|node| node.counted(waits.0, waits.1)).sum();
            assert!(waited > 0, "{spec}: there is nobody but a deaf member to wait for");
            world.lose = Box::new(|_, _| false);
            check(&mut world, &[0, 1], 60, &format!("{spec} {accelerate} {shadow:?}"));
        }
    }
}

/// Its frames may stand among those of others; it is delivered with its last.
#[test]
fn a_large_message_is_one_place_in_the_order() {
    for order in ["TOTAL", "SEQUENCER"] {
        large_messages(&format!("{order}:FIXED:FRAG:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM"));
    }
}

fn large_messages(spec: &str) {
    let mut world = World::new(3, spec, &config(true, Shadow::Panic));
    for n in 0..6u8 {
        for node in 0..3 {
            world.cast(node, &vec![n * 3 + node as u8; 20_000 + node]);
            world.cast(node, &[n, node as u8]);
        }
        world.steps(3);
    }
    assert!(world.until(100_000, |world| world.nodes.iter().all(|node| node.log.casts.len() == 36)));
    for node in 1..3 {
        assert!(world.nodes[0].log.casts == world.nodes[node].log.casts);
    }
}

/// The sequencer's own casts need no orders and take the plans; those of another do too, and are ordered many at a time.
#[test]
fn a_sequencer_alone_orders_nothing_and_others_are_ordered_many_at_a_time() {
    for sender in 0..3 {
        let mut world = World::new(3, SEQUENCER, &config(true, Shadow::Panic));
        for round in 0..50 {
            traffic(&mut world, &[sender], 10, 0);
            world.steps(if round % 2 == 0 { 1 } else { 5 });
        }
        let all = |world: &mut World| world.nodes.iter().all(|node| node.log.casts.len() == 500);
        assert!(world.until(10_000, all));
        let orders = world.nodes[0].counted("SEQUENCER", "orders");
        assert!(if sender == 0 { orders == 0 } else { (10..=100).contains(&orders) }, "{orders}");
        for node in &world.nodes {
            let fast = node.stats().fast_path;
            assert_eq!((fast.send_miss, fast.deliver_miss), (0, 0), "{:?}", node.stats().misses);
        }
    }
}

/// Whoever is not the sequencer delivers its own cast after a message there and one back, the others a message later than
/// they have it.
#[test]
fn an_order_costs_a_message_to_the_sequencer_and_one_back() {
    let steps = |spec: &str, before: usize, sender: usize, at: usize| {
        let mut world = World::new(3, spec, &config(true, Shadow::Off));
        world.cast(before, b"first");
        world.steps(2000);
        let before = world.nodes[at].log.casts.len();
        world.cast(sender, b"one");
        let mut steps = 0;
        while world.nodes[at].log.casts.len() == before {
            world.step();
            steps += 1;
            assert!(steps < 1000);
        }
        steps
    };
    // A message takes a step; the sequencer orders it in the iteration in which it came.
    for before in 0..3 {
        assert!(steps(SEQUENCER, before, 0, 2) <= 2, "the sequencer itself");
        let (origin, third) = (steps(SEQUENCER, before, 2, 2), steps(SEQUENCER, before, 2, 1));
        assert!(origin <= 3 && third <= 3, "another: {origin} {third}");
    }
    assert!(steps(TOTAL, 2, 2, 1) <= 2, "whose turn it is");
    assert_eq!(steps(TOTAL, 0, 2, 1), 4, "a request, an invitation, the cast");
}

/// The sequencer stops like any other member: those who go on have one order, all that they cast is in it, and the next view
/// has a sequencer of its own.
#[test]
fn the_sequencer_may_die_like_any_other_member() {
    for (victim, order) in [(0, "SEQUENCER"), (1, "SEQUENCER"), (0, "SAFE:SEQUENCER"), (0, "TOTAL")] {
        let stack =
            wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY.replace("MBRSHIP", &format!("{order}:MBRSHIP"));
        let mut town = Town::of(4, &stack, &Config { shadow: Shadow::Panic, ..Config::default() });
        town.run(Duration::from_millis(30));
        for n in 0..300u32 {
            for at in 0..4 {
                if !(at == victim && n > 100) {
                    town.cast(at, &n.to_le_bytes());
                }
            }
            town.step();
            town.processes[victim].stopped |= n == 100;
        }
        let others: Vec<usize> = (0..4).filter(|at| *at != victim).collect();
        town.meet(&others, Duration::from_secs(1));
        town.run(Duration::from_millis(200));
        let views = town.processes[others[0]].casts_by_view();
        assert_eq!(views.len(), 2, "{order} {victim}");
        for other in &others {
            assert!(town.processes[*other].casts_by_view() == views, "{order} {victim}");
            let of = |seen: &&Seen| matches!(seen, Seen::Cast(origin, _) if *origin == *other as u64 + 1);
            assert_eq!(town.processes[*other].diary.seen.iter().filter(of).count(), 300, "{order} {victim}");
        }
    }
}

/// Whether what the failed leave out of order, or what waits for a turn that was asked for in vain, is delivered: it is as
/// the layer promises, and not where the layer is broken in just that.
#[cfg(feature = "laboratory")]
fn is_delivered(layers: &str, config: &Config, play: impl FnOnce(&mut Town) -> &'static [u8]) -> bool {
    let stack = wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY.replace("MBRSHIP", layers);
    let mut town = Town::of(4, &stack, config);
    town.run(Duration::from_millis(5));
    let wanted = play(&mut town);
    let seen = &town.processes[2].diary.seen;
    seen.iter().any(|seen| matches!(seen, Seen::Cast(_, message) if message == wanted))
}

#[cfg(feature = "laboratory")]
fn unpacked() -> Config {
    Config { pack: false, ..Config::default() }
}

#[cfg(feature = "laboratory")]
#[test]
fn nothing_of_the_failed_is_delivered_that_follows_on_what_is_lost() {
    let die = |town: &mut Town| {
        town.run(Duration::from_micros(100));
        for at in [0, 1] {
            town.processes[at].stopped = true;
        }
        town.meet(&[2, 3], Duration::from_secs(1));
        town.run(Duration::from_millis(10));
    };
    // The cast of member 0 reaches member 1 alone, which answers it in its turn; then both are no more.
    let total = |town: &mut Town| {
        for n in 0..20u32 {
            town.cast((n % 2) as usize, &n.to_le_bytes());
            town.run(Duration::from_micros(100));
        }
        town.lose = Box::new(|at, received| at >= 2 && received.bytes().ends_with(b"the lost"));
        town.cast(0, b"the lost");
        town.run(Duration::from_micros(100));
        town.cast(1, b"the answer");
        die(town);
        &b"the answer"[..]
    };
    // Member 1 casts when the sequencer is no more, so that the cast has no place.
    let sequencer = |town: &mut Town| {
        town.processes[0].stopped = true;
        town.cast(1, b"the unordered");
        die(town);
        &b"the unordered"[..]
    };
    for (broken, delivered) in [("no", false), ("keeps-the-failed", true)] {
        assert_eq!(
            is_delivered(&format!("TOTAL(broken={broken}):MBRSHIP"), &unpacked(), total),
            delivered,
            "TOTAL {broken}"
        );
        assert_eq!(
            is_delivered(&format!("SEQUENCER(broken={broken}):MBRSHIP"), &unpacked(), sequencer),
            delivered,
            "SEQUENCER {broken}"
        );
    }
}

/// Casts that nobody orders any more fill their origin's share of the order queue, and all that survivors have cast before they
/// are blocked belongs to the view: in a flush there is room for more, or it waits for an order that does not come.
#[cfg(feature = "laboratory")]
#[test]
fn what_no_sequencer_orders_any_more_finds_room_when_the_view_ends() {
    let play = |town: &mut Town| {
        town.processes[0].stopped = true;
        (0..20u32).for_each(|n| town.cast(1, &n.to_le_bytes()));
        town.cast(1, b"the last");
        let blocked = |town: &mut Town| {
            (1..4).all(|at| town.processes[at].diary.seen.iter().any(|seen| matches!(seen, Seen::Block)))
        };
        assert!(town.until(Duration::from_secs(1), blocked));
        for process in &mut town.processes[1..] {
            process.endpoint.group(process.key).block_ok();
        }
        town.run(Duration::from_millis(100));
        &b"the last"[..]
    };
    let config = Config { order_frames_max: 8, ..unpacked() };
    for (broken, delivered) in [("no", true), ("bound-in-flush", false)] {
        let layers = format!("SEQUENCER(broken={broken}):MBRSHIP(block=yes)");
        assert_eq!(is_delivered(&layers, &config, play), delivered, "{broken}");
    }
}

/// Orders and turns passed on take frame numbers, too, but none that a cast waits for: with few to a view, the sequencer's own
/// casts of before `block_ok` would have none, and its view would wait for them for ever.
#[test]
fn orders_and_turns_take_no_number_that_a_cast_waits_for() {
    const CASTS: usize = 200;
    for order in ["SEQUENCER", "SAFE:SEQUENCER", "TOTAL", "SAFE:TOTAL"] {
        let spec = wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY
            .replace("MBRSHIP", &format!("{order}:MBRSHIP(block=yes)"))
            .replace("FC", "FC(window=4)");
        let config = Config { pack: false, frame_number_limit: 32, ..Config::default() };
        let mut town = Town::of(3, &spec, &config);
        let (mut next, mut answered) = ([0; 3], [0; 3]);
        let all = town.until(Duration::from_secs(20), |town| {
            for at in 0..3 {
                let process = &mut town.processes[at];
                let asked = process.diary.seen.iter().filter(|seen| matches!(seen, Seen::Block)).count();
                let mut group = process.endpoint.group(process.key);
                // Who is asked to stop casts once more as much as it may, and says so.
                while next[at] < CASTS && group.cast(&(next[at] as u32).to_le_bytes()).is_ok() {
                    next[at] += 1;
                }
                if asked > answered[at] {
                    answered[at] = asked;
                    group.block_ok();
                }
            }
            let casts = |at: usize| {
                town.processes[at].diary.seen.iter().filter(|seen| matches!(seen, Seen::Cast(..))).count()
            };
            (0..3).all(|at| casts(at) == 3 * CASTS)
        });
        assert!(all, "{order}: {next:?} {answered:?}");
        assert!(town.together(&[0, 1, 2]), "{order}");
    }
}

#[cfg(feature = "laboratory")]
#[test]
fn a_request_for_a_turn_that_is_lost_is_repeated() {
    let play = |town: &mut Town| {
        town.lose = Box::new(|at, _| at != 1);
        town.cast(1, b"wanted");
        town.run(Duration::from_micros(100));
        town.lose = Box::new(|_, _| false);
        town.run(Duration::from_millis(100));
        &b"wanted"[..]
    };
    for (broken, delivered) in [("no", true), ("asks-once", false)] {
        assert_eq!(
            is_delivered(&format!("TOTAL(broken={broken}):MBRSHIP"), &unpacked(), play),
            delivered,
            "{broken}"
        );
    }
}
