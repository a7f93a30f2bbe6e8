//! `wadjet node`: a member of a group, by hand.
//!
//! The member runs in this thread and parks when nothing happens; another thread reads standard input. What happens to
//! the group is told in whole sentences, one line each, so that scripts can look for them as well.

use std::collections::VecDeque;
use std::error::Error;
use std::io::BufRead;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use wadjet::runtime::{Driver, DriverOptions, IdleStrategy, JoinOptions, LoopOptions, Window};
use wadjet::stack::event::{ExitReason, Grounds, Slow, SlowOutcome, Suspicion};
use wadjet::time::Millis;
use wadjet::transport::Transport;
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::transport::uring::{UringOptions, UringTransport};
use wadjet::view::Neighbours;
use wadjet::{
    Address, Application, CastError, Config, Delivery, Endpoint, Event, Group, GroupId, GroupKey,
    Incarnation, LocalView, Rank, RankSet, SendError,
};
use wadjet_bench::xdp::XdpArguments;
use wadjet_xdp::{XdpOptions, XdpTransport};

use crate::ending::{self, say};

/// Which group, where, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeOptions {
    /// The group; all that name it alike and can find each other come together
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    group: String,
    /// Where this member is reached: `ip:port` over udp, uring and xdp, any name of your choice over shm
    #[arg(long, value_name = "A")]
    address: String,
    /// Addresses of others; any one member of the group will do
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',')]
    peers: Vec<String>,
    /// Over what
    #[arg(long, value_enum, default_value = "udp")]
    transport: NodeTransport,
    /// The stack, top to bottom [default: the stack for live groups over that transport]
    #[arg(long, value_name = "SPEC")]
    stack: Option<String>,
    /// Look for the group without knowing an address: at a multicast address, or over shm on this host
    #[arg(long, value_name = "IP:PORT", num_args = 0..=1)]
    discover: Option<Option<SocketAddrV4>>,
    #[command(flatten)]
    xdp: XdpArguments,
    /// If the others go on without this member, join again as a new one
    #[arg(long)]
    rejoin: bool,
    /// Let `wadjet explain --live PATH` look at this member through a socket of that name
    #[arg(long, value_name = "PATH")]
    window: Option<PathBuf>,
    /// Leave after so many seconds
    #[arg(long, value_name = "SECONDS")]
    leave_after: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NodeTransport {
    /// UDP sockets
    Udp,
    /// UDP through io_uring; members over udp and over uring are members of one group
    Uring,
    /// AF_XDP sockets on the interface that has the address; takes root. Members over udp may be in the same group
    Xdp,
    /// Shared memory of this host
    Shm,
}

/// Where `--discover` asks if it is told nothing else: an address of the local scope.
const DISCOVERY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 255, 87, 74), 7487);
/// The longest sleep of an idle member: lines typed are looked for so often.
const PARK: Duration = Duration::from_millis(10);
/// Lines that may wait for the group.
const LINES_MAX: usize = 1024;
/// A member that has not met anybody for so long says at whom it looks, and casts what was typed without them.
const LONELY_AFTER: Duration = Duration::from_secs(2);
/// How long a member that leaves waits for the others to agree.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// So many different problems are remembered, so as not to be told again.
const TOLD_MAX: usize = 1024;
/// Times a member joins again after it was excluded.
const REJOINS_MAX: u32 = 1000;

const HELP: &str = "\
lines are cast to the group; these are not:
  /members            who is in the view
  /send ADDR TEXT     to one member only
  /stats              what was cast and delivered, how fast, and what the layers say
  /leave              leave the group and end (so do /quit, /exit and the end of input)
  /help               this";

