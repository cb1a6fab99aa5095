-- The floor of single splits that stays flat: as s_fused, but a claim begins at a remembered position, finds its rows by
-- their places, and goes back to a mark now and then. Nothing below the mark can become ready any more.

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

-- part: complete ($1 = ids)
update divvy_bench_floor.job set status = 2 where id = any ($1)

-- part: next ($1 = ids to complete, $2 = how many to claim, $3 = the position)
with done as (update divvy_bench_floor.job set status = 2 where id = any ($1))
update divvy_bench_floor.job set status = 1, lease_until = now() + interval '30 s', attempt = attempt + 1
where ctid = any (array(
    select ctid from divvy_bench_floor.job
    where queue = 1 and status = 0 and run_at <= now() and priority = 0 and id > $3
    order by id limit $2
    for update skip locked))
returning id, payload

-- part: last (the last id that was given out)
select last_value from divvy_bench_floor.job_id_seq

-- part: writers (who may still commit a lower one)
select virtualtransaction from pg_locks where relation = 'divvy_bench_floor.job'::regclass and mode = 'RowExclusiveLock'

-- part: mark ($1 = the mark so far, $2 = an id that every writer of then has passed)
select coalesce(min(id) - 1, $2) from divvy_bench_floor.job
where queue = 1 and priority = 0 and status = 0 and id > $1 and id <= $2

-- part: ended
select count(*) from divvy_bench_floor.job where status = 2
