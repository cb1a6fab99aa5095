//! CPU time of the server's processes and of this one: on a shared machine it says more than the clock on the wall.

use sqlx::PgPool;
use std::fs;

/// How often /proc is read again because a process of the server ended meanwhile.
const READS_MAX: usize = 20;

/// Where CPU time is read: from /proc, if the server runs on this machine.
#[derive(Debug, Clone)]
pub struct Cpu {
    postmaster: Option<u32>,
    ticks: f64,
}

/// Seconds of CPU; none where they can't be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    /// All processes of the server, also those that have ended.
    pub server: Option<f64>,
    /// This process.
    pub client: Option<f64>,
}

impl Used {
    /// What was used since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        let less = |now: Option<f64>, then: Option<f64>| Some((now? - then?).max(0.0));
        Self { server: less(self.server, earlier.server), client: less(self.client, earlier.client) }
    }
}

impl Cpu {
    /// Finds the server's processes, if they are here.
    ///
    /// # Errors
    /// When the database is lost.
    pub async fn new(pool: &PgPool) -> sqlx::Result<Self> {
        let mut connection = pool.acquire().await?;
        let backend: i32 =
            sqlx::query_scalar("select pg_catalog.pg_backend_pid()").fetch_one(&mut *connection).await?;
        // The backend's row must be read while it is there: the connection is still ours.
        let ours = u32::try_from(backend).ok().and_then(process).filter(|process| process.is_postgres);
        let postmaster = ours.map(|backend| backend.parent);
        let postmaster = postmaster.filter(|pid| process(*pid).is_some_and(|process| process.is_postgres));
        Ok(Self { postmaster, ticks: rustix::param::clock_ticks_per_second() as f64 })
    }

    /// Whether the server runs here.
    pub fn is_local(&self) -> bool {
        self.postmaster.is_some()
    }

    /// Seconds that a process of this machine has used.
    pub fn of(&self, pid: u32) -> Option<f64> {
        Some(process(pid)?.used as f64 / self.ticks)
    }

    /// What has been used so far.
    pub fn now(&self) -> Used {
        let client = process(std::process::id()).map(|own| own.used as f64 / self.ticks);
        let server = self.postmaster.and_then(server_ticks).map(|ticks| ticks as f64 / self.ticks);
        Used { server, client }
    }
}

/// A process that ends while the others are read is in nobody's sum, or in two: its parent says so by what its
/// ended children used, and then all are read again.
fn server_ticks(postmaster: u32) -> Option<u64> {
    let mut sum = None;
    for _ in 0..READS_MAX {
        let before = process(postmaster)?;
        let children: u64 = processes().filter(|one| one.parent == postmaster).map(|one| one.used).sum();
        let after = process(postmaster)?;
        sum = Some(after.used + after.ended_children + children);
        if before.ended_children == after.ended_children {
            break;
        }
    }
    sum
}

struct Process {
    parent: u32,
    /// In ticks, user and system.
    used: u64,
    /// What children that were waited for have used, theirs included.
    ended_children: u64,
    is_postgres: bool,
}

fn processes() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?))
}

fn process(pid: u32) -> Option<Process> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of /proc/…/stat. The name stands in parentheses and may hold anything.
fn parse(stat: &str) -> Option<Process> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
    let words: Vec<&str> = rest.split(' ').collect();
    let ticks = |at: usize| words.get(at)?.parse::<u64>().ok();
    Some(Process {
        parent: words.get(1)?.parse().ok()?,
        used: ticks(11)? + ticks(12)?,
        ended_children: ticks(13)? + ticks(14)?,
        is_postgres: name.starts_with("postgres") || name.starts_with("postmaster"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (postgres) (x) S 7 1 1 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7";
        let process = parse(stat).unwrap();
        assert_eq!((process.parent, process.used, process.ended_children), (7, 120, 7));
        assert!(process.is_postgres);
        assert!(parse("no stat line").is_none());
    }

    #[test]
    fn this_process_has_used_some() {
        assert!(process(std::process::id()).is_some_and(|own| own.parent > 0 && !own.is_postgres));
    }
}
