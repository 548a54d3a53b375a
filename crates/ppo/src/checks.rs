//! What a run checks about itself at every rollout, and how it says so.

use temper_train::Run;

use crate::PpoConfig;
use crate::config::MissingEos;
use crate::metrics::PpoMetrics;

/// First-minibatch ratios further from 1 than this are no rounding.
const RATIO_TOLERANCE: f64 = 1e-3;
/// Before the first update the log-probabilities of an answer are the reference's up to rounding, in nats.
const START_TOLERANCE: f64 = 1e-3;
/// Sampler and update read the same token further apart than this: no rounding, in nats.
const SAMPLER_TOLERANCE: f64 = 1e-2;
/// A mean KL this little below 0 is not worth a word, in nats per answer.
const KL_FLOOR: f64 = 0.02;
/// The mean of a rollout scatters around the true KL; one in forty is further below it than this.
const STANDARD_ERRORS: f64 = 2.0;
/// Rollouts in a row that are below 0 before it is said.
const KL_PATIENCE: usize = 3;
/// Of answers that are meant to end, fewer than this share do.
const EOS_FLOOR: f64 = 0.05;
/// Rollouts in a row in which hardly an answer ends before it is said, …
const EOS_PATIENCE: usize = 5;
/// … and answers in them at least, since a rollout may be a single one.
const EOS_ANSWERS: usize = 50;
/// A critic whose errors have more than twice the variance of the returns would do better by saying nothing.
const EXPLAINED_FLOOR: f64 = -1.0;
/// A critic that starts as the reward model is that far off at first: healthy runs leave it within ten rollouts.
const EXPLAINED_PATIENCE: usize = 20;
/// Scores are narrow when their deviation has come down to this share of the greatest.
const NARROW: f64 = 0.3;
/// Rollouts in a row without a difference between scores before it is said: one alone may be chance.
const FLAT_PATIENCE: usize = 3;

/// The checks of one run, each of which speaks once. Nothing of them is stored: a resumed run may speak again.
#[derive(Debug)]
pub(crate) struct Checks {
    ends_count: bool,
    start: Streak,
    ratio: Streak,
    sampler: Streak,
    kl: KlAlarm,
    ends: Streak,
    critic: Streak,
    flat: Streak,
    /// Standard deviation of the scores: now, and the greatest there was.
    spread: f64,
    widest: f64,
}

impl Checks {
    pub(crate) fn new(config: &PpoConfig) -> Self {
        Self {
            // Whoever scores an answer without an end like any other does not wait for ends.
            ends_count: config.rollout.missing_eos != MissingEos::Keep,
            start: Streak::default(),
            ratio: Streak::default(),
            sampler: Streak::default(),
            kl: KlAlarm::default(),
            ends: Streak::default(),
            critic: Streak::default(),
            flat: Streak::default(),
            spread: 0.0,
            widest: 0.0,
        }
    }

