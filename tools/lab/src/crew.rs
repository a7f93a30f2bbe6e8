//! A group of real processes, as its conductor has it.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use wadjet::transport::Transport;
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::{Address, GroupId};

use crate::clock;
use crate::hosts::Hosts;
use crate::member::MEMBER_COMMAND;
use crate::seat::{Carrier, Extras, Load, Order, Seat, ViewName, Waiting, Word};

/// How the members of a crew are.
#[derive(Clone, Debug)]
pub struct CrewOptions {
    /// Over what they talk.
    pub carrier: Carrier,
    /// The stack, top to bottom.
    pub stack: String,
    /// How many.
    pub members: usize,
    /// What they cast.
    pub load: Load,
    /// Bytes of a cast.
    pub bytes: usize,
    /// What they do beside casting.
    pub extras: Extras,
    /// How their loops wait.
    pub waiting: Waiting,
    /// Where histories are written, if they are.
    pub histories: Option<PathBuf>,
    /// How long a member lives at most.
    pub life: Duration,
}

/// A place in the crew: an address, at which one life follows another.
pub struct Place {
    address: String,
    /// The test host it is on, if it is on one.
    host: Option<usize>,
    running: Option<Running>,
    /// What its present or last life has reported.
    pub life: Life,
    /// Signalled to stop and not to continue yet.
    pub stopped: bool,
}

/// What a life has reported.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// Which.
    pub incarnation: u64,
    /// When it was about to join.
    pub joining: u64,
    /// The view it is in, with its members, and when it was installed.
    pub view: Option<(ViewName, Vec<u64>, u64)>,
    /// When the first cast of another was delivered in that view.
    pub first: Option<u64>,
    /// Members it suspected, and when.
    pub suspicions: Vec<(u64, Vec<u64>)>,
    /// Why the group is over for it.
    pub exit: Option<String>,
    /// What it said was wrong.
    pub problems: Vec<String>,
    /// The last [`Order::Quiet`] it has answered.
    pub settled: u32,
    /// After [`Order::Close`].
    pub closed: bool,
    /// Its last words: casts, deliveries, pauses, the longest of them.
    pub end: Option<(u64, u64, u64, u64)>,
    /// What was counted in it.
    pub counts: Vec<(String, u64)>,
    /// It ended otherwise.
    pub failed: Option<String>,
}

/// A process. Killed when dropped.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
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

/// The members' processes, and the hosts they are on.
pub struct Crew<'h> {
    options: CrewOptions,
    program: PathBuf,
    group: String,
    hosts: Option<&'h Hosts>,
    /// By number of the process.
    pub places: Vec<Place>,
    say: Sender<(u64, Option<Word>)>,
    hear: Receiver<(u64, Option<Word>)>,
    next_incarnation: u64,
    quiets: u32,
    /// Lives that were killed: what the conductor knows of the history.
    pub killed: Vec<(u64, u64)>,
    /// What was done and said lately, and when, for a person.
    story: VecDeque<(u64, String)>,
}

