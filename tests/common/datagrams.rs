//! What transports of UDP datagrams do beyond the contract of every transport (`crate::make` says which): runs, multicast, strangers, addresses that are wrong.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::{Carrier, make};
use wadjet::buf::Frame;
use wadjet::config::Config;
use wadjet::endpoint::Endpoint;
use wadjet::id::{GroupId, Incarnation, Rank, RankSet, ViewId};
use wadjet::transport::udp::{MulticastOptions, UdpOptions};
use wadjet::transport::{
    Channel, ChannelId, ChannelOptions, Destination, Outside, Received, Transmit, Transport, TransportError,
};
use wadjet::view::{Address, LocalView, Member, View};

const PATIENCE: Duration = Duration::from_secs(20);

const OPTIONS: ChannelOptions = ChannelOptions {
    cast_frames: 512,
    control_frames: 16,
    receive_frames: 256,
    frame_bytes: 1472,
    huge_pages: false,
};

/// Addresses of a test of its own.
fn addresses(count: usize) -> Vec<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed) * 8;
    let process = std::process::id();
    let (mine, block) = (1 + process % 250, process / 250 % 256);
    (0..count).map(|at| format!("127.{mine}.{block}.{}:7500", next + 1 + at as u32)).collect()
}

/// A multicast group of a test of its own.
fn group(addresses: &[String], port: u16) -> SocketAddrV4 {
    let [_, mine, block, host] = addresses[0].parse::<SocketAddrV4>().unwrap().ip().octets();
    SocketAddrV4::new(Ipv4Addr::new(239, mine, block, host), port)
}

fn view(addresses: &[String], own: usize) -> LocalView {
    let members = addresses.iter().enumerate().map(|(at, address)| Member {
        incarnation: Incarnation(at as u64),
        address: Address(address.clone()),
    });
    let view = View {
        group: GroupId::named("udp"),
        id: ViewId { counter: 1, coordinator: Incarnation(0) },
        members: members.collect(),
        spec: String::new(),
        wire_version: 1,
        salt: 0,
        frame_bytes: 0,
    };
    LocalView::new(view, Incarnation(own as u64)).unwrap()
}

fn open(addresses: &[String], own: usize, options: &UdpOptions) -> (Carrier, Channel) {
    let mut transport = make(options.clone()).unwrap();
    let channel = transport.open(&view(addresses, own), &OPTIONS).unwrap();
    (transport, channel)
}

fn refusal(address: &str, options: UdpOptions) -> TransportError {
    let mut transport = match make(options) {
        Ok(transport) => transport,
        Err(error) => return error,
    };
    transport.open(&view(&[address.to_owned()], 0), &OPTIONS).unwrap_err()
}

fn frame(channel: &Channel, seed: usize, length: usize) -> Frame {
    let mut frame = channel.casts.take(0).unwrap();
    frame.grow(length).unwrap().copy_from_slice(&pattern(seed, length));
    frame.freeze()
}

fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (seed * 131 + at * 7 + at / 256) as u8).collect()
}

fn cast(transport: &mut Carrier, channel: &Channel, head: Frame) {
    transport.submit(Transmit { channel: channel.id, to: Destination::All, head, body: None }).unwrap();
}

/// Receives until there are `count` in all.
fn receive(transport: &mut Carrier, got: &mut Vec<Received>, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while got.len() < count && Instant::now() < deadline {
        transport.receive(1000, &mut |received| got.push(received));
    }
    assert_eq!(got.len(), count);
}

