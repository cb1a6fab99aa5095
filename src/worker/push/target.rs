//! Where a type is pushed, and how: what was declared, with its secrets in place of their names.

use super::breaker::Policy;
use crate::store::http_type::HttpType;
use crate::store::secret::Secret;
use crate::webhook::Key;
use crate::{Error, ErrorKind, Result, store};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use std::time::Duration;

/// Where and how.
#[derive(Debug, Clone)]
pub(in crate::worker) struct Target {
    pub(super) url: Url,
    /// All that sign: two while a secret is rotated.
    pub(super) keys: Vec<Key>,
    pub(super) headers: HeaderMap,
    pub(super) request_timeout: Option<Duration>,
    pub(super) callback_timeout: Option<Duration>,
    pub(super) breaker: Option<Policy>,
    pub(super) plans: bool,
    pub(super) reduces: bool,
}

impl Target {
    /// # Errors
    /// Config when a secret is not there, or the URL is none.
    pub(in crate::worker) fn new(declared: &HttpType, secrets: &[Secret]) -> Result<Self> {
        let url: Url =
            declared.url.parse().map_err(|error| fault(format!("{} is no URL: {error}", declared.url)))?;
        if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
            return Err(fault(format!(
                "{} does not begin with http:// or https:// and a host",
                declared.url
            )));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fault(
                "the URL has a user or a password: it would be shown to all who look".to_owned(),
            ));
        }
        let keys = match &declared.secret {
            Some(name) => keys(find(secrets, name)?)?,
            None => Vec::new(),
        };
        let seconds = |value: Option<f64>| value.map(store::seconds).filter(|span| !span.is_zero());
        Ok(Self {
            url,
            keys,
            headers: headers(&declared.headers, secrets)?,
            request_timeout: seconds(declared.request_timeout),
            callback_timeout: seconds(declared.callback_timeout),
            breaker: declared.has_breaker.then(|| Policy {
                failures: u32::try_from(declared.breaker_failures).unwrap_or(1).max(1),
                open: store::seconds(declared.breaker_open),
                most: store::seconds(declared.breaker_most),
            }),
            plans: declared.plan,
            reduces: declared.reduce,
        })
    }

    /// The names of the secrets that a type needs.
    pub(super) fn secrets_of(declared: &HttpType) -> impl Iterator<Item = String> {
        let headers = declared.headers.as_object().into_iter().flat_map(|headers| headers.values());
        let named = headers.filter_map(|value| value["secret"].as_str());
        declared.secret.as_deref().into_iter().chain(named).map(str::to_owned)
    }
}

/// The keys of a secret: its own, and the one before while that still signs.
pub(super) fn keys(secret: &Secret) -> Result<Vec<Key>> {
    let values = [Some(secret.value.as_str()), secret.previous.as_deref()];
    let keys = values.into_iter().flatten().map(Key::new);
    keys.collect::<Result<_>>().map_err(|error| fault(format!("secret {} can't sign: {error}", secret.name)))
}

fn find<'a>(secrets: &'a [Secret], name: &str) -> Result<&'a Secret> {
    let found = secrets.iter().find(|secret| secret.name == name);
    found.ok_or_else(|| fault(format!("there is no secret {name}: `divvy secret create {name}` makes it")))
}

fn headers(declared: &Value, secrets: &[Secret]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in declared.as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => text.as_str(),
            _ => &find(secrets, value["secret"].as_str().unwrap_or_default())?.value,
        };
        let wrong = || fault(format!("the header {name} can't be sent"));
        let mut sent = HeaderValue::from_str(text).map_err(|_| wrong())?;
        sent.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?, sent);
    }
    Ok(headers)
}

fn fault(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}
