-- Which ready splits a claim takes. It starts at a position, not at the front of the index: what is behind the
-- position is dead to it, however long a forgotten snapshot keeps the entries (docs/adr/0003).

-- Takes ready splits of one type. A session remembers in a setting of its own where it has come in each lane, and which lanes it found
-- work in: hints, which a rollback takes back with the claim, and which are never needed for correctness. It looks at all
-- lanes fifty times a second. It looks for stragglers, from the marks (everything below is finished for good) to its position,
-- once a second, a piece in each claim where there is much. It does both at once when it found nothing; but the latter gets at most a
-- tenth of its time: a mark that an open producer holds back costs workers little.
create or replace function divvy.pick_type(t divvy.task_type, p_want int, p_room bigint, p_now timestamptz, p_remember boolean) returns divvy.part[]
language plpgsql as $$
declare
    v_setting text := 'divvy.position_' || t.no;
    v_memory text[] := string_to_array(nullif(current_setting(v_setting, true), ''), ' ');
    v_positions bigint[] := v_memory[1]::bigint[];     -- by divvy.lane_slot
    v_behind_at double precision := v_memory[2];       -- the real clock: this bounds cost, it decides nothing
    v_may_behind_at double precision := v_memory[3];
    v_lanes smallint[] := v_memory[4]::smallint[];
    v_lanes_at double precision := v_memory[5];
    v_seen bigint[] := coalesce(v_memory[7], '{}');    -- so far a look behind has come that is not through
    v_started double precision := extract(epoch from clock_timestamp());
    v_behind boolean := v_positions is null or v_started >= v_behind_at;
    v_fresh boolean := v_lanes is null or v_started >= v_lanes_at or abs(extract(epoch from p_now) - v_memory[6]::double precision) > 1;
    v_until double precision := v_started + 0.01;
    v_marks bigint[];
    v_through boolean;
    v_began bigint[];           -- what was taken lies above, and is leased to nobody yet
    v_taken smallint[] := '{}';
    v_parts divvy.part[] := '{}';
    p divvy.part;
    r record;
begin
    if v_behind then
        v_marks := divvy.raise_marks(t.name, p_until => v_until);
        v_positions := array(select greatest(x.position, x.mark) from unnest(v_positions, v_marks) x (position, mark));
        v_seen := array(select greatest(x.seen, x.mark) from unnest(v_seen, v_marks) x (seen, mark));
        r := divvy.pick_stragglers(t, v_seen, v_positions, p_want, p_room, true, v_until);
        foreach p in array r.parts loop
            v_parts := v_parts || p;
            p_want := p_want - cardinality(p.split_ids);
            p_room := p_room - p.bytes;
        end loop;
        v_seen := r.seen;
        v_through := v_seen = v_positions;
    end if;
    v_began := v_positions;
    while p_want > 0 and p_room > 0 loop
        if v_fresh then
            v_positions := divvy.frontiers(t.name, v_positions);
            if v_taken = '{}' then
                v_began := v_positions;
            end if;
            v_lanes := divvy.lanes_by_age(t.name, v_positions, p_now);
            v_lanes_at := v_started + 0.02;
        end if;
        foreach p in array divvy.pick_ahead(t, v_lanes, v_positions, p_want, p_room) loop
            v_positions[divvy.lane_slot(p.lane)] := p.hi_key;
            -- It went on where others had come: what lies between may have been given back by a claim that was rolled back.
            if not (p.lane = any (v_taken)) then
                v_began[divvy.lane_slot(p.lane)] := coalesce(p.lo_key - 1, p.hi_key);
            end if;
            continue when p.split_ids is null;
            v_taken := v_taken || p.lane;
            v_parts := v_parts || p;
            p_want := p_want - cardinality(p.split_ids);
            p_room := p_room - p.bytes;
        end loop;
        exit when v_fresh;
        v_fresh := true;
    end loop;
    if p_want > 0 and p_room > 0 and (v_behind or (v_parts = '{}' and v_started >= v_may_behind_at)) then
        v_marks := case when v_behind then v_seen else divvy.raise_marks(t.name) end;
        v_parts := v_parts || (divvy.pick_stragglers(t, v_marks, v_began, p_want, p_room, not v_behind)).parts;
        v_behind := true;
        v_through := true;
    end if;
    if v_behind then
        v_may_behind_at := v_started + 10 * (extract(epoch from clock_timestamp()) - v_started);
        v_behind_at := case when v_through then greatest(v_started + 1, v_may_behind_at) else v_may_behind_at end;
        v_seen := case when v_through then '{}' else v_seen end;
    end if;
    -- The first time costs as much as a look; of many types only those are worth it that have more than a claim takes.
    if p_remember or v_memory is not null or p_want <= 0 then
        v_setting := set_config(v_setting, concat_ws(' ', v_positions, v_behind_at, v_may_behind_at, coalesce(v_lanes, '{}'),
            coalesce(v_lanes_at, 0), extract(epoch from p_now), v_seen), false);
    end if;
    return v_parts;
