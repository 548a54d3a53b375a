//! The checks that a run makes at every rollout, and the warnings that they give.

use temper_train::Run;

use crate::PpoConfig;
use crate::config::MissingEos;
use crate::metrics::PpoMetrics;

/// A ratio on the first minibatch that differs from 1 by more than this is not due to rounding.
const RATIO_TOLERANCE: f64 = 1e-3;
/// Before the first update the log-probability of an answer may differ from the reference's by at most this, in nats.
const START_TOLERANCE: f64 = 1e-3;
/// Log-probabilities of sampler and update that differ by more than this are not due to rounding, in nats.
const SAMPLER_TOLERANCE: f64 = 1e-2;
/// A mean KL below 0 by at most this much is ignored, in nats per answer.
const KL_FLOOR: f64 = 0.02;
/// The mean KL of a rollout scatters around the true one: it is more standard errors below it only one time in forty.
const STANDARD_ERRORS: f64 = 2.0;
/// Consecutive rollouts with a negative KL before the warning.
const KL_PATIENCE: usize = 3;
/// A smaller share of answers that end is reported where answers are meant to end.
const EOS_FLOOR: f64 = 0.05;
/// Consecutive rollouts in which hardly any answer ends before the warning, …
const EOS_PATIENCE: usize = 5;
/// … which must have at least this many answers together, since a rollout may have a single one.
const EOS_ANSWERS: usize = 50;
/// Answers stop ending if fewer than this share of the highest share so far do.
const EOS_FALL: f64 = 0.5;
/// Below this the errors of the critic have more than twice the variance of the returns: a constant would do better.
const EXPLAINED_FLOOR: f64 = -1.0;
/// A critic that starts as the reward model is that far off at first; in healthy runs it improves within ten rollouts.
const EXPLAINED_PATIENCE: usize = 20;
/// Scores are narrow when their deviation has fallen to this share of the greatest deviation so far.
const NARROW: f64 = 0.3;
/// Updates that move the policy by less than this, in nats per token, may as well be left out.
const STILL: f64 = 1e-7;
/// Where a rollout has one update, the policy has not moved if the log-probability of every answer differs from the
/// reference's by less than this, in nats: ten times rounding.
const UNMOVED: f64 = 1e-4;
/// A smaller share of the highest learning rate is the end of a schedule.
const LEARNING: f64 = 0.1;
/// Consecutive rollouts with such updates before the warning.
const STILL_PATIENCE: usize = 10;
/// Consecutive rollouts with equal scores before the warning: a single one may be chance.
const FLAT_PATIENCE: usize = 3;

/// The checks of one run. Each warns once; their state is not stored, so a resumed run may warn again.
#[derive(Debug)]
pub(crate) struct Checks {
    /// Whether answers are meant to end.
    ends_matter: bool,
    /// What makes the score of an answer that does not end worse.
    less_for_endless: &'static str,
    start: Streak,
    ratio: Streak,
    sampler: Streak,
    kl: NegativeKl,
    still: Streak,
    /// The highest learning rate of the run.
    learning_rate: f64,
    ends: Streak,
    fewer_ends: Streak,
    /// The highest share of answers that ended, in a rollout so far.
    highest_ends: f64,
    critic: Streak,
    flat: Streak,
    /// Standard deviation of the last rollout's scores.
    spread: f64,
    /// The greatest such deviation so far.
    widest_spread: f64,
}

impl Checks {
    pub(crate) fn new(config: &PpoConfig) -> Self {
        Self {
            // Where an answer without an end scores like any other, ends are not expected.
            ends_matter: config.rollout.missing_eos != MissingEos::Keep,
            less_for_endless: match config.rollout.missing_eos {
                MissingEos::Replace => "lower",
                MissingEos::Subtract | MissingEos::Keep => "raise",
            },
            start: Streak::default(),
            ratio: Streak::default(),
            sampler: Streak::default(),
            kl: NegativeKl::default(),
            still: Streak::default(),
            learning_rate: config.training.learning_rate,
            ends: Streak::default(),
            fewer_ends: Streak::default(),
            highest_ends: 0.0,
            critic: Streak::default(),
            flat: Streak::default(),
            spread: 0.0,
            widest_spread: 0.0,
        }
    }

