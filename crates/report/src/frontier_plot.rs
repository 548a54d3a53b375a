use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::Error;
use crate::curve::{extent, widened};
use crate::escape::{escape, visible};
use crate::frontier::{Frontier, Stop, thinned};
use crate::number;
use crate::palette::{self, Ink};
use crate::plot::{Area, FINE, PlotError, at, svg, text, write};

const PLOT_WIDTH: u32 = 760;
const PLOT_HEIGHT: u32 = 250;
const LEGEND_WIDTH: u32 = 190;
const LEGEND_ROW: u32 = 22;
/// Longer names are cut, so that they stay next to the plot.
const LABEL_CHARACTERS: usize = 24;
const HEADER: u32 = 44;
const PADDING: u32 = 12;

/// One series of a plot.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its colour.
    pub ink: Ink,
    /// Single rollouts, as a pale cloud.
    pub cloud: Vec<(f64, f64)>,
    /// A line with a circle at its start and a dot at its end.
    pub line: Vec<(f64, f64)>,
    /// Results by themselves, each with what is written next to it.
    pub points: Vec<((f64, f64), String)>,
}

/// One score against √KL.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Which score.
    pub heading: String,
    /// What is drawn.
    pub series: Vec<Series>,
    /// A point to name.
    pub mark: Option<((f64, f64), String)>,
}

/// Several plots over the same axis, one below the other, with a legend next to them.
#[derive(Clone, Debug)]
pub struct Picture {
    /// From top to bottom.
    pub plots: Vec<Plot>,
    /// Names of the series.
    pub legend: Vec<(Ink, String)>,
    /// A sentence in place of the picture, for those who cannot see it.
    pub in_words: String,
}

/// One run's frontier as an `<svg>` to put into a page.
pub fn single(frontier: &Frontier) -> Result<String, Error> {
    let series = |track: &crate::frontier::Track, ink| Series {
        ink,
        cloud: thinned(&track.raw),
        line: thinned(&track.smooth),
        points: Vec::new(),
    };
    let mut plots = Vec::new();
    if let Some(gold) = &frontier.gold {
        let turn = gold.turn();
        plots.push(Plot {
            heading: "Score of the independent judge".to_owned(),
            series: vec![series(gold, palette::GOLD)],
            mark: Some((place(turn.peak), peak_in_words(turn.peak))),
        });
    }
    plots.push(Plot {
        heading: "Score that the policy learns from".to_owned(),
        series: vec![series(&frontier.score, palette::SERIES[0])],
        mark: None,
    });
    Picture { plots, legend: Vec::new(), in_words: frontier.in_words() }.inline()
}

/// What is written at the highest point.
fn peak_in_words(peak: Stop) -> String {
    format!(
        "highest: {} at √KL {}, step {}",
        number::figure(peak.value),
        number::figure(peak.root_kl),
        peak.step
    )
}

fn place(stop: Stop) -> (f64, f64) {
    (stop.root_kl, stop.value)
}

impl Picture {
    /// As an `<svg>` to put into a page: no background, as wide as its place.
    pub fn inline(&self) -> Result<String, Error> {
        let attributes = format!("role=\"img\" aria-label=\"{}\"", escape(&self.in_words));
        svg((self.width(), self.height()), &attributes, |area| self.draw(area)).map_err(failed)
    }

    /// On white, as a file of its own.
    pub fn sheet(&self, title: &str) -> Result<String, Error> {
        let size = (self.width() + 2 * PADDING, self.height() + HEADER + PADDING);
        let attributes =
            format!("width=\"{}\" height=\"{}\" xmlns=\"http://www.w3.org/2000/svg\"", size.0, size.1);
        svg(size, &attributes, |area| {
            area.fill(&WHITE)?;
            write(area, title, &text(17.0, palette::TEXT, HPos::Left, true), at(PADDING + 10, 14))?;
            let edge = (PADDING * FINE) as i32;
            self.draw(&area.margin((HEADER * FINE) as i32, edge, edge, edge))
        })
        .map_err(failed)
    }

    fn width(&self) -> u32 {
        PLOT_WIDTH + if self.legend.is_empty() { 0 } else { LEGEND_WIDTH }
    }

    fn height(&self) -> u32 {
        // The lowest plot carries the axis for all.
        PLOT_HEIGHT * self.plots.len() as u32 + 24
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), PlotError> {
        let (plots, legend) = area.split_horizontally(PLOT_WIDTH * FINE);
        let all = || self.plots.iter().flat_map(|plot| &plot.series).flat_map(Series::places);
        let right = extent(all().map(|place| place.0)).1;
        // Every run starts at its reference: the axis does too.
        let x = (0.0, if right > 1e-9 { 1.04 * right } else { 1.0 });
        let mark = self.plots.iter().find_map(|plot| plot.mark.as_ref()).map(|mark| mark.0.0);
        let mut rest = plots;
        for (i, plot) in self.plots.iter().enumerate() {
            let lowest = i + 1 == self.plots.len();
            let (here, below) =
                if lowest { (rest.clone(), None) } else { two(rest.split_vertically(PLOT_HEIGHT * FINE)) };
            plot.draw(&here, x, mark, lowest)?;
            rest = below.unwrap_or(here);
        }
        for (i, (ink, label)) in self.legend.iter().enumerate() {
            let y = 36 + LEGEND_ROW * i as u32;
            let (from, to) = (at(4, y), at(24, y));
            legend.draw(&PathElement::new([from, to], ink.light.stroke_width(3 * FINE)))?;
            let style = text(12.5, palette::TEXT, HPos::Left, false);
            write(&legend, &visible(label, LABEL_CHARACTERS), &style, at(32, y - 8))?;
        }
        Ok(())
    }
}

