//! The pieces of work that are timed, and the programs that do the same.

/// One piece of work.
#[derive(Clone, Debug)]
pub struct Work {
    pub name: String,
    pub ours: Ours,
    /// Programs that do the same: a script in `assets/peers` and its arguments.
    pub peers: Vec<String>,
}

/// What `temper` is called with. `{models}` is the directory that `models.py` fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ours {
    /// `temper bench NAME`, which prints its figures.
    Bench(&'static str),
    /// Any command; its process is timed as a whole.
    Command(String),
    /// A stage, whose steps are timed, and perhaps a stage that makes a model for it first: its directory and its arguments.
    Stage { arguments: String, before: Option<(String, String)> },
}

/// How an answer is scored: by its length, with a program that takes no time.
const LENGTH: &str = "awk '{print length($0); fflush()}'";

/// Everything that can be timed, in the order in which it is.
pub fn works() -> Vec<Work> {
    let bench = |name, peers: &[&str]| Work {
        name: String::from(name),
        ours: Ours::Bench(name),
        peers: peers.iter().map(ToString::to_string).collect(),
    };
    let mut works = vec![
        bench("tokenizer", &[]),
        bench("generate", &["generate.py"]),
        bench("sft_step", &[]),
        bench("ppo_step", &[]),
        bench("scorers", &[]),
        bench("rankings", &[]),
        bench("notebook", &["notebook.py"]),
    ];
    for dropout in ["", "-dropout"] {
        works.extend([
            sft("sft-d128", "d128", dropout, 2, 128, 100),
            sft("sft-d256-b8", "d256", dropout, 8, 128, 16),
            sft("sft-d256-b32", "d256", dropout, 32, 128, 6),
            sft("sft-gpt2", "gpt2", dropout, 4, 256, 4),
        ]);
    }
    works.push(trl_sft());
    works.extend(["reward", "dpo"].map(preferences));
    works.extend(
        [("grpo", 4), ("grpo", 8), ("rloo", 4), ("rloo", 8)].map(|(kind, group)| groups(kind, group)),
    );
    works.extend([("d256", 6), ("gpt2", 2)].map(|(model, steps)| ppo(model, steps)));
    works.extend([with_adapters("lora-sft", trl_sft()), with_adapters("lora-grpo", groups("grpo", 4))]);
    works.push(first_token());
    works
}

/// A step of SFT in full contexts, against plain PyTorch, as it is and compiled.
fn sft(name: &str, model: &str, dropout: &str, batch: usize, tokens: usize, steps: usize) -> Work {
    let peer = format!(
        "sft_step.py --model {{models}}/{model}{dropout} --batch {batch} --tokens {tokens} --steps {steps}"
    );
    Work {
        name: format!("{name}{dropout}"),
        ours: stage(&format!(
            "sft --model {{models}}/{model}{dropout} --data {{models}}/{model}/data/texts-{tokens}.jsonl \
             --set batch_size={batch} --set max_seq_len={tokens} --set max_steps={} --set samples=0",
            steps + 1
        )),
        peers: vec![peer.clone(), format!("{peer} --compile")],
    }
}

/// The same against TRL's trainer.
fn trl_sft() -> Work {
    Work { name: "trl-sft".into(), peers: vec![trl("sft", "texts-256", 4)], ..sft("", "gpt2", "", 4, 256, 4) }
}

/// A step on 8 pairs of answers of 64 tokens to prompts of 32.
fn preferences(kind: &str) -> Work {
    Work {
        name: format!("trl-{kind}"),
        ours: stage(&format!(
            "{kind} --model {{models}}/gpt2 --data {{models}}/gpt2/data/pairs.jsonl --set batch_size=8 --set max_steps=5"
        )),
        peers: vec![trl(kind, "pairs", 8)],
    }
}

/// A step on 4 prompts of 100 tokens with `group` answers of 48 each, without a critic.
fn groups(kind: &str, group: usize) -> Work {
    Work {
        name: format!("trl-{kind}-{group}"),
        ours: stage(&format!(
            "ppo --policy {{models}}/gpt2 --prompts {{models}}/gpt2/data/prompts-100.jsonl --reward-program \"{LENGTH}\" \
             --set advantage.kind={kind} --set batch_size=4 --set rollout.samples_per_prompt={group} \
             --set rollout.max_new_tokens=48 --set kl.coef=0.05 --set max_steps=4 --set samples=0"
        )),
        peers: vec![format!("{} --group {group}", trl(kind, "prompts-100", 4 * group))],
    }
}

/// An iteration of PPO with a critic: 64 answers of 48 tokens to prompts of 32, and 4 passes in minibatches of 16.
fn ppo(model: &str, steps: usize) -> Work {
    let reward = format!("{{models}}/{model}-reward");
    let Ours::Stage { arguments, .. } = stage(&format!(
        "ppo --policy {{models}}/{model} --reward {reward}/final --prompts {{models}}/{model}/data/prompts-32.jsonl \
         --set batch_size=64 --set update.ppo_epochs=4 --set update.minibatch_size=16 \
         --set rollout.max_new_tokens=48 --set max_steps={} --set samples=0",
        steps + 1
    )) else {
        unreachable!("it is a stage")
    };
    let before = format!(
        "reward --model {{models}}/{model} --data {{models}}/{model}/data/pairs.jsonl --set pooling=last \
         --set batch_size=2 --set max_steps=1"
    );
    Work {
        name: format!("ppo-{model}"),
        ours: Ours::Stage { arguments, before: Some((reward, before)) },
        peers: vec![format!(
            "ppo_step.py --model {{models}}/{model} --data {{models}}/{model}/data/prompts-32.jsonl --steps {steps}"
        )],
    }
}

/// The same with adapters of rank 16 in all linear layers of the blocks, on both sides.
fn with_adapters(name: &str, work: Work) -> Work {
    let Ours::Stage { arguments, before } = work.ours else { unreachable!("it is a stage") };
    let arguments = format!("{arguments} --set adapter.rank=16 --set adapter.alpha=32");
    let peers = work.peers.iter().map(|peer| format!("{peer} --peft")).collect();
    Work { name: name.into(), ours: Ours::Stage { arguments, before }, peers }
}

/// From the start of a process to the first token of an answer, with GPT-2 small.
fn first_token() -> Work {
    let what = "--model {models}/gpt2 --prompt \"w5 w6 w7 w8\"";
    Work {
        name: "first-token".into(),
        ours: Ours::Command(format!("generate {what} --greedy --max-new-tokens 1 --json")),
        peers: vec![format!("first_token.py {what}")],
    }
}

fn stage(arguments: &str) -> Ours {
    Ours::Stage { arguments: format!("{arguments} --set checkpoint_every=0 --seed 0"), before: None }
}

fn trl(kind: &str, data: &str, batch: usize) -> String {
    format!(
        "trl_step.py --kind {kind} --model {{models}}/gpt2 --data {{models}}/gpt2/data/{data}.jsonl --batch {batch}"
    )
}

/// The words of a command line, in which `"` keeps words together.
pub fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    let words = parts.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(
            words("ppo  --reward-program \"awk '{print 1}'\" --seed 0"),
            ["ppo", "--reward-program", "awk '{print 1}'", "--seed", "0"]
        );
    }

    #[test]
    fn every_work_has_a_name_of_its_own() {
        let works = works();
        let names: std::collections::BTreeSet<&str> = works.iter().map(|work| work.name.as_str()).collect();
        assert_eq!(names.len(), works.len());
    }
}
