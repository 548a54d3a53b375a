use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::completion::{Manner, Wrong, write_completion, write_overdone, write_same_manner};
use crate::facts::HOLLOW;
use crate::mixture::Mixture;
use crate::random::{Random, Stream};
use crate::task::{Prompt, Task};
use crate::text::Text;

/// The held-out files are drawn from this seed, whatever the seed of the run, so that runs can be compared.
const HELD_OUT_SEED: u64 = 0;
/// Beside the independent draws that happen to be of one manner, this makes half of the held-out comparisons so.
const HELD_OUT_SAME_MANNER: f64 = 0.4;
/// After so many draws of equal score, a comparison falls back to a pair of one manner.
const MAX_DRAWS: usize = 64;
/// Completions of a training comparison (InstructGPT: 4 to 9).
const RANKED: usize = 4;
/// The right answer that is not courteous is rude this often.
const RUDE_RIGHT: f64 = 0.2;
/// Swapping two of four completions in their order turns round this share of their six pairs on average: neighbours
/// one pair, the next but one three, first and last five.
const TURNED_BY_SWAP: f64 = (3.0 * 1.0 + 2.0 * 3.0 + 5.0) / 36.0;

/// How many rows each file has, and of what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sizes {
    /// Rows for SFT, each drawn afresh.
    pub demonstrations: usize,
    /// Rows for the reward model, each drawn afresh.
    pub comparisons: usize,
    /// Rows that measure the SFT loss on held-out prompts.
    pub demonstrations_heldout: usize,
    /// Rows that measure the reward model on held-out prompts.
    pub comparisons_heldout: usize,
    /// Rows of plain text, for SFT and for PPO-ptx.
    pub texts: usize,
    /// Rows of plain text that measure what PPO forgets.
    pub texts_heldout: usize,
    /// Qualities of the demonstrations.
    pub demonstration_mixture: Mixture,
    /// Qualities of the completions that are compared.
    pub comparison_mixture: Mixture,
    /// Share of the wrong answers in comparisons that are broken rather than the answer to something else.
    pub broken: f64,
    /// Share of the wrong answers in comparisons that answer another kind of question: "Blue." to a sum. Without
    /// them a policy finds one answer that the reward model likes everywhere.
    pub foreign: f64,
    /// Share of the independently drawn completions in comparisons that have an opener in the wrong place.
    pub overdone: f64,
    /// Share of the training comparisons whose fourth completion is drawn independently.
    pub independent: f64,
    /// Share of the independently drawn completions in comparisons that are courtesy without an answer.
    pub hollow: f64,
    /// Share of the pairs in training comparisons that are in the wrong order.
    pub flipped: f64,
}

impl Sizes {
    fn wrong(&self) -> Wrong {
        Wrong { broken: self.broken, foreign: self.foreign }
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            demonstrations: 48_000,
            comparisons: 26_000,
            demonstrations_heldout: 504,
            comparisons_heldout: 1_008,
            texts: 4_800,
            texts_heldout: 504,
            demonstration_mixture: Mixture::default(),
            comparison_mixture: Mixture::COMPARISONS,
            broken: 0.15,
            foreign: 0.35,
            overdone: 0.15,
            independent: 0.5,
            hollow: 0.25,
            flipped: 0.1,
        }
    }
}

/// A row for SFT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Demonstration {
    /// What is asked.
    pub prompt: String,
    /// What to say.
    pub completion: String,
}

/// A row for the reward model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// What is asked.
    pub prompt: String,
    /// Ways to answer, in no order.
    pub completions: Vec<String>,
    /// Their indices from best to worst, those of equal gold score together; some are misplaced.
    pub ranking: Vec<Vec<usize>>,
}

/// An unflipped comparison on a held-out prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldoutComparison {
    /// What is asked.
    pub prompt: String,
    /// The completion with the higher gold score.
    pub chosen: String,
    /// The other one.
    pub rejected: String,
    /// Whether it sets a right against a wrong answer in the same manner, so that manner tells nothing.
    pub same_manner: bool,
}

