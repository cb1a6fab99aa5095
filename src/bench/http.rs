//! `divvy bench http`: what it costs to put tasks in and to work by HTTP, beside the same without it.
//!
//! The service is a process of its own, as users run it; all clients are this one process. A task counts when its answer
//! has come, which the service sends after the commit.

mod client;
mod service;

use super::figure::{Figure, Series, Watch, rounded};
use super::payload::payload;
use super::pick_up::{Percentiles, Waits};
use super::report::{Counts, Report, grouped};
use super::screen::Progress;
use super::{Bench, drain, load};
use crate::apart::boxed;
use crate::store::{connect, enqueue};
use anyhow::{Context, Result, bail, ensure};
use client::Client;
use serde_json::{Value, json};
use service::Service;
use sqlx::PgConnection;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::task::JoinSet;

/// Splits of one claim by HTTP.
const CLAIM: usize = 100;
/// Tasks of the way with a single client: it waits for each commit.
const ALONE_PART: u64 = 20;

/// How many, by whom.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
pub struct Options {
    /// Tasks enqueued one by one
    #[arg(long, default_value_t = 50_000, value_name = "N", value_parser = clap::value_parser!(u64).range(100..))]
    pub tasks: u64,
    /// Connections that enqueue one by one
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: u32,
    /// Tasks enqueued in batches
    #[arg(long, default_value_t = 200_000, value_name = "N", value_parser = clap::value_parser!(u64).range(100..))]
    pub batched: u64,
    /// Tasks of a batch
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub batch: u64,
    /// Connections that enqueue in batches
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub batchers: u32,
    /// Connections that claim and complete
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub workers: u32,
}

/// One way to do it.
struct Way {
    series: Series,
    waits: Waits,
    service_seconds: Option<f64>,
}

impl Way {
    fn new(key: &str, name: impl Into<String>) -> Self {
        Self { series: Series::new(key, name), waits: Waits::default(), service_seconds: None }
    }

    fn figure(&self) -> Option<&Figure> {
        self.series.figures.first()
    }
}

/// Measures.
///
/// # Errors
/// When a step fails, or an answer is not the one expected.
pub async fn run(bench: &Bench, options: &Options) -> Result<Report> {
    let mut connection = connect::connect(&bench.direct).await?;
    let types = load::types(1);
    load::clean(&mut connection).await?;
    load::declare(&mut connection, &types, &json!({})).await?;
    let service = Service::start(&bench.direct).await?;
    let body = json!({ "task_type": types[0], "payload": serde_json::from_str::<Value>(&payload(0, 0, bench.payload_bytes))? }).to_string();
    let alone = (options.tasks / ALONE_PART).max(1);
    let mut ways = vec![direct(bench, &mut connection, &body, alone).await?];
    let one = Way::new("single_alone", "by HTTP, 1 connection");
    ways.push(enqueue(bench, &service, one, &body, alone, 1).await?);
    let many = Way::new("single", format!("by HTTP, {} connections", options.clients));
    ways.push(enqueue(bench, &service, many, &body, options.tasks, options.clients).await?);
    ways.push(batches(bench, &service, options, &body).await?);
    let made: u64 = ways.iter().filter_map(|way| way.figure().map(|figure| figure.count)).sum();
    let (_, open) = load::standing(&mut connection).await?;
    ensure!(open == made, "{made} tasks were answered for, {open} are there");
    load::vacuum(&mut connection).await?;
    let (worked, done) = work(bench, &service, options, &types[0], made).await?;
    ways.push(worked);
    let (succeeded, left_ready) = load::standing(&mut connection).await?;
    let mut counts = Counts { inserted: made, succeeded, handler_calls: done, left_ready };
    service.stop().await?;
    let mut beside = Way::new("worker", "a worker in Rust, 100 in flight");
    let drain = drain::Options {
        tasks: made,
        rounds: 1,
        in_flight: CLAIM,
        history: 0,
        backlog: 0,
        types: 1,
        slots_each: None,
    };
    let (figure, counted) = drain::drain(bench, &mut connection, &types, &drain).await?;
    beside.series.figures.push(figure);
    counts += counted;
    ways.push(beside);
    report(options, &ways, counts)
}

