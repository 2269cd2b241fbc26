//! Lossy plans: what may be given up for speed in one answer, by consent alone.
//!
//! [`LossyPlan`] is plain data and the one seam between what was asked for and how an answer is made: [`resolve`] fills it
//! from a request's settings before decoding, and whoever chooses plans (a router) may fill it instead, within what the request
//! allows ([`Quality`]). `exact` never gets any plan but [`LossyPlan::None`], `bounded` those of its certificate
//! ([`crate::certificate`]).

use paceline_kernels::QuantizedFormat;
use paceline_router::Lossy;

use crate::config::{GenerationConfig, Quality};
use crate::drafters::DrafterChoice;
use crate::model::{LayerChoiceError, MatrixFormat, SkipPlan};

/// Quality given up by an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LossyPlan {
    /// Nothing: the tokens are those of plain decoding with the target.
    #[default]
    None,
    /// Verification, of tokens that the exit after `depth` layers is sure of.
    Exit {
        /// Layers before the exit.
        depth: usize,
        /// The calibrated probability that the exit's pick is the model's from which on a token comes out.
        threshold: f64,
    },
    /// Parts of the target, in prefill and every step. Drafts are verified by what remains.
    Skip(SkipPlan),
    /// The target's precision. Drafts are verified by the target in this one.
    Precision(QuantizedFormat),
}

impl LossyPlan {
    /// True if the target runs as it was loaded, so that the prompt tokens it has read need not be read again.
    pub fn keeps_target(&self) -> bool {
        matches!(self, Self::None | Self::Exit { .. })
    }

    /// As the router names it; `None` for plans that it has no name for.
    pub fn routed(&self) -> Option<Lossy> {
        Some(match self {
            Self::None => return None,
            Self::Exit { depth, threshold } => Lossy::Exit { depth: *depth, threshold: *threshold },
            Self::Skip(plan) => Lossy::Skip(plan.to_string()),
            Self::Precision(format) => Lossy::Precision(format.to_string()),
        })
    }

    /// The plan of a router, if a target with such capabilities can follow it.
    pub fn of_router(lossy: &Lossy, capabilities: &Capabilities<'_>) -> Option<Self> {
        match lossy {
            Lossy::Exit { depth, threshold } => {
                capabilities.exits.contains(depth).then_some(Self::Exit { depth: *depth, threshold: *threshold })
            }
            Lossy::Skip(plan) => {
                let plan: SkipPlan = plan.parse().ok()?;
                plan.check(capabilities.layers).is_ok().then_some(Self::Skip(plan))
            }
            Lossy::Precision(name) => capabilities
                .lower
                .iter()
                .find(|format| format.to_string() == *name)
                .map(|format| Self::Precision(*format)),
        }
    }
}

/// Facts that decide which plans a loaded target can follow.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities<'a> {
    /// Layers of the target.
    pub layers: usize,
    /// Depths of its trained exits, rising.
    pub exits: &'a [usize],
    /// Lower precisions that it was loaded in.
    pub lower: &'a [QuantizedFormat],
}

/// Why a target cannot give up what a request's settings name.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the variants and their fields mean")]
pub enum LossyError {
    #[error("`exit-threshold` needs an exit that was trained{}: {}.", asked_exit(asked), trained_exits(trained))]
    UntrainedExit { asked: DrafterChoice, trained: Vec<usize> },
    #[error(transparent)]
    Layers(#[from] LayerChoiceError),
    #[error(
        "`lower-precision` asks for {0}, which is not loaded: name it when the engine is loaded, as in `self-draft = [\"{0}\"]`."
    )]
    NotLoadedLower(QuantizedFormat),
    #[error(
        "The target is held as {target}, so {draft} beside it would not be cheaper: choose another drafter or a lower precision, or a higher `--precision`."
    )]
    NotLower { draft: QuantizedFormat, target: MatrixFormat },
}

fn asked_exit(asked: &DrafterChoice) -> String {
    match asked {
        DrafterChoice::Exit(depth) => format!(", and `exit:{depth}` was not"),
        _ => String::new(),
    }
}

fn trained_exits(trained: &[usize]) -> String {
    if trained.is_empty() {
        "this model has none, so train them with `paceline-train exits`, or leave the threshold out".to_owned()
    } else {
        let names: Vec<String> = trained.iter().map(|depth| format!("exit:{depth}")).collect();
        format!("choose one of {}", names.join(", "))
    }
}

/// The plan that a request's settings name, for a target of such capabilities. `influence` tells what each layer does to the hidden
/// state; it is asked where layers are to be chosen by that.
///
/// # Errors
/// If the target has not what the plan needs.
pub fn resolve(
    config: &GenerationConfig,
    capabilities: Capabilities<'_>,
    influence: &mut dyn FnMut() -> Vec<f64>,
) -> Result<LossyPlan, LossyError> {
    match config.quality {
        // What a bounded answer may give up is named by its certificate alone.
        Quality::Exact | Quality::Bounded => return Ok(LossyPlan::None),
        Quality::BestEffort => {}
    }
    if let Some(threshold) = config.exit_threshold {
        let depth = match config.drafter {
            DrafterChoice::Exit(depth) => Some(depth).filter(|depth| capabilities.exits.contains(depth)),
            _ => default_depth(capabilities.exits),
        };
        let untrained =
            || LossyError::UntrainedExit { asked: config.drafter.clone(), trained: capabilities.exits.to_vec() };
        return Ok(LossyPlan::Exit { depth: depth.ok_or_else(untrained)?, threshold });
    }
    if let Some(choice) = &config.skip_layers {
        return Ok(LossyPlan::Skip(choice.plan(capabilities.layers, influence)?));
    }
    let Some(format) = config.lower_precision.map(|precision| precision.format()) else { return Ok(LossyPlan::None) };
    if !capabilities.lower.contains(&format) {
        return Err(LossyError::NotLoadedLower(format));
    }
    let target = MatrixFormat::Quantized(format);
    match config.drafter {
        DrafterChoice::SelfQuantized(draft) if !draft.is_below(target) => Err(LossyError::NotLower { draft, target }),
        _ => Ok(LossyPlan::Precision(format)),
    }
}

/// The exit where none is named: the deepest, from which the fewest layers miss what left there. Of the family that ships it
/// costs hardly a right answer and spares a quarter of the layers; shallower ones spare more and cost more.
fn default_depth(trained: &[usize]) -> Option<usize> {
    trained.last().copied()
}
