//! Says why an answer ended where a reader of its text cannot see it. `--json` has `finish_reason` for that.

use paceline::{Answer, FinishReason};

/// A sentence for an answer that is not complete, or empty; `None` for one that the model ended itself or a stop text did.
/// `context` is the model's, in tokens.
pub(super) fn sentence(answer: &Answer, context: usize) -> Option<String> {
    let (prompt, tokens) = (answer.prompt_tokens.len(), answer.tokens.len());
    let count = if tokens == 1 { "1 token".to_owned() } else { format!("{tokens} tokens") };
    match answer.finish_reason {
        FinishReason::Cancelled => Some(format!("The answer was cancelled after {count}.")),
        FinishReason::Length if prompt + tokens >= context => Some(format!(
            "The answer ends after {count}, where the model's context of {context} tokens does: shorten the prompt, which \
             takes {prompt} of them, to leave room."
        )),
        FinishReason::Length => Some(format!(
            "The answer ends at the limit of {count}: allow more with `--max-new-tokens {}`.",
            tokens.saturating_mul(2).min(context - prompt)
        )),
        FinishReason::Stop if answer.text.is_empty() => Some(format!(
            "The answer is empty: after {count} came the model's end of the answer or a stop text; `--ignore-eos` goes on \
             after the model's own."
        )),
        FinishReason::Stop => None,
    }
}
