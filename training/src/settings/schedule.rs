//! The learning rate over a training.

use serde::{Deserialize, Serialize};

/// Warm-up in a line, then half a cosine down (Loshchilov and Hutter 2017).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Share of the steps in which it is reached.
    pub warm_up: f64,
    /// The share of it that is left in the end.
    pub floor: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { learning_rate: 2e-3, warm_up: 0.02, floor: 0.05 }
    }
}

impl Schedule {
    /// Checks what serde cannot.
    ///
    /// # Errors
    /// The rest of a sentence, for the section `name`.
    pub fn check(&self, name: &str) -> Result<(), String> {
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Err(format!("`schedule.learning_rate` of [{name}] must be a number above 0"));
        }
        let shares = [("warm_up", self.warm_up), ("floor", self.floor)];
        match shares.iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            None => Ok(()),
            Some((key, _)) => Err(format!("`schedule.{key}` of [{name}] must be a number from 0 to 1")),
        }
    }

    /// The learning rate of a step, counted from 0.
    pub fn at(&self, step: u64, steps: u64) -> f64 {
        let done = (step + 1) as f64 / steps.max(1) as f64;
        if done <= self.warm_up {
            return self.learning_rate * done / self.warm_up;
        }
        let progress = ((done - self.warm_up) / (1.0 - self.warm_up).max(f64::MIN_POSITIVE)).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.learning_rate * (self.floor + (1.0 - self.floor) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_in_a_line_to_the_highest_and_falls_to_the_floor() {
        let schedule = Schedule { learning_rate: 1e-3, warm_up: 0.1, floor: 0.2 };
        let rates: Vec<f64> = (0..100).map(|step| schedule.at(step, 100)).collect();
        assert!((rates[4] - 0.5e-3).abs() < 1e-12);
        assert!((rates[9] - 1e-3).abs() < 1e-12);
        assert!(rates[9..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!((rates[99] - 0.2e-3).abs() < 1e-12);
    }

    #[test]
    fn no_warm_up_begins_near_the_top() {
        let schedule = Schedule { learning_rate: 1.0, warm_up: 0.0, floor: 0.0 };
        assert!(schedule.at(0, 1000) > 0.999 && schedule.at(999, 1000).abs() < 1e-12);
    }
}
