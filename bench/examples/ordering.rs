//! Three ways to one order, side by side: by turns (TOTAL), by orders beside the casts (SEQUENCER), and through one member
//! that casts what the others send it; and the order of each sender alone (FIFO), which they are compared with.
//!
//! ```text
//! cargo run --release -p wadjet-bench --example ordering
//! ```
//!
//! Three members in one thread, over memory: what is measured is work, not waiting. A round is a number of casts of 64 bytes
//! by some members, and is over when everybody has delivered all of them in the same order. Prints nanoseconds, frames
//! and bytes handed to the transport for each cast, of the best of many blocks, and the rate over that of FIFO. The blocks of
//! all ways are interleaved.
#![allow(clippy::print_stdout)]

use std::collections::VecDeque;
use std::error::Error;
use std::time::{Duration, Instant};

use wadjet::group::{Application, Delivery, Group};
use wadjet::transport::Transport;
use wadjet::transport::memory::{Hub, HubOptions, MemoryTransport};
use wadjet::view::{Address, LocalView, Member, View};
use wadjet::{Config, Endpoint, GroupId, GroupKey, Incarnation, Rank, RankSet, Time, ViewId};

const MEMBERS: usize = 3;
const STACK: &str = "FIXED:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";
const BYTES: usize = 64;
const BLOCKS: usize = 30;
/// Of each member that casts, in a block.
const CASTS: usize = 8000;
const ROUNDS_MAX: usize = 500;
/// Iterations in which a round is over, or something is wrong.
const ITERATIONS_MAX: usize = 100_000;

#[derive(Clone, Copy)]
enum Way {
    Fifo,
    Turns,
    Orders,
    Through,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("                                      ns/cast  frames/cast  bytes/cast  rate/FIFO");
    for (load, casting, each) in [
        ("member 1 casts one", &[1][..], 1),
        ("members 1 and 2 cast one each", &[1, 2], 1),
        ("all cast 16 each", &[0, 1, 2], 16),
        ("all cast as fast as they can", &[0, 1, 2], 1000),
    ] {
        let ways =
            [("fifo", Way::Fifo), ("turns", Way::Turns), ("orders", Way::Orders), ("through", Way::Through)];
        let mut groups = Vec::new();
        for (name, way) in ways {
            let mut group = Town::new(way)?;
            group.round(casting, each)?;
            groups.push((name, group.sent(), group, Duration::MAX));
        }
        let rounds = CASTS.div_ceil(each).min(ROUNDS_MAX);
        for _ in 0..BLOCKS {
            for (_, _, group, best) in &mut groups {
                let begun = Instant::now();
                for _ in 0..rounds {
                    group.round(casting, each)?;
                }
                *best = begun.elapsed().min(*best);
            }
        }
        let casts = (rounds * casting.len() * each) as f64;
        let fifo = groups[0].3;
        for (name, before, group, best) in groups {
            let after = group.sent();
            println!(
                "{load:<30} {name:<8} {:>6.0}  {:>11.2}  {:>10.0}  {:>9.2}",
                best.as_nanos() as f64 / casts,
                (after.0 - before.0) as f64 / casts / BLOCKS as f64,
                (after.1 - before.1) as f64 / casts / BLOCKS as f64,
                fifo.as_secs_f64() / best.as_secs_f64()
            );
        }
    }
    Ok(())
}

/// What is delivered, and what the first member is sent to cast.
#[derive(Default)]
struct Log {
    delivered: Vec<[u8; 3]>,
    to_cast: VecDeque<Vec<u8>>,
}

impl Application for Log {
    fn cast(&mut self, delivery: &Delivery<'_>, _: &mut Group<'_>) {
        self.delivered.extend(delivery.messages().map(|message| [message[0], message[1], message[2]]));
    }

    fn send(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        for message in delivery.messages() {
            if group.cast(message).is_err() {
                self.to_cast.push_back(message.to_vec());
            }
        }
    }
}

struct Process {
    endpoint: Endpoint,
    transport: MemoryTransport,
    key: GroupKey,
    log: Log,
}

