//! `divvy token`: make, list and revoke the tokens of the HTTP API.

use super::args::{self, usage};
use super::{Global, database, output};
use crate::http;
use crate::store::clock;
use crate::store::token::{self, TokenRow};
use clap::Subcommand;
use serde_json::json;
use sqlx::PgPool;
use std::time::Duration;

/// Arguments of `divvy token`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a token and print it, this once: only its hash is kept
    Create {
        /// What it may do; repeatable. payloads: read payloads and results, too
        #[arg(long = "scope", value_name = "SCOPE", required = true,
            value_parser = ["producer", "worker", "reader", "payloads", "operator"])]
        scopes: Vec<String>,
        /// Its name, under which decisions are recorded: 1 to 100 of a-z 0-9 _ . : - [default: token- and some digits]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// How long it is good, such as 12h or 30d [default: until it is revoked]
        #[arg(long, value_name = "DURATION", value_parser = lifetime)]
        expires: Option<Duration>,
    },
    /// List tokens: those that are good, and with --all the others
    List {
        /// Those that have expired or were revoked, too
        #[arg(long)]
        all: bool,
    },
    /// End a token at once
    Revoke {
        /// Its name
        name: String,
        /// Why, for those who look later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// As every duration, and in days.
pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    match text.strip_suffix('d').map(str::parse::<u32>) {
        Some(Ok(days)) if days > 0 => Ok(Duration::from_secs(86_400 * u64::from(days))),
        _ => args::duration(text),
    }
}

/// Runs the command.
///
/// # Errors
/// When there is no such token, the name is taken, or the database can't be used.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    database::with(global, 2, async |database| {
        let pool = &database.pool;
        match &args.action {
            Action::Create { scopes, name, expires } => {
                create(pool, scopes, name.clone(), *expires, global.json).await
            }
            Action::List { all } => list(pool, *all, global.json).await,
            Action::Revoke { name, reason } => {
                token::revoke(pool, name, reason.as_deref()).await?;
                if global.json {
                    return output::json(&json!({ "name": name, "revoked": true }));
                }
                output::say(&format!("token {name} is revoked; services that know it forget it within 2 s"));
                Ok(())
            }
        }
    })
    .await
}

async fn create(
    pool: &PgPool,
    scopes: &[String],
    name: Option<String>,
    expires: Option<Duration>,
    as_json: bool,
) -> anyhow::Result<()> {
    let secret = http::new_token();
    let hash = http::hash(&secret);
    let name = name.unwrap_or_else(|| format!("token-{}", &hash[..8]));
    let expires_at = match expires {
        Some(expires) => {
            let until = clock::now(pool).await?.checked_add_signed(args::delta(expires));
            Some(until.ok_or_else(|| usage(format!("--expires {expires:?} is too long")))?)
        }
        None => None,
    };
    token::create(pool, &name, &hash, scopes, expires_at).await?;
    if as_json {
        return output::json(
            &json!({ "name": name, "token": secret, "scopes": scopes, "expires_at": expires_at }),
        );
    }
    let until =
        expires_at.map_or("until it is revoked".to_owned(), |at| format!("until {}", output::exact(at)));
    output::say(&format!("token {name} is good {until}; it is shown this once:"));
    output::line(&secret)
}

async fn list(pool: &PgPool, all: bool, as_json: bool) -> anyhow::Result<()> {
    let mut rows = token::list(pool).await?;
    rows.retain(|row| all || row.good);
    if as_json {
        return output::json(&json!({ "tokens": output::rows(&rows)? }));
    }
    let now = clock::now(pool).await?;
    let mut table = output::Table::new(["NAME", "STATUS", "EXPIRES", "USED", "CREATED", "BY"]).note("SCOPES");
    for row in &rows {
        let cells = [
            row.name.clone(),
            status(row).to_owned(),
            output::some(row.expires_at.map(|at| output::ago(at, now))),
            output::some(row.used_at.map(|at| output::ago(at, now))),
            output::ago(row.created_at, now),
            row.created_by.clone(),
        ];
        table.row(cells, Some(&row.scopes.join(" ")));
    }
    table.print("there is no token: `divvy token create --scope SCOPE` makes one")
}

fn status(row: &TokenRow) -> &'static str {
    match (row.good, row.revoked_at) {
        (true, _) => "good",
        (false, Some(_)) => "revoked",
        (false, None) => "expired",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_may_be_in_days() {
        assert_eq!(lifetime("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(lifetime("12h"), Ok(Duration::from_secs(12 * 3_600)));
        assert!(lifetime("0d").is_err() && lifetime("soon").is_err());
    }
}
