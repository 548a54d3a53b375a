use crate::answers::StageAnswer;
use crate::curve::{Curve, Panel, Unit};
use crate::evaluation::Evaluation;
use crate::metrics::Metrics;

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Supervised fine-tuning.
    Sft,
    /// The reward model.
    Reward,
    /// Proximal policy optimisation, or another way to learn from scored samples.
    Ppo,
    /// Direct preference optimisation.
    Dpo,
}

const SFT: &[Panel<'_>] = &[
    Panel::new("loss", "Loss", Unit::Named("nats per token")).with_held_out("eval_loss"),
    Panel::new("mean_token_accuracy", "Token accuracy", Unit::Percent)
        .with_held_out("eval_mean_token_accuracy"),
    Panel::new("learning_rate", "Learning rate", Unit::None).exact(),
];

const REWARD: &[Panel<'_>] = &[
    Panel::new("loss", "Pairwise loss", Unit::Named("nats per pair")).with_held_out("eval_loss"),
    Panel::new("accuracy", "Accuracy", Unit::Percent).with_held_out("eval_accuracy"),
    Panel::new("margin", "Margin, chosen − rejected", Unit::Named("score")).with_held_out("eval_margin"),
];

const PPO: &[Panel<'_>] = &[
    Panel::new("objective/scores", "Score of the reward model", Unit::None).with_held_out("eval/scores"),
    Panel::new("objective/gold", "Score of the independent judge", Unit::None).with_held_out("eval/gold"),
    Panel::new("objective/kl", "KL to the SFT model", Unit::Named("nats per answer")),
    Panel::new("objective/rlhf_reward", "Score minus KL penalty", Unit::None),
    Panel::new("response_length/mean", "Answer length", Unit::Named("tokens"))
        .with_held_out("eval/response_length"),
    Panel::new("response/eos_rate", "Answers that end", Unit::Percent).with_held_out("eval/eos_rate"),
    Panel::new("policy/entropy_avg", "Entropy of the policy", Unit::Named("nats per token")),
    Panel::new("objective/entropy", "Entropy of the policy", Unit::Named("nats"))
        .unless("policy/entropy_avg"),
    Panel::new("policy/clipfrac_avg", "Clipped ratios", Unit::Percent),
    Panel::new("policy/approxkl_avg", "KL of one update", Unit::Named("nats")).spiky(),
    Panel::new("objective/kl_coef", "KL coefficient", Unit::None).exact(),
    Panel::new("loss/value_avg", "Value loss", Unit::None).spiky(),
    Panel::new("val/explained_var", "Explained variance", Unit::None).spiky(),
    Panel::new("ptx/loss", "Loss on texts to keep", Unit::Named("nats per token")).with_start(),
    Panel::new("lr", "Learning rate", Unit::None).exact(),
];

const DPO: &[Panel<'_>] = &[
    Panel::new("loss", "Loss", Unit::Named("nats per pair")).with_held_out("eval_loss"),
    Panel::new("rewards/accuracies", "Accuracy", Unit::Percent).with_held_out("eval_rewards/accuracies"),
    Panel::new("rewards/margins", "Margin, chosen − rejected", Unit::None)
        .with_held_out("eval_rewards/margins"),
    Panel::new("rewards/chosen", "Implied reward, chosen", Unit::None).with_held_out("eval_rewards/chosen"),
    Panel::new("rewards/rejected", "Implied reward, rejected", Unit::None)
        .with_held_out("eval_rewards/rejected"),
    Panel::new("logps/chosen", "Log-probability, chosen", Unit::Named("nats"))
        .with_held_out("eval_logps/chosen"),
    Panel::new("logps/rejected", "Log-probability, rejected", Unit::Named("nats"))
        .with_held_out("eval_logps/rejected"),
    Panel::new("learning_rate", "Learning rate", Unit::None).exact(),
];

/// Counters and clocks: no curve says more about them than their last value.
const COUNTERS: [&str; 4] = ["step", "episode", "epoch", "time/elapsed_seconds"];

impl Stage {
    /// All, in the order they run.
    pub const ALL: [Self; 4] = [Self::Sft, Self::Reward, Self::Ppo, Self::Dpo];

