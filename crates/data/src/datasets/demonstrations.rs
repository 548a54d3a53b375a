//! Demonstrations as token rows: what SFT trains on.

use temper_tokenizer::{Example, LearnedTurns, Message, Prompt, Tokenizer, encode_text, pack_texts};

use super::asked::{MOST_ASKED, ask, start_of};
use super::fingerprint::fingerprint_rows;
use super::{Dataset, EncodedPrompt, Encoding};
use crate::{Demonstration, Error, RowReport, Rows, SftRow};

/// Characters of a plain text that are certain to have the tokens which a sample continues.
const BEGINNING: usize = 512;

/// Encoded demonstrations, and plain text among them.
#[derive(Clone, Debug)]
pub struct Demonstrations {
    /// The examples that fit.
    pub examples: Vec<Example>,
    /// The first distinct prompts, at most [`MOST_ASKED`](crate::MOST_ASKED): what a run lets its model answer, to show
    /// what it says.
    pub asked: Vec<EncodedPrompt>,
    /// Which of the given rows were left out or lost a part of their prompt.
    pub report: RowReport,
    /// Whether the examples are plain texts, one after the other, in full rows.
    is_packed: bool,
}

impl Demonstrations {
    /// Encodes demonstrations as the template puts them together.
    ///
    /// A demonstration that is too long is dropped, or loses the left of its prompt, and is counted; its answer is
    /// never cut, so it never teaches a false end (D9).
    ///
    /// # Errors
    /// [`Error::NothingFits`] or [`Error::NothingToLearn`]; the tokenizer may lack a special token of the template.
    pub fn new(demonstrations: &[Demonstration], encoding: &Encoding<'_>) -> Result<Self, Error> {
        let rows: Vec<SftRow> = demonstrations.iter().cloned().map(SftRow::Demonstration).collect();
        Self::of_rows(&rows, encoding)
    }

    /// Encodes rows for SFT: demonstrations and conversations, and plain text mixed in among them, as InstructGPT does for
    /// the policies that PPO starts from (appendix C.4: 10 % pretraining data). A plain text that is too long continues in
    /// further rows.
    ///
    /// Plain text alone is pretraining: the texts are packed into full rows ([`pack_texts`]), if the encoding says so.
    ///
    /// # Errors
    /// Those of [`Demonstrations::new`].
    pub fn of_rows(rows: &[SftRow], encoding: &Encoding<'_>) -> Result<Self, Error> {
        let Encoding { text, max_len, overflow, learned, pack } = *encoding;
        text.template.check(&text.tokenizer)?;
        let n_rows = rows.len();
        let texts: Option<Vec<&str>> = rows.iter().map(SftRow::plain_text).collect();
        if let Some(texts) = texts.filter(|texts| pack && !texts.is_empty()) {
            return Self::packed(&text.tokenizer, &texts, max_len);
        }
        let mut examples = Vec::with_capacity(n_rows);
        let mut asked = Vec::new();
        let mut report = RowReport::default();
        for (idx, row) in rows.iter().enumerate() {
            let encoded = match row {
                SftRow::Demonstration(row) | SftRow::Chosen(row) => {
                    text.encode_example(&row.prompt, &row.completion, max_len, overflow)
                }
                SftRow::Conversation(row) => {
                    text.encode_conversation(&row.messages, learned, max_len, overflow)
                }
                SftRow::PlainText(_) => Ok(None),
            };
            let Some(encoded) = report.accepted(idx, encoded) else { continue };
            let is_too_long = encoded.is_none() && !matches!(row, SftRow::PlainText(_));
            let mut encoded: Vec<Example> = match row {
                SftRow::PlainText(plain) => encode_text(&text.tokenizer, &plain.text, max_len),
                _ => encoded.into_iter().collect(),
            };
            // A tokenizer may have no id for a text, and the mean over no token is not a number.
            encoded.retain(|example| example.n_targets() > 0);
            if is_too_long {
                report.too_long.push(idx);
            } else if encoded.is_empty() {
                report.without_tokens.push(idx);
            } else if encoded.iter().any(|example| example.n_cut > 0) {
                report.truncated.push(idx);
            }
            if let Some(example) = encoded.first() {
                match row {
                    SftRow::Demonstration(row) | SftRow::Chosen(row) => {
                        ask(&mut asked, example.prompt(), || row.prompt.clone());
                    }
                    SftRow::Conversation(row) => {
                        ask(&mut asked, example.prompt(), || before_answer(&row.messages, learned));
                    }
                    SftRow::PlainText(_) => {
                        let start = start_of(&example.tokens);
                        ask(&mut asked, start, || text.tokenizer.decode(start).into());
                    }
                }
            }
            examples.extend(encoded);
        }
        if examples.is_empty() {
            report.refuses_all()?;
        }
        if examples.is_empty() && report.too_long.is_empty() {
            return Err(Error::NothingToLearn { what: "examples", rows: n_rows });
        }
        if examples.is_empty() {
            return Err(Error::NothingFits { what: "examples", rows: n_rows, max_seq_len: max_len });
        }
        Ok(Self { examples, asked, report, is_packed: false })
    }

