//! Transports: how frames get from one process to others.
//!
//! A [`Transport`] opens one [`Channel`] per view. The channel lends regions in which the endpoint writes its frames;
//! what is submitted goes out of those very frames, and what is received stays in place until its last holder lets
//! go. The driver loop is generic over the transport: there is no dynamic dispatch per packet.
//!
//! The contract every implementation keeps (the conformance suite in `tests/transport_conformance.rs` checks it):
//!
//! - Frames from one member to another arrive unchanged, at most once unless [`Caps::duplicates`], in order of
//!   submission unless [`Caps::reorders`], and all of them unless [`Caps::loses`].
//! - `submit` takes a frame or gives it back with [`Full`]; a frame given back was not sent at all.
//! - A submitted frame is held by the transport until the medium no longer reads it, and then released: every frame
//!   comes back.
//! - `receive` hands over at most `budget` frames per call and never blocks; `wait` is the only call that does.
//!
//! A *channel* carries the frames of one view among its members, by rank. What passes between processes that share no
//! view (probes, merge requests, the view itself on its way to those it lets in) goes *outside* any view, to an
//! [`Address`], best effort: [`Transport::bind`] makes a process reachable there, [`Transport::send_outside`] sends,
//! and what arrives comes out of [`Transport::receive`] like any frame; its header says what it is.

mod address;
mod datagram;
pub mod fault;
mod links;
pub mod memory;
pub mod shm;
pub mod udp;
mod untouched;
pub mod uring;
pub mod wake;

use std::borrow::Cow;
use std::io;
use std::task::Waker;
use std::time::Duration;

pub use self::address::{Addresses, UdpAddresses};
use crate::buf::{Frame, MemoryError, Region};
use crate::id::{GroupId, Rank, RankSet};
use crate::view::{Address, LocalView};

/// A channel of one transport: the frames of one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelId(pub u32);

impl ChannelId {
    /// Stands for no channel: where messages that came outside any view are said to have come by.
    pub const OUTSIDE: ChannelId = ChannelId(u32::MAX);
}

/// What an endpoint asks of a channel. Each region's size is the sum of its holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelOptions {
    /// Own casts that may be unstable, waiting or being written at once.
    pub cast_frames: usize,
    /// Control messages, sends, retransmission headers at once.
    pub control_frames: usize,
    /// Received frames that may be held at once, beside the transport's own receive reserve.
    pub receive_frames: usize,
    /// The largest frame, header and payload together; lowered to what the transport can carry.
    pub frame_bytes: usize,
    /// Whether to try for huge pages.
    pub huge_pages: bool,
}

/// An open channel.
#[derive(Debug)]
pub struct Channel {
    /// Names the channel in [`Transmit`] and [`Received`].
    pub id: ChannelId,
    /// Where the endpoint takes frames for its casts, in the order in which it will submit them.
    pub casts: Region,
    /// Where the endpoint takes every other frame.
    pub control: Region,
    /// Where the endpoint may take frames for much that goes to single members, if the channel carries longer ones to and
    /// from these than what `control` has. Others may take none so long, and who has not got any for long may lose the
    /// first.
    pub long: Option<Region>,
}

/// Who is to get a frame. The sender itself never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Every other member of the view.
    All,
    /// One member.
    One(Rank),
    /// Some members.
    Some(RankSet),
}

/// A part of a frame.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The frame.
    pub frame: Frame,
    /// Offset of the first byte from the frame's base.
    pub from: usize,
    /// Offset after the last byte from the frame's base.
    pub to: usize,
}

impl Slice {
    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.frame.slice(self.from, self.to)
    }
}

/// A frame to send: what is in `head`, followed by what is in `body`.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// The view's channel.
    pub channel: ChannelId,
    /// Who is to get it.
    pub to: Destination,
    /// The whole frame, or its header when there is a body.
    pub head: Frame,
    /// A retained payload sent again behind another header.
    pub body: Option<Slice>,
}

impl Transmit {
    /// How long the frame is on the wire.
    pub fn len(&self) -> usize {
        self.head.bytes().len() + self.body.as_ref().map_or(0, |body| body.to - body.from)
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A frame that came in: `from..to` are offsets from the base of `frame`, which several received frames may share.
#[derive(Clone, Debug)]
pub struct Received {
    /// The channel it came by.
    pub channel: ChannelId,
    /// Where it lies.
    pub frame: Frame,
    /// Offset of the first byte from the frame's base.
    pub from: usize,
    /// Offset after the last byte from the frame's base.
    pub to: usize,
}

impl Received {
    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.frame.slice(self.from, self.to)
    }
}

/// Who is to get a message outside any view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outside {
    /// The process reached at an address.
    To(Address),
    /// Every process of the group that can be found: those that listen to the discovery address (udp), or whose sockets
    /// are in the directory (shm).
    Discover,
}

