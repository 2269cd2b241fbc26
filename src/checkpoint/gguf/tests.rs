//! GGUF models that are refused, each with the sentence that helps.

use std::fs;
use std::path::Path;

use super::writer::{Fields, Tensor};
use crate::checkpoint::{Checkpoint, RopeScaling};

const F32: u32 = 0;

fn tensor(name: &str, sizes: &[u64]) -> Tensor {
    let count = sizes.iter().product::<u64>() as usize;
    let data = (0..count).flat_map(|i| (i as f32 * 0.5 - 1.0).to_le_bytes()).collect();
    Tensor { name: name.to_owned(), sizes: sizes.to_vec(), kind: F32, data, offset: None }
}

/// A Llama of one layer that can be opened.
fn model() -> Fields {
    let sizes = [
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", 4),
        ("feed_forward_length", 6),
        ("attention.head_count", 2),
    ];
    let mut fields = Fields::default().with_whole("general.architecture", "llama");
    for (key, size) in sizes {
        fields = fields.with_whole(&format!("llama.{key}"), size);
    }
    fields = fields
        .with_whole("llama.attention.layer_norm_rms_epsilon", 1)
        .with("ggml.model", "gpt2")
        .with("ggml.pre", "gpt-2")
        .with("ggml.tokens", ["a", "b", "ab"])
        .with("ggml.merges", ["a b"])
        .with("ggml.eos_token_id", 2);
    fields = fields.with_tensor(tensor("token_embd.weight", &[4, 3])).with_tensor(tensor("output_norm.weight", &[4]));
    for (part, sizes) in [
        ("attn_norm", &[4][..]),
        ("attn_q", &[4, 4]),
        ("attn_k", &[4, 4]),
        ("attn_v", &[4, 4]),
        ("attn_output", &[4, 4]),
        ("ffn_norm", &[4]),
        ("ffn_gate", &[4, 6]),
        ("ffn_up", &[4, 6]),
        ("ffn_down", &[6, 4]),
    ] {
        fields = fields.with_tensor(tensor(&format!("blk.0.{part}.weight"), sizes));
    }
    fields
}

fn open_bytes(bytes: &[u8]) -> Result<Checkpoint, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    Checkpoint::open(&path).map_err(|error| error.to_string())
}

fn open(fields: &Fields) -> Result<Checkpoint, String> {
    open_bytes(&fields.bytes())
}

fn with_tensors(change: impl FnOnce(&mut Vec<Tensor>)) -> Fields {
    let mut fields = model();
    change(fields.tensors());
    fields
}

#[test]
fn a_sound_file_opens_with_rows_in_our_order() {
    let checkpoint = open(&model()).unwrap();
    let config = checkpoint.config();
    assert_eq!((config.layers, config.head_dim, config.kv_heads, config.vocab_size), (1, 2, 2, 3));
    assert!(config.tied_embeddings && checkpoint.notes().is_empty());
    assert_eq!(config.stop_tokens, [2]);
    // Heads of two rows are pairs already.
    let queries = checkpoint.tensor("model.layers.0.self_attn.q_proj.weight").unwrap();
    assert_eq!(queries.to_f32()[..4], [-1.0, -0.5, 0.0, 0.5]);
    let wide = model().with_whole("llama.attention.head_count", 1);
    let checkpoint = open(&wide).unwrap();
    let first: Vec<f32> = checkpoint
        .tensor("model.layers.0.self_attn.q_proj.weight")
        .unwrap()
        .to_f32()
        .chunks(4)
        .map(|row| row[0])
        .collect();
    // Rows 0, 2, 1, 3 of -1, 1, 3, 5.
    assert_eq!(first, [-1.0, 3.0, 1.0, 5.0]);
    let values = checkpoint.tensor("model.layers.0.self_attn.v_proj.weight").unwrap().to_f32();
    assert_eq!(values.chunks(4).map(|row| row[0]).collect::<Vec<_>>(), [-1.0, 1.0, 3.0, 5.0]);
}

#[test]
fn what_would_change_the_output_is_refused_by_name() {
    let key = |key: &str, value: u32| model().with_whole(&format!("llama.{key}"), value);
    for (fields, said) in [
        (model().with_whole("general.architecture", "mamba"), "general.architecture\" of"),
        (
            model().with_whole("general.architecture", "mamba"),
            "is \"mamba\", which is not supported; llama, qwen2, qwen3, gemma2, gemma3, phi3, smollm3, granite are",
        ),
        (model().with_whole("general.type", "adapter"), "is \"adapter\": the file holds no model by itself"),
        (key("expert_count", 8), "is 8: a mixture of experts is not supported"),
        (key("attention.sliding_window", 512), "is 512: a sliding window"),
        (key("attn_logit_softcapping", 50), "capped scores is not supported"),
        (key("rope.dimension_count", 4), "is 4, but a head has 2"),
        (key("attention.value_length", 4), "is 4, but keys have 2"),
        (key("attention.head_count_kv", 3), "is 3, which does not divide the 2"),
        (key("block_count", 0), "is 0, but must be above zero"),
        (key("attention.head_count", 3), "is 4, which the 3 of attention.head_count do not divide"),
        (
            model().with_whole("llama.rope.scaling.type", "dynamic"),
            "is \"dynamic\", which is not supported; none, linear, yarn and longrope are",
        ),
        (model().with_whole("llama.rope.scaling.type", "yarn"), "rope.scaling.factor\" of"),
        (model().with_whole("llama.rope.scaling.type", "longrope"), "has no factors of frequencies"),
        (model().with_whole("llama.rope.scaling.attn_factor", 2_u32), "is 2: another scale of scores"),
        (key("logit_scale", 2), "is 2: scaled logits is not supported"),
        (model().with_whole("llama.attention.head_count", [2, 2]), "for layers of different sizes"),
        (model().with_whole("llama.block_count", "1"), "is a text, where a whole number is needed"),
        (model().with("ggml.tokens", ["a", "b"]), "has 2 tokens, but the embedding has 3 rows"),
    ] {
        let message = open(&fields).unwrap_err();
        assert!(message.contains(said) && message.ends_with('.'), "{said}: {message}");
    }
    let noted = open(&key("new_thing", 1)).unwrap();
    assert!(noted.notes()[0].contains("llama.new_thing"), "{:?}", noted.notes());
    assert!(open(&key("expert_count", 0)).is_ok());
}

