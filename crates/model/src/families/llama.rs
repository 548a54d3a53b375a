//! Llama as Hugging Face stores it (Touvron et al. 2023; `modeling_llama.py` of transformers): Llama 2 and 3, SmolLM2,
//! TinyLlama, and Mistral where its window covers the context.

use serde_json::{Value, json};

use crate::config::{
    Bias, FeedForward, Heads, INIT_STD, Init, ModelConfig, NormKind, NormPlacement, Positions,
};
use crate::families::fields::{Fields, activation_name};
use crate::families::rope::{ROPE, read_rope, write_rope};
use crate::families::{Family, Stored};

/// The family of `model_type: llama`.
#[derive(Debug)]
pub(crate) struct Llama;

/// The name of a tensor that stores a parameter of the block `block`.
fn in_block(block: &str, name: &str, kind: &str) -> String {
    format!("model.layers.{block}.{name}.{kind}")
}

/// `model.layers.0.self_attn.q_proj.weight` and so on; every matrix is a `torch.nn.Linear`, `[d_out, d_in]`.
pub(super) fn stored(path: &str, dims: &[usize], config: &ModelConfig) -> Stored {
    let (owner, kind) = path.rsplit_once('.').unwrap_or(("", path));
    let kind = if kind == "gamma" { "weight" } else { kind };
    let Some((block, layer)) =
        owner.strip_prefix("transformer.blocks.").and_then(|owner| owner.split_once('.'))
    else {
        let (name, is_transposed) = match owner {
            "transformer.token_embedding" => ("model.embed_tokens", false),
            "transformer.final_norm" => ("model.norm", false),
            head => (head, true), // `lm_head` or `score`
        };
        return Stored::whole(format!("{name}.{kind}"), dims, is_transposed);
    };
    let name = match layer {
        "attention.input" => {
            let (q, kv) = (config.n_heads * config.d_head(), config.n_kv_heads() * config.d_head());
            let pieces = [("q_proj", q), ("k_proj", kv), ("v_proj", kv)];
            let piece = |(name, width)| (in_block(block, &format!("self_attn.{name}"), kind), width);
            return Stored { pieces: pieces.map(piece).to_vec(), is_transposed: true, order: None };
        }
        "attention.output" => "self_attn.o_proj",
        "attention.query_norm" => "self_attn.q_norm",
        "attention.key_norm" => "self_attn.k_norm",
        "attention_norm" => "input_layernorm",
        "feed_forward_norm" => "post_attention_layernorm",
        "mlp.gate" => "mlp.gate_proj",
        "mlp.input" => "mlp.up_proj",
        "mlp.output" => "mlp.down_proj",
        other => other,
    };
    Stored::whole(in_block(block, name, kind), dims, true)
}

/// The frequencies that old files hold, and the output matrix where it is the embedding.
pub(super) fn is_buffer(name: &str) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || name == "lm_head.weight"
}

/// A bare `LlamaModel` has no `model.` in its names.
pub(super) fn other_name(name: &str) -> Option<&str> {
    name.strip_prefix("model.")
}

/// Whether a decoder is a Llama but for its heads and biases.
pub(super) fn describes(config: &ModelConfig) -> bool {
    config.norm == NormPlacement::Pre
        && config.norm_kind == NormKind::Rms
        && matches!(config.positions, Positions::Rotary { .. })
        && config.feed_forward == FeedForward::Gated
        && !config.embedding_scale
        && !config.embedding_norm
        && config.final_norm
        && config.dropout == 0.0
        && config.ff_dropout == 0.0
        && config.init == Init::Plain
}

