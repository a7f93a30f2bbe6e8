//! The sans-IO endpoint: frames and time in; frames, deliveries and deadlines out (design D5).
//!
//! An endpoint knows no clock, socket or thread. Whoever drives it (the runtime, the simulator, a test) reads the
//! clock, moves frames between it and a transport, and calls [`Endpoint::poll`] once per iteration and not later than
//! [`Endpoint::deadline`].

mod strangers;
mod views;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::accel::cookie::{CookieTable, Meaning, NoMeaning};
use crate::buf::Frame;
use crate::config::{Config, ConfigError};
use crate::group::{Application, Group};
use crate::id::{GroupId, Hasher64, Incarnation, Life, MEMBERS_MAX, Rank};
use crate::stack::event::{ExitReason, List, Message};
use crate::stack::registry::Registry;
use crate::stack::run::{InstallError, Specs, Stack};
use crate::stats::Stats;
use crate::time::Time;
use crate::transport::{Caps, Channel, ChannelId, ChannelOptions, Outside, Received, Transmit};
use crate::view::{LocalView, Member, Neighbours, View};
use crate::wire::full::{FullError, NO_CONTROL, Prefix, STACK_CONTROL};
use crate::wire::outside::{Assembler, OUTSIDE_CONTROL};
use crate::wire::{COOKIE_MASK, FULL_FLAG, Traffic, WIRE_VERSION};

/// A group of an endpoint. It names its endpoint too: another endpoint's key is refused, not taken for another group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupKey {
    /// Follows from the endpoint's incarnation.
    pub(crate) endpoint: u32,
    pub(crate) index: u32,
    /// How many groups had that index before.
    pub(crate) before: u32,
}

/// Frames dropped before any stack saw them, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Shorter than a header.
    pub short: u64,
    /// Not Wadjet's, or with an unknown code.
    pub foreign: u64,
    /// Another wire version.
    pub version: u64,
    /// A cookie nobody here knows, nor, while a view was expected, the one that came.
    pub unknown_cookie: u64,
    /// A cookie that stands for two things.
    pub collided_cookie: u64,
    /// A group or view this endpoint is not in.
    pub other_view: u64,
    /// From somebody who is not a member.
    pub not_a_member: u64,
    /// From another stack.
    pub other_stack: u64,
    /// Fields or payload that do not decode.
    pub malformed: u64,
    /// This member's own frames, reflected by the network.
    pub own: u64,
    /// Frames for a group that has exited.
    pub exited: u64,
}

impl Dropped {
    /// Each reason in words, and how often.
    pub fn by_reason(&self) -> [(&'static str, u64); 11] {
        let Dropped {
            short,
            foreign,
            version,
            unknown_cookie,
            collided_cookie,
            other_view,
            not_a_member,
            other_stack,
            malformed,
            own,
            exited,
        } = *self;
        [
            ("short", short),
            ("foreign", foreign),
            ("version", version),
            ("unknown cookie", unknown_cookie),
            ("collided cookie", collided_cookie),
            ("other view", other_view),
            ("not a member", not_a_member),
            ("other stack", other_stack),
            ("malformed", malformed),
            ("own", own),
            ("exited", exited),
        ]
    }
}

/// What an endpoint wants of its transport, beside frames to be moved. Whoever drives it does as asked, in order.
#[derive(Debug)]
pub enum Request {
    /// Open the channel of the next view, and tell [`Endpoint::opened`].
    Open {
        /// The group.
        group: GroupKey,
        /// Its next view.
        view: LocalView,
        /// What to ask for.
        options: ChannelOptions,
    },
    /// Close a channel: its view is past, or the group is over.
    Close(ChannelId),
    /// Exclude a member from a channel, and tell [`Endpoint::excluded`].
    Exclude {
        /// The group.
        group: GroupKey,
        /// The channel.
        channel: ChannelId,
        /// Who.
        rank: Rank,
    },
    /// Tell [`Endpoint::gone`] which members' processes are known to be gone, [`Endpoint::starved`] who waits for a processor,
    /// and [`Endpoint::parted`] who takes no part in the view with this member any more.
    Hint {
        /// The group.
        group: GroupKey,
        /// The channel.
        channel: ChannelId,
    },
    /// Send bytes outside any view.
    Outside {
        /// The group.
        group: GroupId,
        /// To whom.
        to: Outside,
        /// What.
        bytes: Vec<u8>,
    },
}

/// Requests for which there is room from the start: what is asked for between two looks of the runtime while no view changes.
const REQUESTS: usize = 16;

/// Frames that may be held for a view that is being installed; further ones are dropped and repaired.
const AHEAD_FRAMES_MAX: usize = 64;

/// A timer that has not run by so long after its time is late.
pub(crate) const LATE: Duration = Duration::from_millis(1);

/// A frame that may be of the next view.
struct Ahead {
    received: Received,
    /// It is let go of then, if no view comes before.
    until: Time,
}

/// A channel of a past view: what was still to be sent in it goes out, and who is still in it is heard.
struct Retired {
    channel: ChannelId,
    outbox: VecDeque<Transmit>,
    until: Time,
}

/// How many members a view may have as far as a transport is concerned, and why no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) members_max: usize,
    pub(crate) why: String,
}

