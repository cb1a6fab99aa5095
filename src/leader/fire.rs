//! The plan of cron schedules: what only the cron parser can say. All else about firing is in `sql/`.

use crate::Result;
use crate::id::ScheduleId;
use crate::store::duty::{self, Planned, Unplanned};
use crate::trigger::Trigger;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use std::collections::VecDeque;

/// Most schedules planned in one pass.
const PLAN_MAX: i32 = 500;

/// Most of them while more is due than one pass takes.
const PLAN_BUSY_MAX: i32 = 25;

/// Most due moments that are named one by one: as many as may wait.
const DUE_MAX: usize = 1_000;

/// Most due moments looked at in one pass; the next goes on from there.
const LOOK_MAX: usize = 20_000;

/// How far ahead moments are planned, so that they fire also while there is no planner. One always is.
const AHEAD: TimeDelta = TimeDelta::minutes(10);

/// No two moments of a cron rule are closer.
const CLOSEST: TimeDelta = TimeDelta::seconds(1);

/// Most moments that are planned ahead.
const AHEAD_MAX: usize = 30;

/// What follows for one schedule.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Its next moments.
    Next(Planned),
    /// It can't be understood.
    Refuse { reason: String },
}

/// Makes the tasks of all moments that have come, of at most `max` schedules, and plans. Returns how many were planned
/// and how many had something due.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn fire(connection: &mut PgConnection, max: i32) -> Result<(usize, i32)> {
    // What is due goes first: planning takes longer, and there is time for it until the next moment.
    let mut fired = duty::fire_due(&mut *connection, max).await?;
    let planned = plan(connection, if fired < max { PLAN_MAX } else { PLAN_BUSY_MAX }).await?;
    // What had no plan may be due; and so may later moments of what was planned ahead and is overdue, which was
    // handed back.
    if planned > 0 {
        fired += duty::fire_due(connection, max).await?;
    }
    Ok((planned, fired))
}

/// Gives unplanned cron schedules their next moments, or refuses them. Returns how many it was.
async fn plan(connection: &mut PgConnection, max: i32) -> Result<usize> {
    let schedules = duty::schedules_to_plan(&mut *connection, max, None).await?;
    let count = schedules.len();
    plan_these(connection, schedules).await;
    Ok(count)
}

/// Plans the schedule of that name up to now, so that its rule may change: what was due before is known then.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn plan_named(connection: &mut PgConnection, name: &str) -> Result<()> {
    loop {
        let schedules = duty::schedules_to_plan(&mut *connection, 1, Some(name)).await?;
        if schedules.is_empty() {
            return Ok(());
        }
        for schedule in schedules {
            match decide(&schedule) {
                Plan::Next(plan) => duty::plan_schedules(&mut *connection, &[plan]).await?,
                // What can't be understood has no moments; it is about to be replaced.
                Plan::Refuse { .. } => return Ok(()),
            }
        }
    }
}

/// One that fails is logged and stays for the next pass; the others are planned all the same.
async fn plan_these(connection: &mut PgConnection, schedules: Vec<Unplanned>) {
    let mut plans = Vec::with_capacity(schedules.len());
    for schedule in &schedules {
        match decide(schedule) {
            Plan::Next(plan) => plans.push(plan),
            Plan::Refuse { reason } => {
                let refused = duty::refuse_schedule(&mut *connection, schedule.schedule_id, &reason).await;
                log_failure(schedule.schedule_id, refused);
            }
        }
    }
    // Together, for one commit; one by one where that fails, so that none keeps the others back.
    if !plans.is_empty() && duty::plan_schedules(&mut *connection, &plans).await.is_err() {
        for plan in &plans {
            let planned = duty::plan_schedules(&mut *connection, std::slice::from_ref(plan)).await;
            log_failure(plan.schedule_id, planned);
        }
    }
}

fn log_failure(schedule: ScheduleId, outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!(schedule.id = %schedule, %error, "schedule {schedule} was not planned: {error}");
    }
}

