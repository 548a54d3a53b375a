//! Parquet: tables in columns, as most data sets are published.

use std::mem::size_of;
use std::path::Path;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as Fields};
use serde_json::{Map, Number, Value};
use temper_tokenizer::guarded;

use super::json::shortened;
use super::{Container, Content, DataFile, LARGEST_RATIO, Source, TakeRow, UNPACKED_AT_LEAST};
use crate::error::{Error, one_line};
use crate::records::Row;

/// How a Parquet file begins, and how it begins where its columns cannot be listed without a key.
const MAGIC: [&[u8]; 2] = [b"PAR1", b"PARE"];

/// A file of Apache Parquet. It is in memory as a whole, because the list of its columns is at its end.
///
/// A null is an absent column or field. Dates and times become text, and decimals become numbers. Bytes must be text in
/// UTF-8.
pub(super) struct Parquet;

impl Container for Parquet {
    fn recognises(&self, beginning: &[u8], file: &DataFile<'_>) -> bool {
        file.unpacking.is_none() && MAGIC.iter().any(|magic| beginning.starts_with(magic))
    }

    fn read(&self, source: Source<'_>, take: &mut TakeRow<'_>) -> Result<Option<Content>, Error> {
        let Source { file, mut lines } = source;
        let mut bytes = Vec::new();
        lines.rest(&mut bytes).map_err(|error| file.failed(error))?;
        let (path, n_packed) = (file.path, bytes.len() as u64);
        let limit = UNPACKED_AT_LEAST.max(LARGEST_RATIO.saturating_mul(n_packed));
        let damaged = |message: String| Error::BrokenParquet { path: path.to_owned(), message };
        if is_encrypted(&bytes) {
            return Err(damaged("it is encrypted".into()));
        }
        let reader = no_panic(|| SerializedFileReader::new(Bytes::from(bytes))).map_err(damaged)?;
        let mut rows = RowIter::from_file_into(Box::new(reader));
        let mut n_unpacked = 0;
        for row_number in 1.. {
            let damaged = |message| damaged(format!("row {row_number}: {message}"));
            let Some(fields) = no_panic(|| rows.next().transpose()).map_err(damaged)? else { break };
            let row = no_panic(|| Ok(to_row(path, row_number, fields))).map_err(damaged)?;
            n_unpacked += size_of::<Row>() as u64 + row.as_ref().map_or(0, text_bytes);
            if n_unpacked > limit {
                return Err(Error::UnpacksTooFar { path: path.to_owned(), packed: n_packed, limit });
            }
            take(row_number, row)?;
        }
        Ok(Some(Content::Table))
    }
}

/// Whether a file has the mark of an encrypted list of columns at its end, or at its beginning.
fn is_encrypted(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC[1]) || bytes.ends_with(MAGIC[1])
}

/// What `f` returns. The `parquet` crate believes what a file says of itself, and panics where that is not true.
fn no_panic<T>(f: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match guarded(f) {
        Some(Ok(value)) => Ok(value),
        Some(Err(ParquetError::General(message) | ParquetError::EOF(message))) => Err(one_line(&message)),
        Some(Err(error)) => Err(one_line(&error.to_string())),
        None => Err("it is damaged, or its columns have a type that Temper does not read".into()),
    }
}

fn to_row(path: &Path, row_number: usize, fields: Fields) -> Result<Row, Error> {
    let bad_row = |message| Error::BadRow { path: path.to_owned(), line: row_number, message };
    let mut row = Map::new();
    for (name, field) in fields.into_columns() {
        let value = to_json(field).map_err(|NotText| {
            let name = shortened(&name);
            bad_row(format!("column `{name}` holds bytes that are not text, such as an image"))
        })?;
        if value.is_null() {
            continue;
        }
        if row.contains_key(&name) {
            return Err(bad_row(format!("column `{}` is there twice", shortened(&name))));
        }
        row.insert(name, value);
    }
    Ok(row)
}

/// Bytes that are not UTF-8.
struct NotText;

fn to_json(field: Field) -> Result<Value, NotText> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => number(value.to_f64()),
        Field::Float(value) => number(value.into()),
        Field::Double(value) => number(value),
        Field::Str(text) => text.into(),
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_err(|_| NotText)?.into(),
        Field::Decimal(_) => field.to_string().parse().map_or(Value::Null, number),
        Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => field.to_string().into(),
        Field::Group(fields) => object(fields.into_columns())?,
        Field::ListInternal(list) => {
            let values = list.elements().iter().map(|element| to_json(element.clone()));
            values.collect::<Result<Vec<_>, _>>()?.into()
        }
        Field::MapInternal(map) => object(map.entries().iter().map(|(key, value)| {
            let key = match key {
                Field::Str(text) => text.clone(),
                other => other.to_string(),
            };
            (key, value.clone())
        }))?,
    })
}

