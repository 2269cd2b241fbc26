//! P-values for the hypothesis that a risk is above what may be lost, from the losses of prompts drawn independently
//! (Angelopoulos et al. 2021, "Learn then Test"; Bates et al. 2021, "Distribution-free, risk-controlling prediction sets").
//!
//! If the hypothesis is true, such a p-value is at most `x` with a probability of at most `x`, for any number of prompts.

use statrs::distribution::{Binomial, DiscreteCDF};

/// The p-value where every loss is 0 or 1: so few losses of `n` or fewer have this probability at a risk of `eps`.
pub fn binary(losses: u64, n: u64, eps: f64) -> f64 {
    // What is no probability and what was tested on nothing shows nothing.
    Binomial::new(eps, n).map_or(1.0, |binomial| if n == 0 { 1.0 } else { binomial.cdf(losses) })
}

/// The p-value of Hoeffding and Bentkus where losses are anywhere in [0, 1]: `losses` is their sum over `n` prompts.
pub fn bounded(losses: f64, n: u64, eps: f64) -> f64 {
    let share = losses / n as f64;
    if n == 0 || !(0.0..=1.0).contains(&share) || !(eps > 0.0 && eps < 1.0) {
        return 1.0;
    }
    let bentkus = std::f64::consts::E * binary(losses.ceil() as u64, n, eps);
    let hoeffding = (-(n as f64) * divergence(share.min(eps), eps)).exp();
    bentkus.min(hoeffding).min(1.0)
}

/// The divergence of one coin from another, in nats: `a ln(a/b) + (1-a) ln((1-a)/(1-b))`, for `b` within (0, 1).
fn divergence(a: f64, b: f64) -> f64 {
    let term = |a: f64, b: f64| if a > 0.0 { a * (a / b).ln() } else { 0.0 };
    term(a, b) + term(1.0 - a, 1.0 - b)
}

/// The fewest prompts on which anything can pass at `delta`: even without any loss the p-value is `(1 - eps)^n`.
pub fn fewest(eps: f64, delta: f64) -> u64 {
    // Both logarithms are negative; a share of 1 less than a rounding above a whole number is that number.
    (delta.ln() / (-eps).ln_1p() - 1e-9).ceil().max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The probability of at most `k` in `n`, term by term.
    fn summed(k: u64, n: u64, p: f64) -> f64 {
        // By logarithms: the first of many terms is smaller than any number.
        let mut term = n as f64 * (1.0 - p).ln();
        let mut sum = term.exp();
        for i in 0..k {
            term += ((n - i) as f64 / (i + 1) as f64 * p / (1.0 - p)).ln();
            sum += term.exp();
        }
        sum.min(1.0)
    }

    #[test]
    fn the_binary_p_value_is_the_sum_of_the_binomials_terms() {
        for n in [1, 2, 7, 59, 149, 299, 1008, 3000] {
            for eps in [0.01, 0.02, 0.05, 0.1, 0.5] {
                for k in (0..=n).filter(|k| *k < 40 || *k == n) {
                    let (found, expected) = (binary(k, n, eps), summed(k, n, eps));
                    assert!(
                        (found - expected).abs() <= 1e-9 * expected + 1e-300,
                        "{k} of {n} at {eps}: {found}, {expected}"
                    );
                }
            }
        }
        assert_eq!((binary(0, 0, 0.05), binary(0, 9, f64::NAN), binary(9, 9, 0.05)), (1.0, 1.0, 1.0));
    }

    #[test]
    fn fifty_nine_149_and_299_prompts_without_a_loss_are_just_enough() {
        for (eps, fewest_known) in [(0.05, 59), (0.02, 149), (0.01, 299)] {
            // As a floor gives it, a rounding away.
            for eps in [eps, 1.0 - (1.0 - eps)] {
                assert_eq!(fewest(eps, 0.05), fewest_known);
                for p_value in [|n, eps| binary(0, n, eps), |n, eps| bounded(0.0, n, eps)] {
                    assert!(p_value(fewest_known, eps) <= 0.05 && p_value(fewest_known - 1, eps) > 0.05, "{eps}");
                }
            }
        }
        assert_eq!((fewest(0.5, 0.5), fewest(0.5, 0.25), fewest(0.9, 0.9)), (1, 2, 1));
    }

    #[test]
    fn more_losses_are_less_convincing_and_more_prompts_more() {
        for eps in [0.01, 0.05, 0.3] {
            for n in [10, 60, 1000] {
                for k in 0..n {
                    let (fewer, more) = (k as f64, (k + 1) as f64);
                    assert!(binary(k, n, eps) <= binary(k + 1, n, eps), "{k} of {n} at {eps}");
                    assert!(bounded(fewer, n, eps) <= bounded(more, n, eps) + 1e-15, "{k} of {n} at {eps}");
                    assert!(bounded(fewer, n, eps) <= bounded(fewer + 0.4, n, eps) + 1e-15, "{k} of {n} at {eps}");
                    assert!(binary(k, n + 1, eps) <= binary(k, n, eps) + 1e-15, "{k} of {n} at {eps}");
                    assert!(binary(k, n, eps + 0.01) <= binary(k, n, eps) + 1e-15, "{k} of {n} at {eps}");
                    assert!(bounded(fewer, n, eps + 0.01) <= bounded(fewer, n, eps) + 1e-15, "{k} of {n} at {eps}");
                    assert!((0.0..=1.0).contains(&bounded(fewer, n, eps)));
                }
            }
        }
    }

    #[test]
    fn losses_of_any_size_convince_less_than_losses_of_one() {
        for (losses, n, eps) in [(0.0, 100, 0.05), (3.0, 400, 0.05), (12.0, 1000, 0.02)] {
            assert!(bounded(losses, n, eps) >= binary(losses as u64, n, eps) * (1.0 - 1e-9));
        }
        // At and above the risk in question nothing is shown.
        assert_eq!((bounded(5.0, 100, 0.05), bounded(50.0, 100, 0.05)), (1.0, 1.0));
        // By the formulas, once by each of the two bounds.
        let hoeffding = (-1000.0 * (0.01 * (0.01_f64 / 0.05).ln() + 0.99 * (0.99_f64 / 0.95).ln())).exp();
        let bentkus = std::f64::consts::E * summed(10, 1000, 0.05);
        assert!((bounded(10.0, 1000, 0.05) - hoeffding.min(bentkus)).abs() < 1e-12);
        for nonsense in [-1.0, 101.0, f64::NAN] {
            assert_eq!(bounded(nonsense, 100, 0.05), 1.0);
        }
    }
}
