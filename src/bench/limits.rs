//! `divvy bench limits`: the same drain without limits, with one that is looked at, and beside many groups that are full.

use super::figure::Series;
use super::load::{self, WORKER_PREFIX};
use super::payload::payload;
use super::report::{Counts, Report, grouped, rounds as plural};
use super::{Bench, drain};
use crate::store::connect;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::time::Duration;
use uuid::Uuid;

/// Splits of a claim that fills groups, and how many such claims at most.
const HELD_AT_ONCE: i32 = 1_000;
const CLAIMS_MAX: u32 = 10_000;
/// How often, and how many times, to look whether what runs is written down.
const WRITE_DOWN_EVERY: Duration = Duration::from_millis(250);
const WRITE_DOWN_LOOKS: u32 = 240;

/// What is drained, and under which limits.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
#[group(id = "limits")]
pub struct Options {
    /// Tasks of a round
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tasks: u64,
    /// Rounds, of each way in turn; figures are their medians
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Splits the worker has at once
    #[arg(long, default_value_t = drain::IN_FLIGHT, value_name = "N")]
    in_flight: usize,
    /// The limit of all that run of the type: above what the worker has at once and ahead, it is only looked at
    #[arg(long, default_value_t = 2_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_running: u32,
    /// Groups of limit 1, of each of which one split runs and one is held back
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    groups: u32,
}

/// One way to be limited.
struct Way {
    series: Series,
    options: Value,
    groups: u32,
}

impl Way {
    fn new(key: &str, name: String, options: Value, groups: u32) -> Self {
        Self { series: Series::new(key, name), options, groups }
    }

    /// One round, in tables of its own.
    async fn round(
        &mut self,
        bench: &Bench,
        connection: &mut PgConnection,
        options: &Options,
    ) -> Result<Counts> {
        let names = load::types(1);
        load::clean(connection).await?;
        load::declare(connection, &names, &self.options).await?;
        fill_groups(connection, &names[0], self.groups, bench.payload_bytes).await?;
        // What the groups have stays open beyond what is drained, as a backlog does.
        let beside = drain::Options {
            tasks: options.tasks,
            rounds: 1,
            in_flight: options.in_flight,
            history: 0,
            backlog: 2 * u64::from(self.groups),
            types: 1,
            slots_each: None,
        };
        let (figure, counts) = drain::drain(bench, connection, &names, &beside).await?;
        ensure!(
            counts.left_ready == beside.backlog,
            "of {} splits of full groups {} are open: the others ran over their limit",
            beside.backlog,
            counts.left_ready
        );
        self.series.figures.push(figure);
        Ok(Counts { left_ready: 0, ..counts })
    }
}

/// Measures.
///
/// # Errors
/// When a step fails, or a limit did not hold.
pub async fn run(bench: &Bench, options: &Options) -> Result<Report> {
    let Options { tasks, rounds, in_flight, max_running, groups } = options;
    ensure!(*in_flight > 0, "--in-flight is 0: a worker needs one slot");
    let of_groups = json!({"max_running_per_group": 1});
    let mut ways = [
        Way::new("unlimited", "no limit".into(), json!({}), 0),
        Way::new(
            "max_running",
            format!("max_running {}", grouped((*max_running).into())),
            json!({"max_running": max_running}),
            0,
        ),
        Way::new("no_groups", "max_running_per_group 1, no group".into(), of_groups.clone(), 0),
        Way::new(
            "groups",
            format!("the same beside {} full groups", grouped((*groups).into())),
            of_groups,
            *groups,
        ),
    ];
    let mut connection = connect::connect(&bench.direct).await?;
    let mut counts = Counts::default();
    for round in 0..*rounds {
        // In turn, and the other way round each time: what a machine does meanwhile hits all.
        for at in 0..ways.len() {
            let at = if round % 2 == 0 { at } else { ways.len() - 1 - at };
            counts += ways[at].round(bench, &mut connection, options).await?;
        }
    }
    let title = format!(
        "limits: drain of {} single-split tasks without a group, {}, medians",
        grouped(*tasks),
        plural(*rounds)
    );
    let mut report = Report::new("limits", title, options)?;
    for way in &ways {
        report.series(&way.series);
    }
    let [unlimited, most, none, full] = ways.each_ref().map(|way| &way.series);
    report.ratio("max_running_unlimited", "max_running / no limit", most, unlimited);
    report.ratio("no_groups_unlimited", "no group / no limit", none, unlimited);
    report.ratio("groups_no_groups", "beside full groups / no group", full, none);
    let binds = binds(*max_running, *in_flight);
    report.set("max_running_binds", binds.into());
    if binds {
        report.note(format!(
            "max_running {} binds: the worker has {} in flight and as many ahead, so this shows what waiting at the \
             limit costs, not what looking at it does",
            grouped((*max_running).into()),
            grouped(*in_flight as u64)
        ));
    }
    report.counts(counts);
    Ok(report)
}

