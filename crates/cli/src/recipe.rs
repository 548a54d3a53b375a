//! Built-in recipes, data that is ours and the settings of all three stages; and presets, the settings of others.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use temper_courtesy::{Sizes, Task};
use temper_train::write_file;

use crate::args::{RecipeName, Stage};
use crate::failure::hinted;

/// Names that `--preset` knows: the recipes, and those whose values come with their sources.
pub const NAMES: [&str; 7] =
    ["courtesy", "notebook", "notebook-zh", "instructgpt-1.3b", "tldr-1b", "lm-human-preferences", "trl"];

macro_rules! asset {
    ($path:literal) => {
        include_str!(concat!("../../../assets/recipes/", $path))
    };
}

macro_rules! preset {
    ($path:literal) => {
        include_str!(concat!("../../../assets/presets/", $path))
    };
}

/// The TOML of one stage of a recipe or preset.
///
/// # Errors
/// A name that there is not, or a stage that it does not have.
pub fn stage_settings(name: &str, stage: Stage) -> Result<&'static str> {
    Ok(match (name, stage) {
        ("courtesy", Stage::Sft) => asset!("courtesy/sft.toml"),
        ("courtesy", Stage::Reward) => asset!("courtesy/reward.toml"),
        ("courtesy", Stage::Dpo) => asset!("courtesy/dpo.toml"),
        ("courtesy", Stage::Ppo) => asset!("courtesy/ppo.toml"),
        ("notebook", Stage::Sft) => asset!("notebook/sft.toml"),
        ("notebook", Stage::Reward) => asset!("notebook/reward.toml"),
        ("notebook", Stage::Ppo) => asset!("notebook/ppo.toml"),
        ("notebook-zh", Stage::Sft) => asset!("notebook-zh/sft.toml"),
        ("notebook-zh", Stage::Reward) => asset!("notebook-zh/reward.toml"),
        ("notebook-zh", Stage::Ppo) => asset!("notebook-zh/ppo.toml"),
        ("instructgpt-1.3b", Stage::Sft) => preset!("instructgpt-1.3b/sft.toml"),
        ("instructgpt-1.3b", Stage::Reward) => preset!("instructgpt-1.3b/reward.toml"),
        ("instructgpt-1.3b", Stage::Ppo) => preset!("instructgpt-1.3b/ppo.toml"),
        ("tldr-1b", Stage::Sft) => preset!("tldr-1b/sft.toml"),
        ("tldr-1b", Stage::Reward) => preset!("tldr-1b/reward.toml"),
        ("tldr-1b", Stage::Ppo) => preset!("tldr-1b/ppo.toml"),
        ("lm-human-preferences", Stage::Reward) => preset!("lm-human-preferences/reward.toml"),
        ("lm-human-preferences", Stage::Ppo) => preset!("lm-human-preferences/ppo.toml"),
        ("trl", Stage::Sft) => preset!("trl/sft.toml"),
        ("trl", Stage::Reward) => preset!("trl/reward.toml"),
        ("trl", Stage::Ppo) => preset!("trl/ppo.toml"),
        ("lm-human-preferences", Stage::Sft) => {
            return Err(hinted(
                "the preset `lm-human-preferences` has no SFT stage",
                "its policy is GPT-2 as released: give that directory to `temper reward` and `temper ppo`",
            ));
        }
        (known, Stage::Dpo) if NAMES.contains(&known) => {
            return Err(hinted(
                format!("the preset `{known}` has nothing for DPO"),
                "`temper config dpo --preset courtesy` prints one that has",
            ));
        }
        _ => {
            return Err(hinted(
                format!("no preset is called `{name}`"),
                format!("presets: {}", NAMES.join(", ")),
            ));
        }
    })
}

impl RecipeName {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Courtesy => "courtesy",
            Self::Notebook => "notebook",
            Self::NotebookZh => "notebook-zh",
        }
    }

    /// The model preset that SFT starts from.
    pub fn model(self) -> &'static str {
        match self {
            Self::Courtesy => "small",
            Self::Notebook | Self::NotebookZh => "notebook",
        }
    }

    /// Writes the recipe's data files into `dir`. Those that are there already with the same content stay.
    ///
    /// # Errors
    /// A file of one of their names with other content, and then nothing is written; a disk that refuses.
    pub fn write_data(self, dir: &Path, seed: u64) -> Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let mut missing = Vec::new();
        for (name, content) in self.files(seed) {
            let path = dir.join(name);
            match std::fs::symlink_metadata(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => missing.push((path, content)),
                Ok(there) if there.is_file() && std::fs::read(&path).is_ok_and(|bytes| bytes == content) => {}
                _ => {
                    return Err(hinted(
                        format!("{} exists and is not of this recipe and seed", path.display()),
                        "move it away, or choose another `--out`",
                    ));
                }
            }
        }
        missing.iter().try_for_each(|(path, content)| Ok(write_file(path, content)?))
    }

    /// The names of the recipe's data files, and what is in them.
    fn files(self, seed: u64) -> Vec<(&'static str, Vec<u8>)> {
        let files = match self {
            Self::Courtesy => return Task::new().generate(seed, &Sizes::default()).files(),
            Self::Notebook => [
                ("demonstrations.jsonl", asset!("notebook/demonstrations.jsonl")),
                ("comparisons.jsonl", asset!("notebook/comparisons.jsonl")),
                ("prompts.jsonl", asset!("notebook/prompts.jsonl")),
            ],
            Self::NotebookZh => [
                ("demonstrations.jsonl", asset!("notebook-zh/demonstrations.jsonl")),
                ("comparisons.jsonl", asset!("notebook-zh/comparisons.jsonl")),
                ("prompts.jsonl", asset!("notebook-zh/prompts.jsonl")),
            ],
        };
        files.map(|(name, text)| (name, text.as_bytes().to_vec())).into()
    }
}

