-- Splits that do not end well, or not yet: fail, snooze, release, and what a running split may say.

-- Ends an attempt badly. Retries by the type's backoff (or retry_in) while the budget lasts, unless retry is false.
-- Returns the split's new status and when it is due. The error is {"class", "message", …}.
-- Errors: DV001, DV003, DV010, DV011. Locks: the split; the task only if it is free.
create or replace function divvy.fail(split_id bigint, token bigint, error jsonb, retry boolean default true, retry_in interval default null,
    out status text, out next_at timestamptz)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    u divvy.unit;
begin
    perform divvy.check_interval(retry_in, 'retry_in', format('split %s', split_id), true);
    u := divvy.held(fail.split_id, fail.token);
    select a.status, a.next_at into status, next_at
    from divvy.end_attempt(u, case when retry then 'failed' else 'stopped' end, divvy.capped(error, 'error'), retry, retry_in) a;
    perform divvy.drop_from_leases(array[u.token], array[u.id]);
end $$;

-- The split, locked, if the token still holds it; else raises DV011, DV002 or DV001.
create or replace function divvy.held(p_id bigint, p_token bigint) returns divvy.unit
language plpgsql set enable_seqscan = off set jit = off as $$
declare
    u divvy.unit;
begin
    perform divvy.need_read_committed('fail, snooze and release');
    perform divvy.write_down(array[p_id]), divvy.write_out_held(array[p_id], array[p_token]);
    select * into u from divvy.unit k where k.id = p_id and k.token = p_token and k.state = 'running' for update;
    if not found then
        perform divvy.refuse(p_id, p_token);
    end if;
    return u;
end $$;

-- The one way for an attempt to end without success, charged. u is locked and running. The outcome is failed |
-- stopped | expired | timeout. What follows: cancelled if the task is to be, else a retry while budget lasts, else failed.
create or replace function divvy.end_attempt(u divvy.unit, p_outcome text, p_error jsonb, p_retry boolean, p_retry_in interval,
    out status text, out next_at timestamptz)
language plpgsql as $$
declare
    v_now timestamptz := divvy.clock();
    t divvy.task_type;
    k divvy.task;
    v_crashes int := case when p_outcome = 'expired' then u.crashes + 1 else 0 end;
    v_used int := u.attempt + 1 - u.attempt_base;
    v_reason text;
begin
    select * into k from divvy.task x where x.id = coalesce(u.share_of, u.id);
    select * into t from divvy.task_type x where x.name = u.task_type;
    insert into divvy.attempt (split_id, token, task_id, attempt, phase, worker, outcome, error, started_at, finished_at)
    values (u.id, u.token, k.id, u.attempt + 1, u.phase, u.worker, p_outcome, p_error, u.started_at, v_now);
    perform divvy.unstaged(u);
    v_reason := case when k.cancel_requested_at is not null then 'cancelled'
        when not p_retry then 'stopped'
        when v_crashes >= 5 then 'crashes'       -- five lease expiries in a row: it kills its workers
        when v_used >= coalesce(u.max_attempts, t.max_attempts) then 'attempts exhausted' end;
    if v_reason is not null then
        status := case v_reason when 'cancelled' then 'cancelled' else 'failed' end;
        perform divvy.end_split(u, status::divvy.split_status, v_reason, p_error, true);
        return;
    end if;
    next_at := case when p_outcome = 'expired' then v_now else v_now + coalesce(p_retry_in, divvy.backoff(t.backoff, v_used)) end;
    status := divvy.wait_until(u, k, next_at, 'retry', 1, v_crashes, p_error);
end $$;

-- Throws away what a split has staged.
create or replace function divvy.unstaged(u divvy.unit) returns void
language plpgsql as $$
begin
    if u.adds then
        delete from divvy.staged s where s.split_id = u.id;
    end if;
end $$;

-- Puts a running split back to wait: ready at once, or delayed with a reason. Returns its new status.
create or replace function divvy.wait_until(u divvy.unit, k divvy.task, p_at timestamptz, p_reason text, p_charge int, p_crashes int, p_error jsonb)
returns text language plpgsql as $$
declare
    v_now timestamptz := divvy.clock();
    v_paused boolean := coalesce(k.paused_until > v_now, false);
    v_delayed boolean := v_paused or p_at > v_now;
