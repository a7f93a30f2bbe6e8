//! Counts allocations: the benchmarks claim that a message costs none, so they count them.
//!
//! A program that installs [`Counting`] as its global allocator pays one relaxed addition per allocation. `unsafe`
//! is here because the allocator's trait demands it; every call is passed on unchanged.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Allocations and reallocations of this process so far; `None` if [`Counting`] is not installed.
pub fn allocations() -> Option<u64> {
    // Forces one allocation, which tells whether this allocator is the one in use.
    if !INSTALLED.load(Ordering::Relaxed) {
        drop(std::hint::black_box(Box::new(0_u8)));
    }
    INSTALLED.load(Ordering::Relaxed).then(|| ALLOCATIONS.load(Ordering::Relaxed))
}

#[inline]
fn count() {
    if ALLOCATIONS.fetch_add(1, Ordering::Relaxed) == 0 {
        INSTALLED.store(true, Ordering::Relaxed);
    }
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
