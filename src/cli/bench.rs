//! `divvy bench`: what divvy costs on this database, beside hand-written SQL.

use super::{Global, database, output};
use crate::bench::cpu::Cpu;
use crate::bench::payload::{BYTES_DEFAULT, BYTES_LEAST, BYTES_MOST};
use crate::bench::{self, Bench, What};
use anyhow::bail;

/// Connections of the pool: what the handlers of a worker would use, and some.
const CONNECTIONS: u32 = 4;

/// Arguments of `divvy bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Bytes of each payload
    #[arg(long, global = true, default_value_t = BYTES_DEFAULT as u32, value_name = "N",
        value_parser = clap::value_parser!(u32).range(BYTES_LEAST as i64..=BYTES_MOST as i64))]
    payload_bytes: u32,
    /// Go on although others use the database
    #[arg(long, global = true)]
    force: bool,
    /// Leave the tasks of the last round where they are; the next run removes them
    #[arg(long, global = true)]
    keep: bool,
}

/// Runs the command until it is through or interrupted.
///
/// # Errors
/// When the database can't be used or is in use, when a step fails, or the counts do not agree.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    database::with(global, CONNECTIONS, async |database| {
        let bench = Bench {
            pool: database.pool.clone(),
            direct: database.addresses.direct.clone().application_name("divvy bench"),
            cpu: Cpu::new(&database.pool).await.map_err(crate::Error::from)?,
            payload_bytes: args.payload_bytes as usize,
            json: global.json,
            // A reader that has gone must not end the measuring.
            say: |line| drop(output::line(line)),
        };
        let report = tokio::select! {
            report = bench::run(&bench, &args.what, args.force, args.keep) => report?,
            _ = tokio::signal::ctrl_c() => {
                bench::tidy(&bench.direct).await?;
                bail!("interrupted: nothing is kept of this run");
            }
        };
        match global.json {
            true => output::json(&report.json())?,
            false => output::print(&report.text())?,
        }
        match report.mismatch() {
            Some(mismatch) => bail!(mismatch),
            None => Ok(()),
        }
    })
    .await
}
