//! What the network says of datagrams that were sent: nobody listens there (ICMP port unreachable), or a router on the way
//! takes no datagrams so long (fragmentation needed), which is kept for the notes: the system cuts them from then on.
//!
//! It is a hint that a process has ended, no more: it may come late, from an impostor, or never. The system reports it
//! once to whichever call comes next on the socket, and says in the socket's error queue what it was about; the queue
//! is read only when a call has failed or been cut short, so that an undisturbed socket pays nothing.
//!
//! A destination that goes on being sent to goes on refusing, and each refusal cuts a `sendmmsg` short. What is known
//! is therefore heard a few times only; then the reports are turned off, and on again after a while, for others may
//! end too.

use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};

use super::socket::{self, Said};

/// Reports taken in by one call.
const REPORTS_MAX: usize = 64;
/// Narrow ways that are remembered.
const NARROW_MAX: usize = 32;
/// Reports in a row that bring nothing new, after which they are turned off.
const STALE_MAX: u32 = 16;
/// Calls after which they are turned on again.
const REST_CALLS: u32 = 1024;

/// What one socket was told.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Where nobody listens, until [`Refusals::fresh`] is asked.
    fresh: Vec<SocketAddr>,
    /// Where the way is narrower than the interface, and how many bytes it takes.
    narrow: Vec<(SocketAddr, u32)>,
    /// System calls made here.
    calls: u64,
    stale: u32,
    /// Calls left for which the reports are off.
    rest: u32,
}

impl Refusals {
    /// Reads the error queue; whether there was anything in it.
    #[cold]
    pub(super) fn take_in(&mut self, socket: RawFd) -> bool {
        for read in 0..REPORTS_MAX {
            self.calls += 1;
            match socket::next_error(socket) {
                None => return read > 0,
                Some(Said::Refused(address)) if !self.fresh.contains(&address) => self.fresh.push(address),
                Some(Said::Narrow(address, bytes)) => self.note_narrow(address, bytes),
                Some(_) => {}
            }
        }
        true
    }

    fn note_narrow(&mut self, address: SocketAddr, bytes: u32) {
        let known = self.narrow.iter().position(|(known, _)| *known == address);
        match known {
            Some(at) => self.narrow[at].1 = bytes,
            None if self.narrow.len() < NARROW_MAX => self.narrow.push((address, bytes)),
            None => {}
        }
    }

    /// Ways that take so many bytes only.
    pub(super) fn narrow(&self) -> &[(SocketAddr, u32)] {
        &self.narrow
    }

    /// Whether something was reported since the last [`Refusals::fresh`].
    #[inline]
    pub(super) fn any(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// What was reported since the last call.
    pub(super) fn fresh(&mut self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.fresh)
    }

    /// Whether what was reported last was `news`: what is not is not listened to for ever.
    pub(super) fn judge(&mut self, socket: &OwnedFd, v4: bool, news: bool) {
        self.stale = if news { 0 } else { self.stale + 1 };
        if self.stale >= STALE_MAX && self.rest == 0 {
            self.set(socket, v4, false);
            self.rest = REST_CALLS;
        }
    }

    /// One call of [`Transport::receive`](crate::transport::Transport::receive) has passed.
    #[inline]
    pub(super) fn pass(&mut self, socket: &OwnedFd, v4: bool) {
        if self.rest > 0 {
            self.rest -= 1;
            if self.rest == 0 {
                self.stale = 0;
                self.set(socket, v4, true);
            }
        }
    }

    /// System calls made here since the last call.
    #[inline]
    pub(super) fn calls(&mut self) -> u64 {
        std::mem::take(&mut self.calls)
    }

    fn set(&mut self, socket: &OwnedFd, v4: bool, on: bool) {
        self.calls += 1;
        // It was set when the socket was made; that it cannot be now would only cost a hint.
        let _ = socket::report_errors(socket, v4, on);
    }
}
