-- Schedules: what a rule may be, and the moments that it names. A moment is decided once: its ledger row and fired_through
-- are written in the transaction of its task, under the schedule's lock, so it fires at most once, whoever leads and however
-- many lead. sql/76 fires, sql/77 decides where runs overlap, sql/78 changes schedules, sql/79 knows the calendars.

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
    new := divvy.begin_rule(new, new.created_at);
    if new.next_fire_at is null and new.cron is null then
        perform divvy.bad_schedule(v_what, format('no moment of it lies between starts_at %s and ends_at %s',
            coalesce(new.starts_at::text, 'null'), coalesce(new.ends_at::text, 'null')));
    end if;
    return new;
end $$;

create or replace trigger schedule_inserted before insert on divvy.schedule
    for each row execute function divvy.schedule_inserted();

-- The schedule with its rule beginning at p_at: nothing up to there is its moment. An offset of zero is due at once.
create or replace function divvy.begin_rule(s divvy.schedule, p_at timestamptz) returns divvy.schedule
language plpgsql stable as $$
begin
    s.anchored_at := case when s.anchor = 'previous_end' then greatest(p_at, s.starts_at)
        when s.every is not null then coalesce(s.starts_at, p_at) else p_at end;
    s.planned_from := greatest(case when s.steps is null then p_at else p_at - interval '1 microsecond' end,
        s.starts_at - interval '1 microsecond', s.fired_through);
    s.step := 0;
    s.ahead := '{}';
    s.moment_at := null;
    s.planned_through := null;
    s.moment_at := divvy.next_moment(s);
    s.next_fire_at := divvy.early_of(s, s.moment_at);
    return s;
end $$;

create or replace function divvy.check_schedule(s divvy.schedule, p_what text) returns void
language plpgsql as $$
begin
    if num_nonnulls(s.steps, s.run_at, s.cron, s.every) <> 1 then
        perform divvy.bad_schedule(p_what, format('give exactly one of steps, run_at, cron and every, not %s', num_nonnulls(s.steps, s.run_at, s.cron, s.every)));
    end if;
    perform divvy.check_steps(s, p_what);
    if s.every is not null and (s.every < interval '1 s' or s.every > interval '10 years') then
        perform divvy.bad_schedule(p_what, format('every is %s: 1 s to 10 years expected', s.every));
    end if;
    perform divvy.check_cron(s.cron, p_what);
    if s.timezone is null or not divvy.is_zone(s.timezone) then
        perform divvy.bad_schedule(p_what, format('timezone is %s: an IANA name such as %s expected', coalesce(to_json(left(s.timezone, 60))::text, 'null'),
            divvy.zone_alike(s.timezone)));
    end if;
    perform divvy.check_schedule_policy(s, p_what);
    perform divvy.check_schedule_bounds(s, p_what);
    perform divvy.check_task(divvy.task_of_schedule(s), p_what);
end $$;

-- Postgres reads every file of its zones for that view, so a session remembers the last one that it found.
create or replace function divvy.is_zone(p_name text) returns boolean
language plpgsql as $$
begin
    if p_name = 'UTC' or p_name = current_setting('divvy.zone', true) then
        return true;
    elsif exists (select from pg_timezone_names z where z.name = p_name) then
        perform set_config('divvy.zone', p_name, false);
        return true;
    end if;
    return false;
end $$;

-- The zone that somebody who wrote p_name may have meant: in another case, or with its region.
create or replace function divvy.zone_alike(p_name text) returns text
language sql as $$
    select coalesce(
        (select z.name from pg_timezone_names z where lower(z.name) = lower(btrim(p_name)) and z.name !~ '^posix' order by z.name collate "C" limit 1),
        (select z.name from pg_timezone_names z
            where lower(z.name) ~ '/' and lower(regexp_replace(z.name, '.*/', '')) = replace(lower(regexp_replace(btrim(p_name), '.*/', '')), ' ', '_')
                and z.name !~ '^posix' order by z.name collate "C" limit 1),
        'Europe/Berlin or UTC')
$$;

-- What can be said of a cron text without its parser, in the parser's words. Several expressions are separated by semicolons;
-- @daily and the like stand for the fields.
create or replace function divvy.check_cron(p_cron text, p_what text) returns void
language plpgsql as $$
declare
    v_other text := substring(p_cron from '[^0-9A-Za-z*/,?#@;= -]');   -- TZ= has an answer of the parser's own
    v_expression text;
    v_fields int;
begin
    if octet_length(p_cron) > 1000 then
        perform divvy.bad_schedule(p_what, format('cron text has %s bytes: at most 1000 expected', octet_length(p_cron)));
    elsif v_other is not null then
        perform divvy.bad_schedule(p_what, format('cron has %s: letters, digits and * / , ? # @ ; - expected', to_json(v_other)));
    end if;
    for v_expression in select btrim(e) from regexp_split_to_table(p_cron, ';') e loop
        v_fields := case v_expression when '' then 0 else cardinality(regexp_split_to_array(v_expression, ' +')) end;
        if v_fields not between 5 and 7 and v_expression not like '@%' then
            perform divvy.bad_schedule(p_what, format('cron expression %s has %s fields: 5 (minute hour day month weekday), 6 (with a second first), '
                '7 (with a year last) or a name such as @daily expected', to_json(v_expression), v_fields));
        end if;
    end loop;
