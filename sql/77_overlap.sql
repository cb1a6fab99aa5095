-- A moment comes while the run before it is open: overlap says what becomes of it. What waits is a row of the ledger, and is
-- looked at when a run ends, when its own time comes, and once a minute.

-- Whether a moment may go now that the last run may be open. The row with look_at in the future, or an outcome, has its answer;
-- otherwise its task is made. The last run's row is never waited for.
create or replace function divvy.take_turn(s divvy.schedule, f divvy.schedule_fire, p_now timestamptz) returns divvy.schedule_fire
language plpgsql as $$
declare
    v_status divvy.task_status;
    v_open boolean;
    v_why text := format('task %s of an earlier moment is open', s.last_task_id);
    v_first timestamptz;
begin
    select t.status, t.finished_at is null into v_status, v_open from divvy.task t where t.id = s.last_task_id;
    f.look_at := null;
    f.outcome := null;
    if not coalesce(v_open, false) then
        if s.overlap = 'recover' and v_status in ('partial', 'failed') then
            return divvy.recover_run(s, f, p_now);
        end if;
        return f;
    elsif s.overlap in ('skip', 'recover') and not coalesce(f.made_up, false) then
        return divvy.decide_moment(f, 'skipped', null, v_why, p_now);
    elsif s.overlap = 'buffer_one' then
        select min(x.fire_at) into v_first from divvy.schedule_fire x
        where x.schedule_id = s.id and x.outcome = 'waiting' and x.kind = 'rule' and x.fire_at <> f.fire_at and not x.made_up;
        if v_first is not null and not coalesce(f.made_up, false) then
            return divvy.decide_moment(f, 'merged', null, format('into %s, which waits: %s', v_first, v_why), p_now);
        end if;
    elsif s.overlap = 'cancel_running' then
        return divvy.cancel_run(s, f, v_why, p_now);
    end if;
    return divvy.let_wait(f, p_now + interval '1 min', v_why, p_now);
end $$;

-- The row waits, and is looked at again at p_until at the latest. More than the limit of them are not kept.
create or replace function divvy.let_wait(f divvy.schedule_fire, p_until timestamptz, p_reason text, p_now timestamptz) returns divvy.schedule_fire
language plpgsql as $$
declare
    v_waiting bigint;
begin
    if f.kind = 'rule' and not exists (select from divvy.schedule_fire x where x.schedule_id = f.schedule_id and x.fire_at = f.fire_at and x.kind = f.kind) then
        select count(*) into v_waiting from divvy.schedule_fire x where x.schedule_id = f.schedule_id and x.outcome = 'waiting' and x.kind = 'rule';
        if v_waiting >= divvy.limit_of('waiting moments') then
            return divvy.decide_moment(f, 'skipped', null, format('%s moments wait already, which is the limit', v_waiting), p_now);
        end if;
    end if;
    f.not_before := coalesce(f.not_before, f.due_at, f.fire_at);
    f.look_at := p_until;
    return divvy.decide_moment(f, 'waiting', null, p_reason, p_now);
end $$;

-- The last run is told to stop; this moment waits for its end, and whatever waited before is merged into it.
create or replace function divvy.cancel_run(s divvy.schedule, f divvy.schedule_fire, p_why text, p_now timestamptz) returns divvy.schedule_fire
language plpgsql as $$
declare
    k divvy.task;
begin
    update divvy.schedule_fire x set outcome = 'merged', reason = format('into %s: %s', f.fire_at, p_why), at = p_now,
        late = greatest(p_now - coalesce(x.due_at, x.fire_at), interval '0'), look_at = null, not_before = null
    where x.schedule_id = s.id and x.outcome = 'waiting' and x.kind = 'rule' and x.fire_at < f.fire_at and x.not_before <= p_now;
    -- Somebody may be completing it: then its end is near, and is heard.
    perform from divvy.task t where t.id = s.last_task_id for update skip locked;
    if found then
        select * into k from divvy.task t where t.id = s.last_task_id;
        if k.cancel_requested_at is null then
            perform divvy.cancel(k.id, format('moment %s of schedule %s: overlap is cancel_running', f.fire_at, s.name));
        end if;
        if (select t.finished_at is not null from divvy.task t where t.id = k.id) then
            f.reason := format('task %s was cancelled for it', k.id);
            return f;
        end if;
    end if;
    return divvy.let_wait(f, p_now + interval '1 s', format('task %s is being cancelled for it', s.last_task_id), p_now);
