//! What the transports that carry frames as UDP datagrams have in common: sockets, channels that share them, staging by
//! destination, runs of equal frames, the frames that datagrams land in. How datagrams get into the system and out of it
//! is a parameter ([`Calls`]): by calls of their own in [`udp`](super::udp), through a ring in [`uring`](super::uring).
#![allow(unsafe_code)]

pub(crate) mod calls;
pub(crate) mod receive;
mod refusals;
pub(crate) mod send;
mod socket;
mod spares;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use self::calls::Calls;
use self::receive::{Intake, Pools};
use self::refusals::Refusals;
use self::send::{LaneId, RUN_FRAME_BYTES_MAX, SocketOutlet, Stage};
use self::socket::{Abilities, Name};
use self::spares::{Lengths, Regions, Spares};
use super::links::Links;
use super::udp::{MulticastOptions, UdpOptions};
use super::wake::Alarm;
use super::{
    Addresses, Caps, Channel, ChannelId, ChannelOptions, Destination, Full, OUTSIDE_BYTES_MAX, Outside,
    Received, Transmit, Transport, TransportCounters, TransportError, UdpAddresses,
};
use crate::buf::Pages;
use crate::id::{GroupId, Rank, RankSet};
use crate::transport::untouched::Untouched;
use crate::view::{Address, LocalView};

/// A transport of UDP datagrams.
pub struct Datagrams<C: Calls> {
    /// First, so that what was asked for of the system is given up before the frames that it would land in.
    calls: C,
    options: UdpOptions,
    abilities: Abilities,
    ports: Vec<Option<Port>>,
    /// The port that is read first: the one after that which took the last of a budget.
    first: usize,
    links: Links<Link>,
    spares: Spares,
    /// Memory that was mapped for channels, and calls until more of it is touched.
    untouched: Untouched,
    rest: u32,
    alarm: Arc<Alarm>,
    polled: Vec<libc::pollfd>,
    notes: Vec<String>,
    multicast_failed: bool,
    counters: TransportCounters,
}

/// A socket (two with multicast, one more for discovery), the channels that share it, and the groups that are reached
/// there.
struct Port {
    own: SocketAddr,
    /// The longest frames that go out by its interface in one piece.
    lengths: Lengths,
    stage: Stage,
    pools: Pools,
    /// What comes to the own address, by the socket that also sends; and what comes to the multicast group.
    intakes: Vec<Intake>,
    discovery: Option<Intake>,
    /// The intake that is read first: the one after that which took the last of a budget.
    first: usize,
    /// Calls until discovery is looked at again: it is rare and in no hurry, and a look costs a system call.
    rest: u32,
    refusals: Refusals,
    groups: Vec<GroupId>,
    /// Open channels, oldest first. Frames are handed up on the last.
    channels: Vec<ChannelId>,
    /// Sum of what the open channels may hold.
    receive_frames: usize,
}

/// The longest datagram, over IPv6.
const LONG_FRAME_BYTES_MAX: usize = 65_487;

/// How many calls of [`Transport::reap`] pass before the first part of a new channel's memory is touched, for what a new
/// view brings with it comes first; and between two parts.
const FIRST_REST: u32 = 8;
const STEP_REST: u32 = 1;

/// How many calls of [`Transport::receive`] pass between two looks at the discovery address.
const DISCOVERY_REST: u32 = 64;

/// How long an address may stay in use after its holder was killed, and how often it is tried meanwhile.
const AFTERLIFE_MAX: Duration = Duration::from_millis(500);
const AFTERLIFE_PAUSE: Duration = Duration::from_millis(5);

const ADDRESSES: UdpAddresses = UdpAddresses { ipv6: true, loopback: true };

/// A channel.
struct Link {
    group: GroupId,
    port: usize,
    /// By rank; none for this member itself, and for those that are excluded.
    lanes: Vec<Option<LaneId>>,
    /// By rank; none for those whose address means nothing here.
    addresses: Vec<Option<SocketAddr>>,
    /// Members at whose addresses nobody listens, as the network says.
    gone: RankSet,
    /// To all at once.
    all: Option<LaneId>,
    lengths: Lengths,
    receive_frames: usize,
    regions: Regions,
}

