//! The kernels against burn's own operations: one description of the model, two ways to run it.

use std::sync::Arc;

use burn::tensor::Device;
use paceline::checkpoint::Checkpoint;
use paceline::model::{Compute, Decoder, SelfDraft, Sequence};
use paceline_kernels::CacheFormat;

use crate::support::{Numbers, decoder_at, decoder_on, fixture, random_checkpoint};

const FIXTURES: [&str; 6] = ["llama-tied", "llama-rope3", "mistral-window", "qwen2-bias", "qwen3-qknorm", "micro"];

/// Of logits, in units of the largest, between the kernels with caches of a format and burn on a device.
fn largest_difference(directory: &std::path::Path, cache: CacheFormat, device: &Device, text: &[u32]) -> f32 {
    let mut kernels = Sequence::new(decoder_at(directory, 2, None, cache), 64);
    let mut composed = Sequence::new(decoder_on(directory, &Compute::Burn(device.clone())), 64);
    let mut worst: f32 = 0.0;
    // A prefill, a verification, a roll-back, and steps with layers that ran ahead, or all of it through a view.
    let parts = [(0, 10), (10, 17), (13, 14), (14, 20)];
    for (from, to) in parts {
        kernels.truncate(from);
        composed.truncate(from);
        let views = [&kernels, &composed]
            .map(|sequence| Arc::new(SelfDraft::new(sequence.decoder().clone(), Some("a0,m1".parse().unwrap()))));
        // A draft without the first attention, in two parts, so that the second stands where no layer says.
        for part in [from..from + 1, from + 1..to + 1] {
            let ours = kernels.draft_through(&views[0], &text[part.clone()]).unwrap();
            worst = worst.max(difference(&ours, &composed.draft_through(&views[1], &text[part]).unwrap()));
        }
        if to - from > 1 {
            kernels.draft_early(text[from], 1);
            composed.draft_early(text[from], 1);
        }
        let (ours, theirs) =
            (kernels.verify(&text[from..to]).into_logits(), composed.verify(&text[from..to]).into_logits());
        worst = worst.max(difference(&ours, &theirs));
    }
    worst
}

/// The largest difference, in units of the largest value.
fn difference(ours: &[f32], theirs: &[f32]) -> f32 {
    let largest = theirs.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max)
}

fn check(device: &Device) {
    for name in FIXTURES {
        let text: Vec<u32> = (0..21).map(|i| (i * 7 + 3) % 11).collect();
        let difference = largest_difference(&fixture(name), CacheFormat::F32, device, &text);
        assert!(difference < 2e-5, "{name}: {difference}");
    }
    for seed in 0..12 {
        let directory = tempfile::tempdir().unwrap();
        let description = random_checkpoint(directory.path(), &mut Numbers(seed));
        let text: Vec<u32> = (0..21).map(|i| (i * 3 + 1) % 5).collect();
        let difference = largest_difference(directory.path(), CacheFormat::F32, device, &text);
        assert!(difference < 5e-5, "{difference}: {description}");
    }
}

#[test]
fn kernels_agree_with_burn_flex() {
    check(&Device::flex());
}

/// Keys and values rounded to eleven bits: neither lost nor left as they were.
#[test]
fn a_cache_in_f16_stays_near_one_in_f32() {
    for name in FIXTURES {
        let text: Vec<u32> = (0..21).map(|i| (i * 7 + 3) % 11).collect();
        let difference = largest_difference(&fixture(name), CacheFormat::F16, &Device::flex(), &text);
        assert!((2e-5..5e-3).contains(&difference), "{name}: {difference}");
    }
}

#[test]
fn a_cache_in_f16_is_refused_off_the_processor() {
    let checkpoint = Checkpoint::open(&fixture("micro")).unwrap();
    let load = || Decoder::load(&checkpoint, None, &Compute::Burn(Device::flex()), &mut |_, _| {}).unwrap();
    let error = load().with_cache_format(CacheFormat::F16).err().unwrap().to_string();
    assert!(error.contains("f16") && error.contains("`cpu`"), "{error}");
    assert!(load().with_cache_format(CacheFormat::F32).is_ok());
}

#[cfg(feature = "ndarray")]
#[test]
#[allow(deprecated, reason = "an oracle that shares no code with flex")]
fn kernels_agree_with_burn_ndarray() {
    check(&Device::ndarray());
}
