-- What may come in. Every limit is here, once, and is said in the error that it raises.

-- The limits, by name: bytes of text, counts, characters.
create or replace function divvy.limit_of(p_name text) returns bigint
language sql immutable parallel safe as $$
    select case p_name
        when 'payload' then 1048576          -- bytes
        when 'split payload' then 262144     -- bytes
        when 'result' then 1048576           -- bytes
        when 'checkpoint' then 262144        -- bytes
        when 'headers' then 16384            -- bytes
        when 'error' then 65536              -- bytes
        when 'claim answer' then 8388608     -- bytes
        when 'splits' then 1000000           -- a task
        when 'added splits' then 10000       -- a call
        when 'stretch' then 32               -- splits, from which on a task's lie in stretches (docs/adr/0011)
        when 'batch' then 10000              -- ids in one call
        when 'bulk' then 1000                -- tasks that one call of bulk does something to
        when 'stragglers' then 1000          -- one piece of a look behind a position
        when 'log lines' then 1000           -- an attempt
        when 'log message' then 8192         -- bytes
        when 'labels' then 20
        when 'name' then 100                 -- characters
        when 'group_key' then 200            -- characters
        when 'dedupe_key' then 1000          -- characters
        when 'max_attempts' then 1000
        when 'steps' then 1000
        when 'waiting moments' then 1000     -- a schedule: buffered, made up for, moved
        when 'sampled types' then 1000       -- a minute, the busiest
        when 'sample days' then 7            -- how long samples are kept
        when 'alerts' then 1000              -- open at once
        when 'alert lag' then 300            -- seconds that a split may be ready
        when 'alert failures' then 3         -- runs of a schedule that fail in a row
        when 'alert transaction' then 600    -- seconds that a transaction may be open
    end
$$;

-- Functions that only raise stand apart: what decides whether they are called becomes part of the caller's expression.
create or replace function divvy.over_limit(p_name text, p_value bigint, p_what text) returns boolean
language plpgsql immutable as $$
begin
    raise exception using errcode = 'DV003',
        message = format('%s: %s is %s, the limit is %s', p_what, p_name, p_value, divvy.limit_of(p_name));
end $$;

-- Raises DV003 when a count or size is over its limit. p_what says whose value it is.
create or replace function divvy.check_limit(p_name text, p_value bigint, p_what text) returns boolean
language sql immutable as $$
    select case when p_value > divvy.limit_of(p_name) then divvy.over_limit(p_name, p_value, p_what) else true end
$$;

-- Raises DV003 when a JSON text is over its limit. A value of under 3,000 stored bytes can't be: the
-- compression of Postgres does not reach 1:80 on less.
create or replace function divvy.check_size(p_name text, p_value jsonb, p_what text) returns void
language plpgsql immutable as $$
begin
    if pg_column_size(p_value) >= 3000 then
        perform divvy.check_limit(p_name, octet_length(p_value::text), p_what);
    end if;
end $$;

-- Raises DV010.
create or replace function divvy.bad_option(p_what text, p_problem text) returns void
language plpgsql immutable as $$
begin
    raise exception using errcode = 'DV010', message = format('%s: %s', p_what, p_problem);
end $$;

-- Raises DV010 on a name that is not [a-z0-9_.:-]{1,100}.
create or replace function divvy.check_name(p_name text, p_what text) returns void
language plpgsql immutable as $$
begin
    if p_name is null or p_name !~ '^[a-z0-9_.:-]{1,100}$' then
        perform divvy.bad_option(p_what, format('the name %L is not 1 to 100 of a-z 0-9 _ . : -', left(p_name, 120)));
    end if;
end $$;

-- Raises DV010 on a key that is not among the known ones.
create or replace function divvy.check_keys(p_options jsonb, p_known text[], p_what text) returns void
language plpgsql immutable as $$
declare
    v_unknown text;
