//! Members in threads of their own, driven by the runtime, and cast into from other threads.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use wadjet::runtime::{
    CommandOptions, Driver, DriverOptions, Ended, Handle, HandleError, IdleStrategy, JoinOptions,
    LoopOptions, cores, pin,
};
use wadjet::stack::event::ExitReason;
use wadjet::transport::Transport;
use wadjet::transport::memory::{Hub, HubOptions};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::transport::uring::{UringOptions, UringTransport};
use wadjet::{
    Address, Application, Config, Delivery, Endpoint, Event, Group, GroupId, GroupKey, Incarnation,
    LocalView, Member, Rank, View, ViewId,
};

/// Tells another thread what is delivered.
struct Teller(Sender<(char, Vec<u8>)>);

impl Application for Teller {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        for message in delivery.messages() {
            self.0.send(('c', message.to_vec())).unwrap();
        }
    }

    fn send(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        for message in delivery.messages() {
            self.0.send(('s', message.to_vec())).unwrap();
        }
    }
}

fn views() -> Vec<LocalView> {
    let sockets: Vec<UdpSocket> = (0..2).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let member = |(n, socket): (usize, &UdpSocket)| Member {
        incarnation: Incarnation(n as u64),
        address: Address(socket.local_addr().unwrap().to_string()),
    };
    let view = View {
        group: GroupId::named("runtime"),
        id: ViewId { counter: 1, coordinator: Incarnation(0) },
        members: sockets.iter().enumerate().map(member).collect(),
        spec: wadjet::layers::FIXED_STACK.to_owned(),
        wire_version: wadjet::wire::WIRE_VERSION,
        salt: 0,
        frame_bytes: 0,
    };
    (0..2).map(|n| LocalView::new(view.clone(), Incarnation(n)).unwrap()).collect()
}

type Told = Receiver<(char, Vec<u8>)>;

type Started = (Handle, GroupKey, Told, thread::JoinHandle<u64>);

/// A member over UDP that runs until its handle says stop.
fn start(view: LocalView, idle: IdleStrategy) -> Started {
    start_over(view, idle, || UdpTransport::new(UdpOptions::default()).unwrap())
}

/// A member that runs until its handle says stop.
fn start_over<T: Transport>(
    view: LocalView,
    idle: IdleStrategy,
    transport: impl FnOnce() -> T + Send + 'static,
) -> Started {
    let (tell, told) = channel();
    let (hand, handed) = channel();
    let thread = thread::spawn(move || {
        let transport = transport();
        let endpoint = Endpoint::new(Config::default(), Incarnation(view.rank().0.into())).unwrap();
        let options = DriverOptions {
            looping: LoopOptions { idle, ..LoopOptions::default() },
            commands: CommandOptions { commands_max: 64, message_bytes_max: 4000 },
            core: None,
        };
        let mut driver = Driver::new(endpoint, Teller(tell), transport, options);
        let key = driver.open(view).unwrap();
        hand.send((driver.handle(), key)).unwrap();
        assert_eq!(driver.run().unwrap(), Ended::Stopped);
        driver.loop_stats().parks
    });
    let (handle, key) = handed.recv().unwrap();
    (handle, key, told, thread)
}

/// Keeps what is told of the transport.
#[derive(Default)]
struct Notes(Vec<String>);

impl Application for Notes {
    fn cast(&mut self, _delivery: &Delivery<'_>, _group: &mut Group<'_>) {}

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        if let Event::Problem(problem) = event
            && problem.layer == "transport"
        {
            self.0.push(problem.what.to_string());
        }
    }
}