/// The shape that Llama, Qwen2 and Qwen3 have in common, with the biases and the norms of heads that are given.
pub(super) fn read_shape(fields: &Fields<'_>, bias: Bias, qk_norm: bool) -> Result<ModelConfig, String> {
    let (d_model, n_heads) = (fields.count("hidden_size")?, fields.count("num_attention_heads")?);
    let max_seq_len = fields.count("max_position_embeddings")?;
    // A field that repeats the default is the default, so that equal models have equal shapes.
    let other_than = |default: Option<usize>| move |n: &usize| Some(*n) != default;
    let n_kv_heads = fields.optional_count("num_key_value_heads")?.filter(other_than(Some(n_heads)));
    let plain_width = d_model.checked_div(n_heads).filter(|width| width * n_heads == d_model);
    let d_head = fields.optional_count("head_dim")?.filter(other_than(plain_width));
    check_layers(fields)?;
    Ok(ModelConfig {
        vocab_size: fields.count("vocab_size")?,
        max_seq_len,
        d_model,
        n_layers: fields.count("num_hidden_layers")?,
        n_heads,
        heads: Heads { n_kv_heads, d_head, qk_norm },
        d_ff: fields.count("intermediate_size")?,
        activation: fields.activation("hidden_act", "silu")?,
        feed_forward: FeedForward::Gated,
        norm: NormPlacement::Pre,
        norm_kind: NormKind::Rms,
        norm_eps: fields.number("rms_norm_eps", 1e-6)?,
        positions: read_rope(fields, &ROPE, max_seq_len)?,
        embedding_scale: false,
        embedding_norm: false,
        final_norm: true,
        bias,
        tie_head: fields.flag("tie_word_embeddings", false)?,
        dropout: 0.0,
        attention_dropout: fields.number("attention_dropout", 0.0)?,
        ff_dropout: 0.0,
        init: Init::Plain,
    })
}

/// Every layer must look at the whole context: no window, or one that is switched off.
fn check_layers(fields: &Fields<'_>) -> Result<(), String> {
    for kind in fields.value("layer_types").as_array().into_iter().flatten() {
        if kind != "full_attention" {
            return Err(format!("a layer of `layer_types` is {kind}; only \"full_attention\" is supported"));
        }
    }
    Ok(())
}

/// The fields that Llama, Qwen2 and Qwen3 have in common.
pub(super) fn write_shape(config: &ModelConfig, model_type: &str) -> Value {
    let mut json = json!({
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_seq_len,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads(),
        "head_dim": config.d_head(),
        "intermediate_size": config.d_ff,
        "hidden_act": activation_name(config.activation),
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_head,
        "attention_dropout": config.attention_dropout,
        "initializer_range": INIT_STD,
        "torch_dtype": "float32",
    });
    write_rope(config.positions, &ROPE, &mut json);
    json
}

