//! Plans and layers are the same stack: over random valid stacks, a group that runs by plans, half of the time with the
//! shadow watching, delivers what a group does that runs by the layers alone.
//!
//! One set of stacks is the same in every run of the test, another one is drawn anew from the time. What fails says how it
//! is run again: `WADJET_EQUIVALENCE_SEED=N`.

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Dice, World, view};
use wadjet::endpoint::Endpoint;
use wadjet::transport::Transport;
use wadjet::transport::memory::{Hub, HubOptions};
use wadjet::{CastError, Config, Incarnation, LocalView, Rank, RankSet, SendError, Shadow, Time};

/// Random stacks that are the same in every run of the test, and their seed.
const STACKS: u64 = 100;
const SEED: u64 = 20_261_121;
/// Random stacks that are others in every run, and where their seed comes from if one is given.
const NEW_STACKS: u64 = 100;
const SEED_VARIABLE: &str = "WADJET_EQUIVALENCE_SEED";
const ROUNDS: usize = 25;
const FRAME_BYTES: usize = 512;

fn config(accelerate: bool, pack: bool, shadow: Shadow) -> Config {
    Config { accelerate, pack, shadow, window_frames: 32, frame_bytes_max: FRAME_BYTES, ..Config::default() }
}

/// The layers of a reliable multicast, each optional one by the toss of a coin, others put in anywhere, and now and then
/// two neighbours the wrong way round. Not all of them are valid.
fn draw_stack(dice: &mut Dice) -> String {
    let mut layers: Vec<&str> = Vec::new();
    // Casts that a view which ends leaves without an order would be delivered by plan or not as time has it.
    let tops: &[&str] = match dice.below(4) {
        0 => &["SAFE", "TOTAL", "FIXED"],
        1 => &["SAFE", "SEQUENCER", "FIXED"],
        _ => &["XFER", "EVS", "MBRSHIP"],
    };
    let needed = ["TOTAL", "SEQUENCER", "FIXED"];
    for name in tops.iter().chain(&["SUSPECT", "FRAG"]) {
        if dice.below(2) == 0 || needed.contains(name) {
            layers.push(name);
        }
    }
    // Views are agreed on by those who suspect each other: half of them would be refused.
    if layers.contains(&"MBRSHIP") && !layers.contains(&"SUSPECT") && dice.below(4) > 0 {
        let at = 1 + layers.iter().position(|layer| *layer == "MBRSHIP").expect("it is there");
        layers.insert(at, "SUSPECT");
    }
    layers.push("STABLE");
    layers.push(if dice.below(2) == 0 { "FC" } else { "FC(window=8)" });
    layers.push("UNICAST");
    if dice.below(4) > 0 {
        layers.push("LOCAL");
    }
    layers.push("NAK");
    if dice.below(2) == 0 {
        layers.push("CHKSUM");
    }
    for _ in 0..dice.below(6) {
        let extra = ["COUNT", "TRACE", "CHK_FIFO", "CHK_FIFO(wire=yes)", "METER"][dice.below(5) as usize];
        layers.insert(dice.below(layers.len() as u64 + 1) as usize, extra);
    }
    if dice.below(3) == 0 {
        let at = dice.below(layers.len() as u64 - 1) as usize;
        layers.swap(at, at + 1);
    }
    layers.push("COM");
    layers.join(":")
}

