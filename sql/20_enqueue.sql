-- Tasks come in: by INSERT, by function; and start, at once or when their moment has come.

-- After every INSERT, COPY included. The defaults of divvy.task make a plain task that is ready: such
-- rows are only looked at. All others are started here, which writes them once more.
create or replace function divvy.task_inserted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
    v_row record;
    v_type text;           -- the only type, or the least
    v_several boolean;
    v_check boolean;       -- some row must be checked
    v_starts boolean;      -- some task may not begin as a plain one
    v_idle boolean;        -- somebody waits for the type
    v_special bigint[];
begin
    -- One statement and one pass, for every commit and every row pays for each. All are of one type when its least name is
    -- its greatest: so there is nothing to group, to sort and to choose for a planner. Nor is there a variable in it, so it is
    -- not planned anew for each call (a session that once inserted many rows would, at five times the price).
    select i.least, i.least <> i.greatest, not i.fine, i.starts or t.name is null or t.plan or t.reduce or t.max_waiting is not null,
        w.idle_until > divvy.clock() and divvy.wakes()
    into v_type, v_several, v_check, v_starts, v_idle
    from (
        select min(n.task_type) as least, max(n.task_type) as greatest,
            bool_and(divvy.is_fine(n.priority, n.payload, n.headers, n.labels, n.group_key, n.dedupe_key, n.run_at, n.deadline_at, n.max_attempts,
                num_nonnulls(n.timeout, n.max_failed, n.max_failed_percent, n.reduce_on, n."then", n.splits, n.split_count, n.split_range,
                    n.split_size))) as fine,
            bool_or(n.run_at > divvy.clock() or num_nonnulls(n.dedupe_key, n.splits, n.split_count, n.split_range) > 0) as starts
        from inserted n) i
    left join divvy.task_type t on t.name = i.least
    left join divvy.type_wake w on w.task_type = i.least;

    if v_check then
        for v_row in
            select to_jsonb(n) as task, n.ord
            from (select i.*, row_number() over () as ord from inserted i) n
            where not divvy.is_fine(n.priority, n.payload, n.headers, n.labels, n.group_key, n.dedupe_key, n.run_at, n.deadline_at, n.max_attempts,
                num_nonnulls(n.timeout, n.max_failed, n.max_failed_percent, n.reduce_on, n."then", n.splits, n.split_count, n.split_range,
                    n.split_size))
        loop
            perform divvy.check_task(jsonb_populate_record(null::divvy.task, v_row.task), 'task row ' || v_row.ord);
        end loop;
    end if;

    if v_several or v_starts then
        select array_agg(i.id order by i.id) into v_special
        from inserted i
        left join divvy.task_type t on t.name = i.task_type
        where t.name is null or t.plan or t.reduce or t.max_waiting is not null
            or i.run_at > divvy.clock()
            or num_nonnulls(i.splits, i.split_count, i.split_range) > 0
            or (i.dedupe_key is not null and t.dedupe_window <> 'open');
    end if;
    if v_special is not null then
        perform divvy.check_name(i.task_type, 'task row ' || i.ord || ': task_type')
        from (select task_type, row_number() over () as ord from inserted) i
        where not exists (select from divvy.task_type t where t.name = i.task_type);
        -- What follows an ended task is no new work from outside: refusing it would keep its parent from ending.
        perform divvy.check_waiting(array(select distinct task_type from inserted where parent_task_id is null));
        perform divvy.start(v_special, divvy.clock());
    end if;
    if v_several then
        perform divvy.wake(array(select distinct task_type from inserted));
    elsif v_idle then
        perform pg_notify('divvy_ready', v_type);
    end if;
    return null;
end $$;

create or replace trigger task_inserted after insert on divvy.task
    referencing new table as inserted
    for each statement execute function divvy.task_inserted();

-- The dedupe window of the type, where it is not `open`, is the task's from its creation.
create or replace function divvy.hold_key(p_ids bigint[]) returns void
language sql as $$
    update divvy.task k
    set dedupe_until = case t.dedupe_window when 'forever' then 'infinity' else k.created_at + t.dedupe_window::interval end
    from divvy.task_type t
    where k.id = any (p_ids) and k.dedupe_key is not null and t.name = any (array[k.task_type]) and t.dedupe_window <> 'open'
$$;

-- max_waiting bounds what waits of a type: ready, delayed and scheduled.
create or replace function divvy.check_waiting(p_task_types text[]) returns void
language plpgsql as $$
declare
    v_type record;
    v_waiting bigint;
    v_leased bigint;   -- ready in storage, but running
