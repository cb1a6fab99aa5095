//! A worker by hand: one session that calls the SQL functions itself, as any language would.

use super::db::TestDb;
use super::race::backend_pid;
use sqlx::{AssertSqlSafe, Connection, Decode, Executor, PgConnection, Postgres, Type};
use uuid::Uuid;

/// What a claim says of a split.
#[derive(Debug, Clone, sqlx_macros::FromRow)]
pub struct Claimed {
    pub split_id: i64,
    pub task_id: i64,
    pub task_type: String,
    pub phase: String,
    pub split_no: i32,
    pub attempt: i32,
    pub token: i64,
}

/// A registered worker and its session.
pub struct Hand {
    connection: PgConnection,
    pub worker: Uuid,
    pub pid: i32,
}

impl Hand {
    /// A worker in a session of its own.
    pub async fn new(db: &TestDb) -> Self {
        Self::on(db.connect().await).await
    }

    /// A worker on this connection.
    pub async fn on(mut connection: PgConnection) -> Self {
        let pid = backend_pid(&mut connection).await;
        let mut hand = Self { connection, worker: Uuid::new_v4(), pid };
        let register =
            format!("select command from divvy.register_worker('{}', 'hand', '{{}}', 10)", hand.worker);
        assert_eq!(hand.get::<String>(&register).await, "run");
        hand
    }

    /// Runs statements whose answer doesn't matter.
    pub async fn run(&mut self, sql: &str) {
        self.attempt(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    /// The same, with what the database says to it.
    pub async fn attempt(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        self.connection.execute(AssertSqlSafe(sql.to_owned())).await.map(|_| ())
    }

    /// The SQLSTATE with which it is refused; "ok" when it is not.
    pub async fn code(&mut self, sql: &str) -> String {
        match self.attempt(sql).await {
            Ok(()) => "ok".into(),
            Err(e) => e
                .as_database_error()
                .and_then(|e| e.code().map(Into::into))
                .unwrap_or_else(|| panic!("{sql}: {e}")),
        }
    }

    /// The first value of the first row.
    pub async fn get<T>(&mut self, sql: &str) -> T
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut self.connection)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// The first value of every row.
    pub async fn all<T>(&mut self, sql: &str) -> Vec<T>
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_all(&mut self.connection)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    pub async fn count(&mut self, from: &str) -> i64 {
        self.get(&format!("select count(*) from {from}")).await
    }

    /// Declares a type.
    pub async fn declare(&mut self, task_type: &str, options: &str) {
        self.run(&format!("select divvy.put_task_type('{task_type}', '{options}')")).await;
    }

    /// Inserts a task: `"(task_type, split_count) values ('x', 3)"`. Its id.
    pub async fn insert(&mut self, columns_and_values: &str) -> i64 {
        self.get(&format!("insert into divvy.task {columns_and_values} returning id")).await
    }

    /// Inserts a task of the type with this many splits.
    pub async fn divided(&mut self, task_type: &str, splits: i32) -> i64 {
        self.insert(&format!("(task_type, split_count) values ('{task_type}', {splits})")).await
    }

    /// The same with a row for each split, however many.
    pub async fn divided_into_rows(&mut self, task_type: &str, splits: i32) -> i64 {
        let task = self.divided(task_type, splits).await;
        self.run(&format!("select divvy.write_out_unbegun({task})")).await;
        task
    }

    /// Claims up to so many splits of the types, a comma between them.
    pub async fn claim(&mut self, types: &str, max: usize) -> Vec<Claimed> {
        let sql = format!(
            "select split_id, task_id, task_type, phase, split_no, attempt, token
               from divvy.claim('{}', '{{{types}}}', {max})",
            self.worker
        );
        sqlx::query_as(AssertSqlSafe(sql.clone()))
            .fetch_all(&mut self.connection)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// Claims the one split there must be.
    pub async fn claim_one(&mut self, task_type: &str) -> Claimed {
        self.claim(task_type, 1).await.pop().unwrap_or_else(|| panic!("nothing of {task_type} is ready"))
    }

    /// Completes it; "ok" or the SQLSTATE.
    pub async fn complete(&mut self, split: &Claimed) -> String {
        self.call("complete", split, "").await
    }

    /// Calls a function of a split, such as `("snooze", split, "'1 s'")`; "ok" or the SQLSTATE.
    pub async fn call(&mut self, function: &str, split: &Claimed, more: &str) -> String {
        let comma = if more.is_empty() { "" } else { ", " };
        self.code(&format!("select divvy.{function}({}, {}{comma}{more})", split.split_id, split.token)).await
    }

    /// Completes them in this order; the verdicts.
    pub async fn complete_many(&mut self, splits: &[Claimed]) -> Vec<String> {
        self.try_complete_many(splits).await.unwrap_or_else(|e| panic!("complete_many: {e}"))
    }

    pub async fn try_complete_many(&mut self, splits: &[Claimed]) -> Result<Vec<String>, sqlx::Error> {
        let (ids, tokens): (Vec<i64>, Vec<i64>) = splits.iter().map(|s| (s.split_id, s.token)).unzip();
        sqlx::query_scalar("select verdict from divvy.complete_many($1, $2)")
            .bind(ids)
            .bind(tokens)
            .fetch_all(&mut self.connection)
            .await
    }

    /// The split's status.
    pub async fn state(&mut self, split: i64) -> String {
        self.get(&format!("select status from divvy.split where id = {split}")).await
    }

    /// The task's status.
    pub async fn status(&mut self, task: i64) -> String {
        self.get(&format!("select status::text from divvy.task where id = {task}")).await
    }

    /// Ends the session.
    pub async fn close(self) {
        self.connection.close().await.expect("closing a worker's session");
    }
}
