//! Counts how often a thread asks for memory: work that cannot flake, where time would.

#![allow(unsafe_code, reason = "GlobalAlloc is an unsafe trait; it hands on to the system's allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counted. A test program that counts has it as its `#[global_allocator]`.
#[derive(Debug)]
pub struct CountingAllocator;

// SAFETY: each method does what the system's allocator does with the same arguments. Counting allocates nothing: the
// counter has no destructor, and a thread that has ended is not counted.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

fn count() {
    let _ended = COUNT.try_with(|count| count.set(count.get() + 1));
}

/// What `work` gives, and how often it asked for memory on this thread. Always 0 without [`CountingAllocator`], so a test
/// should see it count something, too.
pub fn allocations<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = COUNT.get();
    let done = work();
    (done, COUNT.get() - before)
}
