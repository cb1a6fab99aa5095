use crate::Result;
use serde_json::{Value, json};
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use tokio::io::{AsyncBufReadExt, BufReader};

/// One line for the runner.
pub fn say(event: &str, mut facts: Value) {
    facts["event"] = json!(event);
    let mut out = std::io::stdout().lock();
    // The runner may be gone; then nobody reads it.
    let _ = writeln!(out, "{facts}").and_then(|()| out.flush());
}

/// Waits until the runner says go.
pub async fn ready(settings: String) -> Result<()> {
    say("ready", json!({ "settings": settings }));
    let mut line = String::new();
    BufReader::new(tokio::io::stdin()).read_line(&mut line).await?;
    match line.trim() {
        "go" => Ok(()),
        other => Err(format!("the runner said {other:?} instead of go").into()),
    }
}

/// Says what went wrong.
pub fn fail(error: impl Display) -> ExitCode {
    say("failed", json!({ "reason": error.to_string() }));
    ExitCode::FAILURE
}
