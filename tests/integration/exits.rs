//! Exit heads in a file beside the model: what they compute, and which files are refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use paceline::checkpoint::{Checkpoint, EXITS, ExitConfig, ExitsConfig, exit_tensors};
use paceline::drafters::exit::ExitDrafter;
use paceline::model::{Compute, Decoder, DeviceName};
use paceline::sampling::SamplingConfig;
use paceline::speculation::DraftLength;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::support::{Numbers, Task, copy_of};

/// A file of heads that is to lie beside a copy of a fixture, and may be spoilt before.
pub(crate) struct ExitsFile {
    model: tempfile::TempDir,
    config: ExitsConfig,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// The metadata, if they are not those of the config.
    metadata: Option<String>,
}

impl ExitsFile {
    /// Random heads of this rank for every depth of a fixture.
    pub(crate) fn new(name: &str, rank: usize) -> Self {
        let model = copy_of(name);
        let checkpoint = Checkpoint::open(model.path()).unwrap();
        let (layers, hidden) = (checkpoint.config().layers, checkpoint.config().hidden_size);
        let mut numbers = Numbers(rank as u64);
        let exit = |depth| ExitConfig { depth, temperature: 1.5, agreement: 0.7, calibration_error: 0.02 };
        let config = ExitsConfig {
            model: ExitsConfig::model_of(checkpoint.fingerprint()),
            rank,
            exits: (1..layers).map(exit).collect(),
        };
        let random = |(name, shape): (String, Vec<usize>)| {
            let values = (0..shape.iter().product()).map(|_| 0.5 * numbers.normal() + 0.3).collect();
            (name, (shape, values))
        };
        let tensors = (1..layers).flat_map(|depth| exit_tensors(depth, rank, hidden)).map(random).collect();
        Self { model, config, tensors, metadata: None }
    }

