//! Every limit is a typed error or a wait, and nothing is lost at it.

mod common;

use std::time::Duration;

use common::{Dice, World, view};
use wadjet::accel::case::CommonCase;
use wadjet::endpoint::Endpoint;
use wadjet::group::HeldFor;
use wadjet::layers::FIXED_STACK;
use wadjet::stack::build::{Build, Field, TimerId};
use wadjet::stack::event::{Down, ExitReason, Message, Up};
use wadjet::stack::layer::{Context, Fast, Kind, Layer, NotNow};
use wadjet::stack::property::Properties;
use wadjet::stack::registry::{LayerEntry, Registry};
use wadjet::transport::Transport;
use wadjet::transport::memory::{Hub, HubOptions};
use wadjet::wire::Traffic;
use wadjet::{
    CastError, Config, Event, Incarnation, Life, LocalView, Rank, RankSet, SendError, Shadow, Time,
};

fn unpacked() -> Config {
    Config { pack: false, ..Config::default() }
}

/// Casts `count` numbered messages from `node`, waiting for room whenever there is none.
fn cast_all(world: &mut World, node: usize, count: usize) -> Vec<Vec<u8>> {
    let messages: Vec<Vec<u8>> = (0..count).map(|n| format!("{node}/{n}").into_bytes()).collect();
    for message in &messages {
        let mut steps = 0;
        while world.try_cast(node, message).is_err() {
            world.step();
            steps += 1;
            assert!(steps < 100_000, "there is room again some time");
        }
    }
    messages
}

fn writables(world: &World, node: usize) -> usize {
    world.nodes[node].log.events.iter().filter(|event| matches!(event, Event::Writable)).count()
}

#[test]
fn a_message_over_the_limit_is_refused_and_the_largest_arrives() {
    for accelerate in [true, false] {
        let mut world = World::new(3, FIXED_STACK, &Config { accelerate, ..Config::default() });
        let node = &mut world.nodes[0];
        let max = node.endpoint.group(node.key).message_bytes_max();
        assert_eq!(world.try_cast(0, &vec![1; max + 1]), Err(CastError::TooLong { length: max + 1, max }));
        let large = vec![7; max];
        world.cast(0, &large);
        world.cast(0, &large);
        let node = &mut world.nodes[0];
        let mut group = node.endpoint.group(node.key);
        let Err(SendError::TooLong { max, .. }) = group.send(&RankSet::one(Rank(1)), &[0; 65_000]) else {
            panic!("65000 bytes do not fit a frame of 2048");
        };
        group.send(&RankSet::all(3), &vec![9; max]).unwrap();
        // Repairs need a frame of their own for the header: the largest message must survive that too.
        let mut first = true;
        world.lose = Box::new(move |to, _| to == 2 && std::mem::take(&mut first));
        world.steps(3000);
        for node in 0..3 {
            assert_eq!(world.delivered(node, 0), [&large[..], &large[..]], "{node}");
            assert_eq!(world.nodes[node].log.sends.len(), 1);
        }
    }
}