end $$;

-- Where a lane stands in an array of all lanes.
create or replace function divvy.lane_slot(p_lane int) returns int
language sql immutable parallel safe as 'select case when p_lane < 10 then p_lane + 1 when p_lane < 20 then p_lane - 5 else p_lane - 11 end';

-- What lies ahead of the positions, the first lane first; in a second pass what is left over when lanes that had a part of the
-- claim needed less. A part without splits only says how far its lane has come.
create or replace function divvy.pick_ahead(t divvy.task_type, p_lanes smallint[], p_positions bigint[], p_want int, p_room bigint) returns divvy.part[]
language plpgsql as $$
declare
    v_parts divvy.part[] := '{}';
    v_lane smallint;
    v_slot int;
    v_want int;
    v_cut smallint[] := '{}';   -- lanes that may have more than their part
    v_got divvy.part[];
    p divvy.part;
begin
    for v_pass in 1 .. 2 loop
        for i in 1 .. cardinality(p_lanes) loop
            exit when p_want <= 0 or p_room <= 0;
            v_lane := p_lanes[i];
            v_slot := divvy.lane_slot(v_lane);
            continue when v_pass = 2 and not v_lane = any (v_cut);
            v_want := case when v_pass = 1 and cardinality(p_lanes) > 1 then divvy.share_of_lane(p_lanes, i, p_want) else p_want end;
            if v_want < p_want then
                v_cut := v_cut || v_lane;
            end if;
            continue when v_want <= 0;
            p_positions[v_slot] := divvy.frontier(t.name, v_lane, p_positions[v_slot]);
            v_got := divvy.pick_between(t, v_lane, p_positions[v_slot], 9223372036854775807, v_want, p_room, false);
            if v_got = '{}' and v_lane < 20 then
                p := null;
                p.lane := v_lane;
                p.hi_key := p_positions[v_slot];
                v_parts := v_parts || p;
            end if;
            foreach p in array v_got loop
                p_want := p_want - cardinality(p.split_ids);
                p_room := p_room - p.bytes;
                p_positions[v_slot] := p.hi_key;
                v_parts := v_parts || p;
            end loop;
        end loop;
        exit when v_cut = '{}';
    end loop;
    return v_parts;
end $$;

-- How far any session has come in a lane: what others hold is no more for us.
create or replace function divvy.frontier(p_type text, p_lane smallint, p_position bigint) returns bigint
language plpgsql stable as $$
begin
    return greatest(p_position, (select l.hi_key from divvy.lease l
        where l.task_type = p_type and l.lane = p_lane and not l.written and l.hi_key > p_position order by l.hi_key desc limit 1));
end $$;

-- The same of all lanes, in one look.
create or replace function divvy.frontiers(p_type text, p_positions bigint[]) returns bigint[]
language plpgsql stable as $$
begin
    return array(
        select greatest(x.position, (select l.hi_key from divvy.lease l
            where l.task_type = p_type and l.lane = x.lane and not l.written and l.hi_key > x.position order by l.hi_key desc limit 1))
        from unnest(divvy.all_lanes(), p_positions) x (lane, position));
end $$;

-- How much a claim takes of the lane at a place in the order of lanes: plain tasks, shares and stretches of one priority have
-- equal parts while they wait.
create or replace function divvy.share_of_lane(p_lanes smallint[], p_place int, p_want int) returns int
language plpgsql volatile parallel safe as $$
declare
    n int := 0;
    v_lane smallint;
