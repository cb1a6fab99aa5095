-- Types whose steps are SQL. divvy serve logs in as the type's role and runs each statement in the transaction that
-- completes its split, so what it wrote and its outcome commit together:
--   split    $1 the task's payload; each row is one share
--   execute  $1 the task's payload, $2 the share; no row, or one row that is the result
--   reduce   $1 the task's payload, $2 how many splits there are, in all and by state; reads divvy.results()

-- The results of the task that is being reduced, for the statement that reduces it: divvy serve says in settings of the
-- transaction whose they are. Errors: DV001. Locks: none.
create or replace function divvy.results()
returns table (split_no int, status text, result jsonb, error jsonb)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare
    v_split bigint := nullif(current_setting('divvy.split_id', true), '')::bigint;
    v_token bigint := nullif(current_setting('divvy.token', true), '')::bigint;
begin
    if v_split is null or v_token is null then
        raise exception using errcode = 'DV010',
            message = 'divvy.results() is for the reduce statement of a type in SQL, while divvy serve runs it';
    end if;
    perform from divvy.task k where k.id = v_split and k.token = v_token and k.state = 'running' and k.phase = 'reduce';
    if not found then
        perform divvy.refuse(v_split, v_token);
    end if;
    return query
    select x.* from divvy.ended_splits(v_split, 0, null) x;
end $$;

-- Lets the role of a type finish its splits and read their results, and nothing else: a token is needed for either.
create or replace function divvy.admit_sql_role(p_role text) returns void
language plpgsql as $$
begin
    -- Only what is missing: grants of the same right at the same time collide.
    if not has_schema_privilege(p_role, 'divvy', 'usage') then
        execute format('grant usage on schema divvy to %I', p_role);
    end if;
    if not has_function_privilege(p_role, 'divvy.complete(bigint, bigint, jsonb)', 'execute') then
        execute format('grant execute on function divvy.complete(bigint, bigint, jsonb) to %I', p_role);
    end if;
    if not has_function_privilege(p_role, 'divvy.results()', 'execute') then
        execute format('grant execute on function divvy.results() to %I', p_role);
    end if;
end $$;
