//! Runs: splits of one lease with adjoining numbers that end at once, and what the worker's round trip answers.

use super::{SPLITS, bench, statuses};
use crate::support::hand::{Claimed, Hand};
use crate::support::race::until_waiting_for_lock;

/// Ends splits in runs: of each pair the first and the last. The verdicts; none: all ok.
async fn end_runs(hand: &mut Hand, runs: &[(&Claimed, &Claimed)]) -> Option<Vec<String>> {
    hand.get(&exchange(runs)).await
}

fn exchange(runs: &[(&Claimed, &Claimed)]) -> String {
    let numbers: Vec<String> = runs
        .iter()
        .map(|(first, last)| format!("{},{},{}", first.token, first.split_id, last.split_id))
        .collect();
    format!(
        "select verdicts from divvy.exchange(null, '{{}}', '{{}}', null, '{{}}', 0, runs => '{{{}}}')",
        numbers.join(",")
    )
}

/// What a lease that is not over names.
async fn leased(hand: &mut Hand) -> Vec<i64> {
    hand.all("select (i - l.id_base)::bigint from divvy.lease l, unnest(l.split_ids) i order by l.token, i")
        .await
}

#[tokio::test]
async fn a_lease_ends_in_runs_and_the_last_opens_the_reduce() {
    let (_db, mut hand) = bench().await;
    let task = hand.divided("x", SPLITS).await;
    let splits = hand.claim("x", SPLITS as usize).await;
    let at = |no: usize| &splits[no - 1];
    assert_eq!(end_runs(&mut hand, &[(at(5), at(9)), (at(11), at(11)), (at(30), at(39))]).await, None);
    assert_eq!(statuses(&mut hand, task).await, ["16 succeeded", "24 running"]);
    let rest: Vec<i64> = (1..5).chain([10]).chain(12..30).chain([40]).collect();
    assert_eq!(leased(&mut hand).await, rest);
    assert_eq!(hand.complete(at(10)).await, "ok");
    let rest = [(at(1), at(4)), (at(12), at(29)), (at(40), at(40))];
    assert_eq!(end_runs(&mut hand, &rest).await, None);
    assert_eq!(leased(&mut hand).await, [0i64; 0]);
    assert_eq!(hand.count("divvy.share").await, 0);
    assert_eq!(hand.claim_one("x").await.phase, "reduce");
}

#[tokio::test]
async fn leases_side_by_side_end_in_one_call() {
    let (_db, mut hand) = bench().await;
    hand.divided("x", 2_000).await;
    let (one, two) = (hand.claim("x", 100).await, hand.claim("x", 100).await);
    assert_ne!(one[0].token, two[0].token);
    let (first, second) = ((&one[0], &one[99]), (&two[10], &two[99]));
    assert_eq!(end_runs(&mut hand, &[first, second]).await, None);
    assert_eq!(hand.count("divvy.split where status = 'succeeded'").await, 190);
    assert_eq!(leased(&mut hand).await.len(), 10);
}

#[tokio::test]
async fn a_run_in_which_something_befell_a_split_says_so_of_that_split_only() {
    let (_db, mut hand) = bench().await;
    let task = hand.divided("x", SPLITS).await;
    let splits = hand.claim("x", SPLITS as usize).await;
    assert_eq!(hand.call("fail", &splits[5], "'{\"class\": \"odd\"}', false").await, "ok");
    assert_eq!(hand.call("checkpoint", &splits[7], "'1'").await, "ok");
    let verdicts =
        end_runs(&mut hand, &[(&splits[0], &splits[9]), (&splits[20], &splits[29])]).await.unwrap();
    let wanted: Vec<&str> = (0..20).map(|at| if at == 5 { "lost" } else { "ok" }).collect();
    assert_eq!(verdicts, wanted);
    assert_eq!(statuses(&mut hand, task).await, ["1 failed", "19 succeeded", "20 running"]);
    // Ended once: again, or with another's token, nothing changes.
    let again = end_runs(&mut hand, &[(&splits[20], &splits[29])]).await.unwrap();
    assert!(again.iter().all(|verdict| verdict != "ok"), "{again:?}");
    let mut stolen = (splits[30].clone(), splits[35].clone());
    stolen.0.token -= 1;
    let verdicts = end_runs(&mut hand, &[(&stolen.0, &stolen.1)]).await.unwrap();
    assert_eq!(verdicts, ["lost"; 6]);
    let over = end_runs(&mut hand, &[(&splits[28], &splits[33])]).await.unwrap();
    assert_eq!(over[2..], ["ok"; 4], "{over:?}");
    assert!(over[..2].iter().all(|verdict| verdict != "ok"), "{over:?}");
    assert_eq!(statuses(&mut hand, task).await, ["1 failed", "16 running", "23 succeeded"]);
}

