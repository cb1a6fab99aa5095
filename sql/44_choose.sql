-- Claims that choose: of a type whose groups take turns, or have limits. They look at a bounded window of a lane, choose, and
-- take exactly the chosen keys. A position stays below what was not chosen, so the next claim meets it again.

-- divvy.pick_type for such a type, whose lock is held. Positions and the look behind them as there.
create or replace function divvy.pick_chosen(t divvy.task_type, p_want int, p_room bigint, p_now timestamptz, p_tokens bigint[]) returns divvy.part[]
language plpgsql as $$
declare
    v_setting text := 'divvy.chosen_' || t.no;
    v_memory jsonb := coalesce(nullif(current_setting(v_setting, true), '')::jsonb, '[]');
    v_positions bigint[] := (v_memory ->> 0)::bigint[];   -- by divvy.lane_slot
    v_look_at double precision := v_memory ->> 1;
    v_may_look_at double precision := v_memory ->> 2;
    -- By lane: the group that was served last. One for all lanes would let each decide who begins in the next.
    v_lasts jsonb := case when jsonb_typeof(v_memory -> 3) = 'object' then v_memory -> 3 else '{}' end;
    v_last text;
    v_lane smallint;
    v_spots jsonb := case when t.fair_by_group then coalesce(v_memory -> 4, '{}') end;     -- by lane: where groups wait further on
    v_started double precision := extract(epoch from clock_timestamp());
    v_looks boolean := v_positions is null or v_started >= v_look_at;
    v_parts divvy.part[] := '{}';
    v_mine bigint[] := '{}';    -- taken by this claim,
    v_taken bigint[];           -- and what others have leased of what is ready from the positions on
    v_picked text[] := '{}';
    v_lanes smallint[];
    v_want int;
    r record;
    c record;
    u record;
begin
    loop
        if v_looks then
            v_positions := divvy.raise_marks(t.name);
        end if;
        v_taken := v_mine || array(select i from divvy.lease l cross join unnest(l.split_ids) i
            where l.token = any (p_tokens) and l.task_type = t.name and l.written is not true
                and (v_looks or l.hi_key > coalesce(v_positions[divvy.lane_slot(l.lane)], 0)));
        v_lanes := divvy.lanes_by_age(t.name, v_positions, p_now);
        for r in
            -- First what was found below the marks, of which a position knows nothing.
            select 0 as place, b.lane, b.from_key, least(b.to_key, v_positions[divvy.lane_slot(b.lane)]) as to_key
            from divvy.behind b where v_looks and b.task_type = t.name
            union all
            select x.place::int, x.lane, v_positions[divvy.lane_slot(x.lane)], 9223372036854775807
            from unnest(v_lanes) with ordinality x (lane, place)
            order by place, lane, from_key
        loop
            exit when p_want <= 0 or p_room <= 0;
            v_want := case r.place when 0 then p_want else divvy.share_of_lane(v_lanes, r.place, p_want) end;
            continue when v_want <= 0;
            v_lane := r.lane;
            v_last := v_lasts ->> v_lane::text;
            if r.lane > 20 then
                u := divvy.unfold(t, r.lane, r.from_key, r.to_key, v_want, p_tokens, v_picked, v_last);
                if r.place > 0 then
                    v_positions[divvy.lane_slot(r.lane)] := u.go_on;
                end if;
                continue when not u.any;
                r.lane := u.lane;
                c := divvy.choose(t, r.lane, u.from_key, 9223372036854775807, v_want, p_room, p_tokens, v_taken, v_picked, u.last_group);
                -- The rows that were made lie at the end: where nothing is left before them, no claim walks over them again.
                if (divvy.candidates(t.name, r.lane, v_positions[divvy.lane_slot(r.lane)], u.from_key, 1, v_taken)).keys is null then
                    v_positions[divvy.lane_slot(r.lane)] := c.go_on;
                end if;
            elsif r.place = 0 then
                c := divvy.choose(t, r.lane, r.from_key, r.to_key, v_want, p_room, p_tokens, v_taken, v_picked, v_last);
            elsif t.fair_by_group then
                c := divvy.choose_in_turn(t, r.lane, r.from_key, v_want, p_room, p_tokens, v_taken, v_picked, v_last, v_spots -> r.lane::text, v_looks, p_now);
                v_positions[divvy.lane_slot(r.lane)] := c.go_on;
                v_spots := case when c.spots is null then v_spots - r.lane::text else v_spots || jsonb_build_object(r.lane, c.spots) end;
            else
                c := divvy.choose(t, r.lane, r.from_key, r.to_key, v_want, p_room, p_tokens, v_taken, v_picked, v_last);
                v_positions[divvy.lane_slot(r.lane)] := c.go_on;
            end if;
            continue when c.ids = '{}';
            v_parts := v_parts || c.parts;
            v_lasts := v_lasts || jsonb_build_object(v_lane, c.last_group);
            p_want := p_want - cardinality(c.ids);
            p_room := p_room - c.bytes;
            exit when p_want <= 0;
            v_mine := v_mine || c.ids;
            v_taken := v_taken || c.ids;
            v_picked := v_picked || (select x.labels from divvy.labels_of(t.name, r.lane, c.ids, (c.parts[1]).places) x);
        end loop;
        exit when v_looks or p_want <= 0 or p_room <= 0 or v_started < v_may_look_at;
        v_looks := true;
    end loop;
    if v_looks then
        v_may_look_at := v_started + 10 * (extract(epoch from clock_timestamp()) - v_started);
        v_look_at := greatest(v_started + 1, v_may_look_at);
    end if;
    v_memory := jsonb_build_array(v_positions::text, v_look_at, v_may_look_at, v_lasts);
    perform set_config(v_setting, case when v_spots is null then v_memory else v_memory || jsonb_build_array(v_spots) end::text, false);
    return v_parts;
