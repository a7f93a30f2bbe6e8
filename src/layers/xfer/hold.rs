//! What a member that has not got the state yet is not ready to deliver.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::buf::{Frame, FrameMut, Region, RegionOptions};
use crate::id::{Rank, ViewId};
use crate::stack::event::{List, Message, Part, Up};
use crate::view::LocalView;
use crate::wire::Traffic;
use crate::wire::full::NO_CONTROL;
use crate::wire::layout::Header;

/// Bytes of memory that are asked for at a time; a longer message gets memory of its own.
const PAGE_BYTES: usize = 256 << 10;

/// Events in their order. Messages are copied out of the frames they came in: a joiner must not keep what the others need
/// for sending and receiving. A fork has the counts alone.
#[derive(Default)]
pub(super) struct Hold {
    events: VecDeque<Held>,
    bytes: u64,
    pages: VecDeque<Page>,
    /// The number of the first page. What comes before all that is held has lower ones.
    first_page: i64,
}

enum Held {
    Event(Up),
    Message(Copied),
}

impl Held {
    /// What it takes.
    fn bytes(&self) -> u64 {
        let payload = match self {
            Held::Event(event) => payload_bytes(event),
            Held::Message(copied) => (copied.to - copied.from) as u64,
        };
        size_of::<Held>() as u64 + payload
    }

    /// The page that its payload lies in.
    fn page(&self) -> Option<i64> {
        match self {
            Held::Event(_) => None,
            Held::Message(copied) => Some(copied.page),
        }
    }
}

/// A cast or send whose payload lies in a page.
struct Copied {
    origin: Rank,
    traffic: Traffic,
    packed: bool,
    messages: u32,
    number: u64,
    part: Part,
    /// If there are layers above that want it.
    header: Option<Box<Header>>,
    page: i64,
    from: usize,
    to: usize,
}

impl Copied {
    /// As it came, from the page that it lies in.
    fn event(self, page: Frame) -> Up {
        let Copied { origin, traffic, packed, messages, number, part, header, from, to, .. } = self;
        let (from, to) = (page.start() + from, page.start() + to);
        let list = match packed {
            true => List::packed(page, from, to, messages),
            false => List::single(page, from, to),
        };
        let header = header.map_or(Header::ZERO, |header| *header);
        let message = Message { traffic, control: NO_CONTROL, number, header, list, part };
        match traffic {
            Traffic::Cast => Up::Cast(origin, message),
            _ => Up::Send(origin, message),
        }
    }
}

enum Page {
    Open(FrameMut),
    Full(Frame),
}

impl Page {
    fn frame(self) -> Frame {
        match self {
            Page::Open(frame) => frame.freeze(),
            Page::Full(frame) => frame,
        }
    }
}

impl Clone for Hold {
    fn clone(&self) -> Hold {
        Hold { bytes: self.bytes, ..Hold::default() }
    }
}

