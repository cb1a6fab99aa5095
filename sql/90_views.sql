-- What people and programs read. The columns are a contract: new ones are added at the end.

-- Splits that run by being named in a lease; their rows are ready in storage as long as their key is in its range.
create or replace view divvy.leased_split as
select i.id, l.token, l.worker, l.claimed_at, l.lo_key, l.hi_key from divvy.lease l cross join unnest(l.split_ids) as i (id) where not l.written;

-- Splits that have no row: those that nobody has begun, those that only a lease names, those that ended well, and those that
-- ended before anybody began them.
create or replace view divvy.rowless_split as
select s.id_base + n as id, s.share_of, n as split_no,
    case when s.lane < 0 then 'delayed' else 'ready' end::divvy.split_status as state, case when s.held_by is null then s.due_at else 'infinity' end as due_at,
    null::bigint as token, null::uuid as worker,
    null::timestamptz as started_at, null::timestamptz as finished_at, null::jsonb as result,
    case when s.held_by is not null then 'limit' when s.lane < 0 then 'paused' end as reason
from divvy.stretch s, divvy.numbers(s.first_no, s.last_no) n
where s.first_no <= s.last_no
union all
select i, l.share_of, (i - l.id_base)::int, 'running', l.due_at, l.token, l.worker, l.claimed_at, null, null, null
from divvy.lease l, unnest(l.split_ids) i
where l.share_of is not null and not l.written and not exists (select from divvy.share x where x.id = i)
    and divvy.ended_through(l.share_of, (i - l.id_base)::int) < i - l.id_base
union all
select e.id_base + n, e.share_of, n, 'succeeded', e.due_at, e.token, e.worker, e.started_at, e.finished_at, e.results[n - e.first_no + 1], null
from divvy.ended e, divvy.numbers(e.first_no, e.last_no) n
union all
select d.id_base + n, d.share_of, n, d.state, d.due_at, null, null, null, d.finished_at, null, d.reason
from divvy.dropped d, divvy.numbers(d.first_no, d.last_no) n;

-- What each lease holds. It may still name splits that have ended: those that run are here, with what their row says, if they have one.
create or replace view divvy.held_split as
select i.id, u.state, e.token, e.task_type, e.worker, e.lease_until, e.limited
from divvy.lease e cross join unnest(e.split_ids) as i (id)
-- By id, each for itself, whatever the statistics say.
left join lateral (select x.id from divvy.share x where x.id = i.id and e.share_of is not null offset 0) s on true
left join lateral (select x.state from divvy.unit x where x.id = i.id and ((x.state = 'running' and x.token = e.token)
    or (x.state = 'ready' and not e.written and x.key between e.lo_key and e.hi_key)) offset 0) u on true
where u.state is not null or (e.share_of is not null and not e.written and s.id is null
    and divvy.ended_through(e.share_of, (i.id - e.id_base)::int) < i.id - e.id_base);

-- Types of which nothing may start just now, because as many run, or have started, as may.
create or replace view divvy.full_type as
select t.name from divvy.task_type t where t.limited and divvy.may_start(t.name) <= 0;

-- Every split there is now: shares, and tasks that are their own plan, reduce or only split. One by its id: divvy.split_by_id.
create or replace view divvy.split as
select u.id, u.task_id, u.task_type, u.phase::text as phase, u.split_no,
    -- A paused type claims nothing: what is ready of it waits for the pause to end. A full one waits for its limit.
    case when l.id is not null then 'running' when u.state = 'ready' and t.paused_until > divvy.clock() then 'delayed'
        when u.state = 'ready' and t.limited and u.task_type in (select f.name from divvy.full_type f) then 'delayed' else u.state::text end as status,
    case when l.id is not null or u.state <> 'ready' then u.reason when t.paused_until > divvy.clock() then 'type paused'
        when t.limited and u.task_type in (select f.name from divvy.full_type f) then 'limit' else u.reason end as reason,
    u.priority, u.due_at, u.attempt + (u.state = 'running' or l.id is not null)::int as attempt,
    u.attempt_base + coalesce(u.max_attempts, t.max_attempts) as max_attempts,
    u.crashes, u.continuation, coalesce(l.token, u.token) as token, coalesce(l.worker, u.worker) as worker,
    coalesce(l.claimed_at, u.started_at) as started_at, u.finished_at, u.progress, u.checkpoint, u.payload, u.result, u.error, u.group_key,
    u.has_row
