use serde_json::{Map, Value, json};

/// One measurement of one workload, as it goes from the measuring process to the comparing one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Which workload.
    pub(crate) workload: String,
    /// Operations done.
    pub(crate) ops: u64,
    /// How long they took together.
    pub(crate) seconds: f64,
    /// Median, 99th and 99.9th percentile of single operations, in nanoseconds, where single ones were timed.
    pub(crate) percentiles_nanos: Option<[u64; 3]>,
    /// What the process used meanwhile, where it did nothing else.
    pub(crate) cost: Option<Cost>,
}

/// What a process used while a workload ran.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cost {
    /// Time of all threads on a processor.
    pub(crate) cpu_seconds: Option<f64>,
    /// Bytes handed to the disk.
    pub(crate) written_bytes: Option<u64>,
    /// Largest resident memory.
    pub(crate) memory_bytes: Option<u64>,
    /// Bytes that the files take afterwards.
    pub(crate) disk_bytes: u64,
}

impl Sample {
    /// The time of one operation.
    pub(crate) fn nanos_per_op(&self) -> f64 {
        self.seconds * 1e9 / self.ops.max(1) as f64
    }

    /// One line of JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "workload": self.workload,
            "ops": self.ops,
            "seconds": self.seconds,
            "percentiles_nanos": self.percentiles_nanos,
            "cost": self.cost.map(|cost| json!({
                "cpu_seconds": cost.cpu_seconds,
                "written_bytes": cost.written_bytes,
                "memory_bytes": cost.memory_bytes,
                "disk_bytes": cost.disk_bytes,
            })),
        })
    }

    /// Undoes [`to_json`](Self::to_json); `None` for anything else.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let percentiles = value["percentiles_nanos"].as_array().and_then(|values| {
            let values: Vec<u64> = values.iter().filter_map(Value::as_u64).collect();
            values.try_into().ok()
        });
        Some(Self {
            workload: value["workload"].as_str()?.to_owned(),
            ops: value["ops"].as_u64()?,
            seconds: value["seconds"].as_f64()?,
            percentiles_nanos: percentiles,
            cost: value["cost"].as_object().and_then(Cost::from_json),
        })
    }
}

impl Cost {
    fn from_json(object: &Map<String, Value>) -> Option<Self> {
        Some(Self {
            cpu_seconds: object.get("cpu_seconds")?.as_f64(),
            written_bytes: object.get("written_bytes")?.as_u64(),
            memory_bytes: object.get("memory_bytes")?.as_u64(),
            disk_bytes: object.get("disk_bytes")?.as_u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_survives_json() {
        let full = Sample {
            workload: "scan".to_owned(),
            ops: 1000,
            seconds: 0.25,
            percentiles_nanos: Some([1, 2, 3]),
            cost: Some(Cost {
                cpu_seconds: Some(0.5),
                written_bytes: None,
                memory_bytes: Some(7),
                disk_bytes: 9,
            }),
        };
        let bare = Sample { percentiles_nanos: None, cost: None, ..full.clone() };
        for sample in [full, bare] {
            let line = sample.to_json().to_string();
            assert_eq!(Sample::from_json(&serde_json::from_str(&line).unwrap()), Some(sample));
        }
        assert_eq!(Sample::from_json(&json!({"workload": "scan"})), None);
    }
}
