//! Who is reached how: routes and hardware addresses from the system's own tables (rtnetlink).
//!
//! Nothing here waits for the network, and nothing but reads: to change the tables takes a lock of the whole host, which is
//! held for tens of milliseconds while some process attaches a program to an interface or ends with one. A neighbour that
//! the system does not know yet is found by the system itself, because frames go to it by an ordinary socket.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::header::Mac;
use crate::sys;

/// How an address is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// By the interface asked about, at the neighbour of this address (a router, or itself).
    Neighbour(Ipv4Addr),
    /// In some other way, which the system knows: another interface, this very host.
    Elsewhere,
    /// Not at all.
    Nowhere,
}

/// The system's tables, as they are in the namespace in which this was made.
pub(crate) struct Tables {
    socket: OwnedFd,
    interface: u32,
    sequence: u32,
    /// What is asked and what is answered, made once: asking goes on while the transport is in use.
    message: Vec<u8>,
    buffer: Vec<u8>,
}

impl Tables {
    pub(crate) fn new(interface: u32) -> io::Result<Tables> {
        let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        let (message, buffer) = (Vec::with_capacity(MESSAGE_BYTES_MAX), vec![0; ANSWER_BYTES]);
        Ok(Tables { socket, interface, sequence: 0, message, buffer })
    }

    /// How an address is reached.
    pub(crate) fn route(&mut self, to: Ipv4Addr) -> io::Result<Route> {
        // struct rtmsg: family, length of the destination's prefix.
        let mut body = [0; ROUTE_BYTES + ADDRESS_BYTES];
        body[..2].copy_from_slice(&[libc::AF_INET as u8, 32]);
        attribute(&mut body[ROUTE_BYTES..], libc::RTA_DST, to);
        let mut route = Route::Nowhere;
        let interface = self.interface;
        let outcome = self.ask(libc::RTM_GETROUTE, libc::NLM_F_REQUEST, &body, |kind, body| {
            if kind != libc::RTM_NEWROUTE || body.len() < ROUTE_BYTES {
                return;
            }
            let (mut by, mut out) = (to, 0);
            for (kind, value) in attributes(&body[ROUTE_BYTES..]) {
                match (kind, value.first_chunk::<4>()) {
                    (libc::RTA_GATEWAY, Some(octets)) => by = Ipv4Addr::from(*octets),
                    (libc::RTA_OIF, Some(index)) => out = u32::from_ne_bytes(*index),
                    _ => {}
                }
            }
            let through = body[7] == libc::RTN_UNICAST && out == interface;
            route = if through { Route::Neighbour(by) } else { Route::Elsewhere };
        });
        match outcome {
            Ok(()) => Ok(route),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => Ok(Route::Nowhere),
                _ => Err(error),
            },
        }
    }

    /// Every neighbour on the interface whose hardware address is known.
    pub(crate) fn neighbours(&mut self, known: &mut HashMap<Ipv4Addr, Mac>) -> io::Result<()> {
        known.clear();
        let interface = self.interface;
        let mut body = [0; NEIGHBOUR_BYTES];
        body[0] = libc::AF_INET as u8;
        body[4..8].copy_from_slice(&interface.to_ne_bytes());
        self.ask(libc::RTM_GETNEIGH, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, &body, |kind, body| {
            if kind != libc::RTM_NEWNEIGH || body.len() < NEIGHBOUR_BYTES {
                return;
            }
            let index = u32::from_ne_bytes(body[4..8].try_into().expect("four bytes"));
            let state = u16::from_ne_bytes([body[8], body[9]]);
            if index != interface || state & USABLE == 0 {
                return;
            }
            let (mut address, mut mac) = (None, None);
            for (kind, value) in attributes(&body[NEIGHBOUR_BYTES..]) {
                match kind {
                    libc::NDA_DST => address = value.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets)),
                    libc::NDA_LLADDR => mac = value.first_chunk::<6>().copied(),
                    _ => {}
                }
            }
            if let (Some(address), Some(mac)) = (address, mac) {
                known.insert(address, mac);
            }
        })
    }

    /// Sends a request and hands over the answer's messages. The system answers before `send` returns, or while the
    /// answer is read: nothing here waits for anybody else.
    fn ask(
        &mut self,
        kind: u16,
        flags: i32,
        body: &[u8],
        mut answer: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let Tables { message, buffer, .. } = self;
        message.clear();
        message.extend(((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((flags as u16).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        let fd = self.socket.as_raw_fd();
        // SAFETY: the message is live and of the length given.
        let sent = unsafe { libc::send(fd, message.as_ptr().cast(), message.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        let one = flags & libc::NLM_F_DUMP != libc::NLM_F_DUMP;
        for _ in 0..ANSWERS_MAX {
            // SAFETY: at most as many bytes of a live buffer are written as it has.
            let got = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
            if got < 0 {
                return Err(io::Error::last_os_error());
            }
            let mut rest = &buffer[..got as usize];
            while let Some((header, body, next)) = split(rest) {
                rest = next;
                if header.sequence != self.sequence {
                    continue;
                }
                match i32::from(header.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => {
                        let code = body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _ => answer(header.kind, body),
                }
                if one {
                    return Ok(());
                }
            }
        }
        Err(io::Error::other("the system's answer does not end"))
    }
}

struct Header {
    kind: u16,
    sequence: u32,
}

/// The first message, its body, and what follows.
fn split(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = u32::from_ne_bytes(header[0..4].try_into().expect("four bytes")) as usize;
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let sequence = u32::from_ne_bytes(header[8..12].try_into().expect("four bytes"));
    let body = bytes.get(HEADER_BYTES..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((Header { kind, sequence }, body, rest))
}

/// Kinds and values of attributes.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Writes an attribute that is an address.
fn attribute(place: &mut [u8], kind: u16, address: Ipv4Addr) {
    place[0..2].copy_from_slice(&(ADDRESS_BYTES as u16).to_ne_bytes());
    place[2..4].copy_from_slice(&kind.to_ne_bytes());
    place[4..8].copy_from_slice(&address.octets());
}

/// Bytes of an attribute that is an address.
const ADDRESS_BYTES: usize = 8;
const MESSAGE_BYTES_MAX: usize = 64;
const HEADER_BYTES: usize = 16;
const ROUTE_BYTES: usize = 12;
const NEIGHBOUR_BYTES: usize = 12;
const ANSWER_BYTES: usize = 32 << 10;
/// A table of some 100,000 neighbours.
const ANSWERS_MAX: usize = 1024;
/// States in which the hardware address may be used: permanent, noarp, reachable, probe, stale, delay.
const USABLE: u16 = libc::NUD_PERMANENT
    | libc::NUD_NOARP
    | libc::NUD_REACHABLE
    | libc::NUD_PROBE
    | libc::NUD_STALE
    | libc::NUD_DELAY;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rubbish_from_the_system_ends(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut rest = &bytes[..];
            let mut messages = 0;
            while let Some((_, body, next)) = split(rest) {
                prop_assert!(next.len() < rest.len());
                messages += 1 + attributes(body).count();
                rest = next;
            }
            prop_assert!(messages <= bytes.len());
        }
    }

    #[test]
    fn this_host_is_reached_elsewhere_than_by_an_interface() {
        let mut tables = Tables::new(u32::MAX).unwrap();
        assert_eq!(tables.route(Ipv4Addr::LOCALHOST).unwrap(), Route::Elsewhere);
        let mut known = HashMap::from([(Ipv4Addr::LOCALHOST, [0; 6])]);
        tables.neighbours(&mut known).unwrap();
        assert!(known.is_empty(), "there is no interface of that number");
    }
}
