//! `divvy worker`: runs declared types, or those that it is told of, and is a candidate for leading; `serve` without HTTP.

use super::push::PushArgs;
use super::{Global, database, serve};
use crate::apart;
use crate::store::exec_type::exec_types;
use crate::store::http_type::http_types;
use crate::store::{pool, statement};
use crate::worker::{Declared, Exec, PushTo, Summary, Worker};
use anyhow::Context;
use sqlx::PgPool;
use std::path::PathBuf;
use std::time::Duration;

/// Connections for everything but the leader's duties and the types' own roles.
const CONNECTIONS: u32 = 8;

/// Splits of each type at once where nobody says otherwise.
const SLOTS: u16 = 2;

/// Arguments of `divvy worker`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("told").args(["exec", "http"]).multiple(true))]
pub struct Args {
    /// Only these types [default: every type written in SQL; with --allow-exec every command, with --push every URL]
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Splits of each type run at once [default: 2, or as many as --in-flight says]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    slots: Option<u16>,
    /// Splits of all types together run at once, whichever have work; statements, commands and URLs are counted apart
    /// [default: no bound but --slots]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "N")]
    in_flight: Option<u16>,
    /// Serve --types by this command: words as in a shell, but no shell between
    #[arg(long, value_name = "COMMAND", requires = "types", conflicts_with = "allow_exec")]
    exec: Option<String>,
    /// The command lives long and is given many splits, a line of JSON each
    #[arg(long, requires = "exec")]
    exec_lines: bool,
    /// Phases besides execute of --types that nobody has declared yet
    #[arg(long, value_name = "PHASE", value_delimiter = ',', requires = "told")]
    phases: Vec<Phase>,
    /// Serve --types by requests to this URL, whose answers are the outcomes
    #[arg(long, value_name = "URL", requires = "types", conflicts_with_all = ["allow_exec", "exec", "push"])]
    http: Option<String>,
    /// The secret that signs those requests: `divvy secret create` makes it
    #[arg(long, value_name = "NAME", requires = "http")]
    http_secret: Option<String>,
    /// Push types that are declared with a URL, too
    #[arg(long, conflicts_with = "exec")]
    push: bool,
    #[command(flatten)]
    access: PushArgs,
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

impl Args {
    /// Of each type.
    fn slots(&self) -> usize {
        self.slots.or(self.in_flight).unwrap_or(SLOTS).into()
    }
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
    serve::is_folder(args.allow_exec.as_deref())?;
    args.access.access()?;
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
    let mut worker = match (exec, &args.http) {
        (Some(exec), _) => {
            eprintln!("divvy: works on {} by {exec}; Ctrl-C stops it", args.types.join(", "));
            let (worker, told) = (commanded(args, exec, database)?, stop.clone());
            apart::spawn(async move { worker.run(told).await })
        }
        (None, Some(url)) => {
            let (host, told) = (pushing(args, url, database)?, stop.clone());
            eprintln!("divvy: works on {} by requests to {url}; Ctrl-C stops it", args.types.join(", "));
            apart::spawn(async move { Ok(host.run(told).await) })
        }
        (None, None) => {
            let (host, told) = (declared(args, database)?, stop.clone());
            announce(args, &database.pool).await?;
            apart::spawn(async move { Ok(host.run(told).await) })
        }
    };
    let leader = (!args.no_lead).then(|| serve::lead("worker", direct.clone(), &stop));
    let ended = tokio::select! {
        ended = &mut worker => {
            if !stop.is_cancelled() {
                eprintln!("divvy: terminated by an operator");
                stop.cancel();
            }
            ended
        }
        () = stop.cancelled() => {
            eprintln!("divvy: stopping; again to stop at once");
            worker.await
        }
    };
    let done: Summary = ended.context("the worker broke")??;
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
        builder = builder.exec(task_type, exec.clone()).slots(args.slots());
    }
    if let Some(splits) = args.in_flight {
        builder = builder.in_flight(splits.into());
    }
    Ok(builder.build()?)
}

/// A host that serves nothing yet.
fn host(args: &Args, database: &database::Database) -> Declared {
    let host = serve::declared(database, args.grace);
    match args.in_flight {
        Some(splits) => host.in_flight(splits.into()),
        None => host,
    }
}

/// The host of `--http`.
fn pushing(args: &Args, url: &str, database: &database::Database) -> crate::Result<Declared> {
    let to = PushTo {
        task_types: args.types.clone(),
        url: url.to_owned(),
        secret: args.http_secret.clone(),
        phases: (args.phases.contains(&Phase::Plan), args.phases.contains(&Phase::Reduce)),
    };
    host(args, database).push_to(&args.access.access()?, to, args.slots())
}

/// The host of what is declared in the database: types in SQL, and commands and URLs where they are asked for.
fn declared(args: &Args, database: &database::Database) -> crate::Result<Declared> {
    let slots = args.slots();
    let mut host =
        host(args, database).sql(serve::role_access(database, args.sql_role_url.as_deref())?, slots);
    if let Some(folder) = &args.allow_exec {
        host = host.exec(folder.clone(), slots).kill_after(Duration::from_secs(args.kill_after));
    }
    if args.push {
        host = host.push(&args.access.access()?, slots)?;
    }
    Ok(match args.types.is_empty() {
        true => host,
        false => host.only(args.types.clone()),
    })
}

/// Says what it serves now. Types that come later are served too.
async fn announce(args: &Args, pool: &PgPool) -> anyhow::Result<()> {
    let mut there: Vec<String> =
        statement::sql_types(pool, None).await?.into_iter().map(|steps| steps.name).collect();
    let mut what = vec!["written in SQL"];
    if args.allow_exec.is_some() {
        there.extend(exec_types(pool).await?.into_iter().map(|declared| declared.name));
        what.push("with a command");
    }
    if args.push {
        there.extend(http_types(pool).await?.into_iter().map(|declared| declared.name));
        what.push("with a URL");
    }
    there.sort();
    let what = what.join(" or ");
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
