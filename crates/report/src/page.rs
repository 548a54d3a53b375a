use crate::Error;
use crate::escape::escape;
use crate::frontier::Frontier;
use crate::run::Run;
use crate::stage::StageRun;
use crate::{
    answers, figures, frontier_plot, number, palette, plot, sample, settings, timings, verdict, verdicts,
};

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub fn render(run: &Run) -> Result<String, Error> {
    let title = title(run);
    let mut body = format!(
        "<header><p class=\"brand\">Temper report</p><h1>{title}</h1>\n<p class=\"verdict\">{}</p>\n",
        escape(&verdict::verdict(run))
    );
    body.push_str(&figures::figures(run));
    for note in &run.notes {
        body.push_str(&format!("<p class=\"note\">Note: {}</p>\n", escape(note)));
    }
    body.push_str("</header>\n");
    if !run.samples.is_empty() {
        body.push_str(&sample::table(&run.samples));
    }
    for stage in &run.stages {
        body.push_str(&curves(stage, run.single)?);
    }
    body.push_str(&settings::settings(run));
    body.push_str(&settings::machine(run));
    body.push_str(&timings::timings(run));
    Ok(document(&title, &body))
}

/// A page that needs nothing else. Title and body are markup already.
pub fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Temper: {title}</title>\n\
         <style>\n{STYLE}@media (prefers-color-scheme: dark) {{ {} }}\n</style>\n</head>\n<body>\n<main>\n{body}</main>\n\
         </body>\n</html>\n",
        palette::dark_rules()
    )
}

fn title(run: &Run) -> String {
    let named = run.summary.recipe.as_deref().filter(|recipe| !recipe.is_empty());
    match (named, run.stages.first()) {
        (Some(recipe), _) => format!("The {} recipe", escape(recipe)),
        (None, Some(stage)) if run.single => format!("{}: {}", escape(&stage.label()), escape(&run.name)),
        _ => escape(&run.name),
    }
}

fn curves(stage: &StageRun, single: bool) -> Result<String, Error> {
    // Escaped, although a slug has only characters that need none.
    let (slug, heading) = (escape(&stage.slug), escape(&stage.title()));
    let mut html = format!("<section id=\"{slug}\"><h2>{heading}</h2>\n");
    let state = stage.state();
    let steps = number::counted(stage.metrics.last("step").unwrap_or(0.0), stage.unit());
    html.push_str(&format!("<p class=\"note\">State: {state}, after {steps}.</p>\n"));
    // A single stage has its findings at the top of the page.
    for sentence in verdicts::verdicts(stage).iter().filter(|_| !single) {
        html.push_str(&format!("<p class=\"finding\">{}</p>\n", escape(sentence)));
    }
    let curves = stage.curves();
    if curves.is_empty() {
        html.push_str("<p class=\"note\">No steps have been logged yet.</p></section>\n");
        return Ok(html);
    }
    html.push_str(&format!("<p>{}</p>\n<div class=\"curves\">\n", stage.stage.explanation()));
    for curve in &curves {
        html.push_str(&format!("<figure>{}</figure>\n", plot::panel(stage.stage, curve)?));
    }
    html.push_str("</div>\n");
    if let Some(note) = plot::window_note(&curves) {
        html.push_str(&format!(
            "<p class=\"note\">In each panel, {note} · number at the top right: where it ends.</p>\n"
        ));
    }
    html.push_str(&answers::table(&stage.answers, stage.unit()));
    if let Some(evaluation) = &stage.evaluation {
        html.push_str(&evaluation.html());
    }
    let others = stage.other_curves();
    if !others.is_empty() {
        html.push_str(&format!(
            "<details><summary>{} other metrics that moved</summary>\n<div class=\"curves\">\n",
            others.len()
        ));
        for curve in &others {
            html.push_str(&format!("<figure>{}</figure>\n", plot::panel(stage.stage, curve)?));
        }
        html.push_str("</div></details>\n");
    }
    html.push_str("</section>\n");
    html.push_str(&frontier(stage)?);
    Ok(html)
}

/// What a run paid in KL for its score, where it has both.
fn frontier(stage: &StageRun) -> Result<String, Error> {
    let Some(frontier) = Frontier::of(&stage.metrics) else { return Ok(String::new()) };
    let id = if stage.name.is_none() {
        "frontier".to_owned()
    } else {
        format!("frontier-{}", escape(&stage.slug))
    };
    let of = stage.name.as_ref().map_or(String::new(), |name| format!(" ({})", escape(name)));
    Ok(format!(
        "<section id=\"{id}\"><h2>What the score costs{of}</h2>\n<p>{}</p>\n<figure class=\"frontier\">{}</figure>\n\
         <p>{}</p>\n<p class=\"note\">{}</p>\n</section>\n",
        frontier.explanation(),
        frontier_plot::single(&frontier)?,
        frontier.in_words(),
        frontier.smoothing_note()
    ))
}
