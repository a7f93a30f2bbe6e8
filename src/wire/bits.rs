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
        let mut rest = value;
        let mut left = bits;
        while left > 0 {
            let offset = (self.at % 8) as u32;
            let step = left.min(8 - offset);
            self.bytes[self.at / 8] |= ((rest & low_bits(step)) as u8) << offset;
            rest = if step == 64 { 0 } else { rest >> step };
            left -= step;
            self.at += step as usize;
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
    pub fn read(&mut self, bits: u32) -> Option<u64> {
        if self.at + bits as usize > self.bytes.len() * 8 {
            return None;
        }
        let mut value = 0;
        let mut have = 0;
        while have < bits {
            let offset = (self.at % 8) as u32;
            let step = (bits - have).min(8 - offset);
            let part = u64::from(self.bytes[self.at / 8] >> offset) & low_bits(step);
            value |= part << have;
            have += step;
            self.at += step as usize;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
