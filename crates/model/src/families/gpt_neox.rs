//! GPT-NeoX as Hugging Face stores it (Black et al. 2022; `modeling_gpt_neox.py` of transformers): Pythia and its relatives.

use serde_json::{Value, json};

use crate::config::{
    Bias, FeedForward, Heads, INIT_STD, Init, ModelConfig, NormKind, NormPlacement, Positions,
};
use crate::families::fields::{Fields, activation_name};
use crate::families::rope::{RopeNames, read_rope, write_rope};
use crate::families::{Family, Stored};

/// The family of `model_type: gpt_neox`.
#[derive(Debug)]
pub(crate) struct GptNeoX;

/// The fields of `config.json` before transformers 5.
const ROPE: RopeNames = RopeNames { theta: "rotary_emb_base", share: "rotary_pct", default_share: 0.25 };

impl Family for GptNeoX {
    fn model_type(&self) -> &'static str {
        "gpt_neox"
    }

    fn causal_class(&self) -> &'static str {
        "GPTNeoXForCausalLM"
    }

    fn scalar_class(&self) -> &'static str {
        "GPTNeoXForSequenceClassification"
    }

    fn describes(&self, config: &ModelConfig) -> bool {
        config.norm != NormPlacement::Post
            && config.norm_kind == NormKind::Layer
            && matches!(config.positions, Positions::Rotary { .. })
            && config.heads == Heads::default()
            && config.feed_forward == FeedForward::Plain
            && config.bias == Bias::All
            && !config.embedding_scale
            && !config.embedding_norm
            && config.final_norm
            && config.ff_dropout == 0.0
            && config.init == Init::Plain
    }

    fn read_config(&self, fields: &Fields<'_>) -> Result<ModelConfig, String> {
        fields.only("attention_bias", true)?;
        let max_seq_len = fields.count("max_position_embeddings")?;
        let is_parallel = fields.flag("use_parallel_residual", true)?;
        Ok(ModelConfig {
            vocab_size: fields.count("vocab_size")?,
            max_seq_len,
            d_model: fields.count("hidden_size")?,
            n_layers: fields.count("num_hidden_layers")?,
            n_heads: fields.count("num_attention_heads")?,
            heads: Heads::default(),
            d_ff: fields.count("intermediate_size")?,
            activation: fields.activation("hidden_act", "gelu")?,
            feed_forward: FeedForward::Plain,
            norm: if is_parallel { NormPlacement::Parallel } else { NormPlacement::Pre },
            norm_kind: NormKind::Layer,
            norm_eps: fields.number("layer_norm_eps", 1e-5)?,
            positions: read_rope(fields, &ROPE, max_seq_len)?,
            embedding_scale: false,
            embedding_norm: false,
            final_norm: true,
            bias: Bias::All,
            tie_head: fields.flag("tie_word_embeddings", false)?,
            dropout: fields.number("hidden_dropout", 0.0)?,
            attention_dropout: fields.number("attention_dropout", 0.0)?,
            ff_dropout: 0.0,
            init: Init::Plain,
        })
    }

    fn write_config(&self, config: &ModelConfig) -> Value {
        let mut json = json!({
            "model_type": self.model_type(),
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.max_seq_len,
            "hidden_size": config.d_model,
            "num_hidden_layers": config.n_layers,
            "num_attention_heads": config.n_heads,
            "intermediate_size": config.d_ff,
            "hidden_act": activation_name(config.activation),
            "layer_norm_eps": config.norm_eps,
            "use_parallel_residual": config.norm == NormPlacement::Parallel,
            "attention_bias": true,
            "hidden_dropout": config.dropout,
            "attention_dropout": config.attention_dropout,
            "tie_word_embeddings": config.tie_head,
            "initializer_range": INIT_STD,
            "torch_dtype": "float32",
        });
        write_rope(config.positions, &ROPE, &mut json);
        json
    }

    /// `gpt_neox.layers.0.attention.query_key_value.weight` and so on; every matrix is a `torch.nn.Linear`.
    fn stored(&self, path: &str, dims: &[usize], config: &ModelConfig) -> Stored {
        let (owner, kind) = path.rsplit_once('.').unwrap_or(("", path));
        let kind = match kind {
            "gamma" => "weight",
            "beta" => "bias",
            kind => kind,
        };
        let Some((block, layer)) =
            owner.strip_prefix("transformer.blocks.").and_then(|owner| owner.split_once('.'))
        else {
            let (name, is_transposed) = match owner {
                "transformer.token_embedding" => ("gpt_neox.embed_in", false),
                "transformer.final_norm" => ("gpt_neox.final_layer_norm", false),
                "lm_head" => ("embed_out", true),
                head => (head, true), // `score`
            };
            return Stored::whole(format!("{name}.{kind}"), dims, is_transposed);
        };
        let name = match layer {
            "attention.input" => "attention.query_key_value",
            "attention.output" => "attention.dense",
            "attention_norm" => "input_layernorm",
            "feed_forward_norm" => "post_attention_layernorm",
            "mlp.input" => "mlp.dense_h_to_4h",
            "mlp.output" => "mlp.dense_4h_to_h",
            other => other,
        };
        let order = (layer == "attention.input").then(|| head_by_head(config.n_heads, config.d_head()));
        Stored { order, ..Stored::whole(format!("gpt_neox.layers.{block}.{name}.{kind}"), dims, true) }
    }

    /// In memory transformers 5 calls the head `lm_head`, and a bare `GPTNeoXModel` has no `gpt_neox.` in its names.
    fn other_name<'a>(&self, name: &'a str) -> Option<&'a str> {
        match name {
            "embed_out.weight" => Some("lm_head.weight"),
            _ => name.strip_prefix("gpt_neox."),
        }
    }

    /// Masks and frequencies that old files hold, and the output matrix where it is the embedding.
    fn is_buffer(&self, name: &str) -> bool {
        name.ends_with(".attention.bias")
            || name.ends_with(".attention.masked_bias")
            || name.ends_with(".rotary_emb.inv_freq")
            || ["embed_out.weight", "lm_head.weight"].contains(&name)
    }
}

