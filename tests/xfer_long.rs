//! State transfer where the state goes in frames longer than those of casts: over shared memory, and by datagrams where the
//! way is wide enough and those who take it in can.
#![cfg(target_os = "linux")]

use std::io::Cursor;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use wadjet::endpoint::GroupKey;
use wadjet::group::{Application, Delivery, Event, Group, Snapshot, StatePart};
use wadjet::layers::{DEFAULT_STACK, DEFAULT_STACK_WITH_INTEGRITY};
use wadjet::runtime::{Driver, DriverOptions, IdleStrategy, JoinOptions, LoopOptions};
use wadjet::transport::Transport;
use wadjet::transport::fault::{FaultOptions, Faulty};
use wadjet::transport::memory::{Hub, MemoryTransport};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::view::Neighbours;
use wadjet::{Address, Config, Endpoint, GroupId, Incarnation};

const PATIENCE: Duration = Duration::from_secs(60);
const STATE_BYTES: usize = 8 << 20;

/// Its state: some bytes that differ everywhere, and the sum of all casts, which goes with them.
#[derive(Default)]
struct Member {
    bytes: Vec<u8>,
    sum: u64,
    members: usize,
    parts: usize,
    longest: usize,
    /// It takes nothing in.
    busy: bool,
}

impl Application for Member {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        for message in delivery.messages() {
            self.sum += u64::from_le_bytes(message.try_into().unwrap());
        }
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        match event {
            Event::View(view) => self.members = view.size(),
            Event::Problem(problem) => panic!("{}: {}", problem.layer, problem.what),
            _ => {}
        }
    }

    fn snapshot(&mut self, _group: &mut Group<'_>) -> Option<Box<dyn Snapshot>> {
        let mut bytes = self.bytes.clone();
        bytes.extend(self.sum.to_le_bytes());
        Some(Box::new(Cursor::new(bytes)))
    }

    fn is_ready_for_state(&mut self, _bytes: usize) -> bool {
        !self.busy
    }

    fn install_state(&mut self, part: &StatePart<'_>, _group: &mut Group<'_>) -> Result<(), String> {
        if part.at == 0 {
            (self.bytes, self.sum, self.parts) = (Vec::new(), 0, 0);
        }
        assert_eq!(self.bytes.len() as u64, part.at, "nothing is missing");
        self.bytes.extend(part.bytes);
        self.parts += 1;
        self.longest = self.longest.max(part.bytes.len());
        if part.last {
            let sum = self.bytes.split_off(self.bytes.len() - 8);
            self.sum = u64::from_le_bytes(sum.try_into().unwrap());
        }
        Ok(())
    }
}

struct Party<T: Transport> {
    driver: Driver<T, Member>,
    group: GroupKey,
}

/// The `own`th of those with these addresses, counted from one; it looks for the first.
fn party<T: Transport>(
    own: usize,
    addresses: &[String],
    spec: &str,
    transport: T,
    application: Member,
) -> Party<T> {
    party_with(own, addresses, spec, transport, application, (Config::default(), DriverOptions::default()))
}

fn party_with<T: Transport>(
    own: usize,
    addresses: &[String],
    spec: &str,
    transport: T,
    application: Member,
    (config, options): (Config, DriverOptions),
) -> Party<T> {
    let address = |own: usize| Address(addresses[own - 1].clone());
    let endpoint = Endpoint::new(config, Incarnation(own as u64)).unwrap();
    let mut driver = Driver::new(endpoint, application, transport, options);
    let contacts = if own == 1 { Vec::new() } else { vec![address(1)] };
    let options = JoinOptions {
        group: GroupId(u64::from(std::process::id()) << 16 | 0x0f3a),
        spec: format!("XFER:{spec}"),
        address: address(own),
        neighbours: Neighbours { contacts, discover: false },
    };
    let group = driver.join(options).unwrap();
    Party { driver, group }
}

