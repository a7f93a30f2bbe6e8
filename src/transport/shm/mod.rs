//! Shared memory: members on one host read what each of them writes, in place.
//!
//! Every member of a view has a *segment*, a file named by group, incarnation and view, which it alone writes and all
//! others map read-only. A cast is written once, where it will be read: the region [`Channel::casts`] *is* the ring.
//!
//! ```text
//!   member 0                            member 1
//!   segment 0 (written by 0)            segment 1 (written by 1)
//!   | cursors | casts | lane to 1 |     | cursors | casts | lane to 0 |
//!        |         |        '--- read in place by 1 ---.
//!        |         '------------ read in place by 1 ---|
//!        '--- what 0 has read       what 1 has read ---' (the cursor line of rank 0 in segment 1)
//!             and released of 1     and released of 0
//! ```
//!
//! - A frame is published by one store: its stamp; those that are submitted together, up to sixteen, by that of the
//!   first. Readers poll the word where the next stamp will be, or sleep until somebody rings (`bell`).
//! - A frame of the cast ring that is submitted to [`Destination::All`] without a body goes
//!   out in place. Everything else (control messages, sends, retransmissions, casts to a subset) is copied into the
//!   *lanes* of the members it is for: each member has one, which it alone reads. Then the cast ring says void where
//!   its frame was.
//! - No byte is reused before every member that reads it has released it, or is [excluded](Transport::exclude). A
//!   member that opens late still finds what was cast before. A member that closes has released everything.
//! - A member that has stopped reading holds up the casts, until it is excluded: that is flow control's business. It
//!   does not hold up what goes to others: a full lane refuses frames for two milliseconds, and if its reader has read
//!   nothing of it by then, nor of the casts before what is there, what is for that reader is lost (and counted as
//!   dropped) until it reads again. The frames it does find are whole and in order; those missing are repaired by the
//!   layers, as over a network.
//! - A member learns that another has excluded it when it next looks at that one's rings, and reads no further. What
//!   it held or was reading at that moment may be overwritten: [`Transport::intact`] tells.
//! - A sender's frames arrive in order of submission, but for casts, which may overtake what is in a lane: each entry of a
//!   lane says which casts came before it, and is read after those, because it may count them. That is all that
//!   [`Caps::reorders`] means here.
//! - [`TransportCounters::copies`] counts payloads that exist twice through this transport: retransmitted bodies and
//!   casts that could not go in place. What was written into the control region (control messages, sends) is always
//!   staged through lanes and not counted.
//!
//! Members on one host are one trust domain for payload bytes: a member that breaks the rules can change bytes that
//! others are reading. Stamps and cursors are read once, atomically, and checked: they can stop a ring
//! from being read ([`TransportCounters::dropped`]), never make a reader leave the mapping.
#![allow(unsafe_code)]

mod bell;
mod channel;
mod cursor;
mod hindrance;
mod huge;
mod lanes;
mod owner;
mod post;
mod ring;
mod segment;
mod stamp;
mod stock;
mod sweep;
mod sync;
mod words;

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::buf::Frame;
use crate::id::{GroupId, MEMBERS_MAX, Rank, RankSet};
use crate::transport::address::check_name;
use crate::transport::{
    Addresses, Caps, Channel, ChannelId, ChannelOptions, Destination, Full, Outside, Received, Transmit,
    Transport, TransportCounters, TransportError,
};
use crate::view::{Address, LocalView};

use bell::{Bells, Sleeper};
use channel::{Open, segment_bytes, spare_bytes};
use hindrance::Hindrances;
use owner::Owner;
use post::{LOOK_LETTERS, Post};
use stock::Stock;
use sweep::Sweep;

/// The largest frame.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Where segments are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShmOptions {
    /// A directory on a tmpfs, the same for all members. The tmpfs says whether there are huge pages (its option
    /// `huge=within_size` or `huge=always`).
    pub directory: PathBuf,
}

impl Default for ShmOptions {
    fn default() -> ShmOptions {
        ShmOptions { directory: PathBuf::from("/dev/shm") }
    }
}

