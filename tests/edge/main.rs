//! The edge against a node in the test's own process: each transport, and the HTTP API.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;
mod websocket;
mod quic;
mod http;
mod bounds;
mod crowd;
mod installing;
