-- The tables. Rules are in sql/; a migration never calls a rule.
--
-- Whatever a worker can claim is a row of divvy.unit. Two tables inherit from it: divvy.task, whose
-- row is the plan split, the reduce split, and the only split of a plain task, and divvy.share, whose
-- rows are the splits of a divided task. A statement on divvy.unit serves both (docs/adr/0002).

create sequence divvy.id;     -- numbers tasks and splits alike; ids are opaque
create sequence divvy.key;    -- order of claims; every transition to ready takes a new one, after its lock
create sequence divvy.token;  -- one per claim call

-- The only "now". Tests replace its body in their own database.
create function divvy.clock() returns timestamptz
language sql stable parallel safe as 'select now()';

create type divvy.phase as enum ('plan', 'execute', 'reduce');
create type divvy.split_status as enum
    ('delayed', 'ready', 'running', 'succeeded', 'failed', 'cancelled', 'skipped');
create type divvy.task_status as enum
    ('scheduled', 'planning', 'running', 'reducing', 'succeeded', 'partial', 'failed', 'cancelled');
create type divvy.schedule_status as enum ('active', 'paused', 'refused', 'done', 'cancelled');

create table divvy.task_type (
    name text collate "C" primary key,
    no int not null generated always as identity unique,   -- short name in session settings
    handler jsonb not null default '{"worker": true}',
    plan boolean not null default false,
    reduce boolean not null default false,
    max_attempts int not null default 20,
    backoff jsonb not null default '{"kind": "exponential", "base": 5, "factor": 2, "max": 3600, "jitter": 0.2}',
    timeout interval not null default '15 min',
    lease interval not null default '30 s',
    max_waiting int,
    dedupe_window text not null default 'open',
    max_failed int,
    max_failed_percent numeric,
    reduce_on text not null default 'tolerated',
    retention_succeeded interval not null default '3 days',
    retention_others interval not null default '30 days',
    "then" jsonb,
    paused_until timestamptz,          -- infinity: until resumed
    pause_reason text,
    declared_by text not null default 'put_task_type',
    created_at timestamptz not null default divvy.clock(),
    updated_at timestamptz not null default divvy.clock()
);

create table divvy.unit (
    id bigint not null default nextval('divvy.id'),
    key bigint not null default nextval('divvy.key'),
    token bigint,                              -- of the claim that holds it, or that ended it
    due_at timestamptz not null default divvy.clock(),   -- ready: since; delayed: until
    started_at timestamptz,
    finished_at timestamptz,
    share_of bigint,                           -- the task; null: this row is a task
    attempt int not null default 0,            -- charged claims; only grows
    attempt_base int not null default 0,       -- attempts of earlier epochs: the budget is per epoch
    max_attempts int,                          -- null: the type's
    continuation int not null default 0,
    split_no int not null default 1,           -- plan and reduce: 0
    crashes smallint not null default 0,       -- lease expiries in a row
    priority smallint not null default 2,
    lane smallint generated always as (case when phase = 'execute' then priority else 0 end) stored,
    phase divvy.phase default 'execute',       -- null: a task that is no split now
    state divvy.split_status default 'ready',  -- of the split this row is; null: it is none now
    adds boolean not null default false,       -- staged splits wait for its completion
    task_type text collate "C" not null,
    worker uuid,
    reason text,                               -- why it waits, or why it ended as it did
    group_key text,
    timeout interval,                          -- null: the type's
    payload jsonb,
    result jsonb,
    error jsonb,
    checkpoint jsonb,
    progress real,
    primary key (id),
    constraint unit_running_has_token check (state <> 'running' or token is not null)
);

