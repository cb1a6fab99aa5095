//! Whatever becomes ready takes a new key: in what it does, and in what sql/ says.

use super::{mark, traffic};
use crate::support::clock::Clock;
use crate::support::db::TestDb;
use crate::support::hand::Hand;
use divvy::store::migrate::{MIGRATIONS, RULES};
use std::time::Duration;

/// A split that is delayed, running or ended, and what makes it ready. `%` is the split's id.
const WAYS: &[(&str, &str, &str)] = &[
    ("release", "", "select divvy.release(%, (select token from divvy.split where id = %))"),
    ("retry", "", "select divvy.fail(%, (select token from divvy.split where id = %), '{}', true, '0 s')"),
    ("snooze", "", "select divvy.snooze(%, (select token from divvy.split where id = %), '0 s')"),
    ("reclaim", "select divvy.reclaim()", "select divvy.reclaim()"),
    (
        "promote",
        "select divvy.snooze(%, (select token from divvy.split where id = %), '25 s')",
        "select divvy.promote()",
    ),
    (
        "redrive",
        "select divvy.fail(%, (select token from divvy.split where id = %), '{}', false)",
        "select divvy.redrive((select coalesce(share_of, id) from divvy.unit where id = %))",
    ),
    (
        "resume",
        "select divvy.pause_task((select coalesce(share_of, id) from divvy.unit where id = %));
         select divvy.release(%, (select token from divvy.split where id = %))",
        "select divvy.resume_task((select coalesce(share_of, id) from divvy.unit where id = %))",
    ),
    (
        "reschedule",
        "select divvy.snooze(%, (select token from divvy.split where id = %), '1 hour')",
        "select divvy.reschedule((select coalesce(share_of, id) from divvy.unit where id = %), null)",
    ),
    (
        "priority",
        "select divvy.release(%, (select token from divvy.split where id = %))",
        "select divvy.update_task((select coalesce(share_of, id) from divvy.unit where id = %), '{\"priority\": 1}')",
    ),
];

#[tokio::test]
async fn whatever_makes_a_split_ready_gives_it_a_new_key_above_the_mark() {
    for insert in ["(task_type) values ('x')", "(task_type, split_count) values ('x', 1)"] {
        for (name, before, way) in WAYS {
            let db = TestDb::new().await;
            let clock = Clock::stop(&db).await;
            let (mut hand, mut duty) = (Hand::new(&db).await, Hand::new(&db).await);
            hand.declare("x", "{}").await;
            hand.insert(insert).await;
            let split = hand.claim_one("x").await.split_id;
            let old: i64 = hand.get(&format!("select key from divvy.unit where id = {split}")).await;
            hand.run(&before.replace('%', &split.to_string())).await;
            if *name == "reclaim" || *name == "promote" {
                for _ in 0..6 {
                    hand.run("update divvy.pulse set reclaimed_at = divvy.clock()").await;
                    clock.advance(Duration::from_secs(5)).await;
                }
            }
            // The mark goes over where the split was, unless it is there still.
            if *name != "priority" {
                traffic(&mut hand, &mut duty).await;
            }
            let reached = mark(&mut duty).await;
            hand.run(&way.replace('%', &split.to_string())).await;
            let (state, key) = (
                hand.state(split).await,
                hand.get::<i64>(&format!("select key from divvy.unit where id = {split}")).await,
            );
            assert_eq!(state, "ready", "{name} of {insert}");
            assert!(key > reached && key > old, "{name} of {insert}: key {key}, was {old}, mark {reached}");
            assert_eq!(Hand::new(&db).await.claim_one("x").await.split_id, split, "{name}");
        }
    }
}

#[tokio::test]
async fn a_paused_type_keeps_its_place_and_holds_no_other_types_mark() {
    let db = TestDb::new().await;
    let (mut hand, mut duty) = (Hand::new(&db).await, Hand::new(&db).await);
    hand.declare("x", "{}").await;
    hand.declare("paused", "{}").await;
    let task = hand.insert("(task_type) values ('paused')").await;
    hand.run("select divvy.pause('paused')").await;
    assert_eq!(traffic(&mut hand, &mut duty).await, super::last_key(&mut duty).await);
    hand.run("select divvy.resume('paused')").await;
    assert_eq!(hand.claim_one("paused").await.task_id, task);
}