/// The shared-memory transport of one thread.
pub struct Shm {
    options: ShmOptions,
    /// By the low bits of the channel's id.
    channels: Vec<Option<Box<Open>>>,
    /// The channel that frames are looked for in first: the one after that which took the last of a budget.
    first: usize,
    /// Closed channels of which somebody still holds frames.
    closing: Vec<Open>,
    opened: u32,
    /// Whether what dead processes have left was looked for at once, sockets too.
    swept: bool,
    /// And is looked for since, as channels come and go.
    sweep: Sweep,
    /// When it was last looked for because there was no room.
    swept_for_room: Cell<Option<Instant>>,
    post: Post,
    stock: Stock,
    /// The most members that a view had so far.
    members: usize,
    /// This process.
    here: Owner,
    counters: TransportCounters,
    /// System calls of methods that only look.
    looks: Cell<u64>,
    notes: Vec<String>,
    hindrances: Hindrances,
    asked_for_huge_pages: bool,
    /// Something was published, and who sleeps is to be looked for once more.
    published: bool,
    /// The same, before this member sleeps itself.
    unrung: bool,
    sleeper: Arc<Sleeper>,
}

/// Channels are told apart by index and by how many were opened before.
const INDEX_BITS: u32 = 8;
/// Parked, the rings are looked at this often, whether somebody rings or not: so often where nobody can, and so often at
/// least.
const PARK_MIN: Duration = Duration::from_micros(20);
const PARK_MAX: Duration = Duration::from_micros(500);
/// How long a sleep is between two bits of what takes long ([`Stock::has_steps`]).
const STEP_PAUSE: Duration = Duration::from_micros(100);
/// Where there is no room, which is asked now and then, what the dead have left is looked for this often at most.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

impl Shm {
    /// A transport without channels, of the calling thread.
    pub fn new(options: ShmOptions) -> Shm {
        Shm {
            post: Post::new(options.directory.clone()),
            stock: Stock::new(),
            members: 1,
            here: Owner::this_process(),
            looks: Cell::new(0),
            options,
            channels: Vec::new(),
            first: 0,
            closing: Vec::new(),
            opened: 0,
            swept: false,
            sweep: Sweep::default(),
            swept_for_room: Cell::new(None),
            counters: TransportCounters::default(),
            notes: Vec::new(),
            hindrances: Hindrances::default(),
            asked_for_huge_pages: false,
            published: false,
            unrung: false,
            sleeper: Sleeper::this_thread(),
        }
    }

    /// How many other members of the channel's view have been found.
    pub fn peers(&self, channel: ChannelId) -> usize {
        self.get(channel).map_or(0, Open::peers)
    }

    /// Received frames that somebody holds, of closed channels and from outside any view too.
    pub fn frames_held(&self) -> usize {
        let open = self.channels.iter().flatten().map(|open| open.frames_held());
        open.chain(self.closing.iter().map(Open::frames_held)).sum::<usize>() + self.post.held()
    }

    #[inline]
    fn get(&self, channel: ChannelId) -> Option<&Open> {
        let index = channel.0 as usize & ((1 << INDEX_BITS) - 1);
        self.channels.get(index)?.as_deref().filter(|open| open.id() == channel)
    }

    #[inline]
    fn get_mut(&mut self, channel: ChannelId) -> Option<&mut Open> {
        let index = channel.0 as usize & ((1 << INDEX_BITS) - 1);
        self.channels.get_mut(index)?.as_deref_mut().filter(|open| open.id() == channel)
    }

    /// Whether anything is there to be received, also from members that have opened only now.
    fn look_around(&mut self) -> bool {
        self.stock.pace.soon();
        let frames = self.channels.iter_mut().flatten().any(|open| {
            if open.incomplete() {
                open.look_soon();
                open.look_for_peers(&self.options, &mut self.stock, &mut self.counters, &mut self.hindrances);
            }
            open.ready()
        });
        frames || self.post.waiting(&mut self.counters)
    }

