//! Low-rank adapters in every stage: they are trained alone, stored as PEFT stores them, and folded in.

use std::fs;

use crate::util::Temper;

const ADAPTER: &str = "--set adapter.rank=2";

fn sft() -> String {
    format!(
        "sft --data demonstrations.jsonl --model base/final --set max_steps=4 --set checkpoint_every=2 \
         --set schedule.kind=constant {ADAPTER}"
    )
}

/// A base model in `base/final`, and the model that adapters have made of it in `run/final`.
fn adapted() -> Temper {
    let temper = Temper::new();
    temper.run("sft --data demonstrations.jsonl --model gpt2-tiny --out base --set max_steps=1").ok();
    temper.run(&format!("{} --out run", sft())).ok();
    temper
}

#[test]
fn a_run_with_adapters_ends_with_a_whole_model_and_its_adapter() {
    let temper = adapted();
    let config = temper.json("run/final/adapter/adapter_config.json");
    assert_eq!((config["peft_type"].as_str(), config["r"].as_u64()), (Some("LORA"), Some(2)));
    assert_eq!(config["base_model_name_or_path"], "base/final");
    assert!(
        temper.read("run/config.toml").contains("parameters, for adapters"),
        "the rate is ten times as high"
    );
    // A checkpoint has the adapter alone, and answers with its base.
    assert!(!temper.path("run/checkpoints/step-000004/model.safetensors").exists());
    let answer = |model: &str| {
        temper.run(&format!("generate --model {model} --prompt Hi --greedy --json")).ok().stdout
    };
    let last = answer("run/final");
    assert_eq!(answer("run/checkpoints/step-000004"), last);
    assert_eq!(answer("run/final/adapter"), last);
    for (from, to) in [("run/final/adapter", "merged"), ("run/checkpoints/step-000004", "again")] {
        temper.run(&format!("merge --model {from} --out {to}")).ok();
        for file in ["model.safetensors", "config.json", "tokenizer.json", "template.json"] {
            assert_eq!(
                temper.bytes(&format!("{to}/{file}")),
                temper.bytes(&format!("run/final/{file}")),
                "{to}: {file}"
            );
        }
    }
    assert!(temper.bytes("base/final/model.safetensors") != temper.bytes("run/final/model.safetensors"));
}

#[test]
fn a_run_with_adapters_resumes_to_the_same_end() {
    let temper = adapted();
    let finished = temper.snapshot("run/final");
    for gone in ["run/final", "run/checkpoints/step-000004"] {
        fs::remove_dir_all(temper.path(gone)).expect("it is there");
    }
    temper.run(&format!("{} --out run --resume", sft())).ok();
    assert!(temper.snapshot("run/final") == finished);
}

#[test]
fn reward_model_ppo_and_dpo_learn_adapters() {
    let temper = adapted();
    let comparisons = "--data comparisons.jsonl --model run/final --set max_steps=2";
    temper
        .run(&format!(
            "reward {comparisons} --out reward {ADAPTER} --set pooling=mean --set checkpoint_every=1"
        ))
        .ok();
    // Wherever the adapter is, it gives the same scores.
    let scores =
        |model: &str| temper.run(&format!("score --model {model} --data demonstrations.jsonl")).ok().stdout;
    temper.run("merge --model reward/final/adapter --out merged").ok();
    assert_eq!(scores("reward/final/adapter"), scores("merged"));
    assert!(temper.path("reward/checkpoints/step-000001/adapter_model.safetensors").exists());
    let said = temper.run("eval --model reward/checkpoints/step-000001 --data comparisons.jsonl").ok();
    assert!(said.stdout.contains("eval_accuracy"), "{said:?}");
    let adapter = temper.json("reward/final/adapter/adapter_config.json");
    assert_eq!(
        (adapter["task_type"].as_str(), adapter["modules_to_save"][0].as_str()),
        (Some("SEQ_CLS"), Some("score"))
    );
    temper.run(&format!("dpo {comparisons} --out dpo {ADAPTER}")).ok();
    assert!(temper.path("dpo/final/adapter/adapter_model.safetensors").exists());

    let ppo = format!(
        "ppo --policy run/final --reward reward/final --prompts prompts.jsonl --set max_steps=2 --set batch_size=3 \
         --set rollout.max_new_tokens=3 --set checkpoint_every=1 {ADAPTER}"
    );
    for kind in ["reward_model", "value_head"] {
        let run = format!("{ppo} --set critic.kind={kind} --out {kind}");
        temper.run(&run).ok();
        let finished = temper.snapshot(&format!("{kind}/final"));
        for gone in ["final", "checkpoints/step-000002"] {
            fs::remove_dir_all(temper.path(&format!("{kind}/{gone}"))).expect("it is there");
        }
        temper.run(&format!("{run} --resume")).ok();
        assert!(temper.snapshot(&format!("{kind}/final")) == finished, "{kind}");
    }
}

#[test]
fn adapters_that_fit_nothing_are_refused() {
    let temper = adapted();
    let run = format!("{} --out other --set adapter.targets=q_proj", sft());
    let said = temper.refuses(&run, &["`q_proj`", "c_attn"]);
    assert!(said.hint().contains("all-linear"), "{said:?}");
    let fresh = format!("sft --data demonstrations.jsonl --model tiny --out other {ADAPTER}");
    temper.refuses(&fresh, &["`adapter.rank`", "have learned nothing"]);
    let config = temper.read("run/final/adapter/adapter_config.json");
    for (from, to) in
        [("\"use_dora\": false", "\"use_dora\": true"), ("\"bias\": \"none\"", "\"bias\": \"all\"")]
    {
        assert!(config.contains(from), "{config}");
        temper.write("run/final/adapter/adapter_config.json", config.replace(from, to));
        let said = temper.refuses("generate --model run/final/adapter --prompt Hi", &["is not supported"]);
        assert!(said.hint().contains("merge_and_unload"), "{said:?}");
    }
    // An adapter that names itself.
    let own = config.replace("\"base/final\"", "\"run/final/adapter\"");
    temper.write("run/final/adapter/adapter_config.json", &own);
    temper.refuses(
        "generate --model run/final/adapter --prompt Hi",
        &["is not the directory of another model"],
    );
    temper.write("run/final/adapter/adapter_config.json", &config);
    fs::rename(temper.path("base"), temper.path("moved")).expect("it is there");
    let said = temper.refuses(
        "generate --model run/final/adapter --prompt Hi",
        &["base/final", "is not the directory of another model"],
    );
    assert!(said.hint().contains("--base"), "{said:?}");
    temper.run("merge --model run/final/adapter --base moved/final --out merged").ok();
    assert_eq!(temper.bytes("merged/model.safetensors"), temper.bytes("run/final/model.safetensors"));
    temper.refuses("merge --model run/final --out again", &["is not the directory of an adapter"]);
}
