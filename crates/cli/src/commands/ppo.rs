//! `temper ppo`

use std::path::PathBuf;

use anyhow::Result;
use temper_ppo::{Critic, CriticKind, Models, PpoConfig, PromptDataset, Sample, Text};
use temper_tokenizer::Overflow;
use temper_train::{Prompt, read_all};

use crate::args::{PpoArgs, Stage};
use crate::commands::Outcome;
use crate::device;
use crate::failure::hinted;
use crate::inputs::{inputs, model_fingerprint};
use crate::rewards::{RewardModel, Rewards};
use crate::session::{Session, bad_rows};
use crate::text::{TextSide, context_len, load_policy, load_reward_model};

pub fn run(session: &Session, args: &PpoArgs) -> Result<Outcome> {
    let config: PpoConfig = session.settings(Stage::Ppo, &args.settings)?;
    config.validate()?;
    let (device, backend) = device::open_named(&config.device)?;
    let (policy, text) = load_policy(&args.policy, &device)?;
    let max_seq_len = context_len(config.max_seq_len, policy.config())?;
    let reward_model = match &args.rewards.reward {
        None => None,
        Some(dir) => {
            let (model, reward_text) = load_reward_model(dir, &device)?;
            let difference = text.difference(&reward_text);
            match difference {
                None => _ = context_len(max_seq_len, model.config())?,
                Some(what) if config.critic.kind == CriticKind::RewardModel => {
                    return Err(hinted(
                        format!("{} and {} have different {what}s", args.policy.display(), dir.display()),
                        "train the reward model from the same SFT model; or `--set critic.kind=value_head`, and it scores text",
                    ));
                }
                Some(what) => session.note(&format!(
                    "note: {} has another {what} than {}, so it scores text; a prompt that is too long for it is cut on the left",
                    dir.display(),
                    args.policy.display()
                )),
            }
            Some((model, difference.map(|_| (reward_text, dir))))
        }
    };
    let load = |paths: &[PathBuf]| {
        prompts(session, paths, &text, max_seq_len, config.overflow, args.run.skip_bad_rows)
    };
    let data = load(&args.prompts)?;
    let eval_data = if args.eval_data.is_empty() { None } else { Some(load(&args.eval_data)?) };

    let critic = match (config.critic.kind, &reward_model) {
        (CriticKind::RewardModel, Some((model, _))) => Critic::Separate(Box::new(model.clone())),
        (CriticKind::RewardModel, None) => {
            return Err(hinted(
                "without `--reward` there is no model for the critic to start from",
                "`--set critic.kind=value_head`",
            ));
        }
        (CriticKind::ValueHead, _) => Critic::ValueHead,
    };
    let models = Models { policy: policy.clone(), ref_policy: policy, critic };
    let scorer = reward_model.as_ref().map(|(model, other)| match other {
        None => RewardModel::Ids(model),
        Some((reward_text, dir)) => {
            RewardModel::Text { model, text: reward_text, dir, policy: &text.template }
        }
    });
    let mut rewards = Rewards::open(&args.rewards, scorer, config.batch_size)?;
    let mut score = |samples: &[Sample<'_>]| rewards.score(samples);
    let inputs = inputs(
        backend,
        [
            ("--policy", Some(model_fingerprint(&args.policy)?)),
            ("--reward", args.rewards.reward.as_deref().map(model_fingerprint).transpose()?),
            ("--reward-program", args.rewards.reward_program.clone()),
            ("--reward-url", args.rewards.reward_url.clone()),
            ("the weights of the scores", Some(args.rewards.weights())),
            ("--prompts", Some(data.fingerprint())),
            ("--eval-data", eval_data.as_ref().map(PromptDataset::fingerprint)),
        ],
    );
    let run = session.run(&args.run, "ppo", &config, &inputs)?;
    let mut run = run.with_keep_last(config.keep_last);
    let side = Text { tokenizer: &text.tokenizer, template: &text.template };
    temper_ppo::train(&config, models, side, &data, eval_data.as_ref(), &mut score, &mut run)?;
    Ok(if session.interrupted() { Outcome::Interrupted } else { Outcome::Done })
}

/// Reads and encodes prompts, and says what was left out.
fn prompts(
    session: &Session,
    paths: &[PathBuf],
    text: &TextSide,
    max_seq_len: usize,
    overflow: Overflow,
    skip_bad_rows: bool,
) -> Result<PromptDataset> {
    let rows = read_all::<Prompt>(paths, bad_rows(skip_bad_rows))?;
    session.note_count(rows.skipped, "rows could not be read and were skipped");
    let prompts: Vec<Prompt> = rows.rows.into_iter().map(|(_, row)| row).collect();
    let data = PromptDataset::new(&prompts, &text.tokenizer, &text.template, max_seq_len - 1, overflow)?;
    session
        .note_count(data.n_dropped, &format!("prompts leave no room for an answer in {max_seq_len} tokens"));
    Ok(data)
}
