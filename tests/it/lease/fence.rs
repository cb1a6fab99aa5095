//! A call with a token that was taken away changes nothing, whichever call it is.

use super::{Bench, bench, bench_in};
use crate::support::both::over_both;
use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};
use crate::support::race::until_waiting_for_lock;
use std::sync::Arc;

over_both! {
    every_call_with_an_old_token_is_refused_and_changes_nothing,
}

const CALLS: &[(&str, &str)] = &[
    ("complete", ""),
    ("complete", "'1'"),
    ("fail", r#"'{"class": "x"}'"#),
    ("fail", r#"'{"class": "x"}', false"#),
    ("snooze", "'1 s'"),
    ("release", ""),
    ("checkpoint", "'1'"),
    ("log", "'info', 'still here'"),
    ("add_splits", "'[1]'"),
];

/// The rows of every table, to see that nothing changed.
async fn everything(hand: &mut Hand) -> Vec<String> {
    let mut rows = Vec::new();
    for table in
        ["task", "share", "stretch", "ended", "dropped", "lease", "attempt", "split_log", "staged", "fan_in"]
    {
        rows.extend(
            hand.all::<String>(&format!("select '{table} ' || t::text from divvy.{table} t order by 1"))
                .await,
        );
    }
    rows
}

/// A split that expired and was claimed anew: its old and its new holder.
async fn taken_over(b: &mut Bench, task_type: &str) -> (Claimed, Claimed) {
    let old = b.hand.claim_one(task_type).await;
    b.pass(35).await;
    let new = b.hand.claim_one(task_type).await;
    assert_eq!(old.split_id, new.split_id);
    (old, new)
}

async fn every_call_with_an_old_token_is_refused_and_changes_nothing(db: Arc<TestDb>) {
    let mut b = bench_in(db, "{}").await;
    for insert in ["(task_type) values ('x')", "(task_type, split_count) values ('x', 1)"] {
        b.hand.insert(insert).await;
        let (old, new) = taken_over(&mut b, "x").await;
        let before = everything(&mut b.hand).await;
        for (function, more) in CALLS {
            assert_eq!(b.hand.call(function, &old, more).await, "DV001", "{function} {more} of {insert}");
        }
        assert_eq!(b.hand.complete_many(std::slice::from_ref(&old)).await, ["lost"]);
        assert_eq!(everything(&mut b.hand).await, before);
        assert_eq!(b.hand.complete(&new).await, "ok");
    }
}

#[tokio::test]
async fn an_old_token_of_a_reduce_reads_no_inputs() {
    let mut b = bench("{}").await;
    b.hand.declare("sum", r#"{"reduce": true}"#).await;
    b.hand.divided("sum", 0).await;
    let (old, new) = taken_over(&mut b, "sum").await;
    assert_eq!(b.hand.call("reduce_inputs", &old, "").await, "DV001");
    assert_eq!(b.hand.call("reduce_inputs", &new, "").await, "ok");
    for (function, more) in CALLS {
        assert_eq!(b.hand.call(function, &old, more).await, "DV001", "{function} {more}");
    }
    assert_eq!(b.hand.complete(&new).await, "ok");
    assert_eq!(b.hand.call("reduce_inputs", &new, "").await, "DV001", "it is over");
}

#[tokio::test]
async fn an_old_token_is_refused_also_while_nobody_has_claimed_anew() {
    let mut b = bench("{}").await;
    b.hand.insert("(task_type) values ('x')").await;
    let old = b.hand.claim_one("x").await;
    b.pass(35).await;
    for (function, more) in CALLS {
        assert_eq!(b.hand.call(function, &old, more).await, "DV001", "{function} {more}");
    }
}

#[tokio::test]
async fn a_token_of_the_same_claim_does_not_hold_a_split_of_another() {
    let mut b = bench("{}").await;
    b.hand.run("insert into divvy.task (task_type) select 'x' from generate_series(1, 2)").await;
    let (one, other) = (b.hand.claim_one("x").await, b.hand.claim_one("x").await);
    let crossed = Claimed { token: other.token, ..one.clone() };
    assert_eq!(b.hand.complete(&crossed).await, "DV001");
    assert_eq!(b.hand.complete(&one).await, "ok");
}

#[tokio::test]
async fn a_complete_whose_token_is_old_takes_the_users_writes_with_it() {
    let mut b = bench("{}").await;
    b.hand.run("create table public.effect (who text)").await;
    b.hand.insert("(task_type) values ('x')").await;
    let (old, new) = taken_over(&mut b, "x").await;
    b.hand.run("begin; insert into public.effect values ('zombie')").await;
    assert_eq!(b.hand.complete(&old).await, "DV001");
    b.hand.run("commit").await;
    assert_eq!(b.hand.count("public.effect").await, 0, "the transaction was aborted: commit is a rollback");
    b.hand.run("begin; insert into public.effect values ('holder')").await;
    assert_eq!(b.hand.complete(&new).await, "ok");
    b.hand.run("commit").await;
    assert_eq!(b.hand.all::<String>("select who from public.effect").await, ["holder"]);
}

#[tokio::test]
async fn a_complete_that_waits_for_the_reclaim_of_its_split_is_refused() {
    let mut b = bench("{}").await;
    b.hand.insert("(task_type) values ('x')").await;
    let split = b.hand.claim_one("x").await;
    b.pass(25).await;
    b.clock.advance(std::time::Duration::from_secs(5)).await;
    b.duty.run("begin").await;
    assert_eq!(b.duty.get::<i32>("select divvy.reclaim()").await, 1);
    let Bench { db, mut hand, mut duty, .. } = b;
    let pid = hand.pid;
    let late = tokio::spawn(async move { hand.complete(&split).await });
    until_waiting_for_lock(db.pool(), pid).await;
    duty.run("commit").await;
    assert_eq!(late.await.unwrap(), "DV001");
}

#[tokio::test]
async fn a_completing_split_is_left_alone_by_reclaim_and_its_lease_goes_later() {
    let mut b = bench("{}").await;
    b.hand.divided("x", 2).await;
    let splits = b.hand.claim("x", 2).await;
    b.hand.run("begin").await;
    assert_eq!(b.hand.complete(&splits[0]).await, "ok");
    b.pass(35).await;
    b.hand.run("commit").await;
    assert_eq!(b.hand.state(splits[0].split_id).await, "succeeded");
    // The lease itself was held, by the one that takes its split out of it.
    b.pass(5).await;
    assert_eq!(b.hand.state(splits[1].split_id).await, "ready");
    assert_eq!(b.hand.count("divvy.lease").await, 0);
    assert_eq!(b.hand.count("divvy.attempt").await, 1);
}
