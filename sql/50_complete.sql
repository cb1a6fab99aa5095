-- Splits end well. Every call is guarded by split id, status running and token: one that does not match
-- changes nothing.

-- Completes one split; call it last in the transaction of your own writes. Returns the split's new status.
-- Errors: DV001 the lease was lost, or this split is finished already: the transaction, your writes included, must
-- roll back; DV002 it was cancelled; DV003 result over the limit; DV010 not READ COMMITTED; DV011 no such split.
-- Locks: the split; the task only if it is free.
create or replace function divvy.complete(split_id bigint, token bigint, result jsonb default null) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set plan_cache_mode = force_generic_plan set jit = off as $$
declare
    v_verdict text;
begin
    v_verdict := (divvy.finish(array[split_id], array[token], jsonb_build_array(result)))[1];
    if v_verdict <> 'ok' then
        perform divvy.refuse(split_id, token, v_verdict);
    end if;
    return 'succeeded';
end $$;

-- Raises what a call by somebody who does not hold the split deserves: DV011, DV002 or DV001.
create or replace function divvy.refuse(p_id bigint, p_token bigint, p_verdict text default null) returns void
language plpgsql as $$
declare
    u divvy.unit;
begin
    select * into u from divvy.unit k where k.id = p_id;
    if not found then
        select r.state, r.token into u.state, u.token from divvy.rowless(p_id) r;
        if u.state is null then
            perform divvy.unknown('split', p_id::text);
        end if;
    end if;
    if u.state = 'cancelled' or p_verdict = 'cancelled' then
        raise exception using errcode = 'DV002', message = format('split %s was cancelled', p_id);
    end if;
    if u.state = 'ready' and u.id is not null then
        u.token := (select x.token from divvy.leased_split x where x.id = p_id and u.key between x.lo_key and x.hi_key);
        u.state := case when u.token is null then 'ready' else 'running' end;
    end if;
    raise exception using errcode = 'DV001', message = format('split %s is not held by token %s: it is %s%s', p_id, coalesce(p_token::text, 'null'),
        coalesce(u.state::text, 'between phases'), case when u.token is not null then format(', its token is %s', u.token) end);
end $$;

-- Completes a batch. For each split, in the order given: ok | cancelled | lost | already. Raises nothing for those,
-- so it suits splits whose effects are elsewhere. Errors: DV003, DV010.
create or replace function divvy.complete_many(split_ids bigint[], tokens bigint[], results jsonb default null)
returns table (split_id bigint, verdict text)
language plpgsql security definer rows 100 set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set plan_cache_mode = force_generic_plan set jit = off as $$
begin
    return query select * from unnest(split_ids, divvy.finish(split_ids, tokens, results));
end $$;

-- Completes the last batch and claims the next in one round trip. Both answers are arrays: completed of
-- {"split_id", "verdict"}, claimed of objects with the columns of claim.
create or replace function divvy.complete_and_claim(worker uuid, split_ids bigint[], tokens bigint[], results jsonb, task_types text[],
    max int, lease interval default null, per_type int[] default null, out completed jsonb, out claimed jsonb)
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set plan_cache_mode = force_generic_plan set jit = off set intervalstyle = postgres as $$
begin
    select coalesce(jsonb_agg(jsonb_build_object('split_id', c.id, 'verdict', c.verdict) order by c.n), '[]') into completed
    from unnest(split_ids, divvy.finish(split_ids, tokens, results)) with ordinality as c (id, verdict, n);
    select coalesce(jsonb_agg(to_jsonb(c)), '[]') into claimed
    from divvy.claim(complete_and_claim.worker, complete_and_claim.task_types, complete_and_claim.max, complete_and_claim.lease,
        complete_and_claim.per_type) c;
end $$;

-- The same round trip for divvy's own worker, without JSON: first a row with the verdicts in the order given (null: all
-- ok), then a row for each part taken (max 0: only completes). runs: splits without results, as divvy.finish_runs takes them; their
-- verdicts follow. Who gives it, if only {}, is answered briefly: where split_nos is one number of two split_ids, it is the first of a
-- run, and they are its first and last; and where rule says what the payloads are, they are left out. Errors and locks: as complete_many and claim.
create or replace function divvy.exchange(worker uuid, split_ids bigint[], tokens bigint[], results jsonb, task_types text[], max int,
    lease interval default null, per_type int[] default null, runs bigint[] default null)
