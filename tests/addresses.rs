//! Guests whose addresses are of no use to somebody, over UDP: they are not let in, and if they are the group goes on.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use wadjet::group::{Application, Delivery, Event, Group};
use wadjet::layers::DEFAULT_STACK as STACK;
use wadjet::runtime::{Driver, DriverOptions, JoinOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::view::Neighbours;
use wadjet::wire::full::Identification;
use wadjet::wire::{Traffic, WIRE_VERSION, outside};
use wadjet::{Address, Config, Endpoint, GroupId, GroupKey, Incarnation, Rank, ViewId};

#[derive(Default)]
struct Notes {
    members: Vec<u64>,
    views: usize,
    casts: usize,
    problems: Vec<String>,
    exits: Vec<String>,
}

impl Application for Notes {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        self.casts += delivery.messages().count();
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        match event {
            Event::View(view) => {
                self.members = view.view().members.iter().map(|member| member.incarnation.0).collect();
                self.members.sort_unstable();
                self.views += 1;
            }
            Event::Problem(problem) => self.problems.push(problem.what.to_string()),
            Event::Exit(reason) => self.exits.push(reason.to_string()),
            _ => {}
        }
    }
}

type Process = (Driver<UdpTransport, Notes>, GroupKey);

const MEMBERS: [u64; 3] = [1, 2, 3];
/// The process that is none.
const GUEST: u64 = 99;

fn until(processes: &mut [Process], mut done: impl FnMut(&[Process]) -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done(processes) {
        processes.iter_mut().for_each(|(driver, _)| {
            driver.run_once();
        });
        let state = |(driver, _): &Process| {
            let Notes { members, exits, .. } = driver.application();
            format!("{members:?} {exits:?}")
        };
        assert!(Instant::now() < end, "{:?}", processes.iter().map(state).collect::<Vec<_>>());
    }
}

/// A group of three, and their addresses in the order of their ranks.
fn group(name: &str) -> (Vec<Process>, Vec<String>) {
    let mut contacts = Vec::new();
    let mut processes = Vec::new();
    for own in MEMBERS {
        // A crowded machine makes nobody silent.
        let spec = STACK.replace("SUSPECT", "SUSPECT(least_ms=300,most_ms=1000,first_ms=300)");
        let endpoint = Endpoint::new(Config::default(), Incarnation(own)).unwrap();
        let transport = UdpTransport::new(UdpOptions::default()).unwrap();
        let mut driver = Driver::new(endpoint, Notes::default(), transport, DriverOptions::default());
        let key = driver
            .join(JoinOptions {
                group: GroupId::named(name),
                spec,
                address: Address("127.0.0.1:0".into()),
                neighbours: Neighbours { contacts: contacts.clone(), discover: false },
            })
            .unwrap();
        if contacts.is_empty() {
            contacts.push(driver.group(key).view().member(Rank(0)).address.clone());
        }
        processes.push((driver, key));
    }
    until(&mut processes, |all| all.iter().all(|(driver, _)| driver.application().members.len() == 3));
    let (driver, key) = &mut processes[0];
    let view = driver.group(*key).view().view().clone();
    assert_eq!(view.members[0].incarnation, Incarnation(1), "who was there first coordinates");
    (processes, view.members.into_iter().map(|member| member.address.0).collect())
}

