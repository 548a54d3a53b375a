//! Directories of data files, such as the shards of a data set from Hugging Face.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The ends of names that data files have.
const ENDINGS: [&str; 7] = [".jsonl", ".ndjson", ".json", ".parquet", ".jsonl.gz", ".ndjson.gz", ".json.gz"];
/// Files that describe a data set of Hugging Face and hold no rows.
const DESCRIPTIONS: [&str; 3] = ["dataset_info.json", "dataset_infos.json", "state.json"];
/// Where the data sets of Hugging Face keep their files.
const SUBFOLDER: &str = "data";
/// How the names of the parts of a data set begin, besides those that are numbered as shards.
const SPLITS: [&str; 6] = ["train", "test", "validation", "valid", "dev", "eval"];

/// The data files that paths stand for: a file is itself, and a directory is the data files in it and in its `data`,
/// sorted by name. Other files of a directory are not data.
///
/// # Errors
/// [`Error::NoDataFiles`]; [`Error::SeveralSplits`] if a directory has training and test data, which nobody wants to mix
/// by accident; [`Error::Io`] if a directory cannot be listed.
pub fn data_files(paths: &[impl AsRef<Path>]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for path in paths {
        let path = path.as_ref();
        if path.is_dir() {
            files.extend(files_of(path)?);
        } else {
            files.push(path.to_owned());
        }
    }
    Ok(files)
}

fn files_of(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = list(dir)?;
    let subfolder = dir.join(SUBFOLDER);
    if subfolder.is_dir() {
        files.extend(list(&subfolder)?);
    }
    files.sort();
    if files.is_empty() {
        return Err(Error::NoDataFiles { path: dir.to_owned(), endings: ENDINGS.join(", ") });
    }
    let splits: BTreeSet<String> = files.iter().filter_map(|file| split(&name_of(file))).collect();
    if splits.len() > 1 {
        let splits = splits.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Error::SeveralSplits { path: dir.to_owned(), splits });
    }
    Ok(files)
}

/// The data files directly in a directory.
fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        let name = name_of(&path);
        let has_rows = ENDINGS.iter().any(|ending| name.ends_with(ending))
            && !name.starts_with('.')
            && !DESCRIPTIONS.contains(&name.as_str());
        if has_rows && !path.is_dir() {
            files.push(path);
        }
    }
    Ok(files)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// The part of a data set that a file belongs to, from its name: `train-00000-of-00002.parquet`, `test.jsonl`.
fn split(name: &str) -> Option<String> {
    let is_number = |part: &str| part.len() == 5 && part.bytes().all(|byte| byte.is_ascii_digit());
    let stem = name.split('.').next().unwrap_or_default();
    let parts: Vec<&str> = stem.rsplitn(4, '-').collect();
    if let [of, "of", number, split] = parts[..]
        && is_number(of)
        && is_number(number)
    {
        return Some(split.to_owned());
    }
    let word = stem.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    SPLITS.contains(&word).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir_with(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}").unwrap();
        }
        dir
    }

    fn names(dir: &tempfile::TempDir) -> Vec<String> {
        let files = data_files(&[dir.path()]).unwrap();
        let relative = |file: &PathBuf| file.strip_prefix(dir.path()).unwrap().display().to_string();
        files.iter().map(relative).collect()
    }

    #[test]
    fn a_directory_is_its_data_files_by_name_and_nothing_else() {
        let shards = ["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet"];
        let others =
            ["README.md", "dataset_info.json", ".hidden.jsonl", "data/notes.txt", "more/train.jsonl"];
        let dir = dir_with(&[&shards[..], &others].concat());
        assert_eq!(names(&dir), [shards[1], shards[0]]);
        let dir = dir_with(&["b.jsonl.gz", "a.json", "c.JSONL", "data.d/x.json"]);
        assert_eq!(names(&dir), ["a.json", "b.jsonl.gz", "c.JSONL"]);
        // A file is itself, whatever its name.
        assert_eq!(data_files(&["rows.txt"]).unwrap(), [Path::new("rows.txt")]);
    }

    #[test]
    fn a_directory_without_data_files_says_what_was_looked_for() {
        let error = data_files(&[dir_with(&["README.md", "rows.csv"]).path()]).unwrap_err();
        assert!(
            error.to_string().contains("no data files") && error.to_string().contains(".parquet"),
            "{error}"
        );
    }

    #[test]
    fn training_and_test_data_are_not_mixed() {
        for names in [
            ["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"],
            ["train.jsonl", "validation.jsonl"],
            ["data/train_sft-00000-of-00001.parquet", "data/train_gen-00000-of-00001.parquet"],
        ] {
            let error = data_files(&[dir_with(&names).path()]).unwrap_err();
            assert!(matches!(error, Error::SeveralSplits { .. }), "{error}");
            assert!(error.hint().unwrap().contains("files of one"), "{error}");
        }
        assert_eq!(names(&dir_with(&["train_1.jsonl", "train_2.jsonl", "training.json"])).len(), 3);
    }
}
