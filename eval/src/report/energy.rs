//! Energy of tokens, beside the reference's: only readings of one meter are compared.

use std::collections::BTreeSet;

use super::prompts::Pair;
use crate::rows::Row;
use crate::statistics::{Interval, bootstrap};

/// Resamples of the prompts for an interval.
pub(super) const RESAMPLES: usize = 2000;

/// The energy of a plan's tokens, gross if nothing else is said.
#[derive(Clone, Debug)]
pub struct Energy {
    /// Joules per token, the mean over prompts.
    pub joules: Option<f64>,
    /// The same without what an idle machine takes, where that is known.
    pub net_joules: Option<f64>,
    /// The energy of a token as a share of the reference's, the prompt's reading included, over prompts that both were measured on;
    /// or why there is none.
    pub share: Result<Interval, Unmeasured>,
    /// On how many prompts both were measured.
    pub prompts: usize,
    /// Which meters measured the plan.
    pub sources: BTreeSet<String>,
    /// And the reference.
    pub reference_sources: BTreeSet<String>,
}

/// Why a plan's energy is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmeasured {
    /// Neither side has a reading.
    NoMeter,
    /// There is no prompt that both sides were measured on.
    NotAll,
    /// The sides were measured by different meters, or one of them by several.
    OtherMeters,
    /// The meter read nothing over all answers of a side, or of so few that chance decides.
    Unresolved,
}

