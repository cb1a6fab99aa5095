-- Large tasks. Their splits lie in stretches: a split that nobody has begun is no row, a claim takes a piece of a stretch and
-- writes one lease, and splits that end well together are one row (docs/adr/0011). Whoever wants anything else of
-- such a split writes it out first: then it is a row as any other.

-- From how many splits on they lie in stretches. Types with limits look at each split, so theirs are rows.
create or replace function divvy.lies_in_stretches(p_type text, p_count bigint) returns boolean
language sql stable as $$
    select p_count >= divvy.limit_of('stretch') and not exists (select from divvy.task_type t where t.name = p_type and t.limited)
$$;

-- Lays out p_count splits after number p_after. Four stretches for many, so that claims do not wait for one another.
create or replace function divvy.lay_out(k divvy.task, p_after int, p_count int, p_payloads jsonb[], p_rule jsonb, p_now timestamptz) returns void
language plpgsql as $$
declare
    v_stripes int := case when p_count < 1000 then 1 else 4 end;
    v_stripe int := coalesce((select max(s.stripe) from divvy.stretch s where s.share_of = k.id), 0);
    v_base bigint := case when p_count <= 256 then nextval('divvy.id_256') when p_count <= 4096 then nextval('divvy.id_4096')
        when p_count <= 65536 then nextval('divvy.id_65536') else nextval('divvy.id_1048576') end - p_after - 1;
begin
    insert into divvy.stretch (share_of, stripe, first_no, last_no, id_base, lane, due_at, task_type)
    select k.id, v_stripe + i, p_after + 1 + ((i - 1)::bigint * p_count / v_stripes)::int, p_after + (i::bigint * p_count / v_stripes)::int,
        v_base, 20 + k.priority, p_now, k.task_type
    from generate_series(1, v_stripes) i;
    if p_rule is not null then
        insert into divvy.given (share_of, first_no, last_no, rule) values (k.id, p_after + 1, p_after + p_count, p_rule);
        return;
    end if;
    -- A hundred in a row, or 64 KiB: what a small claim has to read of which it wants a part.
    insert into divvy.given (share_of, first_no, last_no, payloads)
    select k.id, p_after + min(n), p_after + max(n), array_agg(payload order by n)
    from (select n, payload, sum(coalesce(pg_column_size(payload), 0)) over (order by n) / 65536 as block
        from unnest(p_payloads) with ordinality as p (payload, n)) x
    group by (n - 1) / 100, block;
end $$;

-- The payload of a split by the rule of its task: an index, or a piece of a range.
create or replace function divvy.payload_by(p_rule jsonb, p_no int) returns jsonb
language sql stable parallel safe as $$
    select case when p_rule ? 'count' then jsonb_build_object('index', p_no - 1, 'count', p_rule -> 'count')
        else jsonb_build_object('lo', (p_rule ->> 'lo')::numeric + (p_no - 1) * (p_rule ->> 'size')::numeric,
            'hi', least((p_rule ->> 'lo')::numeric + p_no * (p_rule ->> 'size')::numeric, (p_rule ->> 'hi')::numeric)) end
$$;

-- The payloads of splits p_first to p_last of a task, in order; null where the task has none for them.
create or replace function divvy.payloads_of(p_task bigint, p_first int, p_last int) returns jsonb[]
language plpgsql stable cost 1 as $$
declare
    g divvy.given;
    v_payloads jsonb[] := '{}';
begin
    for g in select * from divvy.given x where x.share_of = p_task and x.first_no <= p_last
        and x.first_no >= (select max(y.first_no) from divvy.given y where y.share_of = p_task and y.first_no <= p_first)
        order by x.first_no
    loop
        if g.rule is not null then
            v_payloads := v_payloads || array(select divvy.payload_by(g.rule, n)
                from generate_series(greatest(p_first, g.first_no), least(p_last, g.last_no)) n);
        else
            v_payloads := v_payloads || g.payloads[greatest(p_first, g.first_no) - g.first_no + 1 : p_last - g.first_no + 1];
        end if;
    end loop;
    return v_payloads;
end $$;

