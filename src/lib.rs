//! The Roost server: the edge over the replicated store, its configuration and its command line.
//!
//! Reading order: [`config`] and [`keys`] (what a node is told and owns), [`auth`] (tokens),
//! [`edge`] (listeners, sessions, HTTP), [`node`] (how it is all put together), [`cli`].

pub mod config;
pub mod keys;
pub mod auth;
pub mod open_files;
pub mod edge;
pub mod node;
pub mod cli;
