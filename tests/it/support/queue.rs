//! divvy by SQL alone, as from any language: a database, one session, one registered worker. Literals are written into
//! the statements, for they come from the tests themselves.

use super::db::TestDb;
use serde_json::Value;
use sqlx::postgres::{PgDatabaseError, PgRow};
use sqlx::{AssertSqlSafe, Decode, Executor, FromRow, PgConnection, Postgres, Type};
use std::sync::Arc;

/// The worker that every queue has registered.
pub const WORKER: &str = "00000000-0000-0000-0000-000000000001";

/// A database and a session of it.
pub struct Queue {
    pub db: Arc<TestDb>,
    pub session: PgConnection,
}

/// What claim returned for one split.
#[derive(Debug, Clone, sqlx_macros::FromRow)]
pub struct Claimed {
    pub split_id: i64,
    pub task_id: i64,
    pub phase: String,
    pub split_no: i32,
    pub split_count: i32,
    pub attempt: i32,
    pub max_attempts: i32,
    pub token: i64,
    pub payload: Value,
    pub split_payload: Option<Value>,
    pub checkpoint: Option<Value>,
    pub headers: Option<Value>,
    pub epoch: i32,
    pub idempotency_key: String,
}

/// An error of Postgres as its caller sees it.
#[derive(Debug)]
pub struct Refusal {
    pub code: String,
    pub message: String,
    pub constraint: Option<String>,
}

impl Refusal {
    /// From what sqlx said; panics on anything that is no error of the server.
    pub fn of(error: sqlx::Error) -> Self {
        let sqlx::Error::Database(e) = error else { panic!("not the server's error: {error}") };
        let e = e.downcast_ref::<PgDatabaseError>();
        Self {
            code: e.code().to_owned(),
            message: e.message().to_owned(),
            constraint: e.constraint().map(Into::into),
        }
    }

    /// The code, and everything that the message must name.
    #[track_caller]
    pub fn says(&self, code: &str, names: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for name in names {
            assert!(self.message.contains(name), "{:?} does not name {name:?}", self.message);
        }
    }
}

/// One row of divvy.event.
#[derive(Debug, sqlx_macros::FromRow)]
pub struct Event {
    pub actor: String,
    pub verb: String,
    pub reason: Option<String>,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// A text as a literal.
pub fn quoted(text: impl std::fmt::Display) -> String {
    format!("'{}'", text.to_string().replace('\'', "''"))
}

impl Queue {
    /// A new database with the worker registered.
    pub async fn new() -> Self {
        Self::on(Arc::new(TestDb::new().await)).await
    }

    /// The same in this database.
    pub async fn on(db: Arc<TestDb>) -> Self {
        let session = db.connect().await;
        let mut queue = Self { db, session };
        queue.run(format!("select divvy.register_worker('{WORKER}', 'test', '{{}}', 10)")).await;
        queue
    }

    /// The same with types declared: plain ones, as a worker's handler wants them.
    pub async fn with_types(names: &[&str]) -> Self {
        Self::new().await.and_types(names).await
    }

    /// This one, with types declared.
    pub async fn and_types(mut self, names: &[&str]) -> Self {
        for name in names {
            self.put(name, Value::Object(serde_json::Map::new())).await;
        }
        self
    }

