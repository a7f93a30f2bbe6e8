//! The hand-fused reference: what a programmer who knew the whole stack would write as two functions.
//!
//! It does the protocol work of the stack for a fixed view for one ordinary cast, on the same frames and regions: credit and
//! guard checked, number given and compared, checksum where the stack has one, the frame retained on both sides, own
//! copy and delivery by dynamic upcall, reception reported back as gossip and retention trimmed by it. It knows no
//! unusual case: it panics where the stack would take its slow path.

use wadjet::buf::{Frame, MemoryError, Region, RegionOptions};

/// Where messages go.
pub trait Upcall {
    /// A message of `origin`.
    fn message(&mut self, origin: usize, message: &[u8]);
}

/// Two members, fused.
#[derive(Debug)]
pub struct FusedPair {
    region: Region,
    checksum: bool,
    payload_bytes: usize,
    sender: Sender,
    receiver: Receiver,
}

#[derive(Debug)]
struct Sender {
    cookie: u64,
    guard: u64,
    next: u64,
    /// What the receiver says it holds.
    held: u64,
    retained: Box<[Option<Frame>]>,
    trimmed: u64,
}

#[derive(Debug)]
struct Receiver {
    cookie: u64,
    guard: u64,
    next: u64,
    /// What the sender says everybody holds.
    stable: u64,
    retained: Box<[Option<Frame>]>,
    trimmed: u64,
}

impl FusedPair {
    /// Two members that exchange messages of `payload_bytes`.
    ///
    /// # Errors
    /// If there is no memory for the frames.
    pub fn new(payload_bytes: usize, checksum: bool) -> Result<FusedPair, MemoryError> {
        let region = Region::pool(RegionOptions {
            frames: 4096,
            link_headroom_bytes: 0,
            frame_bytes: 2048,
            reserve_frames: 0,
            huge_pages: false,
        })?;
        let retained = || (0..RETAINED).map(|_| None).collect();
        Ok(FusedPair {
            region,
            checksum,
            payload_bytes,
            sender: Sender { cookie: COOKIE, guard: 0, next: 0, held: 0, retained: retained(), trimmed: 0 },
            receiver: Receiver {
                cookie: COOKIE,
                guard: 0,
                next: 0,
                stable: 0,
                retained: retained(),
                trimmed: 0,
            },
        })
    }

    /// One cast, from the sender's application to both applications.
    #[inline(never)]
    pub fn cast(&mut self, sender: &mut dyn Upcall, receiver: &mut dyn Upcall) {
        let frame = self.send(sender);
        self.deliver(frame, receiver);
    }

    /// What may wait until the loop is idle: the receiver's report, and the trimming of what is stable.
    #[inline(never)]
    pub fn settle(&mut self) {
        self.sender.held = self.receiver.next;
        while self.sender.trimmed < self.sender.held {
            self.sender.retained[self.sender.trimmed as usize % RETAINED] = None;
            self.sender.trimmed += 1;
        }
        while self.receiver.trimmed < self.receiver.stable {
            self.receiver.retained[self.receiver.trimmed as usize % RETAINED] = None;
            self.receiver.trimmed += 1;
        }
    }

    #[inline]
    fn send(&mut self, application: &mut dyn Upcall) -> Frame {
        let sender = &mut self.sender;
        assert!(sender.guard == 0 && sender.next - sender.held < CREDIT);
        let mut frame = self.region.take(HEADER_BYTES).expect("credit is below the frames there are");
        let payload = frame.grow(self.payload_bytes).expect("the payload fits");
        payload.fill(sender.next as u8);
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&sender.cookie.to_le_bytes());
        header[8..12].copy_from_slice(&(sender.next as u32).to_le_bytes());
        header[12..16].copy_from_slice(&(sender.held as u32).to_le_bytes());
        header[16..18].copy_from_slice(&(self.payload_bytes as u16).to_le_bytes());
        if self.checksum {
            header[20..].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        }
        let frame = frame.freeze();
        frame.prepend(&header).expect("room was left");
        frame.submit();
        sender.retained[sender.next as usize % RETAINED] = Some(frame.clone());
        sender.next += 1;
        application.message(0, &frame.bytes()[HEADER_BYTES..]);
        frame
    }

    #[inline]
    fn deliver(&mut self, frame: Frame, application: &mut dyn Upcall) {
        let receiver = &mut self.receiver;
        let (header, message) = frame.bytes().split_first_chunk::<HEADER_BYTES>().expect("long enough");
        let word = |from: usize| u32::from_le_bytes(header[from..from + 4].try_into().expect("four bytes"));
        let cookie = u64::from_le_bytes(header[..8].try_into().expect("eight bytes"));
        let length = usize::from(u16::from_le_bytes([header[16], header[17]]));
        assert!(cookie == receiver.cookie && receiver.guard == 0);
        assert!(word(8) == receiver.next as u32 && length == message.len());
        if self.checksum {
            assert_eq!(word(20), crc32c::crc32c(message));
        }
        receiver.stable = receiver.stable.max(u64::from(word(12)));
        receiver.retained[receiver.next as usize % RETAINED] = Some(frame.clone());
        receiver.next += 1;
        application.message(0, message);
    }
}

const COOKIE: u64 = 0x5741_444a_4554_0001;
const HEADER_BYTES: usize = 24;
const RETAINED: usize = 1024;
const CREDIT: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    struct Count(u64);

    impl Upcall for Count {
        fn message(&mut self, origin: usize, message: &[u8]) {
            assert_eq!((origin, message.len(), message[0]), (0, 64, self.0 as u8));
            self.0 += 1;
        }
    }

    #[test]
    fn both_applications_get_every_message_once_and_frames_come_back() {
        for checksum in [false, true] {
            let mut pair = FusedPair::new(64, checksum).unwrap();
            let (mut here, mut there) = (Count(0), Count(0));
            for _ in 0..10_000 {
                pair.cast(&mut here, &mut there);
                pair.settle();
            }
            assert_eq!((here.0, there.0), (10_000, 10_000));
            assert!(pair.region.usage().lent < 8, "{:?}", pair.region.usage());
        }
    }
}
