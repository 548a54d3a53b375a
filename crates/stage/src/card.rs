//! The model card: the `README.md` of a finished model, as model hubs show it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;
use temper_tokenizer::TextSide;
use temper_train::{Settings, changed_settings};

use crate::Error;

/// The name of the file.
pub(crate) const FILE: &str = "README.md";

/// The greatest card of another model that is read, in bytes.
const MOST_BYTES: usize = 1 << 20;

/// What a card says that is known when a run begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Card {
    stage: String,
    base: Base,
    data: Vec<Data>,
    settings: Vec<(String, String)>,
}

/// The model that a run started from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Base {
    /// What the user called it, without the directories above it.
    name: String,
    /// Whether that is a preset, whose weights are fresh.
    is_preset: bool,
    /// Its name on a hub, if it is known.
    hub_name: Option<String>,
    /// `license`, `license_name` and `license_link` of its own card.
    license: Vec<(&'static str, String)>,
}

/// Files that a model learned from or was measured on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Data {
    /// What they are for.
    pub(crate) purpose: &'static str,
    /// Their names, without their directories.
    pub(crate) files: Vec<String>,
    /// The rows that are used.
    pub(crate) n_rows: usize,
}

impl Data {
    pub(crate) fn new(purpose: &'static str, paths: &[PathBuf], n_rows: usize) -> Self {
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { purpose, files: paths.iter().map(name).collect(), n_rows }
    }
}

impl Card {
    pub(crate) fn new<T: Settings>(
        stage: &str,
        base: Base,
        data: Vec<Data>,
        config: &T,
    ) -> Result<Self, Error> {
        Ok(Self { stage: stage.to_owned(), base, data, settings: changed_settings(config)? })
    }

    /// Writes the card of the finished model in `dir`. The same model and metrics give the same bytes.
    pub(crate) fn write(
        &self,
        dir: &Path,
        metrics: &BTreeMap<String, f64>,
    ) -> Result<(), temper_train::Error> {
        let text = self.text(&Files::read(dir), metrics);
        temper_train::write_file(&dir.join(FILE), text.as_bytes())
    }

    fn text(&self, files: &Files, metrics: &BTreeMap<String, f64>) -> String {
        let mut text = self.front_matter(files);
        let title = if files.is_scalar() { "A reward model" } else { "A language model" };
        text += &format!("\n# {title}, trained by `temper {}`\n\n", self.stage);
        let name = self.base.hub_name.as_ref().unwrap_or(&self.base.name);
        let weights = if self.base.is_preset { "fresh weights of the preset " } else { "" };
        text += &format!("It started from {weights}`{name}`.\n");
        let stage = match self.stage.as_str() {
            "sft" => "It imitates demonstrations (supervised fine-tuning).",
            "reward" => "It gives an answer a score: the higher, the better people would like it.",
            "dpo" => "It learned from comparisons of answers by direct preference optimization.",
            "ppo" => {
                "It learned from the scores of its own answers by proximal policy optimization or a relative of it."
            }
            _ => "",
        };
        text += &format!(
            "{stage}\nIts licence depends on that of the base model, which is {}.\n",
            self.license()
        );
        text += &usage(files);
        if files.is_scalar() {
            text += &scores(files);
        }
        text += "\n## Data\n\n| files | rows | for |\n| --- | --- | --- |\n";
        for data in &self.data {
            text += &format!("| {} | {} | {} |\n", code(&data.files), data.n_rows, data.purpose);
        }
        text += "\n## Settings\n\n";
        if self.settings.is_empty() {
            text += &format!("Every setting has its default; `temper config {}` prints them.\n", self.stage);
        } else {
            text += &format!(
                "Settings that differ from their defaults; `temper config {}` prints all of them.\n\n",
                self.stage
            );
            text += "| setting | value |\n| --- | --- |\n";
            for (key, value) in &self.settings {
                text += &format!("| `{key}` | {} |\n", code(std::slice::from_ref(value)));
            }
        }
        if !metrics.is_empty() {
            text += "\n## Metrics\n\nThe last value of each metric of the run.\n\n| metric | value |\n| --- | --- |\n";
            for (name, value) in metrics {
                text += &format!("| `{name}` | {} |\n", number(*value));
            }
        }
        text
    }

    fn license(&self) -> String {
        match self.base.license.first() {
            Some((_, license)) => format!("`{license}`"),
            None => "unknown".to_owned(),
        }
    }