/// Whether the limit is not above what the worker has: so many in flight, and as many ahead while splits are short.
fn binds(max_running: u32, in_flight: usize) -> bool {
    max_running as usize <= 2 * in_flight
}

/// Two tasks of each group: somebody else holds one, and claims have found that the other one must wait.
async fn fill_groups(
    connection: &mut PgConnection,
    task_type: &str,
    groups: u32,
    bytes: usize,
) -> Result<()> {
    if groups == 0 {
        return Ok(());
    }
    sqlx::query(
        "insert into divvy.task (task_type, payload, group_key)
         select $1, $3::text::jsonb, 'group ' || n from generate_series(1, $2::bigint) n, generate_series(1, 2)",
    )
    .bind(task_type)
    .bind(i64::from(groups))
    .bind(payload(0, 0, bytes))
    .execute(&mut *connection)
    .await
    .context("inserting tasks of groups")?;
    let holder = Uuid::new_v4();
    sqlx::query("select divvy.register_worker($1, $2, array[$3], $4)")
        .bind(holder)
        .bind(format!("{WORKER_PREFIX}holder"))
        .bind(task_type)
        .bind(HELD_AT_ONCE)
        .execute(&mut *connection)
        .await
        .context("registering who holds the groups")?;
    let mut held = 0;
    // What is over its limit is held back by the first claim that sees it: that is done once, and before the clock runs.
    for _ in 0..CLAIMS_MAX {
        let ready: bool = sqlx::query_scalar("select divvy.has_ready($1)")
            .bind(task_type)
            .fetch_one(&mut *connection)
            .await
            .context("looking whether groups are full")?;
        if !ready {
            ensure!(held == i64::from(groups), "of {groups} groups {held} have something that runs");
            return write_down(connection).await;
        }
        let claimed: i64 = sqlx::query_scalar("select count(*) from divvy.claim($1, array[$2], $3, '1 day')")
            .bind(holder)
            .bind(task_type)
            .bind(HELD_AT_ONCE)
            .fetch_one(&mut *connection)
            .await
            .context("filling groups")?;
        held += claimed;
    }
    bail!(
        "of {groups} groups {held} have something that runs, and {CLAIMS_MAX} claims have not held back the rest"
    )
}

/// What runs for longer than a moment is written down once; that is no claim's, so it is done before the clock runs.
async fn write_down(connection: &mut PgConnection) -> Result<()> {
    for _ in 0..WRITE_DOWN_LOOKS {
        let open: bool = sqlx::query_scalar(
            "select exists (select from divvy.lease l where not l.written) from divvy.write_down_old()",
        )
        .fetch_one(&mut *connection)
        .await
        .context("writing down what runs")?;
        if !open {
            return Ok(());
        }
        tokio::time::sleep(WRITE_DOWN_EVERY).await;
    }
    bail!("leases of full groups are not written down after {WRITE_DOWN_LOOKS} looks")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_binds_unless_it_is_above_what_the_worker_has_in_flight_and_ahead() {
        assert!(binds(1_000, drain::IN_FLIGHT));
        assert!(!binds(1_001, drain::IN_FLIGHT));
    }
}
