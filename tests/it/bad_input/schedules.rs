//! Schedules that can't be: what is wrong is said in one text, by SQL, by whoever plans, and by the command line.

use crate::support::program::{divvy_on, said};
use crate::support::queue::Queue;
use divvy::leader::Duty;
use divvy::store::Store;

/// Who finds it: the INSERT, or the cron parser after it.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Sql,
    Parser,
}
use By::{Parser, Sql};

/// A fault: columns and values beside name and type, the same as options, and the whole text.
struct Fault {
    by: By,
    columns: &'static str,
    values: &'static str,
    options: &'static [&'static str],
    text: &'static str,
}

const fn fault(
    by: By,
    columns: &'static str,
    values: &'static str,
    options: &'static [&'static str],
    text: &'static str,
) -> Fault {
    Fault { by, columns, values, options, text }
}

const FAULTS: [Fault; 23] = [
    // Zones.
    fault(
        Sql,
        "every, timezone",
        "'1 min', 'Mars/Olympus'",
        &["--every", "1m", "--timezone", "Mars/Olympus"],
        r#"timezone is "Mars/Olympus": an IANA name such as Europe/Berlin or UTC expected"#,
    ),
    fault(
        Sql,
        "every, timezone",
        "'1 min', 'Europa/Rome'",
        &["--every", "1m", "--timezone", "Europa/Rome"],
        r#"timezone is "Europa/Rome": an IANA name such as Europe/Rome expected"#,
    ),
    fault(
        Sql,
        "cron, timezone",
        "'@daily', 'CEST'",
        &["--cron", "@daily", "--timezone", "CEST"],
        r#"timezone is "CEST": an IANA name such as Europe/Berlin or UTC expected"#,
    ),
    // Expressions that are none.
    fault(
        Sql,
        "cron",
        "'* * * *'",
        &["--cron", "* * * *"],
        r#"cron expression "* * * *" has 4 fields: 5 (minute hour day month weekday), 6 (with a second first), 7 (with a year last) or a name such as @daily expected"#,
    ),
    fault(
        Sql,
        "cron",
        "'@daily;'",
        &["--cron", "@daily;"],
        r#"cron expression "" has 0 fields: 5 (minute hour day month weekday), 6 (with a second first), 7 (with a year last) or a name such as @daily expected"#,
    ),
    fault(
        Sql,
        "cron",
        "'0 4 * * $'",
        &["--cron", "0 4 * * $"],
        r#"cron has "$": letters, digits and * / , ? # @ ; - expected"#,
    ),
    fault(
        Parser,
        "cron",
        "'0 25 * * *'",
        &["--cron", "0 25 * * *"],
        r#"cron field hour is "25" in "0 25 * * *": 0 to 23, a list 8,12, a range 8-18 or a step */2 expected"#,
    ),
    fault(
        Parser,
        "cron",
        "'0 4 * * MOO'",
        &["--cron", "0 4 * * MOO"],
        r#"cron field day of week is "MOO" in "0 4 * * MOO": SUN to SAT or 0 to 7 (0 and 7 are Sunday), a list, a range MON-FRI, FRI#2 or FRIL expected"#,
    ),
    fault(Parser, "cron", "'@reboot'", &["--cron", "@reboot"], ""),
    fault(Parser, "cron", "'TZ=UTC 0 4 * * *'", &["--cron", "TZ=UTC 0 4 * * *"], ""),
    // Expressions that never fire.
    fault(
        Parser,
        "cron",
        "'0 0 30 2 *'",
        &["--cron", "0 0 30 2 *"],
        r#"cron expression "0 0 30 2 *" never fires: no date between 1970 and 2100 has day of month "30" and month "2"; a date that exists expected"#,
    ),
    fault(
        Parser,
        "cron, timezone, dst_gap",
        "'0 30 2 29 3 ? 2026', 'Europe/Berlin', 'skip'",
        &["--cron", "0 30 2 29 3 ? 2026", "--timezone", "Europe/Berlin", "--dst-gap", "skip"],
        "",
    ),
    // Steps.
    fault(Sql, "steps", "'{}'", &["--steps", ""], "steps has 0 offsets: 1 to 1000 expected"),
    fault(
        Sql,
        "steps",
        "'{-1 s}'",
        &["--steps", "-1"],
        "steps has the offset -00:00:01: 0 to 10 years expected",
    ),
    fault(
        Sql,
        "steps",
        "'{1 s,311126400 s}'",
        &["--steps", "1,3601d"],
        "steps has the offset 86424:00:00: 0 to 10 years expected",
    ),
    fault(
        Sql,
        "steps",
        "'{5 s,3 s}'",
        &["--steps", "5,3"],
        "steps has 00:00:03 after 00:00:05: offsets that grow expected",
    ),
    fault(
        Sql,
        "steps",
        "'{5 s,5 s}'",
        &["--steps", "5,5"],
        "steps has 00:00:05 after 00:00:05: offsets that grow expected",
    ),
    // Intervals.
    fault(Sql, "every", "'0 s'", &["--every", "0"], "every is 00:00:00: 1 s to 10 years expected"),
    fault(
        Sql,
        "every",
        "'311126400 s'",
        &["--every", "3601d"],
        "every is 86424:00:00: 1 s to 10 years expected",
    ),
    // Rules.
    fault(
        Sql,
        "every, cron",
        "'1 min', '@daily'",
        &["--every", "1m", "--cron", "@daily"],
        "give exactly one of steps, run_at, cron and every, not 2",
    ),
    fault(
        Sql,
        "cron, anchor",
        "'@daily', 'previous_end'",
        &["--cron", "@daily", "--anchor", "previous_end"],
        "anchor is 'previous_end'; it goes with steps or every, not with cron or run_at",
    ),
    // Bounds.
    fault(
        Sql,
        "every, starts_at, ends_at",
        "'1 min', '2030-01-02Z', '2030-01-01Z'",
        &["--every", "1m", "--starts-at", "20300102000000", "--ends-at", "20300101000000"],
        "ends_at 2030-01-01 00:00:00+00 is not after starts_at 2030-01-02 00:00:00+00",
    ),
    fault(
        Sql,
        "run_at, ends_at",
        "'2030-01-02Z', '2030-01-01Z'",
        &["--run-at", "20300102000000", "--ends-at", "20300101000000"],
        "no moment of it lies between starts_at null and ends_at 2030-01-01 00:00:00+00",
    ),
];

