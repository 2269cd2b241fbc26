//! Speculative decoding for Llama-family models whose tokens are those of plain decoding, bit for bit.
//!
//! Cheap drafts run ahead, the main model (the *target*) verifies them many at a time, and only tokens that
//! plain decoding would have produced come out: at every temperature, whatever drafted, however far, on
//! however many threads. `ARCHITECTURE.md` says how.
//!
//! Start with [`Engine::load`] and [`Engine::generate`].

mod answer;
pub mod bench;
pub mod certificate;
pub mod checkpoint;
pub mod checksum;
#[cfg(feature = "cli")]
pub mod command;
pub mod config;
pub mod drafters;
pub mod engine;
pub mod files;
pub mod info;
pub mod journal;
pub mod local;
pub mod lossy;
pub mod meters;
pub mod model;
pub mod report;
pub mod routing;
pub mod sampling;
pub mod speculation;
pub mod text;
pub mod visible;

pub use answer::{Answer, FinishReason, Prompt};
pub use certificate::Certificate;
pub use config::{CachePrecision, EngineConfig, GenerationConfig, Precision, Quality, SelfDraft};
pub use drafters::DrafterChoice;
pub use engine::{Canceller, Engine, Error, Event, Generation};
pub use info::EngineInfo;
pub use journal::{AdaptationStats, Period};
pub use lossy::LossyPlan;
pub use meters::{EnergyConfig, EnergySource};
pub use model::{LayerChoice, SkipPlan};
pub use paceline_router::{Objective, Profile};
pub use report::Report;
pub use routing::RequestHints;
pub use sampling::SamplingConfig;
pub use speculation::DraftLength;
pub use text::Message;

/// The example of the documents, compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
struct Documented;
