-- Calendars: which days are working days. A schedule with a calendar fires on those, or moves what falls on others.

-- Raises DV012 on a calendar that is not there, and on a shift that has nothing to move.
create or replace function divvy.check_schedule_calendar(s divvy.schedule, p_what text) returns void
language plpgsql as $$
begin
    if s.calendar is null and s.calendar_shift <> 'skip' then
        perform divvy.bad_schedule(p_what, format('calendar_shift is %L; it goes with a calendar', s.calendar_shift));
    elsif s.calendar is not null and not exists (select from divvy.calendar c where c.name = s.calendar) then
        perform divvy.bad_schedule(p_what, format('calendar is %L; it must be one that divvy.put_calendar made', left(s.calendar, 120)));
    elsif s.calendar is not null and s.anchor = 'previous_end' then
        perform divvy.bad_schedule(p_what, 'anchor is ''previous_end''; a calendar goes with moments that are known before');
    elsif s.calendar_shift <> 'skip' and s.every < interval '1 hour' then
        perform divvy.bad_schedule(p_what, format('calendar_shift is %L with every %s; moments that are moved are an hour apart or more', s.calendar_shift, s.every));
    end if;
end $$;

-- Makes a calendar, or changes the options that are named: weekend (days of the week, Monday is 1), excluded and included: dates as
-- "2026-12-25", or {"date", "note"}. A list takes the place of the one there was. Errors: DV010.
create or replace function divvy.put_calendar(name text, options jsonb default '{}') returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_what text := format('calendar %s', left(name, 120));
    v_list text;
