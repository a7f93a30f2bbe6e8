//! Sockets and addresses: everything that is asked of the system before the first frame.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::MulticastOptions;
use crate::transport::TransportError;
use crate::view::Address;

/// A socket address as the system takes it.
#[derive(Clone, Copy)]
pub(super) struct Name {
    pub(super) storage: libc::sockaddr_storage,
    pub(super) length: libc::socklen_t,
    /// Nobody receives there over AF_XDP, where a short run would be taken for one frame.
    pub(super) takes_short_runs: bool,
}

impl Name {
    pub(super) fn of(address: SocketAddr) -> Name {
        // SAFETY: all zeros is a valid `sockaddr_storage`.
        let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
        let length = match address {
            SocketAddr::V4(address) => {
                let name = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                    sin_zero: [0; 8],
                };
                // SAFETY: a `sockaddr_storage` has room and alignment for every kind of address.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(name) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(address) => {
                let name = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                };
                // SAFETY: as above.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(name) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        let takes_short_runs = address.is_ipv6() || address.ip().is_loopback();
        Name { storage, length: length as libc::socklen_t, takes_short_runs }
    }

    /// An address to be filled in by the system.
    pub(super) fn blank() -> Name {
        // SAFETY: all zeros is a valid `sockaddr_storage`.
        let storage = unsafe { zeroed() };
        Name {
            storage,
            length: size_of::<libc::sockaddr_storage>() as libc::socklen_t,
            takes_short_runs: false,
        }
    }

    /// The address, if it is one.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: a `sockaddr_storage` is larger than a `sockaddr_in` and fully initialised.
                let name = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
                Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(name.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: as above, of a `sockaddr_in6`.
                let name = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(name.sin6_port)))
            }
            _ => None,
        }
    }

    /// Whether `other` is the same IPv4 address and port.
    #[inline]
    pub(super) fn same_v4(&self, other: &Name) -> bool {
        let fields = |name: &Name| {
            // SAFETY: a `sockaddr_storage` is larger than a `sockaddr_in` and fully initialised; the family is read
            // first and the rest means something only if it is equal on both sides.
            let name = unsafe { &*(&raw const name.storage).cast::<libc::sockaddr_in>() };
            (name.sin_family, name.sin_port, name.sin_addr.s_addr)
        };
        fields(self) == fields(other)
    }
}

/// Whether two addresses are of the same IP address and port.
#[inline]
pub(super) fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip() == other.ip()
}

/// What the system's UDP can do here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abilities {
    pub(super) segmentation: bool,
    pub(super) coalescing: bool,
}

/// Asks a throw-away socket.
pub(super) fn probe() -> Result<Abilities, TransportError> {
    let socket = new_socket(true)?;
    Ok(Abilities {
        segmentation: get_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok(),
        coalescing: set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, &1_i32).is_ok(),
    })
}

/// The socket of a member's own address; it sends everything and receives what is sent to that address.
pub(super) fn bound(own: SocketAddr) -> Result<OwnedFd, TransportError> {
    let socket = new_socket(own.is_ipv4())?;
    let Err(error) = bind(&socket, own) else { return Ok(socket) };
    let address = Address(own.to_string());
    Err(match error.raw_os_error() {
        Some(libc::EADDRINUSE) => TransportError::AddressInUse(address),
        Some(libc::EADDRNOTAVAIL) => TransportError::BadAddress(
            address,
            "no interface of this host has this IP address; `ip addr` lists those there are",
        ),
        Some(libc::EACCES | libc::EPERM) => TransportError::Permission {
            what: format!("address `{own}`"),
            remedy: "choose a port from 1024 on, or give the process CAP_NET_BIND_SERVICE".into(),
        },
        _ => TransportError::Io { what: format!("cannot bind to `{own}`"), source: error },
    })
}

/// The address a socket is bound to, its port filled in by the system.
pub(super) fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let mut name = Name::blank();
    // SAFETY: at most `length` bytes of a live local are written.
    check(unsafe {
        libc::getsockname(socket.as_raw_fd(), (&raw mut name.storage).cast(), &raw mut name.length)
    })?;
    name.address().ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// Sends one datagram, or none: it never blocks.
pub(super) fn send(socket: RawFd, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let name = Name::of(to);
    // SAFETY: the name and the bytes are live for the call and of the lengths given.
    let sent = unsafe {
        let to = (&raw const name.storage).cast();
        libc::sendto(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT, to, name.length)
    };
    check(sent.min(0) as i32)
}

/// Has the system report what the network says about datagrams that were sent (ICMP), or not.
pub(super) fn report_errors(socket: &OwnedFd, v4: bool, on: bool) -> io::Result<()> {
    let (level, option) =
        if v4 { (libc::IPPROTO_IP, libc::IP_RECVERR) } else { (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) };
    set_option(socket, level, option, &i32::from(on))?;
    if !on {
        // The queue is emptied; an error that was about to be reported would be taken for that of the next call.
        get_option(socket, libc::SOL_SOCKET, libc::SO_ERROR)?;
    }
    Ok(())
}

