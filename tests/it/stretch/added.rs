//! What a large task adds to its splits.

use super::{SPLITS, bench, numbers};

#[tokio::test]
async fn added_splits_go_on_where_the_numbers_ended() {
    let (_db, mut hand) = bench().await;
    let task = hand.divided("x", SPLITS).await;
    let splits = hand.claim("x", 3).await;
    let more: Vec<i32> = (0..50).collect();
    assert_eq!(hand.call("add_splits", &splits[1], &format!("'{more:?}'")).await, "ok");
    assert!(hand.complete_many(&splits).await.iter().all(|verdict| verdict == "ok"));
    let mut rest = hand.claim("x", 200).await;
    rest.sort_by_key(|split| split.split_no);
    assert_eq!(numbers(&rest), (4..=SPLITS + 50).collect::<Vec<_>>());
    assert_eq!(
        hand.get::<String>(&format!(
            "select payload::text from divvy.split where task_id = {task} and split_no = 41"
        ))
        .await,
        "0"
    );
    assert!(hand.complete_many(&rest).await.iter().all(|verdict| verdict == "ok"));
    assert_eq!(hand.claim_one("x").await.phase, "reduce");
}

#[tokio::test]
async fn a_few_splits_that_a_large_task_adds_behind_rows_of_its_own_are_rows() {
    let (_db, mut hand) = bench().await;
    hand.divided_into_rows("x", SPLITS).await;
    let split = hand.claim_one("x").await;
    assert_eq!(hand.call("add_splits", &split, "'[1, 2, 3]'").await, "ok");
    assert_eq!(hand.complete(&split).await, "ok");
    assert_eq!(hand.count("divvy.share").await, i64::from(SPLITS) + 3);
}