impl<C: Calls> Datagrams<C> {
    /// A transport without channels.
    ///
    /// # Errors
    /// [`TransportError`] if the multicast options are wrong or the system gives no sockets.
    pub(super) fn over(calls: C, options: UdpOptions) -> Result<Datagrams<C>, TransportError> {
        if let Some(multicast) = &options.multicast {
            socket::interface_index(multicast)?;
            if !multicast.group.ip().is_multicast() || multicast.group.port() == 0 {
                let group = Address(multicast.group.to_string());
                let why = "write the multicast group as address:port with an address from 224.0.0.0/4";
                return Err(TransportError::BadAddress(group, why));
            }
        }
        if let Some(discovery) = options.discovery {
            let wrong = |why| Err(TransportError::BadAddress(Address(discovery.to_string()), why));
            if !discovery.ip().is_multicast() || discovery.port() == 0 {
                return wrong("write the discovery address as address:port with an address from 224.0.0.0/4");
            }
            if options.multicast.as_ref().is_some_and(|multicast| multicast.group == discovery) {
                return wrong("it is that of the multicast group; give discovery a port of its own");
            }
        }
        let mut abilities = socket::probe()?;
        let mut notes = calls.notes().to_vec();
        if options.segmentation && !abilities.segmentation {
            notes.push("no segmentation (UDP_SEGMENT): every frame is a message of its own".into());
        }
        if options.coalescing && !abilities.coalescing {
            notes.push("no coalescing (UDP_GRO): every frame is received on its own".into());
        }
        abilities.segmentation &= options.segmentation;
        // What is not received in runs does not pay for the frames of 64 KiB.
        abilities.coalescing &= options.coalescing && options.frame_bytes_max <= RUN_FRAME_BYTES_MAX;
        let alarm = Alarm::new()?;
        Ok(Datagrams {
            calls,
            options,
            abilities,
            ports: Vec::new(),
            first: 0,
            links: Links::new(),
            spares: Spares::default(),
            untouched: Untouched::default(),
            rest: 0,
            polled: Vec::new(),
            alarm,
            notes,
            multicast_failed: false,
            counters: TransportCounters::default(),
        })
    }

    /// Received frames held by anybody, those that wait for datagrams included.
    pub fn receive_frames_lent(&self) -> usize {
        self.ports.iter().flatten().map(|port| port.pools.lent()).sum()
    }

    /// Bytes of memory for received frames, whether held or not. It grows when channels are opened
    /// or prepared, never in between.
    pub fn receive_bytes(&self) -> usize {
        self.ports.iter().flatten().map(|port| port.pools.bytes()).sum()
    }

    /// The socket of a member's own address.
    fn bound(&self, own: SocketAddr) -> Result<OwnedFd, TransportError> {
        let begun = Instant::now();
        loop {
            match socket::bound(own) {
                // The system ends what lasts of a process that was killed some time after the process.
                Err(TransportError::AddressInUse(_)) if C::LASTING && begun.elapsed() < AFTERLIFE_MAX => {
                    std::thread::sleep(AFTERLIFE_PAUSE);
                }
                bound => return bound,
            }
        }
    }

