//! Types whose handler is a command that was declared in the database.

use crate::Result;
use crate::in_sql::row;
use sqlx::PgExecutor;

row! {
    /// A type whose handler is a command.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ExecType {
        /// The type.
        pub name: String,
        /// The program and its arguments, as words of a shell.
        pub command: String,
        /// One process serves many splits, line by line.
        pub lines: bool,
        /// Whether its tasks are planned.
        pub plan: bool,
        /// Whether its tasks are reduced.
        pub reduce: bool,
    }
}

/// The declared types whose handler is a command, by name.
///
/// # Errors
/// When the database refuses or is lost.
pub async fn exec_types(executor: impl PgExecutor<'_>) -> Result<Vec<ExecType>> {
    let query = "
        select t.name, t.handler #>> '{exec,command}' as command,
               coalesce((t.handler #> '{exec,lines}')::boolean, false) as lines, t.plan, t.reduce
          from divvy.task_type t
         where t.handler ? 'exec'
         order by t.name";
    Ok(sqlx::query_as(query).fetch_all(executor).await?)
}
