//! The services as their clients see them, with a replica killed at a random point: nothing acknowledged is lost, what was
//! acknowledged is read everywhere, and all survivors are equal.

mod history;

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use history::Operation;
use wadjet_hosts::{Hosts, LabError, label_of_this_process};
use wadjet_services::replica::STACK;

const REPLICAS: usize = 3;
/// How long anything may take before the test fails, on a machine that is busy with others.
const PATIENCE: Duration = Duration::from_secs(60);
/// Runs of each service. Short ones: what differs is the moment of the kill.
const RUNS: u64 = 50;

/// Runs with two killed at once.
const TWICE: u64 = 6;

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The services' stack, with a SUSPECT that waits longer for one that runs: a busy machine is no fault of the replicas. That
/// a process has gone is noticed at once all the same.
fn patient() -> String {
    STACK.replace(":SUSPECT:", ":SUSPECT(least_ms=500,most_ms=2000,first_ms=2000):")
}

/// A replica's process; killed when dropped.
struct Replica {
    child: Child,
    input: ChildStdin,
    /// Of its present life.
    life: usize,
    /// The members of its view.
    view: usize,
    /// Commands count in this view.
    counts: bool,
    digests: Vec<String>,
}

/// All replicas, and what they say, as it comes.
struct Service {
    program: &'static str,
    group: String,
    /// Where the replicas run; without them all over shared memory of this host.
    hosts: Option<Hosts>,
    replicas: Vec<Replica>,
    lines: Receiver<(usize, usize, String)>,
    say: Sender<(usize, usize, String)>,
    requests: u64,
    /// Requests that a client has under way at once.
    outstanding: usize,
    /// Counts what is asked and what is heard: the time of the clients.
    clock: u64,
    /// What clients did to registers.
    history: Vec<Operation>,
    /// Replies by request, with the place that replied.
    replies: BTreeMap<u64, (usize, String)>,
    /// Requests whose replies have come since this was looked at.
    heard: Vec<u64>,
}

impl Service {
    fn start(program: &'static str, name: &str) -> Service {
        Service::start_on(program, name, None)
    }

    fn start_on(program: &'static str, name: &str, hosts: Option<Hosts>) -> Service {
        let (say, lines) = channel();
        let group = format!("{name} {}", std::process::id());
        let mut service = Service {
            program,
            group,
            hosts,
            replicas: Vec::new(),
            lines,
            say,
            requests: 0,
            outstanding: 16,
            clock: 0,
            history: Vec::new(),
            replies: BTreeMap::new(),
            heard: Vec::new(),
        };
        for place in 0..REPLICAS {
            let replica = service.spawn(place, 0);
            service.replicas.push(replica);
        }
        service.whole();
        service
    }