from (
    -- Arms of their own, so that a look at one task's splits finds them by index.
    select k.id as task_id, k.id, k.key, k.task_type, k.phase, k.split_no, k.state, k.reason, k.priority, k.due_at, k.attempt, k.attempt_base, k.max_attempts,
        k.crashes, k.continuation, k.token, k.worker, k.started_at, k.finished_at, k.progress, k.checkpoint, k.payload, k.result, k.error, k.group_key, true as has_row
    from divvy.task k
    union all
    select s.share_of, s.id, s.key, s.task_type, s.phase, s.split_no, s.state, s.reason, s.priority, s.due_at, s.attempt, s.attempt_base, s.max_attempts,
        s.crashes, s.continuation, s.token, s.worker, s.started_at, s.finished_at, s.progress, s.checkpoint,
        s.payload, s.result, s.error, s.group_key, true
    from divvy.share s
    union all
    select r.share_of, r.id, null, k.task_type, 'execute', r.split_no, r.state, r.reason, k.priority,
        case when r.state = 'delayed' then coalesce(k.paused_until, r.due_at) else r.due_at end, (r.state = 'succeeded')::int, 0, k.max_attempts,
        0::smallint, 0, r.token, r.worker, r.started_at, r.finished_at, null, null, divvy.payload_of(r.share_of, r.split_no), r.result, null, k.group_key, false
    from divvy.rowless_split r join divvy.task k on k.id = r.share_of) u
left join divvy.task_type t on t.name = u.task_type
left join divvy.leased_split l on l.id = u.id and u.state = 'ready' and u.key between l.lo_key and l.hi_key
where u.state is not null;

-- Every attempt: those that ended badly, and the last of each split.
create or replace view divvy.split_attempt as
select a.split_id, a.token, a.task_id, a.attempt, a.phase::text as phase, a.worker, a.outcome, a.error, a.started_at, a.finished_at
from divvy.attempt a
union all
select s.id, s.token, s.task_id, s.attempt, s.phase, s.worker, s.status, null,
    s.started_at, s.finished_at
from divvy.split s
where s.status in ('running', 'succeeded') and s.token is not null;

create or replace view divvy.task_overview as
select k.id as task_id, k.task_type, k.status::text as status, k.priority, k.labels, k.group_key, k.dedupe_key,
    coalesce(k.split_count, 1) as split_count, k.epoch, k.created_at, k.run_at, k.finished_at, k.deadline_at, k.paused_until, k.cancel_requested_at,
    k.parent_task_id, k.schedule_id, k.scheduled_for, coalesce(k.cancel_reason, k.reason) as reason, k.error ->> 'message' as error
from divvy.task k;

-- How far a task has come. Counts its splits, those in stretches by the stretch: ask for one task, or a few.
create or replace view divvy.task_progress as
select k.id as task_id, k.task_type, k.status::text as status, coalesce(k.split_count, 1) as splits,
    c.delayed, c.ready, c.running, c.succeeded, c.failed, c.cancelled, c.skipped,
    case when k.finished_at is not null and k.status in ('succeeded', 'partial') then 1.0
        when coalesce(k.split_count, 1) = 0 then 0.0
        else round((c.succeeded + c.failed + c.cancelled + c.skipped)::numeric / coalesce(k.split_count, 1), 4) end as progress
