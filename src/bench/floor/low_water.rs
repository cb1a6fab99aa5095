//! The mark of a design that claims from a position: below it nothing can become ready any more.

use super::{Design, SESSION, State};
use crate::store::connect;
use anyhow::Result;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Executor, PgConnection};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two moves of the mark.
const EVERY: Duration = Duration::from_millis(100);
/// Between two looks whether those are gone that were writing.
const LOOK: Duration = Duration::from_millis(20);

/// Moves the mark until the state says that it is over: an id is noted with everybody who writes just then; when they are
/// gone, a new statement sees all that lies below.
///
/// # Errors
/// When the database refuses.
pub(super) async fn advance(design: Design, options: PgConnectOptions, state: Arc<State>) -> Result<()> {
    let mut connection = connect::connect(&options).await?;
    connection.execute(SESSION).await?;
    let mut mark = 0i64;
    loop {
        tokio::time::sleep(EVERY).await;
        let last: i64 = sqlx::query_scalar(design.part("last")).fetch_one(&mut connection).await?;
        let mut writing = writers(&design, &mut connection).await?;
        while !writing.is_empty() {
            if state.is_over() {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
            let now = writers(&design, &mut connection).await?;
            writing.retain(|writer| now.contains(writer));
        }
        if state.is_over() {
            return Ok(());
        }
        let moved: i64 =
            sqlx::query_scalar(design.part("mark")).bind(mark).bind(last).fetch_one(&mut connection).await?;
        mark = mark.max(moved);
        state.mark.store(mark, Ordering::Relaxed);
    }
}

async fn writers(design: &Design, connection: &mut PgConnection) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(design.part("writers")).fetch_all(connection).await?)
}
