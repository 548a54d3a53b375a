//! Settings as TOML, each under its comment; and tables by dotted keys.

use serde::Serialize;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{AUTO, AutoKeys, COMMENT, Catalogue, Chosen, Settings, resolve};
use crate::error::{Error, Origin, one_line};

/// The settings as TOML, each key under its comment; an option that is not set is a comment itself.
/// [`resolve`] reads it back to the same settings.
///
/// # Errors
///
/// [`Error::Unresolvable`] if TOML cannot express a value: an integer above `i64::MAX`, say.
pub fn to_commented_toml<T: Settings>(settings: &T) -> Result<String, Error> {
    print(settings, &AutoKeys::default(), |_, _| None)
}

/// [`to_commented_toml`] of settings. Those that are chosen when the run starts are printed as `"auto"`; others
/// have been `chosen` already, and get the reason in a comment after the value.
///
/// # Errors
///
/// Those of [`to_commented_toml`].
pub fn to_annotated_toml<T: Settings>(
    settings: &T,
    auto: &AutoKeys,
    chosen: &[Chosen],
) -> Result<String, Error> {
    print(settings, auto, |key, value| {
        let of_key = chosen.iter().find(|choice| choice.key == key && choice.is(value));
        of_key.map(|choice| format!("{COMMENT}{}", one_line(&choice.reason)))
    })
}

/// What comes after a value that a preset with sources does not have from its source.
pub const NOT_PUBLISHED: &str = "not published: Temper's default";

/// [`to_commented_toml`] of settings that come from `preset`, a TOML text with the source of a value in a comment after
/// it. Such a value keeps its source as long as it is the preset's own, and a default that the preset does not mention
/// is called [`NOT_PUBLISHED`]. A preset without such comments changes nothing.
///
/// # Errors
///
/// Those of [`to_commented_toml`], and of [`resolve`] for the preset.
pub fn to_sourced_toml<T: Settings>(settings: &T, preset: &str) -> Result<String, Error> {
    let sources = trailing_comments(preset)?;
    if sources.is_empty() {
        return to_commented_toml(settings);
    }
    let catalogue = Catalogue::of::<T>();
    let resolved = catalogue.flatten(&to_table(&resolve::<T>(Some(preset), None, &[])?)?);
    let mentioned = catalogue.flatten(&parse(preset)?);
    print(settings, &AutoKeys::default(), |key, value| {
        let as_preset = resolved.iter().any(|(other, theirs)| other == key && theirs == value);
        if !as_preset {
            return None;
        }
        let source = sources.iter().find(|(other, _)| other == key).map(|(_, source)| source.as_str());
        let silent = !mentioned.iter().any(|(other, _)| other == key);
        source.or(silent.then_some(NOT_PUBLISHED)).map(one_line)
    })
}

/// The comments after the values of a TOML text, with the dotted keys: `key = value # comment`.
///
/// # Errors
///
/// [`Error::TomlSyntax`].
pub fn trailing_comments(text: &str) -> Result<Vec<(String, String)>, Error> {
    fn walk(text: &str, table: &DeTable<'_>, prefix: &str, comments: &mut Vec<(String, String)>) {
        for (name, value) in table {
            let name = name.get_ref();
            let key = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
            if let DeValue::Table(inner) = value.get_ref() {
                walk(text, inner, &key, comments);
                continue;
            }
            let rest = text[value.span().end..].lines().next().unwrap_or_default();
            comments.extend(rest.trim().strip_prefix('#').map(|comment| (key, comment.trim().to_owned())));
        }
    }
    let mut comments = Vec::new();
    walk(text, DeTable::parse(text).map_err(|error| syntax(text, &error))?.get_ref(), "", &mut comments);
    Ok(comments)
}

pub(super) fn parse(text: &str) -> Result<Table, Error> {
    toml::from_str(text).map_err(|error| syntax(text, &error))
}

fn syntax(text: &str, error: &toml::de::Error) -> Error {
    let before = &text[..error.span().map_or(0, |span| span.start).min(text.len())];
    let line = 1 + before.matches('\n').count();
    Error::TomlSyntax { origin: Origin::Preset { line }, message: one_line(error.message()) }
}