    /// Checks the metrics of a step, and warns.
    ///
    /// `kl` is Σ dₜ of each answer. `step` counts from 1 over the whole run, so that a resumed run is not taken for a new
    /// one.
    pub(crate) fn check_metrics(&mut self, metrics: &PpoMetrics, kl: &[f64], step: usize, run: &mut Run) {
        let mut warn = |message: String| run.warn(&format!("step {step}: {message}"));
        let furthest = kl.iter().fold(0.0f64, |far, kl| far.max(kl.abs()));
        if self.start.reaches(1, step == 1 && furthest > START_TOLERANCE) {
            warn(format!(
                "before the first update an answer is up to {furthest:.1e} nats from the reference, not 0: policy and \
                 reference are not the same model (another directory, weights that were not loaded, dropout on)"
            ));
        }
        if self.ratio.reaches(1, metrics.first_ratio_error > RATIO_TOLERANCE) {
            warn(format!(
                "before the first update the ratio differs from 1 by {:.1e}: sampling and update disagree \
                 (dropout on, another temperature, or a changed policy)",
                metrics.first_ratio_error
            ));
        }
        if self.sampler.reaches(1, metrics.sampler_error > SAMPLER_TOLERANCE) {
            warn(format!(
                "the sampler's log-probabilities differ by up to {:.1e} nats from those of the whole sequence: the \
                 cache of sampling computes something else (positions, padding, a kernel of low precision)",
                metrics.sampler_error
            ));
        }
        if self.kl.persists(kl) {
            warn(format!(
                "the KL to the reference has been below 0 for {KL_PATIENCE} rollouts in a row, now {:.2} nats \
                 per answer: the answers are not drawn from the distribution that they are judged by (top-k or \
                 top-p, another temperature, a token that is never sampled, dropout on, padding)",
                metrics.kl
            ));
        }
        // The first minibatch is seen before its update: with a single one, only the distance to the reference shows anything.
        // A rate that falls to 0 ends in updates that move nothing, as it should.
        let is_learning = metrics.lr > LEARNING * self.learning_rate;
        let is_unmoved = match metrics.updates {
            1 => step > 1 && kl.iter().all(|kl| kl.abs() < UNMOVED),
            _ => metrics.approx_kl < STILL,
        };
        let is_still = is_unmoved && is_learning;
        if self.still.reaches(STILL_PATIENCE, is_still) {
            warn(format!(
                "for {STILL_PATIENCE} rollouts in a row the updates have moved the policy by next to nothing: \
                 raise `learning_rate`, or look whether the scores of a rollout differ at all"
            ));
        }
        let patience = EOS_PATIENCE.max(EOS_ANSWERS.div_ceil(kl.len().max(1)));
        if self.ends.reaches(patience, self.ends_matter && metrics.eos_rate < EOS_FLOOR) {
            warn(format!(
                "hardly any answer has ended by itself for {patience} rollouts in a row, now {:.0} %: \
                 `rollout.max_new_tokens` is too small, or the demonstrations or the template have no end token",
                100.0 * metrics.eos_rate
            ));
        }
        self.highest_ends = self.highest_ends.max(metrics.eos_rate);
        let (now, before) = (100.0 * metrics.eos_rate, 100.0 * self.highest_ends);
        let has_fallen = self.ends_matter && metrics.eos_rate >= EOS_FLOOR && now < EOS_FALL * before;
        if self.fewer_ends.reaches(patience, has_fallen) {
            warn(format!(
                "answers stop ending: {now:.0} % do, after {before:.0} % in a rollout before. The scores favour what is \
                 long: {} `rollout.missing_eos_value`, or raise `rollout.max_new_tokens`",
                self.less_for_endless
            ));
        }
        // Scores that hardly differ any more, because everything is learned, leave nothing to explain.
        let explains = self.spread < NARROW * self.widest_spread
            || metrics.explained_var.is_none_or(|share| share >= EXPLAINED_FLOOR);
        if self.critic.reaches(EXPLAINED_PATIENCE, !explains) {
            warn(format!(
                "the explained variance has been below {EXPLAINED_FLOOR} for {EXPLAINED_PATIENCE} rollouts in a row, \
                 now {:.1}: the critic does not learn (its learning rate, an `update.value_clip_range` that is small \
                 compared with the scores, scores of a large or changing scale)",
                metrics.explained_var.unwrap_or(f64::NAN)
            ));
        }
    }

