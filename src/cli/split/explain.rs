//! `divvy split explain`: why a split is not running.

use crate::cli::output;
use crate::id::SplitId;
use crate::store::explain::{self, RuleRow};
use serde_json::json;
use sqlx::PgPool;

pub(super) async fn explain(pool: &PgPool, id: SplitId, as_json: bool) -> anyhow::Result<()> {
    let rows = explain::split(pool, id).await?;
    if as_json {
        return output::json(&json!({ "split_id": id.to_string(), "rules": output::rows(&rows)? }));
    }
    let mut table = output::Table::new(["RULE", "BLOCKS"]).note("DETAIL");
    for row in &rows {
        let blocks = if row.blocking { "yes" } else { "no" };
        table.row([row.rule.clone(), blocks.to_owned()], Some(&row.detail));
    }
    table.print("no rule has anything to say")?;
    output::say(&verdict(id, &rows));
    Ok(())
}

/// The rules that keep it, in a line.
fn verdict(id: SplitId, rows: &[RuleRow]) -> String {
    let blocking: Vec<&str> = rows.iter().filter(|row| row.blocking).map(|row| row.rule.as_str()).collect();
    let runs = rows.iter().any(|row| row.rule == "lease");
    match (blocking.as_slice(), runs) {
        ([], true) => format!("split {id} runs"),
        ([], false) => format!("nothing keeps split {id}: the next claim may take it"),
        (rules, _) => format!("split {id} is kept by {}", rules.join(", ")),
    }
}
