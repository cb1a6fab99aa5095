-- When the last split of a task has ended: reduce, or the end.

-- Looks at divided tasks after splits of them ended. What can be decided now is decided; of the rest a note is
-- left for divvy.settle, since the ends of two last splits may not see each other. A task that can't be settled (say, what
-- it sets off is refused) keeps no split from ending: all of the call get a note, and settle looks at each by itself.
create or replace function divvy.look_at(p_tasks bigint[]) returns void
language plpgsql as $$
declare
    v_task bigint;
begin
    if p_tasks is null then
        return;
    end if;
    begin
        foreach v_task in array p_tasks loop
            if not divvy.settle_task(v_task) then
                insert into divvy.fan_in (task_id) values (v_task);
            end if;
        end loop;
    exception when others then
        insert into divvy.fan_in (task_id) select t from unnest(p_tasks) t;
    end;
end $$;

-- Decides one divided task, if no split of it is open: the one place that opens a reduce. False when it is not
-- over yet, or somebody holds its row; true also when there is nothing to decide any more.
-- Two statements on purpose: what is looked at must be newer than the lock.
create or replace function divvy.settle_task(p_task bigint) returns boolean
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
declare
    k divvy.task;
    v_failed bigint;
    v_verdict text;
begin
    if divvy.has_open_split(p_task) and not divvy.to_be_broken(p_task) then
        return false;   -- the usual answer, without touching the task's row
    end if;
    select * into k from divvy.task t where t.id = p_task for update skip locked;
    if not found then
        return not exists (select from divvy.task t where t.id = p_task);
    end if;
    if k.status <> 'running' or k.phase is not null then
        return true;
    end if;
    select count(*) into v_failed from divvy.share s where s.unsuccessful = p_task and s.state = 'failed';
    v_verdict := divvy.verdict(k, v_failed);
    if v_failed > 0 and v_verdict = 'broken' then
        perform divvy.skip_unclaimed(k);
    end if;
    if divvy.has_open_split(p_task) then
        return false;
    end if;
    perform divvy.conclude(k, v_failed, v_verdict);
    return true;
end $$;

-- Failures beyond the tolerance, and splits that need not be started because of it.
create or replace function divvy.to_be_broken(p_task bigint) returns boolean
language plpgsql stable as $$
declare
    k divvy.task;
    v_failed bigint;
begin
    select count(*) into v_failed from divvy.share s where s.unsuccessful = p_task and s.state = 'failed';
    if v_failed = 0 then
        return false;
    end if;
    select * into k from divvy.task t where t.id = p_task;
    return divvy.verdict(k, v_failed) = 'broken' and divvy.reduce_rule(k) <> 'always'
        and (divvy.has_unbegun(p_task) or exists (select from divvy.share s where s.share_of = p_task and s.state in ('ready', 'delayed')));
end $$;

-- The open split that the session saw last is looked at first. Splits are claimed in order, so where it has ended another is
-- most likely near the end: the scan starts there. (Not as EXISTS, from which the planner would drop the order.)
create or replace function divvy.has_open_split(p_task bigint) returns boolean
language plpgsql as $$
declare
    v_seen bigint[] := string_to_array(nullif(current_setting('divvy.open_split', true), ''), ' ');   -- task, split_no
    v_no int;
begin
    if divvy.has_unbegun(p_task) or divvy.has_rowless(p_task) then
        return true;
    end if;
    if v_seen[1] = p_task and exists (select from divvy.share s where s.share_of = p_task and s.split_no = v_seen[2]
            and s.state in ('delayed', 'ready', 'running')) then
        return true;
    end if;
    select s.split_no into v_no from divvy.share s where s.share_of = p_task and s.state in ('delayed', 'ready', 'running')
    order by s.split_no desc limit 1;
    if v_no is null then
        return false;
    end if;
    perform set_config('divvy.open_split', p_task || ' ' || v_no, false);
    return true;
end $$;

-- What failures mean for the task: whole | tolerated | broken. Without max_failed and max_failed_percent none is
-- tolerated; either one breaks the tolerance.
create or replace function divvy.verdict(k divvy.task, p_failed bigint) returns text
language sql stable as $$
    select case
        when p_failed = 0 then 'whole'
        when f.n is null and f.percent is null then 'broken'
        when p_failed > f.n or p_failed * 100.0 > f.percent * greatest(k.split_count, 1) then 'broken'
        else 'tolerated' end
    from divvy.task_type t,
        lateral (select
            case when k.max_failed is null and k.max_failed_percent is null then t.max_failed else k.max_failed end as n,
            case when k.max_failed is null and k.max_failed_percent is null then t.max_failed_percent else k.max_failed_percent end as percent) f
    where t.name = k.task_type
