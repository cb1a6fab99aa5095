//! One split by its id, however it is stored.

use super::{SPLITS, bench};
use divvy::id::{SplitId, TaskId};
use divvy::store::listing::{SplitFilter, detail, splits};

/// What the view and the look-up say differently of any split.
const DIFFERENT: &str =
    "(select s.* from divvy.split s except all select b.* from divvy.split s, divvy.split_by_id(s.id) b) x";
const ATTEMPTS_DIFFERENT: &str = "(select a.* from divvy.split_attempt a except all select b.* from divvy.split s, divvy.attempts_by_id(s.id) b) x";

#[tokio::test]
async fn a_split_by_its_id_is_what_the_view_shows_in_every_state_and_way_of_storing() {
    let (_db, mut hand) = bench().await;
    hand.insert("(task_type) values ('x')").await;
    hand.insert("(task_type, run_at) values ('x', now() + interval '1 hour')").await;
    hand.divided("x", 5).await;
    let given = "(task_type, splits, max_attempts, group_key) select 'x', jsonb_agg(i), 7, 'g' from generate_series(1, 2000) i";
    let large = hand.insert(given).await;
    let cancelled = hand.divided("x", SPLITS).await;
    hand.run(&format!("select divvy.cancel({cancelled}, 'a test')")).await;
    let paused = hand.divided("x", SPLITS).await;
    hand.run(&format!("select divvy.pause_task({paused}, now() + interval '1 day')")).await;
    let mut seen = Vec::new();
    while seen.len() < 30 {
        seen.extend(hand.claim("x", 40).await.into_iter().filter(|split| split.task_id == large));
    }
    assert!(hand.complete_many(&seen[..10]).await.iter().all(|verdict| verdict == "ok"));
    hand.run(&format!("select divvy.complete({}, {}, '{{\"n\": 1}}')", seen[10].split_id, seen[10].token))
        .await;
    assert_eq!(hand.call("fail", &seen[11], "'{\"class\": \"odd\"}', false").await, "ok");
    assert_eq!(hand.call("snooze", &seen[12], "'1 hour', '{\"half\": true}'").await, "ok");
    for call in [
        "select 1",
        "select divvy.pause('x')",
        "select divvy.resume('x')",
        r#"select divvy.put_task_type('x', '{"max_running": 1}')"#,
    ] {
        hand.run(call).await;
        assert_eq!(hand.count("divvy.split where id is not null").await, 2000 + 2 * i64::from(SPLITS) + 6);
        assert_eq!(hand.count(DIFFERENT).await, 0, "after {call}");
        assert_eq!(hand.count(ATTEMPTS_DIFFERENT).await, 0, "after {call}");
    }
    assert_eq!(hand.count("divvy.split_by_id(4000000000000000000)").await, 0);
    assert_eq!(hand.count("divvy.attempts_by_id(-1)").await, 0);
}

#[tokio::test]
async fn a_split_of_a_million_is_found_without_a_look_at_the_others() {
    let (db, mut hand) = bench().await;
    let task = hand.divided("x", 1_000_000).await;
    let ended = hand.claim("x", 300).await;
    assert!(hand.complete_many(&ended[..200]).await.iter().all(|verdict| verdict == "ok"));
    let ids: Vec<i64> = hand
        .all("select id_base + n from divvy.stretch, unnest('{1,201,300,999999}'::int[]) n where stripe = 4")
        .await;
    hand.run("begin; set local track_functions = 'all'").await;
    for (id, status) in ids.iter().zip(["succeeded", "running", "running", "ready"]) {
        let found: Vec<String> = hand.all(&format!("select status from divvy.split_by_id({id})")).await;
        assert_eq!(found, [if *id == ids[3] { "ready" } else { status }]);
        let attempts = hand.count(&format!("divvy.attempts_by_id({id})")).await;
        assert_eq!(attempts, i64::from(status != "ready"));
    }
    let expanded = "pg_stat_xact_user_functions where schemaname = 'divvy' and funcname = 'numbers'";
    assert_eq!(hand.count(expanded).await, 0, "stretches that were expanded");
    hand.run("commit").await;
    // The command line asks the same way, and a page goes on after a split that has no row.
    let shown = detail::split(db.pool(), SplitId(ids[0])).await.unwrap();
    assert_eq!((shown.split_no, shown.task_id), (1, TaskId(task)));
    assert_eq!(detail::attempts(db.pool(), SplitId(ids[0])).await.unwrap().len(), 1);
    let filter = SplitFilter {
        task: Some(TaskId(task)),
        after: Some(SplitId(ids[2])),
        limit: Some(3),
        ..SplitFilter::default()
    };
    let page: Vec<i32> =
        splits(db.pool(), &filter).await.unwrap().iter().map(|split| split.split_no).collect();
    assert_eq!(page, [301, 302, 303]);
}
