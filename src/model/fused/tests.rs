//! The fused operations against burn's own, values and gradients.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use paceline_kernels::{Activation, Kernels, TrainingPrecision};
use proptest::prelude::*;

use super::super::batch::Batch;
use super::super::device::Compute;
use super::super::ops::{Operations, from_values, into_values, soft_cross_entropy};
use super::super::trainable::{Model, Trainable};
use crate::checkpoint::{Family, LayerSpec, LayerSpecs, ModelConfig, Rope};

/// A layer without biases, head norms and window.
fn plain() -> LayerSpec {
    LayerSpec { score_factor: 0.35, ..LayerSpec::llama(24, 40, 4, 2, 8) }
}

/// A model of these two layers.
fn config(layers: [LayerSpec; 2], tied: bool) -> ModelConfig {
    let [first, second] = layers;
    let specs = LayerSpecs::alike(first).from_layer(1, second);
    ModelConfig { tied_embeddings: tied, ..ModelConfig::new(Family::Llama, 37, 2, specs, Rope::plain(10_000.0), 64) }
}

/// Layers with everything that one may have.
fn layer() -> impl Strategy<Value = LayerSpec> {
    let window = prop_oneof![Just(None), (1..6usize).prop_map(Some)];
    let inner = prop_oneof![Just(40), Just(24)];
    let (heads, score_factor) = (prop_oneof![Just(4usize), Just(2)], prop_oneof![Just(0.35f32), Just(0.1)]);
    let cap = prop_oneof![Just(None), Just(Some(0.8_f32))];
    let rotated = prop_oneof![Just(8_usize), Just(4), Just(0)];
    (any::<[bool; 6]>(), window, inner, heads, score_factor, cap, rotated).prop_map(
        |(has, window, intermediate_size, heads, score_factor, score_cap, rotated)| {
            let [qkv_bias, output_bias, mlp_bias, qk_norm, post_norms, gelu] = has;
            LayerSpec {
                score_cap,
                rotated,
                post_norms,
                residual_factor: if post_norms { 1.0 } else { 0.7 },
                activation: if gelu { Activation::GeluTanh } else { Activation::Silu },
                intermediate_size,
                heads,
                qkv_bias,
                output_bias,
                mlp_bias,
                qk_norm,
                window,
                score_factor,
                ..plain()
            }
        },
    )
}