/// The moments up to now, which SQL judges by `catch_up`, and some to come, so that they fire without a planner.
fn decide(schedule: &Unplanned) -> Plan {
    let trigger = match trigger(schedule) {
        Ok(trigger) => trigger,
        Err(error) => return Plan::Refuse { reason: error.to_string() },
    };
    let from = schedule.planned_from;
    // It fires before ends_at, not at it; Postgres counts in microseconds.
    let end = schedule.ends_at.map_or(DateTime::<Utc>::MAX_UTC, |end| end - TimeDelta::microseconds(1));
    let (now, horizon) = (schedule.server_now, schedule.server_now + AHEAD);
    let mut plan = Planned {
        schedule_id: schedule.schedule_id,
        planned_from: from,
        moments: Vec::new(),
        planned_through: None,
        earlier: 0,
        earlier_from: None,
        earlier_through: None,
    };
    let mut due = VecDeque::new();
    let mut ahead = Vec::new();
    let mut last = from;
    while let Some(at) = trigger.next_after(from, last).filter(|at| *at <= end) {
        if at <= now {
            due.push_back(at);
            if due.len() > DUE_MAX {
                let first = due.pop_front();
                plan.earlier_from = plan.earlier_from.or(first);
                plan.earlier_through = first;
                plan.earlier += 1;
            }
            if plan.earlier + due.len() == LOOK_MAX {
                // Not even counted in one pass: all of these are too long ago, the next pass goes on behind them.
                plan.earlier = LOOK_MAX;
                plan.earlier_through = Some(at);
                plan.planned_through = Some(at);
                return Plan::Next(plan);
            }
        } else if ahead.is_empty() || (at <= horizon && ahead.len() < AHEAD_MAX) {
            ahead.push(at);
        } else {
            // Up to the one that is not named.
            plan.planned_through = Some(at - CLOSEST);
            break;
        }
        last = at;
    }
    plan.moments = due.into_iter().chain(ahead).collect();
    if schedule.is_first && plan.moments.is_empty() {
        return Plan::Refuse { reason: never(schedule, &trigger) };
    }
    Plan::Next(plan)
}

/// Why a rule has no moment at all, in the words of the command line and of SQL.
fn never(schedule: &Unplanned, trigger: &Trigger) -> String {
    let or_null = |at: Option<DateTime<Utc>>| at.map_or("null".to_owned(), |at| at.to_rfc3339());
    match trigger.ensure_fires_after(schedule.planned_from, schedule.planned_from) {
        Err(error) => error.to_string(),
        Ok(()) => format!(
            "no moment of it lies between starts_at {} and ends_at {}",
            or_null(schedule.starts_at),
            or_null(schedule.ends_at)
        ),
    }
}

