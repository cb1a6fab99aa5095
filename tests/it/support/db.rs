//! A database of its own for every test, copied from a migrated template.
//!
//! The server is divvy's own embedded Postgres in its relaxed mode, shared by all tests and test processes of
//! this checkout, in memory where there is room. It is deleted when the last process is gone. With
//! `TEST_DATABASE_URL` (a superuser's) that server is used instead. `DIVVY_TEST_KEEP=1` keeps the databases.

use divvy::embedded::{Download, Durability, Embedded, Search, Settings};
use divvy::store::migrate;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::OnceCell;

/// The server outlives its last user by this, so that a runner with a process per test starts it once.
const LINGER: Duration = Duration::from_secs(5);
/// The memory file system is used only where the databases of a whole run fit.
const SHM_BYTES_MIN: u64 = 2 << 30;
/// The rule that says which tasks' splits lie in stretches.
const LIES_IN_STRETCHES: &str =
    "create or replace function divvy.lies_in_stretches(p_count bigint) returns boolean
    language sql immutable parallel safe";
/// Connections in a test's pool.
const POOL_CONNECTIONS: u32 = 10;

/// A test's own database. Dropped with this value.
pub struct TestDb {
    name: String,
    options: PgConnectOptions,
    url: String,
    pool: PgPool,
}

impl TestDb {
    /// A migrated database.
    pub async fn new() -> Self {
        let server = Server::get().await;
        Self::create(server, &format!("template {} strategy file_copy", server.template().await)).await
    }

    /// A migrated database in which the splits of every divided task lie in stretches, however few.
    pub async fn all_in_stretches() -> Self {
        Self::where_splits_lie_in_stretches_if("p_count > 0").await
    }

    /// A migrated database in which every split is a row, however many a task has.
    pub async fn all_in_rows() -> Self {
        Self::where_splits_lie_in_stretches_if("false").await
    }

    async fn where_splits_lie_in_stretches_if(condition: &str) -> Self {
        let db = Self::new().await;
        run(&mut db.connect().await, format!("{LIES_IN_STRETCHES} as $$ select {condition} $$")).await;
        db
    }

    /// Whether splits of any task have lain in a stretch: these have ids from sequences of their own.
    pub async fn has_had_stretches(&self) -> bool {
        sqlx::query_scalar(
            "select bool_or(last_value is not null) from pg_sequences where schemaname = 'divvy' and sequencename ~ '^id_'",
        )
        .fetch_one(&self.pool)
        .await
        .expect("looking at the sequences of ids")
    }

    /// A database with nothing in it.
    pub async fn empty() -> Self {
        Self::create(Server::get().await, "template template0 strategy file_copy").await
    }

    async fn create(server: &'static Server, how: &str) -> Self {
        let name = format!("t_{}", uuid::Uuid::new_v4().simple());
        let mut admin = server.admin().await;
        run(&mut admin, format!("create database {name} {how}")).await;
        admin.close().await.expect("closing the administrator's connection");
        let options = server.options.clone().database(&name);
        let pool = PgPoolOptions::new().max_connections(POOL_CONNECTIONS).connect_lazy_with(options.clone());
        Self { url: server.url(&name), name, options, pool }
    }

    /// A pool of up to ten connections.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// One connection of its own, such as one side of a race.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&self.options)
            .await
            .unwrap_or_else(|e| panic!("connecting to {}: {e}", self.name))
    }

    /// For what connects itself.
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// For other programs: `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        if std::env::var_os("DIVVY_TEST_KEEP").is_some() {
            eprintln!("kept: psql '{}'", self.url);
            return;
        }
        let (name, options) = (self.name.clone(), self.options.clone().database("postgres"));
        // The test's own runtime may be ending: a thread with one of its own always works. Where it fails the
        // database goes with the server.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(sqlx::Error::Io)?;
            runtime.block_on(async {
                let mut admin = PgConnection::connect_with(&options).await?;
                admin.execute(AssertSqlSafe(format!("drop database {name} with (force)"))).await?;
                admin.close().await
            })
        });
        dropping.join().ok();
    }
}

/// The server of this checkout's tests.
pub struct Server {
    options: PgConnectOptions,
    base_url: Option<String>,
    embedded: Option<Embedded>,
    template: OnceCell<String>,
}

