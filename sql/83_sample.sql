-- What waits and runs, kept once a minute. Nothing is counted where splits are claimed or completed: a sample looks, and so it says
-- nothing of what came and went between two looks. How many tasks ended in a minute is not kept: nothing indexes their ends (docs/adr/0009),
-- and a count at each end would be paid by every split.

-- Keeps what type_stats says now, for this minute: of types that have something waiting or running, the busiest. Whoever comes first does it
-- for all; no more than a fiftieth of the time goes into it. Returns how many types it kept.
create or replace function divvy.take_sample() returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_now timestamptz := divvy.clock();
    v_minute timestamptz := date_trunc('minute', v_now);
    v_started double precision := extract(epoch from clock_timestamp());   -- real time: this bounds cost, it decides nothing
    v_kept int;
begin
    if not divvy.minute_has_come('sample', v_now) then
        return 0;
    end if;
    insert into divvy.sample (at, task_type, ready, delayed, running, scheduled, held, workers, oldest_ready)
    select v_minute, t.task_type, t.ready, t.delayed, t.running, t.scheduled, t.held, t.workers, t.oldest_ready
    from divvy.type_stats t where t.ready + t.delayed + t.running + t.scheduled > 0
    order by t.ready + t.delayed + t.running + t.scheduled desc, t.task_type limit divvy.limit_of('sampled types')
    on conflict do nothing;
    get diagnostics v_kept = row_count;
    perform divvy.minute_is_over('sample', v_now, v_started);
    return v_kept;
end $$;

-- Whether something is due that is done once a minute, and nobody else is at it. It is this caller's until its transaction ends.
create or replace function divvy.minute_has_come(p_name text, p_now timestamptz) returns boolean
language plpgsql as $$
begin
    -- A look without a lock first: this is asked far more often than there is something to do.
    if exists (select from divvy.once_a_minute m where m.name = p_name and (m.next_at <= p_now or m.next_at > p_now + interval '1 hour')) then
        perform from divvy.once_a_minute m where m.name = p_name and (m.next_at <= p_now or m.next_at > p_now + interval '1 hour') for update skip locked;
        return found;
    end if;
    return false;
end $$;

-- It is done, and due again in the next minute, or after fifty times as long as it took.
create or replace function divvy.minute_is_over(p_name text, p_now timestamptz, p_started double precision) returns void
language sql as $$
    update divvy.once_a_minute set next_at = greatest(date_trunc('minute', p_now) + interval '1 min',
        p_now + least(interval '1 hour', make_interval(secs => 50 * (extract(epoch from clock_timestamp()) - p_started)::double precision)))
    where name = p_name
$$;

-- Deletes samples that were kept long enough.
create or replace function divvy.prune_samples(p_max int, p_now timestamptz) returns void
language sql as $$
    delete from divvy.sample s where (s.at, s.task_type) in (select x.at, x.task_type from divvy.sample x
        where x.at < p_now - make_interval(days => divvy.limit_of('sample days')::int) order by x.at, x.task_type limit p_max)
$$;
