//! Scores as a page, made to stand in a model's card.

use std::fmt::Write as _;

use super::tally::{Group, Score};
use crate::progress::grouped;
use crate::tasks::{Category, Level};

/// All tables as Markdown.
pub fn page(score: &Score) -> String {
    // Writing into a string cannot fail.
    let mut text = String::new();
    let Score { model, precision, tasks, texts, .. } = score;
    let _ = writeln!(text, "# What {model} can do\n");
    if let Some(all) = score.group(None, None, None) {
        let rows = grouped(all.rows as u64);
        let _ = writeln!(
            text,
            "{rows} prompts ({tasks}), answered greedily at {precision}. An answer is right if it is the task's own, word for word."
        );
        if all.cut > 0 {
            let cut = grouped(all.cut as u64);
            let _ = writeln!(text, "{cut} answers were cut at twice the right one's length and count as wrong.");
        }
        text += "\n## Right answers\nThe means with the interval that holds the true share with a confidence of 95% (Wilson).\n\n";
        text += &table(score, &|group| match group.category {
            Some(_) => percent(group.accuracy),
            None => accuracy(group),
        });
        text += "\n## Entropy of a token\nNats: the mean over all tokens of the model's own answers.\n\n";
        text += &table(score, &|group| format!("{:.3}", group.entropy));
        text += "\n## Tokens of an answer\nThe median, the token that ends it included.\n\n";
        text += &table(score, &|group| group.median_tokens.to_string());
        text += &phrasings(score);
    }
    if !texts.is_empty() {
        text += "\n## Plain text\n| text | tokens | bytes | nats a token | bits a byte |\n|---|---|---|---|---|\n";
        for row in texts {
            let (nats, bits) = (row.loss.nats_per_token(), row.loss.bits_per_byte());
            let (tokens, bytes) = (grouped(row.loss.tokens), grouped(row.loss.bytes));
            let _ = writeln!(text, "| {} | {tokens} | {bytes} | {nats:.3} | {bits:.3} |", row.text);
        }
    }
    text
}

/// A value of every category and level, and of all.
fn table(score: &Score, value: &dyn Fn(&Group) -> String) -> String {
    let mut text = "| category | simple | medium | complex | all |\n|---|---|---|---|---|\n".to_owned();
    for category in Category::ALL.into_iter().map(Some).chain([None]) {
        if score.group(category, None, None).is_none() {
            continue;
        }
        let cells = levels().map(|level| score.group(category, level, None).map_or_else(|| "-".to_owned(), value));
        text += &match category {
            Some(category) => row(category.name(), cells),
            None => row("**all**", cells.map(|cell| format!("**{cell}**"))),
        };
    }
    text
}

/// Right answers by the kind of phrasing; nothing where it is not known of any prompt.
fn phrasings(score: &Score) -> String {
    let kinds = [(false, "as in training"), (true, "in the test alone")];
    if kinds.iter().all(|(anew, _)| score.group(None, None, Some(*anew)).is_none()) {
        return String::new();
    }
    let mut text = "\n## Right answers by phrasing\n| phrasings | prompts | simple | medium | complex | all |\n|---|---|---|---|---|---|\n".to_owned();
    for (anew, name) in kinds {
        if let Some(all) = score.group(None, None, Some(anew)) {
            let of = |level| score.group(None, level, Some(anew)).map_or_else(|| "-".to_owned(), accuracy);
            text += &row(name, std::iter::once(grouped(all.rows as u64)).chain(levels().map(of)));
        }
    }
    text
}

fn levels() -> impl Iterator<Item = Option<Level>> {
    Level::ALL.into_iter().map(Some).chain([None])
}

fn row(name: &str, cells: impl Iterator<Item = String>) -> String {
    format!("| {name} | {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

fn accuracy(group: &Group) -> String {
    let [low, high] = group.interval;
    format!("{} ({:.1} to {:.1})", percent(group.accuracy), 100.0 * low, 100.0 * high)
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}
