-- Retention (docs/adr/0012): what has ended and was kept as long as its type says is deleted. A walk over the tasks in the order
-- of their ids, so no index is needed on their ends, which every completion would have to write.
--
-- The walk has a front, an hour at most behind the age of the shortest retention: below it nothing comes to its time soon, but for tasks
-- that are kept longer than others or ended long after they came. Those are found by rounds from the lowest id to the front, the rarer the more there is to look at.

-- Deletes what is past its retention: ended tasks with all that is theirs; workers not seen for an hour; events and fires after
-- 90 days; samples; what HTTP keeps. Returns how many tasks went.
create or replace function divvy.prune(max int default 500) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
    v_now timestamptz := divvy.clock();
    v_done int;
begin
    if not pg_try_advisory_xact_lock(divvy.lock_of('prune')) then
        return 0;
    end if;
    update divvy.task k set dedupe_held = false
    where k.id = any (array(select t.id from divvy.task t where t.dedupe_until <= v_now and t.dedupe_held limit prune.max for update skip locked));
    v_done := divvy.prune_tasks(prune.max, v_now);
    delete from divvy.worker w where w.seen_at < v_now - interval '1 hour'
        and not exists (select from divvy.lease l where l.worker = w.id);
    -- The first ones only: those that are young are not looked at.
    delete from divvy.event e where e.at < v_now - interval '90 days' and e.id = any (array(select x.id from divvy.event x order by x.id limit prune.max));
    delete from divvy.schedule_fire f where f.at < v_now - interval '90 days' and f.outcome <> 'waiting';
    delete from divvy.rate_use u where not exists (select from divvy.task_type t where t.name = u.task_type
        and u.at > v_now - make_interval(secs => (t.rate ->> 'per')::double precision));
    perform divvy.prune_http(prune.max, v_now), divvy.prune_samples(prune.max, v_now);
    return v_done;
end $$;

-- Moves the front on, and where that finds too little a round. A call looks at five times as many tasks and rows of splits as
-- it may delete tasks.
create or replace function divvy.prune_tasks(p_max int, p_now timestamptz) returns int
language plpgsql as $$
declare
    w divvy.walk;
    v_left int := 5 * p_max;
    v_done int := 0;
    v_page record;
    v_started timestamptz := clock_timestamp();   -- real time: this bounds cost, it decides nothing
begin
    insert into divvy.walk (name, at_id) values ('prune', 0) on conflict (name) do nothing;
    select * into w from divvy.walk x where x.name = 'prune';
    while v_done < p_max and v_left > 0 loop
        v_page := divvy.prune_page(w.at_id, null, p_max, p_now);
        exit when v_page.looked_at = 0;   -- those that are left are young
        w.at_id := v_page.last_id;
        v_done := v_done + v_page.gone;
        v_left := v_left - v_page.work;
    end loop;
    if w.round_id is null and w.next_round_at <= p_now then
        w.round_id := 0;
        w.round_size := 0;
    end if;
    while w.round_id is not null and v_done < p_max and v_left > 0 loop
        v_page := divvy.prune_page(w.round_id, w.at_id, p_max, p_now);
        w.round_id := case when v_page.looked_at > 0 then v_page.last_id end;
        w.round_size := w.round_size + v_page.looked_at;
        v_done := v_done + v_page.gone;
        v_left := v_left - v_page.work;
        if w.round_id is null then
            -- A look takes less than a microsecond, but what is deleted and may not go yet takes its time, too: rounds take one of a hundred at most.
            w.next_round_at := p_now + greatest(interval '1 min', w.round_size * interval '100 us', 100 * (clock_timestamp() - v_started));
        end if;
    end loop;
    update divvy.walk x set at_id = w.at_id, round_id = w.round_id, round_size = w.round_size, next_round_at = w.next_round_at
    where x.name = 'prune' and (x.at_id, x.round_id, x.round_size, x.next_round_at)
        is distinct from (w.at_id, w.round_id, w.round_size, w.next_round_at);
    return v_done;
end $$;

-- One page of the walk: p_max tasks after p_from, up to p_to; null: the front, which stops where a task is young. Says how many it
-- looked at, the last of them, how many it deleted, and what that was with rows of splits.
create or replace function divvy.prune_page(p_from bigint, p_to bigint, p_max int, p_now timestamptz,
    out last_id bigint, out looked_at int, out gone int, out work int)
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    v_ids bigint[];
begin
    gone := 0;
    work := 0;
    select max(x.id), count(*) into last_id, looked_at
    from (select t.id from divvy.task t where t.id > p_from and t.id <= coalesce(p_to, 9223372036854775807) order by t.id limit p_max) x;
    -- Ids follow the time, so mostly a page is old or young as a whole.
    if p_to is null and divvy.is_young((select t from divvy.task t where t.id = last_id), p_now) then
        select max(x.id), count(*) into last_id, looked_at from (
            select t.id, bool_or(divvy.is_young(t, p_now)) over (order by t.id) as over
            from divvy.task t where t.id > p_from order by t.id limit p_max) x
        where not x.over;
    end if;
    -- Rows of splits go with their tasks: so many at once as tasks, or those of one.
    if exists (select from divvy.share s where s.share_of > p_from and s.share_of <= last_id) then
        select max(x.id), count(*) into last_id, looked_at from (
            select t.id, sum(coalesce(t.split_count, 1)) over (order by t.id) - coalesce(t.split_count, 1) as before
            from divvy.task t where t.id > p_from and t.id <= last_id) x
        where x.before < p_max;
    end if;
    if looked_at > 0 then
        v_ids := divvy.delete_tasks(p_from, last_id, p_now, p_to is not null);
        gone := cardinality(v_ids);
        work := looked_at + divvy.delete_theirs(p_from, last_id, v_ids);
    end if;
