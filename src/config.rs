//! Which database: a flag, else the environment, else divvy's own embedded Postgres.

use crate::Result;
use crate::store::connect;
use sqlx::postgres::PgConnectOptions;

/// Where divvy works. Read from `--database-url` or `DATABASE_URL`, and `DATABASE_DIRECT_URL`.
#[derive(Clone, Default)]
pub struct Database {
    /// The address for work; `None`: the embedded Postgres.
    pub url: Option<String>,
    /// The address without a pooler between, for what needs a session of its own (LISTEN, the leader's lock,
    /// migrations); `None`: the same as `url`.
    pub direct_url: Option<String>,
}

impl Database {
    /// An empty value counts as none: compose files set variables to nothing to mean "unset".
    pub fn new(url: Option<String>, direct_url: Option<String>) -> Self {
        let given = |value: Option<String>| value.filter(|value| !value.trim().is_empty());
        Self { url: given(url), direct_url: given(direct_url) }
    }

    /// How to connect for work and directly; `None`: use the embedded Postgres.
    ///
    /// # Errors
    /// When one of them is not a Postgres URL.
    pub fn options(&self) -> Result<Option<Addresses>> {
        let Some(url) = &self.url else { return Ok(None) };
        let work = connect::parse("DATABASE_URL", url)?;
        let direct = match &self.direct_url {
            Some(direct) => connect::parse("DATABASE_DIRECT_URL", direct)?,
            None => work.clone(),
        };
        Ok(Some(Addresses { work, direct }))
    }
}

/// The same database by two ways. Not `Debug`: there may be a password inside.
#[derive(Clone)]
pub struct Addresses {
    /// For work; may lead through a pooler.
    pub work: PgConnectOptions,
    /// For sessions: leads to Postgres itself.
    pub direct: PgConnectOptions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_url_means_the_embedded_postgres() {
        for url in [None, Some(String::new()), Some("  ".into())] {
            assert!(matches!(Database::new(url, None).options(), Ok(None)));
        }
    }

    #[test]
    fn the_direct_address_is_the_working_one_unless_given() {
        let url = Some("postgres://app@pooler:6432/shop".to_owned());
        let same = Database::new(url.clone(), None).options().unwrap().unwrap();
        assert_eq!((same.direct.get_host(), same.direct.get_port()), ("pooler", 6432));
        let other = Database::new(url, Some("postgres://app@db/shop".into())).options().unwrap().unwrap();
        assert_eq!((other.work.get_port(), other.direct.get_host()), (6432, "db"));
    }

    #[test]
    fn a_bad_direct_url_is_named() {
        let database = Database::new(Some("postgres://db/shop".into()), Some("db".into()));
        let error = database.options().err().expect("a refusal");
        assert!(error.to_string().starts_with("DATABASE_DIRECT_URL is not"), "{error}");
    }
}
