//! `divvy serve`: the HTTP service, a candidate for leading, and the runner of declared types, in one process.

use super::push::PushArgs;
use super::{Global, args, database};
use crate::apart;
use crate::http;
use crate::leader::Leader;
use crate::store::migrate::{self, Status};
use crate::store::pool;
use crate::worker::{Declared, RoleAccess};
use crate::{Error, ErrorKind};
use anyhow::{Context, bail};
use sqlx::postgres::PgConnectOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Connections for everything but the leader's duties and SQL types' own roles.
const CONNECTIONS: u32 = 10;

/// Connections for what comes in by HTTP.
const HTTP_CONNECTIONS: u32 = 10;

/// Arguments of `divvy serve`.
#[derive(clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, env = "DIVVY_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Who comes in: those with a token, or on a loopback address everybody [default: none on a loopback address]
    #[arg(long, env = "DIVVY_AUTH", value_name = "HOW", value_parser = ["token", "none"])]
    auth: Option<String>,
    /// Migrate the database first (the embedded one always is)
    #[arg(long)]
    migrate: bool,
    /// Never lead; another process must
    #[arg(long)]
    no_lead: bool,
    /// Splits of each type in SQL run at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100), value_name = "N")]
    sql_slots: u16,
    /// Where the roles of types in SQL log in; {role} stands for the role [default: as the database, no password]
    #[arg(long, env = "DIVVY_SQL_ROLE_URL", hide_env_values = true, value_name = "URL")]
    sql_role_url: Option<String>,
    /// Requests of each type with a URL under way at once
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=256), value_name = "N")]
    http_slots: u16,
    #[command(flatten)]
    push: PushArgs,
    /// Run commands that are declared in the database, if their program is in this folder
    #[arg(long, value_name = "FOLDER")]
    allow_exec: Option<PathBuf>,
    /// Splits of each type with a command run at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N", requires = "allow_exec")]
    exec_slots: u16,
    /// Seconds between SIGTERM and SIGKILL for a command
    #[arg(long, default_value_t = 5, value_name = "SECONDS", requires = "allow_exec")]
    kill_after: u64,
    /// Seconds that what has begun may take after a stop
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    grace: u64,
}

/// Runs the command until it is told to stop.
///
/// # Errors
/// When the database can't be used, its schema is not this version's, or the address is taken.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let token_required = token_required(&args)?;
    is_folder(args.allow_exec.as_deref())?;
    args.push.access()?;
    // Before anything else: who listens on the address is told at once, and nothing is left half-started.
    let listener = TcpListener::bind(args.listen).await.with_context(|| {
        format!("cannot listen on {}: choose another address with --listen or DIVVY_LISTEN", args.listen)
    })?;
    let database = database::connect(global, CONNECTIONS).await?;
    let outcome = serve(&args, listener, &database, token_required).await;
    database.close().await?;
    outcome
}

/// Whoever can reach the address may do everything where no token is asked for.
fn token_required(args: &Args) -> crate::Result<bool> {
    let loopback = args.listen.ip().is_loopback();
    match args.auth.as_deref() {
        Some("token") => Ok(true),
        _ if loopback => Ok(false),
        _ => Err(args::usage(format!(
            "{} is no loopback address: everybody who reaches it could do everything. Ask for tokens with --auth token \
             (or DIVVY_AUTH=token), and make one with `divvy token create --scope SCOPE`",
            args.listen
        ))),
    }
}

