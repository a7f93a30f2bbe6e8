//! The transport over io_uring: the same datagrams as [`udp`](super::udp), through a ring instead of by calls of their
//! own. Members on `udp` and members on `uring` are members of one group.
//!
//! What is sent in an iteration and what is to be received next enter the kernel together, by one call. When a datagram
//! has come, the kernel says so in memory, and another call lets it finish the reception (`DEFER_TASKRUN`: nothing
//! completes in between, and no other thread or interrupt is concerned); while nothing comes, none is made. Sockets and
//! the ring itself are registered.
//!
//! A single datagram is received by a request that waits in the kernel for it, so that looking costs less than asking;
//! while many come, requests are made in batches that grow with what they bring, the last of which waits. Requests land
//! in the frames where datagrams stay. Sends never wait in the kernel: what it has no room for stays staged.
//!
//! [`Transport::wait`](super::Transport::wait) blocks in the ring: a frame, the waker or time ends it. This is the mode
//! for members that must not burn a core.
//!
//! Limits: those of [`udp`](super::udp), and [`SOCKETS_MAX`] sockets. Of what the kernel lacks, `Caps::notes` tells; one
//! that has no ring, or forbids it, is refused by `UringTransport::new` in words that say what to do.
//!
//! A member that sleeps in the ring while there is nothing to do:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use wadjet::group::{Application, Delivery, Event, Group};
//! use wadjet::layers::DEFAULT_STACK;
//! use wadjet::runtime::{IdleStrategy, LoopOptions, fresh_incarnation};
//! use wadjet::transport::uring::{UringOptions, UringTransport};
//! use wadjet::{Address, Config, Driver, DriverOptions, Endpoint, GroupId, JoinOptions, Neighbours};
//!
//! struct Printer;
//!
//! impl Application for Printer {
//!     fn cast(&mut self, delivery: &Delivery<'_>, _group: &mut Group<'_>) {
//!         println!("{}: {} messages", delivery.origin(), delivery.len());
//!     }
//!
//!     fn event(&mut self, _event: &Event, _group: &mut Group<'_>) {}
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Made by the thread that will use it.
//! let transport = UringTransport::new(UringOptions::default())?;
//! let endpoint = Endpoint::new(Config::default(), fresh_incarnation())?;
//! let idle = IdleStrategy::Park { spins: 64, timeout: Duration::from_millis(1) };
//! let looping = LoopOptions { idle, ..LoopOptions::default() };
//! let mut driver = Driver::new(endpoint, Printer, transport, DriverOptions { looping, ..DriverOptions::default() });
//! driver.join(JoinOptions {
//!     group: GroupId::named("prices"),
//!     spec: DEFAULT_STACK.to_owned(),
//!     address: Address("10.0.0.1:7400".to_owned()),
//!     neighbours: Neighbours { contacts: vec![Address("10.0.0.2:7400".to_owned())], discover: false },
//! })?;
//! loop {
//!     driver.run_once();
//! }
//! # }
//! ```
#![allow(unsafe_code)]

mod ring;

use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::{opcode, squeue, types};

use self::ring::Ring;
use super::TransportCounters;
use super::TransportError;
use super::datagram::Datagrams;
use super::datagram::calls::{Calls, Inlet, Landed, NOTHING};
use super::datagram::receive::SLOTS;
use super::datagram::send::{MESSAGES_MAX, Outcome};
use super::udp::UdpOptions;

/// How to use the ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UringOptions {
    /// Addresses, multicast, frames and buffers.
    pub udp: UdpOptions,
}

/// The transport.
pub type UringTransport = Datagrams<RingCalls>;

impl UringTransport {
    /// A transport without channels. The calling thread is the one that will use it.
    ///
    /// # Errors
    /// [`TransportError`] if the kernel has no io_uring or forbids it, if the multicast options are wrong, or if the
    /// system gives no sockets.
    pub fn new(options: UringOptions) -> Result<UringTransport, TransportError> {
        Datagrams::over(RingCalls::new()?, options.udp)
    }
}

/// Sockets of one transport.
pub const SOCKETS_MAX: usize = 64;

/// Entries of the submission queue: a batch of sends, and one of receptions for each of three sockets.
const ENTRIES: u32 = 256;
/// How often a call that brings nothing is repeated when the kernel owes an answer that it gives at once.
const PATIENCE_CALLS: usize = 10_000;
/// While frames are staged that the kernel had no room for, nobody waits longer: they are tried again.
const STAGED_WAIT: Duration = Duration::from_millis(1);

