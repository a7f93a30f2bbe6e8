//! The transport: channels, lanes to members, the line and the ordinary sockets beside it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use wadjet::id::{GroupId, Rank};
use wadjet::transport::wake::Alarm;
use wadjet::transport::{
    Addresses, Caps, Channel, ChannelId, ChannelOptions, Destination, Full, OUTSIDE_BYTES_MAX, Outside,
    Received, Transmit, Transport, TransportCounters, TransportError, UdpAddresses,
};
use wadjet::view::{Address, LocalView};

use crate::bank::Lease;
use crate::header::{Mac, Template, multicast_mac};
use crate::interface::Interface;
use crate::line::{Line, PIECES_MAX, frame_bytes_max};
use crate::neighbour::{Route, Tables};
use crate::options::XdpOptions;
use crate::post::Post;
use crate::program::{PLACES_MAX, SteerCounters};

/// The transport.
///
/// It attaches to its interface when it is first bound or opened, and keeps what it got until it is dropped, whatever
/// channels come and go.
pub struct XdpTransport {
    options: XdpOptions,
    /// What is known of the interface before anything is attached.
    interface: Option<Interface>,
    line: Option<Line>,
    tables: Option<Tables>,
    ports: Vec<Option<Port>>,
    links: Vec<Link>,
    next_id: u32,
    /// Calls until the ordinary sockets are looked at again: little comes by them, and a look costs a system call.
    rest: u32,
    /// They are looked at before the ring: it took the whole of the last budget. And the one of them that is first.
    posts_first: bool,
    first_post: usize,
    /// Calls of `reap` until the clock is looked at.
    clock_rest: u32,
    refreshed: Instant,
    /// The system is shown each neighbour that is known once in a while, one after the other: when the last was due to be, how
    /// many there are, and whose turn is next.
    shown: Instant,
    neighbours: usize,
    next_shown: usize,
    known: HashMap<Ipv4Addr, Mac>,
    /// Whether a frame has gone by an ordinary socket since, because its hardware address was not known: by now the system
    /// may have found it.
    unresolved: bool,
    alarm: Arc<Alarm>,
    polled: Vec<libc::pollfd>,
    notes: Vec<String>,
    counters: TransportCounters,
}

/// An own address: its sockets, and who uses it.
struct Port {
    own: SocketAddrV4,
    /// The one bound to the address, which also sends; then that of the multicast group, and of discovery.
    posts: Vec<Post>,
    /// What is steered to the line because of this port.
    places: Vec<SocketAddrV4>,
    multicast: bool,
    discovery: bool,
    groups: Vec<GroupId>,
    channels: usize,
}

/// A channel.
struct Link {
    id: ChannelId,
    port: usize,
    /// By rank; none for this member itself, and for those that are excluded.
    lanes: Vec<Option<Lane>>,
    others: u32,
    /// To all at once.
    all: Option<Template>,
    frame_bytes: usize,
    lease: Lease,
}

/// The way to a member.
struct Lane {
    to: SocketAddrV4,
    /// At whose hardware address it is reached; none if not by the interface.
    neighbour: Option<Ipv4Addr>,
    mac: Option<Mac>,
    /// Headers for the ring. None while the hardware address is not known, and for one frame every now and then: that goes by
    /// an ordinary socket.
    template: Option<Template>,
}

/// How many calls of `receive` pass between two looks at the ordinary sockets.
const POST_REST: u32 = 256;
/// Datagrams taken from one ordinary socket in one call.
const POST_BATCH: usize = 16;
/// How many calls of `reap` pass between two looks at the clock.
const CLOCK_REST: u32 = 256;
/// How often the system's table of neighbours is looked at: when somebody was missing there, and otherwise. So often, too, a
/// frame to each goes by an ordinary socket: what the system does not see would not keep its table fresh. To tell it so
/// (`NTF_USE`) takes a lock that is held for 10 ms and more while any process on the host gives up an interface's program.
const REFRESH_UNRESOLVED: Duration = Duration::from_millis(5);
const REFRESH: Duration = Duration::from_secs(1);
/// What is asked for as the receive buffer of an ordinary socket.
const POST_BUFFER_BYTES: usize = 4 << 20;
const UNICAST_TTL: u8 = 64;

