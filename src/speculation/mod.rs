//! Speculation: how far to draft, with what, and which tokens come out.
//!
//! [`decode`] is the loop: draft, verify, accept, roll back. [`planner`] decides before every round who drafts, by
//! what its rounds brought so far ([`yields`]) at the prices of this machine ([`costs`]); [`stopping`] decides after every
//! drafted token whether another pays, by how sure the drafter is and what that was worth so far ([`calibration`]);
//! [`watch`] scores exits that did not draft. What they decide depends on clocks; what comes out does not. [`unverified`] is
//! another loop, by consent: some tokens come out that the target did not verify.

pub mod calibration;
pub mod costs;
pub mod decode;
pub mod length;
pub mod planner;
pub mod stopping;
pub mod unverified;
pub mod watch;
pub mod yields;

pub use costs::VerifyCosts;
pub use length::DraftLength;
pub use planner::{Planner, Round};

/// The longest draft: with the token before it, 17 rows are verified at once.
pub const MAX_DRAFT: usize = 16;
