//! Results of each plan, beside the reference: speed, energy, quality, by prompt and with intervals.

use std::collections::{BTreeMap, BTreeSet};

use super::energy::{self, Energy, RESAMPLES};
use super::prompts::{OfPrompt, Pair, is_usable, of_prompts};
use super::quality::{self, Quality, Tests};
use crate::rows::Row;
use crate::statistics::{Interval, bootstrap, median, median_absolute_deviation, wilson};

/// Fewer prompts than this say little.
pub const FEW: usize = 30;

/// Results of a plan.
#[derive(Clone, Debug)]
pub struct PlanResult {
    /// Its name.
    pub name: String,
    /// Its prompts.
    pub prompts: BTreeMap<String, OfPrompt>,
    /// Of them those that the reference answered too: comparisons are of these.
    pub pairs: usize,
    /// True if whole answers are compared, as one side does not report when the prompt was read.
    pub is_whole: bool,
    /// Speed-up of a token over the reference, the mean over prompts.
    pub speed: Interval,
    /// Decode time over all prompts as a share of the reference's.
    pub time: Interval,
    /// Milliseconds of a whole answer, the mean over prompts.
    pub latency_ms: Interval,
    /// The reference's, over the same prompts.
    pub reference_latency_ms: f64,
    /// The energy of a token, the prompt's reading included.
    pub energy: Energy,
    /// Its answers.
    pub quality: Quality,
    /// Speed by level and by category.
    pub groups: Vec<Group>,
    /// Of drafted tokens at a position, how many were reached and kept.
    pub positions: Vec<(u64, u64)>,
    /// Tokens per step of the target; `None` where tokens came without verification, or steps are not known.
    pub tokens_per_step: Option<f64>,
    /// The share of drafted tokens looked at that were kept.
    pub acceptance: Option<f64>,
    /// Layers of the target run per token, of the reference's.
    pub layers: Option<f64>,
    /// True if anything was drafted.
    pub drafts: bool,
    /// Spread of the repeats of a prompt: the median of their median deviation, as a share.
    pub noise: Option<f64>,
}

/// Prompts of a kind.
#[derive(Clone, Debug)]
pub struct Group {
    /// `level` or `category`.
    pub by: &'static str,
    /// Which.
    pub name: String,
    /// Number of prompts.
    pub prompts: usize,
    /// Speed-up over the reference.
    pub speed: Interval,
    /// Decode time as a share of the reference's.
    pub time: Interval,
    /// The time of whole answers as a share of the reference's.
    pub latency: Interval,
    /// The energy of a token as a share of the reference's.
    pub energy: Option<Interval>,
    /// The share of right answers (Wilson's interval).
    pub right: Option<Interval>,
}

/// All plans with prompts of the reference, which is first. Rows that are not usable are left out; `can_differ` says of a plan whether it
/// may give other tokens than the reference, so that the quality of its answers is to be tested.
pub fn results(rows: &[Row], reference: &str, can_differ: impl Fn(&str) -> bool) -> Vec<PlanResult> {
    let mut by_plan: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    rows.iter().filter(|row| is_usable(row)).for_each(|row| by_plan.entry(&row.plan).or_default().push(row));
    let mut names: Vec<&str> = by_plan.keys().copied().collect();
    names.sort_by_key(|name| (*name != reference, *name));
    let Some(base_rows) = by_plan.get(reference) else { return Vec::new() };
    let base = of_prompts(base_rows);
    let of = |name: &str| result(name, &by_plan[name], base_rows, &base, name != reference && can_differ(name));
    let mut results: Vec<PlanResult> = names.into_iter().filter_map(of).collect();
    let tests: Vec<&mut Tests> = results.iter_mut().filter_map(|plan| plan.quality.tests.as_mut()).collect();
    quality::correct(tests);
    results
}

