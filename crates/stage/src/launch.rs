//! How a stage is launched: where it computes and writes, and who is told about it.

mod overflow;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use temper_assistant::LoadOptions;
use temper_data::{
    BadRows, ColumnNames, Dataset, Encoding, ReadOptions, Record, Rows, Selection, Separator, data_files,
    read_rows,
};
use temper_model::{adapter_chain, weight_files};
use temper_scorer::Stop;
use temper_tokenizer::{Date, TextSide};
use temper_train::{
    AutoKeys, Chosen, Event, Inputs, Run, Seed, Settings, StartSettings, TrainingConfig, fingerprint_files,
    notes_on_settings_without_effect,
};

use crate::Error;
use crate::card::{Base, Card, Data};

/// What a stage learns from, in notes about rows of a file.
pub const TRAINING: &str = "training data";
/// What a model is measured on, in notes about rows of a file.
pub const EVALUATION: &str = "evaluation data";

/// The files of an adapter that decide what it computes.
const ADAPTER_FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];

/// What of a model directory takes part in a run after its shape and its weights.
const TEXT_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "template.json"];
/// More of it, which not every directory has.
const OPTIONAL_FILES: [&str; 2] = ["generation_config.json", "temper.json"];

/// Where a stage computes and writes, and who is told about it: everything that is neither a setting nor an input.
///
/// ```
/// use burn::tensor::Device;
/// use temper_stage::Launch;
///
/// let launch = Launch::new(&Device::flex(), "runs/sft").resume(true).skip_bad_rows(true);
/// ```
pub struct Launch {
    device: Device,
    backend: String,
    out: PathBuf,
    is_resumed: bool,
    read: ReadOptions,
    selection: Selection,
    load_options: LoadOptions,
    stop: Stop,
    observer: Option<Box<dyn FnMut(Event<'_>) + Send>>,
    files_read: Vec<PathBuf>,
    asked_for: BTreeSet<String>,
    auto: AutoKeys,
    chosen: Vec<Chosen>,
    of_rows: Vec<Chosen>,
    base: Base,
    data: Vec<Data>,
    date: Option<Date>,
}

impl Launch {
    /// A run on `device` in the directory `out`. It starts there, refuses bad rows, and tells nobody.
    pub fn new(device: &Device, out: impl Into<PathBuf>) -> Self {
        Self {
            device: device.clone(),
            backend: temper_tensor::backend_name(device),
            out: out.into(),
            is_resumed: false,
            read: ReadOptions::default(),
            selection: Selection::default(),
            load_options: LoadOptions::default(),
            stop: Stop::default(),
            observer: None,
            files_read: Vec::new(),
            asked_for: BTreeSet::new(),
            auto: AutoKeys::default(),
            chosen: Vec::new(),
            of_rows: Vec::new(),
            base: Base::default(),
            data: Vec::new(),
            date: None,
        }
    }

    /// Whether a run that the directory holds is continued. Where there is none, one starts.
    #[must_use]
    pub fn resume(self, is_resumed: bool) -> Self {
        Self { is_resumed, ..self }
    }

    /// Whether rows that cannot be read are left out, with a note, instead of refused.
    #[must_use]
    pub fn skip_bad_rows(self, skips: bool) -> Self {
        let bad_rows = if skips { BadRows::Skip } else { BadRows::Refuse };
        Self { read: ReadOptions { bad_rows, ..self.read }, ..self }
    }

    /// Which columns of the data files stand for columns that Temper knows.
    #[must_use]
    pub fn columns(self, columns: ColumnNames) -> Self {
        Self { read: ReadOptions { columns, ..self.read }, ..self }
    }

    /// What separates the documents of a plain text.
    #[must_use]
    pub fn separator(self, separator: Separator) -> Self {
        Self { read: ReadOptions { separator, ..self.read }, ..self }
    }

    /// Which rows of the training data are learned, how often, and which are kept for evaluation.
    #[must_use]
    pub fn selection(self, selection: Selection) -> Self {
        Self { selection, ..self }
    }

