//! A ranking of four completions as one row, against its six pairs taken one by one.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use burn::tensor::Device;
use serde_json::{Value, json};
use temper_courtesy::{Sizes, Task};
use temper_data::{BadRows, Comparison, Demonstration, Demonstrations, Encoding, Rankings, read_rows};
use temper_model::{CausalLm, ModelConfig, ScalarModel};
use temper_reward::{RewardConfig, evaluate};
use temper_sft::SftConfig;
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::{Run, Seed, resolve};

use crate::args::Stage;
use crate::commands::print_json;
use crate::recipe;

/// A part of the courtesy recipe's data that takes minutes.
const RANKINGS: usize = 6_000;
const DEMONSTRATIONS: usize = 12_800;
/// Pairs of four completions.
const PAIRS_PER_RANKING: usize = 6;
/// Rankings in a batch, and passes over them.
const BATCH: usize = 32;
const PASSES: usize = 2;

/// Trains the courtesy reward model from the same SFT model, with the recipe's settings: on rankings, twice, in batches
/// of 32; and once on the same comparisons as rows of their own, in batches of as many pairs as 16 rankings have. Both
/// make the same number of updates at the same learning rates.
///
/// One pass over the pairs reads a completion three times, in three updates, since it is in three of them; so two passes
/// over the rankings are the less reading still.
///
/// The pairs of one prompt are in different rows and, as the rows are shuffled, nearly always in different batches.
/// A pair still has its prompt once, as everywhere in Temper: with a row for each completion it would take longer.
pub fn rankings(seed: Seed, sft_model: Option<&Path>, device: &Device) -> Result<()> {
    let text = TextSide::new(Tokenizer::byte(), Template::bare());
    let context = ModelConfig::preset("small")?.max_seq_len;
    let dir = tempfile::tempdir()?;
    let sizes = Sizes { demonstrations: DEMONSTRATIONS, comparisons: RANKINGS, ..Sizes::default() };
    Task::new().generate(seed.0, &sizes).write(dir.path())?;
    let comparisons = |name: &str| -> Result<Vec<Comparison>> {
        Ok(read_rows(&[dir.path().join(name)], BadRows::Refuse)?.records)
    };
    let dataset = |rows: &[Comparison]| Rankings::new(rows, &Encoding::new(&text, context));
    let rankings = comparisons("comparisons.jsonl")?;
    let pairs: Vec<Comparison> = rankings.iter().flat_map(pairs).collect();
    let held_out = dataset(&comparisons("comparisons_heldout.jsonl")?)?;

    let policy = match sft_model {
        Some(dir) => CausalLm::load(dir, device)?,
        None => imitate(dir.path(), seed, device)?,
    };
    let mut config: RewardConfig =
        resolve(Some(recipe::stage_settings("courtesy", Stage::Reward)?), None, &[])?;
    config.training.seed = seed.0;
    config.training.checkpoint_every = 0;
    let train = |rows: &[Comparison], batch_size: usize, epochs: usize| -> Result<(f64, f64)> {
        let data = dataset(rows)?;
        let mut config = config.clone();
        (config.training.batch_size, config.training.epochs) = (batch_size, epochs);
        let mut head = seed.stream("reward_head");
        let model = ScalarModel::new(policy.transformer.clone(), config.pooling, &mut head);
        let began = Instant::now();
        let model = temper_reward::train(&config, model, &text, &data, None, &mut Run::ephemeral()?)?;
        let seconds = began.elapsed().as_secs_f64();
        Ok((seconds, evaluate(&model, &held_out, batch_size).eval_accuracy))
    };
    let (seconds, accuracy) = train(&rankings, BATCH, PASSES)?;
    let (pairs_seconds, pairs_accuracy) = train(&pairs, PAIRS_PER_RANKING * BATCH / PASSES, 1)?;
    let line: Value = json!({
        "name": "rankings",
        "rankings": rankings.len(),
        "pairs": pairs.len(),
        "seconds": seconds,
        "pairs_seconds": pairs_seconds,
        "accuracy": accuracy,
        "pairs_accuracy": pairs_accuracy,
        "times_as_fast": pairs_seconds / seconds,
    });
    print_json(&line)
}

/// An SFT model of a part of the demonstrations, the recipe's settings else.
fn imitate(data: &Path, seed: Seed, device: &Device) -> Result<CausalLm> {
    let text = TextSide::new(Tokenizer::byte(), Template::bare());
    let model = ModelConfig::preset("small")?;
    let mut config: SftConfig = resolve(Some(recipe::stage_settings("courtesy", Stage::Sft)?), None, &[])?;
    config.training.seed = seed.0;
    config.training.checkpoint_every = 0;
    let rows = read_rows::<Demonstration>(&[data.join("demonstrations.jsonl")], BadRows::Refuse)?.records;
    let rows = Demonstrations::new(&rows, &Encoding::new(&text, model.max_seq_len))?;
    let policy = CausalLm::new(&model, &mut seed.stream("init"), device);
    Ok(temper_sft::train(&config, policy, &text, &rows, None, &mut Run::ephemeral()?)?)
}

/// Every pair of a ranking that is not tied, as a comparison of its own.
fn pairs(ranking: &Comparison) -> Vec<Comparison> {
    let n = ranking.completions.len();
    let all = (0..n).flat_map(|a| (0..n).map(move |b| (a, b)));
    all.filter(|&(a, b)| ranking.scores[a] > ranking.scores[b])
        .map(|(a, b)| {
            Comparison::pair(ranking.prompt.clone(), &ranking.completions[a], &ranking.completions[b])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ranking_with_a_tie_has_five_pairs() {
        let completions = ["a", "b", "c", "d"].map(str::to_owned).into();
        let ranking = Comparison { prompt: "p".into(), completions, scores: vec![1.0, 3.0, 0.0, 1.0] };
        let texts: Vec<[String; 2]> =
            pairs(&ranking).into_iter().map(|pair| pair.completions.try_into().unwrap()).collect();
        assert_eq!(
            texts,
            [["a", "c"], ["b", "a"], ["b", "c"], ["b", "d"], ["d", "c"]].map(|p| p.map(str::to_owned))
        );
    }
}
