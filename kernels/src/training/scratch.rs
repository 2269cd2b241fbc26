//! Memory that a thread keeps from call to call.

use std::cell::RefCell;
use std::mem;
use std::ops::{Deref, DerefMut};

use crate::buffer::AlignedBuffer;

thread_local! {
    /// Buffers not in use now: as many as were ever in use at once, which is a few.
    static KEPT: RefCell<Vec<AlignedBuffer>> = const { RefCell::new(Vec::new()) };
}

/// Values that hold anything, from the start of a cache line on; the thread keeps them when they are dropped.
pub(super) struct Scratch {
    buffer: AlignedBuffer,
    len: usize,
}

impl Scratch {
    /// The smallest kept buffer that is long enough, or a new one in place of the longest.
    pub(super) fn new(len: usize) -> Self {
        let buffer = KEPT.with_borrow_mut(|kept| {
            let size = |index: &usize| kept[*index].as_slice().len();
            let fits = (0..kept.len()).filter(|index| size(index) >= len).min_by_key(size);
            let longest = (0..kept.len()).max_by_key(size);
            fits.or(longest).map(|index| kept.swap_remove(index)).filter(|buffer| buffer.as_slice().len() >= len)
        });
        Self { buffer: buffer.unwrap_or_else(|| AlignedBuffer::new(len)), len }
    }
}

impl Deref for Scratch {
    type Target = [f32];
    #[inline(always)]
    fn deref(&self) -> &[f32] {
        &self.buffer.as_slice()[..self.len]
    }
}

impl DerefMut for Scratch {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer.as_mut_slice()[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = mem::replace(&mut self.buffer, AlignedBuffer::new(0));
        // A thread that ends has nowhere to keep it.
        let _ = KEPT.try_with(|kept| kept.borrow_mut().push(buffer));
    }
}