returns table (verdicts text[], part divvy.part)
language plpgsql security definer rows 10 set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off
set enable_mergejoin = off set plan_cache_mode = force_generic_plan set jit = off set intervalstyle = postgres as $$
declare
    v_runs text[];
begin
    verdicts := divvy.finish(split_ids, tokens, results);
    if runs <> '{}' then
        v_runs := divvy.finish_runs(runs);
    end if;
    if 'ok' = all (verdicts) and (v_runs is null or 'ok' = all (v_runs)) then
        verdicts := null;
    elsif runs <> '{}' then
        verdicts := verdicts || coalesce(v_runs, array_fill('ok'::text, array[(
            select sum(runs[3 * i] - runs[3 * i - 1] + 1) from generate_series(1, cardinality(runs) / 3) i)::int]));
    end if;
    return next;
    if exchange.max = 0 then
        return;
    end if;
    verdicts := null;
    foreach part in array divvy.take(exchange.worker, exchange.task_types, exchange.max, exchange.lease, exchange.per_type) loop
        if runs is null then
            part := (divvy.at_full_length(array[part]))[1];
        elsif part.lane > 20 then
            part.split_ids := array[part.split_ids[1], part.split_ids[cardinality(part.split_ids)]];
        end if;
        return next;
    end loop;
end $$;

-- The one way to success; its callers set how it is planned. What its lease alone names ends in one write; what is written down ends in sets too, if it is a
-- plain task or a share; a plan, a reduce, a split with staged siblings and a plain task that is being cancelled end one
-- by one, because they write more of their task. Returns a verdict for each id.
create or replace function divvy.finish(p_ids bigint[], p_tokens bigint[], p_results jsonb) returns text[]
language plpgsql as $$
declare
    v_fine boolean;             -- checks raise; to assign what they return costs less than to perform them
    v_now timestamptz := divvy.clock();
    v_done bigint[];
    v_more bigint[];
    v_left record;
begin
    v_fine := divvy.need_read_committed('complete') and divvy.check_batch('complete', p_ids, p_tokens) and divvy.check_results(p_ids, p_results);
    if cardinality(p_ids) = 0 then
        return '{}';
    end if;
    if p_results = 'null' then
        p_results := null;
    end if;
    v_done := divvy.finish_leased(p_ids, p_tokens, p_results, v_now);
    if cardinality(v_done) = cardinality(p_ids) then
        return array_fill('ok'::text, array[cardinality(p_ids)]);
    end if;
    v_done := v_done || divvy.finish_plain(p_ids, p_tokens, p_results, v_now) || divvy.finish_shares(p_ids, p_tokens, p_results, v_now);
    if cardinality(v_done) < cardinality(p_ids) then
        for v_left in
            select u.id, g.token, nullif(p_results -> (g.n - 1)::int, 'null') as result
            from unnest(p_ids, p_tokens) with ordinality as g (id, token, n)
            join divvy.unit u on u.id = any (array[g.id]) and u.token = g.token and u.state = 'running'
            order by coalesce(u.share_of, u.id), u.id
        loop
            if divvy.finish_one(v_left.id, v_left.token, v_left.result, v_now) then
                v_more := v_more || v_left.id;
            end if;
        end loop;
    end if;
    v_done := v_done || v_more;
    perform divvy.drop_from_leases(p_tokens, v_done);
    return array(
        select case when g.ended then 'ok'
            when u.state = 'succeeded' and u.token = g.token or e.token = g.token then 'already'
            when u.state = 'cancelled' or k.cancel_requested_at is not null then 'cancelled'
            else 'lost' end
        from (select a.id, a.token, a.n, a.id = any (v_done) as ended from unnest(p_ids, p_tokens) with ordinality as a (id, token, n) offset 0) g
        left join divvy.unit u on u.id = any (array[g.id]) and not g.ended
        -- What has no row, and has ended before.
        left join lateral (select x.token from divvy.ended x
            where u.id is null and not g.ended and int8range(x.id_base + x.first_no, x.id_base + x.last_no, '[]') @> g.id offset 0) e on true
        left join divvy.task k on k.id = any (array[coalesce(u.share_of, u.id)])
        order by g.n);
end $$;

create or replace function divvy.check_results(p_ids bigint[], p_results jsonb) returns boolean
language plpgsql as $$
declare
    v_at int;
