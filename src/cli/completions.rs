//! `divvy completions`: what a shell needs to complete divvy's arguments.

use super::output;
use clap::ValueEnum;
use clap_complete::aot::{Shell, generate};

/// Arguments of `divvy completions`.
#[derive(clap::Args)]
pub struct Args {
    /// The shell
    shell: Kind,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// source <(divvy completions bash)
    Bash,
    /// divvy completions zsh > "${fpath[1]}/_divvy"
    Zsh,
    /// divvy completions fish | source
    Fish,
}

/// Runs the command.
///
/// # Errors
/// When stdout can't be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let shell = match args.shell {
        Kind::Bash => Shell::Bash,
        Kind::Zsh => Shell::Zsh,
        Kind::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut shown(), "divvy", &mut script);
    output::print(&String::from_utf8(script)?)
}

/// The command line without what is not for people: completions would offer hidden commands too.
fn shown() -> clap::Command {
    let full = super::command();
    clap::Command::new("divvy")
        .args(full.get_arguments().cloned())
        .subcommands(full.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}
