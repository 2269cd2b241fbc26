//! Layers as data: a model of layers that no known family has is one description, which the layout of its tensors, both
//! backends, training and fingerprints follow.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use paceline::checkpoint::{
    Activation, Checkpoint, CheckpointError, Family, LayerSpec, LayerSpecs, ModelConfig, Rope, RopeScaling, tensors_of,
};
use paceline::model::{Batch, Compute, Decoder, DeviceName, Sequence, Trainable, into_values};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::support::Numbers;
use crate::tidy::sources;

/// A setting of a layer that decides which tensors it has.
type Flag = fn(&mut LayerSpec) -> &mut bool;

const CASES: u64 = 24;
const FAMILIES: [Family; 9] = [
    Family::Llama,
    Family::Mistral,
    Family::Qwen2,
    Family::Qwen3,
    Family::Gemma2,
    Family::Gemma3,
    Family::Phi3,
    Family::SmolLm3,
    Family::Granite,
];
const TEXT: [u32; 14] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7];

/// A description of layers that differ in all that layers may differ in.
fn random_config(numbers: &mut Numbers) -> ModelConfig {
    let (hidden_size, kv_heads, head_dim) =
        (numbers.within(3..40), numbers.within(1..4), numbers.choose(&[2, 6, 8, 16]));
    let layers = numbers.within(2..5);
    let mut layer = || LayerSpec {
        hidden_size,
        intermediate_size: numbers.within(3..60),
        heads: kv_heads * numbers.within(1..4),
        kv_heads,
        head_dim,
        norm_eps: numbers.choose(&[1e-6, 1e-3, 0.2]),
        qkv_bias: numbers.choose(&[true, false]),
        output_bias: numbers.choose(&[true, false]),
        mlp_bias: numbers.choose(&[true, false]),
        qk_norm: numbers.choose(&[true, false]),
        window: numbers.choose(&[None, Some(2), Some(5)]),
        score_factor: numbers.choose(&[0.1, 0.5, LayerSpec::usual_score_factor(head_dim)]),
        score_cap: numbers.choose(&[None, Some(0.5)]),
        rotated: numbers.choose(&[0, 2, head_dim, head_dim]),
        rope: numbers.choose(&[None, Some(Rope::plain(100.0))]),
        activation: numbers.choose(&[Activation::Silu, Activation::GeluTanh]),
        post_norms: numbers.choose(&[true, false]),
        residual_factor: numbers.choose(&[1.0, 0.4]),
    };
    let mut specs = LayerSpecs::alike(layer());
    for index in 1..layers {
        specs = specs.from_layer(index, layer());
    }
    let (family, tied_embeddings) = (numbers.choose(&FAMILIES), numbers.choose(&[true, false]));
    let scaling = RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_context: 16,
        truncate: true,
        magnitude: 1.1,
    };
    let rope = numbers.choose(&[Rope::plain(10_000.0), Rope { theta: 50.0, scaling }]);
    ModelConfig {
        tied_embeddings,
        embedding_factor: numbers.choose(&[1.0, 3.0]),
        logit_divisor: numbers.choose(&[1.0, 2.0]),
        logit_cap: numbers.choose(&[None, Some(2.0)]),
        norm_offset: numbers.choose(&[0.0, 1.0]),
        ..ModelConfig::new(family, 11, layers, specs, rope, 64)
    }
}

