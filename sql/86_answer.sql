-- Requests that may come twice: the answer to the first is kept in the transaction of what it did, and given to the second.

-- Takes a key for a request, or finds what it was answered before: status is null when it is new. Whoever comes second while the first
-- is under way waits for its end. Kept for 24 hours. Errors: DV010 (the key was used for another request). Locks: the key.
create or replace function divvy.take_key(holder text, key text, request text, out status int, out answer text)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v_request text;
begin
    perform divvy.need_read_committed('take_key');
    if take_key.key is null or length(take_key.key) not between 1 and 255 then
        perform divvy.bad_option('Idempotency-Key', format('it has %s characters; it must have 1 to 255', coalesce(length(take_key.key), 0)));
    end if;
    delete from divvy.kept_answer a where a.holder = take_key.holder and a.key = take_key.key and a.kept_until <= divvy.clock();
    insert into divvy.kept_answer (holder, key, request, kept_until)
    values (take_key.holder, take_key.key, take_key.request, divvy.clock() + interval '24 hours')
    on conflict do nothing;
    if found then
        return;
    end if;
    select a.request, a.status, a.answer into v_request, status, answer
    from divvy.kept_answer a where a.holder = take_key.holder and a.key = take_key.key;
    if v_request is distinct from take_key.request then
        perform divvy.bad_option('Idempotency-Key', format('%L was used for another request', take_key.key));
    end if;
end $$;

-- Keeps the answer of the request whose key this transaction has taken. One that was kept before stays as it was.
create or replace function divvy.keep_answer(holder text, key text, status int, answer text) returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    update divvy.kept_answer a set status = keep_answer.status, answer = keep_answer.answer
    where a.holder = keep_answer.holder and a.key = keep_answer.key and a.status is null
$$;

-- Forgets answers whose time has passed, and tokens that have not been good for 90 days.
create or replace function divvy.prune_http(p_max int, p_now timestamptz) returns void
language sql as $$
    delete from divvy.kept_answer a where (a.holder, a.key) in (
        select x.holder, x.key from divvy.kept_answer x where x.kept_until <= p_now order by x.kept_until limit p_max);
    delete from divvy.api_token t where least(t.revoked_at, t.expires_at) <= p_now - interval '90 days';
$$;
