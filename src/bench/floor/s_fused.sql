-- The floor of single splits: one table, a partial index on what is ready, and one statement that completes the
-- last batch and claims the next. Nothing else: no lease that ends, no retry, no worker, no fairness.

-- part: schema
drop schema if exists divvy_bench_floor cascade;
create schema divvy_bench_floor;
create table divvy_bench_floor.job (
    id bigint generated always as identity primary key,
    queue int not null default 1,
    status smallint not null default 0,
    priority smallint not null default 0,
    run_at timestamptz not null default now(),
    lease_until timestamptz,
    attempt smallint not null default 0,
    payload jsonb not null
) with (fillfactor = 100);
create index job_ready on divvy_bench_floor.job (queue, priority, id) where status = 0;

-- part: fill ($1 = how many, $2 = payload)
insert into divvy_bench_floor.job (payload) select $2::text::jsonb from generate_series(1, $1::bigint)

-- part: vacuum
vacuum (analyze) divvy_bench_floor.job

-- part: enqueue ($1 = payloads)
insert into divvy_bench_floor.job (payload) select p::jsonb from unnest($1::text[]) p

-- part: claim ($1 = how many)
update divvy_bench_floor.job set status = 1, lease_until = now() + interval '30 s', attempt = attempt + 1
where id = any (array(
    select id from divvy_bench_floor.job
    where queue = 1 and status = 0 and run_at <= now()
    order by priority, id limit $1
    for update skip locked))
returning id, payload

-- part: complete ($1 = ids)
update divvy_bench_floor.job set status = 2 where id = any ($1)

-- part: next ($1 = ids to complete, $2 = how many to claim)
with done as (update divvy_bench_floor.job set status = 2 where id = any ($1))
update divvy_bench_floor.job set status = 1, lease_until = now() + interval '30 s', attempt = attempt + 1
where id = any (array(
    select id from divvy_bench_floor.job
    where queue = 1 and status = 0 and run_at <= now()
    order by priority, id limit $2
    for update skip locked))
returning id, payload

-- part: ended
select count(*) from divvy_bench_floor.job where status = 2
