create schema if not exists divvy_bench;
create table if not exists divvy_bench.run (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    command text not null,
    report jsonb not null
);
