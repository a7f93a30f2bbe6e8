//! Groups over AF_XDP, alone and together with members on ordinary sockets; and what it leaves behind when it ends.
//! All on test hosts of the test's own: they take root.

mod common;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Either, On, small};
use wadjet::group::{Application, CastError, Delivery, Event, Group};
use wadjet::layers::{DEFAULT_STACK, FIXED_STACK};
use wadjet::runtime::{Driver, DriverOptions, JoinOptions};
use wadjet::transport::udp::UdpOptions;
use wadjet::transport::{
    Channel, ChannelOptions, Destination, Received, Transmit, Transport, TransportError,
};
use wadjet::view::Neighbours;
use wadjet::{Address, Config, Endpoint, GroupId, GroupKey, Incarnation, LocalView, Member, Rank, View};
use wadjet_hosts::Hosts;
use wadjet_xdp::{XdpOptions, XdpTransport};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Notes {
    members: Vec<u64>,
    casts: Vec<(u64, Vec<u8>)>,
    /// Problems.
    told: Vec<String>,
    over: bool,
    /// Answers what others cast, from inside the upcall.
    echo: bool,
}

impl Application for Notes {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        let origin = self.members[delivery.origin().index()];
        for message in delivery.messages() {
            self.casts.push((origin, message.to_vec()));
            if self.echo && delivery.origin() != group.view().rank() {
                group.cast(message).unwrap();
            }
        }
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        if let Event::View(view) = event {
            self.members = view.view().members.iter().map(|member| member.incarnation.0).collect();
        }
        if let Event::Problem(problem) = event {
            self.told.push(problem.what.to_string());
        }
        self.over |= matches!(event, Event::Exit(_));
    }
}

type Process = (Driver<Either, Notes>, GroupKey);

/// As much as a stack of three members asks for, twice: while a view changes there are two.
fn roomy() -> XdpOptions {
    XdpOptions { transmit_frames: 8192, receive_frames: 4096, ..small() }
}

fn address(hosts: &Hosts, host: usize) -> Address {
    Address(format!("{}:7400", hosts.address(host)))
}

fn driver(transport: Either, own: u64) -> Driver<Either, Notes> {
    let config = Config { window_frames: 256, ..Config::default() };
    let endpoint = Endpoint::new(config, Incarnation(own)).unwrap();
    Driver::new(endpoint, Notes::default(), transport, DriverOptions::default())
}

fn until(processes: &mut [Process], mut done: impl FnMut(&[Process]) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done(processes) {
        processes.iter_mut().for_each(|(driver, _)| {
            driver.run_once();
        });
        let state = |(driver, _): &Process| {
            let notes = driver.application();
            format!("{:?} {}", notes.members, notes.casts.len())
        };
        assert!(Instant::now() < end, "{:?}", processes.iter().map(state).collect::<Vec<_>>());
    }
}

fn view(hosts: &Hosts, count: usize, spec: &str) -> View {
    let member = |host| Member { incarnation: Incarnation(host as u64), address: address(hosts, host) };
    View::fixed(GroupId::named("group"), (1..=count).map(member).collect(), spec)
}

#[test]
fn two_members_play_ping_pong_through_the_whole_stack_and_nothing_is_copied() {
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 1)) else { return };
    let view = view(&hosts, 2, FIXED_STACK);
    let mut both: Vec<Process> = (1..=2)
        .map(|host| {
            let mut driver = driver(Either::One(common::xdp(&hosts, host, &roomy())), host as u64);
            let key = driver.open(LocalView::new(view.clone(), Incarnation(host as u64)).unwrap()).unwrap();
            driver.application_mut().members = vec![1, 2];
            (driver, key)
        })
        .collect();
    both[1].0.application_mut().echo = true;
    for round in 0..500_u32 {
        let (driver, key) = &mut both[0];
        driver.group(*key).cast(&round.to_le_bytes()).unwrap();
        until(&mut both, |both| {
            let answers = both[0].0.application().casts.iter().filter(|(from, _)| *from == 2);
            answers.count() > round as usize
        });
    }
    for (driver, key) in &both {
        let stats = driver.stats(*key);
        assert!(stats.fast_path.deliver_hit >= 990, "{stats:?}");
        let counters = driver.transport_counters();
        assert_eq!(counters.copies, 0, "{counters:?}");
        let Either::One(transport) = driver.inner().transport() else { unreachable!() };
        assert!(transport.inner.steered().steered >= 500, "it went by the ring");
    }
}

/// A process that wants to be with the one on host 1.
fn joined(mut driver: Driver<Either, Notes>, hosts: &Hosts, host: usize) -> Process {
    let contacts = if host == 1 { vec![] } else { vec![address(hosts, 1)] };
    let options = JoinOptions {
        group: GroupId::named("room"),
        spec: DEFAULT_STACK.replace("SUSPECT", "SUSPECT(least_ms=2000,most_ms=2000)"),
        address: address(hosts, host),
        neighbours: Neighbours { contacts, discover: false },
    };
    let key = driver.join(options).unwrap();
    (driver, key)
}

fn are_together(processes: &[Process], members: &[u64]) -> bool {
    processes.iter().all(|(driver, _)| {
        let mut present = driver.application().members.clone();
        present.sort_unstable();
        present == members
    })
}

