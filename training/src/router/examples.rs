//! Training examples of the router: traces with what every plan would have cost, at the costs of this machine and of
//! others.

use anyhow::bail;
use paceline_router::features::NUMBERS;
use paceline_router::network::LEVELS;
use paceline_router::router::log_odds;
use paceline_router::{CostTable, Features, Group, Lossy, Plan, Prices};

use crate::traces::store::{Heading, Trace};
use crate::traces::table::{lossy, replay_all};

/// One prompt.
pub struct Example {
    /// The trace: name, category, level, tokens.
    pub trace: Trace,
    /// The class of difficulty.
    pub level: usize,
    /// Tokens that each drafter was asked for, and how many of them it got right.
    pub counts: Vec<[f64; 2]>,
    /// For each machine, the log-odds of each drafter's effective acceptance.
    pub effective: Vec<Vec<f64>>,
    /// For each machine, each drafter's cost in units of plain decoding.
    pub cost: Vec<Vec<f64>>,
    /// For each lossy plan, 1 if its answer is another.
    pub lost: Vec<f64>,
    /// For each lossy plan, by what share its perplexity is above the target's, and the share of the target's work that it does.
    pub lossy: Vec<[f64; 2]>,
}

/// All of them.
pub struct Examples {
    /// The drafters, in the order of everything here.
    pub drafters: Vec<String>,
    /// The lossy plans.
    pub lossy: Vec<Plan>,
    /// Examples to learn from, easy and short prompts first.
    pub train: Vec<Example>,
    /// Examples to judge by.
    pub held_out: Vec<Example>,
    /// The machine that traces were made on, then others, made up of it.
    pub machines: Vec<CostTable>,
    /// True if levels were known; else they are thirds of the measured values.
    pub levels_known: bool,
}

/// Machines by what a further row and a drafted token cost there, in units of what they cost here: memory that is slower beside
/// the processor makes rows cheap, small caches make drafts dear.
const MACHINES: [[f64; 2]; 4] = [[1.0, 1.0], [0.5, 1.0], [1.0, 1.6], [0.6, 0.6]];