begin
    foreach v_lane in array p_lanes[p_place:] loop
        n := n + (v_lane % 10 = p_lanes[p_place] % 10)::int;
    end loop;
    return case when n = 1 then p_want else floor(p_want / n::float8 + random())::int end;
end $$;

-- What became visible, or ready, behind the positions: late commits, claims that were rolled back. Also below the marks, where
-- something of a late writer was found (p_below). Goes from p_from lane by lane, in pieces, and stops after the first that ends past p_until;
-- says how far it has seen.
create or replace function divvy.pick_stragglers(t divvy.task_type, p_from bigint[], p_positions bigint[], p_want int, p_room bigint, p_below boolean,
    p_until double precision default 'infinity', out parts divvy.part[], out seen bigint[])
language plpgsql as $$
declare
    v_piece constant int := 4096;
    v_want int;
    v_to bigint;
    p divvy.part;
    r record;
    s record;
begin
    parts := '{}';
    seen := p_from;
    for r in
        select x.lane, x.slot, x.lo, x.hi from (
            select l::smallint as lane, divvy.lane_slot(l) as slot, p_from[divvy.lane_slot(l)] as lo, p_positions[divvy.lane_slot(l)] as hi
            from unnest(divvy.all_lanes()) l
            union all
            select b.lane, null, b.from_key, least(b.to_key, p_from[divvy.lane_slot(b.lane)], p_positions[divvy.lane_slot(b.lane)])
            from divvy.behind b where p_below and b.task_type = t.name) x
        where x.lo < x.hi
        order by x.lane % 10, x.lane, x.lo
    loop
        while r.lo < r.hi loop
            exit when p_want <= 0 or p_room <= 0;
            s := divvy.seek_ready(t.name, r.lane, r.lo, r.hi, p_until);
            r.lo := s.reached;
            if s.ready is not null then
                v_want := least(p_want, divvy.limit_of('stragglers')::int);
                v_to := least(r.hi, s.ready + v_piece);
                r.lo := v_to;
                foreach p in array divvy.pick_between(t, r.lane, s.reached, v_to, v_want, p_room, true) loop
                    v_want := v_want - cardinality(p.split_ids);
                    p_want := p_want - cardinality(p.split_ids);
                    p_room := p_room - p.bytes;
                    parts := parts || p;
                    if v_want <= 0 or p_room <= 0 then
                        r.lo := p.hi_key;   -- there may be more
                    end if;
                end loop;
            end if;
            exit when extract(epoch from clock_timestamp()) >= p_until;
        end loop;
        if r.slot is not null then
            seen[r.slot] := r.lo;
        end if;
        exit when p_want <= 0 or p_room <= 0 or extract(epoch from clock_timestamp()) >= p_until;
    end loop;
end $$;

-- What of a lane has a key with p_from < key <= p_to: pick_lane and pick_stretches in one.
create or replace function divvy.pick_between(t divvy.task_type, p_lane smallint, p_from bigint, p_to bigint, p_want int, p_room bigint, p_known boolean)
returns divvy.part[] language plpgsql as $$
declare
    p divvy.part;
begin
    if p_lane > 20 then
        return divvy.pick_stretches(t, p_lane, p_from, p_to, p_want, p_room);
    end if;
    p := divvy.pick_lane(t, p_lane, p_from, p_to, p_want, p_room, p_known, null);
    return case when p.split_ids is null then '{}' else array[p] end;
end $$;