impl Hold {
    /// Bytes held, with what each event takes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        *self = Hold::default();
    }

    /// Keeps an event for later; headers of messages only if layers above will look at them.
    pub(super) fn push(&mut self, event: Up, headers: bool) {
        let (origin, message) = match &event {
            Up::Cast(origin, message) | Up::Send(origin, message) => (*origin, message),
            _ => return self.keep(event),
        };
        let length = message.list.payload().len();
        // If there is no memory it stays where it is.
        let Some((page, from)) = self.place(message.list.payload()) else { return self.keep(event) };
        self.bytes += (size_of::<Held>() + length) as u64;
        self.events.push_back(Held::Message(Copied {
            origin,
            traffic: message.traffic,
            packed: message.list.is_packed(),
            messages: message.list.len() as u32,
            number: message.number,
            part: message.part,
            header: headers.then(|| Box::new(message.header)),
            page,
            from,
            to: from + length,
        }));
    }

    /// That view, if its beginning is held.
    pub(super) fn view(&self, id: ViewId) -> Option<Rc<LocalView>> {
        match self.events.get(self.beginning(id)?) {
            Some(Held::Event(Up::View(view))) => Some(Rc::clone(view)),
            _ => None,
        }
    }

    fn beginning(&self, id: ViewId) -> Option<usize> {
        self.events
            .iter()
            .position(|held| matches!(held, Held::Event(Up::View(view)) if view.view().id == id))
    }

    /// Whether nothing is held. That is so of a fork, too.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Lets go of what was held before `view` began, but for whole messages of its members that `keeps` names (sends, if
    /// nothing is wrong on purpose): they follow behind its beginning. What was held since stays where it is: there may be
    /// much of it.
    pub(super) fn begin_at(&mut self, view: &LocalView, keeps: impl Fn(Traffic) -> bool) {
        let at = self.beginning(view.view().id).unwrap_or(self.events.len());
        if at == 0 {
            return;
        }
        let rest = self.events.split_off(at);
        let before = std::mem::replace(&mut self.events, rest);
        self.bytes -= before.iter().map(Held::bytes).sum::<u64>();
        let first = self.first_page;
        let end = first + self.pages.len() as i64;
        let stays = self.events.iter().find_map(Held::page).unwrap_or(end);
        let mut gone: Vec<Frame> = self.pages.drain(..(stays - first) as usize).map(Page::frame).collect();
        if let Some(shared) = self.pages.pop_front() {
            gone.push(shared.frame());
            self.pages.extend(gone.last().cloned().map(Page::Full));
            self.pages.rotate_right(1);
        }
        // Into pages of their own, in the order in which they will be taken: what is let go of leaves none.
        let mut kept = Hold::default();
        for held in messages_of(before, view, keeps) {
            match held {
                Held::Event(event) => kept.keep(event),
                Held::Message(copied) => {
                    let (page, header) =
                        (gone[(copied.page - first) as usize].clone(), copied.header.is_some());
                    kept.push(copied.event(page), header);
                }
            }
        }
        self.first_page = stays - kept.pages.len() as i64;
        self.bytes += kept.bytes;
        let begins = self.events.pop_front();
        for mut held in kept.events.into_iter().rev() {
            if let Held::Message(copied) = &mut held {
                copied.page += self.first_page;
            }
            self.events.push_front(held);
        }
        begins.into_iter().for_each(|begins| self.events.push_front(begins));
        for page in kept.pages.into_iter().rev() {
            self.pages.push_front(page);
        }
    }

    /// Keeps an event where its bytes are.
    fn keep(&mut self, event: Up) {
        self.bytes += size_of::<Held>() as u64 + payload_bytes(&event);
        self.events.push_back(Held::Event(event));
    }

    /// Layers above will look at no header.
    pub(super) fn drop_headers(&mut self) {
        for held in &mut self.events {
            if let Held::Message(copied) = held {
                copied.header = None;
            }
        }
    }

    /// Keeps an event that comes before all that is held.
    pub(super) fn push_first(&mut self, event: Up) {
        self.bytes += size_of::<Held>() as u64;
        self.events.push_front(Held::Event(event));
    }

    /// Copies a payload; says where to.
    fn place(&mut self, payload: &[u8]) -> Option<(i64, usize)> {
        let fits = matches!(self.pages.back(), Some(Page::Open(page)) if page.room() >= payload.len());
        if !fits {
            let options = RegionOptions {
                frames: 1,
                link_headroom_bytes: 0,
                frame_bytes: payload.len().max(PAGE_BYTES),
                reserve_frames: 0,
                huge_pages: false,
            };
            let page = Region::pool_untouched(options).ok()?.take(0).ok()?;
            if let Some(full) = self.pages.pop_back() {
                self.pages.push_back(Page::Full(full.frame()));
            }
            self.pages.push_back(Page::Open(page));
        }
        let number = self.first_page + self.pages.len() as i64 - 1;
        let Some(Page::Open(page)) = self.pages.back_mut() else { return None };
        let from = page.len();
        page.extend(payload).ok()?;
        Some((number, from))
    }

    /// The event held longest.
    pub(super) fn pop(&mut self) -> Option<Up> {
        let held = self.events.pop_front()?;
        self.bytes -= size_of::<Held>() as u64;
        match held {
            Held::Event(event) => {
                self.bytes -= payload_bytes(&event);
                Some(event)
            }
            Held::Message(copied) => {
                self.bytes -= (copied.to - copied.from) as u64;
                while self.first_page < copied.page {
                    self.pages.pop_front();
                    self.first_page += 1;
                }
                let page = self.pages.pop_front()?.frame();
                self.pages.push_front(Page::Full(page.clone()));
                Some(copied.event(page))
            }
        }
    }
}

