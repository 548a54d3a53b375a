//! What a run says when it ends: where its model or its checkpoint is, how it did, and which command comes next.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use temper_train::{Event, Run};

use crate::machine;
use crate::progress::short;
use crate::units::{in_bytes, in_time};

/// Results in the order in which they are said, where there are any.
const RESULTS: [&str; 8] = [
    "eval_loss",
    "eval_accuracy",
    "eval/scores",
    "loss",
    "accuracy",
    "rewards/accuracies",
    "objective/scores",
    "objective/kl",
];
/// A command that is longer than this is not printed in full.
const LONGEST_COMMAND: usize = 500;

/// What a run has reported.
#[derive(Debug, Default)]
pub struct Ending {
    out: PathBuf,
    stage: String,
    step: usize,
    total_steps: usize,
    /// Of the last step, and of an evaluation after it.
    metrics: Map<String, Value>,
    checkpoint: Option<PathBuf>,
}

impl Ending {
    /// Takes notice of an event.
    pub fn watch(&mut self, event: &Event<'_>) {
        match event {
            Event::Opened { stage, dir, checkpoint } => {
                let (out, stage) = ((*dir).to_owned(), (*stage).to_owned());
                *self = Self { out, stage, checkpoint: checkpoint.map(Path::to_owned), ..Self::default() };
            }
            Event::Started { first_step, total_steps, .. } => {
                (self.step, self.total_steps) = (*first_step, *total_steps);
            }
            Event::Step { step, metrics, .. } => {
                self.step = *step;
                self.metrics = (*metrics).clone();
            }
            Event::Evaluated { step, metrics } if *step == self.step => {
                self.metrics.extend((*metrics).clone());
            }
            Event::Checkpoint { path, .. } => self.checkpoint = Some((*path).to_owned()),
            Event::Note { .. } | Event::Evaluated { .. } | Event::Warning { .. } => {}
        }
    }

    /// Whether all steps are done and the model is there: an interrupt may come during the last evaluation.
    fn is_whole(&self) -> bool {
        self.step == self.total_steps && Run::is_finished(&self.out)
    }

    /// The lines for a run that met no error. `command` is the one that was given.
    pub fn lines(&self, interrupted: bool, command: &Command) -> Vec<String> {
        let stage = &self.stage;
        if interrupted && !self.is_whole() {
            let (step, total) = (self.step, self.total_steps);
            let saved = match &self.checkpoint {
                Some(path) => format!("the checkpoint is {}", path.display()),
                None => "there is no checkpoint yet".to_owned(),
            };
            return vec![
                format!("{stage}: interrupted after step {step} of {total}; {saved}"),
                format!("{stage}: to continue: {}", command.again()),
            ];
        }
        let results: Vec<String> = RESULTS
            .iter()
            .filter_map(|key| Some(format!("{key} {}", short(self.metrics.get(*key)?))))
            .collect();
        let verdicts = self.verdicts();
        // The first verdict says the result in words.
        let results = match results.is_empty() || !verdicts.is_empty() {
            true => String::new(),
            false => format!(": {}", results.join("  ")),
        };
        let model = self.recommended(&verdicts);
        let mut lines = vec![format!("{stage}: finished{results}{}", self.cost())];
        lines.extend(verdicts.iter().map(|sentence| format!("{stage}: {sentence}")));
        lines.push(format!("{stage}: the model is {}", model.display()));
        if !command.is_pipeline {
            lines.extend(self.next(command, &model).into_iter().map(|next| format!("{stage}: next: {next}")));
        }
        lines
    }

    /// How long the run has taken, and the most memory that it has had.
    fn cost(&self) -> String {
        let seconds = self.metrics.get("time/elapsed_seconds").and_then(Value::as_f64);
        let memory = machine::peak_rss_bytes();
        let memory = (memory > 0).then(|| format!("at most {} of memory", in_bytes(memory)));
        let parts: Vec<String> = seconds.map(in_time).into_iter().chain(memory).collect();
        if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
    }

    /// What the numbers mean. A run whose files cannot be read has said so itself.
    fn verdicts(&self) -> Vec<String> {
        let sentences = temper_report::verdicts_of(&self.out).unwrap_or_default();
        sentences.into_iter().map(|sentence| sentence.replace('\u{a0}', " ")).collect()
    }

    /// The model that the next command starts from: the best one where a verdict says so.
    fn recommended(&self, verdicts: &[String]) -> PathBuf {
        let best = self.out.join("best");
        let is_better = verdicts.iter().any(|sentence| sentence.contains("`best/`")) && best.is_dir();
        if is_better { best } else { self.out.join("final") }
    }

    /// Whether an SFT model has learned answers, and not only plain text: only then its answers have a usual length.
    fn has_learned_answers(&self) -> bool {
        let file = self.out.join("final/generation_config.json");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        // A directory that cannot be read has been complained about, and is taken for the usual case.
        text.is_empty() || text.contains("\"max_new_tokens\"")
    }

