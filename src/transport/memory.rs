//! The in-memory transport: endpoints of one thread hand frames to each other through bounded queues.
//!
//! It measures what the stack itself costs, and it carries tests. Nothing is copied (a queue holds another handle of
//! the sender's frame) except a frame with a body, whose two parts are joined once for all receivers. Nothing is
//! lost: a full queue is [`Full`] at the sender before anybody got the frame. Members that have not opened the view
//! yet, or have closed it, get nothing and hold nobody up.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use super::address::check_name;
use super::links::Links;
use super::{
    Addresses, Caps, Channel, ChannelId, ChannelOptions, Destination, Full, OUTSIDE_BYTES_MAX, Outside,
    Received, Transmit, Transport, TransportCounters, TransportError,
};
use crate::buf::{Frame, Region, RegionOptions};
use crate::id::{GroupId, Rank, RankSet, ViewId};
use crate::view::{Address, LocalView};

/// Limits of a [`Hub`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubOptions {
    /// Frames that may wait for one member; beyond them its senders are told [`Full`].
    pub queue_frames_max: usize,
    /// The largest frame, in bytes.
    pub frame_bytes_max: usize,
}

impl Default for HubOptions {
    fn default() -> HubOptions {
        HubOptions { queue_frames_max: 1024, frame_bytes_max: 65_000 }
    }
}

/// Where transports of one thread meet. A handle: clones name the same hub.
#[derive(Clone, Debug, Default)]
pub struct Hub {
    options: HubOptions,
    wires: Rc<RefCell<Vec<Rc<Wire>>>>,
    mailboxes: Rc<RefCell<Vec<Mailbox>>>,
}

/// Where messages outside any view wait for the process bound there.
#[derive(Clone, Debug)]
struct Mailbox {
    group: GroupId,
    address: Address,
    letters: Letters,
}

type Letters = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// Letters that may wait for one process; further ones are lost.
const LETTERS_MAX: usize = 256;

impl Hub {
    /// A hub without members.
    pub fn new(options: HubOptions) -> Hub {
        Hub { options, wires: Rc::default(), mailboxes: Rc::default() }
    }

    /// A transport whose channels reach all others opened for the same view at this hub.
    pub fn transport(&self) -> MemoryTransport {
        MemoryTransport {
            hub: self.clone(),
            links: Links::new(),
            turn: 0,
            letters_first: false,
            bound: Vec::new(),
            letters: None,
            counters: TransportCounters::default(),
        }
    }

    fn wire(&self, view: &LocalView) -> Rc<Wire> {
        let name = (view.view().group, view.view().id);
        let mut wires = self.wires.borrow_mut();
        wires.retain(|wire| wire.name == name || wire.inboxes.iter().any(|inbox| inbox.open.get()));
        if let Some(wire) = wires.iter().find(|wire| wire.name == name && wire.inboxes.len() == view.size()) {
            return Rc::clone(wire);
        }
        let inboxes = (0..view.size()).map(|_| Inbox::new(self.options.queue_frames_max)).collect();
        let wire = Rc::new(Wire { name, inboxes });
        wires.push(Rc::clone(&wire));
        wire
    }
}

/// The transport of one member.
#[derive(Debug)]
pub struct MemoryTransport {
    hub: Hub,
    links: Links<Link>,
    /// The channel whose turn it is to be received from first.
    turn: usize,
    /// Whether letters are read before frames.
    letters_first: bool,
    /// Mailboxes of this process, at most one per group.
    bound: Vec<Mailbox>,
    /// Where letters are read, made with the first mailbox.
    letters: Option<Region>,
    counters: TransportCounters,
}

impl MemoryTransport {
    /// Frames made of a head and a body that somebody still holds.
    pub fn joined_frames_lent(&self) -> usize {
        self.links.iter().map(|link| link.joined.usage().lent).sum()
    }