impl XdpTransport {
    /// A transport without channels, not attached yet.
    ///
    /// # Errors
    /// [`TransportError`] if the interface named is not there or not up, or a multicast address is none.
    pub fn new(options: XdpOptions) -> Result<XdpTransport, TransportError> {
        options.check()?;
        for group in [options.multicast, options.discovery].into_iter().flatten() {
            if !group.ip().is_multicast() || group.port() == 0 {
                let why = "write a multicast group as address:port with an address from 224.0.0.0/4";
                return Err(TransportError::BadAddress(Address(group.to_string()), why));
            }
        }
        if options.multicast.is_some() && options.multicast == options.discovery {
            let address = Address(options.discovery.map(|group| group.to_string()).unwrap_or_default());
            let why = "it is that of the multicast group; give discovery a port of its own";
            return Err(TransportError::BadAddress(address, why));
        }
        let interface = options.interface.as_deref().map(Interface::named).transpose()?;
        Ok(XdpTransport {
            options,
            interface,
            line: None,
            tables: None,
            ports: Vec::new(),
            links: Vec::new(),
            next_id: 0,
            rest: 0,
            posts_first: false,
            first_post: 0,
            clock_rest: CLOCK_REST,
            refreshed: Instant::now(),
            shown: Instant::now(),
            neighbours: 0,
            next_shown: 0,
            known: HashMap::new(),
            unresolved: false,
            alarm: Alarm::new()?,
            polled: Vec::new(),
            notes: Vec::new(),
            counters: TransportCounters::default(),
        })
    }

    /// Frames of the transport's own that somebody holds or that are under way: received ones, copies, headers.
    pub fn frames_lent(&self) -> usize {
        self.line.as_ref().map_or(0, Line::lent)
    }

    /// What the XDP program did, once there is one.
    pub fn steered(&self) -> SteerCounters {
        self.line.as_ref().map_or(SteerCounters::default(), |line| line.program.counters())
    }

