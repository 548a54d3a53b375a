//! Errors as the user sees them: one line, and a hint where there is one.

use std::path::Path;

use temper_assistant::{PromptFault, RowFault};

use crate::terminal;

/// An error with advice.
#[derive(Debug)]
pub struct Hinted {
    message: String,
    hint: String,
}

impl std::fmt::Display for Hinted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Hinted {}

/// An error of the command line itself, with advice.
pub fn hinted(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hinted { message: message.into(), hint: hint.into() })
}

/// The error as one line of bounded length, without control characters and without saying anything twice.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = terminal::one_line(&cause.to_string());
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    terminal::one_line(&line)
}

/// What to do about it, where that is known.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(hint_of_cause)
}

fn hint_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(hinted) = cause.downcast_ref::<Hinted>() {
        return Some(hinted.hint.clone());
    }
    if let Some(error) = cause.downcast_ref::<temper_train::Error>() {
        return error.hint();
    }
    if let Some(error) = cause.downcast_ref::<temper_data::Error>() {
        return hint_of_data(error);
    }
    if let Some(error) = cause.downcast_ref::<temper_model::Error>() {
        return hint_of_model(error);
    }
    if let Some(error) = cause.downcast_ref::<temper_hub::Error>() {
        return hint_of_hub(error);
    }
    if let Some(error) = cause.downcast_ref::<temper_tokenizer::Error>() {
        return hint_of_tokenizer(error);
    }
    if let Some(error) = cause.downcast_ref::<temper_assistant::Error>() {
        return hint_of_assistant(error);
    }
    if let Some(fault) = cause.downcast_ref::<temper_assistant::PromptFault>() {
        return Some(hint_of_prompt(fault).into());
    }
    if let Some(error) = cause.downcast_ref::<temper_eval::Error>() {
        return hint_of_eval(error);
    }
    if let Some(error) = cause.downcast_ref::<temper_stage::Error>() {
        return hint_of_stage(error);
    }
    if let Some(error) = cause.downcast_ref::<temper_report::Error>() {
        return Some(error.hint());
    }
    if let Some(error) = cause.downcast_ref::<std::io::Error>() {
        return hint_of_io(error);
    }
    if let Some(error) = cause.downcast_ref::<temper_scorer::Error>() {
        return hint_of_scorer(error);
    }
    match cause.downcast_ref::<temper_ppo::Error>()? {
        temper_ppo::Error::Train(error) => error.hint(),
        temper_ppo::Error::Data(error) => hint_of_data(error),
        temper_ppo::Error::Model(error) => hint_of_model(error),
        temper_ppo::Error::Tokenizer(error) => hint_of_tokenizer(error),
        temper_ppo::Error::Stage(error) => hint_of_stage(error),
        temper_ppo::Error::Assistant(error) => hint_of_assistant(error),
        temper_ppo::Error::Judge(error) => hint_of_eval(error),
        temper_ppo::Error::CriticReadsOtherIds { .. } => Some(
            "train the reward model from the same SFT model; or `--set critic.kind=value_head`, and it scores text"
                .into(),
        ),
        temper_ppo::Error::NoModelForCritic => Some("`--set critic.kind=value_head`".into()),
        temper_ppo::Error::NoScoreForMissingEos => Some(
            "`--set rollout.missing_eos_value=X`, where X is a score that is poor by your scorer; or leave \
             `rollout.score_scale` to Temper"
                .into(),
        ),
        temper_ppo::Error::NoRoom { .. } => {
            Some("or raise `max_seq_len`, up to the shortest context of the models".into())
        }
        temper_ppo::Error::StopToken { .. } => {
            Some("a full stop is one token in most vocabularies: `--set rollout.stop_token=.`".into())
        }
        temper_ppo::Error::NonFiniteLoss { .. } | temper_ppo::Error::Diverged { .. } => diverged(),
        temper_ppo::Error::Score { source, .. } => Some(hint_of_score(source.as_ref())),
        temper_ppo::Error::BadScores { .. } => {
            Some("mend what scores, then continue with the same command and `--resume`".into())
        }
        _ => None,
    }
}