/// Runs everybody, who cast `casts` at most, until it is so.
fn until<T: Transport>(parties: &mut [Party<T>], casts: u32, mut done: impl FnMut(&[Party<T>]) -> bool) {
    let begun = Instant::now();
    let mut turns = 0_u32;
    while !done(parties) {
        let sums = || parties.iter().map(|party| party.driver.application().sum).collect::<Vec<u64>>();
        assert!(begun.elapsed() < PATIENCE, "after {turns} turns; {:?}", sums());
        turns += 1;
        for (at, party) in parties.iter_mut().enumerate() {
            if turns.is_multiple_of(16) && turns / 16 <= casts {
                // What is refused is not cast: no harm.
                let _ = party.driver.group(party.group).cast(&(u64::from(turns) << at).to_le_bytes());
            }
            party.driver.run_once();
        }
    }
}

/// One founds the group, another comes in, and then a third; each has the transport of its number.
fn come_in<T: Transport>(
    addresses: &[String],
    spec: &str,
    mut transport: impl FnMut(usize) -> T,
) -> Vec<Party<T>> {
    let bytes: Vec<u8> = (0..STATE_BYTES as u32).map(|at| (at ^ at >> 9 ^ at >> 17) as u8).collect();
    let mut party = |own, application| party(own, addresses, spec, transport(own), application);
    let mut parties = vec![party(1, Member { bytes: bytes.clone(), ..Member::default() })];
    until(&mut parties, 0, |parties| parties[0].driver.application().members == 1);
    for members in [2, 3] {
        parties.push(party(members, Member::default()));
        until(&mut parties, u32::MAX, |parties| {
            parties.iter().all(|party| {
                let application = party.driver.application();
                application.members == members && application.bytes.len() == STATE_BYTES
            })
        });
    }
    // Nobody casts any more; what is under way arrives.
    let sum = |party: &Party<T>| party.driver.application().sum;
    let mut quiet = 0;
    until(&mut parties, 0, |parties| {
        let same = sum(&parties[0]) > 0 && parties.iter().all(|party| sum(party) == sum(&parties[0]));
        quiet = if same { quiet + 1 } else { 0 };
        quiet > 1000
    });
    for party in &parties[1..] {
        assert!(party.driver.application().bytes == bytes, "the state came over as it was");
    }
    parties
}

fn came_in_long_parts(application: &Member, long_bytes: usize) {
    let Member { parts, longest, .. } = application;
    assert!(*longest > long_bytes / 2 && *longest < long_bytes, "the longest part was of {longest} bytes");
    // Some have gone before it was known that long ones arrive.
    assert!(*parts < STATE_BYTES / (long_bytes / 2) + 600, "it took {parts} parts");
}

/// So many addresses that are nobody's.
fn udp_addresses() -> Vec<String> {
    let sockets: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect()
}

#[test]
fn a_state_goes_in_long_frames_to_those_who_come_in_while_casts_go_on() {
    let addresses = ["long1", "long2", "long3"].map(String::from);
    let parties = come_in(&addresses, DEFAULT_STACK_WITH_INTEGRITY, |_| Shm::new(ShmOptions::default()));
    for party in &parties[1..] {
        came_in_long_parts(party.driver.application(), 32 << 10);
    }
}

#[test]
fn a_state_goes_in_long_datagrams_to_whoever_takes_them_and_in_short_ones_to_others() {
    let options = |own: usize| UdpOptions {
        long_frame_bytes_max: [60_000, 30_000, 0][own - 1],
        ..UdpOptions::default()
    };
    let parties = come_in(&udp_addresses(), DEFAULT_STACK, |own| UdpTransport::new(options(own)).unwrap());
    came_in_long_parts(parties[1].driver.application(), 30_000);
    let Member { longest, .. } = parties[2].driver.application();
    assert!(*longest < 1472, "{longest} bytes are more than it takes");
    for (at, party) in parties.iter().enumerate() {
        // What is in the way of long frames must not be that they are lost.
        let dropped = party.driver.transport_counters().dropped;
        assert!(dropped <= 4, "{dropped} frames at {at}: some probes may be");
    }
}

