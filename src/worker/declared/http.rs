//! Types whose URL is declared in the database, and types that are pushed to a URL that the one who starts the worker names.
//!
//! Secrets, breakers and the time are read with the types, once a second: a rotated secret signs the next request.

use super::{Added, Common, Kind, PushAccess, PushTo, waits};
use crate::store::http_type::{HttpType, http_types};
use crate::store::secret::Secret;
use crate::worker::Builder;
use crate::worker::push::{Push, Shared, Target};
use crate::{Error, ErrorKind, Result};
use reqwest::Url;
use serde_json::json;
use std::fmt;
use std::sync::Arc;

/// What a type that is not declared with a URL has of a breaker.
const FAILURES: i32 = 5;
const OPEN_SECONDS: f64 = 30.0;
const MOST_SECONDS: f64 = 600.0;

/// Pushes to URLs.
pub(super) struct Urls {
    shared: Arc<Shared>,
    slots: usize,
    to: Option<Vec<HttpType>>,
}

impl fmt::Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Urls").field("slots", &self.slots).field("to", &self.to).finish_non_exhaustive()
    }
}

/// Types, and the secrets that they name.
#[derive(PartialEq)]
pub(super) struct Pushed {
    types: Vec<HttpType>,
    secrets: Vec<Secret>,
}

impl Urls {
    pub(super) fn new(access: &PushAccess, slots: usize, to: Option<PushTo>) -> Result<Self> {
        let public_url = access.public_url.as_deref().map(public).transpose()?;
        let shared = Arc::new(Shared::new(&access.allowed, public_url)?);
        let to = to.map(declared_as);
        // What is typed wrongly is told before anything starts; secrets are another matter, they may come later.
        for declared in to.iter().flatten().take(1) {
            shared.check(&Target::new(&HttpType { secret: None, ..declared.clone() }, &[])?)?;
        }
        Ok(Self { shared, slots, to })
    }
}

fn public(text: &str) -> Result<Url> {
    let url: Url =
        text.parse().map_err(|error| config(format!("the public URL {text} is no URL: {error}")))?;
    let fine = ["http", "https"].contains(&url.scheme()) && url.query().is_none() && url.fragment().is_none();
    match fine && url.username().is_empty() && url.password().is_none() {
        true => Ok(url),
        false => Err(config(format!("the public URL {text} is not http:// or https://, a host and a path"))),
    }
}

fn config(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// The types as if they were declared with this URL.
fn declared_as(to: PushTo) -> Vec<HttpType> {
    let PushTo { task_types, url, secret, phases: (plan, reduce) } = to;
    task_types
        .into_iter()
        .map(|name| HttpType {
            name,
            url: url.clone(),
            secret: secret.clone(),
            headers: json!({}),
            request_timeout: None,
            callback_timeout: None,
            has_breaker: true,
            breaker_failures: FAILURES,
            breaker_open: OPEN_SECONDS,
            breaker_most: MOST_SECONDS,
            plan,
            reduce,
        })
        .collect()
}

impl Kind for Urls {
    type Types = Pushed;
    const WHAT: &'static str = "types with a URL";
    const NAME: &'static str = "urls";

    async fn types(&self, common: &Common) -> Result<Pushed> {
        let types = match &self.to {
            Some(types) => types.clone(),
            None => {
                let mut types = http_types(&common.pool).await?;
                types.retain(|declared| common.wants(&declared.name));
                types
            }
        };
        let secrets = self.shared.look(&common.pool, &types).await?;
        Ok(Pushed { types, secrets })
    }

    /// Those whose secrets are there, and whose address is none that nothing may go to.
    async fn add(&self, pushed: &Pushed, mut builder: Builder) -> Added {
        let mut served = 0;
        for declared in &pushed.types {
            let target = Target::new(declared, &pushed.secrets)
                .and_then(|target| self.shared.check(&target).map(|()| target));
            match target {
                Ok(target) => {
                    let handler = Arc::new(Push::new(&self.shared, &declared.name, target));
                    builder = builder.erased(&declared.name, handler).slots(self.slots);
                    served += 1;
                }
                Err(error) => waits(&declared.name, &error),
            }
        }
        Added { builder, served, refused: served < pushed.types.len(), pools: Vec::new() }
    }
}
