//! Pictures of a report: SVG that takes its text's colour from the page, so that it reads in the dark too.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::statistics::Interval;

/// Colours that are told apart with the usual kinds of colour blindness too, on white and on black (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(140, 140, 140),
];
/// Placeholder colour of the grid, replaced by the page's.
const GRID: RGBColor = RGBColor(1, 2, 3);
const WIDTH: u32 = 640;
const FONT: (&str, u32) = ("sans-serif", 15);

/// The quantity of an axis.
#[derive(Clone, Copy)]
pub struct Axis<'a> {
    /// Its name, with the unit.
    pub name: &'a str,
    /// Decimals of its numbers.
    pub decimals: usize,
}

/// A series of points with a name.
pub struct Series {
    /// Its label in the legend.
    pub name: String,
    /// Points, left to right.
    pub points: Vec<(f64, f64)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws a picture, with its title for those who cannot see it.
fn drawn(title: &str, height: u32, draw: impl Fn(&Area<'_>) -> Result<(), String>) -> String {
    let mut svg = String::new();
    let done = {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&area).and_then(|()| area.present().map_err(|error| error.to_string()))
    };
    if let Err(reason) = done {
        return format!(
            "<p>The picture \"{}\" could not be drawn: {}.</p>",
            super::page::escape(title),
            super::page::escape(&reason)
        );
    }
    // What is black is the text's colour, and the grid is the page's.
    let svg = svg.replace("#000000", "currentColor").replace("#010203", "var(--grid)");
    let head = svg.find("<svg").and_then(|start| Some((start, start + svg[start..].find('>')? + 1)));
    let Some((start, end)) = head else { return svg };
    let title = super::page::escape(title);
    format!(
        "<figure><figcaption>{title}</figcaption><svg role=\"img\" aria-label=\"{title}\" viewBox=\"0 0 {WIDTH} {height}\" xmlns=\"http://www.w3.org/2000/svg\">{}</figure>",
        &svg[end.max(start)..]
    )
}

/// The least and the most of values, with some room around them.
fn room(values: impl Iterator<Item = f64>, from_zero: bool) -> std::ops::Range<f64> {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
    let margin = ((high - low) * 0.08).max(high.abs() * 0.02).max(1e-9);
    if from_zero { 0.0..high + margin } else { low - margin..high + margin }
}

/// Lines through points, with a legend.
pub fn lines(title: &str, x: Axis<'_>, y: Axis<'_>, series: &[Series], from_zero: bool) -> String {
    let all = || series.iter().flat_map(|series| series.points.iter().copied());
    let (across, up) = (room(all().map(|point| point.0), false), room(all().map(|point| point.1), from_zero));
    drawn(title, 360, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(across.clone(), up.clone())
            .map_err(|error| error.to_string())?;
        mesh(&mut chart, x, y)?;
        for (series, colour) in series.iter().zip(COLOURS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(series.points.iter().copied(), colour.stroke_width(2)))
                .map_err(|error| error.to_string())?
                .label(&series.name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 14, y + 4)], colour.filled()));
            let dots = series.points.iter().map(|&point| Circle::new(point, 3, colour.filled()));
            chart.draw_series(dots).map_err(|error| error.to_string())?;
        }
        if series.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::LowerLeft)
                .label_font(FONT)
                .border_style(GRID)
                .draw()
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    })
}

/// Points with their names, and the line through those that no other beats: less of `x` and more of `y` are better.
pub fn pareto(title: &str, x: Axis<'_>, y: Axis<'_>, points: &[(String, f64, f64)]) -> String {
    let (across, up) =
        (room(points.iter().map(|point| point.1), true), room(points.iter().map(|point| point.2), false));
    // Names stand to the right of their points.
    let across = 0.0..across.end * 1.25;
    let mut front: Vec<(f64, f64)> = Vec::new();
    let mut sorted: Vec<(f64, f64)> = points.iter().map(|point| (point.1, point.2)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    for point in sorted {
        if front.last().is_none_or(|last| point.1 > last.1) {
            front.push(point);
        }
    }
    // Names of points that are near each other must not lie on each other: each takes a place of its own.
    let mut named: Vec<&(String, f64, f64)> = points.iter().collect();
    named.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.1.total_cmp(&b.1)));
    let step = (up.end - up.start) * 0.055;
    // A letter is about so wide, in the units of `x`.
    let letter = across.end * 8.5 / f64::from(WIDTH - 100);
    let width = |name: &str| letter * (name.chars().count() as f64 + 2.0);
    let mut taken: Vec<(f64, f64, f64)> = Vec::new();
    let place = |point: &(String, f64, f64)| {
        let (left, right, mut at) = (point.1, point.1 + width(&point.0), point.2);
        while taken.iter().any(|&(from, to, y)| from < right && left < to && (y - at).abs() < step) {
            at -= step;
        }
        taken.push((left, right, at));
        (point.1, at)
    };
    let places: Vec<(f64, f64)> = named.iter().copied().map(place).collect();
    let lowest = places.iter().map(|place| place.1).fold(up.start, f64::min);
    let up = lowest - step..up.end;
    drawn(title, 420, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(across.clone(), up.clone())
            .map_err(|error| error.to_string())?;
        mesh(&mut chart, x, y)?;
        chart
            .draw_series(LineSeries::new(front.iter().copied(), COLOURS[6].stroke_width(2)))
            .map_err(|error| error.to_string())?;
        let dots = points.iter().map(|point| Circle::new((point.1, point.2), 5, COLOURS[0].filled()));
        chart.draw_series(dots).map_err(|error| error.to_string())?;
        let names = named
            .iter()
            .zip(&places)
            .map(|(point, place)| EmptyElement::at(*place) + Text::new(point.0.clone(), (9, -7), FONT.into_font()));
        chart.draw_series(names).map_err(|error| error.to_string())?;
        Ok(())
    })
}

