-- Duties: what somebody has to do now and then. Each is one pass, bounded, and safe with any number of callers at once.

-- One pass of all duties. Any divvy process, a worker's next_wait or pg_cron may call it. Returns what each did.
create or replace function divvy.tick(max int default 500)
returns table (duty text, done int)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform divvy.need_read_committed('tick');
    return query values
        ('fire', divvy.fire_due(max)),
        ('promote', divvy.promote(max)),
        ('reclaim', divvy.reclaim(max)),
        ('reduce_check', divvy.settle(max)),
        ('low_water', divvy.advance_low_water()),
        ('prune', divvy.prune(max));
end $$;

-- Makes ready what waited for a moment that has come; starts scheduled tasks, whose types are looked at again. Returns how many.
create or replace function divvy.promote(max int default 500) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
    v_now timestamptz := divvy.clock();
    v_types text[];
    v_count int;
    v_type text;
    v_paused record;
    v_resumed bigint[];
begin
    with due as materialized (
        select u.id from divvy.unit u where u.waits_until <= v_now order by u.waits_until limit promote.max for update skip locked
    ), promoted as (
        update divvy.unit u set state = case when k.paused_until > v_now then 'delayed' else 'ready' end::divvy.split_status,
            reason = case when k.paused_until > v_now then 'paused' end,
            due_at = case when k.paused_until > v_now then k.paused_until else v_now end, key = nextval('divvy.key')
        from divvy.task k
        where u.id = any (array(select id from due)) and u.state = 'delayed' and k.id = coalesce(u.share_of, u.id)
        returning u.task_type)
    select array_agg(distinct task_type), count(*) into v_types, v_count from promoted;
    perform divvy.wake(v_types);
    foreach v_type in array divvy.types_to_start(v_now) loop
        v_count := v_count + divvy.start_scheduled(v_type, max);
    end loop;
    update divvy.task_type t set paused_until = null, pause_reason = null
    where t.name = any (array(select p.name from divvy.task_type p where p.paused_until <= v_now for update skip locked));
    with resumed as (
        update divvy.task t set paused_until = null, pause_reason = null
        where t.id = any (array(select p.id from divvy.task p where p.paused_until <= v_now for update skip locked))
        returning t.id)
    select array_agg(id) into v_resumed from resumed;
    perform divvy.release_stretches(v_resumed);
    for v_paused in select p.id, p.paused_until from divvy.task p where p.paused_until > v_now order by p.paused_until limit max loop
        perform divvy.hold_if_paused(v_paused.id, v_paused.paused_until);
    end loop;
    return v_count + divvy.review_limits(max, v_now);
end $$;

-- The declared types of which a scheduled task is due: a walk from type to type, not over the tasks of each.
create or replace function divvy.types_to_start(p_now timestamptz) returns text[]
language sql stable as $$
    with recursive w as (
        (select k.task_type, k.starts_at from divvy.task k where k.starts_at is not null order by k.task_type, k.starts_at limit 1)
        union all
        select n.* from w, lateral (select k.task_type, k.starts_at from divvy.task k
            where k.starts_at is not null and k.task_type > w.task_type order by k.task_type, k.starts_at limit 1) n
    )
    select coalesce(array_agg(w.task_type order by w.task_type), '{}')
    from w join divvy.task_type t on t.name = w.task_type where w.starts_at <= p_now
$$;

-- Takes back the splits of ended leases, each charged an attempt; ends tasks past their deadline, and cancelled ones
-- whose workers did not stop within the grace. After a server start or a pause of ticks every lease is given its length
-- once more, so a pause of the database re-executes nothing. Returns how many splits were taken.
create or replace function divvy.reclaim(max int default 500) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_now timestamptz := divvy.clock();
    v_resumed timestamptz;
    l divvy.lease;
    v_taken int := 0;
