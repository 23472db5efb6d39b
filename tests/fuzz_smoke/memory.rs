//! An allocator that counts what each thread holds.

#![allow(unsafe_code, reason = "an allocator cannot be counted without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

std::thread_local! {
    /// How many bytes the thread has allocated and not freed; less than none if it freed another's.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most of it since it was asked last.
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends may have no cells any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

fn size(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

// SAFETY: whatever is asked for is asked of the system's allocator as it is; the cells neither
// allocate nor have destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        count(size(new) - size(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(old, layout, new) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        count(-size(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Does some work on this thread, and says how many bytes it held at most beyond what was held before.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    MOST.set(before);
    let done = work();
    let most = MOST.get() - before;
    (done, usize::try_from(most).unwrap_or(0))
}

#[test]
fn what_is_held_is_counted() {
    let (kept, most) = measured(|| {
        drop(vec![1_u8; 1_000_000]);
        vec![1_u8; 1_000]
    });
    assert!((1_000_000..1_010_000).contains(&most), "{most}");
    drop(kept);
}
