//! `divvy migrate`.

use super::{Global, database};
use crate::store::migrate::{self, Status};
use anyhow::{Context, bail};
use serde_json::json;
use std::io::{ErrorKind, Write};
use std::time::Duration;

/// Arguments of `divvy migrate`.
#[derive(clap::Args)]
pub struct Args {
    /// Print the whole schema as a script for psql instead, touching no database
    #[arg(long, conflicts_with = "check")]
    dump_sql: bool,
    /// Only say how the database stands; exit code 1 unless it is current
    #[arg(long)]
    check: bool,
}

/// Runs the command.
///
/// # Errors
/// When the database cannot be migrated, or with `--check` is not current.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    if args.dump_sql {
        return match std::io::stdout().write_all(migrate::dump().as_bytes()) {
            // The reader has seen enough, as `head` does.
            Err(cause) if cause.kind() == ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome.context("writing the script"),
        };
    }
    let (addresses, guard) = database::locate(global, Duration::ZERO).await?;
    let outcome = if args.check {
        check(&addresses.direct, global).await
    } else {
        apply(&addresses.direct, global).await
    };
    if let Some(embedded) = guard {
        embedded.stop_if_last().await?;
    }
    outcome
}

async fn apply(direct: &sqlx::postgres::PgConnectOptions, global: &Global) -> anyhow::Result<()> {
    let report = migrate::migrate(direct).await?;
    if global.json {
        println!("{}", json!({ "applied": report.applied, "rules_changed": report.rules_changed }));
    } else if !report.rules_changed && report.applied.is_empty() {
        println!("schema divvy is current");
    } else {
        for name in &report.applied {
            println!("applied {name}");
        }
        println!(
            "schema divvy is current{}",
            if report.rules_changed { " (functions replaced)" } else { "" }
        );
    }
    Ok(())
}

async fn check(direct: &sqlx::postgres::PgConnectOptions, global: &Global) -> anyhow::Result<()> {
    let status = migrate::check(direct).await?;
    let (word, advice) = match status {
        Status::Current => ("current", ""),
        Status::Missing => ("missing", "run `divvy migrate`"),
        Status::Behind => ("behind", "run `divvy migrate`"),
        Status::Ahead => ("ahead", "use the newer divvy"),
    };
    if global.json {
        println!("{}", json!({ "schema": word }));
    } else {
        println!("schema divvy is {word}");
    }
    if status != Status::Current {
        bail!("schema divvy is {word}: {advice}");
    }
    Ok(())
}
