//! What a route is: one value that is served and described, so that the description can't say anything else.

use super::Api;
use super::auth::{Scope, Who};
use super::call::{Answer, Call};
use super::intake;
use super::problem::Problem;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::Instant;

type Told = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;
type Run = Arc<dyn Fn(Call, Bytes) -> Told + Send + Sync>;
/// Describes a type.
pub(super) type Describe = fn(&mut SchemaGenerator) -> Schema;

/// Whether what a path has lets somebody in.
pub(super) type Gate = fn(Arc<Api>, HashMap<String, String>) -> Passing;
/// What a gate says.
pub(super) type Passing = Pin<Box<dyn Future<Output = Result<(), Problem>> + Send>>;

/// What is sent along.
#[derive(Clone, Copy)]
pub(super) enum Sent {
    /// Parameters behind the path.
    Query(Describe),
    /// A JSON body.
    Body(Describe),
}

/// One route.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    /// One of these is needed; none: anybody who comes in.
    pub(super) scopes: &'static [Scope],
    pub(super) sent: Sent,
    pub(super) answer: Describe,
    pub(super) statuses: &'static [u16],
    pub(super) content_type: &'static str,
    /// Statuses of problems beside those that every route has.
    pub(super) problems: &'static [u16],
    /// Whether it takes an Idempotency-Key.
    pub(super) keyed: bool,
    /// What its path has lets somebody in, if this says so; no token is asked for.
    pub(super) gate: Option<Gate>,
    run: Run,
}

/// A route that looks: GET with parameters `Q`.
pub(super) fn get<Q, T, F, Fut>(path: &'static str, summary: &'static str, run: F) -> Route
where
    Q: DeserializeOwned + JsonSchema + Send + 'static,
    T: JsonSchema + 'static,
    F: Fn(Call, Q) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = Result<Answer<T>, Problem>> + Send + 'static,
{
    let run = move |call: Call, query: Bytes| -> Told {
        let run = run.clone();
        match intake::query::<Q>(&query) {
            Ok(query) => Box::pin(async move { run(call, query).await.map(Answer::into_response) }),
            Err(problem) => Box::pin(std::future::ready(Err(problem))),
        }
    };
    Route::new::<T>(Method::GET, path, summary, Sent::Query(Q::json_schema), Arc::new(run))
}

/// A route that takes something away: DELETE, without a body.
pub(super) fn delete<T, F, Fut>(path: &'static str, summary: &'static str, run: F) -> Route
where
    T: JsonSchema + 'static,
    F: Fn(Call, Nothing) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = Result<Answer<T>, Problem>> + Send + 'static,
{
    let mut route = get(path, summary, run);
    route.method = Method::DELETE;
    route
}

/// A route that does something: a JSON body `B`.
pub(super) fn send<B, T, F, Fut>(method: Method, path: &'static str, summary: &'static str, run: F) -> Route
where
    B: DeserializeOwned + JsonSchema + Send + 'static,
    T: JsonSchema + 'static,
    F: Fn(Call, B) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = Result<Answer<T>, Problem>> + Send + 'static,
{
    let run = move |call: Call, body: Bytes| -> Told {
        let run = run.clone();
        match intake::body::<B>(&body) {
            Ok(body) => Box::pin(async move { run(call, body).await.map(Answer::into_response) }),
            Err(problem) => Box::pin(std::future::ready(Err(problem))),
        }
    };
    let mut route = Route::new::<T>(
        method,
        path,
        summary,
        Sent::Body(|generator| generator.subschema_for::<B>()),
        Arc::new(run),
    );
    route.keyed = route.method == Method::POST;
    route
}

/// POST with a JSON body.
pub(super) fn post<B, T, F, Fut>(path: &'static str, summary: &'static str, run: F) -> Route
where
    B: DeserializeOwned + JsonSchema + Send + 'static,
    T: JsonSchema + 'static,
    F: Fn(Call, B) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = Result<Answer<T>, Problem>> + Send + 'static,
{
    send(Method::POST, path, summary, run)
}

