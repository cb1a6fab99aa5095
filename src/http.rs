//! The HTTP service: the route table is the whole interface on one page.
//!
//! For now it answers whether the process lives and whether it can work; the API comes with its issue.

mod health;

pub use health::Service;

use axum::Router;
use axum::routing::get;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long requests that have begun may take once the service stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Every route.
fn routes(service: Service) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .with_state(Arc::new(service))
}

/// Serves on `listener` until `stop`; requests that have begun are answered, for at most five seconds.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, service: Service, stop: CancellationToken) -> std::io::Result<()> {
    let stopped = stop.clone().cancelled_owned();
    let server = axum::serve(listener, routes(service)).with_graceful_shutdown(stopped);
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        ended = server => ended,
        () = overdue => Ok(()),
    }
}
