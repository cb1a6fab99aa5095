//! What was measured on: the server, its settings, the machine.

use super::cpu::Cpu;
use serde::Serialize;
use sqlx::{PgConnection, Row};
use std::fs;
use std::path::Path;

/// What a figure depends on.
#[derive(Debug, Clone, Serialize)]
pub struct Server {
    /// Such as `15.18`.
    pub version: String,
    /// A setting of the server.
    pub fsync: String,
    /// A setting of the server.
    pub synchronous_commit: String,
    /// A setting of the server.
    pub full_page_writes: String,
    /// A setting of the server.
    pub shared_buffers: String,
    /// A setting of the server.
    pub max_wal_size: String,
    /// The kind of file system its data is on; `unknown` where that can't be seen from here.
    pub file_system: String,
    /// Whether it runs on this machine: only then is its CPU time known.
    pub local: bool,
    /// Clients of others, in any of its databases, when the run began: what they do shows in the figures.
    pub other_clients: i64,
    /// Cores of this machine.
    pub cores: usize,
    /// This program's version.
    pub divvy: &'static str,
    /// When the run began, by the server's clock.
    pub date: String,
}

const UNKNOWN: &str = "unknown";

impl Server {
    /// Asks.
    ///
    /// # Errors
    /// When the database is lost.
    pub async fn look(connection: &mut PgConnection, cpu: &Cpu) -> sqlx::Result<Self> {
        let row = sqlx::query(include_str!("server.sql")).fetch_one(connection).await?;
        let text = |at: usize| row.try_get::<String, _>(at);
        let folder: Option<String> = row.try_get(7)?;
        let file_system = match (cpu.is_local(), &folder) {
            (true, Some(folder)) => file_system(Path::new(folder)),
            _ => None,
        };
        Ok(Self {
            // "15.18 (Debian 15.18-0+deb12u1)" → "15.18"
            version: text(0)?.split(' ').next().unwrap_or_default().to_owned(),
            fsync: text(1)?,
            synchronous_commit: text(2)?,
            full_page_writes: text(3)?,
            shared_buffers: text(4)?,
            max_wal_size: text(5)?,
            file_system: file_system.unwrap_or_else(|| UNKNOWN.to_owned()),
            local: cpu.is_local(),
            other_clients: row.try_get(8)?,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            divvy: env!("CARGO_PKG_VERSION"),
            date: text(6)?,
        })
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let Self { version, fsync, synchronous_commit, full_page_writes, .. } = self;
        let cpu = if self.local { "" } else { ", on another machine" };
        let mut lines = vec![
            format!(
                "Postgres {version}{cpu}; fsync {fsync}, synchronous_commit {synchronous_commit}, \
                 full_page_writes {full_page_writes}"
            ),
            format!(
                "shared_buffers {}, max_wal_size {}, on {}; {} cores; divvy {}",
                self.shared_buffers, self.max_wal_size, self.file_system, self.cores, self.divvy
            ),
        ];
        if self.other_clients > 0 {
            let others = self.other_clients;
            lines.push(format!(
                "others had {others} connections to this server: their CPU time is counted, too"
            ));
        }
        lines
    }
}

/// The file system that holds `folder`: the mount point that is the longest beginning of it.
fn file_system(folder: &Path) -> Option<String> {
    // A server in a container names a folder that is not here.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    of_mounts(&fs::read_to_string("/proc/mounts").ok()?, &folder)
}

fn of_mounts(mounts: &str, folder: &Path) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let &[_, point, kind, ..] = words.as_slice() else { continue };
        let point = point.replace("\\040", " ");
        // Of two mounts at one point the later is the one that is seen.
        if folder.starts_with(&point) && best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), kind));
        }
    }
    best.map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_on_the_longest_mount_that_holds_it() {
        let mounts =
            "/dev/a / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n/dev/b /srv/my\\040data xfs rw 0 0\n";
        let kind = |folder: &str| of_mounts(mounts, Path::new(folder)).unwrap();
        assert_eq!(kind("/dev/shm/pg"), "tmpfs");
        assert_eq!(kind("/dev/shmpg"), "ext4");
        assert_eq!(kind("/srv/my data/pg"), "xfs");
    }
}
