//! Types whose command is declared in the database.
//!
//! Whoever may declare a type then says what runs here, so nothing does unless the one who starts the worker names a
//! folder: programs are taken from there and from nowhere else, and there is no shell between.

use super::{Added, Common, Kind, waits};
use crate::Result;
use crate::store::exec_type::{ExecType, exec_types};
use crate::worker::{Builder, Exec};
use std::path::PathBuf;
use std::time::Duration;

/// Runs commands of one folder.
#[derive(Debug)]
pub(super) struct Commands {
    folder: PathBuf,
    slots: usize,
    kill_after: Option<Duration>,
}

impl Commands {
    pub(super) fn new(folder: PathBuf, slots: usize) -> Self {
        Self { folder, slots, kill_after: None }
    }

    pub(super) fn kill_after(mut self, kill_after: Duration) -> Self {
        self.kill_after = Some(kill_after);
        self
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

impl Kind for Commands {
    type Types = Vec<ExecType>;
    const WHAT: &'static str = "types with a command";
    const NAME: &'static str = "commands";

    async fn types(&self, common: &Common) -> Result<Vec<ExecType>> {
        let mut types = exec_types(&common.pool).await?;
        types.retain(|declared| common.wants(&declared.name));
        Ok(types)
    }

    /// Those whose program is in the folder.
    async fn add(&self, types: &Vec<ExecType>, mut builder: Builder) -> Added {
        let mut served = 0;
        for declared in types {
            match self.exec(declared) {
                Ok(exec) => {
                    builder = builder.exec(&declared.name, exec).slots(self.slots);
                    served += 1;
                }
                Err(error) => waits(&declared.name, &error),
            }
        }
        Added { builder, served, refused: served < types.len(), pools: Vec::new() }
    }
}