/// Datagrams through a ring.
#[derive(Debug)]
pub struct RingCalls {
    ring: Ring,
    doors: Box<[Door]>,
    /// Requests to receive, which go with the next call.
    asked: Vec<squeue::Entry>,
    sent: Box<[Option<i32>]>,
    /// Sends of which the kernel has not said what came of them.
    sending: usize,
    /// Receptions that have completed and not been taken.
    ready: usize,
    /// The descriptor that a request waits for, and whether it rang.
    alarm: Alarm,
}

/// What is asked for at one socket.
#[derive(Clone, Debug)]
struct Door {
    open: bool,
    /// By message: what came of it.
    results: [Option<i32>; SLOTS],
    /// Messages `taken..asked` have not been taken.
    asked: usize,
    taken: usize,
    /// Those of them that the kernel has not answered.
    outstanding: usize,
    bare: bool,
    /// Messages to ask for next.
    crowd: usize,
    /// Messages of the present batch that brought something.
    brought: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alarm {
    Unarmed,
    Armed,
    Rung,
}

/// What a completion is about: the highest byte of its user data.
const SENT: u64 = 1;
const LANDED: u64 = 2;
const RANG: u64 = 3;
const CANCELLED: u64 = 4;

fn tag(kind: u64, door: u32, at: usize) -> u64 {
    kind << 56 | u64::from(door) << 16 | at as u64
}

impl RingCalls {
    fn new() -> Result<RingCalls, TransportError> {
        Ok(RingCalls {
            ring: Ring::new(ENTRIES, SOCKETS_MAX as u32)?,
            doors: vec![Door::closed(); SOCKETS_MAX].into(),
            asked: Vec::with_capacity(SOCKETS_MAX * SLOTS),
            sent: vec![None; MESSAGES_MAX].into(),
            sending: 0,
            ready: 0,
            alarm: Alarm::Unarmed,
        })
    }

    /// Queues what is to be received next. The kernel reads the requests in the next call.
    #[inline]
    fn push_asked(&mut self, counters: &mut TransportCounters) {
        for at in 0..self.asked.len() {
            let entry = self.asked[at].clone();
            self.push(&entry, counters);
        }
        self.asked.clear();
    }

    #[inline]
    fn push(&mut self, entry: &squeue::Entry, counters: &mut TransportCounters) {
        for _ in 0..PATIENCE_CALLS {
            // SAFETY: requests to send point into the stage, which waits for their completion (`send`); those to receive
            // into an intake, which keeps all in its place until they landed or `remove` has returned.
            if unsafe { self.ring.push(entry) } {
                return;
            }
            self.enter(0, counters);
        }
        unreachable!("io_uring takes nothing of a full submission queue");
    }

    /// Submits what is queued, has the kernel finish what it can, and notes what is done.
    #[inline]
    fn enter(&mut self, wait_for: u32, counters: &mut TransportCounters) {
        counters.system_calls += 1;
        self.ring.enter(wait_for);
        self.note();
    }

    /// Notes what is done.
    #[inline]
    fn note(&mut self) {
        let RingCalls { ring, doors, sent, sending, ready, alarm, .. } = self;
        ring.completions(|data, result| match data >> 56 {
            SENT => {
                sent[data as usize & 0xffff] = Some(result);
                *sending -= 1;
            }
            LANDED => {
                let door = &mut doors[(data >> 16) as usize & 0xff_ffff];
                door.results[data as usize & 0xffff] = Some(result);
                door.outstanding -= 1;
                *ready += 1;
            }
            RANG => *alarm = Alarm::Rung,
            _ => {}
        });
    }

    /// Gives up what is asked for at a socket and waits until the kernel has let go of it.
    fn give_up(&mut self, inlet: Inlet) {
        let mut counters = TransportCounters::default();
        self.push_asked(&mut counters);
        for _ in 0..PATIENCE_CALLS {
            let door = &self.doors[inlet.0 as usize];
            if door.outstanding == 0 {
                return;
            }
            for at in door.taken..door.asked {
                if self.doors[inlet.0 as usize].results[at].is_none() {
                    let cancel = opcode::AsyncCancel::new(tag(LANDED, inlet.0, at)).build();
                    self.push(&cancel.user_data(tag(CANCELLED, inlet.0, at)), &mut counters);
                }
            }
            self.enter(1, &mut counters);
        }
        unreachable!("io_uring does not give up requests that wait for datagrams");
    }
}

impl Drop for RingCalls {
    fn drop(&mut self) {
        for at in 0..self.doors.len() as u32 {
            if self.doors[at as usize].open {
                self.remove(Inlet(at));
            }
        }
    }
}

impl Door {
    fn closed() -> Door {
        Door {
            open: false,
            results: [None; SLOTS],
            asked: 0,
            taken: 0,
            outstanding: 0,
            bare: false,
            crowd: 1,
            brought: 0,
        }
    }
}

// SAFETY: a request to receive stays in `outstanding` until its completion was seen; `landed` tells of those seen only,
// and `remove` and `drop` cancel the others and wait for their completions. Sends are waited for in `send`.
unsafe impl Calls for RingCalls {
    const NAME: &'static str = "uring";
    const LASTING: bool = true;

