//! A command that lives long: lines of JSON in, lines of JSON out, answers in any order.

use super::Exec;
use super::group::{Group, Pipes};
use super::pipe::{Piece, piece};
use super::stderr::LastLine;
use super::verdict::ended;
use crate::handler::said::{Fail, Snooze, Stop};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The longest line that a command may answer.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many lines are written at once.
const WRITE_LINES_MAX: usize = 256;
/// Parts of one answer that wait to be stored, before nothing more is read.
const PARTS_WAITING_MAX: usize = 4;
/// What goes from stderr into divvy's own log.
const LOG_LINES_A_SECOND: u32 = 100;
const LOG_LINE_BYTES_MAX: usize = 8 * 1024;
/// How long answers that were written before the end may take to be read.
const REST_WITHIN: Duration = Duration::from_secs(2);

/// One line of a command. One of the words after `more`, or nothing: then it is done, without a result.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reply {
    id: u64,
    pub(super) splits: Option<Vec<Box<RawValue>>>,
    /// There will be another line for this id.
    #[serde(default)]
    pub(super) more: bool,
    pub(super) result: Option<Box<RawValue>>,
    pub(super) snooze: Option<Snooze>,
    pub(super) stop: Option<Stop>,
    pub(super) fail: Option<Fail>,
}

/// A running process, from the side of those who ask it.
pub(super) struct Process {
    lines: mpsc::UnboundedSender<Vec<u8>>,
    asked: Arc<Mutex<Asked>>,
    kill: CancellationToken,
}

/// Who waits for which answer.
#[derive(Default)]
struct Asked {
    next: u64,
    waiting: HashMap<u64, mpsc::Sender<Reply>>,
    has_answered: bool,
    /// Why nobody answers any more.
    gone: Option<String>,
}

fn lock(asked: &Mutex<Asked>) -> MutexGuard<'_, Asked> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    /// Starts one; `ending` tracks it until it is gone.
    pub(super) fn start(exec: &Exec, task_type: &str, ending: &TaskTracker) -> io::Result<Self> {
        let mut command = exec.command();
        // A trace of divvy's own process is no task's.
        command.env("DIVVY_TASK_TYPE", task_type).env_remove("TRACEPARENT").env_remove("TRACESTATE");
        let (group, pipes) = Group::start(command, exec.kill_after, ending)?;
        let (lines, to_write) = mpsc::unbounded_channel();
        let process = Self { lines, asked: Arc::default(), kill: CancellationToken::new() };
        let watched =
            watch(group, pipes, to_write, process.asked.clone(), process.kill.clone(), exec.clone());
        ending.spawn(watched);
        Ok(process)
    }

    /// Asks; none when it is gone. `line` gets the id by which the answer will come.
    pub(super) fn ask(
        &self,
        line: impl FnOnce(u64) -> serde_json::Result<Vec<u8>>,
    ) -> serde_json::Result<Option<(u64, mpsc::Receiver<Reply>)>> {
        let (sender, replies) = mpsc::channel(PARTS_WAITING_MAX);
        let id = {
            let mut asked = lock(&self.asked);
            if asked.gone.is_some() {
                return Ok(None);
            }
            asked.next += 1;
            let id = asked.next;
            asked.waiting.insert(id, sender);
            id
        };
        let mut line = line(id).inspect_err(|_| self.forget(id))?;
        line.push(b'\n');
        // Where nobody writes any more, the process is gone, and says so to whoever waits.
        let _ = self.lines.send(line);
        Ok(Some((id, replies)))
    }

    /// Tells it that an answer is not wanted any more.
    pub(super) fn cancel(&self, id: u64) {
        let _ = self.lines.send(format!("{{\"cancel\":{id}}}\n").into_bytes());
    }

    /// A late answer counts for nothing.
    pub(super) fn forget(&self, id: u64) {
        lock(&self.asked).waiting.remove(&id);
    }

    /// Ends it: it doesn't answer.
    pub(super) fn end(&self) {
        self.kill.cancel();
    }

    /// What ends it, without keeping its stdin open.
    pub(super) fn killer(&self) -> CancellationToken {
        self.kill.clone()
    }

    /// Why it is gone, if it is, and whether it had ever answered.
    pub(super) fn gone(&self) -> Option<(String, bool)> {
        let asked = lock(&self.asked);
        asked.gone.clone().map(|why| (why, asked.has_answered))
    }
}

