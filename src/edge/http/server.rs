//! The TCP listener: HTTP/1.1, with a bound on connections and on how long a client may take to
//! say what it wants.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::router;
use crate::edge::Context;

/// Most bytes of a request's head.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// How long to wait when the operating system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until the node stops.
pub(crate) async fn serve(context: Arc<Context>, listener: TcpListener) {
    let router = router(&context);
    let mut stopping = pin!(context.stopping());
    loop {
        // A permit before the accept: who has to wait, waits in the operating system's queue.
        let permit = context.gate.http().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopping.as_mut() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (context, router) = (Arc::clone(&context), router.clone());
                tokio::spawn(async move {
                    connection(&context, stream, router).await;
                    drop(permit);
                });
            }
            Err(why) => {
                tracing::warn!(%why, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(context: &Context, stream: TcpStream, router: Router) {
    // Small frames must not wait for each other.
    let _ = stream.set_nodelay(true);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(context.options.connect_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let mut serving = pin!(serving);
    tokio::select! {
        // How a connection ended is its client's affair.
        _ = serving.as_mut() => {}
        () = context.stopping() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}
