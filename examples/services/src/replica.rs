//! A machine's replica: one member of the group, and its clients at standard input and output.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, BufWriter, Read, Write, stdin, stdout};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use wadjet::group::{Application, CastError, Delivery, Event, Group, Snapshot, StatePart};
use wadjet::id::{MEMBERS_MAX, Rank};
use wadjet::runtime::{CommandOptions, Handle, HandleError, IdleStrategy, LoopOptions, OpenError, Refusal};
use wadjet::stack::explain::explain;
use wadjet::stack::property::{Properties, Property};
use wadjet::stack::registry::Registry;
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::transport::{Transport, TransportError};
use wadjet::{
    Address, Config, Driver, DriverOptions, Endpoint, ExitReason, GroupId, GroupKey, Incarnation,
    JoinOptions, Neighbours,
};

use crate::machine::{Machine, digest};
use crate::quorum::{Answer, Claim, Outcome, Quorum};
use crate::{EXCLUDED, NOT_READ, WRONG};

/// Commands in one order, delivered when all hold them, with views and the state for those who come in.
pub const STACK: &str = wadjet::layers::REPLICATED_STACK;

/// How a replica is started.
#[derive(Clone, Debug, Parser)]
#[command(
    about = "One replica. Requests at standard input, one a line: NUMBER COMMAND, 1391 bytes at most; replies at standard output.",
    after_help = "It ends with 0 when its input does or it is told `NUMBER leave`; 1: start it again; 2: it was started wrongly; \
                  3: the others excluded it, start it again; 4: its replies were not read."
)]
pub struct ReplicaOptions {
    /// The service's name: replicas of one name form a group
    #[arg(long)]
    pub group: String,
    /// Where this replica is to be reached: a name (shm), IP:PORT (udp)
    #[arg(long)]
    pub address: String,
    /// Where others may be, separated by commas; without it they are looked for
    #[arg(long, value_delimiter = ',')]
    pub peers: Vec<String>,
    /// How many replicas there are when all are well: so many begin, and a majority of them goes on
    #[arg(
        long, default_value_t = 3,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=MEMBERS_MAX as u64)
    )]
    pub replicas: usize,
    /// What carries the group
    #[arg(long, value_enum, default_value = "shm")]
    pub transport: Carrier,
    /// The group's stack: one that gives safe delivery in total order, state transfer and transitional views (EVS)
    #[arg(long, default_value = STACK)]
    pub stack: String,
}

/// What carries a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Carrier {
    /// Shared memory of this host
    Shm,
    /// UDP
    Udp,
}

/// Why a replica could not take part.
#[derive(Debug)]
pub struct Failure {
    /// In words, with what is to be done.
    pub why: String,
    /// The exit code: 1 if it may be started again as it is, else [`WRONG`].
    pub code: i32,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.why)
    }
}

impl Failure {
    fn wrong(why: impl fmt::Display) -> Failure {
        Failure { why: why.to_string(), code: WRONG }
    }

    fn for_now(why: impl fmt::Display) -> Failure {
        Failure { why: why.to_string(), code: 1 }
    }

    /// What the system may grant another time is not wrong.
    fn of(error: OpenError) -> Failure {
        use TransportError::{AddressInUse, IncarnationInUse, Io, Memory, NoSpace};
        match error {
            OpenError::Transport(
                AddressInUse(_) | IncarnationInUse(_) | NoSpace { .. } | Memory(_) | Io { .. },
            ) => Failure::for_now(error),
            error => Failure::wrong(error),
        }
    }
}

/// What replies promise must hold at the top of the stack.
///
/// # Errors
/// [`Failure`]: what is missing.
pub fn check_stack(spec: &str) -> Result<(), Failure> {
    const NEEDED: Properties = Properties::of(&[
        Property::Total,
        Property::Safe,
        Property::VirtuallySynchronous,
        Property::StateTransfer,
        Property::SelfDelivery,
    ]);
    // What else depends on the transport is checked when the group is joined.
    let explanation = explain(&Registry::standard(), spec, 1, true).map_err(Failure::wrong)?;
    let above = explanation.layers.first().map_or(Properties::NONE, |top| top.above);
    let missing = NEEDED.without(above);
    let ends_views = explanation.layers.iter().any(|layer| layer.name == "EVS");
    if missing.is_empty() && ends_views {
        return Ok(());
    }
    let missing = match missing.is_empty() {
        true => "transitional views (EVS)".to_owned(),
        false => missing.to_string(),
    };
    Err(Failure::wrong(format!(
        "the stack {spec} does not promise what replies do: it lacks {missing}; take {STACK}, or one with as much"
    )))
}

