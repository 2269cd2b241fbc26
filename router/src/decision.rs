//! From what is expected of each plan to the plan.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Named objective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Time alone.
    #[default]
    Latency,
    /// Time and energy alike.
    Balanced,
    /// Energy alone.
    Energy,
    /// Time, by plans that need no memory of their own.
    Capacity,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Latency, Self::Balanced, Self::Energy, Self::Capacity];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Balanced => "balanced",
            Self::Energy => "energy",
            Self::Capacity => "capacity",
        }
    }

    /// Its weights.
    pub fn objective(self) -> Objective {
        match self {
            Self::Latency => Objective { time: 1.0, energy: 0.0, memory: 0.0 },
            Self::Balanced => Objective { time: 0.5, energy: 0.5, memory: 0.0 },
            Self::Energy => Objective { time: 0.0, energy: 1.0, memory: 0.0 },
            // So much that no plan with memory of its own pays.
            Self::Capacity => Objective { time: 1.0, energy: 0.0, memory: 1e6 },
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|profile| profile.name() == text);
        known.ok_or_else(|| format!("`{text}` is not a profile: choose {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// Weights of the objective. Time and energy are counted in units of plain decoding's, memory in units of the target's
/// weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Objective {
    /// Of the time of a token.
    pub time: f64,
    /// Of the energy of a token.
    pub energy: f64,
    /// Of the memory that a plan needs beside plain decoding.
    pub memory: f64,
}

impl Default for Objective {
    fn default() -> Self {
        Profile::default().objective()
    }
}

impl Objective {
    /// Checks that there is something to go by.
    ///
    /// # Errors
    /// A sentence about the weight that cannot be.
    pub fn check(&self) -> Result<(), String> {
        let weights = [("time", self.time), ("energy", self.energy), ("memory", self.memory)];
        if let Some((name, weight)) = weights.iter().find(|(_, weight)| !(weight.is_finite() && *weight >= 0.0)) {
            return Err(format!("The weight of {name} is {weight}: give a number from 0 on."));
        }
        match self.time + self.energy > 0.0 {
            true => Ok(()),
            false => Err("Neither time nor energy has a weight above 0: give one of them.".to_owned()),
        }
    }

    /// Cost of a plan, in units of plain decoding.
    pub fn cost(&self, expected: &Expected, plain: &Expected, weights_bytes: f64) -> f64 {
        let whole = self.time + self.energy;
        let memory = self.memory * (expected.bytes - plain.bytes).max(0.0) / weights_bytes.max(1.0);
        (self.time * expected.seconds / plain.seconds + self.energy * expected.joules / plain.joules) / whole + memory
    }
}

/// Expected costs of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Expected {
    /// Seconds a token.
    pub seconds: f64,
    /// Joules a token, or whatever stands for them: only ratios count.
    pub joules: f64,
    /// Bytes of memory beside the target's.
    pub bytes: f64,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The plan; `None` is plain decoding.
    pub plan: Option<usize>,
    /// The second best, if there is one.
    pub runner_up: Option<Option<usize>>,
    /// By what share the second best costs more.
    pub margin: f64,
    /// Cost of the choice in units of plain decoding, under the objective.
    pub cost: f64,
}

impl Objective {
    /// The best of some plans and plain decoding, which costs 1. `weights_bytes` is the size of the target.
    pub fn choose(&self, plans: &[Option<Expected>], plain: &Expected, weights_bytes: f64) -> Choice {
        let known = plans.iter().enumerate().filter_map(|(place, plan)| Some((place, plan.as_ref()?)));
        let cost = |(place, expected)| (Some(place), self.cost(expected, plain, weights_bytes));
        let mut scored: Vec<(Option<usize>, f64)> = known.map(cost).filter(|(_, cost)| *cost < 1.0).collect();
        scored.push((None, 1.0));
        scored.sort_by(|a, b| a.1.total_cmp(&b.1));
        let runner_up = scored.get(1);
        let margin = runner_up.map_or(0.0, |(_, cost)| cost / scored[0].1 - 1.0);
        Choice { plan: scored[0].0, runner_up: runner_up.map(|(plan, _)| *plan), margin, cost: scored[0].1 }
    }
}

/// Numbers by name, as in `time=1,energy=0.5`.
///
/// # Errors
/// The part that is none.
pub fn named_numbers(text: &str) -> Result<Vec<(&str, f64)>, String> {
    fn number(part: &str) -> Result<(&str, f64), String> {
        let named = part.split_once('=').map(|(name, value)| (name.trim(), value.trim().parse::<f64>()));
        match named {
            Some((name, Ok(value))) if value.is_finite() => Ok((name, value)),
            _ => Err(format!("`{part}` is not a name with a number, as in NAME=0.5")),
        }
    }
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(number).collect()
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut objective = Self { time: 0.0, energy: 0.0, memory: 0.0 };
        for (name, value) in named_numbers(text)? {
            match name {
                "time" => objective.time = value,
                "energy" => objective.energy = value,
                "memory" => objective.memory = value,
                _ => return Err(format!("`{name}` is not a weight: there are time, energy and memory")),
            }
        }
        objective.check()?;
        Ok(objective)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    fn expected(seconds: f64, joules: f64, bytes: f64) -> Expected {
        Expected { seconds, joules, bytes }
    }

    const PLAIN: Expected = Expected { seconds: 1.0, joules: 10.0, bytes: 0.0 };

    #[test]
    fn each_profile_takes_what_is_best_by_its_measure() {
        // Fast and hungry, slower and frugal, small.
        let plans =
            [Some(expected(0.4, 9.0, 500.0)), Some(expected(0.5, 3.0, 500.0)), Some(expected(0.9, 9.9, 0.0)), None];
        let chosen = Profile::ALL.map(|profile| profile.objective().choose(&plans, &PLAIN, 1000.0));
        assert_eq!(chosen.map(|choice| choice.plan), [Some(0), Some(1), Some(1), Some(2)]);
        assert_eq!(chosen[0].runner_up, Some(Some(1)));
        assert!((chosen[0].margin - 0.25).abs() < 1e-12 && (chosen[0].cost - 0.4).abs() < 1e-12);
    }

    #[test]
    fn plain_decoding_wins_where_nothing_pays() {
        for profile in Profile::ALL {
            let choice = profile.objective().choose(&[Some(expected(1.1, 11.0, 0.0))], &PLAIN, 1000.0);
            assert_eq!((choice.plan, choice.runner_up, choice.cost), (None, None, 1.0), "{profile}");
        }
    }

    #[test]
    fn weights_that_cannot_be_are_told() {
        for (time, energy, memory, said) in [
            (-1.0, 0.0, 0.0, "time is -1"),
            (0.0, f64::NAN, 0.0, "energy is NaN"),
            (0.0, 0.0, 1.0, "Neither time nor energy"),
        ] {
            let message = Objective { time, energy, memory }.check().unwrap_err();
            assert!(message.contains(said), "{message}");
        }
        assert!(Profile::ALL.into_iter().all(|profile| profile.objective().check().is_ok()));
        assert_eq!("time=1, memory=0.5".parse(), Ok(Objective { time: 1.0, energy: 0.0, memory: 0.5 }));
        for (text, said) in
            [("time", "`time` is not a name"), ("speed=1", "`speed` is not a weight"), ("time=inf", "is not a name")]
        {
            assert!(text.parse::<Objective>().unwrap_err().contains(said), "{text}");
        }
        assert_eq!("energy".parse(), Ok(Profile::Energy));
        assert!("cheap".parse::<Profile>().unwrap_err().contains("latency, balanced, energy, capacity"));
    }
}
