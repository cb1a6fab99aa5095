//! Commands as handlers: any program that reads JSON and writes JSON serves a type.
//!
//! A command is started for each split ([`once`]), or lives long and is given many splits line by line ([`lines`]). It
//! runs in a process group of its own ([`group`]), and what it says is read within bounds: garbage, a gigabyte, silence
//! and children that outlive it end its attempt, not the worker.

mod group;
mod lines;
mod once;
mod pipe;
mod process;
mod stderr;
mod variables;
mod verdict;

use crate::handler::{Erased, HandlerError, Outcome};
use crate::{Error, ErrorKind, Result};
use serde_json::value::RawValue;
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;

/// The most a command may say as its result: what the protocol takes.
const RESULT_BYTES_MAX: usize = 1024 * 1024;
/// The most a command may say as one share: what the protocol takes.
const SHARE_BYTES_MAX: usize = 256 * 1024;
/// How long a command that is asked to end may take, unless somebody says otherwise.
const KILL_AFTER: Duration = Duration::from_secs(5);

type Answer = std::result::Result<Outcome<Option<Box<RawValue>>>, HandlerError>;

/// A command that serves a type.
///
/// ```
/// use divvy::worker::Exec;
///
/// let exec = Exec::new("./thumb.sh --size '200 px'")?.phases(true, false);
/// assert_eq!(exec.to_string(), "./thumb.sh --size '200 px'");
/// # Ok::<_, divvy::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Exec {
    /// The program and its arguments.
    words: Vec<String>,
    long_lived: bool,
    plans: bool,
    reduces: bool,
    kill_after: Duration,
}

impl Exec {
    /// A command: words as in a shell, quoted where they have spaces. There is no shell: nothing else has a meaning.
    ///
    /// # Errors
    /// Config when there is no word, or a quote is open.
    pub fn new(command: &str) -> Result<Self> {
        let fault = |what: &str| Error::new(ErrorKind::Config, format!("the command {command:?} {what}"));
        let words = shlex::split(command).ok_or_else(|| fault("has a quote that is not closed"))?;
        match words.first() {
            None => return Err(fault("is empty")),
            Some(program) if program.is_empty() => return Err(fault("has no program")),
            Some(_) if command.contains('\0') => return Err(fault("has a NUL character")),
            Some(_) => {}
        }
        Ok(Self { words, long_lived: false, plans: false, reduces: false, kill_after: KILL_AFTER })
    }

    /// One process serves many splits, line by line, until it ends. Default: one process for each split.
    #[must_use]
    pub fn long_lived(mut self, long_lived: bool) -> Self {
        self.long_lived = long_lived;
        self
    }

    /// Which phases, besides execute, a type has that nobody has declared yet. A declared one has what it says.
    #[must_use]
    pub fn phases(mut self, plan: bool, reduce: bool) -> Self {
        (self.plans, self.reduces) = (plan, reduce);
        self
    }

    /// How long the command may take to end after SIGTERM, before SIGKILL. Default 5 s.
    #[must_use]
    pub fn kill_after(mut self, kill_after: Duration) -> Self {
        self.kill_after = kill_after;
        self
    }

    /// The same command with its program in `folder`, and nowhere else.
    ///
    /// # Errors
    /// Config when there is no such program in the folder.
    pub fn inside(mut self, folder: &Path) -> Result<Self> {
        let fault = |why: String| Error::new(ErrorKind::Config, why);
        let shown = folder.display();
        let home = folder.canonicalize().map_err(|error| fault(format!("the folder {shown}: {error}")))?;
        let program = home.join(&self.words[0]).canonicalize();
        let program = program.map_err(|error| fault(format!("{} in {shown}: {error}", self.words[0])))?;
        if !program.starts_with(&home) {
            return Err(fault(format!("{} is not in {shown}", self.words[0])));
        }
        let text = program.to_str().ok_or_else(|| fault(format!("{} is no text", program.display())))?;
        text.clone_into(&mut self.words[0]);
        self.check()?;
        Ok(self)
    }

    /// Looks whether the program is there.
    ///
    /// # Errors
    /// Config when it is not, or may not be run by anybody.
    pub fn check(&self) -> Result<()> {
        let program = Path::new(&self.words[0]);
        let found = match program.components().count() {
            1 if !self.words[0].contains('/') => {
                let folders = std::env::var_os("PATH").unwrap_or_default();
                std::env::split_paths(&folders)
                    .map(|folder| folder.join(program))
                    .find(|path| is_program(path))
            }
            _ => Some(program.to_owned()).filter(|path| is_program(path)),
        };
        match found {
            Some(_) => Ok(()),
            None => {
                let message = format!("there is no program {} (of the command {self})", program.display());
                Err(Error::new(ErrorKind::Config, message))
            }
        }
    }

    pub(super) fn handler(self) -> Arc<dyn Erased> {
        match self.long_lived {
            true => Arc::new(lines::Lines::new(self)),
            false => Arc::new(once::Once::new(self)),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command
    }

    fn cannot_run(&self, error: &io::Error) -> HandlerError {
        HandlerError::new(format!("{self} can't be started: {error}")).class("start")
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|there| there.is_file() && there.permissions().mode() & 0o111 != 0)
}

impl fmt::Display for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.words.iter().map(String::as_str);
        f.write_str(&shlex::try_join(words).unwrap_or_else(|_| self.words.join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_words_without_a_shell() {
        let exec = Exec::new("a 'b c' \"d\"; $e").unwrap();
        assert_eq!(exec.words, ["a", "b c", "d;", "$e"]);
        for (wrong, part) in
            [("", "is empty"), ("  ", "is empty"), ("'a", "not closed"), ("'' a", "has no program")]
        {
            assert!(Exec::new(wrong).unwrap_err().to_string().contains(part), "{wrong}");
        }
    }

    #[test]
    fn a_program_is_there_or_it_is_told() {
        Exec::new("sh -c true").unwrap().check().unwrap();
        Exec::new("/bin/sh").unwrap().check().unwrap();
        for missing in ["no-such-program-1 x", "./no-such-program-1", "/etc"] {
            let error = Exec::new(missing).unwrap().check().unwrap_err().to_string();
            assert!(error.starts_with("there is no program "), "{error}");
        }
    }

    #[test]
    fn a_program_outside_of_the_folder_is_refused() {
        let folder = Path::new("/bin");
        let inside = Exec::new("sh -c true").unwrap().inside(folder).unwrap();
        assert!(inside.words[0].ends_with("sh") && inside.words[0].starts_with('/'));
        for outside in ["/etc/passwd", "../etc/passwd", "no-such-program-1"] {
            assert!(Exec::new(outside).unwrap().inside(folder).is_err(), "{outside}");
        }
    }
}
