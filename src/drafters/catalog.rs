//! Which drafters a target has, and how they are made: the one place that knows all of them.

use std::sync::Arc;

use super::exit::ExitDrafter;
use super::lookup::LookupDrafter;
use super::model::ModelDrafter;
use super::{Drafter, DrafterChoice};
use crate::model::{Decoder, Sequence};

/// A draft model and what it is called.
pub struct DraftModel {
    /// Its name, as in `model:NAME`.
    pub name: String,
    /// The model.
    pub decoder: Arc<Decoder>,
}

/// The drafters of a target and of the draft models beside it.
pub struct Catalog {
    target: Arc<Decoder>,
    models: Vec<DraftModel>,
}

impl Catalog {
    /// The catalog of `target` with draft `models` of its vocabulary.
    pub fn new(target: Arc<Decoder>, models: Vec<DraftModel>) -> Self {
        Self { target, models }
    }

    /// Every drafter there is, with a first guess at what one of its tokens costs: the weights that it reads, in
    /// units of the target's.
    pub fn all(&self) -> Vec<(DrafterChoice, f64)> {
        let layers = self.target.layer_count();
        let models = self.models.iter().map(|model| {
            let guess = model.decoder.weight_bytes() as f64 / self.target.weight_bytes() as f64;
            (DrafterChoice::Model(Some(model.name.clone())), guess)
        });
        let exits = (1..layers).map(|depth| (DrafterChoice::Exit(depth), depth as f64 / layers as f64));
        std::iter::once((DrafterChoice::Lookup, 0.0)).chain(models).chain(exits).collect()
    }

    /// Whether what was asked for allows a drafter of the catalog.
    pub fn allows(&self, asked: &DrafterChoice, drafter: &DrafterChoice) -> bool {
        let layers = self.target.layer_count();
        match (asked, drafter) {
            (DrafterChoice::None, _) => false,
            // A few exits stand for all: each has to be tried before it can be given up.
            (DrafterChoice::Auto, DrafterChoice::Exit(depth)) => {
                [layers.div_ceil(4), layers.div_ceil(2), (3 * layers).div_ceil(4)].contains(depth)
            }
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
        Ok(match (drafter, self.model(drafter)) {
            (_, Some(DraftModel { decoder, .. })) => {
                let positions = positions.min(decoder.config().context);
                Box::new(ModelDrafter::new(Sequence::try_new(Arc::clone(decoder), positions)?))
            }
            (DrafterChoice::Exit(depth), _) => Box::new(ExitDrafter::new(*depth)),
            _ => Box::new(LookupDrafter::new()),
        })
    }

    /// The precision that a drafter computes in, if it computes.
    pub fn precision(&self, drafter: &DrafterChoice) -> Option<String> {
        match drafter {
            DrafterChoice::Exit(_) => Some(self.target.format().to_string()),
            drafter => self.model(drafter).map(|model| model.decoder.format().to_string()),
        }
    }

    fn model(&self, drafter: &DrafterChoice) -> Option<&DraftModel> {
        match drafter {
            DrafterChoice::Model(Some(name)) => self.models.iter().find(|model| model.name == *name),
            _ => None,
        }
    }
}
