-- Of a large task, a split that nobody has begun is no row, nor is one that only a lease names, nor one that ended well at
-- its first attempt (docs/adr/0011): only what something else befalls gets a row.

-- Splits of one task that nobody has begun, by their numbers. A claim takes the next of them and gives the stretch a new key.
-- One that is used up stays until its task goes.
create table divvy.stretch (
    share_of bigint not null,                  -- the task
    stripe int not null,                       -- a large task has several, so that claims of it don't meet
    first_no int not null,                     -- the next split_no; grows, so the newest version is found first
    last_no int not null,
    id_base bigint not null,                   -- a split's id less its number
    key bigint not null default nextval('divvy.key'),
    lane smallint not null,                    -- 21 to 24, by priority; negative: the task is paused
    due_at timestamptz not null,
    task_type text collate "C" not null,
    primary key (share_of, stripe, first_no)
) with (fillfactor = 50);
create index stretch_claim_idx on divvy.stretch (task_type, lane, key) where first_no <= last_no;
create index stretch_id_idx on divvy.stretch ((id_base + last_no));

-- What their payloads are: given, some in a row, or by a rule.
create table divvy.given (
    share_of bigint not null,
    first_no int not null,
    last_no int not null,
    payloads jsonb[],                          -- from first_no on
    rule jsonb,                                -- {"count"} or {"lo", "hi", "size"}, of all from number 1 on
    primary key (share_of, first_no)
);

-- Ids of such splits, in blocks: a task takes the smallest that has room for all of them. Each size has a range of its own,
-- far above divvy.id, and all stay below 2^53, which JSON readers keep exact.
create sequence divvy.id_256 minvalue 1125899906842624 maxvalue 2251799813685247 increment 256;
create sequence divvy.id_4096 minvalue 2251799813685248 maxvalue 3377699720527871 increment 4096;
create sequence divvy.id_65536 minvalue 3377699720527872 maxvalue 4503599627370495 increment 65536;
create sequence divvy.id_1048576 minvalue 4503599627370496 maxvalue 5629499534213119 increment 1048576;

-- A lease of such splits: all of one stretch, without rows until they end.
alter table divvy.lease
    add share_of bigint,
    add id_base bigint,
    add due_at timestamptz;
alter type divvy.part add attribute due_at timestamptz;
create index lease_share_idx on divvy.lease (share_of, token) where share_of is not null and not written;

-- Those that ended well together: of one lease, with adjoining numbers.
create table divvy.ended (
    share_of bigint not null,
    first_no int not null,
    last_no int not null,
    id_base bigint not null,
    token bigint not null,
    worker uuid not null,
    due_at timestamptz,
    started_at timestamptz not null,
    finished_at timestamptz not null,
    results jsonb[],                           -- from first_no on; null: none of them has one
    primary key (share_of, first_no),
    constraint ended_once exclude using gist (int8range(id_base + first_no, id_base + last_no, '[]') with &&)
);

insert into divvy.lane (task_type, lane) select name, l from divvy.task_type, unnest('{21,22,23,24}'::int[]) l on conflict do nothing;

-- Functions of the rules that have other arguments from here on.
drop function if exists divvy.insert_shares(divvy.task, int, jsonb[], timestamptz), divvy.take_waiting(bigint, boolean);