    /// The index of the port for `own`, made if there is none.
    fn port(&mut self, own: SocketAddr, huge_pages: bool) -> Result<usize, TransportError> {
        let is_own = |port: &Option<Port>| port.as_ref().is_some_and(|port| port.own == own);
        if let Some(at) = self.ports.iter().position(is_own) {
            return Ok(at);
        }
        let unicast = self.bound(own)?;
        let unbound =
            |source| TransportError::Io { what: format!("cannot ask for the port of `{own}`"), source };
        let own = socket::local_address(&unicast).map_err(unbound)?;
        let mut sockets = vec![];
        match (self.options.multicast.clone().filter(|_| !self.multicast_failed), own.ip()) {
            (Some(multicast), IpAddr::V4(ip)) => {
                let interface = socket::interface_index(&multicast)?;
                match socket::joined(&unicast, ip, interface, &multicast) {
                    Ok(socket) => sockets.push((socket, Some(Name::of(own)))),
                    Err(error) => {
                        self.multicast_failed = true;
                        self.notes.push(format!(
                            "no multicast to {} ({error}): fan-out instead; this member hears no multicast, so turn it \
                             off at every member",
                            multicast.group
                        ));
                    }
                }
            }
            (Some(_), IpAddr::V6(_)) => {
                self.multicast_failed = true;
                self.notes.push("no multicast with IPv6 addresses: fan-out instead".into());
            }
            (None, _) => {}
        }
        // Without it members are found to have failed by their silence alone.
        let _ = socket::report_errors(&unicast, own.is_ipv4(), true);
        sockets.insert(0, (unicast, None));
        // Others may have been told to send longer frames than this member does.
        let frame_bytes = self.options.frame_bytes_max;
        let pools = Pools::new(
            sockets.len(),
            frame_bytes,
            self.abilities.coalescing,
            huge_pages,
            &mut self.untouched,
        )?;
        let mut intakes = Vec::new();
        for (socket, unwanted) in sockets {
            let asked = self.options.receive_buffer_bytes;
            let got = socket::size_buffers(&socket, asked, self.options.send_buffer_bytes);
            if got < asked {
                self.notes.push(format!(
                    "receive buffer of {got} instead of {asked} bytes: raise /proc/sys/net/core/rmem_max"
                ));
            }
            let inlet = match self.calls.add(socket.as_raw_fd()) {
                Ok(inlet) => inlet,
                Err(error) => {
                    intakes.iter().for_each(|intake: &Intake| self.calls.remove(intake.inlet()));
                    return Err(error);
                }
            };
            let intake = Intake::new(socket, inlet, unwanted, true, &pools);
            intakes.push(intake.expect("fresh pools hold a reserve for every slot"));
        }
        let stage = Stage::new(self.options.stage_frames_max.max(1), self.abilities.segmentation);
        let lengths = self.lengths_of(own, intakes[0].socket());
        intakes.iter_mut().for_each(|intake| intake.take_long(lengths.long));
        let port = Port {
            own,
            lengths,
            stage,
            pools,
            intakes,
            discovery: None,
            first: 0,
            rest: 0,
            refusals: Refusals::default(),
            groups: Vec::new(),
            channels: Vec::new(),
            receive_frames: 0,
        };
        let at = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        if at == self.ports.len() {
            self.ports.push(None);
        }
        self.ports[at] = Some(port);
        Ok(at)
    }

    /// The longest frames that go out by the interface of `own` in one piece.
    fn lengths_of(&mut self, own: SocketAddr, socket: &OwnedFd) -> Lengths {
        let most = self.options.frame_bytes_max;
        let headers = if own.is_ipv4() { 28 } else { 48 };
        let Some(mtu) = socket::mtu_of(own.ip(), socket).filter(|mtu| *mtu >= headers) else {
            return Lengths { frame: most, long: None };
        };
        let bytes = mtu - headers;
        if bytes < most {
            self.notes.push(format!(
                "the interface of {} has an MTU of {mtu} bytes: frames of {bytes} bytes at most instead of {most}",
                own.ip()
            ));
        }
        // They are received in the frames for runs.
        let long = bytes.min(self.options.long_frame_bytes_max).min(LONG_FRAME_BYTES_MAX);
        let long = Some(long).filter(|long| self.abilities.coalescing && *long >= 2 * most);
        Lengths { frame: bytes.min(most), long }
    }

    /// The longest frame that this member can take.
    fn frame_bytes_max(&self) -> usize {
        let ports = self.ports.iter().flatten().map(|port| port.lengths.frame);
        ports.min().unwrap_or(self.options.frame_bytes_max)
    }

    /// What the frames of a channel at a port with these longest ones are.
    fn lengths(&self, options: &ChannelOptions, most: Lengths) -> Lengths {
        let frame = options.frame_bytes.min(most.frame);
        Lengths { frame, long: most.long.filter(|long| *long >= 2 * frame) }
    }

