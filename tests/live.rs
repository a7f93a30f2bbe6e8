//! Groups whose views are agreed on, over real transports with the runtime's own loop: processes of one thread, turned
//! by hand.

use std::time::{Duration, Instant};

#[path = "common/mixed.rs"]
mod mixed;

use mixed::Mixed;
use wadjet::group::{Application, Delivery, Event, Group, Happened, Polled};
use wadjet::layers::{DEFAULT_STACK, DEFAULT_STACK_WITH_INTEGRITY};
use wadjet::runtime::{Driver, DriverOptions, JoinOptions};
use wadjet::transport::Transport;
use wadjet::transport::memory::{Hub, HubOptions};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::transport::uring::{UringOptions, UringTransport};
use wadjet::view::Neighbours;
use wadjet::{Address, Config, Endpoint, GroupId, GroupKey, Incarnation};

#[derive(Default)]
struct Notes {
    members: Vec<u64>,
    casts: Vec<(u64, Vec<u8>)>,
    sends: Vec<Vec<u8>>,
    views: usize,
    exit: Option<String>,
}

impl Application for Notes {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        let origin = self.members[delivery.origin().index()];
        self.casts.extend(delivery.messages().map(|message| (origin, message.to_vec())));
    }

    fn send(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        self.sends.extend(delivery.messages().map(<[u8]>::to_vec));
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        match event {
            Event::View(view) => {
                self.members = view.view().members.iter().map(|member| member.incarnation.0).collect();
                self.views += 1;
            }
            Event::Exit(reason) => self.exit = Some(reason.to_string()),
            _ => {}
        }
    }
}

type Process<T> = (Driver<T, Notes>, GroupKey);

fn process<T: Transport>(
    transport: T,
    group: GroupId,
    spec: &str,
    own: u64,
    address: &str,
    contacts: &[&str],
) -> Process<T> {
    process_of(Config::default(), transport, group, spec, own, address, contacts)
}

fn process_of<T: Transport>(
    config: Config,
    transport: T,
    group: GroupId,
    spec: &str,
    own: u64,
    address: &str,
    contacts: &[&str],
) -> Process<T> {
    let endpoint = Endpoint::new(config, Incarnation(own)).unwrap();
    let mut driver = Driver::new(endpoint, Notes::default(), transport, DriverOptions::default());
    let contacts = contacts.iter().map(|contact| Address((*contact).to_owned())).collect();
    let key = driver
        .join(JoinOptions {
            group,
            spec: spec.to_owned(),
            address: Address(address.to_owned()),
            neighbours: Neighbours { contacts, discover: false },
        })
        .unwrap();
    (driver, key)
}

/// Turns all loops until `done`; panics if that takes longer than anything that works does.
fn until<T: Transport>(processes: &mut [Process<T>], mut done: impl FnMut(&[Process<T>]) -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done(processes) {
        processes.iter_mut().for_each(|(driver, _)| {
            driver.run_once();
        });
        let state = |(driver, _): &Process<T>| format!("{:?}", driver.application().members);
        assert!(Instant::now() < end, "{:?}", processes.iter().map(state).collect::<Vec<_>>());
    }
}

fn together<T: Transport>(processes: &[Process<T>], members: &[u64]) -> bool {
    processes.iter().all(|(driver, _)| {
        let mut present = driver.application().members.clone();
        present.sort_unstable();
        present == members
    })
}

/// Three processes join one after the other, cast, one of them ends without a word, the others go on.
fn a_group_lives<T: Transport>(mut processes: Vec<Process<T>>) {
    until(&mut processes, |all| together(all, &[1, 2, 3]));
    for n in 0..1000u32 {
        for (driver, key) in &mut processes {
            while driver.group(*key).cast(&n.to_le_bytes()).is_err() {
                driver.run_once();
            }
        }
        processes.iter_mut().for_each(|(driver, _)| {
            driver.run_once();
        });
    }
    let (driver, _) = processes.remove(1);
    // As a process that is killed: nothing is closed, nothing is said.
    std::mem::forget(driver);
    until(&mut processes, |all| together(all, &[1, 3]));
    for (driver, key) in &mut processes {
        driver.group(*key).cast(b"we go on").unwrap();
    }
    let delivered = |all: &[Process<T>], origin: u64| {
        all.iter().all(|(driver, _)| {
            let casts = driver.application().casts.iter();
            casts.filter(|(from, message)| *from == origin && message == b"we go on").count() == 1
        })
    };
    until(&mut processes, |all| delivered(all, 1) && delivered(all, 3));
    let [a, b] = [0, 1].map(|at| processes[at].0.application());
    for origin in [1, 2, 3] {
        let of = |notes: &Notes| -> Vec<Vec<u8>> {
            notes
                .casts
                .iter()
                .filter(|(from, _)| *from == origin)
                .map(|(_, message)| message.clone())
                .collect()
        };
        assert_eq!(of(a), of(b), "both deliver the same of member {origin}");
        if origin != 2 {
            assert_eq!(of(a).len(), 1001, "nothing of a survivor is lost");
        }
    }
    let (driver, key) = &mut processes[0];
    driver.group(*key).leave();
    until(&mut processes, |all| all[0].0.application().exit.is_some() && together(&all[1..], &[3]));
    assert_eq!(processes[0].0.application().exit.as_deref(), Some("left the group"));
}

