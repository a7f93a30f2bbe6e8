//! A member in a process of its own.
//!
//! What goes into its history is written to the file before any frame that follows from it is transmitted: casts are
//! issued between iterations of the loop, and the file is written before the next one; a view is written as it is told.
//! So whatever others have of a member that was killed is in its file, but for which of its last casts went out in its
//! last view; the judge knows that they could go out in no other ([`crate::judge`]).

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use wadjet::group::Snapshot;
use wadjet::runtime::{Driver, DriverOptions, IdleStrategy, JoinOptions, LoopOptions};
use wadjet::transport::Transport;
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::transport::uring::{UringOptions, UringTransport};
use wadjet::view::Neighbours;
use wadjet::{
    Address, Application, CastError, Config, Delivery, Endpoint, Event, Group, GroupId, GroupKey,
    Incarnation, LocalView, Rank, RankSet, SendError, StatePart,
};
use wadjet_oracle::{Content, ViewId, What};
use wadjet_sim::State;
use wadjet_xdp::{XdpOptions, XdpTransport};

use crate::clock;
use crate::seat::{Carrier, Extras, Load, Order, Seat, ViewName, Waiting, Word};

/// The hidden command that makes a process a member.
pub const MEMBER_COMMAND: &str = "lab-member";

/// Casts issued in one iteration under full load.
const BURST: u32 = 32;
/// Casts of a given rate go out in bursts so far apart.
const BURST_PAUSE: Duration = Duration::from_millis(2);
/// Nothing delivered for so long: the group has settled.
const SETTLED: Duration = Duration::from_millis(600);
const PARK: Duration = Duration::from_millis(1);
/// How long a member that leaves waits for the others.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// An origin's incarnation and the number of its cast or send.
const HEAD_BYTES: usize = 16;
/// One in so many bursts has a large cast, and one in so many a send to all others.
const LARGE_EVERY: u64 = 64;
const SEND_TO_ALL_EVERY: u64 = 8;
const AGREED_EVERY: u64 = 3;

/// The life of a member. Returns its exit code.
pub fn be_member() -> i32 {
    match try_be_member() {
        Ok(()) => 0,
        Err(error) => {
            say(&Word::Failed(error.to_string()));
            1
        }
    }
}