impl<'h> Crew<'h> {
    /// A crew of which nobody has started. With hosts, each member is on one of its own. `program` is this very
    /// program, or one that has the same hidden command.
    ///
    /// # Errors
    /// If there are no free ports, or fewer hosts than members.
    pub fn new(
        options: CrewOptions,
        program: &Path,
        group: &str,
        hosts: Option<&'h Hosts>,
    ) -> Result<Crew<'h>, Box<dyn Error>> {
        if hosts.is_some_and(|hosts| hosts.count() < options.members) {
            return Err("every member needs a host of its own".into());
        }
        let addresses = addresses(&options, hosts)?;
        let place = |(at, address): (usize, String)| Place {
            address,
            host: hosts.map(|_| at + 1),
            running: None,
            life: Life::default(),
            stopped: false,
        };
        let places = addresses.into_iter().enumerate().map(place).collect();
        let (say, hear) = channel();
        // Lives of different runs must differ, and those of one run be told apart by a person.
        let next_incarnation = (clock::now() / 1_000_000_000) * LIVES_MAX + 1;
        Ok(Crew {
            options,
            program: program.to_owned(),
            group: group.to_owned(),
            hosts,
            places,
            say,
            hear,
            next_incarnation,
            quiets: 0,
            killed: Vec::new(),
            story: VecDeque::new(),
        })
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Starts a new life at a place; it looks for the group at all others.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start(&mut self, at: usize) -> Result<(), Box<dyn Error>> {
        // Whoever was there has exited, and lets go of its address when it is gone.
        self.places[at].running = None;
        let incarnation = self.next_incarnation;
        self.next_incarnation += 1;
        let others = self.places.iter().enumerate().filter(|(other, _)| *other != at);
        let seat = Seat {
            process: at as u32,
            incarnation,
            group: self.group.clone(),
            carrier: self.options.carrier,
            stack: self.options.stack.clone(),
            address: self.places[at].address.clone(),
            contacts: others.map(|(_, place)| place.address.clone()).collect(),
            load: self.options.load,
            bytes: self.options.bytes,
            extras: self.options.extras,
            waiting: self.options.waiting,
            history: self.options.histories.as_ref().map(|path| path.join(history_name(incarnation))),
            life: self.options.life,
        };
        let mut command = match (self.hosts, self.places[at].host) {
            (Some(hosts), Some(host)) => hosts.command(host, self.program.as_os_str()),
            _ => Command::new(&self.program),
        };
        let mut child = command
            .arg(MEMBER_COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start a member's process: {error}"))?;
        let mut input = child.stdin.take().ok_or("a member has no input")?;
        let output = child.stdout.take().ok_or("a member has no output")?;
        let say = self.say.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let word = serde_json::from_str(&line)
                    .unwrap_or_else(|error| Word::Failed(format!("said `{line}`: {error}")));
                if say.send((incarnation, Some(word))).is_err() {
                    return;
                }
            }
            drop(say.send((incarnation, None)));
        });
        let place = &mut self.places[at];
        place.life = Life { incarnation, ..Life::default() };
        place.stopped = false;
        let told = writeln!(input, "{}", serde_json::to_string(&seat)?);
        place.running = Some(Running { child, input: Some(input) });
        told.map_err(|error| format!("member {at} ended early: {error}").into())
    }

    /// Kills the life at a place (SIGKILL); when that was.
    ///
    /// # Errors
    /// If there is none.
    pub fn kill(&mut self, at: usize) -> Result<u64, Box<dyn Error>> {
        let place = &mut self.places[at];
        let running = place.running.as_mut().ok_or("nobody lives there")?;
        let begun = clock::now();
        running.child.kill()?;
        running.child.wait()?;
        place.running = None;
        place.stopped = false;
        self.killed.push((place.life.incarnation, clock::now()));
        Ok(begun)
    }

    /// Stops the life at a place (SIGSTOP); when that was.
    ///
    /// # Errors
    /// If there is none.
    pub fn stop(&mut self, at: usize) -> Result<u64, Box<dyn Error>> {
        let begun = clock::now();
        self.signal(at, Signal::STOP)?;
        self.places[at].stopped = true;
        Ok(begun)
    }

    /// Continues a stopped life (SIGCONT); when that was.
    ///
    /// # Errors
    /// If there is none.
    pub fn go_on(&mut self, at: usize) -> Result<u64, Box<dyn Error>> {
        let begun = clock::now();
        self.signal(at, Signal::CONT)?;
        self.places[at].stopped = false;
        Ok(begun)
    }

    fn signal(&self, at: usize, signal: Signal) -> Result<(), Box<dyn Error>> {
        let running = self.places[at].running.as_ref().ok_or("nobody lives there")?;
        let pid = i32::try_from(running.child.id())?;
        kill_process(Pid::from_raw(pid).ok_or("a process has a number")?, signal)?;
        Ok(())
    }

    /// Tells a member something; a member that has ended does not hear it.
    pub fn tell(&mut self, at: usize, order: Order) {
        if let Some(input) = self.places[at].running.as_mut().and_then(|running| running.input.as_mut()) {
            let line = serde_json::to_string(&order).expect("an order is JSON");
            drop(writeln!(input, "{line}"));
        }
    }

    /// Whether the life at a place goes on: it has not ended, nor exited.
    pub fn lives(&self, at: usize) -> bool {
        self.places[at].running.is_some() && self.places[at].life.exit.is_none()
    }

    /// Takes in what members say until `done`, or until the time is over; whether it was done.
    pub fn until(&mut self, limit: Duration, mut done: impl FnMut(&Crew<'_>) -> bool) -> bool {
        let end = Instant::now() + limit;
        loop {
            if done(self) {
                return true;
            }
            match self.hear.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((incarnation, word)) => self.take(incarnation, word),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return done(self),
            }
        }
    }

    /// Takes in what members say for a while.
    pub fn pass(&mut self, time: Duration) {
        self.until(time, |_| false);
    }

    /// Whether the lives at these places are in one view of exactly them.
    pub fn together(&self, whom: &[usize]) -> bool {
        let mut wanted: Vec<u64> = whom.iter().map(|at| self.places[*at].life.incarnation).collect();
        wanted.sort_unstable();
        let mut common = None;
        whom.iter().all(|at| {
            let Some((view, members, _)) = &self.places[*at].life.view else { return false };
            let mut members = members.clone();
            members.sort_unstable();
            self.lives(*at) && *common.get_or_insert(*view) == *view && members == wanted
        })
    }

    /// Starts those of `whom` that have not begun, exited or ended; whether there was anybody.
    ///
    /// # Errors
    /// As [`Crew::start`]; or if a life ended otherwise than by a fault of the conductor's.
    pub fn revive(&mut self, whom: &[usize]) -> Result<bool, Box<dyn Error>> {
        let mut any = false;
        for at in whom.iter().copied() {
            let place = &mut self.places[at];
            if let Some(why) = &place.life.failed {
                return Err(format!("member {at} failed: {why}").into());
            }
            if place.running.is_some() && place.life.exit.is_none() {
                continue;
            }
            if let Some(mut running) = place.running.take() {
                // It has exited and is about to end by itself.
                running.input = None;
                drop(running);
            }
            self.start(at)?;
            any = true;
        }
        Ok(any)
    }

    /// Who is where, for a person.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (at, place) in self.places.iter().enumerate() {
            let life = &place.life;
            let view = life.view.as_ref().map_or("in no view".to_owned(), |(view, members, _)| {
                format!("in view {}@{} of {members:?}", view.counter, view.coordinator)
            });
            text += &format!("member {at}, life {}: {view}", life.incarnation);
            for (word, is) in [("stopped", place.stopped), ("not running", place.running.is_none())] {
                text += if is { ", " } else { "" };
                text += if is { word } else { "" };
            }
            for why in life.exit.iter().chain(&life.failed).chain(&life.problems) {
                text += &format!(", {why}");
            }
            text += "\n";
        }
        text
    }

    /// Something was done that belongs to the story.
    pub fn note(&mut self, what: String) {
        self.tell_of(clock::now(), what);
    }

    fn tell_of(&mut self, at: u64, what: String) {
        if self.story.len() == STORY_LINES_MAX {
            self.story.pop_front();
        }
        self.story.push_back((at, what));
    }

    /// What was done and said since this was asked last, in order, with when it was.
    pub fn take_story(&mut self) -> Vec<(u64, String)> {
        let mut story = Vec::from(std::mem::take(&mut self.story));
        story.sort_by_key(|(at, _)| *at);
        story
    }

    /// What a member said, for a person. Lives are told apart by their last digits.
    fn hear_of(&mut self, at: usize, word: &Word) {
        let place_of = |incarnation: &u64| {
            let place = self.places.iter().position(|place| place.life.incarnation == *incarnation);
            place.map_or_else(|| format!("?#{}", life_of(*incarnation)), |at| name(at, *incarnation))
        };
        let places = |members: &[u64]| members.iter().map(place_of).collect::<Vec<_>>().join(", ");
        let (when, what) = match word {
            Word::Joining { at } => (*at, "begins".to_owned()),
            Word::View { at, view, members } => {
                let led = place_of(&view.coordinator);
                (*at, format!("is in view {} of {led}: {}", view.counter, places(members)))
            }
            Word::Suspect { at, members, why } => (*at, format!("suspects {}: {why}", places(members))),
            Word::Stack { at, lines } => (*at, format!("stands so:\n    {}", lines.join("\n    "))),
            Word::Problem(what) => (clock::now(), format!("is told: {what}")),
            Word::Exit { at, reason } => (*at, format!("is out: {reason}")),
            Word::Failed(why) => (clock::now(), format!("fails: {why}")),
            Word::First { .. } | Word::Settled(_) | Word::Closed | Word::End { .. } => return,
        };
        let name = name(at, self.places[at].life.incarnation);
        self.tell_of(when, format!("{name} {what}"));
    }

    /// Lets everybody come to rest: no casts, nothing under way. False if somebody was excluded meanwhile, or ended: then
    /// the group must meet first.
    ///
    /// # Errors
    /// If they do not within the time.
    pub fn settle(&mut self, limit: Duration) -> Result<bool, Box<dyn Error>> {
        let all = 0..self.places.len();
        self.quiets += 1;
        let number = self.quiets;
        all.clone().for_each(|at| self.tell(at, Order::Quiet(number)));
        let away = |crew: &Crew<'_>| all.clone().any(|at| !crew.lives(at));
        if self
            .until(limit, |crew| crew.places.iter().all(|place| place.life.settled == number) || away(crew))
        {
            return Ok(!away(self));
        }
        Err(format!("the group does not come to rest:\n{}", self.describe()).into())
    }

    /// Closes the histories. Whether nothing has changed meanwhile, so that they are of one moment.
    ///
    /// # Errors
    /// If they are not closed within the time.
    pub fn close(&mut self, limit: Duration) -> Result<bool, Box<dyn Error>> {
        let views = |crew: &Crew<'_>| -> Vec<_> {
            crew.places.iter().map(|place| place.life.view.as_ref().map(|(view, ..)| *view)).collect()
        };
        let all: Vec<usize> = (0..self.places.len()).collect();
        let before = views(self);
        all.iter().for_each(|at| self.tell(*at, Order::Close));
        let closed =
            |crew: &Crew<'_>| crew.places.iter().all(|place| place.life.closed || place.life.exit.is_some());
        if self.until(limit, closed) {
            return Ok(self.together(&all) && views(self) == before);
        }
        Err(format!("the histories are not closed:\n{}", self.describe()).into())
    }

    /// Ends everybody, hears their last words, and removes what those have left who were killed.
    pub fn end(&mut self) {
        for place in &mut self.places {
            if let Some(running) = &mut place.running {
                running.input = None;
            }
        }
        let ended = |crew: &Crew<'_>| {
            let lives = crew.places.iter().filter(|place| place.running.is_some());
            lives.into_iter().all(|place| place.life.end.is_some() || place.life.failed.is_some())
        };
        self.until(END_MAX, ended);
        self.places.iter_mut().for_each(|place| place.running = None);
        self.clear_up();
    }

    /// Who is killed leaves its socket, and its segment if nobody is in its view any more, until the next one comes to
    /// the group (`wadjet::transport::shm`). Nobody comes after the end: the conductor does, at every address.
    fn clear_up(&self) {
        if self.options.carrier != Carrier::Shm {
            return;
        }
        let mut last = Shm::new(ShmOptions::default());
        for place in &self.places {
            // What cannot be removed stays for whoever comes first over this transport.
            drop(last.bind(GroupId::named(&self.group), &Address(place.address.clone())));
        }
    }

    fn take(&mut self, incarnation: u64, word: Option<Word>) {
        let Some(at) = self.places.iter().position(|place| place.life.incarnation == incarnation) else {
            return;
        };
        if let Some(word) = &word {
            self.hear_of(at, word);
        }
        let place = &mut self.places[at];
        let life = &mut place.life;
        match word {
            Some(Word::Joining { at }) => life.joining = at,
            Some(Word::View { at, view, members }) => {
                life.view = Some((view, members, at));
                life.first = None;
            }
            Some(Word::First { at, view })
                if life.view.as_ref().is_some_and(|(current, _, _)| *current == view) =>
            {
                life.first = life.first.or(Some(at));
            }
            Some(Word::First { .. }) => {}
            Some(Word::Stack { .. }) => {}
            Some(Word::Suspect { at, members, .. }) => life.suspicions.push((at, members)),
            Some(Word::Problem(what)) => life.problems.push(what),
            Some(Word::Exit { reason, .. }) => life.exit = Some(reason),
            Some(Word::Settled(number)) => life.settled = number,
            Some(Word::Closed) => life.closed = true,
            Some(Word::End { casts, delivered, pauses, pause_longest, counts }) => {
                life.end = Some((casts, delivered, pauses, pause_longest));
                life.counts = counts;
            }
            Some(Word::Failed(why)) => life.failed = Some(why),
            None if life.end.is_none() && place.running.is_some() => {
                life.failed.get_or_insert_with(|| "its process ended without a word".to_owned());
            }
            None => {}
        }
    }
}