/// An object without the fields that are null.
fn object(fields: impl IntoIterator<Item = (String, Field)>) -> Result<Value, NotText> {
    let mut object = Map::new();
    for (name, field) in fields {
        match to_json(field)? {
            Value::Null => {}
            value => drop(object.insert(name, value)),
        }
    }
    Ok(object.into())
}

/// A number. JSON has no NaN and no infinities; as text they are refused wherever a number is needed.
fn number(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

/// About how much memory the texts and values of a row take, in bytes.
fn text_bytes(row: &Row) -> u64 {
    fn size(value: &Value) -> u64 {
        let inside = match value {
            Value::String(text) => text.len() as u64,
            Value::Array(values) => values.iter().map(size).sum(),
            Value::Object(values) => values.values().map(size).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        };
        size_of::<Value>() as u64 + inside
    }
    row.values().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use parquet::basic::{Compression, ZstdLevel};
    use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use serde_json::json;

    use crate::containers::read_bytes;

    /// Two rows. The first has messages, a score, a time and a price; the second has only the text.
    fn write(compression: Compression) -> Vec<u8> {
        let schema = "message rows {
            required binary text (UTF8);
            optional group messages (LIST) { repeated group list { optional group element {
                optional binary role (UTF8); optional binary content (UTF8); } } }
            optional double score;
            optional int64 time (TIMESTAMP_MILLIS);
            optional int64 price (DECIMAL(9, 2));
        }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder().set_compression(compression).build().into();
        let mut file = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
        let mut rows = file.next_row_group().unwrap();
        let text = |text: &str| ByteArray::from(text);
        let mut write_text = |values: &[ByteArray], def: Option<&[i16]>, rep: Option<&[i16]>| {
            let mut column = rows.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(values, def, rep).unwrap();
            column.close().unwrap();
        };
        write_text(&[text("é"), text("b")], None, None);
        write_text(&[text("user"), text("assistant")], Some(&[4, 4, 0]), Some(&[0, 1, 0]));
        write_text(&[text("Hi")], Some(&[4, 3, 0]), Some(&[0, 1, 0]));
        let mut column = rows.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&[0.5], Some(&[1, 0]), None).unwrap();
        column.close().unwrap();
        for number in [1_000, 1_250] {
            let mut column = rows.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&[number], Some(&[1, 0]), None).unwrap();
            column.close().unwrap();
        }
        rows.close().unwrap();
        file.into_inner().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<(usize, Value)>, Error> {
        let mut rows = Vec::new();
        read_bytes(Path::new("f"), bytes, &super::super::Separator::File, &mut |line, row| {
            rows.push((line, row?.into()));
            Ok(())
        })?;
        Ok(rows)
    }

    #[test]
    fn rows_of_every_compression_are_read_with_their_numbers_and_without_nulls() {
        let zstd = Compression::ZSTD(ZstdLevel::default());
        for compression in
            [Compression::UNCOMPRESSED, Compression::SNAPPY, zstd, Compression::GZIP(Default::default())]
        {
            let messages = json!([{"role": "user", "content": "Hi"}, {"role": "assistant"}]);
            let time = "1970-01-01 00:00:01.000 +00:00";
            let first = json!({"text": "é", "messages": messages, "score": 0.5, "time": time, "price": 12.5});
            assert_eq!(read(&write(compression)).unwrap(), [(1, first), (2, json!({"text": "b"}))]);
        }
    }

    #[test]
    fn damaged_files_are_errors_of_one_line() {
        let whole = write(Compression::UNCOMPRESSED);
        let error = |bytes: &[u8]| {
            let error = read(bytes).unwrap_err();
            assert!(error.hint().is_some() && error.to_string().lines().count() == 1, "{error}");
            error.to_string()
        };
        let cut = error(&whole[..whole.len() / 2]);
        assert!(cut.starts_with("cannot read the Parquet file f: "), "{cut}");
        assert!(error(b"PAR1").starts_with("cannot read the Parquet file f: "));
        let encrypted = [&whole[..whole.len() - 4], b"PARE"].concat();
        assert_eq!(error(&encrypted), "cannot read the Parquet file f: it is encrypted");
        // Whatever byte is wrong, the answer is rows or an error.
        for at in 4..whole.len() {
            for bits in [0xff, 0x80, 0x01] {
                let mut damaged = whole.clone();
                damaged[at] ^= bits;
                if let Err(error) = read(&damaged) {
                    assert_eq!(error.to_string().lines().count(), 1, "{error}");
                }
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_a_bad_row_that_names_the_column() {
        let schema = "message rows { required binary image; }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut file = SerializedFileWriter::new(Vec::new(), schema, Default::default()).unwrap();
        let mut rows = file.next_row_group().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        let values = [ByteArray::from("text"), ByteArray::from(vec![0xff, 0xd8])];
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
        rows.close().unwrap();
        let error = read(&file.into_inner().unwrap()).unwrap_err().to_string();
        assert_eq!(error, "f:2: column `image` holds bytes that are not text, such as an image");
    }
}
