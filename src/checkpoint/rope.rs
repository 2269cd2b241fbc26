//! Rotary position embedding: what the configuration says of it, and the frequencies that follow.
//!
//! The frequencies are computed operation by operation as transformers does in float32
//! (`modeling_rope_utils.py`), divisions of a number by a tensor as reciprocal times number included, because
//! a target's tokens can hang on their last bit.

use serde::Serialize;

/// Rotary position embedding of a model (half rotation, as in Hugging Face checkpoints).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Scaling of the frequencies for a longer context.
    pub scaling: RopeScaling,
}

/// Scaling of rotary frequencies for a longer context than the one of pretraining.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// Not at all (`default`).
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a smooth passage between.
    Llama3 {
        /// The divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_context / low_freq_factor` are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths below `original_context / high_freq_factor` are high frequencies.
        high_freq_factor: f64,
        /// Positions in pretraining.
        original_context: usize,
    },
    /// Every frequency divided by a factor of its own, highest frequency first, as GGUF files list them.
    Factors {
        /// The divisors, above zero.
        factors: Vec<f32>,
    },
}

impl Rope {
    /// The `head_dim / 2` inverse frequencies, in radians per position, highest first.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2)
            .map(|pair| {
                let exponent = (2 * pair) as f32 / head_dim as f32;
                // In f64 and rounded once: float32 powers of maths libraries are this, but for rare last bits.
                let power = f64::from(self.theta as f32).powf(f64::from(exponent)) as f32;
                self.scaling.stretch(pair, 1.0 / power)
            })
            .collect()
    }
}

impl RopeScaling {
    /// The frequency of a pair of values.
    fn stretch(&self, pair: usize, frequency: f32) -> f32 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / *factor as f32,
            Self::Factors { factors } => frequency / factors.get(pair).copied().unwrap_or(1.0),
            &Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                let context = original_context as f64;
                let longest = (context / low_freq_factor) as f32;
                let shortest = (context / high_freq_factor) as f32;
                let wavelength = (1.0 / frequency) * (2.0 * std::f64::consts::PI) as f32;
                if wavelength > longest {
                    frequency / factor as f32
                } else if wavelength < shortest {
                    frequency
                } else {
                    let smooth = ((1.0 / wavelength) * context as f32 - low_freq_factor as f32)
                        / (high_freq_factor - low_freq_factor) as f32;
                    (1.0 - smooth) * frequency / factor as f32 + smooth * frequency
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_frequencies_are_powers_of_theta() {
        let rope = Rope { theta: 10_000.0, scaling: RopeScaling::None };
        let found = rope.inverse_frequencies(8);
        assert_eq!(found.len(), 4);
        for (value, expected) in found.iter().zip([1.0f32, 0.1, 0.01, 0.001]) {
            assert!((value - expected).abs() <= expected * 1e-7, "{value} {expected}");
        }
        let linear = Rope { theta: 10_000.0, scaling: RopeScaling::Linear { factor: 4.0 } };
        let quartered: Vec<f32> = found.iter().map(|value| value / 4.0).collect();
        assert_eq!(linear.inverse_frequencies(8), quartered);
    }

    #[test]
    fn llama3_keeps_high_divides_low_and_blends_between() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 128 };
        let plain = Rope { theta: 500_000.0, scaling: RopeScaling::None }.inverse_frequencies(16);
        let scaled = Rope { theta: 500_000.0, scaling }.inverse_frequencies(16);
        let wavelengths: Vec<f32> = plain.iter().map(|f| std::f32::consts::TAU / f).collect();
        let mut kinds = [0; 3];
        for ((p, s), w) in plain.iter().zip(&scaled).zip(&wavelengths) {
            if *w < 32.0 {
                kinds[0] += 1;
                assert_eq!(p, s);
            } else if *w > 128.0 {
                kinds[1] += 1;
                assert_eq!(*s, p / 8.0);
            } else {
                kinds[2] += 1;
                let smooth = (128.0 / w - 1.0) / 3.0;
                let blend = (1.0 - smooth) * p / 8.0 + smooth * p;
                assert!((s - blend).abs() <= blend * 1e-6);
            }
        }
        assert_eq!(kinds, [1, 6, 1]);
    }
}