    /// Looks at what a step recorded, and warns. `kl` is Σ dₜ of each answer; `step` counts from 1 over the whole run,
    /// so that a resumed one is not taken for a start.
    pub(crate) fn look(&mut self, metrics: &PpoMetrics, kl: &[f64], step: usize, run: &mut Run) {
        let mut warn = |message: String| run.warn(&format!("step {step}: {message}"));
        let furthest = kl.iter().fold(0.0f64, |far, kl| far.max(kl.abs()));
        if self.start.lasts(step == 1 && furthest > START_TOLERANCE, 1) {
            warn(format!(
                "before the first update an answer is up to {furthest:.1e} nats from the reference, not 0: policy and \
                 reference are not the same model (another directory, weights that were not loaded, dropout on)"
            ));
        }
        if self.ratio.lasts(metrics.first_ratio_error > RATIO_TOLERANCE, 1) {
            warn(format!(
                "before the first update the ratio is off 1 by {:.1e}: sampling and update disagree \
                 (dropout on, another temperature, or a changed policy)",
                metrics.first_ratio_error
            ));
        }
        if self.sampler.lasts(metrics.sampler_error > SAMPLER_TOLERANCE, 1) {
            warn(format!(
                "the sampler's log-probabilities are up to {:.1e} nats off those of the whole sequence: the cache of \
                 sampling computes something else (positions, padding, a kernel of low precision)",
                metrics.sampler_error
            ));
        }
        if self.kl.watch(kl) {
            warn(format!(
                "the KL to the reference is below 0 for {KL_PATIENCE} rollouts in a row, now {:.2} nats \
                 per answer: the answers are not drawn from the distribution that they are judged by (top-k or \
                 top-p, another temperature, a token that is never sampled, dropout on, padding)",
                metrics.kl
            ));
        }
        let patience = EOS_PATIENCE.max(EOS_ANSWERS.div_ceil(kl.len().max(1)));
        if self.ends.lasts(self.ends_count && metrics.eos_rate < EOS_FLOOR, patience) {
            warn(format!(
                "hardly an answer has ended by itself for {patience} rollouts in a row, now {:.0} %: \
                 `rollout.max_new_tokens` is too small, or the demonstrations or the template have no end token",
                100.0 * metrics.eos_rate
            ));
        }
        // Of scores that hardly differ any more, as where all is learned, there is nothing to explain.
        let explains = self.spread < NARROW * self.widest
            || metrics.explained_var.is_none_or(|share| share >= EXPLAINED_FLOOR);
        if self.critic.lasts(!explains, EXPLAINED_PATIENCE) {
            warn(format!(
                "the explained variance is below {EXPLAINED_FLOOR} for {EXPLAINED_PATIENCE} rollouts in a row, now \
                 {:.1}: the critic does not learn (its learning rate, an `update.value_clip_range` that is small beside \
                 the scores, scores of a large or changing scale)",
                metrics.explained_var.unwrap_or(f64::NAN)
            ));
        }
    }

    /// Looks at the scores that answers are compared by, and warns where they tell nothing.
    pub(crate) fn look_at_scores(&mut self, config: &PpoConfig, scores: &[f64], step: usize, run: &mut Run) {
        let has_critic = config.advantage.kind.has_critic();
        let compared = if has_critic { scores.len() } else { config.rollout.samples_per_prompt };
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        self.spread =
            (scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / scores.len() as f64).sqrt();
        self.widest = self.widest.max(self.spread);
        let flat = scores.len() > 1
            && scores.chunks(compared).all(|group| group.iter().all(|score| *score == group[0]));
        if !self.flat.lasts(flat, FLAT_PATIENCE) {
            return;
        }
        let (what, comes) = if has_critic {
            ("all answers of a rollout score the same", "whitening makes full steps of noise and KL")
        } else {
            ("all answers to a prompt score the same, at every prompt", "only the KL moves the policy")
        };
        run.warn(&format!(
            "step {step}: {what}, {FLAT_PATIENCE} rollouts in a row: there is nothing to learn, and {comes} (a \
             scorer that says the same to everything, a `rollout.score_clip` that cuts all, a policy that says one \
             thing only or has learned all there is)"
        ));
    }
}

/// What has to last for some rollouts in a row before it is said, and is said once.
#[derive(Debug, Default)]
struct Streak {
    in_a_row: usize,
    raised: bool,
}

impl Streak {
    fn lasts(&mut self, bad: bool, patience: usize) -> bool {
        self.in_a_row = if bad { self.in_a_row + 1 } else { 0 };
        let raise = self.in_a_row >= patience && !self.raised;
        self.raised |= raise;
        raise
    }
}

/// Notices a KL that stays negative: under the policy's own samples the mean of log π − log π_ref cannot.
///
/// One answer alone tells nothing about the scatter, so a rollout of one is passed over.
#[derive(Debug, Default)]
struct KlAlarm(Streak);

