//! The raw baseline: the same transport, frames and loop as a stack has, without the stack.
//!
//! One message per frame behind a header of 16 bytes. Where the transport loses what its reader has no room for, a
//! window of frames, advanced by the reader's reports, keeps the sender from outrunning it; there is no repair.

use std::collections::VecDeque;

use wadjet::buf::Frame;
use wadjet::id::Rank;
use wadjet::runtime::Engine;
use wadjet::time::Time;
use wadjet::transport::{Caps, Channel, ChannelId, Destination, Received, Transmit};

use crate::workload::{Outlet, Workload};

/// The header before a raw message.
pub const RAW_HEADER_BYTES: usize = 16;

/// A member without a stack.
#[derive(Debug)]
pub struct RawEngine {
    wire: Wire,
    workload: Workload,
    /// Frames received from each member.
    received: Vec<u64>,
    /// Frames received from each member when it was last told.
    reported: Vec<u64>,
}

/// The sending half, apart from the workload so that an answer can be cast while a message is taken.
#[derive(Debug)]
struct Wire {
    channel: Option<Channel>,
    own: Rank,
    queue: VecDeque<Transmit>,
    window: Option<Window>,
    /// Frames cast.
    cast: u64,
}

/// Frames that may be on their way to the slowest reader.
#[derive(Debug)]
struct Window {
    frames: u64,
    /// What each member says it has received.
    acknowledged: Vec<u64>,
}

/// What a frame is.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message = 1,
    Report = 2,
}

impl RawEngine {
    /// A member that has no channel yet.
    pub fn new(own: Rank, members: usize, size: usize, caps: &Caps, workload: Workload) -> RawEngine {
        let window = caps.loses.then(|| Window {
            frames: (WINDOW_BYTES / (size as u64 + FRAME_OVERHEAD_BYTES)).clamp(8, WINDOW_FRAMES_MAX),
            acknowledged: vec![0; members],
        });
        RawEngine {
            wire: Wire {
                channel: None,
                own,
                queue: VecDeque::with_capacity(QUEUE_FRAMES_MAX + members),
                window,
                cast: 0,
            },
            workload,
            received: vec![0; members],
            reported: vec![0; members],
        }
    }

    /// Gives the engine its channel.
    pub fn install(&mut self, channel: Channel) {
        self.wire.channel = Some(channel);
    }

    /// The traffic.
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// The traffic, to begin a block.
    pub fn workload_mut(&mut self) -> &mut Workload {
        &mut self.workload
    }

    /// Casts what is due.
    #[inline]
    pub fn produce(&mut self) {
        self.workload.produce(&mut self.wire);
    }

    /// Frames cast so far.
    pub fn cast_frames(&self) -> u64 {
        self.wire.cast
    }

    /// Tells a sender what has come, a few times per window.
    #[inline]
    fn report(&mut self, origin: Rank) {
        let Some(window) = &self.wire.window else { return };
        let received = self.received[origin.index()];
        if received - self.reported[origin.index()] >= window.frames / 4 && self.wire.report(origin, received)
        {
            self.reported[origin.index()] = received;
        }
    }
}

impl Engine for RawEngine {
    #[inline]
    fn receive(&mut self, received: Received, _now: Time) {
        let bytes = received.bytes();
        let Some((header, message)) = bytes.split_first_chunk::<RAW_HEADER_BYTES>() else { return };
        let origin = Rank(u16::from_le_bytes([header[2], header[3]]));
        let number = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
        if origin.index() >= self.received.len() {
            return;
        }
        if header[0] == Kind::Message as u8 {
            // The number, not a count: what was lost must not narrow the window for ever.
            self.received[origin.index()] = self.received[origin.index()].max(number + 1);
            self.workload.message(origin, message, &mut self.wire);
            self.report(origin);
        } else if header[0] == Kind::Report as u8
            && let Some(window) = &mut self.wire.window
        {
            let known = &mut window.acknowledged[origin.index()];
            *known = number.max(*known);
        }
    }

    #[inline]
    fn poll(&mut self, _now: Time) {}

    #[inline]
    fn transmit(&mut self) -> Option<Transmit> {
        self.wire.queue.pop_front()
    }

    #[inline]
    fn transmit_cast(&mut self) -> Option<(ChannelId, Frame)> {
        let queue = &mut self.wire.queue;
        let next = queue.pop_front_if(|next| matches!(next.to, Destination::All) && next.body.is_none());
        next.map(|next| (next.channel, next.head))
    }

    #[inline]
    fn give_back(&mut self, transmit: Transmit) {
        self.wire.queue.push_front(transmit);
    }

    #[inline]
    fn deadline(&self) -> Time {
        Time::NEVER
    }

    #[inline]
    fn set_busy(&mut self, _channel: ChannelId, _busy: bool) {}
}

impl Wire {
    fn header(&self, kind: Kind, number: u64) -> [u8; RAW_HEADER_BYTES] {
        let mut header = [0; RAW_HEADER_BYTES];
        header[0] = kind as u8;
        header[2..4].copy_from_slice(&self.own.0.to_le_bytes());
        header[8..].copy_from_slice(&number.to_le_bytes());
        header
    }

    #[cold]
    fn report(&mut self, origin: Rank, received: u64) -> bool {
        let header = self.header(Kind::Report, received);
        let Some(channel) = &self.channel else { return false };
        let Ok(mut frame) = channel.control.take(0) else { return false };
        frame.extend(&header).expect("a frame holds a header");
        let (channel, to) = (channel.id, Destination::One(origin));
        self.queue.push_back(Transmit { channel, to, head: frame.freeze(), body: None });
        true
    }
}

impl Outlet for Wire {
    /// Inlined, so that the message's stamp comes in registers: written to memory in two stores and read from there by one load,
    /// it would wait for all stores before it, also those to lines that the reader has.
    #[inline(always)]
    fn cast(&mut self, length: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let Some(channel) = &self.channel else { return false };
        let own = self.own.index();
        let closed = self.window.as_ref().is_some_and(|window| {
            let slowest =
                window.acknowledged.iter().enumerate().filter(|(at, _)| *at != own).map(|(_, n)| *n).min();
            slowest.is_some_and(|slowest| self.cast.saturating_sub(slowest) >= window.frames)
        });
        if closed || self.queue.len() >= QUEUE_FRAMES_MAX {
            return false;
        }
        let Ok(mut frame) = channel.casts.take(RAW_HEADER_BYTES) else { return false };
        fill(frame.grow(length).expect("the message fits the frame; checked before the run"));
        let frame = frame.freeze();
        frame.prepend(&self.header(Kind::Message, self.cast)).expect("room was left for the header");
        self.cast += 1;
        let id = channel.id;
        self.queue.push_back(Transmit { channel: id, to: Destination::All, head: frame, body: None });
        true
    }
}

/// Frames waiting for the transport at most.
const QUEUE_FRAMES_MAX: usize = 512;
/// What a receive buffer that nobody enlarged holds.
const WINDOW_BYTES: u64 = 180_000;
/// What a small datagram costs in such a buffer beside its bytes.
const FRAME_OVERHEAD_BYTES: u64 = 768;
const WINDOW_FRAMES_MAX: u64 = 256;
