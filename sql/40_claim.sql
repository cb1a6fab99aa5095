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

-- The claim itself: what it takes, by lane. Its callers set how it is planned, once for all that they call.
create or replace function divvy.take(worker uuid, task_types text[], max int, lease interval, per_type int[]) returns divvy.part[]
language plpgsql as $$
#variable_conflict use_column
declare
    v_fine boolean;             -- checks raise; to assign what they return costs less than to perform them
    v_now timestamptz := divvy.clock();
    v_command text;
    v_seen_at timestamptz;
    v_got record;
begin
    -- Who holds a split stands in leases that an old snapshot does not see.
    v_fine := divvy.need_read_committed('claim') and divvy.check_claim(take.worker, take.task_types, take.max, take.lease, take.per_type);
    select w.command, w.seen_at into v_command, v_seen_at from divvy.worker w where w.id = take.worker;
    if not found then
        perform divvy.unknown('worker', take.worker::text);
    end if;
    if v_command <> 'run' then
        return '{}';
    end if;
    if v_seen_at < v_now - interval '1 min' then
        -- A worker that only claims lives too; written once a minute, so that no row is hot.
        update divvy.worker w set seen_at = v_now where w.id = take.worker;
    end if;
    v_got := divvy.pick(take.task_types, take.max, take.per_type, v_now);
    -- Nothing to do is the time to look whether a task waits for its reduce.
    if v_got.parts = '{}' and exists (select from divvy.fan_in) and divvy.settle(100) > 0 then
        v_got := divvy.pick(take.task_types, take.max, take.per_type, v_now);
    end if;
    if v_got.parts = '{}' then
        return '{}';
    end if;
    return divvy.lend(v_got.parts, take.worker, coalesce(take.lease, v_got.length), v_got.timeout, v_got.limited, v_now);
end $$;

-- The same over retries and reclaims; new after each continuation and redrive. (Inlined, as `||` of numbers would not be.)
create or replace function divvy.idempotency_key(p_task bigint, p_phase text, p_no int, p_epoch int, p_continuation int) returns text
language sql immutable parallel safe as $$
    select p_task::text || '.' || case when p_phase = 'execute' then p_no::text else p_phase end || '.' || p_epoch::text || '.' || p_continuation::text
$$;

-- Parts with all columns of one length: in one of a stretch, what is the same for all stands once, and what a rule says not at all.
create or replace function divvy.at_full_length(p_parts divvy.part[]) returns divvy.part[]
language plpgsql stable as $$
declare
    p divvy.part;
    n int[];
begin
    for i in 1 .. cardinality(p_parts) loop
        p := p_parts[i];
        n[1] := cardinality(p.split_ids);
        continue when p.lane < 20;
        p.split_nos := array(select generate_series(p.split_nos[1], p.split_nos[1] + n[1] - 1));
        if p.rule is not null then
            p.split_payloads := array(select divvy.payload_by(p.rule, no) from unnest(p.split_nos) with ordinality as x (no, at) order by at);
            p.rule := null;
        end if;
        p.task_ids := array_fill(p.task_ids[1], n);
        p.phases := array_fill(p.phases[1], n);
        p.split_counts := array_fill(p.split_counts[1], n);
        p.attempts := array_fill(p.attempts[1], n);
        p.max_attempts := array_fill(p.max_attempts[1], n);
        p.payloads := array_fill(p.payloads[1], n);
        p.checkpoints := array_fill(p.checkpoints[1], n);
        p.headers := array_fill(p.headers[1], n);
        p.epochs := array_fill(p.epochs[1], n);
        p.continuations := array_fill(p.continuations[1], n);
        p.scheduled_for := array_fill(p.scheduled_for[1], n);
        p.timeouts := array_fill(p.timeouts[1], n);
        p_parts[i] := p;
    end loop;
    return p_parts;
end $$;

-- Claims up to max ready splits of the types, in lane order: plan and reduce first, then by priority aged one
-- step a minute. One lease for all of them. per_type bounds each type, in the order of task_types.
-- Returns the claimed splits; none for a worker told quiet or terminate.
-- Errors: DV010 (not READ COMMITTED too), DV011 (worker). Locks: the claimed splits (skip locked).
create or replace function divvy.claim(worker uuid, task_types text[], max int default 1, lease interval default null,
    per_type int[] default null)
