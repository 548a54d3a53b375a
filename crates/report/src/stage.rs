use crate::curve::{Curve, Panel, Unit};
use crate::metrics::Metrics;

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Supervised fine-tuning.
    Sft,
    /// The reward model.
    Reward,
    /// Direct preference optimisation, which no pipeline has.
    Dpo,
    /// Proximal policy optimisation.
    Ppo,
}

const SFT: &[Panel] = &[
    Panel::new("loss", "Loss", Unit::Named("nats per token")).with_held_out("eval_loss"),
    Panel::new("mean_token_accuracy", "Token accuracy", Unit::Percent)
        .with_held_out("eval_mean_token_accuracy"),
    Panel::new("learning_rate", "Learning rate", Unit::None).exact(),
];

const REWARD: &[Panel] = &[
    Panel::new("loss", "Pairwise loss", Unit::Named("nats per pair")).with_held_out("eval_loss"),
    Panel::new("accuracy", "Accuracy", Unit::Percent).with_held_out("eval_accuracy"),
    Panel::new("margin", "Margin, chosen − rejected", Unit::Named("score")).with_held_out("eval_margin"),
];

const DPO: &[Panel] = &[
    Panel::new("loss", "Pairwise loss", Unit::Named("nats per pair")).with_held_out("eval_loss"),
    Panel::new("rewards/accuracies", "Accuracy", Unit::Percent).with_held_out("eval_rewards/accuracies"),
    Panel::new("rewards/margins", "Margin of the implicit rewards", Unit::None)
        .with_held_out("eval_rewards/margins"),
    Panel::new("rewards/chosen", "Implicit reward, chosen", Unit::None).with_held_out("eval_rewards/chosen"),
    Panel::new("rewards/rejected", "Implicit reward, rejected", Unit::None)
        .with_held_out("eval_rewards/rejected"),
];

const PPO: &[Panel] = &[
    Panel::new("objective/scores", "Score of the reward model", Unit::None),
    Panel::new("objective/kl", "KL to the SFT model", Unit::Named("nats per answer")),
    Panel::new("objective/rlhf_reward", "Score minus KL penalty", Unit::None),
    Panel::new("response_length/mean", "Answer length", Unit::Named("tokens")),
    Panel::new("response/eos_rate", "Answers that end", Unit::Percent),
    Panel::new("policy/entropy_avg", "Entropy of the policy", Unit::Named("nats per token")),
    Panel::new("objective/entropy", "Entropy of the policy", Unit::Named("nats"))
        .unless("policy/entropy_avg"),
    Panel::new("policy/clipfrac_avg", "Clipped ratios", Unit::Percent),
    Panel::new("policy/approxkl_avg", "KL of one update", Unit::Named("nats")).spiky(),
    Panel::new("objective/kl_coef", "KL coefficient", Unit::None).exact(),
    Panel::new("loss/value_avg", "Value loss", Unit::None).spiky(),
    Panel::new("val/explained_var", "Explained variance", Unit::None).spiky(),
    Panel::new("lr", "Learning rate", Unit::None).exact(),
];

impl Stage {
    /// All, in the order they run.
    pub const ALL: [Self; 4] = [Self::Sft, Self::Reward, Self::Dpo, Self::Ppo];

    /// The name of its directory and of its key in the summary.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Reward => "reward",
            Self::Dpo => "dpo",
            Self::Ppo => "ppo",
        }
    }

    /// The name for readers.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sft => "SFT: imitate demonstrations",
            Self::Reward => "Reward model: learn what people prefer",
            Self::Dpo => "DPO: learn what people prefer without a reward model",
            Self::Ppo => "PPO: write what the reward model prefers",
        }
    }

    /// The short name for tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::Sft => "SFT",
            Self::Reward => "Reward model",
            Self::Dpo => "DPO",
            Self::Ppo => "PPO",
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
                 the held-out accuracy stands still, the scores only get louder, and PPO will chase them."
            }
            Self::Dpo => {
                "The policy is moved until it finds the chosen answer of each pair more likely than the rejected one, \
                 compared with the SFT model. A loss of 0.693 (ln 2) is where it starts. The implicit reward of an \
                 answer says how far its probability has moved: the chosen one should rise or at least stay while \
                 the rejected one sinks. Where both sink, the policy moves away from all answers it was shown, to \
                 others that nobody has judged. Look at the loss on held-out pairs: when it turns upwards, stop."
            }
            Self::Ppo => {
                "The policy writes answers, the reward model scores them, and small clipped updates make well-scored \
                 answers more likely. The score should rise while the KL to the SFT model, the price paid for it, \
                 grows slowly and settles. A score that climbs together with an ever growing KL is over-optimisation: \
                 the policy has found what fools the reward model, so judge the answers themselves. Entropy should \
                 sink gently; near zero, the policy says one thing only. Up to about 30 % clipped ratios is healthy, \
                 and an explained variance towards 1 says that the critic predicts the returns. Watch length and \
                 endings: answers that only grow longer, or no longer end, are a classic way to game a score."
            }
        }
    }

    fn panels(self) -> &'static [Panel] {
        match self {
            Self::Sft => SFT,
            Self::Reward => REWARD,
            Self::Dpo => DPO,
            Self::Ppo => PPO,
        }
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

/// What one stage left behind.
#[derive(Debug)]
pub struct StageRun {
    /// Which stage.
    pub stage: Stage,
    /// Its steps.
    pub metrics: Metrics,
    /// Its `config.toml`, as written.
    pub config: Option<String>,
}

impl StageRun {
    /// The curves of every metric that was logged.
    pub fn curves(&self) -> Vec<Curve> {
        self.stage.panels().iter().filter_map(|panel| Curve::of(panel, &self.metrics)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_is_told_from_metric_names() {
        let of = |line: &str| Stage::of(&Metrics::parse(line));
        assert_eq!(of("{\"step\":1,\"loss\":1,\"mean_token_accuracy\":0.5}\n"), Some(Stage::Sft));
        assert_eq!(of("{\"step\":1,\"loss\":1,\"accuracy\":0.5}\n"), Some(Stage::Reward));
        assert_eq!(of("{\"step\":1,\"loss\":1,\"rewards/margins\":0.5}\n"), Some(Stage::Dpo));
        assert_eq!(of("{\"step\":1,\"objective/kl\":1}\n"), Some(Stage::Ppo));
        assert_eq!(of("{\"step\":1}\n"), None);
    }
}
