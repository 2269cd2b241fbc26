//! Fixed-sequence testing: which of some bundles may be deployed.
//!
//! The order, from conservative to aggressive, is fixed before any loss is known. Bundles are tested one after the other for as
//! long as they pass, each at the full `delta`: a bundle that should not pass is reached only behind others, and the first such
//! one passes with a probability of at most `delta`. Choosing the best of all bundles after a look at all of them has no such
//! bound; a test shows what becomes of it.

use paceline::certificate::{CertifiedLevel, Tested};
use paceline_router::Lossy;

use super::bounds;

/// The claim to be shown of every level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// The share of the target's quality to keep.
    pub floor: f64,
    /// The probability at most that any of the claims is wrong.
    pub delta: f64,
    /// Claims that are made together: levels times floors.
    pub claims: usize,
}

impl Claim {
    /// The largest tolerated loss.
    pub fn eps(self) -> f64 {
        1.0 - self.floor
    }

    /// The largest p-value at which all claims still hold together (Bonferroni).
    pub fn corrected(self) -> f64 {
        self.delta / self.claims.max(1) as f64
    }
}

/// There are too few prompts of a level to show anything.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error(
    "Of the calibration prompts {n} are {level} by the router's judgement, and a floor of {} at delta {} over {} claims needs {fewest} even if nothing is lost: add prompts, or ask for a lower floor, fewer floors or a larger `--delta`.",
    claim.floor, claim.delta, claim.claims
)]
pub struct TooFew {
    level: String,
    n: usize,
    fewest: u64,
    claim: Claim,
}

/// The losses of one level's prompts.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Prompts.
    pub n: usize,
    /// For every bundle, in order, the sum of their losses.
    pub losses: &'a [f64],
    /// True if every loss can only be 0 or 1.
    pub binary: bool,
}

/// The p-values of a sequence up to the first above `delta`, and the place of the last that is not.
pub fn fixed_sequence(p_values: impl IntoIterator<Item = f64>, delta: f64) -> (Vec<f64>, Option<usize>) {
    let mut tested = Vec::new();
    for p_value in p_values {
        tested.push(p_value);
        if p_value > delta || p_value.is_nan() {
            let passed = tested.len() - 1;
            return (tested, passed.checked_sub(1));
        }
    }
    let last = tested.len().checked_sub(1);
    (tested, last)
}

/// The plan that may be deployed for the prompts of a level.
///
/// # Errors
/// When they are too few for any plan to pass.
pub fn certify_level(
    level: &str,
    bundles: &[Lossy],
    sample: Sample<'_>,
    claim: Claim,
) -> Result<CertifiedLevel, TooFew> {
    let Sample { n, losses, binary } = sample;
    let fewest = bounds::fewest(claim.eps(), claim.corrected());
    if (n as u64) < fewest {
        return Err(TooFew { level: level.to_owned(), n, fewest, claim });
    }
    let p_value = |sum: &f64| match binary {
        true => bounds::binary(*sum as u64, n as u64, claim.eps()),
        false => bounds::bounded(*sum, n as u64, claim.eps()),
    };
    let (p_values, last) = fixed_sequence(losses.iter().map(p_value), claim.corrected());
    let test = |((plan, losses), p_value): ((&Lossy, &f64), f64)| Tested {
        plan: plan.clone(),
        losses: *losses,
        risk: losses / n as f64,
        p_value,
    };
    let tested: Vec<Tested> = bundles.iter().zip(losses).zip(p_values).map(test).collect();
    let deployed = last.map(|last| &tested[last]);
    Ok(CertifiedLevel {
        level: level.to_owned(),
        n,
        plan: deployed.map(|test| test.plan.clone()),
        losses: deployed.map_or(0.0, |test| test.losses),
        risk: deployed.map_or(0.0, |test| test.risk),
        p_value: deployed.map(|test| test.p_value),
        tested,
    })
}

