use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Error;
use crate::curve::Curve;
use crate::escape::visible;
use crate::number;
use crate::palette::{self, Ink};
use crate::stage::Stage;

/// plotters places points on whole units, so a picture is drawn on a grid this many times finer than its pixels.
pub const FINE: u32 = 4;
/// plotters' SVG backend writes font sizes divided by this.
const FONT: f64 = 1.24;
const PANEL: (u32, u32) = (360, 230);
const COLUMNS: usize = 3;
const HEADER: u32 = 44;
const PADDING: u32 = 12;
/// Longer texts would leave every picture.
const MOST_CHARACTERS: usize = 160;

/// A place to draw on.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
/// What plotters says.
pub type PlotError = DrawingAreaErrorKind<std::io::Error>;

/// One panel as an `<svg>` to put into a page: no background, as wide as its place.
pub fn panel(stage: Stage, curve: &Curve<'_>) -> Result<String, Error> {
    let attributes = format!("role=\"img\" aria-label=\"{}\"", crate::escape::escape(&curve.in_words()));
    svg(PANEL, &attributes, |area| draw_panel(area, curve, palette::accent(stage)))
        .map_err(|source| Error::Plot { metric: curve.panel.key.to_owned(), source })
}

/// All panels of a stage on one white sheet, as a file of its own.
pub fn sheet(stage: Stage, title: &str, curves: &[Curve<'_>]) -> Result<String, Error> {
    let columns = curves.len().clamp(1, COLUMNS);
    let rows = curves.len().div_ceil(columns).max(1);
    let size = (PANEL.0 * columns as u32 + 2 * PADDING, PANEL.1 * rows as u32 + HEADER + PADDING);
    let attributes =
        format!("width=\"{}\" height=\"{}\" xmlns=\"http://www.w3.org/2000/svg\"", size.0, size.1);
    svg(size, &attributes, |area| {
        area.fill(&WHITE)?;
        write(area, title, &text(17.0, palette::TEXT, HPos::Left, true), at(PADDING + 10, 14))?;
        // A single column has no room for both.
        if let Some(note) = window_note(curves).filter(|_| columns > 1) {
            let style = text(11.5, palette::MUTED, HPos::Right, false);
            write(area, &note, &style, at(size.0 - PADDING - 14, 18))?;
        }
        let edge = (PADDING * FINE) as i32;
        let grid = area.margin((HEADER * FINE) as i32, edge, edge, edge).split_evenly((rows, columns));
        for (place, curve) in grid.iter().zip(curves) {
            draw_panel(place, curve, palette::accent(stage))?;
        }
        Ok(())
    })
    .map_err(|source| Error::Plot { metric: stage.slug().to_owned(), source })
}

/// What thin and strong lines mean, if there are both.
pub fn window_note(curves: &[Curve<'_>]) -> Option<String> {
    let window = curves.iter().map(|curve| curve.window).max().filter(|window| *window > 1)?;
    Some(format!("thin line: each step · strong line: moving average over {window} steps"))
}

/// An `<svg>` of this size in pixels.
pub fn svg(
    size: (u32, u32),
    attributes: &str,
    paint: impl FnOnce(&Area<'_>) -> Result<(), PlotError>,
) -> Result<String, PlotError> {
    let (width, height) = (size.0 * FINE, size.1 * FINE);
    let mut drawn = String::new();
    {
        let area = SVGBackend::with_string(&mut drawn, (width, height)).into_drawing_area();
        paint(&area)?;
        area.present()?;
    }
    // plotters' opening tag fixes the size in fine units and leaves corners sharp: it gets one of ours.
    let body = drawn.split_once('>').map_or("", |(_, body)| body);
    Ok(format!(
        "<svg viewBox=\"0 0 {width} {height}\" {attributes} stroke-linejoin=\"round\" stroke-linecap=\"round\">{body}"
    ))
}

fn draw_panel(area: &Area<'_>, curve: &Curve<'_>, accent: Ink) -> Result<(), PlotError> {
    let (width, _) = area.dim_in_pixel();
    let width = width / FINE;
    write(area, &curve.panel.heading(), &text(12.5, palette::TEXT, HPos::Left, true), at(10, 8))?;
    if let Some(last) = curve.last() {
        write(area, &number::figure(last), &text(12.5, accent, HPos::Right, true), at(width - 14, 8))?;
    }
    let mut remarks = Vec::new();
    if !curve.held_out.is_empty() {
        remarks.push("line: training · dots: held-out");
    }
    if curve.start.is_some() {
        remarks.push("dashed: at the start");
    }
    if curve.cut {
        remarks.push("spikes cut");
    }
    write(area, &remarks.join(" · "), &text(11.0, palette::MUTED, HPos::Left, false), at(10, 25))?;

    let fine = |pixels: u32| pixels * FINE;
    let mut chart = ChartBuilder::on(area)
        .margin_top(fine(if remarks.is_empty() { 32 } else { 46 }))
        .margin_right(fine(16))
        .margin_bottom(fine(4))
        .margin_left(fine(4))
        .x_label_area_size(fine(38))
        .y_label_area_size(fine(46))
        .build_cartesian_2d(curve.x.0..curve.x.1, curve.y.0..curve.y.1)?;
    // Five ticks span less than six times their distance.
    let (spacing, largest) = ((curve.y.1 - curve.y.0) / 6.0, curve.y.0.abs().max(curve.y.1.abs()));
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(palette::GRID.light.stroke_width(FINE))
        .axis_style(palette::AXIS.light.stroke_width(FINE))
        .set_all_tick_mark_size(fine(4))
        .label_style(text(11.0, palette::MUTED, HPos::Left, false))
        .x_desc("step")
        .axis_desc_style(text(11.0, palette::MUTED, HPos::Left, false))
        .x_labels(5)
        .y_labels(5)
        .x_label_formatter(&|step| number::step_tick(*step))
        .y_label_formatter(&|value| number::tick(*value, spacing, largest))
        .draw()?;

    if let Some(start) = curve.start {
        let level = [(curve.x.0, start), (curve.x.1, start)];
        let style = palette::MUTED.light.stroke_width(FINE);
        chart.draw_series(DashedLineSeries::new(level, fine(5), fine(4), style))?;
    }
    if curve.window > 1 {
        let pale = accent.light.mix(0.35).stroke_width(FINE);
        chart.draw_series(LineSeries::new(curve.raw.iter().copied(), pale))?;
    }
    chart.draw_series(LineSeries::new(curve.smooth.iter().copied(), accent.light.stroke_width(2 * FINE)))?;
    // A line of one point is not visible.
    if let [only] = curve.smooth[..] {
        chart.draw_series([Circle::new(only, fine(4), accent.light.filled())])?;
    }
    let dark = palette::TEXT.light;
    chart.draw_series(LineSeries::new(curve.held_out.iter().copied(), dark.stroke_width(FINE)))?;
    chart.draw_series(curve.held_out.iter().map(|point| Circle::new(*point, fine(3), dark.filled())))?;
    Ok(())
}

/// Text on the picture, on one line, with everything in it visible and valid in XML: metric names, labels and notes come
/// from files that anyone may have written.
pub fn write(
    area: &Area<'_>,
    words: &str,
    style: &TextStyle<'_>,
    place: (i32, i32),
) -> Result<(), PlotError> {
    area.draw_text(&visible(words, MOST_CHARACTERS), style, place)
}

/// A place in pixels.
pub fn at(x: u32, y: u32) -> (i32, i32) {
    ((x * FINE) as i32, (y * FINE) as i32)
}

/// Type of this size in pixels.
pub fn text(pixels: f64, ink: Ink, side: HPos, bold: bool) -> TextStyle<'static> {
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    let font = ("sans-serif", pixels * f64::from(FINE) * FONT, style).into_font();
    let mut style = TextStyle::from(font).pos(Pos::new(side, VPos::Top));
    style.color = ink.light.to_backend_color();
    style
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::{Panel, Unit};
    use crate::metrics::Metrics;

    fn y_ticks(svg: &str) -> Vec<&str> {
        let texts = svg.split("<text").skip(1).filter(|text| text.contains("text-anchor=\"end\""));
        let texts = texts.filter(|text| !text.contains("bold"));
        texts.filter_map(|text| text.split('>').nth(1)?.split('<').next()).map(str::trim).collect()
    }

    #[test]
    fn no_two_ticks_of_an_axis_read_the_same() {
        const PANEL: Panel<'_> = Panel::new("v", "V", Unit::None);
        for idx in 1..400 {
            let range = 1e-5 * 1.07f64.powi(idx);
            let low = range * f64::from(idx % 7 - 3);
            let rows = format!("{{\"step\":1,\"v\":{low}}}\n{{\"step\":2,\"v\":{}}}\n", low + range);
            let curve = Curve::of(&PANEL, &Metrics::parse(&rows)).expect("the metric is there");
            let svg = panel(Stage::Sft, &curve).expect("the panel draws");
            let ticks = y_ticks(&svg);
            let distinct: std::collections::BTreeSet<_> = ticks.iter().collect();
            assert!(ticks.len() >= 2 && distinct.len() == ticks.len(), "{low} to {}: {ticks:?}", low + range);
        }
    }
}
