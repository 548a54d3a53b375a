//! PPO from files.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use temper_assistant::{Answer, Assistant, RewardModel, Scorer, ScorerSpec, context_len};
use temper_data::{Encoding, Prompts, Texts};
use temper_eval::{Judge, JudgeSpec};
use temper_stage::{Launch, long_row, model_fingerprint};
use temper_tokenizer::TextSide;
use temper_train::Seed;

use crate::Error;
use crate::auto::CRITIC_KIND;
use crate::config::{CriticKind, MissingEos, PpoConfig, ScaleFrom};
use crate::networks::Critic;
use crate::rollout::stop_token;
use crate::scores::{Sample, ScoreFn, Scorers};
use crate::train::{Data, Models, train};

/// What PPO reads, and who scores the answers.
#[derive(Clone, Debug, Default)]
pub struct PpoFiles {
    /// The directory of the SFT model: policy and reference start there.
    pub policy: PathBuf,
    /// The directory of the reward model, if one scores. A critic of its own starts there.
    pub reward: Option<PathBuf>,
    /// The other sources of the score, and the weight of each.
    pub scorer: ScorerSpec,
    /// Prompts to learn from.
    pub prompts: Vec<PathBuf>,
    /// Prompts to evaluate on; may be empty.
    pub eval_data: Vec<PathBuf>,
    /// Plain text to learn in addition to the scores (PPO-ptx); may be empty.
    pub ptx_data: Vec<PathBuf>,
    /// An independent judge whose scores are only recorded: `courtesy`, or the directory of a reward model.
    pub gold: Option<String>,
}