end $$;

-- The last run ended without full success: what failed of it is tried again, instead of a new run.
create or replace function divvy.recover_run(s divvy.schedule, f divvy.schedule_fire, p_now timestamptz) returns divvy.schedule_fire
language plpgsql as $$
declare
    v_opened bigint;
begin
    perform from divvy.task t where t.id = s.last_task_id for update skip locked;
    if not found then
        return divvy.let_wait(f, p_now + interval '1 s', format('task %s is held by somebody', s.last_task_id), p_now);
    end if;
    v_opened := divvy.redrive(s.last_task_id, jsonb_build_object('reason', format('moment %s of schedule %s: overlap is recover', f.fire_at, s.name)));
    return divvy.decide_moment(f, 'fired', s.last_task_id, format('redrove %s splits of task %s instead of a new run', v_opened, s.last_task_id), p_now);
end $$;

create or replace function divvy.is_waited_for(p_schedule bigint) returns boolean
language plpgsql stable as $$
begin
    return exists (select from divvy.schedule_fire x where x.schedule_id = p_schedule and x.outcome = 'waiting');
end $$;

-- Moments of the rule that wait will not fire any more.
create or replace function divvy.skip_waiting(p_schedule bigint, p_reason text, p_now timestamptz, p_kinds text[] default '{rule}') returns void
language sql as $$
    update divvy.schedule_fire x set outcome = 'skipped', reason = p_reason, at = p_now, look_at = null, not_before = null,
        late = greatest(p_now - coalesce(x.due_at, x.fire_at), interval '0')
    where x.schedule_id = p_schedule and x.outcome = 'waiting' and x.kind = any (p_kinds)
$$;

-- The tasks of backfills that are open.
create or replace function divvy.open_backfills(s divvy.schedule) returns bigint[]
language plpgsql stable as $$
begin
    return array(select o from unnest(s.backfill_open) o join divvy.task t on t.id = any (array[o]) and t.finished_at is null order by 1);
end $$;

-- Moments of a schedule that wait go as far as they may, in order. s is locked.
create or replace function divvy.release_waiting(s divvy.schedule, p_now timestamptz) returns void
language plpgsql as $$
declare
    f divvy.schedule_fire;
    v_kind text;
begin
    if s.calendar is not null and s.next_fire_at <= p_now and s.status = 'active' then
        return;   -- what moves onto the same time is merged first
    end if;
    s.backfill_open := divvy.open_backfills(s);
    foreach v_kind in array '{rule,backfill}'::text[] loop
        for f in select * from divvy.schedule_fire x where x.schedule_id = s.id and x.outcome = 'waiting' and x.kind = v_kind and x.not_before <= p_now
            order by x.fire_at limit case v_kind when 'backfill' then s.backfill_max + 1 else divvy.limit_of('waiting moments') end
        loop
            f := divvy.try_fire(s, f, p_now);
            exit when f.outcome = 'waiting';
            if f.outcome = 'fired' then
                if v_kind = 'rule' then
                    s.runs := s.runs + 1;
                    s.last_task_id := f.task_id;
                else
                    s.backfill_open := s.backfill_open || f.task_id;
                end if;
            elsif s.anchor = 'previous_end' and v_kind = 'rule' then
                s.anchored_at := coalesce(s.anchored_at, p_now);   -- no run of it will end
            end if;
        end loop;
    end loop;
    update divvy.schedule_fire x set look_at = p_now + interval '1 min'
    where x.schedule_id = s.id and x.outcome = 'waiting' and x.look_at <= p_now;
    perform divvy.go_on(s, p_now);
end $$;

-- The schedules with a row that waits and is to be looked at. Returns how many they were.
create or replace function divvy.release_due(p_max int, p_now timestamptz) returns int
language plpgsql as $$
declare
    v_id bigint;
    s divvy.schedule;
    v_done int := 0;
