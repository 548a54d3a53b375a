//! The models that a command names: directories, or models of the hub, which become directories before anything else.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use temper_hub::{Hub, Parts, Progress, RepoSpec, Watch};

use crate::args::{Command, DataCommand, InspectArgs};
use crate::failure::{self, hinted};
use crate::session::Session;
use crate::terminal;

/// Time between plain lines about a download.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Puts a directory in the place of every model of the hub that a command names. What the cache lacks is downloaded.
///
/// A directory comes first, then what else the flag takes, then `ORG/NAME[@REVISION]`.
pub fn find(session: &Session, command: &mut Command) -> Result<()> {
    let mut models = Models { session, hub: None };
    let of = |model: &mut PathBuf, models: &mut Models<'_>| models.find(model, Parts::Whole);
    match command {
        Command::Sft(args) => models.find_name(&mut args.model, &temper_model::PRESETS),
        Command::Reward(args) => of(&mut args.comparisons.model, &mut models),
        Command::Dpo(args) => of(&mut args.model, &mut models),
        Command::Ppo(args) => {
            of(&mut args.policy, &mut models)?;
            args.rewards.reward.iter_mut().try_for_each(|model| of(model, &mut models))?;
            args.gold.iter_mut().try_for_each(|gold| models.find_name(gold, &["courtesy"]))
        }
        Command::Generate(args) => of(&mut args.model, &mut models),
        Command::Chat(args) => of(&mut args.model, &mut models),
        Command::Logprobs(args) | Command::Score(args) => of(&mut args.model, &mut models),
        Command::Data(DataCommand::Inspect(InspectArgs { model, .. })) => {
            model.iter_mut().try_for_each(|model| models.find(model, Parts::WithoutWeights))
        }
        Command::Tokenize(args) => {
            args.model.iter_mut().try_for_each(|model| models.find(model, Parts::WithoutWeights))
        }
        Command::Eval(args) => {
            let more = args.against.iter_mut().chain(&mut args.best_of.reward);
            [&mut args.model].into_iter().chain(more).try_for_each(|model| of(model, &mut models))?;
            args.judge.iter_mut().try_for_each(|judge| models.find_name(judge, &["courtesy"]))
        }
        Command::Select(args) => of(&mut args.reward, &mut models),
        Command::Bench(args) => args.model.iter_mut().try_for_each(|model| of(model, &mut models)),
        Command::Init(args) => models.find(&mut args.tokenizer, Parts::WithoutWeights).map_err(|error| {
            let is_path = RepoSpec::parse(&args.tokenizer.to_string_lossy()).is_none();
            let hint = "`temper tokenizer train --data FILE --vocab-size N --out DIR` makes a tokenizer";
            if is_path { hinted(failure::one_line(&error), hint) } else { error }
        }),
        Command::Merge(args) => args.base.iter_mut().try_for_each(|base| of(base, &mut models)),
        Command::Pipeline(_)
        | Command::Tokenizer(_)
        | Command::Config(_)
        | Command::Recipe(_)
        | Command::Report(_)
        | Command::Devices(_) => Ok(()),
    }
}

/// The hub, which is opened for the first model of it.
struct Models<'a> {
    session: &'a Session,
    hub: Option<Hub>,
}

impl Models<'_> {
    /// Leaves `model` if it is there, or is one of the `others`.
    fn find_name(&mut self, model: &mut String, others: &[&str]) -> Result<()> {
        if !Path::new(model.as_str()).exists()
            && !others.contains(&model.as_str())
            && let Some(spec) = RepoSpec::parse(model)
        {
            *model = self.download(&spec, Parts::Whole)?.to_string_lossy().into_owned();
        }
        // Whoever loads it knows what else the flag takes, and says so.
        Ok(())
    }

    /// Leaves `model` if it is there.
    fn find(&mut self, model: &mut PathBuf, parts: Parts) -> Result<()> {
        if model.exists() {
            return Ok(());
        }
        match model.to_str().and_then(RepoSpec::parse) {
            Some(spec) => *model = self.download(&spec, parts)?,
            None if model.to_str().is_some_and(|name| temper_model::PRESETS.contains(&name)) => {
                return Err(hinted(
                    format!("{} is a preset, which has no weights yet", model.display()),
                    "`temper sft --model PRESET` trains one, and gives a model directory",
                ));
            }
            None => {
                return Err(hinted(
                    format!(
                        "{} is neither a model directory nor ORG/NAME of a model on the hub",
                        model.display()
                    ),
                    "check the path for a typing mistake",
                ));
            }
        }
        Ok(())
    }

    fn download(&mut self, spec: &RepoSpec, parts: Parts) -> Result<PathBuf> {
        let hub = match self.hub.take() {
            Some(hub) => hub,
            None => Hub::from_env()?,
        };
        let hub = self.hub.insert(hub);
        let session = self.session;
        let mut view = View { is_quiet: session.quiet, bar: None, file: String::new(), said: None };
        let mut watch = Watch {
            progress: Box::new(move |progress| view.show(progress)),
            note: Box::new(|note| session.note(&format!("note: {note}"))),
            stop: Box::new(|| session.interrupted()),
        };
        let snapshot = hub.snapshot(spec, parts, &mut watch);
        // Somebody may have meant a directory.
        let snapshot = snapshot
            .with_context(|| format!("`{spec}`, which is not a directory but can be a model of the hub"))?;
        drop(watch);
        tracing::debug!("{spec} is commit {} in {}", snapshot.commit, snapshot.dir.display());
        Ok(snapshot.dir)
    }
}

/// The progress of downloads on standard error: a bar on a terminal, plain lines elsewhere.
struct View {
    is_quiet: bool,
    bar: Option<ProgressBar>,
    file: String,
    /// When the last plain line was.
    said: Option<Instant>,
}

impl Drop for View {
    fn drop(&mut self) {
        self.end();
    }
}

impl View {
    fn show(&mut self, Progress { file, done, total }: Progress<'_>) {
        if self.is_quiet {
            return;
        }
        if file != self.file {
            self.end();
            file.clone_into(&mut self.file);
            self.said = Some(Instant::now());
            if std::io::stderr().is_terminal() {
                let style = "{prefix:>6} {bar:30} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
                let style = ProgressStyle::with_template(style).expect("the template is constant");
                let bar = ProgressBar::new(total.unwrap_or(0)).with_style(style);
                let bar = bar.with_prefix(terminal::one_line(file)).with_position(done);
                bar.reset_eta();
                terminal::show_bar(Some(bar.clone()));
                self.bar = Some(bar);
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.said.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            let of = total.map_or(String::new(), |total| format!(" of {}", mebibytes(total)));
            terminal::say(&format!("downloading {file}: {}{of}", mebibytes(done)));
            self.said = Some(Instant::now());
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            terminal::show_bar(None);
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