#[test]
fn a_stopped_receiver_holds_the_senders_is_named_and_bounds_memory() {
    let window = 16;
    for (accelerate, shadow) in [(true, Shadow::Panic), (true, Shadow::Off), (false, Shadow::Off)] {
        let config =
            Config { accelerate, shadow, window_frames: window, waiting_frames_max: 8, ..unpacked() };
        let mut world = World::new(3, FIXED_STACK, &config);
        world.cast(0, b"warm");
        world.steps(500);
        world.nodes[2].stopped = true;
        let mut taken = vec![b"warm".to_vec()];
        let error = loop {
            let message = format!("{}", taken.len()).into_bytes();
            match world.try_cast(0, &message) {
                Ok(_) => taken.push(message),
                Err(error) => break error,
            }
            world.step();
            assert!(taken.len() < 200, "the window and the queue are bounded");
        };
        assert_eq!(error, CastError::Full { why: HeldFor::Acknowledgements, slowest: Some(Rank(2)) });
        assert_eq!(taken.len() as u64, 1 + window + 8, "a window of frames and the queue above it");
        world.steps(20_000);
        for node in 0..2 {
            let stats = world.nodes[node].stats();
            assert!(stats.retained <= window, "{stats:?}");
        }
        let node = &mut world.nodes[0];
        let group = node.endpoint.group(node.key);
        assert_eq!(group.slowest(), Some(Rank(2)));
        assert!(!group.writable());
        assert_eq!(writables(&world, 0), 0);
        world.nodes[2].stopped = false;
        assert!(world.until(20_000, |world| writables(world, 0) == 1), "told when there is room");
        taken.push(b"after".to_vec());
        world.cast(0, b"after");
        assert!(world.until(20_000, |world| world.delivered(2, 0).len() == taken.len()));
        for node in 0..3 {
            assert_eq!(world.delivered(node, 0), taken);
        }
        world.steps(20_000);
        assert_eq!(writables(&world, 0), 1, "told once");
        assert_eq!(world.nodes[0].stats().retained, 0);
    }
}