begin
    for v_type in select name, max_waiting from divvy.task_type where name = any (p_task_types) and max_waiting is not null loop
        v_leased := (select count(*) from divvy.leased_split x join divvy.task k on k.id = any (array[x.id])
            where k.task_type = v_type.name and k.state = 'ready' and k.key between x.lo_key and x.hi_key);
        select count(*) into v_waiting from (
            select from divvy.task where task_type = v_type.name and (state in ('ready', 'delayed') or status = 'scheduled')
            limit v_type.max_waiting + v_leased + 1) w;
        if v_waiting - v_leased > v_type.max_waiting then
            raise exception using errcode = 'DV003',
                message = format('type %s: more than max_waiting = %s tasks wait', v_type.name, v_type.max_waiting);
        end if;
    end loop;
end $$;

-- A key behind all there are; below zero for what waits for its moment and is no claim's (docs/adr/0017).
create or replace function divvy.next_key(p_waits boolean) returns bigint
language sql volatile as $$
    select case when p_waits then -nextval('divvy.key') else nextval('divvy.key') end
$$;

-- Starts tasks that have no splits yet, whatever their type says now. Returns how many started.
-- The rows are locked by the caller (inserted by it, or taken for update).
create or replace function divvy.start(p_ids bigint[], p_now timestamptz) returns int
language plpgsql set enable_seqscan = off set jit = off as $$
declare
    v_divided bigint[];
    v_started int;
begin
    -- One update decides for all: what waits, what is planned, what is divided, what is plain.
    with shape as (
        select k.id,
            t.name is null or coalesce(k.run_at > p_now, false) as waits,
            num_nonnulls(k.splits, k.split_count, k.split_range) > 0 or (not t.plan and t.reduce) as divided,
            coalesce(t.plan, false) as plan, coalesce(t.reduce, false) as reduce
        from divvy.task k left join divvy.task_type t on t.name = any (array[k.task_type])
        where k.id = any (p_ids)
    ), written as (
        update divvy.task k set
            status = case when s.waits then 'scheduled' when s.divided or not s.plan then 'running' else 'planning' end::divvy.task_status,
            phase = case when s.waits or s.divided then null when s.plan then 'plan' else 'execute' end::divvy.phase,
            state = case when s.waits or s.divided then null else 'ready' end::divvy.split_status,
            split_no = case when not s.waits and not s.divided and s.plan then 0 else 1 end,
            reduces = not s.waits and s.reduce,
            sealed = s.divided and not s.waits,
            run_at = case when s.waits then coalesce(k.run_at, k.created_at) else k.run_at end,
            reason = case when s.waits and k.run_at > p_now then 'run_at' when s.waits then 'undeclared type' end,
            due_at = case when s.waits then coalesce(k.run_at, k.created_at) else p_now end,
            key = divvy.next_key(s.waits)
        from shape s where k.id = any (array[s.id])
        returning k.id, s.waits, s.divided
    )
    select array_agg(id order by id) filter (where divided and not waits), count(*) filter (where not waits)
    into v_divided, v_started from written;
    perform divvy.hold_key(p_ids);

    if v_divided is not null then
        perform divvy.make_shares(v_divided, p_now);
    end if;
    return coalesce(v_started, 0);
end $$;

-- Makes the given shares of tasks; a task without any (a reduce on a plain task) gets one.
create or replace function divvy.make_shares(p_ids bigint[], p_now timestamptz) returns void
language plpgsql set enable_seqscan = off set jit = off as $$
declare
    k divvy.task;
begin
    for k in select * from divvy.task where id = any (p_ids) order by id loop
        if k.splits is not null then
            k.split_count := jsonb_array_length(k.splits);
            perform divvy.insert_shares(k, 0, k.split_count, array(select jsonb_array_elements(k.splits)), null, p_now);
        elsif k.split_count is not null then
            perform divvy.insert_shares(k, 0, k.split_count, null, jsonb_build_object('count', k.split_count), p_now);
        elsif k.split_range is not null then
            k.split_count := divvy.range_splits(k.split_range, k.split_size)::int;
            perform divvy.insert_shares(k, 0, k.split_count, null,
                jsonb_build_object('lo', lower(k.split_range), 'hi', upper(k.split_range), 'size', k.split_size), p_now);
        else
            k.split_count := 1;
            perform divvy.insert_shares(k, 0, 1, array[null::jsonb], null, p_now);
        end if;
        update divvy.task set split_count = k.split_count, splits = null where id = k.id;
        if k.split_count = 0 then
            perform divvy.settle_task(k.id);
        end if;
    end loop;
end $$;

