//! Settings from defaults, a preset, a file and `--set`, in this order, with every mistake named.

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::renamed::rename;
use super::{AUTO, AutoKeys, Catalogue, Settings, get, insert, leaves_until, to_table};
use crate::error::{Error, Origin, one_line};
use crate::files::read_small;

/// How much a key must look like an unknown one to be offered instead of it (Jaro-Winkler, 0 to 1).
const LIKENESS: f64 = 0.75;

/// A settings file has a few thousand bytes.
const MOST_BYTES: u64 = 4 << 20;

/// One value that was given, with the place that it came from.
pub(super) struct Given {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Resolves settings: the default of `T`, then `preset` (TOML text), then `file`, then each `key=value` of
/// `sets`.
///
/// The value of a set is TOML; a bare word is a string, and a table sets each key that it has. Where a number is
/// expected an integer will do. A table that is given in part keeps the other values that the default of `T` (not of
/// the table) has for it. A setting may have the key of an earlier version: a warning, once in a process, names the
/// current one.
///
/// # Errors
///
/// [`Error::Io`] and [`Error::SettingsNotUtf8`] for an unreadable file, [`Error::TomlSyntax`], [`Error::BadSet`],
/// [`Error::UnknownKey`] with the nearest key that exists, [`Error::OldAndNewKey`], [`Error::WrongValue`] with the key and what it
/// expects, and [`Error::Unresolvable`] if only the combination is at fault. Ranges are for the settings' own
/// `validate`.
pub fn resolve<T: Settings>(preset: Option<&str>, file: Option<&Path>, sets: &[String]) -> Result<T, Error> {
    Ok(resolve_with_auto(preset, file, sets)?.0)
}

/// As [`resolve`], with the settings that are left to Temper, which then have their defaults. These are the ones of
/// [`Settings::auto`] that are given as `auto`, or are not given at all, unless there is a preset: its author has chosen.
///
/// # Errors
///
/// Those of [`resolve`].
pub fn resolve_with_auto<T: Settings>(
    preset: Option<&str>,
    file: Option<&Path>,
    sets: &[String],
) -> Result<(T, AutoKeys), Error> {
    let catalogue = Catalogue::of::<T>();
    let defaults = to_table(&T::default())?;
    let mut given = Vec::new();
    if let Some(text) = preset {
        given.extend(parse_text(text, &catalogue, &|line| Origin::Preset { line })?);
    }
    if let Some(path) = file {
        given.extend(read_file(path, &catalogue)?);
    }
    for text in sets {
        given.extend(parse_set(text, &catalogue, &defaults)?);
    }

    rename(&mut given, &catalogue)?;
    given.iter().try_for_each(|entry| check_key(entry, &catalogue))?;
    let mut auto = if preset.is_some() { AutoKeys::default() } else { AutoKeys::all::<T>() };
    for entry in &given {
        auto.set::<T>(&entry.key, entry.value.as_str() == Some(AUTO));
    }
    given.retain(|entry| !auto.contains(&entry.key));
    Ok((deserialise(&defaults, given)?, auto))
}

/// The settings of `T` among those of a file, the `config.toml` of a run say; the default of `T` for those that it does
/// not have. Keys of earlier versions are accepted, and other keys ignored.
///
/// # Errors
///
/// Those of [`resolve`], except for [`Error::UnknownKey`].
pub fn resolve_known<T: Settings>(file: &Path) -> Result<T, Error> {
    let catalogue = Catalogue::of::<T>();
    let defaults = to_table(&T::default())?;
    let mut given = read_file(file, &catalogue)?;
    rename(&mut given, &catalogue)?;
    given.retain(|entry| catalogue.is_known(&entry.key));
    deserialise(&defaults, given)
}

/// The leaves of a settings file, each with its line.
fn read_file(path: &Path, catalogue: &Catalogue) -> Result<Vec<Given>, Error> {
    let bytes = read_small(path, MOST_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = line_of(error.as_bytes(), error.utf8_error().valid_up_to());
        Error::SettingsNotUtf8 { path: path.to_owned(), line }
    })?;
    parse_text(&text, catalogue, &|line| Origin::File { path: path.to_owned(), line })
}