create or replace function divvy.payload_of(p_task bigint, p_no int) returns jsonb
language sql stable cost 1 as 'select (divvy.payloads_of(p_task, p_no, p_no))[1]';

-- generate_series, of which the planner expects a few: a thousand for each row of a new table would turn its compiler (JIT) on.
create or replace function divvy.numbers(p_first int, p_last int) returns setof int
language sql volatile parallel safe rows 10 as 'select generate_series(p_first, p_last)';

-- Takes splits of the stretches of a lane with p_from < key <= p_to. Tasks have equal parts, whatever their size: a stretch that
-- something was taken of gets a new key, behind all others. Locks only what it takes from.
create or replace function divvy.pick_stretches(t divvy.task_type, p_lane smallint, p_from bigint, p_to bigint, p_want int, p_room bigint)
returns divvy.part[] language plpgsql as $$
declare
    v_width constant int := 16;
    v_parts divvy.part[] := '{}';
    v_lo bigint;
    v_hi bigint;
    p divvy.part;
    c record;
    s divvy.stretch;
begin
    for c in
        select y.*, count(*) filter (where y.turn = 1) over (order by y.turn, y.size, y.key rows between current row and unbounded following) as tasks
        from (select x.*, row_number() over (partition by x.share_of order by x.key) as turn
            from (select z.ctid as place, z.share_of, z.key, z.last_no - z.first_no as size from divvy.stretch z
                where z.task_type = t.name and z.lane = p_lane and z.key > p_from and z.key <= p_to and z.first_no <= z.last_no
                order by z.key limit v_width) x) y
        order by y.turn, y.size, y.key
    loop
        exit when p_want <= 0 or p_room <= 0;
        select * into s from divvy.stretch x where x.ctid = c.place and x.key = c.key and x.lane = p_lane for update skip locked;
        continue when not found;
        p := divvy.pick_stretch(t, s, least(s.last_no - s.first_no + 1, ceil(p_want::numeric / greatest(c.tasks, 1))::int), p_room);
        exit when p.split_ids is null;
        update divvy.stretch x set first_no = x.first_no + cardinality(p.split_ids), key = nextval('divvy.key') where x.ctid = c.place;
        v_lo := least(v_lo, c.key);
        v_hi := greatest(v_hi, c.key);
        v_parts := v_parts || p;
        p_want := p_want - cardinality(p.split_ids);
        p_room := p_room - p.bytes;
    end loop;
    for i in 1 .. cardinality(v_parts) loop
        v_parts[i].lo_key := v_lo;
        v_parts[i].hi_key := v_hi;
    end loop;
    return v_parts;
end $$;

-- The next p_want splits of a stretch, as far as there is room for them. What is the same for all stands once in its column.
create or replace function divvy.pick_stretch(t divvy.task_type, s divvy.stretch, p_want int, p_room bigint) returns divvy.part
language plpgsql as $$
declare
    k divvy.task;
    p divvy.part;
    v_payloads jsonb[];
    v_own bigint;
    n int;
begin
    select * into k from divvy.task x where x.id = s.share_of;
    v_payloads := divvy.payloads_of(k.id, s.first_no, s.first_no + p_want - 1);
    v_own := divvy.answer_bytes(k.payload) + divvy.answer_bytes(k.headers);
    select max(x.n), max(x.total) into n, p.bytes
    from (select y.n, sum(v_own + divvy.answer_bytes(y.payload)) over (rows unbounded preceding) as total
        from unnest(v_payloads) with ordinality as y (payload, n)) x
    where x.total <= p_room;
    if n is null then
        return null;
    end if;
    p.task_type := t.name;
    p.lane := s.lane;
    p.due_at := s.due_at;
    p.split_nos := array(select generate_series(s.first_no, s.first_no + n - 1));
    p.split_ids := array(select generate_series(s.id_base + s.first_no, s.id_base + s.first_no + n - 1));
    p.split_payloads := v_payloads[:n];
    p.task_ids := array[k.id];
    p.phases := array['execute'];
    p.split_counts := array[coalesce(k.split_count, 1)];
    p.attempts := array[1];
    p.max_attempts := array[coalesce(k.max_attempts, t.max_attempts)];
    p.payloads := array[k.payload];
    p.checkpoints := array[null::jsonb];
    p.headers := array[k.headers];
    p.epochs := array[k.epoch];
    p.continuations := array[0];
    p.scheduled_for := array[k.scheduled_for];
    p.timeouts := array[coalesce(k.timeout, t.timeout)];
    return p;