#[test]
fn who_would_make_a_view_too_large_for_the_ring_is_not_let_in_and_the_group_goes_on() {
    let Some(hosts) = common::hosts(|label| Hosts::up(label, 3)) else { return };
    // Two members ask for 576 frames to be received, three for 1,088.
    let options = XdpOptions { receive_frames: 1024, fill_frames: 256, transmit_frames: 8192, ..small() };
    let ring = Either::One(common::xdp(&hosts, 1, &options));
    let mut group = vec![joined(driver(ring, 1), &hosts, 1)];
    let plain = || Either::Other(common::udp(&hosts, 2, &UdpOptions::default()));
    group.push(joined(driver(plain(), 2), &hosts, 2));
    until(&mut group, |group| are_together(group, &[1, 2]));
    let third = Either::Other(common::udp(&hosts, 3, &UdpOptions::default()));
    group.push(joined(driver(third, 3), &hosts, 3));
    let told = |(driver, _): &Process| {
        let told = driver.application().told.iter().find(|told| told.contains("a view has at most 2"));
        told.cloned()
    };
    until(&mut group, |group| group.iter().any(|process| told(process).is_some()));
    let why = told(&group[2]).expect("the one that is not let in is told");
    assert!(why.contains("receive_frames") || why.contains("no more at"), "{why}");
    assert!(are_together(&group[..2], &[1, 2]) && are_together(&group[2..], &[3]));
    for (driver, key) in &mut group {
        driver.group(*key).cast(b"here").unwrap();
    }
    until(&mut group, |group| {
        group.iter().zip([2, 2, 1]).all(|((driver, _), casts)| driver.application().casts.len() == casts)
    });
}

#[test]
fn views_that_follow_each_other_quickly_take_the_chunks_of_those_before() {
    let Some(hosts) = common::hosts(|label| Hosts::up(label, 3)) else { return };
    // A channel takes 834; that of a past view is kept for half a second, unless the room is needed.
    let options = XdpOptions { receive_frames: 4096, transmit_frames: 2 * 834 + 10, ..small() };
    let ring = Either::One(common::xdp(&hosts, 1, &options));
    let mut group = vec![joined(driver(ring, 1), &hosts, 1)];
    let start = Instant::now();
    for round in 0..4 {
        for host in [2, 3] {
            let plain = Either::Other(common::udp(&hosts, host, &UdpOptions::default()));
            group.push(joined(driver(plain, 10 * round + host as u64), &hosts, host));
        }
        let members = [1, 10 * round + 2, 10 * round + 3];
        until(&mut group, |group| are_together(group, &members));
        for (driver, key) in &mut group[1..] {
            driver.group(*key).leave();
        }
        let gone = |(driver, _): &Process| driver.application().over;
        until(&mut group, |group| are_together(&group[..1], &[1]) && group[1..].iter().all(gone));
        group.truncate(1);
    }
    assert!(start.elapsed() < PATIENCE);
    assert_eq!(group[0].0.application().told, Vec::<String>::new());
}

/// Three processes find each other, cast more than a window, one ends without a word, the others go on. The longest frames
/// of the view of three and of that of two, in bytes.
fn a_group_lives(hosts: &Rc<Hosts>, kinds: [bool; 3]) -> [u32; 2] {
    // On a crowded machine this thread may wait for its turn for longer than a silence that is suspected else.
    let patient = DEFAULT_STACK.replace("SUSPECT", "SUSPECT(least_ms=2000,most_ms=2000)");
    let mut processes: Vec<Process> = (1..=3)
        .map(|host| {
            let transport = if kinds[host - 1] {
                Either::One(common::xdp(hosts, host, &roomy()))
            } else {
                Either::Other(common::udp(hosts, host, &UdpOptions::default()))
            };
            let mut driver = driver(transport, host as u64);
            let contacts = if host == 1 { vec![] } else { vec![address(hosts, 1)] };
            let key = driver
                .join(JoinOptions {
                    group: GroupId::named("live"),
                    spec: patient.clone(),
                    address: address(hosts, host),
                    neighbours: Neighbours { contacts, discover: false },
                })
                .unwrap();
            (driver, key)
        })
        .collect();
    let together = |all: &[Process], members: &[u64]| {
        all.iter().all(|(driver, _)| {
            let mut present = driver.application().members.clone();
            present.sort_unstable();
            present == members
        })
    };
    until(&mut processes, |all| together(all, &[1, 2, 3]));
    let frame_bytes = |all: &mut [Process]| {
        let (driver, key) = &mut all[0];
        driver.group(*key).view().view().frame_bytes
    };
    let of_three = frame_bytes(&mut processes);
    const ROUNDS: u32 = 400;
    let end = Instant::now() + PATIENCE;
    for round in 0..ROUNDS {
        // Several at once, so that they are packed and leave in runs.
        for part in 0..8_u32 {
            let message: Vec<u8> = (round * 8 + part).to_le_bytes().repeat(60);
            for at in 0..processes.len() {
                let (driver, key) = &mut processes[at];
                let mut refused = driver.group(*key).cast(&message).err();
                while let Some(why) = refused {
                    let retried = matches!(why, CastError::Full { .. } | CastError::NoFrame(_));
                    assert!(retried && Instant::now() < end, "casts stay refused: {why}");
                    processes.iter_mut().for_each(|(driver, _)| {
                        driver.run_once();
                    });
                    let (driver, key) = &mut processes[at];
                    refused = driver.group(*key).cast(&message).err();
                }
            }
        }
        processes.iter_mut().for_each(|(driver, _)| {
            driver.run_once();
        });
    }
    let casts = 3 * 8 * ROUNDS as usize;
    until(&mut processes, |all| all.iter().all(|(driver, _)| driver.application().casts.len() >= casts));
    for (driver, _) in &processes {
        for origin in 1..=3 {
            let of = driver.application().casts.iter().filter(|(from, _)| *from == origin);
            assert!(
                of.map(|(_, message)| message.clone())
                    .eq((0..ROUNDS * 8).map(|n| n.to_le_bytes().repeat(60)))
            );
        }
    }
    let (driver, _) = processes.remove(1);
    // As a process that is killed: nothing is closed, nothing is said.
    std::mem::forget(driver);
    until(&mut processes, |all| together(all, &[1, 3]));
    for (driver, key) in &mut processes {
        driver.group(*key).cast(b"we go on").unwrap();
    }
    until(&mut processes, |all| {
        all.iter().all(|(driver, _)| {
            let casts = driver.application().casts.iter();
            casts.filter(|(_, message)| message == b"we go on").count() == 2
        })
    });
    [of_three, frame_bytes(&mut processes)]
}

