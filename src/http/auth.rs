//! Who asks, and what they may do.

use super::problem::Problem;
use crate::store::Store;
use crate::store::token::{self, Token};
use axum::http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How long a look at a token is believed: so long a revoked one still reads and enqueues. Decisions look again.
const BELIEVED: Duration = Duration::from_secs(2);
/// How many tokens are remembered; bad ones count, so that trying many costs no memory.
const REMEMBERED_MAX: usize = 10_000;
/// Longest wait for the database.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Enqueue, and read how own tasks end.
    Producer,
    /// Claim and finish splits.
    Worker,
    /// Look, without payloads and results.
    Reader,
    /// Look, with payloads and results.
    Payloads,
    /// Intervene, and look without payloads and results.
    Operator,
}

impl Scope {
    /// Its name.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Worker => "worker",
            Self::Reader => "reader",
            Self::Payloads => "payloads",
            Self::Operator => "operator",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Who {
    /// The token's hash; none: anybody on this machine, who may do everything.
    pub(super) hash: Option<String>,
    name: Option<String>,
    scopes: Vec<String>,
}

impl Who {
    /// Somebody of whom nothing is known, who may do nothing.
    pub(super) fn nobody() -> Self {
        Self { hash: None, name: Some(String::new()), scopes: Vec::new() }
    }

    /// Whether one of `scopes` is among their own.
    pub(super) fn may(&self, scopes: &[Scope]) -> bool {
        self.name.is_none() || scopes.iter().any(|scope| self.scopes.iter().any(|own| own == scope.as_str()))
    }

    /// Whose keys and answers these are.
    pub(super) fn holder(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// 403 unless one of `scopes` is among their own.
    pub(super) fn check(&self, scopes: &[Scope]) -> Result<(), Problem> {
        if scopes.is_empty() || self.may(scopes) {
            return Ok(());
        }
        let needed: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        let detail = format!(
            "token {} has the scopes {}; this needs one of {}",
            self.holder(),
            self.scopes.join(", "),
            needed.join(", ")
        );
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
    }
}

/// The SHA-256 of a token, in hexadecimal.
pub fn hash(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new token: 256 random bits, with a beginning by which people and scanners know it.
pub fn new_token() -> String {
    let random: [u8; 32] = rand::random();
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("divvy_{digits}")
}

/// What is known of tokens.
#[derive(Debug)]
pub(super) struct Tokens {
    store: Store,
    required: bool,
    known: Mutex<HashMap<String, (Instant, Option<Token>)>>,
}

impl Tokens {
    /// `required`: nobody comes in without one.
    pub(super) fn new(store: Store, required: bool) -> Self {
        Self { store, required, known: Mutex::default() }
    }

    /// Who sent these headers.
    pub(super) async fn who(&self, headers: &HeaderMap) -> Result<Who, Problem> {
        let Some(given) = headers.get(header::AUTHORIZATION) else {
            if self.required {
                return Err(unauthorized("a token is needed: Authorization: Bearer divvy_…"));
            }
            is_local(headers)?;
            return Ok(Who { hash: None, name: None, scopes: Vec::new() });
        };
        let given = given.to_str().unwrap_or_default();
        let token = given.split_once(' ').filter(|(how, _)| how.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = token else {
            return Err(unauthorized("Authorization is not Bearer and a token"));
        };
        let hash = hash(token.trim());
        match self.look(&hash).await? {
            Some(Token { name, scopes }) => Ok(Who { hash: Some(hash), name: Some(name), scopes }),
            None => Err(not_good()),
        }
    }

    /// 401 when the token of somebody who was let in has ended since.
    pub(super) async fn still_good(&self, who: &Who) -> Result<(), Problem> {
        match &who.hash {
            Some(hash) if self.look(hash).await?.is_none() => Err(not_good()),
            _ => Ok(()),
        }
    }

    /// Forgets a token that turned out not to be good.
    pub(super) fn forget(&self, hash: &str) {
        if let Ok(mut known) = self.known.lock() {
            known.remove(hash);
        }
    }

    async fn look(&self, hash: &str) -> Result<Option<Token>, Problem> {
        if let Ok(known) = self.known.lock()
            && let Some((at, token)) = known.get(hash)
            && at.elapsed() < BELIEVED
        {
            return Ok(token.clone());
        }
        let asked = Instant::now();
        let wanted = hash.to_owned();
        let token = self
            .store
            .bounded_apart(LOOK_WITHIN, move |c| Box::pin(async move { token::token_of(c, &wanted).await }))
            .await?;
        if let Ok(mut known) = self.known.lock() {
            if known.len() >= REMEMBERED_MAX {
                known.retain(|_, (at, _)| at.elapsed() < BELIEVED);
            }
            if known.len() < REMEMBERED_MAX {
                known.insert(hash.to_owned(), (asked, token.clone()));
            }
        }
        Ok(token)
    }
}

fn not_good() -> Problem {
    unauthorized("the token is unknown, has expired or was revoked")
}

/// 401: who asks is not known.
pub(super) fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

/// Without tokens, the address is all that keeps strangers out: a page in a browser on this machine may not come by a
/// name of its own that leads here.
fn is_local(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let local = name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if local {
        return Ok(());
    }
    let detail = format!("without a token this is answered to localhost alone, not to {host:?}");
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
}