impl Server {
    /// Joins or starts it, once per process; it is left when the process ends.
    pub async fn get() -> &'static Self {
        static SERVER: OnceCell<Server> = OnceCell::const_new();
        SERVER.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let template = OnceCell::new();
        if let Ok(url) = std::env::var("TEST_DATABASE_URL") {
            let options = PgConnectOptions::from_str(&url).expect("TEST_DATABASE_URL is no Postgres URL");
            return Self { options, base_url: Some(url), embedded: None, template };
        }
        let embedded = Embedded::start(&settings(shared_root())).await.unwrap_or_else(|e| panic!("{e}"));
        Self { options: embedded.options(), base_url: None, embedded: Some(embedded), template }
    }

    /// A superuser's connection to the database `postgres`.
    pub async fn admin(&self) -> PgConnection {
        let options = self.options.clone().database("postgres");
        PgConnection::connect_with(&options)
            .await
            .unwrap_or_else(|e| panic!("connecting to the test server: {e}"))
    }

    fn url(&self, database: &str) -> String {
        match (&self.embedded, &self.base_url) {
            (Some(embedded), _) => embedded.url(database),
            (None, Some(base)) => with_database(base, database),
            (None, None) => unreachable!("a server is either embedded or given"),
        }
    }

    /// The migrated template, named by what is in it: another schema is another template.
    async fn template(&self) -> &str {
        self.template.get_or_init(|| self.make_template()).await
    }

    async fn make_template(&self) -> String {
        let name = format!("divvy_template_{}", &migrate::fingerprint()[..16]);
        let mut admin = self.admin().await;
        run(&mut admin, "select pg_advisory_lock(hashtext('divvy test template'))".into()).await;
        let there: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(&name)
            .fetch_one(&mut admin)
            .await
            .expect("looking for the template");
        if !there {
            let unfinished = format!("{name}_build");
            run(&mut admin, format!("drop database if exists {unfinished} with (force)")).await;
            run(&mut admin, format!("create database {unfinished} template template0")).await;
            let options = self.options.clone().database(&unfinished);
            migrate::migrate(&options).await.unwrap_or_else(|e| panic!("migrating the template: {e}"));
            let mut migrated =
                PgConnection::connect_with(&options).await.expect("connecting to the template");
            run(&mut migrated, include_str!("invariants.sql").into()).await;
            migrated.close().await.expect("closing the connection to the template");
            run(&mut admin, format!("alter database {unfinished} rename to {name}")).await;
            run(&mut admin, format!("alter database {name} allow_connections false")).await;
        }
        admin.close().await.expect("closing the administrator's connection");
        name
    }
}

/// A relaxed server in `root`, watched by the real divvy program.
pub fn settings(root: PathBuf) -> Settings {
    Settings {
        root,
        durability: Durability::Relaxed,
        linger: LINGER,
        discard: true,
        watchdog: env!("CARGO_BIN_EXE_divvy").into(),
        search: Search::from_env(),
        download: Download::from_env().unwrap_or_else(|e| panic!("{e}")),
    }
}

/// A folder for servers: in memory where there is room.
pub fn fast_dir() -> PathBuf {
    let shm = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(shm).is_ok_and(|fs| fs.f_bavail * fs.f_frsize >= SHM_BYTES_MIN);
    if room { shm.into() } else { std::env::temp_dir() }
}

/// One server per user and checkout.
fn shared_root() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut hasher);
    let user = rustix::process::geteuid().as_raw();
    fast_dir().join(format!("divvy-test-{user}-{:x}", hasher.finish()))
}

/// `url` with its database replaced.
fn with_database(url: &str, database: &str) -> String {
    let (address, query) = url.split_once('?').map_or((url, None), |(address, query)| (address, Some(query)));
    let after_scheme = address.find("://").map_or(0, |at| at + 3);
    let server = address[after_scheme..].find('/').map_or(address, |at| &address[..after_scheme + at]);
    query.map_or_else(|| format!("{server}/{database}"), |query| format!("{server}/{database}?{query}"))
}

async fn run(connection: &mut PgConnection, sql: String) {
    connection.execute(AssertSqlSafe(sql.clone())).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

#[test]
fn a_test_url_keeps_its_server_and_parameters() {
    assert_eq!(
        with_database("postgres://u:p@h:5/x?sslmode=disable", "t"),
        "postgres://u:p@h:5/t?sslmode=disable"
    );
    assert_eq!(with_database("postgres://h", "t"), "postgres://h/t");
}
