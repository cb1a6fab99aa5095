-- Workers take splits. A claim starts at a position, not at the front of the index: what is behind the
-- position is dead to it, however long a forgotten snapshot keeps the entries (docs/adr/0003).

-- The protocol versions this schema speaks.
create or replace function divvy.protocol(out min int, out max int, out server_now timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select 1, 1, divvy.clock()
$$;

-- Makes a worker known. meta may declare types: {"types": {"name": {"plan": true, "reduce": true}}}; a
-- declared type is never altered. Returns the worker's command and how often it should heartbeat.
-- Errors: DV010, DV020 (meta.protocol outside what protocol() says).
create or replace function divvy.register_worker(worker uuid, name text, task_types text[], slots int, meta jsonb default '{}',
    out command text, out heartbeat interval)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v_type text;
    v_what text := format('worker %s', register_worker.worker);
begin
    if coalesce((meta ->> 'protocol')::int, 1) <> 1 then
        raise exception using errcode = 'DV020', message = format('%s speaks protocol %s, this schema speaks 1', v_what, meta ->> 'protocol');
    end if;
    if slots is null or slots < 1 then
        perform divvy.bad_option(v_what, format('slots is %s; it must be positive', coalesce(slots::text, 'null')));
    end if;
    foreach v_type in array coalesce(task_types, '{}') loop
        perform divvy.check_name(v_type, v_what || ': task_types');
    end loop;
    for v_type in select k from jsonb_object_keys(coalesce(meta -> 'types', '{}')) k
        where not exists (select from divvy.task_type t where t.name = k) order by k
    loop
        perform divvy.put_task_type(v_type, meta -> 'types' -> v_type);
        update divvy.task_type t set declared_by = 'worker' where t.name = v_type;
    end loop;
    insert into divvy.worker as w (id, name, task_types, slots, meta)
    values (register_worker.worker, left(coalesce(register_worker.name, ''), 200), coalesce(register_worker.task_types, '{}'),
        register_worker.slots, coalesce(register_worker.meta, '{}'))
    on conflict (id) do update set name = excluded.name, task_types = excluded.task_types, slots = excluded.slots, meta = excluded.meta,
        seen_at = divvy.clock()
    returning w.command into command;
    select coalesce(min(t.lease), interval '30 s') / 3 into heartbeat from divvy.task_type t where t.name = any (task_types);
end $$;

-- Claims up to max ready splits of the types, in lane order: plan and reduce first, then by priority aged one
-- step a minute. One lease for all of them. per_type bounds each type, in the order of task_types.
-- Returns the claimed splits; none for a worker told quiet or terminate.
-- Errors: DV010, DV011 (worker). Locks: the claimed splits (skip locked).
create or replace function divvy.claim(worker uuid, task_types text[], max int default 1, lease interval default null,
    per_type int[] default null)
returns table (split_id bigint, task_id bigint, task_type text, phase text, split_no int, split_count int, attempt int, max_attempts int,
    token bigint, lease_until timestamptz, payload jsonb, split_payload jsonb, checkpoint jsonb, headers jsonb, epoch int,
    scheduled_for timestamptz, idempotency_key text, timeout interval)
language plpgsql security definer rows 100 set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan set jit = off set intervalstyle = postgres as $$
#variable_conflict use_column
declare
    v_now timestamptz := divvy.clock();
    v_token bigint;
    v_got record;
    v_until timestamptz;
begin
    perform divvy.check_claim(claim.worker, claim.task_types, claim.max, claim.lease, claim.per_type);
    if (select w.command from divvy.worker w where w.id = claim.worker) <> 'run' then
        return;
    end if;
    -- A worker that only claims lives too; written once a minute, so that no row is hot.
    update divvy.worker w set seen_at = v_now where w.id = claim.worker and w.seen_at < v_now - interval '1 min';
    v_token := nextval('divvy.token');
    v_got := divvy.pick(claim.task_types, claim.max, claim.per_type, claim.worker, v_token, v_now);
    -- Nothing to do is the time to look whether a task waits for its reduce.
    if v_got.ids = '{}' and exists (select from divvy.fan_in) and divvy.settle(100) > 0 then
        v_got := divvy.pick(claim.task_types, claim.max, claim.per_type, claim.worker, v_token, v_now);
    end if;
    if v_got.ids = '{}' then
        return;
    end if;
    v_until := v_now + least(coalesce(claim.lease, v_got.lease), v_got.timeout);
    insert into divvy.lease (token, worker, length, claimed_at, lease_until, deadline_at, split_ids)
    values (v_token, claim.worker, coalesce(claim.lease, v_got.lease), v_now, v_until, v_now + v_got.timeout, v_got.ids);

    return query
    select u.id, k.id, u.task_type, u.phase::text,
        u.split_no, coalesce(k.split_count, 1), u.attempt + 1, u.attempt_base + coalesce(u.max_attempts, t.max_attempts),
        v_token, v_until,
        k.payload, case when u.share_of is not null then u.payload end, u.checkpoint, k.headers, k.epoch, k.scheduled_for,
        divvy.idempotency_key(k.id, u.phase, u.split_no, k.epoch, u.continuation), coalesce(u.timeout, t.timeout)
    from unnest(v_got.ids) with ordinality as p (id, n)
    join divvy.unit u on u.id = p.id
    join divvy.task k on k.id = coalesce(u.share_of, u.id)
    join divvy.task_type t on t.name = u.task_type
    order by p.n;
end $$;

-- The same over retries and reclaims; new after each continuation and redrive. (Stable, as the cast of an enum is: so
-- it is inlined.)
create or replace function divvy.idempotency_key(p_task bigint, p_phase divvy.phase, p_no int, p_epoch int, p_continuation int) returns text
language sql stable parallel safe as $$
    select p_task || '.' || case when p_phase = 'execute' then p_no::text else p_phase::text end || '.' || p_epoch || '.' || p_continuation
$$;

create or replace function divvy.check_claim(p_worker uuid, p_task_types text[], p_max int, p_lease interval, p_per_type int[]) returns void
language plpgsql as $$
declare
    v_what text := format('claim of worker %s', p_worker);
begin
    if p_max is null or p_max < 0 then
        perform divvy.bad_option(v_what, format('max is %s; it must not be negative', coalesce(p_max::text, 'null')));
    end if;
    perform divvy.check_limit('batch', p_max, v_what);
    if p_lease < interval '1 s' or p_lease > interval '1 day' then
        perform divvy.bad_option(v_what, format('lease is %s; it must be 1 s to 1 day', p_lease));
    end if;
    if p_task_types is null then
        perform divvy.bad_option(v_what, 'task_types is null');
    end if;
    if p_per_type is not null and cardinality(p_per_type) <> cardinality(p_task_types) then
        perform divvy.bad_option(v_what, format('per_type has %s entries for %s types', cardinality(p_per_type), cardinality(p_task_types)));
    end if;
    perform from divvy.worker w where w.id = p_worker;
    if not found then
        perform divvy.unknown('worker', p_worker::text);
    end if;
end $$;

-- Takes ready splits for a token: their ids in the order of claiming, the longest lease of their types and the longest
-- timeout. Types take turns at being first, so that none starves another.
create or replace function divvy.pick(p_task_types text[], p_max int, p_per_type int[], p_worker uuid, p_token bigint, p_now timestamptz,
    out ids bigint[], out lease interval, out timeout interval)
language plpgsql as $$
declare
    v_room bigint := divvy.limit_of('claim answer');
    v_types int := cardinality(p_task_types);
    v_first int := floor(random() * v_types)::int;
    v_at int;
    v_type record;
    v_want int;
    v_got record;
begin
    ids := '{}';
    for i in 0 .. v_types - 1 loop
        v_at := (v_first + i) % v_types + 1;
        v_want := least(p_max - cardinality(ids), p_per_type[v_at]);
        exit when cardinality(ids) >= p_max or v_room <= 0;
        continue when v_want <= 0;
        select t.name, t.no, t.lease, t.timeout into v_type from divvy.task_type t
        where t.name = p_task_types[v_at] and (t.paused_until is null or t.paused_until <= p_now);
        continue when not found;
        v_got := divvy.pick_type(v_type.name, v_type.no, v_want, v_room, p_worker, p_token, p_now);
        continue when v_got.ids = '{}';
        ids := ids || v_got.ids;
        v_room := v_room - v_got.bytes;
        lease := greatest(lease, v_type.lease);
        timeout := greatest(timeout, coalesce(v_got.timeout, v_type.timeout), case when v_got.bare then v_type.timeout end);
    end loop;
end $$;

-- The same of one type. Where a session has come in each lane it remembers in a setting of its own: a hint, which
-- a rollback takes back with the claim, and which is never needed for correctness. A session looks again from the
-- marks (everything below is finished for good) once a second, and at once when it found too little, but gives
-- that at most a tenth of its time: a mark that an open producer holds back costs workers little.
create or replace function divvy.pick_type(p_type text, p_no int, p_want int, p_room bigint, p_worker uuid, p_token bigint, p_now timestamptz,
    out ids bigint[], out bytes bigint, out timeout interval, out bare boolean)
language plpgsql as $$
declare
    v_setting text := 'divvy.position_' || p_no;
    v_memory text[] := string_to_array(nullif(current_setting(v_setting, true), ''), ' ');
    v_positions bigint[] := v_memory[1]::bigint[];     -- by lane + 1
    v_rewind_at double precision := v_memory[2];       -- the real clock: this bounds cost, it decides nothing
    v_may_rewind_at double precision := v_memory[3];
    v_started double precision := extract(epoch from clock_timestamp());
    v_rewound boolean := v_positions is null or v_started >= v_rewind_at;
    v_lane smallint;
    v_got record;
begin
    ids := '{}';
    bytes := 0;
    bare := false;
    loop
        if v_rewound then
            v_positions := array(select l.mark from divvy.lane l where l.task_type = p_type order by l.lane);
        end if;
        foreach v_lane in array divvy.lanes_by_age(p_type, v_positions, p_now) loop
            exit when cardinality(ids) >= p_want or bytes >= p_room;
            v_got := divvy.pick_lane(p_type, v_lane, v_positions[v_lane + 1], p_want - cardinality(ids), p_room - bytes, p_worker, p_token, p_now);
            ids := ids || v_got.ids;
            bytes := bytes + v_got.bytes;
            timeout := greatest(timeout, v_got.timeout);
            bare := bare or v_got.bare;
            v_positions[v_lane + 1] := v_got.last_key;
        end loop;
        exit when v_rewound or cardinality(ids) >= p_want or bytes >= p_room or v_started < v_may_rewind_at;
        v_rewound := true;
    end loop;
    if v_rewound then
        v_may_rewind_at := v_started + 10 * (extract(epoch from clock_timestamp()) - v_started);
        v_rewind_at := greatest(v_started + 1, v_may_rewind_at);
    end if;
    perform set_config(v_setting, concat_ws(' ', v_positions, v_rewind_at, v_may_rewind_at), false);
end $$;

-- The lanes of a type that hold something ready after the positions, most urgent first: the front lane, then by
-- priority, where each minute of waiting counts as one step.
create or replace function divvy.lanes_by_age(p_type text, p_positions bigint[], p_now timestamptz) returns smallint[]
language plpgsql as $$
declare
    v_lanes smallint[] := '{}';
    v_ranks double precision[] := '{}';
    v_due timestamptz;
begin
    for v_lane in 0..4 loop
        select u.due_at into v_due from divvy.unit u
        where u.task_type = p_type and u.lane = v_lane and u.state = 'ready' and u.key > p_positions[v_lane + 1]
        order by u.key limit 1;
        if found then
            v_lanes := v_lanes || v_lane::smallint;
            v_ranks := v_ranks || case when v_lane = 0 then '-infinity' else v_lane * 60 - extract(epoch from p_now - v_due) end;
        end if;
    end loop;
    if cardinality(v_lanes) < 2 then
        return v_lanes;
    end if;
    return array(select l from unnest(v_lanes, v_ranks) as x (l, r) order by r, l);
end $$;

-- The bytes of a value in an answer. Looks into none that is small as it lies there; a compressed one may be anything.
create or replace function divvy.answer_bytes(p_value jsonb) returns int
language sql stable parallel safe as $$
    select coalesce(case when pg_column_size(p_value) < 3000 and pg_column_compression(p_value) is null then pg_column_size(p_value)
        else octet_length(p_value::text) end, 0)
$$;

-- Takes up to p_want ready splits of a lane behind p_from, and no more bytes than p_room (an empty answer has room for
-- any split). Also says the longest timeout that they carry, and whether some carry none.
create or replace function divvy.pick_lane(p_type text, p_lane smallint, p_from bigint, p_want int, p_room bigint, p_worker uuid, p_token bigint, p_now timestamptz,
    out ids bigint[], out last_key bigint, out bytes bigint, out timeout interval, out bare boolean)
language plpgsql as $$
begin
    with picked as materialized (
        select u.id, u.key, u.timeout, u.share_of,
            divvy.answer_bytes(u.payload) + divvy.answer_bytes(u.checkpoint) as own
        from divvy.unit u
        where u.task_type = p_type and u.lane = p_lane and u.state = 'ready' and u.key > p_from
        order by u.key limit p_want
        for update of u skip locked
    ), sized as (
        select p.id, p.key, p.timeout,
            sum(p.own + (
                    select divvy.answer_bytes(k.headers) + case when p.share_of is null then 0 else divvy.answer_bytes(k.payload) end
                    from divvy.task k where k.id = coalesce(p.share_of, p.id))) over (order by p.key) as total
        from picked p
    ), fitting as materialized (
        select s.id, s.key, s.timeout, s.total from sized s where s.total <= p_room
    ), taken as (
        update divvy.unit u set state = 'running', token = p_token, worker = p_worker, started_at = p_now, reason = null
        where u.id = any (array(select f.id from fitting f))
    )
    select coalesce(array_agg(f.id order by f.key), '{}'), coalesce(max(f.key), p_from), coalesce(max(f.total), 0),
        max(f.timeout), coalesce(bool_or(f.timeout is null), false)
    into ids, last_key, bytes, timeout, bare
    from fitting f;
end $$;

-- Says that the worker lives, renews exactly the leases of the given tokens, and hears orders: a row for each
-- split (ok | cancel | lost), and one with split_id null for the worker (run | quiet | terminate).
-- Errors: DV010, DV011 (worker). Locks: the worker's row, the leases by token.
create or replace function divvy.heartbeat(worker uuid, split_ids bigint[], tokens bigint[], lease interval default null)
returns table (split_id bigint, verdict text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set plan_cache_mode = force_generic_plan set jit = off as $$
#variable_conflict use_column
declare
    v_now timestamptz := divvy.clock();
    v_command text;
begin
    perform divvy.check_batch('heartbeat', split_ids, tokens);
    update divvy.worker w set seen_at = v_now where w.id = heartbeat.worker returning w.command into v_command;
    if not found then
        perform divvy.unknown('worker', heartbeat.worker::text);
    end if;
    perform from divvy.lease l where l.token = any (tokens) order by l.token for update;
    update divvy.lease l set lease_until = least(v_now + coalesce(heartbeat.lease, l.length), l.deadline_at),
        length = coalesce(heartbeat.lease, l.length)
    where l.token = any (tokens) and l.deadline_at > v_now;
    return query
    select g.id, case when u.id is null then 'lost' when k.cancel_requested_at is not null then 'cancel' else 'ok' end
    from unnest(split_ids, tokens) as g (id, token)
    left join divvy.unit u on u.id = g.id and u.token = g.token and u.state = 'running'
    left join divvy.task k on k.id = coalesce(u.share_of, u.id);
    return query select null::bigint, v_command;
end $$;

create or replace function divvy.check_batch(p_call text, p_ids bigint[], p_tokens bigint[]) returns void
language plpgsql as $$
begin
    if cardinality(p_ids) is distinct from cardinality(p_tokens) then
        perform divvy.bad_option(p_call, format('%s split_ids and %s tokens', cardinality(p_ids), cardinality(p_tokens)));
    end if;
    perform divvy.check_limit('batch', cardinality(p_ids), p_call);
end $$;

-- How long a worker of these types may sleep before it looks again; it then counts as idle, so producers wake it.
-- Also runs a small tick, at most once a second per database: what waits for a moment needs nobody else.
create or replace function divvy.next_wait(task_types text[]) returns interval
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    v_now timestamptz := divvy.clock();
    v_longest constant interval := '1 s';   -- so the small tick keeps its rhythm when nobody leads
    v_type text;
    v_due timestamptz;
begin
    perform divvy.small_tick(v_now);
    foreach v_type in array next_wait.task_types loop
        if exists (select from divvy.lane l, lateral (select from divvy.unit u where u.task_type = v_type and u.lane = l.lane
                and u.state = 'ready' and u.key > l.mark order by u.key limit 1) r
                where l.task_type = v_type)
            and not exists (select from divvy.task_type t where t.name = v_type and t.paused_until > v_now) then
            return interval '0';
        end if;
        insert into divvy.type_wake as w (task_type, idle_until) values (v_type, v_now + interval '5 s')
        on conflict (task_type) do update set idle_until = excluded.idle_until where w.idle_until < v_now + interval '3 s';
    end loop;
    select least((select min(u.due_at) from divvy.unit u where u.state = 'delayed'),
        (select min(s.next_fire_at) from divvy.schedule s where s.status = 'active')) into v_due;
    return greatest(interval '10 ms', least(v_longest, v_due - v_now));
end $$;

create or replace function divvy.small_tick(p_now timestamptz) returns void
language plpgsql as $$
begin
    -- A look without a lock first: this is asked far more often than there is a tick to do.
    if not exists (select from divvy.pulse where small_tick_at is null or small_tick_at <= p_now - interval '1 s' or small_tick_at > p_now) then
        return;
    end if;
    perform from divvy.pulse where small_tick_at is null or small_tick_at <= p_now - interval '1 s' or small_tick_at > p_now
    for update skip locked;
    if found then
        update divvy.pulse set small_tick_at = p_now;
        perform from divvy.tick(50);
    end if;
end $$;

-- Advisory locks, by name. The leader's is a session lock, on a connection of its own.
create or replace function divvy.lock_of(p_name text) returns bigint
language sql immutable parallel safe as $$
    select case p_name when 'leader' then 490531200001 when 'low water' then 490531200003 when 'prune' then 490531200005 end
$$;
