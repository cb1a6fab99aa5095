-- Which types a claim takes from: they take turns, and of many types it looks at few. What a session remembers of them is never needed
-- for correctness.

-- Takes ready splits, at most p_max and 8 MiB: locked, and leased to nobody. Also says the longest lease of their types and
-- their longest timeout. Types take turns at being first, so that none starves another: of a few, the one after the first that was
-- served last. Of many, a session remembers those in which it found work; who was served goes last. Before them each claim looks at some
-- of the others, in turn, and after them, where that was too little, at all others, with at most half of its time for looks in vain.
create or replace function divvy.pick(p_task_types text[], p_max int, p_per_type int[], p_now timestamptz,
    out parts divvy.part[], out length interval, out timeout interval, out limited boolean)
language plpgsql as $$
declare
    t divvy.task_type;
    p divvy.part;
    v_left int := p_max;
    v_room bigint := divvy.limit_of('claim answer');
    v_types constant int := cardinality(p_task_types);
    v_many constant boolean := v_types > 3;
    v_others constant int := least(10, p_max / 10 + 1);     -- looks that cost little beside what it takes
    v_memory text[] := string_to_array(nullif(current_setting('divvy.types_in_turn', true), ''), ' ');
    v_come int := coalesce(v_memory[1]::int, floor(random() * v_types)::int) % nullif(v_types, 0);   -- so far others were looked at
    v_may_look_at double precision := v_memory[2];
    v_places int[] := coalesce(v_memory[3:], '{}');     -- of types with work, in turn
    v_next int := 1;
    v_all_from int;                     -- from here on in v_places are all others
    v_found int[] := '{}';
    v_gave text[] := '{}';              -- what is taken of these is leased to nobody yet: no second look
    v_had int[] := '{}';                -- those that have more
    v_vain int := 0;
    v_started double precision := extract(epoch from clock_timestamp());   -- real time: this bounds cost, it decides nothing
    v_at int;
    v_want int;
    v_got divvy.part[];
begin
    parts := '{}';
    limited := false;
    if not v_many then
        v_places := divvy.round_from(v_come, v_types, v_types);
    elsif v_places <> '{}' or v_started < v_may_look_at then
        v_places := array(select x from unnest(divvy.round_from(v_come, v_types, least(v_others, v_types))) x
            where not x = any (v_places)) || v_places;
        v_come := (v_come + v_others) % v_types;
    end if;
    loop
        while v_next <= cardinality(v_places) and v_left > 0 and v_room > 0 loop
            v_at := v_places[v_next];
            v_next := v_next + 1;
            continue when p_task_types[v_at] = any (v_gave);
            v_want := least(v_left, p_per_type[v_at]);
            if v_want <= 0 then
                v_had := v_had || v_at;
                continue;
            end if;
            v_vain := v_vain + 1;
            select * into t from divvy.task_type x where x.name = p_task_types[v_at] and (x.paused_until is null or x.paused_until <= p_now);
            continue when not found;
            if t.limited then
                continue when v_many and not divvy.has_ready(t.name) and not exists (select from divvy.freed f where f.task_type = t.name);
                if not limited then
                    perform divvy.lock_limited(array(select x.name from unnest(p_task_types, p_per_type) x (name, room)
                        where x.room is distinct from 0));
                    limited := true;
                end if;
                v_got := divvy.pick_limited(t.name, v_want, v_room, p_now);
            elsif v_many then
                v_got := divvy.pick_of_many(t, v_want, v_room, p_now);
            else
                v_got := divvy.pick_type(t, v_want, v_room, p_now, true);
            end if;
            continue when v_got = '{}';
            v_vain := v_vain - 1;
            v_found := v_found || v_at;
            v_gave := v_gave || t.name;
            foreach p in array v_got loop
                parts := parts || p;
                v_want := v_want - cardinality(p.split_ids);
                v_left := v_left - cardinality(p.split_ids);
                v_room := v_room - p.bytes;
                length := greatest(length, t.lease);
                timeout := greatest(timeout, p.timeout);
            end loop;
            if v_want <= 0 then
                v_had := v_had || v_at;
            end if;
        end loop;
        exit when v_all_from is not null or not v_many or v_left <= 0 or v_room <= 0 or v_started < v_may_look_at;
        v_all_from := v_next;
        v_places := v_places || array(select x from unnest(divvy.round_from(v_come, v_types, v_types)) x where not x = any (v_places));
    end loop;
    if v_many then
        if v_all_from is not null then
            v_come := coalesce(v_places[v_next - 1], v_come) % v_types;
            v_may_look_at := v_started + (extract(epoch from clock_timestamp()) - v_started)
                * (1 + v_vain::float8 / (v_vain + cardinality(v_found) + 1));
            v_places := v_places[:v_all_from - 1];
        end if;
        -- A claim that is full finds work enough elsewhere: who gave all that it had need not be asked soon.
        perform set_config('divvy.types_in_turn', concat_ws(' ', v_come, coalesce(v_may_look_at, 0),
            nullif(array_to_string(v_places[v_next:] || case when v_left <= 0 then v_had else v_found end, ' '), '')), false);
    elsif v_types > 1 then
        perform set_config('divvy.types_in_turn', coalesce(v_found[1], v_come)::text, false);
    end if;
