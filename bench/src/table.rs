//! Rows of samples, and how they are printed.
//! Knows units, medians and ratios. Does not know what was measured.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// What a figure counts, and so whether more of it is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Things done in a second.
    PerSecond,
    /// How long one thing took, in seconds.
    Seconds,
    /// Memory held, in bytes.
    Bytes,
    /// Bytes moved in a second.
    BytesPerSecond,
    /// How many of one thing there are to another; less is better.
    Each,
}

/// One job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// A short name, for `--row` and JSON.
    pub(crate) id: &'static str,
    /// What is done, for humans.
    pub(crate) job: &'static str,
    pub(crate) unit: Unit,
    /// The ratio that design asks for, if it does.
    pub(crate) aim: Option<f64>,
}

/// What the last column tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// How many times better the last contender is than the best of the others.
    Ratio,
    /// How many times better the last column is than the best of so many first.
    First(usize),
    /// How many times more the last column costs than the first.
    Growth,
}

/// Samples by row and column.
#[derive(Debug)]
pub(crate) struct Table {
    title: &'static str,
    columns: Vec<&'static str>,
    verdict: Verdict,
    rows: Vec<Row>,
    samples: BTreeMap<(&'static str, &'static str), Vec<f64>>,
}

impl Table {
    pub(crate) fn new(title: &'static str, columns: Vec<&'static str>, verdict: Verdict) -> Self {
        let (rows, samples) = (Vec::new(), BTreeMap::new());
        Self {
            title,
            columns,
            verdict,
            rows,
            samples,
        }
    }

    /// Adds a sample of `row`, in the row's unit.
    pub(crate) fn add(&mut self, row: &Row, column: &'static str, sample: f64) {
        if !self.rows.iter().any(|known| known.id == row.id) {
            self.rows.push(*row);
        }
        self.samples
            .entry((row.id, column))
            .or_default()
            .push(sample);
    }

