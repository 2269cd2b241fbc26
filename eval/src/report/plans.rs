//! What each plan came to, beside the reference: speed, energy, quality, by prompt and with intervals.

use std::collections::{BTreeMap, BTreeSet};

use crate::rows::Row;
use crate::statistics::{
    Interval, NonInferiority, bootstrap, holm, mcnemar, median, median_absolute_deviation, non_inferiority, wilson,
};

/// Resamples of the prompts for an interval.
pub(super) const RESAMPLES: usize = 2000;
/// The drop of right answers that counts as none, as a share of all prompts.
pub const MARGIN: f64 = 0.01;
/// Fewer prompts than this say little.
pub const FEW: usize = 30;

/// A prompt, and what its answers took with one plan: medians over repeats.
#[derive(Clone, Debug, Default)]
pub struct OfPrompt {
    /// Its kind and level.
    pub category: String,
    /// How hard it is said to be.
    pub level: String,
    /// Milliseconds per token after the prompt was read, by repeat.
    pub decode_ms: Vec<f64>,
    /// The median of them.
    pub typical_ms: f64,
    /// Milliseconds of the whole answer.
    pub latency_ms: f64,
    /// Joules per token.
    pub joules: Option<f64>,
    /// Whether the answer is right.
    pub right: Option<bool>,
    /// Its tokens' checksum.
    pub digest: String,
}

/// What a plan came to.
#[derive(Clone, Debug)]
pub struct PlanResult {
    /// Its name.
    pub name: String,
    /// Its prompts.
    pub prompts: BTreeMap<String, OfPrompt>,
    /// How many times as fast as the reference a token is made, the mean over prompts.
    pub speed: Interval,
    /// Decode time over all prompts as a share of the reference's.
    pub time: Interval,
    /// Milliseconds of a whole answer, the mean over prompts.
    pub latency_ms: Interval,
    /// The same for the energy of a token, the prompt's reading included.
    pub energy: Option<Interval>,
    /// Joules per token, the mean over prompts.
    pub joules: Option<f64>,
    /// Which meters said so.
    pub energy_sources: BTreeSet<String>,
    /// Share of right answers, of prompts with a known one.
    pub right: Option<Interval>,
    /// Prompts with a known answer.
    pub checked: u64,
    /// Whether the difference of right answers is more than chance (McNemar, corrected for all plans after Holm).
    pub p: Option<f64>,
    /// Whether there are not more than [`MARGIN`] fewer.
    pub not_worse: Option<NonInferiority>,
    /// The share of answers whose tokens are the reference's.
    pub same: Option<f64>,
    /// Speed by level and by category.
    pub groups: Vec<Group>,
    /// Of drafted tokens at a position, how many were reached and kept.
    pub positions: Vec<(u64, u64)>,
    /// Tokens per step of the target.
    pub tokens_per_step: f64,
    /// The share of drafted tokens looked at that were kept.
    pub acceptance: Option<f64>,
    /// Layers run per token, of the reference's.
    pub layers: Option<f64>,
    /// How far the repeats of a prompt are apart: the median of their median deviation, as a share.
    pub noise: Option<f64>,
}

/// Prompts of a kind.
#[derive(Clone, Debug)]
pub struct Group {
    /// `level` or `category`.
    pub by: &'static str,
    /// Which.
    pub name: String,
    /// How many.
    pub prompts: usize,
    /// How many times as fast as the reference.
    pub speed: Interval,
    /// Decode time as a share of the reference's.
    pub time: Interval,
    /// The share of right answers.
    pub right: Option<Interval>,
}

/// All plans, the reference first. Rows with errors are left out.
pub fn results(rows: &[Row], reference: &str) -> Vec<PlanResult> {
    let mut by_plan: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    let mut names: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| row.decode_ms().is_some()) {
        if !by_plan.contains_key(row.plan.as_str()) {
            names.push(&row.plan);
        }
        by_plan.entry(&row.plan).or_default().push(row);
    }
    names.sort_by_key(|name| (*name != reference, *name));
    let prompts: BTreeMap<&str, BTreeMap<String, OfPrompt>> =
        by_plan.iter().map(|(name, rows)| (*name, of_prompts(rows))).collect();
    let Some(base) = prompts.get(reference) else { return Vec::new() };
    let of = |name: &&str| result(name, &by_plan[name], &prompts[name], &by_plan[reference], base);
    let mut results: Vec<PlanResult> = names.iter().map(of).collect();
    let tested: Vec<usize> = (0..results.len()).filter(|&plan| plan > 0 && results[plan].p.is_some()).collect();
    let adjusted = holm(&tested.iter().filter_map(|&plan| results[plan].p).collect::<Vec<_>>());
    tested.into_iter().zip(adjusted).for_each(|(plan, p)| results[plan].p = Some(p));
    results
}