/// The defaults with what was given in their place.
fn deserialise<T: DeserializeOwned>(defaults: &Table, mut given: Vec<Given>) -> Result<T, Error> {
    let mut table = defaults.clone();
    for entry in &mut given {
        if let (Some(Value::Float(_)), Value::Integer(integer)) = (get(defaults, &entry.key), &entry.value) {
            entry.value = Value::Float(*integer as f64);
        }
        insert(&mut table, &entry.key, entry.value.clone());
    }
    T::deserialize(table).map_err(|error| blame::<T>(defaults, given, error.message()))
}

/// The leaves of a TOML text, each with its line.
fn parse_text(
    text: &str,
    catalogue: &Catalogue,
    origin: &dyn Fn(usize) -> Origin,
) -> Result<Vec<Given>, Error> {
    let syntax = |error: toml::de::Error| Error::TomlSyntax {
        origin: origin(line_of(text.as_bytes(), error.span().map_or(0, |span| span.start))),
        message: one_line(error.message()),
    };
    let spans = DeTable::parse(text).map_err(syntax)?;
    let table: Table = toml::from_str(text).map_err(syntax)?;
    let line_ends: Vec<usize> = text.match_indices('\n').map(|(offset, _)| offset).collect();
    let given = catalogue.flatten(&table).into_iter().map(|(key, value)| {
        let offset = offset_of(spans.get_ref(), &key);
        let line = 1 + line_ends.partition_point(|&end| end < offset);
        Given { key, value, origin: origin(line) }
    });
    Ok(given.collect())
}

/// Where in the text a dotted key is.
fn offset_of(table: &DeTable<'_>, key: &str) -> usize {
    let (mut table, mut offset) = (table, 0);
    for name in key.split('.') {
        let Some((name, value)) = table.get_key_value(name) else { break };
        offset = name.span().start;
        let DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    offset
}

/// The 1-based line of a byte.
fn line_of(text: &[u8], offset: usize) -> usize {
    1 + text[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count()
}

/// `key=value`: the value is TOML, or a string if it is not TOML or if the default is a string. A table is given by its
/// keys: `schedule={kind="linear"}` is `schedule.kind=linear`.
fn parse_set(text: &str, catalogue: &Catalogue, defaults: &Table) -> Result<Vec<Given>, Error> {
    let (key, raw) = text.split_once('=').ok_or_else(|| Error::BadSet { text: text.to_owned() })?;
    let (key, raw) = (key.trim(), raw.trim());
    if key.is_empty() {
        return Err(Error::BadSet { text: text.to_owned() });
    }
    let parsed = toml::from_str::<Table>(&format!("value = {raw}")).ok();
    // Exactly one key: a line break in the value must not smuggle in others.
    let parsed = parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    let expects_string = matches!(get(defaults, catalogue.current_key(key)), Some(Value::String(_)));
    let value = match parsed {
        Some(value) if !expects_string || value.is_str() => value,
        _ => Value::String(raw.to_owned()),
    };
    let inside = match &value {
        Value::Table(table) if !catalogue.is_known(catalogue.current_key(key)) => {
            let full = |name: &str| format!("{key}.{name}");
            let is_setting = |name: &str| catalogue.is_known(catalogue.current_key(&full(name)));
            let leaves = leaves_until(table, &is_setting).into_iter();
            leaves.map(|(name, value)| (full(&name), value)).collect()
        }
        _ => Vec::new(),
    };
    let leaves = if inside.is_empty() { vec![(key.to_owned(), value)] } else { inside };
    Ok(leaves.into_iter().map(|(key, value)| Given { key, value, origin: Origin::Set }).collect())
}

fn check_key(given: &Given, catalogue: &Catalogue) -> Result<(), Error> {
    if catalogue.is_known(&given.key) {
        return Ok(());
    }
    let prefix = format!("{}.", given.key);
    let keys = catalogue.settings.iter().map(|setting| setting.key.as_str());
    let inside: Vec<&str> = keys.filter(|key| key.starts_with(&prefix)).collect();
    if inside.is_empty() {
        return Err(Error::UnknownKey {
            key: given.key.clone(),
            origin: given.origin.clone(),
            nearest: nearest(&given.key, catalogue),
        });
    }
    Err(Error::WrongValue {
        key: given.key.clone(),
        origin: given.origin.clone(),
        expected: format!("a table with {}", inside.join(", ")),
        value: one_line(&given.value.to_string()),
    })
}

/// The existing key that looks most like `key`, in full or by its last part.
fn nearest(key: &str, catalogue: &Catalogue) -> Option<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |known: &str| {
        let by_part = strsim::jaro_winkler(&last(key), &last(known)) * 0.99;
        strsim::jaro_winkler(key, known).max(by_part)
    };
    let keys = catalogue.settings.iter().map(|setting| setting.key.as_str());
    let scored = keys.map(|known| (likeness(known), known));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(likeness, _)| *likeness >= LIKENESS).map(|(_, known)| known.to_owned())
}