-- Makes p_count shares, numbered from p_after + 1: with payloads in their order, or by a rule (divvy.payload_by).
create or replace function divvy.insert_shares(k divvy.task, p_after int, p_count int, p_payloads jsonb[], p_rule jsonb, p_now timestamptz) returns void
language plpgsql as $$
begin
    if divvy.lies_in_stretches(p_count) or divvy.comes_behind_a_large_task(k) then
        perform divvy.lay_out(k, p_after, p_count, p_payloads, p_rule, p_now);
        return;
    end if;
    insert into divvy.share (share_of, split_no, task_type, priority, group_key, max_attempts, timeout, due_at, payload)
    select k.id, p_after + n, k.task_type, k.priority, k.group_key, k.max_attempts, k.timeout, p_now,
        case when p_rule is null then payload else divvy.payload_by(p_rule, n::int) end
    from unnest(coalesce(p_payloads, array_fill(null::jsonb, array[p_count]))) with ordinality as p (payload, n)
    order by n;
end $$;

-- Whether this session sends notifications: two-phase commit needs none.
create or replace function divvy.wakes() returns boolean
language sql stable as $$
    select coalesce(current_setting('divvy.notify', true), 'auto') <> 'off'
$$;

-- Tells waiting workers that there is work. At most one notification a type and transaction; none when
-- nobody of the type waits. (A task of one type is inserted oftener than all else: divvy.task_inserted has its own.)
create or replace function divvy.wake(p_task_types text[]) returns void
language plpgsql as $$
begin
    if divvy.wakes() then
        perform pg_notify('divvy_ready', w.task_type)
        from divvy.type_wake w
        where w.task_type = any (p_task_types) and w.idle_until > divvy.clock();
    end if;
end $$;

-- Tells workers to look at their orders: cancel, pause, drain.
create or replace function divvy.wake_control(p_what text) returns void
language plpgsql as $$
begin
    if divvy.wakes() then
        perform pg_notify('divvy_control', p_what);
    end if;
end $$;

