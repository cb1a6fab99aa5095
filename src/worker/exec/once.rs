//! A command that is started for each split: JSON on stdin, JSON on stdout, an exit code.

use super::group::{Group, Pipes};
use super::pipe::{Closing, Piece, piece};
use super::stderr::{LastLine, keep};
use super::variables::set_variables;
use super::verdict::of_exit;
use super::{Answer, Exec, RESULT_BYTES_MAX, SHARE_BYTES_MAX};
use crate::handler::said::{garbage, no_json};
use crate::handler::{Context, Erased, HandlerError, Running};
use crate::store::state::Phase;
use crate::worker::foreign::{Calls, Inputs, Request, Shares};
use serde_json::value::RawValue;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

type Stdout = Closing<ChildStdout>;

/// How long the pipes may stay open when the command has ended: somebody outside its group holds them.
const PIPES_WITHIN: Duration = Duration::from_secs(2);

/// The handler.
pub(super) struct Once {
    exec: Exec,
    ending: TaskTracker,
}

impl Once {
    pub(super) fn new(exec: Exec) -> Self {
        Self { exec, ending: TaskTracker::new() }
    }

    async fn attempt(&self, context: &Context<'_>) -> Answer {
        let mut command = self.exec.command();
        set_variables(&mut command, context);
        let started = Group::start(command, self.exec.kill_after, &self.ending);
        let (mut group, (stdin, stdout, stderr)): (Group, Pipes) =
            started.map_err(|error| self.exec.cannot_run(&error))?;
        let calls = Calls::of(context)?;
        let (closing, last) = (CancellationToken::new(), LastLine::default());
        let (stdout, stderr) = (Closing::new(stdout, &closing), Closing::new(stderr, &closing));
        let plans = context.phase() == Phase::Plan;
        let feeding = async {
            tokio::select! {
                fed = feed(stdin, context, &calls) => fed,
                () = closing.cancelled() => Ok(()),
            }
        };
        let listening = async {
            match plans {
                true => read_shares(stdout, Shares::new(calls.clone())).await.map(|()| Vec::new()),
                false => read_result(stdout).await,
            }
        };
        let noting = async { keep(stderr, &calls, &last).await.map_err(HandlerError::from) };
        let mut talk = pin!(async { tokio::try_join!(listening, feeding, noting).map(|(said, ..)| said) });
        let mut said = None;
        let cancelled = context.cancellation();
        let status = loop {
            tokio::select! {
                done = &mut talk, if said.is_none() => match done {
                    Ok(all) => said = Some(all),
                    Err(error) => {
                        group.kill().await;
                        return Err(error);
                    }
                },
                status = group.ended() => break status?,
                () = cancelled.cancelled() => {
                    group.stop().await;
                    return Err(HandlerError::new("cancelled").class("cancelled"));
                }
            }
        };
        let said = match said {
            Some(said) => said,
            // What it said is in the pipes and has an end, unless somebody outside its group holds them.
            None => tokio::select! {
                said = &mut talk => said?,
                () = tokio::time::sleep(PIPES_WITHIN) => {
                    closing.cancel();
                    talk.await?
                }
            },
        };
        of_exit(status, &said, &last.get())
    }
}

impl Erased for Once {
    fn plans(&self) -> bool {
        self.exec.plans
    }

    fn reduces(&self) -> bool {
        self.exec.reduces
    }

    fn run<'a>(&'a self, context: &'a mut Context<'_>) -> Running<'a> {
        Box::pin(async { self.attempt(context).await.map(Into::into) })
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            self.ending.close();
            self.ending.wait().await;
        })
    }
}

/// Writes the request and closes stdin. A command need not read it.
async fn feed(mut stdin: ChildStdin, context: &Context<'_>, calls: &Calls) -> Result<(), HandlerError> {
    let mut line = Request::new(context.claimed(), None).line()?;
    if context.phase() == Phase::Reduce {
        let mut inputs = Inputs::new(calls);
        while inputs.add_to(&mut line).await? {
            if !is_read(stdin.write_all(&line).await)? {
                return Ok(());
            }
            line.clear();
        }
    }
    line.push(b'\n');
    is_read(stdin.write_all(&line).await)?;
    Ok(())
}

/// Whether somebody still reads.
fn is_read(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

async fn read_result(stdout: Stdout) -> Result<Vec<u8>, HandlerError> {
    let mut said = Vec::new();
    stdout.take(RESULT_BYTES_MAX as u64 + 1).read_to_end(&mut said).await?;
    if said.len() > RESULT_BYTES_MAX {
        return Err(garbage(format!("stdout has more than {RESULT_BYTES_MAX} bytes: no result may")));
    }
    Ok(said)
}

/// Each line is a share.
async fn read_shares(stdout: Stdout, mut shares: Shares) -> Result<(), HandlerError> {
    let mut stdout = BufReader::with_capacity(64 * 1024, stdout);
    let mut line = Vec::new();
    loop {
        match piece(&mut stdout, &mut line, SHARE_BYTES_MAX).await? {
            Piece::End => break,
            Piece::Part => {
                return Err(garbage(format!(
                    "a line on stdout has more than {SHARE_BYTES_MAX} bytes: no share may"
                )));
            }
            Piece::Line if line.trim_ascii().is_empty() => {}
            Piece::Line => {
                let share: &RawValue = serde_json::from_slice(&line)
                    .map_err(|error| no_json("stdout is not lines of JSON", &error, &line))?;
                shares.add(share).await?;
            }
        }
    }
    Ok(shares.store().await?)
}