/// Addresses that were free just now.
fn addresses() -> Vec<String> {
    let port = |socket: &std::net::UdpSocket| socket.local_addr().unwrap().to_string();
    let sockets: Vec<_> = (0..3).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(port).collect()
}

#[test]
fn a_group_lives_over_io_uring() {
    let addresses = addresses();
    let processes = (0..3).map(|at| {
        let transport = UringTransport::new(UringOptions::default()).unwrap();
        let contacts: &[&str] = if at == 0 { &[] } else { &[&addresses[0]] };
        process(transport, GroupId::named("uring"), DEFAULT_STACK, at as u64 + 1, &addresses[at], contacts)
    });
    a_group_lives(processes.collect());
}

#[test]
fn a_group_lives_of_members_over_udp_and_over_io_uring() {
    let addresses = addresses();
    let processes = (0..3).map(|at| {
        let transport = Mixed::of(at, &UdpOptions::default());
        let contacts: &[&str] = if at == 0 { &[] } else { &[&addresses[0]] };
        process(transport, GroupId::named("mixed"), DEFAULT_STACK, at as u64 + 1, &addresses[at], contacts)
    });
    a_group_lives(processes.collect());
}

#[test]
fn a_group_lives_over_udp() {
    let addresses = addresses();
    let processes = (0..3).map(|at| {
        let transport = UdpTransport::new(UdpOptions::default()).unwrap();
        let contacts: &[&str] = if at == 0 { &[] } else { &[&addresses[0]] };
        process(transport, GroupId::named("udp"), DEFAULT_STACK, at as u64 + 1, &addresses[at], contacts)
    });
    a_group_lives(processes.collect());
}

