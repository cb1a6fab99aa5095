-- Why is this split not running? Each rule that a claim applies is asked by the functions that decide (sql/42 to 44, sql/72), in
-- the order in which they decide. Nothing is locked and nothing is changed: by the time it is read, a claim may have gone on.

-- The rules that stand between a split and its run: what each says of it now, and whether it alone is enough to keep it waiting.
-- A task that has not started has no split yet; its own id stands for it. One that runs or has ended says only that.
-- Returns the rules in their order. Errors: DV011.
create or replace function divvy.explain(split_id bigint) returns table (rule text, blocking boolean, detail text)
language plpgsql rows 20 security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
    v_now timestamptz := divvy.clock();
    s divvy.split;
    k divvy.task;
    t divvy.task_type;
    v_free bigint;
begin
    select x.* into s from divvy.split_by_id(explain.split_id) x;
    select x.* into k from divvy.task x where x.id = coalesce(s.task_id, explain.split_id);
    if s.id is null and k.status is distinct from 'scheduled' then
        perform divvy.unknown('split', concat(explain.split_id, ': task ' || k.id || ' is ' || k.status || ', and its splits have ids of their own'));
    end if;
    return query select * from divvy.explain_status(s, k, v_now);
    if s.status in ('running', 'succeeded', 'failed', 'cancelled', 'skipped') then
        return;
    end if;
    select x.* into t from divvy.task_type x where x.name = k.task_type;
    return query select * from divvy.explain_pauses(k, t, v_now);
    return query select * from divvy.explain_moment(s, k, t, v_now);
    v_free := (select sum(greatest(w.slots - w.leased, 0)) from divvy.worker_overview w where k.task_type = any (w.task_types) and w.alive and w.command = 'run');
    return query select * from divvy.explain_workers(k.task_type, v_free);
    if t.name is not null then
        return query select * from divvy.explain_limits(s, k, t, v_now);
        return query select * from divvy.explain_place(s, k, t, coalesce(v_free, 0), v_now);
    end if;
end $$;

-- What it is, and who has it.
create or replace function divvy.explain_status(s divvy.split, k divvy.task, p_now timestamptz) returns table (rule text, blocking boolean, detail text)
language plpgsql rows 3 as $$
declare
    v_until timestamptz;
    v_name text;
    v_alive boolean;
begin
    if s.id is null then
        return query select 'status', false, format('task %s is scheduled: it has not started', k.id);
    elsif s.finished_at is not null then
        return query select 'status', true, format('it is %s since %s%s', s.status, s.finished_at, coalesce(': ' || s.reason, ''));
    elsif s.status <> 'running' then
        return query select 'status', false, format('split %s of task %s (%s) is %s%s, attempt %s of %s', s.split_no, k.id, s.phase, s.status,
            coalesce(': ' || s.reason, ''), s.attempt, s.max_attempts);
    else
        select max(l.lease_until) into v_until from divvy.lease l where l.token = s.token;
        select w.name, w.seen_at > p_now - interval '1 min' into v_name, v_alive from divvy.worker w where w.id = s.worker;
        return query select 'status', false, format('it runs since %s, attempt %s of %s', s.started_at, s.attempt, s.max_attempts);
        return query select 'lease', coalesce(v_until <= p_now, true), format('worker %s (%s%s) holds it by token %s until %s%s', s.worker, coalesce(v_name, 'unknown'),
            case when v_alive then '' else ', not seen for a minute' end, s.token, v_until,
            case when v_until <= p_now then ', which has passed: the next reclaim takes it back' else '' end);
    end if;
    if k.cancel_requested_at is not null and k.finished_at is null then
        return query select 'cancel', s.status <> 'running', format('a cancel of task %s was asked for at %s: %s', k.id, k.cancel_requested_at, k.cancel_reason);
    end if;
end $$;

-- Whether people hold its task or its type, and whether there is such a type.
create or replace function divvy.explain_pauses(k divvy.task, t divvy.task_type, p_now timestamptz) returns table (rule text, blocking boolean, detail text)
language sql stable rows 3 as $$
    select 'task_pause', coalesce(k.paused_until > p_now, false), case when k.paused_until > p_now
        then format('task %s is paused until %s%s', k.id, coalesce(nullif(k.paused_until, 'infinity')::text, 'it is resumed'), coalesce(': ' || k.pause_reason, ''))
        else format('task %s is not paused', k.id) end
    union all
    select 'type', t.name is null, format(case when t.name is null then 'nobody has declared type %s: divvy.put_task_type does, and so does a worker that registers it'
        else 'type %s is declared' end, k.task_type)
    union all
    select 'type_pause', coalesce(t.paused_until > p_now, false), case when t.paused_until > p_now
        then format('type %s is paused until %s%s', t.name, coalesce(nullif(t.paused_until, 'infinity')::text, 'it is resumed'), coalesce(': ' || t.pause_reason, ''))
        else format('type %s is not paused', t.name) end
    where t.name is not null
