//! Which rows of the training data are learned, how often, and which of them are kept for evaluation.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flate2::Crc;
use serde::Serialize;
use temper_train::Seed;

use crate::records::TrainingRecord;
use crate::{Error, Place, Rows, data_files};

/// The largest weight of a file. A larger one is rather a mistake, and its rows might not fit into memory.
const LARGEST_WEIGHT: f64 = 1000.0;

/// Which rows of the training data are learned, how often, and which of them are kept for evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// The part of the prompts whose rows are evaluation data, above 0 and below 1. Without it all rows are learned.
    pub eval_fraction: Option<f64>,
    /// How often the rows of some files are learned. Those of other files are learned once.
    pub mix: Vec<FileWeight>,
    /// Whether rows that are the same as an earlier one are left out.
    pub drop_duplicates: bool,
}

/// How often the rows of a data file are learned. As text: `FILE=WEIGHT`.
#[derive(Clone, Debug, PartialEq)]
pub struct FileWeight {
    /// A data file, or a directory of them.
    pub path: PathBuf,
    /// Each row occurs so many times. Of a weight that is not whole, the rest is the probability of one time more.
    pub weight: f64,
}

impl FromStr for FileWeight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, weight) = text
            .rsplit_once('=')
            .filter(|(path, _)| !path.is_empty())
            .ok_or_else(|| format!("`{text}` must be FILE=WEIGHT, such as chats.jsonl=0.5"))?;
        let weight =
            weight.parse().map_err(|_| format!("the weight `{weight}` of {path} is not a number"))?;
        Ok(Self { path: path.into(), weight })
    }
}

impl Selection {
    /// The files of the training data: `data`, and the files that only a weight names.
    ///
    /// # Errors
    /// A fraction or a weight that is out of range, a file with two weights, and those of [`data_files`].
    pub fn paths(&self, data: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
        if let Some(fraction) = self.eval_fraction
            && !(fraction > 0.0 && fraction < 1.0)
        {
            return Err(Error::EvalFraction { fraction });
        }
        let mut known: Vec<PathBuf> = data_files(data)?.iter().map(|path| canonical(path)).collect();
        let mut paths = data.to_vec();
        let mut weighed = Vec::new();
        for FileWeight { path, weight } in &self.mix {
            if !(*weight > 0.0 && *weight <= LARGEST_WEIGHT) {
                return Err(Error::Weight { path: path.clone(), weight: *weight, largest: LARGEST_WEIGHT });
            }
            for file in data_files(&[path])? {
                let name = canonical(&file);
                if weighed.contains(&name) {
                    return Err(Error::TwoWeights { path: file });
                }
                if !known.contains(&name) {
                    known.push(name.clone());
                    paths.push(file);
                }
                weighed.push(name);
            }
        }
        Ok(paths)
    }

    /// Divides rows into those to learn, as often as their files weigh, and those to measure the model on, if some are
    /// wanted. `note` gets a sentence for each file and each reason why its rows are more or fewer than they were.
    ///
    /// # Errors
    /// One of the two would have no row, and those of [`data_files`].
    pub fn divide<R: TrainingRecord>(
        &self,
        rows: Rows<R>,
        seed: Seed,
        note: &mut dyn FnMut(&str),
    ) -> Result<(Rows<R>, Option<Rows<R>>), Error> {
        let mut rows = self.without_duplicates(rows, note);
        let mut evaluation = None;
        if let Some(fraction) = self.eval_fraction {
            let is_kept: Vec<bool> =
                rows.records.iter().map(|record| is_below(fraction, record.question())).collect();
            let kept: Vec<usize> = (0..is_kept.len()).filter(|&idx| is_kept[idx]).collect();
            let empty_side = |side| Error::EmptySide { fraction, side, rows: is_kept.len() };
            if kept.is_empty() {
                return Err(empty_side("evaluation"));
            }
            if kept.len() == is_kept.len() {
                return Err(empty_side("training"));
            }
            rows.notes(&kept, |rows| format!("kept {rows} for evaluation")).iter().for_each(|s| note(s));
            evaluation = Some(rows.copies(|idx| usize::from(is_kept[idx])));
            rows = rows.copies(|idx| usize::from(!is_kept[idx]));
        }
        Ok((self.mixed(rows, seed, note)?, evaluation))
    }