$$;

create or replace function divvy.reduce_rule(k divvy.task) returns text
language sql stable as $$
    select coalesce(k.reduce_on, t.reduce_on) from divvy.task_type t where t.name = k.task_type
$$;

-- The tolerance broke: what nobody has claimed is not started any more, unless the reduce wants all.
create or replace function divvy.skip_unclaimed(k divvy.task) returns void
language plpgsql as $$
declare
    v_ids bigint[];
begin
    if divvy.reduce_rule(k) <> 'always' then
        perform divvy.drop_unbegun(k.id, 'skipped', 'tolerance', divvy.clock());
        v_ids := divvy.take_waiting(k.id, p_unbegun => false);
        update divvy.share s set state = 'skipped', key = abs(s.key), reason = 'tolerance', finished_at = divvy.clock()
        where s.id = any (v_ids);
    end if;
end $$;

-- All splits have ended: the table of reduce_on in the contract, section 2.
create or replace function divvy.conclude(k divvy.task, p_failed bigint, p_verdict text) returns void
language plpgsql as $$
declare
    v_rule text := divvy.reduce_rule(k);
    v_reduces boolean;
begin
    if k.cancel_requested_at is not null then
        perform divvy.end_task(k.id, divvy.cancelled_as(k), null, null);
        return;
    end if;
    v_reduces := case p_verdict when 'whole' then true when 'tolerated' then v_rule <> 'success' else v_rule = 'always' end;
    if not v_reduces then
        perform divvy.end_task(k.id, 'failed', null, divvy.splits_error(k.id, p_failed));
    elsif k.reduces then
        update divvy.task t set status = 'reducing', phase = 'reduce', state = 'ready', split_no = 0, key = nextval('divvy.key'),
            due_at = divvy.clock(), token = null, worker = null, attempt = 0, attempt_base = 0, crashes = 0, continuation = 0,
            checkpoint = null, progress = null, reason = null, error = null, started_at = null
        where t.id = k.id;
        perform divvy.hold_if_paused(k.id, k.paused_until);
        perform divvy.wake(array[k.task_type]);
    else
        perform divvy.end_task(k.id, divvy.reduced_as(p_verdict), null, case when p_failed > 0 then divvy.splits_error(k.id, p_failed) end);
    end if;
end $$;

create or replace function divvy.reduced_as(p_verdict text) returns divvy.task_status
language sql immutable as $$
    select case p_verdict when 'whole' then 'succeeded' when 'tolerated' then 'partial' else 'failed' end::divvy.task_status
$$;

-- A task past its deadline ends failed, one that somebody cancelled ends cancelled.
create or replace function divvy.cancelled_as(k divvy.task) returns divvy.task_status
language sql immutable as $$
    select case when k.cancel_reason = 'deadline' then 'failed' else 'cancelled' end::divvy.task_status
$$;

create or replace function divvy.splits_error(p_task bigint, p_failed bigint) returns jsonb
language sql stable as $$
    select jsonb_build_object('class', 'splits', 'message', format('%s of its splits failed', p_failed), 'failed', p_failed, 'first',
        (select s.error from divvy.share s where s.unsuccessful = p_task and s.state = 'failed' order by s.split_no limit 1))
$$;

-- The reduce completes, unless somebody cancelled first. k is locked. False: it does not count.
create or replace function divvy.finish_reduce(k divvy.task, p_result jsonb, p_now timestamptz) returns boolean
language plpgsql as $$
declare
    v_failed bigint;
begin
    if k.cancel_requested_at is not null then
        update divvy.task t set state = 'cancelled', reason = coalesce(t.reason, 'cancelled') where t.id = k.id;
        perform divvy.end_task(k.id, divvy.cancelled_as(k), null, null);
        return false;
    end if;
    select count(*) into v_failed from divvy.share s where s.unsuccessful = k.id and s.state = 'failed';
    update divvy.task t set state = 'succeeded', attempt = t.attempt + 1, crashes = 0, error = null where t.id = k.id;
    perform divvy.end_task(k.id, divvy.reduced_as(divvy.verdict(k, v_failed)), p_result,
        case when v_failed > 0 then divvy.splits_error(k.id, v_failed) end);
    return true;
end $$;

