//! `temper reward`

use std::path::PathBuf;

use anyhow::Result;
use temper_model::ScalarModel;
use temper_reward::{RewardConfig, RewardDataset, Text};
use temper_tokenizer::Overflow;
use temper_train::{Comparison, Demonstration, Seed};

use crate::args::{ComparisonArgs, Stage};
use crate::commands::Outcome;
use crate::device;
use crate::inputs::{inputs, model_fingerprint};
use crate::session::Session;
use crate::text::{TextSide, context_len, load_policy_to_train};
use crate::without_effect::{self, Given};

pub fn run(session: &Session, args: &ComparisonArgs) -> Result<Outcome> {
    let config: RewardConfig = session.settings(Stage::Reward, &args.settings)?;
    config.validate()?;
    let (device, backend) = device::open_named(&config.training.device)?;
    let (sft, text) = load_policy_to_train(&args.model, &config.template, &device)?;
    let max_seq_len = context_len(config.training.max_seq_len, sft.config())?;
    let load = |paths: &[PathBuf]| {
        dataset(session, paths, &text, max_seq_len, config.overflow, args.run.skip_bad_rows)
    };
    let mut data = load(&args.data)?;
    if !args.normalize_data.is_empty() {
        let rows: Vec<Demonstration> = session.rows(&args.normalize_data, args.run.skip_bad_rows)?;
        let (tokenizer, template) = (&text.tokenizer, &text.template);
        data = data.with_demonstrations(&rows, tokenizer, template, max_seq_len, config.overflow)?;
    }
    let eval_data = if args.eval_data.is_empty() { None } else { Some(load(&args.eval_data)?) };

    let mut head = Seed(config.training.seed).stream("reward_head");
    let model = ScalarModel::new(sft.transformer, config.pooling, &mut head);
    let inputs = inputs(
        backend,
        [
            ("--model", Some(model_fingerprint(&args.model)?)),
            ("--data", Some(data.fingerprint())),
            ("--eval-data", eval_data.as_ref().map(RewardDataset::fingerprint)),
        ],
    );
    let normalize_data = !args.normalize_data.is_empty();
    let given = Given { template: text.has_template, normalize_data, ..Given::default() };
    without_effect::note_reward(session, &args.settings, &config, given)?;
    let run = session.run(&args.run, "reward", &config, &inputs)?;
    let mut run = run.with_keep_last(config.training.keep_last);
    let side = Text { tokenizer: &text.tokenizer, template: &text.template };
    temper_reward::train(&config, model, side, &data, eval_data.as_ref(), &mut run)?;
    Ok(session.outcome())
}

/// Reads and encodes comparisons, and says what was left out.
pub fn dataset(
    session: &Session,
    paths: &[PathBuf],
    text: &TextSide,
    max_seq_len: usize,
    overflow: Overflow,
    skip_bad_rows: bool,
) -> Result<RewardDataset> {
    let comparisons: Vec<Comparison> = session.rows(paths, skip_bad_rows)?;
    let data = RewardDataset::new(&comparisons, &text.tokenizer, &text.template, max_seq_len, overflow)?;
    session.note_count(
        data.n_dropped,
        &format!("comparisons do not fit into {max_seq_len} tokens and were dropped"),
    );
    session.note_count(
        data.n_completions_dropped,
        &format!("completions of other comparisons do not fit into {max_seq_len} tokens and were left out"),
    );
    Ok(data)
}
