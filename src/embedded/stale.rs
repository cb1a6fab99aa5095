//! A `postmaster.pid` left behind. Postgres removes one whose process is gone, but not one whose number
//! now belongs to a zombie (a container whose first process does not reap) or to another program.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The process named by the pid file in `data`, when it is this data folder's server and alive.
pub(super) fn live_postmaster(data: &Path) -> Option<i32> {
    let pid: i32 =
        fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()?;
    let alive = if has_proc() {
        works_in(format!("/proc/{pid}"), data)
    } else {
        rustix::process::Pid::from_raw(pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
    };
    alive.then_some(pid)
}

/// The pid file is certainly a leftover: its process does not work in `data`, and no other process does
/// (a backend that outlived its postmaster would, and must not get a second server beside it).
pub(super) fn is_stale(data: &Path) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    has_proc()
        && !processes.flatten().any(|process| {
            let number = process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
            number && works_in(process.path(), data)
        })
}

/// A server makes its data folder its working directory; a zombie has none.
fn works_in(process: impl AsRef<Path>, data: &Path) -> bool {
    let process = process.as_ref();
    match fs::read_link(process.join("cwd")) {
        Ok(here) => fs::canonicalize(data).is_ok_and(|data| data == here),
        // Root in a container without SYS_PTRACE may not look: then any living postgres of the folder's owner
        // counts, to be safe. One of another user's cannot be ours.
        Err(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            let owner = |path: &Path| fs::metadata(path).map(|meta| meta.uid()).ok();
            let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
            owner(process) == owner(data) && stat.contains("(postgres) ") && !stat.contains("(postgres) Z")
        }
        Err(_) => false,
    }
}

fn has_proc() -> bool {
    Path::new("/proc/self/cwd").exists()
}

/// Removes the leftovers of a server that is gone.
pub(super) fn remove(data: &Path, socket_dir: &Path) {
    for leftover in
        [data.join("postmaster.pid"), socket_dir.join(".s.PGSQL.5432"), socket_dir.join(".s.PGSQL.5432.lock")]
    {
        fs::remove_file(leftover).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper(here: &Path) -> Child {
        Command::new("sleep").arg("60").current_dir(here).spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_pid_file_is_stale_only_when_nobody_works_in_the_folder() {
        let (data, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let stranger = sleeper(elsewhere.path());
        fs::write(data.path().join("postmaster.pid"), format!("{}\n", stranger.id())).unwrap();
        assert_eq!(live_postmaster(data.path()), None, "another program has the number now");
        assert!(is_stale(data.path()));
        let backend = sleeper(data.path());
        assert!(!is_stale(data.path()), "a backend outlived its postmaster");
        fs::write(data.path().join("postmaster.pid"), format!("{}\n", backend.id())).unwrap();
        assert_eq!(live_postmaster(data.path()), i32::try_from(backend.id()).ok());
        end(backend);
        assert!(is_stale(data.path()));
        end(stranger);
    }

    #[test]
    fn a_zombie_is_not_a_live_server() {
        let data = tempfile::tempdir().unwrap();
        let mut zombie = sleeper(data.path());
        fs::write(data.path().join("postmaster.pid"), format!("{}\n", zombie.id())).unwrap();
        zombie.kill().unwrap();
        // Not reaped yet: wait until the kernel says Z.
        let stat = || fs::read_to_string(format!("/proc/{}/stat", zombie.id())).unwrap();
        while !stat().contains(") Z") {
            std::thread::yield_now();
        }
        assert_eq!(live_postmaster(data.path()), None);
        assert!(is_stale(data.path()));
        zombie.wait().unwrap();
    }
}
