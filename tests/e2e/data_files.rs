//! Data files: what is said of rows that are left out, of files that are not read, and of columns with a meaning.

use std::process::Command;

use crate::util::{Temper, keys};

const SFT: &str = "sft --model gpt2-tiny --out out --set max_steps=1 --data";

/// `{"prompt": …, "completion": …}` with texts of the given lengths.
fn demonstration(prompt: usize, completion: usize) -> String {
    format!("{{\"prompt\": \"{}\", \"completion\": \"{}\"}}\n", "p".repeat(prompt), "c".repeat(completion))
}

#[test]
fn a_file_without_any_of_the_named_columns_is_warned_about() {
    let temper = Temper::new();
    let sft = "sft --data demonstrations.jsonl --model gpt2-tiny --set max_steps=1 --columns";
    let said = temper.run(&format!("{sft} prompt=questoin,completion=repyl --out wrong")).ok();
    assert!(
        said.stderr.contains("demonstrations.jsonl: no row has a column that `--columns` names"),
        "{said:?}"
    );
    let said = temper.run(&format!("{sft} prompt=prompt,completion=completion --out right")).ok();
    assert!(!said.stderr.contains("no row has a column"), "{said:?}");
}

#[test]
fn rows_that_are_left_out_are_counted_by_file_purpose_and_cause() {
    let temper = Temper::with_sft();
    temper.write("a.jsonl", [demonstration(2, 2), demonstration(200, 2), "{\n".into()].concat());
    temper.write("b.jsonl", [demonstration(2, 200), demonstration(2, 2)].concat());
    let said = temper
        .run(&format!("{SFT} a.jsonl b.jsonl --eval-data b.jsonl --skip-bad-rows --set overflow=drop"))
        .ok();
    let limit = "they do not fit into 128 tokens";
    for line in [
        "note: left out 1 of 3 rows of a.jsonl (training data): they cannot be read (first: a.jsonl:3: broken JSON",
        &format!("note: left out 1 of 2 rows of a.jsonl (training data): {limit} (first: line 2)"),
        &format!("note: left out 1 of 2 rows of b.jsonl (training data): {limit} (first: line 1)"),
        &format!("note: left out 1 of 2 rows of b.jsonl (evaluation data): {limit} (first: line 1)"),
    ] {
        assert!(said.stderr.contains(line), "`{line}` is not in {said:?}");
    }
    // Left to Temper, rows are cut where many would be lost, and a resumed run does the same.
    let line = "note: cut the prompt on the left in 1 of 2 rows of a.jsonl (training data), to fit into 128 tokens (first: line 2)";
    let sft = format!("{} a.jsonl --skip-bad-rows", SFT.replace("--out out", "--out cut"));
    for resume in ["", " --resume"] {
        let said = temper.run(&format!("{sft}{resume}")).ok();
        assert!(said.stderr.contains(line), "{said:?}");
        let chosen = "\noverflow = \"truncate_prompt\"  # auto: 1 of 2 rows do not fit into 128 tokens\n";
        assert!(temper.read("cut/config.toml").contains(chosen), "{said:?}");
    }
}

#[test]
fn comparisons_and_completions_that_are_left_out_or_cut_are_counted() {
    let temper = Temper::with_sft();
    let (long, x) = ("p".repeat(200), "x".repeat(200));
    temper.write(
        "c.jsonl",
        format!(
            "{{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"b\"}}\n\
             {{\"prompt\": \"p\", \"chosen\": \"a\", \"rejected\": \"{x}\"}}\n\
             {{\"prompt\": \"p\", \"completions\": [\"a\", \"b\", \"{x}\"], \"ranking\": [0, 1, 2]}}\n\
             {{\"prompt\": \"{long}\", \"chosen\": \"a\", \"rejected\": \"b\"}}\n"
        ),
    );
    for (command, out) in [("reward", "r"), ("dpo", "d")] {
        let run = format!("{command} --model sft/final --data c.jsonl --set max_steps=1 --out {out}");
        let said = temper.run(&format!("{run} --set overflow=truncate_prompt")).ok();
        for line in [
            "note: left out 1 of 4 rows of c.jsonl (training data): they do not fit into 128 tokens (first: line 2)",
            "note: left out 1 of 9 completions of c.jsonl (training data), and kept the others of their rows: \
             they do not fit into 128 tokens (first: line 3)",
            "note: cut the prompt on the left in 1 of 4 rows of c.jsonl (training data), to fit into 128 tokens \
             (first: line 4)",
        ] {
            assert!(said.stderr.contains(line), "`{line}` is not in {said:?}");
        }
    }
    temper.write("n.jsonl", [demonstration(2, 2), demonstration(2, 200)].concat());
    let run = "reward --model sft/final --data c.jsonl --normalize-data n.jsonl --set max_steps=1 --out n";
    let line = "note: left out 1 of 2 rows of n.jsonl (demonstrations to normalise on): they do not fit";
    let said = temper.run(run).ok();
    assert!(said.stderr.contains(line), "{said:?}");
}

