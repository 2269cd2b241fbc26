//! The vector of sixteen floats that every kernel is written in.
//!
//! A kernel is one generic function over [`Simd`]. Each implementation does the same IEEE operations on the
//! same lanes in the same order (sixteen lanes everywhere: AVX2 uses two registers, the scalar one an array),
//! so a kernel's bits do not depend on the instruction set. Only exact or correctly rounded operations are
//! offered: no reciprocal estimates, no platform `exp`.
//!
//! An implementation is a token of no size. Whoever holds one has proof that the machine has its
//! instructions, which is what makes the methods safe to call.

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Work that runs with an instruction set's code generation switched on, see [`super::isa::Isa::enter`].
pub(crate) trait Op {
    type Output;
    /// Must be `#[inline(always)]`, and so must everything it calls that touches vectors: code inlined into
    /// the entering function may use the instructions, a function of its own may not.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// A token for an instruction set. All methods are lane by lane unless they say otherwise.
pub(crate) trait Simd: Copy {
    type V: Copy;
    /// True if 32 registers hold a vector each.
    const WIDE: bool;
    /// Rows of the largest tile of a product: as many sums as the registers hold.
    const ROWS: usize;

    fn splat(self, value: f32) -> Self::V;
    fn load(self, from: &[f32; LANES]) -> Self::V;
    /// Sixteen little-endian f32 values at any alignment.
    fn load_f32(self, from: &[u8; 4 * LANES]) -> Self::V;
    /// Sixteen little-endian f16 values, widened exactly.
    fn load_f16(self, from: &[u8; 2 * LANES]) -> Self::V;
    /// Sixteen little-endian bf16 values, widened exactly.
    fn load_bf16(self, from: &[u8; 2 * LANES]) -> Self::V;
    /// Sixteen pairs of little-endian bf16 values, widened exactly: the pairs' first ones and their second.
    fn load_bf16_pairs(self, from: &[u8; 4 * LANES]) -> [Self::V; 2];
    /// Sixteen bytes, as numbers of 0 to 255.
    fn load_u8(self, from: &[u8; LANES]) -> Self::V;
    /// Sixteen bytes, as numbers of -128 to 127.
    fn load_i8(self, from: &[u8; LANES]) -> Self::V;
    fn store(self, v: Self::V, to: &mut [f32; LANES]);
    /// Rounded to little-endian f16, to the nearest, to even at ties.
    fn store_f16(self, v: Self::V, to: &mut [u8; 2 * LANES]);

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(self, v: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `if a > b { a } else { b }`, that is `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { a } else { b }`, that is `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger of `most`, which has no signs, and the magnitude of `v`, where infinity is larger than all numbers, and NaN is
    /// larger still.
    fn larger(self, most: Self::V, v: Self::V) -> Self::V;
    /// `p * 2^h * 2^(n-h)` with `n` the low bits of `shifted` above `anchor`'s and `h = n >> 1`: two factors,
    /// because `2^n` itself may be out of range where the product is not.
    fn scale(self, p: Self::V, shifted: Self::V, anchor: f32) -> Self::V;

    /// The sums of four vectors, each by the tree of [`Simd::sum`].
    #[inline(always)]
    fn sum4(self, v: [Self::V; 4]) -> [f32; 4] {
        [self.sum(v[0]), self.sum(v[1]), self.sum(v[2]), self.sum(v[3])]
    }

    /// The maxima of four vectors, each by the tree of [`Simd::max_lane`].
    #[inline(always)]
    fn max4(self, v: [Self::V; 4]) -> [f32; 4] {
        [self.max_lane(v[0]), self.max_lane(v[1]), self.max_lane(v[2]), self.max_lane(v[3])]
    }

    /// The largest magnitude in each of four vectors, by the order of [`Simd::larger`].
    #[inline(always)]
    fn largest4(self, v: [Self::V; 4]) -> [f32; 4] {
        v.map(|v| {
            let mut lanes = [0.0; LANES];
            self.store(self.larger(self.splat(0.0), v), &mut lanes);
            lanes.into_iter().fold(0.0, |a: f32, b| f32::from_bits(a.to_bits().max(b.to_bits())))
        })
    }

    /// The sum over the lanes, by one fixed tree: lane i with lane i+8, then i+4, i+2, i+1.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        tree(lanes, |a, b| a + b)
    }

    /// The maximum over the lanes, by the same tree.
    #[inline(always)]
    fn max_lane(self, v: Self::V) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        tree(lanes, |a, b| if a > b { a } else { b })
    }

    /// At most sixteen values, the missing lanes zero: a tail goes through the same instructions as
    /// everything before it.
    #[inline(always)]
    fn load_tail(self, from: &[f32]) -> Self::V {
        let mut lanes = [0.0; LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    /// The first `to.len()` lanes, at most sixteen.
    #[inline(always)]
    fn store_tail(self, v: Self::V, to: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }

    /// Lane j of vector i becomes lane i of vector j.
    #[inline(always)]
    fn transpose(self, v: [Self::V; LANES]) -> [Self::V; LANES] {
        let mut from = [[0.0; LANES]; LANES];
        for (v, row) in v.into_iter().zip(&mut from) {
            self.store(v, row);
        }
        std::array::from_fn(|i| self.load(&std::array::from_fn(|j| from[j][i])))
    }

    /// The lowest byte of each lane's bits.
    #[inline(always)]
    fn low_bytes(self, v: Self::V) -> [u8; LANES] {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        lanes.map(|lane| lane.to_bits() as u8)
    }

    /// Asks for the cache line at `address`, which need not be inside anything.
    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        let _ = address;
    }
}

#[inline(always)]
fn tree(lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// Plain Rust: the reference for the others, and what machines without AVX2 run.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

impl Simd for Scalar {
    type V = [f32; LANES];
    const WIDE: bool = false;
    const ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        [value; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        *from
    }
    #[inline(always)]
    fn load_f32(self, from: &[u8; 4 * LANES]) -> Self::V {
        each(|i| f32::from_le_bytes([from[4 * i], from[4 * i + 1], from[4 * i + 2], from[4 * i + 3]]))
    }
    #[inline(always)]
    fn load_f16(self, from: &[u8; 2 * LANES]) -> Self::V {
        each(|i| half::f16::from_le_bytes([from[2 * i], from[2 * i + 1]]).to_f32())
    }
    #[inline(always)]
    fn load_bf16(self, from: &[u8; 2 * LANES]) -> Self::V {
        each(|i| f32::from_bits(u32::from(u16::from_le_bytes([from[2 * i], from[2 * i + 1]])) << 16))
    }
    #[inline(always)]
    fn load_bf16_pairs(self, from: &[u8; 4 * LANES]) -> [Self::V; 2] {
        let value = |i: usize, half: usize| {
            let at = 4 * i + 2 * half;
            f32::from_bits(u32::from(u16::from_le_bytes([from[at], from[at + 1]])) << 16)
        };
        [each(|i| value(i, 0)), each(|i| value(i, 1))]
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Self::V {
        from.map(f32::from)
    }
    #[inline(always)]
    fn load_i8(self, from: &[u8; LANES]) -> Self::V {
        from.map(|byte| f32::from(byte.cast_signed()))
    }
    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        *to = v;
    }
    #[inline(always)]
    fn store_f16(self, v: Self::V, to: &mut [u8; 2 * LANES]) {
        for (to, value) in to.as_chunks_mut().0.iter_mut().zip(v) {
            *to = half::f16::from_f32(value).to_le_bytes();
        }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn sqrt(self, v: Self::V) -> Self::V {
        each(|i| v[i].sqrt())
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        each(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn larger(self, most: Self::V, v: Self::V) -> Self::V {
        each(|i| f32::from_bits(most[i].to_bits().max(v[i].to_bits() & 0x7FFF_FFFF)))
    }
    #[inline(always)]
    fn scale(self, p: Self::V, shifted: Self::V, anchor: f32) -> Self::V {
        let power = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
        each(|i| {
            let n = (shifted[i].to_bits() as i32).wrapping_sub(anchor.to_bits() as i32);
            let half = n >> 1;
            p[i] * power(half) * power(n.wrapping_sub(half))
        })
    }
}
