//! Schedules of a wrong shape are refused by the INSERT.

use crate::support::queue::Queue;

#[tokio::test]
async fn a_schedule_of_a_wrong_shape_is_refused_with_what_is_wrong() {
    let mut q = Queue::with_types(&["a"]).await;
    for (columns, values, names) in [
        ("payload", "'{}'", vec!["exactly one of steps, run_at, cron and every, not 0"]),
        ("every, cron", "'1 min', '* * * * *'", vec!["exactly one", "not 2"]),
        ("steps", "'{}'", vec!["steps has 0 offsets"]),
        (
            "steps",
            "array(select i * interval '1 s' from generate_series(1, 1001) i)",
            vec!["steps has 1001 offsets", "1000"],
        ),
        ("steps", "'{5 s,3 s}'", vec!["steps has 00:00:03 after 00:00:05: offsets that grow expected"]),
        ("steps", "'{5 s,5 s}'", vec!["grow"]),
        ("steps", "'{-1 s}'", vec!["offset -00:00:01"]),
        ("steps", "'{11 years}'", vec!["offset 11 years"]),
        ("steps", "'{null}'", vec!["offset null"]),
        ("every", "'999 ms'", vec!["every is 00:00:00.999: 1 s to 10 years expected"]),
        ("every", "'-1 min'", vec!["every is -00:01:00"]),
        ("every", "'11 years'", vec!["every is 11 years"]),
        ("run_at", "'infinity'", vec!["run_at is infinity"]),
        ("run_at", "'294276-12-31'", vec!["run_at is"]),
        ("cron", "''", vec!["cron expression \"\" has 0 fields"]),
        ("cron", "'* * * *'", vec!["\"* * * *\" has 4 fields", "@daily"]),
        ("cron", "'* * * * * * * *'", vec!["has 8 fields"]),
        ("cron", "'* * * * $'", vec!["cron has \"$\": letters, digits and"]),
        ("cron", "repeat('1,', 600) || '1 * * * *'", vec!["cron text has 1209 bytes"]),
        ("every, timezone", "'1 min', 'Mars/Olympus'", vec!["timezone is \"Mars/Olympus\"", "IANA"]),
        ("every, overlap", "'1 min', 'queue'", vec!["overlap is 'queue'"]),
        ("every, catch_up", "'1 min', 'sometimes'", vec!["catch_up is 'sometimes'"]),
        ("every, dst_gap", "'1 min', 'x'", vec!["dst_gap is 'x'"]),
        ("every, dst_fold", "'1 min', 'x'", vec!["dst_fold is 'x'"]),
        ("every, overlap", "'1 min', null", vec!["overlap is null"]),
        ("every, catch_up_max", "'1 min', 0", vec!["catch_up_max is 0", "1 to 1000"]),
        ("every, catch_up_max", "'1 min', 1001", vec!["catch_up_max is 1001"]),
        ("every, catch_up_window", "'1 min', '0'", vec!["catch_up_window is 00:00:00"]),
        ("every, catch_up_pace", "'1 min', '-1 s'", vec!["catch_up_pace is -00:00:01"]),
        ("every, jitter", "'1 min', '-1 s'", vec!["jitter is -00:00:01", "0 s to 1 day"]),
        ("every, jitter", "'1 min', '2 days'", vec!["jitter is 2 days"]),
        ("every, pause_on_failure", "'1 min', 0", vec!["pause_on_failure is 0"]),
        ("every, anchor", "'1 min', 'now'", vec!["anchor is 'now'"]),
        ("cron, anchor", "'0 3 * * *', 'previous_end'", vec!["anchor is 'previous_end'", "steps or every"]),
        ("every, calendar", "'1 day', 'nowhere'", vec!["calendar is 'nowhere'"]),
        (
            "every, calendar_shift",
            "'1 day', 'next'",
            vec!["calendar_shift is 'next'", "goes with a calendar"],
        ),
        ("every, timezone", "'1 min', null", vec!["timezone is null"]),
        ("every, timezone", "'1 min', 'CEST'", vec!["timezone is \"CEST\""]),
        ("every, max_runs", "'1 min', 0", vec!["max_runs is 0"]),
        ("every, starts_at, ends_at", "'1 min', '2030-01-02', '2030-01-01'", vec!["ends_at", "starts_at"]),
        ("every, starts_at", "'1 min', 'infinity'", vec!["starts_at is infinity"]),
        ("every, ends_at", "'1 min', 'infinity'", vec!["ends_at is infinity"]),
        // No moment would ever come: an active schedule that never fires is nobody's wish.
        ("run_at, ends_at", "'2030-01-02', '2030-01-01'", vec!["no moment"]),
        ("every, ends_at", "'1 day', now() + interval '1 hour'", vec!["no moment"]),
        ("steps, ends_at", "'{1 day}', now() + interval '1 hour'", vec!["no moment"]),
        ("run_at, starts_at", "'2030-01-01', '2030-01-02'", vec!["no moment"]),
    ] {
        q.refused(format!(
            "insert into divvy.schedule (name, task_type, {columns}) values ('s', 'a', {values})"
        ))
        .await
        .says("DV012", &[&["schedule s"], names.as_slice()].concat());
    }
    q.refused("insert into divvy.schedule (name, task_type, every) values ('No Name', 'a', '1 min')")
        .await
        .says("DV012", &["No Name", "1 to 100 of a-z"]);
    assert_eq!(q.one::<i64>("select count(*) from divvy.schedule").await, 0);
}

#[tokio::test]
async fn the_task_of_a_schedule_obeys_the_limits_of_a_task() {
    let mut q = Queue::with_types(&["a"]).await;
    for (column, value, code, name) in [
        ("payload", "jsonb_build_object('x', repeat('x', 1048576))", "DV003", "payload is"),
        ("priority", "9", "DV010", "priority is 9"),
        ("split_count", "1000001", "DV003", "splits is 1000001"),
        ("split_range", "'[0,)'", "DV010", "split_size"),
        ("max_attempts", "0", "DV010", "max_attempts is 0"),
        ("labels", "array(select i::text from generate_series(1, 21) i)", "DV003", "labels is 21"),
        ("\"then\"", "'{\"succeeded\": {}}'", "DV010", "then"),
    ] {
        q.refused(format!("insert into divvy.schedule (name, task_type, every, {column}) values ('s', 'a', '1 min', {value})"))
            .await
            .says(code, &["schedule s", name]);
    }
    q.refused("insert into divvy.schedule (name, task_type, every) values ('s', 'A type', '1 min')")
        .await
        .says("DV010", &["schedule s", "A type"]);
}

#[tokio::test]
async fn operating_on_a_schedule_that_is_not_there_names_it() {
    let mut q = Queue::new().await;
    for call in ["pause_schedule", "resume_schedule", "trigger_schedule", "cancel_schedule"] {
        q.refused(format!("select divvy.{call}('nothing')"))
            .await
            .says("DV011", &["open schedule", "nothing"]);
    }
    for call in ["plan_schedule(999999, now(), null)", "refuse_schedule(999999, 'x')"] {
        q.refused(format!("select divvy.{call}")).await.says("DV011", &["schedule", "999999"]);
    }
}
