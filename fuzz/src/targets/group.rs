//! Three members and a network that does what the input says.

use std::collections::VecDeque;
use std::time::Duration;

use wadjet::{Rank, RankSet};

use super::node::{InFlight, Node};
use crate::Target;

/// Reliable FIFO, over any course of events.
pub(super) const GROUP: Target = Target {
    name: "group",
    what: "whatever is lost, doubled, overtaken, damaged or late: once the network is good again, all members have \
        delivered every message exactly once, unchanged, in order",
    weight: 20,
    seeds: || {
        let window = [[CAST, 10, POLL_AT_ONCE]; 8].concat();
        let seeds: [&[u8]; 7] = [
            &[
                CAST_LARGE,
                200,
                CAST,
                9,
                SEND_LARGE,
                150,
                LOSE,
                DELIVER,
                POLL,
                9,
                DELIVER_ALL,
                POLL,
                99,
                DELIVER_ALL,
            ],
            &[CAST, 10, CAST | 1 << 4, 10, DELIVER_ALL, POLL, 3, DELIVER_ALL],
            &[CAST, 9, POLL, 1, CAST, 9, LOSE, DELIVER, POLL, 9, DELIVER, POLL, 200, DELIVER_ALL],
            &[
                SEND,
                7,
                SEND | 4 << 4,
                7,
                DELIVER_COPY,
                DELIVER,
                SEND,
                8,
                DELIVER_NEWEST,
                POLL,
                50,
                DELIVER_ALL,
            ],
            &[
                CAST,
                1,
                CAST,
                2,
                POLL,
                1,
                CAST,
                3,
                DELIVER_NEWEST,
                DELIVER_DAMAGED,
                5,
                1,
                DELIVER_CUT,
                9,
                DELIVER_ALL,
            ],
            &[window.as_slice(), &[CAST, 1, CAST, 1, DELIVER_ALL, POLL, 9, DELIVER_ALL, POLL, 9]].concat(),
            &[window.as_slice(), &[DELIVER_ALL, POLL, 1, DELIVER_WIRE | 2 << 4, LOSE | 4 << 4, CAST, 1]]
                .concat(),
        ];
        seeds.into_iter().map(<[u8]>::to_vec).collect()
    },
    run: |script| {
        let mut group = Trio::new();
        let mut script = script.iter().copied().take(OPERATIONS_MAX);
        while let Some(operation) = script.next() {
            group.operate(operation, &mut script);
        }
        group.heal();
        group.judge();
    },
};

/// An operation is the lower half of a byte; the upper half says which member or which wire it is about. `CAST` to
/// `POLL`, `CAST_LARGE` and `SEND_LARGE` take what follows as operands.
const CAST: u8 = 0;
const SEND: u8 = 1;
const DELIVER_DAMAGED: u8 = 2;
const DELIVER_CUT: u8 = 3;
const POLL: u8 = 4;
const POLL_AT_ONCE: u8 = 5;
const DELIVER: u8 = 6;
const DELIVER_NEWEST: u8 = 7;
const DELIVER_COPY: u8 = 8;
const DELIVER_WIRE: u8 = 9;
const DELIVER_ALL: u8 = 10;
const LOSE: u8 = 11;
const CAST_LARGE: u8 = 12;
const SEND_LARGE: u8 = 13;

const MEMBERS: usize = 3;
const STACK: &str = "FRAG:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";
/// The longest large message has eight fragments, as many as the window.
const LARGE_UNIT_BYTES: usize = 12;
const OPERATIONS_MAX: usize = 400;
const IN_FLIGHT_MAX: usize = 128;
const TICK: Duration = Duration::from_micros(50);
/// Iterations after which everything must have arrived: far beyond any time-out.
const HEALING_ROUNDS_MAX: usize = 8_000;

struct Trio {
    nodes: [Node; MEMBERS],
    /// From each member to each other: to the next in rank order, and to the one after.
    wires: [VecDeque<Vec<u8>>; MEMBERS * (MEMBERS - 1)],
    /// By sender: the casts that were taken.
    casts: [Vec<Vec<u8>>; MEMBERS],
    /// By wire: the sends that were taken.
    sends: [Vec<Vec<u8>>; MEMBERS * (MEMBERS - 1)],
}

fn from(wire: usize) -> usize {
    wire / (MEMBERS - 1)
}

fn to(wire: usize) -> usize {
    (from(wire) + 1 + wire % (MEMBERS - 1)) % MEMBERS
}

impl Trio {
    fn new() -> Trio {
        Trio {
            nodes: [0, 1, 2].map(|rank| Node::new(rank, MEMBERS, STACK, false)),
            wires: Default::default(),
            casts: Default::default(),
            sends: Default::default(),
        }
    }