impl Family for Llama {
    fn model_type(&self) -> &'static str {
        "llama"
    }

    fn other_model_type(&self) -> Option<&'static str> {
        Some("mistral")
    }

    fn causal_class(&self) -> &'static str {
        "LlamaForCausalLM"
    }

    fn scalar_class(&self) -> &'static str {
        "LlamaForSequenceClassification"
    }

    fn describes(&self, config: &ModelConfig) -> bool {
        describes(config) && !config.heads.qk_norm && config.bias != Bias::QueriesKeysValues
    }

    fn read_config(&self, fields: &Fields<'_>) -> Result<ModelConfig, String> {
        let is_mistral = fields.value("model_type") == "mistral";
        fields.without_effect(&["is_llama_config"]);
        // The interleaved layout of pairs, which the weights of such a model would need.
        fields.only("rope_interleaved", false)?;
        let bias = match (fields.flag("attention_bias", false)?, fields.flag("mlp_bias", false)?) {
            (false, false) => Bias::None,
            (true, false) => Bias::Attention,
            (true, true) => Bias::All,
            (false, true) => return Err("`mlp_bias: true` without `attention_bias` is not supported".into()),
        };
        let config = read_shape(fields, bias, false)?;
        // MistralConfig has a window of 4,096 tokens where the file names none.
        let default = if is_mistral && fields.is_missing("sliding_window") { Some(4096) } else { None };
        let window = fields.optional_count("sliding_window")?.or(default);
        match window {
            Some(window) if window < config.max_seq_len => Err(format!(
                "a `sliding_window` of {window} tokens in a context of {} is not supported",
                config.max_seq_len
            )),
            _ => Ok(config),
        }
    }

    fn write_config(&self, config: &ModelConfig) -> Value {
        let mut json = write_shape(config, self.model_type());
        json["attention_bias"] = json!(config.bias.on_queries_keys_values());
        json["mlp_bias"] = json!(config.bias.on_feed_forward());
        json
    }

    fn stored(&self, path: &str, dims: &[usize], config: &ModelConfig) -> Stored {
        stored(path, dims, config)
    }

    fn other_name<'a>(&self, name: &'a str) -> Option<&'a str> {
        other_name(name)
    }

    fn is_buffer(&self, name: &str) -> bool {
        is_buffer(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::read_config;
    use crate::{Activation, Error, RotaryScaling};
    use std::path::Path;

    fn read(json: &Value) -> Result<ModelConfig, Error> {
        read_config(json, Path::new("config.json"), &[]).map(|(_, config)| config)
    }

    /// The `config.json` of SmolLM2-135M-Instruct on the hub, as transformers 4.42 wrote it.
    fn smollm2() -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
            "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576,
            "initializer_range": 0.041666666666666664, "intermediate_size": 1536, "is_llama_config": true,
            "max_position_embeddings": 8192, "mlp_bias": false, "model_type": "llama",
            "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2,
            "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
            "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
            "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}},
            "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 49152,
        })
    }

    #[test]
    fn the_shape_of_smollm2_is_read() {
        let config = read(&smollm2()).unwrap();
        assert_eq!((config.d_head(), config.n_kv_heads(), config.d_rotary()), (64, 3, 64));
        assert_eq!(config.heads, Heads { n_kv_heads: Some(3), d_head: None, qk_norm: false });
        assert_eq!(config.positions, Positions::Rotary { theta: 1e5, share: 1.0, scaling: None });
        assert_eq!((config.activation, config.norm_eps), (Activation::Silu, 1e-5));
        assert!(config.tie_head && config.bias == Bias::None);
        // 49,152 × 576 numbers of the embedding and 30 × 3,538,944 of the blocks.
        assert_eq!(config.n_matrix_params(), Some(134_479_872));
        assert_eq!(read(&Llama.write_config(&config)).unwrap(), config);
    }

    #[test]
    fn every_kind_of_llama_survives_its_config_json() {
        let smollm2 = read(&smollm2()).unwrap();
        let llama3 = RotaryScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192,
        };
        for config in [
            ModelConfig { bias: Bias::Attention, tie_head: false, ..smollm2.clone() },
            ModelConfig { bias: Bias::All, attention_dropout: 0.1, ..smollm2.clone() },
            ModelConfig {
                heads: Heads { d_head: Some(40), ..Heads::default() },
                activation: Activation::GeluTanh,
                positions: Positions::Rotary { theta: 5e5, share: 0.5, scaling: Some(llama3) },
                ..smollm2.clone()
            },
        ] {
            assert_eq!(crate::families::of(&config).model_type(), "llama");
            assert_eq!(read(&Llama.write_config(&config)).unwrap(), config);
        }
    }

    #[test]
    fn fields_that_would_change_the_numbers_are_refused_by_name() {
        for (key, value, says) in [
            ("rope_interleaved", json!(true), "`rope_interleaved: true` is not supported"),
            ("mlp_bias", json!(true), "`mlp_bias: true`"),
            ("sliding_window", json!(512), "`sliding_window` of 512"),
            ("layer_types", json!(["full_attention", "sliding_attention"]), "`layer_types`"),
            ("rope_scaling", json!({"type": "dynamic", "factor": 2.0}), "rope_type `dynamic`"),
            ("hidden_act", json!("relu2"), "`relu2`"),
            ("num_key_value_heads", json!(2), "n_kv_heads"),
            ("num_key_value_heads", json!("3"), "`num_key_value_heads` must be a count"),
            ("hidden_size", json!(577), "n_heads"),
            ("embedding_multiplier", json!(12.0), "`embedding_multiplier`"),
            ("quantization_config", json!({"bits": 4}), "`quantization_config`"),
        ] {
            let mut json = smollm2();
            json[key] = value;
            let error = read(&json).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    /// Mistral 7B v0.1 looks at 4,096 tokens of 32,768; v0.3 at all of them.
    #[test]
    fn a_mistral_is_read_if_its_window_covers_the_context() {
        let mut json = smollm2();
        json["model_type"] = json!("mistral");
        for window in [Value::Null, json!(8192)] {
            json["sliding_window"] = window;
            assert_eq!(read(&json).unwrap(), read(&smollm2()).unwrap());
        }
        json["sliding_window"] = json!(4096);
        assert!(read(&json).unwrap_err().to_string().contains("`sliding_window` of 4096"));
        json.as_object_mut().unwrap().remove("sliding_window");
        assert!(read(&json).unwrap_err().to_string().contains("`sliding_window` of 4096"));
    }
}
