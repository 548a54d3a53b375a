//! `temper generate`

use std::io::BufRead;

use anyhow::{Context, Result};
use serde_json::json;
use temper_model::{CausalLm, Completion, Finish, GenerateOptions, Sampler, generate};

use crate::args::{GenerateArgs, SamplingArgs};
use crate::commands::{Outcome, print_json, print_line};
use crate::device;
use crate::failure::hinted;
use crate::session::Session;
use crate::text::{TextSide, load_policy};

/// Prompts that are completed together.
const BATCH_SIZE: usize = 64;

pub fn run(session: &Session, args: &GenerateArgs) -> Result<Outcome> {
    let options = options(&args.sampling, session.seed.unwrap_or(0))?;
    let device = device::open(session.device_name())?;
    let (model, text) = load_policy(&args.model, &device)?;
    let prompts = match &args.prompt {
        Some(prompt) => vec![prompt.clone()],
        None => std::io::stdin().lock().lines().collect::<Result<_, _>>().context("standard input")?,
    };
    for (i, part) in prompts.chunks(BATCH_SIZE).enumerate() {
        let options =
            GenerateOptions { seed: options.seed.wrapping_add((i as u64) << 32), ..options.clone() };
        for (prompt, completion) in part.iter().zip(complete(&model, &text, part, &options)?) {
            let answer = text.tokenizer.decode(&completion.tokens);
            if args.json {
                print_json(&json!({
                    "prompt": prompt,
                    "completion": answer,
                    "tokens": completion.tokens,
                    "logprobs": completion.logprobs,
                    "finish_reason": if completion.finish == Finish::Stop { "stop" } else { "length" },
                }))?;
            } else {
                print_line(&answer)?;
            }
        }
    }
    Ok(Outcome::Done)
}

/// Flags to options; the end token is filled in by [`complete`].
pub fn options(args: &SamplingArgs, seed: u64) -> Result<GenerateOptions> {
    let refuse = |flag: &str, value: String, expected: &str| {
        Err(hinted(format!("`{flag}` is {value}"), format!("it must be {expected}")))
    };
    if args.temperature.is_nan() || args.temperature <= 0.0 || args.temperature.is_infinite() {
        return refuse("--temperature", args.temperature.to_string(), "a number above 0; `--greedy` for 0");
    }
    if !(0.0..=1.0).contains(&args.top_p) {
        return refuse("--top-p", args.top_p.to_string(), "between 0 and 1");
    }
    let (temperature, top_k, top_p) = (args.temperature, args.top_k, args.top_p);
    let sampler = if args.greedy { Sampler::Greedy } else { Sampler::Random { temperature, top_k, top_p } };
    Ok(GenerateOptions { max_new_tokens: args.max_new_tokens, sampler, seed, ..GenerateOptions::default() })
}

/// Completes text prompts.
///
/// # Errors
/// A prompt without a token, or one that leaves no room.
pub fn complete(
    model: &CausalLm,
    text: &TextSide,
    prompts: &[String],
    options: &GenerateOptions,
) -> Result<Vec<Completion>> {
    let rows: Vec<Vec<u32>> =
        prompts.iter().map(|p| text.template.encode_prompt(&text.tokenizer, p)).collect();
    if rows.iter().any(Vec::is_empty) {
        return Err(hinted(
            "a prompt is empty",
            "this model's template adds nothing to a prompt: give it a text",
        ));
    }
    // Longer answers than the context do not exist; their length would only be reserved.
    let max_new_tokens = options.max_new_tokens.min(model.config().max_seq_len);
    let options = GenerateOptions {
        eos: text.tokenizer.special().eos,
        n_tokens: text.tokenizer.vocab_size(),
        max_new_tokens,
        ..options.clone()
    };
    Ok(generate(model, &rows, &options)?)
}
