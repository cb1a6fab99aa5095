-- Splits of large tasks that have no row: they end well, are written out as rows when anything else befalls them, and are
-- found by their ids (docs/adr/0011).

-- Splits of a lease end well, without ever having been rows. What somebody else has written out is left to those who look at
-- rows. p_at: where their results are, from 0. Returns the ids that ended.
create or replace function divvy.finish_stretch(l divvy.lease, p_ids bigint[], p_at int[], p_results jsonb, p_now timestamptz) returns bigint[]
language plpgsql set enable_nestloop = off set enable_hashjoin = on as $$
declare
    v_ids bigint[];
begin
    perform divvy.lock_rowless(l.token, false);
    for i in 1 .. 2 loop
        v_ids := divvy.rowless_of(l, p_ids);
        if v_ids <> p_ids then
            select array_agg(d.id order by d.id), array_agg(d.n order by d.id) into p_ids, p_at
            from unnest(p_ids, p_at) as d (id, n) where d.id in (select unnest(v_ids) offset 0);
        end if;
        begin
            insert into divvy.ended (share_of, first_no, last_no, id_base, token, worker, due_at, started_at, finished_at, results)
            select l.share_of, min(x.no), max(x.no), l.id_base, l.token, l.worker, l.due_at, l.claimed_at, p_now,
                case when p_results is not null and count(x.result) > 0 then array_agg(x.result order by x.no) end
            from (select (d.id - l.id_base)::int as no, d.id - row_number() over (order by d.id) as island,
                    case when p_results is not null then nullif(p_results -> d.n, 'null') end as result
                from unnest(p_ids, p_at) as d (id, n)) x
            group by x.island;
            return v_ids;
        exception when exclusion_violation or unique_violation then
            null;   -- the same splits, ended side by side: now they are seen
        end;
    end loop;
    return '{}';
end $$;

-- Of p_ids, ascending and named by the lease as the caller saw it: those that it still names, and that are neither rows nor ended.
create or replace function divvy.rowless_of(l divvy.lease, p_ids bigint[]) returns bigint[]
language plpgsql stable set enable_seqscan = off set enable_bitmapscan = off set enable_nestloop = off set enable_hashjoin = on as $$
declare
    v_seen constant bigint[] := l.split_ids;
    v_first int := p_ids[1] - l.id_base;
    v_last int := p_ids[cardinality(p_ids)] - l.id_base;
    v_ended int8multirange;
    v_rows bigint[];
begin
    select * into l from divvy.lease x where x.token = l.token and x.task_type = l.task_type and x.lane = l.lane;
    if not found or l.written or l.share_of is null then
        return '{}';
    end if;
    select range_agg(int8range(e.id_base + e.first_no, e.id_base + e.last_no, '[]')) into v_ended from divvy.ended e
    where e.share_of = l.share_of and e.first_no <= v_last and e.last_no >= v_first
        and e.first_no >= coalesce((select y.first_no from divvy.ended y where y.share_of = l.share_of and y.first_no <= v_first
            order by y.first_no desc limit 1), 0);
    v_rows := array(select s.id from divvy.share s where s.share_of = l.share_of and s.split_no between v_first and v_last);
    if v_seen = l.split_ids and v_ended is null and v_rows = '{}' then
        return p_ids;
    end if;
    return array(select i from unnest(p_ids) with ordinality as d (i, n)
        where i in (select unnest(l.split_ids) offset 0) and not coalesce(v_ended @> i, false)
            and i not in (select unnest(v_rows) offset 0)
        order by n);
end $$;

-- The last number of the ended ones that begin at or before a number; 0 where there are none.
create or replace function divvy.ended_through(p_task bigint, p_no int) returns int
language sql stable cost 1 security definer set search_path = pg_catalog, pg_temp as $$
    select coalesce((select e.last_no from divvy.ended e where e.share_of = p_task and e.first_no <= p_no order by e.first_no desc limit 1), 0)
$$;

-- Those who end splits of a lease hold this together, until they commit; whoever writes splits out needs it alone. By an
-- advisory lock: the lease's row is written by those who end its splits. p_alone null: alone, but without waiting. False: others have it.
create or replace function divvy.lock_rowless(p_token bigint, p_alone boolean) returns boolean
language plpgsql as $$
declare
    -- Few, since a batch may be of many leases.
    v_bucket constant int := p_token % 256;
begin
    if p_alone is null then
        return pg_try_advisory_xact_lock(divvy.lock_of('rowless')::int, v_bucket);
    elsif p_alone then
        perform pg_advisory_xact_lock(divvy.lock_of('rowless')::int, v_bucket);
    else
        perform pg_advisory_xact_lock_shared(divvy.lock_of('rowless')::int, v_bucket);
    end if;
    return true;
end $$;

