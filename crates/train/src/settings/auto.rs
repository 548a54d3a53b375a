//! Settings whose value is chosen when a run starts, from the model and the data.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::printed::{get, insert, parse, to_table};
use super::{Catalogue, Settings, trailing_comments};
use crate::error::{Error, one_line};
use crate::run::lengthened_settings;

/// What a user writes for a setting whose value Temper chooses.
pub(super) const AUTO: &str = "auto";

/// How the comment begins after a value that Temper has chosen.
pub(super) const COMMENT: &str = "auto: ";

/// The settings that say how long a run is.
pub const LENGTH: [&str; 2] = ["epochs", "max_steps"];

/// The settings that are left to Temper, by their dotted keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AutoKeys(BTreeSet<String>);

/// A value that Temper has chosen for a setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The dotted key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// What it follows from, in a few words: "4.9M fresh parameters".
    pub reason: String,
}

impl Chosen {
    /// This value for the setting `key`, for this reason.
    pub fn new(key: &str, value: impl Into<Value>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into(), reason: reason.into() }
    }

    /// Whether the setting still has this value.
    pub(super) fn is(&self, value: &Value) -> bool {
        match (&self.value, value) {
            (Value::Integer(chosen), Value::Float(value)) => *chosen as f64 == *value,
            (chosen, value) => chosen == value,
        }
    }
}

impl FromIterator<String> for AutoKeys {
    fn from_iter<I: IntoIterator<Item = String>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl AutoKeys {
    /// Every setting of `T` that may be `auto`.
    pub fn all<T: Settings>() -> Self {
        Self(T::auto().iter().map(|(key, _)| (*key).to_owned()).collect())
    }

    /// Whether this setting is left to Temper.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains(key)
    }

    /// Those of them that say how long a run is.
    #[must_use]
    pub fn of_length(&self) -> Self {
        self.iter().filter(|key| LENGTH.contains(key)).map(str::to_owned).collect()
    }

    /// Those that have no value here.
    #[must_use]
    pub fn without(&self, values: &[Chosen]) -> Self {
        let has_value = |key: &str| values.iter().any(|choice| choice.key == key);
        self.iter().filter(|key| !has_value(key)).map(str::to_owned).collect()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether no setting is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves the setting `key` to Temper, or takes it back. A setting that cannot be `auto` stays what it is.
    pub(super) fn set<T: Settings>(&mut self, key: &str, is_auto: bool) {
        if !is_auto {
            self.0.remove(key);
        } else if T::auto().iter().any(|(other, _)| *other == key) {
            self.0.insert(key.to_owned());
        }
    }

    /// What the value of `key` will follow from, if it is left to Temper.
    pub(super) fn follows_from<T: Settings>(&self, key: &str) -> Option<&'static str> {
        let (_, follows_from) = T::auto().iter().find(|(other, _)| *other == key)?;
        self.contains(key).then_some(*follows_from)
    }

    /// The settings with those values of `choices` that are left to Temper, and these values.
    ///
    /// # Errors
    /// [`Error::Unresolvable`] if a value has the wrong type, or the settings cannot be expressed in TOML.
    pub fn fill<T: Settings>(&self, settings: &T, choices: Vec<Chosen>) -> Result<(T, Vec<Chosen>), Error> {
        let chosen: Vec<Chosen> = choices.into_iter().filter(|choice| self.contains(&choice.key)).collect();
        let mut table = to_table(settings)?;
        for Chosen { key, value, .. } in &chosen {
            insert(&mut table, key, value.clone());
        }
        let filled = T::deserialize(table);
        let filled = filled.map_err(|error| Error::Unresolvable { message: one_line(error.message()) })?;
        Ok((filled, chosen))
    }
}

/// The settings that a run was started with.
#[derive(Clone, Debug)]
pub struct StartSettings {
    all: Table,
    /// Those that were chosen for the user: in its `config.toml`, a comment says so.
    chosen: Vec<Chosen>,
}

impl StartSettings {
    /// From the `config.toml` of the run.
    ///
    /// # Errors
    /// [`Error::TomlSyntax`].
    pub(crate) fn of(config_toml: &str) -> Result<Self, Error> {
        let all: Table = parse(config_toml)?;
        let chosen = |(key, comment): (String, String)| {
            let reason = comment.strip_prefix(COMMENT)?.to_owned();
            let value = get(&all, &key)?.clone();
            Some(Chosen { key, value, reason })
        };
        let chosen = trailing_comments(config_toml)?.into_iter().filter_map(chosen).collect();
        Ok(Self { all, chosen })
    }

    /// The same under the keys that the settings of `T` have now: an earlier version may have stored them.
    #[must_use]
    pub fn with_current_keys<T: Settings>(self) -> Self {
        let catalogue = Catalogue::of::<T>();
        let mut all = Table::new();
        for (key, value) in catalogue.flatten(&self.all) {
            insert(&mut all, catalogue.current_key(&key), value);
        }
        let current =
            |choice: Chosen| Chosen { key: catalogue.current_key(&choice.key).to_owned(), ..choice };
        Self { all, chosen: self.chosen.into_iter().map(current).collect() }
    }

    /// What was chosen for the settings that are left to Temper, now as well.
    pub fn chosen(&self, auto: &AutoKeys) -> Vec<Chosen> {
        self.chosen.iter().filter(|choice| auto.contains(&choice.key)).cloned().collect()
    }

