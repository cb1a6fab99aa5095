//! `divvy task show`.

use super::follow;
use crate::cli::output::{self, Fields};
use crate::id::TaskId;
use crate::store::clock;
use crate::store::listing::detail::{self, TaskDetail};
use crate::store::listing::history::{self, EventRow};
use crate::store::listing::{self, SplitFilter, SplitRow};
use crate::store::overview::{self, Progress};
use crate::store::state::SplitStatus;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgPool;
use std::fmt::Write as _;

/// How much of the past is shown.
const EVENTS_SHOWN: i64 = 20;
/// How many of the failed splits are shown.
const FAILED_SHOWN: u64 = 5;

/// Prints all about one task.
///
/// # Errors
/// NotFound.
pub(super) async fn show(pool: &PgPool, id: TaskId, as_json: bool) -> anyhow::Result<()> {
    let task = detail::task(pool, id).await?;
    let progress = overview::progress(pool, id).await?;
    let events = history::events(pool, "task", &id.to_string(), EVENTS_SHOWN).await?;
    let filter = SplitFilter {
        task: Some(id),
        statuses: vec![SplitStatus::Failed],
        limit: Some(FAILED_SHOWN),
        ..SplitFilter::default()
    };
    let failed = listing::splits(pool, &filter).await?;
    if as_json {
        let mut object = output::row(&task)?;
        object.insert("progress".to_owned(), progress.map(output::row).transpose()?.into());
        object.insert("failed_splits".to_owned(), output::rows(&failed)?);
        object.insert("events".to_owned(), output::rows(&events)?);
        return output::json(&Value::Object(object));
    }
    let now = clock::now(pool).await?;
    let mut fields = Fields::new(now);
    standing(&mut fields, &task, progress.as_ref(), now);
    options(&mut fields, &task);
    values(&mut fields, &task);
    if !failed.is_empty() {
        fields.heading("FAILED SPLITS").lines(&failures(&failed));
    }
    if !events.is_empty() {
        fields.heading("DECISIONS").lines(&decisions(&events));
    }
    fields.print()
}

fn standing(fields: &mut Fields, task: &TaskDetail, progress: Option<&Progress>, now: DateTime<Utc>) {
    fields.add("task", task.task_id).add("type", type_of(task));
    let reason = task.reason.as_ref().filter(|reason| *reason != task.status.as_str());
    fields.add(
        "status",
        match reason {
            Some(reason) => format!("{} ({reason})", task.status),
            None => task.status.to_string(),
        },
    );
    if let Some(progress) = progress {
        fields.add("splits", splits(progress));
    }
    fields.at("created", Some(task.created_at)).at("run at", task.run_at);
    fields.at("scheduled for", task.scheduled_for).at("deadline", task.deadline_at);
    fields.at("cancel asked", task.cancel_requested_at);
    if task.paused {
        let until = task.paused_until.map_or("until resumed".to_owned(), |until| {
            format!("until {} ({})", output::exact(until), output::ago(until, now))
        });
        fields.add("paused", until).maybe("paused for", task.pause_reason.as_ref());
    }
    fields.at("finished", task.finished_at);
    fields.maybe("took", task.finished_at.map(|at| output::span(at - task.created_at)));
}

fn type_of(task: &TaskDetail) -> String {
    if task.declared { task.task_type.clone() } else { format!("{} (not declared)", task.task_type) }
}

/// `7 of 10 ended: 6 succeeded, 1 failed, 2 running`.
fn splits(progress: &Progress) -> String {
    let counts = [
        (progress.succeeded, "succeeded"),
        (progress.failed, "failed"),
        (progress.cancelled, "cancelled"),
        (progress.skipped, "skipped"),
        (progress.running, "running"),
        (progress.ready, "ready"),
        (progress.delayed, "delayed"),
    ];
    let parts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    let ended = follow::ended(progress);
    match parts.is_empty() {
        true => format!("{ended} of {} ended", progress.splits),
        false => format!("{ended} of {} ended: {}", progress.splits, parts.join(", ")),
    }
}

fn options(fields: &mut Fields, task: &TaskDetail) {
    fields.add("priority", task.priority);
    fields.maybe("epoch", (task.epoch > 1).then_some(task.epoch));
    fields.maybe("dedupe key", task.dedupe_key.as_ref()).maybe("group", task.group_key.as_ref());
    fields.maybe("labels", task.labels.as_ref().map(|labels| labels.join(", ")));
    fields.maybe("parent", task.parent_task_id).maybe("schedule", task.schedule_id);
    fields.maybe("max attempts", task.max_attempts);
    fields.maybe("timeout", task.timeout_seconds.map(|seconds| format!("{seconds}s")));
    fields.maybe("max failed", task.max_failed);
    fields.maybe("max failed %", task.max_failed_percent).maybe("reduce on", task.reduce_on.as_ref());
}

fn values(fields: &mut Fields, task: &TaskDetail) {
    fields.json("then", task.then.as_ref()).json("headers", task.headers.as_ref());
    fields.json("payload", Some(&task.payload)).json("result", task.result.as_ref());
    fields.json("error", task.error.as_ref());
}

fn failures(failed: &[SplitRow]) -> String {
    let mut table =
        output::Table::new(["SPLIT", "NO", "PHASE", "ATTEMPTS"]).right(&["NO", "ATTEMPTS"]).note("ERROR");
    for split in failed {
        let cells = [
            split.split_id.to_string(),
            split.split_no.to_string(),
            split.phase.to_string(),
            split.attempt.to_string(),
        ];
        table.row(cells, split.error.as_deref().or(split.reason.as_deref()));
    }
    table.text(output::width(), output::colours())
}

fn decisions(events: &[EventRow]) -> String {
    let mut text = String::new();
    for event in events {
        let reason = event.reason.as_deref().map(|reason| format!(": {}", output::clean(reason)));
        _ = writeln!(
            text,
            "{}  {} by {}{}",
            output::exact(event.at),
            event.verb,
            output::clean(&event.actor),
            reason.unwrap_or_default()
        );
    }
    text
}
