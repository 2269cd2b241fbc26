//! A trained router: its file, and what it predicts.
//!
//! `router.safetensors` lies beside the weights of the target that it was trained for: the network's tensors, and in the metadata
//! what it is for as JSON ([`Description`]). It is taken up only beside exactly that model and tokenizer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::features::Features;
use crate::network::{LEVELS, Network, Shape};
use crate::plan::PlanSet;
use crate::quoted::quoted;
use crate::single::Single;

/// The file's name in a model directory.
pub const ROUTER: &str = "router.safetensors";

/// Bytes of a file at most.
pub const MOST_BYTES: u64 = 1 << 26;

/// Why a router cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// It cannot be read or written.
    #[error("The router {} cannot be read: {reason}; train it again with `paceline-train router`, or remove it.", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Description of the problem.
        reason: String,
    },
    /// It was trained for something else.
    #[error(
        "The router {} was trained for another {what} ({trained}, and here is {found}): train one for this with `paceline-train router`, or remove it.",
        path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// Name of the part that differs.
        what: String,
        /// Its hash when the router was trained.
        trained: String,
        /// Its hash now.
        found: String,
    },
}

/// Metadata of a router: the model, tokenizer and plans that it is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// A hash of the target, in hexadecimal digits.
    pub model: String,
    /// A hash of the tokenizer, in hexadecimal digits.
    pub tokenizer: String,
    /// Layers of the target that run before the states it reads.
    pub layer: usize,
    /// The most tokens whose states it reads, from the end of the prompt.
    pub most_states: usize,
    /// The exit whose uncertainty it is told, if it is.
    pub exit: Option<usize>,
    /// The network's sizes.
    pub shape: Shape,
    /// Plans that the network's outputs refer to.
    pub plans: PlanSet,
    /// For every drafter: how the log-odds of its acceptance become those of its effective acceptance
    /// ([`crate::Prices::effective_acceptance`]), which stopping where it is unsure makes higher: an offset and a factor.
    pub stopping: Vec<[f64; 2]>,
    /// Number of rounds of an answer that a prediction weighs as much as; more than 0.
    pub rounds: f64,
    /// For every drafter, on how many of the prompts that it did not learn from it chose that one, as a share.
    #[serde(default)]
    pub chosen: Vec<f64>,
    /// Results of each lossy plan on prompts that the router did not learn from.
    #[serde(default)]
    pub lossy: Vec<LossyFacts>,
    /// A hash of what it learned from and how, by which what was learned while serving is kept apart from that of other routers.
    pub made_of: String,
    /// For every class of difficulty, how often each would be predicted: `confusion[true][predicted]`, on prompts that it did not
    /// learn from.
    #[serde(default)]
    pub confusion: Vec<Vec<f64>>,
}

/// Results of a lossy plan on prompts that the router did not learn from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossyFacts {
    /// The share of answers that differed from the target's.
    pub other_answers: f64,
    /// By what share its perplexity of the target's answers was above the target's own, in the mean.
    pub perplexity_delta: f64,
    /// The share of the target's work that it did.
    pub work: f64,
}

impl Description {
    /// The key of the metadata that has it.
    pub const KEY: &str = "paceline.router";

    /// The rest of a sentence where something in it cannot be.
    fn check(&self) -> Result<(), String> {
        let Shape { width, queries, inside, drafters, lossy } = self.shape;
        if [width, queries, inside].contains(&0) || [width, queries, inside].iter().any(|size| *size > 1 << 16) {
            return Err(format!("sizes of {width}, {queries} and {inside} cannot be"));
        }
        if (drafters, lossy) != (self.plans.drafting.len(), self.plans.lossy.len()) || drafters != self.stopping.len() {
            return Err("it names another number of plans than it has outputs for".to_owned());
        }
        let numbers = self.stopping.iter().flatten().chain([&self.rounds]);
        if numbers.into_iter().any(|number| !number.is_finite()) || self.rounds <= 0.0 {
            return Err("it holds numbers that are none".to_owned());
        }
        Ok(())
    }
}

/// Predictions for a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Probabilities of the classes of difficulty.
    pub difficulty: [f64; LEVELS.len()],
    /// The probability that a drafted token is accepted, by drafter.
    pub acceptance: Vec<f64>,
    /// The effective acceptance that follows: what its rounds will be worth ([`crate::Prices::effective_acceptance`]).
    pub effective: Vec<f64>,
    /// The probability that the answer differs from the target's, by lossy plan.
    pub loss: Vec<f64>,
    /// Tokens of the answer.
    pub length: f64,
}

impl Prediction {
    /// The likeliest class of difficulty, and its probability.
    pub fn level(&self) -> (usize, f64) {
        let best =
            |best: (usize, f64), (place, &share): (usize, &f64)| if share > best.1 { (place, share) } else { best };
        self.difficulty.iter().enumerate().fold((0, 0.0), best)
    }
}

/// A trained router.
pub struct Router {
    description: Description,
    network: Network,
    single: Single,
}

