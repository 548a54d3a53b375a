//! Settings that somebody has asked for and that nothing in the run reads: said at the start, not notes out at the end.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Serialize;
use temper_dpo::DpoConfig;
use temper_ppo::{CriticKind, MissingEos, PpoConfig};
use temper_reward::{Normalize, RewardConfig};
use temper_sft::SftConfig;
use temper_train::{NOT_PUBLISHED, Schedule, ScheduleKind, trailing_comments};
use toml::Table;

use crate::args::{Settings, Stage};
use crate::recipe;
use crate::session::Session;

/// What decides whether settings have an effect, besides the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    /// Whether the model directory brings a `template.json`.
    pub template: bool,
    /// Whether the model's `config.json` names a dropout.
    pub dropout: bool,
    /// Whether there is `--normalize-data`.
    pub normalize_data: bool,
}

/// Says which settings of an SFT run have no effect.
pub fn note_sft(session: &Session, settings: &Settings, config: &SftConfig, given: Given) -> Result<()> {
    note(session, config, settings, Stage::Sft, sft(config, given))
}

/// Says which settings of a reward-model run have no effect.
pub fn note_reward(
    session: &Session,
    settings: &Settings,
    config: &RewardConfig,
    given: Given,
) -> Result<()> {
    note(session, config, settings, Stage::Reward, reward(config, given))
}

/// Says which settings of a DPO run have no effect.
pub fn note_dpo(session: &Session, settings: &Settings, config: &DpoConfig, given: Given) -> Result<()> {
    note(session, config, settings, Stage::Dpo, dpo(config, given))
}

/// Says which settings of a PPO run have no effect.
pub fn note_ppo(
    session: &Session,
    settings: &Settings,
    config: &PpoConfig,
    ptx_data_given: bool,
) -> Result<()> {
    note(session, config, settings, Stage::Ppo, ppo(config, ptx_data_given))
}

/// Keys that nothing reads, and why.
type Idle = (Vec<&'static str>, &'static str);

fn sft(config: &SftConfig, given: Given) -> Vec<Idle> {
    let mut idle = of_schedule(&config.training.schedule);
    idle.extend(of_template(&config.template, given));
    if config.dropout && !given.dropout {
        idle.push((vec!["dropout"], "the model's config.json names no dropout"));
    }
    idle
}

fn reward(config: &RewardConfig, given: Given) -> Vec<Idle> {
    let mut idle = of_schedule(&config.training.schedule);
    idle.extend(of_template(&config.template, given));
    if config.normalize != Normalize::None && !given.normalize_data {
        idle.push((vec!["normalize"], "there is no `--normalize-data`, so scores stay as they are learned"));
    }
    idle
}

fn dpo(config: &DpoConfig, given: Given) -> Vec<Idle> {
    let mut idle = of_schedule(&config.training.schedule);
    idle.extend(of_template(&config.template, given));
    idle
}

/// `auto` asks for nothing in particular.
fn of_template(template: &str, given: Given) -> Option<Idle> {
    let idle = given.template && template != "auto";
    idle.then(|| (vec!["template"], "the model directory brings its own template.json"))
}

fn ppo(config: &PpoConfig, ptx_data_given: bool) -> Vec<Idle> {
    let mut idle = of_schedule(&config.schedule);
    let mut push = |is_idle: bool, keys: &[&'static str], why| {
        if is_idle {
            idle.push((keys.to_vec(), why));
        }
    };
    push(
        config.ptx.coef > 0.0 && !ptx_data_given,
        &["ptx.coef", "ptx.sequences_per_episode"],
        "there is no `--ptx-data`, so no text is mixed in",
    );
    let has_critic = config.advantage().needs_critic();
    push(
        !has_critic,
        &["critic.kind", "critic.learning_rate", "ppo.vf_coef", "ppo.value_clip_range", "ppo.gae_lambda"],
        "with this `advantage.kind` there is no critic",
    );
    let is_head = config.critic.kind == CriticKind::ValueHead;
    push(
        has_critic && !is_head,
        &["ppo.vf_coef"],
        "the critic is a network of its own, whose steps `critic.learning_rate` sets",
    );
    push(
        has_critic && is_head,
        &["critic.learning_rate"],
        "the critic is a head on the policy: it learns at the policy's rate, its loss weighted by `ppo.vf_coef`",
    );
    push(config.kl.target == 0.0, &["kl.horizon"], "`kl.target` is 0, so the coefficient is fixed");
    push(
        config.rollout.stop_token.is_empty(),
        &["rollout.stop_after"],
        "`rollout.stop_token` is empty, so only the end token ends an answer",
    );
    push(
        config.rollout.missing_eos == MissingEos::Keep,
        &["rollout.missing_eos_value"],
        "`rollout.missing_eos` is keep",
    );
    idle
}