#[test]
fn comparisons_are_learned_as_demonstrations_of_their_chosen_side() {
    let temper = Temper::new();
    let said = temper.run(&format!("{SFT} comparisons.jsonl demonstrations.jsonl")).ok();
    let line = "note: 4 of 4 rows of comparisons.jsonl (training data) are comparisons: their chosen side is taken as a \
                demonstration (first: line 1)";
    assert!(said.stderr.contains(line) && said.stderr.matches("are comparisons").count() == 1, "{said:?}");
    // The same data as the rows themselves.
    temper.write("same.jsonl", temper.read("comparisons.jsonl").replace("chosen", "completion"));
    temper.run(&format!("{} same.jsonl demonstrations.jsonl", SFT.replace("--out out", "--out same"))).ok();
    assert_eq!(temper.json("out/inputs.json")["given"], temper.json("same/inputs.json")["given"]);
}

#[test]
fn a_file_of_another_format_is_named_for_what_it_is() {
    let temper = Temper::with_sft();
    temper.write("rows.parquet", b"PAR1\x15\x04\x15\x10PAR1");
    temper.write("rows.xlsx", b"PK\x03\x04\x14\0\x06\0");
    temper.write("rows.csv", "prompt,completion\na,b\n");
    temper.write("book.txt", "All is well.\nSo it goes.\n");
    let dpo = "dpo --model sft/final --out out --data book.txt";
    let said = temper.refuses(dpo, &["book.txt is plain text; rows with more columns"]);
    assert!(said.hint().contains("temper sft"), "{said:?}");
    temper.write("wide.jsonl", b"\xff\xfe{\0\"\0");
    for (name, says, hint) in [
        ("rows.parquet", "cannot read the Parquet file rows.parquet: ", "copy the file again"),
        ("rows.xlsx", "rows.xlsx is an Excel workbook", "read_excel"),
        ("rows.csv", "rows.csv is a CSV file", "read_csv"),
        ("wide.jsonl", "wide.jsonl is text in UTF-16", "UTF-8"),
    ] {
        for command in [
            format!("{SFT} {name}"),
            format!("{SFT} {name} --skip-bad-rows"),
            format!("dpo --model sft/final --out out --data {name}"),
            format!("eval --model sft/final --data {name}"),
        ] {
            let said = temper.refuses(&command, &[says]);
            assert!(said.hint().contains(hint) && !said.hint().contains("--skip-bad-rows"), "{said:?}");
        }
    }
}

#[test]
fn where_every_row_is_bad_the_hint_is_about_columns() {
    let temper = Temper::new();
    temper.write("q.jsonl", "{\"query\": \"a\", \"reply\": \"b\"}\n{\"query\": \"c\", \"reply\": \"d\"}\n");
    for flags in ["", " --skip-bad-rows"] {
        let says = "q.jsonl:1: missing column `prompt`, `instruction` or `question`; the row has `query`, `reply` (none of the \
                    2 rows can be read)";
        let said = temper.refuses(&format!("{SFT} q.jsonl{flags}"), &[says]);
        let hint = said.hint();
        assert!(hint.contains("--columns prompt=NAME,completion=NAME"), "{said:?}");
        assert!(!hint.contains("--skip-bad-rows"), "{said:?}");
    }
    let columns = "--columns prompt=query,completion=reply";
    temper.run(&format!("{SFT} q.jsonl {columns}").replace("--out out", "--out named")).ok();
    temper.run("sft --model gpt2-tiny --out wrong --data q.jsonl --columns prmpt=query").misused();
    temper.write("chat.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n");
    temper.refuses(&format!("{SFT} chat.jsonl"), &["chat.jsonl:1: ", "no turn of the assistant"]);
    temper.write("cut.json", "[{\"prompt\": \"a\", \"completion\": \"b\"},\n{\"prompt\": \"a\"");
    let said = temper.refuses(&format!("{SFT} cut.json --skip-bad-rows"), &["cut.json:2: broken JSON"]);
    assert!(said.hint().contains("JSON array") && !said.hint().contains("--skip-bad-rows"), "{said:?}");
}