fn hint_of_stage(error: &temper_stage::Error) -> Option<String> {
    use temper_stage::Error;
    match error {
        Error::Train(error) => error.hint(),
        Error::Data(error) => hint_of_data(error),
        Error::Model(error) => hint_of_model(error),
        Error::Tokenizer(error) => hint_of_tokenizer(error),
        Error::Assistant(error) => hint_of_assistant(error),
        Error::AdaptersOnFreshWeights => {
            Some("leave `adapter.rank` out: such a model needs all of its weights trained".into())
        }
        Error::TooLittleMemory { .. } => Some(
            "`--set adapter.rank=16` trains adapters, which have few gradients; `--set max_seq_len=N` shortens the rows; and \
             microbatches that are not set are as small as they must be"
                .into(),
        ),
        Error::VocabularyTooSmall { .. } => Some("leave `vocab_size` out, or round up".into()),
        Error::NotTransformers { .. } => Some("shapes: tiny, small, medium, gpt2-tiny, gpt2-small".into()),
        Error::OnlyLlama { .. } => Some("add `--family llama`, or leave it out".into()),
        Error::OnlyGpt2 { .. } => Some("leave it out".into()),
        Error::WouldOverwrite { .. } => {
            Some("copy the file to another place, or choose another `--out`".into())
        }
        _ => None,
    }
}

/// A program or an endpoint can be repaired between two runs; every other cause has its own advice.
fn hint_of_score(source: &(dyn std::error::Error + 'static)) -> String {
    let again = "then continue with the same command and `--resume`";
    let outside = match source.downcast_ref::<temper_assistant::Error>() {
        Some(temper_assistant::Error::Scorer(error)) => Some(error),
        _ => source.downcast_ref::<temper_scorer::Error>(),
    };
    if let Some(hint) = outside.and_then(hint_of_scorer) {
        return format!("{hint}; {again}");
    }
    let deeper = std::iter::successors(Some(source), |cause| cause.source()).find_map(hint_of_cause);
    deeper.unwrap_or_else(|| format!("mend what scores, {again}"))
}

fn hint_of_assistant(error: &temper_assistant::Error) -> Option<String> {
    use temper_assistant::Error;
    let hint = match error {
        Error::Model(error) | Error::ConfigFile { source: error, .. } => return hint_of_model(error),
        Error::Tokenizer(error) => return hint_of_tokenizer(error),
        Error::Scorer(error) => return hint_of_scorer(error),
        Error::Vocabulary { .. } => "tokenizer.json and model.safetensors belong to different models",
        Error::UnknownModel { spec } => {
            if let Some(hint) = run_directory(Path::new(spec)) {
                return Some(hint);
            }
            let presets = temper_model::PRESETS.join(", ");
            return Some(format!("presets: {presets}; a model of the hub has the form ORG/NAME"));
        }
        Error::PresetWithoutTokenizer { .. } => "give a directory with its weights and tokenizer.json",
        Error::MaxSeqLen { .. } => "lower `max_seq_len`, or start from a model with a longer context",
        Error::Prompt { source, .. } => hint_of_prompt(source),
        Error::Memory { .. } => "lower `--max-new-tokens`",
        Error::NonFiniteLogits { .. } | Error::NonFiniteScore { .. } => DIVERGED_MODEL,
        Error::NoRoom { .. } => "let answers be shorter, or score them with a model of a longer context",
        Error::TemplateTooLong { .. } => {
            "its template alone needs as many: score with a model of a longer context"
        }
        Error::NoTokens { .. } => READ_AT_THE_LAST_TOKEN,
        Error::Weight { .. } => "for example `0.5`",
        _ => return None,
    };
    Some(hint.into())
}

/// A score needs a token that it is read at.
const READ_AT_THE_LAST_TOKEN: &str = "a score is read at the last token";

/// The weights of a model are finite, and its output is not.
const DIVERGED_MODEL: &str =
    "the model has diverged: take an earlier checkpoint, or train it again with a lower `learning_rate`";

/// An error about a model in `dir` whose weights are finite and whose output is not.
pub fn not_finite(dir: &Path, what: &str) -> anyhow::Error {
    hinted(format!("{} {what}", dir.display()), DIVERGED_MODEL)
}

/// What to do about a prompt that a model cannot answer.
pub fn hint_of_prompt(fault: &PromptFault) -> &'static str {
    match fault {
        PromptFault::Template(_) => "the chat template of the model refuses it",
        PromptFault::Empty => "this model's template adds nothing to a prompt: give it a text",
        PromptFault::TooLong { .. } => "shorten the prompt, or use a model with a longer context",
    }
}