#[test]
fn where_long_datagrams_are_lost_on_the_way_no_part_is_one() {
    let faults = FaultOptions { narrow_bytes: 1472, ..FaultOptions::default() };
    let parties = come_in(&udp_addresses(), DEFAULT_STACK, |_| {
        Faulty::new(UdpTransport::new(UdpOptions::default()).unwrap(), faults)
    });
    for party in &parties[1..] {
        let Member { longest, .. } = party.driver.application();
        assert!(*longest < 1472, "{longest} bytes do not get through");
    }
}

/// With windows so small that receivers keep few large frames for casts: those that wait behind a lost part must not keep it
/// from coming in when it is sent again.
#[test]
fn lost_long_datagrams_come_in_again_where_windows_are_small() {
    let config = Config { window_frames: 64, ..Config::default() };
    let addresses = udp_addresses();
    let party = |own: usize, application| {
        let faults = FaultOptions { seed: own as u64, lost_per_million: 100_000, ..FaultOptions::default() };
        let transport = Faulty::new(UdpTransport::new(UdpOptions::default()).unwrap(), faults);
        let with = (config.clone(), DriverOptions::default());
        party_with(own, &addresses[..2], DEFAULT_STACK, transport, application, with)
    };
    let founder = Member { bytes: (0..STATE_BYTES).map(|at| (at / 7) as u8).collect(), ..Member::default() };
    let bytes = founder.bytes.clone();
    let mut parties = vec![party(1, founder)];
    until(&mut parties, 0, |parties| parties[0].driver.application().members == 1);
    parties.push(party(2, Member::default()));
    until(&mut parties, 0, |parties| parties[1].driver.application().bytes.len() == STATE_BYTES);
    let Member { bytes: came, longest, .. } = parties[1].driver.application();
    assert!(*came == bytes && *longest > 10_000, "the longest part was of {longest} bytes");
}

/// Each is taken in by itself, and a member that sleeps in between would sleep once for each.
#[test]
fn parts_that_waited_for_the_application_are_taken_in_without_a_sleep() {
    let hub = Hub::default();
    let addresses = ["late1", "late2"].map(String::from);
    let idle = IdleStrategy::Park { spins: 0, timeout: Duration::from_millis(1) };
    let party = |own, application| {
        let looping = LoopOptions { idle, ..LoopOptions::default() };
        let options = DriverOptions { looping, ..DriverOptions::default() };
        party_with(own, &addresses, DEFAULT_STACK, hub.transport(), application, (Config::default(), options))
    };
    let founder = Member { bytes: vec![7; 1 << 20], ..Member::default() };
    let mut parties = vec![party(1, founder)];
    until(&mut parties, 0, |parties| parties[0].driver.application().members == 1);
    parties.push(party(2, Member { busy: true, ..Member::default() }));
    let dump = |party: &mut Party<MemoryTransport>| party.driver.group(party.group).dump().join("\n");
    let begun = Instant::now();
    while !dump(&mut parties[1]).contains("which is all") {
        assert!(begun.elapsed() < PATIENCE, "{}", dump(&mut parties[1]));
        for party in &mut parties {
            party.driver.run_once();
        }
    }
    assert_eq!(parties[1].driver.application().parts, 0);
    parties[1].driver.application_mut().busy = false;
    let before = parties[1].driver.loop_stats().parks;
    until(&mut parties, 0, |parties| parties[1].driver.application().bytes.len() == 1 << 20);
    let parks = parties[1].driver.loop_stats().parks - before;
    let parts = parties[1].driver.application().parts as u64;
    assert!(parts > 10 && parks < 10, "{parks} sleeps for {parts} parts");
}
