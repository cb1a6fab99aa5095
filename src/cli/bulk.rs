//! `divvy bulk`: the same done to many tasks; without --apply it only counts them.

use super::{Global, args, database, output};
use crate::id::{ScheduleId, TaskId};
use crate::store::bulk;
use crate::store::state::TaskStatus;
use clap::ValueEnum;
use indicatif::ProgressBar;
use serde_json::{Map, Value, json};
use sqlx::PgPool;

/// Arguments of `divvy bulk`.
#[derive(clap::Args)]
pub struct Args {
    /// What is done to each task that matches
    action: Action,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    options: Options,
    /// Do it; without this, the tasks are only counted
    #[arg(long)]
    apply: bool,
    /// The zone of moments without offset
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    timezone: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Action {
    /// Cancel what is open
    Cancel,
    /// Open again what did not succeed of ended tasks
    Redrive,
    /// Hold open tasks
    Pause,
    /// End the pauses of tasks
    Resume,
    /// Another moment or priority for scheduled tasks
    Reschedule,
    /// Delete payloads, results, errors and logs of ended tasks
    Forget,
}

/// Which tasks: all of what is given.
#[derive(clap::Args)]
#[group(id = "which", required = true, multiple = true)]
struct Filter {
    /// Of these types
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    task_type: Vec<String>,
    /// In these states
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = args::task_status())]
    status: Vec<TaskStatus>,
    /// Made after this moment: 20261224180000, or 2026-12-24T18:00:00+01:00
    #[arg(long, value_name = "TIME")]
    created_after: Option<String>,
    /// Made before this moment
    #[arg(long, value_name = "TIME")]
    created_before: Option<String>,
    /// Ended after this moment
    #[arg(long, value_name = "TIME")]
    finished_after: Option<String>,
    /// Ended before this moment
    #[arg(long, value_name = "TIME")]
    finished_before: Option<String>,
    /// With this group_key
    #[arg(long, value_name = "KEY")]
    group_key: Option<String>,
    /// With all of these labels
    #[arg(long = "label", value_name = "LABEL", value_delimiter = ',')]
    labels: Vec<String>,
    /// With this dedupe_key
    #[arg(long, value_name = "KEY")]
    dedupe_key: Option<String>,
    /// With a dedupe_key that begins so
    #[arg(long, value_name = "TEXT")]
    dedupe_prefix: Option<String>,
    /// That failed so, themselves or a split of them: a fingerprint, the error's class or the first line of its message
    #[arg(long, value_name = "FINGERPRINT")]
    error: Option<String>,
    /// Made by this schedule
    #[arg(long, value_name = "ID")]
    schedule_id: Option<ScheduleId>,
    /// Made by the end of this task
    #[arg(long, value_name = "ID")]
    parent_task_id: Option<TaskId>,
    /// These tasks
    #[arg(long = "id", value_name = "ID", value_delimiter = ',')]
    ids: Vec<TaskId>,
    /// Every task
    #[arg(long)]
    all: bool,
}

#[derive(clap::Args)]
struct Options {
    /// Why, for those who look later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// pause: until this moment [default: until resumed]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// reschedule: not before this moment [default: now]
    #[arg(long, value_name = "TIME")]
    run_at: Option<String>,
    /// reschedule: 1 (first) to 4
    #[arg(long, value_name = "N")]
    priority: Option<i32>,
    /// redrive: splits set aside by hand too
    #[arg(long)]
    skipped: bool,
    /// redrive: attempts each split may use from now on
    #[arg(long, value_name = "N")]
    max_attempts: Option<i32>,
    /// redrive: forget checkpoints, begin anew
    #[arg(long)]
    fresh: bool,
}

