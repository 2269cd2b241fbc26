//! Benefits and costs of Paceline, measured offline and with uncertainty: suites are run into rows ([`run`]), rows
//! become statistics and a report ([`report`]), and lossy plans get their guarantee ([`certify`]).

pub mod certify;
pub mod cli;
pub mod prompts;
pub mod report;
pub mod rows;
pub mod run;
pub mod statistics;
pub mod suite;
