//! Runs that diverge, and what `on_divergence` makes of them.

use std::fs;

use serde_json::Value;

use crate::util::{Said, Temper};

/// SFT whose rate rises until the loss explodes.
const TOO_FAST: &str = "sft --data demonstrations.jsonl --model gpt2-tiny --set learning_rate=0.3 \
     --set schedule.warmup_steps=150 --set schedule.kind=constant --set batch_size=2 --set max_steps=120 \
     --set epochs=100 --set samples=0 --set optimizer.max_grad_norm=0 --set checkpoint_every=10";

/// The step and the loss of every update.
fn losses(temper: &Temper, run: &str) -> Vec<(u64, f64)> {
    let of_line = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        (row["step"].as_u64().expect("a step"), row["loss"].as_f64().expect("a loss"))
    };
    temper.read(&format!("{run}/metrics.jsonl")).lines().map(of_line).collect()
}

#[test]
fn a_run_that_diverges_says_so_or_stops_with_a_checkpoint() {
    let temper = Temper::new();
    let said = temper.run(&format!("{TOO_FAST} --out warned")).ok();
    assert!(
        said.stderr.contains("warning: step ") && said.stderr.contains("the loss has risen from"),
        "{said:?}"
    );
    let said = temper.run(&format!("{TOO_FAST} --out stopped --set on_divergence=stop"));
    let said = said.failed(&["step ", "the loss has risen from"]);
    assert!(said.hint().contains("on_divergence=rewind"), "{said:?}");
    let step = losses(&temper, "stopped").len();
    assert!(
        step < 120 && temper.path(&format!("stopped/checkpoints/step-{step:06}/model.safetensors")).exists()
    );
    assert!(!temper.path("stopped/final").exists());
}

#[test]
fn a_run_goes_back_with_half_the_rate_and_resumes_like_one_that_was_not_stopped() {
    let temper = Temper::new();
    let rewinding = format!("{TOO_FAST} --set on_divergence=rewind");
    let said = temper.run(&format!("{rewinding} --out run")).ok();
    assert!(said.stderr.contains("with 1/2 of the learning rate"), "{said:?}");
    // Every update is there once, and the last ones are better than those of a run that was only warned.
    let losses = losses(&temper, "run");
    assert_eq!(losses.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (1..=120).collect::<Vec<_>>());
    temper.run(&format!("{TOO_FAST} --out warned")).ok();
    let last = |losses: &[(u64, f64)]| losses[100..].iter().map(|(_, loss)| loss).sum::<f64>() / 20.0;
    let (rewound, warned) = (last(&losses), last(&self::losses(&temper, "warned")));
    assert!(2.0 * rewound < warned, "{rewound} after going back, {warned} without");
    // It goes back as far as one that keeps all of its checkpoints.
    let keeping = temper.run(&format!("{rewinding} --out keeping --set keep_last=40")).ok();
    let back = |said: &Said| -> Vec<String> {
        said.stderr.lines().filter(|line| line.contains("back to step")).map(str::to_owned).collect()
    };
    assert_eq!(back(&said), back(&keeping));
    let finished = temper.bytes("run/final/model.safetensors");
    for gone in ["run/final", "run/checkpoints/step-000120"] {
        fs::remove_dir_all(temper.path(gone)).expect("it is there");
    }
    temper.run(&format!("{rewinding} --out run --resume")).ok();
    assert_eq!(temper.bytes("run/final/model.safetensors"), finished);
}

/// The checkpoint of step 0 already knows of the first samples.
#[test]
fn a_run_that_resumes_from_its_start_answers_no_prompt_twice() {
    let temper = Temper::new();
    let sft = "sft --data demonstrations.jsonl --eval-data demonstrations.jsonl --model gpt2-tiny --out run \
         --set max_steps=3 --set samples=2 --set on_divergence=rewind";
    temper.run(sft).ok();
    let (samples, finished) = (temper.read("run/samples.jsonl"), temper.bytes("run/final/model.safetensors"));
    fs::remove_dir_all(temper.path("run/final")).expect("it is there");
    assert!(temper.path("run/checkpoints/step-000000").exists());
    temper.run(&format!("{sft} --resume")).ok();
    assert_eq!(temper.read("run/samples.jsonl"), samples);
    assert_eq!(temper.bytes("run/final/model.safetensors"), finished);
}

/// The decay multiplies the weights by -1e12 with every update, and the products of the fourth are beyond all numbers.
#[test]
fn a_loss_that_is_no_number_stops_a_run_with_a_checkpoint() {
    let temper = Temper::new();
    let sft = "sft --data demonstrations.jsonl --model gpt2-tiny --set learning_rate=1e6 --set optimizer.weight_decay=1e6 --set samples=0 \
         --set schedule.kind=constant --set schedule.warmup_steps=1 --set max_steps=40 --set checkpoint_every=1000";
    let said = temper.run(&format!("{sft} --out run --set on_divergence=stop"));
    let said = said.failed(&["step ", "the loss is"]);
    let steps = fs::read_dir(temper.path("run/checkpoints")).expect("checkpoints").count();
    assert_eq!(steps, 1, "{said:?}");
}
