//! `temper dpo`

use std::path::PathBuf;

use anyhow::Result;
use temper_assistant::{Assistant, context_len};
use temper_data::Rankings;
use temper_dpo::DpoConfig;

use crate::args::{ComparisonArgs, Stage};
use crate::commands::Outcome;
use crate::data_rows::{EVALUATION, TRAINING};
use crate::device;
use crate::inputs::{inputs, model_fingerprint};
use crate::session::Session;
use crate::without_effect::{self, Given};

pub fn run(session: &Session, args: &ComparisonArgs) -> Result<Outcome> {
    let config: DpoConfig = session.settings(Stage::Dpo, &args.settings)?;
    let (device, backend) = device::open_named(&config.training.device)?;
    let Assistant { model: sft, text } =
        Assistant::load_to_train(&args.model, &config.encoding.template, &device)?;
    let max_seq_len = context_len(config.training.max_seq_len, sft.config())?;
    let load = |paths: &[PathBuf], purpose: &'static str| {
        session.dataset::<Rankings>(
            paths,
            purpose,
            &text,
            max_seq_len,
            config.encoding.overflow,
            args.run.skip_bad_rows,
        )
    };
    let data = load(&args.data, TRAINING)?;
    let eval_data = if args.eval_data.is_empty() { None } else { Some(load(&args.eval_data, EVALUATION)?) };

    let inputs = inputs(
        backend,
        [
            ("--model", Some(model_fingerprint(&args.model)?)),
            ("--data", Some(data.fingerprint())),
            ("--eval-data", eval_data.as_ref().map(Rankings::fingerprint)),
        ],
    );
    let given = Given { template: text.has_template, ..Given::default() };
    without_effect::note(session, &args.settings, &config, given)?;
    let run = session.run(&args.run, "dpo", &config, &inputs)?;
    let mut run = run.with_keep_last(config.training.keep_last);
    temper_dpo::train(&config, sft, &text, &data, eval_data.as_ref(), &mut run)?;
    Ok(session.outcome())
}
