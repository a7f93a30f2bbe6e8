//! Packs: many messages in one payload, one header per run of equal-size messages.
//!
//! ```text
//! pack  = run+        run = count:u16 size:u16 message{count}   (count > 0, each message `size` bytes)
//! blank = 0:u16 size:u16 note                                  (nothing for the application; a note of `size` bytes)
//! ```
//!
//! A *blank* is what a layer casts on its own account: a pack without messages. It has a frame number and a header like any
//! other cast, so the same plans carry it; its note is for layers.

/// Bytes of a run's header.
pub const RUN_HEADER_BYTES: usize = 4;
/// The most messages in one pack, and so in one run. Without it a few bytes of runs of empty messages would be as many
/// deliveries as the forger likes.
pub const PACK_MESSAGES_MAX: usize = u16::MAX as usize;

/// The bytes are not a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// A run's header is cut off.
    #[error("a run's header is cut off")]
    Header,
    /// A run counts no messages, and this is no blank.
    #[error("a run counts no messages")]
    EmptyRun,
    /// A run is longer than what is left.
    #[error("a run overruns the payload")]
    Overrun,
    /// More messages than [`PACK_MESSAGES_MAX`].
    #[error("a pack of more than {PACK_MESSAGES_MAX} messages")]
    TooMany,
    /// No runs.
    #[error("a pack without messages")]
    Empty,
}

/// The header of a run.
pub fn run_header(count: u16, size: u16) -> [u8; RUN_HEADER_BYTES] {
    let mut bytes = [0; RUN_HEADER_BYTES];
    bytes[..2].copy_from_slice(&count.to_le_bytes());
    bytes[2..].copy_from_slice(&size.to_le_bytes());
    bytes
}

/// Checks that `bytes` are a whole pack; returns the number of messages: none in a blank, and only there.
///
/// # Errors
/// [`PackError`] with what is wrong first.
#[inline]
pub fn check(bytes: &[u8]) -> Result<usize, PackError> {
    let mut rest = bytes;
    let mut messages = 0;
    while !rest.is_empty() {
        let (count, size, after) = match split(rest) {
            Err(PackError::EmptyRun) if note(bytes).is_some() => return Ok(0),
            split => split?,
        };
        rest = after.get(count * size..).ok_or(PackError::Overrun)?;
        messages += count;
        if messages > PACK_MESSAGES_MAX {
            return Err(PackError::TooMany);
        }
    }
    if messages == 0 { Err(PackError::Empty) } else { Ok(messages) }
}

/// What a blank says to layers; `None` if `bytes` are no blank.
#[cold]
pub fn note(bytes: &[u8]) -> Option<&[u8]> {
    let (header, note) = bytes.split_first_chunk::<RUN_HEADER_BYTES>()?;
    let size = u16::try_from(note.len()).ok()?;
    (*header == run_header(0, size)).then_some(note)
}

#[inline]
fn split(bytes: &[u8]) -> Result<(usize, usize, &[u8]), PackError> {
    let (header, after) = bytes.split_first_chunk::<RUN_HEADER_BYTES>().ok_or(PackError::Header)?;
    let count = usize::from(u16::from_le_bytes([header[0], header[1]]));
    let size = usize::from(u16::from_le_bytes([header[2], header[3]]));
    if count == 0 {
        return Err(PackError::EmptyRun);
    }
    Ok((count, size, after))
}

/// The messages of a payload: one, or those of a pack that was checked.
#[derive(Clone, Debug)]
pub struct Messages<'b> {
    rest: &'b [u8],
    run: &'b [u8],
    left: usize,
    size: usize,
}

