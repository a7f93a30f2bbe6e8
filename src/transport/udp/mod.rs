//! The portable transport: UDP sockets, by unicast fan-out or IP multicast.
//!
//! A member's address is `ip:port`. Frames leave straight from where they were written: one `sendmmsg` per flush,
//! runs of equal-size frames to one destination as one segmented message (UDP_SEGMENT), heads and bodies gathered by
//! the system. They are received in place, runs coalesced (UDP_GRO). What the system lacks is done without, and
//! [`Caps::notes`](super::Caps::notes) says so.
//!
//! Channels of views in which this member has the same address share a socket, also with what is bound there to be
//! reached outside any view. A datagram does not say which of them it belongs to, nor is its sender looked at: it is
//! handed up on the newest channel, or on [`ChannelId::OUTSIDE`](super::ChannelId::OUTSIDE) if none is open, and the
//! cookie or header in it tells.
//!
//! Opening a channel at an address that is in use costs microseconds: the frames of the channels closed before, and the
//! memory for received ones, are used again; [`Transport::prepare`](super::Transport::prepare) makes what is lacking, bit by bit.
//!
//! Limits: frames staged ([`UdpOptions::stage_frames_max`]; beyond them [`Full`](super::Full)); frames being received
//! (32 and what channels asked for; beyond them the system's buffer fills, and the system drops). A datagram longer than
//! a frame is dropped and counted, as is a frame that the system will never take (no route, no permission).
#![allow(unsafe_code)]

use std::net::SocketAddrV4;
use std::os::fd::RawFd;
use std::time::Duration;

use super::datagram::Datagrams;
use super::datagram::calls::{Calls, Inlet, Landed};
use super::datagram::send::Outcome;
use super::{TransportCounters, TransportError};

/// How to use UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// The largest frame, in bytes: the network's MTU without 28 bytes of IPv4 and UDP headers (48 with IPv6). Where the
    /// interface of a member's own address has a smaller MTU it is what that leaves.
    pub frame_bytes_max: usize,
    /// The longest frame that this process sends to and takes from single members where both can, for much at a time (the
    /// group's state), in bytes; no more than the interface takes in one piece. None are longer than `frame_bytes_max` if
    /// that is not twice as much, or the system does not coalesce.
    pub long_frame_bytes_max: usize,
    /// Reach all members by IP multicast. Every member of the view must be told the same.
    pub multicast: Option<MulticastOptions>,
    /// The multicast address to which [`Outside::Discover`](crate::transport::Outside::Discover) goes and to which bound processes listen, on the interface
    /// named in `multicast` or else that of their own address; without it `Discover` reaches nobody. Processes on one
    /// host hear each other there, and with it each other's multicasts, whatever [`MulticastOptions::loopback`] says.
    pub discovery: Option<SocketAddrV4>,
    /// Send runs of equal-size frames as one (UDP_SEGMENT), where possible.
    pub segmentation: bool,
    /// Receive runs of equal-size frames as one (UDP_GRO), where possible.
    pub coalescing: bool,
    /// Frames that may be staged at once, whatever the number of their destinations.
    pub stage_frames_max: usize,
    /// Frames staged at which they are sent without waiting for a flush.
    pub stage_frames_flush: usize,
    /// What to ask for as the sockets' receive buffers, in bytes.
    pub receive_buffer_bytes: usize,
    /// What to ask for as the sockets' send buffers, in bytes.
    pub send_buffer_bytes: usize,
}

impl Default for UdpOptions {
    fn default() -> UdpOptions {
        UdpOptions {
            frame_bytes_max: 1472,
            long_frame_bytes_max: 32 << 10,
            multicast: None,
            discovery: None,
            segmentation: true,
            coalescing: true,
            stage_frames_max: 512,
            stage_frames_flush: 128,
            receive_buffer_bytes: 8 << 20,
            send_buffer_bytes: 1 << 20,
        }
    }
}

/// How to use IP multicast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MulticastOptions {
    /// The multicast group's address and port.
    pub group: SocketAddrV4,
    /// The interface to use, by name; that of the own address if none is given.
    pub interface: Option<String>,
    /// How many routers a datagram may pass, plus one.
    pub ttl: u8,
    /// Whether members on this host get this member's datagrams.
    pub loopback: bool,
}

impl MulticastOptions {
    /// On the interface of the own address, not past a router, members on this host included.
    pub fn to(group: SocketAddrV4) -> MulticastOptions {
        MulticastOptions { group, interface: None, ttl: 1, loopback: true }
    }
}

/// The transport.
pub type UdpTransport = Datagrams<Direct>;

impl UdpTransport {
    /// A transport without channels.
    ///
    /// # Errors
    /// [`TransportError`] if the multicast options are wrong or the system gives no sockets.
    pub fn new(options: UdpOptions) -> Result<UdpTransport, TransportError> {
        Datagrams::over(Direct::default(), options)
    }
}

