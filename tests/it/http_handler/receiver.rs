//! A receiver: an HTTP server of the test's own, which keeps what it got.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Response};
use serde_json::Value;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request.
#[derive(Debug, Clone)]
pub struct Got {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub json: Value,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }
}

/// Status, headers and body.
pub type Says = (u16, Vec<(&'static str, String)>, String);
type Answering = Pin<Box<dyn Future<Output = Says> + Send>>;

pub struct Receiver {
    pub address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    served: JoinHandle<()>,
}

impl Receiver {
    pub async fn new(answer: impl Fn(Got) -> Answering + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let (kept, answer) = (got.clone(), Arc::new(answer));
        let router = Router::new().fallback(move |request: Request| {
            let (kept, answer) = (kept.clone(), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, usize::MAX).await.unwrap_or_default().to_vec();
                let json = serde_json::from_slice(&body).unwrap_or_default();
                let path = parts.uri.to_string();
                let one = Got { path, headers: parts.headers, body, json };
                kept.lock().unwrap().push(one.clone());
                let (status, headers, body) = answer(one).await;
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                response.body(Body::from(body)).unwrap()
            }
        });
        let served = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, got, served }
    }

    /// Says the same to everything.
    pub async fn always(status: u16, body: &'static str) -> Self {
        Self::new(move |_| Box::pin(async move { (status, vec![], body.to_owned()) })).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far.
    pub fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.served.abort();
    }
}
