//! What comes in: bodies, parameters and keys, with their bounds.

use super::Api;
use super::auth::Who;
use super::new_task::Text;
use super::problem::Problem;
use super::route::is_json;
use crate::store::answer::Keyed;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::time::timeout;

/// The largest body. SQL's own limits are for what is in it.
pub(super) const BODY_BYTES_MAX: usize = 16 << 20;
/// Bodies from this size on share [`BODIES_KIB`].
const LARGE_BYTES: usize = 64 << 10;
/// How much memory the large bodies that are being read may take together.
pub(super) const BODIES_KIB: usize = 256 << 10;

/// Reads a body; a slow sender is not waited for.
pub(super) async fn read(api: &Arc<Api>, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    if !is_json(headers) {
        let detail = "the body is JSON: send Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", detail));
    }
    let told =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let bytes = told.unwrap_or(BODY_BYTES_MAX);
    if bytes > BODY_BYTES_MAX {
        return Err(too_large());
    }
    let reading = async {
        let _room = match bytes {
            small if small < LARGE_BYTES => None,
            large => api.bodies.acquire_many(u32::try_from(large >> 10).unwrap_or(u32::MAX)).await.ok(),
        };
        Limited::new(body, BODY_BYTES_MAX).collect().await
    };
    match timeout(api.patience.body, reading).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::malformed(format!("the body broke off: {error}"))),
        Err(_) => {
            let detail = format!("the body did not come within {:?}", api.patience.body);
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail))
        }
    }
}

fn too_large() -> Problem {
    let detail = format!("the body has more than {BODY_BYTES_MAX} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
}

/// JSON as `T`; nothing at all is an empty object.
pub(super) fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    let read: Result<Text<T>, _> = serde_json::from_slice(bytes);
    read.map(|read| read.value).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Problem::invalid(format!("the body does not fit: {error}")),
        _ => Problem::malformed(format!("the body is not JSON: {error}")),
    })
}

/// What stands behind the path as `T`.
pub(super) fn query<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_urlencoded::from_bytes(bytes)
        .map_err(|error| Problem::invalid(format!("the parameters do not fit: {error}")))
}

/// The Idempotency-Key of a request.
pub(super) fn key(headers: &HeaderMap, keyed: bool) -> Result<Option<String>, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    if !keyed {
        return Err(Problem::malformed("this takes no Idempotency-Key"));
    }
    match key.to_str() {
        Ok(key) if (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(Problem::invalid("the Idempotency-Key is not 1 to 255 characters of ASCII, without spaces")),
    }
}

/// A request that is known again by what it asks.
pub(super) fn keyed(who: &Who, method: &Method, path: &str, key: String, sent: &[u8]) -> Keyed {
    let mut hash = Sha256::new();
    for part in [method.as_str().as_bytes(), path.as_bytes(), sent] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let request = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Keyed { holder: who.holder().to_owned(), key, request }
}

/// `a,b,c` as a list.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let text = String::deserialize(deserializer)?;
    let words = text.split(',').filter(|word| !word.is_empty());
    words.map(|word| T::deserialize(word.into_deserializer())).collect()
}