/// By `zlib.crc32(prompt) / 2**32` in Python, `What is AI?` (0.514), `Capital of Spain?` (0.032) and `Greet!` (0.396) are
/// below 0.52, and the other prompts are above.
#[test]
fn a_fraction_of_the_prompts_is_kept_for_evaluation() {
    let temper = Temper::with_reward_model();
    for (name, command, flag, kept, another) in [
        ("demonstrations.jsonl", "sft --model gpt2-tiny", "--data", "2 of 5", 0.6),
        ("comparisons.jsonl", "reward --model sft/final", "--data", "1 of 4", 0.6),
        ("comparisons.jsonl", "dpo --model sft/final", "--data", "1 of 4", 0.6),
        ("prompts.jsonl", "ppo --policy sft/final --reward reward/final", "--prompts", "2 of 3", 0.45),
    ] {
        let is_kept = |line: &&str| ["What is AI?", "Capital of", "Greet!"].iter().any(|p| line.contains(p));
        let (kept_lines, learned): (Vec<_>, Vec<_>) =
            temper.read(name).lines().map(str::to_owned).partition(|line| is_kept(&line.as_str()));
        temper.write("eval.jsonl", kept_lines.join("\n"));
        temper.write("learned.jsonl", learned.join("\n"));
        let out = command.split(' ').next().unwrap();
        let steps = match out {
            "ppo" => "--set max_steps=1 --set batch_size=1 --set rollout.max_new_tokens=2",
            _ => "--set max_steps=1",
        };
        let split = format!("{command} {flag} {name} {steps} --out {out}-split --eval-fraction");
        let said = temper.run(&format!("{split} 0.52")).ok();
        let line = format!("note: kept {kept} rows of {name} (training data) for evaluation (first: line 1)");
        assert!(said.stderr.contains(&line), "{said:?}");
        // The same as two files with these rows.
        let files =
            format!("{command} {flag} learned.jsonl --eval-data eval.jsonl {steps} --out {out}-files");
        temper.run(&files).ok();
        let given = |run: &str| temper.json(&format!("{out}-{run}/inputs.json"))["given"].clone();
        assert_eq!(given("split"), given("files"));
        // A resumed run must split in the same way.
        temper.run(&format!("{split} 0.52 --resume")).ok();
        let resumed = temper.refuses(&format!("{split} {another} --resume"), &["when the run started"]);
        assert!(resumed.stderr.contains(flag) || resumed.stderr.contains("--eval-data"), "{resumed:?}");
    }
}

#[test]
fn a_fraction_that_is_none_or_leaves_nothing_is_refused() {
    let temper = Temper::new();
    let run = format!("{SFT} demonstrations.jsonl --eval-fraction");
    for fraction in ["0", "1", "-0.5", "NaN"] {
        temper.refuses(&format!("{run} {fraction}"), &["`--eval-fraction` must be above 0 and below 1"]);
    }
    let said = temper.refuses(&format!("{run} 0.01"), &["leaves no evaluation data of the 5 rows"]);
    assert!(said.hint().contains("larger fraction"), "{said:?}");
    let said = temper.refuses(&format!("{run} 0.99"), &["leaves no training data of the 5 rows"]);
    assert!(said.hint().contains("smaller fraction"), "{said:?}");
    temper.run(&format!("{run} 0.5 --eval-data demonstrations.jsonl")).misused();
}

#[test]
fn files_are_learned_as_often_as_they_weigh() {
    let temper = Temper::new();
    temper.write("a.jsonl", demonstration(2, 2));
    let said =
        temper.run(&format!("{SFT} demonstrations.jsonl --mix a.jsonl=2 --mix demonstrations.jsonl=0.5"));
    let said = said.ok();
    let line = "note: by its weight of 2, the 1 rows of a.jsonl (training data) are learned as 2";
    assert!(said.stderr.contains(line), "{said:?}");
    let start =
        "note: by its weight of 0.5, the 5 rows of demonstrations.jsonl (training data) are learned as ";
    let n = said.stderr.split(start).nth(1).and_then(|rest| rest.split_whitespace().next());
    let n: usize = n.expect("a note about the other file").parse().expect("a number");
    let learned = temper.json("out/inputs.json")["given"]["--data"].clone();
    assert!(n <= 5 && learned.as_str().unwrap().starts_with(&format!("{} rows ", n + 2)), "{learned}");
    // Files that only a weight names are data too.
    let alone = "sft --model gpt2-tiny --set max_steps=1 --mix a.jsonl=2 --out alone";
    temper.run(alone).ok();
    temper.write("twice.jsonl", demonstration(2, 2).repeat(2));
    temper.run(&format!("{SFT} twice.jsonl").replace("--out out", "--out twice")).ok();
    let given = |run: &str| temper.json(&format!("{run}/inputs.json"))["given"].clone();
    assert_eq!(given("alone"), given("twice"));
    for (mix, says) in [
        ("a.jsonl=0", "`--mix` must give a.jsonl a weight above 0 and up to 1000, got 0"),
        ("a.jsonl=1 --mix ./a.jsonl=2", "two weights"),
        ("none.jsonl=1", "cannot read none.jsonl"),
    ] {
        temper.refuses(&format!("{SFT} demonstrations.jsonl --mix {mix}"), &[says]);
    }
    temper.run(&format!("{SFT} demonstrations.jsonl --mix a.jsonl")).misused();
}

