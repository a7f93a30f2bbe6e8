//! A machine's replica: one member of the group, and its clients at standard input and output.

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::thread;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use wadjet::group::{Application, Delivery, Event, Group, Snapshot, StatePart};
use wadjet::runtime::{Handle, HandleError, IdleStrategy, LoopOptions, Refusal};
use wadjet::transport::Transport;
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::{
    Address, Config, Driver, DriverOptions, Endpoint, ExitReason, GroupId, GroupKey, Incarnation,
    JoinOptions, Neighbours,
};

use crate::EXCLUDED;
use crate::machine::{Machine, digest};

/// Commands in one order, delivered when all hold them, with views and the state for those who come in.
pub const STACK: &str = wadjet::layers::REPLICATED_STACK;

/// How a replica is started.
#[derive(Clone, Debug, Parser)]
#[command(
    about = "One replica. Requests at standard input, one a line: NUMBER COMMAND; replies at standard output."
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
    /// How many replicas there are when all are well; without a majority of them nothing is executed
    #[arg(long, default_value_t = 3)]
    pub replicas: usize,
    /// What carries the group
    #[arg(long, value_enum, default_value = "shm")]
    pub transport: Carrier,
    /// The group's stack
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

/// Runs a replica of `M` until its input ends, it is told to `leave`, or it is excluded. Returns its exit code.
///
/// # Errors
/// If the group cannot be taken part in; the text says what to do.
pub fn run<M: Machine>(options: &ReplicaOptions) -> Result<i32, Box<dyn Error>> {
    match options.transport {
        Carrier::Shm => run_over::<M, _>(options, Shm::new(ShmOptions::default())),
        Carrier::Udp => run_over::<M, _>(options, UdpTransport::new(UdpOptions::default())?),
    }
}

fn run_over<M: Machine, T: Transport>(options: &ReplicaOptions, transport: T) -> Result<i32, Box<dyn Error>> {
    let incarnation = wadjet::runtime::fresh_incarnation();
    let replica = Replica::<M> {
        machine: M::default(),
        incarnation,
        majority: options.replicas / 2 + 1,
        members: 1,
        closing: false,
        arriving: Vec::new(),
        end: None,
    };
    let looping =
        LoopOptions { idle: IdleStrategy::Park { spins: 64, timeout: PARK }, ..LoopOptions::default() };
    let driver_options = DriverOptions { looping, ..DriverOptions::default() };
    let endpoint = Endpoint::new(Config::default(), incarnation)?;
    let mut driver = Driver::new(endpoint, replica, transport, driver_options);
    let contacts: Vec<Address> = options.peers.iter().cloned().map(Address).collect();
    let group = driver.join(JoinOptions {
        group: GroupId::named(&options.group),
        spec: options.stack.clone(),
        address: Address(options.address.clone()),
        // Over shared memory those on this host are found without an address. Elsewhere, who knows nobody is the first.
        neighbours: Neighbours {
            discover: contacts.is_empty() && options.transport == Carrier::Shm,
            contacts,
        },
    })?;
    let (handle, refusals) = (driver.handle(), driver.handle());
    // Ends with the process: nothing else ends a read of standard input.
    thread::spawn(move || requests(incarnation, &handle, group));
    while driver.application().end.is_none() {
        driver.run_once();
        while let Some(refusal) = refusals.refusal() {
            say(&refused(&refusal));
        }
    }
    Ok(driver.application().end.unwrap_or_default())
}

/// Casts what is asked for.
fn requests(incarnation: Incarnation, handle: &Handle, group: GroupKey) {
    let cast = |text: &str| {
        let message = request(incarnation, text);
        loop {
            match handle.cast(group, &message) {
                Err(HandleError::Full(_)) => thread::sleep(FULL),
                Ok(_) | Err(HandleError::Ended) => return,
                Err(HandleError::TooLong { limit, .. }) => {
                    return say(&format!("{} too long: {limit} bytes at most", number(text)));
                }
            }
        }
    };
    for line in stdin().lock().lines().map_while(Result::ok) {
        cast(line.trim());
    }
    cast("0 leave");
}

