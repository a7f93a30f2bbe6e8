//! The floor under the shared-memory rows: a bare ring of 64-byte slots with one writer and one reader.
//!
//! Two threads of one process on two cores; the memory between two cores is the same as between two processes. The
//! slots are words of relaxed atomics, which cost what plain stores cost and keep this file free of `unsafe`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wadjet::runtime::pin;

use crate::histogram::{Latencies, LatencySummary, median};
use crate::lines::{self, LineCosts};
use crate::ticks::Ticks;

/// What a bare ring does here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    /// Messages of 64 bytes per second, one way; the median of short blocks.
    pub messages_per_second: f64,
    /// The same through a ring that no cache of a core holds: what is read was written long ago.
    #[serde(default)]
    pub far_messages_per_second: f64,
    /// Round trips of 64 bytes.
    pub round_trip_ns: LatencySummary,
    /// What one cache line costs that goes from core to core.
    #[serde(default)]
    pub lines: LineCosts,
    /// The two cores.
    pub cores: (usize, usize),
}

/// A ring of slots. The writer publishes by the first word of a slot, which holds the number of its message plus one.
struct Ring {
    slots: Box<[Slot]>,
    /// What the reader has read, told once in many messages.
    read: Line,
}

#[repr(align(64))]
#[derive(Default)]
struct Slot([AtomicU64; 8]);

#[repr(align(64))]
#[derive(Default)]
struct Line(AtomicU64);

impl Ring {
    /// Of so many slots, a power of two.
    fn new(slots: usize) -> Ring {
        Ring { slots: (0..slots).map(|_| Slot::default()).collect(), read: Line::default() }
    }

    #[inline]
    fn slot(&self, number: u64) -> &Slot {
        &self.slots[number as usize & (self.slots.len() - 1)]
    }

    /// Writes a message, for which there must be room.
    #[inline]
    fn write(&self, number: u64) {
        let slot = self.slot(number);
        for word in &slot.0[1..] {
            word.store(number, Ordering::Relaxed);
        }
        slot.0[0].store(number + 1, Ordering::Release);
    }

    /// Reads a message, if it is there; all of it.
    #[inline]
    fn read(&self, number: u64) -> bool {
        let slot = self.slot(number);
        let there = slot.0[0].load(Ordering::Acquire) == number + 1;
        if there {
            let sum =
                slot.0[1..].iter().fold(0_u64, |sum, word| sum | (word.load(Ordering::Relaxed) ^ number));
            assert_eq!(sum, 0, "the ring keeps its messages whole");
        }
        there
    }
}

/// Measures for about `time`, on two cores; `None` if there are not two.
pub fn measure(cores: &[usize], time: Duration) -> Option<Floor> {
    let [one, other, ..] = *cores else { return None };
    let blocks = 20;
    let rate = |slots| median((0..blocks).map(|_| stream(slots, one, other, time / (4 * blocks))).collect());
    let (messages_per_second, far_messages_per_second) = (rate(SLOTS), rate(FAR_SLOTS));
    let round_trip_ns = round_trips(one, other, time / 4);
    let lines = lines::measure(one, other, time / 4);
    Some(Floor { messages_per_second, far_messages_per_second, round_trip_ns, lines, cores: (one, other) })
}

fn stream(slots: usize, from: usize, to: usize, time: Duration) -> f64 {
    let (ring, stop, start) =
        (Arc::new(Ring::new(slots)), Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(2)));
    let writer = {
        let (ring, stop, start) = (Arc::clone(&ring), Arc::clone(&stop), Arc::clone(&start));
        thread::spawn(move || {
            drop(pin(from));
            start.wait();
            let (mut number, mut limit) = (0, slots as u64);
            while !stop.load(Ordering::Relaxed) {
                if number < limit {
                    ring.write(number);
                    number += 1;
                } else {
                    limit = ring.read.0.load(Ordering::Acquire) + slots as u64;
                }
            }
        })
    };
    let reader = thread::spawn(move || {
        drop(pin(to));
        start.wait();
        let begun = Instant::now();
        let mut number = 0;
        loop {
            if ring.read(number) {
                number += 1;
                if number % TOLD_EVERY == 0 {
                    ring.read.0.store(number, Ordering::Release);
                    if begun.elapsed() >= time {
                        break;
                    }
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        number as f64 / begun.elapsed().as_secs_f64()
    });
    writer.join().expect("the writer does not panic");
    reader.join().expect("the reader does not panic")
}

fn round_trips(one: usize, other: usize, time: Duration) -> LatencySummary {
    let (there, back, stop) =
        (Arc::new(Ring::new(SLOTS)), Arc::new(Ring::new(SLOTS)), Arc::new(AtomicBool::new(false)));
    let echo = {
        let (there, back, stop) = (Arc::clone(&there), Arc::clone(&back), Arc::clone(&stop));
        thread::spawn(move || {
            drop(pin(other));
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                if there.read(number) {
                    back.write(number);
                    number += 1;
                }
            }
        })
    };
    let pinging = thread::spawn(move || {
        drop(pin(one));
        let (ticks, mut latencies) = (Ticks::new(), Latencies::new());
        let begun = Instant::now();
        let mut number = 0;
        while begun.elapsed() < time {
            for _ in 0..ROUNDS_PER_LOOK {
                let sent = ticks.now();
                there.write(number);
                while !back.read(number) {
                    std::hint::spin_loop();
                }
                latencies.record(ticks.nanoseconds(sent, ticks.now()));
                number += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        latencies.summary()
    });
    let summary = pinging.join().expect("the pinging thread does not panic");
    echo.join().expect("the echo does not panic");
    summary
}

/// 256 KiB: what is in the ring is in the second-level caches of both cores, and comes from one to the other. With 1 MiB, as
/// much as such a cache may be, it depended on chance whether that is so (88 million messages a second) or lines have left
/// it when they are read (434).
const SLOTS: usize = 4096;
/// 64 MiB: lines come from memory or the last cache in order, and ahead of being asked for.
const FAR_SLOTS: usize = 1 << 20;
const TOLD_EVERY: u64 = 64;
const ROUNDS_PER_LOOK: u32 = 100;