end $$;

-- So many of 1 to p_count, from the one after p_last on and round.
create or replace function divvy.round_from(p_last int, p_count int, p_many int) returns int[]
language plpgsql immutable parallel safe as $$
begin
    return array(select (p_last + n) % p_count + 1 from generate_series(0, p_many - 1) n);
end $$;

-- Of one of many types. Mostly little waits in each, in one lane, and a session that has no position in it yet needs none: it begins
-- at what it finds first. A type with more to it, or with so much behind it that the look took long, is looked at thoroughly.
create or replace function divvy.pick_of_many(t divvy.task_type, p_want int, p_room bigint, p_now timestamptz) returns divvy.part[]
language plpgsql as $$
declare
    v_started double precision := extract(epoch from clock_timestamp());   -- real time: this bounds cost, it decides nothing
    v_long constant double precision := 0.001;
    v_lanes int;
    v_lane smallint;
    v_first bigint;
begin
    if nullif(current_setting('divvy.position_' || t.no, true), '') is not null or exists (select from divvy.behind b where b.task_type = t.name) then
        return case when divvy.has_ready(t.name) then divvy.pick_type(t, p_want, p_room, p_now, false) else '{}' end;
    end if;
    select count(*), min(f.lane), min(f.key) into v_lanes, v_lane, v_first from divvy.first_waiting(t.name) f;
    if extract(epoch from clock_timestamp()) - v_started >= v_long then
        return divvy.pick_type(t, p_want, p_room, p_now, true);
    elsif v_lanes > 1 then
        return divvy.pick_type(t, p_want, p_room, p_now, false);
    elsif v_lanes = 0 then
        return '{}';
    end if;
    return divvy.pick_between(t, v_lane, v_first - 1, 9223372036854775807, p_want, p_room, false);
end $$;

-- The first of each lane that is ready and leased to nobody: above the mark, and below it where something came to light.
create or replace function divvy.first_waiting(p_type text) returns table (lane smallint, key bigint)
language sql stable rows 1 as $$
    select x.lane, x.key from (
        select n.lane, case
            when n.lane > 20 then (select s.key from divvy.stretch s where s.task_type = p_type and s.lane = n.lane
                and s.key > n.from_key and s.key <= n.to_key and s.first_no <= s.last_no order by s.key limit 1)
            when n.lane < 10 then (select k.key from divvy.task k where k.task_type = p_type and k.lane = n.lane
                and k.key > n.from_key and k.key <= n.to_key and k.state = 'ready'
                and not exists (select from divvy.lease l where l.task_type = p_type and l.lane = n.lane and not l.written
                    and l.hi_key >= k.key and l.lo_key <= k.key and k.id = any (l.split_ids)) order by k.key limit 1)
            else (select s.key from divvy.share s where s.task_type = p_type and s.lane = n.lane
                and s.key > n.from_key and s.key <= n.to_key and s.state = 'ready'
                and not exists (select from divvy.lease l where l.task_type = p_type and l.lane = n.lane and not l.written
                    and l.hi_key >= s.key and l.lo_key <= s.key and s.id = any (l.split_ids)) order by s.key limit 1) end as key
        from (select l.lane, l.mark as from_key, 9223372036854775807 as to_key from divvy.lane l where l.task_type = p_type
            union all
            select b.lane, b.from_key, b.to_key from divvy.behind b where b.task_type = p_type) n
        offset 0) x
    where x.key is not null
$$;