begin
    v_resumed := divvy.pulse_beat(v_now);
    if v_resumed is null then
        return 0;
    end if;
    perform divvy.write_down_old(max);
    for l in select * from divvy.lease x
        where x.lease_until <= v_now and (v_resumed + x.length <= v_now or x.deadline_at <= v_now - x.length)
        order by x.token limit reclaim.max for update skip locked
    loop
        v_taken := v_taken + divvy.reclaim_lease(l, v_now);
    end loop;
    v_taken := v_taken + divvy.enforce_cancels(max, v_now);
    perform divvy.enforce_deadlines(max, v_now);
    return v_taken;
end $$;

-- Notes that reclaim runs; returns since when it has been running without a pause. Null: somebody else is at it, and is
-- not waited for, since each of two ticks may hold what the other wants next.
create or replace function divvy.pulse_beat(p_now timestamptz) returns timestamptz
language sql as $$
    update divvy.pulse set
        resumed_at = case when reclaimed_at > p_now - interval '10 s' and reclaimed_at <= p_now
            and server_start = pg_postmaster_start_time() then resumed_at else p_now end,
        reclaimed_at = p_now, server_start = pg_postmaster_start_time()
    where singleton = (select p.singleton from divvy.pulse p for update skip locked)
    returning resumed_at
$$;

-- Splits that are locked are just being completed: their lease row stays for the next pass.
create or replace function divvy.reclaim_lease(l divvy.lease, p_now timestamptz) returns int
language plpgsql set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    u divvy.unit;
    v_taken int := 0;
    v_outcome text := case when l.deadline_at <= p_now then 'timeout' else 'expired' end;
begin
    if l.share_of is not null and not l.written then
        if not divvy.write_out_lease(l) then
            return 0;   -- somebody is just ending splits of it
        end if;
    elsif not l.written then
        perform divvy.write_down(array(select x.id from divvy.unit x where x.id = any (l.split_ids) and x.state = 'ready' order by x.id
            for update skip locked));
    end if;
    for u in select * from divvy.unit x where x.id = any (l.split_ids) and x.token = l.token and x.state = 'running'
        order by x.id for update skip locked
    loop
        perform from divvy.end_attempt(u, v_outcome, jsonb_build_object('class', 'lease',
            'message', format('its lease ended at %s and worker %s did not renew it', l.lease_until, l.worker)), true,
            case v_outcome when 'timeout' then null else interval '0' end);
        v_taken := v_taken + 1;
    end loop;
    delete from divvy.lease x where x.token = l.token and x.task_type = l.task_type and x.lane = l.lane
        and not exists (select from divvy.unit y where y.id = any (l.split_ids) and divvy.holds(y, l.token));
    if l.labels is not null then
        perform divvy.note_freed(l, null);
    end if;
    return v_taken;
end $$;

-- Cancelled tasks that are still open: what slipped by is cancelled, what runs past the grace of 30 s loses its token.
create or replace function divvy.enforce_cancels(p_max int, p_now timestamptz) returns int
language plpgsql set enable_seqscan = off as $$
declare
    v_id bigint;
    k divvy.task;
    u divvy.unit;
    v_taken int := 0;
begin
    for v_id in select t.id from divvy.task t where t.watch_at <= p_now and t.cancel_requested_at is not null
        order by t.watch_at limit p_max
    loop
        select * into k from divvy.task t where t.id = v_id and t.finished_at is null for update skip locked;
        continue when not found;
        if k.cancel_requested_at <= p_now - interval '30 s' then
            for u in select * from divvy.unit x where (x.id = k.id or x.id = any (array(select s.id from divvy.share s where s.share_of = k.id
                    and s.state = 'running'))) and x.state = 'running' order by x.id for update skip locked
            loop
                insert into divvy.attempt (split_id, token, task_id, attempt, phase, worker, outcome, started_at, finished_at)
                values (u.id, u.token, k.id, u.attempt + 1, u.phase, u.worker, 'cancelled', u.started_at, p_now);
                perform divvy.unstaged(u);
                perform divvy.drop_from_leases(array[u.token], array[u.id]);
                perform divvy.end_split(u, 'cancelled', k.cancel_reason, null, true);
                v_taken := v_taken + 1;
            end loop;
        end if;
        perform divvy.begin_cancel(k, k.cancel_reason) from divvy.task t where t.id = k.id and t.finished_at is null;
    end loop;
    return v_taken;
