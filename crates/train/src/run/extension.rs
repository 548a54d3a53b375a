//! A run that is resumed with more steps than it was started with.

use std::path::Path;

use toml::{Table, Value};

use crate::error::Error;
use crate::inputs::compare_configs;
use crate::settings::LENGTH;

/// Whether a run with these settings can become longer later: where the learning rate falls towards the end, the updates
/// would have been others.
pub(super) fn can_be_extended(settings: &Table) -> bool {
    kind_of_schedule(settings).is_some_and(|kind| kind == "constant")
}

/// Compares the settings of a run with those that it is resumed with. They may only make it longer: then this says how.
///
/// # Errors
/// [`Error::ConfigDiffers`], and [`Error::CannotExtend`] where the schedule does not allow it.
pub(super) fn extension(stored: &Table, given: &Table, path: &Path) -> Result<Option<String>, Error> {
    let mut lengthened = stored.clone();
    let mut changes = Vec::new();
    for key in lengthened_settings(stored, given) {
        let (Some(before), Some(now)) = (stored.get(key), given.get(key)) else { continue };
        lengthened.insert(key.to_owned(), now.clone());
        changes.push((key, before, now));
    }
    compare_configs(&lengthened, given, path)?;
    let Some((key, before, now)) = changes.first() else { return Ok(None) };
    if !can_be_extended(stored) {
        return Err(Error::CannotExtend {
            path: path.to_owned(),
            change: format!("`{key}` was {before} when the run started and is {now} now"),
            schedule: kind_of_schedule(stored).unwrap_or("unknown").to_owned(),
        });
    }
    let changes: Vec<String> =
        changes.iter().map(|(key, before, now)| format!("`{key}` is {now} instead of {before}")).collect();
    Ok(Some(changes.join(", ")))
}

fn kind_of_schedule(settings: &Table) -> Option<&str> {
    settings.get("schedule")?.get("kind")?.as_str()
}

/// Which settings of the length are larger than they were. A limit on the steps may also go where there are more epochs;
/// without these, it has been left out by mistake.
pub(crate) fn lengthened_settings<'k>(stored: &Table, given: &Table) -> Vec<&'k str> {
    let number = |table: &Table, key: &str| table.get(key).and_then(Value::as_integer);
    let grows =
        |key: &str| number(stored, key).zip(number(given, key)).is_some_and(|(before, now)| now > before);
    let is_longer = |key: &&str| match (*key, number(stored, key), number(given, key)) {
        ("max_steps", Some(0), _) => false,
        ("max_steps", Some(_), Some(0)) => grows("epochs"),
        _ => grows(key),
    };
    LENGTH.into_iter().filter(is_longer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(epochs: i64, max_steps: i64, kind: &str) -> Table {
        let text =
            format!("epochs = {epochs}\nmax_steps = {max_steps}\nseed = 1\n[schedule]\nkind = \"{kind}\"");
        toml::from_str(&text).unwrap()
    }

    fn found(stored: Table, given: Table) -> Result<Option<String>, String> {
        extension(&stored, &given, Path::new("run/config.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_run_may_become_longer_where_the_rate_is_constant() {
        let constant = |epochs, max_steps| settings(epochs, max_steps, "constant");
        assert_eq!(found(constant(2, 40), constant(2, 40)), Ok(None));
        assert_eq!(
            found(constant(2, 40), constant(2, 80)),
            Ok(Some("`max_steps` is 80 instead of 40".into()))
        );
        let both = "`epochs` is 3 instead of 2, `max_steps` is 0 instead of 40";
        assert_eq!(found(constant(2, 40), constant(3, 0)), Ok(Some(both.into())));
        let error = found(settings(2, 0, "cosine"), settings(4, 0, "cosine")).unwrap_err();
        assert!(error.contains("`epochs`") && error.contains("cosine"), "{error}");
    }

    #[test]
    fn nothing_else_may_change() {
        let constant = |epochs, max_steps| settings(epochs, max_steps, "constant");
        for (stored, given) in [
            (constant(2, 40), constant(2, 20)),
            (constant(2, 40), constant(2, 0)),
            (constant(2, 0), constant(2, 80)),
            (constant(3, 0), constant(2, 0)),
        ] {
            assert!(found(stored, given).unwrap_err().contains("when the run started"));
        }
        let mut other = constant(3, 0);
        other.insert("seed".into(), 2.into());
        assert!(found(constant(2, 0), other).unwrap_err().contains("`seed`"));
    }
}