/// A letter to the coordinator: let this process in, which is reached at `address`.
fn ask_in(processes: &mut [Process], to: &str, address: &str) {
    let (driver, key) = &mut processes[0];
    let view = driver.group(*key).view().view().clone();
    let text = |text: &str| [&(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
    let Config { window_frames, message_bytes_max, .. } = Config::default();
    let terms =
        format!("{}, windows of {window_frames} frames, messages of {message_bytes_max} bytes", view.spec);
    let words = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let body = [
        &[1][..],
        &words(&[1, GUEST, 0]),
        &text(&terms),
        &[WIRE_VERSION],
        &words(&[1472]),
        &128u16.to_le_bytes(),
        &1u16.to_le_bytes(),
        &words(&[GUEST]),
        &text(address),
    ]
    .concat();
    let origin = Incarnation(GUEST);
    let id = ViewId { counter: 0, coordinator: origin };
    let identification = Identification { group: view.group, view: id, origin, stack: 0 };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for datagram in outside::split(identification, Traffic::Raw, 7, &body) {
        socket.send_to(&datagram, to).unwrap();
    }
}

/// Everybody is where it was, and what is cast arrives.
fn goes_on(processes: &mut [Process], what: &str) {
    let before: Vec<usize> = processes.iter().map(|(driver, _)| driver.application().casts).collect();
    for (driver, key) in processes.iter_mut() {
        driver.group(*key).cast(b"still here").unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    until(processes, |all| {
        all.iter().zip(&before).all(|((driver, _), before)| driver.application().casts == before + 3)
    });
    for (driver, _) in processes {
        assert_eq!(driver.application().exits, [""; 0], "{what}");
        assert_eq!(driver.application().members, MEMBERS, "{what}");
    }
}

#[test]
fn a_guest_whose_address_is_of_no_use_is_not_let_in_and_the_application_is_told_why() {
    let cases = [
        ("x", "write it as ip:port"),
        ("127.0.0.1:0", "port 0 means no port"),
        ("0.0.0.0:7400", "give the address of one interface"),
        ("239.1.2.3:7400", "others cannot send to it"),
        ("[::1]:7400", "give all members one version"),
        ("10.78.0.1:7400", "give all members such, or none"),
    ];
    for (at, (address, why)) in cases.into_iter().enumerate() {
        let (mut processes, addresses) = group(&format!("refused {at}"));
        let views = processes[0].0.application().views;
        ask_in(&mut processes, &addresses[0], address);
        until(&mut processes, |all| !all[0].0.application().problems.is_empty());
        goes_on(&mut processes, address);
        let notes = processes[0].0.application();
        assert_eq!(notes.views, views, "{address}: nothing was flushed for it");
        let [problem] = &notes.problems[..] else { panic!("{address}: {:?}", notes.problems) };
        for part in [address, why, &addresses[0]] {
            assert!(problem.contains(part), "{problem}");
        }
    }
}

/// The address of another member, written in another way: the coordinator cannot know. Nobody answers there for the guest.
#[test]
fn a_guest_whose_address_is_that_of_a_member_is_not_let_in() {
    let (mut processes, addresses) = group("not let in");
    let views: Vec<usize> = processes.iter().map(|(driver, _)| driver.application().views).collect();
    let (ip, port) = addresses[1].split_once(':').unwrap();
    let asked = "confirmation asked for by a stranger";
    let is_asked = |processes: &[Process]| {
        let (driver, key) = &processes[1];
        driver.stats(*key).counts.iter().any(|count| count.what == asked)
    };
    let mut times = 0;
    while times < 20 || !is_asked(&processes) {
        // As guests do, until they are let in: on a crowded machine one letter may be too old when it is looked at.
        ask_in(&mut processes, &addresses[0], &format!("{ip}:0{port}"));
        times += 1;
        let end = Instant::now() + Duration::from_millis(10);
        until(&mut processes, |_| Instant::now() >= end);
    }
    goes_on(&mut processes, "not let in");
    for ((driver, _), before) in processes.iter().zip(views) {
        assert_eq!(driver.application().views, before, "nothing was flushed for it");
    }
}

/// Every reason is known before anything is bound or sent: nobody would ever answer, and nothing would say so.
#[test]
fn contacts_that_can_never_be_reached_are_refused_in_words_and_a_list_with_ones_own_address_is_not() {
    // One that was free just now.
    let address = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let endpoint = Endpoint::new(Config::default(), Incarnation(1)).unwrap();
    let transport = UdpTransport::new(UdpOptions::default()).unwrap();
    let mut driver = Driver::new(endpoint, Notes::default(), transport, DriverOptions::default());
    let mut join = |contacts: &[&str], spec: &str| {
        driver
            .join(JoinOptions::through("contacts", &address, contacts, spec))
            .map_err(|error| error.to_string())
    };
    let cases = [
        ("localhost:7001", "write it as ip:port"),
        ("127.0.0.1", "write it as ip:port"),
        ("nonsense", "write it as ip:port"),
        ("", "write it as ip:port"),
        ("127.0.0.1:0", "port 0 means no port"),
        ("0.0.0.0:7002", "others cannot send to it"),
        ("[::1]:7002", "the other IP version"),
        ("10.78.0.1:7000", "loopback addresses are reached on one host only"),
    ];
    for (contact, why) in cases {
        let error = join(&["127.0.0.1:7009", contact], STACK).unwrap_err();
        assert!(error.contains(&format!("`{contact}`")) && error.contains(why), "{contact}: {error}");
        assert!(error.contains(&format!("`{address}`")), "{error}");
    }
    let error = join(&["127.0.0.1:7009"], "STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM").unwrap_err();
    assert!(error.contains("agrees on no views") && error.contains("MBRSHIP"), "{error}");
    join(&["127.0.0.1:7009", &address], STACK).unwrap();
}
