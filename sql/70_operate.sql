-- People and programs intervene. Every function here writes its event in the same transaction, with the reason.

-- Cancels a task. Waiting splits end at once; running ones hear it at their next heartbeat and are taken away after
-- 30 s. Returns the task's status: an ended task keeps its own. Errors: DV011. Locks: the task, then free splits.
create or replace function divvy.cancel(task_id bigint, reason text default null) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    k divvy.task;
begin
    k := divvy.locked_task(cancel.task_id);
    if k.finished_at is not null then
        return k.status::text;
    end if;
    perform divvy.record('cancel', 'task', k.id::text, cancel.reason, jsonb_build_object('status', k.status), null);
    perform divvy.begin_cancel(k, coalesce(nullif(cancel.reason, 'deadline'), 'cancelled'));   -- that word is time's own
    perform divvy.wake_control('cancel');
    return (select t.status::text from divvy.task t where t.id = k.id);
end $$;

-- The task, locked. Raises DV011.
create or replace function divvy.locked_task(p_id bigint) returns divvy.task
language plpgsql as $$
declare
    k divvy.task;
begin
    perform divvy.need_read_committed('operate functions');
    perform from divvy.task t where t.id = p_id for update;
    if not found then
        perform divvy.unknown('task', p_id::text);
    end if;
    perform divvy.write_down(array[p_id]);
    select * into k from divvy.task t where t.id = p_id;
    return k;
end $$;

-- Flags the task, ends what nobody works on, and the task if that was all. k is locked. Splits are taken with SKIP
-- LOCKED, so that a cancel never waits for a claim or a completion; the sweep of divvy.reclaim meets what slips by.
create or replace function divvy.begin_cancel(k divvy.task, p_reason text) returns void
language plpgsql set enable_seqscan = off set jit = off as $$
declare
    v_now timestamptz := divvy.clock();
    v_ids bigint[];
begin
    update divvy.task t set cancel_requested_at = coalesce(t.cancel_requested_at, v_now), cancel_reason = coalesce(t.cancel_reason, p_reason)
    where t.id = k.id;
    perform divvy.drop_unbegun(k.id, 'cancelled', p_reason, v_now);
    v_ids := divvy.take_waiting(k.id, p_unbegun => false);   -- a statement of its own: the next one sees what this one wrote
    update divvy.share s set state = 'cancelled', key = abs(s.key), reason = p_reason, finished_at = v_now where s.id = any (v_ids);
    perform divvy.write_down(array[k.id]);
    update divvy.task t set state = 'cancelled', key = abs(t.key), reason = p_reason where t.id = k.id and t.state in ('ready', 'delayed');
    if (select t.state is distinct from 'running' from divvy.task t where t.id = k.id) and not divvy.has_open_split(k.id) then
        perform divvy.end_task(k.id, case p_reason when 'deadline' then 'failed' else 'cancelled' end::divvy.task_status, null, null);
    end if;
end $$;

-- Cancels the open task that holds a dedupe_key. Returns its status. Errors: DV011.
create or replace function divvy.cancel_by_key(task_type text, dedupe_key text, reason text default null) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_id bigint;
begin
    select t.id into v_id from divvy.task t
    where t.task_type = cancel_by_key.task_type and t.dedupe_key = cancel_by_key.dedupe_key and t.dedupe_held;
    if v_id is null then
        perform divvy.unknown('open task', format('of type %s with dedupe_key %L', cancel_by_key.task_type, cancel_by_key.dedupe_key));
    end if;
    return divvy.cancel(v_id, cancel_by_key.reason);
end $$;

-- Re-opens the unsuccessful splits of an ended task: failed and cancelled ones, and those that were skipped because the
-- tolerance broke. Results that are there are kept. Options: skipped (also those skipped by hand), where {"split_no": [..],
-- "error_class": ".."}, max_attempts, fresh (forget checkpoints). Returns how many splits are open again.
-- Errors: DV004 (not ended, or succeeded; the dedupe_key is held by another), DV010, DV011. Locks: the task, then splits.
create or replace function divvy.redrive(task_id bigint, options jsonb default '{}') returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    k divvy.task;
    v_what text := format('task %s', task_id);
    v_opened bigint;
