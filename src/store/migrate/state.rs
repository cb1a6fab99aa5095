//! What a database has, compared with what this divvy brings.

use super::sources::{MIGRATIONS, Source, VERSION, rules_checksum};
use crate::store::connect::Facts;
use crate::{Error, ErrorKind, Result};
use sqlx::PgConnection;

/// How a database's schema stands to this divvy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There is no schema `divvy`, or nothing in it.
    Missing,
    /// `divvy migrate` has something to do.
    Behind,
    /// Exactly this divvy's schema.
    Current,
    /// The schema of a newer divvy: leave it alone.
    Ahead,
}

/// What the two version tables say.
#[derive(Debug, Default)]
pub(super) struct State {
    database: String,
    applied: Vec<(i32, String, String)>,
    rules: Option<(String, String)>,
}

impl State {
    /// Reads the version tables; absent ones mean nothing has been applied.
    pub async fn read(connection: &mut PgConnection, facts: &Facts) -> Result<Self> {
        Self::query(connection, facts).await.map_err(|cause| {
            let said =
                cause.as_database_error().map_or_else(|| cause.to_string(), |e| e.message().to_owned());
            let hint = match cause.as_database_error().and_then(|e| e.code()).as_deref() {
                Some("42501") => "; grant divvy_reader to it",
                _ => "",
            };
            Error::new(
                ErrorKind::Database,
                format!(
                    "role {} cannot read the schema version of database {}: {said}{hint}",
                    facts.role, facts.database
                ),
            )
            .caused_by(cause)
        })
    }

    async fn query(connection: &mut PgConnection, facts: &Facts) -> Result<Self, sqlx::Error> {
        let mut state = Self { database: facts.database.clone(), ..Self::default() };
        let present: bool = sqlx::query_scalar(
            "select count(*) = 2 from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where n.nspname = 'divvy' and c.relname in ('migration', 'protocol_source')",
        )
        .fetch_one(&mut *connection)
        .await?;
        if present {
            state.applied =
                sqlx::query_as("select version, name, checksum from divvy.migration order by version")
                    .fetch_all(&mut *connection)
                    .await?;
            state.rules = sqlx::query_as("select version, checksum from divvy.protocol_source")
                .fetch_optional(&mut *connection)
                .await?;
        }
        Ok(state)
    }

    /// The verdict.
    ///
    /// # Errors
    /// When a migration that was applied is not the one this divvy has under that number.
    pub fn status(&self) -> Result<Status> {
        for (version, name, checksum) in &self.applied {
            let Some(ours) = MIGRATIONS.iter().find(|source| source.number() == *version) else {
                return Ok(Status::Ahead);
            };
            if ours.checksum() != *checksum {
                return Err(Error::new(
                    ErrorKind::Database,
                    format!(
                        "migration {name} of database {} is not the {} of this divvy {VERSION}: one of them was edited",
                        self.database, ours.file
                    ),
                ));
            }
        }
        let newer = self.rules.as_ref().is_some_and(|(version, _)| triple(version) > triple(VERSION));
        Ok(match () {
            () if newer => Status::Ahead,
            () if self.applied.is_empty() => Status::Missing,
            () if self.pending().next().is_some() || self.rules_differ() => Status::Behind,
            () => Status::Current,
        })
    }

    /// The migrations still to be applied, in order.
    pub fn pending(&self) -> impl Iterator<Item = &'static Source> + '_ {
        MIGRATIONS
            .iter()
            .filter(|source| !self.applied.iter().any(|(version, ..)| *version == source.number()))
    }

    /// The database's rules are not ours.
    pub fn rules_differ(&self) -> bool {
        self.rules.as_ref().is_none_or(|(_, checksum)| *checksum != rules_checksum())
    }

    /// There is something to apply.
    ///
    /// # Errors
    /// As [`Self::status`], and when the schema is a newer divvy's: its rules are not replaced by older ones.
    pub fn wants_work(&self) -> Result<bool> {
        match self.status()? {
            Status::Current => Ok(false),
            Status::Missing | Status::Behind => Ok(true),
            Status::Ahead => Err(self.ahead()),
        }
    }

    fn ahead(&self) -> Error {
        let theirs = self.rules.as_ref().map_or("a newer version", |(version, _)| version.as_str());
        Error::new(
            ErrorKind::Protocol,
            format!(
                "database {} has the schema of divvy {theirs}; this is {VERSION}: use the newer divvy",
                self.database
            ),
        )
    }
}

/// `1.2.3` as numbers, so that 0.10 is after 0.9.
fn triple(version: &str) -> [u64; 3] {
    let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(triple("0.10.0") > triple("0.9.9"));
        assert!(triple("1.0.0") > triple("0.99.0"));
        assert_eq!(triple("0.1"), triple("0.1.0"));
    }
}