    fn spawn(&self, place: usize, life: usize) -> Replica {
        let mut command = match &self.hosts {
            None => {
                let mut command = Command::new(self.program);
                command.args(["--address", &format!("r{place}")]);
                command
            }
            Some(hosts) => {
                let address = |place: usize| format!("{}:7400", hosts.address(place + 1));
                let peers: Vec<String> = (0..REPLICAS).filter(|peer| *peer != place).map(address).collect();
                let mut command = hosts.command(place + 1, self.program.as_ref());
                command.args([
                    "--transport",
                    "udp",
                    "--address",
                    &address(place),
                    "--peers",
                    &peers.join(","),
                ]);
                command
            }
        };
        let mut child = command
            .args(["--group", &self.group, "--stack", &patient()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the service is built");
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let say = self.say.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if say.send((place, life, line)).is_err() {
                    return;
                }
            }
            drop(say.send((place, life, "ended".to_owned())));
        });
        Replica { child, input, life, view: 0, counts: false, digests: Vec::new() }
    }

    /// Takes in what was said until `done`.
    fn until(&mut self, what: &str, mut done: impl FnMut(&Service) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "never: {what}; {}", self.state());
            self.hear(what);
        }
    }

    /// Takes in one line.
    fn hear(&mut self, what: &str) {
        let line = self.lines.recv_timeout(PATIENCE);
        let (place, life, line) = line.unwrap_or_else(|_| panic!("never: {what}; {}", self.state()));
        self.clock += 1;
        let replica = &mut self.replicas[place];
        if replica.life != life {
            return;
        }
        match line.split_once(' ') {
            Some(("view", size)) => (replica.view, replica.counts) = (size.parse().unwrap(), false),
            Some(("epoch", _)) => replica.counts = true,
            Some(("digest", digest)) => replica.digests.push(digest.to_owned()),
            Some(("exit" | "waits:", _)) => {}
            Some(("problem", what)) => panic!("replica {place}: {what}"),
            // A replica that was excluded on a busy machine is started again, as a supervisor would.
            None if line == "ended" => self.restart(place),
            Some((request, reply)) => {
                let request = request.parse().unwrap();
                self.replies.insert(request, (place, reply.to_owned()));
                self.heard.push(request);
            }
            None => panic!("replica {place} said {line:?}"),
        }
    }

    fn state(&self) -> String {
        let replica = |(place, replica): (usize, &Replica)| {
            let Replica { life, view, counts, .. } = replica;
            format!("replica {place}, life {life}: view of {view}, counts {counts}")
        };
        self.replicas.iter().enumerate().map(replica).collect::<Vec<_>>().join("; ")
    }

    fn whole(&mut self) {
        self.until("all in one view", |service| {
            service.replicas.iter().all(|replica| replica.view == REPLICAS && replica.counts)
        });
    }

    /// A new request at a replica.
    fn ask(&mut self, place: usize, command: &str) -> u64 {
        self.requests += 1;
        // To one that has just died it is a request that is never answered.
        drop(writeln!(self.replicas[place].input, "{} {command}", self.requests));
        self.requests
    }

    /// Clients at each place execute their commands in order, some at a time, again if they are refused; after `moment`
    /// replies the victim is killed and started again. Returns what was acknowledged: place, command, reply. What was
    /// under way at a replica that died is unknown.
    fn drive(
        &mut self,
        mut scripts: Vec<VecDeque<String>>,
        victim: usize,
        moment: usize,
    ) -> Vec<(usize, String, String)> {
        let mut waiting: Vec<BTreeMap<u64, (String, u64)>> = vec![BTreeMap::new(); REPLICAS];
        let mut lives: Vec<usize> = self.replicas.iter().map(|replica| replica.life).collect();
        let (mut acknowledged, mut killed) = (Vec::new(), false);
        loop {
            for request in std::mem::take(&mut self.heard) {
                let (place, reply) = self.replies[&request].clone();
                let Some((command, start)) = waiting[place].remove(&request) else { continue };
                if reply.starts_with("refused") {
                    scripts[place].push_front(command);
                } else if reply.starts_with("unknown") {
                    self.record(&command, start, None);
                } else {
                    self.record(&command, start, Some(&reply));
                    acknowledged.push((place, command, reply));
                }
            }
            for place in 0..REPLICAS {
                if self.replicas[place].life != lives[place] {
                    lives[place] = self.replicas[place].life;
                    for (command, start) in std::mem::take(&mut waiting[place]).into_values() {
                        self.record(&command, start, None);
                    }
                }
                while self.replicas[place].counts && waiting[place].len() < self.outstanding {
                    let Some(command) = scripts[place].pop_front() else { break };
                    self.clock += 1;
                    let (request, start) = (self.ask(place, &command), self.clock);
                    waiting[place].insert(request, (command, start));
                }
            }
            if !killed && acknowledged.len() >= moment {
                killed = true;
                self.restart(victim);
                continue;
            }
            if scripts.iter().all(VecDeque::is_empty) && waiting.iter().all(BTreeMap::is_empty) {
                return acknowledged;
            }
            self.hear("replies");
        }
    }

    /// What a client knows of a command on a register by now.
    fn record(&mut self, command: &str, start: u64, reply: Option<&str>) {
        let mut words = command.split(' ');
        let (verb, key, value) = (words.next(), words.next().unwrap_or_default(), words.next());
        let value = match (verb, reply) {
            (Some("put"), _) => value,
            (Some("get"), Some(reply)) => reply.strip_prefix("value "),
            _ => return,
        };
        let end = if reply.is_some() { self.clock } else { u64::MAX };
        let (key, value) = (key.to_owned(), value.map(str::to_owned));
        self.history.push(Operation { key, value, is_write: verb == Some("put"), start, end });
    }

    /// The reply to a request that is repeated, as a client would, until some replica takes it.
    fn answer(&mut self, place: usize, command: &str) -> String {
        for _ in 0..100 {
            let (request, life) = (self.ask(place, command), self.replicas[place].life);
            self.until(command, |service| {
                service.replies.contains_key(&request) || service.replicas[place].life != life
            });
            match self.replies.get(&request) {
                Some((_, reply)) if !reply.starts_with("refused") && !reply.starts_with("unknown") => {
                    return reply.clone();
                }
                // No majority for now, or its life ended in between.
                _ => self.until("a majority", |service| service.replicas[place].counts),
            }
        }
        panic!("never answered: {command}");
    }

    fn kill(&mut self, place: usize) {
        let child = &mut self.replicas[place].child;
        drop(child.kill());
        child.wait().unwrap();
    }

    fn signal(&self, place: usize, signal: &str) {
        let process = self.replicas[place].child.id().to_string();
        assert!(Command::new("kill").args([format!("-{signal}"), process]).status().unwrap().success());
    }

    /// Starts a replica again, which is killed if it still runs.
    fn restart(&mut self, place: usize) {
        self.kill(place);
        let life = self.replicas[place].life + 1;
        self.replicas[place] = self.spawn(place, life);
    }

    /// The digest of all, which is the same.
    fn digest(&mut self) -> String {
        loop {
            self.whole();
            self.replicas.iter_mut().for_each(|replica| replica.digests.clear());
            let lives = self.lives();
            self.ask(0, "digest");
            let all = |service: &Service| service.replicas.iter().all(|replica| !replica.digests.is_empty());
            self.until("all digests", |service| all(service) || service.lives() != lives);
            if all(self) {
                let digests: Vec<&String> = self.replicas.iter().map(|replica| &replica.digests[0]).collect();
                assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
                return digests[0].clone();
            }
        }
    }

    /// The network between these replicas and all others is cut, or whole again.
    fn set_cut(&self, places: &[usize], cut: bool) {
        for place in places {
            self.hosts.as_ref().expect("replicas on hosts").set_port(place + 1, !cut).unwrap();
        }
    }

    fn lives(&self) -> Vec<usize> {
        self.replicas.iter().map(|replica| replica.life).collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        for replica in &mut self.replicas {
            drop(replica.child.kill());
            drop(replica.child.wait());
        }
    }
}