from divvy.task k, lateral (
    select coalesce(sum(x.n) filter (where x.state = 'delayed'), 0)::bigint as delayed,
        coalesce(sum(x.n) filter (where x.state = 'ready'), 0)::bigint as ready,
        coalesce(sum(x.n) filter (where x.state = 'running'), 0)::bigint as running,
        coalesce(sum(x.n) filter (where x.state = 'succeeded'), 0)::bigint as succeeded,
        coalesce(sum(x.n) filter (where x.state = 'failed'), 0)::bigint as failed,
        coalesce(sum(x.n) filter (where x.state = 'cancelled'), 0)::bigint as cancelled,
        coalesce(sum(x.n) filter (where x.state = 'skipped'), 0)::bigint as skipped
    from (
        select case when l.id is null then u.state else 'running' end as state, 1 as n
        from (select s.id, s.state, s.key from divvy.share s where s.share_of = k.id
            union all select k.id, k.state, k.key where k.phase = 'execute') u
        left join divvy.leased_split l on l.id = u.id and u.state = 'ready' and u.key between l.lo_key and l.hi_key
        union all
        -- Only those that a lease names have a token and run.
        select r.state, 1 from divvy.rowless_split r where r.share_of = k.id and r.state = 'running' and r.token is not null
        union all
        select case when s.lane < 0 then 'delayed' else 'ready' end::divvy.split_status, s.last_no - s.first_no + 1
        from divvy.stretch s where s.share_of = k.id and s.first_no <= s.last_no
        union all
        select 'succeeded', e.last_no - e.first_no + 1 from divvy.ended e where e.share_of = k.id
        union all
        select d.state, d.last_no - d.first_no + 1 from divvy.dropped d where d.share_of = k.id) x) c;

create or replace view divvy.split_overview as
select s.id as split_id, s.task_id, s.task_type, s.phase, s.split_no, s.status, s.reason, s.attempt, s.max_attempts, s.due_at, s.started_at, s.finished_at,
    s.progress, s.worker, w.name as worker_name, s.token, l.lease_until, s.error ->> 'class' as error_class, s.error ->> 'message' as error
from divvy.split s
left join lateral (select max(x.lease_until) as lease_until from divvy.lease x where x.token = s.token and s.status = 'running') l on true
left join divvy.worker w on w.id = s.worker;

-- What waits and runs of each type; types that only exist as rows of tasks are shown as undeclared. Counted by functions
-- (sql/88_count.sql), which no statistics lead astray. Of a type with limits no more is ready than may start.
create or replace view divvy.type_stats as
select n.name as task_type, t.name is not null as declared, t.plan, t.reduce, t.paused_until, t.pause_reason,
    x.ready, r.delayed + x.waiting - x.ready as delayed, h.running, coalesce(s.scheduled, 0) as scheduled,
    -- A worker that had nothing to do could start none of them: what it was due for until then, a limit had held back.
    case when x.ready > 0 then divvy.clock() - greatest(r.oldest, case when t.limited then i.idle_until - divvy.idle_span() end) end as oldest_ready,
    (select count(*) from divvy.worker w where n.name = any (w.task_types) and w.seen_at > divvy.clock() - interval '1 min') as workers,
    -- Of the delayed ones, those that a limit holds back: of a group or a task, or of the whole type.
    r.held + x.waiting - x.ready as held
from divvy.scheduled_by_type() s
full join divvy.task_type t on t.name = s.task_type
cross join lateral (select coalesce(t.name, s.task_type) as name) n
left join divvy.type_wake i on i.task_type = n.name
left join divvy.running_by_type() l on l.task_type = n.name
cross join lateral (select coalesce(l.running, 0) as running, coalesce(l.leased, 0) as leased) h
cross join lateral divvy.waiting_of(n.name) r
cross join lateral (
    select r.ready - h.leased as waiting, least(r.ready - h.leased, case when t.limited then divvy.may_start(t.name) end) as ready) x;
