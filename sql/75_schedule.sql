-- Schedules make tasks. A moment is decided once: its ledger row and fired_through are written in the transaction of its
-- task, so it fires at most once, whoever leads and however many lead.

create or replace function divvy.bad_schedule(p_what text, p_problem text) returns void
language plpgsql immutable as $$
begin
    raise exception using errcode = 'DV012', message = format('%s: %s', p_what, p_problem);
end $$;

-- Before an INSERT: the shape is checked, the first moment is found. What only the cron parser can say comes later.
create or replace function divvy.schedule_inserted() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_what text;
begin
    new.name := coalesce(new.name, new.task_type || '-' || new.id);
    v_what := format('schedule %s', left(new.name, 120));
    perform divvy.check_schedule(new, v_what);
    if exists (select from divvy.schedule s where s.name = new.name and s.status in ('active', 'paused', 'refused')) then
        perform divvy.bad_schedule(v_what, format('name %L is taken by another schedule that has not ended', new.name));
    end if;
    new.planned_from := greatest(new.created_at, new.starts_at - interval '1 microsecond');
    new.next_fire_at := divvy.next_moment(new, new.planned_from);
    if new.next_fire_at is null and new.cron is null then
        perform divvy.bad_schedule(v_what, format('no moment of it lies between starts_at %s and ends_at %s',
            coalesce(new.starts_at::text, 'null'), coalesce(new.ends_at::text, 'null')));
    end if;
    return new;
end $$;

create or replace trigger schedule_inserted before insert on divvy.schedule
    for each row execute function divvy.schedule_inserted();

create or replace function divvy.check_schedule(s divvy.schedule, p_what text) returns void
language plpgsql as $$
declare
    v_step interval;
    v_before interval;
begin
    if num_nonnulls(s.steps, s.run_at, s.cron, s.every) <> 1 then
        perform divvy.bad_schedule(p_what, format('give exactly one of steps, run_at, cron and every, not %s', num_nonnulls(s.steps, s.run_at, s.cron, s.every)));
    end if;
    if s.steps is not null then
        if coalesce(cardinality(s.steps), 0) not between 1 and divvy.limit_of('steps') then
            perform divvy.bad_schedule(p_what, format('steps has %s offsets; it must be 1 to %s', coalesce(cardinality(s.steps), 0), divvy.limit_of('steps')));
        end if;
        foreach v_step in array s.steps loop
            if v_step is null or v_step < interval '0' or v_step > interval '10 years' then
                perform divvy.bad_schedule(p_what, format('steps has the offset %s; it must be 0 to 10 years', coalesce(v_step::text, 'null')));
            elsif v_step <= v_before then
                perform divvy.bad_schedule(p_what, format('steps has %s after %s; offsets must grow', v_step, v_before));
            end if;
            v_before := v_step;
        end loop;
    end if;
    if s.every is not null and (s.every < interval '1 s' or s.every > interval '10 years') then
        perform divvy.bad_schedule(p_what, format('every is %s; it must be 1 s to 10 years', s.every));
    end if;
    -- Several expressions are separated by semicolons; @daily and the like stand for the fields.
    if s.cron is not null and (octet_length(s.cron) > 1000 or s.cron !~ '^[0-9A-Za-z*/,?#@; -]+$'
            or exists (select from regexp_split_to_table(s.cron, ';') e
                where e !~ '^\s*@' and cardinality(regexp_split_to_array(btrim(e), '\s+')) not between 5 and 7)) then
        perform divvy.bad_schedule(p_what, format('cron is %L; it must be 5, 6 or 7 fields, or @daily and the like', left(s.cron, 120)));
    end if;
    if not exists (select from pg_timezone_names z where z.name = s.timezone) then
        perform divvy.bad_schedule(p_what, format('timezone is %L; it must be an IANA name such as Europe/Berlin', left(s.timezone, 60)));
    end if;
    perform divvy.check_schedule_policy(s, p_what);
    perform divvy.check_task(divvy.task_of_schedule(s), p_what);
