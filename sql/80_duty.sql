-- Duties: what somebody has to do now and then. Each is one pass, bounded, and safe with any number of callers at once.

-- One pass of all duties. Any divvy process or pg_cron may call it. Returns what each did.
create or replace function divvy.tick(max int default 500)
returns table (duty text, done int)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    return query select u.duty, u.done from divvy.urgent_duties(max) u;
    return query values ('sample', divvy.take_sample()), ('alert', divvy.look_for_alerts());
end $$;

-- What work waits for, from the p_next-th duty on until p_until (real time). next: which one is the next, 1 after the last.
-- The rest looks at all that waits, which a worker's next_wait is spared.
create or replace function divvy.urgent_duties(max int, p_next int default 1, p_until double precision default 'infinity')
returns table (duty text, done int, next int)
language plpgsql as $$
begin
    perform divvy.need_read_committed('tick');
    for n in p_next .. 6 loop
        case n
            when 1 then duty := 'fire'; done := divvy.fire_due(max);
            when 2 then duty := 'promote'; done := divvy.promote(max);
            when 3 then duty := 'reclaim'; done := divvy.reclaim(max);
            when 4 then duty := 'reduce_check'; done := divvy.settle(max);
            when 5 then duty := 'low_water'; done := divvy.advance_low_water();
            when 6 then duty := 'prune'; done := divvy.prune(max);
        end case;
        next := n % 6 + 1;
        return next;
        exit when extract(epoch from clock_timestamp()) >= p_until;
    end loop;
end $$;

-- Makes ready what waited for a moment that has come; starts scheduled tasks, whose types are looked at again. Returns how many.
create or replace function divvy.promote(max int default 500) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_hashjoin = off
set enable_mergejoin = off set jit = off as $$
declare
    v_now timestamptz := divvy.clock();
    v_types text[];
    v_count int;
    v_type text;
    v_paused record;
    v_resumed bigint[];
begin
    with due as materialized (
        select u.id from divvy.unit u where u.due_at <= v_now and u.key < 0 and u.phase is not null order by u.due_at limit promote.max for update skip locked
    ), promoted as (
        update divvy.unit u set state = case when k.paused_until > v_now then 'delayed' else 'ready' end::divvy.split_status,
            reason = case when k.paused_until > v_now then 'paused' end,
            due_at = case when k.paused_until > v_now then k.paused_until else v_now end, key = divvy.next_key(k.paused_until > v_now)
        from divvy.task k
        where u.id = any (array(select id from due)) and u.state = 'delayed' and k.id = any (array[coalesce(u.share_of, u.id)])
        returning u.task_type)
    select array_agg(distinct task_type), count(*) into v_types, v_count from promoted;
    perform divvy.wake(v_types);
    foreach v_type in array divvy.types_to_start(v_now) loop
        v_count := v_count + divvy.start_scheduled(v_type, max);
    end loop;
    update divvy.task_type t set paused_until = null, pause_reason = null
    where t.name = any (array(select p.name from divvy.task_type p where p.paused_until <= v_now for update skip locked));
    with resumed as (
        update divvy.task t set paused_until = null, pause_reason = null
        where t.id = any (array(select p.id from divvy.task p where p.paused_until <= v_now for update skip locked))
        returning t.id)
    select array_agg(id) into v_resumed from resumed;
    perform divvy.release_stretches(v_resumed);
    for v_paused in select p.id, p.paused_until from divvy.task p where p.paused_until > v_now order by p.paused_until limit max loop
        perform divvy.hold_if_paused(v_paused.id, v_paused.paused_until);
    end loop;
    return v_count + divvy.review_limits(max, v_now);
end $$;

-- When the first scheduled task of each type is due: a walk from type to type, not over the tasks of each.
create or replace function divvy.first_scheduled() returns table (task_type text, run_at timestamptz)
language sql stable as $$
    with recursive w as (
        (select k.task_type, k.run_at from divvy.task k where k.key < 0 and k.phase is null order by k.task_type, k.run_at limit 1)
        union all
        select n.* from w, lateral (select k.task_type, k.run_at from divvy.task k
            where k.key < 0 and k.phase is null and k.task_type > w.task_type order by k.task_type, k.run_at limit 1) n
    )
    select w.task_type, w.run_at from w
$$;

-- The declared types of which a scheduled task is due.
create or replace function divvy.types_to_start(p_now timestamptz) returns text[]
language sql stable as $$
    select coalesce(array_agg(w.task_type order by w.task_type), '{}')
    from divvy.first_scheduled() w join divvy.task_type t on t.name = w.task_type where w.run_at <= p_now
$$;

-- Takes back the splits of ended leases, each charged an attempt; ends tasks past their deadline, and cancelled ones
-- whose workers did not stop within the grace. After a server start or a pause of ticks every lease is given its length
-- once more, so a pause of the database re-executes nothing. Returns how many splits were taken.
create or replace function divvy.reclaim(max int default 500) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_now timestamptz := divvy.clock();
    v_resumed timestamptz;
    l divvy.lease;
    v_taken int := 0;
begin
    v_resumed := divvy.pulse_beat(v_now);
    if v_resumed is null then
        return 0;
    end if;
    perform divvy.write_down_old(max);
    for l in select * from divvy.lease x
        where x.lease_until <= v_now and (v_resumed + x.length <= v_now or x.deadline_at <= v_now - x.length)
        order by x.token limit reclaim.max for update skip locked
    loop
        v_taken := v_taken + divvy.reclaim_lease(l, v_now);
    end loop;
    v_taken := v_taken + divvy.enforce_cancels(max, v_now);
    perform divvy.enforce_deadlines(max, v_now);
    return v_taken;
