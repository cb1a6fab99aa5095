//! Where nobody leads, workers tick: in pieces that no call of theirs is long with.

use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use std::time::Duration;

const DUTIES: [&str; 6] = ["fire", "promote", "reclaim", "reduce_check", "low_water", "prune"];
const WAIT: &str = "select extract(epoch from divvy.next_wait('{x}'))::float8";

/// Asks how long to wait until that isn't "go on with the tick".
async fn until_ticked(hand: &mut Hand) -> f64 {
    for _ in DUTIES {
        let wait = hand.get::<f64>(WAIT).await;
        if hand.get::<i32>("select small_tick_next from divvy.pulse").await == 1 {
            return wait;
        }
        assert!(wait < 0.011, "the tick is not done, and a wait of {wait} s");
    }
    panic!("a tick of more pieces than duties");
}

#[tokio::test]
async fn a_tick_without_time_does_one_duty_a_call_and_leaves_none_out() {
    let db = TestDb::new().await;
    let mut hand = Hand::new(&db).await;
    let mut next = 1;
    for (at, duty) in (1..).zip(DUTIES) {
        assert_eq!(next, at);
        let piece = format!("from divvy.urgent_duties(50, {next}, 0)");
        assert_eq!(hand.all::<String>(&format!("select duty {piece}")).await, [duty]);
        next = hand.get::<i32>(&format!("select next {piece}")).await;
    }
    assert_eq!(next, 1, "and from the beginning again");
    assert_eq!(
        hand.all::<String>("select duty from divvy.urgent_duties(50)").await,
        DUTIES,
        "with time, all"
    );
}

/// The last duty but one takes all the time that a call has.
const SLOW: &str = "
    alter function divvy.advance_low_water() rename to advance_quickly;
    create function divvy.advance_low_water() returns int
    language plpgsql as 'begin perform pg_sleep(0.03); return divvy.advance_quickly(); end'";

#[tokio::test]
async fn a_tick_that_is_cut_tells_the_worker_to_come_back_at_once() {
    let db = TestDb::new().await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", "{}").await;
    hand.run(SLOW).await;
    let wait = hand.get::<f64>(WAIT).await;
    assert!(hand.get::<i32>("select small_tick_next from divvy.pulse").await > 1, "it was cut");
    assert!((0.009..0.011).contains(&wait), "{wait}");
    assert!(hand.get::<bool>("select small_tick_at is null from divvy.pulse").await, "it has not ticked yet");
}

#[tokio::test]
async fn a_tick_that_was_cut_goes_on_at_once_and_from_where_it_was() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", "{}").await;
    // What is of another type than those it waits for has only ticks.
    hand.declare("y", "{}").await;
    until_ticked(&mut hand).await;
    let due = hand.insert("(task_type, run_at) values ('y', divvy.clock() + interval '2 s')").await;
    clock.advance(Duration::from_secs(2)).await;
    hand.run("update divvy.pulse set small_tick_next = 3").await;
    until_ticked(&mut hand).await;
    assert_eq!(hand.status(due).await, "scheduled", "what makes it ready was done before the cut");
    until_ticked(&mut hand).await;
    assert_eq!(hand.status(due).await, "scheduled", "a tick a second");
    clock.advance(Duration::from_secs(1)).await;
    until_ticked(&mut hand).await;
    assert_eq!(hand.status(due).await, "running");
}

#[tokio::test]
async fn a_worker_sleeps_until_a_scheduled_task_is_due_and_starts_it_then() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", "{}").await;
    until_ticked(&mut hand).await;
    let due = hand.insert("(task_type, run_at) values ('x', divvy.clock() + interval '0.4 s')").await;
    assert!((hand.get::<f64>(WAIT).await - 0.4).abs() < 1e-6);
    clock.advance(Duration::from_millis(400)).await;
    assert!(until_ticked(&mut hand).await.abs() < 1e-6, "before there is another tick");
    assert_eq!(hand.status(due).await, "running");
}

#[tokio::test]
async fn what_is_due_and_locked_keeps_no_worker_looking() {
    let db = TestDb::new().await;
    let clock = Clock::stop(&db).await;
    let (mut hand, mut other) = (Hand::new(&db).await, Hand::new(&db).await);
    hand.declare("x", "{}").await;
    until_ticked(&mut hand).await;
    let due = hand.insert("(task_type, run_at) values ('x', divvy.clock() + interval '0.4 s')").await;
    other.run(&format!("begin; select from divvy.task where id = {due} for update")).await;
    clock.advance(Duration::from_millis(400)).await;
    for passed in [0, 100, 700] {
        clock.advance(Duration::from_millis(passed)).await;
        assert!((until_ticked(&mut hand).await - 0.1).abs() < 1e-6, "tried in vain, and soon again");
    }
    clock.advance(Duration::from_secs(2)).await;
    assert!((until_ticked(&mut hand).await - 1.8).abs() < 1e-6, "in vain for long: with a tick");
    other.run("commit").await;
    clock.advance(Duration::from_secs(1)).await;
    assert!(until_ticked(&mut hand).await.abs() < 1e-6);
    assert_eq!(hand.status(due).await, "running");
}

#[tokio::test]
async fn a_worker_does_not_wake_for_what_others_wait_for() {
    let db = TestDb::new().await;
    let _clock = Clock::stop(&db).await;
    let mut hand = Hand::new(&db).await;
    hand.declare("x", "{}").await;
    hand.declare("y", "{}").await;
    until_ticked(&mut hand).await;
    hand.run(
        "insert into divvy.task (task_type, run_at) values ('y', divvy.clock() + interval '0.4 s');
         insert into divvy.schedule (name, task_type, every) values ('y', 'y', '1 s')",
    )
    .await;
    assert!((hand.get::<f64>(WAIT).await - 1.8).abs() < 1e-6);
    hand.run("insert into divvy.schedule (name, task_type, every) values ('x', 'x', '1 s')").await;
    assert!((hand.get::<f64>(WAIT).await - 1.0).abs() < 1e-6);
}
