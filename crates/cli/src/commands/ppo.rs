//! `temper ppo`

use std::path::PathBuf;

use anyhow::Result;
use burn::tensor::Device;
use temper_assistant::{Answer, Assistant, RewardModel, Scorer, context_len};
use temper_data::{Prompts, Texts};
use temper_eval::{Judge, JudgeSpec};
use temper_ppo::{Critic, CriticKind, Data, Models, PpoConfig, Sample, ScoreFn, Scorers};
use temper_tokenizer::TextSide;

use crate::args::{PpoArgs, Stage};
use crate::commands::Outcome;
use crate::data_rows::{EVALUATION, TRAINING};
use crate::device;
use crate::failure::hinted;
use crate::inputs::{inputs, model_fingerprint};
use crate::session::Session;
use crate::without_effect::{self, Given};

pub fn run(session: &Session, args: &PpoArgs) -> Result<Outcome> {
    let config: PpoConfig = session.settings(Stage::Ppo, &args.settings)?;
    let (device, backend) = device::open_named(&config.training.device)?;
    let Assistant { model: policy, mut text } = Assistant::load_to_train(&args.policy, "auto", &device)?;
    let max_seq_len = context_len(config.training.max_seq_len, policy.config())?;
    let reward_model = match &args.rewards.reward {
        None => None,
        Some(dir) => {
            let reward_model = RewardModel::load(dir, &device)?;
            if text.adopt(&reward_model.text) {
                session.note(&format!(
                    "note: {} has no template.json, so prompts are put together as {} learned them: `{}`",
                    args.policy.display(),
                    dir.display(),
                    text.template.name()
                ));
            }
            let difference = text.difference(&reward_model.text);
            match difference {
                None => _ = context_len(max_seq_len, reward_model.model.config())?,
                Some(what)
                    if config.estimator().needs_critic() && config.critic.kind == CriticKind::RewardModel =>
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
            Some((reward_model, difference))
        }
    };
    // A reward model reads an answer that a stop token ended with one more token, its end.
    let n_ends = usize::from(temper_ppo::stop_token(&config.rollout, &text.tokenizer)?.is_some());
    let room = reward_model.as_ref().map_or(usize::MAX, |(model, _)| model.context() - n_ends);
    let max_prompt_len = config.prompt_limit(max_seq_len.min(room))?;
    let load = |paths: &[PathBuf], purpose: &'static str| {
        session.dataset::<Prompts>(
            paths,
            purpose,
            &text,
            max_prompt_len,
            config.overflow,
            args.run.skip_bad_rows,
        )
    };
    let data = load(&args.prompts, TRAINING)?;
    let eval_data = if args.eval_data.is_empty() { None } else { Some(load(&args.eval_data, EVALUATION)?) };

    let texts = if args.ptx_data.is_empty() {
        None
    } else {
        let (purpose, skip) = ("plain text", args.run.skip_bad_rows);
        Some(session.dataset::<Texts>(&args.ptx_data, purpose, &text, max_seq_len, config.overflow, skip)?)
    };
    let mut judge = args.gold.as_deref().map(|name| gold_judge(name, &device, session)).transpose()?;
    let prompts = data.prompts.iter().chain(eval_data.iter().flat_map(|data| &data.prompts));
    let longest = prompts.map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
    let needed = longest.saturating_add(config.rollout.max_new_tokens + n_ends).min(max_seq_len);
    if let Some(judge) = &judge {
        judge.check_room(&text, needed)?;
    }
    if let Some((reward_model, Some(_))) = &reward_model {
        reward_model.check_room(&text, needed)?;
    }

    let critic = match (config.critic.kind, &reward_model) {
        _ if !config.estimator().needs_critic() => Critic::None,
        (CriticKind::RewardModel, Some((reward_model, _))) => {
            Critic::Separate(Box::new(reward_model.model.clone()))
        }
        (CriticKind::RewardModel, None) => {
            return Err(hinted(
                "without `--reward` there is no model for the critic to start from",
                "`--set critic.kind=value_head`",
            ));
        }
        (CriticKind::ValueHead, _) => Critic::ValueHead,
    };
    let models = Models { policy: policy.clone(), ref_policy: policy, critic };
    let spec = args.rewards.spec(config.forward_batch_size())?;
    let scoring_model = reward_model.as_ref().map(|(reward_model, _)| reward_model);
    let mut scorer = Scorer::open(&spec, scoring_model, &text, session.stop())?;
    let mut score = |samples: &[Sample<'_>]| Ok(scorer.score(&answers(&text, samples))?);
    let mut gold = judge.as_mut().map(|judge| {
        |samples: &[Sample<'_>]| {
            let scores = judge.scores(&text, &answers(&text, samples))?;
            Ok(scores.into_iter().map(|score| score as f32).collect())
        }
    });
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
            ("--eval-data", eval_data.as_ref().map(Prompts::fingerprint)),
            ("--ptx-data", texts.as_ref().map(Texts::fingerprint)),
            ("--gold", args.gold.clone()),
        ],
    );
    let given = Given { ptx_data: !args.ptx_data.is_empty(), ..Given::default() };
    without_effect::note(session, &args.settings, &config, given)?;
    let run = session.run(&args.run, "ppo", &config, &inputs)?;
    let mut run = run.with_keep_last(config.training.keep_last);
    let data = Data { prompts: &data, eval_prompts: eval_data.as_ref(), texts: texts.as_ref() };
    match temper_ppo::train(&config, models, &text, data, scorers, &mut run) {
        // The scorer was not waited for.
        Err(temper_ppo::Error::Score { .. }) if session.interrupted() => {}
        trained => _ = trained?,
    }
    Ok(session.outcome())
}

/// The judge that `--gold` names.
fn gold_judge(name: &str, device: &Device, session: &Session) -> Result<Judge, temper_eval::Error> {
    Judge::open(&JudgeSpec::named(name)?, device, session.stop())
}

/// The samples as the scorer and the judge read them.
fn answers(text: &TextSide, samples: &[Sample<'_>]) -> Vec<Answer> {
    let answer = |sample: &Sample<'_>| Answer {
        prompt: sample.prompt.to_owned(),
        prompt_tokens: sample.prompt_tokens.to_vec(),
        tokens: sample.completion_tokens.to_vec(),
        logprobs: Vec::new(),
        ended: sample.ended,
        text: sample.completion.clone(),
        completion: text.template.completion_of(&sample.completion).to_owned(),
    };
    samples.iter().map(answer).collect()
}
