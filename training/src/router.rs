//! The step `router`: learns from traces which plan suits a prompt ([`learn`]), judges that on prompts that were held out
//! ([`judge`]), and leaves `router.safetensors` beside the target.

pub mod examples;
pub mod judge;
pub mod learn;
mod page;

use anyhow::anyhow;
use paceline::checkpoint::{Checkpoint, side_file};
use paceline::command::{Failure, output};
use paceline::drafters::DrafterChoice;
use paceline::files::{self, write_file, write_tensors};
use paceline::routing::{identities, identity, identity_of, open_router};
use paceline::text::Tokenizer;
use paceline_router::router::{LossyFacts, ROUTER};
use paceline_router::{CostTable, Description, Group, Plan, PlanSet, Router, Shape};

use self::examples::Examples;
use self::judge::Judged;
use self::learn::{Learned, Learning};
use crate::checksum::Checksum;
use crate::job::{Job, Outcome, TrainingFlags};
use crate::settings::TracesRecipe;
use crate::traces::{Models, open_all, watched};

/// Learns, judges and writes the router, unless that is done.
///
/// # Errors
/// When there are no traces, models cannot be used, or the results cannot be written.
pub fn run(job: &Job, flags: &TrainingFlags) -> Result<Outcome, Failure> {
    let recipe = job.recipe.router.clone().unwrap_or_default();
    let traced: TracesRecipe = job.recipe.traces.clone().unwrap_or_default();
    let models = Models::of(job, &traced);
    let folder = job.out().join("traces");
    let (heading, traces) = open_all(&folder)?;
    let costs_path = folder.join("costs.json");
    let costs = files::read(&costs_path, 1 << 20).map_err(|error| {
        anyhow!("The costs {} cannot be read: {error}; run `paceline-train traces` again.", costs_path.display())
    })?;
    let costs: CostTable = serde_json::from_slice(&costs).map_err(|error| {
        anyhow!("The costs {} are damaged: {error}; run `paceline-train traces` again.", costs_path.display())
    })?;
    let checkpoint = Checkpoint::open(&models.target)?;
    if !heading.models.is_empty() && heading.models != models.identity(&checkpoint)? {
        return Err(anyhow!(
            "The traces in {} are of another target, other exits or other drafts; run `paceline-train traces` again.",
            folder.display()
        )
        .into());
    }
    let tokenizer = Tokenizer::of_model(&models.target)?;
    let path = side_file(&models.target, ROUTER);
    let key = Checksum::of(format!("{recipe:?} {} {costs:?} {}", heading.fingerprint, job.recipe.seed).as_bytes());
    if job.is_done("router", key) && open_router(&models.target).is_ok_and(|router| router.is_some()) {
        return Ok(Outcome::Kept);
    }

    let place = flags.open()?;
    let mut examples = Examples::of(traces, &heading, &costs)?;
    examples.leave_out(&recipe.leave_out);
    let watched = watched(&checkpoint, &traced)?;
    let hashes = identities(&checkpoint, &models.drafts)?;
    let drafting = examples.drafters.iter().map(|name| {
        let identity = identity_of(&hashes, name).unwrap_or_default();
        let exit_depth = match name.parse() {
            Ok(DrafterChoice::Exit(depth)) => Some(depth),
            _ => None,
        };
        Plan { identity, exit_depth, ..Plan::drafting(name) }
    });
    let plans = PlanSet { drafting: drafting.collect(), lossy: examples.lossy.clone() };
    let shape = Shape {
        width: heading.width,
        queries: recipe.queries,
        inside: recipe.inside,
        drafters: plans.drafting.len(),
        lossy: plans.lossy.len(),
    };
    let out = job.folder("router")?;
    let learning = |without: Option<Group>| Learning {
        recipe: &recipe,
        examples: &examples,
        shape,
        without,
        place: &place,
        seed: job.recipe.seed,
        folder: out.join(without.map_or("whole".to_owned(), |group| format!("without-{}", group.name()))),
        fingerprint: format!("{key:016x}"),
    };
    let Learned { network, stopping } = learning(None).run()?;
    let judged = Judged::of(&examples, &network, &stopping, None);
    let description = Description {
        model: identity::written(checkpoint.fingerprint()),
        tokenizer: identity::written(tokenizer.fingerprint()),
        layer: watched.layer,
        most_states: watched.most_states,
        exit: watched.exit.filter(|_| examples.has(Group::Uncertainty)),
        shape,
        plans,
        stopping,
        rounds: recipe.rounds,
        made_of: identity::written(key),
        chosen: judged.shares_chosen(),
        lossy: judged
            .lossy
            .iter()
            .map(|lossy| LossyFacts {
                other_answers: lossy.found,
                perplexity_delta: lossy.perplexity,
                work: lossy.work,
            })
            .collect(),
        confusion: judged.confusion.iter().map(|row| row.to_vec()).collect(),
    };
    let router = Router::new(description, network);
    let bytes = router.to_bytes().map_err(|error| anyhow!("The router cannot be written: {error}."))?;
    write_tensors(&path, Description::KEY, &bytes)?;

    let mut without = Vec::new();
    if recipe.ablation {
        for group in Group::ALL {
            if examples.has(group) {
                let Learned { network, stopping } = learning(Some(group)).run()?;
                without.push((group, Judged::of(&examples, &network, &stopping, Some(group))));
            }
        }
    }
    let page = page::page(&examples, &judged, &without, &costs);
    write_file(&out.join("router.md"), page.as_bytes())?;
    write_file(&out.join("reliability.csv"), judged.reliability_table(&examples).as_bytes())?;
    output::print(&page)?;
    job.mark_done("router", key)?;
    Ok(Outcome::Made)
}