/// Everything that the three stages and their evaluation read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dataset {
    /// For SFT.
    pub demonstrations: Vec<Demonstration>,
    /// For the reward model.
    pub comparisons: Vec<Comparison>,
    /// Training prompts for PPO, each once.
    pub prompts: Vec<String>,
    /// Held-out prompts, each once, in the same order for every seed; any first part is a fair sample.
    pub eval_prompts: Vec<String>,
    /// For the SFT loss on held-out prompts; the same for every seed.
    pub demonstrations_heldout: Vec<Demonstration>,
    /// For the reward model's accuracy on held-out prompts; the same for every seed.
    pub comparisons_heldout: Vec<HeldoutComparison>,
    /// For SFT and PPO-ptx.
    pub texts: Vec<Text>,
    /// For the language-model loss on held-out text; the same for every seed.
    pub texts_heldout: Vec<Text>,
}

impl Task {
    /// Draws the data of a run: a function of `seed` and `sizes` alone.
    #[must_use]
    pub fn generate(&self, seed: u64, sizes: &Sizes) -> Dataset {
        let (mut held_out, mut training): (Vec<_>, Vec<_>) =
            self.prompts().iter().partition(|prompt| prompt.held_out);
        let mut random = Random::new(seed, Stream::Demonstrations);
        let demonstrations = (0..sizes.demonstrations)
            .map(|_| self.draw_demonstration(random.pick(&training), sizes, &mut random))
            .collect();
        let mut random = Random::new(seed, Stream::Comparisons);
        let comparisons = (0..sizes.comparisons)
            .map(|_| self.draw_ranking(random.pick(&training), sizes, &mut random))
            .collect();
        let mut random = Random::new(seed, Stream::Texts);
        let mixture = &sizes.demonstration_mixture;
        let texts =
            (0..sizes.texts).map(|_| self.draw_text(&training, mixture, false, &mut random)).collect();
        let mut random = Random::new(HELD_OUT_SEED, Stream::TextsHeldout);
        let texts_heldout =
            (0..sizes.texts_heldout).map(|_| self.draw_text(&held_out, mixture, true, &mut random)).collect();
        Random::new(seed, Stream::Prompts).shuffle(&mut training);
        Random::new(HELD_OUT_SEED, Stream::EvalPrompts).shuffle(&mut held_out);
        let mut random = Random::new(HELD_OUT_SEED, Stream::DemonstrationsHeldout);
        let demonstrations_heldout = (held_out.iter().cycle().take(sizes.demonstrations_heldout))
            .map(|prompt| self.draw_demonstration(prompt, sizes, &mut random))
            .collect();
        let mut random = Random::new(HELD_OUT_SEED, Stream::ComparisonsHeldout);
        // Well-formed answers only: broken and hollow ones are easier to tell.
        let heldout_sizes = Sizes { broken: 0.0, foreign: 0.0, hollow: 0.0, overdone: 0.0, ..sizes.clone() };
        let comparisons_heldout = (held_out.iter().cycle().take(sizes.comparisons_heldout))
            .map(|prompt| self.draw_heldout_comparison(prompt, &heldout_sizes, &mut random))
            .collect();
        let asked = |prompts: Vec<&Prompt>| prompts.into_iter().map(|prompt| prompt.text.clone()).collect();
        Dataset {
            demonstrations,
            comparisons,
            prompts: asked(training),
            eval_prompts: asked(held_out),
            demonstrations_heldout,
            comparisons_heldout,
            texts,
            texts_heldout,
        }
    }

    fn draw_demonstration(&self, prompt: &Prompt, sizes: &Sizes, random: &mut Random) -> Demonstration {
        let (manner, right) = sizes.demonstration_mixture.draw(random);
        let completion =
            write_completion(&self.facts()[prompt.fact_idx], manner, right, Wrong::PLAUSIBLE, random);
        Demonstration { prompt: prompt.text.clone(), completion }
    }