    /// The name of its directory and of its key in the summary.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Reward => "reward",
            Self::Ppo => "ppo",
            Self::Dpo => "dpo",
        }
    }

    /// The name for readers.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sft => "SFT: imitate demonstrations",
            Self::Reward => "Reward model: learn what people prefer",
            Self::Ppo => "PPO: write what the reward model prefers",
            Self::Dpo => "DPO: prefer the chosen answers",
        }
    }

    /// The short name for tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Sft => "SFT",
            Self::Reward => "Reward model",
            Self::Ppo => "PPO",
            Self::Dpo => "DPO",
        }
    }

    /// What to look for in the curves.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Sft => {
                "The model learns to continue a prompt the way the demonstrations do. The loss is the mean surprise \
                 per token of the answer: it should fall fast, then level off. It does not reach zero when one \
                 prompt has several good answers. If dots for held-out data are shown and turn upwards while the \
                 line still falls, the model has begun to memorise: stop earlier or add data. A sudden jump usually \
                 means that the learning rate is too high."
            }
            Self::Reward => {
                "The model learns to score the chosen answer of each pair above the rejected one. A loss of 0.693 \
                 (ln 2) and an accuracy of 50 % are a coin toss; that is where it starts. Look at the accuracy on \
                 held-out pairs, not at the training line: where labels are noisy, training accuracy near 100 % is \
                 memorised noise. The margin is the mean difference of the two scores; if it grows without end while \
                 the held-out accuracy does not grow, the scores only get louder, and PPO will chase them."
            }
            Self::Ppo => {
                "The policy writes answers, the reward model scores them, and small clipped updates make well-scored \
                 answers more likely. The score should rise while the KL to the SFT model, the price paid for it, \
                 grows slowly and settles. A score that climbs together with an ever growing KL is over-optimisation: \
                 the policy has found what fools the reward model, so judge the answers themselves. Entropy should \
                 sink gently; near zero, the policy says one thing only. Up to about 30 % clipped ratios is healthy. \
                 Where there is a critic, an explained variance towards 1 says that it predicts the returns. Watch \
                 length and endings: answers that only grow longer, or no longer end, are a classic way to game a \
                 score."
            }
            Self::Dpo => {
                "The policy learns directly from the comparisons, without a reward model and without sampling: the \
                 chosen answer of each pair is to gain probability against the rejected one, measured from the SFT \
                 model. The loss starts at 0.693 (ln 2), the accuracy at a coin toss. The implied rewards are how \
                 far the policy has moved on either answer. Often both fall, the rejected one faster; if the chosen \
                 ones fall far, the policy leaves both for something that no comparison has seen."
            }
        }
    }

    fn panels(self) -> &'static [Panel<'static>] {
        match self {
            Self::Sft => SFT,
            Self::Reward => REWARD,
            Self::Ppo => PPO,
            Self::Dpo => DPO,
        }
    }

    /// Tells the stage from the keys of its settings, for a run that has not logged a step.
    pub fn of_config(config: &str) -> Option<Self> {
        let key_of = [
            ("rollout", "max_new_tokens", Self::Ppo),
            ("", "label_smoothing", Self::Dpo),
            ("", "pooling", Self::Reward),
            ("", "template", Self::Sft),
        ];
        key_of
            .into_iter()
            .find(|(section, key, _)| setting(config, section, key).is_some())
            .map(|entry| entry.2)
    }

    /// Tells the stage from the names of its metrics.
    pub fn of(metrics: &Metrics) -> Option<Self> {
        if metrics.has("objective/") || metrics.has("policy/") || metrics.has("val/") {
            Some(Self::Ppo)
        } else if metrics.has("rewards/") {
            Some(Self::Dpo)
        } else if metrics.has("margin") || metrics.has("accuracy") || metrics.has("mean_reward") {
            Some(Self::Reward)
        } else if metrics.has("loss") || metrics.has("mean_token_accuracy") {
            Some(Self::Sft)
        } else {
            None
        }
    }
}

