//! The table of keys beside the code that reads them, the page that shows it, and what each value of a key comes to.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::ModelConfig;
use super::super::keys::reads;
use super::*;

fn base(family: Family) -> Map<String, Value> {
    let config = json!({
        "model_type": family.model_type(), "vocab_size": 10, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
        "max_position_embeddings": 64, "eos_token_id": 2,
    });
    config.as_object().unwrap().clone()
}

fn parse(config: &Map<String, Value>) -> Result<ModelConfig, String> {
    ModelConfig::from_map(Path::new("config.json"), config).map_err(|error| error.to_string())
}

/// The configuration with a key of the table at `value`. Inner keys of a family with two rotations are those of the first.
fn with(mut config: Map<String, Value>, name: &str, value: Value) -> Map<String, Value> {
    let by_kind = config["model_type"] == "gemma3_text";
    match name.split_once('.') {
        None => _ = config.insert(name.to_owned(), value),
        Some((outer, inner)) => {
            let rotation = config.entry(outer).or_insert_with(|| json!({}));
            if by_kind && !inner.ends_with("_attention") {
                if rotation["full_attention"].is_null() {
                    rotation["full_attention"] = json!({});
                }
                rotation["full_attention"][inner] = value;
            } else {
                rotation[inner] = value;
            }
        }
    }
    config
}

/// The base with a rotation, in the place that the family has for it.
fn rotated(family: Family, rotation: Value) -> Map<String, Value> {
    let rotation =
        if family == Gemma3 { json!({"full_attention": rotation, "sliding_attention": {}}) } else { rotation };
    with(base(family), "rope_parameters", rotation)
}

/// A rotation by which a key has an effect.
fn rotation(family: Family, key: &str) -> Value {
    let long = json!({"rope_type": "longrope", "short_factor": [1.0, 2.0], "long_factor": [2.0, 3.0]});
    match key.strip_prefix("rope_parameters.").unwrap_or(key) {
        _ if family == Phi3 => long,
        "short_factor" | "long_factor" => long,
        "beta_fast" | "beta_slow" | "mscale" | "mscale_all_dim" | "truncate" | "attention_factor" => json!({
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12, "mscale": 1.0, "mscale_all_dim": 0.7,
        }),
        _ => json!({"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}),
    }
}

/// Configurations that between them read every key.
fn readers(family: Family) -> Vec<Map<String, Value>> {
    let windows = with(base(family), "use_sliding_window", json!(true));
    let windows =
        with(windows, "sliding_window", if matches!(family, Llama | Granite) { json!(null) } else { json!(8) });
    let kind = if family == Gemma3 { "rope_type" } else { "type" };
    let old = if family == Phi3 { rotation(family, "") } else { json!({kind: "linear", "factor": 2.0}) };
    let mut old = old.as_object().unwrap().clone();
    if family == Phi3 {
        old.remove("rope_type");
        old.insert("type".to_owned(), json!("su"));
    }
    let mut all: Vec<_> = ["low_freq_factor", "beta_fast"].map(|key| rotated(family, rotation(family, key))).into();
    if family != Gemma3 {
        all.push(rotated(family, rotation(family, "short_factor")));
    }
    all.push(with(windows, "rope_scaling", old.into()));
    all
}

#[test]
fn exactly_the_keys_that_the_table_honours_are_read() {
    for family in ALL.iter().copied() {
        reads::take();
        for config in readers(family) {
            parse(&config).unwrap();
        }
        let inner = |name: String| {
            let name = name.replace("rope_scaling.", "rope_parameters.");
            name.replace("full_attention.", "").replace("sliding_attention.", "")
        };
        let read: BTreeSet<String> = reads::take().into_iter().map(inner).collect();
        let is_read = |key: &&ConfigKey| matches!(key.rule, Honoured | NeverNull | Checked);
        let listed: BTreeSet<String> = of(family).filter(is_read).map(|key| key.name.to_owned()).collect();
        assert_eq!(read, listed, "{family}");
        let names: Vec<&str> = of(family).map(|key| key.name).collect();
        assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "{family} has a key twice");
    }
}

fn probes() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(1.0),
        json!(2),
        json!(6),
        json!(32),
        json!(-1),
        json!(0.5),
        json!("x"),
        json!("linear"),
        json!("llama3"),
        json!([]),
        json!(["x"]),
        json!([7]),
        json!({}),
        json!({"x": 1}),
        json!({"rope_theta": 7.0}),
        json!({"AutoModel": "x.X"}),
        json!(["sliding_attention", "full_attention"]),
        json!(1e300),
        json!(u64::MAX),
        json!({"type": "yarn"}),
    ]
}

/// The names that a refusal may have for a key: its own, or that of the object which holds it.
fn is_named(message: &str, name: &str) -> bool {
    let (outer, inner) = name.split_once('.').unwrap_or((name, name));
    // Sizes are judged by what they come to together.
    message.contains("larger than this machine can address")
        || message.contains(&format!("\"{name}\""))
        || message.contains(inner)
        || message.contains(&format!("\"{outer}"))
}