/// Every key under its comment, and after its value what `source` says of both.
fn print<T: Settings>(
    settings: &T,
    auto: &AutoKeys,
    source: impl Fn(&str, &Value) -> Option<String>,
) -> Result<String, Error> {
    let catalogue = Catalogue::of::<T>();
    let values = catalogue.flatten(&to_table(settings)?);
    // Keys without a table come first, because TOML has no way back out of a table.
    let mut tables = vec![""];
    for setting in &catalogue.settings {
        let table = split_key(&setting.key).0;
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    let mut text = String::new();
    for table in tables {
        if !table.is_empty() {
            text += &format!("{}[{table}]\n", if text.is_empty() { "" } else { "\n" });
        }
        for setting in catalogue.settings.iter().filter(|setting| split_key(&setting.key).0 == table) {
            for line in &setting.comment {
                text += &format!("# {line}\n");
            }
            let (key, name) = (&setting.key, split_key(&setting.key).1);
            if let Some(follows_from) = auto.follows_from::<T>(key) {
                text += &format!("{name} = \"{AUTO}\"  # {follows_from}\n");
                continue;
            }
            text += &match values.iter().find(|(other, _)| other == key) {
                Some((_, value)) => match source(key, value) {
                    Some(source) => format!("{name} = {value}  # {source}\n"),
                    None => format!("{name} = {value}\n"),
                },
                None => format!("# {name} =\n"),
            };
        }
    }
    Ok(text)
}

/// Settings as a TOML table. By way of text, which keeps `f32` values short.
pub(crate) fn to_table<T: Serialize>(settings: &T) -> Result<Table, Error> {
    let unresolvable = |message: String| Error::Unresolvable { message: one_line(&message) };
    let text = toml::to_string(settings).map_err(|error| unresolvable(error.to_string()))?;
    toml::from_str(&text).map_err(|error| unresolvable(error.message().to_owned()))
}

/// The dotted keys of the settings that are not at their defaults, each with its value as TOML has it.
///
/// # Errors
///
/// [`Error::Unresolvable`] if TOML cannot express a value.
pub fn changed_settings<T: Settings>(settings: &T) -> Result<Vec<(String, String)>, Error> {
    let catalogue = Catalogue::of::<T>();
    let defaults = catalogue.flatten(&to_table(&T::default())?);
    let values = catalogue.flatten(&to_table(settings)?);
    let is_changed = |entry: &(String, Value)| !defaults.contains(entry);
    Ok(values.into_iter().filter(is_changed).map(|(key, value)| (key, value.to_string())).collect())
}

/// The values of a table that are not tables themselves, each with its dotted key, in the order of the table.
pub fn leaves(table: &Table) -> Vec<(String, Value)> {
    leaves_until(table, &|_| false)
}

/// [`leaves`], but a table whose dotted key is `whole` counts as a value.
pub(crate) fn leaves_until(table: &Table, whole: &dyn Fn(&str) -> bool) -> Vec<(String, Value)> {
    fn walk(table: &Table, prefix: &str, whole: &dyn Fn(&str) -> bool, leaves: &mut Vec<(String, Value)>) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                Value::Table(inner) if !whole(&key) => walk(inner, &key, whole, leaves),
                _ => leaves.push((key, value.clone())),
            }
        }
    }
    let mut leaves = Vec::new();
    walk(table, "", whole, &mut leaves);
    leaves
}

/// The value of a dotted key.
pub(crate) fn get<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    let mut names = key.split('.');
    let first = table.get(names.next()?)?;
    names.try_fold(first, |value, name| value.as_table()?.get(name))
}

/// Sets the value of a dotted key, with the tables that it is in.
pub(crate) fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((name, rest)) => {
            let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// `a.b.c` as `a.b` and `c`.
fn split_key(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::resolve::testing::{Kl, Settings};
    use std::fs;

    #[test]
    fn the_printed_settings_have_a_comment_for_each_key() {
        let expected = "\
# Passes over the data
epochs = 3
# Step size
learning_rate = 0.1
# Where to
# compute
device = \"cpu\"
# Stop early
# max_steps =
# Also a float
dropout = 0.1
# Lengths
lengths = [1, 2]

[kl]
# Weight of the penalty
coef = 0.05
# Adapt it
adaptive = false

[kl.target]
# Wanted KL
nats = 6.0

[schedule]
# How the learning rate falls after the warm-up: constant | linear | cosine.
kind = \"cosine\"
# Steps until the highest learning rate.
warmup_steps = 5
# Where the warm-up starts, as a fraction of the highest rate; 0: one step above 0.
warmup_from = 0.0
# Where linear and cosine end, as a fraction of the highest rate.
final_fraction = 0.0
";
        assert_eq!(to_commented_toml(&Settings::default()).unwrap(), expected);
    }

    #[test]
    fn the_printed_settings_read_back_the_same() {
        let settings = Settings {
            max_steps: Some(7),
            learning_rate: 2.5e-8,
            device: "a \"quoted\"\nname".into(),
            kl: Kl { coef: 1.0, ..Kl::default() },
            ..Settings::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, to_commented_toml(&settings).unwrap()).unwrap();
        assert_eq!(resolve::<Settings>(None, Some(&path), &[]).unwrap(), settings);
    }

    const SOURCED: &str = "\
# Not about a value.
epochs = 4  # the paper, C.1
device = \"a # b\"# the place
kl.coef = 0.05 # section 3
learning_rate = 2 # table 1

[schedule]
kind = \"linear\"    #   as in the code
warmup_steps = 7
";

    #[test]
    fn a_value_of_the_preset_keeps_its_source() {
        let settings: Settings =
            resolve(Some(SOURCED), None, &["epochs=5".into(), "dropout=0.25".into()]).unwrap();
        let text = to_sourced_toml(&settings, SOURCED).unwrap();
        for line in [
            "device = \"a # b\"  # the place",
            "coef = 0.05  # section 3",
            "learning_rate = 2.0  # table 1",
            "kind = \"linear\"  # as in the code",
            "adaptive = false  # not published: Temper's default",
            // Said by the preset without a source, by the user, and by nobody.
            "warmup_steps = 7",
            "epochs = 5",
            "dropout = 0.25",
            "# max_steps =",
        ] {
            assert!(text.lines().any(|found| found == line), "`{line}` is not in\n{text}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, &text).unwrap();
        assert_eq!(resolve::<Settings>(None, Some(&path), &[]).unwrap(), settings);
    }

    #[test]
    fn a_preset_without_sources_is_printed_as_ever() {
        let preset = "# All of it is ours.\nepochs = 4";
        let settings: Settings = resolve(Some(preset), None, &[]).unwrap();
        assert_eq!(to_sourced_toml(&settings, preset).unwrap(), to_commented_toml(&settings).unwrap());
        let error = to_sourced_toml(&settings, "epochs = 4 # a\nx = = 3").unwrap_err().to_string();
        assert!(error.contains("the preset, line 2"), "{error}");
    }

    #[test]
    fn what_toml_cannot_express_is_an_error() {
        let error =
            to_commented_toml(&Settings { max_steps: Some(u64::MAX), ..Settings::default() }).unwrap_err();
        assert!(matches!(error, Error::Unresolvable { .. }), "{error}");
    }
}
