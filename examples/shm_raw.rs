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
/// Blocks are short and take turns, so that what else the machine does falls on both alike and some blocks are free
/// of it: hence the first decile beside the median.
const BLOCKS: usize = 500;
const ROUNDS: u64 = 500;
const STREAM: u64 = 20_000;

fn main() {
    let (there, back) = (slots(), slots());
    let barrier = std::sync::Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            let mut end = End::open(2);
            barrier.wait();
            end.find();
            for _ in 0..BLOCKS {
                barrier.wait();
                for _ in 0..ROUNDS {
                    end.await_one();
                    end.cast();
                }
                barrier.wait();
                for position in 0..ROUNDS {
                    there.take(position);
                    back.put(position);
                }
                there.reset();
                barrier.wait();
                end.count(STREAM);
                barrier.wait();
                for position in 0..STREAM {
                    there.take(position);
                }
                there.reset();
                barrier.wait();
            }
        });
        pin(0);
        let mut end = End::open(1);
        barrier.wait();
        end.find();
        let mut times: [Vec<f64>; 4] = Default::default();
        for _ in 0..BLOCKS {
            barrier.wait();
            let round = timed(ROUNDS, || {
                for _ in 0..ROUNDS {
                    end.cast();
                    end.await_one();
                }
            });
            barrier.wait();
            let bare_round = timed(ROUNDS, || {
                for position in 0..ROUNDS {
                    there.put(position);
                    back.take(position);
                }
            });
            back.reset();
            barrier.wait();
            let frame = timed(STREAM, || {
                (0..STREAM).for_each(|_| end.cast_waiting());
                barrier.wait();
            });
            let slot = timed(STREAM, || {
                (0..STREAM).for_each(|position| there.put(position));
                barrier.wait();
            });
            for (all, one) in times.iter_mut().zip([round, bare_round, frame, slot]) {
                all.push(one);
            }
        }
        let ratios = times[0].iter().zip(&times[1]).map(|(shm, bare)| shm / bare).collect::<Vec<_>>();
        println!("{BLOCKS} blocks, nanoseconds (median, first decile; median of ratios by block)");
        let names =
            ["round trip, shm", "round trip, bare slots", "one frame of a stream, shm", "one bare slot"];
        for (name, times) in names.iter().zip(times) {
            println!("{name:28} {:6.1} {:6.1}", quantile(&times, 0.5), quantile(&times, 0.1));
        }
        println!("round trip, shm over bare    {:6.2}", quantile(&ratios, 0.5));
        println!("{:?}", end.transport.counters());
    });
}

/// Nanoseconds for one of `count`.
fn timed(count: u64, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / count as f64
}

/// A member of the view {1, 2}.
struct End {
    transport: Shm,
    channel: Channel,
    payload: [u8; PAYLOAD],
    sum: u64,
}

impl End {
    fn open(incarnation: u64) -> End {
        let member = |n| Member { incarnation: Incarnation(n), address: Address(String::new()) };
        let view = View {
            group: GroupId::named(&format!("shm_raw {}", std::process::id())),
            id: ViewId { counter: 1, coordinator: Incarnation(1) },
            members: vec![member(1), member(2)],
            spec: String::new(),
            wire_version: 1,
            salt: 0,
            frame_bytes: 0,
        };
        let view = LocalView::new(view, Incarnation(incarnation)).expect("a member");
        let mut transport = Shm::new(ShmOptions::default());
        let options = ChannelOptions {
            cast_frames: 1024,
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

fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() as f64 * at) as usize]
}