fn try_be_member() -> Result<(), Box<dyn Error>> {
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before it was asked for.
    if getppid() != parent {
        return Ok(());
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let seat: Seat = serde_json::from_str(&line)?;
    match seat.carrier {
        Carrier::Udp => live(&seat, UdpTransport::new(UdpOptions::default())?),
        Carrier::Uring => live(&seat, UringTransport::new(UringOptions::default())?),
        Carrier::Xdp => live(&seat, XdpTransport::new(XdpOptions::default())?),
        Carrier::Shm => live(&seat, Shm::new(ShmOptions::default())),
    }
}

/// If nobody listens any more the member is about to be killed.
fn say(word: &Word) {
    if let Ok(mut line) = serde_json::to_vec(word) {
        line.push(b'\n');
        drop(std::io::stdout().lock().write_all(&line));
    }
}

fn live<T: Transport>(seat: &Seat, transport: T) -> Result<(), Box<dyn Error>> {
    let orders = orders();
    let endpoint = Endpoint::new(Config::for_stack(&seat.stack), Incarnation(seat.incarnation))?;
    let idle = match seat.waiting {
        Waiting::Park => IdleStrategy::Park { spins: 0, timeout: PARK },
        Waiting::Adaptive => IdleStrategy::Adaptive,
    };
    let looping = LoopOptions { idle, ..LoopOptions::default() };
    let options = DriverOptions { looping, ..DriverOptions::default() };
    let diary = Diary::new(seat)?;
    let mut driver = Driver::new(endpoint, diary, transport, options);
    say(&Word::Joining { at: clock::now() });
    let contacts = seat.contacts.iter().cloned().map(Address).collect();
    let key = driver.join(JoinOptions {
        group: GroupId::named(&seat.group),
        spec: seat.stack.clone(),
        address: Address(seat.address.clone()),
        neighbours: Neighbours { contacts, discover: false },
    })?;
    let mut shift = Shift::new(seat);
    while shift.goes_on(&mut driver, key, &orders) {
        driver.run_once();
        follow(&mut driver, key);
        shift.work(&mut driver, key);
        driver.application_mut().write()?;
    }
    let (stats, looped, counts) = (driver.stats(key), driver.loop_stats(), counts(&driver, key));
    let casts = driver.application().issued;
    // Who has said so may be killed, and then would leave its socket and its segment behind.
    drop(driver);
    say(&Word::End {
        casts,
        delivered: stats.delivered,
        pauses: looped.pauses,
        pause_longest: looped.pause_longest.as_nanos() as u64,
        counts,
    });
    Ok(())
}

/// What the layers and the stack have counted, by name.
fn counts<T: Transport>(driver: &Driver<T, Diary>, key: GroupKey) -> Vec<(String, u64)> {
    let counts = driver.stats(key).counts;
    let mut counts: Vec<(String, u64)> =
        counts.iter().map(|count| (format!("{}: {}", count.layer, count.what), count.count)).collect();
    counts.sort();
    counts.dedup_by(|next, kept| {
        kept.0 == next.0 && {
            kept.1 += next.1;
            true
        }
    });
    counts
}

/// What the application notes of the view that its endpoint is in now.
fn follow<T: Transport>(driver: &mut Driver<T, Diary>, key: GroupKey) {
    let id = name(driver.group(key).endpoint_view());
    if driver.application().is_in(id) {
        return;
    }
    let group = driver.group(key);
    let (members, first) = (incarnations(group.endpoint_view()), group.first_ticket().0);
    driver.application_mut().follow(id, members, first);
}

/// The oracle's name of a view.
fn name(view: &LocalView) -> ViewId {
    let id = view.view().id;
    ViewId { counter: id.counter, coordinator: wadjet_oracle::Incarnation(id.coordinator.0) }
}

fn incarnations(view: &LocalView) -> Vec<wadjet_oracle::Incarnation> {
    let members = view.view().members.iter();
    members.map(|member| wadjet_oracle::Incarnation(member.incarnation.0)).collect()
}

/// What the conductor says; the channel closes when it closes this process's input.
fn orders() -> Receiver<Order> {
    let (say, hear) = channel();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(order) = serde_json::from_str(&line) else { break };
            if say.send(order).is_err() {
                break;
            }
        }
    });
    hear
}

/// What a member does with its time.
struct Shift {
    load: Load,
    extras: Extras,
    end: u64,
    next_burst: u64,
    bursts: u64,
    payload: Vec<u8>,
    large: Vec<u8>,
    /// Until when it waits for the others to let it go.
    leaving: Option<u64>,
    /// The number of the order to cast nothing, until it is answered.
    quiet: Option<u32>,
}

impl Shift {
    fn new(seat: &Seat) -> Shift {
        let payload = |bytes: usize| {
            let mut payload: Vec<u8> = (0..bytes.max(HEAD_BYTES)).map(|at| at as u8).collect();
            payload[..8].copy_from_slice(&seat.incarnation.to_le_bytes());
            payload
        };
        let now = clock::now();
        let mut extras = seat.extras;
        if !seat.has_layer("FRAG") {
            extras.large_bytes = 0;
        }
        Shift {
            load: seat.load,
            extras,
            end: now + seat.life.as_nanos() as u64,
            next_burst: now,
            bursts: 0,
            payload: payload(seat.bytes),
            large: payload(extras.large_bytes),
            leaving: None,
            quiet: None,
        }
    }

