//! The full header: who sent what to which view of which group through which stack, and all fields.
//!
//! ```text
//! word 0   magic:16 version:8 traffic:4 zero:4 control:8 words:8 zero:14 pack:1 full:1   (full is 1)
//! word 1   group                  word 2   view counter           word 3   view coordinator
//! word 4   origin's incarnation   word 5   stack and layout hash  word 6.. fields, bit-packed, `words` words
//! ```
//! `control` is the position of the layer a control message is for ([`STACK_CONTROL`] for the stack itself), and
//! [`NO_CONTROL`] for data.

use super::{FULL_FLAG, PACK_FLAG, Traffic, WIRE_VERSION};
use crate::id::{GroupId, Incarnation, ViewId};

/// The first bytes of every full header.
pub const MAGIC: u64 = 0x4457;
/// Bytes before the fields.
pub const PREFIX_BYTES: usize = 48;
/// In `control`: a data message.
pub const NO_CONTROL: u8 = 0xff;
/// In `control`: for the stack, not for a layer.
pub const STACK_CONTROL: u8 = 0xfe;

/// Who a message is from and what it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identification {
    /// The group.
    pub group: GroupId,
    /// The view.
    pub view: ViewId,
    /// Who sent it first.
    pub origin: Incarnation,
    /// Hash of stack and layout.
    pub stack: u64,
}

/// What a full header says, apart from the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The kind of traffic.
    pub traffic: Traffic,
    /// The layer a control message is for, or [`NO_CONTROL`].
    pub control: u8,
    /// Whether the payload is a pack.
    pub pack: bool,
    /// The field area, in words.
    pub words: u8,
    /// Where it belongs.
    pub identification: Identification,
}

/// A full header does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FullError {
    /// Cut off.
    #[error("the header is cut off")]
    Short,
    /// Not ours.
    #[error("the frame is not Wadjet's")]
    Magic,
    /// Another version.
    #[error("the frame has wire version {0}; this is version {WIRE_VERSION}")]
    Version(u8),
    /// Bits that must be zero are not, or a code is unknown.
    #[error("the header has an unknown code")]
    Code,
}

impl Prefix {
    /// Writes the prefix to the first [`PREFIX_BYTES`] of `bytes`.
    ///
    /// # Panics
    /// If `bytes` is shorter.
    pub fn encode(&self, bytes: &mut [u8]) {
        let first = MAGIC
            | u64::from(WIRE_VERSION) << 16
            | (self.traffic as u64) << 24
            | u64::from(self.control) << 32
            | u64::from(self.words) << 40
            | if self.pack { PACK_FLAG } else { 0 }
            | FULL_FLAG;
        let words = [
            first,
            self.identification.group.0,
            self.identification.view.counter,
            self.identification.view.coordinator.0,
            self.identification.origin.0,
            self.identification.stack,
        ];
        for (chunk, word) in bytes[..PREFIX_BYTES].chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads the prefix of a frame and returns it with the field area and what follows.
    ///
    /// # Errors
    /// [`FullError`]; afterwards nothing can fail on length.
    pub fn decode(bytes: &[u8]) -> Result<(Prefix, &[u8], &[u8]), FullError> {
        let version = Prefix::version(bytes)?;
        if version != WIRE_VERSION {
            return Err(FullError::Version(version));
        }
        Prefix::decode_any(bytes)
    }

    /// The wire version of a frame with a full header.
    ///
    /// # Errors
    /// If it is none.
    pub fn version(bytes: &[u8]) -> Result<u8, FullError> {
        let first = super::word(bytes, 0).ok_or(FullError::Short)?;
        if first & 0xffff != MAGIC || first & FULL_FLAG == 0 {
            return Err(FullError::Magic);
        }
        Ok((first >> 16) as u8)
    }

    /// As [`Prefix::decode`], whatever the version: for what is the same in all of them, which are messages outside any
    /// view and the group that a frame is for.
    ///
    /// # Errors
    /// [`FullError`], but for the version.
    pub fn decode_any(bytes: &[u8]) -> Result<(Prefix, &[u8], &[u8]), FullError> {
        Prefix::version(bytes)?;
        let word = |at: usize| super::word(bytes, at * 8).ok_or(FullError::Short);
        let first = word(0)?;
        let traffic = match (first >> 24) & 0xf {
            0 => Traffic::Cast,
            1 => Traffic::Send,
            2 => Traffic::Raw,
            _ => return Err(FullError::Code),
        };
        if (first >> 28) & 0xf != 0 || (first >> 48) & 0x3fff != 0 {
            return Err(FullError::Code);
        }
        let prefix = Prefix {
            traffic,
            control: (first >> 32) as u8,
            pack: first & PACK_FLAG != 0,
            words: (first >> 40) as u8,
            identification: Identification {
                group: GroupId(word(1)?),
                view: ViewId { counter: word(2)?, coordinator: Incarnation(word(3)?) },
                origin: Incarnation(word(4)?),
                stack: word(5)?,
            },
        };
        let fields = usize::from(prefix.words) * 8;
        let (fields, payload) = bytes[PREFIX_BYTES..].split_at_checked(fields).ok_or(FullError::Short)?;
        Ok((prefix, fields, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(control: u8, pack: bool, ids: [u64; 5]) -> Prefix {
        Prefix {
            traffic: Traffic::Send,
            control,
            pack,
            words: 2,
            identification: Identification {
                group: GroupId(ids[0]),
                view: ViewId { counter: ids[1], coordinator: Incarnation(ids[2]) },
                origin: Incarnation(ids[3]),
                stack: ids[4],
            },
        }
    }

    proptest! {
        #[test]
        fn prefixes_round_trip(control: u8, pack: bool, ids: [u64; 5], payload in proptest::collection::vec(any::<u8>(), 0..20)) {
            let prefix = prefix(control, pack, ids);
            let mut bytes = vec![0; PREFIX_BYTES + 16];
            prefix.encode(&mut bytes);
            bytes.extend(&payload);
            let (decoded, fields, rest) = Prefix::decode(&bytes).unwrap();
            prop_assert_eq!(decoded, prefix);
            prop_assert_eq!(fields.len(), 16);
            prop_assert_eq!(rest, &payload[..]);
            prop_assert_eq!(Prefix::decode(&bytes[..PREFIX_BYTES + 15]), Err(FullError::Short));
        }

        #[test]
        fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Prefix::decode(&bytes);
        }
    }

    #[test]
    fn foreign_frames_are_told_apart() {
        let mut bytes = vec![0; PREFIX_BYTES + 16];
        prefix(NO_CONTROL, false, [1; 5]).encode(&mut bytes);
        let broken = |at: usize, value: u8| {
            let mut other = bytes.clone();
            other[at] = value;
            Prefix::decode(&other).unwrap_err()
        };
        assert_eq!(broken(0, 0), FullError::Magic);
        assert_eq!(broken(2, 9), FullError::Version(9));
        assert_eq!(broken(3, 3), FullError::Code);
        assert_eq!(broken(6, 1), FullError::Code);
    }
}
