//! The handler of a command that lives long. One process at a time; a new one when it has ended.

use super::process::{Process, Reply};
use super::{Answer, Exec};
use crate::handler::said::Said;
use crate::handler::{Context, Erased, HandlerError, Running};
use crate::store::state::Phase;
use crate::worker::backoff::Backoff;
use crate::worker::foreign::{Calls, Request, Shares, inputs};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// The handler.
pub(super) struct Lines {
    exec: Exec,
    current: Mutex<Current>,
    ending: TaskTracker,
}

/// The process, and how long to wait before the next one when it ended without an answer.
struct Current {
    process: Option<Arc<Process>>,
    backoff: Backoff,
}

/// One question. Dropped before it was answered (its time is over, or the worker's grace), it ends the process: a
/// process that is busy hears nothing.
struct Question {
    process: Arc<Process>,
    id: u64,
    replies: mpsc::Receiver<Reply>,
    is_over: bool,
}

impl Lines {
    pub(super) fn new(exec: Exec) -> Self {
        let current = Mutex::new(Current { process: None, backoff: Backoff::new() });
        Self { exec, current, ending: TaskTracker::new() }
    }

    /// The process, started if there is none.
    async fn process(&self, task_type: &str) -> Result<Arc<Process>, HandlerError> {
        let mut current = self.current.lock().await;
        if let Some(process) = &current.process {
            match process.gone() {
                None => return Ok(process.clone()),
                Some((_, true)) => current.backoff.reset(),
                // Whoever asks meanwhile waits here, too.
                Some((_, false)) => {
                    let pause = current.backoff.next();
                    tokio::time::sleep(pause).await;
                }
            }
        }
        let started = Process::start(&self.exec, task_type, &self.ending);
        let process = Arc::new(started.map_err(|error| self.exec.cannot_run(&error))?);
        current.process = Some(process.clone());
        Ok(process)
    }

    async fn ask(&self, context: &Context<'_>, inputs: &[u8]) -> Result<Question, HandlerError> {
        loop {
            let process = self.process(context.task_type()).await?;
            let asked = process.ask(|id| {
                let mut line = Request::new(context.claimed(), Some(id)).line()?;
                line.extend_from_slice(inputs);
                Ok(line)
            })?;
            if let Some((id, replies)) = asked {
                return Ok(Question { process, id, replies, is_over: false });
            }
        }
    }

    async fn attempt(&self, context: &Context<'_>) -> Answer {
        let calls = Calls::of(context)?;
        let inputs = match context.phase() {
            Phase::Reduce => inputs(&calls).await?,
            _ => Vec::new(),
        };
        let mut question = self.ask(context, &inputs).await?;
        let cancelled = context.cancellation();
        let mut shares = Shares::new(calls);
        loop {
            let reply = tokio::select! {
                reply = question.replies.recv() => reply,
                () = cancelled.cancelled() => return self.cancelled(question).await,
            };
            let Some(mut reply) = reply else {
                question.is_over = true;
                let (how, _) = question.process.gone().unwrap_or_default();
                let message = format!("the process of {} ended before it answered: {how}", self.exec);
                return Err(HandlerError::new(message).class("process"));
            };
            question.is_over = !reply.more;
            for share in reply.splits.take().unwrap_or_default() {
                if let Err(error) = shares.add(&share).await {
                    question.give_up();
                    return Err(error.into());
                }
            }
            if question.is_over {
                shares.store().await?;
                return answer(reply);
            }
        }
    }

    /// Says so, and leaves a moment to clean up.
    async fn cancelled(&self, mut question: Question) -> Answer {
        question.process.cancel(question.id);
        let answered = async { while question.replies.recv().await.is_some_and(|reply| reply.more) {} };
        let _ = timeout(self.exec.kill_after, answered).await;
        question.give_up();
        Err(HandlerError::new("cancelled").class("cancelled"))
    }
}

impl Question {
    /// Waits no more, and lets the process go on.
    fn give_up(&mut self) {
        self.is_over = true;
        self.process.forget(self.id);
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.is_over {
            self.process.forget(self.id);
            self.process.end();
        }
    }
}

fn answer(reply: Reply) -> Answer {
    let Reply { result, snooze, stop, fail, .. } = reply;
    Said { result, splits: None, snooze, stop, fail }.answer()
}

impl Erased for Lines {
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
            // Its stdin is closed with this, which is how it hears that nothing more comes.
            let process = self.current.lock().await.process.take();
            self.ending.close();
            let kill = process.as_ref().map(|process| process.killer());
            drop(process);
            if timeout(self.exec.kill_after, self.ending.wait()).await.is_err() {
                if let Some(kill) = kill {
                    kill.cancel();
                }
                self.ending.wait().await;
            }
        })
    }
}