    #[cold]
    fn receive_letters(&mut self, budget: usize, sink: &mut impl FnMut(Received)) -> usize {
        let Some(region) = &self.letters else { return 0 };
        let mut received = 0;
        for bound in &self.bound {
            while received < budget {
                let Ok(mut frame) = region.take(0) else { return received };
                let Some(letter) = bound.letters.borrow_mut().pop_front() else { break };
                frame.extend(&letter).expect("the length was checked when it was sent");
                let frame = frame.freeze();
                frame.submit();
                let (from, to) = (frame.start(), frame.end());
                sink(Received { channel: ChannelId::OUTSIDE, frame, from, to });
                received += 1;
            }
        }
        received
    }
}

/// What connects the members of one view.
#[derive(Debug)]
struct Wire {
    name: (GroupId, ViewId),
    inboxes: Box<[Inbox]>,
}

/// A bounded queue of frames for one member. Cells, not a `RefCell<VecDeque>`: every message passes here.
struct Inbox {
    open: Cell<bool>,
    /// A power of two of them; `head` and `tail` only grow, and wrap.
    slots: Box<[Cell<Option<Frame>>]>,
    frames_max: usize,
    head: Cell<usize>,
    tail: Cell<usize>,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Inbox").field("waiting", &self.len()).finish_non_exhaustive()
    }
}

impl Inbox {
    fn new(frames_max: usize) -> Inbox {
        let slots = (0..frames_max.next_power_of_two()).map(|_| Cell::default()).collect();
        Inbox { open: Cell::new(false), slots, frames_max, head: Cell::new(0), tail: Cell::new(0) }
    }

    #[inline]
    fn len(&self) -> usize {
        self.head.get().wrapping_sub(self.tail.get())
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.len() >= self.frames_max
    }

    /// Puts a frame in; the caller has seen that there is room.
    #[inline]
    fn push(&self, frame: Frame) {
        let head = self.head.get();
        self.slots[head & (self.slots.len() - 1)].set(Some(frame));
        self.head.set(head.wrapping_add(1));
    }

    #[inline]
    fn pop(&self) -> Option<Frame> {
        let tail = self.tail.get();
        if tail == self.head.get() {
            return None;
        }
        self.tail.set(tail.wrapping_add(1));
        self.slots[tail & (self.slots.len() - 1)].take()
    }
}

/// One member's end of a wire.
#[derive(Debug)]
struct Link {
    wire: Rc<Wire>,
    own: Rank,
    /// Where head and body are joined.
    joined: Region,
    /// The longest frame, head and body together.
    frame_bytes: usize,
    /// Members that get nothing more and are not waited for.
    excluded: RankSet,
}

impl Transport for MemoryTransport {
    fn caps(&self) -> Caps {
        Caps {
            name: "memory",
            frame_bytes_max: self.hub.options.frame_bytes_max,
            multicast: true,
            integrity: true,
            loses: false,
            duplicates: false,
            reorders: false,
            zero_copy: true,
            segmentation: false,
            addresses: Addresses::Names,
            notes: Vec::new(),
        }
    }

    fn open(&mut self, view: &LocalView, options: &ChannelOptions) -> Result<Channel, TransportError> {
        let id = self.links.vacant()?;
        let frame_bytes = options.frame_bytes.min(self.hub.options.frame_bytes_max);
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
        // Held by receivers for as long as they like, and being made for this member's own retransmissions.
        let joined = pool(options.receive_frames + options.control_frames)?;
        let wire = self.hub.wire(view);
        let inbox = &wire.inboxes[view.rank().index()];
        if inbox.open.replace(true) {
            let member = view.member(view.rank());
            return Err(TransportError::IncarnationInUse(format!("incarnation {}", member.incarnation)));
        }
        let link = Link { wire, own: view.rank(), joined, frame_bytes, excluded: RankSet::EMPTY };
        self.links.put(id, link);
        Ok(Channel { id, casts, control, long: None })
    }

    fn close(&mut self, channel: ChannelId) {
        self.links.take(channel);
    }

