//! The demo from its first line to its verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use sqlx::PgConnection;
use tokio::time::MissedTickBehavior;

use crate::demo::characters::characters;
use crate::demo::handler::{Collisions, Payload, Report};
use crate::demo::screen::Screen;
use crate::demo::show::Outcome;
use crate::demo::tables;
use crate::demo::watch::{Look, SplitRow};
use crate::demo::workers::{Addresses, Workers};
use crate::handler::Handler;
use crate::id::TaskId;
use crate::store::state::TaskStatus;
use crate::store::{enqueue, lock, operate};

/// The lease of the demo's splits. Short, so that one sees it end; the default is 30 s.
pub const LEASE: Duration = Duration::from_secs(5);

/// How often the tables are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A worker is killed while so many percent of the splits are done.
const KILL_AT_PERCENT: std::ops::RangeInclusive<usize> = 30..=60;

/// How many workers are killed at most, until one of them takes a running split down with it.
const KILLS_MAX: usize = 3;

/// How long the task may take before the demo gives up.
const TASK_WITHIN: Duration = Duration::from_secs(600);

/// Two demos in one database would share their tables; this advisory lock keeps the second out.
pub const LOCK_KEY: i64 = 0x6469_7676_7964_656d;

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many worker processes.
    pub workers: usize,
    /// Into how many splits the task divides itself.
    pub splits: usize,
    /// Change one row of the report before the check.
    pub tamper: bool,
}

/// Runs the demo in a migrated database: `connection` leads to it, and `addresses` will
/// lead the workers.
///
/// # Errors
/// When a step fails. That the result differs or the kill did nothing is no error: see [`Outcome`].
pub async fn run(
    connection: &mut PgConnection,
    addresses: &Addresses,
    options: &Options,
    screen: &mut Screen,
) -> Result<Outcome> {
    let started = Instant::now();
    if !lock::try_advisory_lock(connection, LOCK_KEY).await? {
        bail!("another divvy demo is running in this database");
    }
    let task = prepare(connection, options, screen).await?;
    let mut workers = Workers::start(addresses, options.workers)?;
    let names: Vec<&str> = workers.names().collect();
    screen.fact("workers", &format!("{} processes: {}", names.len(), names.join(", ")));
    screen.fact("lease", &format!("{} s, so that you can watch one end (30 s by default)", LEASE.as_secs()));
    screen.say("");

    let mut watched = Watched::default();
    let ended = watched.until_ended(connection, task, &mut workers, screen).await;
    screen.end();
    workers.stop().await;
    let report = ended?;

    if options.tamper {
        tables::tamper(connection).await?;
        screen.say("  one row of the report is changed now, as you wished (--tamper)");
    }
    screen.say("  checking against Postgres' own normalize()");
    let checking = Instant::now();
    let differences = tables::differences(connection).await?;
    let check_seconds = checking.elapsed().as_secs_f64();
    Ok(Outcome {
        task_id: task.0,
        rows: report.names,
        splits: watched.look.total(),
        workers: options.workers,
        rerun: watched.rerun(),
        killed_worker: watched.kill.map(|kill| kill.worker),
        forms: report.forms,
        examples: tables::examples(connection).await?,
        differences,
        seconds: started.elapsed().as_secs_f64(),
        check_seconds,
    })
}

/// Cancels the demo's open tasks: there are none unless one was interrupted.
///
/// # Errors
/// When Postgres refuses.
pub async fn cancel_open(connection: &mut PgConnection, reason: &str) -> Result<()> {
    let open: Vec<TaskId> = sqlx::query_scalar(include_str!("open.sql"))
        .bind(Collisions::TASK_TYPE)
        .fetch_all(&mut *connection)
        .await?;
    for task in open {
        operate::cancel(&mut *connection, task, reason).await?;
    }
    Ok(())
}

/// Loads the input, declares the type and enqueues the one task.
async fn prepare(connection: &mut PgConnection, options: &Options, screen: &Screen) -> Result<TaskId> {
    cancel_open(connection, "a new demo begins").await?;
    let characters = characters()?;
    tables::load(connection, &characters).await?;
    screen.fact(
        "input",
        &format!("{} characters of Unicode 14", indicatif::HumanCount(characters.len() as u64)),
    );

    let declared = json!({
        "plan": Collisions::PLAN,
        "reduce": Collisions::REDUCE,
        "lease": format!("{} s", LEASE.as_secs()),
    });
    operate::put_task_type(&mut *connection, Collisions::TASK_TYPE, &declared).await?;
    let payload = json!(Payload { splits: options.splits });
    let task = enqueue::enqueue(&mut *connection, Collisions::TASK_TYPE, &payload, &json!({})).await?.task_id;
    screen.fact(
        "task",
        &format!("{task} of type {}, to be split into {}", Collisions::TASK_TYPE, options.splits),
    );
    Ok(task)
}

/// The worker that was killed, and what it held by the tables after it was dead.
struct Kill {
    worker: String,
    /// Split number → attempt.
    taken: BTreeMap<i32, i32>,
}

/// What has been seen of the task.
#[derive(Default)]
struct Watched {
    look: Look,
    kill: Option<Kill>,
    kills: usize,
    /// How many of the taken splits have been reported as back.
    back: usize,
}