/// What the command line says of a schedule `s`, with columns in place of its options.
fn told_by_the_command_line(q: &Queue, options: &[&str]) -> String {
    let put = ["schedule", "put", "s", "--type", "a"];
    let said = said(&mut divvy_on(q.db.url(), &[&put, options].concat()));
    assert_eq!(said.code, Some(1), "{options:?}: {}", said.err);
    let text =
        said.err.trim().strip_prefix("divvy: schedule s: ").and_then(|text| text.strip_suffix(" (DV012)"));
    let text = text.unwrap_or_else(|| panic!("{options:?}: {}", said.err));
    ["steps", "run-at", "cron", "every", "timezone", "anchor"]
        .iter()
        .fold(text.to_owned(), |text, option| text.replace(&format!("--{option}"), &option.replace('-', "_")))
}

async fn told_by_the_parser(q: &mut Queue) -> String {
    Duty::Fire.run_once(&Store::new(q.db.pool().clone())).await.unwrap();
    let (status, reason): (String, Option<String>) = q
        .rows("select status::text, reason from divvy.schedule where name = 's' order by id desc limit 1")
        .await
        .remove(0);
    assert_eq!(status, "refused", "{reason:?}");
    q.run("select divvy.cancel_schedule('s')").await;
    reason.unwrap()
}

#[tokio::test]
async fn a_fault_of_a_schedule_is_told_in_one_text_wherever_it_is_found() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run("set timezone = 'UTC'").await;
    for fault in FAULTS {
        let columns = fault.columns;
        let insert = format!(
            "insert into divvy.schedule (name, task_type, {columns}) values ('s', 'a', {})",
            fault.values
        );
        let text = if fault.by == Sql {
            let refusal = q.refused(insert).await;
            assert_eq!(refusal.code, "DV012", "{columns}");
            refusal.message.strip_prefix("schedule s: ").unwrap().to_owned()
        } else {
            q.run(insert).await;
            told_by_the_parser(&mut q).await
        };
        if !fault.text.is_empty() {
            assert_eq!(text, fault.text);
        }
        assert!(text.len() > 30, "{text}");
        assert_eq!(told_by_the_command_line(&q, fault.options), text);
    }
    let none: i64 = q.one("select count(*) from divvy.schedule where status <> 'cancelled'").await;
    assert_eq!(none, 0);
}

#[tokio::test]
async fn more_steps_than_may_be_are_counted_in_one_text() {
    let mut q = Queue::with_types(&["a"]).await;
    let many = "insert into divvy.schedule (name, task_type, steps) select 's', 'a', array_agg(i * interval '1 s') from generate_series(1, 1001) i";
    let text = "steps has 1001 offsets: 1 to 1000 expected";
    assert_eq!(q.refused(many).await.message, format!("schedule s: {text}"));
    let steps: Vec<String> = (1..=1_001).map(|step| step.to_string()).collect();
    assert_eq!(told_by_the_command_line(&q, &["--steps", &steps.join(",")]), text);
}

#[tokio::test]
async fn a_name_that_is_taken_is_told_in_one_text() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run("insert into divvy.schedule (name, task_type, every) values ('s', 'a', '1 min')").await;
    let text = "name 's' is taken by another schedule that has not ended";
    for again in [
        "insert into divvy.schedule (name, task_type, every) values ('s', 'a', '2 min')",
        "insert into divvy.schedule (name, task_type, every) values ('t', 'a', '2 min'), ('t', 'a', '2 min')",
        r#"select divvy.put_schedule('s', '{"task_type": "a", "every": "2 min"}', is_new => true)"#,
    ] {
        q.refused(again).await.says("DV012", &["is taken by another schedule that has not ended"]);
    }
    assert_eq!(told_by_the_command_line(&q, &["--every", "2m", "--new"]), text);
    assert_eq!(q.one::<i64>("select count(*) from divvy.schedule").await, 1);
}

#[tokio::test]
async fn a_rule_whose_moments_have_all_passed_is_refused_with_the_parser_s_words() {
    let mut q = Queue::with_types(&["a"]).await;
    q.run("insert into divvy.schedule (name, task_type, cron) values ('s', 'a', '0 0 0 1 1 ? 2020')").await;
    let until_when = |text: String| text.split_once(" after ").unwrap().0.to_owned();
    let text = until_when(told_by_the_parser(&mut q).await);
    assert_eq!(text, "cron \"0 0 0 1 1 ? 2020\" never fires");
    assert_eq!(until_when(told_by_the_command_line(&q, &["--cron", "0 0 0 1 1 ? 2020"])), text);
}
