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
