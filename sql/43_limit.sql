-- Limits of a type hold over the whole cluster. Claims of such a type come one after another, by an advisory lock that ends
-- with the claim's transaction, and each counts anew what runs: no counter can leak (docs/adr/0010). What
-- max_running or a rate holds back stays ready in storage, and the views say "delayed: limit". What a limit of
-- a group or a task holds back is delayed in storage too: it pins no mark, and no claim walks over it again.

-- Locks the limited types among these, ascending, so that two claims never wait for each other. What is counted
-- must be newer than the lock: the statements after this call are.
create or replace function divvy.lock_limited(p_task_types text[]) returns void
language plpgsql as $$
declare
    v_no int;
begin
    perform divvy.need_read_committed('claim of a type with limits');
    for v_no in select t.no from divvy.task_type t where t.name = any (p_task_types) and t.limited order by t.no loop
        perform pg_advisory_xact_lock(divvy.lock_of('limit')::int, v_no);
    end loop;
end $$;

-- divvy.pick_type for a type with limits, whose lock is held.
create or replace function divvy.pick_limited(p_type text, p_want int, p_room bigint, p_now timestamptz) returns divvy.part[]
language plpgsql as $$
declare
    t divvy.task_type;
    v_live record;
    v_parts divvy.part[];
    v_started bigint;
begin
    -- Again, after the lock: its options may have changed.
    select * into t from divvy.task_type x where x.name = p_type and (x.paused_until is null or x.paused_until <= p_now);
    if not found then
        return '{}';
    end if;
    v_live := divvy.live_leases(t);
    if num_nonnulls(t.max_running_per_task, t.max_running_per_group) > 0 then
        perform divvy.release_freed(t, v_live.tokens, p_now);
    end if;
    if t.max_running - v_live.splits < p_want then
        p_want := least(p_want, divvy.free_slots(t, v_live.tokens, v_live.splits, p_want));
    end if;
    if t.rate is not null then
        p_want := least(p_want, divvy.rate_room(t, p_now));
    end if;
    if p_want <= 0 then
        return '{}';
    end if;
    if num_nonnulls(t.max_running_per_task, t.max_running_per_group) > 0 or t.fair_by_group then
        v_parts := divvy.pick_chosen(t, p_want, p_room, p_now, v_live.tokens);
    else
        v_parts := divvy.pick_type(t, p_want, p_room, p_now, true);
    end if;
    if t.rate is not null then
        select sum(cardinality(p.split_ids)) into v_started from unnest(v_parts) p;
        perform divvy.rate_take(t, v_started, p_now);
    end if;
    return v_parts;
end $$;

-- The tokens of the type's leases, ascending, and for max_running how many splits they name: at least as many as run. Under the
-- type's lock a new lease has a higher token than every one before. So a session remembers, for an epoch of the type, a token up to
-- which it knows which ones are left, and never walks again over those that are gone, however long a snapshot keeps them.
create or replace function divvy.live_leases(t divvy.task_type, out tokens bigint[], out splits bigint)
language plpgsql as $$
declare
    v_known constant int := 256;
    v_setting text := 'divvy.leases_' || t.no;
    v_memory text[] := string_to_array(nullif(current_setting(v_setting, true), ''), ' ');   -- epoch, token, what is left up to it
    v_same boolean := coalesce(v_memory[1]::int = t.limit_epoch, false);
    v_through bigint := case when v_same then v_memory[2]::bigint else 0 end;
    v_left bigint[] := case when v_same then v_memory[3]::bigint[] else '{}' end;
    v_last bigint := (select s.last_value - (not s.is_called)::int from divvy.token s);
begin
    -- Long lists of ids lie apart from their rows, and are only read where they are counted.
    select coalesce(array_agg(distinct x.token order by x.token), '{}'),
        coalesce(sum(cardinality(x.split_ids)) filter (where t.max_running is not null), 0) into tokens, splits
    from (select l.token, l.split_ids from divvy.lease l where l.token = any (v_left) and l.task_type = t.name
        union all
        select l.token, l.split_ids from divvy.lease l where l.task_type = t.name and l.limited and l.token > v_through) x;
    if cardinality(tokens) > v_known then
        v_last := tokens[v_known + 1] - 1;
    end if;
    perform set_config(v_setting, concat_ws(' ', t.limit_epoch, v_last, tokens[:v_known]), false);
