-- Many schedules that are due at once, in a few statements instead of a few for each. Only those of which there is nothing to
-- decide: one moment, in time, no open run. Whatever is not so plain is left to divvy.fire_schedule, which knows all of it.

-- Returns how many tasks were made. An error undoes all of it: then each is tried by itself.
create or replace function divvy.fire_many(p_max int, p_now timestamptz) returns int
language plpgsql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
declare
    v_ids bigint[];
    v_tasks bigint[];
begin
    v_ids := array(select s.id from divvy.schedule s
        where s.status = 'active' and s.next_fire_at <= p_now and divvy.is_plain(s, p_now)
            -- As values, so that each is one look by an index, never a scan of all tasks.
            and (select x.fire_at from divvy.schedule_fire x where x.schedule_id = s.id and x.outcome = 'waiting' limit 1) is null
            and (s.overlap = 'allow' or not coalesce((select t.finished_at is null from divvy.task t where t.id = s.last_task_id), false))
        order by s.next_fire_at limit p_max for update of s skip locked);
    if cardinality(v_ids) < 2 then
        return 0;
    end if;
    with made as (
        insert into divvy.task (task_type, payload, priority, group_key, labels, headers, splits, split_count, split_range, split_size, max_attempts, timeout,
            max_failed, max_failed_percent, reduce_on, "then", schedule_id, scheduled_for)
        select s.task_type, s.payload, s.priority, s.group_key, s.labels, s.headers, s.splits, s.split_count, s.split_range, s.split_size, s.max_attempts, s.timeout,
            s.max_failed, s.max_failed_percent, s.reduce_on, s."then", s.id, s.moment_at
        from divvy.schedule s where s.id = any (v_ids) order by s.next_fire_at
        returning id, schedule_id, scheduled_for
    ), told as (
        insert into divvy.schedule_fire (schedule_id, fire_at, kind, outcome, task_id, late, at)
        select m.schedule_id, m.scheduled_for, 'rule', 'fired', m.id, p_now - m.scheduled_for, p_now from made m
    ), gone_on as (
        update divvy.schedule s set runs = s.runs + 1, last_task_id = m.id, fired_through = s.moment_at, planned_from = s.moment_at, moment_at = n.at,
            next_fire_at = n.at, ahead = s.ahead[2:], status = case when s.run_at is not null then 'done' else 'active' end::divvy.schedule_status
        from made m, lateral (select case
            when m.scheduled_for is null then null
            when (select x.cron is not null from divvy.schedule x where x.id = m.schedule_id) then (select x.ahead[1] from divvy.schedule x where x.id = m.schedule_id)
            else (select divvy.beat(x.every, x.anchored_at, divvy.beat_no(x.every, x.anchored_at, x.moment_at) + 1) from divvy.schedule x where x.id = m.schedule_id)
            end as at) n
        where s.id = m.schedule_id
    )
    select array_agg(id) into v_tasks from made;
    return cardinality(v_tasks);
exception when others then
    return 0;
end $$;

-- One moment is due, it is in time, and nothing but the last run can stand against it.
create or replace function divvy.is_plain(s divvy.schedule, p_now timestamptz) returns boolean
language sql immutable as $$
    select s.anchor = 'created' and s.overlap in ('allow', 'skip') and s.calendar is null and s.jitter is null and s.max_runs is null and s.dedupe_key is null
        and s.steps is null and s.moment_at = s.next_fire_at and (s.catch_up = 'latest' or s.moment_at >= p_now - interval '15 s')
        and case
            when s.run_at is not null then true
            when s.cron is not null then s.ahead[1] > p_now
                or (s.ahead = '{}' and s.planned_through < 'infinity' and p_now < s.planned_through + interval '1 s')
            else divvy.beat(s.every, s.moment_at, 1) > p_now and (s.ends_at is null or divvy.beat(s.every, s.moment_at, 1) < s.ends_at) end
$$;