begin
    if p_results is null or p_results = 'null' then
        return true;
    end if;
    if jsonb_typeof(p_results) <> 'array' or jsonb_array_length(p_results) <> cardinality(p_ids) then
        perform divvy.bad_option('complete', format('results is an array of %s elements, one for each split', cardinality(p_ids)));
    end if;
    if pg_column_size(p_results) >= 3000 then
        select n into v_at from jsonb_array_elements(p_results) with ordinality as r (result, n)
        where octet_length(result::text) > divvy.limit_of('result') limit 1;
        if v_at is not null then
            perform divvy.check_limit('result', octet_length((p_results -> (v_at - 1))::text), format('split %s', p_ids[v_at]));
        end if;
    end if;
    return true;
end $$;

-- Splits that only their lease names: ready in storage, with a key in its range. A lease at a time, which a worker's batch
-- mostly ends whole. Rows are found where they lay at the claim; one that has moved since (it was written down, or is ready
-- anew) or is not this lease's is left to those who look by id, as is one with something to follow its end.
create or replace function divvy.finish_leased(p_ids bigint[], p_tokens bigint[], p_results jsonb, p_now timestamptz) returns bigint[]
language plpgsql as $$
declare
    v_all bigint[] := '{}';
    n record;            -- of a lease: ids, ascending, their places, and where their results are (at), from 0
    v_done bigint[];
    v_tasks bigint[];
    v_sorted bigint[];   -- the ids by token, so that each lease is compared with its own splits only,
    v_tokens bigint[];   -- their tokens,
    v_order int[];       -- and where their results are
    v_from int;
    v_to int;
    v_gone boolean;
    l divvy.lease;
begin
    for l in select * from divvy.lease x where x.token = any (p_tokens) order by x.token, x.task_type, x.lane loop
        continue when l.written;   -- as a condition it would tempt the planner to another index
        if l.split_ids = p_ids and p_results is null then
            select array(select i from unnest(p_ids) i order by i) as ids, l.places, null::int[] as at into n;
        else
            if v_sorted is null and p_tokens[1] = all (p_tokens) then
                v_sorted := p_ids;
                v_tokens := p_tokens;
                v_order := array(select generate_series(0, cardinality(p_ids) - 1));
            elsif v_sorted is null then
                select array_agg(g.id order by g.token, g.n), array_agg(g.token order by g.token, g.n), array_agg((g.n - 1)::int order by g.token, g.n)
                into v_sorted, v_tokens, v_order from unnest(p_ids, p_tokens) with ordinality as g (id, token, n);
            end if;
            v_from := width_bucket(l.token - 1, v_tokens) + 1;
            v_to := width_bucket(l.token, v_tokens);
            if l.split_ids = v_sorted[v_from:v_to] then
                select array_agg(h.id order by h.id) as ids, l.places, array_agg(h.n order by h.id) as at into n
                from unnest(v_sorted[v_from:v_to], v_order[v_from:v_to]) h (id, n);
            else
                select array_agg(h.id order by h.id) as ids, array_agg(h.place) as places, array_agg(h.n order by h.id) as at into n
                from divvy.named(l, v_sorted[v_from:v_to], v_order[v_from:v_to]) h;
            end if;
        end if;
        if l.share_of is not null then
            v_done := divvy.finish_stretch(l, n.ids, n.at, p_results, p_now);
            perform divvy.look_at(array[l.share_of]) where v_done <> '{}';
        elsif l.lane < 10 then
            with done as (
                update divvy.task k set state = 'succeeded', status = 'succeeded', attempt = k.attempt + 1, crashes = 0, finished_at = p_now,
                    error = null, token = l.token, worker = l.worker, started_at = l.claimed_at, paused_until = null,
                    result = case when p_results is not null then nullif(p_results -> n.at[width_bucket(k.id, n.ids)], 'null') end,
                    dedupe_held = k.dedupe_key is null or k.dedupe_until is not null, watched = k.deadline_at is null
                where k.ctid = any (n.places) and k.id = n.ids[width_bucket(k.id, n.ids)]
                    and k.state = 'ready' and k.key between l.lo_key and l.hi_key and k.phase = 'execute'
                    and k.cancel_requested_at is null and k."then" is null and k.schedule_id is null
                    and not exists (select from divvy.task_type t where t.name = l.task_type and t."then" is not null)
                returning k.id
            )
            select coalesce(array_agg(id), '{}') into v_done from done;
        else
            with done as (
                update divvy.share s set state = 'succeeded', attempt = s.attempt + 1, crashes = 0, finished_at = p_now,
                    error = null, token = l.token, worker = l.worker, started_at = l.claimed_at,
                    result = case when p_results is not null then nullif(p_results -> n.at[width_bucket(s.id, n.ids)], 'null') end
                where s.ctid = any (n.places) and s.id = n.ids[width_bucket(s.id, n.ids)]
                    and s.state = 'ready' and s.key between l.lo_key and l.hi_key
                returning s.id, s.share_of
            )
            select coalesce(array_agg(id), '{}'), array_agg(distinct share_of) into v_done, v_tasks from done;
            perform divvy.look_at(v_tasks);
        end if;
        if cardinality(v_done) < cardinality(n.ids) and l.share_of is null then
            perform divvy.write_down(n.ids);
        end if;
        v_all := v_all || v_done;
        v_gone := divvy.shrink_lease(l, v_done);
    end loop;
    return v_all;