/// A life, for a person.
fn name(at: usize, incarnation: u64) -> String {
    format!("{at}#{}", life_of(incarnation))
}

/// The part of an incarnation by which a run tells its lives apart.
fn life_of(incarnation: u64) -> u64 {
    incarnation % LIVES_MAX
}

/// The file of a life's history.
pub fn history_name(incarnation: u64) -> String {
    format!("life-{incarnation}.jsonl")
}

fn addresses(options: &CrewOptions, hosts: Option<&Hosts>) -> Result<Vec<String>, Box<dyn Error>> {
    let members = options.members;
    match (options.carrier, hosts) {
        (Carrier::Shm, _) => Ok((0..members).map(|at| format!("m{at}")).collect()),
        (_, Some(hosts)) => Ok((1..=members).map(|host| format!("{}:7000", hosts.address(host))).collect()),
        (Carrier::Xdp, None) => Err("AF_XDP needs an interface for each member, on test hosts".into()),
        (Carrier::Udp | Carrier::Uring, None) => {
            let sockets: Result<Vec<_>, _> = (0..members).map(|_| UdpSocket::bind("127.0.0.1:0")).collect();
            let sockets =
                sockets.map_err(|error| format!("no free UDP port on the loopback interface: {error}"))?;
            let addresses: Result<Vec<_>, _> = sockets.iter().map(UdpSocket::local_addr).collect();
            Ok(addresses?.iter().map(ToString::to_string).collect())
        }
    }
}

const END_MAX: Duration = Duration::from_secs(5);
/// Incarnations of one run begin with the second in which it began.
const LIVES_MAX: u64 = 1_000_000;
/// Nobody reads more, and not everybody asks for it.
const STORY_LINES_MAX: usize = 2000;