    fn goes_on<T: Transport>(
        &mut self,
        driver: &mut Driver<T, Diary>,
        key: GroupKey,
        orders: &Receiver<Order>,
    ) -> bool {
        let now = clock::now();
        match orders.try_recv() {
            Ok(Order::Quiet(number)) => {
                self.quiet = Some(number);
                driver.application_mut().delivered_at = now;
            }
            Ok(Order::Close) => {
                driver.application_mut().close();
                say(&Word::Closed);
            }
            Ok(Order::Leave) => {
                driver.group(key).leave();
                self.leaving = Some(now + LEAVE_MAX.as_nanos() as u64);
            }
            Ok(Order::Tell) => {
                let mut lines = driver.group(key).dump();
                let counts = counts(driver, key).into_iter();
                lines.extend(counts.map(|(what, count)| format!("{what}: {count}")));
                say(&Word::Stack { at: clock::now(), lines });
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return false,
        }
        let settled = now > driver.application().delivered_at + SETTLED.as_nanos() as u64;
        if let Some(number) = self.quiet.filter(|_| settled) {
            self.quiet = None;
            self.load = Load::Rate(0);
            say(&Word::Settled(number));
        }
        let over = now >= self.end || self.leaving.is_some_and(|until| now >= until);
        !over && !driver.application().exited
    }

    /// Casts and sends what is due.
    fn work<T: Transport>(&mut self, driver: &mut Driver<T, Diary>, key: GroupKey) {
        let greet = std::mem::take(&mut driver.application_mut().greet);
        if self.quiet.is_some() {
            return;
        }
        let due = match self.load {
            Load::Idle => u32::from(greet),
            Load::Full => BURST,
            Load::Rate(0) => 0,
            Load::Rate(rate) => {
                let now = clock::now();
                if now < self.next_burst {
                    return;
                }
                let pause = BURST_PAUSE.as_nanos() as u64;
                self.next_burst = (self.next_burst + pause).max(now.saturating_sub(10 * pause));
                (rate / (1_000_000_000 / pause) as u32).max(1)
            }
        };
        if due > 0 && self.extras.sends {
            self.send(driver, key);
        }
        self.bursts += u64::from(due > 0);
        let large = self.extras.large_bytes > 0 && self.bursts.is_multiple_of(LARGE_EVERY);
        for at in 0..due {
            let sequence = driver.application().issued + 1;
            let payload = if large && at == 0 { &mut self.large } else { &mut self.payload };
            payload[8..16].copy_from_slice(&sequence.to_le_bytes());
            // Where the others are safe, which the group knows.
            let agreed = sequence.is_multiple_of(AGREED_EVERY);
            let mut group = driver.group(key);
            let taken = if agreed { group.agreed().cast(payload) } else { group.cast(payload) };
            match taken {
                Ok(ticket) => {
                    assert_eq!(ticket.0, sequence, "tickets count this member's casts");
                    driver.application_mut().issued(payload, agreed);
                }
                Err(CastError::Full { .. } | CastError::NoFrame(_) | CastError::Exited(_)) => break,
                Err(error) => {
                    say(&Word::Problem(error.to_string()));
                    break;
                }
            }
        }
    }
}

impl Shift {
    /// Sends to one other member, or to all others.
    fn send<T: Transport>(&mut self, driver: &mut Driver<T, Diary>, key: GroupKey) {
        let sequence = driver.application().sent + 1;
        self.payload[8..16].copy_from_slice(&sequence.to_le_bytes());
        let mut group = driver.group(key);
        let others: Vec<Rank> = group.view().others().collect();
        let Some(one) = others.get(self.bursts as usize % others.len().max(1)) else { return };
        let to: RankSet = match self.bursts.is_multiple_of(SEND_TO_ALL_EVERY) {
            true => others.iter().copied().collect(),
            false => RankSet::one(*one),
        };
        match group.send(&to, &self.payload) {
            Ok(()) => driver.application_mut().sent(&to, &self.payload),
            Err(SendError::Full { .. } | SendError::NoFrame(_) | SendError::Exited(_)) => {}
            // It is gone, and the application is not told yet.
            Err(SendError::NotAMember(_)) => {}
            Err(error) => say(&Word::Problem(error.to_string())),
        }
    }
}

/// The application: keeps the history and reports.
struct Diary {
    own: wadjet_oracle::Incarnation,
    /// The view that the application has been told of last.
    view: ViewId,
    members: Vec<u64>,
    /// The view its endpoint is in, and its members.
    within: Option<(ViewId, Vec<wadjet_oracle::Incarnation>)>,
    /// Views that its endpoint has left before the application was told of them.
    untold: Vec<(ViewId, Vec<wadjet_oracle::Incarnation>)>,
    /// What has become of all that it delivered, where members give each other their state.
    state: Option<State>,
    /// Casts issued, and those of them whose view is known.
    issued: u64,
    placed: u64,
    /// Sends issued.
    sent: u64,
    delivered_at: u64,
    /// A view was installed since the last look.
    greet: bool,
    /// Nothing of another member was delivered in this view yet.
    fresh: bool,
    exited: bool,
    log: Option<Log>,
}

impl Diary {
    fn new(seat: &Seat) -> Result<Diary, Box<dyn Error>> {
        let own = wadjet_oracle::Incarnation(seat.incarnation);
        let log = match &seat.history {
            None => None,
            Some(path) => Some(Log { own, file: File::create_new(path)?, lines: Vec::new() }),
        };
        let ordered = seat.has_layer("TOTAL") || seat.has_layer("SEQUENCER");
        let mut diary = Diary {
            own,
            view: ViewId { counter: 0, coordinator: own },
            members: Vec::new(),
            within: None,
            untold: Vec::new(),
            state: seat.has_layer("XFER").then(|| State::new(own, true, ordered, seat.extras.state_bytes)),
            issued: 0,
            placed: 0,
            sent: 0,
            delivered_at: 0,
            greet: false,
            fresh: false,
            exited: false,
            log,
        };
        diary.note(clock::now(), What::Start { process: seat.process });
        diary.write()?;
        Ok(diary)
    }

