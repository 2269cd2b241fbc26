//! Attention for training against a naive pass in f64: values, gradients, bits over threads.

use paceline_kernels::{CausalAttention, Kernels};
use proptest::prelude::*;

use crate::common::{all_give_its_bits, all_kernels, bits, reference, values};
use crate::{assert_close, differences, dot, wide};

/// Queries, keys, values and the gradient of the output.
struct Case {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    length: usize,
    first: Vec<u32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    d_out: Vec<f32>,
}

/// Each position's first visible one.
#[derive(Clone, Copy, Debug)]
enum Sight {
    All,
    Window(usize),
    /// Documents that end at multiples of this and of 7.
    Documents(usize),
}

impl Sight {
    fn first(self, row: usize) -> usize {
        match self {
            Self::All => 0,
            Self::Window(size) => (row + 1).saturating_sub(size),
            Self::Documents(len) => (row / len * len).max(row / 7 * 7),
        }
    }
}

impl Case {
    fn new(
        seed: u64,
        (sequences, length): (usize, usize),
        group: usize,
        kv_heads: usize,
        dim: usize,
        sight: Sight,
    ) -> Self {
        let (heads, rows) = (group * kv_heads, sequences * length);
        Self {
            heads,
            kv_heads,
            dim,
            length,
            first: (0..rows).map(|row| sight.first(row % length) as u32).collect(),
            q: values(seed, rows * heads * dim, 2.0),
            k: values(seed ^ 1, rows * kv_heads * dim, 2.0),
            v: values(seed ^ 2, rows * kv_heads * dim, 1.0),
            d_out: values(seed ^ 3, rows * heads * dim, 1.0),
        }
    }

    fn attention(&self) -> CausalAttention<'_> {
        let Self { heads, kv_heads, dim: head_dim, length, .. } = *self;
        CausalAttention { heads, kv_heads, head_dim, length, first: &self.first, scale: self.scale() }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    fn forward(&self, kernels: &Kernels) -> (Vec<f32>, Vec<f32>) {
        let (mut out, mut lse) = (vec![f32::NAN; self.q.len()], vec![f32::NAN; self.first.len() * self.heads]);
        kernels.causal_attention_forward(&self.attention(), &self.q, &self.k, &self.v, &mut out, &mut lse);
        (out, lse)
    }

    /// The gradients of q, k and v.
    fn backward(&self, kernels: &Kernels) -> [Vec<f32>; 3] {
        let (out, lse) = self.forward(kernels);
        let [mut d_q, mut d_k, mut d_v] = [&self.q, &self.k, &self.v].map(|x| vec![f32::NAN; x.len()]);
        let (q, k, v) = (&self.q, &self.k, &self.v);
        kernels.causal_attention_backward(
            &self.attention(),
            q,
            k,
            v,
            &out,
            &lse,
            &self.d_out,
            &mut d_q,
            &mut d_k,
            &mut d_v,
        );
        [d_q, d_k, d_v]
    }

    /// Everything that comes out.
    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let ((out, lse), [d_q, d_k, d_v]) = (self.forward(kernels), self.backward(kernels));
        [out, lse, d_q, d_k, d_v].concat()
    }

    /// Calls `f` with where each row's query head lies, its number, the places of the keys it sees, the probabilities
    /// of these and the logarithm of their sum.
    fn each_row(&self, q: &[f64], k: &[f64], mut f: impl FnMut(usize, usize, &[usize], &[f64], f64)) {
        let group = self.heads / self.kv_heads;
        for (row, first) in self.first.iter().enumerate() {
            let start = row / self.length * self.length;
            for head in 0..self.heads {
                let at = (row * self.heads + head) * self.dim;
                let place = |row: usize| (row * self.kv_heads + head / group) * self.dim;
                let keys: Vec<usize> = (start + *first as usize..=row).map(place).collect();
                let q = &q[at..at + self.dim];
                let score = |key: &usize| (f64::from(self.scale()) * dot(q, &k[*key..key + self.dim])).exp();
                let powers: Vec<f64> = keys.iter().map(score).collect();
                let sum: f64 = powers.iter().sum();
                let probabilities: Vec<f64> = powers.iter().map(|power| power / sum).collect();
                f(at, row * self.heads + head, &keys, &probabilities, sum.ln());
            }
        }
    }

    fn naive_forward(&self, q: &[f64], k: &[f64], v: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; self.first.len() * self.heads]);
        self.each_row(q, k, |at, row, keys, probabilities, log| {
            lse[row] = log;
            for (key, probability) in keys.iter().zip(probabilities) {
                for i in 0..self.dim {
                    out[at + i] += probability * v[key + i];
                }
            }
        });
        (out, lse)
    }

    fn naive_backward(&self) -> [Vec<f64>; 3] {
        let [q, k, v, d_out] = [&self.q, &self.k, &self.v, &self.d_out].map(|x| wide(x));
        let [mut d_q, mut d_k, mut d_v] = [&q, &k, &v].map(|x| vec![0.0; x.len()]);
        let scale = f64::from(self.scale());
        self.each_row(&q, &k, |at, _, keys, probabilities, _| {
            let d_out = &d_out[at..at + self.dim];
            let d_probabilities: Vec<f64> = keys.iter().map(|key| dot(d_out, &v[*key..key + self.dim])).collect();
            let delta = dot(&d_probabilities, probabilities);
            for ((key, probability), d_probability) in keys.iter().zip(probabilities).zip(&d_probabilities) {
                let d_score = scale * probability * (d_probability - delta);
                for i in 0..self.dim {
                    d_q[at + i] += d_score * k[key + i];
                    d_k[key + i] += d_score * q[at + i];
                    d_v[key + i] += probability * d_out[i];
                }
            }
        });
        [d_q, d_k, d_v]
    }

    fn check_forward(&self, kernels: &Kernels) {
        let (out, lse) = self.forward(kernels);
        let (exact_out, exact_lse) = self.naive_forward(&wide(&self.q), &wide(&self.k), &wide(&self.v));
        assert_close(&out, &exact_out, 3e-6, "out");
        assert_close(&lse, &exact_lse, 3e-6, "lse");
    }

    fn check_backward(&self, kernels: &Kernels, exact: &[Vec<f64>; 3]) {
        for ((found, exact), what) in self.backward(kernels).iter().zip(exact).zip(["d_q", "d_k", "d_v"]) {
            assert_close(found, exact, 1e-5, what);
        }
    }
}

