//! How data files are read.

use std::str::FromStr;

use crate::containers::Separator;
use crate::families::FAMILIES;
use crate::records::{Fault, Row};
use crate::rows::BadRows;

/// How data files are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// What happens to rows that cannot be read.
    pub bad_rows: BadRows,
    /// Other names of columns.
    pub columns: ColumnNames,
    /// What separates the documents of a plain text.
    pub separator: Separator,
}

impl From<BadRows> for ReadOptions {
    fn from(bad_rows: BadRows) -> Self {
        Self { bad_rows, ..Self::default() }
    }
}

/// Which columns of a file stand for columns that Temper knows. As text: `prompt=question,completion=answer`, where
/// `question` and `answer` are in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnNames {
    /// The known name and that in the file.
    names: Vec<(String, String)>,
}

impl ColumnNames {
    /// Columns that are known and are not in the table of families.
    const OTHERS: [&str; 4] = ["scores", "ranking", "margin", "ended"];

    /// Whether no column is named.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether a row has any of the columns.
    pub(crate) fn are_in(&self, row: &Row) -> bool {
        self.names.iter().any(|(_, name)| row.contains_key(name))
    }

    /// A row with the known names. A column that has one of these names already, and is not renamed itself, is replaced. A
    /// row that has none of the columns stays as it is: it may be of another file.
    ///
    /// # Errors
    /// The row has some of the columns and lacks another.
    pub(crate) fn rename(&self, mut row: Row) -> Result<Row, (Fault, Row)> {
        if !self.are_in(&row) {
            return Ok(row);
        }
        if let Some((_, name)) = self.names.iter().find(|(_, name)| !row.contains_key(name)) {
            return Err((Fault::missing(&[name], ", which `--columns` names"), row));
        }
        let values: Vec<_> =
            self.names.iter().map(|(_, name)| row.get(name).cloned().unwrap_or_default()).collect();
        for (_, name) in &self.names {
            row.shift_remove(name);
        }
        for ((known, _), value) in self.names.iter().zip(values) {
            row.insert(known.clone(), value);
        }
        Ok(row)
    }
}

impl FromStr for ColumnNames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut names: Vec<(String, String)> = Vec::new();
        for part in text.split(',') {
            let (known, name) = part
                .split_once('=')
                .map(|(known, name)| (known.trim(), name.trim()))
                .filter(|(known, name)| !known.is_empty() && !name.is_empty())
                .ok_or_else(|| format!("`{part}` must be KNOWN=NAME, such as prompt=question"))?;
            let known_columns = FAMILIES.iter().flat_map(|family| family.columns).chain(&Self::OTHERS);
            if !known_columns.clone().any(|column| *column == known) {
                return Err(format!(
                    "`{known}` is not a column that Temper knows, such as prompt, completion, chosen, rejected, \
                     messages or text"
                ));
            }
            if names.iter().any(|(other, _)| other == known) {
                return Err(format!("`{known}` is there twice"));
            }
            names.push((known.into(), name.into()));
        }
        Ok(Self { names })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn row(value: Value) -> Row {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn columns_are_renamed_and_may_change_places() {
        let renamed = |names: &str, value: Value| names.parse::<ColumnNames>().unwrap().rename(row(value));
        let qa =
            renamed("prompt=q, completion=a", json!({"q": "1", "a": "2", "prompt": "old", "id": 3})).unwrap();
        assert_eq!(qa, row(json!({"prompt": "1", "completion": "2", "id": 3})));
        let swapped =
            renamed("chosen=rejected,rejected=chosen", json!({"chosen": 1, "rejected": 2})).unwrap();
        assert_eq!(swapped, row(json!({"chosen": 2, "rejected": 1})));
        let (fault, _) = renamed("prompt=q,completion=a", json!({"a": 1})).unwrap_err();
        assert_eq!(fault.to_string(), "missing column `q`, which `--columns` names");
        assert_eq!(renamed("prompt=q", json!({"prompt": 1})).unwrap(), row(json!({"prompt": 1})));
    }

    #[test]
    fn what_is_no_pair_of_names_is_refused() {
        let error = |text: &str| text.parse::<ColumnNames>().unwrap_err();
        assert!(error("prompt").contains("KNOWN=NAME") && error("prompt=").contains("KNOWN=NAME"));
        assert!(error("prmpt=q").starts_with("`prmpt` is not a column that Temper knows"));
        assert_eq!(error("text=a,text=b"), "`text` is there twice");
    }
}
