//! Who leads, what becomes of it when the connection or the process goes, and that two do no harm.

mod pooler;
mod resting;

use crate::support::db::TestDb;
use crate::support::program::divvy_on;
use crate::support::race::{DEADLINE, until};
use divvy::leader::{Duty, Leader, Standing};
use divvy::store::Store;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use std::process::{Child, Stdio};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A candidate that runs.
struct Candidate {
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
    run: JoinHandle<usize>,
}

fn candidate(options: &PgConnectOptions, name: &str) -> Candidate {
    let leader = Leader::new(options.clone(), name);
    let (standing, stop) = (leader.standing(), CancellationToken::new());
    let run = tokio::spawn(leader.run(stop.clone()));
    Candidate { standing, stop, run }
}

impl Candidate {
    /// Waits until it leads in a later term than `after`; the term.
    async fn leads(&mut self, after: i64) -> i64 {
        let told = self
            .standing
            .wait_for(|standing| matches!(standing, Standing::Leading { term } if *term > after));
        match *tokio::time::timeout(DEADLINE, told).await.expect("it never leads").unwrap() {
            Standing::Leading { term } => term,
            _ => unreachable!(),
        }
    }

    async fn ends(self) -> usize {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.run).await.expect("it never ends").unwrap()
    }
}

/// The server process that holds the leader's lock in this database.
async fn holder(pool: &PgPool) -> Option<i32> {
    sqlx::query_scalar(
        "select l.pid from pg_locks l
          where l.locktype = 'advisory' and l.granted and l.database = (select oid from pg_database where datname = current_database())
            and (l.classid::bigint << 32) + l.objid::bigint = $1",
    )
    .bind(i64::from_be_bytes(*b"divvylea"))
    .fetch_optional(pool)
    .await
    .unwrap()
}

async fn terms(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar("select name from divvy.leader order by term").fetch_all(pool).await.unwrap()
}

#[tokio::test]
async fn one_candidate_leads_and_the_next_follows_when_it_stops() {
    let db = TestDb::new().await;
    let mut first = candidate(db.options(), "first");
    let term = first.leads(0).await;
    let mut second = candidate(db.options(), "second");
    // Its try for the lock is seen before the first one stops, so it waited.
    until("the second candidate has tried", async || {
        sqlx::query_scalar(
            "select count(*) = 2 from pg_stat_activity
              where datname = current_database() and application_name = 'divvy leader'
                and (pid = any (select pid from pg_locks where locktype = 'advisory') or query like '%try_advisory_lock%')",
        )
        .fetch_one(db.pool())
        .await
        .unwrap()
    })
    .await;
    assert_eq!(*second.standing.borrow(), Standing::Waiting);
    assert_eq!(first.ends().await, 1);
    assert!(second.leads(term).await > term);
    assert_eq!(terms(db.pool()).await, ["first", "second"]);
    assert_eq!(second.ends().await, 1);
    // The server lets go when it has seen the end of the connection.
    until("nobody holds the lock", async || holder(db.pool()).await.is_none()).await;
}

#[tokio::test]
async fn a_leader_whose_connection_is_lost_steps_down_and_a_new_term_begins() {
    let db = TestDb::new().await;
    let mut only = candidate(db.options(), "only");
    let term = only.leads(0).await;
    let lost = holder(db.pool()).await.unwrap();
    sqlx::query("select pg_terminate_backend($1)").bind(lost).execute(db.pool()).await.unwrap();
    let next = only.leads(term).await;
    assert!(next > term);
    assert_ne!(holder(db.pool()).await, Some(lost));
    assert_eq!(only.ends().await, 2);
}