#[test]
fn a_live_group_over_af_xdp_loses_a_member_and_goes_on() {
    let Some(hosts) = common::hosts(|label| Hosts::up(label, 3)) else { return };
    a_group_lives(&hosts, [true; 3]);
}

#[test]
fn members_on_ordinary_sockets_and_on_af_xdp_live_in_one_group() {
    let Some(hosts) = common::hosts(|label| Hosts::up(label, 3)) else { return };
    a_group_lives(&hosts, [true, false, true]);
    let Some(hosts) = common::hosts(|label| Hosts::up(label, 3)) else { return };
    a_group_lives(&hosts, [false, true, false]);
}

/// One that could send longer frames does not, unless it is told that everybody takes them.
#[test]
fn a_member_whose_interface_takes_longer_frames_lives_with_others() {
    let Some(hosts) = common::hosts(|label| Hosts::up(label, 3)) else { return };
    says_at(&hosts, 1, &["ip", "link", "set", "dev", "lan0", "mtu", "9000"]);
    let agreed = a_group_lives(&hosts, [true, true, false]);
    assert_eq!(agreed, [1472; 2]);
}

/// Frames that one of them cannot receive are not sent: an interface with a small MTU drops them without a word.
#[test]
fn a_member_whose_interface_takes_shorter_frames_only_lives_with_others() {
    for kinds in [[false; 3], [true; 3]] {
        let Some(hosts) = common::hosts(|label| Hosts::up(label, 3)) else { return };
        says_at(&hosts, 2, &["ip", "link", "set", "dev", "lan0", "mtu", "1000"]);
        let [with, without] = a_group_lives(&hosts, kinds);
        // 20 bytes of IP and 8 of UDP. The one with the small MTU is the one that ends.
        assert_eq!((with, without), (972, 1472), "{kinds:?}");
    }
}

/// What lies between the interfaces is not asked; a router says so, the system cuts what is longer, and a note tells.
#[test]
fn a_router_that_takes_shorter_frames_only_is_named_and_casts_arrive() {
    let Some(hosts) = common::hosts(|label| Hosts::on_bridges(label, 3, 2)) else { return };
    let at = |host, wire| hosts.wire_address(host, wire).to_string();
    let network = |wire| format!("{}/24", hosts.wire_address(0, wire));
    let [to_far, to_near] = [network(1), network(0)];
    says_at(&hosts, 2, &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
    says_at(&hosts, 2, &["ip", "link", "set", "dev", "lan1", "mtu", "1000"]);
    says_at(&hosts, 1, &["ip", "link", "set", "dev", "lan1", "down"]);
    says_at(&hosts, 1, &["ip", "route", "add", &to_far, "via", &at(2, 0)]);
    says_at(&hosts, 3, &["ip", "link", "set", "dev", "lan0", "down"]);
    says_at(&hosts, 3, &["ip", "route", "add", &to_near, "via", &at(2, 1)]);
    let patient = DEFAULT_STACK.replace("SUSPECT", "SUSPECT(least_ms=2000,most_ms=2000)");
    let address = |own: usize| Address(format!("{}:7400", at(own, own / 2)));
    let mut both: Vec<Process> = [1, 3]
        .map(|own| {
            let transport = Either::Other(common::udp(&hosts, own, &UdpOptions::default()));
            let mut driver = driver(transport, own as u64);
            let contacts = if own == 1 { vec![] } else { vec![address(1)] };
            let options = JoinOptions {
                group: GroupId::named("far"),
                spec: patient.clone(),
                address: address(own),
                neighbours: Neighbours { contacts, discover: false },
            };
            let key = driver.join(options).unwrap();
            (driver, key)
        })
        .into();
    until(&mut both, |both| both.iter().all(|(driver, _)| driver.application().members.len() == 2));
    for _ in 0..20 {
        let (driver, key) = &mut both[0];
        driver.group(*key).cast(&[7; 1300]).unwrap();
    }
    until(&mut both, |both| both[1].0.application().casts.len() == 20);
    let notes = both[0].0.inner().transport().caps().notes;
    assert!(notes.iter().any(|note| note.contains("takes 1000 bytes at a time")), "{notes:?}");
}

const OPTIONS: ChannelOptions = ChannelOptions {
    cast_frames: 256,
    control_frames: 64,
    receive_frames: 200,
    frame_bytes: 1400,
    huge_pages: false,
};

/// A member of each kind, the one on AF_XDP first.
fn mixed(hosts: &Rc<Hosts>) -> [(Either, Channel); 2] {
    let view = view(hosts, 2, "");
    [1, 2].map(|host| {
        let mut transport = if host == 1 {
            Either::One(common::xdp(hosts, host, &small()))
        } else {
            Either::Other(common::udp(hosts, host, &UdpOptions::default()))
        };
        let local = LocalView::new(view.clone(), Incarnation(host as u64)).unwrap();
        let channel = transport.open(&local, &OPTIONS).unwrap();
        (transport, channel)
    })
}

#[test]
fn runs_that_a_sender_leaves_to_be_segmented_arrive_frame_by_frame() {
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 1)) else { return };
    let [(mut ring, there), (mut sockets, channel)] = mixed(&hosts);
    assert!(sockets.caps().segmentation, "or there is nothing to see here");
    let message = |number: usize| vec![number as u8; 1300];
    let mut got: Vec<Vec<u8>> = Vec::new();
    for round in 0..10 {
        for at in 0..20 {
            let mut frame = channel.casts.take(0).unwrap();
            frame.extend(&message(round * 20 + at)).unwrap();
            let head = frame.freeze();
            let transmit = Transmit { channel: channel.id, to: Destination::All, head, body: None };
            sockets.submit(transmit).unwrap();
        }
        sockets.flush();
        let end = Instant::now() + PATIENCE;
        while got.len() < (round + 1) * 20 && Instant::now() < end {
            ring.receive(64, &mut |received: Received| got.push(received.bytes().to_vec()));
            ring.reap();
        }
    }
    assert!(got.iter().cloned().eq((0..200).map(message)));
    let Either::One(On { inner, .. }) = &ring else { unreachable!() };
    assert!(inner.steered().long > 0, "they came as one: {:?}", inner.steered());
    drop(there);
}

