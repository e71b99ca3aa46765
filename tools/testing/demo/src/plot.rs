//! The picture of `make demo-erdma`, made of the tables that its runs have printed.

use smc_selftest::{sys, Context, Fail, Outcome};
use std::fmt::Write;
use std::process::ExitCode;

// The first words of the tables' headings.
pub const INSTRUCTIONS: &str = "instructions for one";
pub const RATE: &str = "in a second";
pub const LATENCY: &str = "latency, us";

/// 12345678 as 12.35M: four digits, so that what is worked out from them is right to the second one.
pub fn short(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e4 => (v / 1e3, "k"),
        v => (v, ""),
    };
    match value {
        v if v >= 1e3 => format!("{v:.0}{unit}"),
        v if v >= 1e2 => format!("{v:.1}{unit}"),
        v if v >= 1e1 => format!("{v:.2}{unit}"),
        v => format!("{v:.3}{unit}"),
    }
}

fn long(text: &str) -> Option<f64> {
    let (digits, unit) = match text.strip_suffix(['k', 'M', 'G']) {
        Some(digits) => (digits, &text[digits.len()..]),
        None => (text, ""),
    };
    let factor = match unit {
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        _ => 1.0,
    };
    digits.parse::<f64>().ok().map(|value| value * factor)
}

/// A row: what was done, of what one, and the figures of TCP, C and smc_rs, each if there is one.
type Row<'a> = (&'a str, &'a str, Vec<(&'static str, &'a str)>);

/// The last table with this heading.
fn table<'a>(log: &'a str, heading: &str) -> Vec<Row<'a>> {
    const NAMES: [&str; 3] = ["TCP", "C SMC-R", "smc_rs"];
    let mut names: Vec<Option<&'static str>> = Vec::new();
    let mut rows = Vec::new();
    let mut inside = false;
    for line in log.lines() {
        let cells: Vec<&str> = line.trim().split('|').map(str::trim).collect();
        // A row begins and ends with a bar.
        let (["", title, figures @ .., unit, ""], true) = (&cells[..], cells.len() > 4) else {
            inside = false;
            continue;
        };
        if *title == heading {
            inside = true;
            rows.clear();
            let known = |cell: &&str| NAMES.into_iter().find(|name| name == cell);
            names = figures.iter().map(known).collect();
        } else if inside && !title.starts_with("---") {
            let own = names.iter().zip(figures);
            let own = own.filter_map(|(name, figure)| name.map(|name| (name, *figure)));
            rows.push((*title, *unit, own.filter(|(_, f)| !f.is_empty()).collect()));
        }
    }
    rows
}

const LEFT: f64 = 190.0;
/// What TCP has.
const WHOLE: f64 = 200.0;
/// Longer bars are cut off there.
const MOST: f64 = 2.2;
const BAR: f64 = 13.0;
const GAP: f64 = 9.0;

fn panel(svg: &mut String, y: &mut f64, title: &str, rows: &[Row<'_>]) {
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        "<text x=\"12\" y=\"{:.0}\" font-size=\"14\" font-weight=\"bold\">{title}</text>",
        *y + 14.0
    );
    *y += 26.0;
    let top = *y;
    for (name, _, figures) in rows {
        let Some(whole) = figures
            .iter()
            .find(|(name, _)| *name == "TCP")
            .and_then(|(_, figure)| long(figure))
        else {
            continue;
        };
        let middle = *y + BAR * figures.len() as f64 / 2.0 + 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{middle:.0}\" text-anchor=\"end\">{name}</text>",
            LEFT - 8.0
        );
        for (stack, figure) in figures {
            let value = long(figure).unwrap_or(0.0);
            let length = (value / whole).min(MOST) * WHOLE;
            let colour = match *stack {
                "TCP" => "#9e9e9e",
                "C SMC-R" => "#e0883a",
                _ => "#2e7d32",
            };
            let cut = if value / whole > MOST {
                " (cut off)"
            } else {
                ""
            };
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\">{stack}: {figure} ({:.2}){cut}</text>",
                *y,
                length.max(1.0),
                BAR - 2.0,
                LEFT + length + 5.0,
                *y + BAR - 3.0,
                value / whole
            );
            *y += BAR;
        }
        *y += GAP;
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{0}\" x2=\"{0}\" y1=\"{top:.0}\" y2=\"{1:.0}\" stroke=\"#bbb\" stroke-dasharray=\"3 3\"/>",
        LEFT + WHOLE,
        *y - GAP
    );
    *y += 12.0;
}

/// Of the output of the run by the wall clock, and of that on the instruction clock.
fn picture(rates: &str, instructions: &str) -> Outcome<String> {
    let panels = [
        (
            "Instructions of both machines for one request or byte: less is better",
            table(instructions, INSTRUCTIONS),
        ),
        (
            "Requests or bytes in a second, by the wall clock of an emulator (rough): more is better",
            table(rates, RATE),
        ),
        (
            "Latency in microseconds, by the same clock: less is better",
            table(rates, LATENCY),
        ),
    ];
    let mut body = String::new();
    let mut y = 58.0;
    for (title, rows) in &panels {
        if rows.is_empty() {
            return Err(Fail(format!("no table for '{title}' in the runs' output")));
        }
        panel(&mut body, &mut y, title, rows);
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 {y:.0}\" width=\"800\" height=\"{y:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"16\" font-weight=\"bold\">Unmodified programs between two machines, by TCP and by \
         SMC-R over an eRDMA adapter</text>\n\
         <text x=\"12\" y=\"41\" fill=\"#555\">The adapter is emulated, and its own work is counted nowhere. In brackets and as \
         bars: against TCP on the same machines.</text>\n{body}</svg>\n"
    ))
}

pub fn main(rates: &str, instructions: &str) -> ExitCode {
    let made = || -> Outcome<String> {
        let read = |path: &str| sys::read_file(path).during(path);
        picture(&read(rates)?, &read(instructions)?)
    };
    match made() {
        Ok(svg) => {
            print!("{svg}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("smc-demo plot: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "noise | of | bars\n\
        | in a second | TCP | C SMC-R | smc_rs | to TCP | to C | |\n|---|---:|---:|---:|---:|---:|---|\n\
        | redis | 1000 | 2.5k | 12.3M | 2.00 | 0.9 | request |\n\n\
        | latency, us | TCP | smc_rs | to TCP | |\n|---|---:|---:|---:|---|\n| redis | 5.00 | | | request |\n";

    #[test]
    fn tables_are_found_by_their_heading() {
        let figures = vec![("TCP", "1000"), ("C SMC-R", "2.5k"), ("smc_rs", "12.3M")];
        assert_eq!(table(LOG, RATE), [("redis", "request", figures)]);
        assert_eq!(
            table(LOG, LATENCY),
            [("redis", "request", vec![("TCP", "5.00")])]
        );
        assert!(table(LOG, INSTRUCTIONS).is_empty());
    }

    #[test]
    fn figures_are_read_as_they_are_written() {
        for value in [0.5, 99.0, 1234.0, 45_600.0, 7_800_000.0, 1.23e9] {
            let read = long(&short(value)).unwrap();
            assert!((read / value - 1.0).abs() < 0.01, "{value} {read}");
        }
    }
}
