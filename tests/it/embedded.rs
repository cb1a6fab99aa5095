//! The embedded Postgres: shared, kept, recovered, stopped with its last user.

mod downloads;
mod folders;

use crate::support::db::{fast_dir, settings};
use crate::support::program::{divvy, ok, said};
use crate::support::race::until;
use divvy::embedded::Embedded;
use sqlx::{Connection, PgConnection};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A data folder of its own for one test.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("divvy-home-").tempdir_in(fast_dir()).unwrap();
        // Root's server runs as somebody else, who must be able to enter.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    /// The server's folder.
    fn root(&self) -> PathBuf {
        self.dir.path().join("postgres")
    }

    /// divvy as people use it: durable, stopped with its last user.
    fn divvy(&self, args: &[&str]) -> Command {
        let mut command = divvy(args);
        command.env("DIVVY_DATA_DIR", self.dir.path());
        command
    }

    /// One answer from the database, through `divvy db psql`.
    fn ask(&self, sql: &str) -> String {
        ok(&mut self.divvy(&["db", "psql", "--", "-XAtqc", sql])).trim().to_owned()
    }

    /// A process that uses the server until it is killed.
    fn user(&self) -> Child {
        let mut command = self.divvy(&["db", "psql", "--", "-XAtqc", "select pg_sleep(600)"]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn server_pid(&self) -> Option<u32> {
        fs::read_to_string(self.root().join("data/postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
    }

    /// Every process that works in the server's data or watches it.
    fn processes(&self) -> Vec<i32> {
        let data = fs::canonicalize(self.root().join("data")).ok();
        let watched = self.root().to_string_lossy().into_owned();
        let pids = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            let here = fs::read_link(format!("/proc/{pid}/cwd")).ok();
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            (here.is_some() && here == data)
                || (line.contains("embedded-watchdog") && line.contains(&watched))
        })
        .collect()
    }

    async fn until_sleeping(&self, sleepers: &str) {
        let running = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'";
        until("the psqls run their query", async || {
            self.root().join("data").exists() && self.ask(running) == sleepers
        })
        .await;
    }

    async fn until_gone(&self) {
        until("the server and its watchdog are gone", async || self.processes().is_empty()).await;
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.divvy(&["db", "stop", "--force"]).output().ok();
    }
}

fn kill(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
    }
}

fn end(child: Child) {
    drop(Killed(child));
}

