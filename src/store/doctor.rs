//! What `divvy doctor` asks: settings that decide about durability, and what the role may do.

use crate::Result;
use crate::in_sql::row;
use sqlx::PgConnection;

row! {
    /// What the server and the database say.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Settings {
        /// `fsync`.
        pub fsync: bool,
        /// `full_page_writes`.
        pub full_page_writes: bool,
        /// `synchronous_commit`: on, off, local, remote_write or remote_apply.
        pub synchronous_commit: String,
        /// The role may create in the database.
        pub may_create: bool,
        /// The role may create roles.
        pub may_create_roles: bool,
        /// The role is a superuser.
        pub superuser: bool,
        /// The role is or may become `divvy_owner`.
        pub owner: bool,
    }
}

/// Reads them.
///
/// # Errors
/// When the connection is lost.
pub async fn settings(connection: &mut PgConnection) -> Result<Settings> {
    let query = "
        select current_setting('fsync')::bool as fsync,
               current_setting('full_page_writes')::bool as full_page_writes,
               current_setting('synchronous_commit') as synchronous_commit,
               has_database_privilege(current_database(), 'create') as may_create,
               r.rolcreaterole as may_create_roles,
               r.rolsuper as superuser,
               coalesce((select pg_has_role(o.oid, 'member') from pg_roles o where o.rolname = 'divvy_owner'), false)
                   as owner
          from pg_roles r
         where r.rolname = current_user";
    Ok(sqlx::query_as(query).fetch_one(connection).await?)
}

/// Which of `functions` of the schema the role may call, and which it may not. Absent ones are in neither.
///
/// # Errors
/// When the connection is lost.
pub async fn callable(connection: &mut PgConnection, functions: &[&str]) -> Result<Vec<(String, bool)>> {
    let query = "
        select p.proname::text,
               bool_and(has_schema_privilege(p.pronamespace, 'usage') and has_function_privilege(p.oid, 'execute'))
          from pg_proc p
          join pg_namespace n on n.oid = p.pronamespace
         where n.nspname = 'divvy' and p.proname = any($1)
         group by 1
         order by 1";
    Ok(sqlx::query_as(query).bind(functions).fetch_all(connection).await?)
}
