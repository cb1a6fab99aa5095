-- Which ready splits a claim takes. It starts at a position, not at the front of the index: what is behind the
-- position is dead to it, however long a forgotten snapshot keeps the entries (docs/adr/0003).

-- Takes ready splits, at most p_max and 8 MiB: locked, and leased to nobody. Types take turns at being first, so that none
-- starves another.
create or replace function divvy.pick(p_task_types text[], p_max int, p_per_type int[], p_now timestamptz) returns divvy.part[]
language plpgsql as $$
declare
    v_parts divvy.part[] := '{}';
    p divvy.part;
    t divvy.task_type;
    v_left int := p_max;
    v_room bigint := divvy.limit_of('claim answer');
    v_types int := cardinality(p_task_types);
    v_first int := floor(random() * v_types)::int;
    v_at int;
    v_locked boolean := false;
    v_found divvy.part[];
begin
    for i in 0 .. v_types - 1 loop
        exit when v_left <= 0 or v_room <= 0;
        v_at := (v_first + i) % v_types + 1;
        continue when p_per_type[v_at] <= 0;
        select * into t from divvy.task_type x where x.name = p_task_types[v_at] and (x.paused_until is null or x.paused_until <= p_now);
        continue when not found;
        if t.limited then
            continue when exists (select from unnest(v_parts) x where x.task_type = t.name);   -- named twice
            if not v_locked then
                perform divvy.lock_limited(p_task_types);
                v_locked := true;
            end if;
            v_found := divvy.pick_limited(t.name, least(v_left, p_per_type[v_at]), v_room, p_now);
        else
            v_found := divvy.pick_type(t, least(v_left, p_per_type[v_at]), v_room, p_now);
        end if;
        foreach p in array v_found loop
            v_parts := v_parts || p;
            v_left := v_left - cardinality(p.split_ids);
            v_room := v_room - p.bytes;
        end loop;
    end loop;
    return v_parts;
end $$;

-- The same of one type. Where a session has come in each lane it remembers in a setting of its own: a hint, which
-- a rollback takes back with the claim, and which is never needed for correctness. A session looks for stragglers, from the
-- marks (everything below is finished for good) to its position, once a second, and at once when it found too little, but
-- gives that at most a tenth of its time: a mark that an open producer holds back costs workers little.
create or replace function divvy.pick_type(t divvy.task_type, p_want int, p_room bigint, p_now timestamptz) returns divvy.part[]
language plpgsql as $$
declare
    v_setting text := 'divvy.position_' || t.no;
    v_memory text[] := string_to_array(nullif(current_setting(v_setting, true), ''), ' ');
    v_positions bigint[] := v_memory[1]::bigint[];     -- by divvy.lane_slot
    v_look_at double precision := v_memory[2];         -- the real clock: this bounds cost, it decides nothing
    v_may_look_at double precision := v_memory[3];
    v_started double precision := extract(epoch from clock_timestamp());
    v_looks boolean := v_positions is null or v_started >= v_look_at;
    v_marks bigint[];
    v_behind bigint[];
    v_parts divvy.part[] := '{}';
    v_left int := p_want;
    p divvy.part;
begin
    if v_looks then
        v_marks := divvy.raise_marks(t.name);
        v_positions := coalesce(v_positions, v_marks);
        v_parts := divvy.pick_stragglers(t, v_marks, v_positions, v_left, p_room);
        foreach p in array v_parts loop
            v_left := v_left - cardinality(p.split_ids);
        end loop;
    end if;
    v_behind := v_positions;   -- what is taken below is leased to nobody yet
    if v_left > 0 then
        foreach p in array divvy.pick_ahead(t, v_positions, v_left, p_room, p_now) loop
            v_positions[divvy.lane_slot(p.lane)] := p.hi_key;
            continue when p.split_ids is null;
            v_parts := v_parts || p;
            v_left := v_left - cardinality(p.split_ids);
        end loop;
    end if;
    if v_left > 0 and not v_looks and v_started >= v_may_look_at then
        v_looks := true;
        v_parts := v_parts || divvy.pick_stragglers(t, divvy.raise_marks(t.name), v_behind, v_left, p_room);
    end if;
    if v_looks then
        v_may_look_at := v_started + 10 * (extract(epoch from clock_timestamp()) - v_started);
        v_look_at := greatest(v_started + 1, v_may_look_at);
    end if;
    perform set_config(v_setting, concat_ws(' ', v_positions, v_look_at, v_may_look_at), false);
    return v_parts;
end $$;

-- Where a lane stands in an array of all lanes: 0 to 4, 11 to 14.
create or replace function divvy.lane_slot(p_lane int) returns int
language sql immutable parallel safe as 'select case when p_lane < 10 then p_lane + 1 else p_lane - 5 end';

-- What lies ahead of the positions, the most urgent lane first. A part without splits only says how far its lane has come.
create or replace function divvy.pick_ahead(t divvy.task_type, p_positions bigint[], p_want int, p_room bigint, p_now timestamptz) returns divvy.part[]
language plpgsql as $$
declare
    v_parts divvy.part[] := '{}';
    v_lanes smallint[] := divvy.lanes_by_age(t.name, p_positions, p_now);
    v_lane smallint;
    v_want int;
    v_position bigint;
    p divvy.part;
