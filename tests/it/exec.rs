//! Commands as handlers, with real processes.

mod bad;
mod declared;
mod ends;
mod lines;
mod trace;

use crate::support::db::TestDb;
use crate::support::race::until;
use crate::support::running::Running;
use divvy::worker::{Exec, Summary, Worker};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// How soon a command is killed here that doesn't end when asked.
const KILL_AFTER: Duration = Duration::from_millis(300);

/// A worker of type `job` by a shell script, and a folder that the script knows as `$1`.
struct Bench {
    db: TestDb,
    folder: TempDir,
    worker: Option<Running>,
}

impl Bench {
    /// Serves by `script`, which is started for each split.
    async fn once(options: Value, script: &str) -> Self {
        Self::with(options, script, |exec| exec).await
    }

    /// The same, but one process for all.
    async fn lines(options: Value, script: &str) -> Self {
        Self::with(options, script, |exec| exec.long_lived(true)).await
    }

    async fn with(options: Value, script: &str, how: impl FnOnce(Exec) -> Exec) -> Self {
        let db = TestDb::new().await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.sh");
        std::fs::write(&file, script).unwrap();
        let mut all = json!({"backoff": {"kind": "fixed", "base": 0}, "max_attempts": 2});
        all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        sqlx::query("select divvy.put_task_type('job', $1)").bind(all).execute(db.pool()).await.unwrap();
        let exec = Exec::new(&format!("sh {} {}", file.display(), folder.path().display())).unwrap();
        let exec = how(exec.kill_after(KILL_AFTER));
        let builder = Worker::builder(db.pool().clone()).exec("job", exec).slots(4);
        let worker = Running::start(builder.poll(Duration::from_millis(50)).build().unwrap());
        Self { db, folder, worker: Some(worker) }
    }

    fn pool(&self) -> &PgPool {
        self.db.pool()
    }

    /// A file in the folder.
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Waits for a file that the script writes.
    async fn written(&self, name: &str) -> String {
        let file = self.file(name);
        until(&format!("{name} is written"), async || {
            std::fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n'))
        })
        .await;
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }

    async fn enqueue(&self, payload: Value, options: Value) -> i64 {
        sqlx::query_scalar("select task_id from divvy.enqueue('job', $1, $2)")
            .bind(payload)
            .bind(options)
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    /// Waits until the task has ended: status, result, error.
    async fn ended(&self, task: i64) -> (String, Value, Value) {
        until(&format!("task {task} ends"), async || {
            sqlx::query_scalar("select finished_at is not null from divvy.task_result($1)")
                .bind(task)
                .fetch_one(self.pool())
                .await
                .unwrap()
        })
        .await;
        sqlx::query_as(
            "select status, coalesce(result, 'null'), coalesce(error, 'null') from divvy.task_result($1)",
        )
        .bind(task)
        .fetch_one(self.pool())
        .await
        .unwrap()
    }

    /// Runs one task to its end.
    async fn run(&self, payload: Value) -> (String, Value, Value) {
        self.ended(self.enqueue(payload, json!({})).await).await
    }

    async fn stop(&mut self) -> Summary {
        self.worker.take().unwrap().stop().await
    }
}

/// Whether a process is there and no corpse.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).is_some_and(|state| state != 'Z')
}

async fn until_gone(pid: &str) {
    until(&format!("process {pid} is gone"), async || !lives(pid)).await;
}

const PHASES: &str = r#"
read -r request
case $DIVVY_PHASE in
plan) printf '{"n": 1}\n\n{"n": 2}\n{"n": 3}\n' ;;
execute) echo "split $DIVVY_SPLIT_NO of $DIVVY_SPLIT_COUNT" >&2; echo "$request" | sed 's/.*"split_payload":\({[^}]*}\).*/\1/' ;;
reduce) echo "$request" ;;
esac"#;

#[tokio::test]
async fn a_command_plans_executes_and_reduces() {
    let mut bench = Bench::once(json!({"plan": true, "reduce": true}), PHASES).await;
    let (status, told, _) = bench.run(json!({"who": "Ada"})).await;
    assert_eq!(status, "succeeded");
    let inputs: Vec<Value> = (1..=3)
        .map(|n| json!({"split_no": n, "status": "succeeded", "result": {"n": n}, "error": null}))
        .collect();
    assert_eq!(told["inputs"], json!(inputs));
    let task = &told["task_id"];
    let wanted = json!({
        "task_id": task, "split_id": task, "task_type": "job", "phase": "reduce", "split_no": 0, "split_count": 3,
        "attempt": 1, "max_attempts": 2, "epoch": 1, "token": told["token"], "scheduled_for": null,
        "idempotency_key": format!("{}.reduce.1.0", task.as_str().unwrap()), "payload": {"who": "Ada"},
        "split_payload": null, "checkpoint": null, "headers": null, "inputs": inputs,
    });
    assert_eq!(told, wanted);
    let logged: Vec<(String, String)> =
        sqlx::query_as("select level, message from divvy.split_log order by message")
            .fetch_all(bench.pool())
            .await
            .unwrap();
    let line = |n| ("info".to_owned(), format!("split {n} of 3"));
    assert_eq!(logged, [line(1), line(2), line(3)]);
    assert_eq!(bench.stop().await.succeeded, 5);
}

