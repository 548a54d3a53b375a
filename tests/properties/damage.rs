//! Damaged files: bits turned, parts lost or doubled, numbers gone out of hand. That is where panics hide: any bytes
//! at all rarely get past a first check.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

/// Numbers that a file may hold and nobody expects: too large for a size, for memory, for 32 bits; none at all.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "0.5",
    "2147483648",
    "1000000000000",
    "4611686018427387904",
    "18446744073709551615",
    "99999999999999999999999",
    "1e308",
    "null",
    "\"7\"",
];

/// One thing that happens to a file. Places are taken modulo its length.
#[derive(Clone, Debug)]
pub enum Damage {
    Flip(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
    Truncate(usize),
    /// The number in digits at or after a place becomes another one.
    Number(usize, &'static str),
}

pub fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let place = any::<usize>;
    let one = prop_oneof![
        2 => (place(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => (place(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, new)| Damage::Insert(at, new)),
        1 => (place(), 1usize..40).prop_map(|(at, len)| Damage::Remove(at, len)),
        1 => (place(), 1usize..40).prop_map(|(at, len)| Damage::Repeat(at, len)),
        1 => place().prop_map(Damage::Truncate),
        4 => (place(), prop::sample::select(NUMBERS.to_vec())).prop_map(|(at, new)| Damage::Number(at, new)),
    ];
    prop::collection::vec(one, 1..4)
}

pub fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    damages.iter().fold(bytes.to_vec(), |bytes, damage| damage.apply(bytes))
}

impl Damage {
    fn apply(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let len = bytes.len();
        if len == 0 {
            return bytes;
        }
        let span = |at: usize, n: usize| at % len..(at % len + n).min(len);
        match self {
            Self::Flip(at, bit) => bytes[at % len] ^= 1 << bit,
            Self::Insert(at, new) => drop(bytes.splice(at % len..at % len, new.iter().copied())),
            Self::Remove(at, n) => drop(bytes.drain(span(*at, *n))),
            Self::Repeat(at, n) => {
                let part = bytes[span(*at, *n)].to_vec();
                drop(bytes.splice(at % len..at % len, part));
            }
            Self::Truncate(at) => bytes.truncate(at % len),
            Self::Number(at, number) => {
                let digit = |i: &usize| bytes[*i].is_ascii_digit();
                let Some(start) = (at % len..len).find(digit).or_else(|| (0..len).find(digit)) else {
                    return bytes;
                };
                let start = (0..=start).rev().take_while(|i| digit(i)).last().unwrap_or(start);
                let end = (start..len).find(|i| !digit(i)).unwrap_or(len);
                drop(bytes.splice(start..end, number.bytes()));
            }
        }
        bytes
    }
}

/// What lies in a directory and below it, by the path from there.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

pub fn files_of(dir: &Path) -> Files {
    fn walk(dir: &Path, below: &Path, files: &mut Files) {
        for entry in fs::read_dir(dir).unwrap() {
            let (path, name) = entry.map(|entry| (entry.path(), below.join(entry.file_name()))).unwrap();
            if path.is_dir() {
                walk(&path, &name, files);
            } else {
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    let mut files = Files::new();
    walk(dir, Path::new(""), &mut files);
    files
}

pub fn put(files: &Files, dir: &Path) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Runs `read` and checks that this process has not asked the system for memory beyond all reason meanwhile.
///
/// Memory that is asked for and never touched counts too: the next machine may refuse it. Linux only; elsewhere the
/// allocation itself would have to fail.
pub fn within_memory<T>(read: impl FnOnce() -> T) -> T {
    const MOST_KIB: u64 = 6 << 20;
    let result = read();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmPeak:")?.split_whitespace().next()?.parse().ok());
    assert!(peak.unwrap_or(0u64) < MOST_KIB, "this process has asked for {peak:?} KiB");
    result
}

#[test]
fn every_damage_is_done() {
    let done = |damage: Damage| String::from_utf8_lossy(&damage.apply(b"{\"n\":12}".to_vec())).into_owned();
    assert_eq!(done(Damage::Flip(1, 0)), "{#n\":12}");
    assert_eq!(done(Damage::Insert(9, b"x".to_vec())), "{x\"n\":12}");
    assert_eq!(done(Damage::Remove(5, 99)), "{\"n\":");
    assert_eq!(done(Damage::Repeat(5, 1)), "{\"n\":112}");
    assert_eq!(done(Damage::Truncate(4)), "{\"n\"");
    for at in [0, 5, 6, 7] {
        assert_eq!(done(Damage::Number(at, "-1")), "{\"n\":-1}");
    }
}