    fn bind(&mut self, group: GroupId, address: &Address) -> Result<Address, TransportError> {
        check_name(address)?;
        let mut mailboxes = self.hub.mailboxes.borrow_mut();
        let own = |letters: &Letters| self.bound.iter().any(|bound| Rc::ptr_eq(&bound.letters, letters));
        let taken = |mailbox: &Mailbox| {
            mailbox.group == group && mailbox.address == *address && !own(&mailbox.letters)
        };
        if mailboxes.iter().any(taken) {
            return Err(TransportError::AddressInUse(address.clone()));
        }
        if self.letters.is_none() {
            self.letters = Some(Region::pool(RegionOptions {
                frames: LETTERS_MAX,
                link_headroom_bytes: 0,
                frame_bytes: OUTSIDE_BYTES_MAX,
                reserve_frames: 0,
                huge_pages: false,
            })?);
        }
        mailboxes.retain(|mailbox| mailbox.group != group || !own(&mailbox.letters));
        self.bound.retain(|bound| bound.group != group);
        let mailbox = Mailbox { group, address: address.clone(), letters: Rc::default() };
        mailboxes.push(mailbox.clone());
        self.bound.push(mailbox);
        Ok(address.clone())
    }

    fn send_outside(&mut self, group: GroupId, to: &Outside, bytes: &[u8]) {
        if bytes.len() > OUTSIDE_BYTES_MAX {
            self.counters.dropped += 1;
            return;
        }
        let own = |letters: &Letters| self.bound.iter().any(|bound| Rc::ptr_eq(&bound.letters, letters));
        for mailbox in self.hub.mailboxes.borrow().iter().filter(|mailbox| mailbox.group == group) {
            let named = match to {
                Outside::To(address) => mailbox.address == *address,
                Outside::Discover => !own(&mailbox.letters),
            };
            let mut letters = mailbox.letters.borrow_mut();
            if named && letters.len() < LETTERS_MAX {
                letters.push_back(bytes.to_vec());
            }
        }
    }

    fn exclude(&mut self, channel: ChannelId, rank: Rank) {
        if let Some(link) = self.links.get_mut(channel) {
            link.excluded.insert(rank);
        }
    }

    #[inline]
    fn submit(&mut self, transmit: Transmit) -> Result<(), Full> {
        let Some(link) = self.links.get(transmit.channel) else {
            self.counters.dropped += 1;
            return Ok(());
        };
        if transmit.len() > link.frame_bytes {
            self.counters.dropped += 1;
            return Ok(());
        }
        if let (Some(only), None) = (link.only(transmit.to), &transmit.body) {
            let Some(inbox) = link.inbox(only) else { return Ok(()) };
            if inbox.is_full() {
                return Err(Full(transmit));
            }
            transmit.head.submit();
            inbox.push(transmit.head);
            self.counters.frames_sent += 1;
            return Ok(());
        }
        if link.any(transmit.to, Inbox::is_full) {
            return Err(Full(transmit));
        }
        transmit.head.submit();
        let frame = if transmit.body.is_some() {
            let Some(joined) = link.join(&transmit) else { return Err(Full(transmit)) };
            self.counters.copies += 1;
            joined
        } else {
            transmit.head
        };
        self.counters.frames_sent += link.deliver(transmit.to, frame);
        Ok(())
    }

    #[inline]
    fn flush(&mut self) {}

    #[inline]
    fn reap(&mut self) {}

    #[inline]
    fn receive(&mut self, budget: usize, sink: &mut impl FnMut(Received)) -> usize {
        let mut received = 0;
        if self.letters_first {
            received = self.receive_letters(budget, sink);
        }
        let places = self.links.places();
        for step in 0..places {
            let at = if places == 1 { 0 } else { (self.turn + step) % places };
            let Some((channel, link)) = self.links.at(at) else { continue };
            let inbox = &link.wire.inboxes[link.own.index()];
            while received < budget {
                let Some(frame) = inbox.pop() else { break };
                received += 1;
                // A submitted frame does not change, so its bounds are still those it was sent with.
                let (from, to) = (frame.start(), frame.end());
                sink(Received { channel, frame, from, to });
            }
        }
        self.turn = if places > 1 { (self.turn + 1) % places } else { 0 };
        if !self.bound.is_empty() {
            received += self.receive_letters(budget - received, sink);
            // Whoever took the whole of a budget before the other had a look is second the next time.
            self.letters_first = received == budget && !self.letters_first;
        }
        self.counters.frames_received += received as u64;
        received
    }

