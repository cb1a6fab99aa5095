//! The description of the interface: for programs, and as a page for people that needs nothing from elsewhere.

use super::Api;
use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::Arc;

const PAGE: &str = include_str!("reference.html");

/// Nothing but this page's own script and style is loaded, and only its own origin is asked.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";

/// `/openapi.json`, and `/docs` for people.
pub(super) fn routes(document: String) -> Router<Arc<Api>> {
    let document = Arc::<str>::from(document);
    Router::new()
        .route("/openapi.json", get(move || async move { text("application/json", document.to_string()) }))
        .route("/docs", get(async || page("text/html; charset=utf-8", PAGE)))
        .route("/docs/reference.js", get(async || page("text/javascript", include_str!("reference.js"))))
        .route("/docs/reference.css", get(async || page("text/css", include_str!("reference.css"))))
}

fn text(content_type: &'static str, text: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, content_type), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], text)
}

fn page(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, text)
}