returns table (split_id bigint, task_id bigint, task_type text, phase text, split_no int, split_count int, attempt int, max_attempts int,
    token bigint, lease_until timestamptz, payload jsonb, split_payload jsonb, checkpoint jsonb, headers jsonb, epoch int,
    scheduled_for timestamptz, idempotency_key text, timeout interval)
language sql security definer rows 100 set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off
set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan set jit = off set intervalstyle = postgres as $$
    select s.split_id, s.task_id, p.task_type, s.phase, s.split_no, s.split_count, s.attempt, s.max_attempts, p.token, p.lease_until,
        s.payload, s.split_payload, s.checkpoint, s.headers, s.epoch, s.scheduled_for,
        divvy.idempotency_key(s.task_id, s.phase, s.split_no, s.epoch, s.continuation), s.timeout
    from unnest(divvy.at_full_length(divvy.take(claim.worker, claim.task_types, claim.max, claim.lease, claim.per_type))) with ordinality p,
        unnest(p.split_ids, p.task_ids, p.phases, p.split_nos, p.split_counts, p.attempts, p.max_attempts, p.payloads, p.split_payloads,
            p.checkpoints, p.headers, p.epochs, p.continuations, p.scheduled_for, p.timeouts) with ordinality
            s (split_id, task_id, phase, split_no, split_count, attempt, max_attempts, payload, split_payload,
            checkpoint, headers, epoch, continuation, scheduled_for, timeout, n)
    order by p.ordinality, s.n
$$;

create or replace function divvy.check_claim(p_worker uuid, p_task_types text[], p_max int, p_lease interval, p_per_type int[]) returns boolean
language plpgsql as $$
declare
    v_what text := format('claim of worker %s', p_worker);
begin
    if p_max is null or p_max < 0 then
        perform divvy.bad_option(v_what, format('max is %s; it must not be negative', coalesce(p_max::text, 'null')));
    end if;
    if p_lease < interval '1 s' or p_lease > interval '1 day' then
        perform divvy.bad_option(v_what, format('lease is %s; it must be 1 s to 1 day', p_lease));
    end if;
    if p_task_types is null then
        perform divvy.bad_option(v_what, 'task_types is null');
    end if;
    if p_per_type is not null and cardinality(p_per_type) <> cardinality(p_task_types) then
        perform divvy.bad_option(v_what, format('per_type has %s entries for %s types', cardinality(p_per_type), cardinality(p_task_types)));
    end if;
    return divvy.check_limit('batch', p_max, v_what);
end $$;

create or replace function divvy.check_batch(p_call text, p_ids bigint[], p_tokens bigint[]) returns boolean
language plpgsql as $$
begin
    if cardinality(p_ids) is distinct from cardinality(p_tokens) then
        perform divvy.bad_option(p_call, format('%s split_ids and %s tokens', cardinality(p_ids), cardinality(p_tokens)));
    end if;
    return divvy.check_limit('batch', cardinality(p_ids), p_call);
end $$;

-- How long a worker of these types may sleep before it looks again; it then counts as idle, so producers wake it.
-- Also runs a small tick, at most once a second per database, and starts what of these types has come due since: what waits for a
-- moment needs nobody else.
create or replace function divvy.next_wait(task_types text[]) returns interval
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off as $$
declare
    v_now constant timestamptz := divvy.clock();
    v_longest constant interval := '1.8 s';   -- so the small tick keeps its rhythm when nobody leads
    v_ticked constant boolean := divvy.small_tick(v_now);
    v_ready_at constant timestamptz := divvy.ready_at(next_wait.task_types, v_now);
    v_due timestamptz;
begin
    if v_ready_at <= v_now then
        return interval '0';
    end if;
    -- It looks again before that and says so again: producers that wake pay, so not for long after it became busy.
    insert into divvy.type_wake as w (task_type, idle_until)
    select distinct n, v_now + divvy.idle_span() from unnest(next_wait.task_types) n order by n
    on conflict (task_type) do update set idle_until = excluded.idle_until where w.idle_until < excluded.idle_until - interval '0.25 s';
    if not v_ticked then
        return interval '10 ms';
    end if;
    v_due := divvy.due_of(next_wait.task_types, v_now);
    if v_due <= v_now then
        perform divvy.start_due();
        -- What is not ready then is just being started by somebody, or locked: another try is soon.
        return case when divvy.ready_at(next_wait.task_types, v_now) <= v_now then interval '0' else interval '0.1 s' end;
    end if;
    return greatest(interval '10 ms', least(v_longest, v_due - v_now, v_ready_at - v_now));
