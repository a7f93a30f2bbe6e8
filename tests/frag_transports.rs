//! Sixteen mebibytes in one message, over real transports, with small messages before and behind.
#![cfg(target_os = "linux")]

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use wadjet::runtime::{Driver, DriverOptions};
use wadjet::transport::Transport;
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::{
    Address, Application, Config, Delivery, Endpoint, Group, GroupId, GroupKey, Incarnation, LocalView,
    Member, Rank, RankSet, Shadow, View, ViewId,
};

const MEMBERS: usize = 3;
const LARGE_BYTES: usize = 16 << 20;
/// Everything here ends long before, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Log {
    casts: Vec<Vec<u8>>,
    sends: Vec<Vec<u8>>,
}

impl Application for Log {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        self.casts.extend(delivery.messages().map(<[u8]>::to_vec));
    }

    fn send(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        self.sends.extend(delivery.messages().map(<[u8]>::to_vec));
    }
}

fn view(addresses: [String; MEMBERS], spec: &str) -> View {
    let process = u64::from(std::process::id()) << 8;
    let member = |(n, address)| Member { incarnation: Incarnation(process | n), address: Address(address) };
    View {
        group: GroupId::named("large"),
        id: ViewId { counter: 1, coordinator: Incarnation(process) },
        members: (0..).zip(addresses).map(member).collect(),
        spec: spec.to_owned(),
        wire_version: wadjet::wire::WIRE_VERSION,
        salt: 3,
        frame_bytes: 0,
    }
}

fn message(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| byte()).collect()
}

fn sixteen_mebibytes<T: Transport>(view: &View, transport: impl Fn() -> T) {
    let config = Config { frame_bytes_max: 1400, shadow: Shadow::Off, ..Config::default() };
    let open = |member: &Member| {
        let endpoint = Endpoint::new(config.clone(), member.incarnation).unwrap();
        let mut driver = Driver::new(endpoint, Log::default(), transport(), DriverOptions::default());
        let key = driver.open(LocalView::new(view.clone(), member.incarnation).unwrap()).unwrap();
        (driver, key)
    };
    let mut drivers: Vec<(Driver<T, Log>, GroupKey)> = view.members.iter().map(open).collect();
    let casts = [b"before".to_vec(), message(1, LARGE_BYTES), b"behind".to_vec()];
    let sent = message(2, 1 << 20);
    let (driver, key) = &mut drivers[0];
    for cast in &casts {
        driver.group(*key).cast(cast).unwrap();
    }
    driver.group(*key).send(&RankSet::one(Rank(1)), &sent).unwrap();
    let begun = Instant::now();
    let done = |drivers: &[(Driver<T, Log>, GroupKey)]| {
        drivers.iter().all(|(driver, _)| driver.application().casts.len() >= casts.len())
            && !drivers[1].0.application().sends.is_empty()
    };
    while !done(&drivers) {
        assert!(begun.elapsed() < PATIENCE, "it never comes to an end");
        for (driver, _) in &mut drivers {
            driver.run_once();
        }
    }
    for (driver, _) in &drivers {
        assert!(driver.application().casts == casts, "the same bytes in the same order");
    }
    assert!(drivers[1].0.application().sends == [sent]);
}

#[test]
fn over_udp() {
    let sockets: Vec<UdpSocket> = (0..MEMBERS).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let address = |n: usize| sockets[n].local_addr().unwrap().to_string();
    let view = view([0, 1, 2].map(address), "FRAG:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM");
    drop(sockets);
    sixteen_mebibytes(&view, || UdpTransport::new(UdpOptions::default()).unwrap());
}

#[test]
fn over_shared_memory() {
    let view = view([0, 1, 2].map(|n| format!("m{n}")), "FRAG:STABLE:FC:UNICAST:LOCAL:NAK:COM");
    sixteen_mebibytes(&view, || Shm::new(ShmOptions::default()));
}
