-- Rates: how many splits of a type start in a while, over the whole cluster. Its claims come one after another (sql/43_limit.sql).

-- A rate's windows: at most `cap` starts in any `span`. Less burst than count is a second, shorter window of the same pace.
create or replace function divvy.rate_windows(p_rate jsonb) returns table (cap int, span interval)
language sql immutable as $$
    select c, make_interval(secs => (p_rate ->> 'per')::double precision * c / (p_rate ->> 'count')::int)
    from unnest(array[(p_rate ->> 'count')::int, (p_rate ->> 'burst')::int]) c
$$;

-- How many the rate lets start now; null without one.
create or replace function divvy.rate_room(t divvy.task_type, p_now timestamptz) returns bigint
language sql stable as $$
    select min(w.cap - (select coalesce(sum(u.n), 0) from divvy.rate_use u where u.task_type = t.name and u.at > p_now - w.span))
    from divvy.rate_windows(t.rate) w where t.rate is not null
$$;

-- Notes starts. Moments are rounded up to a thousandth of the period and never go back, so that they err on the late side.
create or replace function divvy.rate_take(t divvy.task_type, p_count bigint, p_now timestamptz) returns void
language sql as $$
    insert into divvy.rate_use as u (task_type, at, n)
    select t.name, greatest(m.at + case when m.at < p_now then m.grain else interval '0' end,
        (select max(x.at) from divvy.rate_use x where x.task_type = t.name)), p_count
    from (select g.grain, date_bin(g.grain, p_now, timestamptz '2000-01-01 00:00+00') as at
        from (select make_interval(secs => (t.rate ->> 'per')::double precision / 1000) as grain) g) m
    where p_count > 0
    on conflict (task_type, at) do update set n = u.n + excluded.n
$$;
