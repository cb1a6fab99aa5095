//! Looks over many keys go in pieces, and each goes on where the one before it stopped.

use super::{bench, last_key};
use crate::support::hand::Hand;
use crate::support::race::until;

/// How many keys a piece has, at first.
const PIECE: i64 = 4_096;
/// More keys than two pieces.
const UNUSED: i64 = 2 * PIECE + 1_000;
/// The lowest ready key of each lane, by where it stands in an array of all lanes; null without one.
const FIRST_READY: &str = "select array_agg(divvy.first_ready('x', l, 0, 9223372036854775807) order by l) from unnest(divvy.all_lanes()) l";

/// Others use keys up.
async fn use_up(hand: &mut Hand) {
    hand.run(&format!("select count(nextval('divvy.key')) from generate_series(1, {UNUSED})")).await;
}

/// Something of each kind that is ready, with nothing before it in its lane for more than two pieces.
async fn ready_behind_unused_keys(hand: &mut Hand) -> i64 {
    use_up(hand).await;
    hand.insert("(task_type) values ('x')").await;
    hand.divided_into_rows("x", 3).await;
    hand.divided("x", 100).await;
    104
}

#[tokio::test]
async fn marks_that_rise_in_pieces_come_to_where_one_look_would_have_put_them() {
    let (_db, mut hand, mut duty) = bench().await;
    ready_behind_unused_keys(&mut hand).await;
    for _ in 0..2 {
        duty.run("select divvy.advance_low_water()").await;
    }
    duty.run("begin").await;
    let whole: Vec<i64> = duty.get("select divvy.raise_marks('x', null, 0)").await;
    duty.run("rollback").await;
    let ready: Vec<Option<i64>> = duty.get(FIRST_READY).await;
    assert_eq!(ready.iter().flatten().count(), 3, "{ready:?}");
    let mut marks: Vec<i64> = vec![0; whole.len()];
    let mut pieces = 0;
    while marks != whole {
        pieces += 1;
        assert!(pieces <= UNUSED / PIECE + 1, "{marks:?} after {pieces} pieces, not {whole:?}");
        let before = marks;
        marks = duty.get("select divvy.raise_marks('x', null, 0, 0)").await;
        assert!(
            marks.iter().zip(&before).all(|(mark, before)| mark - before <= PIECE),
            "{before:?}, then {marks:?}: more than a piece"
        );
        assert!(
            marks.iter().zip(&ready).all(|(mark, ready)| ready.is_none_or(|key| *mark < key)),
            "{marks:?} with {ready:?} ready"
        );
    }
    assert!(pieces > 2, "the first piece was all");
}

#[tokio::test]
async fn a_look_behind_in_pieces_finds_what_lies_beyond_the_first_and_each_split_once() {
    let (_db, mut hand, mut duty) = bench().await;
    let count = ready_behind_unused_keys(&mut hand).await;
    let to = last_key(&mut duty).await;
    let lanes: i64 = duty.get("select cardinality(divvy.all_lanes())::bigint").await;
    let positions = format!("array_fill({to}::bigint, array[{lanes}])");
    let mut seen = vec![0; usize::try_from(lanes).unwrap()];
    let mut found: Vec<i64> = Vec::new();
    // What it takes stays locked, and is leased to nobody.
    hand.run("begin; create temp table look (ids bigint[], seen bigint[]) on commit drop").await;
    let mut pieces = 0;
    while seen.iter().any(|at| *at < to) {
        pieces += 1;
        assert!(pieces <= lanes * (to / PIECE + 2), "{seen:?} after {pieces} pieces");
        hand.run(&format!(
            "delete from look;
             insert into look select array(select i from unnest(s.parts) p, unnest(p.split_ids) i), s.seen
             from divvy.task_type t, divvy.pick_stragglers(t, '{{{}}}', {positions}, 1000, 8388608, true, 0) s
             where t.name = 'x'",
            seen.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        ))
        .await;
        let before = seen;
        seen = hand.get("select seen from look").await;
        let passed: i64 = seen.iter().zip(&before).map(|(at, before)| at - before).sum();
        assert!((1..=2 * PIECE).contains(&passed), "{before:?}, then {seen:?}");
        found.extend(hand.all::<i64>("select unnest(ids) from look").await);
    }
    hand.run("rollback").await;
    found.sort_unstable();
    let mut once: Vec<i64> = hand.all("select id from divvy.split where status = 'ready' order by id").await;
    once.sort_unstable();
    assert_eq!(i64::try_from(once.len()).unwrap(), count);
    assert_eq!(found, once);
}

/// A look behind that claims go on with later stops after its first piece, as on a machine where each takes long.
const SLOW_LOOKS: &str = "
    alter function divvy.pick_stragglers(divvy.task_type, bigint[], bigint[], int, bigint, boolean, double precision) rename to pick_stragglers_until;
    create function divvy.pick_stragglers(t divvy.task_type, p_from bigint[], p_positions bigint[], p_want int, p_room bigint, p_below boolean,
        p_until double precision default 'infinity', out parts divvy.part[], out seen bigint[])
    language plpgsql as $$
    begin
        select s.parts, s.seen into parts, seen from divvy.pick_stragglers_until(t, p_from, p_positions, p_want, p_room, p_below,
            case when p_until = 'infinity' then p_until else 0 end) s;
    end $$";

#[tokio::test]
async fn claims_that_are_always_full_go_on_with_a_look_behind_that_one_of_them_began() {
    let (db, mut hand, _duty) = bench().await;
    hand.run(SLOW_LOOKS).await;
    let mut producer = Hand::new(&db).await;
    use_up(&mut hand).await;
    producer.run("begin").await;
    let late = producer.insert("(task_type) values ('x')").await;
    use_up(&mut hand).await;
    let one = "insert into divvy.task (task_type) values ('x')";
    hand.run(one).await;
    hand.run(one).await;
    assert!(hand.claim_one("x").await.task_id > late, "the session is beyond it");
    producer.run("commit").await;
    until("the late one is claimed between others", async || {
        hand.run(one).await;
        hand.claim_one("x").await.task_id == late
    })
    .await;
}
