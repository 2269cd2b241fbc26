//! A GGUF file for `paceline inspect`: its metadata, and what is in one that cannot be used.

use std::path::Path;

use anyhow::anyhow;
use paceline::checkpoint::{CheckpointError, Gguf, Metadata, Value as Stored};
use paceline::command::Failure;
use paceline::command::output::print_line;
use paceline::visible;
use serde_json::{Map, Value, json};

use super::inspect::{in_percent, shares};

/// Values by key, and the lengths of lists.
pub(super) fn metadata(metadata: &Metadata) -> Map<String, Value> {
    let value = |value: Result<&Stored, usize>| match value {
        Ok(Stored::Text(text)) => json!(text),
        Ok(Stored::Bool(value)) => json!(value),
        Ok(Stored::Float(value)) => json!(value),
        Ok(Stored::Integer(value)) => i64::try_from(*value).map_or_else(|_| json!(value.to_string()), Value::from),
        Err(values) => json!({"values": values}),
    };
    metadata.iter().map(|(key, found)| (key.to_owned(), value(found))).collect()
}

/// A value on one line.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => visible::shown(text),
        Value::Object(list) => format!("a list of {}", list.get("values").unwrap_or(&Value::Null)),
        other => other.to_string(),
    }
}

/// The failure for a model that cannot be opened; of a GGUF file whose header is sound, what it holds is printed before.
pub(super) fn unusable(path: &Path, error: CheckpointError, json: bool) -> Failure {
    let Ok(file) = Gguf::open(path) else { return error.into() };
    if json {
        return error.into();
    }
    let mut lines = vec![
        format!("{}: a GGUF file of version {}", visible::shown_path(path), file.version),
        format!("  types         {}", in_percent(&shares(&file.types()))),
    ];
    lines.extend(
        metadata(&file.metadata).iter().map(|(key, value)| format!("  metadata      {key} = {}", shown(value))),
    );
    let lines: Vec<String> = lines.iter().map(|line| visible::line(line).into_owned()).collect();
    match print_line(&lines.join("\n")) {
        Ok(()) => anyhow!(error).into(),
        Err(failed) => failed.into(),
    }
}
