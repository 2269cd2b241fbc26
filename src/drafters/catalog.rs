//! Which drafters a target has, and how they are made: the one place that knows all of them.

use std::sync::Arc;

use paceline_kernels::QuantizedFormat;

use super::exit::ExitDrafter;
use super::lookup::LookupDrafter;
use super::model::ModelDrafter;
use super::self_draft::SelfDrafter;
use super::{Drafter, DrafterChoice};
use crate::model::{Decoder, SelfDraft, Sequence, SkipPlan};

/// Guessed cost that a further row adds to a step of the target, in plain steps.
pub const ROW_GUESS: f64 = 0.25;

/// A draft model and what it is called.
#[derive(Clone)]
pub struct DraftModel {
    /// Its name, as in `model:NAME`.
    pub name: String,
    /// The model.
    pub decoder: Arc<Decoder>,
}

/// The drafters of a target, of the draft models beside it and of what else was loaded to draft with.
#[derive(Clone)]
pub struct Catalog {
    target: Arc<Decoder>,
    models: Vec<DraftModel>,
    /// The target in lower precisions.
    quantized: Vec<(QuantizedFormat, Arc<Decoder>)>,
    /// The plan that `auto` considers. Others can be asked for.
    skip_plan: Option<SkipPlan>,
}

impl Catalog {
    /// The catalog of `target` with draft `models` of its vocabulary, `quantized` copies of itself and the plan that
    /// `auto` may skip by.
    pub fn new(
        target: Arc<Decoder>,
        models: Vec<DraftModel>,
        quantized: Vec<(QuantizedFormat, Arc<Decoder>)>,
        skip_plan: Option<SkipPlan>,
    ) -> Self {
        Self { target, models, quantized, skip_plan }
    }

    /// The target.
    pub fn target(&self) -> &Arc<Decoder> {
        &self.target
    }

