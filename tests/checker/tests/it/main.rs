//! The checker held to histories whose verdict is known: written by hand, and of a simulated
//! service that keeps its promises until one event is spoilt.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod by_hand;
mod changing;
mod properties;
mod service;
mod support;
