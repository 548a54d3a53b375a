use std::fs;
use std::path::Path;

use crate::Error;
use crate::answers::StageAnswer;
use crate::evaluation::Evaluation;
use crate::files::read;
use crate::metrics::Metrics;
use crate::sample::Sample;
use crate::stage::{Stage, StageRun};
use crate::summary::Summary;

/// Longer names of run directories are cut where they become the names of pictures.
const SLUG_CHARACTERS: usize = 80;

/// Everything that is read from a directory before anything is drawn.
#[derive(Debug)]
pub struct Run {
    /// The directory's own name.
    pub name: String,
    /// Whether this is one stage alone.
    pub single: bool,
    /// Whether this is the directory of a pipeline that has not written its summary yet.
    pub unfinished_pipeline: bool,
    /// The pipeline's summary, or nothing of it.
    pub summary: Summary,
    /// The stages that left something: those in directories of their own names, then the others.
    pub stages: Vec<StageRun>,
    /// Answers before and after PPO.
    pub samples: Vec<Sample>,
    /// What the run was made on, name by value.
    pub machine: Vec<(String, String)>,
    /// What could not be read, for the reader to know.
    pub notes: Vec<String>,
}

impl Run {
    /// Reads a pipeline's directory, a single stage's, or one that holds the directories of some stages.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        if !dir.is_dir() {
            return Err(Error::NotADirectory { dir: dir.to_path_buf() });
        }
        let named = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        let name = named.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut notes = Vec::new();

        let mut stages = Vec::new();
        for stage in Stage::ALL {
            stages.extend(stage_run(&dir.join(stage.slug()), Some(stage), &mut notes)?);
        }
        let itself = stage_run(dir, None, &mut notes)?.map(|run| {
            let name = (!stages.is_empty()).then(|| name.clone());
            StageRun { name, config_file: "config.toml".to_owned(), ..run }
        });
        for name in other_directories(dir)? {
            let other = stage_run(&dir.join(&name), None, &mut notes)?;
            let config_file = format!("{name}/config.toml");
            stages.extend(other.map(|run| StageRun { name: Some(name), config_file, ..run }));
        }
        let single = stages.is_empty() && itself.is_some();
        let is_stage = itself.is_some();
        stages.extend(itself);
        name_pictures(&mut stages);

        let summary_text = read(&dir.join("summary.json"))?;
        let summary = summary_text.as_deref().and_then(Summary::parse);
        if summary_text.is_some() && summary.is_none() {
            notes.push("summary.json is not a JSON object and is left out.".to_owned());
        }
        // In the run directory of a stage, they are those of the stage.
        let samples_text = if is_stage { None } else { read(&dir.join("samples.jsonl"))? };
        let (samples, bad_samples) = Sample::parse_all(&samples_text.unwrap_or_default());
        if bad_samples > 0 {
            notes.push(format!("{bad_samples} lines of samples.jsonl are not samples and are left out."));
        }
        if stages.is_empty() && summary.is_none() && samples.is_empty() {
            return Err(Error::NothingToDraw { dir: dir.to_path_buf() });
        }
        let machine = machine(&read(&dir.join("machine.json"))?.unwrap_or_default());
        let unfinished_pipeline = summary.is_none() && dir.join("pipeline.json").exists();
        let summary = summary.unwrap_or_default();
        Ok(Self { name, single, unfinished_pipeline, summary, stages, samples, machine, notes })
    }

    /// What a stage left, if it ran; the run in the stage's usual place before others.
    pub fn stage(&self, stage: Stage) -> Option<&StageRun> {
        let of_stage = || self.stages.iter().filter(|run| run.stage == stage);
        of_stage().find(|run| run.name.is_none()).or_else(|| of_stage().next())
    }
}

/// What a run directory holds; nothing if it is not one. Without a stage, metrics and settings tell which it is.
fn stage_run(dir: &Path, stage: Option<Stage>, notes: &mut Vec<String>) -> Result<Option<StageRun>, Error> {
    let config = read(&dir.join("config.toml"))?;
    let text = read(&dir.join("metrics.jsonl"))?;
    if config.is_none() && text.is_none() {
        return Ok(None);
    }
    let called = dir.file_name().map_or("this directory".into(), |name| name.to_string_lossy());
    let metrics = Metrics::parse(text.as_deref().unwrap_or_default());
    let told = stage.or_else(|| Stage::of(&metrics)).or_else(|| config.as_deref().and_then(Stage::of_config));
    let Some(stage) = told else {
        if text.is_some_and(|text| !text.is_empty()) {
            notes.push(format!(
                "{called} has a metrics.jsonl, but its metrics belong to no stage of Temper, so it is left out."
            ));
        }
        return Ok(None);
    };
    if metrics.bad_lines > 0 {
        notes.push(format!(
            "{} lines of the metrics of {called} are not JSON objects and are left out.",
            metrics.bad_lines
        ));
    }
    let mut evaluation = None;
    if stage == Stage::Reward
        && let Some(text) = read(&dir.join("evaluation.json"))?
    {
        evaluation = Evaluation::parse(&text);
        if evaluation.is_none() {
            notes.push(format!(
                "The evaluation.json of {called} is not what `temper eval` prints about a reward model, and is left out."
            ));
        }
    }
    let (answers, bad_answers) =
        StageAnswer::parse_all(&read(&dir.join("samples.jsonl"))?.unwrap_or_default());
    if bad_answers > 0 {
        notes.push(format!(
            "{bad_answers} lines of the samples.jsonl of {called} are not answers and are left out."
        ));
    }
    let has_final = dir.join("final").is_dir();
    let is_running = is_locked(dir);
    Ok(Some(StageRun { config, has_final, is_running, evaluation, answers, ..StageRun::of(stage, metrics) }))
}

/// Whether a process has the run directory open: it holds a lock on it then. Where that cannot be told, nobody has.
fn is_locked(dir: &Path) -> bool {
    let locked = fs::File::open(dir).map(|dir| dir.try_lock_shared());
    cfg!(unix) && matches!(locked, Ok(Err(fs::TryLockError::WouldBlock)))
}

/// The directories in `dir` that are not called as a stage is, in order.
fn other_directories(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::Read { path: dir.to_path_buf(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // A name that is not UTF-8 has no place on a page; Temper makes none.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.path().is_dir() && Stage::ALL.iter().all(|stage| stage.slug() != name) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Gives each run that is not in its stage's usual place a name for its picture: its own, as far as it can be one.
fn name_pictures(stages: &mut [StageRun]) {
    let mut taken: Vec<String> =
        stages.iter().filter(|run| run.name.is_none()).map(|run| run.slug.clone()).collect();
    for run in stages.iter_mut() {
        let Some(name) = &run.name else { continue };
        let safe = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let stem: String = name.chars().take(SLUG_CHARACTERS).map(safe).collect();
        let mut slug = stem.clone();
        let mut n = 2;
        while taken.contains(&slug) {
            slug = format!("{stem}-{n}");
            n += 1;
        }
        taken.push(slug.clone());
        run.slug = slug;
    }
}

fn machine(text: &str) -> Vec<(String, String)> {
    let Ok(object) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) else {
        return Vec::new();
    };
    object
        .into_iter()
        .map(|(name, value)| match value {
            serde_json::Value::String(text) => (name, text),
            other => (name, other.to_string()),
        })
        .collect()
}
