//! What it costs to move one cache line between the two cores: what the bare ring's rate is made of.
//!
//! Two threads take turns. One writes a stretch of lines, the other reads it, so that every line lies in the first one's
//! caches when it is asked for; and the first one writes them again, so that it has to take each from the reader. Lines
//! are read one after the other as the one before says where the next is, in no order that could be foreseen, and then
//! in order, as a ring is read. Cores that have a last-level cache in common get a line from there; between those that
//! have none it takes several times as long, and a ring goes at the pace at which its writer gets lines back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wadjet::runtime::pin;

use crate::histogram::median;
use crate::ticks::Ticks;

/// Nanoseconds for one line, medians.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LineCosts {
    /// One that the other core wrote last, when nothing could be asked for ahead of it: the way from core to core.
    pub chained_ns: f64,
    /// One of many that the other core wrote last, read in order.
    pub read_ns: f64,
    /// One of many that the other core read last, written in order.
    pub write_ns: f64,
    /// One of many that nobody else had meanwhile, read and written in order.
    pub own_ns: (f64, f64),
}

impl LineCosts {
    /// Messages a second through a ring of lines: the reader reads each, the writer takes each back, at the same time, and
    /// the slower of the two is waited for. What instructions take is not in it.
    pub fn ring_messages_per_second(&self) -> f64 {
        1e9 / self.read_ns.max(self.write_ns)
    }

    /// Whether a line comes as fast as from a last-level cache: the two cores have one in common.
    pub fn share_a_cache(&self) -> bool {
        self.chained_ns < SHARED_NS
    }
}

#[repr(align(64))]
#[derive(Default)]
struct Line([AtomicU64; 8]);

/// The lines, and whose turn it is.
struct Field {
    lines: Vec<Line>,
    turn: Turn,
    stop: AtomicBool,
}

#[repr(align(128))]
#[derive(Default)]
struct Turn(AtomicU64);

impl Field {
    fn new() -> Field {
        Field {
            lines: (0..LINES).map(|_| Line::default()).collect(),
            turn: Turn::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Writes every line: where the next is in a walk without visible order, and something else.
    #[inline(never)]
    fn write(&self) {
        for (at, line) in self.lines.iter().enumerate() {
            line.0[0].store(((at * FACTOR + STEP) % LINES) as u64, Ordering::Relaxed);
            for word in &line.0[1..] {
                word.store(at as u64, Ordering::Relaxed);
            }
        }
    }

    #[inline(never)]
    fn walk(&self) -> u64 {
        let mut at = 0;
        for _ in 0..LINES {
            at = self.lines[at as usize].0[0].load(Ordering::Relaxed);
        }
        at
    }

    #[inline(never)]
    fn read(&self) -> u64 {
        self.lines
            .iter()
            .map(|line| line.0.iter().fold(0, |sum, word| sum | word.load(Ordering::Relaxed)))
            .sum()
    }

    /// Waits for turn `turn`; whether it has come.
    fn wait(&self, turn: u64) -> bool {
        while self.turn.0.load(Ordering::Acquire) != turn {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            std::hint::spin_loop();
        }
        true
    }
}

/// Measures for about `time` on two cores.
pub fn measure(one: usize, other: usize, time: Duration) -> LineCosts {
    let (field, start) = (Arc::new(Field::new()), Arc::new(Barrier::new(2)));
    let writer = {
        let (field, start) = (Arc::clone(&field), Arc::clone(&start));
        thread::spawn(move || {
            drop(pin(one));
            let ticks = Ticks::new();
            let (mut writes, mut own_writes) = (Vec::new(), Vec::new());
            start.wait();
            let mut turn = 0;
            while field.wait(turn) {
                writes.push(per_line(&ticks, || field.write()));
                own_writes.push(per_line(&ticks, || field.write()));
                field.turn.0.store(turn + 1, Ordering::Release);
                turn += 2;
            }
            (median(writes), median(own_writes))
        })
    };
    let reader = thread::spawn(move || {
        drop(pin(other));
        let ticks = Ticks::new();
        let (mut chained, mut reads, mut own_reads) = (Vec::new(), Vec::new(), Vec::new());
        start.wait();
        let begun = Instant::now();
        let mut turn = 1;
        while begun.elapsed() < time && field.wait(turn) {
            if turn % 4 == 1 {
                chained.push(per_line(&ticks, || field.walk()));
            } else {
                reads.push(per_line(&ticks, || field.read()));
                own_reads.push(per_line(&ticks, || field.read()));
            }
            field.turn.0.store(turn + 1, Ordering::Release);
            turn += 2;
        }
        field.stop.store(true, Ordering::Relaxed);
        (median(chained), median(reads), median(own_reads))
    });
    let (write_ns, own_write_ns) = writer.join().expect("the writer does not panic");
    let (chained_ns, read_ns, own_read_ns) = reader.join().expect("the reader does not panic");
    LineCosts { chained_ns, read_ns, write_ns, own_ns: (own_read_ns, own_write_ns) }
}

fn per_line<R>(ticks: &Ticks, work: impl FnOnce() -> R) -> f64 {
    let begun = ticks.now();
    std::hint::black_box(work());
    ticks.nanoseconds(begun, ticks.now()) as f64 / LINES as f64
}

/// 256 KiB: as much as the ring, within the second-level cache of a core.
const LINES: usize = 4096;
/// One more than a multiple of four, and an odd number: the walk comes by every line (a full period modulo a power of two),
/// and the ways from line to line are all unlike.
const FACTOR: usize = 1229;
const STEP: usize = 1637;
const _: () = assert!(LINES.is_power_of_two() && FACTOR % 4 == 1 && STEP % 2 == 1);
/// Measured on two virtual cores of a Zen 5 server (22 November 2026), where they lie changing: 14 to 17 and 68 to 75, once 4.
const SHARED_NS: f64 = 35.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_comes_by_every_line_once() {
        let field = Field::new();
        field.write();
        let mut seen = vec![false; LINES];
        let mut at = 0;
        for _ in 0..LINES {
            assert!(!std::mem::replace(&mut seen[at], true), "line {at} twice");
            at = field.lines[at].0[0].load(Ordering::Relaxed) as usize;
        }
        assert_eq!((at, field.walk()), (0, 0));
    }

    #[test]
    fn a_ring_goes_as_fast_as_its_slower_end() {
        let costs = LineCosts { chained_ns: 60.0, read_ns: 8.0, write_ns: 12.5, own_ns: (1.0, 1.0) };
        assert_eq!(costs.ring_messages_per_second(), 80e6);
        assert!(!costs.share_a_cache());
    }
}
