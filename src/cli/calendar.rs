//! `divvy calendar`: list, show, put and drop calendars of working days.

use super::output::{self, Fields};
use super::{Global, args, database};
use crate::store::{calendar, clock};
use chrono::{Datelike, Weekday};
use clap::Subcommand;
use serde_json::{Value, json};
use sqlx::PgPool;

/// Arguments of `divvy calendar`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List all calendars
    List,
    /// Show one calendar and its days
    Show {
        /// The calendar
        name: String,
    },
    /// Make a calendar, or change the options that are named: {"weekend": [6, 7], "excluded": ["2026-12-25"], "included": []}
    Put {
        /// The calendar's name: 1 to 100 of a-z 0-9 _ . : -
        name: String,
        #[command(flatten)]
        options: args::Options,
    },
    /// Forget a calendar that no schedule uses
    Drop {
        /// The calendar
        name: String,
    },
}

/// Runs the command.
///
/// # Errors
/// When there is no such calendar, an option is malformed, or the database can't be used.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    // What is typed wrongly is told before a database is looked for.
    let given = match &args.action {
        Action::Put { options, .. } => Some(options.read()?),
        _ => None,
    };
    database::with(global, 1, async |database| {
        let pool = &database.pool;
        match &args.action {
            Action::List => list(pool, global.json).await,
            Action::Show { name } => show(pool, name, global.json).await,
            Action::Put { name, .. } => {
                calendar::put(pool, name, &given.clone().unwrap_or_default()).await?;
                if global.json {
                    return show(pool, name, true).await;
                }
                output::say(&format!("calendar {name} is stored"));
                Ok(())
            }
            Action::Drop { name } => {
                calendar::drop(pool, name).await?;
                if global.json {
                    return output::json(&json!({ "name": name, "status": "dropped" }));
                }
                output::say(&format!("calendar {name} is dropped"));
                Ok(())
            }
        }
    })
    .await
}

async fn list(pool: &PgPool, as_json: bool) -> anyhow::Result<()> {
    let rows = calendar::all(pool).await?;
    if as_json {
        return output::json(&json!({ "calendars": output::rows(&rows)? }));
    }
    let mut table = output::Table::new(["NAME", "WEEKEND", "EXCLUDED", "INCLUDED", "SCHEDULES"]).right(&[
        "EXCLUDED",
        "INCLUDED",
        "SCHEDULES",
    ]);
    for row in &rows {
        let [excluded, included, schedules] =
            [row.excluded, row.included, row.schedules].map(|count| count.to_string());
        table.row([row.name.clone(), days(&row.weekend), excluded, included, schedules], None);
    }
    table.print("there is no calendar: `divvy calendar put NAME` makes one")
}

/// Days of the week by name.
fn days(weekend: &[i32]) -> String {
    let day = |day: &i32| u8::try_from(day - 1).ok().and_then(|day| Weekday::try_from(day).ok());
    let names: Vec<String> = weekend.iter().filter_map(day).map(|day| day.to_string()).collect();
    names.join(", ")
}

async fn show(pool: &PgPool, name: &str, as_json: bool) -> anyhow::Result<()> {
    let row = calendar::one(pool, name).await?;
    let dates = calendar::dates(pool, name).await?;
    if as_json {
        let mut object = output::row(&row)?;
        object.insert("dates".to_owned(), output::rows(&dates)?);
        return output::json(&Value::Object(object));
    }
    let mut fields = Fields::new(clock::now(pool).await?);
    fields.add("calendar", name).add("weekend", days(&row.weekend));
    fields.add("schedules", row.schedules).at("updated", Some(row.updated_at));
    fields.print()?;
    let mut table = output::Table::new(["DATE", "DAY", "WORKS"]).note("NOTE");
    for day in &dates {
        let works = if day.works { "yes" } else { "no" };
        let cells = [day.date.to_string(), day.date.weekday().to_string(), works.to_owned()];
        table.row(cells, day.note.as_deref());
    }
    table.print("all days are as their day of the week says")
}
