//! Codecs of the stack's and the layers' own messages (design D9).
//!
//! A control message is a frame with a full header that names the layer it is for; its body is one of these. Bodies
//! are decoded into checked values once; a body that does not decode is dropped and counted.

use crate::id::Life;

/// The body does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a control body is cut off or out of range")]
pub struct ControlError;

/// Reads a body from front to back.
#[derive(Clone, Debug)]
pub struct BodyReader<'b> {
    rest: &'b [u8],
}

impl<'b> BodyReader<'b> {
    /// A reader of `bytes`.
    pub fn new(bytes: &'b [u8]) -> BodyReader<'b> {
        BodyReader { rest: bytes }
    }

    /// The next byte.
    ///
    /// # Errors
    /// If the body ends before.
    pub fn byte(&mut self) -> Result<u8, ControlError> {
        let (first, rest) = self.rest.split_first().ok_or(ControlError)?;
        self.rest = rest;
        Ok(*first)
    }

    /// The next two bytes.
    ///
    /// # Errors
    /// If the body ends before.
    pub fn half(&mut self) -> Result<u16, ControlError> {
        let (first, rest) = self.rest.split_first_chunk::<2>().ok_or(ControlError)?;
        self.rest = rest;
        Ok(u16::from_le_bytes(*first))
    }

    /// The next four bytes, as a life.
    ///
    /// # Errors
    /// If the body ends before.
    pub fn life(&mut self) -> Result<Life, ControlError> {
        let (first, rest) = self.rest.split_first_chunk::<4>().ok_or(ControlError)?;
        self.rest = rest;
        Ok(Life(u32::from_le_bytes(*first)))
    }

    /// The next eight bytes.
    ///
    /// # Errors
    /// If the body ends before.
    pub fn word(&mut self) -> Result<u64, ControlError> {
        let (first, rest) = self.rest.split_first_chunk::<8>().ok_or(ControlError)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*first))
    }

    /// Ends reading.
    ///
    /// # Errors
    /// If bytes are left.
    pub fn end(self) -> Result<(), ControlError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ControlError) }
    }
}

/// A row of gossip: what one member says of the subjects `first..first + values.len() / gossips`.
///
/// ```text
/// gossip = flags:u8 gossips:u8 first:u16 subjects:u16 life:u32 after:u64
///          (value:u64){subjects * gossips} (life:u32){subjects}
/// ```
/// `flags` bit 0: please report back. `life`: which start of its incarnation the reporter is, and which it has heard of
/// each subject; 0 for none. `after`: the number of the reporter's next cast frame when it reported, so that
/// reports and frames can be put in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GossipRow<'b> {
    /// Whether the receiver is asked to report in turn.
    pub ask: bool,
    /// How many gossips there are per subject.
    pub gossips: u8,
    /// The first subject.
    pub first: u16,
    /// How many subjects.
    pub subjects: u16,
    /// Which start of its incarnation the reporter is.
    pub life: Life,
    /// The reporter's next frame number.
    pub after: u64,
    values: &'b [u8],
    lives: &'b [u8],
}

/// The largest value of a gossip: far above what numbers (2^40) and windows can make it, and far below what would wrap.
pub const GOSSIP_VALUE_MAX: u64 = 1 << 48;

/// Bytes of a gossip row before its values.
pub const GOSSIP_HEADER_BYTES: usize = 18;

/// Bytes of a gossip row about one subject, beside 8 per gossip.
pub const GOSSIP_LIFE_BYTES: usize = 4;