#[tokio::test]
async fn exit_codes_are_outcomes() {
    let script = r#"
        case $(cat) in
        *'"do": "stop"'*) echo 'no such account' >&2; exit 65 ;;
        *'"do": "fail"'*) echo 'first' >&2; echo 'disk full' >&2; exit 3 ;;
        *'"do": "class"'*) echo '{"class": "io", "message": "disk full"}'; exit 1 ;;
        *'"do": "snooze"'*'"checkpoint":null'*) echo '{"delay": 0, "checkpoint": {"seen": 7}}'; exit 75 ;;
        *'"checkpoint":{"seen": '*) echo '"went on"' ;;
        *'"do": "die"'*) kill -9 $$ ;;
        esac"#;
    let mut bench = Bench::once(json!({}), script).await;
    let stopped = bench.run(json!({"do": "stop"})).await;
    assert_eq!(stopped, ("failed".into(), Value::Null, json!({"message": "no such account (exit code 65)"})));
    let failed = bench.run(json!({"do": "fail"})).await;
    assert_eq!(failed, ("failed".into(), Value::Null, json!({"message": "disk full (exit code 3)"})));
    let named = bench.run(json!({"do": "class"})).await;
    assert_eq!(named.2, json!({"class": "io", "message": "disk full"}));
    let killed = bench.run(json!({"do": "die"})).await;
    assert_eq!(killed.2["message"], "killed by signal 9, and nothing on stderr");
    let snoozed = bench.run(json!({"do": "snooze"})).await;
    assert_eq!(snoozed, ("succeeded".into(), json!("went on"), Value::Null));
    assert_eq!(bench.run(json!({})).await, ("succeeded".into(), Value::Null, Value::Null));
    let done = bench.stop().await;
    // Two attempts each, but one of what was stopped.
    assert_eq!((done.succeeded, done.failed, done.continued), (2, 7, 1), "{done}");
}

#[tokio::test]
async fn a_command_has_ids_in_its_environment_and_no_address_of_the_database() {
    let script = r#"env | sed -n 's/^\(DIVVY_[A-Z_]*\|DATABASE[A-Z_]*\)=\(.*\)/\1=\2/p' | sort >&2"#;
    let mut bench = Bench::once(json!({}), script).await;
    let task = bench.enqueue(json!({}), json!({})).await;
    assert_eq!(bench.ended(task).await.0, "succeeded");
    let told: Vec<String> = sqlx::query_scalar("select message from divvy.split_log order by message")
        .fetch_all(bench.pool())
        .await
        .unwrap();
    let value = |name: &str| {
        let start = format!("{name}=");
        told.iter()
            .find_map(|line| line.strip_prefix(&start))
            .unwrap_or_else(|| panic!("{name} in {told:?}"))
            .to_owned()
    };
    for (name, wanted) in [
        ("DIVVY_TASK_ID", task.to_string()),
        ("DIVVY_SPLIT_ID", task.to_string()),
        ("DIVVY_TASK_TYPE", "job".into()),
        ("DIVVY_PHASE", "execute".into()),
        ("DIVVY_SPLIT_NO", "1".into()),
        ("DIVVY_SPLIT_COUNT", "1".into()),
        ("DIVVY_ATTEMPT", "1".into()),
        ("DIVVY_MAX_ATTEMPTS", "2".into()),
        ("DIVVY_EPOCH", "1".into()),
        ("DIVVY_IDEMPOTENCY_KEY", format!("{task}.1.1.0")),
    ] {
        assert_eq!(value(name), wanted, "{name}");
    }
    assert!(value("DIVVY_TOKEN").parse::<i64>().is_ok());
    assert!(told.iter().all(|line| !line.starts_with("DATABASE")), "{told:?}");
    bench.stop().await;
}

#[tokio::test]
async fn many_shares_and_many_inputs_stream() {
    let script = r#"
        case $DIVVY_PHASE in
        plan) seq 1 12000 ;;
        execute) sleep 60 ;;
        reduce) tee "$1/request" | tr '{' '\n' | grep -c '"result":7' ;;
        esac"#;
    let mut bench = Bench::once(json!({"plan": true, "reduce": true}), script).await;
    let planned = bench.enqueue(json!({}), json!({})).await;
    let count = "select count(*) from divvy.split where task_id = $1 and phase = 'execute'";
    until("the plan is done", async || {
        let splits: i64 = sqlx::query_scalar(count).bind(planned).fetch_one(bench.pool()).await.unwrap();
        splits == 12_000
    })
    .await;
    sqlx::query("select divvy.cancel($1, 'counted')").bind(planned).execute(bench.pool()).await.unwrap();
    bench.ended(planned).await;
    // All splits of the second task are claimed and completed by hand, at once when they are there.
    let mut hand = bench.pool().begin().await.unwrap();
    sqlx::raw_sql(
        "select divvy.register_worker('44444444-4444-4444-4444-444444444444', 'hand', '{job}', 2500)",
    )
    .execute(&mut *hand)
    .await
    .unwrap();
    let task: i64 = sqlx::query_scalar(
        "insert into divvy.task (task_type, split_count) values ('job', 2500) returning id",
    )
    .fetch_one(&mut *hand)
    .await
    .unwrap();
    let done: i64 = sqlx::query_scalar(
        "select count(*) from (select array_agg(split_id) i, array_agg(token) t, jsonb_agg(7) r
             from divvy.claim('44444444-4444-4444-4444-444444444444', '{job}', 2500)) c, divvy.complete_many(i, t, r)",
    )
    .fetch_one(&mut *hand)
    .await
    .unwrap();
    assert_eq!(done, 2500);
    hand.commit().await.unwrap();
    assert_eq!(bench.ended(task).await.1, json!(2500));
    let request: Value = serde_json::from_str(&bench.written("request").await).expect("pages make one JSON");
    let numbers: Vec<i64> =
        request["inputs"].as_array().unwrap().iter().map(|one| one["split_no"].as_i64().unwrap()).collect();
    assert_eq!(numbers, (1..=2500).collect::<Vec<_>>());
    bench.stop().await;
}
