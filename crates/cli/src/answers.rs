//! Answers of a policy, and a reward model's scores of them.

use std::path::PathBuf;

use anyhow::Result;
use temper_data::{Place, Prompt, read_rows};
use temper_model::{CausalLm, Finish, ModelConfig, ScalarModel};
use temper_tokenizer::{Error as TokenizerError, Example};

use crate::args::SamplingArgs;
use crate::commands::generate::{complete, options};
use crate::failure::hinted;
use crate::session::{Session, bad_rows};
use crate::text::TextSide;
use crate::warning;

/// Rows that are answered or scored together.
pub const BATCH_SIZE: usize = 64;

/// One answer to one prompt.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was said, without what the policy's template puts around a completion.
    pub completion: String,
    /// The prompt's ids, as the policy was given them.
    pub prompt_tokens: Vec<u32>,
    /// The answer's ids, with the end token where it ended.
    pub tokens: Vec<u32>,
    pub ended: bool,
}

/// Reads prompts.
pub fn prompts(session: &Session, paths: &[PathBuf], skip_bad_rows: bool) -> Result<Vec<String>> {
    Ok(PlacedPrompts::read(session, paths, skip_bad_rows)?.prompts)
}

/// Prompts and where they are written.
pub struct PlacedPrompts {
    pub prompts: Vec<String>,
    places: Vec<Place>,
    skip_bad_rows: bool,
}

impl PlacedPrompts {
    /// Reads data files.
    pub fn read(session: &Session, paths: &[PathBuf], skip_bad_rows: bool) -> Result<Self> {
        let rows = read_rows::<Prompt>(paths, bad_rows(skip_bad_rows))?;
        session.note_count(rows.n_skipped(), "rows could not be read and were skipped");
        let prompts = rows.records.into_iter().map(|row| row.prompt).collect();
        Ok(Self { prompts, places: rows.places, skip_bad_rows })
    }

    /// Refuses the first prompt that a model cannot answer, before it has answered any; or leaves such prompts out, and
    /// counts them, where bad rows are to be skipped.
    pub fn check(&mut self, session: &Session, text: &TextSide, context: usize) -> Result<()> {
        let mut rows = Vec::new();
        let mut n_skipped = 0;
        for (place, prompt) in self.places.drain(..).zip(self.prompts.drain(..)) {
            match fault(&text.template.encode_prompt(&text.tokenizer, &prompt), context) {
                None => rows.push((place, prompt)),
                Some(_) if self.skip_bad_rows => n_skipped += 1,
                Some((message, hint)) => {
                    return Err(hinted(format!("{place}: {message} ({})", text.dir.display()), hint));
                }
            }
        }
        session.note_count(n_skipped, "prompts leave no room for an answer and were skipped");
        if rows.is_empty() {
            return Err(hinted(
                format!("none of the {n_skipped} prompts leaves room for an answer in {context} tokens"),
                "shorten the prompts, or use a model with a longer context",
            ));
        }
        (self.places, self.prompts) = rows.into_iter().unzip();
        Ok(())
    }

    /// The most tokens that a prompt and an answer to it can have.
    pub fn longest(&self, text: &TextSide, context: usize, max_new_tokens: usize) -> usize {
        let len = |prompt: &String| text.template.encode_prompt(&text.tokenizer, prompt).len();
        let longest = self.prompts.iter().map(len).max().unwrap_or(0);
        longest.saturating_add(max_new_tokens).min(context)
    }
}

/// Why a model of this context cannot answer a prompt, and what to do about it.
pub fn fault(prompt: &[u32], context: usize) -> Option<(String, &'static str)> {
    if prompt.is_empty() {
        return Some((
            "the prompt is empty".into(),
            "this model's template adds nothing to a prompt: give it a text",
        ));
    }
    (prompt.len() >= context).then(|| {
        let n = prompt.len();
        (
            format!(
                "the prompt has {n} tokens, which leaves no room for an answer in a context of {context}"
            ),
            "shorten the prompt, or use a model with a longer context",
        )
    })
}