$$;

-- The moment that it waits for, what a limit has put aside, and who makes it ready.
create or replace function divvy.explain_moment(s divvy.split, k divvy.task, t divvy.task_type, p_now timestamptz) returns table (rule text, blocking boolean, detail text)
language plpgsql rows 3 as $$
declare
    v_stored divvy.split_status := coalesce((select u.state from divvy.unit u where u.id = s.id), (select r.state from divvy.rowless(s.id) r));
    v_at timestamptz := case when s.id is null then k.run_at when v_stored = 'delayed' then s.due_at end;
    v_ticked timestamptz := (select p.reclaimed_at from divvy.pulse p);
    v_due boolean;
begin
    if s.reason = 'limit' and v_stored = 'delayed' then
        return query select 'held', true, 'a limit of its task or group holds it back: a claim of the type lets it go when one of them has ended'::text;
    elsif v_at is null then
        return query select 'moment', false, format('it may run since %s', s.due_at);
    elsif v_at > p_now then
        return query select 'moment', true, format('it waits until %s: %s%s', coalesce(nullif(v_at, 'infinity')::text, 'it is resumed'),
            coalesce(s.reason, k.reason), coalesce(' after ' || nullif(concat_ws(': ', s.error ->> 'class', s.error ->> 'message'), ''), ''));
    else
        return query select 'moment', t.name is not null, format('its moment %s has come%s', v_at, case when t.name is not null then ': the next tick makes it ready' else '' end);
    end if;
    v_due := v_at <= p_now and t.name is not null and s.reason is distinct from 'limit';
    return query select 'tick', coalesce(v_due, false) and coalesce(v_ticked <= p_now - interval '10 s', true),
        format('%s; %s', coalesce('the last tick was at ' || v_ticked, 'there was no tick yet'), coalesce((select format('%s leads since %s', l.name, l.since)
            from divvy.leader l where divvy.somebody_leads() order by l.term desc limit 1), 'nobody leads: divvy serve, any worker or divvy tick does it'));
end $$;

-- Who could take it.
create or replace function divvy.explain_workers(p_type text, p_free bigint) returns table (rule text, blocking boolean, detail text)
language plpgsql rows 2 as $$
declare
    w record;
begin
    select count(*) as known, count(*) filter (where x.alive) as alive, count(*) filter (where x.alive and x.command = 'run') as willing, max(x.seen_at) as seen_at,
        coalesce(sum(x.slots) filter (where x.alive and x.command = 'run'), 0) as slots, coalesce(sum(x.leased) filter (where x.alive and x.command = 'run'), 0) as taken
    into w from divvy.worker_overview x where p_type = any (x.task_types);
    return query select 'worker', w.willing = 0, case
        when w.known = 0 then format('no worker has registered type %s', p_type)
        when w.alive = 0 then format('%s workers have registered type %s; the last of them was seen at %s', w.known, p_type, w.seen_at)
        when w.willing = 0 then format('all %s workers of type %s were told to be quiet or to stop', w.alive, p_type)
        else format('%s workers of type %s are there, %s of them may claim', w.alive, p_type, w.willing) end;
    if w.willing > 0 then
        return query select 'slots', p_free <= 0, format('%s of their %s slots are free, they hold %s splits', p_free, w.slots, w.taken);
    end if;
end $$;

-- The limits that its type has.
create or replace function divvy.explain_limits(s divvy.split, k divvy.task, t divvy.task_type, p_now timestamptz) returns table (rule text, blocking boolean, detail text)
language plpgsql rows 4 as $$
declare
    v_tokens bigint[] := array(select l.token from divvy.lease l where l.task_type = t.name and l.limited);
    v_labels text[] := array[case when k.group_key is not null then 'g:' || k.group_key end, 't:' || k.id];
    v_max int := t.max_running;
    n bigint;
