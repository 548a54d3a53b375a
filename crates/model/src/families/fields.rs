//! The fields of a `config.json`, and which of them a family has understood.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;

use crate::config::Activation;

/// Fields that change nothing of what a model computes from its tokens, whatever their value: names, types of numbers,
/// fresh weights, heads that Temper does not build, and how transformers generates. So do all `…_token_id`.
const WITHOUT_EFFECT: [&str; 65] = [
    "_name_or_path",
    "architectures",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "model_type",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "output_scores",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "suppress_tokens",
    "task_specific_params",
    "temper",
    "temper_pooling",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_return_dict",
    "xla_device",
];

/// Fields of any model that are understood at one value, which changes nothing.
const INERT_AT: [(&str, &[Inert]); 6] = [
    ("add_cross_attention", &[Inert::False]),
    ("cross_attention_hidden_size", &[]),
    ("is_encoder_decoder", &[Inert::False]),
    ("pruned_heads", &[Inert::Empty]),
    ("quantization_config", &[]),
    ("tie_encoder_decoder", &[Inert::False]),
];

/// A value in addition to `null` at which a field changes nothing.
#[derive(Clone, Copy, PartialEq)]
enum Inert {
    False,
    Empty,
}

/// A `config.json` that a family reads field by field. What it never asks for is not understood: [`Fields::unknown`].
///
/// Every reader takes `null` for a missing field, and its error names the field and what it holds.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    json: &'a Value,
    /// What comes before the name of a field in an error: `rope_parameters.` in that object.
    prefix: String,
    known: RefCell<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(json: &'a Value) -> Self {
        Self { json, prefix: String::new(), known: RefCell::default() }
    }

    /// Whatever a field holds.
    pub(crate) fn value(&self, key: &str) -> &'a Value {
        self.known.borrow_mut().insert(key.to_owned());
        &self.json[key]
    }

    /// Whether the file lacks this field. A field whose value is `null` is there.
    pub(crate) fn is_missing(&self, key: &str) -> bool {
        self.json.get(key).is_none()
    }

    fn wrong(&self, key: &str, kind: &str) -> String {
        format!("`{}{key}` must be {kind}, not {}", self.prefix, self.json[key])
    }

    /// A count that must be there.
    pub(crate) fn count(&self, key: &str) -> Result<usize, String> {
        self.optional_count(key)?.ok_or_else(|| format!("`{}{key}` is missing", self.prefix))
    }

    /// A count.
    pub(crate) fn optional_count(&self, key: &str) -> Result<Option<usize>, String> {
        match self.value(key) {
            Value::Null => Ok(None),
            value => match value.as_u64() {
                Some(n) => Ok(Some(usize::try_from(n).unwrap_or(usize::MAX))),
                None => Err(self.wrong(key, "a count")),
            },
        }
    }

    /// A number, or `default`.
    pub(crate) fn number(&self, key: &str, default: f64) -> Result<f64, String> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    /// A number.
    pub(crate) fn optional_number(&self, key: &str) -> Result<Option<f64>, String> {
        match self.value(key) {
            Value::Null => Ok(None),
            value => value.as_f64().map(Some).ok_or_else(|| self.wrong(key, "a number")),
        }
    }

    /// `true` or `false`, or `default`.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.value(key) {
            Value::Null => Ok(default),
            value => value.as_bool().ok_or_else(|| self.wrong(key, "true or false")),
        }
    }

    /// A name, or `default`.
    pub(crate) fn name(&self, key: &str, default: &'a str) -> Result<&'a str, String> {
        match self.value(key) {
            Value::Null => Ok(default),
            value => value.as_str().ok_or_else(|| self.wrong(key, "a name")),
        }
    }

    /// An activation by its name in transformers, or the one that is called `default`.
    pub(crate) fn activation(&self, key: &str, default: &'a str) -> Result<Activation, String> {
        match self.name(key, default)? {
            "relu" => Ok(Activation::Relu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "silu" => Ok(Activation::Silu),
            other => Err(format!("{key} `{other}` is not supported")),
        }
    }

    /// A flag that must have this value, which is also its default.
    pub(crate) fn only(&self, key: &str, value: bool) -> Result<(), String> {
        if self.flag(key, value)? == value {
            return Ok(());
        }
        Err(format!("`{}{key}: {}` is not supported", self.prefix, !value))
    }

    /// Fields that have no effect on a model of this family.
    pub(crate) fn without_effect(&self, keys: &[&str]) {
        self.known.borrow_mut().extend(keys.iter().map(|&key| key.to_owned()));
    }

    /// The fields of an object that is a field here; `None` if it is not there.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Fields<'a>>, String> {
        match self.value(key) {
            Value::Null => Ok(None),
            json @ Value::Object(_) => {
                Ok(Some(Fields { json, prefix: format!("{}{key}.", self.prefix), known: RefCell::default() }))
            }
            _ => Err(self.wrong(key, "an object")),
        }
    }

    /// Every field of this object that was not asked for, in order.
    pub(crate) fn unread(&self) -> Vec<String> {
        let known = self.known.borrow();
        let fields = self.json.as_object().into_iter().flatten();
        let unread = fields.filter(|(key, _)| !known.contains(*key));
        let mut names: Vec<String> = unread.map(|(key, _)| format!("{}{key}", self.prefix)).collect();
        names.sort_unstable();
        names
    }

    /// The fields of a whole `config.json` that are neither read by the family nor known to change nothing.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let is_inert = |key: &str| {
            let value = &self.json[key];
            let at_value = INERT_AT.iter().find(|(inert, _)| *inert == key);
            key.starts_with('_')
                || key.ends_with("_token_id")
                || WITHOUT_EFFECT.contains(&key)
                || at_value.is_some_and(|(_, values)| value.is_null() || values.iter().any(|v| v.is(value)))
        };
        self.unread().into_iter().filter(|key| !is_inert(key)).collect()
    }
}

impl Inert {
    fn is(self, value: &Value) -> bool {
        match self {
            Self::False => value == &Value::Bool(false),
            Self::Empty => {
                value.as_object().is_some_and(serde_json::Map::is_empty)
                    || value.as_array().is_some_and(Vec::is_empty)
            }
        }
    }
}

/// The name of an activation in transformers.
pub(crate) fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Relu => "relu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_new",
        Activation::Silu => "silu",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_read_inert_or_unknown() {
        let json = json!({
            "width": 8, "share": 0.5, "is_tied": null, "inner": {"a": 1, "b": 2},
            "top_p": 0.9, "unk_token_id": 0, "_private": 1, "pruned_heads": {}, "tie_encoder_decoder": true, "quantization_config": null,
            "new_idea": 3,
        });
        let fields = Fields::new(&json);
        assert_eq!((fields.count("width"), fields.number("share", 1.0)), (Ok(8), Ok(0.5)));
        assert_eq!((fields.flag("is_tied", true), fields.optional_count("depth")), (Ok(true), Ok(None)));
        let inner = fields.object("inner").unwrap().unwrap();
        assert_eq!(inner.count("a"), Ok(1));
        assert_eq!(inner.unread(), ["inner.b"]);
        assert_eq!(fields.unknown(), ["new_idea", "tie_encoder_decoder"]);
        assert!(inner.flag("b", false).unwrap_err().starts_with("`inner.b` must be true or false"));
    }

    #[test]
    fn the_list_of_fields_without_effect_is_sorted() {
        assert!(WITHOUT_EFFECT.is_sorted());
    }
}
