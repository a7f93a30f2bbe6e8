//! Members of one thread over the in-memory transport, driven by hand.
#![allow(dead_code, unreachable_pub)]

pub mod gate;
pub mod live;

use std::time::Duration;

use wadjet::buf::{Region, RegionOptions};
use wadjet::endpoint::{Endpoint, GroupKey};
use wadjet::group::{Application, Delivery, Event, Group};
use wadjet::stack::registry::Registry;
use wadjet::stats::Stats;
use wadjet::transport::memory::{Hub, HubOptions, MemoryTransport};
use wadjet::transport::{ChannelId, Full, Received, Transport};
use wadjet::{
    Address, CastError, Config, GroupId, Incarnation, LocalView, Member, Ticket, Time, View, ViewId,
};

/// What one member's application saw.
#[derive(Default)]
pub struct Log {
    pub casts: Vec<(u16, Vec<u8>)>,
    pub sends: Vec<(u16, Vec<u8>)>,
    pub events: Vec<Event>,
    pub lists: usize,
    /// Answers to cast from inside the upcall: on a message equal to the first, cast the second.
    pub answers: Vec<(Vec<u8>, Vec<u8>)>,
    pub ack: bool,
    /// Acknowledges the first message of each list.
    pub ack_first: bool,
}

impl Application for Log {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        self.lists += 1;
        for message in delivery.messages() {
            self.casts.push((delivery.origin().0, message.to_vec()));
            for (question, answer) in &self.answers {
                if question == message {
                    group.cast(answer).unwrap();
                }
            }
        }
        if self.ack_first {
            assert_eq!(delivery.ids().last(), Some(delivery.id()));
            group.ack(delivery.ids().next().unwrap());
        }
        if self.ack {
            group.ack(delivery.id());
        }
    }

    fn send(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        self.sends.extend(delivery.messages().map(|m| (delivery.origin().0, m.to_vec())));
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        self.events.push(event.clone());
    }
}

pub struct Node {
    pub endpoint: Endpoint,
    pub transport: MemoryTransport,
    pub key: GroupKey,
    pub channel: ChannelId,
    pub log: Log,
    /// Does nothing any more, as a stopped process.
    pub stopped: bool,
    /// What it submitted, if `World::record` is on.
    pub sent: Vec<Vec<u8>>,
}

impl Node {
    pub fn stats(&self) -> Stats {
        self.endpoint.stats(self.key)
    }

    /// How often something was counted under a layer's name.
    pub fn counted(&self, layer: &str, what: &str) -> u64 {
        let counts = self.stats().counts;
        counts
            .iter()
            .filter(|count| count.layer == layer && count.what == what)
            .map(|count| count.count)
            .sum()
    }
}

/// Says whether a frame is lost on its way to a member.
pub type Lose = Box<dyn FnMut(usize, &Received) -> bool>;

pub struct World {
    pub nodes: Vec<Node>,
    pub now: Time,
    /// Whether frames submitted are kept in `Node::sent`.
    pub record: bool,
    /// Decides whether a frame that arrives is lost: by receiver and count.
    pub lose: Lose,
}

pub fn view(members: usize, spec: &str) -> View {
    let member =
        |n: usize| Member { incarnation: Incarnation(100 + n as u64), address: Address(format!("m{n}")) };
    View {
        group: GroupId::named("test"),
        id: ViewId { counter: 1, coordinator: Incarnation(100) },
        members: (0..members).map(member).collect(),
        spec: spec.to_string(),
        wire_version: wadjet::wire::WIRE_VERSION,
        salt: 7,
        frame_bytes: 0,
    }
}

impl World {
    pub fn new(members: usize, spec: &str, config: &Config) -> World {
        World::with_registry(members, spec, config, &Registry::standard())
    }

    pub fn with_registry(members: usize, spec: &str, config: &Config, registry: &Registry) -> World {
        let hub = Hub::new(HubOptions { queue_frames_max: 1 << 16, ..HubOptions::default() });
        World::over(&hub, members, spec, config, registry)
    }