/// The file has query, key and value of the first head, then those of the second; we have all queries, all keys, all
/// values.
fn head_by_head(n_heads: usize, d_head: usize) -> Vec<usize> {
    let column = |head: usize, kind: usize| (0..d_head).map(move |i| (kind * n_heads + head) * d_head + i);
    (0..n_heads).flat_map(|head| (0..3).flat_map(move |kind| column(head, kind))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::config::Activation;
    use crate::families::read_config;
    use std::path::Path;

    fn read(json: &Value) -> Result<ModelConfig, Error> {
        read_config(json, Path::new("config.json"), &[]).map(|(_, config)| config)
    }

    /// The `config.json` of Pythia-160M on the hub.
    fn pythia() -> Value {
        json!({
            "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
            "hidden_size": 768, "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
            "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 12,
            "num_hidden_layers": 12, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false,
            "torch_dtype": "float16", "transformers_version": "4.24.0", "use_cache": true,
            "use_parallel_residual": true, "vocab_size": 50304,
        })
    }

    #[test]
    fn the_shape_of_pythia_is_read() {
        let config = read(&pythia()).unwrap();
        assert_eq!(config.positions, Positions::Rotary { theta: 1e4, share: 0.25, scaling: None });
        assert_eq!((config.d_rotary(), config.norm), (16, NormPlacement::Parallel));
        assert_eq!(config.activation, Activation::Gelu);
        assert!(!config.tie_head);
        for config in [
            ModelConfig { dropout: 0.1, tie_head: true, ..config.clone() },
            ModelConfig { norm: NormPlacement::Pre, attention_dropout: 0.1, ..config },
        ] {
            assert_eq!(crate::families::of(&config).model_type(), "gpt_neox");
            assert_eq!(read(&GptNeoX.write_config(&config)).unwrap(), config);
        }
    }

    #[test]
    fn a_model_without_biases_in_attention_is_refused() {
        let mut json = pythia();
        json["attention_bias"] = json!(false);
        assert!(read(&json).unwrap_err().to_string().contains("`attention_bias: false`"));
    }

    /// Two heads of one number: q₀ k₀ v₀ q₁ k₁ v₁ in the file, q₀ q₁ k₀ k₁ v₀ v₁ here.
    #[test]
    fn fused_projections_are_stored_head_by_head() {
        assert_eq!(head_by_head(2, 1), [0, 2, 4, 1, 3, 5]);
        assert_eq!(head_by_head(1, 3), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
