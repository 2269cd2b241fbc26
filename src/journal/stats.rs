//! Statistics of journalled answers: what was adapted, what that saved, and what it cost in quality.
//!
//! Nothing is added up that was not measured in the same way: answers without a measured plain step are left out of
//! what was saved and counted, and energy is summed for each source by itself.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::entry::{Adaptation, Entry};
use super::period::Period;
use crate::visible::shown_path;

/// Assumption about the energy of plain decoding, which was not measured.
const ASSUMPTION: &str =
    "plain decoding is taken to draw the power that was measured, for the time it would have taken";

/// Answers of one kind, together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Answers.
    pub answers: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Answers in which something was adapted.
    pub adapted: u64,
    /// Their share, from 0 to 1; `null` of no answers.
    pub adapted_share: Option<f64>,
    /// Tokens that came of a step of the target; `null` where none was taken.
    pub tokens_per_step: Option<f64>,
    /// The share of drafted tokens, of those that were looked at, that were kept; `null` where none was.
    pub acceptance: Option<f64>,
    /// Time saved against plain decoding.
    pub time: TimeSaved,
    /// Quality that the answers kept.
    pub quality: QualityKept,
}

/// Time of decoding, the prompt's excluded, against that of plain decoding.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TimeSaved {
    /// Answers for which the cost of a plain step was measured; the numbers below are theirs.
    pub answers: u64,
    /// Milliseconds that decoding took.
    pub decode_ms: f64,
    /// Milliseconds that plain steps would have taken: as many as there are tokens, each as long as one was measured to take.
    pub plain_ms: f64,
    /// The share of these that was saved, below 0 if none was; `null` of no answers.
    pub saved_share: Option<f64>,
}

/// Energy from one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EnergyUsed {
    /// Source of the energy: a meter, or a formula.
    pub source: String,
    /// Answers for which it did.
    pub answers: u64,
    /// Watt-hours that they took, prompts included.
    pub wh: f64,
    /// Those for which it is known what plain decoding takes.
    pub compared: u64,
    /// Watt-hours that they took.
    pub compared_wh: f64,
    /// Watt-hours of plain decoding instead, by `assumption`.
    pub plain_wh: f64,
    /// The share of these that was saved, below 0 if none was; `null` where nothing can be compared.
    pub saved_share: Option<f64>,
    /// Assumption that plain decoding's energy is derived from.
    pub assumption: &'static str,
    /// Why numbers of this source may be wrong, each reason once.
    pub doubts: Vec<String>,
}

/// Share of the target's quality that answers kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct QualityKept {
    /// Answers with the tokens of plain decoding, which count 1.
    pub exact: u64,
    /// Answers that gave something up, by the router's probability that they are the target's.
    pub judged: u64,
    /// Answers of which nobody can tell; they are not in the mean.
    pub unknown: u64,
    /// The mean of the exact and the judged, from 0 to 1; `null` of none.
    pub mean: Option<f64>,
}

/// Number of answers with each adaptation; one may have several.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Adapted {
    /// Tokens were drafted.
    pub drafted: u64,
    /// Tokens left the target early, without verification.
    pub early_exit: u64,
    /// The target did without layers, or parts of them.
    pub layers_skipped: u64,
    /// The target answered in a lower precision.
    pub lower_precision: u64,
}

/// Statistics of a period's answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AdaptationStats {
    /// The journal.
    pub journal: String,
    /// Length of the period, as in `24h`.
    pub period: String,
    /// When the first of the answers was done: milliseconds since 1970, UTC.
    pub first_at: Option<u64>,
    /// When the last was.
    pub last_at: Option<u64>,
    /// All answers together.
    #[serde(flatten)]
    pub all: Group,
    /// Tokens of their prompts.
    pub prompt_tokens: u64,
    /// Milliseconds from the start of work on each prompt to its last token, summed.
    pub latency_ms: f64,
    /// Answers by what was adapted.
    pub adaptations: Adapted,
    /// Energy by its source.
    pub energy: Vec<EnergyUsed>,
    /// Answers whose energy nothing told.
    pub without_energy: u64,
    /// Answers by what drafted most, or `none`.
    pub by_drafter: BTreeMap<String, Group>,
    /// Answers by how difficult the router took the prompt to be; `unjudged` where it was not asked.
    pub by_difficulty: BTreeMap<String, Group>,
    /// Things that deserve attention, in sentences.
    pub warnings: Vec<String>,
}

/// A quotient of things that there are.
fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

impl Entry {
    /// Milliseconds of plain decoding instead, if that is known.
    fn plain_ms(&self) -> Option<f64> {
        Some(self.plain_step_ms? * self.tokens as f64).filter(|&plain| plain > 0.0)
    }

    /// Watt-hours that it took and that plain decoding would have taken, by [`ASSUMPTION`].
    fn compared_wh(&self) -> Option<(f64, f64)> {
        let (wh, plain_ms) = (self.energy_wh?, self.plain_ms()?);
        let stretch = share(self.latency_ms - self.decode_ms + plain_ms, self.latency_ms)?;
        Some((wh, wh * stretch.max(0.0)))
    }
}