    fn front_matter(&self, files: &Files) -> String {
        let mut text = "---\n".to_owned();
        if let Some(hub) = &self.base.hub_name {
            text += &format!("base_model: {hub}\n");
        }
        for (key, value) in &self.base.license {
            text += &format!("{key}: {value}\n");
        }
        if self.base.license.is_empty() {
            text += "license: unknown\n";
        }
        if files.is_of_transformers() {
            let task = if files.is_scalar() { "text-classification" } else { "text-generation" };
            text += &format!("library_name: transformers\npipeline_tag: {task}\n");
        }
        text + &format!(
            "tags:\n- temper\n- {}\n---\n",
            if self.stage == "reward" { "reward-model" } else { self.stage.as_str() }
        )
    }
}

/// What the files of a finished model say.
struct Files {
    config: Value,
    /// `score_bias` of `temper.json`.
    score_bias: Option<f64>,
    /// The text of the padding token.
    padding: Option<String>,
    has_chat_template: bool,
}

impl Files {
    /// Whatever cannot be read is left out of the card: the run has just written these files itself.
    fn read(dir: &Path) -> Self {
        let json = |name: &str| -> Value {
            let bytes = fs::read(dir.join(name)).unwrap_or_default();
            serde_json::from_slice(&bytes).unwrap_or_default()
        };
        let config = json("config.json");
        let text = TextSide::load(dir).ok();
        let pad = config["pad_token_id"].as_u64().and_then(|id| u32::try_from(id).ok());
        Self {
            score_bias: json("temper.json")["score_bias"].as_f64(),
            padding: text.zip(pad).and_then(|(text, pad)| text.tokenizer.token(pad)),
            has_chat_template: dir.join("chat_template.jinja").exists()
                || !json("tokenizer_config.json")["chat_template"].is_null(),
            config,
        }
    }

    fn is_scalar(&self) -> bool {
        let class = self.config["architectures"][0].as_str();
        class.is_some_and(|class| class.ends_with("ForSequenceClassification"))
    }

    /// Whether transformers computes what Temper does.
    fn is_of_transformers(&self) -> bool {
        self.config["model_type"] != "temper" && self.config["temper_pooling"].is_null()
    }
}

/// How to use the model, in Temper and in transformers.
fn usage(files: &Files) -> String {
    let mut text = "\n## How to use it\n\n```sh\n".to_owned();
    text += if files.is_scalar() {
        "temper score --model path/to/this/directory --data answers.jsonl\n"
    } else {
        "temper generate --model path/to/this/directory --prompt 'What is the capital of Spain?'\n"
    };
    text += "```\n";
    if !files.is_of_transformers() {
        return text;
    }
    let class = if files.is_scalar() { "AutoModelForSequenceClassification" } else { "AutoModelForCausalLM" };
    text += &format!(
        "\n```python\nfrom transformers import {class}, AutoTokenizer\n\n\
         tokenizer = AutoTokenizer.from_pretrained(\"path/to/this/directory\")\n\
         model = {class}.from_pretrained(\"path/to/this/directory\")\n"
    );
    let question = "{\"role\": \"user\", \"content\": \"What is the capital of Spain?\"}";
    let (prompt, answer) = ("What is the capital of Spain?", "Madrid.");
    let answered = "{\"role\": \"assistant\", \"content\": \"Madrid.\"}";
    let encoded = match (files.has_chat_template, files.is_scalar()) {
        (true, true) => format!(
            "text = tokenizer.apply_chat_template([{question}, {answered}], tokenize=False)\n\
             inputs = tokenizer(text, add_special_tokens=False, return_tensors=\"pt\")\n"
        ),
        (true, false) => format!(
            "text = tokenizer.apply_chat_template([{question}], tokenize=False, add_generation_prompt=True)\n\
             inputs = tokenizer(text, add_special_tokens=False, return_tensors=\"pt\")\n"
        ),
        (false, true) => format!(
            "inputs = tokenizer(\"{prompt} {answer}\" + tokenizer.eos_token, add_special_tokens=False, return_tensors=\"pt\")\n"
        ),
        (false, false) => {
            format!("inputs = tokenizer(\"{prompt}\", add_special_tokens=False, return_tensors=\"pt\")\n")
        }
    };
    let call = if files.is_scalar() {
        "print(model(**inputs).logits[0, 0].item())\n"
    } else {
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))\n"
    };
    text + &encoded
        + call
        + "```\n\n`template.json` says how Temper puts a prompt and a completion together.\n"
}