begin
    update divvy.unit x set state = case when v_delayed then 'delayed' else 'ready' end::divvy.split_status,
        due_at = case when v_paused then greatest(k.paused_until, p_at) else p_at end,
        reason = case when v_paused then 'paused' when v_delayed then p_reason end,
        key = divvy.next_key(v_delayed), attempt = x.attempt + p_charge, crashes = p_crashes, error = coalesce(p_error, x.error),
        adds = false
    where x.id = u.id and x.state = 'running';
    if v_delayed then
        return 'delayed';
    end if;
    perform divvy.wake(array[u.task_type]);
    return 'ready';
end $$;

-- Ends a split for good without success, and what hangs on it. u is locked; p_charge: the attempt counts.
create or replace function divvy.end_split(u divvy.unit, p_state divvy.split_status, p_reason text, p_error jsonb, p_charge boolean) returns void
language plpgsql as $$
declare
    v_now timestamptz := divvy.clock();
    k divvy.task;
begin
    if u.share_of is not null then
        update divvy.share x set state = p_state, key = abs(x.key), reason = p_reason, error = coalesce(p_error, x.error), adds = false,
            attempt = x.attempt + p_charge::int, finished_at = v_now
        where x.id = u.id;
        perform divvy.look_at(array[u.share_of]);
        return;
    end if;
    update divvy.task x set state = p_state, key = abs(x.key), reason = p_reason, error = coalesce(p_error, x.error), adds = false,
        attempt = x.attempt + p_charge::int
    where x.id = u.id
    returning * into k;
    perform divvy.end_task(u.id,
        case p_state when 'skipped' then 'succeeded' when 'cancelled' then divvy.cancelled_as(k) else 'failed' end, null,
        case when p_state = 'failed' then coalesce(p_error, u.error) end);
end $$;

-- The delay before try number p_used + 1: exponential, fixed or from a list; plus or minus the jitter.
create or replace function divvy.backoff(p_backoff jsonb, p_used int) returns interval
language sql volatile parallel safe as $$
    select make_interval(secs => (case p_backoff ->> 'kind'
            when 'fixed' then divvy.seconds(p_backoff -> 'base')
            when 'list' then divvy.seconds(p_backoff -> 'steps' -> least(p_used, jsonb_array_length(p_backoff -> 'steps')) - 1)
            else least(divvy.seconds(p_backoff -> 'max'),
                divvy.seconds(p_backoff -> 'base') * power((p_backoff ->> 'factor')::double precision, least(p_used - 1, 60)))
        end) * (1 + coalesce((p_backoff ->> 'jitter')::double precision, 0) * (2 * random() - 1)))
$$;

-- "Not finished, call me again": no attempt is used; may repeat without end. Returns when it is due.
-- Errors: DV001, DV002 (the task is being cancelled: the split ends cancelled), DV003, DV010, DV011. Locks: the split.
create or replace function divvy.snooze(split_id bigint, token bigint, delay interval, checkpoint jsonb default null) returns timestamptz
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    u divvy.unit;
    k divvy.task;
    v_at timestamptz := divvy.clock() + coalesce(delay, interval '0');
begin
    perform divvy.check_interval(delay, 'delay', format('split %s', split_id), true);
    perform divvy.check_size('checkpoint', checkpoint, format('split %s', split_id));
    u := divvy.held(snooze.split_id, snooze.token);
    select * into k from divvy.task x where x.id = coalesce(u.share_of, u.id);
    perform divvy.unstaged(u);
    perform divvy.drop_from_leases(array[u.token], array[u.id]);
    if k.cancel_requested_at is not null then
        perform divvy.end_split(u, 'cancelled', 'cancelled', null, false);
        return null;
    end if;
    update divvy.unit x set continuation = x.continuation + 1, checkpoint = coalesce(snooze.checkpoint, x.checkpoint)
    where x.id = u.id and x.state = 'running';
    perform divvy.wait_until(u, k, v_at, 'snooze', 0, 0, null);
    return v_at;
end $$;

