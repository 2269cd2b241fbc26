//! Certificates that hold for a loaded target, and the plans that they allow.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use paceline_router::Lossy;
use paceline_router::network::LEVELS;

use super::{Certificate, CertificateError, Conditions, Loss};
use crate::answer::Prompt;
use crate::checkpoint::{CheckpointError, side_file};
use crate::config::{EngineConfig, GenerationConfig, SelfDraft};
use crate::local::{locate, stored_format};
use crate::lossy::{Capabilities, LossyPlan};

/// The folder beside a target in which certificates are found by themselves.
pub const FOLDER: &str = "certificates";

/// Why no router judges prompts, with what to do about it: the end of a sentence, without its full stop.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoRouter {
    /// It was to be left out.
    #[error("`--no-router` leaves it out here: take that flag back")]
    LeftOut,
    /// There is none beside the target.
    #[error("there is none beside this target: train one with `paceline-train router`")]
    Absent,
    /// The one beside the target cannot be used, for this reason.
    #[error("the one beside this target cannot be used: {}", .0.trim_end_matches('.'))]
    Refused(String),
}

/// A certificate that holds for a loaded target.
#[derive(Clone, Debug)]
pub struct Certified {
    path: PathBuf,
    certificate: Certificate,
    /// A plan for each of the router's levels.
    plans: Vec<LossyPlan>,
}

impl Certified {
    /// A certificate for a target under these conditions and with these capabilities; `here` says why where no router judges prompts.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn new(
        path: &Path,
        here: Result<&Conditions, &NoRouter>,
        capabilities: &Capabilities<'_>,
    ) -> Result<Self, CertificateError> {
        let certificate = Certificate::read(path)?;
        let path = path.to_owned();
        let here = match here {
            Ok(here) => here,
            Err(why) => return Err(CertificateError::NoRouter { path, why: why.clone() }),
        };
        if let Some((what, certified, found)) = certificate.conditions.difference(here) {
            let (certified, found) = (certified.to_owned(), found.to_owned());
            return Err(CertificateError::Other { path, what, certified, found });
        }
        let plan = |lossy: Option<&Lossy>| match lossy {
            None => Ok(LossyPlan::None),
            Some(lossy) => LossyPlan::of_router(lossy, capabilities).ok_or_else(|| match lossy {
                Lossy::Precision(name) => CertificateError::NotLoaded { path: path.clone(), precision: name.clone() },
                plan => CertificateError::Impossible { path: path.clone(), plan: plan.clone() },
            }),
        };
        let plans = certificate.levels.iter().map(|level| plan(level.plan.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { path, certificate, plans })
    }

    /// Contents of the file.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that an answer to a prompt is of the kind that was calibrated: of no more tokens, and to a prompt that becomes
    /// tokens in the same way, as far as can be known.
    ///
    /// # Errors
    /// The first thing that differs.
    pub fn covers(&self, prompt: &Prompt, config: &GenerationConfig) -> Result<(), CertificateError> {
        let (path, calibration) = (self.path.clone(), &self.certificate.calibration);
        let (asked, calibrated) = (config.max_new_tokens, calibration.max_new_tokens);
        if asked > calibrated {
            return Err(CertificateError::TooLong { path, asked, calibrated });
        }
        if !calibration.rendering.fits(prompt) {
            return Err(CertificateError::OtherRendering { path, calibrated: calibration.rendering });
        }
        Ok(())
    }

    /// The plan for prompts of this level, by its place among the router's.
    pub fn plan(&self, level: usize) -> &LossyPlan {
        self.plans.get(level).unwrap_or(&LossyPlan::None)
    }

    /// The plan for all prompts, where levels do not differ: then none has to be judged.
    pub fn only_plan(&self) -> Option<&LossyPlan> {
        let (first, others) = self.plans.split_first()?;
        others.iter().all(|plan| plan == first).then_some(first)
    }

    /// Sentence on its promise for prompts of a level, or for all of them alike.
    pub fn sentence(&self, level: Option<usize>) -> String {
        let Certificate { floor, eps, delta, levels, .. } = &self.certificate;
        let stated = levels.get(level.unwrap_or(0)).and_then(|level| level.plan.as_ref());
        let allowed = stated.map_or("nothing to be given up".to_owned(), |plan| format!("this plan: {plan}"));
        let prompts = level
            .and_then(|level| LEVELS.get(level))
            .map_or("all prompts".to_owned(), |name| format!("prompts that the router takes to be {name}"));
        let share = Rounded(100.0 * eps);
        let promised = match self.certificate.calibration.loss {
            Loss::Answers => format!("at most {share:.4}% of the answers lose what the target had right"),
            Loss::Tokens => format!(
                "at most {share:.4}% of an answer's tokens, in the mean, come from the first on that differs from the target's"
            ),
            Loss::Both => format!(
                "at most {share:.4}% is lost in the mean, where an answer loses all if the target had it right and it is wrong, and, if nobody knows the right one, the share of its tokens from the first on that differs from the target's"
            ),
        };
        format!(
            "For a quality floor of {floor}, the certificate {} allows {allowed}, for {prompts}; with a confidence of {:.4}% {promised}, as far as prompts are like the {} of its calibration.",
            self.path.display(),
            Rounded(100.0 * (1.0 - delta)),
            self.certificate.calibration.n
        )
    }
}