/// What one stage has written.
#[derive(Debug)]
pub struct StageRun {
    /// Which stage.
    pub stage: Stage,
    /// The name of its directory, where that is not the stage's usual one; a run that is drawn alone has none.
    pub name: Option<String>,
    /// What its section of the page and its picture are called: unique on the page, and safe in a file name.
    pub slug: String,
    /// Where its settings are, as a path from the directory of the report.
    pub config_file: String,
    /// Its steps.
    pub metrics: Metrics,
    /// Its `config.toml`, as written.
    pub config: Option<String>,
    /// Whether it has left a final model.
    pub has_final: bool,
    /// Whether a process is writing into its directory.
    pub is_running: bool,
    /// What `temper eval` printed about a reward model, if that was kept in the run directory.
    pub evaluation: Option<Evaluation>,
    /// What its model said at some steps.
    pub answers: Vec<StageAnswer>,
}

impl StageRun {
    /// A run in its usual place; only its metrics are known so far.
    pub fn of(stage: Stage, metrics: Metrics) -> Self {
        let slug = stage.slug().to_owned();
        let config_file = format!("{slug}/config.toml");
        Self {
            stage,
            name: None,
            slug,
            config_file,
            metrics,
            config: None,
            has_final: false,
            is_running: false,
            evaluation: None,
            answers: Vec::new(),
        }
    }

    /// The curves to look at first: what this stage is known to log, as far as it was logged.
    pub fn curves(&self) -> Vec<Curve<'_>> {
        self.stage.panels().iter().filter_map(|panel| Curve::of(panel, &self.metrics)).collect()
    }

    /// The curves of all other metrics that moved, under their own names.
    pub fn other_curves(&self) -> Vec<Curve<'_>> {
        let known =
            |key: &str| COUNTERS.contains(&key) || self.stage.panels().iter().any(|panel| panel.shows(key));
        let curves = self.metrics.keys().into_iter().filter(|key| !known(key));
        let curves =
            curves.filter_map(|key| Curve::of(&Panel::new(key, key, Unit::None).spiky(), &self.metrics));
        curves.filter(|curve| curve.raw.iter().any(|point| point.1 != curve.raw[0].1)).collect()
    }

    /// The title for readers, with the method where the settings say that it is another one, and with the name.
    pub fn title(&self) -> String {
        let title = self.stage.title().replacen(self.stage.label(), &self.method(), 1);
        self.name.as_ref().map_or(title.clone(), |name| format!("{title} ({name})"))
    }

    /// The short name: `PPO`, or `RLOO` of a run of PPO with such advantages, and the directory if it has another name.
    pub fn label(&self) -> String {
        let method = self.method();
        self.name.as_ref().map_or(method.clone(), |name| format!("{method} ({name})"))
    }

    fn method(&self) -> String {
        let config = self.config.as_deref().filter(|_| self.stage == Stage::Ppo);
        let kind = config.and_then(|config| setting(config, "advantage", "kind"));
        let kind = kind.map(|kind| kind.trim_matches('"')).filter(|kind| {
            *kind != "gae" && !kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        });
        kind.map_or(self.stage.label().to_owned(), str::to_uppercase)
    }

    /// What its steps are called.
    pub fn unit(&self) -> &'static str {
        if self.stage == Stage::Ppo { "rollouts" } else { "steps" }
    }

    /// `finished`, `running`, or `stopped`.
    pub fn state(&self) -> &'static str {
        match self.unfinished() {
            None => "finished",
            Some(_) if self.is_running => "running",
            Some(_) => "stopped before its end",
        }
    }

    /// The sentence about a run that has not come to its end; none for one that has.
    pub fn unfinished(&self) -> Option<String> {
        let done = self.metrics.last("step").unwrap_or(0.0);
        let most = self.config.as_deref().and_then(|config| setting(config, "", "max_steps")?.parse().ok());
        let most: Option<f64> = most.filter(|most| *most > 0.0);
        let is_done = !self.is_running && most.is_some_and(|most| done >= most);
        if self.has_final || is_done {
            return None;
        }
        let unit = self.unit();
        let so_far = match most {
            Some(most) => format!("{done} of at most {most} {unit}"),
            None => format!("{done} {unit} so far, and no final model"),
        };
        let state = if self.is_running { "is running" } else { "has not finished" };
        Some(format!("{} {state}: {so_far}.", self.label()))
    }
}

