//! Certificates: which lossy plans keep a quality floor, by a statistical test on calibration prompts (Learn then Test,
//! Angelopoulos et al. 2021; for early exits CALM, Schuster et al. 2022). `paceline-eval certify` makes them; here they are read,
//! checked, and turned into the plans of answers in quality `bounded`.
//!
//! A certificate covers a whole policy: for prompts that the router as it was trained takes to be of a level, one plan.
//! It holds for one target with its exits, one router, one instruction set, one precision and one version of this
//! program ([`Conditions`]), for greedy answers of no more tokens than were calibrated, and for prompts like those of
//! the calibration, rendered in the same way. Where anything of that differs, the certificate is void. That prompts are
//! like those of the calibration nobody checks, and how a prompt that comes as tokens was rendered cannot be known:
//! that is for the caller to see to.

mod conditions;
mod held;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use paceline_router::Lossy;
use paceline_router::network::LEVELS;
use serde::{Deserialize, Serialize};

pub use conditions::Conditions;
pub use held::{Certificates, Certified, FOLDER, NoRouter, needed_precisions};

use crate::answer::Prompt;
use crate::checkpoint::CheckpointError;
use crate::checksum::Checksum;
use crate::files::{self, Object, ReadError, read_text};
use crate::routing::identity::written;
use crate::visible::shown;

/// The version of the format that is written and read.
pub const VERSION: u32 = 2;

/// The largest file that is read, in bytes; certificates have some thousand.
const LARGEST: u64 = 1 << 20;

/// Numbers of a certificate that follow from each other may be this far apart, by rounding.
const ROUNDING: f64 = 1e-9;

/// P-values of few or no losses are far below that, so they may be this share apart.
const P_ROUNDING: f64 = 1e-6;

fn known_floors(known: &[f64], refused: Option<&str>) -> String {
    let there = if known.is_empty() {
        "there is none".to_owned()
    } else {
        let floors: Vec<String> = known.iter().map(f64::to_string).collect();
        format!("there are only those for {}", floors.join(", "))
    };
    match refused {
        None => there,
        Some(reason) => format!("{there} that holds here ({})", reason.trim_end_matches('.')),
    }
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the variants and their fields mean")]
pub enum CertificateError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(
        "`quality = bounded` with a floor of {floor} needs a certificate of this model for that floor or a higher one, and {}: make one with `paceline-eval certify --floor {floor}`, adding a `--floor` for every other one that is to be published with it, and name it with `--certificate`, or choose `exact`, or `best-effort`, which promises nothing.",
        known_floors(known, refused.as_deref())
    )]
    NoneForFloor { floor: f64, known: Vec<f64>, refused: Option<String> },
    #[error("The certificate {} cannot be read: {reason}; make it again with `paceline-eval certify`, or leave it out.", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error(
        "The certificate {} is of format version {version}, and this program knows {VERSION}: make it again with the `paceline-eval certify` of this program.",
        path.display()
    )]
    Version { path: PathBuf, version: u32 },
    #[error(
        "The certificate {} was changed after it was made, as its checksum does not fit: bring back the file as it was, or make it again with `paceline-eval certify`.",
        path.display()
    )]
    Changed { path: PathBuf },
    #[error("The certificate {} contradicts itself, as {reason}: make it again with `paceline-eval certify`.", path.display())]
    Contradiction { path: PathBuf, reason: String },
    #[error(
        "The certificate {} holds for another {what} ({certified}, and here is {found}), so it is void here: make one for this with `paceline-eval certify`, or leave it out.",
        path.display()
    )]
    Other { path: PathBuf, what: &'static str, certified: String, found: String },
    #[error(
        "The certificate {} goes by how difficult a router takes prompts to be, and {why}.",
        path.display()
    )]
    NoRouter { path: PathBuf, why: NoRouter },
    #[error(
        "The certificate {} was calibrated on answers of at most {calibrated} tokens, and {asked} are asked for: set `--max-new-tokens {calibrated}`, or choose `exact`.",
        path.display()
    )]
    TooLong { path: PathBuf, asked: usize, calibrated: usize },
    #[error("The certificate {} was calibrated on {}, or choose `exact`.", path.display(), other_rendering(*.calibrated))]
    OtherRendering { path: PathBuf, calibrated: Rendering },
    #[error(
        "The certificate {} has the target answer in {precision}, which is not loaded: name it when the engine is loaded, as in `self-draft = [\"{precision}\"]`.",
        path.display()
    )]
    NotLoaded { path: PathBuf, precision: String },
    #[error("The certificate {} names a plan that this target cannot follow ({plan}): make it again with `paceline-eval certify`.", path.display())]
    Impossible { path: PathBuf, plan: Lossy },
}

