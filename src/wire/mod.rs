//! Bytes on the wire. `docs/wire.md` states every bit.
//!
//! Data messages travel behind one of two headers. The *full* header ([`full`]) identifies group, view, origin and
//! stack and carries every field; the *compressed* header ([`layout`]) is a cookie and the few words a receiver cannot
//! predict. A payload is one message, or a *pack* of many ([`pack`]). Control bodies have small codecs ([`control`]).
//! All numbers are little-endian.

pub mod bits;
pub mod control;
pub mod full;
pub mod layout;
pub mod outside;
pub mod pack;

/// The version of everything in this module.
pub const WIRE_VERSION: u8 = 2;

/// Set in the first word of a frame whose payload is a pack.
pub const PACK_FLAG: u64 = 1 << 62;
/// Set in the first word of a frame with a full header.
pub const FULL_FLAG: u64 = 1 << 63;
/// The bits of a cookie.
pub const COOKIE_MASK: u64 = PACK_FLAG - 1;

/// The kinds of traffic; each has a field layout and cookies of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Traffic {
    /// Multicast to the view, numbered by frame.
    Cast = 0,
    /// To one member, numbered per peer; application sends and reliable control messages.
    Send = 1,
    /// Best effort, unnumbered: gossip, repair requests.
    Raw = 2,
}

impl Traffic {
    /// All of them, in order of their codes.
    pub const ALL: [Traffic; 3] = [Traffic::Cast, Traffic::Send, Traffic::Raw];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Traffic::Cast => "cast",
            Traffic::Send => "send",
            Traffic::Raw => "raw",
        }
    }
}

/// The eight bytes at `at`, as a word. `None` if there are not that many.
#[inline]
pub fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let chunk = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*chunk))
}