end $$;

create or replace function divvy.check_schedule_policy(s divvy.schedule, p_what text) returns void
language plpgsql as $$
begin
    if s.overlap not in ('allow', 'skip') then
        perform divvy.bad_schedule(p_what, format('overlap is %L; this version knows allow and skip', s.overlap));
    elsif s.catch_up <> 'latest' then
        perform divvy.bad_schedule(p_what, format('catch_up is %L; this version knows latest', s.catch_up));
    elsif s.dst_gap not in ('shift', 'skip') then
        perform divvy.bad_schedule(p_what, format('dst_gap is %L; it is shift or skip', s.dst_gap));
    elsif s.dst_fold not in ('first', 'last', 'both') then
        perform divvy.bad_schedule(p_what, format('dst_fold is %L; it is first, last or both', s.dst_fold));
    elsif s.jitter is not null or s.pause_on_failure is not null then
        perform divvy.bad_schedule(p_what, 'jitter and pause_on_failure are not in this version yet');
    elsif s.max_runs < 1 then
        perform divvy.bad_schedule(p_what, format('max_runs is %s; it must be positive', s.max_runs));
    elsif s.ends_at <= s.starts_at then
        perform divvy.bad_schedule(p_what, format('ends_at %s is not after starts_at %s', s.ends_at, s.starts_at));
    end if;
    perform divvy.check_name(s.name, p_what);
    perform divvy.check_moment(s.run_at, 'run_at', p_what);
    perform divvy.check_moment(s.starts_at, 'starts_at', p_what);
    perform divvy.check_moment(s.ends_at, 'ends_at', p_what);
exception when sqlstate 'DV010' then
    raise exception using errcode = 'DV012', message = sqlerrm;
end $$;

-- The task that a fire makes.
create or replace function divvy.task_of_schedule(s divvy.schedule) returns divvy.task
language plpgsql stable as $$
declare
    k divvy.task;
begin
    k.task_type := s.task_type;
    k.payload := s.payload;
    k.priority := s.priority;
    k.dedupe_key := s.dedupe_key;
    k.group_key := s.group_key;
    k.labels := s.labels;
    k.headers := s.headers;
    k.splits := s.splits;
    k.split_count := s.split_count;
    k.split_range := s.split_range;
    k.split_size := s.split_size;
    k.max_attempts := s.max_attempts;
    k.timeout := s.timeout;
    k.max_failed := s.max_failed;
    k.max_failed_percent := s.max_failed_percent;
    k.reduce_on := s.reduce_on;
    k."then" := s."then";
    k.schedule_id := s.id;
    return k;
end $$;

-- The first beat of a fixed rate after p_after; the beats are anchored, so none drifts. A month counts as 30 days.
create or replace function divvy.next_beat(p_every interval, p_anchor timestamptz, p_after timestamptz) returns timestamptz
language sql immutable as $$
    select p_anchor + make_interval(secs => extract(epoch from p_every)
        * greatest(1, floor(extract(epoch from p_after - p_anchor) / extract(epoch from p_every)) + 1))
$$;

-- The first moment after p_after, of the kinds that SQL can compute; null: there is none, or cron has to say.
create or replace function divvy.next_moment(s divvy.schedule, p_after timestamptz) returns timestamptz
language plpgsql stable as $$
declare
    v_at timestamptz;
begin
    if s.steps is not null then
        select min(s.created_at + o) into v_at from unnest(s.steps) o
        -- an offset of zero is due at creation, where nothing was decided yet
        where s.created_at + o > p_after or (s.created_at + o = p_after and s.fired_through is null and s.runs = 0);
    elsif s.run_at is not null and s.fired_through is null then
        v_at := s.run_at;
    elsif s.every is not null then
        v_at := divvy.next_beat(s.every, coalesce(s.starts_at, s.created_at), p_after);
    end if;
    return case when (s.ends_at is null or v_at < s.ends_at) and (s.starts_at is null or v_at >= s.starts_at) then v_at end;
