//! `temper pipeline`: a recipe's three stages in order, the judgement, the report.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use burn::tensor::Device;
use serde_json::{Map, Value, json};
use temper_assistant::{Answer, Assistant, BATCH_SIZE, RewardModel, Sampling};
use temper_courtesy::{Task, Verdict};
use temper_data::{
    BadRows, Comparison, Demonstration, Demonstrations, Encoding, Rankings, WithColumns, read_rows,
};
use temper_eval::win_rate;
use temper_ppo::{PpoConfig, RolloutConfig};
use temper_report::{JudgeSummary, PpoSummary, RewardSummary, Sample, SftSummary, Summary};
use temper_reward::RewardConfig;
use temper_sft::SftConfig;
use temper_tokenizer::Overflow;
use temper_train::{Run, current_key, load_json, read_metrics, save_json, write_file};

use crate::args::{
    ComparisonArgs, LoadArgs, PipelineArgs, PpoArgs, RewardArgs, RewardSources, RunArgs, SelectionArgs,
    Settings, SftArgs, Stage, TextArgs,
};
use crate::commands::{Outcome, ppo, print_line, reward, sft};
use crate::failure::hinted;
use crate::prompts::PlacedPrompts;
use crate::recipe::Recipe;
use crate::session::Session;
use crate::{device, machine};

pub fn run(session: &Session, args: &PipelineArgs) -> Result<Outcome> {
    let began = Instant::now();
    let recipe = args.recipe;
    let dir = args.out.clone().unwrap_or_else(|| Path::new("runs").join(recipe.name()));
    let files = Files::new(&dir, recipe);
    let seed = session.seed.unwrap_or(0);
    let settings = |stage: &str| stage_settings(recipe, stage, &args.sets);
    check_sets(&args.sets)?;
    check_settings(session, settings)?;
    let (device, backend) = device::open_named(session.device_name())?;
    let claim = claim(&dir, recipe, seed, &args.sets)?;
    recipe.write_data(&files.data, seed)?;
    save_json(&dir.join(CLAIM_FILE), &claim)?;
    save_json(&dir.join("machine.json"), &machine::describe(backend))?;

    let run_args = |out: &Path| RunArgs {
        out: out.to_owned(),
        resume: out.exists(),
        skip_bad_rows: false,
        columns: None,
        texts: TextArgs::default(),
        selection: SelectionArgs::default(),
        load: LoadArgs::default(),
    };
    if !Run::is_finished(&files.sft) {
        session.note("stage 1: supervised fine-tuning");
        let args = SftArgs {
            data: [vec![files.data.join("demonstrations.jsonl")], files.courtesy_only("texts.jsonl")]
                .concat(),
            model: recipe.model().into(),
            eval_data: files.courtesy_only("demonstrations_heldout.jsonl"),
            run: run_args(&files.sft),
            settings: settings("sft"),
        };
        if sft::run(session, &args)? == Outcome::Interrupted {
            return Ok(Outcome::Interrupted);
        }
    }
    if !Run::is_finished(&files.reward) {
        session.note("stage 2: reward model");
        let comparisons = ComparisonArgs {
            data: vec![files.data.join("comparisons.jsonl")],
            model: files.sft.join("final"),
            eval_data: files.courtesy_only("comparisons_heldout.jsonl"),
            run: run_args(&files.reward),
            settings: settings("reward"),
        };
        let normalize_data = files.courtesy_only("demonstrations_heldout.jsonl");
        let args = RewardArgs { comparisons, normalize_data };
        if reward::run(session, &args)? == Outcome::Interrupted {
            return Ok(Outcome::Interrupted);
        }
    }
    if !Run::is_finished(&files.ppo) {
        session.note("stage 3: PPO");
        let args = PpoArgs {
            policy: files.sft.join("final"),
            rewards: RewardSources::model(files.reward.join("final")),
            prompts: vec![files.data.join("prompts.jsonl")],
            eval_data: vec![],
            ptx_data: files.courtesy_only("texts.jsonl"),
            gold: recipe.is_courtesy().then(|| "courtesy".into()),
            run: run_args(&files.ppo),
            settings: settings("ppo"),
        };
        if ppo::run(session, &args)? == Outcome::Interrupted {
            return Ok(Outcome::Interrupted);
        }
    }
    session.note("judging");
    let sampling = session.settings::<PpoConfig>(Stage::Ppo, &settings("ppo"))?.0.rollout;
    let judged = judge(session, &files, &sampling, seed, &device)?;
    let summary =
        summary(session, recipe, &files, (seed, backend, &device), &judged, began.elapsed().as_secs_f64())?;
    save_json(&dir.join("summary.json"), &summary)?;
    temper_report::draw(&dir)?;
    print_table(&judged, &summary, &dir)?;
    Ok(Outcome::Done)
}

