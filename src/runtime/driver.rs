//! A member: an endpoint and its application in a loop.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::commands::{Command, CommandOptions, Commands, Goes, Handle, Question};
use super::looper::{Engine, Loop, LoopOptions, LoopStats, RoomFor};
use super::pin;
use super::window::Report;
use crate::buf::Frame;
use crate::endpoint::{Dropped, Endpoint, GroupKey, Request};
use crate::group::{Application, CastError, Group, SendError, Ticket};
use crate::id::{GroupId, Incarnation, Life, Rank, RankSet};
use crate::stack::event::ExitReason;
use crate::stack::run::InstallError;
use crate::stats::Stats;
use crate::time::Time;
use crate::transport::{
    Caps, Channel, ChannelId, Received, Transmit, Transport, TransportCounters, TransportError,
};
use crate::view::{Address, LocalView, Neighbours, ViewError};
use crate::wire::FULL_FLAG;

/// How a [`Driver`] runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverOptions {
    /// The loop.
    pub looping: LoopOptions,
    /// The ring for other threads.
    pub commands: CommandOptions,
    /// The core [`Driver::run`] pins its thread to, if any.
    pub core: Option<usize>,
}

/// How a process takes part in a group whose views are agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinOptions {
    /// The group.
    pub group: GroupId,
    /// The stack, top to bottom; one of its layers agrees on views (`MBRSHIP`).
    pub spec: String,
    /// Where this process is to be reached.
    pub address: Address,
    /// Where others may be found.
    pub neighbours: Neighbours,
}

impl JoinOptions {
    /// Takes part in the group of that name, under `address`, with whoever is found by the transport's own discovery: a
    /// multicast address on networks that have it ([`UdpOptions::discovery`]; without it joining is refused), this host on
    /// shared memory.
    ///
    /// [`UdpOptions::discovery`]: crate::transport::udp::UdpOptions::discovery
    pub fn discover(group: &str, address: &str, spec: &str) -> JoinOptions {
        JoinOptions::among(group, address, spec, Neighbours { contacts: Vec::new(), discover: true })
    }

    /// Takes part in the group of that name, under `address`, through members that may be reached at `contacts`: any one of
    /// them will do. Who has no contacts founds the group, and others join through its address.
    pub fn through(group: &str, address: &str, contacts: &[&str], spec: &str) -> JoinOptions {
        let contacts = contacts.iter().map(|contact| Address((*contact).to_owned())).collect();
        JoinOptions::among(group, address, spec, Neighbours { contacts, discover: false })
    }

    fn among(group: &str, address: &str, spec: &str, neighbours: Neighbours) -> JoinOptions {
        let (group, address) = (GroupId::named(group), Address(address.to_owned()));
        JoinOptions { group, spec: spec.to_owned(), address, neighbours }
    }
}

/// Why [`Driver::run`] has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A handle, or the application, said stop.
    Stopped,
    /// The last of the driver's groups is over, for this reason.
    Over(ExitReason),
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Stopped => formatter.write_str("stopped"),
            Ended::Over(reason) => reason.fmt(formatter),
        }
    }
}

/// A view could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// By the transport.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// By the endpoint.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// It is no view of this process.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Others are to be discovered, and the transport cannot do that.
    #[error("nobody can be discovered over {transport}: {remedy}, or name contacts (`JoinOptions::through`)")]
    NoDiscovery {
        /// Its name.
        transport: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// One of the contacts can never be reached from this process's address.
    #[error("a process at `{own}` cannot look for others there: {why}")]
    BadContact {
        /// This process's address.
        own: Address,
        /// Which contact, and why not.
        #[source]
        why: TransportError,
    },
    /// Who joins agrees on views with those that are there, and the stack has no layer for that.
    #[error(
        "the stack {spec} agrees on no views, so nobody can join by it: put MBRSHIP:SUSPECT into it, as in \
         `wadjet::layers::DEFAULT_STACK`, or open a view that is given (`Driver::open`)"
    )]
    NotLive {
        /// The stack.
        spec: String,
    },
}

/// An endpoint and its application, driven by one thread over one transport.
pub struct Driver<T: Transport, A: Application> {
    inner: Loop<T, Member<A>>,
    core: Option<usize>,
}

/// What the loop drives: the endpoint, its application, and what other threads ask for.
pub struct Member<A: Application> {
    endpoint: Endpoint,
    application: A,
    commands: Commands,
    held: Held,
    /// Frames that came in this iteration.
    arrived: Vec<Received>,
    /// One of them has a full header.
    has_full: bool,
    /// Who wants to know how a group is doing, since this iteration.
    questions: Vec<Question>,
}

