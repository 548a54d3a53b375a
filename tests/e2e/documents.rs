//! What the documents show is what the command reads.

use serde_json::Value;

use crate::util::Temper;

const TEMPLATES: &str = include_str!("../../docs/templates.md");

/// The first block of this language in a document.
fn block<'a>(document: &'a str, language: &str) -> &'a str {
    let rest = document.split_once(&format!("```{language}\n")).expect("there is such a block").1;
    rest.split_once("```").expect("the block ends").0
}

#[test]
fn the_template_of_the_document_is_trained_with_and_stored() {
    let temper = Temper::with_sft();
    let written = block(TEMPLATES, "json");
    temper.write("sft/final/template.json", written);
    temper.run("sft --data demonstrations.jsonl --model sft/final --out qa --set max_steps=1").ok();
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(parse(&temper.read("qa/final/template.json")), parse(written));
    // A setting does not replace what the directory brings.
    let train = "sft --data demonstrations.jsonl --model qa/final --out again --set max_steps=1";
    let said = temper.run(&format!("{train} --set template=bare")).ok();
    assert!(said.stderr.contains("note: `template` has no effect: the model directory brings"), "{said:?}");
    assert_eq!(parse(&temper.read("again/final/template.json"))["name"], "qa");
}

#[test]
fn the_built_in_templates_of_the_document_are_those_that_there_are() {
    let temper = Temper::new();
    let rows = TEMPLATES.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let names: Vec<&str> = rows.collect();
    assert_eq!(names, ["notebook", "bare", "plain", "plain_eos"]);
    for name in names {
        let out = format!("out-{name}");
        let train = "sft --data demonstrations.jsonl --model tiny --set max_steps=1";
        temper.run(&format!("{train} --out {out} --set template={name}")).ok();
        assert!(
            temper.read(&format!("{out}/final/template.json")).contains(&format!("\"name\": \"{name}\""))
        );
    }
    let said = temper.run("config sft").ok();
    assert!(said.stdout.contains("docs/templates.md"), "{said:?}");
}
