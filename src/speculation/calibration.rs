//! Calibration of a drafter's own odds: the share of tokens accepted among those that it gave such odds.
//!
//! Requests at different temperatures share a histogram, although a lead means less once noise is in it: what is observed
//! follows the requests.

/// Where one class of log-odds, in nats, ends and the next begins.
const EDGES: [f32; 13] = [-0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
/// Prior belief in a drafter before any observation: the probability of log-odds within each class, as if it knew.
const BELIEVED: [f32; 14] = [-1.0, -0.25, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.5, 4.5, 5.5, 7.0, 9.0, 12.0];
/// Weight of that belief, in observations.
const WEIGHT: f64 = 4.0;
/// After this many observations of any class an observation counts half: a class that is no longer drafted for, since it was
/// worth little, is believed again in time.
const HALF_LIFE: f64 = 400.0;

/// Acceptance by the drafter's log-odds: a histogram, each class with a conjugate prior that takes the drafter at its word.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    accepted: [f64; EDGES.len() + 1],
    evaluated: [f64; EDGES.len() + 1],
}

impl Calibration {
    /// Learns whether a token with such log-odds was accepted.
    pub fn observe(&mut self, log_odds: f32, accepted: bool) {
        let fade = 0.5_f64.powf(1.0 / HALF_LIFE);
        self.evaluated.iter_mut().chain(&mut self.accepted).for_each(|count| *count *= fade);
        let class = class(log_odds);
        self.evaluated[class] += 1.0;
        self.accepted[class] += f64::from(u8::from(accepted));
    }

    /// The estimated probability that a token with such log-odds is accepted, given that those drafted before it were.
    pub fn probability(&self, log_odds: f32) -> f64 {
        let class = class(log_odds);
        let believed = 1.0 / (1.0 + f64::from(-BELIEVED[class]).exp());
        (self.accepted[class] + WEIGHT * believed) / (self.evaluated[class] + WEIGHT)
    }
}

fn class(log_odds: f32) -> usize {
    EDGES.partition_point(|&edge| edge <= log_odds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drafter_is_taken_at_its_word_until_it_is_known() {
        let calibration = Calibration::default();
        for log_odds in [-0.7_f32, 0.25, 1.75, 3.5, 7.0] {
            let stated = 1.0 / (1.0 + f64::from(-log_odds).exp());
            assert!((calibration.probability(log_odds) - stated).abs() < 0.08, "{log_odds}");
        }
        assert!(calibration.probability(f32::INFINITY) > 0.999);
        assert!(calibration.probability(f32::NEG_INFINITY) < 0.3);
    }

    #[test]
    fn what_is_observed_of_a_class_holds_for_it_alone_and_fades() {
        let mut calibration = Calibration::default();
        (0..2000).for_each(|i| calibration.observe(3.3, i % 4 != 0));
        assert!((calibration.probability(3.9) - 0.75).abs() < 0.02);
        assert_eq!(calibration.probability(4.0), Calibration::default().probability(4.0));
        (0..2000).for_each(|_| calibration.observe(3.3, false));
        assert!(calibration.probability(3.3) < 0.1);
        // A class that is not drafted for any more returns to what the drafter says of it.
        (0..6000).for_each(|_| calibration.observe(9.0, true));
        assert!((calibration.probability(3.3) - Calibration::default().probability(3.3)).abs() < 0.05);
    }
}