end $$;

-- Splits of a lease end well, without ever having been rows. What somebody else has written out is left to those who look at
-- rows. p_at: where their results are, from 0. Returns the ids that ended.
create or replace function divvy.finish_stretch(l divvy.lease, p_ids bigint[], p_at int[], p_results jsonb, p_now timestamptz) returns bigint[]
language plpgsql as $$
declare
    v_ids bigint[];
begin
    perform divvy.lock_rowless(l.token, false);
    for i in 1 .. 2 loop
        v_ids := divvy.rowless_of(l, p_ids);
        begin
            insert into divvy.ended (share_of, first_no, last_no, id_base, token, worker, due_at, started_at, finished_at, results)
            select l.share_of, min(x.no), max(x.no), l.id_base, l.token, l.worker, l.due_at, l.claimed_at, p_now,
                case when p_results is not null and count(x.result) > 0 then array_agg(x.result order by x.no) end
            from (select (d.id - l.id_base)::int as no, d.id - row_number() over (order by d.id) as island,
                    case when p_results is not null then nullif(p_results -> d.n, 'null') end as result
                from unnest(p_ids, p_at) as d (id, n) where v_ids = p_ids or d.id = any (v_ids)) x
            group by x.island;
            return v_ids;
        exception when exclusion_violation or unique_violation then
            null;   -- the same splits, ended side by side: now they are seen
        end;
    end loop;
    return '{}';
end $$;

-- Of p_ids, those that the lease, as it is now, names and that are neither rows nor ended.
create or replace function divvy.rowless_of(l divvy.lease, p_ids bigint[]) returns bigint[]
language plpgsql stable set enable_seqscan = off set enable_bitmapscan = off as $$
begin
    select * into l from divvy.lease x where x.token = l.token and x.task_type = l.task_type and x.lane = l.lane and not x.written;
    if not found then
        return '{}';
    elsif l.split_ids = p_ids and not exists (select from divvy.share s where s.share_of = l.share_of
            and s.split_no between p_ids[1] - l.id_base and p_ids[cardinality(p_ids)] - l.id_base)
        and divvy.ended_through(l.share_of, (p_ids[cardinality(p_ids)] - l.id_base)::int) < p_ids[1] - l.id_base
    then
        return p_ids;
    end if;
    return array(select i from unnest(p_ids) i where i in (select unnest(l.split_ids) offset 0)
        and not exists (select from divvy.share s where s.share_of = l.share_of and s.split_no = i - l.id_base)
        and divvy.ended_through(l.share_of, (i - l.id_base)::int) < i - l.id_base);
end $$;

-- The last number of the ended ones that begin at or before a number; 0 where there are none.
create or replace function divvy.ended_through(p_task bigint, p_no int) returns int
language sql stable cost 1 as $$
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
    for l in select * from divvy.lease x where x.token = any (p_tokens) and x.share_of is not null and not x.written and x.split_ids && p_ids
        order by x.token
    loop
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

-- Rows for splits of a stretch from a number on; a paused task's are delayed.
create or replace function divvy.write_out_ready(k divvy.task, s divvy.stretch, p_first int, p_payloads jsonb[]) returns void
language sql as $$
    insert into divvy.share (id, share_of, split_no, task_type, priority, group_key, max_attempts, timeout, state, reason, due_at, payload)
    select s.id_base + p_first - 1 + n, k.id, p_first - 1 + n, k.task_type, k.priority, k.group_key, k.max_attempts, k.timeout,
        case when s.lane < 0 then 'delayed' else 'ready' end::divvy.split_status, case when s.lane < 0 then 'paused' end,
        case when s.lane < 0 then coalesce(k.paused_until, s.due_at) else s.due_at end, payload
    from unnest(p_payloads) with ordinality as p (payload, n)
    order by n
