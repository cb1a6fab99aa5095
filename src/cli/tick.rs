//! `divvy tick`: every duty once, for those who run no divvy process and call this from a timer.

use super::{Global, database};
use crate::{leader, store::duty};
use serde_json::json;

/// Arguments of `divvy tick`.
#[derive(clap::Args)]
pub struct Args {
    /// Rows each duty handles at most
    #[arg(long, default_value_t = leader::BATCH, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    max: i32,
}

/// Runs the command.
///
/// # Errors
/// When the database can't be reached or refuses.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let database = database::connect(global, 1).await?;
    let outcome = tick(&database, args.max, global.json).await;
    database.close().await?;
    outcome
}

async fn tick(database: &database::Database, max: i32, as_json: bool) -> anyhow::Result<()> {
    let mut connection = database.pool.acquire().await.map_err(crate::Error::from)?;
    // Cron is parsed in Rust alone: this tick does what the SQL function of that name cannot.
    let (planned, fired) = leader::fire(&mut connection, max).await?;
    let mut done = vec![("plan".to_owned(), i32::try_from(planned)?)];
    done.extend(duty::tick(&mut *connection, max).await?);
    if let Some((_, count)) = done.iter_mut().find(|(duty, _)| duty == "fire") {
        *count += fired;
    }
    let text = if as_json {
        let duties: Vec<_> = done.iter().map(|(duty, done)| json!({ "duty": duty, "done": done })).collect();
        format!("{}\n", json!({ "duties": duties }))
    } else {
        done.iter().map(|(duty, done)| format!("{duty:<12} {done}\n")).collect()
    };
    Ok(super::print(&text)?)
}