/// The value of a key, as written, in a section of settings as Temper writes them; `""` is what comes before all
/// sections.
fn setting<'a>(config: &'a str, section: &str, key: &str) -> Option<&'a str> {
    let mut current = "";
    for line in config.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            current = name;
        } else if current == section
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            return Some(value.split(" #").next().unwrap_or(value).trim());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_is_recognised_by_metric_names() {
        let of = |line: &str| Stage::of(&Metrics::parse(line));
        assert_eq!(of("{\"step\":1,\"loss\":1,\"mean_token_accuracy\":0.5}\n"), Some(Stage::Sft));
        assert_eq!(of("{\"step\":1,\"loss\":1,\"accuracy\":0.5}\n"), Some(Stage::Reward));
        assert_eq!(of("{\"step\":1,\"objective/kl\":1}\n"), Some(Stage::Ppo));
        assert_eq!(of("{\"step\":1,\"loss\":1,\"rewards/accuracies\":0.5}\n"), Some(Stage::Dpo));
        assert_eq!(of("{\"step\":1}\n"), None);
    }

    #[test]
    fn a_run_is_named_after_its_advantages() {
        let named = |config: &str| {
            StageRun { config: Some(config.to_owned()), ..StageRun::of(Stage::Ppo, Metrics::default()) }
                .label()
        };
        assert_eq!(named("a = 1\n\n[kl]\nkind = \"x\"\n\n[advantage]\n# how\nkind = \"rloo\"\n"), "RLOO");
        assert_eq!(named("[advantage]\nkind = \"two_words\"\n"), "TWO_WORDS");
        assert_eq!(named("[advantage]\nkind = \"<b>\"\n"), "PPO");
        assert_eq!(named("[kl]\nkind = \"x\"\n\n[advantage]\nkind = \"gae\"\n"), "PPO");
        assert_eq!(named("[schedule]\nkind = \"linear\"\n"), "PPO");
    }

    #[test]
    fn a_run_without_its_last_step_and_without_a_final_model_is_unfinished() {
        let run = |config: &str, steps: usize| StageRun {
            config: Some(config.to_owned()),
            ..StageRun::of(Stage::Ppo, Metrics::parse(&format!("{{\"step\":{steps}}}\n")))
        };
        let of_40 = "epochs = 9\nmax_steps = 40\n\n[rollout]\nmax_steps = 3\n";
        assert_eq!(
            run(of_40, 33).unfinished().as_deref(),
            Some("PPO has not finished: 33 of at most 40 rollouts.")
        );
        assert_eq!(run(of_40, 40).unfinished(), None);
        assert_eq!(
            run("max_steps = 0\n", 33).unfinished().as_deref(),
            Some("PPO has not finished: 33 rollouts so far, and no final model.")
        );
        assert_eq!(StageRun { has_final: true, ..run(of_40, 33) }.unfinished(), None);
        let running = StageRun { is_running: true, ..run(of_40, 40) };
        assert_eq!(running.unfinished().as_deref(), Some("PPO is running: 40 of at most 40 rollouts."));
        let states = [running.state(), run(of_40, 33).state(), run(of_40, 40).state()];
        assert_eq!(states, ["running", "stopped before its end", "finished"]);
    }

    #[test]
    fn a_run_without_steps_is_recognised_by_its_settings() {
        assert_eq!(Stage::of_config("epochs = 1\n[rollout]\nmax_new_tokens = 4\n"), Some(Stage::Ppo));
        assert_eq!(Stage::of_config("pooling = \"last\"\n"), Some(Stage::Reward));
        assert_eq!(Stage::of_config("beta = 0.1\nlabel_smoothing = 0.0\n"), Some(Stage::Dpo));
        assert_eq!(Stage::of_config("template = \"auto\"\n"), Some(Stage::Sft));
        assert_eq!(Stage::of_config("[package]\nname = \"x\"\n"), None);
    }
}
