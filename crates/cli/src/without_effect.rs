//! Notes at the start of a run on settings that somebody has asked for and that have no effect in it.
//!
//! A condition on another setting is declared next to the setting, by `only_with`. Here are those on what else a run is
//! given: its flags and its model.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use temper_dpo::DpoConfig;
use temper_ppo::PpoConfig;
use temper_reward::{Normalize, RewardConfig};
use temper_sft::SftConfig;
use temper_train::{NOT_PUBLISHED, trailing_comments, without_effect};
use toml::Table;

use crate::args::{Settings, Stage};
use crate::recipe;
use crate::session::Session;

/// What decides whether settings have an effect, in addition to the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given {
    /// Whether the model directory brings a `template.json`.
    pub template: bool,
    /// Whether the model's `config.json` names a dropout.
    pub dropout: bool,
    /// Whether there is `--normalize-data`.
    pub normalize_data: bool,
    /// Whether there is `--ptx-data`.
    pub ptx_data: bool,
}

/// Settings of a stage. Some of them have an effect only together with a flag, or if the model brings something.
pub trait NeedsMore: temper_train::Settings {
    /// Which stage's they are.
    const STAGE: Stage;

    /// The keys that have no effect, each with the reason. `auto` asks for no template in particular.
    fn idle(&self, given: Given) -> Vec<(&'static str, &'static str)>;
}

const OWN_TEMPLATE: &str = "the model directory brings its own template.json";

impl NeedsMore for SftConfig {
    const STAGE: Stage = Stage::Sft;