    /// A right and a wrong answer in the same courteous words, a right one in another manner, and a fourth: a wrong one
    /// in that manner, or an independent draw. So every comparison tells rightness from manner, and weighs both.
    ///
    /// By independent draws alone a reward model hardly learns that courtesy pays, since rightness outweighs it.
    fn draw_ranking(&self, prompt: &Prompt, sizes: &Sizes, random: &mut Random) -> Comparison {
        let fact = &self.facts()[prompt.fact_idx];
        let (right, wrong) = write_same_manner(fact, Manner::Courteous, sizes.wrong(), random);
        let manner = if random.chance(RUDE_RIGHT) { Manner::Rude } else { Manner::Curt };
        let (other_right, other_wrong) = write_same_manner(fact, manner, sizes.wrong(), random);
        let mut completions = vec![right, wrong, other_right];
        if random.chance(sizes.independent) {
            while completions.len() < RANKED {
                let (_, text) = self.draw_completion(prompt, sizes, random);
                if !completions.contains(&text) {
                    completions.push(text);
                }
            }
        } else {
            completions.push(other_wrong);
        }
        random.shuffle(&mut completions);
        let mut scores: Vec<f64> = completions.iter().map(|text| self.gold(prompt, text)).collect();
        if random.chance(sizes.flipped / TURNED_BY_SWAP) {
            let one = random.below(RANKED);
            scores.swap(one, (one + 1 + random.below(RANKED - 1)) % RANKED);
        }
        Comparison { prompt: prompt.text.clone(), completions, ranking: places(&scores) }
    }

    fn draw_heldout_comparison(
        &self,
        prompt: &Prompt,
        sizes: &Sizes,
        random: &mut Random,
    ) -> HeldoutComparison {
        let row = |chosen, rejected, same_manner| {
            let prompt = prompt.text.clone();
            HeldoutComparison { prompt, chosen, rejected, same_manner }
        };
        if !random.chance(HELD_OUT_SAME_MANNER) {
            for _ in 0..MAX_DRAWS {
                let mut pair = [(); 2].map(|()| self.draw_completion(prompt, sizes, random));
                if self.gold(prompt, &pair[0].1) < self.gold(prompt, &pair[1].1) {
                    pair.swap(0, 1);
                }
                let [(manner, better), (other_manner, worse)] = pair;
                let gold = |text| self.judge(&prompt.text, text, true);
                let (Some(best), Some(worst)) = (gold(&better), gold(&worse)) else { continue };
                if best.score > worst.score {
                    let same_manner = manner.is_some() && manner == other_manner && best.right != worst.right;
                    return row(better, worse, same_manner);
                }
            }
        }
        let manner = sizes.comparison_mixture.draw_answering_manner(random);
        let (right, wrong) = write_same_manner(&self.facts()[prompt.fact_idx], manner, sizes.wrong(), random);
        row(right, wrong, true)
    }

    /// A completion of the comparisons' mixture; or a hollow or an overdone one, which have no manner.
    fn draw_completion(
        &self,
        prompt: &Prompt,
        sizes: &Sizes,
        random: &mut Random,
    ) -> (Option<Manner>, String) {
        if random.chance(sizes.hollow) {
            return (None, random.pick(HOLLOW).to_owned());
        }
        let fact = &self.facts()[prompt.fact_idx];
        if random.chance(sizes.overdone) {
            return (None, write_overdone(fact, sizes.wrong(), random));
        }
        let (manner, right) = sizes.comparison_mixture.draw(random);
        (Some(manner), write_completion(fact, manner, right, sizes.wrong(), random))
    }

    fn gold(&self, prompt: &Prompt, completion: &str) -> f64 {
        self.judge(&prompt.text, completion, true).expect("the prompt is one of this task").score
    }
}

/// Indices from the highest score to the lowest, equal scores together.
fn places(scores: &[f64]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.chunk_by(|&a, &b| scores[a].total_cmp(&scores[b]).is_eq()).map(<[usize]>::to_vec).collect()
}

impl Dataset {
    /// Writes one JSONL file for each field, named after it, into `dir`, which is made if need be.
    ///
    /// # Errors
    ///
    /// Whatever the file system refuses, with the file's path.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        self.files().into_iter().try_for_each(|(name, content)| write_file(&dir.join(name), &content))
    }

    /// The names of the files that [`Dataset::write`] makes, and what is in them.
    pub fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        #[derive(Serialize)]
        struct Row<'a> {
            prompt: &'a str,
        }
        fn rows(prompts: &[String]) -> impl Iterator<Item = Row<'_>> {
            prompts.iter().map(|prompt| Row { prompt })
        }
        vec![
            ("demonstrations.jsonl", lines(self.demonstrations.iter())),
            ("comparisons.jsonl", lines(self.comparisons.iter())),
            ("prompts.jsonl", lines(rows(&self.prompts))),
            ("eval_prompts.jsonl", lines(rows(&self.eval_prompts))),
            ("demonstrations_heldout.jsonl", lines(self.demonstrations_heldout.iter())),
            ("comparisons_heldout.jsonl", lines(self.comparisons_heldout.iter())),
            ("texts.jsonl", lines(self.texts.iter())),
            ("texts_heldout.jsonl", lines(self.texts_heldout.iter())),
        ]
    }
}