/// Takes part until told to leave. Whether it left as it was told to.
///
/// # Errors
/// If the address is taken or the stack makes no sense; the text says what to do.
pub(crate) fn run(options: &NodeOptions) -> Result<bool, Box<dyn Error>> {
    if let (NodeTransport::Shm, Some(Some(address))) = (options.transport, options.discover) {
        return Err(format!(
            "--discover {address} with --transport shm: over shared memory members find each other on their host, not at an \
             address; give --discover without one, or another --transport"
        )
        .into());
    }
    options.xdp.check(options.transport == NodeTransport::Xdp)?;
    ending::listen()?;
    let discovery = options.discover.map(|address| address.unwrap_or(DISCOVERY));
    let mut lines = Lines::of_standard_input();
    let mut contacts: Vec<Address> = options.peers.iter().cloned().map(Address).collect();
    let end = match options.leave_after {
        None => None,
        Some(seconds) => {
            let after = Duration::try_from_secs_f64(seconds).ok();
            let end = after.and_then(|after| Instant::now().checked_add(after));
            Some(end.ok_or_else(|| format!("--leave-after {seconds}: give seconds from now, as in 2.5"))?)
        }
    };
    let others: Vec<&str> =
        options.peers.iter().map(String::as_str).filter(|peer| *peer != options.address).collect();
    if !options.peers.is_empty() && others.is_empty() {
        say!("--peers names nobody but this member itself: nobody is looked for there");
    }
    let mut has_met = false;
    let mut told = Told::default();
    for _ in 0..REJOINS_MAX {
        let life = match options.transport {
            NodeTransport::Udp => {
                let udp = UdpOptions { discovery, ..UdpOptions::default() };
                live(options, UdpTransport::new(udp)?, &contacts, &mut lines, (end, &mut told))?
            }
            NodeTransport::Uring => {
                let udp = UdpOptions { discovery, ..UdpOptions::default() };
                live(
                    options,
                    UringTransport::new(UringOptions { udp })?,
                    &contacts,
                    &mut lines,
                    (end, &mut told),
                )?
            }
            NodeTransport::Xdp => {
                let xdp = XdpOptions { discovery, ..options.xdp.options() };
                live(options, XdpTransport::new(xdp)?, &contacts, &mut lines, (end, &mut told))?
            }
            NodeTransport::Shm => {
                live(options, Shm::new(ShmOptions::default()), &contacts, &mut lines, (end, &mut told))?
            }
        };
        has_met |= life.has_met;
        match life.exit {
            Some(ExitReason::Excluded { .. } | ExitReason::Expelled { .. })
                if options.rejoin && ending::asked().is_none() =>
            {
                say!("joining again, as a new member");
                let known = life.addresses.into_iter().filter(|address| address.0 != options.address);
                contacts.extend(known);
                contacts.sort();
                contacts.dedup();
            }
            Some(ExitReason::Left) if !has_met && !others.is_empty() => {
                say!("it was never in a view with anybody: nobody at {} has let it in", others.join(", "));
                return Ok(false);
            }
            Some(ExitReason::Left) => return Ok(true),
            Some(ExitReason::Excluded { .. } | ExitReason::Expelled { .. }) if !options.rejoin => {
                say!("ended; with --rejoin it would join again, as a new member");
                return Ok(false);
            }
            Some(_) => return Ok(false),
            None => {
                say!("ended before the others agreed; they will take this member for failed");
                return Ok(false);
            }
        }
    }
    Err(format!("excluded {REJOINS_MAX} times; something is wrong with this host or its network").into())
}

/// What is left of a member's life.
struct Life {
    exit: Option<ExitReason>,
    /// Who was in its last view.
    addresses: Vec<Address>,
    /// It was in a view with others.
    has_met: bool,
}

/// Problems that were told, each with how often it was heard of: a person reads it once, whatever repeats it.
#[derive(Default)]
struct Told(Vec<(String, u64)>);

impl Told {
    /// What is to be said now, if anything is: a problem when it comes first, and how often it has come when that has become
    /// ten times as often.
    fn again(&mut self, problem: String) -> Option<String> {
        let Some((_, times)) = self.0.iter_mut().find(|(told, _)| *told == problem) else {
            if self.0.len() < TOLD_MAX {
                self.0.push((problem.clone(), 1));
            }
            return Some(problem);
        };
        *times += 1;
        let is_power = times.is_multiple_of(10) && 10_u64.pow(times.ilog10()) == *times;
        is_power.then(|| format!("{times} times by now: {problem}"))
    }
}

