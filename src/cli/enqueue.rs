//! `divvy enqueue`: makes a task and prints its id.

use super::{Global, args, database, follow, output};
use crate::Result;
use crate::id::TaskId;
use crate::store::enqueue::{self, Enqueued};
use crate::store::listing::detail;
use anyhow::Context;
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use std::path::Path;
use std::time::Duration;

/// Arguments of `divvy enqueue`.
#[derive(clap::Args)]
pub struct Args {
    /// The task's type
    #[arg(value_name = "TYPE")]
    task_type: String,
    /// The payload: JSON, @file, or - for stdin [default: {}]
    #[arg(long, value_name = "JSON|@FILE|-")]
    payload: Option<String>,
    /// One split per element of a JSON array (.json), or per line (.jsonl, - for stdin)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["split_count", "split_range"])]
    splits: Option<String>,
    /// N splits that know their index
    #[arg(long, value_name = "N", conflicts_with = "split_range")]
    split_count: Option<u32>,
    /// Splits over the keys LO to HI, without HI
    #[arg(long, value_name = "LO..HI", requires = "split_size", value_parser = range, allow_hyphen_values = true)]
    split_range: Option<(i64, i64)>,
    /// Keys a split
    #[arg(long, value_name = "N", requires = "split_range")]
    split_size: Option<i64>,
    /// Not before this moment: 20261224180000, or 2026-12-24T18:00:00+01:00
    #[arg(long, value_name = "TIME")]
    run_at: Option<String>,
    /// The zone of a --run-at without offset
    #[arg(long, value_name = "ZONE", default_value = "UTC", requires = "run_at")]
    timezone: String,
    /// 1 (first) to 4 [default: 2]
    #[arg(long, value_name = "1-4")]
    priority: Option<i16>,
    /// At most one open task of the type has this key; its holder's id is printed then
    #[arg(long, value_name = "KEY")]
    dedupe_key: Option<String>,
    /// A label to find it by; repeatable
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// Attempts each split may use [default: the type's]
    #[arg(long, value_name = "N")]
    max_attempts: Option<i32>,
    /// Wait until it has ended; exit code 1 when it failed or was cancelled
    #[arg(long)]
    wait: bool,
    /// How long to wait, such as 90s or 15m; exit code 75 when it has not ended by then
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = args::duration)]
    timeout: Option<Duration>,
}

/// Runs the command.
///
/// # Errors
/// When an argument is malformed, the database refuses the task, or with `--wait` the task fails.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    // All input is read first: a typing error needs no database to be told.
    let payload =
        args.payload.as_deref().map_or(Ok(json!({})), |payload| args::json("--payload", payload))?;
    let options = options(&args)?;
    database::with(global, 2, async |database| {
        let task_type = &args.task_type;
        let made = enqueue::enqueue(&database.pool, task_type, &payload, &options)
            .await
            .with_context(|| format!("cannot enqueue a task of type {task_type}"))?;
        if !global.json {
            output::line(&made.task_id.to_string())?;
        }
        tell(&database.pool, &args, made).await;
        let answer = json!({ "task_id": made.task_id.to_string(), "created": made.created });
        if args.wait {
            wait(&database.pool, &args, answer, made.task_id, global).await
        } else {
            show(global, &answer)
        }
    })
    .await
}

/// The id is on stdout already, unless JSON was asked for.
fn show(global: &Global, answer: &Value) -> anyhow::Result<()> {
    if global.json { output::json(answer) } else { Ok(()) }
}

async fn wait(pool: &PgPool, args: &Args, made: Value, task: TaskId, global: &Global) -> anyhow::Result<()> {
    let ended = match follow::wait(pool, task, args.timeout).await {
        Ok(ended) => ended,
        Err(error) => {
            // Whoever reads the answer needs the id all the more.
            show(global, &made)?;
            return Err(error.into());
        }
    };
    let mut answer = follow::json_of(task, &ended);
    answer["created"] = made["created"].clone();
    show(global, &answer)?;
    follow::verdict(task, &ended)
}

async fn tell(pool: &PgPool, args: &Args, made: Enqueued) {
    let Enqueued { task_id, created } = made;
    if !created {
        let key = args.dedupe_key.as_deref().unwrap_or_default();
        output::say(&format!("task {task_id} holds the dedupe key {key:?}: no other was made"));
    }
    warn_undeclared(pool, task_id).await;
}

/// A task of an undeclared type waits: that may be a typing error.
async fn warn_undeclared(pool: &PgPool, task: TaskId) {
    // Producers may not read; then nothing is said.
    let Ok(detail) = detail::task(pool, task).await else { return };
    if !detail.declared {
        let name = &detail.task_type;
        output::say(&format!(
            "type {name} is not declared yet: the task waits until a worker of it starts, or `divvy type put {name}`"
        ));
    }
}

fn options(args: &Args) -> Result<Value> {
    let mut options = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            options.insert(name.to_owned(), value);
        }
    };
    set("splits", args.splits.as_deref().map(shares).transpose()?);
    set("split_count", args.split_count.map(Value::from));
    set("split_range", args.split_range.map(|(lo, hi)| Value::from(format!("[{lo},{hi})"))));
    set("split_size", args.split_size.map(Value::from));
    let run_at = args.run_at.as_deref().map(|at| args::moment("--run-at", at, &args.timezone)).transpose()?;
    set("run_at", run_at.map(|at| Value::from(at.to_rfc3339())));
    set("priority", args.priority.map(Value::from));
    set("dedupe_key", args.dedupe_key.clone().map(Value::from));
    set("labels", (!args.labels.is_empty()).then(|| Value::from(args.labels.clone())));
    set("max_attempts", args.max_attempts.map(Value::from));
    Ok(Value::Object(options))
}

/// The shares in a file: an array, or a value a line.
fn shares(path: &str) -> Result<Value> {
    let text = args::read("--splits", path)?;
    let ending = Path::new(path).extension().and_then(|ending| ending.to_str());
    if path != "-" && !matches!(ending, Some("jsonl" | "ndjson")) {
        return match args::parse("--splits", &text)? {
            Value::Array(shares) => Ok(Value::Array(shares)),
            _ => {
                Err(args::usage(format!("--splits: {path} is no JSON array (a value a line goes in .jsonl)")))
            }
        };
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| args::parse::<Value>(&format!("--splits: line {}", index + 1), line)).collect()
}

fn range(text: &str) -> Result<(i64, i64), String> {
    let bounds = text.split_once("..").and_then(|(lo, hi)| Some((lo.parse().ok()?, hi.parse().ok()?)));
    match bounds {
        Some((lo, hi)) if lo <= hi => Ok((lo, hi)),
        Some((lo, hi)) => Err(format!("{lo} is not before {hi}")),
        None => Err("two whole numbers such as 0..1000 expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_whole_numbers_in_order() {
        assert_eq!(range("-5..10"), Ok((-5, 10)));
        assert_eq!(range("7..7"), Ok((7, 7)));
        assert_eq!(range("10..5").unwrap_err(), "10 is not before 5");
        for text in ["10", "a..b", "0..99999999999999999999", "..5"] {
            assert!(range(text).unwrap_err().contains("such as 0..1000"), "{text}");
        }
    }
}
