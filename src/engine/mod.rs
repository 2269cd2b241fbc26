//! The engine: loads once, answers many prompts.
//!
//! One thread decodes ([`worker`]); requests reach it through a queue and answers come back through a channel
//! ([`stream`]), so an engine serves blocking code and asynchronous code alike.

mod answer_report;
mod answering;
mod error;
mod importance;
mod queue;
mod stream;
mod variant;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use paceline_kernels::{PAGE_POSITIONS, QuantizedFormat};
use tokio::sync::mpsc as channel;

pub use error::Error;
pub use stream::{Canceller, Event, Generation};

use crate::certificate::{Certificates, Conditions, NoRouter};
use crate::checkpoint::{Checkpoint, Exits};
use crate::config::{EngineConfig, GenerationConfig, Quality};
use crate::drafters::DrafterChoice;
use crate::drafters::catalog::{Catalog, DraftModel};

use crate::answer::Prompt;
use crate::info::{EngineInfo, RouterState};
use crate::journal::{self, AdaptationStats, JournalError, Period};
use crate::lossy::{self, Capabilities, LossyError};
use crate::meters::Meter;
use crate::model::{Compute, Decoder, KvPool, MatrixFormat};
use crate::routing::{Advisor, OpenError, RequestHints};
use crate::speculation::MAX_DRAFT;
use crate::text::{ChatTemplate, Tokenizer};
use queue::Queue;
use worker::{Job, Worker};

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

/// Settings of the decode thread.
struct Settings {
    /// Answers that are made at once.
    parallel: usize,
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
        let directory = config.model.as_deref().ok_or(Error::NoModel)?;
        config.validate()?;
        let meter = Meter::open(&config.energy, config.device)?;
        let open = if config.pin_threads { Compute::open_pinned } else { Compute::open };
        let compute = open(config.device, config.resolved_threads())?;
        let checkpoint = Checkpoint::open(directory)?;
        let tokenizer = Arc::new(Tokenizer::from_dir(directory)?);
        let template = ChatTemplate::from_dir(directory).map_err(|error| error.to_string());
        let template = template.map(|template| template.map(Arc::new));
        let mut place = |directory: &Path, checkpoint: &Checkpoint, format| {
            let mut progress = |done, total| progress(LoadProgress { directory, done, total });
            Decoder::load(checkpoint, format, &compute, &mut progress)?.with_cache_format(config.kv_cache.format())
        };
        let exits = checkpoint.exits()?;
        let target = place(directory, &checkpoint, config.precision.format())?;
        let target = match &exits {
            Some(exits) => target.with_exits(&checkpoint, exits)?,
            None => target,
        };
        let target = Arc::new(with_draft_vocabulary(target, &checkpoint, config.precision.format())?);
        if let Some(plan) = &config.skip_plan {
            plan.check(target.layer_count())?;
        }
        let mut quantized: Vec<(QuantizedFormat, Arc<Decoder>)> = Vec::new();
        for draft in config.self_draft.iter().map(|draft| draft.format()) {
            if quantized.iter().any(|(loaded, _)| *loaded == draft) {
                continue;
            }
            let format = MatrixFormat::Quantized(draft);
            if format.bits() >= target.format().bits() {
                return Err(LossyError::NotLower { draft, target: target.format() }.into());
            }
            let lower = place(directory, &checkpoint, Some(format))?;
            let lower = match &exits {
                Some(exits) => lower.with_exits(&checkpoint, exits)?,
                None => lower,
            };
            quantized.push((draft, Arc::new(with_draft_vocabulary(lower, &checkpoint, Some(format))?)));
        }
        let router = match config.no_router {
            true => Ok(None),
            false => Advisor::open(directory, &checkpoint, &tokenizer, &config.draft),
        };
        let lower: Vec<QuantizedFormat> = quantized.iter().map(|(format, _)| *format).collect();
        let trained: Vec<usize> = target.exits().map(|exit| exit.depth).collect();
        let capabilities = Capabilities { layers: target.layer_count(), exits: &trained, lower: &lower };
        let (format, cache) = (target.format(), target.cache_format());
        let certificates = Certificates::open(config, directory, &capabilities, || match &router {
            Ok(Some(_)) => Conditions::at(&checkpoint, format, cache, &compute).map(Ok),
            Ok(None) if config.no_router => Ok(Err(NoRouter::LeftOut)),
            Ok(None) => Ok(Err(NoRouter::Absent)),
            Err(error) => Ok(Err(NoRouter::Refused(error.to_string()))),
        })?;
        let mut files = checkpoint.mapped();
        files.extend(exits.as_ref().map(Exits::mapped).unwrap_or_default());
        files.check()?;
        let mut notes = checkpoint.notes().to_vec();
        drop((checkpoint, exits));