impl Default for Room {
    /// For whatever the configuration allows.
    fn default() -> Room {
        Room { members_max: MEMBERS_MAX, why: String::new() }
    }
}

/// A process's place in its groups.
pub struct Endpoint {
    config: Config,
    /// How many members a view may have as far as the configuration is concerned.
    members_max: usize,
    specs: Specs,
    incarnation: Incarnation,
    /// What this endpoint's keys carry.
    number: u32,
    life: Life,
    stacks: Vec<Stack>,
    /// By index: groups forgotten there. Keys of the past are told by it.
    forgotten: Vec<u32>,
    /// Indices whose group is forgotten: the next groups get them.
    vacant: Vec<u32>,
    /// The highest counter of a view id that this incarnation has used in a group that is forgotten.
    used: Option<u64>,
    cookies: CookieTable,
    dropped: Dropped,
    now: Time,
    /// Where what is left of the frames of a batch is put together; empty.
    left: Vec<Received>,
    /// When more had come than was taken in, last.
    more_came: Time,
    /// A view was installed and the application has not been told.
    untold: bool,
    /// Stacks whose channel could not take a frame in this iteration.
    full: Vec<bool>,
    /// The stack whose turn it is to transmit.
    turn: usize,
    retired: Vec<Retired>,
    /// How many members a view may have as far as the transport is concerned, and why no more.
    room: Room,
    requests: VecDeque<Request>,
    /// Frames with cookies that may be those of the next view, in the order in which they came.
    ahead: Vec<Ahead>,
    letters: Assembler,
    letters_written: u32,
    /// Why the group that ended last did.
    last_exit: Option<ExitReason>,
    /// An application has asked for the end of the loop.
    stop: bool,
    #[cfg(feature = "laboratory")]
    cookie_mask: u64,
}

impl Endpoint {
    /// An endpoint with the layers of this library.
    ///
    /// # Errors
    /// If the configuration makes no sense.
    pub fn new(config: Config, incarnation: Incarnation) -> Result<Endpoint, ConfigError> {
        Endpoint::with_registry(config, incarnation, Registry::standard())
    }

    /// An endpoint with layers of the application's choice.
    ///
    /// # Errors
    /// If the configuration makes no sense.
    pub fn with_registry(
        config: Config,
        incarnation: Incarnation,
        registry: Registry,
    ) -> Result<Endpoint, ConfigError> {
        config.check()?;
        Ok(Endpoint {
            members_max: config.members_max(),
            config,
            specs: Specs::new(registry),
            incarnation,
            number: number_of(incarnation),
            life: Life::NONE,
            stacks: Vec::new(),
            forgotten: Vec::new(),
            vacant: Vec::new(),
            used: None,
            cookies: CookieTable::new(),
            dropped: Dropped::default(),
            now: Time::ZERO,
            left: Vec::new(),
            more_came: Time::ZERO,
            untold: false,
            full: Vec::new(),
            turn: 0,
            retired: Vec::new(),
            room: Room::default(),
            // Asking for hints is of the steady state: a member whose process has no processor for a moment has it done.
            requests: VecDeque::with_capacity(REQUESTS),
            ahead: Vec::new(),
            letters: Assembler::default(),
            letters_written: 0,
            last_exit: None,
            stop: false,
            #[cfg(feature = "laboratory")]
            cookie_mask: u64::MAX,
        })
    }