end $$;

-- Of splits with a lease's token, those that it names, with their places in the call (p_at) and in the table. By
-- hash, whatever the statistics say: both sides may be thousands.
create or replace function divvy.named(l divvy.lease, p_ids bigint[], p_at int[]) returns table (id bigint, n int, place tid)
language plpgsql stable rows 100 set enable_nestloop = off set enable_mergejoin = off set enable_hashjoin = on as $$
#variable_conflict use_column
begin
    return query
    select g.id, g.n, h.place from unnest(p_ids, p_at) as g (id, n)
    join unnest(l.split_ids, l.places) h (id, place) on h.id = g.id;
end $$;

-- Plain tasks that are written down: the split's end is the task's.
create or replace function divvy.finish_plain(p_ids bigint[], p_tokens bigint[], p_results jsonb, p_now timestamptz) returns bigint[]
language plpgsql as $$
declare
    v_done bigint[];
    v_followed bigint[];
begin
    with done as (
        update divvy.task k set state = 'succeeded', attempt = k.attempt + 1, crashes = 0, finished_at = p_now, error = null,
            result = nullif(p_results -> (g.n - 1)::int, 'null'), status = 'succeeded',
            dedupe_held = k.dedupe_key is null or k.dedupe_until is not null, watched = k.deadline_at is null, paused_until = null
        from (select * from unnest(p_ids, p_tokens) with ordinality as a (id, token, n) order by a.id) g
        where k.id = any (array[g.id]) and k.token = g.token and k.state = 'running' and k.phase = 'execute' and not k.adds
            and k.cancel_requested_at is null
        returning k.id, k.task_type, k."then" is not null or k.schedule_id is not null as followed
    )
    select coalesce(array_agg(d.id), '{}'),
        array_agg(d.id order by d.id) filter (where d.followed
            or exists (select from divvy.task_type t where t.name = d.task_type and t."then" is not null))
    into v_done, v_followed from done d;
    if v_followed is not null then
        perform divvy.follow(id) from unnest(v_followed) id;
    end if;
    return v_done;
end $$;

-- Shares that are written down: then each divided task is looked at. One whose last split this is goes on at once; of the others a note
-- is left, because the last two may end side by side, neither seeing the other.
create or replace function divvy.finish_shares(p_ids bigint[], p_tokens bigint[], p_results jsonb, p_now timestamptz) returns bigint[]
language plpgsql as $$
declare
    v_done bigint[];
    v_tasks bigint[];
begin
    with done as (
        update divvy.share s set state = 'succeeded', attempt = s.attempt + 1, crashes = 0, finished_at = p_now, error = null,
            result = nullif(p_results -> (g.n - 1)::int, 'null')
        from (select * from unnest(p_ids, p_tokens) with ordinality as a (id, token, n) order by a.id) g
        where s.id = any (array[g.id]) and s.token = g.token and s.state = 'running' and not s.adds
        returning s.id, s.share_of
    )
    select coalesce(array_agg(id), '{}'), array_agg(distinct share_of) into v_done, v_tasks from done;
    perform divvy.look_at(v_tasks);
    return v_done;
end $$;

-- A split that writes its task: the task is locked first, as everywhere.
create or replace function divvy.finish_one(p_id bigint, p_token bigint, p_result jsonb, p_now timestamptz) returns boolean
language plpgsql as $$
declare
    u divvy.unit;
    k divvy.task;
