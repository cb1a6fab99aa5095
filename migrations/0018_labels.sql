-- A view that is a function now, and those that read it; functions of the rules that have other arguments from here on.
drop view if exists divvy.type_stats;
create or replace view divvy.full_type as select t.name from divvy.task_type t where false;
drop view if exists divvy.type_room;
drop function if exists divvy.comes_behind_a_large_task(text, int);
drop function if exists divvy.labels_of(text, int, bigint[]);
