//! `/metrics`: how it goes, as Prometheus reads it. Whoever may look may read it.

use super::auth::Scope;
use super::call::{Answer, Call};
use super::counters::{BOUNDS, Counts};
use super::problem::Problem;
use super::route::{Nothing, Route, get};
use crate::store::alert::{self, AlertRow};
use crate::store::metric;
use crate::store::overview::{self, TypeRow, WorkerRow};
use std::fmt::Write as _;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The format's name.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Types at most, the busiest of them: each is ten lines.
const TYPES_MAX: usize = 1_000;
/// How long what the database said is repeated, so that many who ask are one question.
const REPEAT: Duration = Duration::from_secs(5);

/// What the database said last.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    last: Mutex<Option<(Instant, String)>>,
}

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/metrics", "How it goes, as Prometheus reads it", metrics)
            .to(&[Scope::Reader, Scope::Payloads, Scope::Operator])
            .flows(FORMAT),
    ]
}

async fn metrics(call: Call, _: Nothing) -> Result<Answer<String>, Problem> {
    let api = call.api.clone();
    let mut last = api.metrics.last.lock().await;
    let database = match last.as_ref() {
        Some((at, text)) if at.elapsed() < REPEAT => text.clone(),
        _ => {
            let (types, workers, health, alerts) = call
                .look(move |c| {
                    Box::pin(async move {
                        let types = overview::types(&mut *c).await?;
                        let workers = overview::workers(&mut *c).await?;
                        Ok((types, workers, metric::health(&mut *c).await?, alert::all(&mut *c).await?))
                    })
                })
                .await?;
            let text = of_database(types, &workers, &health) + &of_alerts(&alerts);
            *last = Some((Instant::now(), text.clone()));
            text
        }
    };
    drop(last);
    Ok(Answer::flowing(FORMAT, (database + &of_process(&api.counters.now())).into()))
}

/// A text of metrics.
struct Lines(String);

impl Lines {
    /// A metric begins.
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One value of it.
    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// A label's value as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn of_database(mut types: Vec<TypeRow>, workers: &[WorkerRow], health: &[(String, f64)]) -> String {
    let mut lines = Lines(String::new());
    lines.metric("divvy_info", "gauge", "The version of this process.");
    lines.value("divvy_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    types.sort_by_key(|row| {
        (std::cmp::Reverse(row.ready + row.running + row.delayed + row.scheduled), row.task_type.clone())
    });
    let left_out = types.len().saturating_sub(TYPES_MAX);
    types.truncate(TYPES_MAX);
    lines.metric("divvy_types_left_out", "gauge", "Types that are not shown below, the least busy ones.");
    lines.value("divvy_types_left_out", &[], left_out);
    of_types(&mut lines, &types);
    of_workers(&mut lines, workers);
    let told = [
        (
            "oldest_transaction",
            "divvy_database_oldest_transaction_seconds",
            "Age of the oldest transaction of the server.",
        ),
        (
            "notification_queue",
            "divvy_database_notification_queue_ratio",
            "How full the queue of notifications is.",
        ),
        ("last_tick", "divvy_last_tick_seconds", "Time since duties ran last; absent when they never did."),
        ("leader", "divvy_leaders", "1 while a process leads, else 0."),
        ("fsync", "divvy_database_fsync", "1 when a commit survives a crash of the machine."),
        (
            "synchronous_commit",
            "divvy_database_synchronous_commit",
            "0 when the last commits may be lost by a crash.",
        ),
        ("full_page_writes", "divvy_database_full_page_writes", "0 when a crash may tear pages."),
    ];
    for (name, metric, help) in told {
        if let Some((_, value)) = health.iter().find(|(told, _)| told == name) {
            lines.metric(metric, "gauge", help);
            lines.value(metric, &[], value);
        }
    }
    lines.0
}

