//! The meaning of what was typed: flags over a config file over defaults.
//!
//! [`resolve`] lays the flags over the file and reads the library's own config structs from the result; a test holds flags
//! and config fields to each other.

use std::path::Path;

use anyhow::anyhow;
use paceline::command::Failure;
use paceline::command::wording::{line_of, read_settings};
use paceline::files::{ReadError, read_input};
use paceline::local::stored_format;
use paceline::{DrafterChoice, EngineConfig, GenerationConfig, Quality, SelfDraft};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::flags::GenerateFlags;

/// Combined settings of flags and config file.
#[derive(Debug)]
pub(super) struct Settings {
    /// Engine to load; it may name no model.
    pub(super) engine: EngineConfig,
    /// Settings of the answers.
    pub(super) generation: GenerationConfig,
    /// True if somebody said how many tokens answers have at most.
    pub(super) names_limit: bool,
}

/// The settings that flags and config file amount to.
pub(super) fn resolve(flags: &GenerateFlags) -> Result<Settings, Failure> {
    let mut settings = match &flags.config {
        Some(path) => read_file(path)?,
        None => Map::new(),
    };
    if let Value::Object(given) = serde_json::to_value(flags)? {
        settings.extend(given);
    }
    let known = known_settings()?;
    if let Some(unknown) = settings.keys().find(|key| !known.contains_key(*key)) {
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        let names = names.join(", ");
        return Err(Failure::usage(anyhow!("There is no setting `{unknown}`; a config file can hold: {names}.")));
    }
    let mut engine: EngineConfig = read(&settings)?;
    let generation: GenerationConfig = read(&settings)?;
    if let DrafterChoice::SelfQuantized(format) = generation.drafter {
        // Who names this drafter wants it loaded.
        engine.self_draft.push(format.into());
    }
    // And who names a precision to answer in.
    engine.self_draft.extend(generation.lower_precision);
    let names_none =
        generation.exit_threshold.is_none() && generation.skip_layers.is_none() && engine.self_draft.is_empty();
    if generation.quality == Quality::BestEffort && names_none && is_above_int8(&engine) {
        // Who leaves the choice open gets something to choose.
        engine.self_draft.push(SelfDraft::Int8);
    }
    engine.validate().map_err(Failure::usage)?;
    generation.validate().map_err(Failure::usage)?;
    Ok(Settings { engine, generation, names_limit: settings.contains_key("max-new-tokens") })
}

/// True if int8 is a lower precision than the target's. What cannot be opened is refused later.
fn is_above_int8(engine: &EngineConfig) -> bool {
    let target = engine.precision.format().or_else(|| stored_format(engine.model.as_deref()?));
    target.is_none_or(|target| SelfDraft::Int8.format().is_below(target))
}

/// The largest config file that is read, in bytes; all settings together take some hundred.
const LARGEST_CONFIG: u64 = 1 << 20;

fn read_file(path: &Path) -> Result<Map<String, Value>, Failure> {
    let shown = path.display();
    let unreadable = |error: &dyn std::fmt::Display| {
        anyhow!("The config file {shown} cannot be read: {error}; it must be a text file in UTF-8 that you may read.")
    };
    let bytes = read_input(path, LARGEST_CONFIG).map_err(|error| match error {
        ReadError::TooLarge { most } => anyhow!(
            "The config file {shown} has more than the {most} bytes that are read; name a file with lines \
             like `max-new-tokens = 100`."
        ),
        error => unreadable(&error),
    })?;
    let text = String::from_utf8(bytes).map_err(|error| unreadable(&error.utf8_error()))?;
    toml::from_str(&text).map_err(|error| {
        let place = error.span().map_or_else(String::new, |span| format!(" at line {}", line_of(&text, &span)));
        let reason = error.message().replace('\n', " ");
        let reason = reason.trim_end_matches('.');
        anyhow!("The config file {shown} is not TOML{place}: {reason}; write lines like `max-new-tokens = 100`.").into()
    })
}

/// Reads a config struct out of the settings; what belongs to another struct is left alone.
fn read<T: for<'de> Deserialize<'de> + Serialize + Default>(settings: &Map<String, Value>) -> Result<T, Failure> {
    let own = match serde_json::to_value(T::default())? {
        Value::Object(own) => own,
        _ => Map::new(),
    };
    let own = settings.iter().filter(|(key, _)| own.contains_key(*key));
    let own = own.map(|(key, value)| (key.clone(), value.clone())).collect();
    read_settings(&own).map_err(|reason| Failure::usage(anyhow!("{reason}.")))
}

