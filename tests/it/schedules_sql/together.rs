//! What is due at once is made in few statements: with the same outcome as one by one, whatever kind it is.

use crate::support::clock::Clock;
use crate::support::queue::Queue;
use divvy::leader::Duty;
use divvy::store::Store;

/// Columns and values of schedules beside name and type; there are two of each.
const KINDS: [(&str, &str); 19] = [
    ("every", "'6 h'"),
    ("every, overlap", "'6 h', 'allow'"),
    ("every, overlap", "'6 h', 'buffer_one'"),
    ("every, overlap", "'6 h', 'buffer_all'"),
    ("every, overlap", "'6 h', 'recover'"),
    ("every, anchor", "'6 h', 'previous_end'"),
    ("steps, anchor", "'{6 h,6 h,12 h}', 'previous_end'"),
    ("steps, overlap", "'{6 h,7 h,12 h,30 h}', 'allow'"),
    ("run_at", "divvy.clock() + interval '6 h'"),
    ("every, max_runs, overlap", "'6 h', 2, 'allow'"),
    ("every, jitter, overlap", "'6 h', '3 h', 'allow'"),
    ("every, ends_at, overlap", "'6 h', divvy.clock() + interval '20 h', 'allow'"),
    ("every, catch_up, overlap", "'1 h', 'none', 'allow'"),
    ("every, catch_up, overlap", "'2 h', 'all', 'allow'"),
    ("cron, overlap", "'0 */6 * * *', 'allow'"),
    ("cron, overlap", "'0 * * * *', 'allow'"),
    ("cron, calendar, overlap", "'0 18 * * *', 'c', 'allow'"),
    ("cron, calendar, calendar_shift, overlap", "'0 18 * * *', 'c', 'next', 'allow'"),
    ("cron, calendar, calendar_shift, overlap", "'0 18 * * *', 'c', 'previous', 'allow'"),
];

/// The ledger and the schedules after two and a half days, of which Saturday is no working day; `alone` has each fire by itself.
async fn history(alone: bool) -> Vec<String> {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    let start: chrono::DateTime<chrono::Utc> = "2026-11-20T12:00:00Z".parse().unwrap();
    clock.set(start).await;
    q.run("select divvy.put_calendar('c', '{\"weekend\": [6]}')").await;
    if alone {
        q.run("create or replace function divvy.fire_many(p_max int, p_now timestamptz) returns int language sql as 'select 0'").await;
    }
    for (kind, (columns, values)) in KINDS.iter().enumerate() {
        q.run(format!(
            "insert into divvy.schedule (name, task_type, {columns}) select 'k{kind}-' || i, 'a', {values} from generate_series(1, 2) i"
        ))
        .await;
    }
    let store = Store::new(q.db.pool().clone());
    for step in 1..=10 {
        clock.set(start + chrono::TimeDelta::hours(6 * step)).await;
        for _ in 0..4 {
            Duty::Fire.run_once(&store).await.unwrap();
        }
        for split in if step % 2 == 0 { q.claim_up_to("a", 500).await } else { Vec::new() } {
            if step % 4 == 0 { q.complete(&split).await } else { drop(q.stop(&split).await) }
        }
    }
    q.all(
        "select s.name || ' ' || coalesce(to_char(f.fire_at at time zone 'UTC', 'DD HH24:MI'), '') || ' ' || coalesce(f.outcome, '') || ' '
            || coalesce(regexp_replace(f.reason, 'task \\d+', 'task'), '') || ' ' || (f.task_id is not null) || ' ' || s.status || ' ' || s.runs || ' '
            || coalesce(s.step::text, '') || ' ' || coalesce(s.moment_at::text, '') || ' ' || coalesce(s.fired_through::text, '')
         from divvy.schedule s left join divvy.schedule_fire f on f.schedule_id = s.id order by s.id, f.fire_at",
    )
    .await
}

#[tokio::test]
async fn what_is_made_together_is_what_is_made_one_by_one() {
    let (together, alone) = (history(false).await, history(true).await);
    for (one, other) in together.iter().zip(&alone) {
        assert_eq!(one, other);
    }
    assert_eq!(together.len(), alone.len());
    for outcome in [" fired ", " skipped ", " missed ", " waiting ", " merged "] {
        assert!(together.iter().any(|row| row.contains(outcome)), "{outcome}");
    }
}
