//! Inserts while workers work: as fast as they keep up, or at a rate.

use super::calls::Calls;
use super::floor::Design;
use super::payload::payload;
use super::pick_up::Arrivals;
use crate::store::connect;
use anyhow::{Context, Result};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Rows of one insert.
const CHUNK: usize = 500;
/// When enough is ready.
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// At a rate: rows whose moment has come are inserted together, so often at most.
const RATED_PAUSE: Duration = Duration::from_millis(1);

const INTO_DIVVY: &str = "insert into divvy.task (task_type, payload)
    select ($2::text[])[1 + n % cardinality($2::text[])], p::jsonb from unnest($1::text[]) with ordinality as x (p, n)";

/// Where rows go.
#[derive(Clone)]
pub enum Into {
    /// To these types.
    Divvy(Vec<String>),
    /// To the floor's table.
    Floor(Design),
}

/// Makes work until it is stopped.
pub struct Producer {
    /// Where to.
    pub into: Into,
    /// The size of a payload.
    pub bytes: usize,
    /// Told of each insert.
    pub arrivals: Arc<Arrivals>,
    /// How many rows there are.
    pub inserted: Arc<AtomicU64>,
    /// How many are done.
    pub calls: Arc<Calls>,
    /// No more than this are left undone; without a rate.
    pub depth: u64,
    /// Rows a second.
    pub rate: Option<f64>,
    /// Ends it.
    pub stop: CancellationToken,
}

impl Producer {
    /// Inserts on a connection of its own.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn run(self, options: PgConnectOptions) -> Result<()> {
        let mut connection = connect::connect(&options).await?;
        match self.rate {
            Some(rate) => self.at(rate, &mut connection).await,
            None => self.bounded(&mut connection).await,
        }
        .context("the producer")
    }

    async fn bounded(&self, connection: &mut PgConnection) -> Result<()> {
        let mut insert = 0;
        while !self.stop.is_cancelled() {
            if self.inserted.load(Ordering::Relaxed).saturating_sub(self.calls.so_far()) >= self.depth {
                tokio::time::sleep(FULL_PAUSE).await;
                continue;
            }
            insert += 1;
            let one = payload(insert, self.arrivals.now(), self.bytes);
            self.insert(connection, insert, &vec![one.as_str(); CHUNK]).await?;
        }
        Ok(())
    }

    /// Each row has a moment of its own, also when the database holds the insert up.
    async fn at(&self, rate: f64, connection: &mut PgConnection) -> Result<()> {
        let began = self.arrivals.now();
        let (mut made, mut insert) = (0u64, 0);
        while !self.stop.is_cancelled() {
            let due = ((self.arrivals.now() - began) as f64 / 1e6 * rate) as u64;
            if due <= made {
                tokio::time::sleep(RATED_PAUSE).await;
                continue;
            }
            insert += 1;
            let until = due.min(made + CHUNK as u64);
            let moment = |row: u64| began + (row as f64 / rate * 1e6) as u64;
            let rows: Vec<String> =
                (made..until).map(|row| payload(insert, moment(row), self.bytes)).collect();
            self.insert(connection, insert, &rows.iter().map(String::as_str).collect::<Vec<_>>()).await?;
            made = until;
        }
        Ok(())
    }

    async fn insert(&self, connection: &mut PgConnection, insert: u64, rows: &[&str]) -> Result<()> {
        self.arrivals.begin(insert);
        match &self.into {
            Into::Divvy(types) => sqlx::query(INTO_DIVVY).bind(rows).bind(types).execute(connection).await?,
            Into::Floor(design) => sqlx::query(design.part("enqueue")).bind(rows).execute(connection).await?,
        };
        self.arrivals.committed(insert);
        self.inserted.fetch_add(rows.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}
