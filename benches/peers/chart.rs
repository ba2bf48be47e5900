//! The chart: a group of bars for each workload, a bar for each filesystem that encrypts, which shows how many times as fast
//! as FUSE alone it is. The scale is logarithmic around 1, so that twice and half as fast are equally far from it. Colours are
//! those of Okabe and Ito, which the colour-blind can tell apart; figures stand beside the bars as well.

use std::fmt::Write as _;

use crate::report::ratios;
use crate::results::Results;

const COLOURS: [&str; 5] = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"];
const LABELS: f64 = 170.0;
const PLOT: f64 = 560.0;
/// Room for figures on either side of the plot.
const MARGIN: f64 = 50.0;
const WIDTH: f64 = LABELS + PLOT + 2.0 * MARGIN;
const HEAD: f64 = 92.0;
const BAR: f64 = 11.0;
const GAP: f64 = 12.0;
/// Powers of two at the ends of the scale; what lies beyond ends there, and its figure says how far it goes.
const LEAST: i32 = -6;
const MOST: i32 = 3;

/// Where a ratio is, in pixels from the left.
fn position(ratio: f64) -> f64 {
    let power = ratio.log2().clamp(LEAST.into(), MOST.into());
    LABELS + MARGIN + PLOT * (power - f64::from(LEAST)) / f64::from(MOST - LEAST)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// An SVG document.
pub fn svg(results: &Results) -> String {
    let names: Vec<_> = results
        .contenders
        .iter()
        .filter(|column| column.encrypts)
        .collect();
    let group = BAR * names.len() as f64 + GAP;
    let bottom = HEAD + group * results.workloads.len() as f64;
    let height = bottom + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\">Speed in ratio to FUSE alone (the better passthrough of libfuse)</text>\n\
         <text x=\"12\" y=\"42\" fill=\"#555\">{}; on {}; medians of {}</text>\n",
        escaped(&results.machine),
        escaped(&results.backing),
        results.rounds,
    );
    // Writing to a string cannot fail.
    let mut line = |text: String| {
        let _ = writeln!(svg, "{text}");
    };
    for (index, column) in names.iter().enumerate() {
        let x = 12.0 + 110.0 * index as f64;
        let colour = COLOURS[index % COLOURS.len()];
        line(format!(
            "<rect x=\"{x}\" y=\"54\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"
        ));
        let name = escaped(&column.name);
        line(format!("<text x=\"{}\" y=\"64\">{name}</text>", x + 17.0));
    }
    for power in LEAST..=MOST {
        let ratio = 2.0_f64.powi(power);
        let x = position(ratio);
        let (colour, width) = if power == 0 {
            ("black", 2)
        } else {
            ("#ddd", 1)
        };
        line(format!(
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{HEAD}\" y2=\"{bottom:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
        ));
        let label = if power < 0 {
            format!("1/{}", 2_u32.pow(power.unsigned_abs()))
        } else {
            format!("{ratio}")
        };
        for y in [HEAD - 6.0, bottom + 16.0] {
            line(format!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label}×</text>"
            ));
        }
    }
    for (number, row) in results.workloads.iter().enumerate() {
        let top = HEAD + group * number as f64 + GAP / 2.0;
        let middle = top + (group - GAP) / 2.0 + 4.0;
        let name = escaped(&row.name);
        line(format!("<text x=\"12\" y=\"{middle:.1}\">{name}</text>"));
        for (index, (_, ratio)) in ratios(results, row).into_iter().enumerate() {
            let y = top + BAR * index as f64;
            line(bar(ratio, y, COLOURS[index % COLOURS.len()]));
        }
    }
    svg += "</svg>\n";
    svg
}

/// One bar from the line at 1 to its ratio, and its figure behind its end.
fn bar(ratio: Option<f64>, y: f64, colour: &str) -> String {
    let one = position(1.0);
    let baseline = y + BAR - 2.0;
    let Some(ratio) = ratio else {
        let x = one + 5.0;
        return format!(
            "<text x=\"{x:.1}\" y=\"{baseline:.1}\" font-size=\"10\" fill=\"#a00\">none</text>"
        );
    };
    let end = position(ratio);
    let (left, width) = (one.min(end), (end - one).abs());
    let (x, anchor) = if ratio < 1.0 {
        (end - 4.0, "end")
    } else {
        (end + 4.0, "start")
    };
    let height = BAR - 1.0;
    format!(
        "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>\
         <text x=\"{x:.1}\" y=\"{baseline:.1}\" font-size=\"10\" text-anchor=\"{anchor}\">{ratio:.2}</text>"
    )
}