end $$;

create or replace function divvy.enforce_deadlines(p_max int, p_now timestamptz) returns void
language plpgsql set enable_seqscan = off as $$
declare
    k divvy.task;
begin
    for k in select * from divvy.task t where t.watch_at <= p_now and t.deadline_at <= p_now and t.cancel_requested_at is null
        order by t.watch_at limit p_max for update skip locked
    loop
        perform divvy.record('deadline', 'task', k.id::text, format('its deadline was %s', k.deadline_at), jsonb_build_object('status', k.status), null);
        perform divvy.begin_cancel(k, 'deadline');
    end loop;
end $$;

-- Verifies keys (docs/adr/0003): a key K is noted, with every transaction that writes splits just then; when all of them are
-- gone, and no prepared one is left, every key up to K is visible to whoever looks from then on. Only the order of the
-- statements makes this right. Returns 1 when the verified key moved.
create or replace function divvy.advance_low_water() returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    w divvy.low_water;
    v_key bigint;
begin
    if not pg_try_advisory_xact_lock(divvy.lock_of('low water')) then
        return 0;
    end if;
    select * into w from divvy.low_water;
    if w.server_start is distinct from pg_postmaster_start_time() then
        perform divvy.repair_keys(w.home);
        w.noted_key := null;
    end if;
    if w.noted_key is not null and not divvy.writers() && w.holders and not divvy.prepared_writer() then
        v_key := w.noted_key;
        w.noted_key := null;
    end if;
    if w.noted_key is null then
        select s.last_value - (not s.is_called)::int into w.noted_key from divvy.key s;
        w.holders := divvy.writers();
        if w.holders = '{}' and not divvy.prepared_writer() then
            v_key := w.noted_key;
        end if;
    end if;
    -- Nothing new: no version of a row that may have to stay.
    update divvy.low_water x set noted_key = w.noted_key, holders = w.holders, server_start = pg_postmaster_start_time(), home = divvy.home(),
        verified_key = greatest(x.verified_key, v_key)
    where (x.noted_key, x.holders, x.server_start) is distinct from (w.noted_key, w.holders, pg_postmaster_start_time())
        or x.verified_key < v_key;
    return coalesce(w.verified_key < v_key, false)::int;
end $$;

create or replace function divvy.own_transaction() returns text
language sql volatile as $$
    select l.virtualtransaction from pg_locks l where l.locktype = 'virtualxid' and l.pid = pg_backend_pid() limit 1
$$;

-- Transactions that hold a lock they need to write splits. pg_locks needs no special right.
create or replace function divvy.writers() returns text[]
language sql volatile as $$
    select coalesce(array_agg(distinct l.virtualtransaction), '{}') from pg_locks l
    where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.granted and l.pid is not null
        and l.database = (select d.oid from pg_database d where d.datname = current_database())
        and l.relation in ('divvy.unit'::regclass, 'divvy.task'::regclass, 'divvy.share'::regclass, 'divvy.stretch'::regclass)
        and l.virtualtransaction <> divvy.own_transaction()
$$;

-- A prepared transaction has no process, and another id after a restart: as long as one is left, nothing is certain.
create or replace function divvy.prepared_writer() returns boolean
language sql volatile as $$
    select exists (select from pg_locks l
        where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.pid is null
            and l.database = (select d.oid from pg_database d where d.datname = current_database())
            and l.relation in ('divvy.unit'::regclass, 'divvy.task'::regclass, 'divvy.share'::regclass, 'divvy.stretch'::regclass))
$$;

-- Moves the marks of a type's lanes up to below their lowest ready key, as far as keys are verified. A plain look, never SKIP
-- LOCKED: a row whose claim is about to roll back is still ready. It starts at the old mark, so each stretch is looked at
-- once. Returns the marks, by divvy.lane_slot.
create or replace function divvy.raise_marks(p_type text) returns bigint[]
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    v_key bigint := (select w.verified_key from divvy.low_water w);
    v_mark bigint;
    l divvy.lane;