#[test]
fn rows_that_are_the_same_are_noted_and_left_out_on_request() {
    let temper = Temper::with_sft();
    temper.write("a.jsonl", [temper.read("comparisons.jsonl"), temper.read("comparisons.jsonl")].concat());
    for command in ["reward", "dpo"] {
        let run = format!("{command} --model sft/final --data a.jsonl --set max_steps=1 --out {command}");
        let said = temper.run(&run).ok();
        let line = "note: 4 of 8 rows of a.jsonl (training data) are the same as earlier ones; \
                    `--drop-duplicates` leaves them out (first: line 5)";
        assert!(said.stderr.contains(line), "{said:?}");
        let said = temper.run(&format!("{run}-dropped --drop-duplicates --eval-data a.jsonl")).ok();
        for purpose in ["training", "evaluation"] {
            let line = format!(
                "note: left out 4 of 8 rows of a.jsonl ({purpose} data): they are the same as earlier ones (first: \
                 line 5)"
            );
            assert!(said.stderr.contains(&line), "{said:?}");
        }
        temper.run(&run.replace("a.jsonl", "comparisons.jsonl").replace("--out ", "--out once-")).ok();
        let given = |run: String| temper.json(&format!("{run}/inputs.json"))["given"]["--data"].clone();
        assert_eq!(given(format!("{command}-dropped")), given(format!("once-{command}")));
    }
}

#[test]
fn devices_and_pipes_are_no_data() {
    let temper = Temper::new();
    assert!(Command::new("mkfifo").arg(temper.path("pipe")).status().unwrap().success());
    for (path, kind) in [("/dev/zero", "a device, a pipe"), ("pipe", "a device, a pipe")] {
        // A program that reads them must neither fill the machine's memory nor wait for ever.
        let script = format!("ulimit -v 8000000; timeout 20 \"$TEMPER\" {SFT} {path}");
        temper.shell(&script).refused(&[&format!("cannot read {path}: it is {kind}"), "hint: give a file"]);
    }
}

/// 100 MB of newlines once took 4.4 GB, and half a gigabyte of address space is plenty for a file of no rows.
#[test]
fn newlines_take_no_memory() {
    let temper = Temper::new();
    temper.shell("head -c 100000000 /dev/zero | tr '\\0' '\\n' | gzip -1 > n.jsonl.gz").ok();
    let script = "\"$TEMPER\" sft --data n.jsonl.gz --model tiny --out out & pid=$!; peak=0; \
                  while hwm=$(grep VmHWM /proc/$pid/status 2>/dev/null | tr -dc 0-9); [ -n \"$hwm\" ]; \
                  do peak=$hwm; done; echo $peak; wait $pid";
    let output = temper.shell_output(script);
    let peak: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("n.jsonl.gz: no rows"), "{output:?}");
    assert!((1..80_000).contains(&peak), "{peak} kB");
}

#[test]
fn the_context_of_dolly_is_part_of_the_prompt() {
    let temper = Temper::new();
    temper.write(
        "dolly.jsonl",
        "{\"instruction\": \"Who?\", \"context\": \"Ada wrote it.\", \"response\": \"Ada.\", \"category\": \"closed_qa\"}\n",
    );
    temper.write("same.jsonl", "{\"prompt\": \"Who?\\n\\nAda wrote it.\", \"completion\": \"Ada.\"}\n");
    temper.run(&format!("{SFT} dolly.jsonl")).ok();
    temper.run(&format!("{} same.jsonl", SFT.replace("--out out", "--out same"))).ok();
    assert_eq!(
        temper.json("out/inputs.json")["given"]["--data"],
        temper.json("same/inputs.json")["given"]["--data"]
    );
    temper.write("system.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\", \"system\": \"Be rude.\"}\n");
    let said =
        temper.refuses(&format!("{SFT} system.jsonl"), &["system.jsonl:1: column `system` is not read"]);
    assert!(said.hint().contains("into the prompt"), "{said:?}");
}

