//! A trained model as a Hugging Face directory.

use std::fs;
use std::path::Path;

use anyhow::{anyhow, bail};
use half::bf16;
use paceline::files::{self, AtomicFolder, ReadError};
use paceline::model::Trainable;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::optimizer::into_values;

/// Bytes of a tokenizer's file at most, as they are read when it is used.
const LARGEST_TOKENIZER: u64 = 256 << 20;
/// Files of a tokenizer's folder that belong into a model's, but for `tokenizer.json` as far as they are there.
const TOKENIZER: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
];

/// Writes the model to `path`, in bf16, with the tokenizer of the folder `tokenizer`. The folder is replaced whole.
///
/// # Errors
/// If it cannot be written, or the tokenizer cannot be read.
pub fn export(model: &Trainable, tokenizer: &Path, path: &Path) -> anyhow::Result<()> {
    let folder = AtomicFolder::create(path)?;
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = model
        .parameters()
        .iter()
        .map(|(name, tensor)| {
            let [rows, width] = tensor.dims();
            let shape = if name.ends_with("norm.weight") { vec![width] } else { vec![rows, width] };
            let values = into_values(tensor.clone().inner());
            (name.to_owned(), shape, values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect())
        })
        .collect();
    let views =
        tensors.iter().map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::BF16, shape.clone(), bytes)?)));
    let views: Vec<_> = views.collect::<Result<_, safetensors::SafeTensorError>>()?;
    let format = [("format".to_owned(), "pt".to_owned())].into();
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.part().join(name), bytes).map_err(|error| {
            anyhow!(
                "`{name}` of the model {} cannot be written: {error}; make room and call the step again.",
                path.display()
            )
        })
    };
    write("model.safetensors", &safetensors::serialize(views, Some(format))?)?;
    write("config.json", (serde_json::to_string_pretty(&config(model))? + "\n").as_bytes())?;
    for name in TOKENIZER {
        let from = tokenizer.join(name);
        match files::read(&from, LARGEST_TOKENIZER) {
            Ok(bytes) => write(name, &bytes)?,
            Err(ReadError::Absent) if name != TOKENIZER[0] => {}
            Err(error) => bail!(
                "The tokenizer's file {} cannot be read: {error}; bring it back and call the step again.",
                from.display()
            ),
        }
    }
    Ok(folder.commit()?)
}

/// `config.json` as transformers reads it.
fn config(model: &Trainable) -> serde_json::Value {
    let config = model.config();
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": config.bos_token,
        "eos_token_id": config.stop_tokens.first(),
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.context,
        "mlp_bias": false,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": config.norm_eps,
        "rope_scaling": null,
        "rope_theta": config.rope.theta,
        "tie_word_embeddings": config.tied_embeddings,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        "use_cache": true,
        "vocab_size": config.vocab_size,
    })
}