/// Trains a policy for the scores of its answers to prompts from files, and returns it with its text side.
///
/// An interrupted run has written a checkpoint. Launched again with the same settings and files and
/// [`Launch::resume`], it continues, and ends with the same policy as a run without a break.
///
/// # Errors
/// Settings out of range, files that cannot be read or written, models that do not fit together, a resumed run that was
/// started with something else, a scorer that fails, or numbers that are not finite.
pub fn run(config: &PpoConfig, files: &PpoFiles, mut launch: Launch) -> Result<Assistant, Error> {
    let config = &launch.prefill(config)?;
    config.validate()?;
    config.require_value_of_missing_eos(&launch)?;
    let device = launch.device().clone();
    let options = launch.model_options().clone();
    let start = Assistant::load_to_train(&files.policy, "auto", &device, &options)?;
    let Assistant { model: policy, mut text } = start;
    launch.freeze_date(&mut text)?;
    let max_len = context_len(config.training.max_seq_len, policy.config())?;
    let config = &launch.settle(config, |config, auto| config.choices(auto, &policy, max_len))?;
    let reward_model = files.reward.as_deref();
    let reward_model = reward_model
        .map(|dir| load_reward_model(config, dir, &mut text, max_len, &mut launch))
        .transpose()?;

    // A reward model reads an answer that a stop token ended with one more token, its end.
    let n_ends = usize::from(stop_token(&config.rollout, &text.tokenizer)?.is_some());
    let room = reward_model.as_ref().map_or(usize::MAX, |scores| scores.model.context() - n_ends);
    let max_prompt_len = config.prompt_limit(max_len.min(room))?;
    let of_prompts = Encoding { overflow: config.overflow, ..Encoding::new(&text, max_prompt_len) };
    let (mut prompts, mut eval_prompts): (Prompts, _) =
        launch.datasets(&files.prompts, &files.eval_data, config.training.seed, &of_prompts)?;
    // A reward model reads prompts and answers only, and other columns may be large.
    if files.scorer.program.is_none() && files.scorer.endpoint.is_none() {
        prompts = prompts.without_columns();
        eval_prompts = eval_prompts.map(Prompts::without_columns);
    }
    let of_texts = Encoding::new(&text, max_len);
    let texts: Option<Texts> = launch.dataset_if_given(&files.ptx_data, "plain text", &of_texts)?;
    let stop = launch.stop_signal().clone();
    let mut judge =
        files.gold.as_deref().map(|name| Judge::open(&JudgeSpec::named(name)?, &options, &device, &stop));
    let mut judge = judge.take().transpose()?;

    let lengths = prompts.prompts.iter().map(|prompt| prompt.tokens.len()).collect();
    let row_len = long_row(lengths).saturating_add(config.rollout.max_new_tokens).min(max_len);
    let scores = reward_model.as_ref().map(|scores| (&scores.model.model, scores.reads_ids));
    let config =
        &launch.settle(config, |config, auto| config.later_choices(auto, &policy, scores, row_len))?;
    config.check_memory(&policy, scores.map(|(model, _)| model), row_len)?;

    // Before anything is sampled: whether everyone who scores has room for the longest answer.
    let all_prompts = prompts.prompts.iter().chain(eval_prompts.iter().flat_map(|data| &data.prompts));
    let longest = all_prompts.map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
    let needed = longest.saturating_add(config.rollout.max_new_tokens + n_ends).min(max_len);
    if let Some(judge) = &judge {
        judge.check_room(&text, needed)?;
    }
    if let Some(scores) = reward_model.as_ref().filter(|scores| !scores.reads_ids) {
        scores.model.check_room(&text, needed)?;
    }

    let spec = ScorerSpec { batch_size: config.forward_batch_size(), ..files.scorer.clone() };
    let mut scorer = Scorer::open(&spec, reward_model.as_ref().map(|scores| &scores.model), &text, &stop)?;
    let mut score = |samples: &[Sample<'_>]| Ok(scorer.score(&answers(&text, samples))?);

    let (mut trained, seed) = (policy.clone(), Seed(config.training.seed));
    if let Some(lora) = config.adapter.lora(&files.policy.display().to_string()) {
        trained = trained.with_adapters(&lora, &mut seed.stream("adapters"))?;
    }
    let lora_of_critic =
        files.reward.as_ref().and_then(|dir| config.adapter.lora(&dir.display().to_string()));
    let critic = match (config.critic.kind, &reward_model) {
        _ if !config.estimator().needs_critic() => Critic::None,
        (CriticKind::RewardModel, Some(scores)) => {
            let mut critic = scores.model.model.clone();
            if let Some(lora) = &lora_of_critic {
                critic = critic.with_adapters(lora, &mut seed.stream("adapters_of_critic"))?;
            }
            Critic::Separate(Box::new(critic))
        }
        (CriticKind::RewardModel, None) => return Err(Error::NoModelForCritic),
        (CriticKind::ValueHead, _) => Critic::ValueHead,
    };
    trained.set_max_new_tokens(config.rollout.max_new_tokens);
    // With adapters, the base is in memory once for both.
    let models = Models { policy: trained, ref_policy: policy, critic };
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

    if let (Some(gold), Some(reward)) = (&files.gold, &files.reward)
        && Path::new(gold).canonicalize().ok() == reward.canonicalize().ok()
    {
        launch.note(
            "`--gold` is the reward model that is learned from, so the gold score is not independent of it",
        );
    }
    let mut idle = config.idle(texts.is_some());
    idle.extend(config.shown.idle(eval_prompts.is_some()));
    launch.note_settings_without_effect(config, &idle)?;
    let weights = format!("{} {} {}", spec.model_weight, spec.program_weight, spec.endpoint_weight);
    let given = [
        ("--policy", Some(model_fingerprint(&files.policy)?)),
        ("--reward", files.reward.as_deref().map(model_fingerprint).transpose()?),
        ("--reward-program", spec.program.clone()),
        ("--reward-url", spec.endpoint.as_deref().map(temper_scorer::masked)),
        ("the weights of the scores", Some(weights)),
        ("--prompts", Some(prompts.fingerprint())),
        ("the other columns of --prompts", prompts.fingerprint_of_columns()),
        ("--eval-data", eval_prompts.as_ref().map(Prompts::fingerprint)),
        ("the other columns of --eval-data", eval_prompts.as_ref().and_then(Prompts::fingerprint_of_columns)),
        ("--ptx-data", texts.as_ref().map(Texts::fingerprint)),
        ("--gold", files.gold.clone()),
    ];
    launch.starts_from(&files.policy);
    let mut run = launch.open("ppo", config, &config.training, given)?;
    let data = Data { prompts: &prompts, eval_prompts: eval_prompts.as_ref(), texts: texts.as_ref() };
    let model = train(config, models, &text, data, scorers, &mut run)?;
    Ok(Assistant { model, text })
}

/// A reward model that scores the answers of a policy.
struct ScoringModel {
    model: RewardModel,
    /// Whether it reads the ids that the policy samples. Otherwise it reads their text.
    reads_ids: bool,
}

/// Loads the reward model in `dir`, and gives its template to a policy that has none.
fn load_reward_model(
    config: &PpoConfig,
    dir: &Path,
    text: &mut TextSide,
    max_len: usize,
    launch: &mut Launch,
) -> Result<ScoringModel, Error> {
    let device: Device = launch.device().clone();
    let mut model = RewardModel::load_with(dir, &device, launch.model_options())?;
    if text.adopt(&model.text) {
        launch.note(&format!(
            "{} has no template.json, so prompts are put together as {} learned them: `{}`",
            text.dir.display(),
            dir.display(),
            text.template.name()
        ));
    }
    launch.freeze_date(text)?;
    if let Some(date) = text.date() {
        model.text.freeze_date(date);
    }
    let Some(difference) = text.difference(&model.text) else {
        context_len(max_len, model.model.config())?;
        return Ok(ScoringModel { model, reads_ids: true });
    };
    let is_critic = config.critic.kind == CriticKind::RewardModel && !launch.is_open(CRITIC_KIND);
    if config.estimator().needs_critic() && is_critic {
        let (policy, reward) = (text.dir.clone(), dir.to_owned());
        return Err(Error::CriticReadsOtherIds { policy, reward, difference });
    }
    launch.note(&format!(
        "{} has another {difference} than {}, so it scores text; a prompt that is too long for it is cut on the left",
        dir.display(),
        text.dir.display()
    ));
    Ok(ScoringModel { model, reads_ids: false })
}

/// The samples as the scorer and the judge read them.
fn answers(text: &TextSide, samples: &[Sample<'_>]) -> Vec<Answer> {
    let answer = |sample: &Sample<'_>| Answer {
        prompt: sample.prompt.into(),
        row: sample.row.clone(),
        prompt_tokens: sample.prompt_tokens.to_vec(),
        tokens: sample.completion_tokens.to_vec(),
        logprobs: Vec::new(),
        ended: sample.ended,
        text: sample.completion.clone(),
        completion: text.template.completion_of(&sample.completion).to_owned(),
    };
    samples.iter().map(answer).collect()
}

impl PpoConfig {
    /// Refuses a score that replaces others where nobody says what it is, and the scores have a scale that is not known.
    fn require_value_of_missing_eos(&self, launch: &Launch) -> Result<(), Error> {
        let is_given = |key| !launch.is_open(key);
        let replaces = self.rollout.missing_eos == MissingEos::Replace && is_given("rollout.missing_eos");
        let is_unscaled = self.rollout.score_scale == ScaleFrom::None && is_given("rollout.score_scale");
        if replaces && is_unscaled && !is_given("rollout.missing_eos_value") && !launch.continues()? {
            return Err(Error::NoScoreForMissingEos);
        }
        Ok(())
    }

    /// The settings that the files leave without effect, with the reason.
    fn idle(&self, has_texts: bool) -> Vec<(&'static str, &'static str)> {
        if self.ptx.coef == 0.0 || has_texts {
            return Vec::new();
        }
        let why = "there is no `--ptx-data`, so no text is mixed in";
        vec![("ptx.coef", why), ("ptx.sequences_per_episode", why)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_settings_need_text() {
        let mut config = PpoConfig::default();
        config.ptx.coef = 0.0;
        assert_eq!(config.idle(false), []);
        config.ptx.coef = 0.5;
        let keys: Vec<&str> = config.idle(false).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["ptx.coef", "ptx.sequences_per_episode"]);
        assert_eq!(config.idle(true), []);
    }
}