    pub fn over(hub: &Hub, members: usize, spec: &str, config: &Config, registry: &Registry) -> World {
        let nodes = (0..members)
            .map(|n| {
                let incarnation = Incarnation(100 + n as u64);
                let mut endpoint =
                    Endpoint::with_registry(config.clone(), incarnation, registry.clone()).unwrap();
                let local = LocalView::new(view(members, spec), incarnation).unwrap();
                let mut transport = hub.transport();
                let channel = transport.open(&local, &endpoint.channel_options(members)).unwrap();
                let id = channel.id;
                let key = endpoint.install(local, channel, &transport.caps(), Time::ZERO).unwrap();
                let log = Log::default();
                Node { endpoint, transport, key, channel: id, log, stopped: false, sent: Vec::new() }
            })
            .collect();
        World { nodes, now: Time::ZERO, record: false, lose: Box::new(|_, _| false) }
    }

    /// One iteration of every member.
    pub fn step(&mut self) {
        self.now = self.now + Duration::from_micros(10);
        for n in 0..self.nodes.len() {
            let node = &mut self.nodes[n];
            if node.stopped {
                continue;
            }
            let (now, lose) = (self.now, &mut self.lose);
            let mut arrived = Vec::new();
            node.transport.receive(1024, &mut |received| {
                if !lose(n, &received) {
                    arrived.push(received);
                }
            });
            node.endpoint.receive_all(&mut arrived, now, &mut node.log);
            node.endpoint.poll(now, &mut node.log);
            while let Some(transmit) = node.endpoint.transmit() {
                let mut bytes = transmit.head.bytes().to_vec();
                bytes.extend(transmit.body.as_ref().map_or(&[][..], |body| body.bytes()));
                if let Err(Full(transmit)) = node.transport.submit(transmit) {
                    node.endpoint.give_back(transmit);
                    break;
                }
                if self.record {
                    node.sent.push(bytes);
                }
            }
            node.transport.flush();
            node.transport.reap();
        }
    }

    pub fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    pub fn cast(&mut self, node: usize, message: &[u8]) {
        self.try_cast(node, message).unwrap();
    }

    pub fn try_cast(&mut self, node: usize, message: &[u8]) -> Result<Ticket, CastError> {
        let node = &mut self.nodes[node];
        node.endpoint.group(node.key).cast(message)
    }

    /// Gives `node` a frame as if it had just come in.
    pub fn inject(&mut self, node: usize, bytes: &[u8]) {
        let node = &mut self.nodes[node];
        node.endpoint.receive(received(bytes), self.now, &mut node.log);
    }

    /// Steps until `done` holds; says whether it did within `most` steps.
    pub fn until(&mut self, most: usize, mut done: impl FnMut(&mut World) -> bool) -> bool {
        for _ in 0..most {
            if done(self) {
                return true;
            }
            self.step();
        }
        done(self)
    }

    /// The messages of `origin` that `node` delivered.
    pub fn delivered(&self, node: usize, origin: u16) -> Vec<&[u8]> {
        let casts = self.nodes[node].log.casts.iter();
        casts.filter(|(from, _)| *from == origin).map(|(_, message)| &message[..]).collect()
    }
}

/// A received frame with these bytes.
pub fn received(bytes: &[u8]) -> Received {
    let options = RegionOptions {
        frames: 1,
        link_headroom_bytes: 0,
        frame_bytes: bytes.len() + 64,
        reserve_frames: 0,
        huge_pages: false,
    };
    let mut frame = Region::pool(options).unwrap().take(0).unwrap();
    frame.extend(bytes).unwrap();
    let frame = frame.freeze();
    frame.submit();
    let (from, to) = (frame.start(), frame.end());
    Received { channel: ChannelId(0), frame, from, to }
}

/// A seeded generator (a linear congruence): the same numbers in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
