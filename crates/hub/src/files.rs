//! Which files of a model Temper reads.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::spec::is_file_name;

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const ONE_FILE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Its front matter names the licence. Large ones are left out.
pub(crate) const CARD: &str = "README.md";

/// Files in addition to `tokenizer*.json` and the weights.
const OTHERS: [&str; 10] = [
    CONFIG,
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "template.json",
    "temper.json",
    CARD,
];

/// Weights in formats that Temper does not read.
const OTHER_WEIGHTS: [&str; 5] = [".bin", ".pth", ".pt", ".gguf", ".safetensors"];

/// Whether a file is read for something other than its weights.
pub(crate) fn is_small(name: &str) -> bool {
    OTHERS.contains(&name) || (name.starts_with("tokenizer") && name.ends_with(".json"))
}

/// Files with weights among `names`, for an error.
pub(crate) fn other_weights<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_weights = |name: &&str| OTHER_WEIGHTS.iter().any(|end| name.ends_with(end));
    names.filter(is_weights).take(3).map(str::to_owned).collect()
}

/// The files that an index of weights names, or what is wrong with it.
pub(crate) fn files_of_index(bytes: &[u8]) -> Result<BTreeSet<String>, String> {
    let json: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let map = json["weight_map"].as_object().ok_or("it has no `weight_map`")?;
    let name = |value: &Value| match value.as_str().filter(|name| is_file_name(name)) {
        Some(name) => Ok(name.to_owned()),
        None => Err(format!("{value} is not the name of a file next to it")),
    };
    map.values().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_each_file_once() {
        let files = files_of_index(
            br#"{"weight_map": {"b": "2.safetensors", "a": "1.safetensors", "c": "1.safetensors"}}"#,
        );
        assert_eq!(files.unwrap(), ["1.safetensors".to_owned(), "2.safetensors".to_owned()].into());
        for (bytes, expected) in [
            (&b"<html>"[..], "expected value"),
            (b"{}", "no `weight_map`"),
            (br#"{"weight_map": {"a": "../a"}}"#, "\"../a\" is not the name"),
            (br#"{"weight_map": {"a": 3}}"#, "3 is not the name"),
        ] {
            let problem = files_of_index(bytes).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn only_files_that_temper_reads_are_taken() {
        let names = ["tokenizer.json", "tokenizer_config.json", "config.json", "README.md"];
        assert!(names.into_iter().all(is_small));
        let names = ["tokenizer.model", "model.onnx", "pytorch_model.bin", ONE_FILE, "training_args.bin"];
        assert!(!names.into_iter().any(is_small));
        assert_eq!(other_weights(names.into_iter().chain(["a.md"])).len(), 3);
    }
}