end $$;

-- Notes that reclaim runs; returns since when it has been running without a pause. Null: somebody else is at it, and is
-- not waited for, since each of two ticks may hold what the other wants next.
create or replace function divvy.pulse_beat(p_now timestamptz) returns timestamptz
language sql as $$
    update divvy.pulse set
        resumed_at = case when reclaimed_at > p_now - interval '10 s' and reclaimed_at <= p_now
            and server_start = pg_postmaster_start_time() then resumed_at else p_now end,
        reclaimed_at = p_now, server_start = pg_postmaster_start_time()
    where singleton = (select p.singleton from divvy.pulse p for update skip locked)
    returning resumed_at
$$;

-- Splits that are locked are just being completed: their lease row stays for the next pass.
create or replace function divvy.reclaim_lease(l divvy.lease, p_now timestamptz) returns int
language plpgsql set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    u divvy.unit;
    v_taken int := 0;
    v_outcome text := case when l.deadline_at <= p_now then 'timeout' else 'expired' end;
begin
    if l.share_of is not null and not l.written then
        if not divvy.write_out_lease(l) then
            return 0;   -- somebody is just ending splits of it
        end if;
    elsif not l.written then
        perform divvy.write_down(array(select x.id from divvy.unit x where x.id = any (l.split_ids) and x.state = 'ready' order by x.id
            for update skip locked));
    end if;
    for u in select * from divvy.unit x where x.id = any (l.split_ids) and x.token = l.token and x.state = 'running'
        order by x.id for update skip locked
    loop
        perform from divvy.end_attempt(u, v_outcome, divvy.end_of_lease(l), true, case v_outcome when 'timeout' then null else interval '0' end);
        v_taken := v_taken + 1;
    end loop;
    delete from divvy.lease x where x.token = l.token and x.task_type = l.task_type and x.lane = l.lane
        and not exists (select from divvy.unit y where y.id = any (l.split_ids) and divvy.holds(y, l.token));
    if l.labels is not null then
        perform divvy.note_freed(l, null);
    end if;
    return v_taken;
end $$;

-- Cancelled tasks that are still open: what slipped by is cancelled, what runs past the grace of 30 s loses its token.
create or replace function divvy.enforce_cancels(p_max int, p_now timestamptz) returns int
language plpgsql set enable_seqscan = off as $$
declare
    v_id bigint;
    k divvy.task;
    u divvy.unit;
    v_taken int := 0;
begin
    for v_id in select t.id from divvy.task t where least(t.deadline_at, t.cancel_requested_at) <= p_now and t.watched and t.cancel_requested_at is not null
        order by least(t.deadline_at, t.cancel_requested_at) limit p_max
    loop
        select * into k from divvy.task t where t.id = v_id and t.finished_at is null for update skip locked;
        continue when not found;
        if k.cancel_requested_at <= p_now - interval '30 s' then
            for u in select * from divvy.unit x where x.id = any (array(select s.id from divvy.share s where s.share_of = k.id
                    and s.state = 'running') || k.id) and x.state = 'running' order by x.id for update skip locked
            loop
                insert into divvy.attempt (split_id, token, task_id, attempt, phase, worker, outcome, started_at, finished_at)
                values (u.id, u.token, k.id, u.attempt + 1, u.phase, u.worker, 'cancelled', u.started_at, p_now);
                perform divvy.unstaged(u);
                perform divvy.drop_from_leases(array[u.token], array[u.id]);
                perform divvy.end_split(u, 'cancelled', k.cancel_reason, null, true);
                v_taken := v_taken + 1;
            end loop;
        end if;
        perform divvy.begin_cancel(k, k.cancel_reason) from divvy.task t where t.id = k.id and t.finished_at is null;
    end loop;
    return v_taken;
end $$;

create or replace function divvy.enforce_deadlines(p_max int, p_now timestamptz) returns void
language plpgsql set enable_seqscan = off as $$
declare
    k divvy.task;
begin
    for k in select * from divvy.task t where least(t.deadline_at, t.cancel_requested_at) <= p_now and t.watched and t.deadline_at <= p_now
            and t.cancel_requested_at is null
        order by least(t.deadline_at, t.cancel_requested_at) limit p_max for update skip locked
    loop
        perform divvy.record('deadline', 'task', k.id::text, format('its deadline was %s', k.deadline_at), jsonb_build_object('status', k.status), null);
        perform divvy.begin_cancel(k, 'deadline');
    end loop;
end $$;

-- A new leader's term; the advisory lock keeps others away, the term says who it was. Returns the term.
create or replace function divvy.lead(leader uuid, name text) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into divvy.leader (leader, name) values (lead.leader, left(lead.name, 200)) returning term
$$;

-- Whether a process holds the leader's lock in this database.
create or replace function divvy.somebody_leads() returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select exists (select from pg_locks l where l.locktype = 'advisory' and l.granted and l.objsubid = 1
        and l.database = (select d.oid from pg_database d where d.datname = current_database())
        and (l.classid::bigint << 32) + l.objid::bigint = divvy.lock_of('leader'))
$$;
