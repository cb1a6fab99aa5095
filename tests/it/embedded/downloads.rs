//! Binaries from the network, served here from loopback: real archives, made of this machine's Postgres.

use super::{Home, exists};
use crate::support::db::settings;
use crate::support::program::{ok, said};
use axum::Router;
use axum::http::{StatusCode, Uri};
use divvy::embedded::{Download, Embedded, Search};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// A web server with a few files; it remembers what was asked of it.
struct Mirror {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Mirror {
    async fn serve(files: HashMap<String, Vec<u8>>) -> Self {
        Self::serve_after(0, files).await
    }

    /// As one that is overloaded when the first `busy` questions come.
    async fn serve_after(busy: usize, files: HashMap<String, Vec<u8>>) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let answer = async move |uri: Uri| {
            let mut log = log.lock().unwrap();
            log.push(uri.path().to_owned());
            if log.len() <= busy {
                return Err(StatusCode::SERVICE_UNAVAILABLE);
            }
            files.get(uri.path()).cloned().ok_or(StatusCode::NOT_FOUND)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The archive's path below a mirror.
fn path() -> String {
    format!("/17.9.0/postgresql-17.9.0-{}.tar.gz", target_tuple::TARGET)
}

/// This machine's server programs as such an archive: one folder with `bin` and `lib`.
fn archive() -> Vec<u8> {
    let found =
        Search::Machine.find(None, None).unwrap().expect("these tests need a Postgres on this machine");
    let real = found.dir.join("postgres").canonicalize().unwrap();
    let bin = real.parent().unwrap();
    let work = tempfile::tempdir().unwrap();
    let top = work.path().join("postgresql");
    for folder in ["bin", "lib"] {
        std::fs::create_dir_all(top.join(folder)).unwrap();
    }
    for program in ["postgres", "initdb"] {
        std::fs::copy(bin.join(program), top.join("bin").join(program)).unwrap();
    }
    for entry in std::fs::read_dir(bin.parent().unwrap().join("lib")).into_iter().flatten() {
        let file: PathBuf = entry.unwrap().path();
        if file.extension().is_some_and(|ending| ending == "so") {
            std::fs::copy(&file, top.join("lib").join(file.file_name().unwrap())).unwrap();
        }
    }
    let file = work.path().join("archive.tar.gz");
    let packed = Command::new("tar")
        .arg("-C")
        .arg(work.path())
        .arg("-czf")
        .arg(&file)
        .arg("postgresql")
        .status()
        .unwrap();
    assert!(packed.success());
    std::fs::read(file).unwrap()
}

fn checksum(archive: &[u8]) -> String {
    Sha256::digest(archive).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn files(archive: Vec<u8>, checksum: &str) -> HashMap<String, Vec<u8>> {
    let sum = format!("{checksum}  {}\n", path().rsplit('/').next().unwrap());
    HashMap::from([(format!("{}.sha256", path()), sum.into_bytes()), (path(), archive)])
}

fn downloading(home: &Home, url: &str, args: &[&str]) -> Command {
    let mut command = home.divvy(args);
    command
        .env_remove("DIVVY_PG_BINDIR")
        .env("DIVVY_PG_DOWNLOAD", "always")
        .env("DIVVY_PG_DOWNLOAD_URL", url);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn binaries_are_downloaded_once_checked_and_used() {
    let home = Home::new();
    let archive = archive();
    let checksum = checksum(&archive);
    let mirror = Mirror::serve(files(archive, &checksum)).await;
    for _ in 0..2 {
        ok(&mut downloading(&home, &mirror.address, &["db", "url"]));
        let program = std::fs::read_link(format!("/proc/{}/exe", home.server_pid().unwrap())).unwrap();
        assert!(
            program.starts_with(home.root().canonicalize().unwrap()),
            "{} is not the downloaded one",
            program.display()
        );
        ok(&mut home.divvy(&["db", "stop"]));
        home.until_gone().await;
    }
    assert_eq!(mirror.asked(), [format!("{}.sha256", path()), path()], "the second start downloads nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_fails_is_tried_again() {
    let archive = archive();
    let checksum = checksum(&archive);
    for (busy, comes) in [(2, true), (3, false)] {
        let home = Home::new();
        let mirror = Mirror::serve_after(busy, files(archive.clone(), &checksum)).await;
        let said = said(&mut downloading(&home, &mirror.address, &["db", "url"]));
        assert_eq!(said.code == Some(0), comes, "{}", said.err);
        assert!(comes || said.err.contains("503"), "{}", said.err);
        assert_eq!(exists(&home.root().join("postgres-17.9.0")), comes);
        ok(&mut home.divvy(&["db", "stop"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_does_not_fit_its_checksum_is_not_used() {
    let home = Home::new();
    let mirror = Mirror::serve(files(b"something else".to_vec(), &"0".repeat(64))).await;
    // The address of the archive itself is understood too.
    let url = format!("{}{}", mirror.address, path());
    let refused = said(&mut downloading(&home, &url, &["db", "url"]));
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("its SHA-256 is"), "{}", refused.err);
    assert!(!exists(&home.root().join("postgres-17.9.0")) && !exists(&home.root().join("data")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_without_a_checksum_is_not_used() {
    let home = Home::new();
    let mirror = Mirror::serve(HashMap::from([(path(), b"unchecked".to_vec())])).await;
    let refused = said(&mut downloading(&home, &mirror.address, &["db", "url"]));
    assert!(refused.err.contains(".sha256") && refused.err.contains("404"), "{}", refused.err);
    assert_eq!(mirror.asked(), [format!("{}.sha256", path())]);
}

#[test]
fn without_binaries_and_network_the_three_ways_out_are_told() {
    let home = Home::new();
    let refused = said(&mut downloading(&home, "http://127.0.0.1:1/", &["db", "url"]));
    assert_eq!(refused.code, Some(1));
    for part in [
        "Connection refused",
        "DATABASE_URL",
        "apt install postgresql",
        "DIVVY_PG_BINDIR",
        "DIVVY_PG_DOWNLOAD_URL",
    ] {
        assert!(refused.err.contains(part), "{part:?} is missing in: {}", refused.err);
    }
}

#[tokio::test]
async fn where_no_download_is_allowed_the_message_says_so() {
    let home = Home::new();
    let mut mine = settings(home.root());
    (mine.search, mine.download) = (Search::Nowhere, Download::Never);
    let error = Embedded::start(&mine).await.unwrap_err().to_string();
    for part in ["DIVVY_PG_DOWNLOAD=never", "DATABASE_URL", "apt install postgresql"] {
        assert!(error.contains(part), "{part:?} is missing in: {error}");
    }
}

#[test]
fn a_variable_that_means_nothing_is_an_error() {
    let home = Home::new();
    let cases = [
        ("DIVVY_PG_DOWNLOAD", "sometimes"),
        ("DIVVY_PG_DOWNLOAD_URL", "ftp://x"),
        ("DIVVY_PG_BINDIR", "/nonexistent"),
    ];
    for (name, value) in cases {
        let refused = said(home.divvy(&["db", "url"]).env(name, value));
        assert!(
            refused.code == Some(2) && refused.err.contains(&format!("{name}={value}")),
            "{}",
            refused.err
        );
    }
}