#[test]
fn what_the_transport_comes_to_note_is_told_to_the_application_once() {
    let directory = std::env::temp_dir().join(format!("wadjet-notes-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let transport = Shm::new(ShmOptions { directory: directory.clone() });
    let endpoint = Endpoint::new(Config::default(), Incarnation(0)).unwrap();
    let looping = LoopOptions { idle: IdleStrategy::SpinThenYield { spins: 0 }, ..LoopOptions::default() };
    let options = DriverOptions { looping, ..DriverOptions::default() };
    let mut driver = Driver::new(endpoint, Notes::default(), transport, options);
    let view = views().swap_remove(0);
    driver.open(view.clone()).unwrap();
    // What lies where the other member's segment is to be.
    let (group, id) = (view.view().group, view.view().id);
    let name = format!("wadjet-{group}-{}-{:x}-{}", Incarnation(1), id.counter, id.coordinator);
    std::fs::write(directory.join(name), [0x55; 8192]).unwrap();
    assert!(driver.run_until(PATIENCE, |member| !member.application().0.is_empty()));
    assert!(!driver.run_until(Duration::from_millis(1500), |member| member.application().0.len() > 1));
    let told = &driver.application().0;
    assert!(told[0].contains("not a segment"), "{told:?}");
    std::fs::remove_dir_all(&directory).unwrap();
}

fn put(handle: &Handle, key: GroupKey, message: &[u8]) {
    while let Err(error) = handle.cast(key, message) {
        assert_eq!(error, HandleError::Full(64));
        thread::yield_now();
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn what_other_threads_cast_and_send_is_delivered_in_order_by_parked_members() {
    delivered_by_parked_members(views().into_iter().map(|view| start(view, PARKED)).collect());
}

#[test]
fn also_by_members_parked_in_the_ring() {
    let ring = || UringTransport::new(UringOptions::default()).unwrap();
    let members = views().into_iter().map(|view| start_over(view, PARKED, ring));
    delivered_by_parked_members(members.collect());
}

/// Longer than a test may take: only the waker and arriving frames can end a wait in time.
const PARKED: IdleStrategy =
    IdleStrategy::Park { spins: 10, timeout: Duration::from_secs(10 * PATIENCE.as_secs()) };

fn delivered_by_parked_members(members: Vec<Started>) {
    const MESSAGES: u32 = 3000;
    thread::scope(|scope| {
        for (handle, key, ..) in &members {
            scope.spawn(move || (0..MESSAGES).for_each(|n| put(handle, *key, &n.to_le_bytes())));
        }
    });
    // What the others cast last may fill the queue still.
    while let Err(error) = members[0].0.send(members[0].1, &[Incarnation(1)], b"to one") {
        assert_eq!(error, HandleError::Full(64));
        thread::yield_now();
    }
    for (rank, (_, _, told, _)) in members.iter().enumerate() {
        let mut streams = [VecDeque::new(), VecDeque::new()];
        let mut sent = 0;
        for _ in 0..2 * MESSAGES as usize + rank {
            match told.recv_timeout(PATIENCE).unwrap() {
                ('s', message) => {
                    assert_eq!(message, b"to one");
                    sent += 1;
                }
                (_, message) => {
                    let number = u32::from_le_bytes(message.try_into().unwrap());
                    // Two senders, each in order: a number goes to the stream that expects it.
                    let stream = streams.iter_mut().find(|stream| stream.len() == number as usize);
                    stream.expect("in order and once").push_back(number);
                }
            }
        }
        assert_eq!((streams.map(|stream| stream.len()), sent), ([MESSAGES as usize; 2], rank));
    }
    for (handle, key, _, thread) in members {
        handle.stop();
        assert!(thread.join().unwrap() > 0, "the member parked");
        assert_eq!(handle.cast(key, b"late"), Err(HandleError::Ended));
    }
}

#[test]
fn what_the_group_never_takes_comes_back_by_its_request() {
    let mut views = views();
    views.truncate(1);
    let (handle, key, told, thread) = start(views.remove(0), IdleStrategy::Adaptive);
    let long = handle.cast(key, &[1; 3000]).unwrap();
    handle.cast(key, b"short").unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().1, b"short", "a refused message holds nobody up");
    let refusal = handle.refusal().unwrap();
    assert_eq!(refusal.request, long);
    assert!(refusal.why.contains("3000 bytes"), "{}", refusal.why);
    assert_eq!(refusal.message, [1; 3000]);
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn a_command_for_a_group_that_is_not_there_is_refused_and_the_driver_lives() {
    let hub = Hub::new(HubOptions::default());
    let driver = |own| {
        let (tell, told) = channel();
        let endpoint = Endpoint::new(Config::default(), Incarnation(own)).unwrap();
        (Driver::new(endpoint, Teller(tell), hub.transport(), DriverOptions::default()), told)
    };
    let view = |group: &str, own: u64| {
        let member = |own| Member { incarnation: Incarnation(own), address: Address(format!("{own}")) };
        let members = vec![member(0), member(1)];
        let view = View::fixed(GroupId::named(group), members, "STABLE:FC:UNICAST:LOCAL:NAK:COM");
        LocalView::new(view, Incarnation(own)).unwrap()
    };
    let ((mut poor, told), (mut rich, _)) = (driver(0), driver(1));
    let key = poor.open(view("first", 0)).unwrap();
    rich.open(view("first", 1)).unwrap();
    let foreign = rich.open(view("second", 1)).unwrap();
    let handle = poor.handle();
    let requests = [
        handle.cast(foreign, b"to nobody").unwrap(),
        handle.send(foreign, &[Incarnation(1)], b"to nobody").unwrap(),
    ];
    handle.cast(key, b"to all").unwrap();
    let arrived =
        poor.run_until(PATIENCE, |_| told.try_recv().is_ok_and(|(_, message)| message == b"to all"));
    assert!(arrived, "what is refused holds nobody up");
    for request in requests {
        let refusal = handle.refusal().unwrap();
        assert_eq!(refusal.request, request);
        assert!(refusal.why.contains("no such group"), "{}", refusal.why);
    }
}

/// Counts why its group ended.
#[derive(Default)]
struct Ends(Vec<ExitReason>);

impl Application for Ends {
    fn cast(&mut self, _delivery: &Delivery<'_>, _group: &mut Group<'_>) {}

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        if let Event::Exit(reason) = event {
            self.0.push(*reason);
        }
    }
}

/// Over UDP nothing stands in the way of a process that takes the address of its former life.
#[test]
fn a_process_restarted_into_its_view_over_udp_exits_and_is_told_what_to_do() {
    let views = views();
    let start = |n: usize| {
        let transport = UdpTransport::new(UdpOptions::default()).unwrap();
        let endpoint = Endpoint::new(Config::default(), Incarnation(n as u64)).unwrap();
        let mut driver = Driver::new(endpoint, Ends::default(), transport, DriverOptions::default());
        driver.open(views[n].clone()).unwrap();
        driver
    };
    let mut stays = start(0);
    for life in 0..3 {
        let mut other = start(1);
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut turns = 0;
        // The first is heard; each later one is sent away. Nobody casts at all.
        while other.application().0.is_empty() && turns < 2_000 && Instant::now() < deadline {
            stays.run_once();
            other.run_once();
            turns += u32::from(life == 0);
        }
        let ends = &other.application().0;
        if life == 0 {
            assert_eq!(ends[..], []);
        } else {
            assert!(matches!(ends[..], [ExitReason::OtherLife { reporter: Rank(0) }]), "{ends:?}");
            assert!(ends[0].to_string().contains("start with a new incarnation"));
        }
    }
    assert_eq!(stays.application().0[..], []);
}

/// Leaves, or stops the loop, at the first cast.
struct Done {
    leaves: bool,
    exit: Option<ExitReason>,
}

impl Application for Done {
    fn cast(&mut self, _delivery: &Delivery<'_>, group: &mut Group<'_>) {
        if self.leaves { group.leave() } else { group.stop() }
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        if let Event::Exit(reason) = event {
            self.exit = Some(*reason);
        }
    }
}

/// A driver in groups of which it is the only member, and which it leaves or not.
fn alone(leaves: bool, groups: &[&str]) -> (Driver<impl Transport + use<>, Done>, Vec<GroupKey>) {
    let hub = Hub::new(HubOptions::default());
    let endpoint = Endpoint::new(Config::default(), Incarnation(1)).unwrap();
    let done = Done { leaves, exit: None };
    let mut driver = Driver::new(endpoint, done, hub.transport(), DriverOptions::default());
    let stack = wadjet::layers::DEFAULT_STACK;
    let keys = groups.iter().map(|group| driver.join(JoinOptions::discover(group, group, stack)).unwrap());
    let keys = keys.collect();
    (driver, keys)
}

#[test]
fn a_driver_runs_until_its_last_group_is_over_or_its_application_says_stop() {
    let (mut driver, keys) = alone(true, &["one", "other"]);
    driver.group(keys[0]).cast(b"the end of one group is not the end of the other").unwrap();
    assert!(driver.run_until(PATIENCE, |member| member.application().exit.is_some()));
    driver.group(keys[1]).cast(b"this is").unwrap();
    assert_eq!(driver.run().unwrap(), Ended::Over(ExitReason::Left));
    assert!(keys.iter().all(|key| driver.forget(*key)), "both are over");

    let (mut driver, keys) = alone(false, &["one"]);
    driver.group(keys[0]).cast(b"enough").unwrap();
    assert_eq!(driver.run().unwrap(), Ended::Stopped);
    assert_eq!((driver.application().exit, driver.group(keys[0]).exited()), (None, None));
    // It can be run again.
    driver.group(keys[0]).cast(b"enough of that too").unwrap();
    assert_eq!(driver.run().unwrap(), Ended::Stopped);
}

#[test]
fn to_discover_others_where_the_transport_cannot_is_refused_with_what_to_do() {
    let driver = |options| {
        let endpoint = Endpoint::new(Config::default(), Incarnation(1)).unwrap();
        let transport = UdpTransport::new(options).unwrap();
        Driver::new(endpoint, Ends::default(), transport, DriverOptions::default())
    };
    let join = |driver: &mut Driver<UdpTransport, Ends>| {
        driver.join(JoinOptions::discover("discovered", "127.0.0.1:0", wadjet::layers::DEFAULT_STACK))
    };
    let error = join(&mut driver(UdpOptions::default())).unwrap_err().to_string();
    assert!(error.contains("over udp: set `discovery`") && error.contains("JoinOptions::through"), "{error}");
    let discovery = Some("239.83.7.10:7510".parse().unwrap());
    join(&mut driver(UdpOptions { discovery, ..UdpOptions::default() })).unwrap();
    let mut driver = driver(UdpOptions::default());
    let options = JoinOptions::through("founded", "127.0.0.1:0", &[], wadjet::layers::DEFAULT_STACK);
    driver.join(options).unwrap();
}

#[test]
fn a_group_that_takes_nothing_more_holds_up_its_own_commands_and_no_other_group_s() {
    let hub = Hub::new(HubOptions::default());
    let (tell, told) = channel();
    let config = Config { window_frames: 8, waiting_frames_max: 4, pack: false, ..Config::default() };
    let endpoint = Endpoint::new(config, Incarnation(0)).unwrap();
    let options = DriverOptions {
        commands: CommandOptions { commands_max: 200, message_bytes_max: 8 },
        ..DriverOptions::default()
    };
    let mut driver = Driver::new(endpoint, Teller(tell), hub.transport(), options);
    let member = |own| Member { incarnation: Incarnation(own), address: Address(format!("{own}")) };
    let mut open = |group: &str, members: u64| {
        let members = (0..members).map(member).collect();
        let view = View::fixed(GroupId::named(group), members, "STABLE:FC:UNICAST:LOCAL:NAK:COM");
        driver.open(LocalView::new(view, Incarnation(0)).unwrap()).unwrap()
    };
    // The other member of the first never comes.
    let (stuck, free) = (open("stuck", 2), open("free", 1));
    let handle = driver.handle();
    for number in 0..100_u64 {
        handle.cast(stuck, &number.to_le_bytes()).unwrap();
        handle.cast(free, b"go on").unwrap();
    }
    let mut went_on = 0;
    let all = driver.run_until(PATIENCE, |_| {
        went_on += told.try_iter().filter(|(_, message)| message == b"go on").count();
        went_on == 100
    });
    assert!(all, "{went_on} of the free group");
    // The held ones keep their places, and their order.
    let places = (0..200).take_while(|_| handle.cast(stuck, b"behind").is_ok()).count();
    assert!((100..=115).contains(&places), "{places}");
    assert_eq!(handle.refusal(), None);
}

/// Member 0 casts, the two others answer, and so on for so many rounds.
struct Rounds {
    answers: u32,
    left: u32,
    over: bool,
}

impl Application for Rounds {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        for message in delivery.messages() {
            match (group.view().rank(), delivery.origin()) {
                (Rank(0), Rank(0)) => {}
                (Rank(0), _) => {
                    self.answers += 1;
                    if self.answers == 2 {
                        (self.answers, self.left) = (0, self.left - 1);
                        self.over = self.left == 0;
                        group.cast(if self.over { b"over" } else { b"ping" }).unwrap();
                    }
                }
                (_, Rank(0)) if message == b"over" => self.over = true,
                (_, Rank(0)) => drop(group.cast(b"pong").unwrap()),
                _ => {}
            }
        }
    }
}

#[test]
fn three_members_on_two_cores_that_others_work_on_park_by_default_and_go_on() {
    const ROUNDS: u32 = 2000;
    let member = |n| Member { incarnation: Incarnation(n), address: Address(format!("m{n}")) };
    let view = View {
        group: GroupId::named(&format!("crowd {}", std::process::id())),
        id: ViewId { counter: 1, coordinator: Incarnation(0) },
        members: (0..3).map(member).collect(),
        spec: wadjet::layers::FIXED_STACK_WITH_INTEGRITY.to_owned(),
        wire_version: wadjet::wire::WIRE_VERSION,
        salt: 0,
        frame_bytes: 0,
    };
    let mut cores = cores();
    cores.truncate(2);
    let ended = AtomicUsize::new(0);
    thread::scope(|scope| {
        for core in &cores {
            // Somebody who never waits.
            scope.spawn(|| {
                pin(*core).unwrap();
                while ended.load(Ordering::Relaxed) < 3 {
                    std::hint::spin_loop();
                }
            });
        }
        for rank in 0..3 {
            let (view, ended, core) = (view.clone(), &ended, cores[rank % cores.len()]);
            scope.spawn(move || {
                pin(core).unwrap();
                let endpoint = Endpoint::new(Config::default(), Incarnation(rank as u64)).unwrap();
                let rounds = Rounds { answers: 0, left: ROUNDS, over: false };
                let transport = Shm::new(ShmOptions::default());
                let mut driver = Driver::new(endpoint, rounds, transport, DriverOptions::default());
                let key = driver.open(LocalView::new(view, Incarnation(rank as u64)).unwrap()).unwrap();
                if rank == 0 {
                    driver.group(key).cast(b"ping").unwrap();
                }
                let over = driver.run_until(PATIENCE * 3, |member| member.application().over);
                ended.fetch_add(1, Ordering::Relaxed);
                assert!(over, "member {rank}");
                assert!(driver.loop_stats().parks > 0, "member {rank}: {:?}", driver.loop_stats());
                // The others may still have to read.
                driver.run_until(PATIENCE, |_| ended.load(Ordering::Relaxed) == 3);
            });
        }
    });
}

/// As when a fleet of processes starts at once, or the clock is set back.
#[test]
fn incarnations_drawn_at_the_same_time_differ() {
    let mut drawn: Vec<u64> = (0..4000).map(|_| wadjet::runtime::fresh_incarnation().0).collect();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), 4000);
}
