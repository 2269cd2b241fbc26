//! Names of tensors: those of GGUF files, and those of Hugging Face files by which the rest of the program knows them.

use crate::checkpoint::layout::{EMBEDDING, FINAL_NORM, OUTPUT};

/// Outside of the layers.
const OUTER: [(&str, &str); 3] =
    [("token_embd.weight", EMBEDDING), ("output.weight", OUTPUT), ("output_norm.weight", FINAL_NORM)];

/// Parts of a layer, without `.weight` and `.bias`.
const PARTS: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The names that some architectures give parts, in place of [`PARTS`] that have one of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::checkpoint) enum Dialect {
    /// None but those.
    Plain,
    /// Norms on the outputs of both parts of a layer.
    PostNorms,
    /// Matrices that are stored as one.
    Fused,
}

impl Dialect {
    fn own(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Plain => &[],
            Self::PostNorms => &[
                ("post_attention_norm", "post_attention_layernorm"),
                ("ffn_norm", "pre_feedforward_layernorm"),
                ("post_ffw_norm", "post_feedforward_layernorm"),
            ],
            Self::Fused => &[("attn_qkv", "self_attn.qkv_proj"), ("ffn_up", "mlp.gate_up_proj")],
        }
    }

    fn parts(self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        self.own().iter().chain(&PARTS)
    }
}

/// A tensor of `PREFIX.N.PART.KIND`: the layer, the part and `weight` or `bias`.
fn in_layer<'a>(name: &'a str, prefix: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (layer, rest) = name.strip_prefix(prefix)?.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    Some((layer, part, kind))
}

/// The Hugging Face name of a GGUF tensor; `None` for one that has none.
pub(in crate::checkpoint) fn from_gguf(name: &str, dialect: Dialect) -> Option<String> {
    if let Some((_, ours)) = OUTER.iter().find(|(theirs, _)| *theirs == name) {
        return Some((*ours).to_owned());
    }
    let (layer, part, kind) = in_layer(name, "blk.")?;
    let (_, ours) = dialect.parts().find(|(theirs, _)| *theirs == part)?;
    Some(format!("model.layers.{layer}.{ours}.{kind}"))
}

/// The GGUF name of a tensor that has a Hugging Face name, for messages.
pub(in crate::checkpoint) fn to_gguf(name: &str, dialect: Dialect) -> String {
    if let Some((theirs, _)) = OUTER.iter().find(|(_, ours)| *ours == name) {
        return (*theirs).to_owned();
    }
    let found = in_layer(name, "model.layers.").and_then(|(layer, part, kind)| {
        let (theirs, _) = dialect.parts().find(|(_, ours)| *ours == part)?;
        Some(format!("blk.{layer}.{theirs}.{kind}"))
    });
    found.unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated_there_and_back() {
        use Dialect::{Fused, Plain, PostNorms};
        for (dialect, theirs, ours) in [
            (Plain, "token_embd.weight", "model.embed_tokens.weight"),
            (Plain, "blk.12.attn_q.bias", "model.layers.12.self_attn.q_proj.bias"),
            (Plain, "blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
            (PostNorms, "blk.0.ffn_norm.weight", "model.layers.0.pre_feedforward_layernorm.weight"),
            (PostNorms, "blk.0.post_attention_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
            (PostNorms, "blk.3.post_ffw_norm.weight", "model.layers.3.post_feedforward_layernorm.weight"),
            (Fused, "blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
            (Fused, "blk.1.attn_qkv.weight", "model.layers.1.self_attn.qkv_proj.weight"),
            (Fused, "blk.1.ffn_up.weight", "model.layers.1.mlp.gate_up_proj.weight"),
        ] {
            assert_eq!(from_gguf(theirs, dialect).as_deref(), Some(ours));
            assert_eq!(to_gguf(ours, dialect), theirs);
        }
        for other in ["rope_freqs.weight", "blk.0.ffn_gate_exps.weight", "blk.attn_q.weight", "blk.0.attn_q", ""] {
            assert_eq!(from_gguf(other, Plain), None, "{other}");
        }
    }
}
