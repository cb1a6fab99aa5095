-- Leases. A split runs when its row says so, or when its row is ready and a lease that is not written down names it: then
-- the claim wrote nothing but the lease (docs/adr/0009). Whoever is about to do anything else with such a split than to
-- complete it writes it down first. What tells a holder from one that lost it is the key: every transition to ready
-- takes a new one, above the range of the lease.

-- Makes parts into one lease, with its length and the longest timeout in it. Plan and reduce are written down at once: their
-- ends write more of their task anyway.
create or replace function divvy.lend(p_parts divvy.part[], p_worker uuid, p_length interval, p_timeout interval, p_limited boolean,
    p_now timestamptz) returns divvy.part[]
language plpgsql as $$
declare
    v_token bigint;
    v_type text;
    v_limited text[];    -- types with limits: their leases are counted,
    v_labelled text[];   -- and of these by group or task
    v_ids bigint[];
    v_labels text[];
    p divvy.part;
begin
    if p_limited then
        select array_agg(t.name), array_agg(t.name) filter (where t.max_running_per_group is not null or t.max_running_per_task is not null)
        into v_limited, v_labelled
        from divvy.task_type t where t.limited and t.name = any (array(select q.task_type from unnest(p_parts) q));
    end if;
    for i in 1 .. cardinality(p_parts) loop
        p := p_parts[i];
        -- A token for each type, so that its holder's calls read few leases; a lease of a stretch is of one task.
        if p.lane < 20 and v_type is distinct from p.task_type then
            v_type := p.task_type;
            v_token := nextval('divvy.token');
        end if;
        p.token := case when p.lane > 20 then nextval('divvy.token') else v_token end;
        p.lease_until := p_now + least(p_length, p_timeout);
        p_parts[i] := p;
        if v_labelled is not null then
            select x.label_ids, x.labels into v_ids, v_labels
            from divvy.labels_of(case when p.task_type = any (v_labelled) then p.task_type end, p.lane, p.split_ids, p.places) x;
        end if;
        insert into divvy.lease (token, worker, length, claimed_at, lease_until, deadline_at, split_ids, places, task_type, lane, lo_key, hi_key, written,
            limited, label_ids, labels, share_of, id_base, due_at)
        values (p.token, p_worker, p_length, p_now, p.lease_until, p_now + p_timeout, p.split_ids, p.places, p.task_type, p.lane, p.lo_key, p.hi_key,
            p.lane = 0, coalesce(p.task_type = any (v_limited), false), v_ids, v_labels,
            case when p.lane > 20 then p.task_ids[1] end, case when p.lane > 20 then p.split_ids[1] - p.split_nos[1] end, p.due_at)
        on conflict on constraint lease_pkey do update set split_ids = lease.split_ids || excluded.split_ids,
            places = lease.places || excluded.places, lo_key = least(lease.lo_key, excluded.lo_key), hi_key = greatest(lease.hi_key, excluded.hi_key),
            label_ids = lease.label_ids || excluded.label_ids, labels = lease.labels || excluded.labels;
        if p.lane = 0 then
            update divvy.task k set state = 'running', token = v_token, worker = p_worker, started_at = p_now, reason = null
            where k.id = any (p.split_ids);
        end if;
    end loop;
    return p_parts;
end $$;

-- Whether a token holds a split, written down or not. Here and elsewhere a lease is looked up by its token with conditions that
-- tempt the planner to no other index: those keep the entries of every lease there was, as long as an old snapshot wants them.
create or replace function divvy.holds(u divvy.unit, p_token bigint) returns boolean
language sql stable as $$
    select (u.state = 'running' and u.token = p_token)
        or (u.state = 'ready' and exists (select from divvy.lease l where l.token = p_token and l.written is not true
            and l.hi_key >= u.key and l.lo_key <= u.key and u.id = any (l.split_ids)))
$$;

-- Writes leased splits down, so that their rows say that they run. Who calls it holds the rows' locks, or waits for them.
create or replace function divvy.write_down(p_ids bigint[]) returns void
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan set jit = off as $$
begin
    if p_ids = '{}' then
        return;
    end if;
    update divvy.unit u set state = 'running', token = l.token, worker = l.worker, started_at = l.claimed_at, reason = null
    from (select x.id, x.key, h.token, h.worker, h.claimed_at
        from divvy.unit x, lateral (
            select y.token, y.worker, y.claimed_at from divvy.lease y
            where y.task_type = x.task_type and y.lane = x.lane and not y.written and y.hi_key >= x.key and y.lo_key <= x.key
                and x.id = any (y.split_ids) limit 1) h
        where x.id = any (p_ids) and x.state = 'ready'
        order by x.id) l
    where u.id = any (array[l.id]) and u.state = 'ready' and u.key = l.key;
end $$;

-- Locks what waits of a task's shares, as rows, and returns their ids. What is leased is left alone, so that its holder waits for
-- nobody; what was leased between our look and our lock is written down. p_unbegun: what lies in stretches is written out.
create or replace function divvy.take_waiting(p_task bigint, p_delayed boolean default true, p_unbegun boolean default true) returns bigint[]
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    v_ids bigint[];
begin
    if p_unbegun then
        perform divvy.write_out_unbegun(p_task);
    end if;
    v_ids := array(select x.id from divvy.share x
        where x.share_of = p_task
            and case x.state when 'delayed' then p_delayed
                when 'ready' then not exists (select from divvy.lease l where l.task_type = x.task_type and l.lane = x.lane and not l.written
                    and l.hi_key >= x.key and l.lo_key <= x.key and x.id = any (l.split_ids))
                else false end
        order by x.id + 0 for update skip locked);
    perform divvy.write_down(v_ids);
    return array(select x.id from divvy.share x where x.id = any (v_ids) and x.state <> 'running');