/// Rendering of the calibration prompts, and what to do about a prompt that is rendered otherwise.
fn other_rendering(calibrated: Rendering) -> &'static str {
    match calibrated {
        Rendering::Text => {
            "plain texts, and this prompt is for the chat template: leave `--chat` out and give a plain text"
        }
        // Where both were calibrated no prompt is rendered otherwise.
        Rendering::Messages | Rendering::Both => {
            "prompts that the chat template rendered, and this one is a plain text: add `--chat` or give messages"
        }
    }
}

/// A certificate as its file has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The format's version.
    pub version: u32,
    /// The share of the target's quality that is kept.
    pub floor: f64,
    /// Share of the target's quality that may be lost: one less the floor.
    pub eps: f64,
    /// The probability at most that any of the claims made together is wrong.
    pub delta: f64,
    /// Claims that were made together, among which the correction of Bonferroni shares `delta`: levels times floors.
    pub claims: usize,
    /// The plans that were tested, from conservative to aggressive, in the order fixed before any loss was known.
    pub bundles: Vec<Lossy>,
    /// Findings for each level of difficulty, in the router's order.
    pub levels: Vec<CertifiedLevel>,
    /// The prompts that it was calibrated on.
    pub calibration: Calibration,
    /// Conditions that it holds for.
    pub conditions: Conditions,
    /// A checksum of all the rest ([`Certificate::sum`]).
    pub checksum: String,
}

/// Quality that may be given up for prompts of one level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifiedLevel {
    /// The level that the router predicts.
    pub level: String,
    /// Calibration prompts of it.
    pub n: usize,
    /// The plan that is deployed: the last that passed. `None` is the target in full, which loses nothing.
    pub plan: Option<Lossy>,
    /// The losses of that plan, summed.
    pub losses: f64,
    /// Their mean.
    pub risk: f64,
    /// The p-value of "this plan's risk is above `eps`"; `None` for the target in full.
    pub p_value: Option<f64>,
    /// Plans that were tested, in order, up to the first that failed; empty where there were too few prompts.
    pub tested: Vec<Tested>,
}

/// One plan's test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tested {
    /// The plan.
    pub plan: Lossy,
    /// Its losses, summed.
    pub losses: f64,
    /// Their mean.
    pub risk: f64,
    /// The p-value of "its risk is above `eps`".
    pub p_value: f64,
}

/// The prompts that a certificate was calibrated on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// A hash of their file, in hexadecimal digits.
    pub tasks: String,
    /// Number of prompts.
    pub n: usize,
    /// Tokens that an answer had at most.
    pub max_new_tokens: usize,
    /// Rendering of the prompts as tokens.
    pub rendering: Rendering,
    /// Loss that was counted.
    pub loss: Loss,
}

/// Ways in which prompts become tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rendering {
    /// As messages, by the chat template.
    Messages,
    /// As plain texts.
    Text,
    /// Some in one way and some in the other.
    Both,
}

impl Rendering {
    /// True if a prompt is rendered so, as far as can be known: of tokens it cannot.
    pub fn fits(self, prompt: &Prompt) -> bool {
        match (self, prompt) {
            (Self::Both, _) | (_, Prompt::Tokens(_)) => true,
            (Self::Messages, prompt) => matches!(prompt, Prompt::Messages(_)),
            (Self::Text, prompt) => matches!(prompt, Prompt::Text(_)),
        }
    }
}

/// Loss of an answer, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// 1 where the target is right and the answer wrong.
    Answers,
    /// The share of its tokens from the first on that differs from the target's.
    Tokens,
    /// The former for prompts with a known right answer, the latter for those without.
    Both,
}

impl Certificate {
    /// A checksum of everything but the checksum itself. It notices accidents, not forgery.
    ///
    /// # Errors
    /// Never for numbers that JSON can hold.
    pub fn sum(&self) -> Result<String, serde_json::Error> {
        let content = Self { checksum: String::new(), ..self.clone() };
        Ok(written(Checksum::of(&serde_json::to_vec(&content)?)))
    }