end $$;

-- Whether a split runs by a lease.
create or replace function divvy.runs_by(u divvy.unit, l divvy.lease) returns boolean
language sql immutable parallel safe as $$
    select (u.state = 'running' and u.token = l.token) or (u.state = 'ready' and not l.written and u.key between l.lo_key and l.hi_key)
$$;

-- How many more of the type may run: all, where there is no max_running. A lease may still name splits that have ended; what runs
-- is counted one by one only where the quick answer leaves too little, and for at most a tenth of the time.
create or replace function divvy.free_slots(t divvy.task_type, p_tokens bigint[], p_splits bigint, p_want int) returns bigint
language plpgsql as $$
declare
    v_setting text := 'divvy.count_at_' || t.no;
    v_started double precision := extract(epoch from clock_timestamp());   -- this bounds cost, it decides nothing
    v_running bigint;
begin
    if t.max_running is null or t.max_running - p_splits >= p_want then
        return p_want;
    end if;
    if v_started < nullif(current_setting(v_setting, true), '')::double precision then
        return greatest(t.max_running - p_splits, 0);
    end if;
    v_running := divvy.running_by(t.name, p_tokens);
    perform set_config(v_setting, (v_started + 11 * (extract(epoch from clock_timestamp()) - v_started))::text, false);
    return greatest(t.max_running - v_running, 0);
end $$;

-- How many splits of a type run by these leases: rows, each by its id whatever the statistics say, and those without one.
create or replace function divvy.running_by(p_type text, p_tokens bigint[]) returns bigint
language plpgsql as $$
begin
    return (select count(*) from divvy.lease l cross join unnest(l.split_ids) as i (id),
            lateral (select from divvy.unit u where u.id = i.id and divvy.runs_by(u, l) offset 0) u
        where l.token = any (p_tokens) and l.task_type = p_type)
        + (select coalesce(sum(cardinality(divvy.rowless_of(l, l.split_ids))), 0) from divvy.lease l
        where l.token = any (p_tokens) and l.task_type = p_type and l.share_of is not null);
end $$;

-- Which groups and tasks the splits of a lease count for: none, where no limit asks for it. Who has their rows locked says where
-- they lie (p_places), which is a quarter of the cost of their ids.
create or replace function divvy.labels_of(p_type text, p_lane int, p_ids bigint[], p_places tid[], out label_ids bigint[], out labels text[])
language plpgsql as $$
declare
    v_groups boolean;
    v_tasks boolean;
begin
    select t.max_running_per_group is not null, t.max_running_per_task is not null into v_groups, v_tasks
    from divvy.task_type t where t.name = p_type;
    if p_lane < 10 and v_groups then
        select array_agg(k.id), array_agg('g:' || k.group_key) into label_ids, labels
        from divvy.task k
        where k.ctid = any (coalesce(p_places, array(select x.ctid from divvy.task x where x.id = any (p_ids)))) and k.group_key is not null;
    elsif p_lane > 10 and (v_groups or v_tasks) then
        select array_agg(s.id), array_agg(y.label) into label_ids, labels
        from divvy.share s, lateral (values (case when v_groups then 'g:' || s.group_key end), (case when v_tasks then 't:' || s.share_of end)) y (label)
        where s.ctid = any (coalesce(p_places, array(select x.ctid from divvy.share x where x.id = any (p_ids)))) and y.label is not null;
    end if;
end $$;

-- The splits that leases of these tokens name for these labels. A hash join, whatever the statistics say.
create or replace function divvy.labelled(p_type text, p_tokens bigint[], p_labels text[]) returns table (id bigint, label text, lease divvy.lease)
language plpgsql stable rows 100 set enable_nestloop = off set enable_mergejoin = off set enable_hashjoin = on as $$
#variable_conflict use_column
begin
    return query
    select h.id, h.label, h.lease from unnest(p_labels) as w (label)
    join (select x.id, x.label, l as lease from divvy.lease l, unnest(l.label_ids, l.labels) as x (id, label)
        where l.token = any (p_tokens) and l.task_type = p_type offset 0) h on h.label = w.label;
end $$;

