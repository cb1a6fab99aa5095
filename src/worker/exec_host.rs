//! The worker of types whose command is declared in the database.
//!
//! Whoever may declare a type then says what runs here, so nothing does unless the one who starts the worker names a
//! folder: programs are taken from there and from nowhere else, and there is no shell between.

use super::generations::{self, Prepared, Source};
use super::{Exec, Summary, Worker};
use crate::Result;
use crate::store::exec_type::{ExecType, exec_types};
use crate::store::pool;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Serves every type whose handler is a command of one folder.
#[derive(Debug)]
pub struct ExecHost {
    pool: PgPool,
    direct: PgConnectOptions,
    folder: PathBuf,
    slots: usize,
    grace: Duration,
    kill_after: Option<Duration>,
    only: Option<Vec<String>>,
}

impl ExecHost {
    /// A host that claims through `pool` and runs up to `slots` splits of each type at once, by programs in `folder`.
    /// `direct` leads past any pooler, for listening.
    pub fn new(pool: PgPool, direct: PgConnectOptions, folder: PathBuf, slots: usize) -> Self {
        Self { pool, direct, folder, slots, grace: Duration::from_secs(30), kill_after: None, only: None }
    }

    /// Serves these types alone; others wait for somebody else. Default: all types whose handler is a command.
    #[must_use]
    pub fn only(mut self, task_types: Vec<String>) -> Self {
        self.only = Some(task_types);
        self
    }

    /// How long what has begun may take after a stop. Default 30 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// As [`Exec::kill_after`].
    #[must_use]
    pub fn kill_after(mut self, kill_after: Duration) -> Self {
        self.kill_after = Some(kill_after);
        self
    }

    /// Serves until `stop`, or until an operator terminates its worker. Trouble with the database or a type never ends
    /// it.
    pub async fn run(self, stop: CancellationToken) -> Summary {
        generations::serve(&self, stop).await
    }

    fn exec(&self, declared: &ExecType) -> Result<Exec> {
        let exec = Exec::new(&declared.command)?.inside(&self.folder)?;
        let exec = exec.long_lived(declared.lines).phases(declared.plan, declared.reduce);
        Ok(match self.kill_after {
            Some(kill_after) => exec.kill_after(kill_after),
            None => exec,
        })
    }
}

impl Source for ExecHost {
    type Types = Vec<ExecType>;
    const WHAT: &'static str = "types with a command";

    async fn types(&self) -> Result<Vec<ExecType>> {
        let mut types = exec_types(&self.pool).await?;
        types.retain(|declared| self.only.as_ref().is_none_or(|only| only.contains(&declared.name)));
        Ok(types)
    }

    /// A worker for those of `types` whose program is in the folder.
    async fn prepare(&self, types: &Vec<ExecType>) -> Prepared {
        let mut builder = Worker::builder(self.pool.clone())
            .name(format!("commands of process {}", std::process::id()))
            .grace(self.grace)
            .listen_through(pool::options().max_connections(1).connect_lazy_with(self.direct.clone()));
        let mut served = 0;
        for declared in types {
            match self.exec(declared) {
                Ok(exec) => {
                    builder = builder.exec(&declared.name, exec).slots(self.slots);
                    served += 1;
                }
                Err(error) => tracing::warn!(
                    task_type = declared.name, %error, "the tasks of type {} wait: {error}", declared.name
                ),
            }
        }
        Prepared {
            builder: (served > 0).then_some(builder),
            refused: served < types.len(),
            pools: Vec::new(),
        }
    }
}
