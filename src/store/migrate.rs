//! `divvy migrate`: tables from `migrations/`, then rules from `sql/`.
//!
//! `migrations/NNNN_name.sql` is history: each file runs once, in order, and is never edited afterwards.
//! `sql/NN_name.sql` is what is: functions and views, `create or replace`, applied whole whenever their
//! checksum has changed. Everything happens in one transaction, so a database is never half migrated, as
//! the role `divvy_owner`, under one advisory lock, so ten processes may start at once.
//!
//! Why not sqlx's own migrator: it knows no repeatable files, commits file by file, and its lock stays
//! with a pooled connection after a failure, so that the next process hangs.

mod dump;
mod lock;
mod roles;
mod sources;
mod state;

pub use dump::dump;
pub use sources::{MIGRATIONS, RULES, Source, fingerprint};
pub use state::Status;

use crate::store::connect::{self, Facts};
use crate::{Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgDatabaseError};
use sqlx::{Connection, PgConnection};
use state::State;

/// How often the whole transaction is tried when a table stays locked by somebody else.
const LOCK_TRIES: u32 = 5;

/// Settings of the migrating transaction. A busy table must not stop the world behind our waiting lock;
/// every name in the files is qualified, so the caller's search_path cannot lead them astray.
const SETTINGS: &str = "
set local lock_timeout = '5s';
set local statement_timeout = 0;
set local client_min_messages = warning;
set local search_path = pg_catalog, pg_temp;";

/// The two tables that remember what has been applied.
const BOOKKEEPING: &str = "
create table if not exists divvy.migration (
    version    int primary key,
    name       text not null,
    checksum   text not null,
    applied_at timestamptz not null default now()
);
create table if not exists divvy.protocol_source (
    one        boolean primary key default true check (one),
    version    text not null,
    checksum   text not null,
    applied_at timestamptz not null default now()
);";

/// The last statements of every migration: nobody but the roles that were granted it may call a function, and
/// each of divvy's roles may read which version it has to do with.
const RIGHTS: &str = "
revoke execute on all routines in schema divvy from public;
grant select on divvy.migration, divvy.protocol_source to divvy_producer, divvy_worker, divvy_reader, divvy_operator;";

/// What `migrate` did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The migrations applied now, by name.
    pub applied: Vec<String>,
    /// The functions and views were replaced.
    pub rules_changed: bool,
}

/// Brings the database to this divvy's schema. Repeatable, and safe from any number of processes at once.
///
/// # Errors
/// When the server cannot be used ([`connect::check_usable`]), the role may not create, the database belongs
/// to a newer divvy, an applied migration was edited, or a file fails; then nothing has changed.
pub async fn migrate(options: &PgConnectOptions) -> Result<Report> {
    let options = options.clone().application_name("divvy migrate");
    let mut connection = connect::connect(&options).await?;
    let facts = connect::facts(&mut connection).await.map_err(|cause| connect::refusal(&options, cause))?;
    connect::check_usable(&options, &facts)?;
    // Most starts find everything done: look before queueing for the lock.
    if !State::read(&mut connection, &facts).await?.wants_work()? {
        return Ok(Report::default());
    }
    lock::take(&mut connection, &facts).await?;
    roles::ensure(&mut connection, &facts).await?;
    let mut tries = 1;
    let report = loop {
        match apply(&mut connection, &facts).await {
            Err(error) if error.kind() == ErrorKind::Busy && tries < LOCK_TRIES => tries += 1,
            other => break other?,
        }
    };
    // Closing gives the advisory lock back; so does any failure above, for the connection is ours alone.
    connection.close().await.ok();
    Ok(report)
}

/// Compares the database with this divvy's schema; changes nothing.
///
/// # Errors
/// When the server cannot be used or the role may not look.
pub async fn check(options: &PgConnectOptions) -> Result<Status> {
    let mut connection = connect::connect(options).await?;
    let facts = connect::facts(&mut connection).await.map_err(|cause| connect::refusal(options, cause))?;
    let standby = Facts { in_recovery: false, read_only: false, ..facts };
    connect::check_usable(options, &standby)?;
    let status = State::read(&mut connection, &standby).await?.status();
    connection.close().await.ok();
    status
}

