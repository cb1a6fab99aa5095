-- What the cases in cases.rs are made of. :worker is replaced.

create function pg_temp.put(p_type text) returns void language plpgsql as $$
begin
    if p_type in ('divided', 'divided_limited') then
        insert into divvy.task (task_type, split_count, group_key) select p_type, 20, 'k' || i from generate_series(1, 3) i;
    elsif p_type = 'large' then
        insert into divvy.task (task_type, split_count) values (p_type, 100);
    else
        insert into divvy.task (task_type, group_key) select p_type, 'k' || i % 10 from generate_series(1, 60) i;
    end if;
end $$;

-- Claims into the table c.
create function pg_temp.take(p_type text, p_max int default 50) returns void language plpgsql as $$
begin
    drop table if exists c;
    create temp table c on commit drop as select * from divvy.claim(:worker, array[p_type], p_max);
end $$;

create function pg_temp.ids() returns bigint[] language plpgsql as 'begin return array(select split_id from c order by split_id); end';
create function pg_temp.tokens() returns bigint[] language plpgsql as 'begin return array(select token from c order by split_id); end';

create function pg_temp.fail_all() returns void language plpgsql as $$
begin
    perform divvy.fail(split_id, token, '{"class": "x", "message": "y"}', true, '1 ms') from c;
    update divvy.unit set due_at = due_at - interval '1 min' where state = 'delayed' and due_at < 'infinity';
end $$;

-- Leases as if they were older; ended: nobody has renewed them.
create function pg_temp.age(p_ended boolean) returns void language plpgsql as $$
begin
    update divvy.lease set claimed_at = claimed_at - interval '1 hour';
    if p_ended then
        update divvy.lease set lease_until = now() - interval '30 min', deadline_at = now() - interval '20 min';
        update divvy.pulse set resumed_at = now() - interval '1 day', reclaimed_at = divvy.clock() - interval '1 s', server_start = pg_postmaster_start_time();
    end if;
end $$;

create function pg_temp.schedules() returns void language plpgsql as $$
begin
    insert into divvy.schedule (name, task_type, every) select 's' || i, 'plain', '1 min' from generate_series(1, 20) i;
end $$;

-- What this transaction has read so far: rows from end to end, rows by index, entries of indexes.
create function pg_temp.reads() returns table (what text, n bigint) language sql as $$
    select c.relname || case c.relkind when 'i' then ' entries' else ' scanned' end, pg_stat_get_xact_tuples_returned(c.oid)
    from pg_class c where c.relnamespace = 'divvy'::regnamespace and c.relkind in ('r', 'i')
    union all
    select c.relname || ' fetched', pg_stat_get_xact_tuples_fetched(c.oid)
    from pg_class c where c.relnamespace = 'divvy'::regnamespace and c.relkind = 'r'
$$;

-- What a call reads more of than it may; null: nothing.
create function pg_temp.too_much(p_call text, p_most bigint) returns text language plpgsql as $$
declare
    v_before jsonb := (select jsonb_object_agg(what, n) from pg_temp.reads());
begin
    execute p_call;
    return (select string_agg(format('%s %s', r.n - (v_before ->> r.what)::bigint, r.what), ', ')
        from pg_temp.reads() r where r.n - (v_before ->> r.what)::bigint > p_most);
end $$;
