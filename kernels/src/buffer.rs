//! Memory for the kernels: buffers whose start lies on a cache line, and outputs that several threads fill.

use std::alloc::{Layout, alloc_zeroed};
use std::marker::PhantomData;

use crate::allocator::{OutOfMemory, may_fail};

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;
/// f32 values of a cache line.
const LINE_VALUES: usize = LINE / size_of::<f32>();

/// Zeroed f32 values from a cache line's start on: a vector's load then touches one line and not two. Pages
/// that were never written take no memory.
pub(crate) struct AlignedBuffer {
    // An aligned allocation would be zeroed by hand, page by page; a plain one comes zeroed from the system,
    // so skip to a line's start.
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    pub(crate) fn new(len: usize) -> Self {
        Self::of(vec![0.0_f32; len + LINE_VALUES])
    }

    /// As [`AlignedBuffer::new`], where memory may be short.
    pub(crate) fn try_new(len: usize) -> Result<Self, OutOfMemory> {
        let with_line = len.saturating_add(LINE_VALUES);
        let none = OutOfMemory { bytes: with_line.saturating_mul(size_of::<f32>()) };
        let layout = Layout::array::<f32>(with_line).map_err(|_| none)?;
        // SAFETY: there is at least a line of it, so the size is not 0.
        let memory = may_fail(|| unsafe { alloc_zeroed(layout) });
        if memory.is_null() {
            return Err(none);
        }
        // SAFETY: allocated as a vector of so many values is, and zeros are values.
        Ok(Self::of(unsafe { Vec::from_raw_parts(memory.cast(), with_line, with_line) }))
    }

    /// All of `values` but a line.
    fn of(values: Vec<f32>) -> Self {
        let len = values.len() - LINE_VALUES;
        // It may say "impossible" (usize::MAX); alignment is for speed, so start anywhere then.
        let start = values.as_ptr().align_offset(LINE).min(LINE_VALUES);
        Self { values, start, len }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        &self.values[self.start..self.start + self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.len]
    }

    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8] {
        let values = self.as_mut_slice();
        // SAFETY: the slice's memory, all of it initialized, borrowed alone and seen as bytes; any bytes are valid values.
        unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
    }
}

/// Zeroed memory that threads fill together, each its own part: it is reached through its first byte's address alone.
pub(crate) struct SharedMemory {
    first: *mut u8,
    bytes: usize,
    /// Frees it.
    _owner: AlignedBuffer,
}

// SAFETY: it owns plain bytes; `slice_mut` obliges threads to take different ones.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// So many bytes, rounded up to whole f32 values.
    pub(crate) fn try_new(bytes: usize) -> Result<Self, OutOfMemory> {
        let mut owner = AlignedBuffer::try_new(bytes.div_ceil(size_of::<f32>()))?;
        Ok(Self { first: owner.as_mut_bytes().as_mut_ptr(), bytes, _owner: owner })
    }

    /// # Panics
    /// Where the range is not inside.
    #[inline(always)]
    pub(crate) fn slice(&self, start: usize, len: usize) -> &[u8] {
        self.check(start, len);
        // SAFETY: inside of memory that lives as long as `self`; who holds a slice to write to sees to it that nobody reads it.
        unsafe { std::slice::from_raw_parts(self.first.add(start), len) }
    }

    /// # Safety
    /// While the slice lives, no other slice with one of its bytes may be asked for.
    ///
    /// # Panics
    /// Where the range is not inside.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)] // that is what the safety condition is for
    pub(crate) unsafe fn slice_mut(&self, start: usize, len: usize) -> &mut [u8] {
        self.check(start, len);
        // SAFETY: inside of memory that lives as long as `self`, and the caller sees to it that no two overlap.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(start), len) }
    }

    #[inline(always)]
    fn check(&self, start: usize, len: usize) {
        assert!(start <= self.bytes && len <= self.bytes - start, "a part reaches past the memory's end");
    }
}

/// An output that the parts of a job fill, each its own elements.
pub(crate) struct SharedOutput<'a, T = f32> {
    pointer: *mut T,
    len: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` whose elements are handed out to threads; `slice` obliges them to take different ones.
unsafe impl<T: Send> Sync for SharedOutput<'_, T> {}

impl<'a, T> SharedOutput<'a, T> {
    pub(crate) fn new(out: &'a mut [T]) -> Self {
        Self { pointer: out.as_mut_ptr(), len: out.len(), _borrow: PhantomData }
    }

    /// The `len` values from `start` on.
    ///
    /// # Safety
    /// While the slice lives, no other slice with one of its elements may be asked for.
    ///
    /// # Panics
    /// Where the range is not inside the output.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)] // that is what the safety condition is for
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "a part writes past the output's end");
        // SAFETY: inside the borrowed slice, and the caller sees to it that no two overlap.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), len) }
    }
}
