//! Our own decoders: every shape that GPT-2 is not, the notebook's first of all. Weights are named as GPT-2's.

use serde_json::Value;

use crate::config::ModelConfig;
use crate::families::fields::Fields;
use crate::families::{Family, Stored, gpt2};
use crate::init::Start;

/// The family of `model_type: temper`.
#[derive(Debug)]
pub(crate) struct Notebook;

/// As `torch.nn.TransformerEncoderLayer` starts: Xavier-uniform queries, keys and values, uniform ±1/√fan_in for the
/// other matrices and the feed-forward biases, 0 for the biases of attention.
pub(super) fn start(path: &str, dims: &[usize], config: &ModelConfig) -> Start {
    let (owner, kind) = path.rsplit_once('.').unwrap_or(("", path));
    match kind {
        "bias" if owner.contains(".attention.") => Start::Zeros,
        "bias" if owner.ends_with(".mlp.input") => Start::Uniform(1.0 / (config.d_model as f64).sqrt()),
        "bias" => Start::Uniform(1.0 / (config.d_ff as f64).sqrt()),
        // Xavier over the fused matrix, as torch's MultiheadAttention: √(6 / (fan_in + fan_out)).
        _ if owner.ends_with(".attention.input") => Start::Uniform((6.0 / (dims[0] + dims[1]) as f64).sqrt()),
        _ => Start::Uniform(1.0 / (dims[0] as f64).sqrt()),
    }
}

impl Family for Notebook {
    fn model_type(&self) -> &'static str {
        "temper"
    }

    fn causal_class(&self) -> &'static str {
        "TemperCausalLm"
    }

    fn scalar_class(&self) -> &'static str {
        "GPT2ForSequenceClassification"
    }

    fn is_in_transformers(&self) -> bool {
        false
    }

    fn describes(&self, _config: &ModelConfig) -> bool {
        true
    }

    /// The section `temper` says everything; the other fields are there for programs that look for GPT-2's.
    fn read_config(&self, fields: &Fields<'_>) -> Result<ModelConfig, String> {
        let section = fields.value("temper");
        let others = fields.unread();
        fields.without_effect(&others.iter().map(String::as_str).collect::<Vec<_>>());
        serde_json::from_value(section.clone()).map_err(|e| format!("its `temper` section: {e}"))
    }

    fn write_config(&self, config: &ModelConfig) -> Value {
        let mut json = gpt2::write_shape(config, self.model_type());
        json["temper"] = serde_json::to_value(config).expect("a plain struct serialises");
        json
    }

    fn stored(&self, path: &str, dims: &[usize], _config: &ModelConfig) -> Stored {
        gpt2::stored(path, dims)
    }

    fn other_name<'a>(&self, name: &'a str) -> Option<&'a str> {
        gpt2::other_name(name)
    }

    fn is_buffer(&self, name: &str) -> bool {
        gpt2::is_buffer(name)
    }
}
