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

impl<R: Serialize> Rows<R> {
    /// The records that are in `others`, too, in ascending order.
    pub fn shared_with(&self, others: &Self) -> Vec<usize> {
        let hashes = RandomState::new();
        let mut of_others: HashMap<u64, Vec<usize>> = HashMap::with_capacity(others.records.len());
        for (idx, record) in others.records.iter().enumerate() {
            of_others.entry(hashes.hash_one(json(record))).or_default().push(idx);
        }
        let is_shared = |record: &R| {
            let text = json(record);
            let candidates = of_others.get(&hashes.hash_one(&text));
            candidates.is_some_and(|idxs| idxs.iter().any(|&idx| json(&others.records[idx]) == text))
        };
        (0..self.records.len()).filter(|&idx| is_shared(&self.records[idx])).collect()
    }
}

fn json(record: &impl Serialize) -> String {
    serde_json::to_string(record).expect("records are texts and numbers under texts")
}

/// A path that is the same for all names of a file; as it is given if the file does not exist.
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
    use crate::{BadRows, Demonstration, PromptRow, SftRow, read_rows};

    /// Rows with these prompts, of a file of this name.
    fn prompts(name: &str, prompts: &[&str]) -> Rows<PromptRow> {
        let lines: String = prompts.iter().map(|prompt| format!("{{\"prompt\": \"{prompt}\"}}\n")).collect();
        Rows::from_reader(name.as_ref(), lines.as_bytes(), BadRows::Refuse).unwrap()
    }

    fn texts(rows: &Rows<PromptRow>) -> Vec<String> {
        rows.records.iter().map(|row| row.prompt.to_string()).collect()
    }

    /// The prompts to learn, those for evaluation, and the notes.
    fn divide(
        selection: &Selection,
        rows: Rows<PromptRow>,
        seed: u64,
    ) -> (Vec<String>, Vec<String>, Vec<String>) {
        let mut notes = Vec::new();
        let (training, evaluation) =
            selection.divide(rows, Seed(seed), &mut |note| notes.push(note.to_owned())).unwrap();
        (texts(&training), evaluation.iter().flat_map(texts).collect(), notes)
    }

    fn split(fraction: f64) -> Selection {
        Selection { eval_fraction: Some(fraction), ..Selection::default() }
    }

    fn weigh(weights: &[(&str, f64)]) -> Selection {
        let weigh = |&(path, weight): &(&str, f64)| FileWeight { path: path.into(), weight };
        Selection { mix: weights.iter().map(weigh).collect(), ..Selection::default() }
    }

    /// `zlib.crc32(prompt) / 2**32` in Python: a 0.909, b 0.444, c 0.026, d 0.597, e 0.937, f 0.464, g 0.007.
    #[test]
    fn the_prompts_with_the_lowest_hashes_are_for_evaluation_in_any_order_and_with_any_seed() {
        let rows = prompts("1.jsonl", &["a", "b", "c", "d", "e", "f", "g"]);
        let (training, evaluation, notes) = divide(&split(0.45), rows, 0);
        assert_eq!((training.concat(), evaluation.concat()), ("adef".into(), "bcg".into()));
        assert_eq!(notes, ["kept 3 of 7 rows of 1.jsonl for evaluation (first: line 2)"]);
        let (training, evaluation, _) = divide(&split(0.45), prompts("2.jsonl", &["g", " b\\n", "f"]), 7);
        assert_eq!((training.concat(), evaluation.concat()), ("f".into(), "g b\n".into()));
        assert_eq!(divide(&split(0.01), prompts("1.jsonl", &["c", "g"]), 0).1, ["g"]);
    }

    #[test]
    fn all_rows_about_one_question_are_on_the_same_side() {
        // The hash of c is low, and that of e is high.
        let lines = r#"{"prompt": "c", "completion": "1"}
            {"prompt": [{"role": "system", "content": "e"}, {"role": "user", "content": "c"}], "completion": "2"}
            {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "3"},
             {"role": "user", "content": "e"}, {"role": "assistant", "content": "4"}]}
            {"text": "c"}
            {"prompt": "c", "chosen": "5", "rejected": "6"}
            {"prompt": "e", "completion": "c"}"#
            .replace(",\n", ",");
        let rows = Rows::<SftRow>::from_reader("f".as_ref(), lines.as_bytes(), BadRows::Refuse).unwrap();
        let (training, evaluation) = split(0.5).divide(rows, Seed(0), &mut |_| ()).unwrap();
        let last = Demonstration { prompt: "e".into(), completion: "c".into() };
        assert_eq!(training.records, [SftRow::Demonstration(last)]);
        let lines: Vec<usize> = evaluation.unwrap().places.iter().map(|place| place.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_side_without_rows_is_an_error_with_a_way_out() {
        let error = |fraction, prompt| {
            split(fraction).divide(prompts("f", &[prompt]), Seed(0), &mut |_| ()).unwrap_err()
        };
        let empty = error(0.2, "a");
        assert_eq!(empty.to_string(), "`--eval-fraction 0.2` leaves no evaluation data of the 1 rows");
        assert!(empty.hint().unwrap().contains("larger"), "{empty}");
        let empty = error(0.2, "g");
        assert_eq!(empty.to_string(), "`--eval-fraction 0.2` leaves no training data of the 1 rows");
        assert!(empty.hint().unwrap().contains("smaller"), "{empty}");
    }

    #[test]
    fn a_fraction_is_above_0_and_below_1() {
        for fraction in [0.0, 1.0, -0.1, 5.0, f64::NAN] {
            let error = split(fraction).paths(&[]).unwrap_err();
            assert!(error.to_string().starts_with("`--eval-fraction` must be above 0"), "{error}");
        }
        assert!(split(0.999).paths(&[]).is_ok());
    }

    #[test]
    fn rows_that_are_the_same_are_counted_by_file_and_left_out_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["1.jsonl", "2.jsonl"].map(|name| dir.path().join(name));
        std::fs::write(&one, r#"{"prompt": "a"}"#.to_owned() + "\n" + r#"{"question": "a"}"#).unwrap();
        std::fs::write(&two, r#"{"prompt": "b"}"#.to_owned() + "\n" + r#"{"prompt": "a", "id": null}"#)
            .unwrap();
        let rows = || read_rows::<PromptRow>(&[&one, &two], BadRows::Refuse).unwrap();
        assert_eq!(rows().duplicates(), [1, 3]);
        let (training, _, notes) = divide(&Selection::default(), rows(), 0);
        assert_eq!(training.concat(), "aaba");
        let same = "are the same as earlier ones; `--drop-duplicates` leaves them out (first: line 2)";
        let share = |path: &Path| format!("1 of 2 rows of {}", path.display());
        assert_eq!(notes, [format!("{} {same}", share(&one)), format!("{} {same}", share(&two))]);
        let dropping = Selection { drop_duplicates: true, ..Selection::default() };
        let (training, _, notes) = divide(&dropping, rows(), 0);
        assert_eq!(training.concat(), "ab");
        let left_out = format!("left out {}: they are the same as earlier ones (first: line 2)", share(&one));
        assert_eq!((notes.len(), &notes[0]), (2, &left_out));
    }

    #[test]
    fn rows_are_the_same_only_if_nothing_that_is_read_differs() {
        let call = |name: &str| {
            format!(
                r#"{{"messages": [{{"role": "user", "content": "a"}}, {{"role": "assistant", "content": "", "tool_calls": "{name}"}}, {{"role": "assistant", "content": "b"}}]}}"#
            )
        };
        let lines = [call("x"), call("y"), call("x")].join("\n");
        let rows = Rows::<SftRow>::from_reader("f".as_ref(), lines.as_bytes(), BadRows::Refuse).unwrap();
        assert_eq!(rows.duplicates(), [2]);
    }

    #[test]
    fn rows_that_other_files_have_too_are_found() {
        let (held_out, training) = (prompts("a", &["x", "y", "x", "z"]), prompts("b", &["z", "x", "w"]));
        assert_eq!(held_out.shared_with(&training), [0, 2, 3]);
        assert_eq!(training.shared_with(&prompts("a", &["xz"])), [0; 0]);
    }

    #[test]
    fn a_whole_weight_repeats_each_row_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["1.jsonl", "2.jsonl"].map(|name| dir.path().join(name));
        std::fs::write(&one, r#"{"prompt": "a"}"#.to_owned() + "\n" + r#"{"prompt": "b"}"#).unwrap();
        std::fs::write(&two, r#"{"prompt": "c"}"#).unwrap();
        let selection = weigh(&[(two.to_str().unwrap(), 3.0)]);
        let paths = selection.paths(std::slice::from_ref(&one)).unwrap();
        assert_eq!(paths, [one, two.clone()]);
        let rows = read_rows::<PromptRow>(&paths, BadRows::Refuse).unwrap().with_purpose("training data");
        let (training, _, notes) = divide(&selection, rows.clone(), 0);
        assert_eq!(training.concat(), "abccc");
        let note =
            format!("by its weight of 3, the 1 rows of {} (training data) are learned as 3", two.display());
        assert_eq!(notes, [note]);
        let (training, _) = selection.divide(rows.clone(), Seed(0), &mut |_| ()).unwrap();
        let of_files: Vec<usize> = training.files.iter().map(|file| file.n_rows).collect();
        assert_eq!((of_files, training.places[4].line), (vec![2, 3], 1));
        // What is kept for evaluation occurs once.
        let selection = Selection { eval_fraction: Some(0.1), ..weigh(&[(two.to_str().unwrap(), 3.0)]) };
        let (training, evaluation, _) = divide(&selection, rows, 0);
        assert_eq!((training.concat(), evaluation.concat()), ("ab".into(), "c".into()));
    }

    #[test]
    fn the_rest_of_a_weight_is_a_probability_that_the_seed_decides() {
        let names: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let learned = |weight, seed| divide(&weigh(&[("f", weight)]), prompts("f", &names), seed).0;
        let half = learned(0.5, 0);
        // Four standard deviations of 1000 coins are 63.
        assert!((437..=563).contains(&half.len()), "{}", half.len());
        assert_eq!(half, learned(0.5, 0));
        assert_ne!(half, learned(0.5, 1));
        let (tenth, more) = (learned(0.1, 0), learned(2.5, 0));
        // Four of them are 38 here.
        assert!((62..=138).contains(&tenth.len()), "{}", tenth.len());
        assert_eq!(more.len(), 2000 + half.len());
        let n_times = |name: &str| more.iter().filter(|other| *other == name).count();
        assert!(
            names.iter().all(|name| n_times(name) == 2 + usize::from(half.contains(&(*name).to_owned())))
        );
        let error = weigh(&[("f", 1e-9)]).divide(prompts("f", &["a"]), Seed(0), &mut |_| ()).unwrap_err();
        assert_eq!(error.to_string(), "`--mix` leaves none of the 1 rows of training data");
    }

    #[test]
    fn a_file_has_one_weight_in_range_under_whatever_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.jsonl");
        std::fs::write(&file, r#"{"prompt": "a"}"#).unwrap();
        let other_name = dir.path().join("./a.jsonl");
        let selection = weigh(&[(other_name.to_str().unwrap(), 2.0)]);
        let data = [file.clone()];
        assert_eq!(selection.paths(&data).unwrap(), data);
        // A directory is its files.
        let directory = weigh(&[(dir.path().to_str().unwrap(), 2.0)]);
        assert_eq!(directory.paths(&data).unwrap(), data);
        let rows = read_rows::<PromptRow>(&data, BadRows::Refuse).unwrap();
        assert_eq!(divide(&directory, rows, 0).0, ["a", "a"]);
        let twice = Selection { mix: [&selection.mix[..], &directory.mix[..]].concat(), ..split(0.5) };
        assert!(twice.paths(&data).unwrap_err().to_string().ends_with("a.jsonl two weights"));
        for weight in [0.0, -1.0, 1000.5, f64::NAN, f64::INFINITY] {
            let error = weigh(&[("a.jsonl", weight)]).paths(&[]).unwrap_err().to_string();
            assert!(
                error.starts_with("`--mix` must give a.jsonl a weight above 0 and up to 1000"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_weight_follows_the_last_equals_sign() {
        let parse = |text: &str| text.parse::<FileWeight>();
        let expected = FileWeight { path: "a=b.jsonl".into(), weight: 0.5 };
        assert_eq!(parse("a=b.jsonl=0.5").unwrap(), expected);
        for (text, says) in [("a.jsonl", "FILE=WEIGHT"), ("=2", "FILE=WEIGHT"), ("a=b", "not a number")] {
            assert!(parse(text).unwrap_err().contains(says), "{text}");
        }
    }
}
