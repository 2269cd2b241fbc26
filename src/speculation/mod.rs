//! Speculation: how far to draft, with what, and which tokens come out.
//!
//! [`rounds`] has the one loop's body: draft, verify, accept, roll back, for all answers of a target at once. [`request`] is one
//! of these answers, a state machine that a round moves on. [`planner`] decides before every round who drafts, by
//! what its rounds brought so far ([`drafter_stats`]) at the costs of this machine ([`machine`], [`costs`]); [`stopping`] decides after every
//! drafted token whether another pays, by how sure the drafter is and what that was worth so far ([`calibration`]);
//! [`shadow_scores`] looks at exits that did not draft. What they decide depends on clocks; what comes out does not. [`early`] is
//! another acceptance rule, by consent: some tokens come out that the target did not verify.

pub mod calibration;
pub mod costs;
pub mod drafter_stats;
mod drafting;
pub mod early;
pub mod length;
pub mod listener;
pub mod machine;
pub mod planner;
pub mod request;
pub mod rounds;
pub mod shadow_scores;
pub mod shared_steps;
pub mod stopping;

pub use costs::StepCosts;
pub use early::EarlyExit;
pub use length::DraftLength;
pub use listener::{Flow, Listener};
pub use planner::{Planner, Round};
pub use request::{End, Request};
pub use rounds::{Target, round};

/// The longest draft: with the token before it, 17 rows are verified at once.
pub const MAX_DRAFT: usize = 16;
