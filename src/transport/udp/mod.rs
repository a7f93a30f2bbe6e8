//! The portable transport: UDP sockets, by unicast fan-out or IP multicast.
//!
//! A member's address is `ip:port`. Frames leave straight from where they were written: one `sendmmsg` per flush,
//! runs of equal-size frames to one destination as one segmented message (UDP_SEGMENT), heads and bodies gathered by
//! the system. They are received in place, runs coalesced (UDP_GRO). What the system lacks is done without, and
//! [`Caps::notes`] says so.
//!
//! Channels of views in which this member has the same address share a socket. A datagram does not say which of them
//! it belongs to, nor is its sender looked at: it is handed up on the newest, and the cookie or header in it tells.
//!
//! Limits: frames staged ([`UdpOptions::stage_frames_max`]; beyond them [`Full`]); frames being received (see
//! `receive`; beyond them the system's buffer fills, and the system drops). A datagram longer than a frame is dropped
//! and counted, as is a frame that the system will never take (no route, no permission).
#![allow(unsafe_code)]

mod receive;
mod send;
mod socket;

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use self::receive::{Intake, Pools};
use self::send::{LaneId, SocketOutlet, Stage};
use self::socket::{Abilities, Name};
use super::wake::Alarm;
use super::{
    Caps, Channel, ChannelId, ChannelOptions, Destination, Full, Outside, Received, Transmit, Transport,
    TransportCounters, TransportError,
};
use crate::buf::{Pages, Region, RegionOptions};
use crate::id::{GroupId, Rank};
use crate::view::{Address, LocalView};

/// How to use UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// The largest frame, in bytes: the network's MTU without 28 bytes of IPv4 and UDP headers (48 with IPv6).
    pub frame_bytes_max: usize,
    /// Reach all members by IP multicast. Every member of the view must be told the same.
    pub multicast: Option<MulticastOptions>,
    /// Send runs of equal-size frames as one (UDP_SEGMENT), where possible.
    pub segmentation: bool,
    /// Receive runs of equal-size frames as one (UDP_GRO), where possible.
    pub coalescing: bool,
    /// Frames that may be staged at once, whatever the number of their destinations.
    pub stage_frames_max: usize,
    /// Frames staged at which they are sent without waiting for a flush.
    pub stage_frames_flush: usize,
    /// What to ask for as the sockets' receive buffers, in bytes.
    pub receive_buffer_bytes: usize,
    /// What to ask for as the sockets' send buffers, in bytes.
    pub send_buffer_bytes: usize,
}

impl Default for UdpOptions {
    fn default() -> UdpOptions {
        UdpOptions {
            frame_bytes_max: 1472,
            multicast: None,
            segmentation: true,
            coalescing: true,
            stage_frames_max: 512,
            stage_frames_flush: 128,
            receive_buffer_bytes: 8 << 20,
            send_buffer_bytes: 1 << 20,
        }
    }
}

/// How to use IP multicast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MulticastOptions {
    /// The multicast group's address and port.
    pub group: SocketAddrV4,
    /// The interface to use, by name; that of the own address if none is given.
    pub interface: Option<String>,
    /// How many routers a datagram may pass, plus one.
    pub ttl: u8,
    /// Whether members on this host get this member's datagrams.
    pub loopback: bool,
}

impl MulticastOptions {
    /// On the interface of the own address, not past a router, members on this host included.
    pub fn to(group: SocketAddrV4) -> MulticastOptions {
        MulticastOptions { group, interface: None, ttl: 1, loopback: true }
    }
}

/// The transport.
pub struct UdpTransport {
    options: UdpOptions,
    abilities: Abilities,
    ports: Vec<Option<Port>>,
    links: Vec<Option<Link>>,
    alarm: Arc<Alarm>,
    polled: Vec<libc::pollfd>,
    notes: Vec<String>,
    multicast_failed: bool,
    counters: TransportCounters,
}

/// A socket (two with multicast) and the channels that share it.
struct Port {
    own: SocketAddr,
    stage: Stage,
    /// What comes to the own address, by the socket that also sends; and what comes to the multicast group.
    intakes: Vec<Intake>,
    /// The channel that frames are handed up on.
    newest: ChannelId,
    /// Sum of what the open channels may hold.
    receive_frames: usize,
}

