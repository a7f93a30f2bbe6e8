//! Repair while somebody else is slow, stopped or busy: what one member lacks must not wait for another.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use common::{World, view};
use wadjet::accel::case::CommonCase;
use wadjet::config::Shadow;
use wadjet::group::Event;
use wadjet::id::Life;
use wadjet::layers::FIXED_STACK;
use wadjet::stack::build::{Build, TimerId};
use wadjet::stack::event::Message;
use wadjet::stack::layer::{Context, Fast, Kind, Layer};
use wadjet::stack::property::{Properties, Property};
use wadjet::stack::registry::{LayerEntry, Registry};
use wadjet::transport::Transport;
use wadjet::transport::memory::{Hub, HubOptions};
use wadjet::{CastError, Config, Endpoint, Incarnation, LocalView, Rank, RankSet, SendError};

/// Steps of ten microseconds until `done`, at most `limit`.
fn steps_until(world: &mut World, limit: usize, mut done: impl FnMut(&mut World, usize) -> bool) -> usize {
    (0..limit).find(|at| done(world, *at)).unwrap_or(limit)
}

#[test]
fn a_lost_send_is_repeated_although_another_member_goes_on_acknowledging() {
    for every in [1, 100] {
        let mut world = World::new(3, FIXED_STACK, &Config::default());
        world.steps(100);
        let mut first = true;
        world.lose = Box::new(move |to, _| to == 2 && std::mem::take(&mut first));
        let node = &mut world.nodes[0];
        node.endpoint.group(node.key).send(&RankSet::one(Rank(2)), b"lost").unwrap();
        let steps = steps_until(&mut world, 5_000, |world, at| {
            if at.is_multiple_of(every) {
                let node = &mut world.nodes[0];
                // Refused now and then for want of frames: it is only there to be acknowledged.
                let _ = node.endpoint.group(node.key).send(&RankSet::one(Rank(1)), b"busy");
            }
            world.step();
            !world.nodes[2].log.sends.is_empty()
        });
        assert!(steps < 1_000, "repeated after {steps} steps of 10 us; one send to another every {every}");
    }
}

#[test]
fn the_gap_of_a_member_that_stopped_does_not_put_off_the_repair_of_others() {
    let mut world = World::new(3, FIXED_STACK, &Config::default());
    world.steps(100);
    world.lose = Box::new(|to, received| to == 1 && received.bytes().windows(4).any(|word| word == b"gone"));
    world.cast(2, b"gone");
    world.step();
    world.cast(2, b"next");
    world.steps(2);
    world.nodes[2].stopped = true;
    // Long enough for the stopped member's gap to be asked for at the longest interval.
    world.steps(30_000);
    for round in 0..10 {
        let lost = format!("lose{round:02}").into_bytes();
        let (pattern, mut once) = (lost.clone(), true);
        world.lose = Box::new(move |to, received| {
            to == 1
                && received.bytes().windows(pattern.len()).any(|word| word == pattern)
                && std::mem::take(&mut once)
        });
        let before = world.nodes[1].log.casts.len();
        world.cast(0, &lost);
        world.step();
        world.cast(0, b"after");
        let steps = steps_until(&mut world, 5_000, |world, _| {
            world.step();
            world.nodes[1].log.casts.len() >= before + 2
        });
        assert!(steps < 200, "repaired after {steps} steps of 10 us");
        world.steps(137);
    }
}

#[test]
fn a_frame_that_never_arrives_is_told_of_once_with_its_length() {
    for way in 0..2 {
        let mut world = World::new(3, FIXED_STACK, &Config::default());
        world.steps(100);
        // A way that drops longer frames without a word; or loses much of everything, which is nobody's fault.
        let mut dice = 1_u64;
        world.lose = match way {
            0 => Box::new(|to, received| to == 1 && received.bytes().len() > 600),
            _ => Box::new(move |to, _| {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                to == 1 && !(dice >> 33).is_multiple_of(4)
            }),
        };
        world.cast(0, &[7; 100]);
        world.cast(0, &[7; 1000]);
        world.steps(300_000);
        world.cast(0, &[7; 100]);
        world.steps(300_000);
        let got = world.nodes[1].log.casts.len();
        let problems = |world: &World, node: usize| -> Vec<(Option<Rank>, String)> {
            let events = world.nodes[node].log.events.iter();
            let of = |event: &Event| match event {
                Event::Problem(problem) => Some((problem.origin, problem.what.to_string())),
                _ => None,
            };
            events.filter_map(of).collect()
        };
        let told = problems(&world, 0);
        match way {
            0 => {
                assert_eq!((got, told.len()), (1, 1), "{told:?}");
                let (member, what) = &told[0];
                assert_eq!(*member, Some(Rank(1)));
                assert!(what.contains("a cast of 1000 bytes") && what.contains("frame_bytes_max"), "{what}");
            }
            _ => assert_eq!((got, told.len()), (3, 0), "{told:?}"),
        }
        assert!(problems(&world, 1).is_empty() && problems(&world, 2).is_empty());
    }
}

