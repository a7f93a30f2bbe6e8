//! Frames kept for retransmission and forwarding, by origin and number (design D6, D7).
//!
//! A retained frame stays where it is: keeping is a reference count. The store is written by layers and plans alike,
//! so it is part of the stack, not of a layer.
//!
//! Frames of others are pinned in memory that their transport needs for receiving, and a small message pins the whole
//! frame it came in. So that has a budget; what exceeds it is copied, in post-processing, to memory of the endpoint's own.
//! What was kept longest goes first: in a ring everything behind it waits for it.

use std::collections::VecDeque;
use std::ops::Range;

use super::core::Core;
use super::event::{List, Message};
use crate::buf::{Region, RegionOptions};
use crate::id::{Hasher64, Rank};
use crate::wire::Traffic;
use crate::wire::layout::Header;

/// A retained message.
#[derive(Clone, Debug)]
pub struct Retained {
    /// Its payload. If `slow` is `None`, the compressed header stands before it in its frame.
    pub list: List,
    /// Its fields and control code, if it took the slow path.
    pub slow: Option<(Header, u8)>,
}

/// The retained frames of one origin: consecutive numbers, at most as many as the window.
#[derive(Debug)]
pub struct Retention {
    window: u64,
    /// Number of the first retained frame, and of the next to be kept.
    low: u64,
    next: u64,
    /// Number of the first frame that lies here still: those before the first retained one are let go of in pieces.
    rest: u64,
    /// How many frames are kept without a look at anything but the numbers: the window, or what there are places for.
    room: u64,
    /// A power of two of them: a frame's place is its number's lowest bits.
    lists: Box<[Option<List>]>,
    /// Number, fields and control code of those that took the slow path, ascending.
    slow: VecDeque<(u64, Header, u8)>,
    /// How many of the first lists are copies.
    copied: usize,
    /// How many of the first lists have been looked at, copies included, and the bytes that these pin.
    counted: usize,
    pinned_bytes: u64,
}

/// Frames of one's own memory are made so many at a time.
const COPIES_AT_ONCE: usize = 64;

impl Retention {
    /// A store for `window` frames.
    pub(crate) fn new(window: u64) -> Retention {
        Retention::with(window, 0, window, VecDeque::new())
    }

    fn with(window: u64, low: u64, places: u64, slow: VecDeque<(u64, Header, u8)>) -> Retention {
        let lists: Box<[Option<List>]> = (0..places.next_power_of_two()).map(|_| None).collect();
        let room = window.min(lists.len() as u64);
        Retention {
            window,
            low,
            next: low,
            rest: low,
            room,
            lists,
            slow,
            copied: 0,
            counted: 0,
            pinned_bytes: 0,
        }
    }

    /// The numbers retained.
    #[inline]
    pub fn numbers(&self) -> Range<u64> {
        self.low..self.next
    }

    #[inline]
    fn place(&self, number: u64) -> usize {
        number as usize & (self.lists.len() - 1)
    }

