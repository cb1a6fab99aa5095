-- People pause types and tasks, and resume them. What is ready of a paused type stays ready in storage, and nobody claims it;
-- what is ready of a paused task is delayed.

-- Pauses a type: nothing of it is claimed in any phase until `until` (null: until resumed); running splits finish, and
-- time goes on for what waits. Errors: DV010, DV011. Locks: the type's row.
create or replace function divvy.pause(task_type text, until timestamptz default null, reason text default null) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform divvy.check_moment(until, 'until', format('type %s', task_type));
    update divvy.task_type t set paused_until = coalesce(until, 'infinity'), pause_reason = pause.reason where t.name = pause.task_type;
    if not found then
        perform divvy.unknown('type', pause.task_type);
    end if;
    perform divvy.record('pause', 'type', pause.task_type, pause.reason, null, jsonb_build_object('until', until));
    perform divvy.wake_control('pause');
end $$;

-- Ends the pause of a type. Errors: DV011. Locks: the type's row.
create or replace function divvy.resume(task_type text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update divvy.task_type t set paused_until = null, pause_reason = null where t.name = resume.task_type;
    if not found then
        perform divvy.unknown('type', resume.task_type);
    end if;
    perform divvy.record('resume', 'type', resume.task_type, null, null, null);
    perform divvy.wake(array[resume.task_type]);
end $$;

-- Pauses a task: its ready splits become delayed, running ones finish. Errors: DV004 (ended), DV010, DV011.
-- Locks: the task, then its free splits.
create or replace function divvy.pause_task(task_id bigint, until timestamptz default null, reason text default null) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    k divvy.task;
begin
    perform divvy.check_moment(until, 'until', format('task %s', task_id));
    k := divvy.locked_task(pause_task.task_id);
    if k.finished_at is not null then
        raise exception using errcode = 'DV004', message = format('task %s is %s: it has ended', k.id, k.status);
    end if;
    update divvy.task t set paused_until = coalesce(until, 'infinity'), pause_reason = pause_task.reason where t.id = k.id;
    perform divvy.hold_if_paused(k.id, coalesce(until, 'infinity'));
    perform divvy.record('pause_task', 'task', k.id::text, pause_task.reason, null, jsonb_build_object('until', until));
end $$;

-- Delays what is ready of a paused task. Splits under a claim that is not committed are met by the next promotion sweep.
create or replace function divvy.hold_if_paused(p_task bigint, p_until timestamptz) returns void
language plpgsql set enable_seqscan = off set jit = off as $$
declare
    v_ids bigint[];
begin
    if p_until > divvy.clock() then
        v_ids := array(select t.id from divvy.task t where t.id = p_task and t.state = 'ready' for update skip locked);
        perform divvy.write_down(v_ids), divvy.hold_stretches(p_task);
        v_ids := v_ids || divvy.take_waiting(p_task, p_delayed => false, p_unbegun => false);
        update divvy.unit u set state = 'delayed', key = -u.key, due_at = p_until, reason = 'paused'
        where u.id = any (v_ids) and u.state = 'ready';
    end if;
end $$;

-- Ends the pause of a task: what it held is ready again, behind what came meanwhile. Errors: DV011. Locks: the task, then its splits.
create or replace function divvy.resume_task(task_id bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    k divvy.task;
begin
    k := divvy.locked_task(resume_task.task_id);
    update divvy.task t set paused_until = null, pause_reason = null where t.id = k.id;
    update divvy.unit u set state = 'ready', key = nextval('divvy.key'), due_at = divvy.clock(), reason = null
    where u.id = any (array(
            select x.id from divvy.share x where x.share_of = k.id and x.state = 'delayed' and x.reason = 'paused' order by x.id + 0 for update skip locked) || k.id)
        and u.state = 'delayed' and u.reason = 'paused';
    perform divvy.release_stretches(array[k.id]);
    perform divvy.record('resume_task', 'task', k.id::text, null, null, null);
    perform divvy.wake(array[k.task_type]);
end $$;
