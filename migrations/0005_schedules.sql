-- Schedules: policies, the moments that wait for their turn, and calendars. Rules are in sql/75 to 79.

alter table divvy.schedule
    add anchor text not null default 'created',           -- steps and every count from: created | previous_end
    add anchored_at timestamptz,                          -- what they count from just now; null: an open run has to end first
    add step int not null default 0,                      -- previous_end: how many steps are decided
    add catch_up_window interval not null default '1 day',
    add catch_up_pace interval not null default '1 s',
    add calendar text collate "C",
    add calendar_shift text not null default 'skip',
    add moment_at timestamptz,                            -- the next moment; next_fire_at: when somebody has to look
    add ahead timestamptz[] not null default '{}',        -- cron: the moments after it that are planned already
    add planned_through timestamptz,                      -- cron: up to here no moment is unknown
    add failures int not null default 0,                  -- runs in a row that failed
    add backfill_max int not null default 1,
    add backfill_open bigint[] not null default '{}',     -- tasks of backfills, those that are open among them
    add paused_at timestamptz,
    add resumed_at timestamptz,
    add pause_reason text;

update divvy.schedule s set
    anchored_at = case when s.every is not null then coalesce(s.starts_at, s.created_at) else s.created_at end,
    planned_from = greatest(case when s.steps is not null and s.fired_through is null then s.created_at - interval '1 microsecond'
        else s.created_at end, s.starts_at - interval '1 microsecond', s.fired_through, case when s.cron is not null then s.planned_from end),
    moment_at = s.next_fire_at,
    planned_through = case when s.cron is not null then s.next_fire_at end;

create index schedule_paused_idx on divvy.schedule (paused_until) where status = 'paused' and paused_until is not null;
create index schedule_calendar_idx on divvy.schedule (calendar) where calendar is not null;

-- The ledger: a moment that is due has one row from then on; `waiting` is the only outcome that changes.
alter table divvy.schedule_fire
    add through timestamptz,                              -- a stretch: its last moment
    add due_at timestamptz,                               -- when it was to fire, if not at the moment itself: jitter, calendar
    add not_before timestamptz,                           -- waiting: not before
    add look_at timestamptz,                              -- waiting: somebody looks again
    add made_up boolean not null default false;           -- waiting: late, so that it is not skipped for an open run
create index schedule_fire_look_idx on divvy.schedule_fire (look_at) where outcome = 'waiting';
create index schedule_fire_waiting_idx on divvy.schedule_fire (schedule_id, fire_at) where outcome = 'waiting';
create index schedule_fire_at_idx on divvy.schedule_fire (at);

-- "A run of this schedule ended": whoever fires looks at it under the schedule's lock, which the end of a task never takes.
create table divvy.run_ended (
    id bigint generated always as identity primary key,
    schedule_id bigint not null,
    task_id bigint not null,
    status divvy.task_status not null,
    at timestamptz not null
);

create table divvy.calendar (
    name text collate "C" primary key,
    weekend int[] not null default '{6,7}',               -- days of the week, Monday is 1
    updated_at timestamptz not null default divvy.clock()
);
create table divvy.calendar_date (
    calendar text collate "C" not null references divvy.calendar on delete cascade,
    date date not null,
    works boolean not null,                               -- false: excluded, true: included though it is a weekend
    note text,
    primary key (calendar, date)
);

-- Functions of the rules that have other arguments or results from here on.
drop function if exists divvy.plan_schedule(bigint, timestamptz, timestamptz, timestamptz[]), divvy.schedules_to_plan(int), divvy.next_moment(divvy.schedule, timestamptz),
    divvy.fire_schedule(divvy.schedule, timestamptz), divvy.make_fire(divvy.schedule, timestamptz, text, timestamptz),
    divvy.decide_moment(divvy.schedule, timestamptz, text, bigint, text, timestamptz, text),
    divvy.advance_schedule(divvy.schedule, timestamptz, int, bigint), divvy.trigger_schedule(text);
