-- What enqueue is compared with: a table with the same columns and defaults, one index, and no rule.
create schema if not exists divvy_bench;
drop table if exists divvy_bench.plain;
create table divvy_bench.plain (like divvy.task including defaults including generated, primary key (id));