    /// Whether the next frame to be kept drives out the oldest.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.next - self.low >= self.window
    }

    /// Keeps the next frame. Its number must be the one after the last kept. A full store lets go of its oldest frame:
    /// that can only happen to frames of others in a stack without flow control, whose memory is bounded by this.
    ///
    /// # Panics
    /// If numbers are not kept in order.
    #[inline(always)]
    pub(crate) fn keep(&mut self, number: u64, list: List) {
        if !self.has_room() {
            self.make_room();
        }
        self.keep_in_room(number, list);
    }

    /// Whether the next frame can be kept without letting go of anything.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.next - self.rest < self.room
    }

    /// How many frames can be kept without letting go of anything.
    #[inline]
    pub(crate) fn room_left(&self) -> usize {
        (self.room - (self.next - self.rest)) as usize
    }

    /// As [`Retention::keep`], if there is room.
    #[inline(always)]
    pub(crate) fn keep_in_room(&mut self, number: u64, list: List) {
        assert!(number == self.next, "frames are retained in order");
        let place = self.place(number);
        if let Some(stale) = self.lists[place].replace(list) {
            never(stale);
        }
        self.next = number + 1;
    }

    /// As [`Retention::keep_in_room`], of several, for all of which there is room.
    #[inline(always)]
    pub(crate) fn keep_run(&mut self, number: u64, lists: impl Iterator<Item = List>) {
        assert!(number == self.next, "frames are retained in order");
        let mask = self.lists.len() - 1;
        let mut next = number;
        for list in lists {
            if let Some(stale) = self.lists[next as usize & mask].replace(list) {
                never(stale);
            }
            next += 1;
        }
        self.next = next;
        debug_assert!(self.next - self.rest <= self.room);
    }

    /// Lets go of the oldest frame; a copy, which begins with fewer places than the window has, gets more.
    #[cold]
    pub(crate) fn make_room(&mut self) {
        if self.room == self.window {
            self.low = self.low.max(self.rest + 1);
            self.let_go(1);
            return;
        }
        let mut larger = Retention::with(self.window, self.rest, 2 * self.room, VecDeque::new());
        for number in self.rest..self.next {
            let place = self.place(number);
            if let Some(list) = self.lists[place].take() {
                larger.keep(number, list);
            }
        }
        larger.slow = std::mem::take(&mut self.slow);
        larger.low = self.low;
        (larger.copied, larger.counted) = (self.copied, self.counted);
        larger.pinned_bytes = self.pinned_bytes;
        *self = larger;
    }

    /// Keeps the next frame, which took the slow path, with its fields.
    ///
    /// # Panics
    /// As [`Retention::keep`].
    pub(crate) fn keep_slow(&mut self, message: &Message) {
        self.keep(message.number, message.list.clone());
        self.slow.push_back((message.number, message.header, message.control));
    }

    /// A retained frame.
    pub fn get(&self, number: u64) -> Option<Retained> {
        let list = self.list(number)?.clone();
        let slow = self.slow.binary_search_by_key(&number, |(number, ..)| *number).ok();
        let slow = slow.map(|at| (self.slow[at].1, self.slow[at].2));
        Some(Retained { list, slow })
    }

    /// A retained frame's payload.
    #[inline]
    pub(crate) fn list(&self, number: u64) -> Option<&List> {
        if !self.numbers().contains(&number) {
            return None;
        }
        self.lists[self.place(number)].as_ref()
    }

    /// As [`Retention::list`], of a number that is known to be retained.
    #[inline]
    pub(crate) fn list_at(&self, number: u64) -> Option<&List> {
        debug_assert!(self.numbers().contains(&number));
        self.lists[self.place(number)].as_ref()
    }

    /// Adds the lists of `numbers`, which are known to be retained, to `lists`, up to one that is here in name only.
    #[inline]
    pub(crate) fn copy_run(&self, numbers: Range<u64>, lists: &mut Vec<List>) {
        debug_assert!(numbers.is_empty() || numbers.start >= self.low && numbers.end <= self.next);
        let mask = self.lists.len() - 1;
        lists.extend(numbers.map_while(|number| self.lists[number as usize & mask].clone()));
    }

    /// Moves every list elsewhere, or lets go of it alone: it cannot be sent again by this process then.
    pub(crate) fn move_all(&mut self, mut moved: impl FnMut(&List) -> Option<List>) {
        self.let_go(u64::MAX);
        for number in self.numbers() {
            let place = self.place(number);
            self.lists[place] = self.lists[place].take().and_then(|list| moved(&list));
        }
        (self.counted, self.pinned_bytes) = (self.copied, 0);
        self.count(u64::MAX);
    }

    /// Frames below `number` are not retained any more: [`Retention::let_go`] makes their places free.
    pub(crate) fn trim(&mut self, number: u64) {
        self.low = self.low.max(number.min(self.next));
    }

    /// Lets go of what is not retained any more, of `frames_max` frames at most. Returns whether that was all.
    #[inline]
    pub(crate) fn let_go(&mut self, frames_max: u64) -> bool {
        self.rest == self.low || self.let_go_of(frames_max)
    }

    fn let_go_of(&mut self, frames_max: u64) -> bool {
        let end = self.low.min(self.rest.saturating_add(frames_max));
        let count = (end - self.rest) as usize;
        if self.counted > 0 {
            self.forget(count);
        }
        let first = self.place(self.rest);
        let (begin, places) = self.lists.split_at_mut(first);
        let straight = count.min(places.len());
        places[..straight].iter_mut().for_each(|place| *place = None);
        begin[..count - straight].iter_mut().for_each(|place| *place = None);
        self.rest = end;
        while self.slow.front().is_some_and(|(first, ..)| *first < end) {
            self.slow.pop_front();
        }
        end == self.low
    }

    /// Bytes pinned in place by what was kept before the last call of [`Retention::count`].
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
    }

    /// Counts what was kept since the last call, of `frames_max` frames at most. Returns whether that was all.
    pub(crate) fn count(&mut self, frames_max: u64) -> bool {
        let all = (self.next - self.rest) as usize;
        let end = all.min(self.counted.saturating_add(frames_max.min(all as u64) as usize));
        while self.counted < end {
            self.pinned_bytes += self.pinned_by(self.counted);
            self.counted += 1;
        }
        self.counted == all
    }

    fn nth(&self, at: usize) -> Option<&List> {
        self.lists[self.place(self.rest + at as u64)].as_ref()
    }

    /// The bytes that the list at `at` pins and none before it does: several datagrams may have come in one frame.
    fn pinned_by(&self, at: usize) -> u64 {
        let Some(list) = self.nth(at) else { return 0 };
        let frame = list.frame();
        let shared = at > self.copied && self.nth(at - 1).is_some_and(|before| before.frame().is(frame));
        if shared { 0 } else { frame.pinned_bytes() as u64 }
    }

    /// The first `count` lists are let go of: so is what they alone pin.
    fn forget(&mut self, count: usize) {
        for at in self.copied..count.min(self.counted) {
            self.pinned_bytes -= self.pinned_by(at);
        }
        if count > self.copied && count < self.counted && self.pinned_by(count) == 0 {
            self.pinned_bytes += self.nth(count).map_or(0, |list| list.frame().pinned_bytes() as u64);
        }
        self.copied = self.copied.saturating_sub(count);
        self.counted = self.counted.saturating_sub(count);
    }

    /// Moves the first list that is in place, with the `header_bytes` before it, into a frame of `memory`. Returns whether
    /// it did.
    fn copy_first(&mut self, memory: &Region, header_bytes: usize) -> bool {
        let at = self.copied;
        let Some(list) = self.nth(at) else { return false };
        let begin = list.from().saturating_sub(header_bytes).max(list.frame().start());
        let Ok(mut frame) = memory.take(0) else { return false };
        if frame.extend(list.frame().slice(begin, list.to())).is_err() {
            return false;
        }
        let frame = frame.freeze();
        frame.submit();
        let (from, to) = (frame.start() + list.from() - begin, frame.end());
        let copy = match list.is_packed() {
            true => List::packed(frame, from, to, list.len() as u32),
            false => List::single(frame, from, to),
        };
        self.pinned_bytes -= self.pinned_by(at);
        let next_shares = at + 1 < self.counted && self.pinned_by(at + 1) == 0;
        let place = self.place(self.rest + at as u64);
        self.lists[place] = Some(copy);
        self.copied += 1;
        if next_shares {
            self.pinned_bytes += self.pinned_by(at + 1);
        }
        true
    }

    /// Takes in numbers, and what the payloads say: for lists that may lie in different frames and yet be the same.
    pub(crate) fn digest_contents(&self, hasher: &mut Hasher64) {
        hasher.word(self.low);
        for list in self.numbers().filter_map(|number| self.list(number)) {
            hasher.bytes(list.payload());
            hasher.word(u64::from(list.is_packed()));
        }
    }

    /// Takes in numbers and payloads.
    pub(crate) fn digest(&self, hasher: &mut Hasher64) {
        hasher.word(self.low);
        for (number, list) in self.numbers().filter_map(|number| Some((number, self.list(number)?))) {
            if number - self.rest < self.copied as u64 {
                hasher.bytes(list.payload());
                continue;
            }
            hasher.word(list.payload().as_ptr() as u64);
            hasher.word(list.payload().len() as u64 | u64::from(list.is_packed()) << 63);
        }
    }
}

