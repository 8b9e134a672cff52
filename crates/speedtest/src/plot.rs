//! The speed over time, as an SVG file that any browser shows.

use std::fmt::Write as _;

use crate::{Direction, Point, Run, WARM_UP, Way};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
/// The panel, within the picture.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 740.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 300.0;

/// A curve and what is said of it.
struct Line<'a> {
    label: String,
    colour: &'static str,
    /// Around the tunnel.
    dashed: bool,
    points: &'a [Point],
}

/// The run as an SVG document of its own.
#[must_use]
pub fn svg(run: &Run) -> String {
    let lines = lines(run);
    let points = || lines.iter().flat_map(|line| line.points);
    let seconds = points().map(|p| p.s).fold(1.0, f64::max);
    let step = nice(points().map(|p| p.mbit_s).fold(0.0, f64::max) / 5.0);
    let highest = step * 5.0;
    let x = |s: f64| LEFT + (RIGHT - LEFT) * s / seconds;
    let y = |mbit_s: f64| BOTTOM - (BOTTOM - TOP) * (mbit_s / highest).clamp(0.0, 1.0);

    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"16\">cygnet speedtest, tunnel {}</text>\n",
        escaped(&run.tunnel)
    );
    let counted = x(WARM_UP.as_secs_f64().min(seconds));
    let _ = write!(
        out,
        "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\" fill=\"#eeeeee\"/>\n\
         <text x=\"{:.1}\" y=\"{}\" fill=\"#777777\">not counted</text>\n",
        counted - LEFT,
        BOTTOM - TOP,
        LEFT + 4.0,
        TOP + 16.0
    );
    for n in 0..=5 {
        let value = step * f64::from(n);
        let at = y(value);
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{RIGHT}\" y2=\"{at:.1}\" stroke=\"#cccccc\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            LEFT - 8.0,
            at + 4.0,
            short(value)
        );
    }
    let every = nice(seconds / 10.0).max(1.0);
    let mut second = 0.0;
    while second <= seconds {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x(second),
            BOTTOM + 18.0,
            short(second)
        );
        second += every;
    }
    let _ = write!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">s</text>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"end\">Mbit/s</text>\n",
        RIGHT,
        BOTTOM + 34.0,
        LEFT - 8.0,
        TOP - 14.0
    );
    for (n, line) in (0u32..).zip(&lines) {
        let dash = match line.dashed {
            true => " stroke-dasharray=\"6 4\"",
            false => "",
        };
        let colour = line.colour;
        let mut course = String::new();
        for point in line.points {
            let _ = write!(course, "{:.1},{:.1} ", x(point.s), y(point.mbit_s));
        }
        let at = BOTTOM + 52.0 + 20.0 * f64::from(n / 2);
        let from = LEFT + (RIGHT - LEFT) / 2.0 * f64::from(n % 2);
        let _ = write!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash} points=\"{}\"/>\n\
             <line x1=\"{from}\" y1=\"{:.1}\" x2=\"{}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\n\
             <text x=\"{}\" y=\"{at}\">{}</text>\n",
            course.trim_end(),
            at - 4.0,
            from + 30.0,
            at - 4.0,
            from + 38.0,
            escaped(&line.label)
        );
    }
    out.push_str("</svg>\n");
    out
}

fn lines(run: &Run) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for path in &run.paths {
        for (name, colour, direction) in
            [("down", "#1f6fb4", &path.down), ("up", "#d9730d", &path.up)]
        {
            let Some(Direction { mbit_s, curve, .. }) = direction else {
                continue;
            };
            lines.push(Line {
                label: format!("{} {name}: {mbit_s:.1} Mbit/s", path.way.name()),
                colour,
                dashed: path.way == Way::Direct,
                points: curve,
            });
        }
    }
    lines
}

/// The next number above that is 1, 2 or 5 with noughts.
fn nice(least: f64) -> f64 {
    if !(least.is_finite() && least > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|n| n * power);
    let fits = steps.into_iter().find(|step| *step >= least * (1.0 - 1e-9));
    fits.unwrap_or(10.0 * power)
}

/// Without noughts behind the point.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

/// Text between tags: a tunnel may have any name.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::example;

    /// The corners of each curve.
    fn curves(svg: &str) -> Vec<Vec<(f64, f64)>> {
        let courses = svg.split(" points=\"").skip(1);
        let courses = courses.map(|rest| rest.split('"').next().unwrap());
        courses
            .map(|course| {
                let corners = course.split(' ').map(|corner| {
                    let (x, y) = corner.split_once(',').unwrap();
                    (x.parse().unwrap(), y.parse().unwrap())
                });
                corners.collect()
            })
            .collect()
    }

    #[test]
    fn every_curve_is_in_the_panel_and_ends_at_its_speed() {
        let svg = svg(&example());
        let curves = curves(&svg);
        assert_eq!(curves.len(), 4);
        // The axis ends at 100 Mbit/s.
        for (curve, mbit_s) in curves.iter().zip([90.0, 20.0, 95.0, 40.0]) {
            let (x, y) = curve[23];
            assert_eq!(x, RIGHT);
            assert!((y - (BOTTOM - (BOTTOM - TOP) * mbit_s / 100.0)).abs() < 0.1);
            for (x, y) in curve {
                assert!((LEFT..=RIGHT).contains(x) && (TOP..=BOTTOM).contains(y));
            }
        }
        assert_eq!(
            svg.matches("stroke-dasharray").count(),
            4,
            "two, and their keys"
        );
    }

    #[test]
    fn names_are_text_and_no_markup() {
        let mut run = example();
        run.tunnel = "</text><script>&\u{1b}".to_owned();
        let svg = svg(&run);
        assert!(svg.contains("tunnel &lt;/text&gt;&lt;script&gt;&amp;\u{fffd}"));
        assert!(!svg.contains("<script"));
    }

    #[test]
    fn a_run_without_curves_is_a_picture_too() {
        let mut run = example();
        run.paths.clear();
        let svg = svg(&run);
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn axes_have_round_numbers() {
        let cases = [
            (0.0, 1.0),
            (0.3, 0.5),
            (1.0, 1.0),
            (18.0, 20.0),
            (21.0, 50.0),
            (999.0, 1000.0),
        ];
        for (least, expected) in cases {
            assert!((nice(least) - expected).abs() < 1e-9, "{least}");
        }
        assert_eq!([short(0.5), short(200.0), short(0.0)], ["0.5", "200", "0"]);
    }
}
