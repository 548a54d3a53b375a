//! Qwen3 as Hugging Face stores it (Yang et al. 2025; `modeling_qwen3.py` of transformers): a Llama with norms of queries
//! and keys, and a free width of heads. Its models with experts are another family.

use serde_json::{Value, json};

use crate::config::{Bias, ModelConfig};
use crate::families::fields::Fields;
use crate::families::{Family, Stored, llama, qwen2};

/// The family of `model_type: qwen3`.
#[derive(Debug)]
pub(crate) struct Qwen3;

impl Family for Qwen3 {
    fn model_type(&self) -> &'static str {
        "qwen3"
    }

    fn causal_class(&self) -> &'static str {
        "Qwen3ForCausalLM"
    }

    fn scalar_class(&self) -> &'static str {
        "Qwen3ForSequenceClassification"
    }

    fn describes(&self, config: &ModelConfig) -> bool {
        llama::describes(config)
            && config.heads.qk_norm
            && matches!(config.bias, Bias::None | Bias::Attention)
    }

    fn read_config(&self, fields: &Fields<'_>) -> Result<ModelConfig, String> {
        qwen2::read_window(fields)?;
        let has_bias = fields.flag("attention_bias", false)?;
        let mut config =
            llama::read_shape(fields, if has_bias { Bias::Attention } else { Bias::None }, true)?;
        if fields.is_missing("head_dim") {
            // `Qwen3Config` has heads of 128 numbers, whatever the width of the model.
            config.heads.d_head = Some(128).filter(|&width| width * config.n_heads != config.d_model);
        }
        Ok(config)
    }

    fn write_config(&self, config: &ModelConfig) -> Value {
        let mut json = llama::write_shape(config, self.model_type());
        json["attention_bias"] = json!(config.bias == Bias::Attention);
        json["use_sliding_window"] = json!(false);
        json
    }

    fn stored(&self, path: &str, dims: &[usize], config: &ModelConfig) -> Stored {
        llama::stored(path, dims, config)
    }

    fn other_name<'a>(&self, name: &'a str) -> Option<&'a str> {
        llama::other_name(name)
    }

    fn is_buffer(&self, name: &str) -> bool {
        llama::is_buffer(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::families::read_config;
    use std::path::Path;

    fn read(json: &Value) -> Result<ModelConfig, Error> {
        read_config(json, Path::new("config.json"), &[]).map(|(_, config)| config)
    }

    /// The `config.json` of Qwen3-0.6B on the hub.
    #[test]
    fn the_shape_of_qwen3_is_read() {
        let mut json = json!({
            "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
            "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
            "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
            "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
            "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
            "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
            "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.51.0",
            "use_cache": true, "use_sliding_window": false, "vocab_size": 151936,
        });
        let config = read(&json).unwrap();
        assert_eq!((config.d_head(), config.n_kv_heads(), config.d_rotary()), (128, 8, 128));
        assert!(config.heads.qk_norm && config.bias == Bias::None);
        assert_eq!(crate::families::of(&config).model_type(), "qwen3");
        assert_eq!(read(&Qwen3.write_config(&config)).unwrap(), config);
        json.as_object_mut().unwrap().remove("head_dim");
        assert_eq!(read(&json).unwrap(), config);
        let with_bias = ModelConfig { bias: Bias::Attention, ..config };
        assert_eq!(read(&Qwen3.write_config(&with_bias)).unwrap(), with_bias);
    }
}
