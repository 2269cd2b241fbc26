//! A tokenizer with its chat template: training data becomes tokens by the same code that prompts do when a model
//! answers, so that training and answering see the same ids.

use std::path::{Path, PathBuf};

use paceline::Message;
use paceline::checkpoint::ModelConfig;
use paceline::checkpoint::metadata_of;
use paceline::files;
use paceline::text::{ChatTemplate, TextError, Tokenizer};

use super::learn::LARGEST_VOCABULARY;
use super::save::BEGIN;
use crate::checksum::Checksum;
use crate::settings::ModelRecipe;

/// Bytes of a tokenizer's file at most, as they are read when it is used.
const LARGEST_FILE: u64 = 256 << 20;

/// Why a tokenizer cannot make training data.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// It is not there, or failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// It was not made yet.
    #[error("There is no tokenizer in {} yet: run `paceline-train tokenizer` first.", dir.display())]
    Absent {
        /// The folder.
        dir: PathBuf,
    },
    /// Tokens are stored as 16-bit numbers.
    #[error(
        "The tokenizer in {} has {vocabulary} tokens, and training data can hold at most 65536: choose another one.",
        dir.display()
    )]
    Large {
        /// The folder.
        dir: PathBuf,
        /// Tokens it has.
        vocabulary: usize,
    },
    /// It names no token that ends a text.
    #[error(
        "The tokenizer in {} names no `eos_token`, so a model could not learn to stop: name one in tokenizer_config.json.",
        dir.display()
    )]
    NoEnd {
        /// The folder.
        dir: PathBuf,
    },
    /// There are conversations, but no template.
    #[error("The tokenizer in {} has no chat template, which conversations need: add one to tokenizer_config.json.", dir.display())]
    NoTemplate {
        /// The folder.
        dir: PathBuf,
    },
    /// The template does not append an answer to what it begins an answer with.
    #[error(
        "The chat template in {} writes the same conversation in another way once the answer is there, so a model cannot \
         learn answers from it: repair the template.",
        dir.display()
    )]
    NoPrefix {
        /// The folder.
        dir: PathBuf,
    },
}

/// A tokenizer for training data, with at most 65536 tokens.
#[derive(Debug)]
pub struct ChatTokenizer {
    dir: PathBuf,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    end: u16,
    hash: u64,
}

/// A conversation as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The prompt as a model gets it, and behind it the answer with its end.
    pub tokens: Vec<u16>,
    /// The number of tokens that are the prompt's.
    pub prompt: usize,
}

impl ChatTokenizer {
    /// Opens the tokenizer of a model directory, or one that the step `tokenizer` made.
    ///
    /// # Errors
    /// When it is not there, is damaged, has too many tokens or none that ends a text.
    pub fn open(dir: &Path) -> Result<Self, TokenizerError> {
        let own = || dir.to_owned();
        let tokenizer = Tokenizer::of_model(dir).map_err(|error| match error {
            TextError::NoTokenizer { .. } if !dir.join("config.json").exists() => TokenizerError::Absent { dir: own() },
            error => error.into(),
        })?;
        let vocabulary = tokenizer.vocab_size();
        if vocabulary > LARGEST_VOCABULARY {
            return Err(TokenizerError::Large { dir: own(), vocabulary });
        }
        let end = tokenizer.end().and_then(|end| u16::try_from(end).ok());
        let mut hash = Checksum::default();
        if let Some(metadata) = metadata_of(dir).map_err(TextError::from)? {
            hash.update(metadata.bytes());
        }
        for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"] {
            // Each of them may change what a text becomes. One that cannot be read was refused above.
            hash.text(&files::read_text(&dir.join(name), LARGEST_FILE).unwrap_or_default());
        }
        Ok(Self {
            end: end.ok_or_else(|| TokenizerError::NoEnd { dir: own() })?,
            template: ChatTemplate::of_model(dir)?,
            hash: hash.finish(),
            dir: own(),
            tokenizer,
        })
    }

    /// The tokenizer itself.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The token that ends texts and answers.
    pub fn end(&self) -> u16 {
        self.end
    }

    /// The config of a model of this shape with these tokens, the special ones included, and a context of `context`.
    pub fn model_config(&self, recipe: &ModelRecipe, context: usize) -> ModelConfig {
        ModelConfig {
            stop_tokens: vec![u32::from(self.end)],
            bos_token: self.tokenizer.id_of(BEGIN),
            ..recipe.shape(self.tokenizer.vocab_size(), context)
        }
    }

    /// A hash of everything that decides what a text or a conversation becomes.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The tokens of a text as a prompt has them, with what the tokenizer puts around it.
    ///
    /// # Errors
    /// When the tokenizer fails on it.
    pub fn text(&self, text: &str) -> Result<Vec<u16>, TokenizerError> {
        self.narrow(&self.tokenizer.encode(text)?)
    }

    /// The tokens of a conversation with its answer, by the chat template: up to the answer those that a model gets
    /// when it is asked.
    ///
    /// # Errors
    /// When there is no template, or it refuses the messages, or does not keep to what it began.
    pub fn conversation(&self, messages: &[Message], answer: &str) -> Result<Conversation, TokenizerError> {
        let template = self.template.as_ref().ok_or_else(|| TokenizerError::NoTemplate { dir: self.dir.clone() })?;
        let prompt = self.tokenizer.encode_chat(&template.render(messages, true)?)?;
        let answer = Message::new("assistant", answer.to_owned());
        let whole = [messages, &[answer]].concat();
        let tokens = self.tokenizer.encode_chat(&template.render(&whole, false)?)?;
        if !tokens.starts_with(&prompt) {
            return Err(TokenizerError::NoPrefix { dir: self.dir.clone() });
        }
        Ok(Conversation { tokens: self.narrow(&tokens)?, prompt: prompt.len() })
    }

    /// Ids as 16-bit numbers, which all ids of this vocabulary are.
    fn narrow(&self, ids: &[u32]) -> Result<Vec<u16>, TokenizerError> {
        let large = |_| TokenizerError::Large { dir: self.dir.clone(), vocabulary: self.tokenizer.vocab_size() };
        ids.iter().map(|&id| u16::try_from(id).map_err(large)).collect()
    }
}
