//! What a member that has not got the state yet is not ready to deliver.

use std::collections::VecDeque;

use crate::buf::{Frame, FrameMut, Region, RegionOptions};
use crate::id::Rank;
use crate::stack::event::{List, Message, Part, Up};
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
    /// The number of the first page.
    first_page: u64,
}

enum Held {
    Event(Up),
    Message(Copied),
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
    page: u64,
    from: usize,
    to: usize,
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
        self.bytes += size_of::<Held>() as u64;
        let (origin, message) = match &event {
            Up::Cast(origin, message) | Up::Send(origin, message) => (*origin, message),
            _ => return self.events.push_back(Held::Event(event)),
        };
        let length = message.list.payload().len();
        self.bytes += length as u64;
        let held = match self.place(message.list.payload()) {
            Some((page, from)) => Held::Message(Copied {
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
            }),
            // There is no memory: it stays where it is.
            None => Held::Event(event),
        };
        self.events.push_back(held);
    }

    /// Copies a payload; says where to.
    fn place(&mut self, payload: &[u8]) -> Option<(u64, usize)> {
        let fits = matches!(self.pages.back(), Some(Page::Open(page)) if page.room() >= payload.len());
        if !fits {
            let options = RegionOptions {
                frames: 1,
                link_headroom_bytes: 0,
                frame_bytes: payload.len().max(PAGE_BYTES),
                reserve_frames: 0,
                huge_pages: false,
            };
            let page = Region::pool(options).ok()?.take(0).ok()?;
            if let Some(full) = self.pages.pop_back() {
                self.pages.push_back(Page::Full(full.frame()));
            }
            self.pages.push_back(Page::Open(page));
        }
        let number = self.first_page + self.pages.len() as u64 - 1;
        let Some(Page::Open(page)) = self.pages.back_mut() else { return None };
        let from = page.len();
        page.extend(payload).ok()?;
        Some((number, from))
    }

    /// The event held longest.
    pub(super) fn pop(&mut self) -> Option<Up> {
        let held = self.events.pop_front()?;
        self.bytes -= size_of::<Held>() as u64;
        let copied = match held {
            Held::Event(event) => {
                if let Up::Cast(_, message) | Up::Send(_, message) = &event {
                    self.bytes -= message.list.payload().len() as u64;
                }
                return Some(event);
            }
            Held::Message(copied) => copied,
        };
        let Copied { origin, traffic, packed, messages, number, part, header, page, from, to } = copied;
        self.bytes -= (to - from) as u64;
        while self.first_page < page {
            self.pages.pop_front();
            self.first_page += 1;
        }
        let frame = self.pages.pop_front()?.frame();
        self.pages.push_front(Page::Full(frame.clone()));
        let (from, to) = (frame.start() + from, frame.start() + to);
        let list = match packed {
            true => List::packed(frame, from, to, messages),
            false => List::single(frame, from, to),
        };
        let header = header.map_or(Header::ZERO, |header| *header);
        let message = Message { traffic, control: NO_CONTROL, number, header, list, part };
        Some(match traffic {
            Traffic::Cast => Up::Cast(origin, message),
            _ => Up::Send(origin, message),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