/// Commands that their groups could not take yet, and those behind them for the same groups. No more of them than places
/// in the ring, because each keeps its place there.
#[derive(Default)]
struct Held {
    commands: usize,
    queues: Vec<(GroupKey, VecDeque<Command>)>,
}

impl Held {
    /// The queue of a group for which commands are held.
    fn queue_of(&mut self, group: GroupKey) -> Option<&mut VecDeque<Command>> {
        let of = |queue: &&mut (GroupKey, VecDeque<Command>)| queue.0 == group && !queue.1.is_empty();
        self.queues.iter_mut().find(of).map(|queue| &mut queue.1)
    }

    /// Behind what is held for its group.
    fn push(&mut self, command: Command) {
        self.commands += 1;
        let group = command.group;
        if let Some(queue) = self.queue_of(group) {
            queue.push_back(command);
            return;
        }
        // A queue that is empty is any group's.
        let at = self.queues.iter().position(|queue| queue.1.is_empty()).unwrap_or_else(|| {
            self.queues.push((group, VecDeque::new()));
            self.queues.len() - 1
        });
        self.queues[at].0 = group;
        self.queues[at].1.push_back(command);
    }
}

impl<T: Transport, A: Application> Driver<T, A> {
    /// A driver that has not run yet. The endpoint gets a life, if it has none.
    pub fn new(mut endpoint: Endpoint, application: A, transport: T, options: DriverOptions) -> Driver<T, A> {
        if endpoint.life() == Life::NONE {
            endpoint.set_life(draw_life());
        }
        let commands = Commands::new(options.commands, transport.waker());
        // As many as come in one iteration: nothing is allocated while frames flow.
        let arrived = Vec::with_capacity(options.looping.receive_frames_max.min(ARRIVED_MAX));
        let (held, questions) = (Held::default(), Vec::new());
        let member = Member { endpoint, application, commands, held, arrived, has_full: false, questions };
        Driver { inner: Loop::new(transport, member, options.looping), core: options.core }
    }

    /// Opens the view's channel at the transport and installs the view at the endpoint.
    ///
    /// # Errors
    /// [`OpenError`]; nothing stays open then.
    pub fn open(&mut self, view: LocalView) -> Result<GroupKey, OpenError> {
        self.open_among(view, Neighbours::default())
    }

    /// Takes part in a group: begins in a view of its own, and looks for others at the neighbours. Every view is told as
    /// [`Event::View`](crate::Event::View), this first one too.
    ///
    /// # Errors
    /// [`OpenError`]; nothing stays open then.
    pub fn join(&mut self, options: JoinOptions) -> Result<GroupKey, OpenError> {
        let JoinOptions { group, spec, address, neighbours } = options;
        self.check(&neighbours, &address)?;
        let caps = self.inner.transport().caps();
        if !self.inner.engine_mut().endpoint.agrees_on_views(&spec, &caps)? {
            return Err(OpenError::NotLive { spec });
        }
        if self.inner.engine().endpoint.is_there(group) {
            return Err(InstallError::AlreadyThere(group).into());
        }
        let address = self.inner.bind(group, &address)?;
        let incarnation = self.inner.engine().endpoint.incarnation();
        let member = crate::view::Member { incarnation, address };
        // Who looks for nobody founds the group: of two processes that are alone, it lets the other one in.
        let founds = neighbours.contacts.is_empty() && !neighbours.discover;
        let view = self.inner.engine().endpoint.first_view(group, member, &spec, founds);
        let view = LocalView::new(view, incarnation)?;
        let group = self.open_among(view, neighbours)?;
        let next = self.inner.engine().endpoint.channel_options(2);
        self.inner.prepare(&next);
        Ok(group)
    }

    /// As [`Driver::open`], and looks for others at the neighbours. The address of a view that is agreed on must be bound
    /// for that ([`Driver::bind`]).
    ///
    /// # Errors
    /// [`OpenError`]; nothing stays open then.
    pub fn open_among(&mut self, view: LocalView, neighbours: Neighbours) -> Result<GroupKey, OpenError> {
        self.check(&neighbours, &view.member(view.rank()).address)?;
        let options = self.inner.engine().endpoint.channel_options(view.size());
        let channel = self.inner.open(&view, &options)?;
        let (id, caps, now) = (channel.id, self.inner.transport().caps(), self.inner.now());
        let endpoint = &mut self.inner.engine_mut().endpoint;
        match endpoint.install_among(view, neighbours, channel, &caps, now) {
            Ok(group) => Ok(group),
            Err(error) => {
                self.inner.close(id);
                Err(error.into())
            }
        }
    }