    #[inline]
    fn note(&mut self, at: u64, what: What) {
        if let Some(log) = &mut self.log {
            log.note(at, what);
        }
    }

    /// What was noted goes into the file.
    fn write(&mut self) -> Result<(), Box<dyn Error>> {
        match &mut self.log {
            Some(log) => Ok(log.write()?),
            None => Ok(()),
        }
    }

    fn close(&mut self) {
        if self.write().is_err() {
            say(&Word::Failed("the history cannot be written".to_owned()));
        }
        self.log = None;
    }

    fn issued(&mut self, payload: &[u8], agreed: bool) {
        self.issued += 1;
        if self.log.is_some() {
            let (sequence, content) = (self.issued, Content::of(payload));
            let what = What::CastIssued { sequence, content, view: None, agreed };
            self.note(clock::now(), what);
        }
    }

    /// A send was taken.
    fn sent(&mut self, to: &RankSet, payload: &[u8]) {
        self.sent += 1;
        let Some((view, _)) = &self.within else { return };
        // It goes out in the view that the endpoint is in; ranks are those of the view that the application was told of last.
        let named = to.iter().map(|rank| self.members.get(rank.index()).copied().unwrap_or(0));
        let to = named.map(wadjet_oracle::Incarnation).collect();
        let what = What::SendIssued { sequence: self.sent, content: Content::of(payload), to, view: *view };
        self.note(clock::now(), what);
    }

    /// The endpoint is in another view: casts below `first` went out in the one before.
    fn follow(&mut self, view: ViewId, members: Vec<wadjet_oracle::Incarnation>, first: u64) {
        let at = clock::now();
        let Some((before, of)) = self.within.replace((view, members)) else { return };
        while self.placed + 1 < first {
            self.placed += 1;
            self.note(at, What::CastPlaced { sequence: self.placed, view: before });
        }
        if before != self.view {
            self.untold.push((before, of));
        }
    }

    /// The endpoint may be in another view than before: the application may not be told of it before it has the state.
    fn keep_up(&mut self, group: &Group<'_>) {
        let id = name(group.endpoint_view());
        if !self.is_in(id) {
            self.follow(id, incarnations(group.endpoint_view()), group.first_ticket().0);
        }
    }

    /// Whether that is the view its endpoint is known to be in.
    fn is_in(&self, view: ViewId) -> bool {
        self.within.as_ref().is_some_and(|(within, _)| *within == view)
    }

    /// The application is told of a view: what it was not told of before it never will be.
    fn pass(&mut self, at: u64, told: ViewId) {
        let until = self.untold.iter().position(|(view, _)| *view == told);
        let passed = until.unwrap_or(if self.is_in(told) { self.untold.len() } else { 0 });
        for (view, members) in self.untold.drain(..passed).collect::<Vec<_>>() {
            self.note(at, What::Passed { view, members });
        }
        if until.is_some() {
            self.untold.remove(0);
        }
    }

    /// The application is told that the group is over. What it has cast went out in the view that its endpoint was in, if
    /// it did. Of views that wait behind the one it was told of last it says nothing: it had not all of that one either,
    /// when the rest of it waits with them, and who goes on to a view has delivered what others have in the one before.
    fn over(&mut self, at: u64, reason: &str) {
        if let Some((view, _)) = self.within {
            for sequence in self.placed + 1..=self.issued {
                self.note(at, What::CastPlaced { sequence, view });
            }
            self.placed = self.issued;
        }
        self.untold.clear();
        self.note(at, What::Exit { reason: reason.to_owned() });
        self.exited = true;
    }