#[test]
fn a_run_of_equal_frames_goes_in_one_call_and_comes_back_in_parts_without_a_copy() {
    let addresses = addresses(2);
    let (mut sender, channel) = open(&addresses, 0, &UdpOptions::default());
    let (mut receiver, _) = open(&addresses, 1, &UdpOptions::default());
    let caps = sender.caps();
    let mut copies = 0;
    for round in 0..50 {
        for at in 0..40 {
            // The last of a run may be shorter.
            let length = if at == 39 { 17 } else { 1400 };
            cast(&mut sender, &channel, frame(&channel, at, length));
        }
        assert!(sender.busy(channel.id), "what is submitted now would wait behind the run");
        sender.flush();
        assert!(!sender.busy(channel.id));
        let mut got = Vec::new();
        receive(&mut receiver, &mut got, 40);
        for (at, received) in got.iter().enumerate() {
            assert_eq!(received.bytes(), pattern(at, if at == 39 { 17 } else { 1400 }));
        }
        let shared = got.windows(2).filter(|pair| pair[0].frame.base() == pair[1].frame.base()).count();
        if caps.segmentation && caps.notes.is_empty() && round > 1 {
            assert!(shared >= 38, "the parts of a run share its frame: {shared}");
        }
        if round == 2 {
            copies = receiver.counters().copies;
        }
    }
    assert_eq!(receiver.counters().copies, copies, "once the length of the run's frames is known");
    if caps.segmentation {
        assert_eq!(sender.counters().system_calls, 50);
    }
    assert_eq!(sender.counters().frames_sent, 2000);
    assert_eq!(channel.casts.usage().lent, 0);
}

#[test]
fn runs_of_changing_size_and_single_frames_between_them_arrive_whole() {
    let addresses = addresses(2);
    let (mut sender, channel) = open(&addresses, 0, &UdpOptions::default());
    let (mut receiver, _) = open(&addresses, 1, &UdpOptions::default());
    let mut expected = Vec::new();
    let mut got = Vec::new();
    for round in 0..60_usize {
        let length = 1 + round * 977 % 1472;
        for at in 0..30 {
            cast(&mut sender, &channel, frame(&channel, round + at, length));
            expected.push((round + at, length));
        }
        sender.flush();
        receive(&mut receiver, &mut got, 30);
        // More than it takes for the receiver to find that nothing comes in runs any more.
        for single in 0..if round % 10 == 9 { 100 } else { 3 } {
            let length = 1 + (round * 31 + single * 577) % 1472;
            cast(&mut sender, &channel, frame(&channel, single, length));
            expected.push((single, length));
            sender.flush();
            let count = got.len() + 1;
            receive(&mut receiver, &mut got, count);
            // It asks in another way when the last time there was nothing.
            assert_eq!(receiver.receive(1, &mut |_| panic!("one frame was sent")), 0);
        }
        for (received, (seed, length)) in got.drain(..).zip(expected.drain(..)) {
            assert_eq!(received.bytes(), pattern(seed, length));
        }
    }
    assert_eq!(receiver.counters().dropped, 0);
}

#[test]
fn runs_of_several_sizes_that_are_taken_in_one_call_arrive_whole() {
    let addresses = addresses(2);
    let (mut sender, channel) = open(&addresses, 0, &UdpOptions::default());
    let (mut receiver, _) = open(&addresses, 1, &UdpOptions::default());
    for round in 0..30_usize {
        let mut expected = Vec::new();
        for run in 0..12 {
            // Each size puts another number of whole parts into the receiver's small frames.
            let length = [80, 500, 16, 1000, 48][(round + run) % 5];
            for at in 0..8 {
                cast(&mut sender, &channel, frame(&channel, run + at, length));
                expected.push((run + at, length));
            }
        }
        sender.flush();
        let mut got = Vec::new();
        receive(&mut receiver, &mut got, expected.len());
        for (received, (seed, length)) in got.into_iter().zip(expected) {
            assert_eq!(received.bytes(), pattern(seed, length), "round {round}");
        }
    }
}

#[test]
fn parts_that_are_held_for_long_do_not_let_the_receiver_run_dry() {
    let addresses = addresses(2);
    let (mut sender, channel) = open(&addresses, 0, &UdpOptions::default());
    let (mut receiver, _) = open(&addresses, 1, &UdpOptions::default());
    let before = receiver.receive_frames_lent();
    let mut held = Vec::new();
    // One part of every run is held: each would hold 64 KiB.
    for round in 0..OPTIONS.receive_frames {
        for at in 0..20 {
            cast(&mut sender, &channel, frame(&channel, round + at, 1000));
        }
        sender.flush();
        let mut got = Vec::new();
        receive(&mut receiver, &mut got, 20);
        held.push(got.swap_remove(10));
    }
    for (round, received) in held.iter().enumerate() {
        assert_eq!(received.bytes(), pattern(round + 10, 1000));
    }
    if sender.caps().segmentation && receiver.caps().notes.is_empty() {
        assert!(
            receiver.counters().copies > 0,
            "the parts were copied out of runs when large frames ran low"
        );
    }
    held.clear();
    assert_eq!(receiver.receive_frames_lent(), before);
}