    /// How the model directories that the run starts from are read.
    #[must_use]
    pub fn load_options(self, load_options: LoadOptions) -> Self {
        Self { load_options, ..self }
    }

    /// The name of the device's backend, which a resumed run compares. Without it the device is asked, which cannot tell
    /// some backends of graphics cards apart.
    #[must_use]
    pub fn backend(self, name: impl Into<String>) -> Self {
        Self { backend: name.into(), ..self }
    }

    /// Tells `observer` of everything that happens, from the first note about the data on.
    #[must_use]
    pub fn observer(self, observer: impl FnMut(Event<'_>) + Send + 'static) -> Self {
        Self { observer: Some(Box::new(observer)), ..self }
    }

    /// Lets the run end with a checkpoint as soon as `stop` is asked, and with it the programs that score.
    #[must_use]
    pub fn stop(self, stop: Stop) -> Self {
        Self { stop, ..self }
    }

    /// Adds files that were read for this run, such as its settings: the run refuses to overwrite them.
    #[must_use]
    pub fn files_read(mut self, paths: &[PathBuf]) -> Self {
        self.files_read.extend_from_slice(paths);
        self
    }

    /// The dotted keys of settings that somebody has asked for although they have their default value. If one has no
    /// effect, the run says so, as it does for every setting that is not at its default.
    #[must_use]
    pub fn settings_asked_for(self, keys: BTreeSet<String>) -> Self {
        Self { asked_for: keys, ..self }
    }

    /// The settings whose values are left to Temper; without this, none is.
    #[must_use]
    pub fn auto(self, auto: AutoKeys) -> Self {
        Self { auto, ..self }
    }

    /// Where the stage computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How to read the model directories that the run starts from.
    pub fn model_options(&self) -> &LoadOptions {
        &self.load_options
    }

    /// The wish to stop, for scorers.
    pub fn stop_signal(&self) -> &Stop {
        &self.stop
    }

    /// Tells the observer something that the user should know before the run begins.
    pub fn note(&mut self, message: &str) {
        if let Some(observer) = &mut self.observer {
            observer(Event::Note { message });
        }
    }

    /// Says which model the run starts from, a directory or the name of a preset, for the card of the finished model.
    pub fn starts_from(&mut self, model: &Path) {
        self.base = Base::of(model);
    }

    /// The records of some data files. `purpose` says in notes what they are for, for example [`TRAINING`].
    ///
    /// # Errors
    /// Those of [`read_rows`].
    pub fn rows<R: Record>(&mut self, paths: &[PathBuf], purpose: &'static str) -> Result<Rows<R>, Error> {
        let rows = self.read(paths, purpose)?;
        self.data.push(Data::new(purpose, paths, rows.records.len()));
        Ok(rows)
    }

    fn read<R: Record>(&mut self, paths: &[PathBuf], purpose: &'static str) -> Result<Rows<R>, Error> {
        self.files_read.extend(data_files(paths)?);
        let rows = read_rows::<R>(paths, self.read.clone())?.with_purpose(purpose);
        self.note_all(&rows.notes_of_skipped());
        Ok(rows)
    }

    fn encode<D: Dataset>(
        &mut self,
        paths: &[PathBuf],
        rows: &Rows<D::Record>,
        purpose: &'static str,
        encoding: &Encoding<'_>,
    ) -> Result<D, Error> {
        let bad_rows = self.read.bad_rows;
        let data = D::encode_rows(rows, bad_rows, encoding, &mut |sentence| self.note(sentence))?;
        self.note_of_use(&data, paths, rows, purpose);
        Ok(data)
    }

    fn note_of_use<D: Dataset>(
        &mut self,
        data: &D,
        paths: &[PathBuf],
        rows: &Rows<D::Record>,
        purpose: &'static str,
    ) {
        let used = rows.used(rows.records.len().saturating_sub(data.report().n_dropped()));
        self.note(&format!("{purpose}: {used}, {} tokens", data.n_tokens()));
        self.data.push(Data::new(purpose, paths, data.n_rows()));
    }

    /// The settings that a run which is resumed was started with, if there is one.
    fn settings_at_the_start(&self) -> Result<Option<StartSettings>, Error> {
        Ok(if self.is_resumed { Run::settings_at_its_start(&self.out)? } else { None })
    }

    /// The settings of a run, where those that are left to Temper and follow from other settings alone have their values.
    ///
    /// # Errors
    /// Values that are not of the type of their setting.
    pub fn prefill<T: Settings>(&self, config: &T) -> Result<T, Error> {
        Ok(self.auto.fill(config, config.first_choices(&self.auto))?.0)
    }

    /// The token rows that a model learns from, and those that it is measured on: the rows of `eval_data`, or those that
    /// the [`Selection`] keeps of `data`. Notes tell of rows that were left out, cut or repeated.
    ///
    /// Where the setting `overflow` is left to Temper, both get the value that suits the rows to learn from.
    ///
    /// # Errors
    /// Those of [`Selection::paths`], [`read_rows`], [`Selection::divide`] and [`Dataset::encode`].
    pub fn datasets<D: Dataset>(
        &mut self,
        data: &[PathBuf],
        eval_data: &[PathBuf],
        seed: u64,
        encoding: &Encoding<'_>,
    ) -> Result<(D, Option<D>), Error> {
        let selection = self.selection.clone();
        let paths = selection.paths(data)?;
        let rows = self.read::<D::Record>(&paths, TRAINING)?;
        let (training_rows, mut eval_rows) =
            selection.divide(rows, Seed(seed), &mut |sentence| self.note(sentence))?;
        let (training, overflow) = self.encode_to_learn(&paths, &training_rows, encoding)?;
        let mut eval_paths = paths.as_slice();
        if !eval_data.is_empty() {
            let rows = self.read::<D::Record>(eval_data, EVALUATION)?;
            let rows = selection.without_duplicates(rows, &mut |sentence| self.note(sentence));
            let shared = rows.shared_with(&training_rows);
            self.note_all(&rows.notes(&shared, |rows| {
                format!("{rows} are in the training data, too: their figures say little about other rows")
            }));
            eval_rows = Some(rows);
            eval_paths = eval_data;
        }
        let unpacked = Encoding { pack: false, overflow, ..*encoding };
        let evaluation = eval_rows
            .map(|rows| self.encode(eval_paths, &rows.with_purpose(EVALUATION), EVALUATION, &unpacked));
        Ok((training, evaluation.transpose()?))
    }

    /// The token rows of some data files, with notes about rows that were left out or cut.
    ///
    /// # Errors
    /// Those of [`Dataset::read`].
    pub fn dataset<D: Dataset>(
        &mut self,
        paths: &[PathBuf],
        purpose: &'static str,
        encoding: &Encoding<'_>,
    ) -> Result<D, Error> {
        let rows = self.read(paths, purpose)?;
        self.encode(paths, &rows, purpose, encoding)
    }

    /// The same, if there are any files.
    ///
    /// # Errors
    /// Those of [`Dataset::read`].
    pub fn dataset_if_given<D: Dataset>(
        &mut self,
        paths: &[PathBuf],
        purpose: &'static str,
        encoding: &Encoding<'_>,
    ) -> Result<Option<D>, Error> {
        (!paths.is_empty()).then(|| self.dataset(paths, purpose, encoding)).transpose()
    }

    /// Fixes the date that a model's chat template takes for today, so that the run and whatever resumes it see the same
    /// text. A resumed run takes over the date of its start, any other takes today. A template with a stored date keeps it.
    ///
    /// # Errors
    /// An `inputs.json` of the run that cannot be read.
    pub fn freeze_date(&mut self, text: &mut TextSide) -> Result<(), Error> {
        let stored = if self.is_resumed { Inputs::of_run(&self.out)? } else { None };
        let stored = stored.and_then(|inputs| inputs.date?.parse().ok());
        text.freeze_date(stored.unwrap_or_else(Date::today));
        self.date = text.date();
        Ok(())
    }

    /// Passes on several notes.
    pub fn note_all(&mut self, notes: &[String]) {
        notes.iter().for_each(|note| self.note(note));
    }

    /// The settings of this run: those that are left to Temper get the values of `choices`, and a note says so. A run that is
    /// resumed keeps the values of its start, also those that somebody gave only then. If it is to become longer, and
    /// its settings `epochs` or `max_steps` are left to Temper, they are chosen again for that.
    ///
    /// A stage that knows some values only later leaves them out of `choices`, and settles these settings afterwards.
    ///
    /// # Errors
    /// Settings out of range, and a `config.toml` of the run that cannot be read.
    pub fn settle<T: Settings>(
        &mut self,
        config: &T,
        choices: impl FnOnce(&T, &AutoKeys) -> Vec<Chosen>,
    ) -> Result<T, Error> {
        if let Some(start) = self.settings_at_the_start()? {
            return self.settle_as_at_the_start(config, &start.with_current_keys::<T>(), choices);
        }
        let mut choices = if self.auto.is_empty() { Vec::new() } else { choices(config, &self.auto) };
        choices.append(&mut self.of_rows);
        let choices = choices.into_iter().filter(|choice| self.is_open(&choice.key)).collect();
        let (settled, chosen) = self.auto.fill(config, choices)?;
        settled.check("")?;
        self.note_values("chosen for this run", &chosen);
        self.chosen.extend(chosen);
        Ok(settled)
    }

    fn settle_as_at_the_start<T: Settings>(
        &mut self,
        config: &T,
        start: &StartSettings,
        choices: impl FnOnce(&T, &AutoKeys) -> Vec<Chosen>,
    ) -> Result<T, Error> {
        let auto = std::mem::take(&mut self.auto);
        let (settled, given) = auto.fill(config, start.given(&auto))?;
        let (mut settled, mut chosen) = auto.fill(&settled, start.chosen(&auto))?;
        // What somebody gave at the start is not chosen again.
        let open = auto.of_length().without(&given);
        if !open.is_empty() && start.is_lengthened(config, &auto)? {
            let (longer, again) = open.fill(&settled, choices(&settled, &open))?;
            settled = longer;
            chosen.retain(|choice| !again.iter().any(|other| other.key == choice.key));
            chosen.extend(again);
        }
        settled.check("")?;
        self.note_values("chosen for this run", &chosen);
        self.note_values("given at its start", &given);
        self.chosen.extend(chosen);
        Ok(settled)
    }

    fn note_values(&mut self, what: &str, values: &[Chosen]) {
        let words = values.iter().map(|Chosen { key, value, reason }| format!("{key} {value} ({reason})"));
        let words: Vec<String> = words.collect();
        if !words.is_empty() {
            self.note(&format!("{what}: {}", words.join(", ")));
        }
    }

    /// Whether the run continues one that has begun.
    ///
    /// # Errors
    /// A run directory that cannot be read.
    pub fn continues(&self) -> Result<bool, Error> {
        Ok(self.settings_at_the_start()?.is_some())
    }

    /// Whether the setting `key` is left to Temper and has no value yet. A run that is resumed has chosen all of its
    /// settings at its start.
    pub fn is_open(&self, key: &str) -> bool {
        self.auto.contains(key) && !self.chosen.iter().any(|chosen| chosen.key == key)
    }

    /// Says which settings that somebody has asked for have no effect in this run. `idle` has those whose reason is
    /// something other than a setting: dotted keys with their reasons.
    ///
    /// # Errors
    /// A setting that TOML cannot express.
    pub fn note_settings_without_effect<T: Settings>(
        &mut self,
        config: &T,
        idle: &[(&str, &str)],
    ) -> Result<(), Error> {
        let notes = notes_on_settings_without_effect(config, idle, &self.asked_for, &self.chosen)?;
        self.note_all(&notes);
        Ok(())
    }

    /// Opens the run directory. `given` has the fingerprints of models and data by the flag that gives them: a resumed run
    /// must be given the same.
    ///
    /// # Errors
    /// [`Error::WouldOverwrite`], and those of [`Run::open_with`].
    ///
    /// # Panics
    /// If a setting that is left to Temper has no value.
    pub fn open<T: Settings, const N: usize>(
        mut self,
        stage: &str,
        config: &T,
        training: &TrainingConfig,
        given: [(&str, Option<String>); N],
    ) -> Result<Run, Error> {
        if self.is_resumed && !self.out.exists() {
            self.note(&format!("{} holds no run yet, this one starts it", self.out.display()));
        }
        self.refuse_to_overwrite()?;
        let open: Vec<&str> = self.auto.iter().filter(|key| self.is_open(key)).collect();
        assert!(open.is_empty(), "{stage} has chosen no value for {open:?}");
        let card = Card::new(stage, std::mem::take(&mut self.base), std::mem::take(&mut self.data), config)?;
        let machine =
            [("backend", self.backend.clone()), ("threads", temper_tensor::n_threads().to_string())];
        let inputs = Inputs {
            given: given.into_iter().filter_map(|(flag, found)| Some((flag.to_owned(), found?))).collect(),
            machine: machine.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            date: self.date.map(|date| date.to_string()),
        };
        let run = Run::open_with(&self.out, stage, config, &self.chosen, &inputs, self.is_resumed)?;
        if run.finished().is_some() {
            self.note(&format!("{} is finished, there is nothing left to do", self.out.display()));
        }
        if let Some(how) = run.extension() {
            self.note(&format!("{} becomes longer: {how}", self.out.display()));
        }
        let run = run.with_keep_last(training.keep_last).with_interrupt(self.stop.flag());
        let run = run.with_finish(move |dir, metrics| card.write(dir, metrics));
        let Some(mut observer) = self.observer else { return Ok(run) };
        let checkpoint = run.resume_from().map(|(_, path)| path);
        observer(Event::Opened { stage, dir: run.dir(), checkpoint });
        Ok(run.with_observer(observer))
    }

    /// A file that is read may be in the run directory, but not where the run would write at its start.
    fn refuse_to_overwrite(&self) -> Result<(), Error> {
        if self.is_resumed && Run::has_started(&self.out)? {
            return Ok(());
        }
        let is_same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => false,
        };
        let written = Run::files_written_at_the_start(&self.out);
        let overwritten = |read: &&PathBuf| written.iter().any(|path| is_same(read, path));
        match self.files_read.iter().find(overwritten) {
            None => Ok(()),
            Some(path) => Err(Error::WouldOverwrite { path: path.clone() }),
        }
    }
}

/// The fingerprint of a model directory's files, or the name of a preset.
///
/// # Errors
/// A file that cannot be read, or an index of weights that names none.
pub fn model_fingerprint(model: &Path) -> Result<String, Error> {
    if !model.is_dir() {
        return Ok(format!("preset {}", model.display()));
    }
    let (adapters, base) = adapter_chain(model, &LoadOptions::default())?;
    if !adapters.is_empty() {
        let mut prints = vec![model_fingerprint(&base)?];
        for dir in &adapters {
            let optional =
                TEXT_FILES.into_iter().chain(OPTIONAL_FILES).filter(|name| dir.join(name).exists());
            let files: Vec<&str> = ADAPTER_FILES.into_iter().chain(optional).collect();
            prints.push(fingerprint_files(dir, &files)?);
        }
        return Ok(prints.join(" "));
    }
    let weights = weight_files(model)?;
    let weights = weights.iter().map(String::as_str);
    let optional = OPTIONAL_FILES.into_iter().filter(|name| model.join(name).exists());
    let files: Vec<&str> =
        ["config.json"].into_iter().chain(weights).chain(TEXT_FILES).chain(optional).collect();
    Ok(fingerprint_files(model, &files)?)
}

#[cfg(test)]
mod tests;
