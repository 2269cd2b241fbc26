//! Rotary position embedding: what the configuration says of it, and the frequencies that follow.
//!
//! The frequencies are computed operation by operation as transformers does in float32
//! (`modeling_rope_utils.py`), divisions of a number by a tensor as reciprocal times number included, because
//! a target's tokens can hang on their last bit.

use serde::Serialize;

/// Rotary position embedding of a model or of some layers (half rotation, as in Hugging Face checkpoints).
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
    /// Dynamic NTK: the base grows with texts that are longer than the context. Within it nothing changes, and no text here is
    /// longer.
    Dynamic {
        /// By how much the base would grow.
        factor: f64,
    },
    /// YaRN (Peng et al. 2023): low frequencies divided, high ones kept, a ramp over pairs between; scores are scaled too.
    Yarn {
        /// The divisor of the low frequencies.
        factor: f64,
        /// Turns within `original_context` from which on frequencies are kept.
        beta_fast: f64,
        /// Turns within `original_context` up to which they are divided.
        beta_slow: f64,
        /// Positions in pretraining.
        original_context: usize,
        /// True if the ends of the ramp are whole pairs.
        truncate: bool,
        /// What cosines and sines are multiplied by.
        magnitude: f64,
    },
    /// LongRoPE (Ding et al. 2024): every frequency divided by a factor of its own. Texts that are longer than those of pretraining
    /// have other factors, from their first position on.
    LongRope {
        /// The divisors, highest frequency first, above zero.
        short_factors: Vec<f32>,
        /// Those of texts of more tokens than `original_context`.
        long_factors: Vec<f32>,
        /// What cosines and sines are multiplied by.
        magnitude: f64,
        /// Positions in pretraining.
        original_context: usize,
    },
}

/// Frequencies of a rotation, and what its cosines and sines are multiplied by.
#[derive(Debug, Clone, PartialEq)]
pub struct Frequencies {
    /// Inverse frequencies in radians per position, one for each pair that turns, highest first.
    pub inverse: Vec<f32>,
    /// The factor of cosines and sines.
    pub magnitude: f32,
}

impl Rope {
    /// A rotation by powers of `theta`.
    pub fn plain(theta: f64) -> Self {
        Self { theta, scaling: RopeScaling::None }
    }

    /// Tokens of the longest text that turns by [`Self::frequencies`], where longer ones have frequencies of their own.
    pub fn longest_short_text(&self) -> Option<usize> {
        match self.scaling {
            RopeScaling::LongRope { original_context, .. } => Some(original_context),
            _ => None,
        }
    }

    /// The frequencies by which `rotated` values of a head turn, two by two.
    pub fn frequencies(&self, rotated: usize) -> Frequencies {
        self.frequencies_by(rotated, false)
    }

    /// The frequencies in a text that is longer than [`Self::longest_short_text`], where it has others.
    pub fn long_frequencies(&self, rotated: usize) -> Option<Frequencies> {
        self.longest_short_text().map(|_| self.frequencies_by(rotated, true))
    }

    fn frequencies_by(&self, rotated: usize, is_long: bool) -> Frequencies {
        let plain = (0..rotated / 2).map(|pair| {
            let exponent = (2 * pair) as f32 / rotated as f32;
            // In f64 and rounded once: float32 powers of maths libraries are this, but for rare last bits.
            f64::from(self.theta as f32).powf(f64::from(exponent)) as f32
        });
        let inverse = match &self.scaling {
            RopeScaling::LongRope { short_factors, long_factors, .. } => {
                let factors = if is_long { long_factors } else { short_factors };
                plain.zip(factors).map(|(power, factor)| 1.0 / (factor * power)).collect()
            }
            RopeScaling::Yarn { factor, .. } => {
                let ramp = self.ramp(rotated);
                let blend = |(power, ramp): (f32, f32)| {
                    let (kept, divided) = (1.0 / power, 1.0 / (*factor as f32 * power));
                    let share = 1.0 - ramp;
                    divided * (1.0 - share) + kept * share
                };
                plain.zip(ramp).map(blend).collect()
            }
            scaling => plain.enumerate().map(|(pair, power)| scaling.stretch(pair, 1.0 / power)).collect(),
        };
        let magnitude = match self.scaling {
            RopeScaling::Yarn { magnitude, .. } | RopeScaling::LongRope { magnitude, .. } => magnitude as f32,
            _ => 1.0,
        };
        Frequencies { inverse, magnitude }
    }

    /// How far each pair is from being kept, from 0 to 1, by YaRN.
    fn ramp(&self, rotated: usize) -> Vec<f32> {
        let RopeScaling::Yarn { beta_fast, beta_slow, original_context, truncate, .. } = self.scaling else {
            return Vec::new();
        };
        let pair_of = |turns: f64| {
            let positions = original_context as f64 / (turns * 2.0 * std::f64::consts::PI);
            rotated as f64 * positions.ln() / (2.0 * self.theta.ln())
        };
        let (low, high) = (pair_of(beta_fast), pair_of(beta_slow));
        let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(rotated as f64 - 1.0));
        let high = if low == high { high + 0.001 } else { high };
        let place = |pair: usize| (pair as f32 - low as f32) / (high - low) as f32;
        (0..rotated / 2).map(|pair| place(pair).clamp(0.0, 1.0)).collect()
    }

    /// True if its numbers are usable for `rotated` values of a head.
    pub(super) fn fits(&self, rotated: usize) -> bool {
        let positive = |number: f64| number.is_finite() && number > 0.0;
        let are_factors =
            |factors: &[f32]| factors.len() == rotated / 2 && factors.iter().all(|factor| positive(f64::from(*factor)));
        let scaling = match &self.scaling {
            RopeScaling::None => true,
            RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor } => positive(*factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                [*factor, *low_freq_factor, *high_freq_factor, *original_context as f64].into_iter().all(positive)
            }
            RopeScaling::Factors { factors } => are_factors(factors),
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original_context, magnitude, .. } => {
                [*factor, *beta_fast, *beta_slow, *original_context as f64, *magnitude].into_iter().all(positive)
                    && self.theta > 1.0
            }
            RopeScaling::LongRope { short_factors, long_factors, magnitude, original_context } => {
                are_factors(short_factors) && are_factors(long_factors) && positive(*magnitude) && *original_context > 0
            }
        };
        positive(self.theta) && scaling
    }
}

impl RopeScaling {
    /// The frequency of a pair of values, where each one's follows from itself.
    fn stretch(&self, pair: usize, frequency: f32) -> f32 {
        match self {
            Self::None | Self::Dynamic { .. } | Self::Yarn { .. } | Self::LongRope { .. } => frequency,
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
        let found = rope.frequencies(8).inverse;
        assert_eq!(found.len(), 4);
        for (value, expected) in found.iter().zip([1.0f32, 0.1, 0.01, 0.001]) {
            assert!((value - expected).abs() <= expected * 1e-7, "{value} {expected}");
        }
        let linear = Rope { theta: 10_000.0, scaling: RopeScaling::Linear { factor: 4.0 } };
        let quartered: Vec<f32> = found.iter().map(|value| value / 4.0).collect();
        assert_eq!(linear.frequencies(8).inverse, quartered);
    }

    #[test]
    fn llama3_keeps_high_divides_low_and_blends_between() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 128 };
        let plain = Rope { theta: 500_000.0, scaling: RopeScaling::None }.frequencies(16).inverse;
        let scaled = Rope { theta: 500_000.0, scaling }.frequencies(16).inverse;
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