impl<'b> GossipRow<'b> {
    /// Decodes a body.
    ///
    /// # Errors
    /// If it is cut off, over-long or empty, or a value is above [`GOSSIP_VALUE_MAX`].
    pub fn decode(bytes: &'b [u8]) -> Result<GossipRow<'b>, ControlError> {
        let mut reader = BodyReader::new(bytes);
        let flags = reader.byte()?;
        let gossips = reader.byte()?;
        let first = reader.half()?;
        let subjects = reader.half()?;
        let life = reader.life()?;
        let after = reader.word()?;
        let wanted = usize::from(gossips) * usize::from(subjects) * 8;
        let lives = usize::from(subjects) * GOSSIP_LIFE_BYTES;
        if flags > 1 || wanted == 0 || reader.rest.len() != wanted + lives {
            return Err(ControlError);
        }
        let (values, lives) = reader.rest.split_at(wanted);
        let row = GossipRow { ask: flags == 1, gossips, first, subjects, life, after, values, lives };
        let high = |value: &[u8; 8]| u64::from_le_bytes(*value) > GOSSIP_VALUE_MAX;
        if after > GOSSIP_VALUE_MAX || values.as_chunks().0.iter().any(high) {
            return Err(ControlError);
        }
        Ok(row)
    }

    /// Appends the part before the values to a frame's bytes.
    pub fn header(
        ask: bool,
        gossips: u8,
        first: u16,
        subjects: u16,
        life: Life,
        after: u64,
    ) -> [u8; GOSSIP_HEADER_BYTES] {
        let mut bytes = [0; GOSSIP_HEADER_BYTES];
        bytes[0] = u8::from(ask);
        bytes[1] = gossips;
        bytes[2..4].copy_from_slice(&first.to_le_bytes());
        bytes[4..6].copy_from_slice(&subjects.to_le_bytes());
        bytes[6..10].copy_from_slice(&life.0.to_le_bytes());
        bytes[10..18].copy_from_slice(&after.to_le_bytes());
        bytes
    }

    /// The values by subject, and by gossip.
    pub fn values(&self) -> impl Iterator<Item = &'b [[u8; 8]]> {
        self.values.as_chunks().0.chunks_exact(usize::from(self.gossips).max(1))
    }

    /// The value of gossip number `gossip` about the subject at `index` of the row.
    pub fn value(&self, index: usize, gossip: usize) -> Option<u64> {
        super::word(self.values, (index * usize::from(self.gossips) + gossip) * 8)
    }

    /// Which start of its incarnation the reporter has heard of the subject at `index` of the row.
    pub fn life_of(&self, index: usize) -> Option<Life> {
        let bytes = self.lives.get(index * GOSSIP_LIFE_BYTES..)?.first_chunk()?;
        Some(Life(u32::from_le_bytes(*bytes)))
    }
}

/// A request: for the rest of the view the receiver's casts, or its sends to the asker, are to carry full headers.
///
/// ```text
/// identify = kind:u8 what:u8      (kind: 2; what: bit 0 casts, bit 1 sends; not zero)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identify {
    /// Casts are to.
    pub casts: bool,
    /// Sends to the asker are to.
    pub sends: bool,
}

impl Identify {
    /// The first byte; that of a [`GossipRow`] is 0 or 1.
    pub const KIND: u8 = 2;

    /// The body.
    pub fn encode(self) -> [u8; 2] {
        [Identify::KIND, u8::from(self.casts) | u8::from(self.sends) << 1]
    }

    /// Decodes a body.
    ///
    /// # Errors
    /// If it is cut off, over-long, asks for nothing, or is something else.
    pub fn decode(bytes: &[u8]) -> Result<Identify, ControlError> {
        match *bytes {
            [Identify::KIND, what @ 1..=3] => Ok(Identify { casts: what & 1 != 0, sends: what & 2 != 0 }),
            _ => Err(ControlError),
        }
    }
}

/// Ranges of frame numbers somebody lacks.
///
/// ```text
/// missing = origin:u16 ranges:u8 (from:u64 count:u16){ranges}      (1 to 16 ranges, count > 0, ascending)
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Rank of whose frames they are.
    pub origin: u16,
    /// First number and how many.
    pub ranges: Vec<(u64, u16)>,
}

/// The most ranges in one request.
pub const MISSING_RANGES_MAX: usize = 16;

