-- How long duties may rest. Each knows from what is written when it has something to do next; so whoever sees to them asks for that
-- often, and for them only when they are due.

-- Seconds in which a duty finds nothing to do, unless something is written meanwhile that this look does not know yet. 0: it may
-- have something to do at any moment. At most half a minute, for what no moment tells.
create or replace function divvy.rests()
returns table (duty text, rest double precision)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan set jit = off set lock_timeout = '1 s' as $$
declare
    v_longest constant interval := '30 s';
    v_now constant timestamptz := divvy.clock();
    v_due timestamptz;
begin
    -- Under load this is all: the marks are behind what came, and whatever runs may end.
    if divvy.keys_are_open() or exists (select from divvy.lease) then
        return query select d, 0::double precision from unnest(array['fire', 'promote', 'reduce_check', 'reclaim', 'low_water', 'prune']) d;
    else
        for duty, v_due in values
            ('fire', divvy.fires_at(v_now)),
            ('promote', divvy.promotes_at(v_now)),
            ('reduce_check', case when exists (select from divvy.fan_in) then v_now end),
            -- A pause of reclaim is a pause of the database to it, so there is none.
            ('reclaim', least((select p.reclaimed_at + interval '5 s' from divvy.pulse p),
                (select least(k.deadline_at, k.cancel_requested_at) from divvy.task k
                where least(k.deadline_at, k.cancel_requested_at) is not null and k.watched order by least(k.deadline_at, k.cancel_requested_at) limit 1))),
            ('low_water', null),
            ('prune', (select case when w.round_id is null then w.next_round_at else v_now end from divvy.walk w where w.name = 'prune'))
        loop
            rest := extract(epoch from greatest(v_now, least(v_due, v_now + v_longest)) - v_now);
            return next;
        end loop;
    end if;
    return query select m.name, extract(epoch from greatest(v_now, least(m.next_at, v_now + v_longest)) - v_now)::double precision from divvy.once_a_minute m;
end $$;

-- Whether keys were given out that are not verified yet, or something below the marks is still to be looked for.
create or replace function divvy.keys_are_open() returns boolean
language plpgsql stable as $$
begin
    return (select s.last_value - (not s.is_called)::int from divvy.key s) is distinct from (select w.verified_key from divvy.low_water w)
        or exists (select from divvy.late_writer) or exists (select from divvy.sweep) or exists (select from divvy.behind);
end $$;

-- When schedules have something to do: at once where a run has ended or a cron schedule waits for its plan.
create or replace function divvy.fires_at(p_now timestamptz) returns timestamptz
language plpgsql stable as $$
begin
    if exists (select from divvy.run_ended) or exists (select from divvy.unplanned()) or exists (select from divvy.schedule s where s.name_until is not null) then
        return p_now;
    end if;
    return least(divvy.next_fire(),
        (select s.paused_until from divvy.schedule s where s.status = 'paused' and s.paused_until is not null order by s.paused_until limit 1),
        (select f.look_at from divvy.schedule_fire f where f.outcome = 'waiting' order by f.look_at limit 1));
end $$;

create or replace function divvy.next_fire() returns timestamptz
language plpgsql stable as $$
begin
    return (select s.next_fire_at from divvy.schedule s where s.status = 'active' and s.next_fire_at is not null order by s.next_fire_at limit 1);
end $$;

-- When promote has something to do; at once where a limit holds something back, for that may go on at any moment.
create or replace function divvy.promotes_at(p_now timestamptz) returns timestamptz
language plpgsql stable as $$
begin
    if divvy.next_held_type('') is not null then
        return p_now;
    end if;
    return least(divvy.next_due(),
        (select min(t.paused_until) from divvy.task_type t),
        (select k.paused_until from divvy.task k where k.paused_until is not null order by k.paused_until limit 1));
end $$;

-- The next moment at which a split that waits for it is ready, or a scheduled task of a declared type starts.
create or replace function divvy.next_due() returns timestamptz
language plpgsql stable as $$
begin
    return least((select u.due_at from divvy.unit u where u.due_at < 'infinity' and u.key < 0 and u.phase is not null order by u.due_at limit 1),
        (select min(w.run_at) from divvy.first_scheduled() w join divvy.task_type t on t.name = w.task_type));
end $$;
