//! Settings that have no effect because of the value of another setting.

use toml::Value;

use super::{Settings, get, to_table};
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