#[test]
fn the_event_queue_holds_what_repetition_to_many_members_sets_off() {
    let config = Config { window_frames: 64, control_frames: 4096, shadow: Shadow::Off, ..Config::default() };
    let mut world = World::new(64, FIXED_STACK, &config);
    world.steps(10);
    world.lose = Box::new(|_, _| true);
    for _ in 0..20 {
        let node = &mut world.nodes[0];
        node.endpoint.group(node.key).send(&RankSet::all(64), b"to all").unwrap();
    }
    world.steps(600);
    assert!(world.nodes[0].counted("UNICAST", "repetition") >= 63 * 16);
}

/// A burst that is lost to all at once is not answered by a burst for each of them: what is resent is bounded over all who
/// ask, and each of them gets what it lacks.
#[test]
fn what_is_resent_to_all_together_is_bounded() {
    const OTHERS: usize = 15;
    const CASTS: usize = 400;
    let config = Config { pack: false, shadow: Shadow::Off, control_frames: 4096, ..Config::default() };
    let mut world = World::new(1 + OTHERS, FIXED_STACK, &config);
    world.steps(100);
    world.lose = Box::new(|to, _| to != 0);
    for cast in 0..CASTS {
        world.cast(0, &(cast as u64).to_le_bytes());
        world.step();
    }
    world.lose = Box::new(|_, _| false);
    world.cast(0, b"the last");
    // Steps of 10 us: twenty make an interval of repair.
    let (mut before, mut most) = (Vec::new(), 0);
    let steps = steps_until(&mut world, 20_000, |world, _| {
        world.step();
        let resent = world.nodes[0].counted("NAK", "retransmission");
        before.push(resent);
        // Any ten intervals: what they allow, what was saved before them, and a quarter of what is cast.
        let earlier = before.len().checked_sub(201).map_or(0, |at| before[at]);
        most = most.max(resent - earlier);
        (1..=OTHERS).all(|to| world.delivered(to, 0).len() == CASTS + 1)
    });
    assert!(steps < 20_000, "{} of {} frames resent", before.last().unwrap(), CASTS * OTHERS);
    assert!(most <= 64 * (11 + 4) + 1, "{most} frames in 2 ms");
    assert!(most > 64 * 8, "and they do not idle: {most}");
    assert!(world.nodes[0].counted("NAK", "repair put off") > 0);
}

#[test]
fn nothing_is_taken_after_leaving() {
    let mut world = World::new(2, FIXED_STACK, &Config::default());
    world.steps(100);
    world.cast(0, b"before");
    let node = &mut world.nodes[0];
    let mut group = node.endpoint.group(node.key);
    group.leave();
    assert!(matches!(group.cast(b"after"), Err(CastError::Exited(_))));
    assert!(matches!(group.send(&RankSet::one(Rank(1)), b"after"), Err(SendError::Exited(_))));
    world.steps(500);
    assert_eq!(world.delivered(1, 0), [b"before"]);
    assert!(world.delivered(0, 0).is_empty(), "nothing is delivered after the exit");
    assert_eq!(world.nodes[0].stats().retained, 0);
}

#[test]
fn numbers_of_sends_run_out_by_member_with_a_typed_error() {
    let config = Config { send_number_limit: 3, ..Config::default() };
    let mut world = World::new(3, FIXED_STACK, &config);
    let node = &mut world.nodes[0];
    let mut group = node.endpoint.group(node.key);
    for _ in 0..3 {
        group.send(&RankSet::one(Rank(1)), b"numbered").unwrap();
    }
    assert_eq!(group.send(&RankSet::one(Rank(1)), b"one more"), Err(SendError::NumberLimit(Rank(1))));
    group.send(&RankSet::one(Rank(2)), b"to another").unwrap();
    world.steps(500);
    assert_eq!(world.nodes[1].log.sends.len(), 3);
    assert_eq!(world.nodes[2].log.sends.len(), 1);
}