-- How many splits run of each of these groups and tasks, if any.
create or replace function divvy.running_in(p_type text, p_tokens bigint[], p_labels text[]) returns table (label text, n bigint)
language sql stable as $$
    select h.label, count(*) from divvy.labelled(p_type, p_tokens, p_labels) h,
        lateral (select from divvy.unit u where u.id = h.id and divvy.runs_by(u, h.lease) offset 0) u group by h.label
$$;

-- Delays what is over the limit of its group or task. What is locked is somebody else's to decide about.
create or replace function divvy.hold_back(p_ids bigint[]) returns int
language plpgsql as $$
declare
    v_ids bigint[];
    v_held int;
begin
    v_ids := array(select u.id from divvy.unit u where u.id = any (p_ids) and u.state = 'ready' order by u.id for update skip locked);
    perform divvy.write_down(v_ids);
    update divvy.unit u set state = 'delayed', key = -u.key, due_at = 'infinity', reason = 'limit' where u.id = any (v_ids) and u.state = 'ready';
    get diagnostics v_held = row_count;
    return v_held;
end $$;

-- The reverse: ready with a new key, unless their task is paused. Returns how many.
create or replace function divvy.let_go(p_ids bigint[], p_now timestamptz) returns int
language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_ids bigint[];
    v_types text[];
    v_count int;
begin
    v_ids := array(select u.id from divvy.unit u where u.id = any (p_ids) and u.state = 'delayed' and u.reason = 'limit'
        order by u.id for update skip locked);
    with gone as (
        update divvy.unit u set state = case when k.paused_until > p_now then 'delayed' else 'ready' end::divvy.split_status,
            reason = case when k.paused_until > p_now then 'paused' end,
            due_at = case when k.paused_until > p_now then k.paused_until else p_now end, key = divvy.next_key(k.paused_until > p_now)
        from divvy.task k
        where u.id = any (v_ids) and u.state = 'delayed' and k.id = any (array[coalesce(u.share_of, u.id)])
        returning u.task_type)
    select array_agg(distinct task_type), count(*) into v_types, v_count from gone;
    perform divvy.wake(v_types);
    return v_count;
end $$;

-- Notes that splits of a lease have ended, well or not (null: all that it named). The next claim of the type looks what
-- may go on instead: only it knows, under the type's lock, what runs.
create or replace function divvy.note_freed(l divvy.lease, p_ids bigint[]) returns void
language sql as $$
    insert into divvy.freed (task_type, labels)
    select l.task_type, array_agg(distinct x.label) from unnest(l.label_ids, l.labels) as x (id, label)
    where p_ids is null or p_ids = l.split_ids or x.id in (select unnest(p_ids) offset 0)
    having count(*) > 0
$$;

-- Reads the notes and lets go what fits. A session begins where its last look had all keys verified: older notes are gone.
create or replace function divvy.release_freed(t divvy.task_type, p_tokens bigint[], p_now timestamptz) returns void
language plpgsql as $$
declare
    v_setting text := 'divvy.freed_' || t.no;
    v_from bigint := coalesce(nullif(current_setting(v_setting, true), '')::bigint, 0);
    v_verified bigint := (select w.verified_key from divvy.low_water w);
    v_labels text[];
begin
    with gone as (delete from divvy.freed f where f.task_type = t.name and f.id > v_from returning f.labels)
    select array_agg(distinct x) into v_labels from gone cross join unnest(gone.labels) x;
    perform set_config(v_setting, greatest(v_from, v_verified)::text, false);
    if v_labels is not null then
        perform divvy.let_go(h.ids, p_now), divvy.take_up(h.places, p_now) from divvy.held_that_fits(t, p_tokens, v_labels) h;
    end if;
end $$;

-- From when on a claim of the type may start something, as far as limits go: null, when only the end of something else can tell.
create or replace function divvy.free_at(t divvy.task_type, p_now timestamptz) returns timestamptz
language plpgsql as $$
declare
    v_tokens bigint[];
    v_splits bigint;
