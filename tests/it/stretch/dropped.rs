//! What ends before anybody begins it: a cancel, a broken tolerance and a redrive move stretches as a whole.

use super::{bench, numbers, statuses};
use crate::support::hand::Hand;

/// How many rows a call writes. What the session counts of a transaction may hold earlier ones.
async fn rows_written(hand: &mut Hand, call: &str) -> i64 {
    const COUNTED: &str = "select sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint
        from pg_stat_xact_user_tables where schemaname = 'divvy'";
    hand.run("begin").await;
    let before: i64 = hand.get(COUNTED).await;
    hand.run(call).await;
    let after: i64 = hand.get(COUNTED).await;
    hand.run("commit").await;
    after - before
}

#[tokio::test]
async fn a_cancel_a_redrive_and_a_broken_tolerance_of_a_million_write_a_few_rows() {
    const FEW: i64 = 30;
    let (_db, mut hand) = bench().await;
    let task = hand.divided("x", 1_000_000).await;
    let begun = hand.claim("x", 3).await;
    let written = rows_written(&mut hand, &format!("select divvy.cancel({task})")).await;
    assert!(written < FEW, "a cancel wrote {written} rows");
    assert_eq!(hand.call("release", &begun[0], "").await, "ok");
    assert!(hand.complete_many(&begun[1..]).await.iter().all(|verdict| verdict == "ok"));
    assert_eq!(hand.status(task).await, "cancelled");
    let shown: Vec<i64> =
        hand.get("select array[ready, running, succeeded, cancelled] from divvy.task_progress").await;
    assert_eq!(shown, [0, 0, 2, 999_998]);
    let written = rows_written(&mut hand, &format!("select divvy.redrive({task})")).await;
    assert!(written < FEW, "a redrive wrote {written} rows");
    let shown: Vec<i64> =
        hand.get("select array[ready, running, succeeded, cancelled] from divvy.task_progress").await;
    assert_eq!(shown, [999_998, 0, 2, 0]);
    assert_eq!(hand.count("divvy.share").await, 1, "the one that was begun and given back");
    // And a failure that nobody tolerates.
    hand.run(&format!(r#"select divvy.update_task({task}, '{{"max_failed": 0}}')"#)).await;
    let splits = hand.claim("x", 2).await;
    let call = format!(
        "select divvy.complete({}, {}); select divvy.fail({}, {}, '{{}}', false)",
        splits[0].split_id, splits[0].token, splits[1].split_id, splits[1].token
    );
    let written = rows_written(&mut hand, &call).await;
    assert!(written < FEW, "a broken tolerance wrote {written} rows");
    assert_eq!(hand.status(task).await, "failed");
    let shown: Vec<i64> = hand
        .get("select array[ready, running, succeeded, failed, cancelled, skipped] from divvy.task_progress")
        .await;
    assert_eq!(shown, [0, 0, 3, 1, 0, 999_996]);
}

#[tokio::test]
async fn a_redrive_by_numbers_opens_these_of_a_cancelled_stretch_and_the_reduce_reads_the_others_as_cancelled()
 {
    let (_db, mut hand) = bench().await;
    let task =
        hand.insert("(task_type, splits) select 'x', jsonb_agg(i) from generate_series(1, 2000) i").await;
    hand.run(&format!("select divvy.cancel({task}, 'no need')")).await;
    assert_eq!(statuses(&mut hand, task).await, ["2000 cancelled"]);
    let reasons = hand
        .count("divvy.split where status = 'cancelled' and reason = 'no need' and finished_at is not null");
    assert_eq!(reasons.await, 2000);
    let first: i64 = hand.get("select id from divvy.split where split_no = 1").await;
    assert_eq!(hand.code(&format!("select divvy.skip_split({first})")).await, "DV004");
    assert_eq!(hand.code(&format!("select divvy.complete({first}, 1)")).await, "DV002");
    let redrive = |where_: &str| {
        format!("select divvy.redrive({task}, '{{\"where\": {where_}, \"max_attempts\": 7}}')")
    };
    assert_eq!(hand.code(&redrive(r#"{"error_class": "odd"}"#)).await, "DV004");
    assert_eq!(hand.code(&redrive(r#"{"split_no": [2001, 0, 1.5, "x"]}"#)).await, "DV004");
    let opened: i64 = hand.get(&redrive(r#"{"split_no": [1, 499, 500, 501, 1999, 3000]}"#)).await;
    assert_eq!(opened, 5);
    assert_eq!(statuses(&mut hand, task).await, ["1995 cancelled", "5 ready"]);
    let splits = hand.claim("x", 100).await;
    assert_eq!(numbers(&splits), [1, 499, 500, 501, 1999]);
    let budget: i32 = hand.get("select min(max_attempts) from divvy.split where status = 'running'").await;
    assert_eq!(budget, 7);
    let payloads: String =
        hand.get("select string_agg(payload::text, ' ' order by split_no) from divvy.split where status = 'running'").await;
    assert_eq!(payloads, "1 499 500 501 1999");
    assert!(hand.complete_many(&splits).await.iter().all(|verdict| verdict == "ok"));
    let reduce = hand.claim_one("x").await;
    assert_eq!(reduce.phase, "reduce");
    let read: Vec<String> = hand
        .all(&format!(
            "select count(*) || ' ' || status || ' ' || min(split_no) from divvy.reduce_inputs({0}, {1}, 0, 1000) group by status
              union all select count(*) || ' ' || status || ' ' || max(split_no) from divvy.reduce_inputs({0}, {1}, 1000, 1000) group by status
              order by 1",
            reduce.split_id, reduce.token
        ))
        .await;
    assert_eq!(read, ["1 succeeded 1999", "4 succeeded 1", "996 cancelled 2", "999 cancelled 2000"]);
    assert_eq!(hand.complete(&reduce).await, "ok");
    assert_eq!(hand.status(task).await, "succeeded");
}

#[tokio::test]
async fn a_redrive_of_what_was_cancelled_runs_every_split_once() {
    let (_db, mut hand) = bench().await;
    let task = hand.divided("x", 1_500).await;
    let mut done = hand.claim("x", 100).await;
    assert!(hand.complete_many(&done).await.iter().all(|verdict| verdict == "ok"));
    for _ in 0..2 {
        hand.run(&format!("select divvy.cancel({task})")).await;
        let left = i32::try_from(1_500 - done.len()).unwrap();
        assert_eq!(hand.get::<i64>(&format!("select divvy.redrive({task})")).await, i64::from(left));
        let more = hand.claim("x", 100).await;
        assert!(more.iter().all(|split| split.attempt == 1));
        assert!(hand.complete_many(&more).await.iter().all(|verdict| verdict == "ok"));
        done.extend(more);
    }
    loop {
        let more = hand.claim("x", 400).await;
        if more.iter().any(|split| split.phase == "reduce") {
            break;
        }
        assert!(hand.complete_many(&more).await.iter().all(|verdict| verdict == "ok"));
        done.extend(more);
    }
    let mut all = numbers(&done);
    all.sort_unstable();
    assert_eq!(all, (1..=1_500).collect::<Vec<_>>());
    assert_eq!((hand.count("divvy.share").await, hand.count("divvy.dropped").await), (0, 0));
}
