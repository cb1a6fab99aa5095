//! `divvy worker`: runs the types written in SQL and commands, and is a candidate for leading; `serve` without HTTP.

use super::{Global, database, serve};
use crate::store::exec_type::exec_types;
use crate::store::{pool, statement};
use crate::worker::{Exec, ExecHost, Summary, Worker};
use crate::{Error, ErrorKind};
use anyhow::Context;
use sqlx::PgPool;
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections for everything but the leader's duties and the types' own roles.
const CONNECTIONS: u32 = 8;

/// Arguments of `divvy worker`.
#[derive(clap::Args)]
pub struct Args {
    /// Only these types [default: every type written in SQL, and with --allow-exec every declared command]
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Splits of each type run at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    slots: u16,
    /// Serve --types by this command: words as in a shell, but no shell between
    #[arg(long, value_name = "COMMAND", requires = "types", conflicts_with = "allow_exec")]
    exec: Option<String>,
    /// The command lives long and is given many splits, a line of JSON each
    #[arg(long, requires = "exec")]
    exec_lines: bool,
    /// Phases besides execute of --types that nobody has declared yet
    #[arg(long, value_name = "PHASE", value_delimiter = ',', requires = "exec")]
    phases: Vec<Phase>,
    /// Run commands that are declared in the database, if their program is in this folder
    #[arg(long, value_name = "FOLDER")]
    allow_exec: Option<PathBuf>,
    /// Seconds between SIGTERM and SIGKILL for a command
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    kill_after: u64,
    /// Never lead; another process must
    #[arg(long)]
    no_lead: bool,
    /// Migrate the database first (the embedded one always is)
    #[arg(long)]
    migrate: bool,
    /// Where the roles of types in SQL log in; {role} stands for the role [default: as the database, no password]
    #[arg(long, env = "DIVVY_SQL_ROLE_URL", hide_env_values = true, value_name = "URL")]
    sql_role_url: Option<String>,
    /// Seconds that what has begun may take after a stop
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    grace: u64,
}

/// What a type may have besides execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Phase {
    /// It says what the shares are
    Plan,
    /// It makes one result of many
    Reduce,
}

/// Runs the command until it is told to stop.
///
/// # Errors
/// When the database can't be used, its schema is not this version's, or a program is not there.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    // What is typed wrongly is told before a database is looked for.
    let exec = args.exec.as_deref().map(|command| exec(&args, command)).transpose()?;
    if let Some(folder) = args.allow_exec.as_ref().filter(|folder| !folder.is_dir()) {
        let message = format!("--allow-exec {}: there is no such folder", folder.display());
        return Err(Error::new(ErrorKind::Config, message).into());
    }
    let database = database::connect(global, CONNECTIONS).await?;
    let outcome = work(&args, exec, &database).await;
    database.close().await?;
    outcome
}

fn exec(args: &Args, command: &str) -> anyhow::Result<Exec> {
    let exec = Exec::new(command)?
        .long_lived(args.exec_lines)
        .phases(args.phases.contains(&Phase::Plan), args.phases.contains(&Phase::Reduce))
        .kill_after(Duration::from_secs(args.kill_after));
    exec.check()?;
    Ok(exec)
}

async fn work(args: &Args, exec: Option<Exec>, database: &database::Database) -> anyhow::Result<()> {
    let direct = &database.addresses.direct;
    // Signals first: one that comes while the rest starts is not lost.
    let stop = serve::signals();
    serve::prepare("worker", direct, args.migrate || database.embedded_url.is_some()).await?;
    let mut workers = JoinSet::new();
    match exec {
        Some(exec) => {
            eprintln!("divvy: works on {} by {exec}; Ctrl-C stops it", args.types.join(", "));
            let (worker, stop) = (commanded(args, exec, database)?, stop.clone());
            workers.spawn(async move { worker.run(stop).await });
        }
        None => declared(args, database, &stop, &mut workers).await?,
    }
    let leader = (!args.no_lead).then(|| serve::lead("worker", direct.clone(), &stop));
    let mut done = Summary::default();
    tokio::select! {
        Some(ended) = workers.join_next() => {
            done += ended.context("the worker broke")??;
            if !stop.is_cancelled() {
                eprintln!("divvy: terminated by an operator");
                stop.cancel();
            }
        }
        () = stop.cancelled() => eprintln!("divvy: stopping; again to stop at once"),
    }
    while let Some(ended) = workers.join_next().await {
        done += ended.context("the worker broke")??;
    }
    if let Some(leader) = leader {
        leader.await.context("the leader broke")?;
    }
    eprintln!("divvy: done: {done}");
    Ok(())
}

/// The worker of `--exec`.
fn commanded(args: &Args, exec: Exec, database: &database::Database) -> anyhow::Result<Worker> {
    let direct = pool::options().max_connections(1).connect_lazy_with(database.addresses.direct.clone());
    let mut builder = Worker::builder(database.pool.clone())
        .name(format!("commands of process {}", std::process::id()))
        .grace(Duration::from_secs(args.grace))
        .listen_through(direct);
    for task_type in &args.types {
        builder = builder.exec(task_type, exec.clone()).slots(args.slots.into());
    }
    Ok(builder.build()?)
}

/// The workers of what is declared in the database: types in SQL, and commands where they are allowed.
async fn declared(
    args: &Args,
    database: &database::Database,
    stop: &CancellationToken,
    workers: &mut JoinSet<crate::Result<Summary>>,
) -> anyhow::Result<()> {
    let mut host = serve::sql_host(database, args.slots, args.sql_role_url.as_deref(), args.grace)?;
    if !args.types.is_empty() {
        host = host.only(args.types.clone());
    }
    announce(args, &database.pool).await?;
    let told = stop.clone();
    workers.spawn(async move { Ok(host.run(told).await) });
    if let Some(folder) = &args.allow_exec {
        let direct = database.addresses.direct.clone();
        let mut host = ExecHost::new(database.pool.clone(), direct, folder.clone(), args.slots.into())
            .grace(Duration::from_secs(args.grace))
            .kill_after(Duration::from_secs(args.kill_after));
        if !args.types.is_empty() {
            host = host.only(args.types.clone());
        }
        let told = stop.clone();
        workers.spawn(async move { Ok(host.run(told).await) });
    }
    Ok(())
}

/// Says what it serves now. Types that come later are served too.
async fn announce(args: &Args, pool: &PgPool) -> anyhow::Result<()> {
    let mut there: Vec<String> =
        statement::sql_types(pool, None).await?.into_iter().map(|steps| steps.name).collect();
    let what = match args.allow_exec {
        Some(_) => {
            there.extend(exec_types(pool).await?.into_iter().map(|declared| declared.name));
            there.sort();
            "written in SQL or with a command"
        }
        None => "written in SQL",
    };
    let wanted = |name: &&String| args.types.is_empty() || args.types.contains(name);
    let served: Vec<&str> = there.iter().filter(wanted).map(String::as_str).collect();
    let missing: Vec<&str> =
        args.types.iter().filter(|name| !there.contains(name)).map(String::as_str).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        eprintln!("divvy: not {what}, or not declared yet: {missing}; served as soon as they are");
    }
    match served.is_empty() {
        true => eprintln!("divvy: works; no type {what} is there yet; Ctrl-C stops it"),
        false => eprintln!("divvy: works on {}; Ctrl-C stops it", served.join(", ")),
    }
    Ok(())
}