-- Gives a split back untouched: no attempt is used. Errors: DV001, DV002, DV010, DV011. Locks: the split.
create or replace function divvy.release(split_id bigint, token bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    u divvy.unit;
    k divvy.task;
begin
    u := divvy.held(release.split_id, release.token);
    select * into k from divvy.task x where x.id = coalesce(u.share_of, u.id);
    perform divvy.unstaged(u);
    perform divvy.drop_from_leases(array[u.token], array[u.id]);
    if k.cancel_requested_at is not null then
        perform divvy.end_split(u, 'cancelled', 'cancelled', null, false);
    else
        perform divvy.wait_until(u, k, divvy.clock(), 'released', 0, u.crashes, null);
    end if;
end $$;

-- Saves state that a later attempt will be given. progress is a share of 1. Errors: DV001, DV003, DV010, DV011.
create or replace function divvy.checkpoint(split_id bigint, token bigint, state jsonb, progress real default null) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
begin
    perform divvy.check_size('checkpoint', state, format('split %s', split_id));
    if progress not between 0 and 1 then
        perform divvy.bad_option(format('split %s', split_id), format('progress is %s; it must be 0 to 1', progress));
    end if;
    perform divvy.write_down(array[checkpoint.split_id]), divvy.write_out_held(array[checkpoint.split_id], array[checkpoint.token]);
    update divvy.unit u set checkpoint = coalesce(checkpoint.state, u.checkpoint), progress = coalesce(checkpoint.progress, u.progress)
    where u.id = checkpoint.split_id and u.token = checkpoint.token and u.state = 'running';
    if not found then
        perform divvy.refuse(checkpoint.split_id, checkpoint.token);
    end if;
end $$;

-- Writes a line to the attempt's log; from line 1,000 on they are dropped, and the last says so.
-- Errors: DV001, DV003, DV010, DV011.
create or replace function divvy.log(split_id bigint, token bigint, level text, message text, fields jsonb default null) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
    v_line int;
begin
    if level not in ('debug', 'info', 'warn', 'error') then
        perform divvy.bad_option(format('split %s', split_id), format('level is %L; it is debug, info, warn or error', level));
    end if;
    perform divvy.check_limit('log message', octet_length(message), format('split %s', split_id));
    perform divvy.check_size('headers', fields, format('split %s: log', split_id));
    perform divvy.write_out_held(array[log.split_id], array[log.token]);
    perform from divvy.unit u where u.id = log.split_id and divvy.holds(u, log.token);
    if not found then
        perform divvy.refuse(log.split_id, log.token);
    end if;
    select coalesce(max(l.line), 0) + 1 into v_line from divvy.split_log l where l.split_id = log.split_id and l.token = log.token;
    if v_line <= divvy.limit_of('log lines') then
        insert into divvy.split_log (split_id, token, line, at, level, message, fields)
        values (log.split_id, log.token, v_line, divvy.clock(), log.level,
            case when v_line = divvy.limit_of('log lines') then 'the log of this attempt is full' else log.message end, log.fields);
    end if;
end $$;

-- Stages splits under the running split: they come to be when it completes, and never if it does not. Returns how
-- many are staged by now. Errors: DV001, DV003, DV004 (a reduce adds none), DV010, DV011. Locks: the split.
create or replace function divvy.add_splits(split_id bigint, token bigint, payloads jsonb) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    u divvy.unit;
    v_what text := format('split %s', split_id);
    v_staged int;
begin
    if jsonb_typeof(payloads) is distinct from 'array' then
        perform divvy.bad_option(v_what, 'payloads is a JSON array');
    end if;
    perform divvy.check_limit('added splits', jsonb_array_length(payloads), v_what);
    perform divvy.check_shares(v_what, payloads, null, null, null);
    u := divvy.held(add_splits.split_id, add_splits.token);
    if u.phase = 'reduce' then
        raise exception using errcode = 'DV004', message = format('split %s is the reduce of its task: it can''t add splits', u.id);
    end if;
    select coalesce(max(s.position), 0) into v_staged from divvy.staged s where s.split_id = u.id and s.token = u.token;
    perform divvy.check_limit('splits', v_staged + jsonb_array_length(payloads), v_what);
    insert into divvy.staged (split_id, token, position, payload)
    select u.id, u.token, v_staged + n, p from jsonb_array_elements(payloads) with ordinality as a (p, n);
    update divvy.unit x set adds = true where x.id = u.id and x.state = 'running' and not x.adds;
    return v_staged + jsonb_array_length(payloads);
end $$;
