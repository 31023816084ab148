//! Publishes metrics through the facade of the crate `metrics`, to whatever recorder the program has installed.

use metrics::{Label, counter, describe_counter, describe_gauge, gauge};

use super::Metrics;
use super::families::{Family, Kind, Sample, Value};

impl Metrics {
    /// Publishes the metrics through the `metrics` facade, with the names and labels of
    /// [`to_prometheus`](Self::to_prometheus). Only with the feature `metrics`.
    ///
    /// Call it as often as the figures are wanted, every ten seconds for instance: nothing is published by itself, and
    /// reads and writes never wait for a recorder. `labels` are added to each metric; they tell databases of one process
    /// apart. Counters of the facade are whole numbers, so times are gauges. A histogram of the facade takes single
    /// values, so of a histogram there are a `_count`, a `_sum`, and gauges of its quantiles.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let db = lsm_engine::Db::open(dir.path())?;
    /// db.metrics().publish(&[("database", "users")]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish(&self, labels: &[(&'static str, &str)]) {
        for family in self.families() {
            family.publish(labels);
        }
    }
}

impl Family<'_> {
    fn publish(&self, added: &[(&'static str, &str)]) {
        let Self { name, help, kind, .. } = *self;
        for Sample { labels, value } in &self.samples {
            let own = labels.iter().map(|(name, value)| Label::new(*name, value.clone()));
            let added = added.iter().map(|&(name, value)| Label::new(name, value.to_owned()));
            let labels: Vec<Label> = added.chain(own).collect();
            match value {
                Value::Count(count) if kind == Kind::Counter => {
                    describe_counter!(name, help);
                    counter!(name, labels).absolute(*count);
                }
                Value::Count(count) => {
                    describe_gauge!(name, help);
                    gauge!(name, labels).set(*count as f64);
                }
                Value::Seconds(seconds) => {
                    describe_gauge!(name, help);
                    gauge!(name, labels).set(*seconds);
                }
                Value::Latency(latency) => {
                    describe_counter!(format!("{name}_count"), help);
                    describe_gauge!(format!("{name}_sum"), help);
                    counter!(format!("{name}_count"), labels.clone()).absolute(latency.count());
                    gauge!(format!("{name}_sum"), labels).set(latency.sum().as_secs_f64());
                }
            }
        }
    }
}
