-- A cron schedule that ends while moments of it are due that no planner has named yet: they get their rows afterwards.
alter table divvy.schedule add name_until timestamptz;   -- ended: moments up to here are to be named still
create index schedule_unnamed_idx on divvy.schedule (id) where name_until is not null;

-- Functions of the rules that have other arguments or results from here on.
drop function if exists divvy.fire_safely(divvy.schedule, timestamptz), divvy.fire_schedule(divvy.schedule, timestamptz),
    divvy.release_waiting(divvy.schedule, timestamptz), divvy.put_schedule(text, jsonb), divvy.schedules_to_plan(int, text);
