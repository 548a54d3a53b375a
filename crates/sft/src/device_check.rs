//! Whether a device computes what another does: a driver or a kernel may be wrong without an error.

use std::sync::mpsc;

use burn::tensor::Device;
use temper_data::{Demonstration, Demonstrations, Encoding};
use temper_model::{CausalLm, Completion, GenerateOptions, ModelConfig, Sampler, generate};
use temper_tensor::{floats, values_of};
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::{AdamWConfig, BatchingConfig, Event, Run, Seed, TrainingConfig};

use crate::{Error, SftConfig, train};

/// The greatest difference between two devices in something that both computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What was computed, in a few words.
    pub what: &'static str,
    /// The greatest difference; infinite where a number is missing or is not one.
    pub difference: f64,
    /// The greatest difference that rounding explains.
    pub tolerance: f64,
}

impl Comparison {
    /// Whether rounding explains the difference.
    pub fn is_met(&self) -> bool {
        self.difference <= self.tolerance
    }

    fn new(what: &'static str, tolerance: f64, found: &[f64], expected: &[f64]) -> Self {
        let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
        let difference =
            difference.fold(0.0, |most: f64, d| if d.is_nan() { f64::INFINITY } else { most.max(d) });
        let is_whole = found.len() == expected.len();
        Self { what, difference: if is_whole { difference } else { f64::INFINITY }, tolerance }
    }
}

/// Compares a product of matrices, 15 updates of SFT, and a text that the trained model completes.
///
/// The product has 256 terms for each number, so that arithmetic with a shorter mantissa than that of `f32`, such as TF32,
/// is found out. The model has learned its text when it completes it, so that rounding decides no token.
///
/// # Errors
/// A loss that is not finite on one of the devices.
pub fn compare_devices(device: &Device, reference: &Device) -> Result<Vec<Comparison>, Error> {
    let of_products = Comparison::new("matrix product", 1e-3, &product(device), &product(reference));
    let (found, expected) = (updates(device)?, updates(reference)?);
    Ok(vec![
        of_products,
        Comparison::new("losses of 15 updates", 1e-3, &found.losses, &expected.losses),
        Comparison::new("log of their gradient norms", 1e-2, &found.log_norms, &expected.log_norms),
        completions(&found.completion, &expected.completion),
    ])
}

/// The numbers of a product of two matrices with 256 rows and columns.
fn product(device: &Device) -> Vec<f64> {
    let n = 256;
    let matrix = |step: f32| {
        let values = (0..n * n).map(|i| (i as f32 * step).sin()).collect();
        floats::<2>(values, [n, n], device)
    };
    values_of(matrix(0.37).matmul(matrix(0.73))).into_iter().map(f64::from).collect()
}

/// What 15 updates reported, and what the model completes after them.
struct Updates {
    losses: Vec<f64>,
    log_norms: Vec<f64>,
    completion: Completion,
}

fn updates(device: &Device) -> Result<Updates, Error> {
    let text = TextSide::new(Tokenizer::byte(), Template::notebook());
    let row = |prompt: &str, completion: &str| Demonstration {
        prompt: prompt.into(),
        completion: completion.into(),
    };
    // Of one length, because a card compiles its kernels for each, and with one answer, which is soon learned.
    let rows = ["one", "two"].map(|prompt| row(prompt, "a short answer"));
    let data = Demonstrations::new(&rows, &Encoding::new(&text, 64))?;
    let preset = ModelConfig::preset("tiny")?;
    let model = CausalLm::new(&preset, &mut Seed(0).stream("init"), device);
    let training = TrainingConfig {
        max_steps: 15,
        epochs: 15,
        batch_size: 2,
        learning_rate: 1e-2,
        // Adam divides a gradient by its own size, and would make rounding errors as large as any: ε keeps them small.
        optimizer: AdamWConfig { epsilon: 1e-3, ..AdamWConfig::default() },
        ..SftConfig::default().training
    };
    // Microbatches, so that gradients are added up as well.
    let batching = BatchingConfig { microbatch_size: 1, ..BatchingConfig::default() };
    let config = SftConfig { training, batching, ..SftConfig::default() };
    let (tell, told) = mpsc::channel();
    let mut run = Run::ephemeral()?.with_observer(move |event| {
        if let Event::Step { metrics, .. } = event {
            let number = |name: &str| metrics.get(name).and_then(serde_json::Value::as_f64);
            tell.send((number("loss"), number("grad_norm"))).ok();
        }
    });
    let model = train(&config, model, &text, &data, None, &mut run)?;
    drop(run);
    let (losses, norms): (Vec<_>, Vec<_>) = told.into_iter().unzip();
    let numbers = |values: Vec<Option<f64>>| values.into_iter().map(|x| x.unwrap_or(f64::NAN));
    let first = &data.examples[1];
    let options = GenerateOptions {
        max_new_tokens: first.tokens.len() - first.prompt_len,
        sampler: Sampler::Greedy,
        ..GenerateOptions::default()
    };
    let mut completions = generate(&model, &[first.tokens[..first.prompt_len].to_vec()], &options)?;
    Ok(Updates {
        losses: numbers(losses).collect(),
        log_norms: numbers(norms).map(f64::ln).collect(),
        completion: completions.remove(0),
    })
}

/// Other tokens are an infinite difference.
fn completions(found: &Completion, expected: &Completion) -> Comparison {
    let numbers = |completion: &Completion| completion.logprobs.iter().map(|&x| f64::from(x)).collect();
    let found_numbers: Vec<f64> = if found.tokens == expected.tokens { numbers(found) } else { Vec::new() };
    Comparison::new("decoded tokens and their log-probabilities", 1e-3, &found_numbers, &numbers(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The model must have learned, or rounding could decide a token, and all numbers must be there.
    #[test]
    fn a_device_agrees_with_itself_after_it_has_learned_its_texts() {
        let device = Device::flex();
        let comparisons = compare_devices(&device, &device).unwrap();
        assert!(comparisons.iter().all(|comparison| comparison.difference == 0.0), "{comparisons:?}");
        let updates = updates(&device).unwrap();
        assert_eq!((updates.losses.len(), updates.log_norms.len()), (15, 15));
        assert!(updates.losses[14] < 0.5, "{:?}", updates.losses);
        let text = Tokenizer::byte().decode(&updates.completion.tokens);
        assert!(text.starts_with("a short answer"), "{text}");
    }

    #[test]
    fn other_tokens_missing_numbers_and_numbers_that_are_none_are_no_rounding() {
        let completion = |tokens: &[u32]| Completion {
            tokens: tokens.to_vec(),
            logprobs: vec![-0.5; tokens.len()],
            finish: temper_model::Finish::Length,
        };
        assert!(completions(&completion(&[5, 6]), &completion(&[5, 6])).is_met());
        assert!(!completions(&completion(&[5, 7]), &completion(&[5, 6])).is_met());
        let comparison = |found: &[f64], expected: &[f64]| Comparison::new("", 0.1, found, expected);
        assert!(comparison(&[1.0, 2.05], &[1.0, 2.0]).is_met());
        for (found, expected) in [(&[1.0][..], &[1.0, 2.0][..]), (&[f64::NAN], &[1.0]), (&[1.2], &[1.0])] {
            assert!(!comparison(found, expected).is_met());
        }
    }
}