end $$;

-- Whether the front has to wait for a task: it is younger than any retention, or a little older and may go within the hour. An
-- open one is taken to end within an hour of its coming. What is older still never holds the front. (In PL/pgSQL, which keeps its plan.)
create or replace function divvy.is_young(k divvy.task, p_now timestamptz) returns boolean
language plpgsql stable as $$
declare
    v_hour constant interval := '1 hour';
    v_from timestamptz := p_now - (select min(least(t.retention_succeeded, t.retention_others)) from divvy.task_type t);
    v_goes_at timestamptz;
begin
    if k.created_at > v_from or k.created_at <= v_from - v_hour then
        return k.created_at > v_from;
    end if;
    v_goes_at := coalesce(k.finished_at, k.created_at + v_hour) + (
        select case when k.finished_at is null or k.status = 'succeeded' then t.retention_succeeded else t.retention_others end
        from divvy.task_type t where t.name = k.task_type);
    return coalesce(v_goes_at > p_now and v_goes_at <= p_now + v_hour, false);
end $$;

-- Whether an ended task has been kept as long as it should. Inlined: this is asked of each task.
create or replace function divvy.outlived(k divvy.task, p_succeeded interval, p_others interval, p_now timestamptz) returns boolean
language sql stable as $$
    select k.finished_at <= p_now - case k.status when 'succeeded' then p_succeeded else p_others end
        and not (k.dedupe_key is not null and k.dedupe_held)
$$;

-- Deletes the tasks of a piece of the walk that were kept long enough; p_undeclared: also those whose type was dropped since, as
-- types are by default. Returns their ids. What somebody has locked stays for the next round.
create or replace function divvy.delete_tasks(p_after bigint, p_to bigint, p_now timestamptz, p_undeclared boolean) returns bigint[]
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set enable_nestloop = off set enable_mergejoin = off
set plan_cache_mode = force_generic_plan set jit = off set lock_timeout = '100ms' as $$
declare
    v_ids bigint[];
    v_free bigint[];
begin
    -- Without a lock before: that would cost half as much again, and nearly nobody ever locks an ended task.
    with gone as (
        delete from divvy.task k using divvy.task_type t
        where k.id > p_after and k.id <= p_to and t.name = k.task_type
            and divvy.outlived(k, t.retention_succeeded, t.retention_others, p_now)
        returning k.id)
    select coalesce(array_agg(id), '{}') into v_ids from gone;
    if p_undeclared then
        with gone as (
            delete from divvy.task k
            where k.id > p_after and k.id <= p_to and not exists (select from divvy.task_type t where t.name = k.task_type)
                and divvy.outlived(k, interval '3 days', interval '30 days', p_now)
            returning k.id)
        select v_ids || coalesce(array_agg(id), '{}') into v_ids from gone;
    end if;
    return v_ids;
exception when lock_not_available then
    v_free := array(select k.id from divvy.task k where k.id > p_after and k.id <= p_to and k.finished_at is not null order by k.id
        for update skip locked);
    with gone as (
        delete from divvy.task k using divvy.task_type t
        where k.id = any (v_free) and t.name = k.task_type
            and divvy.outlived(k, t.retention_succeeded, t.retention_others, p_now)
        returning k.id)
    select coalesce(array_agg(id), '{}') into v_ids from gone;
    return v_ids;
end $$;

-- Deletes what deleted tasks leave. Their ids are in one piece of the walk, so one look at a table tells that there is nothing.
-- Returns how many rows of splits.
create or replace function divvy.delete_theirs(p_after bigint, p_to bigint, p_ids bigint[]) returns int
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan set jit = off as $$
declare
    v_shares bigint[];
begin
    if p_ids = '{}' then
        return 0;
    end if;
    if exists (select from divvy.share s where s.share_of > p_after and s.share_of <= p_to) then
        with gone as (delete from divvy.share s where s.share_of = any (p_ids) returning s.id)
        select array_agg(id) into v_shares from gone;
    end if;
    if exists (select from divvy.given g where g.share_of > p_after and g.share_of <= p_to) then
        delete from divvy.given g where g.share_of = any (p_ids);
    end if;
    if exists (select from divvy.stretch s where s.share_of > p_after and s.share_of <= p_to) then
        delete from divvy.stretch s where s.share_of = any (p_ids);
    end if;
    if exists (select from divvy.ended e where e.share_of > p_after and e.share_of <= p_to) then
        delete from divvy.ended e where e.share_of = any (p_ids);
    end if;
    if exists (select from divvy.dropped d where d.share_of > p_after and d.share_of <= p_to) then
        delete from divvy.dropped d where d.share_of = any (p_ids);
    end if;
    if exists (select from divvy.attempt a where a.task_id > p_after and a.task_id <= p_to) then
        delete from divvy.attempt a where a.task_id = any (p_ids);
    end if;
    if exists (select from divvy.split_log l where l.split_id > p_after and l.split_id <= p_to) then
        delete from divvy.split_log l where l.split_id = any (p_ids);
    end if;
    if v_shares is not null and exists (select from divvy.split_log) then
        delete from divvy.split_log l where l.split_id = any (v_shares);
    end if;
    return coalesce(cardinality(v_shares), 0);
end $$;