begin
    if t.max_running is not null then
        select coalesce(array_agg(l.token), '{}'), coalesce(sum(cardinality(l.split_ids)), 0) into v_tokens, v_splits
        from divvy.lease l where l.task_type = t.name and l.limited;
        if divvy.free_slots(t, v_tokens, v_splits, 1) <= 0 then
            return null;
        end if;
    end if;
    return coalesce((
        select max(x.at + w.span) from divvy.rate_windows(t.rate) w, lateral (
            select s.at from (select u.at, sum(u.n) over (order by u.at desc) as total from divvy.rate_use u
                where u.task_type = t.name and u.at > p_now - w.span) s
            where s.total >= w.cap order by s.at desc limit 1) x
        where t.rate is not null), p_now);
end $$;

-- What put_task_type does when limits changed: leases count for what is limited now, what is held back is looked at again. A claim that counts by
-- the old limits is waited for. One that has seen none has not the lock; the sweep counts its lease in. Errors: DV004.
create or replace function divvy.limits_changed(p_before divvy.task_type, p_after divvy.task_type) returns void
language plpgsql set lock_timeout = '200ms' as $$
declare
    v_tries constant int := 50;
    v_held boolean := num_nonnulls(p_before.max_running_per_task, p_before.max_running_per_group) > 0;
begin
    if (p_before.max_running, p_before.max_running_per_task, p_before.max_running_per_group)
        is distinct from (p_after.max_running, p_after.max_running_per_task, p_after.max_running_per_group)
    then
        for i in 1 .. v_tries loop
            begin
                perform pg_advisory_xact_lock(divvy.lock_of('limit')::int, p_after.no) where p_before.limited;
                perform divvy.relabel(p_after.name);
                exit;
            exception when lock_not_available then
                -- A call that ends splits has their leases, and waits for this lock to claim: all that was locked here is free again.
                if i = v_tries then
                    raise exception using errcode = 'DV004', message = format('type %s: somebody holds its leases for long; try again', p_after.name);
                end if;
            end;
        end loop;
        if v_held and num_nonnulls(p_after.max_running_per_task, p_after.max_running_per_group) > 0 then
            perform divvy.note_held(p_after);
        elsif v_held then
            perform divvy.let_go(divvy.held_of(p_after.name, 10000), divvy.clock());
        end if;
        perform divvy.take_up(divvy.aside_of(p_after.name), divvy.clock());
    end if;
    perform divvy.wake(array[p_after.name]);
end $$;

-- Splits of the type that a limit of a group or a task holds back.
create or replace function divvy.held_of(p_type text, p_max int) returns bigint[]
language sql stable as $$
    select array(
        (select k.id from divvy.task k where k.task_type = p_type and k.group_key is not null and k.key < 0 and k.reason = 'limit' limit p_max)
        union all
        (select s.id from divvy.share s where s.task_type = p_type and s.key < 0 and s.reason = 'limit' limit p_max))
$$;

-- After the limits of a type changed: its leases count for what is limited now, and sessions look at all of them again. One that is committed
-- meanwhile is left as it is: it is not limited, and the sweep (p_sweep) finds it, but waits for nobody who is ending splits of it.
create or replace function divvy.relabel(p_type text, p_sweep boolean default false) returns void
language plpgsql set enable_seqscan = off set jit = off as $$
declare
    l divvy.lease;
    -- Labels are of rows.
    v_labels boolean := (select num_nonnulls(t.max_running_per_task, t.max_running_per_group) > 0 from divvy.task_type t where t.name = p_type);
    v_free tid[];
    v_some boolean := false;
begin
    if p_sweep then
        v_free := array(select x.ctid from divvy.lease x where x.task_type = p_type and not x.limited order by x.token, x.lane for update skip locked);
    end if;
    for l in select * from divvy.lease x where x.task_type = p_type and (v_free is null or x.ctid = any (v_free)) order by x.token, x.lane for update loop
        if v_labels and l.share_of is not null and not l.written then
            continue when not divvy.lock_rowless(l.token, case when p_sweep then null else true end);
            perform divvy.write_out(l);
            l.written := true;
        end if;
        update divvy.lease x set written = l.written, limited = t.limited,
            (label_ids, labels) = (select y.label_ids, y.labels from divvy.labels_of(l.task_type, l.lane, l.split_ids, null) y)
        from divvy.task_type t where t.name = p_type and x.token = l.token and x.task_type = l.task_type and x.lane = l.lane;
        v_some := true;
    end loop;
    update divvy.task_type t set limit_epoch = t.limit_epoch + 1 where t.name = p_type and (v_some or not p_sweep);
