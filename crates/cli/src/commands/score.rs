//! `temper score`

use anyhow::Result;
use serde_json::Value;
use temper_data::{Answer, WithColumns, read_rows};
use temper_tokenizer::Example;

use crate::answers::{BATCH_SIZE, not_a_number};
use crate::args::DataArgs;
use crate::commands::{Outcome, print_json};
use crate::device;
use crate::failure::hinted;
use crate::session::{Session, bad_rows};
use crate::text::load_reward_model;

pub fn run(session: &Session, args: &DataArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    let (model, text) = load_reward_model(&args.model, &device)?;
    let rows = read_rows::<WithColumns<Answer>>(&args.data, bad_rows(args.skip_bad_rows))?;
    session.note_count(rows.n_skipped(), "rows could not be read and were skipped");
    let context = model.config().max_seq_len;
    // All of them before the first score, since a program may be reading the output.
    let mut encoded = Vec::with_capacity(rows.records.len());
    let mut n_skipped = 0;
    for (place, row) in rows.into_placed() {
        let Answer { prompt, completion, ended } = &row.record;
        let mut tokens = text.template.encode_prompt(&text.tokenizer, prompt);
        let prompt_len = tokens.len();
        tokens.extend(text.template.encode_answer(&text.tokenizer, completion, *ended));
        let fault = if tokens.len() > context {
            Some((
                format!("{} tokens, longer than the model's context of {context} tokens", tokens.len()),
                "shorten the row, leave such rows out with `--skip-bad-rows`, or use a model with a longer context",
            ))
        } else if tokens.is_empty() {
            Some(("the tokenizer has no token for this row".into(), "a score is read at the last token"))
        } else {
            None
        };
        match fault {
            None => encoded.push((place, row.columns, Example { tokens, prompt_len, n_cut: 0 })),
            Some(_) if args.skip_bad_rows => n_skipped += 1,
            Some((message, hint)) => return Err(hinted(format!("{place}: {message}"), hint)),
        }
    }
    session.note_count(n_skipped, "rows do not fit into the model's context and were skipped");
    for part in encoded.chunks(BATCH_SIZE) {
        let examples: Vec<&Example> = part.iter().map(|(.., example)| example).collect();
        let scores = temper_reward::score(&model, &examples, BATCH_SIZE);
        for ((place, row, _), score) in part.iter().zip(scores) {
            if !score.is_finite() {
                return Err(not_a_number(&text, &format!("scores {place} as {score}")));
            }
            let mut row = row.clone();
            row.insert("score".into(), Value::from(score));
            print_json(&row)?;
        }
    }
    Ok(Outcome::Done)
}
