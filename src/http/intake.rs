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
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// The largest body. SQL's own limits are for what is in it.
pub(super) const BODY_BYTES_MAX: usize = 16 << 20;
/// Bodies from this size on share [`BODIES_KIB`].
const LARGE_BYTES: usize = 64 << 10;
/// How large the large bodies may be together, from their first byte until they are answered.
pub(super) const BODIES_KIB: usize = 256 << 10;

/// A body, and the place it takes.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) bytes: Bytes,
    _place: Option<OwnedSemaphorePermit>,
}

impl From<Bytes> for Taken {
    /// Of what is small by nature.
    fn from(bytes: Bytes) -> Self {
        Self { bytes, _place: None }
    }
}

/// Reads a body; a slow sender is not waited for.
pub(super) async fn read(api: &Api, headers: &HeaderMap, body: Body) -> Result<Taken, Problem> {
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
        let place = match bytes {
            small if small < LARGE_BYTES => None,
            large => api.bodies.clone().acquire_many_owned(kib(large)).await.ok(),
        };
        (Limited::new(body, BODY_BYTES_MAX).collect().await, place)
    };
    match timeout(api.patience.body, reading).await {
        Ok((Ok(collected), place)) => Ok(taken(collected.to_bytes(), place)),
        Ok((Err(error), _)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok((Err(error), _)) => Err(Problem::malformed(format!("the body broke off: {error}"))),
        Err(_) => {
            let detail = format!("the body did not come within {:?}", api.patience.body);
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail))
        }
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes >> 10).unwrap_or(u32::MAX)
}

/// A body whose length was not told has the place of the largest until it is there: the rest goes back.
fn taken(bytes: Bytes, place: Option<OwnedSemaphorePermit>) -> Taken {
    let place = match bytes.len() {
        small if small < LARGE_BYTES => None,
        large => place.and_then(|mut place| place.split(kib(large) as usize)),
    };
    Taken { bytes, _place: place }
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

/// `a,b,c` as a list; an empty word is a word like others.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let text = String::deserialize(deserializer)?;
    text.split(',').map(|word| T::deserialize(word.into_deserializer())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Patience, Service};
    use axum::http::HeaderValue;
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn a_large_body_has_its_place_until_it_is_answered_and_no_more_than_its_size() {
        let nowhere = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(1);
        let pool = PgPoolOptions::new().connect_lazy_with(nowhere.clone());
        let service = Service::new(pool, nowhere, CancellationToken::new(), false, Patience::default());
        let taken = || BODIES_KIB - service.api.bodies.available_permits();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // No length is told.
        let large = read(&service.api, &headers, vec![b' '; 1 << 20].into()).await.unwrap();
        assert_eq!(taken(), 1 << 10);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(2 << 20));
        let larger = read(&service.api, &headers, vec![b' '; 2 << 20].into()).await.unwrap();
        assert_eq!(taken(), 3 << 10);
        drop((large, larger));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(LARGE_BYTES - 1));
        let small = read(&service.api, &headers, vec![b' '; LARGE_BYTES - 1].into()).await.unwrap();
        assert_eq!((taken(), small.bytes.len()), (0, LARGE_BYTES - 1));
    }
}