end $$;

create or replace function divvy.check_steps(s divvy.schedule, p_what text) returns void
language plpgsql as $$
declare
    v_step interval;
    v_before interval;
begin
    if s.steps is null then
        return;
    end if;
    if coalesce(cardinality(s.steps), 0) not between 1 and divvy.limit_of('steps') then
        perform divvy.bad_schedule(p_what, format('steps has %s offsets: 1 to %s expected', coalesce(cardinality(s.steps), 0), divvy.limit_of('steps')));
    end if;
    foreach v_step in array s.steps loop
        if v_step is null or v_step < interval '0' or v_step > interval '10 years' then
            perform divvy.bad_schedule(p_what, format('steps has the offset %s: 0 to 10 years expected', coalesce(v_step::text, 'null')));
        elsif v_step <= v_before and s.anchor = 'created' then
            perform divvy.bad_schedule(p_what, format('steps has %s after %s: offsets that grow expected', v_step, v_before));
        end if;
        v_before := v_step;
    end loop;
end $$;

-- Raises DV012 on a word that a policy does not know.
create or replace function divvy.check_word(p_what text, p_name text, p_value text, p_known text[]) returns void
language plpgsql immutable as $$
begin
    if p_value is null or not p_value = any (p_known) then
        perform divvy.bad_schedule(p_what, format('%s is %s; it is one of %s', p_name, coalesce(quote_literal(left(p_value, 60)), 'null'),
            array_to_string(p_known, ', ')));
    end if;
end $$;

create or replace function divvy.check_schedule_policy(s divvy.schedule, p_what text) returns void
language plpgsql as $$
begin
    perform divvy.check_word(p_what, 'overlap', s.overlap, '{allow,skip,buffer_one,buffer_all,cancel_running,recover}');
    perform divvy.check_word(p_what, 'catch_up', s.catch_up, '{none,latest,all}');
    perform divvy.check_word(p_what, 'dst_gap', s.dst_gap, '{shift,skip}');
    perform divvy.check_word(p_what, 'dst_fold', s.dst_fold, '{first,last,both}');
    perform divvy.check_word(p_what, 'anchor', s.anchor, '{created,previous_end}');
    perform divvy.check_word(p_what, 'calendar_shift', s.calendar_shift, '{skip,next,previous}');
    if s.anchor = 'previous_end' and s.steps is null and s.every is null then
        perform divvy.bad_schedule(p_what, 'anchor is ''previous_end''; it goes with steps or every, not with cron or run_at');
    elsif s.catch_up_max is null or s.catch_up_max not between 1 and divvy.limit_of('waiting moments') then
        perform divvy.bad_schedule(p_what, format('catch_up_max is %s; it must be 1 to %s', coalesce(s.catch_up_max::text, 'null'), divvy.limit_of('waiting moments')));
    elsif s.catch_up_pace is null or s.catch_up_pace not between interval '0' and interval '1 day' then
        perform divvy.bad_schedule(p_what, format('catch_up_pace is %s; it must be 0 s to 1 day', coalesce(s.catch_up_pace::text, 'null')));
    elsif s.catch_up_window is null or s.catch_up_window <= interval '0' or s.catch_up_window > interval '10 years' then
        perform divvy.bad_schedule(p_what, format('catch_up_window is %s; it must be positive and at most 10 years', coalesce(s.catch_up_window::text, 'null')));
    elsif s.jitter not between interval '0' and interval '1 day' then
        perform divvy.bad_schedule(p_what, format('jitter is %s; it must be 0 s to 1 day', s.jitter));
    elsif s.pause_on_failure < 1 then
        perform divvy.bad_schedule(p_what, format('pause_on_failure is %s; it must be positive', s.pause_on_failure));
    elsif s.max_runs < 1 then
        perform divvy.bad_schedule(p_what, format('max_runs is %s; it must be positive', s.max_runs));
    end if;
    perform divvy.check_schedule_calendar(s, p_what);
end $$;

create or replace function divvy.check_schedule_bounds(s divvy.schedule, p_what text) returns void
language plpgsql as $$
begin
    if s.ends_at <= s.starts_at then
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

-- The k-th beat of a fixed rate; beats are anchored, so none drifts. A month counts as 30 days.
create or replace function divvy.beat(p_every interval, p_anchor timestamptz, p_k numeric) returns timestamptz
language sql stable as $$
    select p_anchor + make_interval(secs => (extract(epoch from p_every) * p_k)::double precision)
$$;