    /// What is not worth doing in every call of `receive`. Returns how many letters were handed over.
    #[cold]
    fn do_chores(&mut self, budget: usize, sink: &mut impl FnMut(Received)) -> usize {
        self.stock.step();
        if self.sweep.has_steps() {
            self.sweep.step(&self.here);
            self.stock.pace.soon();
        }
        let letters = self.post.receive(budget, &mut self.counters, sink);
        if letters == budget.min(LOOK_LETTERS) && budget > 0 {
            self.stock.pace.soon();
        } else if !self.post.is_bound() && !self.stock.has_work() && !self.sweep.has_steps() {
            self.stock.pace.rest();
        }
        letters
    }

    /// Has what the dead have left looked for, a file at a time, while frames are received.
    fn sweep_soon(&mut self) {
        // Who was only ever alone has met nobody who could have left anything, and has not looked at the directory either.
        if self.swept {
            self.sweep.begin(self.post.segments());
            self.stock.pace.soon();
        }
    }

    /// Whether there is room in the directory for the segments of so many members, of `bytes` each.
    fn has_room(&self, bytes: usize, members: usize) -> bool {
        segment::free_bytes(&self.options.directory).is_none_or(|free| {
            self.stock.has_segment(bytes, free / members as u64)
                || (bytes as u64).saturating_mul(members as u64) <= free
        })
    }

    /// Wakes those who sleep.
    #[inline]
    fn ring(&mut self) {
        self.channels.iter_mut().flatten().for_each(|open| open.ring(&mut self.counters));
    }

    #[cold]
    fn finish_closing(&mut self) {
        self.closing.retain_mut(|open| !open.release_all());
    }
}

impl Transport for Shm {
    fn caps(&self) -> Caps {
        Caps {
            name: "shm",
            frame_bytes_max: FRAME_BYTES_MAX,
            multicast: true,
            integrity: true,
            loses: false,
            duplicates: false,
            reorders: true,
            zero_copy: true,
            segmentation: false,
            addresses: Addresses::Names,
            notes: [self.notes.clone(), self.post.notes.clone(), self.hindrances.notes().collect()].concat(),
        }
    }

    fn notes_digest(&self) -> Option<u64> {
        // There are only ever more of them.
        Some((self.notes.len() + self.post.notes.len() + self.hindrances.count()) as u64)
    }

    fn open(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        let index = self.channels.iter().position(Option::is_none).unwrap_or(self.channels.len());
        if index >= 1 << INDEX_BITS {
            return Err(TransportError::NoSpace {
                what: "another channel beside 256".into(),
                bytes: 0,
                remedy: "leave groups, lower `linger_delay` of the endpoint, or make another transport"
                    .into(),
            });
        }
        let mut id = ChannelId(self.opened << INDEX_BITS | index as u32);
        if id == ChannelId::OUTSIDE {
            id = ChannelId(index as u32);
        }
        self.members = self.members.max(view.size());
        if !self.swept && view.size() > 1 {
            // Members of fixed views never bind an address, and a group may never meet again: whoever comes first clears up.
            self.swept = true;
            self.post.sweep(&self.here);
        }
        let opened = Open::new(id, &self.options, &self.here, view, options, &mut self.stock);
        let (open, channel) = match opened {
            // Somebody may have died since, and left what takes the room.
            Err(TransportError::NoSpace { .. }) if view.size() > 1 => {
                self.post.sweep(&self.here);
                Open::new(id, &self.options, &self.here, view, options, &mut self.stock)?
            }
            opened => opened?,
        };
        self.opened = (id.0 >> INDEX_BITS).wrapping_add(1);
        if options.huge_pages && !self.asked_for_huge_pages {
            self.asked_for_huge_pages = true;
            self.notes.extend(huge::hindrance(&self.options.directory));
        }
        if index == self.channels.len() {
            self.channels.push(None);
        }
        self.channels[index] = Some(open);
        self.sweep_soon();
        Ok(channel)
    }

    fn close(&mut self, channel: ChannelId) {
        if self.get(channel).is_none() {
            return;
        }
        let index = channel.0 as usize & ((1 << INDEX_BITS) - 1);
        if let Some(mut open) = self.channels[index].take() {
            open.close();
            open.memories().for_each(|memory| self.stock.retire(memory));
            if !open.release_all() {
                self.closing.push(*open);
            }
            self.sweep_soon();
        }
    }

