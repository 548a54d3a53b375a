//! What the tests of all families ask: what rows become.

use serde_json::Value;

use super::Joiner;
use crate::records::{Fault, Purpose, Row};

/// The names of the families of `rows`, and what each example of them becomes.
fn read(rows: &[Value], purpose: Purpose) -> (Vec<Option<&'static str>>, Vec<Result<Vec<Row>, Fault>>) {
    let mut joiner = Joiner::default();
    let mut groups = Vec::new();
    for (idx, row) in rows.iter().enumerate() {
        groups.extend(joiner.push(idx + 1, row.as_object().expect("a row is an object").clone()));
    }
    groups.extend(joiner.finish());
    groups.iter().map(|group| (group.name(), group.read(purpose))).unzip()
}

/// The rows are of the family `name` and become `expected`.
pub(super) fn check(name: &str, rows: &[Value], purpose: Purpose, expected: &[Value]) {
    let (names, becomes) = read(rows, purpose);
    assert!(names.iter().all(|family| *family == Some(name)), "{names:?}, expected {name}");
    let becomes: Result<Vec<Vec<Row>>, Fault> = becomes.into_iter().collect();
    let becomes = becomes.unwrap_or_else(|fault| panic!("{rows:?}: {fault}")).concat();
    assert_eq!(becomes.into_iter().map(Value::from).collect::<Vec<_>>(), expected);
}

/// The fault of the rows says `expected`.
pub(super) fn check_error(rows: &[Value], purpose: Purpose, expected: &str) {
    let (_, becomes) = read(rows, purpose);
    let fault = becomes.into_iter().find_map(Result::err).unwrap_or_else(|| panic!("{rows:?} was read"));
    assert!(fault.to_string().contains(expected), "{fault}, expected {expected:?}");
}