#[test]
fn what_came_and_found_the_socket_full_is_counted_as_overrun_and_nothing_else_is_missing() {
    let addresses = addresses(2);
    let (mut sender, channel) = open(&addresses, 0, &UdpOptions::default());
    let small = UdpOptions { receive_buffer_bytes: 4096, ..UdpOptions::default() };
    let (mut receiver, _) = open(&addresses, 1, &small);
    let sent = 2_000;
    for at in 0..sent {
        cast(&mut sender, &channel, frame(&channel, at, 700));
        sender.flush();
    }
    let mut got = 0;
    let deadline = Instant::now() + PATIENCE;
    while got + receiver.counters().overrun as usize != sent {
        assert!(Instant::now() < deadline, "{got} came; {:?}", receiver.counters());
        receiver.receive(1000, &mut |_| got += 1);
    }
    assert!(receiver.counters().overrun > 0, "{got} datagrams of 700 bytes found room in 4096");
}

#[test]
fn a_receiver_whose_user_holds_everything_stops_and_goes_on_without_losing_what_it_took() {
    let addresses = addresses(2);
    let (mut sender, channel) = open(&addresses, 0, &UdpOptions::default());
    let (mut receiver, _) = open(&addresses, 1, &UdpOptions::default());
    let mut held = Vec::new();
    let mut sent = 0;
    // Far more than was asked for may be held.
    for _ in 0..100 {
        for _ in 0..10 {
            cast(&mut sender, &channel, frame(&channel, sent, 700));
            sent += 1;
        }
        sender.flush();
        receiver.receive(1000, &mut |received| held.push(received));
    }
    assert!(held.len() >= OPTIONS.receive_frames && held.len() < sent);
    let mut got = held.len();
    assert!(held.drain(..).enumerate().all(|(at, received)| received.bytes() == pattern(at, 700)));
    let deadline = Instant::now() + PATIENCE;
    while got < sent && Instant::now() < deadline {
        receiver.receive(1000, &mut |received| {
            assert_eq!(received.bytes(), pattern(got, 700));
            got += 1;
        });
    }
    assert_eq!((got, receiver.counters().overrun), (sent, 0));
}

#[test]
fn strangers_are_handed_up_and_what_is_longer_than_a_frame_is_dropped_and_counted() {
    for coalescing in [true, false] {
        let addresses = addresses(1);
        let options = UdpOptions { coalescing, long_frame_bytes_max: 0, ..UdpOptions::default() };
        let (mut member, _) = open(&addresses, 0, &options);
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        for length in [3000, 1473, 1472, 0, 60_000, 5] {
            stranger.send_to(&pattern(length, length), &addresses[0]).unwrap();
        }
        let mut got = Vec::new();
        receive(&mut member, &mut got, 3);
        let lengths: Vec<_> = got.iter().map(|received| received.bytes().len()).collect();
        assert_eq!(lengths, [1472, 0, 5]);
        assert_eq!(got[0].bytes(), pattern(1472, 1472));
        assert_eq!(member.counters().dropped, 3);
    }
}