-- Writes leased splits out as rows that run: those of p_ids, or all of the lease.
create or replace function divvy.write_out(l divvy.lease, p_ids bigint[] default null) returns void
language sql as $$
    insert into divvy.share (id, token, due_at, started_at, share_of, max_attempts, split_no, priority, state, task_type, worker, group_key,
        timeout, payload)
    select i, l.token, l.due_at, l.claimed_at, k.id, k.max_attempts, (i - l.id_base)::int, k.priority, 'running', k.task_type, l.worker,
        k.group_key, k.timeout, divvy.payload_of(k.id, (i - l.id_base)::int)
    from divvy.task k, unnest(divvy.rowless_of(l, coalesce(p_ids, l.split_ids))) i
    where k.id = l.share_of
    order by i
$$;

-- A whole lease, unless somebody is just ending splits of it. True: all that it names have rows now, or have ended.
create or replace function divvy.write_out_lease(l divvy.lease) returns boolean
language plpgsql as $$
begin
    if not divvy.lock_rowless(l.token, null) then
        return false;
    end if;
    perform divvy.write_out(l);
    return true;
end $$;

-- What these tokens hold of these splits.
create or replace function divvy.write_out_held(p_ids bigint[], p_tokens bigint[]) returns void
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    l divvy.lease;
begin
    for l in select * from divvy.lease x where x.token = any (p_tokens) and x.lane > 20 and x.split_ids && p_ids order by x.token loop
        continue when l.written;
        perform divvy.lock_rowless(l.token, true);
        perform divvy.write_out(l, array(select i from unnest(p_ids) i where i = any (l.split_ids)));
    end loop;
end $$;

-- Makes what nobody has begun into rows that are ready: of a task, at most p_max of them. Returns how many.
create or replace function divvy.write_out_unbegun(p_task bigint, p_max int default null) returns int
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    k divvy.task;
    s divvy.stretch;
    v_last int;
    v_payloads jsonb[];
    v_count int := 0;
begin
    if not divvy.has_unbegun(p_task) then
        return 0;
    end if;
    select * into k from divvy.task t where t.id = p_task;
    for s in select * from divvy.stretch x where x.share_of = p_task and x.first_no <= x.last_no order by x.stripe for update loop
        while s.first_no <= s.last_no and coalesce(v_count < p_max, true) loop
            v_last := least(s.last_no, s.first_no + coalesce(p_max - v_count, 10000) - 1);
            v_payloads := divvy.payloads_of(p_task, s.first_no, v_last);
            perform divvy.write_out_ready(k, s, s.first_no, v_payloads);
            v_count := v_count + v_last - s.first_no + 1;
            s.first_no := v_last + 1;
        end loop;
        update divvy.stretch x set first_no = s.first_no where x.share_of = p_task and x.stripe = s.stripe;
    end loop;
    return v_count;
end $$;

-- Rows for splits of a stretch from a number on; a paused task's are delayed, and so are those of one that is put aside. In plpgsql, which
-- keeps the plan: a claim may call it for each of many tasks.
create or replace function divvy.write_out_ready(k divvy.task, s divvy.stretch, p_first int, p_payloads jsonb[]) returns void
language plpgsql as $$
begin
    insert into divvy.share (id, key, share_of, split_no, task_type, priority, group_key, max_attempts, timeout, state, reason, due_at, payload)
    select s.id_base + p_first - 1 + n, divvy.next_key(s.lane < 0), k.id, p_first - 1 + n, k.task_type, abs(s.lane) - 20, k.group_key, k.max_attempts, k.timeout,
        case when s.lane < 0 then 'delayed' else 'ready' end::divvy.split_status, case when s.held_by is not null then 'limit' when s.lane < 0 then 'paused' end,
        case when s.held_by is not null then 'infinity' when s.lane < 0 then coalesce(k.paused_until, s.due_at) else s.due_at end, payload
    from unnest(p_payloads) with ordinality as p (payload, n)
    order by n;
end $$;

-- Pauses the stretches of a task, or ends their pause: then they are behind what came meanwhile.
create or replace function divvy.hold_stretches(p_task bigint) returns void
language sql set enable_seqscan = off as $$
    update divvy.stretch s set lane = -s.lane where s.share_of = p_task and s.lane > 0 and s.first_no <= s.last_no
$$;

create or replace function divvy.release_stretches(p_tasks bigint[]) returns void
language sql set enable_seqscan = off as $$
    update divvy.stretch s set lane = -s.lane, key = nextval('divvy.key'), held_by = null where s.share_of = any (p_tasks) and s.lane < 0
$$;

-- Gives what nobody has begun another priority, behind what waits there. Returns how many splits.
create or replace function divvy.move_stretches(p_task bigint, p_priority int) returns bigint
language sql set enable_seqscan = off as $$
    with moved as (
        update divvy.stretch s set lane = sign(s.lane) * (20 + coalesce(p_priority, abs(s.lane) - 20)), key = nextval('divvy.key')
        where s.share_of = p_task and s.first_no <= s.last_no returning s.last_no - s.first_no + 1 as n)
    select coalesce(sum(n), 0) from moved