#[test]
fn attention_over_blocks_of_queries_and_keys() {
    let (reference, all) = (reference(), all_kernels());
    let cases = [
        Case::new(1, (3, 130), 2, 2, 32, Sight::All),
        Case::new(2, (2, 97), 3, 1, 48, Sight::Window(20)),
        Case::new(3, (2, 64), 1, 3, 64, Sight::Documents(30)),
        Case::new(4, (1, 300), 1, 1, 20, Sight::Window(1)),
        Case::new(5, (2, 220), 1, 2, 16, Sight::Documents(150)),
    ];
    for case in &cases {
        let what = || format!("{} rows of {} heads of {}", case.length, case.heads, case.dim);
        all_give_its_bits(&reference, &all, |kernels| case.run(kernels), what);
        case.check_forward(&reference);
        case.check_backward(&reference, &case.naive_backward());
    }
}

#[test]
fn scores_far_out() {
    let mut case = Case::new(6, (1, 40), 1, 1, 32, Sight::All);
    case.q.iter_mut().for_each(|q| *q *= 300.0);
    for kernels in all_kernels() {
        let out = case.run(&kernels);
        assert!(out.iter().all(|value| value.is_finite()), "{kernels:?}");
        // The first row sees itself alone.
        assert_eq!(out[..32], case.v[..32]);
    }
}

#[test]
fn what_is_not_seen_has_no_influence() {
    // The third document of the second sequence is another; and nothing else changes.
    let kernels = Kernels::new(2).expect("threads start");
    let case = Case::new(7, (3, 60), 2, 2, 32, Sight::Documents(20));
    let mut other = Case::new(7, (3, 60), 2, 2, 32, Sight::Documents(20));
    let changed = 60 + 42..60 + 49;
    for x in [&mut other.k, &mut other.v] {
        for value in &mut x[changed.start * 64..changed.end * 64] {
            *value = 5.0 - *value;
        }
    }
    let (old, new) = (case.run(&kernels), other.run(&kernels));
    let width = case.heads * case.dim;
    for row in 0..180 {
        let same = bits(&old[row * width..][..width]) == bits(&new[row * width..][..width]);
        assert_eq!(same, !changed.contains(&row), "row {row}");
    }
}

fn sight() -> impl Strategy<Value = Sight> {
    prop_oneof![Just(Sight::All), (1_usize..12).prop_map(Sight::Window), (1_usize..20).prop_map(Sight::Documents)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn attention_of_any_shape(
        sequences in 1_usize..3, length in 1_usize..80, group in 1_usize..4, kv_heads in 1_usize..3,
        dim in 1_usize..70, sight in sight(), seed: u64,
    ) {
        let case = Case::new(seed, (sequences, length), group, kv_heads, dim, sight);
        let (reference, all) = (reference(), all_kernels());
        all_give_its_bits(&reference, &all, |kernels| case.run(kernels), || format!("{length} {dim} {sight:?}"));
        case.check_forward(&reference);
        case.check_backward(&reference, &case.naive_backward());
    }

    #[test]
    fn the_gradient_is_that_of_the_differences(
        length in 1_usize..7, group in 1_usize..3, kv_heads in 1_usize..3, dim in 1_usize..6, sight in sight(), seed: u64,
    ) {
        let case = Case::new(seed, (2, length), group, kv_heads, dim, sight);
        let inputs = [wide(&case.q), wide(&case.k), wide(&case.v)].concat();
        let (of_q, of_k) = (case.q.len(), case.k.len());
        let exact = differences(&inputs, |inputs| {
            let (q, rest) = inputs.split_at(of_q);
            let (k, v) = rest.split_at(of_k);
            dot(&case.naive_forward(q, k, v).0, &wide(&case.d_out))
        });
        let exact = [&exact[..of_q], &exact[of_q..of_q + of_k], &exact[of_q + of_k..]].map(<[f64]>::to_vec);
        case.check_backward(&Kernels::new(1).expect("threads start"), &exact);
    }
}
