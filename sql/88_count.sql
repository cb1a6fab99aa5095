-- What divvy.type_stats and divvy.worker_overview count. Once a minute and whenever somebody looks: what waits and runs is read, by index, and nothing of what has
-- ended. A view can't say how it is planned; these can. With the statistics of an empty table, or of one type, all tasks were read for each type.

-- What of a type is ready, since when, and what is delayed; of that, what a limit of a group or a task holds back. Nothing behind a
-- mark is ready. Lane by lane, and by state: the index of what is due holds what is delayed of all types.
create or replace function divvy.waiting_of(p_type text, out ready bigint, out oldest timestamptz, out delayed bigint, out held bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off
set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
begin
    select coalesce(sum(x.n), 0), min(x.due_at) into ready, oldest from divvy.lane m, lateral (
        select 1 as n, k.due_at from divvy.task k where k.task_type = p_type and k.lane = m.lane and k.key > m.mark and k.state = 'ready'
        union all
        select 1, s.due_at from divvy.share s where s.task_type = p_type and s.lane = m.lane and s.key > m.mark and s.state = 'ready'
        union all
        select s.last_no - s.first_no + 1, s.due_at from divvy.stretch s
        where s.task_type = p_type and s.lane = m.lane and s.key > m.mark and s.first_no <= s.last_no) x
    where m.task_type = p_type;
    select coalesce(sum(x.n), 0), coalesce(sum(x.n) filter (where x.reason = 'limit'), 0) into delayed, held from divvy.lane m, lateral (
        select 1 as n, k.reason from divvy.task k where k.task_type = p_type and k.lane = m.lane and k.key < 0 and k.state = 'delayed'
        union all
        select 1, s.reason from divvy.share s where s.task_type = p_type and s.lane = m.lane and s.key < 0 and s.state = 'delayed'
        union all
        select s.last_no - s.first_no + 1, case when s.held_by is null then 'paused' else 'limit' end from divvy.stretch s
        where s.task_type = p_type and s.lane = -m.lane and m.lane > 0 and s.first_no <= s.last_no) x
    where m.task_type = p_type;
end $$;

-- What runs of each type, and how many of these say in their rows that they are ready. In one pass over the leases.
create or replace function divvy.running_by_type() returns table (task_type text, running bigint, leased bigint)
language plpgsql stable security definer rows 10 set search_path = pg_catalog, pg_temp set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
begin
    return query
    select h.task_type, count(*), count(*) filter (where h.state = 'ready') from divvy.held_split h group by h.task_type;
end $$;

-- What each worker holds, and how long its longest lease lasts. In one pass over the leases.
create or replace function divvy.running_by_worker() returns table (worker uuid, running bigint, lease_until timestamptz)
language plpgsql stable security definer rows 10 set search_path = pg_catalog, pg_temp set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
begin
    return query
    select h.worker, count(*), max(h.lease_until) from divvy.held_split h group by h.worker;
end $$;

-- How many tasks of each type have not started; of types that nobody has declared, too.
create or replace function divvy.scheduled_by_type() returns table (task_type text, scheduled bigint)
language plpgsql stable security definer rows 10 set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
begin
    return query
    select k.task_type, count(*) from divvy.task k where k.key < 0 and k.phase is null group by k.task_type;
end $$;

-- How many splits of a type with limits may start just now, whatever group and task they are of; null where only groups and tasks are bounded.
create or replace function divvy.may_start(p_type text) returns bigint
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    t divvy.task_type;
    v_room bigint;
begin
    select * into t from divvy.task_type x where x.name = p_type and x.limited;
    v_room := divvy.rate_room(t, divvy.clock());
    if t.max_running is not null then
        v_room := least(v_room, t.max_running - (select count(*) from divvy.held_split h where h.task_type = p_type and h.limited));
    end if;
    return case when v_room < 0 then 0 else v_room end;
end $$;
