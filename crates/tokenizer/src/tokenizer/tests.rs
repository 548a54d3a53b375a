//! Files in, files out, and a tokenizer that somebody else trained.

use std::{fs, path::Path};

use proptest::prelude::*;
use tempfile::TempDir;
use tokenizers::{
    AddedToken, TokenizerBuilder, decoders::byte_level::ByteLevel as Decode, models::bpe::BPE,
    models::bpe::BpeTrainerBuilder, normalizers::NormalizerWrapper, pre_tokenizers::byte_level::ByteLevel,
    processors::PostProcessorWrapper,
};

use super::*;
use crate::Template;

/// A byte-level BPE with a few merges, as GPT-2's but small; `<|endoftext|>` gets the id after them.
fn train_bpe(dir: &Path) {
    let corpus = "the cat sat on the mat, the cat ate the rat. 你好,你好!";
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(280)
        .min_frequency(1)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut bpe = TokenizerBuilder::<BPE, NormalizerWrapper, ByteLevel, PostProcessorWrapper, Decode>::new()
        .with_model(BPE::default())
        .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
        .with_decoder(Some(Decode::default()))
        .build()
        .unwrap();
    bpe.train(&mut trainer, [corpus].iter()).unwrap();
    bpe.add_special_tokens([AddedToken::from("<|endoftext|>", true)]).unwrap();
    bpe.save(dir.join("tokenizer.json"), false).unwrap();
}

fn bpe_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    train_bpe(dir.path());
    dir
}

fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut json: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn a_saved_byte_tokenizer_is_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let sub = dir.path().join("new/final");
    Tokenizer::byte().save(&sub).unwrap();
    let read = Tokenizer::from_dir(&sub).unwrap();
    assert!(matches!(read, Tokenizer::Byte(_)));
    assert_eq!(read.fingerprint(), Tokenizer::byte().fingerprint());
    assert_eq!((read.vocab_size(), read.special().eos), (260, 3));

    // As transformers writes it anew: compact, other key order, regex on.
    edit(&sub.join("tokenizer.json"), |json| {
        json["pre_tokenizer"]["use_regex"] = true.into();
        json.sort_all_objects();
    });
    assert!(matches!(Tokenizer::from_dir(&sub).unwrap(), Tokenizer::Byte(_)));
}

#[test]
fn a_pretrained_tokenizer_goes_through_load_and_save_unchanged() {
    let (dir, out) = (bpe_dir(), tempfile::tempdir().unwrap());
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert!(matches!(tokenizer, Tokenizer::Pretrained(_)));
    tokenizer.save(out.path()).unwrap();
    let again = Tokenizer::from_dir(out.path()).unwrap();
    assert_eq!(again.special(), tokenizer.special());
    assert_eq!(again.fingerprint(), tokenizer.fingerprint());
    assert_ne!(tokenizer.fingerprint(), Tokenizer::byte().fingerprint());
    let file = |dir: &TempDir| fs::read_to_string(dir.path().join("tokenizer.json")).unwrap();
    assert_eq!(file(&out), file(&dir));
    let text = "the cat ate 你好 🧪\n";
    let ids = again.encode(text);
    assert!(ids.len() < text.len(), "merges are used");
    assert_eq!((again.decode(&ids), ids), (text.to_owned(), tokenizer.encode(text)));
}

#[test]
fn a_pretrained_tokenizer_neither_reads_nor_writes_special_tokens() {
    let dir = bpe_dir();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let eos = tokenizer.special().eos;
    assert_eq!(eos as usize, tokenizer.vocab_size() - 1);
    let ids = tokenizer.encode("a<|endoftext|>b");
    assert!(!ids.contains(&eos));
    assert_eq!(tokenizer.decode(&ids), "a<|endoftext|>b");
    // D12: special, unknown and half a character.
    let half = &tokenizer.encode("\u{1f9ea}")[..1];
    let mixed = [&[eos, 9_999, u32::MAX], tokenizer.encode("hi").as_slice(), half, &[eos]].concat();
    assert_eq!(tokenizer.decode(&mixed), "hi\u{fffd}");
}

