//! Given shares: an array, a number, a range of keys; none at all is a task too.

use crate::support::queue::{Queue, quoted};
use serde_json::{Value, json};

async fn payloads(q: &mut Queue, columns: &str, values: &str) -> Vec<Value> {
    let id: i64 = q
        .one(format!("insert into divvy.task (task_type, {columns}) values ('a', {values}) returning id"))
        .await;
    q.all(format!("select payload from divvy.split where task_id = {id} order by split_no")).await
}

#[tokio::test]
async fn an_array_makes_a_split_of_each_element_in_its_order() {
    let mut q = Queue::with_types(&["a"]).await;
    let splits = json!([{"b": 2}, "text", 3, [4], null, {"a": 1}]);
    assert_eq!(payloads(&mut q, "splits", &quoted(&splits)).await, splits.as_array().unwrap().clone());
    let numbers: Vec<i32> = q.all("select split_no from divvy.split order by split_no").await;
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_count_makes_splits_that_know_their_index() {
    let mut q = Queue::with_types(&["a"]).await;
    assert_eq!(
        payloads(&mut q, "split_count", "3").await,
        [json!({"index": 0, "count": 3}), json!({"index": 1, "count": 3}), json!({"index": 2, "count": 3})]
    );
}

#[tokio::test]
async fn a_range_is_cut_half_open_and_its_last_piece_is_the_rest() {
    let mut q = Queue::with_types(&["a"]).await;
    let pieces =
        |list: &[(i64, i64)]| list.iter().map(|(lo, hi)| json!({"lo": lo, "hi": hi})).collect::<Vec<_>>();
    for (range, size, expected) in [
        ("[0,10)", 4, pieces(&[(0, 4), (4, 8), (8, 10)])),
        ("[1,10]", 5, pieces(&[(1, 6), (6, 11)])),
        ("(0,3)", 1, pieces(&[(1, 2), (2, 3)])),
        ("[-7,-2)", 9, pieces(&[(-7, -2)])),
        // The whole width of bigint overflows nowhere.
        (
            "[-9223372036854775808,9223372036854775807)",
            i64::MAX,
            pieces(&[(i64::MIN, -1), (-1, i64::MAX - 1), (i64::MAX - 1, i64::MAX)]),
        ),
    ] {
        assert_eq!(
            payloads(&mut q, "split_range, split_size", &format!("'{range}', {size}")).await,
            expected,
            "{range}"
        );
    }
}

#[tokio::test]
async fn given_shares_skip_the_plan() {
    let mut q = Queue::new().await;
    q.put("a", json!({"plan": true, "reduce": true})).await;
    let id = q.enqueue_splits("a", 2).await;
    assert_eq!(q.status(id).await, "running");
    assert_eq!(q.work("a").await.phase, "execute");
    q.work("a").await;
    assert_eq!(q.claim("a").await.phase, "reduce");
}

#[tokio::test]
async fn a_task_without_any_split_goes_straight_to_its_reduce() {
    let mut q = Queue::new().await;
    q.put("a", json!({"plan": true, "reduce": true})).await;
    q.put("plain", json!({})).await;
    for (columns, values) in [
        ("splits", "'[]'"),
        ("split_count", "0"),
        ("split_range, split_size", "'empty', 10"),
        ("split_range, split_size", "'[5,5)', 10"),
    ] {
        let insert = |t: &str| {
            format!("insert into divvy.task (task_type, {columns}) values ('{t}', {values}) returning id")
        };
        let id: i64 = q.one(insert("a")).await;
        assert_eq!(q.status(id).await, "reducing", "{columns} {values}");
        let reduce = q.claim("a").await;
        assert_eq!((reduce.task_id, reduce.phase.as_str(), reduce.split_count), (id, "reduce", 0));
        let inputs: Vec<i32> = q
            .all(format!("select split_no from divvy.reduce_inputs({}, {})", reduce.split_id, reduce.token))
            .await;
        assert_eq!(inputs, [0; 0]);
        q.complete_with(&reduce, json!({"sum": 0})).await;
        assert_eq!(q.status(id).await, "succeeded");
        let id: i64 = q.one(insert("plain")).await;
        assert_eq!(q.status(id).await, "succeeded", "no reduce: {columns} {values}");
    }
}

#[tokio::test]
async fn a_planned_task_is_planned_executed_and_reduced_with_dense_numbers() {
    let mut q = Queue::new().await;
    q.put("a", json!({"plan": true, "reduce": true})).await;
    let id = q.enqueue("a").await;
    let plan = q.claim("a").await;
    assert_eq!((plan.phase.as_str(), plan.split_no), ("plan", 0));
    for (payloads, staged) in [("[1, 2]", 2), ("[3]", 3)] {
        let add = format!("select divvy.add_splits({}, {}, '{payloads}')", plan.split_id, plan.token);
        assert_eq!(q.one::<i32>(add).await, staged);
    }
    assert_eq!(q.claim_up_to("a", 10).await.len(), 0, "staged splits are nobody's");
    q.complete(&plan).await;
    let splits = q.claim_up_to("a", 10).await;
    let seen: Vec<_> = splits.iter().map(|s| (s.split_no, s.split_count, s.split_payload.clone())).collect();
    assert_eq!(seen, [(1, 3, Some(json!(1))), (2, 3, Some(json!(2))), (3, 3, Some(json!(3)))]);
    for split in &splits {
        q.complete_with(split, json!(split.split_no * 10)).await;
    }
    let reduce = q.claim("a").await;
    let inputs: Vec<(i32, String, Value)> = q
        .rows(format!(
            "select split_no, status, result from divvy.reduce_inputs({}, {}, 1)",
            reduce.split_id, reduce.token
        ))
        .await;
    assert_eq!(inputs, [(2, "succeeded".into(), json!(20)), (3, "succeeded".into(), json!(30))]);
    q.complete_with(&reduce, json!(60)).await;
    assert_eq!(q.one::<Value>(format!("select result from divvy.task_result({id})")).await, json!(60));
}