/// Runs the command.
///
/// # Errors
/// When the filter or an option is malformed, or the database can't be used.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let filter = filter(&args.filter, &args.timezone)?;
    let options = options(&args.options, &args.timezone)?;
    let name = args.action.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    database::with(global, 1, async |database| {
        let pool = &database.pool;
        let told = if args.apply {
            apply(pool, &name, filter.clone(), &options).await?
        } else {
            bulk::bulk(pool, &Value::Object(filter.clone()), &name, true, &options).await?
        };
        let matched = told.matched.unwrap_or_default();
        if global.json {
            let bulk::Bulk { done, refused, .. } = told;
            return output::json(
                &json!({ "matched": matched, "done": done, "refused": refused, "dry_run": !args.apply }),
            );
        }
        output::line(&(if args.apply { told.done } else { matched }).to_string())?;
        output::say(&match told {
            _ if !args.apply => format!("{matched} tasks match; --apply does it: {name}"),
            bulk::Bulk { done, refused: 0, .. } => format!("{name}: {done} of {matched} tasks"),
            bulk::Bulk { done, refused, .. } => {
                format!("{name}: {done} of {matched} tasks; {refused} refused it, or were held by somebody: call it again")
            }
        });
        Ok(())
    })
    .await
}

/// Call after call, until nothing is left; each is a transaction of its own.
async fn apply(
    pool: &PgPool,
    action: &str,
    mut filter: Map<String, Value>,
    options: &Value,
) -> anyhow::Result<bulk::Bulk> {
    let bar = ProgressBar::no_length();
    let mut sum = bulk::Bulk { matched: None, done: 0, refused: 0, last_id: None };
    loop {
        let told = bulk::bulk(pool, &Value::Object(filter.clone()), action, false, options).await?;
        sum.matched = sum.matched.or(told.matched);
        sum.done += told.done;
        sum.refused += told.refused;
        bar.set_length(sum.matched.unwrap_or_default().try_into().unwrap_or_default());
        bar.set_position((sum.done + sum.refused).try_into().unwrap_or_default());
        let Some(last) = told.last_id else { break };
        filter.insert("after".to_owned(), last.to_string().into());
    }
    bar.finish_and_clear();
    Ok(sum)
}

fn filter(given: &Filter, zone: &str) -> anyhow::Result<Map<String, Value>> {
    let moments = [
        ("created_after", "--created-after", &given.created_after),
        ("created_before", "--created-before", &given.created_before),
        ("finished_after", "--finished-after", &given.finished_after),
        ("finished_before", "--finished-before", &given.finished_before),
    ];
    let mut filter = Map::new();
    for (key, name, text) in moments {
        if let Some(text) = text {
            filter.insert(key.to_owned(), json!(args::moment(name, text, zone)?));
        }
    }
    let texts = |key: &str, values: Vec<String>| (key.to_owned(), json!(values), values.is_empty());
    let strings = |ids: &[TaskId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let statuses = given.status.iter().map(|status| status.as_str().to_owned()).collect();
    let lists = [
        texts("task_type", given.task_type.clone()),
        texts("status", statuses),
        texts("labels", given.labels.clone()),
        texts("ids", strings(&given.ids)),
    ];
    filter.extend(lists.into_iter().filter(|(_, _, empty)| !empty).map(|(key, value, _)| (key, value)));
    let ones = [
        ("group_key", given.group_key.clone()),
        ("dedupe_key", given.dedupe_key.clone()),
        ("dedupe_prefix", given.dedupe_prefix.clone()),
        ("error", given.error.clone()),
        ("schedule_id", given.schedule_id.map(|id| id.to_string())),
        ("parent_task_id", given.parent_task_id.map(|id| id.to_string())),
    ];
    filter.extend(ones.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.into()))));
    if given.all {
        filter.insert("all".to_owned(), true.into());
    }
    Ok(filter)
}

fn options(given: &Options, zone: &str) -> anyhow::Result<Value> {
    let mut options = Map::new();
    for (key, name, text) in [("until", "--until", &given.until), ("run_at", "--run-at", &given.run_at)] {
        if let Some(text) = text {
            options.insert(key.to_owned(), json!(args::moment(name, text, zone)?));
        }
    }
    let others = [
        ("reason", given.reason.clone().map(Value::from)),
        ("priority", given.priority.map(Value::from)),
        ("max_attempts", given.max_attempts.map(Value::from)),
        ("skipped", given.skipped.then_some(Value::from(true))),
        ("fresh", given.fresh.then_some(Value::from(true))),
    ];
    options.extend(others.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Ok(Value::Object(options))
}