    /// Which life of which process this is.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Says which start of its incarnation this is: a number drawn at random by whoever drives the endpoint, before views
    /// are installed. A second process under the same incarnation and view then exits ([`ExitReason::OtherLife`]).
    pub fn set_life(&mut self, life: Life) {
        self.life = life;
    }

    /// Which start of its incarnation this is.
    pub fn life(&self) -> Life {
        self.life
    }

    /// What to ask of a transport for a view of `members` members. Each region is a sum over its holders.
    pub fn channel_options(&self, members: usize) -> ChannelOptions {
        self.config.channel_options(members)
    }

    /// Installs a view and its stack over an open channel.
    ///
    /// # Errors
    /// [`InstallError`]; nothing was installed then.
    pub fn install(
        &mut self,
        view: LocalView,
        channel: Channel,
        caps: &Caps,
        now: Time,
    ) -> Result<GroupKey, InstallError> {
        self.install_among(view, Neighbours::default(), channel, caps, now)
    }

    /// As [`Endpoint::install`]; a stack that agrees on views looks for others at the neighbours.
    ///
    /// # Errors
    /// [`InstallError`]; nothing was installed then.
    pub fn install_among(
        &mut self,
        view: LocalView,
        neighbours: Neighbours,
        channel: Channel,
        caps: &Caps,
        now: Time,
    ) -> Result<GroupKey, InstallError> {
        self.now = now;
        let own = view.member(view.rank()).incarnation;
        if own != self.incarnation {
            return Err(InstallError::OtherIncarnation { view: own, endpoint: self.incarnation });
        }
        self.config.check_regions(view.size())?;
        let neighbours = Rc::new(neighbours);
        let (config, specs, view) = (&self.config, &mut self.specs, Rc::new(view));
        let mut stack = Stack::new(config, specs, view, neighbours, channel, caps, Vec::new(), now)?;
        stack.set_room(&self.room);
        stack.tell_slow_paths();
        #[cfg(feature = "laboratory")]
        let stack = stack.with_cookies_masked(self.cookie_mask);
        let mut stack = stack;
        let group = stack.core().view.view().group;
        if stack.is_live() && self.is_there(group) {
            return Err(InstallError::AlreadyThere(group));
        }
        let core = &mut stack.engine.core;
        core.gossip.introduce(core.view.rank(), self.life, core.view.others().collect(), now);
        let index = match self.vacant.pop() {
            Some(index) => {
                self.stacks[index as usize] = stack;
                self.full[index as usize] = false;
                index
            }
            None => {
                self.stacks.push(stack);
                self.full.push(false);
                self.forgotten.push(0);
                self.stacks.len() as u32 - 1
            }
        };
        self.untold = true;
        self.learn_cookies();
        self.ask_identification(None);
        Ok(self.key(index as usize))
    }

    /// Whether this endpoint has a group whose views are agreed on, or had it and has not forgotten it.
    pub(crate) fn is_there(&self, group: GroupId) -> bool {
        let there = |(index, stack): (usize, &Stack)| {
            !self.vacant.contains(&(index as u32))
                && stack.is_live()
                && stack.core().view.view().group == group
        };
        self.stacks.iter().enumerate().any(there)
    }

    /// The view with which this process begins to take part in a group: alone, as `member`. Who `founds` the group has a later
    /// one than who looks for it: of two processes that are alone, it lets the other one in. It is later than all views of
    /// groups that this endpoint has forgotten: no view id is used twice.
    pub fn first_view(&self, group: GroupId, member: Member, spec: &str, founds: bool) -> View {
        let mut view =
            if founds { View::fixed(group, vec![member], spec) } else { View::alone(group, member, spec) };
        view.id.counter += self.used.map_or(0, |used| used + 1);
        view
    }

    /// Whether processes with this stack agree on views, over a transport that is capable of this: then one of them can join.
    ///
    /// # Errors
    /// If the specification is refused.
    pub(crate) fn agrees_on_views(&mut self, spec: &str, caps: &Caps) -> Result<bool, InstallError> {
        Ok(self.specs.check(spec, caps)?.agrees_on_views())
    }

    fn key(&self, index: usize) -> GroupKey {
        GroupKey { endpoint: self.number, index: index as u32, before: self.forgotten[index] }
    }