impl Watched {
    /// Watches the task until it has ended, and kills a worker on the way.
    async fn until_ended(
        &mut self,
        connection: &mut PgConnection,
        task: TaskId,
        workers: &mut Workers,
        screen: &mut Screen,
    ) -> Result<Report> {
        let (mut looks, since) = (tokio::time::interval(LOOK_EVERY), Instant::now());
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while since.elapsed() < TASK_WITHIN {
            looks.tick().await;
            workers.all_alive()?;
            let result = enqueue::task_result(&mut *connection, task).await?;
            let planned = self.look.total() > 0;
            self.look = Look::at(connection, task.0).await?;
            if !planned && self.look.total() > 0 {
                screen.begin(self.look.total());
            }
            self.confirm_kill(workers, screen)?;
            self.show(screen);
            if self.kill.is_none() && self.kills < KILLS_MAX && KILL_AT_PERCENT.contains(&self.look.percent())
            {
                self.kill_one(connection, task, workers, screen).await?;
            }
            match result.status {
                TaskStatus::Succeeded => return report(task, result.result),
                TaskStatus::Failed | TaskStatus::Cancelled | TaskStatus::Partial => {
                    let why = result.error.unwrap_or_default();
                    bail!("task {task} is {}: {why}", result.status);
                }
                _ => {}
            }
        }
        bail!("task {task} has not ended within {} minutes", TASK_WITHIN.as_secs() / 60)
    }

    /// Kills the worker that holds the most splits, then asks the tables what it took with it.
    async fn kill_one(
        &mut self,
        connection: &mut PgConnection,
        task: TaskId,
        workers: &mut Workers,
        screen: &Screen,
    ) -> Result<()> {
        let Some(worker) = self.look.busiest(workers.names()).map(str::to_owned) else { return Ok(()) };
        workers.kill(&worker).await?;
        self.kills += 1;
        self.look = Look::at(connection, task.0).await?;
        let taken: BTreeMap<i32, i32> =
            self.look.held_by(&worker).iter().map(|split| (split.split_no, split.attempt)).collect();
        if taken.is_empty() {
            return self.kill_in_vain(&worker, workers, screen);
        }
        let percent = self.look.percent();
        screen.say(&format!(
            "  ✗ {worker} killed with SIGKILL at {percent} %, holding {}",
            splits(taken.keys())
        ));
        screen.say(&format!("    nobody renews their lease now; it ends within {} s", LEASE.as_secs()));
        self.kill = Some(Kill { worker, taken });
        Ok(())
    }

    /// Postgres may have had the commit of a split already when its worker died: that one is done.
    fn confirm_kill(&mut self, workers: &mut Workers, screen: &Screen) -> Result<()> {
        let Some(Kill { worker, mut taken }) = self.kill.take() else { return Ok(()) };
        taken.retain(|split_no, attempt| !self.look.is_done(*split_no, *attempt));
        if taken.is_empty() {
            return self.kill_in_vain(&worker, workers, screen);
        }
        self.kill = Some(Kill { worker, taken });
        Ok(())
    }

    fn kill_in_vain(&self, worker: &str, workers: &mut Workers, screen: &Screen) -> Result<()> {
        let other = workers.start_one()?;
        screen.say(&format!("  {worker} was killed just between two splits: {other} takes its place"));
        Ok(())
    }

    /// Shows the progress and the splits that have just come back.
    fn show(&mut self, screen: &mut Screen) {
        let (done, total) = (self.look.done(), self.look.total());
        let come_back = self.kill.as_ref().map(|kill| self.look.come_back(&kill.taken)).unwrap_or_default();
        if come_back.len() > self.back {
            self.back = come_back.len();
            screen.say(&come_back_line(&come_back));
        }
        if total == 0 {
            return;
        }
        let missing = self.kill.as_ref().map_or(0, |kill| kill.taken.len() - self.back);
        let waiting = match () {
            () if done == total => Some("reducing"),
            () if missing > 0 && done + missing == total => Some("waiting for the lease to end"),
            () => None,
        };
        screen.progress(done, total, waiting);
    }

    /// The splits that ran again because of the kill, with their last attempt.
    fn rerun(&self) -> Vec<(i32, i32)> {
        let come_back = self.kill.as_ref().map(|kill| self.look.come_back(&kill.taken)).unwrap_or_default();
        come_back.iter().map(|split| (split.split_no, split.attempt)).collect()
    }
}

fn report(task: TaskId, result: Option<serde_json::Value>) -> Result<Report> {
    serde_json::from_value(result.unwrap_or_default())
        .with_context(|| format!("the result of task {task} is no report"))
}

fn splits<'a>(numbers: impl Iterator<Item = &'a i32>) -> String {
    let numbers: Vec<String> = numbers.map(i32::to_string).collect();
    let noun = if numbers.len() == 1 { "split" } else { "splits" };
    format!("{noun} {}", numbers.join(" "))
}

fn come_back_line(splits_back: &[&SplitRow]) -> String {
    let numbers = splits(splits_back.iter().map(|split| &split.split_no));
    let attempt = splits_back.iter().map(|split| split.attempt).max().unwrap_or_default();
    let workers: BTreeSet<&str> = splits_back.iter().filter_map(|split| split.worker.as_deref()).collect();
    let workers = Vec::from_iter(workers).join(", ");
    format!("  ↺ {numbers} back: attempt {attempt}, by {workers}")
}
