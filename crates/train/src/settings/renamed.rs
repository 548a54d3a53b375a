//! Settings under the keys that they had in earlier versions.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use toml::{Table, Value};

use super::{Catalogue, Settings, insert};
use crate::error::Error;
use crate::settings::resolve::Given;

/// How many renamed settings a warning names.
const MOST_NAMED: usize = 3;

/// The key that the setting `key` of `T` has now; `key` itself if it was not renamed.
pub fn current_key<T: Settings>(key: &str) -> String {
    Catalogue::of::<T>().current_key(key).to_owned()
}

/// Gives every setting its current key, with one warning for those that had another one.
///
/// # Errors
/// [`Error::OldAndNewKey`] if one place (a file, the command line) gives a setting under both. Between places there is
/// an order, so there the later one counts.
pub(super) fn rename(given: &mut [Given], catalogue: &Catalogue) -> Result<(), Error> {
    let place = |entry: &Given| std::mem::discriminant(&entry.origin);
    let mut renamed = Vec::new();
    for i in 0..given.len() {
        let entry = &given[i];
        let key = catalogue.current_key(&entry.key);
        if key == entry.key {
            continue;
        }
        let is_same_setting = |other: &Given| {
            other.key != entry.key && catalogue.current_key(&other.key) == key && place(other) == place(entry)
        };
        if given.iter().any(is_same_setting) {
            let (old, origin) = (entry.key.clone(), entry.origin.clone());
            return Err(Error::OldAndNewKey { old, key: key.to_owned(), origin });
        }
        renamed.push((i, key.to_owned()));
    }
    warn_of(&renamed.iter().map(|(i, key)| (given[*i].key.clone(), key.clone())).collect::<Vec<_>>());
    for (i, key) in renamed {
        given[i].key = key;
    }
    Ok(())
}

/// Warns once in a process, however often it reads the same settings.
fn warn_of(renamed: &[(String, String)]) {
    static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let pairs = renamed.iter().take(MOST_NAMED).map(|(old, key)| format!("`{old}` is now `{key}`"));
    let mut warning = pairs.collect::<Vec<_>>().join(", ");
    if renamed.len() > MOST_NAMED {
        warning += &format!(", and {} more", renamed.len() - MOST_NAMED);
    }
    let is_new = || WARNED.lock().unwrap_or_else(PoisonError::into_inner).insert(warning.clone());
    if !renamed.is_empty() && is_new() {
        tracing::warn!("settings were renamed: {warning}");
    }
}

/// The settings that a run was started with, as today's Temper would have stored them, with a note on what was changed.
///
/// A key that is newer than the run counts as its default: the default of a new setting is what Temper did before.
pub(crate) fn update_stored(
    stored: &Table,
    catalogue: &Catalogue,
    defaults: &Table,
    path: &Path,
) -> (Table, Vec<String>) {
    let mut updated = Table::new();
    let mut notes = Vec::new();
    for (key, value) in catalogue.flatten(stored) {
        insert(&mut updated, catalogue.current_key(&key), value);
    }
    let present: BTreeSet<String> = catalogue.flatten(&updated).into_iter().map(|(key, _)| key).collect();
    for (key, value) in catalogue.flatten(defaults) {
        if !present.contains(&key) {
            notes.push(format!(
                "{}: this run is older than the setting `{key}`, which counts as {}, its default",
                path.display(),
                shown(&value)
            ));
            insert(&mut updated, &key, value);
        }
    }
    (updated, notes)
}

