//! What every benchmark message carries, and the check that each arrives once and in order.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use wadjet::id::Rank;

/// What a message says. In messages too short for all of it, the later parts are left out and the number is cut.
///
/// ```text
/// | number, 8 B | intended time in ticks, 8 B | origin, 2 B | low byte of the number, repeated to the end |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The sender's count of its messages, from 0.
    pub number: u64,
    /// When the message was meant to be sent.
    pub intended: u64,
    /// Who sent it.
    pub origin: Rank,
}

impl Stamp {
    /// Writes the stamp over the whole message.
    #[inline(always)]
    pub fn write(&self, message: &mut [u8]) {
        if let Some((stamp, rest)) = message.split_first_chunk_mut::<STAMP_BYTES>() {
            stamp[..8].copy_from_slice(&self.number.to_le_bytes());
            stamp[8..16].copy_from_slice(&self.intended.to_le_bytes());
            stamp[16..].copy_from_slice(&self.origin.0.to_le_bytes());
            rest.fill(self.number as u8);
        } else {
            self.write_short(message);
        }
    }

    #[cold]
    fn write_short(&self, message: &mut [u8]) {
        let mut stamp = [0; STAMP_BYTES];
        self.write(&mut stamp);
        message.copy_from_slice(&stamp[..message.len()]);
    }
}

/// The intended time a message carries, if it is long enough to.
#[inline]
pub fn intended(message: &[u8]) -> Option<u64> {
    message.get(8..16).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

/// What went wrong with messages. All zero in a good run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    /// Never arrived.
    pub lost: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived after a later one of the same origin.
    pub misordered: u64,
    /// Arrived with bytes that its sender did not write.
    pub corrupted: u64,
}

impl Faults {
    /// Whether there are any.
    pub fn any(&self) -> bool {
        *self != Faults::default()
    }

    /// The sums.
    #[must_use]
    pub fn plus(&self, other: &Faults) -> Faults {
        Faults {
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            misordered: self.misordered + other.misordered,
            corrupted: self.corrupted + other.corrupted,
        }
    }
}

/// Checks the messages one member gets.
#[derive(Clone, Debug)]
pub struct Verifier {
    origins: Vec<Origin>,
    faults: Faults,
    /// Whose message came last.
    latest: Rank,
    sequence: u64,
}

#[derive(Clone, Debug, Default)]
struct Origin {
    /// The number the next message must have.
    next: u64,
    /// Numbers that were skipped and may still come; bounded.
    missing: BTreeSet<u64>,
}

impl Verifier {
    /// A verifier for a view of `members`.
    pub fn new(members: usize) -> Verifier {
        Verifier {
            origins: vec![Origin::default(); members],
            faults: Faults::default(),
            latest: Rank(0),
            sequence: 0,
        }
    }

    /// Takes one message.
    #[inline]
    pub fn message(&mut self, origin: Rank, message: &[u8]) {
        let next = self.origins[origin.index()].next;
        if origin != self.latest {
            self.latest = origin;
            self.sequence =
                (self.sequence.rotate_left(5) ^ (next << 16 | u64::from(origin.0))).wrapping_mul(ODD);
        }
        let expected = message.first_chunk::<8>().is_some_and(|bytes| u64::from_le_bytes(*bytes) == next)
            && {
                let right_origin =
                    message.get(16..18).is_none_or(|bytes| bytes == origin.0.to_le_bytes().as_slice());
                right_origin && (message.len() <= STAMP_BYTES || message[message.len() - 1] == next as u8)
            };
        if expected {
            self.origins[origin.index()].next = next + 1;
        } else {
            self.unexpected(origin, message);
        }
    }

    /// The origin says that it has sent `total` messages so far, all before saying so.
    pub fn total(&mut self, origin: Rank, total: u64) {
        let state = &mut self.origins[origin.index()];
        if state.next < total {
            self.faults.lost += total - state.next;
            state.next = total;
        }
    }

    /// Messages of `origin` that came or were given up.
    pub fn next(&self, origin: Rank) -> u64 {
        self.origins[origin.index()].next
    }

    /// A digest of the sequence in which the messages of all origins came: of who casts and which number is next wherever
    /// another origin's begin. With every origin's messages complete and in order, nothing else is to be known of it.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What went wrong so far.
    pub fn faults(&self) -> Faults {
        self.faults
    }

