//! CRC32C for short inputs.
//!
//! The checksum of an ordinary message covers three words and some tens of bytes. Such a length is below what general
//! implementations are made for: they choose by CPU on each call, align, and run three streams whose results must be
//! joined. Here it is one look at the CPU and one instruction for eight bytes; long inputs go to the `crc32c` crate.

/// From here on three streams at a time are faster than one.
const LONG_BYTES: usize = 512;

/// CRC32C of `words` in little-endian order, followed by `payload`.
#[inline]
pub(crate) fn crc32c(words: &[u64], payload: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if payload.len() < LONG_BYTES && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the CPU has the instructions, as was just asked. `short_is_the_same_as_long` compares the results.
        return unsafe { short(words, payload) };
    }
    long(words, payload)
}

/// CRC32C of `first` and `words`, followed by `payload`: as [`crc32c`], for so few words that a loop over them costs more
/// than they do.
#[inline]
pub(crate) fn crc32c_of<const WORDS: usize>(first: u64, words: &[u64; WORDS], payload: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if payload.len() < LONG_BYTES && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the CPU has the instructions, as was just asked. `short_is_the_same_as_long` compares the results.
        return unsafe { short_of(first, words, payload) };
    }
    long_behind(crc32c::crc32c(&first.to_le_bytes()), words, payload)
}

/// By the crate, for any length and any CPU.
fn long(words: &[u64], payload: &[u8]) -> u32 {
    long_behind(0, words, payload)
}

/// Not inlined: it would take registers from those who have short inputs.
#[inline(never)]
fn long_behind(head: u32, words: &[u64], payload: &[u8]) -> u32 {
    let head = words.iter().fold(head, |crc, word| crc32c::crc32c_append(crc, &word.to_le_bytes()));
    crc32c::crc32c_append(head, payload)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn short(words: &[u64], payload: &[u8]) -> u32 {
    use std::arch::x86_64::_mm_crc32_u64;
    let crc = words.iter().fold(u64::from(u32::MAX), |crc, word| _mm_crc32_u64(crc, *word));
    short_behind(crc, payload)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn short_of<const WORDS: usize>(first: u64, words: &[u64; WORDS], payload: &[u8]) -> u32 {
    use std::arch::x86_64::_mm_crc32_u64;
    let crc = _mm_crc32_u64(u64::from(u32::MAX), first);
    let crc = words.iter().fold(crc, |crc, word| _mm_crc32_u64(crc, *word));
    short_behind(crc, payload)
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse4.2")]
fn short_behind(mut crc: u64, payload: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
    let (chunks, rest) = payload.as_chunks::<8>();
    for chunk in chunks {
        crc = _mm_crc32_u64(crc, u64::from_le_bytes(*chunk));
    }
    let mut crc = crc as u32;
    let (chunks, rest) = rest.as_chunks::<4>();
    for chunk in chunks {
        crc = _mm_crc32_u32(crc, u32::from_le_bytes(*chunk));
    }
    for byte in rest {
        crc = _mm_crc32_u8(crc, *byte);
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_standard_comes_out() {
        assert_eq!(crc32c(&[], b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[u64::from_le_bytes(*b"12345678")], b"9"), 0xe306_9283);
    }

    #[test]
    fn short_is_the_same_as_long() {
        let bytes: Vec<u8> = (0..2 * LONG_BYTES).map(|n| (n * n / 7) as u8).collect();
        let words = [1, 0x0123_4567_89ab_cdef, u64::MAX];
        for length in 0..bytes.len() {
            for from in 0..3.min(bytes.len() - length) {
                let payload = &bytes[from..from + length];
                assert_eq!(crc32c(&words[..from], payload), long(&words[..from], payload));
                assert_eq!(crc32c_of(words[0], &[words[1], words[2]], payload), long(&words, payload));
            }
        }
    }
}
