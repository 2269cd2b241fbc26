//! The gating network: what a prompt looks like in, which plan to answer it by out.
//!
//! ```text
//! Features -> Network -> Prediction (difficulty, acceptance of each drafter, loss of each lossy plan, length)
//! Prediction x costs of this machine -> Choice (plan, runner-up, margin)
//! ```
//! Quantities that depend on the prompt are learned ([`network`]); those that depend on the machine are measured and
//! come as [`costs`]. The crate knows neither models nor decoding: drafters are names, and everything else is numbers.
//! Observations of answers correct the predictions for the next ones ([`online`]).

pub mod costs;
pub mod decision;
pub mod features;
pub mod network;
pub mod online;
pub mod plan;
mod quoted;
pub mod router;
mod single;
pub mod trace;

pub use costs::{CostTable, Prices};
pub use decision::{Choice, Expected, Objective, Profile};
pub use features::{Features, Group};
pub use network::{Batch, Network, Outputs, Shape};
pub use online::{Online, OnlineError};
pub use plan::{LengthRule, Lossy, Plan, PlanSet};
pub use router::{Description, LossyFacts, Prediction, Router, RouterError};
pub use trace::TraceRow;
