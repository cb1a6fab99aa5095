//! The layers, as a table: who may use whom. The table is the documentation; this test keeps it true.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PURE: &[&str] = &["apart", "error", "id", "in_sql", "jitter", "trigger", "webhook"];

/// Module → the modules of ours it may use, besides the pure ones (which use only one another).
/// Actors (worker, leader, http) never use one another: they meet in the database.
const MAY_USE: &[(&str, &[&str])] = &[
    ("apart", &[]),
    ("error", &[]),
    ("id", &[]),
    ("in_sql", &[]),
    ("jitter", &[]),
    ("trigger", &[]),
    ("webhook", &[]),
    ("store", &[]),
    ("handler", &["store"]),
    ("worker", &["handler", "store"]),
    ("leader", &["handler", "store"]),
    ("http", &["handler", "store"]),
    ("client", &["handler", "store"]),
    ("testing", &["client", "handler", "leader", "store", "worker"]),
    ("config", &["store"]),
    ("telemetry", &[]),
    ("embedded", &["store"]),
    ("bench", &["client", "handler", "store", "worker"]),
    ("demo", &["cli", "client", "config", "embedded", "handler", "leader", "store", "telemetry", "worker"]),
    (
        "cli",
        &[
            "bench",
            "client",
            "config",
            "demo",
            "embedded",
            "handler",
            "http",
            "leader",
            "store",
            "telemetry",
            "testing",
            "worker",
        ],
    ),
];

/// No file is longer: it would be two things.
const FILE_LINES_MAX: usize = 400;

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            files.extend(rust_files(&entry));
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            files.push(entry);
        }
    }
    files
}

/// The top module a file belongs to: `src/store/connect.rs` is `store`.
fn module(file: &Path) -> String {
    let inside = file.strip_prefix(package().join("src")).unwrap();
    inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The file's code, without comments.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The modules that `code` names as `crate::x`, `crate::{x, y::z}` or `divvy::x`.
fn used(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, start) in code.match_indices("crate::") {
        let rest = &code[at + start.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut items = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    c if depth == 0 => items.push(c),
                    _ => {}
                }
            }
            used.extend(items.split(',').map(first_word));
        } else {
            used.insert(first_word(rest));
        }
    }
    used.retain(|name| name.chars().next().is_some_and(|c| c.is_ascii_lowercase()));
    used
}

fn first_word(text: &str) -> String {
    text.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let mut wrong = Vec::new();
    for file in rust_files(&package().join("src")) {
        let from = module(&file);
        if from == "lib" || from == "main" {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(module, _)| *module == from) else {
            wrong.push(format!("{} is in no layer: add module {from} to MAY_USE", file.display()));
            continue;
        };
        for to in used(&code(&file)) {
            if to != from && !PURE.contains(&to.as_str()) && !allowed.contains(&to.as_str()) {
                wrong.push(format!("{}: {from} -> {to}", file.display()));
            }
            if PURE.contains(&from.as_str()) && to != from && !PURE.contains(&to.as_str()) {
                wrong.push(format!("{}: {from} is pure and uses {to}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "not allowed:\n{}", wrong.join("\n"));
}

#[test]
fn only_the_store_speaks_sql() {
    let speaks = |code: &str| {
        ["sqlx::query", "sqlx::raw_sql", "sea_query::", "QueryBuilder"].iter().any(|word| code.contains(word))
    };
    let files = rust_files(&package().join("src"));
    let wrong: Vec<_> = files
        .iter()
        .filter(|file| !["store", "demo", "bench"].contains(&module(file).as_str()) && speaks(&code(file)))
        .collect();
    assert!(wrong.is_empty(), "SQL outside src/store: {wrong:?}");
}

#[test]
fn no_file_is_longer_than_the_limit() {
    let mut files = rust_files(&package().join("src"));
    files.extend(rust_files(&package().join("tests")));
    let long: Vec<_> = files
        .iter()
        .map(|file| (fs::read_to_string(file).unwrap().lines().count(), file))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(long.is_empty(), "longer than {FILE_LINES_MAX} lines: {long:?}");
}

#[test]
fn imports_in_every_form_are_seen() {
    let code = "use crate::store::x; use crate::{Error, worker::{A, B}, leader}; crate::http::serve(); crate::Result";
    assert_eq!(used(code).into_iter().collect::<Vec<_>>(), ["http", "leader", "store", "worker"]);
}