#[test]
fn a_word_model_cannot_be_made_to_say_special_tokens_or_to_fail() {
    let dir = tempfile::tempdir().unwrap();
    let json = json!({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"hi": 0, "</s>": 7, "a": 2}, "unk_token": "<unk>"}});
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.special().eos), (8, 7));
    assert_eq!(tokenizer.encode("hi </s> hi"), [0, 0]);
    assert_eq!(tokenizer.encode("a zebra"), [2, 2], "what no word matches falls back to letters");
    assert_eq!(tokenizer.decode(&[0, 7, 2, 99]), "hi a");
}

/// Each makes `tokenizers` 0.23 panic: while reading, at the first text, or at some ids only.
#[test]
fn a_file_on_which_the_tokenizers_crate_panics_is_an_error_or_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let words = json!({"type": "WordLevel", "vocab": {"hi": 0, "</s>": 7, "": 2}, "unk_token": "hi"});
    let read = |json: Value| {
        fs::write(&path, json.to_string()).unwrap();
        Tokenizer::from_dir(dir.path())
    };
    let bpe = json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "</s>": 3}, "merges": [["a", "b"]],
                     "continuing_subword_prefix": "##"});
    let error = read(json!({"added_tokens": [], "model": bpe})).unwrap_err().to_string();
    assert!(error.contains(r#"["a","b"] does not begin with `continuing_subword_prefix`"#), "{error}");

    let chunks = json!({"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 0}]});
    let error =
        read(json!({"added_tokens": [], "pre_tokenizer": chunks, "model": words.clone()})).unwrap_err();
    assert!(error.to_string().contains("the `tokenizers` crate panics on it"), "{error}");

    let strip = json!({"type": "Strip", "content": "i", "start": 0, "stop": 1});
    let tokenizer = read(json!({"added_tokens": [], "decoder": strip, "model": words})).unwrap();
    assert_eq!(tokenizer.decode(&[0, 2, 0]), "hh", "id 2 has no character to strip");
}

#[test]
fn padding_truncation_and_dropout_of_the_file_are_left_out() {
    let dir = bpe_dir();
    let plain = Tokenizer::from_dir(dir.path()).unwrap();
    edit(&dir.path().join("tokenizer.json"), |json| {
        json["truncation"] =
            json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                                 "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
        json["model"]["dropout"] = json!(0.5);
    });
    let odd = Tokenizer::from_dir(dir.path()).unwrap();
    for text in ["", "the cat sat on the mat"] {
        assert_eq!(odd.encode(text), plain.encode(text));
    }
}

#[test]
fn an_answer_ends_with_any_token_that_a_file_of_the_model_names() {
    let dir = bpe_dir();
    let load = || Tokenizer::from_dir(dir.path()).unwrap();
    let write = |name: &str, json: Value| fs::write(dir.path().join(name), json.to_string()).unwrap();
    write("config.json", json!({"eos_token_id": 5}));
    assert_eq!(load().end_tokens(), [5]);
    // As Llama 3 and Qwen name several; 50256 is of another vocabulary.
    write("generation_config.json", json!({"eos_token_id": [7, 3, 50_256, 5]}));
    assert_eq!((load().end_tokens(), load().special().eos), (vec![3, 5, 7], 5));
    let ids = load().encode("hi");
    assert_eq!(load().decode(&[ids.clone(), vec![3]].concat()), load().decode(&ids), "an end is not text");
    write("generation_config.json", json!({"eos_token_id": 4}));
    assert_eq!(load().end_tokens(), [4, 5]);
    assert_eq!(Tokenizer::byte().end_tokens(), [3]);
}

#[test]
fn gaps_in_a_vocabulary_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let json = json!({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 2, "<eos>": 5}, "unk_token": "a"}});
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.missing_ids()), (6, vec![1, 3, 4]));
    assert_eq!(Tokenizer::byte().missing_ids(), [0; 0]);
}