create or replace view divvy.worker_overview as
select w.id as worker, w.name, w.task_types, w.slots, w.command, w.registered_at, w.seen_at, w.seen_at > divvy.clock() - interval '1 min' as alive,
    coalesce(l.running, 0) as leased, l.lease_until, w.meta
from divvy.worker w
left join divvy.running_by_worker() l on l.worker = w.id;

create or replace view divvy.schedule_overview as
select s.id as schedule_id, s.name, s.task_type, s.status::text as status, s.reason, s.paused_until,
    case when s.steps is not null then 'stepped' when s.run_at is not null then 'timed' when s.cron is not null then 'cron' else 'every' end as kind,
    coalesce(array_to_string(s.steps, ', '), s.run_at::text, s.cron, s.every::text) as rule,
    s.timezone, s.overlap, s.catch_up, s.next_fire_at, s.fired_through, s.runs, s.max_runs, s.last_task_id, s.created_at,
    (select count(*) from divvy.schedule_fire f where f.schedule_id = s.id and f.outcome = 'waiting') as waiting, s.failures, s.anchor, s.calendar,
    exists (select from divvy.task_type t where t.name = s.task_type) as type_declared
from divvy.schedule s;

-- Failed splits by the fingerprint of their error: its class, or the first line of its message, digits masked.
create or replace view divvy.dead_splits as
select d.task_type, d.fingerprint, count(*) as splits, min(d.finished_at) as first_at, max(d.finished_at) as last_at,
    (array_agg(d.id order by d.finished_at desc))[1] as last_split_id, (array_agg(d.message order by d.finished_at desc))[1] as last_message
from (
    select u.id, u.task_type, coalesce(u.finished_at, u.started_at) as finished_at, u.error ->> 'message' as message,
        divvy.fingerprint(u.error, u.reason) as fingerprint
    from divvy.unit u where u.state = 'failed') d
group by d.task_type, d.fingerprint;

-- What waited and ran of each type, by the minute. No row: nothing did.
create or replace view divvy.metric_minute as
select s.at, s.task_type, s.ready, s.delayed, s.running, s.scheduled, s.held, s.workers, s.oldest_ready from divvy.sample s;

-- Alerts that are open. The last rule is asked now: it is about those who would ask the others.
create or replace view divvy.alert_overview as
select a.name, a.object, a.since, a.detail, a.looked_at, case when a.silenced_until > divvy.clock() then a.silenced_until end as silenced_until,
    case when a.silenced_until > divvy.clock() then a.silence_reason end as silence_reason
from divvy.alert a where a.closed_at is null and a.name <> 'no_tick'
union all
select 'no_tick', '', p.reclaimed_at, format('no duty has run since %s: what waits for a moment waits, and no alert is looked for', p.reclaimed_at), divvy.clock(),
    case when a.silenced_until > divvy.clock() then a.silenced_until end, case when a.silenced_until > divvy.clock() then a.silence_reason end
from divvy.pulse p left join divvy.alert a on a.name = 'no_tick'
where p.reclaimed_at <= divvy.clock() - interval '1 min';

create or replace view divvy.database_health as
select name, value from (values
    ('server_version', current_setting('server_version')),
    ('fsync', current_setting('fsync')),
    ('synchronous_commit', current_setting('synchronous_commit')),
    ('full_page_writes', current_setting('full_page_writes')),
    ('oldest_transaction', (select max(divvy.clock() - a.xact_start)::text from pg_stat_activity a where a.xact_start is not null and a.pid <> pg_backend_pid())),
    ('notification_queue', pg_notification_queue_usage()::text),
    ('low_water_noted', (select noted_key::text from divvy.low_water)),
    ('last_tick', (select (divvy.clock() - p.reclaimed_at)::text from divvy.pulse p)),
    ('leader', (select l.name from divvy.leader l where divvy.somebody_leads() order by l.term desc limit 1))
) h (name, value);