/// The whole messages among `events`, of those who are in `view`, too, by their ranks there. The events begin with that of
/// a view.
fn messages_of(events: VecDeque<Held>, view: &LocalView, keeps: impl Fn(Traffic) -> bool) -> Vec<Held> {
    let mut within = None;
    let mut kept = Vec::new();
    let mut partial: Vec<(Rank, Vec<Held>)> = Vec::new();
    for mut held in events {
        let (traffic, origin, part, bytes) = match &mut held {
            Held::Message(copied) => {
                (copied.traffic, &mut copied.origin, copied.part, copied.to - copied.from)
            }
            Held::Event(Up::Send(origin, message)) => {
                (Traffic::Send, origin, message.part, message.list.payload().len())
            }
            Held::Event(Up::View(begins)) => {
                within = Some(Rc::clone(begins));
                // What is not whole by now never will be.
                partial.clear();
                continue;
            }
            Held::Event(_) => continue,
        };
        if !keeps(traffic) {
            continue;
        }
        let incarnation = within.as_ref().map(|within| within.member(*origin).incarnation);
        let Some(rank) = incarnation.and_then(|incarnation| view.rank_of(incarnation)) else { continue };
        *origin = rank;
        match part {
            Part::Whole => kept.push(held),
            Part::Void => {}
            Part::Fragment { first, left } => {
                if first || !partial.iter().any(|(of, _)| *of == rank) {
                    partial.retain(|(of, _)| *of != rank);
                    partial.push((rank, Vec::new()));
                }
                let (_, parts) =
                    partial.iter_mut().find(|(of, _)| *of == rank).expect("it has been put there");
                parts.push(held);
                if left == bytes as u64 {
                    kept.append(parts);
                }
            }
        }
    }
    kept
}