/// `None` without a common prompt.
fn result(
    name: &str,
    rows: &[&Row],
    base_rows: &[&Row],
    base: &BTreeMap<String, OfPrompt>,
    can_differ: bool,
) -> Option<PlanResult> {
    let prompts = of_prompts(rows);
    // Prompts that both answered.
    let pairs: Vec<Pair<'_>> = prompts.iter().filter_map(|(id, own)| Some((own, base.get(id)?))).collect();
    if pairs.is_empty() {
        return None;
    }
    let is_whole = pairs.iter().any(|(own, base)| !own.is_split || !base.is_split);
    let (speed, time) = speeds(&pairs, is_whole);
    let energy = Energy::of(rows, base_rows, &pairs);
    let sum = |rows: &[&Row], value: &dyn Fn(&Row) -> u64| rows.iter().map(|row| value(row)).sum::<u64>();
    let layers = |rows: &[&Row]| {
        let all: Option<u64> = rows.iter().map(|row| row.layer_evaluations).sum();
        Some(all? as f64 / sum(rows, &|row| row.tokens as u64) as f64)
    };
    let base_layers = layers(base_rows).filter(|layers| *layers > 0.0);
    let evaluated = sum(rows, &|row| row.evaluated);
    let noises = prompts.values().filter(|prompt| prompt.decode_ms.len() > 2);
    let noises: Vec<f64> =
        noises.filter_map(|prompt| Some(median_absolute_deviation(&prompt.decode_ms)? / prompt.typical_ms)).collect();
    let steps = sum(rows, &|row| row.steps);
    // A token without verification took no step of the target.
    let is_verified = steps > 0 && sum(rows, &|row| row.unverified) == 0;
    let latency_ms = bootstrap(pairs.len(), RESAMPLES, 0, |places| {
        places.iter().map(|&place| pairs[place].0.latency_ms).sum::<f64>() / places.len() as f64
    });
    Some(PlanResult {
        name: name.to_owned(),
        pairs: pairs.len(),
        is_whole,
        speed,
        time,
        latency_ms,
        reference_latency_ms: pairs.iter().map(|(_, base)| base.latency_ms).sum::<f64>() / pairs.len() as f64,
        groups: groups(&pairs, is_whole, energy.share.is_ok()),
        energy,
        quality: Quality::of(&pairs, can_differ),
        positions: positions(rows),
        tokens_per_step: is_verified.then(|| sum(rows, &|row| row.tokens as u64) as f64 / steps as f64),
        acceptance: (evaluated > 0).then(|| sum(rows, &|row| row.accepted) as f64 / evaluated as f64),
        layers: layers(rows).zip(base_layers).map(|(own, base)| own / base),
        drafts: rows.iter().any(|row| row.drafted > 0),
        noise: median(&noises),
        prompts,
    })
}

