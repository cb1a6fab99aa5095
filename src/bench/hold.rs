//! What a forgotten session does to a database: it holds a snapshot, so that no dead row may go.

use crate::store::connect;
use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection};

/// What is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An idle REPEATABLE READ transaction that has read.
    Snapshot,
    /// The same with a transaction id, as if it had written.
    Transaction,
}

impl Kind {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Transaction => "transaction",
        }
    }
}

/// It is held as long as this is there.
pub struct Hold {
    connection: PgConnection,
}

impl Hold {
    /// Begins on a connection of its own.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn begin(kind: Kind, options: &PgConnectOptions) -> Result<Self> {
        let mut connection = connect::connect(options).await?;
        connection
            .execute(match kind {
                Kind::Snapshot => "begin isolation level repeatable read; select 1",
                Kind::Transaction => {
                    "begin isolation level repeatable read; select pg_catalog.pg_current_xact_id()"
                }
            })
            .await
            .with_context(|| format!("holding a {}", kind.name()))?;
        Ok(Self { connection })
    }

    /// Lets go.
    ///
    /// # Errors
    /// When the connection was lost: then nothing was held any more.
    pub async fn end(mut self) -> Result<()> {
        self.connection.execute("commit").await.context("the held transaction was lost")?;
        Ok(self.connection.close().await?)
    }
}
