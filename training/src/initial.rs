//! The values that a model begins with.

use paceline::checkpoint::ModelConfig;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Spread of the values of matrices.
const SPREAD: f64 = 0.02;

/// Initial values of a model's tensors by name and shape (Radford et al. 2019): matrices are normal, those that write to
/// the residual stream with less spread the more of them there are; norms are ones, biases zeros. They follow from
/// seed and name alone.
pub fn initial(config: &ModelConfig, seed: u64) -> impl Fn(&str, &[usize]) -> Vec<f32> + use<> {
    let residual = SPREAD / (2.0 * config.layers as f64).sqrt();
    move |name, shape| {
        let len = shape.iter().product();
        if shape.len() == 1 {
            return vec![if name.ends_with(".bias") { 0.0 } else { 1.0 }; len];
        }
        let writes = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
        let spread = if writes { residual } else { SPREAD };
        let stream = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // FNV-1a
        });
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(stream);
        std::iter::repeat_with(|| normal_pair(&mut random))
            .flatten()
            .take(len)
            .map(|value| (value * spread) as f32)
            .collect()
    }
}

/// Two independent normal values (Box and Muller 1958).
fn normal_pair(random: &mut impl Rng) -> [f64; 2] {
    let mut uniform = || ((random.next_u64() >> 11) as f64 + 0.5) * 2.0_f64.powi(-53);
    let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
    [radius * angle.cos(), radius * angle.sin()]
}