-- The number of the last beat up to p_at; 0: there is none.
create or replace function divvy.beat_no(p_every interval, p_anchor timestamptz, p_at timestamptz) returns numeric
language sql immutable as $$
    select greatest(0, floor(extract(epoch from p_at - p_anchor) / extract(epoch from p_every)))
$$;

create or replace function divvy.within_bounds(s divvy.schedule, p_at timestamptz) returns boolean
language sql immutable as $$
    select (s.ends_at is null or p_at < s.ends_at) and (s.starts_at is null or p_at >= s.starts_at)
$$;

-- The first moment that is not decided; null: there is none, an open run has to end first, or the cron planner has to say.
create or replace function divvy.next_moment(s divvy.schedule) returns timestamptz
language plpgsql stable as $$
declare
    v_at timestamptz;
begin
    if s.cron is not null then
        select min(a) into v_at from unnest(s.moment_at || s.ahead) a where a > s.planned_from;
        return v_at;
    elsif s.anchor = 'previous_end' then
        v_at := greatest(s.anchored_at + coalesce(s.every, s.steps[s.step + 1]), s.fired_through + interval '1 microsecond');
        if s.anchored_at is null or (s.steps is not null and s.step >= cardinality(s.steps)) then
            v_at := null;
        end if;
    elsif s.steps is not null then
        select min(s.anchored_at + o) into v_at from unnest(s.steps) o
        where s.anchored_at + o > s.planned_from and divvy.within_bounds(s, s.anchored_at + o);
    elsif s.run_at is not null then
        -- A moment that had passed when the schedule was made is due at once, but only once.
        v_at := case when s.fired_through is null or s.run_at > s.fired_through then s.run_at end;
    else
        v_at := divvy.beat(s.every, s.anchored_at, divvy.beat_no(s.every, s.anchored_at, s.planned_from) + 1);
    end if;
    return case when divvy.within_bounds(s, v_at) then v_at end;
end $$;

-- The moments that are due at p_now and not decided: how many, the latest of them by name (as many as may wait), and the
-- bounds of the stretch before those.
create or replace function divvy.due_moments(s divvy.schedule, p_now timestamptz, out n bigint, out moments timestamptz[],
    out stretch_from timestamptz, out stretch_through timestamptz)
language plpgsql stable as $$
declare
    v_max bigint := divvy.limit_of('waiting moments');
    v_until timestamptz := least(case when s.calendar_shift = 'previous' then p_now + interval '40 days' else p_now end,
        s.ends_at - interval '1 microsecond');   -- no calendar moves anything by more
    v_lo numeric;
    v_hi numeric;
begin
    if s.moment_at is null then
        moments := '{}';
    elsif s.every is not null and s.anchor = 'created' then
        v_lo := divvy.beat_no(s.every, s.anchored_at, s.planned_from) + 1;
        v_hi := divvy.beat_no(s.every, s.anchored_at, v_until);
        moments := array(select divvy.beat(s.every, s.anchored_at, k) from generate_series(greatest(v_lo, v_hi - v_max + 1), v_hi) k);
        n := greatest(v_hi - v_lo + 1, 0);
        if n > v_max then
            stretch_from := divvy.beat(s.every, s.anchored_at, v_lo);
            stretch_through := divvy.beat(s.every, s.anchored_at, v_hi - v_max);
        end if;
    elsif s.steps is not null and s.anchor = 'created' then
        moments := array(select s.anchored_at + o from unnest(s.steps) o
            where s.anchored_at + o > s.planned_from and s.anchored_at + o <= v_until and divvy.within_bounds(s, s.anchored_at + o) order by o);
    elsif s.cron is not null and cardinality(s.ahead) > 0 then
        moments := array(select m from unnest(s.moment_at || s.ahead) m where m <= v_until order by m);
    else
        moments := case when s.moment_at <= v_until then array[s.moment_at] else '{}' end;
    end if;
    if s.calendar_shift = 'previous' then
        moments := array(select m from unnest(moments) m where divvy.early_of(s, m) <= p_now order by m);
        n := null;
    end if;
    n := coalesce(n, cardinality(moments));
end $$;

-- Cron: whether a moment may be due that nobody has planned yet. No two are closer than a second.
create or replace function divvy.has_unknown_moments(s divvy.schedule, p_now timestamptz) returns boolean
language sql stable as $$
    select s.cron is not null and coalesce(s.planned_through, s.planned_from) + interval '1 s' <= least(p_now, s.ends_at - interval '1 microsecond')
$$;

-- How much later than its moment a fire is due: the same for the same schedule and moment, whoever asks.
create or replace function divvy.jitter_of(s divvy.schedule, p_at timestamptz) returns interval
language sql stable as $$
    select case when s.jitter > interval '0' then make_interval(secs => round(extract(epoch from s.jitter)
        * (('x' || left(encode(sha256(convert_to(s.id || ' ' || (extract(epoch from p_at) * 1000000)::bigint, 'UTF8')), 'hex'), 8))::bit(32)::bigint
            / 4294967296.0), 6)::double precision)
        else interval '0' end
$$;
