//! How long duties may rest: until the moment that is known, and not at all while anything may come up.

use crate::support::clock::Clock;
use crate::support::queue::Queue;
use divvy::leader::Duty;
use divvy::store::Store;
use std::time::Duration;

/// A database in which all that there was has been done.
async fn at_rest() -> (Queue, Clock) {
    let mut q = Queue::with_types(&["a"]).await;
    let clock = Clock::stop(&q.db).await;
    all_is_done(&mut q).await;
    (q, clock)
}

async fn all_is_done(q: &mut Queue) {
    // Keys are verified by two passes.
    for _ in 0..2 {
        for duty in Duty::ALL {
            duty.run_once(&Store::new(q.db.pool().clone())).await.unwrap();
        }
    }
}

async fn rest(q: &mut Queue, duty: &str) -> f64 {
    q.one(format!("select rest from divvy.rests() where duty = '{duty}'")).await
}

#[tokio::test]
async fn where_nothing_is_to_come_every_duty_rests() {
    let (mut q, _clock) = at_rest().await;
    let rests: Vec<(String, f64)> = q.rows("select duty, rest from divvy.rests()").await;
    let of = |duty: Duty| rests.iter().find(|(name, _)| *name == duty.to_string()).expect("every duty").1;
    for duty in Duty::ALL {
        let rest = of(duty);
        match duty {
            Duty::Fire | Duty::Promote | Duty::Settle | Duty::LowWater | Duty::Prune => {
                assert_eq!(rest, 30.0, "{duty}")
            }
            Duty::Reclaim => assert_eq!(rest, 5.0),
            Duty::Sample | Duty::Alert => assert!(rest > 0.0 && rest <= 30.0, "{duty}: {rest}"),
        }
    }
}

/// What is to come in four seconds: of which duty, and what brings it about.
const IN_FOUR: &[(&str, &str)] = &[
    (
        "fire",
        "insert into divvy.schedule (name, task_type, run_at) values ('s', 'a', divvy.clock() + interval '4 s')",
    ),
    ("fire", "insert into divvy.schedule (name, task_type, every) values ('s', 'a', '4 s')"),
    (
        "fire",
        "insert into divvy.schedule (name, task_type, every) values ('s', 'a', '1 h');
         select divvy.pause_schedule('s', divvy.clock() + interval '4 s')",
    ),
    ("promote", "insert into divvy.task (task_type, run_at) values ('a', divvy.clock() + interval '4 s')"),
    (
        "promote",
        "insert into divvy.task (task_type) values ('a');
         select divvy.fail(split_id, token, '{}', retry_in => interval '4 s')
         from divvy.claim((select id from divvy.worker), '{a}')",
    ),
    ("promote", "select divvy.pause('a', divvy.clock() + interval '4 s')"),
    (
        "promote",
        "insert into divvy.task (task_type) values ('a');
         select divvy.pause_task(id, divvy.clock() + interval '4 s') from divvy.task",
    ),
    (
        "reclaim",
        "insert into divvy.task (task_type, deadline_at) values ('a', divvy.clock() + interval '4 s')",
    ),
    ("prune", "update divvy.walk set next_round_at = divvy.clock() + interval '4 s'"),
    ("sample", "update divvy.once_a_minute set next_at = divvy.clock() + interval '4 s'"),
    ("alert", "update divvy.once_a_minute set next_at = divvy.clock() + interval '4 s'"),
];

#[tokio::test]
async fn a_duty_rests_until_the_next_moment_that_is_known() {
    for (duty, setup) in IN_FOUR {
        let (mut q, clock) = at_rest().await;
        q.run(*setup).await;
        all_is_done(&mut q).await;
        assert_eq!(rest(&mut q, duty).await, 4.0, "{duty}: {setup}");
        clock.advance(Duration::from_secs(4)).await;
        assert_eq!(rest(&mut q, duty).await, 0.0, "{duty}: {setup}");
    }
}

/// What may bring something up at any moment: in which duty.
const AT_ONCE: &[(&str, &str)] = &[
    ("fire", "insert into divvy.schedule (name, task_type, cron) values ('s', 'a', '0 0 1 1 *')"),
    (
        "fire",
        "insert into divvy.run_ended (schedule_id, task_id, status, at) values (1, 1, 'succeeded', divvy.clock())",
    ),
    ("low_water", "insert into divvy.task (task_type) values ('a')"),
    ("reduce_check", "insert into divvy.fan_in (task_id) values (1)"),
    ("prune", "update divvy.walk set round_id = 0"),
];

#[tokio::test]
async fn no_duty_rests_that_has_something_to_do() {
    for (duty, setup) in AT_ONCE {
        let (mut q, _clock) = at_rest().await;
        q.run(*setup).await;
        assert_eq!(rest(&mut q, duty).await, 0.0, "{duty}: {setup}");
    }
}

#[tokio::test]
async fn no_duty_of_splits_rests_while_one_runs() {
    let (mut q, _clock) = at_rest().await;
    q.enqueue("a").await;
    let split = q.claim("a").await;
    all_is_done(&mut q).await;
    for duty in [Duty::Fire, Duty::Promote, Duty::Settle, Duty::Reclaim, Duty::LowWater, Duty::Prune] {
        assert_eq!(rest(&mut q, &duty.to_string()).await, 0.0, "{duty}");
    }
    q.complete(&split).await;
    all_is_done(&mut q).await;
    assert_eq!(rest(&mut q, "promote").await, 30.0);
}

#[tokio::test]
async fn what_an_open_transaction_may_bring_keeps_the_marks_moving() {
    let (mut q, _clock) = at_rest().await;
    let mut producer = Queue::on(q.db.clone()).await;
    producer.run("begin; insert into divvy.task (task_type) values ('a')").await;
    all_is_done(&mut q).await;
    assert_eq!(rest(&mut q, "low_water").await, 0.0);
    producer.run("rollback").await;
    all_is_done(&mut q).await;
    assert_eq!(rest(&mut q, "low_water").await, 30.0);
}
