//! `temper logprobs`

use anyhow::Result;
use serde_json::json;
use temper_assistant::Assistant;
use temper_data::Demonstration;

use crate::args::DataArgs;
use crate::commands::{Outcome, print_json};
use crate::device;
use crate::failure::{hint_of_row, not_finite};
use crate::session::Session;

pub fn run(session: &Session, args: &DataArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    let assistant = Assistant::load_with(&args.model, &device, &args.load.options())?;
    let rows = session.rows::<Demonstration>(&args.data, args.read())?.into_placed();
    // All rows are encoded before the first one is printed, because a program may be reading the output.
    let encode = |row: &Demonstration| {
        let encoded = assistant.encode_row(&row.prompt, &row.completion);
        encoded.map_err(|fault| (fault.to_string(), hint_of_row(&fault)))
    };
    let encoded = session.encode_rows(rows.collect(), args.skip_bad_rows, encode)?;
    for (place, _, example) in &encoded {
        let (prompt, completion) = (example.prompt(), example.completion());
        let logprobs = assistant.logprobs(prompt, completion);
        if let Some(logprob) = logprobs.iter().find(|logprob| !logprob.is_finite()) {
            let what = format!("gives a token of {place} the log-probability {logprob}");
            return Err(not_finite(&assistant.text.dir, &what));
        }
        print_json(&json!({
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "logprobs": logprobs,
        }))?;
    }
    Ok(Outcome::Done)
}