/// What a `udp` sender leaves to be segmented comes over virtual interfaces as one frame, and a short one fits a chunk: the ring
/// would hand it up as if it had been sent so.
#[test]
fn short_runs_arrive_frame_by_frame_too() {
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 1)) else { return };
    let [(mut ring, _), (mut sockets, channel)] = mixed(&hosts);
    for (length, count) in
        [(300, 2), (300, 5), (500, 3), (600, 3), (800, 2), (800, 5), (1300, 2), (300, 8), (40, 64)]
    {
        for number in 0..count {
            let mut frame = channel.casts.take(0).unwrap();
            frame.extend(&vec![number as u8; length]).unwrap();
            let head = frame.freeze();
            sockets.submit(Transmit { channel: channel.id, to: Destination::All, head, body: None }).unwrap();
        }
        sockets.flush();
        let mut arrived: Vec<Vec<u8>> = Vec::new();
        let end = Instant::now() + PATIENCE;
        while arrived.iter().map(Vec::len).sum::<usize>() < count * length {
            assert!(Instant::now() < end, "{count} of {length}: {}", arrived.len());
            sockets.reap();
            ring.reap();
            ring.receive(64, &mut |received| arrived.push(received.bytes().to_vec()));
        }
        // By the ring and by the socket: in whatever order.
        arrived.sort();
        let sent: Vec<Vec<u8>> = (0..count).map(|number| vec![number as u8; length]).collect();
        let lengths: Vec<usize> = arrived.iter().map(Vec::len).collect();
        assert_eq!(arrived, sent, "{count} of {length}: {lengths:?}");
    }
}

/// What comes by the ordinary sockets has its turn while the ring alone fills every budget.
#[test]
fn a_full_ring_leaves_the_ordinary_sockets_their_turn() {
    const BUDGET: usize = 8;
    let Some(hosts) = common::hosts(|label| Hosts::up(label, 3)) else { return };
    let view = view(&hosts, 3, "");
    let mut three = [1, 2, 3].map(|host| {
        let mut transport = if host < 3 {
            Either::One(common::xdp(&hosts, host, &small()))
        } else {
            Either::Other(common::udp(&hosts, host, &UdpOptions::default()))
        };
        let local = LocalView::new(view.clone(), Incarnation(host as u64)).unwrap();
        let channel = transport.open(&local, &OPTIONS).unwrap();
        (transport, channel)
    });
    let send = |(transport, channel): &mut (Either, Channel), bytes: &[u8]| {
        let Ok(mut frame) = channel.casts.take(0) else { return false };
        frame.extend(bytes).unwrap();
        let to = Destination::One(Rank(0));
        transport.submit(Transmit { channel: channel.id, to, head: frame.freeze(), body: None }).is_ok()
    };
    let (mut under_way, mut parts, mut sent, mut calls) = (0_usize, 0, 0, 0);
    // Once the ring is where they meet, nothing but the ring comes from the one on the other ring.
    let end = Instant::now() + PATIENCE;
    while parts < 200 {
        assert!(Instant::now() < end && calls < 1_000_000, "{parts} of {sent} in {calls} calls");
        while under_way < 8 * BUDGET && send(&mut three[1], &[1; 200]) {
            under_way += 1;
        }
        if parts == sent {
            // A run, which goes round the ring.
            sent += (0..20).filter(|_| send(&mut three[2], &[2; 1300])).count();
        }
        for (transport, _) in &mut three {
            transport.flush();
            transport.reap();
        }
        three[0].0.receive(BUDGET, &mut |received: Received| match received.bytes()[0] {
            1 => under_way -= 1,
            _ => parts += 1,
        });
        calls += 1;
    }
    let Either::One(On { inner, .. }) = &three[0].0 else { unreachable!() };
    assert!(inner.steered().long > 0, "runs came: {:?}", inner.steered());
}