    /// Listens to the discovery address at a port, if there is one and it can be had.
    fn discover(&mut self, port_index: usize) -> Result<(), TransportError> {
        let port = self.ports[port_index].as_mut().expect("the caller has just made or found it");
        let (Some(group), None) = (self.options.discovery, &port.discovery) else { return Ok(()) };
        let IpAddr::V4(ip) = port.own.ip() else {
            self.notes.push("no discovery with IPv6 addresses: processes are found by address only".into());
            return Ok(());
        };
        let like = self.options.multicast.clone().unwrap_or_else(|| MulticastOptions::to(group));
        let options = MulticastOptions { group, loopback: true, ..like };
        let interface = socket::interface_index(&options)?;
        match socket::joined(port.intakes[0].socket(), ip, interface, &options) {
            Ok(socket) => {
                port.pools.add_socket(&mut self.untouched)?;
                let inlet = self.calls.add(socket.as_raw_fd())?;
                let intake = Intake::new(socket, inlet, Some(Name::of(port.own)), false, &port.pools);
                port.discovery = Some(intake.expect("a reserve for its slots was just added"));
            }
            Err(error) => {
                self.notes
                    .push(format!("no discovery at {group} ({error}): processes are found by address only"));
            }
        }
        Ok(())
    }

    /// Touches a bit of the memory that is not touched yet.
    #[cold]
    fn touch(&mut self) {
        if self.rest > 0 {
            self.rest -= 1;
        } else {
            self.untouched.step();
            self.rest = STEP_REST;
        }
    }

    /// Closes a port that nobody uses any more.
    fn leave_port(&mut self, at: usize) {
        if self.ports[at].as_ref().is_some_and(|port| port.channels.is_empty() && port.groups.is_empty()) {
            let port = self.ports[at].take().expect("seen above");
            self.counters.overrun += port.overrun();
            port.intakes.iter().chain(&port.discovery).for_each(|intake| self.calls.remove(intake.inlet()));
        }
        self.list_polled();
    }

    /// The port at which a group's processes reach this one.
    fn port_of(&mut self, group: GroupId) -> Option<usize> {
        self.ports.iter().position(|port| port.as_ref().is_some_and(|port| port.groups.contains(&group)))
    }

    /// Notes which members are gone and which are heard again.
    #[cold]
    fn attend(&mut self, at: usize) {
        let Some(port) = &mut self.ports[at] else { return };
        let fresh = port.refusals.fresh();
        let heard: Vec<SocketAddr> = port.intakes.iter().flat_map(Intake::heard).copied().collect();
        let mut news = !heard.is_empty();
        let mut watched = Vec::new();
        for channel in &port.channels {
            let Some(link) = self.links.get_mut(*channel) else { continue };
            for (rank, address) in link.addresses.iter().enumerate() {
                let (rank, Some(address)) = (Rank::at(rank), address) else { continue };
                let within =
                    |addresses: &[SocketAddr]| addresses.iter().any(|one| socket::same(*one, *address));
                if link.lanes[rank.index()].is_none() {
                    continue;
                }
                if within(&heard) {
                    link.gone.remove(rank);
                } else if within(&fresh) && !link.gone.contains(rank) {
                    link.gone.insert(rank);
                    news = true;
                }
                if link.gone.contains(rank) && !within(&watched) {
                    watched.push(*address);
                }
            }
        }
        if news {
            port.intakes.iter_mut().for_each(|intake| intake.watch(&watched));
        }
        port.refusals.judge(port.intakes[0].socket(), port.own.is_ipv4(), news);
    }

    fn note_pages(&mut self, pages: &Pages) {
        if let Pages::Fallback(why) = pages
            && !self.notes.contains(why)
        {
            self.notes.push(why.clone());
        }
    }

    /// Whether the way to some members does not segment.
    fn sends_single_frames(&self) -> bool {
        self.ports.iter().flatten().any(|port| port.stage.lanes_without_segmentation() > 0)
    }

    fn list_polled(&mut self) {
        let intakes = self.ports.iter().flatten().flat_map(|port| port.intakes.iter().chain(&port.discovery));
        let descriptors = intakes.map(Intake::descriptor).chain([self.alarm.descriptor()]);
        self.polled = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    }
}

impl<C: Calls> Transport for Datagrams<C> {
    fn notes_digest(&self) -> Option<u64> {
        let mut digest = DefaultHasher::new();
        // Of those that are kept there are only ever more.
        (self.notes.len(), self.sends_single_frames()).hash(&mut digest);
        self.ports.iter().flatten().for_each(|port| port.refusals.narrow().hash(&mut digest));
        Some(digest.finish())
    }