#[test]
fn a_write_that_was_acknowledged_is_never_lost_and_read_everywhere() {
    for seed in 0..RUNS {
        let mut dice = Dice(seed);
        let mut service = Service::start(env!("CARGO_BIN_EXE_key_value"), "store");
        let script = |place| (0..100).map(|round| format!("put key{place}.{round} {round}")).collect();
        let scripts = (0..REPLICAS).map(script).collect();
        let (victim, moment) = (dice.below(REPLICAS as u64) as usize, dice.below(250) as usize);
        let acknowledged = service.drive(scripts, victim, moment);
        // All of them are read, each at a replica that is as good as any other.
        let mut reads = vec![VecDeque::new(); REPLICAS];
        for (_, command, reply) in &acknowledged {
            assert_eq!(reply, "ok");
            let key = command.split(' ').nth(1).unwrap();
            reads[dice.below(REPLICAS as u64) as usize].push_back(format!("get {key}"));
        }
        service.whole();
        for (at, read, reply) in service.drive(reads, victim, usize::MAX) {
            let value = read.rsplit('.').next().unwrap();
            assert_eq!(reply, format!("value {value}"), "seed {seed}: {read} at {at}");
        }
        service.digest();
    }
}

#[test]
fn reads_see_what_was_acknowledged_before_and_never_go_back() {
    for seed in 0..RUNS {
        let mut dice = Dice(seed);
        let mut service = Service::start(env!("CARGO_BIN_EXE_key_value"), "registers");
        service.outstanding = 4;
        let mut scripts = vec![VecDeque::new(); REPLICAS];
        for round in 0..600 {
            let (key, place) = (dice.below(3), dice.below(REPLICAS as u64) as usize);
            let write = dice.below(3) == 0;
            let command = if write { format!("put {key} {round}") } else { format!("get {key}") };
            scripts[place].push_back(command);
        }
        let (victim, moment) = (dice.below(REPLICAS as u64) as usize, dice.below(500) as usize);
        service.drive(scripts, victim, moment);
        let history = std::mem::take(&mut service.history);
        history::check(&history).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert!(stale_reads_found(&history) > 0, "seed {seed}: this run could not have shown a stale read");
        service.whole();
        service.digest();
    }
}

