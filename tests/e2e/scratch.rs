//! From nothing: a tokenizer, a model with fresh weights, and pretraining on plain text.

use serde_json::json;

use crate::util::{Temper, without_times};

const STORIES: &str = "The cat sat on the mat.\n\nThe cat saw the dog.<|endoftext|>The dog sat on the mat.\n";

/// With the tokenizer `words` of 280 tokens and the model `base`.
fn with_base() -> Temper {
    let temper = Temper::new();
    temper.write("stories.txt", STORIES);
    temper
        .run("tokenizer train --data stories.txt demonstrations.jsonl comparisons.jsonl --vocab-size 280 --out words")
        .ok();
    temper
        .run("init --tokenizer words --shape gpt2-tiny --set max_seq_len=64 d_model=16 --seed 3 --out base")
        .ok();
    temper
}

#[test]
fn a_tokenizer_and_a_model_of_ones_own_go_through_every_stage() {
    let temper = with_base();
    temper.run("sft --data stories.txt --model base --out text --set max_steps=2 --set batch_size=2").ok();
    temper.run("sft --data demonstrations.jsonl --model text/final --out sft --set max_steps=2").ok();
    // Settings are chosen for weights that have learned nothing in the first run only.
    assert!(temper.read("text/config.toml").contains("fresh parameters"));
    assert!(!temper.read("sft/config.toml").contains("fresh parameters"));
    // The answers have 53 bytes, and five ends.
    let eval = temper.run("eval --model sft/final --data demonstrations.jsonl").ok().rows().remove(0);
    let number = |key: &str| eval[key].as_f64().expect("a number");
    let per_byte = number("eval_loss") * number("eval_n_targets") / 58.0;
    assert!((number("eval_loss_per_byte") - per_byte).abs() < 1e-9, "{eval}");
    temper.run("reward --data comparisons.jsonl --model sft/final --out reward --set max_steps=2").ok();
    temper.run("dpo --data comparisons.jsonl --model sft/final --out dpo --set max_steps=1").ok();
    let ppo =
        "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --out ppo --set batch_size=2";
    let said = temper.run(&format!("{ppo} --set rollout.max_new_tokens=3 --set max_steps=1")).ok();
    // One tokenizer and one template: no answer is encoded again.
    assert!(!said.stderr.contains("scores text"), "{said:?}");
    let generate = |model: &str| {
        let sampling = "--greedy --max-new-tokens 5 --json --prompt Greet";
        temper.run(&format!("generate --model {model} {sampling}")).ok().rows().remove(0)
    };
    for model in ["base", "text/final", "ppo/final"] {
        assert_eq!(generate(model)["prompt"], "Greet");
        // <|begin|><|user|>Greet<|end|><|assistant|>
        let chat = json!([{"role": "user", "content": "Greet"}]).to_string();
        let rows = temper
            .run_of(&["tokenize", "--model", model, "--json", "--add-generation-prompt", "--messages", &chat])
            .ok()
            .rows();
        assert_eq!(rows[0]["text"], "<|begin|><|user|>Greet<|end|><|assistant|>", "{model}");
        let ids = rows[0]["input_ids"].as_array().expect("ids");
        assert_eq!(
            (&ids[..2], &ids[ids.len() - 2..]),
            (&[json!(1), json!(4)][..], &[json!(2), json!(5)][..])
        );
    }
}

#[test]
fn the_same_data_and_seed_give_the_same_tokenizer_and_the_same_weights() {
    let temper = with_base();
    // The order of the files does not matter.
    temper
        .run("tokenizer train --data comparisons.jsonl stories.txt demonstrations.jsonl --vocab-size 280 --out again")
        .ok();
    assert_eq!(temper.snapshot("words"), temper.snapshot("again"));
    let init = "init --tokenizer words --shape gpt2-tiny --set max_seq_len=64 --set d_model=16 --out";
    temper.run(&format!("{init} same --seed 3")).ok();
    temper.run(&format!("{init} other --seed 4")).ok();
    assert_eq!(temper.snapshot("base"), temper.snapshot("same"));
    assert_ne!(temper.bytes("base/model.safetensors"), temper.bytes("other/model.safetensors"));
    let config = temper.json("base/config.json");
    assert_eq!((&config["vocab_size"], &config["n_positions"]), (&json!(280), &json!(64)));
    assert_eq!((&config["eos_token_id"], &config["n_embd"]), (&json!(2), &json!(16)));
}