begin
    if jsonb_typeof(p_options) is distinct from 'object' then
        perform divvy.bad_option(p_what, format('options are a JSON object, not %s', coalesce(jsonb_typeof(p_options), 'null')));
    end if;
    select k into v_unknown from jsonb_object_keys(p_options) k where not k = any (p_known) order by k limit 1;
    if v_unknown is not null then
        perform divvy.bad_option(p_what, format('unknown option %L; known are %s', left(v_unknown, 100), array_to_string(p_known, ', ')));
    end if;
end $$;

-- Raises DV010 on a moment no calendar reaches: infinity panics in drivers, and so does the year 294276.
create or replace function divvy.check_moment(p_at timestamptz, p_name text, p_what text) returns void
language plpgsql immutable as $$
begin
    if p_at is not null and (not isfinite(p_at) or p_at >= '10000-01-01 00:00+00' or p_at < '1970-01-01 00:00+00') then
        perform divvy.bad_option(p_what, format('%s is %s; it must lie between the years 1970 and 9999', p_name, p_at));
    end if;
end $$;

-- Raises DV010 on an interval that is not positive (or, with p_zero, negative) or over ten years.
create or replace function divvy.check_interval(p_value interval, p_name text, p_what text, p_zero boolean default false)
returns void language plpgsql immutable as $$
begin
    if p_value is not null and (p_value < interval '0' or (p_value = interval '0' and not p_zero) or p_value > interval '10 years') then
        perform divvy.bad_option(p_what, format('%s is %s; it must be %s and at most 10 years', p_name, p_value,
            case when p_zero then 'not negative' else 'positive' end));
    end if;
end $$;

-- Raises DV010 on limits and policies shared by types, tasks and schedules.
create or replace function divvy.check_policy(p_what text, p_max_attempts int, p_timeout interval, p_max_failed int,
    p_max_failed_percent numeric, p_reduce_on text, p_then jsonb) returns void
language plpgsql immutable as $$
begin
    if p_max_attempts not between 1 and divvy.limit_of('max_attempts') then
        perform divvy.bad_option(p_what, format('max_attempts is %s; it must be 1 to 1000', p_max_attempts));
    end if;
    perform divvy.check_interval(p_timeout, 'timeout', p_what);
    if p_max_failed < 0 then
        perform divvy.bad_option(p_what, format('max_failed is %s; it must not be negative', p_max_failed));
    end if;
    if p_max_failed_percent not between 0 and 100 then
        perform divvy.bad_option(p_what, format('max_failed_percent is %s; it must be 0 to 100', p_max_failed_percent));
    end if;
    if p_reduce_on not in ('success', 'tolerated', 'always') then
        perform divvy.bad_option(p_what, format('reduce_on is %L; it is success, tolerated or always', p_reduce_on));
    end if;
    perform divvy.check_then(p_then, p_what);
end $$;

-- `then`: an object of templates by the state that ends the task; a template is an object or an array of them. Each is
-- checked as the task that it will be: one that could not be made would keep its parent from ending.
create or replace function divvy.check_then(p_then jsonb, p_what text) returns void
language plpgsql immutable as $$
declare
    v_template jsonb;
begin
    if p_then is null or p_then = 'null' then
        return;
    end if;
    perform divvy.check_keys(p_then, array['succeeded', 'partial', 'failed', 'cancelled'], p_what || ': then');
    for v_template in
        select t from jsonb_each(p_then) e,
            jsonb_array_elements(case jsonb_typeof(e.value) when 'array' then e.value else jsonb_build_array(e.value) end) t
    loop
        perform divvy.check_keys(v_template, divvy.task_option_names() || array['task_type', 'payload'], p_what || ': then');
        if jsonb_typeof(v_template -> 'payload') not in ('object', 'null') then
            perform divvy.bad_option(p_what || ': then', format('payload is a JSON object, not %s', jsonb_typeof(v_template -> 'payload')));
        end if;
        perform divvy.check_task(divvy.task_from_options(v_template ->> 'task_type',
            divvy.told_payload(v_template, 9223372036854775807, 'succeeded', null, true),
            v_template - array['task_type', 'payload'], p_what || ': then'), p_what || ': then');
    end loop;
