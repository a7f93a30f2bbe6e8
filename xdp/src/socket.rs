//! An AF_XDP socket: memory registered with the system, four rings, and what binding them to a queue came to.

use std::io;
use std::marker::PhantomData;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use wadjet::buf::Memory;

use crate::ring::{Cells, Consumer, Producer};
use crate::sys;

/// What is asked of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    pub(crate) interface: u32,
    pub(crate) queue: u32,
    pub(crate) chunk_bytes: usize,
    /// Entries of the fill and completion rings, and of the receive and transmit rings; powers of two.
    pub(crate) fill_entries: u32,
    pub(crate) completion_entries: u32,
    pub(crate) receive_entries: u32,
    pub(crate) transmit_entries: u32,
    /// Flags of the bind.
    pub(crate) flags: u16,
}

/// The stage at which a socket failed, and why.
#[derive(Debug)]
pub(crate) enum SocketError {
    /// There is no such kind of socket, or this user may not have one.
    Socket(io::Error),
    /// The memory cannot be registered.
    Memory(io::Error),
    /// A ring cannot be made or mapped.
    Ring(io::Error),
    /// The queue cannot be had in this way.
    Bind(io::Error),
}

/// A bound socket.
pub(crate) struct Socket {
    pub(crate) fill: Producer<u64>,
    pub(crate) completion: Consumer<u64>,
    pub(crate) receive: Consumer<libc::xdp_desc>,
    pub(crate) transmit: Producer<libc::xdp_desc>,
    /// Whether the device reads and writes the memory itself.
    pub(crate) zero_copy: bool,
    /// The most frames the system takes in one call in copy mode.
    pub(crate) budget: u32,
    // After the rings, which lie in them; unmapped and closed in this order.
    _mappings: [Mapping; 4],
    descriptor: OwnedFd,
    /// The system has pinned its pages; we write to them as long as this lives.
    _memory: Memory,
}

/// Frames that the system takes in one call where it cannot be told otherwise.
const BUDGET_DEFAULT: u32 = 32;
/// `XDP_MAX_TX_SKB_BUDGET`, newer than the libc crate.
const MAX_TX_SKB_BUDGET: i32 = 9;
/// What that is raised to, where it can be.
const BUDGET: u32 = 256;

