//! The engine: loads once, answers many prompts.
//!
//! One thread decodes ([`worker`]); requests reach it through a queue and answers come back through a channel
//! ([`stream`]), so an engine serves blocking code and asynchronous code alike.

mod answer_report;
mod answering;
mod error;
mod importance;
mod loading;
mod queue;
mod stream;
mod variant;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use paceline_kernels::PAGE_POSITIONS;
use tokio::sync::mpsc as channel;

pub use error::Error;
pub use stream::{Canceller, Event, Generation};

use crate::certificate::Certificates;
use crate::config::{EngineConfig, GenerationConfig, Quality};
use crate::drafters::DrafterChoice;

use crate::answer::Prompt;
use crate::info::{EngineInfo, RouterState};
use crate::journal::{self, AdaptationStats, JournalError, Period};
use crate::lossy::{self, Capabilities};
use crate::model::KvPool;
use crate::routing::RequestHints;
use crate::speculation::MAX_DRAFT;
use crate::text::{ChatTemplate, Tokenizer};
use loading::Loaded;
use queue::Queue;
use worker::Job;

/// A stage of loading, for showing progress.
#[derive(Clone, Debug)]
pub struct LoadProgress<'a> {
    /// The directory being loaded.
    pub directory: &'a Path,
    /// Layers placed.
    pub done: usize,
    /// Layers of the model.
    pub total: usize,
}

/// A loaded target with what drafts for it. Dropping it waits for the answers that were asked for, unless they were dropped, and
/// for what was learned from them to be written; [`Engine::close`] says whether it was.
pub struct Engine {
    info: EngineInfo,
    certificates: Certificates,
    tokenizer: Arc<Tokenizer>,
    /// The chat template, or why it cannot be used: only messages need it.
    template: Result<Option<Arc<ChatTemplate>>, String>,
    /// The way to the thread that decodes, and the thread; `None` while it is being dropped.
    queue: Arc<Queue>,
    thread: Option<JoinHandle<Vec<String>>>,
    /// Pages that a model's pool may have.
    pool_pages: usize,
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Whoever wants to know what it says calls `close`.
        let _ = self.end();
    }
}

impl Engine {
    /// Loads target and draft models.
    ///
    /// # Errors
    /// A sentence that says which file is wrong and why, or which setting cannot be met.
    ///
    /// ```no_run
    /// use paceline::{Engine, EngineConfig, GenerationConfig, Prompt};
    ///
    /// let engine = Engine::load(&EngineConfig::new("path/to/model"))?;
    /// let answer = engine.generate(Prompt::Text("Once upon a time".into()), &GenerationConfig::default())?.finish()?;
    /// println!("{} ({} tokens per step)", answer.text, answer.report.speculation.tokens_per_step);
    /// # Ok::<(), paceline::Error>(())
    /// ```
    pub fn load(config: &EngineConfig) -> Result<Self, Error> {
        Self::load_with_progress(config, &mut |_| {})
    }

    /// Loads target and draft models and reports after every layer.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_with_progress(
        config: &EngineConfig,
        progress: &mut dyn FnMut(LoadProgress<'_>),
    ) -> Result<Self, Error> {
        let Loaded { info, certificates, tokenizer, template, worker } = loading::load(config, progress)?;
        let queue = Arc::new(Queue::new());
        let jobs = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name("paceline-decode".into())
            .spawn(move || worker.serve(&jobs))
            .map_err(crate::model::DeviceError::Threads)?;
        let pool_pages = config.pool_pages();
        Ok(Self { info, certificates, tokenizer, template, queue, thread: Some(thread), pool_pages })
    }

    /// Ends the engine as dropping it does, and gives the sentences that no answer told any more: that what was learned while
    /// serving could not be kept.
    #[must_use]
    pub fn close(mut self) -> Vec<String> {
        self.end()
    }

    fn end(&mut self) -> Vec<String> {
        // A closed queue ends the thread.
        self.queue.close();
        // What went wrong in answers was told to whom it concerned.
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }

    /// Facts about the loaded models and the engine's settings.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// The target's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// True if the model has a chat template that can be used.
    pub fn can_chat(&self) -> bool {
        matches!(self.template, Ok(Some(_)))
    }

    /// The sentence that says why the model's chat template cannot be used, where it has one that cannot.
    pub fn chat_problem(&self) -> Option<&str> {
        self.template.as_ref().err().map(String::as_str)
    }

    /// Statistics of the answers of a period, those of other engines and programs with the same journal included.
    /// Nothing has been answered yet where the journal's file is not there.
    ///
    /// # Errors
    /// If the engine keeps no journal ([`EngineConfig::journal`]), or it cannot be read.
    pub fn adaptation_stats(&self, period: Period) -> Result<AdaptationStats, Error> {
        let path = self.info.journal.as_deref().ok_or(Error::NoJournal)?;
        match journal::adaptation_stats(path, period) {
            Err(JournalError::Missing { .. }) => Ok(AdaptationStats::of_nothing(path, period)),
            known => Ok(known?),
        }
    }

    /// Tokens that a bounded answer for this floor may have at most, as its certificate was calibrated with no more; `None` where
    /// there is no certificate for it, or none is needed.
    pub fn calibrated_tokens(&self, floor: f64) -> Option<usize> {
        let certified = self.certificates.for_floor(floor).ok().filter(|_| floor < 1.0)?;
        Some(certified.certificate().calibration.max_new_tokens)
    }