    fn operate(&mut self, operation: u8, operands: &mut impl Iterator<Item = u8>) {
        let mut operand = || operands.next().unwrap_or(0);
        let which = usize::from(operation >> 4);
        let (member, wire) = (which % MEMBERS, which % self.wires.len());
        match operation & 0xf {
            CAST => self.cast(member, operand().into()),
            SEND => self.send(wire, operand().into()),
            CAST_LARGE => self.cast(member, LARGE_UNIT_BYTES * usize::from(operand())),
            SEND_LARGE => self.send(wire, LARGE_UNIT_BYTES * usize::from(operand())),
            DELIVER_DAMAGED => self.deliver_damaged(wire, operand(), operand()),
            DELIVER_CUT => self.deliver_cut(wire, operand()),
            POLL => self.poll(TICK * u32::from(operand())),
            POLL_AT_ONCE => self.poll(Duration::ZERO),
            DELIVER => self.deliver(wire),
            DELIVER_NEWEST => {
                if let Some(frame) = self.wires[wire].pop_back() {
                    self.nodes[to(wire)].receive(&frame);
                }
            }
            DELIVER_COPY => {
                if let Some(frame) = self.wires[wire].front() {
                    self.nodes[to(wire)].receive(frame);
                }
            }
            DELIVER_WIRE => self.deliver_wire(wire),
            DELIVER_ALL => (0..self.wires.len()).for_each(|wire| self.deliver_wire(wire)),
            LOSE => drop(self.wires[wire].pop_front()),
            _ => self.poll(TICK),
        }
        self.transmit();
    }

    fn cast(&mut self, from: usize, length: usize) {
        let message = vec![self.casts[from].len() as u8; length];
        if self.nodes[from].group().cast(&message).is_ok() {
            self.casts[from].push(message);
        }
    }

    fn send(&mut self, wire: usize, length: usize) {
        let message = vec![self.sends[wire].len() as u8; length];
        let to = RankSet::one(Rank::at(to(wire)));
        if self.nodes[from(wire)].group().send(&to, &message).is_ok() {
            self.sends[wire].push(message);
        }
    }

    fn deliver(&mut self, wire: usize) {
        if let Some(frame) = self.wires[wire].pop_front() {
            self.nodes[to(wire)].receive(&frame);
        }
    }

    fn deliver_wire(&mut self, wire: usize) {
        while !self.wires[wire].is_empty() {
            self.deliver(wire);
        }
    }

    /// One byte is wrong: a CRC finds every such fault, so nothing of the frame may be believed.
    fn deliver_damaged(&mut self, wire: usize, at: u8, damage: u8) {
        if let Some(mut frame) = self.wires[wire].pop_front() {
            let at = usize::from(at) % frame.len();
            frame[at] ^= damage.max(1);
            self.nodes[to(wire)].receive(&frame);
        }
    }

    fn deliver_cut(&mut self, wire: usize, length: u8) {
        if let Some(frame) = self.wires[wire].pop_front() {
            let length = usize::from(length) % frame.len();
            self.nodes[to(wire)].receive(&frame[..length]);
        }
    }

    fn poll(&mut self, later: Duration) {
        for node in &mut self.nodes {
            node.poll(later);
        }
    }

    fn transmit(&mut self) {
        for (from, node) in self.nodes.iter_mut().enumerate() {
            let mut frames = VecDeque::new();
            node.transmit(&mut frames);
            for InFlight { to: ranks, bytes } in frames {
                for side in 0..MEMBERS - 1 {
                    let wire = from * (MEMBERS - 1) + side;
                    // A network that is full loses what comes next.
                    if ranks.contains(Rank::at(to(wire))) && self.wires[wire].len() < IN_FLIGHT_MAX {
                        self.wires[wire].push_back(bytes.clone());
                    }
                }
            }
        }
    }

    fn heal(&mut self) {
        for _ in 0..HEALING_ROUNDS_MAX {
            if self.delivered() {
                return;
            }
            self.poll(TICK);
            self.transmit();
            (0..self.wires.len()).for_each(|wire| self.deliver_wire(wire));
        }
    }

    /// What `wire` has delivered of the sends.
    fn told(&self, wire: usize) -> &[Vec<u8>] {
        &self.nodes[to(wire)].told.sends[from(wire)]
    }

    fn delivered(&self) -> bool {
        let casts = |node: &Node| {
            self.casts.iter().zip(&node.told.casts).all(|(taken, told)| told.len() >= taken.len())
        };
        self.nodes.iter().all(casts)
            && (0..self.wires.len()).all(|wire| self.told(wire).len() >= self.sends[wire].len())
    }

    fn judge(&self) {
        for (rank, node) in self.nodes.iter().enumerate() {
            assert!(!node.told.exited, "member {rank} was told that the group is over");
            for (from, taken) in self.casts.iter().enumerate() {
                same(&node.told.casts[from], taken, &format!("casts of {from} at {rank}"));
            }
        }
        for (wire, taken) in self.sends.iter().enumerate() {
            same(self.told(wire), taken, &format!("sends of {} to {}", from(wire), to(wire)));
        }
    }
}

/// Panics with the first difference, if there is one.
fn same(delivered: &[Vec<u8>], taken: &[Vec<u8>], what: &str) {
    let differs = delivered.iter().zip(taken).position(|(one, other)| one != other);
    if let Some(at) = differs {
        panic!("{what}: message {at} is {:?}, not {:?}", delivered[at], taken[at]);
    }
    assert_eq!(delivered.len(), taken.len(), "{what}: as many were delivered, and were to be");
}
