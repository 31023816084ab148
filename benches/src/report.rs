//! The report: medians and ratios as Markdown.

use std::fmt;

use crate::sample::{Cost, Sample};

/// A sample, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Which engine.
    pub(crate) engine: String,
    /// In which round.
    pub(crate) round: u32,
    /// What was measured.
    pub(crate) sample: Sample,
}

/// Medians over the rounds, and how the first engine does beside each other one. Displays as Markdown.
pub(crate) struct Report {
    engines: Vec<String>,
    headings: Vec<String>,
    measured: Vec<Measured>,
}

impl Report {
    /// An empty report about these engines.
    pub(crate) fn new(engines: Vec<String>) -> Self {
        Self { engines, headings: Vec::new(), measured: Vec::new() }
    }

    /// Adds a line above the tables.
    pub(crate) fn heading(&mut self, line: &str) {
        self.headings.push(line.to_owned());
    }

    /// Adds a sample.
    pub(crate) fn add(&mut self, measured: Measured) {
        self.measured.push(measured);
    }

    /// Workloads in the order in which they were first measured.
    fn workloads(&self) -> Vec<&str> {
        let mut workloads = Vec::new();
        for measured in &self.measured {
            let workload = measured.sample.workload.as_str();
            if !workloads.contains(&workload) {
                workloads.push(workload);
            }
        }
        workloads
    }

    fn samples<'a>(&'a self, engine: &'a str, workload: &'a str) -> impl Iterator<Item = &'a Measured> {
        self.measured
            .iter()
            .filter(move |measured| measured.engine == engine && measured.sample.workload == workload)
    }

    /// How many times as fast as `peer` the first engine is: median, least and greatest over the rounds.
    fn ratio(&self, peer: &str, workload: &str) -> Option<[f64; 3]> {
        let first = self.engines.first()?;
        let mut ratios: Vec<f64> = self
            .samples(first, workload)
            .filter_map(|own| {
                let other = self.samples(peer, workload).find(|other| other.round == own.round)?;
                Some(other.sample.nanos_per_op() / own.sample.nanos_per_op().max(f64::MIN_POSITIVE))
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        Some([median(&ratios)?, *ratios.first()?, *ratios.last()?])
    }

    fn row(&self, engine: &str, workload: &str) -> Option<Vec<String>> {
        let samples: Vec<&Sample> = self.samples(engine, workload).map(|measured| &measured.sample).collect();
        let of = |value: &dyn Fn(&Sample) -> Option<f64>| {
            let mut values: Vec<f64> = samples.iter().filter_map(|sample| value(sample)).collect();
            values.sort_by(f64::total_cmp);
            median(&values)
        };
        let nanos = of(&|sample| Some(sample.nanos_per_op()))?;
        let percentile = |at: usize| of(&|sample| Some(sample.percentiles_nanos?[at] as f64)).map(duration);
        let cost = |value: &dyn Fn(Cost) -> Option<f64>| of(&|sample| value(sample.cost?));
        let mib = |value: &dyn Fn(Cost) -> Option<u64>| {
            cost(&|cost| value(cost).map(|bytes| bytes as f64 / f64::from(1 << 20)))
                .map(|mib| format!("{mib:.0}"))
        };
        let cpu = of(&|sample| Some(sample.cost?.cpu_seconds? * 1e9 / sample.ops.max(1) as f64));
        Some(
            [
                Some(engine.to_owned()),
                Some(thousands(1e9 / nanos)),
                Some(duration(nanos)),
                percentile(0),
                percentile(1),
                percentile(2),
                cpu.map(duration),
                mib(&|cost| cost.written_bytes),
                mib(&|cost| Some(cost.disk_bytes)),
                mib(&|cost| cost.memory_bytes),
            ]
            .map(|cell| cell.unwrap_or_else(|| "-".to_owned()))
            .to_vec(),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for heading in &self.headings {
            writeln!(f, "{heading}\n")?;
        }
        let columns = [
            "engine",
            "ops/s",
            "ns/op",
            "p50",
            "p99",
            "p99.9",
            "CPU/op",
            "MiB written",
            "MiB on disk",
            "MiB RSS",
        ];
        for workload in self.workloads() {
            writeln!(f, "### {workload}\n")?;
            let rows = self.engines.iter().filter_map(|engine| self.row(engine, workload));
            write_table(f, columns.map(str::to_owned).to_vec(), rows.collect())?;
        }
        let Some((first, peers)) = self.engines.split_first().filter(|(_, peers)| !peers.is_empty()) else {
            return Ok(());
        };
        writeln!(f, "### How many times as fast {first} is: median (least to greatest of the rounds)\n")?;
        let columns =
            std::iter::once("workload".to_owned()).chain(peers.iter().map(|peer| format!("than {peer}")));
        let rows = self.workloads().into_iter().map(|workload| {
            let ratios = peers.iter().map(|peer| {
                self.ratio(peer, workload).map_or_else(
                    || "-".to_owned(),
                    |[median, least, greatest]| format!("{median:.2} ({least:.2} to {greatest:.2})"),
                )
            });
            std::iter::once(workload.to_owned()).chain(ratios).collect()
        });
        write_table(f, columns.collect(), rows.collect())
    }
}

/// A Markdown table whose source lines up too; the first column is text, the others numbers.
fn write_table(f: &mut fmt::Formatter<'_>, columns: Vec<String>, mut rows: Vec<Vec<String>>) -> fmt::Result {
    rows.insert(0, columns);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..).map_while(width).collect();
    for (at, row) in rows.iter().enumerate() {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            if column == 0 {
                write!(f, "| {cell:<width$} |")?;
            } else {
                write!(f, " {cell:>width$} |")?;
            }
        }
        writeln!(f)?;
        if at == 0 {
            for (column, &width) in widths.iter().enumerate() {
                if column == 0 {
                    write!(f, "|{}|", "-".repeat(width + 2))?;
                } else {
                    write!(f, "{}:|", "-".repeat(width + 1))?;
                }
            }
            writeln!(f)?;
        }
    }
    writeln!(f)
}

