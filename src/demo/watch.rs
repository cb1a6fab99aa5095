//! What the tables say of the demo's task: all that the demo shows and decides comes from here.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use crate::in_sql::row;
use crate::{Error, ErrorKind, Result};

row! {
    /// One execute split, as `divvy.split_overview` has it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct SplitRow {
        /// Its number in the task, from 1.
        pub split_no: i32,
        /// Its status.
        pub status: String,
        /// How many attempts were charged.
        pub attempt: i32,
        /// The name of the worker that claimed it last.
        pub worker: Option<String>,
    }
}

/// All execute splits of the task at one look.
#[derive(Debug, Clone, Default)]
pub struct Look {
    splits: Vec<SplitRow>,
}

impl Look {
    /// Looks at the task's splits.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub async fn at(connection: &mut PgConnection, task_id: i64) -> Result<Self> {
        let splits = sqlx::query_as(include_str!("watch.sql")).bind(task_id).fetch_all(connection).await;
        let splits = splits.map_err(|cause| {
            Error::new(ErrorKind::Database, format!("cannot look at task {task_id}: {cause}"))
                .caused_by(cause)
        })?;
        Ok(Self { splits })
    }

    /// A look at given rows.
    pub fn of(splits: Vec<SplitRow>) -> Self {
        Self { splits }
    }

    /// How many splits there are; 0 as long as the plan is at work.
    pub fn total(&self) -> usize {
        self.splits.len()
    }

    /// How many have succeeded.
    pub fn done(&self) -> usize {
        self.splits.iter().filter(|split| split.status == "succeeded").count()
    }

    /// The percentage that is done, 0 to 100, rounded down.
    pub fn percent(&self) -> usize {
        self.done() * 100 / self.total().max(1)
    }

    /// The splits that `worker` holds by the tables.
    pub fn held_by(&self, worker: &str) -> Vec<&SplitRow> {
        let held = |split: &&SplitRow| split.status == "running" && split.worker.as_deref() == Some(worker);
        self.splits.iter().filter(held).collect()
    }

    /// Of `workers`, the one that holds the most splits; none when none of them holds any.
    pub fn busiest<'a>(&self, workers: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        let held = workers.map(|worker| (self.held_by(worker).len(), worker));
        held.filter(|(splits, _)| *splits > 0).max().map(|(_, worker)| worker)
    }

    /// Whether this attempt at the split has succeeded.
    pub fn is_done(&self, split_no: i32, attempt: i32) -> bool {
        self.splits.iter().any(|split| {
            split.split_no == split_no && split.attempt == attempt && split.status == "succeeded"
        })
    }

    /// Of the splits that were running when their worker was killed (number → attempt then), those
    /// that have been claimed again since.
    pub fn come_back(&self, taken: &BTreeMap<i32, i32>) -> Vec<&SplitRow> {
        let again = |split: &&SplitRow| taken.get(&split.split_no).is_some_and(|then| split.attempt > *then);
        self.splits.iter().filter(again).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(split_no: i32, status: &str, attempt: i32, worker: &str) -> SplitRow {
        SplitRow { split_no, status: status.into(), attempt, worker: Some(worker.into()) }
    }

    fn look() -> Look {
        Look::of(vec![
            split(1, "succeeded", 1, "a"),
            split(2, "running", 1, "a"),
            split(3, "running", 2, "b"),
            split(4, "running", 1, "b"),
        ])
    }

    #[test]
    fn the_busiest_worker_is_one_that_holds_running_splits() {
        assert_eq!(look().busiest(["a", "b", "idle"].into_iter()), Some("b"));
        assert_eq!(look().busiest(["a", "idle"].into_iter()), Some("a"));
        assert_eq!(look().busiest(["idle"].into_iter()), None);
    }

    #[test]
    fn a_split_has_come_back_when_its_attempt_grew_since_the_kill() {
        let taken = BTreeMap::from([(3, 1), (4, 1)]);
        assert_eq!(look().come_back(&taken), vec![&split(3, "running", 2, "b")]);
    }

    #[test]
    fn an_attempt_is_done_when_it_succeeded_itself() {
        let second = Look::of(vec![split(1, "succeeded", 2, "b")]);
        assert!(look().is_done(1, 1) && !look().is_done(2, 1));
        assert!(second.is_done(1, 2) && !second.is_done(1, 1));
    }

    #[test]
    fn nothing_is_done_before_the_plan() {
        assert_eq!((Look::default().total(), Look::default().percent()), (0, 0));
        assert_eq!(look().percent(), 25);
    }
}