    /// Whether `bytes` lie in the memory that is shared with the system.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        self.line.as_ref().is_some_and(|line| line.holds(bytes))
    }

    /// The line, attached if it was not.
    fn attached(&mut self, own: SocketAddrV4) -> Result<&mut Line, TransportError> {
        if self.line.is_none() {
            let of_address = Interface::of_address(*own.ip())?;
            let named = self.options.interface.clone();
            if let (Some(named), Some(of_address)) = (&named, &of_address)
                && named != of_address
            {
                // It may be right: a bridge, a bond or a VLAN has the address, and the interface is beneath it.
                self.notes.push(format!(
                    "{} is an address of {of_address}, and the interface named is {named}: what does not come and go by \
                     that takes the ordinary socket, more slowly; name {of_address}, or none, unless {named} is part of it",
                    own.ip()
                ));
            }
            let Some(name) = named.or(of_address) else {
                let why = "no interface of this host has this IP address; `ip addr` lists those there are";
                return Err(TransportError::BadAddress(Address(own.to_string()), why));
            };
            let interface = Interface::named(&name)?;
            let failed = |source| TransportError::Io { what: "cannot read the routes".into(), source };
            let tables = Tables::new(interface.index).map_err(failed)?;
            let line = Line::new(interface, &self.options)?;
            self.notes.extend(line.notes.iter().cloned());
            self.tables = Some(tables);
            self.line = Some(line);
        }
        Ok(self.line.as_mut().expect("just made"))
    }

    /// The index of the port for `own`, made if there is none.
    fn port(&mut self, own: SocketAddrV4) -> Result<usize, TransportError> {
        if let Some(at) = self.ports.iter().position(|port| port.as_ref().is_some_and(|p| p.own == own)) {
            return Ok(at);
        }
        let places = self.ports.iter().flatten().map(|port| port.places.len()).sum::<usize>();
        if places + 1 > PLACES_MAX {
            let remedy = "leave groups, or make another transport on another interface";
            return Err(space("another address beside 64, multicast ones included", 0, remedy));
        }
        // First of all: nobody else has the address.
        let (post, own) = Post::bound(own, POST_BUFFER_BYTES)?;
        let multicast = self.options.multicast;
        let ttl = self.options.multicast_ttl;
        let line = self.attached(own)?;
        let longest = line.longest();
        let failed =
            |source| TransportError::Io { what: format!("cannot steer `{own}` to the socket"), source };
        line.program.steer(own, longest).map_err(failed)?;
        let mut port = Port {
            own,
            posts: vec![post],
            places: vec![own],
            multicast: false,
            discovery: false,
            groups: Vec::new(),
            channels: 0,
        };
        let mut note = None;
        if let Some(group) = multicast {
            match port.join(line, group, ttl) {
                Ok(()) => port.multicast = true,
                Err(error) => {
                    note = Some(format!(
                        "no multicast to {group} ({error}): fan-out instead; this member hears no multicast, so turn it \
                         off at every member"
                    ));
                }
            }
        }
        self.notes.extend(note);
        let at = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        if at == self.ports.len() {
            self.ports.push(None);
        }
        self.ports[at] = Some(port);
        self.list_polled();
        Ok(at)
    }

    /// Closes a port that nobody uses any more.
    fn leave_port(&mut self, at: usize) {
        if self.ports[at].as_ref().is_some_and(|port| port.channels == 0 && port.groups.is_empty()) {
            let port = self.ports[at].take().expect("just seen");
            if let Some(line) = &mut self.line {
                for place in port.places {
                    let other = |port: &Port| port.places.contains(&place);
                    if !self.ports.iter().flatten().any(other) {
                        line.program.leave(place);
                    }
                }
            }
            self.list_polled();
        }
    }

    fn list_polled(&mut self) {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        self.polled.clear();
        self.polled.push(entry(self.alarm.descriptor()));
        self.polled.extend(self.line.iter().map(|line| entry(line.descriptor())));
        let posts = self.ports.iter().flatten().flat_map(|port| &port.posts);
        self.polled.extend(posts.map(|post| entry(post.descriptor())));
    }

    fn link(&self, id: ChannelId) -> Option<usize> {
        self.links.iter().position(|link| link.id == id)
    }

    /// The lane to a member's address.
    fn lane(&mut self, own: SocketAddrV4, to: SocketAddrV4) -> Result<Lane, TransportError> {
        let failed = |source| TransportError::Io { what: format!("cannot find the route to `{to}`"), source };
        let tables = self.tables.as_mut().expect("there is a line");
        let neighbour = match tables.route(*to.ip()).map_err(failed)? {
            Route::Neighbour(neighbour) => Some(neighbour),
            // The system may learn of a way later; till then it says no to every datagram.
            Route::Elsewhere | Route::Nowhere => None,
        };
        let mut lane = Lane { to, neighbour, mac: None, template: None };
        if let (Some(neighbour), Some(line)) = (neighbour, &self.line) {
            lane.resolve(own, line.interface.mac, self.known.get(&neighbour).copied());
        }
        Ok(lane)
    }

    /// Looks at who is where.
    #[cold]
    fn refresh(&mut self) {
        self.refreshed = Instant::now();
        let (Some(tables), Some(line)) = (&mut self.tables, &self.line) else { return };
        // What the system does not tell now it tells the next time.
        if tables.neighbours(&mut self.known).is_err() {
            return;
        }
        self.unresolved = false;
        self.neighbours = 0;
        for link in &mut self.links {
            let Some(port) = self.ports[link.port].as_ref() else { continue };
            for lane in link.lanes.iter_mut().flatten() {
                let Some(neighbour) = lane.neighbour else { continue };
                self.neighbours += 1;
                lane.resolve(port.own, line.interface.mac, self.known.get(&neighbour).copied());
            }
        }
    }

    /// Looks at who is where, and shows the system whose turn it is, if it is time.
    fn look_after_neighbours(&mut self) {
        let now = Instant::now();
        let rest = if self.unresolved { REFRESH_UNRESOLVED } else { REFRESH };
        if now.duration_since(self.refreshed) >= rest {
            self.refresh();
        }
        let pause = REFRESH / self.neighbours.max(1) as u32;
        if now.duration_since(self.shown) >= pause {
            self.show(now, pause);
        }
    }

    /// Leaves the next frame to a neighbour to the system. Not to all at once: that would be as many calls in one iteration.
    #[cold]
    fn show(&mut self, now: Instant, pause: Duration) {
        // What was missed is caught up on one by one, as far as a whole round.
        let earliest = now.checked_sub(REFRESH).unwrap_or(self.shown);
        self.shown = self.shown.max(earliest) + pause;
        if self.next_shown >= self.neighbours {
            self.next_shown = 0;
        }
        let lanes = self.links.iter_mut().flat_map(|link| link.lanes.iter_mut().flatten());
        // None if members have gone since they were counted.
        if let Some(lane) = lanes.filter(|lane| lane.neighbour.is_some()).nth(self.next_shown) {
            lane.template = None;
        }
        self.next_shown += 1;
    }

    /// Sends what goes by an ordinary socket, or not at all; what has the ring's headers goes by the ring from now on.
    #[cold]
    fn send_by_post(
        line: &mut Line,
        port: &Port,
        transmit: &Transmit,
        lane: &mut Lane,
        counters: &mut TransportCounters,
    ) {
        // What is staged was submitted before.
        line.flush(counters);
        let body = transmit.body.as_ref().map_or(&[][..], |body| body.bytes());
        counters.system_calls += 1;
        match port.posts[0].send(lane.to, [transmit.head.bytes(), body]) {
            Ok(()) => counters.frames_sent += 1,
            Err(_) => counters.dropped += 1,
        }
        lane.write_headers(port.own, line.interface.mac);
    }

    /// Takes what has come by the ordinary sockets, beginning with the one after that which gave last.
    #[cold]
    fn receive_posts(&mut self, channel: ChannelId, budget: usize, sink: &mut impl FnMut(Received)) -> usize {
        let Some(line) = &mut self.line else { return 0 };
        let mut handed = 0;
        let count = self.ports.iter().flatten().map(|port| port.posts.len()).sum();
        let first = self.first_post;
        for at in (first..count).chain(0..first.min(count)) {
            let posts = self.ports.iter_mut().flatten().flat_map(|port| &mut port.posts);
            let Some(post) = posts.into_iter().nth(at) else { break };
            // One that is not looked at may have something.
            post.flowing = handed == budget;
            for _ in 0..POST_BATCH.min(budget - handed) {
                let Some(mut frame) = line.spare() else {
                    post.flowing = true;
                    break;
                };
                self.counters.system_calls += 1;
                let room = frame.len();
                match post.receive(frame.bytes_mut()) {
                    Ok(Some(length)) if length <= room => {
                        post.flowing = true;
                        frame.truncate(length);
                        let frame = frame.freeze();
                        frame.submit();
                        let (from, to) = (frame.start(), frame.end());
                        handed += 1;
                        self.first_post = at + 1;
                        sink(Received { channel, frame, from, to });
                    }
                    Ok(Some(_)) => {
                        post.flowing = true;
                        self.counters.dropped += 1;
                    }
                    Ok(None) => post.flowing = true,
                    // Nothing there, or what the network says about an earlier datagram.
                    Err(_) => break,
                }
            }
        }
        self.counters.frames_received += handed as u64;
        handed
    }

    fn frame_bytes_max(&self) -> usize {
        match (&self.line, &self.interface) {
            (Some(line), _) => line.frame_bytes_max,
            (None, Some(interface)) => frame_bytes_max(interface, &self.options),
            (None, None) => self.options.frame_bytes_max,
        }
    }
}

