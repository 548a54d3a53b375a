//! What is wrong with a command line, with a hint where the argument is known under another name.

use std::process::ExitCode;

use anyhow::Context;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use temper_dpo::DpoConfig;
use temper_ppo::PpoConfig;
use temper_reward::RewardConfig;
use temper_sft::SftConfig;
use temper_train::Settings;

use crate::commands::StandardOutput;
use crate::terminal;

/// Help and version, which are results; or what is wrong with the command line, with exit code 2.
///
/// # Errors
/// Help that cannot be printed.
pub fn explain(error: &clap::Error) -> anyhow::Result<ExitCode> {
    if !error.use_stderr() {
        error.print().context(StandardOutput)?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = error.render().to_string();
    // The text without colours has lost escape sequences of the user's, too.
    let given: Vec<String> = std::env::args_os().map(|given| given.to_string_lossy().into_owned()).collect();
    if terminal::is_printable(&text) && given.iter().all(|given| terminal::is_printable(given)) {
        // With colours, where the terminal has them. Nobody is left to hear of a failure.
        let _ = error.print();
    } else {
        terminal::say_lines(text.trim_end());
    }
    if let Some(hint) = hint(error, given.get(1).map_or("", String::as_str)) {
        terminal::say(&format!("hint: {hint}"));
    }
    Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)))
}

/// What somebody may have meant who gave `command` these arguments.
fn hint(error: &clap::Error, command: &str) -> Option<String> {
    let of_kind = |kind| match error.get(kind) {
        Some(ContextValue::String(name)) => vec![name.clone()],
        Some(ContextValue::Strings(names)) => names.clone(),
        _ => Vec::new(),
    };
    let names = of_kind(ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let name = names.first()?;
            let Some(flag) = name.strip_prefix("--") else {
                let is_value = !name.starts_with('-');
                return is_value.then(|| "each value follows its flag, as in `--data FILE`".to_owned());
            };
            let key = setting(command, flag)?;
            Some(format!(
                "that is a setting: `--set {key}=VALUE`; `temper config {command}` prints all of them"
            ))
        }
        ErrorKind::MissingRequiredArgument if command == "ppo" => {
            let lacks_scores = names.iter().any(|name| name.starts_with("--reward"));
            lacks_scores.then(|| {
                "scores come from `--reward DIR`, `--reward-program COMMAND`, `--reward-url URL`, or several of them"
                    .to_owned()
            })
        }
        ErrorKind::MissingRequiredArgument if command == "init" => {
            Some("`temper tokenizer train --data FILE --vocab-size N --out DIR` makes a tokenizer".to_owned())
        }
        _ => None,
    }
}

/// The dotted key of the setting of a stage that somebody has written as a flag: `--kl-coef` or `--ppo-epochs`.
fn setting(stage: &str, flag: &str) -> Option<String> {
    let declared = match stage {
        "sft" => SftConfig::declared(),
        "reward" => RewardConfig::declared(),
        "dpo" => DpoConfig::declared(),
        "ppo" => PpoConfig::declared(),
        _ => return None,
    };
    let plain = |name: &str| name.replace(['-', '.'], "_");
    let flag = plain(flag);
    let mut keys = declared.into_iter().map(|setting| setting.key);
    let whole = keys.clone().find(|key| plain(key) == flag);
    whole.or_else(|| keys.find(|key| key.rsplit('.').next().is_some_and(|name| plain(name) == flag)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    fn hint_of(line: &str) -> String {
        let error = Cli::try_parse_from(line.split_whitespace()).expect_err("a command line that is wrong");
        hint(&error, line.split_whitespace().nth(1).unwrap()).unwrap_or_default()
    }

    #[test]
    fn a_setting_that_is_written_as_a_flag_is_recognised() {
        let of_sft = hint_of("temper sft --data a.jsonl --model tiny --out o --epochs 3");
        assert!(
            of_sft.contains("`--set epochs=VALUE`") && of_sft.contains("`temper config sft`"),
            "{of_sft}"
        );
        let ppo = "temper ppo --policy p --reward r --prompts a --out o";
        assert!(hint_of(&format!("{ppo} --kl-coef 3")).contains("`--set kl.coef=VALUE`"));
        assert!(hint_of(&format!("{ppo} --ppo-epochs 3")).contains("`--set update.ppo_epochs=VALUE`"));
        assert_eq!(hint_of(&format!("{ppo} --no-such-thing 3")), "");
    }

    #[test]
    fn a_value_without_a_flag_and_what_is_missing_have_hints() {
        assert!(hint_of("temper data inspect a.jsonl").contains("`--data FILE`"));
        assert!(hint_of("temper ppo --policy p --prompts a --out o").contains("`--reward-program COMMAND`"));
        assert!(hint_of("temper init --shape tiny --out o").contains("`temper tokenizer train"));
        assert_eq!(hint_of("temper sft --out o"), "");
    }
}
