//! Perplexity of a model on a text.

use std::sync::Arc;

use crate::model::{Decoder, Sequence};

/// Tokens of a window of which perplexity is measured, at most.
pub const WINDOW: usize = 1024;
/// Rows whose logits are held at once.
const ROWS_AT_ONCE: usize = 64;

/// Perplexity of a text: `exp` of the mean negative log-likelihood of its tokens, each given those before it in
/// its window. Windows are as long as the context, up to [`WINDOW`] tokens, and do not overlap; the first token
/// of each is given, not judged. `progress` hears the tokens done.
pub fn perplexity(decoder: &Arc<Decoder>, tokens: &[u32], progress: &mut dyn FnMut(usize)) -> f64 {
    let window = WINDOW.min(decoder.config().context);
    let mut sequence = Sequence::new(Arc::clone(decoder), window);
    let (mut sum, mut judged) = (0.0, 0_u64);
    for (index, part) in tokens.chunks(window).enumerate() {
        sequence.truncate(0);
        for (at, rows) in part.chunks(ROWS_AT_ONCE).enumerate() {
            let verified = sequence.verify(rows);
            let following = part[at * ROWS_AT_ONCE..].iter().skip(1);
            for (row, next) in (0..rows.len()).zip(following) {
                sum -= log_probability(verified.row(row), *next);
                judged += 1;
            }
        }
        progress(index * window + part.len());
    }
    (sum / judged.max(1) as f64).exp()
}

/// The natural logarithm of the softmax of `logits` at `token`, in f64.
fn log_probability(logits: &[f32], token: u32) -> f64 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    f64::from(logits[token as usize] - largest) - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_are_those_of_the_softmax() {
        let logits = [0.5_f32, -1.0, 3.0];
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        for (token, logit) in logits.iter().enumerate() {
            let expected = (f64::from(*logit).exp() / sum).ln();
            assert!((log_probability(&logits, token as u32) - expected).abs() < 1e-12);
        }
    }
}