fn of_prompts(rows: &[&Row]) -> BTreeMap<String, OfPrompt> {
    let mut all: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    rows.iter().for_each(|row| all.entry(row.id.clone()).or_default().push(row));
    let typical = |rows: &[&Row], value: &dyn Fn(&Row) -> Option<f64>| {
        median(&rows.iter().filter_map(|row| value(row)).collect::<Vec<_>>())
    };
    let of = |(id, rows): (String, Vec<&Row>)| {
        let first = rows.first()?;
        let prompt = OfPrompt {
            category: first.category.clone(),
            level: first.level.clone(),
            decode_ms: rows.iter().filter_map(|row| row.decode_ms()).collect(),
            typical_ms: typical(&rows, &Row::decode_ms)?,
            latency_ms: typical(&rows, &|row| row.latency_ms)?,
            joules: typical(&rows, &|row| Some(row.joules? / row.tokens as f64)),
            right: first.right,
            digest: first.digest.clone(),
        };
        Some((id, prompt))
    };
    all.into_iter().filter_map(of).collect()
}

fn result(
    name: &str,
    rows: &[&Row],
    prompts: &BTreeMap<String, OfPrompt>,
    base_rows: &[&Row],
    base: &BTreeMap<String, OfPrompt>,
) -> PlanResult {
    // Prompts that both answered.
    let pairs: Vec<(&OfPrompt, &OfPrompt)> =
        prompts.iter().filter_map(|(id, own)| Some((own, base.get(id)?))).collect();
    let (speed, time) = speeds(&pairs);
    let energies: Option<Vec<(f64, f64)>> = pairs.iter().map(|(own, base)| Some((own.joules?, base.joules?))).collect();
    let energies = energies.filter(|all| !all.is_empty());
    let joules = energies.as_ref().map(|all| all.iter().map(|pair| pair.0).sum::<f64>() / all.len() as f64);
    let energy = energies.map(|all| bootstrap(all.len(), RESAMPLES, 0, |places| ratio(places, |place| all[place])));
    let checked: Vec<(bool, bool)> = pairs.iter().filter_map(|(own, base)| Some((own.right?, base.right?))).collect();
    let only = |wanted: (bool, bool)| checked.iter().filter(|pair| **pair == wanted).count() as u64;
    let (own_alone, base_alone, n) = (only((true, false)), only((false, true)), checked.len() as u64);
    let digests: Vec<bool> = pairs
        .iter()
        .filter(|(own, base)| !own.digest.is_empty() && !base.digest.is_empty())
        .map(|(own, base)| own.digest == base.digest)
        .collect();
    let sum = |rows: &[&Row], value: &dyn Fn(&Row) -> u64| rows.iter().map(|row| value(row)).sum::<u64>();
    let layers = |rows: &[&Row]| {
        let all: Option<u64> = rows.iter().map(|row| row.layer_evaluations).sum();
        Some(all? as f64 / sum(rows, &|row| row.tokens as u64) as f64)
    };
    let evaluated = sum(rows, &|row| row.evaluated);
    let noises = prompts.values().filter(|prompt| prompt.decode_ms.len() > 2);
    let noises: Vec<f64> =
        noises.filter_map(|prompt| Some(median_absolute_deviation(&prompt.decode_ms)? / prompt.typical_ms)).collect();
    let steps = sum(rows, &|row| row.steps);
    PlanResult {
        name: name.to_owned(),
        speed,
        time,
        latency_ms: bootstrap(pairs.len(), RESAMPLES, 0, |places| {
            places.iter().map(|&place| pairs[place].0.latency_ms).sum::<f64>() / places.len() as f64
        }),
        energy,
        joules,
        energy_sources: rows.iter().filter(|row| row.joules.is_some()).map(|row| row.energy_source.clone()).collect(),
        right: (n > 0).then(|| wilson(own_alone + only((true, true)), n)),
        checked: n,
        p: (n > 0).then(|| mcnemar(own_alone, base_alone)),
        not_worse: (n > 0).then(|| non_inferiority(own_alone, base_alone, n, MARGIN)),
        same: (!digests.is_empty()).then(|| digests.iter().filter(|same| **same).count() as f64 / digests.len() as f64),
        groups: groups(&pairs),
        positions: positions(rows),
        tokens_per_step: if steps > 0 { sum(rows, &|row| row.tokens as u64) as f64 / steps as f64 } else { 0.0 },
        acceptance: (evaluated > 0).then(|| sum(rows, &|row| row.accepted) as f64 / evaluated as f64),
        layers: layers(rows).zip(layers(base_rows)).map(|(own, base)| own / base),
        noise: median(&noises),
        prompts: prompts.clone(),
    }
}

