//! What a stage does with its model: where dropout is on, and which weights learn.

use temper_data::{Comparison, Demonstration, Encoding, Rankings};
use temper_dpo::DpoConfig;
use temper_model::{ModelConfig, Pooling, Positions};
use temper_reward::RewardConfig;
use temper_sft::SftConfig;
use temper_tokenizer::{Overflow, Template, TextSide, Tokenizer};
use temper_train::{Inputs, Run, TrainingConfig};

use crate::setup::{Log, byte_model, comparisons, demonstrations, reward_model, weights};

/// D6: the notebook's reward model drops a tenth of its units while it scores, and while it learns.
#[test]
fn d6_a_reward_model_with_dropout_scores_and_learns_without() {
    let data = comparisons();
    let [plain, dropping] = [0.0, 0.5].map(|dropout| reward_model(Pooling::Last, dropout));
    assert_eq!(dropping.config().dropout, 0.5);
    let examples: Vec<_> = data.rankings.iter().map(|ranking| &ranking.completions[0]).collect();
    let [expected, found] = [&plain, &dropping].map(|model| temper_reward::score(model, &examples, 5));
    assert_eq!(found, expected);

    let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let training = TrainingConfig { max_steps: 1, batch_size: 5, ..RewardConfig::default().training };
    let config = RewardConfig { training, ..RewardConfig::default() };
    let log = Log::default();
    let expected = temper_reward::evaluate(&plain, &data, 5).eval_loss;
    temper_reward::train(&config, dropping, &text, &data, None, &mut log.watch(Run::ephemeral().unwrap()))
        .unwrap();
    assert!((log.column("loss")[0] - expected).abs() < 1e-5, "{:?} {expected}", log.column("loss"));
}

/// SFT alone uses it, where the setting says so, and not while it evaluates.
#[test]
fn sft_learns_with_dropout_and_evaluates_without() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let data = demonstrations();
    let expected = temper_sft::evaluate(&byte_model(0.0), &data, 7).eval_loss;
    assert_eq!(temper_sft::evaluate(&byte_model(0.5), &data, 7).eval_loss, expected);
    let first_loss = |dropout| {
        let training = TrainingConfig { max_steps: 1, batch_size: 7, ..SftConfig::default().training };
        let config = SftConfig { training, dropout, ..SftConfig::default() };
        let log = Log::default();
        temper_sft::train(
            &config,
            byte_model(0.5),
            &text,
            &data,
            None,
            &mut log.watch(Run::ephemeral().unwrap()),
        )
        .unwrap();
        log.column("loss")[0]
    };
    assert!((first_loss(false) - expected).abs() < 1e-5, "{} {expected}", first_loss(false));
    assert!((first_loss(true) - expected).abs() > 1e-3, "{} {expected}", first_loss(true));
}

/// Before the first update nothing has moved, with dropout in the model's configuration too.
#[test]
fn dpo_starts_at_rewards_of_0_and_a_loss_of_ln_2() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let training =
        TrainingConfig { epochs: 2, batch_size: 5, learning_rate: 1e-3, ..DpoConfig::default().training };
    let config = DpoConfig { training, ..DpoConfig::default() };
    let log = Log::default();
    let mut run = log.watch(Run::ephemeral().unwrap());
    let data = comparisons();
    let model = byte_model(0.5);
    let policy = temper_dpo::train(&config, model.clone(), &text, &data, None, &mut run).unwrap();
    // A sum of 30 log-probabilities of size 5, read in another batch, times β.
    const ROUNDING: f64 = 1e-5;
    for key in ["rewards/chosen", "rewards/rejected", "rewards/margins"] {
        let found = log.column(key);
        assert!(found[0].abs() < ROUNDING && found[1].abs() > 1e-3, "{key} {found:?}");
    }
    let losses = log.column("loss");
    assert!((losses[0] - 2f64.ln()).abs() < ROUNDING && losses[1] < losses[0] - 1e-3, "{losses:?}");
    let found = temper_dpo::evaluate(&config, &policy, &model, &data);
    assert!(found.eval_loss < losses[1] && found.eval_pairs == 5, "{found:?}");
    assert!((found.rewards_chosen - found.rewards_rejected - found.rewards_margins).abs() < ROUNDING);
}