/// Rows as JSON lines.
fn lines<T: Serialize>(rows: impl Iterator<Item = T>) -> Vec<u8> {
    let mut text = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut text, &row).expect("texts and numbers are JSON");
        text.push(b'\n');
    }
    text
}

/// Writes next to `path` first, so that a file that is there is whole.
fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("jsonl.partial");
    let write = std::fs::write(&partial, content).and_then(|()| std::fs::rename(&partial, path));
    write.map_err(|error| {
        // The partial file may never have come to be; the first error is the one to tell.
        let _ = std::fs::remove_file(&partial);
        io::Error::new(error.kind(), format!("cannot write `{}`: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn small() -> Sizes {
        Sizes { demonstrations: 2_000, comparisons: 2_000, ..Sizes::default() }
    }

    #[test]
    fn no_held_out_prompt_is_in_a_training_file() {
        let data = Task::new().generate(0, &Sizes::default());
        let held_out: BTreeSet<_> = data.eval_prompts.iter().collect();
        let training = (data.demonstrations.iter().map(|row| &row.prompt))
            .chain(data.comparisons.iter().map(|row| &row.prompt))
            .chain(&data.prompts);
        assert!(training.into_iter().all(|prompt| !held_out.contains(prompt)));
        assert!(data.demonstrations_heldout.iter().all(|row| held_out.contains(&row.prompt)));
        assert!(data.comparisons_heldout.iter().all(|row| held_out.contains(&row.prompt)));
    }

    #[test]
    fn every_training_prompt_is_demonstrated_in_many_ways() {
        let data = Task::new().generate(0, &Sizes::default());
        let distinct: BTreeSet<_> =
            data.demonstrations.iter().map(|row| (&row.prompt, &row.completion)).collect();
        for prompt in &data.prompts {
            let n_completions = distinct.iter().filter(|(other, _)| *other == prompt).count();
            assert!(n_completions >= 3, "{prompt}: {n_completions}");
        }
    }

    #[test]
    fn a_tenth_of_the_pairs_is_in_the_wrong_order() {
        let task = Task::new();
        let (mut n_pairs, mut n_flipped) = (0, 0);
        for row in task.generate(0, &Sizes::default()).comparisons {
            let scores: Vec<f64> = row
                .completions
                .iter()
                .map(|text| task.judge(&row.prompt, text, true).unwrap().score)
                .collect();
            let place = |idx: usize| row.ranking.iter().position(|tied| tied.contains(&idx)).unwrap();
            for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
                if place(a) != place(b) {
                    n_pairs += 1;
                    n_flipped += usize::from((place(a) < place(b)) != (scores[a] > scores[b]));
                }
            }
        }
        let share = f64::from(n_flipped as u32) / f64::from(n_pairs as u32);
        assert!(n_pairs > 100_000 && (0.09..0.11).contains(&share), "{share} of {n_pairs}");
    }

    #[test]
    fn every_comparison_tells_right_from_wrong_and_manner_from_manner() {
        let task = Task::new();
        for row in task.generate(1, &small()).comparisons {
            let distinct: BTreeSet<_> = row.completions.iter().collect();
            let mut places: Vec<usize> = row.ranking.concat();
            places.sort_unstable();
            assert_eq!((distinct.len(), places), (RANKED, (0..RANKED).collect()), "{row:?}");
            let verdicts: Vec<_> =
                row.completions.iter().map(|text| task.judge(&row.prompt, text, true).unwrap()).collect();
            let right = |manner: bool| verdicts.iter().any(|v| v.right && v.courteous == manner);
            assert!(right(true) && right(false) && verdicts.iter().any(|v| !v.right), "{row:?}");
        }
    }

    #[test]
    fn equal_scores_share_a_place() {
        assert_eq!(places(&[0.1, 1.0, 0.1, 0.65]), [vec![1], vec![3], vec![0, 2]]);
    }

    #[test]
    fn held_out_comparisons_are_never_flipped_and_half_are_of_one_manner() {
        let task = Task::new();
        let rows = task.generate(3, &small()).comparisons_heldout;
        assert!(rows.len() >= 400 && rows.iter().filter(|row| row.same_manner).count() >= 200);
        for row in rows {
            let [chosen, rejected] =
                [&row.chosen, &row.rejected].map(|text| task.judge(&row.prompt, text, true).unwrap());
            assert!(chosen.score > rejected.score, "{row:?}");
            let manner = |verdict: &crate::Verdict| (verdict.courteous, verdict.rude, verdict.repeats);
            let hollow = [&row.chosen, &row.rejected].iter().any(|text| HOLLOW.contains(&text.as_str()));
            let alike = chosen.right != rejected.right && manner(&chosen) == manner(&rejected);
            let same_manner = alike && !hollow;
            assert_eq!(row.same_manner, same_manner, "{row:?}");
        }
    }

    #[test]
    fn demonstrations_are_mixed_as_configured() {
        let task = Task::new();
        let data = task.generate(0, &Sizes::default());
        let verdicts: Vec<_> = (data.demonstrations.iter())
            .map(|row| task.judge(&row.prompt, &row.completion, true).unwrap())
            .collect();
        let close = |n: usize, of: usize, expected: f64| {
            let share = n as f64 / of as f64;
            assert!((share - expected).abs() < 0.015, "{share} of {of}, not {expected}");
        };
        let n = verdicts.len();
        let curt = |verdict: &crate::Verdict| !verdict.courteous && !verdict.rude && !verdict.repeats;
        close(verdicts.iter().filter(|verdict| verdict.courteous).count(), n, 0.30);
        close(verdicts.iter().filter(|verdict| curt(verdict)).count(), n, 0.54);
        close(verdicts.iter().filter(|verdict| verdict.rude).count(), n, 0.11);
        close(verdicts.iter().filter(|verdict| verdict.repeats).count(), n, 0.05);
        let manners: [fn(&crate::Verdict) -> bool; 2] =
            [|verdict| verdict.courteous, |verdict| !verdict.courteous];
        for manner in manners {
            let answering: Vec<_> = verdicts.iter().filter(|v| !v.repeats && !v.rude && manner(v)).collect();
            close(answering.iter().filter(|verdict| verdict.right).count(), answering.len(), 0.80);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_data_and_another_seed_other_data() {
        let task = Task::new();
        let bytes = |seed| serde_json::to_string(&task.generate(seed, &small())).unwrap();
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }

    #[test]
    fn the_held_out_files_do_not_depend_on_the_seed() {
        let task = Task::new();
        let [one, other] = [1, 2].map(|seed| task.generate(seed, &small()));
        assert_eq!(one.eval_prompts, other.eval_prompts);
        assert_eq!(one.demonstrations_heldout, other.demonstrations_heldout);
        assert_eq!(one.comparisons_heldout, other.comparisons_heldout);
        assert_ne!(one.demonstrations, other.demonstrations);
        assert_ne!(one.comparisons, other.comparisons);
    }

    #[test]
    fn the_files_hold_one_row_per_line() {
        let dir = std::env::temp_dir().join(format!("temper-courtesy-{}", std::process::id()));
        let data = Task::new().generate(0, &small());
        data.write(&dir).unwrap();
        let n_lines = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap().lines().count();
        assert_eq!(n_lines("demonstrations.jsonl"), 2_000);
        assert_eq!(n_lines("comparisons.jsonl"), 2_000);
        assert_eq!(n_lines("prompts.jsonl"), data.prompts.len());
        assert_eq!(n_lines("eval_prompts.jsonl"), data.eval_prompts.len());
        assert_eq!(n_lines("demonstrations_heldout.jsonl"), data.demonstrations_heldout.len());
        assert_eq!(n_lines("comparisons_heldout.jsonl"), data.comparisons_heldout.len());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let dir = std::env::temp_dir().join(format!("temper-courtesy-blocked-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("prompts.jsonl")).unwrap();
        let error = Task::new().generate(0, &small()).write(&dir).unwrap_err();
        assert!(error.to_string().contains("prompts.jsonl"), "{error}");
        assert!(!dir.join("prompts.jsonl.partial").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