/// A process that does not outlive its test, even a failing one.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_that_start_at_once_share_one_server() {
    let home = Home::new();
    let start = || {
        let mut command = home.divvy(&["db", "psql", "--", "-XAtqc", "select pg_postmaster_start_time()"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let holder = home.user();
    let processes: Vec<Child> = (0..8).map(|_| start()).collect();
    let mut answers = Vec::new();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        answers.push(String::from_utf8(output.stdout).unwrap());
    }
    home.until_sleeping("1").await;
    answers.dedup();
    assert_eq!(answers.len(), 1, "more than one server was started: {answers:?}");
    end(holder);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_ends_with_its_last_user_even_a_killed_one() {
    let home = Home::new();
    let (first, second) = (home.user(), home.user());
    home.until_sleeping("2").await;
    let server = home.server_pid().unwrap();
    end(first);
    assert_eq!(home.ask("select 1"), "1");
    assert_eq!(home.server_pid(), Some(server), "the second user still has it");
    end(second);
    // The killed divvys leave their psqls behind, which are users too; end them.
    home.ask("select pg_terminate_backend(pid) from pg_stat_activity where query like 'select pg_sleep%'");
    home.until_gone().await;
    assert!(!home.root().join("data/postmaster.pid").exists(), "it was not a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_every_process_loses_nothing_that_was_committed() {
    let home = Home::new();
    home.ask("create table kept (id int); insert into kept values (42)");
    let user = home.user();
    home.until_sleeping("1").await;
    home.ask("insert into kept values (43)");
    let all = home.processes();
    assert!(all.len() > 2, "a server, its helpers and a watchdog were expected: {all:?}");
    end(user);
    all.into_iter().for_each(kill);
    until("all are dead", async || home.processes().is_empty()).await;
    assert!(home.root().join("data/postmaster.pid").exists(), "the pid file is a leftover");
    assert_eq!(home.ask("select string_agg(id::text, ' ' order by id) from kept"), "42 43");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pid_file_that_names_another_program_does_not_keep_the_server_from_starting() {
    let home = Home::new();
    assert_eq!(home.ask("select 1"), "1");
    home.until_gone().await;
    // Postgres itself takes a pid of another user for stale, so the program must be of the server's user.
    let owner = fs::metadata(home.root().join("data")).unwrap();
    let mut other = Command::new("sleep");
    other.arg("600");
    if rustix::process::geteuid().is_root() {
        other.uid(owner.uid()).gid(owner.gid());
    }
    let mut other = Killed(other.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let pid_file = home.root().join("data/postmaster.pid");
    fs::write(&pid_file, format!("{}\n{}\n", other.0.id(), home.root().join("data").display())).unwrap();
    std::os::unix::fs::chown(&pid_file, Some(owner.uid()), Some(owner.gid())).unwrap();
    assert_eq!(home.ask("select 2"), "2");
    assert!(other.0.try_wait().unwrap().is_none(), "the other program was left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_psql_keeps_the_server_up() {
    let home = Home::new();
    let mut mine = settings(home.root());
    mine.linger = Duration::ZERO;
    let embedded = Embedded::start(&mine).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(embedded.is_starter());
    let mut psql = PgConnection::connect_with(&embedded.options()).await.unwrap();
    embedded.stop_if_last().await.unwrap();
    let one: i32 = sqlx::query_scalar("select 1").fetch_one(&mut psql).await.unwrap();
    assert_eq!(one, 1);
    psql.close().await.unwrap();
    home.until_gone().await;
    assert!(!home.root().join("data").exists(), "a discarded server leaves no data");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_deleted_cluster_is_explained_and_a_discarded_one_is_made_anew() {
    let home = Home::new();
    home.ask("create table kept (id int)");
    home.until_gone().await;
    let (version, aside) = (home.root().join("data/PG_VERSION"), home.dir.path().join("PG_VERSION"));
    fs::rename(&version, &aside).unwrap();
    let refused = said(&mut home.divvy(&["db", "url"]));
    assert_eq!(refused.code, Some(1));
    for part in ["no PG_VERSION", "move it away", "divvy db reset"] {
        assert!(refused.err.contains(part), "{part:?} is missing in: {}", refused.err);
    }
    fs::rename(&aside, &version).unwrap();
    assert_eq!(home.ask("select count(*) from kept"), "0", "nothing was touched");
    home.until_gone().await;

    // A test's server: killed while its data was deleted, and with a file of it damaged.
    for damage in ["PG_VERSION", "global/pg_control"] {
        fs::remove_file(home.root().join("data").join(damage)).unwrap();
        let mine = settings(home.root());
        let embedded = Embedded::start(&mine).await.unwrap_or_else(|e| panic!("without {damage}: {e}"));
        assert!(embedded.is_starter());
        drop(embedded);
        ok(&mut home.divvy(&["db", "stop"]));
        home.until_gone().await;
        // The watchdog has deleted it: make the next one.
        home.ask("select 1");
        home.until_gone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_that_url_prints_works_until_stop() {
    let home = Home::new();
    let url = ok(&mut home.divvy(&["db", "url"])).trim().to_owned();
    let mut session = PgConnection::connect(&url).await.unwrap();
    let database: String =
        sqlx::query_scalar("select current_database()::text").fetch_one(&mut session).await.unwrap();
    assert_eq!(database, "divvy");
    session.close().await.unwrap();
    // Somebody else comes and goes: the address was promised for longer.
    home.ask("select 1");
    assert!(PgConnection::connect(&url).await.is_ok());
    ok(&mut home.divvy(&["db", "stop"]));
    assert!(PgConnection::connect(&url).await.is_err());
    home.until_gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_and_reset_ask_before_they_take_the_server_from_others() {
    let home = Home::new();
    home.ask("create table kept (id int)");
    let user = home.user();
    home.until_sleeping("1").await;
    for args in [&["db", "stop"][..], &["db", "reset", "--yes"]] {
        let refused = said(&mut home.divvy(args));
        assert_eq!(refused.code, Some(75), "{}", refused.err);
        assert!(refused.err.contains("--force"), "{}", refused.err);
    }
    let unasked = said(&mut home.divvy(&["db", "reset", "--force"]));
    assert!(unasked.code == Some(1) && unasked.err.contains("--yes"), "{}", unasked.err);
    assert_eq!(home.ask("select count(*) from kept"), "0");
    ok(&mut home.divvy(&["db", "reset", "--yes", "--force"]));
    assert_eq!(home.ask("select to_regclass('kept') is null"), "t");
    end(user);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_in_psql_cancels_the_query_and_keeps_the_server() {
    let home = Home::new();
    let mut command =
        home.divvy(&["db", "psql", "--", "-XAtq", "-c", "select pg_sleep(600)", "-c", "select 'still here'"]);
    // A terminal sends Ctrl-C to everyone in the foreground: here, to a process group of their own.
    let psql = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    home.until_sleeping("1").await;
    let server = home.server_pid().unwrap();
    let group = rustix::process::Pid::from_raw(i32::try_from(psql.id()).unwrap()).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::INT).unwrap();
    let output = psql.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("canceling statement due to user request"));
    // divvy saw psql to its end, so the server was stopped properly, not killed by the signal.
    home.until_gone().await;
    let log = fs::read_to_string(home.root().join("postgres.log")).unwrap();
    assert!(log.contains("database system is shut down"), "server {server}: {log}");
}

#[test]
fn stop_and_reset_leave_a_given_database_alone() {
    for verb in ["stop", "reset"] {
        let refused = said(divvy(&["db", verb]).env("DATABASE_URL", "postgres://db.example/shop"));
        assert_eq!(refused.code, Some(1));
        assert!(refused.err.contains("DATABASE_URL names another database"), "{}", refused.err);
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
