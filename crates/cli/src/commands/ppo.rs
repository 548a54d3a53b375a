//! `temper ppo`

use std::path::PathBuf;

use anyhow::Result;
use temper_ppo::{
    Critic, CriticKind, Data, Models, PpoConfig, PromptDataset, Sample, ScoreFn, Scorers, Text, TextDataset,
};
use temper_tokenizer::{Overflow, Template};
use temper_train::{PlainText, Prompt};

use crate::answers::Answer;
use crate::args::{PpoArgs, Stage};
use crate::commands::Outcome;
use crate::device;
use crate::failure::hinted;
use crate::inputs::{inputs, model_fingerprint};
use crate::judge::Judge;
use crate::rewards::{RewardModel, Rewards, boxed};
use crate::session::Session;
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
                Some(what)
                    if config.advantage.kind.has_critic() && config.critic.kind == CriticKind::RewardModel =>
                {
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

    let texts = if args.ptx_data.is_empty() {
        None
    } else {
        Some(texts(session, &args.ptx_data, &text, max_seq_len, args.run.skip_bad_rows)?)
    };
    let mut judge = args.gold.as_deref().map(|spec| Judge::named(spec, &device)).transpose()?;

    let critic = match (config.critic.kind, &reward_model) {
        _ if !config.advantage.kind.has_critic() => Critic::None,
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
    let mut rewards = Rewards::open(&args.rewards, scorer, config.batch_size, session.stop())?;
    let mut score = |samples: &[Sample<'_>]| rewards.score(samples);
    let mut gold =
        judge.as_mut().map(|judge| |samples: &[Sample<'_>]| gold_scores(judge, &text.template, samples));
    let scorers = Scorers {
        score: &mut score,
        token_rewards: None,
        gold: gold.as_mut().map(|gold| gold as &mut ScoreFn<'_>),
    };
    let inputs = inputs(
        backend,
        [
            ("--policy", Some(model_fingerprint(&args.policy)?)),
            ("--reward", args.rewards.reward.as_deref().map(model_fingerprint).transpose()?),
            ("--reward-program", args.rewards.reward_program.clone()),
            ("--reward-url", args.rewards.reward_url.as_deref().map(temper_scorer::masked)),
            ("the weights of the scores", Some(args.rewards.weights())),
            ("--prompts", Some(data.fingerprint())),
            ("--eval-data", eval_data.as_ref().map(PromptDataset::fingerprint)),
            ("--ptx-data", texts.as_ref().map(TextDataset::fingerprint)),
            ("--gold", args.gold.clone()),
        ],
    );
    let run = session.run(&args.run, "ppo", &config, &inputs)?;
    let mut run = run.with_keep_last(config.keep_last);
    let side = Text { tokenizer: &text.tokenizer, template: &text.template };
    let data = Data { prompts: &data, eval_prompts: eval_data.as_ref(), texts: texts.as_ref() };
    match temper_ppo::train(&config, models, side, data, scorers, &mut run) {
        // The scorer was not waited for.
        Err(temper_ppo::Error::Score { .. }) if session.interrupted() => {}
        trained => _ = trained?,
    }
    Ok(session.outcome())
}

/// What a judge says of the samples, as text.
fn gold_scores(
    judge: &mut Judge,
    template: &Template,
    samples: &[Sample<'_>],
) -> Result<Vec<f32>, temper_ppo::ScoreError> {
    let prompts: Vec<String> = samples.iter().map(|sample| sample.prompt.to_owned()).collect();
    let answers: Vec<Answer> = (samples.iter())
        .map(|sample| Answer {
            completion: template.completion_of(&sample.completion).to_owned(),
            tokens: sample.completion_tokens.to_vec(),
            ended: sample.ended,
        })
        .collect();
    Ok(judge.scores(&prompts, &answers).map_err(boxed)?.into_iter().map(|score| score as f32).collect())
}

/// Reads and encodes plain text.
fn texts(
    session: &Session,
    paths: &[PathBuf],
    text: &TextSide,
    max_seq_len: usize,
    skip_bad_rows: bool,
) -> Result<TextDataset> {
    let rows: Vec<PlainText> = session.rows(paths, skip_bad_rows)?;
    Ok(TextDataset::new(&rows, &text.tokenizer, max_seq_len)?)
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
    let prompts: Vec<Prompt> = session.rows(paths, skip_bad_rows)?;
    let data = PromptDataset::new(&prompts, &text.tokenizer, &text.template, max_seq_len - 1, overflow)?;
    session
        .note_count(data.n_dropped, &format!("prompts leave no room for an answer in {max_seq_len} tokens"));
    Ok(data)
}