impl Energy {
    /// That of pairs, of which all rows are given.
    pub(super) fn of(rows: &[&Row], base_rows: &[&Row], pairs: &[Pair<'_>]) -> Self {
        let sources = |rows: &[&Row]| -> BTreeSet<String> {
            rows.iter().filter(|row| row.joules.is_some()).map(|row| row.energy_source.clone()).collect()
        };
        let (sources, reference_sources) = (sources(rows), sources(base_rows));
        let both: Vec<Pair<'_>> =
            pairs.iter().copied().filter(|(own, base)| own.joules.is_some() && base.joules.is_some()).collect();
        let told: &[Pair<'_>] = if both.is_empty() { pairs } else { &both };
        // What several meters say is not added up.
        let known = |values: Vec<f64>| {
            (sources.len() == 1 && !values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        Self {
            joules: known(told.iter().filter_map(|(own, _)| own.joules).collect()),
            net_joules: known(told.iter().filter_map(|(own, _)| own.net_joules).collect()),
            share: match (sources.len(), reference_sources.len()) {
                (0, 0) => Err(Unmeasured::NoMeter),
                (0, _) | (_, 0) => Err(Unmeasured::NotAll),
                (1, 1) if sources == reference_sources => match both.is_empty() {
                    true => Err(Unmeasured::NotAll),
                    false => share(&both).ok_or(Unmeasured::Unresolved),
                },
                _ => Err(Unmeasured::OtherMeters),
            },
            prompts: both.len(),
            sources,
            reference_sources,
        }
    }

    /// The meters of the plan, in words.
    pub fn meters(&self) -> String {
        named(&self.sources)
    }

    /// Why there is no share, as the end of a sentence about a plan and its reference.
    pub fn reason(&self, plan: &str, reference: &str) -> Option<String> {
        Some(match self.share.err()? {
            Unmeasured::NoMeter => "no meter could be read on this machine".to_owned(),
            Unmeasured::NotAll => {
                format!(
                    "not all answers were measured, and there is no prompt on which both {plan} and {reference} were"
                )
            }
            Unmeasured::OtherMeters => format!(
                "meters differ, {} for {plan} and {} for {reference}",
                self.meters(),
                named(&self.reference_sources)
            ),
            Unmeasured::Unresolved => {
                format!(
                    "the answers were too short for the meter ({}), which read nothing over many of them",
                    self.meters()
                )
            }
        })
    }
}

fn named(sources: &BTreeSet<String>) -> String {
    sources.iter().map(String::as_str).collect::<Vec<_>>().join(" and ")
}

/// The energy of a token as a share, the sum over prompts over the reference's, with its interval over prompts; `None` where the meter
/// says too little for one. Pairs without readings of both are left out.
pub(super) fn share(pairs: &[Pair<'_>]) -> Option<Interval> {
    let all: Vec<(f64, f64)> = pairs.iter().filter_map(|(own, base)| Some((own.joules?, base.joules?))).collect();
    let sums = |places: &[usize]| {
        places.iter().fold((0.0, 0.0), |sums, &place| (sums.0 + all[place].0, sums.1 + all[place].1))
    };
    let (own, base) = sums(&(0..all.len()).collect::<Vec<_>>());
    if own <= 0.0 || base <= 0.0 {
        return None;
    }
    let found = bootstrap(all.len(), RESAMPLES, 0, |places| {
        let (own, base) = sums(places);
        own / base
    });
    // In some resample nothing was read: its share is NaN.
    Some(found).filter(|found| found.low.is_finite() && found.high.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::prompts::of_prompts;

    /// Prompt `id` takes so many joules for 10 tokens.
    fn row(id: usize, joules: Option<f64>, source: &str) -> Row {
        Row {
            id: format!("{id:02}"),
            tokens: 10,
            latency_ms: Some(10.0),
            prefill_ms: Some(1.0),
            joules,
            net_joules: joules.map(|joules| joules - 1.0),
            energy_source: source.into(),
            ..Row::default()
        }
    }

    fn compared(own: &[Row], base: &[Row]) -> Energy {
        let (own, base): (Vec<&Row>, Vec<&Row>) = (own.iter().collect(), base.iter().collect());
        let (owns, bases) = (of_prompts(&own), of_prompts(&base));
        let pairs: Vec<Pair<'_>> = owns.iter().filter_map(|(id, own)| Some((own, bases.get(id)?))).collect();
        Energy::of(&own, &base, &pairs)
    }

    fn rows(joules: impl Fn(usize) -> Option<f64>, source: &str) -> Vec<Row> {
        (0..20).map(|id| row(id, joules(id), source)).collect()
    }

    #[test]
    fn the_share_is_that_of_the_sums_over_prompts_that_both_have() {
        let base = rows(|id| Some(if id < 10 { 20.0 } else { 40.0 }), "rapl");
        // One prompt has no reading here, another none there.
        let own = rows(|id| (id != 3).then_some(if id < 10 { 10.0 } else { 30.0 }), "rapl");
        let base: Vec<Row> = base.into_iter().filter(|row| row.id != "15").collect();
        let found = compared(&own, &base);
        let expected = (9.0 * 10.0 + 9.0 * 30.0) / (9.0 * 20.0 + 9.0 * 40.0);
        assert!(found.share.is_ok_and(|share| (share.estimate - expected).abs() < 1e-12
            && share.low > 0.5
            && share.high < 0.75
            && share.low < share.high));
        assert_eq!((found.prompts, found.reason("a", "b")), (18, None));
        assert!(found.joules.is_some_and(|joules| (joules - 2.0).abs() < 1e-12), "{found:?}");
        assert!(found.net_joules.is_some_and(|joules| (joules - 1.9).abs() < 1e-12), "{found:?}");
    }

    #[test]
    fn there_is_a_reason_where_there_is_no_share() {
        let (some, none) = (|_: usize| Some(20.0), |_: usize| None);
        let reason = |own: &[Row], base: &[Row]| {
            let found = compared(own, base);
            (found.share.err(), found.reason("fast", "plain").unwrap_or_default(), found.joules)
        };
        let rapl = rows(some, "rapl");
        let (kind, said, joules) = reason(&rows(none, "unavailable"), &rows(none, "unavailable"));
        assert!(kind == Some(Unmeasured::NoMeter) && said.contains("no meter") && joules.is_none(), "{said}");
        let (kind, said, joules) = reason(&rows(some, "nvml"), &rapl);
        assert_eq!(kind, Some(Unmeasured::OtherMeters));
        assert!(said == "meters differ, nvml for fast and rapl for plain" && joules == Some(2.0), "{said}");
        let mixed: Vec<Row> = [&rapl[..9], &rows(some, "nvml")[9..]].concat();
        let (kind, said, joules) = reason(&mixed, &rapl);
        assert_eq!((kind, joules), (Some(Unmeasured::OtherMeters), None));
        assert!(said.contains("nvml and rapl for fast"), "{said}");
        assert_eq!(reason(&mixed, &mixed).0, Some(Unmeasured::OtherMeters));
        let halves = [rows(|id| (id < 9).then_some(1.0), "rapl"), rows(|id| (id > 9).then_some(1.0), "rapl")];
        assert_eq!(reason(&halves[0], &halves[1]).0, Some(Unmeasured::NotAll));
        let (kind, said, _) = reason(&rows(none, "unavailable"), &rapl);
        assert!(kind == Some(Unmeasured::NotAll) && said.contains("not all answers were measured"), "{said}");
        let nothing = rows(|_| Some(0.0), "rapl");
        let (kind, said, _) = reason(&nothing, &nothing);
        assert!(kind == Some(Unmeasured::Unresolved) && said.contains("too short for the meter (rapl)"), "{said}");
        // The meter moved in one answer of twenty: in a third of all resamples it did not move at all.
        let once = rows(|id| Some(if id == 7 { 20.0 } else { 0.0 }), "rapl");
        assert_eq!(reason(&once, &once).0, Some(Unmeasured::Unresolved));
    }
}