-- Ends a task, in the transaction of what ended it, with what follows from it.
create or replace function divvy.end_task(p_task bigint, p_status divvy.task_status, p_result jsonb, p_error jsonb) returns void
language plpgsql as $$
begin
    update divvy.task t set status = p_status, finished_at = divvy.clock(), result = p_result,
        error = case when t.cancel_reason = 'deadline' and p_status = 'failed'
            then jsonb_build_object('class', 'deadline', 'message', format('its deadline was %s', t.deadline_at))
            else coalesce(p_error, t.error) end,
        paused_until = null, dedupe_held = t.dedupe_key is null or t.dedupe_until is not null, key = abs(t.key),
        watched = t.phase is not null and num_nonnulls(t.deadline_at, t.cancel_requested_at) = 0
    where t.id = p_task and t.finished_at is null;
    if found then
        perform divvy.follow(p_task);
    end if;
end $$;

-- What an ended task sets off: its `then`, or its type's, and the rest of a stepped schedule that wanted one success.
create or replace function divvy.follow(p_task bigint) returns void
language plpgsql as $$
declare
    k divvy.task;
    v_template jsonb;
    v_next divvy.task;
begin
    select * into k from divvy.task t where t.id = p_task;
    select coalesce(k."then", t."then") -> k.status::text into v_template from divvy.task_type t where t.name = k.task_type;
    for v_template in
        select x from jsonb_array_elements(case jsonb_typeof(v_template) when 'array' then v_template when 'object' then jsonb_build_array(v_template)
            else '[]' end) x
    loop
        v_next := divvy.task_from_options(v_template ->> 'task_type', null, v_template - array['task_type', 'payload'], format('then of task %s', k.id));
        v_next.payload := divvy.told_payload(v_template, k.id, k.status::text, k.result, false);
        if pg_column_size(v_next.payload) >= 3000 and octet_length(v_next.payload::text) > divvy.limit_of('payload') then
            v_next.payload := divvy.told_payload(v_template, k.id, k.status::text, null, true);   -- task_result(parent) has it
        end if;
        v_next.headers := coalesce(v_next.headers, k.headers);
        v_next.parent_task_id := k.id;
        perform divvy.insert_task(v_next);
    end loop;
    if k.schedule_id is not null then
        perform divvy.schedule_task_ended(k);
    end if;
end $$;

-- The reduce check: looks at the tasks of which a note was left, and sweeps p_max divided tasks besides. A task that can't be
-- settled does not keep others from it: its error is an event, once an hour, and it is looked at again. Returns how many
-- were settled.
create or replace function divvy.settle(max int default 500) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
    v_task bigint;
    v_settled int := 0;
    v_noted bigint[];
begin
    with taken as (
        delete from divvy.fan_in f where f.id = any (array(select n.id from divvy.fan_in n order by n.id limit settle.max for update skip locked))
        returning f.task_id)
    select array_agg(distinct task_id) into v_noted from taken;
    for v_task in
        select t.id from divvy.task t where t.id = any (v_noted) and t.status = 'running' and t.phase is null
        union
        (select t.id from divvy.task t where t.key > divvy.sweep_from() and t.key > 0 and t.phase is null and t.watched order by t.key limit settle.max)
    loop
        begin
            if divvy.settle_task(v_task) then
                v_settled := v_settled + 1;
            elsif v_task = any (v_noted) and not divvy.has_open_split(v_task) then
                insert into divvy.fan_in (task_id) values (v_task);   -- somebody holds its row: the note stays
            end if;
        exception when others then
            if not exists (select from divvy.event e where e.object = 'task' and e.object_id = v_task::text and e.verb = 'settle'
                    and e.at > divvy.clock() - interval '1 hour') then
                perform divvy.record('settle', 'task', v_task::text, sqlerrm, null, jsonb_build_object('sqlstate', sqlstate));
            end if;
        end;
    end loop;
    perform divvy.sweep_on(settle.max);
    return v_settled;
end $$;

-- Where the sweep over divided tasks goes on: from here, round and round, in the session's memory.
create or replace function divvy.sweep_from() returns bigint
language sql stable as $$
    select coalesce(nullif(current_setting('divvy.sweep', true), ''), '0')::bigint
$$;

create or replace function divvy.sweep_on(p_max int) returns void
language sql as $$
    select set_config('divvy.sweep', coalesce((
        select t.key from divvy.task t where t.key > divvy.sweep_from() and t.key > 0 and t.phase is null and t.watched
        order by t.key offset greatest(p_max - 1, 0) limit 1), 0)::text, false)
$$;