    /// Who is to be discovered can be, and contacts can be reached from `own`.
    fn check(&self, neighbours: &Neighbours, own: &Address) -> Result<(), OpenError> {
        let transport = self.inner.transport();
        let caps = transport.caps();
        if let (Err(remedy), true) = (transport.discovers(), neighbours.discover) {
            return Err(OpenError::NoDiscovery { transport: caps.name, remedy });
        }
        let refused = |contact| caps.addresses.check_contact(own, contact).err();
        match neighbours.contacts.iter().find_map(refused) {
            Some(why) => Err(OpenError::BadContact { own: own.clone(), why }),
            None => Ok(()),
        }
    }

    /// Makes this process reachable outside any view, for the members of other views of the group.
    ///
    /// # Errors
    /// As [`Transport::bind`].
    pub fn bind(&mut self, group: GroupId, address: &Address) -> Result<Address, OpenError> {
        Ok(self.inner.bind(group, address)?)
    }

    /// Another thread's way to this driver's groups. Clones are cheap.
    pub fn handle(&self) -> Handle {
        self.inner.engine().commands.handle()
    }

    /// Pins the thread if asked, and runs until the last of the driver's groups is over, or a handle or the application
    /// ([`Group::stop`]) says stop. A driver without a group waits for that.
    ///
    /// # Errors
    /// If the thread cannot be pinned; nothing was run then.
    pub fn run(&mut self) -> Result<Ended, super::PinError> {
        if let Some(core) = self.core {
            pin(core)?;
        }
        loop {
            let member = self.inner.engine_mut();
            if let Some(reason) = member.endpoint.over() {
                return Ok(Ended::Over(reason));
            }
            if member.endpoint.take_stop() || member.commands.stopped() {
                return Ok(Ended::Stopped);
            }
            self.inner.run_once();
        }
    }

    /// One iteration. Whether anything was received or sent.
    #[inline]
    pub fn run_once(&mut self) -> bool {
        self.inner.run_once()
    }

    /// Runs until `done` says so, which is asked after every iteration, or until `limit` has passed. Whether it was
    /// `done`.
    pub fn run_until(&mut self, limit: Duration, done: impl FnMut(&mut Member<A>) -> bool) -> bool {
        self.inner.run_until(limit, done)
    }

    /// The driver was not run on purpose: what passed since the last iteration is no pause.
    pub fn resume(&mut self) {
        self.inner.resume();
    }

    /// A group, to act on between iterations.
    #[inline]
    pub fn group(&mut self, key: GroupKey) -> Group<'_> {
        self.inner.engine_mut().endpoint.group(key)
    }

    /// Lets go of a group that is over. Whether it was: see [`Endpoint::forget`].
    ///
    /// # Panics
    /// If the endpoint has no group by that key.
    pub fn forget(&mut self, key: GroupKey) -> bool {
        self.inner.engine_mut().endpoint.forget(key)
    }

    /// The groups that are not forgotten, in no particular order.
    pub fn groups(&self) -> impl Iterator<Item = GroupKey> {
        self.inner.engine().endpoint.groups()
    }

    /// The application.
    pub fn application(&self) -> &A {
        &self.inner.engine().application
    }

    /// The application, to act on between iterations.
    #[inline]
    pub fn application_mut(&mut self) -> &mut A {
        &mut self.inner.engine_mut().application
    }

    /// The endpoint, the application and the ring together.
    #[inline]
    pub fn member_mut(&mut self) -> &mut Member<A> {
        self.inner.engine_mut()
    }

    /// What a group did so far.
    pub fn stats(&self, key: GroupKey) -> Stats {
        self.inner.engine().endpoint.stats(key)
    }

    /// Frames dropped before any group saw them, by reason.
    pub fn dropped(&self) -> Dropped {
        self.inner.engine().endpoint.dropped()
    }

    /// What the loop did so far, own pauses included.
    pub fn loop_stats(&self) -> LoopStats {
        self.inner.stats()
    }

    /// What the transport did so far.
    pub fn transport_counters(&self) -> TransportCounters {
        self.inner.transport_counters()
    }

    /// The time of the present or last iteration.
    pub fn now(&self) -> Time {
        self.inner.now()
    }

    /// The loop, for what is not offered here.
    pub fn inner(&self) -> &Loop<T, Member<A>> {
        &self.inner
    }
}

impl<A: Application> Member<A> {
    /// The application.
    pub fn application(&self) -> &A {
        &self.application
    }