/// Whether it can be installed. A stack that cannot is refused in words, not by an assertion.
fn is_valid(spec: &str) -> bool {
    let mut endpoint = Endpoint::new(config(true, true, Shadow::Off), Incarnation(100)).unwrap();
    let local = LocalView::new(view(2, spec), Incarnation(100)).unwrap();
    let mut transport = Hub::new(HubOptions::default()).transport();
    let channel = transport.open(&local, &endpoint.channel_options(2)).unwrap();
    match endpoint.install(local, channel, &transport.caps(), Time::ZERO) {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// What a member delivered of another: casts, and sends to it.
type Delivered = Vec<[Vec<Vec<u8>>; 2]>;

#[derive(Debug, PartialEq, Eq)]
struct Run {
    /// By receiver and origin.
    delivered: Vec<Delivered>,
    /// Casts refused for good, by member: too long for this stack.
    refused: Vec<usize>,
    /// By receiver: for each member and origin how much is held.
    held: Vec<Vec<Vec<u64>>>,
}

/// Runs the same script, drawn from `seed`, by plans or by layers; returns what came of it, and how many frames hit.
fn run(spec: &str, seed: u64, accelerate: bool) -> (Run, u64) {
    let mut script = Dice(seed);
    let members = 2 + script.below(2) as usize;
    let lost = [0, 0, 5, 20][script.below(4) as usize];
    let pack = script.below(2) == 0;
    // The shadow has plan and layers compared after every message, which also does the post-processing each time: without
    // it plans run as they do in earnest.
    let shadow = if script.below(2) == 0 { Shadow::Panic } else { Shadow::Off };
    let mut world = World::new(members, spec, &config(accelerate, pack, shadow));
    let mut losses = Dice(seed ^ 0x105e);
    world.lose = Box::new(move |_, _| losses.below(100) < lost);
    let mut refused = vec![0; members];
    for round in 0..ROUNDS {
        for (member, refused) in refused.iter_mut().enumerate() {
            // What is drawn does not depend on what becomes of it.
            let casts = [0, 1, 1, 5][script.below(4) as usize];
            for at in 0..casts {
                let length = [4, 40, 300, 1700][script.below(if at == 0 { 4 } else { 3 }) as usize];
                let mut message = vec![round as u8; length];
                message[..2].copy_from_slice(&[member as u8, at as u8]);
                *refused += usize::from(!cast(&mut world, member, &message));
            }
            if script.below(3) == 0 {
                let to = Rank::at((member + 1 + script.below(members as u64 - 1) as usize) % members);
                send(&mut world, member, to, &[member as u8, round as u8, 9]);
            }
        }
        world.steps(script.below(4) as usize);
    }
    // What is lost is repaired, and everything is reported.
    world.lose = Box::new(|_, _| false);
    let mut before = None;
    let quiet = (0..200).any(|_| {
        world.steps(100);
        world.now = world.now + Duration::from_millis(1);
        let now = Some(outcome(&mut world, &refused));
        let same = before == now;
        before = now;
        same
    });
    assert!(quiet, "{spec}, seed {seed}: it does not come to rest");
    if spec.contains("TOTAL") || spec.contains("SEQUENCER") {
        // By plan or by layers: how casts of different members follow each other is the same everywhere.
        let first = &world.nodes[0].log.casts;
        assert!(world.nodes.iter().all(|node| node.log.casts == *first), "{spec}, seed {seed}: two orders");
    }
    let hits = world.nodes.iter().map(|node| node.stats().fast_path);
    let hits = hits.map(|fast| fast.send_hit + fast.deliver_hit + fast.deliver_early).sum();
    (before.expect("it came to rest"), hits)
}

fn outcome(world: &mut World, refused: &[usize]) -> Run {
    let members = world.nodes.len();
    let from = |all: &[(u16, Vec<u8>)], origin: usize| -> Vec<Vec<u8>> {
        all.iter().filter(|(of, _)| usize::from(*of) == origin).map(|(_, message)| message.clone()).collect()
    };
    let of = |world: &World, member: usize| -> Delivered {
        let log = &world.nodes[member].log;
        (0..members).map(|origin| [from(&log.casts, origin), from(&log.sends, origin)]).collect()
    };
    let delivered = (0..members).map(|member| of(world, member)).collect();
    let held = world.nodes.iter_mut().map(|node| node.endpoint.group(node.key).stability().held).collect();
    Run { delivered, refused: refused.to_vec(), held }
}

/// Casts as soon as there is room; whether it can be cast at all.
fn cast(world: &mut World, member: usize, message: &[u8]) -> bool {
    for _ in 0..20_000 {
        // Where casts are safe, some are agreed.
        let node = &mut world.nodes[member];
        let mut group = node.endpoint.group(node.key);
        let taken = if message.len() == 40 { group.agreed().cast(message) } else { group.cast(message) };
        match taken {
            Ok(_) => return true,
            Err(CastError::Full { .. } | CastError::NoFrame(_)) => world.step(),
            Err(_) => return false,
        }
    }
    panic!("a cast is never taken");
}

fn send(world: &mut World, member: usize, to: Rank, message: &[u8]) {
    for _ in 0..20_000 {
        let node = &mut world.nodes[member];
        match node.endpoint.group(node.key).send(&RankSet::one(to), message) {
            Ok(()) => return,
            Err(SendError::Full { .. } | SendError::NoFrame(_)) => world.step(),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("a send is never taken");
}

/// Frames are numbered alike only where they are packed alike: how much of a pack goes into one frame depends on time.
fn comparable(mut run: Run) -> Run {
    let complete = |held: &Vec<Vec<u64>>| {
        // At rest everybody holds everything, whatever the numbers are.
        let all = &held[0];
        held.iter().all(|row| row == all)
    };
    let agree: Vec<bool> = run.held.iter().map(complete).collect();
    run.held = agree.iter().map(|agree| vec![vec![u64::from(*agree)]]).collect();
    run
}

/// Says how to run the test again if it fails, wherever it does.
struct Replay(u64);

impl Drop for Replay {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to see it again: {SEED_VARIABLE}={} cargo test --test equivalence", self.0);
        }
    }
}

/// Compares so many stacks that `seed` draws; returns how many of them had XFER.
fn compare(seed: u64, stacks: u64) -> u64 {
    let _replay = Replay(seed);
    let mut dice = Dice(seed);
    let (mut valid, mut drawn, mut hit, mut with_transfer) = (0, 0, 0, 0);
    while valid < stacks {
        drawn += 1;
        assert!(drawn < 20 * stacks, "few random stacks are valid");
        let spec = draw_stack(&mut dice);
        if !is_valid(&spec) {
            continue;
        }
        valid += 1;
        with_transfer += u64::from(spec.contains("XFER"));
        let seed = seed.wrapping_add(drawn);
        let (by_plan, hits) = run(&spec, seed, true);
        let (by_layers, none) = run(&spec, seed, false);
        assert_eq!(none, 0, "{spec}");
        hit += u64::from(hits > 0);
        let members = by_plan.delivered.len();
        for (receiver, delivered) in by_plan.delivered.iter().enumerate() {
            for origin in (0..members).filter(|origin| *origin != receiver) {
                let own = &by_plan.delivered[origin][origin][0];
                let casts = &delivered[origin][0];
                assert!(own.is_empty() || own == casts, "{spec}, seed {seed}: {origin} to {receiver}");
            }
        }
        let (by_plan, by_layers) = (comparable(by_plan), comparable(by_layers));
        assert!(by_plan == by_layers, "{spec}, seed {seed}:\n{by_plan:?}\n{by_layers:?}");
    }
    assert!(hit > stacks * 4 / 5, "of {stacks} stacks only {hit} have plans that run");
    with_transfer
}

#[test]
fn random_stacks_deliver_by_plan_what_they_deliver_by_layers() {
    assert!(compare(SEED, STACKS) >= STACKS / 20, "state transfer is among them");
}

#[test]
fn so_do_stacks_that_no_run_has_drawn_before() {
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(given) => given.parse().expect("the seed is a whole number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64,
    };
    compare(seed, NEW_STACKS);
}