begin
    for i in 1 .. cardinality(v_lanes) loop
        exit when p_want <= 0 or p_room <= 0;
        v_lane := v_lanes[i];
        v_want := divvy.share_of_lane(v_lanes, i, p_want);
        continue when v_want <= 0;
        v_position := p_positions[divvy.lane_slot(v_lane)];
        -- Others may be further: what they hold is no more for us.
        v_position := greatest(v_position, (select l.hi_key from divvy.lease l
            where l.task_type = t.name and l.lane = v_lane and not l.written and l.hi_key > v_position order by l.hi_key desc limit 1));
        p := divvy.pick_lane(t, v_lane, v_position, 9223372036854775807, v_want, p_room, false, null);
        if p.split_ids is null then
            p.lane := v_lane;
            p.hi_key := v_position;
        else
            p_want := p_want - cardinality(p.split_ids);
            p_room := p_room - p.bytes;
        end if;
        p_positions[divvy.lane_slot(v_lane)] := p.hi_key;
        v_parts := v_parts || p;
    end loop;
    return v_parts;
end $$;

-- How much a claim takes of the lane at a place in the order of lanes: plain tasks and shares of one priority have half each
-- while both wait.
create or replace function divvy.share_of_lane(p_lanes smallint[], p_place int, p_want int) returns int
language sql volatile parallel safe as $$
    select case when p_lanes[p_place] > 0 and (p_lanes[p_place] + 10) % 20 = any (p_lanes[p_place + 1:])
        then floor(p_want / 2.0 + random())::int else p_want end
$$;

-- What became visible, or ready, behind the positions: late commits, claims that were rolled back.
create or replace function divvy.pick_stragglers(t divvy.task_type, p_marks bigint[], p_positions bigint[], p_want int, p_room bigint) returns divvy.part[]
language plpgsql as $$
declare
    v_parts divvy.part[] := '{}';
    v_lane smallint;
    p divvy.part;
begin
    foreach v_lane in array '{0,1,11,2,12,3,13,4,14}'::smallint[] loop
        exit when p_want <= 0 or p_room <= 0;
        continue when p_positions[divvy.lane_slot(v_lane)] <= p_marks[divvy.lane_slot(v_lane)];
        p := divvy.pick_lane(t, v_lane, p_marks[divvy.lane_slot(v_lane)], p_positions[divvy.lane_slot(v_lane)],
            least(p_want, divvy.limit_of('stragglers')::int), p_room, true, null);
        continue when p.split_ids is null;
        v_parts := v_parts || p;
        p_want := p_want - cardinality(p.split_ids);
        p_room := p_room - p.bytes;
    end loop;
    return v_parts;
end $$;

-- The lanes of a type that hold something ready after the positions, most urgent first: the front lane, then by
-- priority, where each minute of waiting counts as one step.
create or replace function divvy.lanes_by_age(p_type text, p_positions bigint[], p_now timestamptz) returns smallint[]
language plpgsql as $$
declare
    v_lanes smallint[] := '{}';
    v_ranks double precision[] := '{}';
    v_due timestamptz;
    v_lane smallint;
begin
    foreach v_lane in array '{0,1,2,3,4,11,12,13,14}'::smallint[] loop
        if v_lane < 10 then
            select k.due_at into v_due from divvy.task k
            where k.task_type = p_type and k.lane = v_lane and k.claim_key > p_positions[divvy.lane_slot(v_lane)] and k.state = 'ready'
            order by k.claim_key limit 1;
        else
            select s.due_at into v_due from divvy.share s
            where s.task_type = p_type and s.lane = v_lane and s.claim_key > p_positions[divvy.lane_slot(v_lane)] and s.state = 'ready'
            order by s.claim_key limit 1;
        end if;
        if found then
            v_lanes := v_lanes || v_lane;
            v_ranks := v_ranks || case when v_lane = 0 then '-infinity' else v_lane % 10 * 60 - extract(epoch from p_now - v_due) end;
        end if;
    end loop;
    if cardinality(v_lanes) < 2 then
        return v_lanes;
    end if;
    return array(select l from unnest(v_lanes, v_ranks) as x (l, r) order by r, l);
end $$;

-- Takes up to p_want ready splits of a lane with p_from < key <= p_to, leased to nobody, and no more bytes than p_room (an
-- empty answer has room for any split). What others hold is looked up beforehand where much of it is expected, and always
-- afterwards: a claim that was committed between our snapshot and our locks shows only then. With p_keys, only these.
create or replace function divvy.pick_lane(t divvy.task_type, p_lane smallint, p_from bigint, p_to bigint, p_want int, p_room bigint, p_known boolean,
    p_keys bigint[])
returns divvy.part language plpgsql as $$
declare
    p divvy.part;
