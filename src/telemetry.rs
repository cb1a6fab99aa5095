//! Talk: to stderr, for people on a terminal and as JSON lines otherwise. `RUST_LOG` overrules `-v`.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Sets up tracing for this process; a second call changes nothing.
pub fn init(verbosity: u8) {
    let level = match verbosity {
        0 => "divvy=warn,sqlx=error",
        1 => "divvy=info,sqlx=warn",
        2 => "divvy=debug,sqlx=info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = if std::io::stderr().is_terminal() {
        builder.with_ansi(std::env::var_os("NO_COLOR").is_none()).try_init()
    } else {
        builder.json().try_init()
    };
    // Only a subscriber that somebody else has set makes this fail; theirs stays.
    outcome.ok();
}