create table divvy.task (
    status divvy.task_status not null default 'running',
    created_at timestamptz not null default divvy.clock(),
    run_at timestamptz,
    dedupe_key text,
    dedupe_held boolean not null default true,  -- the key still bars others
    dedupe_until timestamptz,                   -- null: while open
    labels text[],
    headers jsonb,
    deadline_at timestamptz,
    splits jsonb,                               -- given shares; null once they are rows
    split_count int,                            -- given, or how many there are
    split_range int8range,
    split_size bigint,
    max_failed int,
    max_failed_percent numeric,
    reduce_on text,
    "then" jsonb,
    reduces boolean not null default false,     -- the type had a reduce when the task started
    sealed boolean not null default false,      -- no more splits from outside
    epoch int not null default 1,
    paused_until timestamptz,
    pause_reason text,
    cancel_requested_at timestamptz,
    cancel_reason text,                         -- 'deadline': nobody asked, time did
    parent_task_id bigint,
    schedule_id bigint,
    scheduled_for timestamptz,
    primary key (id),
    constraint task_final_has_finished_at check
        ((status in ('succeeded', 'partial', 'failed', 'cancelled')) = (finished_at is not null))
) inherits (divvy.unit);
alter table divvy.task alter column payload set default '{}', alter column payload set not null;

create table divvy.share (
    primary key (id)
) inherits (divvy.unit);

-- Claim: unit_, task_ and share_ alike, so that a scan of divvy.unit is an ordered merge.
create index unit_claim_idx on divvy.unit (task_type, lane, key) where state = 'ready';
create index task_claim_idx on divvy.task (task_type, lane, key) where state = 'ready';
create index share_claim_idx on divvy.share (task_type, lane, key) where state = 'ready';
create index unit_due_idx on divvy.unit (due_at) where state = 'delayed';
create index task_due_idx on divvy.task (due_at) where state = 'delayed';
create index share_due_idx on divvy.share (due_at) where state = 'delayed';

create unique index share_task_idx on divvy.share (share_of, split_no);
-- Splits that ended badly are few; reduce and redrive count and find them here.
create index share_unsuccessful_idx on divvy.share (share_of) where state in ('failed', 'cancelled', 'skipped');
create unique index task_dedupe on divvy.task (task_type, dedupe_key)
    where dedupe_key is not null and dedupe_held;
create index task_dedupe_until_idx on divvy.task (dedupe_until)
    where dedupe_until is not null and dedupe_held;
create index task_scheduled_idx on divvy.task (task_type, run_at) where status = 'scheduled';
create index task_divided_idx on divvy.task (id) where status = 'running' and phase is null;
create index task_deadline_idx on divvy.task (deadline_at) where deadline_at is not null and finished_at is null;
create index task_cancelling_idx on divvy.task (cancel_requested_at)
    where cancel_requested_at is not null and finished_at is null;
create index task_paused_idx on divvy.task (paused_until) where paused_until is not null and finished_at is null;
create index task_finished_idx on divvy.task (finished_at) where finished_at is not null;
create index task_schedule_idx on divvy.task (schedule_id, id) where schedule_id is not null;

-- Marks: everything of the lane with a key up to the mark is claimed or finished for good.
create table divvy.lane (
    task_type text collate "C" not null,
    lane smallint not null,
    mark bigint not null default 0,
    primary key (task_type, lane)
);

-- The low-water mark in the making: a key, and the transactions that may still hold lower ones.
create table divvy.low_water (
    singleton boolean primary key default true check (singleton),
    noted_key bigint,
    holders text[],
    server_start timestamptz
);
insert into divvy.low_water default values;

-- One row per claim call. No index on lease_until: the rows are few and renewals stay cheap.
create table divvy.lease (
    token bigint primary key,
    worker uuid not null,
    length interval not null,
    claimed_at timestamptz not null,
    lease_until timestamptz not null,
    deadline_at timestamptz not null,      -- no lease outlives the timeout
    split_ids bigint[] not null
) with (fillfactor = 70);

-- Attempts that did not succeed. The view split_attempt adds the others from the splits themselves.
create table divvy.attempt (
    split_id bigint not null,
    token bigint not null,
    task_id bigint not null,
    attempt int not null,
    phase divvy.phase not null,
    worker uuid,
    outcome text not null,                  -- failed | stopped | expired | timeout | cancelled | skipped
    error jsonb,
    started_at timestamptz,
    finished_at timestamptz not null,
    primary key (split_id, token)
);
create index attempt_task_idx on divvy.attempt (task_id);

