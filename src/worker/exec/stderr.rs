//! What a command says on stderr: the first of it into the attempt's log, the last line for its error.

use super::pipe::{Piece, piece};
use crate::worker::foreign::Calls;
use std::io;
use std::sync::{Mutex, PoisonError};
use tokio::io::{AsyncRead, BufReader};
use tokio::sync::mpsc;

/// Lines of one attempt that are kept: what the protocol takes, less one for the word that there were more, and one that
/// the protocol keeps for the same.
const LINES_MAX: usize = 998;
/// And how many bytes of them.
const BYTES_MAX: usize = 256 * 1024;
/// The longest line the protocol takes; what is longer is broken.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// How much of the last line an error shows.
const LAST_BYTES_MAX: usize = 2 * 1024;

/// The last line that was not empty.
#[derive(Debug, Default)]
pub(super) struct LastLine(Mutex<String>);

impl LastLine {
    pub(super) fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, line: &str) {
        let line = line.trim();
        if !line.is_empty() {
            let end = line.floor_char_boundary(LAST_BYTES_MAX);
            line[..end].clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Reads to the end, whatever comes: a command that talks much must neither block nor fill the database.
pub(super) async fn keep(stderr: impl AsyncRead + Unpin, calls: &Calls, last: &LastLine) -> io::Result<()> {
    // Bounded by what is kept.
    let (lines, kept) = mpsc::unbounded_channel();
    let reading = async move {
        let read = read(stderr, &lines, last).await;
        drop(lines);
        read
    };
    let (read, ()) = tokio::join!(reading, store(kept, calls));
    read
}

async fn read(
    stderr: impl AsyncRead + Unpin,
    lines: &mpsc::UnboundedSender<String>,
    last: &LastLine,
) -> io::Result<()> {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    let (mut count, mut bytes, mut dropped) = (0, 0, 0u64);
    while piece(&mut stderr, &mut line, LINE_BYTES_MAX).await? != Piece::End {
        let text = String::from_utf8_lossy(&line).replace('\0', "?");
        last.set(&text);
        if count < LINES_MAX && bytes + line.len() <= BYTES_MAX {
            count += 1;
            bytes += line.len();
            let _ = lines.send(text);
        } else {
            (count, dropped) = (LINES_MAX, dropped + 1);
        }
    }
    if dropped > 0 {
        let more = format!(
            "{dropped} more lines on stderr: {LINES_MAX} lines or {BYTES_MAX} bytes of an attempt are kept"
        );
        let _ = lines.send(more);
    }
    Ok(())
}

/// What can't be stored is told once: the attempt goes on without its log.
async fn store(mut kept: mpsc::UnboundedReceiver<String>, calls: &Calls) {
    let mut lines = Vec::new();
    while kept.recv_many(&mut lines, LINES_MAX).await > 0 {
        if let Err(error) = calls.log(std::mem::take(&mut lines)).await {
            tracing::warn!(%error, "what a command says on stderr can't be stored: {error}");
            return;
        }
    }
}