begin
    if t.max_running is not null then
        n := divvy.running_by(t.name, v_tokens);
        return query select 'max_running', n >= t.max_running, format('%s of at most %s splits of type %s run', n, t.max_running, t.name);
    end if;
    if t.rate is not null then
        n := divvy.rate_room(t, p_now);
        t.max_running := null;    -- when the rate alone has a token
        return query select 'rate', n <= 0, format('%s in %s s, burst %s: %s', t.rate ->> 'count', t.rate ->> 'per', coalesce(t.rate ->> 'burst', t.rate ->> 'count'),
            case when n > 0 then format('%s more may start now', n) else format('the next may start at %s', divvy.free_at(t, p_now)) end);
        t.max_running := v_max;
    end if;
    if t.max_running_per_task is not null and s.id <> k.id then
        n := coalesce((select r.n from divvy.running_in(t.name, v_tokens, v_labels[2:2]) r), 0);
        return query select 'max_running_per_task', n >= t.max_running_per_task, format('%s of at most %s splits of task %s run', n, t.max_running_per_task, k.id);
    end if;
    if t.max_running_per_group is not null and v_labels[1] is not null then
        n := coalesce((select r.n from divvy.running_in(t.name, v_tokens, v_labels[1:1]) r), 0);
        return query select 'max_running_per_group', n >= t.max_running_per_group, format('%s of at most %s splits of group %L run', n, t.max_running_per_group, k.group_key);
    end if;
    if t.max_waiting is not null then
        return query select 'max_waiting', false, format('at most %s tasks of type %s may wait: it refuses new ones and holds back none', t.max_waiting, t.name);
    end if;
end $$;

-- Its turn: what is ready before it, as far as a look at a thousand tells, and whether claims know that it is there. p_free: slots.
create or replace function divvy.explain_place(s divvy.split, k divvy.task, t divvy.task_type, p_free bigint, p_now timestamptz) returns table (rule text, blocking boolean, detail text)
language plpgsql rows 3 as $$
declare
    v_most constant int := 1000;
    u divvy.unit;
    z divvy.stretch;
    c record;
    v_marks bigint[] := array(select l.mark from divvy.lane l where l.task_type = t.name order by l.lane);
    v_lanes smallint[] := divvy.lanes_by_age(t.name, v_marks, p_now);
    v_leased bigint[];
    v_before int;
    v_more text;    -- behind a count that goes on beyond what was looked at
    v_mark bigint;
begin
    select x.* into u from divvy.unit x where x.id = s.id and x.state = 'ready';
    if u.id is null then
        z := divvy.stretch_of(s.id);
        if z.lane > 0 and not coalesce(s.has_row, false) then
            v_before := s.split_no - z.first_no;
            return query select 'position', v_before > 0 and v_before >= p_free, format('%s splits of task %s come before it in its stretch; %s other tasks take turns with it in lane %s, whose turn is %s of %s',
                v_before, k.id, (select count(*) from (select distinct x.share_of from divvy.stretch x where x.task_type = t.name and x.lane = z.lane and x.first_no <= x.last_no
                    and x.share_of <> k.id limit v_most) o), z.lane, array_position(v_lanes, z.lane), cardinality(v_lanes));
        end if;
        return;
    end if;
    v_mark := v_marks[divvy.lane_slot(u.lane)];
    v_leased := array(select i from divvy.lease l cross join unnest(l.split_ids) i where l.task_type = t.name and not l.written and l.lane = u.lane);
    if t.fair_by_group then
        c := divvy.candidates(t.name, u.lane, v_mark, 9223372036854775807, v_most, v_leased);
        v_before := (select count(*) from unnest(c.keys, c.groups) as x (key, grp) where x.grp is not distinct from u.group_key and x.key < u.key);
        v_more := case when c.keys[v_most] < u.key then ' or more' else '' end;
        return query select 'fair_by_group', false, format('%s%s splits of its group %L come before it; %s%s groups take turns', v_before, v_more, u.group_key,
            (select count(distinct coalesce(x, '')) from unnest(c.groups) x), v_more);
    end if;
    c := divvy.candidates(t.name, u.lane, v_mark, u.key - 1, v_most, v_leased);
    v_before := coalesce(cardinality(c.keys), 0);
    return query select 'position', v_before > 0 and v_before >= p_free, format('%s%s ready splits come before it in lane %s, whose turn is %s of %s', v_before,
        case when v_before >= v_most then ' or more' else '' end, u.lane, array_position(v_lanes, u.lane), cardinality(v_lanes));
    -- What came to light below the mark is looked for when the transaction that was open for so long has ended (docs/adr/0013).
    if u.key <= v_mark then
        return query select 'mark', not x.found, format('it came to light below the mark of its lane, from a transaction that was open for long; %s',
            case when x.found then 'claims look there once a second' else 'the next ticks look for it' end)
        from (select exists (select from divvy.behind b where b.task_type = t.name and b.lane = u.lane and u.key > b.from_key and u.key <= b.to_key) as found) x;
    end if;
end $$;
