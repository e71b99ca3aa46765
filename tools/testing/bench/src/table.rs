//! Samples by row and column, and the table of their medians.

/// A row: samples of a reference, and of what is compared with it.
pub struct Samples {
    pub name: String,
    /// How much more than the reference is too much, if there is a limit.
    pub limit: Option<f64>,
    columns: Vec<Vec<f64>>,
}

impl Samples {
    pub fn new(name: &str, columns: usize, limit: Option<f64>) -> Samples {
        Samples {
            name: name.to_owned(),
            limit,
            columns: vec![Vec::new(); columns],
        }
    }

    pub fn add(&mut self, column: usize, sample: f64) {
        self.columns[column].push(sample);
    }

    pub fn median(&self, column: usize) -> f64 {
        let mut samples = self.columns[column].clone();
        samples.sort_by(f64::total_cmp);
        let middle = samples.len() / 2;
        if samples.len() % 2 == 1 {
            samples[middle]
        } else {
            (samples[middle - 1] + samples[middle]) / 2.0
        }
    }

    /// How much more than the reference a column is: 0.03 for 3 %.
    pub fn excess(&self, column: usize) -> f64 {
        self.median(column) / self.median(0) - 1.0
    }

    /// What is wrong with it.
    pub fn failure(&self) -> Option<String> {
        let limit = self.limit?;
        let worst = (1..self.columns.len())
            .map(|column| self.excess(column))
            .fold(f64::MIN, f64::max);
        (worst > limit).then(|| {
            format!(
                "{}: {:+.1} % instructions, more than {:.0} %",
                self.name,
                worst * 100.0,
                limit * 100.0
            )
        })
    }
}

/// A table for README.
pub fn show(heads: &[&str], rows: &[Samples]) {
    println!("| {} |", heads.join(" | "));
    println!("|---|{}", "---:|".repeat(heads.len() - 1));
    for row in rows {
        let mut cells = vec![row.name.clone(), format!("{:.0}", row.median(0))];
        for column in 1..row.columns.len() {
            cells.push(format!(
                "{:.0} ({:+.1} %)",
                row.median(column),
                row.excess(column) * 100.0
            ));
        }
        println!("| {} |", cells.join(" | "));
    }
}
