//! The shared-memory transport without a stack: round trips and stream of 88-byte frames (a 24-byte header and 64
//! bytes of payload) between two pinned threads, next to a bare ring of sequence-numbered slots of the same size.
//!
//! `cargo run --release --example shm_raw`
#![allow(clippy::print_stdout)]

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use wadjet::id::{GroupId, Incarnation, ViewId};
use wadjet::transport::shm::{Shm, ShmOptions};
use wadjet::transport::{Channel, ChannelOptions, Destination, Transmit, Transport};
use wadjet::view::{Address, LocalView, Member, View};

const HEADER: [u8; 24] = [7; 24];
const PAYLOAD: usize = 64;
const BLOCKS: usize = 40;
const ROUNDS: usize = 5_000;
const STREAM: u64 = 4_000_000;

fn main() {
    let cast_frames = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1024);
    let bare_sent = slots();
    let bare_back = slots();
    let barrier = std::sync::Barrier::new(2);
    let (mut raw, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            let mut end = End::open(2, cast_frames);
            barrier.wait();
            end.find();
            for _ in 0..BLOCKS {
                for _ in 0..ROUNDS {
                    end.await_one();
                    end.cast();
                }
                barrier.wait();
                for position in 0..ROUNDS as u64 {
                    bare_sent.take(position);
                    bare_back.put(position);
                }
                bare_sent.reset();
                barrier.wait();
            }
            barrier.wait();
            end.count(STREAM);
            barrier.wait();
            for position in 0..STREAM {
                bare_sent.take(position);
            }
            barrier.wait();
        });
        pin(0);
        let mut end = End::open(1, cast_frames);
        barrier.wait();
        end.find();
        for _ in 0..BLOCKS {
            let start = Instant::now();
            for _ in 0..ROUNDS {
                end.cast();
                end.await_one();
            }
            let shm = start.elapsed().as_nanos() as f64 / ROUNDS as f64;
            barrier.wait();
            let start = Instant::now();
            for position in 0..ROUNDS as u64 {
                bare_sent.put(position);
                bare_back.take(position);
            }
            let slot = start.elapsed().as_nanos() as f64 / ROUNDS as f64;
            bare_back.reset();
            barrier.wait();
            raw.push(shm);
            bare.push(slot);
            ratios.push(shm / slot);
        }
        println!(
            "round trip, median of {BLOCKS} blocks: shm {:.0} ns, bare slots {:.0} ns, ratio {:.2}",
            median(&mut raw),
            median(&mut bare),
            median(&mut ratios)
        );
        barrier.wait();
        let start = Instant::now();
        for _ in 0..STREAM {
            end.cast_waiting();
        }
        barrier.wait();
        let rate = STREAM as f64 / start.elapsed().as_secs_f64() / 1e6;
        let start = Instant::now();
        for position in 0..STREAM {
            bare_sent.put(position);
        }
        barrier.wait();
        let bare = STREAM as f64 / start.elapsed().as_secs_f64() / 1e6;
        println!(
            "stream: shm {rate:.1} M frames/s, bare slots {bare:.1} M/s, {:?}",
            end.transport.counters()
        );
    });
}

/// A member of the view {1, 2}.
struct End {
    transport: Shm,
    channel: Channel,
    payload: [u8; PAYLOAD],
    sum: u64,
}

impl End {
    fn open(incarnation: u64, cast_frames: usize) -> End {
        let member = |n| Member { incarnation: Incarnation(n), address: Address(String::new()) };
        let view = View {
            group: GroupId::named(&format!("shm_raw {}", std::process::id())),
            id: ViewId { counter: 1, coordinator: Incarnation(1) },
            members: vec![member(1), member(2)],
            spec: String::new(),
            wire_version: 1,
            salt: 0,
        };
        let view = LocalView::new(view, Incarnation(incarnation)).expect("a member");
        let mut transport = Shm::new(ShmOptions::default());
        let options = ChannelOptions {
            cast_frames,
            control_frames: 16,
            receive_frames: 16,
            frame_bytes: 2048,
            huge_pages: false,
        };
        let channel = transport.open(&view, &options).expect("room in /dev/shm");
        End { transport, channel, payload: [5; PAYLOAD], sum: 0 }
    }

    fn find(&mut self) {
        while self.transport.peers(self.channel.id) == 0 {
            self.transport.reap();
        }
    }

    #[inline]
    fn cast(&mut self) -> bool {
        let Ok(mut frame) = self.channel.casts.take(HEADER.len()) else { return false };
        frame.extend(&self.payload).expect("fits");
        let head = frame.freeze();
        head.prepend(&HEADER).expect("room was taken for it");
        let transmit = Transmit { channel: self.channel.id, to: Destination::All, head, body: None };
        self.transport.submit(transmit).expect("casts go in place");
        self.transport.flush();
        true
    }

    fn cast_waiting(&mut self) {
        while !self.cast() {
            self.transport.reap();
            spin_loop();
        }
    }

    #[inline]
    fn look(&mut self, budget: usize) -> usize {
        self.transport.reap();
        let sum = &mut self.sum;
        let count = self.transport.receive(budget, &mut |received| *sum += touch(received.bytes()));
        std::hint::black_box(self.transport.busy(self.channel.id));
        count
    }

    #[inline]
    fn await_one(&mut self) {
        while self.look(1) == 0 {
            spin_loop();
        }
    }

    fn count(&mut self, wanted: u64) {
        let mut count = 0;
        while count < wanted {
            count += self.look(32) as u64;
        }
    }
}

/// Reads every word, as an application would.
#[inline]
fn touch(bytes: &[u8]) -> u64 {
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight"))).sum()
}

/// A slot: a sequence number and as many words as a frame has.
#[repr(align(128))]
struct Slot([AtomicU64; 1 + (HEADER.len() + PAYLOAD) / 8]);

struct Slots {
    slots: Vec<Slot>,
    read: AtomicU64,
}

fn slots() -> Slots {
    let slots = (0..1024).map(|_| Slot(std::array::from_fn(|_| AtomicU64::new(0)))).collect();
    Slots { slots, read: AtomicU64::new(0) }
}

impl Slots {
    #[inline]
    fn put(&self, position: u64) {
        if position >= 1024 && position.is_multiple_of(512) {
            while self.read.load(Ordering::Acquire) + 512 < position {
                spin_loop();
            }
        }
        let slot = &self.slots[position as usize % 1024].0;
        for word in &slot[1..] {
            word.store(position, Ordering::Relaxed);
        }
        slot[0].store(position + 1, Ordering::Release);
    }

    #[inline]
    fn take(&self, position: u64) -> u64 {
        let slot = &self.slots[position as usize % 1024].0;
        while slot[0].load(Ordering::Acquire) != position + 1 {
            spin_loop();
        }
        let sum = slot[1..].iter().map(|word| word.load(Ordering::Relaxed)).fold(0, u64::wrapping_add);
        if position.is_multiple_of(64) {
            self.read.store(position, Ordering::Release);
        }
        std::hint::black_box(sum)
    }

    fn reset(&self) {
        for slot in &self.slots {
            slot.0[0].store(0, Ordering::Relaxed);
        }
        self.read.store(0, Ordering::Relaxed);
    }
}

fn pin(core: usize) {
    if let Some(ids) = core_affinity::get_core_ids() {
        core_affinity::set_for_current(ids[core % ids.len()]);
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