    /// Warns where all scores that are compared with each other are equal: those of a prompt's answers with a group
    /// baseline, and otherwise those of the whole rollout.
    pub(crate) fn check_scores(&mut self, config: &PpoConfig, scores: &[f64], step: usize, run: &mut Run) {
        let needs_groups = config.estimator().needs_groups();
        let compared = if needs_groups { config.rollout.samples_per_prompt } else { scores.len() };
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        self.spread =
            (scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / scores.len() as f64).sqrt();
        self.widest_spread = self.widest_spread.max(self.spread);
        let is_flat = scores.len() > 1
            && scores.chunks(compared).all(|group| group.iter().all(|score| *score == group[0]));
        if !self.flat.reaches(FLAT_PATIENCE, is_flat) {
            return;
        }
        let (observation, consequence) = if needs_groups {
            ("all answers to a prompt score the same, at every prompt", "only the KL moves the policy")
        } else {
            (
                "all answers of a rollout score the same",
                "whitening amplifies noise and the KL penalty into full-size updates",
            )
        };
        run.warn(&format!(
            "step {step}: {observation}, {FLAT_PATIENCE} rollouts in a row: there is nothing to learn, and \
             {consequence} (a scorer that gives everything the same score, a `rollout.score_clip` that clips every \
             score, a policy that always gives the same answer or has learned everything)"
        ));
    }
}

/// Counts consecutive rollouts with a problem, and reports it once.
#[derive(Debug, Default)]
struct Streak {
    in_a_row: usize,
    was_reported: bool,
}

impl Streak {
    /// Counts a rollout. True the first time that `patience` rollouts in a row were bad.
    fn reaches(&mut self, patience: usize, is_bad: bool) -> bool {
        self.in_a_row = if is_bad { self.in_a_row + 1 } else { 0 };
        let reports = self.in_a_row >= patience && !self.was_reported;
        self.was_reported |= reports;
        reports
    }
}

/// Notices a KL that stays negative: the mean of log π − log π_ref over the policy's own samples cannot be below 0.
///
/// A single answer shows nothing about the scatter, so a rollout of one answer is ignored.
#[derive(Debug, Default)]
struct NegativeKl(Streak);

