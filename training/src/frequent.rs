//! The step `draft-vocabulary`: the tokens that drafts choose from, those that are learned most often.

use std::collections::BTreeSet;

use anyhow::{Context, anyhow};
use paceline::checkpoint::{Checkpoint, DRAFT_VOCABULARY, side_file};
use paceline::command::{Failure, output};
use paceline::files::{AtomicFolder, write_file};

use crate::job::{Job, Outcome};
use crate::progress::grouped;
use crate::settings::TARGET;
use crate::tokenize;
use crate::tokenizer::ChatTokenizer;
use crate::tokens::{PROMPT, SourceTokens};

/// Writes the tokens beside the target and its drafts.
///
/// # Errors
/// When a model or the tokens of the recipe's data are not there, or a file cannot be written.
pub fn run(job: &Job) -> Result<Outcome, Failure> {
    let recipe = job.recipe.draft_vocabulary.context(
        "The recipe has no [draft_vocabulary]: give it a section with `tokens`, the number that drafts choose from.",
    )?;
    let tokenizer = ChatTokenizer::open(&job.tokenizer())?;
    let sources = tokenize::open(job, &tokenizer)?;
    let (chosen, share) = most_learned(&sources, recipe.tokens, u32::from(tokenizer.end()));
    let text = serde_json::to_string(&chosen)? + "\n";
    let mut outcome = Outcome::Kept;
    for name in std::iter::once(TARGET).chain(job.recipe.drafts.keys().map(String::as_str)) {
        let model = job.model(name);
        AtomicFolder::recover(&model)?;
        if !model.exists() {
            return Err(anyhow!(
                "There is no model in {} yet: run `paceline-train family`, or the step that makes it.",
                model.display()
            )
            .into());
        }
        if Checkpoint::open(&model)?.draft_vocabulary().is_ok_and(|known| known.as_ref() == Some(&chosen)) {
            continue;
        }
        write_file(&side_file(&model, DRAFT_VOCABULARY), text.as_bytes())?;
        outcome = Outcome::Made;
    }
    if outcome == Outcome::Made {
        let (count, share) = (grouped(chosen.len() as u64), 100.0 * share);
        output::say(&format!("draft-vocabulary: {count} tokens, {share:.2}% of what is learned\n"));
    }
    Ok(outcome)
}

/// The `count` tokens that are learned most, by the sources' weights, among them `end`; rising. With their share of all that
/// is learned.
fn most_learned(sources: &[SourceTokens], count: usize, end: u32) -> (Vec<u32>, f64) {
    let mut weights: Vec<f64> = Vec::new();
    for source in sources.iter().filter(|source| source.weight > 0.0) {
        let weight = source.weight / source.train.learned().max(1) as f64;
        for document in (0..source.train.documents()).map(|index| source.train.document(index)) {
            for (&token, _) in document.tokens.iter().zip(document.learn).filter(|(_, class)| **class != PROMPT) {
                let token = usize::from(token);
                if weights.len() <= token {
                    weights.resize(token + 1, 0.0);
                }
                weights[token] += weight;
            }
        }
    }
    let mut learned: Vec<u32> =
        (0_u32..).zip(&weights).filter(|(_, weight)| **weight > 0.0).map(|(id, _)| id).collect();
    // A stable sort: of equals the smaller id comes first.
    learned.sort_by(|a, b| weights[*b as usize].total_cmp(&weights[*a as usize]));
    let chosen: BTreeSet<u32> =
        std::iter::once(end).chain(learned.into_iter().filter(|id| *id != end)).take(count).collect();
    let of = |ids: &mut dyn Iterator<Item = usize>| ids.filter_map(|id| weights.get(id)).sum::<f64>();
    let share = of(&mut chosen.iter().map(|id| *id as usize)) / of(&mut (0..weights.len())).max(f64::MIN_POSITIVE);
    (chosen.into_iter().collect(), share)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use super::*;
    use crate::tokenizer::{learn, save};
    use crate::tokens::{ANSWER, Shard, ShardWriter};

    #[test]
    fn the_tokens_that_are_learned_most_by_their_sources_weights() {
        let dir = tempfile::tempdir().unwrap();
        let text = "one two three four five six seven eight nine ten\n".repeat(9);
        save(&learn(std::iter::once(text), 280).unwrap(), 64, dir.path()).unwrap();
        let tokenizer = ChatTokenizer::open(dir.path()).unwrap();
        let source = |name: &str, weight: f64, tokens: &[u16]| {
            let path = dir.path().join(name);
            let mut writer = ShardWriter::create(&path, &tokenizer).unwrap();
            // The first two are a prompt.
            let classes: Vec<u8> = (0..tokens.len()).map(|place| if place < 2 { PROMPT } else { ANSWER }).collect();
            writer.push(tokens, &classes).unwrap();
            writer.finish().unwrap();
            let train = Shard::open(&path, &tokenizer).unwrap();
            SourceTokens { name: name.to_owned(), weight, generated: false, train, validation: None }
        };
        // Of the second, a token counts for three times as much as of the first; the third is drawn in some phase alone.
        let sources = [
            source("a", 1.0, &[9, 9, 20, 20, 20, 30, 40, 40]),
            source("b", 1.0, &[9, 9, 50, 30]),
            source("c", 0.0, &[9, 9, 60, 60, 60]),
        ];
        let chosen = |count| most_learned(&sources, count, 2).0;
        assert_eq!(chosen(1), [2], "the token that ends an answer is always there");
        assert_eq!(chosen(2), [2, 30]);
        // 30: 1/6 + 1/2; 20: 3/6, 50: 1/2, 40: 2/6.
        assert_eq!(chosen(3), [2, 20, 30]);
        assert_eq!(chosen(4), [2, 20, 30, 50]);
        assert_eq!(chosen(99), [2, 20, 30, 40, 50]);
        let share = most_learned(&sources, 3, 2).1;
        assert!((share - (1.0 / 6.0 + 0.5 + 0.5) / 2.0).abs() < 1e-9, "{share}");
    }
}
