//! Members in processes of their own.
//!
//! The parent starts its own program again with a hidden command, gives each child its seat by one line of JSON, waits
//! until all are ready, says go, collects the reports and closes their input, which ends them. Everything is bounded
//! in time; a child that does not keep to it is killed, by its own handle.
//!
//! ```text
//!   parent                         child
//!      |---- seat (JSON) ----------->|  opens its channels
//!      |<--- "ready" ----------------|
//!      |---- "go" ------------------>|  runs the blocks, serves the others
//!      |<--- reports (JSON) ---------|
//!      |---- (input closed) -------->|  ends
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use wadjet::id::GroupId;
use wadjet::runtime::pin;
use wadjet::transport::Transport;
use wadjet::view::Address;
use wadjet_hosts::{Hosts, label_of_this_process};
use wadjet_xdp::{XdpOptions, XdpTransport};

use crate::member::Hosted;
use crate::plan::{MemberReport, Plan, Seat, TransportKind};

/// The hidden command that makes a process a member.
pub const MEMBER_COMMAND: &str = "bench-member";

/// What a child says, one line each.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// Its channels are open.
    Ready,
    /// What came of it.
    Reports(Vec<MemberReport>),
    /// It could not begin.
    Failed(String),
}

/// Runs a plan in processes of its own and returns every member's report, in rank order.
///
/// # Errors
/// If a process cannot be started, does not keep to its time, or could not set its member up.
pub fn run(plan: &Plan) -> Result<Vec<MemberReport>, Box<dyn Error>> {
    let hosts = hosts(plan)?;
    let seats = seats(plan, hosts.as_ref())?;
    let deadline = Instant::now() + plan.time_limit();
    let (say, hear) = channel();
    let mut children = Vec::with_capacity(seats.len());
    for (at, seat) in seats.iter().enumerate() {
        children.push(Running::start(at, seat, hosts.as_ref(), &say)?);
    }
    drop(say);
    for_each_child(&hear, children.len(), deadline, "get ready", |_, word| match word {
        Word::Ready => Ok(()),
        other => Err(unexpected(other)),
    })?;
    for child in &mut children {
        child.tell("go")?;
    }
    let mut reports = Vec::new();
    for_each_child(&hear, children.len(), deadline, "report", |at, word| match word {
        Word::Reports(of_child) => {
            let ranks = of_child.into_iter().enumerate();
            reports.extend(ranks.map(|(rank, report)| MemberReport { rank: at + rank, ..report }));
            Ok(())
        }
        other => Err(unexpected(other)),
    })?;
    for child in children {
        child.end()?;
    }
    reports.sort_by_key(|report| report.rank);
    Ok(reports)
}

/// The life of a child. Returns its exit code.
pub fn be_member() -> i32 {
    match try_be_member() {
        Ok(()) => 0,
        Err(error) => {
            // The parent says it in its own words; if it is gone, nobody listens.
            drop(say(&Word::Failed(error.to_string())));
            1
        }
    }
}

fn try_be_member() -> Result<(), Box<dyn Error>> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let seat: Seat = serde_json::from_str(&line)?;
    if let Some(core) = seat.plan.core(seat.rank) {
        pin(core)?;
    }
    let mut hosted = Hosted::one(&seat)?;
    say(&Word::Ready)?;
    line.clear();
    std::io::stdin().read_line(&mut line)?;
    if line.trim() != "go" {
        return Ok(());
    }
    let ended = Arc::new(AtomicBool::new(false));
    let reported = Arc::new(AtomicBool::new(false));
    let (ear, said) = (Arc::clone(&ended), Arc::clone(&reported));
    thread::spawn(move || {
        // Ends with the parent, whatever becomes of it.
        while std::io::stdin().read_line(&mut String::new()).is_ok_and(|read| read > 0) {}
        ear.store(true, Ordering::Release);
        if !said.load(Ordering::Acquire) {
            // Nobody is left to be told: the rest of the plan is not run on processors that others want.
            std::process::exit(1);
        }
    });
    let reports = hosted.run();
    // It ends the input only when it has all reports.
    reported.store(true, Ordering::Release);
    say(&Word::Reports(reports))?;
    hosted.linger(LINGER_MAX, || ended.load(Ordering::Acquire));
    Ok(())
}

fn say(word: &Word) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, word)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// A child process. Killed when dropped before it has ended.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
}