/// Runs a replica of `M` until its input ends, it is told to `leave`, or it is excluded. Returns its exit code.
///
/// # Errors
/// [`Failure`] if the group cannot be taken part in.
pub fn run<M: Machine>(options: &ReplicaOptions) -> Result<i32, Failure> {
    check_stack(&options.stack)?;
    match options.transport {
        Carrier::Shm => run_over::<M, _>(options, Shm::new(ShmOptions::default())),
        Carrier::Udp => {
            let transport = UdpTransport::new(UdpOptions::default()).map_err(Failure::for_now)?;
            run_over::<M, _>(options, transport)
        }
    }
}

fn run_over<M: Machine, T: Transport>(options: &ReplicaOptions, transport: T) -> Result<i32, Failure> {
    let incarnation = wadjet::runtime::fresh_incarnation();
    let (client, lines) = sync_channel(LINES_MAX);
    let client = Client(client);
    let writer = thread::spawn(move || write(&lines));
    let replica = Replica::<M> {
        machine: M::default(),
        incarnation,
        quorum: Quorum::new(options.replicas),
        unsure: Vec::new(),
        unsaid: VecDeque::new(),
        arriving: Vec::new(),
        client: client.clone(),
        end: None,
    };
    let looping =
        LoopOptions { idle: IdleStrategy::Park { spins: 64, timeout: PARK }, ..LoopOptions::default() };
    let commands = CommandOptions {
        message_bytes_max: REQUEST_HEADER_BYTES + REQUEST_BYTES_MAX,
        ..CommandOptions::default()
    };
    let driver_options = DriverOptions { looping, commands, ..DriverOptions::default() };
    let endpoint = Endpoint::new(Config::default(), incarnation).map_err(Failure::wrong)?;
    let mut driver = Driver::new(endpoint, replica, transport, driver_options);
    let contacts: Vec<Address> = options.peers.iter().cloned().map(Address).collect();
    let join = JoinOptions {
        group: GroupId::named(&options.group),
        spec: options.stack.clone(),
        address: Address(options.address.clone()),
        // Over shared memory those on this host are found without an address. Elsewhere, who knows nobody is the first.
        neighbours: Neighbours {
            discover: contacts.is_empty() && options.transport == Carrier::Shm,
            contacts,
        },
    };
    let group = driver.join(join).map_err(Failure::of)?;
    let (handle, refusals) = (driver.handle(), driver.handle());
    // Ends with the process: nothing else ends a read of standard input.
    let replies = client.clone();
    thread::spawn(move || requests(incarnation, &handle, group, &replies));
    while driver.application().end.is_none() {
        driver.run_once();
        while let Some(refusal) = refusals.refusal() {
            driver.application_mut().say(refused(&refusal));
        }
    }
    let code = driver.application().end.unwrap_or_default();
    // Who has not read for so long will not now.
    if code != NOT_READ && client.0.send(None).is_ok() {
        drop(writer.join());
    }
    Ok(code)
}

/// Casts what is asked for.
fn requests(incarnation: Incarnation, handle: &Handle, group: GroupKey, client: &Client) {
    let cast = |text: &str| {
        let message = request(incarnation, text);
        loop {
            match handle.cast(group, &message) {
                Err(HandleError::Full(_)) => thread::sleep(FULL),
                Err(HandleError::TooLong { .. }) => unreachable!("no longer text is taken"),
                Ok(_) | Err(HandleError::Ended) => return,
            }
        }
    };
    let mut input = stdin().lock();
    while let Ok(Some(line)) = line(&mut input, REQUEST_BYTES_MAX) {
        match line {
            Ok(text) => cast(&text),
            Err(why) => drop(client.0.send(Some(why))),
        }
    }
    cast("0 leave");
}

/// The next line of the client, or in words why it is no request; `None` if there is no more. No more of it is kept than a
/// request may have.
///
/// # Errors
/// If the input cannot be read any more.
fn line(input: &mut impl BufRead, text_max: usize) -> std::io::Result<Option<Result<String, String>>> {
    // What ends a line is no part of the request.
    let (mut bytes, most) = (Vec::new(), text_max + 2);
    if input.by_ref().take(most as u64).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let is_cut = bytes.len() == most && bytes.last() != Some(&b'\n');
    if is_cut {
        input.skip_until(b'\n')?;
    }
    let is_long = is_cut || bytes.trim_ascii().len() > text_max;
    Ok(Some(match std::str::from_utf8(&bytes) {
        Ok(text) if !is_long => Ok(text.trim().to_owned()),
        _ => {
            let text = String::from_utf8_lossy(&bytes);
            let why = if is_long {
                format!("too long: {text_max} bytes at most")
            } else {
                "no text: UTF-8 is".to_owned()
            };
            Err(format!("{} {why}", number(text.trim_start())))
        }
    }))
}

