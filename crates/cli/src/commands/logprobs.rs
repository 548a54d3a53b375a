//! `temper logprobs`

use anyhow::Result;
use serde_json::json;
use temper_assistant::Assistant;
use temper_data::{Demonstration, read_rows};

use crate::args::DataArgs;
use crate::commands::{Outcome, print_json};
use crate::device;
use crate::failure::{hint_of_row, hinted, not_finite};
use crate::session::{Session, bad_rows};

pub fn run(session: &Session, args: &DataArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    let assistant = Assistant::load(&args.model, &device)?;
    let rows = read_rows::<Demonstration>(&args.data, bad_rows(args.skip_bad_rows))?;
    session.note_count(rows.n_skipped(), "rows could not be read and were skipped");
    // All rows are encoded before the first one is printed, because a program may be reading the output.
    let mut encoded = Vec::with_capacity(rows.records.len());
    let mut n_skipped = 0;
    for (place, row) in rows.into_placed() {
        match assistant.encode_row(&row.prompt, &row.completion) {
            Ok((prompt, completion)) => encoded.push((place, prompt, completion)),
            Err(_) if args.skip_bad_rows => n_skipped += 1,
            Err(fault) => return Err(hinted(format!("{place}: {fault}"), hint_of_row(&fault))),
        }
    }
    session.note_count(n_skipped, "rows do not fit into the model's context and were skipped");
    for (place, prompt, completion) in &encoded {
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