    fn caps(&self) -> Caps {
        let mut notes = self.notes.clone();
        if self.sends_single_frames() {
            notes.push("the way to some members does not segment: single frames to them".into());
        }
        for (address, bytes) in self.ports.iter().flatten().flat_map(|port| port.refusals.narrow()) {
            notes.push(format!(
                "the way to {address} takes {bytes} bytes at a time, says a router: longer frames are cut there, which is \
                 slow; set frame_bytes_max to {} or less at one member",
                bytes.saturating_sub(if address.is_ipv4() { 28 } else { 48 })
            ));
        }
        Caps {
            name: C::NAME,
            frame_bytes_max: self.frame_bytes_max(),
            multicast: self.options.multicast.is_some() && !self.multicast_failed,
            integrity: false,
            loses: true,
            duplicates: true,
            reorders: true,
            zero_copy: true,
            segmentation: self.abilities.segmentation,
            addresses: Addresses::Udp(ADDRESSES),
            notes,
        }
    }

    fn open(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        ADDRESSES.members(view).into_iter().collect::<Result<Vec<_>, _>>()?;
        self.open_next(view, options)
    }

    fn open_next(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        let own = ADDRESSES.parse(&view.member(view.rank()).address, false)?;
        let addresses: Vec<Option<SocketAddr>> =
            ADDRESSES.members(view).into_iter().map(Result::ok).collect();
        let id = self.links.vacant()?;
        let port_index = self.port(own, options.huge_pages)?;
        let most = self.ports[port_index].as_ref().expect("just found or made").lengths;
        let lengths = self.lengths(options, most);
        let regions = match self.spares.take(options, lengths, &mut self.untouched) {
            Ok(regions) => regions,
            Err(error) => {
                self.leave_port(port_index);
                return Err(error.into());
            }
        };
        self.note_pages(regions.casts.pages());
        let port = self.ports[port_index].as_mut().expect("just found or made");
        // Nobody keeps what comes in a view that is over; what was kept of it is out of the pools already.
        for past in
            self.links.iter_mut().filter(|link| link.port == port_index && link.group == view.view().group)
        {
            port.receive_frames -= std::mem::take(&mut past.receive_frames);
        }
        let receive_frames = port.receive_frames + options.receive_frames;
        if let Err(error) = port.pools.grow(receive_frames, options.huge_pages, &mut self.untouched) {
            self.leave_port(port_index);
            return Err(error.into());
        }
        let pages = port.pools.pages().clone();
        let group = self.options.multicast.as_ref().filter(|_| !self.multicast_failed).map(|m| m.group);
        let mut lanes = Vec::with_capacity(view.size());
        for (rank, address) in addresses.iter().enumerate() {
            let other = address.filter(|_| rank != view.rank().index());
            lanes.push(other.map(|address| port.stage.add_lane(id, Name::of(address))));
        }
        // With one other member multicast gains nothing, and unicast keeps casts and sends in one order.
        let all = group
            .filter(|_| view.size() > 2)
            .map(|group| port.stage.add_lane(id, Name::of(SocketAddr::V4(group))));
        port.channels.push(id);
        port.receive_frames += options.receive_frames;
        let channel = Channel {
            id,
            casts: regions.casts.clone(),
            control: regions.control.clone(),
            long: regions.long.clone(),
        };
        let receive_frames = options.receive_frames;
        let gone = RankSet::EMPTY;
        let group = view.view().group;
        let link =
            Link { group, port: port_index, lanes, addresses, gone, all, lengths, receive_frames, regions };
        self.links.put(id, link);
        self.note_pages(&pages);
        self.list_polled();
        Ok(channel)
    }

    fn close(&mut self, channel: ChannelId) {
        self.flush();
        let Some(link) = self.links.take(channel) else { return };
        let port = self.ports[link.port].as_mut().expect("a port lives as long as its channels");
        self.counters.dropped += port.stage.remove_lanes(channel);
        port.receive_frames -= link.receive_frames;
        port.channels.retain(|open| *open != channel);
        port.pools.shrink(port.receive_frames.max(link.receive_frames));
        self.spares.put(link.regions);
        self.leave_port(link.port);
    }

    fn bind(&mut self, group: GroupId, address: &Address) -> Result<Address, TransportError> {
        let own = ADDRESSES.parse(address, true)?;
        let before = self.port_of(group);
        let at = self.port(own, false)?;
        if let Err(error) = self.discover(at) {
            self.leave_port(at);
            return Err(error);
        }
        if let Some(before) = before.filter(|before| *before != at) {
            let port = self.ports[before].as_mut().expect("found above");
            port.groups.retain(|bound| *bound != group);
            self.leave_port(before);
        }
        let port = self.ports[at].as_mut().expect("just found or made");
        if before != Some(at) {
            port.groups.push(group);
        }
        let own = port.own;
        self.list_polled();
        Ok(Address(own.to_string()))
    }