/// Once a second a frame to each neighbour goes by the ordinary socket: never to two of them in one cast, which in a large view
/// would hold the cast up for a call each.
#[test]
fn neighbours_are_shown_to_the_system_one_at_a_time() {
    let Some(hosts) = common::hosts(|label| Hosts::up(label, 4)) else { return };
    let view = view(&hosts, 4, "");
    let mut members = [1, 2, 3, 4].map(|host| {
        let mut transport = common::xdp(&hosts, host, &small());
        let local = LocalView::new(view.clone(), Incarnation(host as u64)).unwrap();
        let channel = transport.open(&local, &OPTIONS).unwrap();
        (transport, channel)
    });
    let [(sender, channel), readers @ ..] = &mut members;
    let (begin, mut shown) = (Instant::now(), 0);
    // They are found first.
    let learned = Duration::from_millis(500);
    while begin.elapsed() < Duration::from_secs(3) {
        let mut frame = channel.casts.take(0).unwrap();
        frame.extend(&[1; 64]).unwrap();
        let (id, head) = (channel.id, frame.freeze());
        let before = sender.counters().system_calls;
        sender.submit(Transmit { channel: id, to: Destination::All, head, body: None }).unwrap();
        let calls = sender.counters().system_calls - before;
        if begin.elapsed() > learned {
            // What is staged for others goes before.
            assert!(calls <= 2, "{calls} calls for one cast");
            shown += u32::from(calls > 0);
        }
        sender.flush();
        for (reader, _) in readers.iter_mut() {
            let mut got = 0;
            while got == 0 {
                assert!(begin.elapsed() < PATIENCE, "a frame is lost");
                sender.reap();
                reader.reap();
                got = reader.receive(8, &mut |_| {});
            }
        }
    }
    assert!(shown >= 3, "each is shown, in a second and a half to spare: {shown}");
}

/// Who answers what comes one by one has few frames to be filled; a burst is not lost for it, neither while the member may look
/// at any time nor while it sleeps.
#[test]
fn after_little_traffic_a_burst_while_nobody_looks_finds_room() {
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 1)) else { return };
    let view = view(&hosts, 2, "");
    let mut both = [1, 2].map(|host| {
        let mut transport = common::xdp(&hosts, host, &small());
        let local = LocalView::new(view.clone(), Incarnation(host as u64)).unwrap();
        let channel = transport.open(&local, &OPTIONS).unwrap();
        (transport, channel)
    });
    let end = Instant::now() + PATIENCE;
    // So many frames from one to the other, which does not look meanwhile.
    let burst = |both: &mut [(On<XdpTransport>, Channel); 2], from: usize, frames: usize| {
        let (sender, channel) = &mut both[from];
        let mut sent = 0;
        while sent < frames {
            assert!(Instant::now() < end, "{sent} of {frames} sent");
            if let Ok(mut frame) = channel.casts.take(0) {
                frame.extend(&[1; 64]).unwrap();
                let (channel, head) = (channel.id, frame.freeze());
                sender.submit(Transmit { channel, to: Destination::All, head, body: None }).unwrap();
                sent += 1;
            }
            sender.flush();
            sender.reap();
        }
        let reader = &mut both[1 - from].0;
        let (drops, mut got) = (reader.counters().overrun as usize, 0);
        while got + drops < frames {
            assert!(Instant::now() < end, "{got} of {frames} came, {drops} were dropped");
            got += reader.receive(64, &mut |_| {});
            reader.reap();
        }
        assert_eq!((got, drops), (frames, 0));
    };
    let ping_pong = |both: &mut [(On<XdpTransport>, Channel); 2]| {
        for _ in 0..10_000 {
            burst(both, 0, 1);
            burst(both, 1, 1);
        }
    };
    ping_pong(&mut both);
    burst(&mut both, 0, 100);
    ping_pong(&mut both);
    both[1].0.wait(Duration::ZERO);
    burst(&mut both, 0, small().fill_frames - 1);
    assert!(both[1].0.inner.steered().steered > 20_000, "they went by the ring");
}

#[test]
fn what_is_received_lies_in_the_shared_memory_and_kernel_checksums_are_not_looked_at() {
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 1)) else { return };
    let [(mut ring, there), (mut sockets, channel)] = mixed(&hosts);
    let mut count = 0;
    for round in 0..100_usize {
        // From an ordinary socket, whose UDP checksum nobody has filled in.
        let mut frame = channel.casts.take(0).unwrap();
        frame.extend(&[round as u8; 700]).unwrap();
        let to = Destination::One(Rank(0));
        let transmit = Transmit { channel: channel.id, to, head: frame.freeze(), body: None };
        sockets.submit(transmit).unwrap();
        sockets.flush();
        let end = Instant::now() + PATIENCE;
        let mut got = Vec::new();
        while got.is_empty() && Instant::now() < end {
            ring.receive(8, &mut |received: Received| got.push(received));
            ring.reap();
        }
        let Either::One(On { inner, .. }) = &ring else { unreachable!() };
        assert_eq!(got[0].bytes(), [round as u8; 700]);
        assert!(inner.holds(got[0].bytes()));
        count += got.len();
        // And back, to a kernel that would drop what has a wrong checksum.
        let mut frame = there.casts.take(0).unwrap();
        frame.extend(&[round as u8; 333]).unwrap();
        let transmit = Transmit { channel: there.id, to: Destination::All, head: frame.freeze(), body: None };
        ring.submit(transmit).unwrap();
        ring.flush();
        let mut back = 0;
        while back == 0 && Instant::now() < end {
            back += sockets.receive(8, &mut |received: Received| {
                assert_eq!(received.bytes(), [round as u8; 333]);
            });
        }
    }
    assert_eq!((count, ring.counters().copies), (100, 0));
    let Either::One(On { inner, .. }) = &ring else { unreachable!() };
    assert!(inner.steered().steered >= 100);
}

const HOLD: &str = "WADJET_XDP_HOLD";

