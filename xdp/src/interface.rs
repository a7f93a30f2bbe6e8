//! What is to be known about a network interface, asked in the calling thread's network namespace: `/sys/class/net` is
//! that of the namespace in which it was mounted.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::zeroed;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use wadjet::transport::TransportError;

use crate::header::Mac;
use crate::sys;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) mac: Mac,
    pub(crate) mtu: usize,
    pub(crate) driver: String,
}

impl Interface {
    /// The interface of a name, which must be up.
    pub(crate) fn named(name: &str) -> Result<Interface, TransportError> {
        let missing = || TransportError::NoSuchInterface(name.to_owned());
        let terminated = CString::new(name).map_err(|_| missing())?;
        if terminated.as_bytes_with_nul().len() > libc::IFNAMSIZ {
            return Err(missing());
        }
        // SAFETY: the name is a live, terminated string.
        let index = unsafe { libc::if_nametoindex(terminated.as_ptr()) };
        if index == 0 {
            return Err(missing());
        }
        let failed =
            |source| TransportError::Io { what: format!("cannot ask about the interface `{name}`"), source };
        let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).map_err(failed)?;
        let ask = |request| ask(&socket, &terminated, request).map_err(failed);
        // SAFETY: the system has filled the member of the union that belongs to the request.
        let flags = unsafe { ask(libc::SIOCGIFFLAGS)?.ifr_ifru.ifru_flags };
        if i32::from(flags) & libc::IFF_UP == 0 {
            return Err(TransportError::Io {
                what: format!("the interface `{name}` is down; bring it up first: ip link set dev {name} up"),
                source: io::Error::from_raw_os_error(libc::ENETDOWN),
            });
        }
        // SAFETY: as above.
        let mtu = unsafe { ask(libc::SIOCGIFMTU)?.ifr_ifru.ifru_mtu };
        // SAFETY: as above.
        let address = unsafe { ask(libc::SIOCGIFHWADDR)?.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Err(TransportError::Io {
                what: format!(
                    "the interface `{name}` is no Ethernet; choose one that is, or the transport udp"
                ),
                source: io::Error::from_raw_os_error(libc::EOPNOTSUPP),
            });
        }
        let mut mac = [0; 6];
        mac.iter_mut().zip(address.sa_data).for_each(|(byte, given)| *byte = given as u8);
        let driver = driver(&socket, &terminated).unwrap_or_default();
        Ok(Interface { name: name.to_owned(), index, mac, mtu: mtu.max(0) as usize, driver })
    }

    /// The name of the interface that has an address.
    pub(crate) fn of_address(address: Ipv4Addr) -> Result<Option<String>, TransportError> {
        let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
        // SAFETY: the pointer is a live local; the list it is set to is freed below.
        sys::check(unsafe { libc::getifaddrs(&raw mut first) }).map_err(|source| TransportError::Io {
            what: "cannot list the addresses of this host".into(),
            source,
        })?;
        let (mut at, mut found) = (first, None);
        while !at.is_null() && found.is_none() {
            // SAFETY: entries of the list are valid until it is freed; an address is as long as its family says, and
            // names are terminated.
            unsafe {
                let entry = &*at;
                if !entry.ifa_addr.is_null() && i32::from((*entry.ifa_addr).sa_family) == libc::AF_INET {
                    let name = &*entry.ifa_addr.cast::<libc::sockaddr_in>();
                    if Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)) == address {
                        found = Some(CStr::from_ptr(entry.ifa_name).to_string_lossy().into_owned());
                    }
                }
                at = entry.ifa_next;
            }
        }
        // SAFETY: the list came from `getifaddrs` and is not used any more.
        unsafe { libc::freeifaddrs(first) };
        Ok(found)
    }
}

fn request(name: &CStr) -> libc::ifreq {
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { zeroed() };
    let bytes = name.to_bytes();
    request.ifr_name.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte as libc::c_char);
    request
}

fn ask(socket: &OwnedFd, name: &CStr, what: libc::c_ulong) -> io::Result<libc::ifreq> {
    let mut request = request(name);
    // SAFETY: the request is a live local of the type that these calls read and write.
    sys::check(unsafe { libc::ioctl(socket.as_raw_fd(), what as _, &raw mut request) })?;
    Ok(request)
}

/// The name of the interface's driver.
fn driver(socket: &OwnedFd, name: &CStr) -> io::Result<String> {
    /// `struct ethtool_drvinfo`.
    #[repr(C)]
    struct DriverInfo {
        command: u32,
        driver: [u8; 32],
        rest: [u8; 160],
    }
    const ETHTOOL_GDRVINFO: u32 = 3;
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    let mut request = request(name);
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the request points at a live structure of the command's size (196 bytes).
    sys::check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) })?;
    let _ = info.rest;
    let length = info.driver.iter().position(|byte| *byte == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..length]).into_owned())
}