/// D13: the notebook's text says sinusoids, its code has a table that learns. So has Temper, and says so.
#[test]
fn d13_positions_are_learned() {
    assert_eq!(ModelConfig::preset("notebook").unwrap().positions, Positions::Learned);
    let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let data = demonstrations();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("start")).unwrap();
    byte_model(0.0).save(&dir.path().join("start"), 3).unwrap();
    let mut run = Run::open(&dir.path().join("run"), "sft", "", &Inputs::default(), false).unwrap();
    let training = TrainingConfig { max_steps: 1, ..SftConfig::default().training };
    let config = SftConfig { training, ..SftConfig::default() };
    temper_sft::train(&config, byte_model(0.0), &text, &data, None, &mut run).unwrap();
    let [before, after] = ["start", "run/final"].map(|name| {
        let weights = weights(&dir.path().join(name));
        let (_, table) = weights.into_iter().find(|(name, _)| name.ends_with("wpe.weight")).unwrap();
        table
    });
    let longest = data.examples.iter().map(|example| example.tokens.len()).max().unwrap();
    // Adam moves whatever has a gradient; neither the last token nor any place after it is read.
    let moved: Vec<bool> = before.chunks(32).zip(after.chunks(32)).map(|(a, b)| a != b).collect();
    let expected: Vec<bool> = (0..128).map(|position| position + 1 < longest).collect();
    assert_eq!(moved, expected);
}

/// D9: what does not fit is counted by every stage, and no answer is cut.
#[test]
fn d9_what_does_not_fit_is_counted() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::bare());
    let rows = [("hi", "yes"), ("too long a prompt", "yes"), ("hi", "an answer that is too long")]
        .map(|(prompt, completion)| Demonstration { prompt: prompt.into(), completion: completion.into() });
    for (overflow, kept, dropped, truncated) in
        [(Overflow::Drop, 1, 2, 0), (Overflow::TruncatePrompt, 2, 1, 1)]
    {
        let text = TextSide::new(tokenizer.clone(), template.clone());
        let data =
            temper_data::Demonstrations::new(&rows, &Encoding { overflow, ..Encoding::new(&text, 16) })
                .unwrap();
        let report = &data.report;
        assert_eq!((data.len(), report.n_dropped(), report.truncated.len()), (kept, dropped, truncated));
        for example in &data.examples {
            assert_eq!(tokenizer.decode(example.completion()), "yes");
            assert_eq!(example.tokens.last(), Some(&3));
        }
    }
    let pair = |chosen: &str, rejected: &str| Comparison::pair("hi", chosen, rejected);
    let rows = [pair("yes", "no"), pair("yes", "an answer that is too long")];
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let data = temper_data::Rankings::new(&rows, &Encoding::new(&text, 16)).unwrap();
    assert_eq!((data.len(), data.report.n_dropped()), (1, 1));
}

/// Reward model and PPO start from the same directory, which has no template.json.
#[test]
fn ppo_scores_the_ids_that_the_reward_model_learned() {
    let dir = tempfile::tempdir().unwrap();
    // Two bytes change places, so that this counts as any pretrained tokenizer and not as the byte tokenizer.
    Tokenizer::byte().save(dir.path()).unwrap();
    let path = dir.path().join("tokenizer.json");
    let mut file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    file["model"]["vocab"]["a"] = 102.into();
    file["model"]["vocab"]["b"] = 101.into();
    std::fs::write(&path, file.to_string()).unwrap();
    assert!(matches!(Tokenizer::from_dir(dir.path()).unwrap(), Tokenizer::Pretrained(_)));

    for setting in ["auto", "plain", "plain_eos", "bare"] {
        let mut reward = TextSide::load(dir.path()).unwrap();
        reward.settle(setting).unwrap();
        let mut policy = TextSide::load(dir.path()).unwrap();
        policy.settle("auto").unwrap();
        policy.adopt(&reward);
        assert!(policy.same_as(&reward), "{setting}");

        let comparison = Comparison::pair("What?", "A cab.", "No.");
        let data = Rankings::new(&[comparison], &Encoding::new(&reward, 64)).unwrap();
        let learned = &data.rankings[0].completions[0];

        let mut answer = policy.tokenizer.encode("A cab.");
        answer.push(policy.eos());
        let scored = reward.example_of_ids(&policy.encode_prompt("What?").unwrap(), &answer, true);
        assert_eq!(&scored, learned, "{setting}");
        assert_eq!(learned.tokens.ends_with(&[3]), setting != "plain");
    }
}