    /// A table that GitHub renders too.
    pub(crate) fn to_markdown(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Ratio => "ratio to the best",
            Verdict::First(1) => "last to first",
            Verdict::First(_) => "last to the best of Node's",
            Verdict::Growth => "growth",
        };
        let mut out = format!("## {}\n\n| job | ", self.title);
        for column in &self.columns {
            let _ = write!(out, "{column} | ");
        }
        let _ = writeln!(
            out,
            "{verdict} | aim |\n|---|{}",
            "---|".repeat(self.columns.len() + 2)
        );
        for row in &self.rows {
            let _ = write!(out, "| {} | ", row.job);
            for column in &self.columns {
                let _ = write!(out, "{} | ", self.cell(row, column));
            }
            let factor = self.factor(row).map(|factor| format!("{factor:.1}x"));
            let aim = row.aim.map(|aim| format!("{aim}x"));
            let _ = writeln!(
                out,
                "{} | {} |",
                factor.unwrap_or_default(),
                aim.unwrap_or_default()
            );
        }
        out
    }

    /// Every sample, the medians and the ratios.
    pub(crate) fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let columns = self.columns.iter().map(|column| {
                let samples = self.samples.get(&(row.id, *column));
                json!({ "name": column, "median": self.median(row, column), "samples": samples })
            });
            json!({
                "id": row.id,
                "job": row.job,
                "unit": format!("{:?}", row.unit),
                "aim": row.aim,
                "factor": self.factor(row),
                "columns": columns.collect::<Vec<_>>(),
            })
        });
        json!({ "title": self.title, "rows": rows.collect::<Vec<_>>() })
    }

    fn cell(&self, row: &Row, column: &'static str) -> String {
        let median = self.median(row, column);
        median.map_or("-".to_owned(), |median| row.unit.show(median))
    }

    fn median(&self, row: &Row, column: &'static str) -> Option<f64> {
        let mut samples = self.samples.get(&(row.id, column))?.clone();
        samples.sort_by(f64::total_cmp);
        let middle = samples.len() / 2;
        let upper = *samples.get(middle)?;
        Some(match samples.len() % 2 {
            0 => (samples[middle - 1] + upper) / 2.0,
            _ => upper,
        })
    }

    fn factor(&self, row: &Row) -> Option<f64> {
        let (last, others) = self.columns.split_last()?;
        let last = self.median(row, last)?;
        let base = match self.verdict {
            Verdict::Ratio => others,
            Verdict::First(count) => &others[..count.min(others.len())],
            Verdict::Growth => &others[..others.len().min(1)],
        };
        let base = base.iter().filter_map(|column| self.median(row, column));
        let factors = base.map(|base| match row.unit {
            Unit::PerSecond | Unit::BytesPerSecond => last / base,
            Unit::Seconds | Unit::Bytes | Unit::Each => base / last,
        });
        let factor = factors.min_by(f64::total_cmp)?;
        Some(match self.verdict {
            Verdict::Growth => 1.0 / factor,
            Verdict::Ratio | Verdict::First(_) => factor,
        })
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond if value >= 1e6 => format!("{:.2}M/s", value / 1e6),
            Self::PerSecond if value >= 1e3 => format!("{:.1}k/s", value / 1e3),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Seconds if value >= 1.0 => format!("{value:.1} s"),
            Self::Seconds if value >= 1e-3 => format!("{:.2} ms", value * 1e3),
            Self::Seconds => format!("{:.2} µs", value * 1e6),
            Self::Bytes if value < 1e6 => format!("{:.1} kB", value / 1e3),
            Self::Bytes => format!("{:.1} MB", value / 1e6),
            Self::BytesPerSecond if value < 1e7 => format!("{:.2} MB/s", value / 1e6),
            Self::BytesPerSecond => format!("{:.0} MB/s", value / 1e6),
            Self::Each => format!("{value:.3}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(unit: Unit) -> Row {
        let (id, job, aim) = ("row", "a job", Some(5.0));
        Row { id, job, unit, aim }
    }

    fn table(verdict: Verdict, unit: Unit, samples: [&[f64]; 3]) -> (Table, Row) {
        let columns = vec!["a", "b", "us"];
        let (mut table, row) = (Table::new("title", columns.clone(), verdict), row(unit));
        for (column, samples) in columns.into_iter().zip(samples) {
            samples
                .iter()
                .for_each(|sample| table.add(&row, column, *sample));
        }
        (table, row)
    }

    /// Goal: whether more or less is better, the ratio is to the better of the others.
    #[test]
    fn the_ratio_is_to_the_best() {
        let samples: [&[f64]; 3] = [&[1.0, 3.0, 2.0], &[4.0], &[8.0, 10.0]];
        let (rates, row) = table(Verdict::Ratio, Unit::PerSecond, samples);
        assert_eq!(rates.factor(&row), Some(9.0 / 4.0));
        let (times, row) = table(Verdict::Ratio, Unit::Seconds, samples);
        assert_eq!(times.factor(&row), Some(2.0 / 9.0));
        assert!(
            rates
                .to_markdown()
                .contains("| a job | 2/s | 4/s | 9/s | 2.2x | 5x |")
        );
    }

    /// Goal: what is mixed of both sides is no base.
    #[test]
    fn the_ratio_may_be_to_the_best_of_the_first() {
        let samples: [&[f64]; 3] = [&[2.0], &[3.0], &[6.0]];
        let (rates, row) = table(Verdict::First(1), Unit::PerSecond, samples);
        assert_eq!(rates.factor(&row), Some(3.0));
        let (rates, row) = table(Verdict::First(2), Unit::PerSecond, samples);
        assert_eq!(rates.factor(&row), Some(2.0));
    }

    #[test]
    fn growth_compares_the_last_column_with_the_first() {
        let samples: [&[f64]; 3] = [&[2.0], &[], &[4.0]];
        let (rates, row) = table(Verdict::Growth, Unit::PerSecond, samples);
        assert_eq!(rates.factor(&row), Some(0.5), "it became cheaper");
        let (times, row) = table(Verdict::Growth, Unit::Seconds, samples);
        assert_eq!(times.factor(&row), Some(2.0));
    }
}
