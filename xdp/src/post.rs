//! The ordinary UDP sockets beside the ring.
//!
//! Each address of this process is bound by one, so that nobody else takes it; multicast groups are joined by one, or
//! switches would not forward them. By them goes what does not go by the ring: datagrams to neighbours whose hardware
//! address the system does not know yet (it asks when it is sent to), to this very host, and outside any view; and by
//! them comes what the XDP program passes on: fragments, runs left to be segmented, and what reaches the host by
//! another interface or queue.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use wadjet::transport::TransportError;
use wadjet::view::Address;

use crate::sys;

/// An ordinary socket.
pub(crate) struct Post {
    socket: OwnedFd,
    /// Whose datagrams are not wanted: this member's own, which multicast brings back.
    own: Option<SocketAddrV4>,
    /// Whether the last look found something.
    pub(crate) flowing: bool,
}

impl Post {
    /// The socket of an own address; a port 0 is filled in.
    pub(crate) fn bound(
        own: SocketAddrV4,
        buffer_bytes: usize,
    ) -> Result<(Post, SocketAddrV4), TransportError> {
        let failed = |what: &str, source| TransportError::Io { what: format!("{what} `{own}`"), source };
        let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0)
            .map_err(|source| failed("cannot make a socket for", source))?;
        if let Err(error) = bind(&socket, own) {
            let address = Address(own.to_string());
            return Err(match error.raw_os_error() {
                Some(libc::EADDRINUSE) => TransportError::AddressInUse(address),
                Some(libc::EADDRNOTAVAIL) => TransportError::BadAddress(
                    address,
                    "no interface of this host has this IP address; `ip addr` lists those there are",
                ),
                Some(libc::EACCES | libc::EPERM) => TransportError::Permission {
                    what: format!("address `{own}`"),
                    remedy: "choose a port from 1024 on, or give the process CAP_NET_BIND_SERVICE".into(),
                },
                _ => failed("cannot bind to", error),
            });
        }
        let own = local_address(&socket).map_err(|source| failed("cannot ask for the port of", source))?;
        size_buffers(&socket, buffer_bytes);
        Ok((Post { socket, own: None, flowing: false }, own))
    }

    /// A socket that has joined a multicast group, whose datagrams `sender` can send from here on.
    pub(crate) fn joined(
        sender: &Post,
        own: SocketAddrV4,
        group: SocketAddrV4,
        interface: u32,
        ttl: u8,
        buffer_bytes: usize,
    ) -> io::Result<Post> {
        let membership = libc::ip_mreqn {
            imr_multiaddr: libc::in_addr { s_addr: u32::from(*group.ip()).to_be() },
            imr_address: libc::in_addr { s_addr: u32::from(*own.ip()).to_be() },
            imr_ifindex: interface as i32,
        };
        let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, 0)?;
        // Every member on this host binds the group's port; each gets a copy.
        sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32)?;
        bind(&socket, group)?;
        sys::set_option(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, &0_i32)?;
        sys::set_option(&socket, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &membership)?;
        sys::set_option(&sender.socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &membership)?;
        sys::set_option(&sender.socket, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, &i32::from(ttl))?;
        size_buffers(&socket, buffer_bytes);
        Ok(Post { socket, own: Some(own), flowing: false })
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Sends one datagram of several parts, or none: it never blocks.
    pub(crate) fn send(&self, to: SocketAddrV4, parts: [&[u8]; 2]) -> io::Result<()> {
        let name = name_of(to);
        let mut pieces =
            parts.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut header: libc::msghdr = unsafe { zeroed() };
        header.msg_name = (&raw const name).cast_mut().cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_iov = pieces.as_mut_ptr();
        header.msg_iovlen = pieces.len();
        // SAFETY: the header points at live locals and at the parts, which the call only reads.
        let sent = unsafe { libc::sendmsg(self.socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes a datagram into `bytes`, if there is one: its length, which may be more than there is room for, or none if
    /// it is not wanted.
    pub(crate) fn receive(&self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut name: libc::sockaddr_in = unsafe { zeroed() };
        let mut length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        // SAFETY: at most as many bytes are written as the buffer, and the name, have; both are live.
        let got = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                bytes.as_mut_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                (&raw mut name).cast(),
                &raw mut length,
            )
        };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        let from = address_of(&name);
        Ok((self.own != Some(from)).then_some(got as usize))
    }
}

fn name_of(address: SocketAddrV4) -> libc::sockaddr_in {
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut name: libc::sockaddr_in = unsafe { zeroed() };
    name.sin_family = libc::AF_INET as libc::sa_family_t;
    name.sin_port = address.port().to_be();
    name.sin_addr.s_addr = u32::from(*address.ip()).to_be();
    name
}

fn address_of(name: &libc::sockaddr_in) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)), u16::from_be(name.sin_port))
}

fn bind(socket: &OwnedFd, address: SocketAddrV4) -> io::Result<()> {
    let name = name_of(address);
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the name is a live local of the length given.
    sys::check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), length) })
}

fn local_address(socket: &OwnedFd) -> io::Result<SocketAddrV4> {
    let mut name = name_of(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let mut length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: at most `length` bytes of a live local are written.
    sys::check(unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut name).cast(), &raw mut length) })?;
    Ok(address_of(&name))
}

/// What the system grants is enough: little goes this way.
fn size_buffers(socket: &OwnedFd, bytes: usize) {
    let bytes = bytes.min(i32::MAX as usize / 2) as i32;
    if sys::set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes).is_err() {
        let _ = sys::set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes);
    }
}
