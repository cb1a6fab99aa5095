-- A long history, put in without triggers: 300,000 plain tasks and 300,000 splits of divided ones that have ended, and what goes with them.
set session_replication_role = replica;
insert into divvy.task (task_type, status, state, attempt, token, worker, created_at, started_at, finished_at)
select (array['plain', 'most', 'group', 'fair', 'rate', 'kept'])[1 + i % 6], 'succeeded', 'succeeded', 1, nextval('divvy.token'), gen_random_uuid(),
    now() - interval '1 hour', now(), now()
from generate_series(1, 300000) i;
with k as (
    insert into divvy.task (task_type, status, state, phase, finished_at, split_count, created_at, watched)
    select (array['divided', 'divided_limited', 'large'])[1 + i % 3], 'succeeded', null, null, now(), 300, now() - interval '1 hour', false
    from generate_series(1, 1000) i returning id, task_type)
insert into divvy.share (share_of, split_no, task_type, state, attempt, token, finished_at)
select k.id, n, k.task_type, 'succeeded', 1, 1, now() from k, generate_series(1, 300) n;
insert into divvy.attempt (split_id, token, task_id, attempt, phase, outcome, finished_at)
select id, 1, id, 1, 'execute', 'failed', now() - interval '3 hours' from divvy.task limit 100000;
insert into divvy.split_log (split_id, token, line, at, level, message) select id, 1, 1, now(), 'info', 'x' from divvy.task limit 100000;
insert into divvy.ended (share_of, first_no, last_no, id_base, token, worker, started_at, finished_at)
select i, 1, 9, (1::bigint << 60) + i * 10, 1, gen_random_uuid(), now(), now() from generate_series(1, 30000) i;
insert into divvy.dropped (share_of, first_no, last_no, id_base, state, due_at, finished_at)
select i, 11, 19, (1::bigint << 60) + i * 10, 'skipped', now(), now() from generate_series(1, 100000) i;
insert into divvy.event (actor, verb, object, object_id) select 'a', 'b', 'c', i::text from generate_series(1, 100000) i;
insert into divvy.schedule_fire (schedule_id, fire_at, outcome, task_id) select 1 + i % 20, now() - i * interval '1 min', 'fired', i from generate_series(1, 100000) i;
insert into divvy.kept_answer (holder, key, request, status, answer, kept_until) select 'h', i::text, '', 200, '', now() + interval '1 hour' from generate_series(1, 100000) i;
set session_replication_role = origin;
vacuum divvy.task;
vacuum divvy.share;
vacuum divvy.lease;
vacuum divvy.attempt;
vacuum divvy.stretch;
vacuum divvy.fan_in;
vacuum divvy.freed;
vacuum divvy.event;
-- As those who claimed all this would have left the marks.
select divvy.advance_low_water(), divvy.advance_low_water();
select divvy.raise_marks(name, null, 0) from divvy.task_type;
