//! Whether a run is resumed with what it was started with: settings, data, models, machine.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Table;

use crate::error::{Error, Origin, one_line};
use crate::files::load_json;
use crate::run::INPUTS_FILE;
use crate::settings::leaves;

/// What a run was given in addition to its settings. Is stored next to them as `inputs.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Fingerprints of data and models, by the flag that gives them. With another one it is another run.
    pub given: BTreeMap<String, String>,
    /// What rounding depends on: threads, backend. With another one the run continues, but ends with other bits.
    pub machine: BTreeMap<String, String>,
    /// The date that chat templates took for today, as `2026-11-29`. A resumed run takes it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
}

impl Inputs {
    /// What the run in `dir` was started with; `None` if the directory holds no run.
    ///
    /// # Errors
    /// [`Error::Io`], and an `inputs.json` that is not one of ours.
    pub fn of_run(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(INPUTS_FILE);
        if path.exists() { load_json(&path).map(Some) } else { Ok(None) }
    }

    /// Refuses other data and models than `stored`, and says how the machine differs.
    pub(crate) fn compare(&self, stored: &Inputs, dir: &Path) -> Result<Vec<String>, Error> {
        let of = |inputs: &BTreeMap<String, String>, name: &str| {
            inputs.get(name).cloned().unwrap_or_else(|| "not given".to_owned())
        };
        // Models first: another one may read other rows of the same data.
        let mut flags: Vec<&String> = self.given.keys().chain(stored.given.keys()).collect();
        flags.sort_by_key(|flag| !["--model", "--policy", "--reward"].contains(&flag.as_str()));
        for flag in flags {
            let (stored, given) = (of(&stored.given, flag), of(&self.given, flag));
            if stored != given {
                return Err(Error::InputDiffers { dir: dir.to_owned(), flag: flag.clone(), stored, given });
            }
        }
        let differs = |name: &&String| of(&self.machine, name) != of(&stored.machine, name);
        let tell = |name: &String| {
            format!(
                "{}: {name} was {} when the run started and is {} now, so it will not end with the same bits \
                 as a run without a break",
                dir.display(),
                of(&stored.machine, name),
                of(&self.machine, name)
            )
        };
        Ok(self.machine.keys().filter(differs).map(tell).collect())
    }
}

/// A checksum over some files of a directory, in words; one that is not there counts as empty.
///
/// # Errors
/// [`Error::Io`] if one cannot be read.
pub fn fingerprint_files(dir: &Path, names: &[&str]) -> Result<String, Error> {
    let mut crc = flate2::Crc::new();
    for name in names {
        let path = dir.join(name);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes.map_err(Error::io("read", &path))?,
        };
        crc.update(&(bytes.len() as u64).to_le_bytes());
        crc.update(&bytes);
    }
    Ok(format!("files with checksum {:08x}", crc.sum()))
}

pub(crate) fn parse_config(text: &str, path: &Path) -> Result<Table, Error> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let line = 1 + text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count();
        let origin = Origin::File { path: path.to_owned(), line };
        Error::TomlSyntax { origin, message: one_line(error.message()) }
    })
}

/// Fails with the first key, in the order of the settings given now, that differs.
pub(crate) fn compare_configs(stored: &Table, given: &Table, path: &Path) -> Result<(), Error> {
    let [stored, given] = [stored, given].map(leaves);
    let find = |values: &[(String, toml::Value)], key: &str| {
        values
            .iter()
            .find(|(other, _)| other == key)
            .map_or_else(|| "not set".to_owned(), |(_, value)| format!("`{value}`"))
    };
    for (key, _) in given.iter().chain(&stored) {
        let (stored, given) = (find(&stored, key), find(&given, key));
        if stored != given {
            return Err(Error::ConfigDiffers { path: path.to_owned(), key: key.clone(), stored, given });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn other_data_is_refused_with_its_flag_and_another_machine_is_reported() {
        let inputs = |data: &str, threads: &str| Inputs {
            given: map(&[("--data", data)]),
            machine: map(&[("threads", threads)]),
            date: None,
        };
        let stored = inputs("5 rows", "2");
        let dir = Path::new("runs/sft");
        assert_eq!(inputs("5 rows", "2").compare(&stored, dir).unwrap(), Vec::<String>::new());
        let told = inputs("5 rows", "1").compare(&stored, dir).unwrap();
        assert!(told[0].starts_with("runs/sft: threads was 2 when the run started and is 1 now"), "{told:?}");
        let error = inputs("6 rows", "2").compare(&stored, dir).unwrap_err().to_string();
        assert_eq!(error, "runs/sft: `--data` was 5 rows when the run started and is 6 rows now");
        let error = Inputs::default().compare(&stored, dir).unwrap_err().to_string();
        assert!(error.ends_with("is not given now"), "{error}");
    }

    #[test]
    fn files_that_differ_have_other_fingerprints() {
        let dir = tempfile::tempdir().unwrap();
        let of = |names: &[&str]| fingerprint_files(dir.path(), names).unwrap();
        fs::write(dir.path().join("a"), "one").unwrap();
        let before = of(&["a", "b"]);
        fs::write(dir.path().join("c"), "not asked for").unwrap();
        assert_eq!(of(&["a", "b"]), before);
        fs::write(dir.path().join("b"), "two").unwrap();
        let both = of(&["a", "b"]);
        assert_ne!(both, before);
        fs::write(dir.path().join("a"), "two").unwrap();
        fs::write(dir.path().join("b"), "one").unwrap();
        assert_ne!(of(&["a", "b"]), both);
    }
}