fn live<T: Transport>(
    options: &NodeOptions,
    transport: T,
    contacts: &[Address],
    lines: &mut Lines,
    (end, told): (Option<Instant>, &mut Told),
) -> Result<Life, Box<dyn Error>> {
    let default = match options.transport {
        NodeTransport::Udp | NodeTransport::Uring | NodeTransport::Xdp => wadjet::layers::DEFAULT_STACK,
        NodeTransport::Shm => wadjet::layers::DEFAULT_STACK_WITH_INTEGRITY,
    };
    let spec = options.stack.clone().unwrap_or_else(|| default.to_owned());
    let endpoint = Endpoint::new(Config::for_stack(&spec), wadjet::runtime::fresh_incarnation())?;
    let idle = IdleStrategy::Park { spins: 0, timeout: PARK };
    let looping = LoopOptions { idle, ..LoopOptions::default() };
    let group = GroupId::named(&options.group);
    let looks_for_others =
        options.discover.is_some() || contacts.iter().any(|contact| contact.0 != options.address);
    let narrator = Narrator {
        group: (group.to_string(), options.group.clone()),
        told: std::mem::take(told),
        looks_for_others,
        ..Narrator::default()
    };
    let mut driver =
        Driver::new(endpoint, narrator, transport, DriverOptions { looping, ..DriverOptions::default() });
    let key = driver.join(JoinOptions {
        group,
        spec,
        address: Address(options.address.clone()),
        neighbours: Neighbours { contacts: contacts.to_vec(), discover: options.discover.is_some() },
    })?;
    // What it says later is told as a problem.
    let caps = driver.inner().transport().caps();
    for note in &caps.notes {
        say!("{}: {note}", caps.name);
    }
    let window = options.window.as_deref().map(|path| {
        Window::open(path, driver.handle(), key)
            .map_err(|error| format!("no window at {}: {error}; give a path that is free", path.display()))
    });
    let _window = window.transpose()?;
    let mut leaving: Option<Instant> = None;
    let mut lonely = Some(Instant::now() + LONELY_AFTER);
    while driver.application().exit.is_none() {
        driver.run_once();
        if lonely.is_some_and(|at| Instant::now() >= at) {
            lonely = None;
            tell_lonely(driver.application(), options, contacts);
        }
        // What is piped in is meant for those that are looked for.
        let is_over = end.is_some_and(|end| Instant::now() >= end);
        let waits = looks_for_others && lonely.is_some() && !driver.application().knows_whom() && !is_over;
        let asked = ending::asked();
        if leaving.is_none() && (asked.is_some() || lines.obey(&mut driver, key, waits) || is_over) {
            if let Some(signal) = asked {
                let limit = LEAVE_MAX.as_secs();
                say!("{signal}: leaving the group, within {limit} s; once more ends this at once");
            }
            driver.group(key).leave();
            leaving = Some(Instant::now() + LEAVE_MAX);
        }
        if leaving.is_some_and(|until| Instant::now() >= until) {
            break;
        }
    }
    let narrator = driver.application_mut();
    *told = std::mem::take(&mut narrator.told);
    let addresses = narrator.members.iter().map(|(_, a)| a.clone()).collect();
    Ok(Life { exit: narrator.exit, addresses, has_met: narrator.has_met })
}

/// Says where nobody answers, if this member has met nobody yet and has not been told why.
fn tell_lonely(narrator: &Narrator, options: &NodeOptions, contacts: &[Address]) {
    let others = contacts.iter().filter(|contact| contact.0 != options.address);
    let others: Vec<&str> = others.map(|contact| contact.0.as_str()).collect();
    let wherever = match (options.transport, options.discover) {
        (_, None) => None,
        (NodeTransport::Shm, _) => Some("on this host".to_owned()),
        (_, Some(address)) => Some(format!("at the multicast address {}", address.unwrap_or(DISCOVERY))),
    };
    let at = (!others.is_empty()).then(|| format!("at {}", others.join(", ")));
    let where_asked: Vec<String> = at.into_iter().chain(wherever).collect();
    if narrator.knows_whom() || where_asked.is_empty() {
        return;
    }
    say!(
        "alone for {} s now: nobody has answered {} and let this member in; is there a member of group {}? It is \
         looked for on",
        LONELY_AFTER.as_secs(),
        where_asked.join(", nor "),
        options.group
    );
}

