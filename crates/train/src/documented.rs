//! Settings that know a comment for each of their keys, and their TOML with those comments in it.

use serde::Serialize;
use toml::{Table, Value};

use crate::error::{Error, one_line};

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
/// [`crate::resolve`] reads it back to the same settings.
///
/// # Errors
///
/// [`Error::Unresolvable`] if TOML cannot express a value: an integer above `i64::MAX`, say.
pub fn to_commented_toml<T: Serialize + Documented>(settings: &T) -> Result<String, Error> {
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
                Some((_, value)) => format!("{name} = {value}\n"),
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
    use crate::resolve;
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
