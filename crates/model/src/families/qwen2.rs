//! Qwen2 and Qwen2.5 as Hugging Face stores them (Yang et al. 2024; `modeling_qwen2.py` of transformers): a Llama with
//! biases on queries, keys and values.

use serde_json::{Value, json};

use crate::config::{Bias, ModelConfig};
use crate::families::fields::Fields;
use crate::families::{Family, Stored, llama};

/// The family of `model_type: qwen2`.
#[derive(Debug)]
pub(crate) struct Qwen2;

/// Qwen has windows on its last layers, behind a switch; while that is off, their fields have no effect.
pub(super) fn read_window(fields: &Fields<'_>) -> Result<(), String> {
    fields.only("use_sliding_window", false)?;
    fields.only("use_mrope", false)?;
    fields.without_effect(&["sliding_window", "max_window_layers"]);
    Ok(())
}

impl Family for Qwen2 {
    fn model_type(&self) -> &'static str {
        "qwen2"
    }

    fn causal_class(&self) -> &'static str {
        "Qwen2ForCausalLM"
    }

    fn scalar_class(&self) -> &'static str {
        "Qwen2ForSequenceClassification"
    }

    fn describes(&self, config: &ModelConfig) -> bool {
        llama::describes(config)
            && !config.heads.qk_norm
            && config.heads.d_head.is_none()
            && config.bias == Bias::QueriesKeysValues
    }

    /// The biases are in the code of transformers, not in the file.
    fn read_config(&self, fields: &Fields<'_>) -> Result<ModelConfig, String> {
        read_window(fields)?;
        llama::read_shape(fields, Bias::QueriesKeysValues, false)
    }

    fn write_config(&self, config: &ModelConfig) -> Value {
        let mut json = llama::write_shape(config, self.model_type());
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

    /// The `config.json` of Qwen2.5-0.5B on the hub.
    #[test]
    fn the_shape_of_qwen2_is_read() {
        let mut json = json!({
            "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
            "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
            "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24,
            "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24,
            "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
            "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.40.1",
            "use_cache": true, "use_mrope": false, "use_sliding_window": false, "vocab_size": 151936,
        });
        let config = read(&json).unwrap();
        assert_eq!((config.d_head(), config.n_kv_heads(), config.bias), (64, 2, Bias::QueriesKeysValues));
        assert_eq!(crate::families::of(&config).model_type(), "qwen2");
        assert_eq!(read(&Qwen2.write_config(&config)).unwrap(), config);
        json["use_sliding_window"] = json!(true);
        assert!(read(&json).unwrap_err().to_string().contains("`use_sliding_window: true` is not supported"));
    }
}
