//! Settings and data files: any bytes and any numbers give a value or an error.

use std::fs;
use std::io::Write;
use std::path::Path;

use proptest::prelude::*;
use temper_data::{BadRows, Comparison, Demonstration, PromptRow, read_rows};
use temper_dpo::DpoConfig;
use temper_ppo::PpoConfig;
use temper_reward::RewardConfig;
use temper_sft::SftConfig;
use temper_train::{Inputs, Run, Settings, resolve, to_commented_toml};

use crate::damage::{damaged, damages, within_memory};
use crate::tiny::cases;

/// Resolves and checks the settings of each stage, from a file of these bytes.
fn read_settings(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings.toml");
    fs::write(&path, bytes).unwrap();
    let _ = resolve::<SftConfig>(None, Some(&path), &[]).and_then(|config| config.validate());
    let _ = resolve::<RewardConfig>(None, Some(&path), &[]).and_then(|config| config.validate());
    let _ = resolve::<DpoConfig>(None, Some(&path), &[]).and_then(|config| config.validate());
    let _ = resolve::<PpoConfig>(None, Some(&path), &[]).and_then(|config| config.validate());
    let _ =
        Run::open(&dir.path().join("run"), "sft", &String::from_utf8_lossy(bytes), &Inputs::default(), false);
}

fn read_all_rows(path: &Path) {
    within_memory(|| {
        for policy in [BadRows::Refuse, BadRows::Skip] {
            let _ = read_rows::<Demonstration>(&[path], policy);
            let _ = read_rows::<Comparison>(&[path], policy);
            let _ = read_rows::<PromptRow>(&[path], policy);
        }
    });
}

/// The file as it is, packed, and packed and then spoiled.
fn read_data(bytes: &[u8], spoil: impl Fn(&[u8]) -> Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    let packed = encoder.finish().unwrap();
    for file in [bytes, &packed, &spoil(&packed)] {
        fs::write(&path, file).unwrap();
        read_all_rows(&path);
    }
}

const ROWS: [&str; 3] = [
    "{\"prompt\":\"2 + 2?\",\"completion\":\"4\"}\n\
     {\"instruction\":\"Add\",\"input\":\"1, 2\",\"output\":\"3 \\u4f60\"}\n",
    "[{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"},\n\
     {\"question\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}]",
    "{\"chosen\":\"\\n\\nHuman: hi\\n\\nAssistant: 你好\",\
     \"rejected\":\"\\n\\nHuman: hi\\n\\nAssistant: 您好\"}\n",
];

fn defaults() -> [String; 4] {
    [
        to_commented_toml(&SftConfig::default()).unwrap(),
        to_commented_toml(&RewardConfig::default()).unwrap(),
        to_commented_toml(&DpoConfig::default()).unwrap(),
        to_commented_toml(&PpoConfig::default()).unwrap(),
    ]
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn any_bytes_are_settings_or_an_error(
        bytes: Vec<u8>, text in "([a-z_.\\[\\]\"'=\n# 0-9-]|nan|inf|\\{|\\}){0,60}",
    ) {
        read_settings(&bytes);
        read_settings(text.as_bytes());
    }

    #[test]
    fn damaged_settings_are_settings_or_an_error(which in 0usize..4, damages in damages()) {
        read_settings(&damaged(defaults()[which].as_bytes(), &damages));
    }

    #[test]
    fn any_argument_is_a_setting_or_an_error(key in "[a-z_.]{0,12}|kl.coef|seed", value in any::<String>()) {
        let set = [format!("{key}={value}")];
        let _ = resolve::<PpoConfig>(None, None, &set).and_then(|config| config.validate());
    }

    #[test]
    fn any_bytes_are_rows_or_an_error(bytes: Vec<u8>, damages in damages()) {
        read_data(&bytes, |packed| damaged(packed, &damages));
    }

    #[test]
    fn damaged_rows_are_rows_or_an_error(which in 0usize..3, plain in damages(), packed in damages()) {
        read_data(&damaged(ROWS[which].as_bytes(), &plain), |bytes| damaged(bytes, &packed));
    }
}

/// The keys of a stage whose value is a number.
fn numeric_keys<T: Settings>() -> Vec<String> {
    let toml = to_commented_toml(&T::default()).unwrap();
    let (mut table, mut keys) = (String::new(), Vec::new());
    for line in toml.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            table = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((key, value)) = line.split_once(" = ")
            && value.parse::<f64>().is_ok()
        {
            keys.push(format!("{table}{key}"));
        }
    }
    keys
}

fn check_refused<T: Settings>(may_be_negative: &[&str]) {
    let keys = numeric_keys::<T>();
    assert!(keys.len() > 10, "{keys:?}");
    for key in &keys {
        for number in ["nan", "-nan", "inf", "-inf", "-1", "1e999"] {
            if number == "-1" && may_be_negative.contains(&key.as_str()) {
                continue;
            }
            let resolved =
                resolve::<T>(None, None, &[format!("{key}={number}")]).and_then(|config| config.check(""));
            let message = resolved.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains(&format!("`{key}`")), "`{key} = {number}` gives {message:?}");
        }
    }
}

#[test]
fn no_setting_is_negative_infinite_or_no_number() {
    check_refused::<SftConfig>(&[]);
    check_refused::<RewardConfig>(&[]);
    check_refused::<DpoConfig>(&[]);
    let signed = ["rollout.missing_eos_value", "update.entropy_coef"];
    check_refused::<PpoConfig>(&signed);
}

/// A table in a table in a table: whoever walks it in recursion would run out of stack.
#[test]
fn deep_tables_are_an_error() {
    for text in [
        format!("a{} = 1", ".a".repeat(100_000)),
        format!("[a{}]", ".a".repeat(100_000)),
        format!("a = {}1{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("a = {}1{}", "{a = ".repeat(100_000), "}".repeat(100_000)),
    ] {
        read_settings(text.as_bytes());
        assert!(resolve::<SftConfig>(None, None, &[text]).is_err());
    }
    read_data("[".repeat(100_000).as_bytes(), <[u8]>::to_vec);
    read_data("{\"a\":".repeat(100_000).as_bytes(), <[u8]>::to_vec);
}
