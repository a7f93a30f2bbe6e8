//! Frames taken in together are what they are one by one ([`Endpoint::receive_all`]), whatever is lost, swapped, repeated or
//! damaged among them, and whatever upcalls do meanwhile.

mod common;

use common::{Dice, World};
use wadjet::buf::{Region, RegionOptions};
use wadjet::layers::FIXED_STACK;
use wadjet::stats::FastPath;
use wadjet::transport::{Received, Transport};
use wadjet::{Application, Config, Delivery, Event, Group, Shadow};

const CHECKED_STACK: &str = "COUNT:CHK_FIFO:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";
/// Turns end and begin among the frames: everybody answers some of them.
const TURNS_STACK: &str = "TOTAL(burst=5):FIXED:COUNT:CHK_FIFO:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";
/// With effects, and fields that travel.
const FIELDS_STACK: &str =
    "METER:CHK_FIFO(wire=yes):STABLE:FC:UNICAST:CHK_FIFO(wire=yes):LOCAL:METER:NAK:CHKSUM:COM";
/// Orders come among the frames, and runs end with some of them.
const ORDERS_STACK: &str = "SEQUENCER:FIXED:COUNT:CHK_FIFO:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";

/// What a frame would be with one bit changed.
fn damaged(received: &Received, at: usize) -> Received {
    let mut bytes = received.bytes().to_vec();
    let last = bytes.len() - 1;
    bytes[at.min(last)] ^= 4;
    common::received(&bytes)
}

/// A round of both worlds: what comes to member 1 is arranged alike, and taken in together by that of the first, one by one
/// by that of the second.
fn round(worlds: &mut [World; 2], dice: &Dice, damage: bool) {
    for (together, world) in [true, false].into_iter().zip(worlds) {
        let mut dice = Dice(dice.0);
        let mut frames = Vec::new();
        world.nodes[1].transport.receive(1024, &mut |received| frames.push(received));
        let mut arranged: Vec<Received> = Vec::new();
        for frame in frames {
            match dice.below(16) {
                0 => continue,
                1 => arranged.extend([frame.clone(), frame]),
                2 if damage => arranged.push(damaged(&frame, dice.below(100) as usize)),
                _ => arranged.push(frame),
            }
        }
        if arranged.len() > 1 && dice.below(3) == 0 {
            let at = dice.below(arranged.len() as u64 - 1) as usize;
            arranged.swap(at, at + 1);
        }
        let (node, now) = (&mut world.nodes[1], world.now);
        if together {
            node.endpoint.receive_all(&mut arranged, now, &mut node.log);
            assert!(arranged.is_empty());
        } else {
            arranged.into_iter().for_each(|received| node.endpoint.receive(received, now, &mut node.log));
        }
        world.step();
    }
}

#[test]
fn frames_together_are_what_they_are_one_by_one() {
    let specs = [
        (FIXED_STACK, false),
        (CHECKED_STACK, true),
        (FIELDS_STACK, true),
        (TURNS_STACK, true),
        (ORDERS_STACK, true),
    ];
    for (spec, damage) in specs {
        let mut taken_together = 0;
        for seed in 0..40 {
            let members = 2 + seed as usize % 2;
            let config = Config { pack: seed % 5 == 0, shadow: Shadow::Off, ..Config::default() };
            let mut worlds = [(); 2].map(|()| World::new(members, spec, &config));
            for world in &mut worlds {
                world.nodes[1].log.answers = vec![(vec![3, 3], vec![9])];
                world.nodes[1].log.ack = seed % 3 == 0;
            }
            let mut dice = Dice(seed);
            let (mut cast, mut together) = (0, 0);
            for _ in 0..60 {
                let casts = dice.below(12);
                // Those that wait for a turn may be as many as may wait.
                let taken = worlds.each_mut().map(|world| {
                    let taken = (0..casts).filter(|n| world.try_cast(0, &[3, *n as u8]).is_ok()).count();
                    world.nodes[1].stopped = true;
                    world.step();
                    world.nodes[1].stopped = false;
                    taken
                });
                assert_eq!(taken[0], taken[1], "{spec}: seed {seed}");
                cast += taken[0];
                dice.below(2);
                round(&mut worlds, &dice, damage);
                let [one, other] = [0, 1].map(|n| &worlds[n].nodes[1]);
                assert_eq!(one.log.casts, other.log.casts, "{spec}: seed {seed}");
                let [one, other] = [one, other].map(|node| node.stats());
                together = one.fast_path.deliver_together;
                let but_for_that = |path| FastPath { deliver_together: 0, ..path };
                assert_eq!(but_for_that(one.fast_path), but_for_that(other.fast_path), "{spec}: seed {seed}");
                assert_eq!(one.misses, other.misses, "{spec}: seed {seed}");
                let dumps = worlds.each_mut().map(|world| {
                    let node = &mut world.nodes[1];
                    let mut lines = node.endpoint.group(node.key).dump();
                    lines.retain(|line| line.starts_with("METER"));
                    lines
                });
                assert_eq!(dumps[0], dumps[1], "{spec}: seed {seed}");
            }
            taken_together += together;
            for world in &mut worlds {
                let all = |world: &mut World| (0..2).all(|node| world.delivered(node, 0).len() == cast);
                assert!(world.until(20_000, all), "{spec}: seed {seed}");
                let expected: Vec<_> = world.delivered(0, 0).into_iter().map(<[u8]>::to_vec).collect();
                assert_eq!(world.delivered(1, 0), expected);
            }
        }
        assert!(taken_together > 200, "{spec}: {taken_together} frames were taken together");
    }
}