/// What the network says of a datagram that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nobody listens where it went.
    Refused(SocketAddr),
    /// On the way there something takes no more than so many bytes.
    Narrow(SocketAddr, u32),
    /// Nothing of interest.
    Else,
}

/// The next thing the network said.
pub(super) fn next_error(socket: RawFd) -> Option<Said> {
    let mut name = Name::blank();
    let mut control = ErrorControl([0; 128]);
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = (&raw mut name.storage).cast();
    header.msg_namelen = name.length;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    // SAFETY: the header points at live locals of the lengths it gives; no bytes of the datagram are asked for.
    let result = unsafe { libc::recvmsg(socket, &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if result < 0 {
        return None;
    }
    // SAFETY: the system has filled the control data and its length; the walk stays inside.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !at.is_null() {
        // SAFETY: `CMSG_FIRSTHDR` and `CMSG_NXTHDR` give headers that lie inside the control data as a whole.
        let (level, kind, length) = unsafe { ((*at).cmsg_level, (*at).cmsg_type, (*at).cmsg_len) };
        let about_errors = (level, kind) == (libc::IPPROTO_IP, libc::IP_RECVERR)
            || (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR);
        if about_errors && length >= size_of::<libc::cmsghdr>() + size_of::<libc::sock_extended_err>() {
            // SAFETY: the message's data is as long as was just checked; it need not be aligned.
            let error = unsafe { libc::CMSG_DATA(at).cast::<libc::sock_extended_err>().read_unaligned() };
            return Some(match (name.address(), error.ee_errno as i32) {
                (Some(address), libc::ECONNREFUSED) => Said::Refused(address),
                (Some(address), libc::EMSGSIZE) => Said::Narrow(address, error.ee_info),
                _ => Said::Else,
            });
        }
        // SAFETY: as for the first.
        at = unsafe { libc::CMSG_NXTHDR(&raw const header, at) };
    }
    Some(Said::Else)
}

/// Room for what the system says about an error.
#[repr(C, align(8))]
struct ErrorControl([u8; 128]);

/// The MTU of the interface that has this address, in bytes; `None` if no interface has it, or the system does not say. All
/// loopback addresses are those of one interface, which names but the first.
pub(super) fn mtu_of(own: IpAddr, socket: &OwnedFd) -> Option<usize> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the pointer is a live local; the list it is set to is freed below.
    if unsafe { libc::getifaddrs(&raw mut first) } < 0 {
        return None;
    }
    let (mut at, mut found) = (first, None);
    while !at.is_null() && found.is_none() {
        // SAFETY: entries of the list are valid until it is freed.
        let entry = unsafe { &*at };
        // SAFETY: an address of the list is as long as its family says.
        let of_entry = unsafe { ip_of(entry.ifa_addr) };
        if of_entry.is_some_and(|ip| ip == own || ip.is_ipv4() && ip.is_loopback() && own.is_loopback()) {
            // SAFETY: all zeros is a valid value of this plain structure.
            let mut request: libc::ifreq = unsafe { zeroed() };
            // SAFETY: names of the list are terminated, and as long as an interface's name may be.
            let name = unsafe { std::ffi::CStr::from_ptr(entry.ifa_name) }.to_bytes();
            let room = request.ifr_name.len() - 1;
            request.ifr_name.iter_mut().zip(&name[..name.len().min(room)]).for_each(|(to, byte)| {
                *to = *byte as libc::c_char;
            });
            // SAFETY: the request is live, and its name terminated.
            let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) };
            // SAFETY: the system has filled the member of the union that belongs to the request.
            found = (asked == 0).then(|| unsafe { request.ifr_ifru.ifru_mtu }.max(0) as usize);
        }
        at = entry.ifa_next;
    }
    // SAFETY: the list came from `getifaddrs` and is not used any more.
    unsafe { libc::freeifaddrs(first) };
    found
}

/// The internet address that a socket address holds, if it is one.
///
/// # Safety
/// `address` is null, or points to a socket address as long as its family says.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe {
        match i32::from((*address).sa_family) {
            libc::AF_INET => {
                let name = &*address.cast::<libc::sockaddr_in>();
                Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr))))
            }
            libc::AF_INET6 => {
                let name = &*address.cast::<libc::sockaddr_in6>();
                Some(IpAddr::V6(Ipv6Addr::from(name.sin6_addr.s6_addr)))
            }
            _ => None,
        }
    }
}