/// Values that are the same for a name however often they are asked for.
fn initial(seed: u64) -> impl Fn(&str, &[usize]) -> Vec<f32> {
    move |name, shape| {
        let mut state = name.bytes().fold(seed | 1, |state, byte| state.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let next = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let middle = if shape.len() == 1 { 1.0 } else { 0.0 };
        (0..shape.iter().product()).map(|_| middle + 0.6 * next(&mut state)).collect()
    }
}

/// Training signal of a batch.
enum Loss<'a> {
    /// The tokens that follow.
    Targets(&'a [u32]),
    /// Another model's distributions, at a temperature.
    Teacher(&'a Trainable, f32),
}

fn logits(model: &Trainable, now: &Model, batch: &Batch) -> Tensor<2> {
    now.logits(now.forward_layers(0..model.config().layers, batch, now.embed(batch), None))
}

/// Loss and gradients of a batch.
fn step(model: &Trainable, batch: &Batch, loss: &Loss<'_>, weights: &[f32]) -> (f32, BTreeMap<String, Vec<f32>>) {
    let now = model.model(false);
    let student = logits(model, &now, batch);
    let loss = match loss {
        Loss::Targets(targets) => now.cross_entropy(student, targets, weights),
        Loss::Teacher(teacher, temperature) => {
            let teacher = logits(teacher, &teacher.model(true), batch);
            // Three times the loss, so that what comes from behind it is passed on.
            now.soft_cross_entropy(student, teacher, *temperature, weights) * 3.0
        }
    };
    let grads = loss.backward();
    let gradient = |tensor: &Tensor<2>| into_values(tensor.grad(&grads).expect("all parameters are used"));
    let gradients = model.parameters().iter().map(|(name, tensor)| (name.to_owned(), gradient(tensor))).collect();
    (into_values(loss)[0], gradients)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn gradients_are_those_of_burns_operations(
        layers in [layer(), layer()],
        tied: bool,
        sequences in 1..4usize,
        length in 1..20usize,
        documents in prop::collection::vec(any::<u32>(), 80),
        seed: u64,
        temperature in prop_oneof![Just(None), (0.5..4.0f32).prop_map(Some), Just(Some(1.0))],
        threads in 1..4usize,
    ) {
        let rows = sequences * length;
        let tokens = (0..rows).map(|row| documents[row] % 37).collect();
        let targets: Vec<u32> = (0..rows).map(|row| documents[row + 1] / 64 % 37).collect();
        let weights: Vec<f32> = (0..rows).map(|row| (documents[row] >> 12 & 3) as f32 / 3.0).collect();
        let mut starts = vec![0; rows];
        for row in 1..rows {
            if row % length != 0 {
                starts[row] = if documents[row] >> 20 & 3 == 0 { (row % length) as u32 } else { starts[row - 1] };
            }
        }
        let batch = Batch::new(tokens, length, starts);
        let kernels = Compute::Kernels(Arc::new(Kernels::new(threads).expect("threads start")));
        let of = |compute: &Compute| {
            let make = |seed| Trainable::new(config(layers.clone(), tied), compute, initial(seed));
            let teacher = make(!seed);
            let loss = temperature.map_or(Loss::Targets(&targets), |temperature| Loss::Teacher(&teacher, temperature));
            step(&make(seed), &batch, &loss, &weights)
        };
        let (fused_loss, fused) = of(&kernels);
        let (loss, composed) = of(&Compute::Burn(Device::flex()));
        prop_assert!((fused_loss - loss).abs() <= 1e-4 * loss.abs().max(1.0), "{fused_loss} {loss}");
        for (name, expected) in composed {
            let largest = expected.iter().fold(1e-2, |most: f32, value| most.max(value.abs()));
            for (found, expected) in fused[&name].iter().zip(expected) {
                prop_assert!((found - expected).abs() <= 1e-4 * largest, "{name}: {found} {expected}");
            }
        }
    }
}

#[test]
fn products_in_bf16_are_near_those_in_f32() {
    let compute = Compute::Kernels(Arc::new(Kernels::new(2).expect("threads start")));
    let batch = Batch::whole((0..24).collect(), 12);
    let targets: Vec<u32> = (1..25).collect();
    let of = |precision| {
        let model = Trainable::new(config([plain(), plain()], true), &compute, initial(1)).with_products(precision);
        step(&model, &batch, &Loss::Targets(&targets), &[0.1; 24])
    };
    let ((exact_loss, exact), (loss, rounded)) = (of(TrainingPrecision::F32), of(TrainingPrecision::Bf16));
    assert!(loss != exact_loss && (loss - exact_loss).abs() < 5e-3 * exact_loss, "{loss} {exact_loss}");
    let squares = |f: &dyn Fn(f32, f32) -> f32| -> f32 {
        let pairs = exact.iter().flat_map(|(name, exact)| exact.iter().zip(&rounded[name]));
        pairs.map(|(exact, rounded)| f(*exact, *rounded).powi(2)).sum()
    };
    let apart = (squares(&|exact, rounded| exact - rounded) / squares(&|exact, _| exact)).sqrt();
    assert!(apart < 0.02, "the gradients are {apart} of their length apart");
}

#[test]
fn a_frozen_model_records_nothing() {
    let compute = Compute::Kernels(Arc::new(Kernels::new(1).expect("threads start")));
    let model = Trainable::new(config([plain(), plain()], true), &compute, initial(1));
    let batch = Batch::whole((0..12).collect(), 6);
    let loss = |frozen| {
        let now = model.model(frozen);
        now.cross_entropy(now.logits(now.embed(&batch)), &[1; 12], &[1.0; 12])
    };
    // A record that nobody goes back through would stay in memory.
    assert!(loss(false).is_tracked() && !loss(true).is_tracked());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_teachers_loss_and_gradients_are_those_of_burns_operations(
        rows in 1..9usize,
        vocabulary in 1..70usize,
        temperature in prop_oneof![Just(1.0f32), 0.5..4.0f32],
        scale in 0.1..8.0f32,
        seed: u64,
        threads in 1..4usize,
    ) {
        let values = initial(seed);
        let logits = |name: &str| -> Vec<f32> {
            values(name, &[rows, vocabulary]).iter().map(|value| value * scale).collect()
        };
        let weights: Vec<f32> = (0..rows).map(|row| (row % 3) as f32 * 0.4).collect();
        let run = |with: &Operations| {
            let device = Device::flex().autodiff();
            let place = |name| from_values(logits(name), rows, vocabulary, &device).require_grad();
            let (student, teacher) = (place("student"), place("teacher"));
            let loss = soft_cross_entropy(student.clone(), teacher.clone(), temperature, &weights, with);
            // Through something that has a derivative other than 1.
            let grads = (loss.clone() * 0.7).backward();
            assert!(teacher.grad(&grads).is_none(), "the teacher learns");
            (into_values(loss)[0], into_values(student.grad(&grads).expect("the student learns")))
        };
        let (loss, gradient) = run(&Operations::Composed);
        let fused = Operations::Fused {
            kernels: Arc::new(Kernels::new(threads).expect("threads start")),
            products: TrainingPrecision::F32,
        };
        let (fused_loss, fused_gradient) = run(&fused);
        prop_assert!(loss >= -1e-4 && (fused_loss - loss).abs() <= 1e-4 * loss.abs().max(1.0), "{fused_loss} {loss}");
        for (found, expected) in fused_gradient.iter().zip(gradient) {
            prop_assert!((found - expected).abs() <= 1e-5, "{found} {expected}");
        }
    }
}
