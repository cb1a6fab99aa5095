-- Breakers of types that are pushed: a receiver that does not answer is left alone for a while, by all workers at once, and no
-- attempt is spent on it. A breaker is a pause of the type with an end, and a row of divvy.breaker; when the end has come, one
-- split tries, under the next pause. Whose attempt it is decides: what was under way before neither closes nor opens anything.
-- A pause by a person is never shortened, and never ended.

-- Opens the breaker of a type, or keeps it open when the split that tried has failed: for p_base, and twice as long each time, up to
-- p_most. Returns until when; null when that was decided already. Errors: DV011. Locks: the type's row.
create or replace function divvy.open_breaker(task_type text, split_id bigint, token bigint, reason text, base interval, most interval) returns timestamptz
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_now timestamptz := divvy.clock();
    t divvy.task_type;
    b divvy.breaker;
    v_opened int;
    v_until timestamptz;
    v_reason text;
begin
    t := divvy.type_of_breaker(open_breaker.task_type);
    select * into b from divvy.breaker x where x.task_type = t.name;
    if found and (b.probe_split, b.probe_token) is distinct from (open_breaker.split_id, open_breaker.token) then
        return null;
    end if;
    v_opened := coalesce(b.opened, 0) + 1;
    v_until := v_now + least(base * power(2, least(v_opened - 1, 30)), greatest(base, most));
    v_reason := format('breaker: %s; one split tries again at %s', left(open_breaker.reason, 500), to_char(v_until at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'));
    perform divvy.pause_by_breaker(t, b, v_until, v_reason);
    insert into divvy.breaker as x (task_type, opened, reason, paused_until) values (t.name, v_opened, v_reason, v_until)
    on conflict on constraint breaker_pkey do update set opened = excluded.opened, reason = excluded.reason, paused_until = excluded.paused_until,
        probe_split = null, probe_token = null, probe_until = null;
    perform divvy.record('open_breaker', 'type', t.name, left(open_breaker.reason, 500), null, jsonb_build_object('until', v_until, 'opened', v_opened));
    perform divvy.wake_control('pause');
    return v_until;
end $$;

-- Whether a split may try: true for one split at a time once the pause is over (the type is paused again meanwhile, for `within` at
-- most), and when the breaker is closed by now. Errors: DV011. Locks: the type's row.
create or replace function divvy.probe_breaker(task_type text, split_id bigint, token bigint, within interval) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_now timestamptz := divvy.clock();
    t divvy.task_type;
    b divvy.breaker;
begin
    t := divvy.type_of_breaker(probe_breaker.task_type);
    select * into b from divvy.breaker x where x.task_type = t.name;
    if not found then
        return true;
    end if;
    -- Claimed before the pause, or while another one tries.
    if t.paused_until > v_now or (b.probe_until > v_now and (b.probe_split, b.probe_token) is distinct from (probe_breaker.split_id, probe_breaker.token)) then
        return false;
    end if;
    perform divvy.pause_by_breaker(t, b, v_now + within, format('breaker: split %s tries', probe_breaker.split_id));
    update divvy.breaker x set paused_until = v_now + within, reason = format('breaker: split %s tries', probe_breaker.split_id),
        probe_split = probe_breaker.split_id, probe_token = probe_breaker.token, probe_until = v_now + within
    where x.task_type = t.name;
    return true;
end $$;

-- Closes the breaker, because the split that tried was answered, and ends its pause. True when it did. Errors: DV011. Locks: the type's row.
create or replace function divvy.close_breaker(task_type text, split_id bigint, token bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    t divvy.task_type;
    b divvy.breaker;
begin
    t := divvy.type_of_breaker(close_breaker.task_type);
    delete from divvy.breaker x where x.task_type = t.name and x.probe_split = close_breaker.split_id and x.probe_token = close_breaker.token
    returning * into b;
    if not found then
        return false;
    end if;
    update divvy.task_type x set paused_until = null, pause_reason = null
    where x.name = t.name and x.paused_until = b.paused_until and x.pause_reason = b.reason;
    perform divvy.record('close_breaker', 'type', t.name, null, jsonb_build_object('opened', b.opened), null);
    perform divvy.wake(array[t.name]);
    return true;
end $$;

create or replace function divvy.type_of_breaker(p_type text) returns divvy.task_type
language plpgsql as $$
declare
    t divvy.task_type;
begin
    select * into t from divvy.task_type x where x.name = p_type for update;
    if not found then
        perform divvy.unknown('type', p_type);
    end if;
    return t;
end $$;

-- Pauses a type that is not paused, or by its breaker only.
create or replace function divvy.pause_by_breaker(t divvy.task_type, b divvy.breaker, p_until timestamptz, p_reason text) returns void
language plpgsql as $$
begin
    update divvy.task_type x set paused_until = p_until, pause_reason = p_reason
    where x.name = t.name
        and (coalesce(t.paused_until <= divvy.clock(), true) or (t.paused_until = b.paused_until and t.pause_reason = b.reason));
end $$;
