//! The kernels against burn's own operations: one description of the model, two ways to run it.

use burn::tensor::Device;
use paceline::model::{Compute, Sequence};

use crate::support::{Numbers, decoder, decoder_on, fixture, random_checkpoint};

fn largest_difference(directory: &std::path::Path, device: &Device, text: &[u32]) -> f32 {
    let mut kernels = Sequence::new(decoder(directory, 2), 64);
    let mut composed = Sequence::new(decoder_on(directory, &Compute::Burn(device.clone())), 64);
    let mut worst: f32 = 0.0;
    // A prefill, a verification, a roll-back, and steps with layers that ran ahead.
    let parts = [(0, 10), (10, 17), (13, 14), (14, 20)];
    for (from, to) in parts {
        kernels.truncate(from);
        composed.truncate(from);
        if to - from > 1 {
            kernels.draft_early(text[from], 1);
            composed.draft_early(text[from], 1);
        }
        let (ours, theirs) = (kernels.verify(&text[from..to]).logits, composed.verify(&text[from..to]).logits);
        let largest = theirs.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
        let differences = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs() / largest);
        worst = worst.max(differences.fold(0.0, f32::max));
    }
    worst
}

fn check(device: &Device) {
    for name in ["llama-tied", "llama-rope3", "mistral-window", "qwen2-bias", "qwen3-qknorm", "micro"] {
        let text: Vec<u32> = (0..20).map(|i| (i * 7 + 3) % 11).collect();
        let difference = largest_difference(&fixture(name), device, &text);
        assert!(difference < 2e-5, "{name}: {difference}");
    }
    for seed in 0..12 {
        let directory = tempfile::tempdir().unwrap();
        let description = random_checkpoint(directory.path(), &mut Numbers(seed));
        let text: Vec<u32> = (0..20).map(|i| (i * 3 + 1) % 5).collect();
        let difference = largest_difference(directory.path(), device, &text);
        assert!(difference < 5e-5, "{difference}: {description}");
    }
}

#[test]
fn kernels_agree_with_burn_flex() {
    check(&Device::flex());
}

#[cfg(feature = "ndarray")]
#[test]
#[allow(deprecated, reason = "an oracle that shares no code with flex")]
fn kernels_agree_with_burn_ndarray() {
    check(&Device::ndarray());
}
