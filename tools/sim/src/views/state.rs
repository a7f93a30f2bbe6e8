//! The state of a simulated application: a digest of all that it has delivered, which members of a group give each other.

use wadjet::StatePart;
use wadjet::group::Snapshot;
use wadjet_oracle::Incarnation;

use crate::random::splitmix;

/// A digest over the casts delivered, by origin and number, and ballast that follows from it.
#[derive(Clone, Debug)]
pub struct State {
    digest: u64,
    /// Casts of several origins come in one order: they are digested in it.
    ordered: bool,
    ballast_bytes: usize,
    /// What has come of another member's state.
    coming: Coming,
}

/// Of a state that comes in parts: its digest, how many bytes have come, and whether any were not what follows from it.
#[derive(Clone, Debug, Default)]
struct Coming {
    digest: [u8; 8],
    bytes: u64,
    torn: bool,
}

impl State {
    /// The state of who has delivered nothing; `alone` it is not that of others who have not.
    pub fn new(own: Incarnation, alone: bool, ordered: bool, ballast_bytes: usize) -> State {
        let digest = if alone { splitmix(own.0) } else { 0 };
        State { digest, ordered, ballast_bytes, coming: Coming::default() }
    }

    /// A cast was delivered.
    pub fn take(&mut self, origin: Incarnation, sequence: u64) {
        let cast = splitmix(splitmix(origin.0) ^ sequence);
        self.digest = match self.ordered {
            true => splitmix(self.digest ^ cast),
            false => self.digest.wrapping_add(cast),
        };
    }

    /// The digest.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The state as it is now.
    pub fn snapshot(&self) -> Frozen {
        Frozen { digest: self.digest, bytes: 8 + self.ballast_bytes as u64, at: 0 }
    }

    /// Takes in a part; whether it was the last. Each is looked at as it comes: to look at all of a large state at once
    /// would keep a process from what else it has to do.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn install(&mut self, part: &StatePart<'_>) -> Result<bool, String> {
        if part.at == 0 {
            self.coming = Coming::default();
        }
        let Coming { digest, bytes, torn } = &mut self.coming;
        if part.at != *bytes {
            return Err(format!("a part of the state at {} after {bytes} bytes of it", part.at));
        }
        for byte in part.bytes.iter().take(8_usize.saturating_sub(*bytes as usize)) {
            digest[*bytes as usize] = *byte;
            *bytes += 1;
        }
        let mut rest = &part.bytes[(*bytes - part.at) as usize..];
        let mut theirs = Frozen { digest: u64::from_le_bytes(*digest), bytes: u64::MAX, at: *bytes };
        let mut expected = [0; 1024];
        while !rest.is_empty() {
            let expected = &mut expected[..rest.len().min(1024)];
            theirs.fill(expected);
            *torn |= *expected != rest[..expected.len()];
            rest = &rest[expected.len()..];
        }
        *bytes = theirs.at;
        if !part.last {
            return Ok(false);
        }
        if *bytes < 8 {
            return Err("a state without a digest".into());
        }
        self.digest = theirs.digest;
        match !*torn && *bytes == 8 + self.ballast_bytes as u64 {
            true => Ok(true),
            false => Err("a state that does not hang together".into()),
        }
    }
}

/// A state as it was: its digest, and ballast, which is made as it is read.
#[derive(Clone, Debug)]
pub struct Frozen {
    digest: u64,
    bytes: u64,
    at: u64,
}

impl Frozen {
    /// How many bytes it has.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends it there.
    pub fn cut(&mut self, bytes: u64) {
        self.bytes = self.bytes.min(bytes);
    }

    /// What comes next. There must be as much.
    fn fill(&mut self, mut into: &mut [u8]) {
        while !into.is_empty() {
            let (word, skipped) = (self.at / 8, self.at as usize % 8);
            let word = if word == 0 { self.digest } else { splitmix(self.digest ^ (word - 1)) };
            let length = (8 - skipped).min(into.len());
            into[..length].copy_from_slice(&word.to_le_bytes()[skipped..skipped + length]);
            into = &mut into[length..];
            self.at += length as u64;
        }
    }
}

impl Snapshot for Frozen {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, String> {
        let length = (self.bytes - self.at).min(into.len() as u64) as usize;
        self.fill(&mut into[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(of: &mut Frozen, lengths: impl Iterator<Item = usize>) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        for length in lengths {
            let mut part = vec![0; length];
            let got = of.read(&mut part).unwrap();
            part.truncate(got);
            parts.push(part);
            if got < length {
                break;
            }
        }
        parts
    }

    fn install(parts: &[Vec<u8>], ballast_bytes: usize) -> (Result<bool, String>, State) {
        let mut state = State::new(Incarnation(2), true, true, ballast_bytes);
        let (mut at, mut outcome) = (0, Ok(false));
        for (index, bytes) in parts.iter().enumerate() {
            outcome = state.install(&StatePart { bytes, at, last: index + 1 == parts.len() });
            at += bytes.len() as u64;
        }
        (outcome, state)
    }

    #[test]
    fn a_state_is_taken_in_whatever_the_lengths_of_its_parts_and_not_if_a_byte_is_another() {
        let mut giver = State::new(Incarnation(1), true, true, 3001);
        giver.take(Incarnation(7), 9);
        for length in [1, 3, 7, 8, 9, 1000, 2048, 5000] {
            let mut parts = parts(&mut giver.snapshot(), std::iter::repeat(length));
            let (outcome, taker) = install(&parts, 3001);
            assert_eq!((outcome, taker.digest()), (Ok(true), giver.digest()), "{length}");
            assert!(install(&parts, 3000).0.is_err(), "one byte more than there should be");
            let last = parts.iter().rposition(|part| !part.is_empty()).unwrap();
            *parts[last].last_mut().unwrap() ^= 1;
            assert!(install(&parts, 3001).0.is_err(), "{length}");
        }
    }
}
