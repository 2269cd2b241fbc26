//! The network for one prompt, without tensors.
//!
//! While a model decodes, thirty small tensor operations take five times as long as in a loop of their own, and a prompt may be
//! answered in a few milliseconds. What is computed is [`Network::forward`], to which a test holds it.

use burn::tensor::Tensor;

use crate::features::{Features, NUMBERS};
use crate::network::{LEVELS, Network, Shape};

/// The weights as plain numbers, row-major.
pub(crate) struct Single {
    shape: Shape,
    query: Vec<f32>,
    inside: Vec<f32>,
    inside_bias: Vec<f32>,
    outputs: Vec<f32>,
    outputs_bias: Vec<f32>,
    mean: Vec<f32>,
    scale: Vec<f32>,
}

/// Outputs of the network for one prompt, as [`crate::network::Outputs`].
pub(crate) struct Said {
    pub(crate) difficulty: [f32; LEVELS.len()],
    pub(crate) acceptance: Vec<f32>,
    pub(crate) loss: Vec<f32>,
    pub(crate) length: f32,
}

impl Single {
    pub(crate) fn new(network: &Network) -> Self {
        let values = |tensor: &Tensor<2>| tensor.clone().into_data().try_into_vec::<f32>().unwrap_or_default();
        let [query, inside, inside_bias, outputs, outputs_bias, mean, scale] = network.weights().map(values);
        Self { shape: network.shape(), query, inside, inside_bias, outputs, outputs_bias, mean, scale }
    }

    /// Outputs for a prompt whose states are of the width that it reads.
    pub(crate) fn say(&self, prompt: &Features) -> Said {
        let Shape { width, queries, drafters, .. } = self.shape;
        let mut inside = self.inside_bias.clone();
        let mut weights = self.inside.chunks_exact(inside.len());
        let mut take = |value: f32| {
            // As many rows as there are inputs.
            if let Some(row) = weights.next() {
                inside.iter_mut().zip(row).for_each(|(sum, weight)| *sum += value * weight);
            }
        };
        // A row's root mean square becomes 1.
        let rows = || prompt.states.chunks_exact(width);
        let scales: Vec<f32> = rows().map(|row| 1.0 / (dot(row, row) / width as f32 + 1e-6).sqrt()).collect();
        for query in self.query.chunks_exact(width).take(queries) {
            let scores = rows().zip(&scales).map(|(row, scale)| dot(row, query) * scale / (width as f32).sqrt());
            let scores: Vec<f32> = scores.collect();
            let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f32> = scores.iter().map(|score| (score - highest).exp()).collect();
            let sum: f32 = powers.iter().sum();
            let mut pooled = vec![0.0; width];
            for ((row, scale), power) in rows().zip(&scales).zip(&powers) {
                let share = power / sum * scale;
                pooled.iter_mut().zip(row).for_each(|(sum, value)| *sum += share * value);
            }
            pooled.into_iter().for_each(&mut take);
        }
        let is_known = |value: &f32| value.is_finite();
        let numbers =
            prompt.numbers.iter().zip(&self.mean).map(|(value, mean)| if is_known(value) { value - mean } else { 0.0 });
        let missing = prompt.numbers.iter().map(|value| f32::from(u8::from(!is_known(value))));
        numbers.chain(missing).zip(&self.scale).for_each(|(value, scale)| take(value * scale));
        debug_assert_eq!(self.scale.len(), 2 * NUMBERS.len());
        let mut outputs = self.outputs_bias.clone();
        for (value, row) in inside.iter().zip(self.outputs.chunks_exact(outputs.len())) {
            let value = value / (1.0 + (-value).exp());
            outputs.iter_mut().zip(row).for_each(|(sum, weight)| *sum += value * weight);
        }
        let (difficulty, rest) = outputs.split_at(LEVELS.len());
        let (acceptance, rest) = rest.split_at(drafters);
        Said {
            difficulty: std::array::from_fn(|class| difficulty[class]),
            acceptance: acceptance.to_vec(),
            loss: rest[..rest.len() - 1].to_vec(),
            length: rest[rest.len() - 1],
        }
    }
}

/// The product of two rows, in several sums so that they can be vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    use super::*;
    use crate::network::Batch;

    /// Numbers that look random, from -1 to 1.
    fn noise(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed.wrapping_mul(2) + 1;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn one_prompt_by_itself_gets_what_it_gets_among_others(
            seed in 0_u64..1 << 40, width in 1_usize..70, queries in 1_usize..4, inside in 1_usize..20,
            drafters in 0_usize..5, lossy in 0_usize..4, rows in prop::collection::vec(0_usize..9, 1..4),
            absent in prop::collection::vec(any::<bool>(), NUMBERS.len()),
        ) {
            let shape = Shape { width, queries, inside, drafters, lossy };
            let mut noise = noise(seed);
            let device = Device::flex();
            let sizes = shape.tensors();
            let network = Network::new(shape, |name| {
                let size = sizes.iter().find(|(known, _)| *known == name).map_or([1, 1], |(_, size)| *size);
                let values: Vec<f32> = (0..size[0] * size[1]).map(|_| noise()).collect();
                Tensor::from_data(TensorData::new(values, size), &device)
            });
            let prompts: Vec<Features> = rows.iter().map(|rows| {
                let mut prompt = Features::new((0..rows * width).map(|_| 3.0 * noise()).collect(), width);
                prompt.numbers.iter_mut().zip(&absent).for_each(|(value, absent)| *value = if *absent { f32::NAN } else { noise() });
                prompt
            }).collect();
            let outputs = network.forward(Batch::new(&prompts.iter().collect::<Vec<_>>(), &device));
            let values = |tensor: Tensor<2>| tensor.into_data().try_into_vec::<f32>().unwrap_or_default();
            let single = Single::new(&network);
            let all = [values(outputs.difficulty), values(outputs.acceptance), values(outputs.loss), values(outputs.length)];
            for (place, prompt) in prompts.iter().enumerate() {
                let said = single.say(prompt);
                let own = [said.difficulty.to_vec(), said.acceptance, said.loss, vec![said.length]];
                for (own, all) in own.iter().zip(&all) {
                    let expected = &all[place * own.len()..(place + 1) * own.len()];
                    let near = own.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 1e-3 * (1.0 + b.abs()));
                    prop_assert!(near, "{own:?} {expected:?}");
                }
            }
        }
    }
}