begin
    -- What an old snapshot sees is no proof.
    if current_setting('transaction_isolation') = 'read committed' then
        for l in select * from divvy.lane x where x.task_type = p_type and x.mark < v_key order by x.lane loop
            if l.lane > 20 then
                select s.key - 1 into v_mark from divvy.stretch s
                where s.task_type = p_type and s.lane = l.lane and s.key > l.mark and s.key <= v_key and s.first_no <= s.last_no
                order by s.key limit 1;
            elsif l.lane < 10 then
                select k.claim_key - 1 into v_mark from divvy.task k
                where k.task_type = p_type and k.lane = l.lane and k.claim_key > l.mark and k.claim_key <= v_key and k.state = 'ready'
                order by k.claim_key limit 1;
            else
                select s.claim_key - 1 into v_mark from divvy.share s
                where s.task_type = p_type and s.lane = l.lane and s.claim_key > l.mark and s.claim_key <= v_key and s.state = 'ready'
                order by s.claim_key limit 1;
            end if;
            update divvy.lane x set mark = coalesce(v_mark, v_key)
            where x.task_type = p_type and x.lane = l.lane and x.mark < coalesce(v_mark, v_key)
                and x.lane = (select y.lane from divvy.lane y where y.task_type = p_type and y.lane = l.lane for update skip locked);
        end loop;
    end if;
    return array(select x.mark from divvy.lane x where x.task_type = p_type order by x.lane);
end $$;

-- Which server and database the sequences belong to.
create or replace function divvy.home() returns text
language sql stable as $$
    select s.system_identifier || '/' || d.oid from pg_control_system() s, pg_database d where d.datname = current_database()
$$;

-- After a server start: sequences behind everything there is. In another home (a restored dump or a logical fail-over may
-- carry no sequences) marks are not believed either: one look over each lane from its beginning.
create or replace function divvy.repair_keys(p_home text) returns void
language plpgsql as $$
declare
    v_highest bigint;
begin
    select max(x.key) into v_highest from divvy.lane l, lateral (
        select (select k.claim_key from divvy.task k where k.task_type = l.task_type and k.lane = l.lane and k.claim_key is not null
            order by k.claim_key desc limit 1) as key
        union all
        select (select s.claim_key from divvy.share s where s.task_type = l.task_type and s.lane = l.lane and s.claim_key is not null
            order by s.claim_key desc limit 1)
        union all
        select (select s.key from divvy.stretch s where s.task_type = l.task_type and s.lane = l.lane and s.first_no <= s.last_no
            order by s.key desc limit 1)) x;
    perform setval('divvy.key', v_highest) from divvy.key s where s.last_value < v_highest;
    perform divvy.repair_ids();
    perform setval('divvy.token', m.token) from divvy.token s,
        (select greatest((select max(x.token) from divvy.lease x), (select max(a.token) from divvy.attempt a)) as token) m
    where s.last_value < m.token;
    if p_home is distinct from divvy.home() then
        update divvy.lane l set mark = 0;
        update divvy.low_water w set verified_key = 0;
    end if;
end $$;

-- Sequences of ids behind every id there is: those of rows, and the blocks of stretches.
create or replace function divvy.repair_ids() returns void
language plpgsql as $$
declare
    v_name text;
    v_highest bigint;
    q record;
begin
    select max(u.id) into v_highest from divvy.unit u where u.id < (select s.seqmin from pg_sequence s where s.seqrelid = 'divvy.id_256'::regclass);
    perform setval('divvy.id', v_highest) from divvy.id s where s.last_value < v_highest;
    foreach v_name in array '{divvy.id_256,divvy.id_4096,divvy.id_65536,divvy.id_1048576}'::text[] loop
        select s.seqmin, s.seqmax, s.seqincrement, pg_sequence_last_value(s.seqrelid) as last into q from pg_sequence s where s.seqrelid = v_name::regclass;
        select max(x.id) into v_highest from (
            select max(s.id) as id from divvy.share s where s.id between q.seqmin and q.seqmax
            union all
            select max(e.id_base + e.last_no) from divvy.ended e
            where int8range(e.id_base + e.first_no, e.id_base + e.last_no, '[]') && int8range(q.seqmin, q.seqmax)
            union all
            select max(s.id_base + s.last_no) from divvy.stretch s where s.id_base + s.last_no between q.seqmin and q.seqmax) x;
        v_highest := v_highest - (v_highest - q.seqmin) % q.seqincrement;
        if v_highest > coalesce(q.last, 0) then
            perform setval(v_name::regclass, v_highest);
        end if;
    end loop;
