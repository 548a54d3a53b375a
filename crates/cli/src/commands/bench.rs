//! `temper bench`: one piece of work, timed. `cargo xtask bench` calls it, next to PyTorch.

mod rankings;
mod scorers;

use std::time::Instant;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::Device;
use serde_json::{Value, json};
use temper_courtesy::{Sizes, Task};
use temper_data::{
    BadRows, Comparison, Demonstration, Demonstrations, Encoding, PromptRow, Prompts, Rankings, read_rows,
};
use temper_model::{
    CausalLm, Dropout, GenerateOptions, ModelConfig, Pooling, Sampler, ScalarModel, generate,
};
use temper_ppo::{Critic, CriticKind, Models, PpoConfig, Sample};
use temper_reward::RewardConfig;
use temper_reward::score;
use temper_sft::{SftConfig, completion_logits, sft_loss};
use temper_tokenizer::{Example, Overflow, Template, TextSide, Tokenizer};
use temper_train::{AdamWConfig, Optimizer, Run, Seed, TrainingConfig, read_metrics, resolve};

use crate::args::{BenchArgs, Stage};
use crate::commands::{Outcome, print_json};
use crate::failure::hinted;
use crate::recipe::Recipe;
use crate::session::Session;
use crate::{device, recipe};

pub fn run(session: &Session, args: &BenchArgs) -> Result<Outcome> {
    let (repeats, seed) = (args.repeats.max(1), Seed(session.seed.unwrap_or(0)));
    let open = || device::open(session.device_name());
    match args.name.as_str() {
        "notebook" => notebook(seed, &open()?)?,
        "generate" => generation(repeats, &open()?)?,
        "sft_step" => sft_step(repeats, &open()?)?,
        "ppo_step" => ppo_step(repeats, &open()?)?,
        "tokenizer" => tokenizer(repeats)?,
        "scorers" => scorers::scorers(repeats, &open()?)?,
        "rankings" => rankings::rankings(seed, args.model.as_deref(), &open()?)?,
        other => {
            return Err(hinted(
                format!("no benchmark is called `{other}`"),
                "benchmarks: notebook, generate, sft_step, ppo_step, tokenizer, scorers, rankings",
            ));
        }
    }
    Ok(Outcome::Done)
}

/// The notebook's own work, once: what `assets/peers/notebook.py` does, without its mistakes.
///
/// Its 16 rollouts of one prompt each are 2 rollouts of 8 here, with 4 updates on each: as many sampled tokens,
/// unless an answer ends, and as many passes over every episode.
fn notebook(seed: Seed, device: &Device) -> Result<()> {
    let began = Instant::now();
    let mut lap = began;
    let mut seconds = || std::mem::replace(&mut lap, Instant::now()).elapsed().as_secs_f64();
    let data = NotebookData::read()?;
    let text = TextSide::new(Tokenizer::byte(), Template::notebook());
    let model = ModelConfig::preset("notebook")?;
    let context = model.max_seq_len;

    let training =
        TrainingConfig { epochs: 30, batch_size: 2, seed: seed.0, ..SftConfig::default().training };
    let config = SftConfig { training, ..SftConfig::default() };
    let rows = Demonstrations::new(&data.demonstrations, &Encoding::new(&text, context))?;
    let model = CausalLm::new(&model, &mut seed.stream("init"), device);
    let mut run = Run::ephemeral()?;
    let sft = temper_sft::train(&config, model, &text, &rows, None, &mut run)?;
    let sft_losses = losses(&run)?;
    let sft_seconds = seconds();

    let end_tokens = text.end_tokens();
    let asked: Vec<Vec<u32>> =
        data.demonstrations.iter().map(|row| text.encode_prompt(&row.prompt)).collect::<Result<_, _>>()?;
    generate(
        &sft,
        &asked,
        &GenerateOptions {
            max_new_tokens: 32,
            sampler: Sampler::Greedy,
            end_tokens,
            ..GenerateOptions::default()
        },
    )?;
    let generate_seconds = seconds();

    let training =
        TrainingConfig { epochs: 50, batch_size: 4, seed: seed.0, ..RewardConfig::default().training };
    let config = RewardConfig { training, ..RewardConfig::default() };
    let rows = Rankings::new(
        &data.comparisons,
        &Encoding { overflow: Overflow::TruncatePrompt, ..Encoding::new(&text, context) },
    )?;
    let model = ScalarModel::new(sft.transformer.clone(), Pooling::Mean, &mut seed.stream("reward_head"));
    let mut run = Run::ephemeral()?;
    let reward_model = temper_reward::train(&config, model, &text, &rows, None, &mut run)?;
    let reward_losses = losses(&run)?;
    let reward_seconds = seconds();

    let config = notebook_ppo(seed);
    let prompts = Prompts::new(&data.prompts, &Encoding::new(&text, context - 1))?;
    let models = Models { policy: sft.clone(), ref_policy: sft, critic: Critic::ValueHead };
    let mut ppo_tokens = 0;
    let mut score_samples = |samples: &[Sample<'_>]| {
        ppo_tokens += samples.iter().map(|sample| sample.completion_tokens.len()).sum::<usize>();
        let example = |sample: &Sample<'_>| {
            text.example_of_ids(sample.prompt_tokens, sample.completion_tokens, sample.ended)
        };
        let examples: Vec<Example> = samples.iter().map(example).collect();
        Ok(score(&reward_model, &examples.iter().collect::<Vec<_>>(), examples.len()))
    };
    temper_ppo::train(&config, models, &text, &prompts, &mut score_samples, &mut Run::ephemeral()?)?;
    let ppo_seconds = seconds();

    print_json(&json!({
        "name": "notebook",
        "seconds": began.elapsed().as_secs_f64(),
        "sft_seconds": sft_seconds,
        "generate_seconds": generate_seconds,
        "reward_seconds": reward_seconds,
        "ppo_seconds": ppo_seconds,
        "sft_loss_first": sft_losses.first(),
        "sft_loss_last": sft_losses.last(),
        "reward_loss_last": reward_losses.last(),
        "ppo_tokens": ppo_tokens,
    }))
}