    /// As on shared memory: some reader is more than one frame behind.
    #[inline]
    fn busy(&self, channel: ChannelId) -> bool {
        match self.links.get(channel) {
            Some(link) => link.any(Destination::All, |inbox| inbox.len() > 1),
            _ => false,
        }
    }

    /// Frames come only from this thread, so there is nothing to wait for but the time or the [`Waker`], unless frames
    /// wait already.
    fn wait(&mut self, timeout: Duration) {
        let mut links = self.links.iter();
        let waiting = links.any(|link| link.wire.inboxes[link.own.index()].len() > 0);
        if !waiting && self.bound.iter().all(|bound| bound.letters.borrow().is_empty()) {
            self.counters.system_calls += 1;
            thread::park_timeout(timeout);
        }
    }

    fn waker(&self) -> Waker {
        Waker::from(Arc::new(Unpark(thread::current())))
    }

    fn counters(&self) -> TransportCounters {
        self.counters
    }
}

/// Wakes the one thread that this transport can be on.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Unpark>) {
        self.0.unpark();
    }
}

impl Link {
    /// Whether `test` holds for any open inbox that `to` names.
    #[inline]
    fn any(&self, to: Destination, test: impl Fn(&Inbox) -> bool) -> bool {
        let inboxes = &self.wire.inboxes;
        match to {
            Destination::One(rank) => self.inbox(rank).is_some_and(test),
            Destination::All => {
                (0..inboxes.len()).any(|index| self.inbox(Rank(index as u16)).is_some_and(&test))
            }
            Destination::Some(ranks) => ranks.iter().any(|rank| self.inbox(rank).is_some_and(&test)),
        }
    }

    /// Puts the frame into every inbox that `to` names; returns how many there were.
    #[inline]
    fn deliver(&self, to: Destination, frame: Frame) -> u64 {
        let mut count = 0;
        let mut put = |rank: Rank, frame: Frame| {
            if let Some(inbox) = self.inbox(rank) {
                inbox.push(frame);
                count += 1;
            }
        };
        match to {
            Destination::One(rank) => put(rank, frame),
            Destination::All => {
                (0..self.wire.inboxes.len()).for_each(|index| put(Rank(index as u16), frame.clone()));
            }
            Destination::Some(ranks) => ranks.iter().for_each(|rank| put(rank, frame.clone())),
        }
        count
    }

    /// The one member that `to` names, if it names but one.
    #[inline]
    fn only(&self, to: Destination) -> Option<Rank> {
        match to {
            Destination::One(rank) => Some(rank),
            Destination::All if self.wire.inboxes.len() == 2 => Some(Rank(1 - self.own.0)),
            _ => None,
        }
    }

    /// The inbox of another member, if it is there.
    #[inline]
    fn inbox(&self, rank: Rank) -> Option<&Inbox> {
        let inbox = self.wire.inboxes.get(rank.index())?;
        (inbox.open.get() && rank != self.own && !self.excluded.contains(rank)).then_some(inbox)
    }

