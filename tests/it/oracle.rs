//! Cron moments beside a second opinion: `oracle/oracle.py` computed them with croniter and the zone data of
//! Python, and shares no code with us. docs/scheduling.md says how to make them anew.
//!
//! Every test run compares a fixed part one by one; all of it is one command:
//! `cargo test --release --test it oracle -- --ignored --nocapture`.

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use divvy::trigger::{Trigger, ZONE_DATA};
use flate2::read::GzDecoder;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::time::Instant;

const EXPRESSIONS: &str = include_str!("oracle/expressions.txt");
const MOMENTS: &[u8] = include_bytes!("oracle/moments.txt.gz");
const ZONES_LEAST: usize = 50;
const EXPRESSIONS_LEAST: usize = 200;
const FIXED_LEAST: usize = 50_000;
const ALL_LEAST: usize = 1_000_000;

/// What the second opinion says.
struct Opinion {
    data: String,
    /// Each zone with the instants at which its clock changes.
    zones: Vec<(String, Vec<i64>)>,
    pairs: Vec<Pair>,
}

/// One expression in one zone.
struct Pair {
    zone: usize,
    expression: usize,
    gap: String,
    fold: String,
    count: usize,
    digest: u64,
    /// All of them, where they are compared one by one.
    moments: Option<Vec<i64>>,
}

/// An expression and how far around each change it is asked, in seconds; none where it is asked throughout.
struct Expression {
    text: &'static str,
    span: Option<i64>,
}

fn opinion() -> Opinion {
    let mut text = String::new();
    GzDecoder::new(MOMENTS).read_to_string(&mut text).expect("moments.txt.gz");
    let mut lines = text.lines();
    let data = lines.next().and_then(|line| line.strip_prefix("data ")).expect("the zone data").to_owned();
    let (mut zones, mut pairs) = (Vec::new(), Vec::new());
    for line in lines {
        match line.strip_prefix("zone ") {
            Some(zone) => {
                let (name, changes) = zone.split_once(' ').unwrap_or((zone, ""));
                zones.push((name.to_owned(), numbers(changes)));
            }
            None => pairs.push(pair(line)),
        }
    }
    Opinion { data, zones, pairs }
}

fn pair(line: &str) -> Pair {
    let words: Vec<&str> = line.splitn(7, ' ').collect();
    let [zone, expression, gap, fold, count, digest, rest @ ..] = words.as_slice() else { panic!("{line}") };
    let sum = |before: &mut i64, delta: i64| {
        *before += delta;
        Some(*before)
    };
    Pair {
        zone: zone.parse().unwrap(),
        expression: expression.parse().unwrap(),
        gap: (*gap).to_owned(),
        fold: (*fold).to_owned(),
        count: count.parse().unwrap(),
        digest: u64::from_str_radix(digest, 16).unwrap(),
        moments: rest.first().map(|deltas| numbers(deltas).into_iter().scan(0, sum).collect()),
    }
}

fn numbers(text: &str) -> Vec<i64> {
    text.split_whitespace().map(|number| number.parse().expect(number)).collect()
}

fn expressions() -> Vec<Expression> {
    let mut span = None;
    let mut found = Vec::new();
    for line in EXPRESSIONS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some("all") => span = None,
            Some(around) => match Trigger::every(around) {
                Ok(Trigger::Every { interval }) => span = Some(interval.num_seconds()),
                other => panic!("{line}: {other:?}"),
            },
            None => found.push(Expression { text: line, span }),
        }
    }
    found
}

fn at(year: i32, month: u32, day: u32, hour: u32) -> i64 {
    Utc.with_ymd_and_hms(year, month, day, hour, 0, 0).unwrap().timestamp()
}

fn instant(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

/// What we say to the same question.
fn ours(opinion: &Opinion, expressions: &[Expression], pair: &Pair) -> Vec<i64> {
    let (zone, changes) = &opinion.zones[pair.zone];
    let Expression { text, span } = expressions[pair.expression];
    let trigger = Trigger::cron_with(text, zone, pair.gap.parse().unwrap(), pair.fold.parse().unwrap())
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    let windows: Vec<(i64, i64)> = match span {
        None => vec![(at(2015, 1, 1, 0), at(2036, 1, 1, 0))],
        Some(span) => {
            // Days without a change are looked at, too.
            let plain = [at(2016, 2, 29, 0), at(2024, 12, 31, 12), at(2032, 2, 29, 0)];
            let around: BTreeSet<i64> = changes.iter().copied().chain(plain).collect();
            around.into_iter().map(|at| (at - span, at + span)).collect()
        }
    };
    let moments =
        |(low, high)| trigger.moments(DateTime::UNIX_EPOCH, instant(low), instant(high), usize::MAX);
    windows.into_iter().flat_map(moments).map(|at| at.timestamp()).collect()
}

/// FNV-1a with a moment in place of a byte.
fn digest(moments: &[i64]) -> u64 {
    moments
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |value, at| (value ^ at.cast_unsigned()).wrapping_mul(0x0100_0000_01b3))
}