/// How many reads of this history would have been found out if they had shown what was acknowledged last but one.
fn stale_reads_found(history: &[Operation]) -> usize {
    let stale = |at: &usize| {
        let read = &history[*at];
        let before = |write: &&Operation| write.is_write && write.key == read.key && write.end < read.start;
        let mut writes: Vec<&Operation> = history.iter().filter(before).collect();
        writes.sort_by_key(|write| write.end);
        let [.., old, _] = writes[..] else { return false };
        let mut changed = history.to_vec();
        changed[*at].value.clone_from(&old.value);
        !read.is_write && history::check(&changed).is_err()
    };
    // Some are enough.
    (0..history.len()).step_by(7).filter(stale).count()
}

#[test]
fn order_books_are_equal_at_all_survivors_and_at_the_one_started_again() {
    for seed in 0..RUNS {
        feed_books(seed, 1000, 16);
    }
}

#[test]
fn order_books_are_equal_after_hundreds_of_thousands_of_orders() {
    feed_books(RUNS, 200_000, 500);
}

/// So many orders at all replicas, one of which is killed and started again.
fn feed_books(seed: u64, orders: u64, outstanding: usize) {
    let mut dice = Dice(seed);
    let mut service = Service::start(env!("CARGO_BIN_EXE_order_book"), &format!("book {orders}"));
    service.outstanding = outstanding;
    let mut scripts = vec![VecDeque::new(); REPLICAS];
    for order in 0..orders {
        let (side, price) = if dice.below(2) == 0 { ("buy", 995) } else { ("sell", 1000) };
        let (price, quantity) = (price + dice.below(10), 1 + dice.below(100));
        let place = dice.below(REPLICAS as u64) as usize;
        scripts[place].push_back(format!("{side} {order} {price} {quantity}"));
    }
    let (victim, moment) = (dice.below(REPLICAS as u64) as usize, dice.below(orders * 9 / 10) as usize);
    let all = scripts.iter().flatten().map(|command| quantity(command)).fold([0; 2], added);
    let acknowledged = service.drive(scripts, victim, moment);
    let digest = service.digest();
    let books: Vec<String> = (0..REPLICAS).map(|place| service.answer(place, "book")).collect();
    assert!(books.iter().all(|book| *book == books[0]), "seed {seed}: {books:?}");
    // Only what was under way when a replica ended, or was started again beside itself, has no reply that says what happened.
    let ended: usize = service.lives().iter().sum();
    let unknown = orders as usize - acknowledged.len();
    assert!(
        ended > 0 && unknown <= ended * REPLICAS * outstanding,
        "seed {seed}: {ended} ended, {unknown} orders unknown"
    );
    let known = acknowledged.iter().map(|(_, command, _)| quantity(command)).fold([0; 2], added);
    let told: u64 = acknowledged.iter().map(|(_, _, reply)| traded(reply)).sum();
    let traded_in_all: u64 = books[0].split(' ').nth(5).unwrap().parse().unwrap();
    // One order against each side shows what rests there; with what has traded that is all that the book ever took in.
    let rests = ["sell", "buy"].map(|against| {
        let (id, price) = (orders, if against == "buy" { u64::MAX } else { 0 });
        let rests = traded(&service.answer(0, &format!("{against} {id} {price} {}", u64::MAX)));
        assert_eq!(service.answer(0, &format!("cancel {id}")), "ok");
        rests
    });
    let taken = rests.map(|rests| traded_in_all + rests);
    for side in 0..2 {
        assert!(
            (known[side]..=all[side]).contains(&taken[side]) && told > 0 && told <= traded_in_all,
            "seed {seed}, digest {digest}: of {all:?} {known:?} were acknowledged, with {told} traded at once; {taken:?} were taken in: {}",
            books[0]
        );
    }
}