end $$;

-- Takes up to p_want splits of a lane with p_from < key <= p_to, and says where the next claim has to begin. p_taken run already, or are
-- taken by this claim, where they count as p_picked. ids and bytes are those of the parts: one, or none.
create or replace function divvy.choose(t divvy.task_type, p_lane smallint, p_from bigint, p_to bigint, p_want int, p_room bigint, p_tokens bigint[],
    p_taken bigint[], p_picked text[], p_last text,
    out parts divvy.part[], out ids bigint[], out bytes bigint, out go_on bigint, out last_group text)
language plpgsql as $$
declare
    -- Turns need a view of what waits; for a limit it's enough to go on where too little fits.
    v_window int := least(2000, case when t.fair_by_group then greatest(100, 10 * p_want) else greatest(20, p_want + p_want / 4) end);
    v_looks constant int := 20;
    v_held_max constant int := 2000;
    v_held int := 0;
    p divvy.part;
    c record;
    d record;
begin
    ids := '{}';
    for i in 1 .. v_looks loop
        c := divvy.candidates(t.name, p_lane, p_from, p_to, v_window, p_taken);
        exit when c.keys is null;
        d := divvy.decide(t, c.keys, c.ids, c.groups, c.tasks, p_tokens, p_picked, p_want, p_last);
        v_held := v_held + case when d.beyond = '{}' then 0 else divvy.hold_back(d.beyond) end;
        if d.chosen <> '{}' then
            p := divvy.pick_lane(t, p_lane, d.chosen[1] - 1, d.chosen[cardinality(d.chosen)], p_want, p_room, false, d.chosen);
            ids := coalesce(p.split_ids, '{}');
            if cardinality(ids) < cardinality(d.chosen) then
                go_on := least(go_on, d.chosen[1] - 1);   -- somebody has one of them locked, or the answer is full
            end if;
        end if;
        go_on := least(go_on, d.first_left - 1);
        if ids = '{}' and d.chosen <> '{}' then
            p_taken := p_taken || divvy.ids_of(d.chosen, c.keys, c.ids);    -- others have locked them all: what comes next?
            continue;
        end if;
        last_group := d.last_group;
        p_from := c.keys[cardinality(c.keys)];
        exit when ids <> '{}' or cardinality(c.keys) < v_window or v_held >= v_held_max;
        v_window := least(2000, 2 * v_window);
    end loop;
    go_on := coalesce(go_on, p_from);
    parts := case when ids = '{}' then '{}' else array[p] end;
    bytes := p.bytes;
end $$;

-- The ids of those with these keys.
create or replace function divvy.ids_of(p_chosen bigint[], p_keys bigint[], p_ids bigint[]) returns bigint[]
language sql as 'select array(select x.id from unnest(p_keys, p_ids) as x (key, id) where x.key = any (p_chosen))';

-- What is ready between two keys and runs by no lease, in order. Nothing is locked yet.
create or replace function divvy.candidates(p_type text, p_lane int, p_from bigint, p_to bigint, p_max int, p_taken bigint[],
    out keys bigint[], out ids bigint[], out groups text[], out tasks bigint[])
