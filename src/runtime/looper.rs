//! The loop itself: one transport, one engine, one thread.

use std::time::Duration;

use super::clock::Clock;
use super::idle::{Idle, IdleStrategy, Idler};
use crate::buf::Frame;
use crate::endpoint::{GroupKey, Request};
use crate::id::{GroupId, Rank, RankSet};
use crate::time::Time;
use crate::transport::{
    Caps, Channel, ChannelId, ChannelOptions, Full, Received, Transmit, Transport, TransportCounters,
    TransportError,
};
use crate::view::{Address, LocalView};

/// What a [`Loop`] drives: frames and time in; frames and a deadline out. An endpoint with its application is one;
/// benchmarks drive a transport without a stack by another, through the same loop.
pub trait Engine {
    /// A frame came in.
    fn receive(&mut self, received: Received, now: Time);
    /// Whether what was received is to be taken with the time at which it has all come, not with that at which the iteration
    /// began: this process may have been stopped in between. Asked once, before [`Engine::received`].
    fn wants_time(&mut self) -> bool {
        false
    }
    /// There are no more of them in this iteration: what was not looked at one by one is looked at now, until it is `enough` for
    /// an iteration.
    fn received(&mut self, now: Time, enough: &mut dyn FnMut() -> bool) {
        let _ = (now, enough);
    }
    /// How many of them are left for the next iteration.
    fn left(&self) -> usize {
        0
    }
    /// More has come, or may have, than is received in this iteration; told before the poll.
    fn more_has_come(&mut self, now: Time) {
        let _ = now;
    }
    /// Called once per iteration, after frames were received and before frames are taken.
    fn poll(&mut self, now: Time);
    /// The next frame to submit, until there is none.
    fn transmit(&mut self) -> Option<Transmit>;
    /// As [`Engine::transmit`], if the next is a whole frame for all others; that, and its channel. An engine that answers
    /// `None` is asked for the next in any case.
    #[inline]
    fn transmit_cast(&mut self) -> Option<(ChannelId, Frame)> {
        None
    }
    /// The transport could not take the frame; it comes first when asked again.
    fn give_back(&mut self, transmit: Transmit);
    /// When [`Engine::poll`] must be called at the latest.
    fn deadline(&self) -> Time;
    /// Whether a frame sent now would only wait; told for every channel before each poll.
    fn set_busy(&mut self, channel: ChannelId, busy: bool);
    /// What is wanted of the transport next, beside frames to be moved; asked after each poll until there is nothing.
    fn request(&mut self) -> Option<Request> {
        None
    }
    /// Answers [`Request::Open`].
    fn opened(&mut self, group: GroupKey, opened: Result<(Channel, Caps), String>, now: Time) {
        let _ = (group, opened, now);
    }
    /// A channel that is wanted ([`Request::Open`]) finds no room: whether the engine gives up a channel that it can do
    /// without, by a request. If not, the channel is tried again for a while.
    fn make_room(&mut self) -> bool {
        false
    }
    /// The transport says, at once, whether a channel for a view of so many members could be opened
    /// ([`Transport::room_for`]); told now and then.
    fn room(&mut self, room_for: RoomFor<'_>) {
        let _ = room_for;
    }
    /// Answers [`Request::Exclude`].
    fn excluded(&mut self, group: GroupKey, channel: ChannelId, rank: Rank, intact: &dyn Fn(&Frame) -> bool) {
        let _ = (group, channel, rank, intact);
    }
    /// Answers [`Request::Hint`].
    fn gone(&mut self, group: GroupKey, channel: ChannelId, ranks: RankSet) {
        let _ = (group, channel, ranks);
    }
    /// Answers [`Request::Hint`], too.
    fn starved(&mut self, group: GroupKey, channel: ChannelId, ranks: RankSet) {
        let _ = (group, channel, ranks);
    }
    /// Answers [`Request::Hint`], too.
    fn parted(&mut self, group: GroupKey, channel: ChannelId, ranks: RankSet) {
        let _ = (group, channel, ranks);
    }
    /// The transport has something to say that it did not say when its first channel was opened: a note of [`Caps::notes`].
    fn noted(&mut self, note: &str) {
        let _ = note;
    }
    /// Who has asked how it goes is told, after each poll; `counters` says what the transport has done so far.
    fn report(&mut self, counters: &dyn Fn() -> TransportCounters) {
        let _ = counters;
    }
    /// The loop is about to block. `false` if there is work after all.
    fn before_wait(&mut self) -> bool {
        true
    }
    /// The loop has blocked, or has not after all.
    fn after_wait(&mut self) {}
}