#[test]
fn a_key_moved_off_its_default_is_honoured_neutral_or_refused_as_the_table_says() {
    for family in ALL.iter().copied() {
        for key in of(family) {
            // A rotation in which every inner key is read.
            let inner = key.name.starts_with("rope_parameters.") || key.name.starts_with("original_");
            let inner = inner && !key.name.ends_with("_attention") && !key.name.contains("partial_rotary");
            let start = if inner { rotated(family, rotation(family, key.name)) } else { base(family) };
            let start = match key.name {
                "sliding_window" | "max_window_layers" => with(start, "use_sliding_window", json!(true)),
                _ => start,
            };
            let mut plain = start.clone();
            if inner && key.name.ends_with("type") {
                plain = base(family);
            }
            let default = parse(&plain).unwrap();
            let (mut moved, mut refused) = (0, 0);
            for probe in probes() {
                let shown = format!("{family}, {} = {probe}", key.name);
                let found = parse(&with(plain.clone(), key.name, probe.clone()));
                match (key.rule, &found) {
                    (Irrelevant, found) => assert_eq!(found.as_ref(), Ok(&default), "{shown}"),
                    (Neutral(values, _), Ok(found)) => {
                        assert!(values.iter().any(|plain| plain.is(&probe)), "{shown} is accepted");
                        assert_eq!(found, &default, "{shown}");
                    }
                    (Neutral(values, _), Err(_)) => assert!(!values.iter().any(|plain| plain.is(&probe)), "{shown}"),
                    (Checked, Ok(found)) => assert_eq!(found, &default, "{shown}"),
                    (NeverNull, Ok(_)) => assert!(!probe.is_null(), "{shown} is accepted"),
                    _ => {}
                }
                match found {
                    Ok(found) => moved += usize::from(found != default),
                    Err(message) => {
                        refused += 1;
                        assert!(is_named(&message, key.name) && message.ends_with('.'), "{shown}: {message}");
                    }
                }
            }
            match key.rule {
                Irrelevant => assert_eq!(refused, 0, "{family}: {}", key.name),
                Honoured | NeverNull => assert!(moved + refused > 1, "{family}: {} does nothing", key.name),
                Checked | Neutral(..) => assert!(moved == 0 && refused > 1, "{family}: {} does nothing", key.name),
            }
        }
        let unknown = with(base(family), "logits_soft_cap", json!(30.0));
        assert_eq!(parse(&unknown), parse(&base(family)));
    }
}

/// `edits.json` lists what transformers' own configuration classes read.
#[test]
fn every_field_of_transformers_is_in_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/edits.json");
    let made: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for family in ALL.iter().copied() {
        let known: BTreeSet<&str> = of(family).map(|key| key.name).collect();
        let fields = made["fields"][family.to_string()].as_array().unwrap();
        assert!(fields.len() > 20);
        for field in fields {
            assert!(known.contains(field.as_str().unwrap()), "{family} reads {field}, which the table lacks");
        }
    }
}

/// `docs/config-keys.md`, as the table implies it.
fn page() -> String {
    let mut page = "\
# Keys of config.json

What becomes of each key that transformers reads for a supported family. Nothing that changes a model's tokens is ignored: a
key is honoured, or must have a value that changes nothing, or the model is refused with a sentence that names it. Keys that
are not listed are read by nobody, and ignored.

Of `generation_config.json` only `eos_token_id` is taken, in place of that of `config.json`. Where it names none, the ids of
`config.json` still end an answer, which transformers would let run on. A sampling setting in it changes nothing here.

This page is written from the table in `src/checkpoint/key_table.rs`; a test compares them
(`BLESS=1 cargo test --release -p paceline --lib config_keys` writes it anew).

| key | families | what becomes of it | notes |
|---|---|---|---|
"
    .to_owned();
    for key in KEYS {
        let families: Vec<String> = key.families.iter().map(Family::to_string).collect();
        let others: Vec<String> =
            ALL.iter().filter(|family| !key.families.contains(family)).map(Family::to_string).collect();
        let families = match others.len() {
            0 => "all".to_owned(),
            1 | 2 => format!("all but {}", others.join(" and ")),
            _ => families.join(", "),
        };
        let rule = match key.rule {
            Honoured => "honoured".to_owned(),
            NeverNull => "honoured, null is refused".to_owned(),
            Checked => "checked".to_owned(),
            Irrelevant => "no effect on tokens".to_owned(),
            Neutral([], _) => "refused".to_owned(),
            Neutral(values, _) => {
                let values: Vec<String> = values.iter().map(|value| format!("`{}`", value.shown())).collect();
                format!("refused, except {}", values.join(" or "))
            }
        };
        let meaning = match key.rule {
            Neutral(_, meaning) => format!("{meaning} not supported"),
            _ => key.note.to_owned(),
        };
        writeln!(page, "| `{}` | {families} | {rule} | {meaning} |", key.name).unwrap();
    }
    page
}

#[test]
fn the_page_of_config_keys_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config-keys.md");
    if std::env::var_os("BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, page()).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), page());
}