/// What to do about a row that a model cannot read.
pub fn hint_of_row(fault: &RowFault) -> &'static str {
    match fault {
        RowFault::TooLong { .. } => {
            "shorten the row, leave such rows out with `--skip-bad-rows`, or use a model with a longer context"
        }
        RowFault::Template(_) => "the chat template of the model refuses it",
        RowFault::EmptyPrompt => "the first token cannot be predicted",
        RowFault::NoTokens => READ_AT_THE_LAST_TOKEN,
    }
}

fn hint_of_eval(error: &temper_eval::Error) -> Option<String> {
    use temper_eval::Error;
    let hint = match error {
        Error::Assistant(error) => return hint_of_assistant(error),
        Error::Scorer(error) => return hint_of_scorer(error),
        Error::Train(error) => return error.hint(),
        Error::UnknownJudge { .. } => {
            "give `courtesy`, the directory of a reward model, or `--judge-program`"
        }
        Error::NotCourtesy { .. } => "`temper recipe courtesy --out DIR` writes prompts that it knows",
        Error::NoWholeCheckpoint { .. } => {
            "let the run continue; `checkpoint_every` and `keep_last` say how many checkpoints it keeps"
        }
        Error::Io { source, .. } => return hint_of_io(source),
        _ => return None,
    };
    Some(hint.into())
}

fn hint_of_scorer(error: &temper_scorer::Error) -> Option<String> {
    use temper_scorer::Error;
    Some(match error {
        Error::BadCommand { .. } => "write it as in a shell, for example `python3 score.py`".into(),
        Error::Start { source, .. } => match source.kind() {
            std::io::ErrorKind::NotFound => "check the name of the program; it is looked up in PATH".into(),
            std::io::ErrorKind::PermissionDenied => {
                "make it executable, or name its interpreter, as in `python3 score.py`".into()
            }
            _ => return hint_of_io(source),
        },
        Error::Died { .. } => {
            "see what it has written to standard error; it must live until its input ends".into()
        }
        Error::TimeLimit { .. } => {
            "it must flush each line at once; if it only needs longer, raise the limit of seconds".into()
        }
        Error::BadLine { .. } | Error::Unasked { .. } => {
            "it must write a number, or an object with a `score`, for each line that it reads, and nothing else"
                .into()
        }
        Error::Thread { source, .. } => return hint_of_io(source),
        Error::BadUrl { .. } | Error::BadPort { .. } => "for example `http://localhost:8000/score`".into(),
        Error::Unreachable { .. } => "check that the server runs at this address".into(),
        Error::NoAnswer { .. } => {
            "see what the server is doing; if it only needs longer, raise the limit of seconds".into()
        }
        Error::Redirects { .. } => "give the address that it names, if you trust it: no redirect is followed".into(),
        Error::Refused { .. } | Error::BadResponse { .. } | Error::BadBody { .. } => {
            "the server must answer with status 200 and `{\"scores\": [1.5, …]}`, a number for each answer".into()
        }
        _ => return None,
    })
}