/// What is special about the scores of a reward model.
fn scores(files: &Files) -> String {
    let mut text = "\n## Scores\n\n".to_owned();
    if !files.is_of_transformers() {
        let why = if files.config["temper_pooling"] == "mean" {
            "it reads the mean over the completion, and transformers reads the last token"
        } else {
            "transformers does not know this architecture"
        };
        return text + &format!("Only Temper computes them: {why}.\n");
    }
    match files.score_bias {
        Some(bias) if bias != 0.0 => {
            text += &format!(
                "A score of Temper is that of transformers plus {bias}, from `temper.json`: this family has no place for \
                 a bias.\nThe order of answers is the same.\n"
            );
        }
        _ => text += "Temper and transformers give the same scores.\n",
    }
    let pad = &files.config["pad_token_id"];
    if pad.is_null() {
        return text
            + "The tokenizer has no token that could serve as padding, so transformers scores one row at a time.\n";
    }
    let token = match &files.padding {
        Some(token) => format!("the token {}", code(std::slice::from_ref(token))),
        None => "an id without a token".to_owned(),
    };
    text + &format!(
        "The padding is {pad}, {token}. It is not an end token, because transformers reads the score at the last token \
         that is not padding.\n"
    )
}

impl Base {
    /// The base of a run that starts from a model directory, or from the preset of this name.
    pub(crate) fn of(model: &Path) -> Self {
        let last = |n: usize| {
            let names: Vec<_> =
                model.components().filter(|part| matches!(part, Component::Normal(_))).collect();
            names[names.len().saturating_sub(n)..].iter().collect::<PathBuf>().display().to_string()
        };
        // `final` alone says nothing.
        let is_of_a_run = ["final", "best"].contains(&last(1).as_str()) || last(1).starts_with("step-");
        let name = if is_of_a_run { last(2) } else { last(1) };
        let card = fs::read(model.join(FILE)).unwrap_or_default();
        let card = String::from_utf8_lossy(&card[..card.len().min(MOST_BYTES)]).into_owned();
        let fields = front_matter(&card);
        let field = |key: &str| fields.iter().find(|(other, _)| other == key).map(|(_, value)| value.clone());
        // The card of an earlier stage says what that started from.
        let inherited = || if card.contains("\n- temper\n") { field("base_model") } else { None };
        let license = ["license", "license_name", "license_link"];
        let license = license.into_iter().filter_map(|key| Some((key, field(key)?)));
        let license: Vec<_> = license.collect();
        let is_known = license.iter().any(|(key, value)| *key == "license" && value != "unknown");
        Self {
            name,
            is_preset: !model.is_dir(),
            hub_name: hub_name(model).or_else(inherited),
            license: if is_known { license } else { vec![] },
        }
    }
}

/// `ORG/NAME` of a directory in the cache of the hub: `models--ORG--NAME/snapshots/REVISION`.
fn hub_name(dir: &Path) -> Option<String> {
    let names = dir.components().rev().filter_map(|part| part.as_os_str().to_str());
    names.filter_map(|name| name.strip_prefix("models--")).find_map(plain).map(|name| name.replace("--", "/"))
}

/// Keys and values at the start of a card, between two lines of `---`. Of a list, the first value.
fn front_matter(card: &str) -> Vec<(String, String)> {
    let mut lines = card.lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Vec::new();
    }
    let mut fields: Vec<(String, String)> = Vec::new();
    let mut open_key = None;
    for line in lines.take_while(|line| line.trim_end() != "---") {
        if let (Some(key), Some(item)) = (&open_key, line.trim_start().strip_prefix("- ")) {
            fields.extend(plain(item).map(|value| (String::clone(key), value)));
            open_key = None;
        } else if let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with([' ', '-', '#']))
        {
            open_key = value.trim().is_empty().then(|| key.to_owned());
            fields.extend(plain(value).map(|value| (key.to_owned(), value)));
        }
    }
    fields
}

/// A value that needs no quotes in a card; other values are left out.
fn plain(value: &str) -> Option<String> {
    let value = value.trim().trim_matches(['"', '\'']);
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "._-/:~".contains(char);
    let fits = !value.is_empty() && value.len() <= 200 && value.chars().all(is_plain);
    fits.then(|| value.to_owned())
}