/// What was typed: bytes, which are cast as they are.
struct Lines {
    typed: Receiver<Vec<u8>>,
    /// Lines that the group could not take yet.
    waiting: VecDeque<Vec<u8>>,
    ended: bool,
}

impl Lines {
    fn of_standard_input() -> Lines {
        let (say, typed) = sync_channel(LINES_MAX);
        thread::spawn(move || {
            let mut input = std::io::stdin().lock();
            loop {
                let mut line = Vec::new();
                match input.read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
                for end in [b'\n', b'\r'] {
                    line.pop_if(|last| *last == end);
                }
                if say.send(line).is_err() {
                    break;
                }
            }
        });
        Lines { typed, waiting: VecDeque::new(), ended: false }
    }

    /// Does what was typed, as far as the group takes it; nothing is cast while the member `waits` for others. Whether
    /// this member is to leave.
    fn obey<T: Transport>(&mut self, driver: &mut Driver<T, Narrator>, key: GroupKey, waits: bool) -> bool {
        // Bounded by what may wait in the channel.
        for _ in 0..LINES_MAX {
            match self.typed.try_recv() {
                Ok(line) => self.waiting.push_back(line),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.ended = true;
                    break;
                }
            }
            if self.waiting.len() >= LINES_MAX {
                break;
            }
        }
        while let Some(line) = self.waiting.front() {
            let text = String::from_utf8_lossy(line);
            match text.split_whitespace().next() {
                None => {}
                Some("/leave" | "/quit" | "/exit") => return true,
                Some("/help") => say!("{HELP}"),
                Some("/members") => say!("{}", members(driver.group(key).view())),
                Some("/stats") => stats(driver, key),
                Some(word) if waits && (word == "/send" || !word.starts_with('/')) => return false,
                Some("/send") => match send(&mut driver.group(key), line) {
                    Ok(true) => {}
                    Ok(false) => return false,
                    Err(why) => say!("not sent: {why}"),
                },
                Some(word) if word.starts_with('/') => say!("{word} is not known; /help says what is"),
                Some(_) => match driver.group(key).cast(line) {
                    Ok(_) => {}
                    // It is said again when there is room.
                    Err(CastError::Full { .. } | CastError::NoFrame(_)) => return false,
                    Err(why) => say!("not cast: {why}"),
                },
            }
            self.waiting.pop_front();
        }
        self.ended
    }
}

/// Whether the group took it.
fn send(group: &mut Group<'_>, line: &[u8]) -> Result<bool, String> {
    let mut words = line.trim_ascii_start().splitn(3, u8::is_ascii_whitespace).skip(1);
    let (Some(address), Some(text)) = (words.next(), words.next()) else {
        return Err("say /send ADDRESS TEXT".to_owned());
    };
    let members = &group.view().view().members;
    let Some(at) = members.iter().position(|member| member.address.0.as_bytes() == address) else {
        let address = String::from_utf8_lossy(address);
        return Err(format!("nobody in the view has the address {address}; /members lists those there are"));
    };
    match group.send(&RankSet::one(Rank::at(at)), text) {
        Ok(()) => Ok(true),
        Err(SendError::Full { .. } | SendError::NoFrame(_)) => Ok(false),
        Err(why) => Err(why.to_string()),
    }
}

fn members(view: &LocalView) -> String {
    let name = |(at, member): (usize, &wadjet::Member)| {
        let own = if Rank::at(at) == view.rank() { " (this one)" } else { "" };
        format!("{}{own}", member.address)
    };
    let names: Vec<String> = view.view().members.iter().enumerate().map(name).collect();
    let size = if names.len() == 1 { "1 member".to_owned() } else { format!("{} members", names.len()) };
    format!("view {}, {size}: {}", view.view().id.counter, names.join(", "))
}