/// A channel.
struct Link {
    port: usize,
    /// By rank; none for this member itself.
    lanes: Vec<Option<LaneId>>,
    /// To all at once.
    all: Option<LaneId>,
    frame_bytes: usize,
    receive_frames: usize,
}

impl UdpTransport {
    /// A transport without channels.
    ///
    /// # Errors
    /// [`TransportError`] if the multicast options are wrong or the system gives no sockets.
    pub fn new(options: UdpOptions) -> Result<UdpTransport, TransportError> {
        if let Some(multicast) = &options.multicast {
            socket::interface_index(multicast)?;
            if !multicast.group.ip().is_multicast() || multicast.group.port() == 0 {
                let group = Address(multicast.group.to_string());
                let why = "write the multicast group as address:port with an address from 224.0.0.0/4";
                return Err(TransportError::BadAddress(group, why));
            }
        }
        let mut abilities = socket::probe()?;
        let mut notes = Vec::new();
        if options.segmentation && !abilities.segmentation {
            notes.push("no segmentation (UDP_SEGMENT): every frame is a message of its own".into());
        }
        if options.coalescing && !abilities.coalescing {
            notes.push("no coalescing (UDP_GRO): every frame is received on its own".into());
        }
        abilities.segmentation &= options.segmentation;
        // Runs of fewer than four frames do not pay for the frames of 64 KiB.
        abilities.coalescing &= options.coalescing && options.frame_bytes_max <= 16_000;
        let alarm = Alarm::new()?;
        Ok(UdpTransport {
            options,
            abilities,
            ports: Vec::new(),
            links: Vec::new(),
            polled: Vec::new(),
            alarm,
            notes,
            multicast_failed: false,
            counters: TransportCounters::default(),
        })
    }

    /// Received frames held by anybody, those that wait for datagrams included.
    pub fn receive_frames_lent(&self) -> usize {
        // The intakes of a port share its pools.
        self.ports.iter().flatten().map(|port| port.intakes[0].lent()).sum()
    }

    /// Datagrams that the system dropped because this transport was not fast enough.
    pub fn kernel_drops(&self) -> u64 {
        let ports = self.ports.iter().flatten();
        ports.flat_map(|port| &port.intakes).map(Intake::kernel_drops).sum()
    }

    /// The index of the port for `own`, made if there is none.
    fn port(
        &mut self,
        own: SocketAddr,
        frame_bytes: usize,
        options: &ChannelOptions,
    ) -> Result<usize, TransportError> {
        let known = self.ports.iter().position(|port| port.as_ref().is_some_and(|port| port.own == own));
        let multicast = self.options.multicast.clone().filter(|_| !self.multicast_failed);
        let sockets = 1 + usize::from(multicast.is_some());
        let before = known.and_then(|at| self.ports[at].as_ref()).map_or(0, |port| port.receive_frames);
        let pools = Pools::new(
            before + options.receive_frames,
            sockets,
            frame_bytes,
            self.abilities.coalescing,
            options.huge_pages,
        )?;
        self.note_pages(pools.pages());
        if let Some(at) = known {
            let port = self.ports[at].as_mut().expect("found above");
            port.intakes.iter_mut().for_each(|intake| intake.replace_pools(pools.clone()));
            return Ok(at);
        }
        let unicast = socket::bound(own)?;
        let mut sockets = vec![];
        if let (Some(multicast), IpAddr::V4(ip)) = (&multicast, own.ip()) {
            let interface = socket::interface_index(multicast)?;
            match socket::joined(&unicast, ip, interface, multicast) {
                Ok(socket) => sockets.push((socket, Some(Name::of(own)))),
                Err(error) => {
                    self.multicast_failed = true;
                    self.notes.push(format!(
                        "no multicast to {} ({error}): fan-out instead; this member hears no multicast, so turn it off \
                         at every member",
                        multicast.group
                    ));
                }
            }
        } else if multicast.is_some() {
            self.multicast_failed = true;
            self.notes.push("no multicast with IPv6 addresses: fan-out instead".into());
        }
        sockets.insert(0, (unicast, None));
        let mut intakes = Vec::new();
        for (socket, unwanted) in sockets {
            let asked = self.options.receive_buffer_bytes;
            let got = socket::size_buffers(&socket, asked, self.options.send_buffer_bytes);
            if got < asked {
                self.notes.push(format!(
                    "receive buffer of {got} instead of {asked} bytes: raise /proc/sys/net/core/rmem_max"
                ));
            }
            let intake = Intake::new(socket, unwanted, pools.clone());
            intakes.push(intake.expect("fresh pools hold a reserve for every slot"));
        }
        let stage = Stage::new(self.options.stage_frames_max.max(1), self.abilities.segmentation);
        let port = Port { own, stage, intakes, newest: ChannelId(0), receive_frames: 0 };
        let at = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        if at == self.ports.len() {
            self.ports.push(None);
        }
        self.ports[at] = Some(port);
        Ok(at)
    }