fn payload_bytes(event: &Up) -> u64 {
    match event {
        Up::Cast(_, message) | Up::Send(_, message) => message.list.payload().len() as u64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{GroupId, Incarnation};
    use crate::view::{Address, Member, View};

    fn cast(number: u64, payload: &[u8]) -> Up {
        let options = RegionOptions {
            frames: 1,
            link_headroom_bytes: 0,
            frame_bytes: payload.len().max(64),
            reserve_frames: 0,
            huge_pages: false,
        };
        let mut frame = Region::pool(options).unwrap().take(0).unwrap();
        frame.extend(payload).unwrap();
        let frame = frame.freeze();
        let (from, to) = (frame.start(), frame.end());
        let list = List::single(frame, from, to);
        let part = Part::Fragment { first: number.is_multiple_of(2), left: number };
        Up::Cast(Rank(3), Message { number, part, ..Message::data(Traffic::Cast, list) })
    }

    /// A send of `origin`; a fragment if it says so.
    fn send(origin: u16, payload: &[u8], part: Part) -> Up {
        let Up::Cast(_, message) = cast(0, payload) else { unreachable!() };
        Up::Send(Rank(origin), Message { part, traffic: Traffic::Send, ..message })
    }

    /// The beginning of a view of these incarnations, as the first of them sees it.
    fn view(counter: u64, members: &[u64]) -> Rc<LocalView> {
        let member = |incarnation: &u64| Member {
            incarnation: Incarnation(*incarnation),
            address: Address(incarnation.to_string()),
        };
        let view = View::fixed(GroupId::named("hold"), members.iter().map(member).collect(), "COM");
        let view = View { id: ViewId { counter, ..view.id }, ..view };
        Rc::new(LocalView::new(view, Incarnation(members[0])).unwrap())
    }

    fn is_send(traffic: Traffic) -> bool {
        traffic == Traffic::Send
    }

    fn payloads(hold: &mut Hold) -> Vec<(Rank, Vec<u8>)> {
        std::iter::from_fn(|| hold.pop())
            .map(|event| match event {
                Up::Send(origin, message) => (origin, message.list.payload().to_vec()),
                Up::Cast(origin, message) => (origin, message.list.payload().to_vec()),
                Up::View(view) => (view.rank(), view.view().id.counter.to_le_bytes().to_vec()),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn of_a_view_before_whole_sends_are_kept_of_those_that_went_on() {
        let mut hold = Hold::default();
        let part = |first, left| Part::Fragment { first, left };
        hold.push(Up::View(view(7, &[40, 41, 42, 43])), false);
        hold.push(send(1, b"one", Part::Whole), false);
        hold.push(cast(7, b"a cast"), false);
        hold.push(send(2, b"of one that is gone", Part::Whole), false);
        hold.push(send(1, b"ab", part(true, 3)), false);
        hold.push(Up::Stable, false);
        hold.push(send(3, b"two", Part::Whole), false);
        hold.push(send(1, b"c", part(false, 1)), false);
        hold.push(send(3, b"half of it", part(true, 100)), false);
        let next = view(8, &[40, 43, 41, 50]);
        hold.push(Up::View(Rc::clone(&next)), false);
        hold.push(cast(0, b"in the next"), false);
        hold.push(send(3, b"by the new one", Part::Whole), false);
        assert_eq!(hold.view(next.view().id), Some(Rc::clone(&next)));
        assert!(hold.view(view(9, &[40]).view().id).is_none());
        hold.begin_at(&next, is_send);
        let expected: [(u16, &[u8]); 7] = [
            (0, &8u64.to_le_bytes()),
            (2, b"one"),
            (1, b"two"),
            (2, b"ab"),
            (2, b"c"),
            (3, b"in the next"),
            (3, b"by the new one"),
        ];
        assert_eq!(payloads(&mut hold), expected.map(|(rank, payload)| (Rank(rank), payload.to_vec())));
        assert_eq!(hold.bytes(), 0);
    }

    /// Parts move behind what came between them, which may lie in a later page; and what is not kept holds no memory.
    #[test]
    fn what_is_kept_is_what_came_wherever_it_lay() {
        let mut hold = Hold::default();
        let big = |byte: u8| vec![byte; PAGE_BYTES * 3 / 4];
        let left = 2 * big(0).len() as u64;
        let both = [40, 41, 42];
        hold.push(Up::View(view(1, &both)), false);
        for counter in 2..5 {
            hold.push(send(1, &big(1), Part::Fragment { first: true, left }), false);
            hold.push(cast(7, &big(2)), false);
            hold.push(send(2, &big(3), Part::Whole), false);
            hold.push(send(1, &big(4), Part::Fragment { first: false, left: left / 2 }), false);
            let members = if counter < 4 { &both[..] } else { &[40, 42] };
            let next = view(counter, members);
            hold.push(Up::View(Rc::clone(&next)), false);
            hold.begin_at(&next, is_send);
            let kept = hold.events.len();
            assert!(hold.pages.len() <= kept, "{} pages for {kept}", hold.pages.len());
        }
        // Of the last view those of rank 1 are gone.
        let Some(Up::View(_)) = hold.pop() else { panic!("the view comes first") };
        for _ in 0..3 {
            let Some(Up::Send(Rank(1), message)) = hold.pop() else { panic!("three are kept") };
            assert_eq!(message.list.payload(), big(3));
        }
        assert!(hold.pop().is_none());
        hold.push(Up::View(view(1, &both)), false);
        hold.push(send(1, &big(1), Part::Fragment { first: true, left }), false);
        hold.push(send(2, &big(3), Part::Whole), false);
        hold.push(send(1, &big(4), Part::Fragment { first: false, left: left / 2 }), false);
        // The beginning of that one is not held: it will come.
        hold.begin_at(&view(2, &both), is_send);
        for (rank, byte) in [(2, 3), (1, 1), (1, 4)] {
            let Some(Up::Send(origin, message)) = hold.pop() else { panic!("three are kept") };
            assert_eq!((origin, message.list.payload()), (Rank(rank), &big(byte)[..]));
        }
    }

    /// Whatever is let go of: the memory of what was held since is not copied, and what is kept comes before it.
    #[test]
    fn what_was_held_since_the_beginning_stays_where_it_is() {
        let big = |byte: u8| vec![byte; PAGE_BYTES * 3 / 4];
        let both = [40, 41, 42];
        for before in 0..4u8 {
            let mut hold = Hold::default();
            if before > 0 {
                hold.push(Up::View(view(1, &both)), false);
            }
            for byte in 0..before {
                hold.push(send(1, &big(byte), Part::Whole), false);
                hold.push(send(2, &[byte], Part::Whole), false);
                hold.push(cast(7, &big(byte)), false);
            }
            let next = view(2, &both);
            hold.push(Up::View(Rc::clone(&next)), false);
            for byte in 10..14 {
                hold.push(cast(7, &big(byte)), false);
            }
            let bytes = hold.bytes();
            let since = hold.pages.len() - 4..;
            let frames = |hold: &mut Hold, since: std::ops::RangeFrom<usize>| -> Vec<*const u8> {
                let start = |page: &Page| match page {
                    Page::Open(frame) => frame.bytes().as_ptr(),
                    Page::Full(frame) => frame.bytes().as_ptr(),
                };
                hold.pages.iter().skip(since.start).map(start).collect()
            };
            let were = frames(&mut hold, since);
            hold.begin_at(&next, is_send);
            let since = hold.pages.len() - 4..;
            assert_eq!(frames(&mut hold, since), were, "{before}");
            let event = size_of::<Held>() as u64;
            let gone = u64::from(before) * (event + big(0).len() as u64) + if before > 0 { event } else { 0 };
            assert_eq!(hold.bytes(), bytes - gone);
            // What comes later comes last.
            hold.push(cast(7, b"later"), false);
            let mut expected = vec![(Rank(0), 2u64.to_le_bytes().to_vec())];
            for byte in 0..before {
                expected.extend([(Rank(1), big(byte)), (Rank(2), vec![byte])]);
            }
            expected.extend((10..14).map(|byte| (Rank(3), big(byte))));
            expected.push((Rank(3), b"later".to_vec()));
            assert!(payloads(&mut hold) == expected, "{before}");
            assert_eq!(hold.bytes(), 0);
        }
    }

    #[test]
    fn what_is_held_comes_back_in_order_from_frames_of_its_own() {
        let mut hold = Hold::default();
        let payload = |n: u64| vec![n as u8; 100 * n as usize];
        for n in 0..400 {
            let event = cast(n, &payload(n));
            let Up::Cast(_, message) = &event else { unreachable!() };
            let frame = message.list.frame().clone();
            hold.push(event, false);
            assert_eq!(frame.holders(), 1, "nobody's frame is kept");
            if n % 100 == 0 {
                hold.push(Up::Stable, false);
                hold.push(cast(n, &vec![7; 2 * PAGE_BYTES]), true);
            }
        }
        for n in 0..400 {
            let Some(Up::Cast(Rank(3), message)) = hold.pop() else { panic!("{n}") };
            assert_eq!((message.number, message.list.payload()), (n, &payload(n)[..]));
            assert_eq!(message.part, Part::Fragment { first: n.is_multiple_of(2), left: n });
            if n % 100 == 0 {
                assert!(matches!(hold.pop(), Some(Up::Stable)));
                let Some(Up::Cast(_, message)) = hold.pop() else { panic!("{n}") };
                assert_eq!(message.list.payload().len(), 2 * PAGE_BYTES);
            }
        }
        assert!(hold.pop().is_none());
        assert_eq!(hold.bytes(), 0);
    }
}