/// Answers as [`Transport::room_for`] does.
pub type RoomFor<'r> = &'r dyn Fn(usize, &ChannelOptions) -> Result<(), TransportError>;

/// How a loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopOptions {
    /// What it does when there is nothing to do.
    pub idle: IdleStrategy,
    /// The most frames received per iteration; fewer while it takes longer than half a millisecond to take them in, as where
    /// upcalls take long: what is to be said in time must not wait for all of them.
    pub receive_frames_max: usize,
    /// An iteration that comes later than this after the one before counts as a pause of this process.
    pub pause_limit: Duration,
}

impl Default for LoopOptions {
    fn default() -> LoopOptions {
        LoopOptions {
            idle: IdleStrategy::default(),
            receive_frames_max: 64,
            pause_limit: Duration::from_millis(10),
        }
    }
}

/// What a loop did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopStats {
    /// Iterations.
    pub iterations: u64,
    /// Iterations in which nothing was received or sent.
    pub idle: u64,
    /// Idle iterations that let other threads run.
    pub yields: u64,
    /// Idle iterations that blocked in the transport.
    pub parks: u64,
    /// Submissions the transport refused for lack of room.
    pub full: u64,
    /// Gaps between iterations above [`LoopOptions::pause_limit`]: this process was not running.
    pub pauses: u64,
    /// The longest such gap.
    pub pause_longest: Duration,
    /// When the last such gap ended; nobody should be suspected for silence before it.
    pub pause_ended: Time,
}

/// A transport and an engine, driven by the calling thread.
#[derive(Debug)]
pub struct Loop<T: Transport, E: Engine> {
    transport: T,
    engine: E,
    clock: Clock,
    idler: Idler,
    options: LoopOptions,
    channels: Vec<ChannelId>,
    /// Notes of the transport that are known, and when to look for others.
    notes: Vec<String>,
    notes_due: Time,
    /// Of those that were looked at last.
    notes_digest: Option<u64>,
    /// When to ask how much room there is, and what was made ready for the next view.
    room_due: Time,
    prepared: Option<ChannelOptions>,
    /// Channels of next views that there was no room for yet.
    openings: Vec<Opening>,
    /// The most frames received per iteration as long as it takes as long as now to take them in.
    budget: usize,
    /// The time of the present or last iteration.
    now: Time,
    stats: LoopStats,
}

/// A channel that waits for room.
#[derive(Debug)]
struct Opening {
    group: GroupKey,
    view: LocalView,
    options: ChannelOptions,
    /// When it is tried again, and until when.
    due: Time,
    until: Time,
}

/// After an iteration in which it took longer to take frames in, the next one receives fewer: half of the time after which a
/// member that has said nothing sends a heartbeat.
const RECEPTION: Duration = Duration::from_micros(500);
/// As long as it has not, fewer frames than these are not worth reading the clock for.
const WEIGHED_FRAMES: usize = 8;
/// The transport is asked so often how much room there is.
const ROOM_PAUSE: Duration = Duration::from_millis(20);
/// A channel that there was no room for is tried again so often, and for so long: past views' channels, of others too, go
/// within half a second.
const OPENING_PAUSE: Duration = Duration::from_millis(5);
const OPENING_PATIENCE: Duration = Duration::from_secs(1);
/// Notes of the transport are looked at so often.
const NOTES_PAUSE: Duration = Duration::from_secs(1);
/// So many are told, whatever the transport makes up.
const NOTES_MAX: usize = 64;