fn is_of_adapter(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "adapter_model.safetensors")
}

fn diverged() -> Option<String> {
    Some(temper_train::NOT_FINITE_HINT.into())
}

fn hint_of_data(error: &temper_data::Error) -> Option<String> {
    match error {
        temper_data::Error::Tokenizer(error) => hint_of_tokenizer(error),
        temper_data::Error::Io { source, .. } => error.hint().or_else(|| hint_of_io(source)),
        error => error.hint(),
    }
}

fn hint_of_model(error: &temper_model::Error) -> Option<String> {
    use temper_model::Error;
    Some(match error {
        Error::UnknownPreset { .. } => format!("presets: {}", temper_model::PRESETS.join(", ")),
        Error::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound => missing_file(path),
        Error::WrongShape { path, .. } | Error::MissingWeight { path, .. } if is_of_adapter(path) => {
            "the adapter is for another base model: `temper merge --base MODEL` names one".into()
        }
        Error::UnsupportedAdapter { .. } => {
            "PEFT can fold it in itself, by `merge_and_unload()`: give the model that comes out".into()
        }
        Error::Malformed { .. } | Error::MissingWeight { .. } => {
            "the file is damaged or not whole: copy or save it again".into()
        }
        Error::WrongShape { .. } => "config.json and model.safetensors belong to different models".into(),
        Error::UnsupportedArchitecture { .. } => {
            "docs/models.md lists the models of Hugging Face that Temper reads".into()
        }
        Error::UnknownFields { fields, .. } => {
            let flags: Vec<String> = fields.iter().map(|field| format!("--allow-config {field}")).collect();
            format!("if you know that the model computes the same without, add `{}`", flags.join(" "))
        }
        Error::NoSuchLayer { .. } => "`--set adapter.targets=all-linear` adapts all of them".into(),
        Error::NoBaseModel { .. } => {
            "`temper merge --model ADAPTER --base MODEL --out DIR` makes a model of both".into()
        }
        Error::WrongHead { expected: "reward model", .. } => {
            "`temper reward` makes one from an SFT model".into()
        }
        Error::WrongHead { .. } => "give the directory of an SFT or PPO model".into(),
        Error::Config { .. } => {
            "config.json is damaged, or of a kind of model that Temper does not know".into()
        }
        Error::PromptTooLong { .. } => "shorten the prompt, or use a model with a longer context".into(),
        Error::NonFiniteWeight { .. } | Error::NonFiniteOutput => return diverged(),
        _ => return None,
    })
}

fn hint_of_hub(error: &temper_hub::Error) -> Option<String> {
    use temper_hub::Error;
    let hint = match error {
        Error::BadEndpoint { .. } => {
            "for example `HF_ENDPOINT=https://hub.example.org`; without it the public hub is asked"
        }
        Error::BadToken { .. } => "copy the token again: it begins with `hf_`",
        Error::NoHome => "set HF_HOME to a directory for downloads",
        Error::UnknownRepo { .. } => "check the name, and the path if it is meant to be a directory",
        Error::UnknownRevision { .. } => "give a branch, a tag or a commit of the model after the `@`",
        Error::Denied { has_token: false, .. } => {
            "ask for access on its page if it has one, and set HF_TOKEN to a token of yours"
        }
        Error::Denied { .. } => {
            "ask for access on its page, and check that HF_TOKEN is a token that may read it"
        }
        Error::Unreachable { .. }
        | Error::TimeLimit { .. }
        | Error::Truncated { .. }
        | Error::Refused { .. } => {
            "try again later: a download continues where it ended; HF_HUB_OFFLINE=1 uses what is there already"
        }
        Error::NotTheHub { .. } | Error::Redirects { .. } => {
            "check HF_ENDPOINT, and whether a proxy or a login page answers in place of the hub"
        }
        Error::FileName { .. } => "do not use this model: its names of files are made to overwrite others",
        Error::NoSafetensors { .. } => "convert its weights to safetensors, and give the directory",
        Error::NoFile { .. } => "it is not a whole model of transformers: give another one",
        Error::Damaged { .. } => "try again: the damaged file was removed",
        Error::NotInCache { .. } => {
            "download it once without HF_HUB_OFFLINE, or point HF_HOME to the cache that has it"
        }
        Error::Io { source, .. } => match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                "free some space, or set HF_HOME to a place that has more"
            }
            _ => return hint_of_io(source),
        },
        Error::Thread { source } => return hint_of_io(source),
        _ => return None,
    };
    Some(hint.into())
}

