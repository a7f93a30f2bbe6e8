//! CRC32C for short inputs.
//!
//! The checksum of an ordinary message covers three words and some tens of bytes. Such a length is below what general
//! implementations are made for: they choose by CPU on each call, align, and run three streams whose results must be
//! joined. Here it is one look at the CPU and one instruction for eight bytes.
//!
//! Longer inputs are three streams here, too, but of a third of the input each: the crate's are 256 bytes long or 8 KiB,
//! and of a frame of 1,472 bytes nearly half is left over for one stream, which takes as long as all three. Joining streams
//! of any length takes one carry-less multiplication each (Gopal, Ozturk et al., Fast CRC Computation for iSCSI Polynomial
//! Using CRC32 Instruction, 2011). Where the CPU has not got the instructions it is left to the crate.

/// From here on three streams at a time are faster than one.
const LONG_BYTES: usize = 512;

/// The most words of a stream, before it is joined with the two beside it.
const STREAM_WORDS_MAX: usize = 256;

/// By words that follow: by what a sum is multiplied so that it counts for what comes before them, but for the 2^33 by which
/// a carry-less product and the instruction behind it multiply. The first is not used.
const SHIFTS: [u32; 2 * STREAM_WORDS_MAX + 1] = shifts();

/// The polynomial without its highest power, the highest power first.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const fn shifts() -> [u32; 2 * STREAM_WORDS_MAX + 1] {
    let mut shifts = [0; 2 * STREAM_WORDS_MAX + 1];
    // The power of 64 - 33, and from there on by 64 at a time.
    let (mut shift, mut words) = (1_u32, 1);
    while words < shifts.len() {
        shifts[words] = shift;
        let mut power = 0;
        while power < 64 {
            shift = (shift >> 1) ^ if shift & 1 == 1 { POLYNOMIAL } else { 0 };
            power += 1;
        }
        words += 1;
    }
    shifts
}

/// CRC32C of `words` in little-endian order, followed by `payload`.
#[inline]
pub(crate) fn crc32c(words: &[u64], payload: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if payload.len() < LONG_BYTES && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the CPU has the instructions, as was just asked. `short_is_the_same_as_by_the_crate` compares the results.
        return unsafe { short(words, payload) };
    }
    append(0, words, payload)
}

/// CRC32C of `first` and `words`, followed by `payload`: as [`crc32c`], for so few words that a loop over them costs more
/// than they do.
#[inline]
pub(crate) fn crc32c_of<const WORDS: usize>(first: u64, words: &[u64; WORDS], payload: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if payload.len() < LONG_BYTES && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the CPU has the instructions, as was just asked. `short_is_the_same_as_by_the_crate` compares the results.
        return unsafe { short_of(first, words, payload) };
    }
    append(append(0, &[first], &[]), words, payload)
}

/// The CRC32C of `payload` behind bytes whose CRC32C is `head`.
#[inline]
pub(crate) fn crc32c_append(head: u32, payload: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if payload.len() < LONG_BYTES && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the CPU has the instructions, as was just asked. `long_is_the_same_as_by_the_crate` compares the results.
        return unsafe { short_behind(u64::from(!head), payload) };
    }
    append(head, &[], payload)
}

/// For any length and any CPU. Not inlined: it would take registers from those who have short inputs.
#[inline(never)]
fn append(head: u32, words: &[u64], payload: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.2") && std::arch::is_x86_feature_detected!("pclmulqdq") {
        // SAFETY: the CPU has the instructions, as was just asked. `long_is_the_same_as_by_the_crate` compares the results.
        return unsafe { streams(head, words, payload) };
    }
    by_crate(head, words, payload)
}

fn by_crate(head: u32, words: &[u64], payload: &[u8]) -> u32 {
    let head = words.iter().fold(head, |crc, word| crc32c::crc32c_append(crc, &word.to_le_bytes()));
    crc32c::crc32c_append(head, payload)
}

/// Three streams of equal length at a time, for as long as there is a word for each.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2,pclmulqdq")]
fn streams(head: u32, words: &[u64], payload: &[u8]) -> u32 {
    use std::arch::x86_64::{
        _mm_clmulepi64_si128, _mm_crc32_u64, _mm_cvtsi32_si128, _mm_cvtsi128_si64, _mm_xor_si128,
    };
    let mut crc = words.iter().fold(u64::from(!head), |crc, word| _mm_crc32_u64(crc, *word));
    let mut left = payload;
    while left.len() >= 3 * 8 {
        let words = (left.len() / (3 * 8)).min(STREAM_WORDS_MAX);
        let (chunks, rest) = left.split_at(3 * 8 * words);
        let (first, behind) = chunks.as_chunks::<8>().0.split_at(words);
        let (second, third) = behind.split_at(words);
        let mut sums = [crc, 0, 0];
        for ((first, second), third) in first.iter().zip(second).zip(third) {
            sums[0] = _mm_crc32_u64(sums[0], u64::from_le_bytes(*first));
            sums[1] = _mm_crc32_u64(sums[1], u64::from_le_bytes(*second));
            sums[2] = _mm_crc32_u64(sums[2], u64::from_le_bytes(*third));
        }
        let before = |sum: u64, words: usize| {
            let (sum, shift) = (_mm_cvtsi32_si128(sum as i32), _mm_cvtsi32_si128(SHIFTS[words] as i32));
            _mm_clmulepi64_si128::<0>(sum, shift)
        };
        let joined = _mm_xor_si128(before(sums[0], 2 * words), before(sums[1], words));
        crc = _mm_crc32_u64(0, _mm_cvtsi128_si64(joined) as u64) ^ sums[2];
        left = rest;
    }
    short_behind(crc, left)
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
    fn short_is_the_same_as_by_the_crate() {
        let bytes: Vec<u8> = (0..2 * LONG_BYTES).map(|n| (n * n / 7) as u8).collect();
        let words = [1, 0x0123_4567_89ab_cdef, u64::MAX];
        for length in 0..bytes.len() {
            for from in 0..3.min(bytes.len() - length) {
                let payload = &bytes[from..from + length];
                assert_eq!(crc32c(&words[..from], payload), by_crate(0, &words[..from], payload));
                assert_eq!(crc32c_of(words[0], &[words[1], words[2]], payload), by_crate(0, &words, payload));
            }
        }
    }

    #[test]
    fn long_is_the_same_as_by_the_crate() {
        let longest = 2 * 3 * 8 * STREAM_WORDS_MAX + 64;
        let bytes: Vec<u8> = (0..longest + 3).map(|n| (n * n / 7) as u8).collect();
        let lengths = (0..600).chain((600..longest).step_by(37)).chain(longest - 80..longest);
        for length in lengths {
            for from in 0..3 {
                let payload = &bytes[from..from + length];
                for head in [0, 1, 0x8000_0000, u32::MAX] {
                    assert_eq!(append(head, &[3, 5], payload), by_crate(head, &[3, 5], payload), "{length}");
                    assert_eq!(crc32c_append(head, payload), by_crate(head, &[], payload), "{length}");
                }
            }
        }
    }
}
