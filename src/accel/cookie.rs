//! Cookies: connection identification compressed to 62 bits, and the table that looks them up.

use crate::id::{Hasher64, Rank};
use crate::wire::full::Identification;
use crate::wire::{COOKIE_MASK, Traffic};

/// The cookie of a member's frames of one kind of traffic. The class is there for qualities of service to come; a
/// pack holds one class.
pub fn cookie(
    identification: &Identification,
    wire_version: u8,
    traffic: Traffic,
    class: u8,
    salt: u64,
) -> u64 {
    let mut hasher = Hasher64::new(0x636f_6f6b_6965_0001);
    hasher.word(identification.group.0);
    hasher.word(identification.view.counter);
    hasher.word(identification.view.coordinator.0);
    hasher.word(identification.origin.0);
    hasher.word(identification.stack);
    hasher.word(u64::from(wire_version) | (traffic as u64) << 8 | u64::from(class) << 16);
    hasher.word(salt);
    hasher.finish() & COOKIE_MASK
}

/// What a cookie stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Which stack of the endpoint.
    pub stack: u32,
    /// Whose frames.
    pub origin: Rank,
    /// Which kind.
    pub traffic: Traffic,
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    Free,
    Known(u64, Meaning),
    /// Two meanings: frames with it cannot be told apart and are dropped.
    Collided(u64),
}

/// Looks cookies up: open addressing, at most half full.
#[derive(Clone, Debug)]
pub struct CookieTable {
    entries: Vec<Entry>,
    used: usize,
    /// The meanings of cookies that have several.
    collisions: Vec<(u64, Meaning)>,
}

/// Why a cookie has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMeaning {
    /// Nobody here knows it.
    Unknown,
    /// It stands for two things.
    Collided,
}

impl CookieTable {
    /// An empty table.
    pub fn new() -> CookieTable {
        CookieTable { entries: vec![Entry::Free; 16], used: 0, collisions: Vec::new() }
    }

    /// What a cookie stands for.
    ///
    /// # Errors
    /// If nothing, or more than one thing.
    #[inline]
    pub fn get(&self, cookie: u64) -> Result<Meaning, NoMeaning> {
        let mask = self.entries.len() - 1;
        let mut at = cookie as usize & mask;
        loop {
            match self.entries[at & mask] {
                Entry::Known(known, meaning) if known == cookie => return Ok(meaning),
                Entry::Collided(known) if known == cookie => return Err(NoMeaning::Collided),
                Entry::Free => return Err(NoMeaning::Unknown),
                _ => at += 1,
            }
        }
    }

    /// Gives a cookie a meaning. Returns whether it had another one before: from then on it has none.
    pub fn insert(&mut self, cookie: u64, meaning: Meaning) -> bool {
        if (self.used + 1) * 2 > self.entries.len() {
            let grown = vec![Entry::Free; self.entries.len() * 2];
            let old = std::mem::replace(&mut self.entries, grown);
            self.used = 0;
            for entry in old {
                match entry {
                    Entry::Free => {}
                    Entry::Known(cookie, _) | Entry::Collided(cookie) => self.place(cookie, entry),
                }
            }
        }
        match self.get(cookie) {
            Err(NoMeaning::Unknown) => {
                self.place(cookie, Entry::Known(cookie, meaning));
                false
            }
            Ok(known) if known == meaning => false,
            known => {
                self.collisions.extend(known.ok().map(|known| (cookie, known)));
                if !self.collisions.contains(&(cookie, meaning)) {
                    self.collisions.push((cookie, meaning));
                }
                let mask = self.entries.len() - 1;
                let mut at = cookie as usize & mask;
                while !matches!(self.entries[at & mask], Entry::Known(known, _) | Entry::Collided(known) if known == cookie)
                {
                    at += 1;
                }
                self.entries[at & mask] = Entry::Collided(cookie);
                true
            }
        }
    }

    /// All meanings of cookies that have several.
    pub fn collisions(&self) -> &[(u64, Meaning)] {
        &self.collisions
    }

    fn place(&mut self, cookie: u64, entry: Entry) {
        let mask = self.entries.len() - 1;
        let mut at = cookie as usize & mask;
        while !matches!(self.entries[at & mask], Entry::Free) {
            at += 1;
        }
        self.entries[at & mask] = entry;
        self.used += 1;
    }
}

impl Default for CookieTable {
    fn default() -> CookieTable {
        CookieTable::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(origin: u16) -> Meaning {
        Meaning { stack: 0, origin: Rank(origin), traffic: Traffic::Cast }
    }

    #[test]
    fn cookies_are_found_whatever_their_low_bits() {
        let mut table = CookieTable::new();
        for n in 0..200u64 {
            assert!(!table.insert(n << 20 | 5, meaning(n as u16)));
        }
        for n in 0..200u64 {
            assert_eq!(table.get(n << 20 | 5), Ok(meaning(n as u16)));
        }
        assert_eq!(table.get(5 | 1 << 50), Err(NoMeaning::Unknown));
    }

    #[test]
    fn a_cookie_with_two_meanings_has_none() {
        let mut table = CookieTable::new();
        assert!(!table.insert(9, meaning(1)));
        assert!(!table.insert(9, meaning(1)));
        assert!(table.insert(9, meaning(2)));
        assert_eq!(table.get(9), Err(NoMeaning::Collided));
        assert!(table.insert(9, meaning(3)));
        assert!(table.insert(9, meaning(3)));
        assert_eq!(table.collisions(), [1, 2, 3].map(|origin| (9, meaning(origin))));
    }
}
