//! The sans-IO endpoint: frames and time in; frames, deliveries and deadlines out (design D5).
//!
//! An endpoint knows no clock, socket or thread. Whoever drives it (the runtime, the simulator, a test) reads the
//! clock, moves frames between it and a transport, and calls [`Endpoint::poll`] once per iteration and not later than
//! [`Endpoint::deadline`].

use crate::accel::cookie::{CookieTable, Meaning, NoMeaning};
use crate::config::{Config, ConfigError};
use crate::group::{Application, Group};
use crate::id::{Incarnation, Rank};
use crate::stack::event::{List, Message};
use crate::stack::registry::Registry;
use crate::stack::run::{InstallError, Stack};
use crate::stats::Stats;
use crate::time::Time;
use crate::transport::{Caps, Channel, ChannelId, ChannelOptions, Received, Transmit};
use crate::view::LocalView;
use crate::wire::full::{FullError, NO_CONTROL, Prefix, STACK_CONTROL};
use crate::wire::{COOKIE_MASK, FULL_FLAG, Traffic};

/// A group of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupKey(pub(crate) u32);

/// Frames dropped before any stack saw them, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Shorter than a header.
    pub short: u64,
    /// Not Wadjet's, or with an unknown code.
    pub foreign: u64,
    /// Another wire version.
    pub version: u64,
    /// A cookie nobody here knows.
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