/// Feeds the process and hears it until it ends.
async fn watch(
    mut group: Group,
    (stdin, stdout, stderr): Pipes,
    lines: mpsc::UnboundedReceiver<Vec<u8>>,
    asked: Arc<Mutex<Asked>>,
    kill: CancellationToken,
    exec: Exec,
) {
    let last = LastLine::default();
    let mut writing = pin!(write(stdin, lines));
    let mut reading = pin!(read(stdout, &asked));
    let mut noting = pin!(relay(stderr, &exec, &last));
    let (mut written, mut noted) = (false, false);
    let (status, garbage) = loop {
        tokio::select! {
            heard = &mut reading => match heard {
                // It can't answer any more: most likely it is ending.
                Ok(()) => match timeout(exec.kill_after, group.ended()).await {
                    Ok(status) => break (status.ok(), None),
                    Err(_) => {
                        group.stop().await;
                        break (None, Some("it had closed its stdout".to_owned()));
                    }
                },
                Err(garbage) => {
                    group.kill().await;
                    break (None, Some(garbage));
                }
            },
            () = &mut writing, if !written => written = true,
            () = &mut noting, if !noted => noted = true,
            status = group.ended() => {
                // What it answered before it ended counts.
                let _ = timeout(REST_WITHIN, &mut reading).await;
                break (status.ok(), None);
            }
            () = kill.cancelled() => {
                group.stop().await;
                break (None, Some("it did not answer in time, and was ended".to_owned()));
            }
        }
    };
    // What it said last explains its end.
    if !noted {
        let _ = timeout(REST_WITHIN, noting).await;
    }
    let how = match (status, garbage) {
        (_, Some(garbage)) => garbage,
        (Some(status), None) => ended(status, &last.get()),
        (None, None) => "it is gone".to_owned(),
    };
    tracing::info!(command = %exec, "the process of {exec} has ended: {how}");
    let mut asked = lock(&asked);
    asked.gone = Some(how);
    asked.waiting.clear();
}

/// Writes lines, many at a time, until nobody asks any more or nobody reads; then stdin is closed.
async fn write(mut stdin: ChildStdin, mut lines: mpsc::UnboundedReceiver<Vec<u8>>) {
    let mut some = Vec::with_capacity(WRITE_LINES_MAX);
    while lines.recv_many(&mut some, WRITE_LINES_MAX).await > 0 {
        if stdin.write_all(&some.concat()).await.is_err() {
            return;
        }
        some.clear();
    }
}

/// Hands answers to those who wait. An error is what the process should not have said.
async fn read(stdout: ChildStdout, asked: &Mutex<Asked>) -> Result<(), String> {
    let mut stdout = BufReader::with_capacity(64 * 1024, stdout);
    let mut line = Vec::new();
    loop {
        match piece(&mut stdout, &mut line, LINE_BYTES_MAX).await {
            Ok(Piece::Line) => {}
            Ok(Piece::Part) => return Err(format!("a line on stdout has more than {LINE_BYTES_MAX} bytes")),
            Ok(Piece::End) => return Ok(()),
            Err(error) => return Err(format!("its stdout can't be read: {error}")),
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let reply: Reply = serde_json::from_slice(&line).map_err(|error| {
            let shown = String::from_utf8_lossy(&line[..line.len().min(200)]);
            format!("a line on stdout is no answer: {error}: {shown}")
        })?;
        let sender = {
            let mut asked = lock(asked);
            if reply.id == 0 || reply.id > asked.next {
                return Err(format!("it answers {}, which nobody has asked", reply.id));
            }
            asked.has_answered = true;
            match reply.more {
                true => asked.waiting.get(&reply.id).cloned(),
                false => asked.waiting.remove(&reply.id),
            }
        };
        // Who waits no more was cancelled meanwhile.
        if let Some(sender) = sender {
            let _ = sender.send(reply).await;
        }
    }
}

/// What it says on stderr belongs to no split in particular: it goes into divvy's own log.
async fn relay(stderr: ChildStderr, exec: &Exec, last: &LastLine) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    let (mut second, mut count, mut dropped) = (Instant::now(), 0, 0u64);
    while matches!(piece(&mut stderr, &mut line, LOG_LINE_BYTES_MAX).await, Ok(Piece::Line | Piece::Part)) {
        let text = String::from_utf8_lossy(&line);
        last.set(&text);
        if second.elapsed() >= Duration::from_secs(1) {
            if dropped > 0 {
                tracing::warn!(command = %exec, "{dropped} more lines on stderr in a second: {LOG_LINES_A_SECOND} are kept");
            }
            (second, count, dropped) = (Instant::now(), 0, 0);
        }
        count += 1;
        match count <= LOG_LINES_A_SECOND {
            true => tracing::info!(command = %exec, "{text}"),
            false => dropped += 1,
        }
    }
}