-- The lanes of a type that hold something ready after the positions, most urgent first: the front lane, then by
-- priority, where each minute of waiting counts as one step.
create or replace function divvy.lanes_by_age(p_type text, p_positions bigint[], p_now timestamptz) returns smallint[]
language plpgsql as $$
begin
    return array(
        select x.lane from (
            select l.lane, case
                when l.lane > 20 then (select s.due_at from divvy.stretch s where s.task_type = p_type and s.lane = l.lane
                    and s.key > l.position and s.first_no <= s.last_no order by s.key limit 1)
                when l.lane < 10 then (select k.due_at from divvy.task k where k.task_type = p_type and k.lane = l.lane
                    and k.key > l.position and k.state = 'ready' order by k.key limit 1)
                else (select s.due_at from divvy.share s where s.task_type = p_type and s.lane = l.lane
                    and s.key > l.position and s.state = 'ready' order by s.key limit 1) end as due_at
            from unnest(divvy.all_lanes(), p_positions) l (lane, position)) x
        where x.due_at is not null
        order by case when x.lane = 0 then '-infinity' else x.lane % 10 * 60 - extract(epoch from p_now - x.due_at) end, x.lane);
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
    select t.name, p_lane, null, null, min(s.key), max(s.key), max(s.total), array_agg(s.id), array_agg(s.place), array_agg(s.id), array_agg(s.phase::text),
        array_agg(s.split_no), array_agg(coalesce(s.split_count, 1)), array_agg(s.attempt + 1),
        array_agg(s.attempt_base + coalesce(s.max_attempts, t.max_attempts)), array_agg(s.payload), null,
        array_agg(s.checkpoint), array_agg(s.headers), array_agg(s.epoch), array_agg(s.continuation), array_agg(s.scheduled_for),
        array_agg(coalesce(s.timeout, t.timeout)), null, max(coalesce(s.timeout, t.timeout))
    into p
    from (
        select r.*, sum(r.bytes) over (rows unbounded preceding) as total from (
            select k.id, k.ctid as place, k.key, k.phase, k.split_no, k.split_count, k.attempt, k.attempt_base, k.max_attempts, k.payload, k.checkpoint,
                k.headers, k.epoch, k.continuation, k.scheduled_for, k.timeout,
                divvy.answer_bytes(k.payload) + divvy.answer_bytes(k.checkpoint) + divvy.answer_bytes(k.headers) as bytes
            from divvy.task k
            where k.task_type = t.name and k.lane = p_lane and k.key > p_from and k.key <= p_to and k.state = 'ready'
                and (p_keys is null or k.key in (select y from unnest(p_keys) y))
                and not (p_known and exists (select from divvy.lease l
                    where l.task_type = t.name and l.lane = p_lane and not l.written and l.hi_key >= k.key and l.lo_key <= k.key
                        and k.id = any (l.split_ids)))
            order by k.key limit p_want
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
    select t.name, p_lane, null, null, min(s.key), max(s.key), max(s.total), array_agg(s.id), array_agg(s.place), array_agg(s.share_of),
        array_agg('execute'::text), array_agg(s.split_no), array_agg(coalesce(s.split_count, 1)), array_agg(s.attempt + 1),
        array_agg(s.attempt_base + coalesce(s.max_attempts, t.max_attempts)), array_agg(s.task_payload), array_agg(s.payload),
        array_agg(s.checkpoint), array_agg(s.headers), array_agg(s.epoch), array_agg(s.continuation), array_agg(s.scheduled_for),
        array_agg(coalesce(s.timeout, t.timeout)), null, max(coalesce(s.timeout, t.timeout))
    into p
    from (
        select r.*, k.split_count, k.payload as task_payload, k.headers, k.epoch, k.scheduled_for,
            sum(r.bytes + divvy.answer_bytes(k.payload) + divvy.answer_bytes(k.headers)) over (rows unbounded preceding) as total
        from (
            select x.id, x.ctid as place, x.share_of, x.key, x.split_no, x.attempt, x.attempt_base, x.max_attempts, x.payload, x.checkpoint, x.continuation,
                x.timeout, divvy.answer_bytes(x.payload) + divvy.answer_bytes(x.checkpoint) as bytes
            from divvy.share x
            where x.task_type = t.name and x.lane = p_lane and x.key > p_from and x.key <= p_to and x.state = 'ready'
                and (p_keys is null or x.key in (select y from unnest(p_keys) y))
                and not (p_known and exists (select from divvy.lease l
                    where l.task_type = t.name and l.lane = p_lane and not l.written and l.hi_key >= x.key and l.lo_key <= x.key
                        and x.id = any (l.split_ids)))
            order by x.key limit p_want
            for update of x skip locked) r
        join lateral (select x.split_count, x.payload, x.headers, x.epoch, x.scheduled_for
            from divvy.task x where x.id = r.share_of offset 0) k on true) s
    where s.total <= p_room;
    return p;
end $$;