impl KlAlarm {
    fn watch(&mut self, kl: &[f64]) -> bool {
        if kl.len() < 2 {
            return false;
        }
        let n = kl.len() as f64;
        let mean = kl.iter().sum::<f64>() / n;
        let variance = kl.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let below = mean + STANDARD_ERRORS * (variance / n).sqrt() < -KL_FLOOR;
        self.0.lasts(below, KL_PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use temper_train::Event;

    use super::*;
    use crate::AdvantageKind;

    fn raised(rollouts: &[&[f64]]) -> Vec<bool> {
        let mut alarm = KlAlarm::default();
        rollouts.iter().map(|kl| alarm.watch(kl)).collect()
    }

    /// Oracle 19.
    #[test]
    fn a_kl_below_0_is_reported_at_the_third_rollout_in_a_row_and_once() {
        let (below, above) = ([-0.3, -0.1, -0.2].as_slice(), [0.3, -0.1, 0.2].as_slice());
        assert_eq!(raised(&[below; 4]), [false, false, true, false]);
        let broken = [below, below, above, below, below, below, above, below, below, below];
        let at = raised(&broken).iter().position(|&raised| raised);
        assert_eq!((at, raised(&broken).iter().filter(|&&raised| raised).count()), (Some(5), 1));
    }

    #[test]
    fn scatter_around_0_and_what_is_next_to_nothing_are_no_alarm() {
        // Mean −0.1 with a standard error of 0.45; mean −0.01 without any.
        for quiet in [[-0.6, 0.8, -0.5].as_slice(), &[-0.01; 8], &[-5.0], &[]] {
            assert_eq!(raised(&[quiet; 6]), [false; 6], "{quiet:?}");
        }
    }

    /// What is said at each of the steps from `first` on, of rollouts with these metrics and KLs.
    fn said(config: &PpoConfig, first: usize, rollouts: &[(PpoMetrics, Vec<f64>)]) -> Vec<String> {
        said_of(config, |checks, run| {
            for (i, (metrics, kl)) in rollouts.iter().enumerate() {
                checks.look(metrics, kl, first + i, run);
            }
        })
    }

    /// What is said of rollouts with these scores.
    fn said_of_scores(config: &PpoConfig, rollouts: &[&[f64]]) -> Vec<String> {
        said_of(config, |checks, run| {
            for (i, scores) in rollouts.iter().enumerate() {
                checks.look_at_scores(config, scores, 1 + i, run);
            }
        })
    }

    fn said_of(config: &PpoConfig, look: impl FnOnce(&mut Checks, &mut Run)) -> Vec<String> {
        let said = Arc::new(Mutex::new(Vec::new()));
        let log = said.clone();
        let mut run = Run::ephemeral().unwrap().with_observer(move |event| {
            if let Event::Warning { message } = event {
                log.lock().unwrap().push(message.to_owned());
            }
        });
        look(&mut Checks::new(config), &mut run);
        said.lock().unwrap().clone()
    }

    #[test]
    fn equal_scores_are_reported_at_the_third_rollout_in_a_row_and_once() {
        let mut config = PpoConfig::default();
        let (equal, other) = ([0.1; 4].as_slice(), [0.1, 0.1, 0.1, 0.2].as_slice());
        let found = only(said_of_scores(&config, &[equal; 4]), 3);
        assert!(found.starts_with("all answers of a rollout score the same"), "{found}");
        only(said_of_scores(&config, &[equal, equal, other, equal, equal, equal]), 6);
        // One answer has nothing to be compared with.
        assert_eq!(said_of_scores(&config, &[[0.1].as_slice(); 5]), Vec::<String>::new());
        // Two prompts that differ teach a critic, but not groups of which each is of one mind.
        let groups = [0.1, 0.1, 0.7, 0.7].as_slice();
        assert_eq!(said_of_scores(&config, &[groups; 5]), Vec::<String>::new());
        config.advantage.kind = AdvantageKind::Rloo;
        config.rollout.samples_per_prompt = 2;
        let found = only(said_of_scores(&config, &[groups; 3]), 3);
        assert!(found.starts_with("all answers to a prompt score the same"), "{found}");
    }

    fn fine() -> PpoMetrics {
        PpoMetrics { first_ratio_error: 1e-6, sampler_error: 2e-5, eos_rate: 0.9, ..PpoMetrics::default() }
    }

    /// The only warning, without its step.
    fn only(said: Vec<String>, step: usize) -> String {
        let [one] = said.as_slice() else { panic!("{said:?}") };
        let (found, message) = one.split_once(": ").unwrap();
        assert_eq!(found, format!("step {step}"), "{one}");
        message.to_owned()
    }

    #[test]
    fn warnings_name_the_step_and_likely_causes() {
        let off = PpoMetrics { first_ratio_error: 0.02, kl: -0.2, ..fine() };
        let mut rollouts = vec![(fine(), vec![-0.2; 4]); 2];
        assert_eq!(said(&PpoConfig::default(), 2, &rollouts), Vec::<String>::new());
        rollouts.extend(vec![(off, vec![-0.2; 4]); 3]);
        let said = said(&PpoConfig::default(), 2, &rollouts);
        let [ratio, kl] = said.as_slice() else { panic!("{said:?}") };
        assert!(
            ratio.starts_with("step 4: ") && ratio.contains("2.0e-2") && ratio.contains("temperature"),
            "{ratio}"
        );
        assert!(kl.starts_with("step 4: ") && kl.contains("-0.20 nats") && kl.contains("top-p"), "{kl}");
    }

    /// Oracle 2.
    #[test]
    fn a_policy_that_is_not_its_reference_at_the_start_is_reported() {
        let config = PpoConfig::default();
        // The mean is 0, the answers are not.
        let apart = (fine(), vec![0.5, -0.5]);
        let found = only(said(&config, 1, &[apart.clone(), apart.clone()]), 1);
        assert!(found.contains("5.0e-1 nats") && found.contains("not the same model"), "{found}");
        let rounding = (fine(), vec![3e-5, -2e-5]);
        assert_eq!(said(&config, 1, &[rounding, apart.clone()]), Vec::<String>::new());
        // A resumed run has moved already.
        assert_eq!(said(&config, 41, &[apart.clone(), apart]), Vec::<String>::new());
    }

    #[test]
    fn a_sampler_that_disagrees_with_the_whole_sequence_is_reported_once() {
        let off = (PpoMetrics { sampler_error: 0.3, ..fine() }, vec![0.0; 4]);
        let found = only(said(&PpoConfig::default(), 1, &[off.clone(), off]), 1);
        assert!(found.contains("3.0e-1 nats") && found.contains("cache"), "{found}");
    }

    #[test]
    fn answers_that_never_end_are_reported_where_ends_count() {
        let mut config = PpoConfig::default();
        let endless = |n| (PpoMetrics { eos_rate: 0.01, ..fine() }, vec![0.0; n]);
        let found = only(said(&config, 1, &vec![endless(64); 9]), 5);
        assert!(found.contains("now 1 %") && found.contains("`rollout.max_new_tokens`"), "{found}");
        let mut with_one_good = vec![endless(64); 9];
        with_one_good[4].0.eos_rate = 0.06;
        assert_eq!(said(&config, 1, &with_one_good), Vec::<String>::new());
        // Rollouts of one answer are a handful of coins.
        assert_eq!(said(&config, 1, &vec![endless(1); 49]), Vec::<String>::new());
        assert!(only(said(&config, 1, &vec![endless(1); 60]), 50).contains("50 rollouts"));
        config.rollout.missing_eos = MissingEos::Keep;
        assert_eq!(said(&config, 1, &vec![endless(64); 9]), Vec::<String>::new());
    }

    #[test]
    fn where_scores_hardly_differ_any_more_nothing_is_said_of_the_critic() {
        let learned_all = |spread: f64| {
            said_of(&PpoConfig::default(), |checks, run| {
                checks.look_at_scores(&PpoConfig::default(), &[0.0, 1.0], 1, run);
                for step in 2..40 {
                    checks.look_at_scores(&PpoConfig::default(), &[1.0 - spread, 1.0], step, run);
                    checks.look(&PpoMetrics { explained_var: Some(-9.0), ..fine() }, &[0.0; 2], step, run);
                }
            })
        };
        assert_eq!(learned_all(0.1), Vec::<String>::new());
        assert_eq!(learned_all(0.8).len(), 1);
    }

    #[test]
    fn a_critic_that_explains_less_than_nothing_for_twenty_rollouts_is_reported() {
        let with = |share| (PpoMetrics { explained_var: Some(share), ..fine() }, vec![0.0; 64]);
        let found = only(said(&PpoConfig::default(), 1, &vec![with(-3.2); 30]), 20);
        assert!(found.contains("now -3.2") && found.contains("critic"), "{found}");
        // The start of a courtesy run on seed 2, whose critic ends at 0.84.
        let healthy =
            [-3.68, -3.03, -5.86, -2.75, -3.12, -1.4, -1.17, -0.53, -0.75, -0.25, -0.21, -0.08, 0.17];
        assert_eq!(said(&PpoConfig::default(), 1, &healthy.map(with)), Vec::<String>::new());
        assert_eq!(said(&PpoConfig::default(), 1, &vec![with(-0.9); 60]), Vec::<String>::new());
    }
}
