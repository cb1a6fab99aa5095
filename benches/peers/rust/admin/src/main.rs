//! What the runner has to ask or tell the server: `info`, `create NAME`, `drop NAME`, `tidy`, `hold`.
//! One line of JSON each; the database is `DATABASE_URL`.

use serde_json::{Map, Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::io::{Read, stdin};
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What a figure depends on.
const SETTINGS: &[&str] = &[
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "max_connections",
    "autovacuum",
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(facts) => {
            println!("{facts}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", json!({ "reason": error.to_string() }));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<Value> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set")?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut connection = PgConnection::connect(&url).await?;
    match words[..] {
        ["info"] => info(&mut connection).await,
        ["create", name] => {
            forget(&mut connection, name).await?;
            connection.execute(AssertSqlSafe(format!("create database {}", quoted(name)))).await?;
            Ok(json!({}))
        }
        ["drop", name] => {
            forget(&mut connection, name).await?;
            Ok(json!({}))
        }
        ["tidy"] => tidy(&mut connection).await,
        ["hold"] => hold(&mut connection).await,
        _ => Err(format!("not info, create NAME, drop NAME, tidy or hold: {words:?}").into()),
    }
}

async fn info(connection: &mut PgConnection) -> Result<Value> {
    let mut settings = Map::new();
    for name in SETTINGS {
        let value: String =
            sqlx::query_scalar("select current_setting($1)").bind(name).fetch_one(&mut *connection).await?;
        settings.insert((*name).to_owned(), json!(value));
    }
    // Only a superuser, or pg_read_all_settings, may know it.
    let directory: Option<String> =
        sqlx::query_scalar("select current_setting('data_directory')").fetch_one(&mut *connection).await.ok();
    let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *connection).await?;
    let stat = std::fs::read_to_string(format!("/proc/{backend}/stat")).ok();
    let postmaster: Option<u32> =
        stat.and_then(|stat| stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok());
    let database: String =
        sqlx::query_scalar("select current_database()").fetch_one(&mut *connection).await?;
    let may_create: bool =
        sqlx::query_scalar("select rolcreatedb or rolsuper from pg_roles where rolname = current_user")
            .fetch_one(&mut *connection)
            .await?;
    Ok(json!({
        "settings": settings, "data_directory": directory, "postmaster": postmaster,
        "database": database, "may_create": may_create,
    }))
}

async fn forget(connection: &mut PgConnection, name: &str) -> Result<()> {
    connection
        .execute(AssertSqlSafe(format!("drop database if exists {} with (force)", quoted(name))))
        .await?;
    Ok(())
}

/// The same start for everyone: statistics of what was loaded, and no write left from it.
async fn tidy(connection: &mut PgConnection) -> Result<Value> {
    connection.execute("vacuum analyze").await?;
    let checkpoint = connection.execute("checkpoint").await.is_ok();
    Ok(json!({ "checkpoint": checkpoint }))
}

/// A snapshot that is held until the runner closes our standard input.
async fn hold(connection: &mut PgConnection) -> Result<Value> {
    connection.execute("begin isolation level repeatable read").await?;
    connection.execute("select 1").await?;
    println!("{}", json!({ "held": true }));
    let mut rest = Vec::new();
    stdin().read_to_end(&mut rest)?;
    connection.execute("commit").await?;
    Ok(json!({ "held": false }))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
