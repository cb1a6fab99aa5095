//! What is called while divvy works: what there is beforehand, and the call.

/// A name, what is done beforehand, and the call.
pub type Case = (&'static str, &'static str, &'static str);

/// What calls may do to types: one of each way to be stored and to be limited.
pub const TYPES: &[(&str, &str)] = &[
    ("plain", "{}"),
    ("divided", "{}"),
    ("large", "{}"),
    ("most", r#"{"max_running": 100}"#),
    ("group", r#"{"max_running_per_group": 2}"#),
    ("divided_limited", r#"{"max_running_per_group": 2, "max_running_per_task": 5}"#),
    ("fair", r#"{"fair_by_group": true}"#),
    ("rate", r#"{"rate": {"count": 1000, "per": 60}}"#),
];

/// Types of the cases that are about one.
pub const OTHER_TYPES: &[(&str, &str)] = &[
    ("planned", r#"{"plan": true, "reduce": true}"#),
    ("summed", r#"{"reduce": true}"#),
    ("kept", r#"{"dedupe_window": "1 hour"}"#),
    ("bounded", r#"{"max_waiting": 1000000}"#),
];

/// For each of [`TYPES`]: `{t}` is its name, `{w}` the worker.
pub const OF_EACH_TYPE: &[Case] = &[
    ("claim", "pg_temp.put('{t}')", "select count(*) from divvy.claim('{w}', '{{t}}', 50)"),
    ("next_wait", "pg_temp.put('{t}')", "select divvy.next_wait('{{t}}')"),
    (
        "next_wait beside what runs",
        "pg_temp.put('{t}'), pg_temp.put('{t}'), pg_temp.take('{t}', 100)",
        "select divvy.next_wait('{{t}}')",
    ),
    (
        "heartbeat",
        "pg_temp.put('{t}'), pg_temp.take('{t}')",
        "select count(*) from divvy.heartbeat('{w}', pg_temp.ids(), pg_temp.tokens())",
    ),
    (
        "complete_many",
        "pg_temp.put('{t}'), pg_temp.take('{t}')",
        "select count(*) from divvy.complete_many(pg_temp.ids(), pg_temp.tokens())",
    ),
    (
        "complete_many of what is written down",
        "pg_temp.put('{t}'), pg_temp.take('{t}'), divvy.write_down(pg_temp.ids()), divvy.write_out_held(pg_temp.ids(), pg_temp.tokens())",
        "select count(*) from divvy.complete_many(pg_temp.ids(), pg_temp.tokens())",
    ),
    (
        "complete_many of what was lost",
        "pg_temp.put('{t}'), pg_temp.take('{t}'), pg_temp.age(true), divvy.reclaim(50)",
        "select count(*) from divvy.complete_many(pg_temp.ids(), pg_temp.tokens())",
    ),
    (
        "exchange",
        "pg_temp.put('{t}'), pg_temp.put('{t}'), pg_temp.take('{t}')",
        "select count(*) from divvy.exchange('{w}', pg_temp.ids(), pg_temp.tokens(), null, '{{t}}', 50)",
    ),
    (
        "complete_and_claim",
        "pg_temp.put('{t}'), pg_temp.put('{t}'), pg_temp.take('{t}')",
        "select divvy.complete_and_claim('{w}', pg_temp.ids(), pg_temp.tokens(), null, '{{t}}', 50)",
    ),
    (
        "complete",
        "pg_temp.put('{t}'), pg_temp.take('{t}', 1)",
        "select divvy.complete(split_id, token) from c",
    ),
    ("fail", "pg_temp.put('{t}'), pg_temp.take('{t}', 1)", "select divvy.fail(split_id, token, '{}') from c"),
    (
        "snooze",
        "pg_temp.put('{t}'), pg_temp.take('{t}', 1)",
        "select divvy.snooze(split_id, token, '1 s') from c",
    ),
    ("release", "pg_temp.put('{t}'), pg_temp.take('{t}', 1)", "select divvy.release(split_id, token) from c"),
    (
        "checkpoint",
        "pg_temp.put('{t}'), pg_temp.take('{t}', 1)",
        "select divvy.checkpoint(split_id, token, '{}') from c",
    ),
    (
        "log",
        "pg_temp.put('{t}'), pg_temp.take('{t}', 1)",
        "select divvy.log(split_id, token, 'info', 'x') from c",
    ),
    (
        "complete of what added splits",
        "pg_temp.put('{t}'), pg_temp.take('{t}', 1), divvy.add_splits((pg_temp.ids())[1], (pg_temp.tokens())[1], '[1, 2]')",
        "select divvy.complete(split_id, token) from c",
    ),
    (
        "write_down_old",
        "pg_temp.put('{t}'), pg_temp.take('{t}'), pg_temp.age(false)",
        "select divvy.write_down_old(50)",
    ),
    ("reclaim", "pg_temp.put('{t}'), pg_temp.take('{t}'), pg_temp.age(true)", "select divvy.reclaim(50)"),
    ("promote", "pg_temp.put('{t}'), pg_temp.take('{t}'), pg_temp.fail_all()", "select divvy.promote(50)"),
    ("advance_low_water", "pg_temp.put('{t}'), pg_temp.take('{t}')", "select divvy.advance_low_water()"),
    ("raise_marks", "pg_temp.put('{t}'), pg_temp.take('{t}')", "select divvy.raise_marks('{t}', null, 0)"),
    (
        "a claim after ends",
        "pg_temp.put('{t}'), pg_temp.take('{t}'), divvy.complete_many(pg_temp.ids(), pg_temp.tokens())",
        "select count(*) from divvy.claim('{w}', '{{t}}', 50)",
    ),
    (
        "tick",
        "pg_temp.put('{t}'), pg_temp.take('{t}'), pg_temp.age(false)",
        "select count(*) from divvy.tick(50)",
    ),
];

/// Once; each of the things done beforehand is a statement.
pub const ONCE: &[Case] = &[
    ("insert", "", "insert into divvy.task (task_type) select 'plain' from generate_series(1, 50)"),
    ("insert divided", "", "insert into divvy.task (task_type, split_count) select 'divided', 5 from generate_series(1, 20)"),
    ("insert with keys", "", "insert into divvy.task (task_type, dedupe_key) select 'kept', 'x' || i from generate_series(1, 50) i"),
    ("insert of a bounded type", "", "insert into divvy.task (task_type) select 'bounded' from generate_series(1, 50)"),
    ("enqueue", "", r#"select divvy.enqueue('kept', '{}', '{"dedupe_key": "q"}')"#),
    ("register_worker", "", "select divvy.register_worker(gen_random_uuid(), 'x', '{plain}', 5)"),
    (
        "settle of notes",
        "select pg_temp.put('divided'); insert into divvy.fan_in (task_id) select id from divvy.task where task_type = 'divided' and finished_at is null",
        "select divvy.settle(50)",
    ),
    (
        "settle of what has ended",
        "select pg_temp.put('divided'); insert into divvy.fan_in (task_id) select id from divvy.task where task_type = 'divided' and finished_at is null;
         update divvy.share set state = 'succeeded', finished_at = now() where state = 'ready' and task_type = 'divided'",
        "select divvy.settle(50)",
    ),
    (
        "promote of what is scheduled",
        "insert into divvy.task (task_type, run_at) select 'plain', now() + interval '1 h' from generate_series(1, 50);
         insert into divvy.task (task_type, split_count, run_at) select 'divided', 3, now() + interval '1 h' from generate_series(1, 20);
         update divvy.task set run_at = now() - interval '1 min' where status = 'scheduled'",
        "select divvy.promote(50)",
    ),
    (
        "promote of what was paused",
        "select pg_temp.put('divided'), pg_temp.put('plain');
         select divvy.pause_task(id, now() + interval '1 h') from divvy.task where finished_at is null;
         update divvy.task set paused_until = now() - interval '1 s' where paused_until is not null;
         update divvy.unit set due_at = now() - interval '1 s' where reason = 'paused'",
        "select divvy.promote(50)",
    ),
    ("promote beside what limits hold", "select pg_temp.put('group'), pg_temp.take('group')", "select divvy.promote(50)"),
    (
        "deadlines",
        "select pg_temp.put('plain'); update divvy.task set deadline_at = now() - interval '1 s' where finished_at is null and task_type = 'plain'",
        "select divvy.enforce_deadlines(50, divvy.clock())",
    ),
    (
        "cancels",
        "select pg_temp.put('plain'), pg_temp.take('plain'); select divvy.cancel(task_id) from c;
         update divvy.task set cancel_requested_at = cancel_requested_at - interval '1 min' where cancel_requested_at is not null and finished_at is null",
        "select divvy.enforce_cancels(50, divvy.clock())",
    ),
    ("prune", "", "select divvy.prune(50)"),
    (
        "a plan",
        "insert into divvy.task (task_type) select 'planned' from generate_series(1, 5);
         select pg_temp.take('planned', 5); select divvy.add_splits(split_id, token, '[1, 2, 3]') from c",
        "select count(*) from divvy.complete_many(pg_temp.ids(), pg_temp.tokens())",
    ),
    (
        "reduce_inputs",
        "insert into divvy.task (task_type, split_count) values ('summed', 20); select pg_temp.take('summed');
         select divvy.complete_many(pg_temp.ids(), pg_temp.tokens()); select pg_temp.take('summed')",
        "select count(*) from (select divvy.reduce_inputs(split_id, token) from c) x",
    ),
    (
        "a reduce",
        "insert into divvy.task (task_type, split_count) values ('summed', 20); select pg_temp.take('summed');
         select divvy.complete_many(pg_temp.ids(), pg_temp.tokens()); select pg_temp.take('summed')",
        "select count(*) from divvy.complete_many(pg_temp.ids(), pg_temp.tokens())",
    ),
    (
        "what a task sets off",
        r#"insert into divvy.task (task_type, "then") select 'plain', '{"succeeded": {"task_type": "plain"}}' from generate_series(1, 20); select pg_temp.take('plain', 20)"#,
        "select count(*) from divvy.complete_many(pg_temp.ids(), pg_temp.tokens())",
    ),
    (
        "fire_due",
        "select pg_temp.schedules(); update divvy.schedule set next_fire_at = now() - interval '1 s', moment_at = now() - interval '1 s' where next_fire_at is not null",
        "select divvy.fire_due(50)",
    ),
    (
        "fire_due of backfills",
        "select pg_temp.schedules(); select divvy.backfill_schedule('s' || i, array[now() - interval '1 h', now() - interval '2 h', now() - interval '3 h'], 2)
            from generate_series(1, 20) i; select divvy.fire_due(50)",
        "select divvy.fire_due(50)",
    ),
    (
        "fire_due after runs",
        "select pg_temp.schedules(); select divvy.trigger_schedule('s' || i) from generate_series(1, 20) i; select pg_temp.take('plain', 20);
         select divvy.complete_many(pg_temp.ids(), pg_temp.tokens())",
        "select divvy.fire_due(50)",
    ),
    (
        // Where nothing is under way: else it looks no further.
        "rests",
        "select pg_temp.put('group'), pg_temp.schedules(); delete from divvy.lease;
         update divvy.low_water set verified_key = (select last_value from divvy.key)",
        "select count(*) filter (where rest > 0) from divvy.rests()",
    ),
    (
        "take_sample",
        "select pg_temp.put('group'), pg_temp.take('group', 20); update divvy.once_a_minute set next_at = divvy.clock() - interval '1 s'",
        "select divvy.take_sample()",
    ),
    (
        "look_for_alerts",
        "select pg_temp.put('plain'), pg_temp.take('plain', 20), pg_temp.fail_all(); update divvy.once_a_minute set next_at = divvy.clock() - interval '1 s'",
        "select divvy.look_for_alerts()",
    ),
    (
        "type_stats",
        "select pg_temp.put('most'), pg_temp.take('most', 20)",
        "select count(*) from (select * from divvy.type_stats offset 0) x",
    ),
    (
        "worker_overview",
        "select pg_temp.put('most'), pg_temp.take('most', 20)",
        "select count(*) from (select * from divvy.worker_overview offset 0) x",
    ),
    ("explain", "select pg_temp.put('group'), pg_temp.take('group')", "select count(*) from divvy.explain((select max(id) from divvy.task))"),
    ("split_by_id", "select pg_temp.put('divided'), pg_temp.take('divided')", "select count(*) from c, divvy.split_by_id(c.split_id)"),
    ("task_result", "select pg_temp.put('plain'), pg_temp.take('plain', 5)", "select count(*) from c, divvy.task_result(c.task_id)"),
    (
        "task_progress",
        "select pg_temp.put('divided')",
        "select count(*) from (select * from divvy.task_progress where task_id = (select max(id) from divvy.task)) x",
    ),
    ("cancel", "select pg_temp.put('divided'), pg_temp.take('divided', 5)", "select divvy.cancel(min(task_id)) from c"),
    (
        "redrive",
        "select pg_temp.put('large'), pg_temp.take('large', 5); select divvy.cancel(min(task_id)) from c; select divvy.complete_many(pg_temp.ids(), pg_temp.tokens())",
        "select divvy.redrive(min(task_id)) from c",
    ),
    ("reschedule", "select pg_temp.put('divided'), pg_temp.take('divided', 5)", "select divvy.reschedule(min(task_id), now() + interval '1 h') from c"),
    ("pause_task", "select pg_temp.put('divided'), pg_temp.take('divided', 5)", "select divvy.pause_task(min(task_id)) from c"),
    ("skip_split", "select pg_temp.put('divided'), pg_temp.take('divided', 5)", "select divvy.skip_split(max(split_id) + 1) from c"),
];