    /// What somebody gave for settings that are left to Temper now. Nothing was chosen for these.
    pub fn given(&self, auto: &AutoKeys) -> Vec<Chosen> {
        let is_chosen = |key: &str| self.chosen.iter().any(|choice| choice.key == key);
        let given = auto.iter().filter(|key| !is_chosen(key));
        given
            .filter_map(|key| Some(Chosen::new(key, get(&self.all, key)?.clone(), "as at the start")))
            .collect()
    }

    /// Whether somebody gives a larger length of the run than it had at its start.
    ///
    /// # Errors
    /// [`Error::Unresolvable`] if the settings cannot be expressed in TOML.
    pub fn is_lengthened<T: Settings>(&self, settings: &T, auto: &AutoKeys) -> Result<bool, Error> {
        let longer = lengthened_settings(&self.all, &to_table(settings)?);
        Ok(longer.into_iter().any(|key| !auto.contains(key)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{resolve_with_auto, settings, to_annotated_toml};

    const AUTO_KEYS: [(&str, &str); 2] =
        [("rate", "from the size of the model"), ("inner.steps", "from the number of rows")];

    settings! {
        /// Settings: two of them may be auto.
        pub struct Settled {
            /// A rate.
            pub rate: f64 = 0.5, in 0.0..=10.0,
            /// A word.
            pub word: String = "auto".into(),
            /// More.
            section inner: Inner,
        }
        auto AUTO_KEYS
    }

    settings! {
        /// More settings.
        pub struct Inner {
            /// A number.
            pub steps: usize = 7,
        }
    }

    fn resolved(preset: Option<&str>, sets: &[&str]) -> (Settled, AutoKeys) {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        resolve_with_auto(preset, None, &sets).unwrap()
    }

    fn keys(auto: &AutoKeys) -> Vec<&str> {
        auto.0.iter().map(String::as_str).collect()
    }

    #[test]
    fn what_nobody_says_is_left_to_temper_unless_there_is_a_preset() {
        let (settings, auto) = resolved(None, &[]);
        assert_eq!((settings, keys(&auto)), (Settled::default(), vec!["inner.steps", "rate"]));
        assert_eq!(keys(&resolved(None, &["rate=2"]).1), ["inner.steps"]);
        assert_eq!(keys(&resolved(Some("rate = 2"), &[]).1), [""; 0]);
        // The last word counts, and the value of an earlier one is forgotten.
        let (settings, auto) = resolved(Some("rate = 2"), &["rate=auto", "word=auto"]);
        assert_eq!((settings.rate, settings.word.as_str(), keys(&auto)), (0.5, "auto", vec!["rate"]));
        let (settings, auto) = resolved(None, &["rate=auto", "rate=3"]);
        assert_eq!((settings.rate, keys(&auto)), (3.0, vec!["inner.steps"]));
        let error = resolve_with_auto::<Inner>(None, None, &["steps=auto".into()]).unwrap_err().to_string();
        assert!(error.contains("wrong value for `steps`"), "{error}");
    }

    #[test]
    fn only_what_is_left_to_temper_is_filled_in_and_the_reason_is_printed() {
        let (settings, auto) = resolved(None, &["inner.steps=3"]);
        let choices = vec![Chosen::new("rate", 2, "1k parameters"), Chosen::new("inner.steps", 9, "9 rows")];
        let (filled, chosen) = auto.fill(&settings, choices.clone()).unwrap();
        assert_eq!((filled.rate, filled.inner.steps), (2.0, 3));
        assert_eq!(chosen, choices[..1]);
        let text = to_annotated_toml(&filled, &AutoKeys::default(), &chosen).unwrap();
        assert!(text.contains("\nrate = 2.0  # auto: 1k parameters\n"), "{text}");
        let before = to_annotated_toml(&settings, &auto, &[]).unwrap();
        assert!(before.contains("\nrate = \"auto\"  # from the size of the model\n"), "{before}");
        assert!(before.contains("\nsteps = 3\n"), "{before}");
        // What is printed reads back to the same.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, before).unwrap();
        assert_eq!(resolve_with_auto::<Settled>(None, Some(&path), &[]).unwrap(), (settings, auto));
    }

    #[test]
    fn a_stored_run_says_which_values_were_chosen() {
        let (settings, auto) = resolved(None, &["inner.steps=3"]);
        let (settings, chosen) =
            auto.fill(&settings, vec![Chosen::new("rate", 2.5, "1k parameters")]).unwrap();
        let stored = to_annotated_toml(&settings, &AutoKeys::default(), &chosen).unwrap();
        assert_eq!(StartSettings::of(&stored).unwrap().chosen(&AutoKeys::all::<Settled>()), chosen);
        let all = AutoKeys::all::<Settled>();
        let start = StartSettings::of(&stored).unwrap();
        assert_eq!(start.given(&all), [Chosen::new("inner.steps", 3, "as at the start")]);
        assert_eq!((start.chosen(&AutoKeys::default()), start.given(&AutoKeys::default())), (vec![], vec![]));
        // A value that was set afterwards is nobody's choice but the user's.
        let changed = Settled { rate: 1.0, ..settings };
        let stored = to_annotated_toml(&changed, &AutoKeys::default(), &chosen).unwrap();
        assert_eq!(StartSettings::of(&stored).unwrap().chosen(&all), []);
    }
}
