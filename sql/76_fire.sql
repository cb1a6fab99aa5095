-- Firing: what is due becomes rows of the ledger, and tasks. Locks: the schedule, then the task of its last run; the end of a
-- task never waits for a schedule, it leaves a note in divvy.run_ended.

-- Decides every moment that is due, at most p_max schedules: tasks for those that catch_up and overlap let fire, a ledger row
-- for each. One that can't fire keeps no other from it. Returns how many schedules had something due.
create or replace function divvy.fire_due(max int default 500) returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set lock_timeout = '2 s' as $$
declare
    v_now timestamptz := divvy.clock();
    s divvy.schedule;
    v_many int;
    v_done int;
begin
    perform divvy.need_read_committed('fire_due');
    v_done := divvy.hear_ended(max, v_now);
    for s in select * from divvy.schedule d where d.status = 'paused' and d.paused_until <= v_now
        order by d.paused_until limit fire_due.max for update skip locked
    loop
        perform divvy.unpause(s, s.paused_until);
        perform divvy.record('resume_schedule', 'schedule', s.name, format('it was paused until %s', s.paused_until), null, null);
    end loop;
    v_many := divvy.fire_many(max, v_now);
    for s in select * from divvy.schedule d where d.status = 'active' and d.next_fire_at <= v_now
        order by d.next_fire_at limit case when v_many >= max then max / 10 + 1 else max end for update skip locked
    loop
        perform divvy.fire_safely(s, v_now);
        v_done := v_done + 1;
    end loop;
    return v_done + v_many + divvy.release_due(max, v_now);
end $$;

-- What goes wrong beyond a single moment puts the schedule off, and decides nothing.
create or replace function divvy.fire_safely(s divvy.schedule, p_now timestamptz) returns void
language plpgsql as $$
begin
    perform divvy.fire_schedule(s, p_now);
exception when others then
    perform divvy.record('fire', 'schedule', s.name, sqlerrm, null, jsonb_build_object('sqlstate', sqlstate));
    update divvy.schedule d set next_fire_at = p_now + interval '1 min' where d.id = s.id;
end $$;

-- One schedule, locked and due. Its moments up to now are decided, and it goes on to the next.
create or replace function divvy.fire_schedule(s divvy.schedule, p_now timestamptz) returns void
language plpgsql as $$
declare
    d record;
    v_keep int;
    r divvy.schedule_fire;
begin
    if divvy.has_unknown_moments(s, p_now) then
        update divvy.schedule x set next_fire_at = null, moment_at = null, ahead = '{}' where x.id = s.id;   -- the planner is asked
        return;
    end if;
    if s.calendar is null and s.status = 'active' and divvy.is_waited_for(s.id) then
        perform divvy.release_waiting(s, p_now);   -- who waited longer goes first
        select * into s from divvy.schedule x where x.id = s.id;
        if s.status <> 'active' then
            return;
        end if;
    end if;
    d := divvy.due_moments(s, p_now);
    if d.n > 0 then
        v_keep := divvy.moments_to_make(s, d.moments, p_now);
        if d.n > v_keep then
            perform divvy.miss_moments(s, d.moments[:cardinality(d.moments) - v_keep], d.n - cardinality(d.moments), d.stretch_from, d.stretch_through, p_now);
        end if;
        s := divvy.past_moment(s, d.moments[cardinality(d.moments)]);
        for i in 1..v_keep loop
            r := divvy.fire_moment(s, d.moments[cardinality(d.moments) - v_keep + i], i, v_keep, p_now);
            if r.outcome = 'fired' then
                s.runs := s.runs + 1;
                s.last_task_id := r.task_id;
            end if;
            if s.anchor = 'previous_end' and r.outcome in ('fired', 'waiting') then
                s.anchored_at := null;   -- until that run ends
            end if;
        end loop;
    end if;
    perform divvy.go_on(s, p_now);
    if s.calendar is not null and s.status = 'active' and divvy.is_waited_for(s.id) then
        select * into s from divvy.schedule x where x.id = s.id;
        perform divvy.release_waiting(s, p_now);
    end if;