struct Town {
    way: Way,
    processes: Vec<Process>,
    now: Time,
    bytes: u64,
}

impl Town {
    fn new(way: Way) -> Result<Town, Box<dyn Error>> {
        let stack = match way {
            Way::Turns => format!("TOTAL:{STACK}"),
            Way::Orders => format!("SEQUENCER:{STACK}"),
            Way::Fifo | Way::Through => STACK.to_owned(),
        };
        let hub = Hub::new(HubOptions::default());
        let member = |n| Member { incarnation: Incarnation(1 + n as u64), address: Address(format!("m{n}")) };
        let view = View {
            group: GroupId::named("ordering"),
            id: ViewId { counter: 1, coordinator: Incarnation(1) },
            members: (0..MEMBERS).map(member).collect(),
            spec: stack,
            wire_version: wadjet::wire::WIRE_VERSION,
            salt: 0,
            frame_bytes: 0,
        };
        let mut processes = Vec::new();
        for Member { incarnation, .. } in &view.members {
            let mut endpoint = Endpoint::new(Config::default(), *incarnation)?;
            let local = LocalView::new(view.clone(), *incarnation)?;
            let mut transport = hub.transport();
            let channel = transport.open(&local, &endpoint.channel_options(MEMBERS))?;
            let key = endpoint.install(local, channel, &transport.caps(), Time::ZERO)?;
            processes.push(Process { endpoint, transport, key, log: Log::default() });
        }
        Ok(Town { way, processes, now: Time::ZERO, bytes: 0 })
    }

    /// Frames and bytes handed to the transport.
    fn sent(&self) -> (u64, u64) {
        (self.processes.iter().map(|process| process.transport.counters().frames_sent).sum(), self.bytes)
    }

    /// Each of `casting` casts `each` messages; everybody delivers all of them in one order.
    fn round(&mut self, casting: &[usize], each: usize) -> Result<(), Box<dyn Error>> {
        for n in 0..each {
            for &at in casting {
                let mut message = [0; BYTES];
                message[0] = at as u8;
                message[1..3].copy_from_slice(&(n as u16).to_le_bytes());
                while !self.issue(at, &message) {
                    self.iterate();
                }
            }
        }
        let due = casting.len() * each;
        for _ in 0..ITERATIONS_MAX {
            self.iterate();
            if self.processes.iter().all(|process| process.log.delivered.len() == due) {
                let first = self.processes[0].log.delivered.clone();
                let ordered = !matches!(self.way, Way::Fifo);
                if ordered && self.processes.iter().any(|process| process.log.delivered != first) {
                    return Err("two orders".into());
                }
                self.processes.iter_mut().for_each(|process| process.log.delivered.clear());
                return Ok(());
            }
        }
        Err("not everything is delivered".into())
    }

    /// Whether it was taken: sends that are not acknowledged yet hold up others.
    fn issue(&mut self, at: usize, message: &[u8]) -> bool {
        let Process { endpoint, key, .. } = &mut self.processes[at];
        match (self.way, at) {
            (Way::Through, 1..) => endpoint.group(*key).send(&RankSet::one(Rank(0)), message).is_ok(),
            _ => endpoint.group(*key).cast(message).is_ok(),
        }
    }

    fn iterate(&mut self) {
        self.now = self.now + Duration::from_nanos(500);
        for Process { endpoint, transport, key, log } in &mut self.processes {
            let mut arrived = Vec::new();
            transport.receive(64, &mut |received| arrived.push(received));
            endpoint.receive_all(&mut arrived, self.now, log);
            while let Some(message) = log.to_cast.pop_front() {
                if endpoint.group(*key).cast(&message).is_err() {
                    log.to_cast.push_front(message);
                    break;
                }
            }
            endpoint.poll(self.now, log);
            while let Some(transmit) = endpoint.transmit() {
                let body = transmit.body.as_ref().map_or(0, |body| body.bytes().len());
                self.bytes += (transmit.head.bytes().len() + body) as u64;
                assert!(transport.submit(transmit).is_ok(), "the hub's queues are never full here");
            }
            transport.flush();
            transport.reap();
        }
    }
}
