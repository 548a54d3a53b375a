//! Settings that know a comment for each of their keys, and their TOML with those comments in it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::config::resolve;
use crate::error::{Error, Origin, one_line};

/// Settings with a one-line comment for every key.
///
/// The keys are listed by hand because an option that is `None` does not appear in the serialised default;
/// [`undocumented_keys`] tells in a test whether one was forgotten.
pub trait Documented {
    /// Every dotted key with its comment, in the order in which they are printed.
    fn docs() -> Vec<(&'static str, &'static str)>;
}

/// The keys of the serialised default that [`Documented::docs`] leaves out; empty when all is well. For
/// tests.
pub fn undocumented_keys<T: Serialize + Default + Documented>() -> Vec<String> {
    let table = to_table(&T::default()).unwrap_or_default();
    flatten::<T>(&table).into_iter().map(|(key, _)| key).filter(|key| !is_known::<T>(key)).collect()
}

/// The settings as TOML, each key under its comment; an option that is not set is a comment itself.
/// [`resolve`] reads it back to the same settings.
///
/// # Errors
///
/// [`Error::Unresolvable`] if TOML cannot express a value: an integer above `i64::MAX`, say.
pub fn to_commented_toml<T: Serialize + Documented>(settings: &T) -> Result<String, Error> {
    print(settings, |_, _| None)
}

/// What stands behind a value that a preset with sources does not have from its source.
pub const NOT_PUBLISHED: &str = "not published: Temper's default";

/// [`to_commented_toml`] of settings that come from `preset`, a TOML text with the source of a value in a comment behind
/// it. Such a value keeps its source as long as it is the preset's own, and a default that the preset does not mention
/// is called [`NOT_PUBLISHED`]. A preset without such comments changes nothing.
///
/// # Errors
///
/// Those of [`to_commented_toml`], and of [`resolve`] for the preset.
pub fn to_sourced_toml<T>(settings: &T, preset: &str) -> Result<String, Error>
where
    T: Serialize + DeserializeOwned + Default + Documented,
{
    let sources = trailing_comments(preset)?;
    if sources.is_empty() {
        return to_commented_toml(settings);
    }
    let resolved = flatten::<T>(&to_table(&resolve::<T>(Some(preset), None, &[])?)?);
    let mentioned = flatten::<T>(&parse(preset)?);
    print(settings, |key, value| {
        let as_preset = resolved.iter().any(|(other, theirs)| other == key && theirs == value);
        if !as_preset {
            return None;
        }
        let source = sources.iter().find(|(other, _)| other == key).map(|(_, source)| source.as_str());
        let silent = !mentioned.iter().any(|(other, _)| other == key);
        source.or(silent.then_some(NOT_PUBLISHED)).map(one_line)
    })
}

/// The comments behind the values of a TOML text, with the dotted keys: `key = value # comment`.
///
/// # Errors
///
/// [`Error::TomlSyntax`].
pub fn trailing_comments(text: &str) -> Result<Vec<(String, String)>, Error> {
    fn walk(text: &str, table: &DeTable<'_>, prefix: &str, found: &mut Vec<(String, String)>) {
        for (name, value) in table {
            let name = name.get_ref();
            let key = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
            if let DeValue::Table(inner) = value.get_ref() {
                walk(text, inner, &key, found);
                continue;
            }
            let rest = text[value.span().end..].lines().next().unwrap_or_default();
            found.extend(rest.trim().strip_prefix('#').map(|comment| (key, comment.trim().to_owned())));
        }
    }
    let mut found = Vec::new();
    walk(text, DeTable::parse(text).map_err(|error| syntax(text, &error))?.get_ref(), "", &mut found);
    Ok(found)
}

fn parse(text: &str) -> Result<Table, Error> {
    toml::from_str(text).map_err(|error| syntax(text, &error))
}

fn syntax(text: &str, error: &toml::de::Error) -> Error {
    let before = &text[..error.span().map_or(0, |span| span.start).min(text.len())];
    let line = 1 + before.matches('\n').count();
    Error::TomlSyntax { origin: Origin::Preset { line }, message: one_line(error.message()) }
}

