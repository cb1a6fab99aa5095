//! The HTTP client: one for all types of a host, guarded, bounded, without redirects and proxies.

use super::answer::{Answered, retry_after};
use super::clock::Clock;
use super::guard::{Guard, Network, Refused};
use crate::error::deepest;
use crate::handler::HandlerError;
use crate::handler::said::garbage;
use crate::{Error, ErrorKind, Result};
use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{StatusCode, Url, redirect};
use std::error::Error as StdError;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Requests under way in one process, of all types together.
const REQUESTS_MAX: usize = 256;
/// How long a connection may take to come to be.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Idle connections are closed before most servers close them: a request that meets a closing connection is lost.
const IDLE_MAX: Duration = Duration::from_secs(20);
const IDLE_PER_HOST_MAX: usize = 32;
/// What is read of an answer that is no outcome.
const WORDS_BYTES_MAX: usize = 64 * 1024;
/// How much of a Location an error shows.
const LOCATION_BYTES_MAX: usize = 500;

/// Sends requests.
pub(super) struct Client {
    http: reqwest::Client,
    guard: Guard,
    room: Semaphore,
}

/// Why there is no answer.
pub(super) enum Silence {
    /// Nobody answered, or not to the end: the receiver is as good as not there.
    Broken(HandlerError),
    /// It answered, and more than it may.
    TooMuch(HandlerError),
}

impl Client {
    /// A client that reaches the public internet, and these networks.
    pub(super) fn new(allowed: &[Network]) -> Result<Self> {
        // rustls is built without a default provider; whoever installed one before us is right too.
        rustls::crypto::ring::default_provider().install_default().ok();
        let guard = Guard::new(allowed);
        let http = reqwest::Client::builder()
            .user_agent(concat!("divvy/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            // A proxy would dial what nobody has checked.
            .no_proxy()
            .dns_resolver(guard.clone())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_WITHIN)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .build()
            .map_err(|error| Error::new(ErrorKind::Config, format!("no HTTP client: {}", deepest(&error))))?;
        Ok(Self { http, guard, room: Semaphore::new(REQUESTS_MAX) })
    }

    /// Whether requests may go to the address in a URL, if it has one instead of a name.
    pub(super) fn check(&self, url: &Url) -> Result<()> {
        self.guard.check(url).map_err(|refused| Error::new(ErrorKind::Config, refused.to_string()))
    }

    /// A place among the requests under way.
    pub(super) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.room.acquire().await.ok()
    }

    /// Posts a body and reads the answer: all of an outcome of up to `most` bytes, and the beginning of anything else.
    pub(super) async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Vec<u8>,
        most: usize,
        clock: &Clock,
    ) -> Result<Answered, Silence> {
        let broken = |error: &reqwest::Error| Silence::Broken(unanswered(url, error));
        self.guard
            .check(url)
            .map_err(|refused| Silence::Broken(HandlerError::new(refused.to_string()).class("address")))?;
        let sent = self.http.post(url.clone()).headers(headers).body(body).send().await;
        let mut response = sent.map_err(|error| broken(&error))?;
        let status = response.status();
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = text(RETRY_AFTER).and_then(|text| retry_after(text, clock.now()));
        let location = text(LOCATION).map(|text| text.chars().take(LOCATION_BYTES_MAX).collect());
        let outcome = status.is_success() && status != StatusCode::ACCEPTED;
        let most = if outcome { most } else { WORDS_BYTES_MAX };
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(None) => break,
                Ok(Some(chunk)) => {
                    let room = most - body.len();
                    body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                    if chunk.len() > room && outcome {
                        let message = format!("the answer of {} has more than {most} bytes", whom(url));
                        return Err(Silence::TooMuch(garbage(message)));
                    }
                    if body.len() == most && !outcome {
                        break;
                    }
                }
                // The status says all that matters.
                Err(_) if !outcome => break,
                Err(error) => return Err(broken(&error)),
            }
        }
        Ok(Answered { status, location, retry_after, body })
    }
}

/// Who is asked, without what a URL may keep to itself.
pub(super) fn whom(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    shown.to_string()
}

fn unanswered(url: &Url, error: &reqwest::Error) -> HandlerError {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<Refused>() {
            return HandlerError::new(refused.to_string()).class("address");
        }
        cause = inner.source();
    }
    let class = if error.is_timeout() { "timeout" } else { "connection" };
    HandlerError::new(format!("no answer of {}: {}", whom(url), deepest(error))).class(class)
}