    fn bind(&mut self, group: GroupId, address: &Address) -> Result<Address, TransportError> {
        check_name(address)?;
        match self.post.bind(group, address, &self.here) {
            // What the dead of other groups have left takes files, too.
            Err(TransportError::NoSpace { .. }) => {
                self.post.sweep(&self.here);
                self.post.bind(group, address, &self.here)?;
            }
            bound => bound?,
        }
        self.stock.pace.soon();
        Ok(address.clone())
    }

    fn send_outside(&mut self, group: GroupId, to: &Outside, bytes: &[u8]) {
        self.post.send(group, to, bytes, &mut self.counters);
        // Who looks for a group and has met nobody may have its name wrong. Who has met somebody does not.
        if let (Outside::To(address), true) = (to, self.members <= 1) {
            self.post.note_another_group(group, address, &mut self.counters);
        }
    }

    fn exclude(&mut self, channel: ChannelId, rank: Rank) {
        if let Some(open) = self.get_mut(channel) {
            open.exclude(rank);
        }
    }

    /// Frames that are held are not reused by senders that keep the rules; this is for those that were stopped and
    /// continued, and for what is to be forwarded in their place. It also answers for frames of closed channels, while
    /// frames of them are held. False for a frame that is not of this channel.
    fn intact(&self, channel: ChannelId, frame: &Frame) -> bool {
        let closing = || self.closing.iter().find(|open| open.id() == channel);
        self.get(channel).or_else(closing).is_some_and(|open| open.intact(frame))
    }

    /// A segment for a view of as many members as there were, and one more. It is made bit by bit while frames are
    /// received; what a channel that is opened before that is done lacks is reserved at once, and touched afterwards.
    fn prepare(&mut self, options: &ChannelOptions) {
        let bytes = spare_bytes(options, (self.members + 1).min(MEMBERS_MAX));
        self.stock.prepare(&self.options.directory, bytes);
    }

    /// Where a segment is in store, there is room. Where none is, all members of the view may lack one, in the same directory.
    fn room_for(&self, members: usize, options: &ChannelOptions) -> Result<(), TransportError> {
        // Nobody looks for the segment of who is alone: it is no file.
        if members == 1 {
            return Ok(());
        }
        let bytes = segment_bytes(options, members);
        if self.has_room(bytes, members) {
            return Ok(());
        }
        let now = Instant::now();
        if self.swept_for_room.get().is_none_or(|last| now.duration_since(last) >= ROOM_PAUSE) {
            self.swept_for_room.set(Some(now));
            self.post.sweep(&self.here);
            if self.has_room(bytes, members) {
                return Ok(());
            }
        }
        Err(segment::no_room(&self.options.directory, bytes))
    }

    #[inline]
    fn submit(&mut self, transmit: Transmit) -> Result<(), Full> {
        let Some(open) = self.get_mut(transmit.channel) else {
            self.counters.dropped += 1;
            return Ok(());
        };
        let plain = matches!(transmit.to, Destination::All) && transmit.body.is_none();
        if plain && open.stamp_in_place(&transmit.head) {
            self.counters.frames_sent += 1;
            return Ok(());
        }
        if open.too_long(&transmit) {
            self.counters.dropped += 1;
            return Ok(());
        }
        let pushed = open.push(transmit)?;
        self.counters.frames_sent += pushed.written;
        self.counters.copies += pushed.copies;
        self.counters.dropped += pushed.lost;
        Ok(())
    }

    #[inline]
    fn submit_cast(&mut self, channel: ChannelId, head: Frame) -> Result<(), Full> {
        if let Some(open) = self.get_mut(channel)
            && open.stamp_in_place(&head)
        {
            self.counters.frames_sent += 1;
            return Ok(());
        }
        self.submit(Transmit { channel, to: Destination::All, head, body: None })
    }

    /// What was submitted is found by its readers now; who sleeps is woken.
    #[inline]
    fn flush(&mut self) {
        self.channels.iter_mut().flatten().for_each(|open| open.publish());
        (self.published, self.unrung) = (true, true);
        self.ring();
    }

