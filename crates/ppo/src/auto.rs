//! What PPO chooses for settings that are left to Temper.

use burn::module::Module;
use temper_model::{CausalLm, ScalarModel};
use temper_stage::{CHECKPOINTING_FOLLOWS, OVERFLOW_FOLLOWS, Weights};
use temper_train::{AutoKeys, Chosen};

use crate::config::{CriticKind, MissingEos, ScaleFrom};
use crate::{AdvantageKind, PpoConfig};

/// The settings that may be `auto`, and what their values follow from.
pub(crate) const AUTO: [(&str, &str); 18] = [
    ("max_steps", "100 rollouts, or 0 where epochs are given"),
    ("epochs", "as many as max_steps needs"),
    ("learning_rate", "from the number of parameters, and advantage.kind"),
    ("batch_size", "so that a rollout has 64 answers"),
    ("rollout.samples_per_prompt", "from advantage.kind"),
    ("rollout.max_new_tokens", "from the answers that the policy has learned"),
    ("rollout.score_scale", "first_rollout"),
    ("rollout.missing_eos", "from rollout.score_scale and the answers that the policy has learned"),
    ("rollout.missing_eos_value", "from rollout.missing_eos"),
    ("update.ppo_epochs", "1"),
    ("update.minibatch_size", "from advantage.kind"),
    ("update.microbatch_size", "from the memory that an answer takes"),
    CHECKPOINTING_FOLLOWS,
    ("rollout.sampling_batch_size", "from the memory that an answer takes"),
    ("critic.kind", "reward_model where one scores, and reads what the policy writes"),
    ("critic.learning_rate", "from the number of parameters of the critic"),
    ("kl.coef", "from advantage.kind"),
    OVERFLOW_FOLLOWS,
];

/// Answers in a rollout.
const ANSWERS: usize = 64;

/// Rollouts of a run that nobody has set a length for. Its rate is constant, so it can become longer later.
const ROLLOUTS: usize = 100;

/// The longest answer of a policy that does not say how long its answers are.
const MAX_NEW_TOKENS: usize = 64;

impl PpoConfig {
    /// How many answers a prompt gets, how many prompts a rollout has, and how it is learned from.
    pub(crate) fn group_choices(&self, auto: &AutoKeys) -> Vec<Chosen> {
        let kind = format!("advantage.kind is {}", self.advantage.kind);
        let needs_groups = self.estimator().needs_groups();
        let samples = if needs_groups { 4 } else { 1 };
        let prompts = match auto.contains("rollout.samples_per_prompt") {
            true => ANSWERS / samples,
            false => (ANSWERS / self.rollout.samples_per_prompt.max(1)).max(1),
        };
        // A baseline of the group has one update from a rollout; a critic allows several.
        let minibatch = if needs_groups { 0 } else { ANSWERS / 4 };
        vec![
            Chosen::new("rollout.samples_per_prompt", samples as i64, kind.clone()),
            Chosen::new("batch_size", prompts as i64, format!("{ANSWERS} answers in a rollout")),
            Chosen::new("rollout.score_scale", "first_rollout", "penalties mean the same for every scorer"),
            Chosen::new("update.ppo_epochs", 1, "each answer is learned once"),
            Chosen::new("update.minibatch_size", minibatch as i64, kind.clone()),
            // The penalty of GRPO is in its loss, and has another scale.
            Chosen::new("kl.coef", if self.advantage.kind == AdvantageKind::Grpo { 0.04 } else { 0.1 }, kind),
        ]
    }