#[test]
fn a_column_that_is_there_twice_is_refused() {
    let temper = Temper::new();
    let good = demonstration(1, 1);
    temper.write(
        "d.jsonl",
        format!("{good}{{\"prompt\": \"a\", \"completion\": \"b\", \"completion\": \"c\"}}\n"),
    );
    temper.refuses(&format!("{SFT} d.jsonl"), &["d.jsonl:2: column `completion` is there twice"]);
    temper.write("z.jsonl", format!("{good}{{\"prompt\": \"a\", \"completion\": \"\\u200b\\u200b\"}}\n"));
    temper.refuses(&format!("{SFT} z.jsonl"), &["z.jsonl:2: column `completion` is empty"]);
}

#[test]
fn a_file_that_unpacks_without_end_gets_a_hint_of_its_own() {
    let temper = Temper::new();
    temper.shell("head -c 1100000000 /dev/zero | tr '\\0' '\\n' | gzip -1 > bomb.jsonl.gz").ok();
    let said =
        temper.refuses(&format!("{SFT} bomb.jsonl.gz"), &["bomb.jsonl.gz", "unpack to more than 1073741824"]);
    assert!(said.hint().contains("gunzip"), "{said:?}");
}

#[test]
fn a_normalisation_without_demonstrations_is_refused_or_noted() {
    let temper = Temper::with_sft();
    let run = "reward --data comparisons.jsonl --model sft/final --set max_steps=1 --out";
    let says = |how| format!("`normalize` is {how}, but there is no `--normalize-data`");
    for how in ["mean", "mean_std"] {
        let said = temper.refuses(&format!("{run} out --set normalize={how}"), &[&says(how)]);
        assert!(said.hint().contains("--set normalize=none"), "{said:?}");
    }
    temper.write("own.toml", "normalize = \"mean_std\"\n");
    temper.refuses(&format!("{run} out --config own.toml"), &[&says("mean_std")]);
    // Asked for by nobody here: a preset, and a file that has every key in it.
    let said = temper.run(&format!("{run} preset --preset lm-human-preferences --set batch_size=2")).ok();
    assert!(
        said.stderr.contains("note: `normalize` has no effect: there is no `--normalize-data`"),
        "{said:?}"
    );
    temper.write("whole.toml", temper.run("config reward").ok().stdout);
    let said = temper.run(&format!("{run} whole --config whole.toml")).ok();
    assert!(
        said.stderr.contains(&format!("note: the scores are not normalised: {}", says("mean"))),
        "{said:?}"
    );
    let said = temper.run(&format!("{run} none --set normalize=none")).ok();
    assert!(!said.stderr.contains("normalis"), "{said:?}");
    // Two rows that are the same have no scale.
    temper.write("one.jsonl", [demonstration(2, 2), demonstration(2, 2)].concat());
    let said = temper.run(&format!("{run} alike --set normalize=mean_std --normalize-data one.jsonl")).ok();
    assert!(said.stderr.contains("all demonstrations score alike"), "{said:?}");
}

#[test]
fn dpo_has_nothing_to_normalise() {
    let temper = Temper::with_sft();
    let dpo =
        "dpo --data comparisons.jsonl --model sft/final --out out --normalize-data demonstrations.jsonl";
    temper.run(dpo).misused();
    assert!(!temper.run("dpo --help").ok().stdout.contains("normalize"));
    assert!(temper.run("reward --help").ok().stdout.contains("--normalize-data"));
}

#[test]
fn a_directory_is_all_of_its_shards() {
    let temper = Temper::new();
    temper.write("shards/data/train-00000-of-00002.jsonl", demonstration(2, 2));
    temper.write("shards/data/train-00001-of-00002.jsonl", demonstration(3, 3));
    temper.write("shards/README.md", "A data set.\n");
    let said = temper.run("data inspect --data shards --json").ok();
    assert_eq!(said.rows()[0]["rows"], 2);
    temper.run(&format!("{SFT} shards")).ok();
    temper.write("shards/data/test-00000-of-00001.jsonl", demonstration(2, 2));
    let said =
        temper.refuses("data inspect --data shards", &["shards has files of several splits: test, train"]);
    assert!(said.hint().contains("files of one"), "{said:?}");
    temper.write("empty/README.md", "");
    temper.refuses(&format!("{SFT} empty"), &["empty has no data files", ".parquet"]);
}

