//! Frames kept for retransmission and forwarding, by origin and number (design D6, D7).
//!
//! A retained frame stays where it is: keeping is a reference count. The store is written by layers and plans alike,
//! so it is part of the stack, not of a layer.

use std::collections::VecDeque;

use super::event::{List, Message};
use crate::id::Hasher64;
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
#[derive(Clone, Debug)]
pub struct Retention {
    window: usize,
    /// Number of the first retained frame.
    low: u64,
    lists: VecDeque<List>,
    /// Number, fields and control code of those that took the slow path, ascending.
    slow: VecDeque<(u64, Header, u8)>,
}

impl Retention {
    /// A store for `window` frames.
    pub(crate) fn new(window: u64) -> Retention {
        let window = window as usize;
        Retention { window, low: 0, lists: VecDeque::with_capacity(window), slow: VecDeque::new() }
    }

    /// The numbers retained.
    #[inline]
    pub fn numbers(&self) -> std::ops::Range<u64> {
        self.low..self.low + self.lists.len() as u64
    }

    /// Keeps the next frame. Its number must be the one after the last kept. A full store lets go of its oldest frame:
    /// that can only happen to frames of others in a stack without flow control, whose memory is bounded by this.
    ///
    /// # Panics
    /// If numbers are not kept in order.
    #[inline]
    pub(crate) fn keep(&mut self, number: u64, list: List) {
        assert!(number == self.low + self.lists.len() as u64, "frames are retained in order");
        if self.lists.len() >= self.window {
            self.trim(self.low + 1);
        }
        self.lists.push_back(list);
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
        let at = usize::try_from(number.checked_sub(self.low)?).ok()?;
        let list = self.lists.get(at)?.clone();
        let slow = self.slow.binary_search_by_key(&number, |(number, ..)| *number).ok();
        let slow = slow.map(|at| (self.slow[at].1, self.slow[at].2));
        Some(Retained { list, slow })
    }

    /// What is retained, to be moved elsewhere.
    pub(crate) fn lists_mut(&mut self) -> &mut VecDeque<List> {
        &mut self.lists
    }

    /// Lets go of all frames below `number`.
    pub(crate) fn trim(&mut self, number: u64) {
        let count = number.saturating_sub(self.low).min(self.lists.len() as u64);
        self.lists.drain(..count as usize);
        self.low += count;
        while self.slow.front().is_some_and(|(first, ..)| *first < self.low) {
            self.slow.pop_front();
        }
    }

    /// Takes in numbers and payloads.
    pub(crate) fn digest(&self, hasher: &mut Hasher64) {
        hasher.word(self.low);
        for list in &self.lists {
            hasher.word(list.payload().as_ptr() as u64);
            hasher.word(list.payload().len() as u64 | u64::from(list.is_packed()) << 63);
        }
    }
}