/// What the system's word for it means, whoever met it.
fn hint_of_io(error: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind;
    Some(match error.kind() {
        ErrorKind::NotFound => "check the path for a typing mistake".into(),
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "there is a file where a directory is needed: choose another path".into()
        }
        ErrorKind::IsADirectory => "give a file, this is a directory".into(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "choose a place that you may read and write".into()
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "free some space, or choose another `--out`".into()
        }
        ErrorKind::InvalidData => "the text must be UTF-8".into(),
        ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => "the file is damaged or not whole".into(),
        ErrorKind::InvalidFilename => "choose a shorter name".into(),
        ErrorKind::OutOfMemory => "free some memory, or raise the memory limit".into(),
        ErrorKind::WouldBlock => {
            "the system has no room for another thread or process: end some, or raise the limit (`ulimit -u`)"
                .into()
        }
        _ => return hint_of_errno(error.raw_os_error()?),
    })
}

/// For what has no kind of its own yet.
#[cfg(unix)]
fn hint_of_errno(code: i32) -> Option<String> {
    use rustix::io::Errno;
    Some(match Errno::from_raw_os_error(code) {
        Errno::LOOP => "a symbolic link leads back to itself: remove it, or choose another path".into(),
        Errno::MFILE | Errno::NFILE => "too many files are open: raise the limit (`ulimit -n`)".into(),
        _ => return None,
    })
}

#[cfg(not(unix))]
fn hint_of_errno(_: i32) -> Option<String> {
    None
}

/// Names the files of a model whose weights are in several.
const INDEX: &str = "model.safetensors.index.json";

fn missing_file(path: &Path) -> String {
    if let Some(hint) = path.parent().and_then(run_directory) {
        return hint;
    }
    match path.parent() {
        Some(dir) if !dir.exists() => "check the path for a typing mistake".into(),
        Some(dir) if path.extension().is_some_and(|end| end == "safetensors") && dir.join(INDEX).exists() => {
            format!("{INDEX} names this file: copy or download it again")
        }
        _ => "a model directory holds config.json, model.safetensors and tokenizer.json".into(),
    }
}

/// Where the model is, if `dir` is the directory of a run and not of a model.
fn run_directory(dir: &Path) -> Option<String> {
    let last = dir.join("final");
    if last.is_dir() {
        return Some(format!("this is a run directory, its model is in {}", last.display()));
    }
    let is_run = dir.join("metrics.jsonl").is_file() && dir.join("config.toml").is_file();
    let checkpoints = dir.join("checkpoints");
    is_run.then(|| match checkpoints.is_dir() {
        true => format!(
            "this is the directory of a run that is not finished: continue it with `--resume`, or give one of the \
             checkpoints in {}",
            checkpoints.display()
        ),
        false => "this is the directory of a run that is not finished: continue it with `--resume`".to_owned(),
    })
}