    /// What becomes of the score of an answer that does not end.
    ///
    /// On one scale for all scorers it is that of a poor answer, whatever the answer says: where something is subtracted
    /// from it, a policy whose long answers score well learns not to end. A value that somebody gives is subtracted, and
    /// something is subtracted where hardly any answer might end, because then all would score the same. `knows_ends` says
    /// that the policy has learned answers that mostly end within the longest one.
    fn missing_eos_choices(&self, auto: &AutoKeys, knows_ends: bool) -> [Chosen; 2] {
        let is_scaled =
            auto.contains("rollout.score_scale") || self.rollout.score_scale == ScaleFrom::FirstRollout;
        let is_given = !auto.contains("rollout.missing_eos_value");
        let replaces = is_scaled && knows_ends && !is_given;
        let reason = match (is_scaled, knows_ends) {
            _ if is_given => "rollout.missing_eos_value is given",
            (true, true) => "the scores have one scale, and the policy has learned to end",
            (true, false) => "many answers may be longer",
            (false, _) => "the scores have their own scale",
        };
        let rule = Chosen::new("rollout.missing_eos", if replaces { "replace" } else { "subtract" }, reason);
        let replaces = match self.rollout.missing_eos {
            _ if auto.contains("rollout.missing_eos") => replaces,
            rule => rule == MissingEos::Replace,
        };
        let (value, reason) =
            if replaces { (-1.0, "one deviation below the mean") } else { (1.0, "rollout.missing_eos") };
        [rule, Chosen::new("rollout.missing_eos_value", value, reason)]
    }

    /// Answers in one forward pass: whole groups, where several answers share the row of their prompt.
    fn microbatch_choice(&self, weights: &Weights, minibatch: usize, row_len: usize) -> Chosen {
        let (key, group) = ("update.microbatch_size", self.rollout.samples_per_prompt);
        if group == 1 || !minibatch.is_multiple_of(group) {
            return weights.microbatch(key, minibatch, row_len);
        }
        let group_len = row_len + (group - 1) * self.rollout.max_new_tokens;
        let groups = weights.microbatch(key, minibatch / group, group_len);
        let answers = groups.value.as_integer().expect("it is a number") * group as i64;
        Chosen::new(key, answers, groups.reason)
    }

    /// How many rollouts a run has, whatever the number of prompts.
    fn length_choices(&self, auto: &AutoKeys) -> [Chosen; 2] {
        let given = self.training.max_steps;
        let rollouts = match (auto.contains("max_steps"), auto.contains("epochs")) {
            (true, true) => ROLLOUTS,
            (true, false) => 0,
            (false, _) => given,
        };
        // Each pass over the prompts has one rollout at least.
        let epochs = rollouts.max(1);
        let reason = if rollouts == 0 { "no limit on the rollouts" } else { "as many as the rollouts need" };
        [
            Chosen::new(
                "max_steps",
                rollouts as i64,
                format!("{ROLLOUTS} rollouts, unless epochs are given"),
            ),
            Chosen::new("epochs", epochs as i64, reason),
        ]
    }

    /// The values for this policy, whose rows have at most `max_seq_len` tokens: all but those of
    /// [`PpoConfig::later_choices`].
    pub(crate) fn choices(&self, auto: &AutoKeys, policy: &CausalLm, max_seq_len: usize) -> Vec<Chosen> {
        let weights = Weights::of(policy, policy.config(), false).with_adapters(self.adapter.rank > 0);
        let mut choices = self.group_choices(auto);
        choices.extend(self.length_choices(auto));
        // A rollout makes four updates with a critic, and one without.
        let rate = if self.estimator().needs_groups() { 2.4e-5 } else { 1.2e-5 };
        choices.push(weights.learning_rate("learning_rate", rate));
        let most = max_seq_len / 2;
        let (longest, reason) = match policy.max_new_tokens() {
            Some(longest) => (longest, "the policy has learned answers of this length"),
            None => (MAX_NEW_TOKENS, "the policy does not say how long its answers are"),
        };
        let longest = longest.clamp(1, most.max(1));
        choices.push(Chosen::new("rollout.max_new_tokens", longest as i64, reason));
        let max_new_tokens =
            if auto.contains("rollout.max_new_tokens") { longest } else { self.rollout.max_new_tokens };
        let knows_ends = policy.max_new_tokens().is_some_and(|learned| learned <= max_new_tokens);
        choices.extend(self.missing_eos_choices(auto, knows_ends));
        choices
    }