    fn installed(&mut self, view: &LocalView, group: &Group<'_>) {
        self.keep_up(group);
        let (id, members) = (name(view), incarnations(view));
        let at = clock::now();
        self.pass(at, id);
        self.view = id;
        self.members = members.iter().map(|member| member.0).collect();
        self.note(at, What::View { view: id, members, transitional: false });
        if let Some(state) = &self.state {
            let digest = state.digest();
            self.note(at, What::State { view: id, line: 0, digest });
        }
        // Before anything goes out in it.
        if self.write().is_err() {
            say(&Word::Failed("the history cannot be written".to_owned()));
        }
        say(&Word::View { at, view: self.name(), members: self.members.clone() });
        (self.greet, self.fresh) = (true, true);
    }

    fn name(&self) -> ViewName {
        ViewName { counter: self.view.counter, coordinator: self.view.coordinator.0 }
    }
}

impl Application for Diary {
    fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        let at = clock::now();
        self.delivered_at = at;
        let origin = self.members.get(delivery.origin().index()).copied().unwrap_or(0);
        if self.fresh && origin != self.own.0 {
            self.fresh = false;
            say(&Word::First { at, view: self.name() });
        }
        let (origin, view) = (wadjet_oracle::Incarnation(origin), self.view);
        for message in delivery.messages() {
            let sequence = sequence_of(message, origin);
            if let Some(state) = &mut self.state {
                state.take(origin, sequence);
            }
            if self.log.is_some() {
                let content = Content::of(message);
                self.note(at, What::CastDelivered { origin, sequence, content, view });
            }
        }
    }

    fn send(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
        let at = clock::now();
        self.delivered_at = at;
        let origin = self.members.get(delivery.origin().index()).copied().unwrap_or(0);
        let (origin, view) = (wadjet_oracle::Incarnation(origin), self.view);
        for message in delivery.messages() {
            let (sequence, content) = (sequence_of(message, origin), Content::of(message));
            self.note(at, What::SendDelivered { origin, sequence, content, view });
        }
    }

    fn snapshot(&mut self, _: &mut Group<'_>) -> Option<Box<dyn Snapshot>> {
        self.state.as_ref().map(|state| Box::new(state.snapshot()) as Box<dyn Snapshot>)
    }

    fn install_state(&mut self, part: &StatePart<'_>, _: &mut Group<'_>) -> Result<(), String> {
        let state = self.state.as_mut().ok_or("this stack gives no state")?;
        state.install(part).map(drop)
    }

    fn event(&mut self, event: &Event, group: &mut Group<'_>) {
        match event {
            Event::View(view) => self.installed(view, group),
            Event::Transitional(together) => {
                let named = together.iter().filter_map(|rank| self.members.get(rank.index()).copied());
                let members = named.map(wadjet_oracle::Incarnation).collect();
                self.note(clock::now(), What::View { view: self.view, members, transitional: true });
            }
            Event::Suspect(suspicion) => {
                let members = self.members.get(suspicion.member.index()).copied().into_iter().collect();
                say(&Word::Suspect { at: clock::now(), members, why: suspicion.why.to_string() });
            }
            // What is cast from now on waits by itself.
            Event::Block => group.block_ok(),
            Event::Problem(problem) => say(&Word::Problem(format!("{}: {}", problem.layer, problem.what))),
            Event::Exit(reason) => {
                self.keep_up(group);
                // Behind what was noted just now.
                let (at, reason) = (clock::now(), reason.to_string());
                self.over(at, &reason);
                // Who has said so may be killed.
                self.close();
                say(&Word::Exit { at, reason });
            }
            _ => {}
        }
    }
}