impl Running {
    fn start(
        at: usize,
        seat: &Seat,
        hosts: Option<&Hosts>,
        say: &Sender<(usize, String)>,
    ) -> Result<Running, Box<dyn Error>> {
        let program = std::env::current_exe()?;
        let mut command = match hosts {
            Some(hosts) => hosts.command(at + 1, program.as_os_str()),
            None => Command::new(program),
        };
        let mut child = command
            .arg(MEMBER_COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start a member's process: {error}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("a child has no output")?;
        let say = say.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if say.send((at, line)).is_err() {
                    break;
                }
            }
        });
        let mut running = Running { child, input };
        running.tell(&serde_json::to_string(seat)?)?;
        Ok(running)
    }

    fn tell(&mut self, line: &str) -> Result<(), Box<dyn Error>> {
        let input = self.input.as_mut().ok_or("a child's input is closed")?;
        writeln!(input, "{line}").map_err(|error| format!("a member's process ended early: {error}"))?;
        Ok(())
    }

    fn end(mut self) -> Result<(), Box<dyn Error>> {
        self.input = None;
        let deadline = Instant::now() + END_MAX;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("a member's process did not end when told to, and was killed".into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It may end in between; either way there is nothing left to do.
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// Waits for one word of each child.
fn for_each_child(
    hear: &Receiver<(usize, String)>,
    children: usize,
    deadline: Instant,
    what: &str,
    mut take: impl FnMut(usize, Word) -> Result<(), String>,
) -> Result<(), Box<dyn Error>> {
    for _ in 0..children {
        let left = deadline.saturating_duration_since(Instant::now());
        match hear.recv_timeout(left) {
            Ok((at, line)) => {
                let word = serde_json::from_str(&line).map_err(|error| {
                    format!("member {at} said `{line}`, which is not understood: {error}")
                })?;
                take(at, word).map_err(|error| format!("member {at}: {error}"))?;
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("a member did not {what} within the run's time limit; killed").into());
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(format!("a member's process ended before it could {what}").into());
            }
        }
    }
    Ok(())
}

fn unexpected(word: Word) -> String {
    match word {
        Word::Failed(why) => why,
        other => format!("said {other:?} out of turn"),
    }
}

/// The test hosts of a run that takes some; those made for it are removed with what is returned.
fn hosts(plan: &Plan) -> Result<Option<Hosts>, Box<dyn Error>> {
    if let Some(label) = &plan.lab {
        return Ok(Some(Hosts::standing(label, plan.members)?));
    }
    if plan.transport != TransportKind::Xdp {
        return Ok(None);
    }
    let label = label_of_this_process("bench");
    // Raw and stack run side by side, each on an interface of its own: a queue has one socket.
    Ok(Some(if plan.members == 2 {
        Hosts::pair(&label, 2)?
    } else {
        Hosts::on_bridges(&label, plan.members, 2)?
    }))
}

/// Why runs over AF_XDP cannot be made here, if they cannot.
pub fn without_xdp() -> Option<String> {
    let hosts = Hosts::pair(&label_of_this_process("bench"), 1);
    let hosts = hosts.map_err(|error| error.to_string());
    let outcome = hosts.and_then(|hosts| {
        let _stay = hosts.enter(1).map_err(|error| error.to_string())?;
        let address = Address(format!("{}:7400", hosts.address(1)));
        let mut transport = XdpTransport::new(XdpOptions::default()).map_err(|error| error.to_string())?;
        let bound = transport.bind(GroupId::named("wadjet bench"), &address);
        bound.map(drop).map_err(|error| error.to_string())
    });
    outcome.err()
}

/// One seat per process: in memory one process hosts all members.
fn seats(plan: &Plan, hosts: Option<&Hosts>) -> Result<Vec<Seat>, Box<dyn Error>> {
    let run =
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64 ^ u64::from(std::process::id()) << 40;
    let on_wire = |hosts: &Hosts, wire: usize, port: u16| {
        (1..=plan.members).map(|host| format!("{}:{port}", hosts.wire_address(host, wire))).collect()
    };
    let (stack_addresses, raw_addresses) = match (plan.transport, hosts) {
        // Test hosts that stand have one interface each.
        (_, Some(hosts)) if plan.lab.is_some() => (on_wire(hosts, 0, 7400), on_wire(hosts, 0, 7401)),
        (_, Some(hosts)) => (on_wire(hosts, 0, 7400), on_wire(hosts, 1, 7400)),
        (TransportKind::Udp | TransportKind::Uring, None) => {
            let mut ports = loopback_ports(2 * plan.members)?;
            let raw = ports.split_off(plan.members);
            (ports, raw)
        }
        _ => {
            let names = |kind: &str| (0..plan.members).map(|rank| format!("{kind}-{rank}")).collect();
            (names("stack"), names("raw"))
        }
    };
    let processes = if plan.transport == TransportKind::Memory { 1 } else { plan.members };
    let seat = |rank| Seat {
        plan: plan.clone(),
        rank,
        run,
        stack_addresses: stack_addresses.clone(),
        raw_addresses: raw_addresses.clone(),
    };
    Ok((0..processes).map(seat).collect())
}

/// Addresses on the loopback interface that were free just now.
fn loopback_ports(count: usize) -> Result<Vec<String>, Box<dyn Error>> {
    let sockets: Result<Vec<UdpSocket>, _> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect();
    let sockets = sockets.map_err(|error| format!("no free UDP port on the loopback interface: {error}"))?;
    let addresses: Result<Vec<_>, _> =
        sockets.iter().map(|socket| socket.local_addr().map(|address| address.to_string())).collect();
    Ok(addresses?)
}

/// How long a member serves others after its report, at most.
const LINGER_MAX: Duration = Duration::from_secs(600);
const END_MAX: Duration = Duration::from_secs(5);
