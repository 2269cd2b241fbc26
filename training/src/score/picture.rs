//! Right answers as bars, an SVG picture.

use plotters::prelude::*;

use super::tally::Score;
use crate::tasks::{Category, Level};

/// A colour for each level, told apart with the usual kinds of colour blindness too (Okabe and Ito).
const COLOURS: [RGBColor; 3] = [RGBColor(0, 158, 115), RGBColor(230, 159, 0), RGBColor(213, 94, 0)];
/// The width of a bar; a category takes 1.
const BAR: f64 = 0.26;

/// The share of right answers: three bars for each category, one for a level, and three for all together.
///
/// # Errors
/// The error of the drawing.
pub fn picture(score: &Score) -> Result<String, String> {
    let groups: Vec<Option<Category>> = Category::ALL.into_iter().map(Some).chain([None]).collect();
    let mut svg = String::new();
    draw(&mut svg, score, &groups).map_err(|error| error.to_string())?;
    Ok(svg)
}

type DrawingError<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn draw<'a>(svg: &'a mut String, score: &Score, groups: &[Option<Category>]) -> Result<(), DrawingError<'a>> {
    let area = SVGBackend::with_string(svg, (900, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Right answers by category and level", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(-0.5..groups.len() as f64 - 0.5, 0.0..112.0)?;
    let name = |place: &f64| {
        let group = groups.get(place.round() as usize).filter(|_| (place - place.round()).abs() < 1e-6);
        group.map_or_else(String::new, |group| group.map_or("all", Category::name).to_owned())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(groups.len() + 1)
        .x_label_formatter(&name)
        .y_label_formatter(&|value| if *value <= 100.0 { format!("{value:.0}%") } else { String::new() })
        .light_line_style(WHITE)
        .label_style(("sans-serif", 14))
        .draw()?;
    for ((index, level), colour) in Level::ALL.into_iter().enumerate().zip(COLOURS) {
        let bars = groups.iter().enumerate().filter_map(|(place, category)| {
            let group = score.group(*category, Some(level), None)?;
            let left = place as f64 + (index as f64 - 1.5) * BAR;
            Some(Rectangle::new([(left, 0.0), (left + BAR, 100.0 * group.accuracy)], colour.filled()))
        });
        chart
            .draw_series(bars)?
            .label(level.name())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 14))
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()
}
