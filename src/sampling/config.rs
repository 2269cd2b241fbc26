//! The sampling settings of a run, as typed on the command line or in a configuration file, and their ranges.

use serde::{Deserialize, Serialize};

use super::SamplingError;

/// Settings for drawing a token from the logits. The default is greedy decoding with every filter and penalty off.
///
/// The meaning of each field, and the order in which they act, are those of transformers' logits processors;
/// `presence_penalty` is that of the OpenAI interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SamplingConfig {
    /// Divides the logits before the softmax. 0 takes the likeliest token; finite and not negative.
    pub temperature: f32,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of likeliest tokens whose probability reaches this; in (0, 1], 1 keeps all.
    pub top_p: f32,
    /// Keep the tokens that are at least this times as likely as the likeliest; in [0, 1], 0 keeps all.
    pub min_p: f32,
    /// Divides the positive and multiplies the negative logits of tokens seen in prompt or answer; positive, 1 is off.
    pub repetition_penalty: f32,
    /// Subtracted once from the logits of tokens seen in the answer so far; finite, 0 is off.
    pub presence_penalty: f32,
    /// Fixes every random choice: the same seed, prompt and settings give the same answer.
    pub seed: u64,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

impl SamplingConfig {
    /// True if the likeliest token is taken each time, as the model has it: without randomness and penalties.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0 && self.repetition_penalty == 1.0 && self.presence_penalty == 0.0
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// [`SamplingError::OutOfRange`] for the first field that is out of range, NaN or infinite.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let check = |field, value: f32, allowed, holds: bool| {
            if holds && value.is_finite() { Ok(()) } else { Err(SamplingError::OutOfRange { field, value, allowed }) }
        };
        check("temperature", self.temperature, "a finite number that is 0 (greedy) or more", self.temperature >= 0.0)?;
        let top_p_holds = self.top_p > 0.0 && self.top_p <= 1.0;
        check("top-p", self.top_p, "a number above 0 and up to 1 (1 switches it off)", top_p_holds)?;
        let min_p_holds = (0.0..=1.0).contains(&self.min_p);
        check("min-p", self.min_p, "a number from 0 (off) to 1", min_p_holds)?;
        let repetition_holds = self.repetition_penalty > 0.0;
        let allowed = "a finite number above 0 (1 switches it off)";
        check("repetition-penalty", self.repetition_penalty, allowed, repetition_holds)?;
        check("presence-penalty", self.presence_penalty, "a finite number (0 switches it off)", true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut SamplingConfig)) -> String {
        let mut config = SamplingConfig::default();
        change(&mut config);
        config.validate().map_or_else(|error| error.to_string(), |()| String::from("accepted"))
    }

    #[test]
    fn default_is_greedy_and_valid() {
        assert_eq!(SamplingConfig::default().validate(), Ok(()));
        assert_eq!(SamplingConfig::default().temperature, 0.0);
        assert_eq!(refused(|c| c.top_p = f32::MIN_POSITIVE), "accepted");
        assert_eq!(refused(|c| c.min_p = 1.0), "accepted");
        assert_eq!(refused(|c| c.presence_penalty = -1.5), "accepted");
    }

    #[test]
    fn out_of_range_names_field_value_and_range() {
        let sentence = refused(|c| c.temperature = -0.5);
        assert_eq!(
            sentence,
            "The sampling setting temperature is -0.5, but it must be a finite number that is 0 (greedy) or more."
        );
        for value in [f32::NAN, f32::INFINITY, -1.0] {
            assert!(refused(|c| c.temperature = value).contains("temperature is"), "{value}");
        }
        for value in [f32::NAN, 0.0, -0.1, 1.000_1] {
            assert!(refused(|c| c.top_p = value).contains("top-p is"), "{value}");
        }
        for value in [f32::NAN, -0.1, 1.000_1] {
            assert!(refused(|c| c.min_p = value).contains("min-p is"), "{value}");
        }
        for value in [f32::NAN, 0.0, -1.0, f32::INFINITY] {
            assert!(refused(|c| c.repetition_penalty = value).contains("repetition-penalty is"), "{value}");
        }
        for value in [f32::NAN, f32::NEG_INFINITY] {
            assert!(refused(|c| c.presence_penalty = value).contains("presence-penalty is"), "{value}");
        }
    }

    #[test]
    fn fields_are_kebab_case_and_unknown_ones_are_refused() {
        let config: Result<SamplingConfig, _> =
            toml::from_str("temperature = 0.5\ntop-k = 3\nrepetition-penalty = 2.0");
        let expected =
            SamplingConfig { temperature: 0.5, top_k: 3, repetition_penalty: 2.0, ..SamplingConfig::default() };
        assert_eq!(config, Ok(expected));
        assert!(toml::from_str::<SamplingConfig>("top_k = 3").is_err());
    }
}