/// Writes random weights of a description, and no `config.json`. All values of a `moved` tensor are greater by a half.
fn write_weights(directory: &Path, config: &ModelConfig, numbers: &mut Numbers, moved: &str) {
    let mut tensors = Vec::new();
    for (name, shape) in tensors_of(config) {
        let spread = if shape.len() == 2 { 2.0 / (shape[1] as f32).sqrt() } else { 0.3 };
        let middle = f32::from(u8::from(name.contains("norm"))) + if name == moved { 0.5 } else { 0.0 };
        let values = (0..shape.iter().product()).map(|_| middle + spread * numbers.normal());
        tensors.push((name, shape, values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>()));
    }
    let view = |shape: &Vec<usize>, bytes| TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
    let views = tensors.iter().map(|(name, shape, bytes)| (name, view(shape, bytes)));
    std::fs::write(directory.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

fn computes() -> [Compute; 2] {
    [Compute::open(DeviceName::Cpu, 2).unwrap(), Compute::Burn(Device::flex())]
}

/// Logits of the whole text: a prompt, a layer run ahead, a roll-back, a row alone and the rest.
fn decoded(checkpoint: &Checkpoint, compute: &Compute) -> Vec<f32> {
    let decoder = Decoder::load(checkpoint, None, compute, &mut |_, _| {}).unwrap();
    let mut sequence = Sequence::new(Arc::new(decoder), 64);
    let mut logits = sequence.verify(&TEXT[..6]).into_logits();
    sequence.draft_early(TEXT[6], 1);
    sequence.verify(&[0, 0, 0]);
    sequence.truncate(6);
    logits.extend(sequence.verify(&TEXT[6..7]).into_logits());
    logits.extend(sequence.verify(&TEXT[7..]).into_logits());
    logits
}

/// The same by the model that is trained.
fn trained(checkpoint: &Checkpoint, compute: &Compute) -> Vec<f32> {
    let trainable = Trainable::open(checkpoint, compute).unwrap();
    let (model, batch) = (trainable.model(true), Batch::whole(TEXT.to_vec(), TEXT.len()));
    let hidden = model.forward_layers(0..trainable.config().layers, &batch, model.embed(&batch), None);
    into_values(model.logits(hidden))
}

/// The largest difference, in units of the largest value.
fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max)
}

/// The logits of a model, after checking that both backends and training have the same ones.
fn logits(checkpoint: &Checkpoint) -> Vec<f32> {
    let [kernels, burn] = computes();
    let logits = decoded(checkpoint, &kernels);
    assert_eq!(logits.len(), TEXT.len() * checkpoint.config().vocab_size);
    let config = checkpoint.config();
    for (name, others) in [
        ("burn", decoded(checkpoint, &burn)),
        ("training", trained(checkpoint, &kernels)),
        ("training by burn", trained(checkpoint, &burn)),
    ] {
        let difference = difference(&logits, &others);
        assert!(difference < 5e-5, "{name} is {difference} apart: {config:?}");
    }
    logits
}

/// The description with another layer at an index.
fn changed(config: &ModelConfig, at: usize, change: impl Fn(&mut LayerSpec)) -> ModelConfig {
    let mut specs = LayerSpecs::alike(config.layer(0).clone());
    for index in 0..config.layers {
        let mut spec = config.layer(index).clone();
        if index == at {
            change(&mut spec);
        }
        specs = specs.from_layer(index, spec);
    }
    ModelConfig { specs, ..config.clone() }
}

#[test]
fn a_new_family_is_one_description() {
    for seed in 0..CASES {
        let numbers = &mut Numbers(seed);
        let config = random_config(numbers);
        let directory = tempfile::tempdir().unwrap();
        write_weights(directory.path(), &config, numbers, "");
        let open = |config: &ModelConfig| Checkpoint::open_as(directory.path(), config.clone()).unwrap();
        let checkpoint = open(&config);
        let names: Vec<String> = tensors_of(&config).into_iter().map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| checkpoint.tensor(name).is_ok()));
        assert_eq!(checkpoint.tensors().count(), names.len());
        let found = logits(&checkpoint);

        // A family's name changes nothing.
        let renamed = ModelConfig { family: FAMILIES[(seed % 9) as usize], ..config.clone() };
        assert!(decoded(&open(&renamed), &computes()[0]) == found, "{config:?}");

        // Each number of one layer changes what both backends and training compute, and the fingerprint.
        let at = numbers.within(0..config.layers);
        let changes: [&dyn Fn(&mut LayerSpec); 8] = [
            &|spec| spec.norm_eps += 0.1,
            &|spec| spec.window = if spec.window == Some(3) { None } else { Some(3) },
            &|spec| spec.score_factor *= 1.5,
            &|spec| spec.score_cap = if spec.score_cap.is_some() { None } else { Some(0.5) },
            &|spec| spec.rotated = if spec.rotated == 2 { 0 } else { 2 },
            &|spec| {
                let scaling = RopeScaling::Linear { factor: 3.0 };
                (spec.rotated, spec.rope) = (spec.head_dim, Some(Rope { theta: 30.0, scaling }));
            },
            &|spec| {
                spec.activation = match spec.activation {
                    Activation::Silu => Activation::GeluTanh,
                    Activation::GeluTanh => Activation::Silu,
                }
            },
            &|spec| spec.residual_factor *= 1.5,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let other = open(&changed(&config, at, change));
            assert_ne!(other.fingerprint(), checkpoint.fingerprint(), "change {index} of layer {at}: {config:?}");
            let apart = difference(&logits(&other), &found);
            assert!(apart > 1e-5, "change {index} of layer {at} is {apart}: {config:?}");
        }
    }
}

