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
    super::print(&if global.json {
        format!("{}\n", json!({ "healthy": failed == 0, "checks": findings }))
    } else {
        findings.iter().map(shown).collect()
    })?;
    match failed {
        0 => Ok(()),
        1 => bail!("1 check failed"),
        more => bail!("{more} checks failed"),
    }
}

fn shown(finding: &Finding) -> String {
    let line = format!("{:<5} {:<20} {}\n", finding.verdict.word(), finding.check, finding.found);
    match &finding.fix {
        Some(fix) => format!("{line}{:<5} {:<20} -> {fix}\n", "", ""),
        None => line,
    }
}