#[test]
fn special_ids_come_from_the_first_file_that_names_them() {
    let dir = bpe_dir();
    let special = || Tokenizer::from_dir(dir.path()).map(|tokenizer| tokenizer.special().clone());
    let endoftext = special().unwrap().eos;
    let write = |name: &str, json: Value| fs::write(dir.path().join(name), json.to_string()).unwrap();
    write("special_tokens_map.json", json!({"eos_token": {"content": "!"}, "pad_token": "!"}));
    assert_eq!(special().unwrap(), SpecialTokens { pad: Some(0), bos: None, sep: None, eos: 0 });
    write(
        "tokenizer_config.json",
        json!({"eos_token": {"content": "\""}, "bos_token": "#", "sep_token": null}),
    );
    assert_eq!(special().unwrap(), SpecialTokens { pad: Some(0), bos: Some(2), sep: None, eos: 1 });
    write("generation_config.json", json!({"eos_token_id": [3, 4]}));
    assert_eq!(special().unwrap().eos, 3);
    write("config.json", json!({"eos_token_id": 5, "bos_token_id": endoftext, "pad_token_id": -1}));
    let first = special().unwrap();
    assert_eq!(first, SpecialTokens { pad: Some(0), bos: Some(endoftext), sep: None, eos: 5 });
    // An id of some other vocabulary does not count.
    write("config.json", json!({"eos_token_id": 50_256}));
    assert_eq!(special().unwrap().eos, 3);

    // They survive a save without the files that belong to the model.
    write("config.json", json!({"eos_token_id": 5, "bos_token_id": endoftext}));
    fs::remove_file(dir.path().join("generation_config.json")).unwrap();
    let out = tempfile::tempdir().unwrap();
    Tokenizer::from_dir(dir.path()).unwrap().save(out.path()).unwrap();
    assert_eq!(*Tokenizer::from_dir(out.path()).unwrap().special(), first);
}

#[test]
fn an_id_of_the_wrong_type_is_an_error_and_not_a_missing_one() {
    let dir = bpe_dir();
    for (name, json) in [
        ("config.json", json!({"eos_token_id": "3"})),
        ("config.json", json!({"bos_token_id": {"id": 3}})),
        ("generation_config.json", json!({"eos_token_id": [3, "4"]})),
    ] {
        fs::write(dir.path().join(name), json.to_string()).unwrap();
        let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("os_token_id` must be an id"), "{error}");
        fs::remove_file(dir.path().join(name)).unwrap();
    }
}

#[test]
fn files_next_to_a_pretrained_tokenizer_are_saved_as_they_are() {
    let (dir, out) = (bpe_dir(), tempfile::tempdir().unwrap());
    let files = [
        (
            "tokenizer_config.json",
            "{ \"eos_token\": \"<|endoftext|>\",\n\"chat_template\": \"{{ messages }}\" }",
        ),
        ("special_tokens_map.json", "{\"eos_token\":   \"<|endoftext|>\"}"),
        ("chat_template.jinja", "{{ messages[0]['content'] }}"),
        ("added_tokens.json", "{ }"),
    ];
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    crate::TextSide::new(tokenizer.clone(), Template::plain_eos()).save(out.path()).unwrap();
    for (name, text) in files {
        assert_eq!(fs::read_to_string(out.path().join(name)).unwrap(), text, "{name}");
    }
    // Only where the end token comes from elsewhere is it added.
    fs::write(dir.path().join("config.json"), json!({"eos_token_id": 5}).to_string()).unwrap();
    Tokenizer::from_dir(dir.path()).unwrap().save(out.path()).unwrap();
    let config: Value =
        serde_json::from_str(&fs::read_to_string(out.path().join("tokenizer_config.json")).unwrap()).unwrap();
    assert_ne!(config["eos_token"], "<|endoftext|>");
    assert_eq!(config["chat_template"], "{{ messages }}");
}

/// The first four bytes promise a table of 4 GiB, for which 8.6 GB would be reserved.
#[test]
fn a_charsmap_that_promises_more_than_it_has_is_refused() {
    let dir = bpe_dir();
    let path = dir.path().join("tokenizer.json");
    for nested in [false, true] {
        edit(&path, |json| {
            let charsmap = json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="});
            let sequence = json!({"type": "Sequence", "normalizers": [charsmap.clone()]});
            json["normalizer"] = if nested { sequence } else { charsmap };
        });
        let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("names a table of 4294967295 bytes, and has 4"), "{error}");
    }
    // An empty table of 4 bytes is only as bad as the crate finds it.
    edit(&path, |json| json["normalizer"]["normalizers"][0]["precompiled_charsmap"] = "BAAAAAAAAAA=".into());
    let said = Tokenizer::from_dir(dir.path()).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(!said.contains("names a table"), "{said}");
}

