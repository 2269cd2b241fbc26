//! Variants: a target as it answers, with what drafts for it and what was learned about both.

use std::sync::Arc;

use paceline_router::CostTable;
use paceline_router::network::LEVELS;

use super::Error;
use crate::drafters::catalog::Catalog;
use crate::drafters::{Drafter, DrafterChoice};
use crate::lossy::LossyPlan;
use crate::model::{Decoder, Sequence, SkipPlan};
use crate::routing::Advice;
use crate::speculation::machine::DrafterCosts;
use crate::speculation::planner::{Candidate, Outlook, Planner, RequestState, Situation};

/// A target as answers share it. Lossy plans that change the target have one of their own, as its steps cost something else.
pub(super) struct Variant {
    pub(super) target: Arc<Decoder>,
    /// Parts that the target does without.
    pub(super) skip: Option<SkipPlan>,
    pub(super) catalog: Catalog,
    pub(super) planner: Planner,
    /// Answers that run on it.
    pub(super) running: usize,
}

/// Planner's initial knowledge of a drafter, before it was ever asked.
fn candidate(catalog: &Catalog, name: DrafterChoice) -> Candidate {
    let (guess, share) = (catalog.guess(&name), catalog.verification_share(&name));
    let bytes = catalog.bytes(&name, catalog.target().config().context);
    Candidate { name, costs: DrafterCosts::guessed(guess, share, bytes) }
}

impl Variant {
    /// The variant of a catalog's target, about which nothing was learned yet.
    pub(super) fn new(catalog: Catalog, skip: Option<SkipPlan>) -> Self {
        let planner = Planner::new(catalog.all().into_iter().map(|name| candidate(&catalog, name)).collect());
        Self { target: Arc::clone(catalog.target()), skip, catalog, planner, running: 0 }
    }

    /// Asks whether there is memory for an answer of so many positions.
    pub(super) fn check_room(&self, positions: usize) -> Result<(), Error> {
        Sequence::check_room(&self.target, positions).map_err(|bytes| Error::CacheTooLarge { bytes, positions })
    }

    /// Has the planner expect what the router does of the answer to a prompt of so many tokens, with room up to `limit`. Says it in
    /// words; `None` as long as no costs are known.
    pub(super) fn expect(
        &self,
        state: &mut RequestState,
        advice: &Advice,
        prompt: usize,
        limit: usize,
    ) -> Option<String> {
        // What a lookup brings depends on whether it finds something, which no acceptance of tokens says.
        let forecast = |name: &DrafterChoice| match name {
            DrafterChoice::Lookup => None,
            name => advice.of(&name.to_string()),
        };
        let forecasts = self.planner.names().map(forecast).collect();
        self.planner.expect(state, &Outlook { forecasts, tokens: Some(advice.prediction.length) });

        let names: Vec<&DrafterChoice> = self.planner.names().collect();
        let is_usable = |index: &usize| self.catalog.allows(&DrafterChoice::Auto, names[*index]);
        let usable: Vec<usize> = (0..names.len()).filter(is_usable).collect();
        let reads = |index: usize| if matches!(names[index], DrafterChoice::Model(_)) { prompt } else { 0 };
        let situation = Situation { usable: &usable, backlog: &reads, remaining: limit - prompt };
        let choice = self.planner.decide(state, &situation)?;
        let name = |plan: Option<usize>| plan.map_or("plain decoding".to_owned(), |index| names[index].to_string());
        let (level, sure) = (advice.difficulty(), 100.0 * advice.level.1);
        let runner_up = choice.runner_up.map_or(String::new(), |second| {
            format!("; next comes {}, {:.0}% dearer", name(second), 100.0 * choice.margin)
        });
        Some(format!(
            "The router takes the prompt to be {level} ({sure:.0}% sure) and expects {} to cost {:.2} of plain decoding{runner_up}.",
            name(choice.plan),
            choice.cost
        ))
    }

    /// A drafter for each of the planner's candidates that the request allows, with room for so many positions.
    pub(super) fn drafters(
        &mut self,
        asked: &DrafterChoice,
        positions: usize,
    ) -> Result<Vec<Option<Box<dyn Drafter>>>, Error> {
        if let DrafterChoice::Skip(_) = asked {
            self.planner.admit(candidate(&self.catalog, asked.clone()));
        }
        let make = |name: &DrafterChoice| {
            let allowed = self.catalog.allows(asked, name);
            allowed.then(|| self.catalog.make(name, positions)).transpose()
        };
        let drafters: Result<_, u64> = self.planner.names().map(make).collect();
        drafters.map_err(|bytes| Error::CacheTooLarge { bytes, positions })
    }
}

/// The variant of the target as it was loaded, and those of recent lossy plans.
pub(super) struct Variants {
    whole: Variant,
    /// A few, the recent ones last, so that what requests ask for takes no more and more memory.
    others: Vec<(LossyPlan, Variant)>,
}

/// Variants of lossy plans that are kept while nothing runs on them: a certificate has a plan for each level of difficulty.
const MOST_KEPT: usize = LEVELS.len();

impl Variants {
    /// The variants of a catalog's target.
    pub(super) fn new(catalog: Catalog) -> Self {
        Self { whole: Variant::new(catalog, None), others: Vec::new() }
    }

    /// Takes up what work took in an earlier run.
    pub(super) fn restore(&mut self, known: &CostTable) {
        self.whole.planner.restore(known);
    }

    /// The variant of the target as it was loaded.
    pub(super) fn whole(&self) -> &Variant {
        &self.whole
    }

    /// The variant of a plan; `None` if its precision is not loaded.
    pub(super) fn of(&mut self, plan: &LossyPlan) -> Option<&mut Variant> {
        let variant = match (plan, self.others.iter().position(|(of, _)| of == plan)) {
            (LossyPlan::None | LossyPlan::Exit { .. }, _) => return Some(&mut self.whole),
            (_, Some(place)) => self.others.remove(place).1,
            (LossyPlan::Skip(skip), None) => Variant::new(self.whole.catalog.clone(), Some(skip.clone())),
            (LossyPlan::Precision(format), None) => Variant::new(self.whole.catalog.lowered(*format)?, None),
        };
        let mut surplus = (self.others.len() + 1).saturating_sub(MOST_KEPT);
        self.others.retain(|(_, variant)| {
            let goes = surplus > 0 && variant.running == 0;
            surplus -= usize::from(goes);
            !goes
        });
        self.others.push((plan.clone(), variant));
        self.others.last_mut().map(|(_, variant)| variant)
    }

    /// All variants, with the lossy plans that they are for.
    pub(super) fn each(&mut self) -> impl Iterator<Item = (&LossyPlan, &mut Variant)> {
        let others = self.others.iter_mut().map(|(plan, variant)| (&*plan, variant));
        std::iter::once((&LossyPlan::None, &mut self.whole)).chain(others)
    }
}