end $$;

-- The payload of a template with what is told of the parent.
create or replace function divvy.told_payload(p_template jsonb, p_parent bigint, p_status text, p_result jsonb, p_omitted boolean) returns jsonb
language sql immutable parallel safe as $$
    select case jsonb_typeof(p_template -> 'payload') when 'object' then p_template -> 'payload' else '{}' end
        || jsonb_build_object('parent', p_parent, 'status', p_status, 'result', case when not p_omitted then p_result end)
        || case when p_omitted then '{"result_omitted": true}' else '{}' end::jsonb
$$;

-- Names of the columns of a task that its producer may give, beside type and payload.
create or replace function divvy.task_option_names() returns text[]
language sql immutable parallel safe as $$
    select array['run_at', 'priority', 'dedupe_key', 'group_key', 'labels', 'headers', 'deadline_at', 'splits', 'split_count',
        'split_range', 'split_size', 'max_attempts', 'timeout', 'max_failed', 'max_failed_percent', 'reduce_on', 'then']
$$;

-- How many splits a range of keys makes. Numeric, so that no bound overflows; div, because a quotient is rounded.
create or replace function divvy.range_splits(p_range int8range, p_size bigint) returns numeric
language sql immutable parallel safe as $$
    select case when isempty(p_range) then 0
        else div(upper(p_range)::numeric - lower(p_range)::numeric + p_size - 1, p_size) end
$$;

-- Raises DV003 or DV010 on shares that can't be made.
create or replace function divvy.check_shares(p_what text, p_splits jsonb, p_count int, p_range int8range, p_size bigint)
returns void language plpgsql immutable as $$
declare
    v_no int;
begin
    if num_nonnulls(p_splits, p_count, p_range) > 1 then
        perform divvy.bad_option(p_what, 'give one of splits, split_count and split_range, not several');
    end if;
    if (p_range is null) <> (p_size is null) then
        perform divvy.bad_option(p_what, 'split_range and split_size go together');
    end if;
    if p_splits is not null then
        if jsonb_typeof(p_splits) <> 'array' then
            perform divvy.bad_option(p_what, format('splits is a JSON array, not %s', jsonb_typeof(p_splits)));
        end if;
        perform divvy.check_limit('splits', jsonb_array_length(p_splits), p_what);
        select n into v_no from jsonb_array_elements(p_splits) with ordinality as s (payload, n)
            where octet_length(payload::text) > divvy.limit_of('split payload') limit 1;
        if v_no is not null then
            perform divvy.check_limit('split payload', octet_length((p_splits -> (v_no - 1))::text), format('%s: split %s', p_what, v_no));
        end if;
    elsif p_count is not null then
        if p_count < 0 then
            perform divvy.bad_option(p_what, format('split_count is %s; it must not be negative', p_count));
        end if;
        perform divvy.check_limit('splits', p_count, p_what);
    elsif p_range is not null then
        if p_size < 1 then
            perform divvy.bad_option(p_what, format('split_size is %s; it must be positive', p_size));
        end if;
        if not isempty(p_range) and (lower_inf(p_range) or upper_inf(p_range)) then
            perform divvy.bad_option(p_what, format('split_range %s has no end', p_range));
        end if;
        perform divvy.check_limit('splits', least(divvy.range_splits(p_range, p_size), 9e18)::bigint, p_what);
    end if;
end $$;