/// One system call for what there is now.
#[derive(Debug, Default)]
pub struct Direct {
    landed: Landed,
}

// SAFETY: no call of the system outlives the call that makes it.
unsafe impl Calls for Direct {
    const NAME: &'static str = "udp";
    const LASTING: bool = false;

    fn add(&mut self, _socket: RawFd) -> Result<Inlet, TransportError> {
        Ok(Inlet(0))
    }

    fn remove(&mut self, _inlet: Inlet) {}

    #[inline]
    fn look(&mut self, _counters: &mut TransportCounters) {}

    #[inline]
    fn crowd(&self, _inlet: Inlet, wanted: usize) -> usize {
        wanted
    }

    #[inline]
    fn ask(
        &mut self,
        _inlet: Inlet,
        socket: RawFd,
        messages: &mut [libc::mmsghdr],
        bare: bool,
        counters: &mut TransportCounters,
    ) {
        counters.system_calls += 1;
        // SAFETY: the intake has pointed the headers at live memory of its own (`Intake::ask`).
        let count = unsafe {
            match messages {
                [only] if bare => {
                    let header = &mut only.msg_hdr;
                    let piece = &*header.msg_iov;
                    let bytes = libc::recv(socket, piece.iov_base, piece.iov_len, libc::MSG_TRUNC);
                    only.msg_len = bytes.max(0) as u32;
                    header.msg_controllen = 0;
                    header.msg_flags = if bytes > piece.iov_len as isize { libc::MSG_TRUNC } else { 0 };
                    if bytes < 0 { -1 } else { 1 }
                }
                [only] => {
                    let bytes = libc::recvmsg(socket, &raw mut only.msg_hdr, 0);
                    only.msg_len = bytes.max(0) as u32;
                    if bytes < 0 { -1 } else { 1 }
                }
                many => libc::recvmmsg(socket, many.as_mut_ptr(), many.len() as u32, 0, std::ptr::null_mut()),
            }
        };
        // Whatever the error is, it is no datagram: nothing there, a signal, an ICMP message about a dead peer.
        let error = if count < 0 { std::io::Error::last_os_error().raw_os_error() } else { None };
        let troubled = error.is_some_and(|error| !matches!(error, libc::EAGAIN | libc::EINTR));
        self.landed = Landed { from: 0, to: count.max(0) as usize, troubled };
    }

    #[inline]
    fn idle(&self, _inlet: Inlet) -> bool {
        true
    }

    #[inline]
    fn landed(&mut self, _inlet: Inlet, _messages: &mut [libc::mmsghdr]) -> Landed {
        std::mem::take(&mut self.landed)
    }

    #[inline]
    fn send(
        &mut self,
        _inlet: Inlet,
        socket: RawFd,
        messages: &mut [libc::mmsghdr],
        outcomes: &mut [Outcome],
        counters: &mut TransportCounters,
    ) {
        counters.system_calls += 1;
        // SAFETY: the stage filled these headers in this flush: names, pieces and control data lie in its own boxed
        // arrays and lanes, and pieces point into frames that its entries hold.
        let taken = unsafe {
            match messages {
                // Of one piece: the cheapest call for the commonest case.
                [only] if only.msg_hdr.msg_iovlen == 1 && only.msg_hdr.msg_control.is_null() => {
                    let header = &only.msg_hdr;
                    let piece = &*header.msg_iov;
                    let name = header.msg_name.cast();
                    let length = header.msg_namelen;
                    libc::sendto(socket, piece.iov_base, piece.iov_len, 0, name, length).min(1) as i32
                }
                [only] => libc::sendmsg(socket, &raw const only.msg_hdr, 0).min(1) as i32,
                _ => libc::sendmmsg(socket, messages.as_mut_ptr(), messages.len() as u32, 0),
            }
        };
        outcomes.fill(Outcome::Untried);
        match taken {
            // An empty datagram counts too: `sendmsg` returns its length, which is zero.
            0 if messages.len() == 1 => outcomes[0] = Outcome::Sent,
            0.. => outcomes[..taken as usize].fill(Outcome::Sent),
            _ => {
                let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
                outcomes[0] = Outcome::Failed(error);
            }
        }
    }

    fn wait(
        &mut self,
        polled: &mut [libc::pollfd],
        timeout: Duration,
        counters: &mut TransportCounters,
    ) -> bool {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().min(1 << 30) as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        counters.system_calls += 1;
        let count = polled.len() as libc::nfds_t;
        // SAFETY: the array is live and of the length given; its descriptors are open, for the list is made anew
        // whenever a port is opened or closed.
        let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), count, &raw const timeout, std::ptr::null()) };
        if ready <= 0 {
            polled.iter_mut().for_each(|polled| polled.revents = 0);
        }
        polled.last().is_some_and(|alarm| alarm.revents != 0)
    }

    fn pending(&self) -> bool {
        false
    }

    fn notes(&self) -> &[String] {
        &[]
    }
}
