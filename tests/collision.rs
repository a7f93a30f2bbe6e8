//! Groups of one endpoint whose cookies are equal (design section 4): nothing is lost, and after the first exchange
//! nothing is dropped either.

mod common;

use std::time::Duration;

use common::{Dice, Log};
use wadjet::config::Shadow;
use wadjet::endpoint::{Endpoint, GroupKey};
use wadjet::group::{CastError, SendError};
use wadjet::layers::FIXED_STACK;
use wadjet::transport::Transport;
use wadjet::transport::memory::{Hub, HubOptions, MemoryTransport};
use wadjet::{Config, GroupId, Incarnation, LocalView, Rank, RankSet, Time};

const MEMBERS: usize = 3;
const GROUPS: [&str; 2] = ["left", "right"];

/// A process that is in both groups; an application for each.
struct Process {
    endpoint: Endpoint,
    transport: MemoryTransport,
    keys: Vec<GroupKey>,
    log: Log,
}

struct World {
    processes: Vec<Process>,
    now: Time,
    dice: Dice,
    /// Of a thousand frames.
    lost: u64,
}

impl World {
    fn new(bits: u32, accelerate: bool, lost: u64) -> World {
        let hub = Hub::new(HubOptions { queue_frames_max: 1 << 16, ..HubOptions::default() });
        let config = Config { accelerate, shadow: Shadow::Panic, ..Config::default() };
        let processes = (0..MEMBERS).map(|n| {
            let incarnation = Incarnation(100 + n as u64);
            let mut endpoint = Endpoint::new(config.clone(), incarnation).unwrap();
            endpoint.narrow_cookies(bits);
            let mut transport = hub.transport();
            let keys = GROUPS.map(|group| {
                let mut view = common::view(MEMBERS, FIXED_STACK);
                view.group = GroupId::named(group);
                let local = LocalView::new(view, incarnation).unwrap();
                let channel = transport.open(&local, &endpoint.channel_options(MEMBERS)).unwrap();
                endpoint.install(local, channel, &transport.caps(), Time::ZERO).unwrap()
            });
            Process { endpoint, transport, keys: keys.to_vec(), log: Log::default() }
        });
        World { processes: processes.collect(), now: Time::ZERO, dice: Dice(11), lost }
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_micros(10);
        for process in &mut self.processes {
            let Process { endpoint, transport, log, .. } = process;
            let (dice, lost, now) = (&mut self.dice, self.lost, self.now);
            transport.receive(1024, &mut |received| {
                if dice.below(1000) >= lost {
                    endpoint.receive(received, now, log);
                }
            });
            endpoint.poll(now, log);
            while let Some(transmit) = endpoint.transmit() {
                assert!(transport.submit(transmit).is_ok());
            }
            transport.flush();
            transport.reap();
        }
    }

    /// Everybody casts and sends `rounds` messages in both groups, and all of them arrive.
    fn exchange(&mut self, rounds: u8, round: u8) {
        for process in &mut self.processes {
            (process.log.casts, process.log.sends) = (Vec::new(), Vec::new());
        }
        let mut waiting = Vec::new();
        for number in 0..rounds {
            for n in 0..MEMBERS {
                for (at, _) in GROUPS.iter().enumerate() {
                    waiting.push((n, at, [round, n as u8, at as u8, number]));
                }
            }
        }
        for (n, at, message) in waiting {
            let to = RankSet::one(Rank::at((n + 1) % MEMBERS));
            let key = self.processes[n].keys[at];
            loop {
                match self.processes[n].endpoint.group(key).cast(&message) {
                    Ok(_) => break,
                    Err(CastError::Full { .. } | CastError::NoFrame(_)) => self.step(),
                    Err(error) => panic!("{error}"),
                }
            }
            loop {
                match self.processes[n].endpoint.group(key).send(&to, &message) {
                    Ok(()) => break,
                    Err(SendError::Full { .. } | SendError::NoFrame(_)) => self.step(),
                    Err(error) => panic!("{error}"),
                }
            }
            self.step();
        }
        let (casts, sends) = (rounds as usize * MEMBERS * GROUPS.len(), rounds as usize * GROUPS.len());
        let complete = |p: &Process| p.log.casts.len() >= casts && p.log.sends.len() >= sends;
        for _ in 0..200_000 {
            if self.processes.iter().all(complete) {
                break;
            }
            self.step();
        }
        for (n, process) in self.processes.iter().enumerate() {
            let expect = |origin: usize, at: usize| -> Vec<Vec<u8>> {
                (0..rounds).map(|number| vec![round, origin as u8, at as u8, number]).collect()
            };
            let of = |log: &[(u16, Vec<u8>)], origin: usize, at: usize| -> Vec<Vec<u8>> {
                let of = |(from, message): &&(u16, Vec<u8>)| {
                    usize::from(*from) == origin && usize::from(message[2]) == at
                };
                log.iter().filter(of).map(|(_, message)| message.clone()).collect()
            };
            for at in 0..GROUPS.len() {
                for origin in 0..MEMBERS {
                    assert_eq!(of(&process.log.casts, origin, at), expect(origin, at), "casts at {n}");
                }
                let origin = (n + MEMBERS - 1) % MEMBERS;
                assert_eq!(of(&process.log.sends, origin, at), expect(origin, at), "sends at {n}");
            }
        }
    }

