//! Prints the six graded completions of some prompts, the first rows of the data, and its sizes.
#![allow(clippy::print_stdout)]

use temper_courtesy::{Sizes, Task};

fn main() {
    let task = Task::new();
    let data = task.generate(0, &Sizes::default());
    for (seed, prompt) in data.eval_prompts.iter().take(12).enumerate() {
        println!("{prompt}");
        for graded in task.graded(prompt, seed as u64).into_iter().flatten() {
            println!(
                "  {:>5.2}  {:<15} {}",
                graded.verdict.score,
                format!("{:?}", graded.grade),
                graded.completion
            );
        }
    }
    println!("\ndemonstrations");
    for row in data.demonstrations.iter().take(24) {
        println!("  {:<40} {}", row.prompt, row.completion);
    }
    println!("\ncomparisons, from best to worst; tied ones share a line");
    for row in data.comparisons.iter().take(12) {
        println!("  {}", row.prompt);
        for tied in &row.ranking {
            println!(
                "    {}",
                tied.iter().map(|&idx| row.completions[idx].as_str()).collect::<Vec<_>>().join(" | ")
            );
        }
    }
    println!("\n{} facts, {} prompts", task.facts().len(), task.prompts().len());
    println!("{} for training, {} for evaluation", data.prompts.len(), data.eval_prompts.len());
    let lengths = |name: &str, lengths: Vec<usize>| {
        let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
        println!("{name}: {mean:.1} bytes on average, {} at most", lengths.iter().max().unwrap_or(&0));
    };
    lengths("prompts", data.demonstrations.iter().map(|row| row.prompt.len()).collect());
    lengths("completions", data.demonstrations.iter().map(|row| row.completion.len()).collect());
}
