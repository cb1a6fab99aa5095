-- Large tasks of types whose claims choose (sql/44_choose.sql). Their splits lie in stretches as all others' do; a claim makes rows of as many as
-- their turn is, and chooses among these, so that a large task is in nobody's way. A stretch of whose task or group as many run as may
-- is put aside: no claim comes by again before one of these has ended.

-- Makes rows, ready, of up to p_want splits of a lane's stretches with p_from < key <= p_to: of each task or group in turn, and no more than may run of
-- it. Says whether there are any, their lane, after which key they come, where the next claim goes on, and which group was served last.
create or replace function divvy.unfold(t divvy.task_type, p_lane smallint, p_from bigint, p_to bigint, p_want int, p_tokens bigint[], p_picked text[],
    p_last text, out "any" boolean, out lane smallint, out from_key bigint, out go_on bigint, out last_group text)
language plpgsql as $$
declare
    v_width constant int := case when t.fair_by_group then 200 else 16 end;
    v_more boolean := true;
    v_last bigint := p_from;
    v_after bigint;
    v_room record;
    n int;
    c record;
    s divvy.stretch;
begin
    "any" := false;
    lane := p_lane - 10;
    from_key := (select q.last_value from divvy.key q);
    last_group := p_last;
    while v_more and p_want > 0 loop
        v_more := false;
        v_after := v_last;
        for c in
            -- As divvy.pick_stretches; where groups take turns, those come first that follow the one that was served last. What runs is counted once for all.
            with seen as materialized (
                select z.place, z.key, z.size, k as task, k.id, k.group_key, coalesce(k.group_key, '') collate "C" as grp,
                    row_number() over (partition by case when t.fair_by_group then k.group_key else k.id::text end order by z.key) as turn
                from (select x.ctid as place, x.share_of, x.key, x.last_no - x.first_no as size from divvy.stretch x
                    where x.task_type = t.name and x.lane = p_lane and x.key > v_after and x.key <= p_to and x.first_no <= x.last_no
                    order by x.key limit v_width) z
                join divvy.task k on k.id = any (array[z.share_of])
            ), busy as materialized (
                select r.label, r.n from divvy.running_in(t.name, p_tokens, array(
                    select 't:' || e.id from seen e where t.max_running_per_task is not null
                    union select 'g:' || e.group_key from seen e where t.max_running_per_group is not null)) r
                where num_nonnulls(t.max_running_per_task, t.max_running_per_group) > 0
            )
            select y.*, count(*) filter (where y.turn = 1 and not y.waits)
                over (order by y.waits, y.turn, y.size, y.key rows between current row and unbounded following) as turns,
                max(y.at) over () > p_want and y.at = p_want as ends,
                (select b.n from busy b where b.label = 't:' || y.id) as of_task, (select b.n from busy b where b.label = 'g:' || y.group_key) as of_group
            from (select w.*, w.at > p_want as waits
                from (select v.*, row_number() over (order by v.turn, case when t.fair_by_group then v.grp <= p_last end,
                    case when t.fair_by_group then v.grp end, v.key) as at from seen v) w) y
            order by y.waits, y.turn, y.size, y.key
        loop
            v_more := true;
            v_last := greatest(v_last, c.key);
            exit when p_want <= 0;
            select * into s from divvy.stretch x where x.ctid = c.place and x.key = c.key and x.lane = p_lane for update skip locked;
            continue when not found;
            v_room := divvy.room_of(t, c.task, c.of_task, c.of_group, p_picked);
            if v_room.room <= 0 then
                update divvy.stretch x set lane = -x.lane, held_by = v_room.label where x.ctid = c.place;
                continue;
            end if;
            n := least(s.last_no - s.first_no + 1, ceil(p_want::numeric / greatest(c.turns, 1))::int, v_room.room);
            perform divvy.write_out_ready(c.task, s, s.first_no, divvy.payloads_of(s.share_of, s.first_no, s.first_no + n - 1));
            update divvy.stretch x set first_no = x.first_no + n, key = nextval('divvy.key') where x.ctid = c.place;
            p_picked := p_picked || array_fill('t:' || s.share_of, array[n]) || array_fill('g:' || (c.task).group_key, array[n]);
            p_want := p_want - n;
            "any" := true;
            if c.ends or p_want <= 0 and c.waits then
                last_group := c.grp;
            end if;
        end loop;
    end loop;
    -- As divvy.pick_stretches: the next claim begins at what was passed over.
    go_on := least(v_last, (select z.key - 1 from divvy.stretch z
        where z.task_type = t.name and z.lane = p_lane and z.key > p_from and z.key <= v_last and z.first_no <= z.last_no order by z.key limit 1));
