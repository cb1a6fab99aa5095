//! The floor: what hand-written SQL needs on the same server for the same splits. Every figure beside it is a ratio
//! that means the same on any machine.
//!
//! The statements are those of the prototype with which divvy's storage was designed, in `floor/*.sql`. They promise
//! nothing: what claims dies with its claims, what fails is lost.

mod low_water;

use super::calls::{Calls, Seen};
use super::figure::{Figure, Watch};
use super::payload::{Job, payload};
use super::report::Counts;
use super::screen::Progress;
use super::{Bench, load};
use crate::apart::boxed;
use crate::store::connect;
use anyhow::{Context, Result, ensure};
use sqlx::postgres::PgConnectOptions;
use sqlx::types::Json;
use sqlx::{Executor, PgConnection};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Plans that can't flip, as the prototype had them.
const SESSION: &str = "set enable_seqscan = off; set enable_bitmapscan = off; set enable_hashjoin = off; \
    set enable_mergejoin = off; set plan_cache_mode = force_generic_plan; set jit = off";
/// How often a claim that remembers its position looks again from the mark.
const REWIND_EVERY: Duration = Duration::from_secs(1);
/// When nothing was ready.
const EMPTY_PAUSE: Duration = Duration::from_millis(1);
/// Empty looks in a row after which the position is not believed.
const EMPTY_MOST: u32 = 20;

/// One way to do it.
#[derive(Debug, Clone, Copy)]
pub struct Design {
    /// Its name in the prototype.
    pub name: &'static str,
    parts: &'static str,
    /// Claims begin at a remembered position.
    position: bool,
    /// Claims take blocks.
    blocks: bool,
    /// The position goes back to a mark that somebody has to move.
    marks: bool,
}

/// One table, completed and claimed in one statement: the floor of single splits.
pub const S_FUSED: Design = Design {
    name: "s_fused",
    parts: include_str!("floor/s_fused.sql"),
    position: false,
    blocks: false,
    marks: false,
};
/// The same from a position: what stays flat while a snapshot is held.
pub const S_CTID_CUR: Design = Design {
    name: "s_ctid_cur",
    parts: include_str!("floor/s_ctid_cur.sql"),
    position: true,
    blocks: false,
    marks: true,
};
/// Blocks of splits that are never updated: the floor of a divided task.
pub const B_BLOCK_PK: Design = Design {
    name: "b_block_pk",
    parts: include_str!("floor/b_block_pk.sql"),
    position: true,
    blocks: true,
    marks: false,
};

/// How a design is driven.
#[derive(Debug, Clone, Copy)]
pub struct Drive {
    /// Splits of one claim.
    pub batch: i64,
    /// Connections that claim.
    pub connections: usize,
}

impl Drive {
    /// The best there is.
    pub const WIDE: Self = Self { batch: 100, connections: 2 };

    /// What compares with a worker of so many splits at once.
    pub fn beside(in_flight: usize) -> Self {
        match i64::try_from(in_flight) {
            Ok(batch) if batch < Self::WIDE.batch => Self { batch, connections: 4 },
            _ => Self::WIDE,
        }
    }

    /// For people.
    pub fn name(self, design: &Design) -> String {
        format!("floor {}, B={}, {} connections", design.name, self.batch, self.connections)
    }
}

impl Design {
    /// A statement of its file.
    ///
    /// # Panics
    /// When the file lacks it: a test asks for each.
    pub fn part(&self, name: &str) -> &'static str {
        let found = self.parts.split("-- part: ").skip(1).find_map(|part| {
            let (head, sql) = part.split_once('\n')?;
            (head.split(' ').next() == Some(name)).then_some(sql.trim())
        });
        found.unwrap_or_else(|| panic!("{} has no part {name}", self.name))
    }

    /// Its tables, empty.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn prepare(&self, connection: &mut PgConnection) -> Result<()> {
        connection.execute("set client_min_messages = warning").await?;
        sqlx::raw_sql(self.part("schema")).execute(connection).await.context("making the floor's tables")?;
        Ok(())
    }

    /// So many ready splits.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn fill(
        &self,
        connection: &mut PgConnection,
        count: u64,
        drive: Drive,
        bytes: usize,
    ) -> Result<()> {
        let query = sqlx::query(self.part("fill")).bind(i64::try_from(count)?).bind(payload(0, 0, bytes));
        let query = if self.blocks { query.bind(drive.batch) } else { query };
        query.execute(connection).await.context("filling the floor's tables")?;
        Ok(())
    }
}

/// What the connections of a design share.
#[derive(Default)]
pub struct State {
    /// Splits completed.
    pub done: Arc<Calls>,
    /// Told of each payload that is claimed.
    pub seen: Option<Seen>,
    /// Everything below is finished for good.
    pub mark: AtomicI64,
    /// Ends them.
    pub stop: CancellationToken,
    /// Or this many.
    pub target: Option<u64>,
}

impl State {
    fn is_over(&self) -> bool {
        self.stop.is_cancelled() || self.target.is_some_and(|target| self.done.so_far() >= target)
    }
}

