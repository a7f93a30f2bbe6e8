//! Members over udp and over uring in one group.
#![allow(dead_code, unreachable_pub)]

#[path = "either.rs"]
mod either;

use either::Either;
use wadjet::transport::udp::{UdpOptions, UdpTransport};
use wadjet::transport::uring::{UringOptions, UringTransport};

pub type Mixed = Either<UdpTransport, UringTransport>;

impl Mixed {
    /// Members in turn over the one and the other.
    pub fn of(rank: usize, options: &UdpOptions) -> Mixed {
        if rank.is_multiple_of(2) {
            Either::One(UdpTransport::new(options.clone()).unwrap())
        } else {
            Either::Other(UringTransport::new(UringOptions { udp: options.clone() }).unwrap())
        }
    }

    pub fn receive_frames_lent(&self) -> usize {
        match self {
            Either::One(transport) => transport.receive_frames_lent(),
            Either::Other(transport) => transport.receive_frames_lent(),
        }
    }
}