/// What the lines to the client pass through: the driver waits for no pipe. `None` is the last.
#[derive(Clone)]
struct Client(SyncSender<Option<String>>);

/// Writes lines for the client until the last. What is there at once leaves at once; if the client is gone, nobody listens.
fn write(lines: &Receiver<Option<String>>) {
    let mut out = BufWriter::new(stdout().lock());
    while let Ok(Some(line)) = lines.recv() {
        drop(writeln!(out, "{line}"));
        loop {
            match lines.try_recv() {
                Ok(Some(line)) => drop(writeln!(out, "{line}")),
                Err(TryRecvError::Empty) => break drop(out.flush()),
                Ok(None) | Err(TryRecvError::Disconnected) => return drop(out.flush()),
            }
        }
    }
}

/// What a cast is: its first byte.
const REQUEST: u8 = 0;
const CLAIM: u8 = 1;
const STATE: u8 = 2;
/// The longest request, with its number: with what goes before it, it fits a frame of Ethernet.
pub const REQUEST_BYTES_MAX: usize = 1391;
/// What is cast before the text of a request: the kind, and whose it is.
const REQUEST_HEADER_BYTES: usize = 1 + size_of::<Incarnation>();

/// A request as it is cast: whose it is, and what.
fn request(incarnation: Incarnation, text: &str) -> Vec<u8> {
    let mut message = vec![REQUEST];
    message.extend_from_slice(&incarnation.0.to_le_bytes());
    debug_assert_eq!(message.len(), REQUEST_HEADER_BYTES);
    message.extend_from_slice(text.as_bytes());
    message
}

/// What the client is told of a request that the group will never take.
fn refused(refusal: &Refusal) -> String {
    let text = refusal.message.get(REQUEST_HEADER_BYTES..).map(String::from_utf8_lossy).unwrap_or_default();
    format!("{} refused: {}", number(&text), refusal.why)
}

struct Replica<M> {
    machine: M,
    incarnation: Incarnation,
    quorum: Quorum,
    /// Replies to what closed a view: they are true when a majority goes on from there ([`Answer::Later`]).
    unsure: Vec<String>,
    /// Casts of this replica's own that were not taken yet.
    unsaid: VecDeque<Vec<u8>>,
    /// Of the state that is coming.
    arriving: Vec<u8>,
    client: Client,
    /// The exit code.
    end: Option<i32>,
}

impl<M: Machine> Replica<M> {
    /// A command whose turn it is.
    fn execute(&mut self, message: &[u8], group: &mut Group<'_>) {
        let Some((incarnation, text)) = message.split_first_chunk() else { return };
        let own = u64::from_le_bytes(*incarnation) == self.incarnation.0;
        let Ok(text) = std::str::from_utf8(text) else { return };
        let command = text.split_once(' ').map_or("", |(_, command)| command);
        match command {
            "leave" if own => group.leave(),
            "leave" => {}
            "digest" => self.say(format!("digest {:016x}", digest(&self.machine.save()))),
            _ => {
                let reply = if self.quorum.counts() { self.machine.execute(command) } else { String::new() };
                match self.quorum.answer() {
                    Answer::Now => self.reply(own, text, &reply),
                    Answer::Later if own => self.unsure.push(format!("{} {reply}", number(text))),
                    Answer::Later => {}
                    Answer::Refused => {
                        self.reply(own, text, "refused: too few of the replicas have the state")
                    }
                    Answer::Unknown => {
                        self.reply(own, text, "unknown: others may see another end of this view")
                    }
                }
            }
        }
    }

    fn reply(&mut self, own: bool, request: &str, reply: &str) {
        if own {
            self.say(format!("{} {reply}", number(request)));
        }
    }

    /// A line to the client.
    fn say(&mut self, line: String) {
        if let Err(TrySendError::Full(_)) = self.client.0.try_send(Some(line)) {
            self.end = Some(NOT_READ);
        }
    }

