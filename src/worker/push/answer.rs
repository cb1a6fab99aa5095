//! What becomes of a split by the answer of its receiver.
//!
//! | status | outcome |
//! | --- | --- |
//! | 2xx | the outcome in the body; nothing there: done, without a result |
//! | 202 | the outcome comes by a callback |
//! | 429; 503 with Retry-After | snooze |
//! | 408, 425, 5xx | fail: again by the type's backoff, or when Retry-After says |
//! | other 4xx | stop |
//! | 3xx | fail: no redirect is followed |

use crate::handler::said::{DELAY, Fail, Said, Snooze, beginning, fail, garbage, no_json};
use crate::handler::{HandlerError, Outcome};
use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use serde_json::Value;
use serde_json::value::RawValue;
use std::time::Duration;

/// A receiver doesn't put a split off for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// An answer, read within its bounds.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    /// Of a redirect: where it leads.
    pub(super) location: Option<String>,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// What an answer means.
pub(super) enum Meaning {
    /// The outcome, and splits to be stored before it.
    Outcome(Outcome<Option<Box<RawValue>>>, Vec<Box<RawValue>>),
    /// It comes by a callback.
    Later,
}

impl Answered {
    /// Whether the receiver is as good as not there: what opens a breaker.
    pub(super) fn is_broken(&self) -> bool {
        self.status.is_server_error() && !self.puts_off()
    }

    fn puts_off(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
            || (self.status == StatusCode::SERVICE_UNAVAILABLE && self.retry_after.is_some())
    }

    /// What it means for the split. `whom`: who answered, for errors.
    pub(super) fn meaning(self, whom: &str) -> Result<Meaning, HandlerError> {
        match self.status {
            StatusCode::ACCEPTED => Ok(Meaning::Later),
            status if status.is_success() => said(&self.body, whom),
            status if status.is_redirection() => Err(self.redirect(whom)),
            _ if self.puts_off() => snooze(&self),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Err(self.failure(whom)),
            status if status.is_client_error() => {
                Ok(Meaning::Outcome(Outcome::Stop(self.message(whom)), Vec::new()))
            }
            _ => Err(self.failure(whom)),
        }
    }

    fn redirect(&self, whom: &str) -> HandlerError {
        let to = self.location.as_deref().unwrap_or("nowhere");
        let message = format!(
            "{whom} answered {} to {to}: redirects are not followed, put the type with that URL if it is right",
            self.status
        );
        HandlerError::new(message).class("redirect")
    }

    fn failure(&self, whom: &str) -> HandlerError {
        let said: Said = serde_json::from_slice(&self.body).unwrap_or_default();
        let Fail { class, retry_in, .. } = said.fail.unwrap_or_default();
        let class = class.unwrap_or_else(|| format!("status {}", self.status.as_u16()));
        let retry_in = retry_in.or(self.retry_after.map(|after| after.as_secs_f64()));
        fail(Fail { message: Some(self.message(whom)), class: Some(class), retry_in }, String::new)
    }

    /// The receiver's own words, where it has some.
    fn message(&self, whom: &str) -> String {
        let body = self.body.trim_ascii();
        if let Some(words) = serde_json::from_slice::<Value>(body).ok().as_ref().and_then(words) {
            return words.to_owned();
        }
        match body.is_empty() {
            true => format!("{whom} answered {}", self.status),
            false => format!("{whom} answered {}: {}", self.status, beginning(body)),
        }
    }
}

/// The message of an outcome, else what RFC 9457 calls the detail or the title.
fn words(body: &Value) -> Option<&str> {
    ["/stop/message", "/fail/message", "/detail", "/title"]
        .iter()
        .find_map(|path| body.pointer(path)?.as_str())
        .filter(|words| !words.is_empty())
}

fn said(body: &[u8], whom: &str) -> Result<Meaning, HandlerError> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Ok(Meaning::Outcome(Outcome::Complete(None), Vec::new()));
    }
    let mut said: Said = serde_json::from_slice(body)
        .map_err(|error| no_json(&format!("the answer of {whom} is no outcome"), &error, body))?;
    let splits = said.splits.take();
    if splits.is_some()
        && (said.result.is_some() || said.snooze.is_some() || said.stop.is_some() || said.fail.is_some())
    {
        return Err(garbage("an answer has splits and something else".to_owned()));
    }
    Ok(Meaning::Outcome(said.answer()?, splits.unwrap_or_default()))
}

fn snooze(answered: &Answered) -> Result<Meaning, HandlerError> {
    let said: Said = serde_json::from_slice(&answered.body).unwrap_or_default();
    let Snooze { delay, checkpoint } = said.snooze.unwrap_or_default();
    let delay = answered.retry_after.map(|after| after.as_secs_f64()).or(delay);
    let snooze = Snooze { delay: delay.or(Some(DELAY.as_secs_f64())), checkpoint };
    Ok(Meaning::Outcome(crate::handler::said::snooze(snooze)?, Vec::new()))
}