    #[cold]
    fn join(&self, transmit: &Transmit) -> Option<Frame> {
        let mut frame = self.joined.take(0).ok()?;
        frame.extend(transmit.head.bytes()).ok()?;
        if let Some(body) = &transmit.body {
            frame.extend(body.bytes()).ok()?;
        }
        let frame = frame.freeze();
        frame.submit();
        Some(frame)
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        let own = |letters: &Letters| self.bound.iter().any(|bound| Rc::ptr_eq(&bound.letters, letters));
        self.hub.mailboxes.borrow_mut().retain(|mailbox| !own(&mailbox.letters));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let inbox = &self.wire.inboxes[self.own.index()];
        inbox.open.set(false);
        while inbox.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Incarnation;
    use crate::transport::Slice;
    use crate::view::{Address, Member, View};

    fn members(hub: &Hub, count: usize) -> Vec<(MemoryTransport, Channel)> {
        let members = (0..count)
            .map(|rank| Member { incarnation: Incarnation(rank as u64), address: Address(format!("{rank}")) })
            .collect();
        let view = View {
            group: GroupId::named("memory"),
            id: ViewId { counter: 1, coordinator: Incarnation(0) },
            members,
            spec: String::new(),
            wire_version: 1,
            salt: 0,
            frame_bytes: 0,
        };
        let options = ChannelOptions {
            cast_frames: 16,
            control_frames: 4,
            receive_frames: 4,
            frame_bytes: 256,
            huge_pages: false,
        };
        (0..count as u64)
            .map(|own| {
                let mut transport = hub.transport();
                let view = LocalView::new(view.clone(), Incarnation(own)).unwrap();
                let channel = transport.open(&view, &options).unwrap();
                (transport, channel)
            })
            .collect()
    }

    fn frame(channel: &Channel, byte: u8) -> Frame {
        let mut frame = channel.casts.take(0).unwrap();
        frame.extend(&[byte; 100]).unwrap();
        frame.freeze()
    }

    fn bytes(transport: &mut MemoryTransport) -> Vec<u8> {
        let mut first = Vec::new();
        transport.receive(usize::MAX, &mut |received| first.push(received.bytes()[0]));
        first
    }

    #[test]
    fn a_full_queue_refuses_the_frame_for_everybody() {
        let hub = Hub::new(HubOptions { queue_frames_max: 2, ..HubOptions::default() });
        let mut members = members(&hub, 3);
        let send = |members: &mut [(MemoryTransport, Channel)], to, byte| {
            let (transport, channel) = &mut members[0];
            transport.submit(Transmit { channel: channel.id, to, head: frame(channel, byte), body: None })
        };
        send(&mut members, Destination::One(Rank(2)), 1).unwrap();
        send(&mut members, Destination::All, 2).unwrap();
        let Full(refused) = send(&mut members, Destination::All, 3).unwrap_err();
        assert!(!refused.head.submitted(), "a refused frame can still be changed");
        assert_eq!(bytes(&mut members[1].0), [2], "nobody got the refused frame");
        assert_eq!(bytes(&mut members[2].0), [1, 2]);
        members[0].0.submit(refused).unwrap();
        assert_eq!(bytes(&mut members[1].0), [3]);
    }

    #[test]
    fn nothing_is_copied_but_frames_with_a_body_and_those_once() {
        let hub = Hub::new(HubOptions::default());
        let mut members = members(&hub, 3);
        let (transport, channel) = &mut members[0];
        let whole = frame(channel, 1);
        let slice = Slice { frame: whole.clone(), from: whole.start() + 10, to: whole.end() };
        let head = frame(channel, 2);
        let to = Destination::All;
        transport.submit(Transmit { channel: channel.id, to, head: whole.clone(), body: None }).unwrap();
        assert_eq!((whole.holders(), transport.counters().copies), (4, 0));
        transport.submit(Transmit { channel: channel.id, to, head, body: Some(slice) }).unwrap();
        assert_eq!(transport.counters().copies, 1);
        let mut lengths = Vec::new();
        members[2].0.receive(8, &mut |received| lengths.push(received.bytes().len()));
        assert_eq!(lengths, [100, 190]);
    }

    #[test]
    fn a_member_that_left_holds_nobody_up_and_gives_its_frames_back() {
        let hub = Hub::new(HubOptions { queue_frames_max: 1, ..HubOptions::default() });
        let mut members = members(&hub, 2);
        let (transport, channel) = &mut members[0];
        let submit = |transport: &mut MemoryTransport, channel: &Channel| {
            let head = frame(channel, 1);
            transport.submit(Transmit { channel: channel.id, to: Destination::All, head, body: None })
        };
        submit(transport, channel).unwrap();
        assert!(submit(transport, channel).is_err());
        assert_eq!(channel.casts.usage().lent, 1);
        drop(members.pop());
        let (transport, channel) = &mut members[0];
        assert_eq!(channel.casts.usage().lent, 0);
        submit(transport, channel).unwrap();
        assert_eq!(transport.counters().frames_sent, 1);
    }
}