fn two<'a>((above, below): (Area<'a>, Area<'a>)) -> (Area<'a>, Option<Area<'a>>) {
    (above, Some(below))
}

fn failed(source: PlotError) -> Error {
    Error::Plot { metric: "objective/kl".to_owned(), source }
}

impl Series {
    fn places(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let points = self.points.iter().map(|(place, _)| *place);
        self.cloud.iter().chain(&self.line).copied().chain(points)
    }
}

impl Plot {
    fn draw(&self, area: &Area<'_>, x: (f64, f64), mark: Option<f64>, lowest: bool) -> Result<(), PlotError> {
        write(area, &self.heading, &text(12.5, palette::TEXT, HPos::Left, true), at(10, 8))?;
        let y = widened(extent(self.series.iter().flat_map(Series::places).map(|place| place.1)), 0.08, 0.5);
        let fine = |pixels: u32| pixels * FINE;
        let mut builder = ChartBuilder::on(area);
        builder.margin_top(fine(34)).margin_right(fine(18)).margin_bottom(fine(4)).margin_left(fine(4));
        builder.x_label_area_size(fine(if lowest { 46 } else { 22 })).y_label_area_size(fine(50));
        let mut chart = builder.build_cartesian_2d(x.0..x.1, y.0..y.1)?;
        let spacing = |(low, high): (f64, f64), ticks: f64| (high - low) / (ticks + 1.0);
        let (across, up) = (spacing(x, 8.0), spacing(y, 5.0));
        let largest = y.0.abs().max(y.1.abs());
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(palette::GRID.light.stroke_width(FINE))
            .axis_style(palette::AXIS.light.stroke_width(FINE))
            .set_all_tick_mark_size(fine(4))
            .label_style(text(11.0, palette::MUTED, HPos::Left, false))
            .axis_desc_style(text(11.5, palette::MUTED, HPos::Left, false))
            .x_labels(8)
            .y_labels(5);
        if lowest {
            mesh.x_desc("√KL to the SFT model, √nats per answer");
        }
        mesh.x_label_formatter(&|value| number::tick(*value, across, x.1))
            .y_label_formatter(&|value| number::tick(*value, up, largest))
            .draw()?;

        if let Some(mark) = mark {
            let style = palette::MUTED.light.stroke_width(FINE);
            let line = [(mark, y.0), (mark, y.1)];
            chart.draw_series(DashedLineSeries::new(line, fine(5), fine(4), style))?;
        }
        for series in &self.series {
            let pale = series.ink.light.mix(0.3).filled();
            chart.draw_series(series.cloud.iter().map(|place| Circle::new(*place, fine(2), pale)))?;
        }
        for series in &self.series {
            let (light, line) = (series.ink.light, &series.line);
            chart.draw_series(LineSeries::new(line.iter().copied(), light.stroke_width(2 * FINE + 2)))?;
            let start = line.first().map(|place| Circle::new(*place, fine(4), light.stroke_width(2 * FINE)));
            chart.draw_series(start)?;
            chart.draw_series(line.last().map(|place| Circle::new(*place, fine(4), light.filled())))?;
            let joined = series.points.iter().map(|point| point.0);
            chart.draw_series(LineSeries::new(joined, light.mix(0.5).stroke_width(FINE)))?;
            chart.draw_series(
                series.points.iter().map(|(place, _)| Circle::new(*place, fine(5), light.filled())),
            )?;
        }
        let backend = |place: &(f64, f64)| chart.backend_coord(place);
        let (left, top) = area.get_base_pixel();
        let inside = |place: &(f64, f64)| {
            let (x, y) = backend(place);
            (x - left, y - top)
        };
        for (place, note) in self.series.iter().flat_map(|series| &series.points) {
            let (x, y) = inside(place);
            let style = text(11.0, palette::MUTED, HPos::Left, false);
            write(area, note, &style, (x + (8 * FINE) as i32, y - (6 * FINE) as i32))?;
        }
        if let Some((place, words)) = &self.mark {
            let (width, _) = area.dim_in_pixel();
            area.draw(&Circle::new(
                inside(place),
                (5 * FINE) as i32,
                palette::TEXT.light.stroke_width(2 * FINE),
            ))?;
            // Above the plot, where no cloud is.
            write(area, words, &text(12.5, palette::GOLD, HPos::Right, true), at(width / FINE - 18, 8))?;
        }
        Ok(())
    }
}