/// What is let go of leaves its place empty.
#[cold]
fn never(stale: List) {
    drop(stale);
    debug_assert!(false, "a place is empty before it is used again");
}

/// A copy has places for what is retained and a little more: the shadow makes one for every message.
impl Clone for Retention {
    fn clone(&self) -> Retention {
        let places = (self.next - self.rest + 1).min(self.window);
        let mut copy = Retention::with(self.window, self.rest, places, self.slow.clone());
        for number in self.rest..self.next {
            let (from, to) = (self.place(number), copy.place(number));
            copy.lists[to] = self.lists[from].clone();
        }
        (copy.low, copy.next) = (self.low, self.next);
        (copy.copied, copy.counted, copy.pinned_bytes) = (self.copied, self.counted, self.pinned_bytes);
        copy
    }
}

impl Core {
    /// Copies what is retained of others beyond the budget, when it has been counted. Part of post-processing: nothing of
    /// it is on the data path.
    pub(crate) fn bound_retention(&mut self) {
        let pinned = self.casts.iter().map(Retention::pinned_bytes).sum();
        if pinned > self.retain_bytes_max {
            self.copy_retained(pinned);
        }
    }

    /// What is retained of others cannot pin more than this in place. Only what might be too much is counted.
    pub(crate) fn pinned_bound(&self) -> u64 {
        let others = self.casts.iter().enumerate().filter(|(origin, _)| *origin != self.own.index());
        let frames = |retention: &Retention| retention.next - retention.rest - retention.copied as u64;
        others.map(|(_, retention)| frames(retention)).sum::<u64>() * self.pinned_most
    }