impl Port {
    /// Joins a multicast group and has it steered to the line.
    fn join(&mut self, line: &mut Line, group: SocketAddrV4, ttl: u8) -> std::io::Result<()> {
        let index = line.interface.index;
        let post = Post::joined(&self.posts[0], self.own, group, index, ttl, POST_BUFFER_BYTES)?;
        line.program.steer(group, line.longest())?;
        self.posts.push(post);
        self.places.push(group);
        Ok(())
    }
}

impl Lane {
    /// Takes note of where the neighbour is.
    fn resolve(&mut self, own: SocketAddrV4, own_mac: Mac, mac: Option<Mac>) {
        if self.mac != mac {
            self.mac = mac;
            self.write_headers(own, own_mac);
        }
    }

    fn write_headers(&mut self, own: SocketAddrV4, own_mac: Mac) {
        self.template = self.mac.map(|mac| Template::new((own_mac, own), (mac, self.to), UNICAST_TTL));
    }
}

fn space(what: &'static str, frames: usize, remedy: &'static str) -> TransportError {
    TransportError::NoSpace { what: what.into(), bytes: frames * 2048, remedy: remedy.into() }
}

fn no_entries(members: usize) -> TransportError {
    let remedy = "raise `transmit_entries` of the transport";
    space("a cast to every member in the transmit ring", members, remedy)
}