fn stats<T: Transport>(driver: &mut Driver<T, Narrator>, key: GroupKey) {
    let stats = driver.stats(key);
    say!(
        "cast {}, delivered {}, sent {}, sends delivered {}; {:.2} % on the fast path; {} casts wait",
        stats.casts,
        stats.delivered,
        stats.sends,
        stats.sends_delivered,
        stats.fast_path.hit_rate() * 100.0,
        stats.waiting
    );
    for line in driver.group(key).dump() {
        say!("  {line}");
    }
    for count in &stats.counts {
        say!("  {}: {} {}", count.layer, count.count, count.what);
    }
}

/// Tells what happens to the group.
#[derive(Default)]
struct Narrator {
    /// The group as others' words have it, and its name.
    group: (String, String),
    /// By rank.
    members: Vec<(Incarnation, Address)>,
    left: Vec<Incarnation>,
    /// Who was given up in this view, and a word and a sentence for it.
    given_up: Vec<(Incarnation, &'static str, String)>,
    exit: Option<ExitReason>,
    /// It was in a view with others.
    has_met: bool,
    looks_for_others: bool,
    /// It was told why it cannot be in one with those it looks for.
    is_refused: bool,
    /// What was told of problems.
    told: Told,
    /// Since it was in one it has said that nobody else has what it casts.
    told_alone: bool,
}

impl Narrator {
    /// What a layer says, with the own group by its name. Of another the network tells no more than a hash.
    fn by_name(&self, what: &str) -> String {
        const GROUP: &str = "group ";
        let (hash, name) = &self.group;
        let in_words = |words: &str| {
            let (group, rest) = words.split_at_checked(hash.len())?;
            let is_another = group != hash && group.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_another
                .then(|| format!("another group (names are not sent; the hash of its name is {group}){rest}"))
        };
        let mut parts = what.split(GROUP);
        let first = parts.next().unwrap_or_default().to_owned();
        let said = parts
            .fold(first, |said, words| said + &in_words(words).unwrap_or_else(|| format!("{GROUP}{words}")));
        said.replace(hash, name)
    }

    /// Whether it was in a view with those it looks for, or was told why it cannot be.
    fn knows_whom(&self) -> bool {
        self.has_met || self.is_refused
    }

    fn name(&self, rank: Rank) -> String {
        self.members.get(rank.index()).map_or_else(|| format!("member {rank}"), |(_, a)| a.to_string())
    }

    fn slow(&mut self, slow: &Slow) {
        let name = self.name(slow.member);
        let millis = slow.lasting.as_millis();
        match slow.outcome {
            SlowOutcome::Waits => say!("{name} holds the senders up, for {millis} ms now: {}", slow.why),
            SlowOutcome::CaughtUp => say!("{name} has caught up"),
            SlowOutcome::Expelled { by } => {
                let why = format!("it held the senders up for {millis} ms, {}", slow.why);
                say!("{name} is expelled by {}: {why}", self.name(by));
                self.give_up(slow.member, "expelled", why);
            }
        }
    }

    fn suspected(&mut self, suspicion: Suspicion) {
        let why = match suspicion.why {
            Grounds::ToldBy { by, kind: Some(kind) } => format!("{} {kind}", self.name(by)),
            Grounds::ToldBy { by, kind: None } => format!("{} takes it for failed", self.name(by)),
            why => why.to_string(),
        };
        say!("suspected: {}, {why}; the view goes on without it", self.name(suspicion.member));
        self.give_up(suspicion.member, "failed", why);
    }

    fn give_up(&mut self, rank: Rank, word: &'static str, why: String) {
        if let Some((incarnation, _)) = self.members.get(rank.index()) {
            self.given_up.push((*incarnation, word, why));
        }
    }