    /// A group and the application, to act on both.
    #[inline]
    pub fn split(&mut self, key: GroupKey) -> (Group<'_>, &mut A) {
        (self.endpoint.group(key), &mut self.application)
    }

    /// Answers those who ask how a group is doing.
    #[cold]
    fn answer(&mut self, transport: TransportCounters) {
        for Question { group: key, answer } in std::mem::take(&mut self.questions) {
            if !self.endpoint.has_group(key) {
                continue;
            }
            let (stats, dropped) = (self.endpoint.stats(key), self.endpoint.dropped());
            let group = self.endpoint.group(key);
            let view = group.view();
            let report = Report {
                stack: view.view().spec.clone(),
                view: view.view().id.to_string(),
                rank: view.rank().0,
                members: view.size(),
                stats,
                dropped,
                transport,
            };
            // Who does not wait any more needs no answer.
            let _ = answer.try_send(report);
        }
    }

    /// Hands waiting commands to their groups. What a group cannot take yet is held, and with it what comes for that group
    /// behind it; other groups' go on.
    fn obey(&mut self) {
        self.questions.extend(std::iter::from_fn(|| self.commands.question()));
        let mut budget = COMMANDS_PER_ITERATION;
        for at in 0..self.held.queues.len() {
            while budget > 0
                && let Some(command) = self.held.queues[at].1.pop_front()
            {
                budget -= 1;
                if let Some(command) = self.carry_out(command) {
                    self.held.queues[at].1.push_front(command);
                    break;
                }
                self.held.commands -= 1;
            }
        }
        while budget > 0
            && let Some(command) = self.commands.take()
        {
            budget -= 1;
            let behind = self.held.commands > 0 && self.held.queue_of(command.group).is_some();
            let wait = if behind { Some(command) } else { self.carry_out(command) };
            wait.into_iter().for_each(|command| self.held.push(command));
        }
    }

    /// Hands a command to its group; returns it if it has to wait.
    fn carry_out(&mut self, command: Command) -> Option<Command> {
        if !self.endpoint.has_group(command.group) {
            self.commands.refuse(&command, "this endpoint has no such group".to_owned());
            self.commands.recycle(command);
            return None;
        }
        let mut group = self.endpoint.group(command.group);
        let (bytes, live) = (&command.letter.bytes, group.is_live());
        let cast =
            |taken: Result<Ticket, CastError>| taken.map(drop).map_err(|error| Refused::cast(error, live));
        let outcome = match command.goes {
            Goes::Cast => cast(group.cast(bytes)),
            Goes::Agreed => cast(group.agreed().cast(bytes)),
            Goes::Send => ranks_of(&group, &command.letter.to)
                .and_then(|ranks| group.send(&ranks, bytes).map_err(|error| Refused::send(error, live))),
        };
        match outcome {
            Ok(()) => {}
            Err(Refused::ForNow) => return Some(command),
            Err(Refused::ForGood(why)) => self.commands.refuse(&command, why),
        }
        self.commands.recycle(command);
        None
    }
}

/// The ranks of these processes in the view that is in force now.
fn ranks_of(group: &Group<'_>, to: &[Incarnation]) -> Result<RankSet, Refused> {
    let view = group.view();
    let rank_of = |incarnation: &Incarnation| {
        let gone = || {
            let id = view.view().id;
            Refused::ForGood(format!(
                "{incarnation} is not in view {id}: it has gone, or was never there; nothing was sent"
            ))
        };
        view.rank_of(*incarnation).ok_or_else(gone)
    };
    to.iter().map(rank_of).collect()
}

/// How a group refused a command.
enum Refused {
    /// For want of credit, frames or numbers: it is tried again.
    ForNow,
    /// It would never be taken.
    ForGood(String),
}

impl Refused {
    /// Where views follow each other, the next one has numbers again.
    fn cast(error: CastError, live: bool) -> Refused {
        match error {
            CastError::Full { .. } | CastError::NoFrame(_) => Refused::ForNow,
            CastError::NumberLimit if live => Refused::ForNow,
            CastError::TooLong { .. }
            | CastError::BeyondFrame { .. }
            | CastError::NumberLimit
            | CastError::Exited(_) => Refused::ForGood(error.to_string()),
        }
    }

    /// As [`Refused::cast`].
    fn send(error: SendError, live: bool) -> Refused {
        match error {
            SendError::Full { .. } | SendError::NoFrame(_) => Refused::ForNow,
            SendError::NumberLimit(_) if live => Refused::ForNow,
            SendError::TooLong { .. }
            | SendError::NumberLimit(_)
            | SendError::NoLayer
            | SendError::NotAMember(_)
            | SendError::Exited(_) => Refused::ForGood(error.to_string()),
        }
    }
}