    /// Commands that usually follow.
    fn next(&self, command: &Command, model: &Path) -> Vec<String> {
        let model = quoted(&model.to_string_lossy());
        let sibling = |name: &str| quoted(&self.out.with_file_name(name).to_string_lossy());
        let given = |flag: &str| command.value_of(flag).map_or("DIR".to_owned(), quoted);
        let held_out = command.values_of("--eval-data");
        let report = format!("temper report {}", quoted(&self.out.to_string_lossy()));
        match self.stage.as_str() {
            "sft" if !self.has_learned_answers() => vec![
                format!("temper generate --model {model} --prompt 'Once upon a time'"),
                format!("temper sft --data demonstrations.jsonl --model {model} --out {}", sibling("sft")),
            ],
            "sft" => vec![
                format!("temper chat --model {model}"),
                format!("temper reward --data comparisons.jsonl --model {model} --out {}", sibling("reward")),
            ],
            "reward" => vec![
                report,
                format!(
                    "temper ppo --policy {} --reward {model} --prompts {}{} --out {}",
                    given("--model"),
                    command.values_of("--data").unwrap_or("prompts.jsonl".into()),
                    held_out.map_or(String::new(), |files| format!(" --eval-data {files}")),
                    sibling("ppo")
                ),
            ],
            "dpo" => vec![format!("temper chat --model {model}"), report],
            "ppo" => {
                let judge = match (command.value_of("--reward"), command.value_of("--reward-program")) {
                    (Some(reward), _) => format!("--judge {}", quoted(reward)),
                    (None, Some(program)) => format!("--judge-program {}", quoted(program)),
                    (None, None) => "--judge REWARD_MODEL".to_owned(),
                };
                let prompts = held_out.or_else(|| command.values_of("--prompts"));
                vec![
                    format!("temper chat --model {model}"),
                    format!(
                        "temper eval --model {model} --against {} {judge} --data {}",
                        given("--policy"),
                        prompts.unwrap_or("prompts.jsonl".into())
                    ),
                    report,
                ]
            }
            _ => Vec::new(),
        }
    }
}

/// The command that was typed.
pub struct Command {
    arguments: Vec<String>,
    /// Whether it is a pipeline, which continues without `--resume`.
    is_pipeline: bool,
}

impl Command {
    /// That of this process.
    pub fn of_process(is_pipeline: bool) -> Self {
        let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
        Self { arguments: arguments.collect(), is_pipeline }
    }

    /// The first value of a flag.
    fn value_of(&self, flag: &str) -> Option<&str> {
        let arguments = || self.arguments.iter().map(String::as_str);
        let joined = arguments().find_map(|argument| argument.strip_prefix(flag)?.strip_prefix('='));
        joined.or_else(|| arguments().skip_while(|argument| *argument != flag).nth(1))
    }

    /// All values of a flag that takes files, as a shell takes them.
    fn values_of(&self, flag: &str) -> Option<String> {
        let mut values: Vec<String> = Vec::new();
        let mut is_value = false;
        for argument in &self.arguments {
            let joined = argument.strip_prefix(flag).and_then(|rest| rest.strip_prefix('='));
            if let Some(value) = joined {
                values.push(quoted(value));
            } else if is_value && !argument.starts_with("--") {
                values.push(quoted(argument));
                continue;
            }
            is_value = argument == flag;
        }
        (!values.is_empty()).then(|| values.join(" "))
    }

    /// The command that continues what this one has begun.
    fn again(&self) -> String {
        let is_pipeline = self.is_pipeline;
        let mut arguments = self.arguments.clone();
        if let Some(url) = self.value_of("--reward-url") {
            let masked = temper_scorer::masked(url);
            arguments.iter_mut().for_each(|argument| *argument = argument.replace(url, &masked));
        }
        if !is_pipeline && !arguments.iter().any(|argument| argument == "--resume") {
            arguments.push("--resume".into());
        }
        let line = arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ");
        match (line.len() > LONGEST_COMMAND, is_pipeline) {
            (false, _) => line,
            (true, true) => "give the same command again".into(),
            (true, false) => "give the same command with `--resume`".into(),
        }
    }
}