#[test]
fn long_datagrams_come_whole_one_by_one_and_among_others_and_in_runs() {
    let addresses = addresses(2);
    let (mut sender, channel) = open(&addresses, 0, &UdpOptions::default());
    let (mut receiver, _) = open(&addresses, 1, &UdpOptions::default());
    let long = channel.long.as_ref().expect("the loopback takes long ones");
    assert_eq!(long.frame_bytes(), 32 << 10);
    // Who does not expect any may lose the first.
    let mut probes = 0;
    while !receiver_has_got_one(&mut receiver) {
        let mut probe = long.take(0).unwrap();
        probe.grow(2000).unwrap();
        let to = Destination::One(Rank(1));
        sender.submit(Transmit { channel: channel.id, to, head: probe.freeze(), body: None }).unwrap();
        sender.flush();
        probes += 1;
        assert!(probes < 100);
    }
    let lost = receiver.counters().dropped;
    let mut sent = 0;
    let mut batch = |lengths: &[usize], receiver: &mut Carrier| {
        for (at, length) in lengths.iter().enumerate() {
            let region = if *length > 1472 { long } else { &channel.casts };
            let mut frame = region.take(0).unwrap();
            frame.extend(&pattern(sent + at, *length)).unwrap();
            let to = Destination::One(Rank(1));
            sender.submit(Transmit { channel: channel.id, to, head: frame.freeze(), body: None }).unwrap();
        }
        sender.flush();
        let mut got = Vec::new();
        receive(receiver, &mut got, lengths.len());
        for (at, (received, length)) in got.iter().zip(lengths).enumerate() {
            assert!(received.bytes() == pattern(sent + at, *length), "{at} of {lengths:?}");
        }
        sent += lengths.len();
    };
    // Alone, and again when it was alone for long.
    for _ in 0..100 {
        batch(&[5000], &mut receiver);
        batch(&[64], &mut receiver);
    }
    batch(&[64, 32 << 10, 1472, 1473, 700, 700, 700, 20_000, 1], &mut receiver);
    // Runs of long ones, after runs of short ones, and the other way round.
    for _ in 0..3 {
        batch(&[600; 40], &mut receiver);
        batch(&[3000; 20], &mut receiver);
        batch(&[1473; 20], &mut receiver);
        batch(&[15_000; 8], &mut receiver);
    }
    assert_eq!((sender.counters().dropped, receiver.counters().dropped), (0, lost));
}

fn receiver_has_got_one(receiver: &mut Carrier) -> bool {
    let mut got = false;
    let deadline = Instant::now() + Duration::from_millis(10);
    while !got && Instant::now() < deadline {
        receiver.receive(64, &mut |received| got |= received.bytes().len() == 2000);
    }
    got
}

#[test]
fn a_multicast_reaches_all_others_with_one_message_and_does_not_come_back() {
    let addresses = addresses(3);
    let group = group(&addresses, 7501);
    let options = UdpOptions { multicast: Some(MulticastOptions::to(group)), ..UdpOptions::default() };
    let mut members: Vec<_> = (0..3).map(|own| open(&addresses, own, &options)).collect();
    let caps = members[0].0.caps();
    if !caps.multicast {
        assert!(caps.notes.iter().any(|note| note.contains("fan-out")), "{caps:?}");
        return not_run("IP multicast is not to be had");
    }
    for at in 0..20 {
        let (sender, channel) = &mut members[0];
        cast(sender, channel, frame(channel, at, 1000));
    }
    members[0].0.flush();
    assert_eq!(members[0].0.counters().frames_sent, 20);
    for (transport, _) in &mut members[1..] {
        let mut got = Vec::new();
        receive(transport, &mut got, 20);
        assert!(got.iter().enumerate().all(|(at, received)| received.bytes() == pattern(at, 1000)));
    }
    assert_eq!(members[0].0.receive(100, &mut |_| panic!("its own frame")), 0);
    assert_eq!(members[0].0.counters().dropped, 0);
}

#[test]
fn ipv6_members_reach_each_other() {
    let Ok(probe) = UdpSocket::bind("[::1]:0") else { return not_run("there is no IPv6") };
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let addresses =
        [format!("[::1]:{port}"), format!("[::1]:{}", if port > 60_000 { port - 1 } else { port + 1 })];
    let (mut sender, channel) = open(&addresses, 0, &UdpOptions::default());
    let (mut receiver, _) = open(&addresses, 1, &UdpOptions::default());
    for at in 0..30 {
        cast(&mut sender, &channel, frame(&channel, at, 1400));
    }
    sender.flush();
    let mut got = Vec::new();
    receive(&mut receiver, &mut got, 30);
    assert!(got.iter().enumerate().all(|(at, received)| received.bytes() == pattern(at, 1400)));
}

