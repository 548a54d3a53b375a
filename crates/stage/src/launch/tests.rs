use std::sync::{Arc, Mutex};

use temper_data::Prompts;
use temper_tokenizer::{Template, Tokenizer};
use temper_train::settings;

use super::*;

settings! {
    /// Settings for these tests.
    pub struct TestConfig {
        /// Only the next setting reads it.
        pub rate: f64 = 0.5,
    }
}

/// What a launch tells its observer.
fn told() -> (Arc<Mutex<Vec<String>>>, impl FnMut(Event<'_>) + Send + 'static) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let observer = move |event: Event<'_>| {
        let line = match event {
            Event::Note { message } => message.to_owned(),
            Event::Opened { stage, checkpoint, .. } => format!("opened {stage}, {checkpoint:?}"),
            other => format!("{other:?}"),
        };
        tell.lock().unwrap().push(line);
    };
    (told, observer)
}

#[test]
fn a_launch_tells_of_rows_left_out_and_of_the_run_that_it_opens() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prompts.jsonl");
    std::fs::write(&file, "{\"prompt\": \"Say hi\"}\nnot JSON\n").unwrap();
    let (told, observer) = told();
    let out = dir.path().join("run");
    let launch = Launch::new(&Device::flex(), &out);
    let mut launch = launch.observer(observer).skip_bad_rows(true).resume(true);
    let text = TextSide::new(Tokenizer::byte(), Template::notebook());
    let encoding = Encoding::new(&text, 64);
    let prompts: Prompts = launch.dataset(&[file], TRAINING, &encoding).unwrap();
    assert!(launch.dataset_if_given::<Prompts>(&[], EVALUATION, &encoding).unwrap().is_none());
    let given = [("--prompts", Some(prompts.fingerprint())), ("--eval-data", None)];
    launch.open("ppo", &TestConfig::default(), &TrainingConfig::default(), given).unwrap();
    let told = told.lock().unwrap();
    assert!(told[0].contains("prompts.jsonl") && told[0].contains('1'), "{told:?}");
    // The notebook's template puts a start, `Instruct:`, the six bytes of the prompt and a separator.
    assert!(told[1].starts_with("training data: 1 row of ") && told[1].ends_with(", 17 tokens"), "{told:?}");
    assert!(told[2].ends_with("holds no run yet, this one starts it"), "{told:?}");
    assert_eq!(told[3..], ["opened ppo, None"]);
    let inputs = std::fs::read_to_string(out.join("inputs.json")).unwrap();
    assert!(inputs.contains("--prompts") && inputs.contains("\"flex\""), "{inputs}");
    assert!(!inputs.contains("--eval-data"), "{inputs}");
}

#[test]
fn a_file_that_is_read_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let settings = dir.path().join("config.toml");
    std::fs::write(&settings, "rate = 1").unwrap();
    let launch = || Launch::new(&Device::flex(), dir.path());
    let open = |launch: Launch| launch.open("sft", &TestConfig::default(), &TrainingConfig::default(), []);
    let error = open(launch().files_read(std::slice::from_ref(&settings))).err().unwrap().to_string();
    assert!(error.contains("would overwrite") && error.contains("config.toml"), "{error}");
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), "rate = 1");
}

#[test]
fn a_run_does_not_begin_before_all_its_settings_have_values() {
    let dir = tempfile::tempdir().unwrap();
    let auto = ["rate".to_owned()].into_iter().collect();
    let launch = Launch::new(&Device::flex(), dir.path().join("run")).auto(auto);
    let open = || launch.open("sft", &TestConfig::default(), &TrainingConfig::default(), []).map(drop);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(open)).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "sft has chosen no value for [\"rate\"]");
}

#[test]
fn only_settings_that_were_asked_for_are_noted() {
    let noted = |keys: &[&str]| {
        let (told, observer) = told();
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let launch = Launch::new(&Device::flex(), "unused").observer(observer);
        let idle = [("rate", "nothing reads it")];
        let mut launch = launch.settings_asked_for(keys);
        launch.note_settings_without_effect(&TestConfig::default(), &idle).unwrap();
        let told = told.lock().unwrap();
        told.clone()
    };
    assert_eq!(noted(&[]), [""; 0]);
    assert_eq!(noted(&["rate"]), ["`rate` has no effect: nothing reads it"]);
}

#[test]
fn a_resumed_run_takes_over_the_date_of_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    let saved = TextSide::new(Tokenizer::byte(), Template::bare());
    saved.save(&model).unwrap();
    std::fs::remove_file(model.join("template.json")).unwrap();
    // Any change makes it a tokenizer of others, whose chat template counts.
    let path = model.join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    json["model"]["vocab"]["a"] = 102.into();
    json["model"]["vocab"]["b"] = 101.into();
    std::fs::write(&path, json.to_string()).unwrap();
    let out = dir.path().join("run");
    std::fs::create_dir_all(&out).unwrap();
    let inputs = Inputs { date: Some("2001-02-03".into()), ..Inputs::default() };
    std::fs::write(out.join("inputs.json"), serde_json::to_string(&inputs).unwrap()).unwrap();
    let date = |is_resumed| {
        let mut text = TextSide::load(&model).unwrap();
        let mut launch = Launch::new(&Device::flex(), &out).resume(is_resumed);
        launch.freeze_date(&mut text).unwrap();
        text.date().expect("the directory has a chat template")
    };
    assert_eq!(date(true).to_string(), "2001-02-03");
    assert_eq!(date(false), Date::today());
}