/// Where everything of a pipeline lies.
struct Files {
    dir: PathBuf,
    data: PathBuf,
    sft: PathBuf,
    reward: PathBuf,
    ppo: PathBuf,
    recipe: Recipe,
}

impl Files {
    fn new(dir: &Path, recipe: Recipe) -> Self {
        let at = |name: &str| dir.join(name);
        Self {
            dir: dir.into(),
            data: at("data"),
            sft: at("sft"),
            reward: at("reward"),
            ppo: at("ppo"),
            recipe,
        }
    }

    /// A data file that only the courtesy recipe has.
    fn courtesy_only(&self, name: &str) -> Vec<PathBuf> {
        if self.recipe.is_courtesy() { vec![self.data.join(name)] } else { vec![] }
    }

    /// The comparisons that measure the reward model: held out, or the notebook's own four.
    fn judged_comparisons(&self) -> PathBuf {
        let name = if self.recipe.is_courtesy() { "comparisons_heldout.jsonl" } else { "comparisons.jsonl" };
        self.data.join(name)
    }

    /// The prompts that are answered before and after PPO.
    fn judged_prompts(&self) -> PathBuf {
        let name = if self.recipe.is_courtesy() { "eval_prompts.jsonl" } else { "prompts.jsonl" };
        self.data.join(name)
    }
}

/// Says whose run a directory of a pipeline holds.
const CLAIM_FILE: &str = "pipeline.json";

/// What marks `dir` as this recipe's, seed's and settings'. Refuses a directory that holds another run, or files that
/// a pipeline would overwrite and has not written.
fn claim(dir: &Path, recipe: Recipe, seed: u64, sets: &[String]) -> Result<Value> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = dir.join(CLAIM_FILE);
    let mine = json!({ "recipe": recipe.name(), "seed": seed, "set": sets });
    if path.exists() {
        let stored: Value = load_json(&path)?;
        let stored_sets = stored["set"].as_array().map_or(&[][..], Vec::as_slice);
        let stored_sets = current_sets(stored_sets.iter().filter_map(Value::as_str));
        let is_same = json!({ "recipe": stored["recipe"], "seed": stored["seed"], "set": stored_sets })
            == json!({ "recipe": mine["recipe"], "seed": mine["seed"], "set": current_sets(sets.iter().map(String::as_str)) });
        if !is_same {
            return Err(hinted(
                format!("{} holds another run: {stored}", dir.display()),
                "choose another `--out`, or remove that one",
            ));
        }
        return Ok(mine);
    }
    let results = ["machine.json", "samples.jsonl", "summary.json", "report.html"].map(|name| dir.join(name));
    match results.iter().find(|path| path.symlink_metadata().is_ok()) {
        None => Ok(mine),
        Some(path) => Err(hinted(
            format!("{} exists, and {} holds no pipeline that Temper ran", path.display(), dir.display()),
            "move it away, or choose another `--out`",
        )),
    }
}

/// The sets under the names that their settings have now: a pipeline of an earlier version continues with either.
fn current_sets<'s>(sets: impl Iterator<Item = &'s str>) -> Vec<String> {
    let current = |set: &str| {
        let (path, value) = set.split_once('=')?;
        let (stage, key) = path.trim().split_once('.')?;
        let key = match stage {
            "sft" => current_key::<SftConfig>(key),
            "reward" => current_key::<RewardConfig>(key),
            _ => current_key::<PpoConfig>(key),
        };
        Some(format!("{stage}.{key}={value}"))
    };
    sets.map(|set| current(set).unwrap_or_else(|| set.to_owned())).collect()
}

fn check_sets(sets: &[String]) -> Result<()> {
    match sets.iter().find(|set| !["sft.", "reward.", "ppo."].iter().any(|stage| set.starts_with(stage))) {
        None => Ok(()),
        Some(set) => Err(hinted(
            format!("`--set {set}` names no stage"),
            "for example `--set ppo.max_steps=20`; stages: sft, reward, ppo",
        )),
    }
}

/// Refuses wrong settings of the last stage before the first one has run.
fn check_settings(session: &Session, settings: impl Fn(&str) -> Settings) -> Result<()> {
    session.settings::<SftConfig>(Stage::Sft, &settings("sft"))?;
    session.settings::<RewardConfig>(Stage::Reward, &settings("reward"))?;
    session.settings::<PpoConfig>(Stage::Ppo, &settings("ppo"))?;
    Ok(())
}

