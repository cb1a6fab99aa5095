-- The sign of a key says what waits for its moment, so that no index needs a column of its own that is computed at each end
-- (docs/adr/0017).

drop view if exists divvy.type_stats;

alter table divvy.task add watched boolean not null default true;   -- false once ended, where an index would go on to name it
update divvy.task set watched = false
where finished_at is not null and (phase is null or num_nonnulls(deadline_at, cancel_requested_at) > 0);
update divvy.unit set key = -key where state = 'delayed' and key > 0;
update divvy.task set key = -key where status = 'scheduled' and key > 0;

-- Their indexes go with them.
alter table divvy.unit drop column claim_key, drop column waits_until, drop column held_group, drop column held_task;
alter table divvy.task drop column starts_at, drop column divided, drop column watch_at;

create index task_claim_idx on divvy.task (task_type, lane, key);
create index share_claim_idx on divvy.share (task_type, lane, key);
create index task_due_idx on divvy.task (due_at) where key < 0 and phase is not null;
create index share_due_idx on divvy.share (due_at) where key < 0 and phase is not null;
create index task_starts_idx on divvy.task (task_type, run_at) where key < 0 and phase is null;
create index task_divided_idx on divvy.task (key) where key > 0 and phase is null and watched;
create index task_watch_idx on divvy.task (least(deadline_at, cancel_requested_at))
    where least(deadline_at, cancel_requested_at) is not null and watched;
create index task_held_group_idx on divvy.task (task_type, group_key, key) where key < 0 and reason = 'limit' and group_key is not null;
create index share_held_group_idx on divvy.share (task_type, group_key, key) where key < 0 and reason = 'limit' and group_key is not null;
create index share_held_task_idx on divvy.share (task_type, share_of, key) where key < 0 and reason = 'limit';

-- What these said is true by construction; read anew for each statement, they cost a single insert a tenth of its time. Tests ask for more
-- (tests/it/support/invariants.sql).
alter table divvy.unit drop constraint unit_running_has_token;
alter table divvy.task drop constraint task_final_has_finished_at;
