//! All text of data files, whatever their rows are for: what a tokenizer is trained on.

use std::path::Path;

use serde_json::Value;

use crate::containers::{data_files, read_file};
use crate::error::Error;
use crate::file_reader::listed;
use crate::records::Row;
use crate::{BadRows, ReadOptions};

/// The columns and fields that hold texts, or lists and objects with texts, in the formats that data are published in.
#[rustfmt::skip]
const TEXTS: [&str; 34] = [
    "text", "prompt", "completion", "completions", "response", "responses", "response1", "response2", "response_1",
    "response_2", "output", "answer", "answers", "instruction", "input", "context", "question", "chosen", "rejected",
    "messages", "content", "conversations", "conversation_a", "conversation_b", "value", "replies", "post", "title",
    "summary", "summaries", "info", "system", "system_prompt", "history",
];

/// Gives `take` every text of some data files: of demonstrations, conversations, comparisons, prompts and plain texts,
/// all sides of a comparison included. Returns the number of rows.
///
/// # Errors
/// Those of [`read_rows`](crate::read_rows); a row without a text is a bad row.
pub fn each_text(
    paths: &[impl AsRef<Path>],
    options: &ReadOptions,
    take: &mut dyn FnMut(&str),
) -> Result<usize, Error> {
    let mut n_rows = 0;
    for path in data_files(paths)? {
        let before = n_rows;
        read_file(&path, &options.separator, &mut |line, row| {
            match row.and_then(|row| texts_of_row(&path, line, row, options, take)) {
                Ok(()) => n_rows += 1,
                Err(_) if options.bad_rows == BadRows::Skip => {}
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        if n_rows == before {
            return Err(Error::NoRows { path });
        }
    }
    Ok(n_rows)
}

fn texts_of_row(
    path: &Path,
    line: usize,
    row: Row,
    options: &ReadOptions,
    take: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let bad = |message: String| Error::BadRow { path: path.to_owned(), line, message };
    let row = options.columns.rename(row).map_err(|(fault, _)| bad(fault.to_string()))?;
    if texts_of_fields(&row, take) == 0 {
        let columns: Vec<String> = row.keys().cloned().collect();
        let has = if columns.is_empty() {
            "the row is empty".into()
        } else {
            format!("the row has {}", listed(&columns))
        };
        return Err(bad(format!("no column with a text; {has}; `--columns text=NAME` names one")));
    }
    Ok(())
}

/// The number of texts in the fields that hold texts.
fn texts_of_fields(fields: &Row, take: &mut dyn FnMut(&str)) -> usize {
    fields
        .iter()
        .filter(|(name, _)| TEXTS.contains(&name.as_str()))
        .map(|(_, value)| texts(value, take))
        .sum()
}

fn texts(value: &Value, take: &mut dyn FnMut(&str)) -> usize {
    match value {
        Value::String(text) if text.is_empty() => 0,
        Value::String(text) => {
            take(text);
            1
        }
        Value::Array(values) => values.iter().map(|value| texts(value, take)).sum(),
        Value::Object(fields) => texts_of_fields(fields, take),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/data.md");

    fn read(name: &str, content: &str, options: &ReadOptions) -> Result<Vec<String>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mut texts = Vec::new();
        each_text(&[path], options, &mut |text| texts.push(text.to_owned()))?;
        Ok(texts)
    }

    #[test]
    fn every_text_counts_and_nothing_else_does() {
        let row = r#"{"prompt": [{"role": "user", "content": "Q"}], "chosen": "A", "rejected": ["B"], "source": "s",
            "score_chosen": 3, "messages": null, "input": ""}"#
            .replace('\n', " ");
        assert_eq!(read("f.jsonl", &row, &ReadOptions::default()).unwrap(), ["Q", "A", "B"]);
        assert_eq!(read("f.txt", "One.\n", &ReadOptions::default()).unwrap(), ["One."]);
        let columns = "text=body".parse().unwrap();
        let options = ReadOptions { columns, ..ReadOptions::default() };
        assert_eq!(read("f.jsonl", r#"{"body": "b", "id": "i"}"#, &options).unwrap(), ["b"]);
    }

    /// In the document, each example is about a goose, keys, or a sum.
    #[test]
    fn every_format_of_the_document_has_texts() {
        let rows = DOCUMENT.lines().filter(|line| line.starts_with('{'));
        for row in rows {
            let texts = read("f.jsonl", row, &ReadOptions::default()).unwrap().join(" ");
            let is_found = ["oose", "eese", "keys", "2 plus 2"].iter().any(|word| texts.contains(word));
            assert!(is_found && !texts.contains("assistant") && !texts.contains("model_a"), "{row}: {texts}");
        }
    }

    #[test]
    fn a_row_without_text_is_a_bad_row() {
        let error = read("f.jsonl", r#"{"id": "a"}"#, &ReadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("f.jsonl:1: no column with a text; the row has `id`"), "{error}");
        let skip = ReadOptions::from(BadRows::Skip);
        assert_eq!(read("f.jsonl", "{\"id\": \"a\"}\n{\"text\": \"b\"}", &skip).unwrap(), ["b"]);
        assert!(matches!(read("f.jsonl", "{\"id\": \"a\"}", &skip), Err(Error::NoRows { .. })));
    }
}