begin
    perform divvy.check_name(name, v_what);
    perform divvy.check_keys(options, '{weekend,excluded,included}', v_what);
    insert into divvy.calendar as c (name, weekend) values (put_calendar.name, coalesce(divvy.weekend_of(options, v_what), '{6,7}'))
    on conflict on constraint calendar_pkey do update set weekend = coalesce(divvy.weekend_of(options, v_what), c.weekend), updated_at = divvy.clock();
    foreach v_list in array '{excluded,included}'::text[] loop
        continue when not options ? v_list;
        delete from divvy.calendar_date d where d.calendar = put_calendar.name and d.works = (v_list = 'included');
        begin
            insert into divvy.calendar_date (calendar, date, works, note)
            select put_calendar.name, (case jsonb_typeof(e) when 'object' then e ->> 'date' else e #>> '{}' end)::date, v_list = 'included', e ->> 'note'
            from jsonb_array_elements(options -> v_list) e;
        exception when unique_violation or data_exception or not_null_violation then
            perform divvy.bad_option(v_what, format('%s: %s; a date stands in one list, once', v_list, sqlerrm));
        end;
    end loop;
    perform divvy.check_limit('batch', (select count(*) from divvy.calendar_date d where d.calendar = put_calendar.name), v_what);
    perform divvy.record('put_calendar', 'calendar', name, null, null, options);
    update divvy.schedule s set next_fire_at = divvy.early_of(s, s.moment_at)
    where s.calendar = put_calendar.name and s.calendar_shift = 'previous' and s.status in ('active', 'paused');
end $$;

create or replace function divvy.weekend_of(p_options jsonb, p_what text) returns int[]
language plpgsql as $$
declare
    v_days int[];
begin
    v_days := array(select e::int from jsonb_array_elements_text(p_options -> 'weekend') e);
    if not v_days <@ array[1, 2, 3, 4, 5, 6, 7] or array[1, 2, 3, 4, 5, 6, 7] <@ v_days then
        perform divvy.bad_option(p_what, format('weekend is %s; it is a list of 1 (Monday) to 7, and not all of them', p_options -> 'weekend'));
    end if;
    return case when p_options ? 'weekend' then v_days end;
exception when data_exception then
    perform divvy.bad_option(p_what, format('weekend is %s; it is a list of 1 (Monday) to 7', p_options -> 'weekend'));
end $$;

-- Forgets a calendar. Errors: DV004 (a schedule that has not ended uses it), DV011.
create or replace function divvy.drop_calendar(name text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    v_user text;
begin
    select s.name into v_user from divvy.schedule s where s.calendar = drop_calendar.name and s.status in ('active', 'paused', 'refused') limit 1;
    if found then
        raise exception using errcode = 'DV004', message = format('calendar %s is used by schedule %s', name, v_user);
    end if;
    delete from divvy.calendar c where c.name = drop_calendar.name;
    if not found then
        perform divvy.unknown('calendar', drop_calendar.name);
    end if;
    perform divvy.record('drop_calendar', 'calendar', name, null, null, null);
end $$;

create or replace function divvy.is_working_day(p_calendar text, p_date date) returns boolean
language plpgsql stable as $$
begin
    return coalesce((select d.works from divvy.calendar_date d where d.calendar = p_calendar and d.date = p_date),
        not exists (select from divvy.calendar c where c.name = p_calendar and extract(isodow from p_date) = any (c.weekend)));
end $$;

-- When a moment fires by its calendar, at the same time of another day; null: not at all. And why, where it is not its own time.
create or replace function divvy.moved_by_calendar(s divvy.schedule, p_at timestamptz, out at timestamptz, out reason text)
language plpgsql stable as $$
declare
    v_local timestamp := p_at at time zone s.timezone;
    v_day date;
begin
    if divvy.is_working_day(s.calendar, v_local::date) then
        at := p_at;
        return;
    end if;
    reason := format('%s is no working day of calendar %s', v_local::date,
        concat(s.calendar, (select ' (' || d.note || ')' from divvy.calendar_date d where d.calendar = s.calendar and d.date = v_local::date)));
    if s.calendar_shift = 'skip' then
        return;
    end if;
    for i in 1..31 loop
        v_day := v_local::date + case s.calendar_shift when 'next' then i else -i end;
        if divvy.is_working_day(s.calendar, v_day) then
            at := (v_day + v_local::time) at time zone s.timezone;
            reason := format('moved to %s: %s', v_day, reason);
            return;
        end if;
    end loop;
    reason := reason || ', and there is none within 31 days';
end $$;

-- When somebody has to look because of a moment: a calendar may call for it before its time.
create or replace function divvy.early_of(s divvy.schedule, p_at timestamptz) returns timestamptz
language plpgsql stable as $$
begin
    if s.calendar is null or s.calendar_shift <> 'previous' or p_at is null
            or divvy.is_working_day(s.calendar, (p_at at time zone s.timezone)::date) then
        return p_at;
    end if;
    return coalesce((select m.at from divvy.moved_by_calendar(s, p_at) m), p_at);
end $$;

-- Of several moments that a calendar brings to one time, one fires: that whose own time it is, else the first.
create or replace function divvy.merge_moved(s divvy.schedule, f divvy.schedule_fire, p_moved timestamptz, p_now timestamptz) returns divvy.schedule_fire
language plpgsql as $$
declare
    v_other timestamptz;
begin
    select x.fire_at into v_other from divvy.schedule_fire x
    where x.schedule_id = s.id and x.kind = 'rule' and x.outcome in ('waiting', 'fired') and x.fire_at <> f.fire_at
        and x.fire_at between p_moved - interval '40 days' and p_moved + interval '40 days'
        and coalesce(x.due_at, x.fire_at) - divvy.jitter_of(s, x.fire_at) = p_moved
    order by x.fire_at limit 1;
    if v_other is null then
        return f;
    elsif p_moved <> f.fire_at then
        return divvy.decide_moment(f, 'merged', null, format('into %s: %s', v_other, f.reason), p_now);
    end if;
    update divvy.schedule_fire x set outcome = 'merged', reason = format('into %s: %s', f.fire_at, x.reason), at = p_now, look_at = null, not_before = null,
        late = interval '0'
    where x.schedule_id = s.id and x.kind = 'rule' and x.outcome = 'waiting' and x.fire_at <> f.fire_at
        and x.fire_at between p_moved - interval '40 days' and p_moved + interval '40 days'
        and coalesce(x.due_at, x.fire_at) - divvy.jitter_of(s, x.fire_at) = p_moved;
    return f;
end $$;

-- What becomes of moments of a schedule by its calendar and its jitter, should nothing else stand against them: fires (at due_at),
-- skipped, or merged into another one of these. For previews. Errors: DV011.
create or replace function divvy.due_times(schedule_id bigint, moments timestamptz[])
returns table (moment timestamptz, outcome text, due_at timestamptz, reason text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    s divvy.schedule;
begin
    select * into s from divvy.schedule d where d.id = due_times.schedule_id;
    if not found then
        perform divvy.unknown('schedule', schedule_id::text);
    end if;
    return query
    select t.at, case when t.to_at is null then 'skipped' when t.into_at <> t.at then 'merged' else 'fires' end,
        case when t.into_at = t.at then t.to_at + t.jitter end,
        case when t.into_at <> t.at then format('into %s: %s', t.into_at, t.why) else coalesce(t.why, 'jitter of ' || nullif(t.jitter, interval '0')) end
    from (
        select m.at, c.at as to_at, c.reason as why, divvy.jitter_of(s, m.at) as jitter,
            case when c.at is null then m.at else first_value(m.at) over (partition by c.at order by m.at <> c.at, m.at) end as into_at
        from unnest(moments) m (at), lateral (select x.at, x.reason from divvy.moved_by_calendar(s, m.at) x where s.calendar is not null
            union all select m.at, null where s.calendar is null) c) t
    order by 1;
end $$;