/// Every key under its comment, and behind its value what `behind` says of both.
fn print<T: Serialize + Documented>(
    settings: &T,
    behind: impl Fn(&str, &Value) -> Option<String>,
) -> Result<String, Error> {
    let table = to_table(settings)?;
    let values = flatten::<T>(&table);
    let mut keys: Vec<(&str, &str)> = T::docs();
    keys.extend(values.iter().map(|(key, _)| (key.as_str(), "")).filter(|(key, _)| !is_known::<T>(key)));

    // Keys without a table come first, because TOML has no way back out of a table.
    let mut tables = vec![""];
    for (key, _) in &keys {
        let table = split_key(key).0;
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    let mut text = String::new();
    for table in tables {
        if !table.is_empty() {
            text += &format!("{}[{table}]\n", if text.is_empty() { "" } else { "\n" });
        }
        for (key, comment) in keys.iter().filter(|(key, _)| split_key(key).0 == table) {
            if !comment.is_empty() {
                text += &format!("# {}\n", one_line(comment));
            }
            let name = split_key(key).1;
            text += &match values.iter().find(|(other, _)| other == key) {
                Some((_, value)) => match behind(key, value) {
                    Some(behind) => format!("{name} = {value}  # {behind}\n"),
                    None => format!("{name} = {value}\n"),
                },
                None => format!("# {name} =\n"),
            };
        }
    }
    Ok(text)
}

/// Whether `key` is one of the documented keys of `T`.
pub(crate) fn is_known<T: Documented>(key: &str) -> bool {
    T::docs().iter().any(|(known, _)| *known == key)
}

/// Settings as a TOML table. By way of text, which keeps `f32` values short.
pub(crate) fn to_table<T: Serialize>(settings: &T) -> Result<Table, Error> {
    let unresolvable = |message: String| Error::Unresolvable { message: one_line(&message) };
    let text = toml::to_string(settings).map_err(|error| unresolvable(error.to_string()))?;
    toml::from_str(&text).map_err(|error| unresolvable(error.message().to_owned()))
}

/// Dotted keys and their values; a table that is itself a documented key stays whole.
pub(crate) fn flatten<T: Documented>(table: &Table) -> Vec<(String, Value)> {
    flatten_until(table, &is_known::<T>)
}

/// Dotted keys and their values, down to non-tables or keys that are `whole`.
pub(crate) fn flatten_until(table: &Table, whole: &dyn Fn(&str) -> bool) -> Vec<(String, Value)> {
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

/// `a.b.c` as `a.b` and `c`.
fn split_key(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{Kl, Settings};
    use std::fs;

    #[test]
    fn the_printed_settings_have_a_comment_for_each_key() {
        let expected = "\
# Passes over the data
epochs = 3
# Step size
learning_rate = 0.1
# Where to compute
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
# Shape
kind = \"cosine\"
# Warm-up
warmup_steps = 5
# Its start
warmup_from = 0.0
# End
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
    fn forgotten_comments_are_found() {
        #[derive(Default, Serialize)]
        struct Forgetful {
            a: u8,
            b: u8,
        }
        impl Documented for Forgetful {
            fn docs() -> Vec<(&'static str, &'static str)> {
                vec![("a", "first")]
            }
        }
        assert_eq!(undocumented_keys::<Settings>(), [""; 0]);
        assert_eq!(undocumented_keys::<Forgetful>(), ["b"]);
        assert_eq!(to_commented_toml(&Forgetful::default()).unwrap(), "# first\na = 0\nb = 0\n");
    }

    #[test]
    fn what_toml_cannot_express_is_an_error() {
        let error =
            to_commented_toml(&Settings { max_steps: Some(u64::MAX), ..Settings::default() }).unwrap_err();
        assert!(matches!(error, Error::Unresolvable { .. }), "{error}");
    }
}
