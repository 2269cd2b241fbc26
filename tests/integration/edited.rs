//! Checkpoints whose keys and tensors were changed, beside what transformers makes of each (`edits.json`, from `edits.py`).
//!
//! An edit gives transformers' tokens, or is refused by a sentence that names its key. Nothing differs silently.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use paceline::checkpoint::Checkpoint;
use paceline::{DrafterChoice, Engine, EngineConfig, GenerationConfig, Precision, Prompt};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::support::fixture;

#[derive(Deserialize)]
struct Edits {
    new_tokens: usize,
    prompts: BTreeMap<String, Vec<u32>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    fixture: String,
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    config: Map<String, Value>,
    #[serde(default)]
    drop: Vec<String>,
    /// `false` removes the file.
    #[serde(default)]
    generation: Value,
    #[serde(default)]
    tensors: Vec<Step>,
    tokens: Option<Vec<u32>>,
    /// Whether the answer goes on, with tokens that rounding decides.
    #[serde(default)]
    cut: bool,
    refused: Option<String>,
}

#[derive(Deserialize)]
struct Step {
    operation: String,
    name: String,
    #[serde(default)]
    to: String,
    #[serde(default)]
    shape: Vec<usize>,
    #[serde(default)]
    value: f32,
}

/// A tensor of float32.
type Tensor = (Vec<usize>, Vec<u8>);

impl Step {
    fn apply(&self, tensors: &mut BTreeMap<String, Tensor>) {
        let reversed = |(shape, bytes): &Tensor| {
            let rows: Vec<&[u8]> = bytes.chunks(bytes.len() / shape[0]).rev().collect();
            (shape.clone(), rows.concat())
        };
        let made = match self.operation.as_str() {
            "copy" => tensors[&self.name].clone(),
            "reverse" => reversed(&tensors[&self.name]),
            "rename" => tensors.remove(&self.name).unwrap(),
            "remove" => return drop(tensors.remove(&self.name).unwrap()),
            "fill" => {
                let bytes = self.value.to_le_bytes().repeat(self.shape.iter().product());
                return drop(tensors.insert(self.name.clone(), (self.shape.clone(), bytes)));
            }
            other => panic!("no operation {other}"),
        };
        tensors.insert(self.to.clone(), made);
    }
}

/// The fixture with the edit, in `directory`.
fn apply(case: &Case, directory: &Path) {
    for entry in fs::read_dir(fixture(&case.fixture)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, directory.join(path.file_name().unwrap())).unwrap();
    }
    let path = directory.join("config.json");
    let mut config: Map<String, Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config.extend(case.config.clone());
    case.drop.iter().for_each(|key| _ = config.remove(key));
    fs::write(path, Value::from(config).to_string()).unwrap();
    let generation = directory.join("generation_config.json");
    match &case.generation {
        Value::Null => {}
        Value::Bool(_) => fs::remove_file(generation).unwrap(),
        given => fs::write(generation, given.to_string()).unwrap(),
    }
    if !case.tensors.is_empty() {
        let path = directory.join("model.safetensors");
        change_tensors(&path, &case.tensors);
    }
}

fn change_tensors(path: &Path, steps: &[Step]) {
    let bytes = fs::read(path).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let dtype = |name: &str| stored.tensor(name).map_or(Dtype::F32, |tensor| tensor.dtype());
    let mut tensors: BTreeMap<String, Tensor> = stored
        .iter()
        .map(|(name, tensor)| (name.to_owned(), (tensor.shape().to_vec(), tensor.data().to_vec())))
        .collect();
    steps.iter().for_each(|step| step.apply(&mut tensors));
    // Copies keep the format of what they were copied from.
    let format = |name: &str| {
        let step = steps.iter().find(|step| step.to == name);
        step.map_or_else(|| dtype(name), |step| dtype(&step.name))
    };
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name.clone(), TensorView::new(format(name), shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn answer(directory: &Path, prompt: &[u32], new_tokens: usize) -> Result<Vec<u32>, String> {
    let config = EngineConfig { precision: Precision::F32, threads: 1, ..EngineConfig::new(directory) };
    let settings =
        GenerationConfig { max_new_tokens: new_tokens, drafter: DrafterChoice::None, ..GenerationConfig::default() };
    let engine = Engine::load(&config).map_err(|error| error.to_string())?;
    let answer = engine.generate(Prompt::Tokens(prompt.to_vec()), &settings).and_then(|answer| answer.finish());
    answer.map(|answer| answer.tokens).map_err(|error| error.to_string())
}

#[test]
fn an_edited_checkpoint_gives_transformers_tokens_or_is_refused_by_name() {
    let path = fixture("edits.json");
    let edits: Edits = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let (mut same, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in &edits.cases {
        let directory = tempfile::tempdir().unwrap();
        apply(case, directory.path());
        let prompt = &edits.prompts[&case.fixture];
        let (config, tensors) = (Value::from(case.config.clone()), case.tensors.len());
        let edit = format!("{} {config} -{:?} {} {tensors}", case.fixture, case.drop, case.generation);
        match (answer(directory.path(), prompt, edits.new_tokens), &case.tokens, &case.refused) {
            (Ok(found), Some(tokens), _) if found == *tokens || case.cut && found.starts_with(tokens) => same += 1,
            (Ok(found), expected, said) => {
                wrong.push(format!("{edit}: {found:?}, transformers {expected:?} {said:?}"));
            }
            (Err(message), ..) => {
                refused += 1;
                let named = case.keys.iter().any(|key| message.contains(key.as_str()));
                if !named || !message.ends_with('.') || message.contains('\n') {
                    wrong.push(format!("{edit}: {message}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), edits.cases.len(), wrong.join("\n"));
    assert!(same >= 300 && refused >= 150, "{same} the same, {refused} refused");
}

/// Public reports of a matrix that was learned apart and thrown away: here it is used, and said.
#[test]
fn a_learned_output_matrix_beside_a_tied_flag_is_used_and_noted() {
    let step = |operation: &str| Step {
        operation: operation.to_owned(),
        name: "model.embed_tokens.weight".to_owned(),
        to: "lm_head.weight".to_owned(),
        shape: Vec::new(),
        value: 0.0,
    };
    for (operation, tied) in [("reverse", false), ("copy", true)] {
        let directory = tempfile::tempdir().unwrap();
        let case = Case {
            fixture: "llama-tied".to_owned(),
            keys: Vec::new(),
            config: Map::new(),
            drop: Vec::new(),
            generation: Value::Null,
            tensors: vec![step(operation)],
            tokens: None,
            cut: false,
            refused: None,
        };
        apply(&case, directory.path());
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        assert_eq!(checkpoint.config().tied_embeddings, tied, "{operation}");
        assert_eq!(checkpoint.notes().len(), usize::from(!tied), "{:?}", checkpoint.notes());
    }
}