-- Makes one task. Options: the columns of a task, and on_duplicate: return (default) | raise | replace.
-- Returns the id, or with a held dedupe_key the holder's id and created = false.
-- Errors: DV003, DV010; DV004 with on_duplicate raise. Locks: none but the dedupe key's.
create or replace function divvy.enqueue(task_type text, payload jsonb default '{}', options jsonb default '{}',
    out task_id bigint, out created boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v_what text := format('task of type %s', left(enqueue.task_type, 120));
    v_on_duplicate text := coalesce(options ->> 'on_duplicate', 'return');
    v_task divvy.task;
begin
    perform divvy.check_keys(options, divvy.task_option_names() || array['on_duplicate'], v_what);
    if v_on_duplicate not in ('return', 'raise', 'replace') then
        perform divvy.bad_option(v_what, format('on_duplicate is %L; it is return, raise or replace', v_on_duplicate));
    end if;
    perform divvy.check_name(enqueue.task_type, v_what || ': task_type');
    v_task := divvy.task_from_options(enqueue.task_type, enqueue.payload, options, v_what);
    for i in 1..3 loop   -- a holder may end between the two looks; thrice is contention, not bad luck
        task_id := divvy.insert_task(v_task);
        created := task_id is not null;
        exit when created;
        select k.id into task_id from divvy.task k
        where k.task_type = enqueue.task_type and k.dedupe_key = v_task.dedupe_key and k.dedupe_held;
        continue when task_id is null;
        if v_on_duplicate = 'raise' then
            raise exception using errcode = 'DV004',
                message = format('%s: dedupe_key %L is held by task %s', v_what, v_task.dedupe_key, task_id);
        end if;
        if divvy.release_passed_key(task_id) then
            continue;
        end if;
        if v_on_duplicate = 'replace' then
            perform divvy.replace_waiting(task_id, v_task, v_what);
        end if;
        exit;
    end loop;
    if task_id is null then
        raise exception using errcode = 'DV004', message = format('%s: dedupe_key %L is contended, try again', v_what, v_task.dedupe_key);
    end if;
end $$;

-- A task row from options; DV010 names an option whose value is not of its type.
create or replace function divvy.task_from_options(p_task_type text, p_payload jsonb, p_options jsonb, p_what text) returns divvy.task
language plpgsql as $$
declare
    k divvy.task;
begin
    begin
        k := jsonb_populate_record(null::divvy.task, p_options - 'on_duplicate');
    exception when data_exception or invalid_text_representation or datetime_field_overflow or numeric_value_out_of_range then
        perform divvy.bad_option(p_what, sqlerrm);
    end;
    k.task_type := p_task_type;
    k.payload := coalesce(p_payload, '{}');
    k.priority := coalesce(k.priority, 2);
    return k;
end $$;

-- Inserts the producer's columns of k, and its lineage; null when the dedupe key is held.
create or replace function divvy.insert_task(k divvy.task) returns bigint
language plpgsql as $$
declare
    v_id bigint;
begin
    insert into divvy.task (task_type, payload, run_at, priority, dedupe_key, group_key, labels, headers, deadline_at, splits,
        split_count, split_range, split_size, max_attempts, timeout, max_failed, max_failed_percent, reduce_on, "then",
        parent_task_id, schedule_id, scheduled_for)
    values (k.task_type, k.payload, k.run_at, k.priority, k.dedupe_key, k.group_key, k.labels, k.headers, k.deadline_at, k.splits,
        k.split_count, k.split_range, k.split_size, k.max_attempts, k.timeout, k.max_failed, k.max_failed_percent, k.reduce_on,
        k."then", k.parent_task_id, k.schedule_id, k.scheduled_for)
    on conflict do nothing
    returning id into v_id;
    return v_id;
end $$;

-- Gives a key up whose window has passed. True when it did.
create or replace function divvy.release_passed_key(p_id bigint) returns boolean
language sql as $$
    with released as (
        update divvy.task set dedupe_held = false
        where id = p_id and dedupe_held and dedupe_until <= divvy.clock() returning id)
    select exists (select from released)
$$;

-- on_duplicate replace: the holder gets the new payload, policy and moment while it waits to start. Shares are
-- replaced only where they are no rows yet.
create or replace function divvy.replace_waiting(p_id bigint, k divvy.task, p_what text) returns void
language plpgsql as $$
declare
    h divvy.task;
begin
    perform divvy.check_task(k, p_what);   -- it was not inserted, so nobody has looked at it
    perform from divvy.task t where t.id = p_id for update;
    perform divvy.write_down(array[p_id]);
    select * into h from divvy.task t where t.id = p_id
        and (t.status = 'scheduled' or (t.phase in ('plan', 'execute') and t.state in ('ready', 'delayed')));
    if not found then
        return;
    end if;
    update divvy.task t set payload = k.payload, headers = k.headers, labels = k.labels, priority = k.priority, group_key = k.group_key,
        deadline_at = k.deadline_at, max_attempts = k.max_attempts, timeout = k.timeout, max_failed = k.max_failed,
        max_failed_percent = k.max_failed_percent, reduce_on = k.reduce_on, "then" = k."then", key = divvy.next_key(t.key < 0)
    where t.id = p_id;
    if h.status = 'scheduled' then
        update divvy.task t set splits = k.splits, split_count = k.split_count, split_range = k.split_range, split_size = k.split_size
        where t.id = p_id;
    end if;
    if k.run_at is not null then
        perform divvy.move_waiting(h, k.run_at, null, divvy.clock());
    end if;
end $$;

-- Makes many tasks: an array of {"task_type", "payload", options…}. Returns one row each, ord from 1.
-- Errors: as enqueue, the message names the ordinal.
create or replace function divvy.enqueue_many(tasks jsonb)
returns table (ord int, task_id bigint, created boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v_task jsonb;
begin
    if jsonb_typeof(tasks) is distinct from 'array' then
        perform divvy.bad_option('enqueue_many', 'tasks is a JSON array');
    end if;
    perform divvy.check_limit('splits', jsonb_array_length(tasks), 'enqueue_many');
    if not exists (select from jsonb_array_elements(tasks) t
            where case when jsonb_typeof(t) = 'object' then not t ? 'task_type' or (t - array['task_type', 'payload']) <> '{}' else true end) then
        -- All plain: one statement makes them.
        return query
        with made as (
            insert into divvy.task (task_type, payload)
            select t ->> 'task_type', coalesce(t -> 'payload', '{}') from jsonb_array_elements(tasks) with ordinality as a (t, n) order by n
            returning id)
        select (row_number() over (order by id))::int, id, true from made;
        return;
    end if;
    for i in 1..jsonb_array_length(tasks) loop
        ord := i;
        v_task := tasks -> (i - 1);
        begin
            if jsonb_typeof(v_task) <> 'object' then
                perform divvy.bad_option('enqueue_many', format('a task is a JSON object, not %s', jsonb_typeof(v_task)));
            end if;
            select e.task_id, e.created into task_id, created
            from divvy.enqueue(v_task ->> 'task_type', v_task -> 'payload', v_task - array['task_type', 'payload']) e;
        exception when sqlstate 'DV003' or sqlstate 'DV004' or sqlstate 'DV010' then
            raise exception using errcode = sqlstate, message = format('task %s: %s', ord, sqlerrm);
        end;
        return next;
    end loop;
end $$;

-- How a task ended, or where it stands. Errors: DV011.
create or replace function divvy.task_result(task_id bigint, out status text, out result jsonb, out error jsonb, out finished_at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    select k.status::text, k.result, k.error, k.finished_at into status, result, error, finished_at
    from divvy.task k where k.id = task_result.task_id;
    if not found then
        perform divvy.unknown('task', task_result.task_id::text);
    end if;
end $$;

-- Raises DV011.
create or replace function divvy.unknown(p_object text, p_id text) returns void
language plpgsql immutable as $$
begin
    raise exception using errcode = 'DV011', message = format('there is no %s %s', p_object, coalesce(p_id, 'null'));
end $$;