end $$;

-- Fires every schedule whose moment has come: a ledger row and a task for the latest due moment, ledger rows for the missed
-- ones before it. A schedule that can't fire (say, a payload its type refuses) does not keep others from it. Returns how many fired.
create or replace function divvy.fire_due(max int default 500) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_now timestamptz := divvy.clock();
    s divvy.schedule;
    v_fired int := 0;
begin
    update divvy.schedule p set status = 'active', paused_until = null, reason = null
    where p.id = any (array(select d.id from divvy.schedule d where d.status = 'paused' and d.paused_until <= v_now for update skip locked));
    for s in select * from divvy.schedule d where d.status = 'active' and d.next_fire_at <= v_now
        order by d.next_fire_at limit fire_due.max for update skip locked
    loop
        begin
            v_fired := v_fired + divvy.fire_schedule(s, v_now)::int;
        exception when others then
            perform divvy.record('fire', 'schedule', s.name, sqlerrm, null, jsonb_build_object('sqlstate', sqlstate));
            perform divvy.decide_moment(s, s.next_fire_at, 'skipped', null, sqlerrm, v_now);
            perform divvy.advance_schedule(s, s.next_fire_at, 0, null);
        end;
    end loop;
    return v_fired;
end $$;

-- One schedule, locked and due. True when a task was made.
create or replace function divvy.fire_schedule(s divvy.schedule, p_now timestamptz) returns boolean
language plpgsql as $$
declare
    v_at timestamptz := s.next_fire_at;
    v_next timestamptz;
    v_missed int := 0;
    v_stretch timestamptz;   -- the hundredth missed moment: its row counts for all after it
    v_every interval := make_interval(secs => extract(epoch from s.every)::double precision);   -- as next_beat sees it
    v_task bigint;
begin
    -- A cron moment that was planned ahead and is overdue now: later ones may be due too, which only the planner can say.
    if s.cron is not null and s.planned_at < v_at and v_at < p_now - interval '1 s' then
        update divvy.schedule d set next_fire_at = null where d.id = s.id;
        return false;
    end if;
    s.fired_through := v_at;
    v_next := divvy.next_moment(s, v_at);
    -- Catch up with the latest: what is due before it was missed while nobody looked.
    while v_next <= p_now loop
        v_missed := v_missed + 1;
        if v_missed <= 100 then
            perform divvy.decide_moment(s, v_at, 'missed', null, 'nobody was there to fire it', p_now);
            v_stretch := v_at;
        end if;
        if v_every is not null and v_missed = 100 then   -- straight to the last beat that is due
            v_at := divvy.next_beat(s.every, coalesce(s.starts_at, s.created_at),
                least(p_now, s.ends_at - interval '1 microsecond') - v_every);
            v_missed := 99 + round(extract(epoch from v_at - v_stretch) / extract(epoch from v_every))::int;
        else
            v_at := v_next;
        end if;
        s.fired_through := v_at;
        v_next := divvy.next_moment(s, v_at);
    end loop;
    if v_missed > 100 then
        update divvy.schedule_fire f set count = v_missed - 99
        where f.schedule_id = s.id and f.kind = 'rule' and f.fire_at = v_stretch;
    end if;
    v_task := divvy.make_fire(s, v_at, 'rule', p_now);
    perform divvy.advance_schedule(s, v_at, (v_task is not null)::int, v_task);
    return v_task is not null;
end $$;

-- Makes the task of a moment, unless the last one is open and overlap says skip. Null when none was made.
create or replace function divvy.make_fire(s divvy.schedule, p_at timestamptz, p_kind text, p_now timestamptz) returns bigint
language plpgsql as $$
declare
    k divvy.task;
    v_task bigint;