#[test]
fn an_address_that_cannot_be_used_is_refused_in_words_that_say_what_to_do() {
    let cases = [
        ("nonsense", "write it as ip:port"),
        ("127.0.0.1:0", "choose one from 1024"),
        ("0.0.0.0:7400", "give the address of one interface"),
        // From the block reserved for documentation: no interface has it.
        ("192.0.2.1:7400", "`ip addr` lists those there are"),
    ];
    for (address, words) in cases {
        let error = refusal(address, UdpOptions::default());
        assert!(matches!(error, TransportError::BadAddress(..)), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let taken = addresses(1).remove(0);
    let _holder = UdpSocket::bind(&taken).unwrap();
    let error = refusal(&taken, UdpOptions::default());
    assert!(matches!(&error, TransportError::AddressInUse(address) if address.0 == taken), "{error}");
    let mut multicast = MulticastOptions::to("239.1.2.3:7400".parse().unwrap());
    multicast.interface = Some("no-such-interface".into());
    let options = UdpOptions { multicast: Some(multicast), ..UdpOptions::default() };
    assert!(matches!(refusal("127.0.0.1:7400", options), TransportError::NoSuchInterface(_)));
    let multicast = Some(MulticastOptions::to("10.0.0.1:7400".parse().unwrap()));
    let options = UdpOptions { multicast, ..UdpOptions::default() };
    assert!(refusal("127.0.0.1:7400", options).to_string().contains("224.0.0.0/4"));
}

#[test]
fn two_members_of_one_address_or_of_two_ip_versions_are_refused() {
    let open = |addresses: [&str; 2]| {
        let addresses = addresses.map(str::to_owned);
        let mut transport = make(UdpOptions::default()).unwrap();
        transport.open(&view(&addresses, 0), &OPTIONS).unwrap_err().to_string()
    };
    assert!(open(["127.0.0.1:7400", "127.0.0.1:7400"]).contains("every member needs its own"));
    assert!(open(["127.0.0.1:7400", "[::1]:7400"]).contains("one version"));
}

#[test]
fn a_group_that_cannot_be_joined_is_served_by_fan_out_and_the_caps_say_so() {
    let addresses = addresses(3);
    let group = group(&addresses, 7502);
    // Somebody holds the group's port for himself alone.
    let _holder = UdpSocket::bind(SocketAddrV4::new(*group.ip(), group.port())).unwrap();
    let options = UdpOptions { multicast: Some(MulticastOptions::to(group)), ..UdpOptions::default() };
    let mut members: Vec<_> = (0..3).map(|own| open(&addresses, own, &options)).collect();
    let caps = members[0].0.caps();
    assert!(!caps.multicast && caps.notes.iter().any(|note| note.contains("fan-out instead")), "{caps:?}");
    let (sender, channel) = &mut members[0];
    cast(sender, channel, frame(channel, 1, 1000));
    sender.flush();
    for (transport, _) in &mut members[1..] {
        receive(transport, &mut Vec::new(), 1);
    }
}

/// Receives until something of `bytes` has come; what else comes is returned too.
fn hear(transport: &mut Carrier, bytes: &[u8]) -> Vec<Received> {
    let deadline = Instant::now() + PATIENCE;
    let mut got: Vec<Received> = Vec::new();
    while !got.iter().any(|received| received.bytes() == bytes) {
        assert!(Instant::now() < deadline, "not heard");
        transport.receive(100, &mut |received| got.push(received));
    }
    got
}

#[test]
fn port_0_is_filled_in_and_several_groups_share_an_address() {
    let ip = addresses(1)[0].parse::<SocketAddrV4>().unwrap().ip().to_string();
    let mut transport = make(UdpOptions::default()).unwrap();
    let (one, two) = (GroupId::named("one"), GroupId::named("two"));
    let address = transport.bind(one, &Address(format!("{ip}:0"))).unwrap();
    assert_ne!(address.0.parse::<SocketAddrV4>().unwrap().port(), 0);
    assert_eq!(transport.bind(two, &address).unwrap(), address);
    assert_eq!(transport.bind(one, &address).unwrap(), address, "bound again where it is");
    let stranger = UdpSocket::bind(format!("{ip}:0")).unwrap();
    stranger.send_to(b"hello", &address.0).unwrap();
    assert_eq!(hear(&mut transport, b"hello")[0].channel, ChannelId::OUTSIDE);
    // One of the two moves; the address stays for the other, and goes with it.
    let other = transport.bind(one, &Address(format!("{ip}:0"))).unwrap();
    assert_ne!(other, address);
    stranger.send_to(b"still", &address.0).unwrap();
    hear(&mut transport, b"still");
    for (group, from) in [(one, &other), (two, &address)] {
        transport.send_outside(
            group,
            &Outside::To(Address(stranger.local_addr().unwrap().to_string())),
            b"?",
        );
        let (_, sender) = stranger.recv_from(&mut [0; 9]).unwrap();
        assert_eq!(sender.to_string(), from.0, "each group speaks from its own address");
    }
    assert!(UdpSocket::bind(&address.0).is_err());
    transport.bind(two, &other).unwrap();
    let _free_again = UdpSocket::bind(&address.0).unwrap();
    for wrong in ["nonsense", "0.0.0.0:7400", "239.1.1.1:7400"] {
        assert!(transport.bind(two, &Address(wrong.into())).is_err());
    }
    stranger.send_to(b"undisturbed", &other.0).unwrap();
    hear(&mut transport, b"undisturbed");
    let dropped = transport.counters().dropped;
    for wrong in ["nonsense", "127.0.0.1:0", "239.1.1.1:7400", "[::1]:7400"] {
        transport.send_outside(two, &Outside::To(Address(wrong.into())), b"x");
    }
    transport.send_outside(GroupId::named("never bound"), &Outside::To(other), b"x");
    assert_eq!(transport.counters().dropped, dropped + 5);
}

#[test]
fn discovery_reaches_every_process_that_listens_there_and_not_oneself() {
    let addresses = addresses(3);
    let discovery = Some(group(&addresses, 7503));
    let options = UdpOptions { discovery, ..UdpOptions::default() };
    let named = GroupId::named("udp");
    let mut ends: Vec<_> = addresses
        .iter()
        .map(|address| {
            let mut transport = make(options.clone()).unwrap();
            transport.bind(named, &Address(address.clone())).unwrap();
            transport
        })
        .collect();
    if ends[0].caps().notes.iter().any(|note| note.contains("no discovery")) {
        return not_run("IP multicast is not to be had");
    }
    for (at, channel) in [(0, false), (1, true)] {
        let channel = channel.then(|| ends[at].open(&view(&addresses, at), &OPTIONS).unwrap());
        ends[at].send_outside(named, &Outside::Discover, b"who is there?");
        for other in (0..3).filter(|other| *other != at) {
            assert_eq!(hear(&mut ends[other], b"who is there?")[0].channel, ChannelId::OUTSIDE);
        }
        let (me, other) = (Outside::To(Address(addresses[at].clone())), (at + 1) % 3);
        ends[other].send_outside(named, &me, b"I am");
        let got = hear(&mut ends[at], b"I am");
        assert_eq!(got.len(), 1, "nobody hears himself");
        assert_eq!(got[0].channel, channel.map_or(ChannelId::OUTSIDE, |channel| channel.id));
    }
    // Whoever waits is woken by it.
    ends[0].send_outside(named, &Outside::Discover, b"again");
    let start = Instant::now();
    let mut heard = false;
    while !heard {
        ends[2].wait(PATIENCE);
        ends[2].receive(10, &mut |received| heard |= received.bytes() == b"again");
    }
    assert!(start.elapsed() < PATIENCE);
    // Without a discovery address it reaches nobody, and is no error.
    let mut lonely = make(UdpOptions::default()).unwrap();
    lonely.bind(named, &Address(addresses[0].replace(":7500", ":7504"))).unwrap();
    lonely.send_outside(named, &Outside::Discover, b"anybody?");
    assert_eq!((lonely.counters().frames_sent, lonely.counters().dropped), (0, 0));
}

#[test]
fn a_discovery_address_that_cannot_be_used_is_refused_in_words() {
    let discovery = Some("10.0.0.1:7400".parse().unwrap());
    let error = refusal("127.0.0.1:7400", UdpOptions { discovery, ..UdpOptions::default() });
    assert!(error.to_string().contains("224.0.0.0/4"), "{error}");
    let group: SocketAddrV4 = "239.1.2.3:7400".parse().unwrap();
    let multicast = Some(MulticastOptions::to(group));
    let error =
        refusal("127.0.0.1:7400", UdpOptions { discovery: Some(group), multicast, ..UdpOptions::default() });
    assert!(error.to_string().contains("a port of its own"), "{error}");
}

#[test]
fn a_dead_member_is_named_and_nothing_is_lost_to_the_others_nor_is_the_hint_for_ever() {
    for version in [4, 6] {
        let addresses = if version == 4 { addresses(4) } else { ipv6_addresses(4) };
        if addresses.is_empty() {
            continue;
        }
        let mut members: Vec<_> =
            (0..4).map(|own| Some(open(&addresses, own, &UdpOptions::default()))).collect();
        let gone = |members: &[Option<(Carrier, Channel)>]| {
            let (transport, channel) = members[0].as_ref().unwrap();
            transport.gone(channel.id)
        };
        let mut sent = 0;
        // The first and the last in the order of sending, so that errors fall on calls for the others and for nobody.
        for dead in [1, 3] {
            members[dead] = None;
            let deadline = Instant::now() + PATIENCE;
            let mut rounds = 0;
            while rounds < 3000 || !gone(&members).contains(Rank::at(dead)) {
                assert!(Instant::now() < deadline, "member {dead} of version {version} is not missed");
                let (transport, channel) = members[0].as_mut().unwrap();
                for _ in 0..1 + rounds % 3 {
                    cast(transport, channel, frame(channel, sent, 200 + rounds % 2 * 100));
                    sent += 1;
                }
                transport.flush();
                assert!(!transport.busy(channel.id), "nothing stays staged");
                transport.receive(10, &mut |_| panic!("nobody sends to it"));
                let (living, _) = members[2].as_mut().unwrap();
                let mut got = Vec::new();
                receive(living, &mut got, 1 + rounds % 3);
                rounds += 1;
            }
            assert!(!gone(&members).contains(Rank(2)), "the living are not named");
        }
        assert_eq!(members[0].as_ref().unwrap().0.counters().dropped, 0);
        let calls = members[0].as_ref().unwrap().0.counters().system_calls;
        assert!(calls < 6 * sent as u64, "{calls} calls for {sent} casts and as many looks");
        // One comes back, and is heard.
        let (mut back, channel) = open(&addresses, 3, &UdpOptions::default());
        cast(&mut back, &channel, frame(&channel, 5, 50));
        back.flush();
        let (transport, _) = members[0].as_mut().unwrap();
        receive(transport, &mut Vec::new(), 1);
        assert_eq!(gone(&members), RankSet::one(Rank(1)));
        // And whoever waits is not woken by what the network says for ever.
        let (transport, channel) = members[0].as_mut().unwrap();
        cast(transport, channel, frame(channel, 5, 50));
        transport.flush();
        let short = Duration::from_millis(5);
        let slept = (0..200).filter(|_| {
            let start = Instant::now();
            transport.wait(short);
            transport.receive(10, &mut |_| ());
            start.elapsed() >= short
        });
        assert!(slept.count() >= 150);
    }
}

/// Says on one line what was not run, and why; in CI everything is there and nothing is passed over.
#[expect(clippy::print_stdout, reason = "whoever runs the tests is to know")]
fn not_run(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    println!("not run: {why}");
}

fn ipv6_addresses(count: usize) -> Vec<String> {
    let probes: Result<Vec<_>, _> = (0..count).map(|_| UdpSocket::bind("[::1]:0")).collect();
    let Ok(probes) = probes else {
        not_run("there is no IPv6");
        return Vec::new();
    };
    probes.iter().map(|probe| probe.local_addr().unwrap().to_string()).collect()
}

#[test]
fn a_channel_opens_at_an_address_in_use_in_far_less_than_a_millisecond() {
    let addresses = addresses(2);
    let endpoint = Endpoint::new(Config::default(), Incarnation(0)).unwrap();
    let options = endpoint.channel_options(2);
    let mut transport = make(UdpOptions::default()).unwrap();
    transport.bind(GroupId::named("udp"), &Address(addresses[0].clone())).unwrap();
    let local = view(&addresses, 0);
    let mut open = transport.open(&local, &options).unwrap();
    transport.prepare(&options);
    let mut times: Vec<Duration> = (0..300)
        .map(|_| {
            let start = Instant::now();
            let next = transport.open(&local, &options).unwrap();
            transport.close(open.id);
            open = next;
            start.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[150] < Duration::from_micros(300), "median {:?}, longest {:?}", times[150], times[299]);
}
