//! Speculation: how far to draft, with what, and which tokens come out.
//!
//! [`decode`] is the loop: draft, verify, accept, roll back. [`planner`] decides drafter and draft length
//! before every round by the cost model of `acceptance` (learned from what was accepted) and [`costs`]
//! (measured on this machine). What it decides depends on clocks; what comes out does not.

pub mod acceptance;
pub mod costs;
pub mod decode;
pub mod length;
pub mod planner;

pub use acceptance::Acceptance;
pub use costs::VerifyCosts;
pub use length::DraftLength;
pub use planner::{Planner, Round};

/// The longest draft: with the token before it, 17 rows are verified at once.
pub const MAX_DRAFT: usize = 16;