$$;

-- Of the tasks of a type, p_max splits: what came while the type had no limits.
create or replace function divvy.write_out_type(p_type text, p_max int) returns void
language plpgsql set enable_seqscan = off set jit = off as $$
declare
    v_task bigint;
    v_left int := p_max;
begin
    while v_left > 0 loop
        select s.share_of into v_task from divvy.lane n, lateral (select x.share_of from divvy.stretch x
            where x.task_type = p_type and x.lane = n.lane and x.key > n.mark and x.first_no <= x.last_no order by x.key limit 1) s
        where n.task_type = p_type and n.lane > 20 order by n.lane limit 1;
        exit when not found;
        v_left := v_left - greatest(divvy.write_out_unbegun(v_task, v_left), 1);
    end loop;
end $$;

-- Pauses the stretches of a task, or ends their pause: then they are behind what came meanwhile.
create or replace function divvy.hold_stretches(p_task bigint) returns void
language sql set enable_seqscan = off as $$
    update divvy.stretch s set lane = -s.lane where s.share_of = p_task and s.lane > 0 and s.first_no <= s.last_no
$$;

create or replace function divvy.release_stretches(p_tasks bigint[]) returns void
language sql set enable_seqscan = off as $$
    update divvy.stretch s set lane = -s.lane, key = nextval('divvy.key') where s.share_of = any (p_tasks) and s.lane < 0
$$;

-- Gives what nobody has begun another priority, behind what waits there. Returns how many splits.
create or replace function divvy.move_stretches(p_task bigint, p_priority int) returns bigint
language sql set enable_seqscan = off as $$
    with moved as (
        update divvy.stretch s set lane = sign(s.lane) * (20 + coalesce(p_priority, abs(s.lane) - 20)), key = nextval('divvy.key')
        where s.share_of = p_task and s.first_no <= s.last_no returning s.last_no - s.first_no + 1 as n)
    select coalesce(sum(n), 0) from moved
$$;

-- What a split is that has no row: its state, and the token that holds it or ended it. Null: there is none.
create or replace function divvy.rowless_state(p_id bigint, out state divvy.split_status, out token bigint)
language plpgsql stable set enable_seqscan = off as $$
declare
    l divvy.lease;
begin
    for l in select * from divvy.lease x where x.share_of is not null and not x.written and p_id = any (x.split_ids) loop
        if divvy.rowless_of(l, array[p_id]) <> '{}' then
            state := 'running';
            token := l.token;
            return;
        end if;
    end loop;
    select 'succeeded', e.token into state, token from divvy.ended e
    where int8range(e.id_base + e.first_no, e.id_base + e.last_no, '[]') @> p_id;
    if not found then
        select 'ready' into state from divvy.stretch_of(p_id) s where s.share_of is not null;
    end if;
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
    -- It leaves a gap: what lies before it becomes a stretch of its own.
    select * into s from divvy.stretch x where x.share_of = s.share_of and x.stripe = s.stripe and v_no between x.first_no and x.last_no for update;
    if found then
        perform divvy.write_out_ready(k, s, v_no, divvy.payloads_of(k.id, v_no, v_no)) from divvy.task k where k.id = s.share_of;
        update divvy.stretch x set first_no = v_no + 1 where x.share_of = s.share_of and x.stripe = s.stripe;
        insert into divvy.stretch (share_of, stripe, first_no, last_no, id_base, lane, due_at, task_type)
        select s.share_of, (select max(x.stripe) from divvy.stretch x where x.share_of = s.share_of) + 1, s.first_no, v_no - 1, s.id_base, s.lane,
            s.due_at, s.task_type
        where s.first_no < v_no;
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
                and y.first_no >= coalesce((select max(z.first_no) from divvy.ended z where z.share_of = p_task and z.first_no <= p_after), 0)
            order by y.first_no limit p_max) e, generate_series(greatest(e.first_no, p_after + 1), e.last_no) n
        order by n limit p_max)) x
    order by x.no limit p_max
$$;