/// Whoever asks a large group how far it is, one that has just come to life here, hears the members one after the other: it
/// has as long for each row as it takes to get in step again, and not a burst of all of them that overruns what it receives
/// with.
#[test]
fn a_large_group_does_not_answer_at_once_who_asks_all_of_it() {
    const MEMBERS: usize = 24;
    for late in [0, 11, MEMBERS - 1] {
        let hub = Hub::new(HubOptions::default());
        let config = Config::default();
        let mut world = World::over(&hub, MEMBERS, FIXED_STACK, &config, &Registry::standard());
        world.nodes[late].stopped = true;
        world.steps(100);
        let incarnation = Incarnation(100 + late as u64);
        let mut endpoint = Endpoint::new(config.clone(), incarnation).unwrap();
        endpoint.set_life(Life(7));
        let local = LocalView::new(view(MEMBERS, FIXED_STACK), incarnation).unwrap();
        let now = world.now;
        let node = &mut world.nodes[late];
        // The place in the view is free when the transport that had it is gone.
        node.transport = hub.transport();
        let channel = node.transport.open(&local, &endpoint.channel_options(MEMBERS)).unwrap();
        node.key = endpoint.install(local, channel, &node.transport.caps(), now).unwrap();
        (node.endpoint, node.stopped) = (endpoint, false);
        let arrived = Rc::new(Cell::new(0));
        let counted = arrived.clone();
        world.lose = Box::new(move |to, _| {
            counted.set(counted.get() + usize::from(to == late));
            false
        });
        // Steps of 10 us; who has a higher rank answers 20 us later.
        let one_step = |_| {
            world.step();
            arrived.take()
        };
        let by_step: Vec<usize> = (0..4 * MEMBERS).map(one_step).collect();
        assert!(by_step.iter().sum::<usize>() >= MEMBERS - 1, "all have answered: {by_step:?}");
        let most = by_step.windows(2).map(|steps| steps[0] + steps[1]).max().unwrap();
        assert!(most <= 2, "{most} answers within 20 us to {late}: {by_step:?}");
    }
}

/// TELLER: the first member tells the second something, reliably, from a timer.
fn teller() -> LayerEntry {
    LayerEntry {
        name: "TELLER",
        about: "tells something once",
        requires: Properties::of(&[Property::FifoUnicast]),
        provides: Properties::NONE,
        destroys: Properties::NONE,
        cost: 0,
        parameters: &[],
        make: |_| Ok(Box::new(Teller { timer: None })),
    }
}

#[derive(Clone)]
struct Teller {
    timer: Option<TimerId>,
}

const TOLD: &[u8] = b"told once";

impl Layer for Teller {
    fn name(&self) -> &'static str {
        "TELLER"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.timer = Some(build.timer("tell"));
    }

    fn start(&mut self, context: &mut Context<'_>) {
        if context.rank() == Rank(0) {
            // When the members know each other, and nothing else happens any more.
            context.arm(self.timer.expect("installed"), context.now() + Duration::from_secs(1));
        }
    }

    fn timer(&mut self, context: &mut Context<'_>, _timer: TimerId) {
        let mut body = context.control_frame().unwrap();
        body.extend(TOLD).unwrap();
        context.send_reliable(RankSet::one(Rank(1)), body).unwrap();
        context.count("told");
    }

    fn control(&mut self, context: &mut Context<'_>, _origin: Rank, message: &Message) {
        assert_eq!(message.list.payload(), TOLD);
        context.count("heard");
    }

    fn common_case(&self, _kind: Kind, _case: &mut CommonCase<'_>) -> Fast {
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }
}

/// A layer that repeats nothing itself relies on it, as XFER does with the last parts of a state.
#[test]
fn what_a_layer_sends_reliably_from_a_timer_is_repeated_although_nothing_else_happens() {
    let (spec, registry) = (format!("TELLER:{FIXED_STACK}"), Registry::standard().with(teller()));
    for lost in 1..4 {
        let mut world = World::with_registry(2, &spec, &Config::default(), &registry);
        let mut left = lost;
        world.lose = Box::new(move |to, received| {
            let tells = to == 1 && received.bytes().windows(TOLD.len()).any(|bytes| bytes == TOLD);
            let loses = tells && left > 0;
            left -= u32::from(loses);
            loses
        });
        assert!(world.until(200_000, |world| world.nodes[0].counted("TELLER", "told") == 1));
        let heard = |world: &mut World| world.nodes[1].counted("TELLER", "heard") == 1;
        assert!(world.until(10_000, heard), "not heard of 100 ms after it was told, {lost} losses");
        // And then it is over.
        let acknowledged = |world: &mut World| world.nodes[0].stats().retained == 0;
        assert!(world.until(10_000, acknowledged));
    }
}