begin
    perform divvy.check_redrive(options, v_what);
    k := divvy.locked_task(redrive.task_id);
    if k.status not in ('partial', 'failed', 'cancelled') then
        raise exception using errcode = 'DV004', message = format('task %s is %s: redrive takes a partial, failed or cancelled one', k.id, k.status);
    end if;
    perform divvy.record('redrive', 'task', k.id::text, options ->> 'reason', jsonb_build_object('status', k.status, 'epoch', k.epoch), options);
    perform divvy.reopen_task(k, coalesce((options ->> 'fresh')::boolean, false), (options ->> 'max_attempts')::int);
    v_opened := divvy.reopen_shares(k, options) + divvy.reopen_dropped(k.id, options);
    if v_opened = 0 and options ? 'where' then
        raise exception using errcode = 'DV004', message = format('task %s: no unsuccessful split matches %s', k.id, options -> 'where');
    end if;
    if v_opened > 0 then
        update divvy.task t set phase = null, state = null, status = 'running', key = abs(t.key) where t.id = k.id;
    elsif k.phase is not null then
        -- Its own split failed or was cancelled: the plan alone, the reduce alone, or a plain task.
        update divvy.task t set state = 'ready', key = nextval('divvy.key'), due_at = divvy.clock(),
            status = case k.phase when 'plan' then 'planning' when 'reduce' then 'reducing' else 'running' end::divvy.task_status
        where t.id = k.id;
        v_opened := 1;
    elsif exists (select from divvy.share s where s.share_of = k.id) or divvy.has_unbegun(k.id) or k.sealed then
        perform divvy.settle_task(k.id);      -- cancelled between its last split and its reduce
    else
        v_opened := divvy.start(array[k.id], divvy.clock());   -- cancelled before it ever started
    end if;
    perform divvy.wake(array[k.task_type]);
    return v_opened;
end $$;

-- Raises DV010 on options of redrive that it can't follow.
create or replace function divvy.check_redrive(p_options jsonb, p_what text) returns void
language plpgsql as $$
begin
    perform divvy.check_keys(p_options, array['skipped', 'where', 'max_attempts', 'fresh', 'reason'], p_what);
    perform divvy.check_keys(coalesce(p_options -> 'where', '{}'), array['split_no', 'error_class'], p_what || ': where');
    perform divvy.check_policy(p_what, (p_options ->> 'max_attempts')::int, null, null, null, null, null);
    perform (p_options ->> 'fresh')::boolean, (p_options ->> 'skipped')::boolean;
exception when data_exception then
    perform divvy.bad_option(p_what, sqlerrm);
end $$;

-- The task is open again: a new epoch, the budget afresh, a passed deadline and the cancel forgotten.
create or replace function divvy.reopen_task(k divvy.task, p_fresh boolean, p_max_attempts int) returns void
language plpgsql as $$
declare
    v_holder bigint;
begin
    update divvy.task t set status = case when k.phase is null and not k.sealed then 'scheduled' else 'running' end::divvy.task_status,
        key = divvy.next_key(k.phase is null and not k.sealed),
        finished_at = null, watched = true, epoch = t.epoch + 1, error = null, result = null, reason = null, attempt_base = t.attempt, crashes = 0,
        max_attempts = coalesce(p_max_attempts, t.max_attempts), cancel_requested_at = null, cancel_reason = null,
        deadline_at = case when t.deadline_at > divvy.clock() then t.deadline_at end,
        checkpoint = case when p_fresh then null else t.checkpoint end, token = null,
        dedupe_held = t.dedupe_key is not null or t.dedupe_held
    where t.id = k.id;
exception when unique_violation then
    select t.id into v_holder from divvy.task t where t.task_type = k.task_type and t.dedupe_key = k.dedupe_key and t.dedupe_held;
    raise exception using errcode = 'DV004', message = format('task %s: its dedupe_key %L is held by task %s', k.id, k.dedupe_key, v_holder);
end $$;

