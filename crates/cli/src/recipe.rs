//! Built-in recipes: data that is ours, and the settings of all three stages.

use std::path::Path;

use anyhow::{Context, Result};
use temper_courtesy::{Sizes, Task};

use crate::args::{RecipeName, Stage};

/// Names that `--preset` knows.
pub const NAMES: [&str; 3] = ["courtesy", "notebook", "notebook-zh"];

macro_rules! asset {
    ($path:literal) => {
        include_str!(concat!("../../../assets/recipes/", $path))
    };
}

/// The TOML of one stage of a recipe.
pub fn stage_settings(recipe: &str, stage: Stage) -> Option<&'static str> {
    Some(match (recipe, stage) {
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
        _ => return None,
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

    /// Writes the recipe's data files into `dir`.
    pub fn write_data(self, dir: &Path, seed: u64) -> Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let files = match self {
            Self::Courtesy => {
                let data = Task::new().generate(seed, &Sizes::default());
                return data
                    .write(dir)
                    .with_context(|| format!("cannot write the data in {}", dir.display()));
            }
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
        for (name, text) in files {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}