#[tokio::test]
async fn a_run_over_a_split_that_has_become_a_row_ends_each_once() {
    let (_db, mut hand) = bench().await;
    let task = hand.divided("x", SPLITS).await;
    let splits = hand.claim("x", SPLITS as usize).await;
    assert_eq!(hand.call("checkpoint", &splits[7], "'1'").await, "ok");
    assert_eq!(end_runs(&mut hand, &[(&splits[0], &splits[9])]).await, None);
    assert_eq!(statuses(&mut hand, task).await, ["10 succeeded", "30 running"]);
    assert_eq!(end_runs(&mut hand, &[(&splits[10], &splits[39])]).await, None);
    assert_eq!(hand.count("divvy.split where status = 'succeeded'").await, i64::from(SPLITS));
    assert_eq!(hand.claim_one("x").await.phase, "reduce");
}

#[tokio::test]
async fn plain_tasks_end_in_runs_too() {
    let (_db, mut hand) = bench().await;
    hand.declare("plain", "{}").await;
    for _ in 0..12 {
        hand.insert("(task_type) values ('plain')").await;
    }
    let mut splits = hand.claim("plain", 12).await;
    splits.sort_by_key(|split| split.split_id);
    assert_eq!(splits[11].split_id - splits[0].split_id, 11);
    let verdicts = end_runs(&mut hand, &[(&splits[0], &splits[11])]).await;
    assert_eq!(verdicts.unwrap_or_default().iter().filter(|verdict| *verdict != "ok").count(), 0);
    assert_eq!(hand.count("divvy.task where status = 'succeeded'").await, 12);
    assert_eq!(hand.count("divvy.lease").await, 0);
}

#[tokio::test]
async fn runs_that_overlap_and_end_at_once_end_each_split_once() {
    let (db, mut hand) = bench().await;
    let mut other = Hand::new(&db).await;
    hand.divided("x", SPLITS).await;
    let splits = hand.claim("x", SPLITS as usize).await;
    hand.run("begin").await;
    assert_eq!(end_runs(&mut hand, &[(&splits[0], &splits[19])]).await, None);
    let (pid, theirs) = (other.pid, splits.clone());
    let completing = tokio::spawn(async move {
        end_runs(&mut other, &[(&theirs[10], &theirs[24]), (&theirs[26], &theirs[29])]).await
    });
    until_waiting_for_lock(db.pool(), pid).await;
    hand.run("commit").await;
    let verdicts = completing.await.unwrap().unwrap();
    let ok = |from: usize, to: usize| verdicts[from..to].iter().filter(|verdict| *verdict == "ok").count();
    assert_eq!((ok(0, 10), ok(10, 15), ok(15, 19)), (0, 5, 4), "{verdicts:?}");
    assert_eq!(hand.count("divvy.split where status = 'succeeded'").await, 29);
    assert_eq!(end_runs(&mut hand, &[(&splits[25], &splits[25]), (&splits[30], &splits[39])]).await, None);
    assert_eq!(hand.claim_one("x").await.phase, "reduce");
}

#[tokio::test]
async fn runs_that_are_none_are_refused() {
    let (_db, mut hand) = bench().await;
    for runs in ["{1,2}", "{1,null,3}", "{1,3,2}", "{2,1,1,1,2,2}", "{1,1,5,1,5,6}"] {
        let sql = format!("select divvy.exchange(null, '{{}}', '{{}}', null, '{{}}', 0, runs => '{runs}')");
        assert_eq!(hand.code(&sql).await, "DV010", "{runs}");
    }
    for runs in ["{1,1,10001}", "{1,-9223372036854775808,9223372036854775807}"] {
        let sql = format!("select divvy.exchange(null, '{{}}', '{{}}', null, '{{}}', 0, runs => '{runs}')");
        assert_eq!(hand.code(&sql).await, "DV003", "{runs}");
    }
}

#[tokio::test]
async fn the_answer_is_brief_for_who_asks_in_runs_and_whole_for_others() {
    let (_db, mut hand) = bench().await;
    hand.insert(
        "(task_type, split_range, split_size) values ('x', '[-50,9223372036854775807)', 230584300921369400)",
    )
    .await;
    let ask = |runs: &str| {
        format!(
            "select concat_ws(' ', cardinality((part).split_ids), cardinality((part).split_nos), (part).rule is not null,
                coalesce(cardinality((part).split_payloads), 0)) from divvy.exchange('{}', '{{}}', '{{}}', null, '{{x}}', 15{runs}) offset 1",
            hand.worker
        )
    };
    let (whole, brief) = (ask(""), ask(", runs => '{}'"));
    assert_eq!(hand.get::<String>(&whole).await, "15 15 f 15");
    assert_eq!(hand.get::<String>(&brief).await, "2 1 t 0");
}
