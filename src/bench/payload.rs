//! What a task of the bench carries: the same JSON for divvy and for the floor, of a size that can be chosen.

use serde::Deserialize;

/// The prototype of the floor was measured with this much.
pub const BYTES_DEFAULT: usize = 100;
/// Less does not hold the fields.
pub const BYTES_LEAST: usize = 80;
/// The protocol's own limit is 1 MiB.
pub const BYTES_MOST: usize = 1_000_000;

const URI: &str = "s3://bucket/path/to/object-";

/// The payload as a handler gets it.
#[derive(Debug, Deserialize)]
pub struct Job {
    /// Which insert it came with; 0 where nobody measures how long it waited.
    pub task: u64,
    /// The microsecond of the run at which it was meant to be inserted.
    pub split: u64,
    /// Fills it up.
    pub uri: String,
}

/// The payload as JSON text of `bytes` bytes: a no-op handler's hundred bytes look like this one's.
pub fn payload(task: u64, split: u64, bytes: usize) -> String {
    let head = format!("{{\"task\":{task},\"split\":{split},\"uri\":\"{URI}");
    let tail = ".parquet\",\"off\":0}";
    let fill = bytes.saturating_sub(head.len() + tail.len());
    format!("{head}{:0<fill$}{tail}", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_the_bytes_that_were_asked_for_and_says_when_it_was_made() {
        for bytes in [BYTES_LEAST, BYTES_DEFAULT, 5_000] {
            let text = payload(1_000, 60_000_000, bytes);
            assert!(text.len() == bytes || bytes == BYTES_LEAST, "{} of {bytes}", text.len());
            let job: Job = serde_json::from_str(&text).unwrap();
            assert_eq!((job.task, job.split), (1_000, 60_000_000));
            assert!(job.uri.starts_with(URI));
        }
    }
}