/// The notebook's numbers for PPO (N8): 16 rollouts of one prompt, 4 updates after each, a value head on the policy.
fn notebook_ppo(seed: Seed) -> PpoConfig {
    let training = TrainingConfig {
        epochs: 4,
        max_steps: 16,
        batch_size: 1,
        learning_rate: 5e-5,
        ..PpoConfig::default().training
    };
    let mut config = PpoConfig { training, ..PpoConfig::default() };
    config.training.seed = seed.0;
    config.critic.kind = CriticKind::ValueHead;
    config.update.vf_coef = 0.5;
    config.rollout.max_new_tokens = 32;
    config.rollout.missing_eos = temper_ppo::MissingEos::Keep;
    config.update.ppo_epochs = 4;
    config.update.gamma = 0.99;
    config
}

/// The notebook's rows, through the same files as a pipeline's.
struct NotebookData {
    demonstrations: Vec<Demonstration>,
    comparisons: Vec<Comparison>,
    prompts: Vec<PromptRow>,
}

impl NotebookData {
    fn read() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        Recipe::notebook().write_data(dir.path(), 0)?;
        let path = |name: &str| [dir.path().join(name)];
        Ok(Self {
            demonstrations: read_rows(&path("demonstrations.jsonl"), BadRows::Refuse)?.records,
            comparisons: read_rows(&path("comparisons.jsonl"), BadRows::Refuse)?.records,
            prompts: read_rows(&path("prompts.jsonl"), BadRows::Refuse)?.records,
        })
    }
}

fn losses(run: &Run) -> Result<Vec<f64>> {
    let lines = read_metrics(&run.dir().join("metrics.jsonl"))?;
    Ok(lines.iter().filter_map(|line| line.get("loss")?.as_f64()).collect())
}

/// Batched sampling through the KV cache, by models of width 128, width 256 and GPT-2 small: 16 prompt tokens, 48 new ones.
fn generation(repeats: usize, device: &Device) -> Result<()> {
    let small = ModelConfig { max_seq_len: 128, ..ModelConfig::preset("small")? };
    let wide = ModelConfig { d_model: 256, n_layers: 6, n_heads: 8, d_ff: 1024, ..small.clone() };
    for (name, config) in [("d128", small), ("d256", wide), ("gpt2", ModelConfig::preset("gpt2-small")?)] {
        let model = CausalLm::new(&config, &mut Seed(0).stream("init"), device);
        for batch in [1, 32] {
            let prompts: Vec<Vec<u32>> = (0..batch).map(|row| tokens(row, 16)).collect();
            // An end token that the vocabulary does not have: every row runs to its limit.
            let options =
                GenerateOptions { max_new_tokens: 48, sampler: Sampler::PLAIN, ..GenerateOptions::default() };
            let seconds = repeated(repeats, || Ok(generate(&model, &prompts, &options).map(|_| ())?))?;
            print_json(&line(&format!("generate_{name}_b{batch}"), &seconds, Some(batch * 48)))?;
        }
    }
    Ok(())
}