        let mut drafts: Vec<DraftModel> = Vec::new();
        for draft_directory in &config.draft {
            let name =
                draft_directory.file_name().unwrap_or(draft_directory.as_os_str()).to_string_lossy().into_owned();
            if drafts.iter().any(|draft| draft.name == name) {
                return Err(Error::SameName(name));
            }
            let checkpoint = Checkpoint::open(draft_directory)?;
            notes.extend_from_slice(checkpoint.notes());
            if !Tokenizer::from_dir(draft_directory)?.same_vocabulary(&tokenizer) {
                return Err(Error::OtherVocabulary { draft: draft_directory.clone(), target: directory.to_owned() });
            }
            let format = config.draft_precision.format();
            let decoder = with_draft_vocabulary(place(draft_directory, &checkpoint, format)?, &checkpoint, format)?;
            let decoder = Arc::new(decoder);
            let mapped = checkpoint.mapped();
            mapped.check()?;
            files.extend(mapped);
            drafts.push(DraftModel { name, decoder });
        }

        // Without its router a target answers as rightly, and says so.
        let (advisor, router) = match router {
            Ok(advisor) => {
                let state = if advisor.is_some() { RouterState::Used } else { RouterState::Absent };
                (advisor.map(|advisor| advisor.with_state(config.online_state.as_deref(), config.frozen)), state)
            }
            Err(OpenError::Router(error)) => (None, RouterState::Refused(error.to_string())),
            Err(OpenError::Checkpoint(error)) => return Err(error.into()),
        };
        let draft_names = drafts.iter().map(|draft| draft.name.clone()).collect();
        let catalog = Catalog::new(Arc::clone(&target), drafts, quantized, config.skip_plan.clone());
        let info = EngineInfo {
            directory: directory.to_owned(),
            notes,
            target: target.config().clone(),
            format: target.format(),
            weight_bytes: target.weight_bytes(),
            cache_format: target.cache_format(),
            cache_bytes_per_token: target.cache_bytes_per_token(),
            drafts: draft_names,
            drafters: catalog.all(),
            exits: trained,
            lower_precisions: lower,
            instruction_set: compute.instruction_set(),
            threads: config.resolved_threads(),
            exact: compute.is_row_invariant(),
            router,
            meter,
            journal: config.journal.clone().filter(|_| !config.no_journal),
        };
        let (context, vocabulary) = (info.target.context, info.target.vocab_size);
        let texts = match &config.importance_text {
            Some(path) => importance::read(path, &tokenizer, context, vocabulary)?,
            None => importance::Texts::Written(template.as_ref().ok().cloned().flatten()),
        };
        let settings = Settings { parallel: config.resolved_parallel(), pool_pages: config.pool_pages() };
        let worker = Worker::new(catalog, Arc::clone(&tokenizer), texts, advisor, files, &info, &settings);
        let queue = Arc::new(Queue::new());
        let jobs = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name("paceline-decode".into())
            .spawn(move || worker.serve(&jobs))
            .map_err(crate::model::DeviceError::Threads)?;
        let pool_pages = settings.pool_pages;
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

/// The decoder with the draft vocabulary that lies beside its weights, if one does.
fn with_draft_vocabulary(
    decoder: Decoder,
    checkpoint: &Checkpoint,
    format: Option<MatrixFormat>,
) -> Result<Decoder, Error> {
    Ok(match checkpoint.draft_vocabulary()? {
        Some(tokens) => decoder.with_draft_vocabulary(checkpoint, format, tokens)?,
        None => decoder,
    })
}
