//! `temper generate`

use std::io::BufRead;

use anyhow::{Context, Result};
use serde_json::json;
use temper_assistant::{Assistant, BATCH_SIZE, PromptFault, Sampling, batch_seed};
use temper_data::PromptRow;
use temper_tokenizer::Prompt;

use crate::args::GenerateArgs;
use crate::commands::{Outcome, print_json, print_line};
use crate::device;
use crate::failure::{hint_of_prompt, hinted};
use crate::lines::next_line;
use crate::session::Session;

pub fn run(session: &Session, args: &GenerateArgs) -> Result<Outcome> {
    let sampling = args.sampling.of_model(&args.model)?;
    let seed = session.seed.unwrap_or(0);
    let device = device::open(session.device_name())?;
    let assistant = Assistant::load_with(&args.model, &device, &args.load.options())?;
    if let Some(prompt) = &args.prompt {
        let tokens = assistant.encode(prompt)?;
        print_answers(&assistant, &[(prompt.as_str().into(), tokens)], &sampling, seed, args.json)?;
        return Ok(Outcome::Done);
    }
    if !args.data.is_empty() {
        return answer_rows(session, args, &assistant, &sampling, seed);
    }
    let mut input = std::io::stdin().lock();
    let (mut n_lines, mut n_bad, mut batch) = (0, 0, 0);
    let encode = |prompt: &str| assistant.encode(prompt);
    while let Some(prompts) = next_prompts(&mut input, &encode, &mut n_lines, &mut n_bad)? {
        print_answers(&assistant, &prompts, &sampling, batch_seed(seed, batch), args.json)?;
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

/// Answers the rows of data files. All of them are encoded before the first is answered, because a program may be
/// reading the output.
fn answer_rows(
    session: &Session,
    args: &GenerateArgs,
    assistant: &Assistant,
    sampling: &Sampling,
    seed: u64,
) -> Result<Outcome> {
    let rows = session.rows::<PromptRow>(&args.data, args.read())?.into_placed();
    let encode = |row: &PromptRow| {
        assistant.encode(&row.prompt).map_err(|fault| (fault.to_string(), hint_of_prompt(&fault)))
    };
    let rows = session.encode_rows(rows.collect(), args.skip_bad_rows, encode)?;
    let prompts: Vec<EncodedPrompt> = rows.into_iter().map(|(_, row, tokens)| (row.prompt, tokens)).collect();
    for (batch, prompts) in prompts.chunks(BATCH_SIZE).enumerate() {
        print_answers(assistant, prompts, sampling, batch_seed(seed, batch as u64), args.json)?;
    }
    Ok(Outcome::Done)
}

/// A prompt as text and as ids.
type EncodedPrompt = (Prompt, Vec<u32>);

/// The prompts of the next lines; `None` at the end of the input. A line that the model cannot answer is reported and
/// counted.
fn next_prompts(
    input: &mut impl BufRead,
    encode: &impl Fn(&str) -> Result<Vec<u32>, PromptFault>,
    n_lines: &mut usize,
    n_bad: &mut usize,
) -> Result<Option<Vec<EncodedPrompt>>> {
    let first = *n_lines;
    let mut prompts = Vec::new();
    while *n_lines - first < BATCH_SIZE {
        let Some(line) = next_line(input).context("standard input")? else { break };
        *n_lines += 1;
        let prompt = line.text().and_then(|text| match encode(&text) {
            Ok(tokens) => Ok((text.into(), tokens)),
            Err(fault) => Err(fault.to_string()),
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

fn print_answers(
    assistant: &Assistant,
    prompts: &[EncodedPrompt],
    sampling: &Sampling,
    seed: u64,
    as_json: bool,
) -> Result<()> {
    for answer in assistant.answer_batch(prompts, sampling, seed)? {
        if as_json {
            print_json(&json!({
                "prompt": answer.prompt,
                "completion": answer.text,
                "tokens": answer.tokens,
                "logprobs": answer.logprobs,
                "finish_reason": if answer.ended { "stop" } else { "length" },
            }))?;
        } else {
            print_line(&answer.text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_is_read_a_batch_at_a_time() {
        // An input without an end; only what is needed is taken.
        let mut input = std::io::BufReader::with_capacity(64, Endless);
        let (mut n_lines, mut n_bad) = (0, 0);
        let encode = |text: &str| Ok(vec![text.len() as u32]);
        for batch in 1..=3 {
            let prompts = next_prompts(&mut input, &encode, &mut n_lines, &mut n_bad).unwrap().unwrap();
            assert_eq!((prompts.len(), n_lines, n_bad), (BATCH_SIZE, batch * BATCH_SIZE, 0));
            assert_eq!(prompts[0], ("hi".into(), vec![2]));
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
