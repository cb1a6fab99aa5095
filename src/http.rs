//! The HTTP service. A handler reads what was sent, calls one function of `sql/` through `src/store`, and writes what it
//! said: no rule is here.
//!
//! A file per noun has that noun's routes. [`route`] is what a route is, [`openapi`] describes them, [`auth`] knows who
//! asks, [`call`] does what is asked in their name, [`group`] commits single enqueues together.

mod alerts;
mod auth;
mod bulk;
mod calendars;
mod call;
mod callbacks;
mod connection;
mod counters;
mod events;
mod flow;
mod group;
mod health;
mod intake;
mod metrics;
mod new_schedule;
mod new_task;
mod openapi;
mod page;
mod problem;
mod reference;
mod route;
mod schedules;
mod splits;
mod stats;
mod stream;
mod task_actions;
mod tasks;
mod timeseries;
mod types;
mod wake;
mod watch;
mod worker;
mod workers;

pub use auth::{hash, new_token};
pub use connection::Patience;

use crate::store::{Store, pool};
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::get;
use problem::Problem;
use route::Route;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Streams of events at once: each asks the database twice a second.
const STREAMS_MAX: usize = 100;

/// What the routes share.
#[derive(Debug)]
struct Api {
    store: Store,
    tokens: auth::Tokens,
    group: group::Group,
    watch: watch::Watch,
    wake: wake::Wake,
    health: health::Health,
    /// Memory for large bodies, in KiB.
    bodies: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    metrics: metrics::Metrics,
    counters: counters::Counters,
    patience: Patience,
    /// The service is about to stop: who waits is answered.
    stop: CancellationToken,
}

/// The service, ready to be served.
#[derive(Debug)]
pub struct Service {
    api: Arc<Api>,
    token_required: bool,
}

impl Service {
    /// A service over the database behind `work`; `direct` leads to it without a pooler, for listening. It says that it is
    /// not ready, and lets nobody wait, from the moment `draining` is cancelled. With `token_required` nobody comes in
    /// without a token.
    pub fn new(
        work: PgPool,
        direct: PgConnectOptions,
        draining: CancellationToken,
        token_required: bool,
        patience: Patience,
    ) -> Self {
        let health = health::Health::new(work.connect_options().as_ref().clone(), draining.clone());
        let store = Store::new(work);
        let listening = Store::new(pool::options().max_connections(1).connect_lazy_with(direct));
        let api = Api {
            tokens: auth::Tokens::new(store.clone(), token_required),
            group: group::Group::start(&store),
            watch: watch::Watch::start(&store, draining.clone()),
            wake: wake::Wake::start(&listening, draining.clone()),
            health,
            bodies: Arc::new(Semaphore::new(intake::BODIES_KIB)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            metrics: metrics::Metrics::default(),
            counters: counters::Counters::default(),
            patience,
            stop: draining,
            store,
        };
        Self { api: Arc::new(api), token_required }
    }
}

/// Every route of the API.
fn routes() -> Vec<Route> {
    [
        tasks::routes(),
        task_actions::routes(),
        bulk::routes(),
        splits::routes(),
        types::routes(),
        schedules::routes(),
        calendars::routes(),
        workers::routes(),
        stats::routes(),
        metrics::routes(),
        timeseries::routes(),
        alerts::routes(),
        events::routes(),
        worker::routes(),
        callbacks::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn router(service: Service) -> Router {
    let routes = routes();
    let document = openapi::document(&routes, service.token_required).to_string();
    let mut router = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .merge(reference::routes(document));
    for route in routes {
        router = route.serve(router);
    }
    router
        .fallback(async |request: Request| Problem::unknown("resource", request.uri().path()))
        .method_not_allowed_fallback(async |request: Request| {
            let detail = format!("{} does not take {}", request.uri().path(), request.method());
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail)
        })
        .with_state(service.api)
}

/// Serves on `listener` until `stop`; requests that have begun are answered, for at most five seconds.
pub async fn serve(listener: TcpListener, service: Service, stop: CancellationToken) {
    let patience = service.api.patience;
    connection::serve(listener, router(service), patience, stop).await;
}