end $$;

-- How many of the due moments, counted from the latest, catch_up lets fire. A fail-over takes less than 15 s: what is not later
-- than that is no downtime.
create or replace function divvy.moments_to_make(s divvy.schedule, p_moments timestamptz[], p_now timestamptz) returns int
language plpgsql stable as $$
begin
    return case s.catch_up
        when 'all' then least(s.catch_up_max, (select count(*) from unnest(p_moments) m where m >= p_now - s.catch_up_window))
        when 'none' then (p_moments[cardinality(p_moments)] >= p_now - interval '15 s')::int
        else 1 end;
end $$;

-- Ledger rows of moments that are not made up for. Those of one reason are one row where they are more than 100: it stands at the
-- first, names the last and counts all. A stretch that goes on where another one ended is added to it.
create or replace function divvy.miss_moments(s divvy.schedule, p_moments timestamptz[], p_stretch bigint, p_from timestamptz,
    p_through timestamptz, p_now timestamptz) returns void
language plpgsql as $$
declare
    v_part record;
    f divvy.schedule_fire;
    v_at timestamptz;
begin
    for v_part in
        select x.reason, sum(x.n) as n, min(x.first_at) as first_at, max(x.last_at) as last_at, array_agg(x.first_at order by x.first_at) as moments
        from (select m, m, 1, divvy.missed_reason(s, m, p_now) from unnest(p_moments) m
            union all select p_from, p_through, p_stretch, divvy.missed_reason(s, p_from, p_now) where p_stretch > 0) x (first_at, last_at, n, reason)
        group by x.reason order by min(x.first_at)
    loop
        f.schedule_id := s.id;
        f.kind := 'rule';
        if v_part.n <= 100 then
            foreach v_at in array v_part.moments loop
                f.fire_at := v_at;
                perform from divvy.decide_moment(f, 'missed', null, v_part.reason, p_now);
            end loop;
        else
            update divvy.schedule_fire x set count = x.count + v_part.n, through = v_part.last_at
            where x.schedule_id = s.id and x.kind = 'rule' and x.outcome = 'missed' and x.through = s.planned_from and x.reason = v_part.reason
                and x.fire_at = (select max(y.fire_at) from divvy.schedule_fire y where y.schedule_id = s.id and y.kind = 'rule');
            if not found then
                insert into divvy.schedule_fire (schedule_id, fire_at, kind, outcome, reason, count, late, at, through)
                values (s.id, v_part.first_at, 'rule', 'missed', v_part.reason, least(v_part.n, 2147483647), p_now - v_part.first_at, p_now, v_part.last_at)
                on conflict do nothing;
            end if;
        end if;
    end loop;
end $$;

create or replace function divvy.missed_reason(s divvy.schedule, p_at timestamptz, p_now timestamptz) returns text
language sql stable as $$
    select case
        when p_at >= s.paused_at and (s.status = 'paused' or p_at < s.resumed_at) then concat('it was paused', ': ' || s.pause_reason)
        when s.catch_up = 'all' and p_at < p_now - s.catch_up_window then format('nobody was there to fire it, and it is older than catch_up_window %s', s.catch_up_window)
        when s.catch_up = 'all' then format('nobody was there to fire it, and %s later ones are made up for', s.catch_up_max)
        else 'nobody was there to fire it' end
$$;

-- The p_no-th of p_of moments that a pass makes. The first at once, the others a pace apart.
create or replace function divvy.fire_moment(s divvy.schedule, p_at timestamptz, p_no int, p_of int, p_now timestamptz) returns divvy.schedule_fire
language plpgsql as $$
declare
    f divvy.schedule_fire;
    v_moved timestamptz := p_at;
    v_jitter interval := divvy.jitter_of(s, p_at);
    v_behind timestamptz;
