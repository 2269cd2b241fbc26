//! A plain streaming read: what the memory gives to code that does nothing but read.
//!
//! It is meant to be the fastest that memory allows, as weights are measured against it. It reads the same kind of
//! memory; each thread reads a part of its own, as in a product, in a few streams at once: one stream leaves requests to
//! memory unused (a tenth and more). On an EPYC (Zen 5) with two threads, AVX-512 loads with and without prefetches
//! were at most 2% faster at 269 MB, where memory was the limit, and 6% at 139 MB, where a large last-level cache took
//! part; pages of 4 KB were 7% slower there (2026-11-21).

use std::hint::black_box;
use std::time::Instant;

use paceline_kernels::{PlainMemory, ThreadPool};

use crate::model::DeviceError;

/// Streams that a thread reads at once.
const STREAMS: usize = 3;
/// Bytes of a cache line, the step of a stream.
const LINE: usize = 64;
/// Values of a cache line, and sums of a stream.
const LINE_VALUES: usize = LINE / size_of::<u64>();

/// Memory to read, and the threads that do.
pub(super) struct PlainRead {
    pool: ThreadPool,
    memory: PlainMemory,
}

impl PlainRead {
    /// For reads of `bytes`.
    ///
    /// # Errors
    /// If the threads cannot be started, or there is not enough memory.
    pub(super) fn new(bytes: u64, threads: usize) -> Result<Self, DeviceError> {
        let pool = ThreadPool::new(threads).map_err(DeviceError::Threads)?;
        let memory = PlainMemory::new(bytes as usize).map_err(DeviceError::Memory)?;
        Ok(Self { pool, memory })
    }

    /// Bytes per second of a read that follows `passes` others.
    pub(super) fn bytes_per_second(&self, passes: usize) -> f64 {
        (0..passes).for_each(|_| self.read());
        let started = Instant::now();
        self.read();
        self.memory.as_bytes().len() as f64 / started.elapsed().as_secs_f64()
    }

    fn read(&self) {
        let bytes = self.memory.as_bytes();
        let part = bytes.len().div_ceil(self.pool.threads()).next_multiple_of(LINE);
        self.pool.run(self.pool.threads(), &|index| {
            black_box(sum(bytes.chunks(part).nth(index).unwrap_or_default()));
        });
    }
}

/// The wrapping sum of the 64-bit values of `bytes` and of the bytes after the last whole line, with as many sums side
/// by side as keep the additions from being waited for.
fn sum(bytes: &[u8]) -> u64 {
    let (lines, rest) = bytes.as_chunks::<LINE>();
    let stream = lines.len() / STREAMS;
    let (whole, left) = lines.split_at(STREAMS * stream);
    let streams: [&[[u8; LINE]]; STREAMS] = std::array::from_fn(|index| &whole[index * stream..(index + 1) * stream]);
    let mut sums = [[0_u64; LINE_VALUES]; STREAMS];
    let add = |sums: &mut [u64; LINE_VALUES], line: &[u8; LINE]| {
        for (sum, value) in sums.iter_mut().zip(line.as_chunks().0) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*value));
        }
    };
    for at in 0..stream {
        for (sums, stream) in sums.iter_mut().zip(&streams) {
            add(sums, &stream[at]);
        }
    }
    for line in left {
        add(&mut sums[0], line);
    }
    let rest = rest.iter().map(|byte| u64::from(*byte));
    sums.as_flattened().iter().copied().chain(rest).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte that was left out or read twice would change the sum.
    #[test]
    fn every_byte_is_read_once() {
        for len in [0, 1, 63, 64, 191, 192, 193, 256, 1000, 10_000] {
            let bytes: Vec<u8> = (0..len).map(|index: usize| (index * index + 7 * index + 1) as u8).collect();
            let (lines, rest) = bytes.split_at(len / LINE * LINE);
            let values = lines.chunks(8).map(|value| u64::from_ne_bytes(value.try_into().expect("eight bytes")));
            let expected = values.chain(rest.iter().map(|byte| u64::from(*byte))).fold(0, u64::wrapping_add);
            assert_eq!(sum(&bytes), expected, "{len} bytes");
        }
    }

    #[test]
    fn any_number_of_threads_reads_any_number_of_bytes() {
        for (bytes, threads) in [(1, 1), (8, 3), (1 << 16, 2), (100_001, 4)] {
            let read = PlainRead::new(bytes, threads).expect("threads and memory");
            assert_eq!(read.memory.as_bytes().len() as u64, bytes);
            assert!(read.bytes_per_second(1) > 0.0);
        }
    }
}