fn stage_settings(recipe: Recipe, stage: &str, sets: &[String]) -> Settings {
    let prefix = format!("{stage}.");
    let sets = sets.iter().filter_map(|set| set.strip_prefix(&prefix).map(str::to_owned)).collect();
    Settings { preset: Some(recipe.name().into()), config: None, sets, memory: None }
}

/// One prompt answered before and after PPO.
struct Judged {
    prompt: String,
    sft: Side,
    ppo: Side,
}

/// One answer with its scores.
struct Side {
    answer: Answer,
    score: f64,
    gold: f64,
    right: bool,
}

/// Both models answer the prompts that no stage has seen, sampled as PPO samples; reward model and gold rule score
/// the answers.
fn judge(
    session: &Session,
    files: &Files,
    rollout: &RolloutConfig,
    seed: u64,
    device: &Device,
) -> Result<Vec<Judged>> {
    let prompts = PlacedPrompts::read(session, &[files.judged_prompts()], BadRows::Refuse)?.alone();
    let rule = GoldRule::new(files)?;
    let reward_model = RewardModel::load(&files.reward.join("final"), device)?;
    let sampling = Sampling {
        max_new_tokens: rollout.max_new_tokens,
        temperature: rollout.temperature,
        top_p: 1.0,
        top_k: 0,
        // Five prompts would make a noisy sample; the notebook itself decodes greedily.
        greedy: !files.recipe.is_courtesy(),
    };
    let mut sides = Vec::new();
    for dir in [&files.sft, &files.ppo] {
        let dir = dir.join("final");
        let policy = Assistant::load(&dir, device)?;
        let answers = policy.answer(&prompts, &sampling, seed)?;
        let scores = reward_model.score(&policy.text, &answers)?;
        let judged = answers.into_iter().zip(scores).map(|(answer, score)| {
            let (gold, right) = rule.judge(&answer);
            Side { answer, score, gold, right }
        });
        sides.push(judged.collect::<Vec<_>>());
    }
    let ppo = sides.pop().expect("two models answered");
    let sft = sides.pop().expect("two models answered");
    let judged: Vec<Judged> = prompts
        .into_iter()
        .zip(sft.into_iter().zip(ppo))
        .map(|(prompt, (sft, ppo))| Judged { prompt: prompt.to_string(), sft, ppo })
        .collect();
    let lines: Vec<String> = judged
        .iter()
        .map(|row| {
            serde_json::to_string(&Sample {
                prompt: row.prompt.clone(),
                sft: Some(row.sft.answer.completion.clone()),
                ppo: Some(row.ppo.answer.completion.clone()),
                score_sft: Some(row.sft.score),
                score_ppo: Some(row.ppo.score),
                gold_sft: Some(row.sft.gold),
                gold_ppo: Some(row.ppo.gold),
            })
        })
        .collect::<Result<_, _>>()?;
    let path = files.dir.join("samples.jsonl");
    write_file(&path, (lines.join("\n") + "\n").as_bytes())?;
    Ok(judged)
}

/// The judge that is not the reward model.
enum GoldRule {
    Courtesy(Task),
    /// Exactly the demonstration: all that the notebook's five questions know.
    Exact(Vec<Demonstration>),
}

impl GoldRule {
    fn new(files: &Files) -> Result<Self> {
        if files.recipe.is_courtesy() {
            return Ok(Self::Courtesy(Task::new()));
        }
        let rows = read_rows(&[files.data.join("demonstrations.jsonl")], BadRows::Refuse)?;
        Ok(Self::Exact(rows.records))
    }

    /// Gold score, and whether the answer is right.
    fn judge(&self, answer: &Answer) -> (f64, bool) {
        match self {
            Self::Courtesy(task) => {
                let verdict: Option<Verdict> =
                    task.judge(&answer.prompt.to_string(), &answer.completion, answer.ended);
                let verdict = verdict.expect("the recipe's own prompts are known to its judge");
                (verdict.score, verdict.right)
            }
            Self::Exact(rows) => {
                let exact =
                    rows.iter().any(|row| row.prompt == answer.prompt && row.completion == answer.completion);
                (f64::from(u8::from(exact && answer.ended)), exact)
            }
        }
    }
}