$$;

-- What a split is that has no row: its task, its state, and the token that holds it or ended it. Null: there is none.
create or replace function divvy.rowless(p_id bigint, out share_of bigint, out state divvy.split_status, out token bigint)
language plpgsql stable as $$
begin
    select r.share_of, r.state, r.token into share_of, state, token from divvy.rowless_by_id(p_id) r;
end $$;

-- The stretch in which a split lies.
create or replace function divvy.stretch_of(p_id bigint) returns divvy.stretch
language plpgsql stable set enable_seqscan = off as $$
declare
    s divvy.stretch;
begin
    select * into s from divvy.stretch x where x.id_base + x.last_no >= p_id and x.first_no <= x.last_no order by x.id_base + x.last_no limit 1;
    return case when s.id_base + s.first_no <= p_id then s end;
end $$;

-- Writes out one split by its id, if it lies in a stretch, or is leased and nobody is just ending splits of that lease.
create or replace function divvy.write_out_one(p_id bigint) returns void
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    s divvy.stretch := divvy.stretch_of(p_id);
    l divvy.lease;
    v_no int := p_id - s.id_base;
begin
    -- It leaves a gap: what lies behind it becomes a stretch of its own.
    select * into s from divvy.stretch x where x.share_of = s.share_of and x.stripe = s.stripe and v_no between x.first_no and x.last_no for update;
    if found then
        perform divvy.write_out_ready(k, s, v_no, divvy.payloads_of(k.id, v_no, v_no)) from divvy.task k where k.id = s.share_of;
        update divvy.stretch x set first_no = s.first_no + (s.first_no = v_no)::int, last_no = case when s.first_no = v_no then s.last_no else v_no - 1 end
        where x.share_of = s.share_of and x.stripe = s.stripe;
        insert into divvy.stretch (share_of, stripe, first_no, last_no, id_base, lane, held_by, due_at, task_type)
        select s.share_of, (select max(x.stripe) from divvy.stretch x where x.share_of = s.share_of) + 1, v_no + 1, s.last_no, s.id_base, s.lane,
            s.held_by, s.due_at, s.task_type
        where s.first_no < v_no and v_no < s.last_no;
        return;
    end if;
    for l in select * from divvy.lease x where x.share_of is not null and not x.written and p_id = any (x.split_ids) loop
        if divvy.lock_rowless(l.token, null) then
            perform divvy.write_out(l, array[p_id]);
        end if;
    end loop;
end $$;

-- Whether a task has splits that nobody has begun. Of each stripe the newest version is found first: it has the highest number.
create or replace function divvy.has_unbegun(p_task bigint) returns boolean
language plpgsql stable set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    s divvy.stretch;
    v_stripe int := 2147483647;
begin
    loop
        select * into s from divvy.stretch x where x.share_of = p_task and x.stripe < v_stripe order by x.stripe desc, x.first_no desc limit 1;
        if not found then
            return false;
        elsif s.first_no <= s.last_no then
            return true;
        end if;
        v_stripe := s.stripe;
    end loop;
end $$;

-- Whether a lease of a task's stretches names a split that is neither a row nor ended. The newest lease is the likeliest.
create or replace function divvy.has_rowless(p_task bigint) returns boolean
language plpgsql stable set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    l divvy.lease;
begin
    for l in select * from divvy.lease x where x.share_of = p_task and not x.written order by x.token desc loop
        if divvy.rowless_of(l, l.split_ids) <> '{}' then
            return true;
        end if;
    end loop;
    return false;
end $$;

-- Splits of a task that have ended, in the order of their numbers, after one of them.
create or replace function divvy.ended_splits(p_task bigint, p_after int, p_max int) returns table (split_no int, status text, result jsonb, error jsonb)
language sql stable rows 1000 set enable_seqscan = off as $$
    select x.no, x.state, x.result, x.error
    from (
        (select s.split_no as no, s.state::text as state, s.result, s.error from divvy.share s
        where s.share_of = p_task and s.split_no > p_after order by s.split_no limit p_max)
        union all
        (select n, 'succeeded', e.results[n - e.first_no + 1], null from (
            select * from divvy.ended y where y.share_of = p_task
                and y.first_no >= coalesce((select z.first_no from divvy.ended z where z.share_of = p_task and z.first_no <= p_after
                    order by z.first_no desc limit 1), 0)
            order by y.first_no limit p_max) e, generate_series(greatest(e.first_no, p_after + 1), e.last_no) n
        order by n limit p_max)
        union all
        (select n, d.state::text, null, null from (
            select * from divvy.dropped y where y.share_of = p_task and y.last_no > p_after order by y.first_no limit p_max) d,
            generate_series(greatest(d.first_no, p_after + 1), least(d.last_no, greatest(d.first_no, p_after + 1) + p_max - 1)) n
        order by n limit p_max)) x
    order by x.no limit p_max
$$;