begin
    f.schedule_id := s.id;
    f.fire_at := p_at;
    f.kind := 'rule';
    if s.calendar is not null then
        select m.at, m.reason into v_moved, f.reason from divvy.moved_by_calendar(s, p_at) m;
        if v_moved is null then
            return divvy.decide_moment(f, 'skipped', null, f.reason, p_now);
        elsif s.calendar_shift <> 'skip' then
            f := divvy.merge_moved(s, f, v_moved, p_now);
            if f.outcome = 'merged' then
                return f;
            end if;
        end if;
    end if;
    if v_moved + v_jitter <> p_at then
        f.due_at := v_moved + v_jitter;
        f.reason := coalesce(f.reason, format('jitter of %s', v_jitter));
    end if;
    f.not_before := coalesce(f.due_at, p_at);
    f.made_up := s.catch_up = 'all' and (p_of > 1 or f.not_before < p_now - interval '15 s');
    if f.made_up and f.not_before <= p_now then
        f.reason := coalesce(f.reason, 'made up for: nobody was there at its time');
        f.not_before := greatest(f.not_before, p_now + (p_no - 1) * s.catch_up_pace);
    elsif s.catch_up = 'all' and s.overlap <> 'allow' then
        select max(x.not_before) into v_behind from divvy.schedule_fire x where x.schedule_id = s.id and x.outcome = 'waiting' and x.made_up;
        if v_behind is not null then
            f.made_up := true;
            f.not_before := greatest(f.not_before, v_behind);
            f.reason := coalesce(f.reason, 'behind moments that are made up for');
        end if;
    end if;
    return divvy.try_fire(s, f, p_now);
end $$;

-- An error of one moment is its reason; what somebody holds is waited for.
create or replace function divvy.try_fire(s divvy.schedule, f divvy.schedule_fire, p_now timestamptz) returns divvy.schedule_fire
language plpgsql as $$
begin
    return divvy.make_fire(s, f, p_now);
exception
    when lock_not_available or deadlock_detected then
        return divvy.let_wait(f, p_now + interval '5 s', sqlerrm, p_now);
    when others then
        perform divvy.record('fire', 'schedule', s.name, sqlerrm, null, jsonb_build_object('sqlstate', sqlstate));
        return divvy.decide_moment(f, 'skipped', null, sqlerrm, p_now);
end $$;

-- Makes the task of a moment, unless it has to wait, or is not to be; the ledger row says which. s is locked.
create or replace function divvy.make_fire(s divvy.schedule, f divvy.schedule_fire, p_now timestamptz) returns divvy.schedule_fire
language plpgsql as $$
declare
    k divvy.task;
    v_task bigint;
begin
    if exists (select from divvy.schedule_fire x where x.schedule_id = s.id and x.fire_at = f.fire_at and x.kind = f.kind and x.outcome <> 'waiting') then
        f.outcome := null;   -- decided long ago
        return f;
    elsif f.kind = 'rule' and s.runs >= s.max_runs then
        return divvy.decide_moment(f, 'skipped', null, format('max_runs is %s', s.max_runs), p_now);
    elsif f.kind <> 'manual' and s.status = 'paused' then
        return divvy.let_wait(f, 'infinity', concat('it was paused', ': ' || s.pause_reason), p_now);
    elsif f.not_before > p_now then
        return divvy.let_wait(f, f.not_before, f.reason, p_now);
    elsif f.kind = 'backfill' and cardinality(divvy.open_backfills(s)) >= s.backfill_max then
        return divvy.let_wait(f, p_now + interval '1 min', format('%s of its backfill run, backfill_max is %s', s.backfill_max, s.backfill_max), p_now);
    elsif f.kind = 'rule' and s.overlap <> 'allow' and s.last_task_id is not null then
        f := divvy.take_turn(s, f, p_now);
        if f.outcome is not null then
            return f;
        end if;
    end if;
    k := divvy.task_of_schedule(s);
    k.scheduled_for := f.fire_at;
    v_task := divvy.insert_task(k);
    if v_task is null then
        return divvy.decide_moment(f, 'skipped', null, format('dedupe_key %L is held', s.dedupe_key), p_now);
    end if;
    return divvy.decide_moment(f, 'fired', v_task, f.reason, p_now);
