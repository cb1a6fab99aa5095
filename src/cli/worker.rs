//! `divvy worker`: runs the types written in SQL, and is a candidate for leading; `serve` without HTTP.

use super::{Global, database, serve};
use crate::store::statement;
use anyhow::Context;
use sqlx::PgPool;

/// Connections for everything but the leader's duties and the types' own roles.
const CONNECTIONS: u32 = 8;

/// Arguments of `divvy worker`.
#[derive(clap::Args)]
pub struct Args {
    /// Only these types [default: every type written in SQL]
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Splits of each type run at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100), value_name = "N")]
    slots: u16,
    /// Never lead; another process must
    #[arg(long)]
    no_lead: bool,
    /// Migrate the database first (the embedded one always is)
    #[arg(long)]
    migrate: bool,
    /// Where the roles of types in SQL log in; {role} stands for the role [default: as the database, no password]
    #[arg(long, env = "DIVVY_SQL_ROLE_URL", hide_env_values = true, value_name = "URL")]
    sql_role_url: Option<String>,
    /// Seconds that what has begun may take after a stop
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    grace: u64,
}

/// Runs the command until it is told to stop.
///
/// # Errors
/// When the database can't be used, or its schema is not this version's.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let database = database::connect(global, CONNECTIONS).await?;
    let outcome = work(&args, &database).await;
    database.close().await?;
    outcome
}

async fn work(args: &Args, database: &database::Database) -> anyhow::Result<()> {
    let direct = &database.addresses.direct;
    // Signals first: one that comes while the rest starts is not lost.
    let stop = serve::signals();
    serve::prepare("worker", direct, args.migrate || database.embedded_url.is_some()).await?;
    let mut host = serve::sql_host(database, args.slots, args.sql_role_url.as_deref(), args.grace)?;
    if !args.types.is_empty() {
        host = host.only(args.types.clone());
    }
    announce(args, &database.pool).await?;
    let mut host = tokio::spawn(host.run(stop.clone()));
    let leader = (!args.no_lead).then(|| serve::lead("worker", direct.clone(), &stop));
    let ended = tokio::select! {
        ended = &mut host => Some(ended),
        () = stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => {
            eprintln!("divvy: terminated by an operator");
            stop.cancel();
            ended
        }
        None => {
            eprintln!("divvy: stopping; again to stop at once");
            host.await
        }
    };
    let done = ended.context("the worker broke")?;
    if let Some(leader) = leader {
        leader.await.context("the leader broke")?;
    }
    eprintln!("divvy: done: {done}");
    Ok(())
}

/// Says what it serves now. Types that come later are served too.
async fn announce(args: &Args, pool: &PgPool) -> anyhow::Result<()> {
    let there: Vec<String> =
        statement::sql_types(pool, None).await?.into_iter().map(|steps| steps.name).collect();
    let wanted = |name: &&String| args.types.is_empty() || args.types.contains(name);
    let served: Vec<&str> = there.iter().filter(wanted).map(String::as_str).collect();
    let missing: Vec<&str> =
        args.types.iter().filter(|name| !there.contains(name)).map(String::as_str).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        eprintln!("divvy: not written in SQL, or not declared yet: {missing}; served as soon as they are");
    }
    match served.is_empty() {
        true => eprintln!("divvy: works; no type written in SQL is there yet; Ctrl-C stops it"),
        false => eprintln!("divvy: works on {}; Ctrl-C stops it", served.join(", ")),
    }
    Ok(())
}
