//! HTTP, for the application's back end, for operators, and as the door to the WebSocket.
//!
//! [`routes`] is the one list of what there is, with who may call it; the router is built from it,
//! and a test holds it against `openapi.json`. Errors are JSON with the client protocol's codes
//! ([`error`]). Everything under `/v1` but the WebSocket takes an administrator's token.

mod error;
mod server;
mod guard;
mod input;
mod health;
mod tokens;
mod conversations;
mod users;
mod cluster;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodFilter, MethodRouter, on};
use roost_protocol::WEBSOCKET_PATH;
use roost_protocol::limits::MAX_FRAME_BYTES;

use super::{Context, ws};

pub(crate) use error::ApiError;
pub(crate) use server::serve;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Everybody.
    Public,
    /// An administrator's token.
    Admin,
}

/// One route.
struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests compare it with openapi.json"))]
    method: Method,
    path: &'static str,
    access: Access,
    handler: MethodRouter<Arc<Context>>,
}

/// Everything that there is.
fn routes() -> Vec<Route> {
    use Access::{Admin, Public};
    vec![
        route(Method::GET, "/healthz", Public, health::healthz),
        route(Method::GET, "/readyz", Public, health::readyz),
        route(Method::GET, "/metrics", Public, health::metrics),
        route(Method::GET, "/openapi.json", Public, health::openapi),
        route(Method::GET, WEBSOCKET_PATH, Public, ws::upgrade),
        route(Method::POST, "/v1/tokens", Admin, tokens::create),
        route(Method::POST, "/v1/conversations", Admin, conversations::create),
        route(Method::GET, "/v1/conversations/{id}", Admin, conversations::show),
        route(Method::DELETE, "/v1/conversations/{id}", Admin, conversations::delete),
        route(
            Method::PUT,
            "/v1/conversations/{id}/members/{user}",
            Admin,
            conversations::add_member,
        ),
        route(
            Method::DELETE,
            "/v1/conversations/{id}/members/{user}",
            Admin,
            conversations::remove_member,
        ),
        route(Method::POST, "/v1/conversations/{id}/messages", Admin, conversations::send),
        route(Method::GET, "/v1/users/{user}/queue", Admin, users::queue),
        route(Method::GET, "/v1/users/{user}/devices", Admin, users::devices),
        route(Method::GET, "/v1/cluster", Admin, cluster::show),
    ]
}

fn route<H, T>(method: Method, path: &'static str, access: Access, handler: H) -> Route
where
    H: Handler<T, Arc<Context>>,
    T: 'static,
{
    let filter = MethodFilter::try_from(method.clone()).expect("a method that axum routes");
    Route { method, path, access, handler: on(filter, handler) }
}

/// The router.
fn router(context: &Arc<Context>) -> Router {
    let mut router = Router::new();
    for Route { path, access, handler, .. } in routes() {
        let handler = match access {
            Access::Public => handler,
            Access::Admin => {
                handler.layer(from_fn_with_state(Arc::clone(context), guard::require_admin))
            }
        };
        router = router.route(path, handler);
    }
    router
        .fallback(error::no_such_route)
        .method_not_allowed_fallback(error::no_such_method)
        // The longest body in its longest JSON form fits, as it does in a frame.
        .layer(DefaultBodyLimit::max(MAX_FRAME_BYTES))
        .layer(from_fn(guard::in_time))
        .layer(from_fn_with_state(Arc::clone(context), guard::count))
        .with_state(Arc::clone(context))
}
