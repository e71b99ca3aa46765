//! Bars as an SVG picture.

use std::fmt::Write;

const LEFT: f64 = 300.0;
const WIDTH: f64 = 420.0;
const LINE: f64 = 22.0;
const TOP: f64 = 50.0;

/// A bar for each ratio, on a logarithmic scale whose middle is 1: to the right is better.
pub fn bars(title: &str, all: &[(&str, f64)]) -> String {
    // As far as the farthest, and at least a factor of two.
    let most = all.iter().fold(1.0f64, |most, (_, ratio)| {
        most.max(ratio.max(1e-6).log2().abs())
    });
    let middle = LEFT + WIDTH / 2.0;
    let scale = WIDTH / 2.0 / most;
    let height = TOP + LINE * all.len() as f64 + 20.0;
    let mut svg = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\" font-weight=\"bold\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"38\" fill=\"#555\">right of the line: better; logarithmic</text>\n",
        LEFT + WIDTH + 60.0,
        escaped(title),
    );
    for (number, (name, ratio)) in all.iter().enumerate() {
        let y = TOP + LINE * number as f64;
        let length = ratio.max(1e-6).log2() * scale;
        let (x, colour) = if length < 0.0 {
            (middle + length, "#c0504d")
        } else {
            (middle, "#2e7d32")
        };
        let _ = write!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{x:.1}\" y=\"{:.0}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{colour}\"/>\n\
             <text x=\"{:.0}\" y=\"{:.0}\">{ratio:.2}</text>\n",
            LEFT - 8.0,
            y + 15.0,
            escaped(name),
            y + 3.0,
            length.abs().max(0.5),
            LINE - 6.0,
            LEFT + WIDTH + 8.0,
            y + 15.0,
        );
    }
    let _ = write!(
        svg,
        "<line x1=\"{middle}\" x2=\"{middle}\" y1=\"{:.0}\" y2=\"{:.0}\" stroke=\"#333\"/>\n</svg>\n",
        TOP - 4.0,
        height - 14.0
    );
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
