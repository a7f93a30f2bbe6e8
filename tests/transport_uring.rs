//! What io_uring does beyond the contract of every transport: all that UDP does, in one group with it, with few calls.

#[path = "common/datagrams.rs"]
mod datagrams;
#[path = "common/mixed.rs"]
mod mixed;

use std::time::{Duration, Instant};

use mixed::Mixed;
use wadjet::runtime::{Driver, DriverOptions, IdleStrategy, LoopOptions};
use wadjet::transport::udp::UdpOptions;
use wadjet::transport::uring::{SOCKETS_MAX, UringOptions, UringTransport};
use wadjet::transport::{Transport, TransportError};
use wadjet::view::{Address, Member, View};
use wadjet::{
    Application, Config, Delivery, Endpoint, Group, GroupId, GroupKey, Incarnation, LocalView, ViewId,
};

type Carrier = UringTransport;

fn make(udp: UdpOptions) -> Result<Carrier, TransportError> {
    UringTransport::new(UringOptions { udp })
}

#[derive(Default)]
struct Tally(Vec<Vec<u32>>);

impl Application for Tally {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        let of_origin = &mut self.0[delivery.origin().index()];
        of_origin.extend(delivery.messages().map(|m| u32::from_le_bytes(m[..4].try_into().unwrap())));
    }
}

type Process<T> = (Driver<T, Tally>, GroupKey);

fn group<T: Transport>(
    members: usize,
    idle: IdleStrategy,
    mut transport: impl FnMut(usize) -> T,
) -> Vec<Process<T>> {
    let sockets: Vec<_> = (0..members).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let member = |(at, socket): (usize, &std::net::UdpSocket)| Member {
        incarnation: Incarnation(at as u64),
        address: Address(socket.local_addr().unwrap().to_string()),
    };
    let view = View {
        group: GroupId::named("ring"),
        id: ViewId { counter: 1, coordinator: Incarnation(0) },
        members: sockets.iter().enumerate().map(member).collect(),
        spec: wadjet::layers::FIXED_STACK.to_owned(),
        wire_version: wadjet::wire::WIRE_VERSION,
        salt: 3,
        frame_bytes: 0,
    };
    drop(sockets);
    let open = |at: usize| {
        let endpoint = Endpoint::new(Config::default(), Incarnation(at as u64)).unwrap();
        let looping = LoopOptions { idle, ..LoopOptions::default() };
        let options = DriverOptions { looping, ..DriverOptions::default() };
        let tally = Tally(vec![Vec::new(); members]);
        let mut driver = Driver::new(endpoint, tally, transport(at), options);
        let key = driver.open(LocalView::new(view.clone(), Incarnation(at as u64)).unwrap()).unwrap();
        (driver, key)
    };
    (0..members).map(open).collect()
}

/// Everybody casts as fast as the group takes it, and delivers everything of everybody in order.
fn stream<T: Transport>(processes: &mut [Process<T>], casts: u32) {
    let end = Instant::now() + Duration::from_secs(60);
    let mut next = vec![0; processes.len()];
    let done = |processes: &[Process<T>]| {
        let whole = |tally: &Tally| tally.0.iter().all(|of_origin| of_origin.len() >= casts as usize);
        processes.iter().all(|(driver, _)| whole(driver.application()))
    };
    while !done(processes) {
        assert!(Instant::now() < end, "not everything comes");
        for ((driver, key), next) in processes.iter_mut().zip(&mut next) {
            for _ in 0..200 {
                let mut message = [0; 64];
                message[..4].copy_from_slice(&u32::to_le_bytes(*next));
                if *next == casts || driver.group(*key).cast(&message).is_err() {
                    break;
                }
                *next += 1;
            }
            driver.run_once();
        }
    }
    let expected: Vec<u32> = (0..casts).collect();
    for (driver, _) in processes.iter() {
        assert!(driver.application().0.iter().all(|of_origin| *of_origin == expected));
    }
}

