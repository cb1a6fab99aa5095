-- People change schedules. Whatever was due before a change is decided by what held then, in the same transaction.

-- The schedule of that name that has not ended, locked. Raises DV011.
create or replace function divvy.locked_schedule(p_name text) returns divvy.schedule
language plpgsql as $$
declare
    s divvy.schedule;
begin
    perform divvy.need_read_committed('schedule functions');
    select * into s from divvy.schedule d where d.name = p_name and d.status in ('active', 'paused', 'refused') for update;
    if not found then
        perform divvy.unknown('open schedule', p_name);
    end if;
    return s;
end $$;

create or replace function divvy.not_refused(s divvy.schedule) returns void
language plpgsql as $$
begin
    if s.status = 'refused' then
        raise exception using errcode = 'DV004', message = format('schedule %s is refused: %s', s.name, s.reason);
    end if;
end $$;

-- Stops a schedule from firing until `until` (null: until resumed). Errors: DV004 (refused), DV010, DV011.
create or replace function divvy.pause_schedule(name text, until timestamptz default null, reason text default null) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
begin
    perform divvy.check_moment(until, 'until', format('schedule %s', name));
    s := divvy.locked_schedule(pause_schedule.name);
    perform divvy.not_refused(s);
    update divvy.schedule d set status = 'paused', paused_until = until, reason = pause_schedule.reason, pause_reason = pause_schedule.reason,
        paused_at = case when d.status = 'paused' then d.paused_at else divvy.clock() end, resumed_at = null
    where d.id = s.id;
    perform divvy.record('pause_schedule', 'schedule', s.name, pause_schedule.reason, null, jsonb_build_object('until', until));
end $$;

-- The pause ended at p_at.
create or replace function divvy.unpause(s divvy.schedule, p_at timestamptz) returns void
language plpgsql as $$
begin
    update divvy.schedule d set status = 'active', paused_until = null, reason = null, resumed_at = p_at, failures = 0 where d.id = s.id;
    update divvy.schedule_fire x set look_at = p_at
    where x.schedule_id = s.id and x.outcome = 'waiting' and x.look_at = 'infinity' and x.kind = 'rule';
    update divvy.schedule_fire x set look_at = p_at
    where x.schedule_id = s.id and x.outcome = 'waiting' and x.look_at = 'infinity'
        and x.fire_at = (select min(y.fire_at) from divvy.schedule_fire y where y.schedule_id = s.id and y.outcome = 'waiting' and y.kind = 'backfill');
end $$;

