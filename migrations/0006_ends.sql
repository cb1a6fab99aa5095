-- Splits that ended before anybody began them, cancelled or skipped together: a row for each stretch (sql/48_dropped.sql).
create table divvy.dropped (
    share_of bigint not null,                  -- the task
    first_no int not null,
    last_no int not null,
    id_base bigint not null,                   -- a split's id less its number
    state divvy.split_status not null,
    reason text,
    due_at timestamptz not null,
    finished_at timestamptz not null,
    primary key (share_of, first_no)
);
create index dropped_id_idx on divvy.dropped ((id_base + last_no));

-- Retention (sql/82_prune.sql): beside the walk's front a round from the lowest id, now and then.
alter table divvy.walk
    add round_id bigint,                       -- where a round under way goes on
    add round_size bigint not null default 0,  -- how many tasks it has looked at
    add next_round_at timestamptz not null default '-infinity';

-- Functions of the rules that are gone from here on.
drop function if exists divvy.past_retention(int, timestamptz);
