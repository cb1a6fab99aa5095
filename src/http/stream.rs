//! How far a task is, as it changes: server-sent events.

use super::call::{Answer, Call};
use super::flow::flow;
use super::problem::Problem;
use super::route::Nothing;
use crate::apart;
use crate::store::overview::{self, Progress};
use axum::body::Bytes;
use std::time::Duration;
use tokio::time::Instant;

/// The pause between two looks; a look counts the task's splits.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Something is said at least so often, so that a reader that has gone is noticed.
const SILENT_MAX: Duration = Duration::from_secs(15);

/// Events `progress` as it changes, the last of them `end`.
pub(super) async fn progress(call: Call, _: Nothing) -> Result<Answer<String>, Problem> {
    let id = call.task()?;
    let (api, who) = (call.api.clone(), call.who.clone());
    let room = api.streams.clone().try_acquire_owned();
    let room = room.map_err(|_| Problem::unavailable("as many streams are open as this service has"))?;
    let found = call.look(move |c| Box::pin(overview::progress(c, id))).await?;
    let mut found = found.ok_or_else(|| Problem::unknown("task", &id.to_string()))?;
    let (sender, body) = flow();
    apart::spawn(async move {
        let _room = room;
        let mut said: Option<(Progress, Instant)> = None;
        loop {
            let ended = found.status.is_final();
            let piece = match &said {
                Some((before, _)) if *before == found && !ended => None,
                _ => Some(event(if ended { "end" } else { "progress" }, &found)),
            };
            let silent = said.as_ref().is_some_and(|(_, at)| at.elapsed() > SILENT_MAX);
            if let Some(piece) = piece.or_else(|| silent.then(|| Bytes::from_static(b": still here\n\n"))) {
                said = Some((found.clone(), Instant::now()));
                if sender.send(piece).await.is_err() || ended {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = sender.closed() => return,
                () = api.stop.cancelled() => return,
            }
            // The reader comes again by itself, where it may: that is what such streams are for.
            if api.tokens.still_good(&who).await.is_err() {
                return;
            }
            let within = api.patience.database;
            let look = api.store.bounded(within, move |c| Box::pin(overview::progress(c, id))).await;
            match look {
                Ok(Some(now)) => found = now,
                Ok(None) => return,
                Err(error) => return tracing::debug!(%error, "a stream ended"),
            }
        }
    });
    Ok(Answer::flowing("text/event-stream", body))
}

fn event(name: &str, progress: &Progress) -> Bytes {
    let data = serde_json::to_string(progress).unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}
