//! What it costs to ask a program for scores: rollouts scored in the process and by a program, in turns.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use burn::tensor::Device;
use serde_json::json;
use temper_courtesy::{Sizes, Task};
use temper_data::{Encoding, PromptRow, Prompts};
use temper_model::{CausalLm, ModelConfig};
use temper_ppo::{Critic, CriticKind, Models, PpoConfig, Sample};
use temper_scorer::{Answer, Program, Stop};
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::{Run, Seed, read_metrics, resolve};

use super::median;
use crate::args::Stage;
use crate::commands::print_json;
use crate::recipe;

/// Pairs of rollouts in one repeat.
const PAIRS: usize = 8;
/// Counts a letter, as our closure does, and answers each line at once.
const PROGRAM: &str =
    "import json,sys\nfor line in sys.stdin: print(json.loads(line)['completion'].count('e'), flush=True)";

/// One run at the courtesy recipe's settings, from an untrained policy with a value head. Of each two rollouts one is
/// scored by a closure and the next by a program that does the same, so that both see the same policy, the same
/// machine and nearly the same minute.
pub fn scorers(repeats: usize, device: &Device) -> Result<()> {
    let mut config: PpoConfig = resolve(Some(recipe::stage_settings("courtesy", Stage::Ppo)?), None, &[])?;
    // The first pair does not count.
    config.training.max_steps = 2 + 2 * PAIRS * repeats;
    (config.critic.kind, config.update.ppo_epochs, config.training.checkpoint_every) =
        (CriticKind::ValueHead, 1, 0);
    let text = TextSide::new(Tokenizer::byte(), Template::bare());
    let model = ModelConfig::preset("small")?;
    let policy = CausalLm::new(&model, &mut Seed(0).stream("init"), device);
    let asked = Task::new().generate(0, &Sizes::default()).prompts;
    let prompts: Vec<PromptRow> = asked.into_iter().map(PromptRow::new).collect();
    let prompts = Prompts::new(&prompts, &Encoding::new(&text, model.max_seq_len - 1))?;
    let models = Models { policy: policy.clone(), ref_policy: policy, critic: Critic::ValueHead };

    let python = std::env::var("TEMPER_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut program =
        Program::start(&format!("{python} -c \"{PROGRAM}\""), Duration::from_secs(60), &Stop::default())?;
    let (mut rollouts, mut seconds) = (0, [vec![], vec![]]);
    let mut score = |samples: &[Sample<'_>]| {
        let began = Instant::now();
        let turn = rollouts % 2;
        rollouts += 1;
        let counted =
            || -> Vec<f32> { samples.iter().map(|s| s.completion.matches('e').count() as f32).collect() };
        let scores = if turn == 0 {
            counted()
        } else {
            let answers: Vec<Answer<'_>> =
                (samples.iter()).map(|s| Answer::new(s.prompt, &s.completion, s.ended)).collect();
            let scores = program.score(&answers)?;
            if scores != counted() {
                return Err("the program counts otherwise: two kinds of work would be compared".into());
            }
            scores
        };
        seconds[turn].push(began.elapsed().as_secs_f64());
        Ok(scores)
    };
    let mut run = Run::ephemeral()?;
    temper_ppo::train(&config, models, &text, &prompts, &mut score, &mut run)?;

    let lines = read_metrics(&run.dir().join("metrics.jsonl"))?;
    let speeds = |turn: usize| -> Vec<f64> {
        let of_turn = lines.iter().skip(2 + turn).step_by(2);
        of_turn.filter_map(|line| line.get("time/rollout_tokens_per_second")?.as_f64()).collect()
    };
    let (closure, program) = (speeds(0), speeds(1));
    ensure!(closure.len() == PAIRS * repeats && program.len() == closure.len(), "a rollout logs its speed");
    print_json(&json!({
        "name": "scorers",
        "closure_tokens_per_second": median(&closure),
        "program_tokens_per_second": median(&program),
        "program_to_closure": median(&program) / median(&closure),
        "closure_score_seconds": median(&seconds[0][1..]),
        "program_score_seconds": median(&seconds[1][1..]),
    }))
}