    fn view(&mut self, view: &LocalView) {
        say!("{}", members(view));
        self.has_met |= view.size() > 1;
        self.told_alone &= view.size() == 1;
        let next: Vec<_> =
            view.view().members.iter().map(|member| (member.incarnation, member.address.clone())).collect();
        let is_in = |list: &[(Incarnation, Address)], who: Incarnation| list.iter().any(|(i, _)| *i == who);
        let own = view.member(view.rank()).incarnation;
        for (incarnation, address) in next.iter().filter(|(i, _)| *i != own && !is_in(&self.members, *i)) {
            let again = self.members.iter().any(|(other, a)| a == address && other != incarnation);
            say!("  joined: {address}{}", if again { " (started anew)" } else { "" });
        }
        for (incarnation, address) in self.members.iter().filter(|(i, _)| !is_in(&next, *i)) {
            if self.left.contains(incarnation) {
                say!("  left: {address} (it asked to)");
            } else if let Some((_, word, why)) = self.given_up.iter().find(|(i, ..)| i == incarnation) {
                say!("  {word}: {address} ({why})");
            } else {
                say!("  gone: {address} (it is not in the view that the others have decided)");
            }
        }
        self.members = next;
        self.left.clear();
        self.given_up.clear();
    }
}

impl Application for Narrator {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        let name = self.name(delivery.origin());
        for message in delivery.messages() {
            say!("<{name}> {}", String::from_utf8_lossy(message));
        }
        if self.members.len() == 1 && !self.told_alone {
            self.told_alone = true;
            say!("nobody else is in the group: what is cast now is delivered to this member alone");
        }
    }

    fn send(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        let name = self.name(delivery.origin());
        for message in delivery.messages() {
            say!("<{name}> to this member: {}", String::from_utf8_lossy(message));
        }
    }

    fn event(&mut self, event: &Event, group: &mut Group<'_>) {
        match event {
            Event::View(view) => self.view(view),
            Event::Suspect(suspicion) => self.suspected(*suspicion),
            Event::Paused(lasting) => say!("this process did not run for {}", Millis(*lasting)),
            Event::Slow(slow) => self.slow(slow),
            Event::StateLost { goes_on } => {
                let then = if *goes_on { ": it goes on with what those who came in have" } else { "" };
                say!("all members that had the group's state are gone{then}");
            }
            Event::Left(rank) => {
                if let Some((incarnation, address)) = self.members.get(rank.index()) {
                    say!("{address} leaves");
                    self.left.push(*incarnation);
                }
            }
            Event::LostMessage { origin, reason } => {
                say!("a message of {} is lost: {reason}", self.name(*origin));
            }
            Event::Problem(problem) => {
                let whose =
                    problem.origin.map_or(String::new(), |origin| format!(" of {}", self.name(origin)));
                let problem_in_words =
                    format!("problem{whose}, says {}: {}", problem.layer, self.by_name(&problem.what));
                if let Some(words) = self.told.again(problem_in_words) {
                    say!("{words}");
                }
                if problem.layer == "MBRSHIP" && !self.knows_whom() {
                    self.is_refused = true;
                    if self.looks_for_others {
                        say!("this member stays alone until that is put right or somebody else lets it in");
                    }
                }
            }
            Event::Exit(reason) => {
                self.exit = Some(*reason);
                match reason {
                    ExitReason::Excluded { by, view, accuser, kind } => {
                        let accuser = accuser.map_or("somebody".to_owned(), |accuser| self.name(accuser));
                        let why = match kind {
                            Some(kind) => format!("because {accuser} {kind}"),
                            None => format!("which {accuser} took for failed"),
                        };
                        let (by, view) = (self.name(*by), view.counter);
                        say!("excluded: {by} has gone on to view {view} without this member, {why}");
                    }
                    other => say!("{other}"),
                }
            }
            // Casts typed meanwhile wait by themselves.
            Event::Block => group.block_ok(),
            // What is stable nobody here asks.
            Event::Stable | Event::Writable | Event::Transitional(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_is_counted_and_told_when_it_was_said_ten_times_as_often() {
        let mut told = Told::default();
        let said: Vec<String> = (0..1234).filter_map(|_| told.again("no".into())).collect();
        assert_eq!(said, ["no", "10 times by now: no", "100 times by now: no", "1000 times by now: no"]);
        assert_eq!(told.again("of another".into()).as_deref(), Some("of another"));
        (0..3 * TOLD_MAX).for_each(|n| drop(told.again(n.to_string())));
        assert!(told.0.len() <= TOLD_MAX);
    }
}
