//! Frames kept for retransmission and forwarding, by origin and number (design D6, D7).
//!
//! A retained frame stays where it is: keeping is a reference count. The store is written by layers and plans alike,
//! so it is part of the stack, not of a layer.

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
    entries: Vec<Option<List>>,
    slow: Vec<Option<(Header, u8)>>,
    low: u64,
    high: u64,
}

impl Retention {
    /// A store for `window` frames, rounded up to a power of two. Takes memory for their handles only once used.
    pub(crate) fn new(window: u64) -> Retention {
        let entries = window.next_power_of_two() as usize;
        Retention { entries: vec![None; entries], slow: Vec::new(), low: 0, high: 0 }
    }

    /// The numbers retained.
    pub fn numbers(&self) -> std::ops::Range<u64> {
        self.low..self.high
    }

    /// Keeps the next frame. Its number must be the one after the last kept. A full store lets go of its oldest frame:
    /// that can only happen to frames of others in a stack without flow control, whose memory is bounded by this.
    ///
    /// # Panics
    /// If numbers are not kept in order.
    #[inline]
    pub(crate) fn keep(&mut self, number: u64, list: List) {
        assert!(number == self.high, "frames are retained in order");
        if number - self.low >= self.entries.len() as u64 {
            self.trim(self.low + 1);
        }
        let at = number as usize & (self.entries.len() - 1);
        // The entry is free: nothing is dropped here.
        self.entries[at] = Some(list);
        self.high = number + 1;
    }

    /// Keeps the next frame, which took the slow path, with its fields.
    ///
    /// # Panics
    /// As [`Retention::keep`].
    pub(crate) fn keep_slow(&mut self, message: &Message) {
        if self.slow.is_empty() {
            self.slow = vec![None; self.entries.len()];
        }
        self.keep(message.number, message.list.clone());
        let at = message.number as usize & (self.entries.len() - 1);
        self.slow[at] = Some((message.header, message.control));
    }

    /// A retained frame.
    pub fn get(&self, number: u64) -> Option<Retained> {
        if !self.numbers().contains(&number) {
            return None;
        }
        let at = number as usize & (self.entries.len() - 1);
        let list = self.entries[at].clone()?;
        Some(Retained { list, slow: self.slow.get(at).copied().flatten() })
    }

    /// Lets go of all frames below `number`.
    pub(crate) fn trim(&mut self, number: u64) {
        while self.low < number.min(self.high) {
            let at = self.low as usize & (self.entries.len() - 1);
            self.entries[at] = None;
            if let Some(slow) = self.slow.get_mut(at) {
                *slow = None;
            }
            self.low += 1;
        }
    }

    /// Takes in numbers and payloads.
    pub(crate) fn digest(&self, hasher: &mut Hasher64) {
        hasher.word(self.low);
        hasher.word(self.high);
        for number in self.numbers() {
            if let Some(list) = &self.entries[number as usize & (self.entries.len() - 1)] {
                hasher.word(list.payload().as_ptr() as u64);
                hasher.word(list.payload().len() as u64 | u64::from(list.is_packed()) << 63);
            }
        }
    }
}