    fn add(&mut self, socket: RawFd) -> Result<Inlet, TransportError> {
        let Some(at) = self.doors.iter().position(|door| !door.open) else {
            let what = format!("another socket of this ring, which has {SOCKETS_MAX}").into();
            let remedy = "let groups share addresses, or make another transport".into();
            return Err(TransportError::NoSpace { what, bytes: 0, remedy });
        };
        self.ring.register_file(at as u32, socket)?;
        self.doors[at] = Door { open: true, ..Door::closed() };
        Ok(Inlet(at as u32))
    }

    fn remove(&mut self, inlet: Inlet) {
        self.give_up(inlet);
        let door = &mut self.doors[inlet.0 as usize];
        // Nobody takes what has landed.
        self.ready -= door.asked - door.taken;
        *door = Door::closed();
        // What is not taken back now goes with the ring.
        let _ = self.ring.register_file(inlet.0, -1);
    }

    #[inline]
    fn look(&mut self, counters: &mut TransportCounters) {
        self.push_asked(counters);
        if self.ring.must_enter() {
            self.enter(0, counters);
        } else {
            // What completes without being deferred, on kernels that do not defer.
            self.note();
        }
    }

    #[inline]
    fn crowd(&self, inlet: Inlet, wanted: usize) -> usize {
        self.doors[inlet.0 as usize].crowd.min(wanted)
    }

    #[inline]
    fn ask(
        &mut self,
        inlet: Inlet,
        _socket: RawFd,
        messages: &mut [libc::mmsghdr],
        bare: bool,
        _counters: &mut TransportCounters,
    ) {
        let file = types::Fixed(inlet.0);
        let count = messages.len();
        for (at, message) in messages.iter_mut().enumerate() {
            let header = &mut message.msg_hdr;
            // Only the last waits: datagrams land in the order of the requests.
            let flags = if at + 1 < count { libc::MSG_DONTWAIT } else { 0 };
            let entry = if bare {
                // SAFETY: the intake has pointed the header at live memory of its own (`Intake::ask`).
                let piece = unsafe { &*header.msg_iov };
                opcode::Recv::new(file, piece.iov_base.cast(), piece.iov_len as u32)
                    .flags(flags | libc::MSG_TRUNC)
                    .build()
            } else {
                opcode::RecvMsg::new(file, header).flags(flags as u32).build()
            };
            self.asked.push(entry.user_data(tag(LANDED, inlet.0, at)));
        }
        let door = &mut self.doors[inlet.0 as usize];
        door.results[..count].fill(None);
        (door.asked, door.taken, door.outstanding) = (count, 0, count);
        (door.bare, door.brought) = (bare, 0);
    }

    #[inline]
    fn idle(&self, inlet: Inlet) -> bool {
        let door = &self.doors[inlet.0 as usize];
        door.taken == door.asked
    }

    #[inline]
    fn landed(&mut self, inlet: Inlet, messages: &mut [libc::mmsghdr]) -> Landed {
        let door = &mut self.doors[inlet.0 as usize];
        let from = door.taken;
        let mut troubled = false;
        while door.taken < door.asked
            && let Some(result) = door.results[door.taken]
        {
            let message = &mut messages[door.taken];
            door.taken += 1;
            self.ready -= 1;
            if result < 0 {
                // Whatever the error is, it is no datagram: nothing there, a signal, an ICMP message about a dead peer.
                troubled |= !matches!(-result, libc::EAGAIN | libc::EINTR | libc::ECANCELED);
                message.msg_len = NOTHING;
                continue;
            }
            door.brought += 1;
            message.msg_len = result as u32;
            if door.bare {
                let header = &mut message.msg_hdr;
                // SAFETY: as in `ask`.
                let room = unsafe { (*header.msg_iov).iov_len };
                (header.msg_controllen, header.msg_namelen) = (0, 0);
                header.msg_flags = if result as usize > room { libc::MSG_TRUNC } else { 0 };
            }
        }
        if door.taken == door.asked && door.asked > 0 {
            // All brought something: there is more. None or few did: each that brings nothing is asked for in vain.
            let all = door.brought == door.asked;
            door.crowd = if all { 2 * door.asked } else { door.brought.next_power_of_two() }.clamp(1, SLOTS);
        }
        Landed { from, to: door.taken, troubled }
    }