impl<T: Transport, E: Engine> Loop<T, E> {
    /// A loop that has not run yet.
    pub fn new(transport: T, engine: E, options: LoopOptions) -> Loop<T, E> {
        let mut clock = Clock::new();
        let now = clock.now();
        let idler = Idler::new(options.idle);
        Loop {
            transport,
            engine,
            clock,
            idler,
            options,
            channels: Vec::new(),
            notes: Vec::new(),
            notes_due: now + NOTES_PAUSE,
            notes_digest: None,
            room_due: now,
            prepared: None,
            openings: Vec::new(),
            budget: options.receive_frames_max,
            now,
            stats: LoopStats::default(),
        }
    }

    /// Opens the channel of a view at the transport; the engine is told from now on when it is busy.
    ///
    /// # Errors
    /// As [`Transport::open`].
    pub fn open(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        let channel = self.transport.open(view, options)?;
        if self.channels.is_empty() {
            self.notes = self.transport.caps().notes;
            self.notes_digest = self.transport.notes_digest();
        }
        self.channels.push(channel.id);
        Ok(channel)
    }

    /// Closes a channel.
    pub fn close(&mut self, channel: ChannelId) {
        self.channels.retain(|open| *open != channel);
        self.transport.close(channel);
    }

    /// One iteration. Whether anything was received or sent.
    #[inline]
    pub fn run_once(&mut self) -> bool {
        self.read_clock();
        let (mut now, engine) = (self.now, &mut self.engine);
        self.transport.reap();
        let mut received = engine.left();
        if let Some(budget @ 1..) = self.budget.checked_sub(received) {
            received += self.transport.receive(budget, &mut |frame| engine.receive(frame, now));
        }
        if received > 0 {
            if self.engine.wants_time() {
                self.read_clock();
                now = self.now;
            }
            let (engine, clock) = (&mut self.engine, &mut self.clock);
            engine.received(now, &mut || clock.now().since(now) > RECEPTION);
            let left = engine.left();
            if received >= self.budget || left > 0 || self.transport.more() {
                engine.more_has_come(now);
            }
            if received >= WEIGHED_FRAMES || self.budget < self.options.receive_frames_max {
                self.weigh_reception(received - left);
            }
        }
        // What upcalls cast goes out before the work that can wait.
        let answered = received > 0 && self.submit();
        let engine = &mut self.engine;
        for channel in &self.channels {
            engine.set_busy(*channel, self.transport.busy(*channel));
        }
        engine.poll(now);
        let mut submitted = self.submit() || answered;
        // After what others wait for has gone: to open a channel, or to save the casts of a member that failed, takes time.
        while let Some(request) = self.engine.request() {
            self.obey(request);
            submitted |= self.submit();
        }
        let transport = &self.transport;
        self.engine.report(&|| transport.counters());
        self.stats.iterations += 1;
        if now >= self.notes_due {
            self.tell_notes();
        }
        if now >= self.room_due {
            self.tell_room();
        }
        if !self.openings.is_empty() {
            self.open_waiting();
        }
        if received > 0 || submitted {
            self.idler.worked();
            return true;
        }
        self.stats.idle += 1;
        self.rest();
        false
    }