/// The middle of sorted values; of an even number of them, the mean of the middle two.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// A time in the unit that suits it, to three digits or so.
pub(crate) fn duration(nanos: f64) -> String {
    match nanos {
        ..1e4 => format!("{nanos:.0} ns"),
        ..1e6 => format!("{:.1} µs", nanos / 1e3),
        ..1e9 => format!("{:.1} ms", nanos / 1e6),
        _ => format!("{:.2} s", nanos / 1e9),
    }
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(engine: &str, round: u32, seconds: f64) -> Measured {
        let sample = Sample {
            workload: "scan".to_owned(),
            ops: 1_000_000,
            seconds,
            percentiles_nanos: None,
            cost: None,
        };
        Measured { engine: engine.to_owned(), round, sample }
    }

    #[test]
    fn ratios_pair_the_engines_of_one_round() {
        let mut report = Report::new(vec!["own".to_owned(), "peer".to_owned()]);
        // The machine is half as fast in the second round, which changes no ratio.
        for (round, own, peer) in [(0, 1.0, 2.0), (1, 2.0, 4.0), (2, 1.0, 3.0)] {
            report.add(measured("own", round, own));
            report.add(measured("peer", round, peer));
        }
        assert_eq!(report.ratio("peer", "scan"), Some([2.0, 2.0, 3.0]));
        assert_eq!(report.ratio("peer", "fillseq"), None);
    }

    #[test]
    fn the_report_is_markdown_with_medians_and_dashes_for_what_is_unknown() {
        let mut report = Report::new(vec!["own".to_owned(), "peer".to_owned()]);
        for round in 0..2 {
            report.add(measured("own", round, 1.0 + f64::from(round)));
            report.add(measured("peer", round, 3.0));
        }
        let text = report.to_string();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        assert_eq!(lines[2], ["own", "666,667", "1500 ns", "-", "-", "-", "-", "-", "-", "-"]);
        assert_eq!(lines[6], ["scan", "2.25 (1.50 to 3.00)"]);
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(thousands(0.0), "0");
        assert_eq!(thousands(1_234_567.0), "1,234,567");
        assert_eq!(thousands(123.4), "123");
        assert_eq!(duration(412.4), "412 ns");
        assert_eq!(duration(51_234.0), "51.2 µs");
        assert_eq!(duration(2_500_000_000.0), "2.50 s");
        assert_eq!(median(&[1.0, 2.0, 4.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0]), Some(1.5));
        assert_eq!(median(&[]), None);
    }
}
