//! Calendars: which days are working days.

use crate::in_sql::row;
use crate::{Error, ErrorKind, Result};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgExecutor;

row! {
    /// A calendar.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct CalendarRow {
        /// Its name.
        pub name: String,
        /// Days of the week without work; Monday is 1.
        pub weekend: Vec<i32>,
        /// How many days it excludes beside those.
        pub excluded: i64,
        /// How many of a weekend it includes.
        pub included: i64,
        /// How many schedules that have not ended use it.
        pub schedules: i64,
        /// When it was changed last.
        pub updated_at: DateTime<Utc>,
    }
}

row! {
    /// A day on its own.
    #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
    #[derive(Debug, Clone, PartialEq, Serialize)]
    pub struct DateRow {
        /// The day.
        pub date: NaiveDate,
        /// Whether it is a working day.
        pub works: bool,
        /// What day it is.
        pub note: Option<String>,
    }
}

const CALENDARS: &str = "
    select c.name, c.weekend, count(d.date) filter (where not d.works) as excluded, count(d.date) filter (where d.works) as included,
           (select count(*) from divvy.schedule s where s.calendar = c.name and s.status in ('active', 'paused', 'refused')) as schedules,
           c.updated_at
      from divvy.calendar c left join divvy.calendar_date d on d.calendar = c.name
     where $1::text is null or c.name = $1
     group by c.name order by c.name";

/// All calendars.
///
/// # Errors
/// Database.
pub async fn all(executor: impl PgExecutor<'_>) -> Result<Vec<CalendarRow>> {
    Ok(sqlx::query_as(CALENDARS).bind(None::<&str>).fetch_all(executor).await?)
}

/// The calendar of that name.
///
/// # Errors
/// NotFound.
pub async fn one(executor: impl PgExecutor<'_>, name: &str) -> Result<CalendarRow> {
    sqlx::query_as(CALENDARS)
        .bind(name)
        .fetch_optional(executor)
        .await?
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no calendar {name}")))
}

/// Its days that are not as their day of the week says.
///
/// # Errors
/// Database.
pub async fn dates(executor: impl PgExecutor<'_>, name: &str) -> Result<Vec<DateRow>> {
    let query = "select date, works, note from divvy.calendar_date where calendar = $1 order by date";
    Ok(sqlx::query_as(query).bind(name).fetch_all(executor).await?)
}

/// `divvy.put_calendar`: makes a calendar, or changes the options that are named.
///
/// # Errors
/// BadOption, OverLimit.
pub async fn put(executor: impl PgExecutor<'_>, name: &str, options: &Value) -> Result<()> {
    sqlx::query("select divvy.put_calendar($1, $2)").bind(name).bind(options).execute(executor).await?;
    Ok(())
}

/// `divvy.drop_calendar`: forgets a calendar that no schedule uses.
///
/// # Errors
/// NotFound; Conflict when a schedule that has not ended uses it.
pub async fn drop(executor: impl PgExecutor<'_>, name: &str) -> Result<()> {
    sqlx::query("select divvy.drop_calendar($1)").bind(name).execute(executor).await?;
    Ok(())
}
