-- A batch job without a line of Rust: a type whose three steps are SQL.
--
--   divvy db psql -- --quiet --file examples/settle.sql
--   divvy serve                                               in another terminal
--   divvy enqueue settle --payload '{"size": 100}' --wait

-- What the job works on: a thousand invoices that nobody has settled yet.
create table if not exists invoice (
    id int primary key,
    cents int not null,
    settled_at timestamptz
);
insert into invoice (id, cents) select i, 100 + i from generate_series(1, 1000) i
on conflict do nothing;

-- split    $1 the task's payload; each row is one share
-- execute  $1 the task's payload, $2 the share; its row is the split's result
-- reduce   $1 the task's payload, $2 how many splits there are; its row is the task's result
-- Each statement runs in the transaction that completes its split: an invoice is settled exactly once.
select divvy.put_task_type('settle', $type$ {
    "handler": {"sql": {
        "split": "select jsonb_build_object('lo', lo, 'hi', lo + size) from (select ($1->>'size')::int as size) p, generate_series(1, 1000, size) lo",
        "execute": "with settled as (update invoice set settled_at = now() where id >= ($2->>'lo')::int and id < ($2->>'hi')::int and settled_at is null returning cents) select jsonb_build_object('invoices', count(*), 'cents', sum(cents)) from settled",
        "reduce": "select jsonb_build_object('invoices', sum((result->>'invoices')::int), 'cents', sum((result->>'cents')::int)) from divvy.results()",
        "statement_timeout": "10 s"
    }}
} $type$);