begin
    for v_id in select distinct w.schedule_id from (select x.schedule_id from divvy.schedule_fire x where x.outcome = 'waiting' and x.look_at <= p_now
        order by x.look_at limit p_max) w
    loop
        select * into s from divvy.schedule d where d.id = v_id for update skip locked;
        continue when not found;
        if s.status in ('active', 'done') then
            perform divvy.release_waiting(s, p_now);
        else
            update divvy.schedule_fire x set look_at = 'infinity' where x.schedule_id = s.id and x.outcome = 'waiting' and x.look_at <= p_now;
        end if;
        v_done := v_done + 1;
    end loop;
    return v_done;
end $$;

-- A task of a schedule ended, in that transaction. Never waits for the schedule: who holds it reads the note.
create or replace function divvy.schedule_task_ended(k divvy.task) returns void
language plpgsql as $$
declare
    s divvy.schedule;
begin
    select * into s from divvy.schedule d where d.id = k.schedule_id;
    if k.status = 'succeeded' and s.stop_on_success and s.status in ('active', 'paused') then
        perform from divvy.schedule d where d.id = s.id for update skip locked;
        if found then
            select * into s from divvy.schedule d where d.id = k.schedule_id;
            perform divvy.stop_schedule(s, 'done', format('task %s succeeded', k.id), divvy.clock());
            return;
        end if;
    end if;
    if s.stop_on_success or s.pause_on_failure is not null or s.overlap in ('buffer_one', 'buffer_all', 'cancel_running') or s.anchor = 'previous_end'
            or s.catch_up = 'all' or s.backfill_open <> '{}' then
        insert into divvy.run_ended (schedule_id, task_id, status, at) values (s.id, k.id, k.status, k.finished_at);
    end if;
end $$;

-- The notes of ended runs. Returns how many they were.
create or replace function divvy.hear_ended(p_max int, p_now timestamptz) returns int
language plpgsql as $$
declare
    n divvy.run_ended;
    s divvy.schedule;
    v_done int := 0;
begin
    for n in select * from divvy.run_ended r order by r.id limit p_max for update skip locked loop
        select * into s from divvy.schedule d where d.id = n.schedule_id for update skip locked;
        continue when not found and exists (select from divvy.schedule d where d.id = n.schedule_id);   -- busy: the next pass
        delete from divvy.run_ended r where r.id = n.id;
        if s.status in ('active', 'paused') then
            s := divvy.hear_end(s, n, p_now);
        end if;
        if s.status in ('active', 'done') and divvy.is_waited_for(s.id) then
            perform divvy.release_waiting(s, p_now);
        end if;
        v_done := v_done + 1;
    end loop;
    return v_done;
end $$;

-- What the end of one run means for its schedule, which is locked: the schedule as it is then.
create or replace function divvy.hear_end(s divvy.schedule, n divvy.run_ended, p_now timestamptz) returns divvy.schedule
language plpgsql as $$
declare
    v_why text;
begin
    if n.status = 'succeeded' and s.stop_on_success then
        perform divvy.stop_schedule(s, 'done', format('task %s succeeded', n.task_id), p_now);
    else
        s.failures := case n.status when 'failed' then s.failures + 1 when 'cancelled' then s.failures else 0 end;
        if s.anchor = 'previous_end' and n.task_id = s.last_task_id and s.anchored_at is null then
            s.anchored_at := n.at;
        end if;
        perform divvy.go_on(s, p_now);
        if s.failures >= s.pause_on_failure and s.status = 'active' then
            v_why := format('%s runs in a row failed, the last was task %s', s.failures, n.task_id);
            update divvy.schedule d set status = 'paused', paused_until = null, paused_at = p_now, reason = v_why, pause_reason = v_why
            where d.id = s.id and d.status = 'active';
            if found then
                perform divvy.record('pause_schedule', 'schedule', s.name, v_why, null, jsonb_build_object('failures', s.failures));
            end if;
        end if;
    end if;
    select * into s from divvy.schedule d where d.id = s.id;
    return s;
end $$;
