//! The table of results, in Markdown.

use crate::cases::{Case, Results};
use crate::probes::Counts;
use crate::Judged;

pub struct Row([String; 6]);

impl Row {
    pub fn new(case: &Case, tcp: &Results, smc: &Results, counts: &Counts, judged: &Judged) -> Row {
        let mut connections = format!("{} by SMC-R", counts.connections());
        let fallbacks = counts.fallbacks();
        if fallbacks > 0 {
            connections += &format!(", {} by TCP", fallbacks.div_ceil(2));
        }
        let mut difference = judged.listed.clone();
        if !judged.trouble.is_empty() {
            difference.insert(0, format!("**{} not expected**", judged.trouble.len()));
        }
        if difference.is_empty() {
            difference.push("none".into());
        }
        Row([
            case.program.clone(),
            case.ran.clone(),
            tcp.words(),
            smc.words(),
            connections,
            difference.join("; "),
        ])
    }
}

pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| program | what ran | over TCP | over SMC-R | connections of the SMC-R run | difference |\n|---|---|---|---|---|---|\n",
    );
    for row in rows {
        text += &format!("| {} |\n", row.0.join(" | "));
    }
    text
}