/// Enqueues by SQL on one connection: what a commit costs here.
async fn direct(bench: &Bench, connection: &mut PgConnection, body: &str, count: u64) -> Result<Way> {
    let mut way = Way::new("direct_alone", "by SQL, 1 connection");
    let task: Value = serde_json::from_str(body)?;
    let (task_type, payload, options) =
        (task["task_type"].as_str().unwrap_or_default(), &task["payload"], json!({}));
    let progress = Progress::new("by SQL", count);
    let watch = Watch::start(&bench.cpu);
    for at in 0..count {
        let began = Instant::now();
        enqueue::enqueue(&mut *connection, task_type, payload, &options).await?;
        way.waits.record(micros(began));
        progress.at(at);
    }
    way.series.figures.push(watch.read(count));
    Ok(way)
}

async fn enqueue(
    bench: &Bench,
    service: &Service,
    mut way: Way,
    body: &str,
    count: u64,
    clients: u32,
) -> Result<Way> {
    let (body, address) = (Arc::<str>::from(body), service.address);
    let left = Arc::new(AtomicU64::new(count));
    let progress = Progress::new(&way.series.name, count);
    let before = service.cpu(&bench.cpu);
    let watch = Watch::start(&bench.cpu);
    let mut running = JoinSet::new();
    for _ in 0..clients {
        running.spawn(boxed(one_by_one(address, body.clone(), left.clone())));
    }
    while let Some(waits) = running.join_next().await {
        way.waits.add(&waits??);
        progress.at(count - left.load(Ordering::Relaxed).min(count));
    }
    way.series.figures.push(watch.read(count));
    way.service_seconds = service.cpu(&bench.cpu).zip(before).map(|(now, then)| now - then);
    Ok(way)
}

async fn one_by_one(address: SocketAddr, body: Arc<str>, left: Arc<AtomicU64>) -> Result<Waits> {
    let mut client = Client::connect(address).await?;
    let mut waits = Waits::default();
    while take(&left, 1) > 0 {
        let began = Instant::now();
        let (status, answer) = client.post("/api/v1/tasks", &body).await?;
        ensure!(status == 201, "a task was answered with {status}: {answer}");
        waits.record(micros(began));
    }
    Ok(waits)
}

/// Takes up to `most` of what is left.
fn take(left: &AtomicU64, most: u64) -> u64 {
    let update = |now: u64| (now > 0).then(|| now.saturating_sub(most));
    let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    before.map_or(0, |before| before.min(most))
}

async fn batches(bench: &Bench, service: &Service, options: &Options, body: &str) -> Result<Way> {
    let name = format!("by HTTP, {} each, {} connections", grouped(options.batch), options.batchers);
    let mut way = Way::new("batch", name);
    let (body, address) = (Arc::<str>::from(body), service.address);
    let left = Arc::new(AtomicU64::new(options.batched));
    let progress = Progress::new("in batches", options.batched);
    let before = service.cpu(&bench.cpu);
    let watch = Watch::start(&bench.cpu);
    let mut running = JoinSet::new();
    for _ in 0..options.batchers {
        running.spawn(boxed(in_batches(address, body.clone(), left.clone(), options.batch)));
    }
    while let Some(waits) = running.join_next().await {
        way.waits.add(&waits??);
        progress.at(options.batched - left.load(Ordering::Relaxed));
    }
    way.series.figures.push(watch.read(options.batched));
    way.service_seconds = service.cpu(&bench.cpu).zip(before).map(|(now, then)| now - then);
    Ok(way)
}

async fn in_batches(address: SocketAddr, body: Arc<str>, left: Arc<AtomicU64>, batch: u64) -> Result<Waits> {
    let mut client = Client::connect(address).await?;
    let mut waits = Waits::default();
    loop {
        let count = usize::try_from(take(&left, batch))?;
        if count == 0 {
            return Ok(waits);
        }
        let tasks = format!("{{\"tasks\":[{}]}}", vec![&*body; count].join(","));
        let began = Instant::now();
        let (status, answer) = client.post("/api/v1/tasks/batch", &tasks).await?;
        ensure!(status == 201, "a batch was answered with {status}: {answer}");
        waits.record(micros(began));
    }
}

