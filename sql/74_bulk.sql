-- People intervene in many tasks at once: those that a filter finds, each by the function that a person would call for it.

-- Does one thing to every task that matches the filter and that it can be done to. A call does it to 'bulk' tasks at most, in the order of
-- their ids: call it again with {"after": last_id} until last_id is null. A dry run, which is the default, only counts.
-- Filter, all of what is given: ids, task_type, status (a text or an array of them), created_after, created_before, finished_after,
-- finished_before, group_key, labels (all of them), dedupe_key, dedupe_prefix, error (a fingerprint of divvy.dead_splits, of the task or of a
-- split of it), schedule_id, parent_task_id; {"all": true} instead, for every task.
-- Actions, and their options beside reason: cancel; redrive (skipped, where, max_attempts, fresh); pause (until); resume; reschedule of what is
-- scheduled (run_at, priority); forget.
-- Returns how many matched (null in a call with `after`: it was said before), how many it was done to, how many it
-- was refused for by their state or because somebody held them just then, and the last that was looked at: null after the last.
-- Errors: DV003, DV010. Locks: the tasks one after another, those that are free; what each function locks.
create or replace function divvy.bulk(filter jsonb, action text, dry_run boolean default true, options jsonb default '{}',
    out matched bigint, out done bigint, out refused bigint, out last_id bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    v_page constant bigint := divvy.limit_of('bulk');
    v_now timestamptz := divvy.clock();
    v_statuses divvy.task_status[];
    v_ids bigint[];
    v_id bigint;
begin
    perform divvy.need_read_committed('bulk'), divvy.check_bulk(filter, action, options);
    done := 0;
    refused := 0;
    if not filter ? 'after' then
        matched := (select count(*) from divvy.bulk_ids(filter, action, options, v_now, null));
    end if;
    if dry_run is not false then
        return;
    end if;
    v_ids := array(select i from divvy.bulk_ids(filter, action, options, v_now, v_page) i);
    v_statuses := (divvy.bulk_filter(filter)).statuses;
    foreach v_id in array v_ids loop
        if divvy.bulk_one(v_id, v_statuses, action, options, v_now) then
            done := done + 1;
        else
            refused := refused + 1;
        end if;
    end loop;
    last_id := case when cardinality(v_ids) = v_page then v_ids[v_page] end;
    perform divvy.record('bulk', 'tasks', action, options ->> 'reason', filter,
        options - 'reason' || jsonb_build_object('matched', matched, 'done', done, 'refused', refused));
end $$;

-- Raises on a filter, an action or options that it can't follow.
create or replace function divvy.check_bulk(p_filter jsonb, p_action text, p_options jsonb) returns void
language plpgsql as $$
declare
    v_known text[];
    v_what text := format('bulk %s', left(p_action, 100));
begin
    v_known := case p_action when 'cancel' then '{reason}' when 'redrive' then '{reason,skipped,where,max_attempts,fresh}' when 'pause' then '{reason,until}'
        when 'resume' then '{reason}' when 'reschedule' then '{reason,run_at,priority}' when 'forget' then '{reason}' end;
    if v_known is null then
        perform divvy.bad_option('bulk', format('action is %L; it is cancel, redrive, pause, resume, reschedule or forget', left(p_action, 100)));
    end if;
    perform divvy.check_keys(p_options, v_known, v_what || ': options');
    if p_action = 'redrive' then
        perform divvy.check_redrive(p_options, v_what);
    end if;
    perform divvy.check_keys(p_filter, array['ids', 'task_type', 'status', 'created_after', 'created_before', 'finished_after', 'finished_before',
        'group_key', 'labels', 'dedupe_key', 'dedupe_prefix', 'error', 'schedule_id', 'parent_task_id', 'all', 'after'], v_what || ': filter');
    if jsonb_strip_nulls(p_filter) - '{after,all}'::text[] = '{}' and p_filter -> 'all' is distinct from 'true' then
        perform divvy.bad_option(v_what, 'the filter is empty, so every task would match; say {"all": true} if that is meant');
    elsif p_filter -> 'all' = 'true' and jsonb_strip_nulls(p_filter) - '{after,all}'::text[] <> '{}' then
        perform divvy.bad_option(v_what, 'all is true; it goes with no other condition');
    end if;
    perform divvy.check_limit('batch', jsonb_array_length(p_filter -> 'ids'), v_what || ': ids') where jsonb_typeof(p_filter -> 'ids') = 'array';
    perform divvy.check_statuses(divvy.texts_of(p_filter -> 'status'), v_what), divvy.bulk_filter(p_filter);
    perform divvy.check_moment((p_options ->> 'until')::timestamptz, 'until', v_what), divvy.check_moment((p_options ->> 'run_at')::timestamptz, 'run_at', v_what);
    if (p_options ->> 'priority')::int not between 1 and 4 then
        perform divvy.bad_option(v_what, format('priority is %s; it must be 1 (first) to 4', p_options ->> 'priority'));
    end if;
exception when data_exception then
    perform divvy.bad_option(v_what, sqlerrm);
end $$;

create or replace function divvy.check_statuses(p_statuses text[], p_what text) returns void
language plpgsql immutable as $$
declare
    v_status text;
begin
    foreach v_status in array coalesce(p_statuses, '{}') loop
        if not v_status = any (enum_range(null::divvy.task_status)::text[]) then
            perform divvy.bad_option(p_what, format('status is %L; it is one of %s', left(v_status, 100), array_to_string(enum_range(null::divvy.task_status), ', ')));
        end if;
    end loop;
end $$;

-- The texts of a JSON array, or of one text.
create or replace function divvy.texts_of(p_value jsonb) returns text[]
language sql immutable parallel safe as $$
    select case when p_value is null or p_value = 'null' then null when jsonb_typeof(p_value) = 'array' then array(select jsonb_array_elements_text(p_value))
        else array[p_value #>> '{}'] end
$$;

-- A filter as it is asked: null where nothing is said.
create or replace function divvy.bulk_filter(p_filter jsonb, out ids bigint[], out task_types text[], out statuses divvy.task_status[], out created_after timestamptz,
    out created_before timestamptz, out finished_after timestamptz, out finished_before timestamptz, out labels text[], out parent bigint, out schedule bigint,
    out after bigint)
language sql immutable as $$
    select divvy.texts_of(p_filter -> 'ids')::bigint[], divvy.texts_of(p_filter -> 'task_type'), divvy.texts_of(p_filter -> 'status')::divvy.task_status[],
        (p_filter ->> 'created_after')::timestamptz, (p_filter ->> 'created_before')::timestamptz, (p_filter ->> 'finished_after')::timestamptz,
        (p_filter ->> 'finished_before')::timestamptz, divvy.texts_of(p_filter -> 'labels'), (p_filter ->> 'parent_task_id')::bigint,
        (p_filter ->> 'schedule_id')::bigint, coalesce((p_filter ->> 'after')::bigint, 0)
$$;

-- The tasks that match, by id. A plan of its own for each filter: what is not asked for is not looked at, and ids lead to an index.
create or replace function divvy.bulk_ids(p_filter jsonb, p_action text, p_options jsonb, p_now timestamptz, p_max bigint) returns setof bigint
language plpgsql set plan_cache_mode = force_custom_plan as $$
declare
    f record := divvy.bulk_filter(p_filter);
begin
    return query
    select k.id from divvy.task k
    where k.id > f.after and (f.ids is null or k.id = any (f.ids))
        and (f.task_types is null or k.task_type = any (f.task_types))
        and (f.statuses is null or k.status = any (f.statuses))
        and (f.created_after is null or k.created_at > f.created_after) and (f.created_before is null or k.created_at < f.created_before)
        and (f.finished_after is null or k.finished_at > f.finished_after) and (f.finished_before is null or k.finished_at < f.finished_before)
        and (f.labels is null or k.labels @> f.labels)
        and (f.parent is null or k.parent_task_id = f.parent) and (f.schedule is null or k.schedule_id = f.schedule)
        and (p_filter ->> 'group_key' is null or k.group_key = p_filter ->> 'group_key')
        and (p_filter ->> 'dedupe_key' is null or k.dedupe_key = p_filter ->> 'dedupe_key')
        and (p_filter ->> 'dedupe_prefix' is null or starts_with(k.dedupe_key, p_filter ->> 'dedupe_prefix'))
        and divvy.bulk_fits(k, p_action, p_options, p_now)
        and (p_filter ->> 'error' is null or divvy.failed_with(k, p_filter ->> 'error'))
    order by k.id limit p_max;
end $$;

-- Whether a task was forgotten since it ended. A function of its own, so that the next one is inlined: it is asked of each task.
create or replace function divvy.is_forgotten(p_id bigint, p_since timestamptz) returns boolean
language sql stable as $$
    select exists (select from divvy.event e where e.object = 'task' and e.object_id = p_id::text and e.verb = 'forget' and e.at >= p_since)
$$;

-- Whether the action means something for a task, and was not done to it already.
create or replace function divvy.bulk_fits(k divvy.task, p_action text, p_options jsonb, p_now timestamptz) returns boolean
language sql stable as $$
    select case p_action
        when 'cancel' then k.finished_at is null and k.cancel_requested_at is null
        when 'redrive' then k.status in ('partial', 'failed', 'cancelled')
        when 'pause' then k.finished_at is null and k.paused_until is distinct from coalesce((p_options ->> 'until')::timestamptz, 'infinity')
        when 'resume' then k.finished_at is null and k.paused_until is not null
        when 'reschedule' then k.status = 'scheduled' and (k.priority <> (p_options ->> 'priority')::int
            or case when p_options ->> 'run_at' is null then k.run_at > p_now else k.run_at is distinct from (p_options ->> 'run_at')::timestamptz end)
        when 'forget' then k.finished_at is not null and not divvy.is_forgotten(k.id, k.finished_at) end
$$;

-- What went wrong, by which failures are counted: the error's class, or the first line of its message, digits masked.
create or replace function divvy.fingerprint(p_error jsonb, p_reason text) returns text
language sql immutable parallel safe security definer set search_path = pg_catalog, pg_temp as $$
    select coalesce(p_error ->> 'class', regexp_replace(split_part(p_error ->> 'message', E'\n', 1), '\d', '0', 'g'), p_reason)
$$;

-- Whether a task, or a split of it, failed with an error of this fingerprint.
create or replace function divvy.failed_with(k divvy.task, p_fingerprint text) returns boolean
language sql stable as $$
    select (k.state = 'failed' and divvy.fingerprint(k.error, k.reason) = p_fingerprint)
        or exists (select from divvy.share s where s.unsuccessful = k.id and s.state = 'failed' and divvy.fingerprint(s.error, s.reason) = p_fingerprint)
$$;

-- Does it to one task, if that is free and still as it was found. Returns whether it did.
create or replace function divvy.bulk_one(p_id bigint, p_statuses divvy.task_status[], p_action text, p_options jsonb, p_now timestamptz) returns boolean
language plpgsql as $$
declare
    v_reason text := p_options ->> 'reason';
begin
    perform from divvy.task k where k.id = p_id and divvy.bulk_fits(k, p_action, p_options, p_now)
        and (p_statuses is null or k.status = any (p_statuses))
    for update skip locked;
    if not found then
        return false;
    end if;
    case p_action
        when 'cancel' then perform divvy.cancel(p_id, v_reason);
        when 'pause' then perform divvy.pause_task(p_id, (p_options ->> 'until')::timestamptz, v_reason);
        when 'resume' then perform divvy.resume_task(p_id);
        when 'forget' then perform divvy.forget(p_id);
        else return divvy.bulk_try(p_id, p_action, p_options);
    end case;
    return true;
end $$;

-- The same for what the task's state may still refuse.
create or replace function divvy.bulk_try(p_id bigint, p_action text, p_options jsonb) returns boolean
language plpgsql as $$
begin
    if p_action = 'redrive' then
        perform divvy.redrive(p_id, p_options);
    else
        perform divvy.reschedule(p_id, (p_options ->> 'run_at')::timestamptz, (p_options ->> 'priority')::int);
    end if;
    return true;
exception when sqlstate 'DV004' then
    return false;
end $$;