/// A number without the zeros at its end.
struct Rounded(f64);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.*}", f.precision().unwrap_or(4), self.0);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// The certificates that an engine was given or found beside its target.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    fitting: Vec<Arc<Certified>>,
    /// Why others that were found do not hold here.
    refused: Vec<String>,
}

impl Certificates {
    /// Reads those that the config names, or, where it names none, those beside the target. `here` is asked where there are any;
    /// it says why where no router judges prompts.
    ///
    /// # Errors
    /// When one that was named does not hold here. One that was found is left out, and told when it is missed.
    pub fn open(
        config: &EngineConfig,
        directory: &Path,
        capabilities: &Capabilities<'_>,
        here: impl FnOnce() -> Result<Result<Conditions, NoRouter>, CheckpointError>,
    ) -> Result<Self, CertificateError> {
        let are_named = !config.certificate.is_empty();
        let paths = if are_named { config.certificate.clone() } else { beside(directory) };
        if paths.is_empty() {
            return Ok(Self::default());
        }
        let here = here()?;
        let mut all = Self::default();
        for path in paths {
            match Certified::new(&path, here.as_ref(), capabilities) {
                Ok(certified) => all.fitting.push(Arc::new(certified)),
                Err(error) if are_named => return Err(error),
                Err(error) => all.refused.push(error.to_string()),
            }
        }
        Ok(all)
    }

    /// The certificate with the lowest floor that is not below this one.
    ///
    /// # Errors
    /// When there is none, with what there is instead.
    pub fn for_floor(&self, floor: f64) -> Result<Arc<Certified>, CertificateError> {
        let fitting = self.fitting.iter().filter(|certified| certified.certificate.floor >= floor);
        let lowest = fitting.min_by(|a, b| a.certificate.floor.total_cmp(&b.certificate.floor));
        lowest.cloned().ok_or_else(|| CertificateError::NoneForFloor {
            floor,
            known: self.fitting.iter().map(|certified| certified.certificate.floor).collect(),
            refused: self.refused.first().cloned(),
        })
    }
}

/// The certificates in the folder beside a target, by name.
fn beside(directory: &Path) -> Vec<PathBuf> {
    // A folder that is not there or cannot be read holds none; what is missed is told when it is asked for.
    let Ok(entries) = std::fs::read_dir(side_file(directory, FOLDER)) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
    found.sort();
    found
}

/// The lower precisions that the certificates of a config have the target answer in: of those it names, or else of those beside
/// the target, and of them those for a target of its precision. Whoever loads an engine for bounded answers adds them to
/// [`EngineConfig::self_draft`]. Files that cannot be read name none: loading says why.
pub fn needed_precisions(config: &EngineConfig) -> Vec<SelfDraft> {
    let model = config.model.as_deref().and_then(|model| locate(model).ok());
    let model = model.as_deref();
    let paths = match &*config.certificate {
        [] => model.map(beside).unwrap_or_default(),
        named => named.to_vec(),
    };
    let mut certificates: Vec<Certificate> = paths.iter().filter_map(|path| Certificate::read(path).ok()).collect();
    if certificates.is_empty() {
        return Vec::new();
    }
    if let Some(target) = config.precision.format().or_else(|| stored_format(model?)) {
        // One for another precision is void, and what it needs may be no lower than the target's.
        certificates.retain(|certificate| certificate.conditions.precision == target.to_string());
    }
    let plans = certificates.into_iter().flat_map(|certificate| certificate.levels).filter_map(|level| level.plan);
    let named = plans.filter_map(|plan| if let Lossy::Precision(name) = plan { Some(name) } else { None });
    let mut needed: Vec<SelfDraft> = Vec::new();
    for precision in named.filter_map(|name| serde_json::from_value(name.into()).ok()) {
        if !needed.contains(&precision) {
            needed.push(precision);
        }
    }
    needed
}
