//! `temper ppo`

use std::path::PathBuf;

use anyhow::Result;
use temper_model::ScalarModel;
use temper_ppo::{
    Critic, CriticKind, Data, Models, PpoConfig, PromptDataset, Sample, ScoreFn, Scorers, Text, TextDataset,
};
use temper_tokenizer::{Example, Overflow};
use temper_train::{PlainText, Prompt};

use crate::args::{PpoArgs, Stage};
use crate::commands::Outcome;
use crate::commands::eval::{Answer, Judge};
use crate::device;
use crate::failure::hinted;
use crate::inputs::{inputs, model_fingerprint};
use crate::rewards::Rewards;
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
            text.check_same(&args.policy, &reward_text, dir)?;
            context_len(max_seq_len, model.config())?;
            Some(model)
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
    let mut judge = args.gold.as_deref().map(|spec| Judge::open(spec, &device)).transpose()?;

    let critic = match (config.critic.kind, &reward_model) {
        _ if !config.advantage.kind.has_critic() => Critic::None,
        (CriticKind::RewardModel, Some(model)) => Critic::Separate(Box::new(model.clone())),
        (CriticKind::RewardModel, None) => {
            return Err(hinted(
                "without `--reward` there is no model for the critic to start from",
                "`--set critic.kind=value_head`",
            ));
        }
        (CriticKind::ValueHead, _) => Critic::ValueHead,
    };
    let models = Models { policy: policy.clone(), ref_policy: policy, critic };
    let mut rewards = Rewards::open(&args.rewards, reward_model.as_ref(), config.batch_size)?;
    let mut score = |samples: &[Sample<'_>]| rewards.score(samples);
    let mut gold = judge.as_mut().map(|judge| |samples: &[Sample<'_>]| gold_scores(judge, samples));
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
            ("--reward-url", args.rewards.reward_url.clone()),
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
    temper_ppo::train(&config, models, side, data, scorers, &mut run)?;
    Ok(session.outcome())
}

/// What a judge says of the samples, as text.
fn gold_scores(judge: &mut Judge, samples: &[Sample<'_>]) -> Result<Vec<f32>, temper_ppo::ScoreError> {
    let prompts: Vec<String> = samples.iter().map(|sample| sample.prompt.to_owned()).collect();
    let answers: Vec<Answer> = (samples.iter())
        .map(|sample| Answer {
            completion: sample.completion.clone(),
            tokens: sample.completion_tokens.to_vec(),
            ended: sample.ended,
        })
        .collect();
    Ok(judge.scores(&prompts, &answers)?.into_iter().map(|score| score as f32).collect())
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

/// A reward model as a scoring function: the sampled ids as they are, never text encoded again.
pub fn score_samples(model: &ScalarModel, samples: &[Sample<'_>], batch_size: usize) -> Vec<f32> {
    let examples: Vec<Example> = samples
        .iter()
        .map(|sample| Example {
            tokens: [sample.prompt_tokens, sample.completion_tokens].concat(),
            prompt_len: sample.prompt_tokens.len(),
            n_cut: 0,
        })
        .collect();
    temper_reward::score(model, &examples.iter().collect::<Vec<_>>(), batch_size)
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