fn serve(db: &TestDb) -> Child {
    let mut serve = divvy_on(db.url(), &["serve", "--listen", "127.0.0.1:0"]);
    serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn signal(process: &Child, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(process.id().cast_signed()).unwrap();
    rustix::process::kill_process(id, signal).unwrap();
}

#[tokio::test]
async fn a_leader_process_that_is_stopped_or_killed_is_followed_by_another() {
    let db = TestDb::new().await;
    let mut process = serve(&db);
    until("the process leads", async || terms(db.pool()).await.len() == 1).await;
    // Stopped, not dead: its connection stays open and silent, and the server ends it.
    signal(&process, rustix::process::Signal::STOP);
    let mut other = candidate(db.options(), "other");
    let term = other.leads(1).await;
    signal(&process, rustix::process::Signal::CONT);
    assert_eq!(other.ends().await, 1);
    until("the process leads again", async || terms(db.pool()).await.len() == 3).await;
    process.kill().unwrap();
    process.wait().unwrap();
    let mut third = candidate(db.options(), "third");
    assert!(third.leads(term).await > term);
    third.ends().await;
}

/// An address whose every byte goes through the test, until it is cut off: then the connections stay open and
/// silent, as when a network drops packets.
struct Wire {
    options: PgConnectOptions,
    cut: CancellationToken,
}

async fn wire(db: &TestDb) -> Wire {
    let socket = db.options().get_socket().expect("the tests' server has a socket").clone();
    let socket = socket.join(format!(".s.PGSQL.{}", db.options().get_port()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let cut = CancellationToken::new();
    let silence = cut.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (socket, silence) = (socket.clone(), silence.clone());
            tokio::spawn(async move {
                let mut far = tokio::net::UnixStream::connect(socket).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => (),
                    // Both ends stay open for as long as the test runs.
                    () = silence.cancelled() => std::future::pending().await,
                }
            });
        }
    });
    let mut options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port);
    options = options.username(db.options().get_username()).database(db.name());
    Wire { options: options.ssl_mode(sqlx::postgres::PgSslMode::Disable), cut }
}

#[tokio::test]
async fn a_leader_that_is_cut_off_steps_down_and_another_leads() {
    let db = TestDb::new().await;
    let wire = wire(&db).await;
    let mut first = candidate(&wire.options, "first");
    let term = first.leads(0).await;
    let mut second = candidate(db.options(), "second");
    wire.cut.cancel();
    let down = first.standing.wait_for(|standing| !matches!(standing, Standing::Leading { .. }));
    tokio::time::timeout(DEADLINE, down).await.expect("it goes on believing").unwrap();
    assert!(second.leads(term).await > term);
    assert_eq!(terms(db.pool()).await, ["first", "second"]);
    second.ends().await;
    assert_eq!(first.ends().await, 1);
}

#[tokio::test]
async fn a_leader_does_its_duties() {
    let db = TestDb::new().await;
    let mut leader = candidate(db.options(), "leader");
    leader.leads(0).await;
    sqlx::query("select divvy.put_task_type('note')").execute(db.pool()).await.unwrap();
    sqlx::query("insert into divvy.schedule (task_type, every, overlap) values ('note', '1 s', 'allow')")
        .execute(db.pool())
        .await
        .unwrap();
    sqlx::query("insert into divvy.task (task_type, run_at) values ('note', now() + interval '1 s')")
        .execute(db.pool())
        .await
        .unwrap();
    until("the schedule fires and the timed task starts", async || {
        sqlx::query_scalar(
            "select exists (select from divvy.task where schedule_id is not null)
                    and exists (select from divvy.task where run_at is not null and status = 'running')",
        )
        .fetch_one(db.pool())
        .await
        .unwrap()
    })
    .await;
    leader.ends().await;
}

