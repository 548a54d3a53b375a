//! `temper generate`

use std::io::BufRead;

use anyhow::{Context, Result, bail};
use serde_json::json;
use temper_model::{CausalLm, Completion, Finish, GenerateOptions, ModelConfig, Sampler, generate};

use crate::answers::{BATCH_SIZE, fault, not_a_number};
use crate::args::{GenerateArgs, SamplingArgs};
use crate::commands::{Outcome, print_json, print_line};
use crate::device;
use crate::failure::hinted;
use crate::lines::next_line;
use crate::session::Session;
use crate::text::{TextSide, load_policy};

/// Temperatures between which logits that are divided by them, in 32-bit floats, still are numbers that differ.
const TEMPERATURES: std::ops::RangeInclusive<f64> = 1e-4..=1e4;

/// Most bytes for the keys and values of one batch. They are reserved before the first token.
const MOST_CACHE_BYTES: u64 = 64 << 30;

pub fn run(session: &Session, args: &GenerateArgs) -> Result<Outcome> {
    let options = options(&args.sampling, session.seed.unwrap_or(0))?;
    let device = device::open(session.device_name())?;
    let (model, text) = load_policy(&args.model, &device)?;
    let context = model.config().max_seq_len;
    let encode = |prompt: &str| {
        let row = text.template.encode_prompt(&text.tokenizer, prompt);
        fault(&row, context).map_or(Ok(row), Err)
    };
    if let Some(prompt) = &args.prompt {
        let row = encode(prompt).map_err(|(message, hint)| hinted(message, hint))?;
        print_completions(args, &model, &text, &options, &[(prompt.clone(), row)])?;
        return Ok(Outcome::Done);
    }
    let mut input = std::io::stdin().lock();
    let (mut n_lines, mut n_bad, mut batch) = (0, 0, 0);
    loop {
        let Some(prompts) = next_prompts(&mut input, &encode, &mut n_lines, &mut n_bad)? else { break };
        let options = GenerateOptions { seed: options.seed.wrapping_add(batch << 32), ..options.clone() };
        print_completions(args, &model, &text, &options, &prompts)?;
        batch += 1;
    }
    if n_bad > 0 {
        return Err(hinted(
            format!("{n_bad} of the {n_lines} lines of standard input could not be answered"),
            "the messages above name each line; the others were answered",
        ));
    }
    Ok(Outcome::Done)
}

/// A prompt as text and as ids.
type EncodedPrompt = (String, Vec<u32>);