#[test]
fn a_llama_and_a_padded_vocabulary_are_trained_too() {
    let temper = with_base();
    let sets = "--set d_model=32 n_kv_heads=2 vocab_size=320";
    temper.run(&format!("init --tokenizer words --shape tiny --family llama {sets} --out llama")).ok();
    let config = temper.json("llama/config.json");
    assert_eq!((&config["model_type"], &config["vocab_size"]), (&json!("llama"), &json!(320)));
    temper.run("sft --data demonstrations.jsonl --model llama --out sft --set max_steps=1").ok();
}

#[test]
fn the_tokenizer_is_trained_on_all_text_and_says_how_many_tokens_it_has() {
    let temper = Temper::new();
    temper.write("few.txt", "abab abab");
    let said = temper.run("tokenizer train --data few.txt --vocab-size 1000 --out few").ok();
    // `ab`, then `abab`: nothing else occurs twice. The 9 bytes are `abab`, a space, `abab`.
    let note = "note: the data give 264 tokens, not the 1000 asked for: no other pair of tokens occurs twice";
    assert_eq!(said.stderr.lines().next(), Some(note), "{said:?}");
    assert!(said.stderr.contains("the 9 bytes of text are 3 tokens, 3.00 bytes each"), "{said:?}");
}

#[test]
fn plain_text_is_packed_and_its_documents_are_separated_as_asked() {
    let temper = with_base();
    let n_targets = |separator: &str, out: &str| {
        let sets = "--set max_steps=1 --set batch_size=64 --set max_seq_len=16";
        let command = format!("sft --data stories.txt --model base --out {out} {separator} {sets}");
        let said = temper.run(&command).ok();
        let metrics = without_times(&temper.read(&format!("{out}/metrics.jsonl")));
        (said.stderr, metrics[0]["n_targets"].as_u64().expect("a number"))
    };
    let (said, by_mark) = n_targets("", "a");
    assert!(said.contains("note: 2 plain texts are packed into"), "{said}");
    let (said, by_line) = n_targets("--separator lines", "b");
    // The mark is text now.
    assert!(said.contains("note: 2 plain texts are packed into") && by_line > by_mark, "{said}");
    let (said, _) = n_targets("--separator file", "c");
    assert!(said.contains("note: 1 plain text is packed into"), "{said}");
    let rows = temper.run("data inspect --data stories.txt --separator blank-lines --json").ok().rows();
    assert_eq!((&rows[0]["family"], &rows[0]["rows"]), (&json!("plain text"), &json!(2)));
    temper.run("eval --model a/final --data stories.txt --separator lines").ok();
}

#[test]
fn what_cannot_be_made_is_refused_and_nothing_is_written() {
    let temper = with_base();
    let train = "tokenizer train --vocab-size 300 --data stories.txt";
    temper
        .refuses("tokenizer train --data stories.txt --vocab-size 261 --out new", &["261", "262", "hint: "]);
    temper.refuses(&format!("{train} --out words"), &["words is not empty", "--out"]);
    temper.write("empty.txt", " \n");
    temper.refuses("tokenizer train --data empty.txt --vocab-size 300 --out new", &["empty.txt: no rows"]);
    temper.write("ids.jsonl", "{\"id\": \"a\"}\n");
    temper.refuses(
        "tokenizer train --data ids.jsonl --vocab-size 300 --out new",
        &["ids.jsonl:1: no column with a text", "--columns text=NAME"],
    );
    temper.write("latin.txt", b"One.\ncaf\xe9\n");
    temper.refuses(
        "tokenizer train --data latin.txt --vocab-size 300 --out new",
        &["latin.txt:2: not valid UTF-8"],
    );
    let init = "init --tokenizer words --out new";
    temper.refuses(&format!("{init} --shape notebook"), &["notebook", "shapes: tiny"]);
    temper.refuses(&format!("{init} --shape huge"), &["huge", "shapes: tiny"]);
    temper.refuses(&format!("{init} --shape tiny --set vocab_size=279"), &["279", "280"]);
    temper.refuses(&format!("{init} --shape tiny --set n_heads=5"), &["n_heads", "--set"]);
    temper.refuses(&format!("{init} --shape tiny --set heads=4"), &["unknown key `heads`", "n_heads"]);
    temper.refuses("init --tokenizer words --shape tiny --out base", &["base is not empty"]);
    temper.refuses("init --tokenizer none --shape tiny --out new", &["none"]);
}