#[tokio::test]
async fn a_duty_that_fails_does_not_stop_the_others() {
    let db = TestDb::new().await;
    for duty in ["promote(max int default 500)", "reclaim(max int default 500)", "prune(max int default 500)"]
    {
        let broken = format!(
            "create or replace function divvy.{duty} returns int language plpgsql as
             $$begin raise exception 'broken on purpose'; end$$"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(broken)).execute(db.pool()).await.unwrap();
    }
    let error = Duty::Promote.run_once(&Store::new(db.pool().clone())).await.unwrap_err();
    assert!(error.to_string().contains("broken on purpose"), "{error}");
    let mut leader = candidate(db.options(), "leader");
    leader.leads(0).await;
    sqlx::query(
        "insert into divvy.schedule (task_type, steps) values ('note', array['0 s', '1 s']::interval[])",
    )
    .execute(db.pool())
    .await
    .unwrap();
    until("the schedule is done", async || {
        sqlx::query_scalar("select status = 'done' from divvy.schedule").fetch_one(db.pool()).await.unwrap()
    })
    .await;
    assert!(matches!(*leader.standing.borrow(), Standing::Leading { .. }));
    assert_eq!(leader.ends().await, 1);
}

#[tokio::test]
async fn a_candidate_that_cannot_lead_says_why_and_goes_on_trying() {
    let db = TestDb::empty().await;
    let mut early = candidate(db.options(), "early");
    let unfit = early.standing.wait_for(|standing| matches!(standing, Standing::Unfit { .. }));
    let Standing::Unfit { reason } = tokio::time::timeout(DEADLINE, unfit).await.unwrap().unwrap().clone()
    else {
        unreachable!()
    };
    assert!(reason.contains("divvy"), "{reason}");
    divvy::store::migrate::migrate(db.options()).await.unwrap();
    assert_eq!(early.leads(0).await, 1);
    early.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duties_of_many_leaders_at_once_reclaim_and_reduce_each_task_once() {
    let db = TestDb::new().await;
    let worker = uuid::Uuid::now_v7();
    sqlx::raw_sql(
        "select divvy.put_task_type('sum', '{\"reduce\": true, \"lease\": \"1 s\", \"backoff\": {\"kind\": \"fixed\", \"base\": 0}}');
         insert into divvy.task (task_type, split_count) select 'sum', 3 from generate_series(1, 40);",
    )
    .execute(db.pool())
    .await
    .unwrap();
    sqlx::query("select * from divvy.register_worker($1, 'w', array['sum'], 100, '{}')")
        .bind(worker)
        .execute(db.pool())
        .await
        .unwrap();
    // Half of the splits complete, the others are claimed by a worker that is gone: their lease is set back.
    let (done, gone) = (claimed(db.pool(), worker, 60).await, claimed(db.pool(), worker, 60).await);
    assert_eq!((done.len(), gone.len()), (60, 60));
    for (split, token) in done {
        sqlx::query("select divvy.complete($1, $2)")
            .bind(split)
            .bind(token)
            .execute(db.pool())
            .await
            .unwrap();
    }
    sqlx::raw_sql(
        "update divvy.lease set lease_until = now() - interval '1 hour';
         update divvy.pulse set resumed_at = now() - interval '1 hour', reclaimed_at = now(), server_start = pg_postmaster_start_time()",
    )
    .execute(db.pool())
    .await
    .unwrap();
    all_duties_from_six_leaders(&db).await;
    let expired: (i64, i64) = sqlx::query_as(
        "select count(*), count(distinct split_id) from divvy.split_attempt where outcome = 'expired'",
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(expired, (60, 60));
    loop {
        let again = claimed(db.pool(), worker, 60).await;
        if again.is_empty() {
            break;
        }
        for (split, token) in again {
            sqlx::query("select divvy.complete($1, $2)")
                .bind(split)
                .bind(token)
                .execute(db.pool())
                .await
                .unwrap();
        }
        all_duties_from_six_leaders(&db).await;
    }
    let ended: Vec<(String, i64)> =
        sqlx::query_as("select status::text, count(*) from divvy.task group by 1")
            .fetch_all(db.pool())
            .await
            .unwrap();
    assert_eq!(ended, [("succeeded".to_owned(), 40)]);
}

async fn claimed(pool: &PgPool, worker: uuid::Uuid, max: i32) -> Vec<(i64, i64)> {
    sqlx::query_as("select split_id, token from divvy.claim($1, array['sum'], $2)")
        .bind(worker)
        .bind(max)
        .fetch_all(pool)
        .await
        .unwrap()
}

async fn all_duties_from_six_leaders(db: &TestDb) {
    let leaders: Vec<_> = (0..6)
        .map(|_| {
            let store = Store::new(db.pool().clone());
            tokio::spawn(async move {
                for duty in Duty::ALL {
                    duty.run_once(&store).await.unwrap();
                }
            })
        })
        .collect();
    for leader in leaders {
        leader.await.unwrap();
    }
}