    fn packed(tokenizer: &Tokenizer, texts: &[&str], max_len: usize) -> Result<Self, Error> {
        let (mut examples, without_tokens) = pack_texts(tokenizer, texts.iter().copied(), max_len);
        // A last row of one token has nothing to learn.
        examples.retain(|example| example.n_targets() > 0);
        if examples.is_empty() {
            return Err(Error::NothingToLearn { what: "texts", rows: texts.len() });
        }
        let mut asked = Vec::new();
        for text in texts.iter().take(MOST_ASKED) {
            // Only the start is asked, and a text may be a whole book.
            let beginning: String = text.chars().take(BEGINNING).collect();
            let mut tokens: Vec<u32> = tokenizer.special().bos.into_iter().collect();
            tokens.extend(tokenizer.encode(&beginning));
            let start = start_of(&tokens);
            ask(&mut asked, start, || tokenizer.decode(start).into());
        }
        let report = RowReport { without_tokens, ..RowReport::default() };
        Ok(Self { examples, asked, report, is_packed: true })
    }

    /// Makes a dataset of examples that are already encoded. It leaves none out, and asks nothing.
    pub fn of(examples: Vec<Example>) -> Self {
        Self { report: RowReport::default(), asked: Vec::new(), examples, is_packed: false }
    }

    /// What a resumed run compares: that these are the same examples.
    pub fn fingerprint(&self) -> String {
        let between = |e: &Example| -> Vec<u32> {
            e.between.iter().flat_map(|range| [range.start as u32, range.end as u32]).collect()
        };
        let between: Vec<Vec<u32>> = self.examples.iter().map(between).collect();
        let mut parts: Vec<&[u32]> =
            self.examples.iter().flat_map(|e| [e.prompt(), e.completion()]).collect();
        parts.extend(between.iter().filter(|ranges| !ranges.is_empty()).map(Vec::as_slice));
        fingerprint_rows(self.len(), parts)
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there is none; never true for a dataset that [`Demonstrations::new`] made.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Bytes of the text that is learned. A special token, such as the end, counts as one. So losses of models with different
    /// tokenizers can be compared, and that of a byte model is its loss per token.
    pub fn n_bytes(&self, tokenizer: &Tokenizer) -> usize {
        let of_example = |example: &Example| {
            let mask = example.completion_mask();
            let learned = example.tokens.iter().zip(&mask).skip(1).filter(|(_, learned)| **learned);
            let learned: Vec<u32> = learned.map(|(id, _)| *id).collect();
            let n_special = learned.iter().filter(|id| tokenizer.decode(&[**id]).is_empty()).count();
            tokenizer.decode(&learned).len() + n_special
        };
        self.examples.iter().map(of_example).sum()
    }

    /// How long nearly all answers are, in tokens: 98 % of them, rounded up to a multiple of 8. `None` if all is plain text.
    pub fn longest_answers(&self) -> Option<usize> {
        let answer = |example: &Example| {
            let start = example.between.last().map_or(example.prompt_len, |range| range.end);
            (example.prompt_len > 1).then(|| example.tokens.len() - start)
        };
        let mut lengths: Vec<usize> = self.examples.iter().filter_map(answer).collect();
        lengths.sort_unstable();
        let place = (lengths.len() * 98).div_ceil(100).checked_sub(1)?;
        Some(lengths[place].next_multiple_of(8))
    }

    /// Tokens of each example, for length-bucketed batches.
    pub fn lengths(&self) -> Vec<usize> {
        self.examples.iter().map(|example| example.tokens.len()).collect()
    }
}

/// The messages before the first answer that is learned.
fn before_answer(messages: &[Message], learned: LearnedTurns) -> Prompt {
    let answer = match learned {
        LearnedTurns::All => messages.iter().position(Message::is_of_assistant),
        LearnedTurns::Last => messages.iter().rposition(Message::is_of_assistant),
    };
    messages[..answer.unwrap_or(messages.len())].to_vec().into()
}

impl Dataset for Demonstrations {
    type Record = SftRow;

    fn encode(records: &[SftRow], encoding: &Encoding<'_>) -> Result<Self, Error> {
        Self::of_rows(records, encoding)
    }

    fn report(&self) -> &RowReport {
        &self.report
    }

    fn n_rows(&self) -> usize {
        self.examples.len()
    }

    fn n_tokens(&self) -> usize {
        self.lengths().iter().sum()
    }