-- Lets a paused schedule fire again; what was due meanwhile follows catch_up. Errors: DV004 (refused), DV011.
create or replace function divvy.resume_schedule(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
begin
    s := divvy.locked_schedule(resume_schedule.name);
    perform divvy.not_refused(s);
    if s.status = 'paused' then
        perform divvy.unpause(s, divvy.clock());
    end if;
    perform divvy.record('resume_schedule', 'schedule', s.name, null, null, null);
end $$;

-- Makes a task now, recorded as manual. Returns its id; null when its dedupe_key is held. Errors: DV011.
create or replace function divvy.trigger_schedule(name text, reason text default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
    f divvy.schedule_fire;
begin
    s := divvy.locked_schedule(trigger_schedule.name);
    f.schedule_id := s.id;
    f.kind := 'manual';
    f.reason := trigger_schedule.reason;
    f.fire_at := greatest(divvy.clock(), (select max(x.fire_at) + interval '1 microsecond' from divvy.schedule_fire x
        where x.schedule_id = s.id and x.kind = 'manual' and x.fire_at >= divvy.clock()));
    f := divvy.make_fire(s, f, divvy.clock());
    perform divvy.record('trigger_schedule', 'schedule', s.name, trigger_schedule.reason, null, jsonb_build_object('task_id', f.task_id));
    return f.task_id;
end $$;

-- The schedule, which is locked, ends as p_status; what is due or waits is skipped with that reason.
create or replace function divvy.stop_schedule(s divvy.schedule, p_status divvy.schedule_status, p_reason text, p_now timestamptz) returns void
language plpgsql as $$
declare
    d record;
    v_why text := coalesce(p_reason, 'the schedule was ' || p_status);
    v_last timestamptz;
begin
    d := divvy.due_moments(s, p_now);
    v_last := d.moments[cardinality(d.moments)];
    if d.n > cardinality(d.moments) then
        perform divvy.miss_moments(s, '{}', d.n - cardinality(d.moments), d.stretch_from, d.stretch_through, p_now);
    end if;
    perform divvy.skip_moments(s, d.moments, v_why, p_now);
    perform divvy.skip_waiting(s.id, v_why, p_now, case p_status when 'cancelled' then '{rule,backfill}'::text[] else '{rule}' end);
    update divvy.schedule x set status = p_status, next_fire_at = null, moment_at = null, reason = p_reason,
        fired_through = greatest(x.fired_through, v_last), planned_from = greatest(x.planned_from, v_last),
        -- What only a planner can name is skipped when one has: nobody has to wait for it.
        name_until = case when s.status <> 'refused' and divvy.has_unknown_moments(s, p_now) then p_now end
    where x.id = s.id;
end $$;

-- Ends a schedule: none of its moments fires any more; tasks it made go on. Errors: DV011.
create or replace function divvy.cancel_schedule(name text, reason text default null) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
begin
    s := divvy.locked_schedule(cancel_schedule.name);
    perform divvy.stop_schedule(s, 'cancelled', cancel_schedule.reason, divvy.clock());
    perform divvy.record('cancel_schedule', 'schedule', s.name, cancel_schedule.reason, null, null);
end $$;

-- Makes the tasks of past moments, at most max_running of them open at a time; recorded as backfill. A moment is backfilled once.
-- Returns how many were not yet. Errors: DV003, DV004 (refused), DV010, DV011.
create or replace function divvy.backfill_schedule(name text, moments timestamptz[], max_running int default 1, reason text default null) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
    v_now timestamptz := divvy.clock();
    v_what text := format('schedule %s: backfill', name);
    v_bad timestamptz;
    v_made int;
begin
    s := divvy.locked_schedule(backfill_schedule.name);
    perform divvy.not_refused(s);
    perform divvy.check_limit('batch', coalesce(cardinality(moments), 0), v_what);
    select m into v_bad from unnest(moments) m where m is null or m > v_now or m < '1970-01-01 00:00+00' limit 1;
    if found then
        perform divvy.bad_option(v_what, format('moment %s does not lie between 1970 and now, %s', coalesce(v_bad::text, 'null'), v_now));
    elsif max_running is null or max_running not between 1 and 1000 then
        perform divvy.bad_option(v_what, format('max_running is %s; it must be 1 to 1000', coalesce(max_running::text, 'null')));
    end if;
    insert into divvy.schedule_fire (schedule_id, fire_at, kind, outcome, reason, at, not_before, look_at)
    select s.id, m, 'backfill', 'waiting', backfill_schedule.reason, v_now, v_now, 'infinity' from unnest(moments) m group by m
    on conflict do nothing;
    get diagnostics v_made = row_count;
    s.backfill_max := max_running;
    update divvy.schedule d set backfill_max = max_running where d.id = s.id;
    perform divvy.record('backfill_schedule', 'schedule', s.name, backfill_schedule.reason, null, jsonb_build_object('moments', v_made,
        'from', (select min(m) from unnest(moments) m), 'through', (select max(m) from unnest(moments) m), 'max_running', max_running));
    perform divvy.release_waiting(s, v_now);
    return v_made;
end $$;

-- The columns that say when a schedule fires.
create or replace function divvy.schedule_rule_names() returns text[]
language sql immutable parallel safe as $$
    select array['steps', 'run_at', 'cron', 'every', 'timezone', 'dst_gap', 'dst_fold', 'starts_at', 'ends_at', 'anchor', 'calendar', 'calendar_shift']
$$;

-- What a schedule is, by name: the columns that an INSERT gives, beside its name.
create or replace function divvy.schedule_option_names() returns text[]
language sql immutable parallel safe as $$
    select divvy.schedule_rule_names() || array['task_type', 'payload', 'overlap', 'catch_up', 'catch_up_max', 'catch_up_window', 'catch_up_pace', 'jitter',
        'max_runs', 'stop_on_success', 'pause_on_failure', 'priority', 'dedupe_key', 'group_key', 'labels', 'headers', 'splits', 'split_count', 'split_range',
        'split_size', 'max_attempts', 'timeout', 'max_failed', 'max_failed_percent', 'reduce_on', 'then']
$$;

create or replace function divvy.schedule_defaults() returns jsonb
language sql immutable parallel safe as $$
    select '{"payload": {}, "timezone": "UTC", "overlap": "skip", "catch_up": "latest", "catch_up_max": 100, "catch_up_window": "1 day",
        "catch_up_pace": "1 s", "dst_gap": "shift", "dst_fold": "first", "stop_on_success": false, "priority": 2, "anchor": "created",
        "calendar_shift": "skip"}'::jsonb
$$;

-- s with options; null is the default. A rule of another kind takes the place of the one there is.
create or replace function divvy.schedule_with(s divvy.schedule, p_options jsonb, p_what text) returns divvy.schedule
language plpgsql as $$
declare
    v_given text[] := array(select k from unnest('{steps,run_at,cron,every}'::text[]) k where p_options -> k <> 'null');
begin
    if cardinality(v_given) > 0 then
        s.steps := null;
        s.run_at := null;
        s.cron := null;
        s.every := null;
    end if;
    return jsonb_populate_record(s, p_options || coalesce((select jsonb_object_agg(k, divvy.schedule_defaults() -> k)
        from jsonb_object_keys(p_options) k where p_options -> k = 'null'), '{}'));
exception when data_exception or invalid_text_representation or datetime_field_overflow or numeric_value_out_of_range then
    perform divvy.bad_schedule(p_what, sqlerrm);
end $$;

-- Makes a schedule, or changes the options that are named of the one that is there (null: back to the default). Its ledger, runs and
-- pause go on. What was due before fires as it was. is_new: a name that is taken is refused. outcome: created | changed | unchanged.
-- Errors: DV003, DV004 (moments that are due have to be planned first: a leader does within a second), DV010, DV012.
create or replace function divvy.put_schedule(name text, options jsonb default '{}', is_new boolean default false, out schedule_id bigint, out outcome text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
    n divvy.schedule;
    v_what text := format('schedule %s', left(name, 120));
    v_now timestamptz := divvy.clock();
    v_before jsonb;
    v_after jsonb;
    v_rule boolean;
begin
    perform divvy.need_read_committed('put_schedule');
    perform divvy.check_keys(options, divvy.schedule_option_names(), v_what);
    select * into s from divvy.schedule d where d.name = put_schedule.name and d.status in ('active', 'paused', 'refused') for update;
    if not found or is_new then   -- the INSERT refuses a name that is taken
        schedule_id := divvy.insert_schedule(put_schedule.name, options, v_what);
        outcome := 'created';
        return;
    end if;
    n := divvy.schedule_with(s, options, v_what);
    perform divvy.check_schedule(n, v_what);
    v_before := divvy.changed_options(s, n);
    v_after := divvy.changed_options(n, s);
    v_rule := v_after ?| divvy.schedule_rule_names();
    schedule_id := s.id;
    if v_after = '{}' and s.status <> 'refused' then
        outcome := 'unchanged';
        return;
    end if;
    if s.status <> 'refused' then
        -- What is due fires as the schedule was, so it has to be known.
        if divvy.has_unknown_moments(s, v_now) then
            raise exception using errcode = 'DV004', message = format('%s: its moments since %s have to be planned before it changes: '
                'a leader does within a second while it is active, divvy schedule put does at once', v_what, s.planned_from);
        end if;
        perform divvy.fire_schedule(s, v_now);
    end if;
    select * into s from divvy.schedule d where d.id = s.id;
    if s.status = 'done' then   -- its last moment was due just now
        schedule_id := divvy.insert_schedule(put_schedule.name, divvy.changed_options(s, null) || options, v_what);
        outcome := 'created';
        return;
    end if;
    n := divvy.schedule_with(s, options, v_what);
    perform divvy.store_schedule(n, v_rule or s.status = 'refused', v_what, v_now);
    perform divvy.record('put_schedule', 'schedule', s.name, null, v_before, v_after);
    outcome := 'changed';
end $$;

-- The options of s that differ from those of n, without nulls that n lacks too.
create or replace function divvy.changed_options(s divvy.schedule, n divvy.schedule) returns jsonb
language sql immutable as $$
    select coalesce(jsonb_object_agg(k, to_jsonb(s) -> k), '{}') from unnest(divvy.schedule_option_names()) k
    where to_jsonb(s) -> k is distinct from coalesce(to_jsonb(n) -> k, 'null')
$$;

create or replace function divvy.insert_schedule(p_name text, p_options jsonb, p_what text) returns bigint
language plpgsql as $$
declare
    n divvy.schedule;
    v_id bigint;
begin
    n := divvy.schedule_with(jsonb_populate_record(null::divvy.schedule, divvy.schedule_defaults()), p_options, p_what);
    insert into divvy.schedule (name, task_type, payload, steps, run_at, cron, every, timezone, dst_gap, dst_fold, starts_at, ends_at, anchor, calendar,
        calendar_shift, overlap, catch_up, catch_up_max, catch_up_window, catch_up_pace, jitter, max_runs, stop_on_success, pause_on_failure, priority,
        dedupe_key, group_key, labels, headers, splits, split_count, split_range, split_size, max_attempts, timeout, max_failed, max_failed_percent,
        reduce_on, "then")
    values (p_name, n.task_type, n.payload, n.steps, n.run_at, n.cron, n.every, n.timezone, n.dst_gap, n.dst_fold, n.starts_at, n.ends_at, n.anchor, n.calendar,
        n.calendar_shift, n.overlap, n.catch_up, n.catch_up_max, n.catch_up_window, n.catch_up_pace, n.jitter, n.max_runs, n.stop_on_success, n.pause_on_failure, n.priority,
        n.dedupe_key, n.group_key, n.labels, n.headers, n.splits, n.split_count, n.split_range, n.split_size, n.max_attempts, n.timeout, n.max_failed, n.max_failed_percent,
        n.reduce_on, n."then")
    returning id into v_id;
    perform divvy.record('put_schedule', 'schedule', p_name, null, null, p_options);
    return v_id;
end $$;

-- Writes a changed schedule. Its rule begins anew where that changed; otherwise its moments stay as they are.
create or replace function divvy.store_schedule(n divvy.schedule, p_rule boolean, p_what text, p_now timestamptz) returns void
language plpgsql as $$
begin
    if p_rule then
        n := divvy.begin_rule(n, greatest(p_now, n.fired_through));
        if n.next_fire_at is null and n.cron is null then
            perform divvy.bad_schedule(p_what, format('no moment of it lies after %s and between starts_at %s and ends_at %s',
                n.planned_from, coalesce(n.starts_at::text, 'null'), coalesce(n.ends_at::text, 'null')));
        end if;
        if n.anchor = 'previous_end' and exists (select from divvy.task t where t.id = n.last_task_id and t.finished_at is null) then
            n.anchored_at := null;   -- it counts from the end of the run that is open
        end if;
    end if;
    if n.status = 'refused' then
        n.status := 'active';
        n.reason := null;
    end if;
    update divvy.schedule d set task_type = n.task_type, payload = n.payload, steps = n.steps, run_at = n.run_at, cron = n.cron, every = n.every,
        timezone = n.timezone, dst_gap = n.dst_gap, dst_fold = n.dst_fold, starts_at = n.starts_at, ends_at = n.ends_at, anchor = n.anchor,
        calendar = n.calendar, calendar_shift = n.calendar_shift, overlap = n.overlap, catch_up = n.catch_up, catch_up_max = n.catch_up_max,
        catch_up_window = n.catch_up_window, catch_up_pace = n.catch_up_pace, jitter = n.jitter, max_runs = n.max_runs, stop_on_success = n.stop_on_success,
        pause_on_failure = n.pause_on_failure, priority = n.priority, dedupe_key = n.dedupe_key, group_key = n.group_key, labels = n.labels,
        headers = n.headers, splits = n.splits, split_count = n.split_count, split_range = n.split_range, split_size = n.split_size,
        max_attempts = n.max_attempts, timeout = n.timeout, max_failed = n.max_failed, max_failed_percent = n.max_failed_percent, reduce_on = n.reduce_on,
        "then" = n."then", status = n.status, reason = n.reason, planned_through = n.planned_through
    where d.id = n.id;
    perform divvy.go_on(n, p_now);
end $$;
