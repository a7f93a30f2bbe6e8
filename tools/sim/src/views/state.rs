//! The state of a simulated application: a digest of all that it has delivered, which members of a group give each other.

use std::io::Cursor;

use wadjet::StatePart;
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
    coming: Vec<u8>,
}

impl State {
    /// The state of who has delivered nothing; `alone` it is not that of others who have not.
    pub fn new(own: Incarnation, alone: bool, ordered: bool, ballast_bytes: usize) -> State {
        let digest = if alone { splitmix(own.0) } else { 0 };
        State { digest, ordered, ballast_bytes, coming: Vec::new() }
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

    fn bytes(&self) -> Vec<u8> {
        let words = self.ballast_bytes.div_ceil(8) as u64;
        let ballast = (0..words).flat_map(|at| splitmix(self.digest ^ at).to_le_bytes());
        let mut bytes = Vec::with_capacity(8 * (1 + words as usize));
        bytes.extend(self.digest.to_le_bytes());
        bytes.extend(ballast);
        bytes.truncate(8 + self.ballast_bytes);
        bytes
    }

    /// The state as it is now.
    pub fn snapshot(&self) -> Cursor<Vec<u8>> {
        Cursor::new(self.bytes())
    }

    /// Takes in a part; whether it was the last.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn install(&mut self, part: &StatePart<'_>) -> Result<bool, String> {
        if part.at == 0 {
            self.coming.clear();
        }
        if part.at != self.coming.len() as u64 {
            return Err(format!(
                "a part of the state at {} after {} bytes of it",
                part.at,
                self.coming.len()
            ));
        }
        self.coming.extend_from_slice(part.bytes);
        if !part.last {
            return Ok(false);
        }
        let Some(digest) = self.coming.first_chunk() else { return Err("a state without a digest".into()) };
        self.digest = u64::from_le_bytes(*digest);
        match std::mem::take(&mut self.coming) == self.bytes() {
            true => Ok(true),
            false => Err("a state that does not hang together".into()),
        }
    }
}
