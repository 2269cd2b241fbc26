//! The router at work beside a target: reads prompts with it, says what to expect of each drafter, and learns from answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use paceline_router::network::LEVELS;
use paceline_router::router::{ROUTER, log_odds, sigmoid};
use paceline_router::{CostTable, Lossy, Online, Plan, Prediction, Router, RouterError};

use super::files::{StateError, StateFile, TakenUp, open_router};
use super::identity::{identities, identity_of, written};
use super::reader::{Reader, RequestHints, Watched};
use super::surface::Surface;
use crate::checkpoint::{Checkpoint, CheckpointError, side_file};
use crate::model::Decoder;
use crate::speculation::planner::Forecast;
use crate::text::Tokenizer;

/// A router that fits its target, and what was learned while serving.
pub struct Advisor {
    router: Router,
    watched: Watched,
    surface: Surface,
    online: Online,
    /// Where that is kept.
    state: Option<StateFile>,
    /// True if nothing is learned.
    frozen: bool,
    saved: Instant,
    /// True if it was reported that it is not kept. It is reported once, until it is kept again.
    save_failed: bool,
    /// Sentences about the state that deserve attention, until they are told.
    warnings: Vec<String>,
}

/// Shortest time between two writes of the state.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// Longest wait of the last save for other programs that write to the same file.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// Expectations of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advice {
    /// Prediction of the network.
    pub prediction: Prediction,
    /// The likeliest class of difficulty, and its probability.
    pub level: (usize, f64),
    /// The acceptance and the effective acceptance of each of the router's drafters, corrected by what was seen while serving.
    pub drafters: Vec<(String, [f64; 2])>,
    /// Drafters that the router hardly ever chose on the prompts that it was judged on.
    pub seldom: Vec<String>,
    /// Weight of these expectations, in rounds.
    pub rounds: f64,
}

/// A lossy plan that gave other answers to this share of prompts is one that the router does not choose by itself.
const MOST_OTHER_ANSWERS: f64 = 0.02;

/// A drafter that was chosen for a smaller share of the prompts has to be better by [`SELDOM_TRUST`]: each of ten drafters with a
/// price that is off by some percent would else be the best now and then.
const SELDOM: f64 = 0.1;
/// Factor on the speed of a drafter that was chosen for a smaller share of the prompts than [`SELDOM`].
const SELDOM_TRUST: f64 = 0.85;

/// Expected effect of a lossy plan on an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpectedQuality {
    /// The probability that the answer is the target's.
    pub confidence: f64,
    /// By what share the perplexity is above the target's.
    pub perplexity_delta: f64,
}

/// Results of an answer for a drafter: an acceptance, and the number of tokens it is of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shown {
    /// Its effective acceptance, by the rounds in which it drafted.
    Drafting((f64, f64)),
    /// The share of tokens that it would have got right.
    Shadow((f64, f64)),
}

impl Advice {
    /// The name of the class of difficulty.
    pub fn difficulty(&self) -> &'static str {
        LEVELS[self.level.0.min(LEVELS.len() - 1)]
    }

    /// The effective acceptance that is expected of each drafter.
    pub fn expected(&self) -> BTreeMap<String, f64> {
        self.drafters.iter().map(|(name, [_, effective])| (name.clone(), *effective)).collect()
    }

    /// Forecast for a drafter.
    pub fn of(&self, drafter: &str) -> Option<Forecast> {
        let known = self.drafters.iter().find(|(name, _)| name == drafter);
        let is_seldom = self.seldom.iter().any(|name| name == drafter);
        known.map(|&(_, [acceptance, effective])| Forecast {
            acceptance,
            effective,
            rounds: self.rounds,
            trust: if is_seldom { SELDOM_TRUST } else { 1.0 },
        })
    }
}