/// Not a test of its own: the process that the next test kills. It holds an interface until its input ends.
/// A member's interface gets another hardware address, and the member says nothing: the system finds out, because it is
/// shown now and then that the neighbour is in use.
#[test]
fn a_neighbour_that_moves_is_found_again() {
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 1)) else { return };
    let settings = [("base_reachable_time_ms", 200), ("delay_first_probe_time", 0), ("retrans_time_ms", 20)];
    for (name, value) in settings {
        says_at(&hosts, 1, &["sysctl", "-qw", &format!("net.ipv4.neigh.lan0.{name}={value}")]);
    }
    let [(mut ring, channel), (mut sockets, _)] = mixed(&hosts);
    let mut sent = 0;
    let mut arrives = |ring: &mut Either, sockets: &mut Either| {
        let mut frame = channel.casts.take(0).unwrap();
        sent += 1;
        frame.extend(&u32::to_le_bytes(sent)).unwrap();
        let transmit =
            Transmit { channel: channel.id, to: Destination::All, head: frame.freeze(), body: None };
        ring.submit(transmit).unwrap();
        ring.flush();
        let (begun, mut arrived) = (Instant::now(), false);
        while !arrived && begun.elapsed() < Duration::from_millis(20) {
            ring.wait(Duration::from_millis(1));
            ring.reap();
            sockets.receive(64, &mut |received| arrived |= received.bytes() == u32::to_le_bytes(sent));
        }
        arrived
    };
    let mut soon = |ring: &mut Either, sockets: &mut Either| {
        let end = Instant::now() + PATIENCE;
        while !arrives(ring, sockets) {
            assert!(Instant::now() < end, "it is not found");
        }
    };
    soon(&mut ring, &mut sockets);
    says_at(&hosts, 2, &["ip", "link", "set", "dev", "lan0", "address", "02:00:00:00:4e:77"]);
    soon(&mut ring, &mut sockets);
}

/// How often the calling thread gave its processor up of its own accord.
fn sleeps() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// While a program comes to an interface or goes, of whatever process and host, the system holds a lock for milliseconds: as
/// when a member is killed, and the others go on to their next view. That does not wait for it; who joins a multicast group
/// does, and shows when it is held.
#[test]
fn a_next_view_opens_while_the_program_of_another_comes_and_goes() {
    const HELD: Duration = Duration::from_millis(1);
    const TIMES: usize = 40;
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 1)) else { return };
    let [(mut ring, _), (sockets, _)] = mixed(&hosts);
    drop(sockets);
    let (other, over) = (hosts.alias(), Arc::new(AtomicBool::new(false)));
    let coming_and_going = {
        let (own, over) = (address(&hosts, 2), Arc::clone(&over));
        std::thread::spawn(move || {
            let _stay = other.enter(2).unwrap();
            while !over.load(Ordering::Relaxed) {
                // The process that another test starts may have the port from its fork to its exec.
                let _ = XdpTransport::new(small()).unwrap().bind(GroupId::named("other"), &own);
            }
        })
    };
    let local = LocalView::new(view(&hosts, 2, ""), Incarnation(1)).unwrap();
    let (mut openings, mut joins, mut slow) = (0, 0, Vec::new());
    let end = Instant::now() + PATIENCE;
    while joins < TIMES {
        assert!(Instant::now() < end, "the lock was held {joins} times only");
        let stay = hosts.enter(1).unwrap();
        let listener = UdpSocket::bind("0.0.0.0:0").unwrap();
        let begun = Instant::now();
        listener.join_multicast_v4(&Ipv4Addr::new(239, 1, 2, 3), &hosts.address(1)).unwrap();
        joins += usize::from(begun.elapsed() >= HELD);
        drop(stay);
        let (begun, slept) = (Instant::now(), sleeps());
        let channel = ring.open(&local, &OPTIONS).unwrap();
        let opened = begun.elapsed();
        openings += 1;
        // Who lost its processor has not waited for a lock.
        if opened >= HELD && sleeps() > slept {
            slow.push(opened);
        }
        ring.close(channel.id);
    }
    over.store(true, Ordering::Relaxed);
    coming_and_going.join().unwrap();
    assert!(slow.len() < TIMES / 4, "{} of {openings} waited: {slow:?}", slow.len());
}

#[test]
fn holds_an_interface_when_told_to() {
    let Ok(address) = std::env::var(HOLD) else { return };
    let mut transport = XdpTransport::new(small()).unwrap();
    transport.bind(GroupId::named("held"), &Address(address)).unwrap();
    #[allow(clippy::print_stdout, reason = "the parent waits for this")]
    {
        println!("\nheld");
    }
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn says(hosts: &Hosts, command: &[&str]) -> String {
    let output = hosts.command(1, command[0].as_ref()).args(&command[1..]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_killed_process_leaves_no_program_and_no_socket() {
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 1)) else { return };
    let program = std::env::current_exe().unwrap();
    let mut command: Command = hosts.command(1, program.as_os_str());
    command.args(["--exact", "holds_an_interface_when_told_to", "--nocapture"]);
    command.env(HOLD, address(&hosts, 1).0).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.trim() == "held"));
    let link = || says(&hosts, &["ip", "-d", "link", "show", "dev", "lan0"]);
    assert!(link().contains("xdp"), "{}", link());
    child.kill().unwrap();
    child.wait().unwrap();
    // The system takes them down after the fact; the next process waits for it, so it can be made at once.
    let mut next = common::xdp(&hosts, 1, &small());
    next.bind(GroupId::named("next"), &address(&hosts, 1)).unwrap();
    drop(next);
    let end = Instant::now() + PATIENCE;
    while link().contains("xdp") && Instant::now() < end {
        std::thread::yield_now();
    }
    assert!(!link().contains("xdp"));
}

