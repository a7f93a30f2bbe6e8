//! Fields of any width, packed into words from the lowest bit up.

/// A mask of the lowest `bits` bits.
#[inline]
pub const fn low_bits(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

/// Writes fields one after the other.
#[derive(Debug)]
pub struct BitWriter<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl<'b> BitWriter<'b> {
    /// A writer that fills `bytes`, which it clears first.
    pub fn new(bytes: &'b mut [u8]) -> BitWriter<'b> {
        bytes.fill(0);
        BitWriter { bytes, at: 0 }
    }

    /// Writes the lowest `bits` bits of `value`.
    ///
    /// # Panics
    /// If they do not fit the bytes or `value` has more.
    pub fn write(&mut self, value: u64, bits: u32) {
        assert!(value & !low_bits(bits) == 0, "a field's value is wider than the field");
        let (word, offset) = (self.at / 64, (self.at % 64) as u32);
        self.at += bits as usize;
        assert!(self.at <= self.bytes.len() * 8, "a field has room");
        self.add(word, value << offset);
        if offset + bits > 64 {
            self.add(word + 1, value >> (64 - offset));
        }
    }

    #[inline]
    fn add(&mut self, word: usize, bits: u64) {
        let bytes = &mut self.bytes[word * 8..];
        match bytes.first_chunk_mut() {
            Some(bytes) => *bytes = (u64::from_le_bytes(*bytes) | bits).to_le_bytes(),
            None => bytes.iter_mut().zip(bits.to_le_bytes()).for_each(|(byte, bits)| *byte |= bits),
        }
    }
}

/// Reads fields one after the other.
#[derive(Debug)]
pub struct BitReader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> BitReader<'b> {
    /// A reader of `bytes`.
    pub fn new(bytes: &'b [u8]) -> BitReader<'b> {
        BitReader { bytes, at: 0 }
    }

    /// Reads `bits` bits; `None` when the bytes are used up.
    #[inline]
    pub fn read(&mut self, bits: u32) -> Option<u64> {
        if self.at + bits as usize > self.bytes.len() * 8 {
            return None;
        }
        let (word, offset) = (self.at / 64, (self.at % 64) as u32);
        self.at += bits as usize;
        let mut value = self.word(word) >> offset;
        if offset + bits > 64 {
            value |= self.word(word + 1) << (64 - offset);
        }
        Some(value & low_bits(bits))
    }

    #[inline]
    fn word(&self, word: usize) -> u64 {
        let bytes = &self.bytes[word * 8..];
        match bytes.first_chunk() {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_follow_each_other_from_the_lowest_bit_on() {
        let mut bytes = [0xff; 10];
        let mut writer = BitWriter::new(&mut bytes);
        for (value, bits) in [(1, 1), (0b10, 3), (0xabcd_ef01_2345_6789, 64), (0x5a, 8)] {
            writer.write(value, bits);
        }
        assert_eq!(bytes, [0x95, 0x78, 0x56, 0x34, 0x12, 0xf0, 0xde, 0xbc, 0xaa, 0x05]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(fields in proptest::collection::vec((any::<u64>(), 1u32..=64), 0..40)) {
            let total: usize = fields.iter().map(|(_, bits)| *bits as usize).sum();
            let mut bytes = vec![0xff; total.div_ceil(8)];
            let mut writer = BitWriter::new(&mut bytes);
            for (value, bits) in &fields {
                writer.write(value & low_bits(*bits), *bits);
            }
            let mut reader = BitReader::new(&bytes);
            for (value, bits) in &fields {
                prop_assert_eq!(reader.read(*bits), Some(value & low_bits(*bits)));
            }
            prop_assert_eq!(reader.read(8), None);
        }
    }
}
