//! Whose folder, where, and made by which version.

use super::{Home, exists};
use crate::support::program::{ok, said};
use crate::support::race::until;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The number of the user `nobody`.
const NOBODY: u32 = 65534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_normal_user_has_a_server_of_their_own() {
    let home = Home::new();
    // A checkout below a closed home is out of nobody's reach: the program is copied.
    let program = home.dir.path().join("divvy");
    fs::copy(env!("CARGO_BIN_EXE_divvy"), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(["db", "url"]).env_remove("DATABASE_URL").env("DIVVY_DATA_DIR", home.dir.path());
    if is_root() {
        chown(home.dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        command.uid(NOBODY).gid(NOBODY);
    }
    let url = ok(&mut command);
    assert!(url.starts_with("postgres:///divvy?host="), "{url}");
    let server = home.server_pid().unwrap();
    let runs_as = fs::metadata(format!("/proc/{server}")).unwrap().uid();
    assert_eq!(runs_as, if is_root() { NOBODY } else { rustix::process::geteuid().as_raw() });
    assert_eq!(fs::metadata(home.root()).unwrap().mode() & 0o777, 0o700, "nobody else may use it");
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_server_does_not_run_as_root() {
    if !is_root() {
        eprintln!("not run: only root can see what root's server does");
        return;
    }
    let home = Home::new();
    ok(&mut home.divvy(&["db", "url"]));
    let server = home.server_pid().unwrap();
    assert_ne!(fs::metadata(format!("/proc/{server}")).unwrap().uid(), 0);
    assert_eq!(home.ask("select current_user"), "postgres");
}

#[test]
fn a_folder_the_servers_user_may_not_enter_is_named() {
    if !is_root() {
        eprintln!("not run: a normal user's server may enter wherever the user may");
        return;
    }
    let home = Home::new();
    fs::set_permissions(home.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let refused = said(&mut home.divvy(&["db", "url"]));
    assert_eq!(refused.code, Some(1));
    let closed = home.dir.path().display().to_string();
    assert!(refused.err.contains(&format!("may not enter {closed};")), "{}", refused.err);
    assert!(refused.err.contains("DIVVY_DATA_DIR"), "{}", refused.err);
}

#[test]
fn a_folder_of_somebody_else_is_refused() {
    let home = Home::new();
    let mut command = home.divvy(&["db", "url"]);
    if is_root() {
        // Root's folder, and nobody comes.
        fs::create_dir(home.root()).unwrap();
        let program = home.dir.path().join("divvy");
        fs::copy(env!("CARGO_BIN_EXE_divvy"), &program).unwrap();
        command = Command::new(program);
        command.args(["db", "url"]).env_remove("DATABASE_URL").env("DIVVY_DATA_DIR", home.dir.path());
        command.uid(NOBODY).gid(NOBODY);
    } else {
        command.env("DIVVY_DATA_DIR", "/");
    }
    let refused = said(&mut command);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("data folder") && refused.err.contains("DIVVY_DATA_DIR"), "{}", refused.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_path_moves_the_socket_and_nothing_else() {
    let home = Home::new();
    let deep = home.dir.path().join("a".repeat(60)).join("b".repeat(60));
    let url = ok(home.divvy(&["db", "url"]).env("DIVVY_DATA_DIR", &deep));
    assert!(url.contains("host=%2Ftmp%2Fdivvy-"), "{url}");
    assert!(exists(&deep.join("postgres/data")));
    let answer = ok(home.divvy(&["db", "psql", "--", "-XAtqc", "select 1"]).env("DIVVY_DATA_DIR", &deep));
    assert_eq!(answer.trim(), "1");
    ok(home.divvy(&["db", "stop"]).env("DIVVY_DATA_DIR", &deep));
    let socket_dir = url.trim().split("host=").nth(1).unwrap().split('&').next().unwrap().replace("%2F", "/");
    fs::remove_dir_all(Path::new(&socket_dir)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_major_version_is_kept_and_explained() {
    let home = Home::new();
    home.ask("create table kept (id int)");
    until("the server is gone", async || home.processes().is_empty()).await;
    let version = home.root().join("data/PG_VERSION");
    let real = fs::read_to_string(&version).unwrap();
    fs::write(&version, "13\n").unwrap();
    let refused = said(&mut home.divvy(&["db", "url"]));
    assert_eq!(refused.code, Some(1));
    for part in ["was made by Postgres 13", "DIVVY_PG_BINDIR", "divvy db reset"] {
        assert!(refused.err.contains(part), "{part:?} is missing in: {}", refused.err);
    }
    fs::write(&version, real).unwrap();
    assert_eq!(home.ask("select count(*) from kept"), "0");
}
