//! Payloads that a rule says: a claim answers with the rule, and they are written here.

use serde::Deserialize;
use serde_json::value::RawValue;

/// What the shares of a task are, as `divvy.given` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Rule {
    Count { count: i64 },
    Range { lo: i64, hi: i64, size: i64 },
}

impl Rule {
    /// As `divvy.payload_by` says it, and as Postgres writes it; a test compares the two.
    pub(super) fn payload(self, split_no: i32) -> Option<Box<RawValue>> {
        let no = i128::from(split_no);
        let text = match self {
            Self::Count { count } => format!("{{\"count\": {count}, \"index\": {}}}", no - 1),
            Self::Range { lo, hi, size } => {
                let (lo, size) = (i128::from(lo), i128::from(size));
                let to = (lo + no * size).min(hi.into());
                format!("{{\"hi\": {to}, \"lo\": {}}}", lo + (no - 1) * size)
            }
        };
        RawValue::from_string(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_reads_as_postgres_writes_it() {
        let payload = |rule: &str, no| {
            let rule: Rule = serde_json::from_str(rule).unwrap();
            rule.payload(no).unwrap().get().to_owned()
        };
        assert_eq!(payload(r#"{"count": 40}"#, 1), r#"{"count": 40, "index": 0}"#);
        let range = r#"{"hi": 9223372036854775807, "lo": 9223372036854775800, "size": 5}"#;
        assert_eq!(payload(range, 1), r#"{"hi": 9223372036854775805, "lo": 9223372036854775800}"#);
        assert_eq!(payload(range, 2), r#"{"hi": 9223372036854775807, "lo": 9223372036854775805}"#);
    }
}
