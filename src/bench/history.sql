-- Tasks that have succeeded, as if workers had claimed them in hundreds an hour ago
-- ($1 = types, $2 = how many, $3 = payload).
insert into divvy.task (task_type, payload, status, state, attempt, token, worker, due_at, created_at, started_at, finished_at)
select ($1::text[])[1 + (c.no * 100 + n) % cardinality($1::text[])], $3::text::jsonb, 'succeeded', 'succeeded', 1, c.token, c.worker,
    c.at, c.at, c.at, c.at
from (
    select no, nextval('divvy.token') as token, gen_random_uuid() as worker, now() - interval '1 hour' as at
    from generate_series(0, ($2::bigint - 1) / 100) no
) c, generate_series(1, 100) n
limit $2::bigint