/// One attempt at everything, in one transaction.
async fn apply(connection: &mut PgConnection, facts: &Facts) -> Result<Report> {
    let fail = |what: &str, cause| failure(what, cause, facts);
    let mut transaction = connection.begin().await.map_err(|cause| fail("begin", cause))?;
    run(&mut transaction, "the settings", SETTINGS, facts).await?;
    run(&mut transaction, "schema divvy", roles::SCHEMA, facts).await?;
    run(&mut transaction, "set role", "set local role divvy_owner", facts).await?;
    run(&mut transaction, "the version tables", BOOKKEEPING, facts).await?;
    let state = State::read(&mut transaction, facts).await?;
    let mut report = Report::default();
    if !state.wants_work()? {
        return Ok(report);
    }
    for migration in state.pending() {
        run(&mut transaction, migration.file, migration.text, facts).await?;
        sqlx::query("insert into divvy.migration (version, name, checksum) values ($1, $2, $3)")
            .bind(migration.number())
            .bind(migration.name())
            .bind(migration.checksum())
            .execute(&mut *transaction)
            .await
            .map_err(|cause| fail("divvy.migration", cause))?;
        report.applied.push(migration.name().to_owned());
    }
    for rule in RULES {
        run(&mut transaction, rule.file, rule.text, facts).await?;
    }
    run(&mut transaction, "the rights", RIGHTS, facts).await?;
    sqlx::query(
        "insert into divvy.protocol_source (version, checksum) values ($1, $2)
         on conflict (one) do update
         set version = excluded.version, checksum = excluded.checksum, applied_at = excluded.applied_at",
    )
    .bind(sources::VERSION)
    .bind(sources::rules_checksum())
    .execute(&mut *transaction)
    .await
    .map_err(|cause| fail("divvy.protocol_source", cause))?;
    transaction.commit().await.map_err(|cause| fail("commit", cause))?;
    report.rules_changed = state.rules_differ();
    Ok(report)
}

async fn run(connection: &mut PgConnection, what: &str, text: &'static str, facts: &Facts) -> Result<()> {
    sqlx::raw_sql(text)
        .execute(connection)
        .await
        .map(|_| ())
        .map_err(|cause| failure(&located(what, text, &cause), cause, facts))
}

/// `what`, with the line of `text` at which Postgres stumbled.
fn located(what: &str, text: &str, cause: &sqlx::Error) -> String {
    use sqlx::postgres::PgErrorPosition;
    let position = cause
        .as_database_error()
        .and_then(|e| e.try_downcast_ref::<PgDatabaseError>())
        .and_then(|e| e.position());
    match position {
        Some(PgErrorPosition::Original(at)) if text.lines().count() > 1 => {
            let line = 1 + text.chars().take(at.saturating_sub(1)).filter(|c| *c == '\n').count();
            format!("{what}, line {line}")
        }
        _ => what.to_owned(),
    }
}

/// What went wrong at `what`, naming the database, the role and the missing right.
fn failure(what: &str, cause: sqlx::Error, facts: &Facts) -> Error {
    let Facts { database, role, .. } = facts;
    let code = cause.as_database_error().and_then(|e| e.code()).map(|code| code.into_owned());
    let said = cause.as_database_error().map_or_else(|| cause.to_string(), |e| e.message().to_owned());
    let (kind, message) = match code.as_deref() {
        Some("42501") => (
            ErrorKind::Database,
            format!(
                "role {role} may not migrate database {database}: {said} (at {what}); it needs CREATE on the database \
                 and CREATEROLE or membership in divvy_owner, or let a superuser run `divvy migrate --dump-sql | psql`"
            ),
        ),
        Some("55P03") => (
            ErrorKind::Busy,
            format!(
                "database {database} was not migrated: a table stayed locked by somebody else (at {what})"
            ),
        ),
        _ => (ErrorKind::Database, format!("migrating database {database} failed at {what}: {said}")),
    };
    Error::new(kind, message).caused_by(cause)
}
