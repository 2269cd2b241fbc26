//! A curve as an SVG picture.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// Looks of a curve: which columns of the table are shown, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The title above it.
    pub title: String,
    /// Label of the horizontal axis; the first column of the table is called so.
    pub x: String,
    /// Label of the vertical axis.
    pub y: String,
    /// True if each step to the right multiplies the number of training steps.
    pub log_x: bool,
    /// True if each step upwards multiplies the value.
    pub log_y: bool,
    /// Columns that are only for the table.
    pub hidden: Vec<String>,
}

/// Points of a line; more would not be seen, and make the file large.
const MOST_POINTS: usize = 500;

/// Colours that are told apart with the usual kinds of colour blindness too (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Values of larger magnitude are left out of the picture: no loss has them, and the search for round numbers beside
/// an axis does not end on ranges near the limits of floats.
const LARGEST: f64 = 1e12;
/// A range narrower than this part of its values is widened, for the same reason.
const NARROWEST: f64 = 1e-6;

type Points = Vec<(f64, f64)>;

impl Picture {
    /// Losses against steps, both logarithmic: what a training gains with every doubling. Columns called `learning
    /// rate`, `gradient norm`, `tokens` and `seconds` are only for the table.
    pub fn of_losses(title: &str) -> Self {
        let hidden = ["learning rate", "gradient norm", "tokens", "seconds"].map(str::to_owned).into();
        Self {
            title: title.to_owned(),
            x: "step".to_owned(),
            y: "loss (nats a token)".to_owned(),
            log_x: true,
            log_y: true,
            hidden,
        }
    }