/// All settings with their defaults.
fn known_settings() -> Result<Map<String, Value>, Failure> {
    let mut known = Map::new();
    for value in [serde_json::to_value(EngineConfig::default())?, serde_json::to_value(GenerationConfig::default())?] {
        if let Value::Object(map) = value {
            known.extend(map);
        }
    }
    Ok(known)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
#[path = "settings_wrong_values.rs"]
mod wrong_values;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use std::path::PathBuf;

    use clap::{CommandFactory, Parser};
    use paceline::DraftLength;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        flags: GenerateFlags,
    }

    fn parse(arguments: &[&str]) -> Result<(EngineConfig, GenerationConfig), String> {
        let flags = Command::try_parse_from(std::iter::once(&"x").chain(arguments)).map_err(|e| e.to_string())?.flags;
        let Settings { engine, generation, .. } = resolve(&flags).map_err(|failure| failure.error.to_string())?;
        Ok((engine, generation))
    }

    #[test]
    fn every_setting_is_a_flag_and_every_flag_a_setting() {
        let not_settings = ["prompt", "prompts", "chat", "config", "json", "help"];
        let mut flags: Vec<String> =
            Command::command().get_arguments().map(|flag| flag.get_long().unwrap().to_owned()).collect();
        flags.retain(|flag| !not_settings.contains(&flag.as_str()));
        flags.sort();
        let mut settings: Vec<String> = known_settings().ok().unwrap().keys().cloned().collect();
        settings.sort();
        assert_eq!(flags, settings);
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings.toml");
        std::fs::write(
            &path,
            "model = \"from-file\"\ntemperature = 0.5\nseed = 7\ndraft-len = 4\ndrafter = \"exit:2\"\n",
        )
        .unwrap();
        let (engine, generation) =
            parse(&["--config", path.to_str().unwrap(), "--seed", "8", "--precision", "bf16"]).unwrap();
        assert_eq!(engine.model, Some(PathBuf::from("from-file")));
        assert_eq!(engine.precision, paceline::Precision::Bf16);
        assert_eq!((generation.sampling.temperature, generation.sampling.seed), (0.5, 8));
        assert_eq!((generation.draft_len, generation.drafter), (DraftLength::Fixed(4), DrafterChoice::Exit(2)));
        assert_eq!(generation.max_new_tokens, 256);
        assert_eq!((engine.self_draft, engine.skip_plan), (vec![], None));
    }

    #[test]
    fn whether_a_limit_was_named_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings.toml");
        std::fs::write(&path, "max-new-tokens = 256\n").unwrap();
        for (arguments, named) in [
            (&["--model", "m"][..], false),
            (&["--model", "m", "--max-new-tokens", "256"], true),
            (&["--model", "m", "--config", path.to_str().unwrap()], true),
        ] {
            let flags = Command::try_parse_from(std::iter::once(&"x").chain(arguments)).unwrap().flags;
            assert_eq!(resolve(&flags).ok().unwrap().names_limit, named, "{arguments:?}");
        }
    }

    #[test]
    fn a_self_drafter_that_is_named_is_loaded() {
        let (engine, generation) = parse(&["--model", "m", "--drafter", "self:int4", "--skip-plan", "m1,2"]).unwrap();
        assert_eq!(generation.drafter.to_string(), "self:int4");
        assert_eq!(engine.self_draft, [SelfDraft::Int4]);
        assert_eq!(engine.skip_plan.unwrap().to_string(), "2,m1");
        let (engine, _) = parse(&["--model", "m", "--self-draft", "int8", "--self-draft", "int4"]).unwrap();
        assert_eq!(engine.self_draft, [SelfDraft::Int8, SelfDraft::Int4]);
        let lower = ["--model", "m", "--quality", "best-effort", "--lower-precision", "int8"];
        let (engine, generation) = parse(&lower).unwrap();
        assert_eq!((engine.self_draft, generation.lower_precision), (vec![SelfDraft::Int8], Some(SelfDraft::Int8)));
        assert_eq!(generation.quality, paceline::Quality::BestEffort);
    }

    #[test]
    fn wrong_settings_get_a_sentence_that_names_them() {
        for (arguments, named) in [
            (&["--model", "m", "--max-new-tokens", "0"][..], "max-new-tokens"),
            (&["--model", "m", "--temperature", "-1"], "temperature"),
            (&["--model", "m", "--temperature", "nan"], "temperature"),
            (&["--model", "m", "--top-p", "0"], "top-p"),
            (&["--model", "m", "--precision", "int3"], "precision"),
            (&["--model", "m", "--kv-cache", "int8"], "kv-cache"),
            (&["--model", "m", "--kv-pool", "127"], "kv-pool"),
            (&["--model", "m", "--parallel", "65"], "parallel"),
            (&["--model", "m", "--self-draft", "bf16"], "self-draft"),
            (&["--model", "m", "--skip-plan", "x"], "skip-plan"),
            (&["--model", "m", "--quality", "bounded"], "quality-floor"),
            (&["--model", "m", "--quality", "best"], "quality"),
            (&["--model", "m", "--exit-threshold", "0.9"], "exit-threshold"),
            (&["--model", "m", "--skip-layers", "some:1"], "skip-layers"),
            (&["--model", "m", "--lower-precision", "bf16"], "lower-precision"),
            (&["--model", "m", "--device", "gpu"], "device"),
            (&["--model", "m", "--energy-source", "guessed"], "energy-source"),
            (&["--model", "m", "--energy-source", "estimated"], "idle-watts"),
            (&["--model", "m", "--idle-watts", "-1"], "idle-watts"),
            (&["--model", "m", "--idle-share", "2"], "idle-share"),
            (&["--model", "m", "--draft-len", "17"], "draft-len"),
            (&["--model", "m", "--drafter", "magic"], "drafter"),
            (&["--model", "m", "--stop", ""], "stop"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(named), "{arguments:?}: {error}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings.toml");
        for (text, named) in [("modell = \"x\"", "modell"), ("seed = ", "line 1"), ("seed = \"x\"", "seed")] {
            std::fs::write(&path, text).unwrap();
            let error = parse(&["--model", "m", "--config", path.to_str().unwrap()]).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