    /// Bytes that frames of others pin, or a bound for them if that is within the budget.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        let bound = self.pinned_bound();
        let counted = self.casts.iter().map(Retention::pinned_bytes).sum();
        if bound > self.retain_bytes_max { counted } else { bound }
    }

    /// Keeps a cast of another member.
    #[inline(always)]
    pub(crate) fn keep_cast(&mut self, origin: Rank, number: u64, list: List) {
        self.pinned_most = self.pinned_most.max(list.frame().pinned_bytes() as u64);
        self.casts[origin.index()].keep(number, list);
    }

    #[cold]
    fn copy_retained(&mut self, mut pinned: u64) {
        let own = self.own.index();
        let header_bytes = self.layouts[Traffic::Cast as usize].compressed_bytes();
        while pinned > self.retain_bytes_max {
            let others = self.casts.iter_mut().enumerate().filter(|(origin, _)| *origin != own);
            let Some((_, most)) = others.max_by_key(|(_, retention)| retention.pinned_bytes) else { return };
            let room = self.copies.iter().find(|region| region.free_frames() > 0);
            let memory = match room {
                Some(region) => region.clone(),
                None => {
                    let options = RegionOptions {
                        frames: COPIES_AT_ONCE,
                        link_headroom_bytes: 0,
                        frame_bytes: self.copy_bytes,
                        reserve_frames: 0,
                        huge_pages: false,
                    };
                    let Ok(region) = Region::pool(options) else {
                        self.count_stack("no memory to copy what is retained beyond the budget");
                        return;
                    };
                    self.copies.push(region.clone());
                    region
                }
            };
            let before = most.pinned_bytes;
            if !most.copy_first(&memory, header_bytes) {
                self.count_stack("retained in place beyond the budget");
                return;
            }
            pinned = pinned - before + most.pinned_bytes;
            self.copied += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::Frame;

    fn pool(frames: usize) -> Region {
        Region::pool(RegionOptions {
            frames,
            link_headroom_bytes: 0,
            frame_bytes: 256,
            reserve_frames: 0,
            huge_pages: false,
        })
        .unwrap()
    }

    fn frame(region: &Region, bytes: &[u8]) -> Frame {
        let mut frame = region.take(0).unwrap();
        frame.extend(bytes).unwrap();
        let frame = frame.freeze();
        frame.submit();
        frame
    }

    fn trim(store: &mut Retention, number: u64) {
        store.trim(number);
        assert!(store.let_go(u64::MAX));
    }

    /// What a fresh count gives.
    fn recount(retention: &Retention) -> u64 {
        let mut fresh = retention.clone();
        (fresh.counted, fresh.pinned_bytes) = (fresh.copied, 0);
        fresh.count(u64::MAX);
        fresh.pinned_bytes
    }

    #[test]
    fn a_copy_is_what_was_retained_with_the_header_before_it() {
        let (received, own) = (pool(4), pool(4));
        let mut retention = Retention::new(8);
        let arrived = frame(&received, b"headpayload");
        retention.keep(0, List::single(arrived, 4, 11));
        retention.count(u64::MAX);
        let pinned = retention.pinned_bytes();
        assert!(pinned >= 256, "the whole frame is pinned, not seven bytes");
        assert!(retention.copy_first(&own, 4));
        assert_eq!(retention.pinned_bytes(), 0);
        assert!(received.all_returned());
        let list = retention.get(0).unwrap().list;
        assert_eq!(list.payload(), b"payload");
        assert_eq!(list.frame().slice(list.from() - 4, list.from()), b"head");
        assert!(!retention.copy_first(&own, 4), "there is nothing else in place");
        drop(list);
        trim(&mut retention, 1);
        assert!(own.all_returned());
    }

    #[test]
    fn a_frame_shared_by_several_lists_is_pinned_once_until_the_last_is_gone() {
        let (received, own) = (pool(8), pool(8));
        let mut retention = Retention::new(16);
        let one = frame(&received, &[0; 100]).pinned_bytes() as u64;
        for run in 0..3u64 {
            let arrived = frame(&received, &[run as u8; 90]);
            for at in 0..3 {
                retention.keep(
                    run * 3 + at,
                    List::single(arrived.clone(), at as usize * 30, 30 + at as usize * 30),
                );
            }
        }
        retention.count(u64::MAX);
        assert_eq!(retention.pinned_bytes(), 3 * one);
        let expected = [3, 3, 2, 2, 2, 1, 1, 1, 0];
        for (at, frames) in (0..).zip(expected) {
            if at % 2 == 0 {
                assert!(retention.copy_first(&own, 0));
            } else {
                // The copies and one that is in place.
                trim(&mut retention, at + 1);
            }
            assert_eq!(retention.pinned_bytes(), frames * one, "{at}");
            assert_eq!(retention.pinned_bytes(), recount(&retention));
        }
        trim(&mut retention, 9);
        assert!(own.all_returned() && received.all_returned());
    }

    #[test]
    fn without_room_for_copies_everything_stays() {
        let (received, own) = (pool(2), pool(1));
        let mut retention = Retention::new(8);
        for number in 0..2 {
            retention.keep(number, List::single(frame(&received, b"payload"), 0, 7));
        }
        retention.count(u64::MAX);
        let pinned = retention.pinned_bytes();
        assert!(retention.copy_first(&own, 0) && !retention.copy_first(&own, 0));
        assert_eq!(retention.pinned_bytes(), pinned / 2);
        assert_eq!(retention.get(1).unwrap().list.payload(), b"payload");
    }

    fn list(region: &Region, byte: u8) -> List {
        let frame = frame(region, &[byte]);
        let (from, to) = (frame.start(), frame.end());
        List::single(frame, from, to)
    }

    fn kept(store: &Retention) -> Vec<u8> {
        store.numbers().map(|number| store.get(number).unwrap().list.payload()[0]).collect()
    }

    #[test]
    fn a_full_store_lets_go_of_its_oldest_frame_and_no_other() {
        let region = pool(16);
        let mut store = Retention::new(5);
        for number in 0..20 {
            assert_eq!(store.is_full(), number >= 5);
            store.keep(number, list(&region, number as u8));
        }
        assert_eq!(kept(&store), [15, 16, 17, 18, 19]);
        assert_eq!(region.usage().lent, 5);
        trim(&mut store, 18);
        assert_eq!((kept(&store), region.usage().lent), (vec![18, 19], 2));
        assert!(store.list(17).is_none() && store.list(20).is_none());
        trim(&mut store, u64::MAX);
        assert!(region.all_returned());
        assert_eq!(store.numbers(), 20..20);
    }

    #[test]
    fn what_is_trimmed_goes_in_pieces_and_at_the_latest_when_its_place_is_needed() {
        let region = pool(16);
        let mut store = Retention::new(6);
        for number in 0..6 {
            store.keep(number, list(&region, number as u8));
        }
        store.trim(4);
        assert_eq!((kept(&store), region.usage().lent), (vec![4, 5], 6));
        assert!(store.list(3).is_none() && !store.is_full());
        assert!(!store.let_go(1));
        assert_eq!(region.usage().lent, 5);
        let copy = store.clone();
        assert_eq!((kept(&copy), copy.numbers()), (vec![4, 5], 4..6));
        drop(copy);
        // Never more than the window lies here: the sum of the region counts on it.
        for number in 6..10 {
            store.keep(number, list(&region, number as u8));
            assert!(region.usage().lent <= 6);
        }
        assert_eq!(kept(&store), [4, 5, 6, 7, 8, 9]);
        assert!(store.let_go(1), "nothing is left of what was trimmed");
        trim(&mut store, u64::MAX);
        assert!(region.all_returned());
    }

    #[test]
    fn a_copy_holds_what_its_original_does_and_grows_to_the_same_window() {
        let region = pool(16);
        for before in 0..6 {
            let mut store = Retention::new(5);
            (0..before).for_each(|number| store.keep(number, list(&region, number as u8)));
            let mut copy = store.clone();
            assert_eq!(kept(&copy), kept(&store));
            for number in before..before + 9 {
                let list = list(&region, number as u8);
                copy.keep(number, list.clone());
                store.keep(number, list);
                assert_eq!((kept(&copy), copy.is_full()), (kept(&store), store.is_full()));
            }
        }
        assert!(region.all_returned());
    }
}
