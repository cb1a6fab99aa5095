-- The only "now" in the system. Stable, so that an index on an instant may be used with it; tests replace its body.
create or replace function divvy.clock() returns timestamptz
language sql stable
as 'select now()';
