//! Over shared memory, which loses nothing, nothing is asked for again, however seldom and slowly a member reads.
#![cfg(target_os = "linux")]

#[path = "common/shm.rs"]
mod ends;

use std::time::Duration;

use ends::unique;
use wadjet::config::Shadow;
use wadjet::endpoint::{Endpoint, GroupKey};
use wadjet::group::{Application, Delivery, Group};
use wadjet::layers::FIXED_STACK;
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::{Full, Transport};
use wadjet::{Address, Config, GroupId, Incarnation, LocalView, Member, Time, View, ViewId};

const MEMBERS: usize = 3;
/// As a loop's own default.
const BUDGET: usize = 64;

/// By origin: how many of its casts came. They are numbered.
#[derive(Default)]
struct Log([u64; MEMBERS]);

impl Application for Log {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        let came = &mut self.0[delivery.origin().index()];
        for message in delivery.messages() {
            assert_eq!(message, came.to_le_bytes(), "once and in order");
            *came += 1;
        }
    }
}

struct Node {
    endpoint: Endpoint,
    shm: Shm,
    key: GroupKey,
    log: Log,
    sent: u64,
}

impl Node {
    /// One iteration of its loop.
    fn run_once(&mut self, now: Time) {
        self.shm.reap();
        let mut arrived = Vec::new();
        self.shm.receive(BUDGET, &mut |received| arrived.push(received));
        self.endpoint.receive_all(&mut arrived, now, &mut self.log);
        self.endpoint.poll(now, &mut self.log);
        while let Some(transmit) = self.endpoint.transmit() {
            if let Err(Full(transmit)) = self.shm.submit(transmit) {
                self.endpoint.give_back(transmit);
                break;
            }
        }
        self.shm.flush();
    }

    fn cast(&mut self) {
        let taken = self.endpoint.group(self.key).cast(&self.sent.to_le_bytes());
        self.sent += u64::from(taken.is_ok());
    }
}

fn group(config: &Config) -> Vec<Node> {
    let name = unique("repairs");
    let member =
        |n: usize| Member { incarnation: Incarnation(100 + n as u64), address: Address(format!("m{n}")) };
    let view = View {
        group: GroupId::named(&name),
        id: ViewId { counter: 1, coordinator: Incarnation(100) },
        members: (0..MEMBERS).map(member).collect(),
        spec: FIXED_STACK.to_string(),
        wire_version: wadjet::wire::WIRE_VERSION,
        salt: 7,
        frame_bytes: 0,
    };
    let node = |n: usize| {
        let incarnation = Incarnation(100 + n as u64);
        let mut endpoint = Endpoint::new(config.clone(), incarnation).unwrap();
        let local = LocalView::new(view.clone(), incarnation).unwrap();
        let mut shm = Shm::new(ShmOptions::default());
        let channel = shm.open(&local, &endpoint.channel_options(MEMBERS)).unwrap();
        let key = endpoint.install(local, channel, &shm.caps(), Time::ZERO).unwrap();
        Node { endpoint, shm, key, log: Log::default(), sent: 0 }
    };
    (0..MEMBERS).map(node).collect()
}

/// Reports tell how much was cast. A member that has not run for a while finds them together with the casts they count, more
/// than it takes at once, and its timers have run out: it has to read the casts before it believes that they are lost.
#[test]
fn a_member_that_reads_seldom_and_little_asks_for_nothing_that_is_there() {
    let config = Config { pack: false, shadow: Shadow::Off, ..Config::default() };
    let mut nodes = group(&config);
    let mut now = Time::ZERO;
    for step in 0..31_000 {
        now = now + Duration::from_micros(10);
        let casting = (1_000..30_000).contains(&step);
        for (n, node) in nodes.iter_mut().enumerate() {
            // The last one runs every 3 ms; the others cast more meanwhile than it takes at once.
            if n < MEMBERS - 1 || !casting || step % 300 == 0 {
                if casting {
                    node.cast();
                }
                node.run_once(now);
            }
        }
    }
    let last = &nodes[MEMBERS - 1];
    assert_eq!(last.log.0, [nodes[0].sent, nodes[1].sent, last.sent], "everything comes");
    assert!(nodes[0].sent > 2_000, "{}", nodes[0].sent);
    for node in &nodes {
        let stats = node.endpoint.stats(node.key);
        let asked: Vec<_> =
            stats.counts.iter().filter(|count| count.what.starts_with("repair request")).collect();
        assert!(asked.is_empty(), "{asked:?}");
        assert_eq!(stats.fast_path.deliver_miss, 0, "{:?}", stats.misses);
    }
}
