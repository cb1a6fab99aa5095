//! The trace that a producer began, as W3C Trace Context: a task's headers carry it to every handler.

use serde_json::value::RawValue;

/// Vendors' part of a trace; more is dropped, as the standard allows.
const STATE_BYTES_MAX: usize = 512;

#[derive(serde::Deserialize)]
struct Headers {
    traceparent: Option<serde_json::Value>,
    tracestate: Option<serde_json::Value>,
}

/// The headers `traceparent` and `tracestate`. A malformed one is none: the standard says to begin a new trace then,
/// and a producer's mistake must not fail a split.
pub(crate) fn trace(headers: Option<&RawValue>) -> (Option<String>, Option<String>) {
    let Some(headers) = headers.and_then(|raw| serde_json::from_str::<Headers>(raw.get()).ok()) else {
        return (None, None);
    };
    let text = |value: Option<serde_json::Value>| match value {
        Some(serde_json::Value::String(text)) => Some(text),
        _ => None,
    };
    let Some(parent) = text(headers.traceparent).filter(|parent| is_parent(parent)) else {
        return (None, None);
    };
    let fits = |state: &String| {
        state.len() <= STATE_BYTES_MAX && state.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
    };
    (Some(parent), text(headers.tracestate).filter(fits))
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, lower case, neither id all zeros; a later version may go on after that.
fn is_parent(text: &str) -> bool {
    let is_hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |part: &str, digits: usize| is_hex(part, digits) && part.bytes().any(|b| b != b'0');
    let mut parts = text.split('-');
    let mut next = || parts.next().unwrap_or_default();
    let version = next();
    let fine =
        is_hex(version, 2) && version != "ff" && is_id(next(), 32) && is_id(next(), 16) && is_hex(next(), 2);
    fine && (version != "00" || parts.next().is_none()) && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::to_raw_value;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_is_taken_from_the_headers() {
        let headers = serde_json::json!({"traceparent": PARENT, "tracestate": "a=1,b=2", "other": [1]});
        let headers = to_raw_value(&headers).unwrap();
        assert_eq!(trace(Some(&headers)), (Some(PARENT.to_owned()), Some("a=1,b=2".to_owned())));
        assert_eq!(trace(None), (None, None));
    }

    #[test]
    fn what_is_no_trace_is_none() {
        let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        for wrong in [
            "",
            "00",
            zeros,
            &PARENT.to_uppercase(),
            &format!("{PARENT}-more"),
            &PARENT.replace("00-", "ff-"),
        ] {
            assert!(!is_parent(wrong), "{wrong}");
            let headers =
                to_raw_value(&serde_json::json!({"traceparent": wrong, "tracestate": "a=1"})).unwrap();
            assert_eq!(trace(Some(&headers)), (None, None));
        }
        assert!(is_parent(&PARENT.replace("00-", "01-")) && is_parent(&format!("01{}-more", &PARENT[2..])));
        let number = to_raw_value(&serde_json::json!({"traceparent": 7})).unwrap();
        assert_eq!(trace(Some(&number)), (None, None));
    }
}
