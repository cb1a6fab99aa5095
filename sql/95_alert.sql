-- Alerts: what somebody should look at. The rules are few and fixed, and read the views that people read. Nothing is sent anywhere: whoever
-- wants mail or a page reads divvy.alert_overview, /api/v1/alerts or /metrics.

-- What is wrong now: the rule, what it is about (a type, a schedule, a setting; empty: all), and the values.
create or replace function divvy.findings() returns table (name text, object text, detail text)
language sql security definer rows 10 set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
    with t as materialized (select * from divvy.type_stats)
    select 'unroutable', t.task_type, format('%s tasks wait for type %s, which nobody has declared', t.scheduled, t.task_type)
    from t where not t.declared and t.scheduled > 0
    union all
    select 'no_worker', t.task_type, format('%s splits of type %s are ready, the first of them for %s, and no worker was seen for a minute', t.ready, t.task_type, t.oldest_ready)
    from t where t.workers = 0 and t.oldest_ready > interval '1 min' and coalesce(t.paused_until <= divvy.clock(), true)
    union all
    select 'lag', t.task_type, format('a split of type %s has been ready for %s, over %s s', t.task_type, t.oldest_ready, divvy.limit_of('alert lag'))
    from t where t.workers > 0 and t.oldest_ready > make_interval(secs => divvy.limit_of('alert lag')) and coalesce(t.paused_until <= divvy.clock(), true)
    union all
    -- By their last attempts, which are few: dead_splits looks at every task there is.
    select 'dead', d.task_type, format('%s splits failed for good within the hour, the last at %s: %s', count(*), max(d.at),
        (array_agg(divvy.fingerprint(d.error, d.reason) order by d.at desc))[1])
    from (select a.split_id, max(a.finished_at) as at from divvy.attempt a
        where a.finished_at > divvy.clock() - interval '1 hour' group by a.split_id) a,
        lateral (select a.at, x.* from divvy.unit x where x.id = a.split_id and x.state = 'failed' offset 0) d
    group by d.task_type
    union all
    select 'schedule_refused', s.name, format('schedule %s never fires: %s', s.name, s.reason) from divvy.schedule_overview s where s.status = 'refused'
    union all
    select 'schedule_failing', s.name, format('the last %s runs of schedule %s failed', s.failures, s.name)
    from divvy.schedule_overview s where s.status in ('active', 'paused') and s.failures >= divvy.limit_of('alert failures')
    union all
    select 'long_transaction', '', format('a transaction has been open for %s: nothing that was deleted since can be cleaned up', h.value)
    from divvy.database_health h where h.name = 'oldest_transaction' and h.value::interval > make_interval(secs => divvy.limit_of('alert transaction'))
    union all
    select 'notifications', '', format('the queue of notifications is %s full: a session listens and reads nothing', h.value)
    from divvy.database_health h where h.name = 'notification_queue' and h.value::float8 > 0.5
    union all
    select 'durability', h.name, format('%s is off: a crash may lose what was committed', h.name)
    from divvy.database_health h where h.name in ('fsync', 'full_page_writes') and h.value = 'off'
$$;

-- Opens an alert for each finding and closes what is over, each with an event: once a minute over all callers. Returns how many opened or closed.
create or replace function divvy.look_for_alerts() returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_now constant timestamptz := divvy.clock();
    v_started double precision := extract(epoch from clock_timestamp());   -- real time: this bounds cost, it decides nothing
    v_changed int := 0;
    v_seen text[] := '{}';
    f record;
    a divvy.alert;
begin
    if not divvy.minute_has_come('alert', v_now) then
        return 0;
    end if;
    for f in select x.name, coalesce(x.object, '') as object, left(x.detail, 1000) as detail from divvy.findings() x order by 1, 2 limit divvy.limit_of('alerts') loop
        v_seen := v_seen || (f.name || ' ' || f.object);
        select x.* into a from divvy.alert x where (x.name, x.object) = (f.name, f.object);
        insert into divvy.alert as x (name, object, since, detail, looked_at) values (f.name, f.object, v_now, f.detail, v_now)
        on conflict on constraint alert_pkey do update set detail = excluded.detail, looked_at = v_now, closed_at = null,
            since = case when x.closed_at is null then x.since else v_now end;
        if a.name is null or a.closed_at is not null then
            perform divvy.record('open_alert', 'alert', trim(f.name || ' ' || f.object), f.detail, null, null);
            v_changed := v_changed + 1;
        end if;
    end loop;
    for a in update divvy.alert x set closed_at = v_now where x.closed_at is null and not (x.name || ' ' || x.object) = any (v_seen) returning x.* loop
        perform divvy.record('close_alert', 'alert', trim(a.name || ' ' || a.object), a.detail, jsonb_build_object('since', a.since), null);
        v_changed := v_changed + 1;
    end loop;
    delete from divvy.alert x where x.closed_at is not null and coalesce(x.silenced_until <= v_now, true);
    perform divvy.minute_is_over('alert', v_now, v_started);
    return v_changed;
end $$;

-- Says that an alert is known, until a moment (null: until it is said to be told again, with a moment that has passed). It stays silent when
-- it closes and opens again meanwhile. Errors: DV010, DV011 (it is not open). Locks: the alert's row.
create or replace function divvy.silence_alert(name text, object text default '', until timestamptz default null, reason text default null) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v_what text := trim(silence_alert.name || ' ' || silence_alert.object);
begin
    perform divvy.check_moment(until, 'until', format('alert %s', v_what));
    insert into divvy.alert as a (name, object, since, detail, looked_at, silenced_until, silence_reason)
    select o.name, o.object, o.since, o.detail, o.looked_at, coalesce(until, 'infinity'), silence_alert.reason
    from divvy.alert_overview o where o.name = silence_alert.name and o.object = silence_alert.object
    on conflict on constraint alert_pkey do update set silenced_until = excluded.silenced_until, silence_reason = excluded.silence_reason;
    if not found then
        perform divvy.unknown('open alert', v_what);
    end if;
    perform divvy.record('silence_alert', 'alert', v_what, silence_alert.reason, null, jsonb_build_object('until', until));
end $$;
