-- Stretches that end before anybody began them: a cancel or a broken tolerance moves each as a whole, and a redrive moves it
-- back, so that both cost as much for a million splits as for a hundred. The task is locked by whoever calls these.

-- Ends what nobody has begun of a task. Returns how many splits.
create or replace function divvy.drop_unbegun(p_task bigint, p_state divvy.split_status, p_reason text, p_now timestamptz) returns bigint
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    s divvy.stretch;
    v_count bigint := 0;
begin
    if not divvy.has_unbegun(p_task) then
        return 0;
    end if;
    for s in select * from divvy.stretch x where x.share_of = p_task and x.first_no <= x.last_no order by x.stripe for update loop
        insert into divvy.dropped (share_of, first_no, last_no, id_base, state, reason, due_at, finished_at)
        values (p_task, s.first_no, s.last_no, s.id_base, p_state, p_reason, s.due_at, p_now);
        delete from divvy.stretch x where x.share_of = p_task and x.stripe = s.stripe;
        v_count := v_count + s.last_no - s.first_no + 1;
    end loop;
    return v_count;
end $$;

-- Re-opens what was dropped of a task, by the options of redrive. Returns how many splits.
create or replace function divvy.reopen_dropped(p_task bigint, p_options jsonb) returns bigint
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    k divvy.task;
    d divvy.dropped;
    s divvy.stretch;
    v_wanted int[];
    v_count bigint := 0;
begin
    if p_options #>> '{where,error_class}' is not null then
        return 0;   -- what nobody began has no error
    end if;
    select * into k from divvy.task t where t.id = p_task;
    v_wanted := divvy.wanted_numbers(p_options #> '{where,split_no}', k.split_count);
    for d in select * from divvy.dropped x where x.share_of = p_task
        and (x.state = 'cancelled' or x.reason = 'tolerance' or (p_options ->> 'skipped')::boolean) order by x.first_no
    loop
        s.share_of := p_task; s.id_base := d.id_base; s.lane := 20 + k.priority; s.due_at := divvy.clock(); s.task_type := k.task_type;
        if p_options #> '{where,split_no}' is not null then
            v_count := v_count + divvy.reopen_some(k, d, s, v_wanted);
            continue;
        end if;
        delete from divvy.dropped x where x.share_of = p_task and x.first_no = d.first_no;
        insert into divvy.stretch (share_of, stripe, first_no, last_no, id_base, lane, due_at, task_type)
        values (p_task, coalesce((select max(x.stripe) from divvy.stretch x where x.share_of = p_task), 0) + 1, d.first_no, d.last_no, s.id_base,
            s.lane, s.due_at, s.task_type);
        v_count := v_count + d.last_no - d.first_no + 1;
    end loop;
    return v_count;
end $$;

-- The split numbers of a JSON array, or of one number, ascending; of those that there can be.
create or replace function divvy.wanted_numbers(p_numbers jsonb, p_most int) returns int[]
language sql stable as $$
    select array(select distinct n::int from (
            select case jsonb_typeof(x) when 'number' then x::numeric end as n from jsonb_path_query(p_numbers, 'lax $[*]') x) y
        where n between 1 and p_most and n = trunc(n) order by 1)
$$;

-- Of what was dropped together, these numbers become rows that are ready; what lies between them stays.
create or replace function divvy.reopen_some(k divvy.task, d divvy.dropped, s divvy.stretch, p_wanted int[]) returns bigint
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    v_count bigint := 0;
    v_from int := d.first_no;
    v_at int;
    c record;
begin
    for c in
        select min(n) as first_no, max(n) as last_no
        from (select n, n - row_number() over (order by n) as island from unnest(p_wanted) n where n between d.first_no and d.last_no) x
        group by x.island order by 1
    loop
        if v_count = 0 then
            delete from divvy.dropped x where x.share_of = k.id and x.first_no = d.first_no;
        end if;
        perform divvy.drop_between(d, v_from, c.first_no - 1);
        for v_at in select generate_series(c.first_no, c.last_no, 10000) loop
            perform divvy.write_out_ready(k, s, v_at, divvy.payloads_of(k.id, v_at, least(c.last_no, v_at + 9999)));
        end loop;
        v_from := c.last_no + 1;
        v_count := v_count + c.last_no - c.first_no + 1;
    end loop;
    if v_count > 0 then
        perform divvy.drop_between(d, v_from, d.last_no);
    end if;
    return v_count;
end $$;

create or replace function divvy.drop_between(d divvy.dropped, p_first int, p_last int) returns void
language sql as $$
    insert into divvy.dropped (share_of, first_no, last_no, id_base, state, reason, due_at, finished_at)
    select d.share_of, p_first, p_last, d.id_base, d.state, d.reason, d.due_at, d.finished_at where p_first <= p_last
$$;

-- The dropped ones among which a split lies.
create or replace function divvy.dropped_of(p_id bigint) returns divvy.dropped
language plpgsql stable set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    d divvy.dropped;
begin
    select * into d from divvy.dropped x where x.id_base + x.last_no >= p_id order by x.id_base + x.last_no limit 1;
    return case when d.id_base + d.first_no <= p_id then d end;
end $$;