    /// A cast of this replica's own, now or when there is room.
    fn cast_own(&mut self, kind: u8, body: &[u8], group: &mut Group<'_>) {
        let mut message = vec![kind];
        message.extend_from_slice(body);
        self.unsaid.push_back(message);
        self.cast_unsaid(group);
    }

    fn cast_unsaid(&mut self, group: &mut Group<'_>) {
        while let Some(message) = self.unsaid.front() {
            match group.cast(message) {
                Err(CastError::Full { .. } | CastError::NoFrame(_) | CastError::NumberLimit) => return,
                Err(CastError::Exited(_)) => return self.unsaid.clear(),
                // A state that no message carries: nobody else has it, and this replica keeps it.
                Err(error) => self.say(format!("problem replica: {error}")),
                Ok(_) => {}
            }
            self.unsaid.pop_front();
        }
    }

    /// What a claim, or a state that was handed over, led to.
    fn follow(&mut self, outcome: Outcome, group: &mut Group<'_>) {
        match outcome {
            Outcome::Waits => {}
            Outcome::Counts => {
                if self.quorum.answer() == Answer::Now {
                    for reply in std::mem::take(&mut self.unsure) {
                        self.say(reply);
                    }
                }
                self.say(format!("epoch {}", self.quorum.epoch().counter));
            }
            Outcome::HandOver => {
                let state = self.state();
                self.cast_own(STATE, &state, group);
            }
            Outcome::Unlike(theirs) => self.say(format!(
                "waits: another replica was started with --replicas {theirs}, and this one with {}: one of them is to end",
                self.quorum.as_it_is().replicas
            )),
            Outcome::Outnumbered(theirs) => {
                self.say(format!(
                    "exit most replicas here were started with --replicas {theirs}, and this one with {}",
                    self.quorum.as_it_is().replicas
                ));
                self.end = Some(WRONG);
            }
            Outcome::Overruled => {
                self.say("exit the group went on without the state that is here".to_owned());
                self.end = Some(EXCLUDED);
            }
        }
    }

    /// The state as others are given it: what is claimed of it, and what the machine saved.
    fn state(&self) -> Vec<u8> {
        let mut bytes = self.quorum.as_it_is().encode().to_vec();
        bytes.extend_from_slice(&self.machine.save());
        bytes
    }

    /// Takes in a state of others, with which what closed a view here may not have happened.
    fn take(&mut self, machine: M) {
        self.machine = machine;
        for reply in std::mem::take(&mut self.unsure) {
            self.say(format!("{} unknown: the majority of the replicas was lost", number(&reply)));
        }
    }

    /// A state that a replica hands to all.
    fn handed(&mut self, origin: Rank, body: &[u8], group: &mut Group<'_>) {
        let Some((claim, saved)) = Claim::decode(body) else { return };
        if self.quorum.is_handed(&claim) && origin != group.view().rank() {
            match M::load(saved) {
                Ok(machine) => self.take(machine),
                Err(why) => {
                    self.say(format!("exit a state that was handed over is broken: {why}"));
                    self.end = Some(1);
                }
            }
        }
        let outcome = self.quorum.decide();
        self.follow(outcome, group);
    }
}