    #[inline]
    fn reap(&mut self) {
        if std::mem::take(&mut self.published) {
            self.ring();
        }
        for open in self.channels.iter_mut().flatten() {
            open.reap();
            if open.incomplete() {
                open.look_for_peers(&self.options, &mut self.stock, &mut self.counters, &mut self.hindrances);
            }
        }
        if !self.closing.is_empty() {
            self.finish_closing();
        }
    }

    #[inline]
    fn receive(&mut self, budget: usize, sink: &mut impl FnMut(Received)) -> usize {
        let mut count = 0;
        if self.stock.pace.due() {
            count = self.do_chores(budget, sink);
        }
        let places = self.channels.len();
        let mut at = self.first;
        for _ in 0..places {
            let open = &mut self.channels[at];
            at = if at + 1 == places { 0 } else { at + 1 };
            let Some(open) = open else { continue };
            if open.incomplete() {
                open.look_for_peers(&self.options, &mut self.stock, &mut self.counters, &mut self.hindrances);
            }
            count += open.receive(budget - count, &mut self.counters, sink);
            if count == budget {
                self.first = at;
                break;
            }
        }
        self.counters.frames_received += count as u64;
        count
    }

    #[inline]
    fn busy(&self, channel: ChannelId) -> bool {
        self.get(channel).is_some_and(Open::busy)
    }

    fn wait(&mut self, timeout: Duration) {
        let start = Instant::now();
        let mut pause = PARK_MIN;
        while self.sleeper.doze() {
            // The bells come first: whoever rings for this sleep, though for a frame that is not for this member, ends it.
            let mut bells = Bells::of(&self.sleeper);
            self.channels.iter().flatten().flat_map(|open| open.bells()).for_each(|bell| bells.add(bell));
            self.channels.iter().flatten().for_each(|open| open.set_asleep(true));
            // What was published before is seen by its readers, and their sleeps here; and what they publish from now on,
            // by the look below, or they ring.
            fence(Ordering::SeqCst);
            // Once: members that sleep anew each time somebody wakes them would else wake each other for ever.
            if std::mem::take(&mut self.unrung) {
                self.ring();
            }
            let left = timeout.saturating_sub(start.elapsed());
            let stays_awake = self.look_around() || left.is_zero();
            if !stays_awake {
                // The next view may come soon, and would wait for what is not made yet.
                let most = if self.stock.has_steps() { STEP_PAUSE } else { PARK_MAX };
                bells.sleep(most.min(left), pause);
                self.counters.system_calls += 1;
                pause = (pause * 2).min(PARK_MAX);
            }
            if !self.sleeper.rise() || stays_awake {
                break;
            }
            self.stock.step();
        }
        self.channels.iter().flatten().for_each(|open| open.set_asleep(false));
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.sleeper))
    }

    /// The process of a member that has been found is asked about, at most once a millisecond.
    fn gone(&self, channel: ChannelId) -> RankSet {
        self.get(channel).map_or(RankSet::EMPTY, |open| open.gone(&self.here, &self.looks))
    }

    /// Of what the system says of the members' threads, asked for by [`Transport::gone`].
    fn starved(&self, channel: ChannelId) -> RankSet {
        self.get(channel).map_or(RankSet::EMPTY, Open::starved)
    }

    fn parted(&self, channel: ChannelId) -> RankSet {
        self.get(channel).map_or(RankSet::EMPTY, Open::parted)
    }

    fn counters(&self) -> TransportCounters {
        let system_calls = self.counters.system_calls + self.looks.get();
        TransportCounters { system_calls, ..self.counters }
    }
}

impl Drop for Shm {
    fn drop(&mut self) {
        for mut open in self.channels.drain(..).flatten() {
            open.end();
            // What is still held stays told as held: its memory is not reused while this process can read it.
            open.release_all();
        }
        self.finish_closing();
        // Who ended after the last view that it was missed in has nobody else who clears up behind it.
        if self.swept {
            self.post.sweep(&self.here);
        }
    }
}