/// What Python counts in files that other people published.
#[test]
fn published_files_are_recognised_and_counted() {
    let temper = Temper::new();
    let raw = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/raw");
    let inspect = |name: &str, purpose: &str| {
        let path = raw.join(name);
        let path = path.to_str().expect("a path of UTF-8");
        let said = temper.run_of(&["data", "inspect", "--data", path, "--for", purpose, "--json"]).ok();
        let row = said.rows()[0].clone();
        assert_eq!(
            keys(&row),
            [
                "family",
                "rows",
                "skipped",
                "lengths",
                "examples",
                "notes",
                "too_long",
                "tied_pairs",
                "duplicates"
            ]
        );
        row
    };
    for (name, purpose, family, rows, skipped) in [
        ("alpaca_format_200.json", "sft", "Alpaca", 200, 0),
        ("dolly_format_50.jsonl", "sft", "Dolly", 50, 0),
        ("gsm8k_raw_100.jsonl", "prompts", "GSM8K", 100, 0),
        ("hh_rlhf_raw_200.jsonl", "reward", "hh-rlhf", 199, 1),
        ("hh_rlhf_raw_200.jsonl.gz", "sft", "hh-rlhf", 199, 1),
        ("sharegpt_format_100.json", "sft", "ShareGPT", 100, 0),
        ("oasst_trees_20.jsonl", "reward", "OASST trees", 40, 0),
        ("oasst_trees_20.jsonl", "sft", "OASST trees", 28, 0),
        ("oasst_trees_20.jsonl", "prompts", "OASST trees", 98, 0),
    ] {
        let row = inspect(name, purpose);
        let counts = (row["family"].as_str(), row["rows"].as_u64(), row["skipped"].as_u64());
        assert_eq!(counts, (Some(family), Some(rows), Some(skipped)), "{name} for {purpose}");
    }
    let tree = &inspect("oasst_trees_20.jsonl", "reward")["examples"][0];
    assert_eq!(keys(tree), ["prompt", "completions", "scores"]);
    assert!(tree["prompt"].as_str().is_some_and(|prompt| prompt.starts_with("How to protect my eyes")));
    assert_eq!(tree["scores"], serde_json::json!([0.0, -1.0]));
}

#[test]
fn inspection_shows_what_the_context_cuts_and_what_is_learned() {
    let temper = Temper::with_sft();
    temper.write("d.jsonl", [demonstration(2, 3), demonstration(200, 2), demonstration(2, 3)].concat());
    let said = temper.run("data inspect --data d.jsonl --model sft/final").ok();
    for line in [
        "family      TRL prompt-completion",
        "rows        3",
        "too long    1 rows do not fit into the 128 tokens of the model",
        "duplicates  1",
        "learned  ccc",
    ] {
        assert!(said.stdout.contains(line), "`{line}` is not in {said:?}");
    }
}

/// `assets/goldens/parquet_rows.py` wrote this file with Arrow: 40 pairs in two groups of rows; four pairs are tied.
#[test]
fn a_parquet_file_of_arrow_is_read_and_trained_on() {
    let temper = Temper::with_sft();
    temper.write("rows.parquet", include_bytes!("../../assets/goldens/rows.parquet"));
    let row = temper.run("data inspect --data rows.parquet --json").ok().rows()[0].clone();
    assert_eq!(
        (&row["family"], &row["rows"], &row["skipped"]),
        (&"UltraFeedback binarized".into(), &36.into(), &4.into())
    );
    let example =
        serde_json::json!({"prompt": "Question 1", "completions": ["good 1", "bad 1"], "scores": [1.0, 0.0]});
    assert_eq!(row["examples"][0], example);
    let said = temper.run("reward --data rows.parquet --model sft/final --out r --set max_steps=1").ok();
    let line = "note: left out 4 of 40 rows of rows.parquet (training data): their two answers have equal scores (first: row 10)";
    assert!(said.stderr.contains(line), "{said:?}");
    let bytes = temper.bytes("rows.parquet");
    temper.write("cut.parquet", &bytes[..bytes.len() / 2]);
    temper.refuses(
        "reward --data cut.parquet --model sft/final --out s",
        &["cannot read the Parquet file cut.parquet: "],
    );
}