impl<A: Application> Engine for Member<A> {
    #[inline]
    fn receive(&mut self, received: Received, _now: Time) {
        self.has_full |= crate::wire::word(received.bytes(), 0).is_some_and(|first| first & FULL_FLAG != 0);
        self.arrived.push(received);
    }

    /// What no plan takes may be a letter that says that the others have gone on without this process.
    #[inline]
    fn wants_time(&mut self) -> bool {
        std::mem::take(&mut self.has_full)
    }

    #[inline]
    fn received(&mut self, now: Time, enough: &mut dyn FnMut() -> bool) {
        self.endpoint.receive_until(&mut self.arrived, now, &mut self.application, enough);
    }

    #[inline]
    fn left(&self) -> usize {
        self.arrived.len()
    }

    fn more_has_come(&mut self, now: Time) {
        self.endpoint.more_has_come(now);
    }

    #[inline]
    fn poll(&mut self, now: Time) {
        if self.held.commands > 0 || !self.commands.is_empty() {
            self.obey();
        }
        self.endpoint.poll(now, &mut self.application);
    }

    #[inline]
    fn transmit(&mut self) -> Option<Transmit> {
        self.endpoint.transmit()
    }

    #[inline]
    fn transmit_cast(&mut self) -> Option<(ChannelId, Frame)> {
        self.endpoint.transmit_cast()
    }

    #[inline]
    fn give_back(&mut self, transmit: Transmit) {
        self.endpoint.give_back(transmit);
    }

    #[inline]
    fn deadline(&self) -> Time {
        self.endpoint.deadline()
    }

    #[inline]
    fn set_busy(&mut self, channel: ChannelId, busy: bool) {
        self.endpoint.set_busy(channel, busy);
    }

    fn request(&mut self) -> Option<Request> {
        self.endpoint.request()
    }

    fn opened(&mut self, group: GroupKey, opened: Result<(Channel, Caps), String>, now: Time) {
        self.endpoint.opened(group, opened, now, &mut self.application);
    }

    fn make_room(&mut self) -> bool {
        self.endpoint.make_room()
    }

    fn room(&mut self, room_for: RoomFor<'_>) {
        self.endpoint.room(room_for);
    }

    fn excluded(&mut self, group: GroupKey, channel: ChannelId, rank: Rank, intact: &dyn Fn(&Frame) -> bool) {
        self.endpoint.excluded(group, channel, rank, intact);
    }

    fn gone(&mut self, group: GroupKey, channel: ChannelId, ranks: RankSet) {
        self.endpoint.gone(group, channel, ranks, &mut self.application);
    }

    fn starved(&mut self, group: GroupKey, channel: ChannelId, ranks: RankSet) {
        self.endpoint.starved(group, channel, ranks, &mut self.application);
    }

    fn parted(&mut self, group: GroupKey, channel: ChannelId, ranks: RankSet) {
        self.endpoint.parted(group, channel, ranks, &mut self.application);
    }

    #[inline]
    fn report(&mut self, counters: &dyn Fn() -> TransportCounters) {
        if !self.questions.is_empty() {
            self.answer(counters());
        }
    }

    fn noted(&mut self, note: &str) {
        self.endpoint.noted(note, &mut self.application);
    }

    fn before_wait(&mut self) -> bool {
        // A held command waits for frames or time, both of which end the wait.
        self.commands.before_wait()
    }

    fn after_wait(&mut self) {
        self.commands.after_wait();
    }
}

/// Commands taken from the ring in one iteration: enough to fill packs, few enough not to starve reception.
/// Room for so many frames that come in one iteration is made beforehand.
const ARRIVED_MAX: usize = 1024;
const COMMANDS_PER_ITERATION: usize = 256;

/// A number that no other process draws, but by one chance in four thousand million.
fn draw_life() -> Life {
    Life((draw() as u32).max(1))
}

/// An incarnation that hardly any other life of a process has: the time, to about four seconds, and 32 bits drawn at random.
/// It needs neither a clock that is right nor processes that start at different times.
pub fn fresh_incarnation() -> Incarnation {
    const DRAWN: u64 = 0xffff_ffff;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    Incarnation(now & !DRAWN | draw() & DRAWN)
}

/// The standard library seeds its hash maps from the system's random source.
fn draw() -> u64 {
    RandomState::new().build_hasher().finish()
}