    fn discovers(&self) -> Result<(), &'static str> {
        self.options
            .discovery
            .map(drop)
            .ok_or("set `discovery` of its options to a multicast address and port")
    }

    fn send_outside(&mut self, group: GroupId, to: &Outside, bytes: &[u8]) {
        let to = match to {
            Outside::To(address) => ADDRESSES.parse(address, false).ok(),
            Outside::Discover => match self.options.discovery {
                Some(discovery) => Some(SocketAddr::V4(discovery)),
                None => return,
            },
        };
        let port = self.port_of(group).and_then(|at| self.ports[at].as_mut());
        let (Some(to), Some(port), true) = (to, port, bytes.len() <= OUTSIDE_BYTES_MAX) else {
            self.counters.dropped += 1;
            return;
        };
        let sent = to.is_ipv4() == port.own.is_ipv4() && port.send(to, bytes, &mut self.counters);
        self.counters.frames_sent += u64::from(sent);
        self.counters.dropped += u64::from(!sent);
    }

    fn exclude(&mut self, channel: ChannelId, rank: Rank) {
        let Some(link) = self.links.get_mut(channel) else { return };
        let Some(lane) = link.lanes.get_mut(rank.index()).and_then(Option::take) else { return };
        let port = self.ports[link.port].as_mut().expect("a port lives as long as its channels");
        self.counters.dropped += port.stage.remove_lane(lane);
    }

    fn gone(&self, channel: ChannelId) -> RankSet {
        self.links.get(channel).map_or(RankSet::EMPTY, |link| link.gone)
    }

    /// Makes the regions of a channel. What was mapped, here or by opening a channel, is touched bit by bit: it is 18 MB for
    /// two members, which takes 5 ms.
    fn prepare(&mut self, options: &ChannelOptions) {
        // Of the port whose frames are the shortest.
        let ports = self.ports.iter().flatten().map(|port| port.lengths);
        let most = ports.min_by_key(|lengths| lengths.frame);
        let most = most.unwrap_or(Lengths { frame: self.options.frame_bytes_max, long: None });
        let lengths = self.lengths(options, most);
        // What cannot be had now is an error when it is needed.
        let _ = self.spares.prepare(options, lengths, &mut self.untouched);
        self.rest = FIRST_REST;
    }

    #[inline]
    fn submit(&mut self, transmit: Transmit) -> Result<(), Full> {
        let length = transmit.len();
        let Some(link) = self.links.get(transmit.channel).filter(|link| link.carries(length, transmit.to))
        else {
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
            port.flush(&mut self.calls, &mut self.counters);
        }
        Ok(())
    }

    #[inline]
    fn flush(&mut self) {
        for port in self.ports.iter_mut().flatten() {
            port.flush(&mut self.calls, &mut self.counters);
        }
    }

    /// Tries again to send what the system did not take. Everything else is finished when its system call is.
    #[inline]
    fn reap(&mut self) {
        self.flush();
        if !self.untouched.is_empty() {
            self.touch();
        }
    }

    #[inline]
    fn receive(&mut self, budget: usize, sink: &mut impl FnMut(Received)) -> usize {
        let mut received = 0;
        self.calls.look(&mut self.counters);
        let places = self.ports.len();
        let mut next = self.first;
        for _ in 0..places {
            let at = next;
            next = if at + 1 == places { 0 } else { at + 1 };
            let Some(port) = &mut self.ports[at] else { continue };
            received += port.receive(&mut self.calls, budget - received, &mut self.counters, sink);
            if port.refusals.any() || port.intakes.iter().any(|intake| !intake.heard().is_empty()) {
                self.attend(at);
            }
            if received == budget {
                self.first = next;
                break;
            }
        }
        received
    }

    #[inline]
    fn more(&self) -> bool {
        self.ports.iter().flatten().any(|port| port.intakes.iter().any(Intake::more))
    }

    #[inline]
    fn busy(&self, channel: ChannelId) -> bool {
        let port = self.links.get(channel).and_then(|link| self.ports[link.port].as_ref());
        port.is_some_and(|port| !port.stage.is_empty())
    }

    fn wait(&mut self, timeout: Duration) {
        let pending = |port: &Port| port.intakes.iter().chain(&port.discovery).any(Intake::pending);
        if self.calls.pending() || self.ports.iter().flatten().any(pending) || !self.alarm.doze() {
            return;
        }
        for intake in self
            .ports
            .iter_mut()
            .flatten()
            .flat_map(|port| port.intakes.iter_mut().chain(&mut port.discovery))
        {
            intake.expect(&mut self.calls, &mut self.counters);
        }
        let mut polled = self.polled.iter_mut();
        for port in self.ports.iter().flatten() {
            let out = if port.stage.is_empty() { 0 } else { libc::POLLOUT };
            let sockets = port.intakes.len() + usize::from(port.discovery.is_some());
            for (at, polled) in polled.by_ref().take(sockets).enumerate() {
                polled.events = libc::POLLIN | if at == 0 { out } else { 0 };
            }
        }
        let rung = self.calls.wait(&mut self.polled, timeout, &mut self.counters);
        for port in self.ports.iter_mut().flatten() {
            // Whoever waits finds what came there at once.
            port.rest = 0;
        }
        for polled in self.polled.iter().filter(|polled| polled.revents & libc::POLLERR != 0) {
            let is_its = |port: &&mut Port| port.intakes[0].descriptor() == polled.fd;
            if let Some(port) = self.ports.iter_mut().flatten().find(is_its) {
                // What is left in the queue would end the next wait too.
                port.refusals.take_in(polled.fd);
            }
        }
        self.counters.system_calls += self.alarm.rise(rung);
    }

    fn waker(&self) -> Waker {
        self.alarm.waker()
    }

    fn counters(&self) -> TransportCounters {
        let overrun = self.ports.iter().flatten().map(Port::overrun).sum::<u64>();
        TransportCounters { overrun: self.counters.overrun + overrun, ..self.counters }
    }
}

