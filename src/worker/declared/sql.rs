//! Types in SQL: logs in as their roles, and runs their statements.
//!
//! A type whose role can't be used is not served, so its tasks wait instead of failing.

use super::{Added, Common, Kind};
use crate::store::connect;
use crate::store::statement::{self, SqlType};
use crate::worker::Builder;
use crate::worker::sql_type::Statements;
use crate::{Error, Result};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use std::collections::HashMap;
use std::sync::Arc;

/// Most connections of one role.
const ROLE_CONNECTIONS_MAX: usize = 20;

/// What stands for the role in a URL that serves all of them.
const ROLE_MARK: &str = "{role}";

/// How to log in as a role.
#[derive(Debug, Clone)]
pub struct RoleAccess {
    base: PgConnectOptions,
    url: Option<String>,
}

impl RoleAccess {
    /// By `url`, in which `{role}` stands for the role; without one at the address of `base`, where the
    /// server must then know the role without a password (trust, peer, a certificate).
    ///
    /// # Errors
    /// Config when `url` is no Postgres URL.
    pub fn new(base: PgConnectOptions, url: Option<String>) -> Result<Self> {
        let access = Self { base, url };
        access.options("role").map(|_| access)
    }

    fn options(&self, role: &str) -> Result<PgConnectOptions> {
        match &self.url {
            Some(url) => {
                connect::parse("DIVVY_SQL_ROLE_URL", &url.replace(ROLE_MARK, &percent_encoded(role)))
            }
            None if role == self.base.get_username() => Ok(self.base.clone()),
            // The password of the base address is another role's.
            None => Ok(self.base.clone().username(role).password("")),
        }
    }
}

/// Runs statements.
#[derive(Debug)]
pub(super) struct Sql {
    access: RoleAccess,
    slots: usize,
}

impl Sql {
    pub(super) fn new(access: RoleAccess, slots: usize) -> Self {
        Self { access, slots }
    }

    /// The role's connections; none, and a word why, when it can't be used.
    async fn log_in(&self, role: &str, types: usize) -> Option<PgPool> {
        let attempt = async {
            let options = self.access.options(role)?;
            let mut first = connect::connect(&options).await?;
            statement::check_role(&mut first, role).await?;
            let connections = (self.slots * types).clamp(1, ROLE_CONNECTIONS_MAX);
            Ok::<_, Error>(statement::role_pool(options, u32::try_from(connections).unwrap_or(1)))
        };
        attempt
            .await
            .inspect_err(
                |error| tracing::warn!(role, %error, "the types in SQL that run as {role} wait: {error}"),
            )
            .ok()
    }
}

impl Kind for Sql {
    type Types = Vec<SqlType>;
    const WHAT: &'static str = "types in SQL";
    const NAME: &'static str = "sql types";

    async fn types(&self, common: &Common) -> Result<Vec<SqlType>> {
        let mut types = statement::sql_types(&common.pool, None).await?;
        types.retain(|steps| common.wants(&steps.name));
        Ok(types)
    }

    /// Those whose role can be used.
    async fn add(&self, types: &Vec<SqlType>, mut builder: Builder) -> Added {
        let mut roles: HashMap<&str, Option<PgPool>> = HashMap::new();
        let mut served = 0;
        for steps in types {
            if !roles.contains_key(steps.role.as_str()) {
                let count = types.iter().filter(|other| other.role == steps.role).count();
                roles.insert(&steps.role, self.log_in(&steps.role, count).await);
            }
            if let Some(Some(role)) = roles.get(steps.role.as_str()) {
                let handler = Arc::new(Statements::new(steps, role.clone()));
                builder = builder.erased(&steps.name, handler).slots(self.slots);
                served += 1;
            }
        }
        let pools = roles.into_values().flatten().collect();
        Added { builder, served, refused: served < types.len(), pools }
    }
}

/// The role's name as part of a URL.
fn percent_encoded(role: &str) -> String {
    role.bytes()
        .map(|byte| match byte {
            b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> PgConnectOptions {
        connect::parse("test", "postgres://divvy:secret@db:5433/shop").unwrap()
    }

    #[test]
    fn a_role_logs_in_at_the_same_place_or_by_a_url_of_its_own() {
        let same = RoleAccess::new(base(), None).unwrap().options("settle").unwrap();
        assert_eq!((same.get_username(), same.get_host(), same.get_port()), ("settle", "db", 5433));
        let url = Some("postgres://{role}:pw@other/shop".to_owned());
        let other = RoleAccess::new(base(), url).unwrap().options("se/t tle").unwrap();
        assert_eq!((other.get_username(), other.get_host()), ("se/t tle", "other"));
        let wrong = RoleAccess::new(base(), Some("other".into())).unwrap_err().to_string();
        assert!(wrong.starts_with("DIVVY_SQL_ROLE_URL"), "{wrong}");
    }
}
