//! `temper score`

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Map, Value};
use temper_tokenizer::{Example, Overflow, Template};
use temper_train::{Demonstration, read_all};

use crate::args::DataArgs;
use crate::commands::{Outcome, print_json};
use crate::device;
use crate::failure::hinted;
use crate::session::{Session, bad_rows};
use crate::text::load_reward_model;

/// Rows that are scored together.
const BATCH_SIZE: usize = 64;

/// A row as it came, with what is scored of it.
struct ScoredRow {
    row: Map<String, Value>,
    demonstration: Demonstration,
}

impl<'de> Deserialize<'de> for ScoredRow {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let row = Map::deserialize(deserializer)?;
        let demonstration =
            Demonstration::deserialize(Value::Object(row.clone())).map_err(serde::de::Error::custom)?;
        Ok(Self { row, demonstration })
    }
}

pub fn run(session: &Session, args: &DataArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    let (model, text) = load_reward_model(&args.model, &device)?;
    // A directory without a template is plain, and a score is read at the end of the text.
    let template = if text.has_template { text.template.clone() } else { Template::plain_eos() };
    let rows = read_all::<ScoredRow>(&args.data, bad_rows(args.skip_bad_rows))?;
    session.note_count(rows.skipped, "rows could not be read and were skipped");
    let context = model.config().max_seq_len;
    for part in rows.rows.chunks(BATCH_SIZE) {
        let mut examples = Vec::with_capacity(part.len());
        for (place, row) in part {
            let Demonstration { prompt, completion } = &row.demonstration;
            let example: Option<Example> =
                template.encode_example(&text.tokenizer, prompt, completion, context, Overflow::Drop);
            let example = example.ok_or_else(|| {
                hinted(
                    format!("{place}: longer than the model's context of {context} tokens"),
                    "shorten the row, or use a model with a longer context",
                )
            })?;
            if example.tokens.is_empty() {
                return Err(hinted(
                    format!("{place}: the tokenizer has no token for this row"),
                    "a score is read at the last token",
                ));
            }
            examples.push(example);
        }
        let scores = temper_reward::score(&model, &examples.iter().collect::<Vec<_>>(), BATCH_SIZE);
        for ((_, row), score) in part.iter().zip(scores) {
            let mut row = row.row.clone();
            row.insert("score".into(), Value::from(score));
            print_json(&row)?;
        }
    }
    Ok(Outcome::Done)
}
