//! A model's answers, and how sure it was of every token of them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use paceline::SamplingConfig;
use paceline::model::{Decoder, Sequence};
use paceline::sampling::Sampler;
use paceline::text::{ChatTemplate, Tokenizer};

use crate::likelihood::entropy;
use crate::tasks::Task;
use crate::tokenizer::check_vocabulary;

/// Prompt tokens that go through the model together.
const PREFILL_CHUNK: usize = 256;
/// An answer with more tokens than twice the right one's and these is cut: it cannot be right any more, and a model that
/// never ends would take hours.
const SPARE_TOKENS: usize = 32;

/// Something that answers prompts.
pub trait Answerer {
    /// The answer to a task's prompt.
    ///
    /// # Errors
    /// When the prompt cannot be answered at all.
    fn answer(&mut self, task: &Task) -> anyhow::Result<Answered>;
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// Its text.
    pub text: String,
    /// Its tokens, the one that ends it included.
    pub tokens: usize,
    /// The entropies in nats of the distributions that they were taken from, summed.
    pub entropy: f64,
    /// True if it was cut off before it ended.
    pub cut: bool,
}

/// A model that takes the likeliest token each time. One pass gives answer and entropies; the tokens are those of
/// `paceline generate`, whatever drafts for it there.
pub struct Greedy {
    decoder: Arc<Decoder>,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    sampler: Sampler,
}

impl Greedy {
    /// A model with the tokenizer and the chat template of `dir`.
    ///
    /// # Errors
    /// When one of them is not there or cannot be used.
    pub fn new(decoder: Arc<Decoder>, dir: &Path) -> anyhow::Result<Self> {
        let template = ChatTemplate::of_model(dir)?.with_context(|| {
            format!(
                "The model {} has no chat template, which task prompts need: take a model with one, or add it to its tokenizer_config.json.",
                dir.display()
            )
        })?;
        let sampler = Sampler::new(&SamplingConfig::default())?;
        let tokenizer = Tokenizer::of_model(dir)?;
        check_vocabulary(dir, &tokenizer, decoder.config())?;
        Ok(Self { decoder, tokenizer, template, sampler })
    }

    /// The tokens of a task's prompt.
    ///
    /// # Errors
    /// When they cannot be made, or leave no room for an answer.
    pub fn prompt(&self, task: &Task) -> anyhow::Result<Vec<u32>> {
        let tokens = self.tokenizer.encode_chat(&self.template.render(&task.messages, true)?)?;
        let context = self.decoder.config().context;
        if tokens.is_empty() || tokens.len() >= context {
            bail!(
                "The prompt of task {} has {} tokens, and the model's context of {context} leaves no room for an answer: \
                 leave the task out, or score a model with a longer context.",
                task.id,
                tokens.len()
            );
        }
        Ok(tokens)
    }
}

impl Answerer for Greedy {
    fn answer(&mut self, task: &Task) -> anyhow::Result<Answered> {
        let mut tokens = self.prompt(task)?;
        let prompt = tokens.len();
        let config = self.decoder.config();
        let right = self.tokenizer.encode_chat(&task.answer)?.len();
        let room = (2 * right + SPARE_TOKENS).min(config.context - prompt);
        let mut sequence = Sequence::new(Arc::clone(&self.decoder), prompt + room);
        sequence.prefill(&tokens[..prompt - 1], PREFILL_CHUNK, |_| true);
        let (mut sum, mut taken, mut cut) = (0.0, 0, true);
        while taken < room && cut {
            let logits = sequence.next_logits(&tokens[tokens.len() - 1..]);
            let next = self.sampler.pick(&logits, &tokens, taken as u64)?;
            sum += entropy(&logits);
            taken += 1;
            cut = !config.stop_tokens.contains(&next);
            if cut {
                tokens.push(next);
            }
        }
        let text = self.tokenizer.decode(&tokens[prompt..], true)?;
        Ok(Answered { text, tokens: taken, entropy: sum, cut })
    }
}
