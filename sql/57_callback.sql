-- Splits whose outcome comes later, by a callback: whoever pushed them was answered "accepted".

-- Lets a running split wait for its callback, until `within` from now or the attempt's timeout, whichever is first. From then on
-- nobody has to renew its lease: it is held by a lease of its own under a new token, and the worker's slot is free. When nothing
-- comes, reclaim ends the attempt as a timeout. A split of a task that is being cancelled ends cancelled. Returns until when it waits;
-- null when it was cancelled. Errors: DV001 (also when the callback was faster), DV002, DV010, DV011. Locks: the limits of its type, the split.
create or replace function divvy.await_callback(split_id bigint, token bigint, within interval default null) returns timestamptz
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
    v_now timestamptz := divvy.clock();
    u divvy.unit;
    k divvy.task;
    t divvy.task_type;
    l divvy.lease;
    v_token bigint;
    v_until timestamptz;
begin
    perform divvy.check_interval(within, 'within', format('split %s', split_id));
    select * into l from divvy.lease x where x.token = await_callback.token and await_callback.split_id = any (x.split_ids) limit 1;
    -- A lease that counts for a limit comes to be under the type's lock, as by a claim: else a claim might not count it.
    perform divvy.lock_limited(array[l.task_type]);
    u := divvy.held(await_callback.split_id, await_callback.token);
    select * into k from divvy.task x where x.id = coalesce(u.share_of, u.id);
    select * into t from divvy.task_type x where x.name = u.task_type;
    if k.cancel_requested_at is not null then
        perform divvy.unstaged(u), divvy.drop_from_leases(array[u.token], array[u.id]);
        perform divvy.end_split(u, 'cancelled', 'cancelled', null, false);
        return null;
    end if;
    v_token := nextval('divvy.token');
    v_until := least(coalesce(l.deadline_at, v_now + coalesce(u.timeout, t.timeout)), v_now + within);
    update divvy.unit x set token = v_token where x.id = u.id and x.state = 'running';
    update divvy.staged s set token = v_token where s.split_id = u.id and s.token = u.token;
    update divvy.split_log g set token = v_token where g.split_id = u.id and g.token = u.token;
    insert into divvy.lease (token, worker, length, claimed_at, lease_until, deadline_at, split_ids, places, task_type, lane, lo_key, hi_key, written,
        limited, label_ids, labels, called_as)
    select v_token, u.worker, coalesce(l.length, t.lease), u.started_at, v_until, v_until, array[u.id], null, u.task_type, u.lane, u.key, u.key, true,
        t.limited, x.label_ids, x.labels, u.token
    from divvy.labels_of(case when t.limited then u.task_type end, u.lane, array[u.id], null) x;
    perform divvy.drop_from_leases(array[u.token], array[u.id]);
    return v_until;
end $$;

-- The token that holds a split now, for the one that its callback knows: the same, or the one under which it waits. What is done with
-- it says whether it still holds.
create or replace function divvy.callback_token(split_id bigint, token bigint) returns bigint
language sql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
    select coalesce((select l.token from divvy.unit u join divvy.lease l on l.token = u.token
        where u.id = callback_token.split_id and u.state = 'running' and l.called_as = callback_token.token), callback_token.token)
$$;

-- What reclaim says of a lease that has ended.
create or replace function divvy.end_of_lease(l divvy.lease) returns jsonb
language sql stable as $$
    select case when l.called_as is not null
        then jsonb_build_object('class', 'callback', 'message', format('no callback came until %s', l.lease_until))
        else jsonb_build_object('class', 'lease', 'message', format('its lease ended at %s and worker %s did not renew it', l.lease_until, l.worker)) end
$$;