fn shown(value: &Value) -> String {
    format!("`{value}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{resolve, settings, to_commented_toml};
    use std::fs;

    settings! {
        /// Settings; some of them were renamed.
        pub struct Renamed {
            /// Moved to the top.
            pub seed: u64 = 0, renamed_from "random.seed", renamed_from "dice",
            /// What was `[ppo]`.
            section update: Update, renamed_from "ppo",
        }
    }

    settings! {
        /// A section that was renamed as a whole.
        pub struct Update {
            /// Passes.
            pub epochs: usize = 1,
            /// The discount.
            pub gamma: f64 = 1.0, in 0.0..=1.0,
            /// A word.
            pub word: String = "none".into(),
        }
    }

    fn in_file(text: &str, sets: &[&str]) -> Result<Renamed, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ppo.toml");
        fs::write(&path, text).unwrap();
        resolve(None, Some(&path), &sets.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn an_old_key_is_accepted_wherever_settings_are_given() {
        let expected = Renamed { seed: 7, update: Update { epochs: 2, gamma: 0.5, word: "7".into() } };
        let file = "random.seed = 7\n[ppo]\nepochs = 2\ngamma = 0.5\nword = \"7\"";
        assert_eq!(in_file(file, &[]).unwrap(), expected);
        assert_eq!(
            in_file("", &["dice=7", "ppo.epochs=2", "ppo.gamma=0.5", "ppo.word=7"]).unwrap(),
            expected
        );
        assert_eq!(in_file("dice = 7", &["ppo={epochs=2, gamma=0.5, word=\"7\"}"]).unwrap(), expected);
        assert_eq!(resolve::<Renamed>(Some(file), None, &[]).unwrap(), expected);
        assert_eq!(current_key::<Renamed>("ppo.gamma"), "update.gamma");
        assert_eq!(current_key::<Renamed>("update.gamma"), "update.gamma");
    }

    #[test]
    fn a_later_place_wins_under_either_name() {
        let new_over_old = in_file("ppo.gamma = 0.5", &["update.gamma=0.25"]).unwrap();
        let old_over_new = in_file("update.gamma = 0.5", &["ppo.gamma=0.25"]).unwrap();
        assert_eq!((new_over_old.update.gamma, old_over_new.update.gamma), (0.25, 0.25));
    }

    #[test]
    fn a_part_of_the_settings_of_a_run_is_read_under_old_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, "random.seed = 7\nother = 1\n[penalty]\ncoef = 0.1").unwrap();
        let expected = Renamed { seed: 7, ..Renamed::default() };
        assert_eq!(crate::resolve_known::<Renamed>(&path).unwrap(), expected);
    }

    #[test]
    fn both_names_in_one_place_are_an_error() {
        let error = in_file("[update]\ngamma = 1\n[ppo]\ngamma = 1", &[]).unwrap_err();
        let message = error.to_string();
        assert!(message.ends_with("ppo.toml:4 is the old name of `update.gamma`, which is given there, too"));
        assert!(message.starts_with("`ppo.gamma` in "), "{message}");
        let error = in_file("", &["dice=1", "seed=1"]).unwrap_err().to_string();
        assert!(error.starts_with("`dice` in `--set` is the old name of `seed`"), "{error}");
        assert!(in_file("dice = 1\n[random]\nseed = 2", &[]).is_err(), "two old names");
    }

    #[test]
    fn a_mistake_under_an_old_name_is_named_by_the_new_one() {
        let error = in_file("", &["ppo.epochs=many"]).unwrap_err().to_string();
        assert!(error.starts_with("wrong value for `update.epochs` in `--set`"), "{error}");
        let error = in_file("", &["ppo.epoch=1"]).unwrap_err().to_string();
        assert!(error.ends_with("did you mean `update.epochs`?"), "{error}");
    }

    #[test]
    fn stored_settings_get_new_names_and_what_was_not_there_its_default() {
        let stored: Table = toml::from_str("other = 1\n[ppo]\nepochs = 2\nword = \"x\"").unwrap();
        let defaults: Table = toml::from_str(&to_commented_toml(&Renamed::default()).unwrap()).unwrap();
        let catalogue = Catalogue::of::<Renamed>();
        let (updated, notes) = update_stored(&stored, &catalogue, &defaults, Path::new("run/config.toml"));
        let expected = "other = 1\nseed = 0\n[update]\nepochs = 2\ngamma = 1.0\nword = \"x\"";
        assert_eq!(updated, toml::from_str(expected).unwrap());
        let note = |key: &str, value: &str| {
            format!(
                "run/config.toml: this run is older than the setting `{key}`, which counts as `{value}`, its default"
            )
        };
        assert_eq!(notes, [note("seed", "0"), note("update.gamma", "1.0")]);
    }
}
