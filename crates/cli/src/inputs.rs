//! What a stage is given in addition to its settings, as fingerprints: a resume with other data or models is refused.

use std::path::Path;

use anyhow::Result;
use temper_train::{Inputs, fingerprint_files};

use crate::machine;

/// What of a model directory takes part in a run.
const MODEL_FILES: [&str; 5] =
    ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "template.json"];

/// Fingerprints under their flags; a flag that was not given has none.
pub fn inputs<const N: usize>(backend: &str, given: [(&str, Option<String>); N]) -> Inputs {
    let machine = [("backend", backend.to_owned()), ("threads", machine::threads().to_string())];
    Inputs {
        given: given.into_iter().filter_map(|(flag, found)| Some((flag.to_owned(), found?))).collect(),
        machine: machine.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

/// Of a model directory, or the name of a preset.
pub fn model_fingerprint(spec: &Path) -> Result<String> {
    if !spec.is_dir() {
        return Ok(format!("preset {}", spec.display()));
    }
    Ok(fingerprint_files(spec, &MODEL_FILES)?)
}