language plpgsql as $$
begin
    if p_lane < 10 then
        select array_agg(c.key), array_agg(c.id), array_agg(c.group_key), null into keys, ids, groups, tasks
        from (select k.key, k.id, k.group_key from divvy.task k
            where k.task_type = p_type and k.lane = p_lane and k.key > p_from and k.key <= p_to and k.state = 'ready'
                and k.id not in (select i from unnest(p_taken) i)
            order by k.key limit p_max) c;
    else
        select array_agg(c.key), array_agg(c.id), array_agg(c.group_key), array_agg(c.share_of) into keys, ids, groups, tasks
        from (select s.key, s.id, s.group_key, s.share_of from divvy.share s
            where s.task_type = p_type and s.lane = p_lane and s.key > p_from and s.key <= p_to and s.state = 'ready'
                and s.id not in (select i from unnest(p_taken) i)
            order by s.key limit p_max) c;
    end if;
end $$;

-- Of candidates in the order of their keys: the keys to take, ascending; the ids that are over the limit of their task or
-- group; the first key that is neither; the group that is served last. The splits of a task are all of its group, so tasks
-- are counted first.
create or replace function divvy.decide(t divvy.task_type, p_keys bigint[], p_ids bigint[], p_groups text[], p_tasks bigint[], p_tokens bigint[],
    p_picked text[], p_want int, p_last text, out chosen bigint[], out beyond bigint[], out first_left bigint, out last_group text)
language plpgsql as $$
declare
    v_fits boolean[] := array_fill(true, array[cardinality(p_keys)]);
begin
    beyond := '{}';
    if t.max_running_per_task is not null and p_tasks is not null then
        v_fits := divvy.within(t.name, array(select 't:' || x from unnest(p_tasks) x), v_fits, t.max_running_per_task, p_tokens, p_picked);
    end if;
    if t.max_running_per_group is not null then
        v_fits := divvy.within(t.name, array(select 'g:' || x from unnest(p_groups) x), v_fits, t.max_running_per_group, p_tokens, p_picked);
    end if;
    if false = any (v_fits) then
        select array_agg(c.id) filter (where not c.fits), array_agg(c.key) filter (where c.fits), array_agg(c.grp) filter (where c.fits)
        into beyond, p_keys, p_groups from unnest(p_ids, p_keys, p_groups, v_fits) as c (id, key, grp, fits);
    end if;
    if t.fair_by_group and cardinality(p_keys) > p_want then
        select x.chosen, x.first_left, x.last_group into chosen, first_left, last_group from divvy.in_turn(p_keys, p_groups, p_want, p_last) x;
    else
        chosen := coalesce(p_keys[:p_want], '{}');
        first_left := p_keys[p_want + 1];
        last_group := p_last;
    end if;
end $$;

-- Which of the candidates, in their order, stay within a limit on their label; those without one do. p_fits: the ones in question.
create or replace function divvy.within(p_type text, p_labels text[], p_fits boolean[], p_limit int, p_tokens bigint[], p_picked text[]) returns boolean[]
language plpgsql set enable_hashjoin = on as $$
declare
    v_busy text[];
    v_counts bigint[];
begin
    if array_remove(p_labels, null) = '{}' then
        return p_fits;
    end if;
    select array_agg(b.label), array_agg(b.n) into v_busy, v_counts from (
        select a.label, sum(a.n)::bigint as n from (
            select r.label, r.n from divvy.running_in(p_type, p_tokens, array(select distinct x from unnest(p_labels) x where x is not null)) r
            union all
            select x, 1 from unnest(p_picked) x) a
        group by a.label) b;
    return array(
        select c.fits and (c.label is null
            or coalesce(b.n, 0) + row_number() over (partition by c.label collate "C", c.fits order by c.n) <= p_limit)
        from unnest(p_labels, p_fits) with ordinality as c (label, fits, n) left join unnest(v_busy, v_counts) as b (label, n) on b.label = c.label
        order by c.n);
end $$;

-- Groups take turns, and begin after the one that was served last; no group is a group, too.
create or replace function divvy.in_turn(p_keys bigint[], p_groups text[], p_want int, p_last text)
returns table (chosen bigint[], first_left bigint, last_group text)
language sql stable rows 1 as $$
    with turn as (
        select c.key, coalesce(c.grp, '') collate "C" as grp, row_number() over (partition by coalesce(c.grp, '') collate "C" order by c.n) as turn
        from unnest(p_keys, p_groups) with ordinality as c (key, grp, n)
    ), ranked as materialized (
        select u.key, u.grp, row_number() over (order by u.turn, u.grp <= p_last, u.grp) as place from turn u
    )
    select array(select r.key from ranked r where r.place <= p_want order by r.key),
        (select min(r.key) from ranked r where r.place > p_want),
        (select r.grp from ranked r where r.place = p_want)
$$;
