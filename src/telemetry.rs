//! Talk: to stderr, for people on a terminal and as JSON lines otherwise. `RUST_LOG` overrules `-v`.

use std::io::IsTerminal;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::prelude::*;

/// Sets up tracing for this process; a second call changes nothing.
pub fn init(verbosity: u8) {
    let level = match verbosity {
        0 => "divvy=warn,sqlx=error",
        1 => "divvy=info,sqlx=warn",
        2 => "divvy=debug,sqlx=info",
        _ => "trace",
    };
    let asked = std::env::var("RUST_LOG").ok().and_then(|asked| asked.parse::<Targets>().ok());
    let filter = asked.or_else(|| level.parse().ok()).unwrap_or_default();
    let (all, lines) = (tracing_subscriber::registry().with(filter), layer().with_writer(std::io::stderr));
    let outcome = if std::io::stderr().is_terminal() {
        all.with(lines.with_ansi(std::env::var_os("NO_COLOR").is_none())).try_init()
    } else {
        all.with(lines.json()).try_init()
    };
    // Only a subscriber that somebody else has set makes this fail; theirs stays.
    outcome.ok();
}