    /// Statements that must succeed.
    pub async fn run(&mut self, sql: impl Into<String>) {
        let sql = sql.into();
        self.session.execute(AssertSqlSafe(sql.clone())).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    /// Statements that must be refused. What they wrote is rolled back.
    pub async fn refused(&mut self, sql: impl Into<String>) -> Refusal {
        let sql = sql.into();
        let Err(error) = self.session.execute(AssertSqlSafe(sql.clone())).await else {
            panic!("not refused: {sql}");
        };
        self.run("rollback").await;
        Refusal::of(error)
    }

    /// The only value of the only row.
    pub async fn one<T>(&mut self, sql: impl Into<String>) -> T
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin,
    {
        let sql = sql.into();
        sqlx::query_scalar(AssertSqlSafe(sql.clone()))
            .fetch_one(&mut self.session)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// The first value of every row.
    pub async fn all<T>(&mut self, sql: impl Into<String>) -> Vec<T>
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin,
    {
        let sql = sql.into();
        sqlx::query_scalar(AssertSqlSafe(sql.clone()))
            .fetch_all(&mut self.session)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// Every row.
    pub async fn rows<T>(&mut self, sql: impl Into<String>) -> Vec<T>
    where
        T: for<'r> FromRow<'r, PgRow> + Send + Unpin,
    {
        let sql = sql.into();
        sqlx::query_as(AssertSqlSafe(sql.clone()))
            .fetch_all(&mut self.session)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// Declares a type.
    pub async fn put(&mut self, name: &str, options: Value) {
        self.run(format!("select divvy.put_task_type('{name}', {})", quoted(options))).await;
    }

    /// Makes a task with an empty payload.
    pub async fn enqueue(&mut self, task_type: &str) -> i64 {
        self.one(format!("insert into divvy.task (task_type) values ('{task_type}') returning id")).await
    }

    /// Makes a divided task.
    pub async fn enqueue_splits(&mut self, task_type: &str, count: u32) -> i64 {
        self.one(format!(
            "insert into divvy.task (task_type, split_count) values ('{task_type}', {count}) returning id"
        ))
        .await
    }

    /// Claims up to `max` splits.
    pub async fn claim_up_to(&mut self, task_type: &str, max: u32) -> Vec<Claimed> {
        self.rows(format!(
            "select split_id, task_id, phase, split_no, split_count, attempt, max_attempts, token, payload,
                split_payload, checkpoint, headers, epoch, idempotency_key
             from divvy.claim('{WORKER}', array['{task_type}'], {max})"
        ))
        .await
    }

    /// Claims one split, which must be there.
    pub async fn claim(&mut self, task_type: &str) -> Claimed {
        self.claim_up_to(task_type, 1)
            .await
            .pop()
            .unwrap_or_else(|| panic!("nothing of {task_type} to claim"))
    }

    /// Completes a split without a result.
    pub async fn complete(&mut self, split: &Claimed) {
        self.run(format!("select divvy.complete({}, {})", split.split_id, split.token)).await;
    }

    /// Completes a split with a result.
    pub async fn complete_with(&mut self, split: &Claimed, result: Value) {
        self.run(format!("select divvy.complete({}, {}, {})", split.split_id, split.token, quoted(result)))
            .await;
    }

    /// Claims one split and completes it.
    pub async fn work(&mut self, task_type: &str) -> Claimed {
        let split = self.claim(task_type).await;
        self.complete(&split).await;
        split
    }

    /// Fails a split for good; what became of it.
    pub async fn stop(&mut self, split: &Claimed) -> String {
        self.one(format!(
            r#"select status from divvy.fail({}, {}, '{{"class": "Broken", "message": "no luck"}}', retry => false)"#,
            split.split_id, split.token
        ))
        .await
    }

    /// Fails a split; what became of it.
    pub async fn fail(&mut self, split: &Claimed, more: &str) -> String {
        self.one(format!(
            r#"select status from divvy.fail({}, {}, '{{"class": "Flaky", "message": "again"}}'{more})"#,
            split.split_id, split.token
        ))
        .await
    }

    /// All duties once.
    pub async fn tick(&mut self) {
        self.run("select divvy.tick()").await;
    }

    /// A task's status.
    pub async fn status(&mut self, task: i64) -> String {
        self.one(format!("select status::text from divvy.task where id = {task}")).await
    }

    /// The statuses of a task's splits by number.
    pub async fn splits(&mut self, task: i64) -> Vec<String> {
        self.all(format!("select status from divvy.split where task_id = {task} order by split_no")).await
    }

    /// What happened to an object, in order.
    pub async fn events(&mut self, object: &str, id: impl std::fmt::Display) -> Vec<Event> {
        self.rows(format!(
            "select actor, verb, reason, before, after from divvy.event
             where object = '{object}' and object_id = '{id}' order by id"
        ))
        .await
    }

    /// The last of them.
    pub async fn last_event(&mut self, object: &str, id: impl std::fmt::Display) -> Event {
        self.events(object, id).await.pop().expect("an event")
    }
}

/// As one of divvy's roles, or another.
impl Queue {
    /// Statements as a role, all undone afterwards.
    pub async fn run_as(&mut self, role: &str, sql: &str) -> Result<(), Refusal> {
        self.run(format!("begin; set local role {role}")).await;
        let tried = self.session.execute(AssertSqlSafe(sql.to_owned())).await;
        self.run("rollback").await;
        tried.map(drop).map_err(Refusal::of)
    }

    /// A statement that must be refused after `savepoint here`; back to it, in the same transaction.
    pub async fn refused_within(&mut self, sql: &str) -> Refusal {
        let tried = self.session.execute(AssertSqlSafe(sql.to_owned())).await;
        self.run("rollback to here").await;
        Refusal::of(tried.expect_err(sql))
    }
}
