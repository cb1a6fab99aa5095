-- Task types: what a task of a name is split into, how often it is tried, when it counts as failed.

-- Declares a type, or changes the options that are named; an option given as null returns to its default.
-- Errors: DV004 (its limits change, and somebody holds leases of it for 10 s), DV010 (unknown or malformed option); the type is unchanged then. Locks: the type's row.
create or replace function divvy.put_task_type(name text, options jsonb default '{}') returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v_what text := format('type %s', left(put_task_type.name, 120));
    v_before divvy.task_type;
    t divvy.task_type;
begin
    perform divvy.check_name(put_task_type.name, 'type');
    perform divvy.check_type_options(options, v_what);
    insert into divvy.task_type (name) values (put_task_type.name) on conflict do nothing;
    select * into t from divvy.task_type k where k.name = put_task_type.name for update;
    v_before := t;
    t := divvy.type_with(t, options, v_what);
    perform divvy.check_policy(v_what, t.max_attempts, t.timeout, t.max_failed, t.max_failed_percent, t.reduce_on, t."then");
    perform divvy.check_type(t, v_what);
    update divvy.task_type k set (handler, plan, reduce, max_attempts, backoff, timeout, lease, max_waiting, dedupe_window, max_failed,
            max_failed_percent, reduce_on, retention_succeeded, retention_others, "then", max_running, max_running_per_task, max_running_per_group,
            rate, fair_by_group, declared_by, updated_at)
        = (t.handler, t.plan, t.reduce, t.max_attempts, t.backoff, t.timeout, t.lease, t.max_waiting, t.dedupe_window, t.max_failed,
            t.max_failed_percent, t.reduce_on, t.retention_succeeded, t.retention_others, t."then", t.max_running, t.max_running_per_task,
            t.max_running_per_group, t.rate, t.fair_by_group, 'put_task_type', divvy.clock())
    where k.name = t.name;
    perform divvy.limits_changed(v_before, t);
    if t.handler ? 'sql' then
        perform divvy.admit_sql_role(t.handler #>> '{sql,role}');
    end if;
    perform divvy.add_lanes(t.name);
    perform divvy.record('put_task_type', 'type', t.name, null, to_jsonb(v_before), options);
    perform divvy.start_scheduled(t.name, 1000);
end $$;

-- Refuses what no type has.
create or replace function divvy.check_type_options(p_options jsonb, p_what text) returns void
language plpgsql as $$
begin
    perform divvy.check_keys(p_options, array['handler', 'plan', 'reduce', 'max_attempts', 'backoff', 'timeout', 'lease', 'max_running',
        'max_running_per_task', 'max_running_per_group', 'rate', 'fair_by_group', 'max_waiting', 'dedupe_window', 'max_failed',
        'max_failed_percent', 'reduce_on', 'retention', 'then'], p_what);
    if jsonb_typeof(p_options -> 'rate') <> 'null' then
        perform divvy.check_keys(p_options -> 'rate', array['count', 'per', 'burst'], p_what || ': rate');
    end if;
    if jsonb_typeof(p_options -> 'retention') <> 'null' then
        perform divvy.check_keys(p_options -> 'retention', array['succeeded', 'others'], p_what || ': retention');
    end if;
    if jsonb_typeof(p_options -> 'backoff') <> 'null' then
        perform divvy.check_keys(p_options -> 'backoff', array['kind', 'base', 'factor', 'max', 'jitter', 'steps'], p_what || ': backoff');
    end if;
end $$;

-- The type with the named options set. DV010 for a value that is not of its kind.
create or replace function divvy.type_with(t divvy.task_type, p_options jsonb, p_what text) returns divvy.task_type
language plpgsql as $$
declare
    d divvy.task_type;
    v_sql jsonb := p_options #> '{handler,sql}';
    v_flat jsonb := p_options - array['retention', 'backoff'];
begin
    d := divvy.type_defaults();
    if p_options ? 'retention' then
        v_flat := v_flat || jsonb_build_object('retention_succeeded', p_options #> '{retention,succeeded}', 'retention_others', p_options #> '{retention,others}');
    end if;
    if p_options ? 'backoff' then
        v_flat := v_flat || jsonb_build_object('backoff', case when jsonb_typeof(p_options -> 'backoff') = 'object'
            then d.backoff || jsonb_strip_nulls(p_options -> 'backoff') else d.backoff end);
    end if;
    if jsonb_typeof(p_options -> 'rate') = 'object' then
        v_flat := v_flat || jsonb_build_object('rate', divvy.rate_from(p_options -> 'rate', p_what));
    end if;
    if v_sql is not null then
        v_flat := v_flat || jsonb_build_object('plan', v_sql ? 'split', 'reduce', v_sql ? 'reduce',
            'handler', jsonb_build_object('sql', jsonb_build_object('role', session_user) || v_sql));
    end if;
    if p_options #> '{handler,exec}' is not null then
        v_flat := jsonb_set(v_flat, '{handler,exec}', divvy.exec_handler(p_options #> '{handler,exec}'));
    end if;
    if p_options #> '{handler,http}' is not null then
        v_flat := jsonb_set(v_flat, '{handler,http}', divvy.http_handler(p_options #> '{handler,http}'));
    end if;
    -- null means the default: put it in place of the null before the row is filled.
    select jsonb_object_agg(k, case when v = 'null' then to_jsonb(d) -> k else v end) into v_flat from jsonb_each(v_flat) e (k, v);
    begin
        t := jsonb_populate_record(t, coalesce(v_flat, '{}'));
    exception when data_exception then
        perform divvy.bad_option(p_what, sqlerrm);
    end;
    return t;
end $$;

-- A type with every option at its default.
create or replace function divvy.type_defaults() returns divvy.task_type
language sql immutable parallel safe as $$
    select jsonb_populate_record(null::divvy.task_type, '{"handler": {"worker": true}, "plan": false, "reduce": false, "max_attempts": 20,
        "backoff": {"kind": "exponential", "base": 5, "factor": 2, "max": 3600, "jitter": 0.2}, "timeout": "15 min", "lease": "30 s",
        "dedupe_window": "open", "reduce_on": "tolerated", "retention_succeeded": "3 days", "retention_others": "30 days",
        "fair_by_group": false}')
$$;

create or replace function divvy.check_type(t divvy.task_type, p_what text) returns void
language plpgsql as $$
declare
    v_window interval;
begin
    if t.lease is null or t.lease < interval '1 s' or t.lease > interval '1 day' then
        perform divvy.bad_option(p_what, format('lease is %s; it must be 1 s to 1 day', t.lease));
    end if;
    if t.max_waiting < 1 then
        perform divvy.bad_option(p_what, format('max_waiting is %s; it must be positive', t.max_waiting));
    end if;
    perform divvy.check_interval(t.retention_succeeded, 'retention.succeeded', p_what, true);
    perform divvy.check_interval(t.retention_others, 'retention.others', p_what, true);
    if t.dedupe_window not in ('open', 'forever') then
        begin
            v_window := t.dedupe_window::interval;
        exception when data_exception then
            perform divvy.bad_option(p_what, format('dedupe_window is %L; it is open, forever or an interval', t.dedupe_window));
        end;
        perform divvy.check_interval(v_window, 'dedupe_window', p_what);
    end if;
    perform divvy.check_running(t, p_what);
    perform divvy.check_backoff(t.backoff, p_what);
    perform divvy.check_handler(t.handler, p_what);
end $$;

create or replace function divvy.check_running(t divvy.task_type, p_what text) returns void
language plpgsql as $$
declare
    v_limit record;
begin
    select * into v_limit from (values ('max_running', t.max_running), ('max_running_per_task', t.max_running_per_task),
        ('max_running_per_group', t.max_running_per_group)) x (name, value) where x.value < 1 limit 1;
    if found then
        perform divvy.bad_option(p_what, format('%s is %s; it must be positive, or null for no limit', v_limit.name, v_limit.value));
    end if;
end $$;

-- A rate as it is kept: per in seconds, and a burst. DV010 for what is none.
create or replace function divvy.rate_from(p_rate jsonb, p_what text) returns jsonb
language plpgsql as $$
declare
    v_count int;
    v_burst int;
    v_per double precision;
begin
    begin
        v_count := p_rate ->> 'count';
        v_burst := coalesce((p_rate ->> 'burst')::int, v_count);
        v_per := divvy.seconds(p_rate -> 'per');
    exception when data_exception then
        perform divvy.bad_option(p_what, format('rate: %s', sqlerrm));
    end;
    if v_count is null or v_count < 1 then
        perform divvy.bad_option(p_what, format('rate.count is %s; it must be positive', coalesce(v_count::text, 'null')));
    end if;
    if v_per is null or v_per not between 0.1 and extract(epoch from interval '31 days') then
        perform divvy.bad_option(p_what, format('rate.per is %s; it must be seconds or an interval, 0.1 s to 31 days',
            coalesce(p_rate ->> 'per', 'null')));
    end if;
    if v_burst not between 1 and v_count then
        perform divvy.bad_option(p_what, format('rate.burst is %s; it must be 1 to rate.count, which is %s', v_burst, v_count));
    end if;
    return jsonb_build_object('count', v_count, 'per', v_per, 'burst', v_burst);
end $$;

create or replace function divvy.check_backoff(p_backoff jsonb, p_what text) returns void
language plpgsql as $$
declare
    v_delay jsonb;
begin
    if coalesce(p_backoff ->> 'kind', '') not in ('exponential', 'fixed', 'list') then
        perform divvy.bad_option(p_what, format('backoff.kind is %L; it is exponential, fixed or list', p_backoff ->> 'kind'));
    end if;
    if (p_backoff ->> 'kind') = 'list' and coalesce(jsonb_array_length(case jsonb_typeof(p_backoff -> 'steps') when 'array' then p_backoff -> 'steps' end), 0)
            not between 1 and divvy.limit_of('steps') then
        perform divvy.bad_option(p_what, 'backoff.steps is a list of 1 to 1000 delays');
    end if;
    -- Whatever passes here must never fail in divvy.backoff: the split that it delays would be stuck.
    if (p_backoff ->> 'jitter')::numeric not between 0 and 1 or (p_backoff ->> 'factor')::numeric not between 1 and 100 then
        perform divvy.bad_option(p_what, format('backoff.factor is %s and backoff.jitter %s; they must be 1 to 100 and 0 to 1',
            p_backoff ->> 'factor', p_backoff ->> 'jitter'));
    end if;
    select d.value into v_delay
    from (select p_backoff -> 'base' union all select p_backoff -> 'max'
        union all select s from jsonb_array_elements(coalesce(p_backoff -> 'steps', '[]')) s) d (value)
    where coalesce(divvy.seconds(d.value), -1) not between 0 and extract(epoch from interval '10 years') limit 1;
    if v_delay is not null then
        perform divvy.bad_option(p_what, format('backoff has the delay %s; it must be seconds or an interval, 0 to 10 years', v_delay));
    end if;
exception when data_exception then
    perform divvy.bad_option(p_what, format('backoff: %s', sqlerrm));
end $$;

-- Lanes of a type: 0 plan and reduce; by priority 1 to 4 plain tasks, 11 to 14 shares, 21 to 24 stretches.
create or replace function divvy.all_lanes() returns smallint[]
language sql immutable parallel safe as $$ select '{0,1,2,3,4,11,12,13,14,21,22,23,24}'::smallint[] $$;

-- A delay in options: a number is seconds, a text is an interval.
create or replace function divvy.seconds(p_value jsonb) returns double precision
language sql immutable parallel safe as $$
    select case jsonb_typeof(p_value) when 'number' then (p_value #>> '{}')::double precision
        when 'string' then extract(epoch from (p_value #>> '{}')::interval) end
$$;

create or replace function divvy.check_handler(p_handler jsonb, p_what text) returns void
language plpgsql as $$
declare
    v_role text := p_handler #>> '{sql,role}';
begin
    perform divvy.check_keys(p_handler, array['worker', 'sql', 'exec', 'http'], p_what || ': handler');
    if p_handler ? 'http' then
        perform divvy.check_http_handler(p_handler, p_what);
    end if;
    if p_handler ? 'exec' then
        perform divvy.check_exec_handler(p_handler -> 'exec', p_what);
    end if;
    if p_handler ? 'sql' then
        perform divvy.check_keys(p_handler -> 'sql', array['split', 'execute', 'reduce', 'role', 'statement_timeout'], p_what || ': handler.sql');
        if coalesce(p_handler #>> '{sql,execute}', '') = '' then
            perform divvy.bad_option(p_what, 'handler.sql needs an execute statement');
        end if;
        if not exists (select from pg_roles where rolname = v_role) then
            perform divvy.bad_option(p_what, format('handler.sql.role %L does not exist', v_role));
        end if;
        -- Its statements run with that role's rights, so only its members may say what runs.
        if not pg_has_role(session_user, v_role, 'member') then
            perform divvy.bad_option(p_what, format('%I is not a member of handler.sql.role %L', session_user, v_role));
        end if;
    end if;
end $$;

-- Of a type that is not declared nothing is ready, so its marks begin where keys are verified, whatever it has of history.
create or replace function divvy.add_lanes(p_task_type text) returns void
language sql as $$
    insert into divvy.lane (task_type, lane, mark)
    select p_task_type, l, w.verified_key from unnest(divvy.all_lanes()) l, divvy.low_water w on conflict do nothing
$$;

-- Forgets a type. Errors: DV011; DV004 while tasks of it are open.
create or replace function divvy.drop_task_type(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v_open bigint;
begin
    perform from divvy.task_type k where k.name = drop_task_type.name for update;
    if not found then
        perform divvy.unknown('type', drop_task_type.name);
    end if;
    select k.id into v_open from divvy.task k where k.task_type = drop_task_type.name and k.finished_at is null limit 1;
    if v_open is not null then
        raise exception using errcode = 'DV004', message = format('type %s: task %s is open', drop_task_type.name, v_open);
    end if;
    delete from divvy.task_type k where k.name = drop_task_type.name;
    delete from divvy.lane l where l.task_type = drop_task_type.name;
    delete from divvy.freed f where f.task_type = drop_task_type.name;
    delete from divvy.rate_use u where u.task_type = drop_task_type.name;
    delete from divvy.breaker b where b.task_type = drop_task_type.name;
    perform divvy.record('drop_task_type', 'type', drop_task_type.name, null, null, null);
end $$;

-- Starts scheduled tasks of a declared type whose moment has come. Returns how many.
create or replace function divvy.start_scheduled(p_task_type text, p_max int) returns int
language plpgsql set enable_seqscan = off set jit = off as $$
declare
    v_now timestamptz := divvy.clock();
    v_ids bigint[];
    v_started int;
begin
    v_ids := array(select k.id from divvy.task k
        where k.task_type = p_task_type and k.run_at <= v_now and k.key < 0 and k.phase is null
            and (k.paused_until is null or k.paused_until <= v_now)
        order by k.run_at limit p_max for update skip locked);
    if v_ids = '{}' then
        return 0;
    end if;
    v_started := divvy.start(v_ids, v_now);
    perform divvy.wake(array[p_task_type]);
    return v_started;
end $$;

-- Writes the event of a decision.
create or replace function divvy.record(p_verb text, p_object text, p_id text, p_reason text, p_before jsonb, p_after jsonb) returns void
language plpgsql as $$
begin
    insert into divvy.event (actor, verb, object, object_id, reason, before, after)
    values (divvy.actor(), p_verb, p_object, p_id, p_reason, p_before, p_after);
end $$;
