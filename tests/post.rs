//! Post-processing in pieces: bounded in each iteration, and never put off by messages that come all the time.

mod common;

use std::time::Duration;

use common::World;
use wadjet::stats::PostProcessing;
use wadjet::time::Time;
use wadjet::{Config, Shadow};

/// Layers that handle an event ask for a whole pass: nothing is reported meanwhile.
const STACK: &str = "STABLE(report_us=10000000):FC:UNICAST:LOCAL:NAK:COM";
const BATCH: u64 = 128;

fn world(members: usize) -> World {
    let config = Config {
        shadow: Shadow::Off,
        pack: false,
        post_batch_messages: BATCH as u32,
        // Messages alone set it off, and no row of gossip is due.
        post_delay: Duration::from_secs(1),
        gossip_delay: Duration::from_secs(1),
        ..Config::default()
    };
    let mut world = World::new(members, STACK, &config);
    // Who started which life has been said.
    world.steps(300);
    world
}

fn post(world: &World, node: usize) -> PostProcessing {
    world.nodes[node].stats().post
}

/// All members cast `casts` messages in each iteration. Returns the most pieces of one iteration of the first, its passes,
/// and the most frames it retained.
fn load(world: &mut World, casts: usize, iterations: usize) -> (u64, PostProcessing, u64) {
    let first = post(world, 0);
    let (mut most, mut retained) = (0, 0);
    for _ in 0..iterations {
        for node in 0..world.nodes.len() {
            (0..casts).for_each(|_| world.cast(node, b"under way all the time"));
        }
        let before = post(world, 0).pieces;
        world.step();
        most = most.max(post(world, 0).pieces - before);
        retained = retained.max(world.nodes[0].stats().retained);
    }
    let last = post(world, 0);
    let all = PostProcessing {
        whole: last.whole - first.whole,
        passes: last.passes - first.passes,
        pieces: last.pieces - first.pieces,
    };
    (most, all, retained)
}

#[test]
fn an_iteration_does_a_few_pieces_of_it_and_a_pass_is_many() {
    for members in [2, 3, 8] {
        let mut world = world(members);
        load(&mut world, 1, 200);
        let (most, post, _) = load(&mut world, 1, 2000);
        assert_eq!(post.whole, 0, "nothing but messages by plan, and nobody waits: {post:?}");
        // A message sent is another that comes back up.
        let work = members as u64 + 1;
        let pass = post.pieces / post.passes;
        assert!(pass >= 15, "{members} members: {post:?}");
        // One, and as much of a pass as these messages are of a batch; a pass that lets go of a batch of frames may be twice
        // as many pieces as those here.
        let bound = 1 + (2 * pass * work).div_ceil(BATCH);
        assert!(
            most <= bound && 3 * most <= pass,
            "{members} members: {most} of {pass} at once, {bound} allowed"
        );
    }
}

#[test]
fn messages_that_come_all_the_time_do_not_put_it_off() {
    for (members, casts) in [(2, 1), (2, 20), (3, 7), (8, 2)] {
        let mut world = world(members);
        let iterations = 4000 / casts;
        let (_, post, retained) = load(&mut world, casts, iterations);
        let work = ((members + 1) * casts * iterations) as u64;
        // A batch after it began it has ended, and the next begins.
        let in_an_iteration = ((members + 1) * casts) as u64;
        let least = work / (BATCH + 2 * in_an_iteration) * 3 / 4;
        assert!(
            post.passes + post.whole >= least,
            "{members} members, {casts} casts: {post:?}, {least} expected"
        );
        // What is told at the end of one is let go of in the next at the latest.
        let most = 4 * (BATCH + in_an_iteration);
        assert!(retained <= most, "{members} members, {casts} casts: {retained} retained");
        let stats = world.nodes[0].stats();
        assert_eq!(stats.fast_path.send_miss, 0, "nobody was held up: {stats:?}");
    }
}

#[test]
fn when_messages_end_it_does_too() {
    let mut world = world(2);
    load(&mut world, 5, 50);
    let ended = world.until(200_000, |world| world.nodes.iter().all(|node| node.stats().retained == 0));
    assert!(ended, "{:?}", world.nodes[0].stats());
    let quiet = post(&world, 0);
    world.steps(100);
    assert_eq!(post(&world, 0), quiet, "a quiet group pays for nothing");
}

/// One step of so many nanoseconds.
fn short_step(world: &mut World, nanos: u64) {
    let next = world.now.as_nanos() + nanos;
    world.now = Time::from_nanos(next - 10_000);
    world.step();
    assert_eq!(world.now.as_nanos(), next);
}

#[test]
fn whoever_waits_for_an_answer_does_nothing_else_meanwhile() {
    let mut world = world(2);
    let first = post(&world, 1);
    for round in 0..20_000 {
        world.cast(round % 2, b"ping or pong");
        // It comes in one step or in the next.
        (0..2).for_each(|_| short_step(&mut world, 100));
        for _ in 0..3 {
            let before = [post(&world, 0), post(&world, 1)];
            short_step(&mut world, 100);
            assert_eq!([post(&world, 0), post(&world, 1)], before, "round {round}");
        }
    }
    let passes = post(&world, 1).passes - first.passes;
    assert!(passes >= 20_000 / BATCH / 2, "{passes}");
    // Nothing more comes: what has begun goes on.
    world.cast(0, b"the last");
    short_step(&mut world, 100);
    (0..100).for_each(|_| short_step(&mut world, 100));
    let quiet = post(&world, 1);
    (0..100).for_each(|_| short_step(&mut world, 100));
    assert_eq!(post(&world, 1), quiet, "a pass that is over");
}

/// Who takes casts by layers does not hear what they tell, so that rows do not cease.
#[test]
fn what_casts_tell_rows_repeat_seldom() {
    for members in [2, 3, 8] {
        let config = Config { shadow: Shadow::Off, pack: false, ..Config::default() };
        let mut world = World::new(members, STACK, &config);
        // Who started which life has been said.
        world.steps(100_000);
        load(&mut world, 1, 100);
        // Two hundred times as long as a change may go unreported.
        let (_, post, retained) = load(&mut world, 1, 10_000);
        let rows = members as u64 * 200 / 4;
        assert!((rows / 4..=rows).contains(&post.whole), "a row takes a whole pass: {post:?}, {rows}");
        assert!(retained < 4000, "{retained}");
    }
}

/// Whoever waits until something is due must not be told for ever that it was due a while ago.
#[test]
fn what_is_due_is_done_and_is_not_due_any_more() {
    for shadow in [Shadow::Off, Shadow::Panic] {
        let config = Config { shadow, pack: false, ..Config::default() };
        let mut world = World::new(2, STACK, &config);
        for gap in 0..200 {
            world.cast(1, b"acknowledged a while later");
            for step in 0..400 {
                if step == gap {
                    world.cast(0, b"by plan, just after something else");
                }
                let before: Vec<Time> = world.nodes.iter().map(|node| node.endpoint.deadline()).collect();
                world.step();
                for (node, before) in world.nodes.iter().zip(before) {
                    // What has become due meanwhile may be left for the next iteration.
                    let due = node.endpoint.deadline();
                    let left = due == before && due != Time::ZERO;
                    assert!(due > world.now || !left, "{shadow:?}: {due} at {}", world.now);
                }
            }
        }
    }
}