begin
    select t.* into k from divvy.task t where t.id = coalesce((select s.share_of from divvy.share s where s.id = p_id), p_id) for update;
    select * into u from divvy.unit t where t.id = p_id and t.token = p_token and t.state = 'running' for update;
    if u.id is null then
        return false;
    end if;
    if u.phase = 'reduce' then
        return divvy.finish_reduce(k, p_result, p_now);
    end if;
    if u.share_of is null and k.cancel_requested_at is not null then
        -- It counts, and the task ends as cancelled; what it staged never comes to be.
        update divvy.task t set state = 'succeeded', attempt = t.attempt + 1, adds = false, error = null where t.id = k.id;
        delete from divvy.staged s where s.split_id = p_id;
        perform divvy.end_task(k.id, divvy.cancelled_as(k), case when u.phase = 'execute' then p_result end, null);
        return true;
    end if;
    if k.cancel_requested_at is not null then
        -- A share counts as any other does, and nothing that it adds is started.
        perform divvy.unstaged(u);
        update divvy.share s set adds = false where s.id = p_id;
        return p_id = any (divvy.finish_shares(array[p_id], array[p_token], jsonb_build_array(p_result), p_now));
    end if;
    update divvy.unit t set state = 'succeeded', attempt = t.attempt + 1, crashes = 0, adds = false, progress = null, error = null,
        finished_at = case when t.share_of is not null then p_now end,
        result = case when t.phase = 'execute' then p_result end
    where t.id = p_id;
    perform divvy.unstage(k, u, p_now);
    perform divvy.look_at(array[k.id]);
    return true;
end $$;

-- Makes the staged payloads of a finished split into shares of its task.
create or replace function divvy.unstage(k divvy.task, u divvy.unit, p_now timestamptz) returns void
language plpgsql as $$
declare
    v_last int;
    v_payloads jsonb[];
begin
    delete from divvy.staged s where s.split_id = u.id and s.token <> u.token;
    v_payloads := array(select s.payload from divvy.staged s where s.split_id = u.id order by s.position);
    delete from divvy.staged s where s.split_id = u.id;
    if k.phase = 'execute' then
        -- A plain task becomes a divided one: its only split so far leaves for a row of its own, with the same id.
        insert into divvy.share (id, token, due_at, started_at, finished_at, share_of, attempt, attempt_base, max_attempts, continuation,
            split_no, priority, state, task_type, worker, group_key, timeout, result)
        select t.id, t.token, t.due_at, t.started_at, p_now, t.id, t.attempt, t.attempt_base, t.max_attempts, t.continuation,
            1, t.priority, t.state, t.task_type, t.worker, t.group_key, t.timeout, t.result
        from divvy.task t where t.id = k.id;
        update divvy.task t set phase = null, state = null, token = null, result = null, checkpoint = null, sealed = true where t.id = k.id;
    end if;
    v_last := greatest((select s.split_no from divvy.share s where s.share_of = k.id order by s.split_no desc limit 1),
        (select max(s.last_no) from divvy.stretch s where s.share_of = k.id), (select max(d.last_no) from divvy.dropped d where d.share_of = k.id), 0);
    perform divvy.check_limit('splits', v_last + cardinality(v_payloads), format('task %s', k.id));
    perform divvy.insert_shares(k, v_last, cardinality(v_payloads), v_payloads, null, p_now);
    if k.phase = 'plan' then
        -- The plan split is done: its row waits to become the reduce.
        insert into divvy.attempt (split_id, token, task_id, attempt, phase, worker, outcome, started_at, finished_at)
        values (u.id, u.token, k.id, u.attempt + 1, 'plan', u.worker, 'succeeded', u.started_at, p_now);
        update divvy.task t set status = 'running', phase = null, state = null, token = null, sealed = true, checkpoint = null where t.id = k.id;
    end if;
    update divvy.task t set split_count = v_last + cardinality(v_payloads) where t.id = k.id;
    perform divvy.hold_if_paused(k.id, k.paused_until);
    perform divvy.wake(array[k.task_type]);
end $$;

-- The splits of a divided task for its reduce, a page at a time in split_no order, from after. Errors: DV001, DV010, DV011.
create or replace function divvy.reduce_inputs(split_id bigint, token bigint, after int default 0, max int default 1000)
returns table (split_no int, status text, result jsonb, error jsonb)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
begin
    perform from divvy.task k where k.id = reduce_inputs.split_id and k.token = reduce_inputs.token and k.state = 'running' and k.phase = 'reduce';
    if not found then
        perform divvy.refuse(reduce_inputs.split_id, reduce_inputs.token);
    end if;
    perform divvy.check_limit('batch', reduce_inputs.max, 'reduce_inputs');
    return query
    select x.* from divvy.ended_splits(reduce_inputs.split_id, reduce_inputs.after, reduce_inputs.max) x;
end $$;