/// Samples one answer per prompt.
pub fn answer(
    model: &CausalLm,
    text: &TextSide,
    prompts: &[String],
    sampling: &SamplingArgs,
    seed: u64,
) -> Result<Vec<Answer>> {
    let rows: Vec<Vec<u32>> =
        prompts.iter().map(|prompt| text.template.encode_prompt(&text.tokenizer, prompt)).collect();
    let context = model.config().max_seq_len;
    let first_fault = rows.iter().enumerate().find_map(|(i, row)| Some((i, fault(row, context)?)));
    if let Some((i, (message, hint))) = first_fault {
        return Err(hinted(format!("prompt {}: {message} ({})", i + 1, text.dir.display()), hint));
    }
    let mut answers = Vec::with_capacity(rows.len());
    for (i, part) in rows.chunks(BATCH_SIZE).enumerate() {
        let options = options(sampling, seed.wrapping_add((i as u64) << 32))?;
        let completions = complete(model, text, part, &options)?;
        answers.extend(part.iter().zip(completions).map(|(prompt, completion)| Answer {
            completion: text.template.completion_of(&text.tokenizer.decode(&completion.tokens)).to_owned(),
            prompt_tokens: prompt.clone(),
            tokens: completion.tokens,
            ended: completion.finish == Finish::Stop,
        }));
    }
    Ok(answers)
}

/// Share of the answers that ended by themselves.
pub fn eos_rate(answers: &[Answer]) -> f64 {
    answers.iter().filter(|answer| answer.ended).count() as f64 / answers.len() as f64
}

/// A text to be scored.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    pub prompt: &'a str,
    /// As [`Answer::completion`].
    pub completion: &'a str,
    pub ended: bool,
}

/// Prompts with their answers.
pub fn said<'a>(prompts: &'a [String], answers: &'a [Answer]) -> Vec<Said<'a>> {
    let said = |(prompt, answer): (&'a String, &'a Answer)| Said {
        prompt,
        completion: &answer.completion,
        ended: answer.ended,
    };
    prompts.iter().zip(answers).map(said).collect()
}

/// Sampled ids as a reward model of the same texts learned them: an answer that has ended, by the end token or by a stop
/// token, gets the end token if the model's template has one, and loses it otherwise.
pub fn example_of_ids(prompt: &[u32], answer: &[u32], ended: bool, end: TextEnd) -> Example {
    let answer = if ended { answer.strip_suffix(&[end.eos]).unwrap_or(answer) } else { answer };
    let eos = (ended && end.template_ends).then_some(end.eos);
    let tokens = prompt.iter().chain(answer).copied().chain(eos).collect();
    Example { tokens, prompt_len: prompt.len(), n_cut: 0 }
}

/// How a reward model's texts end.
#[derive(Clone, Copy, Debug)]
pub struct TextEnd {
    /// The end token.
    pub eos: u32,
    /// Whether the template ends a completion with it.
    pub template_ends: bool,
}