/// Texts as code in a cell of a table.
fn code(texts: &[String]) -> String {
    let text = |text: &String| {
        let text: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        format!("`{}`", text.replace('`', "'").replace('|', "\\|"))
    };
    texts.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// A number with five digits at most after the first.
fn number(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value}"),
        size if (1e-3..1e6).contains(&size) => format!("{value:.4}"),
        _ => format!("{value:.4e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use temper_tokenizer::{Template, Tokenizer};
    use temper_train::settings;

    settings! {
        /// Settings for these tests.
        pub struct TestConfig {
            /// One that is changed.
            pub rate: f64 = 0.5,
            /// One that is not.
            pub size: usize = 3,
        }
    }

    /// A directory of a finished model with these fields in its `config.json`, and its card.
    fn card(stage: &str, base: &Path, config: &Value, bias: Option<f64>) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        TextSide::new(Tokenizer::byte(), Template::bare()).save(dir.path()).unwrap();
        if let Some(bias) = bias {
            fs::write(dir.path().join("temper.json"), json!({"score_bias": bias}).to_string()).unwrap();
        }
        let data = Data::new("training data", &[PathBuf::from("somewhere/rows|1.jsonl")], 12);
        let card = Card::new(stage, Base::of(base), vec![data], &TestConfig { rate: 0.25, size: 3 }).unwrap();
        let metrics = BTreeMap::from([("eval_loss".to_owned(), 1.234_567), ("epoch".to_owned(), 3.0)]);
        card.write(dir.path(), &metrics).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        (dir, text)
    }

    fn language_model() -> Value {
        json!({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]})
    }

    fn reward_model(more: &Value) -> Value {
        let mut json = json!({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"],
                              "pad_token_id": 0});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json
    }

    #[test]
    fn a_card_says_base_data_settings_metrics_and_use() {
        let (_dir, text) = card("sft", Path::new("small"), &language_model(), None);
        assert!(text.starts_with("---\nlicense: unknown\nlibrary_name: transformers\n"), "{text}");
        for part in [
            "- temper\n- sft\n---\n",
            "It started from fresh weights of the preset `small`.",
            "| `rows\\|1.jsonl` | 12 | training data |",
            "| `rate` | `0.25` |",
            "| `epoch` | 3 |\n| `eval_loss` | 1.2346 |",
            "temper generate --model",
            "AutoModelForCausalLM",
            "tokenizer.apply_chat_template",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            !text.contains("`size`") && !text.contains("somewhere") && !text.contains("base_model"),
            "{text}"
        );
    }

    #[test]
    fn a_later_stage_passes_on_the_base_model_and_its_licence() {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().join("models--org--base-1.5B/snapshots/abc");
        fs::create_dir_all(&base).unwrap();
        let front = "---\nlanguage:\n- en\nlicense: other\nlicense_name: \"own-1.0\"\nlicense_link: bad link\n---\n# Base\n";
        fs::write(base.join(FILE), front).unwrap();
        let (first, text) = card("sft", &base, &language_model(), None);
        let expected = "---\nbase_model: org/base-1.5B\nlicense: other\nlicense_name: own-1.0\nlibrary_name";
        assert!(text.starts_with(expected), "{text}");
        let (_dir, text) = card("dpo", first.path(), &language_model(), None);
        assert!(text.starts_with(expected) && text.contains("It started from `org/base-1.5B`."), "{text}");
        // Somebody else's card names what that model started from, which is not what ours did.
        fs::write(first.path().join(FILE), "---\nbase_model: other/model\nlicense: mit\n---\n").unwrap();
        let (_dir, text) = card("dpo", first.path(), &language_model(), None);
        assert!(text.starts_with("---\nlicense: mit\n"), "{text}");
    }

    #[test]
    fn a_directory_of_a_run_is_named_with_its_run() {
        for (path, name) in [
            ("a/sft/final", "sft/final"),
            ("/x/model", "model"),
            ("r/checkpoints/step-000004", "checkpoints/step-000004"),
        ] {
            assert_eq!(Base::of(Path::new(path)).name, name);
        }
    }

    #[test]
    fn a_reward_model_says_what_its_scores_are_in_transformers() {
        let of = |more: &Value, bias| card("reward", Path::new("sft/final"), &reward_model(more), bias).1;
        let text = of(&json!({}), Some(0.0));
        assert!(
            text.contains("give the same scores") && text.contains("The padding is 0, the token `[PAD]`"),
            "{text}"
        );
        assert!(
            text.contains("AutoModelForSequenceClassification") && text.contains("- reward-model\n"),
            "{text}"
        );
        let text = of(&json!({"pad_token_id": 300}), Some(-1.5));
        assert!(
            text.contains("that of transformers plus -1.5") && text.contains("an id without a token"),
            "{text}"
        );
        let text = of(&json!({"pad_token_id": null}), Some(0.0));
        assert!(text.contains("one row at a time"), "{text}");
        let text = of(&json!({"temper_pooling": "mean"}), None);
        assert!(text.contains("Only Temper computes them: it reads the mean"), "{text}");
        assert!(!text.contains("AutoModel") && !text.contains("library_name"), "{text}");
    }

    #[test]
    fn numbers_are_short() {
        let shown = [3.0, 0.5, 1234.56789, 1e-9, -2e-5, 0.0].map(number);
        assert_eq!(shown, ["3", "0.5000", "1234.5679", "1.0000e-9", "-2.0000e-5", "0"]);
    }
}
