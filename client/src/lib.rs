//! The Rust client: one connection to one node ([`Connection`]), or a lasting one to a cluster
//! ([`Client`]).
//!
//! A [`Connection`] speaks the protocol over QUIC or WebSocket with many requests in flight, and
//! ends when its transport does. A [`Client`] stands on connections, one after the other: it finds
//! a node that answers, repeats what was not answered, and resumes the pushes, so that its consumer
//! sees each item once and in order whatever happens to nodes. Both offer the operations by the
//! trait [`Calls`].
//!
//! What it leaves to others: what a request means (the node), and storing items (the application;
//! with automatic acknowledgement off, it acknowledges what it has stored).

mod error;

mod options;

mod calls;

mod tls;

mod transport;

mod connection;

mod backoff;

mod items;

mod pending;

mod driver;

mod client;

pub use calls::{AddMembers, Ask, Calls, RemoveMembers};
pub use client::{AutoAck, Client, ClientOptions, FetchedToken, Link, TokenSource};
pub use connection::{Connection, PendingReply, Pushes};
pub use error::{ClientError, CloseReason};
pub use items::{Delivery, Items};
pub use options::{ConnectOptions, Endpoint, InvalidEndpoint, Transport, Trust};
pub use roost_protocol as protocol;
pub use transport::QuicSocket;
