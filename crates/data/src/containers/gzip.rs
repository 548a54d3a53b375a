//! Gzip: any other container, compressed.

use std::io::BufReader;

use flate2::bufread::MultiGzDecoder;

use super::lines::Limited;
use super::{Container, Content, DataFile, LARGEST_RATIO, Source, TakeRow, UNPACKED_AT_LEAST, read_source};
use crate::error::Error;

/// A file that begins with gzip's two bytes. Gzip within gzip is not unpacked.
pub(super) struct Gzip;

impl Container for Gzip {
    fn recognises(&self, beginning: &[u8], file: &DataFile<'_>) -> bool {
        file.unpacking.is_none() && beginning.starts_with(b"\x1f\x8b")
    }

    fn read(&self, source: Source<'_>, take: &mut TakeRow<'_>) -> Result<Option<Content>, Error> {
        let packed = source.file.n_bytes;
        let limit = UNPACKED_AT_LEAST.max(LARGEST_RATIO.saturating_mul(packed.unwrap_or(0)));
        let unpacked = Limited::new(MultiGzDecoder::new(source.lines.into_reader()), limit);
        let file = DataFile { unpacking: Some(limit), ..source.file };
        read_source(file, Box::new(BufReader::new(unpacked)), take).map(Some)
    }
}