fn no_receive_frames(options: &ChannelOptions) -> TransportError {
    let remedy = "raise `receive_frames` of the transport";
    space("the frames to be received", options.receive_frames, remedy)
}

fn no_transmit_frames(options: &ChannelOptions) -> TransportError {
    let remedy = "raise `transmit_frames` of the transport, or close channels";
    space("the channel's frames", options.cast_frames + options.control_frames, remedy)
}

/// What an address is here.
const ADDRESSES: UdpAddresses = UdpAddresses { ipv6: false, loopback: false };

fn parse(address: &Address, to_bind: bool) -> Result<SocketAddrV4, TransportError> {
    ADDRESSES.parse(address, to_bind).map(v4)
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    let SocketAddr::V4(address) = address else { unreachable!("{address} was parsed as IPv4") };
    address
}

impl Transport for XdpTransport {
    fn caps(&self) -> Caps {
        Caps {
            name: "xdp",
            frame_bytes_max: self.frame_bytes_max(),
            multicast: self.ports.iter().flatten().any(|port| port.multicast)
                || self.options.multicast.is_some() && self.line.is_none(),
            integrity: false,
            loses: true,
            duplicates: true,
            reorders: true,
            zero_copy: true,
            segmentation: false,
            addresses: Addresses::Udp(ADDRESSES),
            notes: self.notes.iter().cloned().chain(self.line.as_ref().and_then(Line::stoppage)).collect(),
        }
    }

    fn notes_digest(&self) -> Option<u64> {
        // Of those that are kept there are only ever more.
        let stoppage = self.line.as_ref().map_or(0, Line::stoppage_digest);
        Some((self.notes.len() as u64) << 48 | stoppage)
    }

    fn open(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        ADDRESSES.members(view).into_iter().collect::<Result<Vec<_>, _>>()?;
        self.open_next(view, options)
    }

    fn open_next(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        let own = parse(&view.member(view.rank()).address, false)?;
        let addresses = ADDRESSES.members(view);
        if view.size() as u32 * PIECES_MAX > self.options.transmit_entries {
            return Err(no_entries(view.size()));
        }
        if self.next_id == u32::MAX {
            return Err(space("another channel", 0, "make another transport"));
        }
        let port_index = self.port(own)?;
        let line = self.line.as_mut().expect("a port has a line");
        let frame_bytes = options.frame_bytes.min(line.frame_bytes_max);
        let enough = options.receive_frames <= line.receive_frames_max();
        let lease = if enough { line.bank.take(options, frame_bytes).ok() } else { None };
        let Some(lease) = lease else {
            self.leave_port(port_index);
            return Err(if enough { no_transmit_frames(options) } else { no_receive_frames(options) });
        };
        let tables = self.tables.as_mut().expect("a line has tables");
        // What the table does not tell now it tells later: see `refresh`.
        let _ = tables.neighbours(&mut self.known);
        let mut lanes = Vec::with_capacity(view.size());
        for (rank, to) in addresses.into_iter().enumerate() {
            let other = to.ok().filter(|_| rank != view.rank().index());
            let lane = other.map(|to| self.lane(own, v4(to)));
            match lane.transpose() {
                Ok(lane) => lanes.push(lane),
                Err(error) => {
                    self.line.as_mut().expect("still there").bank.put(lease);
                    self.leave_port(port_index);
                    return Err(error);
                }
            }
        }
        let port = self.ports[port_index].as_mut().expect("just found or made");
        let line = self.line.as_ref().expect("still there");
        // With one other member multicast gains nothing; and it does not reach who is not on the interface.
        let by_interface = lanes.iter().flatten().all(|lane| lane.neighbour.is_some());
        let group = self.options.multicast.filter(|_| port.multicast && view.size() > 2 && by_interface);
        let all = group.map(|group| {
            let to = (multicast_mac(*group.ip()), group);
            Template::new((line.interface.mac, own), to, self.options.multicast_ttl)
        });
        port.channels += 1;
        let id = ChannelId(self.next_id);
        self.next_id += 1;
        let (casts, control) = (lease.casts.clone(), lease.control.clone());
        let others = view.size() as u32 - 1;
        self.links.push(Link { id, port: port_index, lanes, others, all, frame_bytes, lease });
        Ok(Channel { id, casts, control, long: None })
    }

