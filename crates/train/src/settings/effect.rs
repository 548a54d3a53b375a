//! Settings that have no effect because of the value of another setting.

use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

use super::printed::trailing_comments;
use super::{Chosen, NOT_PUBLISHED, Settings, get, leaves, to_table};
use crate::error::Error;

/// A condition of `only_with`.
pub(super) struct Condition<'c> {
    /// The dotted key of the other setting.
    pub(super) key: &'c str,
    /// Whether its value must be this one, or any other.
    equal: bool,
    pub(super) value: &'c str,
}

/// Reads `KEY = VALUE` or `KEY != VALUE`. A string needs no quotation marks, except for the empty one: `''`.
pub(super) fn parse(text: &str) -> Option<Condition<'_>> {
    let (equal, (key, value)) = match text.split_once("!=") {
        Some(sides) => (false, sides),
        None => (true, text.split_once('=')?),
    };
    Some(Condition { key: key.trim(), equal, value: value.trim().trim_matches('\'') })
}

impl Condition<'_> {
    fn holds(&self, value: &Value) -> bool {
        let is_equal = match value {
            Value::String(text) => text == self.value,
            Value::Integer(number) => self.value.parse() == Ok(*number),
            Value::Float(number) => self.value.parse() == Ok(*number),
            other => other.to_string() == self.value,
        };
        is_equal == self.equal
    }
}

/// The dotted keys of the settings that have no effect, each with the value of another setting that is the reason.
///
/// # Errors
/// [`Error::Unresolvable`] if TOML cannot express a value.
pub fn without_effect<T: Settings>(settings: &T) -> Result<Vec<(String, String)>, Error> {
    let table = to_table(settings)?;
    let mut idle = Vec::new();
    for setting in T::declared() {
        let conditions = setting.only_with.iter().filter_map(|text| parse(text));
        for condition in conditions {
            let value = get(&table, condition.key).filter(|value| !condition.holds(value));
            if let Some(value) = value {
                idle.push((setting.key.clone(), reason(condition.key, value)));
                break;
            }
        }
    }
    Ok(idle)
}

/// One sentence for each reason why settings that somebody has asked for have no effect.
///
/// Asked for are those that are not at their default, and `asked_for`, whatever their value, but not those that were
/// `chosen`. `idle` has the settings whose
/// reason is not another setting but something else that a run is given: dotted keys with their reasons.
///
/// # Errors
/// [`Error::Unresolvable`] if TOML cannot express a value.
pub fn notes_on_settings_without_effect<T: Settings>(
    settings: &T,
    idle: &[(&str, &str)],
    asked_for: &BTreeSet<String>,
    chosen: &[Chosen],
) -> Result<Vec<String>, Error> {
    let defaults = leaves(&to_table(&T::default())?);
    let values = leaves(&to_table(settings)?);
    let is_asked_for = |key: &str| {
        let value = |table: &[(String, Value)]| {
            table.iter().find(|(other, _)| other == key).map(|(_, value)| value.to_string())
        };
        let is_chosen = chosen.iter().any(|choice| choice.key == key);
        asked_for.contains(key) || (!is_chosen && value(&values) != value(&defaults))
    };
    let mut reasons = without_effect(settings)?;
    reasons.extend(idle.iter().map(|&(key, why)| (key.to_owned(), why.to_owned())));
    let mut keys_by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, why) in reasons.into_iter().filter(|(key, _)| is_asked_for(key)) {
        keys_by_reason.entry(why).or_default().push(format!("`{key}`"));
    }
    let sentence = |(why, keys): (String, Vec<String>)| {
        let have = if keys.len() == 1 { "has" } else { "have" };
        format!("{} {have} no effect: {why}", keys.join(", "))
    };
    Ok(keys_by_reason.into_iter().map(sentence).collect())
}

/// The dotted keys that a preset asks for: those whose value has a source, in a comment after it, that is not
/// [`NOT_PUBLISHED`].
///
/// # Errors
/// [`Error::TomlSyntax`].
pub fn keys_with_source(preset: &str) -> Result<BTreeSet<String>, Error> {
    let sources = trailing_comments(preset)?;
    Ok(sources.into_iter().filter(|(_, source)| source != NOT_PUBLISHED).map(|(key, _)| key).collect())
}

fn reason(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => format!("`{key}` is empty"),
        Value::String(text) => format!("`{key}` is {text}"),
        Value::Float(number) => format!("`{key}` is {number}"),
        other => format!("`{key}` is {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    settings! {
        /// Settings that depend on each other.
        pub struct Dependent {
            /// A number.
            pub target: f64 = 0.0,
            /// A text.
            pub stop: String = String::new(),
            /// Needs the number.
            pub horizon: f64 = 1.0, only_with "target != 0",
            /// Needs both.
            pub after: usize = 1, only_with "stop != ''", only_with "target = 2.0",
        }
    }

    #[test]
    fn the_first_condition_that_does_not_hold_is_the_reason() {
        let idle = |target, stop: &str| {
            let settings = Dependent { target, stop: stop.into(), ..Dependent::default() };
            without_effect(&settings)
                .unwrap()
                .into_iter()
                .map(|(key, why)| key + ": " + &why)
                .collect::<Vec<_>>()
        };
        assert_eq!(idle(0.0, ""), ["horizon: `target` is 0", "after: `stop` is empty"]);
        assert_eq!(idle(1.5, "."), ["after: `target` is 1.5"]);
        assert_eq!(idle(2.0, "."), [""; 0]);
    }
}
