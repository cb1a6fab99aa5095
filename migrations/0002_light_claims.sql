-- A claim writes one lease and no split; a split is written once more, when it ends, and no index with it
-- (docs/adr/0009). For that no index may name a column that a good end changes: what indexes need of the
-- state stands in generated columns, which a good end leaves as they are.

drop index divvy.unit_claim_idx, divvy.task_claim_idx, divvy.share_claim_idx, divvy.unit_due_idx, divvy.task_due_idx, divvy.share_due_idx,
    divvy.share_unsuccessful_idx, divvy.task_scheduled_idx, divvy.task_divided_idx, divvy.task_deadline_idx, divvy.task_cancelling_idx,
    divvy.task_paused_idx, divvy.task_finished_idx;

-- The view names the column; the rules, which follow every migration, make it again.
drop view if exists divvy.type_stats;

-- Lanes: 0 plan and reduce; 1 to 4 plain tasks by priority; 11 to 14 the shares of divided ones.
alter table divvy.unit drop column lane;
alter table divvy.unit
    add lane smallint generated always as (case when phase = 'execute' then priority + case when share_of is null then 0 else 10 end else 0 end) stored,
    add claim_key bigint generated always as (case when state in ('ready', 'running', 'succeeded') then key end) stored,
    add waits_until timestamptz generated always as (case when state = 'delayed' then due_at end) stored;
alter table divvy.task
    add starts_at timestamptz generated always as (case when status = 'scheduled' then run_at end) stored,
    add divided bigint generated always as (case when status = 'running' and phase is null then id end) stored,
    add watch_at timestamptz generated always as (case when finished_at is null then least(deadline_at, cancel_requested_at) end) stored;
alter table divvy.share
    add unsuccessful bigint generated always as (case when state in ('failed', 'cancelled', 'skipped') then share_of end) stored;

create index task_claim_idx on divvy.task (task_type, lane, claim_key) where claim_key is not null;
create index share_claim_idx on divvy.share (task_type, lane, claim_key) where claim_key is not null;
create index task_due_idx on divvy.task (waits_until) where waits_until is not null;
create index share_due_idx on divvy.share (waits_until) where waits_until is not null;
create index task_starts_idx on divvy.task (task_type, starts_at) where starts_at is not null;
create index task_divided_idx on divvy.task (divided) where divided is not null;
create index task_watch_idx on divvy.task (watch_at) where watch_at is not null;
create index task_paused_idx on divvy.task (paused_until) where paused_until is not null;
create index share_unsuccessful_idx on divvy.share (unsuccessful) where unsuccessful is not null;

-- Room for the version that a good end writes beside the first: so it needs no entry in any index.
alter table divvy.task set (fillfactor = 45);
alter table divvy.share set (fillfactor = 45);

-- One row per claim call and lane. A split of it that is not written down (divvy.write_down) is ready in storage and
-- runs by being named here; its key tells that it has not been ready anew since.
alter table divvy.lease
    add task_type text collate "C" not null default '',
    add lane smallint not null default 0,
    add lo_key bigint not null default 0,
    add hi_key bigint not null default 0,
    add written boolean not null default true,      -- none is left that is not written down
    add places tid[],                               -- of the rows of split_ids, as they lay at the claim
    drop constraint lease_pkey,
    add primary key (token, task_type, lane),
    alter split_ids set storage external, alter places set storage external;
alter table divvy.lease alter task_type drop default, alter lane drop default, alter lo_key drop default, alter hi_key drop default,
    alter written drop default;
alter table divvy.lease set (toast_tuple_target = 8160);
create index lease_keys_idx on divvy.lease (task_type, lane, hi_key) where not written;

-- The mark of a lane follows the verified key when somebody looks at the lane; lanes that nobody looks at cost nothing.
alter table divvy.low_water
    add verified_key bigint not null default 0,   -- every key up to it is visible
    add home text;                                -- the server and database that the sequences belong to
insert into divvy.lane (task_type, lane) select name, l from divvy.task_type, unnest('{11,12,13,14}'::int[]) l on conflict do nothing;

-- Functions of the rules that have other arguments from here on.
drop function if exists divvy.idempotency_key(bigint, divvy.phase, int, int, int), divvy.pick(text[], int, int[], uuid, bigint, timestamptz),
    divvy.pick_type(text, int, int, bigint, uuid, bigint, timestamptz),
    divvy.pick_lane(text, smallint, bigint, int, bigint, uuid, bigint, timestamptz), divvy.drop_leases(bigint[], bigint[]),
    divvy.raise_marks(bigint), divvy.repair_keys();

-- Where a walk over a table goes on.
create table divvy.walk (name text primary key, at_id bigint not null) with (fillfactor = 50);

-- What a claim takes from one lane, a column an array: building and sending rows costs more than all else of a claim.
create type divvy.part as (
    task_type text, lane smallint, token bigint, lease_until timestamptz, lo_key bigint, hi_key bigint, bytes bigint,
    split_ids bigint[], places tid[], task_ids bigint[], phases text[], split_nos int[], split_counts int[], attempts int[], max_attempts int[],
    payloads jsonb[], split_payloads jsonb[], checkpoints jsonb[], headers jsonb[], epochs int[], continuations int[],
    scheduled_for timestamptz[], timeouts interval[]
);
