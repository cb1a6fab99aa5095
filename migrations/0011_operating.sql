-- What the operating surface keeps: what waited and ran, minute by minute.

-- One type in one minute (sql/83_sample.sql); none where nothing of it waited or ran.
create table divvy.sample (
    at timestamptz not null,                   -- the beginning of the minute
    task_type text collate "C" not null,
    ready bigint not null,
    delayed bigint not null,
    running bigint not null,
    scheduled bigint not null,
    held bigint not null,
    workers bigint not null,
    oldest_ready interval,
    primary key (at, task_type)
);

-- When what is done once a minute over all processes is due next.
create table divvy.once_a_minute (
    name text primary key,
    next_at timestamptz not null default '-infinity'
) with (fillfactor = 50);
insert into divvy.once_a_minute (name) values ('sample'), ('alert');

-- What is wrong just now, and what people have said to stay silent about (sql/87_alert.sql).
create table divvy.alert (
    name text collate "C" not null,
    object text collate "C" not null default '',   -- the type, the schedule; empty: all of it
    since timestamptz not null,
    detail text not null,                      -- as it was at the last look
    looked_at timestamptz not null,
    closed_at timestamptz,                     -- it is over; kept only because it is silenced
    silenced_until timestamptz,
    silence_reason text,
    primary key (name, object)
);