    /// The file's text, with the checksum that belongs to it.
    ///
    /// # Errors
    /// Never for numbers that JSON can hold.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        // Numbers may be read back a rounding away from what was written: the checksum is of what will be read.
        let read: Self = serde_json::from_str(&serde_json::to_string(self)?)?;
        Ok(serde_json::to_string_pretty(&Self { checksum: read.sum()?, ..self.clone() })? + "\n")
    }

    /// Reads a certificate and checks it against itself.
    ///
    /// # Errors
    /// When it cannot be read, is of another version, was changed, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self, CertificateError> {
        // A reason may quote the file.
        let unreadable =
            |reason: String| CertificateError::Unreadable { path: path.to_owned(), reason: shown(&reason) };
        let text = read_text(path, LARGEST).map_err(|error| unreadable(error.to_string()))?;
        let Object(versioned): Object<Versioned> =
            serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        if versioned.version != VERSION {
            return Err(CertificateError::Version { path: path.to_owned(), version: versioned.version });
        }
        let Object(certificate): Object<Self> =
            serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        if certificate.sum().map_err(|error| unreadable(error.to_string()))? != certificate.checksum {
            return Err(CertificateError::Changed { path: path.to_owned() });
        }
        let contradiction = |reason| CertificateError::Contradiction { path: path.to_owned(), reason };
        certificate.check().map_err(contradiction)?;
        Ok(certificate)
    }

    /// True if nothing is at a path, or a file that is, or was before it was damaged, a certificate: one that may be
    /// replaced.
    ///
    /// # Errors
    /// When what is there cannot be read.
    pub fn may_replace(path: &Path) -> Result<bool, ReadError> {
        files::may_replace(path, LARGEST + 1, |bytes| bytes.len() as u64 <= LARGEST && begins_like_one(bytes))
    }

    /// Upper bound on the p-value of a plan that passes, so that all claims hold together.
    pub fn corrected_delta(&self) -> f64 {
        self.delta / self.claims.max(1) as f64
    }

    /// The rest of a sentence where something in it cannot be.
    fn check(&self) -> Result<(), String> {
        let Self { floor, eps, delta, claims, .. } = *self;
        let within = |share: f64| share > 0.0 && share < 1.0;
        if !within(floor) || !within(delta) || (floor + eps - 1.0).abs() > ROUNDING {
            return Err(format!("a floor of {floor}, a loss of {eps} and a delta of {delta} cannot be"));
        }
        if !self.levels.iter().map(|level| level.level.as_str()).eq(LEVELS) || claims < LEVELS.len() {
            return Err(format!("it does not make its claims about the levels {}", LEVELS.join(", ")));
        }
        let n = self.calibration.n;
        if self.levels.iter().map(|level| level.n).try_fold(0, usize::checked_add) != Some(n) {
            return Err(format!("its levels do not have the {n} prompts of its calibration"));
        }
        self.levels.iter().try_for_each(|level| self.check_level(level))
    }

    fn check_level(&self, level: &CertifiedLevel) -> Result<(), String> {
        let name = &level.level;
        if !level.tested.iter().map(|test| &test.plan).eq(self.bundles.iter().take(level.tested.len())) {
            return Err(format!("plans were tested in another order for {name} prompts"));
        }
        let fits =
            |losses: f64, risk: f64| (0.0..=1.0).contains(&risk) && (losses - risk * level.n as f64).abs() < 1e-6;
        if !level.tested.iter().all(|test| fits(test.losses, test.risk)) {
            return Err(format!("losses and risks for {name} prompts differ"));
        }
        if self.calibration.loss == Loss::Answers && !level.tested.iter().all(|test| test.losses.fract() == 0.0) {
            return Err(format!("right answers for {name} prompts were lost in part"));
        }
        // No p-value is lower than that of no loss at all.
        let lowest = (1.0 - self.eps).powf(level.n as f64) * (1.0 - P_ROUNDING);
        if !level.tested.iter().all(|test| (lowest..=1.0).contains(&test.p_value)) {
            return Err(format!("a p-value for {name} prompts cannot come from {} prompts", level.n));
        }
        let passed = level.tested.iter().take_while(|test| test.p_value <= self.corrected_delta()).count();
        if level.tested[..passed].iter().any(|test| test.risk >= self.eps) {
            return Err(format!("a plan for {name} prompts passed that lost as much as may be lost, or more"));
        }
        let deployed = passed.checked_sub(1).map(|last| &level.tested[last]);
        let stated = (level.plan.as_ref(), level.losses, level.risk, level.p_value);
        let tested = deployed
            .map_or((None, 0.0, 0.0, None), |test| (Some(&test.plan), test.losses, test.risk, Some(test.p_value)));
        if stated != tested || level.tested.len() > passed + 1 {
            return Err(format!("the plan for {name} prompts is not the last that passed"));
        }
        Ok(())
    }
}

/// True if a file begins as every certificate does that was written here, `{"version":`, as far as it goes.
fn begins_like_one(bytes: &[u8]) -> bool {
    let text: Vec<u8> =
        bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(BEGINNING.len()).collect();
    BEGINNING.starts_with(&text)
}

/// Beginning of every certificate, but for blanks.
const BEGINNING: &[u8] = b"{\"version\":";

/// The field that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}
