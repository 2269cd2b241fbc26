//! The gated activation that leaves its input as it is, and its gradient.

use crate::Kernels;
use crate::buffer::SharedOutput;
use crate::elementwise::{Activation, gated};
use crate::math::exp;
use crate::simd::{LANES, Op, Simd};

impl Kernels {
    /// `out = silu(gate) * up`, element by element: the bits of [`Kernels::gated`], with `gate` kept for the
    /// gradient.
    ///
    /// # Panics
    /// Where the lengths differ.
    pub fn gated_silu_forward(&self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert_eq!(gate.len(), up.len(), "gate and up have one shape");
        assert_eq!(gate.len(), out.len(), "out has the shape of gate");
        let out = SharedOutput::new(out);
        self.split(gate.len(), LANES, 2 * gate.len(), &|range| {
            // SAFETY: ranges do not overlap.
            let out = unsafe { out.slice(range.start, range.len()) };
            self.isa.enter(Forward { gate: &gate[range.clone()], up: &up[range], out });
        });
    }

    /// The gradient of `silu(gate) * up`: from the gradient `d_out` of the result, `d_gate` and `d_up`, which are
    /// overwritten. All have one shape.
    ///
    /// # Panics
    /// Where the lengths differ.
    pub fn gated_silu_backward(&self, gate: &[f32], up: &[f32], d_out: &[f32], d_gate: &mut [f32], d_up: &mut [f32]) {
        let len = gate.len();
        let lengths = [up.len(), d_out.len(), d_gate.len(), d_up.len()];
        assert!(lengths.iter().all(|other| *other == len), "gate, up and the gradients have one shape");
        let (d_gate, d_up) = (SharedOutput::new(d_gate), SharedOutput::new(d_up));
        self.split(len, LANES, 4 * len, &|range| {
            // SAFETY: ranges do not overlap.
            let (d_gate, d_up) =
                unsafe { (d_gate.slice(range.start, range.len()), d_up.slice(range.start, range.len())) };
            let (gate, up, d_out) = (&gate[range.clone()], &up[range.clone()], &d_out[range]);
            self.isa.enter(Backward { gate, up, d_out, d_gate, d_up });
        });
    }
}

struct Forward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Op for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (gate, gate_tail) = self.gate.as_chunks::<LANES>();
        let (up, up_tail) = self.up.as_chunks::<LANES>();
        let (out, out_tail) = self.out.as_chunks_mut::<LANES>();
        for ((gate, up), out) in gate.iter().zip(up).zip(out) {
            s.store(gated(s, Activation::Silu, s.load(gate), s.load(up)), out);
        }
        if !gate_tail.is_empty() {
            s.store_tail(gated(s, Activation::Silu, s.load_tail(gate_tail), s.load_tail(up_tail)), out_tail);
        }
    }
}

struct Backward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    d_out: &'a [f32],
    d_gate: &'a mut [f32],
    d_up: &'a mut [f32],
}

impl Op for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ((gate, gate_tail), (up, up_tail)) = (self.gate.as_chunks::<LANES>(), self.up.as_chunks::<LANES>());
        let (d_out, d_out_tail) = self.d_out.as_chunks::<LANES>();
        let (d_gate, d_gate_tail) = self.d_gate.as_chunks_mut::<LANES>();
        let (d_up, d_up_tail) = self.d_up.as_chunks_mut::<LANES>();
        for ((((gate, up), d_out), d_gate), d_up) in gate.iter().zip(up).zip(d_out).zip(d_gate).zip(d_up) {
            let (of_gate, of_up) = gradient(s, s.load(gate), s.load(up), s.load(d_out));
            s.store(of_gate, d_gate);
            s.store(of_up, d_up);
        }
        if !gate_tail.is_empty() {
            let (of_gate, of_up) = gradient(s, s.load_tail(gate_tail), s.load_tail(up_tail), s.load_tail(d_out_tail));
            s.store_tail(of_gate, d_gate_tail);
            s.store_tail(of_up, d_up_tail);
        }
    }
}

/// With `z = 1 / (1 + e^-gate)`: `d_gate = d_out up (z + gate z (1 - z))` and `d_up = d_out gate z`.
#[inline(always)]
fn gradient<S: Simd>(s: S, gate: S::V, up: S::V, d_out: S::V) -> (S::V, S::V) {
    let one = s.splat(1.0);
    let decay = exp(s, s.sub(s.splat(0.0), gate));
    let open = s.div(one, s.add(one, decay));
    let silu = s.mul(gate, open);
    let slope = s.fma(silu, s.sub(one, open), open);
    (s.mul(s.mul(d_out, up), slope), s.mul(d_out, silu))
}