create table divvy.split_log (
    split_id bigint not null,
    token bigint not null,
    line int not null,
    at timestamptz not null,
    level text not null,
    message text not null,
    fields jsonb,
    primary key (split_id, token, line)
);

-- Added splits wait here until the split that adds them completes.
create table divvy.staged (
    split_id bigint not null,
    token bigint not null,
    position int not null,
    payload jsonb not null,
    primary key (split_id, token, position)
);

-- "Look at this task": one row per completion call and divided task that could not be settled at once.
create table divvy.fan_in (
    id bigint generated always as identity primary key,
    task_id bigint not null
);

create table divvy.worker (
    id uuid primary key,
    name text not null,
    task_types text[] not null,
    slots int not null,
    meta jsonb not null default '{}',
    command text not null default 'run',
    registered_at timestamptz not null default divvy.clock(),
    seen_at timestamptz not null default divvy.clock()
) with (fillfactor = 50);

-- A worker of the type waits until this moment: producers wake it.
create table divvy.type_wake (
    task_type text collate "C" primary key,
    idle_until timestamptz not null
) with (fillfactor = 50);

-- When duties last ran, so that a pause of the database or of ticks is noticed.
create table divvy.pulse (
    singleton boolean primary key default true check (singleton),
    small_tick_at timestamptz,
    reclaimed_at timestamptz,
    resumed_at timestamptz,                 -- reclaim waits one lease from here
    server_start timestamptz
) with (fillfactor = 50);
insert into divvy.pulse default values;

create table divvy.leader (
    term bigint generated always as identity primary key,
    leader uuid not null,
    name text not null,
    since timestamptz not null default divvy.clock()
);

create table divvy.schedule (
    id bigint primary key generated always as identity,
    name text collate "C",
    task_type text collate "C" not null,
    payload jsonb not null default '{}',
    steps interval[],
    run_at timestamptz,
    cron text,
    every interval,
    timezone text not null default 'UTC',
    overlap text not null default 'skip',
    catch_up text not null default 'latest',
    catch_up_max int not null default 100,
    dst_gap text not null default 'shift',
    dst_fold text not null default 'first',
    jitter interval,
    starts_at timestamptz,
    ends_at timestamptz,
    max_runs int,
    stop_on_success boolean not null default false,
    pause_on_failure int,
    priority smallint not null default 2,
    dedupe_key text,
    group_key text,
    labels text[],
    headers jsonb,
    splits jsonb,
    split_count int,
    split_range int8range,
    split_size bigint,
    max_attempts int,
    timeout interval,
    max_failed int,
    max_failed_percent numeric,
    reduce_on text,
    "then" jsonb,
    status divvy.schedule_status not null default 'active',
    reason text,
    paused_until timestamptz,
    created_at timestamptz not null default divvy.clock(),
    next_fire_at timestamptz,
    planned_from timestamptz,               -- cron: moments up to here are decided
    planned_at timestamptz,                 -- cron: when the planner said next_fire_at
    fired_through timestamptz,              -- only grows
    runs int not null default 0,
    last_task_id bigint
);
create unique index schedule_name on divvy.schedule (name) where status in ('active', 'paused', 'refused');
create index schedule_due_idx on divvy.schedule (next_fire_at) where status = 'active' and next_fire_at is not null;
create index schedule_unplanned_idx on divvy.schedule (id)
    where status = 'active' and cron is not null and next_fire_at is null;

create table divvy.schedule_fire (
    schedule_id bigint not null,
    fire_at timestamptz not null,
    kind text not null default 'rule',      -- rule | manual | backfill
    outcome text not null,                  -- fired | skipped | missed
    task_id bigint,
    reason text,
    count int not null default 1,
    late interval,
    at timestamptz not null default divvy.clock(),
    primary key (schedule_id, fire_at, kind)
);

-- The only log of decisions.
create table divvy.event (
    id bigint generated always as identity primary key,
    at timestamptz not null default divvy.clock(),
    actor text not null,
    verb text not null,
    object text not null,
    object_id text not null,
    reason text,
    before jsonb,
    after jsonb
);
create index event_object_idx on divvy.event (object, object_id);

create table divvy.setting (
    name text primary key,
    value text not null
);
