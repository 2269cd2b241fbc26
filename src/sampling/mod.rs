//! From logits to a token: penalties, temperature, filters, and a draw that does not depend on what was drafted.
//!
//! The token at generated index `t` is the argmax of the processed logits plus Gumbel noise that depends on
//! (seed, t, token) alone ([`gumbel`]). Plain decoding and the verification of drafts therefore pick the same
//! token from the same logits, and a draft is accepted if and only if it equals the pick: there is no
//! rejection step and no residual distribution. A drafter that draws with a [`Sampler`] of the same
//! configuration shares the noise and so agrees with the target as often as it can without knowing the
//! target's distribution.
//!
//! The draw is exact for a given build: the noise goes through the platform's `ln`, so two builds may differ
//! in the last bit of a score, and in the token where two scores are that close.

mod config;
mod filters;
mod gumbel;
mod philox;
#[cfg(test)]
mod statistics_tests;
#[cfg(test)]
mod tests;

pub use config::SamplingConfig;

use filters::TokenSet;
use gumbel::{GumbelNoise, Scored};

/// A token and its logit after the penalties.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    logit: f32,
    id: u32,
}

/// Why no token can be drawn.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// A setting is outside its range.
    #[error("The sampling setting {field} is {value}, but it must be {allowed}.")]
    OutOfRange {
        /// The setting's name, as in a configuration file.
        field: &'static str,
        /// The value it had.
        value: f32,
        /// The range, in words.
        allowed: &'static str,
    },
    /// There were no logits at all.
    #[error("The model gave no logits for generated token {index}; check that its output head matches its vocabulary.")]
    EmptyLogits {
        /// Generated index, 0 for the first token after the prompt.
        index: u64,
    },
    /// A logit is NaN or +inf.
    #[error(
        "The logit of vocabulary id {token} is {value} at generated token {index}, so no token can be chosen; the \
         weights may be damaged or the precision too low for this model: check the checkpoint, or try a higher precision."
    )]
    NotFinite {
        /// Generated index, 0 for the first token after the prompt.
        index: u64,
        /// The first vocabulary id with such a logit.
        token: u32,
        /// The logit.
        value: f32,
    },
    /// Every logit is -inf.
    #[error(
        "Every logit is -inf at generated token {index}, so no token can be chosen; the weights may be damaged or the \
         precision too low for this model: check the checkpoint, or try a higher precision."
    )]
    NothingPossible {
        /// Generated index, 0 for the first token after the prompt.
        index: u64,
    },
    /// The penalties drove the logits out of the range of f32.
    #[error(
        "The repetition penalty {repetition_penalty} and the presence penalty {presence_penalty} leave no usable logits \
         at generated token {index}; choose values nearer to 1 and 0."
    )]
    PenaltyOverflow {
        /// Generated index, 0 for the first token after the prompt.
        index: u64,
        /// The configured repetition penalty.
        repetition_penalty: f32,
        /// The configured presence penalty.
        presence_penalty: f32,
    },
    /// The history is shorter than the number of tokens said to be generated.
    #[error(
        "The history has {length} tokens but generated token {index} is asked for; the history must hold the prompt and \
         all {index} generated tokens before it."
    )]
    HistoryTooShort {
        /// Generated index, 0 for the first token after the prompt.
        index: u64,
        /// Length of the history.
        length: usize,
    },
}

