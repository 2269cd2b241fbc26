//! `paceline models`: the models that are on this machine.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;
use paceline::command::Failure;
use paceline::command::output::{print_json, print_line};
use paceline::local::{Folders, LocalModel, models as in_folders, models_below};
use paceline::visible;

const EXAMPLES: &str = "\
Examples:
  paceline models                the Hugging Face cache and Ollama's folder
  paceline models ~/models       GGUF files and Hugging Face directories below a folder, three folders deep
  paceline models --json         one object a model, for another program

The cache is $HF_HUB_CACHE, hub in $HF_HOME, or ~/.cache/huggingface/hub; Ollama's folder is $OLLAMA_MODELS or
~/.ollama/models. A draft shares its target's vocabulary and has at most half of its parameters.";

/// Flags of `paceline models`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ModelsFlags {
    /// Folders to look through, instead of those of other programs
    #[arg(value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Print a list of objects
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn models(flags: &ModelsFlags) -> Result<ExitCode, Failure> {
    if let Some(absent) = flags.folders.iter().find(|folder| !folder.is_dir()) {
        let shown = visible::shown_path(absent);
        return Err(anyhow!("{shown} is not a directory; name a folder with models in it.").into());
    }
    let folders = Folders::of_environment();
    let found = match &*flags.folders {
        [] => in_folders(&folders),
        named => named.iter().flat_map(|folder| models_below(folder)).collect(),
    };
    if flags.json {
        print_json(&serde_json::to_string(&found)?)?;
    } else if found.is_empty() {
        let looked = if flags.folders.is_empty() { looked_into(&folders) } else { flags.folders.clone() };
        let looked: Vec<String> = looked.iter().map(|path| visible::shown_path(path)).collect();
        print_line(&format!("No models in {}; name a folder, as in `paceline models ~/models`.", looked.join(", ")))?;
    } else {
        print_line(&describe(&found))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn looked_into(folders: &Folders) -> Vec<PathBuf> {
    folders.hugging_face.iter().chain(&folders.ollama).cloned().collect()
}

fn describe(models: &[LocalModel]) -> String {
    let mut rows = vec![["model", "size", "family", "stored", "parameters", "beside it"].map(str::to_owned)];
    let none = || "-".to_owned();
    for model in models {
        rows.push([
            visible::line(&model.name).into_owned(),
            size(model.bytes),
            visible::line(model.family.as_deref().unwrap_or("-")).into_owned(),
            model.stored.clone().unwrap_or_else(none),
            model.parameters.map_or_else(none, |count| format!("{:.0} M", count as f64 / 1e6)),
            if model.heads.is_empty() { none() } else { model.heads.join(", ") },
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    for model in models {
        if let Some(draft) = model.drafts.first() {
            let (target, draft) = (visible::line(&model.name), visible::line(draft));
            lines.push(format!("\n{target} can draft with {draft}, which shares its vocabulary:"));
            lines.push(format!("  paceline generate --model {} --draft {}", quoted(&target), quoted(&draft)));
        }
    }
    for model in models {
        if let Some(problem) = &model.problem {
            lines.push(format!("\n{} cannot be used. {}", visible::line(&model.name), visible::line(problem)));
        }
    }
    lines.join("\n")
}

/// A name as a shell takes it for one word.
fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
    if !name.is_empty() && name.chars().all(is_plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0 => "-".to_owned(),
        1..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
