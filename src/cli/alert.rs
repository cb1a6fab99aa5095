//! `divvy alert`: what somebody should look at.

use super::{Global, args, database, output};
use crate::store::alert::{self, AlertRow};
use crate::store::clock;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde_json::json;
use sqlx::PgPool;

/// Arguments of `divvy alert`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the alerts that are open; exit code 1 when one of them is not silenced
    List,
    /// Say what each rule finds now, without waiting for the look that is taken once a minute; stores nothing
    Test,
    /// Say that an open alert is known
    Silence {
        /// The alert, such as lag
        name: String,
        /// What it is about, such as a type
        #[arg(default_value = "", hide_default_value = true)]
        object: String,
        /// Until this moment: 20261224180000, or 2026-12-24T18:00:00+01:00; one that has passed ends the silence [default: for ever]
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// The zone of an --until without offset
        #[arg(long, value_name = "ZONE", default_value = "UTC", requires = "until")]
        timezone: String,
        /// Why, for those who look later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// When an alert is open and not silenced (list), none of that name is (silence), or the database can't be used.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let until = match &args.action {
        Action::Silence { until: Some(until), timezone, .. } => {
            Some(args::moment("--until", until, timezone)?)
        }
        _ => None,
    };
    database::with(global, 1, async |database| {
        let pool = &database.pool;
        match &args.action {
            Action::List => list(pool, global.json).await,
            Action::Test => test(pool, global.json).await,
            Action::Silence { name, object, reason, .. } => {
                alert::silence(pool, name, object, until, reason.as_deref()).await?;
                if global.json {
                    return output::json(&json!({ "name": name, "object": object, "silenced_until": until }));
                }
                let until = until.map_or("for ever".to_owned(), |at| format!("until {}", output::exact(at)));
                output::say(&format!("alert {} is silent {until}", format!("{name} {object}").trim()));
                Ok(())
            }
        }
    })
    .await
}

async fn list(pool: &PgPool, as_json: bool) -> anyhow::Result<()> {
    let rows = alert::all(pool).await?;
    let open = rows.iter().filter(|row| !row.silenced).count();
    if as_json {
        output::json(&json!({ "alerts": output::rows(&rows)? }))?;
    } else {
        let now = clock::now(pool).await?;
        let mut table = output::Table::new(["ALERT", "OBJECT", "SINCE", "SILENT"]).note("DETAIL");
        for row in &rows {
            let cells = [
                row.name.clone(),
                row.object.clone(),
                output::ago(row.since, now),
                silence(row, now).unwrap_or_default(),
            ];
            table.row(cells, Some(&row.detail));
        }
        table.print("there is no alert")?;
    }
    match open {
        0 => Ok(()),
        1 => Err(anyhow::anyhow!("1 alert is open")),
        open => Err(anyhow::anyhow!("{open} alerts are open")),
    }
}

fn silence(row: &AlertRow, now: DateTime<Utc>) -> Option<String> {
    let until =
        row.silenced_until.map_or("for ever".to_owned(), |at| format!("ends {}", output::ago(at, now)));
    row.silenced.then(|| match &row.silence_reason {
        Some(reason) => format!("{until}: {reason}"),
        None => until,
    })
}

async fn test(pool: &PgPool, as_json: bool) -> anyhow::Result<()> {
    let found = alert::findings(pool).await?;
    if as_json {
        return output::json(&json!({ "findings": output::rows(&found)? }));
    }
    let mut table = output::Table::new(["ALERT", "OBJECT"]).note("DETAIL");
    for one in &found {
        table.row([one.name.clone(), one.object.clone()], Some(&one.detail));
    }
    table.print("no rule finds anything")
}
