//! Figures of several runs, as medians, with the floor beside those that are about sending.

use crate::bench::cost;
use crate::bench::measure::Report;

/// What was measured so far.
pub(super) struct Table {
    machine: String,
    rows: Vec<Row>,
}

#[derive(serde::Serialize)]
struct Row {
    name: String,
    unit: String,
    values: Vec<f64>,
    /// The floor of the same run, for each value that has one.
    floors: Vec<f64>,
}

impl Table {
    pub fn new(pinned: bool) -> anyhow::Result<Self> {
        let cores = if pinned { "gateway on core 0, clients on core 1" } else { "not pinned: one core" };
        let machine = format!("{}; {cores}; auth of comet-only figures by a stand-in for logic", cost::machine()?);
        Ok(Self { machine, rows: Vec::new() })
    }

    pub fn add(&mut self, name: &str, unit: &str, value: f64) {
        self.row(name, unit).values.push(value);
    }

    pub fn floor(&mut self, connections: usize, value: f64) {
        self.add(&floor_name(connections), "µs CPU/send", value);
    }

    /// A value beside the floor that this run measured with so many connections.
    pub fn beside(&mut self, name: &str, unit: &str, value: f64, connections: usize) {
        let floor = *self.row(&floor_name(connections), "µs CPU/send").values.last().expect("a run begins with floors");
        let row = self.row(name, unit);
        row.values.push(value);
        row.floors.push(floor);
    }

    /// Faults, shown only where there are any.
    pub fn clean(&mut self, name: &str, report: &Report) {
        let verdict = &report.verdict;
        let faults = [
            ("lost", verdict.lost),
            ("repeats", verdict.repeats),
            ("inversions", verdict.inversions),
            ("strays", verdict.strays),
            ("refused pushes", verdict.refused),
            ("connections closed", report.closed),
            ("connects retried", report.retries),
        ];
        for (what, count) in faults {
            if count > 0 {
                self.add(name, what, count as f64);
            }
        }
    }

    fn row(&mut self, name: &str, unit: &str) -> &mut Row {
        let at = self.rows.iter().position(|row| row.name == name && row.unit == unit);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row { name: name.to_owned(), unit: unit.to_owned(), values: vec![], floors: vec![] });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::json!({ "machine": self.machine, "rows": self.rows }));
            return Ok(());
        }
        println!("{}\n", self.machine);
        println!("{:<46} {:>12}  {:<20} {:>7}  {:>8}  runs", "what", "median", "unit", "÷ floor", "range");
        for row in &self.rows {
            let ratios: Vec<f64> = row.values.iter().zip(&row.floors).map(|(value, floor)| value / floor).collect();
            let ratio = if ratios.is_empty() { String::new() } else { format!("{:.2}", median(&ratios)) };
            let (low, high) = row.values.iter().fold((f64::MAX, 0.0_f64), |(l, h), v| (l.min(*v), h.max(*v)));
            let range = format!("{}–{}", number(low), number(high));
            let (median, runs) = (number(median(&row.values)), row.values.len());
            println!("{:<46} {median:>12}  {:<20} {ratio:>7}  {range:>8}  {runs}", row.name, row.unit);
        }
        Ok(())
    }
}

fn floor_name(connections: usize) -> String {
    format!("floor: bare send(), {connections} connections")
}

fn number(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_run() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn values_stand_beside_the_floor_of_their_own_run() {
        let mut table = Table::new(true).unwrap();
        for (floor, value) in [(5.0, 6.0), (4.0, 8.0)] {
            table.floor(1000, floor);
            table.beside("x", "µs", value, 1000);
        }
        let row = table.row("x", "µs");
        assert_eq!((row.values.as_slice(), row.floors.as_slice()), (&[6.0, 8.0][..], &[5.0, 4.0][..]));
    }
}
