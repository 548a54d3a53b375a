//! `temper sft`

use std::path::{Path, PathBuf};

use anyhow::Result;
use temper_assistant::{Assistant, context_len};
use temper_data::Demonstrations;
use temper_sft::SftConfig;
use temper_train::Seed;

use crate::args::{SftArgs, Stage};
use crate::commands::Outcome;
use crate::data_rows::{EVALUATION, TRAINING};
use crate::device;
use crate::inputs::{inputs, model_fingerprint};
use crate::session::Session;
use crate::without_effect::{self, Given};

pub fn run(session: &Session, args: &SftArgs) -> Result<Outcome> {
    let config: SftConfig = session.settings(Stage::Sft, &args.settings)?;
    let (device, backend) = device::open_named(&config.training.device)?;
    let mut init = Seed(config.training.seed).stream("init");
    let Assistant { model, text } =
        Assistant::start(&args.model, &config.encoding.template, &mut init, &device)?;
    let max_seq_len = context_len(config.training.max_seq_len, model.config())?;
    let load = |paths: &[PathBuf], purpose: &'static str| {
        session.dataset::<Demonstrations>(
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
            ("--model", Some(model_fingerprint(Path::new(&args.model))?)),
            ("--data", Some(data.fingerprint())),
            ("--eval-data", eval_data.as_ref().map(Demonstrations::fingerprint)),
        ],
    );
    let dropout = model.config().dropout > 0.0;
    let given = Given { template: text.has_template, dropout, ..Given::default() };
    without_effect::note(session, &args.settings, &config, given)?;
    let run = session.run(&args.run, "sft", &config, &inputs)?;
    let mut run = run.with_keep_last(config.training.keep_last);
    temper_sft::train(&config, model, &text, &data, eval_data.as_ref(), &mut run)?;
    Ok(session.outcome())
}