/// How much an order wants to buy and to sell.
fn quantity(command: &str) -> [u64; 2] {
    let quantity = command.rsplit(' ').next().unwrap().parse().unwrap();
    if command.starts_with("buy") { [quantity, 0] } else { [0, quantity] }
}

fn added(sum: [u64; 2], more: [u64; 2]) -> [u64; 2] {
    [sum[0] + more[0], sum[1] + more[1]]
}

/// How much an order traded at once.
fn traded(reply: &str) -> u64 {
    reply.strip_prefix("traded ").and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{reply}"))
}

#[test]
fn what_is_no_request_is_answered_in_words_and_the_replica_goes_on() {
    let mut service = Service::start(env!("CARGO_BIN_EXE_key_value"), "words");
    let long = "x".repeat(10_000);
    for (request, line) in [(1, &b"1 put key \xff"[..]), (2, format!("2 put key {long}").as_bytes())] {
        service.requests = request;
        service.replicas[0].input.write_all(&[line, b"\n"].concat()).unwrap();
    }
    assert_eq!(service.answer(0, "get key"), "nothing");
    assert_eq!(service.replies[&1], (0, "no text: UTF-8 is".to_owned()));
    assert!(service.replies[&2].1.starts_with("too long: "), "{:?}", service.replies);
    assert_eq!(service.lives(), [0; REPLICAS]);
}

#[test]
fn two_that_are_killed_and_started_again_do_not_outvote_the_survivor_that_has_everything() {
    for seed in 0..TWICE {
        let mut service = Service::start(env!("CARGO_BIN_EXE_key_value"), "survivor");
        assert_eq!(service.answer(0, "put colour red"), "ok");
        let survivor = seed as usize % REPLICAS;
        let others: Vec<usize> = (0..REPLICAS).filter(|place| *place != survivor).collect();
        // Stopped, the survivor is not there while the two find each other and are two views of a group with no state.
        service.signal(survivor, "STOP");
        others.iter().for_each(|place| service.kill(*place));
        others.iter().for_each(|place| service.restart(*place));
        if seed % 2 == 0 {
            service.until("the two in one view", |service| {
                others.iter().all(|place| service.replicas[*place].view == others.len())
            });
            assert!(others.iter().all(|place| !service.replicas[*place].counts), "{}", service.state());
        }
        service.signal(survivor, "CONT");
        service.whole();
        for place in 0..REPLICAS {
            assert_eq!(service.answer(place, "get colour"), "value red", "seed {seed}: {}", service.state());
        }
        service.digest();
    }
}