/// Claims and completes everything by HTTP, in batches.
async fn work(
    bench: &Bench,
    service: &Service,
    options: &Options,
    task_type: &str,
    count: u64,
) -> Result<(Way, u64)> {
    let mut way =
        Way::new("http_worker", format!("a worker by HTTP, {} × {CLAIM} in flight", options.workers));
    let done = Arc::new(AtomicU64::new(0));
    let worker = uuid::Uuid::new_v4();
    let mut client = Client::connect(service.address).await?;
    let name = format!("{}http", load::WORKER_PREFIX);
    let who = json!({ "worker": worker, "name": name, "task_types": [task_type], "slots": CLAIM });
    let (status, answer) = client.post("/api/v1/worker/register", &who.to_string()).await?;
    ensure!(status == 200, "registering was answered with {status}: {answer}");
    let progress = Progress::new("working by HTTP", count);
    let before = service.cpu(&bench.cpu);
    let watch = Watch::start(&bench.cpu);
    let mut running = JoinSet::new();
    for _ in 0..options.workers {
        running.spawn(boxed(claim_and_complete(
            service.address,
            worker,
            task_type.to_owned(),
            done.clone(),
            count,
        )));
    }
    while let Some(waits) = running.join_next().await {
        way.waits.add(&waits??);
        progress.at(done.load(Ordering::Relaxed));
    }
    let done = done.load(Ordering::Relaxed);
    way.series.figures.push(watch.read(done));
    way.service_seconds = service.cpu(&bench.cpu).zip(before).map(|(now, then)| now - then);
    Ok((way, done))
}

async fn claim_and_complete(
    address: SocketAddr,
    worker: uuid::Uuid,
    task_type: String,
    done: Arc<AtomicU64>,
    count: u64,
) -> Result<Waits> {
    let mut client = Client::connect(address).await?;
    let mut waits = Waits::default();
    let ask = json!({ "worker": worker, "task_types": [task_type], "max": CLAIM, "wait": 1 }).to_string();
    while done.load(Ordering::Relaxed) < count {
        let began = Instant::now();
        let (status, answer) = client.post("/api/v1/worker/claim", &ask).await?;
        ensure!(status == 200, "a claim was answered with {status}: {answer}");
        let claimed: Value = serde_json::from_str(&answer)?;
        let splits = claimed["splits"].as_array().context("no splits in an answer")?;
        if splits.is_empty() {
            continue;
        }
        let ended: Vec<Value> = splits
            .iter()
            .map(|split| json!({ "split_id": split["split_id"], "token": split["token"] }))
            .collect();
        let (status, answer) =
            client.post("/api/v1/worker/complete_many", &json!({ "splits": ended }).to_string()).await?;
        if status != 200 || answer.matches("\"ok\"").count() != ended.len() {
            bail!("completing was answered with {status}: {answer}");
        }
        waits.record(micros(began));
        done.fetch_add(ended.len() as u64, Ordering::Relaxed);
    }
    Ok(waits)
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn report(options: &Options, ways: &[Way], counts: Counts) -> Result<Report> {
    let title = format!(
        "http: {} tasks one by one, {} in batches, then all of them worked off; all clients are one process",
        grouped(options.tasks),
        grouped(options.batched)
    );
    let mut report = Report::new("http", title, options)?;
    for way in ways {
        report.series(&way.series);
    }
    for way in ways {
        let Percentiles { count, p50_ms, p99_ms, max_ms, .. } = way.waits.percentiles();
        if count == 0 {
            continue;
        }
        report.note(format!(
            "{}: median {p50_ms:.2} ms, p99 {p99_ms:.2} ms, worst {max_ms:.2} ms a request",
            way.series.name
        ));
        report.insert("requests", &way.series.key, serde_json::to_value(way.waits.percentiles())?);
        if let (Some(seconds), Some(figure)) = (way.service_seconds, way.figure()) {
            let us = seconds * 1e6 / figure.count.max(1) as f64;
            report.insert("service_us", &way.series.key, rounded(us, 2).into());
            report.note(format!("  the service used {us:.1} µs of CPU for each task"));
        }
    }
    report.counts(counts);
    Ok(report)
}