impl NegativeKl {
    /// Counts a rollout with these KLs of answers. True the first time that it was negative often enough.
    fn persists(&mut self, kl: &[f64]) -> bool {
        if kl.len() < 2 {
            return false;
        }
        let n = kl.len() as f64;
        let mean = kl.iter().sum::<f64>() / n;
        let variance = kl.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let is_negative = mean + STANDARD_ERRORS * (variance / n).sqrt() < -KL_FLOOR;
        self.0.reaches(KL_PATIENCE, is_negative)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use temper_train::Event;

    use super::*;
    use crate::AdvantageKind;

    fn reported(rollouts: &[&[f64]]) -> Vec<bool> {
        let mut check = NegativeKl::default();
        rollouts.iter().map(|kl| check.persists(kl)).collect()
    }

    /// Oracle 19: a KL that stays negative is reported.
    #[test]
    fn a_kl_below_0_is_reported_at_the_third_rollout_in_a_row_and_once() {
        let (below, above) = ([-0.3, -0.1, -0.2].as_slice(), [0.3, -0.1, 0.2].as_slice());
        assert_eq!(reported(&[below; 4]), [false, false, true, false]);
        let broken = [below, below, above, below, below, below, above, below, below, below];
        let at = reported(&broken).iter().position(|&reported| reported);
        assert_eq!((at, reported(&broken).iter().filter(|&&raised| raised).count()), (Some(5), 1));
    }

    #[test]
    fn scatter_around_0_and_tiny_values_are_not_reported() {
        // Mean −0.1 with a standard error of 0.45; mean −0.01 without any.
        for quiet in [[-0.6, 0.8, -0.5].as_slice(), &[-0.01; 8], &[-5.0], &[]] {
            assert_eq!(reported(&[quiet; 6]), [false; 6], "{quiet:?}");
        }
    }

    /// The warnings about rollouts with these metrics and KLs, at the steps from `first` on.
    fn warnings(config: &PpoConfig, first: usize, rollouts: &[(PpoMetrics, Vec<f64>)]) -> Vec<String> {
        warnings_of(config, |checks, run| {
            for (i, (metrics, kl)) in rollouts.iter().enumerate() {
                checks.check_metrics(metrics, kl, first + i, run);
            }
        })
    }

    /// The warnings about rollouts with these scores.
    fn warnings_of_scores(config: &PpoConfig, rollouts: &[&[f64]]) -> Vec<String> {
        warnings_of(config, |checks, run| {
            for (i, scores) in rollouts.iter().enumerate() {
                checks.check_scores(config, scores, 1 + i, run);
            }
        })
    }

    fn warnings_of(config: &PpoConfig, look: impl FnOnce(&mut Checks, &mut Run)) -> Vec<String> {
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let log = warnings.clone();
        let mut run = Run::ephemeral().unwrap().with_observer(move |event| {
            if let Event::Warning { message } = event {
                log.lock().unwrap().push(message.to_owned());
            }
        });
        look(&mut Checks::new(config), &mut run);
        warnings.lock().unwrap().clone()
    }

    #[test]
    fn equal_scores_are_reported_at_the_third_rollout_in_a_row_and_once() {
        let mut config = PpoConfig::default();
        let (equal, other) = ([0.1; 4].as_slice(), [0.1, 0.1, 0.1, 0.2].as_slice());
        let warning = only(warnings_of_scores(&config, &[equal; 4]), 3);
        assert!(warning.starts_with("all answers of a rollout score the same"), "{warning}");
        only(warnings_of_scores(&config, &[equal, equal, other, equal, equal, equal]), 6);
        // A single answer has nothing to be compared with.
        assert_eq!(warnings_of_scores(&config, &[[0.1].as_slice(); 5]), Vec::<String>::new());
        // Two prompts that differ teach a critic, but they teach nothing to groups that have equal scores inside.
        let groups = [0.1, 0.1, 0.7, 0.7].as_slice();
        assert_eq!(warnings_of_scores(&config, &[groups; 5]), Vec::<String>::new());
        config.advantage.kind = AdvantageKind::Rloo;
        config.rollout.samples_per_prompt = 2;
        let warning = only(warnings_of_scores(&config, &[groups; 3]), 3);
        assert!(warning.starts_with("all answers to a prompt score the same"), "{warning}");
    }

    fn fine() -> PpoMetrics {
        PpoMetrics {
            first_ratio_error: 1e-6,
            sampler_error: 2e-5,
            eos_rate: 0.9,
            approx_kl: 1e-3,
            updates: 8,
            lr: PpoConfig::default().training.learning_rate,
            ..PpoMetrics::default()
        }
    }

    /// The only warning, without its step.
    fn only(warnings: Vec<String>, step: usize) -> String {
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        let (start, message) = warning.split_once(": ").unwrap();
        assert_eq!(start, format!("step {step}"), "{warning}");
        message.to_owned()
    }

    #[test]
    fn updates_that_move_nothing_are_reported_once() {
        let config = PpoConfig::default();
        let still = (PpoMetrics { approx_kl: 9e-8, ..fine() }, vec![0.1; 4]);
        assert_eq!(warnings(&config, 2, &vec![still.clone(); 9]), Vec::<String>::new());
        // With one update in a rollout, the answers tell: theirs are 0.1 nats from the reference, and then 1e-5.
        let single = (PpoMetrics { updates: 1, ..still.0.clone() }, still.1.clone());
        assert_eq!(warnings(&config, 2, &vec![single.clone(); 12]), Vec::<String>::new());
        let warning = only(warnings(&config, 2, &vec![(single.0, vec![1e-5, -1e-5]); 12]), 11);
        assert!(warning.contains("`learning_rate`"), "{warning}");
        let at_the_end = (PpoMetrics { lr: 0.1 * still.0.lr, ..still.0.clone() }, still.1.clone());
        assert_eq!(warnings(&config, 2, &vec![at_the_end; 12]), Vec::<String>::new());
        let warning = only(warnings(&config, 2, &vec![still; 12]), 11);
        assert!(warning.contains("learning_rate"), "{warning}");
    }

    /// Nine of ten answers end; then four, and the warning comes at the fifth such rollout of ten answers or more.
    #[test]
    fn answers_that_stop_ending_are_reported_once() {
        let config = PpoConfig::default();
        let ending = |eos_rate| (PpoMetrics { eos_rate, ..fine() }, vec![0.1; 10]);
        let rollouts = [vec![ending(0.9); 2], vec![ending(0.4); 8]].concat();
        let warning = only(warnings(&config, 2, &rollouts), 8);
        assert!(warning.contains("40 % do, after 90 %") && warning.contains("missing_eos"), "{warning}");
        let fewer = [vec![ending(0.9); 2], vec![ending(0.5); 8]].concat();
        assert_eq!(warnings(&config, 2, &fewer), Vec::<String>::new());
    }

    #[test]
    fn warnings_name_the_step_and_likely_causes() {
        let off = PpoMetrics { first_ratio_error: 0.02, kl: -0.2, ..fine() };
        let mut rollouts = vec![(fine(), vec![-0.2; 4]); 2];
        assert_eq!(warnings(&PpoConfig::default(), 2, &rollouts), Vec::<String>::new());
        rollouts.extend(vec![(off, vec![-0.2; 4]); 3]);
        let warnings = warnings(&PpoConfig::default(), 2, &rollouts);
        let [ratio, kl] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(
            ratio.starts_with("step 4: ") && ratio.contains("2.0e-2") && ratio.contains("temperature"),
            "{ratio}"
        );
        assert!(kl.starts_with("step 4: ") && kl.contains("-0.20 nats") && kl.contains("top-p"), "{kl}");
    }

    /// Oracle 2: policy and reference are the same model at the start.
    #[test]
    fn a_policy_that_is_not_its_reference_at_the_start_is_reported() {
        let config = PpoConfig::default();
        // The mean is 0, the answers are not.
        let apart = (fine(), vec![0.5, -0.5]);
        let warning = only(warnings(&config, 1, &[apart.clone(), apart.clone()]), 1);
        assert!(warning.contains("5.0e-1 nats") && warning.contains("not the same model"), "{warning}");
        let rounding = (fine(), vec![3e-5, -2e-5]);
        assert_eq!(warnings(&config, 1, &[rounding, apart.clone()]), Vec::<String>::new());
        // A resumed run has been updated already.
        assert_eq!(warnings(&config, 41, &[apart.clone(), apart]), Vec::<String>::new());
    }

    #[test]
    fn a_sampler_that_disagrees_with_the_whole_sequence_is_reported_once() {
        let off = (PpoMetrics { sampler_error: 0.3, ..fine() }, vec![0.0; 4]);
        let warning = only(warnings(&PpoConfig::default(), 1, &[off.clone(), off]), 1);
        assert!(warning.contains("3.0e-1 nats") && warning.contains("cache"), "{warning}");
    }

    #[test]
    fn answers_that_never_end_are_reported_where_ends_count() {
        let mut config = PpoConfig::default();
        let endless = |n| (PpoMetrics { eos_rate: 0.01, ..fine() }, vec![0.0; n]);
        let warning = only(warnings(&config, 1, &vec![endless(64); 9]), 5);
        assert!(warning.contains("now 1 %") && warning.contains("`rollout.max_new_tokens`"), "{warning}");
        let mut with_one_good = vec![endless(64); 9];
        with_one_good[4].0.eos_rate = 0.06;
        assert_eq!(warnings(&config, 1, &with_one_good), Vec::<String>::new());
        // Rollouts of one answer need more of them.
        assert_eq!(warnings(&config, 1, &vec![endless(1); 49]), Vec::<String>::new());
        assert!(only(warnings(&config, 1, &vec![endless(1); 60]), 50).contains("50 rollouts"));
        config.rollout.missing_eos = MissingEos::Keep;
        assert_eq!(warnings(&config, 1, &vec![endless(64); 9]), Vec::<String>::new());
    }

    #[test]
    fn where_scores_hardly_differ_the_critic_is_not_reported() {
        let learned_all = |spread: f64| {
            warnings_of(&PpoConfig::default(), |checks, run| {
                checks.check_scores(&PpoConfig::default(), &[0.0, 1.0], 1, run);
                for step in 2..40 {
                    checks.check_scores(&PpoConfig::default(), &[1.0 - spread, 1.0], step, run);
                    checks.check_metrics(
                        &PpoMetrics { explained_var: Some(-9.0), ..fine() },
                        &[0.0; 2],
                        step,
                        run,
                    );
                }
            })
        };
        assert_eq!(learned_all(0.1), Vec::<String>::new());
        assert_eq!(learned_all(0.8).len(), 1);
    }

    #[test]
    fn a_critic_that_explains_less_than_nothing_for_twenty_rollouts_is_reported() {
        let with = |share| (PpoMetrics { explained_var: Some(share), ..fine() }, vec![0.0; 64]);
        let warning = only(warnings(&PpoConfig::default(), 1, &vec![with(-3.2); 30]), 20);
        assert!(warning.contains("now -3.2") && warning.contains("critic"), "{warning}");
        // The start of a courtesy run on seed 2, whose critic ends at 0.84.
        let healthy =
            [-3.68, -3.03, -5.86, -2.75, -3.12, -1.4, -1.17, -0.53, -0.75, -0.25, -0.21, -0.08, 0.17];
        assert_eq!(warnings(&PpoConfig::default(), 1, &healthy.map(with)), Vec::<String>::new());
        assert_eq!(warnings(&PpoConfig::default(), 1, &vec![with(-0.9); 60]), Vec::<String>::new());
    }
}
