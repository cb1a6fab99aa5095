//! Connecting, with messages a stranger understands: they name the place, never the password.

use crate::{Error, ErrorKind, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, PgPool, Row};
use std::str::FromStr;
use std::time::Duration;

/// How long one connection attempt may take: sqlx itself waits as long as the network does.
pub const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The oldest server divvy runs on, as `server_version_num`.
pub const SERVER_VERSION_MIN: i32 = 150_000;

/// What a server says about itself and about the role that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The version for people, such as `15.18`.
    pub version: String,
    /// The version for comparing, such as `150018`.
    pub version_num: i32,
    /// The server is a standby.
    pub in_recovery: bool,
    /// New transactions of this role may not write.
    pub read_only: bool,
    /// The database's name.
    pub database: String,
    /// The role that asks.
    pub role: String,
}

/// Reads a database URL; `source` names where it came from (a flag or a variable).
///
/// # Errors
/// When the text is not a Postgres URL. The message never repeats the URL: it may hold a password.
pub fn parse(source: &str, url: &str) -> Result<PgConnectOptions> {
    let options = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        PgConnectOptions::from_str(url).map_err(|cause| cause.to_string())
    } else {
        Err("it does not begin with postgres:// or postgresql://".to_owned())
    };
    // PgBouncer refuses start-up parameters it does not know; floats travel in binary, so nothing is lost.
    options.map(|options| options.extra_float_digits(None)).map_err(|cause| {
        Error::new(
            ErrorKind::Config,
            format!("{source} is not a Postgres URL such as postgres://role@host:5432/database: {cause}"),
        )
    })
}

/// The place `options` lead to, for messages: host and port (or socket) and database.
pub fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    match options.get_socket() {
        Some(socket) => format!("socket {} (database {database})", socket.display()),
        None => format!("{}:{} (database {database})", options.get_host(), options.get_port()),
    }
}

/// Opens one dedicated connection.
///
/// # Errors
/// When the server cannot be reached within [`CONNECT_MAX`] or refuses; the message names the place.
pub async fn connect(options: &PgConnectOptions) -> Result<PgConnection> {
    match tokio::time::timeout(CONNECT_MAX, PgConnection::connect_with(options)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(cause)) => Err(refusal(options, cause)),
        Err(_) => Err(Error::new(
            ErrorKind::Database,
            format!("Postgres at {} did not answer within {} s", place(options), CONNECT_MAX.as_secs()),
        )
        .caused_by(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))),
    }
}

/// A pool of at most `connections`, made only after one connection has shown that the server can be used.
///
/// # Errors
/// As [`connect`] and [`check_usable`].
pub async fn pool(options: &PgConnectOptions, connections: u32) -> Result<PgPool> {
    let mut first = connect(options).await?;
    let facts = facts(&mut first).await.map_err(|cause| refusal(options, cause))?;
    check_usable(options, &facts)?;
    first.close().await.ok();
    Ok(super::pool::options().max_connections(connections).connect_lazy_with(options.clone()))
}

/// Asks the server about itself.
///
/// # Errors
/// Only what the connection itself says.
pub async fn facts(connection: &mut PgConnection) -> Result<Facts, sqlx::Error> {
    let row = sqlx::query(
        "select current_setting('server_version'), current_setting('server_version_num')::int,
                pg_is_in_recovery(), current_setting('transaction_read_only')::bool,
                current_database()::text, current_user::text",
    )
    .fetch_one(connection)
    .await?;
    Ok(Facts {
        version: row.try_get(0)?,
        version_num: row.try_get(1)?,
        in_recovery: row.try_get(2)?,
        read_only: row.try_get(3)?,
        database: row.try_get(4)?,
        role: row.try_get(5)?,
    })
}

/// Refuses a server that is too old, a standby, or read-only, each with its reason.
///
/// # Errors
/// When divvy cannot work on this server.
pub fn check_usable(options: &PgConnectOptions, facts: &Facts) -> Result<()> {
    let place = place(options);
    let refuse = |message: String| Err(Error::new(ErrorKind::Database, message));
    if facts.version_num < SERVER_VERSION_MIN {
        return refuse(format!(
            "Postgres {} at {place} is too old: divvy needs 15 or later (14 reached its end of life)",
            facts.version
        ));
    }
    if facts.in_recovery {
        return refuse(format!(
            "Postgres at {place} is a standby and cannot be written to: give the address of its primary"
        ));
    }
    if facts.read_only {
        return refuse(format!(
            "Postgres at {place} is read-only for role {} (default_transaction_read_only is on)",
            facts.role
        ));
    }
    Ok(())
}

/// How many other clients are connected to the server, in any of its databases.
///
/// # Errors
/// What the connection says.
pub async fn other_clients(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()",
    )
    .fetch_one(connection)
    .await
}

/// What a failed connection means to the person who gave the address.
pub(crate) fn refusal(options: &PgConnectOptions, cause: sqlx::Error) -> Error {
    let place = place(options);
    let role = options.get_username();
    let code = cause.as_database_error().and_then(|e| e.code()).map(|code| code.into_owned());
    let said = cause.as_database_error().map_or_else(|| cause.to_string(), |e| e.message().to_owned());
    let (kind, message) = match (&cause, code.as_deref()) {
        (sqlx::Error::Io(io), _) => (ErrorKind::Database, format!("cannot reach Postgres at {place}: {io}")),
        (_, Some("28P01" | "28000")) => {
            (ErrorKind::Database, format!("Postgres at {place} refused role {role}: {said}"))
        }
        (_, Some("3D000")) => {
            (ErrorKind::Database, format!("Postgres at {place} has no such database: {said}"))
        }
        (_, Some("57P03" | "53300")) => {
            (ErrorKind::Busy, format!("Postgres at {place} takes no connection just now: {said}"))
        }
        _ => (ErrorKind::Database, format!("Postgres at {place}: {said}")),
    };
    Error::new(kind, message).caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> PgConnectOptions {
        parse("DATABASE_URL", "postgres://app:hunter2@db.example:6543/shop").unwrap()
    }

    fn facts_of(version: &str, version_num: i32) -> Facts {
        Facts {
            version: version.into(),
            version_num,
            in_recovery: false,
            read_only: false,
            database: "shop".into(),
            role: "app".into(),
        }
    }

    #[test]
    fn a_server_older_than_15_is_refused_with_the_reason() {
        let error = check_usable(&options(), &facts_of("14.23", 140_023)).unwrap_err().to_string();
        assert_eq!(
            error,
            "Postgres 14.23 at db.example:6543 (database shop) is too old: divvy needs 15 or later (14 reached its end of life)"
        );
        assert!(check_usable(&options(), &facts_of("15.0", 150_000)).is_ok());
    }

    #[test]
    fn a_standby_and_a_read_only_server_are_refused() {
        let standby = Facts { in_recovery: true, ..facts_of("15.18", 150_018) };
        assert!(check_usable(&options(), &standby).unwrap_err().to_string().contains("is a standby"));
        let frozen = Facts { read_only: true, ..facts_of("15.18", 150_018) };
        assert!(
            check_usable(&options(), &frozen).unwrap_err().to_string().contains("read-only for role app")
        );
    }

    #[test]
    fn a_malformed_url_is_refused_without_repeating_it() {
        for url in ["mysql://app:hunter2@db/shop", "postgres://app:hunter2@db:port/shop", "hunter2"] {
            let error = parse("DATABASE_URL", url).unwrap_err().to_string();
            assert!(error.starts_with("DATABASE_URL is not a Postgres URL"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