    fn idle(&self, given: Given) -> Vec<(&'static str, &'static str)> {
        let template = given.template && self.encoding.template != "auto";
        let dropout = self.dropout && !given.dropout;
        let why = "the model's config.json names no dropout";
        [template.then_some(("template", OWN_TEMPLATE)), dropout.then_some(("dropout", why))]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl NeedsMore for RewardConfig {
    const STAGE: Stage = Stage::Reward;

    fn idle(&self, given: Given) -> Vec<(&'static str, &'static str)> {
        let template = given.template && self.encoding.template != "auto";
        let normalize = self.normalize != Normalize::None && !given.normalize_data;
        let why = "there is no `--normalize-data`, so scores stay as they are learned";
        [template.then_some(("template", OWN_TEMPLATE)), normalize.then_some(("normalize", why))]
            .into_iter()
            .flatten()
            .collect()
    }
}

impl NeedsMore for DpoConfig {
    const STAGE: Stage = Stage::Dpo;

    fn idle(&self, given: Given) -> Vec<(&'static str, &'static str)> {
        let template = given.template && self.encoding.template != "auto";
        template.then_some(("template", OWN_TEMPLATE)).into_iter().collect()
    }
}

impl NeedsMore for PpoConfig {
    const STAGE: Stage = Stage::Ppo;

    fn idle(&self, given: Given) -> Vec<(&'static str, &'static str)> {
        if self.ptx.coef == 0.0 || given.ptx_data {
            return Vec::new();
        }
        let why = "there is no `--ptx-data`, so no text is mixed in";
        vec![("ptx.coef", why), ("ptx.sequences_per_episode", why)]
    }
}

/// Says which settings that somebody has asked for have no effect in this run.
pub fn note<T: NeedsMore>(session: &Session, settings: &Settings, config: &T, given: Given) -> Result<()> {
    let preset = settings.preset.as_deref().map(|name| recipe::stage_settings(name, T::STAGE)).transpose()?;
    notes(config, preset, given)?.iter().for_each(|note| session.note(note));
    Ok(())
}

/// One sentence for each reason.
fn notes<T: NeedsMore>(config: &T, preset: Option<&str>, given: Given) -> Result<Vec<String>> {
    let asked_for = asked_for(config, preset)?;
    let mut idle = without_effect(config)?;
    idle.extend(config.idle(given).into_iter().map(|(key, why)| (key.to_owned(), why.to_owned())));
    let mut keys_by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, why) in idle.into_iter().filter(|(key, _)| asked_for.contains(key)) {
        keys_by_reason.entry(why).or_default().push(format!("`{key}`"));
    }
    let sentence = |(why, keys): (String, Vec<String>)| {
        let have = if keys.len() == 1 { "has" } else { "have" };
        format!("note: {} {have} no effect: {why}", keys.join(", "))
    };
    Ok(keys_by_reason.into_iter().map(sentence).collect())
}

/// The keys whose value is not Temper's default, and those that a preset has from its source, whatever their value.
fn asked_for<T: temper_train::Settings>(config: &T, preset: Option<&str>) -> Result<BTreeSet<String>> {
    let defaults = leaves(&to_table(&T::default())?, "");
    let changed = leaves(&to_table(config)?, "").into_iter().filter(|leaf| !defaults.contains(leaf));
    let mut keys: BTreeSet<String> = changed.map(|(key, _)| key).collect();
    if let Some(text) = preset {
        let sources = trailing_comments(text)?;
        keys.extend(sources.into_iter().filter(|(_, source)| source != NOT_PUBLISHED).map(|(key, _)| key));
    }
    Ok(keys)
}

fn to_table<T: temper_train::Settings>(settings: &T) -> Result<Table> {
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
    use temper_train::resolve;

    use super::*;

    /// The notes of a run with these settings.
    fn noted<T: NeedsMore>(preset: Option<&str>, sets: &[&str], given: Given) -> Vec<String> {
        let preset = preset.map(|name| recipe::stage_settings(name, T::STAGE).unwrap());
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        notes(&resolve::<T>(preset, None, &sets).unwrap(), preset, given).unwrap()
    }

    fn of_ppo(preset: &str, sets: &[&str], ptx_data: bool) -> Vec<String> {
        noted::<PpoConfig>(Some(preset), sets, Given { ptx_data, ..Given::default() })
    }

    #[test]
    fn values_of_a_preset_that_nothing_reads_are_named() {
        let text = "note: `ptx.coef`, `ptx.sequences_per_episode` have no effect: there is no `--ptx-data`, so no text is \
                    mixed in";
        assert_eq!(of_ppo("instructgpt-1.3b", &[], false), [text]);
        assert_eq!(of_ppo("instructgpt-1.3b", &[], true), [""; 0]);
        let critic = "note: `update.vf_coef` has no effect: `critic.kind` is reward_model";
        assert_eq!(of_ppo("trl", &[], false), [critic]);
        assert_eq!(of_ppo("tldr-1b", &[], false), [critic]);
        assert_eq!(of_ppo("lm-human-preferences", &[], false), [""; 0]);
        let head = "note: `critic.learning_rate` has no effect: `critic.kind` is value_head";
        assert_eq!(of_ppo("trl", &["critic.kind=value_head"], false), [head]);
        let rloo = "note: `update.value_clip_range`, `update.vf_coef`, `update.gae_lambda`, `critic.kind`, \
                    `critic.learning_rate` have no effect: `advantage.kind` is rloo";
        let sets = ["advantage.kind=rloo", "rollout.samples_per_prompt=2"];
        assert_eq!(of_ppo("trl", &sets, false), [rloo]);
    }

    #[test]
    fn defaults_that_nobody_asked_for_are_not_named() {
        assert_eq!(noted::<PpoConfig>(None, &[], Given::default()), [""; 0]);
        let sets = [
            "ptx.coef=0.5",
            "kl.horizon=5",
            "rollout.stop_after=3",
            "advantage.scale_by_std=false",
            "schedule.warmup_from=0.1",
        ];
        let expected = [
            "note: `advantage.scale_by_std` has no effect: `advantage.kind` is gae",
            "note: `kl.horizon` has no effect: `kl.target` is 0",
            "note: `rollout.stop_after` has no effect: `rollout.stop_token` is empty",
            "note: `schedule.warmup_from` has no effect: `schedule.warmup_steps` is 0",
            "note: `ptx.coef` has no effect: there is no `--ptx-data`, so no text is mixed in",
        ];
        assert_eq!(noted::<PpoConfig>(None, &sets, Given::default()), expected);
    }

    #[test]
    fn normalisation_needs_demonstrations_and_dropout_a_model_that_has_it() {
        let of_reward = |given| noted::<RewardConfig>(Some("lm-human-preferences"), &[], given);
        let none = of_reward(Given::default());
        assert!(none.len() == 1 && none[0].contains("`normalize` has no effect"), "{none:?}");
        assert_eq!(of_reward(Given { normalize_data: true, ..Given::default() }), [""; 0]);

        let of_sft = |given| noted::<SftConfig>(Some("instructgpt-1.3b"), &[], given);
        let none = of_sft(Given::default());
        assert!(none.len() == 1 && none[0].contains("`dropout` has no effect"), "{none:?}");
        assert_eq!(of_sft(Given { dropout: true, template: true, ..Given::default() }), [""; 0]);
    }

    #[test]
    fn a_template_that_the_model_brings_leaves_the_setting_without_effect() {
        let own = Given { template: true, ..Given::default() };
        let note = "note: `template` has no effect: the model directory brings its own template.json";
        assert_eq!(noted::<DpoConfig>(None, &["template=bare"], own), [note]);
        assert_eq!(noted::<DpoConfig>(None, &["template=bare"], Given::default()), [""; 0]);
        assert_eq!(noted::<DpoConfig>(None, &[], own), [""; 0]);
    }
}
