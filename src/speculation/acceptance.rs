//! How likely each position of a draft is accepted.
//!
//! Position `i` counts only where position `i - 1` was accepted, so the rates are conditional: accepted /
//! evaluated, where evaluated is accepted plus the first rejected. Each position is shrunk towards the one
//! before it, since deep positions are seen rarely, and old evidence fades.

use super::MAX_DRAFT;

/// What the first position is shrunk towards: high, so that a newcomer gets its chance.
const PRIOR: f64 = 0.8;
/// How many observations that weighs, first for a newcomer and then for a drafter that has been tried out: few,
/// so that a chance not taken costs little.
const NEWCOMER_WEIGHT: f64 = 4.0;
const SETTLED_WEIGHT: f64 = 1.0;
/// How many observations the shrinkage of the other positions weighs.
const WEIGHT: f64 = 8.0;
/// After this many tokens an observation counts half.
const HALF_LIFE: f64 = 64.0;

/// Acceptance by draft position of one drafter.
#[derive(Clone, Debug)]
pub struct Acceptance {
    accepted: [f64; MAX_DRAFT],
    evaluated: [f64; MAX_DRAFT],
    prior_weight: f64,
}

impl Default for Acceptance {
    fn default() -> Self {
        Self { accepted: [0.0; MAX_DRAFT], evaluated: [0.0; MAX_DRAFT], prior_weight: NEWCOMER_WEIGHT }
    }
}

impl Acceptance {
    /// Learns from a round in which `evaluated` drafted tokens were looked at and the first `accepted` of them
    /// kept.
    pub fn observe(&mut self, evaluated: usize, accepted: usize) {
        let fade = 0.5_f64.powf((accepted + 1) as f64 / HALF_LIFE);
        for count in self.accepted.iter_mut().chain(&mut self.evaluated) {
            *count *= fade;
        }
        for position in 0..evaluated.min(MAX_DRAFT) {
            self.evaluated[position] += 1.0;
            self.accepted[position] += f64::from(u8::from(position < accepted));
        }
    }

    /// From now on the evidence speaks nearly alone.
    pub fn settle(&mut self) {
        self.prior_weight = SETTLED_WEIGHT;
    }

    /// The estimated probability that each position is accepted, given that those before it were.
    pub fn rates(&self) -> impl Iterator<Item = f64> + '_ {
        let (mut before, mut weight) = (PRIOR, self.prior_weight);
        self.accepted.iter().zip(&self.evaluated).map(move |(accepted, evaluated)| {
            before = (accepted + weight * before) / (evaluated + weight);
            weight = WEIGHT;
            before
        })
    }

    /// The expected number of tokens that a round with a draft of each length `1..=MAX_DRAFT` yields, the
    /// target's own token included.
    pub fn expected_tokens(&self) -> [f64; MAX_DRAFT] {
        let mut expected = [0.0; MAX_DRAFT];
        let (mut survival, mut sum) = (1.0, 1.0);
        for (slot, rate) in expected.iter_mut().zip(self.rates()) {
            survival *= rate;
            sum += survival;
            *slot = sum;
        }
        expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_evidence_every_position_has_the_prior() {
        assert!(Acceptance::default().rates().all(|rate| rate == PRIOR));
        let expected = Acceptance::default().expected_tokens();
        assert!((expected[1] - (1.0 + 0.8 + 0.64)).abs() < 1e-12);
    }

    #[test]
    fn rates_follow_the_evidence_position_by_position() {
        let mut acceptance = Acceptance::default();
        // The first two are always kept, the third never, a fourth is never looked at.
        for _ in 0..2000 {
            acceptance.observe(3, 2);
        }
        let rates: Vec<f64> = acceptance.rates().collect();
        // The half-life bounds the evidence: three tokens a round leave about 31 rounds in memory.
        assert!(rates[0] > 0.95 && rates[1] > 0.95, "{rates:?}");
        assert!(rates[2] < 0.25, "{rates:?}");
        assert!((rates[3] - rates[2]).abs() < 1e-12, "an unseen position takes the rate before it: {rates:?}");
    }

    #[test]
    fn old_evidence_fades() {
        let mut acceptance = Acceptance::default();
        (0..500).for_each(|_| acceptance.observe(1, 1));
        (0..200).for_each(|_| acceptance.observe(1, 0));
        assert!(acceptance.rates().next().is_some_and(|rate| rate < 0.3));
    }
}