create or replace function divvy.reopen_shares(k divvy.task, p_options jsonb) returns bigint
language sql as $$
    with opened as (
        update divvy.share s set state = 'ready', key = nextval('divvy.key'), due_at = divvy.clock(), finished_at = null, reason = null,
            token = null, attempt_base = s.attempt, crashes = 0, error = null,
            max_attempts = coalesce((p_options ->> 'max_attempts')::int, s.max_attempts),
            checkpoint = case when (p_options ->> 'fresh')::boolean then null else s.checkpoint end
        where s.share_of = k.id
            and (s.state in ('failed', 'cancelled')
                or (s.state = 'skipped' and (s.reason = 'tolerance' or (p_options ->> 'skipped')::boolean)))
            and (p_options #> '{where,split_no}' is null or p_options #> '{where,split_no}' @> to_jsonb(s.split_no))
            and (p_options #>> '{where,error_class}' is null or s.error ->> 'class' = p_options #>> '{where,error_class}')
        returning s.id)
    select count(*) from opened
$$;

-- Changes an open task: payload while scheduled; priority, deadline_at, max_attempts, timeout, max_failed,
-- max_failed_percent and labels while open. Errors: DV003, DV004, DV010, DV011. Locks: the task, then its free splits.
create or replace function divvy.update_task(task_id bigint, options jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    k divvy.task;
    n divvy.task;
    v_ids bigint[];
    v_what text := format('task %s', task_id);
begin
    perform divvy.check_keys(options, array['payload', 'priority', 'deadline_at', 'max_attempts', 'timeout', 'max_failed', 'max_failed_percent',
        'labels', 'reason'], v_what);
    k := divvy.locked_task(update_task.task_id);
    if k.finished_at is not null or (options ? 'payload' and k.status <> 'scheduled') then
        raise exception using errcode = 'DV004', message = format('task %s is %s: %s', k.id, k.status,
            case when k.finished_at is null then 'its payload can change only while it is scheduled' else 'it has ended' end);
    end if;
    begin
        n := jsonb_populate_record(k, options - 'reason');
    exception when data_exception then
        perform divvy.bad_option(v_what, sqlerrm);
    end;
    n.splits := null; n.split_count := null; n.split_range := null; n.split_size := null;   -- not given here
    perform divvy.check_task(n, v_what);
    update divvy.task t set payload = n.payload, priority = n.priority, deadline_at = n.deadline_at, max_attempts = n.max_attempts, timeout = n.timeout,
        max_failed = n.max_failed, max_failed_percent = n.max_failed_percent, labels = n.labels, key = divvy.next_key(t.key < 0)
    where t.id = k.id;
    v_ids := divvy.take_waiting(k.id, p_unbegun => false);
    update divvy.share s set priority = n.priority, max_attempts = n.max_attempts, timeout = n.timeout, key = divvy.next_key(s.key < 0)
    where s.id = any (v_ids);
    perform divvy.move_stretches(k.id, n.priority);
    perform divvy.record('update_task', 'task', k.id::text, options ->> 'reason',
        (select jsonb_object_agg(o, to_jsonb(k) -> o) from jsonb_object_keys(options - 'reason') o), options - 'reason');
end $$;

-- Moves a waiting task, or what waits of it, to another moment or priority. Returns how many splits (a scheduled task: 1).
-- Errors: DV004 (nothing of it waits), DV010, DV011. Locks: the task, then its free splits.
create or replace function divvy.reschedule(task_id bigint, run_at timestamptz, priority int default null) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    v_now timestamptz := divvy.clock();
    k divvy.task;
    v_at timestamptz;
    v_moved bigint;
begin
    perform divvy.check_moment(reschedule.run_at, 'run_at', format('task %s', task_id));
    if reschedule.priority not between 1 and 4 then
        perform divvy.bad_option(format('task %s', task_id), format('priority is %s; it must be 1 (first) to 4', reschedule.priority));
    end if;
    k := divvy.locked_task(reschedule.task_id);
    v_at := coalesce(reschedule.run_at, v_now);
    v_moved := divvy.move_waiting(k, v_at, reschedule.priority, v_now);
    if v_moved = 0 then
        raise exception using errcode = 'DV004', message = format('task %s is %s: nothing of it waits', k.id, k.status);
    end if;
    perform divvy.record('reschedule', 'task', k.id::text, null, jsonb_build_object('run_at', k.run_at, 'priority', k.priority),
        jsonb_build_object('run_at', v_at, 'priority', reschedule.priority));
    perform divvy.wake(array[k.task_type]);
    return v_moved;
end $$;

-- Moves what waits of a task, which is locked; a paused split stays where it is. Returns how many moved.
create or replace function divvy.move_waiting(k divvy.task, p_at timestamptz, p_priority int, p_now timestamptz) returns bigint
language plpgsql set enable_seqscan = off set jit = off as $$
declare
    v_moved bigint;
    v_unbegun bigint := 0;
    v_ids bigint[];
begin
    if k.status = 'scheduled' then
        update divvy.task t set run_at = p_at, due_at = p_at, reason = case when p_at > p_now then 'run_at' else t.reason end,
            priority = coalesce(p_priority, t.priority) where t.id = k.id;
        return 1;
    end if;
    if p_at <= p_now and coalesce(k.paused_until <= p_now, true) then
        v_unbegun := divvy.move_stretches(k.id, p_priority);
    end if;
    v_ids := divvy.take_waiting(k.id, p_unbegun => p_at > p_now) || k.id;
    with moved as (
        update divvy.unit u set state = case when p_at > p_now then 'delayed' else 'ready' end::divvy.split_status, due_at = p_at,
            reason = case when p_at > p_now then 'run_at' end, key = divvy.next_key(p_at > p_now), priority = coalesce(p_priority, u.priority)
        where u.id = any (v_ids) and u.state in ('ready', 'delayed')
            and u.reason is distinct from 'paused'
        returning u.id)
    select count(*) into v_moved from moved;
    -- What comes of it later, too.
    update divvy.task t set priority = p_priority, key = divvy.next_key(t.key < 0) where t.id = k.id and t.priority <> p_priority;
    return v_moved + v_unbegun;
end $$;

-- Takes an execute split out of its task: reduce does not wait for it, and it counts neither as failed nor as done.
-- Errors: DV004 (a plan, a reduce, ended well, or being completed just now), DV011. Locks: the task; the split only if it is
-- free, since a batch that holds it may be waiting for the task.
create or replace function divvy.skip_split(split_id bigint, reason text default null) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_task bigint;
    u divvy.unit;
    k divvy.task;
begin
    select coalesce(x.share_of, x.id) into v_task from divvy.unit x where x.id = skip_split.split_id and x.state is not null;
    if not found then
        select r.share_of into v_task from divvy.rowless(skip_split.split_id) r;
    end if;
    if v_task is null then
        perform divvy.unknown('split', skip_split.split_id::text);
    end if;
    k := divvy.locked_task(v_task);
    perform divvy.write_out_one(skip_split.split_id);
    select * into u from divvy.unit x where x.id = skip_split.split_id;
    if not found then
        raise exception using errcode = 'DV004', message = format('split %s of task %s is %s: it can''t be skipped, or not just now', skip_split.split_id,
            k.id, (select r.state from divvy.rowless(skip_split.split_id) r));
    end if;
    perform from divvy.unit x where x.id = u.id for update skip locked;
    if not found then
        raise exception using errcode = 'DV004', message = format('split %s of task %s is being written by somebody else just now: try again',
            skip_split.split_id, k.id);
    end if;
    perform divvy.write_down(array[u.id]);
    select * into u from divvy.unit x where x.id = u.id;
    if k.finished_at is not null or u.phase <> 'execute' or u.state is null or u.state not in ('ready', 'delayed', 'running', 'failed') then
        raise exception using errcode = 'DV004', message = format('split %s of task %s is %s in phase %s, the task is %s: it can''t be skipped',
            u.id, k.id, u.state, u.phase, k.status);
    end if;
    perform divvy.record('skip_split', 'split', u.id::text, skip_split.reason, jsonb_build_object('status', u.state), null);
    if u.state = 'running' then
        insert into divvy.attempt (split_id, token, task_id, attempt, phase, worker, outcome, started_at, finished_at)
        values (u.id, u.token, k.id, u.attempt + 1, u.phase, u.worker, 'skipped', u.started_at, divvy.clock());
    end if;
    perform divvy.unstaged(u);
    perform divvy.drop_from_leases(array[u.token], array[u.id]);
    perform divvy.end_split(u, 'skipped', coalesce(skip_split.reason, 'skipped'), null, false);
end $$;

-- Deletes payloads, results, errors and logs of an ended task now, edits of its payload in the log of decisions included;
-- the rows and their history stay.
-- Errors: DV004 (open), DV011. Locks: the task, then its splits.
create or replace function divvy.forget(task_id bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    k divvy.task;
begin
    k := divvy.locked_task(forget.task_id);
    if k.finished_at is null then
        raise exception using errcode = 'DV004', message = format('task %s is %s: only an ended task can be forgotten', k.id, k.status);
    end if;
    update divvy.task t set payload = '{}', result = null, error = null, checkpoint = null, headers = null, splits = null where t.id = k.id;
    update divvy.share s set payload = null, result = null, error = null, checkpoint = null where s.share_of = k.id;
    delete from divvy.given g where g.share_of = k.id;
    update divvy.ended e set results = null where e.share_of = k.id and e.results is not null;
    delete from divvy.split_log l where l.split_id = k.id or l.split_id in (select s.id from divvy.share s where s.share_of = k.id);
    update divvy.attempt a set error = null where a.task_id = k.id;
    update divvy.event e set before = e.before - 'payload', after = e.after - 'payload'
    where e.object = 'task' and e.object_id = k.id::text and e.verb = 'update_task';
    perform divvy.record('forget', 'task', k.id::text, null, null, null);
end $$;

-- Orders a worker: run | quiet (claims no more) | terminate (stops gracefully). It hears it at its next heartbeat.
-- Errors: DV010, DV011. Locks: the worker's row.
create or replace function divvy.worker_command(worker uuid, command text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if command is null or command not in ('run', 'quiet', 'terminate') then
        perform divvy.bad_option(format('worker %s', worker), format('command is %L; it is run, quiet or terminate', command));
    end if;
    update divvy.worker w set command = worker_command.command where w.id = worker_command.worker;
    if not found then
        perform divvy.unknown('worker', worker_command.worker::text);
    end if;
    perform divvy.record('worker_command', 'worker', worker_command.worker::text, null, null, jsonb_build_object('command', command));
    perform divvy.wake_control('command');
end $$;