fn of_types(lines: &mut Lines, types: &[TypeRow]) {
    lines.metric("divvy_splits", "gauge", "Splits that have not ended, by type and state.");
    for row in types {
        for (state, n) in [("ready", row.ready), ("delayed", row.delayed), ("running", row.running)] {
            lines.value("divvy_splits", &[("task_type", &row.task_type), ("state", state)], n);
        }
    }
    type Of = fn(&TypeRow) -> f64;
    let gauges: [(&str, &str, Of); 6] = [
        ("divvy_splits_held", "Of the delayed splits, those that a limit holds back.", |row| row.held as f64),
        ("divvy_tasks_scheduled", "Tasks that have not started.", |row| row.scheduled as f64),
        (
            "divvy_oldest_ready_seconds",
            "How long the oldest ready split has waited; 0 when none waits.",
            |row| row.oldest_ready_seconds.unwrap_or_default(),
        ),
        ("divvy_type_workers", "Workers of the type seen in the last minute.", |row| row.workers as f64),
        ("divvy_type_paused", "1 while nothing of the type is claimed.", |row| f64::from(row.paused)),
        ("divvy_type_declared", "0: tasks wait for a type that nobody has declared.", |row| {
            f64::from(row.declared)
        }),
    ];
    for (name, help, of) in gauges {
        lines.metric(name, "gauge", help);
        for row in types {
            lines.value(name, &[("task_type", &row.task_type)], of(row));
        }
    }
}

fn of_workers(lines: &mut Lines, workers: &[WorkerRow]) {
    lines.metric("divvy_workers", "gauge", "Workers seen in the last minute, by what they were told.");
    for command in ["run", "quiet", "terminate"] {
        let there = workers.iter().filter(|row| row.alive && row.command == command);
        lines.value("divvy_workers", &[("command", command)], there.count());
    }
    let alive = || workers.iter().filter(|row| row.alive);
    lines.metric("divvy_worker_slots", "gauge", "Slots of those workers.");
    lines.value("divvy_worker_slots", &[], alive().map(|row| i64::from(row.slots)).sum::<i64>());
    lines.metric("divvy_worker_leased", "gauge", "Splits that those workers hold.");
    lines.value("divvy_worker_leased", &[], alive().map(|row| row.leased).sum::<i64>());
}

fn of_alerts(alerts: &[AlertRow]) -> String {
    let mut lines = Lines(String::new());
    lines.metric("divvy_alert", "gauge", "1 for each alert that is open and not silenced.");
    for row in alerts.iter().filter(|row| !row.silenced) {
        lines.value("divvy_alert", &[("alert", &row.name), ("object", &row.object)], 1);
    }
    lines.0
}

fn of_process(counts: &Counts) -> String {
    let mut lines = Lines(String::new());
    let name = "divvy_http_requests_total";
    lines.metric(name, "counter", "Requests that this process has answered, by route.");
    for ((method, route, status), n) in &counts.answers {
        let status = status.to_string();
        lines.value(name, &[("method", method), ("route", route), ("status", &status)], n);
    }
    let name = "divvy_http_request_duration_seconds";
    lines.metric(
        name,
        "histogram",
        "Time from a request to the head of its answer, waits for work and for ends included.",
    );
    let mut sum = 0;
    for (place, n) in counts.took.iter().enumerate() {
        sum += n;
        let bound = BOUNDS.get(place).map_or("+Inf".to_owned(), ToString::to_string);
        lines.value(&format!("{name}_bucket"), &[("le", &bound)], sum);
    }
    lines.value(&format!("{name}_sum"), &[], counts.total.as_secs_f64());
    lines.value(&format!("{name}_count"), &[], sum);
    lines.0
}

#[cfg(test)]
mod tests {
    use super::super::counters::Counters;
    use super::*;

    #[test]
    fn a_label_can_t_break_out_of_its_quotes() {
        let mut lines = Lines(String::new());
        lines.value("a", &[("b", "x\"} 1\n\\")], 2);
        assert_eq!(lines.0, "a{b=\"x\\\"} 1\\n\\\\\"} 2\n");
    }

    #[test]
    fn durations_are_counted_in_every_class_that_they_fit_in() {
        let counters = Counters::default();
        for (status, millis) in [(200, 1), (200, 4), (404, 60_000)] {
            counters.add("GET", "/x", status, Duration::from_millis(millis));
        }
        let text = of_process(&counters.now());
        let name = "divvy_http_request_duration_seconds";
        for line in [
            "divvy_http_requests_total{method=\"GET\",route=\"/x\",status=\"200\"} 2".to_owned(),
            format!("{name}_bucket{{le=\"0.001\"}} 1"),
            format!("{name}_bucket{{le=\"0.005\"}} 2"),
            format!("{name}_bucket{{le=\"10\"}} 2"),
            format!("{name}_bucket{{le=\"+Inf\"}} 3"),
            format!("{name}_sum 60.005"),
            format!("{name}_count 3"),
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is missing in:\n{text}");
        }
    }
}