/// Why the router beside a target was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The router cannot be used, and the target can.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// A model cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl Advisor {
    /// The router beside a target, if there is one and it is for this target, tokenizer and drafts.
    ///
    /// # Errors
    /// [`OpenError::Router`] where the router cannot be used, which leaves the target usable; others where a model cannot be read.
    pub fn open(
        directory: &Path,
        checkpoint: &Checkpoint,
        tokenizer: &Tokenizer,
        drafts: &[PathBuf],
    ) -> Result<Option<Self>, OpenError> {
        let Some(router) = open_router(directory)? else { return Ok(None) };
        let hashes = identities(checkpoint, drafts)?;
        let identity = |drafter: &str| identity_of(&hashes, drafter);
        router.check(directory, &written(checkpoint.fingerprint()), &written(tokenizer.fingerprint()), identity)?;
        let described = router.description();
        let (width, layers) = (checkpoint.config().hidden_size, checkpoint.config().layers);
        let impossible = |reason: String| RouterError::Damaged { path: side_file(directory, ROUTER), reason };
        if described.shape.width != width || !(1..=layers).contains(&described.layer) {
            Err(impossible("it reads states that this model does not have".to_owned()))?;
        }
        let exit = described.exit.filter(|exit| *exit == described.layer && *exit < layers);
        let watched = Watched { layer: described.layer, most_states: described.most_states, exit };
        let online = Online::new(described.made_of.clone());
        let surface = Surface::new(tokenizer);
        Ok(Some(Self {
            watched,
            surface,
            online,
            state: None,
            frozen: false,
            saved: Instant::now(),
            save_failed: false,
            warnings: Vec::new(),
            router,
        }))
    }

    /// The same with a file for what is learned while serving, and whether that stays as it is. A file of ours that cannot be used
    /// is moved aside, and learning begins anew; anything else is left alone.
    #[must_use]
    pub fn with_state(mut self, path: Option<&Path>, frozen: bool) -> Self {
        self.frozen = frozen;
        if let Some(path) = path {
            let TakenUp { file, known, warnings } =
                StateFile::take_up(path, &self.router.description().made_of, frozen);
            self.online = known.unwrap_or(self.online);
            self.state = file;
            self.warnings.extend(warnings);
        }
        self
    }

    /// True if nothing is learned.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Costs of work when the state was written; empty in a new one.
    pub fn costs(&self) -> &CostTable {
        self.online.costs()
    }

    /// Sentences that deserve attention, each told once.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// An answer is over, in which work took this.
    pub fn end_answer(&mut self, costs: CostTable) {
        if !self.frozen {
            self.online.end_answer(costs);
        }
    }

    /// Writes the state if that is some seconds ago. Where another program is writing it just now, that is for the next time.
    pub fn save_now_and_then(&mut self) {
        if self.saved.elapsed() >= SAVE_EVERY {
            match self.save(Duration::ZERO) {
                Err(StateError::Locked { .. }) | Ok(()) => {}
                Err(error) => self.tell_of_failed_save(&error),
            }
        }
    }

    /// Writes the state a last time, and gives the sentences that were not told yet.
    pub fn close(mut self) -> Vec<String> {
        if let Err(error) = self.save(LAST_PATIENCE) {
            self.tell_of_failed_save(&error);
        }
        self.warnings
    }

    /// Writes the state, if there is a place for it.
    fn save(&mut self, patience: Duration) -> Result<(), StateError> {
        let Some(file) = self.state.as_ref().filter(|_| !self.frozen && self.online.has_changes()) else {
            return Ok(());
        };
        self.saved = Instant::now();
        // What other programs learned meanwhile is taken up here too.
        self.online = file.save(&self.online, patience)?;
        self.save_failed = false;
        Ok(())
    }

    fn tell_of_failed_save(&mut self, error: &StateError) {
        if !std::mem::replace(&mut self.save_failed, true) {
            self.warnings.push(format!("What was learned while serving is not kept: {error}."));
        }
    }

    /// Reader that collects the features of a prompt.
    pub fn reader(&self) -> Reader {
        Reader::new(self.watched, self.router.description().shape.width)
    }

    /// The layer whose states the reader is to see.
    pub fn layer(&self) -> usize {
        self.watched.layer
    }

    /// Advice on the answer to a prompt that was read.
    pub fn advise(
        &self,
        reader: Reader,
        target: &Decoder,
        prompt: &[u32],
        temperature: f32,
        hints: &RequestHints,
    ) -> Advice {
        let features = reader.features(target, &self.surface, prompt, temperature, hints);
        let prediction = self.router.predict(&features);
        let predicted = prediction.acceptance.iter().zip(&prediction.effective);
        let corrected = |(plan, (acceptance, effective)): (&Plan, (&f64, &f64))| {
            let shift = self.online.shift(&plan.drafter, &prediction.difficulty);
            (plan.drafter.clone(), [acceptance, effective].map(|share| sigmoid(log_odds(*share) + shift)))
        };
        let drafters = self.router.description().plans.drafting.iter().zip(predicted).map(corrected).collect();
        let described = self.router.description();
        let seldom = described.plans.drafting.iter().zip(&described.chosen).filter(|(_, share)| **share < SELDOM);
        let seldom = seldom.map(|(plan, _)| plan.drafter.clone()).collect();
        Advice { level: prediction.level(), drafters, seldom, rounds: self.router.description().rounds, prediction }
    }

    /// The lossy plan for answers that may give something up, of those that are `possible`: the one that does the least work among
    /// those that gave other answers than the target to less than [`MOST_OTHER_ANSWERS`] of the prompts it was judged on.
    pub fn lossy(&self, possible: impl Fn(&Lossy) -> bool) -> Option<&Lossy> {
        let described = self.router.description();
        let known = described.plans.lossy.iter().filter_map(|plan| plan.lossy.as_ref()).zip(&described.lossy);
        let good = known.filter(|(plan, facts)| facts.other_answers < MOST_OTHER_ANSWERS && possible(plan));
        good.min_by(|a, b| a.1.work.total_cmp(&b.1.work)).map(|(plan, _)| plan)
    }

    /// Expected effect of a lossy plan on the answer to a prompt; `None` for plans that it knows nothing of.
    pub fn quality(&self, advice: &Advice, lossy: &Lossy) -> Option<ExpectedQuality> {
        let described = self.router.description();
        let place = described.plans.lossy.iter().position(|plan| plan.lossy.as_ref() == Some(lossy))?;
        let (loss, facts) = (advice.prediction.loss.get(place)?, described.lossy.get(place)?);
        // The mean of all prompts, in proportion to the loss that is predicted of this one.
        let perplexity_delta = facts.perplexity_delta * loss / facts.other_answers.max(1e-3);
        Some(ExpectedQuality { confidence: 1.0 - loss, perplexity_delta })
    }

    /// Learns what an answer showed of a drafter: where it drafted, the effective acceptance that explains what its rounds
    /// brought, else the share of tokens that it would have got right; and how many tokens that was.
    pub fn learn(&mut self, advice: &Advice, drafter: &str, shown: Shown) {
        if self.frozen {
            return;
        }
        let Some(place) = self.router.description().plans.place(drafter) else { return };
        // Against what the network says, without corrections: these are what is learned.
        let (expected, (acceptance, tokens)) = match shown {
            Shown::Drafting(shown) => (&advice.prediction.effective, shown),
            Shown::Shadow(shown) => (&advice.prediction.acceptance, shown),
        };
        if let Some(expected) = expected.get(place) {
            self.online.observe(drafter, advice.level.0, tokens, acceptance, *expected);
        }
    }
}