impl Link {
    /// Whether a frame is not too long. What goes to everybody at once is not longer than everybody takes.
    #[inline]
    fn carries(&self, bytes: usize, to: Destination) -> bool {
        bytes <= self.lengths.frame
            || self.lengths.long.is_some_and(|long| bytes <= long)
                && (to != Destination::All || self.all.is_none())
    }
}

impl Port {
    /// Datagrams that came while there was no room in the sockets' buffers.
    fn overrun(&self) -> u64 {
        self.intakes.iter().chain(&self.discovery).map(Intake::overrun).sum()
    }

    #[inline]
    fn flush<C: Calls>(&mut self, calls: &mut C, counters: &mut TransportCounters) {
        if !self.stage.is_empty() {
            let (inlet, socket) = (self.intakes[0].inlet(), self.intakes[0].descriptor());
            let mut outlet = SocketOutlet { calls, inlet, socket, refusals: &mut self.refusals };
            self.stage.flush(&mut outlet, counters);
            counters.system_calls += self.refusals.calls();
        }
    }

    #[inline]
    fn receive<C: Calls>(
        &mut self,
        calls: &mut C,
        budget: usize,
        counters: &mut TransportCounters,
        sink: &mut impl FnMut(Received),
    ) -> usize {
        let channel = self.channels.last().copied().unwrap_or(ChannelId::OUTSIDE);
        let mut received = 0;
        // Discovery, which is rare and in no hurry, takes its turn among them when it is its time, and keeps its time
        // while they leave it nothing.
        self.rest = self.rest.saturating_sub(1);
        let places = self.intakes.len() + 1;
        let mut next = self.first;
        for _ in 0..places {
            let at = next;
            next = if at + 1 == places { 0 } else { at + 1 };
            let intake = match (self.intakes.get_mut(at), &mut self.discovery) {
                (Some(intake), _) => intake,
                (None, Some(discovery)) if self.rest == 0 || C::LASTING || discovery.pending() => {
                    self.rest = DISCOVERY_REST;
                    discovery
                }
                _ => continue,
            };
            received += intake.receive(calls, channel, budget - received, &self.pools, counters, sink);
            if received == budget {
                self.first = next;
                break;
            }
        }
        if self.intakes[0].troubled() {
            self.refusals.take_in(self.intakes[0].descriptor());
        }
        self.refusals.pass(self.intakes[0].socket(), self.own.is_ipv4());
        counters.system_calls += self.refusals.calls();
        received
    }

