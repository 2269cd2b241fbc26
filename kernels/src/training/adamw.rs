//! One step of AdamW.

use crate::Kernels;
use crate::buffer::SharedOutput;
use crate::simd::{LANES, Op, Simd};

/// Settings of [`Kernels::adamw_step`], which may change from step to step and differ between parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWSettings {
    /// Step size.
    pub learning_rate: f32,
    /// Share of the mean of gradients that is kept at each step, below 1.
    pub beta1: f32,
    /// Share of the mean of squared gradients that is kept at each step, below 1.
    pub beta2: f32,
    /// Added to the root of the squares' mean.
    pub epsilon: f32,
    /// The share of a parameter, times the learning rate, that each step takes away.
    pub weight_decay: f32,
    /// Factor that gradients are multiplied by first: below 1 where a norm is clipped, or where a batch was summed.
    pub gradient_scale: f32,
}

impl Kernels {
    /// One step of AdamW (Loshchilov and Hutter 2019) with bias correction, element by element: `g = gradient_scale *
    /// gradient`, `first = beta1 first + (1 - beta1) g`, `second = beta2 second + (1 - beta2) g^2`, and `parameter =
    /// parameter (1 - learning_rate weight_decay) - learning_rate m / (sqrt(v) + epsilon)` with `m = first / (1 -
    /// beta1^step)` and `v = second / (1 - beta2^step)`.
    ///
    /// Steps are counted from 1; `first` and `second` begin as zeros.
    ///
    /// # Panics
    /// Where the lengths differ or `step` is 0.
    pub fn adamw_step(
        &self,
        parameter: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        settings: &AdamWSettings,
        step: u64,
    ) {
        let len = parameter.len();
        assert!([gradient.len(), first.len(), second.len()] == [len; 3], "all four have one shape");
        assert!(step > 0, "steps are counted from 1");
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(step as f64);
        let rates = Rates {
            scale: settings.gradient_scale,
            kept: 1.0 - settings.learning_rate * settings.weight_decay,
            beta1: settings.beta1,
            beta2: settings.beta2,
            rate: (-f64::from(settings.learning_rate) / correction(settings.beta1)) as f32,
            root: (1.0 / correction(settings.beta2).sqrt()) as f32,
            epsilon: settings.epsilon,
        };
        let (parameter, first, second) =
            (SharedOutput::new(parameter), SharedOutput::new(first), SharedOutput::new(second));
        self.split(len, LANES, 4 * len, &|range| {
            let (at, len) = (range.start, range.len());
            // SAFETY: ranges do not overlap.
            let (parameter, first, second) =
                unsafe { (parameter.slice(at, len), first.slice(at, len), second.slice(at, len)) };
            self.isa.enter(Step { parameter, gradient: &gradient[range], first, second, rates });
        });
    }
}

/// Coefficients that follow from the settings at a step.
#[derive(Clone, Copy)]
struct Rates {
    scale: f32,
    kept: f32,
    beta1: f32,
    beta2: f32,
    /// The learning rate with the first mean's correction, negative.
    rate: f32,
    /// Bias correction of the root of the second mean.
    root: f32,
    epsilon: f32,
}

struct Step<'a> {
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    rates: Rates,
}

impl Op for Step<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (parameter, parameter_tail) = self.parameter.as_chunks_mut::<LANES>();
        let (gradient, gradient_tail) = self.gradient.as_chunks::<LANES>();
        let (first, first_tail) = self.first.as_chunks_mut::<LANES>();
        let (second, second_tail) = self.second.as_chunks_mut::<LANES>();
        for (((p, g), m), v) in parameter.iter_mut().zip(gradient).zip(first).zip(second) {
            let (new_p, new_m, new_v) = step(s, self.rates, s.load(p), s.load(g), s.load(m), s.load(v));
            s.store(new_p, p);
            s.store(new_m, m);
            s.store(new_v, v);
        }
        if !gradient_tail.is_empty() {
            let (p, g) = (s.load_tail(parameter_tail), s.load_tail(gradient_tail));
            let (p, m, v) = step(s, self.rates, p, g, s.load_tail(first_tail), s.load_tail(second_tail));
            s.store_tail(p, parameter_tail);
            s.store_tail(m, first_tail);
            s.store_tail(v, second_tail);
        }
    }
}

#[inline(always)]
fn step<S: Simd>(s: S, rates: Rates, p: S::V, g: S::V, m: S::V, v: S::V) -> (S::V, S::V, S::V) {
    let g = s.mul(g, s.splat(rates.scale));
    let m = s.fma(s.splat(rates.beta1), m, s.mul(s.splat(1.0 - rates.beta1), g));
    let v = s.fma(s.splat(rates.beta2), v, s.mul(s.splat(1.0 - rates.beta2), s.mul(g, g)));
    let size = s.fma(s.sqrt(v), s.splat(rates.root), s.splat(rates.epsilon));
    let p = s.fma(s.splat(rates.rate), s.div(m, size), s.mul(p, s.splat(rates.kept)));
    (p, m, v)
}
