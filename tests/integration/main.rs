//! Tests of the whole: checkpoints in, tokens out.
//!
//! One test program, so that burn is linked once. `support` finds fixtures and makes random checkpoints.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod arrows;
mod cancelling;
mod certificates;
mod changed_files;
mod company;
mod dependencies;
mod draft_vocabulary;
mod early_exit;
mod edited;
mod engine;
mod exactness;
mod exits;
mod goldens;
mod journal;
mod kept;
mod layers;
mod lossy;
mod parity;
mod pool;
mod properties;
mod quantized;
mod reduced;
mod routing;
mod sampling;
mod self_drafts;
mod support;
mod tidy;