/// Which of its origin's casts or sends a message says it is. What does not carry its origin's name was never issued by it.
fn sequence_of(message: &[u8], origin: wadjet_oracle::Incarnation) -> u64 {
    let word = |at: usize| {
        message.get(at..at + 8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight")))
    };
    if word(0) == origin.0 { word(8) } else { 0 }
}

/// A history on its way to its file.
struct Log {
    own: wadjet_oracle::Incarnation,
    file: File,
    lines: Vec<u8>,
}

impl Log {
    fn note(&mut self, at: u64, what: What) {
        let event = wadjet_oracle::Event { at, member: self.own, what };
        serde_json::to_writer(&mut self.lines, &event).expect("an event is JSON, and memory takes it");
        self.lines.push(b'\n');
    }

    fn write(&mut self) -> std::io::Result<()> {
        if !self.lines.is_empty() {
            self.file.write_all(&self.lines)?;
            self.lines.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wadjet_oracle::History;

    use super::*;
    use crate::judge::judge;

    const OWN: wadjet_oracle::Incarnation = wadjet_oracle::Incarnation(1);
    const OTHER: wadjet_oracle::Incarnation = wadjet_oracle::Incarnation(2);

    fn seat(history: std::path::PathBuf) -> Seat {
        Seat {
            process: 0,
            incarnation: OWN.0,
            group: "g".into(),
            carrier: Carrier::Shm,
            stack: STACK.into(),
            address: "a".into(),
            contacts: Vec::new(),
            load: Load::Idle,
            bytes: 64,
            extras: Extras::default(),
            waiting: Waiting::Park,
            history: Some(history),
            life: Duration::from_secs(1),
        }
    }

    const STACK: &str = "XFER:SAFE:TOTAL:EVS:MBRSHIP:SUSPECT:FRAG:STABLE:FC:UNICAST:LOCAL:NAK:COM";

    fn view(counter: u64) -> ViewId {
        ViewId { counter, coordinator: OTHER }
    }

    /// The state comes when the endpoint is two views further; of what was cast in the view that it is the state of, and
    /// waits, one is delivered, and then the member is excluded. Others went from that view to the next one with both.
    #[test]
    fn who_is_excluded_before_it_has_all_that_waits_behind_the_state_did_not_go_on_to_the_views_there() {
        let directory = std::env::temp_dir().join(format!("wadjet-diary-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (mine, others) = (directory.join("mine.jsonl"), directory.join("others.jsonl"));
        let (content, members) = (Content::of(b"cast"), vec![OTHER, OWN]);
        let began =
            |counter| What::View { view: view(counter), members: members.clone(), transitional: false };
        let apart = || What::View { view: view(2), members: members.clone(), transitional: true };
        let delivered = |sequence| What::CastDelivered { origin: OTHER, sequence, content, view: view(2) };
        let mut diary = Diary::new(&seat(mine.clone())).unwrap();
        // Behind what the diary has noted by the clock.
        let begun = clock::now();
        let at = |later: u64| begun + later * 1_000_000_000;
        let mut other = History::default();
        other.push(begun, OTHER, What::Start { process: 1 });
        other.push(at(2), OTHER, began(2));
        for sequence in [1, 2] {
            let issued = What::CastIssued { sequence, content, view: Some(view(2)), agreed: false };
            other.push(at(3), OTHER, issued);
            other.push(at(4), OTHER, delivered(sequence));
        }
        other.push(at(5), OTHER, apart());
        other.push(at(6), OTHER, began(3));

        (2..=4).for_each(|counter| diary.follow(view(counter), members.clone(), 1));
        diary.pass(at(7), view(2));
        diary.view = view(2);
        diary.note(at(7), began(2));
        diary.note(at(8), delivered(1));
        diary.over(at(9), "excluded");
        diary.write().unwrap();
        other.write(&mut File::create(&others).unwrap()).unwrap();
        let files = [mine, others];
        let verdict = judge(&files, "MBRSHIP:STABLE:LOCAL:NAK:COM", false).unwrap();
        assert_eq!(verdict.violations, []);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_cast_last_before_an_exit_went_out_in_the_view_that_the_endpoint_was_in() {
        let path = std::env::temp_dir().join(format!("wadjet-diary-casts-{}.jsonl", std::process::id()));
        let mut diary = Diary::new(&seat(path.clone())).unwrap();
        diary.follow(view(2), vec![OTHER, OWN], 1);
        diary.pass(1, view(2));
        diary.view = view(2);
        diary.issued(b"first", false);
        diary.follow(view(3), vec![OTHER, OWN], 2);
        diary.issued(b"second", false);
        diary.over(9, "excluded");
        diary.write().unwrap();
        let history = History::read(std::io::BufReader::new(File::open(&path).unwrap())).unwrap();
        let placed = history.events.into_iter().filter(|event| matches!(event.what, What::CastPlaced { .. }));
        let placed: Vec<What> = placed.map(|event| event.what).collect();
        let wanted = [(1, 2), (2, 3)];
        let wanted = wanted.map(|(sequence, of)| What::CastPlaced { sequence, view: view(of) });
        assert_eq!(placed, wanted);
        std::fs::remove_file(path).unwrap();
    }
}