impl Socket {
    /// Registers `memory`, makes the rings and binds them.
    pub(crate) fn new(memory: &Memory, options: &SocketOptions) -> Result<Socket, SocketError> {
        let descriptor = sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0).map_err(SocketError::Socket)?;
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut registration: libc::xdp_umem_reg = unsafe { zeroed() };
        registration.addr = memory.base().as_ptr() as u64;
        registration.len = (memory.bytes() / options.chunk_bytes * options.chunk_bytes) as u64;
        registration.chunk_size = options.chunk_bytes as u32;
        sys::set_option(&descriptor, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)
            .map_err(SocketError::Memory)?;
        let sizes = [
            (libc::XDP_UMEM_FILL_RING, options.fill_entries),
            (libc::XDP_UMEM_COMPLETION_RING, options.completion_entries),
            (libc::XDP_RX_RING, options.receive_entries),
            (libc::XDP_TX_RING, options.transmit_entries),
        ];
        for (ring, entries) in sizes {
            sys::set_option(&descriptor, libc::SOL_XDP, ring, &entries).map_err(SocketError::Ring)?;
        }
        let raised = sys::set_option(&descriptor, libc::SOL_XDP, MAX_TX_SKB_BUDGET, &BUDGET).is_ok();
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { zeroed() };
        let got = sys::get_option(&descriptor, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)
            .map_err(SocketError::Ring)?;
        if got != size_of::<libc::xdp_mmap_offsets>() {
            // Before Linux 5.4 rings had no flags.
            let old =
                io::Error::new(io::ErrorKind::Unsupported, "its rings are those of a kernel before 5.4");
            return Err(SocketError::Ring(old));
        }
        let fd = descriptor.as_raw_fd();
        let map = |ring: &libc::xdp_ring_offset, entries: u32, entry_bytes: usize, at: u64| {
            Mapping::new(fd, ring.desc as usize + entries as usize * entry_bytes, at)
                .map_err(SocketError::Ring)
        };
        let (address, description) = (size_of::<u64>(), size_of::<libc::xdp_desc>());
        let fill = map(&offsets.fr, options.fill_entries, address, libc::XDP_UMEM_PGOFF_FILL_RING)?;
        let completion =
            map(&offsets.cr, options.completion_entries, address, libc::XDP_UMEM_PGOFF_COMPLETION_RING)?;
        let receive = map(&offsets.rx, options.receive_entries, description, libc::XDP_PGOFF_RX_RING as u64)?;
        let transmit =
            map(&offsets.tx, options.transmit_entries, description, libc::XDP_PGOFF_TX_RING as u64)?;
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut name: libc::sockaddr_xdp = unsafe { zeroed() };
        name.sxdp_family = libc::AF_XDP as u16;
        name.sxdp_flags = options.flags;
        name.sxdp_ifindex = options.interface;
        name.sxdp_queue_id = options.queue;
        let length = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
        // SAFETY: the name is a live local of the length given.
        sys::check(unsafe { libc::bind(fd, (&raw const name).cast(), length) }).map_err(SocketError::Bind)?;
        let mut got = libc::xdp_options { flags: 0 };
        let zero_copy = sys::get_option(&descriptor, libc::SOL_XDP, libc::XDP_OPTIONS, &mut got).is_ok()
            && got.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
        Ok(Socket {
            fill: Producer::new(fill.cells(&offsets.fr, options.fill_entries)),
            completion: Consumer::new(completion.cells(&offsets.cr, options.completion_entries)),
            receive: Consumer::new(receive.cells(&offsets.rx, options.receive_entries)),
            transmit: Producer::new(transmit.cells(&offsets.tx, options.transmit_entries)),
            zero_copy,
            budget: if raised { BUDGET } else { BUDGET_DEFAULT },
            _mappings: [fill, completion, receive, transmit],
            descriptor,
            _memory: memory.clone(),
        })
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Has the system look at the transmit ring.
    #[inline]
    pub(crate) fn kick(&self) -> io::Result<()> {
        let fd = self.descriptor.as_raw_fd();
        // SAFETY: nothing is passed but the descriptor: what is to be sent stands in the ring.
        let sent = unsafe { libc::sendto(fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Has the system look at the fill ring.
    #[cold]
    pub(crate) fn wake_receive(&self) {
        // SAFETY: an empty receive: no buffer, no name. What it returns says nothing that the rings do not say.
        unsafe {
            let fd = self.descriptor.as_raw_fd();
            let none = std::ptr::null_mut();
            libc::recvfrom(fd, none, 0, libc::MSG_DONTWAIT, std::ptr::null_mut(), std::ptr::null_mut());
        }
    }

    /// Frames that the system dropped because there was no room for them: in the fill ring, in the receive ring; and
    /// descriptors of ours that it did not understand.
    pub(crate) fn statistics(&self) -> Option<libc::xdp_statistics> {
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut statistics: libc::xdp_statistics = unsafe { zeroed() };
        sys::get_option(&self.descriptor, libc::SOL_XDP, libc::XDP_STATISTICS, &mut statistics).ok()?;
        Some(statistics)
    }
}

/// A ring's memory, unmapped when dropped.
struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(descriptor: RawFd, bytes: usize, at: u64) -> io::Result<Mapping> {
        // SAFETY: a fresh mapping at an address of the system's choice; it touches nothing of ours.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                descriptor,
                at as libc::off_t,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("a mapping is not at zero");
        Ok(Mapping { base, bytes })
    }

    fn cells<T>(&self, offsets: &libc::xdp_ring_offset, entries: u32) -> Cells<T> {
        let end = offsets.desc as usize + entries as usize * size_of::<T>();
        let words = [offsets.producer, offsets.consumer, offsets.flags];
        let inside = words.iter().all(|at| *at as usize + size_of::<AtomicU32>() <= self.bytes);
        assert!(end <= self.bytes && inside, "the system says where its rings lie, and maps them there");
        // SAFETY: just checked to be inside the mapping, which lives in the socket beside the ends made of this.
        let at = |offset: u64| unsafe { self.base.add(offset as usize) };
        Cells {
            producer: at(offsets.producer).cast(),
            consumer: at(offsets.consumer).cast(),
            flags: at(offsets.flags).cast(),
            entries: at(offsets.desc).cast(),
            size: entries,
            owner: PhantomData,
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; the rings in it go with the socket that holds this.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
