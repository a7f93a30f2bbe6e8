//! The open pack: small messages that share a frame (design section 4).
//!
//! The first message is written where a lone message belongs; only when a second one joins it does the payload become
//! a pack, with the first run's header in the room before it.

use crate::buf::FrameMut;
use crate::stack::event::Count;
use crate::wire::pack::{PACK_MESSAGES_MAX, RUN_HEADER_BYTES, run_header};

/// Room that a frame taken for casts keeps before the payload, beside the header: a run's header, aligned.
pub(crate) const PACK_ROOM_BYTES: usize = 8;

/// Marks a count of messages as that of a full pack.
const APART: u32 = 1 << 31;

/// The frame that is being filled, if any. Lives in its stack, so that opening and closing it moves nothing.
#[derive(Debug, Default)]
pub(crate) struct OpenPack {
    frame: Option<FrameMut>,
    /// Where the current run's header is, and how many messages the run has, once this is a pack.
    run_at: usize,
    run_count: usize,
    run_size: usize,
    messages: u32,
    packed: bool,
    /// Bytes lent and not committed.
    lent: usize,
    /// Whether its messages are agreed and not safe: those of a pack are of one kind, and nothing else fits it.
    agreed: bool,
}

/// A frame that is filled.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) frame: FrameMut,
    pub(crate) count: Count,
    /// Whether it is agreed and not safe, where casts are one or the other.
    pub(crate) agreed: bool,
}