/// Times as fast, and the share of time, with intervals over prompts.
fn speeds(pairs: &[(&OfPrompt, &OfPrompt)]) -> (Interval, Interval) {
    let speed = |places: &[usize]| {
        places.iter().map(|&place| pairs[place].1.typical_ms / pairs[place].0.typical_ms).sum::<f64>()
            / places.len() as f64
    };
    let time = |places: &[usize]| ratio(places, |place| (pairs[place].0.typical_ms, pairs[place].1.typical_ms));
    (bootstrap(pairs.len(), RESAMPLES, 0, speed), bootstrap(pairs.len(), RESAMPLES, 0, time))
}

/// The sum of the first of pairs over that of the second.
fn ratio(places: &[usize], pair: impl Fn(usize) -> (f64, f64)) -> f64 {
    let (own, base) =
        places.iter().map(|&place| pair(place)).fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    own / base
}

fn groups(pairs: &[(&OfPrompt, &OfPrompt)]) -> Vec<Group> {
    let mut all = Vec::new();
    for (by, of) in
        [("level", (|prompt| &prompt.level) as fn(&OfPrompt) -> &String), ("category", |prompt| &prompt.category)]
    {
        let names: BTreeSet<&String> = pairs.iter().map(|(own, _)| of(own)).filter(|name| !name.is_empty()).collect();
        for name in names {
            let these: Vec<(&OfPrompt, &OfPrompt)> = pairs.iter().copied().filter(|(own, _)| of(own) == name).collect();
            let (speed, time) = speeds(&these);
            let checked: Vec<bool> = these.iter().filter_map(|(own, _)| own.right).collect();
            let right = (!checked.is_empty())
                .then(|| wilson(checked.iter().filter(|right| **right).count() as u64, checked.len() as u64));
            all.push(Group { by, name: name.clone(), prompts: these.len(), speed, time, right });
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
        let results = results(&rows, "plain");
        assert_eq!(results.iter().map(|plan| plan.name.as_str()).collect::<Vec<_>>(), ["plain", "fast"]);
        let (plain, fast) = (&results[0], &results[1]);
        assert!((plain.speed.estimate - 1.0).abs() < 1e-12 && plain.same == Some(1.0));
        assert!(
            (fast.speed.estimate - 3.0).abs() < 1e-12 && fast.speed.low > 2.5 && fast.speed.high < 3.5,
            "{:?}",
            fast.speed
        );
        assert!((fast.groups[0].speed.estimate - 4.0).abs() < 1e-9 && fast.groups[0].name == "simple");
        assert!((fast.groups[1].speed.estimate - 2.0).abs() < 1e-9 && fast.groups[1].prompts == 20);
        assert_eq!((fast.checked, fast.same), (40, Some(39.0 / 40.0)));
        assert!((fast.right.unwrap().estimate - 39.0 / 40.0).abs() < 1e-12 && fast.p.is_some_and(|p| p > 0.999));
        // Of 5 drafts in each answer 4 had their first token kept, and one of those its second.
        assert_eq!(fast.positions, [(600, 480), (480, 120)]);
        assert_eq!((fast.tokens_per_step, fast.acceptance), (2.0, Some(5.0 / 7.0)));
    }
}