fn hint_of_tokenizer(error: &temper_tokenizer::Error) -> Option<String> {
    use temper_tokenizer::Error;
    Some(match error {
        Error::NoTokenizer { .. } => "a model directory needs its tokenizer.json".into(),
        Error::NoEos { .. } => {
            "the original model's tokenizer_config.json usually names it: copy that file, too".into()
        }
        Error::MissingSpecial { .. } => {
            "choose another template, for example `--set template=plain_eos`".into()
        }
        Error::PromptTooLong { .. } => {
            "use a model with a longer context, raise `max_seq_len`, or `--set overflow=truncate_prompt`"
                .into()
        }
        Error::VocabularyTooSmall { .. } => {
            "take 1,000 to 8,000 tokens for a few megabytes of text and a small model".into()
        }
        Error::BadJson { .. } | Error::BadTokenizer { .. } => {
            "the file is damaged or of another kind: copy or save it again".into()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_line_is_printable_and_bounded() {
        let name = format!("a\x1b[31m\nb{}", "x".repeat(50_000_000));
        let error = hinted(format!("`{name}` is wrong in c.toml:3"), "");
        let line = one_line(&error);
        assert!(line.starts_with("`a\\u{1b}[31m bxxx") && line.ends_with("x` is wrong in c.toml:3"));
        assert!(line.len() < 2000, "{}", line.len());
    }

    #[cfg(unix)]
    #[test]
    fn what_the_system_says_has_a_hint() {
        for (errno, expected) in [
            (rustix::io::Errno::NAMETOOLONG, "shorter name"),
            (rustix::io::Errno::MFILE, "ulimit -n"),
            (rustix::io::Errno::LOOP, "symbolic link"),
            (rustix::io::Errno::NOMEM, "memory"),
            (rustix::io::Errno::AGAIN, "ulimit -u"),
        ] {
            let source = std::io::Error::from_raw_os_error(errno.raw_os_error());
            let error = temper_train::Error::Io { action: "read", path: "a".into(), source };
            let hint = hint(&error.into()).unwrap_or_default();
            assert!(hint.contains(expected), "{errno:?}: {hint}");
        }
    }

    #[test]
    fn the_directory_of_a_run_leads_to_its_model() {
        let run = tempfile::tempdir().unwrap();
        let dir = run.path();
        let of_base = || {
            hint(&temper_assistant::Error::UnknownModel { spec: dir.display().to_string() }.into()).unwrap()
        };
        assert!(of_base().starts_with("presets: "));
        for file in ["metrics.jsonl", "config.toml"] {
            std::fs::write(dir.join(file), "").unwrap();
        }
        assert!(of_base().ends_with("continue it with `--resume`"), "{}", of_base());
        std::fs::create_dir(dir.join("checkpoints")).unwrap();
        assert!(of_base().contains("or give one of the checkpoints in "), "{}", of_base());
        assert_eq!(missing_file(&dir.join("config.json")), of_base());
        std::fs::create_dir(dir.join("final")).unwrap();
        assert!(of_base().starts_with("this is a run directory, its model is in "), "{}", of_base());
    }

    #[test]
    fn a_score_that_fails_has_the_hint_of_its_cause() {
        let of = |source| hint(&temper_ppo::Error::Score { step: 3, source }.into()).unwrap_or_default();
        let scorer = temper_scorer::Error::BadLine { command: "x".into(), line: "y".into(), problem: "z" };
        let hint = of(Box::new(scorer));
        assert!(hint.starts_with("it must write a number") && hint.ends_with("and `--resume`"), "{hint}");
        let scorer = temper_scorer::Error::BadLine { command: "x".into(), line: "y".into(), problem: "z" };
        assert_eq!(of(Box::new(temper_assistant::Error::from(scorer))), hint);
        let own = of(Box::new(temper_assistant::Error::NoTokens { dir: "rm".into() }));
        assert_eq!(own, "a score is read at the last token");
        assert_eq!(of("x".into()), "mend what scores, then continue with the same command and `--resume`");
    }

    #[test]
    fn a_cause_is_said_once() {
        let io = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = temper_train::Error::Io { action: "read", path: "a.jsonl".into(), source: io };
        let error = Err::<(), _>(error).context("stage 1").unwrap_err();
        assert_eq!(one_line(&error), "stage 1: cannot read a.jsonl: no such file");
        assert!(hint(&error).is_some());
    }
}
