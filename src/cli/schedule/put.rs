//! `divvy schedule put`.

use super::policy::PolicyArgs;
use super::preview;
use super::rule::{self, RuleArgs};
use crate::cli::{Global, args, database, output};
use crate::leader;
use crate::store::clock;
use crate::store::schedule::{self, NewSchedule, Put};
use crate::{Error, Result};
use serde_json::{Value, json};
use sqlx::PgPool;

/// Arguments of `divvy schedule put`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The schedule's name: 1 to 100 of a-z 0-9 _ . : -
    name: String,
    /// The type of the tasks it makes
    #[arg(long = "type", value_name = "TYPE")]
    task_type: String,
    #[command(flatten)]
    rule: RuleArgs,
    /// Refuse a name that is taken, instead of changing that schedule
    #[arg(long)]
    new: bool,
    /// The payload of its tasks: JSON, @file, or - for stdin [default: {}]
    #[arg(long, value_name = "JSON|@FILE|-")]
    payload: Option<String>,
    /// Of its tasks: 1 (first) to 4 [default: 2]
    #[arg(long, value_name = "1-4")]
    priority: Option<i16>,
    /// A label of its tasks; repeatable
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// At most one open task of the type has it
    #[arg(long, value_name = "KEY")]
    dedupe_key: Option<String>,
    /// The group of its tasks
    #[arg(long, value_name = "KEY")]
    group_key: Option<String>,
    #[command(flatten)]
    policy: PolicyArgs,
}

/// Runs the command.
///
/// # Errors
/// When the rule can't be understood or never fires; nothing is stored then.
pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let (trigger, rule) = args.rule.read().map_err(|error| named(&args.name, error))?;
    let payload =
        args.payload.as_deref().map_or(Ok(json!({})), |payload| args::json("--payload", payload))?;
    let new = NewSchedule {
        name: args.name.clone(),
        task_type: args.task_type.clone(),
        payload,
        rule,
        timezone: args.rule.timezone.clone(),
        options: options(&args)?,
        is_new: args.new,
    };
    database::with(global, 2, async |database| {
        let now = clock::now(&database.pool).await?;
        trigger.ensure_fires_after(now, now).map_err(|error| named(&args.name, rule::typed(error)))?;
        let put = store(&database.pool, &new).await?;
        let next = preview::next(&database.pool, &args.name, now).await?;
        tell(&args.name, put, next.map(|at| (at, output::ago(at, now))), global.json)
    })
    .await
}

async fn store(pool: &PgPool, new: &NewSchedule) -> Result<Put> {
    let mut transaction = pool.begin().await?;
    // What was due before this change is planned by the rule as it was.
    leader::plan_named(&mut transaction, &new.name).await?;
    let put = schedule::put(&mut *transaction, new).await?;
    transaction.commit().await?;
    Ok(put)
}

fn tell(
    name: &str,
    put: Put,
    next: Option<(chrono::DateTime<chrono::Utc>, String)>,
    as_json: bool,
) -> anyhow::Result<()> {
    let (id, word) = match put {
        Put::Created(id) => (id, "created"),
        Put::Changed(id) => (id, "changed"),
        Put::Unchanged(id) => (id, "unchanged"),
    };
    if as_json {
        return output::json(&json!({ "schedule_id": id.to_string(), "name": name, "outcome": word }));
    }
    let next = match put {
        Put::Unchanged(_) => String::new(),
        _ => next.map(|(at, ago)| format!("; next {} ({ago})", output::exact(at))).unwrap_or_default(),
    };
    output::say(&format!("schedule {name} is {word}{next}"));
    Ok(())
}

fn options(args: &Args) -> anyhow::Result<Value> {
    let mut options = args.policy.options(&args.rule.timezone)?;
    for (name, value) in [
        ("anchor", json!(args.rule.anchor)),
        ("dst_gap", json!(args.rule.dst_gap)),
        ("dst_fold", json!(args.rule.dst_fold)),
        ("priority", json!(args.priority)),
        ("labels", json!((!args.labels.is_empty()).then_some(&args.labels))),
        ("dedupe_key", json!(args.dedupe_key)),
        ("group_key", json!(args.group_key)),
    ] {
        options.insert(name.to_owned(), value);
    }
    Ok(Value::Object(options))
}

fn named(name: &str, error: Error) -> Error {
    Error::new(error.kind(), format!("schedule {name}: {error}"))
}