#[test]
fn tensors_are_held_to_the_description_and_the_file() {
    type Change = fn(&mut Vec<Tensor>);
    let cases: [(Change, &str); 9] = [
        (|tensors| drop(tensors.pop()), "The tensor \"blk.0.ffn_down.weight\" that"),
        (
            |tensors| tensors.push(tensor("blk.0.ffn_gate_exps.weight", &[4])),
            "holds the tensor \"blk.0.ffn_gate_exps.weight\", which no part",
        ),
        (|tensors| tensors[3].sizes = vec![4, 2], "\"blk.0.attn_q.weight\" of"),
        (|tensors| tensors[3].offset = Some(0), "overlap"),
        (|tensors| tensors[3].offset = Some(1 << 40), "the file is cut short"),
        (|tensors| tensors[3].offset = Some(3), "not a multiple of 32"),
        (|tensors| tensors[3].name = "output_norm.weight".to_owned(), "is there twice"),
        (|tensors| tensors[3].kind = 99, "has the unknown type 99"),
        (|tensors| tensors[3].kind = 8, "not blocks of 32 as Q8_0 needs"),
    ];
    for (change, said) in cases {
        let message = open(&with_tensors(change)).unwrap_err();
        assert!(message.contains(said), "{said}: {message}");
    }
    // A type of ggml that is not read, in rows that it fits.
    let other = with_tensors(|tensors| {
        tensors[0] = Tensor { kind: 16, sizes: vec![256, 3], data: vec![0; 198], ..tensors[0].clone() };
    });
    let message = open(&other.with_whole("llama.embedding_length", 256)).unwrap_err();
    assert!(
        message.contains("is stored as IQ2_XXS; F32, F16, Q4_0") && message.contains("Q6_K, BF16 are read"),
        "{message}"
    );
}

#[test]
fn factors_of_the_rotation_are_a_part_of_the_description() {
    let with_factors = |values: &[f32]| {
        let mut factors = tensor("rope_freqs.weight", &[values.len() as u64]);
        factors.data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        open(&model().with_tensor(factors))
    };
    let checkpoint = with_factors(&[4.0]).unwrap();
    assert_eq!(checkpoint.config().rope.scaling, RopeScaling::Factors { factors: vec![4.0] });
    for wrong in [&[4.0, 4.0][..], &[0.0], &[f32::NAN]] {
        assert!(with_factors(wrong).unwrap_err().contains("does not have 1 factors above zero"));
    }
}

/// Whatever is left of a file, a sentence says what is missing.
#[test]
fn a_file_that_is_cut_short_anywhere_is_refused() {
    let bytes = model().bytes();
    for length in 0..bytes.len() {
        let message = open_bytes(&bytes[..length]).map(drop).unwrap_err();
        assert!(message.ends_with('.') && message.contains("model.gguf"), "{length}: {message}");
    }
    assert!(open_bytes(&bytes).is_ok());
}

#[test]
fn parts_of_a_split_model_belong_together() {
    let dir = tempfile::tempdir().unwrap();
    let part = |number: u32, count: u32| {
        let mut fields = model();
        let all = std::mem::take(fields.tensors());
        let mut fields = if number == 1 { fields } else { Fields::default() };
        *fields.tensors() = if number == 1 { all[..6].to_vec() } else { all[6..].to_vec() };
        fields.with_whole("split.no", number - 1).with_whole("split.count", count).with_whole("split.tensors.count", 11)
    };
    let name = |number: usize| dir.path().join(format!("m-{number:05}-of-00002.gguf"));
    fs::write(name(1), part(1, 2).bytes()).unwrap();
    let open = |path: &Path| Checkpoint::open(path).map_err(|error| error.to_string());
    let message = open(&name(1)).unwrap_err();
    assert!(message.contains("m-00002-of-00002.gguf does not exist, and the model is split into 2 files"), "{message}");
    fs::write(name(2), part(2, 2).bytes()).unwrap();
    for path in [&name(1), &name(2), &dir.path().to_owned()] {
        assert_eq!(open(path).unwrap().files().len(), 2);
    }
    fs::write(name(2), part(1, 2).bytes()).unwrap();
    assert!(open(&name(1)).unwrap_err().contains("is not part 2 of 2, as its name says"));
    let alone = dir.path().join("alone.gguf");
    fs::copy(name(1), &alone).unwrap();
    assert!(open(&alone).unwrap_err().contains("does not end as -00001-of-00002.gguf"));
}