impl Router {
    /// A router of its parts.
    pub fn new(description: Description, network: Network) -> Self {
        Self { description, single: Single::new(&network), network }
    }

    /// A router from the bytes of its file; `path` is for messages. Whoever has a directory opens the file, and reads no more than
    /// [`MOST_BYTES`] of it.
    ///
    /// # Errors
    /// When the file is damaged or contradicts itself.
    pub fn read(path: &Path, bytes: &[u8]) -> Result<Self, RouterError> {
        Self::from_bytes(bytes)
            .map_err(|reason| RouterError::Damaged { path: path.to_owned(), reason: quoted(&reason) })
    }

    /// A router from the bytes of its file; otherwise what is wrong with them.
    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get(Description::KEY));
        let text = text.ok_or_else(|| format!("its metadata lacks `{}`", Description::KEY))?;
        let description: Description = serde_json::from_str(text).map_err(|error| error.to_string())?;
        description.check()?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let device = Device::flex();
        let mut values = HashMap::new();
        for (name, [rows, width]) in description.shape.tensors() {
            let tensor = tensors.tensor(name).map_err(|error| error.to_string())?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != [rows, width] {
                return Err(format!(
                    "the tensor {name} is {:?} {:?}, not F32 [{rows}, {width}]",
                    tensor.dtype(),
                    tensor.shape()
                ));
            }
            let numbers: Vec<f32> =
                tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            if numbers.iter().any(|number| !number.is_finite()) {
                return Err(format!("the tensor {name} holds infinite values"));
            }
            values.insert(name, Tensor::<2>::from_data(TensorData::new(numbers, [rows, width]), &device));
        }
        let network = Network::new(description.shape, |name| values[name].clone());
        Ok(Self::new(description, network))
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// Never for a router that can be used: its tensors are f32 and its description is JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
        let mut bytes = Vec::new();
        for (name, tensor) in self.network.tensors() {
            let shape = tensor.dims();
            let values: Vec<f32> = tensor.clone().into_data().try_into_vec().map_err(|error| format!("{error:?}"))?;
            bytes.push((name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()));
        }
        let views =
            bytes.iter().map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes)?)));
        let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        let metadata = HashMap::from([(Description::KEY.to_owned(), serde_json::to_string(&self.description)?)]);
        Ok(safetensors::serialize(views, Some(metadata))?)
    }

    /// Its metadata: the model, tokenizer and plans that it is for.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Refuses to be used with another model or tokenizer, given as hashes, or with other drafters: `identity` gives the hash of
    /// the one of a name, `None` where there is none of that name, which is no fault.
    ///
    /// # Errors
    /// [`RouterError::Other`] with the part that differs.
    pub fn check(
        &self,
        dir: &Path,
        model: &str,
        tokenizer: &str,
        identity: impl Fn(&str) -> Option<String>,
    ) -> Result<(), RouterError> {
        let other = |what: String, trained: &str, found: &str| {
            Err(RouterError::Other {
                path: dir.join(ROUTER),
                what,
                trained: trained.to_owned(),
                found: found.to_owned(),
            })
        };
        let known = &self.description;
        if known.model != model {
            return other("model".to_owned(), &known.model, model);
        }
        if known.tokenizer != tokenizer {
            return other("tokenizer".to_owned(), &known.tokenizer, tokenizer);
        }
        for plan in &known.plans.drafting {
            match identity(&plan.drafter) {
                Some(found) if found != plan.identity => {
                    return other(format!("drafter `{}`", plan.drafter), &plan.identity, &found);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Predictions for a prompt. States of another width than it reads count as none.
    pub fn predict(&self, features: &Features) -> Prediction {
        let shape = self.description.shape;
        let fits = features.width == shape.width;
        let bare = Features { states: Vec::new(), width: shape.width, numbers: features.numbers };
        let said = self.single.say(if fits { features } else { &bare });
        let highest = said.difficulty.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers = said.difficulty.map(|logit| f64::from(logit - highest).exp());
        let sum: f64 = powers.iter().sum();
        let odds = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<_>>();
        let acceptance = odds(&said.acceptance);
        let effective = acceptance.iter().zip(&self.description.stopping);
        Prediction {
            difficulty: powers.map(|power| power / sum),
            effective: effective.map(|(odds, [offset, factor])| sigmoid(offset + factor * odds)).collect(),
            acceptance: acceptance.into_iter().map(sigmoid).collect(),
            loss: odds(&said.loss).into_iter().map(sigmoid).collect(),
            length: f64::from(said.length).clamp(0.0, 20.0).exp(),
        }
    }
}

/// The probability of log-odds.
pub fn sigmoid(odds: f64) -> f64 {
    1.0 / (1.0 + (-odds).exp())
}

/// The log-odds of a probability, which is kept a little away from 0 and 1.
pub fn log_odds(probability: f64) -> f64 {
    let probability = probability.clamp(1e-6, 1.0 - 1e-6);
    (probability / (1.0 - probability)).ln()
}
