//! What UDP does beyond the contract of every transport.

#[path = "common/datagrams.rs"]
mod datagrams;

use wadjet::transport::TransportError;
use wadjet::transport::udp::{UdpOptions, UdpTransport};

type Carrier = UdpTransport;

fn make(options: UdpOptions) -> Result<Carrier, TransportError> {
    UdpTransport::new(options)
}