impl OpenPack {
    /// Whether a frame is open.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.frame.is_some()
    }

    /// Begins to fill `frame` where none is open, and lends `length` bytes for the first message; they must fit.
    #[inline]
    pub(crate) fn begin(&mut self, mut frame: FrameMut, length: usize, agreed: bool) {
        frame.grow(length).expect("the caller asked whether it fits");
        debug_assert!(!self.is_open(), "what is open is closed first");
        self.frame = Some(frame);
        self.agreed = agreed;
        (self.run_size, self.lent, self.messages, self.packed) = (length, length, 0, false);
    }

    /// What comes next is of the other kind, or of its own again: a pack of agreed messages is full for others.
    pub(crate) fn set_apart(&mut self, apart: bool) {
        self.messages = if apart { self.messages | APART } else { self.messages & !APART };
    }

    /// Whether what is in it is agreed and not safe.
    pub(crate) fn is_agreed(&self) -> bool {
        self.agreed
    }

    fn frame(&mut self) -> &mut FrameMut {
        self.frame.as_mut().expect("callers ask whether a frame is open")
    }

    /// Whether a message of `length` bytes fits a payload of at most `payload_max` bytes.
    #[inline]
    pub(crate) fn fits(&self, length: usize, payload_max: usize) -> bool {
        let Some(frame) = &self.frame else { return false };
        if self.messages == 0 {
            return length <= payload_max;
        }
        let packable =
            length <= usize::from(u16::MAX) && (self.packed || self.run_size <= usize::from(u16::MAX));
        let opening = if self.packed { 0 } else { RUN_HEADER_BYTES };
        let packable = packable && (self.messages as usize) < PACK_MESSAGES_MAX;
        let run = if length == self.run_size { 0 } else { RUN_HEADER_BYTES };
        packable && frame.len() + opening + run + length <= payload_max
    }

    /// Lends `length` bytes for the next message; they must fit. What was lent before and not committed is taken back.
    #[inline]
    pub(crate) fn lend(&mut self, length: usize) {
        self.take_back();
        if self.messages > 0 {
            if !self.packed {
                self.become_pack();
            }
            if length != self.run_size {
                self.begin_run(length);
            }
        } else {
            self.run_size = length;
        }
        self.lent = length;
        self.frame().grow(length).expect("the caller asked whether it fits");
    }

    /// Takes back what was lent and not committed.
    #[inline]
    pub(crate) fn take_back(&mut self) {
        if self.lent > 0 {
            let kept = self.frame().len() - self.lent;
            self.frame().truncate(kept);
            self.lent = 0;
        }
    }

    /// The lent bytes, to write.
    #[inline]
    pub(crate) fn lent(&mut self) -> &mut [u8] {
        let lent = self.lent;
        let bytes = self.frame().bytes_mut();
        let from = bytes.len() - lent;
        &mut bytes[from..]
    }

    /// The lent bytes as written so far.
    pub(crate) fn lent_bytes(&self) -> &[u8] {
        self.frame.as_ref().map_or(&[], |frame| &frame.bytes()[frame.len() - self.lent..])
    }

    /// The lent bytes are a message.
    #[inline]
    pub(crate) fn commit(&mut self) {
        self.lent = 0;
        self.run_count += 1;
        self.messages += 1;
    }

    /// Ends filling, if there is one message and nothing is lent.
    #[inline]
    pub(crate) fn close_lone(&mut self) -> Option<FrameMut> {
        if self.packed || self.messages != 1 { None } else { self.frame.take() }
    }

    /// Ends filling; `None` if there is no message.
    #[inline]
    pub(crate) fn close(&mut self) -> Option<Closed> {
        if !self.is_open() {
            return None;
        }
        self.set_apart(false);
        self.take_back();
        if self.packed {
            self.end_run();
        }
        let frame = self.frame.take()?;
        (self.messages > 0).then_some(Closed {
            frame,
            count: Count::of(self.messages, self.packed),
            agreed: self.agreed,
        })
    }

    fn become_pack(&mut self) {
        self.frame().prepend(RUN_HEADER_BYTES).expect("frames for casts have room for a run's header");
        self.packed = true;
        (self.run_at, self.run_count) = (0, 1);
    }

    fn begin_run(&mut self, size: usize) {
        self.end_run();
        self.run_at = self.frame().len();
        self.frame().grow(RUN_HEADER_BYTES).expect("counted by `fits`");
        (self.run_count, self.run_size) = (0, size);
    }

    fn end_run(&mut self) {
        let run_at = self.run_at;
        if self.run_count == 0 {
            self.frame().truncate(run_at);
            return;
        }
        let header = run_header(self.run_count as u16, self.run_size as u16);
        self.frame().bytes_mut()[run_at..run_at + RUN_HEADER_BYTES].copy_from_slice(&header);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::{Region, RegionOptions};
    use crate::wire::pack::{Messages, check};
    use proptest::prelude::*;

    fn open() -> OpenPack {
        let region = Region::pool(RegionOptions {
            frames: 2,
            link_headroom_bytes: 0,
            frame_bytes: 512,
            reserve_frames: 0,
            huge_pages: false,
        })
        .unwrap();
        let mut pack = OpenPack::default();
        pack.begin(region.take(64).unwrap(), 0, false);
        pack
    }

    #[test]
    fn what_is_closed_stays_closed() {
        let mut pack = open();
        for message in [b"one".as_slice(), b"three"] {
            pack.lend(message.len());
            pack.lent().copy_from_slice(message);
            pack.commit();
        }
        assert!(pack.close().is_some_and(|closed| closed.count.is_pack()));
        assert!(pack.close().is_none());
        assert!(!pack.is_open() && !pack.fits(1, 100));
    }

    #[test]
    fn a_pack_of_empty_messages_ends_at_what_receivers_take() {
        let mut pack = open();
        while pack.fits(0, 300) {
            pack.lend(0);
            pack.commit();
        }
        let closed = pack.close().unwrap();
        assert_eq!(closed.count.messages() as usize, PACK_MESSAGES_MAX);
        assert_eq!(check(closed.frame.bytes()), Ok(PACK_MESSAGES_MAX));
    }

    proptest! {
        #[test]
        fn a_pack_holds_what_was_committed_and_nothing_else(
            sizes in proptest::collection::vec((0usize..60, any::<bool>()), 1..40),
        ) {
            let mut pack = open();
            let mut expected = Vec::new();
            for (at, (size, keep)) in sizes.into_iter().enumerate() {
                if !pack.fits(size, 300) {
                    continue;
                }
                pack.lend(size);
                pack.lent().fill(at as u8);
                if keep {
                    pack.commit();
                    expected.push(vec![at as u8; size]);
                } else {
                    pack.take_back();
                }
            }
            match pack.close() {
                None => prop_assert!(expected.is_empty()),
                Some(closed) => {
                    let bytes = closed.frame.bytes();
                    prop_assert!(bytes.len() <= 300);
                    prop_assert_eq!(closed.count.messages() as usize, expected.len());
                    if closed.count.is_pack() {
                        prop_assert_eq!(check(bytes), Ok(expected.len()));
                        let messages: Vec<Vec<u8>> = Messages::pack(bytes).map(<[u8]>::to_vec).collect();
                        prop_assert_eq!(messages, expected);
                    } else {
                        prop_assert_eq!(bytes, &expected[0][..]);
                    }
                }
            }
        }
    }
}