/// The numbers of the whole run, all read from what the stages wrote.
fn summary(
    session: &Session,
    recipe: Recipe,
    files: &Files,
    (seed, backend, device): (u64, &str, &Device),
    judged: &[Judged],
    seconds: f64,
) -> Result<Summary> {
    let read = |dir: &Path| read_metrics(&dir.join("metrics.jsonl"));
    let (sft, reward, ppo) =
        (Curve(read(&files.sft)?), Curve(read(&files.reward)?), Curve(read(&files.ppo)?));
    let (accuracy, same_manner) = reward_accuracy(session, files, device)?;
    let stage_seconds = sft.seconds() + reward.seconds() + ppo.seconds();
    let win = win_rate(judged.iter().map(|row| (row.ppo.gold, row.sft.gold)));
    let text_loss = |dir: &Path| text_loss(session, files, dir, device);
    let share = |f: fn(&Judged) -> bool| Some(mean(judged, |row| f64::from(u8::from(f(row)))));
    Ok(Summary {
        recipe: Some(recipe.name().into()),
        backend: Some(backend.into()),
        seed: Some(seed),
        threads: Some(machine::threads()),
        sft: SftSummary {
            loss_first: sft.first("loss"),
            loss_last: sft.mean_last("loss", 0.1),
            seconds: Some(sft.seconds()),
            tokens_per_second: sft.mean_last("tokens_per_second", 1.0),
        },
        reward: RewardSummary {
            accuracy_heldout: Some(accuracy),
            accuracy_same_manner: same_manner,
            loss_last: reward.mean_last("loss", 0.1),
            seconds: Some(reward.seconds()),
        },
        ppo: PpoSummary {
            score_first: ppo.mean_first("objective/scores", 0.25),
            score_last: ppo.mean_last("objective/scores", 0.25),
            kl_last: ppo.mean_last("objective/kl", 0.1),
            seconds: Some(ppo.seconds()),
            rollout_tokens_per_second: ppo.mean_last("time/rollout_tokens_per_second", 1.0),
        },
        judge: JudgeSummary {
            gold_sft: Some(mean(judged, |row| row.sft.gold)),
            gold_ppo: Some(mean(judged, |row| row.ppo.gold)),
            right_sft: share(|row| row.sft.right),
            right_ppo: share(|row| row.ppo.right),
            eos_rate: share(|row| row.ppo.answer.ended),
            win_rate: Some(win.win_rate),
            win_rate_ci95: Some(win.win_rate_ci95),
            prompts: Some(judged.len() as u64),
            text_loss_sft: text_loss(&files.sft)?,
            text_loss_ppo: text_loss(&files.ppo)?,
        },
        // A pipeline that continued where it had stopped counts what its stages took, then and now.
        seconds: Some(seconds.max(stage_seconds)),
        peak_rss_bytes: Some(machine::peak_rss_bytes()),
    })
}

fn mean(judged: &[Judged], f: impl Fn(&Judged) -> f64) -> f64 {
    judged.iter().map(f).sum::<f64>() / judged.len() as f64
}

/// The loss of a stage's model on held-out plain text, in nats per token, where the recipe has some.
fn text_loss(session: &Session, files: &Files, stage: &Path, device: &Device) -> Result<Option<f64>> {
    let paths = files.courtesy_only("texts_heldout.jsonl");
    if paths.is_empty() {
        return Ok(None);
    }
    let Assistant { model, text } = Assistant::load(&stage.join("final"), device)?;
    let encoding = Encoding::new(&text, model.config().max_seq_len);
    let data: Demonstrations = session.evaluation_data(&paths, &encoding, BadRows::Refuse)?;
    Ok(Some(temper_sft::evaluate(&model, &data, BATCH_SIZE).eval_loss))
}

/// Accuracy on the judged comparisons, and on those of one manner.
fn reward_accuracy(session: &Session, files: &Files, device: &Device) -> Result<(f64, Option<f64>)> {
    let RewardModel { model, text } = RewardModel::load(&files.reward.join("final"), device)?;
    let paths = [files.judged_comparisons()];
    let max_len = model.config().max_seq_len;
    let encoding = Encoding { overflow: Overflow::TruncatePrompt, ..Encoding::new(&text, max_len) };
    let data: Rankings = session.evaluation_data(&paths, &encoding, BadRows::Refuse)?;
    let rows = read_rows::<WithColumns<Comparison>>(&paths, BadRows::Refuse)?.records;
    let is_same_manner = |row: &WithColumns<Comparison>| {
        row.columns.get("same_manner").and_then(Value::as_bool).unwrap_or(false)
    };
    let marks: Vec<bool> = rows.iter().map(is_same_manner).collect();
    let margins = temper_reward::evaluate(&model, &data, BATCH_SIZE).margins;
    let accuracy =
        |margins: &[(usize, f64)]| temper_data::accuracy(margins.iter().map(|(_, margin)| *margin));
    let same: Vec<(usize, f64)> = margins.iter().copied().filter(|(row, _)| marks[*row]).collect();
    Ok((accuracy(&margins), (!same.is_empty()).then(|| accuracy(&same))))
}