    /// Runs until `done` says so, which is asked after every iteration, or until `limit` has passed. Whether it was
    /// `done`.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut E) -> bool) -> bool {
        let end = self.clock.now() + limit;
        loop {
            self.run_once();
            if done(&mut self.engine) {
                return true;
            }
            if self.now >= end {
                return false;
            }
        }
    }

    /// The loop was not run on purpose: what passed since the last iteration is no pause.
    pub fn resume(&mut self) {
        self.now = self.clock.now();
    }

    /// The time of the present or last iteration; read from the clock if there was none yet.
    #[inline]
    pub fn now(&self) -> Time {
        self.now
    }

    /// What is driven.
    #[inline]
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// What is driven, to act on between iterations.
    #[inline]
    pub fn engine_mut(&mut self) -> &mut E {
        &mut self.engine
    }

    /// The transport.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// What the transport did so far.
    pub fn transport_counters(&self) -> TransportCounters {
        self.transport.counters()
    }

    /// What the loop did so far.
    pub fn stats(&self) -> LoopStats {
        self.stats
    }

    /// Whether an adaptive loop shares its core with others at the moment.
    pub fn crowded(&self) -> bool {
        self.idler.crowded()
    }

    #[cold]
    fn obey(&mut self, request: Request) {
        match request {
            Request::Open { group, view, options } => {
                let until = self.now + OPENING_PATIENCE;
                self.open_next(Opening { group, view, options, due: self.now, until });
            }
            Request::Close(channel) => self.close(channel),
            Request::Exclude { group, channel, rank } => {
                self.transport.exclude(channel, rank);
                let transport = &self.transport;
                self.engine.excluded(group, channel, rank, &|frame| transport.intact(channel, frame));
            }
            Request::Hint { group, channel } => {
                let gone = self.transport.gone(channel);
                self.engine.gone(group, channel, gone);
                self.engine.starved(group, channel, self.transport.starved(channel));
                self.engine.parted(group, channel, self.transport.parted(channel));
            }
            Request::Outside { group, to, bytes } => self.transport.send_outside(group, &to, &bytes),
        }
    }

    /// Opens the channel of a next view; later, if there is no room now. The channel before it goes on meanwhile.
    #[cold]
    fn open_next(&mut self, mut opening: Opening) {
        match self.transport.open_next(&opening.view, &opening.options) {
            Err(TransportError::NoSpace { .. }) if self.now < opening.until => {
                let pause = if self.engine.make_room() { Duration::ZERO } else { OPENING_PAUSE };
                opening.due = self.now + pause;
                self.openings.push(opening);
                return;
            }
            opened => {
                let opened = opened.map(|channel| {
                    self.channels.push(channel.id);
                    (channel, self.transport.caps())
                });
                self.engine.opened(opening.group, opened.map_err(|error| error.to_string()), self.now);
            }
        }
        // The view after this one will come as suddenly.
        self.prepare(&opening.options);
        self.tell_room();
    }

    #[cold]
    fn open_waiting(&mut self) {
        for opening in std::mem::take(&mut self.openings) {
            match self.now >= opening.due {
                true => self.open_next(opening),
                false => self.openings.push(opening),
            }
        }
    }

    /// Tells how much room there is. What could not be made ready may be by now.
    #[cold]
    fn tell_room(&mut self) {
        self.room_due = self.now + ROOM_PAUSE;
        if let Some(options) = self.prepared {
            self.transport.prepare(&options);
        }
        let transport = &self.transport;
        self.engine.room(&|members, options| transport.room_for(members, options));
    }

    /// Tells what the transport has come to say since.
    #[cold]
    fn tell_notes(&mut self) {
        self.notes_due = self.now + NOTES_PAUSE;
        let digest = self.transport.notes_digest();
        if digest.is_some() && digest == self.notes_digest {
            return;
        }
        self.notes_digest = digest;
        for note in self.transport.caps().notes {
            if self.notes.len() < NOTES_MAX && !self.notes.contains(&note) {
                self.engine.noted(&note);
                self.notes.push(note);
            }
        }
    }

    /// Makes ready what another view will need ([`Transport::prepare`]).
    pub fn prepare(&mut self, options: &ChannelOptions) {
        self.prepared = Some(*options);
        self.transport.prepare(options);
    }

    /// Makes this process reachable outside any view.
    ///
    /// # Errors
    /// As [`Transport::bind`].
    pub fn bind(&mut self, group: GroupId, address: &Address) -> Result<Address, TransportError> {
        self.transport.bind(group, address)
    }

    #[inline]
    fn read_clock(&mut self) {
        let now = self.clock.now();
        let gap = now.since(self.now);
        if gap > self.options.pause_limit && self.stats.iterations > 0 {
            self.note_pause(gap, now);
        }
        self.now = now;
    }

    /// So many frames were taken in since this iteration began.
    #[inline]
    fn weigh_reception(&mut self, frames: usize) {
        let lasting = self.clock.now().since(self.now);
        if lasting > RECEPTION {
            self.budget = frames.div_ceil(2);
        } else if lasting < RECEPTION / 4 && frames >= self.budget {
            self.budget = (2 * self.budget).min(self.options.receive_frames_max);
        }
    }

    #[cold]
    fn note_pause(&mut self, gap: Duration, now: Time) {
        self.stats.pauses += 1;
        self.stats.pause_longest = self.stats.pause_longest.max(gap);
        self.stats.pause_ended = now;
    }

    /// Submits what the engine has. Whether anything was taken.
    #[inline]
    fn submit(&mut self) -> bool {
        let (mut submitted, mut refused) = (false, None);
        loop {
            // Most of it: frames that are handed over without an envelope to be written and read again at once.
            let cast = if refused.is_none() { self.engine.transmit_cast() } else { None };
            let outcome = match cast {
                Some((channel, head)) => self.transport.submit_cast(channel, head),
                None => {
                    let Some(transmit) = self.engine.transmit() else { break };
                    if refused == Some(transmit.channel) {
                        self.engine.give_back(transmit);
                        break;
                    }
                    self.transport.submit(transmit)
                }
            };
            match outcome {
                Ok(()) => submitted = true,
                Err(Full(transmit)) => {
                    self.stats.full += 1;
                    // Other channels may have room.
                    refused = Some(transmit.channel);
                    self.engine.give_back(transmit);
                }
            }
        }
        // Also after a refusal: what is staged may be what fills the transport.
        if submitted || refused.is_some() {
            self.transport.flush();
        }
        submitted
    }

    #[inline]
    fn rest(&mut self) {
        match self.idler.idle(self.now) {
            Idle::Spin => std::hint::spin_loop(),
            Idle::Yield => {
                self.stats.yields += 1;
                std::thread::yield_now();
                let back = self.clock.now();
                self.idler.yielded(back.since(self.now), back);
            }
            Idle::Park(timeout) => self.park(timeout),
        }
    }

    #[cold]
    fn park(&mut self, timeout: Duration) {
        let opening = self.openings.iter().map(|opening| opening.due).min().unwrap_or(Time::NEVER);
        let timeout = timeout.min(self.engine.deadline().min(opening).since(self.now));
        let until = self.now + timeout;
        if !timeout.is_zero() && self.engine.before_wait() {
            self.stats.parks += 1;
            self.transport.wait(timeout);
        }
        self.engine.after_wait();
        // Blocking on purpose is no pause; coming back long after what was to end it is one.
        let back = self.clock.now();
        let late = back.since(until);
        if late > self.options.pause_limit {
            self.note_pause(late, back);
        }
        self.now = back;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Instant;

    use super::*;
    use crate::transport::memory::{Hub, HubOptions, MemoryTransport};
    use crate::transport::{Caps, Destination};

    /// Sends what it is given and keeps what it gets.
    #[derive(Default)]
    struct Post {
        out: VecDeque<Transmit>,
        got: Vec<Vec<u8>>,
        polls: u32,
        wants_to_wait: bool,
        /// How long it takes to take in a frame, and how many there are to be taken in.
        takes: Duration,
        fresh: u32,
        /// The thread does not run for so long where it is about to wait.
        stopped: Duration,
        /// The same, once, where a frame has come.
        stopped_with_frames: Duration,
        received_at: Time,
    }

    /// Not synchronisation: that the thread does not go on is what is tested.
    fn stand_still(lasting: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < lasting {
            std::hint::spin_loop();
        }
    }

    impl Engine for Post {
        fn receive(&mut self, received: Received, _now: Time) {
            self.got.push(received.bytes().to_vec());
            self.fresh += 1;
            stand_still(std::mem::take(&mut self.stopped_with_frames));
        }
        fn wants_time(&mut self) -> bool {
            true
        }
        fn received(&mut self, now: Time, _enough: &mut dyn FnMut() -> bool) {
            self.received_at = now;
            stand_still(self.takes * std::mem::take(&mut self.fresh));
        }
        fn poll(&mut self, _now: Time) {
            self.polls += 1;
        }
        fn transmit(&mut self) -> Option<Transmit> {
            self.out.pop_front()
        }
        fn transmit_cast(&mut self) -> Option<(ChannelId, Frame)> {
            let next =
                self.out.pop_front_if(|next| matches!(next.to, Destination::All) && next.body.is_none());
            next.map(|next| (next.channel, next.head))
        }
        fn give_back(&mut self, transmit: Transmit) {
            self.out.push_front(transmit);
        }
        fn deadline(&self) -> Time {
            Time::NEVER
        }
        fn set_busy(&mut self, _channel: ChannelId, _busy: bool) {}
        fn before_wait(&mut self) -> bool {
            stand_still(self.stopped);
            self.wants_to_wait
        }
    }

    fn view(rank: u64) -> LocalView {
        use crate::id::{GroupId, Incarnation, ViewId};
        use crate::view::{Address, Member, View};
        let member = |n| Member { incarnation: Incarnation(n), address: Address(format!("m{n}")) };
        let view = View {
            group: GroupId::named("loop"),
            id: ViewId { counter: 1, coordinator: Incarnation(0) },
            members: vec![member(0), member(1)],
            spec: String::new(),
            wire_version: 1,
            salt: 0,
            frame_bytes: 0,
        };
        LocalView::new(view, Incarnation(rank)).unwrap()
    }

    const CHANNEL: ChannelOptions = ChannelOptions {
        cast_frames: 8,
        control_frames: 8,
        receive_frames: 8,
        frame_bytes: 256,
        huge_pages: false,
    };

    /// A frame of one byte for all others is to be sent.
    fn put(sender: &mut Loop<MemoryTransport, Post>, channel: &Channel, number: u8) {
        let mut frame = channel.casts.take(0).unwrap();
        frame.extend(&[number]).unwrap();
        let head = frame.freeze();
        let transmit = Transmit { channel: channel.id, to: Destination::All, head, body: None };
        sender.engine_mut().out.push_back(transmit);
    }

    #[test]
    fn frames_the_transport_refuses_are_sent_later_and_in_order() {
        let hub = Hub::new(HubOptions { queue_frames_max: 2, ..HubOptions::default() });
        let options = LoopOptions { idle: IdleStrategy::Spin, ..LoopOptions::default() };
        let mut sender = Loop::new(hub.transport(), Post::default(), options);
        let mut receiver = Loop::new(hub.transport(), Post::default(), options);
        let channel = sender.open(&view(0), &CHANNEL).unwrap();
        receiver.open(&view(1), &CHANNEL).unwrap();
        (0..5).for_each(|number| put(&mut sender, &channel, number));
        assert!(sender.run_once());
        assert_eq!((sender.engine().out.len(), sender.stats().full), (3, 1));
        for _ in 0..3 {
            receiver.run_once();
            sender.run_once();
        }
        assert_eq!(receiver.engine().got, [[0], [1], [2], [3], [4]]);
    }

    #[test]
    fn an_iteration_takes_in_fewer_frames_while_each_takes_long_and_as_many_as_before_afterwards() {
        const MOST: usize = 8;
        let hub = Hub::new(HubOptions::default());
        let options =
            LoopOptions { idle: IdleStrategy::Spin, receive_frames_max: MOST, ..LoopOptions::default() };
        let mut sender = Loop::new(hub.transport(), Post::default(), options);
        let mut receiver = Loop::new(hub.transport(), Post::default(), options);
        let channel = sender.open(&view(0), &ChannelOptions { cast_frames: 64, ..CHANNEL }).unwrap();
        receiver.open(&view(1), &CHANNEL).unwrap();
        let mut taken_in = |takes: Duration| {
            (0..2 * MOST as u8).for_each(|number| put(&mut sender, &channel, number));
            sender.run_once();
            receiver.engine_mut().takes = takes;
            let mut each = Vec::new();
            while receiver.engine().got.len() < 2 * MOST {
                let before = receiver.engine().got.len();
                receiver.run_once();
                each.push(receiver.engine().got.len() - before);
            }
            receiver.engine_mut().got.clear();
            each
        };
        assert_eq!(taken_in(Duration::from_millis(1)), [8, 4, 2, 1, 1]);
        assert_eq!(taken_in(Duration::from_millis(1)), [1; 2 * MOST]);
        // A processor that is taken away for a while looks like a frame that takes long.
        assert!((0..1000).any(|_| taken_in(Duration::ZERO) == [MOST; 2]));
    }

    #[test]
    fn a_gap_between_iterations_is_noticed_as_a_pause_of_our_own() {
        let options = LoopOptions { pause_limit: Duration::from_millis(5), ..LoopOptions::default() };
        let mut looping = Loop::new(Hub::new(HubOptions::default()).transport(), Post::default(), options);
        looping.run_once();
        looping.run_once();
        let before = looping.stats().pauses;
        stand_still(Duration::from_millis(6));
        looping.run_once();
        assert_eq!(looping.stats().pauses, before + 1);
        assert!(looping.stats().pause_longest >= Duration::from_millis(6));
        assert!(looping.stats().pause_ended > Time::ZERO);
    }

    #[test]
    fn a_parked_loop_blocks_in_the_transport_and_that_is_no_pause() {
        let idle = IdleStrategy::Park { spins: 0, timeout: Duration::from_millis(120) };
        let options = LoopOptions { idle, pause_limit: Duration::from_millis(100), ..LoopOptions::default() };
        let post = Post { wants_to_wait: true, ..Post::default() };
        let mut looping = Loop::new(Hub::new(HubOptions::default()).transport(), post, options);
        looping.run_once();
        looping.run_once();
        assert_eq!((looping.stats().parks, looping.stats().pauses), (2, 0));
        looping.engine_mut().wants_to_wait = false;
        looping.run_once();
        assert_eq!(looping.stats().parks, 2, "there was work after all");
    }

    #[test]
    fn a_parked_loop_that_comes_back_long_after_it_should_was_paused() {
        let idle = IdleStrategy::Park { spins: 0, timeout: Duration::from_millis(1) };
        let options = LoopOptions { idle, pause_limit: Duration::from_millis(20), ..LoopOptions::default() };
        let post = Post { wants_to_wait: true, stopped: Duration::from_millis(30), ..Post::default() };
        let mut looping = Loop::new(Hub::new(HubOptions::default()).transport(), post, options);
        looping.run_once();
        let stats = looping.stats();
        assert_eq!((stats.parks, stats.pauses), (1, 1));
        assert!(stats.pause_longest >= Duration::from_millis(29) && stats.pause_ended == looping.now());
    }

    #[test]
    fn who_is_stopped_while_it_receives_takes_what_has_come_with_the_time_after_that() {
        let hub = Hub::new(HubOptions::default());
        let limit = Duration::from_millis(20);
        let options = LoopOptions { idle: IdleStrategy::Spin, pause_limit: limit, ..LoopOptions::default() };
        let stopped = Post { stopped_with_frames: Duration::from_millis(30), ..Post::default() };
        let mut sender = Loop::new(hub.transport(), Post::default(), options);
        let mut receiver = Loop::new(hub.transport(), stopped, options);
        let channel = sender.open(&view(0), &CHANNEL).unwrap();
        receiver.open(&view(1), &CHANNEL).unwrap();
        receiver.run_once();
        let head = channel.casts.take(0).unwrap().freeze();
        sender.engine_mut().out.push_back(Transmit {
            channel: channel.id,
            to: Destination::All,
            head,
            body: None,
        });
        sender.run_once();
        receiver.resume();
        let before = receiver.now();
        receiver.run_once();
        assert_eq!(receiver.engine().got.len(), 1);
        assert!(receiver.engine().received_at.since(before) >= Duration::from_millis(30));
        assert_eq!(receiver.stats().pauses, 1);
    }

    #[test]
    fn a_run_ends_when_it_is_done_or_its_limit_has_passed() {
        let hub = Hub::new(HubOptions::default());
        assert!(matches!(hub.transport().caps(), Caps { name: "memory", .. }));
        let mut looping = Loop::new(hub.transport(), Post::default(), LoopOptions::default());
        assert!(looping.run_until(Duration::from_secs(60), |post| post.polls == 10));
        assert_eq!(looping.stats().iterations, 10);
        assert!(!looping.run_until(Duration::from_millis(5), |_| false));
    }
}