/// The longest message outside any view, in bytes: it fits a datagram on any network.
pub const OUTSIDE_BYTES_MAX: usize = 1200;

/// The transport cannot take the frame now; here it is. Try again after the next [`Transport::reap`].
#[derive(Debug)]
pub struct Full(pub Transmit);

/// What a transport can do. Printed by the benchmarks; layers take their lowest properties from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// The largest frame it carries.
    pub frame_bytes_max: usize,
    /// One submission reaches all members without a copy per member.
    pub multicast: bool,
    /// The medium keeps bytes whole: no checksum is needed above it.
    pub integrity: bool,
    /// Frames may be lost between submission and reception. If not, frames are missed only by members that have stopped
    /// receiving, or are excluded.
    pub loses: bool,
    /// Frames may arrive twice.
    pub duplicates: bool,
    /// Frames may overtake each other.
    pub reorders: bool,
    /// First transmissions leave from the frame itself, and reception is in place.
    pub zero_copy: bool,
    /// Equal-size frames to one destination share a system call and a pass through the network stack.
    pub segmentation: bool,
    /// What its addresses are.
    pub addresses: Addresses,
    /// What was asked for and not got, in words (huge pages, multicast, segmentation): for reports.
    pub notes: Vec<String>,
}

/// What a transport did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportCounters {
    /// Frames sent, counted once per destination the transport addressed.
    pub frames_sent: u64,
    /// Frames handed to the endpoint.
    pub frames_received: u64,
    /// System calls made to send, receive and wait; opening and closing are not counted.
    pub system_calls: u64,
    /// Payloads copied, for whatever reason.
    pub copies: u64,
    /// Frames dropped before the endpoint saw them (no buffer, malformed).
    pub dropped: u64,
    /// Frames for others that a transport beside the system's own stack saw and passed on (xdp).
    pub foreign: u64,
    /// Frames that the system dropped because this transport did not take in soon enough what came before them (udp, uring:
    /// the receive buffer was full; xdp: no frames were left to fill).
    pub overrun: u64,
}