    fn note_pages(&mut self, pages: &Pages) {
        if let Pages::Fallback(why) = pages
            && !self.notes.contains(why)
        {
            self.notes.push(why.clone());
        }
    }

    fn list_polled(&mut self) {
        let intakes = self.ports.iter().flatten().flat_map(|port| &port.intakes);
        let descriptors = intakes.map(Intake::descriptor).chain([self.alarm.descriptor()]);
        self.polled = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    }
}

impl Transport for UdpTransport {
    fn caps(&self) -> Caps {
        let mut notes = self.notes.clone();
        let stages = self.ports.iter().flatten().map(|port| &port.stage);
        let without: usize = stages.map(Stage::lanes_without_segmentation).sum();
        if without > 0 {
            notes.push(format!("the way to {without} members does not segment: single frames to them"));
        }
        Caps {
            name: "udp",
            frame_bytes_max: self.options.frame_bytes_max,
            multicast: self.options.multicast.is_some() && !self.multicast_failed,
            integrity: false,
            loses: true,
            duplicates: true,
            reorders: true,
            zero_copy: true,
            segmentation: self.abilities.segmentation,
            notes,
        }
    }

    fn open(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        let addresses = socket::addresses(view)?;
        let own = addresses[view.rank().index()];
        let frame_bytes_max = self.options.frame_bytes_max;
        let frame_bytes = options.frame_bytes.min(frame_bytes_max);
        let pool = |frames: usize| {
            Region::pool(RegionOptions {
                frames: frames.max(1),
                link_headroom_bytes: 0,
                frame_bytes,
                reserve_frames: 0,
                huge_pages: options.huge_pages,
            })
        };
        let casts = pool(options.cast_frames)?;
        let control = pool(options.control_frames)?;
        self.note_pages(casts.pages());
        // Others may have been told to send longer frames than this member does.
        let port_index = self.port(own, frame_bytes_max, options)?;
        let id = ChannelId(self.links.len() as u32);
        let group = self.options.multicast.as_ref().filter(|_| !self.multicast_failed).map(|m| m.group);
        let port = self.ports[port_index].as_mut().expect("just found or made");
        let mut lanes = Vec::with_capacity(view.size());
        for (rank, address) in addresses.iter().enumerate() {
            let other = rank != view.rank().index();
            lanes.push(other.then(|| port.stage.add_lane(id, Name::of(*address))));
        }
        // With one other member multicast gains nothing, and unicast keeps casts and sends in one order.
        let all = group
            .filter(|_| view.size() > 2)
            .map(|group| port.stage.add_lane(id, Name::of(SocketAddr::V4(group))));
        port.newest = id;
        port.receive_frames += options.receive_frames;
        let receive_frames = options.receive_frames;
        self.links.push(Some(Link { port: port_index, lanes, all, frame_bytes, receive_frames }));
        self.list_polled();
        Ok(Channel { id, casts, control })
    }

    fn close(&mut self, channel: ChannelId) {
        self.flush();
        let Some(link) = self.links.get_mut(channel.0 as usize).and_then(Option::take) else { return };
        let others: Vec<u32> = (0..self.links.len() as u32)
            .filter(|at| self.links[*at as usize].as_ref().is_some_and(|other| other.port == link.port))
            .collect();
        let port = self.ports[link.port].as_mut().expect("a port lives as long as its channels");
        self.counters.dropped += port.stage.remove_lanes(channel);
        port.receive_frames -= link.receive_frames;
        match others.last() {
            Some(newest) => port.newest = ChannelId(*newest),
            None => self.ports[link.port] = None,
        }
        self.list_polled();
    }

