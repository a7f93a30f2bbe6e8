//! Which addresses a transport understands, and what is wrong with another.

use std::net::SocketAddr;

use super::TransportError;
use crate::view::{Address, LocalView, Member};

/// What the addresses of a transport are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Names of any kind, which mean something on this host only.
    Names,
    /// `ip:port`.
    Udp(UdpAddresses),
}

/// Addresses of the form `ip:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpAddresses {
    /// Whether they may be of IP version 6.
    pub ipv6: bool,
    /// Whether they may be of the loopback interface.
    pub loopback: bool,
}

impl Addresses {
    /// Whether a process at `other` can be in one view with the one at `own`, as far as can be told from here.
    ///
    /// # Errors
    /// [`TransportError::BadAddress`]: why not.
    pub fn check(self, own: &Address, other: &Address) -> Result<(), TransportError> {
        let Addresses::Udp(udp) = self else { return Ok(()) };
        let parsed = udp.parse(other, false)?;
        let Ok(own) = udp.parse(own, false) else { return Ok(()) };
        udp.beside(own, parsed, other)?;
        one_host(own, parsed, other)
    }

    /// Whether a process at `own` can look for others at `contact`, as far as can be told from here. Its own address among its
    /// contacts is nobody's, and does no harm: all members may be given one list. What is wrong with `own` itself, which may
    /// have port 0 still, is for whoever binds it.
    ///
    /// # Errors
    /// [`TransportError::BadAddress`]: why not.
    pub fn check_contact(self, own: &Address, contact: &Address) -> Result<(), TransportError> {
        let Addresses::Udp(udp) = self else { return Ok(()) };
        let parsed = udp.parse(contact, false)?;
        match udp.parse(own, true) {
            Ok(own) if own != parsed => {
                udp.beside(own, parsed, contact)?;
                one_host(own, parsed, contact)
            }
            _ => Ok(()),
        }
    }
}

/// Whether a member can be found by an address that is a name.
///
/// # Errors
/// [`TransportError::BadAddress`]: why not.
pub(super) fn check_name(address: &Address) -> Result<(), TransportError> {
    match address.0.is_empty() {
        true => {
            let why = "others on this host find a member by its address; give it a name of its own";
            Err(TransportError::BadAddress(address.clone(), why))
        }
        false => Ok(()),
    }
}

impl UdpAddresses {
    /// An address that others can send to; only one that is to be bound may have port 0.
    ///
    /// # Errors
    /// [`TransportError::BadAddress`].
    pub fn parse(self, address: &Address, to_bind: bool) -> Result<SocketAddr, TransportError> {
        let wrong = |why| Err(TransportError::BadAddress(address.clone(), why));
        let Ok(parsed) = address.0.parse::<SocketAddr>() else {
            return wrong(match self.ipv6 {
                true => "write it as ip:port, such as 10.0.0.1:7400 or [fd00::1]:7400",
                false => "write it as ip:port, such as 10.0.0.1:7400",
            });
        };
        if parsed.is_ipv6() && !self.ipv6 {
            return wrong("over AF_XDP addresses are IPv4; write it as 10.0.0.1:7400");
        }
        if parsed.port() == 0 && !to_bind {
            return wrong("port 0 means no port; choose one from 1024 to 65535");
        }
        if parsed.ip().is_unspecified() || parsed.ip().is_multicast() {
            return wrong("others cannot send to it; give the address of one interface");
        }
        if parsed.ip().is_loopback() && !self.loopback {
            return wrong(
                "the loopback interface has no queue for AF_XDP; give that of an Ethernet interface",
            );
        }
        Ok(parsed)
    }

    /// The addresses of a view's members in rank order, and what is wrong with those that nothing can be sent to from here.
    pub fn members(self, view: &LocalView) -> Vec<Result<SocketAddr, TransportError>> {
        let members = &view.view().members;
        let own = self.parse(&members[view.rank().index()].address, false);
        let mut all: Vec<Result<SocketAddr, TransportError>> = Vec::with_capacity(members.len());
        for (rank, Member { address, .. }) in members.iter().enumerate() {
            let mut parsed = self.parse(address, false);
            if let (Ok(other), Ok(own)) = (&parsed, &own)
                && rank != view.rank().index()
            {
                let twice = all.iter().flatten().any(|before| before == other);
                let beside = if twice { taken(address) } else { self.beside(*own, *other, address) };
                parsed = beside.map(|()| *other);
            }
            all.push(parsed);
        }
        all
    }

    /// Whether datagrams go from `own` to `other`, which was written as `address`.
    fn beside(self, own: SocketAddr, other: SocketAddr, address: &Address) -> Result<(), TransportError> {
        if own.is_ipv4() != other.is_ipv4() {
            let why = "that of this process is of the other IP version; give all members one version";
            return Err(TransportError::BadAddress(address.clone(), why));
        }
        if own == other { taken(address) } else { Ok(()) }
    }
}

/// Loopback addresses go with each other. `other` was written as `address`.
fn one_host(own: SocketAddr, other: SocketAddr, address: &Address) -> Result<(), TransportError> {
    if own.ip().is_loopback() == other.ip().is_loopback() {
        return Ok(());
    }
    let why = "loopback addresses are reached on one host only; give all members such, or none";
    Err(TransportError::BadAddress(address.clone(), why))
}

fn taken(address: &Address) -> Result<(), TransportError> {
    let why = "another member of the view has it; every member needs its own";
    Err(TransportError::BadAddress(address.clone(), why))
}
