//! How to use AF_XDP.

use std::net::SocketAddrV4;

use wadjet::transport::TransportError;

/// How to use AF_XDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpOptions {
    /// The interface, by name; that of the own address if none is given.
    pub interface: Option<String>,
    /// The interface's receive and transmit queue. What comes by another reaches this process more slowly, by an
    /// ordinary socket: give a card one queue, or steer the group's ports to this one (`docs/tuning.md`).
    pub queue: u32,
    /// Where the XDP program runs.
    pub mode: Mode,
    /// Whether the system is to be woken only when it asks for it.
    pub wake: Wake,
    /// Try to let the device read and write frames itself. Without it, or if the device cannot, the system copies.
    pub zero_copy: bool,
    /// Send a frame that lies in several pieces without joining them, where the system can (`XDP_USE_SG`).
    pub multi_buffer: bool,
    /// Reach all members by IP multicast. Every member of the view must be told the same.
    pub multicast: Option<SocketAddrV4>,
    /// How many routers a multicast datagram may pass, plus one.
    pub multicast_ttl: u8,
    /// The multicast address to which `Outside::Discover` goes and to which bound processes listen.
    pub discovery: Option<SocketAddrV4>,
    /// The largest frame, in bytes; lowered to what the interface and a chunk hold. More than 1,472 takes a larger MTU
    /// at *every* member's interface and on the way: a frame that is too long for one of them never arrives there.
    pub frame_bytes_max: usize,
    /// Chunks for the frames of all channels that are open at once, those of channels just closed included.
    pub transmit_frames: usize,
    /// Chunks for received frames. `fill_frames` of them are never lent.
    pub receive_frames: usize,
    /// Chunks that wait for frames to come, at most: fewer do while this member answers what comes one by one.
    pub fill_frames: usize,
    /// Descriptors of frames on their way out; a power of two.
    pub transmit_entries: u32,
    /// Frames submitted at which they are sent without waiting for a flush.
    pub stage_frames_flush: u32,
    /// Whether to try for huge pages.
    pub huge_pages: bool,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In the driver where that is faster: not on virtual interfaces (veth).
    #[default]
    Auto,
    /// In the driver (native).
    Native,
    /// Above the driver (generic, skb): everywhere.
    Skb,
}

/// When the system is woken to look at the rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wake {
    /// When it asks for it, with zero copy; else always, which is the same to it and cheaper to us.
    #[default]
    Auto,
    /// When it asks for it (`XDP_USE_NEED_WAKEUP`).
    Asked,
    /// Whenever there is something to send.
    Always,
}

/// Chunks of a kind at most: 8 GiB of them.
const CHUNKS_MAX: usize = 1 << 22;
/// Descriptors of frames on their way out at most.
const ENTRIES_MAX: u32 = 1 << 20;
/// The least that a frame must hold, so that there is room for headers and a payload.
const FRAME_BYTES_MIN: usize = 128;

impl XdpOptions {
    /// Refuses what cannot be meant. What is too small for its neighbours is raised where it is used.
    pub(crate) fn check(&self) -> Result<(), TransportError> {
        let chunks = [
            ("transmit_frames", self.transmit_frames),
            ("receive_frames", self.receive_frames),
            ("fill_frames", self.fill_frames),
        ];
        if let Some((name, value)) = chunks.into_iter().find(|(_, value)| *value > CHUNKS_MAX) {
            return Err(TransportError::BadOption { name, value, bounds: "2^22 at most" });
        }
        if self.transmit_entries > ENTRIES_MAX {
            let value = self.transmit_entries as usize;
            return Err(TransportError::BadOption {
                name: "transmit_entries",
                value,
                bounds: "2^20 at most",
            });
        }
        if self.frame_bytes_max < FRAME_BYTES_MIN {
            let value = self.frame_bytes_max;
            return Err(TransportError::BadOption { name: "frame_bytes_max", value, bounds: "128 at least" });
        }
        Ok(())
    }
}

impl Default for XdpOptions {
    fn default() -> XdpOptions {
        XdpOptions {
            interface: None,
            queue: 0,
            mode: Mode::Auto,
            wake: Wake::Auto,
            zero_copy: true,
            multi_buffer: true,
            multicast: None,
            multicast_ttl: 1,
            discovery: None,
            frame_bytes_max: 1472,
            transmit_frames: 16_384,
            receive_frames: 16_384,
            fill_frames: 2048,
            transmit_entries: 2048,
            stage_frames_flush: 128,
            huge_pages: true,
        }
    }
}