    fn bind(&mut self, _group: GroupId, address: &Address) -> Result<Address, TransportError> {
        Ok(address.clone())
    }

    fn send_outside(&mut self, _group: GroupId, _to: &Outside, _bytes: &[u8]) {
        self.counters.dropped += 1;
    }

    fn exclude(&mut self, _channel: ChannelId, _rank: Rank) {}

    #[inline]
    fn submit(&mut self, transmit: Transmit) -> Result<(), Full> {
        let link = self.links.get(transmit.channel.0 as usize).and_then(Option::as_ref);
        let Some(link) = link.filter(|link| transmit.len() <= link.frame_bytes) else {
            self.counters.dropped += 1;
            return Ok(());
        };
        let port = self.ports[link.port].as_mut().expect("a port lives as long as its channels");
        if port.stage.is_full() {
            return Err(Full(transmit));
        }
        transmit.head.submit();
        match (transmit.to, link.all) {
            (Destination::All, Some(all)) => port.stage.put(transmit, [all].into_iter()),
            (Destination::All, None) => port.stage.put(transmit, link.lanes.iter().copied().flatten()),
            (Destination::One(rank), _) => {
                port.stage.put(transmit, link.lanes.get(rank.index()).copied().flatten().into_iter());
            }
            (Destination::Some(ranks), _) => {
                let lanes = ranks.iter().filter_map(|rank| link.lanes.get(rank.index()).copied().flatten());
                port.stage.put(transmit, lanes);
            }
        }
        if port.stage.len().is_multiple_of(self.options.stage_frames_flush.max(1)) {
            port.flush(&mut self.counters);
        }
        Ok(())
    }

    #[inline]
    fn flush(&mut self) {
        for port in self.ports.iter_mut().flatten() {
            port.flush(&mut self.counters);
        }
    }

    /// Tries again to send what the system did not take. Everything else is finished when its system call is.
    #[inline]
    fn reap(&mut self) {
        self.flush();
    }

    #[inline]
    fn receive(&mut self, budget: usize, sink: &mut impl FnMut(Received)) -> usize {
        let mut received = 0;
        for port in self.ports.iter_mut().flatten() {
            for intake in &mut port.intakes {
                received += intake.receive(port.newest, budget - received, &mut self.counters, sink);
            }
        }
        received
    }

    #[inline]
    fn busy(&self, channel: ChannelId) -> bool {
        let link = self.links.get(channel.0 as usize).and_then(Option::as_ref);
        let port = link.and_then(|link| self.ports[link.port].as_ref());
        port.is_some_and(|port| !port.stage.is_empty())
    }

    fn wait(&mut self, timeout: Duration) {
        let pending = |port: &Port| port.intakes.iter().any(Intake::pending);
        if self.ports.iter().flatten().any(pending) || !self.alarm.doze() {
            return;
        }
        let mut polled = self.polled.iter_mut();
        for port in self.ports.iter().flatten() {
            let out = if port.stage.is_empty() { 0 } else { libc::POLLOUT };
            for (at, polled) in polled.by_ref().take(port.intakes.len()).enumerate() {
                polled.events = libc::POLLIN | if at == 0 { out } else { 0 };
            }
        }
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().min(1 << 30) as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        self.counters.system_calls += 1;
        // SAFETY: the array is live and of the length given; its descriptors are open, for the list is made anew
        // whenever a port is opened or closed.
        let ready = unsafe {
            libc::ppoll(
                self.polled.as_mut_ptr(),
                self.polled.len() as libc::nfds_t,
                &raw const timeout,
                std::ptr::null(),
            )
        };
        let alarm: RawFd = self.alarm.descriptor();
        let rung = ready > 0 && self.polled.iter().any(|p| p.fd == alarm && p.revents != 0);
        self.counters.system_calls += self.alarm.rise(rung);
    }

    fn waker(&self) -> Waker {
        self.alarm.waker()
    }

    fn counters(&self) -> TransportCounters {
        self.counters
    }
}

impl Port {
    #[inline]
    fn flush(&mut self, counters: &mut TransportCounters) {
        if !self.stage.is_empty() {
            let mut outlet = SocketOutlet(self.intakes[0].descriptor());
            self.stage.flush(&mut outlet, counters);
        }
    }
}

impl std::fmt::Debug for UdpTransport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("UdpTransport")
            .field("options", &self.options)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