fn refused(transport: &mut On<XdpTransport>, at: &Address) -> TransportError {
    transport.bind(GroupId::named("refused"), at).unwrap_err()
}

#[test]
fn what_cannot_be_had_is_refused_in_words_and_leaves_nothing() {
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 2)) else { return };
    let own = address(&hosts, 1);
    let stay = hosts.enter(1).unwrap();
    let missing = XdpOptions { interface: Some("nowhere0".into()), ..small() };
    let error = XdpTransport::new(missing).unwrap_err();
    assert!(matches!(&error, TransportError::NoSuchInterface(name) if name == "nowhere0"), "{error}");
    drop(stay);
    let mut transport = common::xdp(&hosts, 1, &small());
    for (address, remedy) in [
        ("10.78.0.99:7400", "`ip addr` lists"),
        ("127.0.0.1:7400", "Ethernet"),
        ("[fd00::1]:7400", "IPv4"),
        ("lan0", "ip:port"),
        ("239.1.1.1:7400", "others cannot send to it"),
    ] {
        let error = refused(&mut transport, &Address(address.into()));
        assert!(matches!(error, TransportError::BadAddress(..)), "{error}");
        assert!(error.to_string().contains(remedy), "{error}");
    }
    // A queue that is not there, and an interface that another has.
    let mut ninth = common::xdp(&hosts, 1, &XdpOptions { queue: 9, ..small() });
    let error = refused(&mut ninth, &own);
    assert!(error.to_string().contains("no queue 9"), "{error}");
    let mut first = common::xdp(&hosts, 1, &small());
    first.bind(GroupId::named("first"), &own).unwrap();
    let error = refused(&mut transport, &own);
    assert!(matches!(error, TransportError::AddressInUse(_)), "{error}");
    let other_port = Address(format!("{}:7401", hosts.address(1)));
    let error = refused(&mut transport, &other_port);
    assert!(error.to_string().contains("`ss --xdp` names"), "{error}");
    drop(first);
    // The program of somebody who has no queue of it.
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/src/program/steer.bpf.o");
    says(&hosts, &["ip", "link", "set", "dev", "lan0", "xdpgeneric", "object", program, "section", "xdp"]);
    let error = refused(&mut transport, &other_port);
    assert!(error.to_string().contains("ip -d link show dev lan0"), "{error}");
    says(&hosts, &["ip", "link", "set", "dev", "lan0", "xdpgeneric", "off"]);
    // Jumbo frames are too long for the driver's mode, and not for the other.
    for host in [1, 2] {
        says_at(&hosts, host, &["ip", "link", "set", "dev", "lan1", "mtu", "9000"]);
    }
    let jumbo = Address(format!("{}:7400", hosts.wire_address(1, 1)));
    let native = XdpOptions { mode: wadjet_xdp::Mode::Native, ..small() };
    let error = refused(&mut common::xdp(&hosts, 1, &native), &jumbo);
    assert!(error.to_string().contains("lower the MTU"), "{error}");
    common::xdp(&hosts, 1, &small()).bind(GroupId::named("jumbo"), &jumbo).unwrap();
    says_at(&hosts, 1, &["ip", "link", "set", "dev", "lan1", "down"]);
    let error = refused(&mut transport, &jumbo);
    assert!(error.to_string().contains("is down; bring it up"), "{error}");
    // None of it is in the way of the next. A process that another test starts has the sockets of this one, too, from its
    // fork to its exec: the port may be taken for as long.
    let begun = Instant::now();
    while let Err(error) = transport.bind(GroupId::named("at last"), &own) {
        assert!(matches!(error, TransportError::AddressInUse(_)), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{error}");
    }
}

#[test]
fn an_address_too_many_is_refused_in_words_and_one_fewer_is_not() {
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 1)) else { return };
    let mut ring = common::xdp(&hosts, 1, &small());
    let mut bind = |port: u16| {
        let at = Address(format!("{}:{port}", hosts.address(1)));
        ring.bind(GroupId::named(&format!("group {port}")), &at)
    };
    (0..64).for_each(|port| drop(bind(7400 + port).unwrap()));
    let why = bind(7500).unwrap_err().to_string();
    assert!(why.contains("another address beside 64") && why.contains("leave groups"), "{why}");
}

/// An interface that goes down under a running transport.
#[test]
fn an_interface_that_stops_sending_is_told_of_and_not_asked_in_every_iteration() {
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 1)) else { return };
    let [(mut ring, there), (mut sockets, _here)] = mixed(&hosts);
    /// Whether it went by the ring: by an ordinary socket it takes a call at once.
    fn send(ring: &mut Either, there: &Channel) -> bool {
        let mut frame = there.casts.take(0).unwrap();
        frame.extend(&[1; 100]).unwrap();
        let (head, before) = (frame.freeze(), ring.counters().system_calls);
        ring.submit(Transmit { channel: there.id, to: Destination::All, head, body: None }).unwrap();
        let by_ring = ring.counters().system_calls == before;
        ring.flush();
        by_ring
    }
    let arrives = |ring: &mut Either, sockets: &mut Either| {
        let end = Instant::now() + PATIENCE;
        while sockets.receive(8, &mut |_| {}) == 0 {
            assert!(Instant::now() < end);
            ring.reap();
        }
    };
    let end = Instant::now() + PATIENCE;
    while !send(&mut ring, &there) {
        assert!(Instant::now() < end, "the other is never found");
        arrives(&mut ring, &mut sockets);
        ring.wait(Duration::from_millis(1));
    }
    arrives(&mut ring, &mut sockets);
    let told = |ring: &Either| ring.caps().notes.into_iter().find(|note| note.contains("`lan0`"));
    assert_eq!(told(&ring), None);
    says_at(&hosts, 1, &["ip", "link", "set", "dev", "lan0", "down"]);
    assert!(send(&mut ring, &there));
    let (before, begin) = (ring.counters().system_calls, Instant::now());
    for _ in 0..10_000 {
        ring.reap();
    }
    let (calls, most) = (ring.counters().system_calls - before, begin.elapsed().as_millis() as u64 + 2);
    assert!(calls <= most, "{calls} system calls in vain");
    let note = told(&ring).expect("it is told of");
    assert!(note.contains("does not send") && note.contains("`ip link set dev lan0 up`"), "{note}");
    says_at(&hosts, 1, &["ip", "link", "set", "dev", "lan0", "up"]);
    arrives(&mut ring, &mut sockets);
    let note = told(&ring).unwrap();
    assert!(note.contains("sends again"), "{note}");
}