#[cfg(test)]
mod tests {
    use temper_ppo::PpoConfig;
    use temper_reward::RewardConfig;
    use temper_sft::SftConfig;
    use temper_train::{NOT_PUBLISHED, Settings, resolve, to_sourced_toml, trailing_comments};
    use toml::{Table, Value};

    use super::*;

    /// Those that are not our own.
    const PRESETS: [&str; 4] = ["instructgpt-1.3b", "tldr-1b", "lm-human-preferences", "trl"];

    /// Dotted keys with their values.
    fn leaves(table: &Table, prefix: &str) -> Vec<(String, Value)> {
        let leaf = |(name, value): (&String, &Value)| match value {
            Value::Table(inner) => leaves(inner, &format!("{prefix}{name}.")),
            value => vec![(format!("{prefix}{name}"), value.clone())],
        };
        table.iter().flat_map(leaf).collect()
    }

    /// What a preset says resolves, with a source after each value, and what it calls unpublished is the default.
    fn check<T: Settings>(name: &str, stage: Stage) {
        let text = stage_settings(name, stage).unwrap();
        let settings: T = resolve(Some(text), None, &[]).unwrap_or_else(|e| panic!("{name} {stage:?}: {e}"));
        settings.check("").unwrap_or_else(|e| panic!("{name} {stage:?}: {e}"));
        let sources = trailing_comments(text).unwrap();
        let defaults = toml::from_str::<Table>(&toml::to_string(&T::default()).unwrap()).unwrap();
        let defaults = leaves(&defaults, "");
        for (key, value) in leaves(&toml::from_str(text).unwrap(), "") {
            let source = sources.iter().find(|(other, _)| *other == key).map(|(_, source)| source.as_str());
            let source = source.unwrap_or_else(|| panic!("{name} {stage:?}: `{key}` has no source"));
            if source.starts_with("not published") {
                assert_eq!(source, NOT_PUBLISHED, "{name} {stage:?}: `{key}`");
                let default = defaults.iter().find(|(other, _)| *other == key).map(|(_, value)| value);
                assert_eq!(default, Some(&value), "{name} {stage:?}: `{key}`");
            }
        }
        // Nothing that is printed is without its source either.
        let printed = to_sourced_toml(&settings, text).unwrap();
        for line in printed.lines().filter(|line| line.contains(" = ")) {
            assert!(line.contains("  # "), "{name} {stage:?}: {line}");
        }
    }

    #[test]
    fn every_value_of_every_preset_has_a_source_and_is_in_range() {
        for name in PRESETS {
            if name != "lm-human-preferences" {
                check::<SftConfig>(name, Stage::Sft);
            }
            check::<RewardConfig>(name, Stage::Reward);
            check::<PpoConfig>(name, Stage::Ppo);
        }
        assert!(PRESETS.iter().all(|name| NAMES.contains(name)));
    }

    #[test]
    fn a_preset_whose_base_model_cannot_be_read_says_so_before_its_first_value() {
        let stages = [Stage::Sft, Stage::Reward, Stage::Ppo];
        let mut texts: Vec<&str> = stages.map(|stage| stage_settings("tldr-1b", stage).unwrap()).into();
        texts.push(stage_settings("trl", Stage::Ppo).unwrap());
        for text in texts {
            let header = text.split("epochs = ").next().unwrap();
            assert!(header.contains("Pythia") && header.contains("which Temper does not read"), "{header}");
        }
    }

    #[test]
    fn a_stage_or_a_name_that_there_is_not_is_an_error() {
        for name in NAMES {
            for stage in [Stage::Sft, Stage::Reward, Stage::Ppo] {
                let none = (name, stage) == ("lm-human-preferences", Stage::Sft);
                assert_eq!(stage_settings(name, stage).is_err(), none, "{name} {stage:?}");
            }
        }
        let error = stage_settings("instructgpt", Stage::Sft).unwrap_err().to_string();
        assert_eq!(error, "no preset is called `instructgpt`");
    }
}