/// A request as it is cast: whose it is, and what.
fn request(incarnation: Incarnation, text: &str) -> Vec<u8> {
    let mut message = incarnation.0.to_le_bytes().to_vec();
    message.extend_from_slice(text.as_bytes());
    message
}

/// What the client is told of a request that the group will never take.
fn refused(refusal: &Refusal) -> String {
    let text =
        refusal.message.get(size_of::<Incarnation>()..).map(String::from_utf8_lossy).unwrap_or_default();
    format!("{} refused: {}", number(&text), refusal.why)
}

struct Replica<M> {
    machine: M,
    incarnation: Incarnation,
    majority: usize,
    /// Who go on together.
    members: usize,
    /// Between a transitional view and the next regular one.
    closing: bool,
    /// Of the state that is coming.
    arriving: Vec<u8>,
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
        let enough = self.members >= self.majority;
        match command {
            "leave" if own => group.leave(),
            "leave" => {}
            "digest" => say(&format!("digest {:016x}", digest(&self.machine.save()))),
            _ if !enough && !self.closing => {
                self.reply(own, text, "refused: no majority of the replicas is here")
            }
            _ => {
                // What closes a view is executed by all that had it, majority or not: some may have told their clients.
                let reply = self.machine.execute(command);
                let reply = if enough { &reply } else { "unknown: the majority of the replicas was lost" };
                self.reply(own, text, reply);
            }
        }
    }

    fn reply(&self, own: bool, request: &str, reply: &str) {
        if own {
            say(&format!("{} {reply}", number(request)));
        }
    }
}

impl<M: Machine> Application for Replica<M> {
    fn cast(&mut self, delivery: &Delivery<'_>, group: &mut Group<'_>) {
        for message in delivery.messages() {
            self.execute(message, group);
        }
    }

    fn event(&mut self, event: &Event, _group: &mut Group<'_>) {
        match event {
            Event::Transitional(together) => (self.members, self.closing) = (together.len(), true),
            Event::View(view) => {
                (self.members, self.closing) = (view.size(), false);
                say(&format!("view {}", view.size()));
            }
            Event::Problem(problem) => say(&format!("problem {}: {}", problem.layer, problem.what)),
            Event::Exit(ExitReason::Left) => self.end = Some(0),
            Event::Exit(reason) => {
                say(&format!("exit {reason}"));
                self.end = Some(if matches!(reason, ExitReason::Excluded { .. }) { EXCLUDED } else { 1 });
            }
            _ => {}
        }
    }

    fn snapshot(&mut self, _group: &mut Group<'_>) -> Option<Box<dyn Snapshot>> {
        Some(Box::new(std::io::Cursor::new(self.machine.save())))
    }

    fn install_state(&mut self, part: &StatePart<'_>, _group: &mut Group<'_>) -> Result<(), String> {
        if part.at == 0 {
            self.arriving.clear();
        }
        self.arriving.extend_from_slice(part.bytes);
        if part.last {
            self.machine = M::load(&std::mem::take(&mut self.arriving))?;
        }
        Ok(())
    }
}

/// The number of a request.
fn number(request: &str) -> &str {
    request.split(' ').next().unwrap_or_default()
}

/// A line to the client; if that is gone, nobody listens.
fn say(line: &str) {
    let mut out = stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// The longest sleep of an idle replica.
const PARK: Duration = Duration::from_millis(1);
/// Between two attempts to hand over a request when the ring is full.
const FULL: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use super::*;
    use wadjet::runtime::Request;

    #[test]
    fn a_request_that_is_refused_for_good_is_answered() {
        let message = request(Incarnation(7), "12 put key value");
        let refusal = Refusal { request: Request(3), why: "the group is over".to_owned(), message };
        assert_eq!(refused(&refusal), "12 refused: the group is over");
    }
}
