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
struct Entry {
    /// [`FREE`] if the entry is.
    cookie: u64,
    /// Whether there are two meanings: then frames with it cannot be told apart and are dropped.
    collided: bool,
    meaning: Meaning,
}

/// No cookie: it has a bit outside of the mask.
const FREE: u64 = u64::MAX;
const FREE_ENTRY: Entry = Entry {
    cookie: FREE,
    collided: true,
    meaning: Meaning { stack: 0, origin: Rank(0), traffic: Traffic::Cast },
};

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
        CookieTable { entries: vec![FREE_ENTRY; 16], used: 0, collisions: Vec::new() }
    }

    /// What a cookie stands for.
    ///
    /// # Errors
    /// If nothing, or more than one thing.
    #[inline]
    pub fn get(&self, cookie: u64) -> Result<&Meaning, NoMeaning> {
        let (_, entry) = self.find(cookie);
        match entry.collided {
            false => Ok(&entry.meaning),
            true if entry.cookie == FREE => Err(NoMeaning::Unknown),
            true => Err(NoMeaning::Collided),
        }
    }

    /// Where a cookie is, or the free place where it would be.
    #[inline]
    fn find(&self, cookie: u64) -> (usize, &Entry) {
        let mask = self.entries.len() - 1;
        let mut at = cookie as usize & mask;
        loop {
            let entry = &self.entries[at];
            if entry.cookie == cookie || entry.cookie == FREE {
                return (at, entry);
            }
            at = (at + 1) & mask;
        }
    }

    /// Gives a cookie a meaning. Returns whether it had another one before: from then on it has none.
    pub fn insert(&mut self, cookie: u64, meaning: Meaning) -> bool {
        if (self.used + 1) * 2 > self.entries.len() {
            let grown = vec![FREE_ENTRY; self.entries.len() * 2];
            let old = std::mem::replace(&mut self.entries, grown);
            for entry in old.into_iter().filter(|entry| entry.cookie != FREE) {
                let (at, _) = self.find(entry.cookie);
                self.entries[at] = entry;
            }
        }
        let (at, _) = self.find(cookie);
        let entry = &mut self.entries[at];
        if entry.cookie == FREE {
            *entry = Entry { cookie, collided: false, meaning };
            self.used += 1;
            return false;
        }
        if !entry.collided && entry.meaning == meaning {
            return false;
        }
        if !entry.collided {
            self.collisions.push((cookie, entry.meaning));
        }
        entry.collided = true;
        if !self.collisions.contains(&(cookie, meaning)) {
            self.collisions.push((cookie, meaning));
        }
        true
    }

    /// All meanings of cookies that have several.
    pub fn collisions(&self) -> &[(u64, Meaning)] {
        &self.collisions
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
            assert_eq!(table.get(n << 20 | 5), Ok(&meaning(n as u16)));
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
