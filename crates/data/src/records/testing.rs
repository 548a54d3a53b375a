//! What the tests of all records ask: which record a row makes, or which fault it has.

use serde::Serialize;
use serde_json::Value;

use super::Record;

fn read<R: Record>(row: &Value) -> Result<R, super::Fault> {
    R::from_row(row.as_object().expect("a row is an object"))
}

/// The record of `row` has the fields `expected`.
pub(super) fn check<R: Record + Serialize>(row: Value, expected: Value) {
    let record: R = read(&row).unwrap_or_else(|fault| panic!("{row}: {fault}"));
    assert_eq!(serde_json::to_value(record).unwrap(), expected);
}

/// The fault of `row` says `expected`.
pub(super) fn check_error<R: Record>(row: Value, expected: &str) {
    let message = read::<R>(&row).err().unwrap_or_else(|| panic!("{row} was read")).to_string();
    assert!(message.contains(expected), "{message:?}, expected {expected:?}");
}