#[test]
fn at_the_number_limit_casts_are_refused_and_every_one_taken_before_arrives() {
    for (accelerate, shadow) in [(true, Shadow::Panic), (true, Shadow::Off), (false, Shadow::Off)] {
        let config = Config { accelerate, shadow, frame_number_limit: 100, window_frames: 8, ..unpacked() };
        let mut world = World::new(2, FIXED_STACK, &config);
        let mut taken = Vec::new();
        let mut refused = 0;
        while refused < 50 {
            let message = format!("{}", taken.len()).into_bytes();
            match world.try_cast(0, &message) {
                Ok(_) => taken.push(message),
                Err(CastError::NumberLimit) => refused += 1,
                Err(CastError::Full { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            world.step();
        }
        assert_eq!(taken.len(), 100);
        world.steps(5000);
        assert_eq!(world.delivered(1, 0), taken, "what was taken arrives");
        assert_eq!(world.delivered(0, 0), taken);
        let node = &mut world.nodes[0];
        assert!(!node.endpoint.group(node.key).writable());
        assert_eq!(node.stats().waiting, 0);
        world.cast(1, b"others go on");
        let node = &mut world.nodes[0];
        node.endpoint.group(node.key).send(&RankSet::one(Rank(1)), b"sends too").unwrap();
        world.steps(500);
        assert_eq!(world.delivered(0, 1), [b"others go on"]);
        assert_eq!(world.nodes[1].log.sends.len(), 1);
    }
}

#[test]
fn a_full_window_of_sends_is_refused_and_told_when_it_opens() {
    for (accelerate, shadow) in [(true, Shadow::Panic), (true, Shadow::Off), (false, Shadow::Off)] {
        for number_limit in [1 << 40, 1] {
            let config = Config {
                accelerate,
                shadow,
                window_frames: 16,
                frame_number_limit: number_limit,
                ..unpacked()
            };
            let mut world = World::new(3, FIXED_STACK, &config);
            // With a limit of one, casts are never writable again: that must not keep sends waiting.
            world.cast(0, b"first and last");
            world.steps(500);
            world.nodes[2].stopped = true;
            let to = RankSet::one(Rank(2));
            let mut taken = Vec::new();
            let node = &mut world.nodes[0];
            let error = loop {
                let message = format!("{}", taken.len()).into_bytes();
                match node.endpoint.group(node.key).send(&to, &message) {
                    Ok(()) => taken.push(message),
                    Err(error) => break error,
                }
                assert!(taken.len() < 200);
            };
            assert_eq!(error, SendError::Full { to: Rank(2), why: HeldFor::Acknowledgements });
            assert_eq!(taken.len(), 8, "half of the window");
            node.endpoint.group(node.key).send(&RankSet::one(Rank(1)), b"to another").unwrap();
            world.steps(3000);
            assert_eq!(writables(&world, 0), 0, "nothing has changed");
            world.nodes[2].stopped = false;
            assert!(world.until(20_000, |world| writables(world, 0) == 1));
            taken.push(b"after".to_vec());
            let node = &mut world.nodes[0];
            node.endpoint.group(node.key).send(&to, b"after").unwrap();
            world.steps(3000);
            let sends: Vec<&[u8]> =
                world.nodes[2].log.sends.iter().map(|(_, message)| &message[..]).collect();
            assert_eq!(sends, taken);
        }
    }
}

#[test]
fn with_few_control_frames_sends_are_refused_and_later_taken() {
    for shadow in [Shadow::Panic, Shadow::Off] {
        let config = Config { control_frames: 16, window_frames: 1024, shadow, ..unpacked() };
        let mut world = World::new(2, FIXED_STACK, &config);
        let to = RankSet::one(Rank(1));
        let mut taken = Vec::new();
        let mut refused = 0;
        while taken.len() < 300 {
            let message = format!("{}", taken.len()).into_bytes();
            let node = &mut world.nodes[0];
            match node.endpoint.group(node.key).send(&to, &message) {
                Ok(()) => taken.push(message),
                Err(SendError::NoFrame(_) | SendError::Full { .. }) => {
                    refused += 1;
                    let before = writables(&world, 0);
                    assert!(world.until(30_000, |world| writables(world, 0) > before), "{}", taken.len());
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(refused > 0 && refused < 200, "told when there is a frame, not before: {refused}");
        world.steps(10_000);
        let sends: Vec<&[u8]> = world.nodes[1].log.sends.iter().map(|(_, message)| &message[..]).collect();
        assert_eq!(sends, taken);
    }
}

#[test]
fn sends_to_a_member_that_is_cut_off_leave_frames_for_sends_to_the_others() {
    for (control_frames, members) in [(16, 3), (64, 3), (64, 9)] {
        let config = Config { control_frames, window_frames: 1024, ..unpacked() };
        let mut world = World::new(members, FIXED_STACK, &config);
        world.lose = Box::new(|receiver, _| receiver == 2);
        let cut_off = RankSet::one(Rank(2));
        let mut taken = 0;
        let node = &mut world.nodes[0];
        while node.endpoint.group(node.key).send(&cut_off, b"to one that is cut off").is_ok() {
            taken += 1;
            assert!(taken < control_frames, "all control frames may be held by one member");
        }
        let other = RankSet::one(Rank(1));
        for number in 0..300_u32 {
            // Its own window may be full until it acknowledges; frames there are.
            let sent = |world: &mut World| {
                let node = &mut world.nodes[0];
                match node.endpoint.group(node.key).send(&other, &number.to_le_bytes()) {
                    Ok(()) => true,
                    Err(error) => {
                        assert_eq!(error, SendError::Full { to: Rank(1), why: HeldFor::Acknowledgements });
                        false
                    }
                }
            };
            assert!(world.until(3000, sent), "{control_frames} frames, {members} members: send {number}");
        }
    }
}

#[test]
fn a_transport_that_is_full_gets_its_frames_later_and_loses_none() {
    let hub = Hub::new(HubOptions { queue_frames_max: 2, ..HubOptions::default() });
    let config = Config { window_frames: 32, ..unpacked() };
    let mut world = World::over(&hub, 3, FIXED_STACK, &config, &Registry::standard());
    let messages = cast_all(&mut world, 0, 300);
    world.steps(5000);
    for node in 0..3 {
        assert_eq!(world.delivered(node, 0), messages);
    }
}

#[test]
fn windows_of_a_few_frames_lose_nothing_and_never_stall() {
    for window in [1, 2, 3, 4, 7] {
        for members in [1, 2, 3, 7] {
            for (accelerate, shadow) in [(true, Shadow::Panic), (true, Shadow::Off), (false, Shadow::Off)] {
                for lost in [0, 3] {
                    let config = Config { accelerate, shadow, window_frames: window, ..unpacked() };
                    let mut world = World::new(members, FIXED_STACK, &config);
                    let mut dice = Dice(window * 100 + members as u64);
                    world.lose = Box::new(move |_, _| lost > 0 && dice.below(10) < lost);
                    let messages: Vec<Vec<u8>> = (0..40).map(|n: u32| n.to_le_bytes().to_vec()).collect();
                    for message in &messages {
                        for node in 0..members {
                            world.cast(node, message);
                        }
                    }
                    let all = |world: &mut World| {
                        (0..members).all(|n| world.nodes[n].log.casts.len() == members * messages.len())
                    };
                    let done = world.until(200_000, all);
                    let stats: Vec<_> = world.nodes.iter().map(|node| node.stats()).collect();
                    assert!(done, "{window} {members} {accelerate} {shadow:?} {lost}: {stats:?}");
                    for node in 0..members {
                        for origin in 0..members as u16 {
                            assert_eq!(world.delivered(node, origin), messages);
                        }
                    }
                }
            }
        }
    }
}

/// Credit rides on the receiver's own casts; the last of them is lost on the way, and then the receiver falls silent.
#[test]
fn lost_credit_does_not_stall_a_sender() {
    for seed in 0..50 {
        for shadow in [Shadow::Panic, Shadow::Off] {
            let config = Config { window_frames: 4, shadow, waiting_frames_max: 1024, ..unpacked() };
            let mut world = World::new(3, FIXED_STACK, &config);
            let mut dice = Dice(seed);
            world.lose = Box::new(move |_, _| dice.below(10) < 4);
            let mut other = Dice(seed + 1000);
            for message in 0..60u32 {
                world.cast(0, &message.to_le_bytes());
                if other.below(3) == 0 {
                    world.cast(1, &message.to_le_bytes());
                }
                world.steps(other.below(20) as usize);
            }
            let done = world.until(1_000_000, |world| world.delivered(2, 0).len() == 60);
            let node = &mut world.nodes[0];
            let dump = node.endpoint.group(node.key).dump();
            assert!(done, "seed {seed} {shadow:?}: {dump:?} {:?}", node.stats());
        }
    }
}

#[test]
fn a_lone_message_that_is_lost_is_repaired_without_further_traffic() {
    for spec in ["NAK:CHKSUM:COM", "UNICAST:NAK:CHKSUM:COM", FIXED_STACK] {
        for (accelerate, shadow) in [(true, Shadow::Panic), (true, Shadow::Off), (false, Shadow::Off)] {
            let mut world = World::new(3, spec, &Config { accelerate, shadow, ..Config::default() });
            world.steps(100);
            let mut lost = 0;
            world.lose = Box::new(move |_, _| {
                lost += 1;
                lost <= 2
            });
            world.cast(0, b"alone");
            world.steps(3000);
            for node in 1..3 {
                assert_eq!(world.delivered(node, 0), [b"alone"], "{spec} {accelerate}");
            }
            if spec.contains("UNICAST") {
                let mut lost = 0;
                world.lose = Box::new(move |_, _| {
                    lost += 1;
                    lost <= 2
                });
                let node = &mut world.nodes[0];
                let to = [Rank(1), Rank(2)].into_iter().collect();
                node.endpoint.group(node.key).send(&to, b"alone").unwrap();
                world.steps(3000);
                for node in 1..3 {
                    assert_eq!(world.nodes[node].log.sends.len(), 1, "{spec} {accelerate}");
                }
            }
        }
    }
}

#[test]
fn sends_reach_only_whom_they_name_in_views_of_every_size() {
    for members in [1, 2, 3, 5] {
        for (accelerate, shadow) in [(true, Shadow::Panic), (true, Shadow::Off), (false, Shadow::Off)] {
            let mut world =
                World::new(members, FIXED_STACK, &Config { accelerate, shadow, ..Config::default() });
            for set in 1u64..1 << members {
                let to: RankSet = (0..members).filter(|n| set >> n & 1 == 1).map(Rank::at).collect();
                let node = &mut world.nodes[0];
                node.endpoint.group(node.key).send(&to, &set.to_le_bytes()).unwrap();
                if to.contains(Rank(0)) {
                    assert_eq!(node.endpoint.deadline(), Time::ZERO, "an own copy waits for the next poll");
                }
                world.steps(2);
            }
            world.steps(3000);
            for n in 0..members {
                let sends: Vec<u64> = world.nodes[n]
                    .log
                    .sends
                    .iter()
                    .map(|(_, message)| u64::from_le_bytes(message[..].try_into().unwrap()))
                    .collect();
                let expected: Vec<u64> = (1u64..1 << members).filter(|set| set >> n & 1 == 1).collect();
                assert_eq!(sends, expected, "member {n} of {members}");
                assert_eq!(world.nodes[n].stats().retained, 0);
            }
            let node = &mut world.nodes[0];
            let outside = RankSet::one(Rank::at(members));
            let error = node.endpoint.group(node.key).send(&outside, b"x");
            assert_eq!(error, Err(SendError::NotAMember(Rank::at(members))));
        }
    }
    let mut world = World::new(2, "NAK:COM", &Config::default());
    let node = &mut world.nodes[0];
    let error = node.endpoint.group(node.key).send(&RankSet::one(Rank(1)), b"x");
    assert_eq!(error, Err(SendError::NoLayer));
}

#[test]
fn a_process_restarted_with_its_old_incarnation_is_told_to_go_and_falls_silent() {
    for accelerate in [true, false] {
        let hub = Hub::new(HubOptions::default());
        let config = Config { accelerate, ..Config::default() };
        let mut world = World::over(&hub, 3, FIXED_STACK, &config, &Registry::standard());
        for n in 0..20u8 {
            world.cast(0, &[n]);
            world.cast(1, &[n]);
            world.step();
        }
        world.steps(500);
        // Member 1 dies and comes back as if nothing had been.
        let incarnation = Incarnation(101);
        let mut endpoint = Endpoint::new(config.clone(), incarnation).unwrap();
        let local = LocalView::new(view(3, FIXED_STACK), incarnation).unwrap();
        let node = &mut world.nodes[1];
        node.transport = hub.transport();
        let channel = node.transport.open(&local, &endpoint.channel_options(3));
        let channel = match channel {
            Ok(channel) => channel,
            Err(_) => {
                let (old, fresh) = (hub.transport(), hub.transport());
                drop(old);
                node.transport = fresh;
                node.transport.open(&local, &endpoint.channel_options(3)).unwrap()
            }
        };
        node.key = endpoint.install(local, channel, &node.transport.caps(), world.now).unwrap();
        node.endpoint = endpoint;
        node.log = Default::default();
        world.cast(1, b"again from zero");
        let exited = |world: &mut World| {
            world.nodes[1].log.events.iter().any(|event| {
                matches!(event, Event::Exit(ExitReason::Reincarnated { reported, .. }) if *reported >= 10)
            })
        };
        assert!(world.until(10_000, exited), "{:?}", world.nodes[1].log.events);
        assert!(matches!(world.try_cast(1, b"x"), Err(CastError::Exited(_))));
        world.record = true;
        world.nodes[1].sent.clear();
        world.steps(10_000);
        assert!(world.nodes[1].sent.is_empty(), "nothing is sent after Exit");
        assert_eq!(world.nodes[1].endpoint.deadline(), Time::NEVER);
        for node in [0, 2] {
            assert_eq!(world.delivered(node, 1).len(), 20, "nobody delivers from the impostor");
        }
    }
}

/// The worst case: the former life was heard of, but has cast nothing that the new one could contradict.
#[test]
fn a_second_life_of_an_incarnation_is_told_to_go_whatever_it_has_cast() {
    for (accelerate, quiet) in [(true, true), (true, false), (false, true), (false, false)] {
        let hub = Hub::new(HubOptions::default());
        let config = Config { accelerate, ..Config::default() };
        let mut world = World::over(&hub, 3, FIXED_STACK, &config, &Registry::standard());
        let restart = |world: &mut World, n: usize, life: u32| {
            let incarnation = Incarnation(100 + n as u64);
            let mut endpoint = Endpoint::new(config.clone(), incarnation).unwrap();
            endpoint.set_life(Life(life));
            let local = LocalView::new(view(3, FIXED_STACK), incarnation).unwrap();
            let node = &mut world.nodes[n];
            // The place in the view is free when the transport that had it is gone.
            node.transport = hub.transport();
            let channel = node.transport.open(&local, &endpoint.channel_options(3)).unwrap();
            node.key = endpoint.install(local, channel, &node.transport.caps(), world.now).unwrap();
            node.endpoint = endpoint;
            node.log = Default::default();
        };
        for n in 0..3 {
            restart(&mut world, n, 7 + n as u32);
        }
        world.steps(500);
        if !quiet {
            world.cast(0, b"something");
            world.steps(500);
        }
        for node in &world.nodes {
            assert!(node.log.events.iter().all(|event| !matches!(event, Event::Exit(_))));
            assert_eq!(node.endpoint.deadline(), Time::NEVER, "lives are told once and not for ever");
        }
        restart(&mut world, 1, 1234);
        let exited = |world: &mut World| {
            let other = |event: &Event| matches!(event, Event::Exit(ExitReason::OtherLife { .. }));
            world.nodes[1].log.events.iter().any(other)
        };
        assert!(world.until(10_000, exited), "{:?}", world.nodes[1].log.events);
        let Err(CastError::Exited(reason)) = world.try_cast(1, b"x") else { panic!("it casts on") };
        assert!(reason.to_string().contains("start with a new incarnation"), "{reason}");
        for n in [0, 2] {
            assert!(world.nodes[n].counted("stack", "gossip of another life") > 0);
        }
        world.cast(0, b"the others go on");
        world.steps(100);
        assert_eq!(world.delivered(2, 0).last().unwrap(), b"the others go on");
    }
}

#[test]
fn a_member_that_left_sends_and_delivers_nothing() {
    let mut world = World::new(3, FIXED_STACK, &Config::default());
    world.cast(0, b"one");
    world.steps(200);
    let node = &mut world.nodes[1];
    node.endpoint.group(node.key).leave();
    world.steps(2);
    assert!(matches!(world.nodes[1].log.events.last(), Some(Event::Exit(ExitReason::Left))));
    assert!(matches!(world.try_cast(1, b"x"), Err(CastError::Exited(ExitReason::Left))));
    world.cast(0, b"two");
    world.record = true;
    world.nodes[1].sent.clear();
    world.steps(1000);
    assert_eq!(world.delivered(1, 0), [b"one"]);
    assert_eq!(world.delivered(2, 0), [&b"one"[..], b"two"]);
    assert!(world.nodes[1].sent.is_empty());
    assert!(world.nodes[1].endpoint.dropped().exited > 0);
    assert_eq!(world.nodes[1].endpoint.deadline(), Time::NEVER);
}

#[test]
fn early_delay_and_friends_are_durations_and_limits_that_config_checks() {
    let error = |config: Config| config.check().unwrap_err().to_string();
    assert!(error(Config { window_frames: 0, ..Config::default() }).contains("window_frames is 0"));
    assert!(error(Config { frame_number_limit: 0, ..Config::default() }).contains("frame_number_limit"));
    assert!(error(Config { order_frames_max: 0, ..Config::default() }).contains("order_frames_max"));
    let config = Config { early_delay: Duration::ZERO, early_frames_max: 0, ..Config::default() };
    assert_eq!(config.check(), Ok(()));
}

/// What others must still get is retained at every receiver. Beyond the budget it is retained as a copy: nothing more of
/// the transport's memory is pinned, and nothing is lost.
#[test]
fn what_is_retained_of_others_beyond_the_budget_is_copied() {
    for (accelerate, shadow) in [(true, Shadow::Panic), (true, Shadow::Off), (false, Shadow::Off)] {
        for budget in [0, 20_000, Config::default().retain_bytes_max] {
            let config =
                Config { accelerate, shadow, retain_bytes_max: budget, window_frames: 64, ..unpacked() };
            let mut world = World::new(3, FIXED_STACK, &config);
            world.nodes[2].stopped = true;
            let mut expected: [Vec<Vec<u8>>; 2] = Default::default();
            for round in 0..60 {
                for (node, expected) in expected.iter_mut().enumerate() {
                    let message = format!("{node}/{round}").into_bytes();
                    world.cast(node, &message);
                    expected.push(message);
                }
                world.steps(5);
                for node in 0..2 {
                    let stats = world.nodes[node].stats();
                    assert!(stats.retained_bytes <= budget, "{} of {budget}", stats.retained_bytes);
                }
            }
            world.steps(500);
            for node in 0..2 {
                let stats = world.nodes[node].stats();
                assert_eq!(stats.retained, 120, "own casts and those of the other");
                let copied = match budget {
                    0 => 60..61,
                    20_000 => 45..60,
                    _ => 0..1,
                };
                assert!(copied.contains(&stats.copies), "{} copies, budget {budget}", stats.copies);
            }
            world.nodes[2].stopped = false;
            world.lose = {
                let mut dice = Dice(9);
                Box::new(move |_, _| dice.below(5) == 0)
            };
            assert!(world.until(50_000, |world| world.nodes[2].log.casts.len() == 120));
            world.steps(5_000);
            for node in 0..3 {
                for (origin, expected) in (0..).zip(&expected) {
                    assert_eq!(world.delivered(node, origin), *expected, "{node} {origin}");
                }
                assert_eq!(
                    (world.nodes[node].stats().retained, world.nodes[node].stats().retained_bytes),
                    (0, 0)
                );
            }
        }
    }
}

/// Has control messages for the members of higher rank, more than they may have unacknowledged, and sends them as they
/// are taken.
#[derive(Clone, Default)]
struct Talker {
    timer: Option<TimerId>,
    /// By peer: how many were taken, and are to be.
    sent: Vec<u64>,
    wanted: u64,
    /// By origin: what comes next.
    expected: Vec<u64>,
}

const TALK: u64 = 500;

impl Talker {
    fn talk(&mut self, context: &mut Context<'_>) {
        let higher = usize::from(context.rank().0) + 1..context.view().size();
        for peer in higher.map(Rank::at) {
            while self.sent[peer.index()] < self.wanted {
                let Ok(mut body) = context.control_frame() else { return };
                body.extend(&self.sent[peer.index()].to_le_bytes()).unwrap();
                match context.send_reliable(RankSet::one(peer), body) {
                    Ok(()) => self.sent[peer.index()] += 1,
                    Err(NotNow::Unacknowledged(slowest)) => {
                        assert_eq!((slowest, context.reliable_room(peer)), (peer, 0));
                        context.count("not now");
                        break;
                    }
                    Err(NotNow::NoFrame) => {
                        context.count("no frame");
                        return;
                    }
                }
            }
        }
    }
}

impl Layer for Talker {
    fn name(&self) -> &'static str {
        "TALKER"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.timer = Some(build.timer("talk"));
        self.sent = vec![0; build.view().size()];
        self.expected = vec![0; build.view().size()];
    }

    fn start(&mut self, context: &mut Context<'_>) {
        context.arm(self.timer.unwrap(), context.now() + Duration::from_millis(1));
    }

    fn control(&mut self, context: &mut Context<'_>, origin: Rank, message: &Message) {
        let expected = &mut self.expected[origin.index()];
        assert_eq!(message.list.payload(), expected.to_le_bytes());
        *expected += 1;
        context.count("heard");
    }

    fn timer(&mut self, context: &mut Context<'_>, _timer: TimerId) {
        self.wanted = TALK;
        self.talk(context);
    }

    fn post(&mut self, context: &mut Context<'_>) {
        self.talk(context);
    }

    fn common_case(&self, _kind: Kind, _case: &mut CommonCase<'_>) -> Fast {
        Fast::Transparent
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }
}

/// Far more reliable control messages than windows and frames hold: the layer is told "not now", nothing waits without
/// bound, nobody starves, and everything arrives in order once the receivers read.
#[test]
fn reliable_control_messages_beyond_the_reserve_are_refused_until_there_is_room() {
    let registry = Registry::standard().with(LayerEntry {
        name: "TALKER",
        about: "many control messages",
        requires: Properties::NONE,
        provides: Properties::NONE,
        destroys: Properties::NONE,
        cost: 0,
        parameters: &[],
        make: |_| Ok(Box::<Talker>::default()),
    });
    let spec = format!("TALKER:{FIXED_STACK}");
    for (accelerate, window_frames, control_frames, refusal) in
        [(true, 16, 512, "not now"), (false, 16, 512, "not now"), (true, 1024, 64, "no frame")]
    {
        let config = Config { accelerate, window_frames, control_frames, ..unpacked() };
        let mut world = World::with_registry(3, &spec, &config, &registry);
        world.nodes[2].stopped = true;
        world.steps(2000);
        assert!(world.nodes[0].counted("TALKER", refusal) > 0, "{refusal}");
        assert_eq!(world.nodes[0].counted("UNICAST", "control message put off"), 0);
        let retained = world.nodes[0].stats().retained;
        assert!(retained <= 2 * window_frames.min(control_frames as u64), "{retained}");
        world.nodes[2].stopped = false;
        world.lose = {
            let mut dice = Dice(5);
            Box::new(move |_, _| dice.below(10) == 0)
        };
        let heard = |world: &World, node: usize| world.nodes[node].counted("TALKER", "heard");
        assert!(world.until(400_000, |world| heard(world, 1) == TALK && heard(world, 2) == 2 * TALK));
        world.cast(0, b"and casts go on");
        world.steps(5000);
        assert_eq!(world.delivered(2, 0).len(), 1);
    }
}

/// Sends and checks a number of four bits with every cast.
#[derive(Clone, Default)]
struct Narrow(Option<Field>);

impl Layer for Narrow {
    fn name(&self) -> &'static str {
        "NARROW"
    }

    fn install(&mut self, build: &mut Build<'_>) {
        self.0 = Some(build.protocol_field(Traffic::Cast, "number", 4));
    }

    fn down(&mut self, context: &mut Context<'_>, mut event: Down) {
        if let (Down::Cast(message), Some(field)) = (&mut event, self.0) {
            message.set_field(field, context.sending(field, context.rank()));
            context.advance_sending(field, context.rank());
        }
        context.down(event);
    }

    fn up(&mut self, context: &mut Context<'_>, event: Up) {
        if let (Up::Cast(origin, _), Some(field)) = (&event, self.0) {
            context.advance_expected(field, *origin);
        }
        context.up(event);
    }

    fn common_case(&self, kind: Kind, case: &mut CommonCase<'_>) -> Fast {
        if matches!(kind, Kind::CastSend | Kind::CastDeliver | Kind::SelfDeliver) {
            case.advance(self.0.expect("installed"));
        }
        Fast::Declared
    }

    fn fork(&self) -> Box<dyn Layer> {
        Box::new(self.clone())
    }
}

#[test]
fn the_narrowest_field_ends_the_numbers_of_a_view_before_it_wraps() {
    let registry = Registry::standard().with(LayerEntry {
        name: "NARROW",
        about: "a number of four bits",
        requires: Properties::NONE,
        provides: Properties::NONE,
        destroys: Properties::NONE,
        cost: 0,
        parameters: &[],
        make: |_| Ok(Box::<Narrow>::default()),
    });
    for accelerate in [true, false] {
        let config = Config { accelerate, ..unpacked() };
        let mut world = World::with_registry(2, &format!("NARROW:{FIXED_STACK}"), &config, &registry);
        let taken = (0..40).filter(|_| {
            world.steps(20);
            world.try_cast(0, b"numbered").is_ok()
        });
        assert_eq!(taken.count(), 15);
        assert_eq!(world.try_cast(0, b"one more"), Err(CastError::NumberLimit));
        world.steps(100);
        assert_eq!(world.delivered(1, 0).len(), 15);
    }
}