impl TimeSaved {
    fn of(entries: &[&Entry]) -> Self {
        let mut time = Self::default();
        for (decode, plain) in entries.iter().filter_map(|entry| Some((entry.decode_ms, entry.plain_ms()?))) {
            time.answers += 1;
            time.decode_ms += decode;
            time.plain_ms += plain;
        }
        time.saved_share = share(time.plain_ms - time.decode_ms, time.plain_ms);
        time
    }
}

impl QualityKept {
    fn of(entries: &[&Entry]) -> Self {
        let count = |of: fn(&Entry) -> bool| entries.iter().filter(|entry| of(entry)).count() as u64;
        let exact = count(|entry| entry.exact);
        let judged: Vec<f64> = entries.iter().filter(|entry| !entry.exact).filter_map(|entry| entry.quality).collect();
        let (sum, known) = (exact as f64 + judged.iter().sum::<f64>(), exact + judged.len() as u64);
        Self {
            exact,
            judged: judged.len() as u64,
            unknown: entries.len() as u64 - known,
            mean: share(sum, known as f64),
        }
    }
}

impl EnergyUsed {
    /// For each source the answers whose energy it told.
    fn by_source(entries: &[&Entry]) -> Vec<Self> {
        let mut sources: BTreeMap<&str, Self> = BTreeMap::new();
        for entry in entries {
            let Some(wh) = entry.energy_wh else { continue };
            let used = sources.entry(&entry.energy_source).or_insert_with(|| Self {
                source: entry.energy_source.clone(),
                assumption: ASSUMPTION,
                ..Self::default()
            });
            used.answers += 1;
            used.wh += wh;
            if let Some((wh, plain_wh)) = entry.compared_wh() {
                used.compared += 1;
                used.compared_wh += wh;
                used.plain_wh += plain_wh;
            }
            let doubt = entry.energy_doubt.as_ref().filter(|&doubt| !used.doubts.contains(doubt));
            used.doubts.extend(doubt.cloned());
        }
        let mut sources: Vec<Self> = sources.into_values().collect();
        for used in &mut sources {
            used.saved_share = share(used.plain_wh - used.compared_wh, used.plain_wh);
        }
        sources
    }
}

impl Group {
    fn of(entries: &[&Entry]) -> Self {
        let sum = |of: fn(&Entry) -> u64| entries.iter().map(|entry| of(entry)).sum::<u64>();
        let (answers, tokens) = (entries.len() as u64, sum(|entry| entry.tokens));
        let adapted = entries.iter().filter(|entry| !entry.adapted.is_empty()).count() as u64;
        Self {
            answers,
            tokens,
            adapted,
            adapted_share: share(adapted as f64, answers as f64),
            tokens_per_step: share(tokens as f64, sum(|entry| entry.steps) as f64),
            acceptance: share(sum(|entry| entry.accepted) as f64, sum(|entry| entry.evaluated) as f64),
            time: TimeSaved::of(entries),
            quality: QualityKept::of(entries),
        }
    }

    /// A group for each name.
    fn by<'a>(entries: &[&'a Entry], name: impl Fn(&'a Entry) -> &'a str) -> BTreeMap<String, Self> {
        let mut kinds: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for &entry in entries {
            kinds.entry(name(entry)).or_default().push(entry);
        }
        kinds.into_iter().map(|(name, entries)| (name.to_owned(), Self::of(&entries))).collect()
    }
}

impl AdaptationStats {
    /// Of a journal that is still to be written.
    pub(crate) fn of_nothing(journal: &Path, period: Period) -> Self {
        Self::of(&[], shown_path(journal), period, Vec::new())
    }

    /// Statistics of these answers.
    pub(super) fn of(entries: &[&Entry], journal: String, period: Period, warnings: Vec<String>) -> Self {
        let with =
            |adaptation: Adaptation| entries.iter().filter(|entry| entry.adapted.contains(&adaptation)).count() as u64;
        Self {
            journal,
            period: period.to_string(),
            first_at: entries.iter().map(|entry| entry.at).min(),
            last_at: entries.iter().map(|entry| entry.at).max(),
            all: Group::of(entries),
            prompt_tokens: entries.iter().map(|entry| entry.prompt_tokens).sum(),
            latency_ms: entries.iter().map(|entry| entry.latency_ms).sum(),
            adaptations: Adapted {
                drafted: with(Adaptation::Drafted),
                early_exit: with(Adaptation::EarlyExit),
                layers_skipped: with(Adaptation::LayersSkipped),
                lower_precision: with(Adaptation::LowerPrecision),
            },
            energy: EnergyUsed::by_source(entries),
            without_energy: entries.iter().filter(|entry| entry.energy_wh.is_none()).count() as u64,
            by_drafter: Group::by(entries, |entry| &entry.drafter),
            by_difficulty: Group::by(entries, |entry| entry.difficulty.as_deref().unwrap_or("unjudged")),
            warnings,
        }
    }
}
