//! The papers say what is true: every block of them is run in order, and what they name exists.

mod agree;
mod blocks;
mod compose;
mod tour;

use crate::support::db::TestDb;
use blocks::{Block, blocks};
use std::fs;
use std::path::{Path, PathBuf};
use tour::Tour;

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the package.
fn read(file: &str) -> String {
    fs::read_to_string(package().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Every Markdown file, by its path in the package.
fn papers() -> Vec<String> {
    let mut folders = vec![package().join("docs")];
    let mut found = vec!["README.md".to_owned(), "sql/README.md".to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let (more, files): (Vec<PathBuf>, Vec<PathBuf>) =
            entries.map(|entry| entry.unwrap().path()).partition(|path| path.is_dir());
        folders.extend(more);
        found.extend(
            files
                .iter()
                .filter(|file| file.extension().is_some_and(|ending| ending == "md"))
                .map(|file| file.strip_prefix(package()).unwrap().display().to_string()),
        );
    }
    found.sort();
    found
}

fn blocks_of(file: &str) -> Vec<Block> {
    blocks(file, &read(file))
}

#[tokio::test]
async fn the_readme_runs_as_shown_in_an_empty_database() {
    let tour = Tour::new(TestDb::empty().await);
    tour.take(blocks_of("README.md")).await;
}

#[tokio::test]
async fn the_protocol_s_paper_runs_as_shown() {
    let tour = Tour::new(TestDb::new().await);
    tour.take(blocks_of("sql/README.md")).await;
}

#[tokio::test]
async fn every_other_paper_runs_as_shown() {
    for file in papers().iter().filter(|file| !file.ends_with("README.md")) {
        let blocks = blocks_of(file);
        if !blocks.is_empty() {
            Tour::new(TestDb::new().await).take(blocks).await;
        }
    }
}
