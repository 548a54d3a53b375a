//! `temper logprobs`

use anyhow::Result;
use burn::tensor::{Tensor, TensorData};
use serde_json::json;
use temper_data::{Demonstration, read_rows};
use temper_model::{CausalLm, Dropout, TokenBatch, log_probs, select_positions, token_logprobs};

use crate::answers::not_a_number;
use crate::args::DataArgs;
use crate::commands::{Outcome, print_json};
use crate::device;
use crate::failure::hinted;
use crate::session::{Session, bad_rows};
use crate::text::load_policy;

pub fn run(session: &Session, args: &DataArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    let (model, text) = load_policy(&args.model, &device)?;
    let rows = read_rows::<Demonstration>(&args.data, bad_rows(args.skip_bad_rows))?;
    session.note_count(rows.n_skipped(), "rows could not be read and were skipped");
    let context = model.config().max_seq_len;
    let mut encoded = Vec::with_capacity(rows.records.len());
    let mut n_skipped = 0;
    for (place, row) in rows.into_placed() {
        let prompt = text.template.encode_prompt(&text.tokenizer, &row.prompt);
        let completion = text.template.encode_completion(&text.tokenizer, &row.completion);
        let len = prompt.len() + completion.len();
        let fault = if len > context {
            Some((
                format!("{len} tokens, the model's context has {context}"),
                "shorten the row, or use a model with a longer context",
            ))
        } else if prompt.is_empty() {
            Some(("the prompt has no tokens".into(), "the first token cannot be predicted"))
        } else {
            None
        };
        match fault {
            None => encoded.push((place, prompt, completion)),
            Some(_) if args.skip_bad_rows => n_skipped += 1,
            Some((message, hint)) => return Err(hinted(format!("{place}: {message}"), hint)),
        }
    }
    session.note_count(n_skipped, "rows do not fit into the model's context and were skipped");
    for (place, prompt, completion) in &encoded {
        let logprobs = completion_logprobs(&model, prompt, completion);
        if let Some(logprob) = logprobs.iter().find(|logprob| !logprob.is_finite()) {
            let what = format!("gives a token of {place} the log-probability {logprob}");
            return Err(not_a_number(&text, &what));
        }
        print_json(&json!({
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "logprobs": logprobs,
        }))?;
    }
    Ok(Outcome::Done)
}

/// Log-probability of each completion token given everything before it.
fn completion_logprobs(model: &CausalLm, prompt: &[u32], completion: &[u32]) -> Vec<f32> {
    if completion.is_empty() {
        return Vec::new();
    }
    let device = model.device();
    let batch = TokenBatch::right_padded(&[[prompt, completion].concat()], &device);
    let hidden = model.transformer.forward(&batch, &mut Dropout::off());
    let positions: Vec<(usize, usize)> = (0..completion.len()).map(|t| (0, prompt.len() - 1 + t)).collect();
    let logprobs = log_probs(model.logits(select_positions(hidden, &positions)), 1.0);
    let targets: Vec<i32> = completion.iter().map(|&t| t as i32).collect();
    let targets = Tensor::from_data(TensorData::new(targets, [completion.len()]), &device);
    let data = token_logprobs(logprobs, targets).into_data();
    data.as_slice::<f32>().expect("the model computes in f32").to_vec()
}