/// The SQL without comments and without what is quoted with single quotes in comments.
fn rules() -> Vec<(&'static str, String)> {
    RULES.iter().map(|file| (file.file, without_comments(file.text))).collect()
}

fn without_comments(sql: &str) -> String {
    sql.lines()
        .map(|line| line.split(" -- ").next().unwrap_or(line))
        .filter(|line| !line.trim_start().starts_with("--"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Every assignment list `set …` of an update of splits, up to its where, from or returning at the same depth.
fn assignments(sql: &str) -> Vec<String> {
    let mut found = Vec::new();
    for table in ["divvy.unit", "divvy.task", "divvy.share"] {
        for (at, _) in sql.match_indices(&format!("update {table} ")) {
            let rest = &sql[at..];
            let set = rest.find(" set").expect("an update sets something");
            let (mut depth, mut end) = (0i32, rest.len());
            for (i, c) in rest.char_indices().skip_while(|(i, _)| *i < set) {
                depth += i32::from(c == '(') - i32::from(c == ')');
                let word = |w: &str| rest[i..].starts_with(w) && rest[i + w.len()..].starts_with([' ', '\n']);
                let begins = rest[..i].ends_with([' ', '\n']);
                if depth < 0
                    || c == ';'
                    || (depth == 0 && begins && ["where", "from", "returning"].iter().any(|w| word(w)))
                {
                    end = i;
                    break;
                }
            }
            found.push(rest[set..end].to_owned());
        }
    }
    found
}

/// What takes a new key.
const NEW_KEYS: [&str; 2] = ["key = nextval('divvy.key')", "key = divvy.next_key("];
/// What keeps the old one, for a row that is no claim's: below zero while it waits, and above again when it ends.
const NO_CLAIMS: [&str; 4] = ["key = -u.key", "key = abs(s.key)", "key = abs(t.key)", "key = abs(x.key)"];

#[test]
fn every_statement_that_makes_splits_ready_takes_a_new_key() {
    let mut ready = 0;
    for (file, sql) in rules() {
        for set in assignments(&sql) {
            let makes_ready = set.contains("'ready'");
            let moves_lane = set.contains("priority = ");
            if makes_ready || moves_lane {
                ready += 1;
                assert!(
                    NEW_KEYS.iter().any(|key| set.contains(key)) || only_scheduled(&set),
                    "{file}: no new key in{set}"
                );
            }
        }
    }
    assert!(ready >= 9, "the test finds the statements: {ready}");
}

/// A scheduled task is no split yet: its start gives it the key.
fn only_scheduled(set: &str) -> bool {
    set.contains("set run_at = p_at") && !set.contains("state = ")
}

#[test]
fn no_key_is_ever_read_from_a_row() {
    for (file, sql) in rules() {
        for set in assignments(&sql) {
            for (at, _) in set.match_indices("key = ") {
                let name = set[..at].chars().last().unwrap_or(' ');
                assert!(
                    name == '_' || NEW_KEYS.iter().chain(&NO_CLAIMS).any(|key| set[at..].starts_with(key)),
                    "{file}: a key that is not the sequence's in{set}"
                );
            }
        }
        for table in ["divvy.unit", "divvy.task", "divvy.share"] {
            for (at, _) in sql.match_indices(&format!("insert into {table} (")) {
                let columns: Vec<&str> =
                    sql[at..].split(['(', ')']).nth(1).unwrap().split(',').map(str::trim).collect();
                let takes_new = sql[at..].split(';').next().unwrap().contains(" divvy.next_key(");
                assert!(
                    !columns.contains(&"key") || takes_new,
                    "{file}: an insert that gives a key: {columns:?}"
                );
            }
        }
    }
    let tables = MIGRATIONS[0].text;
    assert!(tables.contains("key bigint not null default nextval('divvy.key')"));
    assert!(!tables.to_lowercase().contains("cache"), "a cached sequence hands out old keys");
}
