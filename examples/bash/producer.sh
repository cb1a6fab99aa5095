#!/usr/bin/env bash
# What a producer does, with psql alone: DATABASE_URL=postgres://… bash producer.sh TYPE
#
# The last thing it makes is a task of 20 splits for worker.sh; it waits for the result and prints it.
set -euo pipefail

sql() { psql "$DATABASE_URL" -XAtq -F ' ' -v ON_ERROR_STOP=1 -v type="$type" -v seconds="${SECONDS_PER_SPLIT:-0.02}" "${@/#/-v}"; }
type=$1

sql <<'SQL'
set client_min_messages = warning;
create temporary table purchase (id bigint generated always as identity, what text);

-- Your rows and the task commit together …
begin;
insert into purchase (what) values ('a book');
insert into divvy.task (task_type, payload, run_at) values (:'type', '{"order": "a book"}', 'tomorrow') returning id as kept \gset
commit;

-- … or not at all.
begin;
insert into purchase (what) values ('a ship');
insert into divvy.task (task_type) values (:'type') returning id as gone \gset
rollback;

select array_agg(what) = '{a book}' and (select status from divvy.task_result(:kept)) = 'scheduled'
    and not exists (select from divvy.task_overview where task_id = :gone) as is_right
from purchase \gset
\if :is_right
\else
  \warn 'a rolled back task is there, or a committed one is not'
  select 1 / 0;
\endif

-- Many at once.
insert into divvy.task (task_type, payload, run_at) select :'type', jsonb_build_object('n', n), '2100-01-01' from generate_series(1, 1000) n;
SQL

# At most one open task with a key: the second is none.
once="insert into divvy.task (task_type, dedupe_key, run_at) values (:'type', :'key', 'tomorrow') on conflict do nothing returning id"
key="run $$ of $(date +%s)"
first=$(sql key="$key" <<<"$once")
second=$(sql key="$key" <<<"$once")
if [ -z "$first" ] || [ -n "$second" ]; then
  echo "a key was held twice, or not at all: '$first' and '$second'" >&2
  exit 1
fi

# A divided task: 20 ranges of 300 numbers. Headers go to every split; a traceparent continues your trace.
task=$(sql <<'SQL'
insert into divvy.task (task_type, payload, split_range, split_size, headers)
values (:'type', jsonb_build_object('seconds', :seconds), '[0,6000)', 300, '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}')
returning id
SQL
)

# How it ended, or where it stands.
until ended=$(sql task="$task" <<<"select status, result from divvy.task_result(:task) where finished_at is not null") && [ -n "$ended" ]; do
  sleep 0.2
done
echo "$task $ended"
