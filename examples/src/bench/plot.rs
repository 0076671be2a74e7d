//! A drawing: lines over sizes, as SVG, with text left to whoever shows it.

use super::options::size_name;
use super::statistics::Spread;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use std::fmt::Display;

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// What is along it: bytes, by powers of two.
    pub x: String,
    /// What is up it.
    pub y: String,
    /// How.
    pub scale: Scale,
    /// A level to compare with.
    pub reference: Option<f64>,
    /// The lines.
    pub series: Vec<Series>,
}

/// How values go up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scale {
    /// In equal steps, from zero.
    Linear,
    /// In equal factors.
    Logarithmic,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it is of.
    pub name: String,
    /// Sizes, and the measurements there.
    pub points: Vec<(f64, Spread)>,
}

impl Series {
    /// Lines of points that each say which line they belong to.
    pub fn of(points: impl Iterator<Item = (String, u64, Spread)>) -> Vec<Self> {
        let mut series: Vec<Self> = Vec::new();
        for (name, size, level) in points {
            let point = (size as f64, level);
            match series.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(point),
                None => series.push(Self { name, points: vec![point] }),
            }
        }
        series
    }
}

const SIZE: (u32, u32) = (980, 460);
/// What is left of the width for the lines' names.
const NAMES: u32 = 290;
const FONT: &str = "sans-serif";
/// Told apart by people who see colours differently, too (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(140, 140, 0),
];

/// Draws it.
///
/// # Errors
/// A line for people; also if there is nothing to draw.
pub fn svg(chart: &Chart) -> Result<String, String> {
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let (Some(left), Some(right)) = (
        points().map(|point| point.0).min_by(f64::total_cmp),
        points().map(|point| point.0).max_by(f64::total_cmp),
    ) else {
        return Err("there is nothing to draw".to_owned());
    };
    let levels = || points().flat_map(|(_, y)| [y.lowest, y.highest]).chain(chart.reference);
    let top = levels().fold(0.0, f64::max).max(1e-9) * 1.08;
    let positive = levels().filter(|level| *level > 0.0);
    let bottom = match chart.scale {
        Scale::Linear => levels().fold(0.0, f64::min) * 1.08,
        Scale::Logarithmic => positive.min_by(f64::total_cmp).unwrap_or(1e-3).min(top / 2.0) / 1.2,
    };
    let across = ((left / 1.1)..(right * 1.1)).log_scale().base(2.0);
    let mut text = String::new();
    match chart.scale {
        Scale::Linear => draw(chart, &mut text, across, bottom..top)?,
        Scale::Logarithmic => draw(chart, &mut text, across, (bottom..top).log_scale())?,
    }
    Ok(text)
}

fn draw<X, Y>(chart: &Chart, text: &mut String, across: X, up: Y) -> Result<(), String>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let failed = |error: &dyn Display| format!("cannot draw {}: {error}", chart.title);
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let (area, names) = area.split_horizontally(SIZE.0 - NAMES);
    let mut drawn = ChartBuilder::on(&area)
        .caption(&chart.title, (FONT, 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(across, up)
        .map_err(|error| failed(&error))?;
    drawn
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(&chart.x)
        .y_desc(&chart.y)
        .x_label_formatter(&|size| size_name(*size as u64))
        .y_label_formatter(&|level| short(*level))
        .label_style((FONT, 13))
        .draw()
        .map_err(|error| failed(&error))?;
    if let Some(level) = chart.reference {
        let ends = chart.series.iter().flat_map(|series| series.points.iter().map(|point| point.0));
        let (left, right) =
            ends.fold((f64::MAX, 0.0), |(l, r): (f64, f64), x| (l.min(x), r.max(x)));
        let line = LineSeries::new([(left, level), (right, level)], BLACK.mix(0.4));
        drawn.draw_series(line).map_err(|error| failed(&error))?;
    }
    for (series, colour) in chart.series.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        let medians = series.points.iter().map(|(x, y)| (*x, y.median));
        drawn
            .draw_series(LineSeries::new(medians.clone(), style))
            .map_err(|error| failed(&error))?;
        drawn
            .draw_series(medians.map(|at| Circle::new(at, 3, colour.filled())))
            .map_err(|error| failed(&error))?;
        let bars = series.points.iter().map(|(x, y)| {
            PathElement::new([(*x, y.lowest), (*x, y.highest)], colour.mix(0.5).stroke_width(1))
        });
        drawn.draw_series(bars).map_err(|error| failed(&error))?;
    }
    // Beside the lines, where they cannot cover any.
    for ((series, colour), n) in chart.series.iter().zip(COLOURS.iter().cycle()).zip(0..) {
        let y = 48 + 19 * n;
        let line = PathElement::new([(4, y), (22, y)], colour.stroke_width(2));
        names.draw(&line).map_err(|error| failed(&error))?;
        let name = Text::new(series.name.as_str(), (28, y - 6), (FONT, 13));
        names.draw(&name).map_err(|error| failed(&error))?;
    }
    names.present().map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}

/// A level in few digits.
fn short(level: f64) -> String {
    match level.abs() {
        size if size >= 100.0 => format!("{level:.0}"),
        size if size >= 10.0 => format!("{level:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{level:.2}"),
        _ => format!("{level:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(scale: Scale, levels: &[f64]) -> Chart {
        let spread = |level: f64| Spread { median: level, lowest: level, highest: level * 1.5 };
        let points = levels
            .iter()
            .enumerate()
            .map(|(n, y)| (f64::from(1 << (10 + n)), spread(*y)))
            .collect();
        Chart {
            title: "a <title>".to_owned(),
            x: "bytes".to_owned(),
            y: "seconds".to_owned(),
            scale,
            reference: Some(1.0),
            series: vec![Series { name: "a line & more".to_owned(), points }],
        }
    }

    #[test]
    fn what_is_drawn_is_svg() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            for levels in [&[1.0][..], &[0.5, 2.0, 40.0], &[1e-3, 1e3], &[0.0, 0.0]] {
                let drawing = svg(&chart(scale, levels)).unwrap();
                assert!(drawing.starts_with("<svg") && drawing.trim_end().ends_with("</svg>"));
                assert!(
                    drawing.contains("a &lt;title&gt;") && drawing.contains("a line &amp; more")
                );
            }
        }
    }

    #[test]
    fn nothing_is_no_drawing() {
        assert!(svg(&chart(Scale::Linear, &[])).is_err());
    }
}
