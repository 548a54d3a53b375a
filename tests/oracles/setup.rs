//! Small models, their data, and what a run left.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::tensor::{Device, Tensor};
use safetensors::SafeTensors;
use temper_data::{Comparison, Demonstration, Demonstrations, EncodedPrompt, Encoding, Prompts, Rankings};
use temper_model::{CausalLm, ModelConfig, Pooling, ScalarModel};
use temper_ppo::{MissingEos, PpoConfig};
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::{Event, Run, Seed};

/// Numbers between −`height` and `height` that float32 holds exactly.
pub fn wave(n: usize, height: f64) -> Vec<f64> {
    (0..n).map(|i| f64::from(((1.3 * i as f64 + 0.4).sin() * height) as f32)).collect()
}

/// A tensor's numbers, off the tape.
pub fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.inner().into_data().as_slice::<f32>().unwrap().iter().map(|&v| f64::from(v)).collect()
}

/// Two blocks, 32 wide, over bytes.
pub fn byte_model(dropout: f64) -> CausalLm {
    let config =
        ModelConfig { dropout, attention_dropout: dropout, ..ModelConfig::preset("gpt2-tiny").unwrap() };
    CausalLm::new(&config, &mut Seed(1).stream("init"), &Device::flex())
}

pub fn reward_model(pooling: Pooling, dropout: f64) -> ScalarModel {
    ScalarModel::new(byte_model(dropout).transformer, pooling, &mut Seed(2).stream("head"))
}

/// One block, 32 wide, over 16 tokens.
pub fn toy_model(seed: u64) -> CausalLm {
    let config = ModelConfig {
        vocab_size: 16,
        max_seq_len: 48,
        n_layers: 1,
        tie_head: false,
        ..ModelConfig::preset("gpt2-tiny").unwrap()
    };
    CausalLm::new(&config, &mut Seed(seed).stream("init"), &Device::flex())
}

/// A model that gives every token the same logits wherever it is.
///
/// The last norm is turned into a constant 1 in each of d dimensions, the head's column of a token into logit / d.
pub fn constant_model(logits: [f64; 16]) -> CausalLm {
    let mut model = toy_model(0);
    let norm = model.transformer.final_norm.as_mut().unwrap();
    norm.gamma = norm.gamma.clone().map(|gamma| gamma * 0.0);
    norm.beta = norm.beta.clone().map(|beta| beta.map(|beta| beta * 0.0 + 1.0));
    let head = model.lm_head.as_mut().unwrap();
    head.weight = head.weight.clone().map(|weight| {
        let [d_model, _] = weight.dims();
        let row = logits.map(|logit| (logit / d_model as f64) as f32);
        weight * 0.0 + Tensor::<1>::from_data(row, &Device::flex()).unsqueeze::<2>()
    });
    model
}

/// Demonstrations of very different lengths.
pub fn demonstrations() -> Demonstrations {
    let completions = ["a", "bc", "a longer answer, by far", "", "four", "of some length", "e"];
    let rows = completions.map(|completion| Demonstration {
        prompt: format!("say {}", completion.len()).into(),
        completion: completion.into(),
    });
    let text = TextSide::new(Tokenizer::byte(), Template::notebook());
    Demonstrations::new(&rows, &Encoding::new(&text, 128)).unwrap()
}

/// Comparisons of very different lengths.
pub fn comparisons() -> Rankings {
    let pairs = [
        ("yes", "n"),
        ("a rather long and polite answer", "no"),
        ("", "x"),
        ("ab", "a long bad one"),
        ("c", "d"),
    ];
    let rows = pairs.map(|(chosen, rejected)| Comparison::pair("really?", chosen, rejected));
    let text = TextSide::new(Tokenizer::byte(), Template::notebook());
    Rankings::new(&rows, &Encoding::new(&text, 128)).unwrap()
}

/// Prompts as ids: what a toy model reads.
pub fn prompts<const N: usize>(rows: [&[u32]; N]) -> Prompts {
    let prompts = rows.map(|row| EncodedPrompt::new("", row.to_vec()));
    Prompts::from(prompts.to_vec())
}

/// PPO on a toy model: no penalty of any kind, no text.
pub fn toy_config(batch_size: usize, max_new_tokens: usize) -> PpoConfig {
    let mut config = PpoConfig::default();
    (config.training.batch_size, config.training.epochs) = (batch_size, 100_000);
    config.rollout.max_new_tokens = max_new_tokens;
    config.rollout.missing_eos = MissingEos::Keep;
    config.kl.coef = 0.0;
    config
}

/// Every warning of a run, and every line of its metrics.
#[derive(Clone, Default)]
pub struct Log {
    pub warnings: Arc<Mutex<Vec<String>>>,
    pub rows: Arc<Mutex<Vec<serde_json::Map<String, serde_json::Value>>>>,
}

impl Log {
    pub fn watch(&self, run: Run) -> Run {
        let log = self.clone();
        run.with_observer(move |event| match event {
            Event::Warning { message } => log.warnings.lock().unwrap().push(message.to_owned()),
            Event::Step { metrics, .. } => log.rows.lock().unwrap().push(metrics.clone()),
            _ => {}
        })
    }

    pub fn column(&self, key: &str) -> Vec<f64> {
        let number = |row: &serde_json::Map<String, serde_json::Value>| row[key].as_f64().unwrap();
        self.rows.lock().unwrap().iter().map(number).collect()
    }

    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap().clone()
    }
}

/// Every weight of a `model.safetensors`, by name.
pub fn weights(dir: &Path) -> BTreeMap<String, Vec<f64>> {
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let read = |data: &[u8]| data.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors.iter().map(|(name, view)| (name.to_owned(), read(view.data()))).collect()
}