    /// The picture of some columns with their steps and values. An axis is linear where a logarithm has no place.
    pub(super) fn draw<'a>(&self, columns: impl Iterator<Item = (&'a str, Vec<(u64, f64)>)>) -> Result<String, String> {
        let shown = columns.filter(|(name, _)| !self.hidden.iter().any(|hidden| hidden == name));
        let lines: Vec<(&str, Points)> = shown
            .map(|(name, points)| {
                let drawable = points.into_iter().filter(|(_, value)| value.abs() <= LARGEST);
                (name, thinned(&drawable.map(|(step, value)| (step as f64, value)).collect::<Points>(), self.log_x))
            })
            .collect();
        let points = || lines.iter().flat_map(|(_, points)| points);
        let (x, log_x) = range(points().map(|point| point.0), self.log_x);
        let (y, log_y) = range(points().map(|point| point.1), self.log_y);
        let mut svg = String::new();
        match (log_x, log_y) {
            (false, false) => self.draw_on(&mut svg, &lines, x, y),
            (true, false) => self.draw_on(&mut svg, &lines, x.log_scale(), y),
            (false, true) => self.draw_on(&mut svg, &lines, x, y.log_scale()),
            (true, true) => self.draw_on(&mut svg, &lines, x.log_scale(), y.log_scale()),
        }?;
        Ok(svg)
    }

    fn draw_on<X, Y>(&self, svg: &mut String, lines: &[(&str, Points)], x: X, y: Y) -> Result<(), String>
    where
        X: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
        Y: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
    {
        let failed = |error: DrawingAreaErrorKind<_>| error.to_string();
        let area = SVGBackend::with_string(svg, (900, 540)).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .x_desc(self.x.as_str())
            .y_desc(self.y.as_str())
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .light_line_style(WHITE)
            .label_style(("sans-serif", 15))
            .axis_desc_style(("sans-serif", 17))
            .draw()
            .map_err(failed)?;
        for ((name, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            let series = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            chart
                .draw_series(series)
                .map_err(failed)?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        if !lines.is_empty() {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .label_font(("sans-serif", 16))
                .background_style(WHITE)
                .border_style(BLACK.mix(0.3))
                .draw()
                .map_err(failed)?;
        }
        area.present().map_err(failed)
    }
}

/// The means of neighbouring points, so that few are left: of equally many each, or on a logarithmic axis (`log`) of
/// as many as lie equally close there.
fn thinned(points: &[(f64, f64)], log: bool) -> Points {
    let count = points.len();
    let bucket = |index: usize| match log {
        false => index * MOST_POINTS / count.max(MOST_POINTS),
        true if count <= MOST_POINTS => index,
        true => (MOST_POINTS as f64 * (index as f64).ln_1p() / (count as f64).ln_1p()) as usize,
    };
    let numbered: Vec<(usize, &(f64, f64))> = points.iter().enumerate().map(|(i, point)| (bucket(i), point)).collect();
    let mean = |points: &[(usize, &(f64, f64))]| {
        let sum = points.iter().fold((0.0, 0.0), |sum, (_, point)| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / points.len() as f64, sum.1 / points.len() as f64)
    };
    numbered.chunk_by(|one, next| one.0 == next.0).map(mean).collect()
}

/// The range of some values with a little room, and whether it is logarithmic.
fn range(values: impl Iterator<Item = f64>, log: bool) -> (std::ops::Range<f64>, bool) {
    let bounds = values.fold(None, |bounds: Option<(f64, f64)>, value| {
        Some(bounds.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
    });
    match bounds {
        Some((low, high)) if log && low >= 1.0 / LARGEST && high / low > 1.001 => {
            let room = (high / low).powf(0.03);
            (low / room..high * room, true)
        }
        Some((low, high)) => {
            let magnitude = low.abs().max(high.abs()).max(1e-3);
            let room = (0.03 * (high - low)).max(NARROWEST * magnitude);
            (low - room..high + room, false)
        }
        None => (0.0..1.0, false),
    }
}

/// A number beside an axis.
fn short(value: f64) -> String {
    let magnitude = value.abs();
    match magnitude {
        0.0 => "0".to_owned(),
        1e6.. => format!("{}M", trimmed(value / 1e6)),
        1e4.. => format!("{}k", trimmed(value / 1e3)),
        0.001.. => trimmed(value),
        _ => format!("{value:.1e}"),
    }
}

/// At most three digits behind the point, without zeros at the end.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failing test may panic")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draw(picture: &Picture, columns: &[(&str, Vec<(u64, f64)>)]) -> String {
        picture.draw(columns.iter().map(|(name, points)| (*name, points.clone()))).unwrap()
    }

    #[test]
    fn a_line_and_a_name_for_each_column_that_is_shown() {
        let falling = |scale: f64| (1..=20_000).map(|step| (step, scale / step as f64)).collect::<Vec<_>>();
        let columns = [("train", falling(10.0)), ("books", falling(11.0)), ("learning rate", falling(1.0))];
        let svg = draw(&Picture::of_losses("Pretraining"), &columns);
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for shown in ["Pretraining", "train", "books", "loss (nats a token)", "step"] {
            assert!(svg.contains(shown), "{shown}");
        }
        assert!(!svg.contains("learning rate"));
        assert!(svg.len() < 100_000, "{} bytes", svg.len());
    }

    #[test]
    fn nothing_and_a_single_point_are_drawn_too() {
        let picture = Picture::of_losses("x");
        assert!(draw(&picture, &[]).contains("</svg>"));
        for points in [vec![], vec![(0, 1.0)], vec![(7, 0.0)]] {
            assert!(draw(&picture, &[("a", points)]).contains("</svg>"));
        }
    }

    proptest! {
        /// The drawing once went on for ever.
        #[test]
        fn whatever_was_measured_is_drawn(
            points in prop::collection::vec((any::<u64>(), any::<f64>()), 0..5),
            near in prop::collection::vec((0..9u64, -1e-9..1e-9), 0..5),
            log in any::<(bool, bool)>(),
        ) {
            let picture = Picture { log_x: log.0, log_y: log.1, ..Picture::of_losses("x") };
            let near = near.into_iter().map(|(step, value)| (step, 3.0 + value)).collect();
            for points in [points, near] {
                prop_assert!(draw(&picture, &[("a", points)]).contains("</svg>"));
            }
        }
    }

    #[test]
    fn thinning_keeps_the_mean() {
        let points: Points = (0..2000).map(|x| (f64::from(x), f64::from(x % 7))).collect();
        let mean = |points: &Points| points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64;
        for (log, exact) in [(false, 1e-9), (true, 0.2)] {
            let thin = thinned(&points, log);
            assert!(thin.len() <= MOST_POINTS && thin.len() > MOST_POINTS / 4, "{} of {log}", thin.len());
            assert!((mean(&thin) - mean(&points)).abs() < exact);
            assert_eq!(thinned(&points[..10], log), points[..10]);
        }
        // The first steps are told apart where a logarithmic axis shows them.
        assert_eq!(thinned(&points, true)[..5], points[..5]);
    }

    #[test]
    fn axis_numbers_are_short() {
        assert_eq!([0.0, 2.5, 0.01, 20_000.0, 1.5e6].map(short), ["0", "2.5", "0.01", "20k", "1.5M"]);
    }
}