/// The prompts of the next lines; `None` at the end of the input. A line that this model cannot complete is reported
/// and counted.
fn next_prompts(
    input: &mut impl BufRead,
    encode: &impl Fn(&str) -> Result<Vec<u32>, (String, &'static str)>,
    n_lines: &mut usize,
    n_bad: &mut usize,
) -> Result<Option<Vec<EncodedPrompt>>> {
    let first = *n_lines;
    let mut prompts = Vec::new();
    while *n_lines - first < BATCH_SIZE {
        let Some(line) = next_line(input).context("standard input")? else { break };
        *n_lines += 1;
        let prompt = line.text().and_then(|text| match encode(&text) {
            Ok(row) => Ok((text, row)),
            Err((message, _)) => Err(message),
        });
        match prompt {
            Ok(prompt) => prompts.push(prompt),
            Err(message) => {
                *n_bad += 1;
                tracing::error!("standard input:{n_lines}: {message}");
            }
        }
    }
    Ok((*n_lines > first).then_some(prompts))
}

fn print_completions(
    args: &GenerateArgs,
    model: &CausalLm,
    text: &TextSide,
    options: &GenerateOptions,
    prompts: &[EncodedPrompt],
) -> Result<()> {
    let rows: Vec<Vec<u32>> = prompts.iter().map(|(_, row)| row.clone()).collect();
    for ((prompt, _), completion) in prompts.iter().zip(complete(model, text, &rows, options)?) {
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
    Ok(())
}

/// Flags to options; the end token is filled in by [`complete`].
pub fn options(args: &SamplingArgs, seed: u64) -> Result<GenerateOptions> {
    if !TEMPERATURES.contains(&args.temperature) {
        return Err(hinted(
            format!("`--temperature` must be a number from 0.0001 to 10000, got {}", args.temperature),
            "`--greedy` takes the most likely token, as a temperature of 0 would",
        ));
    }
    if !(0.0..=1.0).contains(&args.top_p) {
        bail!("`--top-p` must be between 0 and 1, got {}", args.top_p);
    }
    let (temperature, top_k, top_p) = (args.temperature, args.top_k, args.top_p);
    let sampler = if args.greedy { Sampler::Greedy } else { Sampler::Random { temperature, top_k, top_p } };
    Ok(GenerateOptions { max_new_tokens: args.max_new_tokens, sampler, seed, ..GenerateOptions::default() })
}

/// Completes encoded prompts that have passed [`fault`].
///
/// # Errors
/// Answers for which there cannot be enough memory, and a model whose log-probabilities are not numbers.
pub fn complete(
    model: &CausalLm,
    text: &TextSide,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<Vec<Completion>> {
    // Longer answers than the context do not exist; their length would only be reserved.
    let max_new_tokens = options.max_new_tokens.min(model.config().max_seq_len);
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    check_memory(model.config(), prompts.len(), longest, max_new_tokens)?;
    let options = GenerateOptions {
        eos: text.tokenizer.special().eos,
        n_tokens: text.tokenizer.vocab_size(),
        max_new_tokens,
        ..options.clone()
    };
    match generate(model, prompts, &options) {
        Err(temper_model::Error::NonFiniteOutput) => {
            Err(not_a_number(text, "gives logits that are not finite numbers"))
        }
        completions => Ok(completions?),
    }
}

/// Refuses a cache that no machine has room for: to reserve it would end the program.
fn check_memory(config: &ModelConfig, n_prompts: usize, longest: usize, max_new_tokens: usize) -> Result<()> {
    let n_columns = (longest + max_new_tokens) as u64;
    let bytes_per_column = (2 * size_of::<f32>() * config.n_layers * config.d_model) as u64;
    let bytes = bytes_per_column.saturating_mul(n_columns).saturating_mul(n_prompts as u64);
    if bytes > MOST_CACHE_BYTES {
        return Err(hinted(
            format!(
                "{n_prompts} answers of up to {max_new_tokens} tokens at once would need {} GiB of memory",
                bytes >> 30
            ),
            "lower `--max-new-tokens`",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_beyond_all_memory_is_refused_before_it_is_reserved() {
        let config = ModelConfig { max_seq_len: 1 << 20, ..ModelConfig::preset("medium").unwrap() };
        check_memory(&config, 1, 100, 1 << 20).unwrap();
        let error = check_memory(&config, 64, 100, 1 << 20).unwrap_err().to_string();
        assert!(error.contains("64 answers of up to 1048576 tokens at once would need"), "{error}");
    }

    #[test]
    fn standard_input_is_read_a_batch_at_a_time() {
        // An input without an end; only what is needed is taken.
        let mut input = std::io::BufReader::with_capacity(64, Endless);
        let (mut n_lines, mut n_bad) = (0, 0);
        let encode = |text: &str| Ok(vec![text.len() as u32]);
        for batch in 1..=3 {
            let prompts = next_prompts(&mut input, &encode, &mut n_lines, &mut n_bad).unwrap().unwrap();
            assert_eq!((prompts.len(), n_lines, n_bad), (BATCH_SIZE, batch * BATCH_SIZE, 0));
            assert_eq!(prompts[0], ("hi".to_owned(), vec![2]));
        }
    }

    /// `yes hi`.
    struct Endless;

    impl std::io::Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = buffer.len() / 3 * 3;
            buffer[..n].as_chunks_mut::<3>().0.fill(*b"hi\n");
            Ok(n)
        }
    }
}