#[test]
fn members_over_udp_and_over_the_ring_understand_each_others_packs_and_runs() {
    let mut processes = group(4, IdleStrategy::Spin, |at| Mixed::of(at, &UdpOptions::default()));
    stream(&mut processes, 50_000);
    for (driver, key) in &processes {
        let counters = driver.transport_counters();
        let sent = counters.frames_sent / 3;
        assert!(sent < 50_000 / 5, "casts are packed: {sent} frames");
        assert!(driver.inner().transport().caps().segmentation);
        let calls = counters.system_calls;
        assert!(calls < counters.frames_sent, "frames share calls: {calls} of {}", counters.frames_sent);
        assert_eq!(driver.stats(*key).fast_path.deliver_miss, 0);
    }
}

#[test]
fn streams_take_less_than_one_call_per_message_and_none_while_nothing_comes() {
    let mut processes = group(2, IdleStrategy::Spin, |_| make(UdpOptions::default()).unwrap());
    stream(&mut processes, 100_000);
    for (driver, _) in &mut processes {
        let calls = driver.transport_counters().system_calls;
        assert!(calls < 100_000 / 4, "{calls} calls for 100000 messages each way");
    }
    // Every request is out and every report has been heard: what is left are beats and acknowledgements of the layers.
    let before: Vec<u64> =
        processes.iter().map(|(driver, _)| driver.transport_counters().system_calls).collect();
    for _ in 0..20_000 {
        for (driver, _) in &mut processes {
            driver.run_once();
        }
    }
    for ((driver, _), before) in processes.iter().zip(before) {
        let calls = driver.transport_counters().system_calls - before;
        assert!(calls < 2_000, "{calls} calls in 20000 iterations in which next to nothing came");
    }
}

#[test]
fn members_that_park_in_the_ring_stream_all_the_same() {
    let park = IdleStrategy::Park { spins: 2, timeout: Duration::from_millis(5) };
    let mut processes = group(3, park, |_| make(UdpOptions::default()).unwrap());
    stream(&mut processes, 20_000);
}

#[test]
fn more_sockets_than_the_ring_has_places_for_are_refused_in_words_and_places_are_used_again() {
    let mut transport = make(UdpOptions::default()).unwrap();
    let bound: Vec<_> = (0..SOCKETS_MAX)
        .map(|at| {
            let group = GroupId::named(&format!("group {at}"));
            transport.bind(group, &Address("127.0.0.1:0".into())).unwrap()
        })
        .collect();
    let one_more = GroupId::named("one more");
    let refused = transport.bind(one_more, &Address("127.0.0.1:0".into())).unwrap_err().to_string();
    assert!(refused.contains("share addresses"), "{refused}");
    // A group that moves to another's address leaves its own place free.
    transport.bind(GroupId::named("group 0"), &bound[1]).unwrap();
    transport.bind(one_more, &Address("127.0.0.1:0".into())).unwrap();
}

const ROLE: &str = "WADJET_TEST_URING_ADDRESS";

/// Holds an address until it is killed; does something only in a process started by the test below.
#[test]
fn another_process() {
    let Ok(address) = std::env::var(ROLE) else { return };
    let mut transport = make(UdpOptions::default()).unwrap();
    transport.bind(GroupId::named("again"), &Address(address)).unwrap();
    // What lasts: a request in the kernel, which waits for a datagram.
    transport.wait(Duration::from_secs(60));
}

#[test]
fn who_starts_again_where_a_process_was_killed_gets_its_address() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    for _ in 0..5 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "another_process"])
            .env(ROLE, &address)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::UdpSocket::bind(&address).is_ok() {
            assert!(Instant::now() < end, "the other process does not take its address");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut next = make(UdpOptions::default()).unwrap();
        next.bind(GroupId::named("again"), &Address(address.clone())).unwrap();
    }
}
