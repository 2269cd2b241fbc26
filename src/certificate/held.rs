//! Certificates that hold for a loaded target, and the plans that they allow.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use paceline_router::Lossy;
use paceline_router::network::LEVELS;

use super::{Certificate, CertificateError, Conditions};
use crate::checkpoint::CheckpointError;
use crate::config::{EngineConfig, SelfDraft};
use crate::error::Error;
use crate::lossy::{LossyPlan, Means};

/// The folder beside a target in which certificates are found by themselves.
pub const FOLDER: &str = "certificates";

/// A certificate that holds for a loaded target.
#[derive(Clone, Debug)]
pub struct Certified {
    path: PathBuf,
    certificate: Certificate,
    /// A plan for each of the router's levels.
    plans: Vec<LossyPlan>,
}

impl Certified {
    /// A certificate for a target under these conditions and with these means; `here` is `None` without a router.
    ///
    /// # Errors
    /// What does not fit.
    pub fn new(path: &Path, here: Option<&Conditions>, means: &Means<'_>) -> Result<Self, CertificateError> {
        let certificate = Certificate::read(path)?;
        let path = path.to_owned();
        let Some(here) = here else { return Err(CertificateError::NoRouter { path }) };
        if let Some((what, certified, found)) = certificate.conditions.difference(here) {
            let (certified, found) = (certified.to_owned(), found.to_owned());
            return Err(CertificateError::Other { path, what, certified, found });
        }
        let plan = |lossy: Option<&Lossy>| match lossy {
            None => Ok(LossyPlan::None),
            Some(lossy) => LossyPlan::of_router(lossy, means).ok_or_else(|| match lossy {
                Lossy::Precision(name) => CertificateError::NotLoaded { path: path.clone(), precision: name.clone() },
                plan => CertificateError::Impossible { path: path.clone(), plan: plan.clone() },
            }),
        };
        let plans = certificate.levels.iter().map(|level| plan(level.plan.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { path, certificate, plans })
    }

    /// What the file says.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
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

    /// What it says of prompts of a level, or of all of them alike, in a sentence.
    pub fn sentence(&self, level: Option<usize>) -> String {
        let Certificate { floor, eps, delta, levels, .. } = &self.certificate;
        let stated = levels.get(level.unwrap_or(0)).and_then(|level| level.plan.as_ref());
        let allowed = stated.map_or("nothing to be given up".to_owned(), |plan| format!("this plan: {plan}"));
        let prompts = level
            .and_then(|level| LEVELS.get(level))
            .map_or("all prompts".to_owned(), |name| format!("prompts that the router takes to be {name}"));
        format!(
            "For a quality floor of {floor}, the certificate {} allows {allowed}, for {prompts}; with a confidence of {:.4}% at most {:.4}% of the answers lose what the target had right, as far as prompts are like the {} of its calibration.",
            self.path.display(),
            Rounded(100.0 * (1.0 - delta)),
            Rounded(100.0 * eps),
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
    /// Reads those that the config names, and those beside the target. `here` is asked where there are any; it says `None`
    /// without a router.
    ///
    /// # Errors
    /// When one that was named does not hold here. One that was found is left out, and told when it is missed.
    pub fn open(
        config: &EngineConfig,
        directory: &Path,
        means: &Means<'_>,
        here: impl FnOnce() -> Result<Option<Conditions>, CheckpointError>,
    ) -> Result<Self, Error> {
        let found = beside(directory);
        if config.certificate.is_empty() && found.is_empty() {
            return Ok(Self::default());
        }
        let here = here()?;
        let mut all = Self::default();
        for path in &config.certificate {
            all.fitting.push(Arc::new(Certified::new(path, here.as_ref(), means)?));
        }
        for path in found {
            match Certified::new(&path, here.as_ref(), means) {
                Ok(certified) => all.fitting.push(Arc::new(certified)),
                Err(error) => all.refused.push(error.to_string()),
            }
        }
        Ok(all)
    }

    /// The certificate with the lowest floor that is not below this one.
    ///
    /// # Errors
    /// When there is none, with what there is instead.
    pub fn for_floor(&self, floor: f64) -> Result<Arc<Certified>, Error> {
        let fitting = self.fitting.iter().filter(|certified| certified.certificate.floor >= floor);
        let lowest = fitting.min_by(|a, b| a.certificate.floor.total_cmp(&b.certificate.floor));
        lowest.cloned().ok_or_else(|| Error::NoCertificate {
            floor,
            known: self.fitting.iter().map(|certified| certified.certificate.floor).collect(),
            refused: self.refused.first().cloned(),
        })
    }
}

/// The certificates in the folder beside a target, by name.
fn beside(directory: &Path) -> Vec<PathBuf> {
    // A folder that is not there or cannot be read holds none; what is missed is told when it is asked for.
    let Ok(entries) = std::fs::read_dir(directory.join(FOLDER)) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
    found.sort();
    found
}

/// The lower precisions that the certificates of a config have the target answer in, named ones and those beside the target.
/// Whoever loads an engine for bounded answers adds them to [`EngineConfig::self_draft`]. Files that cannot be read name none:
/// loading says why.
pub fn needed_precisions(config: &EngineConfig) -> Vec<SelfDraft> {
    let found = config.model.as_deref().map(beside).unwrap_or_default();
    let certificates = config.certificate.iter().chain(&found).filter_map(|path| Certificate::read(path).ok());
    let plans = certificates.flat_map(|certificate| certificate.levels).filter_map(|level| level.plan);
    let named = plans.filter_map(|plan| if let Lossy::Precision(name) = plan { Some(name) } else { None });
    let mut needed: Vec<SelfDraft> = Vec::new();
    for precision in named.filter_map(|name| serde_json::from_value(name.into()).ok()) {
        if !needed.contains(&precision) {
            needed.push(precision);
        }
    }
    needed
}
