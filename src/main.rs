//! The `divvy` program; everything it does is in [`divvy::cli`].

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    divvy::cli::main().await
}