    /// The values that depend on the reward model and on the prompts, where the others are settled. `row_len` is the length of
    /// a long prompt with the longest answer, in tokens.
    pub(crate) fn later_choices(
        &self,
        auto: &AutoKeys,
        policy: &CausalLm,
        reward_model: Option<(&ScalarModel, bool)>,
        row_len: usize,
    ) -> Vec<Chosen> {
        let critic_kind = critic_choice(reward_model.map(|(_, reads_ids)| reads_ids));
        let starts_as_reward_model = match auto.contains(CRITIC_KIND) {
            true => reward_model.is_some_and(|(_, reads_ids)| reads_ids),
            false => self.critic.kind == CriticKind::RewardModel,
        };
        let reward_model = reward_model.map(|(model, _)| model);
        let critic = reward_model.filter(|_| starts_as_reward_model && self.estimator().needs_critic());
        let weights = self.networks(policy, reward_model, critic);
        let critic_rate = match critic {
            Some(critic) => Weights::of(critic, critic.config(), false).with_adapters(self.adapter.rank > 0),
            None => weights.clone(),
        }
        .learning_rate("critic.learning_rate", 1.6e-5);
        let answers = self.training.batch_size * self.rollout.samples_per_prompt;
        let minibatch = if self.update.minibatch_size == 0 { answers } else { self.update.minibatch_size };
        let sampling = weights.sampling_batch("rollout.sampling_batch_size", answers, row_len);
        let (learning, checkpointing) = weights.with_checkpointing(auto, &self.training, minibatch, row_len);
        let microbatch = self.microbatch_choice(&learning, minibatch, row_len);
        vec![critic_kind, critic_rate, checkpointing, microbatch, sampling]
    }

    /// The networks of a run as the rules see them: policy, reference, reward model, perhaps an average of the policy, and the
    /// critic where it is a network of its own.
    fn networks(
        &self,
        policy: &CausalLm,
        reward_model: Option<&ScalarModel>,
        critic: Option<&ScalarModel>,
    ) -> Weights {
        let has_adapters = self.adapter.rank > 0;
        let weights = Weights::of(policy, policy.config(), false).with_adapters(has_adapters);
        // With adapters, policy and reference have the same base.
        let n_copies = usize::from(!has_adapters) + usize::from(self.ema_decay > 0.0);
        let n_frozen = n_copies * weights.n_params() + reward_model.map_or(0, Module::num_params);
        let weights = weights.within(self.training.memory).with_frozen(n_frozen);
        match critic {
            Some(critic) => weights.beside(critic.config()).with_trained(critic.num_params()),
            None => weights,
        }
    }

    /// Whether the run fits into the memory that it may need, in settings that have their values.
    ///
    /// # Errors
    /// [`TooLittleMemory`](temper_stage::Error::TooLittleMemory).
    pub(crate) fn check_memory(
        &self,
        policy: &CausalLm,
        reward_model: Option<&ScalarModel>,
        row_len: usize,
    ) -> Result<(), temper_stage::Error> {
        let is_network = self.critic.kind == CriticKind::RewardModel && self.estimator().needs_critic();
        let weights = self.networks(policy, reward_model, reward_model.filter(|_| is_network));
        let answers = self.training.batch_size * self.rollout.samples_per_prompt;
        let minibatch = if self.update.minibatch_size == 0 { answers } else { self.update.minibatch_size };
        weights.check_memory(&self.training, minibatch, self.update.microbatch_size, row_len)
    }
}

/// Where the critic starts: as the reward model, if there is one that reads the ids that the policy samples.
fn critic_choice(reads_ids: Option<bool>) -> Chosen {
    let (kind, reason) = match reads_ids {
        Some(true) => ("reward_model", "there is a reward model"),
        Some(false) => ("value_head", "the reward model reads text"),
        None => ("value_head", "no reward model was given"),
    };
    Chosen::new(CRITIC_KIND, kind, reason)
}

