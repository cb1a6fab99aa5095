//! Calendars of working days: list, look, put, forget.

use super::auth::Scope;
use super::call::{Answer, Call};
use super::new_task::Text;
use super::page::List;
use super::problem::Problem;
use super::route::{Nothing, Route, delete, get, send};
use super::task_actions::{DONE, Done};
use crate::store::calendar::{self, CalendarRow, DateRow};
use axum::http::{Method, StatusCode};
use chrono::NaiveDate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;

/// The routes.
pub(super) fn routes() -> Vec<Route> {
    const LOOK: &[Scope] = &[Scope::Reader, Scope::Payloads, Scope::Operator];
    const ACT: &[Scope] = &[Scope::Operator];
    vec![
        get("/api/v1/calendars", "List calendars", list).to(LOOK),
        get("/api/v1/calendars/{name}", "Look at a calendar and its days", one).to(LOOK).fails(&[404]),
        send(
            Method::PUT,
            "/api/v1/calendars/{name}",
            "Make a calendar, or change the options that are named",
            put,
        )
        .to(ACT),
        delete("/api/v1/calendars/{name}", "Forget a calendar that no schedule uses", drop)
            .to(ACT)
            .fails(&[404, 409]),
    ]
}

async fn list(call: Call, _: Nothing) -> Result<Answer<List<CalendarRow>>, Problem> {
    let rows = call.look(move |c| Box::pin(calendar::all(c))).await?;
    call.show(&List::of(rows))
}

/// A calendar with its days
#[derive(Debug, Serialize, JsonSchema)]
struct Whole {
    /// The calendar
    #[serde(flatten)]
    calendar: CalendarRow,
    /// The days that are not as their day of the week says
    dates: Vec<DateRow>,
}

async fn whole(c: &mut PgConnection, name: &str) -> crate::Result<Whole> {
    let calendar = calendar::one(&mut *c, name).await?;
    Ok(Whole { calendar, dates: calendar::dates(&mut *c, name).await? })
}

async fn one(call: Call, _: Nothing) -> Result<Answer<Whole>, Problem> {
    let name = call.name("name").to_owned();
    let found = call.look(move |c| Box::pin(async move { whole(c, &name).await })).await?;
    call.show(&found)
}

/// Which days are working days; a list takes the place of the one there was
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "read for its shape; the text is what is passed on")]
struct NewCalendar {
    /// Days of the week without work, 1 is Monday; default 6 and 7
    #[schemars(inner(range(min = 1, max = 7)))]
    weekend: Option<Vec<i32>>,
    /// Days without work beside those
    excluded: Option<Vec<Day>>,
    /// Days of a weekend with work
    included: Option<Vec<Day>>,
}

/// A day
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "read for its shape; the text is what is passed on")]
enum Day {
    /// The day
    Date(NaiveDate),
    /// The day, and what day it is
    Noted {
        /// The day
        date: NaiveDate,
        /// What day it is
        note: Option<String>,
    },
}

async fn put(call: Call, new: Text<NewCalendar>) -> Result<Answer<Whole>, Problem> {
    let name = call.name("name").to_owned();
    let options: Value =
        serde_json::from_str(new.raw.get()).map_err(|error| Problem::malformed(error.to_string()))?;
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            calendar::put(&mut *c, &name, &options).await?;
            whole(c, &name).await
        })
    })
    .await
}

async fn drop(call: Call, _: Nothing) -> Result<Answer<Done>, Problem> {
    let name = call.name("name").to_owned();
    call.act(StatusCode::OK, move |c| {
        Box::pin(async move {
            calendar::drop(c, &name).await?;
            Ok(DONE)
        })
    })
    .await
}