/// As a shell takes it.
fn quoted(argument: &str) -> String {
    shlex::try_quote(argument).map_or_else(|_| argument.to_owned(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        let arguments = line.split_whitespace().map(str::to_owned).collect();
        Command { arguments, is_pipeline: line.starts_with("temper pipeline") }
    }

    fn metrics(pairs: &[(&str, f64)]) -> Map<String, Value> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect()
    }

    #[test]
    fn a_finished_run_says_where_its_model_is_how_it_did_and_what_comes_next() {
        let mut ending = Ending::default();
        ending.watch(&Event::Opened { stage: "ppo", dir: Path::new("my runs/ppo"), checkpoint: None });
        ending.watch(&Event::Started { stage: "ppo", first_step: 0, total_steps: 2 });
        let line = metrics(&[("objective/scores", 1.5), ("objective/kl", 0.25), ("lr", 1.0)]);
        ending.watch(&Event::Step { step: 2, total_steps: 2, metrics: &line });
        ending.watch(&Event::Evaluated { step: 2, metrics: &metrics(&[("eval/scores", 2.0)]) });
        let given = "temper ppo --policy sft/final --reward=rm/final --prompts a.jsonl --eval-data b.jsonl c.jsonl --quiet";
        let lines = ending.lines(false, &command(given));
        let model = "'my runs/ppo/final'";
        let said = lines[0].split(" (").next().unwrap();
        assert_eq!(said, "ppo: finished: eval/scores 2.000  objective/scores 1.500  objective/kl 0.250");
        assert_eq!(
            lines[1..],
            [
                "ppo: the model is my runs/ppo/final".to_owned(),
                format!("ppo: next: temper chat --model {model}"),
                format!(
                    "ppo: next: temper eval --model {model} --against sft/final --judge rm/final --data b.jsonl c.jsonl"
                ),
                "ppo: next: temper report 'my runs/ppo'".to_owned(),
            ]
        );
        assert_eq!(ending.lines(false, &command("temper pipeline")).len(), 2);
        let lines = ending.lines(true, &command(given));
        assert!(lines[0].starts_with("ppo: interrupted after step 2 of 2"), "final/ is missing: {lines:?}");
    }

    #[test]
    fn the_next_command_has_the_files_of_this_one() {
        let ending = Ending { out: "runs/reward".into(), stage: "reward".into(), ..Ending::default() };
        let given = command("temper reward --data a.jsonl b.jsonl --model sft/final --out runs/reward");
        assert_eq!(
            ending.next(&given, Path::new("runs/reward/final"))[1],
            "temper ppo --policy sft/final --reward runs/reward/final --prompts a.jsonl b.jsonl --out runs/ppo"
        );
        assert_eq!(command("temper ppo --prompts=a --prompts b c").values_of("--prompts").unwrap(), "a b c");
        assert_eq!(command("temper ppo").values_of("--prompts"), None);
    }

    #[test]
    fn a_model_that_has_read_plain_text_comes_to_answers_next() {
        let dir = tempfile::tempdir().unwrap();
        let ending = Ending { out: dir.path().join("pretrain"), stage: "sft".into(), ..Ending::default() };
        let file = dir.path().join("pretrain/final/generation_config.json");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let next = |text: &str| {
            std::fs::write(&file, text).unwrap();
            ending.next(&command("temper sft --data a.txt"), Path::new("m"))
        };
        assert!(
            next("{\"eos_token_id\": 2}")[1]
                .starts_with("temper sft --data demonstrations.jsonl --model m --out ")
        );
        assert!(next("{\"max_new_tokens\": 8}")[1].starts_with("temper reward "));
    }

    #[test]
    fn a_policy_of_a_program_is_judged_by_the_program() {
        let ending = Ending { out: "ppo".into(), stage: "ppo".into(), ..Ending::default() };
        let mut given = command("temper ppo --policy sft/final --prompts a.jsonl --reward-program");
        given.arguments.push("python3 score.py".into());
        assert_eq!(
            ending.next(&given, Path::new("ppo/final"))[1],
            "temper eval --model ppo/final --against sft/final --judge-program 'python3 score.py' --data a.jsonl"
        );
    }

    #[test]
    fn the_best_model_is_the_one_to_go_on_with_where_a_verdict_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let ending = Ending { out: dir.path().into(), ..Ending::default() };
        let verdicts = ["The held-out loss has risen: use `best/`.".to_owned()];
        assert_eq!(ending.recommended(&verdicts), dir.path().join("final"), "there is none");
        std::fs::create_dir(dir.path().join("best")).unwrap();
        assert_eq!(ending.recommended(&verdicts), dir.path().join("best"));
        assert_eq!(ending.recommended(&[]), dir.path().join("final"));
    }

    #[test]
    fn an_interrupted_run_says_how_to_continue() {
        let mut ending = Ending::default();
        ending.watch(&Event::Opened { stage: "sft", dir: Path::new("out"), checkpoint: None });
        ending.watch(&Event::Started { stage: "sft", first_step: 0, total_steps: 9 });
        let given = command("temper sft --out out");
        assert_eq!(
            ending.lines(true, &given)[0],
            "sft: interrupted after step 0 of 9; there is no checkpoint yet"
        );
        ending.watch(&Event::Step { step: 3, total_steps: 9, metrics: &Map::new() });
        ending.watch(&Event::Checkpoint { step: 3, path: Path::new("out/checkpoints/step-000003") });
        assert_eq!(
            ending.lines(true, &given),
            [
                "sft: interrupted after step 3 of 9; the checkpoint is out/checkpoints/step-000003",
                "sft: to continue: temper sft --out out --resume",
            ]
        );
        let again = |line: &str| command(line).again();
        assert_eq!(again("temper sft --resume --out out"), "temper sft --resume --out out");
        assert_eq!(again("temper pipeline --seed 1"), "temper pipeline --seed 1");
        assert!(again("temper ppo --reward-url http://u:pw@h/").contains("http://u:***@h/"));
        assert_eq!(
            again(&format!("temper sft {}", "x".repeat(600))),
            "give the same command with `--resume`"
        );
    }
}
