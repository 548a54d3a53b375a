//! Built-in recipes and presets, in one table.
//!
//! - A recipe is our own data with our settings of every stage: a directory in `assets/recipes`.
//! - A preset is the published settings of others, each value with its source: a directory in `assets/presets`.
//!
//! To add one, add its directory, which has one TOML file per stage, and its entry in [`RECIPES`] or [`PRESETS`].

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use temper_courtesy::{Sizes, Task};
use temper_train::write_file;

use crate::args::Stage;
use crate::failure::hinted;

/// The text of a file in the assets directory of this repository.
macro_rules! asset {
    ($($part:expr),+) => { include_str!(concat!("../../../assets/", $($part),+)) };
}

/// The settings in one directory of the assets: `settings!("recipes", "notebook": Sft Reward Ppo)`.
///
/// Each stage that is named has a file; `"sft.toml"` for `Sft`. A reason for a missing SFT stage may follow.
macro_rules! settings {
    (@file Sft) => { "sft.toml" };
    (@file Reward) => { "reward.toml" };
    (@file Dpo) => { "dpo.toml" };
    (@file Ppo) => { "ppo.toml" };
    ($kind:literal, $name:literal: $($stage:ident)+ $(, without_sft $reason:literal)?) => {
        StageSettings {
            name: $name,
            stages: &[$((Stage::$stage, asset!($kind, "/", $name, "/", settings!(@file $stage)))),+],
            without_sft: [$($reason,)? ""][0],
        }
    };
}

/// The data of one directory in `assets/recipes`: `rows!("notebook")`.
macro_rules! rows {
    ($name:literal) => {
        Data::Rows([
            ("demonstrations.jsonl", asset!("recipes/", $name, "/demonstrations.jsonl")),
            ("comparisons.jsonl", asset!("recipes/", $name, "/comparisons.jsonl")),
            ("prompts.jsonl", asset!("recipes/", $name, "/prompts.jsonl")),
        ])
    };
}

/// The recipes, in the order in which help texts list them.
static RECIPES: [Recipe; 3] = [
    Recipe {
        settings: settings!("recipes", "courtesy": Sft Reward Dpo Ppo),
        about: "Short questions with an exact judge",
        model: "small",
        data: Data::Courtesy,
    },
    Recipe {
        settings: settings!("recipes", "notebook": Sft Reward Ppo),
        about: "The notebook's five questions",
        model: "notebook",
        data: rows!("notebook"),
    },
    Recipe {
        settings: settings!("recipes", "notebook-zh": Sft Reward Ppo),
        about: "The same in Chinese",
        model: "notebook",
        data: rows!("notebook-zh"),
    },
];

/// The settings of others.
static PRESETS: [StageSettings; 4] = [
    settings!("presets", "instructgpt-1.3b": Sft Reward Ppo),
    settings!("presets", "tldr-1b": Sft Reward Ppo),
    settings!(
        "presets", "lm-human-preferences": Reward Ppo,
        without_sft "its policy is GPT-2 as released: give that directory to `temper reward` and `temper ppo`"
    ),
    settings!("presets", "trl": Sft Reward Ppo),
];

/// What `--preset` accepts: the TOML text of some stages under one name.
#[derive(Clone, Copy, Debug)]
struct StageSettings {
    name: &'static str,
    stages: &'static [(Stage, &'static str)],
    /// What to do instead where there is no SFT stage.
    without_sft: &'static str,
}

/// Every name that `--preset` accepts.
fn presets() -> impl Iterator<Item = &'static StageSettings> {
    RECIPES.iter().map(|recipe| &recipe.settings).chain(&PRESETS)
}

/// The TOML of one stage of a recipe or preset.
///
/// # Errors
/// An unknown name, or a stage that the preset does not have.
pub fn stage_settings(name: &str, stage: Stage) -> Result<&'static str> {
    let Some(preset) = presets().find(|preset| preset.name == name) else {
        let names: Vec<&str> = presets().map(|preset| preset.name).collect();
        return Err(hinted(
            format!("no preset is called `{name}`"),
            format!("presets: {}", names.join(", ")),
        ));
    };
    if let Some((_, text)) = preset.stages.iter().find(|(other, _)| *other == stage) {
        return Ok(text);
    }
    Err(match stage {
        Stage::Sft => hinted(format!("the preset `{name}` has no SFT stage"), preset.without_sft),
        _ => hinted(
            format!("the preset `{name}` has nothing for {}", format!("{stage:?}").to_uppercase()),
            "`temper config dpo --preset courtesy` prints one that has",
        ),
    })
}

/// A built-in recipe: data, a model to start from, and the settings of every stage.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    settings: StageSettings,
    about: &'static str,
    model: &'static str,
    data: Data,
}

/// Where the data files of a recipe come from.
#[derive(Clone, Copy, Debug)]
enum Data {
    /// Generated from a seed by `temper-courtesy`, whose rule judges the answers.
    Courtesy,
    /// These files, as name and text. The demonstrations are the only right answers.
    Rows([(&'static str, &'static str); 3]),
}