    #[inline]
    fn send(
        &mut self,
        inlet: Inlet,
        _socket: RawFd,
        messages: &mut [libc::mmsghdr],
        outcomes: &mut [Outcome],
        counters: &mut TransportCounters,
    ) {
        let file = types::Fixed(inlet.0);
        for (at, message) in messages.iter().enumerate() {
            let header = &message.msg_hdr;
            let bare = header.msg_iovlen == 1 && header.msg_control.is_null();
            let entry = if bare && self.ring.sends_to_addresses() {
                // SAFETY: the stage filled these headers in this flush: names, pieces and control data lie in its own
                // boxed arrays and lanes, and pieces point into frames that its entries hold.
                let piece = unsafe { &*header.msg_iov };
                opcode::Send::new(file, piece.iov_base.cast(), piece.iov_len as u32)
                    .dest_addr(header.msg_name.cast())
                    .dest_addr_len(header.msg_namelen)
                    .flags(libc::MSG_DONTWAIT)
                    .build()
            } else {
                opcode::SendMsg::new(file, header).flags(libc::MSG_DONTWAIT as u32).build()
            };
            self.sent[at] = None;
            self.sending += 1;
            self.push(&entry.user_data(tag(SENT, 0, at)), counters);
        }
        // Behind the sends, which are urgent.
        self.push_asked(counters);
        self.enter(0, counters);
        for _ in 0..PATIENCE_CALLS {
            if self.sending == 0 {
                break;
            }
            // Sends that must not wait complete while they are submitted; this is for those not submitted yet.
            self.enter(1, counters);
        }
        assert!(self.sending == 0, "io_uring keeps sends that must not wait");
        for (outcome, result) in outcomes.iter_mut().zip(&self.sent) {
            *outcome = match result.expect("every send has completed") {
                0.. => Outcome::Sent,
                error => Outcome::Failed(-error),
            };
        }
    }

    fn wait(
        &mut self,
        polled: &mut [libc::pollfd],
        timeout: Duration,
        counters: &mut TransportCounters,
    ) -> bool {
        let staged = polled.iter().any(|polled| polled.events & libc::POLLOUT != 0);
        let timeout = if staged { timeout.min(STAGED_WAIT) } else { timeout };
        // It rang after the wait before had ended: that is read now, or nothing would be waited for that can ring again.
        let timeout = if self.alarm == Alarm::Rung { Duration::ZERO } else { timeout };
        let alarm = polled.last().expect("the alarm is the last").fd;
        if self.alarm == Alarm::Unarmed {
            let poll = opcode::PollAdd::new(types::Fd(alarm), libc::POLLIN as u32).build();
            self.push(&poll.user_data(tag(RANG, 0, 0)), counters);
            self.alarm = Alarm::Armed;
        }
        self.push_asked(counters);
        counters.system_calls += 1;
        self.ring.wait(timeout);
        self.note();
        polled.iter_mut().for_each(|polled| polled.revents = 0);
        let rung = self.alarm == Alarm::Rung;
        if rung {
            self.alarm = Alarm::Unarmed;
        }
        rung
    }

    fn pending(&self) -> bool {
        self.ready > 0
    }

    fn notes(&self) -> &[String] {
        self.ring.notes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::wake;

    #[test]
    fn what_rings_between_two_waits_ends_the_next_and_does_not_silence_the_alarm() {
        const FOREVER: Duration = Duration::from_secs(3600);
        let mut calls = RingCalls::new().unwrap();
        let alarm = wake::Alarm::new().unwrap();
        let counters = &mut TransportCounters::default();
        let mut polled = [libc::pollfd { fd: alarm.descriptor(), events: libc::POLLIN, revents: 0 }];
        assert!(alarm.doze());
        assert!(!calls.wait(&mut polled, Duration::from_millis(1), counters), "nobody rang");
        // The wait is over, and only now does somebody ring who saw the sleeper.
        alarm.waker().wake_by_ref();
        let noted = (0..PATIENCE_CALLS).any(|_| {
            calls.enter(0, counters);
            calls.alarm == Alarm::Rung
        });
        assert!(noted);
        alarm.rise(false);
        assert!(alarm.doze());
        let rung = calls.wait(&mut polled, FOREVER, counters);
        assert!(rung, "there is something to read");
        alarm.rise(rung);
        assert!(alarm.doze());
        alarm.waker().wake_by_ref();
        assert!(calls.wait(&mut polled, FOREVER, counters), "and then the next is heard");
    }
}