    #[cold]
    fn unexpected(&mut self, origin: Rank, message: &[u8]) {
        let state = &mut self.origins[origin.index()];
        let Some(number) = number(message, state.next) else {
            self.faults.corrupted += 1;
            return;
        };
        let mut should = vec![0; message.len()];
        Stamp { number, intended: intended(message).unwrap_or(0), origin }.write(&mut should);
        if should != message {
            self.faults.corrupted += 1;
        }
        if number == state.next {
            state.next += 1;
        } else if number > state.next {
            self.faults.lost += number - state.next;
            let kept = MISSING_MAX.saturating_sub(state.missing.len());
            state.missing.extend((state.next..number).take(kept));
            state.next = number + 1;
        } else if state.missing.remove(&number) {
            self.faults.lost -= 1;
            self.faults.misordered += 1;
        } else {
            self.faults.duplicated += 1;
        }
    }
}

/// The number a message carries; of a cut number, the one closest to `next`. `None` if the message is empty.
fn number(message: &[u8], next: u64) -> Option<u64> {
    if message.is_empty() {
        return None;
    }
    let bytes = message.len().min(8);
    let mut cut = [0; 8];
    cut[..bytes].copy_from_slice(&message[..bytes]);
    let cut = u64::from_le_bytes(cut);
    let unused = 64 - 8 * bytes as u32;
    let ahead = (cut.wrapping_sub(next) << unused) as i64 >> unused;
    Some(next.wrapping_add_signed(ahead))
}

/// A whole stamp.
const STAMP_BYTES: usize = 18;
/// Spreads the bits of a digest: 2^64 over the golden ratio.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Skipped numbers remembered per origin; beyond them a late message counts as a duplicate, which is as wrong.
const MISSING_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(numbers: &[u64], size: usize) -> Faults {
        let mut verifier = Verifier::new(1);
        for number in numbers {
            let mut message = vec![0; size];
            Stamp { number: *number, intended: 7, origin: Rank(0) }.write(&mut message);
            verifier.message(Rank(0), &message);
        }
        verifier.total(Rank(0), 6);
        verifier.faults()
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        for size in [1, 3, 8, 17, 18, 64] {
            assert_eq!(check(&[0, 1, 2, 3, 4, 5], size), Faults::default(), "{size} B");
            assert_eq!(check(&[0, 1, 3, 4, 5], size), Faults { lost: 1, ..Faults::default() }, "{size} B");
            assert_eq!(check(&[0, 1, 2, 3], size), Faults { lost: 2, ..Faults::default() }, "{size} B");
            assert_eq!(check(&[0, 1, 1, 2, 3, 4, 5], size).duplicated, 1, "{size} B");
            assert_eq!(check(&[0, 2, 1, 3, 4, 5], size), Faults { misordered: 1, ..Faults::default() });
        }
    }

    #[test]
    fn members_have_one_digest_if_all_came_in_one_sequence() {
        let digest = |origins: &[u16]| {
            let mut verifier = Verifier::new(3);
            for origin in origins.iter().map(|rank| Rank(*rank)) {
                let mut message = [0; 64];
                Stamp { number: verifier.next(origin), intended: 7, origin }.write(&mut message);
                verifier.message(origin, &message);
            }
            assert!(!verifier.faults().any());
            verifier.sequence()
        };
        assert_eq!(digest(&[0, 0, 1, 2, 1, 0]), digest(&[0, 0, 1, 2, 1, 0]));
        // Two neighbours exchanged: at the beginning, the end, and where one origin's run is cut elsewhere.
        for other in [[0, 1, 0, 2, 1, 0], [1, 0, 0, 2, 1, 0], [0, 0, 2, 1, 1, 0], [0, 0, 1, 2, 0, 1]] {
            assert_ne!(digest(&[0, 0, 1, 2, 1, 0]), digest(&other), "{other:?}");
        }
    }

    #[test]
    fn cut_numbers_go_round() {
        let mut verifier = Verifier::new(1);
        for number in 0..1000_u64 {
            let mut message = [0; 1];
            Stamp { number, intended: 0, origin: Rank(0) }.write(&mut message);
            verifier.message(Rank(0), &message);
        }
        assert!(!verifier.faults().any());
        assert_eq!(verifier.next(Rank(0)), 1000);
    }

    #[test]
    fn bytes_of_another_message_are_noticed() {
        let mut message = [0; 64];
        Stamp { number: 0, intended: 0, origin: Rank(0) }.write(&mut message);
        message[63] ^= 1;
        let mut verifier = Verifier::new(2);
        verifier.message(Rank(0), &message);
        assert_eq!(verifier.faults().corrupted, 1);
        message[63] ^= 1;
        verifier.message(Rank(1), &message);
        assert_eq!(verifier.faults().corrupted, 2, "another origin");
    }
}
