//! `temper score`

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Map, Value};
use temper_tokenizer::Example;
use temper_train::{Demonstration, read_all};

use crate::answers::{BATCH_SIZE, not_a_number};
use crate::args::DataArgs;
use crate::commands::{Outcome, print_json};
use crate::device;
use crate::failure::hinted;
use crate::session::{Session, bad_rows};
use crate::text::load_reward_model;

/// A row as it came, with what is scored of it.
struct ScoredRow {
    row: Map<String, Value>,
    demonstration: Demonstration,
    /// Whether the completion ended by itself, as a program that scores for PPO is told; it did if nothing is said.
    ended: bool,
}

impl<'de> Deserialize<'de> for ScoredRow {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let row = Map::deserialize(deserializer)?;
        let demonstration =
            Demonstration::deserialize(Value::Object(row.clone())).map_err(serde::de::Error::custom)?;
        let ended = match row.get("ended") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(ended)) => *ended,
            Some(other) => {
                let message = format!("column `ended` must be true or false, found {other}");
                return Err(serde::de::Error::custom(message));
            }
        };
        Ok(Self { row, demonstration, ended })
    }
}

pub fn run(session: &Session, args: &DataArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    let (model, text) = load_reward_model(&args.model, &device)?;
    let rows = read_all::<ScoredRow>(&args.data, bad_rows(args.skip_bad_rows))?;
    session.note_count(rows.skipped, "rows could not be read and were skipped");
    let context = model.config().max_seq_len;
    // All of them before the first score, since a program may be reading the output.
    let mut encoded = Vec::with_capacity(rows.rows.len());
    let mut n_skipped = 0;
    for (place, row) in rows.rows {
        let Demonstration { prompt, completion } = &row.demonstration;
        let mut tokens = text.template.encode_prompt(&text.tokenizer, prompt);
        let prompt_len = tokens.len();
        tokens.extend(text.template.encode_answer(&text.tokenizer, completion, row.ended));
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
            None => encoded.push((place, row.row, Example { tokens, prompt_len, n_cut: 0 })),
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
