//! Routing: the router (`paceline_router`) beside a target. Features of a prompt are taken while it is read ([`reader`],
//! [`surface`]); what the router makes of them, the planner is told before the answer begins ([`advisor`]).

pub mod advisor;
mod files;
pub mod identity;
pub mod reader;
pub mod surface;

pub use advisor::{Advice, Advisor, ExpectedQuality, OpenError, Shown};
pub use files::{StateError, open_router, read_state};
pub use identity::{identities, identity_of};
pub use reader::{Reader, RequestHints, Watched};
pub use surface::Surface;