    fn notes(&self, rows: &Rows<SftRow>, max_len: usize) -> Vec<String> {
        let is_chosen = |(idx, row): (usize, &SftRow)| matches!(row, SftRow::Chosen(_)).then_some(idx);
        let chosen: Vec<usize> = rows.records.iter().enumerate().filter_map(is_chosen).collect();
        let mut notes = rows.notes(&chosen, |rows| {
            format!("{rows} are comparisons: their chosen side is taken as a demonstration")
        });
        notes.extend(self.report.notes(rows, &format!("{max_len} tokens"), "what would be learned"));
        if self.is_packed {
            let (n_texts, n_rows) =
                (rows.records.len() - self.report.without_tokens.len(), self.examples.len());
            let texts = if n_texts == 1 { "1 plain text is" } else { &format!("{n_texts} plain texts are") };
            let rows = if n_rows == 1 { "row" } else { "rows" };
            notes.push(format!("{texts} packed into {n_rows} {rows} of up to {max_len} tokens"));
        }
        notes
    }

    fn fingerprint(&self) -> String {
        self.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BadRows, Rows};
    use std::path::Path;
    use temper_tokenizer::{Template, TextSide, Tokenizer};

    #[test]
    fn the_first_prompts_are_asked_each_once_and_a_text_by_its_start() {
        let lines = [
            r#"{"prompt": "p", "completion": "c"}"#,
            r#"{"prompt": "p", "completion": "another"}"#,
            r#"{"text": "twelve chars"}"#,
            r#"{"prompt": "q", "chosen": "a", "rejected": "b"}"#,
        ];
        let lines = lines.join("\n");
        let rows = Rows::from_reader(Path::new("a.jsonl"), lines.as_bytes(), BadRows::Refuse).unwrap();
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        let data = Demonstrations::encode(&rows.records, &Encoding::new(&text, 32)).unwrap();
        let asked: Vec<String> = data.asked.iter().map(|asked| asked.prompt.to_string()).collect();
        // Start token, twelve bytes, end token: the first seven of fourteen are the start and six bytes.
        assert_eq!(asked, ["p", "twelve", "q"]);
        assert_eq!(data.asked[0].tokens, data.examples[0].prompt());
    }

    /// "né" has three bytes, and the end counts as a fourth; the prompt is not learned.
    #[test]
    fn the_bytes_of_what_is_learned_are_counted() {
        let text = TextSide::new(Tokenizer::byte(), Template::notebook());
        let row = Demonstration { prompt: "many bytes".into(), completion: "né".into() };
        let data = Demonstrations::new(&[row], &Encoding::new(&text, 64)).unwrap();
        assert_eq!((data.n_bytes(&text.tokenizer), data.examples[0].n_targets()), (4, 4));
    }

    #[test]
    fn a_conversation_is_asked_up_to_the_first_answer_that_is_learned() {
        let said = |role: &str| Message::new(role, "");
        let messages = ["user", "assistant", "user", "assistant"].map(said);
        let n_messages = |learned| match before_answer(&messages, learned) {
            Prompt::Messages(messages) => messages.len(),
            Prompt::Text(_) => 0,
        };
        assert_eq!([LearnedTurns::All, LearnedTurns::Last].map(n_messages), [1, 3]);
    }

    #[test]
    fn the_notes_say_which_rows_were_taken_in_another_way_or_left_out() {
        let lines = [
            r#"{"prompt": "p", "completion": "c"}"#.to_owned(),
            r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#.into(),
            format!(r#"{{"prompt": "p", "completion": "{}"}}"#, "c".repeat(40)),
            "{}".into(),
        ];
        let lines = lines.join("\n");
        let rows = Rows::from_reader(Path::new("a.jsonl"), lines.as_bytes(), BadRows::Skip).unwrap();
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        let data = Demonstrations::encode(&rows.records, &Encoding::new(&text, 32)).unwrap();
        assert_eq!(
            data.notes(&rows, 32),
            [
                "1 of 3 rows of a.jsonl are comparisons: their chosen side is taken as a demonstration (first: line 2)",
                "left out 1 of 3 rows of a.jsonl: they do not fit into 32 tokens (first: line 3)",
            ]
        );
    }

    #[test]
    fn plain_text_is_packed_only_where_it_is_alone_and_to_be_packed() {
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        let encode = |lines: &str, pack| {
            let rows = Rows::from_reader(Path::new("a.jsonl"), lines.as_bytes(), BadRows::Refuse).unwrap();
            let encoding = Encoding { pack, ..Encoding::new(&text, 8) };
            let data = Demonstrations::encode(&rows.records, &encoding).unwrap();
            (data.lengths(), data.notes(&rows, 8))
        };
        let texts = "{\"text\": \"abc\"}\n{\"text\": \"defg\"}\n";
        // Five and six tokens, with a start and an end each.
        let note = "2 plain texts are packed into 2 rows of up to 8 tokens".to_owned();
        assert_eq!(encode(texts, true), (vec![8, 3], vec![note]));
        assert_eq!(encode(texts, false), (vec![5, 6], vec![]));
        let mixed = format!("{texts}{{\"prompt\": \"p\", \"completion\": \"c\"}}");
        assert_eq!(encode(&mixed, true), (vec![5, 6, 5], vec![]));
    }
}
