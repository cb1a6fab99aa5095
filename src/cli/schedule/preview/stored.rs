//! The moments that a stored schedule has before it, and where its calendar and its jitter move them.

use super::rows::Preview;
use super::zone;
use crate::store::schedule::{self, Due, StoredRule};
use crate::trigger::Trigger;
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

/// Most moments looked at for those that a calendar lets fire.
const LOOK_MAX: usize = 1_000;

/// As many of them as are left to fire, `count` at most.
///
/// # Errors
/// When its rule can't be understood; it is refused then.
pub(super) async fn preview(
    pool: &PgPool,
    stored: &StoredRule,
    now: DateTime<Utc>,
    count: usize,
) -> Result<Preview> {
    let left = stored.runs_left.map_or(count, |left| usize::try_from(left).unwrap_or_default().min(count));
    let mut preview = by_rule(stored, now, if stored.moves { LOOK_MAX } else { left })?;
    preview.count = left;
    if stored.moves {
        let dues = schedule::due_times(pool, stored.schedule_id, &preview.moments).await?;
        let looked = dues.len();
        preview.dues = through(dues, left);
        if preview.dues.len() == LOOK_MAX {
            preview.end = format!("of the next {looked} moments no other fires");
        }
        preview.moments = preview.dues.iter().map(|due| due.moment).collect();
    }
    Ok(preview)
}

/// Those up to the one that is the `left`-th to fire.
fn through(dues: Vec<Due>, left: usize) -> Vec<Due> {
    let mut fires = 0;
    dues.into_iter()
        .take_while(|due| {
            let before = fires;
            fires += usize::from(due.due_at.is_some());
            before < left
        })
        .collect()
}

/// At most `most` moments that its rule names.
fn by_rule(stored: &StoredRule, now: DateTime<Utc>, most: usize) -> Result<Preview> {
    let decided = stored.fired_through.unwrap_or(DateTime::UNIX_EPOCH);
    // A moment at starts_at itself fires.
    let starts = stored.starts_at.map_or(DateTime::UNIX_EPOCH, |at| at - TimeDelta::microseconds(1));
    let after = now.max(decided).max(starts);
    let until = stored.ends_at.map_or(DateTime::<Utc>::MAX_UTC, |at| at - TimeDelta::microseconds(1));
    let mut preview = Preview {
        moments: Vec::new(),
        dues: Vec::new(),
        trigger: None,
        follows_runs: stored.anchor == crate::cli::schedule::rule::PREVIOUS_END,
        zone: zone(&stored.timezone)?,
        now,
        after,
        until,
        count: most,
        on_timed: None,
        end: "the schedule fires no more".to_owned(),
    };
    if preview.follows_runs {
        preview.moments = after_runs(stored, until, most);
        if let (None, Some(task)) =
            (stored.moment_at, stored.last_task_id.filter(|_| stored.anchored_at.is_none()))
        {
            preview.end = format!("the next moment counts from the end of task {task}, which is open");
        }
    } else if let Some(moments) = &stored.step_moments {
        let ahead = moments.iter().filter(|at| **at > after && **at <= until);
        preview.moments = ahead.take(most).copied().collect();
    } else {
        let trigger = trigger(stored)?;
        preview.moments = trigger.moments(stored.anchored_at.unwrap_or(now), after, until, most);
        preview.trigger = Some(trigger);
    }
    Ok(preview)
}

/// The next moment, and the earliest ones after it.
fn after_runs(stored: &StoredRule, until: DateTime<Utc>, most: usize) -> Vec<DateTime<Utc>> {
    let delays: Box<dyn Iterator<Item = f64>> = match (&stored.delays, stored.every_seconds) {
        (Some(delays), _) => Box::new(delays.clone().into_iter().skip(1)),
        (None, every) => Box::new(std::iter::repeat(every.unwrap_or_default())),
    };
    let later = delays.scan(stored.moment_at, |at, seconds| {
        *at = at.map(|at| at + span(seconds));
        *at
    });
    stored.moment_at.into_iter().chain(later).take_while(|at| *at <= until).take(most).collect()
}

fn span(seconds: f64) -> TimeDelta {
    TimeDelta::microseconds((seconds * 1e6) as i64)
}

/// The rule of a schedule whose moments depend on nothing else.
///
/// # Errors
/// BadSchedule when it can't be understood.
pub(crate) fn trigger(stored: &StoredRule) -> Result<Trigger> {
    match (stored.run_at, &stored.cron, stored.every_seconds) {
        (Some(at), _, _) => Ok(Trigger::Timed { at }),
        (_, Some(cron), _) => {
            Trigger::cron_with(cron, &stored.timezone, stored.dst_gap.parse()?, stored.dst_fold.parse()?)
        }
        (_, _, Some(seconds)) => Ok(Trigger::Every { interval: span(seconds) }),
        _ => Err(Error::new(ErrorKind::BadSchedule, format!("schedule {} has no rule", stored.schedule_id))),
    }
}