    /// Sends bytes past the stage; whether the system took them.
    fn send(&mut self, to: SocketAddr, bytes: &[u8], counters: &mut TransportCounters) -> bool {
        let socket = self.intakes[0].descriptor();
        // What the network says of an earlier datagram may be reported to the first call, which then sends nothing.
        for _ in 0..2 {
            counters.system_calls += 1;
            if socket::send(socket, to, bytes).is_ok() {
                return true;
            }
            let reported = self.refusals.take_in(socket);
            counters.system_calls += self.refusals.calls();
            if !reported {
                return false;
            }
        }
        false
    }
}

impl<C: Calls> std::fmt::Debug for Datagrams<C> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct(C::NAME)
            .field("options", &self.options)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, ViewId};
    use crate::transport::udp::UdpTransport;
    use crate::transport::untouched::STEP_BYTES;
    use crate::view::{Member, View};

    fn view(counter: u64) -> LocalView {
        let members = ["127.83.1.1:7403", "127.83.1.2:7403", "127.83.1.3:7403"].into_iter().zip(0..);
        let view = View {
            group: GroupId::named("udp"),
            id: ViewId { counter, coordinator: Incarnation(0) },
            members: members
                .map(|(address, at)| Member {
                    incarnation: Incarnation(at),
                    address: Address(address.into()),
                })
                .collect(),
            spec: String::new(),
            wire_version: 1,
            salt: 0,
            frame_bytes: 0,
        };
        LocalView::new(view, Incarnation(0)).unwrap()
    }

    /// Whoever waits for a heartbeat of this process would wait for its pages.
    #[test]
    fn what_a_channel_needs_is_touched_bit_by_bit_and_used_again_by_the_next() {
        let options = ChannelOptions {
            cast_frames: 1000,
            control_frames: 500,
            receive_frames: 3000,
            frame_bytes: 1472,
            huge_pages: false,
        };
        let mut transport = UdpTransport::new(UdpOptions::default()).unwrap();
        let mut open = transport.open(&view(1), &options).unwrap();
        let bytes = transport.receive_bytes();
        let mut calls = 0;
        while !transport.untouched.is_empty() {
            transport.reap();
            calls += 1;
        }
        assert!(calls > bytes / STEP_BYTES, "{calls} calls for {bytes} bytes and more");
        for counter in 2..20 {
            let next = transport.open_next(&view(counter), &options).unwrap();
            assert_eq!(transport.receive_bytes(), bytes, "what the past view had is the next one's");
            transport.close(open.id);
            open = next;
        }
    }

    #[test]
    fn views_that_follow_each_other_leave_nothing_behind() {
        let options = ChannelOptions {
            cast_frames: 100,
            control_frames: 10,
            receive_frames: 300,
            frame_bytes: 1000,
            huge_pages: false,
        };
        let mut transport = UdpTransport::new(UdpOptions::default()).unwrap();
        let mut open = transport.open(&view(1), &options).unwrap();
        let (mut bases, mut bytes) = (Vec::new(), 0);
        for counter in 2..300 {
            let mut frame = open.casts.take(0).unwrap();
            frame.grow(100).unwrap();
            let head = frame.freeze();
            let transmit = Transmit { channel: open.id, to: Destination::All, head, body: None };
            transport.submit(transmit).unwrap();
            transport.exclude(open.id, Rank(1));
            let next = transport.open(&view(counter), &options).unwrap();
            transport.close(open.id);
            open = next;
            bases.push(open.casts.memory().base());
            if counter == 10 {
                bytes = transport.receive_bytes();
            }
        }
        bases.sort();
        bases.dedup();
        assert!(bases.len() <= 3, "regions are used again: {}", bases.len());
        assert_eq!(transport.receive_bytes(), bytes);
        assert_eq!((transport.links.places(), transport.ports.len()), (2, 1));
        assert_eq!(
            transport.ports[0].as_ref().unwrap().stage.lanes(),
            3,
            "an excluded member's goes to the next view"
        );
        transport.close(open.id);
        assert!(transport.ports[0].is_none());
    }
}
