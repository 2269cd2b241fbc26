//! Quality of text prediction: nats a token, bits a byte.
//!
//! A model and a baseline are both functions from a document to what its tokens were worth, so that they are compared
//! on exactly the same tokens.

use std::sync::Arc;

use paceline::model::{Decoder, Sequence};
use serde::Serialize;

use crate::tokenizer::{ChatTokenizer, TokenizerError};
use crate::tokens::{Document, PROMPT};

/// Rows whose logits are held at once.
const ROWS_AT_ONCE: usize = 64;

/// Loss over some tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Loss {
    /// Negative log-likelihoods, summed.
    pub nats: f64,
    /// Tokens that were predicted, ends of texts and answers included.
    pub tokens: u64,
    /// Bytes of the text that they stand for.
    pub bytes: u64,
}

impl Loss {
    /// The mean over tokens.
    pub fn nats_per_token(&self) -> f64 {
        self.nats / self.tokens.max(1) as f64
    }

    /// The mean over bytes, which does not depend on the tokenizer.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes.max(1) as f64
    }
}

/// Adds up what `predict` makes of some documents: for every token but the first, the natural logarithm of its
/// probability given those before it. Tokens of prompts are given, not judged. `progress` hears the tokens done.
///
/// # Errors
/// When the tokenizer cannot say which text the tokens stand for.
pub fn measure<'a>(
    documents: impl Iterator<Item = Document<'a>>,
    tokenizer: &ChatTokenizer,
    predict: &mut dyn FnMut(&[u16]) -> Vec<f64>,
    progress: &mut dyn FnMut(u64),
) -> Result<Loss, TokenizerError> {
    let mut loss = Loss::default();
    let mut done = 0;
    for document in documents {
        let logs = predict(document.tokens);
        let predicted = document.tokens.iter().zip(document.learn).skip(1).zip(logs);
        let judged: Vec<(u32, f64)> = predicted
            .filter(|((_, class), _)| **class != PROMPT)
            .map(|((&token, _), log)| (u32::from(token), log))
            .collect();
        let ids: Vec<u32> = judged.iter().map(|judged| judged.0).collect();
        loss.nats -= judged.iter().map(|judged| judged.1).sum::<f64>();
        loss.tokens += judged.len() as u64;
        loss.bytes += tokenizer.tokenizer().decode(&ids, true)?.len() as u64;
        done += document.tokens.len() as u64;
        progress(done);
    }
    Ok(loss)
}

/// Log-likelihoods in nats of a document's tokens under a model, for [`measure`]. A document longer than the model's
/// context is begun anew where the context ends.
pub fn of_model(decoder: &Arc<Decoder>, tokens: &[u16]) -> Vec<f64> {
    let tokens: Vec<u32> = tokens.iter().map(|&token| u32::from(token)).collect();
    let rows = tokens.len().saturating_sub(1);
    let window = decoder.config().context.min(rows).max(1);
    let mut sequence = Sequence::new(Arc::clone(decoder), window);
    let mut logs = Vec::with_capacity(rows);
    for part in tokens[..rows].chunks(window) {
        sequence.truncate(0);
        for part in part.chunks(ROWS_AT_ONCE) {
            let verified = sequence.verify(part);
            for row in 0..part.len() {
                let (logits, next) = (verified.row(row), tokens[logs.len() + 1]);
                logs.push(f64::from(logits[next as usize]) - log_sum_exp(logits));
            }
        }
    }
    logs
}

/// The entropy in nats of the softmax of `logits`. NaN if a logit is NaN.
pub fn entropy(logits: &[f32]) -> f64 {
    let sum = log_sum_exp(logits);
    let term = |logit: &f32| {
        let log = f64::from(*logit) - sum;
        // A token that cannot come adds nothing, although its logarithm is infinite.
        if log == f64::NEG_INFINITY { 0.0 } else { log * log.exp() }
    };
    -logits.iter().map(term).sum::<f64>()
}

/// The logarithm of the sum of `exp` of the logits, in f64.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = f64::from(logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b)));
    largest + logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropies_are_those_worked_out_by_hand() {
        let near = |logits: &[f32], expected: f64| {
            let found = entropy(logits);
            assert!((found - expected).abs() < 1e-6, "{logits:?}: {found} instead of {expected}");
        };
        near(&[7.0; 8], 8_f64.ln());
        // Probabilities 1/2, 1/4, 1/8, 1/8: 1.75 bits.
        let logits = [0.5_f32, 0.25, 0.125, 0.125].map(|p| 900.0 + p.ln());
        assert!((entropy(&logits) - 1.75 * std::f64::consts::LN_2).abs() < 1e-3, "{}", entropy(&logits));
        let logits = [0.5_f32, 0.25, 0.125, 0.125].map(f32::ln);
        near(&logits, 1.75 * std::f64::consts::LN_2);
        near(&[3.0, f32::NEG_INFINITY, 3.0], 2_f64.ln());
        near(&[100.0, 0.0], 0.0);
        assert!(entropy(&[1.0, f32::NAN]).is_nan());
    }

    #[test]
    fn a_bit_for_every_byte_is_one_bit_a_byte() {
        let loss = Loss { nats: 800.0 * std::f64::consts::LN_2, tokens: 200, bytes: 800 };
        assert!((loss.bits_per_byte() - 1.0).abs() < 1e-12);
        assert!((loss.nats_per_token() - 4.0 * std::f64::consts::LN_2).abs() < 1e-12);
    }
}