    /// Notes which rows are the same as an earlier one, and leaves them out if that is wanted.
    pub fn without_duplicates<R: TrainingRecord>(
        &self,
        rows: Rows<R>,
        note: &mut dyn FnMut(&str),
    ) -> Rows<R> {
        let duplicates = rows.duplicates();
        let sentence = |rows: &str| match self.drop_duplicates {
            true => format!("left out {rows}: they are the same as earlier ones"),
            false => format!("{rows} are the same as earlier ones; `--drop-duplicates` leaves them out"),
        };
        rows.notes(&duplicates, sentence).iter().for_each(|sentence| note(sentence));
        if !self.drop_duplicates || duplicates.is_empty() {
            return rows;
        }
        rows.copies(|idx| usize::from(duplicates.binary_search(&idx).is_err()))
    }

    /// The rows as often as their files weigh.
    fn mixed<R: TrainingRecord>(
        &self,
        rows: Rows<R>,
        seed: Seed,
        note: &mut dyn FnMut(&str),
    ) -> Result<Rows<R>, Error> {
        let mut weights = HashMap::new();
        for FileWeight { path, weight } in &self.mix {
            weights.extend(data_files(&[path])?.iter().map(|file| (canonical(file), *weight)));
        }
        if weights.is_empty() {
            return Ok(rows);
        }
        let seed = seed.derive("mix");
        let mut n_copies = Vec::with_capacity(rows.records.len());
        for (file, range) in rows.records_of_files() {
            let Some(&weight) = weights.get(&canonical(&file.path)) else {
                n_copies.extend(range.map(|_| 1));
                continue;
            };
            let n_before = n_copies.len();
            n_copies.extend(range.map(|row| times(weight, seed, row)));
            let n: usize = n_copies[n_before..].iter().sum();
            note(&format!("by its weight of {weight}, {} are learned as {n}", rows.all_of(file)));
        }
        if n_copies.iter().all(|&n| n == 0) {
            return Err(Error::EmptyMix { rows: n_copies.len() });
        }
        Ok(rows.copies(|idx| n_copies[idx]))
    }
}

impl<R: Clone> Rows<R> {
    /// Each record as many times as `n_copies` says of its index.
    fn copies(&self, n_copies: impl Fn(usize) -> usize) -> Self {
        let mut rows =
            Self { records: Vec::new(), places: Vec::new(), files: Vec::new(), purpose: self.purpose };
        for (file, range) in self.records_of_files() {
            let n_before = rows.records.len();
            for idx in range {
                let copies = std::iter::repeat_n((&self.records[idx], &self.places[idx]), n_copies(idx));
                for (record, place) in copies {
                    rows.records.push(record.clone());
                    rows.places.push(Place::clone(place));
                }
            }
            let mut file = file.clone();
            file.n_rows = rows.records.len() - n_before;
            rows.files.push(file);
        }
        rows
    }
}

impl<R: Serialize> Rows<R> {
    /// The records that are the same as an earlier one, of whichever file, in ascending order.
    pub fn duplicates(&self) -> Vec<usize> {
        // Only the hashes are kept, because the texts would take as much memory as the data.
        let hashes = RandomState::new();
        let mut first_with: HashMap<u64, usize> = HashMap::with_capacity(self.records.len());
        let mut duplicates = Vec::new();
        for (idx, record) in self.records.iter().enumerate() {
            let text = json(record);
            match first_with.entry(hashes.hash_one(&text)) {
                Entry::Vacant(entry) => drop(entry.insert(idx)),
                Entry::Occupied(entry) if json(&self.records[*entry.get()]) == text => duplicates.push(idx),
                Entry::Occupied(_) => {}
            }
        }
        duplicates
    }
}

fn json(record: &impl Serialize) -> String {
    serde_json::to_string(record).expect("records are texts and numbers under texts")
}

/// A path that is the same for all names of a file; as it is given if there is no such file.
fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Whether the hash of a question is among the lowest `fraction` of all hashes: CRC-32, which other tools know too, of the
/// text without white space around it. Neither the seed nor the other rows matter, so the side of a prompt never changes.
fn is_below(fraction: f64, question: &str) -> bool {
    let mut crc = Crc::new();
    crc.update(question.trim().as_bytes());
    f64::from(crc.sum()) < fraction * 2f64.powi(32)
}

/// How many times a row occurs that has this weight: its whole part, and once more with the probability of the rest.
fn times(weight: f64, seed: Seed, row: usize) -> usize {
    let rest = weight.fract();
    let drawn = seed.derive(&row.to_string()).0 as f64 / 2f64.powi(64);
    weight as usize + usize::from(drawn < rest)
}

#[cfg(test)]
mod tests {
    use super::*;
}
