//! Errors as the user sees them: one line, and a hint where there is one.

use std::path::Path;

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

/// The error as one line, without saying anything twice.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string().replace('\n', " ");
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
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
    if let Some(error) = cause.downcast_ref::<temper_model::Error>() {
        return hint_of_model(error);
    }
    if let Some(error) = cause.downcast_ref::<temper_tokenizer::Error>() {
        return hint_of_tokenizer(error);
    }
    if let Some(error) = cause.downcast_ref::<temper_sft::Error>() {
        return match error {
            temper_sft::Error::Train(error) => error.hint(),
            temper_sft::Error::Model(error) => hint_of_model(error),
            temper_sft::Error::Tokenizer(error) => hint_of_tokenizer(error),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<temper_reward::Error>() {
        return match error {
            temper_reward::Error::Train(error) => error.hint(),
            temper_reward::Error::Model(error) => hint_of_model(error),
            temper_reward::Error::Tokenizer(error) => hint_of_tokenizer(error),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<temper_dpo::Error>() {
        return match error {
            temper_dpo::Error::Train(error) => error.hint(),
            temper_dpo::Error::Model(error) => hint_of_model(error),
            temper_dpo::Error::Tokenizer(error) => hint_of_tokenizer(error),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<std::io::Error>() {
        return hint_of_io(error);
    }
    match cause.downcast_ref::<temper_ppo::Error>()? {
        temper_ppo::Error::Train(error) => error.hint(),
        temper_ppo::Error::Model(error) => hint_of_model(error),
        temper_ppo::Error::Tokenizer(error) => hint_of_tokenizer(error),
        temper_ppo::Error::NothingFits { .. } => too_long(),
        temper_ppo::Error::NoText { .. } => Some("each row needs a `text` of two tokens or more".into()),
        temper_ppo::Error::NonFiniteLoss { .. } => diverged(),
        temper_ppo::Error::Score { .. } | temper_ppo::Error::BadScores { .. } => {
            Some("mend what scores, then go on with the same command and `--resume`".into())
        }
        _ => None,
    }
}

fn too_long() -> Option<String> {
    Some("use a model with a longer context, raise `max_seq_len`, or `--set overflow=truncate_prompt`".into())
}

fn diverged() -> Option<String> {
    Some("lower `learning_rate` in a new `--out`; the last good checkpoint stays in the run directory".into())
}

fn hint_of_model(error: &temper_model::Error) -> Option<String> {
    use temper_model::Error;
    Some(match error {
        Error::UnknownPreset { .. } => format!("presets: {}", temper_model::PRESETS.join(", ")),
        Error::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound => missing_file(path),
        Error::Malformed { .. } | Error::MissingWeight { .. } => {
            "the file is damaged or not whole: copy or save it again".into()
        }
        Error::WrongShape { .. } => "config.json and model.safetensors belong to different models".into(),
        Error::UnsupportedArchitecture { .. } => {
            "Temper reads its own models and GPT-2 directories of Hugging Face".into()
        }
        Error::WrongHead { expected: "reward model", .. } => {
            "`temper reward` makes one from an SFT model".into()
        }
        Error::WrongHead { .. } => "give the directory of an SFT or PPO model".into(),
        Error::Config { .. } => {
            "config.json is damaged, or of a kind of model that Temper does not know".into()
        }
        Error::PromptTooLong { .. } => "shorten the prompt, or use a model with a longer context".into(),
        Error::NonFiniteWeight { .. } => return diverged(),
        _ => return None,
    })
}

/// What the system's word for it means, whoever met it.
fn hint_of_io(error: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind;
    Some(match error.kind() {
        ErrorKind::NotFound => "check the path for a typing mistake".into(),
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "a file stands where a directory is needed: choose another path".into()
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
        _ => return None,
    })
}

fn missing_file(path: &Path) -> String {
    match path.parent() {
        Some(dir) if dir.join("final").is_dir() => {
            format!("this is a run directory, its model is in {}", dir.join("final").display())
        }
        Some(dir) if !dir.exists() => "check the path for a typing mistake".into(),
        _ => "a model directory holds config.json, model.safetensors and tokenizer.json".into(),
    }
}

fn hint_of_tokenizer(error: &temper_tokenizer::Error) -> Option<String> {
    use temper_tokenizer::Error;
    Some(match error {
        Error::NoTokenizer { .. } => "a model directory needs its tokenizer.json".into(),
        Error::MissingSpecial { .. } => {
            "choose another template, for example `--set template=plain_eos`".into()
        }
        Error::PromptTooLong { .. } | Error::NothingFits { .. } => return too_long(),
        Error::NothingToLearn { .. } => {
            "the tokenizer knows none of these texts: use a model whose tokenizer does".into()
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
    fn a_cause_is_said_once() {
        let io = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = temper_train::Error::Io { action: "read", path: "a.jsonl".into(), source: io };
        let error = Err::<(), _>(error).context("stage 1").unwrap_err();
        assert_eq!(one_line(&error), "stage 1: cannot read a.jsonl: no such file");
        assert!(hint(&error).is_some());
    }
}
