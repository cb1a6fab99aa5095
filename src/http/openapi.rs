//! The description of the interface, made of the routes themselves: OpenAPI 3.1.

use super::problem::Problem;
use super::route::{Route, Sent};
use axum::http::{Method, StatusCode};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The document.
pub(super) fn document(routes: &[Route], token_required: bool) -> Value {
    let mut generator = generator();
    let problem = json!(generator.subschema_for::<Problem>());
    let mut paths: Map<String, Value> = health();
    for route in routes {
        let operation = operation(route, &mut generator, &problem, token_required);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(path) = path {
            path.insert(route.method.as_str().to_ascii_lowercase(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "divvy",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A task queue and batch service that lives in the Postgres you already have. Ids are strings. \
                Errors are problem+json (RFC 9457) with the code of the protocol.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "made by divvy token create" },
            },
        },
    })
}

fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.meta_schema = None;
        settings.definitions_path = "/components/schemas".into();
    });
    settings.into_generator()
}

fn operation(route: &Route, generator: &mut SchemaGenerator, problem: &Value, token_required: bool) -> Value {
    let scopes: Vec<&str> = route.scopes.iter().map(|scope| scope.as_str()).collect();
    let mut security = vec![json!({ "token": scopes })];
    if !token_required {
        security.push(json!({}));
    }
    let mut description = format!("Needs one of the scopes {}.", scopes.join(", "));
    if route.gate.is_some() {
        security.clear();
        "Needs no token: the path is one.".clone_into(&mut description);
    }
    let mut parameters = path_parameters(route.path);
    let mut operation = json!({
        "operationId": operation_id(route),
        "tags": [route.path.split('/').nth(3).unwrap_or("metrics")],
        "summary": route.summary,
        "security": security,
        "description": description,
    });
    match route.sent {
        Sent::Query(describe) => parameters.extend(query_parameters(json!(describe(generator)))),
        Sent::Body(describe) => {
            let schema = json!(describe(generator));
            let required = schema_of(&schema, generator).get("required").is_some();
            operation["requestBody"] =
                json!({ "required": required, "content": { "application/json": { "schema": schema } } });
        }
    }
    if route.keyed {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "The same key with the same request is done once, and answered the same for 24 hours; with another request it is refused",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" },
        }));
    }
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    operation["responses"] = responses(route, json!((route.answer)(generator)), problem);
    operation
}

/// The schema itself where `schema` refers to one.
fn schema_of(schema: &Value, generator: &SchemaGenerator) -> Value {
    let name = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    match name.and_then(|name| generator.definitions().get(name)) {
        Some(named) => named.clone(),
        None => schema.clone(),
    }
}

fn responses(route: &Route, answer: Value, problem: &Value) -> Value {
    let mut responses = Map::new();
    for status in route.statuses {
        // A stream has no schema of its whole: what it carries is in its events.
        let content = match route.content_type {
            "application/json" => json!({ "application/json": { "schema": answer } }),
            other => json!({ other: {} }),
        };
        responses.insert(status.to_string(), json!({ "description": title(*status), "content": content }));
    }
    let common: &[u16] = match route.sent {
        Sent::Query(_) => &[400, 422, 500, 503],
        Sent::Body(_) => &[400, 408, 413, 415, 422, 500, 503],
    };
    let guarded: &[u16] = if route.gate.is_some() { &[] } else { &[401, 403] };
    let unknown: &[u16] = if route.path.contains('{') { &[404] } else { &[] };
    for status in common.iter().chain(guarded).chain(unknown).chain(route.problems) {
        let content = json!({ "application/problem+json": { "schema": problem } });
        responses.insert(status.to_string(), json!({ "description": title(*status), "content": content }));
    }
    Value::Object(responses)
}

fn title(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}

fn operation_id(route: &Route) -> String {
    let words =
        route.path.trim_start_matches("/api/v1/").split(['/', '{', '}']).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    format!("{}_{}", route.method.as_str().to_ascii_lowercase(), words.join("_"))
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| {
            let schema = match name {
                "task_id" | "split_id" => json!({ "type": "string", "pattern": "^[0-9]{1,18}$" }),
                "worker" => json!({ "type": "string", "format": "uuid" }),
                "token" => json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{64}$" }),
                _ => json!({ "type": "string", "pattern": "^[a-z0-9_.:-]{1,100}$" }),
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect()
}

fn query_parameters(schema: Value) -> Vec<Value> {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    properties
        .into_iter()
        .map(|(name, mut schema)| {
            let description = schema.as_object_mut().and_then(|object| object.remove("description"));
            let needed = required.iter().any(|one| *one == json!(name));
            let schema = without_null(schema);
            let mut parameter = json!({ "name": name, "in": "query", "required": needed, "schema": schema });
            if let Some(description) = description {
                parameter["description"] = description;
            }
            if parameter["schema"]["type"] == "array" {
                parameter["style"] = json!("form");
                parameter["explode"] = json!(false);
            }
            parameter
        })
        .collect()
}

/// A parameter that is not there is left out: none says null.
fn without_null(mut schema: Value) -> Value {
    let null = |kind: &Value| *kind == json!("null") || kind["type"] == "null";
    if let Some(kinds) = schema["type"].as_array() {
        let kinds: Vec<&Value> = kinds.iter().filter(|kind| !null(kind)).collect();
        if let [kind] = kinds.as_slice() {
            schema["type"] = (*kind).clone();
        }
    }
    let choices: Vec<Value> =
        schema["anyOf"].as_array().into_iter().flatten().filter(|one| !null(one)).cloned().collect();
    if let (Some(object), [only]) = (schema.as_object_mut(), choices.as_slice()) {
        object.remove("anyOf");
        object.extend(only.as_object().cloned().unwrap_or_default());
    }
    if let Some(object) = schema.as_object_mut()
        && object.get("default") == Some(&json!([]))
    {
        object.remove("default");
    }
    if schema["type"] == "null" {
        schema["type"] = json!("string");
    }
    clean(schema)
}

/// Indexing for a look leaves nulls behind.
fn clean(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    schema
}

fn health() -> Map<String, Value> {
    let probe = |summary: &str, statuses: &[u16]| {
        let responses: Map<String, Value> = statuses
            .iter()
            .map(|status| {
                let schema = json!({ "type": "object", "properties": { "status": { "type": "string" }, "reason": { "type": "string" } }, "required": ["status"] });
                let content = json!({ "application/json": { "schema": schema } });
                (status.to_string(), json!({ "description": title(*status), "content": content }))
            })
            .collect();
        let method = Method::GET.as_str().to_ascii_lowercase();
        json!({ method: { "operationId": summary.replace(' ', "_"), "tags": ["health"], "summary": summary, "security": [], "responses": responses } })
    };
    let mut paths = Map::new();
    paths.insert("/healthz".to_owned(), probe("The process answers", &[200]));
    paths.insert("/readyz".to_owned(), probe("It can work", &[200, 503]));
    paths
}