/// The question, as `oracle.py show` is asked it.
fn question(opinion: &Opinion, expressions: &[Expression], pair: &Pair) -> String {
    let Expression { text, span } = expressions[pair.expression];
    let span = match span {
        None => "all",
        Some(300) => "5m",
        Some(5_400) => "90m",
        Some(18_000) => "5h",
        Some(_) => "2d",
    };
    format!("{} {text:?} {} {} {span}", opinion.zones[pair.zone].0, pair.gap, pair.fold)
}

/// The changes of a zone's clock from 2015 to 2035.
fn changes(zone: Tz) -> Vec<i64> {
    let offset = |at: i64| instant(at).with_timezone(&zone).naive_local() - instant(at).naive_utc();
    let (begin, end) = (at(2015, 1, 1, 0), at(2036, 1, 1, 0));
    let mut found = Vec::new();
    for low in (begin..end).step_by(86_400) {
        let (mut no, mut yes) = (low, low + 86_400);
        if offset(no) == offset(yes) {
            continue;
        }
        while yes - no > 1 {
            let middle = no.midpoint(yes);
            if offset(middle) == offset(low) { no = middle } else { yes = middle }
        }
        found.push(yes);
    }
    found
}

#[test]
fn fifty_thousand_moments_and_every_change_are_those_of_the_second_opinion() {
    let (opinion, expressions) = (opinion(), expressions());
    assert_eq!(
        opinion.data.split(';').next(),
        Some(ZONE_DATA),
        "other zone data: set tzdata in oracle/requirements.txt to the release that chrono-tz has, and make it anew"
    );
    assert!(opinion.zones.len() >= ZONES_LEAST && expressions.len() >= EXPRESSIONS_LEAST);
    for (zone, told) in &opinion.zones {
        assert_eq!(&changes(zone.parse().unwrap()), told, "{zone}: the clock changes at other times");
    }
    let (mut compared, mut zones, mut asked) = (0, BTreeSet::new(), BTreeSet::new());
    for pair in &opinion.pairs {
        let Some(told) = &pair.moments else { continue };
        let ours = ours(&opinion, &expressions, pair);
        let difference = (0..ours.len().max(told.len())).find(|index| ours.get(*index) != told.get(*index));
        if let Some(index) = difference {
            let shown = |moments: &[i64]| moments.get(index).map(|at| instant(*at));
            panic!(
                "{}: moment {index} is {:?}, the second opinion is {:?}",
                question(&opinion, &expressions, pair),
                shown(&ours),
                shown(told)
            );
        }
        assert_eq!((told.len(), digest(told)), (pair.count, pair.digest));
        compared += told.len();
        zones.insert(pair.zone);
        asked.insert(pair.expression);
    }
    assert!(compared >= FIXED_LEAST, "only {compared} moments");
    assert_eq!((zones.len(), asked.len()), (opinion.zones.len(), expressions.len()));
}

#[test]
#[ignore = "minutes without optimisations: cargo test --release --test it oracle -- --ignored --nocapture"]
fn all_moments_are_those_of_the_second_opinion() {
    let (opinion, expressions, begin) = (opinion(), expressions(), Instant::now());
    let mut compared = 0;
    let mut different = Vec::new();
    for pair in &opinion.pairs {
        let ours = ours(&opinion, &expressions, pair);
        compared += ours.len();
        if (ours.len(), digest(&ours)) != (pair.count, pair.digest) {
            different.push(format!(
                "{}: {} moments, the second opinion has {}",
                question(&opinion, &expressions, pair),
                ours.len(),
                pair.count
            ));
        }
    }
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
    assert!(compared >= ALL_LEAST, "only {compared} moments");
    assert_eq!(opinion.pairs.len(), opinion.zones.len() * expressions.len());
    println!(
        "{compared} moments of {} expressions in {} zones, {} changes of clocks: no difference from {}, {:.1?}",
        expressions.len(),
        opinion.zones.len(),
        opinion.zones.iter().map(|(_, changes)| changes.len()).sum::<usize>(),
        opinion.data,
        begin.elapsed()
    );
}

/// So "every change of a clock" is every change of every zone there is.
#[test]
#[ignore = "half a minute without optimisations"]
fn the_zones_of_the_oracle_stand_for_all_that_there_are() {
    let shifts = |zone: Tz| -> Vec<(i64, TimeDelta, TimeDelta)> {
        let offset = |at: i64| instant(at).with_timezone(&zone).naive_local() - instant(at).naive_utc();
        changes(zone).into_iter().map(|at| (at, offset(at - 1), offset(at))).collect()
    };
    let known: BTreeMap<_, _> =
        opinion().zones.iter().map(|(name, _)| (shifts(name.parse().unwrap()), name.clone())).collect();
    let missing: Vec<&str> = TZ_VARIANTS
        .iter()
        .filter(|zone| !known.contains_key(&shifts(**zone)))
        .map(|zone| zone.name())
        .collect();
    assert!(missing.is_empty(), "no zone of the oracle has their changes: {missing:?}");
    println!("{} zones have {} histories", TZ_VARIANTS.len(), known.len());
}
