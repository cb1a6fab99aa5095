//! Claims that choose, beside somebody who has what they chose locked.

use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};

/// Claims of such types choose, and choose nothing else than others would.
const ROOMY: [&str; 2] = [r#"{"max_running_per_group": 100}"#, r#"{"fair_by_group": true}"#];

fn tasks(splits: &[Claimed]) -> Vec<i64> {
    splits.iter().map(|split| split.task_id).collect()
}

#[tokio::test]
async fn a_claim_whose_first_choice_is_locked_takes_what_comes_next_and_the_rest_later() {
    for options in ROOMY {
        let db = TestDb::new().await;
        let mut hand = Hand::new(&db).await;
        hand.declare("x", options).await;
        let all: Vec<i64> =
            hand.all("insert into divvy.task (task_type, group_key) select 'x', 'g' from generate_series(1, 8) returning id").await;
        let mut other = Hand::new(&db).await;
        other.run("begin").await;
        for task in &all[..4] {
            other.run(&format!("select divvy.cancel({task})")).await;
        }
        assert_eq!(tasks(&hand.claim("x", 2).await), all[4..6], "{options}");
        assert_eq!(tasks(&hand.claim("x", 1).await), all[6..7], "{options}");
        other.run("rollback").await;
        let rest = [&all[..4], &all[7..]].concat();
        assert_eq!(tasks(&hand.claim("x", 10).await), rest, "{options}");
    }
}
