-- Splits of large tasks end in runs: many with adjoining numbers, of one lease, at once. A worker says the first and the last of
-- each, so that nothing is done for every single one (docs/adr/0011).

-- Completes runs of splits without results: three numbers for each, its token and its first and last id; in ascending order of these.
-- What is not of a lease of a stretch, or has become something else, ends as any other split. Returns a verdict for each
-- split of each run, in this order; null: all ok.
create or replace function divvy.finish_runs(p_runs bigint[]) returns text[]
language plpgsql as $$
declare
    v_fine boolean := divvy.check_runs(p_runs);
    v_now timestamptz := divvy.clock();
    v_count constant int := cardinality(p_runs) / 3;
    v_done boolean[];
    v_ids bigint[];         -- of those that did not end as runs,
    v_tokens bigint[];
    v_others text[];        -- and their verdicts
    v_verdicts text[];
    v_length int;
    v_to int;
    v_from int := 1;
begin
    while v_from <= v_count loop
        v_to := v_from;
        while p_runs[3 * v_to + 1] = p_runs[3 * v_from - 2] loop
            v_to := v_to + 1;
        end loop;
        v_done := v_done || divvy.finish_runs_of(p_runs[3 * v_from - 2], array(select p_runs[3 * i - 1] from generate_series(v_from, v_to) i),
            array(select p_runs[3 * i] from generate_series(v_from, v_to) i), v_now);
        v_from := v_to + 1;
    end loop;
    if true = all (v_done) then
        return null;
    end if;
    select array_agg(i order by r.n, i), array_agg(p_runs[3 * r.n - 2] order by r.n, i) into v_ids, v_tokens
    from generate_series(1, v_count) r (n), generate_series(p_runs[3 * r.n - 1], p_runs[3 * r.n]) i
    where not v_done[r.n];
    v_others := divvy.finish(v_ids, v_tokens, null);
    v_from := 1;
    for i in 1 .. v_count loop
        v_length := p_runs[3 * i] - p_runs[3 * i - 1] + 1;
        if v_done[i] then
            v_verdicts := v_verdicts || array_fill('ok'::text, array[v_length]);
        else
            v_verdicts := v_verdicts || v_others[v_from : v_from + v_length - 1];
            v_from := v_from + v_length;
        end if;
    end loop;
    return v_verdicts;
end $$;

create or replace function divvy.check_runs(p_runs bigint[]) returns boolean
language plpgsql as $$
declare
    v_total numeric := 0;
begin
    if cardinality(p_runs) % 3 <> 0 or array_position(p_runs, null) is not null then
        perform divvy.bad_option('complete', format('runs %s: three numbers are a run', p_runs));
    end if;
    for i in 1 .. cardinality(p_runs) by 3 loop
        if p_runs[i + 1] > p_runs[i + 2] or p_runs[i] < p_runs[i - 3] or (p_runs[i] = p_runs[i - 3] and p_runs[i + 1] <= p_runs[i - 1]) then
            perform divvy.bad_option('complete', format('runs: %s to %s of token %s is not in ascending order', p_runs[i + 1], p_runs[i + 2], p_runs[i]));
        end if;
        v_total := v_total + p_runs[i + 2] - p_runs[i + 1] + 1;
    end loop;
    return divvy.check_limit('batch', least(v_total, 9223372036854775807)::bigint, 'complete');
end $$;

-- Ends runs of one lease, ascending, and takes them out of it. False for one that did not end; false for all where the lease does not name
-- them all, or something of what they span is a row. The constraint on the ranges decides between those who end the same splits side by side.
create or replace function divvy.finish_runs_of(p_token bigint, p_firsts bigint[], p_lasts bigint[], p_now timestamptz) returns boolean[]
language plpgsql as $$
declare
    v_none constant boolean[] := array_fill(false, array[cardinality(p_firsts)]);
    v_rest bigint[] := '{}';    -- what the lease names besides
    v_next int := 1;
    v_at int;
    v_end int;
    v_ended bigint[];
    l divvy.lease;
begin
    perform divvy.lock_rowless(p_token, false);
    select * into l from divvy.lease x where x.token = p_token;
    if not found or l.written or l.share_of is null then
        return v_none;
    end if;
    for i in 1 .. cardinality(p_firsts) loop
        -- Its ids ascend, so two that are as far from each other as their places have all between them.
        v_at := width_bucket(p_firsts[i], l.split_ids);
        v_end := width_bucket(p_lasts[i], l.split_ids);
        if v_at = 0 or l.split_ids[v_at] <> p_firsts[i] or l.split_ids[v_end] <> p_lasts[i] or v_end - v_at <> p_lasts[i] - p_firsts[i] then
            return v_none;
        end if;
        v_rest := v_rest || l.split_ids[v_next : v_at - 1];
        v_next := v_end + 1;
    end loop;
    v_rest := v_rest || l.split_ids[v_next:];
    if exists (select from divvy.share s where s.share_of = l.share_of and s.split_no >= p_firsts[1] - l.id_base
        and s.split_no <= p_lasts[cardinality(p_lasts)] - l.id_base)
    then
        return v_none;
    end if;
    with done as (
        insert into divvy.ended (share_of, first_no, last_no, id_base, token, worker, due_at, started_at, finished_at)
        select l.share_of, r.first - l.id_base, r.last - l.id_base, l.id_base, l.token, l.worker, l.due_at, l.claimed_at, p_now
        from unnest(p_firsts, p_lasts) as r (first, last)
        on conflict do nothing
        returning first_no
    )
    select array_agg(l.id_base + d.first_no) into v_ended from done d;
    if v_ended is null then
        return v_none;
    end if;
    if cardinality(v_ended) < cardinality(p_firsts) or not divvy.leave_of_lease(l, v_rest) then
        perform divvy.shrink_lease(l, array(select i from unnest(p_firsts, p_lasts) as r (first, last), generate_series(r.first, r.last) i
            where r.first = any (v_ended) order by i));
    end if;
    perform divvy.look_at(array[l.share_of]);
    return case when cardinality(v_ended) = cardinality(p_firsts) then array_fill(true, array[cardinality(p_firsts)])
        else array(select f = any (v_ended) from unnest(p_firsts) with ordinality as r (f, n) order by n) end;
end $$;

-- Leaves these of what a lease names; one that holds nothing more goes. False where somebody has it locked, or has changed what it names.
create or replace function divvy.leave_of_lease(l divvy.lease, p_rest bigint[]) returns boolean
language plpgsql as $$
declare
    v_place tid[] := array(select x.ctid from divvy.lease x
        where x.token = l.token and x.task_type = l.task_type and x.lane = l.lane for update skip locked);
begin
    if p_rest = '{}' then
        delete from divvy.lease x where x.ctid = any (v_place);
    else
        update divvy.lease x set split_ids = p_rest where x.ctid = any (v_place) and x.split_ids = l.split_ids;
    end if;
    return found;
end $$;
