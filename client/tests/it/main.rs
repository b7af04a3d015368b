//! The client against nodes in the test's own process, over real sockets.

#[cfg(test)]
mod support;

mod connection;

mod lasting;