#[test]
fn a_group_lives_over_shared_memory() {
    // One of the processes ends as if it were killed: what it leaves goes with the directory.
    let directory = std::path::PathBuf::from(format!("/dev/shm/live-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let group = GroupId::named("shm");
    let addresses = ["one", "two", "three"];
    let processes = (0..3).map(|at| {
        let transport = Shm::new(ShmOptions { directory: directory.clone() });
        let contacts: &[&str] = if at == 0 { &[] } else { &addresses[..1] };
        process(transport, group, DEFAULT_STACK_WITH_INTEGRITY, at as u64 + 1, addresses[at], contacts)
    });
    a_group_lives(processes.collect());
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Processes over shared memory of whom one does not run for longer than its time-out, and for less than what counts as a
/// pause: the others have gone on without it, and have stopped to read what it writes.
fn one_is_left_behind(members: usize) -> Vec<Process<Shm>> {
    let spec = DEFAULT_STACK_WITH_INTEGRITY
        .replace("SUSPECT", "SUSPECT(least_ms=400,busy_ms=400,most_ms=400,pause_ms=60000,starved_ms=0)");
    let group = GroupId::named(&format!("left behind {members} {}", std::process::id()));
    let names = ["one", "two", "three"];
    let mut processes: Vec<Process<Shm>> = Vec::new();
    for at in 0..members {
        let contacts: &[&str] = if at == 0 { &[] } else { &names[..1] };
        let shm = Shm::new(ShmOptions::default());
        processes.push(process(shm, group, &spec, at as u64 + 1, names[at], contacts));
        let there: Vec<u64> = (1..=at as u64 + 1).collect();
        until(&mut processes, |all| together(all, &there));
    }
    let stopped = processes.pop().unwrap();
    let left: Vec<u64> = (1..members as u64).collect();
    until(&mut processes, |all| together(all, &left));
    processes.push(stopped);
    processes
}

#[test]
fn who_was_left_behind_over_shared_memory_is_told_and_does_not_come_back_as_who_it_was() {
    for members in [2, 3] {
        let mut processes = one_is_left_behind(members);
        let (driver, key) = processes.last_mut().unwrap();
        let views = driver.application().views;
        driver.group(*key).cast(b"into a view that is past").unwrap();
        until(&mut processes, |all| {
            let notes = all.last().unwrap().0.application();
            assert_eq!(notes.views, views, "it has gone alone, and nobody has told it why");
            notes.exit.is_some()
        });
        let exit = processes.last().unwrap().0.application().exit.clone().unwrap();
        assert!(exit.starts_with("excluded: ") && exit.contains("heard nothing of it"), "{exit}");
        let first = processes[0].0.application();
        assert!(
            first.exit.is_none() && first.members.len() == members - 1,
            "those who went on stay together"
        );
    }
}

#[test]
fn a_process_that_is_in_one_group_after_another_keeps_nothing_of_those_it_forgets() {
    let group = |n: u64| GroupId::named(&format!("one of many {n} {}", std::process::id()));
    let shm = Shm::new(ShmOptions::default());
    let (mut driver, mut key) = process(shm, group(0), DEFAULT_STACK_WITH_INTEGRITY, 1, "alone", &[]);
    for n in 1..20 {
        assert!(!driver.forget(key), "it is still in it");
        driver.group(key).leave();
        assert!(driver.run_until(Duration::from_secs(60), |member| member.application().exit.is_some()));
        driver.application_mut().exit = None;
        let end = Instant::now() + Duration::from_secs(5);
        while !driver.forget(key) {
            driver.run_once();
            assert!(Instant::now() < end, "what is over can be forgotten");
        }
        assert_eq!(driver.groups().count(), 0);
        let options = JoinOptions {
            group: group(n),
            spec: DEFAULT_STACK_WITH_INTEGRITY.to_owned(),
            address: Address("alone".to_owned()),
            neighbours: Neighbours::default(),
        };
        let past = std::mem::replace(&mut key, driver.join(options).unwrap());
        assert!(past != key && driver.groups().eq([key]));
    }
    driver.run_once();
    assert_eq!(driver.application().views, 20, "the application was told of each");
}

/// Three processes of one group over memory, the first of which founded it.
fn three_over_memory(group: &str, config: &Config) -> Vec<Process<impl Transport + use<>>> {
    let hub = Hub::new(HubOptions::default());
    let names = ["one", "two", "three"];
    let mut processes = Vec::new();
    for at in 0..3 {
        let contacts: &[&str] = if at == 0 { &[] } else { &names[..1] };
        let transport = hub.transport();
        let (group, own) = (GroupId::named(group), at as u64 + 1);
        processes.push(process_of(config.clone(), transport, group, DEFAULT_STACK, own, names[at], contacts));
        let there: Vec<u64> = (1..=at as u64 + 1).collect();
        until(&mut processes, |all| together(all, &there));
    }
    processes
}

/// The rank of the last member becomes another one when the second fails, while commands of another thread wait.
#[test]
fn what_a_handle_sends_reaches_the_process_it_names_or_nobody_whatever_the_view() {
    let mut processes = three_over_memory("handles", &Config::default());
    let (handle, key) = (processes[0].0.handle(), processes[0].1);
    std::mem::forget(processes.remove(1));
    let (mut to_third, mut to_second) = (0_u32, Vec::new());
    let mut refused = Vec::new();
    until(&mut processes, |all| {
        let sent = handle.send(key, &[Incarnation(3)], &to_third.to_le_bytes());
        to_third += u32::from(sent.is_ok());
        to_second.extend(handle.send(key, &[Incarnation(2)], b"for the second alone"));
        refused.extend(std::iter::from_fn(|| handle.refusal()));
        together(all, &[1, 3]) && !refused.is_empty()
    });
    to_second.extend(handle.send(key, &[Incarnation(3), Incarnation(2)], b"for the second too"));
    until(&mut processes, |all| {
        refused.extend(std::iter::from_fn(|| handle.refusal()));
        let third = &all[1].0.application().sends;
        third.len() >= to_third as usize
            && refused.last().map(|refusal| refusal.request) == to_second.last().copied()
    });
    let expected: Vec<Vec<u8>> = (0..to_third).map(|number| number.to_le_bytes().to_vec()).collect();
    assert_eq!(processes[1].0.application().sends, expected, "all of its own, in order, and nothing else");
    for refusal in &refused {
        assert!(to_second.contains(&refusal.request), "{refusal:?}");
        assert!(refusal.why.contains("0000000000000002 is not in view"), "{}", refusal.why);
    }
}

#[test]
fn what_a_handle_takes_is_not_lost_when_the_numbers_of_a_view_run_out() {
    let config = Config { frame_number_limit: 64, send_number_limit: 64, pack: false, ..Config::default() };
    let mut processes = three_over_memory("numbers", &config);
    let (handle, key) = (processes[0].0.handle(), processes[0].1);
    for number in 0..400_u32 {
        handle.cast(key, &number.to_le_bytes()).unwrap();
    }
    for number in 0..400_u32 {
        handle.send(key, &[Incarnation(2)], &number.to_le_bytes()).unwrap();
    }
    let all: Vec<Vec<u8>> = (0..400_u32).map(|number| number.to_le_bytes().to_vec()).collect();
    until(&mut processes, |processes| {
        let [sends, casts] = [1, 2].map(|at| processes[at].0.application());
        assert_eq!(handle.refusal(), None);
        sends.sends.len() == all.len() && casts.casts.len() == all.len()
    });
    assert!(processes[1].0.application().sends == all);
    assert!(processes[2].0.application().casts.iter().map(|(_, message)| message).eq(&all));
    assert!(processes[2].0.application().views > 4, "no view has numbers for all of them");
}

#[test]
fn an_application_that_polls_too_rarely_holds_the_senders_and_keeps_no_more_than_a_window() {
    let hub = Hub::new(HubOptions::default());
    let config = Config { window_frames: 32, waiting_frames_max: 4, pack: false, ..Config::default() };
    let start = |own: u64| {
        let endpoint = Endpoint::new(config.clone(), Incarnation(own)).unwrap();
        let mut driver =
            Driver::new(endpoint, Polled::with_capacity(16), hub.transport(), DriverOptions::default());
        let contacts: &[&str] = if own == 1 { &[] } else { &["1"] };
        let options = JoinOptions::through("polled", &own.to_string(), contacts, DEFAULT_STACK);
        let key = driver.join(options).unwrap();
        (driver, key)
    };
    let (mut keen, key) = start(1);
    let (mut lazy, lazy_key) = start(2);
    while keen.group(key).view().size() < 2 {
        keen.run_once();
        lazy.run_once();
    }
    let is_cast = |happened: &Happened| matches!(happened, Happened::Cast { .. });
    let (mut cast, mut own, mut end) = (0, 0, Instant::now() + Duration::from_millis(200));
    let mut kept = 0;
    for takes in [false, true] {
        while Instant::now() < end && cast < 1000 {
            cast += u64::from(keen.group(key).cast(b"x").is_ok());
            keen.run_once();
            own += std::iter::from_fn(|| keen.application_mut().take()).filter(is_cast).count() as u64;
            lazy.run_once();
            if takes {
                kept += std::iter::from_fn(|| lazy.application_mut().take()).filter(is_cast).count();
            }
        }
        if !takes {
            assert!((32..=16 + 2 * 32 + 4).contains(&cast), "{cast} were cast while nobody took them");
            assert_eq!(lazy.group(lazy_key).view().size(), 2, "and nobody was excluded");
            end = Instant::now() + Duration::from_secs(5);
        }
    }
    assert_eq!(cast, 1000);
    assert!(own > 900 && kept > 900, "{own} and {kept} were taken");
}

#[test]
fn a_process_takes_part_in_a_group_again_when_it_has_forgotten_it_and_uses_no_view_id_twice() {
    let group = GroupId::named(&format!("again {}", std::process::id()));
    let shm = || Shm::new(ShmOptions::default());
    let mut processes = vec![
        process(shm(), group, DEFAULT_STACK_WITH_INTEGRITY, 1, "host", &[]),
        process(shm(), group, DEFAULT_STACK_WITH_INTEGRITY, 2, "guest", &["host"]),
    ];
    let options = || JoinOptions {
        group,
        spec: DEFAULT_STACK_WITH_INTEGRITY.to_owned(),
        address: Address("guest".to_owned()),
        neighbours: Neighbours { contacts: vec![Address("host".to_owned())], discover: false },
    };
    let refused = |(driver, _): &mut Process<Shm>| {
        let error = driver.join(options()).unwrap_err().to_string();
        assert!(error.contains("`forget` it"), "{error}");
    };
    let id = |(driver, key): &mut Process<Shm>| driver.group(*key).view().view().id;
    let mut used = vec![id(&mut processes[1])];
    for _ in 0..3 {
        until(&mut processes, |all| all.iter().all(|(driver, _)| driver.application().members.len() == 2));
        used.push(id(&mut processes[1]));
        refused(&mut processes[1]);
        let (driver, key) = &mut processes[1];
        driver.group(*key).leave();
        until(&mut processes, |all| {
            all[1].0.application().exit.is_some() && all[0].0.application().members.len() == 1
        });
        refused(&mut processes[1]);
        let end = Instant::now() + Duration::from_secs(60);
        while !{
            let (driver, key) = &mut processes[1];
            driver.forget(*key)
        } {
            processes.iter_mut().for_each(|(driver, _)| {
                driver.run_once();
            });
            assert!(Instant::now() < end, "what is over can be forgotten");
        }
        let (driver, key) = &mut processes[1];
        driver.application_mut().exit = None;
        *key = driver.join(options()).unwrap();
        let first = id(&mut processes[1]);
        assert!(used.iter().all(|before| first > *before), "{first} after {used:?}");
        used.push(first);
    }
}
