//! Does the procedure keep its word? Calibration prompts are split at random, certified on one half and judged on the other.

use paceline_router::Lossy;
use paceline_router::network::LEVELS;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::losses::Row;
use super::measure::levels;
use super::sequence::Claim;

/// Results of splits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Draws {
    /// Splits.
    pub draws: usize,
    /// Those in which the whole policy lost more on the other half than may be lost.
    pub violated: usize,
    /// Those in which it did so for the prompts of some level, which are fewer and so vary more.
    pub violated_for_a_level: usize,
    /// Levels that had another plan than the target in full, in the mean over splits.
    pub plans: f64,
    /// Splits in which no level had one, so that nothing could be lost.
    pub in_full: usize,
    /// The mean loss on the other half.
    pub risk: f64,
}

impl Draws {
    /// Why few violations say little, where that is so.
    pub fn warning(&self) -> Option<String> {
        (self.draws > 0 && self.plans < 1.0).then(|| {
            format!(
                "In the mean {:.2} of {} levels had another plan than the target in full, and in {} of {} splits none had, so hardly anything could be violated: this shows little about the procedure, and more prompts or a lower floor would show more.",
                self.plans,
                LEVELS.len(),
                self.in_full,
                self.draws
            )
        })
    }
}

/// Splits prompts so many times, the same for a seed.
pub fn draw(bundles: &[Lossy], rows: &[Row], claim: Claim, draws: usize, seed: u64) -> Draws {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<&Row> = rows.iter().collect();
    let mut all = Draws { draws, ..Draws::default() };
    for _ in 0..draws {
        order.shuffle(&mut random);
        let (half, other) = order.split_at(order.len() / 2);
        let (certified, _) = levels(bundles, half.iter().copied(), claim);
        let deployed: Vec<Option<usize>> = certified
            .iter()
            .map(|level| bundles.iter().position(|bundle| Some(bundle) == level.plan.as_ref()))
            .collect();
        let mut sums = [(0.0, 0.0); LEVELS.len()];
        for row in other {
            let (lost, n) = &mut sums[row.level];
            *lost += deployed[row.level].map_or(0.0, |plan| row.losses[plan]);
            *n += 1.0;
        }
        let risk = |(lost, n): (f64, f64)| lost / n.max(1.0);
        let whole = risk(sums.iter().fold((0.0, 0.0), |all, level| (all.0 + level.0, all.1 + level.1)));
        all.violated += usize::from(whole > claim.eps());
        all.violated_for_a_level += usize::from(sums.into_iter().any(|level| risk(level) > claim.eps()));
        all.in_full += usize::from(deployed.iter().all(Option::is_none));
        all.plans += deployed.iter().flatten().count() as f64 / draws as f64;
        all.risk += whole / draws as f64;
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use rand::RngExt;

    use super::*;

    #[test]
    fn splits_of_prompts_that_lose_little_hardly_ever_violate_the_floor() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let risks = [0.005, 0.03, 0.06, 0.3];
        let row = |place: usize| {
            let luck: f64 = random.random();
            let losses = risks.iter().map(|risk| f64::from(u8::from(luck < *risk))).collect();
            Row { id: place.to_string(), level: place % LEVELS.len(), right: Some(true), losses }
        };
        let rows: Vec<Row> = (0..3000).map(row).collect();
        let bundles: Vec<Lossy> = (0..risks.len()).map(|place| Lossy::Skip(place.to_string())).collect();
        let claim = Claim { floor: 0.95, delta: 0.05, claims: 3 };
        let found = draw(&bundles, &rows, claim, 200, 0);
        assert_eq!(found, draw(&bundles, &rows, claim, 200, 0));
        assert!(found.violated <= 10 && found.plans > 1.0 && found.risk > 0.0, "{found:?}");
        // Half of the prompts are too few for this, so all of them are answered in full.
        let strict = draw(&bundles, &rows, Claim { floor: 0.995, ..claim }, 20, 0);
        assert_eq!((strict.violated, strict.plans, strict.in_full, strict.risk), (0, 0.0, 20, 0.0));
        let warning = strict.warning().unwrap();
        assert!(["0.00 of 3 levels", "20 of 20 splits"].iter().all(|word| warning.contains(word)), "{warning}");
        assert_eq!((found.in_full, found.warning()), (0, None));
    }
}
