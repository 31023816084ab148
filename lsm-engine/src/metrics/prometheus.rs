//! Metrics as Prometheus text.

use std::fmt::{self, Write as _};

use super::families::{Family, Kind, Value};
use super::{Latency, Metrics};

/// Histograms have a bucket for durations below each of these powers of two nanoseconds: half a microsecond to a minute.
const POWERS: std::ops::RangeInclusive<u32> = 9..=36;

impl Metrics {
    /// The metrics in the text format of Prometheus (version 0.0.4), for an HTTP handler that a Prometheus server
    /// scrapes: the type of the content is `text/plain; version=0.0.4`.
    ///
    /// Names begin with `lsm_`. Durations are in seconds, sizes in bytes. Labels tell keyspace, level, operation, wait or
    /// work. A keyspace with an odd name is escaped as the format asks. Counters start at zero when the database is
    /// opened, which Prometheus understands as a restart.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let db = lsm_engine::Db::open(dir.path())?;
    /// db.put("key", "value")?;
    /// let text = db.metrics().to_prometheus();
    /// assert!(text.contains("\nlsm_visible_sequence 1\n"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        for family in self.families() {
            // Writing to a string never fails.
            let _ = family.write_to(&mut text);
        }
        text
    }
}

impl Family<'_> {
    fn write_to(&self, out: &mut String) -> fmt::Result {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let name = self.name;
        writeln!(out, "# HELP {name} {}", self.help)?;
        writeln!(out, "# TYPE {name} {kind}")?;
        for sample in &self.samples {
            let labels = &sample.labels;
            match sample.value {
                Value::Count(count) => write_sample(out, name, "", labels, None, count)?,
                Value::Seconds(seconds) => write_sample(out, name, "", labels, None, seconds)?,
                Value::Latency(latency) => write_latency(out, name, labels, latency)?,
            }
        }
        Ok(())
    }
}

fn write_latency(
    out: &mut String,
    name: &str,
    labels: &[(&'static str, String)],
    latency: &Latency,
) -> fmt::Result {
    let count = latency.count();
    for power in POWERS {
        // A bucket of this format includes its bound.
        let bound = ((1_u64 << power) - 1) as f64 / 1e9;
        let below = latency.count_below_power(power);
        write_sample(out, name, "_bucket", labels, Some(("le", &bound.to_string())), below)?;
    }
    write_sample(out, name, "_bucket", labels, Some(("le", "+Inf")), count)?;
    write_sample(out, name, "_sum", labels, None, latency.sum().as_secs_f64())?;
    write_sample(out, name, "_count", labels, None, count)
}

fn write_sample(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: &[(&'static str, String)],
    last_label: Option<(&str, &str)>,
    value: impl fmt::Display,
) -> fmt::Result {
    write!(out, "{name}{suffix}")?;
    let labels = labels.iter().map(|(name, value)| (*name, value.as_str())).chain(last_label);
    let mut separator = '{';
    for (name, value) in labels {
        write!(out, "{separator}{name}=\"{}\"", Escaped(value))?;
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    writeln!(out, " {value}")
}

/// The value of a label, as the format asks: backslash, quotation mark and line feed are escaped.
struct Escaped<'v>(&'v str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            char => f.write_char(char),
        })
    }
}