    /// Lets go of a group that is over ([`Event::Exit`] has been told): its key means nothing from now on. Its
    /// memory is let go of when the next group is installed, which takes its place: there are never more of them than groups
    /// at once. Whether it was over; if not, nothing was done.
    ///
    /// [`Event::Exit`]: crate::group::Event::Exit
    ///
    /// # Panics
    /// If the endpoint has no group by that key ([`Endpoint::has_group`]).
    pub fn forget(&mut self, key: GroupKey) -> bool {
        if !self.stack(key).is_over() {
            return false;
        }
        if self.stack(key).is_live() {
            self.used = self.used.max(Some(self.stack(key).core().counter_used));
        }
        self.forgotten[key.index as usize] += 1;
        self.vacant.push(key.index);
        true
    }

    /// The groups that are not forgotten, in no particular order.
    pub fn groups(&self) -> impl Iterator<Item = GroupKey> {
        let there = |index: &usize| !self.vacant.contains(&(*index as u32));
        (0..self.stacks.len()).filter(there).map(|index| self.key(index))
    }

    /// Why the last of this endpoint's groups ended, once all of them are over: the application has been told, and
    /// everything has gone out. `None` while there is one that goes on, or if there never was one.
    #[inline]
    pub fn over(&self) -> Option<ExitReason> {
        self.last_exit.filter(|_| self.stacks.iter().all(Stack::is_over))
    }

    /// Whether an application has asked for the end of the loop ([`Group::stop`]) since this was asked last.
    #[inline]
    pub fn take_stop(&mut self) -> bool {
        std::mem::take(&mut self.stop)
    }

    /// Enters the cookies of all views that are in force.
    fn learn_cookies(&mut self) {
        self.cookies = CookieTable::new();
        for (index, stack) in self.stacks.iter().enumerate() {
            let core = stack.core();
            for origin in core.view.others() {
                for traffic in [Traffic::Cast, Traffic::Send] {
                    let meaning = Meaning { stack: index as u32, origin, traffic };
                    self.cookies.insert(core.cookies[origin.index()][traffic as usize], meaning);
                }
            }
        }
    }

    /// Whether this endpoint has a group by that key.
    #[inline]
    pub fn has_group(&self, key: GroupKey) -> bool {
        key.endpoint == self.number && self.forgotten.get(key.index as usize) == Some(&key.before)
    }