impl Examples {
    /// Replays all drafters on all traces.
    ///
    /// # Errors
    /// If there is nothing to learn from or to judge by.
    pub fn of(traces: Vec<Trace>, heading: &Heading, costs: &CostTable) -> anyhow::Result<Self> {
        let work: &[Option<f64>] = &heading.work;
        let machines: Vec<CostTable> = MACHINES.iter().map(|scales| machine(costs, *scales)).collect();
        if traces.iter().all(|trace| trace.asked.held_out) || traces.iter().all(|trace| !trace.asked.held_out) {
            bail!(
                "The traces need prompts to learn from and others to judge by: raise `prompts` or `held_out` in [traces]."
            );
        }
        let replays: Vec<_> = machines.iter().map(|machine| replay_all(&traces, &heading.sources, machine)).collect();
        let drafters = replays[0].drafters.clone();
        let mut examples: Vec<Example> = Vec::with_capacity(traces.len());
        let levels_known = traces.iter().all(|trace| LEVELS.contains(&trace.asked.level.as_str()));
        let best = |place: usize| replays[0].seconds.iter().map(|seconds| seconds[place]).fold(f64::INFINITY, f64::min);
        let mut ranked: Vec<f64> = (0..traces.len()).map(best).collect();
        ranked.sort_by(f64::total_cmp);
        for (place, trace) in traces.into_iter().enumerate() {
            let level = match LEVELS.iter().position(|level| *level == trace.asked.level) {
                Some(level) if levels_known => level,
                // Thirds, by how fast the fastest plan is.
                _ => ranked.partition_point(|seconds| *seconds < best(place)) * LEVELS.len() / ranked.len(),
            };
            let counts = drafters.iter().enumerate().map(|(index, _)| {
                let all = trace.places() as f64;
                let right = match index {
                    0 => trace.lookups.right.iter().filter(|right| **right > 0).count(),
                    _ => trace.forced.columns[index - 1].matches.iter().filter(|matches| **matches).count(),
                };
                [all, right as f64]
            });
            let counts = counts.collect();
            let of_machine = |(machine, replays): (&CostTable, &crate::traces::table::Replays)| {
                let effective = drafters.iter().zip(&replays.seconds).map(|(name, seconds)| {
                    let reading =
                        machine.drafters.get(name).map_or(0.0, |cost| cost.reading) * trace.asked.tokens as f64;
                    let drafting = seconds[place] - reading / trace.places() as f64;
                    machine
                        .prices(name)
                        .map_or(0.0, |prices: Prices<'_>| log_odds(prices.effective_acceptance(drafting)))
                });
                let cost = replays.seconds.iter().map(|seconds| seconds[place] / replays.plain);
                (effective.collect(), cost.collect())
            };
            let (effective, cost) = machines.iter().zip(&replays).map(of_machine).unzip();
            let plans = lossy(&trace, &heading.sources, work);
            let lost = plans.iter().map(|plan| f64::from(u8::from(!plan.exact))).collect();
            let lossy = plans.iter().map(|plan| [plan.perplexity, plan.work]).collect();
            examples.push(Example { trace, level, counts, effective, cost, lost, lossy });
        }
        let lossy =
            lossy(&examples[0].trace, &heading.sources, work).into_iter().map(|plan| plan_of(&plan.plan)).collect();
        let (held_out, mut train): (Vec<_>, Vec<_>) =
            examples.into_iter().partition(|example| example.trace.asked.held_out);
        train.sort_by_key(|example| (example.level, example.trace.places()));
        Ok(Self { drafters, lossy, train, held_out, machines, levels_known })
    }

    /// Has no example tell these groups of features.
    pub fn leave_out(&mut self, groups: &[Group]) {
        for example in self.train.iter_mut().chain(&mut self.held_out) {
            for &group in groups {
                example.trace.features = without(&example.trace.features, Some(group));
            }
        }
    }

    /// True if a group of features says anything.
    pub fn has(&self, group: Group) -> bool {
        let is_there = |features: &Features| match group {
            Group::Attention => features.rows() > 0,
            group => NUMBERS.iter().zip(features.numbers).any(|((_, of), value)| *of == group && value.is_finite()),
        };
        self.train.iter().any(|example| is_there(&example.trace.features))
    }
}

/// A machine where rows and drafts cost so many times as much as on another, a plain step the same.
fn machine(costs: &CostTable, [rows, drafts]: [f64; 2]) -> CostTable {
    let mut costs = costs.clone();
    let plain = costs.steps.first().copied().unwrap_or(0.0);
    costs.steps.iter_mut().for_each(|seconds| *seconds = plain + (*seconds - plain) * rows);
    costs.drafters.values_mut().for_each(|cost| {
        cost.token *= drafts;
        cost.reading *= drafts;
    });
    costs
}

/// The lossy plan of a name in the table of traces.
fn plan_of(name: &str) -> Plan {
    let lossy = match name.split_once(':') {
        Some(("unverified", rest)) => {
            let (depth, threshold) = rest.split_once('@').unwrap_or((rest, "1"));
            Lossy::Exit { depth: depth.parse().unwrap_or(0), threshold: threshold.parse().unwrap_or(1.0) }
        }
        Some(("target-without", rest)) => Lossy::Skip(rest.to_owned()),
        Some((_, rest)) => Lossy::Precision(rest.to_owned()),
        None => Lossy::Precision(name.to_owned()),
    };
    Plan::lossy(lossy)
}

/// Features without a group, as if it were never there.
pub fn without(features: &Features, group: Option<Group>) -> Features {
    let mut features = features.clone();
    let Some(group) = group else { return features };
    if group == Group::Attention {
        features.states.clear();
    }
    for ((_, of), value) in NUMBERS.iter().zip(&mut features.numbers) {
        if *of == group {
            *value = f32::NAN;
        }
    }
    features
}