-- Raises DV003 or DV010 on a task that may not come in. p_what names it: "task row 3".
create or replace function divvy.check_task(r divvy.task, p_what text) returns void
language plpgsql immutable as $$
begin
    perform divvy.check_name(r.task_type, p_what || ': task_type');
    perform divvy.check_size('payload', r.payload, p_what);
    perform divvy.check_size('headers', r.headers, p_what);
    if r.headers is not null and jsonb_typeof(r.headers) <> 'object' then
        perform divvy.bad_option(p_what, format('headers is a JSON object, not %s', jsonb_typeof(r.headers)));
    end if;
    if r.priority is null or r.priority not between 1 and 4 then
        perform divvy.bad_option(p_what, format('priority is %s; it must be 1 (first) to 4', coalesce(r.priority::text, 'null')));
    end if;
    perform divvy.check_limit('labels', coalesce(array_length(r.labels, 1), 0), p_what);
    perform divvy.check_limit('group_key', length(r.group_key), p_what);
    perform divvy.check_limit('dedupe_key', length(r.dedupe_key), p_what);
    perform divvy.check_moment(r.run_at, 'run_at', p_what);
    perform divvy.check_moment(r.deadline_at, 'deadline_at', p_what);
    perform divvy.check_policy(p_what, r.max_attempts, r.timeout, r.max_failed, r.max_failed_percent, r.reduce_on, r."then");
    perform divvy.check_shares(p_what, r.splits, r.split_count, r.split_range, r.split_size);
end $$;

-- False when check_task must look at a task; true or null when it would find nothing. For every row that comes in: one
-- expression, inlined into the statement, while check_task costs ten times what the row does. A text has no more
-- characters than bytes. p_others: of the columns that are always looked at, how many are given.
create or replace function divvy.is_fine(p_priority smallint, p_payload jsonb, p_headers jsonb, p_labels text[], p_group_key text, p_dedupe_key text,
    p_run_at timestamptz, p_deadline_at timestamptz, p_max_attempts int, p_others int) returns boolean
language sql stable parallel safe as $$
    select p_priority is not null and p_priority between 1 and 4 and p_others = 0
        and pg_column_size(p_payload) < 3000
        and octet_length(p_headers::text) <= divvy.limit_of('headers') and jsonb_typeof(p_headers) = 'object'
        and cardinality(p_labels) <= divvy.limit_of('labels')
        and octet_length(p_group_key) <= divvy.limit_of('group_key')
        and octet_length(p_dedupe_key) <= divvy.limit_of('dedupe_key')
        and p_run_at >= '1970-01-01 00:00+00' and p_run_at < '10000-01-01 00:00+00'
        and p_deadline_at >= '1970-01-01 00:00+00' and p_deadline_at < '10000-01-01 00:00+00'
        and p_max_attempts between 1 and divvy.limit_of('max_attempts')
$$;

create or replace function divvy.other_isolation(p_call text) returns boolean
language plpgsql stable as $$
begin
    raise exception using errcode = 'DV010',
        message = format('divvy.%s needs READ COMMITTED, this transaction is %s', p_call, upper(current_setting('transaction_isolation')));
end $$;

-- Raises when the caller's transaction sees one old snapshot: the call would decide on what was.
create or replace function divvy.need_read_committed(p_call text) returns boolean
language sql stable as $$
    select case when current_setting('transaction_isolation') <> 'read committed' then divvy.other_isolation(p_call) else true end
$$;

-- A text that any reader can bear: no NUL, no lone surrogate, at most p_max bytes.
-- (A text or jsonb value of Postgres holds neither; what is left is the length.)
create or replace function divvy.capped(p_value jsonb, p_name text) returns jsonb
language sql immutable as $$
    select case
        when p_value is null or pg_column_size(p_value) < 3000 or octet_length(p_value::text) <= divvy.limit_of(p_name) then p_value
        when jsonb_typeof(p_value) = 'object' then jsonb_build_object('class', left(p_value ->> 'class', 200),
            'message', left(p_value ->> 'message', 4000), 'truncated', true)
        else jsonb_build_object('class', null, 'message', left(p_value #>> '{}', 4000), 'truncated', true)
    end
$$;
