//! `divvy doctor`: whether divvy can work here, and what to do where it can't.

mod check;

use super::{Global, database};
use anyhow::bail;
use check::{Finding, Verdict};
use serde_json::json;
use std::time::Duration;

/// Arguments of `divvy doctor`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// When the database can't be found, or a check fails.
pub async fn run(_: Args, global: &Global) -> anyhow::Result<()> {
    let (addresses, guard) = database::locate(global, Duration::ZERO).await?;
    let findings = check::all(&addresses).await;
    if let Some(embedded) = guard {
        embedded.stop_if_last().await?;
    }
    let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
    if global.json {
        println!("{}", json!({ "healthy": failed == 0, "checks": findings }));
    } else {
        findings.iter().for_each(show);
    }
    match failed {
        0 => Ok(()),
        1 => bail!("1 check failed"),
        more => bail!("{more} checks failed"),
    }
}

fn show(finding: &Finding) {
    println!("{:<5} {:<20} {}", finding.verdict.word(), finding.check, finding.found);
    if let Some(fix) = &finding.fix {
        println!("{:<5} {:<20} -> {fix}", "", "");
    }
}