/// A whole update of SFT: forward, loss, backward, clip, AdamW. Three eighths of each row are the prompt.
fn sft_step(repeats: usize, device: &Device) -> Result<()> {
    let notebook = ModelConfig::preset("notebook")?;
    let still = notebook.without_dropout();
    let small = ModelConfig::preset("small")?;
    for (name, config, batch, seq) in [
        ("sft_step_notebook", notebook, 2, 128),
        ("sft_step_notebook_without_dropout", still, 2, 128),
        ("sft_step_small", small, 32, 48),
    ] {
        let examples: Vec<Example> =
            (0..batch).map(|row| Example::new(tokens(row, seq), seq * 3 / 8)).collect();
        let examples: Vec<&Example> = examples.iter().collect();
        let mut model = CausalLm::new(&config, &mut Seed(0).stream("init"), device).train();
        let mut optimizer = Optimizer::new(&AdamWConfig::default());
        let seconds = repeated(repeats.max(20), || {
            let completions = completion_logits(&model, &examples, device, &mut Dropout::seeded(0));
            let loss = sft_loss(completions.logits, completions.targets);
            loss.clone().into_scalar::<f64>();
            optimizer.accumulate(&model, loss);
            model = optimizer.step(model.clone(), 1e-4)?.0;
            Ok(())
        })?;
        print_json(&line(name, &seconds, Some(batch * seq)))?;
    }
    Ok(())
}

/// Rollout and updates at the courtesy recipe's settings, from an untrained policy; the score costs nothing.
fn ppo_step(repeats: usize, device: &Device) -> Result<()> {
    let mut config: PpoConfig = resolve(Some(recipe::stage_settings("courtesy", Stage::Ppo)?), None, &[])?;
    config.training.max_steps = repeats + 1;
    let text = TextSide::new(Tokenizer::byte(), Template::bare());
    let model = ModelConfig::preset("small")?;
    let policy = CausalLm::new(&model, &mut Seed(0).stream("init"), device);
    let critic =
        ScalarModel::new(policy.transformer.clone(), Pooling::Last, &mut Seed(0).stream("reward_head"));
    let asked = Task::new().generate(0, &Sizes::default()).prompts;
    let prompts: Vec<PromptRow> = asked.into_iter().map(PromptRow::new).collect();
    let prompts = Prompts::new(&prompts, &Encoding::new(&text, model.max_seq_len - 1))?;
    let models =
        Models { policy: policy.clone(), ref_policy: policy, critic: Critic::Separate(Box::new(critic)) };
    let mut score =
        |samples: &[Sample<'_>]| Ok(samples.iter().map(|s| s.completion_tokens.len() as f32).collect());
    let mut run = Run::ephemeral()?;
    temper_ppo::train(&config, models, &text, &prompts, &mut score, &mut run)?;

    let lines = read_metrics(&run.dir().join("metrics.jsonl"))?;
    let column =
        |key: &str| -> Vec<f64> { lines.iter().skip(1).filter_map(|line| line.get(key)?.as_f64()).collect() };
    let (rollout, update) = (column("time/rollout_seconds"), column("time/update_seconds"));
    let both: Vec<f64> = rollout.iter().zip(&update).map(|(a, b)| a + b).collect();
    let mut timings = line("ppo_step", &both, None);
    timings["rollout_seconds"] = json!(median(&rollout));
    timings["update_seconds"] = json!(median(&update));
    timings["rollout_tokens_per_second"] = json!(median(&column("time/rollout_tokens_per_second")));
    print_json(&timings)
}

/// Prompts and completions of the courtesy task to ids.
fn tokenizer(repeats: usize) -> Result<()> {
    let text = TextSide::new(Tokenizer::byte(), Template::bare());
    let rows = Task::new().generate(0, &Sizes::default()).demonstrations;
    let bytes: usize = rows.iter().map(|row| row.prompt.len() + row.completion.len()).sum();
    let seconds = repeated(repeats, || {
        for row in &rows {
            let (prompt, completion) = (&row.prompt, &row.completion);
            std::hint::black_box(text.encode_example(prompt, completion, 128, Overflow::Drop)?);
        }
        Ok(())
    })?;
    let mut timings = line("tokenizer", &seconds, None);
    timings["bytes_per_second"] = json!(bytes as f64 / median(&seconds));
    print_json(&timings)
}

/// Ids of printable bytes, other ones in every row.
fn tokens(row: usize, n: usize) -> Vec<u32> {
    (0..n).map(|i| (4 + (row * 7 + i * 13) % 250) as u32).collect()
}

/// Seconds of each call, after one that does not count.
fn repeated(repeats: usize, mut work: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    work()?;
    let mut timed = || {
        let started = Instant::now();
        work()?;
        Ok(started.elapsed().as_secs_f64())
    };
    (0..repeats).map(|_| timed()).collect()
}

fn line(name: &str, seconds: &[f64], n_tokens: Option<usize>) -> Value {
    let mut line = json!({ "name": name, "seconds": median(seconds) });
    if let Some(n) = n_tokens {
        line["tokens_per_second"] = json!(n as f64 / median(seconds));
    }
    line["fastest_seconds"] = json!(seconds.iter().copied().fold(f64::INFINITY, f64::min));
    line["slowest_seconds"] = json!(seconds.iter().copied().fold(0.0, f64::max));
    line
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
    (middle(sorted.len().saturating_sub(1) / 2) + middle(sorted.len() / 2)) / 2.0
}
