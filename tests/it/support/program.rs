//! The divvy program as a process.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The program with nothing of the surrounding configuration.
pub fn divvy(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_divvy"));
    for variable in
        ["DATABASE_URL", "DATABASE_DIRECT_URL", "DIVVY_DATA_DIR", "DIVVY_PG_DOWNLOAD_URL", "RUST_LOG"]
    {
        command.env_remove(variable);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// The program on the database at `url`.
pub fn divvy_on(url: &str, args: &[&str]) -> Command {
    let mut command = divvy(args);
    command.env("DATABASE_URL", url);
    command
}

/// What a program wrote to stdout and stderr, with its exit code.
pub struct Said {
    pub out: String,
    pub err: String,
    pub code: Option<i32>,
}

/// Runs it to its end.
pub fn said(command: &mut Command) -> Said {
    from(command.output().expect("running divvy"))
}

/// The same from an output already at hand.
pub fn from(output: Output) -> Said {
    Said {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code(),
    }
}

/// Runs it to its end, which must be a good one; what it wrote to stdout.
pub fn ok(command: &mut Command) -> String {
    let said = said(command);
    assert_eq!(said.code, Some(0), "{command:?} said: {}", said.err);
    said.out
}

/// A program of Postgres, such as pg_dump: the one beside the server, else the one on PATH.
pub fn postgres_program(name: &str) -> Command {
    let beside = divvy::embedded::program(&super::db::settings(PathBuf::from("/nonexistent")), name);
    Command::new(beside.unwrap_or_else(|| name.into()))
}
