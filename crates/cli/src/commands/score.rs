//! `temper score`

use anyhow::Result;
use serde_json::Value;
use temper_assistant::{BATCH_SIZE, RewardModel};
use temper_data::{Answer, WithColumns, read_rows};
use temper_reward::score;
use temper_tokenizer::Example;

use crate::args::DataArgs;
use crate::commands::{Outcome, print_json};
use crate::device;
use crate::failure::{hint_of_row, hinted, not_finite};
use crate::session::{Session, bad_rows};

pub fn run(session: &Session, args: &DataArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    let reward_model = RewardModel::load(&args.model, &device)?;
    let rows = read_rows::<WithColumns<Answer>>(&args.data, bad_rows(args.skip_bad_rows))?;
    session.note_count(rows.n_skipped(), "rows could not be read and were skipped");
    // All rows are encoded before the first one is scored, because a program may be reading the output.
    let mut encoded = Vec::with_capacity(rows.records.len());
    let mut n_skipped = 0;
    for (place, row) in rows.into_placed() {
        let Answer { prompt, completion, ended } = &row.record;
        match reward_model.encode_row(prompt, completion, *ended) {
            Ok(example) => encoded.push((place, row.columns, example)),
            Err(_) if args.skip_bad_rows => n_skipped += 1,
            Err(fault) => return Err(hinted(format!("{place}: {fault}"), hint_of_row(&fault))),
        }
    }
    session.note_count(n_skipped, "rows do not fit into the model's context and were skipped");
    for part in encoded.chunks(BATCH_SIZE) {
        let examples: Vec<&Example> = part.iter().map(|(.., example)| example).collect();
        let scores = score(&reward_model.model, &examples, BATCH_SIZE);
        for ((place, row, _), score) in part.iter().zip(scores) {
            if !score.is_finite() {
                return Err(not_finite(&reward_model.text.dir, &format!("scores {place} as {score}")));
            }
            let mut row = row.clone();
            row.insert("score".into(), Value::from(score));
            print_json(&row)?;
        }
    }
    Ok(Outcome::Done)
}
