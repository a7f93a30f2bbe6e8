//! The system calls under the transports that carry frames as UDP datagrams.
//!
//! Sockets, staging, segments, pools and channels are the same whether datagrams pass by calls of their own
//! ([`udp`](crate::transport::udp)) or by a ring ([`uring`](crate::transport::uring)); what differs is in here.

use std::os::fd::RawFd;
use std::time::Duration;

use super::send::Outcome;
use crate::transport::{TransportCounters, TransportError};

/// Names a socket that datagrams are received from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inlet(pub(crate) u32);

/// How datagrams get into the system and out of it.
///
/// # Safety
/// `Inlet::ask` hands out pointers by the messages it is given. An implementation uses them only until it has said
/// through `landed` what came of every message, or until `remove` returns.
#[allow(unreachable_pub)]
pub unsafe trait Calls: Sized {
    /// The transport's name.
    const NAME: &'static str;
    /// Whether what is asked for stays asked for until it comes; if not, every call ends with what there is.
    const LASTING: bool;

    /// Makes a socket known.
    ///
    /// # Errors
    /// If there is no place for it.
    fn add(&mut self, socket: RawFd) -> Result<Inlet, TransportError>;

    /// Gives up a socket and what is asked for there.
    fn remove(&mut self, inlet: Inlet);

    /// Once at the beginning of every reception: learns what has come.
    fn look(&mut self, counters: &mut TransportCounters);

    /// How many messages to ask for, when `wanted` would be taken.
    fn crowd(&self, inlet: Inlet, wanted: usize) -> usize;

    /// Asks for as many datagrams as there are messages; with `bare`, for the bytes alone of each.
    fn ask(
        &mut self,
        inlet: Inlet,
        socket: RawFd,
        messages: &mut [libc::mmsghdr],
        bare: bool,
        counters: &mut TransportCounters,
    );

    /// Whether everything that was asked for has landed and been taken.
    fn idle(&self, inlet: Inlet) -> bool;

    /// What has come of the messages asked for last, as far as it was not taken before.
    fn landed(&mut self, inlet: Inlet, messages: &mut [libc::mmsghdr]) -> Landed;

    /// Sends messages, and says of each what came of it.
    fn send(
        &mut self,
        inlet: Inlet,
        socket: RawFd,
        messages: &mut [libc::mmsghdr],
        outcomes: &mut [Outcome],
        counters: &mut TransportCounters,
    );

    /// Blocks until something is ready of `polled`, the last of which is the alarm, or the time is over. What is known
    /// of each is noted there; whether the alarm rang.
    fn wait(
        &mut self,
        polled: &mut [libc::pollfd],
        timeout: Duration,
        counters: &mut TransportCounters,
    ) -> bool;

    /// Whether something came that was not yet looked at.
    fn pending(&self) -> bool;

    /// What was asked for and not got.
    fn notes(&self) -> &[String];
}

/// What has come: messages `from..to` are done with; of those that brought nothing the length is [`NOTHING`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Landed {
    /// The first message.
    pub(crate) from: usize,
    /// After the last.
    pub(crate) to: usize,
    /// Whether the system reported an error instead of a datagram.
    pub(crate) troubled: bool,
}

/// The length of a message that brought nothing: longer than any datagram.
pub(crate) const NOTHING: u32 = u32::MAX;