/// A transport cannot be set up. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// An address does not parse, or does not fit those of the others.
    #[error("address `{0}` cannot be used: {1}")]
    BadAddress(Address, &'static str),
    /// Somebody else has the address.
    #[error("address `{0}` is in use; choose another one or end the process that holds it")]
    AddressInUse(Address),
    /// A member of this name and incarnation is there already.
    #[error("{0} exists already: this incarnation has been used in this view; start with a new incarnation")]
    IncarnationInUse(String),
    /// The system says no.
    #[error("no permission for {what}: {remedy}")]
    Permission {
        /// What was tried.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// No such interface.
    #[error("there is no network interface `{0}`; `ip link` lists those there are")]
    NoSuchInterface(String),
    /// No room for the segment or region.
    #[error("no room for {what} ({bytes} bytes): {remedy}")]
    NoSpace {
        /// What was to be made.
        what: Cow<'static, str>,
        /// How large.
        bytes: usize,
        /// What to do.
        remedy: Cow<'static, str>,
    },
    /// An option of the transport makes no sense.
    #[error("`{name}` of the transport is {value}; it must be {bounds}")]
    BadOption {
        /// The option.
        name: &'static str,
        /// What it is.
        value: usize,
        /// What it may be.
        bounds: &'static str,
    },
    /// Memory could not be mapped.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Anything else.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Carries the frames of views between members.
pub trait Transport {
    /// What it can do.
    fn caps(&self) -> Caps;

    /// A number that is another one when [`Caps::notes`] are others, for who looks at them now and then: to make them allocates.
    /// `None`: they have to be looked at themselves.
    fn notes_digest(&self) -> Option<u64> {
        None
    }

    /// Opens the channel of a view. Frames that reach it before are the transport's to drop or keep.
    ///
    /// # Errors
    /// [`TransportError`], before anything is half set up.
    fn open(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError>;

    /// Opens the channel of a view that others have agreed on: as [`Transport::open`], but a member whose address means
    /// nothing here, or that of another member, is in the channel as if it was excluded. Only this process's own must be right.
    ///
    /// # Errors
    /// As [`Transport::open`].
    fn open_next(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        self.open(view, options)
    }

    /// Closes a channel and gives up what it held.
    fn close(&mut self, channel: ChannelId);

    /// Makes this process reachable at `address` outside any view, for the processes of `group`, until it is bound
    /// again or the transport is dropped. Returns the address as others must name it: a port 0, say, is filled in, and
    /// channels of views that name this address share what was bound.
    ///
    /// # Errors
    /// [`TransportError`]: the address does not parse, or another process has it.
    fn bind(&mut self, group: GroupId, address: &Address) -> Result<Address, TransportError>;

    /// Whether [`Outside::Discover`] can reach anybody; if not, what to do about it, in words.
    ///
    /// # Errors
    /// If it cannot.
    fn discovers(&self) -> Result<(), &'static str> {
        Ok(())
    }

    /// Sends `bytes` outside any view, best effort. What is longer than [`OUTSIDE_BYTES_MAX`], or goes to an address
    /// that does not parse, is dropped and counted.
    fn send_outside(&mut self, group: GroupId, to: &Outside, bytes: &[u8]);

    /// A member of the channel's view has failed, as far as this process is concerned: no frame goes to it, nothing
    /// waits for it, and what it holds back is taken as released. What it still sends may be handed over or not. Frames of
    /// it that were handed over before stay where they are; [`Transport::intact`] says whether they still can be
    /// believed.
    fn exclude(&mut self, channel: ChannelId, rank: Rank);

    /// Whether the bytes of a received frame, *copied before this call*, are what its sender published: a sender that
    /// was stopped and continued may write again where it no longer may.
    fn intact(&self, channel: ChannelId, frame: &Frame) -> bool {
        let _ = (channel, frame);
        true
    }

    /// Makes ready what the next [`Transport::open`] with such options will need, as far as that takes long. Called
    /// while there is nothing else to do; a transport whose channels open quickly does nothing.
    fn prepare(&mut self, options: &ChannelOptions) {
        let _ = options;
    }

    /// Whether a channel for a view of `members` members could be opened beside the one that is open, as far as can be told
    /// now. Asked before anybody is let into a view: who cannot open the next one is out of the group. Called now and then
    /// while there is nothing else to do; channels of past views need not be counted, for they are closed when there is too
    /// little room.
    ///
    /// # Errors
    /// [`TransportError`], mostly [`TransportError::NoSpace`]: why it would be refused.
    fn room_for(&self, members: usize, options: &ChannelOptions) -> Result<(), TransportError> {
        let _ = (members, options);
        Ok(())
    }

    /// Takes a frame to send. It may stay staged until [`Transport::flush`]. A frame longer than the channel's frames,
    /// or of a closed channel, is dropped and counted.
    ///
    /// # Errors
    /// [`Full`] with the frame, which was not sent to anybody.
    fn submit(&mut self, transmit: Transmit) -> Result<(), Full>;

    /// As [`Transport::submit`], of a whole frame to all other members.
    ///
    /// # Errors
    /// As [`Transport::submit`].
    #[inline]
    fn submit_cast(&mut self, channel: ChannelId, head: Frame) -> Result<(), Full> {
        self.submit(Transmit { channel, to: Destination::All, head, body: None })
    }

    /// Sends what is staged. Called once per iteration of the driver loop that submitted anything.
    fn flush(&mut self);

    /// Takes back frames the medium has finished with, and learns what readers have released. Called once per
    /// iteration.
    fn reap(&mut self);

    /// Hands over frames that have arrived, at most `budget` of them; returns how many.
    fn receive(&mut self, budget: usize, sink: &mut impl FnMut(Received)) -> usize;

    /// Whether more may have come than the last [`Transport::receive`] handed over, though it was fewer than the budget.
    #[inline]
    fn more(&self) -> bool {
        false
    }

    /// Whether a frame sent now would only wait behind others: then the accelerator packs.
    fn busy(&self, channel: ChannelId) -> bool;

    /// Blocks until frames may have arrived, somebody woke this transport, or `timeout` is over.
    fn wait(&mut self, timeout: Duration);

    /// Ends [`Transport::wait`] from another thread; if nobody waits, the next wait. The one given here does nothing,
    /// for transports whose wait never blocks.
    fn waker(&self) -> Waker {
        Waker::noop().clone()
    }

    /// Members of the channel's view of which nothing will ever come again, as far as the medium happens to know: their
    /// processes have ended, or their transports have. A hint: it may speed detection up, and never replaces it. Who has
    /// closed the channel and lives is not gone, see [`Transport::parted`]. Costs nothing unless called.
    fn gone(&self, channel: ChannelId) -> RankSet {
        let _ = channel;
        RankSet::EMPTY
    }

    /// Members of the channel's view that are ready to run and have had no processor for a while, as far as this host can tell:
    /// what silence says of others says little of them. A hint, as [`Transport::gone`] is. It compares with what was so when it
    /// was last called, and so wants to be called repeatedly.
    fn starved(&self, channel: ChannelId) -> RankSet {
        let _ = channel;
        RankSet::EMPTY
    }

    /// Members that have excluded this one from the channel, or have closed the channel themselves: they take no part in that
    /// view with this member any more, and may well be in another. A hint that it is time to ask them, which takes a message
    /// outside any view; it says nothing of how they are.
    fn parted(&self, channel: ChannelId) -> RankSet {
        let _ = channel;
        RankSet::EMPTY
    }

    /// What it did so far.
    fn counters(&self) -> TransportCounters;
}