fn of_schedule(schedule: &Schedule) -> Vec<Idle> {
    let mut idle: Vec<Idle> = Vec::new();
    if schedule.kind == ScheduleKind::Constant {
        idle.push((vec!["schedule.final_fraction"], "`schedule.kind` is constant"));
    }
    if schedule.warmup_steps == 0 {
        idle.push((vec!["schedule.warmup_from"], "`schedule.warmup_steps` is 0"));
    }
    idle
}

fn note<T: Serialize + Default>(
    session: &Session,
    config: &T,
    settings: &Settings,
    stage: Stage,
    idle: Vec<Idle>,
) -> Result<()> {
    let preset = settings.preset.as_deref().map(|name| recipe::stage_settings(name, stage)).transpose()?;
    for sentence in sentences(&idle, &asked_for(config, preset)?) {
        session.note(&sentence);
    }
    Ok(())
}

/// One sentence for each reason whose keys somebody has asked for.
fn sentences(idle: &[Idle], asked_for: &BTreeSet<String>) -> Vec<String> {
    let mut sentences = Vec::new();
    for (keys, why) in idle {
        let keys: Vec<String> =
            keys.iter().filter(|key| asked_for.contains(**key)).map(|key| format!("`{key}`")).collect();
        if !keys.is_empty() {
            let have = if keys.len() == 1 { "has" } else { "have" };
            sentences.push(format!("note: {} {have} no effect: {why}", keys.join(", ")));
        }
    }
    sentences
}

/// The keys whose value is not Temper's default, and those that a preset has from its source, whatever their value.
fn asked_for<T: Serialize + Default>(config: &T, preset: Option<&str>) -> Result<BTreeSet<String>> {
    let defaults = leaves(&to_table(&T::default())?, "");
    let changed = leaves(&to_table(config)?, "").into_iter().filter(|leaf| !defaults.contains(leaf));
    let mut keys: BTreeSet<String> = changed.map(|(key, _)| key).collect();
    if let Some(text) = preset {
        let sources = trailing_comments(text)?;
        keys.extend(sources.into_iter().filter(|(_, source)| source != NOT_PUBLISHED).map(|(key, _)| key));
    }
    Ok(keys)
}

fn to_table<T: Serialize>(settings: &T) -> Result<Table> {
    Ok(toml::from_str(&toml::to_string(settings)?)?)
}