/// Draws tokens. It owns scratch buffers but no state: what it returns depends on the arguments of the call and on the
/// configuration alone, never on earlier calls.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplingConfig,
    noise: GumbelNoise,
    /// Logits after the penalties; unused while there are none.
    scores: Vec<f32>,
    seen: TokenSet,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for these settings.
    ///
    /// # Errors
    /// [`SamplingError::OutOfRange`] if a setting is outside its range.
    pub fn new(config: &SamplingConfig) -> Result<Self, SamplingError> {
        config.validate()?;
        Ok(Self {
            config: config.clone(),
            noise: GumbelNoise::new(config.seed),
            scores: Vec::new(),
            seen: TokenSet::default(),
            candidates: Vec::new(),
        })
    }

    /// The token at generated index `index`, 0 for the first token after the prompt.
    ///
    /// `logits` `[vocab]` are the model's raw logits for that position. `history` is the prompt followed by the `index`
    /// tokens generated so far, accepted or assumed drafts included, so the prompt is its first
    /// `history.len() - index` tokens; only the penalties look at it. Ties go to the smallest id. At temperature 0 the
    /// filters and the seed have no effect.
    ///
    /// # Errors
    /// If there are no logits, if one is NaN or +inf, if all are -inf (before or after the penalties), or if `history`
    /// is shorter than `index`.
    pub fn pick(&mut self, logits: &[f32], history: &[u32], index: u64) -> Result<u32, SamplingError> {
        let best = self.prepare(logits, history, index)?;
        if self.config.temperature == 0.0 {
            return Ok(best.id);
        }
        if self.has_filters() {
            self.select(logits, best);
        }
        Ok(self.draw(logits, index, best, None).id)
    }

    /// Token that [`Sampler::pick`] returns, and its lead: by how much its score (the logit, or at a temperature above
    /// 0 the logit over the temperature plus the noise) is above the runner-up's, in nats; infinite if there is no
    /// other. Logits that come near enough to these have the same pick, so a large lead says that another model
    /// probably agrees.
    ///
    /// # Errors
    /// As [`Sampler::pick`].
    pub fn pick_with_lead(&mut self, logits: &[f32], history: &[u32], index: u64) -> Result<(u32, f32), SamplingError> {
        let best = self.prepare(logits, history, index)?;
        if self.config.temperature == 0.0 {
            let (before, after) = self.scores(logits).split_at(best.id as usize);
            return Ok((best.id, best.logit - largest(before).max(largest(&after[1..]))));
        }
        if self.has_filters() {
            self.select(logits, best);
        }
        let first = self.draw(logits, index, best, None);
        let second = self.draw(logits, index, best, Some(first.id));
        Ok((first.id, (first.score - second.score) as f32))
    }

    /// The candidate with the highest score, but for one that is left out.
    fn draw(&self, logits: &[f32], index: u64, best: Candidate, without: Option<u32>) -> Scored {
        let temperature = f64::from(self.config.temperature);
        let allowed = |candidate: &Candidate| Some(candidate.id) != without;
        if self.has_filters() {
            let candidates = self.candidates.iter().copied().filter(allowed);
            let start = candidates.clone().max_by(|a, b| a.logit.total_cmp(&b.logit));
            return self.noise.argmax(index, temperature, start, candidates);
        }
        // The search is short where it begins with a good one.
        let start = if Some(best.id) == without { second(self.scores(logits), best.id) } else { Some(best) };
        let all = (0u32..).zip(self.scores(logits)).map(|(id, &logit)| Candidate { logit, id });
        self.noise.argmax(index, temperature, start, all.filter(allowed))
    }

    /// The logits after the penalties.
    fn scores<'a>(&'a self, logits: &'a [f32]) -> &'a [f32] {
        if self.has_penalties() { &self.scores } else { logits }
    }

    /// The distribution that [`Sampler::pick`] draws from for the same arguments: the tokens that can be drawn with
    /// their probabilities, likeliest first, then by id. They sum to 1; at temperature 0 there is one token.
    ///
    /// # Errors
    /// As [`Sampler::pick`].
    pub fn distribution(
        &mut self,
        logits: &[f32],
        history: &[u32],
        index: u64,
    ) -> Result<Vec<(u32, f64)>, SamplingError> {
        let best = self.prepare(logits, history, index)?;
        if self.config.temperature == 0.0 {
            return Ok(vec![(best.id, 1.0)]);
        }
        self.select(logits, best);
        self.candidates.sort_unstable_by(filters::likeliest_first);
        let temperature = f64::from(self.config.temperature);
        let mut distribution: Vec<(u32, f64)> = (self.candidates.iter())
            .map(|candidate| (candidate.id, filters::weight(candidate.logit, best.logit, temperature)))
            .collect();
        let total: f64 = distribution.iter().map(|(_, weight)| weight).sum();
        for (_, weight) in &mut distribution {
            *weight /= total;
        }
        Ok(distribution)
    }

    fn has_penalties(&self) -> bool {
        self.config.repetition_penalty != 1.0 || self.config.presence_penalty != 0.0
    }

    fn has_filters(&self) -> bool {
        self.config.top_k > 0 || self.config.top_p < 1.0 || self.config.min_p > 0.0
    }

    /// Checks the logits, applies the penalties into `self.scores` if there are any, and returns the likeliest token.
    fn prepare(&mut self, logits: &[f32], history: &[u32], index: u64) -> Result<Candidate, SamplingError> {
        let prompt = (usize::try_from(index).ok())
            .and_then(|generated| history.len().checked_sub(generated))
            .ok_or(SamplingError::HistoryTooShort { index, length: history.len() })?;
        if logits.is_empty() {
            return Err(SamplingError::EmptyLogits { index });
        }
        let best = match likeliest(logits) {
            Ok(Some(best)) => best,
            Ok(None) => return Err(SamplingError::NothingPossible { index }),
            Err(Candidate { logit: value, id: token }) => {
                return Err(SamplingError::NotFinite { index, token, value });
            }
        };
        if !self.has_penalties() {
            return Ok(best);
        }
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        filters::penalise(&self.config, &mut self.seen, history, prompt, &mut self.scores);
        let SamplingConfig { repetition_penalty, presence_penalty, .. } = self.config;
        let overflow = SamplingError::PenaltyOverflow { index, repetition_penalty, presence_penalty };
        likeliest(&self.scores).ok().flatten().ok_or(overflow)
    }

    /// Fills `self.candidates` with the tokens that pass the filters.
    fn select(&mut self, logits: &[f32], best: Candidate) {
        let scores = if self.has_penalties() { &self.scores } else { logits };
        self.candidates.clear();
        let all = (0u32..).zip(scores).map(|(id, &logit)| Candidate { logit, id });
        self.candidates.extend(all.filter(|candidate| candidate.logit != f32::NEG_INFINITY));
        filters::filter(&self.config, best.logit, &mut self.candidates);
    }
}

