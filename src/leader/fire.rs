//! The plan of cron schedules: what only the cron parser can say. All else about firing is in `sql/`.

use crate::Result;
use crate::id::ScheduleId;
use crate::store::duty::{self, Planned, Unplanned};
use crate::trigger::Trigger;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

/// Most schedules planned in one pass.
const PLAN_MAX: i32 = 500;

/// Most missed moments recorded one by one after a downtime.
const MISSED_MAX: usize = 100;

/// What follows for one schedule.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Its next moment.
    Next(Planned),
    /// It can't be understood.
    Refuse { reason: String },
}

/// Plans, and makes the tasks of all moments that have come, at most `max` at a time. Returns how many were
/// planned and how many fired.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn fire(connection: &mut PgConnection, max: i32) -> Result<(usize, i32)> {
    let mut planned = plan(connection).await?;
    let mut fired = duty::fire_due(&mut *connection, max).await?;
    // A moment that was planned ahead and is overdue was handed back, for later ones may be due too; and what
    // has fired needs its next moment.
    let again = plan(connection).await?;
    if again > 0 {
        planned += again;
        fired += duty::fire_due(connection, max).await?;
    }
    Ok((planned, fired))
}

/// Gives every unplanned cron schedule its next moment, or refuses it. Returns how many it was. One that
/// fails is logged and stays for the next pass; the others are planned all the same.
async fn plan(connection: &mut PgConnection) -> Result<usize> {
    let schedules = duty::schedules_to_plan(&mut *connection, PLAN_MAX).await?;
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
    Ok(schedules.len())
}

fn log_failure(schedule: ScheduleId, outcome: Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!(schedule.id = %schedule, %error, "schedule {schedule} was not planned: {error}");
    }
}

/// After a downtime the latest moment fires, those before it are missed: a start never floods.
fn decide(schedule: &Unplanned) -> Plan {
    let trigger = match trigger(schedule) {
        Ok(trigger) => trigger,
        Err(error) => return Plan::Refuse { reason: error.to_string() },
    };
    let from = schedule.planned_from;
    let next = |next_fire_at, missed| {
        Plan::Next(Planned { schedule_id: schedule.schedule_id, planned_from: from, next_fire_at, missed })
    };
    // It fires before ends_at, not at it; Postgres counts in microseconds.
    let end = schedule.ends_at.map_or(DateTime::<Utc>::MAX_UTC, |end| end - TimeDelta::microseconds(1));
    let Some(latest) = trigger.last_until(from, from, schedule.server_now.min(end)) else {
        let at = trigger.next_after(from, from).filter(|at| *at <= end);
        return next(at, Vec::new());
    };
    let mut missed = trigger.moments(from, from, latest, MISSED_MAX);
    missed.retain(|moment| *moment < latest);
    next(Some(latest), missed)
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
            ends_at: None,
            server_now: at(now),
        }
    }

    /// The next moment and the missed ones.
    fn planned(schedule: &Unplanned) -> (Option<DateTime<Utc>>, Vec<DateTime<Utc>>) {
        match decide(schedule) {
            Plan::Next(plan) => (plan.next_fire_at, plan.missed),
            Plan::Refuse { reason } => panic!("refused: {reason}"),
        }
    }

    #[test]
    fn what_is_not_due_yet_is_planned_without_a_miss() {
        let plan = planned(&schedule("0 * * * *", "12:00:00", "12:00:01"));
        assert_eq!(plan, (Some(at("13:00:00")), vec![]));
    }

    #[test]
    fn after_a_downtime_the_latest_moment_fires_and_the_earlier_are_missed() {
        let plan = planned(&schedule("0 * * * *", "12:00:00", "15:30:00"));
        assert_eq!(plan, (Some(at("15:00:00")), vec![at("13:00:00"), at("14:00:00")]));
    }

    #[test]
    fn a_long_downtime_records_a_bounded_number_of_misses() {
        let (next, missed) = planned(&schedule("* * * * * *", "00:00:00", "23:00:00"));
        assert_eq!((next, missed.len()), (Some(at("23:00:00")), MISSED_MAX));
    }

    #[test]
    fn nothing_fires_after_the_end() {
        let ends =
            Unplanned { ends_at: Some(at("12:30:00")), ..schedule("0 * * * *", "12:00:00", "12:00:01") };
        assert_eq!(planned(&ends), (None, vec![]));
        let at_the_end =
            Unplanned { ends_at: Some(at("13:00:00")), ..schedule("0 * * * *", "12:00:00", "14:00:00") };
        assert_eq!(planned(&at_the_end), (None, vec![]));
        let late = Unplanned { server_now: at("15:00:00"), planned_from: at("11:30:00"), ..ends };
        assert_eq!(planned(&late), (Some(at("12:00:00")), vec![]));
    }

    #[test]
    fn an_interval_goes_on_from_the_last_moment() {
        let plan = planned(&schedule("@every 90s", "12:00:00", "12:00:10"));
        assert_eq!(plan, (Some(at("12:01:30")), vec![]));
    }

    #[test]
    fn what_cannot_be_understood_is_refused_with_the_parsers_words() {
        let Plan::Refuse { reason } = decide(&schedule("0 25 * * *", "12:00:00", "12:00:00")) else {
            panic!("planned")
        };
        assert!(reason.starts_with("cron field hour is \"25\""), "{reason}");
    }
}
