//! Loading an engine: the target with what lies beside it, draft models, and the worker that answers with them.

use std::path::Path;
use std::sync::Arc;

use paceline_kernels::QuantizedFormat;

use super::importance::{self, Texts};
use super::worker::{Settings, Worker};
use super::{Error, LoadProgress};
use crate::certificate::{Certificates, Conditions, NoRouter};
use crate::checkpoint::{Checkpoint, Exits, MappedFiles};
use crate::config::{ConfigError, EngineConfig};
use crate::drafters::catalog::{Catalog, DraftModel};
use crate::info::{EngineInfo, RouterState};
use crate::local::locate;
use crate::lossy::{Capabilities, LossyError};
use crate::meters::Meter;
use crate::model::{Compute, Decoder, MatrixFormat};
use crate::routing::{Advisor, OpenError};
use crate::text::{ChatTemplate, TextError, Tokenizer, template_for};
use crate::visible::shown_path;

/// The chat template, or why it cannot be used: only messages need it.
pub(super) type Template = Result<Option<Arc<ChatTemplate>>, String>;

/// Parts of an engine.
pub(super) struct Loaded {
    pub(super) info: EngineInfo,
    pub(super) certificates: Certificates,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) template: Template,
    pub(super) worker: Worker,
}

/// An engine on its way.
struct Loading<'a> {
    config: &'a EngineConfig,
    /// Directory of the target.
    directory: &'a Path,
    compute: Compute,
    progress: &'a mut dyn FnMut(LoadProgress<'_>),
    /// Weights files, and errors in what the models' files say about themselves.
    files: MappedFiles,
    notes: Vec<String>,
}

/// The target's checkpoint and what was made of it.
struct Target {
    checkpoint: Checkpoint,
    exits: Option<Exits>,
    decoder: Arc<Decoder>,
    /// The same in lower precisions, to draft for itself.
    lower: Vec<(QuantizedFormat, Arc<Decoder>)>,
}

