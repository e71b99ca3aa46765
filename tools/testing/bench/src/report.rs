//! What three boots have measured, side by side: a table, a JSON file, plots; and what got worse.
//!
//! Runs on the host, not in the test machine.

use crate::figures::{Better, Figure, Goal, FIGURES};
use crate::plot;
use serde::{Deserialize, Serialize};
use smc_selftest::{check, Context, Fail, Outcome};
use std::collections::BTreeMap;
use std::path::Path;

/// A figure of each stack; what was not measured is not there.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    c: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    smc_rs: Option<f64>,
}

/// The file: of which kernel, and the rows by name.
#[derive(Default, Deserialize, Serialize)]
struct Results {
    kernel: String,
    rows: BTreeMap<String, Row>,
}

/// `report DIR BASELINE KERNEL`: reads DIR/{tcp,c,rust}.log, as far as they are there; writes DIR/bench.{md,json}
/// and DIR/*.svg. Fails if something got worse.
pub fn main(dir: &str, baseline: &str, kernel: &str) -> Outcome {
    let dir = Path::new(dir);
    let mut results = Results {
        kernel: kernel.to_owned(),
        ..Results::default()
    };
    type Place = fn(&mut Row) -> &mut Option<f64>;
    let stacks: [(&str, Place); 3] = [
        ("tcp", |row| &mut row.tcp),
        ("c", |row| &mut row.c),
        ("rust", |row| &mut row.smc_rs),
    ];
    for (name, place) in stacks {
        let Ok(text) = std::fs::read_to_string(dir.join(format!("{name}.log"))) else {
            continue;
        };
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("figure\t") else {
                continue;
            };
            let (figure, value) = rest
                .split_once('\t')
                .and_then(|(figure, value)| Some((figure, value.trim().parse().ok()?)))
                .ok_or_else(|| Fail(format!("'{line}' is no figure")))?;
            *place(results.rows.entry(figure.to_owned()).or_default()) = Some(value);
        }
    }
    check!(!results.rows.is_empty(), "no figure in {}", dir.display());
    let table = table(&results);
    print!("{table}");
    std::fs::write(dir.join("bench.md"), &table)?;
    let json = serde_json::to_string_pretty(&results).map_err(|error| Fail(error.to_string()))?;
    std::fs::write(dir.join("bench.json"), json + "\n")?;
    for (file, title, other) in [
        (
            "smc_rs-c.svg",
            "smc_rs / C SMC-R",
            (|row| row.c) as fn(&Row) -> Option<f64>,
        ),
        ("smc_rs-tcp.svg", "smc_rs / TCP", |row| row.tcp),
    ] {
        let bars: Vec<(&str, f64)> = rows(&results)
            .filter_map(|(figure, row)| {
                Some((figure.name, speed(figure, row.smc_rs?, other(row)?)?))
            })
            .collect();
        if !bars.is_empty() {
            std::fs::write(dir.join(file), plot::bars(title, &bars))?;
        }
    }
    compare(&results, baseline)
}

/// The rows in the order of `FIGURES`.
fn rows(results: &Results) -> impl Iterator<Item = (&'static Figure, &Row)> {
    FIGURES
        .iter()
        .filter_map(|figure| Some((figure, results.rows.get(figure.name)?)))
}

/// How many times as good the first one is.
fn speed(figure: &Figure, this: f64, other: f64) -> Option<f64> {
    let ratio = match figure.better {
        Better::More => this / other,
        Better::Less => other / this,
    };
    ratio.is_finite().then_some(ratio)
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(v) if v.abs() >= 1000.0 => format!("{v:.0}"),
        Some(v) if v.abs() >= 100.0 => format!("{v:.1}"),
        Some(v) => format!("{v:.2}"),
    }
}

fn ratio(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |v| format!("{v:.2}"))
}

/// The goal in words, and whether it is reached.
fn goal(figure: &Figure, row: &Row) -> (String, &'static str) {
    let (words, reached) = match figure.goal {
        None => return (String::new(), ""),
        Some(Goal::AtMost(most)) => (
            format!("{most} {} or less", figure.unit),
            row.smc_rs.map(|v| v <= most),
        ),
        Some(Goal::AtLeast(least)) => (format!("{least} or more"), row.smc_rs.map(|v| v >= least)),
        Some(Goal::NearTcp(part)) => (
            format!("within {:.0} % of TCP", part * 100.0),
            row.smc_rs
                .zip(row.tcp)
                .and_then(|(v, tcp)| Some(speed(figure, v, tcp)? >= 1.0 - part)),
        ),
        Some(Goal::TimesC(times)) => (
            format!("{times} times C"),
            row.smc_rs
                .zip(row.c)
                .and_then(|(v, c)| Some(speed(figure, v, c)? >= times)),
        ),
    };
    let verdict = match reached {
        None => "",
        Some(true) => "yes",
        Some(false) => "no",
    };
    (words, verdict)
}

fn table(results: &Results) -> String {
    let mut text = String::from(
        "| row | unit | TCP | C SMC-R | smc_rs | smc_rs / C | smc_rs / TCP | to reach | reached |\n\
         |---|---|---:|---:|---:|---:|---:|---|---|\n",
    );
    for (figure, row) in rows(results) {
        let than = |other: Option<f64>| speed(figure, row.smc_rs?, other?);
        let (words, verdict) = goal(figure, row);
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {words} | {verdict} |\n",
            figure.name,
            figure.unit,
            number(row.tcp),
            number(row.c),
            number(row.smc_rs),
            ratio(than(row.c)),
            ratio(than(row.tcp)),
        );
    }
    text
}

/// Says what got worse than the baseline.
fn compare(results: &Results, baseline: &str) -> Outcome {
    let Ok(text) = std::fs::read_to_string(baseline) else {
        println!("\nno baseline to compare with ({baseline})");
        return Ok(());
    };
    let old: Results = serde_json::from_str(&text)
        .map_err(|error| Fail(error.to_string()))
        .during(baseline)?;
    let mut worse = 0;
    for (figure, row) in rows(results) {
        let before = old.rows.get(figure.name).and_then(|row| row.smc_rs);
        let (Some(now), Some(before)) = (row.smc_rs, before) else {
            continue;
        };
        let change = match figure.better {
            Better::More => before / now - 1.0,
            Better::Less => now / before - 1.0,
        };
        // What was nothing and is something now, is worse too; nothing and nothing is no number.
        if change > figure.limit() {
            worse += 1;
            println!(
                "worse: {}: {} {}, {} in the baseline ({:+.1} %)",
                figure.name,
                number(Some(now)),
                figure.unit,
                number(Some(before)),
                change * 100.0
            );
        }
    }
    check!(worse == 0, "{worse} rows are worse than in {baseline}");
    println!("\nno row is worse than in the baseline (3 %; see figures.rs)");
    Ok(())
}