impl<M: Machine> Application for Replica<M> {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        for message in delivery.messages() {
            match message.split_first() {
                Some((&REQUEST, request)) => self.execute(request, group),
                Some((&CLAIM, claim)) => {
                    let Some((claim, _)) = Claim::decode(claim) else { continue };
                    let outcome = self.quorum.claim(delivery.origin(), &claim);
                    self.follow(outcome, group);
                }
                Some((&STATE, state)) => self.handed(delivery.origin(), state, group),
                _ => {}
            }
        }
    }

    fn event(&mut self, event: &Event, group: &mut Group<'_>) {
        match event {
            Event::Transitional(_) => self.quorum.closes(),
            Event::View(view) => {
                // Those of earlier views say nothing any more.
                self.unsaid.clear();
                self.say(format!("view {}", view.size()));
                let claim = self.quorum.view(view.view().id, view.size(), view.rank());
                if self.quorum.is_crowded() {
                    self.say(format!(
                        "waits: {} processes for {} replicas: commands count when the others have ended",
                        view.size(),
                        claim.replicas
                    ));
                }
                self.cast_own(CLAIM, &claim.encode(), group);
            }
            Event::Writable => self.cast_unsaid(group),
            Event::Problem(problem) => self.say(format!("problem {}: {}", problem.layer, problem.what)),
            // What it had is the only state that is left, or it is given that one.
            Event::StateLost { goes_on: true } => self.say("goes on with the state that is left".to_owned()),
            // It leaves, for what it has is not the group's state; the exit follows.
            Event::StateLost { goes_on: false } => {
                self.say("exit all that had the state are gone".to_owned())
            }
            Event::Exit(ExitReason::Left) => self.end = Some(0),
            Event::Exit(reason) => {
                self.say(format!("exit {reason}"));
                self.end = Some(if matches!(reason, ExitReason::Excluded { .. }) { EXCLUDED } else { 1 });
            }
            _ => {}
        }
    }

    fn snapshot(&mut self, _group: &mut Group<'_>) -> Option<Box<dyn Snapshot>> {
        Some(Box::new(std::io::Cursor::new(self.state())))
    }

    fn install_state(&mut self, part: &StatePart<'_>, _group: &mut Group<'_>) -> Result<(), String> {
        if part.at == 0 {
            self.arriving.clear();
        }
        self.arriving.extend_from_slice(part.bytes);
        if part.last {
            let state = std::mem::take(&mut self.arriving);
            let (claim, saved) = Claim::decode(&state).ok_or("the state has no epoch")?;
            let machine = M::load(saved)?;
            if self.quorum.is_given(&claim) {
                self.take(machine);
            }
        }
        Ok(())
    }
}

/// The number of a request.
fn number(request: &str) -> &str {
    request.split(' ').next().unwrap_or_default()
}

/// Lines that wait for the client. One that leaves more unread has its replica end ([`NOT_READ`]): a reply is never left out.
const LINES_MAX: usize = 1 << 16;
/// The longest sleep of an idle replica.
const PARK: Duration = Duration::from_millis(1);
/// Between two attempts to hand over a request when the ring is full.
const FULL: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use super::*;
    use wadjet::runtime::Request;

    #[test]
    fn a_line_that_is_no_request_is_answered_and_those_after_it_are_taken() {
        let input =
            b"1 put a b\n2 put \xff c\n\n 3 12345678\r\n4 1234567890\r\n4 12345678901\n5 longer than that\r\n6 get a\r\n7 last";
        let mut input = &input[..];
        let lines = std::iter::from_fn(|| line(&mut input, 12).expect("memory is always read"));
        let expected: [Result<&str, &str>; 9] = [
            Ok("1 put a b"),
            Err("2 no text: UTF-8 is"),
            Ok(""),
            Ok("3 12345678"),
            Ok("4 1234567890"),
            Err("4 too long: 12 bytes at most"),
            Err("5 too long: 12 bytes at most"),
            Ok("6 get a"),
            Ok("7 last"),
        ];
        let lines: Vec<_> = lines.collect();
        assert_eq!(
            lines.iter().map(|line| line.as_deref().map_err(String::as_str)).collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn a_stack_that_does_not_promise_what_replies_do_is_refused_and_says_what_is_missing() {
        let whole = wadjet::layers::REPLICATED_STACK_WITH_INTEGRITY;
        for stack in [STACK, whole, &STACK.replace("TOTAL", "SEQUENCER")] {
            assert!(check_stack(stack).is_ok(), "{stack}");
        }
        for (layer, missing) in [
            ("SAFE:", "lacks P7 (safe delivery)"),
            ("SAFE:TOTAL:", "lacks P6 (total order), P7 (safe delivery)"),
            ("XFER:", "lacks P23 (state transfer)"),
            ("EVS:", "lacks transitional views (EVS)"),
            ("STABLE:", "requires"),
        ] {
            let refused = check_stack(&whole.replace(layer, "")).expect_err(layer);
            assert!(refused.why.contains(missing) && refused.code == WRONG, "{refused}");
        }
    }

    #[test]
    fn an_address_in_use_may_be_free_another_time_and_one_that_is_none_never_is() {
        let of = |error| Failure::of(OpenError::Transport(error)).code;
        let address = Address("here".to_owned());
        assert_eq!(of(TransportError::AddressInUse(address.clone())), 1);
        assert_eq!(of(TransportError::BadAddress(address, "no such address")), WRONG);
    }

    #[test]
    fn a_request_that_is_refused_for_good_is_answered() {
        let message = request(Incarnation(7), "12 put key value");
        let refusal = Refusal { request: Request(3), why: "the group is over".to_owned(), message };
        assert_eq!(refused(&refusal), "12 refused: the group is over");
    }
}