async fn serve(
    args: &Args,
    listener: TcpListener,
    database: &database::Database,
    token_required: bool,
) -> anyhow::Result<()> {
    let direct = &database.addresses.direct;
    prepare("serve", direct, args.migrate || database.embedded_url.is_some()).await?;
    let mut types = declared(database, args.grace)
        .sql(role_access(database, args.sql_role_url.as_deref())?, args.sql_slots.into())
        .push(&args.push.access()?, args.http_slots.into())?;
    if let Some(folder) = &args.allow_exec {
        let kill_after = Duration::from_secs(args.kill_after);
        types = types.exec(folder.clone(), args.exec_slots.into()).kill_after(kill_after);
    }
    let stop = signals();
    let served = CancellationToken::new();
    let work =
        pool::options().max_connections(HTTP_CONNECTIONS).connect_lazy_with(database.addresses.work.clone());
    let service = http::Service::new(
        work.clone(),
        direct.clone(),
        stop.clone(),
        token_required,
        http::Patience::default(),
    );
    let address = listener.local_addr()?;
    let mut service = apart::spawn(http::serve(listener, service, served.clone()));
    let types = apart::spawn(types.run(stop.clone()));
    let leader = (!args.no_lead).then(|| lead("serve", direct.clone(), &stop));

    tracing::info!("serves on http://{address} (/docs says what); Ctrl-C stops it");
    if let Some(url) = &database.embedded_url {
        tracing::info!("the database is {url}");
    }
    tokio::select! {
        () = stop.cancelled() => (),
        ended = &mut service => bail!("the HTTP service ended early: {ended:?}"),
    }
    tracing::info!("stops; a second signal stops it at once");
    let done = types.await?;
    if let Some(leader) = leader {
        leader.await?;
    }
    // Last: until here /readyz has said that this process is going.
    served.cancel();
    service.await?;
    work.close().await;
    if done.total() > 0 {
        tracing::info!("splits of declared types: {done}");
    }
    Ok(())
}

/// A host of declared types that serves nothing yet.
pub(super) fn declared(database: &database::Database, grace: u64) -> Declared {
    Declared::new(database.pool.clone(), database.addresses.direct.clone()).grace(Duration::from_secs(grace))
}

pub(super) fn role_access(database: &database::Database, url: Option<&str>) -> crate::Result<RoleAccess> {
    let url = url.filter(|url| !url.is_empty()).map(str::to_owned);
    RoleAccess::new(database.addresses.work.clone(), url)
}

/// Told before a database is looked for.
pub(super) fn is_folder(folder: Option<&Path>) -> crate::Result<()> {
    match folder {
        Some(folder) if !folder.is_dir() => {
            let message = format!("--allow-exec {}: there is no such folder", folder.display());
            Err(Error::new(ErrorKind::Config, message))
        }
        _ => Ok(()),
    }
}

pub(super) async fn prepare(what: &str, direct: &PgConnectOptions, migrates: bool) -> anyhow::Result<()> {
    if migrates {
        migrate::migrate(direct).await?;
        return Ok(());
    }
    match migrate::check(direct).await? {
        Status::Current => Ok(()),
        Status::Missing => {
            bail!("the database has no divvy schema: run `divvy migrate`, or {what} with --migrate")
        }
        Status::Behind => {
            bail!("the schema is older than this divvy: run `divvy migrate`, or {what} with --migrate")
        }
        Status::Ahead => bail!("the schema is a newer divvy's: use that one"),
    }
}

pub(super) fn lead(what: &str, direct: PgConnectOptions, stop: &CancellationToken) -> JoinHandle<usize> {
    let name = format!("{what} {}", std::process::id());
    apart::spawn(Leader::new(direct, name).run(stop.clone()))
}

/// Cancelled by the first SIGTERM or SIGINT; the second ends the process.
pub(super) fn signals() -> CancellationToken {
    let stop = CancellationToken::new();
    let told = stop.clone();
    apart::spawn(async move {
        interrupted().await;
        told.cancel();
        interrupted().await;
        std::process::exit(1);
    });
    stop
}

#[cfg(unix)]
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => (),
            _ = tokio::signal::ctrl_c() => (),
        },
        Err(_) => _ = tokio::signal::ctrl_c().await,
    }
}

#[cfg(not(unix))]
async fn interrupted() {
    _ = tokio::signal::ctrl_c().await;
}