/// Three hosts on a bridge. They need root: who is not is told so; in CI, which is, nothing is passed over.
#[expect(clippy::print_stdout, reason = "one line says what was not run, and why")]
fn hosts() -> Option<Hosts> {
    match Hosts::up(&label_of_this_process("services"), REPLICAS) {
        Ok(hosts) => Some(hosts),
        Err(error @ (LabError::NotPermitted { .. } | LabError::NoCommand { .. }))
            if std::env::var_os("CI").is_none() =>
        {
            println!("not run: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Replicas on hosts of their own, over udp. Of those that a cut leaves without a majority none acknowledges anything; whatever
/// any has acknowledged, before, during or after, all have when the network is whole again.
#[test]
fn no_write_that_a_majority_acknowledged_is_lost_when_the_network_parts_and_comes_together() {
    let Some(hosts) = hosts() else { return };
    let mut service = Service::start_on(env!("CARGO_BIN_EXE_key_value"), "parted", Some(hosts));
    let mut acknowledged = BTreeMap::new();
    let mut asked: BTreeMap<u64, String> = BTreeMap::new();
    for (round, cut) in [&[0][..], &[1], &[2], &[1, 2]].into_iter().enumerate() {
        let left: Vec<usize> = (0..REPLICAS).filter(|place| !cut.contains(place)).collect();
        let majority = if left.len() > REPLICAS / 2 { &left[..] } else { &[] };
        let minority: Vec<usize> = (0..REPLICAS).filter(|place| !majority.contains(place)).collect();
        let mut write = |service: &mut Service, places: &[usize], when: &str| -> Vec<u64> {
            let mut requests = Vec::new();
            for (at, n) in places.iter().flat_map(|at| (0..WRITES).map(move |n| (*at, n))) {
                let key = format!("{when}{round}.{at}.{n}");
                requests.push(service.ask(at, &format!("put {key} {at}")));
                asked.insert(service.requests, key);
            }
            requests
        };
        // Some are under way when the network is cut.
        write(&mut service, &[0, 1, 2], "before");
        service.set_cut(cut, true);
        service.until("the parted see it", |service| {
            let gone_on = majority.iter().all(|place| {
                let replica = &service.replicas[*place];
                replica.view == majority.len() && replica.counts
            });
            gone_on && minority.iter().all(|place| service.replicas[*place].view == 1)
        });
        let during = write(&mut service, majority, "during");
        let refused = write(&mut service, &minority, "during");
        let answered = |service: &Service, requests: &[u64]| {
            requests.iter().all(|request| service.replies.contains_key(request))
        };
        service.until("answers on both sides", |service| {
            answered(service, &during) && answered(service, &refused)
        });
        for request in &during {
            assert_eq!(service.replies[request].1, "ok", "round {round}: {}", service.state());
        }
        for request in &refused {
            let reply = &service.replies[request].1;
            assert!(reply.starts_with("refused") || reply.starts_with("unknown"), "round {round}: {reply}");
        }
        service.set_cut(cut, false);
        service.whole();
        for (request, (_, reply)) in std::mem::take(&mut service.replies) {
            if reply == "ok" {
                acknowledged.insert(asked[&request].clone(), request);
            } else {
                assert!(
                    reply.starts_with("refused") || reply.starts_with("unknown"),
                    "{}: {reply}",
                    asked[&request]
                );
            }
        }
        let digest = service.digest();
        for (at, key) in acknowledged.keys().enumerate() {
            let value = key.split('.').nth(1).unwrap();
            let place = at % REPLICAS;
            let reply = service.answer(place, &format!("get {key}"));
            assert_eq!(reply, format!("value {value}"), "round {round}, digest {digest}: {key} at {place}");
        }
        service.replies.clear();
    }
    // Three cuts with a majority of two.
    assert!(acknowledged.len() >= 3 * 2 * WRITES, "{acknowledged:?}");
}

/// Writes at each replica at once.
const WRITES: usize = 20;
