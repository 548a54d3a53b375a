use crate::escape::escape;
use crate::run::Run;

/// The resolved settings of each stage, folded.
pub fn settings(run: &Run) -> String {
    let mut folded = String::new();
    for stage in &run.stages {
        if let Some(config) = &stage.config {
            let (label, file) = (escape(&stage.label()), escape(&stage.config_file));
            folded.push_str(&format!(
                "<details><summary>{label} <code>{file}</code></summary>\n<pre tabindex=\"0\">{}</pre></details>\n",
                escape(config.trim_end())
            ));
        }
    }
    if folded.is_empty() {
        return folded;
    }
    format!("<section id=\"settings\"><h2>Settings</h2>\n{folded}</section>\n")
}

/// What the run was made on.
pub fn machine(run: &Run) -> String {
    let mut rows = run.machine.clone();
    let summary = &run.summary;
    let of_summary = [
        ("backend", summary.backend.clone()),
        ("threads", summary.threads.map(|threads| threads.to_string())),
        ("seed", summary.seed.map(|seed| seed.to_string())),
    ];
    for (name, value) in of_summary {
        if let Some(value) = value.filter(|_| rows.iter().all(|(other, _)| other != name)) {
            rows.push((name.to_owned(), value));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let rows: String = rows
        .iter()
        .map(|(name, value)| {
            format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape(name), escape(value))
        })
        .collect();
    format!(
        "<section id=\"machine\"><h2>Machine</h2>\n<div class=\"scroll\"><table><tbody>\n{rows}</tbody></table></div></section>\n"
    )
}