begin
    if exists (select from divvy.schedule_fire f where f.schedule_id = s.id and f.fire_at = p_at and f.kind = p_kind) then
        return null;
    end if;
    if p_kind = 'rule' and s.overlap = 'skip' and exists (select from divvy.task t where t.id = s.last_task_id and t.finished_at is null) then
        perform divvy.decide_moment(s, p_at, 'skipped', null, format('task %s of an earlier moment is open', s.last_task_id), p_now);
        return null;
    end if;
    k := divvy.task_of_schedule(s);
    k.scheduled_for := p_at;
    v_task := divvy.insert_task(k);
    if v_task is null then
        perform divvy.decide_moment(s, p_at, 'skipped', null, format('dedupe_key %L is held', s.dedupe_key), p_now, p_kind);
    else
        perform divvy.decide_moment(s, p_at, 'fired', v_task, null, p_now, p_kind);
    end if;
    return v_task;
end $$;

create or replace function divvy.decide_moment(s divvy.schedule, p_at timestamptz, p_outcome text, p_task bigint, p_reason text, p_now timestamptz,
    p_kind text default 'rule') returns void
language plpgsql as $$
begin
    insert into divvy.schedule_fire (schedule_id, fire_at, kind, outcome, task_id, reason, late, at)
    values (s.id, p_at, p_kind, p_outcome, p_task, p_reason, greatest(p_now - p_at, interval '0'), p_now)
    on conflict do nothing;
end $$;

-- The schedule goes on to its next moment; without one it is done. Cron waits for its planner.
create or replace function divvy.advance_schedule(s divvy.schedule, p_at timestamptz, p_runs int, p_task bigint) returns void
language plpgsql as $$
declare
    v_next timestamptz;
    v_over boolean;
begin
    s.fired_through := p_at;
    v_next := divvy.next_moment(s, p_at);
    v_over := coalesce(s.runs + p_runs >= s.max_runs, false) or (v_next is null and s.cron is null);
    update divvy.schedule d set fired_through = greatest(d.fired_through, p_at), planned_from = greatest(d.planned_from, p_at), runs = d.runs + p_runs,
        last_task_id = coalesce(p_task, d.last_task_id), next_fire_at = case when v_over then null else v_next end,
        status = case when v_over then 'done' else d.status end
    where d.id = s.id;
end $$;

-- A task of a schedule ended: one success may be all that was wanted.
create or replace function divvy.schedule_task_ended(k divvy.task) returns void
language plpgsql as $$
begin
    if k.status = 'succeeded' then
        update divvy.schedule d set status = 'done', next_fire_at = null, reason = format('task %s succeeded', k.id)
        where d.id = k.schedule_id and d.stop_on_success and d.status in ('active', 'paused');
    end if;
end $$;