/// A process's place in its groups.
pub struct Endpoint {
    config: Config,
    registry: Registry,
    incarnation: Incarnation,
    stacks: Vec<Stack>,
    cookies: CookieTable,
    dropped: Dropped,
    now: Time,
    given_back: Option<Transmit>,
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
            config,
            registry,
            incarnation,
            stacks: Vec::new(),
            cookies: CookieTable::new(),
            dropped: Dropped::default(),
            now: Time::ZERO,
            given_back: None,
        })
    }

    /// Which life of which process this is.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// What to ask of a transport for a view of `members` members. Each region is a sum over its holders.
    pub fn channel_options(&self, members: usize) -> ChannelOptions {
        let config = &self.config;
        let window = config.window_frames as usize;
        let others = members.saturating_sub(1);
        ChannelOptions {
            // Unacknowledged + waiting above the stack + being filled + own copies on their way up.
            cast_frames: window + config.waiting_frames_max + 2,
            control_frames: config.control_frames,
            // Retained until stable, per origin + ahead of their turn + held for their order.
            receive_frames: window * others + config.early_frames_max + config.order_frames_max.min(window),
            frame_bytes: config.frame_bytes_max,
            huge_pages: config.huge_pages,
        }
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
        self.now = now;
        let own = view.member(view.rank()).incarnation;
        if own != self.incarnation {
            return Err(InstallError::OtherIncarnation { view: own, endpoint: self.incarnation });
        }
        let stack = Stack::new(&self.config, &self.registry, view, channel, caps, now)?;
        let index = self.stacks.len() as u32;
        let core = stack.core();
        for origin in core.view.others() {
            for traffic in [Traffic::Cast, Traffic::Send] {
                let meaning = Meaning { stack: index, origin, traffic };
                self.cookies.insert(core.cookies[origin.index()][traffic as usize], meaning);
            }
        }
        self.stacks.push(stack);
        Ok(GroupKey(index))
    }

    /// Whether this endpoint has a group by that key. A key tells endpoints apart only by how many groups they have.
    #[inline]
    pub fn has_group(&self, key: GroupKey) -> bool {
        (key.0 as usize) < self.stacks.len()
    }

    /// A group, to act on.
    ///
    /// # Panics
    /// If there is no such group ([`Endpoint::has_group`]).
    #[inline]
    pub fn group(&mut self, key: GroupKey) -> Group<'_> {
        Group::new(&mut self.stacks[key.0 as usize])
    }

    /// Takes one frame that has arrived. Deliveries and what follows from them are told to `app` before it returns.
    #[inline]
    pub fn receive(&mut self, received: Received, now: Time, app: &mut dyn Application) {
        self.now = now;
        let Some(first) = crate::wire::word(received.bytes(), 0) else {
            self.dropped.short += 1;
            return;
        };
        if first & FULL_FLAG != 0 {
            self.full(received, app);
            return;
        }
        match self.cookies.get(first & COOKIE_MASK) {
            Ok(Meaning { stack, origin, traffic }) => {
                let stack = &mut self.stacks[stack as usize];
                if stack.exited().is_some() {
                    self.dropped.exited += 1;
                    return;
                }
                stack.engine.core.now = now;
                stack.fast_frame(origin, traffic, received, app);
            }
            Err(NoMeaning::Unknown) => self.dropped.unknown_cookie += 1,
            Err(NoMeaning::Collided) => self.dropped.collided_cookie += 1,
        }
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
            Err(FullError::Version(_)) => {
                self.dropped.version += 1;
                return;
            }
            Err(FullError::Magic | FullError::Code) => {
                self.dropped.foreign += 1;
                return;
            }
        };
        let identification = prefix.identification;
        let belongs = |stack: &Stack| {
            let view = stack.core().view.view();
            view.group == identification.group && view.id == identification.view
        };
        let Some(stack) = self.stacks.iter_mut().find(|stack| belongs(stack)) else {
            self.dropped.other_view += 1;
            return;
        };
        if stack.exited().is_some() {
            self.dropped.exited += 1;
            return;
        }
        let core = stack.core();
        if identification.stack != core.identification.stack {
            self.dropped.other_stack += 1;
            return;
        }
        let Some(origin) = core.view.rank_of(identification.origin) else {
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
        let list = List::parse(received.frame.clone(), from, to, prefix.pack);
        let (Some(header), Ok(list), true) = (header, list, known) else {
            self.dropped.malformed += 1;
            return;
        };
        stack.engine.core.now = self.now;
        let message = Message { traffic: prefix.traffic, control, number: 0, header, list };
        stack.full_frame(origin, message, app);
    }

    /// One iteration: timers, own copies of casts, packs, post-processing.
    #[inline]
    pub fn poll(&mut self, now: Time, app: &mut dyn Application) {
        self.now = now;
        for stack in &mut self.stacks {
            stack.poll(now, app);
        }
    }

    /// The next frame to submit.
    #[inline]
    pub fn transmit(&mut self) -> Option<Transmit> {
        if let Some(transmit) = self.given_back.take() {
            return Some(transmit);
        }
        self.stacks.iter_mut().find_map(|stack| stack.engine.core.outbox.pop_front())
    }

    /// The transport was full: the frame is the next that [`Endpoint::transmit`] gives.
    ///
    /// # Panics
    /// If a frame was given back already and not taken again.
    pub fn give_back(&mut self, transmit: Transmit) {
        assert!(self.given_back.replace(transmit).is_none(), "one frame is given back at a time");
    }

    /// When [`Endpoint::poll`] must be called at the latest.
    pub fn deadline(&self) -> Time {
        self.stacks.iter().map(Stack::deadline).min().unwrap_or(Time::NEVER)
    }

    /// Whether a frame sent on the channel now would only wait: then small messages are packed.
    #[inline]
    pub fn set_busy(&mut self, channel: ChannelId, busy: bool) {
        for stack in self.stacks.iter_mut().filter(|stack| stack.core().channel == channel) {
            stack.busy = busy;
        }
    }

    /// What a group's stack did so far.
    ///
    /// # Panics
    /// If the key is another endpoint's.
    pub fn stats(&self, key: GroupKey) -> Stats {
        self.stacks[key.0 as usize].stats()
    }

    /// Frames dropped before any stack saw them.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Where plans and layers disagreed so far ([`Shadow::Record`](crate::config::Shadow)).
    ///
    /// # Panics
    /// If the key is another endpoint's.
    pub fn divergences(&self, key: GroupKey) -> &[String] {
        &self.stacks[key.0 as usize].divergences
    }

    /// Scrambles one word of the slot file, chosen by `seed`: a test of whether slots are what the layers use.
    ///
    /// # Panics
    /// If the key is another endpoint's.
    #[cfg(feature = "laboratory")]
    pub fn scramble_slot(&mut self, key: GroupKey, seed: u64) {
        let slots = &mut self.stacks[key.0 as usize].engine.core.slots;
        let at = (seed % slots.words() as u64) as u32;
        *slots.word_mut(at) ^= seed.rotate_left(17) | 1;
    }

    /// How many words the slot file has.
    ///
    /// # Panics
    /// If the key is another endpoint's.
    #[cfg(feature = "laboratory")]
    pub fn slot_words(&self, key: GroupKey) -> u32 {
        self.stacks[key.0 as usize].core().slots.words() as u32
    }

    /// What a word of the slot file is, as far as it can be told: `of 1: cast-deliver word 0`, say.
    ///
    /// # Panics
    /// If the key is another endpoint's.
    #[cfg(feature = "laboratory")]
    pub fn slot_name(&self, key: GroupKey, at: u32) -> String {
        self.stacks[key.0 as usize].core().slot_name(at)
    }

    /// Changes the bits of `mask` in one word of the slot file.
    ///
    /// # Panics
    /// If the key is another endpoint's, or there is no such word.
    #[cfg(feature = "laboratory")]
    pub fn scramble_word(&mut self, key: GroupKey, at: u32, mask: u64) {
        *self.stacks[key.0 as usize].engine.core.slots.word_mut(at) ^= mask;
    }

    /// This member's rank in a group.
    ///
    /// # Panics
    /// If the key is another endpoint's.
    pub fn rank(&self, key: GroupKey) -> Rank {
        self.stacks[key.0 as usize].core().view.rank()
    }
}