fn trigger(schedule: &Unplanned) -> Result<Trigger> {
    let (gap, fold) = (schedule.dst_gap.parse()?, schedule.dst_fold.parse()?);
    Trigger::cron_with(&schedule.cron, &schedule.timezone, gap, fold)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-20T{text}Z").parse().unwrap()
    }

    fn schedule(cron: &str, from: &str, now: &str) -> Unplanned {
        Unplanned {
            schedule_id: ScheduleId(7),
            name: "settle-7".into(),
            cron: cron.into(),
            timezone: "UTC".into(),
            dst_gap: "shift".into(),
            dst_fold: "first".into(),
            planned_from: at(from),
            starts_at: None,
            ends_at: None,
            server_now: at(now),
            is_first: false,
        }
    }

    fn planned(schedule: &Unplanned) -> Planned {
        match decide(schedule) {
            Plan::Next(plan) => plan,
            Plan::Refuse { reason } => panic!("refused: {reason}"),
        }
    }

    #[test]
    fn what_is_not_due_yet_is_planned_and_no_further_than_needed() {
        let plan = planned(&schedule("0 * * * *", "12:00:00", "12:00:01"));
        assert_eq!((plan.moments, plan.planned_through), (vec![at("13:00:00")], Some(at("13:59:59"))));
    }

    #[test]
    fn what_comes_soon_is_planned_ahead() {
        let plan = planned(&schedule("* * * * *", "12:00:00", "12:00:01"));
        assert_eq!((plan.moments.len(), plan.planned_through), (10, Some(at("12:10:59"))));
        let plan = planned(&schedule("* * * * * *", "12:00:00", "12:00:01"));
        assert_eq!((plan.moments.len(), plan.planned_through), (1 + AHEAD_MAX, Some(at("12:00:31"))));
    }

    #[test]
    fn after_a_downtime_every_moment_is_named() {
        let plan = planned(&schedule("0 * * * *", "12:00:00", "15:30:00"));
        let hours = [13, 14, 15, 16].map(|hour| at(&format!("{hour}:00:00")));
        assert_eq!((plan.moments, plan.earlier), (hours.to_vec(), 0));
    }

    #[test]
    fn a_long_downtime_is_counted_pass_by_pass() {
        let first = planned(&schedule("* * * * * *", "00:00:00", "06:00:00"));
        assert_eq!((first.moments.len(), first.earlier), (0, LOOK_MAX));
        assert_eq!((first.earlier_from, first.earlier_through), (Some(at("00:00:01")), Some(at("05:33:20"))));
        let second = planned(&schedule("* * * * * *", "05:33:20", "06:00:00"));
        assert_eq!((second.moments.len(), second.earlier), (DUE_MAX + AHEAD_MAX, 600));
        assert_eq!(
            (second.earlier_from, second.earlier_through),
            (Some(at("05:33:21")), Some(at("05:43:20")))
        );
    }

    #[test]
    fn nothing_fires_after_the_end() {
        let ends =
            Unplanned { ends_at: Some(at("12:30:00")), ..schedule("0 * * * *", "12:00:00", "12:00:01") };
        let never = |plan: Planned| (plan.moments, plan.planned_through);
        assert_eq!(never(planned(&ends)), (vec![], None));
        let at_the_end =
            Unplanned { ends_at: Some(at("13:00:00")), ..schedule("0 * * * *", "12:00:00", "14:00:00") };
        assert_eq!(never(planned(&at_the_end)), (vec![], None));
        let late = Unplanned { server_now: at("15:00:00"), planned_from: at("11:30:00"), ..ends };
        assert_eq!(never(planned(&late)), (vec![at("12:00:00")], None));
    }

    #[test]
    fn an_interval_goes_on_from_the_last_moment() {
        let plan = planned(&schedule("@every 90s", "12:00:00", "12:00:10"));
        assert_eq!(plan.moments[..2], [at("12:01:30"), at("12:03:00")]);
    }

    #[test]
    fn a_rule_without_any_moment_is_refused_and_one_that_had_some_ends() {
        let past = Unplanned { is_first: true, ..schedule("0 0 0 1 1 ? 2020", "12:00:00", "12:00:01") };
        let Plan::Refuse { reason } = decide(&past) else { panic!("planned") };
        assert!(reason.contains("never fires after 2026-11-20T12:00:00"), "{reason}");
        let bounded = Unplanned {
            is_first: true,
            ends_at: Some(at("12:30:00")),
            ..schedule("0 * * * *", "12:00:00", "12:00:01")
        };
        let Plan::Refuse { reason } = decide(&bounded) else { panic!("planned") };
        assert!(
            reason.contains("no moment of it lies between starts_at null and ends_at 2026-11-20T12:30"),
            "{reason}"
        );
        let late = Unplanned { is_first: false, ..bounded };
        assert!(planned(&late).moments.is_empty());
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_the_parsers_words() {
        let Plan::Refuse { reason } = decide(&schedule("0 25 * * *", "12:00:00", "12:00:00")) else {
            panic!("planned")
        };
        assert!(reason.starts_with("cron field hour is \"25\""), "{reason}");
    }
}
