//! Certificates held to prompts that they were not calibrated on: what their policies lose when the runtime follows them.

use std::path::PathBuf;

use anyhow::anyhow;
use paceline::certificate::Certificate;
use paceline::command::Failure;
use paceline::command::progress::{self, Progress};
use paceline::{Answer, Engine, GenerationConfig, Quality};
use paceline_router::network::LEVELS;

use super::measure::level;
use super::tasks::Task;

/// A policy's losses on some prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lost {
    /// Prompts.
    pub n: usize,
    /// Their losses, summed.
    pub losses: f64,
    /// Prompts with a known answer.
    pub checkable: usize,
    /// Right answers of the target in full.
    pub target_right: usize,
    /// Right answers of the policy.
    pub policy_right: usize,
}

impl Lost {
    fn add(&mut self, task: &Task, target: &Answer, policy: &Answer) {
        self.n += 1;
        self.losses += task.loss(target, policy);
        if let (Some(target), Some(policy)) = (task.is_right(target), task.is_right(policy)) {
            self.checkable += 1;
            self.target_right += usize::from(target);
            self.policy_right += usize::from(policy);
        }
    }

    /// The mean loss.
    pub fn risk(&self) -> f64 {
        self.losses / self.n.max(1) as f64
    }

    /// By how much the share of right answers fell; what the policy has right and the target had wrong counts against it.
    pub fn accuracy_drop(&self) -> Option<f64> {
        let difference = self.target_right as f64 - self.policy_right as f64;
        (self.checkable > 0).then(|| difference / self.checkable as f64)
    }

    /// Both together.
    fn and(self, other: Self) -> Self {
        Self {
            n: self.n + other.n,
            losses: self.losses + other.losses,
            checkable: self.checkable + other.checkable,
            target_right: self.target_right + other.target_right,
            policy_right: self.policy_right + other.policy_right,
        }
    }
}

/// The losses of one certificate's policy.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The file.
    pub path: PathBuf,
    /// The certificate.
    pub certificate: Certificate,
    /// By level.
    pub levels: [Lost; LEVELS.len()],
}

impl Checked {
    /// Losses on all prompts together.
    pub fn all(&self) -> Lost {
        self.levels.iter().fold(Lost::default(), |all, level| all.and(*level))
    }
}

/// Answers prompts in full and as each certificate has it. The engine was loaded with them.
///
/// # Errors
/// When a prompt cannot be answered.
pub fn check(
    engine: &Engine,
    tasks: &[Task],
    certificates: Vec<(PathBuf, Certificate)>,
    answer: &GenerationConfig,
) -> Result<Vec<Checked>, Failure> {
    let bounded = |(_, certificate): &(PathBuf, Certificate)| GenerationConfig {
        quality: Quality::Bounded,
        quality_floor: Some(certificate.floor),
        ..answer.clone()
    };
    let settings: Vec<GenerationConfig> = certificates.iter().map(bounded).collect();
    let begin = |(path, certificate)| Checked { path, certificate, levels: [Lost::default(); LEVELS.len()] };
    let mut all: Vec<Checked> = certificates.into_iter().map(begin).collect();
    let mut progress = Progress::new();
    for (done, task) in tasks.iter().enumerate() {
        progress.show("checking: prompts", done, tasks.len());
        let told = |error: paceline::Error| anyhow!("The prompt {} cannot be answered: {error}", task.id);
        let begin = |config: &GenerationConfig| engine.generate(task.prompt.clone(), config).map_err(told);
        let target = begin(answer)?;
        let begun: Vec<_> = settings.iter().map(begin).collect::<Result<_, _>>()?;
        let target = target.finish().map_err(told)?;
        let level = level(&target)?;
        for (checked, begun) in all.iter_mut().zip(begun) {
            checked.levels[level].add(task, &target, &begun.finish().map_err(told)?);
        }
    }
    progress::clear();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_in_accuracy_count_both_ways_and_losses_one() {
        let one = Lost { n: 100, losses: 4.0, checkable: 100, target_right: 88, policy_right: 86 };
        assert_eq!((one.risk(), one.accuracy_drop()), (0.04, Some(0.02)));
        let all = one.and(Lost { n: 100, ..Lost::default() });
        assert_eq!((all.risk(), all.accuracy_drop()), (0.02, Some(0.02)));
        assert_eq!(Lost::default().accuracy_drop(), None);
    }
}
