//! Each stage learns what can be learned: SFT by heart, the reward model and DPO a separable difference.

use burn::tensor::Device;
use temper_data::{Comparison, Demonstration, Demonstrations, Encoding, Rankings};
use temper_dpo::DpoConfig;
use temper_model::{CausalLm, GenerateOptions, ModelConfig, Pooling, Sampler, ScalarModel, generate};
use temper_reward::RewardConfig;
use temper_sft::SftConfig;
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::{Run, Seed, TrainingConfig};

use crate::setup::byte_model;

/// Answers that say the same in part, to prompts that do: none can be told from its first letters.
const LINES: [(&str, &str); 8] = [
    ("Capital of France?", "It is Paris."),
    ("Capital of Italy?", "It is Rome."),
    ("Capital of Spain?", "It is Madrid."),
    ("Opposite of hot?", "Cold."),
    ("Opposite of big?", "Small."),
    ("What is 1+1?", "1+1 is 2."),
    ("What is 2+2?", "2+2 is 4."),
    ("Say hello", "Hello, nice to meet you!"),
];

#[test]
fn sft_learns_eight_lines_by_heart() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
    let rows = LINES
        .map(|(prompt, completion)| Demonstration { prompt: prompt.into(), completion: completion.into() });
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let data = Demonstrations::new(&rows, &Encoding::new(&text, 128)).unwrap();
    let training =
        TrainingConfig { epochs: 120, batch_size: 8, learning_rate: 5e-3, ..SftConfig::default().training };
    let config = SftConfig { training, ..SftConfig::default() };
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let model =
        temper_sft::train(&config, byte_model(0.0), &text, &data, None, &mut Run::ephemeral().unwrap())
            .unwrap();

    let prompts: Vec<Vec<u32>> =
        LINES.iter().map(|(prompt, _)| template.encode_prompt(&tokenizer, prompt).unwrap()).collect();
    let options = GenerateOptions {
        max_new_tokens: 40,
        sampler: Sampler::Greedy,
        end_tokens: vec![3],
        ..GenerateOptions::default()
    };
    let said = generate(&model, &prompts, &options).unwrap();
    for ((prompt, expected), said) in LINES.iter().zip(said) {
        assert_eq!(tokenizer.decode(&said.tokens), *expected, "{prompt}");
        assert_eq!(said.tokens.last(), Some(&3), "{prompt}");
    }
}

/// Words in another order in front of the same difference; the held-out words occur in no training row.
fn separable(days: [&str; 8]) -> Vec<Comparison> {
    let pair =
        |answer: String| Comparison::pair("When?", &format!("{answer}, thanks."), &format!("{answer}."));
    days.into_iter()
        .flat_map(|day| ["", "On ", "Not on "].map(|before| pair(format!("{before}{day}"))))
        .collect()
}

const DAYS: [&str; 8] = ["Monday", "Tuesday", "Friday", "May 1", "June 3", "July 4", "day 1", "day 2"];
const HELD_OUT_DAYS: [&str; 8] =
    ["Sunday", "Thursday", "Saturday", "March 2", "August 9", "April 7", "day 8", "night 3"];

#[test]
fn the_reward_model_orders_separable_pairs_that_it_has_not_seen() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::bare());
    let rows = |days| {
        let text = TextSide::new(tokenizer.clone(), template.clone());
        Rankings::new(&separable(days), &Encoding::new(&text, 64)).unwrap()
    };
    let (data, held_out) = (rows(DAYS), rows(HELD_OUT_DAYS));

    let backbone = CausalLm::new(
        &ModelConfig::preset("gpt2-tiny").unwrap(),
        &mut Seed(3).stream("init"),
        &Device::flex(),
    );
    let model = ScalarModel::new(backbone.transformer, Pooling::Last, &mut Seed(3).stream("head"));
    let training =
        TrainingConfig { epochs: 15, batch_size: 8, learning_rate: 2e-3, ..RewardConfig::default().training };
    let config = RewardConfig { training, ..RewardConfig::default() };
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let before = temper_reward::evaluate(&model, &held_out, 8).eval_accuracy;
    let model =
        temper_reward::train(&config, model, &text, &data, None, &mut Run::ephemeral().unwrap()).unwrap();
    let found = temper_reward::evaluate(&model, &held_out, 8);
    assert!(found.eval_accuracy >= 0.95, "{before} before, {found:?}");
}

/// The same, and what the policy says by itself is what the comparisons prefer.
#[test]
fn dpo_orders_separable_pairs_that_it_has_not_seen_and_says_the_better_ones() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::bare());
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let rows = |days| Rankings::new(&separable(days), &Encoding::new(&text, 64)).unwrap();
    let (data, held_out) = (rows(DAYS), rows(HELD_OUT_DAYS));
    let run = || Run::ephemeral().unwrap();

    // A model that has learned to say both, the curt answer more often.
    let say = |completion: String| Demonstration { prompt: "When?".into(), completion };
    let curt = DAYS.iter().flat_map(|day| [(); 3].map(|()| say(format!("{day}."))));
    let demonstrations: Vec<Demonstration> =
        curt.chain(DAYS.iter().map(|day| say(format!("{day}, thanks.")))).collect();
    let sft_data = Demonstrations::new(&demonstrations, &Encoding::new(&text, 64)).unwrap();
    let training =
        TrainingConfig { epochs: 30, batch_size: 8, learning_rate: 5e-3, ..SftConfig::default().training };
    let config = SftConfig { training, ..SftConfig::default() };
    let sft = temper_sft::train(&config, byte_model(0.0), &text, &sft_data, None, &mut run()).unwrap();

    let training =
        TrainingConfig { epochs: 15, batch_size: 8, learning_rate: 1e-3, ..DpoConfig::default().training };
    let config = DpoConfig { training, ..DpoConfig::default() };
    let policy = temper_dpo::train(&config, sft.clone(), &text, &data, None, &mut run()).unwrap();
    let found = temper_dpo::evaluate(&config, &policy, &sft, &held_out);
    assert!(found.rewards_accuracies >= 0.95 && found.rewards_margins > 1.0, "{found:?}");

    let options = GenerateOptions {
        max_new_tokens: 40,
        sampler: Sampler::Greedy,
        end_tokens: vec![3],
        ..GenerateOptions::default()
    };
    let prompts = [template.encode_prompt(&tokenizer, "When?").unwrap()];
    let said = |model: &CausalLm| tokenizer.decode(&generate(model, &prompts, &options).unwrap()[0].tokens);
    let (before, after) = (said(&sft), said(&policy));
    assert!(!before.contains("thanks") && after.contains("thanks"), "{before:?}, then {after:?}");
}