/// Dotted keys with their values, as text.
fn leaves(table: &Table, prefix: &str) -> Vec<(String, String)> {
    let leaf = |(name, value): (&String, &toml::Value)| match value {
        toml::Value::Table(inner) => leaves(inner, &format!("{prefix}{name}.")),
        value => vec![(format!("{prefix}{name}"), value.to_string())],
    };
    table.iter().flat_map(leaf).collect()
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use temper_train::{Documented, resolve};

    use super::*;

    fn resolved<T>(preset: &str, stage: Stage, sets: &[&str]) -> (T, &'static str)
    where
        T: Serialize + DeserializeOwned + Default + Documented,
    {
        let text = recipe::stage_settings(preset, stage).unwrap();
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        (resolve(Some(text), None, &sets).unwrap(), text)
    }

    fn of_ppo(preset: &str, sets: &[&str], ptx_data_given: bool) -> Vec<String> {
        let (config, text) = resolved::<PpoConfig>(preset, Stage::Ppo, sets);
        sentences(&ppo(&config, ptx_data_given), &asked_for(&config, Some(text)).unwrap())
    }

    #[test]
    fn values_of_a_preset_that_nothing_reads_are_named() {
        let text = "note: `ptx.coef`, `ptx.sequences_per_episode` have no effect: there is no `--ptx-data`, so no text is \
                    mixed in";
        assert_eq!(of_ppo("instructgpt-1.3b", &[], false), [text]);
        assert_eq!(of_ppo("instructgpt-1.3b", &[], true), [""; 0]);
        let critic = "note: `ppo.vf_coef` has no effect: the critic is a network of its own, whose steps \
                      `critic.learning_rate` sets";
        assert_eq!(of_ppo("trl", &[], false), [critic]);
        assert_eq!(of_ppo("tldr-1b", &[], false), [critic]);
        assert_eq!(of_ppo("lm-human-preferences", &[], false), [""; 0]);
        let head = of_ppo("trl", &["critic.kind=value_head"], false);
        assert!(
            head.len() == 1 && head[0].starts_with("note: `critic.learning_rate` has no effect"),
            "{head:?}"
        );
        let rloo = of_ppo("trl", &["advantage.kind=rloo", "rollout.samples_per_prompt=2"], false);
        assert!(
            rloo.len() == 1 && rloo[0].contains("`ppo.gae_lambda` have no effect: with this"),
            "{rloo:?}"
        );
    }

    #[test]
    fn defaults_that_nobody_asked_for_are_not_named() {
        let config = PpoConfig::default();
        assert_eq!(sentences(&ppo(&config, false), &asked_for(&config, None).unwrap()), [""; 0]);
        let sets = ["ptx.coef=0.5", "kl.horizon=5", "rollout.stop_after=3"].map(str::to_owned);
        let config: PpoConfig = resolve(None, None, &sets).unwrap();
        let notes = sentences(&ppo(&config, false), &asked_for(&config, None).unwrap());
        assert!(
            notes.len() == 3
                && notes[2].contains("rollout.stop_after")
                && notes[0].starts_with("note: `ptx.coef` has")
                && notes[1].contains("kl.horizon")
        );
    }

    #[test]
    fn normalisation_needs_demonstrations_and_dropout_a_model_that_has_it() {
        let (config, text) = resolved::<RewardConfig>("lm-human-preferences", Stage::Reward, &[]);
        let asked = asked_for(&config, Some(text)).unwrap();
        let notes = |given| sentences(&reward(&config, given), &asked);
        let none = notes(Given::default());
        assert!(none.len() == 1 && none[0].contains("`normalize` has no effect"), "{none:?}");
        assert_eq!(notes(Given { normalize_data: true, ..Given::default() }), [""; 0]);

        let (config, text) = resolved::<SftConfig>("instructgpt-1.3b", Stage::Sft, &[]);
        let asked = asked_for(&config, Some(text)).unwrap();
        let notes = |given| sentences(&sft(&config, given), &asked);
        let none = notes(Given::default());
        assert!(none.len() == 1 && none[0].contains("`dropout` has no effect"), "{none:?}");
        assert_eq!(notes(Given { dropout: true, template: true, ..Given::default() }), [""; 0]);
    }

    #[test]
    fn a_template_that_the_model_brings_leaves_the_setting_without_effect() {
        let own = Given { template: true, ..Given::default() };
        let config = DpoConfig { template: "bare".into(), ..DpoConfig::default() };
        let asked = asked_for(&config, None).unwrap();
        let note = "note: `template` has no effect: the model directory brings its own template.json";
        assert_eq!(sentences(&dpo(&config, own), &asked), [note]);
        assert_eq!(sentences(&dpo(&config, Given::default()), &asked), [""; 0]);
        let config = DpoConfig::default();
        assert_eq!(sentences(&dpo(&config, own), &asked_for(&config, None).unwrap()), [""; 0]);
    }
}