/// A reward model's scores of texts, encoded as it learned them: by its own template and tokenizer.
///
/// What is too long is cut, with one warning: a run must not end after hours because of one answer. The left of the
/// prompt goes first. If that is not enough, so does the right of the answer, with its end.
pub fn score_texts(model: &ScalarModel, text: &TextSide, said: &[Said<'_>]) -> Result<Vec<f32>> {
    let context = model.config().max_seq_len;
    let (mut examples, mut n_cut) = (Vec::with_capacity(said.len()), 0);
    for said in said {
        let (example, is_cut) = encode_to_score(text, said, context)?;
        n_cut += usize::from(is_cut);
        examples.push(example);
    }
    if n_cut > 0 {
        let (dir, n) = (text.dir.display(), said.len());
        warning::once(&format!("cut for {dir}"), || {
            format!(
                "{n_cut} of {n} answers are too long, with their prompts, for the {context} tokens of {dir}, which \
                 scores them without the left of the prompt, and if that is not enough without the right of the answer"
            )
        });
    }
    Ok(temper_reward::score(model, &examples.iter().collect::<Vec<_>>(), BATCH_SIZE))
}

/// One text in at most `context` tokens, and whether it was cut to fit.
fn encode_to_score(text: &TextSide, said: &Said<'_>, context: usize) -> Result<(Example, bool)> {
    let (template, tokenizer) = (&text.template, &text.tokenizer);
    let mut completion = template.encode_answer(tokenizer, said.completion, said.ended);
    let mut prompt = template.encode_prompt(tokenizer, said.prompt);
    let is_cut = prompt.len() + completion.len() > context;
    if is_cut {
        let truncated = |room| template.encode_prompt_truncated(tokenizer, said.prompt, room);
        prompt = match truncated(context.saturating_sub(completion.len())) {
            Ok(prompt) => prompt,
            Err(TokenizerError::PromptTooLong { needed, .. }) if needed < context => {
                completion = template.encode_answer(tokenizer, said.completion, false);
                completion.truncate(context - needed);
                truncated(needed)?
            }
            Err(_) => {
                return Err(hinted(
                    format!("no answer fits into the {context} tokens of {}", text.dir.display()),
                    "its template alone needs as many: score with a model of a longer context",
                ));
            }
        };
    }
    let prompt_len = prompt.len();
    let tokens = [prompt, completion].concat();
    if tokens.is_empty() {
        return Err(hinted(
            format!("the tokenizer of {} has no token for a prompt and its answer", text.dir.display()),
            "a score is read at the last token",
        ));
    }
    Ok((Example { tokens, prompt_len, n_cut: 0 }, is_cut))
}

/// A reward model's scores of a policy's answers: of the ids where these mean the same to both, as in PPO, and of the
/// text otherwise.
///
/// # Errors
/// Ids that do not fit, see [`check_room`], and scores that are not numbers.
pub fn score_answers(
    model: &ScalarModel,
    text: &TextSide,
    policy: &TextSide,
    prompts: &[String],
    answers: &[Answer],
) -> Result<Vec<f64>> {
    let scores = if text.same_as(policy) {
        let example =
            |answer: &Answer| example_of_ids(&answer.prompt_tokens, &answer.tokens, answer.ended, text.end());
        let examples: Vec<Example> = answers.iter().map(example).collect();
        let longest = examples.iter().map(|example| example.tokens.len()).max().unwrap_or(0);
        check_room(model.config(), text, policy, longest)?;
        temper_reward::score(model, &examples.iter().collect::<Vec<_>>(), BATCH_SIZE)
    } else {
        score_texts(model, text, &said(prompts, answers))?
    };
    if let Some(i) = scores.iter().position(|score| !score.is_finite()) {
        return Err(not_a_number(text, &format!("scores the answer to prompt {} as {}", i + 1, scores[i])));
    }
    Ok(scores.into_iter().map(f64::from).collect())
}

/// An error about a model whose weights are numbers and whose output is not.
pub fn not_a_number(text: &TextSide, what: &str) -> anyhow::Error {
    hinted(
        format!("{} {what}", text.dir.display()),
        "the model has diverged: take an earlier checkpoint, or train it again with a lower `learning_rate`",
    )
}

/// Compares the context of a model that scores with the most tokens that an answer and its prompt can `need`: refuses
/// too short a one where ids are scored, which cannot be cut, and warns where text is.
pub fn check_room(scorer: &ModelConfig, text: &TextSide, policy: &TextSide, needed: usize) -> Result<()> {
    let (context, dir) = (scorer.max_seq_len, text.dir.display());
    if needed <= context {
        return Ok(());
    }
    if text.same_as(policy) {
        return Err(hinted(
            format!("a prompt and its answer may have {needed} tokens, the context of {dir} has {context}"),
            "let answers be shorter, or score them with a model of a longer context",
        ));
    }
    warning::once(&format!("room in {dir}"), || {
        format!(
            "a prompt and its answer may have {needed} tokens, the context of {dir} has {context}: \
             what is too long for it is cut before it is scored"
        )
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use temper_model::{Backbone, Pooling};
    use temper_tokenizer::{Template, Tokenizer};
    use temper_train::Seed;

    fn text(template: Template) -> TextSide {
        TextSide { dir: "rm".into(), tokenizer: Tokenizer::byte(), template, has_template: true }
    }

    fn reward_model(context: usize) -> ScalarModel {
        let config = ModelConfig { max_seq_len: context, ..ModelConfig::preset("gpt2-tiny").unwrap() };
        let backbone = Backbone::new(&config, &mut Seed(1).stream("init"), &Device::flex());
        ScalarModel::new(backbone, Pooling::Last, &mut Seed(2).stream("head"))
    }

    fn bytes(text: &str) -> Vec<u32> {
        Tokenizer::byte().encode(text)
    }

    #[test]
    fn what_is_too_long_to_score_loses_the_left_of_its_prompt_and_then_the_right_of_its_answer() {
        let text = text(Template::bare());
        let encode = |prompt: &str, completion: &str, context| {
            encode_to_score(&text, &Said { prompt, completion, ended: true }, context).unwrap()
        };
        let whole = [vec![1], bytes("abc"), vec![2], bytes("yes"), vec![3]].concat();
        let example = |tokens: Vec<u32>, prompt_len| Example { tokens, prompt_len, n_cut: 0 };
        assert_eq!(encode("abc", "yes", 9), (example(whole, 5), false));
        let left = [vec![1], bytes("c"), vec![2], bytes("yes"), vec![3]].concat();
        assert_eq!(encode("abc", "yes", 7), (example(left, 3), true));
        // A false end would be worse than a missing one.
        let right = [vec![1], bytes("c"), vec![2], bytes("yes")].concat();
        assert_eq!(encode("abc", "yes", 6), (example(right, 3), true));
        let said = Said { prompt: "abc", completion: "yes", ended: true };
        let error = encode_to_score(&text, &said, 3).unwrap_err().to_string();
        assert!(error.contains("no answer fits into the 3 tokens of rm"), "{error}");
    }

    /// Each broken byte becomes U+FFFD, three tokens of text: the ids fit, their text does not.
    #[test]
    fn an_answer_whose_ids_fit_is_scored_whatever_its_text_would_need() {
        let model = reward_model(16);
        let text = text(Template::bare());
        let broken: Vec<u32> = vec![0xff + 4; 12];
        let answer = Answer {
            completion: text.tokenizer.decode(&broken),
            prompt_tokens: vec![1, 70, 2],
            tokens: broken.clone(),
            ended: false,
        };
        assert!(answer.completion.len() > 16);
        let prompts = ["B".to_owned()];
        let found = score_answers(&model, &text, &text, &prompts, std::slice::from_ref(&answer)).unwrap();
        let example = Example { tokens: [vec![1, 70, 2], broken].concat(), prompt_len: 3, n_cut: 0 };
        assert_eq!(found, [f64::from(temper_reward::score(&model, &[&example], 1)[0])]);
        // As text it is cut, and gets a score all the same.
        let policy = TextSide { template: Template::notebook(), ..text.clone() };
        let cut = score_answers(&model, &text, &policy, &prompts, std::slice::from_ref(&answer)).unwrap();
        assert!(cut[0].is_finite() && cut != found);
    }

    #[test]
    fn a_context_that_answers_can_outgrow_is_refused_for_ids_and_cut_for_text() {
        let model = reward_model(16);
        let (text, other) = (text(Template::bare()), text(Template::notebook()));
        check_room(model.config(), &text, &text, 16).unwrap();
        let error = check_room(model.config(), &text, &text, 17).unwrap_err().to_string();
        assert!(error.contains("may have 17 tokens, the context of rm has 16"), "{error}");
        check_room(model.config(), &text, &other, 17).unwrap();
    }

    #[test]
    fn a_score_that_is_not_a_number_is_an_error_that_names_the_model() {
        let model = reward_model(16).rescaled(f64::NAN, 0.0);
        let text = text(Template::bare());
        let answer = Answer {
            completion: "y".into(),
            prompt_tokens: vec![1, 70, 2],
            tokens: vec![80, 3],
            ended: true,
        };
        let error = score_answers(&model, &text, &text, &["B".to_owned()], &[answer]).unwrap_err();
        assert!(error.to_string().contains("rm scores the answer to prompt 1 as NaN"), "{error}");
    }

    #[test]
    fn an_end_that_the_reward_model_never_learned_is_left_out_of_the_ids() {
        let tokens = |answer: &[u32], ended, template_ends| {
            example_of_ids(&[1, 2], answer, ended, TextEnd { eos: 3, template_ends }).tokens
        };
        assert_eq!(tokens(&[5, 3], true, true), [1, 2, 5, 3]);
        assert_eq!(tokens(&[5, 3], true, false), [1, 2, 5]);
        assert_eq!(tokens(&[5, 4], false, false), [1, 2, 5, 4], "it did not end, so the last token is text");
        assert_eq!(tokens(&[5, 4], false, true), [1, 2, 5, 4]);
        // Ended by the stop token 4.
        assert_eq!(tokens(&[5, 4], true, true), [1, 2, 5, 4, 3]);
        assert_eq!(tokens(&[5, 4], true, false), [1, 2, 5, 4]);
    }
}