/// The likeliest token, the smallest id on ties; none if every logit is -inf. The error is the first NaN or +inf.
fn likeliest(logits: &[f32]) -> Result<Option<Candidate>, Candidate> {
    // Two passes without branches take a tenth of the time of one that keeps the best id.
    let unusable = |logit: f32| logit.is_nan() || logit == f32::INFINITY;
    let is_usable = logits.iter().fold(true, |usable, &logit| usable & !unusable(logit));
    let logit = largest(logits);
    let found = if is_usable {
        logits.iter().position(|&other| other == logit)
    } else {
        logits.iter().position(|&logit| unusable(logit))
    };
    let candidate = found.map(|place| Candidate { logit: logits[place], id: place as u32 });
    if is_usable {
        Ok(candidate.filter(|best| best.logit != f32::NEG_INFINITY))
    } else {
        candidate.map_or(Ok(None), Err)
    }
}

/// The likeliest token but for `first`, if any other is possible.
fn second(logits: &[f32], first: u32) -> Option<Candidate> {
    let (before, after) = logits.split_at(first as usize);
    let logit = largest(before).max(largest(&after[1..]));
    let place = (0u32..).zip(logits).find(|(id, other)| **other == logit && *id != first);
    place.map(|(id, _)| Candidate { logit, id }).filter(|second| second.logit != f32::NEG_INFINITY)
}

/// The largest of some logits, none of them NaN; -inf if there are none.
fn largest(logits: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = logits.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}