end $$;

-- Writes the ledger row; one that waits is the only one that changes.
create or replace function divvy.decide_moment(f divvy.schedule_fire, p_outcome text, p_task bigint, p_reason text, p_now timestamptz) returns divvy.schedule_fire
language plpgsql as $$
begin
    f.outcome := p_outcome;
    f.task_id := p_task;
    f.reason := p_reason;
    f.late := greatest(p_now - coalesce(f.due_at, f.fire_at), interval '0');
    f.at := p_now;
    f.look_at := case p_outcome when 'waiting' then f.look_at end;
    f.not_before := case p_outcome when 'waiting' then f.not_before end;
    insert into divvy.schedule_fire as x (schedule_id, fire_at, kind, outcome, task_id, reason, late, at, due_at, not_before, look_at, made_up)
    values (f.schedule_id, f.fire_at, f.kind, f.outcome, f.task_id, f.reason, f.late, f.at, f.due_at, f.not_before, f.look_at, coalesce(f.made_up, false))
    on conflict (schedule_id, fire_at, kind) do update set outcome = excluded.outcome, task_id = excluded.task_id, reason = excluded.reason,
        late = excluded.late, at = excluded.at, not_before = excluded.not_before, look_at = excluded.look_at
    where x.outcome = 'waiting';
    return f;
end $$;

-- Moments of the rule that come to nothing.
create or replace function divvy.skip_moments(s divvy.schedule, p_moments timestamptz[], p_reason text, p_now timestamptz) returns void
language plpgsql as $$
declare
    f divvy.schedule_fire;
begin
    f.schedule_id := s.id;
    f.kind := 'rule';
    foreach f.fire_at in array p_moments loop
        perform divvy.decide_moment(f, 'skipped', null, p_reason, p_now);
    end loop;
end $$;

-- The schedule with its moments up to p_at decided. What counts from the end of a run counts from there, should there be none.
create or replace function divvy.past_moment(s divvy.schedule, p_at timestamptz) returns divvy.schedule
language plpgsql immutable as $$
begin
    s.planned_from := p_at;
    s.fired_through := greatest(s.fired_through, p_at);
    if s.anchor = 'previous_end' then
        s.step := s.step + 1;
        s.anchored_at := p_at;
    end if;
    return s;
end $$;

-- The schedule after a decision: with its next moment, or done. Cron waits for its planner. p_waits: a row of it waits.
create or replace function divvy.advanced(s divvy.schedule, p_waits boolean) returns divvy.schedule
language plpgsql stable as $$
begin
    s.moment_at := divvy.next_moment(s);
    s.ahead := array(select a from unnest(s.ahead) a where a > s.moment_at order by a);
    s.next_fire_at := divvy.early_of(s, s.moment_at);
    if s.runs >= s.max_runs or (s.moment_at is null and not p_waits and case
            when s.cron is not null then s.planned_through is not distinct from 'infinity'
            when s.anchor = 'previous_end' then s.anchored_at is not null or s.step >= cardinality(s.steps)
            else true end) then
        s.moment_at := null;
        s.next_fire_at := null;
        if s.status in ('active', 'paused') then
            s.status := 'done';
        end if;
    end if;
    return s;
end $$;

-- Writes down how the schedule, which is locked, stands after a decision.
create or replace function divvy.go_on(s divvy.schedule, p_now timestamptz) returns void
language plpgsql as $$
begin
    if s.runs >= s.max_runs then
        perform divvy.skip_waiting(s.id, format('max_runs is %s', s.max_runs), p_now);
    end if;
    s := divvy.advanced(s, divvy.is_waited_for(s.id));
    update divvy.schedule d set fired_through = s.fired_through, planned_from = s.planned_from, runs = s.runs, last_task_id = s.last_task_id,
        moment_at = s.moment_at, next_fire_at = s.next_fire_at, ahead = s.ahead, anchored_at = s.anchored_at, step = s.step,
        backfill_open = s.backfill_open, failures = s.failures, status = s.status
    where d.id = s.id;
end $$;