impl Route {
    fn new<T: JsonSchema>(
        method: Method,
        path: &'static str,
        summary: &'static str,
        sent: Sent,
        run: Run,
    ) -> Self {
        Self {
            method,
            path,
            summary,
            scopes: &[],
            sent,
            answer: |generator| generator.subschema_for::<T>(),
            statuses: &[200],
            content_type: "application/json",
            problems: &[],
            keyed: false,
            gate: None,
            run,
        }
    }

    /// Who may come in.
    pub(super) fn to(mut self, scopes: &'static [Scope]) -> Self {
        self.scopes = scopes;
        self
    }

    /// The statuses of good answers, instead of 200.
    pub(super) fn answers(mut self, statuses: &'static [u16]) -> Self {
        self.statuses = statuses;
        self
    }

    /// Problems of its own.
    pub(super) fn fails(mut self, problems: &'static [u16]) -> Self {
        self.problems = problems;
        self
    }

    /// It takes no Idempotency-Key: its lease token says already what is done once.
    pub(super) fn unkeyed(mut self) -> Self {
        self.keyed = false;
        self
    }

    /// It asks for no token, wherever the request comes from: what its path has is looked at instead, before anything is read.
    pub(super) fn without_token(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Its answer is no JSON.
    pub(super) fn flows(mut self, content_type: &'static str) -> Self {
        self.content_type = content_type;
        self
    }

    /// Puts it into a router.
    pub(super) fn serve(self, router: Router<Arc<Api>>) -> Router<Arc<Api>> {
        let Ok(filter) = MethodFilter::try_from(self.method.clone()) else { return router };
        let path = self.path;
        let route = Arc::new(self);
        let handler = move |State(api): State<Arc<Api>>,
                            path: Result<Path<HashMap<String, String>>, PathRejection>,
                            request: Request<Body>| {
            let route = route.clone();
            async move {
                let began = Instant::now();
                let answer = match path {
                    Ok(Path(path)) => route.answer_to(api.clone(), path, request).await,
                    Err(error) => Err(Problem::malformed(error.body_text())),
                };
                let answer = answer.unwrap_or_else(Problem::into_response);
                api.counters.add(
                    route.method.as_str(),
                    route.path,
                    answer.status().as_u16(),
                    began.elapsed(),
                );
                answer
            }
        };
        router.route(path, on(filter, handler))
    }

    async fn answer_to(
        &self,
        api: Arc<Api>,
        path: HashMap<String, String>,
        request: Request<Body>,
    ) -> Result<Response, Problem> {
        let who = match self.gate {
            Some(gate) => {
                gate(api.clone(), path.clone()).await?;
                Who::nobody()
            }
            None => api.tokens.who(request.headers()).await?,
        };
        who.check(self.scopes)?;
        let (parts, body) = request.into_parts();
        let key = match self.sent {
            Sent::Query(_) => None,
            Sent::Body(_) => intake::key(&parts.headers, self.keyed)?,
        };
        let sent: intake::Taken = match self.sent {
            Sent::Query(_) => Bytes::copy_from_slice(parts.uri.query().unwrap_or_default().as_bytes()).into(),
            Sent::Body(_) => {
                without_query(parts.uri.query())?;
                intake::read(&api, &parts.headers, body).await?
            }
        };
        let keyed = key.map(|key| intake::keyed(&who, &parts.method, parts.uri.path(), key, &sent.bytes));
        (self.run)(Call { api, who, path, keyed }, sent.bytes.clone()).await
    }
}

fn without_query(query: Option<&str>) -> Result<(), Problem> {
    match query {
        None | Some("") => Ok(()),
        Some(query) => {
            Err(Problem::invalid(format!("this takes no parameters behind the path, not {query:?}")))
        }
    }
}

/// Whether a body is said to be JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(axum::http::header::CONTENT_TYPE).and_then(|given| given.to_str().ok());
    let kind = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// Nothing: a type for routes that take no parameters.
#[derive(Debug, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}