    /// Starts to answer a prompt. Up to [`EngineConfig::parallel`] answers are made at once and share steps, which changes no
    /// token of any of them; others wait in the order they were asked for.
    /// Dropping the result cancels the answer within a step; [`Generation::cancel`] does too, and keeps what there is.
    ///
    /// # Errors
    /// If the prompt or the settings cannot be used, or [`Error::Busy`] if 64 requests wait already that were not
    /// cancelled. What goes wrong later comes through the stream.
    pub fn generate(&self, prompt: Prompt, config: &GenerationConfig) -> Result<Generation, Error> {
        config.validate()?;
        self.check_drafter(&config.drafter)?;
        let mut config = config.clone();
        let certified = match (config.quality, config.quality_floor) {
            // All of the quality is what an answer in full keeps, without a certificate.
            (Quality::Bounded, Some(floor)) if floor < 1.0 => Some(self.certificates.for_floor(floor)?),
            _ => None,
        };
        if let Some(certified) = &certified {
            certified.covers(&prompt, &config)?;
            // A certificate is of the prompt as the router sees it, and not of what a request says of itself.
            config.hints = RequestHints::default();
        }
        if let (Prompt::Messages(messages), None) = (&prompt, config.hints.turn) {
            config.hints.turn = Some(messages.iter().filter(|message| message.role() == "user").count() as f32);
        }
        let EngineInfo { target, exits, lower_precisions, .. } = &self.info;
        // Which layers matter is measured by the decode thread; whether there are enough can be told here.
        let layers = target.layers;
        lossy::resolve(&config, Capabilities { layers, exits, lower: lower_precisions }, &mut || vec![0.0; layers])?;
        let (prompt, warnings) = self.tokens(prompt, &config)?;
        self.check_pool(prompt.len(), &config)?;
        let (events, answer) = channel::unbounded_channel();
        let canceller = Canceller::default();
        self.queue.push(Job { prompt, config, certified, warnings, events, canceller: canceller.clone() })?;
        Ok(Generation::new(answer, canceller))
    }

    /// The tokens that a prompt is for this model, its chat template and special tokens included. Of the settings only
    /// those of the template matter.
    ///
    /// # Errors
    /// If it cannot be answered: empty, or longer than the model's context ([`Error::PromptTooLong`] says by how much),
    /// or messages without a chat template.
    pub fn prompt_tokens(&self, prompt: Prompt, config: &GenerationConfig) -> Result<Vec<u32>, Error> {
        self.tokens(prompt, config).map(|(tokens, _)| tokens)
    }

    /// The tokens of a prompt, checked, with warnings.
    fn tokens(&self, prompt: Prompt, config: &GenerationConfig) -> Result<(Vec<u32>, Vec<String>), Error> {
        let mut warnings = Vec::new();
        if !config.template_args.is_empty() && !matches!(prompt, Prompt::Messages(_)) {
            warnings
                .push("The prompt is not made by a chat template, so `template-args` are of no use to it.".to_owned());
        }
        let tokens = match prompt {
            Prompt::Text(text) => self.tokenizer.encode(&text)?,
            Prompt::Messages(messages) => {
                let template = self.template.as_ref().map_err(|reason| Error::ChatTemplate(reason.clone()))?;
                let template = template.as_ref().ok_or(Error::NoChatTemplate)?;
                let rendered = template.render_with(&messages, &config.template_args)?;
                warnings = rendered.warnings;
                self.tokenizer.encode_chat(&rendered.text)?
            }
            Prompt::Tokens(tokens) => tokens,
        };
        let (vocabulary, context) = (self.info.target.vocab_size, self.info.target.context);
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if tokens.len() >= context {
            return Err(Error::PromptTooLong { tokens: tokens.len(), context });
        }
        match tokens.iter().enumerate().find(|&(_, &token)| token as usize >= vocabulary) {
            Some((place, &token)) => Err(Error::TokenOutsideVocabulary { token, place, vocabulary }),
            None => Ok((tokens, warnings)),
        }
    }

    /// Refuses what the pool could not hold, even if nothing else were in it.
    fn check_pool(&self, prompt: usize, config: &GenerationConfig) -> Result<(), Error> {
        let limit = self.info.target.context.min(prompt.saturating_add(config.max_new_tokens));
        let positions = limit + MAX_DRAFT;
        if KvPool::pages_for(positions) <= self.pool_pages {
            return Ok(());
        }
        Err(Error::LargerThanPool { positions, pool: self.pool_pages * PAGE_POSITIONS })
    }

    fn check_drafter(&self, drafter: &DrafterChoice) -> Result<(), Error> {
        match drafter {
            DrafterChoice::Model(name) => {
                let known = &self.info.drafts;
                let found = name.as_ref().map_or(!known.is_empty(), |name| known.contains(name));
                let wanted = name.as_ref().map_or_else(String::new, |name| format!("`{name}`"));
                if found { Ok(()) } else { Err(Error::NoSuchDraft { wanted, known: known.clone() }) }
            }
            &DrafterChoice::Exit(depth) if !(1..self.info.target.layers).contains(&depth) => {
                Err(Error::NoSuchExit { depth, layers: self.info.target.layers })
            }
            &DrafterChoice::SelfQuantized(format) if !self.info.drafters.contains(drafter) => {
                Err(Error::NoSelfDraft(format))
            }
            DrafterChoice::Skip(plan) => Ok(plan.check(self.info.target.layers)?),
            _ => Ok(()),
        }
    }
}