/// The interface by which multicast goes, if one is named.
pub(super) fn interface_index(options: &MulticastOptions) -> Result<i32, TransportError> {
    let Some(interface) = &options.interface else { return Ok(0) };
    let missing = || TransportError::NoSuchInterface(interface.clone());
    let name = std::ffi::CString::new(interface.as_str()).map_err(|_| missing())?;
    // SAFETY: the name is a live, terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(missing()),
        index => Ok(index as i32),
    }
}

/// A socket that receives what is sent to the multicast group, and `sender` made ready to send to it.
pub(super) fn joined(
    sender: &OwnedFd,
    own: Ipv4Addr,
    interface: i32,
    options: &MulticastOptions,
) -> io::Result<OwnedFd> {
    let membership = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: u32::from(*options.group.ip()).to_be() },
        imr_address: libc::in_addr { s_addr: u32::from(own).to_be() },
        imr_ifindex: interface,
    };
    let socket = new_socket(true).map_err(io::Error::other)?;
    // Every member on this host binds the group's port; each gets a copy.
    set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32)?;
    bind(&socket, SocketAddr::V4(SocketAddrV4::new(*options.group.ip(), options.group.port())))?;
    set_option(&socket, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, &0_i32)?;
    set_option(&socket, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &membership)?;
    set_option(sender, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &membership)?;
    set_option(sender, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, &i32::from(options.ttl))?;
    set_option(sender, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, &i32::from(options.loopback))?;
    Ok(socket)
}

/// Lets the system coalesce runs of datagrams for this socket, or not. That it can was found by [`probe`].
pub(super) fn coalesce(socket: &OwnedFd, on: bool) {
    let result = set_option(socket, libc::SOL_UDP, libc::UDP_GRO, &i32::from(on));
    debug_assert!(result.is_ok());
}

/// Sizes the socket's buffers; returns what the receive buffer came to, in bytes of the system's own accounting.
pub(super) fn size_buffers(socket: &OwnedFd, receive_bytes: usize, send_bytes: usize) -> usize {
    let clamp = |bytes: usize| bytes.min(i32::MAX as usize / 2) as i32;
    let force = |force, ordinary, bytes| {
        if set_option(socket, libc::SOL_SOCKET, force, &clamp(bytes)).is_err() {
            // What it grants is asked below; that it grants less is a note and not an error.
            let _ = set_option(socket, libc::SOL_SOCKET, ordinary, &clamp(bytes));
        }
    };
    force(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, receive_bytes);
    force(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, send_bytes);
    // The system doubles what it is asked for, for its own book-keeping.
    get_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF).map_or(0, |bytes| bytes.max(0) as usize / 2)
}

/// How many datagrams the system dropped because the socket's buffer was full.
pub(super) fn drops(socket: RawFd) -> u64 {
    let mut memory = [0_u32; 9];
    let mut length = size_of_val(&memory) as libc::socklen_t;
    // SAFETY: at most `length` bytes of a live local array are written.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            memory.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { u64::from(memory[8]) } else { 0 }
}

fn new_socket(v4: bool) -> Result<OwnedFd, TransportError> {
    let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers are passed.
    let socket =
        unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        let source = io::Error::last_os_error();
        let what = match source.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => "cannot make a socket; raise the limit on open files",
            Some(libc::EAFNOSUPPORT) => "cannot make a socket; this host does not speak that IP version",
            _ => "cannot make a socket",
        };
        return Err(TransportError::Io { what: what.into(), source });
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let name = Name::of(address);
    // SAFETY: the name is a live local of at least the length given.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name.storage).cast(), name.length) })
}

fn set_option<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value is live and of the length given; callers pass the type the option takes.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length)
    })
}

fn get_option(socket: &OwnedFd, level: i32, option: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: four bytes of a live local are written at most.
    check(unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut length)
    })?;
    Ok(value)
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_needs_privilege_is_refused_in_words_that_say_what_to_do() {
        let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
        if first.trim().parse::<u16>().unwrap() < 2 {
            // Here every port is everybody's.
            return;
        }
        // Capabilities belong to a thread: this one gives all of its own up.
        let refused = std::thread::spawn(|| {
            let header = [0x2008_0522_u32, 0];
            let none = [0_u32; 6];
            // SAFETY: version 3 of the call reads a header of two words and six words of capability sets, which both
            // arrays are.
            let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
            assert_eq!(result, 0);
            bound("127.0.0.1:1".parse().unwrap()).unwrap_err()
        })
        .join()
        .unwrap();
        assert!(matches!(&refused, TransportError::Permission { .. }), "{refused}");
        assert!(refused.to_string().contains("choose a port from 1024 on"), "{refused}");
    }

    #[test]
    fn what_the_receive_buffer_came_to_is_known() {
        let socket = new_socket(true).unwrap();
        let got = size_buffers(&socket, 1 << 16, 1 << 16);
        assert_eq!(got, 1 << 16);
    }
}
