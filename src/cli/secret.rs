//! `divvy secret`: make, rotate, list and drop the secrets of types with a URL.

use super::args::usage;
use super::{Global, database, output, token};
use crate::store::clock;
use crate::store::secret::{self, SecretRow};
use clap::Subcommand;
use serde_json::json;
use sqlx::PgPool;
use std::io::Read;
use std::time::Duration;

/// The longest value that is read.
const VALUE_BYTES_MAX: u64 = 4096;

/// Arguments of `divvy secret`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a secret and print it, this once: the receiver needs it
    Create {
        /// Its name: 1 to 100 of a-z 0-9 _ . : -
        name: String,
        /// Read the value from standard input [default: a new signing key]
        #[arg(long)]
        stdin: bool,
    },
    /// Give a secret another value and print it; what it signs is signed with the one before, too, for a while
    Rotate {
        /// Its name
        name: String,
        /// Read the value from standard input [default: a new signing key]
        #[arg(long)]
        stdin: bool,
        /// How long the one before goes on signing, such as 2h or 7d; 0s: not at all
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = keep)]
        keep: Duration,
    },
    /// List secrets, without their values
    List,
    /// Forget a secret that no type uses
    Drop {
        /// Its name
        name: String,
    },
}

fn keep(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" => Ok(Duration::ZERO),
        _ => token::lifetime(text),
    }
}

/// Runs the command.
///
/// # Errors
/// When there is no such secret, the name is taken, or the database can't be used.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    // Before the database is asked: whoever types it must be told soon what is missing.
    let value = match &args.action {
        Action::Create { stdin: true, .. } | Action::Rotate { stdin: true, .. } => Some(read()?),
        _ => None,
    };
    database::with(global, 2, async |database| {
        let pool = &database.pool;
        match &args.action {
            Action::Create { name, .. } => {
                let made = secret::create(pool, name, value.as_deref()).await?;
                tell(name, &made, value.is_some(), "is made", global.json)
            }
            Action::Rotate { name, keep, .. } => {
                let made = secret::rotate(pool, name, value.as_deref(), *keep).await?;
                tell(name, &made, value.is_some(), "has a new value", global.json)
            }
            Action::List => list(pool, global.json).await,
            Action::Drop { name } => {
                secret::forget(pool, name).await?;
                if global.json {
                    return output::json(&json!({ "name": name, "dropped": true }));
                }
                output::say(&format!("secret {name} is dropped"));
                Ok(())
            }
        }
    })
    .await
}

fn read() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().take(VALUE_BYTES_MAX).read_to_string(&mut text)?;
    let text = text.trim_end_matches(['\r', '\n']);
    match text.is_empty() {
        true => Err(usage("--stdin: nothing was read".to_owned()).into()),
        false => Ok(text.to_owned()),
    }
}

/// A value that was given is known already.
fn tell(name: &str, value: &str, given: bool, what: &str, as_json: bool) -> anyhow::Result<()> {
    match (as_json, given) {
        (true, true) => output::json(&json!({ "name": name })),
        (true, false) => output::json(&json!({ "name": name, "secret": value })),
        (false, true) => {
            output::say(&format!("secret {name} {what}"));
            Ok(())
        }
        (false, false) => {
            output::say(&format!("secret {name} {what}; it is shown this once:"));
            output::line(value)
        }
    }
}

async fn list(pool: &PgPool, as_json: bool) -> anyhow::Result<()> {
    let rows = secret::list(pool).await?;
    if as_json {
        return output::json(&json!({ "secrets": output::rows(&rows)? }));
    }
    let now = clock::now(pool).await?;
    let mut table =
        output::Table::new(["NAME", "KIND", "CREATED", "ROTATED", "BOTH UNTIL", "BY"]).note("USED BY");
    for row in &rows {
        let cells = [
            row.name.clone(),
            kind(row).to_owned(),
            output::ago(row.created_at, now),
            output::some(row.rotated_at.map(|at| output::ago(at, now))),
            output::some(row.previous_until.map(output::exact)),
            row.created_by.clone(),
        ];
        table.row(cells, Some(&row.used_by.join(" ")));
    }
    table.print("there is no secret: `divvy secret create NAME` makes one")
}

fn kind(row: &SecretRow) -> &'static str {
    match (row.signs, row.name.as_str()) {
        (true, secret::CALLBACK) => "divvy's own",
        (true, _) => "signs",
        (false, _) => "value",
    }
}
