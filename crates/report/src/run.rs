use std::io::ErrorKind;
use std::path::Path;

use crate::Error;
use crate::metrics::Metrics;
use crate::sample::Sample;
use crate::stage::{Stage, StageRun};
use crate::summary::Summary;

/// Everything that is read from a directory before anything is drawn.
#[derive(Debug)]
pub struct Run {
    /// The directory's own name.
    pub name: String,
    /// Whether this is one stage alone.
    pub single: bool,
    /// The pipeline's summary, or nothing of it.
    pub summary: Summary,
    /// The stages that left something, in order.
    pub stages: Vec<StageRun>,
    /// Answers before and after PPO.
    pub samples: Vec<Sample>,
    /// What the run was made on, name by value.
    pub machine: Vec<(String, String)>,
    /// What could not be read, for the reader to know.
    pub notes: Vec<String>,
}

impl Run {
    /// Reads a pipeline's directory or a single stage's.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        if !dir.is_dir() {
            return Err(Error::NotADirectory { dir: dir.to_path_buf() });
        }
        let named = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        let name = named.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut notes = Vec::new();

        let mut stages = Vec::new();
        for stage in Stage::ALL {
            let config = read(&dir.join(stage.slug()).join("config.toml"))?;
            let metrics = read(&dir.join(stage.slug()).join("metrics.jsonl"))?;
            if config.is_some() || metrics.is_some() {
                let metrics = Metrics::parse(&metrics.unwrap_or_default());
                stages.push(StageRun { stage, metrics, config });
            }
        }
        let single = stages.is_empty();
        if single && let Some(text) = read(&dir.join("metrics.jsonl"))? {
            let metrics = Metrics::parse(&text);
            if let Some(stage) = Stage::of(&metrics) {
                let config = read(&dir.join("config.toml"))?;
                stages.push(StageRun { stage, metrics, config });
            }
        }
        for stage in stages.iter().filter(|stage| stage.metrics.bad_lines > 0) {
            let (slug, count) = (stage.stage.slug(), stage.metrics.bad_lines);
            notes.push(format!(
                "{count} lines of the metrics of {slug} are not JSON objects and are left out."
            ));
        }

        let summary_text = read(&dir.join("summary.json"))?;
        let summary = summary_text.as_deref().and_then(Summary::parse);
        if summary_text.is_some() && summary.is_none() {
            notes.push("summary.json is not a JSON object and is left out.".to_owned());
        }
        let (samples, bad_samples) =
            Sample::parse_all(&read(&dir.join("samples.jsonl"))?.unwrap_or_default());
        if bad_samples > 0 {
            notes.push(format!("{bad_samples} lines of samples.jsonl are not samples and are left out."));
        }
        if stages.is_empty() && summary.is_none() && samples.is_empty() {
            return Err(Error::NothingToDraw { dir: dir.to_path_buf() });
        }
        let machine = machine(&read(&dir.join("machine.json"))?.unwrap_or_default());
        let single = single && !stages.is_empty();
        Ok(Self { name, single, summary: summary.unwrap_or_default(), stages, samples, machine, notes })
    }

    /// What a stage left, if it ran.
    pub fn stage(&self, stage: Stage) -> Option<&StageRun> {
        self.stages.iter().find(|run| run.stage == stage)
    }
}

/// The text of a file, or nothing if there is no such file; bytes that are not UTF-8 become U+FFFD.
fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_path_buf(), source }),
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
