//! JSON lines: one object per line.

use super::json::parse_object;
use super::lines::{LONGEST_LINE, TooLong};
use super::{Container, Content, DataFile, Source, TakeRow};
use crate::error::Error;

/// Any file that no other container recognises. It is read line by line, so that only the rows themselves take memory.
pub(super) struct JsonLines;

impl Container for JsonLines {
    fn recognises(&self, _: &[u8], _: &DataFile<'_>) -> bool {
        true
    }

    fn read(&self, source: Source<'_>, take: &mut TakeRow<'_>) -> Result<Option<Content>, Error> {
        let Source { file, mut lines } = source;
        while let Some((line, text)) = lines.next().map_err(|error| file.failed(error))? {
            let row = match text {
                Ok(text) => parse_object(file.path, line, text),
                Err(TooLong) => {
                    let message = format!("the line has more than {} MiB", LONGEST_LINE >> 20);
                    Err(Error::BadRow { path: file.path.to_owned(), line, message })
                }
            };
            take(line, row)?;
        }
        Ok(None)
    }
}