#[test]
fn tensors_follow_their_layer() {
    for seed in 0..CASES {
        let numbers = &mut Numbers(seed);
        let config = random_config(numbers);
        let directory = tempfile::tempdir().unwrap();
        write_weights(directory.path(), &config, numbers, "");
        let at = numbers.within(0..config.layers);
        let flags: [(Flag, &str); 5] = [
            (|spec| &mut spec.qkv_bias, "self_attn.q_proj.bias"),
            (|spec| &mut spec.output_bias, "self_attn.o_proj.bias"),
            (|spec| &mut spec.mlp_bias, "mlp."),
            (|spec| &mut spec.qk_norm, "_norm.weight"),
            (|spec| &mut spec.post_norms, "feedforward_layernorm.weight"),
        ];
        for (flag, name) in flags {
            let was = *flag(&mut config.layer(at).clone());
            let error = Checkpoint::open_as(directory.path(), changed(&config, at, |spec| *flag(spec) = !was));
            let tensor = match error.unwrap_err() {
                CheckpointError::Surplus { tensor, .. } if was => tensor,
                CheckpointError::Missing { tensor, .. } if !was => tensor,
                error => panic!("{error}: {config:?}"),
            };
            let prefix = format!("model.layers.{at}.");
            assert!(tensor.starts_with(&prefix) && (was || tensor.contains(name)), "{tensor}: {config:?}");
        }
        let wider = changed(&config, at, |spec| spec.intermediate_size += 1);
        let error = Checkpoint::open_as(directory.path(), wider).unwrap_err();
        assert!(matches!(&error, CheckpointError::Shape { tensor, .. } if tensor.contains("mlp.gate_proj")), "{error}");
    }
}

/// Backends that agree could still leave out the same tensor.
#[test]
fn every_tensor_counts() {
    for seed in 0..4 {
        let config = random_config(&mut Numbers(seed));
        let logits = |moved: &str| {
            let directory = tempfile::tempdir().unwrap();
            write_weights(directory.path(), &config, &mut Numbers(seed), moved);
            let checkpoint = Checkpoint::open_as(directory.path(), config.clone()).unwrap();
            computes().map(|compute| decoded(&checkpoint, &compute))
        };
        let before = logits("");
        // Adds the same to all scores of a query, where nothing turns or normalizes or caps them.
        let is_idle = |name: &str| {
            (0..config.layers).any(|layer| {
                let spec = config.layer(layer);
                let has_effect = spec.rotated > 0 || spec.qk_norm || spec.score_cap.is_some();
                !has_effect && name == format!("model.layers.{layer}.self_attn.k_proj.bias")
            })
        };
        for (name, _) in tensors_of(&config).into_iter().filter(|(name, _)| !is_idle(name)) {
            for (before, after) in before.iter().zip(logits(&name)) {
                assert!(difference(&after, before) > 1e-5, "{name} is not used: {config:?}");
            }
        }
    }
}

#[test]
fn layers_share_what_pools_need() {
    let numbers = &mut Numbers(0);
    let config = random_config(numbers);
    let directory = tempfile::tempdir().unwrap();
    write_weights(directory.path(), &config, numbers, "");
    let changes: [fn(&mut LayerSpec); 5] = [
        |spec| (spec.kv_heads, spec.heads) = (2 * spec.kv_heads, 2 * spec.heads),
        |spec| spec.head_dim += 2,
        |spec| spec.hidden_size += 1,
        |spec| spec.window = Some(0),
        |spec| spec.score_factor = f32::NAN,
    ];
    for change in changes {
        let error = Checkpoint::open_as(directory.path(), changed(&config, 1, change)).unwrap_err();
        assert!(matches!(error, CheckpointError::Contradiction { .. }), "{error}");
    }
}

/// A family's rules become layers where its configuration is read; what computes cannot ask for its name.
#[test]
fn families_are_known_to_constructors_alone() {
    let constructors = ["config/family.rs", "config/windows.rs", "key_table.rs", "gguf/config.rs"]
        .map(|name| Path::new("src/checkpoint").join(name));
    let mut seen = 0;
    for (path, text) in sources().filter(|(path, _)| path.starts_with("src")) {
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_test = path.to_string_lossy().contains("tests");
        if text.contains("Family::") && !is_test {
            assert!(constructors.contains(&path), "{} asks for a family", path.display());
            seen += 1;
        }
    }
    assert_eq!(seen, constructors.len());
}