end $$;

-- How many more of a task's splits may run, as far as it and its group are limited (null: as many as there are), and which of the two says so.
-- Of them run already: p_of_task and p_of_group. p_picked: labels of what is about to run, one for each.
create or replace function divvy.room_of(t divvy.task_type, k divvy.task, p_of_task bigint, p_of_group bigint, p_picked text[],
    out room int, out label text)
language plpgsql as $$
begin
    select x.may - coalesce(x.n, 0) - cardinality(array_positions(p_picked, x.label)), x.label into room, label
    from (values ('t:' || k.id, t.max_running_per_task, p_of_task), ('g:' || k.group_key, t.max_running_per_group, p_of_group)) as x (label, may, n)
    where x.label is not null and x.may is not null
    order by 1 limit 1;
end $$;

-- What is held back of these groups and tasks, the oldest first, as many as may run: ids of splits, places of stretches. A stretch counts as one split,
-- and goes behind the others once something was taken of it, so that a large task is in nobody's way. A full task keeps its splits, whatever
-- its group has free; a limit that there is no more lets go a thousand a look.
create or replace function divvy.held_that_fits(t divvy.task_type, p_tokens bigint[], p_labels text[], out ids bigint[], out places tid[])
language plpgsql as $$
declare
    v_more constant int := 1000;
    v_full bigint[] := '{}';
    v_room bigint;
    h record;
    r record;
begin
    if t.max_running_per_task is not null then
        v_full := array(select substr(b.label, 3)::bigint from divvy.running_in(t.name, p_tokens,
                array(select distinct x from divvy.lease l cross join unnest(l.labels) x where l.token = any (p_tokens) and x like 't:%')) b
            where b.n >= t.max_running_per_task);
    end if;
    for r in
        select w.label, case left(w.label, 2) when 'g:' then t.max_running_per_group else t.max_running_per_task end - coalesce(b.n, 0) as room
        from unnest(p_labels) w (label) left join divvy.running_in(t.name, p_tokens, p_labels) b on b.label = w.label order by w.label
    loop
        continue when r.room <= 0;
        v_room := coalesce(r.room, v_more);
        select array_agg(y.id) filter (where y.id is not null) as ids, array_agg(y.place) filter (where y.place is not null) as places into h
        from (select x.* from (
            (select k.id, null::tid as place, -k.key as key from divvy.task k where r.label like 'g:%' and k.task_type = t.name
                and k.group_key = substr(r.label, 3) and k.key < 0 and k.reason = 'limit' order by k.key desc limit v_room)
            union all
            (select s.id, null, -s.key from divvy.share s where r.label like 'g:%' and s.task_type = t.name and s.group_key = substr(r.label, 3)
                and s.key < 0 and s.reason = 'limit' and not s.share_of = any (v_full) order by s.key desc limit v_room)
            union all
            (select s.id, null, -s.key from divvy.share s where r.label like 't:%' and s.task_type = t.name
                and s.share_of = case when r.label like 't:%' then substr(r.label, 3)::bigint end
                and s.key < 0 and s.reason = 'limit' order by s.key desc limit v_room)
            union all
            (select null, z.ctid, z.key from divvy.stretch z where z.task_type = t.name and z.held_by = r.label and not z.share_of = any (v_full)
                order by z.key limit v_room)) x
            order by x.key limit v_room) y;
        ids := ids || h.ids;
        places := places || h.places;
    end loop;
end $$;

-- The reverse of putting aside: behind what waits, and no older than what divvy.let_go lets go, which comes first then; a paused task's wait on. What is
-- locked, or was written meanwhile, is left to the next look.
create or replace function divvy.take_up(p_places tid[], p_now timestamptz) returns void
language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
begin
    update divvy.stretch s set held_by = null, due_at = p_now, key = nextval('divvy.key'),
        lane = case when k.paused_until > p_now then s.lane else -s.lane end
    from divvy.task k
    where k.id = any (array[s.share_of]) and s.ctid = any (array(select x.ctid from divvy.stretch x
        where x.ctid = any (p_places) and x.held_by is not null for update skip locked));
end $$;

-- The places of a type's stretches that are put aside.
create or replace function divvy.aside_of(p_type text) returns tid[]
language sql stable as $$
    select array(select s.ctid from divvy.stretch s where s.task_type = p_type and s.held_by is not null)
$$;
