//! Workers in other languages, by the SQL functions alone. Bash with psql runs here; `examples/run` runs all of them, and
//! what it wrote down must be of the examples and functions as they are.

use crate::support::db::TestDb;
use crate::support::program::postgres_program;
use crate::support::race::{DEADLINE, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sqlx::migrate::{Migration, MigrationType};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// These must have run; the others where their tool chains are.
const LANGUAGES: [&str; 4] = ["python", "node", "java", "bash"];
const OTHERS: [&str; 2] = ["php", "go"];
/// The sum of n² for 0 ≤ n < 6000.
const RESULT: &str = "succeeded 71982001000";

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_in(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(package().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let files = entries.map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file() && path.to_str().unwrap().ends_with(ending)).collect()
}

/// Of what `examples/run` runs; it computes the same.
fn fingerprint() -> String {
    let mut files = vec![package().join("examples/run")];
    files.extend(files_in("sql", ".sql"));
    files.extend(
        LANGUAGES.iter().chain(&OTHERS).flat_map(|language| files_in(&format!("examples/{language}"), "")),
    );
    let mut names: Vec<String> =
        files.iter().map(|file| file.strip_prefix(package()).unwrap().display().to_string()).collect();
    names.sort();
    let texts =
        names.iter().map(|name| format!("{name}\n{}", fs::read_to_string(package().join(name)).unwrap()));
    let text = sqlx::SqlSafeStr::into_sql_str(sqlx::AssertSqlSafe(texts.collect::<String>()));
    // The digest of sqlx's migrations, SHA-384, instead of a library for this alone.
    let digest = Migration::new(1, "".into(), MigrationType::Simple, text, false).checksum;
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_examples_of_every_language_ran_as_they_are() {
    let ran: Value =
        serde_json::from_str(&fs::read_to_string(package().join("examples/RAN.json")).unwrap()).unwrap();
    for language in LANGUAGES {
        assert_eq!(ran["languages"][language]["ran"], true, "{language}: {}", ran["languages"][language]);
    }
    assert_eq!(
        ran["hash"],
        fingerprint(),
        "the examples or sql/ have changed since: run `examples/run` again"
    );
}

/// A program of `examples/bash`; killed with this value if it still runs.
struct Script(Child);

impl Script {
    fn start(db: &TestDb, name: &str, out: Stdio) -> Self {
        let psql = PathBuf::from(postgres_program("psql").get_program());
        let path = std::env::var("PATH").unwrap_or_default();
        let path = match psql.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) => format!("{}:{path}", folder.display()),
            None => path,
        };
        let mut command = Command::new("bash");
        command
            .arg(package().join("examples/bash").join(name))
            .arg("squares.bash")
            .stdin(Stdio::null())
            .stdout(out);
        command.env("PATH", path).env("DATABASE_URL", db.url()).env("SECONDS_PER_SPLIT", "0.2");
        Self(command.spawn().expect("starting bash"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    async fn ended(&mut self) -> Option<i32> {
        let mut code = None;
        until("it ends", async || {
            code = self.0.try_wait().unwrap().map(|status| status.code());
            code.is_some()
        })
        .await;
        code.flatten()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn bash_workers_with_psql_share_a_task_and_one_is_killed() {
    let db = TestDb::new().await;
    let ids = async || -> Vec<uuid::Uuid> {
        sqlx::query_scalar("select id from divvy.worker").fetch_all(db.pool()).await.unwrap()
    };
    let mut first = Script::start(&db, "worker.sh", Stdio::null());
    until("the first is registered", async || ids().await.len() == 1).await;
    let me = ids().await[0];
    let mut second = Script::start(&db, "worker.sh", Stdio::null());
    let producer = Script::start(&db, "producer.sh", Stdio::piped());
    let holds = "select exists (select from divvy.split where worker = $1 and status = 'running' and phase = 'execute')";
    until("the first holds a split", async || {
        sqlx::query_scalar(holds).bind(me).fetch_one(db.pool()).await.unwrap()
    })
    .await;
    first.signal(Signal::KILL);
    first.ended().await;
    let mut producer = producer;
    let out = producer.0.stdout.take().unwrap();
    let said = tokio::task::spawn_blocking(move || std::io::read_to_string(out).unwrap());
    let said = tokio::time::timeout(DEADLINE * 3, said).await.expect("the task ends").unwrap();
    assert!(said.trim().ends_with(RESULT), "{said}");
    // The producer's trace has reached every share, and the reduce.
    let traced: i64 = sqlx::query_scalar(
        "select count(distinct split_id) from divvy.split_log where message = 'in the trace ' || $1",
    )
    .bind("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(traced, 20 + 1);
    assert_eq!(producer.ended().await, Some(0));
    second.signal(Signal::TERM);
    assert_eq!(second.ended().await, Some(0));
    let held: i64 = sqlx::query_scalar("select count(*) from divvy.split where status = 'running'")
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert_eq!(held, 0);
}
