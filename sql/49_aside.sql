-- Large tasks of types whose claims choose (sql/44_choose.sql). Their splits lie in stretches as all others' do; a claim makes rows of as many as
-- their turn is, and chooses among these, so that a large task is in nobody's way. A stretch of whose task or group as many run as may
-- is put aside: no claim comes by again before one of these has ended.

-- Makes rows, ready, of up to p_want splits of a lane's stretches with p_from < key <= p_to: of each task or group in turn, and no more than may run of
-- it. Says whether there are any, their lane, after which key they come, and where the next claim goes on.
create or replace function divvy.unfold(t divvy.task_type, p_lane smallint, p_from bigint, p_to bigint, p_want int, p_tokens bigint[], p_picked text[],
    out "any" boolean, out lane smallint, out from_key bigint, out go_on bigint)
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
    while v_more and p_want > 0 loop
        v_more := false;
        v_after := v_last;
        for c in
            select y.*, count(*) filter (where y.turn = 1) over (order by y.turn, y.size, y.key rows between current row and unbounded following) as turns
            from (select x.place, x.key, x.size, k as task, row_number() over (partition by case when t.fair_by_group then k.group_key else k.id::text end
                    order by x.key) as turn
                from (select z.ctid as place, z.share_of, z.key, z.last_no - z.first_no as size from divvy.stretch z
                    where z.task_type = t.name and z.lane = p_lane and z.key > v_after and z.key <= p_to and z.first_no <= z.last_no
                    order by z.key limit v_width) x
                join divvy.task k on k.id = x.share_of) y
            order by y.turn, y.size, y.key
        loop
            v_more := true;
            v_last := greatest(v_last, c.key);
            exit when p_want <= 0;
            select * into s from divvy.stretch x where x.ctid = c.place and x.key = c.key and x.lane = p_lane for update skip locked;
            continue when not found;
            v_room := divvy.room_of(t, c.task, p_tokens, p_picked);
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
        end loop;
    end loop;
    -- As divvy.pick_stretches: the next claim begins at what was passed over.
    go_on := least(v_last, (select z.key - 1 from divvy.stretch z
        where z.task_type = t.name and z.lane = p_lane and z.key > p_from and z.key <= v_last and z.first_no <= z.last_no order by z.key limit 1));
end $$;

-- How many more of a task's splits may run, as far as it and its group are limited (null: as many as there are), and which of the two says so.
-- p_picked: labels of what is about to run, one for each.
create or replace function divvy.room_of(t divvy.task_type, k divvy.task, p_tokens bigint[], p_picked text[], out room int, out label text)
language plpgsql as $$
begin
    if num_nonnulls(t.max_running_per_task, t.max_running_per_group) = 0 then
        return;
    end if;
    select x.may - coalesce(r.n, 0) - cardinality(array_positions(p_picked, x.label)), x.label into room, label
    from (values ('t:' || k.id, t.max_running_per_task), ('g:' || k.group_key, t.max_running_per_group)) as x (label, may)
    left join divvy.running_in(t.name, p_tokens, array['t:' || k.id, 'g:' || k.group_key]) r on r.label = x.label
    where x.label is not null and x.may is not null
    order by 1 limit 1;
end $$;

-- The reverse of putting aside, for these labels: behind what waits; a paused task's wait on. What is locked is left to the next look.
create or replace function divvy.take_up(p_type text, p_labels text[], p_now timestamptz) returns void
language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
begin
    update divvy.stretch s set held_by = null, key = nextval('divvy.key'), lane = case when k.paused_until > p_now then s.lane else -s.lane end
    from divvy.task k
    where k.id = s.share_of and s.ctid = any (array(select x.ctid from divvy.stretch x
        where x.task_type = p_type and x.held_by = any (p_labels) for update skip locked));
end $$;

-- The labels for which stretches of a type are put aside.
create or replace function divvy.full_of(p_type text) returns text[]
language sql stable as $$
    select array(select distinct s.held_by from divvy.stretch s where s.task_type = p_type and s.held_by is not null)
$$;
