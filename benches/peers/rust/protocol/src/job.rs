use serde::{Deserialize, Serialize};

/// The payload: 100 bytes of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    task: i64,
    split: u64,
    uri: String,
    off: i64,
    len: i64,
}

/// So that every payload has the same length.
const FIRST: u64 = 1_000_000_000;

impl Job {
    /// The job with this number, counted from zero.
    pub fn new(number: u64) -> Self {
        Self {
            task: 12345,
            split: FIRST + number,
            uri: "s3://bucket/path/to/object-000001.parquet".to_owned(),
            off: 0,
            len: 10,
        }
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.split.saturating_sub(FIRST)
    }

    /// As JSON text.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("numbers and a string are JSON")
    }

    /// As a JSON value.
    pub fn value(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("numbers and a string are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_100_bytes() {
        assert_eq!(Job::new(0).text().len(), 100);
        assert_eq!(Job::new(999_999).text().len(), 100);
    }
}