/// Loads all that a configuration names.
pub(super) fn load(config: &EngineConfig, progress: &mut dyn FnMut(LoadProgress<'_>)) -> Result<Loaded, Error> {
    config.validate()?;
    if let Some(root) = &config.materialization_root {
        make_folder(root)?;
    }
    let directory = &locate(config.model.as_deref().ok_or(Error::NoModel)?)?;
    let meter = Meter::open(&config.energy, config.device)?;
    let open = if config.pin_threads { Compute::open_pinned } else { Compute::open };
    let compute = open(config.device, config.resolved_threads())?;
    let (files, notes) = (MappedFiles::default(), Vec::new());
    let mut loading = Loading { config, directory, compute, progress, files, notes };

    let checkpoint = Checkpoint::open(directory)?;
    let metadata = checkpoint.metadata().cloned();
    if let Some(metadata) = &metadata {
        // Before weights are read for nothing.
        Tokenizer::check_kind(metadata)?;
    }
    let metadata = metadata.as_ref();
    let read = || (Tokenizer::with_metadata(directory, metadata), ChatTemplate::with_metadata(directory, metadata));
    let (target, text) = std::thread::scope(|scope| {
        // A large vocabulary takes as long as some weights.
        let text = std::thread::Builder::new().spawn_scoped(scope, read);
        let target = loading.target(checkpoint);
        let text = match text {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // Where there is no thread to be had.
            Err(_) => read(),
        };
        (target, text)
    });
    let (tokenizer, template) = text;
    let tokenizer = Arc::new(tokenizer?);
    let template = match template {
        Err(error @ TextError::Template { .. }) => match template_for(directory, &tokenizer) {
            Some((name, template)) => {
                loading
                    .notes
                    .push(format!("{error} Conversations have the format {name}, whose marks the vocabulary has."));
                Ok(Some(Arc::new(template)))
            }
            None => Err(error.to_string()),
        },
        template => template.map(|template| template.map(Arc::new)).map_err(|error| error.to_string()),
    };
    let target = target?;
    let router = match config.no_router {
        true => Ok(None),
        false => Advisor::open(directory, &target.checkpoint, &tokenizer, &config.draft),
    };
    let certificates = loading.certificates(&target, &router)?;
    let Target { checkpoint, exits, decoder, lower } = target;
    // Their pages are let go before draft models take memory.
    drop((checkpoint, exits));
    let drafts = loading.drafts(&tokenizer)?;
    let (advisor, router) = loading.router(router)?;

    let catalog = Catalog::new(Arc::clone(&decoder), drafts, lower, config.skip_plan.clone());
    let info = loading.info(&catalog, router, meter);
    let texts = match &config.importance_text {
        Some(path) => importance::read(path, &tokenizer, info.target.context, info.target.vocab_size)?,
        None => Texts::Written(template.as_ref().ok().cloned().flatten()),
    };
    let settings = Settings { parallel: config.resolved_parallel(), pool_pages: config.pool_pages() };
    let worker = Worker::new(catalog, Arc::clone(&tokenizer), texts, advisor, loading.files, &info, &settings);
    Ok(Loaded { info, certificates, tokenizer, template, worker })
}

/// Makes the folder for packed weights, unless it is there.
fn make_folder(root: &Path) -> Result<(), ConfigError> {
    std::fs::create_dir_all(root).map_err(|error| {
        let root = shown_path(root);
        ConfigError::Setting(format!(
            "`materialization-root` is {root}, which cannot be made a folder: {error}; name another."
        ))
    })
}

impl Loading<'_> {
    /// Places a checkpoint's weights, with the draft vocabulary that lies beside them, if one does.
    fn decoder(
        &mut self,
        directory: &Path,
        checkpoint: &Checkpoint,
        exits: Option<&Exits>,
        format: Option<MatrixFormat>,
    ) -> Result<Arc<Decoder>, Error> {
        let mut progress = |done, total| (self.progress)(LoadProgress { directory, done, total });
        let root = self.config.materialization_root.as_deref();
        let (decoder, note) = Decoder::load_keeping(checkpoint, format, &self.compute, root, &mut progress)?;
        self.notes.extend(note);
        let mut decoder = decoder.with_cache_format(self.config.kv_cache.format())?;
        if let Some(exits) = exits {
            decoder = decoder.with_exits(checkpoint, exits)?;
        }
        if let Some(tokens) = checkpoint.draft_vocabulary()? {
            decoder = decoder.with_draft_vocabulary(checkpoint, format, tokens)?;
        }
        Ok(Arc::new(decoder))
    }

    /// The target, and its copies in the lower precisions that are named.
    fn target(&mut self, checkpoint: Checkpoint) -> Result<Target, Error> {
        let (config, directory) = (self.config, self.directory);
        let exits = checkpoint.exits()?;
        let decoder = self.decoder(directory, &checkpoint, exits.as_ref(), config.precision.format())?;
        if let Some(plan) = &config.skip_plan {
            plan.check(decoder.layer_count())?;
        }
        let mut lower: Vec<(QuantizedFormat, Arc<Decoder>)> = Vec::new();
        for draft in config.self_draft.iter().map(|draft| draft.format()) {
            if lower.iter().any(|(loaded, _)| *loaded == draft) {
                continue;
            }
            if !draft.is_below(decoder.format()) {
                return Err(LossyError::NotLower { draft, target: decoder.format() }.into());
            }
            lower.push((
                draft,
                self.decoder(directory, &checkpoint, exits.as_ref(), Some(MatrixFormat::Quantized(draft)))?,
            ));
        }
        self.files.extend(checkpoint.mapped());
        self.files.extend(exits.as_ref().map(Exits::mapped).unwrap_or_default());
        self.files.check()?;
        self.notes.extend_from_slice(checkpoint.notes());
        Ok(Target { checkpoint, exits, decoder, lower })
    }

    fn certificates(
        &self,
        target: &Target,
        router: &Result<Option<Advisor>, OpenError>,
    ) -> Result<Certificates, Error> {
        let Target { checkpoint, decoder, lower, .. } = target;
        let lower: Vec<QuantizedFormat> = lower.iter().map(|(format, _)| *format).collect();
        let exits = decoder.exit_depths();
        let capabilities = Capabilities { layers: decoder.layer_count(), exits: &exits, lower: &lower };
        let (format, cache) = (decoder.format(), decoder.cache_format());
        let conditions = || match router {
            Ok(Some(_)) => Conditions::at(checkpoint, format, cache, &self.compute).map(Ok),
            Ok(None) if self.config.no_router => Ok(Err(NoRouter::LeftOut)),
            Ok(None) => Ok(Err(NoRouter::Absent)),
            Err(error) => Ok(Err(NoRouter::Refused(error.to_string()))),
        };
        Ok(Certificates::open(self.config, self.directory, &capabilities, conditions)?)
    }

    /// The draft models.
    fn drafts(&mut self, tokenizer: &Tokenizer) -> Result<Vec<DraftModel>, Error> {
        let mut drafts: Vec<DraftModel> = Vec::new();
        for given in &self.config.draft {
            // By what it was called: where it lies may be a hash.
            let name = given.file_name().unwrap_or(given.as_os_str()).to_string_lossy().into_owned();
            let directory = &locate(given)?;
            if drafts.iter().any(|draft| draft.name == name) {
                return Err(Error::SameName(name));
            }
            let checkpoint = Checkpoint::open(directory)?;
            self.notes.extend_from_slice(checkpoint.notes());
            if !Tokenizer::with_metadata(directory, checkpoint.metadata())?.same_vocabulary(tokenizer) {
                let (draft, target) = (directory.clone(), self.directory.to_owned());
                return Err(Error::OtherVocabulary { draft, target });
            }
            let decoder = self.decoder(directory, &checkpoint, None, self.config.draft_precision.format())?;
            let mapped = checkpoint.mapped();
            mapped.check()?;
            self.files.extend(mapped);
            drafts.push(DraftModel { name, decoder });
        }
        Ok(drafts)
    }

    /// The router, and its state. Without one a target answers as rightly, and says so.
    fn router(&self, router: Result<Option<Advisor>, OpenError>) -> Result<(Option<Advisor>, RouterState), Error> {
        match router {
            Ok(None) => Ok((None, RouterState::Absent)),
            Ok(Some(advisor)) => {
                let advisor = advisor.with_state(self.config.online_state.as_deref(), self.config.frozen);
                Ok((Some(advisor), RouterState::Used))
            }
            Err(OpenError::Router(error)) => Ok((None, RouterState::Refused(error.to_string()))),
            Err(OpenError::Checkpoint(error)) => Err(error.into()),
        }
    }

    fn info(&self, catalog: &Catalog, router: RouterState, meter: Meter) -> EngineInfo {
        let target = catalog.target();
        EngineInfo {
            directory: self.directory.to_owned(),
            notes: self.notes.clone(),
            target: target.config().clone(),
            format: target.format(),
            weight_bytes: target.weight_bytes(),
            cache_format: target.cache_format(),
            cache_bytes_per_token: target.cache_bytes_per_token(),
            drafts: catalog.models().map(str::to_owned).collect(),
            drafters: catalog.all(),
            exits: target.exit_depths(),
            lower_precisions: catalog.lower_precisions(),
            instruction_set: self.compute.instruction_set(),
            threads: self.config.resolved_threads(),
            exact: self.compute.is_row_invariant(),
            router,
            meter,
            journal: self.config.journal.clone().filter(|_| !self.config.no_journal),
        }
    }
}