/// A line for each name, with its interval and its estimate as a point; `at` draws a line down at a value.
pub fn intervals(title: &str, x: Axis<'_>, named: &[(String, Interval)], at: f64) -> String {
    let values = named.iter().flat_map(|(_, interval)| [interval.low, interval.high, at]);
    let across = room(values, false);
    let height = 80 + 30 * named.len() as u32;
    let longest = named.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) as u32;
    drawn(title, height, |area| {
        let names = |value: &f64| {
            let place = value.round();
            let named = named.get(place as usize).filter(|_| (value - place).abs() < 1e-6 && place >= 0.0);
            named.map_or_else(String::new, |(name, _)| name.clone())
        };
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(44)
            .y_label_area_size(24 + 8 * longest.min(28))
            .build_cartesian_2d(across.clone(), named.len() as f64 - 0.5..-0.5)
            .map_err(|error| error.to_string())?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(2 * named.len() + 1)
            .y_label_formatter(&names)
            .x_labels(6)
            .x_label_formatter(&|value| format!("{value:.*}", x.decimals))
            .x_desc(x.name)
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(FONT)
            .draw()
            .map_err(|error| error.to_string())?;
        let down = [(at, -0.5), (at, named.len() as f64 - 0.5)];
        chart.draw_series(LineSeries::new(down, COLOURS[6].stroke_width(2))).map_err(|error| error.to_string())?;
        for (place, (_, interval)) in named.iter().enumerate() {
            let y = place as f64;
            let line = LineSeries::new([(interval.low, y), (interval.high, y)], COLOURS[0].stroke_width(3));
            chart.draw_series(line).map_err(|error| error.to_string())?;
            let dot = Circle::new((interval.estimate, y), 5, COLOURS[0].filled());
            chart.draw_series([dot]).map_err(|error| error.to_string())?;
        }
        Ok(())
    })
}

fn mesh<'a>(
    chart: &mut ChartContext<
        'a,
        SVGBackend<'a>,
        Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
    >,
    x: Axis<'_>,
    y: Axis<'_>,
) -> Result<(), String> {
    chart
        .configure_mesh()
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&|value| format!("{value:.*}", x.decimals))
        .y_label_formatter(&|value| format!("{value:.*}", y.decimals))
        .x_desc(x.name)
        .y_desc(y.name)
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(FONT)
        .draw()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AXIS: Axis<'_> = Axis { name: "value", decimals: 1 };

    #[test]
    fn pictures_have_titles_names_and_the_pages_colours() {
        let interval = Interval { estimate: 2.0, low: 1.5, high: 2.5 };
        let all = [
            intervals("Speed & more", AXIS, &[("plan <a>".into(), interval)], 1.0),
            pareto("Speed & more", AXIS, AXIS, &[("plan <a>".into(), 1.0, 0.9), ("b".into(), 1.0, 0.9)]),
            lines(
                "Speed & more",
                AXIS,
                AXIS,
                &[
                    Series { name: "plan <a>".into(), points: vec![(1.0, 1.0), (2.0, 3.0)] },
                    Series { name: "b".into(), points: vec![] },
                ],
                true,
            ),
        ];
        for svg in all {
            assert!(
                svg.contains("aria-label=\"Speed &amp; more\"")
                    && svg.contains("currentColor")
                    && svg.contains("var(--grid)"),
                "{svg}"
            );
            assert!(svg.contains("plan &lt;a&gt;") && !svg.contains("<a>") && !svg.contains("NaN"), "{svg}");
        }
    }
}
