//! What a call reads: scans from end to end, rows read by index, and entries of indexes walked over.

use crate::support::db::TestDb;
use crate::support::hand::{Claimed, Hand};

/// What the hot calls are asked for at once.
pub const BATCH: usize = 50;
/// Rows that a call of one batch may read from a table, and entries from its indexes: each a few times, never the table.
pub const ROWS_READ_MAX: i64 = 60 * BATCH as i64;

/// A session, and what its calls read.
pub struct Measured {
    pub hand: Hand,
    pub case: &'static str,
    entries: i64,
}

impl Measured {
    pub async fn new(db: &TestDb, case: &'static str) -> Self {
        Self { hand: Hand::new(db).await, case, entries: 0 }
    }

    /// Before a call.
    pub async fn begin(&mut self) {
        self.entries = self.entries_read().await;
        self.hand.run("begin").await;
    }

    /// Entries read from the indexes of splits by anybody so far, which in these tests is this session alone.
    pub async fn entries_read(&mut self) -> i64 {
        self.hand.run("select pg_stat_force_next_flush()").await;
        self.hand
            .get(
                "select coalesce(sum(idx_tup_read), 0)::bigint from pg_stat_user_indexes
                  where schemaname = 'divvy' and relname in ('task', 'share', 'stretch', 'given', 'ended')",
            )
            .await
    }

    /// After it: the transaction has read its tables by index, and few rows of them.
    pub async fn end(&mut self, call: &str) {
        let case = self.case;
        // Leases are few, and duties look at all of them; no call of a worker does.
        let duty =
            ["settle", "reclaim", "promote", "prune", "next_wait"].iter().any(|duty| call.starts_with(duty));
        for table in ["task", "share", "lease", "stretch", "given", "ended"] {
            if duty && table == "lease" {
                continue;
            }
            let counts: Vec<i64> = self
                .hand
                .get(&format!(
                    "select array[seq_scan, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)]
                       from pg_stat_xact_user_tables where schemaname = 'divvy' and relname = '{table}'"
                ))
                .await;
            assert!(counts[0] == 0 || table == "lease", "{call} scans divvy.{table} from end to end {case}");
            assert!(counts[1] <= ROWS_READ_MAX, "{call} reads {} rows of divvy.{table} {case}", counts[1]);
        }
        self.hand.run("commit").await;
        let entries = self.entries_read().await - self.entries;
        // Prune, and whoever ticks, walks over what was deleted until a vacuum takes that away.
        let prunes = call.starts_with("prune") || call.starts_with("next_wait");
        let most = if prunes { i64::MAX } else { ROWS_READ_MAX };
        assert!(entries <= most, "{call} walks over {entries} entries of indexes {case}");
    }

    /// Claims a whole batch.
    pub async fn claim(&mut self, task_type: &str, call: &str) -> Vec<Claimed> {
        self.begin().await;
        let got = self.hand.claim(task_type, BATCH).await;
        assert_eq!(got.len(), BATCH, "{task_type} {}", self.case);
        self.end(call).await;
        got
    }

    /// Completes a batch well.
    pub async fn complete_many(&mut self, batch: &[Claimed], call: &str) {
        self.begin().await;
        let verdicts = self.hand.complete_many(batch).await;
        assert!(verdicts.iter().all(|v| v == "ok"), "{verdicts:?}");
        self.end(call).await;
    }

    /// Calls a function.
    pub async fn run(&mut self, sql: &str) {
        self.begin().await;
        self.hand.run(&format!("select {sql}")).await;
        self.end(sql.trim_start_matches("divvy.")).await;
    }
}