-- Cron schedules that wait for their next moment to be computed. planned_from is the last decided one.
create or replace function divvy.schedules_to_plan(max int default 500)
returns table (schedule_id bigint, name text, cron text, timezone text, dst_gap text, dst_fold text, planned_from timestamptz,
    ends_at timestamptz, server_now timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select s.id, s.name, s.cron, s.timezone, s.dst_gap, s.dst_fold, s.planned_from, s.ends_at, divvy.clock()
    from divvy.schedule s
    where s.status = 'active' and s.cron is not null and s.next_fire_at is null
    order by s.id limit schedules_to_plan.max
$$;

-- The planner says the next moment after planned_from, and which were missed before it; null: there is none any more.
-- False when somebody else planned meanwhile. Errors: DV011. Locks: the schedule.
create or replace function divvy.plan_schedule(schedule_id bigint, planned_from timestamptz, next_fire_at timestamptz, missed timestamptz[] default '{}')
returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
    v_at timestamptz;
begin
    select * into s from divvy.schedule d where d.id = plan_schedule.schedule_id for update;
    if not found then
        perform divvy.unknown('schedule', plan_schedule.schedule_id::text);
    end if;
    if s.status <> 'active' or s.next_fire_at is not null or s.planned_from is distinct from plan_schedule.planned_from then
        return false;
    end if;
    foreach v_at in array missed loop
        perform divvy.decide_moment(s, v_at, 'missed', null, 'nobody was there to fire it', divvy.clock());
    end loop;
    update divvy.schedule d set next_fire_at = plan_schedule.next_fire_at, planned_at = divvy.clock(),
        status = case when plan_schedule.next_fire_at is null then 'done' else d.status end,
        reason = case when plan_schedule.next_fire_at is null then 'no moment is left' end
    where d.id = s.id;
    return true;
end $$;

-- The planner can't read the cron expression: the schedule is refused, for everybody to see. Errors: DV011.
create or replace function divvy.refuse_schedule(schedule_id bigint, reason text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_name text;
begin
    update divvy.schedule d set status = 'refused', reason = refuse_schedule.reason
    where d.id = refuse_schedule.schedule_id and d.status = 'active' returning d.name into v_name;
    if not found then
        perform divvy.unknown('active schedule', refuse_schedule.schedule_id::text);
    end if;
    perform divvy.record('refuse_schedule', 'schedule', v_name, reason, null, null);
end $$;

-- The schedule of that name that has not ended, locked. Raises DV011.
create or replace function divvy.locked_schedule(p_name text) returns divvy.schedule
language plpgsql as $$
declare
    s divvy.schedule;
begin
    select * into s from divvy.schedule d where d.name = p_name and d.status in ('active', 'paused', 'refused') for update;
    if not found then
        perform divvy.unknown('open schedule', p_name);
    end if;
    return s;
end $$;

-- Stops a schedule from firing until `until` (null: until resumed). Errors: DV004 (refused), DV010, DV011.
create or replace function divvy.pause_schedule(name text, until timestamptz default null, reason text default null) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
begin
    perform divvy.check_moment(until, 'until', format('schedule %s', name));
    s := divvy.locked_schedule(pause_schedule.name);
    if s.status = 'refused' then
        raise exception using errcode = 'DV004', message = format('schedule %s is refused: %s', s.name, s.reason);
    end if;
    update divvy.schedule d set status = 'paused', paused_until = until, reason = pause_schedule.reason where d.id = s.id;
    perform divvy.record('pause_schedule', 'schedule', s.name, pause_schedule.reason, null, jsonb_build_object('until', until));
end $$;

-- Lets a paused schedule fire again; what was due meanwhile follows catch_up. Errors: DV004 (refused), DV011.
create or replace function divvy.resume_schedule(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
begin
    s := divvy.locked_schedule(resume_schedule.name);
    if s.status = 'refused' then
        raise exception using errcode = 'DV004', message = format('schedule %s is refused: %s', s.name, s.reason);
    end if;
    update divvy.schedule d set status = 'active', paused_until = null, reason = null where d.id = s.id;
    perform divvy.record('resume_schedule', 'schedule', s.name, null, null, null);
end $$;

-- Makes a task now, recorded as manual. Returns its id; null when its dedupe_key is held. Errors: DV011.
create or replace function divvy.trigger_schedule(name text) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
    v_task bigint;
begin
    s := divvy.locked_schedule(trigger_schedule.name);
    v_task := divvy.make_fire(s, clock_timestamp(), 'manual', divvy.clock());
    perform divvy.record('trigger_schedule', 'schedule', s.name, null, null, jsonb_build_object('task_id', v_task));
    return v_task;
end $$;

-- Ends a schedule: none of its moments fires any more; tasks it made go on. Errors: DV011.
create or replace function divvy.cancel_schedule(name text, reason text default null) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
begin
    s := divvy.locked_schedule(cancel_schedule.name);
    update divvy.schedule d set status = 'cancelled', next_fire_at = null, reason = cancel_schedule.reason where d.id = s.id;
    perform divvy.record('cancel_schedule', 'schedule', s.name, cancel_schedule.reason, null, null);
end $$;