    /// Writes it, matrices as bf16; the folder of the model.
    pub(crate) fn write(self) -> tempfile::TempDir {
        let data: Vec<(String, Vec<usize>, Dtype, Vec<u8>)> = self
            .tensors
            .into_iter()
            .map(|(name, (shape, values))| match shape.len() {
                1 => (name, shape, Dtype::F32, values.into_iter().flat_map(f32::to_le_bytes).collect()),
                _ => {
                    let bytes = values.into_iter().flat_map(|value| half::bf16::from_f32(value).to_le_bytes());
                    (name, shape, Dtype::BF16, bytes.collect())
                }
            })
            .collect();
        let views = data
            .iter()
            .map(|(name, shape, dtype, bytes)| (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        let text = self.metadata.unwrap_or_else(|| serde_json::to_string(&self.config).unwrap());
        let metadata = [(ExitsConfig::KEY.to_owned(), text)].into();
        let file = safetensors::serialize(views, Some(metadata)).unwrap();
        std::fs::write(self.model.path().join(EXITS), file).unwrap();
        self.model
    }
}

/// The decoder of a directory, with its exits.
fn load(directory: &Path, compute: &Compute) -> Result<Arc<Decoder>, String> {
    let checkpoint = Checkpoint::open(directory).unwrap();
    let exits = checkpoint.exits().map_err(|error| error.to_string())?.expect("exits were written");
    let decoder = Decoder::load(&checkpoint, None, compute, &mut |_, _| {}).unwrap();
    Ok(Arc::new(decoder.with_exits(&checkpoint, &exits).map_err(|error| error.to_string())?))
}

pub(crate) fn cpu(threads: usize) -> Compute {
    Compute::open(DeviceName::Cpu, threads).unwrap()
}

/// Random hidden states `[rows, hidden]`.
fn states(rows: usize, width: usize) -> Vec<f32> {
    let mut numbers = Numbers(9);
    (0..rows * width).map(|_| numbers.normal()).collect()
}

const FIXTURES: [&str; 3] = ["llama-tied", "qwen2-bias", "qwen3-qknorm"];

#[test]
fn heads_compute_what_their_description_says_row_by_row() {
    for name in FIXTURES {
        let model = ExitsFile::new(name, 5).write();
        let (ours, composed) =
            (load(model.path(), &cpu(2)).unwrap(), load(model.path(), &Compute::Burn(Device::flex())).unwrap());
        let width = ours.config().hidden_size;
        let hidden = states(7, width);
        for depth in 1..ours.layer_count() {
            let found = ours.exit_logits(depth, &ours.hidden(hidden.clone()));
            let expected = composed.exit_logits(depth, &composed.hidden(hidden.clone()));
            let untrained = ours.logits(&ours.hidden(hidden.clone()));
            let largest = expected.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
            let apart =
                |others: &[f32]| found.iter().zip(others).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max);
            assert!(apart(&expected) < 2e-5, "{name}, depth {depth}: {}", apart(&expected));
            assert!(apart(&untrained) > 1e-2, "{name}, depth {depth}: the head does nothing");
            let single: Vec<f32> =
                hidden.chunks(width).flat_map(|row| ours.exit_logits(depth, &ours.hidden(row.to_vec()))).collect();
            assert_eq!(found, single, "{name}, depth {depth}: a row depends on the others");
        }
        assert!(ours.bytes_per_exit(1) < ours.bytes_per_step());
    }
}

#[test]
fn a_head_that_adds_nothing_is_the_models_own() {
    let mut file = ExitsFile::new("llama-tied", 3);
    let norm = Checkpoint::open(file.model.path()).unwrap().tensor("model.norm.weight").unwrap().to_f32();
    for (name, (_, values)) in &mut file.tensors {
        if name.ends_with(".up.weight") {
            values.fill(0.0);
        } else if name.ends_with(".norm.weight") {
            values.copy_from_slice(&norm);
        }
    }
    let model = file.write();
    let decoder = load(model.path(), &cpu(1)).unwrap();
    let width = decoder.config().hidden_size;
    let hidden = states(3, width);
    let hidden = decoder.hidden(hidden);
    assert_eq!(decoder.exit_logits(1, &hidden), decoder.logits(&hidden));
}

/// Drafting runs through the heads: other heads draft other tokens, and the answer is the same.
#[test]
fn drafts_come_from_the_heads_and_answers_do_not() {
    let model = ExitsFile::new("llama-tied", 5).write();
    let (trained, plain) = (load(model.path(), &cpu(1)).unwrap(), crate::support::decoder(model.path(), 1));
    let task = Task { prompt: &[5, 9, 2, 77, 31, 8], new_tokens: 50, sampling: SamplingConfig::default() };
    let expected = task.plain(&plain);
    let mut drafted = Vec::new();
    for decoder in [trained, plain] {
        let drafter = Box::new(ExitDrafter::new(1, 1.0));
        let outcome = task.speculative(&decoder, vec![drafter], DraftLength::Fixed(4));
        assert_eq!(outcome.tokens, expected);
        drafted.push(outcome.rounds.iter().map(|round| round.accepted).collect::<Vec<_>>());
    }
    assert_ne!(drafted[0], drafted[1], "the heads make no difference");
}

#[test]
fn files_that_do_not_fit_are_refused_with_a_sentence() {
    type Spoil = fn(&mut ExitsFile);
    let cases: [(Spoil, &str); 13] = [
        (|file| file.config.model = ExitsConfig::model_of(1), "trained for another model"),
        (|file| file.config.rank = 4, "has the shape [3, "),
        (|file| file.config.rank = 0, "their rank is 0"),
        (|file| file.config.exits[0].depth = 99, "one is of depth 99"),
        (|file| file.config.exits[0].depth = 0, "one is of depth 0"),
        (|file| file.config.exits.push(file.config.exits[0]), "does not come after"),
        (|file| file.config.exits.clear(), "there are none in it"),
        (|file| file.config.exits[0].temperature = 0.0, "the temperature of depth 1 is 0"),
        (|file| drop(file.tensors.remove("exits.1.up.weight")), "\"exits.1.up.weight\" is missing"),
        (|file| drop(file.tensors.insert("other".to_owned(), (vec![1], vec![0.0]))), "\"other\" belongs to no head"),
        (|file| file.tensors.get_mut("exits.1.up.weight").unwrap().1[2] = f32::NAN, "NaN at row 0, column 2"),
        (|file| file.tensors.get_mut("exits.1.norm.weight").unwrap().1[1] = f32::INFINITY, "is infinite"),
        (|file| file.metadata = Some("{\"rank\": 3}".to_owned()), "`paceline.exits` in the metadata: missing field"),
    ];
    for (spoil, said) in cases {
        let mut file = ExitsFile::new("llama-tied", 3);
        spoil(&mut file);
        let message = load(file.write().path(), &cpu(1)).err().unwrap_or_else(|| panic!("accepted: {said}"));
        assert!(message.contains(said) && message.ends_with('.') && !message.contains('\n'), "{message}");
    }
    let model = ExitsFile::new("llama-tied", 3).write();
    let path = model.path().join(EXITS);
    let bytes = std::fs::read(&path).unwrap();
    for cut in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let message = load(model.path(), &cpu(1)).err().unwrap();
        assert!(message.contains("exits.safetensors is damaged") && message.ends_with('.'), "{message}");
    }
    let error = paceline::Engine::load(&paceline::EngineConfig::new(model.path())).err().unwrap().to_string();
    assert!(error.contains("exits.safetensors is damaged"), "{error}");
}

/// One changed bit of one weight makes another model.
#[test]
fn heads_know_the_model_they_belong_to() {
    let model = ExitsFile::new("llama-tied", 3).write();
    let path = model.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let message = load(model.path(), &cpu(1)).err().unwrap();
    assert!(message.contains("trained for another model"), "{message}");
}