/// Claims and completes on so many connections; each ends by itself when the state says that it is over.
pub fn start(
    design: Design,
    drive: Drive,
    options: &PgConnectOptions,
    state: &Arc<State>,
) -> JoinSet<Result<()>> {
    let mut connections = JoinSet::new();
    for _ in 0..drive.connections {
        connections.spawn(boxed(work(design, drive.batch, options.clone(), state.clone())));
    }
    if design.marks {
        connections.spawn(boxed(low_water::advance(design, options.clone(), state.clone())));
    }
    connections
}

/// Waits until all have ended.
///
/// # Errors
/// What the first one says that failed.
pub async fn join(mut connections: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = connections.join_next().await {
        ended.context("a connection of the floor broke")??;
    }
    Ok(())
}

async fn work(design: Design, batch: i64, options: PgConnectOptions, state: Arc<State>) -> Result<()> {
    let mut connection = connect::connect(&options).await?;
    connection.execute(SESSION).await?;
    let (next, complete) = (design.part("next"), design.part("complete"));
    let mut ids: Vec<i64> = Vec::new();
    let mut position = 0i64;
    let mut rewound = Instant::now();
    let mut empty = 0;
    while !state.is_over() {
        if rewound.elapsed() > REWIND_EVERY {
            rewound = Instant::now();
            position = state.mark.load(Ordering::Relaxed);
        }
        let query = sqlx::query_as::<_, (i64, Json<Job>)>(next).bind(&ids).bind(batch);
        let query = if design.position { query.bind(position) } else { query };
        let rows = match query.fetch_all(&mut connection).await {
            // What was to be completed still is, with the next call.
            Err(error) if is_deadlock(&error) => continue,
            rows => rows?,
        };
        state.done.add(ids.len() as u64);
        ids.clear();
        for (id, Json(job)) in rows {
            if let Some(seen) = &state.seen {
                seen(&job);
            }
            ids.push(id);
        }
        let (Some(least), Some(most)) = (ids.iter().min().copied(), ids.iter().max().copied()) else {
            empty += 1;
            if empty % EMPTY_MOST == 0 {
                position = state.mark.load(Ordering::Relaxed);
            }
            tokio::time::sleep(EMPTY_PAUSE).await;
            continue;
        };
        empty = 0;
        // Others may have claimed before and roll back: not so far ahead that theirs would be missed for long.
        position = least.max(most - 4 * batch);
        if design.blocks {
            ids.sort_unstable();
        }
    }
    while !ids.is_empty() {
        match sqlx::query(complete).bind(&ids).execute(&mut connection).await {
            Err(error) if is_deadlock(&error) => continue,
            completed => completed?,
        };
        state.done.add(ids.len() as u64);
        ids.clear();
    }
    Ok(())
}

/// The statement locks rows in two orders, so two of them may meet; the prototype tried again too.
fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "40P01")
}

/// One round: fills the tables, then claims and completes it all.
///
/// # Errors
/// When the database refuses, or what ended is not what was inserted.
pub async fn drain(bench: &Bench, design: Design, drive: Drive, count: u64) -> Result<Figure> {
    let (figure, counts) = counted(bench, design, drive, count).await?;
    ensure!(counts.agree(), "floor {}: {}", design.name, counts.line());
    Ok(figure)
}

/// The same with what was counted, which may disagree: inserted, ended as its tables have it, and completed as its
/// connections have counted.
///
/// # Errors
/// When the database refuses.
pub async fn counted(bench: &Bench, design: Design, drive: Drive, count: u64) -> Result<(Figure, Counts)> {
    let mut connection = connect::connect(&bench.direct).await?;
    design.prepare(&mut connection).await?;
    design.fill(&mut connection, count, drive, bench.payload_bytes).await?;
    sqlx::raw_sql(design.part("vacuum")).execute(&mut connection).await?;
    let state = Arc::new(State { target: Some(count), ..State::default() });
    let progress = Progress::new(&drive.name(&design), count);
    let watch = Watch::start(&bench.cpu);
    let connections = start(design, drive, &bench.direct, &state);
    tokio::select! {
        joined = join(connections) => joined?,
        stalled = state.done.watch(&progress) => return Err(stalled),
    }
    let figure = watch.read(count);
    let ended: i64 = sqlx::query_scalar(design.part("ended")).fetch_one(&mut connection).await?;
    load::drop_floor(&mut connection).await?;
    let (succeeded, handler_calls) = (u64::try_from(ended)?, state.done.so_far());
    Ok((figure, Counts { inserted: count, succeeded, handler_calls, left_ready: 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_design_has_every_statement_that_is_asked_for() {
        for design in [S_FUSED, S_CTID_CUR, B_BLOCK_PK] {
            for part in ["schema", "fill", "vacuum", "complete", "next", "ended"] {
                assert!(!design.part(part).is_empty(), "{} {part}", design.name);
                assert!(!design.part(part).contains("-- part"), "{} {part}", design.name);
            }
        }
        assert!(S_FUSED.part("claim").starts_with("update") && S_FUSED.part("enqueue").starts_with("insert"));
        for part in ["enqueue", "last", "writers", "mark"] {
            assert!(!S_CTID_CUR.part(part).is_empty(), "{part}");
        }
    }
}
