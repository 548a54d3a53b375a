//! The notebook's own training (N4, N7): Temper's curves among those of five PyTorch seeds.
//!
//! `assets/goldens/notebook_curves.py` trains the same model on the same rows with the same settings. Weights, shuffling
//! and dropout are other draws of the same distributions, so curves are compared as draws and not as numbers.

use std::path::Path;

use temper_data::{BadRows, Comparison, Demonstration, Demonstrations, Encoding, Rankings, read_rows};
use temper_model::{CausalLm, ModelConfig, Pooling, ScalarModel};
use temper_reward::RewardConfig;
use temper_sft::SftConfig;
use temper_tokenizer::{Overflow, Template, TextSide, Tokenizer};
use temper_train::{BatchingConfig, Run, Seed, TrainingConfig, read_metrics};

use crate::backends::backends;
use crate::golden::{numbers, section};

const SEEDS: [u64; 3] = [0, 1, 2];

struct Curves {
    /// Mean of the batches' losses in each epoch.
    sft: Vec<f64>,
    /// Loss in each epoch.
    reward: Vec<f64>,
}

fn losses(run: &Run) -> Vec<f64> {
    let lines = read_metrics(&run.dir().join("metrics.jsonl")).unwrap();
    lines.iter().map(|line| line["loss"].as_f64().unwrap()).collect()
}

/// The notebook's settings, literally: 30 epochs in batches of 2 at 1e-3, then 50 epochs of all comparisons at 1e-4.
fn train(seed: u64) -> Curves {
    let device = &backends()[0].device;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/recipes/notebook");
    let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
    let shape = ModelConfig::preset("notebook").unwrap();
    let context = shape.max_seq_len;

    let rows =
        read_rows::<Demonstration>(&[data.join("demonstrations.jsonl")], BadRows::Refuse).unwrap().records;
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let rows = Demonstrations::new(&rows, &Encoding::new(&text, context)).unwrap();
    let training = TrainingConfig {
        epochs: 30,
        batch_size: 2,
        learning_rate: 1e-3,
        seed,
        ..SftConfig::default().training
    };
    let batching = BatchingConfig { bucket_by_length: false, ..BatchingConfig::default() };
    let config = SftConfig { training, batching, ..SftConfig::default() };
    let model = CausalLm::new(&shape, &mut Seed(seed).stream("init"), device);
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let mut run = Run::ephemeral().unwrap();
    let sft = temper_sft::train(&config, model, &text, &rows, None, &mut run).unwrap();
    let batches = losses(&run);
    assert_eq!(batches.len(), 3 * 30, "batches of 2, 2 and 1");

    let rows = read_rows::<Comparison>(&[data.join("comparisons.jsonl")], BadRows::Refuse).unwrap().records;
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let rows = Rankings::new(
        &rows,
        &Encoding { overflow: Overflow::TruncatePrompt, ..Encoding::new(&text, context) },
    )
    .unwrap();
    let training = TrainingConfig {
        epochs: 50,
        batch_size: 4,
        learning_rate: 1e-4,
        seed,
        ..RewardConfig::default().training
    };
    let config = RewardConfig { training, ..RewardConfig::default() };
    let model = ScalarModel::new(sft.transformer, Pooling::Mean, &mut Seed(seed).stream("reward_head"));
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let mut run = Run::ephemeral().unwrap();
    temper_reward::train(&config, model, &text, &rows, None, &mut run).unwrap();

    Curves {
        sft: batches.chunks(3).map(|epoch| epoch.iter().sum::<f64>() / 3.0).collect(),
        reward: losses(&run),
    }
}

/// The loss must be in the range of PyTorch's seeds at that epoch, or out of it by no more than `margin`.
fn assert_among(who: &str, losses: &[f64], curves: &[Vec<f64>], margin: f64) {
    assert_eq!(losses.len(), curves[0].len(), "{who}");
    for (epoch, &loss) in losses.iter().enumerate() {
        let (lowest, highest) = range(curves, epoch);
        println!("{who}, epoch {epoch}: {loss:.3}, PyTorch {lowest:.3} to {highest:.3}");
        let allowed = lowest - margin..=highest + margin;
        assert!(allowed.contains(&loss), "{who}, epoch {epoch}: {loss:.3}, not in {allowed:.3?}");
    }
}

/// Means of three epochs in a row: which row is alone in its batch is chance, and moves the mean of a single epoch.
fn smooth(curve: &[f64]) -> Vec<f64> {
    curve.windows(3).map(|window| window.iter().sum::<f64>() / 3.0).collect()
}

fn range(curves: &[Vec<f64>], epoch: usize) -> (f64, f64) {
    let losses = || curves.iter().map(|curve| curve[epoch]);
    (losses().fold(f64::INFINITY, f64::min), losses().fold(0.0, f64::max))
}

/// A sixth curve leaves the range of five in one epoch out of three, so a seed may leave it by as much as the range is
/// wide on average, and the mean of three seeds by half of that: 0.14 and 0.07 nats.
#[test]
fn the_notebooks_curves_lie_among_pytorchs() {
    let golden = |name: &str| -> Vec<Vec<f64>> {
        section("notebook_curves.json", name).as_array().unwrap().iter().map(numbers).collect()
    };
    let (sft, reward) = (golden("sft"), golden("reward"));
    let sft: Vec<Vec<f64>> = sft.iter().map(|curve| smooth(curve)).collect();
    let epochs = sft[0].len();
    let widths = (0..epochs).map(|epoch| range(&sft, epoch)).map(|(lowest, highest)| highest - lowest);
    let width = widths.sum::<f64>() / epochs as f64;
    let (_, slowest) = range(&reward, reward[0].len() - 1);

    let mut mean = vec![0.0; epochs];
    for seed in SEEDS {
        let found = train(seed);
        let losses = smooth(&found.sft);
        assert_among(&format!("seed {seed}"), &losses, &sft, width);
        mean.iter_mut().zip(&losses).for_each(|(mean, loss)| *mean += loss / SEEDS.len() as f64);
        // Chance decides how far apart the scores start, but all comparisons are learned in the end.
        let last = found.reward[reward[0].len() - 1];
        println!("seed {seed}: reward loss {last:.5}, the highest of PyTorch's {slowest:.5}");
        assert!(last <= slowest, "seed {seed}: reward loss {last:.5}, above PyTorch's {slowest:.5}");
    }
    assert_among("mean", &mean, &sft, width / 2.0);
}
