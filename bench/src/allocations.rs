//! Counts allocations: the benchmarks claim that a message costs none, so they count them.
//!
//! A program that installs [`Counting`] as its global allocator pays one relaxed addition per allocation, to a word that few
//! other threads add to: one for all went from core to core with every allocation of a simulation on two of them. `unsafe`
//! is here because the allocator's trait demands it; every call is passed on unchanged.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

/// A count by itself on its cache lines.
#[repr(align(128))]
struct Apart(AtomicU64);

/// Threads take turns at these.
static ALLOCATIONS: [Apart; COUNTS] = [const { Apart(AtomicU64::new(0)) }; COUNTS];
static THREADS: AtomicUsize = AtomicUsize::new(0);
static INSTALLED: AtomicBool = AtomicBool::new(false);

const COUNTS: usize = 16;

thread_local! {
    /// Which of them is this thread's, once it has allocated.
    static OWN: Cell<usize> = const { Cell::new(COUNTS) };
}

/// Allocations and reallocations of this process so far; `None` if [`Counting`] is not installed.
pub fn allocations() -> Option<u64> {
    // Forces one allocation, which tells whether this allocator is the one in use.
    if !INSTALLED.load(Ordering::Relaxed) {
        drop(std::hint::black_box(Box::new(0_u8)));
    }
    let all = || ALLOCATIONS.iter().map(|count| count.0.load(Ordering::Relaxed)).sum();
    INSTALLED.load(Ordering::Relaxed).then(all)
}

#[inline]
fn count() {
    let own = match OWN.get() {
        COUNTS => first(),
        own => own,
    };
    ALLOCATIONS[own].0.fetch_add(1, Ordering::Relaxed);
}

#[cold]
fn first() -> usize {
    let own = THREADS.fetch_add(1, Ordering::Relaxed) % COUNTS;
    OWN.set(own);
    INSTALLED.store(true, Ordering::Relaxed);
    own
}

// SAFETY: every call goes to the system's allocator with the arguments it came with; counting touches only atomics.
// Attacked by every run of the `wadjet` binary, which allocates through it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the same; the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}