    /// The names of the draft models.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.models.iter().map(|model| model.name.as_str())
    }

    /// The precisions that the target was loaded in to draft for itself.
    pub fn lower_precisions(&self) -> Vec<QuantizedFormat> {
        self.quantized.iter().map(|(format, _)| *format).collect()
    }

    /// The catalog of the target in a lower precision, which drafts for itself in those below; `None` if it was not loaded.
    pub fn lowered(&self, format: QuantizedFormat) -> Option<Self> {
        let target = Arc::clone(self.decoder(&DrafterChoice::SelfQuantized(format))?);
        let lower = self.quantized.iter().filter(|(_, decoder)| decoder.format().bits() < target.format().bits());
        let quantized = lower.cloned().collect();
        Some(Self { target, models: self.models.clone(), quantized, skip_plan: self.skip_plan.clone() })
    }

    /// Every drafter there is, but for skip plans that nobody has named.
    pub fn all(&self) -> Vec<DrafterChoice> {
        let models = self.models.iter().map(|model| DrafterChoice::Model(Some(model.name.clone())));
        let quantized = self.quantized.iter().map(|(format, _)| DrafterChoice::SelfQuantized(*format));
        let skip = self.skip_plan.iter().cloned().map(DrafterChoice::Skip);
        let exits = (1..self.target.layer_count()).map(DrafterChoice::Exit);
        std::iter::once(DrafterChoice::Lookup).chain(models).chain(quantized).chain(skip).chain(exits).collect()
    }

    /// A first guess at what a drafted token costs: the weights that it reads, in units of the target's plain step.
    pub fn guess(&self, drafter: &DrafterChoice) -> f64 {
        let step = self.target.bytes_per_step() as f64;
        match drafter {
            DrafterChoice::Exit(depth) => self.target.bytes_per_exit(*depth) as f64 / step,
            DrafterChoice::Skip(plan) => self.target.bytes_per_step_without(plan) as f64 / step,
            DrafterChoice::Model(_) => {
                self.decoder(drafter).map_or(0.0, |decoder| decoder.bytes_per_draft() as f64 / step)
            }
            drafter => self.decoder(drafter).map_or(0.0, |decoder| decoder.bytes_per_step() as f64 / step),
        }
    }

    /// A first guess at the share of a target step that verifying its drafts takes: an exit's layers are not run again.
    pub fn verification_share(&self, drafter: &DrafterChoice) -> f64 {
        match drafter {
            DrafterChoice::Exit(depth) => 1.0 - *depth as f64 / self.target.layer_count().max(1) as f64,
            _ => 1.0,
        }
    }

    /// Bytes of memory that a drafter needs for an answer of so many tokens: weights that were loaded for it alone, and a cache
    /// of its own.
    pub fn bytes(&self, drafter: &DrafterChoice, positions: usize) -> u64 {
        self.decoder(drafter).map_or(0, |decoder| {
            let cached = if let DrafterChoice::Model(_) = drafter { positions as u64 } else { 0 };
            decoder.weight_bytes() + cached * decoder.cache_bytes_per_token()
        })
    }

    /// True if the drafter that was asked for allows a drafter of the catalog.
    pub fn allows(&self, asked: &DrafterChoice, drafter: &DrafterChoice) -> bool {
        let layers = self.target.layer_count();
        match (asked, drafter) {
            (DrafterChoice::None, _) => false,
            // Those that were trained, or a few that stand for all: each has to be tried before it can be given up.
            (DrafterChoice::Auto, DrafterChoice::Exit(depth)) => match self.target.exits().next() {
                Some(_) => self.target.exits().any(|exit| exit.depth == *depth),
                None => [layers.div_ceil(4), layers.div_ceil(2), (3 * layers).div_ceil(4)].contains(depth),
            },
            (DrafterChoice::Auto, DrafterChoice::Skip(plan)) => self.skip_plan.as_ref() == Some(plan),
            (DrafterChoice::Auto, _) => true,
            (DrafterChoice::Model(None), DrafterChoice::Model(Some(name))) => {
                self.models.first().is_some_and(|model| model.name == *name)
            }
            (asked, drafter) => asked == drafter,
        }
    }

    /// Makes a drafter of the catalog for one answer of at most `positions` tokens with its prompt.
    ///
    /// # Errors
    /// The bytes of memory that cannot be had.
    pub fn make(&self, drafter: &DrafterChoice, positions: usize) -> Result<Box<dyn Drafter>, u64> {
        Ok(match (drafter, self.decoder(drafter)) {
            (DrafterChoice::Model(_), Some(decoder)) => {
                let positions = positions.min(decoder.config().context);
                Sequence::check_room(decoder, positions)?;
                Box::new(ModelDrafter::new(Arc::clone(decoder), positions))
            }
            (DrafterChoice::SelfQuantized(_), Some(decoder)) => {
                Box::new(SelfDrafter::new(SelfDraft::new(Arc::clone(decoder), None)))
            }
            (DrafterChoice::Skip(plan), _) => {
                Box::new(SelfDrafter::new(SelfDraft::new(Arc::clone(&self.target), Some(plan.clone()))))
            }
            (DrafterChoice::Exit(depth), _) => Box::new(ExitDrafter::new(*depth, self.target.exit_temperature(*depth))),
            _ => Box::new(LookupDrafter::new()),
        })
    }

    /// The precision that a drafter computes in, if it computes.
    pub fn precision(&self, drafter: &DrafterChoice) -> Option<String> {
        match drafter {
            DrafterChoice::Exit(_) | DrafterChoice::Skip(_) => Some(self.target.format().to_string()),
            drafter => self.decoder(drafter).map(|decoder| decoder.format().to_string()),
        }
    }

    /// The decoder that was loaded for a drafter.
    fn decoder(&self, drafter: &DrafterChoice) -> Option<&Arc<Decoder>> {
        match drafter {
            DrafterChoice::Model(Some(name)) => {
                self.models.iter().find(|model| model.name == *name).map(|model| &model.decoder)
            }
            DrafterChoice::SelfQuantized(format) => {
                self.quantized.iter().find(|(own, _)| own == format).map(|(_, decoder)| decoder)
            }
            _ => None,
        }
    }
}