fn says_at(hosts: &Hosts, host: usize, command: &[&str]) {
    let status = hosts.command(host, command[0].as_ref()).args(&command[1..]).status().unwrap();
    assert!(status.success());
}

/// The calling thread's capabilities: those of `keep` among the effective ones it has.
#[allow(unsafe_code)]
fn keep_capabilities(keep: impl Fn(u32) -> bool) {
    let header = [0x2008_0522_u32, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: version 3 of these calls reads a header of two words, and writes or reads six words of sets, which both
    // arrays are.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()), 0);
        for (at, word) in [(0, 0), (3, 32)] {
            for bit in (0..32).filter(|bit| !keep(word + bit)) {
                sets[at] &= !(1 << bit);
            }
        }
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()), 0);
    }
}

/// What binding says on a thread that keeps only some capabilities.
fn refused_with(hosts: &Hosts, own: Address, keep: impl Fn(u32) -> bool + Send) -> TransportError {
    bound_with(hosts, own, keep).unwrap_err()
}

fn bound_with(hosts: &Hosts, own: Address, keep: impl Fn(u32) -> bool + Send) -> Result<(), TransportError> {
    let name = hosts.alias();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // It does not come back: it ends there.
            std::mem::forget(name.enter(1).unwrap());
            keep_capabilities(keep);
            let mut transport = XdpTransport::new(small()).unwrap();
            transport.bind(GroupId::named("refused"), &own).map(drop)
        });
        thread.join().unwrap()
    })
}

#[test]
fn options_that_cannot_be_meant_are_refused_by_name() {
    let most = usize::MAX;
    for (name, options) in [
        ("transmit_frames", XdpOptions { transmit_frames: most, ..small() }),
        ("receive_frames", XdpOptions { receive_frames: most, ..small() }),
        ("fill_frames", XdpOptions { fill_frames: most, ..small() }),
        ("transmit_entries", XdpOptions { transmit_entries: u32::MAX, ..small() }),
        ("frame_bytes_max", XdpOptions { frame_bytes_max: 0, ..small() }),
    ] {
        let error = XdpTransport::new(options).unwrap_err();
        assert!(matches!(error, TransportError::BadOption { name: said, .. } if said == name), "{error}");
    }
}

#[test]
fn an_interface_that_does_not_have_the_address_is_worth_a_note() {
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 1)) else { return };
    says_at(&hosts, 1, &["ip", "link", "add", "lan8", "type", "veth", "peer", "name", "lan9"]);
    for name in ["lan8", "lan9"] {
        says_at(&hosts, 1, &["ip", "link", "set", "dev", name, "up"]);
    }
    for (interface, other) in [("lan0", false), ("lan8", true)] {
        let options = XdpOptions { interface: Some(interface.to_owned()), ..small() };
        let mut transport = common::xdp(&hosts, 1, &options);
        transport.bind(GroupId::named("which"), &address(&hosts, 1)).unwrap();
        let notes = transport.caps().notes;
        let named = |note: &String| note.contains("an address of lan0") && note.contains("lan8");
        assert_eq!(notes.iter().any(named), other, "{notes:?}");
    }
}

#[test]
#[allow(unsafe_code)]
fn who_may_not_or_may_not_lock_memory_is_told_what_it_takes() {
    let Some(hosts) = common::hosts(|label| Hosts::pair(label, 1)) else { return };
    let error = refused_with(&hosts, address(&hosts, 1), |_| false);
    assert!(matches!(error, TransportError::Permission { .. }), "{error}");
    assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
    // What the remedy names is enough: CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF, and CAP_IPC_LOCK for the frames.
    bound_with(&hosts, address(&hosts, 1), |capability| [12, 13, 14, 39].contains(&capability)).unwrap();
    // Whoever has CAP_IPC_LOCK does not feel the limit: the other tests of this process do not.
    let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
    // SAFETY: the limit is a live local.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
    const IPC_LOCK: u32 = 14;
    let error = refused_with(&hosts, address(&hosts, 1), |capability| capability != IPC_LOCK);
    assert!(matches!(error, TransportError::NoSpace { .. }), "{error}");
    assert!(error.to_string().contains("ulimit -l"), "{error}");
    let mut transport = common::xdp(&hosts, 1, &XdpOptions { huge_pages: true, ..small() });
    transport.bind(GroupId::named("may"), &address(&hosts, 1)).unwrap();
    let notes = transport.caps().notes;
    assert!(notes[0].contains("skb mode") && notes[0].contains("the system copies"), "{notes:?}");
    let huge = std::fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap();
    assert!(huge.trim() != "0" || notes.iter().any(|note| note.contains("nr_hugepages")), "{notes:?}");
}
