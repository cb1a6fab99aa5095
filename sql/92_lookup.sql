-- One split by its id. The views expand stretches, so a condition on the id of one split looks at all of its task; these
-- find it by index.

-- The split as divvy.rowless_split has it: one without a row, or nothing.
create or replace function divvy.rowless_by_id(p_id bigint) returns setof divvy.rowless_split
language sql stable rows 1 set enable_seqscan = off set jit = off as $$
    select p_id, s.share_of, (p_id - s.id_base)::int, case when s.lane < 0 then 'delayed' else 'ready' end::divvy.split_status,
        case when s.held_by is null then s.due_at else 'infinity' end, null::bigint, null::uuid, null::timestamptz, null::timestamptz, null::jsonb,
        case when s.held_by is not null then 'limit' when s.lane < 0 then 'paused' end
    from divvy.stretch_of(p_id) s where s.share_of is not null
    union all
    select p_id, l.share_of, (p_id - l.id_base)::int, 'running', l.due_at, l.token, l.worker, l.claimed_at, null, null, null
    from divvy.lease l
    where l.share_of is not null and not l.written and p_id = any (l.split_ids) and not exists (select from divvy.share x where x.id = p_id)
        and divvy.ended_through(l.share_of, (p_id - l.id_base)::int) < p_id - l.id_base
    union all
    select p_id, e.share_of, (p_id - e.id_base)::int, 'succeeded', e.due_at, e.token, e.worker, e.started_at, e.finished_at,
        e.results[p_id - e.id_base - e.first_no + 1], null
    from divvy.ended e where int8range(e.id_base + e.first_no, e.id_base + e.last_no, '[]') @> p_id
    union all
    select p_id, d.share_of, (p_id - d.id_base)::int, d.state, d.due_at, null, null, null, d.finished_at, null, d.reason
    from divvy.dropped_of(p_id) d where d.share_of is not null
$$;

-- A split as divvy.split shows it. Errors: none; no row where there is no such split.
create or replace function divvy.split_by_id(split_id bigint) returns setof divvy.split
language plpgsql stable rows 1 security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
begin
    return query select s.* from divvy.split s where s.id = split_by_id.split_id and s.has_row;
    if not found then
        return query
        select r.id, r.share_of, k.task_type, 'execute', r.split_no, case when w.why is null then r.state::text else 'delayed' end,
            coalesce(w.why, r.reason), k.priority, case when r.state = 'delayed' then coalesce(k.paused_until, r.due_at) else r.due_at end,
            (r.token is not null)::int, coalesce(k.max_attempts, t.max_attempts), 0::smallint, 0, r.token, r.worker, r.started_at, r.finished_at,
            null::real, null::jsonb, divvy.payload_of(r.share_of, r.split_no), r.result, null::jsonb, k.group_key, false
        from divvy.rowless_by_id(split_by_id.split_id) r
        join divvy.task k on k.id = r.share_of
        left join divvy.task_type t on t.name = k.task_type,
        lateral (select case when r.state <> 'ready' then null when t.paused_until > divvy.clock() then 'type paused'
            when t.limited and t.name in (select f.name from divvy.full_type f) then 'limit' end as why) w;
    end if;
end $$;

-- Every attempt of a split, as divvy.split_attempt shows it. Errors: none.
create or replace function divvy.attempts_by_id(split_id bigint) returns setof divvy.split_attempt
language sql stable rows 10 security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
    select a.split_id, a.token, a.task_id, a.attempt, a.phase::text, a.worker, a.outcome, a.error, a.started_at, a.finished_at
    from divvy.attempt a where a.split_id = attempts_by_id.split_id
    union all
    select s.id, s.token, s.task_id, s.attempt, s.phase, s.worker, s.status, null, s.started_at, s.finished_at
    from divvy.split_by_id(attempts_by_id.split_id) s where s.status in ('running', 'succeeded') and s.token is not null
$$;