/// Finds the given value that alone spoils the defaults; the last one that did, since it is the one that
/// counts.
fn blame<T: DeserializeOwned>(defaults: &Table, given: Vec<Given>, message: &str) -> Error {
    for entry in given.into_iter().rev() {
        let mut table = defaults.clone();
        insert(&mut table, &entry.key, entry.value.clone());
        if let Err(error) = T::deserialize(table) {
            let value = one_line(&entry.value.to_string());
            let expected = expectation(error.message());
            return Error::WrongValue { key: entry.key, origin: entry.origin, expected, value };
        }
    }
    Error::Unresolvable { message: one_line(message) }
}

/// serde's "invalid type: …, expected f64" in words.
fn expectation(message: &str) -> String {
    let expected = message.rsplit_once(", expected ").map_or(message, |(_, expected)| expected);
    match expected {
        "f32" | "f64" => "a number".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not negative".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        other => one_line(other),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use crate::{Schedule, ScheduleKind, settings};

    settings! {
        /// Settings of every type.
        pub struct Settings {
            /// Passes over the data
            pub epochs: usize = 3,
            /// Step size
            ///
            /// Not printed.
            pub learning_rate: f64 = 0.1,
            /// Where to
            /// compute
            pub device: String = "cpu".into(),
            /// Stop early
            pub max_steps: Option<u64> = None,
            /// Also a float
            pub dropout: f32 = 0.1,
            /// Lengths
            pub lengths: Vec<usize> = vec![1, 2],
            /// The penalty.
            section kl: Kl,
            /// The learning rate over time.
            section schedule: Schedule =
                Schedule { kind: ScheduleKind::Cosine, warmup_steps: 5, ..Schedule::default() },
        }
    }

    settings! {
        /// The penalty.
        pub struct Kl {
            /// Weight of the penalty
            pub coef: f64 = 0.05,
            /// Adapt it
            pub adaptive: bool = false,
            /// The target.
            section target: Target,
        }
    }

    settings! {
        /// The target.
        pub struct Target {
            /// Wanted KL
            pub nats: f64 = 6.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Settings;
    use super::*;
    use crate::ScheduleKind;
    use proptest::prelude::*;
    use std::fs;

    fn set(sets: &[&str]) -> Result<Settings, Error> {
        resolve(None, None, &sets.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn check_error(result: Result<Settings, Error>, expected: &str) {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?}, expected {expected:?}");
        assert_eq!(message.lines().count(), 1);
    }

    fn with_file(text: impl AsRef<[u8]>) -> Result<Settings, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sft.toml");
        fs::write(&path, text).unwrap();
        resolve(None, Some(&path), &[])
    }

    #[test]
    fn later_sources_win() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sft.toml");
        fs::write(&path, "epochs = 5\nlearning_rate = 2\n[kl]\ncoef = 0.2").unwrap();
        let preset = "epochs = 4\ndevice = \"preset\"\n[schedule]\nkind = \"linear\"";
        let settings: Settings = resolve(Some(preset), Some(&path), &["epochs=6".into()]).unwrap();
        assert_eq!((settings.epochs, settings.learning_rate, settings.kl.coef), (6, 2.0, 0.2));
        assert_eq!((settings.device.as_str(), settings.schedule.kind), ("preset", ScheduleKind::Linear));
        // Not Schedule's own default, which is 0, but the one that Settings has for it.
        assert_eq!(settings.schedule.warmup_steps, 5);
        assert_eq!(resolve::<Settings>(None, None, &[]).unwrap(), Settings::default());
    }

    #[test]
    fn sets_take_toml_and_bare_words() {
        let settings =
            set(&["kl.coef=1", "device = cuda:0", "max_steps=9", "lengths=[4]", "kl.adaptive=true"]).unwrap();
        assert_eq!((settings.kl.coef, settings.device.as_str()), (1.0, "cuda:0"));
        assert_eq!((settings.max_steps, settings.lengths, settings.kl.adaptive), (Some(9), vec![4], true));
        let tables = set(&["schedule={kind=\"linear\"}", "kl={coef=2, target={nats=3}}"]).unwrap();
        assert_eq!((tables.schedule.kind, tables.schedule.warmup_steps), (ScheduleKind::Linear, 5));
        assert_eq!((tables.kl.coef, tables.kl.target.nats, tables.kl.adaptive), (2.0, 3.0, false));
        check_error(set(&["schedule={kind=\"linear\", kin=1}"]), "did you mean `schedule.kind`?");
        assert_eq!(set(&["schedule.kind=linear"]).unwrap().schedule.kind, ScheduleKind::Linear);
        assert_eq!(set(&["device=\"x y\"", "learning_rate=1e-5"]).unwrap().device, "x y");
        assert_eq!(set(&["device=7"]).unwrap().device, "7");
        assert_eq!(set(&["device=a=b"]).unwrap().device, "a=b");
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest() {
        check_error(
            set(&["learning_rat=1"]),
            "unknown key `learning_rat` in `--set`, did you mean `learning_rate`?",
        );
        check_error(set(&["coef=1"]), "did you mean `kl.coef`?");
        check_error(set(&["kl.coeff=1"]), "did you mean `kl.coef`?");
        check_error(set(&["max_step=1"]), "did you mean `max_steps`?");
        let far = set(&["zzz=1"]).unwrap_err();
        assert_eq!(far.to_string(), "unknown key `zzz` in `--set`");
        assert!(far.hint().is_some());
        check_error(with_file("epochs = 1\n\n[kl]\ncoff = 1"), "sft.toml:4, did you mean `kl.coef`?");
        let preset = resolve::<Settings>(Some("\nepoch = 1"), None, &[]);
        check_error(preset, "unknown key `epoch` in the preset, line 2, did you mean `epochs`?");
    }

    #[test]
    fn wrong_values_are_named_with_what_is_expected() {
        check_error(
            set(&["epochs=many"]),
            "wrong value for `epochs` in `--set`: expected a whole number, not negative",
        );
        check_error(set(&["epochs=-1"]), "got `-1`");
        check_error(set(&["epochs=1.5"]), "wrong value for `epochs`");
        check_error(
            set(&["kl.coef=big"]),
            "wrong value for `kl.coef` in `--set`: expected a number, got `\"big\"`",
        );
        check_error(set(&["kl=3"]), "expected a table with kl.coef, kl.adaptive, kl.target.nats, got `3`");
        check_error(set(&["kl.adaptive=1"]), "expected true or false");
        check_error(
            set(&["schedule.kind=spiral"]),
            "expected one of `constant`, `linear`, `cosine`, got `\"spiral\"`",
        );
        check_error(with_file("device = \"x\"\nepochs = \"3\""), "sft.toml:2: expected a whole number");
        check_error(with_file("kl.coef = [1]"), "sft.toml:1: expected a number");
    }

    /// 40,000 unknown keys took 6.5 seconds when each was looked up in all others.
    #[test]
    fn a_file_of_many_unknown_keys_is_refused_at_once() {
        let text: String = (0..40_000).map(|i| format!("key_{i} = {i}\n")).collect();
        let began = std::time::Instant::now();
        check_error(with_file(text), "unknown key `key_0` in ");
        assert!(began.elapsed().as_secs_f64() < 3.0, "{:?}", began.elapsed());
    }

    #[test]
    fn broken_input_is_named_with_its_line() {
        check_error(with_file("epochs = 1\nlr = = 2"), "sft.toml:2: not valid TOML: ");
        check_error(with_file("epochs = 1\nepochs = 2"), "sft.toml:2: not valid TOML: duplicate key");
        let error = with_file(b"epochs = 1\n# \xff").unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("save the file as UTF-8"));
        check_error(Err(error), "sft.toml:2: not valid UTF-8");
        check_error(resolve(None, Some(Path::new("/none/sft.toml")), &[]), "cannot read /none/sft.toml");
        check_error(set(&["epochs"]), "`--set epochs` is not of the form key=value");
        check_error(set(&["=3"]), "not of the form");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            text in "([a-z.]{0,6}[=\\[\\]\"#\n{},. ]{0,3}[0-9a-z]{0,3}){0,6}",
            odd: String,
        ) {
            for text in [text, odd] {
                let _ = resolve::<Settings>(Some(&text), None, std::slice::from_ref(&text));
                let _ = set(&[&format!("kl.coef={text}"), &format!("{text}=1")]);
            }
        }
    }
}