end $$;

-- Splits that run longer than a moment are written down: until then they are in the way of the marks. Leases that hold
-- nothing any more go. Up to max leases, as long as that takes no more than 0.2 ms of real time for each. Returns how many were looked at.
create or replace function divvy.write_down_old(max int default 500) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off
set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    l divvy.lease;
    v_free bigint[];
    v_until constant timestamptz := clock_timestamp() + max * interval '0.2 ms';
    v_done int := 0;
begin
    for l in select * from divvy.lease x where not x.written and x.claimed_at < divvy.clock() - interval '2 s'
        order by x.token limit write_down_old.max for update skip locked
    loop
        continue when l.share_of is not null and not divvy.write_out_lease(l);
        -- A row that is locked is just being completed.
        v_free := array(select u.id from divvy.unit u where u.id = any (l.split_ids) and u.state = 'ready' order by u.id for update skip locked);
        perform divvy.write_down(v_free);
        update divvy.lease x set written = true
        where x.token = l.token and x.task_type = l.task_type and x.lane = l.lane
            and not exists (select from divvy.unit u where u.id = any (l.split_ids) and u.state = 'ready' and u.key between l.lo_key and l.hi_key);
        delete from divvy.lease x
        where x.token = l.token and x.task_type = l.task_type and x.lane = l.lane
            and not exists (select from divvy.unit u where u.id = any (l.split_ids) and divvy.holds(u, l.token));
        if found and l.labels is not null then
            perform divvy.note_freed(l, null);
        end if;
        v_done := v_done + 1;
        exit when clock_timestamp() >= v_until;
    end loop;
    return v_done;
end $$;

-- Takes ended splits out of their leases.
create or replace function divvy.drop_from_leases(p_tokens bigint[], p_done bigint[]) returns void
language plpgsql set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    l divvy.lease;
begin
    for l in select * from divvy.lease x where x.token = any (p_tokens) loop
        perform divvy.shrink_lease(l, p_done);
    end loop;
end $$;

-- Takes ended splits out of a lease; one that holds nothing more goes, and then it is true. Where it is locked, somebody is just completing
-- another part of it, and what is left over goes with its end or its time.
create or replace function divvy.shrink_lease(l divvy.lease, p_done bigint[]) returns boolean
language plpgsql as $$
declare
    v_rest bigint[];
    v_places tid[];
begin
    if l.labels is not null then
        perform divvy.note_freed(l, p_done);
    end if;
    if l.split_ids = p_done then
        delete from divvy.lease x where x.ctid = any (array(select y.ctid from divvy.lease y
            where y.token = l.token and y.task_type = l.task_type and y.lane = l.lane for update skip locked));
        return found;
    end if;
    for l in select * from divvy.lease x where x.token = l.token and x.task_type = l.task_type and x.lane = l.lane for update skip locked loop
        select array_agg(r.id), array_agg(r.place) into v_rest, v_places from divvy.others(l, p_done) r;
        if v_rest is null then
            delete from divvy.lease x where x.token = l.token and x.task_type = l.task_type and x.lane = l.lane;
        elsif cardinality(v_rest) < cardinality(l.split_ids) then
            update divvy.lease x set split_ids = v_rest, places = v_places
            where x.token = l.token and x.task_type = l.task_type and x.lane = l.lane;
        end if;
    end loop;
    return v_rest is null;
end $$;

-- What a lease names besides, in its order. By hash, whatever the statistics say: both sides may be thousands.
create or replace function divvy.others(l divvy.lease, p_ids bigint[]) returns table (id bigint, place tid)
language plpgsql stable rows 100 set enable_nestloop = off set enable_mergejoin = off set enable_hashjoin = on as $$
#variable_conflict use_column
begin
    return query
    select s.id, s.place from unnest(l.split_ids, l.places) with ordinality s (id, place, n)
    where not exists (select from unnest(p_ids) d (id) where d.id = s.id)
    order by s.n;
end $$;

-- Says that the worker lives, renews exactly the leases of the given tokens, and hears orders: a row for each
-- split (ok | cancel | lost), and one with split_id null for the worker (run | quiet | terminate).
-- Errors: DV010, DV011 (worker). Locks: the worker's row, the leases by token.
create or replace function divvy.heartbeat(worker uuid, split_ids bigint[], tokens bigint[], lease interval default null)
returns table (split_id bigint, verdict text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off set plan_cache_mode = force_generic_plan set jit = off as $$
#variable_conflict use_column
declare
    v_now timestamptz := divvy.clock();
    v_command text;
    v_rowless bigint[];   -- what is held without a row, ascending; by whom, and of which task
    v_tokens bigint[];
    v_tasks bigint[];
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
    select array_agg(x.id order by x.id), array_agg(x.token order by x.id), array_agg(x.share_of order by x.id) into v_rowless, v_tokens, v_tasks
    from (select i as id, l.token, l.share_of from divvy.lease l, unnest(divvy.rowless_of(l, l.split_ids)) i
        where l.token = any (tokens) and l.lane > 20) x;
    return query
    select g.id, case when k.id is null then 'lost' when k.cancel_requested_at is not null then 'cancel' else 'ok' end
    from (select a.id, a.token, width_bucket(a.id, v_rowless) as place from unnest(split_ids, tokens) as a (id, token)) g
    left join divvy.unit u on u.id = any (array[g.id]) and divvy.holds(u, g.token)
    left join divvy.task k on k.id = any (array[coalesce(u.share_of, u.id,
        case when v_rowless[g.place] = g.id and v_tokens[g.place] = g.token then v_tasks[g.place] end)]);
    return query select null::bigint, v_command;
end $$;