begin
    loop
        p := case when p_lane < 10 then divvy.pick_tasks(t, p_lane, p_from, p_to, p_want, p_room, p_known, p_keys)
            else divvy.pick_shares(t, p_lane, p_from, p_to, p_want, p_room, p_known, p_keys) end;
        exit when p.split_ids is null or not exists (select from divvy.lease l
            where l.task_type = t.name and l.lane = p_lane and not l.written and l.hi_key >= p.lo_key and l.lo_key <= p.hi_key
                and l.split_ids && p.split_ids);
        p_known := true;
    end loop;
    return p;
end $$;

-- The bytes of a value in an answer. Looks into none that is small as it lies there; a compressed one may be anything.
create or replace function divvy.answer_bytes(p_value jsonb) returns int
language sql stable parallel safe as $$
    select coalesce(case when pg_column_size(p_value) < 3000 and pg_column_compression(p_value) is null then pg_column_size(p_value)
        else octet_length(p_value::text) end, 0)
$$;

-- Tasks that are splits themselves: plan, reduce, plain.
create or replace function divvy.pick_tasks(t divvy.task_type, p_lane smallint, p_from bigint, p_to bigint, p_want int, p_room bigint, p_known boolean,
    p_keys bigint[])
returns divvy.part language plpgsql as $$
declare
    p divvy.part;
begin
    select t.name, p_lane, null, null, min(s.claim_key), max(s.claim_key), max(s.total), array_agg(s.id), array_agg(s.id), array_agg(s.phase::text),
        array_agg(s.split_no), array_agg(coalesce(s.split_count, 1)), array_agg(s.attempt + 1),
        array_agg(s.attempt_base + coalesce(s.max_attempts, t.max_attempts)), array_agg(s.payload), null,
        array_agg(s.checkpoint), array_agg(s.headers), array_agg(s.epoch), array_agg(s.continuation), array_agg(s.scheduled_for),
        array_agg(coalesce(s.timeout, t.timeout))
    into p
    from (
        select r.*, sum(r.bytes) over (rows unbounded preceding) as total from (
            select k.id, k.claim_key, k.phase, k.split_no, k.split_count, k.attempt, k.attempt_base, k.max_attempts, k.payload, k.checkpoint,
                k.headers, k.epoch, k.continuation, k.scheduled_for, k.timeout,
                divvy.answer_bytes(k.payload) + divvy.answer_bytes(k.checkpoint) + divvy.answer_bytes(k.headers) as bytes
            from divvy.task k
            where k.task_type = t.name and k.lane = p_lane and k.claim_key > p_from and k.claim_key <= p_to and k.state = 'ready'
                and (p_keys is null or k.claim_key = any (p_keys))
                and not (p_known and exists (select from divvy.lease l
                    where l.task_type = t.name and l.lane = p_lane and not l.written and l.hi_key >= k.claim_key and l.lo_key <= k.claim_key
                        and k.id = any (l.split_ids)))
            order by k.claim_key limit p_want
            for update of k skip locked) r) s
    where s.total <= p_room;
    return p;
end $$;

-- Shares of divided tasks, each with its task's payload and headers.
create or replace function divvy.pick_shares(t divvy.task_type, p_lane smallint, p_from bigint, p_to bigint, p_want int, p_room bigint, p_known boolean,
    p_keys bigint[])
returns divvy.part language plpgsql as $$
declare
    p divvy.part;
begin
    select t.name, p_lane, null, null, min(s.claim_key), max(s.claim_key), max(s.total), array_agg(s.id), array_agg(s.share_of),
        array_agg('execute'::text), array_agg(s.split_no), array_agg(coalesce(s.split_count, 1)), array_agg(s.attempt + 1),
        array_agg(s.attempt_base + coalesce(s.max_attempts, t.max_attempts)), array_agg(s.task_payload), array_agg(s.payload),
        array_agg(s.checkpoint), array_agg(s.headers), array_agg(s.epoch), array_agg(s.continuation), array_agg(s.scheduled_for),
        array_agg(coalesce(s.timeout, t.timeout))
    into p
    from (
        select r.*, k.split_count, k.payload as task_payload, k.headers, k.epoch, k.scheduled_for,
            sum(r.bytes + divvy.answer_bytes(k.payload) + divvy.answer_bytes(k.headers)) over (rows unbounded preceding) as total
        from (
            select x.id, x.share_of, x.claim_key, x.split_no, x.attempt, x.attempt_base, x.max_attempts, x.payload, x.checkpoint, x.continuation,
                x.timeout, divvy.answer_bytes(x.payload) + divvy.answer_bytes(x.checkpoint) as bytes
            from divvy.share x
            where x.task_type = t.name and x.lane = p_lane and x.claim_key > p_from and x.claim_key <= p_to and x.state = 'ready'
                and (p_keys is null or x.claim_key = any (p_keys))
                and not (p_known and exists (select from divvy.lease l
                    where l.task_type = t.name and l.lane = p_lane and not l.written and l.hi_key >= x.claim_key and l.lo_key <= x.claim_key
                        and x.id = any (l.split_ids)))
            order by x.claim_key limit p_want
            for update of x skip locked) r
        join divvy.task k on k.id = r.share_of) s
    where s.total <= p_room;
    return p;
end $$;
