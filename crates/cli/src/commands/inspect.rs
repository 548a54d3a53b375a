//! `temper data inspect`

use std::borrow::Cow;
use std::io::IsTerminal;

use anyhow::Result;
use temper_assistant::Outline;
use temper_data::{Encoding, Inspection, Purpose, Shown, inspect};

use crate::args::{InspectArgs, InspectFor};
use crate::commands::{Outcome, print_coloured, print_json, print_line};
use crate::terminal::visible;

pub fn run(args: &InspectArgs) -> Result<Outcome> {
    let options = args.load.options();
    let outline = args.model.as_deref().map(|dir| Outline::load_with(dir, &options)).transpose()?;
    let text = outline
        .map(|Outline { config, mut text }| {
            text.settle("auto")?;
            anyhow::Ok((config, text))
        })
        .transpose()?;
    let encoding = text.as_ref().map(|(config, text)| Encoding::new(text, config.max_seq_len));
    let purpose = args.purpose.map(|purpose| match purpose {
        InspectFor::Sft => Purpose::Demonstrations,
        InspectFor::Reward => Purpose::Comparisons,
        InspectFor::Prompts => Purpose::Prompts,
    });
    let inspection = inspect(&args.data, purpose, &args.read(), encoding.as_ref())?;
    if args.json {
        print_json(&inspection)?;
    } else {
        print(&inspection, encoding.as_ref().map(|encoding| encoding.max_len))?;
    }
    Ok(Outcome::Done)
}

fn print(inspection: &Inspection, context: Option<usize>) -> Result<()> {
    let Inspection { family, rows, skipped, lengths, purpose, .. } = inspection;
    let read_as = match purpose {
        Purpose::Comparisons => "comparisons, for `temper reward` and `temper dpo`",
        Purpose::Prompts => "prompts, for `temper ppo`",
        _ => "demonstrations, for `temper sft`",
    };
    print_line(&format!("family      {family}"))?;
    print_line(&format!("read as     {read_as}"))?;
    print_line(&format!("rows        {rows}"))?;
    print_line(&format!("skipped     {skipped}"))?;
    for note in &inspection.notes {
        print_line(&format!("            {note}"))?;
    }
    let (min, p50, p90, p99, max) = (lengths.min, lengths.p50, lengths.p90, lengths.p99, lengths.max);
    print_line(&format!("{:<11} min {min}, 50 % {p50}, 90 % {p90}, 99 % {p99}, max {max}", lengths.unit))?;
    if let (Some(n), Some(context)) = (inspection.n_too_long, context) {
        print_line(&format!("too long    {n} rows do not fit into the {context} tokens of the model"))?;
    }
    if *purpose == Purpose::Comparisons {
        print_line(&format!("tied pairs  {}", inspection.n_tied_pairs))?;
    }
    print_line(&format!("duplicates  {}", inspection.n_duplicates))?;
    let colour = std::io::stdout().is_terminal();
    for (idx, answers) in inspection.shown.iter().enumerate() {
        print_line(&format!("\nexample {}", idx + 1))?;
        for shown in answers {
            print_coloured(&example(shown, colour))?;
        }
    }
    Ok(())
}

/// The parts of an example, each after its kind; what is learned is green on a terminal.
fn example(shown: &Shown, colour: bool) -> String {
    let mut text = String::new();
    if let Some(score) = shown.score {
        text += &format!("  score {score}\n");
    }
    for (part, is_learned) in &shown.parts {
        let kind = if *is_learned { "learned" } else { "given" };
        let (start, end) = if colour && *is_learned { ("\x1b[32m", "\x1b[0m") } else { ("", "") };
        let part = visible(&without_middle(part), &['\n', '\t']).replace('\n', "\n           ");
        text += &format!("  {kind:<7}  {start}{part}{end}\n");
    }
    text.truncate(text.trim_end_matches('\n').len());
    text
}

/// A text that is not longer than a screen or two: the middle of a long one is left out, and said so.
fn without_middle(text: &str) -> Cow<'_, str> {
    const AT_THE_START: usize = 2000;
    const AT_THE_END: usize = 500;
    let n_chars = text.chars().count();
    if n_chars <= AT_THE_START + AT_THE_END {
        return text.into();
    }
    let place = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(place, _)| place);
    let (start, end) = (place(AT_THE_START), place(n_chars - AT_THE_END));
    let n_left_out = n_chars - AT_THE_START - AT_THE_END;
    format!("{}\n… {n_left_out} characters are not shown …\n{}", &text[..start], &text[end..]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_shown_without_its_middle() {
        let short = "é".repeat(2500);
        assert_eq!(without_middle(&short), short);
        let long = format!("{short}x");
        let expected = format!("{}\n… 1 characters are not shown …\n{}x", "é".repeat(2000), "é".repeat(499));
        assert_eq!(without_middle(&long), expected);
    }

    #[test]
    fn what_is_learned_is_named_and_green_on_a_terminal() {
        let parts = vec![("Hi\n\u{1b}".into(), false), ("Yo".into(), true)];
        let shown = Shown { score: Some(1.5), parts };
        let plain = "  score 1.5\n  given    Hi\n           \\u{1b}\n  learned  Yo";
        assert_eq!(example(&shown, false), plain);
        assert_eq!(example(&shown, true), plain.replace("Yo", "\x1b[32mYo\x1b[0m"));
    }
}