/// The setting that says where the critic starts.
pub(crate) const CRITIC_KIND: &str = "critic.kind";

#[cfg(test)]
mod tests {
    use super::*;

    /// A penalty that somebody gives is never a prize.
    #[test]
    fn an_answer_that_does_not_end_counts_as_a_poor_one_unless_somebody_says_otherwise() {
        let chosen_for = |knows_ends, keys: &[&str], missing_eos, score_scale| {
            let auto: AutoKeys = keys.iter().map(|key| format!("rollout.{key}")).collect();
            let mut config = PpoConfig::default();
            (config.rollout.missing_eos, config.rollout.score_scale) = (missing_eos, score_scale);
            let choices = config.missing_eos_choices(&auto, knows_ends);
            let (config, _) = auto.fill(&config, choices.into()).unwrap();
            (config.rollout.missing_eos, config.rollout.missing_eos_value)
        };
        let chosen = |keys: &[&str], rule, scale| chosen_for(true, keys, rule, scale);
        let (scaled, unscaled) = (ScaleFrom::FirstRollout, ScaleFrom::None);
        let all = ["score_scale", "missing_eos", "missing_eos_value"];
        let (subtract, replace) = (MissingEos::Subtract, MissingEos::Replace);
        assert_eq!(chosen(&all, subtract, unscaled), (replace, -1.0));
        assert_eq!(chosen_for(false, &all, subtract, unscaled), (subtract, 1.0));
        assert_eq!(chosen(&all[1..], subtract, scaled), (replace, -1.0));
        assert_eq!(chosen(&all[1..], subtract, unscaled), (subtract, 1.0));
        assert_eq!(chosen(&all[..2], subtract, unscaled), (subtract, 1.0));
        assert_eq!(chosen(&["score_scale", "missing_eos_value"], subtract, unscaled), (subtract, 1.0));
        assert_eq!(chosen(&["missing_eos_value"], replace, scaled), (replace, -1.0));
    }

    #[test]
    fn a_rollout_has_64_answers_however_many_a_prompt_gets() {
        let prompts = |samples_per_prompt, auto: &[&str]| {
            let mut config = PpoConfig::default();
            config.rollout.samples_per_prompt = samples_per_prompt;
            let auto: AutoKeys = auto.iter().map(|key| (*key).to_owned()).collect();
            let choices = config.group_choices(&auto);
            choices.into_iter().find(|choice| choice.key == "batch_size").unwrap().value.as_integer().unwrap()
        };
        assert_eq!([prompts(1, &[]), prompts(8, &[]), prompts(2000, &[])], [64, 8, 1]);
        assert_eq!(prompts(8, &["rollout.samples_per_prompt"]), 64);
    }

    #[test]
    fn a_run_has_a_hundred_rollouts_unless_its_length_is_given() {
        let lengths = |keys: &[&str], max_steps| {
            let auto: AutoKeys = keys.iter().map(|key| (*key).to_owned()).collect();
            let mut config = PpoConfig::default();
            config.training.max_steps = max_steps;
            config.length_choices(&auto).map(|choice| choice.value.as_integer().unwrap())
        };
        assert_eq!(lengths(&["max_steps", "epochs"], 0), [100, 100]);
        assert_eq!(lengths(&["epochs"], 40), [40, 40]);
        assert_eq!(lengths(&["epochs"], 0), [0, 1]);
        assert_eq!(lengths(&["max_steps"], 0)[0], 0);
    }

    #[test]
    fn the_critic_is_the_reward_model_where_it_can_be() {
        let kind = |reads_ids| critic_choice(reads_ids).value.as_str().unwrap().to_owned();
        assert_eq!([Some(true), Some(false), None].map(kind), ["reward_model", "value_head", "value_head"]);
    }
}