/// Leaves in the upcall of a message.
struct Leaves {
    at: usize,
    seen: usize,
    over: bool,
}

impl Application for Leaves {
    fn cast(&mut self, _delivery: &Delivery<'_>, group: &mut Group<'_>) {
        assert!(!self.over);
        self.seen += 1;
        if self.seen == self.at {
            group.leave();
        }
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        self.over |= matches!(event, Event::Exit(_));
    }
}

#[test]
fn who_leaves_in_an_upcall_gets_nothing_more_of_what_came_with_it() {
    for at in 1..=10 {
        let config = Config { pack: false, shadow: Shadow::Off, ..Config::default() };
        let mut world = World::new(2, FIXED_STACK, &config);
        (0..10).for_each(|n| world.cast(0, &[n]));
        world.nodes[1].stopped = true;
        world.step();
        let mut frames = Vec::new();
        let (node, now) = (&mut world.nodes[1], world.now);
        node.transport.receive(1024, &mut |received| frames.push(received));
        let mut app = Leaves { at, seen: 0, over: false };
        node.endpoint.receive_all(&mut frames, now, &mut app);
        node.endpoint.poll(now, &mut app);
        assert_eq!((app.seen, app.over), (at, true));
        assert_eq!(node.endpoint.dropped().exited > 0, at < 10, "they are counted as dropped");
    }
}

/// Leaves in the upcall of an own cast.
#[test]
fn who_leaves_in_the_upcall_of_an_own_cast_gets_no_more_of_them() {
    let config = Config { pack: false, shadow: Shadow::Off, ..Config::default() };
    let mut world = World::new(2, FIXED_STACK, &config);
    (0..10).for_each(|n| world.cast(0, &[n]));
    let (node, now) = (&mut world.nodes[0], world.now);
    let mut app = Leaves { at: 4, seen: 0, over: false };
    (0..2).for_each(|_| node.endpoint.poll(now, &mut app));
    assert_eq!((app.seen, app.over), (4, true));
}

#[test]
fn frames_of_nobody_among_a_run_are_dropped_and_counted() {
    let config = Config { pack: false, shadow: Shadow::Off, ..Config::default() };
    let mut world = World::new(2, FIXED_STACK, &config);
    (0..6).for_each(|n| world.cast(0, &[n]));
    world.nodes[1].stopped = true;
    world.step();
    let mut frames = Vec::new();
    let (node, now) = (&mut world.nodes[1], world.now);
    node.transport.receive(1024, &mut |received| frames.push(received));
    let options = RegionOptions {
        frames: 1,
        link_headroom_bytes: 0,
        frame_bytes: 64,
        reserve_frames: 0,
        huge_pages: false,
    };
    let empty = Region::pool(options).unwrap().take(0).unwrap().freeze();
    let (from, to) = (empty.start(), empty.end());
    frames.insert(2, Received { frame: empty, from, to, ..frames[0].clone() });
    frames.insert(4, common::received(&[1; 40]));
    node.endpoint.receive_all(&mut frames, now, &mut node.log);
    assert_eq!(node.log.casts.len(), 6);
    let dropped = node.endpoint.dropped();
    assert_eq!((dropped.short, dropped.unknown_cookie), (1, 1));
    assert_eq!(node.stats().fast_path.deliver_hit, 6);
}