#[test]
fn the_fingerprint_sees_the_vocabulary_and_not_the_layout() {
    let dir = bpe_dir();
    let path = dir.path().join("tokenizer.json");
    let fingerprint = || Tokenizer::from_file(&path).unwrap().fingerprint();
    let before = fingerprint();
    edit(&path, |json| {
        json.sort_all_objects();
        json["padding"] = Value::Null;
        for merge in json["model"]["merges"].as_array_mut().unwrap() {
            *merge = merge.as_array().map_or(merge.clone(), |pair| {
                format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()).into()
            });
        }
    });
    assert_eq!(fingerprint(), before);
    edit(&path, |json| drop(json["model"]["merges"].as_array_mut().unwrap().pop()));
    assert_ne!(fingerprint(), before);
    // Written into checkpoints, so it may never change.
    assert_eq!(Tokenizer::byte().fingerprint(), BYTE_FINGERPRINT);
}

const BYTE_FINGERPRINT: &str = "785be7e859362d50c9e3eddcd841351a";

#[test]
fn a_bad_directory_is_an_error_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let error = || Tokenizer::from_dir(dir.path()).unwrap_err();
    let path = dir.path().join("tokenizer.json");
    assert!(matches!(error(), Error::NoTokenizer { path: ref missing } if *missing == path));

    let bpe_without_eos = {
        train_bpe(dir.path());
        edit(&path, |json| json["added_tokens"] = json!([]));
        fs::read_to_string(&path).unwrap()
    };
    for (text, expected) in [
        ("{\"version\": ", "is not valid: EOF while parsing a value at line 1"),
        ("[]", "is not a tokenizer"),
        ("6", "is not a tokenizer"),
        ("{\"model\": 6}", "is not a tokenizer"),
        ("{\"model\": {\"type\": \"Magic\"}}", "is not a tokenizer"),
        (bpe_without_eos.as_str(), "has no end token: set `eos_token_id` in `config.json`"),
    ] {
        fs::write(&path, text).unwrap();
        let message = error().to_string();
        assert!(message.contains(expected) && message.contains(path.to_str().unwrap()), "{message}");
    }
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(error(), Error::Read { .. }));

    train_bpe(dir.path());
    fs::write(dir.path().join("config.json"), "{,}").unwrap();
    assert!(error().to_string().contains("config.json` is not valid"), "{}", error());
    let blocked = path.join("not_a_directory");
    assert!(matches!(Tokenizer::byte().save(&blocked).unwrap_err(), Error::Write { .. }));
}

#[test]
fn a_template_is_refused_by_a_tokenizer_without_its_tokens() {
    let dir = bpe_dir();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let error = Template::notebook().check(&tokenizer).unwrap_err().to_string();
    assert_eq!(error, "template `notebook` needs a `<bos>` token, and this tokenizer has none");
    for template in [Template::plain(), Template::plain_eos()] {
        template.check(&tokenizer).unwrap();
    }
    for name in Template::NAMES {
        Template::by_name(name).unwrap().check(&Tokenizer::byte()).unwrap();
    }
    let example = Template::plain_eos().encode_answer(&tokenizer, "", "the cat", true).unwrap();
    assert_eq!(example.tokens.last(), Some(&tokenizer.special().eos));
}

#[test]
fn any_string_comes_back_from_a_byte_level_bpe() {
    let dir = bpe_dir();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    proptest!(|(text in "\\PC*|.*|[the cat<|endoftext|>]*")| {
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text)), text);
    });
    proptest!(|(ids in prop::collection::vec(prop_oneof![0u32..300, any::<u32>()], 0..64))| {
        tokenizer.decode(&ids);
    });
}
