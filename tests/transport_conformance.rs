//! Every transport keeps the contract of [`wadjet::transport`]. To add one: a [`Bed`] and a line of `conformance!`.

mod conformance;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU32, Ordering};

use conformance::Bed;
use wadjet::transport::memory::{Hub, HubOptions, MemoryTransport};
use wadjet::transport::udp::{MulticastOptions, UdpOptions, UdpTransport};
use wadjet::view::Address;

struct MemoryBed(Hub);

impl MemoryBed {
    fn new() -> MemoryBed {
        MemoryBed(Hub::new(HubOptions { queue_frames_max: 128, ..HubOptions::default() }))
    }
}

impl Bed for MemoryBed {
    type Transport = MemoryTransport;

    fn transport(&mut self, _rank: usize) -> MemoryTransport {
        self.0.transport()
    }

    fn address(&self, rank: usize) -> Address {
        Address(format!("member {rank}"))
    }

    fn lent(transport: &MemoryTransport) -> usize {
        transport.joined_frames_lent()
    }
}

/// Members on loopback addresses of their own, so that tests that run at once do not meet.
struct UdpBed {
    options: UdpOptions,
    network: Ipv4Addr,
}

impl UdpBed {
    fn new(options: UdpOptions) -> UdpBed {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let [_, high, low, _] = (process << 8).to_be_bytes();
        let network = Ipv4Addr::new(127, 1 + high % 250, low, (next * 8 % 248) as u8);
        UdpBed { options, network }
    }

    fn fan_out() -> UdpBed {
        UdpBed::new(UdpOptions::default())
    }

    fn one_by_one() -> UdpBed {
        UdpBed::new(UdpOptions { segmentation: false, coalescing: false, ..UdpOptions::default() })
    }

    fn multicast() -> UdpBed {
        let mut bed = UdpBed::fan_out();
        let [_, _, low, host] = bed.network.octets();
        let group = SocketAddrV4::new(Ipv4Addr::new(239, 255, low, host), 7401);
        bed.options.multicast = Some(MulticastOptions::to(group));
        bed
    }
}

impl Bed for UdpBed {
    type Transport = UdpTransport;

    fn transport(&mut self, _rank: usize) -> UdpTransport {
        UdpTransport::new(self.options.clone()).unwrap()
    }

    fn address(&self, rank: usize) -> Address {
        let [a, b, c, d] = self.network.octets();
        Address(format!("{a}.{b}.{c}.{}:7400", d + 1 + rank as u8))
    }

    fn lent(transport: &UdpTransport) -> usize {
        transport.receive_frames_lent()
    }
}

conformance!(memory, MemoryBed::new());
conformance!(udp_fan_out, UdpBed::fan_out());
conformance!(udp_one_by_one, UdpBed::one_by_one());
conformance!(udp_multicast, UdpBed::multicast());
