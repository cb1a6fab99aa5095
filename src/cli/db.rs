//! `divvy db`: the embedded Postgres.

use super::{Global, database};
use crate::embedded::{self, DATABASE, Settings};
use anyhow::{Context, bail};
use clap::Subcommand;
use std::ffi::OsString;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

/// How long the server stays up for whoever was told its address.
const URL_LINGER: Duration = Duration::from_secs(600);

/// Arguments of `divvy db`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print the database's address, starting the embedded Postgres where needed
    Url,
    /// Open psql in the database; everything after -- goes to psql
    Psql {
        /// psql's own arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Stop the embedded Postgres
    Stop {
        /// Even when other divvy processes use it
        #[arg(long)]
        force: bool,
    },
    /// Stop the embedded Postgres and delete its data
    Reset {
        /// Even when other divvy processes use it
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// When the embedded Postgres cannot be started or stopped, or psql is missing or fails.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    match args.action {
        Action::Url => url(global).await,
        Action::Psql { args } => psql(global, args).await,
        Action::Stop { force } => stop(global, force).await,
        Action::Reset { force, yes } => reset(global, force, yes).await,
    }
}

async fn url(global: &Global) -> anyhow::Result<()> {
    let (_, guard) = database::locate(global, URL_LINGER).await?;
    match guard {
        Some(embedded) => {
            println!("{}", embedded.url(DATABASE));
            let minutes = URL_LINGER.as_secs() / 60;
            eprintln!(
                "divvy: this Postgres stays up for {minutes} minutes after its last user, or until `divvy db stop`"
            );
        }
        None => println!("{}", global.database().url.unwrap_or_default()),
    }
    Ok(())
}

async fn psql(global: &Global, args: Vec<OsString>) -> anyhow::Result<()> {
    let (_, guard) = database::locate(global, Duration::ZERO).await?;
    let url = match &guard {
        Some(embedded) => embedded.url(DATABASE),
        None => global.database().url.unwrap_or_default(),
    };
    let program = Settings::from_env().ok().and_then(|settings| embedded::program(&settings, "psql"));
    let program = program.unwrap_or_else(|| PathBuf::from("psql"));
    // Ctrl-C in psql cancels a query; it must not end us, who keep the server for it.
    let _caught = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let status =
        tokio::process::Command::new(&program).arg(url).args(args).status().await.with_context(|| {
            format!(
                "cannot run {}: install the Postgres client (Debian, Ubuntu: apt install postgresql-client)",
                program.display()
            )
        })?;
    if let Some(embedded) = guard {
        embedded.stop_if_last().await?;
    }
    if !status.success() {
        bail!("psql ended with {status}");
    }
    Ok(())
}

async fn stop(global: &Global, force: bool) -> anyhow::Result<()> {
    refuse_a_given_database(global, "stop")?;
    let root = Settings::from_env()?.root;
    if embedded::stop(&root, force).await? {
        eprintln!("divvy: stopped the Postgres in {}", root.display());
    } else {
        eprintln!("divvy: no Postgres runs in {}", root.display());
    }
    Ok(())
}

async fn reset(global: &Global, force: bool, yes: bool) -> anyhow::Result<()> {
    refuse_a_given_database(global, "reset")?;
    let root = Settings::from_env()?.root;
    if !yes && !confirmed(&root)? {
        bail!("nothing was deleted");
    }
    if embedded::reset(&root, force).await? {
        eprintln!("divvy: deleted the data in {}", root.display());
    } else {
        eprintln!("divvy: there is no data in {}", root.display());
    }
    Ok(())
}

fn confirmed(root: &std::path::Path) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("this deletes all data in {}: say so with --yes", root.display());
    }
    eprint!("Delete all data in {}? Type yes: ", root.display());
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

fn refuse_a_given_database(global: &Global, verb: &str) -> anyhow::Result<()> {
    if global.database().url.is_some() {
        bail!(
            "`divvy db {verb}` is for the embedded Postgres, and DATABASE_URL names another database: unset it first"
        );
    }
    Ok(())
}
