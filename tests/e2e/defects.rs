//! Defects of the notebook that only the whole program can have.

use crate::util::{Temper, without_times};

const PPO: &str = "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --set batch_size=3 \
                   --set rollout.max_new_tokens=6";

/// D1: the notebook's policy is a new network with random weights. A step that moves nothing shows what PPO starts
/// from, and at the first step the reference is the same model.
#[test]
fn d1_policy_and_reference_start_as_the_sft_model() {
    let temper = Temper::with_reward_model();
    temper.run(&format!("{PPO} --out ppo --set max_steps=1 --set learning_rate=1e-30")).ok();
    let model = |dir: &str| temper.bytes(&format!("{dir}/final/model.safetensors"));
    assert!(model("ppo") == model("sft"), "the policy is the SFT model");
    let rows = without_times(&temper.read("ppo/metrics.jsonl"));
    assert_eq!(rows[0]["objective/kl"].as_f64(), Some(0.0), "and so is the reference: {:?}", rows[0]);
    // A step that changes the policy does not change the reference.
    temper.run(&format!("{PPO} --out moved --set epochs=2 --set learning_rate=1e-2")).ok();
    let rows = without_times(&temper.read("moved/metrics.jsonl"));
    assert_eq!(rows[0]["objective/kl"].as_f64(), Some(0.0));
    assert!(rows[1]["objective/kl"].as_f64().is_some_and(|kl| kl != 0.0), "{:?}", rows[1]);
}

/// InstructGPT's critic starts as the reward model, and is saved next to the policy.
#[test]
fn the_critic_starts_as_the_reward_model() {
    let temper = Temper::with_reward_model();
    let still = "--set max_steps=1 --set learning_rate=1e-30 --set critic.learning_rate=1e-30 \
                 --set rollout.score_scale=none";
    temper.run(&format!("{PPO} --out ppo {still}")).ok();
    temper.copy("reward/final", "critic");
    temper.write("critic/model.safetensors", temper.bytes("ppo/final/critic/model.safetensors"));
    let scores = |model: &str| {
        let rows = temper.run(&format!("score --model {model} --data demonstrations.jsonl")).ok().rows();
        rows.iter().map(|row| row["score"].as_f64().expect("a score")).collect::<Vec<_>>()
    };
    assert_eq!(scores("critic"), scores("reward/final"));
}