/// The entry for a level about which nothing can be shown: the target in full.
pub fn in_full(level: &str, n: usize) -> CertifiedLevel {
    CertifiedLevel { level: level.to_owned(), n, plan: None, losses: 0.0, risk: 0.0, p_value: None, tested: Vec::new() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use paceline_router::network::LEVELS;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const GOAL: Claim = Claim { floor: 0.95, delta: 0.05, claims: 1 };

    fn bundles(count: usize) -> Vec<Lossy> {
        (0..count).map(|place| Lossy::Skip(place.to_string())).collect()
    }

    #[test]
    fn the_last_that_passed_is_deployed_and_nothing_behind_the_first_that_failed() {
        for (p_values, tested, last) in [
            (&[0.01, 0.04, 0.05, 0.2, 0.001][..], 4, Some(2)),
            (&[0.01, 0.02], 2, Some(1)),
            (&[0.06, 0.001], 1, None),
            (&[f64::NAN, 0.001], 1, None),
            (&[], 0, None),
        ] {
            let (found, deployed) = fixed_sequence(p_values.iter().copied(), 0.05);
            assert_eq!((found.len(), deployed), (tested, last), "{p_values:?}");
        }
    }

    #[test]
    fn a_level_gets_the_last_plan_that_passed_or_the_target_in_full() {
        let bundles = bundles(3);
        let of =
            |n, losses: &[f64]| certify_level("simple", &bundles, Sample { n, losses, binary: true }, GOAL).unwrap();
        let level = of(300, &[2.0, 6.0, 15.0]);
        assert_eq!((level.plan, level.losses, level.tested.len()), (Some(bundles[1].clone()), 6.0, 3));
        assert!((level.risk - 0.02).abs() < 1e-12 && level.p_value == Some(level.tested[1].p_value));
        let level = of(300, &[12.0, 0.0, 0.0]);
        assert_eq!(
            (level.plan, level.losses, level.risk, level.p_value, level.tested.len()),
            (None, 0.0, 0.0, None, 1)
        );
        let level = of(59, &[0.0, 0.0, 0.0]);
        assert_eq!(level.plan, Some(bundles[2].clone()));
        // Losses between 0 and 1 need more.
        let share = Sample { n: 300, losses: &[2.0, 6.5, 15.0], binary: false };
        let level = certify_level("simple", &bundles, share, GOAL).unwrap();
        assert_eq!(level.tested[1].p_value, bounds::bounded(6.5, 300, GOAL.eps()));
    }

    #[test]
    fn too_few_prompts_are_refused_with_a_sentence() {
        let sample = Sample { n: 58, losses: &[0.0], binary: true };
        let error = certify_level("complex", &bundles(1), sample, GOAL).unwrap_err().to_string();
        assert!(["58 are complex", "0.95", "needs 59", "--delta"].iter().all(|word| error.contains(word)), "{error}");
        // Nine claims at once need more.
        let nine = Claim { claims: 9, ..GOAL };
        let enough = |n| certify_level("complex", &bundles(1), Sample { n, ..sample }, nine).is_ok();
        assert!(!enough(101) && enough(102));
    }

    /// Losses of `n` prompts under bundles of these risks; what a cautious bundle loses, a bolder one loses too.
    fn draw(random: &mut ChaCha8Rng, n: usize, risks: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; risks.len()];
        for _ in 0..n {
            let luck: f64 = random.random();
            sums.iter_mut().zip(risks).for_each(|(sum, risk)| *sum += f64::from(u8::from(luck < *risk)));
        }
        sums
    }

    /// Number of draws, of 3,000, in which a plan is deployed whose true risk is above the tolerated loss.
    fn violations(
        n: usize,
        draw: impl Fn(&mut ChaCha8Rng) -> Vec<f64>,
        risks: &[f64],
        choose: impl Fn(&[f64]) -> Option<usize>,
    ) -> f64 {
        const DRAWS: u32 = 3_000;
        let mut random = ChaCha8Rng::seed_from_u64(n as u64);
        let wrong =
            (0..DRAWS).filter(|_| choose(&draw(&mut random)).is_some_and(|plan| risks[plan] > GOAL.eps())).count();
        wrong as f64 / f64::from(DRAWS)
    }

    fn by_sequence(n: usize) -> impl Fn(&[f64]) -> Option<usize> {
        move |losses| {
            let level =
                certify_level("simple", &bundles(losses.len()), Sample { n, losses, binary: true }, GOAL).unwrap();
            level.plan.and_then(|plan| bundles(losses.len()).iter().position(|bundle| *bundle == plan))
        }
    }

    /// Three deviations above 5% in 3,000 draws.
    const AT_MOST: f64 = 0.05 + 3.0 * 0.004;

    #[test]
    fn the_bound_holds_as_often_as_is_promised() {
        for n in [120, 300, 1000] {
            for risks in
                [&[0.01, 0.03, 0.049, 0.051, 0.08][..], &[0.0501, 0.2], &[0.02, 0.06, 0.06, 0.06, 0.06], &[0.3]]
            {
                let rate = violations(n, |random| draw(random, n, risks), risks, by_sequence(n));
                assert!(rate <= AT_MOST, "{rate} with {n} prompts and {risks:?}");
            }
        }
        // The bound is no empty one: just above the floor it is nearly used up.
        let rate = violations(1000, |random| draw(random, 1000, &[0.0501]), &[0.0501], by_sequence(1000));
        assert!(rate > 0.025, "{rate}");
    }

    /// Number of draws, of 3,000, in which any of nine plans is deployed whose true risk is above the tolerated loss:
    /// for three levels and three floors, each of which has a plan that loses hardly more than that. `claims` is the
    /// number that each is corrected for.
    fn family(claims: usize) -> f64 {
        const DRAWS: u32 = 3_000;
        let (n, risks) = (1000, [0.0101, 0.0501, 0.1001]);
        let bundles = bundles(risks.len());
        let mut random = ChaCha8Rng::seed_from_u64(9);
        let mut is_wrong = || {
            // Every level has prompts of its own, and all floors go by the same.
            let levels = LEVELS.map(|_| draw(&mut random, n, &risks));
            levels.iter().any(|losses| {
                [0.99, 0.95, 0.9].into_iter().any(|floor| {
                    let claim = Claim { floor, claims, ..GOAL };
                    let level = certify_level("simple", &bundles, Sample { n, losses, binary: true }, claim).unwrap();
                    let deployed = bundles.iter().position(|bundle| Some(bundle) == level.plan.as_ref());
                    deployed.is_some_and(|plan| risks[plan] > claim.eps())
                })
            })
        };
        f64::from((0..DRAWS).map(|_| u32::from(is_wrong())).sum::<u32>()) / f64::from(DRAWS)
    }

    #[test]
    fn nine_claims_together_are_wrong_as_rarely_as_is_promised() {
        let rate = family(9);
        assert!(rate <= AT_MOST && rate > 0.015, "{rate}");
        // Made one floor after the other, each corrected for its own three, they are not.
        let apart = family(3);
        assert!(apart > AT_MOST, "{apart}");
    }

    /// The danger that the order protects from: of many bundles somewhat too lossy, picking the one that looks best
    /// after a look at all.
    #[test]
    fn choosing_the_best_after_a_look_at_all_breaks_the_bound() {
        let (n, risks) = (300, [0.055; 20]);
        let each = |random: &mut ChaCha8Rng| risks.iter().map(|risk| draw(random, n, &[*risk])[0]).collect::<Vec<_>>();
        let best = |losses: &[f64]| {
            let best = (0..losses.len()).min_by(|a, b| losses[*a].total_cmp(&losses[*b]))?;
            (bounds::binary(losses[best] as u64, n as u64, GOAL.eps()) <= GOAL.delta).then_some(best)
        };
        let broken = violations(n, each, &risks, best);
        assert!(broken > 3.0 * GOAL.delta, "{broken}");
        let sound = violations(n, each, &risks, by_sequence(n));
        assert!(sound <= AT_MOST, "{sound}");
        // So does going on behind a failure, in order.
        let last = |losses: &[f64]| {
            losses.iter().rposition(|losses| bounds::binary(*losses as u64, n as u64, GOAL.eps()) <= GOAL.delta)
        };
        assert!(violations(n, each, &risks, last) > 3.0 * GOAL.delta);
    }

    #[test]
    fn losses_of_any_size_are_bounded_as_often_as_is_promised() {
        let n = 400;
        // Half the losses are small, half are whole: a mean of 0.055.
        let draw = |random: &mut ChaCha8Rng| {
            let loss = |random: &mut ChaCha8Rng| match random.random::<f64>() {
                luck if luck < 0.04 => 1.0,
                luck if luck < 0.10 => 0.25,
                _ => 0.0,
            };
            vec![(0..n).map(|_| loss(random)).sum::<f64>()]
        };
        let choose = |losses: &[f64]| {
            let sample = Sample { n, losses, binary: false };
            certify_level("simple", &bundles(1), sample, GOAL).unwrap().plan.map(|_| 0)
        };
        assert!(violations(n, draw, &[0.055], choose) <= AT_MOST);
    }
}