    fn collided(&self) -> u64 {
        self.processes.iter().map(|process| process.endpoint.dropped().collided_cookie).sum()
    }

    fn counted(&self, what: &str) -> u64 {
        let counts = |process: &Process| -> u64 {
            let stats = process.keys.iter().map(|key| process.endpoint.stats(*key));
            stats.flat_map(|stats| stats.counts).filter(|c| c.what == what).map(|c| c.count).sum()
        };
        self.processes.iter().map(counts).sum()
    }
}

/// From all cookies equal to hardly any: what collides is delivered all the same, and after the first exchange no frame
/// is dropped for its cookie any more.
#[test]
fn after_one_exchange_colliding_groups_drop_nothing() {
    for bits in [0, 1, 2, 3, 4, 6] {
        let mut world = World::new(bits, true, 0);
        world.exchange(4, 1);
        let dropped = world.collided();
        if bits < 4 {
            assert!(world.counted("request for full identification") > 0, "{bits} bits");
        }
        world.exchange(50, 2);
        assert_eq!(world.collided(), dropped, "{bits} bits");
        if bits == 0 {
            // The origins know why they take the layers.
            let misses: u64 = (0..MEMBERS)
                .flat_map(|n| world.processes[n].keys.iter().map(move |key| (n, *key)))
                .flat_map(|(n, key)| world.processes[n].endpoint.stats(key).misses)
                .filter(|miss| miss.reason == "full headers are asked for")
                .map(|miss| miss.count)
                .sum();
            assert!(misses > 0);
        }
    }
}

/// Requests get lost, too: they are repeated, but not for every frame.
#[test]
fn requests_that_are_lost_are_repeated() {
    for bits in [0, 2] {
        let mut world = World::new(bits, true, 300);
        world.exchange(30, 1);
        world.lost = 0;
        world.exchange(4, 2);
        let (dropped, requests) = (world.collided(), world.counted("request for full identification"));
        assert!(dropped > 0 && requests > 0);
        world.lost = 300;
        world.exchange(30, 3);
        assert_eq!(world.collided(), dropped, "{bits} bits");
        assert_eq!(world.counted("request for full identification"), requests, "{bits} bits");
    }
}

/// Without collisions nobody is asked for anything.
#[test]
fn groups_with_cookies_of_their_own_stay_on_the_fast_path() {
    let mut world = World::new(62, true, 0);
    world.exchange(20, 1);
    assert_eq!((world.collided(), world.counted("request for full identification")), (0, 0));
    let hits = |process: &Process| process.endpoint.stats(process.keys[0]).fast_path.deliver_hit;
    assert!(world.processes.iter().all(|process| hits(process) > 0));
}

/// Whoever never uses cookies can be in a group with those who do.
#[test]
fn without_plans_nothing_collides() {
    let mut world = World::new(0, false, 0);
    world.exchange(10, 1);
    assert_eq!(world.collided(), 0);
}
