//! Runs the blocks of a paper in order, in one database, as a reader would.

use super::blocks::{Block, Manner, is_shown};
use crate::support::db::TestDb;
use crate::support::program::postgres_program;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Longest a block may take.
const BLOCK_MAX: Duration = Duration::from_secs(120);
/// In place of cargo, which would wait for the cargo that runs this test: `cargo test` has built the examples.
const CARGO: &str = r#"#!/bin/sh
case "$1 $2 $3" in
"run -q --example") exec "$EXAMPLES/$4" ;;
*) echo "cargo $* is not run by a test: say so in a comment" >&2; exit 1 ;;
esac
"#;

/// A reader at work.
pub struct Tour {
    database: TestDb,
    folder: TempDir,
    background: Vec<(String, Child)>,
    /// Where `divvy serve` listens in this tour.
    address: String,
}

impl Tour {
    pub fn new(database: TestDb) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let cargo = folder.path().join("cargo");
        fs::write(&cargo, CARGO).expect("writing cargo");
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("making cargo a program");
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port").to_string();
        Self { database, folder, background: Vec::new(), address }
    }

    /// Runs the blocks, compares what they show, and stops what runs in the background.
    pub async fn take(mut self, blocks: Vec<Block>) {
        for block in blocks {
            match block.manner {
                Manner::NotAtAll => {}
                Manner::InTheBackground => self.begin(&block),
                Manner::Once => {
                    let (fine, told) = self.run(&block).await;
                    assert!(fine, "{}: {told}", block.place);
                }
            }
        }
        for (place, child) in std::mem::take(&mut self.background) {
            self.end(&place, child).await;
        }
    }

    /// Whether it went as shown, and how it went.
    async fn run(&self, block: &Block) -> (bool, String) {
        let output = match block.language.as_str() {
            "sh" => self.sh(block).await,
            "sql" => self.psql(block).await,
            "rust" => return (is_in_the_tree(&block.text), "no program of ours has these lines".into()),
            other => panic!("{}: nobody runs {other}", block.place),
        };
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8_lossy(&output.stderr);
        let fine =
            output.status.success() && block.shown.as_deref().is_none_or(|shown| is_shown(shown, &out));
        (fine, format!("it ended with {}, saying:\n{out}{err}", output.status))
    }

    fn shell(&self, text: &str) -> Command {
        let divvy = Path::new(env!("CARGO_BIN_EXE_divvy"));
        let beside = divvy.parent().expect("it is in a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        for variable in ["DATABASE_DIRECT_URL", "DIVVY_SQL_ROLE_URL", "RUST_LOG"] {
            shell.env_remove(variable);
        }
        shell
            .args(["-e", "-c", text])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PATH", format!("{}:{}:{path}", self.folder.path().display(), beside.display()))
            .env("EXAMPLES", beside.join("examples"))
            .env("DATABASE_URL", self.database.url())
            .env("DIVVY_LISTEN", &self.address)
            .env("API", format!("http://{}/api/v1", self.address))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        shell
    }

    async fn sh(&self, block: &Block) -> Output {
        let running = self.shell(&block.text).output();
        timeout(BLOCK_MAX, running)
            .await
            .unwrap_or_else(|_| panic!("{} takes too long", block.place))
            .expect("sh")
    }

    fn begin(&mut self, block: &Block) {
        let told = self.told(&block.place);
        let stderr = fs::File::create(told).expect("a file for what it says");
        let mut shell = self.shell(&format!("exec {}", block.text));
        let child = shell.stdout(Stdio::null()).stderr(stderr).spawn().expect("sh");
        self.background.push((block.place.clone(), child));
    }

    /// Where it is kept what a block in the background says.
    fn told(&self, place: &str) -> PathBuf {
        self.folder.path().join(place.replace(['/', ':'], "-"))
    }

    async fn end(&self, place: &str, mut child: Child) {
        let told = || fs::read_to_string(self.told(place)).unwrap_or_default();
        assert_eq!(child.try_wait().expect("asking for it"), None, "{place} ended early: {}", told());
        let id = child.id().expect("it runs");
        let pid = rustix::process::Pid::from_raw(id.cast_signed()).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("stopping it");
        let status = timeout(BLOCK_MAX, child.wait()).await.expect("it stops").expect("waiting for it");
        assert!(status.success(), "{place} ended with {status}: {}", told());
    }

    /// One psql for each block, fed as if pasted.
    async fn psql(&self, block: &Block) -> Output {
        let mut psql = Command::from(postgres_program("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", self.database.url()]);
        if block.shows_comments() {
            psql.args(["--no-align", "--tuples-only", "--field-separator= | "]);
        }
        psql.env("PGCLIENTENCODING", "UTF8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = psql.kill_on_drop(true).spawn().expect("psql, which the papers are written for");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(format!("{}\n", block.text).as_bytes()).await.expect("feeding psql");
        drop(stdin);
        let running = child.wait_with_output();
        timeout(BLOCK_MAX, running)
            .await
            .unwrap_or_else(|_| panic!("{} takes too long", block.place))
            .expect("psql")
    }
}

/// A Rust block is a passage of a file that cargo compiles and a test runs.
fn is_in_the_tree(text: &str) -> bool {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["examples", "tests/it"].iter().any(|folder| {
        let files =
            fs::read_dir(package.join(folder)).expect(folder).map(|entry| entry.expect(folder).path());
        files
            .filter(|file: &PathBuf| file.extension().is_some_and(|ending| ending == "rs"))
            .any(|file| fs::read_to_string(file).expect(folder).contains(text))
    })
}