end $$;

-- From when on there is something to claim of these types, as far as what is ready now tells: later than now where a limit says so.
create or replace function divvy.ready_at(p_types text[], p_now timestamptz) returns timestamptz
language plpgsql as $$
declare
    t divvy.task_type;
    v_free_at timestamptz;
    v_first timestamptz;
begin
    for t in select * from divvy.task_type x
        where x.name = any (p_types) and coalesce(x.paused_until <= p_now, true)
            and (divvy.has_ready(x.name) or (x.limited and exists (select from divvy.freed f where f.task_type = x.name and f.ended)))
    loop
        v_free_at := case when t.limited then divvy.free_at(t, p_now) else p_now end;
        v_first := least(v_first, v_free_at);
        exit when v_first <= p_now;
    end loop;
    return v_first;
end $$;

-- Starts what has come due since the last tick, unless somebody else is at it.
create or replace function divvy.start_due() returns void
language plpgsql as $$
begin
    perform from divvy.pulse for update skip locked;
    if found then
        perform divvy.fire_due(50), divvy.promote(50);
    end if;
end $$;

-- The next moment that something of these types waits for: a scheduled task, a schedule, and a delayed split, of the next few there
-- are. What has been due for longer than two seconds is left to ticks: so it hides nothing, and nobody hurries for what stays.
create or replace function divvy.due_of(p_types text[], p_now timestamptz) returns timestamptz
language plpgsql stable set plan_cache_mode = force_generic_plan as $$
declare
    v_from constant timestamptz := p_now - interval '2 s';
begin
    return least(
        (select min(r.run_at) from unnest(p_types) n, lateral (select k.run_at from divvy.task k
            where k.task_type = n and k.key < 0 and k.phase is null and k.run_at > v_from order by k.run_at limit 1) r),
        (select min(x.next_fire_at) from (select s.next_fire_at, s.task_type from divvy.schedule s
            where s.status = 'active' and s.next_fire_at > v_from order by s.next_fire_at limit 16) x where x.task_type = any (p_types)),
        (select min(x.due_at) from (select u.due_at, u.task_type from divvy.unit u
            where u.due_at > v_from and u.due_at < 'infinity' and u.key < 0 and u.phase is not null order by u.due_at limit 16) x
        where x.task_type = any (p_types)));
end $$;

-- How long a worker counts as idle after it has said so: until after its next look, also where it was not written down that it said so again.
create or replace function divvy.idle_span() returns interval
language sql immutable parallel safe security definer set search_path = pg_catalog, pg_temp as $$ select interval '2.5 s' $$;

-- Whether something of the type is ready and leased to nobody.
create or replace function divvy.has_ready(p_type text) returns boolean
language plpgsql stable as $$
begin
    return exists (select from divvy.first_waiting(p_type));
end $$;

-- What is due of a tick, for about 20 ms of real time, so that no statement of a worker's is long: the next call of anybody goes on.
-- Returns whether it is done.
create or replace function divvy.small_tick(p_now timestamptz) returns boolean
language plpgsql as $$
declare
    v_until constant double precision := extract(epoch from clock_timestamp()) + 0.02;
    v_next int;
    d record;
begin
    -- A look without a lock first: this is asked far more often than there is a tick to do.
    if not exists (select from divvy.pulse where small_tick_at is null or small_tick_at <= p_now - interval '1 s' or small_tick_at > p_now) then
        return true;
    end if;
    select p.small_tick_next into v_next from divvy.pulse p where small_tick_at is null or small_tick_at <= p_now - interval '1 s' or small_tick_at > p_now
    for update skip locked;
    if not found then
        return true;
    end if;
    for d in select * from divvy.urgent_duties(50, v_next, v_until) loop
        v_next := d.next;
    end loop;
    update divvy.pulse set small_tick_next = v_next, small_tick_at = case when v_next = 1 then p_now else small_tick_at end;
    return v_next = 1;
end $$;

-- Advisory locks, by name. The leader's is a session lock, on a connection of its own.
create or replace function divvy.lock_of(p_name text) returns bigint
language sql immutable parallel safe as $$
    select case p_name when 'leader' then 490531200001 when 'low water' then 490531200003 when 'prune' then 490531200005
        when 'limit' then 490531207       -- of a pair, with a type's no: whoever claims of a type with limits
        when 'rowless' then 490531208 end   -- of a pair, with part of a token: whoever ends splits that have no row
$$;
