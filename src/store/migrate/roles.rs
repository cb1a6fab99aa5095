//! The roles divvy needs, and the schema that belongs to one of them.

use super::failure;
use crate::Result;
use crate::store::connect::Facts;
use sqlx::PgConnection;

/// How often role creation is tried: roles are the cluster's, our lock is the database's, so two databases
/// that are migrated at once can collide in the catalogue.
const TRIES: u32 = 20;

/// NOLOGIN roles: the owner of every object, and one per way of using divvy.
pub(super) const ROLES: &str = "
do $$
declare
    v_role text;
begin
    foreach v_role in array array['divvy_owner', 'divvy_producer', 'divvy_worker', 'divvy_reader', 'divvy_operator'] loop
        if not exists (select from pg_roles where rolname = v_role) then
            begin
                execute format('create role %I nologin', v_role);
            exception when duplicate_object or unique_violation then
                null; -- somebody else was faster
            end;
        end if;
    end loop;
    -- From 16 on, being a member and being allowed to SET ROLE are two things.
    if not pg_has_role(current_user, 'divvy_owner',
                       case when current_setting('server_version_num')::int >= 160000 then 'set' else 'member' end) then
        execute format('grant divvy_owner to %I', current_user);
    end if;
end $$;";

/// The schema, made by the migrating role (which has CREATE on the database) for the owner.
pub(super) const SCHEMA: &str = "
do $$
begin
    if to_regnamespace('divvy') is null then
        create schema divvy authorization divvy_owner;
    elsif (select nspowner <> 'divvy_owner'::regrole from pg_namespace where nspname = 'divvy') then
        raise insufficient_privilege using message = format(
            'schema divvy belongs to role %s, not to divvy_owner',
            (select nspowner::regrole from pg_namespace where nspname = 'divvy'));
    end if;
end $$;";

/// Makes the roles that are missing and lets the migrating role act as the owner.
pub(super) async fn ensure(connection: &mut PgConnection, facts: &Facts) -> Result<()> {
    let mut tries = 1;
    loop {
        let Err(cause) = sqlx::raw_sql(ROLES).execute(&mut *connection).await else { return Ok(()) };
        let code = cause.as_database_error().and_then(|e| e.code()).map(|code| code.into_owned());
        // XX000 is "tuple concurrently updated": the catalogue's own way of saying that somebody was faster.
        let collided = matches!(code.as_deref(), Some("23505" | "42710" | "XX000"));
        if !collided || tries >= TRIES {
            return Err(failure("creating divvy's roles", cause, facts));
        }
        tries += 1;
    }
}
