//! Says why an answer ended where a reader of its text cannot see it. `--json` has `finish_reason` for that.

use paceline::{Answer, Engine, FinishReason, GenerationConfig, Quality};

/// A sentence for an answer that is not complete, or empty; `None` for one that the model ended itself or a stop text did.
pub(super) fn sentence(engine: &Engine, config: &GenerationConfig, answer: &Answer) -> Option<String> {
    let floor = config.quality_floor.filter(|_| config.quality == Quality::Bounded);
    let ending = Ending {
        reason: answer.finish_reason,
        prompt: answer.prompt_tokens.len(),
        tokens: answer.tokens.len(),
        is_empty: answer.text.is_empty(),
    };
    ending.sentence(&Allowed {
        context: engine.info().target.context,
        certified: floor.and_then(|floor| engine.calibrated_tokens(floor)),
        is_bounded: config.quality == Quality::Bounded,
        ignores_eos: config.ignore_eos,
    })
}

/// End of an answer.
struct Ending {
    reason: FinishReason,
    /// Tokens of the prompt and of the answer.
    prompt: usize,
    tokens: usize,
    is_empty: bool,
}

/// Facts that decide what may be advised.
struct Allowed {
    /// The model's context, in tokens.
    context: usize,
    /// Tokens that the certificate of a bounded answer allows at most.
    certified: Option<usize>,
    /// True if the answer is of quality `bounded`, which takes neither `--ignore-eos` nor `--stop`.
    is_bounded: bool,
    /// True if `--ignore-eos` is set.
    ignores_eos: bool,
}

impl Ending {
    fn sentence(&self, allowed: &Allowed) -> Option<String> {
        let Self { reason, prompt, tokens, is_empty } = *self;
        let Allowed { context, certified, .. } = *allowed;
        let count = if tokens == 1 { "1 token".to_owned() } else { format!("{tokens} tokens") };
        match reason {
            FinishReason::Cancelled => Some(format!("The answer was cancelled after {count}.")),
            FinishReason::Length if prompt + tokens >= context => Some(format!(
                "The answer ends after {count}, where the model's context of {context} tokens does: shorten the prompt, which \
                 takes {prompt} of them, to leave room."
            )),
            FinishReason::Length => {
                let more = tokens.saturating_mul(2).min(context - prompt);
                Some(match certified {
                    Some(most) if tokens >= most => format!(
                        "The answer ends at the limit of {count}, the most that its certificate allows: `--quality exact \
                         --max-new-tokens {more}` allows more, and gives nothing up."
                    ),
                    most => format!(
                        "The answer ends at the limit of {count}: allow more with `--max-new-tokens {}`.",
                        more.min(most.unwrap_or(more))
                    ),
                })
            }
            FinishReason::Stop if is_empty => Some(allowed.empty(&count)),
            FinishReason::Stop => None,
        }
    }
}

impl Allowed {
    /// The sentence for an answer without text.
    fn empty(&self, count: &str) -> String {
        let reason = match (self.is_bounded, self.ignores_eos) {
            (true, _) => {
                "the model's end of the answer; `--quality exact --ignore-eos` goes on after it, and gives nothing up"
            }
            (false, true) => "a stop text; leave that `--stop` out to go on after it",
            (false, false) => {
                "the model's end of the answer or a stop text; `--ignore-eos` goes on after the model's own"
            }
        };
        format!("The answer is empty: after {count} came {reason}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of an answer to a prompt of 10 tokens, in a context of 1,000.
    fn sentence(reason: FinishReason, tokens: usize, allowed: &Allowed) -> String {
        let ending = Ending { reason, prompt: 10, tokens, is_empty: true };
        ending.sentence(allowed).unwrap_or_default()
    }

    fn allowed(certified: Option<usize>) -> Allowed {
        Allowed { context: 1000, certified, is_bounded: certified.is_some(), ignores_eos: false }
    }

    #[test]
    fn more_tokens_are_advised_as_far_as_they_are_allowed() {
        for (tokens, certified, advice) in [
            (100, None, "tokens: allow more with `--max-new-tokens 200`."),
            (900, None, "`--max-new-tokens 990`."),
            (100, Some(256), "tokens: allow more with `--max-new-tokens 200`."),
            (200, Some(256), "tokens: allow more with `--max-new-tokens 256`."),
            (256, Some(256), "its certificate allows: `--quality exact --max-new-tokens 512` allows more"),
        ] {
            let said = sentence(FinishReason::Length, tokens, &allowed(certified));
            assert!(said.contains(advice), "{tokens} {certified:?}: {said}");
        }
        let said = sentence(FinishReason::Length, 990, &allowed(None));
        assert!(said.contains("shorten the prompt") && !said.contains("--max-new-tokens"), "{said}");
    }

    #[test]
    fn an_empty_answer_is_told_what_may_be_done() {
        let said = |allowed| sentence(FinishReason::Stop, 1, &allowed);
        assert!(
            said(allowed(None)).contains("after 1 token came") && said(allowed(None)).contains("; `--ignore-eos` goes")
        );
        assert!(said(allowed(Some(256))).contains("`--quality exact --ignore-eos` goes on"));
        let ignored = said(Allowed { ignores_eos: true, ..allowed(None) });
        assert!(ignored.contains("`--stop`") && !ignored.contains("--ignore-eos"), "{ignored}");
    }
}