    /// Why there is no group by that key.
    #[cold]
    fn no_group(&self, key: GroupKey) -> &'static str {
        if key.endpoint == self.number {
            "the group of this key is over and was forgotten; a group that is joined again has a new key"
        } else {
            "the group key is another endpoint's: use the one that this endpoint's `install` gave"
        }
    }

    #[inline]
    fn stack(&self, key: GroupKey) -> &Stack {
        assert!(self.has_group(key), "{}", self.no_group(key));
        &self.stacks[key.index as usize]
    }

    #[inline]
    fn stack_mut(&mut self, key: GroupKey) -> &mut Stack {
        assert!(self.has_group(key), "{}", self.no_group(key));
        &mut self.stacks[key.index as usize]
    }

    /// A group, to act on.
    ///
    /// # Panics
    /// If the key is another endpoint's, or its group is forgotten ([`Endpoint::has_group`]).
    #[inline]
    pub fn group(&mut self, key: GroupKey) -> Group<'_> {
        Group::new(self.stack_mut(key))
    }

    /// Takes one frame that has arrived. Deliveries and what follows from them are told to `app` before it returns.
    #[inline]
    pub fn receive(&mut self, received: Received, now: Time, app: &mut dyn Application) {
        let before = std::mem::replace(&mut self.now, now);
        if self.untold {
            self.tell_views(app);
        }
        if now > before + LATE {
            self.late(app);
        }
        let bytes = received.bytes();
        let Some(first) = crate::wire::word(bytes, 0) else {
            self.dropped.short += 1;
            return;
        };
        if first & FULL_FLAG != 0 {
            self.full(received, app);
            return;
        }
        match self.cookies.get(first & COOKIE_MASK) {
            Ok(&Meaning { stack, origin, traffic }) => {
                let stack = &mut self.stacks[stack as usize];
                if stack.exited().is_some() {
                    self.dropped.exited += 1;
                    return;
                }
                stack.engine.core.now = now;
                stack.fast_frame(traffic, origin, first, received, app);
            }
            Err(NoMeaning::Unknown) => self.unknown_cookie(received),
            Err(NoMeaning::Collided) => {
                self.dropped.collided_cookie += 1;
                self.ask_identification(Some(first & COOKIE_MASK));
            }
        }
    }

    /// Takes all `frames`, which have arrived in this order, as [`Endpoint::receive`] takes one, and leaves none. Casts of one
    /// member that are what was expected are taken in together, which costs a good deal less for each, and delivered then.
    #[inline]
    pub fn receive_all(&mut self, frames: &mut Vec<Received>, now: Time, app: &mut dyn Application) {
        self.receive_until(frames, now, app, || false);
    }

    /// As [`Endpoint::receive_all`], until it is `enough`, which is asked between frames or runs of them: what is left stays in
    /// `frames`.
    #[inline]
    pub fn receive_until(
        &mut self,
        frames: &mut Vec<Received>,
        now: Time,
        app: &mut dyn Application,
        mut enough: impl FnMut() -> bool,
    ) {
        if now > self.now + LATE {
            self.now = now;
            self.late(app);
        }
        if self.left.capacity() < frames.len() {
            self.left.reserve_exact(frames.capacity());
        }
        let mut rest = frames.drain(..);
        let mut begun = false;
        while let Some(next) = rest.as_slice().first() {
            if std::mem::replace(&mut begun, true) && enough() {
                self.left.extend(rest);
                std::mem::swap(frames, &mut self.left);
                return;
            }
            if rest.len() > 1
                && let Some(first) = crate::wire::word(next.bytes(), 0)
                && let Ok(&Meaning { stack, origin, traffic: Traffic::Cast }) = self.cookies.get(first)
                && !self.untold
            {
                let stack = &mut self.stacks[stack as usize];
                stack.engine.core.now = now;
                if stack.exited().is_none()
                    && let Some((number, taken)) = stack.accept_run(origin, rest.as_slice())
                {
                    self.now = now;
                    stack.deliver_run(origin, number, rest.by_ref().take(taken), app);
                    continue;
                }
            }
            if let Some(received) = rest.next() {
                self.receive(received, now, app);
            }
        }
    }

    /// This process may not have run for a while: that is told before what has come since is taken in.
    #[cold]
    fn late(&mut self, app: &mut dyn Application) {
        if self.untold {
            self.tell_views(app);
        }
        self.stacks.iter_mut().for_each(|stack| stack.late(self.now, app));
    }

    /// Asks those whose frames cannot be told apart, by one cookie or by any, to identify themselves fully.
    #[cold]
    fn ask_identification(&mut self, cookie: Option<u64>) {
        for (collided, Meaning { stack, origin, traffic }) in self.cookies.collisions() {
            if cookie.is_none_or(|cookie| cookie == *collided) {
                self.stacks[*stack as usize].ask_identification(*origin, *traffic, self.now);
            }
        }
    }

    /// The view is told before anything is delivered in it.
    #[cold]
    fn tell_views(&mut self, app: &mut dyn Application) {
        self.untold = false;
        self.stacks.iter_mut().for_each(|stack| stack.drain(app));
    }

    #[cold]
    fn full(&mut self, received: Received, app: &mut dyn Application) {
        let bytes = received.bytes();
        let (prefix, fields, payload) = match Prefix::decode(bytes) {
            Ok(decoded) => decoded,
            Err(FullError::Short) => {
                self.dropped.short += 1;
                return;
            }
            Err(FullError::Version(version)) => {
                self.other_version(&received, version, app);
                return;
            }
            Err(FullError::Magic | FullError::Code) => {
                self.dropped.foreign += 1;
                return;
            }
        };
        let identification = prefix.identification;
        if prefix.control == OUTSIDE_CONTROL {
            self.letter(&received, &prefix, WIRE_VERSION, app);
            return;
        }
        let belongs = |stack: &Stack| {
            let view = stack.core().view.view();
            view.group == identification.group && view.id == identification.view
        };
        let Some(stack) = self.stacks.iter_mut().find(|stack| belongs(stack)) else {
            self.dropped.other_view += 1;
            let of_group = |stack: &&mut Stack| {
                stack.is_live()
                    && stack.exited().is_none()
                    && stack.core().view.view().group == identification.group
            };
            if let Some(stack) = self.stacks.iter_mut().find(of_group) {
                stack.engine.core.now = self.now;
                stack.stranger(identification.origin, identification.view, app);
            }
            return;
        };
        if stack.exited().is_some() {
            self.dropped.exited += 1;
            return;
        }
        let core = stack.core();
        let origin = core.view.rank_of(identification.origin);
        if identification.stack != core.identification.stack {
            self.dropped.other_stack += 1;
            if let Some(origin) = origin.filter(|origin| *origin != core.view.rank()) {
                strangers::other_stack(stack, origin, identification.stack, app);
            }
            return;
        }
        let Some(origin) = origin else {
            self.dropped.not_a_member += 1;
            return;
        };
        if origin == core.view.rank() {
            self.dropped.own += 1;
            return;
        }
        let layers = core.names.len();
        let control = prefix.control;
        let known = match prefix.traffic {
            Traffic::Cast => control == NO_CONTROL,
            Traffic::Send => control == NO_CONTROL || usize::from(control) < layers,
            Traffic::Raw => control == STACK_CONTROL || usize::from(control) < layers,
        };
        let to = received.to;
        let from = to - payload.len();
        let header = core.layouts[prefix.traffic as usize].read_full(fields);
        let list = List::parse(received.frame, from, to, prefix.pack);
        let (Some(header), Ok(list), true) = (header, list, known) else {
            self.dropped.malformed += 1;
            return;
        };
        stack.engine.core.now = self.now;
        let message = Message { control, header, ..Message::data(prefix.traffic, list) };
        stack.full_frame(origin, message, app);
    }

    /// One iteration: timers, own copies of casts, packs, post-processing.
    #[inline]
    pub fn poll(&mut self, now: Time, app: &mut dyn Application) {
        self.now = now;
        let is_level = self.more_came < now;
        if self.untold {
            self.tell_views(app);
        }
        for index in 0..self.stacks.len() {
            self.full[index] = false;
            let stack = &mut self.stacks[index];
            if is_level {
                stack.engine.core.level_at = now;
            }
            if stack.poll(now, app) && stack.wants_something() {
                self.collect(index);
            }
        }
        if !self.retired.is_empty() {
            self.retire();
        }
        if !self.ahead.is_empty() {
            self.let_go_of_ahead();
        }
    }

    /// The next frame to submit. Groups take turns.
    #[inline]
    pub fn transmit(&mut self) -> Option<Transmit> {
        if let ([stack], [false], true) = (&mut self.stacks[..], &self.full[..], self.retired.is_empty()) {
            return stack.engine.core.next_transmit();
        }
        self.transmit_in_turn()
    }

    /// As [`Endpoint::transmit`], where there is one group and its next frame is a whole one for all others.
    #[inline]
    pub(crate) fn transmit_cast(&mut self) -> Option<(ChannelId, Frame)> {
        let ([stack], [false], true) = (&mut self.stacks[..], &self.full[..], self.retired.is_empty()) else {
            return None;
        };
        let core = &mut stack.engine.core;
        core.next_cast().map(|head| (core.channel, head))
    }

    fn transmit_in_turn(&mut self) -> Option<Transmit> {
        let stacks = self.stacks.len();
        for step in 0..stacks {
            let at = (self.turn + step) % stacks;
            if self.full[at] {
                continue;
            }
            if let Some(transmit) = self.stacks[at].engine.core.next_transmit() {
                self.turn = at + 1;
                return Some(transmit);
            }
        }
        self.retired.iter_mut().find_map(|retired| retired.outbox.pop_front())
    }

    /// The transport was full: the frame is offered again, before others of its channel, after the next
    /// [`Endpoint::poll`]. Those of other channels go on.
    pub fn give_back(&mut self, transmit: Transmit) {
        let of_channel = |stack: &Stack| stack.core().channel == transmit.channel;
        if let Some(at) = self.stacks.iter().position(of_channel) {
            self.full[at] = true;
            self.stacks[at].engine.core.give_back(transmit);
        }
        // What was left of a past view, and does not get out, has been said already or will be asked for.
    }

    /// When [`Endpoint::poll`] must be called at the latest.
    pub fn deadline(&self) -> Time {
        let mut deadline = self.ahead.first().map_or(Time::NEVER, |ahead| ahead.until);
        for retired in &self.retired {
            deadline = deadline.min(retired.until);
        }
        for stack in &self.stacks {
            deadline = deadline.min(stack.deadline());
        }
        deadline
    }

    /// Whether a frame sent on the channel now would only wait: then small messages are packed.
    #[inline]
    pub fn set_busy(&mut self, channel: ChannelId, busy: bool) {
        for stack in self.stacks.iter_mut().filter(|stack| stack.core().channel == channel) {
            stack.was_busy = std::mem::replace(&mut stack.busy, busy);
        }
    }

    /// More has come, or may have, than is taken in before [`Endpoint::poll`] at `now`: what others have not said or done, as far
    /// as this process knows, may be waiting.
    pub fn more_has_come(&mut self, now: Time) {
        self.more_came = now;
    }

    /// What a group's stack did so far.
    ///
    /// # Panics
    /// If the key is another endpoint's, or its group is forgotten.
    pub fn stats(&self, key: GroupKey) -> Stats {
        self.stack(key).stats()
    }

    /// Frames dropped before any stack saw them.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Where plans and layers disagreed so far ([`Shadow::Record`](crate::config::Shadow)).
    ///
    /// # Panics
    /// If the key is another endpoint's, or its group is forgotten.
    pub fn divergences(&self, key: GroupKey) -> &[String] {
        &self.stack(key).divergences
    }

    /// Scrambles one word of the slot file, chosen by `seed`: a test of whether slots are what the layers use.
    ///
    /// # Panics
    /// If the key is another endpoint's, or its group is forgotten.
    #[cfg(feature = "laboratory")]
    pub fn scramble_slot(&mut self, key: GroupKey, seed: u64) {
        let at = (seed % u64::from(self.slot_words(key))) as u32;
        self.scramble_word(key, at, seed.rotate_left(17) | 1);
    }

    /// From here on the cookies of groups that are installed keep only their lowest `bits`, so that many are equal. The
    /// other members' must be narrowed too.
    #[cfg(feature = "laboratory")]
    pub fn narrow_cookies(&mut self, bits: u32) {
        self.cookie_mask = crate::wire::bits::low_bits(bits);
    }

    /// From here on a group uses its plans wrongly, in this view and those that follow.
    ///
    /// # Panics
    /// If the key is another endpoint's, or its group is forgotten.
    #[cfg(feature = "laboratory")]
    pub fn break_accelerator(&mut self, key: GroupKey, broken: crate::accel::broken::Broken) {
        self.stack_mut(key).broken = broken;
    }

    /// How many words the slot file has.
    ///
    /// # Panics
    /// If the key is another endpoint's, or its group is forgotten.
    #[cfg(feature = "laboratory")]
    pub fn slot_words(&self, key: GroupKey) -> u32 {
        self.stack(key).core().slots.words() as u32
    }

    /// What a word of the slot file is, as far as it can be told: `of 1: cast-deliver word 0`, say.
    ///
    /// # Panics
    /// If the key is another endpoint's, or its group is forgotten.
    #[cfg(feature = "laboratory")]
    pub fn slot_name(&self, key: GroupKey, at: u32) -> String {
        self.stack(key).core().slot_name(at)
    }

    /// Changes the bits of `mask` in one word of the slot file.
    ///
    /// # Panics
    /// If the key is another endpoint's, its group is forgotten, or there is no such word.
    #[cfg(feature = "laboratory")]
    pub fn scramble_word(&mut self, key: GroupKey, at: u32, mask: u64) {
        let core = &mut self.stack_mut(key).engine.core;
        *core.slots.word_mut(at) ^= mask;
        core.ceiling = 0;
    }

    /// This member's rank in a group.
    ///
    /// # Panics
    /// If the key is another endpoint's, or its group is forgotten.
    pub fn rank(&self, key: GroupKey) -> Rank {
        self.stack(key).core().view.rank()
    }
}

/// Tells this process's endpoints apart, and those of other processes.
fn number_of(incarnation: Incarnation) -> u32 {
    let mut hasher = Hasher64::new(0x656e_6470_6f69_6e74);
    hasher.word(incarnation.0);
    hasher.finish() as u32
}
