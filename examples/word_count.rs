//! A batch job: a text is split into lines, each line's words are counted, the counts are added up.
//!
//! ```sh
//! DATABASE_URL=$(divvy db url) cargo run --example word_count
//! ```

use divvy::client::{Client, NewTask};
use divvy::handler::{Context, Handler, HandlerError, Inputs, Outcome};
use divvy::worker::Worker;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const TEXT: &str = "\
the quick brown fox jumps over the lazy dog
the dog sleeps and the fox runs on
a dog is a dog and a fox is a fox";

/// What the task is about.
#[derive(Serialize, Deserialize)]
struct Document {
    text: String,
}

struct WordCount;

impl Handler for WordCount {
    const TASK_TYPE: &'static str = "word_count";
    const PLAN: bool = true;
    const REDUCE: bool = true;
    type Payload = Document;
    type Share = String;
    type Output = BTreeMap<String, u64>;

    /// Runs once: one share for each line.
    async fn split(&self, context: &mut Context<'_>, document: &Document) -> Result<(), HandlerError> {
        context.add_splits(document.text.lines()).await?;
        Ok(())
    }

    /// Runs for each line, on any worker, several at once.
    async fn execute(
        &self,
        _: &mut Context<'_>,
        _: &Document,
        line: String,
    ) -> Result<Outcome<BTreeMap<String, u64>>, HandlerError> {
        let mut counts = BTreeMap::new();
        for word in line.split_whitespace() {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
        Ok(Outcome::Complete(counts))
    }

    /// Runs once, after the last line.
    async fn reduce(
        &self,
        context: &mut Context<'_>,
        _: &Document,
        mut lines: Inputs<BTreeMap<String, u64>>,
    ) -> Result<Outcome<Value>, HandlerError> {
        let mut total: BTreeMap<String, u64> = BTreeMap::new();
        while let Some(line) = lines.next(context).await? {
            for (word, count) in line.output.unwrap_or_default() {
                *total.entry(word).or_default() += count;
            }
        }
        Ok(Outcome::Complete(json!({ "lines": lines.succeeded(), "words": total })))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = divvy::store::pool::options().connect(&std::env::var("DATABASE_URL")?).await?;
    let stop = CancellationToken::new();
    let worker = Worker::builder(pool.clone()).handler(WordCount).slots(8).build()?;
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { worker.run(stop).await }
    });

    let client = Client::new(pool);
    let task = client.enqueue(NewTask::new("word_count", Document { text: TEXT.to_owned() })).await?.task_id;
    let end = client.wait(task, Duration::from_secs(60)).await?;
    let result = end.result.unwrap_or_default();
    println!("{} lines", result["lines"]);
    for word in ["dog", "fox", "the"] {
        println!("{word}: {}", result["words"][word]);
    }

    stop.cancel();
    println!("worker: {}", running.await??);
    Ok(())
}