    fn close(&mut self, channel: ChannelId) {
        self.flush();
        let Some(at) = self.link(channel) else { return };
        let link = self.links.remove(at);
        let line = self.line.as_mut().expect("a channel has a line");
        line.complete();
        line.bank.put(link.lease);
        self.ports[link.port].as_mut().expect("a port lives as long as its channels").channels -= 1;
        self.leave_port(link.port);
    }

    fn bind(&mut self, group: GroupId, address: &Address) -> Result<Address, TransportError> {
        let own = parse(address, true)?;
        let before =
            self.ports.iter().position(|port| port.as_ref().is_some_and(|p| p.groups.contains(&group)));
        let at = self.port(own)?;
        let ttl = self.options.multicast_ttl;
        let port = self.ports[at].as_mut().expect("just found or made");
        let line = self.line.as_mut().expect("a port has a line");
        if let (Some(discovery), false) = (self.options.discovery, port.discovery) {
            port.discovery = true;
            if let Err(error) = port.join(line, discovery, ttl) {
                self.notes.push(format!(
                    "no discovery at {discovery} ({error}): processes are found by address only"
                ));
            }
        }
        if before != Some(at) {
            port.groups.push(group);
        }
        let own = port.own;
        if let Some(before) = before.filter(|before| *before != at) {
            let port = self.ports[before].as_mut().expect("found above");
            port.groups.retain(|bound| *bound != group);
            self.leave_port(before);
        }
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
            Outside::To(address) => parse(address, false).ok(),
            Outside::Discover => match self.options.discovery {
                Some(discovery) => Some(discovery),
                None => return,
            },
        };
        let port = self.ports.iter().flatten().find(|port| port.groups.contains(&group));
        let (Some(to), Some(port), true) = (to, port, bytes.len() <= OUTSIDE_BYTES_MAX) else {
            self.counters.dropped += 1;
            return;
        };
        // What the network says of an earlier datagram may be reported to the first call, which then sends nothing.
        for _ in 0..2 {
            self.counters.system_calls += 1;
            if port.posts[0].send(to, [bytes, &[]]).is_ok() {
                self.counters.frames_sent += 1;
                return;
            }
        }
        self.counters.dropped += 1;
    }

    fn exclude(&mut self, channel: ChannelId, rank: Rank) {
        let Some(at) = self.link(channel) else { return };
        if let Some(lane) = self.links[at].lanes.get_mut(rank.index()) {
            *lane = None;
        }
    }

    fn prepare(&mut self, options: &ChannelOptions) {
        if let Some(line) = &mut self.line {
            line.bank.prepare(options, options.frame_bytes.min(line.frame_bytes_max));
        }
    }

    /// What the whole of the socket's memory has room for, whatever is in use: channels of past views give theirs back.
    fn room_for(&self, members: usize, options: &ChannelOptions) -> Result<(), TransportError> {
        let Some(line) = &self.line else { return Ok(()) };
        if members as u32 * PIECES_MAX > self.options.transmit_entries {
            return Err(no_entries(members));
        }
        if options.receive_frames > line.receive_frames_max() {
            return Err(no_receive_frames(options));
        }
        // While a view follows another there are channels of both.
        if 2 * line.bank.chunks_for(options) > line.bank.chunks() {
            Err(no_transmit_frames(options))
        } else {
            Ok(())
        }
    }

    #[inline]
    fn submit(&mut self, transmit: Transmit) -> Result<(), Full> {
        let length = transmit.len();
        let link = self.links.iter_mut().find(|link| link.id == transmit.channel);
        let (Some(link), Some(line)) = (link.filter(|link| length <= link.frame_bytes), &mut self.line)
        else {
            self.counters.dropped += 1;
            return Ok(());
        };
        let most = match transmit.to {
            Destination::All if link.all.is_some() => 1,
            Destination::All | Destination::Some(_) => link.others,
            Destination::One(_) => 1,
        };
        if !line.has_room(most) {
            return Err(Full(transmit));
        }
        transmit.head.submit();
        let port = self.ports[link.port].as_ref().expect("a port lives as long as its channels");
        let (counters, unresolved) = (&mut self.counters, &mut self.unresolved);
        let mut go = |lane: &mut Lane| match &lane.template {
            Some(template) => line.launch(&transmit.head, transmit.body.as_ref(), template, counters),
            None => {
                *unresolved |= lane.neighbour.is_some() && lane.mac.is_none();
                Self::send_by_post(line, port, &transmit, lane, counters);
            }
        };
        match (transmit.to, &link.all) {
            (Destination::All, None) => link.lanes.iter_mut().flatten().for_each(go),
            (Destination::One(rank), _) => {
                link.lanes.get_mut(rank.index()).into_iter().flatten().for_each(go);
            }
            (Destination::Some(ranks), _) => ranks.iter().for_each(|rank| {
                link.lanes.get_mut(rank.index()).into_iter().flatten().for_each(&mut go);
            }),
            (Destination::All, Some(template)) => {
                line.launch(&transmit.head, transmit.body.as_ref(), template, counters);
            }
        }
        if line.staged() >= self.options.stage_frames_flush {
            line.flush(&mut self.counters);
        }
        Ok(())
    }

    #[inline]
    fn flush(&mut self) {
        if let Some(line) = &mut self.line
            && line.busy()
        {
            line.flush(&mut self.counters);
        }
    }

    #[inline]
    fn reap(&mut self) {
        let Some(line) = &mut self.line else { return };
        line.complete();
        if line.busy() {
            line.flush(&mut self.counters);
        }
        line.refill();
        self.clock_rest -= 1;
        if self.clock_rest == 0 {
            self.clock_rest = CLOCK_REST;
            self.look_after_neighbours();
        }
    }

    #[inline]
    fn receive(&mut self, budget: usize, sink: &mut impl FnMut(Received)) -> usize {
        let Some(line) = &mut self.line else { return 0 };
        let channel = self.links.last().map_or(ChannelId::OUTSIDE, |link| link.id);
        line.wake_receive(&mut self.counters);
        let look = self.rest == 0;
        let mut received = 0;
        if look && self.posts_first {
            received = self.receive_posts(channel, budget, sink);
        }
        if let Some(line) = &mut self.line {
            received += line.receive(budget - received, &mut self.counters, &mut |frame, from, to| {
                sink(Received { channel, frame, from, to });
            });
        }
        if look {
            if !self.posts_first {
                received += self.receive_posts(channel, budget - received, sink);
            }
            // Whoever took the whole of a budget before the other had a look is second the next time.
            self.posts_first = received == budget && !self.posts_first;
            let flowing = self.ports.iter().flatten().flat_map(|port| &port.posts).any(|post| post.flowing);
            self.rest = if flowing { 1 } else { POST_REST };
        }
        self.rest -= 1;
        received
    }

    #[inline]
    fn busy(&self, channel: ChannelId) -> bool {
        self.link(channel).is_some() && self.line.as_ref().is_some_and(Line::busy)
    }

    fn wait(&mut self, timeout: Duration) {
        // Whoever waits finds what comes by the ordinary sockets at once, and who is where.
        self.rest = 0;
        self.look_after_neighbours();
        self.flush();
        if let Some(line) = &mut self.line {
            line.leave();
        }
        if !self.alarm.doze() {
            return;
        }
        let timeout = timeout.min(if self.unresolved { REFRESH_UNRESOLVED } else { REFRESH });
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        if self.polled.is_empty() {
            self.list_polled();
        }
        self.counters.system_calls += 1;
        // SAFETY: the array is live and of the length given; its descriptors are open, for the list is made anew
        // whenever a port is opened or closed, and the line is never given up.
        let ready = unsafe {
            let count = self.polled.len() as libc::nfds_t;
            libc::ppoll(self.polled.as_mut_ptr(), count, &raw const timeout, std::ptr::null())
        };
        let rung = ready > 0 && self.polled[0].revents != 0;
        self.counters.system_calls += self.alarm.rise(rung);
    }

    fn waker(&self) -> Waker {
        self.alarm.waker()
    }

    fn counters(&self) -> TransportCounters {
        let statistics = self.line.as_ref().and_then(Line::statistics);
        let overrun = statistics.map_or(0, |seen| seen.rx_dropped + seen.rx_ring_full);
        TransportCounters { foreign: self.steered().foreign, overrun, ..self.counters }
    }
}

impl std::fmt::Debug for XdpTransport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("XdpTransport")
            .field("options", &self.options)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