end $$;

-- Deletes what is past its retention: ended tasks with their splits, attempts and logs; workers not seen for an hour;
-- events and fires after 90 days; what HTTP keeps. Returns how many tasks went.
create or replace function divvy.prune(max int default 500) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
    v_now timestamptz := divvy.clock();
    v_ids bigint[];
    v_shares bigint[];
begin
    if not pg_try_advisory_xact_lock(divvy.lock_of('prune')) then
        return 0;
    end if;
    update divvy.task k set dedupe_held = false
    where k.id = any (array(select t.id from divvy.task t where t.dedupe_until <= v_now and t.dedupe_held limit prune.max for update skip locked));
    v_ids := divvy.past_retention(prune.max, v_now);
    v_shares := array(select s.id from divvy.share s where s.share_of = any (v_ids));
    delete from divvy.stretch s where s.share_of = any (v_ids);
    delete from divvy.given g where g.share_of = any (v_ids);
    delete from divvy.ended e where e.share_of = any (v_ids);
    delete from divvy.split_log l where l.split_id = any (v_shares || v_ids);
    delete from divvy.attempt a where a.task_id = any (v_ids);
    delete from divvy.share s where s.id = any (v_shares);
    delete from divvy.task k where k.id = any (v_ids);
    delete from divvy.worker w where w.seen_at < v_now - interval '1 hour'
        and not exists (select from divvy.lease l where l.worker = w.id);
    delete from divvy.event e where e.id in (select x.id from divvy.event x where x.at < v_now - interval '90 days' order by x.id limit prune.max);
    delete from divvy.schedule_fire f where f.at < v_now - interval '90 days' and f.outcome <> 'waiting';
    delete from divvy.rate_use u where not exists (select from divvy.task_type t where t.name = u.task_type
        and u.at > v_now - make_interval(secs => (t.rate ->> 'per')::double precision));
    perform divvy.prune_http(prune.max, v_now);
    return cardinality(v_ids);
end $$;

-- Ended tasks past their retention. Walks the tasks in the order of their ids, a page a call, round and round: no index on the
-- end, which every completion would have to write. A round starts anew where a task is younger than any retention.
create or replace function divvy.past_retention(p_max int, p_now timestamptz) returns bigint[]
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    v_from bigint := coalesce((select w.at_id from divvy.walk w where w.name = 'prune'), 0);
    v_oldest timestamptz := p_now - (select min(least(r.retention_succeeded, r.retention_others)) from divvy.task_type r);
    v_last bigint;
    v_ids bigint[];
begin
    select max(k.id), array_agg(k.id) filter (where k.finished_at <= p_now - case k.status when 'succeeded' then t.retention_succeeded
            else t.retention_others end and not (k.dedupe_key is not null and k.dedupe_held))
    into v_last, v_ids
    from (select x.* from divvy.task x where x.id > v_from order by x.id limit p_max) k
    left join divvy.task_type t on t.name = k.task_type
    where k.created_at <= v_oldest;
    insert into divvy.walk as w (name, at_id) values ('prune', coalesce(v_last, 0))
    on conflict (name) do update set at_id = excluded.at_id where w.at_id <> excluded.at_id;
    return array(select k.id from divvy.task k where k.id = any (v_ids) order by k.id for update skip locked);
end $$;

-- A new leader's term; the advisory lock keeps others away, the term says who it was. Returns the term.
create or replace function divvy.lead(leader uuid, name text) returns bigint
language sql security definer set search_path = pg_catalog, pg_temp as $$
    insert into divvy.leader (leader, name) values (lead.leader, left(lead.name, 200)) returning term
$$;