impl<'b> Messages<'b> {
    /// The one message that is the whole payload.
    #[inline]
    pub fn single(payload: &'b [u8]) -> Messages<'b> {
        Messages { rest: &[], run: payload, left: 1, size: payload.len() }
    }

    /// The messages of a pack. One that does not pass [`check`] ends where it goes wrong.
    #[inline]
    pub fn pack(payload: &'b [u8]) -> Messages<'b> {
        Messages { rest: payload, run: &[], left: 0, size: 0 }
    }
}

impl<'b> Iterator for Messages<'b> {
    type Item = &'b [u8];

    #[inline]
    fn next(&mut self) -> Option<&'b [u8]> {
        while self.left == 0 {
            let (count, size, after) = split(self.rest).ok()?;
            let (run, rest) = after.split_at_checked(count * size)?;
            (self.left, self.size, self.run, self.rest) = (count, size, run, rest);
        }
        let (message, run) = self.run.split_at_checked(self.size)?;
        self.run = run;
        self.left -= 1;
        Some(message)
    }

    /// A run at a time, without a look at the next one after each message.
    #[inline]
    fn fold<B, F: FnMut(B, &'b [u8]) -> B>(self, init: B, mut f: F) -> B {
        let Messages { mut rest, mut run, mut left, mut size } = self;
        if rest.is_empty() && left == 1 {
            // A payload that is no pack, most often.
            let Some(message) = run.get(..size) else { return init };
            return f(init, message);
        }
        let mut folded = init;
        loop {
            while left > 0 {
                let Some((message, behind)) = run.split_at_checked(size) else { return folded };
                (run, left) = (behind, left - 1);
                folded = f(folded, message);
            }
            let Ok((count, of, after)) = split(rest) else { return folded };
            let Some(halves) = after.split_at_checked(count * of) else { return folded };
            ((run, rest), left, size) = (halves, count, of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pack_gives_back_its_messages() {
        let mut pack = run_header(2, 3).to_vec();
        pack.extend(b"abcdef");
        pack.extend(run_header(3, 0));
        pack.extend(run_header(1, 1));
        pack.push(b'x');
        assert_eq!(check(&pack), Ok(6));
        let messages: Vec<&[u8]> = Messages::pack(&pack).collect();
        assert_eq!(messages, [b"abc" as &[u8], b"def", b"", b"", b"", b"x"]);
    }

    #[test]
    fn what_is_not_a_pack_is_refused_by_reason() {
        assert_eq!(check(b""), Err(PackError::Empty));
        assert_eq!(check(&[1, 0, 1]), Err(PackError::Header));
        for empty in [&[0, 0, 2, 0, 9][..], &[0, 0, 0, 0, 9], &[1, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(check(empty), Err(PackError::EmptyRun));
        }
        assert_eq!(check(&[2, 0, 1, 0, 9]), Err(PackError::Overrun));
        assert_eq!(check(&[0xff, 0xff, 0xff, 0xff]), Err(PackError::Overrun));
    }

    #[test]
    fn a_blank_has_a_note_and_no_messages() {
        for words in [&b""[..], b"to layers"] {
            let blank = [&run_header(0, words.len() as u16)[..], words].concat();
            assert_eq!((check(&blank), note(&blank)), (Ok(0), Some(words)));
            assert_eq!(Messages::pack(&blank).count(), 0);
        }
        assert_eq!(note(&run_header(1, 0)), None);
    }

    #[test]
    fn a_few_bytes_are_not_many_empty_messages() {
        let most = run_header(u16::MAX, 0).to_vec();
        assert_eq!(check(&most), Ok(PACK_MESSAGES_MAX));
        let more = [run_header(u16::MAX, 0), run_header(1, 0)].concat();
        assert_eq!(check(&more), Err(PackError::TooMany));
    }

    proptest! {
        #[test]
        fn the_check_agrees_with_the_iterator(bytes in proptest::collection::vec(0u8..4, 0..64)) {
            let walked = Messages::pack(&bytes).count();
            let mut stepped = Messages::pack(&bytes);
            Messages::pack(&bytes).for_each(|message| assert_eq!(stepped.next(), Some(message)));
            prop_assert_eq!(stepped.next(), None);
            if let Ok(messages) = check(&bytes) {
                prop_assert_eq!(messages, walked);
            }
        }
    }
}