/// The header Retry-After: seconds, or a moment. What is neither is none.
pub(super) fn retry_after(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = text.trim();
    let after = match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Duration::from_secs(text.parse().unwrap_or(u64::MAX)),
        false => {
            let at = DateTime::<Utc>::from(httpdate::parse_http_date(text).ok()?);
            // A moment that has passed is now.
            at.signed_duration_since(now).to_std().unwrap_or_default()
        }
    };
    (!text.is_empty()).then(|| after.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<u64>, body: &str) -> Result<Meaning, HandlerError> {
        answered(status, retry_after, body).meaning("shop.example")
    }

    fn answered(status: u16, retry_after: Option<u64>, body: &str) -> Answered {
        Answered {
            status: StatusCode::from_u16(status).unwrap(),
            location: None,
            retry_after: retry_after.map(Duration::from_secs),
            body: body.into(),
        }
    }

    #[test]
    fn a_status_is_an_outcome() {
        use Meaning::{Later, Outcome as Is};
        use Outcome::{Complete, Continue, Stop};
        for nothing in [answer(200, None, ""), answer(204, None, " \n"), answer(201, None, "{}")] {
            assert!(matches!(nothing, Ok(Is(Complete(None), splits)) if splits.is_empty()));
        }
        let seven = answer(200, None, r#"{"result": 7}"#);
        assert!(matches!(seven, Ok(Is(Complete(Some(raw)), _)) if raw.get() == "7"));
        let plan = answer(200, None, r#"{"splits": [1, 2]}"#);
        assert!(matches!(plan, Ok(Is(Complete(None), splits)) if splits.len() == 2));
        assert!(matches!(answer(202, None, "whatever"), Ok(Later)));
        for status in [400, 401, 403, 404, 409, 410, 422, 451] {
            let why = format!("shop.example answered {}", StatusCode::from_u16(status).unwrap());
            assert!(matches!(answer(status, None, ""), Ok(Is(Stop(said), _)) if said == why));
        }
        let problem = answer(422, None, r#"{"title": "Wrong", "detail": "no such IBAN"}"#);
        assert!(matches!(problem, Ok(Is(Stop(said), _)) if said == "no such IBAN"));
        let after = |meaning| match meaning {
            Ok(Is(Continue { after, .. }, _)) => after.as_secs(),
            _ => panic!("no snooze"),
        };
        assert_eq!(after(answer(429, None, "")), 10);
        assert_eq!(after(answer(429, Some(7), r#"{"snooze": {"delay": 3}}"#)), 7);
        assert_eq!(after(answer(429, None, r#"{"snooze": {"delay": 3}}"#)), 3);
        assert_eq!(after(answer(503, Some(2), "<html>")), 2);
        for status in [301, 302, 304, 307, 408, 425, 500, 502, 503, 504, 599] {
            assert!(answer(status, None, "").is_err(), "{status}");
        }
        let failed = format!("{:?}", answer(500, None, r#"{"fail": {"message": "full"}}"#).err().unwrap());
        assert_eq!(failed, "status 500: full");
    }

    #[test]
    fn what_is_no_outcome_is_a_failure_that_shows_it() {
        for (body, part) in [
            ("OK", "is no outcome: expected value at line 1 column 1: OK"),
            (r#"{"resullt": 1}"#, "unknown field `resullt`"),
            (r#"{"result": 1, "stop": {}}"#, "more than one of"),
            (r#"{"splits": [], "result": 1}"#, "splits and something else"),
            (r#"{"snooze": {"delay": -1}}"#, "delay is -1"),
        ] {
            let Err(error) = answer(200, None, body) else { panic!("{body} was taken") };
            assert!(error.message().contains(part), "{error}");
        }
    }

    #[test]
    fn only_silence_and_faults_of_the_server_count_as_broken() {
        for (status, after, broken) in
            [(500, None, true), (500, Some(1), true), (503, None, true), (503, Some(1), false)]
        {
            assert_eq!(answered(status, after, "").is_broken(), broken, "{status}");
        }
        assert!([200, 202, 302, 404, 429].iter().all(|status| !answered(*status, None, "").is_broken()));
    }

    #[test]
    fn retry_after_is_seconds_or_a_moment() {
        let now = DateTime::parse_from_rfc3339("2026-11-21T20:00:00Z").unwrap().to_utc();
        let seconds = |text| retry_after(text, now).map(|after| after.as_secs());
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds(" 120 "), Some(120));
        assert_eq!(seconds("Sat, 21 Nov 2026 20:01:30 GMT"), Some(90));
        assert_eq!(seconds("Saturday, 21-Nov-26 20:01:30 GMT"), Some(90));
        assert_eq!(seconds("Sat, 21 Nov 2026 19:00:00 GMT"), Some(0));
        assert_eq!(seconds("99999999999999999999999"), Some(86_400));
        assert_eq!(seconds("Fri, 21 Nov 2036 20:00:00 GMT"), Some(86_400));
        for none in ["", "soon", "-1", "1.5"] {
            assert_eq!(seconds(none), None, "{none}");
        }
    }
}
