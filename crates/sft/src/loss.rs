//! The loss of SFT.

use burn::tensor::{Device, Int, Tensor};
use temper_model::{CausalLm, Dropout, TargetLogits, TargetRow};
use temper_tokenizer::Example;

/// Mean negative log-likelihood of the target tokens, in nats (InstructGPT section 3.5, supervised fine-tuning).
///
/// # Shapes
/// - `logits`: `[n, vocab]`, one row per target
/// - `targets`: `[n]`
/// - output: `[1]`; gradients flow into `logits`
pub fn sft_loss(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    temper_model::nll(logits, targets)
}

/// Logits and targets of every completion token of some examples.
pub fn completion_logits(
    model: &CausalLm,
    examples: &[&Example],
    device: &Device,
    dropout: &mut Dropout,
) -> TargetLogits {
    let rows: Vec<TargetRow<'_>> = examples
        .iter()
        .map(|example| TargetRow {
            tokens: &example.tokens,
            first: example.prompt_len,
            except: &example.between,
        })
        .collect();
    TargetLogits::new(model, &rows, device, dropout)
}
