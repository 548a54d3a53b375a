//! `temper score`

use anyhow::Result;
use serde_json::Value;
use temper_assistant::{BATCH_SIZE, RewardModel};
use temper_data::{Answer, WithColumns};

use crate::args::DataArgs;
use crate::commands::{Outcome, print_json};
use crate::device;
use crate::failure::{hint_of_row, not_finite};
use crate::session::Session;

pub fn run(session: &Session, args: &DataArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    let reward_model = RewardModel::load_with(&args.model, &device, &args.load.options())?;
    let rows = session.rows::<WithColumns<Answer>>(&args.data, args.read())?.into_placed();
    // All rows are encoded before the first one is scored, because a program may be reading the output.
    let encode = |row: &WithColumns<Answer>| {
        let Answer { prompt, completion, ended } = &row.record;
        let encoded = reward_model.encode_row(prompt, completion, *ended);
        encoded.map_err(|fault| (fault.to_string(), hint_of_row(&fault)))
    };
    let encoded = session.encode_rows(rows.collect(), args.skip_bad_rows, encode)?;
    for part in encoded.chunks(BATCH_SIZE) {
        let examples: Vec<_> = part.iter().map(|(.., example)| example.row()).collect();
        let scores = reward_model.model.score_rows(&examples, BATCH_SIZE);
        for ((place, row, _), score) in part.iter().zip(scores) {
            if !score.is_finite() {
                return Err(not_finite(&reward_model.text.dir, &format!("scores {place} as {score}")));
            }
            let mut row = row.columns.clone();
            row.insert("score".into(), Value::from(score));
            print_json(&row)?;
        }
    }
    Ok(Outcome::Done)
}