impl Missing {
    /// Appends the body to `bytes`.
    ///
    /// # Panics
    /// If there are more than [`MISSING_RANGES_MAX`] ranges.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        assert!(self.ranges.len() <= MISSING_RANGES_MAX);
        bytes.extend(self.origin.to_le_bytes());
        bytes.push(self.ranges.len() as u8);
        for (from, count) in &self.ranges {
            bytes.extend(from.to_le_bytes());
            bytes.extend(count.to_le_bytes());
        }
    }

    /// Decodes a body.
    ///
    /// # Errors
    /// If it is cut off, over-long, empty or not ascending.
    pub fn decode(bytes: &[u8]) -> Result<Missing, ControlError> {
        let mut reader = BodyReader::new(bytes);
        let origin = reader.half()?;
        let count = usize::from(reader.byte()?);
        if count == 0 || count > MISSING_RANGES_MAX {
            return Err(ControlError);
        }
        let mut ranges = Vec::with_capacity(count);
        let mut least = 0;
        for _ in 0..count {
            let (from, many) = (reader.word()?, reader.half()?);
            let end = from.checked_add(u64::from(many)).ok_or(ControlError)?;
            if many == 0 || from < least {
                return Err(ControlError);
            }
            least = end;
            ranges.push((from, many));
        }
        reader.end()?;
        Ok(Missing { origin, ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gossip_row_gives_back_its_values() {
        let mut body = GossipRow::header(true, 2, 3, 2, Life(9), 77).to_vec();
        for value in [10u64, 11, 20, 21] {
            body.extend(value.to_le_bytes());
        }
        for life in [5u32, u32::MAX] {
            body.extend(life.to_le_bytes());
        }
        let row = GossipRow::decode(&body).unwrap();
        assert_eq!((row.ask, row.first, row.subjects, row.life, row.after), (true, 3, 2, Life(9), 77));
        assert_eq!([0, 1, 2].map(|at| row.life_of(at)), [Some(Life(5)), Some(Life(u32::MAX)), None]);
        assert_eq!(row.value(0, 1), Some(11));
        assert_eq!(row.value(1, 0), Some(20));
        assert_eq!(row.value(2, 0), None);
        assert!(GossipRow::decode(&body[..body.len() - 1]).is_err());
        body.push(0);
        assert!(GossipRow::decode(&body).is_err());
    }

    #[test]
    fn a_request_for_full_headers_asks_for_something_and_nothing_unknown() {
        for (casts, sends) in [(true, false), (false, true), (true, true)] {
            let request = Identify { casts, sends };
            assert_eq!(Identify::decode(&request.encode()), Ok(request));
        }
        for wrong in [&[][..], &[2], &[2, 0], &[2, 4], &[1, 1], &[2, 1, 0]] {
            assert_eq!(Identify::decode(wrong), Err(ControlError), "{wrong:?}");
        }
    }

    #[test]
    fn ranges_that_go_back_or_wrap_are_refused() {
        let refuse = |ranges: Vec<(u64, u16)>| {
            let mut bytes = Vec::new();
            Missing { origin: 0, ranges }.encode(&mut bytes);
            Missing::decode(&bytes).is_err()
        };
        assert!(refuse(vec![]));
        assert!(refuse(vec![(5, 0)]));
        assert!(refuse(vec![(5, 2), (6, 1)]));
        assert!(refuse(vec![(u64::MAX, 1)]));
    }

    proptest! {
        #[test]
        fn requests_round_trip(origin: u16, steps in proptest::collection::vec((1u64..1000, 1u16..100), 1..16)) {
            let mut at = 0;
            let mut ranges = Vec::new();
            for (gap, count) in steps {
                ranges.push((at + gap, count));
                at += gap + u64::from(count);
            }
            let missing = Missing { origin, ranges };
            let mut bytes = Vec::new();
            missing.encode(&mut bytes);
            prop_assert_eq!(Missing::decode(&bytes), Ok(missing));
        }

        #[test]
        fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Missing::decode(&bytes);
            let _ = GossipRow::decode(&bytes);
            let _ = Identify::decode(&bytes);
        }
    }
}
