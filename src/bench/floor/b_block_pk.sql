-- The floor of a divided task: splits are never updated. One small row leases a block of them, and one statement
-- appends the outcomes of the last block, each at most once, and leases the next.

-- part: schema
drop schema if exists divvy_bench_floor cascade;
create schema divvy_bench_floor;
create table divvy_bench_floor.split (
    id bigint generated always as identity primary key,
    task_id bigint not null default 1,
    payload jsonb not null
);
create table divvy_bench_floor.block (
    lo bigint primary key,
    hi bigint not null,
    queue int not null default 1,
    priority smallint not null default 0,
    status smallint not null default 0,
    lease_until timestamptz,
    attempt smallint not null default 0
);
create index block_ready on divvy_bench_floor.block (queue, priority, lo) where status = 0;
create table divvy_bench_floor.done (
    id bigint primary key,
    status smallint not null default 2,
    at timestamptz not null default now()
);

-- part: fill ($1 = how many, $2 = payload, $3 = splits of a block)
with inserted as materialized (
    insert into divvy_bench_floor.split (payload) select $2::text::jsonb from generate_series(1, $1::bigint) returning id
), ends as (
    select min(id) as lo, max(id) as hi from inserted
)
insert into divvy_bench_floor.block (lo, hi)
select l, least(l + $3::bigint, ends.hi + 1) from ends, generate_series(ends.lo, ends.hi, $3::bigint) l

-- part: vacuum
vacuum (analyze) divvy_bench_floor.split, divvy_bench_floor.block, divvy_bench_floor.done

-- part: complete ($1 = ids, the first is the block's)
with done as (
    insert into divvy_bench_floor.done (id) select unnest($1::bigint[]) on conflict do nothing
)
update divvy_bench_floor.block set status = 2 where lo = ($1::bigint[])[1]

-- part: next ($1 = ids to complete, $2 = more than 0, $3 = the position)
with done as (
    insert into divvy_bench_floor.done (id) select unnest($1::bigint[]) on conflict do nothing
), finished as (
    update divvy_bench_floor.block set status = 2 where lo = ($1::bigint[])[1]
), leased as (
    update divvy_bench_floor.block set status = 1, lease_until = now() + interval '30 s', attempt = attempt + 1
    where lo = any (array(
        select lo from divvy_bench_floor.block
        where queue = 1 and priority = 0 and status = 0 and lo > $3
        order by priority, lo limit 1
        for update skip locked))
    returning lo, hi
)
select s.id, s.payload from divvy_bench_floor.split s
where s.id >= (select lo from leased) and s.id < (select hi from leased) and $2::bigint > 0

-- part: ended
select count(*) from divvy_bench_floor.done
