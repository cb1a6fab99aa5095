//! The examples do what they say. `cargo test` builds them.

use crate::support::db::TestDb;
use crate::support::program;
use std::path::Path;
use std::process::Command;

/// Runs an example on a database of its own; what it wrote to stdout.
async fn run(example: &str) -> String {
    let db = TestDb::new().await;
    let built = Path::new(env!("CARGO_BIN_EXE_divvy")).with_file_name("examples").join(example);
    assert!(built.exists(), "{} is not built: run `cargo build --examples`", built.display());
    let url = db.url().to_owned();
    tokio::task::spawn_blocking(move || program::ok(Command::new(built).env("DATABASE_URL", url)))
        .await
        .unwrap()
}

#[tokio::test]
async fn hello_greets() {
    let said = run("hello").await;
    assert_eq!(
        said,
        "task succeeded: \"Hello, Ada!\"\nworker: 1 succeeded, 0 failed, 0 continued, 0 released, 0 lost\n"
    );
}

#[tokio::test]
async fn word_count_counts_over_all_lines() {
    let said = run("word_count").await;
    assert_eq!(
        said,
        "3 lines\ndog: 4\nfox: 4\nthe: 4\nworker: 5 succeeded, 0 failed, 0 continued, 0 released, 0 lost\n"
    );
}