end $$;

-- The sweep of limits: counts leases in that a claim made which had not seen the limit yet; lets go what no limit holds any more; and a session
-- leaves a note every ten seconds to look again at what is held back. That makes up for notes which brought nothing because a row was
-- locked just then, and costs a claim a look at all that runs. Returns how many splits it let go.
create or replace function divvy.review_limits(p_max int, p_now timestamptz) returns int
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    v_started constant double precision := extract(epoch from clock_timestamp());   -- this bounds cost, it decides nothing
    t divvy.task_type;
    v_type text;
    v_count int := 0;
begin
    for v_type in select x.name from divvy.task_type x where x.limited and x.updated_at > p_now - interval '1 hour'
        and exists (select from divvy.lease l where l.task_type = x.name and not l.limited) order by x.no
    loop
        perform divvy.relabel(v_type, p_sweep => true);
    end loop;
    v_type := divvy.next_held_type('');
    while v_type is not null loop
        select * into t from divvy.task_type x where x.name = v_type;
        if num_nonnulls(t.max_running_per_group, t.max_running_per_task) = 0 then
            v_count := v_count + divvy.let_go(divvy.held_of(v_type, p_max), p_now);
            perform divvy.take_up(divvy.aside_of(v_type), p_now);
        elsif v_started >= coalesce(nullif(current_setting('divvy.note_at_' || t.no, true), ''), '0')::double precision
            and not exists (select from divvy.freed f where f.task_type = v_type)
        then
            perform divvy.note_held(t), set_config('divvy.note_at_' || t.no, (v_started + 10)::text, false);
        end if;
        v_type := divvy.next_held_type(v_type);
    end loop;
    return v_count;
end $$;

create or replace function divvy.next_held_type(p_after text) returns text
language plpgsql stable as $$
begin
    return (select min(x.task_type) from (
        (select k.task_type from divvy.task k where k.task_type > p_after and k.group_key is not null and k.key < 0 and k.reason = 'limit' order by 1 limit 1)
        union all
        (select s.task_type from divvy.share s where s.task_type > p_after and s.key < 0 and s.reason = 'limit' order by s.task_type limit 1)
        union all
        (select s.task_type from divvy.stretch s where s.task_type > p_after and s.held_by is not null order by s.task_type limit 1)) x);
end $$;

-- A note for the next thousand groups and tasks that something is held back of, round and round.
create or replace function divvy.note_held(t divvy.task_type) returns void
language plpgsql as $$
declare
    v_page constant int := 1000;
    v_setting text := 'divvy.held_' || t.no;
    v_memory jsonb := coalesce(nullif(current_setting(v_setting, true), '')::jsonb, '["", 0, ""]');
    v_group text := v_memory ->> 0;
    v_task bigint := v_memory ->> 1;
    v_aside text := v_memory ->> 2;
    v_labels text[] := '{}';
begin
    for i in 1 .. v_page loop
        select min(x.group_key) into v_group from (
            (select k.group_key from divvy.task k where k.task_type = t.name and k.group_key > v_group and k.key < 0 and k.reason = 'limit'
                order by k.group_key limit 1)
            union all (select s.group_key from divvy.share s where s.task_type = t.name and s.group_key > v_group
                and s.key < 0 and s.reason = 'limit' order by s.group_key limit 1)) x;
        exit when v_group is null;
        v_labels := v_labels || ('g:' || v_group);
    end loop;
    for i in 1 .. v_page loop
        select min(s.share_of) into v_task from divvy.share s where s.task_type = t.name and s.share_of > v_task and s.key < 0 and s.reason = 'limit';
        exit when v_task is null;
        v_labels := v_labels || ('t:' || v_task);
    end loop;
    for i in 1 .. v_page loop
        select min(s.held_by) into v_aside from divvy.stretch s where s.task_type = t.name and s.held_by > v_aside;
        exit when v_aside is null;
        v_labels := v_labels || v_aside;
    end loop;
    perform set_config(v_setting, jsonb_build_array(coalesce(v_group, ''), coalesce(v_task, 0), coalesce(v_aside, ''))::text, false);
    insert into divvy.freed (task_type, labels, ended) select t.name, v_labels, false where v_labels <> '{}';
end $$;