/// Times as fast, and the share of time, with intervals over prompts.
fn speeds(pairs: &[Pair<'_>], is_whole: bool) -> (Interval, Interval) {
    let paces: Vec<(f64, f64)> = pairs.iter().map(|(own, base)| (own.pace(is_whole), base.pace(is_whole))).collect();
    let speed = |places: &[usize]| {
        places.iter().map(|&place| paces[place].1 / paces[place].0).sum::<f64>() / places.len() as f64
    };
    let time = |places: &[usize]| ratio(places, |place| paces[place]);
    (bootstrap(pairs.len(), RESAMPLES, 0, speed), bootstrap(pairs.len(), RESAMPLES, 0, time))
}

/// The sum of the first of pairs over that of the second.
fn ratio(places: &[usize], pair: impl Fn(usize) -> (f64, f64)) -> f64 {
    let (own, base) =
        places.iter().map(|&place| pair(place)).fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    own / base
}

fn groups(pairs: &[Pair<'_>], is_whole: bool, is_measured: bool) -> Vec<Group> {
    let mut all = Vec::new();
    for (by, of) in
        [("level", (|prompt| &prompt.level) as fn(&OfPrompt) -> &String), ("category", |prompt| &prompt.category)]
    {
        let names: BTreeSet<&String> = pairs.iter().map(|(own, _)| of(own)).filter(|name| !name.is_empty()).collect();
        for name in names {
            let these: Vec<Pair<'_>> = pairs.iter().copied().filter(|(own, _)| of(own) == name).collect();
            let (speed, time) = speeds(&these, is_whole);
            let latency = bootstrap(these.len(), RESAMPLES, 0, |places| {
                ratio(places, |place| (these[place].0.latency_ms, these[place].1.latency_ms))
            });
            let energy = if is_measured { energy::share(&these) } else { None };
            let checked: Vec<bool> = these.iter().filter_map(|(own, base)| base.right.and(own.right)).collect();
            let right = (!checked.is_empty())
                .then(|| wilson(checked.iter().filter(|right| **right).count() as u64, checked.len() as u64));
            all.push(Group { by, name: name.clone(), prompts: these.len(), speed, time, latency, energy, right });
        }
    }
    // Levels as they rise, where they have the usual names.
    let rank = |group: &Group| ["simple", "medium", "complex"].iter().position(|level| group.name == *level);
    all.sort_by_key(|group| (group.by != "level", rank(group), group.name.clone()));
    all
}

/// Of drafted tokens at each position: in how many drafts it was looked at, and kept. A position is looked at if the one before
/// it was kept, so what is reached is counted from the kept ones; of the first, every draft.
fn positions(rows: &[&Row]) -> Vec<(u64, u64)> {
    let mut kept: Vec<u64> = Vec::new();
    for row in rows {
        for (place, count) in row.by_position.split(';').filter_map(|count| count.parse::<u64>().ok()).enumerate() {
            if kept.len() <= place {
                kept.push(0);
            }
            kept[place] += count;
        }
    }
    let drafts: u64 = rows.iter().map(|row| row.rounds).sum();
    let reached = std::iter::once(drafts).chain(kept.iter().copied());
    reached.zip(kept.iter().copied()).filter(|(reached, _)| *reached > 0).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;

    /// Prompt `id` takes `ms` a token with a plan.
    fn row(plan: &str, id: usize, repeat: usize, ms: f64, right: bool) -> Row {
        Row {
            id: format!("{id}"),
            level: if id.is_multiple_of(2) { "simple".into() } else { "complex".into() },
            plan: plan.into(),
            repeat,
            tokens: 10,
            latency_ms: Some(10.0 * ms + 5.0),
            prefill_ms: Some(5.0),
            right: Some(right),
            digest: if right { "a".into() } else { "b".into() },
            steps: 5,
            rounds: 5,
            evaluated: 7,
            accepted: 5,
            by_position: "4;1".into(),
            ..Row::default()
        }
    }

    #[test]
    fn plans_are_compared_by_prompt() {
        let mut rows = Vec::new();
        for id in 0..40 {
            for repeat in 0..3 {
                // One repeat is disturbed; medians do not mind.
                let hiccup = if repeat == 1 { 50.0 } else { 0.0 };
                rows.push(row("plain", id, repeat, 4.0 + id as f64, true));
                rows.push(row(
                    "fast",
                    id,
                    repeat,
                    (4.0 + id as f64) / if id.is_multiple_of(2) { 4.0 } else { 2.0 } + hiccup,
                    id != 3,
                ));
            }
        }
        rows.push(Row { error: "it failed".into(), ..row("fast", 99, 0, 1.0, true) });
        let results = results(&rows, "plain", |_| true);
        assert_eq!(results.iter().map(|plan| plan.name.as_str()).collect::<Vec<_>>(), ["plain", "fast"]);
        let (plain, fast) = (&results[0], &results[1]);
        assert!((plain.speed.estimate - 1.0).abs() < 1e-12 && plain.quality.is_identical && !plain.is_whole);
        assert!(
            (fast.speed.estimate - 3.0).abs() < 1e-12 && fast.speed.low > 2.5 && fast.speed.high < 3.5,
            "{:?}",
            fast.speed
        );
        assert!((fast.groups[0].speed.estimate - 4.0).abs() < 1e-9 && fast.groups[0].name == "simple");
        assert!((fast.groups[1].speed.estimate - 2.0).abs() < 1e-9 && fast.groups[1].prompts == 20);
        let quality = &fast.quality;
        assert_eq!((fast.pairs, quality.checked, quality.same), (40, 40, Some(39.0 / 40.0)));
        assert!((quality.right.unwrap().estimate - 39.0 / 40.0).abs() < 1e-12 && quality.tests.unwrap().p > 0.999);
        assert!(plain.quality.tests.is_none());
        // Of 5 drafts in each answer 4 had their first token kept, and one of those its second.
        assert_eq!(fast.positions, [(600, 480), (480, 120)]);
        assert_eq!((fast.tokens_per_step, fast.acceptance), (Some(2.0), Some(5.0 / 7.0)));
    }

    /// 4 ms a token and 5 ms for the prompt: 45 ms for 10 tokens. The other engine takes 22.5 ms, and does not say for what.
    #[test]
    fn whole_answers_are_compared_with_whole_answers() {
        let mut rows: Vec<Row> = (0..40).map(|id| row("plain", id, 0, 4.0, true)).collect();
        rows.extend((0..40).map(|id| Row {
            latency_ms: Some(22.5),
            // One row that does not tell it is enough.
            prefill_ms: (id > 0).then_some(2.5),
            ..row("other", id, 0, 1.0, true)
        }));
        let results = results(&rows, "plain", |_| true);
        let other = &results[1];
        assert!(other.is_whole && !results[0].is_whole);
        assert!((other.speed.estimate - 2.0).abs() < 1e-12 && (other.time.estimate - 0.5).abs() < 1e-12, "{other:?}");
        assert!((other.groups[0].latency.estimate - 0.5).abs() < 1e-12 && other.reference_latency_ms == 45.0);
    }

    #[test]
    fn plans_without_a_common_prompt_are_left_out_and_no_number_is_none() {
        let mut rows: Vec<Row> = (0..4).map(|id| row("plain", id, 0, 4.0, true)).collect();
        rows.extend((50..54).map(|id| row("elsewhere", id, 0, 4.0, true)));
        rows.extend((0..6).map(|id| row("wider", id, 0, 2.0, true)));
        rows.push(Row { latency_ms: Some(f64::NAN), ..row("broken", 0, 0, 1.0, true) });
        rows.push(Row { latency_ms: Some(5.0), ..row("broken", 1, 0, 1.0, true) });
        let results = results(&rows, "plain", |_| true);
        let names: Vec<(&str, usize, usize)> =
            results.iter().map(|plan| (plan.name.as_str(), plan.pairs, plan.prompts.len())).collect();
        assert_eq!(names, [("plain", 4, 4), ("wider", 4, 6)]);
        assert!(results[1].speed.low.is_finite() && results[1].speed.high.is_finite());
    }

    #[test]
    fn energy_is_told_by_level_and_steps_without_verification_count_for_nothing() {
        let of = |plan: &str, joules: [f64; 2]| {
            let row = |id: usize| Row {
                joules: Some(joules[id % 2]),
                energy_source: "rapl".into(),
                unverified: u64::from(plan == "hasty" && id == 3),
                layer_evaluations: Some(0),
                ..row(plan, id, 0, 4.0, true)
            };
            (0..40).map(row).collect::<Vec<_>>()
        };
        let rows = [of("plain", [10.0, 20.0]), of("fast", [4.0, 16.0]), of("hasty", [1.0, 1.0])].concat();
        let results = results(&rows, "plain", |_| true);
        let shares: Vec<f64> = results[1].groups.iter().filter_map(|group| Some(group.energy?.estimate)).collect();
        assert!(shares.len() == 2 && (shares[0] - 0.4).abs() < 1e-12 && (shares[1] - 0.8).abs() < 1e-12, "{shares:?}");
        assert!((results[1].energy.share.unwrap().estimate - 20.0 / 30.0).abs() < 1e-12);
        assert_eq!((results[1].tokens_per_step, results[2].tokens_per_step), (Some(2.0), None));
        assert_eq!(results[1].layers, None);
    }

    /// Exact plans are no hypothesis: with five of them a lossy one is tested as if it were alone.
    #[test]
    fn only_plans_that_can_differ_are_tested() {
        let mut rows: Vec<Row> = (0..400).map(|id| row("plain", id, 0, 4.0, true)).collect();
        for plan in ["a", "b", "c", "d", "e"] {
            rows.extend((0..400).map(|id| row(plan, id, 0, 4.0, true)));
        }
        // Other tokens, and as right: of 400 prompts that is enough for one test, and not for two.
        rows.extend((0..400).map(|id| Row { digest: "c".into(), ..row("lossy", id, 0, 4.0, true) }));
        let tests = |results: &[PlanResult]| results.iter().filter(|plan| plan.quality.tests.is_some()).count();
        let found = results(&rows, "plain", |plan| plan == "lossy");
        assert!(tests(&found) == 1 && found[6].quality.tests.unwrap().not_worse.holds);
        let found = results(&rows, "plain", |plan| plan == "lossy" || plan == "a");
        assert!(tests(&found) == 2 && !found[6].quality.tests.unwrap().not_worse.holds);
    }
}