impl ValueEnum for Recipe {
    fn value_variants<'a>() -> &'a [Self] {
        &RECIPES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.about))
    }
}

impl Recipe {
    /// The recipe of the original notebook in English.
    pub fn notebook() -> Self {
        RECIPES[1]
    }

    /// As it is typed.
    pub fn name(self) -> &'static str {
        self.settings.name
    }

    /// The model preset that SFT starts from.
    pub fn model(self) -> &'static str {
        self.model
    }

    /// Whether the rule of `temper-courtesy` judges its answers. Only such a recipe has held-out files and plain text.
    pub fn is_courtesy(self) -> bool {
        matches!(self.data, Data::Courtesy)
    }

    /// Writes the recipe's data files into `dir`. Files with the same content are left as they are.
    ///
    /// # Errors
    /// An existing file with other content, and then nothing is written; or a failure of the disk.
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
        match self.data {
            Data::Courtesy => Task::new().generate(seed, &Sizes::default()).files(),
            Data::Rows(files) => files.map(|(name, text)| (name, text.as_bytes().to_vec())).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use temper_dpo::DpoConfig;
    use temper_ppo::PpoConfig;
    use temper_reward::RewardConfig;
    use temper_sft::SftConfig;
    use temper_train::{NOT_PUBLISHED, Settings, leaves, resolve, to_sourced_toml, trailing_comments};
    use toml::Table;

    use super::*;

    /// What a preset says resolves, with a source after each value, and what it calls unpublished is the default.
    fn check<T: Settings>(name: &str, stage: Stage) {
        let text = stage_settings(name, stage).unwrap();
        let settings: T = resolve(Some(text), None, &[]).unwrap_or_else(|e| panic!("{name} {stage:?}: {e}"));
        settings.check("").unwrap_or_else(|e| panic!("{name} {stage:?}: {e}"));
        let sources = trailing_comments(text).unwrap();
        let defaults = toml::from_str::<Table>(&toml::to_string(&T::default()).unwrap()).unwrap();
        let defaults = leaves(&defaults);
        for (key, value) in leaves(&toml::from_str(text).unwrap()) {
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
        for preset in &PRESETS {
            for (stage, _) in preset.stages {
                match stage {
                    Stage::Sft => check::<SftConfig>(preset.name, Stage::Sft),
                    Stage::Reward => check::<RewardConfig>(preset.name, Stage::Reward),
                    Stage::Dpo => check::<DpoConfig>(preset.name, Stage::Dpo),
                    Stage::Ppo => check::<PpoConfig>(preset.name, Stage::Ppo),
                }
            }
        }
    }

    /// A directory that somebody added and forgot to enter in the table would be silently unavailable.
    #[test]
    fn every_directory_of_the_assets_is_in_the_table_with_all_its_stages() {
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
        let mut files = Vec::new();
        for kind in ["recipes", "presets"] {
            for dir in assets.join(kind).read_dir().unwrap() {
                let dir = dir.unwrap();
                let name = dir.file_name().into_string().unwrap();
                let stages = [Stage::Sft, Stage::Reward, Stage::Dpo, Stage::Ppo];
                let has_file =
                    |stage: &Stage| dir.path().join(format!("{stage:?}.toml").to_lowercase()).exists();
                files.extend(stages.into_iter().filter(has_file).map(|stage| (name.clone(), stage)));
            }
        }
        assert!(files.len() > 15, "{files:?}");
        for (name, stage) in &files {
            assert!(stage_settings(name, *stage).is_ok(), "{name} {stage:?} is not in the table");
        }
        assert_eq!(presets().map(|preset| preset.stages.len()).sum::<usize>(), files.len());
    }

    #[test]
    fn a_preset_names_its_base_model_before_its_first_value() {
        let stages = [Stage::Sft, Stage::Reward, Stage::Ppo];
        let mut texts: Vec<&str> = stages.map(|stage| stage_settings("tldr-1b", stage).unwrap()).into();
        texts.push(stage_settings("trl", Stage::Ppo).unwrap());
        for text in texts {
            let header = text.split("epochs = ").next().unwrap();
            assert!(header.contains("Pythia") && header.contains("docs/models.md"), "{header}");
        }
    }

    #[test]
    fn an_unknown_name_or_a_missing_stage_is_an_error() {
        for preset in presets() {
            for stage in [Stage::Sft, Stage::Reward, Stage::Ppo] {
                let is_missing = (preset.name, stage) == ("lm-human-preferences", Stage::Sft);
                assert_eq!(
                    stage_settings(preset.name, stage).is_err(),
                    is_missing,
                    "{} {stage:?}",
                    preset.name
                );
            }
        }
        let error = stage_settings("notebook", Stage::Dpo).unwrap_err().to_string();
        assert_eq!(error, "the preset `notebook` has nothing for DPO");
        assert_eq!(Recipe::notebook().name(), "notebook");
        let error = stage_settings("instructgpt", Stage::Sft).unwrap_err().to_string();
        assert_eq!(error, "no preset is called `instructgpt`");
    }
}
