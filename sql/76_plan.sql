-- Planning: what only the cron parser in Rust can say. It is asked for moments, names them, or refuses the schedule; whatever it
-- names is decided by sql/76_fire like all other moments.

-- Cron schedules that wait for their next moments to be computed. Inlined.
create or replace function divvy.unplanned() returns setof divvy.schedule
language sql stable as $$
    select * from divvy.schedule s
    where s.status = 'active' and s.cron is not null and s.next_fire_at is null and s.planned_through is distinct from 'infinity'
$$;

-- Those, and those that ended before all that were due had been.
-- planned_from is the last decided one; is_first: the rule has not been planned yet, so without a moment it never fires.
create or replace function divvy.schedules_to_plan(max int default 500, name text default null)
returns table (schedule_id bigint, name text, cron text, timezone text, dst_gap text, dst_fold text, planned_from timestamptz,
    starts_at timestamptz, ends_at timestamptz, server_now timestamptz, is_first boolean)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    (select s.id, s.name, s.cron, s.timezone, s.dst_gap, s.dst_fold, s.planned_from, s.starts_at, s.ends_at, divvy.clock(), s.planned_through is null
    from divvy.unplanned() s
    where schedules_to_plan.name is null
    order by s.id limit schedules_to_plan.max)
    union all
    (select s.id, s.name, s.cron, s.timezone, s.dst_gap, s.dst_fold, s.planned_from, s.starts_at, s.name_until + interval '1 microsecond', divvy.clock(), false
    from divvy.schedule s
    where schedules_to_plan.name is null and s.name_until is not null
    order by s.id limit schedules_to_plan.max)
    union all
    select s.id, s.name, s.cron, s.timezone, s.dst_gap, s.dst_fold, s.planned_from, s.starts_at, s.ends_at, divvy.clock(), s.planned_through is null
    from divvy.schedule s
    where s.name = schedules_to_plan.name and s.status in ('active', 'paused') and divvy.has_unknown_moments(s, divvy.clock())
$$;

-- The planner says the moments after planned_from, in order and without a gap: those that are due and some that are to come, up to
-- planned_through (null: there are no more than these). Where too many were due it says only how many the earlier ones are, and
-- between which. False when somebody else planned meanwhile. Errors: DV011. Locks: the schedule.
create or replace function divvy.plan_schedule(schedule_id bigint, planned_from timestamptz, moments timestamptz[],
    planned_through timestamptz default null, earlier int default 0, earlier_from timestamptz default null, earlier_through timestamptz default null)
returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
    v_moments timestamptz[] := coalesce(moments, '{}');
begin
    select * into s from divvy.schedule d where d.id = plan_schedule.schedule_id for update;
    if not found then
        perform divvy.unknown('schedule', plan_schedule.schedule_id::text);
    end if;
    if s.planned_from is distinct from plan_schedule.planned_from or (s.name_until is null and (s.status not in ('active', 'paused')
            or (s.next_fire_at is not null and not divvy.has_unknown_moments(s, divvy.clock())))) then
        return false;
    end if;
    if earlier > 0 then
        perform divvy.miss_moments(s, '{}', earlier, earlier_from, earlier_through, divvy.clock());
        s.planned_from := earlier_through;
        s.fired_through := greatest(s.fired_through, earlier_through);
    end if;
    s.planned_through := coalesce(plan_schedule.planned_through, 'infinity');
    if s.name_until is not null then
        perform divvy.skip_unnamed(s, v_moments, divvy.clock());
        return true;
    end if;
    s.moment_at := null;
    s.ahead := v_moments;
    update divvy.schedule d set planned_at = divvy.clock(), planned_through = s.planned_through,
        reason = case when cardinality(v_moments) = 0 and s.planned_through = 'infinity' then 'no moment is left' else d.reason end
    where d.id = s.id;
    perform divvy.go_on(s, divvy.clock());
    return true;
end $$;

-- What was due when the schedule ended, and is known only now, is skipped.
create or replace function divvy.skip_unnamed(s divvy.schedule, p_moments timestamptz[], p_now timestamptz) returns void
language plpgsql as $$
begin
    perform divvy.skip_moments(s, array(select m from unnest(p_moments) m where m <= s.name_until), coalesce(s.reason, 'the schedule was ' || s.status), p_now);
    s.planned_from := greatest(s.planned_from, (select max(m) from unnest(p_moments) m));
    update divvy.schedule d set planned_from = s.planned_from, fired_through = greatest(s.fired_through, s.planned_from),
        name_until = case when s.planned_through < s.name_until then s.name_until end
    where d.id = s.id;
end $$;

-- The planner can't read the cron expression: the schedule is refused, for everybody to see. Errors: DV011.
create or replace function divvy.refuse_schedule(schedule_id bigint, reason text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
begin
    update divvy.schedule d set status = case d.status when 'active' then 'refused' else d.status end, reason = case d.status when 'active'
        then refuse_schedule.reason else d.reason end, name_until = null
    where d.id = refuse_schedule.schedule_id and (d.status = 'active' or d.name_until is not null) returning * into s;
    if not found then
        perform divvy.unknown('active schedule', refuse_schedule.schedule_id::text);
    elsif s.status = 'refused' then
        perform divvy.record('refuse_schedule', 'schedule', s.name, reason, null, null);
    end if;
end $$;
