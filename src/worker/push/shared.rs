//! What the types of one host share, through all changes of them.

use super::breaker::Breaker;
use super::client::Client;
use super::clock::Clock;
use super::guard::Network;
use super::target::{Target, keys};
use crate::Result;
use crate::store::http_type::HttpType;
use crate::store::secret::{CALLBACK, Secret};
use crate::store::{breaker, clock, secret};
use crate::webhook::{Key, Ticket};
use chrono::DateTime;
use reqwest::Url;
use sqlx::PgPool;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// Where callbacks come in, after the address of the service.
const CALLBACKS: &str = "/api/v1/callbacks/";

/// The client, the time, the breakers, and the key of callbacks.
pub(in crate::worker) struct Shared {
    pub(super) client: Client,
    pub(super) clock: Clock,
    breakers: Mutex<HashMap<String, Arc<Breaker>>>,
    callback_key: Mutex<Option<Key>>,
    /// Where `divvy serve` is reached from elsewhere.
    public_url: Option<Url>,
}

impl Shared {
    /// # Errors
    /// Config when there can be no client.
    pub(in crate::worker) fn new(allowed: &[Network], public_url: Option<Url>) -> Result<Self> {
        Ok(Self {
            client: Client::new(allowed)?,
            clock: Clock::new(DateTime::UNIX_EPOCH),
            breakers: Mutex::default(),
            callback_key: Mutex::default(),
            public_url,
        })
    }

    /// Reads the time, what is not closed, and the secrets of these types.
    pub(in crate::worker) async fn look(&self, pool: &PgPool, types: &[HttpType]) -> Result<Vec<Secret>> {
        let asked = Instant::now();
        self.clock.set(clock::now(pool).await?);
        let open = breaker::not_closed(pool).await?;
        for (name, breaker) in self.breakers().iter() {
            breaker.learn(open.contains(name), asked);
        }
        for name in open {
            self.breaker(&name).learn(true, asked);
        }
        let mut names: Vec<String> = types.iter().flat_map(Target::secrets_of).collect();
        names.push(CALLBACK.to_owned());
        names.sort();
        names.dedup();
        let secrets = secret::values(pool, &names).await?;
        let own = secrets.iter().find(|secret| secret.name == CALLBACK);
        let key = own.map(keys).transpose()?.and_then(|keys| keys.into_iter().next());
        *self.callback_key.lock().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(secrets.into_iter().filter(|secret| secret.name != CALLBACK).collect())
    }

    /// Whether requests may go there, as far as can be said before its name is looked up.
    pub(in crate::worker) fn check(&self, target: &Target) -> Result<()> {
        self.client.check(&target.url)
    }

    pub(super) fn breaker(&self, task_type: &str) -> Arc<Breaker> {
        self.breakers().entry(task_type.to_owned()).or_default().clone()
    }

    /// Where the callback of a split goes: a URL, or its path where nobody said how the service is reached.
    pub(super) fn callback(&self, ticket: Ticket) -> Option<String> {
        let key = self.callback_key.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let before = self.public_url.as_ref().map_or("", Url::as_str).trim_end_matches('/');
        Some(format!("{before}{CALLBACKS}{}", ticket.seal(&key)))
    }

    fn breakers(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Breaker>>> {
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
