-- Many schedules that are due at once, in a few statements instead of a few for each. Only those of which there is nothing to
-- decide: one moment, in time, no open run, nothing that waits. Whatever is not so plain is left to divvy.fire_schedule, which
-- knows all of it.

-- Returns how many tasks were made. An error undoes all of it: then each is tried by itself.
create or replace function divvy.fire_many(p_max int, p_now timestamptz) returns int
language plpgsql set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_hashjoin = off set enable_mergejoin = off
    set jit = off as $$
declare
    v_ids bigint[];
    v_tasks bigint[];
begin
    v_ids := array(select s.id from divvy.schedule s
        where s.status = 'active' and s.next_fire_at <= p_now and divvy.is_plain(s, p_now)
            -- As values, so that each is one look by an index, never a scan of all tasks.
            and (select x.fire_at from divvy.schedule_fire x where x.schedule_id = s.id and x.outcome = 'waiting' limit 1) is null
            and (s.overlap = 'allow' or coalesce((select t.finished_at is not null and (s.overlap <> 'recover' or t.status not in ('partial', 'failed'))
                from divvy.task t where t.id = s.last_task_id), true))
        order by s.next_fire_at limit p_max for update of s skip locked);
    if cardinality(v_ids) < 2 then
        return 0;
    end if;
    with made as (
        insert into divvy.task (task_type, payload, priority, dedupe_key, group_key, labels, headers, splits, split_count, split_range, split_size,
            max_attempts, timeout, max_failed, max_failed_percent, reduce_on, "then", schedule_id, scheduled_for)
        select s.task_type, s.payload, s.priority, s.dedupe_key, s.group_key, s.labels, s.headers, s.splits, s.split_count, s.split_range, s.split_size,
            s.max_attempts, s.timeout, s.max_failed, s.max_failed_percent, s.reduce_on, s."then", s.id, s.moment_at
        from divvy.schedule s where s.id = any (v_ids) order by s.next_fire_at
        on conflict do nothing   -- whose dedupe key is held stays due
        returning id, schedule_id, scheduled_for
    ), told as (
        insert into divvy.schedule_fire (schedule_id, fire_at, kind, outcome, task_id, late, at)
        select m.schedule_id, m.scheduled_for, 'rule', 'fired', m.id, p_now - m.scheduled_for, p_now from made m
    ), gone_on as (
        update divvy.schedule d set runs = n.runs, last_task_id = n.last_task_id, fired_through = n.fired_through, planned_from = n.planned_from,
            moment_at = n.moment_at, next_fire_at = n.next_fire_at, ahead = n.ahead, anchored_at = n.anchored_at, step = n.step, status = n.status
        from made m, lateral (select x.* from divvy.schedule s, divvy.after_firing(s, m.id) x where s.id = m.schedule_id) n
        where d.id = m.schedule_id
    )
    select array_agg(id) into v_tasks from made;
    return coalesce(cardinality(v_tasks), 0);
exception when others then
    return 0;
end $$;

-- One moment is due, it is in time and on its own day, and nothing but the last run can stand against it.
create or replace function divvy.is_plain(s divvy.schedule, p_now timestamptz) returns boolean
language plpgsql stable as $$
declare
    v_next timestamptz;
begin
    if s.moment_at is distinct from s.next_fire_at or s.jitter > interval '0' or (s.catch_up <> 'latest' and s.moment_at < p_now - interval '15 s')
            or divvy.has_unknown_moments(s, p_now) then
        return false;
    elsif s.calendar is not null and not divvy.is_working_day(s.calendar, (s.moment_at at time zone s.timezone)::date) then
        return false;
    elsif s.cron is not null then
        v_next := s.ahead[1];
    elsif s.every is not null and s.anchor = 'created' then
        v_next := divvy.beat(s.every, s.moment_at, 1);
    elsif s.steps is not null and s.anchor = 'created' then
        select min(s.anchored_at + o) into v_next from unnest(s.steps) o where s.anchored_at + o > s.moment_at;
    end if;
    return v_next is null or divvy.early_of(s, v_next) > p_now;
end $$;

-- The schedule after its moment has fired, when nothing of it waits.
create or replace function divvy.after_firing(s divvy.schedule, p_task bigint) returns divvy.schedule
language plpgsql stable as $$
begin
    s.runs := s.runs + 1;
    s.last_task_id := p_task;
    s := divvy.past_moment(s, s.moment_at);
    if s.anchor = 'previous_end' then
        s.anchored_at := null;   -- until that run ends
    end if;
    return divvy.advanced(s, false);
end $$;