/// The lines of a metrics file.
struct Curve(Vec<Map<String, Value>>);

impl Curve {
    fn values(&self, key: &str) -> Vec<f64> {
        self.0.iter().filter_map(|line| line.get(key)?.as_f64()).collect()
    }

    /// Mean of the first share of the values, if there are any.
    fn mean_first(&self, key: &str, share: f64) -> Option<f64> {
        let values = self.values(key);
        mean_of(&values[..n_of(share, values.len())])
    }

    /// Mean of the last share of the values, if there are any.
    fn mean_last(&self, key: &str, share: f64) -> Option<f64> {
        let values: Vec<f64> = self.values(key).into_iter().rev().collect();
        mean_of(&values[..n_of(share, values.len())])
    }

    fn first(&self, key: &str) -> Option<f64> {
        self.values(key).first().copied()
    }

    fn seconds(&self) -> f64 {
        self.values("time/elapsed_seconds").last().copied().unwrap_or(0.0)
    }
}

/// A share of `len` values, rounded up.
fn n_of(share: f64, len: usize) -> usize {
    ((len as f64 * share).ceil() as usize).min(len)
}

fn mean_of(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The before/after table and the verdict, on standard output.
fn print_table(judged: &[Judged], summary: &Summary, dir: &Path) -> Result<()> {
    let width = |f: fn(&Judged) -> &str, limit: usize| {
        judged.iter().take(12).map(|row| f(row).chars().count()).max().unwrap_or(0).min(limit)
    };
    let (a, b) = (width(|row| &row.prompt, 40), width(|row| &row.sft.answer.completion, 44));
    print_line(&format!("{:a$}  {:b$}  score  gold  after PPO (score, gold)", "prompt", "before PPO"))?;
    for row in judged.iter().take(12) {
        print_line(&format!(
            "{:a$}  {:b$} {:6.2} {:5.2}  {} ({:.2}, {:.2})",
            cut(&row.prompt, 40),
            cut(&row.sft.answer.completion, 44),
            row.sft.score,
            row.sft.gold,
            cut(&row.ppo.answer.completion, 60),
            row.ppo.score,
            row.ppo.gold,
        ))?;
    }
    let judge = &summary.judge;
    let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
    print_line("")?;
    print_line(&format!(
        "gold score {:.3} -> {:.3}   right {:.1} % -> {:.1} %   EOS {:.1} %   KL {:.1} nats",
        number(judge.gold_sft),
        number(judge.gold_ppo),
        100.0 * number(judge.right_sft),
        100.0 * number(judge.right_ppo),
        100.0 * number(judge.eos_rate),
        number(summary.ppo.kl_last),
    ))?;
    let [low, high] = judge.win_rate_ci95.unwrap_or([f64::NAN; 2]);
    print_line(&format!(
        "PPO against SFT, by the gold rule: win rate {:.1} % (95 % interval {:.1} to {:.1} %) on {} prompts",
        100.0 * number(judge.win_rate),
        100.0 * low,
        100.0 * high,
        judged.len(),
    ))?;
    if let (Some(before), Some(after)) = (judge.text_loss_sft, judge.text_loss_ppo) {
        let change = 100.0 * (after / before - 1.0);
        print_line(&format!(
            "loss on held-out plain text {before:.3} -> {after:.3} nats per token ({change:+.1} %)"
        ))?;
    }
    print_line(&format!(
        "{:.0} s, {:.0} MiB at most; report: {}",
        number(summary.seconds),
        summary.peak_rss_bytes.map_or(f64::NAN, |bytes| bytes as f64 / 1048576.0),
        dir.join("report.html").display()
    ))
}

/// The first characters of a text on one line.
fn cut(text: &str, limit: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() <= limit {
        text
    } else {
        text.chars().take(limit - 1).collect::<String>() + "…"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_of_an_earlier_version_are_those_of_today() {
        let old = ["ppo.ppo.gamma=0.5", "ppo.ppo.gae_lambda = a=b", "sft.epochs=2", "reward"];
        let new = ["ppo.update.gamma=0.5", "ppo.update.gae_lambda= a=b", "sft.epochs=2", "reward"];
        assert_eq!(current_sets(old.into_iter()), new);
        assert_eq!(current_sets(new.into_iter()), new);
    }
}
