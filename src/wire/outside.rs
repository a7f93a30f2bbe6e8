//! Messages outside any view: between processes that share none (design section 7).
//!
//! Such a message has a full header that names the layer [`OUTSIDE_CONTROL`] and the view its writer is in, and then
//!
//! ```text
//! chunk = crc:u32 letter:u32 index:u8 count:u8 bytes...      (crc: CRC32C of everything after it; index < count)
//! ```
//! The traffic of the header says whether the letter is for whoever listens (cast) or was sent to this address (raw). All
//! this, and how a letter begins that says who is there or no, is the same in every wire version: so two processes that
//! speak different ones can tell each other so.
//!
//! A letter longer than a datagram goes in chunks, which are put together again per writer; a letter of which a chunk is
//! lost is lost, and whoever wrote it writes again.

use std::collections::VecDeque;

use super::Traffic;
use super::full::{Identification, PREFIX_BYTES, Prefix};
use crate::id::Incarnation;
use crate::transport::OUTSIDE_BYTES_MAX;

/// In a prefix's `control`: a message from outside the view.
pub const OUTSIDE_CONTROL: u8 = 0xfd;
/// Bytes of a chunk before what it carries.
const CHUNK_HEADER_BYTES: usize = 10;
/// What one chunk carries at most.
const CHUNK_BYTES_MAX: usize = OUTSIDE_BYTES_MAX - PREFIX_BYTES - CHUNK_HEADER_BYTES;
/// Letters that may be incomplete at once; the oldest goes first.
const INCOMPLETE_MAX: usize = 16;
/// The longest letter, in bytes.
pub const LETTER_BYTES_MAX: usize = 32 * CHUNK_BYTES_MAX;

/// Why a chunk is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Cut off, or its numbers make no sense.
    #[error("a chunk is cut off or out of range")]
    Malformed,
    /// Its checksum is wrong.
    #[error("a chunk is damaged")]
    Damaged,
}

/// The datagrams that carry a letter, to whoever listens (cast) or to an address (raw).
///
/// # Panics
/// If it is longer than [`LETTER_BYTES_MAX`].
pub fn split(identification: Identification, traffic: Traffic, letter: u32, body: &[u8]) -> Vec<Vec<u8>> {
    assert!(body.len() <= LETTER_BYTES_MAX, "a letter of {} bytes", body.len());
    let count = body.len().div_ceil(CHUNK_BYTES_MAX).max(1);
    let prefix = Prefix { traffic, control: OUTSIDE_CONTROL, pack: false, words: 0, identification };
    let datagram = |index: usize| {
        let from = index * CHUNK_BYTES_MAX;
        let chunk = &body[from..body.len().min(from + CHUNK_BYTES_MAX)];
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + CHUNK_HEADER_BYTES + chunk.len());
        bytes.resize(PREFIX_BYTES + 4, 0);
        prefix.encode(&mut bytes);
        bytes.extend_from_slice(&letter.to_le_bytes());
        bytes.extend_from_slice(&[index as u8, count as u8]);
        bytes.extend_from_slice(chunk);
        let crc = checksum(&bytes[..PREFIX_BYTES], &bytes[PREFIX_BYTES + 4..]);
        bytes[PREFIX_BYTES..PREFIX_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    };
    (0..count).map(datagram).collect()
}

fn checksum(prefix: &[u8], rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(prefix), rest)
}

/// Puts letters together.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    incomplete: VecDeque<Incomplete>,
}

#[derive(Clone, Debug)]
struct Incomplete {
    origin: Incarnation,
    letter: u32,
    chunks: Vec<Option<Vec<u8>>>,
}

impl Assembler {
    /// Takes a chunk of `origin`, whose datagram began with `prefix`; the letter's body, if it is whole now.
    ///
    /// # Errors
    /// [`ChunkError`]; nothing was taken then.
    pub fn take(
        &mut self,
        origin: Incarnation,
        prefix: &[u8],
        chunk: &[u8],
    ) -> Result<Option<Vec<u8>>, ChunkError> {
        let Some((header, bytes)) = chunk.split_at_checked(CHUNK_HEADER_BYTES) else {
            return Err(ChunkError::Malformed);
        };
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (crc, letter, index, count) = (word(0), word(4), usize::from(header[8]), usize::from(header[9]));
        if crc != checksum(prefix, &chunk[4..]) {
            return Err(ChunkError::Damaged);
        }
        if index >= count || count * CHUNK_BYTES_MAX > LETTER_BYTES_MAX || bytes.len() > CHUNK_BYTES_MAX {
            return Err(ChunkError::Malformed);
        }
        if count == 1 {
            return Ok(Some(bytes.to_vec()));
        }
        let same = |known: &Incomplete| known.origin == origin && known.letter == letter;
        let at = self.incomplete.iter().position(same).unwrap_or_else(|| {
            if self.incomplete.len() >= INCOMPLETE_MAX {
                self.incomplete.pop_front();
            }
            self.incomplete.push_back(Incomplete { origin, letter, chunks: vec![None; count] });
            self.incomplete.len() - 1
        });
        let incomplete = &mut self.incomplete[at];
        let Some(place) = incomplete.chunks.get_mut(index) else { return Err(ChunkError::Malformed) };
        *place = Some(bytes.to_vec());
        if incomplete.chunks.iter().any(Option::is_none) {
            return Ok(None);
        }
        let whole = self.incomplete.remove(at).map(|whole| whole.chunks);
        Ok(whole.map(|chunks| chunks.into_iter().flatten().flatten().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{GroupId, ViewId};

    fn identification() -> Identification {
        Identification {
            group: GroupId(1),
            view: ViewId { counter: 2, coordinator: Incarnation(3) },
            origin: Incarnation(4),
            stack: 5,
        }
    }

    fn take(assembler: &mut Assembler, datagram: &[u8]) -> Result<Option<Vec<u8>>, ChunkError> {
        let (prefix, chunk) = datagram.split_at(PREFIX_BYTES);
        assembler.take(Incarnation(4), prefix, chunk)
    }

    #[test]
    fn letters_of_all_lengths_come_out_as_they_went_in_whatever_the_order_of_their_chunks() {
        for length in [0, 1, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, 10 * CHUNK_BYTES_MAX] {
            let body: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut datagrams = split(identification(), Traffic::Raw, 9, &body);
            assert!(datagrams.iter().all(|datagram| datagram.len() <= OUTSIDE_BYTES_MAX));
            datagrams.reverse();
            let mut assembler = Assembler::default();
            let last = datagrams.pop().unwrap();
            for datagram in &datagrams {
                assert_eq!(take(&mut assembler, datagram), Ok(None));
            }
            assert_eq!(take(&mut assembler, &last), Ok(Some(body)));
        }
    }

    #[test]
    fn damage_anywhere_is_noticed_and_incomplete_letters_are_bounded() {
        let mut assembler = Assembler::default();
        let datagram = &split(identification(), Traffic::Raw, 9, b"hello")[0];
        for bit in 0..datagram.len() * 8 {
            let mut damaged = datagram.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(take(&mut assembler, &damaged), Err(ChunkError::Damaged), "bit {bit}");
        }
        for letter in 0..1000 {
            let datagrams = split(identification(), Traffic::Raw, letter, &[0; 2 * CHUNK_BYTES_MAX]);
            assert_eq!(take(&mut assembler, &datagrams[0]), Ok(None));
        }
        assert_eq!(assembler.incomplete.len(), INCOMPLETE_MAX);
    }
}
