-- Limits of a type over the whole cluster, null: none (docs/adr/0010). Nothing here counts what runs: that is
-- always counted anew, from the leases.

alter table divvy.task_type
    add max_running int,
    add max_running_per_task int,
    add max_running_per_group int,
    add rate jsonb,                              -- {"count", "per" in seconds, "burst"}
    add fair_by_group boolean not null default false,
    add limit_epoch int not null default 0,      -- what a session remembers of the type's leases is of this epoch
    -- Claims of the type come one after another; all others look at this and nothing else.
    add limited boolean not null generated always as (max_running is not null or max_running_per_task is not null
        or max_running_per_group is not null or rate is not null or fair_by_group) stored;

-- What a limit of a group or a task holds back. Generated, so that no index names what a good end changes.
alter table divvy.unit
    add held_group text generated always as (case when state = 'delayed' and reason = 'limit' then group_key end) stored,
    add held_task bigint generated always as (case when state = 'delayed' and reason = 'limit' then share_of end) stored;
create index task_held_group_idx on divvy.task (task_type, held_group, key) where held_group is not null;
create index share_held_group_idx on divvy.share (task_type, held_group, key) where held_group is not null;
create index share_held_task_idx on divvy.share (task_type, held_task, key) where held_task is not null;

-- The leases of types with limits, by token; and which splits of a lease count for which group or task.
alter table divvy.lease
    add limited boolean not null default false,
    add label_ids bigint[],
    add labels text[];                           -- g:group or t:task, as long as label_ids
create index lease_limited_idx on divvy.lease (task_type, token) where limited;

-- "Of these something has ended": the next claim of the type looks what may go on.
create table divvy.freed (
    task_type text collate "C" not null,
    id bigint not null default nextval('divvy.key'),
    labels text[] not null,
    ended boolean not null default true,         -- false: nothing has, but the sweep asks to look
    primary key (task_type, id)
);

-- What a type with a rate has started: a row for each thousandth of its period.
create table divvy.rate_use (
    task_type text collate "C" not null,
    at timestamptz not null,
    n int not null,
    primary key (task_type, at)
) with (fillfactor = 50);
