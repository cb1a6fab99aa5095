//! The smallest whole program: enqueue a task in a transaction of your own, run it, read its result.
//!
//! ```sh
//! DATABASE_URL=$(divvy db url) cargo run --example hello
//! ```

use divvy::client::{Client, NewTask};
use divvy::handler::{Context, Handler, HandlerError, Outcome};
use divvy::worker::Worker;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

struct Greet;

impl Handler for Greet {
    const TASK_TYPE: &'static str = "greet";
    type Payload = String;
    type Share = ();
    type Output = String;

    async fn execute(
        &self,
        _: &mut Context<'_>,
        name: &String,
        _: (),
    ) -> Result<Outcome<String>, HandlerError> {
        Ok(Outcome::Complete(format!("Hello, {name}!")))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = divvy::store::pool::options().connect(&std::env::var("DATABASE_URL")?).await?;

    let stop = CancellationToken::new();
    let worker = Worker::builder(pool.clone()).handler(Greet).slots(4).build()?;
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { worker.run(stop).await }
    });

    // Your own rows and the task commit together.
    let mut transaction = pool.begin().await?;
    let task = NewTask::new("greet", "Ada").enqueue_with(&mut *transaction).await?.task_id;
    transaction.commit().await?;

    let end = Client::new(pool).wait(task, Duration::from_secs(60)).await?;
    println!("task {}: {}", end.status, end.result.unwrap_or_default());

    stop.cancel();
    println!("worker: {}", running.await??);
    Ok(())
}
